package plugin

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	goplugin "github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"
)

// exitGrace is how long a plugin that was shut down waits for its host to close
// the connection before it exits by itself.
const exitGrace = time.Second

// Serve runs the plugin and returns when the host has ended it; main returns
// then. A process that no host started prints what it is and exits 1; a
// definition that is wrong does so too. After Serve has begun, what the program
// prints on stdout goes to the host's log.
func Serve(def Definition) {
	if os.Getenv(CookieKey) != CookieValue {
		fmt.Fprint(os.Stderr, introduce(def))
		os.Exit(1)
	}
	watchHost()

	// go-plugin puts pipes of its own in place of os.Stderr: the logger keeps
	// the real one.
	stderr := os.Stderr
	logger := hclog.New(&hclog.LoggerOptions{
		Name:       KindName(def.Kind) + "." + def.Name,
		Level:      levelFromEnv(),
		Output:     stderr,
		JSONFormat: true,
	})
	handshake, err := divertStdout()
	if err != nil {
		logger.Error("stdout cannot be set aside for the handshake", "error", err)
		os.Exit(1)
	}
	os.Stdout = handshake
	defer runtime.KeepAlive(handshake)

	var server *grpc.Server
	svc, err := newService(def, logger, func() {
		time.AfterFunc(exitGrace, func() { server.Stop() })
	})
	if err != nil {
		logger.Error(err.Error())
		os.Exit(1)
	}
	// go-plugin carries os.Stdout and os.Stderr over gRPC from the handshake on,
	// and loses what was printed just before a crash. The pipe to the host's log
	// is better; by the first call go-plugin has done its swap.
	var direct sync.Once
	svc.described = func() { direct.Do(func() { os.Stdout, os.Stderr = stderr, stderr }) }
	versioned := map[int]goplugin.PluginSet{}
	for _, v := range def.versions() {
		versioned[int(v)] = goplugin.PluginSet{"plugin": &grpcPlugin{svc: svc}}
	}
	goplugin.Serve(&goplugin.ServeConfig{
		HandshakeConfig:  Handshake(),
		VersionedPlugins: versioned,
		Logger:           logger.Named("transport"),
		GRPCServer: func(opts []grpc.ServerOption) *grpc.Server {
			os.Unsetenv(CookieKey) // has been checked; children are no plugins
			server = grpc.NewServer(append(opts, serverLimits()...)...)
			return server
		},
	})
}

func serverLimits() []grpc.ServerOption {
	return []grpc.ServerOption{grpc.MaxRecvMsgSize(MaxMessageSize), grpc.MaxSendMsgSize(MaxMessageSize)}
}

func clientLimits() grpc.DialOption {
	return grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(MaxMessageSize), grpc.MaxCallSendMsgSize(MaxMessageSize))
}

// levelFromEnv is the host's level, so that what nobody will read is not sent.
func levelFromEnv() hclog.Level {
	if level := hclog.LevelFromString(os.Getenv(EnvLogLevel)); level != hclog.NoLevel {
		return level
	}
	return hclog.Info
}

// grpcPlugin puts a service on go-plugin's server.
type grpcPlugin struct {
	goplugin.NetRPCUnsupportedPlugin
	svc *service
}

func (p *grpcPlugin) GRPCServer(broker *goplugin.GRPCBroker, s *grpc.Server) error {
	p.svc.dial = func(id uint32) (*grpc.ClientConn, error) {
		return broker.DialWithOptions(id, clientLimits())
	}
	p.svc.register(s)
	return nil
}

// GRPCClient is the host's side, which core/pluginhost has a type of its own for.
func (p *grpcPlugin) GRPCClient(context.Context, *goplugin.GRPCBroker, *grpc.ClientConn) (any, error) {
	return nil, fmt.Errorf("sdk/plugin serves plugins; hosts use core/pluginhost")
}
