package plugin

import (
	"os"

	"golang.org/x/sys/unix"
)

// divertStdout returns the real stdout, for the handshake, and makes file
// descriptor 1 a second stderr. So whatever prints on stdout, C code and child
// processes included, lands in the host's log and not in the handshake.
func divertStdout() (*os.File, error) {
	fd, err := unix.FcntlInt(1, unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil, os.NewSyscallError("dup stdout", err)
	}
	if err := unix.Dup3(2, 1, 0); err != nil {
		return nil, os.NewSyscallError("divert stdout", err)
	}
	return os.NewFile(uintptr(fd), "handshake"), nil
}
