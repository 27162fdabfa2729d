package engine_test

import (
	"cmp"
	"testing"
	"time"

	"github.com/mezzo-os/mezzo/sdk/allocator"
	"github.com/mezzo-os/mezzo/sdk/allocator/engine"
	allocatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/allocator/v1"
	"github.com/mezzo-os/mezzo/sdk/resource"
)

// world is a core in miniature: it keeps the books by resource arithmetic,
// tells the engine of every change, and checks every decision against them.
type world struct {
	t       testing.TB
	now     time.Duration
	encoder *allocator.Encoder
	engine  *engine.Engine
	begin   allocator.Begin
	next    uint64 // event
	seen    uint64 // decision

	total map[string]resource.Resources
	held  map[holder]resource.Resources
	// refuse says which offers the core does not carry out.
	refuse func(*allocator.Offer) bool
	// refuseFor is the reason for that; 0: not free.
	refuseFor allocator.RefusalReason
	// unavailable are the agents with a planned window.
	unavailable map[string]*allocator.Unavailability
	asked       []*allocator.InverseOffer // all that were made
	revoked     []*allocator.Revoke
	// refuseOther is why decisions that are not offers are refused; 0: they
	// are not.
	refuseOther allocator.RefusalReason
}

type holder struct{ agent, framework, role string }

func newWorld(t testing.TB, begin allocator.Begin, policy engine.Policy) *world {
	if begin.FirstDecision == 0 {
		begin.FirstDecision = 1
	}
	w := &world{
		t: t, encoder: allocator.NewEncoder(), engine: engine.New(begin.Proto(), policy), begin: begin, next: 1,
		total: map[string]resource.Resources{}, held: map[holder]resource.Resources{},
	}
	w.apply(allocator.Batch{Snapshot: true, SnapshotEnd: true})
	return w
}

func (w *world) apply(b allocator.Batch) {
	w.t.Helper()
	for _, message := range w.encoder.Encode(b) {
		if err := w.engine.Apply(w.now, message); err != nil {
			w.t.Fatal(err)
		}
	}
}

func (w *world) tell(events ...allocator.Event) {
	w.t.Helper()
	w.apply(allocator.Batch{FirstEvent: w.next, Events: events, DecisionsSeen: w.seen})
	w.next += uint64(len(events))
}

func (w *world) parse(text string) resource.Resources {
	w.t.Helper()
	r, err := resource.Parse(text)
	if err != nil {
		w.t.Fatal(err)
	}
	return r
}

func (w *world) agent(id, total string) {
	w.t.Helper()
	w.total[id] = w.parse(total)
	w.tell(&allocator.AgentUpdated{ID: id, Hostname: id, Total: w.total[id], Active: true, HoldingsSet: true})
}

func (w *world) framework(id string, roles ...string) {
	w.t.Helper()
	w.tell(&allocator.FrameworkUpdated{ID: id, Name: id, Roles: roles, Active: true})
}

// run lets the engine run once, and carries its decisions out.
func (w *world) run() []*allocator.Offer {
	w.t.Helper()
	decisions, _ := w.engine.Run(w.now)
	return w.carryOut(decisions)
}

func (w *world) carryOut(decisions []*allocatorv1.Decision) []*allocator.Offer {
	w.t.Helper()
	var offers []*allocator.Offer
	var refused []allocator.Event
	for _, d := range decisions {
		decision, err := w.encoder.Decision(d)
		if err != nil {
			w.t.Fatal(err)
		}
		if decision.DecisionNumber() <= w.seen {
			w.t.Fatalf("decision %d comes after %d", decision.DecisionNumber(), w.seen)
		}
		w.seen = decision.DecisionNumber()
		o, isOffer := decision.(*allocator.Offer)
		if !isOffer {
			refused = append(refused, w.other(decision)...)
			continue
		}
		if w.refuse != nil && w.refuse(o) {
			refused = append(refused, &allocator.Refused{Decision: o.Number, Reason: cmp.Or(w.refuseFor, allocator.RefusedNotFree), Agent: w.agentState(o.Agent)})
			continue
		}
		h := holder{o.Agent, o.Framework, o.Role}
		if !w.free(o.Agent).Contains(o.Resources) {
			w.t.Fatalf("offer of %v on %s: only %v is free", o.Resources, o.Agent, w.free(o.Agent))
		}
		w.held[h] = w.held[h].Add(o.Resources)
		offers = append(offers, o)
	}
	w.tell(refused...)
	return offers
}

// other carries out a decision that is not an offer, or refuses it.
func (w *world) other(d allocator.Decision) []allocator.Event {
	w.t.Helper()
	switch d := d.(type) {
	case *allocator.InverseOffer:
		w.asked = append(w.asked, d)
	case *allocator.Revoke:
		w.revoked = append(w.revoked, d)
	default:
		w.t.Fatalf("decision %T", d)
	}
	if w.refuseOther != 0 {
		return []allocator.Event{&allocator.Refused{Decision: d.DecisionNumber(), Reason: w.refuseOther}}
	}
	return nil
}

// settle advances the clock past batch_interval and runs.
func (w *world) settle() []*allocator.Offer {
	w.t.Helper()
	w.now += w.begin.BatchInterval
	return w.run()
}

func (w *world) free(agent string) resource.Resources {
	left := w.total[agent]
	for h, r := range w.held {
		if h.agent == agent {
			left = left.Minus(r.NonShared())
		}
	}
	return left
}

func (w *world) agentState(id string) *allocator.AgentUpdated {
	u := &allocator.AgentUpdated{ID: id, Hostname: id, Total: w.total[id], Active: true, HoldingsSet: true, Unavailability: w.unavailable[id]}
	for h, r := range w.held {
		if h.agent == id && !r.IsEmpty() {
			u.Holdings = append(u.Holdings, allocator.Holding{Framework: h.framework, Role: h.role, Resources: r})
		}
	}
	return u
}

func (w *world) release(agent, framework, role string, r resource.Resources, refuse time.Duration, declined bool) {
	w.t.Helper()
	h := holder{agent, framework, role}
	left, ok := w.held[h].Subtract(r)
	if !ok {
		w.t.Fatalf("%v holds %v, not %v", h, w.held[h], r)
	}
	w.held[h] = left
	w.tell(&allocator.Released{Agent: agent, Framework: framework, Role: role, Resources: r, Refuse: refuse, Declined: declined})
}

func (w *world) decline(o *allocator.Offer, refuse time.Duration) {
	w.t.Helper()
	w.release(o.Agent, o.Framework, o.Role, o.Resources, refuse, true)
}

// accept launches task from the offer and leaves the rest.
func (w *world) accept(o *allocator.Offer, task resource.Resources) {
	w.t.Helper()
	left, ok := o.Resources.Subtract(task)
	if !ok {
		w.t.Fatalf("%v does not fit in %v", task, o.Resources)
	}
	if !left.IsEmpty() {
		w.release(o.Agent, o.Framework, o.Role, left, 0, false)
	}
}

func defaults() allocator.Begin {
	return allocator.Begin{BatchInterval: 5 * time.Millisecond, MinRefuse: time.Second, Seed: 1}
}
