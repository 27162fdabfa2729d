// Package model is a core's side of the allocator contract as books that are
// slow and plain to see through: what every agent has and who holds it, who
// wants what, and which decisions may be made. Tests of allocators judge by it.
//
// Books are kept by the events that a core tells (Apply) and by the decisions
// that it carries out (CarryOut). Judge says what forbids a decision; Snapshot
// tells the state to a new session. All arithmetic is sdk/resource's, over all
// agents and holdings each time: nothing is remembered that could be worked
// out, so that there is little that could be wrong.
//
// With every fact that forbids something stands the number of the event that
// told it. A decision that was made before the allocator had seen that event is
// refused, and yet is no mistake of the allocator's: see Problem.Since.
//
// Books are not safe for concurrent use.
package model

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/mezzo-os/mezzo/sdk/allocator"
	"github.com/mezzo-os/mezzo/sdk/resource"
)

// Holder is a framework in a role on an agent.
type Holder struct{ Agent, Framework, Role string }

func (h Holder) compare(o Holder) int {
	return slices.Compare([]string{h.Agent, h.Framework, h.Role}, []string{o.Agent, o.Framework, o.Role})
}

// Books are what a core knows.
type Books struct {
	Begin allocator.Begin
	// Headroom is whether what is kept for guarantees may not be given away:
	// see RuleGuarantees.
	Headroom bool
	// Roles that were told of, by name.
	Roles      map[string]*allocator.RoleUpdated
	Agents     map[string]*Agent
	Frameworks map[string]*Framework
	// Order is the frameworks' ids in the order in which they came.
	Order []string
	// Held is what is held: offered and used together. Nothing is held where
	// it is empty.
	Held    map[Holder]resource.Resources
	Filters []Filter
	// Offers are those that are outstanding.
	Offers []*allocator.Offer
	Tasks  map[uint64]*Task
	// Asked is how a framework was last asked to leave an agent.
	Asked map[Pair]*Asked

	// The last events by which a role may have less, and by which an agent or a
	// framework went, so that its number means nothing any more.
	tightened, agentRemoved, frameworkRemoved uint64
}

// Agent is an agent as it was told last.
type Agent struct {
	Update *allocator.AgentUpdated
	shrunk uint64 // the last event by which less is free
	idle   uint64 // the event by which it became inactive
	window uint64 // the event by which its planned window ended or changed
}

// Framework is a framework as it was told last.
type Framework struct {
	Update allocator.FrameworkUpdated
	// Suppressed is the roles in which it wants no offers now, each with the
	// event that told so.
	Suppressed map[string]uint64
	changed    uint64
}

// Filter is what a framework does not want, nor a part of it.
type Filter struct {
	Holder
	Amount resource.Resources
	// Hard is until when, as the framework asked for; Soft until when because
	// of min_refuse, where that is later.
	Hard, Soft time.Time
	since      uint64
}

// Task is what could be revoked. Its Revocation is set when that was carried
// out and it has not ended; the time that remains is as it was then.
type Task struct {
	allocator.TaskStarted
}

// Pair is a framework on an agent.
type Pair struct{ Agent, Framework string }

// Asked is an inverse offer.
type Asked struct {
	Number      uint64
	Outstanding bool
	// Until is when the framework may be asked again, when it has answered.
	Until time.Time
	since uint64
}

// New returns empty books.
func New(begin allocator.Begin) *Books {
	return &Books{
		Begin: begin, Roles: map[string]*allocator.RoleUpdated{}, Agents: map[string]*Agent{}, Frameworks: map[string]*Framework{},
		Held: map[Holder]resource.Resources{}, Tasks: map[uint64]*Task{}, Asked: map[Pair]*Asked{},
	}
}

// Apply keeps the books by an event that is told now, as number.
func (b *Books) Apply(event allocator.Event, number uint64, now time.Time) {
	switch v := event.(type) {
	case *allocator.RoleUpdated:
		b.Roles[v.Name] = v
		b.tightened = number
	case *allocator.FrameworkUpdated:
		b.framework(v, number)
	case *allocator.FrameworkRemoved:
		delete(b.Frameworks, v.ID)
		b.Order = slices.DeleteFunc(b.Order, func(id string) bool { return id == v.ID })
		b.drop(func(h Holder) bool { return h.Framework == v.ID })
		b.frameworkRemoved = number
	case *allocator.AgentUpdated:
		b.agent(v, number)
	case *allocator.AgentRemoved:
		delete(b.Agents, v.ID)
		b.drop(func(h Holder) bool { return h.Agent == v.ID })
		b.agentRemoved = number
	case *allocator.Held:
		b.hold(Holder{v.Agent, v.Framework, v.Role}, v.Resources)
		b.shrink(v.Agent, number)
	case *allocator.Released:
		b.released(v, number, now)
	case *allocator.Converted:
		b.converted(v, number)
	case *allocator.Suppressed:
		for _, role := range v.Roles {
			if f := b.Frameworks[v.Framework]; f != nil && slices.Contains(f.Update.Roles, role) {
				f.Suppressed[role] = number
			}
		}
	case *allocator.Revived:
		for _, role := range v.Roles {
			if f := b.Frameworks[v.Framework]; f != nil {
				delete(f.Suppressed, role)
			}
		}
		b.dropFilters(func(h Holder) bool { return h.Framework == v.Framework && slices.Contains(v.Roles, h.Role) })
		b.forgetAnswers(func(p Pair) bool { return p.Framework == v.Framework })
	case *allocator.Filter:
		f := Filter{Holder: Holder{v.Agent, v.Framework, v.Role}, Amount: v.Resources, Hard: now.Add(v.Remaining), since: number}
		if v.Soft {
			f.Hard, f.Soft = time.Time{}, f.Hard
		}
		b.Filters = append(b.Filters, f)
	case *allocator.TaskStarted:
		b.Tasks[v.Number] = &Task{TaskStarted: *v}
	case *allocator.TaskEnded:
		delete(b.Tasks, v.Number)
	case *allocator.OfferOutstanding:
		b.Offers = append(b.Offers, &allocator.Offer{Number: v.Number, Agent: v.Agent, Framework: v.Framework, Role: v.Role, Resources: v.Resources})
	case *allocator.InverseOfferStatus:
		b.Asked[Pair{v.Agent, v.Framework}] = &Asked{
			Number: v.Number, Outstanding: v.State == allocator.InverseOfferOutstanding, Until: now.Add(v.Refuse), since: number,
		}
	case *allocator.Refused:
		if v.Agent != nil {
			b.agent(v.Agent, number)
		}
	}
}

// drop forgets all about some holders.
func (b *Books) drop(whose func(Holder) bool) {
	b.dropFilters(whose)
	maps.DeleteFunc(b.Held, func(h Holder, _ resource.Resources) bool { return whose(h) })
	maps.DeleteFunc(b.Tasks, func(_ uint64, t *Task) bool { return whose(Holder{t.Agent, t.Framework, t.Role}) })
	maps.DeleteFunc(b.Asked, func(p Pair, _ *Asked) bool { return whose(Holder{Agent: p.Agent, Framework: p.Framework}) })
	b.Offers = slices.DeleteFunc(b.Offers, func(o *allocator.Offer) bool { return whose(Holder{o.Agent, o.Framework, o.Role}) })
}

func (b *Books) dropFilters(whose func(Holder) bool) {
	b.Filters = slices.DeleteFunc(b.Filters, func(f Filter) bool { return whose(f.Holder) })
}

// forgetAnswers lets frameworks be asked again that have answered.
func (b *Books) forgetAnswers(whose func(Pair) bool) {
	maps.DeleteFunc(b.Asked, func(p Pair, x *Asked) bool { return !x.Outstanding && whose(p) })
}

func (b *Books) shrink(agent string, number uint64) {
	if a := b.Agents[agent]; a != nil {
		a.shrunk = number
	}
	b.tightened = number
}

func (b *Books) framework(v *allocator.FrameworkUpdated, number uint64) {
	f := b.Frameworks[v.ID]
	if f == nil {
		f = &Framework{}
		b.Frameworks[v.ID] = f
		b.Order = append(b.Order, v.ID)
	}
	f.Update, f.changed, f.Suppressed = *v, number, map[string]uint64{}
	for _, role := range v.Suppressed {
		f.Suppressed[role] = number
	}
	b.dropFilters(func(h Holder) bool {
		return h.Framework == v.ID && (!v.Active || !slices.Contains(v.Roles, h.Role))
	})
	if !v.Active {
		maps.DeleteFunc(b.Asked, func(p Pair, _ *Asked) bool { return p.Framework == v.ID })
	}
}

func (b *Books) agent(v *allocator.AgentUpdated, number uint64) {
	a := b.Agents[v.ID]
	if a == nil {
		a = &Agent{}
		b.Agents[v.ID] = a
	}
	old := a.Update
	if old == nil || old.Active && !v.Active {
		a.idle = number
	}
	if old != nil && !sameWindow(old.Unavailability, v.Unavailability) {
		a.window = number
		maps.DeleteFunc(b.Asked, func(p Pair, _ *Asked) bool { return p.Agent == v.ID })
	}
	if old != nil && !slices.EqualFunc(old.Attributes, v.Attributes, sameAttribute) {
		b.dropFilters(func(h Holder) bool { return h.Agent == v.ID })
	}
	a.Update = v
	b.shrink(v.ID, number)
	if v.HoldingsSet {
		maps.DeleteFunc(b.Held, func(h Holder, _ resource.Resources) bool { return h.Agent == v.ID })
		for _, x := range v.Holdings {
			b.hold(Holder{v.ID, x.Framework, x.Role}, x.Resources)
		}
	}
}

func sameAttribute(x, y allocator.Attribute) bool {
	return x.Name == y.Name && x.Type == y.Type && x.Text == y.Text && x.Scalar == y.Scalar && slices.Equal(x.Ranges, y.Ranges)
}

func sameWindow(a, b *allocator.Unavailability) bool {
	return a == nil && b == nil || a != nil && b != nil && a.Start.Equal(b.Start) && a.Duration == b.Duration
}

func (b *Books) hold(h Holder, r resource.Resources) { b.Held[h] = b.Held[h].Add(r) }

func (b *Books) released(v *allocator.Released, number uint64, now time.Time) {
	h := Holder{v.Agent, v.Framework, v.Role}
	if left := b.Held[h].Minus(v.Resources); left.IsEmpty() {
		delete(b.Held, h)
	} else {
		b.Held[h] = left
	}
	f := b.Frameworks[v.Framework]
	if f == nil || !f.Update.Active || !slices.Contains(f.Update.Roles, v.Role) {
		return
	}
	x := Filter{Holder: h, Amount: v.Resources, Hard: now.Add(v.Refuse), since: number}
	if v.Declined && v.Refuse < b.Begin.MinRefuse {
		x.Soft = now.Add(b.Begin.MinRefuse)
	}
	if x.Hard.After(now) || x.Soft.After(now) {
		b.Filters = append(b.Filters, x)
	}
}

func (b *Books) converted(v *allocator.Converted, number uint64) {
	a := b.Agents[v.Agent]
	if a == nil {
		return
	}
	if v.Framework != "" {
		h := Holder{v.Agent, v.Framework, v.Role}
		b.Held[h] = b.Held[h].Minus(v.From).Add(v.To)
	}
	u := *a.Update
	u.Total, u.Version = u.Total.Minus(v.From).Add(v.To), v.Version
	a.Update = &u
	b.shrink(v.Agent, number)
}

// CarryOut does what a decision says, which Judge has nothing against. Of a
// Rescind the core has to tell with a Released, and of a Revoke, when the task
// has ended, with a TaskEnded and a Released.
func (b *Books) CarryOut(d allocator.Decision) {
	switch d := d.(type) {
	case *allocator.Offer:
		b.hold(Holder{d.Agent, d.Framework, d.Role}, d.Resources)
		b.Offers = append(b.Offers, d)
	case *allocator.InverseOffer:
		b.Asked[Pair{d.Agent, d.Framework}] = &Asked{Number: d.Number, Outstanding: true}
	case *allocator.Rescind:
		b.Offers = slices.DeleteFunc(b.Offers, func(o *allocator.Offer) bool { return o.Number == d.Offer })
	case *allocator.Revoke:
		b.Tasks[d.Task].Revocation = &allocator.Revocation{Remaining: d.Grace, Framework: d.Framework, Role: d.Role}
	}
}

// Take ends an offer; its resources stay held.
func (b *Books) Take(o *allocator.Offer) {
	b.Offers = slices.DeleteFunc(b.Offers, func(x *allocator.Offer) bool { return x == o })
}

// Free is what nobody holds of an agent; all of what is shared.
func (b *Books) Free(agent string) resource.Resources {
	a := b.Agents[agent]
	if a == nil {
		return nil
	}
	left := a.Update.Total
	for h, r := range b.Held {
		if h.Agent == agent {
			left = left.Minus(r.NonShared())
		}
	}
	return left
}

// Used is what a holder holds besides what it is offered.
func (b *Books) Used(h Holder) resource.Resources {
	used := b.Held[h]
	for _, o := range b.Offers {
		if (Holder{o.Agent, o.Framework, o.Role}) == h {
			used = used.Minus(o.Resources)
		}
	}
	return used
}

// Holders are those who hold something, sorted.
func (b *Books) Holders() []Holder {
	var out []Holder
	for h, r := range b.Held {
		if !r.IsEmpty() {
			out = append(out, h)
		}
	}
	slices.SortFunc(out, Holder.compare)
	return out
}

// State is the whole of an agent, holdings and all; nil when it is not known.
func (b *Books) State(id string) *allocator.AgentUpdated {
	a := b.Agents[id]
	if a == nil {
		return nil
	}
	u := *a.Update
	u.HoldingsSet, u.Holdings = true, nil
	for _, h := range b.Holders() {
		if h.Agent == id {
			u.Holdings = append(u.Holdings, allocator.Holding{Framework: h.Framework, Role: h.Role, Resources: b.Held[h]})
		}
	}
	return &u
}

// Snapshot is the state of the books as events, for a new session.
func (b *Books) Snapshot(now time.Time) []allocator.Event {
	var events []allocator.Event
	for _, name := range sortedKeys(b.Roles) {
		events = append(events, b.Roles[name])
	}
	for _, id := range b.Order {
		u := b.Frameworks[id].Update
		u.Suppressed = sortedKeys(b.Frameworks[id].Suppressed)
		events = append(events, &u)
	}
	for _, id := range sortedKeys(b.Agents) {
		events = append(events, b.State(id))
	}
	for _, f := range b.Filters {
		x := allocator.Filter{Agent: f.Agent, Framework: f.Framework, Role: f.Role, Resources: f.Amount}
		if f.Hard.After(now) {
			hard := x
			hard.Remaining = f.Hard.Sub(now)
			events = append(events, &hard)
		}
		if f.Soft.After(now) {
			x.Remaining, x.Soft = f.Soft.Sub(now), true
			events = append(events, &x)
		}
	}
	for _, o := range b.Offers {
		events = append(events, &allocator.OfferOutstanding{Number: o.Number, Agent: o.Agent, Framework: o.Framework, Role: o.Role, Resources: o.Resources})
	}
	pairs := slices.SortedFunc(maps.Keys(b.Asked), func(x, y Pair) int {
		return cmp.Or(cmp.Compare(x.Agent, y.Agent), cmp.Compare(x.Framework, y.Framework))
	})
	for _, p := range pairs {
		x := b.Asked[p]
		s := &allocator.InverseOfferStatus{Number: x.Number, Agent: p.Agent, Framework: p.Framework, State: allocator.InverseOfferDeclined}
		if x.Outstanding {
			s.State = allocator.InverseOfferOutstanding
		} else if s.Refuse = x.Until.Sub(now); s.Refuse <= 0 {
			continue
		}
		events = append(events, s)
	}
	for _, number := range sortedKeys(b.Tasks) {
		t := b.Tasks[number].TaskStarted
		events = append(events, &t)
	}
	return events
}

// Rebase forgets when facts were told: a snapshot is about to tell them all.
func (b *Books) Rebase() {
	b.tightened, b.agentRemoved, b.frameworkRemoved = 0, 0, 0
	for _, a := range b.Agents {
		a.shrunk, a.idle, a.window = 0, 0, 0
	}
	for _, f := range b.Frameworks {
		f.changed = 0
		for role := range f.Suppressed {
			f.Suppressed[role] = 0
		}
	}
	for i := range b.Filters {
		b.Filters[i].since = 0
	}
	for _, x := range b.Asked {
		x.since = 0
	}
}

func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }
