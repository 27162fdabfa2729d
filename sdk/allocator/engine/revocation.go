package engine

import (
	"fmt"
	"slices"
	"time"

	allocatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/allocator/v1"
)

// revocation is one that is under way: the task has not ended, or what it held
// is kept for whom it was taken.
type revocation struct {
	decision uint64
	task     uint64
	victim   *client
	size     vector
	keep     *keep
	ended    bool
	until    time.Duration // when it is forgotten
}

// keep is what the tasks of one plan leave on an agent as they end. Until the
// last of them has, nobody is offered it, since it takes them all; then for a
// moment it is only for the client for whom it was taken. It ends with an offer
// to that client, when that wants none any more, and with its time.
type keep struct {
	to      *client // nil: nobody in particular; nothing is kept
	agent   *agent
	amount  vector
	waiting int // tasks that have not ended
	until   time.Duration
}

const (
	// settling is how long what was taken for a client is kept for it.
	settling = time.Second
	// overdue is how long after its grace period a task may end for what others
	// of its plan left to be kept.
	overdue = 10 * time.Second
)

// revoke makes decisions that take tasks of one agent for a client. What they
// move stays counted until the look is over.
func (e *Engine) revoke(now time.Duration, tasks []task, to *client) {
	p := e.preempt
	k := &keep{to: to, agent: e.agents[e.taskAgents[tasks[0].number]]}
	why := fmt.Sprintf("role %q has been starved for %s", to.role.name, (now - to.hunger.since).Round(time.Second))
	for _, t := range tasks {
		e.budget.spend()
		e.pass(t.client, to, t.size.amount, 1)
		p.revoking[t.number] = true
		e.beginRevocation(now, t, k, p.GracePeriod, e.next)
		e.out = append(e.out, &allocatorv1.Decision{Number: e.next, Decision: &allocatorv1.Decision_Revoke{Revoke: &allocatorv1.RevokeDecision{
			Task: t.number, GraceMs: uint64(p.GracePeriod / time.Millisecond), Reason: why, Framework: to.framework.number, Role: to.number}}})
		e.next++
	}
}

// beginRevocation notes that a task is asked to end within a time.
func (e *Engine) beginRevocation(now time.Duration, t task, k *keep, within time.Duration, decision uint64) {
	k.waiting++
	k.until = max(k.until, now+within+overdue)
	e.preempt.underWay = append(e.preempt.underWay, revocation{
		decision: decision, task: t.number, victim: t.client, size: t.size.amount, keep: k,
		until: now + within + max(e.preempt.GracePeriod, time.Minute),
	})
}

// revocationTold notes a revocation of another session.
func (e *Engine) revocationTold(now time.Duration, t task, a *agent, r *allocatorv1.Revocation) {
	var to *client
	if r.GetFramework() != 0 {
		to = e.client(r.GetFramework(), r.GetRole())
	}
	k := &keep{to: to, agent: a}
	for i := range e.preempt.underWay {
		if x := &e.preempt.underWay[i]; !x.ended && x.decision == 0 && x.keep.to == to && x.keep.agent == a {
			k = x.keep
		}
	}
	e.beginRevocation(now, t, k, time.Duration(min(r.GetRemainingMs(), maxRefuse))*time.Millisecond, 0)
}

// taskEnded forgets a task. What was taken with it is kept.
func (e *Engine) taskEnded(now time.Duration, number uint64) {
	number32, known := e.taskAgents[number]
	if !known {
		return
	}
	a := e.agents[number32]
	e.dropTask(a, slices.IndexFunc(a.tasks, func(t task) bool { return t.number == number }))
	for i := range e.preempt.underWay {
		r := &e.preempt.underWay[i]
		if r.task != number || r.ended {
			continue
		}
		r.ended, r.until = true, now+settling
		e.preempt.refused.times, a.spared.times, r.victim.role.spared.times = 0, 0, 0
		e.keepOf(now, r)
	}
}

// keepOf keeps what a revoked task leaves. The Released that frees it comes with
// the TaskEnded, or after it.
func (e *Engine) keepOf(now time.Duration, r *revocation) {
	k := r.keep
	if k.to != nil {
		if k.amount.empty() {
			k.agent.keeps = append(k.agent.keeps, k)
		}
		k.amount = e.kinds.add(k.amount, r.size)
	}
	e.oneLess(now, k)
}

// oneLess notes that one task fewer is waited for.
func (e *Engine) oneLess(now time.Duration, k *keep) {
	k.waiting--
	if k.amount.empty() {
		return
	}
	if k.waiting == 0 {
		k.until = now + settling
	}
	for i := range e.preempt.underWay {
		if x := &e.preempt.underWay[i]; x.keep == k && x.ended {
			x.until = k.until
		}
	}
	e.timers.add(timer{k.until, k.agent.number, noClientKeep})
}

// keepsPass ends what was kept on an agent for long enough, or for one that has
// no use for it.
func (e *Engine) keepsPass(now time.Duration, a *agent) {
	n := len(a.keeps)
	a.keeps = slices.DeleteFunc(a.keeps, func(k *keep) bool { return now >= k.until || !e.stillFor(k) })
	if len(a.keeps) < n {
		clear(a.tried)
		e.soil(a)
	}
}

func (e *Engine) stillFor(k *keep) bool {
	return e.clients[k.to.index] == k.to && k.to.wants()
}

// freeFor is what is free on an agent without what is kept from a client.
func (e *Engine) freeFor(now time.Duration, a *agent, c *client) vector {
	free := a.free
	for _, k := range a.keeps {
		if now < k.until && (k.to != c || k.waiting > 0) && e.stillFor(k) {
			free, _ = e.kinds.sub(free, k.amount)
		}
	}
	return free
}

// keepAnswered ends what is kept for a client on an agent: it is offered that.
// The revocations count on for their time, though the offer counts too: nothing
// more is to be taken for the client before it could answer.
func (e *Engine) keepAnswered(a *agent, c *client) {
	n := len(a.keeps)
	a.keeps = slices.DeleteFunc(a.keeps, func(k *keep) bool { return k.to == c && k.waiting == 0 })
	if len(a.keeps) < n {
		clear(a.tried)
	}
}

// backOff is for how long something is left alone after refusals.
type backOff struct {
	until time.Duration
	times int // in a row
}

// refused lengthens the time; several within it count as one.
func (b *backOff) refused(now, pause time.Duration) {
	if now >= b.until {
		b.until = now + pause<<b.times
		b.times = min(b.times+1, 6)
	}
}

// After a refused revocation nothing that the reason is about is revoked for
// this long, and for twice as long for each in a row, up to 64 times.
const (
	revokePause   = 10 * time.Second
	disabledPause = time.Minute
)

// revokeRefused reports whether the decision was a revocation, which then is no
// longer under way. What the reason is about is left alone for a while: one
// role's tasks, one agent's, or all; nothing is if the core only asks to wait.
func (e *Engine) revokeRefused(now time.Duration, r *allocatorv1.Refused, wait bool) bool {
	p := e.preempt
	if p == nil {
		return false
	}
	i := slices.IndexFunc(p.underWay, func(x revocation) bool { return x.decision == r.GetDecision() })
	if i < 0 {
		return false
	}
	x := p.underWay[i]
	p.underWay = slices.Delete(p.underWay, i, i+1)
	if !x.ended {
		e.oneLess(now, x.keep)
	}
	if wait {
		return true
	}
	switch r.GetReason() {
	case allocatorv1.RefusalReason_REFUSAL_REASON_REVOCATION_DISABLED:
		p.refused.refused(now, disabledPause)
	case allocatorv1.RefusalReason_REFUSAL_REASON_REVOCATION_GUARANTEE:
		x.victim.role.spared.refused(now, revokePause)
	case allocatorv1.RefusalReason_REFUSAL_REASON_REVOCATION_TASK, allocatorv1.RefusalReason_REFUSAL_REASON_AGENT_INACTIVE:
		x.keep.agent.spared.refused(now, revokePause)
	default: // the grace period, how many there are, or what this engine does not know
		p.refused.refused(now, revokePause)
	}
	return true
}
