package state

import (
	"fmt"
	"slices"

	"github.com/mezzo-os/mezzo/sdk/allocator"
	"github.com/mezzo-os/mezzo/sdk/resource"
)

const defaultWeight = 1000

// role is what the master knows of a role besides what is held in it.
type role struct {
	name string
	// first is what the configuration says, if it does; set is what an operator
	// has set since, if one has.
	first, set *Role
	frameworks map[string]bool
	shown      bool // a view of it has been published
	dirty      bool
}

// settings are what counts for the role.
func (r *role) settings() Role {
	out := Role{Name: r.name}
	if r.first != nil {
		out = *r.first
	}
	if r.set != nil {
		out = *r.set
	}
	if out.Weight == 0 {
		out.Weight = defaultWeight
	}
	return out
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

func (m *Machine) recoverRole(c Role) {
	r := m.role(c.Name)
	r.set = &c
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
	m.tellAlways(m.allocatorRole(r))
	m.touchRole(r.name)
}

func (m *Machine) allocatorRole(r *role) *allocator.RoleUpdated {
	s := r.settings()
	return &allocator.RoleUpdated{Name: s.Name, Weight: s.Weight, Guarantee: s.Guarantee, Limit: s.Limit}
}

// enforceLimit takes back offers in a role and below it when its limit was
// lowered, so that what is offered already cannot exceed it.
func (m *Machine) enforceLimit(name string) {
	limit, limited := m.books.Limit(name)
	if !limited {
		return
	}
	over := func() bool {
		consumed := m.books.RoleTotals(name).Consumed
		return slices.ContainsFunc(limit, func(q resource.Quantity) bool { return consumed.Get(q.Name) > q.Amount })
	}
	if !over() {
		return
	}
	for _, id := range sortedKeys(m.frameworks) {
		for _, o := range inOrder(m.frameworks[id].offers) {
			if resource.IsAncestorOrSelf(name, o.role) && over() {
				m.rescind(o, "the limit of role "+name+" was lowered")
			}
		}
	}
}

func (m *Machine) joinRoles(f *framework) {
	for _, name := range f.roles {
		m.role(name).frameworks[f.id] = true
		m.touchRole(name)
	}
}

func (m *Machine) leaveRoles(f *framework) {
	for _, name := range f.roles {
		delete(m.role(name).frameworks, f.id)
		m.touchRole(name)
	}
}
