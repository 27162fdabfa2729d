package state

import (
	"fmt"
	"time"

	"github.com/mezzo-os/mezzo/sdk/allocator"
)

// session is one stream to an allocator. At most two are open: the current one,
// whose decisions count, and one that prepares to take over. While there is no
// current one, everything else goes on and nothing is offered.
type session struct {
	slot int // its place in sessions.slots, and in what agents know of it
	id   Session
	// snapshot: the snapshot is being written; left are the agents that are
	// not told yet, in order.
	snapshot bool
	left     []*agent
	timer    timer
	// late fires when the allocator is not ready, or does not keep up, in time.
	late timer
	// ended: the last batch of the snapshot goes out with this step.
	ended bool
	ready bool
	// events are those of this step; next is the number of the first of them.
	events []allocator.Event
	next   uint64
	// seen is the highest decision handled; at first, the one before its first.
	// limit is the highest number that it may use; 0: any.
	seen, limit uint64
	// handled: decisions were handled since the last batch.
	handled bool
	// The decisions of the running second.
	second time.Time
	count  int
	// Of one that prepares: config is what counts once it is current, nil for no
	// change; unseen are the events that it has not confirmed.
	config *Config
	unseen []sent
	// toldTasks: it was told of all tasks there were, and is told of new ones.
	toldTasks bool
}

// sent is when the first of some events was sent, and the number of the last.
type sent struct {
	at   time.Time
	last uint64
}

// sessions are the open ones: nil where there is none.
type sessions struct {
	slots              [2]session
	current, preparing *session
	// used is the highest decision that was handled in any session that is over.
	used uint64
}

const (
	// maxLag is how far a session may be behind when it becomes current.
	maxLag = 100 * time.Millisecond
	// lagGrain is how finely the lag is measured.
	lagGrain = 10 * time.Millisecond
	// decisionGap keeps the numbers of a session that prepares above all that
	// the current one can give out meanwhile, so that a number names one
	// decision for good.
	decisionGap = 1 << 32
)

func (ss *sessions) init(m *Machine) {
	for i := range ss.slots {
		s := &ss.slots[i]
		s.slot = i
		s.timer.fire = func() { m.continueSnapshot(s) }
		s.late.fire = func() {
			why := fmt.Sprintf("the allocator was not ready %s after its snapshot", m.cfg.ReadyTimeout)
			if s.ready {
				why = fmt.Sprintf("the allocator does not keep up: %s after its snapshot it is %s behind", m.cfg.ReadyTimeout, s.lag(m.now))
			}
			m.giveUpSession(s, why)
		}
	}
}

// each calls f for every open session, the current one first.
func (ss *sessions) each(f func(*session)) {
	if ss.current != nil {
		f(ss.current)
	}
	if ss.preparing != nil {
		f(ss.preparing)
	}
}

// find returns the open session of that name, or nil.
func (ss *sessions) find(id Session) *session {
	var found *session
	ss.each(func(s *session) {
		if s.id == id {
			found = s
		}
	})
	return found
}

// vacant returns a place for a session beside the other one.
func (ss *sessions) vacant(other *session) *session {
	if other == &ss.slots[0] {
		return &ss.slots[1]
	}
	return &ss.slots[0]
}

// knows is whether the session was told of the agent.
func (s *session) knows(a *agent) bool { return a.told[s.slot] == s.id }

// lag is for how long the oldest event that it has not confirmed is under way.
func (s *session) lag(now time.Time) time.Duration {
	if len(s.unseen) == 0 {
		return 0
	}
	return now.Sub(s.unseen[0].at)
}

func (s *session) confirm(seen uint64) {
	n := 0
	for n < len(s.unseen) && s.unseen[n].last <= seen {
		n++
	}
	s.unseen = s.unseen[n:]
}

func (m *Machine) giveUpSession(s *session, why string) {
	m.logf(Error, "allocator session closed", "session", uint64(s.id), "reason", why)
	m.emit(CloseAllocator{Session: s.id, Reason: why})
	m.endSession(s)
}

func (m *Machine) allocatorClosed(in AllocatorClosed) {
	s := m.sessions.find(in.Session)
	if s == nil {
		return
	}
	if s == m.sessions.preparing {
		m.logf(Warn, "the allocator that was to take over is gone; the one before it stays", "session", uint64(in.Session), "reason", in.Reason)
	} else {
		m.logf(Warn, "allocator session ended; nothing is offered until there is another", "session", uint64(in.Session), "reason", in.Reason)
	}
	m.endSession(s)
}

// endSession forgets a session. What an offer of its own is called stays taken.
func (m *Machine) endSession(s *session) {
	m.timers.cancel(&s.timer)
	m.timers.cancel(&s.late)
	switch s {
	case m.sessions.current:
		m.sessions.current = nil
		m.sessions.used = max(m.sessions.used, s.seen)
	case m.sessions.preparing:
		// None of its numbers was used.
		m.sessions.preparing = nil
		if c := m.sessions.current; c != nil {
			c.limit = 0
		}
	}
	*s = session{slot: s.slot, timer: s.timer, late: s.late}
}

func (m *Machine) allocatorReady(in AllocatorReady) {
	s := m.sessions.find(in.Session)
	if s == nil || s.snapshot {
		return
	}
	s.ready = true
	if s == m.sessions.current {
		m.timers.cancel(&s.late)
	}
	m.logf(Info, "allocator is ready", "session", uint64(in.Session))
	m.allocatorSeen(AllocatorSeen(in))
}

// allocatorSeen notes how far a session that prepares has come.
func (m *Machine) allocatorSeen(in AllocatorSeen) {
	if s := m.sessions.preparing; s != nil && s.id == in.Session {
		s.confirm(in.EventsSeen)
		m.tryTakeOver()
	}
}

// tryTakeOver makes the session that prepares the current one, once it is ready
// and close enough.
func (m *Machine) tryTakeOver() {
	s, old := m.sessions.preparing, m.sessions.current
	if !s.ready || s.lag(m.now) >= maxLag {
		return
	}
	out := AllocatorCurrent{Session: s.id}
	if old != nil {
		out.Replaced = old.id
		m.endSession(old)
	}
	m.timers.cancel(&s.late)
	m.sessions.preparing, m.sessions.current = nil, s
	s.unseen = nil
	m.logf(Info, "another allocator session is current", "session", uint64(s.id), "replaced", uint64(out.Replaced))
	m.emit(out)
	if c := s.config; c != nil {
		s.config = nil
		m.configure(*c)
	}
}

// tellAlways tells the allocator something that is about no agent.
func (m *Machine) tellAlways(e allocator.Event) {
	m.sessions.each(func(s *session) { s.events = append(s.events, e) })
}

// tell tells the allocator something about an agent, if it knows the agent
// already; if not, it will learn it with the agent.
func (m *Machine) tell(a *agent, e allocator.Event) {
	m.sessions.each(func(s *session) { m.tellOne(s, a, e) })
}

// tellOne is tell, to one session.
func (m *Machine) tellOne(s *session, a *agent, e allocator.Event) {
	if !s.knows(a) {
		return
	}
	switch e.(type) {
	case *allocator.TaskStarted, *allocator.TaskEnded:
		if !m.tellsTasks(s) {
			return
		}
	}
	s.events = append(s.events, e)
}

// tellsTasks is whether the session was begun with tasks told.
func (m *Machine) tellsTasks(s *session) bool {
	if s.config != nil {
		return s.config.TellTasks
	}
	return m.cfg.TellTasks
}

// tellAgent tells of an agent that changed; whole: with all that is held.
func (m *Machine) tellAgent(a *agent, whole bool) {
	if a.phase != present {
		return
	}
	m.sessions.each(func(s *session) {
		if s.knows(a) {
			m.tellOne(s, a, m.allocatorAgent(s, a, whole))
			return
		}
		// One that the snapshot will come to is told then. One that is new, or
		// is back, is told at once.
		if !whole || s.snapshot && a.queued[s.slot] {
			return
		}
		a.told[s.slot] = s.id
		m.tellWholeAgent(s, a)
	})
}

// tellAgentRemoved tells that an agent is gone, with all that is held on it.
// What is undone in the books afterwards is not told.
func (m *Machine) tellAgentRemoved(a *agent) {
	for _, t := range m.tasksOf(a) {
		if t.held {
			m.tell(a, &allocator.TaskEnded{Number: t.number})
		}
	}
	m.tell(a, &allocator.AgentRemoved{ID: a.id})
	a.told = [2]Session{}
	a.queued = [2]bool{}
}

func (m *Machine) tellFramework(f *framework) { m.tellAlways(m.allocatorFramework(f)) }

func (m *Machine) tellFrameworkRemoved(f *framework) {
	m.tellAlways(&allocator.FrameworkRemoved{ID: f.id})
}

// allocatorAgent is an agent as the allocator of a session is told of it.
func (m *Machine) allocatorAgent(s *session, a *agent, holdings bool) *allocator.AgentUpdated {
	u := &allocator.AgentUpdated{
		ID: a.id, Hostname: a.hostname, Version: a.version, Total: a.total, Attributes: a.attributes,
		Region: a.info.GetDomain().GetFaultDomain().GetRegion().GetName(),
		Zone:   a.info.GetDomain().GetFaultDomain().GetZone().GetName(),
		Active: a.active(), Unavailability: a.unavailability(), HoldingsSet: holdings,
	}
	if holdings {
		u.DecisionsSeen = s.seen
		for _, h := range m.books.HoldingsOn(a.id) {
			u.Holdings = append(u.Holdings, allocator.Holding{Framework: h.Framework, Role: h.Role, Resources: h.Offered.Add(h.Used)})
		}
	}
	return u
}

// flushAllocator sends the events of this step.
func (m *Machine) flushAllocator() { m.sessions.each(m.flushSession) }

func (m *Machine) flushSession(s *session) {
	if len(s.events) == 0 && !s.ended && !s.handled {
		return
	}
	b := allocator.Batch{Events: s.events, DecisionsSeen: s.seen}
	if s.snapshot || s.ended {
		b.Snapshot, b.SnapshotEnd = true, s.ended
	} else {
		b.FirstEvent = s.next
		s.next += uint64(len(s.events))
		if s == m.sessions.preparing {
			s.note(m.now)
		}
	}
	s.events, s.handled, s.ended = nil, false, false
	m.emit(AllocatorBatch{Session: s.id, Batch: b})
}

// note keeps when the events of this step were sent.
func (s *session) note(now time.Time) {
	last := s.next - 1
	if n := len(s.unseen); n > 0 && now.Sub(s.unseen[n-1].at) < lagGrain {
		s.unseen[n-1].last = last
		return
	}
	s.unseen = append(s.unseen, sent{at: now, last: last})
}

// allocatorDecisions handles proposals: each is carried out or refused.
func (m *Machine) allocatorDecisions(in AllocatorDecisions) {
	s := m.sessions.find(in.Session)
	if s == nil {
		return // of a session that is over; its holdings are not in any mirror
	}
	m.allocatorSeen(AllocatorSeen{Session: in.Session, EventsSeen: in.EventsSeen})
	s.handled = true
	m.approach(in.Decisions)
	for _, d := range in.Decisions {
		m.decide(s, d)
	}
}

// approach reads what offers will read of their agents, for the same reason as
// ledger.Approach, and changes nothing.
func (m *Machine) approach(decisions []allocator.Decision) {
	ids, near := m.nearIDs[:0], m.near[:0]
	for _, d := range decisions {
		if o, is := d.(*allocator.Offer); is {
			ids = append(ids, o.Agent)
		}
	}
	for _, id := range ids {
		if a := m.agents[id]; a != nil {
			near = append(near, a)
		}
	}
	read := 0
	for _, a := range near {
		if read += len(a.executors) + int(a.phase); a.maintenance != nil {
			read++
		}
	}
	m.read = read + m.books.Approach(ids)
	clear(ids)
	clear(near)
	m.nearIDs, m.near = ids, near
}

func (m *Machine) decide(s *session, d allocator.Decision) {
	number := d.DecisionNumber()
	agentID := ""
	refuse := func(reason allocator.RefusalReason, message string) {
		r := &allocator.Refused{Decision: number, Reason: reason, Message: message}
		if a := m.agents[agentID]; a != nil && a.phase == present && s.knows(a) {
			r.Agent = m.allocatorAgent(s, a, true)
		}
		s.events = append(s.events, r)
		m.logf(Debug, "decision refused", "decision", number, "reason", reason.String(), "message", message)
	}
	switch d := d.(type) {
	case *allocator.Offer:
		agentID = d.Agent
	case *allocator.InverseOffer:
		agentID = d.Agent
	}
	if s.snapshot || !s.ready {
		refuse(allocator.RefusedStaleSession, "the session is not ready: decisions are welcome after the snapshot's end, once the allocator has said so")
		return
	}
	if s != m.sessions.current {
		refuse(allocator.RefusedStaleSession, "the session is not current yet: it is still behind the events")
		return
	}
	if number <= s.seen {
		refuse(allocator.RefusedMalformed, fmt.Sprintf("the decision's number %d does not rise; the last was %d", number, s.seen))
		return
	}
	if s.limit > 0 && number > s.limit {
		refuse(allocator.RefusedMalformed, fmt.Sprintf("the decision's number %d leaps too far; the last was %d", number, s.seen))
		return
	}
	s.seen = number
	if !m.withinRate(s) {
		refuse(allocator.RefusedRate, fmt.Sprintf("more than %d decisions in a second", m.cfg.MaxDecisionsPerSecond))
		return
	}
	switch d := d.(type) {
	case *allocator.Offer:
		a := m.agents[d.Agent]
		if a == nil || a.phase != present {
			refuse(allocator.RefusedUnknownAgent, fmt.Sprintf("agent %s is not known", d.Agent))
		} else if r := m.makeOffer(d, a); r != nil {
			refuse(allocator.RefusalReason(r.Reason), r.Message)
		} else if next := m.sessions.preparing; next != nil {
			// The one that decided knows; the one that prepares has to be told.
			m.tellOne(next, a, &allocator.Held{Agent: d.Agent, Framework: d.Framework, Role: d.Role, Resources: d.Resources.Unallocate()})
			m.tellOne(next, a, &allocator.OfferOutstanding{
				Number: number, Agent: d.Agent, Framework: d.Framework, Role: d.Role, Resources: d.Resources.Unallocate(),
			})
		}
	case *allocator.Rescind:
		if o := m.offers.byDecision(d.Offer); o != nil {
			m.rescind(o, "the allocator takes it back")
		} else if x := m.inverseByDecision(d.Offer); x != nil {
			m.rescindInverse(x, "the allocator takes it back")
		} else {
			refuse(allocator.RefusedUnknownOffer, fmt.Sprintf("offer %d is not outstanding", d.Offer))
		}
	case *allocator.Revoke:
		if r := m.revoke(d); r != nil {
			refuse(r.reason, r.message)
		}
	case *allocator.InverseOffer:
		if r := m.makeInverseOffer(d); r != nil {
			refuse(r.reason, r.message)
		}
	case *Malformed:
		reason := d.Reason
		if reason == 0 {
			reason = allocator.RefusedMalformed
		}
		refuse(reason, d.Message)
	default:
		refuse(allocator.RefusedMalformed, fmt.Sprintf("decisions of type %T are not known", d))
	}
}

// withinRate counts a decision against the cap.
func (m *Machine) withinRate(s *session) bool {
	if m.now.Sub(s.second) >= time.Second {
		s.second, s.count = m.now, 0
	}
	s.count++
	return s.count <= m.cfg.MaxDecisionsPerSecond
}
