package engine

import (
	"container/heap"
	"math/bits"
	"time"
)

func trailingZeros(word uint64) int { return bits.TrailingZeros64(word) }

// timer is when something about an agent passes by itself: a filter of one
// client; for client noClient, the time for which the agent is left alone; for
// noClientAsk, the time for which a framework is not asked to leave it; for
// noClientKeep, the time for which something is kept for one client.
type timer struct {
	at            time.Duration
	agent, client uint32
}

const (
	noClient     = ^uint32(0)
	noClientAsk  = noClient - 1
	noClientKeep = noClient - 2
)

// timers is a heap. A timer whose cause has gone is left where it is, and finds
// nothing when it comes.
type timers []timer

func (t timers) Len() int           { return len(t) }
func (t timers) Less(i, j int) bool { return t[i].at < t[j].at }
func (t timers) Swap(i, j int)      { t[i], t[j] = t[j], t[i] }

// Push implements heap.Interface; the engine uses add.
func (t *timers) Push(any) {}

// Pop implements heap.Interface; the engine uses take.
func (t *timers) Pop() any {
	*t = (*t)[:len(*t)-1]
	return nil
}

func (t timers) first() (time.Duration, bool) {
	if len(t) == 0 {
		return 0, false
	}
	return t[0].at, true
}

func (t *timers) add(x timer) {
	*t = append(*t, x)
	heap.Fix(t, len(*t)-1)
}

func (t *timers) take() timer {
	x := (*t)[0]
	heap.Pop(t)
	return x
}

// tick lets pass what is due.
func (e *Engine) tick(now time.Duration) {
	for len(e.timers) > 0 && e.timers[0].at <= now {
		t := e.timers.take()
		a := e.agents[t.agent]
		if a == nil {
			continue
		}
		switch t.client {
		case noClient:
			e.soil(a)
		case noClientAsk:
			e.ask(a)
		case noClientKeep:
			e.keepsPass(now, a)
		default:
			e.expire(now, a, t.client)
		}
	}
	e.arm(now)
	// Revives leave timers without a filter behind.
	if len(e.timers) > 2*e.filters+1024 {
		e.sweepTimers()
	}
}

func (e *Engine) sweepTimers() {
	kept := e.timers[:0]
	for _, t := range e.timers {
		a := e.agents[t.agent]
		if a != nil && (t.client >= noClientKeep || a.hasTimer(t.client, t.at)) {
			kept = append(kept, t)
		}
	}
	e.timers = kept
	heap.Init(&e.timers)
}

// budget caps decisions. It never lets more than its rate pass in any second:
// half of it at once, the other half over the second.
type budget struct {
	perSecond float64 // 0: no cap
	left      float64
	last      time.Duration
}

func newBudget(perSecond uint64) budget {
	half := float64(perSecond) / 2
	if perSecond == 1 {
		half = 1
	}
	return budget{perSecond: half, left: half}
}

// refill adds what has come in since the last time.
func (b *budget) refill(now time.Duration) {
	b.left = min(b.perSecond, b.left+b.perSecond*(now-b.last).Seconds())
	b.last = now
}

// any reports whether a decision may be made now.
func (b *budget) any(now time.Duration) bool {
	if b.perSecond == 0 {
		return true
	}
	b.refill(now)
	return b.left >= 1
}

// spend takes one decision's worth.
func (b *budget) spend() bool {
	if b.perSecond == 0 {
		return true
	}
	if b.left < 1 {
		return false
	}
	b.left--
	return true
}

// next is when there is room for another decision.
func (b *budget) next() time.Duration {
	if b.perSecond == 0 || b.left >= 1 {
		return 0
	}
	return b.last + time.Duration((1-b.left)/b.perSecond*float64(time.Second)) + time.Millisecond
}
