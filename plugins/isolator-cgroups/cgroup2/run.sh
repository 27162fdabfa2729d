#!/usr/bin/env bash
# Runs the tests of isolator-cgroups on a kernel with cgroup v2 alone: boots
# Debian's kernel in QEMU (software emulation, no /dev/kvm needed) with the test
# binary, and ends with its result. Arguments go to the test binary, for
# example: run.sh -test.run Memory
#
# Needs Go and the Debian packages qemu-system-x86, cpio, kmod, busybox-static,
# and apt to download a kernel, which is unpacked and never installed. It is
# kept in CACHE (default: .cache/cgroup2 in the repository).
set -euo pipefail

top=$(cd "$(dirname "$0")/../../.." && pwd)
cache=${CACHE:-$top/.cache/cgroup2}
limit=${LIMIT:-330} # seconds, for the virtual machine
mkdir -p "$cache"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

for program in qemu-system-x86_64 cpio dpkg-deb apt-get; do
	command -v "$program" >/dev/null || { echo "cgroup2: $program is missing; run 'make deps'" >&2; exit 1; }
done
busybox=$(command -v busybox || true)
[ -n "$busybox" ] || { echo "cgroup2: busybox-static is missing; run 'make deps'" >&2; exit 1; }

kernel=$(ls "$cache"/vmlinuz-* 2>/dev/null | head -n 1 || true)
if [ -z "$kernel" ] || [ ! -f "$cache/brd.ko" ]; then
	kernel_package() { apt-cache depends linux-image-amd64 2>/dev/null | awk '/Depends: linux-image-[0-9]/ { print $2; exit }'; }
	package=$(kernel_package)
	if [ -z "$package" ] && apt-get update -qq; then package=$(kernel_package); fi
	[ -n "$package" ] || { echo "cgroup2: apt knows no kernel; run 'apt-get update'" >&2; exit 1; }
	(cd "$work" && apt-get download -q "$package" >/dev/null && dpkg-deb --fsys-tarfile linux-image-*.deb | tar -x --wildcards './boot/vmlinuz-*' '*/drivers/block/brd.ko*')
	rm -f "$cache"/vmlinuz-*
	find "$work" -name 'brd.ko.xz' -exec xz -d {} +
	find "$work" -name 'brd.ko' -exec mv {} "$cache/brd.ko" \; # a block device, in memory
	mv "$work"/boot/vmlinuz-* "$cache/"
	kernel=$(ls "$cache"/vmlinuz-* | head -n 1)
fi

# The root file system: busybox, the test binary and the shim.
root=$work/root
mkdir -p "$root"/{bin,usr/bin,proc,sys,dev/pts,tmp,etc,root}
cp "$busybox" "$root/bin/busybox"
cp "$cache/brd.ko" "$root/"
cd "$top"
CGO_ENABLED=0 go test -c -trimpath -ldflags='-s -w' -o "$root/isolator.test" ./plugins/isolator-cgroups
CGO_ENABLED=0 go build -trimpath -ldflags='-s -w' -o "$root/mezzo-shim" ./plugins/isolator-cgroups/shim
echo 'root:x:0:0:root:/root:/bin/sh
nobody:x:65534:65534:nobody:/:/bin/sh' >"$root/etc/passwd"
printf '%s\n' "$@" >"$root/arguments"
cat >"$root/init" <<'INIT'
#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin:/usr/bin HOME=/root TMPDIR=/tmp
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
insmod /brd.ko rd_nr=1 rd_size=8192
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts -o ptmxmode=666
mount -t tmpfs tmpfs /tmp -o mode=1777
mount -t cgroup2 none /sys/fs/cgroup
chmod 755 / /isolator.test /mezzo-shim
export MEZZO_TEST_SHIM=/mezzo-shim
cd /root
echo "controllers: $(cat /sys/fs/cgroup/cgroup.controllers), $(uname -r)"
status=0
# As root…
xargs /isolator.test -test.v -test.timeout=240s </arguments || status=1
# …with a controller that only v1 has…
mkdir /sys/fs/cgroup/net_cls
mount -t cgroup -o net_cls none /sys/fs/cgroup/net_cls
/isolator.test -test.v -test.timeout=60s -test.run TestNetClassOfKernel || status=1
umount /sys/fs/cgroup/net_cls
rmdir /sys/fs/cgroup/net_cls
# …and as a user to whom a subtree is delegated.
echo '+cpu +memory +pids' >/sys/fs/cgroup/cgroup.subtree_control
mkdir -p /sys/fs/cgroup/delegated/agent
echo '+cpu +memory +pids' >/sys/fs/cgroup/delegated/cgroup.subtree_control
chown -R nobody /sys/fs/cgroup/delegated
(echo 0 >/sys/fs/cgroup/delegated/agent/cgroup.procs
 MEZZO_TEST_DELEGATED=1 exec /isolator.test -test.v -test.timeout=60s -test.run TestDelegated) || status=1
echo "RESULT $status"
poweroff -f
INIT
chmod 755 "$root/init"
(cd "$root" && find . | cpio -o -H newc --quiet | gzip -1) >"$work/initrd.gz"

echo "cgroup2: booting $(basename "$kernel")"
timeout "$limit" qemu-system-x86_64 -machine q35 -accel tcg -cpu max -m 1024 -smp 2 -nographic -nodefaults \
	-serial stdio -no-reboot -kernel "$kernel" -initrd "$work/initrd.gz" \
	-append "console=ttyS0 quiet panic=-1 loglevel=3" </dev/null | tr -d '\r' | tee "$work/output"
if grep -q '^RESULT 0$' "$work/output"; then
	echo "cgroup2: passed"
else
	echo "cgroup2: FAILED (or not done within $limit s)" >&2
	exit 1
fi
