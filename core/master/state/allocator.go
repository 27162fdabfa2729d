package state

import (
	"fmt"
	"time"

	"github.com/mezzo-os/mezzo/sdk/allocator"
)

// session is the stream to the allocator. While there is none, everything else
// goes on and nothing is offered.
type session struct {
	id Session // 0: none
	// snapshot: the snapshot is being written; left are the agents that are
	// not told yet, in order.
	snapshot bool
	left     []*agent
	timer    timer
	// late fires when the allocator is not ready in time.
	late timer
	// ended: the last batch of the snapshot goes out with this step.
	ended bool
	ready bool
	// events are those of this step; next is the number of the first of them.
	events []allocator.Event
	next   uint64
	// seen is the highest decision handled, of any session.
	seen uint64
	// handled: decisions were handled since the last batch.
	handled bool
	// The decisions of the running second.
	second time.Time
	count  int
}

func (s *session) init(m *Machine) {
	s.timer.fire = m.continueSnapshot
	s.late.fire = func() {
		why := fmt.Sprintf("the allocator was not ready %s after its snapshot", m.cfg.ReadyTimeout)
		m.logf(Error, "allocator session closed", "session", uint64(s.id), "reason", why)
		m.emit(CloseAllocator{Session: s.id, Reason: why})
		m.endSession()
	}
}

func (m *Machine) allocatorClosed(in AllocatorClosed) {
	if in.Session != m.session.id {
		return
	}
	m.logf(Warn, "allocator session ended; nothing is offered until there is another", "session", uint64(in.Session), "reason", in.Reason)
	m.endSession()
}

func (m *Machine) endSession() {
	s := &m.session
	m.timers.cancel(&s.timer)
	m.timers.cancel(&s.late)
	s.id, s.snapshot, s.left, s.ended, s.ready, s.events, s.handled = 0, false, nil, false, false, nil, false
}

func (m *Machine) allocatorReady(in AllocatorReady) {
	if in.Session != m.session.id || m.session.snapshot {
		return
	}
	m.session.ready = true
	m.timers.cancel(&m.session.late)
	m.logf(Info, "allocator is ready", "session", uint64(in.Session))
}

// tellAlways tells the allocator something that is about no agent.
func (m *Machine) tellAlways(e allocator.Event) {
	if m.session.id != 0 {
		m.session.events = append(m.session.events, e)
	}
}

// tell tells the allocator something about an agent, if it knows the agent
// already; if not, it will learn it with the agent.
func (m *Machine) tell(a *agent, e allocator.Event) {
	if m.session.id == 0 || a.told != m.session.id {
		return
	}
	switch e.(type) {
	case *allocator.TaskStarted, *allocator.TaskEnded:
		if !m.cfg.TellTasks {
			return
		}
	}
	m.session.events = append(m.session.events, e)
}

// tellAgent tells of an agent that changed; whole: with all that is held.
func (m *Machine) tellAgent(a *agent, whole bool) {
	s := &m.session
	if s.id == 0 || a.phase != present {
		return
	}
	if a.told != s.id {
		// One that the snapshot will come to is told then. One that is new, or
		// is back, is told at once.
		if !whole || s.snapshot && a.queued {
			return
		}
		a.told = s.id
		m.tellWholeAgent(a)
		return
	}
	m.tell(a, m.allocatorAgent(a, whole))
}

// tellAgentRemoved tells that an agent is gone, with all that is held on it.
// What is undone in the books afterwards is not told.
func (m *Machine) tellAgentRemoved(a *agent) {
	if m.cfg.TellTasks {
		for _, t := range m.tasksOf(a) {
			if t.held {
				m.tell(a, &allocator.TaskEnded{Number: t.number})
			}
		}
	}
	m.tell(a, &allocator.AgentRemoved{ID: a.id})
	a.told = 0
	a.queued = false
}

func (m *Machine) tellFramework(f *framework) { m.tellAlways(m.allocatorFramework(f)) }

func (m *Machine) tellFrameworkRemoved(f *framework) {
	m.tellAlways(&allocator.FrameworkRemoved{ID: f.id})
}

// allocatorAgent is an agent as the allocator is told of it.
func (m *Machine) allocatorAgent(a *agent, holdings bool) *allocator.AgentUpdated {
	u := &allocator.AgentUpdated{
		ID: a.id, Hostname: a.hostname, Version: a.version, Total: a.total, Attributes: a.attributes,
		Region: a.info.GetDomain().GetFaultDomain().GetRegion().GetName(),
		Zone:   a.info.GetDomain().GetFaultDomain().GetZone().GetName(),
		Active: a.active(), HoldingsSet: holdings,
	}
	if holdings {
		for _, h := range m.books.HoldingsOn(a.id) {
			u.Holdings = append(u.Holdings, allocator.Holding{Framework: h.Framework, Role: h.Role, Resources: h.Offered.Add(h.Used)})
		}
	}
	return u
}

// flushAllocator sends the events of this step.
func (m *Machine) flushAllocator() {
	s := &m.session
	if s.id == 0 || len(s.events) == 0 && !s.ended && !s.handled {
		return
	}
	b := allocator.Batch{Events: s.events, DecisionsSeen: s.seen}
	if s.snapshot || s.ended {
		b.Snapshot, b.SnapshotEnd = true, s.ended
	} else {
		b.FirstEvent = s.next
		s.next += uint64(len(s.events))
	}
	s.events, s.handled, s.ended = nil, false, false
	m.emit(AllocatorBatch{Session: s.id, Batch: b})
}

// allocatorDecisions handles proposals: each is carried out or refused.
func (m *Machine) allocatorDecisions(in AllocatorDecisions) {
	s := &m.session
	if in.Session != s.id {
		return // of a session that is over; its holdings are not in any mirror
	}
	s.handled = true
	for _, d := range in.Decisions {
		m.decide(d)
	}
}

func (m *Machine) decide(d allocator.Decision) {
	s := &m.session
	number := d.DecisionNumber()
	agentID := ""
	refuse := func(reason allocator.RefusalReason, message string) {
		r := &allocator.Refused{Decision: number, Reason: reason, Message: message}
		if a := m.agents[agentID]; a != nil && a.phase == present && a.told == s.id {
			r.Agent = m.allocatorAgent(a, true)
		}
		m.tellAlways(r)
		m.logf(Debug, "decision refused", "decision", number, "reason", reason.String(), "message", message)
	}
	if o, ok := d.(*allocator.Offer); ok {
		agentID = o.Agent
	}
	if s.snapshot || !s.ready {
		refuse(allocator.RefusedStaleSession, "the session is not ready: decisions are welcome after the snapshot's end, once the allocator has said so")
		return
	}
	if number <= s.seen {
		refuse(allocator.RefusedMalformed, fmt.Sprintf("the decision's number %d does not rise; the last was %d", number, s.seen))
		return
	}
	s.seen = number
	if !m.withinRate() {
		refuse(allocator.RefusedRate, fmt.Sprintf("more than %d decisions in a second", m.cfg.MaxDecisionsPerSecond))
		return
	}
	switch d := d.(type) {
	case *allocator.Offer:
		if a := m.agents[d.Agent]; a == nil || a.phase != present {
			refuse(allocator.RefusedUnknownAgent, fmt.Sprintf("agent %s is not known", d.Agent))
		} else if r := m.makeOffer(d); r != nil {
			refuse(allocator.RefusalReason(r.Reason), r.Message)
		}
	case *allocator.Rescind:
		if o := m.byDecision[d.Offer]; o == nil {
			refuse(allocator.RefusedUnknownOffer, fmt.Sprintf("offer %d is not outstanding", d.Offer))
		} else {
			m.rescind(o, "the allocator takes it back")
		}
	case *allocator.Revoke, *allocator.InverseOffer:
		refuse(allocator.RefusedRevocationDisabled, "revocation is not enabled on this master")
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
func (m *Machine) withinRate() bool {
	s := &m.session
	if m.now.Sub(s.second) >= time.Second {
		s.second, s.count = m.now, 0
	}
	s.count++
	return s.count <= m.cfg.MaxDecisionsPerSecond
}
