package engine

import (
	"cmp"
	"math"
	"slices"
	"strings"
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
	// below is what roles below it need of what they are guaranteed, own what
	// it lacks itself beyond that. See keepForGuarantees.
	below, own []int64
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
	r.quota.below, r.quota.own = nil, nil
	e.limited = slices.DeleteFunc(e.limited, func(x *role) bool { return x == r })
	if len(guarantee) > 0 || len(limit) > 0 {
		e.limited = append(e.limited, r)
	}
	slices.SortFunc(e.limited, func(a, b *role) int { return cmp.Or(b.depth()-a.depth(), strings.Compare(a.name, b.name)) })
	e.guaranteed = slices.ContainsFunc(e.limited, func(x *role) bool { return len(x.quota.guarantee) > 0 })
	e.books++
	e.moreRoom = true
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

// headroom is how much more of each scalar, unreserved and not revocable, a role may
// be given, as of one state of the books.
type headroom struct {
	version uint64
	amounts []int64 // by the index of Cluster.Names
	closed  bool    // it is less than anything that is worth an offer
}

const unlimited = math.MaxInt64

// roomOf returns a role's room: what its limits and those above it leave, of
// what is free and not kept for guarantees, and of what is kept for its own.
func (e *Engine) roomOf(r *role) *headroom {
	if r.room.version == e.books {
		return &r.room
	}
	e.keepForGuarantees()
	r.room.version = e.books
	r.room.amounts = slices.Grow(r.room.amounts[:0], len(e.cluster.Names))
	for q := range e.cluster.Names {
		most := int64(unlimited)
		if e.guaranteed {
			most = max(0, at(e.unreserved, uint32(q))-at(e.used, uint32(q))-at(e.kept, uint32(q)))
		}
		r.room.amounts = append(r.room.amounts, most)
	}
	for above := r; above != nil && e.guaranteed; above = above.parent {
		for q, own := range above.quota.own {
			r.room.amounts[q] += own
		}
	}
	for above := r; above != nil; above = above.parent {
		for _, l := range above.quota.limit {
			left := max(0, l.thousandths-above.quota.consumed(l.quantity))
			r.room.amounts[l.quantity] = min(r.room.amounts[l.quantity], left)
		}
	}
	r.room.closed = !slices.ContainsFunc(e.smallest, func(set []amount) bool {
		return !slices.ContainsFunc(set, func(a amount) bool { return r.room.amounts[a.quantity] < a.thousandths })
	})
	return &r.room
}

// keepForGuarantees works out how much of each scalar is to stay free for what
// guarantees lack. What a role lacks can be met by giving to a role below it:
// so a role needs what it lacks itself or what those below it need, whichever is
// more, and only what it lacks beyond that is its own.
func (e *Engine) keepForGuarantees() {
	if e.keptAt == e.books {
		return
	}
	e.keptAt = e.books
	clear(e.kept)
	e.kept = grown(e.kept, len(e.cluster.Names)-1)
	for _, r := range e.limited {
		clear(r.quota.below)
		clear(r.quota.own)
	}
	for _, r := range e.limited { // those deeper in the tree first
		for _, g := range r.quota.guarantee {
			lack, below := max(0, g.thousandths-r.quota.consumed(g.quantity)), at(r.quota.below, g.quantity)
			r.quota.own = grown(r.quota.own, int(g.quantity))
			r.quota.own[g.quantity] = max(0, lack-below)
			if above := r.parent.guarantor(g.quantity); above != nil {
				above.quota.below = grown(above.quota.below, int(g.quantity))
				above.quota.below[g.quantity] += max(lack, below)
			} else {
				e.kept[g.quantity] += max(lack, below)
			}
		}
	}
}

// guarantor is the role, or the first above it, with a guarantee of a scalar.
func (r *role) guarantor(quantity uint32) *role {
	for ; r != nil; r = r.parent {
		if slices.ContainsFunc(r.quota.guarantee, func(g amount) bool { return g.quantity == quantity }) {
			return r
		}
	}
	return nil
}

func (r *role) depth() (n int) {
	for ; r != nil; r = r.parent {
		n++
	}
	return n
}

// heldBack are agents of which a role's clients got less than they might have,
// for want of room.
type heldBack struct {
	room   []int64 // what there was when they were looked at
	agents bitset
	count  int
}

// maxHeldBack bounds a role's lists. More are joined, as if all had been looked
// at with the least room: some are then looked at once more than they need be.
const maxHeldBack = 8

// holdBack notes that an agent has to be looked at again for a role when the
// role has more room than now.
func (e *Engine) holdBack(a *agent, r *role) {
	room := e.roomOf(r).amounts
	i := slices.IndexFunc(r.held, func(h heldBack) bool { return slices.Equal(h.room, room) })
	if i < 0 {
		if len(r.held) == 0 {
			e.heldRoles = append(e.heldRoles, r)
		}
		i = len(r.held)
		r.held = append(r.held, heldBack{room: slices.Clone(room)})
		if len(r.held) > maxHeldBack {
			r.held[1].join(&r.held[0])
			r.held = slices.Delete(r.held, 0, 1)
			i--
		}
	}
	if h := &r.held[i]; !h.agents.has(a.number) {
		h.agents.add(a.number)
		h.count++
	}
}

func (h *heldBack) join(o *heldBack) {
	for q := range o.room {
		if q < len(h.room) {
			h.room[q] = min(h.room[q], o.room[q])
		}
	}
	h.room = h.room[:min(len(h.room), len(o.room))]
	o.agents.each(func(number uint32) { h.agents.add(number) })
	h.count = 0
	h.agents.each(func(uint32) { h.count++ })
}

// more reports whether there is room for anything, and more of something than
// when these agents were looked at.
func (e *Engine) more(r *role, h *heldBack) bool {
	now := e.roomOf(r)
	if now.closed && !e.specials {
		return false
	}
	for q, amount := range now.amounts {
		if amount > at(h.room, uint32(q)) {
			return true
		}
	}
	return false
}

// lookAgain looks at agents that were held back from roles that have more room
// now, one after the other, for as long as they have. So what it costs is
// proportional to the offers that it makes, and to the agents that get into the
// lists.
func (e *Engine) lookAgain(now time.Duration, report *Report) {
	for _, r := range slices.Clone(e.heldRoles) {
		lists := r.held
		r.held = nil
		for i := range lists {
			e.lookAtList(now, r, &lists[i], report)
		}
		if lists = slices.DeleteFunc(lists, func(h heldBack) bool { return h.count == 0 }); len(lists) == 0 {
			continue
		}
		for _, h := range r.held {
			lists = append(lists, h)
			if len(lists) > maxHeldBack {
				lists[1].join(&lists[0])
				lists = slices.Delete(lists, 0, 1)
			}
		}
		r.held = lists
	}
	slices.SortFunc(e.heldRoles, func(a, b *role) int { return strings.Compare(a.name, b.name) })
	e.heldRoles = slices.Compact(e.heldRoles)
	e.heldRoles = slices.DeleteFunc(e.heldRoles, func(r *role) bool { return len(r.held) == 0 })
}

func (e *Engine) lookAtList(now time.Duration, r *role, h *heldBack, report *Report) {
	from := e.random.Uint32()
	for h.count > 0 && e.more(r, h) {
		if !e.budget.any(now) {
			e.moreRoom = true
			return
		}
		number := h.agents.after(from)
		h.agents.remove(number)
		h.count--
		from = number
		if a := e.agents[number]; a != nil && e.idle.has(number) {
			report.Agents++
			report.Offers += e.serve(now, a)
		}
	}
}

// gaveBack notes that a client gave something back: what was held back because
// of quota may go now.
func (e *Engine) gaveBack(c *client) {
	e.moreRoom = e.moreRoom || e.guaranteed
	for r := c.role; r != nil && !e.moreRoom; r = r.parent {
		e.moreRoom = len(r.quota.limit) > 0
	}
}

// limit returns what of v a role has room for, and whether that is less than v.
func (e *Engine) limit(r *role, v vector) (vector, bool) {
	cut := false
	for q, room := range e.roomOf(r).amounts {
		if room < unlimited && e.countable(v, uint32(q)) > room {
			v, cut = e.shrink(v, uint32(q), room), true
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
