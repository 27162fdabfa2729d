package engine

import (
	"slices"
	"time"

	allocatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/allocator/v1"
)

// agent is the mirror of one agent.
type agent struct {
	number     uint32
	active     bool
	dirty      bool
	gpus       bool // it has some
	special    bool // it has what not everybody may have
	over       bool // more is held than there is: free has to be computed anew
	id         string
	hostname   string
	region     string
	zone       string
	attributes []*allocatorv1.Attribute

	total vector
	free  vector // total less what is held; all of shared kinds
	held  []holding

	// tried are the clients that were passed over for what is in seen, or for
	// less, with nothing changed since that would give another answer.
	tried bitset
	seen  vector
	wakes uint64 // the engine's when the agent was idle last

	filters  []filter // by client
	softs    int      // filters with a time of min_refuse
	refusals int      // in a row
	left     time.Duration

	maintenance *maintenance // nil: none is planned
	tasks       []task       // what could be revoked, in no order
	keeps       []*keep
	spared      backOff // none of its tasks is revoked
}

// holding is what a client holds on an agent.
type holding struct {
	client *client
	amount vector
}

// agentUpdated is told of an agent, new or changed; its holdings, if they are
// told, are those after the decision seen.
func (e *Engine) agentUpdated(u *allocatorv1.AgentUpdated, seen uint64) error {
	total, err := e.kinds.parse(u.GetTotal())
	if err != nil {
		return err
	}
	a := e.agent(u.GetNumber())
	look := u.GetHoldingsSet()
	if a == nil {
		if e.agents, err = room(e.agents, u.GetNumber(), "agent"); err != nil {
			return err
		}
		a = &agent{number: u.GetNumber(), id: u.GetId()}
		e.agents[a.number] = a
	} else if !slices.EqualFunc(a.attributes, u.GetAttributes(), equalAttributes) {
		e.dropFilters(a)
		look = true
	}
	a.attributes, a.hostname, a.region, a.zone = u.GetAttributes(), u.GetHostname(), u.GetRegion(), u.GetZone()
	look = look || u.GetActive() && !a.active
	a.active = u.GetActive()
	e.setUnavailability(a, u.GetUnavailability())
	a.tried, a.seen = nil, vector{} // activity, attributes or total changed
	look = e.setTotal(a, total) || look
	if u.GetHoldingsSet() {
		if err := e.setHoldings(a, u.GetHoldings()); err != nil {
			return err
		}
		e.holdInflight(a, seen)
	}
	if look {
		e.freed(a)
	}
	e.markIdle(a)
	return nil
}

func equalAttributes(a, b *allocatorv1.Attribute) bool {
	return a.GetName() == b.GetName() && a.GetText() == b.GetText() &&
		(a.ScalarThousandths == nil) == (b.ScalarThousandths == nil) && a.GetScalarThousandths() == b.GetScalarThousandths() &&
		slices.Equal(a.GetRanges(), b.GetRanges())
}

// setTotal replaces what the agent has; it reports whether there was a change.
func (e *Engine) setTotal(a *agent, total vector) bool {
	if a.total.equal(total) {
		return false
	}
	e.count(a.total, -1)
	e.count(total, 1)
	a.total = total
	e.books++
	e.moreRoom = true
	a.gpus, a.special = false, false
	e.kinds.each(total, func(k uint32, _ []int64) {
		a.gpus = a.gpus || e.kinds[k].flags&kindGPU != 0
		a.special = a.special || e.kinds[k].flags&kindSpecial != 0
	})
	e.recompute(a)
	return true
}

// count adds v, times sign, to the cluster's total.
func (e *Engine) count(v vector, sign int64) {
	e.kinds.each(v, func(k uint32, amounts []int64) {
		if q := e.kinds[k].quantity; q != noQuantity {
			e.cluster.Total[q] += sign * amounts[0]
			e.totalChanged = true
			if e.kinds[k].flags&(kindReserved|kindRevocable) == 0 {
				e.unreserved = grown(e.unreserved, int(q))
				e.unreserved[q] += sign * amounts[0]
			}
		}
		if r := e.kinds[k].role; r != nil {
			for ; r != nil; r = r.parent {
				r.quota.reserve(e.kinds[k], amounts[0], sign)
			}
		}
	})
}

// recompute works out what is free from what there is and what is held.
func (e *Engine) recompute(a *agent) {
	a.free, a.over = a.total, false
	for i := range a.held {
		left, fits := e.kinds.sub(a.free, e.exclusive(a.held[i].amount))
		a.free = left
		a.over = a.over || !fits
	}
}

// exclusive is the part of v that only one may hold at a time.
func (e *Engine) exclusive(v vector) vector {
	if !e.shared {
		return v
	}
	return e.kinds.filter(v, func(k uint32, amounts []int64) []int64 {
		if e.kinds[k].flags&kindShared != 0 {
			return nil
		}
		return amounts
	})
}

// setHoldings replaces all that is held on an agent.
func (e *Engine) setHoldings(a *agent, list []*allocatorv1.Holding) error {
	for _, h := range a.held {
		e.account(h.client, h.amount, -1)
		h.client.holdings--
		e.touchAll(h.client)
		e.leaving = append(e.leaving, h.client)
	}
	a.held = a.held[:0]
	for _, h := range list {
		v, err := e.kinds.parse(h.GetQuantities())
		if err != nil {
			return err
		}
		if c := e.client(h.GetFramework(), h.GetRole()); c != nil && !v.empty() {
			e.addHolding(a, c, v)
			e.touchAll(c)
		}
	}
	e.recompute(a)
	return nil
}

// holdInflight adds what was decided on an agent after the decision seen. The
// core has not handled that yet, and tells its end as of all that is held.
func (e *Engine) holdInflight(a *agent, seen uint64) {
	for i := len(e.inflight) - 1; i >= 0 && e.inflight[i].number > seen; i-- {
		f := &e.inflight[i]
		if f.agent != a {
			continue
		}
		if c := e.client(f.client.framework.number, f.client.number); c != nil {
			e.hold(a, c, f.offer)
			e.touchAll(c)
		}
	}
}

// addHolding records a holding; free and the order of service are the
// caller's.
func (e *Engine) addHolding(a *agent, c *client, v vector) {
	e.account(c, v, 1)
	for i := range a.held {
		if a.held[i].client == c {
			a.held[i].amount = e.kinds.add(a.held[i].amount, v)
			return
		}
	}
	a.held = append(a.held, holding{c, v})
	c.holdings++
	e.ask(a)
}

// hold takes v from what is free for a client. The order of service is the
// caller's.
func (e *Engine) hold(a *agent, c *client, v vector) {
	e.addHolding(a, c, v)
	left, fits := e.kinds.sub(a.free, e.exclusive(v))
	a.free = left
	a.over = a.over || !fits
	e.markIdle(a)
}

// release gives back what a client held, and returns what that was: no more
// than it held.
func (e *Engine) release(a *agent, c *client, v vector) vector {
	at := slices.IndexFunc(a.held, func(h holding) bool { return h.client == c })
	if at < 0 {
		return vector{}
	}
	had := a.held[at].amount
	left, exact := e.kinds.sub(had, v)
	if !exact {
		v, _ = e.kinds.sub(had, left)
	}
	e.account(c, v, -1)
	e.touchAll(c)
	if left.empty() {
		a.held = slices.Delete(a.held, at, at+1)
		if c.holdings--; c.holdings == 0 {
			e.leaving = append(e.leaving, c)
		}
	} else {
		a.held[at].amount = left
	}
	if a.over {
		e.recompute(a)
	} else {
		a.free = e.kinds.add(a.free, e.exclusive(v))
	}
	e.gaveBack(c)
	return v
}

// freed is called when more became free on an agent. What was found out about
// clients stays true if it was found out about as much or more.
func (e *Engine) freed(a *agent) {
	if len(a.tried) > 0 && !e.kinds.contains(a.seen, a.free) {
		clear(a.tried)
	}
	e.markIdle(a)
	e.soil(a)
}

// markIdle brings the set of idle agents up to date.
func (e *Engine) markIdle(a *agent) {
	if a.active && e.worth(a.free, e.smallest) {
		if a.wakes != e.wakes { // clients were woken while it was not idle
			clear(a.tried)
			a.wakes = e.wakes
		}
		e.idle.add(a.number)
	} else {
		e.idle.remove(a.number)
	}
}

// soil makes an agent dirty if there is anything to look at.
func (e *Engine) soil(a *agent) {
	if a.dirty || !e.idle.has(a.number) {
		return
	}
	a.dirty = true
	e.dirty = append(e.dirty, a)
}

// worth reports whether v has as much as one of the sets.
func (e *Engine) worth(v vector, sets [][]amount) bool {
	for _, set := range sets {
		enough := len(set) > 0
		for _, want := range set {
			if e.total(v, want.quantity) < want.thousandths {
				enough = false
				break
			}
		}
		if enough {
			return true
		}
	}
	return false
}

// total is how much v has of a scalar, of all kinds.
func (e *Engine) total(v vector, quantity uint32) int64 {
	var sum int64
	at := 0
	for _, k := range v.kinds {
		if e.kinds[k].quantity == quantity {
			sum += v.amounts[at]
		}
		at += e.kinds.width(k, v.amounts[at:])
	}
	return sum
}

// removeAgent forgets an agent and what is held on it.
func (e *Engine) removeAgent(a *agent) {
	e.dropTasks(a, nil)
	_ = e.setHoldings(a, nil) // no list, no error
	e.setTotal(a, vector{})
	e.dropFilters(a)
	e.setUnavailability(a, nil)
	a.active = false
	e.idle.remove(a.number)
	e.agents[a.number] = nil
}

func (e *Engine) agent(number uint32) *agent {
	if int(number) >= len(e.agents) {
		return nil
	}
	return e.agents[number]
}
