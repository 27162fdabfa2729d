package main

import (
	"errors"
	"os"
	"strconv"
	"unsafe"

	"github.com/mezzo-os/mezzo/plugins/internal/record"
	"golang.org/x/sys/unix"
)

// copyMounts goes on in a copy of the mount namespace that was joined, so that
// what is mounted from here on is this container's alone.
func copyMounts() error {
	return failure("copy the mount namespace", unix.Unshare(unix.CLONE_NEWNS))
}

// hidePaths covers the masked paths and makes others read-only. What is not
// there needs neither.
func hidePaths(r record.Record) error {
	for _, path := range r.All(record.Masked) {
		info, err := os.Stat(path)
		if err != nil {
			continue
		}
		if info.IsDir() {
			err = unix.Mount("tmpfs", path, "tmpfs", unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "size=0,mode=0755")
		} else {
			err = unix.Mount("/dev/null", path, "", unix.MS_BIND, "")
		}
		if err != nil {
			return failure("mask "+path, err)
		}
	}
	for _, path := range r.All(record.Readonly) {
		if _, err := os.Stat(path); err != nil {
			continue
		}
		if err := unix.Mount(path, path, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
			return failure("make "+path+" read-only", err)
		}
		if err := readOnly(path); err != nil {
			return failure("make "+path+" read-only", err)
		}
	}
	return nil
}

// readOnly makes a mount read-only, with those below it where the kernel can
// (Linux 5.12).
func readOnly(path string) error {
	err := unix.MountSetattr(unix.AT_FDCWD, path, unix.AT_RECURSIVE, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY})
	if !errors.Is(err, unix.ENOSYS) {
		return err
	}
	return unix.Mount("", path, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY|held(path), "")
}

// held are the flags that a mount has and a remount must repeat.
func held(path string) uintptr {
	var fs unix.Statfs_t
	if unix.Statfs(path, &fs) != nil {
		return 0
	}
	return uintptr(fs.Flags) & (unix.MS_RDONLY | unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC)
}

// filterCalls installs the filter of system calls, a program of the kernel's
// own form that the plugin has made, on this thread, which will execute the
// task. It needs either no_new_privs or CAP_SYS_ADMIN.
func filterCalls(r record.Record) error {
	text := r.Get(record.Seccomp)
	if text == "" {
		return nil
	}
	const digits = 16 // an instruction: code 4, jumps 2 and 2, constant 8
	var program []unix.SockFilter
	for ; len(text) >= digits; text = text[digits:] {
		n, err := strconv.ParseUint(text[:digits], 16, 64)
		if err != nil {
			return failure("malformed filter of system calls", err)
		}
		program = append(program, unix.SockFilter{Code: uint16(n >> 48), Jt: uint8(n >> 40), Jf: uint8(n >> 32), K: uint32(n)})
	}
	if len(program) == 0 || text != "" {
		return errors.New("malformed filter of system calls")
	}
	filter := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	return failure("install the filter of system calls",
		unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&filter)), 0, 0))
}
