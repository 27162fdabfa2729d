package ledger_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/mezzo-os/mezzo/core/ledger"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
	"github.com/mezzo-os/mezzo/sdk/resource"
)

// machine drives a ledger with random operations. It keeps the total of each
// agent and the limits on the side, so that what the ledger says can be worked
// out again from the rules rather than from the ledger's code.
type machine struct {
	l      *ledger.Ledger
	totals map[string]resource.Resources
	limits map[string]resource.Quantities
	offers []string
	uses   []ledger.Key
	next   int
}

var (
	agentNames     = []string{"A1", "A2", "A3"}
	frameworkNames = []string{"F1", "F2", "F3"}
	roleNames      = []string{"*", "a", "a/b", "a/b/c", "d"}
)

func genTotal(t *rapid.T) resource.Resources {
	amount := func(name string) resource.Scalar { return resource.Scalar(rapid.Int64Range(0, 6000).Draw(t, name)) }
	text := fmt.Sprintf(`cpus:%s;cpus(a):%s;cpus(a/b):%s;cpus{"revocable":{}}:%s;mem:%s;disk(a):%s`,
		amount("cpus"), amount("cpus(a)"), amount("cpus(a/b)"), amount("revocable"), amount("mem"), amount("disk"))
	end := rapid.IntRange(1, 12).Draw(t, "ports")
	total := parse(fmt.Sprintf("%s;ports:[1-%d];ports(d):[20-22];zones:{x,y,z}", text, end))
	if rapid.Bool().Draw(t, "volume") {
		shared := volumeOf(parse("disk(a):2"), "s", true)
		total = total.Add(shared).Add(volumeOf(parse("disk(a):3"), "v", false))
	}
	return total
}

// volumeOf makes a persistent volume of reserved disk.
func volumeOf(disk resource.Resources, id string, shared bool) resource.Resources {
	r := disk[0]
	r.Kind = r.Kind.WithShared(shared).WithDisk(&mezzov1.Resource_DiskInfo{
		Persistence: &mezzov1.Resource_DiskInfo_Persistence{Id: proto.String(id)},
		Volume:      &mezzov1.Volume{Mode: mezzov1.Volume_RW.Enum(), ContainerPath: proto.String("data")}})
	return resource.Of(r)
}

// genPart draws a part of r, maybe all of it.
func genPart(t *rapid.T, r resource.Resources) resource.Resources {
	var out []resource.Resource
	for _, x := range r {
		switch rapid.IntRange(0, 3).Draw(t, "how much") {
		case 0:
			continue
		case 1:
			x = partOf(t, x)
		}
		if x.Kind.Atomic() && x.Count > 0 {
			x.Count = 1
		}
		out = append(out, x)
	}
	return resource.Of(out...)
}

func partOf(t *rapid.T, x resource.Resource) resource.Resource {
	if x.Kind.Atomic() {
		return x
	}
	switch x.Kind.Type() {
	case resource.TypeScalar:
		x.Scalar = resource.Scalar(rapid.Int64Range(0, int64(x.Scalar)).Draw(t, "amount"))
	case resource.TypeRanges:
		r := x.Ranges[0]
		r.End = rapid.Uint64Range(r.Begin, r.End).Draw(t, "end")
		x.Ranges = resource.NewRanges(r)
	case resource.TypeSet:
		x.Set = x.Set[:rapid.IntRange(0, len(x.Set)).Draw(t, "items")]
	}
	return x
}

func (m *machine) name(prefix string) string {
	m.next++
	return fmt.Sprintf("%s%d", prefix, m.next)
}

func pick[T any](t *rapid.T, list []T, label string) T {
	if len(list) == 0 {
		t.Skip("no " + label)
	}
	return rapid.SampledFrom(list).Draw(t, label)
}

func (m *machine) SetAgent(t *rapid.T) {
	id := pick(t, agentNames, "agent")
	m.totals[id] = genTotal(t)
	m.l.SetAgent(id, m.totals[id])
	m.l.SetAgentActive(id, rapid.IntRange(0, 5).Draw(t, "active") > 0)
}

func (m *machine) SetFramework(t *rapid.T) {
	f := ledger.Framework{ID: pick(t, frameworkNames, "framework"), Active: rapid.IntRange(0, 5).Draw(t, "active") > 0}
	for _, r := range roleNames {
		if rapid.IntRange(0, 3).Draw(t, "subscribed") > 0 {
			f.Roles = append(f.Roles, r)
			if rapid.IntRange(0, 5).Draw(t, "suppressed") == 0 {
				f.Suppressed = append(f.Suppressed, r)
			}
		}
	}
	if f.Capabilities = allCapabilities; rapid.IntRange(0, 3).Draw(t, "capable") == 0 {
		f.Capabilities = 0
	}
	m.l.SetFramework(f)
}

func (m *machine) SetLimit(t *rapid.T) {
	role := pick(t, roleNames, "role")
	if rapid.IntRange(0, 2).Draw(t, "remove") == 0 {
		delete(m.limits, role)
		m.l.RemoveLimit(role)
		return
	}
	limit := resource.Quantities{{Name: "cpus", Amount: resource.Scalar(rapid.Int64Range(0, 20000).Draw(t, "limit"))}}
	m.limits[role] = limit
	m.l.SetLimit(role, limit)
}

// Offer proposes a part of an agent's total. It must be refused exactly when the
// rules say so as far as this test restates them, and leave the books alone then.
func (m *machine) Offer(t *rapid.T) {
	agent := pick(t, agentNames, "agent")
	source := m.l.Free(agent)
	if rapid.IntRange(0, 5).Draw(t, "rash") == 0 {
		source = m.totals[agent]
	}
	role := pick(t, roleNames, "role")
	if rapid.Bool().Draw(t, "fitting") {
		source = source.AllocatableTo(role)
	}
	o := ledger.Offer{ID: m.name("O"), Agent: agent, Framework: pick(t, frameworkNames, "framework"), Role: role, Resources: genPart(t, source)}
	before := m.dump()
	free := m.l.Free(agent)
	grown := make(map[string]resource.Scalar)
	for r := range m.limits {
		grown[r] = m.consumed(r)
	}
	r := m.l.Offer(o)
	if r != nil {
		if now := m.dump(); now != before {
			t.Fatalf("a refused offer (%s) changed the books from\n%s\nto\n%s", r, before, now)
		}
		return
	}
	m.offers = append(m.offers, o.ID)
	if !free.Contains(o.Resources) {
		t.Fatalf("%v was offered, and only %v was free", o.Resources, free)
	}
	for name, limit := range m.limits {
		if now := m.consumed(name); now > grown[name] && now > limit.Get("cpus") {
			t.Fatalf("role %s consumes cpus:%s by an offer to role %s; its limit is %s", name, now, role, limit)
		}
	}
}

func (m *machine) Withdraw(t *rapid.T) {
	id := pick(t, m.offers, "offer")
	m.offers = slices.DeleteFunc(m.offers, func(o string) bool { return o == id })
	if _, ok := m.l.Withdraw(id); !ok {
		t.Fatalf("offer %s is not there", id)
	}
}

func (m *machine) Use(t *rapid.T) {
	o, _ := m.l.OfferOf(pick(t, m.offers, "offer"))
	ids := []string{o.ID}
	all := o.Resources
	for _, other := range m.l.OffersOn(o.Agent) {
		if other.ID != o.ID && other.Framework == o.Framework && other.Role == o.Role {
			ids = append(ids, other.ID)
			all = all.Add(other.Resources)
		}
	}
	key := ledger.Key{Agent: o.Agent, Framework: o.Framework, Kind: ledger.Task, ID: m.name("T")}
	part := genPart(t, all)
	before, dump := m.used(o.Agent), m.dump()
	if err := m.l.Use(ids, key, part.Allocate(o.Role)); err != nil {
		// Right only if the agent has reported what contradicts its offers.
		if m.l.Excess(o.Agent).IsEmpty() && !twice(before, part) {
			t.Fatalf("%s, from %s: %v", part, all, err)
		}
		if now := m.dump(); now != dump {
			t.Fatalf("a failed use changed the books from\n%s\nto\n%s", dump, now)
		}
		return
	}
	m.uses = append(m.uses, key)
	total := m.totals[o.Agent]
	if twice(before, part) || total.Contains(before.NonShared()) && !total.Contains(m.used(o.Agent).NonShared()) {
		t.Fatalf("by using %v of an offer, %v is used of %v", part, m.used(o.Agent), total)
	}
}

func (m *machine) used(agent string) resource.Resources {
	a, _ := m.l.Agent(agent)
	return a.Used
}

// twice reports whether a number or item is in both.
func twice(a, b resource.Resources) bool {
	for _, r := range a.Intersect(b) {
		if r.Kind.Type() != resource.TypeScalar {
			return true
		}
	}
	return false
}

func (m *machine) UseTooMuch(t *rapid.T) {
	o, _ := m.l.OfferOf(pick(t, m.offers, "offer"))
	key := ledger.Key{Agent: o.Agent, Framework: o.Framework, Kind: ledger.Task, ID: m.name("T")}
	before := m.dump()
	if err := m.l.Use([]string{o.ID}, key, o.Resources.Add(parse("mem:1;cpus:0.001"))); err == nil {
		t.Fatal("more than is in an offer is used")
	}
	if now := m.dump(); now != before {
		t.Fatalf("a failed use changed the books from\n%s\nto\n%s", before, now)
	}
}

func (m *machine) Release(t *rapid.T) {
	key := pick(t, m.uses, "use")
	m.uses = slices.DeleteFunc(m.uses, func(k ledger.Key) bool { return k == key })
	if _, ok := m.l.Release(key); !ok {
		t.Fatalf("%s is not there", key)
	}
}

// Recover enters a use without an offer, of things that may be held already or
// not be there at all.
func (m *machine) Recover(t *rapid.T) {
	key := ledger.Key{Agent: pick(t, agentNames, "agent"), Framework: pick(t, frameworkNames, "framework"), Kind: ledger.Executor, ID: m.name("E")}
	err := m.l.Recover(key, pick(t, roleNames, "role"), genPart(t, genTotal(t)))
	if (err == nil) != (m.totals[key.Agent] != nil) {
		t.Fatalf("%s: %v", key, err)
	}
	if err == nil {
		m.uses = append(m.uses, key)
	}
}

func (m *machine) Convert(t *rapid.T) {
	c := ledger.Conversion{Agent: pick(t, agentNames, "agent"), IgnoreLimits: rapid.Bool().Draw(t, "ignore limits")}
	source, role := m.l.Free(c.Agent), "d"
	if len(m.offers) > 0 && rapid.Bool().Draw(t, "offered") {
		o, _ := m.l.OfferOf(pick(t, m.offers, "offer"))
		c.Agent, c.Offers, source, role = o.Agent, []string{o.ID}, o.Resources, o.Role
	}
	if len(source) == 0 {
		t.Skip("nothing to convert")
	}
	x := partOf(t, pick(t, source, "resource"))
	if x.Kind.Atomic() {
		x.Count = 1
	}
	c.From = resource.Of(x)
	reserved := x.Kind.IsReserved()
	switch {
	case len(c.From) == 0 || x.Kind.Revocable():
		t.Skip("nothing to convert")
	case x.Kind.Atomic():
		x.Kind, x.Count = x.Kind.WithDisk(nil).WithShared(false), 0
		c.To = resource.Of(x)
	case reserved && x.Kind.Name() == "disk" && rapid.Bool().Draw(t, "create"):
		c.To = volumeOf(c.From, m.name("v"), rapid.Bool().Draw(t, "shared"))
	case reserved:
		c.To = c.From.Pop()
	case role == "*":
		t.Skip("* has no reservations")
	default:
		c.To = c.From.Push(resource.Reservation{Role: role, Dynamic: true})
	}
	before := m.dump()
	if err := m.l.Convert(c); err != nil {
		if now := m.dump(); now != before {
			t.Fatalf("a failed conversion (%v) changed the books from\n%s\nto\n%s", err, before, now)
		}
		return
	}
	m.totals[c.Agent] = m.totals[c.Agent].Minus(c.From).Add(c.To)
}

func (m *machine) RemoveAgent(t *rapid.T) {
	if rapid.IntRange(0, 4).Draw(t, "really") > 0 {
		t.Skip("rarely")
	}
	id := pick(t, agentNames, "agent")
	m.l.RemoveAgent(id)
	delete(m.totals, id)
	m.offers = slices.DeleteFunc(m.offers, func(o string) bool { _, ok := m.l.OfferOf(o); return !ok })
	m.uses = slices.DeleteFunc(m.uses, func(k ledger.Key) bool { return k.Agent == id })
}

func (m *machine) RemoveFramework(t *rapid.T) {
	if rapid.IntRange(0, 4).Draw(t, "really") > 0 {
		t.Skip("rarely")
	}
	m.l.RemoveFramework(pick(t, frameworkNames, "framework"))
	m.offers = slices.DeleteFunc(m.offers, func(o string) bool { _, ok := m.l.OfferOf(o); return !ok })
}

// Check runs after every operation.
func (m *machine) Check(t *rapid.T) {
	if err := m.l.Audit(); err != nil {
		t.Fatalf("the books are wrong: %v\n%s", err, m.dump())
	}
	for id, total := range m.totals {
		a, ok := m.l.Agent(id)
		if !ok || !a.Total.Equal(total) {
			t.Fatalf("agent %s has the total %v, want %v", id, a.Total, total)
		}
		held := a.Offered.Add(a.Used).NonShared()
		if m.l.Excess(id).IsEmpty() && !a.Free.NonShared().Add(held).Equal(total.NonShared()) {
			t.Fatalf("agent %s: free %v and held %v are not %v", id, a.Free, held, total)
		}
	}
	var sum resource.Quantities
	for _, total := range m.totals {
		sum = sum.Add(total.Quantities())
	}
	if total, _ := m.l.Cluster(); !total.Equal(sum) {
		t.Fatalf("the cluster has %v, and its agents %v", total, sum)
	}
	for _, role := range roleNames {
		if got, want := m.l.RoleTotals(role).Consumed.Get("cpus"), m.consumed(role); got != want {
			t.Fatalf("role %s consumes cpus:%s by the books and cpus:%s by the rules", role, got, want)
		}
	}
}

// consumed works out from the rules what CPUs a role consumes.
func (m *machine) consumed(role string) resource.Scalar {
	var sum resource.Scalar
	reserved := func(k resource.Kind) bool { return k.IsReserved() && resource.IsAncestorOrSelf(role, k.Role()) }
	for _, total := range m.totals {
		sum += total.Filter(reserved).Get("cpus")
	}
	charge := func(holder string, r resource.Resources) {
		if resource.IsAncestorOrSelf(role, holder) {
			sum += r.NonRevocable().NonShared().Filter(func(k resource.Kind) bool { return !reserved(k) }).Get("cpus")
		}
	}
	for id := range m.totals {
		for _, o := range m.l.OffersOn(id) {
			charge(o.Role, o.Resources)
		}
		for _, u := range m.l.UsesOn(id) {
			charge(u.Role, u.Resources)
		}
	}
	return sum
}

func (m *machine) dump() string {
	var b strings.Builder
	for _, id := range m.l.Agents() {
		a, _ := m.l.Agent(id)
		fmt.Fprintf(&b, "%s %v\n offers %v\n uses %v\n holdings %v\n", id, a, m.l.OffersOn(id), m.l.UsesOn(id), m.l.HoldingsOn(id))
	}
	for _, id := range frameworkNames {
		fmt.Fprintf(&b, "%s %v on %v\n", id, m.l.FrameworkTotals(id), m.l.AgentsOf(id))
	}
	for _, role := range m.l.Roles() {
		fmt.Fprintf(&b, "%s %v\n", role, m.l.RoleTotals(role))
	}
	total, held := m.l.Cluster()
	fmt.Fprintf(&b, "%v %v\n", total, held)
	return b.String()
}

// TestBooksStayRight runs random operations and audits after each.
func TestBooksStayRight(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := &machine{l: ledger.New(), totals: make(map[string]resource.Resources), limits: make(map[string]resource.Quantities)}
		for range 3 {
			m.SetAgent(t)
			m.SetFramework(t)
		}
		actions := rapid.StateMachineActions(m)
		// What there is most of in a cluster is done most here.
		actions["Offer again"], actions["Offer more"], actions["Use again"] = m.Offer, m.Offer, m.Use
		t.Repeat(actions)
	})
}
