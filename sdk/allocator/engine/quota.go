package engine

import (
	"slices"

	allocatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/allocator/v1"
)

// quota is what a role may hold and is promised, and what it consumes of that,
// in thousandths by the index of Cluster.Names. It consumes what it and the
// roles below it hold unreserved and not revocable, and all that is reserved to
// them, held or not.
type quota struct {
	guarantee []amount
	limit     []amount
	used      []int64
	reserved  []int64
}

func at(list []int64, i uint32) int64 {
	if int(i) < len(list) {
		return list[i]
	}
	return 0
}

// consumed is how much of a scalar counts against the quota.
func (q *quota) consumed(quantity uint32) int64 {
	return at(q.used, quantity) + at(q.reserved, quantity)
}

// reserve counts an agent's resource that is reserved to the role or below it.
func (q *quota) reserve(k kind, thousandths, sign int64) {
	if k.quantity != noQuantity && k.flags&kindRevocable == 0 {
		q.reserved = grown(q.reserved, int(k.quantity))
		q.reserved[k.quantity] += sign * thousandths
	}
}

func (e *Engine) setQuota(r *role, u *allocatorv1.RoleUpdated) {
	guarantee, limit := e.amounts(u.GetGuarantee()), e.amounts(u.GetLimit())
	if slices.Equal(guarantee, r.quota.guarantee) && slices.Equal(limit, r.quota.limit) {
		return
	}
	r.quota.guarantee, r.quota.limit = guarantee, limit
	e.limited = slices.DeleteFunc(e.limited, func(x *role) bool { return x == r })
	if len(guarantee) > 0 || len(limit) > 0 {
		e.limited = append(e.limited, r)
	}
	e.guaranteed = slices.ContainsFunc(e.limited, func(x *role) bool { return len(x.quota.guarantee) > 0 })
	e.reconsider()
}

// unmet is how much of a scalar the role and those above it still lack of what
// they are guaranteed: the most of them.
func (r *role) unmet(quantity uint32) int64 {
	var most int64
	for ; r != nil; r = r.parent {
		for _, g := range r.quota.guarantee {
			if g.quantity == quantity {
				most = max(most, g.thousandths-r.quota.consumed(quantity))
			}
		}
	}
	return most
}

// lacks reports whether the role or one above it lacks anything of what it is
// guaranteed.
func (r *role) lacks() bool {
	for ; r != nil; r = r.parent {
		for _, g := range r.quota.guarantee {
			if g.thousandths > r.quota.consumed(g.quantity) {
				return true
			}
		}
	}
	return false
}

// anyLack reports whether a guarantee is unmet.
func (e *Engine) anyLack() bool {
	return e.guaranteed && slices.ContainsFunc(e.limited, (*role).lacks)
}

// headroom is how much of a scalar, unreserved and not revocable, may be given
// to anybody while enough stays free for what guarantees lack. A role's lack
// covers that of the roles below it, which is counted once.
func (e *Engine) headroom(quantity uint32) int64 {
	free := at(e.unreserved, quantity) - at(e.used, quantity)
	for _, r := range e.limited {
		for _, g := range r.quota.guarantee {
			if g.quantity != quantity {
				continue
			}
			lack := g.thousandths - r.quota.consumed(quantity)
			if lack > 0 && (r.parent == nil || r.parent.unmet(quantity) < lack) {
				free -= lack
			}
		}
	}
	return max(0, free)
}

// unlimited notes that a client gave something back: what was held back because
// of quota may go now.
func (e *Engine) unlimited(c *client) {
	if len(e.limited) == 0 || e.reconsidered {
		return
	}
	e.reconsidered = e.guaranteed
	for r := c.role; r != nil && !e.reconsidered; r = r.parent {
		e.reconsidered = len(r.quota.limit) > 0
	}
}

// reconsider has every agent looked at again for those that were held back by
// quota.
func (e *Engine) reconsider() {
	e.reconsidered = false
	e.heldBack.each(func(number uint32) {
		if a := e.agents[number]; a != nil {
			e.soil(a)
		}
	})
	clear(e.heldBack)
}

// limit returns what of v a role may have, and whether that is less than v: no
// more than its limit and those of the roles above it, and, but for what its
// own guarantee lacks, nothing of what other guarantees lack.
func (e *Engine) limit(r *role, v vector) (vector, bool) {
	cut := false
	for above := r; above != nil; above = above.parent {
		for _, l := range above.quota.limit {
			room := l.thousandths - above.quota.consumed(l.quantity)
			if e.countable(v, l.quantity) > room {
				v, cut = e.shrink(v, l.quantity, room), true
			}
		}
	}
	if !e.guaranteed {
		return v, cut
	}
	for quantity := range uint32(len(e.cluster.Names)) {
		want := e.countable(v, quantity)
		if want == 0 {
			continue
		}
		if room := e.headroom(quantity) + r.unmet(quantity); want > room {
			v, cut = e.shrink(v, quantity, room), true
		}
	}
	return v, cut
}

// shrink returns v with no more than room of what counts against quota of a
// scalar.
func (e *Engine) shrink(v vector, quantity uint32, room int64) vector {
	room = max(0, room)
	return e.kinds.filter(v, func(k uint32, amounts []int64) []int64 {
		kind := &e.kinds[k]
		if kind.quantity != quantity || kind.flags&(kindReserved|kindRevocable) != 0 {
			return amounts
		}
		take := min(room, amounts[0])
		if kind.flags&kindWhole != 0 && take < amounts[0] {
			take -= take % max(1, kind.copy)
		}
		if room -= take; take == 0 {
			return nil
		}
		return []int64{take}
	})
}

// countable is how much of a scalar in v counts against quota when it is held.
func (e *Engine) countable(v vector, quantity uint32) int64 {
	var sum int64
	e.kinds.each(v, func(k uint32, amounts []int64) {
		if e.kinds[k].quantity == quantity && e.kinds[k].flags&(kindReserved|kindRevocable) == 0 {
			sum += amounts[0]
		}
	})
	return sum
}
