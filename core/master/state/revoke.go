package state

import (
	"fmt"
	"time"

	"github.com/mezzo-os/mezzo/core/ledger"
	"github.com/mezzo-os/mezzo/sdk/allocator"

	linkv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/link/v1"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
)

// Revocation is what an allocator may take back from running work. The zero
// value is nothing.
type Revocation struct {
	Enabled bool
	// MinGrace is the least time that a task gets to end.
	MinGrace time.Duration
	// MaxPerMinute is the most tasks that are revoked in any minute; 0: no bound.
	MaxPerMinute int
}

// revocation is a task's: it was asked to end within the grace period.
type revocation struct {
	grace  time.Duration
	reason string
	until  time.Time // when the grace period is over
	// Whom it is for, as the allocator said; empty: it did not.
	framework, role string
}

// revocations are what is needed to bound them.
type revocations struct {
	// byNumber finds tasks by what the allocator calls them. It is made with the
	// first decision to revoke, since most clusters never see one.
	byNumber map[uint64]*task
	// underWay are the tasks that were asked to end and still hold what they
	// hold: the books count it, and it is as good as gone.
	underWay map[*task]struct{}
	// last are the times of those of the last minute, oldest first.
	last []time.Time
}

// refusedDecision is why a decision is not carried out; nil: it is.
type refusedDecision struct {
	reason  allocator.RefusalReason
	message string
}

func revokeRefused(reason allocator.RefusalReason, format string, args ...any) *refusedDecision {
	return &refusedDecision{reason, fmt.Sprintf(format, args...)}
}

// revoke carries out a decision to take a running task's resources away, if
// the operator allows it and nothing that was promised is broken by it.
func (m *Machine) revoke(d *allocator.Revoke) *refusedDecision {
	may := m.cfg.Revocation
	if !may.Enabled {
		return revokeRefused(allocator.RefusedRevocationDisabled,
			"revocation is not enabled on this master; its revocation block says whether it is")
	}
	t := m.taskByNumber(d.Task)
	switch {
	case t == nil:
		return revokeRefused(allocator.RefusedRevocationTask, "task %d is not known, or has ended", d.Task)
	case t.revoked != nil:
		return revokeRefused(allocator.RefusedRevocationTask, "task %d is being revoked already", d.Task)
	case t.killed || t.framework.removed():
		return revokeRefused(allocator.RefusedRevocationTask, "task %d is being killed already", d.Task)
	case t.agent.link == nil:
		return revokeRefused(allocator.RefusedAgentInactive, "agent %s is disconnected; task %d cannot be told", t.agent.id, d.Task)
	case d.Grace < may.MinGrace:
		return revokeRefused(allocator.RefusedRevocationBounds, "a grace period of %s is less than the %s that tasks are promised", d.Grace, may.MinGrace)
	}
	var gone []ledger.Key
	for other := range m.revocations.underWay {
		gone = append(gone, m.endsWith(other)...)
	}
	if r := m.books.CheckRevocation(t.use(), append(gone, m.endsWith(t)...)...); r != nil {
		return &refusedDecision{allocator.RefusalReason(r.Reason), r.Message}
	}
	if !m.revocations.take(m.now, may.MaxPerMinute) {
		return revokeRefused(allocator.RefusedRevocationBounds, "%d tasks were revoked in the last minute, which is the most that is allowed", may.MaxPerMinute)
	}
	t.revoked = &revocation{grace: d.Grace, reason: d.Reason, until: m.now.Add(d.Grace), framework: d.Framework, role: d.Role}
	m.revocations.begin(t)
	m.logf(Info, "task is revoked", "framework_id", t.key.FrameworkID, "task_id", t.key.TaskID, "agent_id", t.agent.id,
		"role", t.role, "resources", t.resources.String(), "grace", d.Grace, "reason", d.Reason)
	m.sendRevoke(t)
	if next := m.sessions.preparing; next != nil {
		m.tellOne(next, t.agent, m.allocatorTask(t)) // the one that decided knows
	}
	m.emit(Revoked{Task: t.key, AgentID: t.agent.id, Role: t.role})
	return nil
}

func (m *Machine) sendRevoke(t *task) {
	m.send(t.agent.link, &linkv1.MasterMessage{Message: &linkv1.MasterMessage_Revoke{Revoke: &linkv1.Revoke{
		Task: t.ref(), GraceMs: t.revoked.grace.Milliseconds(), Reason: t.revoked.reason,
	}}})
}

// endsWith are the uses that end when a task is made to: its own, and of a task
// group all, since a group ends as one. Which tasks of an executor are a group
// is the agent's to know, so all of them are counted.
func (m *Machine) endsWith(t *task) []ledger.Key {
	keys := []ledger.Key{t.use()}
	if e := t.executor; e != nil && e.info.GetType() == mezzov1.ExecutorInfo_DEFAULT {
		for _, other := range t.agent.tasks {
			if other != t && other.executor == e && other.held {
				keys = append(keys, other.use())
			}
		}
		if e.held {
			keys = append(keys, e.use())
		}
	}
	return keys
}

// taskByNumber finds a task that holds something.
func (m *Machine) taskByNumber(number uint64) *task {
	r := &m.revocations
	if r.byNumber == nil {
		r.byNumber = map[uint64]*task{}
		for _, a := range m.agents {
			for _, t := range a.tasks {
				if t.held {
					r.byNumber[t.number] = t
				}
			}
		}
	}
	return r.byNumber[number]
}

// held and ended keep track of which tasks there are to revoke.
func (r *revocations) held(t *task) {
	if r.byNumber != nil {
		r.byNumber[t.number] = t
	}
}

func (r *revocations) ended(t *task) {
	if r.byNumber != nil {
		delete(r.byNumber, t.number)
	}
	delete(r.underWay, t)
	t.revoked = nil
}

func (r *revocations) begin(t *task) {
	if r.underWay == nil {
		r.underWay = map[*task]struct{}{}
	}
	r.underWay[t] = struct{}{}
}

// take counts one more, if that is no more than most in any minute.
func (r *revocations) take(now time.Time, most int) bool {
	if most <= 0 {
		return true
	}
	for len(r.last) > 0 && now.Sub(r.last[0]) >= time.Minute {
		r.last = r.last[1:]
	}
	if len(r.last) >= most {
		return false
	}
	r.last = append(r.last, now)
	return true
}
