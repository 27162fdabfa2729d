package engine

import (
	"errors"
	"fmt"
	"slices"

	allocatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/allocator/v1"
)

// Agents returns what the engine believes of each agent, holdings and all, in
// the numbers of its stream and in their order: for tests and simulators, which
// compare it with the core's books. What it returns must not be changed.
func (e *Engine) Agents() []*allocatorv1.AgentUpdated {
	var out []*allocatorv1.AgentUpdated
	for _, a := range e.agents {
		if a == nil {
			continue
		}
		u := &allocatorv1.AgentUpdated{
			Number: a.number, Id: a.id, Region: a.region, Active: a.active, Attributes: a.attributes,
			Total: a.total.message(), HoldingsSet: true,
		}
		for _, h := range a.held {
			u.Holdings = append(u.Holdings, &allocatorv1.Holding{
				Framework: h.client.framework.number, Role: h.client.number, Quantities: h.amount.message(),
			})
		}
		out = append(out, u)
	}
	return out
}

func (v vector) message() *allocatorv1.Quantities {
	return &allocatorv1.Quantities{Kinds: v.kinds, Amounts: v.amounts}
}

// Settled reports whether the core has told the outcome of every decision.
func (e *Engine) Settled() bool { return len(e.inflight) == 0 }

// Audit proves that what the engine keeps to be fast agrees with what it keeps
// to be right, and returns all that does not. It looks at everything: for tests
// and simulators.
func (e *Engine) Audit() error {
	var errs []error
	wrong := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	total := make([]int64, len(e.cluster.Total))
	held := map[*client][]int64{}
	count := map[*client]int{}
	filters := 0
	for number, a := range e.agents {
		if a == nil {
			continue
		}
		if int(a.number) != number {
			wrong("agent %s has number %d and stands at %d", a.id, a.number, number)
		}
		free, over := a.total, false
		e.sum(total, a.total)
		for _, h := range a.held {
			left, fits := e.kinds.sub(free, e.exclusive(h.amount))
			free, over = left, over || !fits
			held[h.client] = grown(held[h.client], len(total)-1)
			e.sum(held[h.client], h.amount)
			count[h.client]++
		}
		if over != a.over || !free.equal(a.free) {
			wrong("agent %s: free is %v (over %v), worked out anew it is %v (over %v)", a.id, a.free, a.over, free, over)
		}
		filters += len(a.filters)
	}
	if !slices.Equal(total, e.cluster.Total) {
		wrong("the cluster's total is %v, the agents' together %v", e.cluster.Total, total)
	}
	if filters != e.filters {
		wrong("%d filters are on agents, counted are %d", filters, e.filters)
	}
	for _, c := range e.clients {
		if c == nil {
			continue
		}
		if c.holdings != count[c] {
			wrong("framework %s in role %s holds something on %d agents, counted are %d", c.framework.id, c.role.name, count[c], c.holdings)
		}
		if !equalAmounts(held[c], c.Held) {
			wrong("framework %s in role %s holds %v, counted is %v", c.framework.id, c.role.name, held[c], c.Held)
		}
		delete(held, c)
	}
	for c := range held {
		wrong("framework %s in role %s holds something and is not known", c.framework.id, c.role.name)
	}
	return errors.Join(errs...)
}

// sum adds the scalars of v to list, by name.
func (e *Engine) sum(list []int64, v vector) {
	e.kinds.each(v, func(k uint32, amounts []int64) {
		if q := e.kinds[k].quantity; q != noQuantity {
			list[q] += amounts[0]
		}
	})
}

// equalAmounts compares lists of which the rest is zero.
func equalAmounts(a, b []int64) bool {
	for i := range max(len(a), len(b)) {
		if at(a, uint32(i)) != at(b, uint32(i)) {
			return false
		}
	}
	return true
}
