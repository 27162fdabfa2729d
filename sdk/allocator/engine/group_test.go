package engine_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/mezzo-os/mezzo/sdk/allocator/engine"
	allocatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/allocator/v1"
)

// TestGroup: the offers of a cycle come framework by framework, with numbers
// that rise as they did; a refusal takes back the offer that it is about.
func TestGroup(t *testing.T) {
	e := engine.New(&allocatorv1.Begin{FirstDecision: 5, Seed: 1}, &engine.DominantShare{})
	events := []*allocatorv1.Event{
		{Event: &allocatorv1.Event_Kind{Kind: &allocatorv1.KindDefined{Number: 1, Name: "cpus", Type: allocatorv1.KindType_KIND_TYPE_SCALAR}}},
		{Event: &allocatorv1.Event_Role{Role: &allocatorv1.RoleUpdated{Number: 1, Name: "*", Weight: 1000}}},
	}
	for i := range 3 {
		events = append(events, &allocatorv1.Event{Event: &allocatorv1.Event_Framework{Framework: &allocatorv1.FrameworkUpdated{
			Number: uint32(i + 1), Id: fmt.Sprint("f", i), Roles: []uint32{1}, Active: true}}})
	}
	for i := range 9 {
		events = append(events, &allocatorv1.Event{Event: &allocatorv1.Event_Agent{Agent: &allocatorv1.AgentUpdated{
			Number: uint32(i + 1), Id: fmt.Sprint("a", i), Hostname: "h", Active: true, HoldingsSet: true,
			Total: &allocatorv1.Quantities{Kinds: []uint32{1}, Amounts: []int64{1000}}}}})
	}
	if err := e.Apply(0, &allocatorv1.Batch{Snapshot: true, SnapshotEnd: true, Events: events}); err != nil {
		t.Fatal(err)
	}
	decisions, _ := e.Run(time.Second)
	if len(decisions) != 9 {
		t.Fatalf("%d decisions", len(decisions))
	}
	served := map[uint32]uint32{} // who has an agent, as it was decided
	for _, d := range decisions {
		served[d.GetOffer().GetAgent()] = d.GetOffer().GetFramework()
	}
	e.Group(decisions)
	var order []uint32
	for i, d := range decisions {
		if d.GetNumber() != uint64(5+i) {
			t.Errorf("decision %d has number %d", i, d.GetNumber())
		}
		if o := d.GetOffer(); served[o.GetAgent()] != o.GetFramework() {
			t.Errorf("agent %d is framework %d's, and was %d's", o.GetAgent(), o.GetFramework(), served[o.GetAgent()])
		}
		order = append(order, d.GetOffer().GetFramework())
	}
	if groups := slices.Compact(slices.Clone(order)); len(groups) != 3 {
		t.Errorf("the offers go to %v", order)
	}
	refused := decisions[4].GetOffer()
	err := e.Apply(time.Second, &allocatorv1.Batch{FirstEvent: 1, DecisionsSeen: 13, Events: []*allocatorv1.Event{
		{Event: &allocatorv1.Event_Refused{Refused: &allocatorv1.Refused{Decision: decisions[4].GetNumber(), Reason: allocatorv1.RefusalReason_REFUSAL_REASON_NOT_FREE}}}}})
	if err != nil {
		t.Fatal(err)
	}
	if !e.Settled() {
		t.Error("the engine waits for what the core has seen")
	}
	again, _ := e.Run(time.Hour)
	if len(again) != 1 || again[0].GetOffer().GetAgent() != refused.GetAgent() || again[0].GetNumber() != 14 {
		t.Errorf("after the refusal of agent %d come %v", refused.GetAgent(), again)
	}
	e.Group(nil)
}
