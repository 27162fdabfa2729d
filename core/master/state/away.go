package state

import (
	"slices"
	"time"
)

// The lists of agents that are away are bounded, by age (see agentDeadline) and
// by number, and so are the tasks of each framework that are unreachable.

// away are the agents of one phase, the one that is away for the longest first.
// Those that are in another phase by now are skipped when their turn comes.
type away struct {
	list  []absence
	count int // of those that are in the phase
}

type absence struct {
	agent *agent
	since time.Time
}

// noteAway enters an agent that has just become unreachable or gone.
func (m *Machine) noteAway(a *agent) {
	x := m.away[a.phase]
	x.list = append(x.list, absence{a, a.since})
	// What is in there twice or is back is dropped once it is half of all.
	if len(x.list) > 2*x.count+64 {
		x.list = slices.DeleteFunc(x.list, func(y absence) bool { return !m.stillAway(y, a.phase) })
	}
}

func (m *Machine) stillAway(x absence, p phase) bool {
	return m.agents[x.agent.id] == x.agent && x.agent.phase == p && x.agent.since.Equal(x.since)
}

// forgetOldest keeps the number of agents that are unreachable, or gone, to its
// bound. One that is on its way back, or away for good, is in the registry's
// queue, and its turn comes when that is written.
func (m *Machine) forgetOldest(p phase) {
	x := m.away[p]
	for x.count > m.cfg.MaxAwayAgents && len(x.list) > 0 {
		oldest := x.list[0]
		if m.stillAway(oldest, p) {
			if a := oldest.agent; a.returning || a.leaving {
				return
			}
			m.forgetAgent(oldest.agent)
		}
		x.list[0] = absence{}
		x.list = x.list[1:]
	}
}

// noteLost enters a task that is unreachable, and completes the oldest of its
// framework when there are too many. Should it come back, it is learnt anew.
func (m *Machine) noteLost(t *task) {
	f := t.framework
	if !t.listed {
		t.listed = true
		f.lost = append(f.lost, t)
	}
	if len(f.lost) <= m.cfg.MaxUnreachableTasks {
		return
	}
	f.lost = slices.DeleteFunc(f.lost, func(t *task) bool {
		t.listed = t.lost && !t.completed
		return !t.listed
	})
	for len(f.lost) > m.cfg.MaxUnreachableTasks {
		oldest := f.lost[0]
		f.lost[0] = nil
		f.lost = f.lost[1:]
		m.completeTask(oldest)
	}
}

// recoverAway enters the agents that the registry has as unreachable or gone.
func (m *Machine) recoverAway() {
	for _, id := range sortedKeys(m.agents) {
		if a := m.agents[id]; m.away[a.phase] != nil {
			m.away[a.phase].list = append(m.away[a.phase].list, absence{a, a.since})
		}
	}
	for _, p := range []phase{unreachable, gone} {
		slices.SortStableFunc(m.away[p].list, func(x, y absence) int { return x.since.Compare(y.since) })
		m.forgetOldest(p)
	}
}
