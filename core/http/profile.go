package http

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/pprof"

	"github.com/mezzo-os/mezzo/core/rpc"
)

// Profiles serves profiles of the process, for `go tool pprof`, at an address of
// their own on loopback: they tell of all that is in its memory, and cost time.
type Profiles struct {
	server   *http.Server
	listener net.Listener
}

// ListenProfiles opens the listener. An address beyond loopback is an error.
func ListenProfiles(address string) (*Profiles, error) {
	if err := rpc.CheckAddress(address, false, false); err != nil {
		return nil, fmt.Errorf("profiles are served on loopback alone, and %q is not there: write 127.0.0.1 and a port", address)
	}
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("profiles: address %s: %w; choose another, or end the process that has it", address, err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	p := &Profiles{listener: listener, server: &http.Server{Handler: mux, ReadHeaderTimeout: readHeaderTimeout, MaxHeaderBytes: maxHeaderBytes}}
	return p, nil
}

// Address returns where it listens, with the port that it got.
func (p *Profiles) Address() string { return p.listener.Addr().String() }

// Serve answers until Stop.
func (p *Profiles) Serve() error {
	if err := p.server.Serve(p.listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// Stop ends it at once.
func (p *Profiles) Stop() {
	_ = p.server.Close()
	_ = p.listener.Close() // it never served
}
