package engine

import (
	"cmp"
	"slices"
	"time"

	allocatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/allocator/v1"
)

// cycle looks at every dirty agent, in random order, and offers what is free:
// first to roles whose guarantees are unmet, then to all.
func (e *Engine) cycle(now time.Duration) Report {
	e.settle()
	e.armed = false
	e.askAll(now)
	batch := e.dirty
	e.dirty = e.spareDirty[:0]
	e.random.Shuffle(len(batch), func(i, j int) { batch[i], batch[j] = batch[j], batch[i] })
	report := Report{Ran: true}
	if e.anyLack() {
		e.first = true
		for _, a := range batch {
			if !e.anyLack() {
				break
			}
			report.Offers += e.serve(now, a)
		}
		e.first = false
		e.random.Shuffle(len(batch), func(i, j int) { batch[i], batch[j] = batch[j], batch[i] })
	}
	for i, a := range batch {
		if !e.budget.any(now) {
			// The rest waits for the next second's decisions.
			e.dirty = append(e.dirty, batch[i:]...)
			e.armed, e.due = true, now
			break
		}
		a.dirty = false
		report.Agents++
		report.Offers += e.serve(now, a)
	}
	if e.moreRoom = false; len(e.heldRoles) > 0 {
		e.lookAgain(now, &report)
	}
	clear(batch)
	e.spareDirty = batch[:0]
	e.arm(now)
	return report
}

// Group brings the offers among the decisions of the last Run in the order of
// their frameworks, those that were served first leading, and numbers them anew.
// Together they do not depend on their order, and the core can tell each
// framework of all its offers at once. Nothing may be applied in between.
func (e *Engine) Group(decisions []*allocatorv1.Decision) {
	isOffer := func(d *allocatorv1.Decision) bool { return d.GetOffer() != nil }
	begin := slices.IndexFunc(decisions, isOffer)
	if begin < 0 {
		return
	}
	decisions = decisions[begin:]
	if end := slices.IndexFunc(decisions, func(d *allocatorv1.Decision) bool { return !isOffer(d) }); end >= 0 {
		decisions = decisions[:end]
	}
	at, found := slices.BinarySearchFunc(e.inflight, decisions[0].GetNumber(), func(f flight, n uint64) int { return cmp.Compare(f.number, n) })
	if !found || len(e.inflight)-at < len(decisions) {
		return
	}
	flights := e.inflight[at : at+len(decisions)]
	lowest := flights[0].number
	first := make(map[*framework]int)
	for _, f := range flights {
		if _, known := first[f.client.framework]; !known {
			first[f.client.framework] = len(first)
		}
	}
	// starts are where each framework's offers begin.
	starts := make([]int, len(first)+1)
	for _, f := range flights {
		starts[first[f.client.framework]+1]++
	}
	for i := 1; i < len(starts); i++ {
		starts[i] += starts[i-1]
	}
	sorted, moved := make([]*allocatorv1.Decision, len(decisions)), make([]flight, len(flights))
	for i, f := range flights {
		at := &starts[first[f.client.framework]]
		f.number = lowest + uint64(*at)
		decisions[i].Number = f.number
		sorted[*at], moved[*at] = decisions[i], f
		*at++
	}
	copy(decisions, sorted)
	copy(flights, moved)
}

// serve offers what is free on an agent to one client after the other, until
// nobody takes what is left. It returns how many offers that were.
func (e *Engine) serve(now time.Duration, a *agent) int {
	if !a.active || now < a.left {
		return 0
	}
	e.sharedGiven = false
	offers := 0
	for e.idle.has(a.number) {
		c, v := e.pick(now, a)
		if c == nil || !e.budget.spend() {
			break
		}
		e.offer(a, c, v)
		offers++
		e.sharedGiven = true
	}
	return offers
}

// pick returns the first client in the order of service that may and would
// take something on the agent, and what; nil when there is none.
func (e *Engine) pick(now time.Duration, a *agent) (*client, vector) {
	if !e.wanting.within(a.tried) {
		if c, v := e.find(now, e.root, a); c != nil {
			return c, v
		}
	}
	if a.softs > 0 && !e.first {
		return e.findDeclined(now, a)
	}
	return nil, vector{}
}

func (e *Engine) find(now time.Duration, n *node, a *agent) (*client, vector) {
	for _, child := range n.children {
		c := child.client
		if c == nil {
			if e.first && child.role != nil && !child.role.lacks() {
				continue
			}
			if child.role != nil && len(e.limited) > 0 && !a.special && e.roomOf(child.role).closed {
				e.holdBack(a, child.role)
				continue
			}
			if c, v := e.find(now, child, a); c != nil {
				return c, v
			}
			continue
		}
		if a.tried.has(c.index) {
			continue
		}
		v, verdict := e.consider(now, a, c, e.freeFor(now, a, c))
		switch {
		case verdict.reason == reasonNone:
			return c, v
		case len(a.keeps) > 0: // what is kept is soon free
		case verdict.cut:
			// With more room it may have more, which its filters may let pass.
			e.holdBack(a, c.role)
		case verdict.reason != reasonGuarantee && !(e.sharedGiven && e.shared):
			a.tried.add(c.index)
			a.seen = a.free
		}
	}
	return nil, vector{}
}

// findDeclined returns the first client that declined the offer a while ago,
// and is kept from it by min_refuse alone. Nobody else wants it.
func (e *Engine) findDeclined(now time.Duration, a *agent) (found *client, offer vector) {
	var ready []uint32
	for i := range a.filters {
		if f := &a.filters[i]; now < f.soft && now >= f.yields(e.minRefuse()) && now >= f.hard {
			ready = append(ready, f.client)
		}
	}
	if len(ready) == 0 {
		return nil, vector{}
	}
	e.root.walk(func(c *client) bool {
		if !slices.Contains(ready, c.index) {
			return false
		}
		v, verdict := e.consider(now, a, c, e.freeFor(now, a, c))
		if verdict.reason != reasonDeclined || !verdict.yields {
			return false
		}
		found, offer = c, v
		return true
	})
	return found, offer
}

// verdict is whether a client is offered what is free on an agent, or why not.
type verdict struct {
	reason reason
	until  time.Duration // when the reason passes by itself; 0: unknown
	cut    bool          // quota allows less than is free
	yields bool          // a declined offer may be made again if nobody else wants it
}

// consider works out what a client may have on an agent and would take.
// free is what is taken to be free on it.
func (e *Engine) consider(now time.Duration, a *agent, c *client, free vector) (vector, verdict) {
	f := c.framework
	switch {
	case a.gpus && e.begin.GetFilterGpuResources() && !f.can(allocatorv1.FrameworkCapability_FRAMEWORK_CAPABILITY_GPU_RESOURCES):
		return vector{}, verdict{reason: reasonGPUs}
	case a.region != "" && e.begin.GetRegion() != "" && a.region != e.begin.GetRegion() &&
		!f.can(allocatorv1.FrameworkCapability_FRAMEWORK_CAPABILITY_REGION_AWARE):
		return vector{}, verdict{reason: reasonRegion}
	case !a.meets(c.constraints):
		return vector{}, verdict{reason: reasonConstraints}
	}
	v := free
	if a.special {
		v = e.visible(v, c)
		if v.empty() {
			return v, verdict{reason: reasonReserved}
		}
	}
	whole, cut := v, false
	if len(e.limited) > 0 {
		v, cut = e.limit(c.role, v)
	}
	smallest := e.smallestOf(c)
	if !e.worth(v, smallest) {
		if cut && e.worth(whole, smallest) {
			return v, verdict{reason: reasonLimit, cut: true}
		}
		return v, verdict{reason: reasonSmall}
	}
	if e.first && !e.helps(c.role, v) {
		return v, verdict{reason: reasonGuarantee, cut: cut}
	}
	if cut && c.filters > 0 {
		// With more room it would not take it either.
		if kind, until := e.filtered(now, a, c, whole); kind == blockHard {
			return v, verdict{reason: reasonFiltered, until: until}
		}
	}
	switch kind, until := e.filtered(now, a, c, v); kind {
	case blockHard:
		return v, verdict{reason: reasonFiltered, until: until, cut: cut}
	case blockYoung:
		return v, verdict{reason: reasonDeclined, until: until, cut: cut}
	case blockSoft:
		return v, verdict{reason: reasonDeclined, until: until, cut: cut, yields: true}
	}
	return v, verdict{}
}

// smallestOf are the sets that are worth an offer to a client.
func (e *Engine) smallestOf(c *client) [][]amount {
	if c.smallest != nil {
		return c.smallest
	}
	return e.common
}

// helps reports whether v has something that the role's guarantee lacks.
func (e *Engine) helps(r *role, v vector) bool {
	e.keepForGuarantees()
	for ; r != nil; r = r.parent {
		for q, own := range r.quota.own {
			if own > 0 && e.countable(v, uint32(q)) > 0 {
				return true
			}
		}
	}
	return false
}

// visible is the part of v that a client may have: what is reserved to its role
// or one above it, or to nobody, and what its framework can handle.
func (e *Engine) visible(v vector, c *client) vector {
	f := c.framework
	return e.kinds.filter(v, func(k uint32, amounts []int64) []int64 {
		kind := &e.kinds[k]
		switch {
		case kind.flags&kindSpecial == 0:
			return amounts
		case kind.role != nil && !c.role.below(kind.role):
			return nil
		case kind.flags&kindRefined != 0 && !f.can(allocatorv1.FrameworkCapability_FRAMEWORK_CAPABILITY_RESERVATION_REFINEMENT):
			return nil
		case kind.flags&kindGPU != 0 && !f.can(allocatorv1.FrameworkCapability_FRAMEWORK_CAPABILITY_GPU_RESOURCES):
			return nil
		case kind.flags&kindRevocable != 0 && !f.can(allocatorv1.FrameworkCapability_FRAMEWORK_CAPABILITY_REVOCABLE_RESOURCES):
			return nil
		case kind.flags&kindShared != 0 && (e.sharedGiven || !f.can(allocatorv1.FrameworkCapability_FRAMEWORK_CAPABILITY_SHARED_RESOURCES)):
			return nil
		}
		return amounts
	})
}

// offer makes a decision and applies it to the mirror.
func (e *Engine) offer(a *agent, c *client, v vector) {
	e.hold(a, c, v)
	if len(a.keeps) > 0 {
		e.keepAnswered(a, c)
	}
	if len(c.framework.requests) > 0 {
		e.answerRequests(c.framework, a, v)
	}
	for n := &c.node; n.parent != nil; n = n.parent {
		e.moveServed(n, n.served+1)
	}
	number := e.next
	e.next++
	e.inflight = append(e.inflight, flight{number, a, c, v})
	e.out = append(e.out, e.decision(number, a, c, v))
}

// decisionSlab is the memory of one decision; slabs are made many at a time.
type decisionSlab struct {
	decision   allocatorv1.Decision
	wrapper    allocatorv1.Decision_Offer
	offer      allocatorv1.OfferDecision
	quantities allocatorv1.Quantities
}

func (e *Engine) decision(number uint64, a *agent, c *client, v vector) *allocatorv1.Decision {
	if len(e.slab) == 0 {
		e.slab = make([]decisionSlab, 64)
	}
	s := &e.slab[0]
	e.slab = e.slab[1:]
	s.quantities.Kinds, s.quantities.Amounts = v.kinds, v.amounts
	s.offer.Agent, s.offer.Framework, s.offer.Role = a.number, c.framework.number, c.number
	s.offer.Quantities = &s.quantities
	s.wrapper.Offer = &s.offer
	s.decision.Number = number
	s.decision.Decision = &s.wrapper
	return &s.decision
}
