package engine

import (
	"fmt"
	"sort"
	"time"

	allocatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/allocator/v1"
)

// apply brings the mirror up to date with one event. An event about what is
// not known (any more) means nothing; amounts that cannot be read are an error.
func (e *Engine) apply(now time.Duration, event *allocatorv1.Event) error {
	err := e.applyOne(now, event)
	if len(e.leaving) > 0 {
		e.retire()
	}
	return err
}

func (e *Engine) applyOne(now time.Duration, event *allocatorv1.Event) error {
	switch v := event.GetEvent().(type) {
	case *allocatorv1.Event_Released:
		return e.released(now, v.Released)
	case *allocatorv1.Event_Held:
		return e.nowHeld(v.Held)
	case *allocatorv1.Event_Agent:
		return e.agentUpdated(v.Agent, v.Agent.GetDecisionsSeen())
	case *allocatorv1.Event_AgentRemoved:
		if a := e.agent(v.AgentRemoved.GetNumber()); a != nil {
			e.removeAgent(a)
		}
	case *allocatorv1.Event_Kind:
		return e.defineKind(v.Kind)
	case *allocatorv1.Event_Role:
		return e.roleUpdated(v.Role)
	case *allocatorv1.Event_Framework:
		return e.frameworkUpdated(v.Framework)
	case *allocatorv1.Event_FrameworkRemoved:
		e.frameworkRemoved(v.FrameworkRemoved.GetNumber())
	case *allocatorv1.Event_Converted:
		return e.converted(v.Converted)
	case *allocatorv1.Event_Suppressed:
		for _, c := range e.clientsOf(v.Suppressed.GetFramework(), v.Suppressed.GetRoles()) {
			c.suppressed = true
			e.changed(c)
		}
	case *allocatorv1.Event_Revived:
		for _, c := range e.clientsOf(v.Revived.GetFramework(), v.Revived.GetRoles()) {
			c.suppressed = false
			e.dropClientFilters(c)
			e.changed(c)
			e.askFramework(c.framework, false)
		}
	case *allocatorv1.Event_TaskStarted:
		return e.taskStarted(now, v.TaskStarted)
	case *allocatorv1.Event_TaskEnded:
		e.taskEnded(now, v.TaskEnded.GetNumber())
	case *allocatorv1.Event_Requested:
		e.requested(v.Requested)
	case *allocatorv1.Event_InverseOffer:
		e.inverseOfferStatus(now, v.InverseOffer)
	case *allocatorv1.Event_Filter:
		return e.filterTold(now, v.Filter)
	case *allocatorv1.Event_Refused:
		return e.refused(now, v.Refused)
	}
	return nil
}

func (e *Engine) defineKind(d *allocatorv1.KindDefined) error {
	if int(d.GetNumber()) != len(e.kinds) {
		return fmt.Errorf("kind %q has number %d, want %d: numbers are dense", d.GetName(), d.GetNumber(), len(e.kinds))
	}
	k := kind{name: d.GetName(), typ: d.GetType(), quantity: noQuantity, copy: d.GetCopy()}
	if k.typ == allocatorv1.KindType_KIND_TYPE_SCALAR {
		k.quantity = e.quantity(k.name)
	}
	if n := len(d.GetReservations()); n > 0 {
		k.flags |= kindReserved
		k.role = e.role(d.GetReservations()[n-1].GetRole())
		if n > 1 {
			k.flags |= kindRefined
		}
	}
	if d.GetRevocable() {
		k.flags |= kindRevocable
	}
	if d.GetShared() {
		k.flags |= kindShared
		e.shared = true
	}
	if k.name == "gpus" {
		k.flags |= kindGPU
	}
	e.specials = e.specials || k.flags&kindSpecial != 0
	if d.GetIndivisible() || d.GetShared() {
		k.flags |= kindWhole
	}
	e.kinds = append(e.kinds, k)
	return nil
}

func (e *Engine) roleUpdated(u *allocatorv1.RoleUpdated) (err error) {
	if e.roles, err = room(e.roles, u.GetNumber(), "role"); err != nil {
		return err
	}
	r := e.role(u.GetName())
	e.roles[u.GetNumber()] = r
	weight := float64(u.GetWeight()) / 1000
	if weight <= 0 {
		weight = 1
	}
	if r.node.Weight != weight {
		r.node.Weight = weight
		e.touch(r.node)
	}
	if !e.ready {
		r.starved = time.Duration(min(u.GetStarvedMs(), maxRefuse)) * time.Millisecond
	}
	e.setQuota(r, u)
	return nil
}

func (e *Engine) nowHeld(h *allocatorv1.Held) error {
	v, err := e.kinds.parse(h.GetQuantities())
	if err != nil {
		return err
	}
	a, c := e.agent(h.GetAgent()), e.client(h.GetFramework(), h.GetRole())
	if a != nil && c != nil && !v.empty() {
		e.hold(a, c, v)
		e.touchAll(c)
	}
	return nil
}

func (e *Engine) released(now time.Duration, r *allocatorv1.Released) error {
	v, err := e.kinds.parse(r.GetQuantities())
	if err != nil {
		return err
	}
	a, c := e.agent(r.GetAgent()), e.client(r.GetFramework(), r.GetRole())
	if a == nil || c == nil {
		return nil
	}
	e.release(a, c, v)
	if c.wants() || c.framework.active && c.subscribed {
		var hard, soft time.Duration
		if refuse := min(r.GetRefuseMs(), maxRefuse); refuse > 0 {
			hard = now + time.Duration(refuse)*time.Millisecond
		}
		if r.GetDeclined() && e.minRefuse() > 0 && hard < now+e.minRefuse() {
			soft = now + e.minRefuse()
		}
		e.addFilter(now, a, c, v, hard, soft)
		if e.preempt != nil && r.GetDeclined() {
			e.spoilt(now, c, v)
		}
	}
	e.freed(a)
	return nil
}

// maxRefuse is a year, in milliseconds: no filter is longer.
const maxRefuse = 365 * 24 * 3600 * 1000

func (e *Engine) filterTold(now time.Duration, f *allocatorv1.Filter) error {
	v, err := e.kinds.parse(f.GetQuantities())
	if err != nil {
		return err
	}
	a, c := e.agent(f.GetAgent()), e.client(f.GetFramework(), f.GetRole())
	if a == nil || c == nil {
		return nil
	}
	until := now + time.Duration(min(f.GetRemainingMs(), maxRefuse))*time.Millisecond
	if f.GetSoft() {
		e.addFilter(now, a, c, v, 0, until)
	} else {
		e.addFilter(now, a, c, v, until, 0)
	}
	a.tried = nil
	return nil
}

func (e *Engine) converted(v *allocatorv1.Converted) error {
	from, err := e.kinds.parse(v.GetFrom())
	if err != nil {
		return err
	}
	to, err := e.kinds.parse(v.GetTo())
	if err != nil {
		return err
	}
	a := e.agent(v.GetAgent())
	if a == nil {
		return nil
	}
	if c := e.client(v.GetFramework(), v.GetRole()); c != nil && v.GetFramework() != 0 {
		gone := e.release(a, c, from)
		if !gone.empty() {
			e.addHolding(a, c, to)
			e.touchAll(c)
		}
	}
	left, _ := e.kinds.sub(a.total, from)
	e.setTotal(a, e.kinds.add(left, to))
	e.recompute(a)
	a.tried = nil
	e.freed(a)
	return nil
}

// refused takes the core's word on the agent of a decision that was not
// carried out, and leaves the agent alone for a while. A core that takes no decisions now (RATE), or none of this session yet
// (STALE_SESSION), says nothing against the decision: the engine waits and
// decides again.
func (e *Engine) refused(now time.Duration, r *allocatorv1.Refused) error {
	at := sort.Search(len(e.inflight), func(i int) bool { return e.inflight[i].number >= r.GetDecision() })
	known := at < len(e.inflight) && e.inflight[at].number == r.GetDecision()
	wait := r.GetReason() == allocatorv1.RefusalReason_REFUSAL_REASON_RATE ||
		r.GetReason() == allocatorv1.RefusalReason_REFUSAL_REASON_STALE_SESSION
	// Not the agent's fault.
	aside := !known && (e.inverseRefused(now, r.GetDecision(), wait) || e.revokeRefused(now, r, wait))
	var a *agent
	if known {
		a = e.inflight[at].agent
	}
	if u := r.GetAgent(); u != nil {
		if err := e.agentUpdated(u, max(r.GetDecision(), u.GetDecisionsSeen())); err != nil {
			return err
		}
		a = e.agent(u.GetNumber())
	} else if known {
		e.release(a, e.inflight[at].client, e.inflight[at].offer)
		e.freed(a)
	}
	if known {
		e.inflight[at].agent = nil // no longer re-applied, and no success
	}
	if wait {
		e.paused = max(e.paused, now+refusalPause)
		return nil
	}
	if a != nil && !aside {
		e.backOff(now, a)
	}
	return nil
}

// After a refusal an agent is left alone for refusalPause, and twice as long
// for each further refusal in a row, up to maxRefusalPause.
const (
	refusalPause    = 50 * time.Millisecond
	maxRefusalPause = 5 * time.Second
)

func (e *Engine) backOff(now time.Duration, a *agent) {
	pause := maxRefusalPause
	if a.refusals < 7 {
		pause = min(pause, refusalPause<<a.refusals)
	}
	a.refusals++
	a.left = now + pause
	e.timers.add(timer{a.left, a.number, noClient})
}

// acknowledge forgets the decisions that the core has carried out.
func (e *Engine) acknowledge(seen uint64) {
	done := 0
	for done < len(e.inflight) && e.inflight[done].number <= seen {
		if a := e.inflight[done].agent; a != nil {
			a.refusals = 0
		}
		done++
	}
	if done > 0 {
		n := copy(e.inflight, e.inflight[done:])
		clear(e.inflight[n:])
		e.inflight = e.inflight[:n]
	}
}
