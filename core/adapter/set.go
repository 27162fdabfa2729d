package adapter

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc"

	"github.com/mezzo-os/mezzo/config"
	"github.com/mezzo-os/mezzo/core/pluginhost"
	"github.com/mezzo-os/mezzo/core/rpc"
	"github.com/mezzo-os/mezzo/sdk/framework"
	frameworkv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/framework/v1"
	operatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/operator/v1"
)

// Options of a Set. All functions may be called from several goroutines.
type Options struct {
	Host *pluginhost.Host
	// Logger gets what goes wrong in calls of adapters; nil: nothing is logged.
	Logger hclog.Logger
	Side   framework.Side
	// Hostname and Version are told to adapters.
	Hostname, Version string
	// AgentID is an agent's id, empty before it has one; nil at a master.
	AgentID func() string
	// PluginHost is what operators are told of where the adapters run: "master".
	PluginHost string
	// Reserved are names of the process's own that no endpoint may have.
	Reserved []string
	// Authorizer is what adapters ask for their clients; nil: rpc.AllowAll.
	Authorizer rpc.Authorizer
	// Register registers what the core offers to one process of an adapter, but
	// for Store and Authorization.
	Register func(s grpc.ServiceRegistrar, from *Source)
	// Shelf is where adapters store, or an error: there is no place now.
	Shelf func() (*Shelf, error)
	// Up is called when an adapter serves, with what it said, and Down when it does
	// not any more; for each adapter they alternate. They must not block for long.
	Up   func(name string, serving *frameworkv1.ServeResponse)
	Down func(name string)
	// OnStatus is called at every change of an adapter, and must neither block nor
	// call the Set. Nil: nobody wants to know.
	OnStatus func(*operatorv1.Plugin)
}

// Set is the adapters of a master or an agent. Its methods may be called from
// any goroutine.
type Set struct {
	options   Options
	reloading sync.Mutex // held while Start or Reload changes what runs

	mu   sync.Mutex
	runs []*run // in order of the configuration
}

// New makes a set without adapters.
func New(o Options) *Set {
	if o.Logger == nil {
		o.Logger = hclog.NewNullLogger()
	}
	if o.Authorizer == nil {
		o.Authorizer = rpc.AllowAll{}
	}
	return &Set{options: o}
}

// Start starts the adapters of a configuration, and returns when all serve. Its
// error is the operator's to read; the host stops those that have started.
func (s *Set) Start(ctx context.Context, blocks []config.Plugin, pluginDir string) error {
	s.reloading.Lock()
	defer s.reloading.Unlock()
	for _, block := range blocks {
		r := s.newRun(block, pluginDir)
		s.setRuns(append(s.list(), r))
		if err := r.start(ctx, pluginDir); err != nil {
			return err
		}
	}
	return nil
}

func (s *Set) list() []*run {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.runs)
}

func (s *Set) setRuns(runs []*run) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.runs = runs
}

// claim takes over what an adapter serves, unless another has one of its names.
func (s *Set) claim(r *run, answer *frameworkv1.ServeResponse) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range answer.GetEndpoints() {
		if slices.Contains(s.options.Reserved, e.GetName()) {
			return fmt.Errorf("it named an endpoint %q, which is the process's own", e.GetName())
		}
		for _, other := range s.runs {
			if other.block.Name != r.block.Name && slices.ContainsFunc(other.said().GetEndpoints(), func(o *frameworkv1.Endpoint) bool { return o.GetName() == e.GetName() }) {
				return fmt.Errorf("it named an endpoint %q, which framework %q has", e.GetName(), other.block.Name)
			}
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.serving, r.last = answer, answer
	return nil
}

// said is what an adapter said when it served last: it comes back so.
func (r *run) said() *frameworkv1.ServeResponse {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.last
}

// Endpoints are where the adapters listen, by name. One that is being started
// again is where it was.
func (s *Set) Endpoints() map[string]string {
	out := map[string]string{}
	for _, r := range s.list() {
		for _, e := range r.said().GetEndpoints() {
			out[e.GetName()] = e.GetAddress()
		}
	}
	return out
}

// Names are the adapters', in order of the configuration.
func (s *Set) Names() []string { return names(s.list()) }

func names(runs []*run) []string {
	out := make([]string, len(runs))
	for i, r := range runs {
		out[i] = r.block.Name
	}
	return out
}

// Plugins are the adapters as operators see them.
func (s *Set) Plugins() []*operatorv1.Plugin {
	var out []*operatorv1.Plugin
	for _, r := range s.list() {
		if m := r.message(); m != nil {
			out = append(out, m)
		}
	}
	return out
}
