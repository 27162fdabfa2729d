package ledger

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"github.com/mezzo-os/mezzo/sdk/resource"
)

// AgentView is what the books say of an agent.
type AgentView struct {
	Active bool
	// Total, Free, Offered and Used: the first is the sum of the others, unless
	// Excess is not empty. Offered and Used count copies of shared resources.
	Total, Free, Offered, Used resource.Resources
}

// Agent returns what the books say of an agent; false if it is unknown.
func (l *Ledger) Agent(id string) (AgentView, bool) {
	a := l.agents[id]
	if a == nil {
		return AgentView{}, false
	}
	return AgentView{a.active, a.total, a.free, a.offered, a.used}, true
}

// Agents returns the ids of all agents, sorted.
func (l *Ledger) Agents() []string { return slices.Sorted(maps.Keys(l.agents)) }

// Free returns what is free on an agent; nothing if it is unknown.
func (l *Ledger) Free(id string) resource.Resources {
	if a := l.agents[id]; a != nil {
		return a.free
	}
	return nil
}

// Excess returns what is held on an agent and not in its total; empty but after
// an agent was configured anew, or reported a use of what is offered.
func (l *Ledger) Excess(id string) resource.Resources {
	a := l.agents[id]
	if a == nil || !a.exceeded {
		return nil
	}
	return a.held().Minus(a.total)
}

// OfferOf returns an outstanding offer, with what remains of it; false if it is
// not outstanding.
func (l *Ledger) OfferOf(id string) (Offer, bool) {
	if o := l.offers[id]; o != nil {
		return o.Offer, true
	}
	return Offer{}, false
}

// OffersOn returns the outstanding offers of an agent, sorted by id.
func (l *Ledger) OffersOn(agent string) []Offer {
	if a := l.agents[agent]; a != nil {
		return sortedOffers(a.offers)
	}
	return nil
}

// OffersTo returns the outstanding offers to a framework, sorted by id.
func (l *Ledger) OffersTo(framework string) []Offer {
	if f := l.frameworks[framework]; f != nil {
		return sortedOffers(f.offers)
	}
	return nil
}

func sortedOffers(m []*outstanding) []Offer {
	list := make([]Offer, 0, len(m))
	for _, o := range m {
		list = append(list, o.Offer)
	}
	slices.SortFunc(list, func(a, b Offer) int { return strings.Compare(a.ID, b.ID) })
	return list
}

// UseOf returns a use; false if there is none of this key.
func (l *Ledger) UseOf(key Key) (Use, bool) {
	a := l.agents[key.Agent]
	if a == nil || a.uses[key] == nil {
		return Use{}, false
	}
	return a.uses[key].Use, true
}

// UsesOn returns the uses on an agent, sorted by key.
func (l *Ledger) UsesOn(agent string) []Use {
	a := l.agents[agent]
	if a == nil {
		return nil
	}
	list := make([]Use, 0, len(a.uses))
	for _, u := range a.uses {
		list = append(list, u.Use)
	}
	slices.SortFunc(list, func(a, b Use) int { return a.Key.compare(b.Key) })
	return list
}

// HoldingsOn returns who holds what on an agent, sorted by framework and role.
func (l *Ledger) HoldingsOn(agent string) []Holding {
	a := l.agents[agent]
	if a == nil {
		return nil
	}
	list := make([]Holding, 0, len(a.holdings))
	for _, h := range a.holdings {
		list = append(list, h.Holding)
	}
	slices.SortFunc(list, func(a, b Holding) int {
		return cmp.Or(strings.Compare(a.Framework, b.Framework), strings.Compare(a.Role, b.Role))
	})
	return list
}

// AgentsOf returns the ids of the agents where a framework holds something,
// sorted.
func (l *Ledger) AgentsOf(framework string) []string {
	f := l.frameworks[framework]
	if f == nil {
		return nil
	}
	list := make([]string, 0, len(f.holdings))
	for _, h := range f.holdings {
		list = append(list, h.agent.id)
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// Totals are sums of scalars, shared resources excepted.
type Totals struct{ Offered, Used resource.Quantities }

func (s *sums) totals() Totals { return Totals{s.offered.quantities(), s.used.quantities()} }

// FrameworkTotals returns what a framework holds in the cluster.
func (l *Ledger) FrameworkTotals(id string) Totals {
	f := l.frameworks[id]
	if f == nil {
		return Totals{}
	}
	return f.held.totals()
}

// RoleTotals are the sums of a role.
type RoleTotals struct {
	// Own is held in this very role, All in it and its descendants.
	Own, All Totals
	// Reserved is what is reserved to the role and its descendants, shared
	// resources included, whether held or not.
	Reserved resource.Quantities
	// Consumed is what counts toward the role's limit.
	Consumed resource.Quantities
}

// RoleTotals returns the sums of a role.
func (l *Ledger) RoleTotals(name string) RoleTotals {
	n := l.roles[name]
	if n == nil {
		return RoleTotals{}
	}
	reserved := n.reserved.quantities()
	return RoleTotals{n.own.totals(), n.all.totals(), reserved, reserved.Add(n.charged.quantities())}
}

// Committed returns what counts toward a role's limit without what is only
// offered, which could be taken back: reservations, and what is used.
func (l *Ledger) Committed(name string) resource.Quantities {
	n := l.roles[name]
	if n == nil {
		return nil
	}
	var t tally
	for _, q := range l.RoleTotals(name).Consumed {
		t.addAmount(q.Name, q.Amount)
	}
	for _, o := range l.offers {
		if !resource.IsAncestorOrSelf(name, o.Role) {
			continue
		}
		for i := range o.Resources {
			if n.charges(o.Resources[i].Kind) {
				t.addOne(&o.Resources[i], -1)
			}
		}
	}
	return t.quantities()
}

// RoleHolding is what a framework holds in a role in the cluster.
type RoleHolding struct {
	Framework, Role string
	Totals
}

// HoldersIn returns who holds something in a role or below it, sorted by
// framework and role.
func (l *Ledger) HoldersIn(name string) []RoleHolding {
	var list []RoleHolding
	for id, f := range l.frameworks {
		for role, s := range f.accounts {
			if !resource.IsAncestorOrSelf(name, role) {
				continue
			}
			if t := s.totals(); len(t.Offered) > 0 || len(t.Used) > 0 {
				list = append(list, RoleHolding{id, role, t})
			}
		}
	}
	slices.SortFunc(list, func(a, b RoleHolding) int {
		return cmp.Or(strings.Compare(a.Framework, b.Framework), strings.Compare(a.Role, b.Role))
	})
	return list
}

// Roles returns the names of the roles of which the books know something, and of
// their ancestors, sorted.
func (l *Ledger) Roles() []string { return slices.Sorted(maps.Keys(l.roles)) }

// Cluster returns the sums over all agents. The total counts one copy of a
// shared resource.
func (l *Ledger) Cluster() (total resource.Quantities, held Totals) {
	return l.total.quantities(), l.held.totals()
}
