package engine

import (
	"slices"
	"sort"
	"strings"
	"time"
)

// node is a candidate's place in the tree.
type node struct {
	Candidate
	parent *node
	// children are those below which somebody wants offers, in the order of
	// service by their stored keys.
	children []*node
	wanting  int // clients at or below the node that want offers
	rank     Rank
	served   uint64 // offers made in this session
	tie      int64
	client   *client // of a leaf
	role     *role   // of a role's group of frameworks
	stale    bool    // the rank is to be computed again
	unsorted bool    // children are not in order, for a moment
	look     look
}

// before is the order of service among siblings.
func (n *node) before(o *node) bool {
	switch {
	case n.rank.Class != o.rank.Class:
		return n.rank.Class < o.rank.Class
	case n.rank.Share != o.rank.Share:
		return n.rank.Share < o.rank.Share
	case n.served != o.served:
		return n.served < o.served
	case n.tie != o.tie:
		return n.tie < o.tie
	}
	return n.Role < o.Role
}

// role is a role that events have named, or that stands above such a role or
// has a reservation.
type role struct {
	name   string
	parent *role
	node   *node
	group  *node // its own frameworks
	quota  quota
	room   headroom
	held   []heldBack
	// starved is for how long it had been when the session began.
	starved time.Duration
	spared  backOff // none of its tasks is revoked
}

// below reports whether r is o or stands below it.
func (r *role) below(o *role) bool {
	for ; r != nil; r = r.parent {
		if r == o {
			return true
		}
	}
	return false
}

// role returns the role of this path; it and the roles above it are made when
// they are new.
func (e *Engine) role(path string) *role {
	if r := e.roleByName[path]; r != nil {
		return r
	}
	r := &role{name: path}
	above := e.root
	if cut := strings.LastIndexByte(path, '/'); cut > 0 {
		r.parent = e.role(path[:cut])
		above = r.parent.node
	}
	r.node = &node{Candidate: Candidate{Role: path, Weight: 1}, parent: above}
	// The group comes before roles of the same rank.
	r.group = &node{Candidate: Candidate{Role: path, Group: true, Weight: 1}, parent: r.node, tie: -1, role: r}
	e.roleByName[path] = r
	return r
}

// touch notes that a node's rank has to be computed again.
func (e *Engine) touch(n *node) {
	if !n.stale {
		n.stale = true
		e.stale = append(e.stale, n)
	}
}

// settle brings the order up to date with what was touched.
func (e *Engine) settle() {
	if e.totalChanged {
		e.totalChanged = false
		e.rerank(e.root)
		for _, n := range e.stale { // those that are in nobody's order
			n.stale = false
			n.rank = e.policy.Rank(&n.Candidate, &e.cluster)
		}
		e.stale = e.stale[:0]
		return
	}
	if len(e.stale) <= 16 {
		for _, n := range e.stale {
			e.move(n)
		}
		e.stale = e.stale[:0]
		return
	}
	var parents []*node
	for _, n := range e.stale {
		n.stale = false
		n.rank = e.policy.Rank(&n.Candidate, &e.cluster)
		if n.parent != nil && !n.parent.unsorted {
			n.parent.unsorted = true
			parents = append(parents, n.parent)
		}
	}
	e.stale = e.stale[:0]
	for _, parent := range parents {
		parent.unsorted = false
		sortChildren(parent)
	}
}

func (e *Engine) rerank(n *node) {
	for _, child := range n.children {
		child.stale = false
		child.rank = e.policy.Rank(&child.Candidate, &e.cluster)
		e.rerank(child)
	}
	sortChildren(n)
}

func sortChildren(n *node) {
	slices.SortFunc(n.children, func(a, b *node) int {
		if a.before(b) {
			return -1
		}
		return 1
	})
}

// place is where n stands, or would stand, among children.
func place(children []*node, n *node) int {
	return sort.Search(len(children), func(i int) bool { return !children[i].before(n) })
}

// move computes n's rank again and puts it where it belongs among its siblings.
func (e *Engine) move(n *node) { e.moveServed(n, n.served) }

func (e *Engine) moveServed(n *node, served uint64) {
	n.stale = false
	rank := e.policy.Rank(&n.Candidate, &e.cluster)
	if n.wanting == 0 || n.parent == nil {
		n.rank, n.served = rank, served
		return
	}
	list := n.parent.children
	from := place(list, n)
	n.rank, n.served = rank, served
	if from+1 < len(list) && list[from+1].before(n) {
		to := from + 1 + place(list[from+1:], n)
		copy(list[from:], list[from+1:to])
		list[to-1] = n
	} else if from > 0 && n.before(list[from-1]) {
		to := place(list[:from], n)
		copy(list[to+1:from+1], list[to:from])
		list[to] = n
	}
}

// want adds a leaf to the order of service, or takes it out.
func (e *Engine) want(leaf *node, on bool) {
	for n := leaf; n.parent != nil; n = n.parent {
		if on {
			if n.wanting++; n.wanting == 1 {
				n.rank = e.policy.Rank(&n.Candidate, &e.cluster)
				n.parent.children = slices.Insert(n.parent.children, place(n.parent.children, n), n)
			}
		} else {
			if n.wanting--; n.wanting == 0 {
				at := place(n.parent.children, n)
				n.parent.children = slices.Delete(n.parent.children, at, at+1)
			}
		}
	}
}

// walk goes through the clients that want offers, in the order of service,
// until f returns true.
func (n *node) walk(f func(*client) bool) bool {
	for _, child := range n.children {
		if child.client != nil {
			if f(child.client) {
				return true
			}
		} else if child.walk(f) {
			return true
		}
	}
	return false
}

// account adds what v holds, times sign, to a client and all above it.
func (e *Engine) account(c *client, v vector, sign int64) {
	at := 0
	for _, k := range v.kinds {
		kind := &e.kinds[k]
		if kind.quantity != noQuantity {
			amount := sign * v.amounts[at]
			for n := &c.node; n != nil; n = n.parent {
				n.Held = grown(n.Held, int(kind.quantity))
				n.Held[kind.quantity] += amount
			}
			if kind.flags&(kindRevocable|kindReserved) == 0 {
				e.used = grown(e.used, int(kind.quantity))
				e.used[kind.quantity] += amount
				e.books++
				for r := c.role; r != nil; r = r.parent {
					r.quota.used = grown(r.quota.used, int(kind.quantity))
					r.quota.used[kind.quantity] += amount
				}
			}
		}
		at += e.kinds.width(k, v.amounts[at:])
	}
}

// touchAll touches a client and all above it.
func (e *Engine) touchAll(c *client) {
	for n := &c.node; n.parent != nil; n = n.parent {
		e.touch(n)
	}
}

// grown returns list with an element at index i.
func grown(list []int64, i int) []int64 {
	for len(list) <= i {
		list = append(list, 0)
	}
	return list
}
