// Package transport is the HTTP base of the Mesos v1 APIs: everything that is
// the same for each of them, at a master and at an agent. It routes as Mesos's
// own HTTP library does, recognises who asks, sends clients of a master that
// does not lead to the one that does, bounds what a client can take (bodies,
// time, connections), and writes answers in the forms that clients depend on.
//
// Terms. A *process* is the first component of a path: "master" at a master,
// "slave(1)" at an agent, and a few that both have ("files", "metrics",
// "version"…). The *default process* is assumed where a path names none. An
// *endpoint* is what answers at a path within a process. A *realm* is what
// credentials count for.
//
// Life cycle: Listen, Handle for each endpoint, Serve, Shutdown.
//
// Example:
//
//	server, err := transport.Listen(transport.Options{Side: transport.Master, Address: "127.0.0.1:5050", Leadership: leadership})
//	if err != nil {
//		return err
//	}
//	server.HandleBasics(transport.About{Version: transport.MesosVersion})
//	server.Handle("", "/state", transport.Endpoint{Realm: transport.ReadOnly, Leader: true, Serve: state})
//	go server.Serve()
//	defer server.Shutdown(ctx)
package transport

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"sync"
	"time"
)

// MesosVersion is the version of Mesos that clients are told they speak to.
// They read digits and dots, and decide by it what they may use.
const MesosVersion = "1.11.0"

// Side says whose API is served.
type Side int

// The sides.
const (
	Master Side = iota + 1
	Agent
)

func (s Side) String() string {
	if s == Agent {
		return "agent"
	}
	return "master"
}

// Limits bound what clients can take. A zero value means the default.
type Limits struct {
	// Connections is how many may be open; what comes beyond is closed at once.
	// Default 20,000.
	Connections int
	// Body is the largest body of a request, in bytes. Default 32 MiB.
	Body int64
	// Bodies bounds the bodies that are held at one time, together. Default
	// 256 MiB.
	Bodies int64
	// Header, Request and Idle are the times for a request's head, for its body,
	// and between requests. Defaults 10 s, 1 min and 5 min.
	Header, Request, Idle time.Duration
	// Write is for how long a client may take nothing of what is written to it.
	// Default 30 s.
	Write time.Duration
}

func (l Limits) complete() Limits {
	fill(&l.Connections, 20_000)
	fill(&l.Body, 32<<20)
	fill(&l.Bodies, 256<<20)
	fill(&l.Header, 10*time.Second)
	fill(&l.Request, time.Minute)
	fill(&l.Idle, 5*time.Minute)
	fill(&l.Write, 30*time.Second)
	return l
}

func fill[T ~int | ~int64](v *T, otherwise T) {
	if *v <= 0 {
		*v = otherwise
	}
}

// Options of a Server.
type Options struct {
	Side Side
	// Address is host:port; port 0 takes a free one.
	Address string
	// Listener, if not nil, is used instead of opening one at Address.
	Listener net.Listener
	// TLS, if not nil, makes it HTTPS.
	TLS    *tls.Config
	Logger *slog.Logger // nil: nothing is logged
	// Authenticators recognise clients, by realm; the first that does counts. A
	// realm with none lets everybody in.
	Authenticators map[Realm][]Authenticator
	// View says why the principal of a context for the core may not see the
	// cluster, as an error of gRPC; nil: everybody may.
	View func(context.Context) error
	// Leadership is needed at a master.
	Leadership *Leadership
	Limits     Limits
	Counts     Counts
}

// Server is the HTTP server of one side. Safe for concurrent use once it serves.
type Server struct {
	options  Options
	limits   Limits
	logger   *slog.Logger
	listener net.Listener
	http     *http.Server
	routes   routes
	bodies   budget

	stop   context.CancelFunc // ends all streams
	closed sync.Once
}

// Listen opens the listener. No request is answered before Serve.
func Listen(o Options) (*Server, error) {
	if o.Side == Master && o.Leadership == nil {
		return nil, errors.New("transport: a master's side needs to know who leads: set Options.Leadership")
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	listener := o.Listener
	if listener == nil {
		var err error
		if listener, err = net.Listen("tcp", o.Address); err != nil {
			return nil, fmt.Errorf("mesos address %s: %w; choose another, or end the process that has it", o.Address, err)
		}
	}
	tuneSocket(listener)
	s := &Server{options: o, limits: o.Limits.complete(), logger: o.Logger, listener: listener}
	s.bodies.free = s.limits.Bodies
	s.routes.fallback = s.Process()
	base, cancel := context.WithCancel(context.Background())
	s.stop = cancel
	var protocols http.Protocols
	protocols.SetHTTP1(true) // a record is a chunk, and HTTP/2 has none
	s.http = &http.Server{
		Handler:           http.HandlerFunc(s.serve),
		ReadHeaderTimeout: s.limits.Header,
		IdleTimeout:       s.limits.Idle,
		MaxHeaderBytes:    64 << 10,
		BaseContext:       func(net.Listener) context.Context { return base },
		ErrorLog:          log.New(complaints{o.Logger}, "", 0),
		Protocols:         &protocols,
	}
	s.listener = &limitedListener{Listener: listener, free: s.limits.Connections, counts: o.Counts}
	if o.TLS != nil {
		s.listener = tls.NewListener(s.listener, o.TLS)
	}
	return s, nil
}

// Process returns the name of the side's default process.
func (s *Server) Process() string {
	if s.options.Side == Agent {
		return "slave(1)"
	}
	return "master"
}

// Address returns where the server listens, with the port that it got.
func (s *Server) Address() string { return s.listener.Addr().String() }

// Limits returns the limits that hold.
func (s *Server) Limits() Limits { return s.limits }

// Leadership returns what the server knows of who leads; nil at an agent.
func (s *Server) Leadership() *Leadership { return s.options.Leadership }

// Serve answers requests until Shutdown; then it returns nil.
func (s *Server) Serve() error {
	err := s.http.Serve(s.listener)
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// Shutdown ends the server: no new connections, all streams end, requests under
// way get until ctx ends. It returns when all handlers have returned, or with
// ctx's error after it has cut what was left.
func (s *Server) Shutdown(ctx context.Context) error {
	s.stop()
	err := s.http.Shutdown(ctx)
	if err != nil {
		s.http.Close()
	}
	// A server that never served does not own the listener yet.
	s.closed.Do(func() { s.listener.Close() })
	return err
}

// serve answers one request.
func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	out := newWriter(w, s.limits, s.options.Counts)
	defer out.over(time.Now())
	defer s.recovered(out, r)
	if !knownMethod(r.Method) || badQuery(r) {
		panic(http.ErrAbortHandler) // as the reference does: no answer
	}
	if r.ContentLength != 0 {
		_ = out.control.SetReadDeadline(time.Now().Add(s.limits.Request))
	}
	e := s.routes.find(r.URL.EscapedPath())
	if e == nil {
		Fail(out, http.StatusNotFound, "")
		return
	}
	out.endpoint = e.name
	r, failure := s.admit(e, r)
	if failure != nil {
		failure.Write(out)
		return
	}
	e.Serve(out, r)
}

// admit checks what comes before an endpoint's own checks, in the order that
// clients see.
func (s *Server) admit(e *Endpoint, r *http.Request) (*http.Request, *Error) {
	r = r.WithContext(context.WithValue(r.Context(), serverKey{}, s))
	r, failure := s.authenticate(e.Realm, r)
	if failure != nil {
		return r, failure
	}
	if e.Leader && s.options.Leadership != nil {
		if failure := s.options.Leadership.admit(r); failure != nil {
			return r, failure
		}
	}
	if e.Gate != nil {
		if failure := e.Gate(r); failure != nil {
			return r, failure
		}
	}
	return r, e.allow(r.Method)
}

// recovered keeps a handler's panic from doing more than failing its request.
func (s *Server) recovered(w *writer, r *http.Request) {
	p := recover()
	if p == nil {
		w.finish()
		return
	}
	if p == http.ErrAbortHandler {
		panic(p) // net/http closes the connection, and is silent about it
	}
	s.logger.Error("a request's handler panicked", "method", r.Method, "path", r.URL.Path, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
	if w.wrote {
		panic(http.ErrAbortHandler)
	}
	w.Header().Set("Connection", "close")
	Fail(w, http.StatusInternalServerError, "")
}

type serverKey struct{}

// serverOf returns the server that admitted the request.
func serverOf(r *http.Request) *Server {
	s, _ := r.Context().Value(serverKey{}).(*Server)
	return s
}

// complaints brings what net/http has to say into the log, as details: clients
// that send no HTTP are not the operator's trouble.
type complaints struct{ logger *slog.Logger }

func (c complaints) Write(p []byte) (int, error) {
	c.logger.Debug("http: " + string(p))
	return len(p), nil
}
