package state

import (
	"slices"
	"strings"

	"github.com/mezzo-os/mezzo/sdk/allocator"
)

// A snapshot tells a new session everything without stopping the machine:
// roles and frameworks at once, then agents, some a step. What happens to an
// agent that was told follows in order; what happens to one that was not is
// left out, since it is told as it is when its turn comes.

func (m *Machine) allocatorOpened(in AllocatorOpened) {
	m.endSession()
	s := &m.session
	s.id, s.snapshot, s.next = in.Session, true, 1
	m.logf(Info, "allocator session opened", "session", uint64(in.Session), "agents", len(m.agents))
	m.emit(AllocatorBegin{Session: s.id, Begin: allocator.Begin{
		FirstDecision: s.seen + 1, BatchInterval: m.cfg.BatchInterval, MinRefuse: m.cfg.MinRefuse, Seed: m.cfg.Seed,
		MaxDecisionsPerSecond: m.cfg.MaxDecisionsPerSecond, MinAllocatable: m.cfg.MinAllocatable,
		FilterGPUResources: m.cfg.FilterGPUResources,
	}})
	for _, name := range sortedKeys(m.roles) {
		if r := m.roles[name]; r.first != nil || r.set != nil || len(r.frameworks) > 0 {
			m.tellAlways(m.allocatorRole(r))
		}
	}
	for _, id := range sortedKeys(m.frameworks) {
		if f := m.frameworks[id]; f.phase != frameworkAdmitting {
			m.tellFramework(f)
		}
	}
	for _, a := range m.agents {
		a.queued = a.phase == present
		if a.queued {
			s.left = append(s.left, a)
		}
	}
	slices.SortFunc(s.left, func(a, b *agent) int { return strings.Compare(a.id, b.id) })
	m.continueSnapshot()
}

// continueSnapshot tells the next agents, and ends the snapshot after the last.
func (m *Machine) continueSnapshot() {
	s := &m.session
	n := min(m.cfg.SnapshotAgents, len(s.left))
	for _, a := range s.left[:n] {
		if !a.queued || m.agents[a.id] != a {
			continue // it went away while it waited
		}
		a.queued, a.told = false, s.id
		m.tellWholeAgent(a)
	}
	clear(s.left[:n])
	s.left = s.left[n:]
	if len(s.left) > 0 {
		m.timers.schedule(&s.timer, m.now)
		return
	}
	s.left, s.snapshot, s.ended = nil, false, true
	m.after(&s.late, m.cfg.ReadyTimeout)
}

// tellWholeAgent tells an agent with all that is on it.
func (m *Machine) tellWholeAgent(a *agent) {
	m.tell(a, m.allocatorAgent(a, true))
	for _, x := range m.filtersOn(a) {
		e := &allocator.Filter{
			Agent: a.id, Framework: x.key.framework, Role: x.key.role, Resources: x.resources,
			Remaining: x.refused.Sub(m.now),
		}
		if e.Remaining <= 0 {
			e.Remaining, e.Soft = x.until.Sub(m.now), true
		}
		if e.Remaining > 0 {
			m.tell(a, e)
		}
	}
	for _, o := range inOrder(a.offers) {
		rest, _ := m.books.OfferOf(o.id)
		m.tell(a, &allocator.OfferOutstanding{
			Number: o.decision, Agent: a.id, Framework: o.framework.id, Role: o.role, Resources: rest.Resources,
		})
	}
	if !m.cfg.TellTasks {
		return
	}
	for _, t := range m.tasksOf(a) {
		if t.held {
			started := t.launched
			if !t.started.IsZero() {
				started = t.started
			}
			m.tell(a, &allocator.TaskStarted{
				Number: t.number, Agent: a.id, Framework: t.key.FrameworkID, Role: t.role, Resources: t.resources, Started: started,
			})
		}
	}
}
