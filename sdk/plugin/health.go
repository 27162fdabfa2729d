package plugin

import (
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	pluginv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/plugin/v1"
)

// Health is the plugin's word on its own state; the host shows it and acts on
// it. It begins healthy. All methods may be called at any time, from any
// goroutine, and never block; saying the same again is free.
type Health struct {
	mu      sync.Mutex
	state   pluginv1.HealthStatus_State
	message string
	since   time.Time
	changed chan struct{} // closed and replaced at every change
}

func newHealth() *Health {
	return &Health{
		state:   pluginv1.HealthStatus_STATE_HEALTHY,
		since:   time.Now(),
		changed: make(chan struct{}),
	}
}

// Healthy says that all is well.
func (h *Health) Healthy() { h.set(pluginv1.HealthStatus_STATE_HEALTHY, "") }

// Degraded says that the plugin works, with less than was asked for, and why.
func (h *Health) Degraded(why string) { h.set(pluginv1.HealthStatus_STATE_DEGRADED, why) }

// Unhealthy says that the plugin must not be given new work, and why.
func (h *Health) Unhealthy(why string) { h.set(pluginv1.HealthStatus_STATE_UNHEALTHY, why) }

func (h *Health) set(state pluginv1.HealthStatus_State, message string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.state == state && h.message == message {
		return
	}
	if h.state != state {
		h.since = time.Now()
	}
	h.state, h.message = state, message
	close(h.changed)
	h.changed = make(chan struct{})
}

// get returns the state and a channel that is closed when it changes.
func (h *Health) get() (*pluginv1.HealthStatus, <-chan struct{}) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return &pluginv1.HealthStatus{State: h.state, Message: h.message, Since: timestamppb.New(h.since)}, h.changed
}
