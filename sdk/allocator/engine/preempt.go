package engine

import (
	"slices"
	"time"
)

// Preempt says when tasks may be ended for those who are starved. The core has
// bounds of its own.
//
// A client is *starved* when it wants offers and its role, or one above it,
// lacks some of its guarantee; or when somebody with tasks would still be
// served after it, by the policy's ranks, if one of those tasks were its own:
// under dominant resource fairness, when a task can pass from the richer to the
// poorer without turning them round. So an end is never followed by one the
// other way.
//
// Victims are taken from later classes of the policy first, then the youngest.
// Shares bound what a client can be given of its own class; of a later class it
// could be given everything, so that it is given a little more at a time than it
// has been seen to use.
type Preempt struct {
	// After is for how long a client must have been starved.
	After time.Duration
	// GracePeriod is what a task has between being asked to end and being
	// killed.
	GracePeriod time.Duration
}

// Preempt lets the engine revoke tasks. It is to be called before the first
// Apply, and needs a core that tells of tasks.
func (e *Engine) Preempt(p Preempt) {
	p.After = max(p.After, time.Millisecond)
	e.preempt = &preemption{Preempt: p, every: min(max(p.After/8, 10*time.Millisecond), 5*time.Second)}
	e.taskAgents = map[uint64]uint32{}
	e.sizes = map[string]*size{}
}

// preemption is what the engine keeps to revoke tasks.
type preemption struct {
	Preempt
	every    time.Duration
	next     time.Duration // when it is looked at who is starved
	checked  bool          // it was, in this session
	check    uint64        // counts the looks
	starved  int           // clients, as of the last
	refused  backOff       // when the core refused what concerns all
	underWay []revocation
	now      time.Duration   // of the last look that planned
	sparing  bool            // in it something was not revoked since the core refused
	revoking map[uint64]bool // the tasks of underWay, during a look
	agents   []*agent        // those with tasks that may end, youngest first, during a look
	visits   int             // agents that this look may still try
}

// hunger is how long a client has been starved, and what is known of what it
// would take.
type hunger struct {
	starved bool
	since   time.Duration
	// vain counts plans that found nothing, and revocations whose proceeds it
	// declined, in a row; each doubles the time to the next.
	vain     int
	awaiting bool // it has not answered to what was revoked for it
	// launched counts the tasks that it has started while it was starved.
	launched int
	// from is how many agents were tried by a plan that a look had no time to
	// finish; the next goes on there.
	from int
	// declined is the most that it declined of each quantity, until forget: it
	// needs more of something.
	declined []int64
	forget   time.Duration
}

const (
	// maxVain bounds the doubling.
	maxVain = 6
	// planned is how many tasks at most one look revokes.
	planned = 64
	// further is how many agents more are tried when there is a plan of more
	// than one task.
	further = 64
	// visited is how many agents one look tries at most, and unfinished the time
	// to the next when that was not enough: a look holds up everything else.
	visited    = 4096
	unfinished = 250 * time.Millisecond
)

// fed is called when a task of the client started: it does use what it gets.
func (h *hunger) fed() {
	h.vain, h.awaiting, h.declined = 0, false, nil
	h.launched++
}

// spoilt is called when the client declined what it was offered.
func (e *Engine) spoilt(now time.Duration, c *client, v vector) {
	h := &c.hunger
	if now >= h.forget {
		clear(h.declined)
	}
	e.kinds.each(v, func(k uint32, amounts []int64) {
		if q := e.kinds[k].quantity; q != noQuantity {
			h.declined = grown(h.declined, int(q))
			h.declined[q] = max(h.declined[q], e.total(v, q))
		}
	})
	defer func() { h.forget = now + e.preempt.After<<(h.vain+2) }() // beyond the next plan
	if h.awaiting {
		h.awaiting, h.vain, h.since, h.launched = false, min(h.vain+1, maxVain), now, 0
		p := e.preempt
		p.underWay = slices.DeleteFunc(p.underWay, func(r revocation) bool { return r.ended && r.keep.to == c })
	}
}

// lookDue is when it is to be looked who is starved; what waits for a cycle is
// offered first.
func (e *Engine) lookDue() (time.Duration, bool) {
	if e.preempt == nil || len(e.taskAgents) == 0 {
		return 0, false
	}
	if e.work() {
		return e.preempt.next + e.preempt.every, true
	}
	return max(e.preempt.next, e.budget.next()), true
}

// look sees who is starved, and plans revocations for who has been for long.
func (e *Engine) look(now time.Duration) {
	p := e.preempt
	p.next = now + p.every
	p.underWay = slices.DeleteFunc(p.underWay, func(r revocation) bool { return now >= r.until })
	e.settle()
	e.sharedGiven = false
	e.assume(1)
	p.check++
	e.findRichest()
	var hungry []*client
	p.starved = 0
	e.root.walk(func(c *client) bool {
		h := &c.hunger
		switch starved := e.starved(c); {
		case !starved:
			// What is under way for a neighbour counts as done, and may yet be in vain.
			if h.starved = false; !h.awaiting && !e.isServed(c) && !e.isServedBeside(c) {
				h.vain = 0
			}
		case !h.starved:
			h.starved, h.since, h.launched = true, now, 0
			if !p.checked {
				h.since -= c.role.starvedMs()
			}
		}
		if h.starved {
			p.starved++
		}
		if h.starved && now >= h.since+p.After<<h.vain {
			hungry = append(hungry, c)
		}
		return false
	})
	p.checked = true
	if len(hungry) > 0 && now >= p.refused.until {
		e.planAll(now, hungry)
	}
	e.assume(-1)
}

// starvedMs is for how long the role or one above it was starved when the
// session began.
func (r *role) starvedMs() (longest time.Duration) {
	for ; r != nil; r = r.parent {
		longest = max(longest, r.starved)
	}
	return longest
}

// look is what one look finds out about a node.
type look struct {
	check uint64 // the look at which rank and via were set
	rank  Rank
	via   *client // of those below the node with tasks, the one whose last is smallest
	size  float64 // of that task: the largest part of the cluster's total
	// rich are the children with tasks, those first that are served last; set
	// at checked.
	rich    []*node
	checked uint64
}

// assume takes what is under way for done, or takes that back.
func (e *Engine) assume(sign int64) {
	for i := range e.preempt.underWay {
		r := &e.preempt.underWay[i]
		if !r.ended {
			e.account(r.victim, r.size, -sign)
		}
		if r.keep.to != nil {
			e.account(r.keep.to, r.size, sign)
		}
	}
}

// findRichest puts siblings with tasks in the opposite of the order of service.
func (e *Engine) findRichest() {
	check := e.preempt.check
	var parents []*node
	for _, c := range e.clients {
		if c == nil || c.tasks == 0 {
			continue
		}
		size := e.part(c.size)
		for n := &c.node; n.parent != nil; n = n.parent {
			if l := &n.look; l.check == check {
				if size < l.size {
					l.via, l.size = c, size
				}
				continue
			}
			n.look.check, n.look.rank, n.look.via, n.look.size = check, e.rankOf(n), c, size
			above := &n.parent.look
			if above.checked != check {
				above.checked, above.rich = check, above.rich[:0]
				parents = append(parents, n.parent)
			}
			above.rich = append(above.rich, n)
		}
	}
	for _, parent := range parents {
		slices.SortStableFunc(parent.look.rich, func(a, b *node) int {
			if b.look.rank.before(a.look.rank) {
				return -1
			} else if a.look.rank.before(b.look.rank) {
				return 1
			}
			return 0
		})
	}
}

// outranks reports whether a client is starved because somebody with tasks is
// of a later class than it, or a role above it: then no share bounds what it may
// ask for.
func (e *Engine) outranks(c *client) bool {
	if c.role.lacks() {
		return false
	}
	for n := &c.node; n.parent != nil; n = n.parent {
		above := &n.parent.look
		if above.checked == e.preempt.check && above.rich[0].look.rank.Class > e.rankOf(n).Class {
			return true
		}
	}
	return false
}

// part is the largest share of the cluster's total that v is.
func (e *Engine) part(v vector) (largest float64) {
	e.kinds.each(v, func(k uint32, amounts []int64) {
		if q := e.kinds[k].quantity; q != noQuantity && e.cluster.Total[q] > 0 {
			largest = max(largest, float64(amounts[0])/float64(e.cluster.Total[q]))
		}
	})
	return largest
}

func (e *Engine) rankOf(n *node) Rank { return e.policy.Rank(&n.Candidate, &e.cluster) }

// before reports whether r is served before o.
func (r Rank) before(o Rank) bool {
	return r.Class < o.Class || r.Class == o.Class && r.Share < o.Share
}

// compared is with how many of its richer siblings a client is compared.
const compared = 16

// starved reports whether a client is starved.
func (e *Engine) starved(c *client) bool {
	if c.role.lacks() {
		return true
	}
	for n := &c.node; n.parent != nil; n = n.parent {
		if n.parent.look.checked != e.preempt.check {
			continue
		}
		rank := e.rankOf(n)
		for i, rich := range n.parent.look.rich {
			if i == compared || rich == n || !rank.before(rich.look.rank) {
				break
			}
			from := rich.look.via
			e.pass(from, c, from.size, 1)
			fair := !e.rankOf(rich).before(e.rankOf(n))
			e.pass(from, c, from.size, -1)
			if fair {
				return true
			}
		}
	}
	return false
}

// pass counts v as another's, or with sign -1 takes that back.
func (e *Engine) pass(from, to *client, v vector, sign int64) {
	e.account(from, v, -sign)
	e.account(to, v, sign)
}
