package engine_test

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"
	"pgregory.net/rapid"

	"github.com/mezzo-os/mezzo/sdk/allocator"
	"github.com/mezzo-os/mezzo/sdk/allocator/engine"
	allocatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/allocator/v1"
	"github.com/mezzo-os/mezzo/sdk/resource"
)

// anyCore is a core that does as it likes.
type anyCore struct {
	*world
	t    *rapid.T
	made int
}

var anyRoles = []string{"*", "eng", "eng/web", "ops"}

func newAnyCore(t *rapid.T, tb testing.TB) *anyCore {
	begin := defaults()
	begin.Seed = rapid.Uint64().Draw(t, "seed")
	m := &anyCore{world: newWorld(tb, begin, &engine.DominantShare{}), t: t}
	m.refuse = func(*allocator.Offer) bool { return rapid.IntRange(0, 9).Draw(t, "refuse") == 0 }
	return m
}

func (m *anyCore) pick(from []string) string {
	if len(from) == 0 {
		m.t.Skip("nothing to choose from")
	}
	return rapid.SampledFrom(from).Draw(m.t, "which")
}

func (m *anyCore) agents() []string { return slices.Sorted(maps.Keys(m.Agents)) }

func (m *anyCore) resources() string {
	return fmt.Sprintf("cpus:%d;mem:%d;ports:[%d-%d]", rapid.IntRange(1, 8).Draw(m.t, "cpus"), rapid.IntRange(0, 4).Draw(m.t, "mem")*512,
		rapid.IntRange(1, 50).Draw(m.t, "from"), rapid.IntRange(51, 99).Draw(m.t, "to"))
}

// addAgent adds one, sometimes one that was there before.
func (m *anyCore) addAgent(*rapid.T) {
	id := fmt.Sprint("a", rapid.IntRange(0, 5).Draw(m.t, "agent"))
	if m.Agents[id] != nil {
		m.t.Skip("is there")
	}
	m.agent(id, m.resources()+";cpus(eng):"+fmt.Sprint(rapid.IntRange(0, 2).Draw(m.t, "reserved")))
}

func (m *anyCore) removeAgent(*rapid.T) {
	m.tell(&allocator.AgentRemoved{ID: m.pick(m.agents())})
}

// setFramework adds a framework or changes one.
func (m *anyCore) setFramework(*rapid.T) {
	id := fmt.Sprint("f", rapid.IntRange(0, 4).Draw(m.t, "framework"))
	u := &allocator.FrameworkUpdated{ID: id, Name: id, Active: rapid.IntRange(0, 4).Draw(m.t, "active") > 0}
	for _, role := range anyRoles {
		switch rapid.IntRange(0, 3).Draw(m.t, role) {
		case 0:
			u.Suppressed = append(u.Suppressed, role)
			fallthrough
		case 1:
			u.Roles = append(u.Roles, role)
		}
	}
	m.tell(u)
}

func (m *anyCore) removeFramework(*rapid.T) {
	m.tell(&allocator.FrameworkRemoved{ID: m.pick(m.Order)})
}

// setRole limits the CPUs of a role and those below it, or guarantees them
// some, or ends that.
func (m *anyCore) setRole(quota func(*allocator.RoleUpdated)) {
	u := &allocator.RoleUpdated{Name: rapid.SampledFrom(anyRoles).Draw(m.t, "role")}
	if old := m.Roles[u.Name]; old != nil {
		*u = *old
	}
	quota(u)
	m.tell(u)
}

func cpus(n int) resource.Quantities {
	return resource.Quantities{{Name: "cpus", Amount: resource.Scalar(n) * resource.Unit}}
}

func (m *anyCore) setLimit(*rapid.T) {
	m.setRole(func(u *allocator.RoleUpdated) {
		u.Limit = nil
		if n := rapid.IntRange(-1, 12).Draw(m.t, "limit"); n >= 0 {
			u.Limit = cpus(n)
		}
	})
}

func (m *anyCore) setGuarantee(*rapid.T) {
	m.setRole(func(u *allocator.RoleUpdated) {
		u.Guarantee = nil
		if n := rapid.IntRange(-2, 10).Draw(m.t, "guarantee"); n > 0 {
			u.Guarantee = cpus(n)
		}
	})
}

func (m *anyCore) client() (string, string) {
	var all [][2]string
	for _, id := range m.Order {
		for _, role := range m.Frameworks[id].Update.Roles {
			all = append(all, [2]string{id, role})
		}
	}
	if len(all) == 0 {
		m.t.Skip("no clients")
	}
	c := rapid.SampledFrom(all).Draw(m.t, "client")
	return c[0], c[1]
}

func (m *anyCore) suppress(*rapid.T) {
	id, role := m.client()
	m.tell(&allocator.Suppressed{Framework: id, Roles: []string{role}})
}

func (m *anyCore) revive(*rapid.T) {
	id, role := m.client()
	m.tell(&allocator.Revived{Framework: id, Roles: []string{role}})
}

func (m *anyCore) anOffer() *allocator.Offer {
	if len(m.Offers) == 0 {
		m.t.Skip("no offers")
	}
	return m.Offers[rapid.IntRange(0, len(m.Offers)-1).Draw(m.t, "offer")]
}

func (m *anyCore) declineOffer(*rapid.T) {
	m.decline(m.anOffer(), time.Duration(rapid.SampledFrom([]int{0, 0, 50, 400, 5000, 60000}).Draw(m.t, "refuse"))*time.Millisecond)
}

// acceptOffer uses a part, and leaves the rest with or without a filter.
func (m *anyCore) acceptOffer(*rapid.T) {
	o := m.anOffer()
	m.Take(o)
	rest := o.Resources.Minus(o.Resources.Intersect(m.parse(m.resources())))
	if rest.IsEmpty() {
		return
	}
	refuse := time.Duration(rapid.SampledFrom([]int{0, 300, 5000}).Draw(m.t, "refuse")) * time.Millisecond
	m.release(o.Agent, o.Framework, o.Role, rest, refuse, false)
}

// endTask releases a part of what is held and not in an offer.
func (m *anyCore) endTask(*rapid.T) {
	holders := m.Holders()
	if len(holders) == 0 {
		m.t.Skip("nothing is held")
	}
	h := rapid.SampledFrom(holders).Draw(m.t, "holder")
	used := m.Used(h).Intersect(m.parse(m.resources()))
	if used.IsEmpty() {
		m.t.Skip("all of it is in offers")
	}
	m.release(h.Agent, h.Framework, h.Role, used, 0, false)
}

func (m *anyCore) wait(*rapid.T) {
	m.pass(time.Duration(rapid.SampledFrom([]int{1, 5, 60, 100, 1000, 30000}).Draw(m.t, "wait")) * time.Millisecond)
}

func (m *anyCore) pass(d time.Duration) {
	offers, _ := m.until(d)
	m.made += len(offers)
}

// visible is the part of an agent's free resources that a client may have.
func (m *anyCore) visible(agent, role string) resource.Resources {
	free, room := m.Free(agent).AllocatableTo(role), m.Headway(role, "cpus")
	if over := free.Unreserved().Get("cpus") - room; over > 0 {
		return free.Minus(resource.ScalarOf("cpus", over))
	}
	return free
}

// rest checks that nothing is left that should have been offered. It is only
// called when the engine has nothing to do before the next timer.
func (m *anyCore) rest() {
	for _, agent := range m.agents() {
		for _, id := range m.Order {
			f := m.Frameworks[id]
			for _, role := range f.Update.Roles {
				_, suppressed := f.Suppressed[role]
				free := m.visible(agent, role)
				if !f.Update.Active || suppressed || !m.Enough(id, role, free) {
					continue
				}
				offer := &allocator.Offer{Agent: agent, Framework: id, Role: role, Resources: free}
				if p := m.Judge(offer, m.at()); p == nil {
					m.t.Fatalf("%s has %v free, which nobody is offered, and %s in %s would take it", agent, free, id, role)
				}
			}
		}
	}
}

// snapshot tells a new engine the state of the books.
func (m *anyCore) snapshot() *engine.Engine {
	encoder, fresh := allocator.NewEncoder(), engine.New(m.begin.Proto(), &engine.DominantShare{})
	for _, message := range encoder.Encode(allocator.Batch{Snapshot: true, SnapshotEnd: true, Events: m.Snapshot(m.at())}) {
		if err := fresh.Apply(m.now, message); err != nil {
			m.t.Fatal(err)
		}
	}
	return fresh
}

// Whatever a core does: no offer is made that may not be made, nothing stays
// idle that somebody would take, and an engine that is told a snapshot knows
// the same as one that was told of every change.
func TestAnyCore(t *testing.T) {
	offers := 0
	rapid.Check(t, func(rt *rapid.T) {
		m := newAnyCore(rt, t)
		rt.Repeat(map[string]func(*rapid.T){
			"addAgent":        m.addAgent,
			"removeAgent":     m.removeAgent,
			"setFramework":    m.setFramework,
			"removeFramework": m.removeFramework,
			"suppress":        m.suppress,
			"revive":          m.revive,
			"setLimit":        m.setLimit,
			"setGuarantee":    m.setGuarantee,
			"decline":         m.declineOffer,
			"decline more":    m.declineOffer,
			"accept":          m.acceptOffer,
			"accept more":     m.acceptOffer,
			"endTask":         m.endTask,
			"wait":            m.wait,
			"wait more":       m.wait,
		})
		m.refuse = nil
		m.pass(10 * time.Second) // the longest rest after refusals is over
		for {
			m.wait(rt)
			if next, ok := m.engine.Next(); !ok || next > m.now+10*time.Millisecond {
				break
			}
		}
		m.rest()
		offers += m.made
		fresh := m.snapshot()
		for _, id := range m.Order {
			request := &allocatorv1.ExplainRequest{FrameworkId: id, Agents: true}
			want, got := m.engine.Explain(m.now, request), fresh.Explain(m.now, request)
			ignore := protocmp.IgnoreFields(&allocatorv1.RoleExplanation{}, "position", "summary")
			if diff := cmp.Diff(want, got, protocmp.Transform(), ignore,
				protocmp.SortRepeated(func(a, b *allocatorv1.AgentExplanation) bool { return a.GetAgentId() < b.GetAgentId() }),
				protocmp.SortRepeated(func(a, b *allocatorv1.ReasonCount) bool { return a.GetReason() < b.GetReason() })); diff != "" {
				rt.Fatalf("%s: told of every change (-), told a snapshot (+):\n%s", id, diff)
			}
		}
	})
	if offers == 0 {
		t.Error("no offer was ever made: the test tests nothing")
	}
}

// The same inputs give the same decisions.
func TestDeterminism(t *testing.T) {
	run := func(seed uint64) string {
		begin := defaults()
		begin.Seed = seed
		w := newWorld(t, begin, &engine.DominantShare{})
		for i := range 7 {
			w.framework(fmt.Sprint("f", i), "*", "eng")
		}
		for i := range 40 {
			w.agent(fmt.Sprint("a", i), fmt.Sprintf("cpus:%d;mem:512", i%5+1))
		}
		var all []string
		for round := range 5 {
			for i, o := range w.settle() {
				all = append(all, fmt.Sprintf("%d %s %s %s %v", o.Number, o.Agent, o.Framework, o.Role, o.Resources))
				if (i+round)%3 > 0 {
					w.decline(o, time.Duration(i%2)*time.Hour)
				}
			}
		}
		return fmt.Sprint(all)
	}
	if first, again := run(1), run(1); first != again {
		t.Error("the same seed gave different decisions")
	}
	if run(1) == run(2) {
		t.Error("the seed has no effect on the order of agents")
	}
}

// reference is dominant resource fairness as the paper writes it: whoever has
// the lowest dominant share gets a task next, while one fits.
func reference(total []int64, players [][]int64) []int {
	used, held, served := make([]int64, len(total)), make([][]int64, len(players)), make([]int, len(players))
	for i := range held {
		held[i] = make([]int64, len(total))
	}
	share := func(i int) float64 {
		s := 0.0
		for r := range total {
			s = max(s, float64(held[i][r])/float64(total[r]))
		}
		return s
	}
	out := map[int]bool{}
	var order []int
	for len(out) < len(players) {
		best := -1
		for i := range players {
			if out[i] {
				continue
			}
			if best < 0 || share(i) < share(best) || share(i) == share(best) && served[i] <= served[best] {
				best = i
			}
		}
		fits := true
		for r, need := range players[best] {
			fits = fits && used[r]+need <= total[r]
		}
		if !fits {
			out[best] = true
			continue
		}
		for r, need := range players[best] {
			used[r] += need
			held[best][r] += need
		}
		served[best]++
		order = append(order, best)
	}
	return order
}

// On one agent the engine serves exactly as the reference does.
func TestReferenceAllocator(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		begin := defaults()
		begin.MinAllocatable = []resource.Quantities{{{Name: "cpus", Amount: 1}}, {{Name: "mem", Amount: 1}}, {{Name: "disk", Amount: 1}}}
		w := newWorld(t, begin, &engine.DominantShare{})
		names := []string{"cpus", "mem", "disk"}
		total, text := make([]int64, 3), ""
		for i, name := range names {
			total[i] = rapid.Int64Range(10, 60).Draw(rt, name)
			text += fmt.Sprintf("%s:%d;", name, total[i])
		}
		demands := make([][]int64, rapid.IntRange(1, 6).Draw(rt, "frameworks"))
		players := make([]player, len(demands))
		for i := range demands {
			demands[i] = make([]int64, 3)
			task := ""
			for r, name := range names {
				demands[i][r] = rapid.Int64Range(1, 9).Draw(rt, "need")
				task += fmt.Sprintf("%s:%d;", name, demands[i][r])
			}
			players[i] = player{fmt.Sprint("f", i), "*", task[:len(task)-1]}
			w.framework(players[i].id, "*")
		}
		w.agent("agent", text[:len(text)-1])
		var want []string
		for _, i := range reference(total, demands) {
			want = append(want, players[i].id)
		}
		if diff := cmp.Diff(want, fill(w, players)); diff != "" {
			rt.Errorf("total %v, demands %v (-reference +engine):\n%s", total, demands, diff)
		}
	})
}
