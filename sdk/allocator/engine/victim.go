package engine

import (
	"cmp"
	"slices"
	"strings"
	"time"
)

// planAll chooses tasks to revoke for clients that have been starved for long,
// in the order of service.
func (e *Engine) planAll(now time.Duration, hungry []*client) {
	p := e.preempt
	p.now, p.sparing, p.revoking = now, false, map[uint64]bool{}
	for i := range p.underWay {
		p.revoking[p.underWay[i].task] = true
	}
	e.findVictims()
	left := planned
	p.visits = visited
	for _, c := range hungry {
		if p.visits == 0 {
			break
		}
		found := false
		for left > 0 && e.budget.any(now) && e.starved(c) {
			if e.outranks(c) && e.allowance(c) < 1 {
				break
			}
			victims := e.plan(now, c, left)
			if len(victims) == 0 {
				break
			}
			found = true
			left -= len(victims)
			e.revoke(now, victims, c)
			if c.hunger.vain > 0 {
				break // one try: what it got before it declined
			}
			e.findRichestAgain()
		}
		if h := &c.hunger; found {
			h.awaiting, h.from = true, 0
		} else if h.from == 0 && left > 0 && !e.isServed(c) && !p.sparing {
			h.vain, h.since = min(h.vain+1, maxVain), now
		}
	}
	if p.visits == 0 {
		p.next = min(p.next, now+unfinished)
	}
	p.agents, p.revoking = nil, nil
}

// spares reports whether something is left alone in this look.
func (e *Engine) spares(b *backOff) bool {
	spared := e.preempt.now < b.until
	e.preempt.sparing = e.preempt.sparing || spared
	return spared
}

// allowance is how many tasks more may be revoked for a client that outranks
// their owners. It could have them all, whether it has a use for them or not; so
// it gets one, or as many as it needs to be served at all, and then a quarter as
// many as it has started tasks since.
func (e *Engine) allowance(c *client) int {
	most := 1 + c.hunger.launched/4
	for i := range e.preempt.underWay {
		if e.preempt.underWay[i].keep.to == c {
			most--
		}
	}
	return most
}

// isServedBeside reports whether something is under way for a client of the same
// top-level role.
func (e *Engine) isServedBeside(c *client) bool {
	top := func(c *client) string {
		name, _, _ := strings.Cut(c.role.name, "/")
		return name
	}
	return slices.ContainsFunc(e.preempt.underWay, func(r revocation) bool { return r.keep.to != nil && top(r.keep.to) == top(c) })
}

// isServed reports whether something is under way for a client.
func (e *Engine) isServed(c *client) bool {
	return slices.ContainsFunc(e.preempt.underWay, func(r revocation) bool { return r.keep.to == c })
}

// findRichestAgain is findRichest after something was planned.
func (e *Engine) findRichestAgain() {
	e.preempt.check++
	e.findRichest()
}

// findVictims lists the agents with tasks that may end, that with the first
// victim first, and puts each agent's tasks in that order: those of later
// classes before others, then the youngest.
func (e *Engine) findVictims() {
	p := e.preempt
	may := map[loss]bool{}
	for _, c := range e.clients {
		if c != nil && c.tasks > 0 {
			c.classes = c.classes[:0]
			for n := &c.node; n.parent != nil; n = n.parent {
				c.classes = append(c.classes, n.look.rank.Class)
			}
			slices.Reverse(c.classes)
		}
	}
	for _, a := range e.agents {
		if a == nil || !a.active || len(a.tasks) == 0 || e.spares(&a.spared) {
			continue
		}
		slices.SortFunc(a.tasks, victimOrder)
		if slices.ContainsFunc(a.tasks, func(t task) bool { return e.mayEnd(t, may) }) {
			p.agents = append(p.agents, a)
		}
	}
	slices.SortFunc(p.agents, func(a, b *agent) int {
		return cmp.Or(victimOrder(a.tasks[0], b.tasks[0]), cmp.Compare(a.number, b.number))
	})
}

// loss is what a task is as far as guarantees go.
type loss struct {
	client *client
	size   *size
}

// mayEnd reports whether the guarantees of a task's roles would be kept without
// it. What is planned in a look only takes more of their surplus away. may
// remembers it.
func (e *Engine) mayEnd(t task, may map[loss]bool) bool {
	key := loss{t.client, t.size}
	allowed, known := may[key]
	if !known {
		e.account(t.client, t.size.amount, -1)
		allowed = e.keepsGuarantees(t)
		e.account(t.client, t.size.amount, 1)
		may[key] = allowed
	}
	return allowed
}

func victimOrder(a, b task) int {
	return cmp.Or(laterClass(a.client.classes, b.client.classes), cmp.Compare(b.started, a.started), cmp.Compare(b.number, a.number))
}

// laterClass compares the ways from the root to two clients; a class that one of
// them lacks is 0.
func laterClass(a, b []int64) int {
	for i := range max(len(a), len(b)) {
		if c := cmp.Compare(at(b, uint32(i)), at(a, uint32(i))); c != 0 {
			return c
		}
	}
	return 0
}

// plan returns the fewest tasks of one agent, the youngest if there are several
// such choices, whose end would let the client be served there; at most most.
func (e *Engine) plan(now time.Duration, c *client, most int) []task {
	var best []task
	tries := further
	p, from := e.preempt, c.hunger.from
	c.hunger.from = 0
	for i, a := range p.agents {
		if i < from || now < a.left {
			continue
		}
		if p.visits == 0 {
			if len(best) == 0 {
				c.hunger.from = i
			}
			break
		}
		p.visits--
		if found := e.planOn(now, c, a, most); len(found) > 0 {
			best, most = found, len(found)-1
		}
		if len(best) > 0 {
			if tries--; tries < 0 || most == 0 {
				break
			}
		}
	}
	return best
}

// planOn is plan for one agent.
func (e *Engine) planOn(now time.Duration, c *client, a *agent, most int) []task {
	switch _, verdict := e.consider(now, a, c, e.freeFor(now, a, c)); verdict.reason {
	case reasonNone, reasonGPUs, reasonRegion, reasonConstraints:
		return nil // it is offered without, or would not be offered it at all
	}
	// One that is enough.
	for _, t := range a.tasks {
		if e.take(c, t) {
			served := e.wouldServe(now, c, a, []task{t})
			e.giveBack(c, t)
			if served {
				return []task{t}
			}
		}
	}
	if most < 2 {
		return nil
	}
	// The youngest together, less those that are not needed.
	var chosen []task
	served := false
	for _, t := range a.tasks {
		if e.take(c, t) {
			chosen = append(chosen, t)
			if served = e.wouldServe(now, c, a, chosen); served {
				break
			}
		}
	}
	for i := len(chosen) - 2; served && i >= 0; i-- {
		without := slices.Delete(slices.Clone(chosen), i, i+1)
		e.giveBack(c, chosen[i])
		if e.wouldServe(now, c, a, without) {
			chosen = without
		} else {
			e.pass(chosen[i].client, c, chosen[i].size.amount, 1)
		}
	}
	for _, t := range chosen {
		e.giveBack(c, t)
	}
	if !served || len(chosen) > most {
		return nil
	}
	return chosen
}

// take counts a task as the client's if it may be taken for it, and reports
// whether that is so: its role keeps its guarantees, and either the client's
// role lacks some of its own, or it is still served no later than the victim.
func (e *Engine) take(c *client, t task) bool {
	if t.client == c || e.clients[t.client.index] != t.client || e.preempt.revoking[t.number] || t.size.amount.empty() ||
		e.spares(&t.client.role.spared) {
		return false
	}
	e.account(t.client, t.size.amount, -1)
	allowed := e.keepsGuarantees(t)
	helps := allowed && e.helpsGuarantee(c, t)
	e.account(c, t.size.amount, 1)
	if allowed && !helps {
		poor, rich := siblings(&c.node, &t.client.node)
		allowed = !e.rankOf(rich).before(e.rankOf(poor))
	}
	if !allowed {
		e.giveBack(c, t)
	}
	return allowed
}

func (e *Engine) giveBack(c *client, t task) { e.pass(t.client, c, t.size.amount, -1) }

// keepsGuarantees reports whether the task's role and those above it have their
// guarantees, of what the task had, now that it is counted out.
func (e *Engine) keepsGuarantees(t task) bool {
	for r := t.client.role; r != nil; r = r.parent {
		for _, g := range r.quota.guarantee {
			if e.countable(t.size.amount, g.quantity) > 0 && r.quota.consumed(g.quantity) < g.thousandths {
				return false
			}
		}
	}
	return true
}

// helpsGuarantee reports whether the task has something of what a guarantee of
// the client's role, or one above it, lacks. A task below such a role is out of
// the question already: see keepsGuarantees.
func (e *Engine) helpsGuarantee(c *client, t task) bool {
	for r := c.role; r != nil; r = r.parent {
		for _, g := range r.quota.guarantee {
			if e.countable(t.size.amount, g.quantity) > 0 && r.quota.consumed(g.quantity) < g.thousandths {
				return true
			}
		}
	}
	return false
}

// siblings returns the nodes above a and b, or a and b themselves, that have
// the same parent.
func siblings(a, b *node) (*node, *node) {
	above := map[*node]*node{} // a's, by their parent
	for ; a.parent != nil; a = a.parent {
		above[a.parent] = a
	}
	for above[b.parent] == nil {
		b = b.parent
	}
	return above[b.parent], b
}

// wouldServe reports whether the client would be offered what is free on the
// agent without the tasks, and would likely use it. The tasks are counted as
// the client's already.
func (e *Engine) wouldServe(now time.Duration, c *client, a *agent, tasks []task) bool {
	free := e.freeFor(now, a, c)
	for _, t := range tasks {
		free = e.kinds.add(free, t.size.amount)
		e.account(c, t.size.amount, -1)
	}
	v, verdict := e.consider(now, a, c, free)
	for _, t := range tasks {
		e.account(c, t.size.amount, 1)
	}
	return verdict.reason == reasonNone && !e.declined(now, c, v) && c.framework.requestedOn(e, a, v)
}

// declined reports whether the client declined as much as v lately.
func (e *Engine) declined(now time.Duration, c *client, v vector) bool {
	if h := &c.hunger; now < h.forget && len(h.declined) > 0 {
		for q, most := range h.declined {
			if e.total(v, uint32(q)) > most {
				return false
			}
		}
		for q := len(h.declined); q < len(e.cluster.Names); q++ {
			if e.total(v, uint32(q)) > 0 {
				return false
			}
		}
		return true
	}
	return false
}
