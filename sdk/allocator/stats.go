package allocator

import (
	"sync"

	"github.com/mezzo-os/mezzo/sdk/allocator/engine"
	"github.com/mezzo-os/mezzo/sdk/metric"
)

// stats are the metrics of every allocator that is a policy over the engine.
// Sessions bring what they have counted after each step, so that whoever asks
// waits for no cycle.
type stats struct {
	mu       sync.Mutex
	sessions uint64
	sum      engine.Stats // of all sessions; only its counters
	current  *session     // nil: none
	now      engine.Stats // of the current session
}

func (s *stats) begin(x *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sessions++
	s.current, s.now = x, engine.Stats{}
}

func (s *stats) end(x *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.current == x {
		s.current = nil
	}
}

// take takes over what a session counted since before, and returns now.
func (s *stats) take(x *session, before, now engine.Stats) engine.Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sum.Events += now.Events - before.Events
	s.sum.Offers += now.Offers - before.Offers
	s.sum.InverseOffers += now.InverseOffers - before.InverseOffers
	s.sum.Revocations += now.Revocations - before.Revocations
	s.sum.Agents += now.Agents - before.Agents
	if s.current == x {
		s.now = now
	}
	return now
}

// metrics declares them.
func (s *stats) metrics() *metric.Set {
	set := metric.NewSet()
	counter := func(name, help string, read func() uint64) {
		set.CounterFunc(name, help, func(tell metric.Tell) {
			s.mu.Lock()
			defer s.mu.Unlock()
			tell(float64(read()))
		})
	}
	// There are no gauges while there is no session.
	gauge := func(name, help string, read func() int) {
		set.GaugeFunc(name, help, func(tell metric.Tell) {
			s.mu.Lock()
			defer s.mu.Unlock()
			if s.current != nil {
				tell(float64(read()))
			}
		})
	}
	counter("sessions_total", "Sessions with a core: each begins with a snapshot of the cluster.", func() uint64 { return s.sessions })
	counter("events_total", "Events of the core that were applied to the mirror of the cluster, snapshots included.", func() uint64 { return s.sum.Events })
	counter("agents_considered_total", "Agents that cycles looked at: what a cycle costs follows it.", func() uint64 { return s.sum.Agents })
	set.CounterFunc("decisions_total", "Decisions that were made, by type. The core has a word on each.", func(tell metric.Tell) {
		s.mu.Lock()
		defer s.mu.Unlock()
		tell(float64(s.sum.Offers), "offer")
		tell(float64(s.sum.InverseOffers), "inverse_offer")
		tell(float64(s.sum.Revocations), "revoke")
	}, "type")
	gauge("decisions_unanswered", "Offers that were decided and of which the core has not said what became of them.", func() int { return s.now.Unanswered })
	gauge("agents_idle", "Agents with something free that is worth an offer: nobody wants it, or may have it.", func() int { return s.now.IdleAgents })
	gauge("agents_waiting", "Agents that the next cycle is to look at.", func() int { return s.now.WaitingAgents })
	gauge("candidates_wanting", "Frameworks that want offers, once for each of their roles.", func() int { return s.now.Wanting })
	gauge("candidates_starved", "Frameworks that are starved, once for each of their roles, as of the last look; 0 where tasks are never revoked.", func() int { return s.now.Starved })
	gauge("filters", "Filters that refused offers have left: what a framework does not want on an agent.", func() int { return s.now.Filters })
	gauge("revocations", "Tasks that were told to end for somebody else and have not ended.", func() int { return s.now.Revoking })
	return set
}
