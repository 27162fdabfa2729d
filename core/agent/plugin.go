package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"

	"github.com/mezzo-os/mezzo/config"
	"github.com/mezzo-os/mezzo/core/pluginhost"
	pluginv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/plugin/v1"
)

// Plugin is an isolator that a plugin host runs. Its process may be replaced by
// one of another configuration; what the agent knows of it stays.
type Plugin struct {
	name string
	host *pluginhost.Host

	mu      sync.Mutex
	active  *incarnation // nil while one takes the place of another
	state   IsolatorState
	changed chan struct{} // closed and replaced at every change of state
}

// incarnation is one process after another under one specification.
type incarnation struct {
	spec     pluginhost.Spec // as it was given
	instance *pluginhost.Instance
	given    []byte // what the plugin was configured with last
	state    IsolatorState
}

// launchSpec is what an agent remembers to launch an isolator again when it is
// not in the configuration any more. It may hold secrets, as agent.db may.
type launchSpec struct {
	Version  int             `json:"version"`
	Path     string          `json:"path"`
	Checksum string          `json:"checksum,omitempty"`
	Config   json.RawMessage `json:"config,omitempty"`
}

// startPlugin starts an isolator's plugin in the host, which stops it. The
// errors are the host's. OnUp, OnDown and OnStatus of the spec are called
// besides.
func startPlugin(ctx context.Context, host *pluginhost.Host, spec pluginhost.Spec) (*Plugin, error) {
	p := &Plugin{name: spec.Name, host: host, changed: make(chan struct{})}
	p.active = &incarnation{spec: spec, state: IsolatorState{Reason: "has not started yet"}}
	p.publish()
	if err := p.start(ctx, p.active, nil); err != nil {
		return nil, err
	}
	return p, nil
}

// start starts an incarnation's process, beside the one that it replaces.
func (p *Plugin) start(ctx context.Context, x *incarnation, replaces *pluginhost.Instance) error {
	spec := x.spec
	spec.Replaces = replaces
	launch := launchSpec{Version: 1, Path: spec.Path, Checksum: spec.Checksum}
	if configure := spec.Configure; configure != nil {
		spec.Configure = func(schema *pluginv1.Schema) ([]byte, error) {
			config, err := configure(schema)
			if err == nil {
				p.set(x, func(s *IsolatorState) {
					launch.Config = config
					x.given = config
					s.Spec, _ = json.Marshal(launch) // nothing in it can fail
				})
			}
			return config, err
		}
	} else {
		p.set(x, func(s *IsolatorState) { s.Spec, _ = json.Marshal(launch) })
	}
	up, down, status := spec.OnUp, spec.OnDown, spec.OnStatus
	spec.OnUp = func(ctx context.Context, g *pluginhost.Generation) {
		p.set(x, func(s *IsolatorState) { s.Conn = g.Conn })
		if up != nil {
			up(ctx, g)
		}
	}
	spec.OnDown = func(g *pluginhost.Generation, err error) {
		p.set(x, func(s *IsolatorState) { s.Conn = nil })
		if down != nil {
			down(g, err)
		}
	}
	spec.OnStatus = func(now pluginhost.Status) {
		p.set(x, func(s *IsolatorState) {
			s.Healthy = now.State == pluginhost.Healthy || now.State == pluginhost.Degraded
			if s.Reason = now.Message; s.Reason == "" && !s.Healthy {
				s.Reason = "its plugin is " + string(now.State)
			}
		})
		if status != nil {
			status(now)
		}
	}
	instance, err := p.host.Start(ctx, spec)
	if err != nil {
		return err
	}
	p.mu.Lock()
	x.instance = instance
	p.mu.Unlock()
	return nil
}

// replace has a process of another specification take this one's place. It is
// started, configured and healthy before the old one is stopped; with an error
// the old one has not been touched. It is used once the old one has ended, since
// two cannot share containers: it recovers them, as after a crash.
func (p *Plugin) replace(ctx context.Context, spec pluginhost.Spec) error {
	p.mu.Lock()
	old := p.active
	p.mu.Unlock()
	next := &incarnation{spec: spec, state: IsolatorState{Reason: "has not started yet"}}
	if err := p.start(ctx, next, old.instance); err != nil {
		return err
	}
	p.mu.Lock()
	p.active, p.state = nil, IsolatorState{Spec: old.state.Spec, Reason: "is being replaced"}
	p.wake()
	p.mu.Unlock()
	old.stop()
	p.mu.Lock()
	p.active = next
	p.mu.Unlock()
	p.publish()
	return nil
}

// stop ends the process. The containers live on.
func (p *Plugin) stop() {
	p.mu.Lock()
	active := p.active
	p.mu.Unlock()
	active.stop()
}

func (x *incarnation) stop() {
	ctx, cancel := context.WithTimeout(context.Background(), pluginsTimeout)
	defer cancel()
	x.instance.Stop(ctx)
}

// differs says why a block of the configuration is not what runs; empty: it is.
func (p *Plugin) differs(block config.Plugin, pluginDir string) string {
	p.mu.Lock()
	spec, instance, running := p.active.spec, p.active.instance, p.active.given
	p.mu.Unlock() // the instance must not be called with it held: it calls back
	return instance.Differs(block, pluginDir, spec.Path, spec.Checksum, running)
}

func (p *Plugin) setLogLevel(level string) {
	p.mu.Lock()
	instance := p.active.instance
	p.mu.Unlock()
	instance.SetLogLevel(level)
}

// revivePlugin starts an isolator from what startPlugin reported as its Spec
// once.
func revivePlugin(ctx context.Context, host *pluginhost.Host, name string, spec []byte) (*Plugin, error) {
	launch, err := readLaunch(spec)
	if err != nil {
		return nil, fmt.Errorf("isolator %s: %w", name, err)
	}
	return startPlugin(ctx, host, pluginhost.Spec{
		Kind: pluginv1.Kind_KIND_ISOLATOR, Name: name, Path: launch.Path, Checksum: launch.Checksum, Place: "the agent's checkpoint",
		Configure: func(*pluginv1.Schema) ([]byte, error) {
			if len(launch.Config) == 0 {
				return []byte("{}"), nil
			}
			return launch.Config, nil
		},
	})
}

func readLaunch(spec []byte) (launch launchSpec, err error) {
	if err := json.Unmarshal(spec, &launch); err != nil {
		return launch, fmt.Errorf("how it was launched is not what an agent wrote: %w", err)
	}
	if launch.Version != 1 {
		return launch, fmt.Errorf("how it was launched is written in form %d, this agent reads form 1", launch.Version)
	}
	return launch, nil
}

// set changes an incarnation's state, which is the plugin's while it is active.
func (p *Plugin) set(x *incarnation, change func(*IsolatorState)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change(&x.state)
	if p.active == x {
		p.state = x.state
		p.wake()
	}
}

// publish makes the state of the active incarnation the plugin's.
func (p *Plugin) publish() { p.set(p.active, func(*IsolatorState) {}) }

// wake wakes who watches the state; the caller holds mu.
func (p *Plugin) wake() {
	close(p.changed)
	p.changed = make(chan struct{})
}

// Name implements Isolator.
func (p *Plugin) Name() string { return p.name }

// Watch implements Isolator.
func (p *Plugin) Watch(ctx context.Context, report func(IsolatorState)) {
	for {
		p.mu.Lock()
		now, changed := p.state, p.changed
		p.mu.Unlock()
		report(now)
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}
