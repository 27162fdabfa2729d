package engine_test

import (
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/mezzo-os/mezzo/sdk/allocator"
	"github.com/mezzo-os/mezzo/sdk/allocator/engine"
	allocatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/allocator/v1"
)

// Whatever a core sends, an engine applies it or says that it cannot; it does
// not crash, and what it offers it has.
func FuzzApply(f *testing.F) {
	w := newWorld(f, defaults(), &engine.DominantShare{})
	encoder := allocator.NewEncoder()
	for _, b := range encoder.Encode(allocator.Batch{Snapshot: true, SnapshotEnd: true, Events: []allocator.Event{
		&allocator.FrameworkUpdated{ID: "f", Roles: []string{"a/b", "*"}, Suppressed: []string{"*"}, Active: true},
		&allocator.AgentUpdated{ID: "x", Total: w.parse("cpus:4;mem:100;ports:[1-9];cpus(a):2"), Active: true, HoldingsSet: true,
			Holdings: []allocator.Holding{{Framework: "f", Role: "a/b", Resources: w.parse("cpus:1;ports:[2-3]")}}},
		&allocator.Filter{Agent: "x", Framework: "f", Role: "*", Resources: w.parse("cpus:4"), Remaining: time.Second},
		&allocator.Released{Agent: "x", Framework: "f", Role: "a/b", Resources: w.parse("cpus:1"), Refuse: time.Second, Declined: true},
		&allocator.Refused{Decision: 1, Reason: allocator.RefusedNotFree, Agent: &allocator.AgentUpdated{ID: "x", Total: w.parse("cpus:1"), HoldingsSet: true}},
		&allocator.FrameworkRemoved{ID: "f"},
		&allocator.AgentRemoved{ID: "x"},
	}}) {
		data, err := proto.Marshal(b)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data, data)
	}
	f.Fuzz(func(t *testing.T, first, second []byte) {
		e := engine.New(defaults().Proto(), &engine.DominantShare{})
		now := time.Duration(0)
		for _, data := range [][]byte{first, second} {
			var b allocatorv1.Batch
			if proto.Unmarshal(data, &b) != nil {
				return
			}
			b.SnapshotEnd = true
			if e.Apply(now, &b) != nil {
				return
			}
			now += 10 * time.Millisecond
			for _, d := range decisionsOf(e.Run(now)) {
				if len(d.GetOffer().GetQuantities().GetKinds()) == 0 {
					t.Errorf("decision %v offers nothing", d)
				}
			}
			e.Explain(now, &allocatorv1.ExplainRequest{FrameworkId: "f", Agents: true})
		}
	})
}

func decisionsOf(decisions []*allocatorv1.Decision, _ engine.Report) []*allocatorv1.Decision {
	return decisions
}

// Events that come twice, or name what is gone or was never there, change
// nothing that is right.
func TestEventsTwiceAndAboutTheUnknown(t *testing.T) {
	w := newWorld(t, defaults(), &engine.DominantShare{})
	w.framework("f", "*")
	w.agent("a", "cpus:4;mem:100")
	o := w.wantOffer("f")
	twice := &allocatorv1.Event{Event: &allocatorv1.Event_Released{Released: &allocatorv1.Released{
		Agent: 1, Framework: 1, Role: 1, Quantities: &allocatorv1.Quantities{Kinds: []uint32{1}, Amounts: []int64{3000}}}}}
	if err := w.engine.Apply(w.now, &allocatorv1.Batch{FirstEvent: w.next, Events: []*allocatorv1.Event{
		twice, twice, {}, // 3 of 4 CPUs, then 3 of the one that is left, then nothing
		{Event: &allocatorv1.Event_AgentRemoved{AgentRemoved: &allocatorv1.AgentRemoved{Number: 77}}},
		{Event: &allocatorv1.Event_FrameworkRemoved{FrameworkRemoved: &allocatorv1.FrameworkRemoved{Number: 77}}},
		{Event: &allocatorv1.Event_Released{Released: &allocatorv1.Released{Agent: 77, Framework: 77, Role: 77}}},
		{Event: &allocatorv1.Event_Refused{Refused: &allocatorv1.Refused{Decision: 77}}},
		{Event: &allocatorv1.Event_TaskEnded{TaskEnded: &allocatorv1.TaskEnded{Number: 77}}},
	}}); err != nil {
		t.Fatal(err)
	}
	w.Held[holder{Agent: "a", Framework: "f", Role: "*"}] = w.parse("mem:100") // four CPUs are free, and not six
	if got := w.wantOffer("f"); !got.Resources.Equal(w.parse("cpus:4")) {
		t.Errorf("offered %v of %v", got.Resources, o.Resources)
	}
}
