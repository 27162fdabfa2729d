package framework

import (
	"context"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/mezzo-os/mezzo/sdk/metric"
	"github.com/mezzo-os/mezzo/sdk/plugin"
	frameworkv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/framework/v1"
)

// Definition is what the host and its operator need to know of an adapter.
type Definition struct {
	// Name is what HCL uses: "mesos" in `framework "mesos"`.
	Name string
	// Version is the plugin's own, for people.
	Version string
	// Summary is one sentence for lists and the manual.
	Summary string
	// NewConfig returns a pointer to a new configuration struct; see
	// plugin.SchemaOf. Nil: the plugin has no settings.
	NewConfig func() any
	// New makes the adapter from what NewConfig returned, filled in and valid. It
	// is called once, and opens nothing: that is for Adapter.Serve. With an error
	// among the diagnostics the plugin is not used.
	New func(config any, env plugin.Environment) (Adapter, []plugin.Diagnostic)
	// Metrics are the plugin's own; see sdk/metric. Nil: it has none.
	Metrics *metric.Set
}

// Serve runs the plugin and returns when the host has ended it; main returns
// then. See plugin.Serve.
func Serve(d Definition) { plugin.Serve(d.Plugin()) }

// Plugin returns the definition as sdk/plugin knows it: for tests, which serve
// it by plugin.StartLocal.
func (d Definition) Plugin() plugin.Definition {
	s := &server{definition: d}
	s.life, s.end = context.WithCancel(context.Background())
	return plugin.Definition{
		Name: d.Name, Version: d.Version, Summary: d.Summary, Kind: plugin.Framework,
		NewConfig: d.NewConfig,
		Configure: s.configure,
		Metrics:   d.Metrics,
		Register:  func(r grpc.ServiceRegistrar) { frameworkv1.RegisterFrameworkServer(r, s) },
		Shutdown:  s.shutdown,
	}
}

// server serves the contract by an Adapter.
type server struct {
	frameworkv1.UnimplementedFrameworkServer
	definition Definition
	life       context.Context
	end        context.CancelFunc

	mu      sync.Mutex
	adapter Adapter
	env     plugin.Environment
	conn    *grpc.ClientConn // nil before Serve
}

func (s *server) configure(_ context.Context, config any, env plugin.Environment) []plugin.Diagnostic {
	adapter, diagnostics := s.definition.New(config, env)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.adapter, s.env = adapter, env
	return diagnostics
}

// Serve implements frameworkv1.FrameworkServer.
func (s *server) Serve(_ context.Context, r *frameworkv1.ServeRequest) (*frameworkv1.ServeResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.adapter == nil:
		return nil, status.Error(codes.FailedPrecondition, "the adapter is not configured yet")
	case s.conn != nil:
		return nil, status.Error(codes.FailedPrecondition, "the adapter serves already")
	case s.life.Err() != nil:
		return nil, status.Error(codes.FailedPrecondition, "the adapter is shutting down")
	}
	conn, err := s.env.Dial(r.GetCore())
	if err != nil {
		return nil, status.Errorf(codes.Internal, "the core cannot be reached: %v", err)
	}
	serving, err := s.adapter.Serve(s.life, &Core{
		Side: r.GetSide(), Hostname: r.GetHostname(), Version: r.GetVersion(), AgentID: r.GetAgentId(),
		Conn: conn, DataDir: s.env.DataDir, Logger: s.env.Logger, Health: s.env.Health,
	})
	if err != nil {
		conn.Close()
		return nil, status.Error(codes.FailedPrecondition, err.Error())
	}
	s.conn = conn
	return serving.toProto(), nil
}

func (s *Serving) toProto() *frameworkv1.ServeResponse {
	out := &frameworkv1.ServeResponse{}
	if s == nil {
		return out
	}
	for _, name := range sorted(s.Endpoints) {
		out.Endpoints = append(out.Endpoints, &frameworkv1.Endpoint{Name: name, Address: s.Endpoints[name]})
	}
	for _, name := range sorted(s.ExecutorEnvironment) {
		out.ExecutorEnvironment = append(out.ExecutorEnvironment, &frameworkv1.EnvironmentVariable{Name: name, Value: s.ExecutorEnvironment[name]})
	}
	if s.ExecutorTokenVariable != "" {
		out.ExecutorEnvironment = append(out.ExecutorEnvironment, &frameworkv1.EnvironmentVariable{Name: s.ExecutorTokenVariable, ExecutorToken: true})
	}
	return out
}

func (s *server) shutdown(ctx context.Context) {
	if !s.mu.TryLock() {
		s.end() // an adapter whose Serve has not returned hears of it by its context
		s.mu.Lock()
	}
	defer s.mu.Unlock()
	s.end()
	if s.conn != nil {
		s.adapter.Shutdown(ctx)
		s.conn.Close()
	}
}
