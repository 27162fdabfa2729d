package agent

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/hcl/v2"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/mezzo-os/mezzo/config"
	"github.com/mezzo-os/mezzo/core/adapter"
	"github.com/mezzo-os/mezzo/core/agent/fetcher"
	"github.com/mezzo-os/mezzo/core/agent/state"
	"github.com/mezzo-os/mezzo/core/authorization"
	elect "github.com/mezzo-os/mezzo/core/election/zookeeper"
	"github.com/mezzo-os/mezzo/core/http"
	"github.com/mezzo-os/mezzo/core/loglevel"
	"github.com/mezzo-os/mezzo/core/metric"
	"github.com/mezzo-os/mezzo/core/pluginhost"
	"github.com/mezzo-os/mezzo/core/reload"
	"github.com/mezzo-os/mezzo/core/rpc"
	"github.com/mezzo-os/mezzo/core/trace"
	"github.com/mezzo-os/mezzo/core/zookeeper"
	"github.com/mezzo-os/mezzo/sdk/client"
	operatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/operator/v1"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
	executorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1/executor"
	"github.com/mezzo-os/mezzo/sdk/resource"
)

const (
	// detectorSession is that of the agent with ZooKeeper. It has no nodes there.
	detectorSession = 10 * time.Second
	// endTimeout bounds the end of all tasks, their grace periods included.
	endTimeout = 15 * time.Second
	closeGrace = 2 * time.Second
	// pluginsTimeout bounds the end of the plugins.
	pluginsTimeout = 10 * time.Second
)

// ServiceOptions are a whole agent process's.
type ServiceOptions struct {
	Config  config.Agent
	Logger  hclog.Logger
	Version string
	// Reread reads the configuration again, for Reload. The settings are nil when
	// there is an error; the file is never nil. Nil: there is none to read.
	Reread func() (*config.Agent, *config.File, hcl.Diagnostics)
	// Authorizer decides who may do what; nil: the configuration's rules.
	Authorizer rpc.Authorizer
	// EndTasks ends all tasks when the agent is stopped. Otherwise they run on,
	// for the next agent to recover.
	EndTasks bool
	// Forget has the agent begin as a new one; see Options.Forget.
	Forget bool
	// ResourcesShare divides detected resources among so many agents of one
	// machine; PortsPart, from 1, is which part of the ports is this one's. 0
	// or 1: all of it.
	ResourcesShare, PortsPart int
}

// Service is an agent with all that belongs to its process: listeners, and
// plugins in a host.
type Service struct {
	o        ServiceOptions
	rpc      *rpc.Server
	http     *http.Server
	host     *pluginhost.Host
	calls    *metric.Calls
	agent    *Agent
	tracer   *trace.Tracer // nil: nothing is traced
	adapters *adapter.Set
	ready    chan struct{}

	reloader *reload.Reloader[config.Agent]
	config   config.Agent // what counts now; changed by a reload alone
	logLevel *loglevel.Switch
	policy   *authorization.Switch // the configuration's
	denials  *metric.Denials

	mu      sync.Mutex
	plugins map[string]*Plugin // isolators by name, retired ones too
}

// NewService opens listeners, database and plugin host, and starts the
// isolators. After an error nothing is left running.
func NewService(ctx context.Context, o ServiceOptions) (*Service, error) {
	if o.Logger == nil {
		o.Logger = hclog.NewNullLogger()
	}
	policy, err := o.Config.Authorization.Policy()
	if err != nil {
		return nil, fmt.Errorf("agent: authorization: %w", err)
	}
	rules := authorization.NewSwitch(policy)
	if o.Authorizer == nil {
		o.Authorizer = rules
	}
	denials := metric.NewDenials(o.Authorizer, o.Logger)
	o.Authorizer = denials
	s := &Service{o: o, denials: denials, policy: rules, calls: metric.NewCalls(), ready: make(chan struct{}), config: o.Config, plugins: map[string]*Plugin{}}
	s.reloader = &reload.Reloader[config.Agent]{Logger: o.Logger, Reread: o.Reread, Ready: s.readiness, Apply: s.apply}
	if err := s.open(ctx); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

func (s *Service) open(ctx context.Context) (err error) {
	if err := s.listen(); err != nil {
		return err
	}
	// A directory of its own: a master on the same data_dir has one, too.
	dir := filepath.Join(s.o.Config.DataDir, "agent")
	if s.host, err = pluginhost.New(pluginhost.Options{Logger: s.o.Logger, DataDir: dir, OnCall: s.calls.Called}); err != nil {
		return err
	}
	hostname := s.o.Config.Hostname
	if hostname == "" {
		if hostname, err = os.Hostname(); err != nil {
			return fmt.Errorf("agent: the machine's name (hostname = … gives one): %w", err)
		}
	}
	s.adapters = s.newAdapters(hostname)
	var isolators []Isolator
	for _, block := range s.o.Config.Isolators {
		p, err := startPlugin(ctx, s.host, pluginhost.FromConfig(block, s.o.Config.PluginDir))
		if err != nil {
			return err
		}
		s.plugins[p.name] = p
		isolators = append(isolators, p)
	}
	if c := s.o.Config.Tracing; c != nil {
		if s.tracer, err = trace.New(trace.Options{
			Config: *c, Service: "mezzo-agent", Version: s.o.Version, Host: hostname, Instance: s.rpc.Address(), Logger: s.o.Logger,
		}); err != nil {
			return err
		}
	}
	if s.agent, err = s.newAgent(hostname, isolators); err != nil {
		return err
	}
	s.calls.Register(s.agent.metrics.registry)
	s.denials.Register(s.agent.metrics.registry)
	operatorv1.RegisterAgentOperatorServer(s.rpc, &operatorService{Agent: s.agent, service: s})
	executorv1.RegisterExecutorServer(s.rpc, s.agent.ExecutorServer(""))
	return nil
}

func (s *Service) listen() (err error) {
	c := s.o.Config
	files := s.files()
	rpcLogger, httpLogger := s.o.Logger.Named("rpc"), s.o.Logger.Named("http")
	s.logLevel = loglevel.New(c.LogLevel, func(level hclog.Level) {
		for _, l := range []hclog.Logger{s.o.Logger, rpcLogger, httpLogger} {
			l.SetLevel(level)
		}
		s.host.FollowLogLevel()
	})
	if s.rpc, err = rpc.Listen(rpc.Options{Address: c.RPC, TLS: files, Insecure: c.Insecure, Logger: rpcLogger}); err != nil {
		return err
	}
	s.http, err = http.Listen(http.Options{
		Title: "Mezzo agent", Address: c.HTTP, TLS: files, Insecure: c.Insecure, Logger: httpLogger,
		Metrics: prometheus.GathererFunc(func() ([]*dto.MetricFamily, error) { return s.agent.metrics.all().Gather() }),
		View: func(ctx context.Context) error {
			return s.o.Authorizer.Authorize(ctx, rpc.PrincipalFrom(ctx), rpc.ViewCluster, rpc.Object{})
		},
		Healthy: s.healthy, Ready: s.checks, Queries: map[string]http.Query{"state": {One: s.queryState}},
	})
	return err
}

func (s *Service) files() *client.Files {
	if t := s.o.Config.TLS; t != nil {
		return &client.Files{CA: t.CA, Cert: t.Cert, Key: t.Key}
	}
	return nil
}

func (s *Service) readiness() error {
	select {
	case <-s.ready:
		return nil
	default:
		return errors.New("the agent has not recovered yet")
	}
}

// healthy says that the event loop does not turn any more, so that nothing but
// another process helps.
func (s *Service) healthy(ctx context.Context) error {
	if s.readiness() != nil {
		return nil // it recovers
	}
	if err := s.agent.query(ctx, func(*state.Machine) {}); errors.Is(err, context.DeadlineExceeded) {
		return errors.New("the event loop has not come round in time")
	}
	return nil
}

// checks says what the agent needs in order to get tasks.
func (s *Service) checks(ctx context.Context) []http.Check {
	recovered := http.Check{Name: "recovery", State: "done", Err: s.readiness()}
	if recovered.Err != nil {
		return []http.Check{recovered}
	}
	registered, offered := http.Check{Name: "master"}, http.Check{Name: "resources", State: "offered"}
	err := s.agent.query(ctx, func(m *state.Machine) {
		numbers, view := m.Numbers(), m.View()
		if registered.State = view.Master; !numbers.Registered {
			registered.Err = errors.New("the agent is not registered with one")
		}
		if view.Withheld != "" {
			offered.Err = errors.New(view.Withheld)
		}
	})
	if err != nil {
		recovered.Err = err
	}
	checks := []http.Check{recovered, registered, offered}
	for _, p := range s.listPlugins() {
		if name, is := strings.CutPrefix(p.GetId(), config.KindIsolator+"/"); is {
			checks = append(checks, http.Check{Name: "isolator " + name, State: p.GetState()})
		}
	}
	return checks
}

func (s *Service) queryState(ctx context.Context, _ url.Values) (proto.Message, error) {
	if err := s.readiness(); err != nil {
		return nil, err
	}
	v, err := s.agent.GetState(ctx, &operatorv1.GetAgentStateRequest{})
	return v, rpc.FromStatus(err)
}

func (s *Service) newAgent(hostname string, isolators []Isolator) (*Agent, error) {
	c := s.o.Config
	resources, err := s.resources()
	if err != nil {
		return nil, err
	}
	dial, err := s.dialer()
	if err != nil {
		return nil, err
	}
	leaders, err := s.detector()
	if err != nil {
		return nil, err
	}
	fetch, err := fetcher.New(fetcher.Options{
		CacheDir: filepath.Join(c.DataDir, "fetch"), CacheBytes: c.Fetcher.CacheSize, MaxBytes: c.Fetcher.MaxSize, Stall: c.Fetcher.StallTimeout,
	})
	if err != nil {
		return nil, err
	}
	return New(Options{
		DataDir: c.DataDir, WorkDir: c.WorkDir, Hostname: hostname, Version: s.o.Version,
		RPCAddress: s.rpc.Address(), HTTPAddress: s.http.Address(), Masters: c.Masters, Leaders: leaders, Dial: dial,
		Resources: resources.ToProto(), Attributes: attributes(c.Attributes), Domain: c.Domain.Proto(), Isolators: isolators, Revive: s.revive,
		Retire: s.retire, Adapters: blockNames(c.Frameworks),
		Plugins: s.listPlugins, Numbers: s.host.Numbers, Authorizer: s.o.Authorizer, RegistrationBackoff: c.RegistrationBackoff, PingTimeout: c.PingTimeout,
		Detected: c.Resources == "", Reconfiguration: state.Reconfiguration(c.ReconfigurationPolicy), Forget: s.o.Forget,
		ExecutorRegistrationTimeout: c.ExecutorRegistrationTimeout, ExecutorReregistrationTimeout: c.ExecutorReregistrationTimeout,
		ExecutorShutdownGrace: c.ExecutorShutdownGrace, RecoveryTimeout: c.RecoveryTimeout,
		LogSize: c.LogSize, LogFiles: c.LogFiles, Fetcher: fetch, SecretsDir: c.Secrets.Dir,
		GCDelay: c.GCDelay, GCDiskHeadroom: c.GCDiskHeadroom, GCInterval: c.GCInterval,
		DiskWatchInterval: c.DiskWatchInterval, EnforceDisk: c.EnforceDisk, Tracer: s.tracer, Logger: s.o.Logger,
	})
}

// detector finds the leader by ZooKeeper; nil: the masters are listed.
func (s *Service) detector() (func(context.Context) <-chan string, error) {
	if len(s.o.Config.Masters) != 1 || !config.IsZooKeeper(s.o.Config.Masters[0]) {
		return nil, nil
	}
	where, err := config.ParseZooKeeper(s.o.Config.Masters[0])
	if err != nil {
		return nil, err
	}
	o := elect.Options{Path: where.Path, Session: zookeeper.Options{
		Servers: where.Servers, Timeout: detectorSession, Auth: where.Auth, Logger: s.o.Logger.Named("detector"),
	}}
	if where.TLS {
		files := s.files()
		if files == nil {
			return nil, errors.New("zks:// speaks TLS with this process's own certificate: write a tls block, or zk://")
		}
		if o.Session.TLS, err = files.Client(); err != nil {
			return nil, err
		}
	}
	return func(ctx context.Context) <-chan string { return elect.Addresses(ctx, o, "rpc") }, nil
}

func (s *Service) dialer() (func(string) (*grpc.ClientConn, error), error) {
	var options client.Options
	if files := s.files(); files != nil {
		var err error
		if options.TLS, err = files.Client(); err != nil {
			return nil, err
		}
	}
	return func(address string) (*grpc.ClientConn, error) { return client.Dial(address, options) }, nil
}

// revive launches an isolator that only old containers need.
func (s *Service) revive(name string, spec []byte) (Isolator, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	p, err := revivePlugin(ctx, s.host, name, spec)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.plugins[name] = p
	return p, nil
}

func (s *Service) listPlugins() []*operatorv1.Plugin {
	var list []*operatorv1.Plugin
	for _, status := range s.host.Status() {
		if status.Kind != config.KindFramework {
			list = append(list, status.ToProto("agent"))
		}
	}
	return append(list, s.adapters.Plugins()...)
}

// resources are those of the configuration, or what the machine has.
func (s *Service) resources() (resource.Resources, error) {
	c := s.o.Config
	if c.Resources != "" {
		return resource.Parse(c.Resources)
	}
	dir := c.WorkDir
	if dir == "" {
		dir = c.DataDir
	}
	all, err := detect(dir)
	if err != nil || s.o.ResourcesShare <= 1 {
		return all, err
	}
	return part(all, s.o.ResourcesShare, max(s.o.PortsPart, 1))
}

// part is one of several equal parts of a machine, in whole units, and no less
// than one CPU: agents of a machine that share one are for trying things out.
func part(all resource.Resources, parts, which int) (resource.Resources, error) {
	var texts []string
	for _, name := range all.Names() {
		if ports := all.RangesOf(name); len(ports) > 0 {
			width := (ports[0].End - ports[0].Begin + 1) / uint64(parts)
			begin := ports[0].Begin + uint64(which-1)*width
			texts = append(texts, fmt.Sprintf("%s:[%d-%d]", name, begin, begin+width-1))
		} else if name != "gpus" || all.Get(name).Float() >= float64(parts) { // nor may two agents count on the same GPU
			texts = append(texts, fmt.Sprintf("%s:%g", name, max(1, math.Floor(all.Get(name).Float()/float64(parts)))))
		}
	}
	return resource.Parse(strings.Join(texts, ";"))
}

// attributes turns the configuration's texts into values, as Mesos reads them:
// a number, ranges in brackets, or text.
func attributes(list []config.AgentAttribute) []*mezzov1.Attribute {
	var out []*mezzov1.Attribute
	for _, a := range list {
		attribute := &mezzov1.Attribute{Name: proto.String(a.Name)}
		if number, err := strconv.ParseFloat(a.Value, 64); err == nil {
			attribute.Type, attribute.Scalar = mezzov1.Value_SCALAR.Enum(), &mezzov1.Value_Scalar{Value: proto.Float64(number)}
		} else if r, err := resource.Parse(a.Name + ":" + a.Value); err == nil && len(r.RangesOf(a.Name)) > 0 {
			attribute.Type, attribute.Ranges = mezzov1.Value_RANGES.Enum(), &mezzov1.Value_Ranges{}
			for _, one := range r.RangesOf(a.Name) {
				attribute.Ranges.Range = append(attribute.Ranges.Range, &mezzov1.Value_Range{Begin: proto.Uint64(one.Begin), End: proto.Uint64(one.End)})
			}
		} else {
			attribute.Type, attribute.Text = mezzov1.Value_TEXT.Enum(), &mezzov1.Value_Text{Value: proto.String(a.Value)}
		}
		out = append(out, attribute)
	}
	return out
}

// Addresses are where the agent listens, by name: "agent", "agent_http", and
// NAME_agent for each endpoint NAME of its adapters.
func (s *Service) Addresses() map[string]string {
	out := map[string]string{}
	for name, address := range s.adapters.Endpoints() {
		out[name+"_agent"] = address
	}
	out["agent"], out["agent_http"] = s.rpc.Address(), s.http.Address()
	return out
}

// Ready is closed when the agent serves.
func (s *Service) Ready() <-chan struct{} { return s.ready }

// Run serves until ctx ends, or the agent cannot go on, or the master has it
// end with all its tasks.
func (s *Service) Run(ctx context.Context) error {
	defer s.close()
	life, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cancel(nil)
	serve := func(what string, serve func() error) {
		go func() {
			if err := serve(); err != nil {
				cancel(fmt.Errorf("%s: %w", what, err))
			}
		}()
	}
	serve("rpc", s.rpc.Serve)
	serve("http", s.http.Serve)
	ended := make(chan error, 1)
	go func() { ended <- s.agent.Run(life) }()
	go func() {
		select {
		case <-s.agent.Ready():
			if err := s.adapters.Start(life, s.o.Config.Frameworks, s.o.Config.PluginDir); err != nil {
				cancel(err)
				return
			}
			close(s.ready)
			s.o.Logger.Info("serving", "rpc", s.rpc.Address(), "http", s.http.Address(), "work_dir", filepath.Clean(s.agent.work.root))
		case <-life.Done():
		}
	}()
	select {
	case err := <-ended:
		return errors.Join(err, context.Cause(life))
	case <-ctx.Done():
	}
	if s.o.EndTasks {
		s.agent.End("the agent was stopped, and its tasks with it")
		select {
		case err := <-ended:
			return err
		case <-time.After(endTimeout):
			s.o.Logger.Warn("tasks did not end in time; they are left to the next agent", "limit", endTimeout)
		}
	}
	cancel(nil)
	return <-ended
}

// close ends what NewService has opened. It may be called again.
func (s *Service) close() {
	if s.logLevel != nil {
		s.logLevel.Close()
	}
	if s.host != nil {
		ctx, cancel := context.WithTimeout(context.Background(), pluginsTimeout)
		defer cancel()
		if err := s.host.Close(ctx); err != nil {
			s.o.Logger.Warn("the plugins did not end well", "error", err)
		}
	}
	if s.agent != nil {
		_ = s.agent.Close()
	}
	if s.http != nil {
		s.http.Stop(closeGrace)
	}
	if s.rpc != nil {
		s.rpc.Stop(closeGrace)
	}
	ctx, cancel := context.WithTimeout(context.Background(), closeGrace)
	defer cancel()
	s.tracer.Close(ctx)
}
