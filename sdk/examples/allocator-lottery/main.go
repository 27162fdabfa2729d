// Mezzo-allocator-lottery serves by lot: who has weight 3, three times as often.
package main

import (
	"math/rand/v2"
	"path"

	"github.com/mezzo-os/mezzo/sdk/allocator"
	"github.com/mezzo-os/mezzo/sdk/plugin"
)

// lottery gives every candidate a time: a random one, the shorter the larger its
// weight, after it was drawn last. The first is served. Each draw is independent.
type lottery struct {
	random  *rand.Rand
	tickets map[candidate]ticket
	drawn   map[candidate]float64 // when one of those below was drawn last
}

type candidate struct{ role, framework string }

type ticket struct {
	at   float64
	held int64
}

// Rank implements allocator.Policy. Who holds more than before was drawn.
func (l *lottery) Rank(c *allocator.Candidate, _ *allocator.Cluster) allocator.Rank {
	self, above := candidate{c.Role, c.Framework}, candidate{path.Dir(c.Role), ""}
	switch {
	case c.Group:
		self, above = candidate{c.Role, "all"}, candidate{c.Role, ""}
	case c.Framework != "":
		above = candidate{c.Role, "all"}
	}
	held := int64(0)
	for _, amount := range c.Held {
		held += amount
	}
	if len(l.tickets) > 1e5 { // of many who have left; times have no memory
		clear(l.tickets)
	}
	t, known := l.tickets[self]
	if !known || held > t.held {
		l.drawn[above] = max(l.drawn[above], t.at)
		t.at = l.drawn[above] + l.random.ExpFloat64()/c.Weight
	}
	t.held = held
	l.tickets[self] = t
	return allocator.Rank{Share: t.at}
}

func newLottery(any) (allocator.Policy, []plugin.Diagnostic) {
	source := rand.NewPCG(rand.Uint64(), rand.Uint64())
	return &lottery{rand.New(source), map[candidate]ticket{}, map[candidate]float64{}}, nil
}

func main() {
	allocator.Serve(allocator.Definition{Name: "lottery", Version: "1.0.0", Summary: "Serves by lot.", NewPolicy: newLottery})
}
