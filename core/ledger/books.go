package ledger

import (
	"slices"
	"strings"

	"github.com/mezzo-os/mezzo/sdk/resource"
)

// bucket says which of the two things that can be held is meant.
type bucket bool

const (
	offered bucket = false
	used    bucket = true
)

func (s *sums) of(b bucket) *tally {
	if b == used {
		return &s.used
	}
	return &s.offered
}

func (h *Holding) of(b bucket) *resource.Resources {
	if b == used {
		return &h.Used
	}
	return &h.Offered
}

func (a *agent) of(b bucket) *resource.Resources {
	if b == used {
		return &a.used
	}
	return &a.offered
}

// tally is a running sum of scalars by name, sorted; a name whose sum is zero is
// not in it. Unlike Quantities it is changed in place.
type tally []resource.Quantity

// add adds sign times the scalars of r.
func (t *tally) add(r resource.Resources, sign resource.Scalar) {
	at := 0
	for i := range r {
		at = t.addNear(&r[i], sign, at)
	}
}

func (t *tally) addOne(r *resource.Resource, sign resource.Scalar) { t.addNear(r, sign, 0) }

// addNear adds one resource. The names of resources are sorted as those of the
// tally are, so where it is looked for first is where the one before it was
// found, and behind.
func (t *tally) addNear(r *resource.Resource, sign resource.Scalar, at int) int {
	if r.Kind.Type() != resource.TypeScalar {
		return at
	}
	amount := sign * r.Scalar
	if r.Kind.Atomic() {
		amount *= resource.Scalar(r.Count)
	}
	name := r.Kind.Name()
	for ; at < len(*t) && (*t)[at].Name < name; at++ {
	}
	if at < len(*t) && (*t)[at].Name == name && (*t)[at].Amount+amount != 0 {
		(*t)[at].Amount += amount
		return at
	}
	t.addAmount(name, amount)
	return 0
}

func (t *tally) addAmount(name string, amount resource.Scalar) {
	if amount == 0 {
		return
	}
	i, found := slices.BinarySearchFunc(*t, name, func(q resource.Quantity, n string) int { return strings.Compare(q.Name, n) })
	if !found {
		*t = slices.Insert(*t, i, resource.Quantity{Name: name, Amount: amount})
		return
	}
	if (*t)[i].Amount += amount; (*t)[i].Amount == 0 {
		*t = slices.Delete(*t, i, i+1)
	}
}

// quantities returns a copy that stays as it is.
func (t tally) quantities() resource.Quantities {
	return resource.Quantities(slices.Clone(t))
}

// find returns what a framework has in a role on the agent, or nil.
func (a *agent) find(framework, role string) *holding {
	for _, h := range a.holdings {
		if h.Framework == framework && h.Role == role {
			return h
		}
	}
	return nil
}

// attach notes one more offer or use of a holder on an agent.
func (l *Ledger) attach(a *agent, f *framework, role string) *holding {
	c := f.accounts[role]
	if c != nil {
		for _, h := range a.holdings {
			if h.account == c {
				h.refs++
				return h
			}
		}
	} else {
		c = &account{framework: f, role: l.role(role)}
		f.accounts[role] = c
	}
	h := &holding{Holding: Holding{Framework: f.ID, Role: role}, refs: 1, agent: a, account: c, atFramework: len(f.holdings)}
	a.holdings = append(a.holdings, h)
	f.holdings = append(f.holdings, h)
	c.holdings++
	c.role.holdings++
	return h
}

// detach notes one offer or use less, which holds nothing any more.
func (l *Ledger) detach(h *holding) {
	if h.refs--; h.refs > 0 {
		return
	}
	a, c := h.agent, h.account
	f := c.framework
	a.holdings = cut(a.holdings, slices.Index(a.holdings, h), func(*holding) {})
	f.holdings = cut(f.holdings, h.atFramework, func(x *holding) { x.atFramework = h.atFramework })
	c.role.holdings--
	l.pruneRole(c.role)
	if c.holdings--; c.holdings == 0 {
		delete(f.accounts, h.Role)
	}
	l.dropFramework(f)
}

// hold adds r to what the holder has.
func (l *Ledger) hold(h *holding, b bucket, r resource.Resources) {
	if len(r) == 0 {
		return
	}
	a, own := h.agent, r.NonShared()
	rest, isFree := a.free.Subtract(own)
	// What is free is held by nobody else.
	if !isFree {
		a.overlap = a.overlap || a.overlaps(r)
	}
	*h.of(b) = h.of(b).Add(r)
	*a.of(b) = a.of(b).Add(r)
	if isFree && !a.exceeded {
		a.free = rest
	} else {
		a.settle()
	}
	l.post(h.account, b, own, +1)
}

// unhold takes r from what the holder has.
func (l *Ledger) unhold(h *holding, b bucket, r resource.Resources) {
	if len(r) == 0 {
		return
	}
	a, own := h.agent, r.NonShared()
	if a.overlap {
		a.rebuild()
	} else {
		*h.of(b) = h.of(b).Minus(r)
		*a.of(b) = a.of(b).Minus(r)
		if a.exceeded {
			a.settle()
		} else {
			a.free = a.free.Add(own)
		}
	}
	l.post(h.account, b, own, -1)
}

// transfer moves r from what is offered to what is used, copies of shared
// resources excepted, which stay where they are and are used besides. What is
// free and what counts toward limits do not change by it, so it is the short way
// of unhold and hold, for agents without overlap or excess.
func (l *Ledger) transfer(h *holding, r resource.Resources) {
	a, c := h.agent, h.account
	own := r.NonShared()
	h.Offered, h.Used = h.Offered.Minus(own), h.Used.Add(r)
	a.offered, a.used = a.offered.Minus(own), a.used.Add(r)
	for _, t := range []*sums{&l.held, &c.framework.held, &c.sums, &c.role.own} {
		t.offered.add(own, -1)
		t.used.add(own, +1)
	}
	for n := c.role; n != nil; n = n.parent {
		n.all.offered.add(own, -1)
		n.all.used.add(own, +1)
	}
}

// post enters a change of what is held in all sums; r has no shared resources.
func (l *Ledger) post(c *account, b bucket, r resource.Resources, sign resource.Scalar) {
	l.held.of(b).add(r, sign)
	c.framework.held.of(b).add(r, sign)
	c.of(b).add(r, sign)
	n := c.role
	n.own.of(b).add(r, sign)
	for ; n != nil; n = n.parent {
		n.all.of(b).add(r, sign)
		at := 0
		for i := range r {
			if n.charges(r[i].Kind) {
				at = n.charged.addNear(&r[i], sign, at)
			}
		}
	}
}

// overlaps reports whether a number or item of r is held already.
func (a *agent) overlaps(r resource.Resources) bool {
	return overlap(a.offered, r) || overlap(a.used, r)
}

func overlap(held, r resource.Resources) bool {
	for i := range r {
		if k := r[i].Kind; k.Type() != resource.TypeScalar && !k.Atomic() && !held.Intersect(r[i:i+1]).IsEmpty() {
			return true
		}
	}
	return false
}

// conflicts returns what of r, which is in offers, may not be used: it is held
// beyond the total, or has a number or item that is used already. Both come from
// totals and uses that an agent reported while the offers were out.
func (a *agent) conflicts(r resource.Resources) resource.Resources {
	if !a.exceeded && !a.overlap {
		return nil
	}
	c := a.held().Minus(a.total).Intersect(r)
	twice := a.used.Intersect(r).Filter(func(k resource.Kind) bool {
		return k.Type() != resource.TypeScalar && !k.Atomic()
	})
	return c.Add(twice)
}

// settle works out anew what is free, from the total and what is held.
func (a *agent) settle() {
	held := a.held()
	a.free = a.total.Minus(held)
	a.exceeded = !a.total.Contains(held)
}

// held is what takes away from what is free.
func (a *agent) held() resource.Resources {
	return a.offered.Add(a.used).NonShared()
}

// rebuild works out anew all sums of the agent, from its offers and uses.
func (a *agent) rebuild() {
	a.offered, a.used, a.overlap = nil, nil, false
	for _, h := range a.holdings {
		h.Offered, h.Used = nil, nil
	}
	enter := func(h *holding, b bucket, r resource.Resources) {
		a.overlap = a.overlap || a.overlaps(r)
		*h.of(b) = h.of(b).Add(r)
		*a.of(b) = a.of(b).Add(r)
	}
	// Sums do not depend on the order.
	for _, o := range a.offers {
		enter(o.holding, offered, o.Resources)
	}
	for _, u := range a.uses {
		enter(u.holding, used, u.Resources)
	}
	a.settle()
}
