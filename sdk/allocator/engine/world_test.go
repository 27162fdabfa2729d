package engine_test

import (
	"cmp"
	"testing"
	"time"

	"github.com/mezzo-os/mezzo/sdk/allocator"
	"github.com/mezzo-os/mezzo/sdk/allocator/engine"
	"github.com/mezzo-os/mezzo/sdk/allocator/model"
	allocatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/allocator/v1"
	"github.com/mezzo-os/mezzo/sdk/resource"
)

// world is a core in miniature: it tells the engine of every change, and judges
// every decision by books of its own.
type world struct {
	*model.Books
	t       testing.TB
	now     time.Duration
	encoder *allocator.Encoder
	engine  *engine.Engine
	begin   allocator.Begin
	next    uint64 // event
	seen    uint64 // decision

	// refuse says which offers the core does not carry out.
	refuse func(*allocator.Offer) bool
	// refuseFor is the reason for that; 0: not free.
	refuseFor allocator.RefusalReason
	asked     []*allocator.InverseOffer // all that were made
	revoked   []*allocator.Revoke
	// refuseTask is why a revocation is refused; 0: it is not.
	refuseTask func(task uint64) allocator.RefusalReason
	// refuseOther is why decisions that are not offers are refused; 0: they
	// are not.
	refuseOther allocator.RefusalReason
}

type holder = model.Holder

// epoch is when the engine's clock was at 0.
var epoch = time.Unix(1000, 0)

func (w *world) at() time.Time { return epoch.Add(w.now) }

func newWorld(t testing.TB, begin allocator.Begin, policy engine.Policy) *world {
	w := unborn(t, begin, policy)
	w.apply(allocator.Batch{Snapshot: true, SnapshotEnd: true})
	return w
}

// unborn is a world whose engine was told nothing yet.
func unborn(t testing.TB, begin allocator.Begin, policy engine.Policy) *world {
	if begin.FirstDecision == 0 {
		begin.FirstDecision = 1
	}
	w := &world{Books: model.New(begin), t: t, encoder: allocator.NewEncoder(), engine: engine.New(begin.Proto(), policy), begin: begin, next: 1}
	w.Headroom = true
	return w
}

func (w *world) apply(b allocator.Batch) {
	w.t.Helper()
	for _, e := range b.Events {
		w.Apply(e, 0, w.at())
	}
	w.send(b)
}

// send tells the engine alone.
func (w *world) send(b allocator.Batch) {
	w.t.Helper()
	for _, message := range w.encoder.Encode(b) {
		if err := w.engine.Apply(w.now, message); err != nil {
			w.t.Fatal(err)
		}
	}
}

func (w *world) tell(events ...allocator.Event) {
	w.t.Helper()
	for _, e := range events {
		if u, ok := e.(*allocator.AgentUpdated); ok {
			u.DecisionsSeen = w.seen
		}
	}
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
	w.tell(&allocator.AgentUpdated{ID: id, Hostname: id, Total: w.parse(total), Active: true, HoldingsSet: true})
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
		if r := w.refusal(decision); r != nil {
			refused = append(refused, r)
			continue
		}
		if p := w.Judge(decision, w.at()); p != nil {
			w.t.Fatalf("decision %+v: %s: %s", decision, p.Rule, p.Why)
		}
		w.CarryOut(decision)
		if o, is := decision.(*allocator.Offer); is {
			offers = append(offers, o)
		}
	}
	if len(refused) > 0 {
		w.send(allocator.Batch{FirstEvent: w.next, Events: refused, DecisionsSeen: w.seen})
		w.next += uint64(len(refused))
	}
	return offers
}

// refusal is the answer to a decision that the world does not want; nil when it
// does.
func (w *world) refusal(d allocator.Decision) allocator.Event {
	w.t.Helper()
	switch d := d.(type) {
	case *allocator.Offer:
		if w.refuse != nil && w.refuse(d) {
			return &allocator.Refused{Decision: d.Number, Reason: cmp.Or(w.refuseFor, allocator.RefusedNotFree), Agent: w.State(d.Agent)}
		}
		return nil
	case *allocator.InverseOffer:
		w.asked = append(w.asked, d)
	case *allocator.Revoke:
		w.revoked = append(w.revoked, d)
		if w.refuseTask != nil && w.refuseTask(d.Task) != 0 {
			return &allocator.Refused{Decision: d.Number, Reason: w.refuseTask(d.Task)}
		}
	default:
		w.t.Fatalf("decision %T", d)
	}
	if w.refuseOther != 0 {
		return &allocator.Refused{Decision: d.DecisionNumber(), Reason: w.refuseOther}
	}
	return nil
}

// settle advances the clock past batch_interval and runs.
func (w *world) settle() []*allocator.Offer {
	w.t.Helper()
	w.now += w.begin.BatchInterval
	return w.run()
}

func (w *world) release(agent, framework, role string, r resource.Resources, refuse time.Duration, declined bool) {
	w.t.Helper()
	h := holder{Agent: agent, Framework: framework, Role: role}
	if !w.Held[h].Contains(r) {
		w.t.Fatalf("%v holds %v, not %v", h, w.Held[h], r)
	}
	w.tell(&allocator.Released{Agent: agent, Framework: framework, Role: role, Resources: r, Refuse: refuse, Declined: declined})
}

func (w *world) decline(o *allocator.Offer, refuse time.Duration) {
	w.t.Helper()
	w.Take(o)
	w.release(o.Agent, o.Framework, o.Role, o.Resources, refuse, true)
}

// accept launches task from the offer and leaves the rest.
func (w *world) accept(o *allocator.Offer, task resource.Resources) {
	w.t.Helper()
	left, ok := o.Resources.Subtract(task)
	if !ok {
		w.t.Fatalf("%v does not fit in %v", task, o.Resources)
	}
	w.Take(o)
	if !left.IsEmpty() {
		w.release(o.Agent, o.Framework, o.Role, left, 0, false)
	}
}

func defaults() allocator.Begin {
	return allocator.Begin{BatchInterval: 5 * time.Millisecond, MinRefuse: time.Second, Seed: 1}
}
