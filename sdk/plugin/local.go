package plugin

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"
)

// Local serves a plugin inside this process, over a real gRPC connection in
// memory. Tests and conformance suites use it: what runs against a Local runs
// unchanged against a plugin in a process of its own. It touches neither files
// nor sockets, so that it also works in a bubble of testing/synctest.
type Local struct {
	// Conn reaches all services of the plugin.
	Conn *grpc.ClientConn
	// Health is the plugin's own.
	Health *Health

	server *grpc.Server
	svc    *service

	mu     sync.Mutex
	offers []offered // by broker id, from 1
	closed bool
	wg     sync.WaitGroup
}

// offered is a service of the host's.
type offered struct {
	server   *grpc.Server
	listener *bufconn.Listener
}

// localBuffer is what a connection holds in either direction.
const localBuffer = 1 << 20

// StartLocal serves a definition in this process. logger may be nil. The caller
// calls Close.
func StartLocal(def Definition, logger hclog.Logger) (*Local, error) {
	if logger == nil {
		logger = hclog.NewNullLogger()
	}
	l := &Local{}
	// A plugin in a process of its own would exit; this one refuses new calls.
	svc, err := newService(def, logger, func() {})
	if err != nil {
		return nil, err
	}
	svc.dial = l.dialOffer
	l.svc, l.Health = svc, svc.health
	var listener *bufconn.Listener
	l.server, listener = l.listen(svc.register)
	if l.Conn, err = dialLocal(listener); err != nil {
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
	server, listener := l.listen(register)
	l.offers = append(l.offers, offered{server, listener})
	return uint32(len(l.offers)), nil
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
	for _, o := range l.offers {
		o.server.Stop()
	}
	l.mu.Unlock()
	l.wg.Wait()
}

func (l *Local) dialOffer(id uint32) (*grpc.ClientConn, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if id == 0 || int(id) > len(l.offers) {
		return nil, fmt.Errorf("plugin: the host offers nothing at broker id %d", id)
	}
	return dialLocal(l.offers[id-1].listener)
}

func (l *Local) listen(register func(grpc.ServiceRegistrar)) (*grpc.Server, *bufconn.Listener) {
	listener := bufconn.Listen(localBuffer)
	server := grpc.NewServer(serverLimits()...)
	register(server)
	l.wg.Go(func() { server.Serve(listener) })
	return server, listener
}

func dialLocal(listener *bufconn.Listener) (*grpc.ClientConn, error) {
	return grpc.NewClient("passthrough:///local", grpc.WithTransportCredentials(insecure.NewCredentials()), clientLimits(),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }))
}
