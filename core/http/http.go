// Package http is the HTTP address of a master or an agent: health, readiness,
// metrics, and the JSON API.
//
//	GET /healthz       200 while the process works, else 503 and why
//	GET /readyz        200 when it serves, else 503; and what that depends on
//	GET /metrics       Prometheus
//	GET /v1/<query>    JSON, as `--json` prints it
//
// and what the process adds to it, such as the web UI (package ui).
//
// Example:
//
//	server, err := http.Listen(http.Options{Title: "Mezzo master", Address: "127.0.0.1:5060", Queries: queries})
//	go server.Serve()
//	defer server.Stop(time.Second)
package http

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"html"
	"io"
	"log"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"google.golang.org/protobuf/proto"

	"github.com/mezzo-os/mezzo/core/rpc"
	"github.com/mezzo-os/mezzo/sdk/client"
	"github.com/mezzo-os/mezzo/sdk/wirejson"
)

const (
	readHeaderTimeout = 10 * time.Second
	readTimeout       = 30 * time.Second
	writeTimeout      = 2 * time.Minute
	idleTimeout       = 2 * time.Minute
	maxHeaderBytes    = 64 << 10
	queryTimeout      = 30 * time.Second
	// probeTimeout is how long /healthz and /readyz look before they say no.
	probeTimeout = 5 * time.Second
)

// Query answers GET /v1/<name>, with an object or with a list. The values are
// those of the query string.
type Query struct {
	One  func(ctx context.Context, values url.Values) (proto.Message, error)
	List func(ctx context.Context, values url.Values) ([]proto.Message, error)
	// Local queries are about this process, and never redirected.
	Local bool
}

// Check is one thing that a process needs in order to serve.
type Check struct {
	Name string
	// State is what is to be said when it is there: "leading".
	State string
	// Err says why it is not.
	Err error
}

// Options of a server.
type Options struct {
	// Title heads the landing page.
	Title string
	// Address is host:port; port 0 takes a free one.
	Address string
	// TLS names the files of the certificate; a client may show one of its
	// own, signed by CA, and is then known by it. Nil: plain text, on loopback
	// only.
	TLS *client.Files
	// Insecure allows plain text elsewhere than on loopback.
	Insecure bool
	Logger   hclog.Logger
	// Metrics are served at /metrics; nil: none.
	Metrics prometheus.Gatherer
	// View says why a caller may not see the metrics; nil: all may.
	View func(context.Context) error
	// Healthy says why the process does not work, so that nothing but its end helps;
	// nil: it always does.
	Healthy func(context.Context) error
	// Ready says what it takes to serve, and what of it is not there; nil: nothing.
	Ready func(context.Context) []Check
	// Queries are served at /v1/<name>.
	Queries map[string]Query
	// Elsewhere is the address, host:port, of the process that can answer what
	// this one cannot: queries are redirected there, but those that are Local.
	// Empty, or nil: there is none.
	Elsewhere func() string
	// Handlers are what else is served, by the patterns of http.ServeMux, or
	// redirected Elsewhere. Where they have /ui/, / leads there.
	Handlers map[string]http.Handler
}

// Server is an HTTP server and its listener.
type Server struct {
	server   *http.Server
	listener net.Listener
	options  Options
	encoder  *wirejson.Encoder
}

// Listen opens the listener. The loopback rule is that of rpc.Listen.
func Listen(o Options) (*Server, error) {
	if err := rpc.CheckAddress(o.Address, o.TLS != nil, o.Insecure); err != nil {
		return nil, fmt.Errorf("http %w", err)
	}
	if o.Logger == nil {
		o.Logger = hclog.NewNullLogger()
	}
	var security *tls.Config
	if o.TLS != nil {
		var err error
		if security, err = o.TLS.Server(); err != nil {
			return nil, err
		}
		// A browser has no certificate of the cluster.
		security.ClientAuth = tls.VerifyClientCertIfGiven
		security.NextProtos = []string{"h2", "http/1.1"}
	}
	listener, err := net.Listen("tcp", o.Address)
	if err != nil {
		return nil, fmt.Errorf("http address %s: %w; choose another, or end the process that has it", o.Address, err)
	}
	if security != nil {
		listener = tls.NewListener(listener, security)
	}
	s := &Server{listener: listener, options: o, encoder: wirejson.NewEncoder()}
	s.server = &http.Server{
		Handler:           s.handler(),
		ReadHeaderTimeout: readHeaderTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          log.New(quiet{o.Logger}, "", 0),
	}
	return s, nil
}

// quiet takes net/http's own complaints, which strangers can cause at will, to
// the debug level.
type quiet struct{ logger hclog.Logger }

func (q quiet) Write(line []byte) (int, error) {
	q.logger.Debug(strings.TrimSpace(string(line)))
	return len(line), nil
}

// Address returns where the server listens, with the port that it got.
func (s *Server) Address() string { return s.listener.Addr().String() }

// Serve answers until Stop. It returns nil after Stop.
func (s *Server) Serve() error {
	if err := s.server.Serve(s.listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// Stop ends the server; answers that are under way get grace.
func (s *Server) Stop(grace time.Duration) {
	ctx, cancel := context.WithTimeout(context.Background(), grace)
	defer cancel()
	if s.server.Shutdown(ctx) != nil {
		s.server.Close()
	}
	// A server that never served does not own the listener yet.
	s.listener.Close()
}

func (s *Server) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", s.healthy)
	mux.HandleFunc("GET /readyz", s.ready)
	if s.options.Metrics != nil {
		metrics := promhttp.HandlerFor(s.options.Metrics, promhttp.HandlerOpts{Timeout: queryTimeout})
		mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, r *http.Request) {
			if s.options.View != nil {
				if err := s.options.View(r.Context()); err != nil {
					Error(w, err)
					return
				}
			}
			metrics.ServeHTTP(w, r)
		})
	}
	for name, query := range s.options.Queries {
		mux.HandleFunc("GET /v1/"+name, func(w http.ResponseWriter, r *http.Request) { s.query(w, r, query) })
	}
	for pattern, handler := range s.options.Handlers {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			if !s.redirected(w, r) {
				handler.ServeHTTP(w, r)
			}
		})
	}
	if s.options.Handlers["GET /ui/"] != nil {
		mux.Handle("GET /{$}", http.RedirectHandler("/ui/", http.StatusFound))
	} else {
		mux.HandleFunc("GET /{$}", s.landing)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("Content-Security-Policy", "default-src 'none'")
		w.Header().Set("Cache-Control", "no-store")
		if r.TLS != nil && len(r.TLS.VerifiedChains) > 0 {
			r = r.WithContext(rpc.WithPrincipal(r.Context(), rpc.Certified(r.TLS.VerifiedChains[0][0])))
		}
		mux.ServeHTTP(w, r)
	})
}

func text(w http.ResponseWriter, code int, body string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(code)
	_, _ = io.WriteString(w, body) // a client that is gone is no error
}

func (s *Server) healthy(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), probeTimeout)
	defer cancel()
	if s.options.Healthy != nil {
		if err := s.options.Healthy(ctx); err != nil {
			text(w, http.StatusServiceUnavailable, err.Error()+"\n")
			return
		}
	}
	text(w, http.StatusOK, "ok\n")
}

// ready answers with a word, and a line for each thing that it depends on.
func (s *Server) ready(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), probeTimeout)
	defer cancel()
	var checks []Check
	if s.options.Ready != nil {
		checks = s.options.Ready(ctx)
	}
	code, word := http.StatusOK, "ready"
	var lines strings.Builder
	for _, c := range checks {
		state := c.State
		if c.Err != nil {
			code, word, state = http.StatusServiceUnavailable, "not ready", "no: "+c.Err.Error()
		}
		fmt.Fprintf(&lines, "%s: %s\n", c.Name, state)
	}
	text(w, code, word+"\n"+lines.String())
}

// query answers in one piece, so that an error never follows half an answer.
func (s *Server) query(w http.ResponseWriter, r *http.Request, q Query) {
	if !q.Local && s.redirected(w, r) {
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), queryTimeout)
	defer cancel()
	var body []byte
	var err error
	if q.One != nil {
		var message proto.Message
		if message, err = q.One(ctx, r.URL.Query()); err == nil {
			body, err = s.encoder.Marshal(message)
		}
	} else {
		var messages []proto.Message
		if messages, err = q.List(ctx, r.URL.Query()); err == nil {
			body, err = s.list(messages)
		}
	}
	if err != nil {
		Error(w, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(append(body, '\n')) // a client that is gone is no error
}

// redirected sends a client to where it is answered.
func (s *Server) redirected(w http.ResponseWriter, r *http.Request) bool {
	if s.options.Elsewhere == nil {
		return false
	}
	address := s.options.Elsewhere()
	if address == "" {
		return false
	}
	there := url.URL{Scheme: "http", Host: address, Path: r.URL.Path, RawQuery: r.URL.RawQuery}
	if s.options.TLS != nil {
		there.Scheme = "https"
	}
	http.Redirect(w, r, there.String(), http.StatusTemporaryRedirect)
	return true
}

func (s *Server) list(messages []proto.Message) ([]byte, error) {
	body := []byte{'['}
	for i, m := range messages {
		if i > 0 {
			body = append(body, ',')
		}
		var err error
		if body, err = s.encoder.Append(body, m); err != nil {
			return nil, err
		}
	}
	return append(body, ']'), nil
}

// Error answers with an error of the core, as text and with the status that fits
// it.
func Error(w http.ResponseWriter, err error) { text(w, codeOf(err), err.Error()+"\n") }

func codeOf(err error) int {
	for _, k := range []struct {
		err  error
		code int
	}{
		{rpc.ErrInvalid, http.StatusBadRequest},
		{rpc.ErrDenied, http.StatusForbidden},
		{rpc.ErrNotFound, http.StatusNotFound},
		{rpc.ErrConflict, http.StatusConflict},
		{rpc.ErrUnavailable, http.StatusServiceUnavailable},
		{rpc.ErrExhausted, http.StatusTooManyRequests},
		{context.DeadlineExceeded, http.StatusGatewayTimeout},
	} {
		if errors.Is(err, k.err) {
			return k.code
		}
	}
	return http.StatusInternalServerError
}

// landing links what there is.
func (s *Server) landing(w http.ResponseWriter, _ *http.Request) {
	paths := []string{"/healthz", "/readyz"}
	if s.options.Metrics != nil {
		paths = append(paths, "/metrics")
	}
	var names []string
	for name := range s.options.Queries {
		names = append(names, "/v1/"+name)
	}
	slices.Sort(names)
	title := html.EscapeString(s.options.Title)
	var page strings.Builder
	fmt.Fprintf(&page, "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<title>%s</title>\n<h1>%s</h1>\n<ul>\n", title, title)
	for _, path := range append(paths, names...) {
		path = html.EscapeString(path)
		fmt.Fprintf(&page, "<li><a href=\"%s\">%s</a></li>\n", path, path)
	}
	page.WriteString("</ul>\n</html>\n")
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_, _ = io.WriteString(w, page.String()) // a client that is gone is no error
}
