package engine_test

import (
	"strings"
	"testing"
	"time"

	"github.com/mezzo-os/mezzo/sdk/allocator"
	"github.com/mezzo-os/mezzo/sdk/allocator/engine"
	allocatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/allocator/v1"
	"github.com/mezzo-os/mezzo/sdk/resource"
)

// until runs the engine whenever it asks for it, for d, and returns the offers
// with the times at which they were made.
func (w *world) until(d time.Duration) (offers []*allocator.Offer, at []time.Duration) {
	w.t.Helper()
	end := w.now + d
	for {
		next, ok := w.engine.Next()
		if !ok || next > end {
			w.now = end
			return offers, at
		}
		w.now = max(w.now, next)
		for _, o := range w.run() {
			offers = append(offers, o)
			at = append(at, w.now)
		}
	}
}

func (w *world) wantOffer(framework string) *allocator.Offer {
	w.t.Helper()
	offers := w.settle()
	if len(offers) != 1 || offers[0].Framework != framework {
		w.t.Fatalf("offers %v, want one to %s", describe(offers), framework)
	}
	return offers[0]
}

func (w *world) wantNone() {
	w.t.Helper()
	if offers := w.settle(); len(offers) > 0 {
		w.t.Fatalf("offers %v, want none", describe(offers))
	}
}

func describe(offers []*allocator.Offer) []string {
	var out []string
	for _, o := range offers {
		out = append(out, o.Resources.String()+" on "+o.Agent+" to "+o.Framework)
	}
	return out
}

func one(t *testing.T) (*world, *allocator.Offer) {
	w := newWorld(t, defaults(), &engine.DominantShare{})
	w.framework("f", "*")
	w.agent("a", "cpus:4;mem:1024;ports:[1-100]")
	return w, w.wantOffer("f")
}

func TestFreedResourcesWaitForTheBatch(t *testing.T) {
	w, o := one(t)
	w.release(o.Agent, o.Framework, o.Role, o.Resources, 0, false)
	if at, ok := w.engine.Next(); !ok || at != w.now+5*time.Millisecond {
		t.Errorf("next at %v (%v), want 5 ms from %v", at, ok, w.now)
	}
	if offers := w.run(); len(offers) > 0 {
		t.Errorf("offers %v before the batch interval", describe(offers))
	}
	w.wantOffer("f")
}

func TestFilterHoldsForLessAndNotForMore(t *testing.T) {
	w, o := one(t)
	half := w.parse("cpus:2;mem:512;ports:[1-50]")
	rest, _ := o.Resources.Subtract(half)
	w.release("a", "f", "*", half, time.Minute, false) // refuses cpus:2;mem:512;ports:[1-50]
	w.wantNone()
	w.release("a", "f", "*", rest, 0, false) // now all is free: more than was refused
	if got := w.wantOffer("f"); !got.Resources.Equal(o.Resources) {
		t.Errorf("offered %v, want all of the agent", got.Resources)
	}
}

func TestFilterEnds(t *testing.T) {
	w, o := one(t)
	w.decline(o, 5*time.Second)
	declined := w.now
	offers, at := w.until(10 * time.Second)
	if len(offers) != 1 {
		t.Fatalf("offers %v, want one", describe(offers))
	}
	if took := at[0] - declined; took < 5*time.Second || took > 5*time.Second+5*time.Millisecond {
		t.Errorf("offered again after %v, want 5 s and a batch interval at most", took)
	}
}

// min_refuse: not again within a second, even for a filter of nothing, unless
// nobody else wants it and 100 ms have passed.
func TestMinRefuse(t *testing.T) {
	t.Run("alone", func(t *testing.T) {
		for _, refuse := range []time.Duration{0, 20 * time.Millisecond, 300 * time.Millisecond} {
			w, o := one(t)
			w.decline(o, refuse)
			declined := w.now
			_, at := w.until(2 * time.Second)
			want := max(100*time.Millisecond, refuse)
			if len(at) != 1 || at[0]-declined < want || at[0]-declined > want+5*time.Millisecond {
				t.Errorf("refuse %v: offered again at %v after %v, want after %v", refuse, at, declined, want)
			}
		}
	})
	t.Run("somebody else wants it", func(t *testing.T) {
		w, o := one(t)
		w.framework("g", "*")
		w.decline(o, 0)
		declined := w.now
		other := w.wantOffer("g")
		w.until(500 * time.Millisecond)
		w.release("a", "g", "*", other.Resources, 0, false) // as when its task ended
		// f's second has not passed, and g wants it.
		again := w.wantOffer("g")
		w.until(time.Second - (w.now - declined))
		w.release("a", "g", "*", again.Resources, 0, false)
		w.wantOffer("f") // g was made more offers; the shares are equal
	})
	t.Run("the others declined too", func(t *testing.T) {
		w, o := one(t)
		w.framework("g", "*")
		w.decline(o, 0)
		declined := w.now
		other := w.wantOffer("g")
		w.decline(other, time.Hour)
		_, at := w.until(time.Second)
		if len(at) != 1 || at[0]-declined < 100*time.Millisecond || at[0]-declined > 110*time.Millisecond {
			t.Errorf("offered again at %v, declined at %v, want 100 ms later", at, declined)
		}
	})
	t.Run("leftovers follow the filter as given", func(t *testing.T) {
		w, o := one(t)
		w.accept(o, w.parse("cpus:1;mem:100"))
		w.wantOffer("f")
	})
}

func TestSuppressAndRevive(t *testing.T) {
	w, o := one(t)
	w.decline(o, time.Hour)
	w.wantNone()
	w.tell(&allocator.Revived{Framework: "f", Roles: []string{"*"}})
	o = w.wantOffer("f")
	w.tell(&allocator.Suppressed{Framework: "f", Roles: []string{"*"}})
	w.release("a", "f", "*", o.Resources, 0, false)
	w.wantNone()
	w.tell(&allocator.Revived{Framework: "f", Roles: []string{"*"}})
	w.wantOffer("f")
}

func TestInactiveFrameworksAndAgentsGetNothing(t *testing.T) {
	w, o := one(t)
	w.release("a", "f", "*", o.Resources, time.Hour, true)
	w.tell(&allocator.FrameworkUpdated{ID: "f", Roles: []string{"*"}})
	w.wantNone()
	w.framework("f", "*") // its filters went with its connection
	o = w.wantOffer("f")
	total := w.Agents["a"].Update.Total
	w.tell(&allocator.AgentUpdated{ID: "a", Total: total})
	w.release("a", "f", "*", o.Resources, 0, false)
	w.wantNone()
	w.tell(&allocator.AgentUpdated{ID: "a", Total: total, Active: true})
	w.wantOffer("f")
}

func TestAttributeChangeEndsFilters(t *testing.T) {
	w, o := one(t)
	w.decline(o, time.Hour)
	total := w.Agents["a"].Update.Total
	w.tell(&allocator.AgentUpdated{ID: "a", Total: total, Active: true})
	w.wantNone()
	w.tell(&allocator.AgentUpdated{ID: "a", Total: total, Active: true, Attributes: []allocator.Attribute{{Name: "rack", Text: "r1"}}})
	w.wantOffer("f")
}

func TestTooLittleIsNotOffered(t *testing.T) {
	w := newWorld(t, defaults(), &engine.DominantShare{})
	w.framework("f", "*")
	w.agent("small", "cpus:0.009;mem:31;disk:1000000")
	w.agent("memory", "mem:32")
	if o := w.wantOffer("f"); o.Agent != "memory" {
		t.Errorf("offered %s", o.Agent)
	}
	// A framework may ask for more, or be content with less.
	w.tell(&allocator.FrameworkUpdated{ID: "g", Roles: []string{"*"}, Active: true, Settings: []allocator.RoleSettings{
		{Role: "*", MinAllocatable: []resource.Quantities{resource.NewQuantities(resource.Quantity{Name: "disk", Amount: 1000})}}}})
	if o := w.wantOffer("g"); o.Agent != "small" {
		t.Errorf("offered %s", o.Agent)
	}
}

// What a framework may not have is left out of its offer, and stays for those
// who may.
func TestCapabilitiesAndReservations(t *testing.T) {
	for _, test := range []struct {
		name, agent, role string
		capabilities      allocator.Capabilities
		filterGPUs        bool
		want              string // empty: no offer
	}{
		{name: "reserved to another role", agent: "cpus:1;cpus(b):2", role: "a", want: "cpus:1"},
		{name: "reserved to the role", agent: "cpus:1;cpus(a):2", role: "a", want: "cpus:1;cpus(a):2"},
		{name: "reserved to a role above", agent: "cpus:1;cpus(a):2", role: "a/b", want: "cpus:1;cpus(a):2"},
		{name: "reserved to a role below", agent: "cpus:1;cpus(a/b):2", role: "a", want: "cpus:1"},
		{name: "all is reserved", agent: "cpus(b):2", role: "a"},
		{name: "GPUs without the capability", agent: "cpus:1;gpus:1", role: "a", filterGPUs: true},
		{name: "GPUs with the capability", agent: "cpus:1;gpus:1", role: "a", filterGPUs: true, capabilities: allocator.CapabilityGPUResources, want: "cpus:1;gpus:1"},
		{name: "what is beside GPUs, for all", agent: "cpus:1;gpus:1", role: "a", want: "cpus:1"},
		{name: "all that is beside GPUs, and they too", agent: "cpus:1;gpus:1", role: "a", capabilities: allocator.CapabilityGPUResources, want: "cpus:1;gpus:1"},
	} {
		t.Run(test.name, func(t *testing.T) {
			begin := defaults()
			begin.FilterGPUResources = test.filterGPUs
			w := newWorld(t, begin, &engine.DominantShare{})
			w.agent("agent", test.agent)
			w.tell(&allocator.FrameworkUpdated{ID: "f", Roles: []string{test.role}, Capabilities: test.capabilities, Active: true})
			if test.want == "" {
				w.wantNone()
			} else if got, want := w.wantOffer("f").Resources, w.parse(test.want); !got.Equal(want) {
				t.Errorf("offered %v, want %v", got, want)
			}
		})
	}
	t.Run("revocable", func(t *testing.T) {
		w := newWorld(t, defaults(), &engine.DominantShare{})
		revocable := w.parse("cpus:2").Map(func(k resource.Kind) resource.Kind { return k.WithRevocable(true) })
		total := w.parse("cpus:1").Add(revocable)
		w.tell(&allocator.AgentUpdated{ID: "a", Total: total, Active: true, HoldingsSet: true})
		w.framework("plain", "*")
		if got := w.wantOffer("plain").Resources; !got.Equal(w.parse("cpus:1")) {
			t.Errorf("offered %v", got)
		}
		w.tell(&allocator.FrameworkUpdated{ID: "greedy", Roles: []string{"*"}, Capabilities: allocator.CapabilityRevocableResources, Active: true})
		if got := w.wantOffer("greedy").Resources; !got.Equal(revocable) {
			t.Errorf("offered %v", got)
		}
	})
}

func TestLimitsAreNotExceeded(t *testing.T) {
	w := newWorld(t, defaults(), &engine.DominantShare{})
	limit := func(cpus resource.Scalar) {
		w.tell(&allocator.RoleUpdated{Name: "a", Limit: resource.Quantities{{Name: "cpus", Amount: cpus * resource.Unit}}})
	}
	limit(3)
	w.framework("f", "a/b")
	w.agent("one", "cpus:2;mem:100")
	w.agent("two", "cpus:2;mem:100")
	held := resource.Resources(nil)
	offers := w.settle()
	for _, o := range offers {
		held = held.Add(o.Resources)
	}
	if held.Get("cpus") != 3*resource.Unit || held.Get("mem") != 200*resource.Unit {
		t.Fatalf("offered %v, want cpus:3 and all memory", describe(offers))
	}
	w.wantNone()
	limit(4)
	if got := w.wantOffer("f").Resources; !got.Equal(w.parse("cpus:1")) {
		t.Errorf("offered %v after the limit was raised, want cpus:1", got)
	}
	limit(1)
	w.release(offers[0].Agent, "f", "a/b", w.parse("cpus:1"), 0, false)
	w.wantNone()
	limit(4)
	w.wantOffer("f")
}

// A refused decision brings the core's state of the agent; decisions made since
// are added to it, and the agent is left alone for a while.
func TestRefused(t *testing.T) {
	w := newWorld(t, defaults(), &engine.DominantShare{})
	w.framework("f", "*")
	w.agent("a", "cpus:4;mem:1024")
	w.refuse = func(*allocator.Offer) bool { return true }
	if offers := w.settle(); len(offers) > 0 {
		t.Fatal("not refused")
	}
	refused := w.now
	w.refuse = nil
	offers, at := w.until(time.Second)
	if len(offers) != 1 || at[0]-refused < 50*time.Millisecond {
		t.Fatalf("offers %v at %v, want one, 50 ms or more after %v", describe(offers), at, refused)
	}
	// The core tells what it knows: somebody holds the memory.
	w.release("a", "f", "*", offers[0].Resources, 0, false)
	w.Held[holder{Agent: "a", Framework: "ghost", Role: "*"}] = w.parse("mem:1024")
	w.refuse = func(o *allocator.Offer) bool { return o.Resources.Get("mem") > 0 }
	offers, _ = w.until(time.Second)
	if len(offers) != 1 || !offers[0].Resources.Equal(w.parse("cpus:4")) {
		t.Errorf("offers %v, want the CPUs alone", describe(offers))
	}
}

// An agent that comes back is told with its holdings as the core has them, which
// has not handled the newest decision yet: that one is added, so that its end is
// not taken off twice.
func TestAgentComesBackBeforeADecisionIsHandled(t *testing.T) {
	w := newWorld(t, defaults(), &engine.DominantShare{})
	w.framework("f", "*")
	w.agent("a", "cpus:4")
	var decisions []*allocatorv1.Decision
	for len(decisions) == 0 {
		w.now += 10 * time.Millisecond
		decisions, _ = w.engine.Run(w.now)
	}
	w.tell(w.State("a"))
	w.carryOut(decisions)
	w.wantNone()
	w.release("a", "f", "*", w.parse("cpus:1"), 0, false)
	if offers := w.settle(); len(offers) != 1 || !offers[0].Resources.Equal(w.parse("cpus:1")) {
		t.Errorf("offers %v, want the CPU that was given back", describe(offers))
	}
}

func TestRefusalsInARowDoubleTheRest(t *testing.T) {
	w := newWorld(t, defaults(), &engine.DominantShare{})
	w.framework("f", "*")
	w.agent("a", "cpus:4;mem:1024")
	var at []time.Duration
	w.refuse = func(*allocator.Offer) bool {
		at = append(at, w.now)
		return true
	}
	w.until(time.Minute)
	if len(at) < 8 || len(at) > 25 {
		t.Fatalf("%d decisions in a minute of refusals, at %v", len(at), at)
	}
	for i := 2; i < 6; i++ {
		if at[i]-at[i-1] < (at[i-1]-at[i-2])*3/2 {
			t.Errorf("rests do not grow: %v", at)
		}
	}
}

// A session that may not decide yet is told so for every decision that it makes:
// that says nothing against the agents, which are offered as soon as it may.
func TestStaleSessionWaits(t *testing.T) {
	for _, reason := range []allocator.RefusalReason{allocator.RefusedStaleSession, allocator.RefusedRate} {
		t.Run(reason.String(), func(t *testing.T) {
			w := newWorld(t, defaults(), &engine.DominantShare{})
			w.framework("f", "*")
			w.agent("a", "cpus:4;mem:1024")
			refused := 0
			w.refuse = func(*allocator.Offer) bool { refused++; return true }
			w.refuseFor = reason
			w.until(time.Minute)
			if refused < 100 || refused > 1500 {
				t.Errorf("%d decisions in a minute in which none was taken, want some every second", refused)
			}
			w.refuse = nil
			ready := w.now
			if offers, at := w.until(time.Second); len(offers) != 1 || at[0]-ready > 100*time.Millisecond {
				t.Errorf("offers %v at %v, want one within 100 ms of %v", describe(offers), at, ready)
			}
		})
	}
}

func TestDecisionsASecondAreCapped(t *testing.T) {
	begin := defaults()
	begin.MaxDecisionsPerSecond = 20
	w := newWorld(t, begin, &engine.DominantShare{})
	w.framework("f", "*")
	for i := range 50 {
		w.agent("a"+strings.Repeat("x", i), "cpus:1;mem:64")
	}
	_, at := w.until(10 * time.Second)
	if len(at) != 50 {
		t.Fatalf("%d offers, want all 50 in the end", len(at))
	}
	for i := range at {
		n := 0
		for _, other := range at[i:] {
			if other < at[i]+time.Second {
				n++
			}
		}
		if n > 20 {
			t.Fatalf("%d decisions within a second of %v", n, at[i])
		}
	}
}

func TestExplain(t *testing.T) {
	w, o := one(t)
	w.decline(o, 5*time.Second)
	w.agent("tiny", "cpus:0.001")
	w.tell(&allocator.AgentUpdated{ID: "drained", Total: w.parse("cpus:8"), HoldingsSet: true})
	w.now += time.Second
	answer := w.engine.Explain(w.now, &allocatorv1.ExplainRequest{FrameworkId: "f", Agents: true})
	if len(answer.GetRoles()) != 1 {
		t.Fatalf("got %v", answer)
	}
	r := answer.GetRoles()[0]
	if r.GetPosition() != 1 || r.GetPositions() != 1 || len(r.GetAgents()) != 3 || len(r.GetReasons()) != 3 {
		t.Errorf("got %v", r)
	}
	if got := r.GetAgents()[0]; got.GetAgentId() != "a" || got.GetRemainingMs() != 4000 || !strings.Contains(got.GetReason(), "filter") {
		t.Errorf("agent a: %v, want a filter with 4000 ms left", got)
	}
}

// Guarantees come first, and are kept free while they are unmet.
func TestGuarantees(t *testing.T) {
	w := newWorld(t, defaults(), &engine.DominantShare{})
	w.tell(&allocator.RoleUpdated{Name: "a", Guarantee: resource.NewQuantities(resource.Quantity{Name: "cpus", Amount: 6 * resource.Unit})})
	w.tell(&allocator.FrameworkUpdated{ID: "f", Roles: []string{"a/x"}, Suppressed: []string{"a/x"}, Active: true})
	w.framework("g", "b")
	held := func(framework string) resource.Scalar {
		var sum resource.Scalar
		for h, r := range w.Held {
			if h.Framework == framework {
				sum += r.Get("cpus")
			}
		}
		return sum / resource.Unit
	}
	for i := range 5 {
		w.agent(string(rune('1'+i)), "cpus:2;mem:100")
	}
	offers := w.settle()
	if held("g") != 4 {
		t.Fatalf("offered %v: g holds %d CPUs, want 4 of 10 with 6 guaranteed to a", describe(offers), held("g"))
	}
	w.wantNone()
	w.tell(&allocator.Revived{Framework: "f", Roles: []string{"a/x"}})
	offers = w.settle()
	if held("f") != 6 {
		t.Fatalf("offered %v: f holds %d CPUs, want the 6 that were kept", describe(offers), held("f"))
	}
	// The guarantee is met: what g gives back may go to anybody.
	for h, r := range w.Held {
		if h.Framework == "g" {
			w.release(h.Agent, h.Framework, h.Role, r, 0, false)
		}
	}
	w.settle()
	if held("f")+held("g") != 10 {
		t.Errorf("f holds %d and g %d CPUs, want 10 together", held("f"), held("g"))
	}
	// With the guarantee raised nothing is taken from anybody, and what is free
	// goes to the role that lacks.
	w.tell(&allocator.RoleUpdated{Name: "a", Guarantee: resource.NewQuantities(resource.Quantity{Name: "cpus", Amount: 8 * resource.Unit})})
	for h, r := range w.Held {
		if h.Framework == "g" {
			w.release(h.Agent, h.Framework, h.Role, r, 0, false)
		}
	}
	w.settle()
	if held("f") < 8 {
		t.Errorf("f holds %d CPUs, want its guarantee of 8", held("f"))
	}
}

// Agents of another region are for frameworks that are aware of regions; those
// of no region are for all, and all are where the core is of no region.
func TestRegions(t *testing.T) {
	for _, test := range []struct {
		name, core, agent string
		aware             bool
		want              int
	}{
		{"the same", "here", "here", false, 1},
		{"another", "here", "there", false, 0},
		{"another, aware", "here", "there", true, 1},
		{"an agent of none", "here", "", false, 1},
		{"a core of none", "", "there", false, 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			begin := defaults()
			begin.Region = test.core
			w := newWorld(t, begin, &engine.DominantShare{})
			u := &allocator.FrameworkUpdated{ID: "f", Name: "f", Roles: []string{"*"}, Active: true}
			if test.aware {
				u.Capabilities = allocator.CapabilityRegionAware
			}
			w.tell(u)
			total := w.parse("cpus:4")
			w.tell(&allocator.AgentUpdated{ID: "a", Hostname: "a", Region: test.agent, Total: total, Active: true, HoldingsSet: true})
			if got := len(w.settle()); got != test.want {
				t.Errorf("%d offers, want %d", got, test.want)
			}
		})
	}
}
