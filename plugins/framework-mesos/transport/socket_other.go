//go:build !linux

package transport

import "net"

func tuneSocket(net.Listener) {}
