package transport

import (
	"net"
	"sync"
)

// limitedListener closes connections beyond a number, so that those that are
// open keep being served.
type limitedListener struct {
	net.Listener
	counts Counts
	mu     sync.Mutex
	free   int
}

func (l *limitedListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		l.mu.Lock()
		ok := l.free > 0
		if ok {
			l.free--
		}
		l.mu.Unlock()
		if ok {
			l.counts.Connections.Add(1)
			return &limitedConn{Conn: conn, listener: l}, nil
		}
		l.counts.Refused.Inc()
		conn.Close()
	}
}

type limitedConn struct {
	net.Conn
	listener *limitedListener
	once     sync.Once
}

func (c *limitedConn) Close() error {
	c.once.Do(func() {
		c.listener.counts.Connections.Add(-1)
		c.listener.mu.Lock()
		c.listener.free++
		c.listener.mu.Unlock()
	})
	return c.Conn.Close()
}
