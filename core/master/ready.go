package master

import (
	"context"
	"errors"
	"fmt"

	"github.com/mezzo-os/mezzo/core/http"
	"github.com/mezzo-os/mezzo/core/pluginhost"
)

// healthy says that the event loop does not turn any more: nothing but another
// process helps. A standby has no loop.
func (m *Master) healthy(ctx context.Context) error {
	t, err := m.leading()
	if err != nil {
		return nil
	}
	turned := make(chan struct{})
	if t.inbox.post(pulse(turned)) != nil {
		return nil // its leadership has just ended
	}
	select {
	case <-turned:
	case <-t.over:
	case <-ctx.Done():
		return errors.New("the event loop has not come round in time")
	}
	return nil
}

// pulse is closed in its turn.
type pulse chan struct{}

// readiness says what the master needs in order to lead well.
func (m *Master) readiness(context.Context) []http.Check {
	leader := http.Check{Name: "leader", State: "this master"}
	if _, leader.Err = m.leading(); leader.Err != nil {
		leader.Err = errors.New(m.notLeading())
		if m.recovering() {
			leader.Err = errors.New("this master is elected, and reads the registry")
		}
		if failed := m.failed.Load(); failed.damaged() {
			return []http.Check{leader, {Name: "registry", Err: fmt.Errorf("this master was elected and could not lead: %w", failed.err)}}
		}
		return []http.Check{leader}
	}
	registry := http.Check{Name: "registry", State: "writable"}
	if why := m.unwritten.Load(); why != nil {
		registry.Err = fmt.Errorf("the last write failed: %s", *why)
	}
	return []http.Check{leader, registry, m.allocatorCheck()}
}

func (m *Master) allocatorCheck() http.Check {
	c := http.Check{Name: "allocator", State: "ready"}
	run := m.allocator.Load()
	switch {
	case m.allocatorConn() == nil:
		c.Err = errors.New("the allocator is not running")
	case run.instance != nil:
		s := run.instance.Status()
		c.State = s.Name + " is " + string(s.State)
		if s.State != pluginhost.Healthy && s.State != pluginhost.Degraded {
			c.Err = fmt.Errorf("%s is %s: %s", s.Name, s.State, s.Message)
		}
	}
	return c
}
