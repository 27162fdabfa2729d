package config

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"

	"github.com/mezzo-os/mezzo/sdk/resource"
)

// MaxWeight bounds a role's weight: above it the sums of an allocator would lose
// what is small.
const MaxWeight = 1_000_000

var roleSchema = schema(roleAttributes)

// roles reads the role blocks, in the order written.
func (d *decoder) roles(blocks hcl.Blocks) (list []Role) {
	seen := map[string]hcl.Range{}
	tree := map[string]writtenRole{}
	for _, block := range blocks {
		if block.Type != "role" {
			continue
		}
		r := Role{Name: block.Labels[0], Weight: 1, DefRange: block.DefRange}
		if err := resource.ValidateRole(r.Name); err != nil {
			d.add(invalid(block.LabelRanges[0], "Bad role", "%s.", err))
		}
		if first, again := seen[r.Name]; again {
			d.add(duplicate(r.DefRange, first, "role \""+r.Name+"\"", "A role is described once."))
		}
		seen[r.Name] = block.DefRange
		s, _ := d.content(block.Body, roleSchema)
		s.number("weight", &r.Weight, func(n float64) bool { return n > 0 && n <= MaxWeight }, "above 0, and no more than 1000000")
		s.resources("guarantee", &r.Guarantee, checkQuota)
		s.resources("limit", &r.Limit, checkQuota)
		if name, over := r.exceeds(); over {
			d.add(invalid(s.attrs["guarantee"].Expr.Range(), "Guarantee above limit",
				"The guarantee of %s is above the limit at %s.", name, place(s.attrs["limit"].Expr.Range())))
		}
		tree[r.Name] = writtenRole{r, s}
		list = append(list, r)
	}
	d.checkTree(tree)
	return list
}

// writtenRole is a role and where it was written.
type writtenRole struct {
	Role
	scope scope
}

func (w writtenRole) place(attribute string) hcl.Range { return w.scope.attrs[attribute].Expr.Range() }

// checkTree compares roles with those above and below them. Orders of operators
// are held to the same rule: a limit leaves room for all that is guaranteed to
// the role and below it. What is only without effect is a warning.
func (d *decoder) checkTree(tree map[string]writtenRole) {
	own := map[string]resource.Quantities{}
	for name, r := range tree {
		own[name] = resource.NewQuantities(r.GuaranteeQuantities()...)
	}
	together := resource.Guaranteed(own)
	for _, name := range slices.Sorted(maps.Keys(tree)) {
		role := tree[name]
		limits := resource.Quantities(role.LimitQuantities())
		for _, q := range together[name] {
			room, limited := limits.Lookup(q.Name)
			below := q.Amount - own[name].Get(q.Name) // 0: the role's own, see exceeds
			switch {
			case limited && q.Amount > room && below > 0:
				d.add(invalid(role.place("limit"), "Limit below guarantees",
					"The limit of %s is %s, and %s are guaranteed to role %q and the roles below it: %s.",
					q.Name, room, q.Amount, name, guarantors(tree, own, name, q.Name)))
			case below > 0 && own[name].Get(q.Name) > 0:
				diag := invalid(role.place("guarantee"), "Guarantee below those of the roles in it",
					"The guarantee of %s is %s, and what is guaranteed to the roles below it is more: %s in all, which is what counts. (%s)",
					q.Name, own[name].Get(q.Name), q.Amount, guarantors(tree, own, name, q.Name))
				diag.Severity = hcl.DiagWarning
				d.add(diag)
			}
		}
		d.checkLimit(tree, role, limits)
	}
}

// guarantors lists who is guaranteed something of a name below a role.
func guarantors(tree map[string]writtenRole, own map[string]resource.Quantities, top, name string) string {
	var parts []string
	for _, role := range slices.Sorted(maps.Keys(tree)) {
		if n := own[role].Get(name); n > 0 && resource.IsAncestorOrSelf(top, role) {
			parts = append(parts, fmt.Sprintf("%s to %q at %s", n, role, place(tree[role].place("guarantee"))))
		}
	}
	return strings.Join(parts, ", ")
}

// checkLimit warns of a limit that one above it makes useless.
func (d *decoder) checkLimit(tree map[string]writtenRole, role writtenRole, limits resource.Quantities) {
	for up := resource.ParentRole(role.Name); up != ""; up = resource.ParentRole(up) {
		above, written := tree[up]
		if !written {
			continue
		}
		for _, q := range above.LimitQuantities() {
			if n, limited := limits.Lookup(q.Name); limited && n > q.Amount {
				diag := invalid(role.place("limit"), "Limit above that of a role above",
					"The limit of %s is %s; role %q has one of %s at %s, which counts.", q.Name, n, up, q.Amount, place(above.place("limit")))
				diag.Severity = hcl.DiagWarning
				d.add(diag)
			}
		}
	}
}

// resources reads a resource text that passes the check.
func (s scope) resources(name string, to *string, check func(string) error) {
	var got string
	rng, ok := s.text(name, &got)
	if !ok {
		return
	}
	got = strings.TrimSpace(got) // file() gives the last line's end, too
	if err := check(got); err != nil {
		s.d.add(invalid(rng, "Bad resources", "In %s: %s.", name, err))
		return
	}
	*to = got
}
