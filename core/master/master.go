// Package master is the shell around core/master/state: it has the
// connections, the registry, the clock and the allocator's process, and takes
// what comes from them to the machine, one at a time.
//
//	m, err := master.New(master.Options{Config: config, Logger: logger, Version: version})
//	if err != nil {
//		return err
//	}
//	go func() { <-m.Ready(); fmt.Println("ready", m.Addresses()) }()
//	err = m.Run(ctx)
package master

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/hcl/v2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/peer"

	"github.com/mezzo-os/mezzo/config"
	"github.com/mezzo-os/mezzo/core/adapter"
	"github.com/mezzo-os/mezzo/core/authorization"
	"github.com/mezzo-os/mezzo/core/election"
	"github.com/mezzo-os/mezzo/core/http"
	"github.com/mezzo-os/mezzo/core/http/ui"
	"github.com/mezzo-os/mezzo/core/loglevel"
	"github.com/mezzo-os/mezzo/core/metric"
	"github.com/mezzo-os/mezzo/core/pluginhost"
	"github.com/mezzo-os/mezzo/core/registry"
	"github.com/mezzo-os/mezzo/core/reload"
	"github.com/mezzo-os/mezzo/core/rpc"
	"github.com/mezzo-os/mezzo/core/trace"
	"github.com/mezzo-os/mezzo/sdk/client"
	linkv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/link/v1"
	operatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/operator/v1"
	schedulerv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1/scheduler"
)

const (
	// publishInterval is how old what readers see may be.
	publishInterval = 20 * time.Millisecond
	// freshness is how long a query may wait to see all that came before it.
	freshness = 500 * time.Millisecond
	// stopGrace is how long calls that are under way have at the end.
	stopGrace = time.Second
)

// Options of a master.
type Options struct {
	Config config.Master
	// Logger gets everything; nil: nothing is logged.
	Logger hclog.Logger
	// Version is told to agents, schedulers and operators.
	Version string
	// Authorizer decides who may do what; nil: the configuration's rules.
	Authorizer rpc.Authorizer
	// Allocator, when set, is used instead of a plugin's process: for tests
	// and benchmarks.
	Allocator grpc.ClientConnInterface
	// Reread reads the configuration again, for Reload. The settings are nil when
	// there is an error; the file is never nil. Nil: there is none to read.
	Reread func() (*config.Master, *config.File, hcl.Diagnostics)
	// SwapTimeout bounds the time from the launch of an allocator that is to take
	// over until it does; 0: 2 min.
	SwapTimeout time.Duration
	// HandshakeTimeout is how long a client has to begin; 0: 10 s.
	HandshakeTimeout time.Duration
	// HeartbeatInterval is how often schedulers get a HEARTBEAT; 0: 15 s.
	HeartbeatInterval time.Duration
	// EpochCheck is how often a leader looks whether its epoch is still the newest;
	// 0: 10 s.
	EpochCheck time.Duration
}

// Master is a master of the cluster. Its methods may be called from any
// goroutine.
type Master struct {
	options    Options
	logger     hclog.Logger
	authorizer *metric.Denials
	policy     *authorization.Switch // the configuration's
	started    time.Time
	mirror     *mirror
	metrics    *metrics
	registry   registry.Registry
	election   election.Election
	host       *pluginhost.Host
	adapters   *adapter.Set
	rpc        *rpc.Server
	http       *http.Server
	ui         *ui.UI
	tracer     *trace.Tracer // nil: nothing is traced
	ip         string        // under which schedulers reach rpc

	id        string                             // of the candidate, fresh at every start
	leader    atomic.Pointer[election.Candidate] // as the election tells it; nil: none
	term      atomic.Pointer[term]               // nil while it does not lead
	termMu    sync.Mutex
	termNews  chan struct{}           // closed and replaced when term or elected changes
	elected   bool                    // from the election's word to the term's end
	unwritten atomic.Pointer[string]  // why the registry's last write failed; nil: it did not
	failed    atomic.Pointer[failure] // at the last election that it won; nil: it led, or won none
	serving   map[string]bool         // adapters that serve
	sessions  atomic.Uint64
	callers   atomic.Uint64

	config      atomic.Pointer[config.Master] // what counts now; see Reload
	allocator   atomic.Pointer[allocatorRun]  // the current one
	allocatorMu sync.Mutex                    // held while another one takes over
	reloader    *reload.Reloader[config.Master]
	logLevel    *loglevel.Switch

	life       context.Context // of what Run starts
	background sync.WaitGroup
	ready      chan struct{}
}

// New opens the master's listeners, registry and plugin host; nothing is
// served before Run. After an error nothing is left open. An error about the
// configuration is hcl.Diagnostics.
func New(o Options) (m *Master, err error) {
	m = &Master{
		options: o, logger: o.Logger, mirror: newMirror(), started: time.Now(),
		termNews: make(chan struct{}), ready: make(chan struct{}), serving: map[string]bool{},
	}
	if m.logger == nil {
		m.logger = hclog.NewNullLogger()
	}
	m.reloader = &reload.Reloader[config.Master]{Logger: m.logger, Reread: o.Reread, Ready: m.hasStarted, Apply: m.apply}
	m.metrics = newMetrics(m.mirror, func() int {
		if t := m.term.Load(); t != nil {
			return t.inbox.waiting()
		}
		return 0
	}, func() bool { return m.term.Load() != nil }, func() bool { return m.failed.Load().damaged() },
		func() []pluginhost.Numbers { return m.host.Numbers() })
	m.config.Store(&o.Config)
	defer func() {
		if err != nil {
			m.close()
			m = nil
		}
	}()
	if diags := o.Config.Check(); diags.HasErrors() {
		return m, diags
	}
	policy, err := o.Config.Authorization.Policy()
	if err != nil {
		return m, fmt.Errorf("authorization: %w", err)
	}
	m.policy = authorization.NewSwitch(policy)
	m.authorizer = metric.NewDenials(m.policy, m.logger)
	if o.Authorizer != nil {
		m.authorizer.Authorizer = o.Authorizer
	}
	m.authorizer.Register(m.metrics.registry)
	if err := os.MkdirAll(o.Config.DataDir, 0o755); err != nil {
		return m, fmt.Errorf("data directory: %w", err)
	}
	if m.id, err = randomID(); err != nil {
		return m, err
	}
	if m.election, err = OpenElection(&o.Config, m.logger); err != nil {
		return m, err
	}
	if m.registry, err = OpenRegistry(&o.Config, m.logger, m.metrics.losses.Inc); err != nil {
		return m, err
	}
	// A directory of its own: an agent on the same data_dir has one, too.
	if m.host, err = pluginhost.New(pluginhost.Options{Logger: m.logger, DataDir: filepath.Join(o.Config.DataDir, "master"), OnCall: m.metrics.calls.Called}); err != nil {
		return m, err
	}
	m.adapters = m.newAdapters()
	if err := m.listen(); err != nil {
		return m, err
	}
	return m, m.openTracer()
}

func (m *Master) openTracer() (err error) {
	c := m.options.Config
	if c.Tracing != nil {
		m.tracer, err = trace.New(trace.Options{
			Config: *c.Tracing, Service: "mezzo-master", Version: m.options.Version, Host: m.hostname(), Instance: m.rpc.Address(),
			Logger: m.logger,
		})
		m.tracer.Register(m.metrics.registry)
	}
	return err
}

func (m *Master) listen() (err error) {
	c := m.options.Config
	var tls *client.Files
	if c.TLS != nil {
		tls = &client.Files{CA: c.TLS.CA, Cert: c.TLS.Cert, Key: c.TLS.Key}
	}
	rpcLogger, httpLogger := m.logger.Named("rpc"), m.logger.Named("http")
	m.logLevel = loglevel.New(c.LogLevel, func(level hclog.Level) {
		for _, l := range []hclog.Logger{m.logger, rpcLogger, httpLogger} {
			l.SetLevel(level)
		}
		m.host.FollowLogLevel()
	})
	if m.rpc, err = rpc.Listen(rpc.Options{
		Address: c.RPC, TLS: tls, Insecure: c.Insecure, Logger: rpcLogger, HandshakeTimeout: m.options.HandshakeTimeout,
	}); err != nil {
		return err
	}
	m.ip = addressOf(context.Background(), m.rpc.Address(), m.hostname())
	operator := &operatorService{master: m}
	operatorv1.RegisterOperatorServer(m.rpc, operator)
	linkv1.RegisterAgentLinkServer(m.rpc, &agentService{master: m})
	schedulerv1.RegisterSchedulerServer(m.rpc, &schedulerService{master: m})
	m.ui = m.newUI(operator, tls)
	m.http, err = http.Listen(http.Options{
		Title: "Mezzo master", Address: c.HTTP, TLS: tls, Insecure: c.Insecure, Logger: httpLogger,
		Metrics: m.metrics.all(), Healthy: m.healthy, Ready: m.readiness, Queries: queries(operator), View: operator.view, Elsewhere: m.leadersHTTP, Handlers: m.ui.Handlers(),
	})
	return err
}

// Run campaigns, leads, and serves until ctx ends (it returns nil) or
// something fails that only an operator can put right. One of several masters
// that loses its leadership throws its state away and campaigns again.
func (m *Master) Run(ctx context.Context) error {
	defer m.close()
	outer := ctx
	ctx, cancel := context.WithCancelCause(outer)
	defer cancel(nil)
	m.life = ctx
	fail := func(what string, run func() error) {
		m.background.Go(func() {
			if err := run(); err != nil {
				cancel(fmt.Errorf("%s: %w", what, err))
			}
		})
	}
	mirrorLife, stopMirror := context.WithCancel(context.WithoutCancel(ctx))
	defer stopMirror()
	var mirroring sync.WaitGroup
	mirroring.Go(func() { m.mirror.run(mirrorLife) })

	fail("rpc", m.rpc.Serve)
	fail("http", m.http.Serve)
	fail("leadership", func() error { return m.campaign(ctx) })
	m.background.Go(func() { m.followLeader(ctx) })
	m.background.Go(func() { m.ui.Run(ctx, m.sample) })
	err := m.startAllocator(ctx)
	if err == nil {
		c := m.config.Load()
		err = m.adapters.Start(ctx, c.Frameworks, c.PluginDir)
	}
	if err == nil {
		m.serve(ctx)
	}
	if ctx.Err() == nil {
		cancel(err)
	}
	m.shutDown()
	stopMirror()
	mirroring.Wait()
	if outer.Err() != nil {
		return nil
	}
	return context.Cause(ctx)
}

// serve tells when the master is ready, and waits for the end. One of several is
// ready when it could lead.
func (m *Master) serve(ctx context.Context) {
	err := ctx.Err()
	if m.alone() {
		_, err = m.awaitTerm(ctx)
	}
	if err == nil {
		close(m.ready)
		addresses := m.Addresses()
		m.logger.Info("serving", "rpc", addresses["rpc"], "http", addresses["http"])
	}
	<-ctx.Done()
}

// shutDown ends all that Run has started, and waits for it. ctx has ended.
func (m *Master) shutDown() {
	if m.host != nil {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := m.host.Close(ctx); err != nil {
			m.logger.Warn("the plugins did not end well", "error", err)
		}
	}
	m.http.Stop(stopGrace)
	m.rpc.Stop(stopGrace)
	m.background.Wait()
}

// close closes what New opened. What shutDown has ended already is ended.
func (m *Master) close() {
	ctx, cancel := context.WithTimeout(context.Background(), stopGrace)
	defer cancel()
	m.tracer.Close(ctx)
	if m.logLevel != nil {
		m.logLevel.Close()
	}
	if m.host != nil {
		_ = m.host.Close(context.Background())
	}
	if m.http != nil {
		m.http.Stop(0)
	}
	if m.ui != nil {
		m.ui.Close()
	}
	if m.rpc != nil {
		m.rpc.Stop(0)
	}
	if m.election != nil {
		_ = m.election.Close()
	}
	if m.registry != nil {
		if err := m.registry.Close(); err != nil {
			m.logger.Error("the registry did not close", "error", err)
		}
	}
}

// Close gives up a master that was never run.
func (m *Master) Close() { m.close() }

// Addresses are where the master listens, by name: "rpc", "http", and what its
// adapters call their endpoints.
func (m *Master) Addresses() map[string]string {
	out := m.adapters.Endpoints()
	out["rpc"], out["http"] = m.rpc.Address(), m.http.Address()
	return out
}

// Ready is closed when the master leads, its allocator has started and its
// adapters serve; one of several need not lead for it.
func (m *Master) Ready() <-chan struct{} { return m.ready }

// leading returns the term, or an error for the caller.
func (m *Master) leading() (*term, error) {
	if t := m.term.Load(); t != nil {
		return t, nil
	}
	return nil, unavailable(m.notLeading())
}

// setTerm says that the master leads, or, with nil, whether it is elected to.
func (m *Master) setTerm(t *term, elected bool) {
	m.termMu.Lock()
	defer m.termMu.Unlock()
	if t != nil {
		for _, name := range slices.Sorted(maps.Keys(m.serving)) {
			t.tellAdapter(name, true)
		}
	}
	m.elected = elected
	m.term.Store(t)
	close(m.termNews)
	m.termNews = make(chan struct{})
}

// recovering is whether the master is elected, and does not lead yet.
func (m *Master) recovering() bool {
	m.termMu.Lock()
	defer m.termMu.Unlock()
	return m.elected && m.term.Load() == nil
}

// awaitTerm waits until the master leads.
func (m *Master) awaitTerm(ctx context.Context) (*term, error) {
	for {
		m.termMu.Lock()
		t, news := m.term.Load(), m.termNews
		m.termMu.Unlock()
		if t != nil {
			return t, nil
		}
		select {
		case <-news:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func unavailable(message string) error { return fmt.Errorf("%w: %s", rpc.ErrUnavailable, message) }

func conflict(message string) error { return fmt.Errorf("%w: %s", rpc.ErrConflict, message) }

func peerOf(ctx context.Context) string {
	if p, ok := peer.FromContext(ctx); ok {
		return p.Addr.String()
	}
	return ""
}
