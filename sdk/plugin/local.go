package plugin

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// Local serves a plugin inside this process, over a real gRPC connection on a
// unix socket. Tests and conformance suites use it: what runs against a Local
// runs unchanged against a plugin in a process of its own.
type Local struct {
	// Conn reaches all services of the plugin.
	Conn *grpc.ClientConn
	// Health is the plugin's own.
	Health *Health

	dir    string
	server *grpc.Server
	svc    *service

	mu     sync.Mutex
	offers []*grpc.Server
	closed bool
	wg     sync.WaitGroup
}

// StartLocal serves a definition in this process. logger may be nil. The caller
// calls Close.
func StartLocal(def Definition, logger hclog.Logger) (*Local, error) {
	if logger == nil {
		logger = hclog.NewNullLogger()
	}
	dir, err := os.MkdirTemp("", "mezzo-local-")
	if err != nil {
		return nil, err
	}
	l := &Local{dir: dir}
	// A plugin in a process of its own would exit; this one refuses new calls.
	svc, err := newService(def, logger, func() {})
	if err != nil {
		os.RemoveAll(dir)
		return nil, err
	}
	svc.dial = func(id uint32) (*grpc.ClientConn, error) { return dialLocal(l.offerPath(id)) }
	l.svc, l.Health = svc, svc.health
	if l.server, err = l.listen(filepath.Join(dir, "plugin"), svc.register); err != nil {
		os.RemoveAll(dir)
		return nil, err
	}
	if l.Conn, err = dialLocal(filepath.Join(dir, "plugin")); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

// Offer serves something of the host's to the plugin and returns the broker id
// at which Environment.Dial reaches it. It ends with Close.
func (l *Local) Offer(register func(s grpc.ServiceRegistrar)) (uint32, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return 0, errors.New("plugin: offer after close")
	}
	id := uint32(len(l.offers) + 1)
	server, err := l.listen(l.offerPath(id), register)
	if err != nil {
		return 0, err
	}
	l.offers = append(l.offers, server)
	return id, nil
}

// Close runs the plugin's Shutdown, unless that was done, and ends everything.
// It may be called more than once.
func (l *Local) Close() {
	l.svc.Shutdown(context.Background(), nil)
	if l.Conn != nil {
		l.Conn.Close()
	}
	l.server.Stop()
	l.mu.Lock()
	l.closed = true
	for _, s := range l.offers {
		s.Stop()
	}
	l.mu.Unlock()
	l.wg.Wait()
	os.RemoveAll(l.dir)
}

func (l *Local) offerPath(id uint32) string {
	return filepath.Join(l.dir, fmt.Sprintf("offer%d", id))
}

func (l *Local) listen(path string, register func(grpc.ServiceRegistrar)) (*grpc.Server, error) {
	listener, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	server := grpc.NewServer(serverLimits()...)
	register(server)
	l.wg.Go(func() { server.Serve(listener) })
	return server, nil
}

func dialLocal(path string) (*grpc.ClientConn, error) {
	return grpc.NewClient("unix://"+path, grpc.WithTransportCredentials(insecure.NewCredentials()), clientLimits())
}
