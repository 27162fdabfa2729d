package engine_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mezzo-os/mezzo/sdk/allocator"
	"github.com/mezzo-os/mezzo/sdk/allocator/engine"
)

// leaving is a world in which f holds one CPU on the agent "a", which has four,
// and g holds one on "b"; a is going to be unavailable.
func leaving(t *testing.T) *world {
	w := newWorld(t, defaults(), &engine.DominantShare{})
	w.framework("f", "*")
	w.agent("a", "cpus:4")
	w.accept(w.wantOffer("f"), w.parse("cpus:1"))
	w.tell(&allocator.Suppressed{Framework: "f", Roles: []string{"*"}})
	w.framework("g", "*")
	w.agent("b", "cpus:4")
	for _, o := range w.settle() {
		if o.Agent == "b" {
			w.accept(o, w.parse("cpus:1"))
		} else {
			w.decline(o, time.Hour)
		}
	}
	w.tell(&allocator.Suppressed{Framework: "g", Roles: []string{"*"}})
	w.settle()
	w.plan("a", time.Unix(1000, 0))
	return w
}

// plan gives an agent a window; a zero start takes it away.
func (w *world) plan(agent string, start time.Time) {
	w.t.Helper()
	u := w.State(agent)
	u.HoldingsSet, u.Holdings, u.Unavailability = false, nil, nil
	if !start.IsZero() {
		u.Unavailability = &allocator.Unavailability{Start: start, Duration: time.Hour}
	}
	w.tell(u)
}

func (w *world) answer(state allocator.InverseOfferState, refuse time.Duration) {
	w.t.Helper()
	last := w.asked[len(w.asked)-1]
	w.tell(&allocator.InverseOfferStatus{Number: last.Number, Agent: last.Agent, Framework: last.Framework, State: state, Refuse: refuse})
}

// wantAsked lets d pass, and wants these inverse offers in it.
func (w *world) wantAsked(d time.Duration, want ...string) {
	w.t.Helper()
	before := len(w.asked)
	w.until(d)
	var got []string
	for _, x := range w.asked[before:] {
		got = append(got, x.Framework+" on "+x.Agent)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		w.t.Fatalf("inverse offers (-want +got):\n%s", diff)
	}
}

func TestWhoHoldsSomethingIsAskedToLeave(t *testing.T) {
	w := leaving(t)
	w.wantAsked(time.Hour, "f on a") // and not again while it is outstanding
	w.tell(&allocator.Revived{Framework: "g", Roles: []string{"*"}})
	// The agent is offered all the same, and whom it is offered is asked too.
	w.wantAsked(time.Hour, "g on a")
}

func TestAnswersToInverseOffers(t *testing.T) {
	for _, test := range []struct {
		name   string
		state  allocator.InverseOfferState
		refuse time.Duration
		pause  time.Duration
	}{
		{"declined for a minute", allocator.InverseOfferDeclined, time.Minute, time.Minute},
		{"accepted for a minute", allocator.InverseOfferAccepted, time.Minute, time.Minute},
		{"accepted", allocator.InverseOfferAccepted, 0, time.Second},
		{"rescinded", allocator.InverseOfferRescinded, 0, time.Second},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := leaving(t)
			w.wantAsked(time.Hour, "f on a")
			w.answer(test.state, test.refuse)
			w.wantAsked(test.pause - time.Millisecond)
			w.wantAsked(time.Hour, "f on a")
		})
	}
}

func TestFiltersOfInverseOffersEnd(t *testing.T) {
	for _, test := range []struct {
		name string
		by   func(w *world)
		want []string
	}{
		{"by a revive", func(w *world) { w.tell(&allocator.Revived{Framework: "f", Roles: []string{"*"}}) }, []string{"f on a"}},
		{"by another window", func(w *world) { w.plan("a", time.Unix(2000, 0)) }, []string{"f on a"}},
		{"not by the same window", func(w *world) { w.plan("a", time.Unix(1000, 0)) }, nil},
		{"not by another's revive", func(w *world) { w.tell(&allocator.Suppressed{Framework: "g", Roles: []string{"*"}}) }, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := leaving(t)
			w.wantAsked(time.Hour, "f on a")
			w.answer(allocator.InverseOfferDeclined, 24*time.Hour)
			test.by(w)
			w.wantAsked(time.Hour, test.want...)
		})
	}
}

func TestNobodyIsAskedInVain(t *testing.T) {
	gone := func(w *world) *allocator.AgentUpdated { u := w.State("a"); u.Active = false; return u }
	for _, test := range []struct {
		name  string
		event func(w *world) allocator.Event
	}{
		{"inactive agent", func(w *world) allocator.Event { return gone(w) }},
		{"no window any more", func(w *world) allocator.Event { u := w.State("a"); u.Unavailability = nil; return u }},
		{"removed agent", func(*world) allocator.Event { return &allocator.AgentRemoved{ID: "a"} }},
		{"disconnected framework", func(*world) allocator.Event {
			return &allocator.FrameworkUpdated{ID: "f", Name: "f", Roles: []string{"*"}}
		}},
		{"removed framework", func(*world) allocator.Event { return &allocator.FrameworkRemoved{ID: "f"} }},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := leaving(t)
			w.tell(test.event(w))
			w.wantAsked(time.Hour)
		})
	}
	t.Run("back again", func(t *testing.T) {
		w := leaving(t)
		w.tell(gone(w))
		w.wantAsked(time.Hour)
		back := w.State("a")
		back.Active = true
		w.tell(back)
		w.wantAsked(time.Hour, "f on a")
		w.tell(&allocator.FrameworkUpdated{ID: "f", Name: "f", Roles: []string{"*"}})
		w.wantAsked(time.Hour)
		w.tell(&allocator.FrameworkUpdated{ID: "f", Name: "f", Roles: []string{"*"}, Suppressed: []string{"*"}, Active: true})
		w.wantAsked(time.Hour, "f on a")
	})
}

// A core that does not want inverse offers is not flooded with them, and the
// agent is offered as before.
func TestRefusedInverseOffersBackOff(t *testing.T) {
	w := leaving(t)
	w.refuseOther = allocator.RefusedMalformed
	w.until(10 * time.Minute)
	if n := len(w.asked); n < 5 || n > 20 {
		t.Errorf("asked %d times in ten minutes, want some and fewer each minute", n)
	}
	w.tell(&allocator.Revived{Framework: "f", Roles: []string{"*"}})
	if offers := w.settle(); len(offers) == 0 {
		t.Error("the agent is not offered after a refused inverse offer")
	}
}

// A session that may not decide yet asks again as soon as it may.
func TestInverseOffersOfAStaleSession(t *testing.T) {
	w := leaving(t)
	w.refuseOther = allocator.RefusedStaleSession
	w.until(10 * time.Second)
	if len(w.asked) < 20 {
		t.Errorf("asked %d times in ten seconds in which no decision was taken", len(w.asked))
	}
	w.refuseOther = 0
	w.wantAsked(100*time.Millisecond, "f on a")
}

// What was asked is known to the next session by the snapshot.
func TestOutstandingInverseOffersInASnapshot(t *testing.T) {
	for _, test := range []struct {
		name   string
		state  allocator.InverseOfferState
		refuse time.Duration
		want   []string
	}{
		{"outstanding", allocator.InverseOfferOutstanding, 0, nil},
		{"declined", allocator.InverseOfferDeclined, 2 * time.Hour, nil},
		{"declined a while ago", allocator.InverseOfferDeclined, time.Minute, []string{"f on a"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := leaving(t)
			w.encoder, w.engine = allocator.NewEncoder(), engine.New(w.begin.Proto(), &engine.DominantShare{})
			w.apply(allocator.Batch{Snapshot: true, SnapshotEnd: true, Events: []allocator.Event{
				&allocator.FrameworkUpdated{ID: "f", Name: "f", Roles: []string{"*"}, Suppressed: []string{"*"}, Active: true},
				w.State("a"),
				&allocator.InverseOfferStatus{Number: 1, Agent: "a", Framework: "f", State: test.state, Refuse: test.refuse},
			}})
			w.next, w.seen = 1, 0
			w.wantAsked(time.Hour, test.want...)
		})
	}
}
