package plugintest

import (
	"fmt"
	"slices"
	"time"

	"github.com/mezzo-os/mezzo/sdk/allocator"
	"github.com/mezzo-os/mezzo/sdk/resource"
)

// The rules of which every decision is judged, wherever it is made. They are
// names of checks too.
const (
	checkDecisions   = "decisions"
	checkOverCommit  = "over-commit"
	checkFilters     = "filters"
	checkSuppression = "suppression"
	checkLimits      = "limits"
	checkRoles       = "roles"
	checkCapability  = "capabilities"
	checkInactive    = "inactive-agents"
	checkDeparted    = "departed-agents"
	checkFrameworks  = "inactive-frameworks"
	checkSmallest    = "min-allocatable"
	checkSnapshot    = "snapshot"
)

type holder struct{ agent, framework, role string }

// books are what a core knows, kept by the events that it tells. With every
// fact that forbids an offer stands the number of the event that told it: a
// decision made before the allocator had seen that event is refused, and is no
// violation.
type books struct {
	begin      allocator.Begin
	agents     map[string]*bookAgent
	frameworks map[string]*bookFramework
	order      []string // frameworks, as they came
	held       map[holder]resource.Resources
	filters    []bookFilter
	limits     map[string]resource.Quantities
	// tightened is the last event by which a role may have less.
	tightened uint64
	// removed is the last event by which an agent or a framework went, so that
	// its number means nothing any more.
	agentRemoved, frameworkRemoved uint64
}

type bookAgent struct {
	update *allocator.AgentUpdated
	shrunk uint64 // the last event by which less is free
	idle   uint64 // the event by which it became inactive
}

type bookFramework struct {
	update     allocator.FrameworkUpdated
	changed    uint64 // the event of its last update
	suppressed map[string]uint64
}

// bookFilter is what a framework does not want, until when.
type bookFilter struct {
	holder
	amount resource.Resources
	until  time.Time
	since  uint64
}

func newBooks(begin allocator.Begin) *books {
	return &books{
		begin: begin, agents: map[string]*bookAgent{}, frameworks: map[string]*bookFramework{},
		held: map[holder]resource.Resources{}, limits: map[string]resource.Quantities{},
	}
}

// apply keeps the books by an event that is told now, as number.
func (b *books) apply(event allocator.Event, number uint64, now time.Time) {
	switch v := event.(type) {
	case *allocator.RoleUpdated:
		delete(b.limits, v.Name)
		if v.Limit != nil {
			b.limits[v.Name] = v.Limit
		}
		b.tightened = number
	case *allocator.FrameworkUpdated:
		b.framework(v, number)
	case *allocator.FrameworkRemoved:
		delete(b.frameworks, v.ID)
		b.order = slices.DeleteFunc(b.order, func(id string) bool { return id == v.ID })
		b.drop(func(h holder) bool { return h.framework == v.ID }, true)
		b.frameworkRemoved = number
	case *allocator.AgentUpdated:
		b.agent(v, number)
	case *allocator.AgentRemoved:
		delete(b.agents, v.ID)
		b.drop(func(h holder) bool { return h.agent == v.ID }, true)
		b.agentRemoved = number
	case *allocator.Held:
		b.hold(holder{v.Agent, v.Framework, v.Role}, v.Resources)
		if a := b.agents[v.Agent]; a != nil {
			a.shrunk = number
		}
		b.tightened = number
	case *allocator.Released:
		h := holder{v.Agent, v.Framework, v.Role}
		b.held[h] = b.held[h].Minus(v.Resources)
		if f := b.frameworks[v.Framework]; v.Refuse > 0 && f != nil && f.update.Active && slices.Contains(f.update.Roles, v.Role) {
			b.filters = append(b.filters, bookFilter{h, v.Resources, now.Add(v.Refuse), number})
		}
	case *allocator.Suppressed:
		for _, role := range v.Roles {
			if f := b.frameworks[v.Framework]; f != nil && slices.Contains(f.update.Roles, role) {
				f.suppressed[role] = number
			}
		}
	case *allocator.Revived:
		for _, role := range v.Roles {
			if f := b.frameworks[v.Framework]; f != nil {
				delete(f.suppressed, role)
			}
		}
		b.drop(func(h holder) bool { return h.framework == v.Framework && slices.Contains(v.Roles, h.role) }, false)
	case *allocator.Filter:
		if !v.Soft {
			b.filters = append(b.filters, bookFilter{holder{v.Agent, v.Framework, v.Role}, v.Resources, now.Add(v.Remaining), number})
		}
	case *allocator.Refused:
		if v.Agent != nil {
			b.agent(v.Agent, number)
		}
	}
}

// drop forgets filters, and what is held too.
func (b *books) drop(whose func(holder) bool, holdings bool) {
	b.filters = slices.DeleteFunc(b.filters, func(f bookFilter) bool { return whose(f.holder) })
	for h := range b.held {
		if holdings && whose(h) {
			delete(b.held, h)
		}
	}
}

func (b *books) framework(v *allocator.FrameworkUpdated, number uint64) {
	f := b.frameworks[v.ID]
	if f == nil {
		f = &bookFramework{}
		b.frameworks[v.ID] = f
		b.order = append(b.order, v.ID)
	}
	f.update, f.changed, f.suppressed = *v, number, map[string]uint64{}
	for _, role := range v.Suppressed {
		f.suppressed[role] = number
	}
	b.drop(func(h holder) bool {
		return h.framework == v.ID && (!v.Active || !slices.Contains(v.Roles, h.role))
	}, false)
}

func (b *books) agent(v *allocator.AgentUpdated, number uint64) {
	a := b.agents[v.ID]
	if a == nil {
		a = &bookAgent{}
		b.agents[v.ID] = a
	}
	if a.update != nil && a.update.Active && !v.Active || a.update == nil {
		a.idle = number
	}
	if a.update != nil && !slices.EqualFunc(a.update.Attributes, v.Attributes, func(x, y allocator.Attribute) bool { return x.Name == y.Name && x.Text == y.Text }) {
		b.filters = slices.DeleteFunc(b.filters, func(f bookFilter) bool { return f.agent == v.ID })
	}
	a.update, a.shrunk, b.tightened = v, number, number
	if v.HoldingsSet {
		for h := range b.held {
			if h.agent == v.ID {
				delete(b.held, h)
			}
		}
		for _, x := range v.Holdings {
			b.hold(holder{v.ID, x.Framework, x.Role}, x.Resources)
		}
	}
}

func (b *books) hold(h holder, r resource.Resources) { b.held[h] = b.held[h].Add(r) }

// free is what nobody holds of an agent; all of what is shared.
func (b *books) free(agent string) resource.Resources {
	a := b.agents[agent]
	if a == nil {
		return nil
	}
	left := a.update.Total
	for h, r := range b.held {
		if h.agent == agent {
			left = left.Minus(r.NonShared())
		}
	}
	return left
}

// room is how much more unreserved resources of a name a role may have; false
// when there is no limit.
func (b *books) room(role, name string) (resource.Scalar, bool) {
	room, limited := resource.MaxScalar, false
	for above, limit := range b.limits {
		most, is := limitOf(limit, name)
		if !is || !resource.IsAncestorOrSelf(above, role) {
			continue
		}
		for h, r := range b.held {
			if resource.IsAncestorOrSelf(above, h.role) {
				most -= r.Unreserved().NonRevocable().Get(name)
			}
		}
		for _, a := range b.agents {
			for _, r := range a.update.Total.Reserved() {
				if r.Kind.Name() == name && resource.IsAncestorOrSelf(above, r.Kind.Role()) {
					most -= r.Scalar
				}
			}
		}
		room, limited = min(room, most), true
	}
	return room, limited
}

// limitOf looks in a limit, which may hold zeros.
func limitOf(limit resource.Quantities, name string) (resource.Scalar, bool) {
	for _, q := range limit {
		if q.Name == name {
			return q.Amount, true
		}
	}
	return 0, false
}

// problem is why an offer may not be made.
type problem struct {
	rule   string
	reason allocator.RefusalReason // 0: a core would carry it out all the same
	why    string
	since  uint64 // the event that told so
}

// judge says what forbids an offer that is made now, nil if nothing does.
func (b *books) judge(o *allocator.Offer, now time.Time) *problem {
	a, f := b.agents[o.Agent], b.frameworks[o.Framework]
	switch {
	case o.Resources.IsEmpty():
		return &problem{checkDecisions, allocator.RefusedMalformed, "the offer is empty", 0}
	case a == nil:
		return &problem{checkDeparted, allocator.RefusedUnknownAgent, "the agent is gone", b.agentRemoved}
	case !a.update.Active:
		return &problem{checkInactive, allocator.RefusedAgentInactive, "the agent is not active", a.idle}
	case f == nil:
		return &problem{checkFrameworks, allocator.RefusedUnknownFramework, "the framework is gone", b.frameworkRemoved}
	case !f.update.Active:
		return &problem{checkFrameworks, allocator.RefusedFrameworkInactive, "the framework is not active", f.changed}
	case !slices.Contains(f.update.Roles, o.Role):
		return &problem{checkRoles, allocator.RefusedRole, fmt.Sprintf("the framework is subscribed to %v", f.update.Roles), f.changed}
	}
	if since, suppressed := f.suppressed[o.Role]; suppressed {
		return &problem{checkSuppression, allocator.RefusedSuppressed, "the framework has suppressed the role", since}
	}
	if p := b.judgeKinds(o, a, f); p != nil {
		return p
	}
	if free := b.free(o.Agent); !free.Contains(o.Resources) {
		return &problem{checkOverCommit, allocator.RefusedNotFree, fmt.Sprintf("of %s only %s is free", a.update.Total, text(free)), a.shrunk}
	}
	for _, q := range o.Resources.Unreserved().NonRevocable().Quantities() {
		if room, limited := b.room(o.Role, q.Name); limited && q.Amount > room {
			return &problem{checkLimits, allocator.RefusedLimit, fmt.Sprintf("limits leave %s:%s for role %s", q.Name, room, o.Role), b.tightened}
		}
	}
	for _, x := range b.filters {
		if x.holder == (holder{o.Agent, o.Framework, o.Role}) && now.Before(x.until.Add(-filterSlack)) && x.amount.Contains(o.Resources) {
			return &problem{checkFilters, 0, fmt.Sprintf("%s was refused for another %v", x.amount, x.until.Sub(now).Round(time.Millisecond)), x.since}
		}
	}
	if !b.enough(f, o.Role, o.Resources) {
		return &problem{checkSmallest, 0, "that is less than min_allocatable", f.changed}
	}
	return nil
}

// filterSlack allows for times that travel in whole milliseconds.
const filterSlack = 5 * time.Millisecond

// judgeKinds says whether the framework may have such resources at all.
func (b *books) judgeKinds(o *allocator.Offer, a *bookAgent, f *bookFramework) *problem {
	missing := func(what string) *problem {
		return &problem{checkCapability, allocator.RefusedCapability, "the framework lacks the capability " + what, f.changed}
	}
	has := func(c allocator.Capabilities) bool { return f.update.Capabilities&c != 0 }
	for i := range o.Resources {
		k := o.Resources[i].Kind
		switch {
		case !k.AllocatableTo(o.Role):
			return &problem{checkRoles, allocator.RefusedReserved, k.String() + " is reserved to a role that is neither the offer's nor above it", 0}
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
	case b.begin.FilterGPUResources && a.update.Total.Get("gpus") > 0 && !has(allocator.CapabilityGPUResources):
		return missing("GPU_RESOURCES, for which agents with GPUs are kept")
	case b.begin.Region != "" && a.update.Region != "" && a.update.Region != b.begin.Region && !has(allocator.CapabilityRegionAware):
		return missing("REGION_AWARE, and the agent is in another region")
	}
	return nil
}

// enough says whether r is worth an offer.
func (b *books) enough(f *bookFramework, role string, r resource.Resources) bool {
	sets := b.begin.MinAllocatable
	for _, s := range f.update.Settings {
		if s.Role == role && len(s.MinAllocatable) > 0 {
			sets = s.MinAllocatable
		}
	}
	if len(sets) == 0 {
		return r.Get("cpus") >= 10 || r.Get("mem") >= 32*resource.Unit
	}
	return slices.ContainsFunc(sets, func(s resource.Quantities) bool { return r.Quantities().Contains(s) })
}

// rebase forgets when facts were told: a snapshot tells them all.
func (b *books) rebase() {
	b.tightened, b.agentRemoved, b.frameworkRemoved = 0, 0, 0
	for _, a := range b.agents {
		a.shrunk, a.idle = 0, 0
	}
	for _, f := range b.frameworks {
		f.changed = 0
		for role := range f.suppressed {
			f.suppressed[role] = 0
		}
	}
	for i := range b.filters {
		b.filters[i].since = 0
	}
}

// snapshot is the state of the books as events.
func (b *books) snapshot(now time.Time, outstanding []*allocator.Offer) []allocator.Event {
	var events []allocator.Event
	for _, role := range sortedKeys(b.limits) {
		events = append(events, &allocator.RoleUpdated{Name: role, Limit: b.limits[role]})
	}
	for _, id := range b.order {
		u := b.frameworks[id].update
		u.Suppressed = sortedKeys(b.frameworks[id].suppressed)
		events = append(events, &u)
	}
	for _, id := range sortedKeys(b.agents) {
		events = append(events, b.state(id))
	}
	for _, f := range b.filters {
		if remaining := f.until.Sub(now); remaining > 0 {
			events = append(events, &allocator.Filter{Agent: f.agent, Framework: f.framework, Role: f.role, Resources: f.amount, Remaining: remaining})
		}
	}
	for _, o := range outstanding {
		events = append(events, &allocator.OfferOutstanding{Number: o.Number, Agent: o.Agent, Framework: o.Framework, Role: o.Role, Resources: o.Resources})
	}
	return events
}

// state is the whole of an agent; nil when it is not known.
func (b *books) state(id string) *allocator.AgentUpdated {
	a := b.agents[id]
	if a == nil {
		return nil
	}
	u := *a.update
	u.HoldingsSet, u.Holdings = true, nil
	for h, r := range b.held {
		if h.agent == id && !r.IsEmpty() {
			u.Holdings = append(u.Holdings, allocator.Holding{Framework: h.framework, Role: h.role, Resources: r})
		}
	}
	slices.SortFunc(u.Holdings, func(x, y allocator.Holding) int {
		return slices.Compare([]string{x.Framework, x.Role}, []string{y.Framework, y.Role})
	})
	return &u
}

func text(r resource.Resources) string {
	if r.IsEmpty() {
		return "nothing"
	}
	return r.String()
}
