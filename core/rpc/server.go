// Package rpc is the plumbing of the gRPC services between master, agents,
// frameworks and the command line: listeners with mutual TLS, callers'
// identities, bounded outbound queues, and errors that cross the wire.
//
// Example:
//
//	server, err := rpc.Listen(rpc.Options{Address: "127.0.0.1:5061", Logger: logger})
//	if err != nil {
//		return err
//	}
//	operatorv1.RegisterOperatorServer(server, operator)
//	go server.Serve()
//	defer server.Stop(time.Second)
package rpc

import (
	"context"
	"errors"
	"fmt"
	"net"
	"runtime/debug"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	"github.com/mezzo-os/mezzo/sdk/client"
)

const (
	defaultHandshake = 10 * time.Second
	// Many simulated agents share a connection, one stream each.
	defaultStreams = 100_000

	keepaliveTime    = 30 * time.Second
	keepaliveTimeout = 10 * time.Second
	keepaliveMinimum = 5 * time.Second

	streamWindow     = 1 << 20
	connectionWindow = 8 << 20
	maxHeaderBytes   = 64 << 10
)

// Options of a listener.
type Options struct {
	// Address is host:port; port 0 takes a free one.
	Address string
	// TLS names the files of mutual TLS; nil: plain text, on loopback only.
	TLS *client.Files
	// Insecure allows plain text elsewhere than on loopback.
	Insecure bool
	Logger   hclog.Logger
	// HandshakeTimeout is how long a client has to begin; 0: 10 s.
	HandshakeTimeout time.Duration
	// MaxStreams bounds the streams of one connection; 0: 100,000.
	MaxStreams uint32
}

// Server is a gRPC server and its listener. Register services on it, then
// call Serve.
type Server struct {
	*grpc.Server
	listener net.Listener
	logger   hclog.Logger
	stop     sync.Once
}

// Listen opens the listener. Without TLS an address elsewhere than on
// loopback is refused unless o.Insecure is set: whoever reaches the port can
// run commands as root on the cluster.
func Listen(o Options) (*Server, error) {
	if err := CheckAddress(o.Address, o.TLS != nil, o.Insecure); err != nil {
		return nil, err
	}
	transport := insecure.NewCredentials()
	if o.TLS != nil {
		config, err := o.TLS.Server()
		if err != nil {
			return nil, err
		}
		transport = credentials.NewTLS(config)
	}
	logger := o.Logger
	if logger == nil {
		logger = hclog.NewNullLogger()
	}
	listener, err := net.Listen("tcp", o.Address)
	if err != nil {
		return nil, fmt.Errorf("rpc address %s: %w; choose another, or end the process that has it", o.Address, err)
	}
	s := &Server{listener: listener, logger: logger}
	s.Server = grpc.NewServer(s.options(o, transport)...)
	return s, nil
}

func (s *Server) options(o Options, transport credentials.TransportCredentials) []grpc.ServerOption {
	handshake, streams := o.HandshakeTimeout, o.MaxStreams
	if handshake == 0 {
		handshake = defaultHandshake
	}
	if streams == 0 {
		streams = defaultStreams
	}
	return []grpc.ServerOption{
		grpc.Creds(&greeter{transport, &complaints{logger: s.logger, now: time.Now, hosts: map[string]*complaint{}}}),
		grpc.ConnectionTimeout(handshake),
		grpc.MaxConcurrentStreams(streams),
		grpc.MaxRecvMsgSize(client.MaxMessage),
		grpc.MaxSendMsgSize(client.MaxMessage),
		grpc.MaxHeaderListSize(maxHeaderBytes),
		grpc.InitialWindowSize(streamWindow),
		grpc.InitialConnWindowSize(connectionWindow),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: keepaliveTime, Timeout: keepaliveTimeout}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: keepaliveMinimum, PermitWithoutStream: true}),
		grpc.InTapHandle(cancellable),
		grpc.UnaryInterceptor(s.unary),
		grpc.StreamInterceptor(s.stream),
		grpc.WaitForHandlers(true),
	}
}

// unary maps errors at this edge; a handler that panics fails its own call.
func (s *Server) unary(ctx context.Context, request any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (answer any, err error) {
	defer s.recovered(info.FullMethod, &err)
	answer, err = next(ctx, request)
	return answer, Status(err)
}

func (s *Server) stream(server any, stream grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) (err error) {
	defer s.recovered(info.FullMethod, &err)
	return Status(next(server, stream))
}

func (s *Server) recovered(method string, err *error) {
	if r := recover(); r != nil {
		s.logger.Error("a call's handler panicked", "method", method, "panic", r, "stack", string(debug.Stack()))
		*err = status.Errorf(codes.Internal, "%s failed inside; the server's log says how", method)
	}
}

// Address returns where the server listens, with the port that it got.
func (s *Server) Address() string { return s.listener.Addr().String() }

// Serve answers calls until Stop. It returns nil after Stop.
func (s *Server) Serve() error {
	err := s.Server.Serve(s.listener)
	if errors.Is(err, grpc.ErrServerStopped) {
		return nil
	}
	return err
}

// Stop ends the server. Calls that are under way get grace to end; then their
// streams are cut. It returns when all handlers have ended.
func (s *Server) Stop(grace time.Duration) {
	s.stop.Do(func() {
		if grace > 0 {
			cut := time.AfterFunc(grace, s.Server.Stop)
			defer cut.Stop()
			s.Server.GracefulStop()
		}
		s.Server.Stop()
		// A server that never served does not own the listener yet.
		s.listener.Close()
	})
}

// CheckAddress holds the rule that a listener elsewhere than on loopback needs
// TLS, or the operator's word that it may do without.
func CheckAddress(address string, tls, insecure bool) error {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Errorf("address %q is not host:port: %w", address, err)
	}
	if tls || insecure || loopback(host) {
		return nil
	}
	return fmt.Errorf("address %s is not on loopback and there is no tls block: whoever reaches it could run commands on the cluster; "+
		"add a tls block, listen on 127.0.0.1, or write insecure = true", address)
}

func loopback(host string) bool {
	if host == "localhost" {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}
