package engine_test

import (
	"fmt"
	"slices"
	"sort"
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

// model is a core that does as it likes, and knows what no offer may be.
type model struct {
	*world
	t          *rapid.T
	frameworks map[string]*modelFramework
	order      []string // frameworks by subscription
	filters    []modelFilter
	offers     []*allocator.Offer // outstanding
	made       int
	limits     map[string]resource.Scalar // of cpus, by role
	guarantees map[string]resource.Scalar // likewise
}

type modelFramework struct {
	roles      []string
	suppressed map[string]bool
	active     bool
}

type modelFilter struct {
	holder
	amount resource.Resources
	hard   time.Duration
	soft   time.Duration
}

const (
	modelMinRefuse = time.Second
	modelYield     = 100 * time.Millisecond
)

var modelRoles = []string{"*", "eng", "eng/web", "ops"}

func newModel(t *rapid.T, tb testing.TB) *model {
	begin := defaults()
	begin.Seed = rapid.Uint64().Draw(t, "seed")
	m := &model{world: newWorld(tb, begin, &engine.DominantShare{}), t: t, frameworks: map[string]*modelFramework{}, limits: map[string]resource.Scalar{}, guarantees: map[string]resource.Scalar{}}
	m.refuse = func(*allocator.Offer) bool { return rapid.IntRange(0, 9).Draw(t, "refuse") == 0 }
	return m
}

func (m *model) pick(from []string) string {
	if len(from) == 0 {
		m.t.Skip("nothing to choose from")
	}
	return rapid.SampledFrom(from).Draw(m.t, "which")
}

func (m *model) agents() []string {
	var out []string
	for id := range m.total {
		out = append(out, id)
	}
	sort.Strings(out)
	return out
}

func (m *model) resources() string {
	return fmt.Sprintf("cpus:%d;mem:%d;ports:[%d-%d]", rapid.IntRange(1, 8).Draw(m.t, "cpus"), rapid.IntRange(0, 4).Draw(m.t, "mem")*512,
		rapid.IntRange(1, 50).Draw(m.t, "from"), rapid.IntRange(51, 99).Draw(m.t, "to"))
}

// addAgent adds one, sometimes one that was there before.
func (m *model) addAgent(*rapid.T) {
	id := fmt.Sprint("a", rapid.IntRange(0, 5).Draw(m.t, "agent"))
	if _, there := m.total[id]; there {
		m.t.Skip("is there")
	}
	m.agent(id, m.resources()+";cpus(eng):"+fmt.Sprint(rapid.IntRange(0, 2).Draw(m.t, "reserved")))
}

func (m *model) removeAgent(*rapid.T) {
	id := m.pick(m.agents())
	delete(m.total, id)
	for h := range m.held {
		if h.agent == id {
			delete(m.held, h)
		}
	}
	m.dropOffers(func(o *allocator.Offer) bool { return o.Agent == id })
	m.dropFilters(func(f modelFilter) bool { return f.agent == id })
	m.tell(&allocator.AgentRemoved{ID: id})
}

func (m *model) dropOffers(gone func(*allocator.Offer) bool) {
	m.offers = slices.DeleteFunc(m.offers, gone)
}

func (m *model) dropFilters(gone func(modelFilter) bool) {
	m.filters = slices.DeleteFunc(m.filters, gone)
}

// setFramework adds a framework or changes one.
func (m *model) setFramework(*rapid.T) {
	id := fmt.Sprint("f", rapid.IntRange(0, 4).Draw(m.t, "framework"))
	f := &modelFramework{suppressed: map[string]bool{}, active: rapid.IntRange(0, 4).Draw(m.t, "active") > 0}
	u := &allocator.FrameworkUpdated{ID: id, Name: id, Active: f.active}
	for _, role := range modelRoles {
		switch rapid.IntRange(0, 3).Draw(m.t, role) {
		case 0:
			f.suppressed[role] = true
			u.Suppressed = append(u.Suppressed, role)
			fallthrough
		case 1:
			f.roles = append(f.roles, role)
		}
	}
	u.Roles = f.roles
	if m.frameworks[id] == nil {
		m.order = append(m.order, id)
	}
	m.frameworks[id] = f
	m.dropFilters(func(x modelFilter) bool {
		return x.framework == id && (!f.active || !slices.Contains(f.roles, x.role))
	})
	m.tell(u)
}

func (m *model) removeFramework(*rapid.T) {
	id := m.pick(m.order)
	delete(m.frameworks, id)
	m.order = slices.DeleteFunc(m.order, func(x string) bool { return x == id })
	for h := range m.held {
		if h.framework == id {
			delete(m.held, h)
		}
	}
	m.dropOffers(func(o *allocator.Offer) bool { return o.Framework == id })
	m.dropFilters(func(f modelFilter) bool { return f.framework == id })
	m.tell(&allocator.FrameworkRemoved{ID: id})
}

// setLimit limits the CPUs of a role and those below it, or ends the limit.
func (m *model) setLimit(*rapid.T) {
	role := rapid.SampledFrom(modelRoles).Draw(m.t, "role")
	delete(m.limits, role)
	if n := rapid.IntRange(-1, 12).Draw(m.t, "limit"); n >= 0 {
		m.limits[role] = resource.Scalar(n) * resource.Unit
	}
	m.tell(m.roleUpdated(role))
}

// setGuarantee guarantees a role and those below it CPUs, or ends that.
func (m *model) setGuarantee(*rapid.T) {
	role := rapid.SampledFrom(modelRoles).Draw(m.t, "role")
	delete(m.guarantees, role)
	if n := rapid.IntRange(-2, 10).Draw(m.t, "guarantee"); n > 0 {
		m.guarantees[role] = resource.Scalar(n) * resource.Unit
	}
	m.tell(m.roleUpdated(role))
}

func (m *model) roleUpdated(role string) *allocator.RoleUpdated {
	u := &allocator.RoleUpdated{Name: role}
	if n, limited := m.limits[role]; limited {
		u.Limit = resource.Quantities{{Name: "cpus", Amount: n}}
	}
	if n := m.guarantees[role]; n > 0 {
		u.Guarantee = resource.Quantities{{Name: "cpus", Amount: n}}
	}
	return u
}

// consumed is how many CPUs count against a role's quota.
func (m *model) consumed(role string) (sum resource.Scalar) {
	for h, r := range m.held {
		if resource.IsAncestorOrSelf(role, h.role) {
			sum += r.Unreserved().Get("cpus")
		}
	}
	for _, total := range m.total {
		for _, r := range total.Reserved() {
			if r.Kind.Name() == "cpus" && resource.IsAncestorOrSelf(role, r.Kind.Role()) {
				sum += r.Scalar
			}
		}
	}
	return sum
}

// short is by how many CPUs what is free falls short of what guarantees lack,
// if a role is given some more first.
func (m *model) short(role string, more resource.Scalar) resource.Scalar {
	free := -more
	for id := range m.total {
		free += m.free(id).Unreserved().Get("cpus")
	}
	lack := func(r string) resource.Scalar {
		n := m.guarantees[r] - m.consumed(r)
		if resource.IsAncestorOrSelf(r, role) {
			n -= more
		}
		return max(0, n)
	}
	// What eng/web lacks, eng has to have for it.
	return max(0, lack("*")+lack("ops")+max(lack("eng"), lack("eng/web"))-free)
}

// limited is how many CPUs more a role's limits leave it.
func (m *model) limited(role string) resource.Scalar {
	room := resource.MaxScalar
	for above, limit := range m.limits {
		if resource.IsAncestorOrSelf(above, role) {
			room = min(room, limit-m.consumed(above))
		}
	}
	return room
}

// room is how many CPUs more a role may have, unreserved: the most that leaves
// guarantees no shorter. All amounts are whole.
func (m *model) room(role string) resource.Scalar {
	room := m.limited(role)
	for more := resource.Unit; more <= min(room, 64*resource.Unit) && len(m.guarantees) > 0; more += resource.Unit {
		if m.short(role, more) > m.short(role, 0) {
			return more - resource.Unit
		}
	}
	return room
}

func (m *model) client() (string, string) {
	var all [][2]string
	for _, id := range m.order {
		for _, role := range m.frameworks[id].roles {
			all = append(all, [2]string{id, role})
		}
	}
	if len(all) == 0 {
		m.t.Skip("no clients")
	}
	c := rapid.SampledFrom(all).Draw(m.t, "client")
	return c[0], c[1]
}

func (m *model) suppress(*rapid.T) {
	id, role := m.client()
	m.frameworks[id].suppressed[role] = true
	m.tell(&allocator.Suppressed{Framework: id, Roles: []string{role}})
}

func (m *model) revive(*rapid.T) {
	id, role := m.client()
	delete(m.frameworks[id].suppressed, role)
	m.dropFilters(func(f modelFilter) bool { return f.framework == id && f.role == role })
	m.tell(&allocator.Revived{Framework: id, Roles: []string{role}})
}

func (m *model) takeOffer() *allocator.Offer {
	if len(m.offers) == 0 {
		m.t.Skip("no offers")
	}
	i := rapid.IntRange(0, len(m.offers)-1).Draw(m.t, "offer")
	o := m.offers[i]
	m.offers = slices.Delete(m.offers, i, i+1)
	return o
}

func (m *model) filter(o *allocator.Offer, amount resource.Resources, refuse time.Duration, declined bool) {
	f := m.frameworks[o.Framework]
	if f == nil || !f.active || !slices.Contains(f.roles, o.Role) {
		return
	}
	x := modelFilter{holder: holder{o.Agent, o.Framework, o.Role}, amount: amount, hard: m.now + refuse}
	if declined && refuse < modelMinRefuse {
		x.soft = m.now + modelMinRefuse
	}
	m.filters = append(m.filters, x)
}

func (m *model) declineOffer(*rapid.T) {
	o := m.takeOffer()
	refuse := time.Duration(rapid.SampledFrom([]int{0, 0, 50, 400, 5000, 60000}).Draw(m.t, "refuse")) * time.Millisecond
	m.filter(o, o.Resources, refuse, true)
	m.decline(o, refuse)
}

// acceptOffer uses a part, and leaves the rest with or without a filter.
func (m *model) acceptOffer(*rapid.T) {
	o := m.takeOffer()
	task := o.Resources.Intersect(m.parse(m.resources()))
	rest, _ := o.Resources.Subtract(task)
	if rest.IsEmpty() {
		return
	}
	refuse := time.Duration(rapid.SampledFrom([]int{0, 300, 5000}).Draw(m.t, "refuse")) * time.Millisecond
	m.filter(o, rest, refuse, false)
	m.release(o.Agent, o.Framework, o.Role, rest, refuse, false)
}

// endTask releases a part of what is held and not in an offer.
func (m *model) endTask(*rapid.T) {
	var holders []holder
	for h, r := range m.held {
		if !r.IsEmpty() {
			holders = append(holders, h)
		}
	}
	if len(holders) == 0 {
		m.t.Skip("nothing is held")
	}
	sort.Slice(holders, func(i, j int) bool { return fmt.Sprint(holders[i]) < fmt.Sprint(holders[j]) })
	h := rapid.SampledFrom(holders).Draw(m.t, "holder")
	used := m.held[h]
	for _, o := range m.offers {
		if (holder{o.Agent, o.Framework, o.Role}) == h {
			used = used.Minus(o.Resources)
		}
	}
	used = used.Intersect(m.parse(m.resources()))
	if used.IsEmpty() {
		m.t.Skip("all of it is in offers")
	}
	m.release(h.agent, h.framework, h.role, used, 0, false)
}

func (m *model) wait(*rapid.T) {
	m.pass(time.Duration(rapid.SampledFrom([]int{1, 5, 60, 100, 1000, 30000}).Draw(m.t, "wait")) * time.Millisecond)
}

func (m *model) pass(d time.Duration) {
	end := m.now + d
	for {
		next, ok := m.engine.Next()
		if !ok || next > end {
			break
		}
		m.now = max(m.now, next)
		for _, o := range m.run() {
			m.made++
			m.check(o)
			m.offers = append(m.offers, o)
		}
	}
	m.now = end
}

// wants reports whether a client would take amount, and whether only
// min_refuse keeps it from it.
func (m *model) stands(h holder, amount resource.Resources) (blocked, soft bool) {
	blocked, soft = false, true
	for _, f := range m.filters {
		if f.holder != h || !f.amount.Contains(amount) {
			continue
		}
		switch {
		case m.now < f.hard:
			blocked, soft = true, false
		case m.now < f.soft:
			blocked = true
			if m.now < f.soft-modelMinRefuse+modelYield {
				soft = false
			}
		}
	}
	return blocked, blocked && soft
}

// visible is the part of an agent's free resources that a client may have.
func (m *model) visible(agent, role string) resource.Resources {
	free, room := m.free(agent).AllocatableTo(role), max(0, m.room(role))
	if over := free.Unreserved().Get("cpus") - room; over > 0 {
		return free.Minus(resource.ScalarOf("cpus", over))
	}
	return free
}

func enough(r resource.Resources) bool {
	return r.Get("cpus") >= 10 || r.Get("mem") >= 32*resource.Unit
}

// check says whether an offer that was just made is one that may be made. The
// books have it already.
func (m *model) check(o *allocator.Offer) {
	f := m.frameworks[o.Framework]
	h := holder{o.Agent, o.Framework, o.Role}
	switch {
	case f == nil, !f.active, !slices.Contains(f.roles, o.Role), f.suppressed[o.Role]:
		m.t.Fatalf("%v was offered something, and does not want offers", h)
	case !enough(o.Resources):
		m.t.Fatalf("offer of %v is too small", o.Resources)
	case o.Resources.Unreserved().Get("cpus") > 0 && m.limited(o.Role) < 0:
		m.t.Fatalf("offer of %v in role %s exceeds a limit by %v CPUs", o.Resources, o.Role, -m.limited(o.Role))
	case !o.Resources.Equal(o.Resources.AllocatableTo(o.Role)):
		m.t.Fatalf("offer of %v in role %s", o.Resources, o.Role)
	}
	after := m.short(o.Role, 0)
	m.held[h] = m.held[h].Minus(o.Resources)
	if before := m.short(o.Role, 0); after > before {
		m.t.Fatalf("offer of %v in role %s: guarantees %v lack %v CPUs more than before", o.Resources, o.Role, m.guarantees, after-before)
	}
	m.held[h] = m.held[h].Add(o.Resources)
	if blocked, soft := m.stands(h, o.Resources); blocked && !soft {
		m.t.Fatalf("%v was offered %v, which it filters", h, o.Resources)
	}
}

// rest checks that nothing is left that should have been offered. It is only
// called when the engine has nothing to do before the next timer.
func (m *model) rest() {
	for _, agent := range m.agents() {
		for _, id := range m.order {
			f := m.frameworks[id]
			for _, role := range f.roles {
				free := m.visible(agent, role)
				if !f.active || f.suppressed[role] || !enough(free) {
					continue
				}
				if blocked, soft := m.stands(holder{agent, id, role}, free); !blocked || soft {
					m.t.Fatalf("%s has %v free, which nobody is offered, and %s in %s would take it (blocked %v, soft %v)",
						agent, free, id, role, blocked, soft)
				}
			}
		}
	}
}

// snapshot tells a new engine the state of the books.
func (m *model) snapshot() *engine.Engine {
	encoder, fresh := allocator.NewEncoder(), engine.New(m.begin.Proto(), &engine.DominantShare{})
	var events []allocator.Event
	for _, role := range modelRoles {
		events = append(events, m.roleUpdated(role))
	}
	for _, id := range m.order {
		f := m.frameworks[id]
		u := &allocator.FrameworkUpdated{ID: id, Name: id, Roles: f.roles, Active: f.active}
		for _, role := range f.roles {
			if f.suppressed[role] {
				u.Suppressed = append(u.Suppressed, role)
			}
		}
		events = append(events, u)
	}
	for _, id := range m.agents() {
		events = append(events, m.agentState(id))
	}
	for _, f := range m.filters {
		x := &allocator.Filter{Agent: f.agent, Framework: f.framework, Role: f.role, Resources: f.amount}
		if f.hard > m.now {
			x.Remaining = f.hard - m.now
			events = append(events, x)
		}
		if f.soft > m.now {
			y := *x
			y.Remaining, y.Soft = f.soft-m.now, true
			events = append(events, &y)
		}
	}
	for _, message := range encoder.Encode(allocator.Batch{Snapshot: true, SnapshotEnd: true, Events: events}) {
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
		m := newModel(rt, t)
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
		for _, id := range m.order {
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
