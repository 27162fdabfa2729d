package ledger

import (
	"fmt"
	"slices"
	"strings"

	"github.com/mezzo-os/mezzo/sdk/resource"
)

// role is a node of the tree of roles. Nodes exist while there is something to
// know of them or of a descendant.
type role struct {
	name     string
	parent   *role
	children int
	// holdings counts those in this very role.
	holdings  int
	limited   bool
	limit     resource.Quantities
	guarantee resource.Quantities
	// own is held in this very role, all in it and its descendants.
	own, all sums
	// reserved is what is reserved to the role and its descendants, in the totals
	// of the agents. charged is what they hold besides that and counts toward
	// limits. Together they are what the role consumes.
	reserved, charged tally
}

// charges reports whether resources of the kind count toward the limit of the
// role when it or a descendant holds them: they are not revocable, not shared,
// and not counted already because they are reserved to the role or below.
func (n *role) charges(k resource.Kind) bool {
	if k.Revocable() || k.Shared() {
		return false
	}
	return !k.IsReserved() || !resource.IsAncestorOrSelf(n.name, k.Role())
}

// consumed is how much of a name counts toward the limit.
func (n *role) consumed(name string) resource.Scalar {
	return resource.Quantities(n.reserved).Get(name) + resource.Quantities(n.charged).Get(name)
}

// role returns the node of a name, made with its ancestors if need be.
func (l *Ledger) role(name string) *role {
	n := l.roles[name]
	if n == nil {
		n = &role{name: name}
		l.roles[name] = n
		if up := resource.ParentRole(name); up != "" {
			n.parent = l.role(up)
			n.parent.children++
		}
	}
	return n
}

// pruneRole deletes a node that says nothing, and its ancestors likewise.
func (l *Ledger) pruneRole(n *role) {
	for n != nil && n.children == 0 && n.holdings == 0 && !n.limited && len(n.guarantee) == 0 && len(n.reserved) == 0 {
		delete(l.roles, n.name)
		if n.parent != nil {
			n.parent.children--
		}
		n = n.parent
	}
}

// nearest returns the node of a name or of its nearest ancestor that has one.
func (l *Ledger) nearest(name string) *role {
	for ; name != ""; name = resource.ParentRole(name) {
		if n := l.roles[name]; n != nil {
			return n
		}
	}
	return nil
}

// reserve enters reservations of an agent's total.
func (l *Ledger) reserve(total resource.Resources, sign resource.Scalar) {
	for i := range total {
		if !total[i].Kind.IsReserved() {
			continue
		}
		leaf := l.role(total[i].Kind.Role())
		for n := leaf; n != nil; n = n.parent {
			n.reserved.addOne(&total[i], sign)
		}
		l.pruneRole(leaf)
	}
}

// SetLimit sets the limit of a role, by name of scalar: a name that is not in it
// is not limited, one with zero is forbidden. What is consumed beyond it stays;
// see Consumed.
func (l *Ledger) SetLimit(name string, limit []resource.Quantity) {
	n := l.role(name)
	n.limited, n.limit = true, sortedLimit(limit)
}

// sortedLimit keeps zeros, which Quantities drop: here they mean something. Of
// a name given twice the last counts.
func sortedLimit(list []resource.Quantity) resource.Quantities {
	var out resource.Quantities
	for _, q := range list {
		i, found := slices.BinarySearchFunc(out, q.Name, func(x resource.Quantity, n string) int { return strings.Compare(x.Name, n) })
		if found {
			out[i] = q
		} else {
			out = slices.Insert(out, i, q)
		}
	}
	return out
}

// RemoveLimit takes the limit of a role away.
func (l *Ledger) RemoveLimit(name string) {
	n := l.role(name)
	n.limited, n.limit = false, nil
	l.pruneRole(n)
}

// Limit returns the limit of a role, sorted by name, zeros included; false if it
// has none.
func (l *Ledger) Limit(name string) (resource.Quantities, bool) {
	n := l.roles[name]
	if n == nil {
		return nil, false
	}
	return n.limit, n.limited
}

// SetGuarantee sets what no revocation may take a role below; empty for nothing.
func (l *Ledger) SetGuarantee(name string, guarantee resource.Quantities) {
	n := l.role(name)
	n.guarantee = guarantee
	l.pruneRole(n)
}

// checkLimits looks whether the limits of a role and its ancestors allow a growth
// of what they consume; growth tells by how much a node's would grow.
func (l *Ledger) checkLimits(name string, growth func(*role) tally) *Refusal {
	for n := l.nearest(name); n != nil; n = n.parent {
		if !n.limited {
			continue
		}
		for _, q := range growth(n) {
			limit, limited := n.limit.Lookup(q.Name)
			if have := n.consumed(q.Name); limited && q.Amount > 0 && have+q.Amount > limit {
				return &Refusal{Limit, fmt.Sprintf("the limit of role %s is %s:%s; it consumes %s, and %s more would exceed it",
					n.name, q.Name, limit, have, q.Amount)}
			}
		}
	}
	return nil
}
