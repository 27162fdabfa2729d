package state

import (
	"fmt"
	"slices"
	"strings"

	"github.com/mezzo-os/mezzo/sdk/resource"
)

// maxWeight bounds a role's weight, in thousandths: a million. Above it the
// sums of an allocator would lose what is small.
const maxWeight = 1_000_000 * 1000

// orderSetQuota is an operator's wish to set a role's guarantee, limit or both,
// which count once they are durable.
func (m *Machine) orderSetQuota(in SetQuota) {
	if err := resource.ValidateRole(in.Role); err != nil {
		m.reply(in.Request, &OrderError{OrderInvalid, err.Error()})
		return
	}
	next := m.role(in.Role)
	change := next.wanted
	if !change.quota {
		now := next.with(next.wanted)
		change.quota, change.guarantee, change.limit = true, now.Guarantee, now.Limit
	}
	if in.Guarantee != nil {
		change.guarantee = slices.DeleteFunc(slices.Clone(*in.Guarantee), func(q resource.Quantity) bool { return q.Amount == 0 })
	}
	if in.Limit != nil {
		change.limit = *in.Limit
	}
	if len(change.guarantee) == 0 {
		change.guarantee = nil
	}
	if len(change.limit) == 0 {
		change.limit = nil
	}
	fail := func(code OrderErrorCode, message string) {
		m.touchRole(in.Role) // it is forgotten again if nobody knows it
		m.reply(in.Request, &OrderError{code, message})
	}
	if err := checkRole(next.with(change)); err != nil {
		fail(OrderInvalid, err.Error())
		return
	}
	if why := m.checkTree(next, change); why != "" {
		fail(OrderInvalid, why)
		return
	}
	if over := m.overLimit(in.Role, change.limit); over != "" && in.Limit != nil && !in.Force {
		fail(OrderRefused, fmt.Sprintf("role %q uses more than that limit: %s; raise the limit, or force it: "+
			"then nothing more is offered to the role, and what runs goes on", in.Role, over))
		return
	}
	var warnings []string
	if in.Guarantee != nil && change.guarantee != nil {
		warnings = m.overCommitted(next, change)
	}
	if m.recovering > 0 && in.Limit != nil && change.limit != nil {
		warnings = append(warnings, fmt.Sprintf("%d agents have not come back since this master began to lead; what they use is not counted yet", m.recovering))
	}
	m.logf(Info, "operator sets a quota", "role", in.Role, "guarantee", change.guarantee.String(), "limit", limitText(change.limit), "force", fmt.Sprint(in.Force))
	m.override(next, change, func() { m.emit(Reply{Request: in.Request, Warnings: warnings}) })
}

// orderRemoveQuota is an operator's wish to go back to a role's first quota.
func (m *Machine) orderRemoveQuota(in RemoveQuota) {
	r := m.roles[in.Role]
	if r == nil || !r.wanted.quota {
		message := fmt.Sprintf("role %q has no quota", in.Role)
		if r != nil && r.first != nil && (len(r.first.Guarantee) > 0 || r.first.Limit != nil) {
			message = fmt.Sprintf("the quota of role %q is that of the master's configuration: change it there, or set another", in.Role)
		}
		m.reply(in.Request, &OrderError{OrderNotFound, message})
		return
	}
	change := r.wanted
	change.quota, change.guarantee, change.limit = false, nil, nil
	if why := m.checkTree(r, change); why != "" {
		m.reply(in.Request, &OrderError{OrderInvalid, "going back to the quota of the configuration: " + why})
		return
	}
	m.logf(Info, "operator removes a quota", "role", in.Role)
	var warnings []string
	if r.with(change).Guarantee != nil {
		warnings = m.overCommitted(r, change)
	}
	m.override(r, change, func() { m.emit(Reply{Request: in.Request, Warnings: warnings}) })
}

// orderSetWeights is an operator's wish to set weights: all of them, or none.
func (m *Machine) orderSetWeights(in SetWeights) {
	seen := map[string]bool{}
	for _, w := range in.Weights {
		err := resource.ValidateRole(w.Role)
		switch {
		case err != nil:
		case seen[w.Role]:
			err = fmt.Errorf("role %q is named twice", w.Role)
		case w.Weight > maxWeight:
			err = fmt.Errorf("role %q: the weight %s is above %d", w.Role, resource.Scalar(min(w.Weight, 1<<62)), maxWeight/1000)
		}
		if err != nil {
			m.reply(in.Request, &OrderError{OrderInvalid, err.Error()})
			return
		}
		seen[w.Role] = true
	}
	left := len(in.Weights)
	if left == 0 {
		m.reply(in.Request, &OrderError{OrderInvalid, "no role is named"})
		return
	}
	for _, w := range in.Weights {
		r := m.role(w.Role)
		change := r.wanted
		change.weight = w.Weight
		m.logf(Info, "operator sets a weight", "role", w.Role, "weight", resource.Scalar(r.with(change).Weight).String())
		m.override(r, change, func() {
			if left--; left == 0 {
				m.reply(in.Request, nil)
			}
		})
	}
}

// override makes what an operator has set durable, then lets it count.
func (m *Machine) override(r *role, change override, done func()) {
	r.wanted = change
	m.writeRole(r.name, change, func() {
		r.set = change
		m.applyRole(r)
		m.enforceLimit(r.name)
		done()
	})
}

// checkTree says what a role's new quota would break in the tree. Only the role
// and those above it are looked at; what was wrong elsewhere before stays the
// concern of whoever changes that.
func (m *Machine) checkTree(r *role, change override) string {
	return treeProblem(m.settingsWith(r, change), func(name string) bool { return resource.IsAncestorOrSelf(name, r.name) })
}

// settingsWith are the settings of all roles, with all orders that are under way
// and a change of one.
func (m *Machine) settingsWith(changed *role, change override) map[string]Role {
	out := make(map[string]Role, len(m.roles))
	for name, r := range m.roles {
		out[name] = r.with(r.wanted)
	}
	if changed != nil {
		out[changed.name] = changed.with(change)
	}
	return out
}

// treeProblem says what is wrong with quota in the tree of roles: a limit must
// leave room for all that is guaranteed to the role and below it. It looks at
// the roles that look picks.
func treeProblem(roles map[string]Role, look func(name string) bool) string {
	together := guaranteed(roles)
	for _, name := range sortedKeys(roles) {
		if !look(name) {
			continue
		}
		for _, q := range together[name] {
			room, limited := roles[name].Limit.Lookup(q.Name)
			if !limited || q.Amount <= room {
				continue
			}
			return fmt.Sprintf("role %q would be limited to %s:%s, and %s:%s would be guaranteed to it and the roles below it (%s); "+
				"raise the limit or lower a guarantee", name, q.Name, room, q.Name, q.Amount, guaranteedBelow(roles, name, q.Name))
		}
	}
	return ""
}

// guaranteedBelow lists who is guaranteed something of a name in a subtree.
func guaranteedBelow(roles map[string]Role, top, resourceName string) string {
	var parts []string
	for _, name := range sortedKeys(roles) {
		if q := roles[name].Guarantee.Get(resourceName); q > 0 && resource.IsAncestorOrSelf(top, name) {
			parts = append(parts, fmt.Sprintf("%s: %s", name, q))
		}
	}
	return strings.Join(parts, ", ")
}

// guaranteed is what is guaranteed to each role and the roles below it together.
func guaranteed(roles map[string]Role) map[string]resource.Quantities {
	own := make(map[string]resource.Quantities, len(roles))
	for name, r := range roles {
		own[name] = r.Guarantee
	}
	return resource.Guaranteed(own)
}

// overLimit says in what a role uses more than a limit: tasks, executors and
// reservations, since offers can be taken back. Empty: in nothing.
func (m *Machine) overLimit(name string, limit resource.Quantities) string {
	committed := m.books.Committed(name)
	var parts []string
	for _, q := range limit {
		if have := committed.Get(q.Name); have > q.Amount {
			parts = append(parts, fmt.Sprintf("%s:%s of %s", q.Name, have, q.Amount))
		}
	}
	return strings.Join(parts, ", ")
}

// overCommitted warns when more is guaranteed than there is.
func (m *Machine) overCommitted(changed *role, change override) []string {
	total, _ := m.books.Cluster()
	var parts []string
	for _, q := range guaranteed(m.settingsWith(changed, change))[""] {
		if have := total.Get(q.Name); q.Amount > have {
			parts = append(parts, fmt.Sprintf("%s:%s of %s", q.Name, q.Amount, have))
		}
	}
	if len(parts) == 0 {
		return nil
	}
	out := "the guarantees of all roles are more than the cluster has (" + strings.Join(parts, ", ") + "): not all can be met at once"
	if m.recovering > 0 {
		out += fmt.Sprintf("; %d agents have not come back yet", m.recovering)
	}
	return []string{out}
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

func limitText(q resource.Quantities) string {
	if q == nil {
		return "none"
	}
	return q.String()
}
