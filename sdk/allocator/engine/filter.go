package engine

import (
	"slices"
	"time"
)

// filter says that a client does not want amount, or a part of it, on an agent.
type filter struct {
	client uint32 // by index
	amount *vector
	// hard is until when, as the framework asked for; soft until when because
	// of min_refuse: then it yields once nobody else wants it.
	hard, soft time.Duration
	// at is when its timer comes.
	at time.Duration
}

// next is when the filter's effect changes next.
func (f *filter) next(now, minRefuse time.Duration) time.Duration {
	if now < f.hard {
		return f.hard
	}
	if yields := f.yields(minRefuse); now < yields && yields < f.soft {
		return yields
	}
	return f.soft
}

// yields is when the soft part gives way if nobody else wants the offer.
func (f *filter) yields(minRefuse time.Duration) time.Duration {
	return f.soft - minRefuse + min(softYield, minRefuse)
}

func (e *Engine) minRefuse() time.Duration {
	return time.Duration(e.begin.GetMinRefuseMs()) * time.Millisecond
}

func (a *agent) firstFilter(client uint32) int {
	at, _ := slices.BinarySearchFunc(a.filters, client, func(f filter, c uint32) int {
		if f.client < c {
			return -1
		}
		if f.client > c {
			return 1
		}
		return 0
	})
	return at
}

func (a *agent) hasTimer(client uint32, at time.Duration) bool {
	for i := a.firstFilter(client); i < len(a.filters) && a.filters[i].client == client; i++ {
		if a.filters[i].at == at {
			return true
		}
	}
	return false
}

// maxFilters bounds the filters of one client on one agent; the one that ends
// first gives way.
const maxFilters = 16

// addFilter installs a filter; what it makes superfluous goes.
func (e *Engine) addFilter(now time.Duration, a *agent, c *client, v vector, hard, soft time.Duration) {
	if v.empty() || max(hard, soft) <= now {
		return
	}
	f := filter{client: c.index, amount: a.share(v), hard: hard, soft: soft}
	f.at = f.next(now, e.minRefuse())
	at := a.firstFilter(c.index)
	end := at
	for end < len(a.filters) && a.filters[end].client == c.index {
		old := &a.filters[end]
		if old.hard <= hard && old.soft <= soft && e.kinds.contains(v, *old.amount) {
			e.deleteFilter(a, end)
			continue
		}
		end++
	}
	if end-at >= maxFilters {
		first := at
		for i := at; i < end; i++ {
			if max(a.filters[i].hard, a.filters[i].soft) < max(a.filters[first].hard, a.filters[first].soft) {
				first = i
			}
		}
		e.deleteFilter(a, first)
	}
	a.filters = slices.Insert(a.filters, at, f)
	e.filters++
	c.filters++
	c.filteredOn.add(a.number)
	if soft > 0 {
		a.softs++
	}
	e.timers.add(timer{f.at, a.number, c.index})
}

// share returns a vector equal to v, the one of another filter of the agent
// where there is one: refused offers are mostly alike.
func (a *agent) share(v vector) *vector {
	for i := 0; i < len(a.filters) && i < 4; i++ {
		if a.filters[i].amount.equal(v) {
			return a.filters[i].amount
		}
	}
	return &v
}

func (e *Engine) deleteFilter(a *agent, at int) {
	f := &a.filters[at]
	if f.soft > 0 {
		a.softs--
	}
	e.filters--
	e.clients[f.client].filters--
	a.filters = slices.Delete(a.filters, at, at+1)
	if len(a.filters) == 0 {
		a.filters = nil
	}
}

// dropFilters removes every filter on an agent.
func (e *Engine) dropFilters(a *agent) {
	for len(a.filters) > 0 {
		e.deleteFilter(a, len(a.filters)-1)
	}
	a.tried = nil
}

// dropClientFilters removes every filter of a client.
func (e *Engine) dropClientFilters(c *client) {
	if c.filters == 0 {
		return
	}
	c.filteredOn.each(func(number uint32) {
		a := e.agents[number]
		if a == nil {
			return
		}
		at := a.firstFilter(c.index)
		for at < len(a.filters) && a.filters[at].client == c.index {
			e.deleteFilter(a, at)
		}
	})
	c.filteredOn = nil
}

// expire lets pass what is due of a client's filters on an agent.
func (e *Engine) expire(now time.Duration, a *agent, client uint32) {
	at := a.firstFilter(client)
	found := false
	for at < len(a.filters) && a.filters[at].client == client {
		f := &a.filters[at]
		if f.at > now {
			at++
			continue
		}
		found = true
		if max(f.hard, f.soft) <= now {
			e.deleteFilter(a, at)
			continue
		}
		f.at = f.next(now, e.minRefuse())
		e.timers.add(timer{f.at, a.number, client})
		at++
	}
	if found {
		a.tried.remove(client)
		e.soil(a)
	}
}

// block is how a filter stands against an offer.
type block uint8

const (
	blockNone  block = iota
	blockSoft        // it gives way when nobody else wants the offer
	blockYoung       // only min_refuse, but softYield has not passed
	blockHard
)

// filtered tells whether a client's filters on an agent stand against v, and
// until when.
func (e *Engine) filtered(now time.Duration, a *agent, c *client, v vector) (block, time.Duration) {
	worst, until := blockNone, time.Duration(0)
	if c.filters == 0 {
		return worst, 0
	}
	for i := a.firstFilter(c.index); i < len(a.filters) && a.filters[i].client == c.index; i++ {
		f := &a.filters[i]
		this := blockNone
		switch {
		case now < f.hard:
			this = blockHard
		case now >= f.soft:
		case now < f.yields(e.minRefuse()):
			this = blockYoung
		default:
			this = blockSoft
		}
		if this != blockNone && this >= worst && e.kinds.contains(*f.amount, v) {
			worst, until = this, max(until, f.hard, f.soft)
		}
	}
	return worst, until
}
