package engine

import (
	"math/bits"

	allocatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/allocator/v1"
)

// Stats are what an operator wants to know of an engine. Counters begin at 0
// with the session.
type Stats struct {
	// Counters.
	Events        uint64 // applied, those of the snapshot too
	Offers        uint64 // decided; so are the next two
	InverseOffers uint64
	Revocations   uint64
	Agents        uint64 // looked at by cycles

	// How it is now.
	IdleAgents    int // with something free that is worth an offer
	WaitingAgents int // to be looked at by the next cycle
	Filters       int
	Wanting       int // frameworks in their roles that want offers
	Unanswered    int // offers whose outcome the core has not told
	Starved       int // frameworks in their roles, as of the last look; 0 without Preempt
	Revoking      int // tasks that are to end, and whose end is not known
}

// Stats returns them. It is cheap, whatever the size of the cluster: some
// hundred words of memory are read.
func (e *Engine) Stats() Stats {
	out := e.counted
	out.IdleAgents, out.WaitingAgents, out.Filters = e.idle.count(), len(e.dirty), e.filters
	out.Wanting, out.Unanswered = e.wanting.count(), len(e.inflight)
	if p := e.preempt; p != nil {
		out.Starved = p.starved
		for i := range p.underWay {
			if !p.underWay[i].ended {
				out.Revoking++
			}
		}
	}
	return out
}

// tally counts what a Run decided.
func (e *Engine) tally(decisions []*allocatorv1.Decision, agents int) {
	e.counted.Agents += uint64(agents)
	for _, d := range decisions {
		switch d.GetDecision().(type) {
		case *allocatorv1.Decision_Offer:
			e.counted.Offers++
		case *allocatorv1.Decision_InverseOffer:
			e.counted.InverseOffers++
		case *allocatorv1.Decision_Revoke:
			e.counted.Revocations++
		}
	}
}

func (b bitset) count() (n int) {
	for _, word := range b {
		n += bits.OnesCount64(word)
	}
	return n
}
