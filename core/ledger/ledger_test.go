package ledger_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

	"github.com/mezzo-os/mezzo/core/ledger"
	allocatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/allocator/v1"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
	"github.com/mezzo-os/mezzo/sdk/resource"
)

var parse = resource.MustParse

const allCapabilities = ledger.RevocableResources | ledger.GPUResources | ledger.SharedResources | ledger.ReservationRefinement

// books returns a ledger with the active agent A of this total and the active
// framework F of all capabilities in the roles *, a, a/b and c.
func books(total string) *ledger.Ledger {
	l := ledger.New()
	l.SetAgent("A", parse(total))
	l.SetAgentActive("A", true)
	l.SetFramework(ledger.Framework{ID: "F", Roles: []string{"*", "a", "a/b", "c"}, Capabilities: allCapabilities, Active: true})
	return l
}

func offer(id, role, text string) ledger.Offer {
	return ledger.Offer{ID: id, Agent: "A", Framework: "F", Role: role, Resources: parse(text)}
}

func task(id string) ledger.Key {
	return ledger.Key{Agent: "A", Framework: "F", Kind: ledger.Task, ID: id}
}

func mustOffer(t *testing.T, l *ledger.Ledger, o ledger.Offer) {
	t.Helper()
	if r := l.Offer(o); r != nil {
		t.Fatalf("offer %s: %v", o.ID, r)
	}
	audit(t, l)
}

func must(t *testing.T, l *ledger.Ledger, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	audit(t, l)
}

func audit(t *testing.T, l *ledger.Ledger) {
	t.Helper()
	if err := l.Audit(); err != nil {
		t.Fatalf("the books are wrong: %v", err)
	}
}

// state writes the books of agent A in one line.
func state(l *ledger.Ledger) string {
	a, _ := l.Agent("A")
	return fmt.Sprintf("free %s | offered %s | used %s", a.Free, a.Offered, a.Used)
}

func wantState(t *testing.T, l *ledger.Ledger, want string) {
	t.Helper()
	if got := state(l); got != want {
		t.Errorf("the books are\n%s\nwant\n%s", got, want)
	}
}

func TestLifeOfAnOffer(t *testing.T) {
	l := books("cpus:4;mem:1024;ports:[1-100]")
	mustOffer(t, l, offer("O", "a", "cpus:4;mem:1024;ports:[1-100]"))
	wantState(t, l, "free  | offered cpus:4;mem:1024;ports:[1-100] | used ")
	must(t, l, l.Use([]string{"O"}, task("T"), parse("cpus:1;ports:[5-6]").Allocate("a")))
	wantState(t, l, "free  | offered cpus:3;mem:1024;ports:[1-4,7-100] | used cpus:1;ports:[5-6]")
	rest, ok := l.Withdraw("O")
	if !ok || rest.Resources.String() != "cpus:3;mem:1024;ports:[1-4,7-100]" || rest.Framework != "F" {
		t.Errorf("withdrew %v, %v", rest, ok)
	}
	wantState(t, l, "free cpus:3;mem:1024;ports:[1-4,7-100] | offered  | used cpus:1;ports:[5-6]")
	use, ok := l.Release(task("T"))
	if !ok || use.Resources.String() != "cpus:1;ports:[5-6]" || use.Role != "a" {
		t.Errorf("released %v, %v", use, ok)
	}
	wantState(t, l, "free cpus:4;mem:1024;ports:[1-100] | offered  | used ")
	if _, ok := l.Withdraw("O"); ok {
		t.Error("an offer is withdrawn twice")
	}
	if _, ok := l.Release(task("T")); ok {
		t.Error("a task is released twice")
	}
	audit(t, l)
	if roles := l.Roles(); len(roles) != 0 {
		t.Errorf("roles %v are left over", roles)
	}
}

func TestUseFromSeveralOffers(t *testing.T) {
	l := books("cpus:4;mem:100")
	mustOffer(t, l, offer("1", "a", "cpus:1;mem:100"))
	mustOffer(t, l, offer("2", "a", "cpus:3"))
	must(t, l, l.Use([]string{"1", "2"}, task("T"), parse("cpus:2;mem:10")))
	one, _ := l.OfferOf("1")
	two, _ := l.OfferOf("2")
	if one.Resources.String() != "mem:90" || two.Resources.String() != "cpus:2" {
		t.Errorf("left are %v and %v", one.Resources, two.Resources)
	}
}

func TestUseErrors(t *testing.T) {
	l := books("cpus:4")
	mustOffer(t, l, offer("1", "a", "cpus:1"))
	mustOffer(t, l, offer("2", "c", "cpus:1"))
	must(t, l, l.Use([]string{"1"}, task("T"), parse("cpus:0.5")))
	before := state(l)
	other := task("U")
	other.Framework = "G"
	for _, c := range []struct {
		name   string
		offers []string
		key    ledger.Key
		take   string
		want   error
		text   string
	}{
		{"unknown offer", []string{"1", "9"}, task("U"), "cpus:0.1", ledger.ErrUnknownOffer,
			"task U of framework F on agent A: offer 9: the offer is not outstanding"},
		{"roles differ", []string{"1", "2"}, task("U"), "cpus:0.1", ledger.ErrMismatch,
			"task U of framework F on agent A: offers 1 and 2 are of different agents, frameworks or roles: the parts do not belong together"},
		{"named twice", []string{"1", "1"}, task("U"), "cpus:0.1", ledger.ErrMismatch,
			"task U of framework F on agent A: offer 1 is named twice: the parts do not belong together"},
		{"no offer", nil, task("U"), "cpus:0.1", ledger.ErrMismatch,
			"task U of framework F on agent A: its offers are of another agent or framework: the parts do not belong together"},
		{"other framework", []string{"1"}, other, "cpus:0.1", ledger.ErrMismatch,
			"task U of framework G on agent A: its offers are of another agent or framework: the parts do not belong together"},
		{"too much", []string{"1"}, task("U"), "cpus:0.6", ledger.ErrNotHeld,
			"task U of framework F on agent A: cpus:0.1 is not in the offers: the resources are not there"},
		{"same key", []string{"1"}, task("T"), "cpus:0.1", ledger.ErrExists,
			"task T of framework F on agent A: it exists already"},
	} {
		err := l.Use(c.offers, c.key, parse(c.take))
		if !errors.Is(err, c.want) || err.Error() != c.text {
			t.Errorf("%s: %v", c.name, err)
		}
		if now := state(l); now != before {
			t.Errorf("%s: the books changed to %s", c.name, now)
		}
		audit(t, l)
	}
}

func TestRefusals(t *testing.T) {
	sharedVolume := `disk(a){"disk":{"persistence":{"id":"v"},"volume":{"container_path":"p","mode":"RW"}},"shared":{}}:64`
	refined := `cpus(a)(a/b, dyn):1`
	total := `cpus:4;mem:1024;gpus:1;cpus(a):2;cpus{"revocable":{}}:8;` + sharedVolume + ";" + refined
	for _, c := range []struct {
		name    string
		offer   ledger.Offer
		arrange func(*ledger.Ledger)
		reason  allocatorv1.RefusalReason
		text    string
	}{
		{"no id", offer("", "a", "cpus:1"), nil, allocatorv1.RefusalReason_REFUSAL_REASON_MALFORMED, "the offer has no id"},
		{"twice", offer("O", "a", "cpus:1"), func(l *ledger.Ledger) { l.Offer(offer("O", "a", "cpus:1")) },
			allocatorv1.RefusalReason_REFUSAL_REASON_MALFORMED, "offer O is outstanding already"},
		{"empty", offer("O", "a", ""), nil, allocatorv1.RefusalReason_REFUSAL_REASON_MALFORMED, "offer O is empty"},
		{"unknown agent", ledger.Offer{ID: "O", Agent: "B", Framework: "F", Role: "a", Resources: parse("cpus:1")}, nil,
			allocatorv1.RefusalReason_REFUSAL_REASON_UNKNOWN_AGENT, "agent B is not known"},
		{"inactive agent", offer("O", "a", "cpus:1"), func(l *ledger.Ledger) { l.SetAgentActive("A", false) },
			allocatorv1.RefusalReason_REFUSAL_REASON_AGENT_INACTIVE, "agent A is not active; nothing of it may be offered"},
		{"unknown framework", offer("O", "a", "cpus:1"), func(l *ledger.Ledger) { l.RemoveFramework("F") },
			allocatorv1.RefusalReason_REFUSAL_REASON_UNKNOWN_FRAMEWORK, "framework F is not known"},
		{"framework of reported tasks only", offer("O", "a", "cpus:1"), func(l *ledger.Ledger) {
			l.RemoveFramework("F")
			_ = l.Recover(task("T"), "a", parse("cpus:1"))
		}, allocatorv1.RefusalReason_REFUSAL_REASON_UNKNOWN_FRAMEWORK, "framework F is not known"},
		{"inactive framework", offer("O", "a", "cpus:1"), func(l *ledger.Ledger) {
			l.SetFramework(ledger.Framework{ID: "F", Roles: []string{"a"}})
		}, allocatorv1.RefusalReason_REFUSAL_REASON_FRAMEWORK_INACTIVE, "framework F is not connected"},
		{"other role", offer("O", "d", "cpus:1"), nil, allocatorv1.RefusalReason_REFUSAL_REASON_ROLE, "framework F is not subscribed to role d"},
		{"suppressed", offer("O", "a", "cpus:1"), func(l *ledger.Ledger) {
			l.SetFramework(ledger.Framework{ID: "F", Roles: []string{"a"}, Suppressed: []string{"a"}, Active: true})
		}, allocatorv1.RefusalReason_REFUSAL_REASON_SUPPRESSED, "framework F has suppressed offers in role a"},
		{"more than is free", offer("O", "a", "cpus:2;mem:2000"), func(l *ledger.Ledger) { l.Offer(offer("P", "c", "cpus:3;gpus:1")) },
			allocatorv1.RefusalReason_REFUSAL_REASON_NOT_FREE, `cpus:1;mem:976 is not free on agent A; free of cpus and mem is cpus:1;cpus{"revocable":{}}:8;cpus(a):2;` + refined + ";mem:1024"},
		{"reserved to another", offer("O", "c", "cpus(a):1"), nil, allocatorv1.RefusalReason_REFUSAL_REASON_RESERVED,
			"cpus(a):1 is reserved to role a, which is neither role c nor an ancestor of it"},
		{"reserved to a child", offer("O", "a", refined), nil, allocatorv1.RefusalReason_REFUSAL_REASON_RESERVED,
			refined + " is reserved to role a/b, which is neither role a nor an ancestor of it"},
		{"revocable", offer("O", "a", `cpus{"revocable":{}}:1`), without(ledger.RevocableResources), allocatorv1.RefusalReason_REFUSAL_REASON_CAPABILITY,
			`cpus{"revocable":{}}:1 can only be offered to frameworks with the capability REVOCABLE_RESOURCES, which framework F has not`},
		{"shared", offer("O", "a", sharedVolume), without(ledger.SharedResources), allocatorv1.RefusalReason_REFUSAL_REASON_CAPABILITY,
			sharedVolume + " can only be offered to frameworks with the capability SHARED_RESOURCES, which framework F has not"},
		{"refined", offer("O", "a/b", refined), without(ledger.ReservationRefinement), allocatorv1.RefusalReason_REFUSAL_REASON_CAPABILITY,
			refined + " can only be offered to frameworks with the capability RESERVATION_REFINEMENT, which framework F has not"},
		{"gpus", offer("O", "a", "gpus:1"), without(ledger.GPUResources), allocatorv1.RefusalReason_REFUSAL_REASON_CAPABILITY,
			"gpus:1 can only be offered to frameworks with the capability GPU_RESOURCES, which framework F has not"},
		{"own limit", offer("O", "a/b", "cpus:2"), func(l *ledger.Ledger) { l.SetLimit("a/b", cpus(2500)) },
			allocatorv1.RefusalReason_REFUSAL_REASON_LIMIT, "the limit of role a/b is cpus:2.5; it consumes 1, and 2 more would exceed it"},
		{"limit above", offer("O", "a/b", "cpus:2"), func(l *ledger.Ledger) { l.SetLimit("a", cpus(4500)) },
			allocatorv1.RefusalReason_REFUSAL_REASON_LIMIT, "the limit of role a is cpus:4.5; it consumes 3, and 2 more would exceed it"},
		{"forbidden by zero", offer("O", "c", "mem:1"), func(l *ledger.Ledger) { l.SetLimit("c", []resource.Quantity{{Name: "mem"}}) },
			allocatorv1.RefusalReason_REFUSAL_REASON_LIMIT, "the limit of role c is mem:0; it consumes 0, and 1 more would exceed it"},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := books(total)
			if c.arrange != nil {
				c.arrange(l)
			}
			before := state(l)
			r := l.Offer(c.offer)
			if r == nil {
				t.Fatal("the offer is made")
			}
			if got := allocatorv1.RefusalReason(r.Reason); got != c.reason || r.Message != c.text {
				t.Errorf("refused as %v: %s\nwant       %v: %s", got, r.Message, c.reason, c.text)
			}
			if diff := cmp.Diff(before, state(l)); diff != "" {
				t.Errorf("the books changed: %s", diff)
			}
			audit(t, l)
		})
	}
}

func without(c ledger.Capabilities) func(*ledger.Ledger) {
	return func(l *ledger.Ledger) {
		l.SetFramework(ledger.Framework{ID: "F", Roles: []string{"a", "a/b"}, Capabilities: allCapabilities &^ c, Active: true})
	}
}

func cpus(thousandths resource.Scalar) []resource.Quantity {
	return []resource.Quantity{{Name: "cpus", Amount: thousandths}}
}

func TestReasonsAreThoseOfTheContract(t *testing.T) {
	for reason, name := range map[ledger.Reason]string{
		ledger.UnknownAgent: "UNKNOWN_AGENT", ledger.AgentInactive: "AGENT_INACTIVE", ledger.UnknownFramework: "UNKNOWN_FRAMEWORK",
		ledger.FrameworkInactive: "FRAMEWORK_INACTIVE", ledger.Role: "ROLE", ledger.Suppressed: "SUPPRESSED", ledger.NotFree: "NOT_FREE",
		ledger.Reserved: "RESERVED", ledger.Capability: "CAPABILITY", ledger.Limit: "LIMIT", ledger.Malformed: "MALFORMED",
		ledger.RevocationTask: "REVOCATION_TASK", ledger.RevocationGuarantee: "REVOCATION_GUARANTEE",
	} {
		if got := allocatorv1.RefusalReason(reason).String(); got != "REFUSAL_REASON_"+name {
			t.Errorf("%s is %s in the contract", name, got)
		}
	}
}

func TestLimitsCountWhatARoleConsumes(t *testing.T) {
	l := books(`cpus:10;cpus(a):2;cpus(a/b):3;cpus{"revocable":{}}:50`)
	l.SetLimit("a", cpus(9*resource.Unit))
	consumed := func(role, want string) {
		t.Helper()
		if got := l.RoleTotals(role).Consumed.String(); got != want {
			t.Errorf("role %s consumes %q, want %q", role, got, want)
		}
	}
	consumed("a", "cpus:5")
	// What is reserved to the role is counted already; what is reserved above it
	// counts when it is held.
	mustOffer(t, l, offer("1", "a/b", "cpus(a):2;cpus(a/b):3"))
	consumed("a", "cpus:5")
	consumed("a/b", "cpus:5")
	mustOffer(t, l, offer("2", "a/b", "cpus:1"))
	mustOffer(t, l, offer("3", "a", `cpus:3;cpus{"revocable":{}}:50`))
	consumed("a", "cpus:9")
	consumed("a/b", "cpus:6")
	if r := l.CheckOffer(offer("4", "a", "cpus:0.001")); r == nil || r.Reason != ledger.Limit {
		t.Errorf("beyond the limit: %v", r)
	}
	if r := l.CheckOffer(offer("4", "c", "cpus:1")); r != nil {
		t.Errorf("another role: %v", r)
	}
	l.Withdraw("2")
	consumed("a", "cpus:8")
	// A limit below what is consumed forbids more of that name and nothing else.
	l.SetLimit("a", cpus(1*resource.Unit))
	if r := l.CheckOffer(offer("4", "a", "cpus:1")); r == nil || r.Reason != ledger.Limit {
		t.Errorf("beyond the lowered limit: %v", r)
	}
	l.RemoveLimit("a")
	if _, limited := l.Limit("a"); limited {
		t.Error("the limit is still there")
	}
	if r := l.CheckOffer(offer("4", "a", "cpus:1")); r != nil {
		t.Errorf("without a limit: %v", r)
	}
	audit(t, l)
}

func TestSharedResources(t *testing.T) {
	volume := `disk(a){"disk":{"persistence":{"id":"v"},"volume":{"container_path":"p","mode":"RW"}},"shared":{}}:64`
	l := books("cpus:4;" + volume)
	mustOffer(t, l, offer("1", "a", "cpus:1;"+volume))
	mustOffer(t, l, offer("2", "a", volume))
	must(t, l, l.Use([]string{"1"}, task("T"), parse("cpus:0.5;"+volume)))
	must(t, l, l.Use([]string{"1"}, task("U"), parse("cpus:0.5;"+volume)))
	if free := l.Free("A").String(); free != "cpus:3;"+volume {
		t.Errorf("free is %s", free)
	}
	if used := l.FrameworkTotals("F").Used.String(); used != "cpus:1" {
		t.Errorf("used is %s", used)
	}
	if got := l.RoleTotals("a"); got.Reserved.String() != "disk:64" || got.Consumed.String() != "cpus:1;disk:64" {
		t.Errorf("the role's totals are %v", got)
	}
	l.Withdraw("1")
	err := l.Convert(ledger.Conversion{Agent: "A", Offers: []string{"2"}, From: parse(volume), To: parse("disk(a):64")})
	if !errors.Is(err, ledger.ErrInUse) {
		t.Errorf("a volume in use is destroyed: %v", err)
	}
	l.Release(task("T"))
	l.Release(task("U"))
	must(t, l, l.Convert(ledger.Conversion{Agent: "A", Offers: []string{"2"}, From: parse(volume), To: parse("disk(a):64")}))
	wantState(t, l, "free cpus:4 | offered disk(a):64 | used ")
	if err := l.Use([]string{"2"}, task("V"), parse(volume)); !errors.Is(err, ledger.ErrNotHeld) {
		t.Errorf("a volume that is gone is used: %v", err)
	}
}

func TestConvert(t *testing.T) {
	dynamic := func(role string, r resource.Resources) resource.Resources {
		return r.Push(resource.Reservation{Role: role, Dynamic: true})
	}
	l := books("cpus:4;disk:100")
	mustOffer(t, l, offer("1", "a", "cpus:1"))
	mustOffer(t, l, offer("2", "a", "cpus:3;disk:100"))
	from := parse("cpus:2")
	must(t, l, l.Convert(ledger.Conversion{Agent: "A", Offers: []string{"1", "2"}, From: from, To: dynamic("a", from)}))
	one, _ := l.OfferOf("1")
	if !one.Resources.Equal(dynamic("a", from)) {
		t.Errorf("offer 1 has %v", one.Resources)
	}
	view, _ := l.Agent("A")
	if got := view.Total.Reserved(); !got.Equal(dynamic("a", from)) {
		t.Errorf("reserved in the total is %v", got)
	}
	disk := dynamic("a", parse("disk:60"))
	must(t, l, l.Convert(ledger.Conversion{Agent: "A", Offers: []string{"2"}, From: parse("disk:60"), To: disk}))
	volume := disk.Map(func(k resource.Kind) resource.Kind {
		return k.WithDisk(&mezzov1.Resource_DiskInfo{Persistence: &mezzov1.Resource_DiskInfo_Persistence{Id: proto.String("v")}})
	})
	volume[0].Count = 1
	must(t, l, l.Convert(ledger.Conversion{Agent: "A", Offers: []string{"2"}, From: disk, To: volume}))
	must(t, l, l.Use([]string{"2"}, task("T"), volume))

	l.Withdraw("1")
	l.Withdraw("2")
	// An operator's, of what is free.
	must(t, l, l.Convert(ledger.Conversion{Agent: "A", From: dynamic("a", from), To: from}))
	if got := l.Free("A").String(); got != "cpus:4;disk:40" {
		t.Errorf("free is %s", got)
	}
	if got := l.RoleTotals("a").Reserved.String(); got != "disk:60" {
		t.Errorf("reserved to a is %s", got)
	}
}

func TestConvertErrors(t *testing.T) {
	l := books("cpus:4;ports:[1-9];cpus(a):1")
	l.SetLimit("a", cpus(2*resource.Unit))
	mustOffer(t, l, offer("1", "c", "cpus:2"))
	before := state(l)
	for _, c := range []struct {
		name string
		conv ledger.Conversion
		want error
		text string
	}{
		{"unknown agent", ledger.Conversion{Agent: "B"}, ledger.ErrUnknownAgent, "agent B: the agent is not known"},
		{"unknown offer", ledger.Conversion{Agent: "A", Offers: []string{"9"}}, ledger.ErrUnknownOffer, "offer 9: the offer is not outstanding"},
		{"nothing", ledger.Conversion{Agent: "A"}, ledger.ErrMismatch, "a conversion of nothing: the parts do not belong together"},
		{"amounts", ledger.Conversion{Agent: "A", From: parse("cpus:1"), To: parse("cpus(a):2")}, ledger.ErrMismatch,
			"cpus:1 cannot become cpus(a):2, the amounts differ: the parts do not belong together"},
		{"ports", ledger.Conversion{Agent: "A", From: parse("ports:[1-2]"), To: parse("ports(a):[1-3]")}, ledger.ErrMismatch,
			"ports:[1-2] cannot become ports(a):[1-3], the ports differ: the parts do not belong together"},
		{"not in total", ledger.Conversion{Agent: "A", From: parse("cpus:5"), To: parse("cpus(a):5")}, ledger.ErrNotHeld,
			"cpus:1 is not in the total of agent A: the resources are not there"},
		{"not free", ledger.Conversion{Agent: "A", From: parse("cpus:3"), To: parse("cpus(a):3")}, ledger.ErrNotHeld,
			"cpus:1 is not free on agent A: the resources are not there"},
		{"not offered", ledger.Conversion{Agent: "A", Offers: []string{"1"}, From: parse("cpus:3"), To: parse("cpus(c):3")}, ledger.ErrNotHeld,
			"cpus:1 is not in the offers: the resources are not there"},
	} {
		if err := l.Convert(c.conv); !errors.Is(err, c.want) || err.Error() != c.text {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	over := ledger.Conversion{Agent: "A", From: parse("cpus:2"), To: parse("cpus(a):2")}
	var refusal *ledger.Refusal
	if err := l.Convert(over); !errors.As(err, &refusal) || refusal.Reason != ledger.Limit ||
		refusal.Message != "the limit of role a is cpus:2; it consumes 1, and 2 more would exceed it" {
		t.Errorf("a reservation beyond the limit: %v", err)
	}
	if now := state(l); now != before {
		t.Errorf("the books changed to %s", now)
	}
	over.IgnoreLimits = true
	must(t, l, l.Convert(over))
	if got := l.RoleTotals("a").Consumed.String(); got != "cpus:3" {
		t.Errorf("role a consumes %s", got)
	}
}

func TestRecoverBeyondTheTotal(t *testing.T) {
	l := books("cpus:2;ports:[1-10]")
	must(t, l, l.Recover(task("T"), "a", parse("cpus:3;mem:10;ports:[1-5]")))
	must(t, l, l.Recover(task("U"), "a", parse("ports:[5-6]")))
	wantState(t, l, "free ports:[7-10] | offered  | used cpus:3;mem:10;ports:[1-6]")
	if got := l.Excess("A").String(); got != "cpus:1;mem:10" {
		t.Errorf("the excess is %s", got)
	}
	if err := l.Recover(task("T"), "a", nil); !errors.Is(err, ledger.ErrExists) {
		t.Errorf("recovered twice: %v", err)
	}
	if err := l.Recover(ledger.Key{Agent: "B", Framework: "F", Kind: ledger.Executor, ID: "E"}, "a", nil); !errors.Is(err, ledger.ErrUnknownAgent) {
		t.Errorf("recovered on an unknown agent: %v", err)
	}
	l.Release(task("T"))
	wantState(t, l, "free cpus:2;ports:[1-4,7-10] | offered  | used ports:[5-6]")
	audit(t, l)
	l.Release(task("U"))
	wantState(t, l, "free cpus:2;ports:[1-10] | offered  | used ")
	audit(t, l)
}

// TestOffersThatAgentsContradict checks that what an agent has no longer, or
// reports as used, is not used because an old offer has it.
func TestOffersThatAgentsContradict(t *testing.T) {
	for _, c := range []struct {
		name   string
		report func(*ledger.Ledger) error
		take   string
		text   string
	}{
		{"a smaller total", func(l *ledger.Ledger) error { l.SetAgent("A", parse("cpus:3;ports:[1-9]")); return nil }, "cpus:1",
			"task U of framework F on agent A: cpus:1 is in an offer and agent A has it no more: the resources are not there"},
		{"a task", func(l *ledger.Ledger) error { return l.Recover(task("T"), "a", parse("cpus:2")) }, "cpus:3",
			"task U of framework F on agent A: cpus:2 is in an offer and agent A has it no more: the resources are not there"},
		{"a task's port", func(l *ledger.Ledger) error { return l.Recover(task("T"), "a", parse("ports:[5]")) }, "ports:[4-6]",
			"task U of framework F on agent A: ports:[5-5] is in an offer and agent A has it no more: the resources are not there"},
	} {
		l := books("cpus:4;ports:[1-9]")
		mustOffer(t, l, offer("1", "a", "cpus:4;ports:[1-9]"))
		must(t, l, c.report(l))
		if err := l.Use([]string{"1"}, task("U"), parse(c.take)); !errors.Is(err, ledger.ErrNotHeld) || err.Error() != c.text {
			t.Errorf("%s: %v", c.name, err)
		}
		from := parse(c.take)
		convert := ledger.Conversion{Agent: "A", Offers: []string{"1"}, From: from, To: from.Push(resource.Reservation{Role: "a", Dynamic: true})}
		if err := l.Convert(convert); !errors.Is(err, ledger.ErrNotHeld) {
			t.Errorf("%s: a conversion: %v", c.name, err)
		}
		must(t, l, l.Use([]string{"1"}, task("V"), parse("ports:[7-9]")))
		l.Withdraw("1")
		audit(t, l)
	}
}

func TestAgentShrinksAndGrows(t *testing.T) {
	l := books("cpus:4")
	mustOffer(t, l, offer("1", "a", "cpus:3"))
	l.SetAgent("A", parse("cpus:2"))
	audit(t, l)
	if got := l.Excess("A").String(); got != "cpus:1" {
		t.Errorf("the excess is %s", got)
	}
	l.Withdraw("1")
	wantState(t, l, "free cpus:2 | offered  | used ")
	l.SetAgent("A", parse("cpus:8"))
	wantState(t, l, "free cpus:8 | offered  | used ")
	if l.CheckOffer(offer("2", "a", "cpus:8")) != nil {
		t.Error("the agent became inactive")
	}
	audit(t, l)
}

func TestRemoveAgentAndFramework(t *testing.T) {
	l := books("cpus:4;cpus(a):1")
	mustOffer(t, l, offer("2", "a", "cpus:1"))
	mustOffer(t, l, offer("1", "a", "cpus:1"))
	must(t, l, l.Use([]string{"2"}, task("T"), parse("cpus:1")))
	offers := l.RemoveFramework("F")
	audit(t, l)
	if len(offers) != 2 || offers[0].ID != "1" || offers[1].ID != "2" {
		t.Errorf("withdrew %v", offers)
	}
	if got := l.FrameworkTotals("F").Used.String(); got != "cpus:1" {
		t.Errorf("a removed framework's task uses %q", got)
	}
	if got := l.AgentsOf("F"); len(got) != 1 || got[0] != "A" {
		t.Errorf("it is on agents %v", got)
	}
	offers, uses := l.RemoveAgent("A")
	audit(t, l)
	if len(offers) != 0 || len(uses) != 1 || uses[0].ID != "T" {
		t.Errorf("removed with %v and %v", offers, uses)
	}
	total, held := l.Cluster()
	if len(total) != 0 || len(held.Used) != 0 || len(l.Roles()) != 0 {
		t.Errorf("left are %v, %v, roles %v", total, held, l.Roles())
	}
}

func TestCommittedLeavesOffersOut(t *testing.T) {
	l := books("cpus:4;cpus(a/b):1;gpus:2")
	mustOffer(t, l, offer("1", "a/b", "cpus:3;cpus(a/b):1"))
	must(t, l, l.Use([]string{"1"}, task("T"), parse("cpus:2")))
	mustOffer(t, l, offer("2", "c", "cpus:1"))
	for role, want := range map[string]string{"a": "cpus:3", "a/b": "cpus:3", "c": "", "d": ""} {
		if got := l.Committed(role).String(); got != want {
			t.Errorf("role %s has committed %q, want %q", role, got, want)
		}
	}
}

func TestCheckRevocation(t *testing.T) {
	l := books("cpus:4;cpus(c):1")
	l.SetGuarantee("a", resource.Quantities(cpus(2*resource.Unit)))
	mustOffer(t, l, offer("1", "a/b", "cpus:3"))
	must(t, l, l.Use([]string{"1"}, task("T"), parse("cpus:2")))
	must(t, l, l.Use([]string{"1"}, task("U"), parse("cpus:1")))
	if r := l.CheckRevocation(task("U")); r != nil {
		t.Errorf("what is above the guarantee: %v", r)
	}
	r := l.CheckRevocation(task("T"))
	if r == nil || r.Reason != ledger.RevocationGuarantee ||
		r.Message != "role a is guaranteed cpus:2; it consumes 3, and without task T of framework F on agent A it would fall below" {
		t.Errorf("below the guarantee: %v", r)
	}
	if r := l.CheckRevocation(task("X")); r == nil || r.Message != "task X of framework F on agent A is not running" {
		t.Errorf("an unknown task: %v", r)
	}
	// What ends with it, or is being revoked, counts as gone; each once, and in
	// its own role's guarantee too.
	l.SetGuarantee("a", resource.Quantities(cpus(1*resource.Unit)))
	if r := l.CheckRevocation(task("T"), task("T"), task("X")); r != nil {
		t.Errorf("named twice: %v", r)
	}
	if r := l.CheckRevocation(task("T"), task("U")); r == nil ||
		r.Message != "role a is guaranteed cpus:1; it consumes 3, and without task T of framework F on agent A and 1 more that end with it or are being revoked it would fall below" {
		t.Errorf("two that are below the guarantee together: %v", r)
	}
	l.SetGuarantee("a", nil)
	l.SetGuarantee("c", resource.Quantities(cpus(2*resource.Unit))) // one is reserved to it
	mustOffer(t, l, offer("2", "c", "cpus:1"))
	must(t, l, l.Use([]string{"2"}, task("V"), parse("cpus:1")))
	if r := l.CheckRevocation(task("T"), task("V")); r == nil || !strings.HasPrefix(r.Message, "role c is guaranteed cpus:2") {
		t.Errorf("one that ends with it, in another role: %v", r)
	}
	if r := l.CheckRevocation(task("T")); r != nil {
		t.Errorf("without a guarantee: %v", r)
	}
	audit(t, l)
}

// BenchmarkCycle is one task's way through the books: offer, use, withdraw what
// is left, release, on an agent that has eight tasks already.
func BenchmarkCycle(b *testing.B) {
	l := books("cpus:64;mem:262144;disk:1000000;ports:[31000-32000]")
	l.SetLimit("a", cpus(1000*resource.Unit))
	if r := l.Offer(offer("O", "a/b", "cpus:8;mem:8")); r != nil {
		b.Fatal(r)
	}
	for i := range 8 {
		if err := l.Use([]string{"O"}, task(fmt.Sprint(i)), parse("cpus:1;mem:1").Allocate("a/b")); err != nil {
			b.Fatal(err)
		}
	}
	l.Withdraw("O")
	next := ledger.Offer{ID: "N", Agent: "A", Framework: "F", Role: "a/b", Resources: l.Free("A").Allocate("a/b")}
	small := parse("cpus:0.1;mem:128").Allocate("a/b")
	b.ReportAllocs()
	for b.Loop() {
		if r := l.Offer(next); r != nil {
			b.Fatal(r)
		}
		if err := l.Use([]string{"N"}, task("T"), small); err != nil {
			b.Fatal(err)
		}
		l.Withdraw("N")
		l.Release(task("T"))
	}
}

func TestQueries(t *testing.T) {
	l := books("cpus:4;cpus(a):2")
	mustOffer(t, l, offer("1", "a/b", "cpus:2;cpus(a):2"))
	mustOffer(t, l, offer("2", "c", "cpus:1"))
	must(t, l, l.Use([]string{"1"}, task("T"), parse("cpus:1")))
	for _, c := range []struct{ name, got, want string }{
		{"holdings", fmt.Sprint(l.HoldingsOn("A")), "[{F a/b cpus:1;cpus(a):2 cpus:1} {F c cpus:1 }]"},
		{"framework", fmt.Sprint(l.FrameworkTotals("F")), "{cpus:4 cpus:1}"},
		{"role", fmt.Sprint(l.RoleTotals("a")), "{{ } {cpus:3 cpus:1} cpus:2 cpus:4}"},
		{"role below", fmt.Sprint(l.RoleTotals("a/b")), "{{cpus:3 cpus:1} {cpus:3 cpus:1}  cpus:4}"},
		{"roles", fmt.Sprint(l.Roles()), "[a a/b c]"},
		{"use", fmt.Sprint(l.UseOf(task("T"))), "task T of framework F on agent A true"},
		{"offers", fmt.Sprint(l.OffersTo("F")), "[{1 A F a/b cpus:1;cpus(a):2} {2 A F c cpus:1}]"},
		{"unknown things", fmt.Sprint(l.Free("B"), l.OffersOn("B"), l.OffersTo("G"), l.UsesOn("B"), l.HoldingsOn("B"), l.AgentsOf("G"),
			l.FrameworkTotals("G"), l.RoleTotals("z"), l.SetAgentActive("B", true), l.RemoveFramework("G")),
			" [] [] [] [] [] { } {{ } { }  } false []"},
		{"keys", fmt.Sprint(ledger.Task, ledger.Executor, ledger.Operation), "task executor operation"},
	} {
		if c.got != c.want {
			t.Errorf("%s: got %s, want %s", c.name, c.got, c.want)
		}
	}
}
