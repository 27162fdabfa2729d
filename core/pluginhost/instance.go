package pluginhost

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/mezzo-os/mezzo/sdk/plugin"
)

// Instance is a plugin under supervision. Its methods may be called from any
// goroutine.
type Instance struct {
	host   *Host
	spec   Spec
	logger hclog.Logger // named <kind>.<name>; the host's lines about the plugin, and its own

	life   context.Context // ends when Stop is called
	cancel context.CancelFunc
	ended  chan struct{} // closed when the supervisor has ended, or never began

	mu       sync.Mutex
	ownLevel hclog.Level // of the log; NoLevel: the host's
	status   Status
	current  *Generation     // that may be used; nil while there is none
	changed  chan struct{}   // closed and replaced at every change of status or current
	stopCtx  context.Context // of the first Stop: bounds the graceful end
}

func newInstance(h *Host, spec Spec) *Instance {
	life, cancel := context.WithCancel(context.Background())
	logger := h.options.Logger.Named(spec.logName())
	own := hclog.LevelFromString(spec.LogLevel)
	if own != hclog.NoLevel {
		logger.SetLevel(own)
	}
	return &Instance{
		host:   h,
		spec:   spec,
		life:   life,
		cancel: cancel,
		logger: logger, ownLevel: own,
		ended: make(chan struct{}),
		status: Status{
			Kind: plugin.KindName(spec.Kind), Name: spec.Name, Path: spec.Path, Pinned: spec.Checksum != "",
			State: Starting, Since: time.Now(),
		},
		changed: make(chan struct{}),
	}
}

// Spec returns what the instance was started with.
func (i *Instance) Spec() Spec { return i.spec }

// SetLogLevel changes the least level of the plugin's log lines, as
// Spec.LogLevel says; empty: the host's own.
func (i *Instance) SetLogLevel(level string) {
	i.mu.Lock()
	i.ownLevel = hclog.LevelFromString(level)
	i.mu.Unlock()
	i.followLogLevel()
}

// followLogLevel sets what counts: the plugin's own level, or else the host's.
func (i *Instance) followLogLevel() {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.ownLevel != hclog.NoLevel {
		i.logger.SetLevel(i.ownLevel)
	} else {
		i.logger.SetLevel(i.host.options.Logger.GetLevel())
	}
}

// Status returns the state now.
func (i *Instance) Status() Status {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.status
}

// Current returns the process that may be used now, or nil.
func (i *Instance) Current() *Generation {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.current
}

// Await returns the process that may be used, waiting for one if there is none.
// It fails when ctx ends or the instance is stopped.
func (i *Instance) Await(ctx context.Context) (*Generation, error) {
	for {
		i.mu.Lock()
		current, status, changed := i.current, i.status, i.changed
		i.mu.Unlock()
		if current != nil {
			return current, nil
		}
		if status.State == Stopped {
			return nil, fmt.Errorf("%s is stopped", i.spec.title())
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, fmt.Errorf("%s is not running (%s): %w", i.spec.title(), status.State, ctx.Err())
		}
	}
}

// Stop ends the plugin: its users' contexts end, OnDown is called with nil, the
// process is asked to finish, and killed after ShutdownGrace or when ctx ends.
// It returns when no process is left. Stopping twice is no error.
func (i *Instance) Stop(ctx context.Context) {
	i.mu.Lock()
	if i.stopCtx == nil {
		i.stopCtx = ctx
	}
	i.mu.Unlock()
	i.cancel()
	<-i.ended
	i.host.remove(i)
}

// update changes the status under the lock, then tells who wants to know.
func (i *Instance) update(change func(s *Status)) {
	i.mu.Lock()
	before := i.status
	change(&i.status)
	if i.status.State != before.State {
		i.status.Since = time.Now()
	}
	after := i.status
	close(i.changed)
	i.changed = make(chan struct{})
	// Called under the lock, so that calls come in order.
	if i.host.options.OnStatus != nil {
		i.host.options.OnStatus(after)
	}
	if i.spec.OnStatus != nil {
		i.spec.OnStatus(after)
	}
	i.mu.Unlock()
}
