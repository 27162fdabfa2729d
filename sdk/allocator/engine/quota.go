package engine

import (
	"slices"
	"time"

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

func (e *Engine) setQuota(now time.Duration, r *role, u *allocatorv1.RoleUpdated) {
	guarantee, limit := e.amounts(u.GetGuarantee()), e.amounts(u.GetLimit())
	if slices.Equal(guarantee, r.quota.guarantee) && slices.Equal(limit, r.quota.limit) {
		return
	}
	r.quota.guarantee, r.quota.limit = guarantee, limit
	e.limited = slices.DeleteFunc(e.limited, func(x *role) bool { return x == r })
	if len(guarantee) > 0 || len(limit) > 0 {
		e.limited = append(e.limited, r)
	}
	e.reconsider(now)
}

// unlimited notes that a client gave something back: what was held back because
// of its roles' quota may go now.
func (e *Engine) unlimited(c *client) {
	if len(e.limited) == 0 {
		return
	}
	for r := c.role; r != nil; r = r.parent {
		if len(r.quota.limit) > 0 {
			e.reconsidered = true
			return
		}
	}
}

// reconsider has every agent looked at again for those that were held back by
// quota.
func (e *Engine) reconsider(now time.Duration) {
	e.reconsidered = false
	e.heldBack.each(func(number uint32) {
		if a := e.agents[number]; a != nil {
			e.soil(a, now)
		}
	})
	clear(e.heldBack)
}

// limit returns what of v a role may have within the limits of itself and the
// roles above it, and whether that is less than v.
func (e *Engine) limit(r *role, v vector) (vector, bool) {
	cut := false
	for ; r != nil; r = r.parent {
		for _, l := range r.quota.limit {
			room := max(0, l.thousandths-r.quota.consumed(l.quantity))
			if e.countable(v, l.quantity) <= room {
				continue
			}
			cut = true
			v = e.kinds.filter(v, func(k uint32, amounts []int64) []int64 {
				kind := &e.kinds[k]
				if kind.quantity != l.quantity || kind.flags&(kindReserved|kindRevocable) != 0 {
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
	}
	return v, cut
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
