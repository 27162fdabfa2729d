package engine_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/mezzo-os/mezzo/sdk/allocator"
	"github.com/mezzo-os/mezzo/sdk/allocator/engine"
	"github.com/mezzo-os/mezzo/sdk/resource"
)

func (w *world) guarantee(role string, n int64) {
	w.t.Helper()
	w.tell(&allocator.RoleUpdated{Name: role, Guarantee: resource.Quantities{{Name: "cpus", Amount: resource.Scalar(n) * resource.Unit}}})
}

func sum(offers []*allocator.Offer) (n resource.Scalar) {
	for _, o := range offers {
		n += o.Resources.Get("cpus")
	}
	return n / resource.Unit
}

// What a role lacks may be met by giving to a role below it, and is kept once.
func TestGuaranteesInATree(t *testing.T) {
	for _, test := range []struct {
		name       string
		guarantees map[string]int64
		role       string
		want       resource.Scalar // of ten CPUs
	}{
		{"beside it", map[string]int64{"a": 3}, "other", 7},
		{"the role's own", map[string]int64{"a": 3}, "a", 10},
		{"most of it below", map[string]int64{"a": 2, "a/b": 5}, "other", 5},
		{"most of it above", map[string]int64{"a": 5, "a/b": 2}, "other", 5},
		{"several below", map[string]int64{"a": 4, "a/b": 3, "a/c": 3}, "other", 4},
		{"three levels", map[string]int64{"a": 2, "a/b": 1, "a/b/c": 3}, "other", 7},
		{"what is above is not for below", map[string]int64{"a": 5, "a/b": 4}, "a/x", 6},
		{"and none of it", map[string]int64{"a": 2, "a/b": 4}, "a/x", 6},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t, defaults(), &engine.DominantShare{})
			for role, n := range test.guarantees {
				w.guarantee(role, n)
			}
			w.framework("f", test.role)
			w.agent("agent", "cpus:10")
			if got := sum(w.settle()); got != test.want {
				t.Errorf("role %s was offered %v CPUs, want %v", test.role, got, test.want)
			}
		})
	}
}

// What is held back goes when there is room, also if what made the room is on
// an agent that is not offered.
func TestHeldBackIsGivenWhenThereIsRoom(t *testing.T) {
	for _, test := range []struct {
		name  string
		quota *allocator.RoleUpdated
	}{
		{"under a limit", &allocator.RoleUpdated{Name: "f", Limit: resource.Quantities{{Name: "cpus", Amount: 4 * resource.Unit}}}},
		{"beside a guarantee", &allocator.RoleUpdated{Name: "other", Guarantee: resource.Quantities{{Name: "cpus", Amount: 8 * resource.Unit}}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t, defaults(), &engine.DominantShare{})
			w.tell(test.quota)
			w.framework("f", "f")
			w.agent("gone", "cpus:4")
			w.agent("agent", "cpus:8")
			if got := sum(w.settle()); got != 4 {
				t.Fatalf("offered %v CPUs, want 4", got)
			}
			var on string
			for h, r := range w.Held {
				if !r.IsEmpty() {
					on = h.Agent
				}
			}
			u := w.State(on)
			u.Active = false
			w.tell(u)
			w.wantNone()
			w.release(on, "f", "f", w.parse("cpus:3"), 0, false)
			if got := sum(w.settle()); got != 3 {
				t.Errorf("offered %v CPUs, want 3", got)
			}
		})
	}
}

// A cycle under quota looks at the agents that changed and at those for which
// there is room, however many are held back.
func TestHeldBackCostsNothing(t *testing.T) {
	const agents = 1000
	w := newWorld(t, defaults(), &engine.DominantShare{})
	w.guarantee("other", 4*agents/2) // of whom nobody is there
	for i := range 20 {
		w.framework(fmt.Sprint("f", i), "f")
	}
	for i := range agents {
		w.agent(fmt.Sprint("a", i), "cpus:4")
	}
	offers := w.settle()
	if got := sum(offers); got != 4*agents/2 {
		t.Fatalf("offered %v CPUs, want %d", got, 4*agents/2)
	}
	for round := range 20 {
		o := offers[round]
		w.release(o.Agent, o.Framework, o.Role, o.Resources, 0, false)
		w.now += w.begin.BatchInterval
		decisions, report := w.engine.Run(w.now)
		if len(decisions) != 1 || report.Agents > 2 {
			t.Fatalf("round %d: %d offers of %d agents looked at, want one of two at most", round, len(decisions), report.Agents)
		}
		w.carryOut(decisions)
	}
}

func (w *world) limit(role string, n int64) {
	w.t.Helper()
	w.tell(&allocator.RoleUpdated{Name: role, Limit: resource.Quantities{{Name: "cpus", Amount: resource.Scalar(n) * resource.Unit}}})
}

// Each change that makes room for a role brings it what was held back.
func TestWhatMakesRoom(t *testing.T) {
	wantCPUs := func(w *world, want resource.Scalar) {
		w.t.Helper()
		if got := sum(w.settle()); got != want {
			w.t.Fatalf("offered %v CPUs, want %v", got, want)
		}
	}
	t.Run("a limit that is raised, again and again", func(t *testing.T) {
		w := newWorld(t, defaults(), &engine.DominantShare{})
		w.limit("f", 0)
		w.framework("f", "f")
		w.agent("one", "cpus:20")
		w.agent("two", "cpus:20")
		w.wantNone()
		for n := int64(2); n <= 40; n += 2 {
			w.limit("f", n)
			wantCPUs(w, 2)
		}
	})
	t.Run("a limit that went down for long", func(t *testing.T) {
		w := newWorld(t, defaults(), &engine.DominantShare{})
		w.framework("f", "f")
		for n := int64(20); n > 0; n-- { // each is held back with another room
			w.limit("f", n)
			w.agent(fmt.Sprint("a", n), "cpus:30")
			for _, o := range w.settle() {
				w.decline(o, 24*time.Hour)
			}
			w.wantNone()
		}
		w.limit("f", 20) // more than was refused of a19
		offers := w.settle()
		if sum(offers) != 20 {
			t.Fatalf("offers %v, want 20 CPUs", describe(offers))
		}
		w.limit("f", 1000)
		wantCPUs(w, 570) // ten of the agent are within its filter
	})
	t.Run("a little more than it was", func(t *testing.T) {
		w := newWorld(t, defaults(), &engine.DominantShare{})
		w.framework("f", "f")
		for n := int64(12); n > 0; n-- {
			w.limit("f", n)
			if n > 9 {
				w.agent(fmt.Sprint("a", n), "cpus:30")
			}
			for _, o := range w.settle() {
				w.decline(o, 24*time.Hour)
			}
			w.tell(&allocator.AgentRemoved{ID: "x"})
			w.agent("x", "cpus:30")
			for _, o := range w.settle() {
				w.decline(o, 24*time.Hour)
			}
		}
		w.tell(&allocator.AgentRemoved{ID: "x"})
		w.limit("f", 11) // more than was refused of a10 alone
		offers := w.settle()
		if len(offers) != 1 || offers[0].Agent != "a10" {
			t.Fatalf("offers %v, want one of a10", describe(offers))
		}
	})
	t.Run("more than a filter refuses", func(t *testing.T) {
		w := newWorld(t, defaults(), &engine.DominantShare{})
		w.limit("f", 3)
		w.framework("f", "f")
		w.agent("agent", "cpus:8")
		offers := w.settle()
		w.decline(offers[0], 24*time.Hour)
		w.wantNone()
		w.limit("f", 5)
		wantCPUs(w, 5)
	})
	t.Run("an agent that is not offered itself", func(t *testing.T) {
		w := newWorld(t, defaults(), &engine.DominantShare{})
		w.guarantee("other", 8)
		w.framework("f", "f")
		w.agent("agent", "cpus:10")
		wantCPUs(w, 2)
		total := w.parse("cpus:5")
		w.tell(&allocator.AgentUpdated{ID: "more", Hostname: "more", Total: total, HoldingsSet: true})
		wantCPUs(w, 5)
	})
	t.Run("a guarantee that ends", func(t *testing.T) {
		w := newWorld(t, defaults(), &engine.DominantShare{})
		w.guarantee("other", 10)
		w.framework("f", "f")
		w.agent("agent", "cpus:10")
		w.wantNone()
		w.tell(&allocator.RoleUpdated{Name: "other"})
		wantCPUs(w, 10)
	})
}

// Whose guarantee is unmet is served before those with smaller shares.
func TestGuaranteesComeFirst(t *testing.T) {
	w := newWorld(t, defaults(), &engine.DominantShare{})
	w.guarantee("promised", 8)
	w.framework("p", "promised")
	w.agent("a", "cpus:4")
	w.wantOffer("p")
	w.framework("f", "other") // which holds nothing
	whole := func(id string) *allocator.AgentUpdated {
		return &allocator.AgentUpdated{ID: id, Hostname: id, Total: w.parse("cpus:4"), Active: true, HoldingsSet: true}
	}
	w.tell(whole("b"), whole("c"))
	offers := w.settle()
	if len(offers) != 2 || offers[0].Framework != "p" || offers[1].Framework != "f" {
		t.Errorf("offers %v, want one to p, then one to f", describe(offers))
	}
}
