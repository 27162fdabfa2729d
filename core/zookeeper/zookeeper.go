// Package zookeeper is a session with a ZooKeeper ensemble, as the election and
// the registry need it: it knows when it last heard of the ensemble, tries again
// while the connection is lost, and leaves nothing behind when it is closed.
//
// Terms. A *session* is what the ensemble knows a client by; it outlives
// connections, and the ensemble ends it (it *expires*) when it has not heard of
// the client for the session's timeout. The *silence* is how long ago the client
// heard of the ensemble.
//
// Life cycle: Connect, Do as often as needed, Close.
//
//	s, err := zookeeper.Connect(zookeeper.Options{Servers: []string{"zk1:2181"}, Timeout: 10 * time.Second})
//	defer s.Close()
//	names, err := zookeeper.Do(ctx, s, func(c *zk.Conn) ([]string, error) {
//		names, _, err := c.Children("/mezzo")
//		return names, err
//	})
package zookeeper

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-zookeeper/zk"
	"github.com/hashicorp/go-hclog"
)

const (
	dialTimeout = 3 * time.Second

	// The pause before another attempt: it doubles, and half of it is chance.
	backoffMin = 50 * time.Millisecond
	backoffMax = 2 * time.Second

	// settleTime is how long calls wait on a new connection for the watches to be
	// set, at most.
	settleTime time.Duration = 250 * time.Millisecond

	// maxPacket bounds what the ensemble may answer at once, in bytes.
	maxPacket = 64 << 20
)

// ErrClosed means that the session was closed.
var ErrClosed = errors.New("zookeeper: the session is closed")

// Options of a session.
type Options struct {
	// Servers are the members of the ensemble, host:port. Names are looked up
	// whenever a connection is made.
	Servers []string
	// Timeout is what is asked for; the ensemble may give another. See
	// Session.Timeout.
	Timeout time.Duration
	// Auth is "user:password" for digest authentication; empty: none.
	Auth string
	// TLS is the client's side of TLS; nil: plain text. The server's name is set
	// to that of the member unless there is one.
	TLS *tls.Config
	// Logger gets what happens to the connection; nil: nothing is logged.
	Logger hclog.Logger
}

// Session is a client of an ensemble. Safe for concurrent use.
//
// After an expiry the same Session goes on with another session of the ensemble.
// Whoever has ephemeral nodes must watch Expired, and give this one up.
type Session struct {
	options Options
	logger  hclog.Logger
	conn    *zk.Conn
	ended   <-chan zk.Event // closes when the client has ended
	begin   time.Time

	heard   atomic.Int64 // since begin, in nanoseconds
	timeout atomic.Int64 // in nanoseconds

	life context.Context
	stop context.CancelFunc

	mu        sync.Mutex
	current   net.Conn
	expired   chan struct{}
	gate      chan struct{} // closed while calls may be made
	rooted    bool          // this session watches the root
	authed    bool
	preparing chan struct{} // holds a token: one prepares at a time
	closing   bool
	closeOnce sync.Once
}

// Connect begins a session. It does not wait for it: Do does.
func Connect(o Options) (*Session, error) {
	if len(o.Servers) == 0 {
		return nil, errors.New("zookeeper: no server is named")
	}
	s := &Session{
		options: o, logger: o.Logger, begin: time.Now(), expired: make(chan struct{}),
		gate: make(chan struct{}), preparing: make(chan struct{}, 1),
	}
	if s.logger == nil {
		s.logger = hclog.NewNullLogger()
	}
	s.timeout.Store(int64(o.Timeout))
	s.life, s.stop = context.WithCancel(context.Background())
	conn, events, err := zk.Connect(o.Servers, o.Timeout,
		zk.WithDialer(s.dial), zk.WithHostProvider(&members{}), zk.WithLogger(debug{s.logger}), zk.WithLogInfo(false),
		zk.WithEventCallback(s.event), zk.WithMaxBufferSize(maxPacket))
	if err != nil {
		s.stop()
		return nil, fmt.Errorf("zookeeper %s: %w", strings.Join(o.Servers, ","), err)
	}
	s.conn, s.ended = conn, events
	return s, nil
}

// debug takes the client's own lines to the debug level: Do says what matters.
type debug struct{ logger hclog.Logger }

func (d debug) Printf(format string, args ...any) { d.logger.Debug(fmt.Sprintf(format, args...)) }

// event is called by the client, and must not block.
func (s *Session) event(e zk.Event) {
	if e.Type != zk.EventSession {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch e.State {
	case zk.StateHasSession:
		s.logger.Debug("connected", "server", e.Server)
		wait, gate := settleTime, s.gate
		if !s.rooted {
			if wait = firstPause; wait == 0 {
				s.openGate()
				break
			}
		}
		time.AfterFunc(wait, func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			if s.gate == gate {
				s.openGate()
			}
		})
	case zk.StateExpired:
		s.logger.Warn("the session has expired")
		s.rooted = false // its watches are gone
		select {
		case <-s.expired:
		default:
			close(s.expired)
		}
	case zk.StateDisconnected:
		if s.closeGate() {
			s.logger.Debug("disconnected", "server", e.Server)
		}
	}
}

// closeGate has calls wait for the next connection, and tells whether they did not
// yet. The lock is held.
func (s *Session) closeGate() bool {
	select {
	case <-s.gate:
		s.gate = make(chan struct{})
		return true
	default:
		return false
	}
}

// openGate lets calls be made. The lock is held.
func (s *Session) openGate() {
	select {
	case <-s.gate:
	default:
		close(s.gate)
	}
}

// watchesSet is called when a connection has sent the watches of the session
// anew. Calls wait for it: the client must not read an answer while it still
// gathers them (it would race). So that there are always some, the root, which
// hardly anybody ever changes, is watched; settleTime helps where it was.
func (s *Session) watchesSet() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.openGate()
}

// Expired is closed once the first session has expired. What was ephemeral in
// it is gone.
func (s *Session) Expired() <-chan struct{} { return s.expired }

// Silence is how long ago the ensemble was heard of, by this process's monotonic
// clock; before the first word, how long the session has been tried.
func (s *Session) Silence() time.Duration {
	return time.Since(s.begin) - time.Duration(s.heard.Load())
}

// Leave gives the connection up and has the next one be to another member, if
// there is one. It tells which member it was, and how many there are.
func (s *Session) Leave() (server string, members int) {
	server = s.conn.Server()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.current != nil {
		s.current.Close()
	}
	s.closeGate() // at once: the client has yet to notice
	return server, len(s.options.Servers)
}

// Timeout is the session's, as the ensemble gave it; before that, as asked for.
func (s *Session) Timeout() time.Duration { return time.Duration(s.timeout.Load()) }

// ACL is who may do what with a node: everybody everything without
// authentication. With it, whoever has the credentials everything, and
// everybody may read what is readable.
func (s *Session) ACL(readable bool) []zk.ACL {
	switch {
	case s.options.Auth == "":
		return zk.WorldACL(zk.PermAll)
	case readable:
		return append(zk.AuthACL(zk.PermAll), zk.WorldACL(zk.PermRead)...)
	default:
		return zk.AuthACL(zk.PermAll)
	}
}

// MakePath creates a node and those above it where they are missing. Those above
// may be read by everybody.
func (s *Session) MakePath(ctx context.Context, path string, readable bool) error {
	parts := strings.Split(strings.TrimPrefix(path, "/"), "/")
	for i := range parts {
		node := "/" + strings.Join(parts[:i+1], "/")
		last := i == len(parts)-1
		_, err := Do(ctx, s, func(c *zk.Conn) (struct{}, error) {
			// Asked first: whoever may not create may well find it there.
			there, _, err := c.Exists(node)
			if err == nil && !there {
				_, err = c.Create(node, nil, 0, s.ACL(readable || !last))
			}
			if errors.Is(err, zk.ErrNodeExists) {
				err = nil
			}
			return struct{}{}, err
		})
		if err != nil {
			return fmt.Errorf("create %s: %w", node, err)
		}
	}
	return nil
}

// Lost is whether an error is of the connection and not an answer: it is unknown
// whether a write that gave it was done.
func Lost(err error) bool {
	var network net.Error
	return errors.Is(err, zk.ErrConnectionClosed) || errors.Is(err, zk.ErrNoServer) || errors.Is(err, zk.ErrSessionExpired) ||
		errors.Is(err, zk.ErrSessionMoved) || errors.Is(err, zk.ErrClosing) || errors.Is(err, io.EOF) ||
		errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) || errors.As(err, &network)
}

// Do makes a call, again and again with a growing pause while the connection is
// lost, until it is answered, ctx ends, or the session is closed. So the call
// must be one that may be made twice.
func Do[T any](ctx context.Context, s *Session, call func(*zk.Conn) (T, error)) (T, error) {
	pause := backoffMin
	for {
		out, err := Once(ctx, s, call)
		if err == nil || !Lost(err) {
			return out, err
		}
		select {
		case <-time.After(pause/2 + rand.N(pause/2+1)):
		case <-ctx.Done():
			return out, fmt.Errorf("%w: %w", ctx.Err(), err)
		case <-s.life.Done():
			return out, ErrClosed
		}
		pause = min(2*pause, backoffMax)
	}
}

// Once waits for a connection and makes a call once. See Lost for its errors.
func Once[T any](ctx context.Context, s *Session, call func(*zk.Conn) (T, error)) (T, error) {
	var none T
	if err := ctx.Err(); err != nil {
		return none, err
	}
	if s.life.Err() != nil {
		return none, ErrClosed
	}
	if err := s.prepare(ctx); err != nil {
		return none, err
	}
	return within(ctx, s, func() (T, error) { return call(s.conn) })
}

// within waits for a call of the client, which knows no context, no longer than
// ctx and the session last. The call itself ends with the connection at the
// latest.
func within[T any](ctx context.Context, s *Session, call func() (T, error)) (T, error) {
	type answer struct {
		out T
		err error
	}
	answers := make(chan answer, 1)
	go func() {
		out, err := call()
		answers <- answer{out, err}
	}()
	var none T
	select {
	case a := <-answers:
		if a.err != nil && s.life.Err() != nil {
			return none, ErrClosed
		}
		return a.out, a.err
	case <-ctx.Done():
		return none, ctx.Err()
	case <-s.life.Done():
		return none, ErrClosed
	}
}

// prepare waits for a connection, and gives the credentials of a new Session,
// and the first watch of a new session.
func (s *Session) prepare(ctx context.Context) error {
	for {
		s.mu.Lock()
		gate := s.gate
		s.mu.Unlock()
		select {
		case <-gate:
		case <-ctx.Done():
			return ctx.Err()
		case <-s.life.Done():
			return ErrClosed
		}
		s.mu.Lock()
		ready := s.gate == gate && s.rooted && (s.authed || s.options.Auth == "")
		passed := s.gate == gate
		s.mu.Unlock()
		if ready {
			return nil
		}
		if passed {
			break
		}
	}
	select {
	case s.preparing <- struct{}{}:
		defer func() { <-s.preparing }()
	case <-ctx.Done():
		return ctx.Err()
	case <-s.life.Done():
		return ErrClosed
	}
	s.mu.Lock()
	authed, rooted := s.authed || s.options.Auth == "", s.rooted
	s.mu.Unlock()
	_, err := within(ctx, s, func() (struct{}, error) {
		if !authed {
			// The client gives them again with every connection.
			if err := s.conn.AddAuth("digest", []byte(s.options.Auth)); err != nil {
				return struct{}{}, err
			}
		}
		if !rooted {
			if _, _, _, err := s.conn.ExistsW("/"); err != nil {
				return struct{}{}, err
			}
		}
		return struct{}{}, nil
	})
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.authed, s.rooted = true, true
	return nil
}

// Close ends the session: the ensemble removes its ephemeral nodes at once when
// there is a connection, else when the session expires. It waits, for a second or
// two at most.
func (s *Session) Close() {
	s.closeOnce.Do(func() {
		s.mu.Lock()
		s.closing = true // no further connection
		select {
		case <-s.gate:
		default:
			// A connection that is still being made is of no use for a goodbye.
			if s.current != nil {
				s.current.Close()
			}
		}
		s.mu.Unlock()
		s.conn.Close() // says goodbye
		s.stop()
		s.mu.Lock()
		if s.current != nil {
			s.current.Close()
		}
		s.mu.Unlock()
		for range s.ended { // until the client is done
		}
	})
}

// members are the servers, in an order by chance and as names: they are looked
// up when they are dialed.
type members struct {
	mu      sync.Mutex
	servers []string
	next    int
	failed  int // in a row
}

func (m *members) Init(servers []string) error {
	m.servers = servers // the client has shuffled them
	return nil
}

func (m *members) Len() int { return len(m.servers) }

func (m *members) Next() (server string, retryStart bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	server = m.servers[m.next%len(m.servers)]
	m.next++
	// The client pauses for a second when all have been tried.
	retryStart = m.failed > 0 && m.failed%len(m.servers) == 0
	m.failed++
	return server, retryStart
}

func (m *members) Connected() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.failed = 0
}
