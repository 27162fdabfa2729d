package transport

import (
	"net"
	"syscall"
)

// unackedTimeout is for how long a peer may leave what was sent unacknowledged
// before its connection counts as broken, in milliseconds. Without it the
// kernel tries for a quarter of an hour, and a scheduler whose machine died
// keeps its framework for so long.
const unackedTimeout = 60_000

const tcpUserTimeout = 18 // TCP_USER_TIMEOUT, which package syscall lacks

// tuneSocket sets what accepted connections inherit.
func tuneSocket(l net.Listener) {
	tcp, ok := l.(*net.TCPListener)
	if !ok {
		return
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return
	}
	// A kernel without it does without.
	_ = raw.Control(func(fd uintptr) {
		_ = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpUserTimeout, unackedTimeout)
	})
}
