package model

import (
	"fmt"
	"slices"
	"time"

	"github.com/mezzo-os/mezzo/sdk/allocator"
	"github.com/mezzo-os/mezzo/sdk/resource"
)

// Rule is what every decision is judged by.
type Rule string

// The rules of decisions.
const (
	RuleDecisions   Rule = "decisions"           // it can be read, and says something
	RuleOverCommit  Rule = "over-commit"         // it gives away what is free
	RuleFilters     Rule = "filters"             // and not refused
	RuleMinRefuse   Rule = "min-refuse"          // nor declined a moment ago
	RuleSuppression Rule = "suppression"         // in a role that is not suppressed
	RuleLimits      Rule = "limits"              // within the limits of roles
	RuleGuarantees  Rule = "guarantees"          // and not what is kept for those below their guarantees
	RuleRoles       Rule = "roles"               // in roles that are subscribed to
	RuleCapability  Rule = "capabilities"        // to frameworks that can handle it
	RuleInactive    Rule = "inactive-agents"     // on agents that are active
	RuleDeparted    Rule = "departed-agents"     // and there
	RuleFrameworks  Rule = "inactive-frameworks" // to frameworks that are connected
	RuleSmallest    Rule = "min-allocatable"     // and no less than is worth it
	RuleInverse     Rule = "inverse-offers"      // asks whoever holds something on what is going to be unavailable
	RuleRevocation  Rule = "revocation"          // takes a task that runs, once, from a role that keeps its guarantee
)

// Problem is why a decision may not be made.
type Problem struct {
	Rule Rule
	// Reason is why a core refuses it; 0: it would be carried out all the same.
	Reason allocator.RefusalReason
	Why    string
	// Since is the event that told so. An allocator that had not seen it made
	// no mistake.
	Since uint64
}

// Judge says what forbids a decision that is made now, nil if nothing does.
func (b *Books) Judge(d allocator.Decision, now time.Time) *Problem {
	switch d := d.(type) {
	case *allocator.Offer:
		return b.judgeOffer(d, now)
	case *allocator.InverseOffer:
		return b.judgeInverse(d, now)
	case *allocator.Revoke:
		return b.judgeRevoke(d)
	case *allocator.Rescind:
		if !slices.ContainsFunc(b.Offers, func(o *allocator.Offer) bool { return o.Number == d.Offer }) {
			// It may have been answered meanwhile.
			return &Problem{RuleDecisions, allocator.RefusedUnknownOffer, fmt.Sprintf("offer %d is not outstanding", d.Offer), ^uint64(0)}
		}
	}
	return nil
}

// Gone is the rule and the event for a decision that names an agent or a
// framework that the session does not have.
func (b *Books) Gone(reason allocator.RefusalReason) (Rule, uint64) {
	switch reason {
	case allocator.RefusedUnknownAgent:
		return RuleDeparted, b.agentRemoved
	case allocator.RefusedUnknownFramework:
		return RuleFrameworks, b.frameworkRemoved
	}
	return RuleDecisions, 0
}

// parties judges who is concerned.
func (b *Books) parties(agent, framework string) (*Agent, *Framework, *Problem) {
	a, f := b.Agents[agent], b.Frameworks[framework]
	switch {
	case a == nil:
		return nil, nil, &Problem{RuleDeparted, allocator.RefusedUnknownAgent, "the agent is gone", b.agentRemoved}
	case !a.Update.Active:
		return nil, nil, &Problem{RuleInactive, allocator.RefusedAgentInactive, "the agent is not active", a.idle}
	case f == nil:
		return nil, nil, &Problem{RuleFrameworks, allocator.RefusedUnknownFramework, "the framework is gone", b.frameworkRemoved}
	case !f.Update.Active:
		return nil, nil, &Problem{RuleFrameworks, allocator.RefusedFrameworkInactive, "the framework is not active", f.changed}
	}
	return a, f, nil
}

func (b *Books) judgeOffer(o *allocator.Offer, now time.Time) *Problem {
	if o.Resources.IsEmpty() {
		return &Problem{RuleDecisions, allocator.RefusedMalformed, "the offer is empty", 0}
	}
	a, f, p := b.parties(o.Agent, o.Framework)
	if p != nil {
		return p
	}
	if !slices.Contains(f.Update.Roles, o.Role) {
		return &Problem{RuleRoles, allocator.RefusedRole, fmt.Sprintf("the framework is subscribed to %v", f.Update.Roles), f.changed}
	}
	if since, suppressed := f.Suppressed[o.Role]; suppressed {
		return &Problem{RuleSuppression, allocator.RefusedSuppressed, "the framework has suppressed the role", since}
	}
	if p := b.judgeKinds(o, a, f); p != nil {
		return p
	}
	if free := b.Free(o.Agent); !free.Contains(o.Resources) {
		return &Problem{RuleOverCommit, allocator.RefusedNotFree, fmt.Sprintf("of %s only %s is free", a.Update.Total, text(free)), a.shrunk}
	}
	if p := b.judgeQuota(o); p != nil {
		return p
	}
	if f := b.Refused(Holder{o.Agent, o.Framework, o.Role}, o.Resources, now); f != nil {
		if hard := f.Hard.Sub(now); hard > 0 {
			return &Problem{RuleFilters, 0, fmt.Sprintf("%s was refused for another %v", f.Amount, hard.Round(time.Millisecond)), f.since}
		} else if now.Before(b.yields(f)) {
			return &Problem{RuleMinRefuse, 0, fmt.Sprintf("%s was declined %v ago", f.Amount, (b.Begin.MinRefuse - f.Soft.Sub(now)).Round(time.Millisecond)), f.since}
		}
	}
	if !b.Enough(o.Framework, o.Role, o.Resources) {
		return &Problem{RuleSmallest, 0, "that is less than min_allocatable", f.changed}
	}
	return nil
}

// filterSlack allows for times that travel in whole milliseconds.
const filterSlack = 5 * time.Millisecond

// minYield is how long an offer that was declined is not repeated even if nobody
// else wants it, unless min_refuse is shorter.
const minYield = 100 * time.Millisecond

func (b *Books) yields(f *Filter) time.Time {
	return f.Soft.Add(min(minYield, b.Begin.MinRefuse) - b.Begin.MinRefuse - filterSlack)
}

// Refused returns the filter, if any, that keeps a client from resources on an
// agent: one that it asked for before one that is min_refuse's.
func (b *Books) Refused(h Holder, r resource.Resources, now time.Time) (found *Filter) {
	for i := range b.Filters {
		f := &b.Filters[i]
		if f.Holder != h || !f.Amount.Contains(r) {
			continue
		}
		if now.Before(f.Hard.Add(-filterSlack)) {
			return f
		}
		if now.Before(f.Soft) && (found == nil || found.Soft.Before(f.Soft)) {
			found = f
		}
	}
	return found
}

// judgeQuota says what limits and guarantees say.
func (b *Books) judgeQuota(o *allocator.Offer) *Problem {
	countable := o.Resources.Unreserved().NonRevocable()
	for _, q := range countable.Quantities() {
		if room, limited := b.Room(o.Role, q.Name); limited && q.Amount > room {
			return &Problem{RuleLimits, allocator.RefusedLimit, fmt.Sprintf("limits leave %s:%s for role %s", q.Name, room, o.Role), b.tightened}
		}
		if !b.Headroom {
			continue
		}
		if before, after := b.Short(q.Name, "", 0), b.Short(q.Name, o.Role, q.Amount); after > before {
			return &Problem{RuleGuarantees, 0, fmt.Sprintf("roles lack %s of what they are guaranteed, and the rest of what is free would not be enough for %s:%s of it", q.Name, q.Name, after), b.tightened}
		}
	}
	return nil
}

// judgeKinds says whether the framework may have such resources at all.
func (b *Books) judgeKinds(o *allocator.Offer, a *Agent, f *Framework) *Problem {
	missing := func(what string) *Problem {
		return &Problem{RuleCapability, allocator.RefusedCapability, "the framework lacks the capability " + what, f.changed}
	}
	has := func(c allocator.Capabilities) bool { return f.Update.Capabilities&c != 0 }
	for i := range o.Resources {
		k := o.Resources[i].Kind
		switch {
		case !k.AllocatableTo(o.Role):
			return &Problem{RuleRoles, allocator.RefusedReserved, k.String() + " is reserved to a role that is neither the offer's nor above it", 0}
		case k.Revocable() && !has(allocator.CapabilityRevocableResources):
			return missing("REVOCABLE_RESOURCES")
		case k.Shared() && !has(allocator.CapabilitySharedResources):
			return missing("SHARED_RESOURCES")
		case k.IsRefined() && !has(allocator.CapabilityReservationRefinement):
			return missing("RESERVATION_REFINEMENT")
		case k.Name() == "gpus" && !has(allocator.CapabilityGPUResources):
			return missing("GPU_RESOURCES")
		}
	}
	switch {
	case b.Begin.FilterGPUResources && a.Update.Total.Get("gpus") > 0 && !has(allocator.CapabilityGPUResources):
		return missing("GPU_RESOURCES, for which agents with GPUs are kept")
	case b.Begin.Region != "" && a.Update.Region != "" && a.Update.Region != b.Begin.Region && !has(allocator.CapabilityRegionAware):
		return missing("REGION_AWARE, and the agent is in another region")
	}
	return nil
}

// Enough says whether r is worth an offer to a framework in a role.
func (b *Books) Enough(framework, role string, r resource.Resources) bool {
	sets := b.Begin.MinAllocatable
	if f := b.Frameworks[framework]; f != nil {
		for _, s := range f.Update.Settings {
			if s.Role == role && len(s.MinAllocatable) > 0 {
				sets = s.MinAllocatable
			}
		}
	}
	if len(sets) == 0 {
		return r.Get("cpus") >= 10 || r.Get("mem") >= 32*resource.Unit
	}
	return slices.ContainsFunc(sets, func(s resource.Quantities) bool { return r.Quantities().Contains(s) })
}

func (b *Books) judgeInverse(d *allocator.InverseOffer, now time.Time) *Problem {
	a, _, p := b.parties(d.Agent, d.Framework)
	if p != nil {
		return p
	}
	wrong := func(since uint64, format string, args ...any) *Problem {
		return &Problem{RuleInverse, allocator.RefusedMalformed, fmt.Sprintf(format, args...), since}
	}
	if a.Update.Unavailability == nil {
		return wrong(a.window, "the agent is not going to be unavailable")
	}
	if x := b.Asked[Pair{d.Agent, d.Framework}]; x != nil {
		if x.Outstanding {
			return wrong(x.since, "the framework was asked by inverse offer %d, and has not answered", x.Number)
		} else if left := x.Until.Sub(now); left > filterSlack {
			return wrong(x.since, "the framework does not want to be asked again for another %v", left.Round(time.Millisecond))
		}
	}
	if !slices.ContainsFunc(b.Holders(), func(h Holder) bool { return h.Agent == d.Agent && h.Framework == d.Framework }) {
		// It may have given back the last of it meanwhile.
		return wrong(^uint64(0), "the framework holds nothing on the agent")
	}
	return nil
}

func (b *Books) judgeRevoke(d *allocator.Revoke) *Problem {
	t := b.Tasks[d.Task]
	wrong := func(reason allocator.RefusalReason, since uint64, format string, args ...any) *Problem {
		return &Problem{RuleRevocation, reason, fmt.Sprintf(format, args...), since}
	}
	if t == nil {
		return wrong(allocator.RefusedRevocationTask, ^uint64(0), "no task %d runs", d.Task) // it may have ended meanwhile
	}
	if t.Revocation != nil {
		return wrong(allocator.RefusedRevocationTask, 0, "task %d was revoked, and has not ended", d.Task)
	}
	for _, name := range sortedKeys(b.Roles) {
		if !resource.IsAncestorOrSelf(name, t.Role) {
			continue
		}
		for _, g := range b.Roles[name].Guarantee {
			left := b.Consumed(name, g.Name)
			for _, x := range b.Tasks {
				if (x == t || x.Revocation != nil) && resource.IsAncestorOrSelf(name, x.Role) {
					left -= x.Resources.Unreserved().NonRevocable().Get(g.Name)
				}
			}
			if left < g.Amount && t.Resources.Unreserved().NonRevocable().Get(g.Name) > 0 {
				return wrong(allocator.RefusedRevocationGuarantee, b.tightened, "role %s is guaranteed %s:%s, and would be left with %s", name, g.Name, g.Amount, left)
			}
		}
	}
	return nil
}

func text(r resource.Resources) string {
	if r.IsEmpty() {
		return "nothing"
	}
	return r.String()
}
