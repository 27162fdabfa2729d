package state

import (
	"fmt"

	linkv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/link/v1"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
)

// orderGone is an operator's word that an agent will never come back.
func (m *Machine) orderGone(in MarkAgentGone) {
	a := m.agents[in.AgentID]
	switch {
	case a == nil || a.phase == admitting:
		m.reply(in.Request, &OrderError{OrderNotFound, fmt.Sprintf("no agent %q is known", in.AgentID)})
	case a.phase == gone:
		m.reply(in.Request, nil)
	default:
		m.markGone(a, "an operator says so", func() { m.reply(in.Request, nil) })
	}
}

// markGone gives an agent up for good: first in the registry, then in fact.
// Until then nothing else becomes of it: one that unregisters, or whose time is
// over, waits for this, too. done, if not nil, runs when it has happened.
func (m *Machine) markGone(a *agent, why string, done func()) {
	after := func() {
		if done != nil {
			done()
		}
	}
	if a.leaving {
		m.writeRecord(a, after) // behind the one that is under way
		return
	}
	m.logf(Warn, "marking agent gone", "agent_id", a.id, "hostname", a.hostname, "reason", why)
	a.leaving = true
	m.rescindAgent(a, "agent is marked gone")
	m.agentChanged(a)
	m.writeAgent(a, standingGone, func() {
		m.agentGone(a)
		after()
	})
}

// agentGone: the registry has it that the agent is gone. Its tasks end here and
// now, each once: one that was LOST for its framework already has ended.
func (m *Machine) agentGone(a *agent) {
	away := a.phase == unreachable
	a.leaving, a.marking = false, false
	m.timers.cancel(&a.challenge)
	m.setPhase(a, gone)
	a.since = m.now
	m.noteAway(a)
	refused := &linkv1.Refused{Reason: goneReason(a.id), Gone: true}
	for _, l := range []*link{a.link, a.waiting} {
		if l != nil {
			l.agent = nil
			m.refuse(l, refused)
		}
	}
	a.link, a.waiting, a.arrival = nil, nil, nil
	if !away {
		m.dropFilters(a)
		m.tellAgentRemoved(a)
	}
	m.dropWindow(a, "agent is gone")
	m.endTasks(a, ending{
		aware: mezzov1.TaskState_TASK_GONE_BY_OPERATOR, reason: mezzov1.TaskStatus_REASON_AGENT_REMOVED_BY_OPERATOR,
		message: "Agent " + a.hostname + " was marked gone by an operator",
	})
	m.endOperations(a)
	if !away {
		m.booksRemoveAgent(a)
		m.tellFailure(a)
	}
	a.drain, a.deactivated = nil, false
	a.info, a.attributes, a.total, a.flights = nil, nil, nil, nil
	m.after(&a.timer, m.cfg.AgentForgetAfter)
	m.logf(Warn, "agent is gone", "agent_id", a.id, "hostname", a.hostname)
	m.dirty.agentsRemoved = append(m.dirty.agentsRemoved, a.id)
	m.forgetOldest(gone)
}

func goneReason(id string) string { return fmt.Sprintf("agent %s was marked gone by an operator", id) }
