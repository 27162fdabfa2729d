package model

import (
	"cmp"
	"slices"
	"strings"

	"github.com/mezzo-os/mezzo/sdk/resource"
)

// amountOf looks in quantities that may hold zeros, as a limit's may.
func amountOf(list resource.Quantities, name string) (resource.Scalar, bool) {
	for _, q := range list {
		if q.Name == name {
			return q.Amount, true
		}
	}
	return 0, false
}

// Consumed is how much of a scalar counts against a role's quota: what it and
// the roles below it hold unreserved and not revocable, and all that is reserved
// to them.
func (b *Books) Consumed(role, name string) (sum resource.Scalar) {
	for h, r := range b.Held {
		if resource.IsAncestorOrSelf(role, h.Role) {
			sum += r.Unreserved().NonRevocable().Get(name)
		}
	}
	for _, a := range b.Agents {
		for _, r := range a.Update.Total.Reserved().NonRevocable() {
			if r.Kind.Name() == name && resource.IsAncestorOrSelf(role, r.Kind.Role()) {
				sum += r.Scalar
			}
		}
	}
	return sum
}

// Room is how much more of a scalar, unreserved, the limits of a role and of
// those above it leave; false when none of them limits it.
func (b *Books) Room(role, name string) (resource.Scalar, bool) {
	room, limited := resource.MaxScalar, false
	for above, u := range b.Roles {
		if most, is := amountOf(u.Limit, name); is && resource.IsAncestorOrSelf(above, role) {
			room, limited = min(room, most-b.Consumed(above, name)), true
		}
	}
	return room, limited
}

// Short is by how much of a scalar what is free falls short of what guarantees
// lack, if a role is given some more first. What a role lacks can be met by
// giving to a role below it: it needs what it lacks itself, or what those below
// it need, whichever is more.
func (b *Books) Short(name, role string, more resource.Scalar) resource.Scalar {
	var promised []string
	for r, u := range b.Roles {
		if n, _ := amountOf(u.Guarantee, name); n > 0 {
			promised = append(promised, r)
		}
	}
	if len(promised) == 0 {
		return 0
	}
	free := -more
	for id := range b.Agents {
		free += b.Free(id).Unreserved().NonRevocable().Get(name)
	}
	// Those deeper in the tree first.
	slices.SortFunc(promised, func(x, y string) int {
		return cmp.Or(strings.Count(y, "/")-strings.Count(x, "/"), cmp.Compare(x, y))
	})
	needs := resource.Scalar(0)
	below := map[string]resource.Scalar{}
	for i, r := range promised {
		lacks, _ := amountOf(b.Roles[r].Guarantee, name)
		if lacks -= b.Consumed(r, name); resource.IsAncestorOrSelf(r, role) {
			lacks -= more
		}
		need := max(0, lacks, below[r])
		above := slices.IndexFunc(promised[i+1:], func(x string) bool { return resource.IsAncestorOrSelf(x, r) })
		if above < 0 {
			needs += need
		} else {
			below[promised[i+1+above]] += need
		}
	}
	return max(0, needs-free)
}

// Headway is the most of a scalar, in whole units and unreserved, that a role
// may be given: as much as its limits leave, and no guarantee is the shorter for.
func (b *Books) Headway(role, name string) resource.Scalar {
	room, _ := b.Room(role, name)
	room = max(0, room)
	before := b.Short(name, "", 0)
	if promised := b.Short(name, role, 1<<40) > before; !promised {
		return room
	}
	for more := resource.Unit; more <= room; more += resource.Unit {
		if b.Short(name, role, more) > before {
			return more - resource.Unit
		}
	}
	return room
}
