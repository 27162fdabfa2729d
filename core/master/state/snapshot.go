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
	ss := &m.sessions
	s := ss.vacant(ss.current)
	if in.Prepare {
		if ss.preparing != nil {
			m.giveUpSession(ss.preparing, "another allocator prepares to take over instead")
		}
		ss.preparing = s
	} else {
		if ss.current != nil {
			m.endSession(ss.current)
		}
		s = ss.vacant(ss.preparing)
		ss.current = s
	}
	s.id, s.snapshot, s.next = in.Session, true, 1
	s.seen = ss.used
	if c := ss.current; in.Prepare {
		if c != nil {
			s.seen = max(s.seen, c.seen)
		}
		s.seen += decisionGap
	}
	if ss.current != nil && ss.preparing != nil {
		ss.current.limit = ss.preparing.seen
	}
	m.logf(Info, "allocator session opened", "session", uint64(in.Session), "agents", len(m.agents))
	cfg := m.cfg
	if in.Prepare && in.Config != nil {
		if err := m.checkRoles(in.Config.Roles); err != nil {
			m.giveUpSession(s, err.Error())
			return
		}
		cfg = in.Config.withDefaults()
		s.config = &cfg
	}
	s.toldTasks = m.tellsTasks(s)
	m.emit(AllocatorBegin{Session: s.id, Begin: allocator.Begin{
		FirstDecision: s.seen + 1, BatchInterval: cfg.BatchInterval, MinRefuse: cfg.MinRefuse, Seed: m.cfg.Seed,
		MaxDecisionsPerSecond: cfg.MaxDecisionsPerSecond, MinAllocatable: cfg.MinAllocatable,
		FilterGPUResources: cfg.FilterGPUResources, Region: m.cfg.Region,
	}})
	tell := func(e allocator.Event) { s.events = append(s.events, e) }
	for _, name := range sortedKeys(m.roles) {
		if r := m.roles[name]; r.known() {
			tell(m.allocatorRole(r))
		}
	}
	for _, id := range sortedKeys(m.frameworks) {
		if f := m.frameworks[id]; f.phase != frameworkAdmitting {
			tell(m.allocatorFramework(f))
		}
	}
	for _, a := range m.agents {
		a.queued[s.slot] = a.phase == present
		if a.queued[s.slot] {
			s.left = append(s.left, a)
		}
	}
	slices.SortFunc(s.left, func(a, b *agent) int { return strings.Compare(a.id, b.id) })
	m.continueSnapshot(s)
}

// continueSnapshot tells the next agents, and ends the snapshot after the last.
func (m *Machine) continueSnapshot(s *session) {
	n := min(m.cfg.SnapshotAgents, len(s.left))
	for _, a := range s.left[:n] {
		if !a.queued[s.slot] || m.agents[a.id] != a {
			continue // it went away while it waited
		}
		a.queued[s.slot], a.told[s.slot] = false, s.id
		m.tellWholeAgent(s, a)
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

// tellWholeAgent tells a session of an agent with all that is on it.
func (m *Machine) tellWholeAgent(s *session, a *agent) {
	m.tellOne(s, a, m.allocatorAgent(s, a, true))
	for _, x := range m.filtersOn(a) {
		e := &allocator.Filter{
			Agent: a.id, Framework: x.key.framework, Role: x.key.role, Resources: x.resources,
			Remaining: x.refused.Sub(m.now),
		}
		if e.Remaining <= 0 {
			e.Remaining, e.Soft = x.until.Sub(m.now), true
		}
		if e.Remaining > 0 {
			m.tellOne(s, a, e)
		}
	}
	for _, o := range inOrder(a.offers) {
		rest, _ := m.books.OfferOf(o.id)
		m.tellOne(s, a, &allocator.OfferOutstanding{
			Number: o.decision, Agent: a.id, Framework: o.framework.id, Role: o.role, Resources: rest.Resources,
		})
	}
	m.tellInverses(s, a)
	if m.tellsTasks(s) {
		m.tellTasks(s, a)
	}
}

// tellTasks tells a session of the tasks on an agent.
func (m *Machine) tellTasks(s *session, a *agent) {
	for _, t := range m.tasksOf(a) {
		if t.held {
			m.tellOne(s, a, m.allocatorTask(t))
		}
	}
}

// allocatorTask is a task as the allocator is told of it.
func (m *Machine) allocatorTask(t *task) *allocator.TaskStarted {
	out := &allocator.TaskStarted{
		Number: t.number, Agent: t.agent.id, Framework: t.key.FrameworkID, Role: t.role, Resources: t.resources, Started: t.launched,
	}
	if !t.started.IsZero() {
		out.Started = t.started
	}
	if r := t.revoked; r != nil {
		out.Revocation = &allocator.Revocation{Remaining: max(0, r.until.Sub(m.now))}
		if f := m.frameworks[r.framework]; f != nil && !f.removed() {
			out.Revocation.Framework, out.Revocation.Role = r.framework, r.role
		}
	}
	return out
}
