package main

import (
	"time"

	"github.com/mezzo-os/mezzo/sdk/allocator"
	"github.com/mezzo-os/mezzo/sdk/allocator/engine"
	"github.com/mezzo-os/mezzo/sdk/resource"
)

// failer is a *testing.T or a *rapid.T.
type failer interface {
	Fatal(args ...any)
	Fatalf(format string, args ...any)
}

// world is a core in miniature. It tells the policy's engine of every change,
// and keeps what every framework holds.
type world struct {
	t       failer
	now     time.Duration
	encoder *allocator.Encoder
	engine  *engine.Engine
	next    uint64 // event
	seen    uint64 // decision
	total   resource.Resources
	agents  map[string]resource.Resources
	held    map[holder]resource.Resources
	filters map[holder]time.Duration // until when
}

type holder struct{ agent, framework, role string }

const batchInterval = 5 * time.Millisecond

func begin() allocator.Begin {
	return allocator.Begin{FirstDecision: 1, BatchInterval: batchInterval, Seed: 1}
}

func newWorld(t failer, c *config, weights map[string]uint64) *world {
	w := &world{
		t: t, encoder: allocator.NewEncoder(), engine: engine.New(begin().Proto(), newPriority(c)), next: 1,
		agents: map[string]resource.Resources{}, held: map[holder]resource.Resources{}, filters: map[holder]time.Duration{},
	}
	if p := definition().Preempt(c); p != nil {
		w.engine.Preempt(engine.Preempt{After: p.After, GracePeriod: p.GracePeriod})
	}
	w.apply(allocator.Batch{Snapshot: true, SnapshotEnd: true})
	for role, weight := range weights {
		w.tell(&allocator.RoleUpdated{Name: role, Weight: weight})
	}
	return w
}

func (w *world) apply(b allocator.Batch) {
	for _, message := range w.encoder.Encode(b) {
		if err := w.engine.Apply(w.now, message); err != nil {
			w.t.Fatal(err)
		}
	}
}

func (w *world) tell(events ...allocator.Event) {
	w.apply(allocator.Batch{FirstEvent: w.next, Events: events, DecisionsSeen: w.seen})
	w.next += uint64(len(events))
}

func parse(t failer, text string) resource.Resources {
	r, err := resource.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func (w *world) agent(id, total string) {
	w.agents[id] = parse(w.t, total)
	w.total = w.total.Add(w.agents[id])
	w.tell(&allocator.AgentUpdated{ID: id, Total: w.agents[id], Active: true, HoldingsSet: true})
}

func (w *world) framework(id string, roles ...string) {
	w.tell(&allocator.FrameworkUpdated{ID: id, Name: id, Roles: roles, Active: true})
}

// settle advances the clock past a batch and runs the engine. Each offer is
// first shown to look, which sees the books as they were before it.
func (w *world) settle(look func(*allocator.Offer)) []*allocator.Offer {
	w.now += batchInterval
	decisions, _ := w.engine.Run(w.now)
	var offers []*allocator.Offer
	for _, d := range decisions {
		decision, err := w.encoder.Decision(d)
		if err != nil {
			w.t.Fatal(err)
		}
		o := decision.(*allocator.Offer)
		if look != nil {
			look(o)
		}
		w.seen = o.Number
		h := holder{o.Agent, o.Framework, o.Role}
		w.held[h] = w.held[h].Add(o.Resources)
		offers = append(offers, o)
	}
	return offers
}

func (w *world) release(h holder, r resource.Resources, refuse time.Duration, declined bool) {
	left, ok := w.held[h].Subtract(r)
	if !ok {
		w.t.Fatalf("%v holds %v, not %v", h, w.held[h], r)
	}
	if w.held[h] = left; left.IsEmpty() {
		delete(w.held, h)
	}
	if refuse > 0 {
		w.filters[h] = max(w.filters[h], w.now+refuse)
	}
	w.tell(&allocator.Released{Agent: h.agent, Framework: h.framework, Role: h.role, Resources: r, Refuse: refuse, Declined: declined})
}

func (w *world) decline(o *allocator.Offer, refuse time.Duration) {
	w.release(holder{o.Agent, o.Framework, o.Role}, o.Resources, refuse, true)
}
