package transport

import "syscall"

// unackedTimeout is for how long a peer may leave what was sent unacknowledged
// before its connection counts as broken, in milliseconds. Without it the
// kernel tries for a quarter of an hour, and a scheduler whose machine died
// keeps its framework for so long.
const unackedTimeout = 60_000

const tcpUserTimeout = 18 // TCP_USER_TIMEOUT, which package syscall lacks

// tuneSocket sets what accepted connections inherit.
func tuneSocket(_, _ string, c syscall.RawConn) error {
	return c.Control(func(fd uintptr) {
		// A kernel without it does without.
		_ = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpUserTimeout, unackedTimeout)
	})
}
