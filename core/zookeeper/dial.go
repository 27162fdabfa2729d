package zookeeper

import (
	"crypto/tls"
	"encoding/binary"
	"net"
	"time"
)

// dial connects to one member. The connection before it is of no use any more.
func (s *Session) dial(network, address string, _ time.Duration) (net.Conn, error) {
	s.mu.Lock()
	closing := s.closing
	s.mu.Unlock()
	if closing {
		return nil, ErrClosed
	}
	dialer := &net.Dialer{Timeout: min(dialTimeout, max(s.Timeout()/3, 100*time.Millisecond))}
	raw, err := dialer.DialContext(s.life, network, address)
	if err != nil {
		return nil, err
	}
	conn := raw
	if s.options.TLS != nil {
		settings := s.options.TLS.Clone()
		if settings.ServerName == "" {
			settings.ServerName, _, _ = net.SplitHostPort(address)
		}
		secured := tls.Client(raw, settings)
		_ = raw.SetDeadline(time.Now().Add(dialer.Timeout))
		if err := secured.HandshakeContext(s.life); err != nil {
			raw.Close()
			return nil, err
		}
		_ = raw.SetDeadline(time.Time{})
		conn = secured
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.current != nil {
		s.current.Close()
	}
	if s.closing {
		conn.Close()
		return nil, ErrClosed
	}
	s.current = &wire{Conn: conn, session: s}
	return s.current, nil
}

// connectReply is the beginning of a member's first answer: its length, the
// protocol's version, the session's timeout in milliseconds.
const connectReply = 12

// wire is a connection that notes every word of the ensemble, and the timeout
// that it gives. One goroutine reads it at a time.
type wire struct {
	net.Conn
	session *Session
	first   []byte // of the first answer
}

func (w *wire) Read(p []byte) (int, error) {
	n, err := w.Conn.Read(p)
	if n > 0 {
		s := w.session
		s.heard.Store(int64(time.Since(s.begin)))
		if len(w.first) < connectReply {
			w.first = append(w.first, p[:min(n, connectReply-len(w.first))]...)
			if len(w.first) == connectReply {
				if ms := binary.BigEndian.Uint32(w.first[8:]); ms > 0 {
					s.timeout.Store(int64(time.Duration(ms) * time.Millisecond))
				}
			}
		}
	}
	return n, err
}

// SetReadDeadline brings the client's deadlines forward. A member that is silent
// for half of the session is left for another one, while there is time to keep
// the session. Pings are answered every third of it.
func (w *wire) SetReadDeadline(t time.Time) error {
	if latest := time.Now().Add(w.session.Timeout() / 2); t.After(latest) {
		t = latest
	}
	return w.Conn.SetReadDeadline(t)
}

// setWatches is the request by which a client watches again, on another
// connection, what it watched.
const setWatches = 101

// Write notes when watches are set. The client writes a request at a time: its
// length, its number, what it is.
func (w *wire) Write(p []byte) (int, error) {
	n, err := w.Conn.Write(p)
	if err == nil && len(p) >= 12 && binary.BigEndian.Uint32(p[8:]) == setWatches {
		w.session.watchesSet()
	}
	return n, err
}
