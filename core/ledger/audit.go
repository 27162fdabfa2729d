package ledger

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/mezzo-os/mezzo/sdk/resource"
)

// Audit works out everything anew from totals, offers and uses, and compares. It
// returns nil if the books are right, or all that is wrong with them. It scans
// the whole of the books: for tests, simulators and an operator's command.
func (l *Ledger) Audit() error {
	var errs []error
	wrong := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	fresh := New()
	for _, id := range l.Agents() {
		a := l.agents[id]
		fresh.SetAgent(id, a.total)
		l.auditAgent(a, wrong)
		b := fresh.agents[id]
		for _, o := range l.OffersOn(id) {
			fresh.enter(o, b, fresh.framework(o.Framework))
		}
		for _, u := range l.UsesOn(id) {
			if err := fresh.Recover(u.Key, u.Role, u.Resources); err != nil {
				wrong("%w", err)
			}
		}
		b.rebuild()
		compareAgents(a, b, wrong)
	}
	for id, o := range l.offers {
		if a := l.agents[o.Agent]; a == nil || o.holding.agent != a || !isAt(a.offers, o.atAgent, o) {
			wrong("offer %s is not in the books of its agent %s", id, o.Agent)
		}
		if f := l.frameworks[o.Framework]; f == nil || !f.known || o.holding.account.framework != f || !isAt(f.offers, o.atFramework, o) {
			wrong("offer %s is not in the books of its framework %s", id, o.Framework)
		}
	}
	l.compareFrameworks(fresh, wrong)
	l.compareRoles(fresh, wrong)
	compare(wrong, "the cluster's total", l.total, fresh.total)
	compare(wrong, "the cluster's offered", l.held.offered, fresh.held.offered)
	compare(wrong, "the cluster's used", l.held.used, fresh.held.used)
	return errors.Join(errs...)
}

// isAt is whether the entry is at its place in a list.
func isAt[T comparable](list []T, at int, entry T) bool { return at < len(list) && list[at] == entry }

// auditAgent proves of an agent, without the code that keeps its books, that
// nothing is given out twice and that all is accounted for.
func (l *Ledger) auditAgent(a *agent, wrong func(string, ...any)) {
	total, shared := a.total.NonShared(), a.total.Shared()
	free := a.free.NonShared()
	if !a.free.Shared().Equal(shared) {
		wrong("agent %s: of shared resources %s are free, and the total has %s", a.id, a.free.Shared(), shared)
	}
	held := resource.Sum(a.offered, a.used).NonShared()
	if both := free.Intersect(held); !both.IsEmpty() && !a.exceeded && !a.overlap {
		// Of divisible scalars some may be free and some held; ranges and sets not.
		for i := range both {
			if k := both[i].Kind; k.Type() != resource.TypeScalar && !k.Atomic() {
				wrong("agent %s: %s is free and held", a.id, both[i:i+1])
			}
		}
	}
	if excess := held.Minus(total); excess.IsEmpty() {
		if sum := free.Add(held); !sum.Equal(total) {
			wrong("agent %s: free %s and held %s are not its total %s", a.id, free, held, total)
		}
		if a.exceeded {
			wrong("agent %s: it is said to hold more than its total, and does not", a.id)
		}
	} else {
		if !a.exceeded {
			wrong("agent %s: %s is held beyond its total", a.id, excess)
		}
		if !free.Equal(total.Minus(held)) {
			wrong("agent %s: free %s is not its total %s without held %s", a.id, free, total, held)
		}
	}
}

func compareAgents(a, b *agent, wrong func(string, ...any)) {
	for _, c := range []struct {
		what      string
		have, get resource.Resources
	}{{"free", a.free, b.free}, {"offered", a.offered, b.offered}, {"used", a.used, b.used}} {
		if !c.have.Equal(c.get) {
			wrong("agent %s: %s is %s in the books and %s by its offers and uses", a.id, c.what, c.have, c.get)
		}
	}
	if a.exceeded != b.exceeded || (b.overlap && !a.overlap) {
		wrong("agent %s: its marks are wrong", a.id)
	}
	if len(a.holdings) != len(b.holdings) {
		wrong("agent %s: %d holdings in the books and %d by its offers and uses", a.id, len(a.holdings), len(b.holdings))
	}
	for _, h := range b.holdings {
		g := a.find(h.Framework, h.Role)
		if g == nil || g.refs != h.refs || !g.Offered.Equal(h.Offered) || !g.Used.Equal(h.Used) ||
			g.account.framework.accounts[h.Role] != g.account || !isAt(g.account.framework.holdings, g.atFramework, g) {
			wrong("agent %s: the holding of framework %s in role %s is wrong", a.id, h.Framework, h.Role)
		}
	}
}

func compare(wrong func(string, ...any), what string, have, get tally) {
	if !slices.Equal(have, get) {
		wrong("%s is %s in the books and %s by offers and uses", what, have.quantities(), get.quantities())
	}
}

func (l *Ledger) compareFrameworks(fresh *Ledger, wrong func(string, ...any)) {
	for _, id := range slices.Sorted(maps.Keys(l.frameworks)) {
		f, g := l.frameworks[id], fresh.frameworks[id]
		if g == nil {
			g = fresh.framework(id)
			if !f.known {
				wrong("framework %s is in the books for nothing", id)
			}
		}
		compare(wrong, "offered to framework "+id, f.held.offered, g.held.offered)
		compare(wrong, "used by framework "+id, f.held.used, g.held.used)
		if !slices.Equal(l.AgentsOf(id), fresh.AgentsOf(id)) || len(f.holdings) != len(g.holdings) || len(f.offers) != len(g.offers) {
			wrong("framework %s: its agents or offers are wrong", id)
		}
		if len(f.accounts) != len(g.accounts) {
			wrong("framework %s: its accounts are wrong", id)
		}
		for role, s := range g.accounts {
			have := f.accounts[role]
			if have == nil {
				wrong("framework %s has no account in role %s", id, role)
				continue
			}
			if have.holdings != s.holdings || have.role != l.roles[role] {
				wrong("framework %s: its account in role %s is wrong", id, role)
			}
			compare(wrong, "offered to framework "+id+" in role "+role, have.offered, s.offered)
			compare(wrong, "used by framework "+id+" in role "+role, have.used, s.used)
		}
	}
	for id := range fresh.frameworks {
		if l.frameworks[id] == nil {
			wrong("framework %s holds something and is not in the books", id)
		}
	}
}

func (l *Ledger) compareRoles(fresh *Ledger, wrong func(string, ...any)) {
	for _, name := range l.Roles() {
		n := l.roles[name]
		if n.limited || len(n.guarantee) > 0 {
			m := fresh.role(name)
			m.limited, m.guarantee = n.limited, n.guarantee
		}
	}
	if have, get := l.Roles(), fresh.Roles(); !slices.Equal(have, get) {
		wrong("the roles are %v in the books and %v by what is known of them", have, get)
		return
	}
	for _, name := range l.Roles() {
		n, m := l.roles[name], fresh.roles[name]
		compare(wrong, "offered in role "+name, n.own.offered, m.own.offered)
		compare(wrong, "used in role "+name, n.own.used, m.own.used)
		compare(wrong, "offered in and below role "+name, n.all.offered, m.all.offered)
		compare(wrong, "used in and below role "+name, n.all.used, m.all.used)
		compare(wrong, "reserved to role "+name, n.reserved, m.reserved)
		compare(wrong, "charged to role "+name, n.charged, m.charged)
		if n.holdings != m.holdings || n.children != m.children {
			wrong("role %s: its place in the tree is wrong", name)
		}
	}
}
