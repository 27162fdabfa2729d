package state

import (
	"fmt"

	"github.com/mezzo-os/mezzo/sdk/allocator"
	"github.com/mezzo-os/mezzo/sdk/resource"
)

const defaultWeight = 1000

// role is what the master knows of a role besides what is held in it.
type role struct {
	name string
	// first is what the configuration says, if it does.
	first *Role
	// set is what operators have set since and is durable. wanted is set with
	// the orders that are still being written: what an order is checked against,
	// so that two at a time cannot pass together what neither may alone.
	set, wanted override
	frameworks  map[string]bool
	starvation  starvation
	shown       bool // a view of it has been published
	dirty       bool
}

// override is what an operator has set for a role, in place of its first values.
type override struct {
	// weight in thousandths; 0: not set.
	weight uint64
	// quota: guarantee and limit are set, to nothing perhaps.
	quota            bool
	guarantee, limit resource.Quantities
}

func (o override) empty() bool { return o.weight == 0 && !o.quota }

// settings are what counts for the role.
func (r *role) settings() Role { return r.with(r.set) }

// with is what counts for the role if this is set.
func (r *role) with(o override) Role {
	out := Role{Name: r.name}
	if r.first != nil {
		out = *r.first
	}
	if o.weight != 0 {
		out.Weight = o.weight
	}
	if o.quota {
		out.Guarantee, out.Limit = o.guarantee, o.limit
	}
	if out.Weight == 0 {
		out.Weight = defaultWeight
	}
	return out
}

// known is whether somebody has said something of the role, or is subscribed to
// it.
func (r *role) known() bool {
	return r.first != nil || !r.set.empty() || !r.wanted.empty() || len(r.frameworks) > 0
}

func (m *Machine) role(name string) *role {
	r := m.roles[name]
	if r == nil {
		r = &role{name: name, frameworks: map[string]bool{}}
		m.roles[name] = r
	}
	return r
}

// checkRole says what is wrong with a role's settings.
func checkRole(r Role) error {
	if err := resource.ValidateRole(r.Name); err != nil {
		return err
	}
	for _, list := range []resource.Quantities{r.Guarantee, r.Limit} {
		for _, q := range list {
			if q.Amount < 0 || q.Amount > resource.MaxScalar {
				return fmt.Errorf("role %q: the amount of %q is %s, which is negative or too large", r.Name, q.Name, q.Amount)
			}
		}
	}
	for _, q := range r.Guarantee {
		if limit, ok := r.Limit.Lookup(q.Name); ok && limit < q.Amount {
			return fmt.Errorf("role %q: the limit of %q (%s) is less than its guarantee (%s)", r.Name, q.Name, limit, q.Amount)
		}
	}
	return nil
}

func (m *Machine) configureRole(c Role) error {
	if err := checkRole(c); err != nil {
		return err
	}
	r := m.role(c.Name)
	r.first = &c
	m.applyRole(r)
	return nil
}

func (m *Machine) recoverRole(name string, o override) {
	r := m.role(name)
	r.set, r.wanted = o, o
	m.applyRole(r)
}

// applyRole makes books and allocator know the role's settings.
func (m *Machine) applyRole(r *role) {
	s := r.settings()
	if s.Limit == nil {
		m.books.RemoveLimit(r.name)
	} else {
		m.books.SetLimit(r.name, s.Limit)
	}
	m.books.SetGuarantee(r.name, s.Guarantee)
	m.watchStarvation(r, s.Guarantee)
	m.tellAlways(m.allocatorRole(r))
	m.touchRole(r.name)
}

func (m *Machine) allocatorRole(r *role) *allocator.RoleUpdated {
	s := r.settings()
	return &allocator.RoleUpdated{
		Name: s.Name, Weight: s.Weight, Guarantee: s.Guarantee, Limit: s.Limit, Starved: r.starvation.lasting(m.now),
	}
}

func (m *Machine) joinRoles(f *framework) {
	for _, name := range f.roles {
		m.role(name).frameworks[f.id] = true
		m.touchRole(name)
		m.recheckStarvation(name, true)
	}
}

func (m *Machine) leaveRoles(f *framework) {
	for _, name := range f.roles {
		delete(m.role(name).frameworks, f.id)
		m.touchRole(name)
		m.recheckStarvation(name, true)
	}
}
