#!/usr/bin/env bash
# Runs the tests of the isolators on a kernel with cgroup v2 alone: boots Debian's
# kernel in QEMU (software emulation, no /dev/kvm needed) with the test binaries,
# containerd and runc, and ends with their result.
#
#	run.sh                                   all of it
#	run.sh cgroups [FLAGS OF THE TESTS]      isolator-cgroups alone
#	run.sh containerd -test.run TestMemory   isolator-containerd alone
#
# Needs Go and the Debian packages qemu-system-x86, cpio, kmod, busybox-static,
# containerd, runc, and apt to download a kernel, which is unpacked and never
# installed. It is kept in CACHE (default: .cache/cgroup2 in the repository).
set -euo pipefail

top=$(cd "$(dirname "$0")/../../.." && pwd)
cache=${CACHE:-$top/.cache/cgroup2}
limit=${LIMIT:-600} # seconds, for the virtual machine
which=both
case "${1:-}" in cgroups | containerd) which=$1 && shift ;; esac
# What differs with cgroup v2; the rest is tested on the host.
[ $which != both ] || containerd_flags='-test.run=^(TestLimits|TestMemory|TestDeviceInGroup)$'
mkdir -p "$cache"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

for program in qemu-system-x86_64 cpio dpkg-deb apt-get containerd runc containerd-shim-runc-v2; do
	command -v "$program" >/dev/null || { echo "cgroup2: $program is missing; run 'make deps'" >&2; exit 1; }
done
busybox=$(command -v busybox || true)
[ -n "$busybox" ] || { echo "cgroup2: busybox-static is missing; run 'make deps'" >&2; exit 1; }

modules=(brd overlay) # a block device in memory; what images are unpacked into
have_modules() { for m in "${modules[@]}"; do [ -f "$cache/$m.ko" ] || return 1; done; }
kernel=$(ls "$cache"/vmlinuz-* 2>/dev/null | head -n 1 || true)
if [ -z "$kernel" ] || ! have_modules; then
	kernel_package() { apt-cache depends linux-image-amd64 2>/dev/null | awk '/Depends: linux-image-[0-9]/ { print $2; exit }'; }
	package=$(kernel_package)
	if [ -z "$package" ] && apt-get update -qq; then package=$(kernel_package); fi
	[ -n "$package" ] || { echo "cgroup2: apt knows no kernel; run 'apt-get update'" >&2; exit 1; }
	(cd "$work" && apt-get download -q "$package" >/dev/null && dpkg-deb --fsys-tarfile linux-image-*.deb |
		tar -x --wildcards './boot/vmlinuz-*' '*/drivers/block/brd.ko*' '*/fs/overlayfs/overlay.ko*')
	rm -f "$cache"/vmlinuz-*
	find "$work" -name '*.ko.xz' -exec xz -d {} +
	for m in "${modules[@]}"; do find "$work" -name "$m.ko" -exec mv {} "$cache/" \;; done
	mv "$work"/boot/vmlinuz-* "$cache/"
	kernel=$(ls "$cache"/vmlinuz-* | head -n 1)
fi

# The root file system: busybox, the test binaries, and what they start.
root=$work/root
mkdir -p "$root"/{bin,usr/bin,proc,sys,dev/pts,tmp,etc,root,run,r}
cp "$busybox" "$root/bin/busybox"
for m in "${modules[@]}"; do cp "$cache/$m.ko" "$root/"; done
cd "$top"
go_build() { CGO_ENABLED=0 go build -trimpath -ldflags='-s -w' -o "$root/$1" "./plugins/$2"; }
go_test() { CGO_ENABLED=0 go test -c -trimpath -ldflags='-s -w' -o "$root/$1.test" "./plugins/isolator-$1"; }
go_build mezzo-shim isolator-cgroups/shim
[ $which = containerd ] || go_test cgroups
if [ $which != cgroups ]; then
	go_test containerd
	go_build mezzo-init isolator-containerd/init
	for program in containerd runc containerd-shim-runc-v2; do
		path=$(command -v $program)
		cp "$path" "$root/usr/bin/"
		{ ldd "$path" || true; } | awk '{ for (i = 1; i <= NF; i++) if ($i ~ "^/") print $i }' | while read -r library; do
			mkdir -p "$root$(dirname "$library")"
			cp -L -n "$library" "$root$library"
		done
	done
fi
echo 'root:x:0:0:root:/root:/bin/sh
nobody:x:65534:65534:nobody:/:/bin/sh' >"$root/etc/passwd"
printf '%s\n' "$@" >"$root/arguments"
printf '%s\n' "${containerd_flags-$(printf '%s\n' "$@")}" >"$root/arguments.containerd"
cat >"$root/init" <<'INIT'
#!/bin/busybox sh
# The kernel's first file system cannot be pivoted away from, as runc does; a
# mount of it can.
/bin/busybox mount --bind / /r
cd /r
/bin/busybox mount --move . /
exec /bin/busybox chroot . /tests
INIT
cat >"$root/tests" <<'TESTS'
#!/bin/busybox sh
cd /
/bin/busybox --install -s /bin
export PATH=/bin:/usr/bin HOME=/root TMPDIR=/tmp
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
insmod /brd.ko rd_nr=1 rd_size=8192
insmod /overlay.ko
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts -o ptmxmode=666
for dir in /tmp /run; do mount -t tmpfs tmpfs $dir -o mode=1777; done
mount -t cgroup2 none /sys/fs/cgroup
ip link set lo up
chmod 755 / /*.test /mezzo-*
export MEZZO_TEST_SHIM=/mezzo-shim MEZZO_TEST_PROGRAMS=/
cd /root
echo "controllers: $(cat /sys/fs/cgroup/cgroup.controllers), $(uname -r)"
status=0
if [ -f /containerd.test ]; then
	xargs /containerd.test -test.v -test.timeout=300s </arguments.containerd || status=1
fi
if [ -f /cgroups.test ]; then
	# As root…
	xargs /cgroups.test -test.v -test.timeout=300s </arguments || status=1
	# …with a controller that only v1 has…
	mkdir /sys/fs/cgroup/net_cls
	mount -t cgroup -o net_cls none /sys/fs/cgroup/net_cls
	/cgroups.test -test.v -test.timeout=60s -test.run TestNetClassOfKernel || status=1
	umount /sys/fs/cgroup/net_cls
	rmdir /sys/fs/cgroup/net_cls
	# …and as a user to whom a subtree is delegated.
	echo '+cpu +memory +pids' >/sys/fs/cgroup/cgroup.subtree_control
	mkdir -p /sys/fs/cgroup/delegated/agent
	echo '+cpu +memory +pids' >/sys/fs/cgroup/delegated/cgroup.subtree_control
	chown -R nobody /sys/fs/cgroup/delegated
	(echo 0 >/sys/fs/cgroup/delegated/agent/cgroup.procs
	 MEZZO_TEST_DELEGATED=1 exec /cgroups.test -test.v -test.timeout=60s -test.run TestDelegated) || status=1
fi
echo "RESULT $status"
poweroff -f
TESTS
chmod 755 "$root/init" "$root/tests"
# Not compressed: the emulated processor would take longer to unpack it.
(cd "$root" && find . | cpio -o -H newc --quiet) >"$work/initrd"

echo "cgroup2: booting $(basename "$kernel")"
timeout "$limit" qemu-system-x86_64 -machine q35 -accel tcg -cpu max -m 2048 -smp 2 -nographic -nodefaults \
	-serial stdio -no-reboot -kernel "$kernel" -initrd "$work/initrd" \
	-append "console=ttyS0 quiet panic=-1 loglevel=3" </dev/null | tr -d '\r' | tee "$work/output"
if grep -q '^RESULT 0$' "$work/output"; then
	echo "cgroup2: passed"
else
	echo "cgroup2: FAILED (or not done within $limit s)" >&2
	exit 1
fi
