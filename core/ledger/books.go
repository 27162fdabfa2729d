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
	for i := range r {
		t.addOne(&r[i], sign)
	}
}

func (t *tally) addOne(r *resource.Resource, sign resource.Scalar) {
	if r.Kind.Type() != resource.TypeScalar {
		return
	}
	amount := r.Scalar
	if r.Kind.Atomic() {
		amount *= resource.Scalar(r.Count)
	}
	t.addAmount(r.Kind.Name(), sign*amount)
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

// attach notes one more offer or use of a holder on an agent.
func (l *Ledger) attach(a *agent, f *framework, role string) {
	id := holder{f.ID, role}
	h := a.holdings[id]
	if h == nil {
		h = &holding{Holding: Holding{Framework: f.ID, Role: role}}
		a.holdings[id] = h
		f.agents[a.id]++
		l.role(role).holdings++
	}
	h.refs++
}

// detach notes one offer or use less, which holds nothing any more.
func (l *Ledger) detach(a *agent, f *framework, role string) {
	id := holder{f.ID, role}
	h := a.holdings[id]
	if h.refs--; h.refs > 0 {
		return
	}
	delete(a.holdings, id)
	if f.agents[a.id]--; f.agents[a.id] == 0 {
		delete(f.agents, a.id)
	}
	n := l.roles[role]
	n.holdings--
	l.pruneRole(n)
	if s := f.byRole[role]; s != nil && len(s.offered) == 0 && len(s.used) == 0 {
		delete(f.byRole, role)
	}
	l.dropFramework(f)
}

// hold adds r to what the holder has.
func (l *Ledger) hold(a *agent, f *framework, role string, b bucket, r resource.Resources) {
	if len(r) == 0 {
		return
	}
	a.overlap = a.overlap || a.overlaps(r)
	h := a.holdings[holder{f.ID, role}]
	*h.of(b) = h.of(b).Add(r)
	*a.of(b) = a.of(b).Add(r)
	own := r.NonShared()
	if rest, ok := a.free.Subtract(own); ok && !a.exceeded {
		a.free = rest
	} else {
		a.settle()
	}
	l.post(f, role, b, own, +1)
}

// unhold takes r from what the holder has. The offer or use that had it must
// have been changed or deleted already.
func (l *Ledger) unhold(a *agent, f *framework, role string, b bucket, r resource.Resources) {
	if len(r) == 0 {
		return
	}
	own := r.NonShared()
	if a.overlap {
		a.rebuild()
	} else {
		h := a.holdings[holder{f.ID, role}]
		*h.of(b) = h.of(b).Minus(r)
		*a.of(b) = a.of(b).Minus(r)
		if a.exceeded {
			a.settle()
		} else {
			a.free = a.free.Add(own)
		}
	}
	l.post(f, role, b, own, -1)
}

// transfer moves r from what is offered to what is used, copies of shared
// resources excepted, which stay where they are and are used besides. What is
// free and what counts toward limits do not change by it, so it is the short way
// of unhold and hold, for agents without overlap or excess.
func (l *Ledger) transfer(a *agent, f *framework, role string, r resource.Resources) {
	h := a.holdings[holder{f.ID, role}]
	own := r.NonShared()
	h.Offered, h.Used = h.Offered.Minus(own), h.Used.Add(r)
	a.offered, a.used = a.offered.Minus(own), a.used.Add(r)
	s := f.sums(role)
	for _, t := range []*sums{&l.held, &f.held, s, &l.role(role).own} {
		t.offered.add(own, -1)
		t.used.add(own, +1)
	}
	for n := l.role(role); n != nil; n = n.parent {
		n.all.offered.add(own, -1)
		n.all.used.add(own, +1)
	}
}

// post enters a change of what is held in all sums; r has no shared resources.
func (l *Ledger) post(f *framework, role string, b bucket, r resource.Resources, sign resource.Scalar) {
	l.held.of(b).add(r, sign)
	f.held.of(b).add(r, sign)
	f.sums(role).of(b).add(r, sign)
	n := l.role(role)
	n.own.of(b).add(r, sign)
	for ; n != nil; n = n.parent {
		n.all.of(b).add(r, sign)
		for i := range r {
			if n.charges(r[i].Kind) {
				n.charged.addOne(&r[i], sign)
			}
		}
	}
}

// sums returns what the framework holds in a role, to be changed.
func (f *framework) sums(role string) *sums {
	s := f.byRole[role]
	if s == nil {
		s = new(sums)
		f.byRole[role] = s
	}
	return s
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
	enter := func(id holder, b bucket, r resource.Resources) {
		a.overlap = a.overlap || a.overlaps(r)
		h := a.holdings[id]
		*h.of(b) = h.of(b).Add(r)
		*a.of(b) = a.of(b).Add(r)
	}
	// Sums do not depend on the order.
	for _, o := range a.offers {
		enter(holder{o.Framework, o.Role}, offered, o.Resources)
	}
	for _, u := range a.uses {
		enter(holder{u.Framework, u.Role}, used, u.Resources)
	}
	a.settle()
}
