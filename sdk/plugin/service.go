package plugin

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pluginv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/plugin/v1"
)

// Environment is what a plugin gets to live in, from Configure on.
type Environment struct {
	// DataDir is a directory of the plugin's own, kept across its restarts.
	DataDir string
	// ContractVersion is the version of the kind's contract that the host speaks.
	ContractVersion uint32
	// Logger reaches the host's log under the name <kind>.<name>.
	Logger hclog.Logger
	// Health is the plugin's word on its own state.
	Health *Health

	dial func(id uint32) (*grpc.ClientConn, error)
}

// Dial reaches a service that the host offers to this plugin at a broker id;
// the kind's contract says where the id comes from. The caller closes the
// connection.
func (e Environment) Dial(id uint32) (*grpc.ClientConn, error) {
	if e.dial == nil {
		return nil, errors.New("plugin: this environment has no broker")
	}
	return e.dial(id)
}

// Companion returns the path of a program that is installed beside the plugin's
// own binary (see Definition.Capabilities).
func Companion(name string) (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	path := filepath.Join(filepath.Dir(self), name)
	if _, err := os.Stat(path); err != nil {
		return "", errors.New("plugin: companion " + name + " is not beside " + self + "; install both together")
	}
	return path, nil
}

// service is mezzo.plugin.v1.Plugin over a Definition.
type service struct {
	pluginv1.UnimplementedPluginServer
	def         Definition
	description *pluginv1.Description
	logger      hclog.Logger
	health      *Health
	dial        func(id uint32) (*grpc.ClientConn, error)
	// ended is called once, after Shutdown was asked for and done.
	ended func()
	// described is called at every Describe, the host's first call.
	described func()

	mu         sync.Mutex
	configured bool
	shutdown   sync.Once
	done       chan struct{} // closed when Shutdown begins; ends Health streams
}

func newService(def Definition, logger hclog.Logger, ended func()) (*service, error) {
	description, err := def.describe()
	if err != nil {
		return nil, err
	}
	return &service{
		def: def, description: description, logger: logger, health: newHealth(),
		ended: ended, described: func() {}, done: make(chan struct{}),
	}, nil
}

// register puts the base service and the kind's services on a server.
func (s *service) register(r grpc.ServiceRegistrar) {
	pluginv1.RegisterPluginServer(r, s)
	s.def.Register(r)
}

func (s *service) Describe(context.Context, *pluginv1.DescribeRequest) (*pluginv1.Description, error) {
	s.described()
	return s.description, nil
}

func (s *service) Ping(context.Context, *pluginv1.PingRequest) (*pluginv1.PingResponse, error) {
	return &pluginv1.PingResponse{}, nil
}

func (s *service) Metrics(ctx context.Context, r *pluginv1.MetricsRequest) (*pluginv1.MetricsResponse, error) {
	if s.def.Metrics == nil {
		return s.UnimplementedPluginServer.Metrics(ctx, r)
	}
	return &pluginv1.MetricsResponse{Families: s.def.Metrics.Families()}, nil
}

func (s *service) Configure(ctx context.Context, req *pluginv1.ConfigureRequest) (*pluginv1.ConfigureResponse, error) {
	if !slices.Contains(s.def.versions(), req.GetContractVersion()) {
		return nil, status.Errorf(codes.FailedPrecondition, "plugin %s %q serves contract versions %v, not %d",
			KindName(s.def.Kind), s.def.Name, s.def.versions(), req.GetContractVersion())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.configured {
		return nil, status.Errorf(codes.FailedPrecondition, "plugin %s %q is configured already", KindName(s.def.Kind), s.def.Name)
	}
	config, diagnostics := s.decode(req.GetConfig())
	if !Failed(diagnostics) && !req.GetValidateOnly() {
		s.configured = true
		if s.def.Configure != nil {
			diagnostics = append(diagnostics, s.def.Configure(ctx, config, Environment{
				DataDir: req.GetDataDir(), ContractVersion: req.GetContractVersion(),
				Logger: s.logger, Health: s.health, dial: s.dial,
			})...)
		}
	}
	return &pluginv1.ConfigureResponse{Diagnostics: toProto(diagnostics)}, nil
}

// decode returns the filled-in configuration, nil for a plugin without one.
func (s *service) decode(data []byte) (any, []Diagnostic) {
	if s.def.NewConfig == nil {
		return nil, nil
	}
	config := s.def.NewConfig()
	if err := DecodeConfig(data, config); err != nil {
		var bad *ConfigError
		if errors.As(err, &bad) {
			return nil, []Diagnostic{{Summary: "invalid value", Detail: bad.Problem, Path: bad.Path}}
		}
		return nil, []Diagnostic{{Summary: "configuration cannot be read", Detail: err.Error()}}
	}
	return config, validate(config)
}

func (s *service) Health(_ *pluginv1.HealthRequest, stream grpc.ServerStreamingServer[pluginv1.HealthStatus]) error {
	for {
		now, changed := s.health.get()
		if err := stream.Send(now); err != nil {
			return err
		}
		select {
		case <-changed:
		case <-s.done:
			return nil
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
	}
}

func (s *service) Shutdown(ctx context.Context, _ *pluginv1.ShutdownRequest) (*pluginv1.ShutdownResponse, error) {
	s.shutdown.Do(func() {
		close(s.done)
		if s.def.Shutdown != nil {
			s.def.Shutdown(ctx)
		}
		s.ended()
	})
	return &pluginv1.ShutdownResponse{}, nil
}
