package allocator_test

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/mezzo-os/mezzo/sdk/allocator"
	allocatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/allocator/v1"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
	"github.com/mezzo-os/mezzo/sdk/resource"
)

func encodeOne(t *testing.T, e *allocator.Encoder, events ...allocator.Event) *allocatorv1.Batch {
	t.Helper()
	batches := e.Encode(allocator.Batch{FirstEvent: 1, Events: events})
	if len(batches) != 1 {
		t.Fatalf("%d messages, want one", len(batches))
	}
	return batches[0]
}

// Resources of every form survive the way to an allocator and back.
func TestResourcesThereAndBack(t *testing.T) {
	volume := resource.Of(resource.Resource{
		Kind: resource.ScalarKind("disk").Push(resource.Reservation{Role: "eng", Dynamic: true}).WithDisk(&mezzov1.Resource_DiskInfo{
			Persistence: &mezzov1.Resource_DiskInfo_Persistence{Id: proto.String("v1")},
			Volume:      &mezzov1.Volume{ContainerPath: proto.String("data"), Mode: mezzov1.Volume_RW.Enum()},
		}),
		Scalar: 1024 * resource.Unit, Count: 1,
	})
	shared := volume.Map(func(k resource.Kind) resource.Kind { return k.WithShared(true) })
	for _, test := range []struct {
		name string
		all  resource.Resources
	}{
		{"scalars, ranges and sets", parse(t, "cpus:0.125;mem:4096;ports:[0-0,31000-32000,18446744073709551615-18446744073709551615];zones:{b,a,c}")},
		{"reservations", parse(t, "cpus:1;cpus(eng):2;cpus(eng/web):3")},
		{"a volume", volume},
		{"two copies of a shared volume", shared.Add(shared)},
		{"two sizes of one indivisible kind", volume.Add(resource.Of(resource.Resource{Kind: volume[0].Kind, Scalar: 5, Count: 1}))},
		{"nothing", nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			e := allocator.NewEncoder()
			b := encodeOne(t, e, &allocator.AgentUpdated{ID: "a", Total: test.all.Allocate("eng/web")},
				&allocator.FrameworkUpdated{ID: "f", Roles: []string{"eng/web"}})
			decision, err := e.Decision(&allocatorv1.Decision{Number: 3, Decision: &allocatorv1.Decision_Offer{Offer: &allocatorv1.OfferDecision{
				Agent: 1, Framework: 1, Role: 1, Quantities: b.GetEvents()[0].GetAgent().GetTotal()}}})
			if err != nil {
				t.Fatal(err)
			}
			offer := decision.(*allocator.Offer)
			if !offer.Resources.Equal(test.all) {
				t.Errorf("got %v, want %v", offer.Resources, test.all)
			}
			if offer.Agent != "a" || offer.Framework != "f" || offer.Role != "eng/web" || offer.Number != 3 {
				t.Errorf("got %+v", offer)
			}
		})
	}
}

// The example of the contract's comment, as it goes over the wire.
func TestEncodeExample(t *testing.T) {
	e := allocator.NewEncoder()
	batches := e.Encode(allocator.Batch{Snapshot: true, SnapshotEnd: true, Events: []allocator.Event{
		&allocator.RoleUpdated{Name: "*"},
		&allocator.FrameworkUpdated{ID: "f", Roles: []string{"*"}, Active: true},
		&allocator.AgentUpdated{ID: "a", Total: parse(t, "cpus:9"), Active: true, HoldingsSet: true},
	}})
	nine := &allocatorv1.Quantities{Kinds: []uint32{1}, Amounts: []int64{9000}}
	want := []*allocatorv1.Batch{{
		Snapshot: true, SnapshotEnd: true,
		Definitions: []*allocatorv1.Event{
			{Event: &allocatorv1.Event_Kind{Kind: &allocatorv1.KindDefined{Number: 1, Name: "cpus", Type: allocatorv1.KindType_KIND_TYPE_SCALAR}}},
		},
		Events: []*allocatorv1.Event{
			{Event: &allocatorv1.Event_Role{Role: &allocatorv1.RoleUpdated{Number: 1, Name: "*", Weight: 1000}}},
			{Event: &allocatorv1.Event_Framework{Framework: &allocatorv1.FrameworkUpdated{Number: 1, Id: "f", Roles: []uint32{1}, Active: true}}},
			{Event: &allocatorv1.Event_Agent{Agent: &allocatorv1.AgentUpdated{Number: 1, Id: "a", Total: nine, Active: true, HoldingsSet: true}}},
		},
	}}
	if diff := cmp.Diff(want, batches, protocmp.Transform()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	got := encodeOne(t, e, &allocator.Released{Agent: "a", Framework: "f", Role: "*", Resources: parse(t, "cpus:6"), Refuse: 5e9, Offer: 1})
	released := &allocatorv1.Batch{FirstEvent: 1, Events: []*allocatorv1.Event{{Event: &allocatorv1.Event_Released{Released: &allocatorv1.Released{
		Agent: 1, Framework: 1, Role: 1, Quantities: &allocatorv1.Quantities{Kinds: []uint32{1}, Amounts: []int64{6000}}, RefuseMs: 5000, Offer: 1}}}}}
	if diff := cmp.Diff(released, got, protocmp.Transform()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// For whom a task is revoked goes to the core and, for a later session, back.
func TestRevocationsThereAndBack(t *testing.T) {
	e := allocator.NewEncoder()
	told := &allocator.TaskStarted{Number: 7, Agent: "a", Framework: "f", Role: "*", Resources: parse(t, "cpus:1")}
	encodeOne(t, e, &allocator.FrameworkUpdated{ID: "f", Roles: []string{"*"}}, &allocator.FrameworkUpdated{ID: "g", Roles: []string{"ads"}},
		&allocator.AgentUpdated{ID: "a", Total: parse(t, "cpus:1")}, told)
	for _, test := range []struct {
		revoke *allocatorv1.RevokeDecision
		want   *allocator.Revoke
		wire   *allocatorv1.Revocation
	}{
		{&allocatorv1.RevokeDecision{Task: 7, GraceMs: 9000, Framework: 2, Role: 2},
			&allocator.Revoke{Number: 3, Task: 7, Grace: 9e9, Framework: "g", Role: "ads"},
			&allocatorv1.Revocation{RemainingMs: 9000, Framework: 2, Role: 2}},
		{&allocatorv1.RevokeDecision{Task: 7, Framework: 2, Role: 99}, &allocator.Revoke{Number: 3, Task: 7}, &allocatorv1.Revocation{}},
	} {
		got, err := e.Decision(&allocatorv1.Decision{Number: 3, Decision: &allocatorv1.Decision_Revoke{Revoke: test.revoke}})
		if diff := cmp.Diff(allocator.Decision(test.want), got); diff != "" || err != nil {
			t.Fatalf("%v (-want +got):\n%s", err, diff)
		}
		told.Revocation = &allocator.Revocation{Remaining: test.want.Grace, Framework: test.want.Framework, Role: test.want.Role}
		wire := encodeOne(t, e, told).GetEvents()[0].GetTaskStarted().GetRevocation()
		if diff := cmp.Diff(test.wire, wire, protocmp.Transform()); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	}
}

// What was not told of is defined; what is about an agent that is gone means
// nothing, and keeps its number.
func TestEncodeTheUnknown(t *testing.T) {
	e := allocator.NewEncoder()
	b := encodeOne(t, e, &allocator.AgentUpdated{ID: "a", Total: parse(t, "cpus:1"), HoldingsSet: true,
		Holdings: []allocator.Holding{{Framework: "ghost", Role: "haunted", Resources: parse(t, "cpus:1")}}})
	var ghost, haunted bool
	for _, d := range b.GetDefinitions() {
		ghost = ghost || d.GetFramework().GetId() == "ghost" && !d.GetFramework().GetActive()
		haunted = haunted || d.GetRole().GetName() == "haunted" && d.GetRole().GetWeight() == 1000
	}
	if !ghost || !haunted {
		t.Errorf("definitions %v", b.GetDefinitions())
	}
	b = encodeOne(t, e, &allocator.AgentRemoved{ID: "a"},
		&allocator.Released{Agent: "a", Framework: "ghost", Role: "haunted", Resources: parse(t, "cpus:1")},
		&allocator.AgentUpdated{ID: "a", Total: parse(t, "cpus:1")})
	if len(b.GetEvents()) != 3 || b.GetEvents()[1].GetEvent() != nil {
		t.Errorf("events %v, want three of which the second is empty", b.GetEvents())
	}
	if n := b.GetEvents()[2].GetAgent().GetNumber(); n != 2 {
		t.Errorf("the agent that came again has number %d, want one that was not used", n)
	}
}

func TestDecisionErrors(t *testing.T) {
	e := allocator.NewEncoder()
	encodeOne(t, e, &allocator.AgentUpdated{ID: "a", Total: parse(t, "cpus:1;ports:[1-2];zones:{x}")}, &allocator.FrameworkUpdated{ID: "f", Roles: []string{"*"}})
	offer := func(agent, framework, role uint32, kinds []uint32, amounts ...int64) *allocatorv1.Decision {
		return &allocatorv1.Decision{Number: 1, Decision: &allocatorv1.Decision_Offer{Offer: &allocatorv1.OfferDecision{
			Agent: agent, Framework: framework, Role: role, Quantities: &allocatorv1.Quantities{Kinds: kinds, Amounts: amounts}}}}
	}
	for _, test := range []struct {
		name     string
		decision *allocatorv1.Decision
		want     allocator.RefusalReason
	}{
		{"empty", &allocatorv1.Decision{}, allocator.RefusedMalformed},
		{"agent", offer(2, 1, 1, nil), allocator.RefusedUnknownAgent},
		{"framework", offer(1, 9, 1, nil), allocator.RefusedUnknownFramework},
		{"role", offer(1, 1, 7, nil), allocator.RefusedRole},
		{"kind", offer(1, 1, 1, []uint32{99}, 1), allocator.RefusedMalformed},
		{"amount missing", offer(1, 1, 1, []uint32{1}), allocator.RefusedMalformed},
		{"amount too many", offer(1, 1, 1, []uint32{1}, 1, 2), allocator.RefusedMalformed},
		{"negative", offer(1, 1, 1, []uint32{1}, -1), allocator.RefusedMalformed},
		{"enormous", offer(1, 1, 1, []uint32{1}, 1<<62), allocator.RefusedMalformed},
		{"ranges cut short", offer(1, 1, 1, []uint32{2}, 1<<61, 1, 1), allocator.RefusedMalformed},
		{"range wraps", offer(1, 1, 1, []uint32{2}, 1, 5, -1), allocator.RefusedMalformed},
		{"symbol", offer(1, 1, 1, []uint32{3}, 1, 7), allocator.RefusedMalformed},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := e.Decision(test.decision)
			if err == nil {
				t.Fatal("no error")
			}
			if got := allocator.ReasonOf(err); got != test.want {
				t.Errorf("%v: reason %v, want %v", err, got, test.want)
			}
			if unknown := (*allocator.UnknownError)(nil); errors.As(err, &unknown) != (test.want != allocator.RefusedMalformed) {
				t.Errorf("%v: %T", err, err)
			}
		})
	}
}

// A large batch goes in pieces whose numbers have no gap; what was seen of
// decisions is told with the last.
func TestEncodeInPieces(t *testing.T) {
	e := allocator.NewEncoder()
	total := parse(t, "cpus:8;mem:4096;ports:[1-10,20-30,40-50]")
	var events []allocator.Event
	for range 20_000 {
		events = append(events, &allocator.AgentUpdated{ID: string(rune('a' + len(events)%26)), Total: total})
	}
	batches := e.Encode(allocator.Batch{FirstEvent: 100, Events: events, DecisionsSeen: 5})
	if len(batches) < 2 {
		t.Fatalf("%d messages", len(batches))
	}
	next := uint64(100)
	for i, b := range batches {
		if b.GetFirstEvent() != next {
			t.Errorf("message %d begins with event %d, want %d", i, b.GetFirstEvent(), next)
		}
		next += uint64(len(b.GetEvents()))
		if size := proto.Size(b); size > 256<<10 {
			t.Errorf("message %d has %d bytes", i, size)
		}
		if last := i == len(batches)-1; (b.GetDecisionsSeen() == 5) != last {
			t.Errorf("message %d of %d: decisions_seen %d", i, len(batches), b.GetDecisionsSeen())
		}
	}
	if next != 20_100 {
		t.Errorf("the events end at %d, want 20100", next)
	}
}

func FuzzDecision(f *testing.F) {
	f.Add([]byte{1, 1, 1}, int64(1), int64(1000))
	f.Add([]byte{1, 1, 2}, int64(2), int64(5))
	f.Fuzz(func(t *testing.T, kinds []byte, a, b int64) {
		e := allocator.NewEncoder()
		encodeOne(t, e, &allocator.AgentUpdated{ID: "a", Total: parse(t, "cpus:1;ports:[1-2];zones:{x}")}, &allocator.FrameworkUpdated{ID: "f", Roles: []string{"*"}})
		q := &allocatorv1.Quantities{Amounts: []int64{a, b, a, b, a, b}}
		for _, k := range kinds {
			q.Kinds = append(q.Kinds, uint32(k%5))
		}
		decision, err := e.Decision(&allocatorv1.Decision{Number: 1, Decision: &allocatorv1.Decision_Offer{
			Offer: &allocatorv1.OfferDecision{Agent: 1, Framework: 1, Role: 1, Quantities: q}}})
		if err != nil {
			return
		}
		for _, r := range decision.(*allocator.Offer).Resources {
			if r.IsEmpty() || r.Scalar < 0 {
				t.Errorf("%v from %v", r, q)
			}
		}
	})
}
