package agent

import (
	"bytes"
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

	mu       sync.Mutex
	spec     pluginhost.Spec      // as it was given
	instance *pluginhost.Instance // nil while it is being replaced
	given    []byte               // what the plugin was configured with last
	state    IsolatorState
	changed  chan struct{} // closed and replaced at every change of state
}

// launchSpec is what an agent remembers to launch an isolator again when it is
// not in the configuration any more. It may hold secrets, as agent.db may.
type launchSpec struct {
	Version  int             `json:"version"`
	Path     string          `json:"path"`
	Checksum string          `json:"checksum,omitempty"`
	Config   json.RawMessage `json:"config,omitempty"`
}

// StartPlugin starts an isolator's plugin in the host, which stops it. The
// errors are the host's. OnUp, OnDown and OnStatus of the spec are called
// besides.
func StartPlugin(ctx context.Context, host *pluginhost.Host, spec pluginhost.Spec) (*Plugin, error) {
	p := &Plugin{name: spec.Name, host: host, changed: make(chan struct{}), state: IsolatorState{Reason: "has not started yet"}}
	if err := p.start(ctx, spec); err != nil {
		return nil, err
	}
	return p, nil
}

// start starts a process of this specification; there is none now.
func (p *Plugin) start(ctx context.Context, given pluginhost.Spec) error {
	spec := given
	launch := launchSpec{Version: 1, Path: spec.Path, Checksum: spec.Checksum}
	if configure := spec.Configure; configure != nil {
		spec.Configure = func(schema *pluginv1.Schema) ([]byte, error) {
			config, err := configure(schema)
			if err == nil {
				p.set(func(s *IsolatorState) {
					launch.Config = config
					p.given = config
					s.Spec, _ = json.Marshal(launch) // nothing in it can fail
				})
			}
			return config, err
		}
	} else {
		p.set(func(s *IsolatorState) { s.Spec, _ = json.Marshal(launch) })
	}
	up, down, status := spec.OnUp, spec.OnDown, spec.OnStatus
	spec.OnUp = func(ctx context.Context, g *pluginhost.Generation) {
		p.set(func(s *IsolatorState) { s.Conn = g.Conn })
		if up != nil {
			up(ctx, g)
		}
	}
	spec.OnDown = func(g *pluginhost.Generation, err error) {
		p.set(func(s *IsolatorState) { s.Conn = nil })
		if down != nil {
			down(g, err)
		}
	}
	spec.OnStatus = func(now pluginhost.Status) {
		p.set(func(s *IsolatorState) {
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
	p.spec, p.instance = given, instance
	p.mu.Unlock()
	return nil
}

// replace has a process of another specification take this one's place. The old
// one is stopped first, since two cannot share containers; the new one recovers
// them, as after a crash. When the new one does not start, the old one is
// started again.
func (p *Plugin) replace(ctx context.Context, spec pluginhost.Spec) error {
	if err := pluginhost.Check(ctx, spec, pluginhost.Options{}); err != nil {
		return err
	}
	p.mu.Lock()
	before := p.spec
	p.mu.Unlock()
	p.stop()
	err := p.start(ctx, spec)
	if err == nil {
		return nil
	}
	if again := p.start(context.WithoutCancel(ctx), before); again != nil {
		return fmt.Errorf("%w\nthe isolator before it did not start again either, and the agent offers nothing: %w", err, again)
	}
	return err
}

// stop ends the process. The containers live on.
func (p *Plugin) stop() {
	p.mu.Lock()
	instance := p.instance
	p.instance = nil
	p.mu.Unlock()
	if instance == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), pluginsTimeout)
	defer cancel()
	instance.Stop(ctx)
}

// differs says why a block of the configuration is not what runs; empty: it is.
func (p *Plugin) differs(block config.Plugin, pluginDir string) string {
	p.mu.Lock()
	spec, instance, running := p.spec, p.instance, p.given
	p.mu.Unlock() // the instance must not be called with it held: it calls back
	path := block.Binary(pluginDir)
	var generation *pluginhost.Generation
	if instance != nil {
		generation = instance.Current()
	}
	switch {
	case path != spec.Path:
		return "another file: " + path
	case block.Checksum != spec.Checksum:
		return "another checksum"
	case generation == nil:
		return "it does not run now"
	}
	if sum, err := pluginhost.Checksum(path); err != nil || sum != generation.Checksum {
		return "the file is another"
	}
	given, diags := config.DecodePlugin(block, generation.Description.GetSchema())
	if diags.HasErrors() || !bytes.Equal(given, running) {
		return "another config"
	}
	return ""
}

func (p *Plugin) setLogLevel(level string) {
	p.mu.Lock()
	instance := p.instance
	p.mu.Unlock()
	if instance != nil {
		instance.SetLogLevel(level)
	}
}

// RevivePlugin starts an isolator from what StartPlugin reported as its Spec
// once.
func RevivePlugin(ctx context.Context, host *pluginhost.Host, name string, spec []byte) (*Plugin, error) {
	var launch launchSpec
	if err := json.Unmarshal(spec, &launch); err != nil {
		return nil, fmt.Errorf("isolator %s: how it was launched is not what an agent wrote: %w", name, err)
	}
	if launch.Version != 1 {
		return nil, fmt.Errorf("isolator %s: how it was launched is written in form %d, this agent reads form 1", name, launch.Version)
	}
	return StartPlugin(ctx, host, pluginhost.Spec{
		Kind: pluginv1.Kind_KIND_ISOLATOR, Name: name, Path: launch.Path, Checksum: launch.Checksum, Place: "the agent's checkpoint",
		Configure: func(*pluginv1.Schema) ([]byte, error) {
			if len(launch.Config) == 0 {
				return []byte("{}"), nil
			}
			return launch.Config, nil
		},
	})
}

// set changes the state and wakes who watches it.
func (p *Plugin) set(change func(*IsolatorState)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change(&p.state)
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
