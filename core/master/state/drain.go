package state

import (
	"fmt"
	"time"

	linkv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/link/v1"
)

// Agents are taken out of service by operators: deactivated ones are not
// offered, draining ones lose their tasks, too. Either is in the agent's record
// in the registry, beside its standing, so that it holds whatever becomes of
// the agent or the master. It takes effect when it is durable.

// drain is how an agent is being drained, or was. It is never changed, only
// replaced, but for what this master alone knows.
type drain struct {
	record drainRecord
	// told is when this master told the agent first; zero: it is away.
	told time.Time
	// settled: the registry is being told that it is drained.
	settled bool
}

func (m *Machine) orderDrain(in DrainAgent) {
	a := m.inService(in.Request, in.AgentID)
	if a == nil {
		return
	}
	switch {
	case in.MaxGrace != nil && *in.MaxGrace < 0:
		m.reply(in.Request, &OrderError{OrderInvalid, fmt.Sprintf("agent %s: the most grace of a drain must not be negative", a.id)})
		return
	case a.leaving:
		m.reply(in.Request, &OrderError{OrderRefused, fmt.Sprintf("agent %s is being marked gone", a.id)})
		return
	case m.wantedSchedule.window(a) != nil:
		m.reply(in.Request, &OrderError{OrderInvalid, fmt.Sprintf(
			"agent %s: its machine is in the maintenance schedule, where frameworks are asked to leave; take it out of the schedule to drain the agent", a.id)})
		return
	}
	rec := drainRecord{MaxGrace: in.MaxGrace, MarkGone: in.MarkGone}
	a.record.Deactivated, a.record.Drain = true, &rec
	m.writeRecord(a, func() {
		if m.agents[a.id] == a && a.phase != gone {
			m.logf(Info, "operator drains an agent", "agent_id", a.id, "hostname", a.hostname, "tasks", a.live, "mark_gone", fmt.Sprint(rec.MarkGone))
			a.deactivated, a.drain = true, &drain{record: rec}
			m.rescindAgent(a, "agent is draining")
			m.agentChanged(a)
			m.sendDrain(a)
			m.recheckDrain(a)
		}
		m.reply(in.Request, nil)
	})
}

func (m *Machine) orderDeactivate(in DeactivateAgent) {
	a := m.inService(in.Request, in.AgentID)
	if a == nil {
		return
	}
	a.record.Deactivated = true
	m.writeRecord(a, func() {
		if m.agents[a.id] == a && a.phase != gone {
			m.logf(Info, "operator deactivates an agent", "agent_id", a.id, "hostname", a.hostname)
			a.deactivated = true
			m.rescindAgent(a, "agent was deactivated")
			m.agentChanged(a)
		}
		m.reply(in.Request, nil)
	})
}

func (m *Machine) orderReactivate(in ReactivateAgent) {
	a := m.inService(in.Request, in.AgentID)
	if a == nil {
		return
	}
	switch {
	case !a.record.Deactivated:
		m.reply(in.Request, &OrderError{OrderRefused, fmt.Sprintf("agent %s is not deactivated", a.id)})
		return
	case a.record.Drain != nil && !a.record.Drain.Drained, a.leaving:
		m.reply(in.Request, &OrderError{OrderRefused, fmt.Sprintf("agent %s is still draining: wait until it is drained", a.id)})
		return
	}
	a.record.Deactivated, a.record.Drain = false, nil
	m.writeRecord(a, func() {
		if m.agents[a.id] == a && a.phase != gone {
			m.logf(Info, "operator puts an agent back into service", "agent_id", a.id, "hostname", a.hostname)
			if a.drain != nil && a.link != nil {
				m.send(a.link, &linkv1.MasterMessage{Message: &linkv1.MasterMessage_Drain{Drain: &linkv1.Drain{Over: true}}})
			}
			a.deactivated, a.drain = false, nil
			m.agentChanged(a)
		}
		m.reply(in.Request, nil)
	})
}

// inService finds the agent that an order is about; nil: the order was answered.
func (m *Machine) inService(r Request, id string) *agent {
	a := m.agents[id]
	if a == nil || a.phase == admitting || a.phase == gone {
		m.reply(r, &OrderError{OrderNotFound, fmt.Sprintf("no agent %q is known", id)})
		return nil
	}
	return a
}

// sendDrain tells a connected agent to end all its tasks, and to take no more.
func (m *Machine) sendDrain(a *agent) {
	if a.drain == nil || a.link == nil {
		return
	}
	msg := &linkv1.Drain{MarkGone: a.drain.record.MarkGone}
	if g := a.drain.record.MaxGrace; g != nil {
		ms := g.Milliseconds()
		msg.MaxGraceMs = &ms
	}
	if a.drain.told.IsZero() {
		a.drain.told = m.now
		m.touchAgent(a)
	}
	m.send(a.link, &linkv1.MasterMessage{Message: &linkv1.MasterMessage_Drain{Drain: msg}})
}

// draining is whether an agent is being drained and has not been found empty.
func (a *agent) draining() bool {
	return a.drain != nil && !a.drain.record.Drained && !a.drain.settled
}

// recheckDrain has the end of the step look whether an agent is drained.
func (m *Machine) recheckDrain(a *agent) {
	if a.draining() {
		m.emptied = append(m.emptied, a)
	}
}

// settleDrains notes agents that are drained: nothing is left there, and the end
// of everything was acknowledged. An agent that is away may have more than is
// known here.
func (m *Machine) settleDrains() {
	for i := 0; i < len(m.emptied); i++ {
		a := m.emptied[i]
		if !a.draining() || m.agents[a.id] != a || a.phase != present || a.link == nil || a.leaving || a.marking ||
			len(a.tasks)+len(a.operations)+len(a.executors) > 0 {
			continue
		}
		d := a.drain
		d.settled = true
		if d.record.MarkGone {
			m.markGone(a, "it is drained", nil)
			continue
		}
		rec := d.record
		rec.Drained = true
		a.record.Drain = &rec
		m.writeRecord(a, func() {
			if m.agents[a.id] == a && a.drain == d {
				a.drain = &drain{record: rec, told: d.told}
				m.logf(Info, "agent is drained", "agent_id", a.id, "hostname", a.hostname)
				m.touchAgent(a)
			}
		})
	}
	clear(m.emptied)
	m.emptied = m.emptied[:0]
}

// drainReason says what a draining agent waits for.
func (a *agent) drainReason() string {
	switch {
	case a.live > 0:
		return fmt.Sprintf("tasks that have not ended: %d", a.live)
	case len(a.tasks) > 0:
		return fmt.Sprintf("tasks whose end was not acknowledged: %d", len(a.tasks))
	case len(a.operations)+len(a.executors) > 0:
		return fmt.Sprintf("executors and operations that have not ended: %d", len(a.operations)+len(a.executors))
	}
	return ""
}

// drainView is how the drain of an agent is shown.
func (a *agent) drainView() *DrainView {
	if a.drain == nil {
		return nil
	}
	r := a.drain.record
	return &DrainView{Drained: r.Drained, MaxGrace: r.MaxGrace, MarkGone: r.MarkGone, Started: a.drain.told}
}
