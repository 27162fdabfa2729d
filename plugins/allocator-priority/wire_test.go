package main

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mezzo-os/mezzo/sdk/allocator"
	"github.com/mezzo-os/mezzo/sdk/plugin"
	allocatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/allocator/v1"
	pluginv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/plugin/v1"
)

// Configured and served over the wire, the policy decides as in process.
func TestWire(t *testing.T) {
	local, err := plugin.StartLocal(definition().Plugin(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer local.Close()
	answer, err := pluginv1.NewPluginClient(local.Conn).Configure(t.Context(), &pluginv1.ConfigureRequest{ContractVersion: 1, Config: []byte(`{
		"role": [{"name": "prod", "priority": 10}, {"name": "batch", "floor": 0.25}],
		"framework": [{"name": "p2", "priority": 2}]
	}`)})
	if err != nil || len(answer.GetDiagnostics()) > 0 {
		t.Fatalf("configure: %v, %v", answer, err)
	}
	stream, err := allocatorv1.NewAllocatorClient(local.Conn).Allocate(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	encoder := allocator.NewEncoder()
	send := func(b allocator.Batch) {
		for _, message := range encoder.Encode(b) {
			if err := stream.Send(&allocatorv1.FromCore{Session: 7, Batch: message}); err != nil {
				t.Fatal(err)
			}
		}
	}
	// receive returns the next cycle's offers.
	receive := func() (out []string) {
		for {
			m, err := stream.Recv()
			if err != nil {
				t.Fatal(err)
			}
			for _, d := range m.GetDecisions() {
				decision, err := encoder.Decision(d)
				if err != nil {
					t.Fatal(err)
				}
				out = append(out, show(decision.(*allocator.Offer)))
			}
			if m.GetCycle() != nil && len(out) > 0 {
				return out
			}
		}
	}

	c := &config{
		Roles:      []roleConfig{{Name: "prod", Priority: is(10)}, {Name: "batch", Floor: 0.25}},
		Frameworks: []frameworkConfig{{Name: "p2", Priority: 2}},
	}
	w := newWorld(t, c, nil)
	events := []allocator.Event{
		&allocator.FrameworkUpdated{ID: "b", Name: "b", Roles: []string{"batch"}, Active: true},
		&allocator.FrameworkUpdated{ID: "p1", Name: "p1", Roles: []string{"prod"}, Active: true},
		&allocator.FrameworkUpdated{ID: "p2", Name: "p2", Roles: []string{"prod"}, Active: true},
	}
	for i := range 8 {
		events = append(events, &allocator.AgentUpdated{ID: fmt.Sprint("agent", i), Total: parse(t, "cpus:1;mem:64"), Active: true, HoldingsSet: true})
	}
	if err := stream.Send(&allocatorv1.FromCore{Session: 7, Begin: begin().Proto()}); err != nil {
		t.Fatal(err)
	}
	send(allocator.Batch{Snapshot: true, SnapshotEnd: true})

	// The higher of prod's frameworks declines all that it is offered.
	for round, frameworks := range [][]string{{"b", "b", "p2", "p2", "p2", "p2", "p2", "p2"}, {"p1", "p1", "p1", "p1", "p1", "p1"}} {
		next, seen := w.next, w.seen
		w.tell(events...)
		send(allocator.Batch{FirstEvent: next, Events: events, DecisionsSeen: seen})
		events = nil
		var want, who []string
		for _, o := range w.settle(nil) {
			want, who = append(want, show(o)), append(who, o.Framework)
			if o.Framework == "p2" {
				events = append(events, &allocator.Released{Agent: o.Agent, Framework: o.Framework, Role: o.Role, Resources: o.Resources, Refuse: time.Hour, Declined: true})
			}
		}
		if diff := cmp.Diff(frameworks, who); diff != "" {
			t.Errorf("round %d (-want +got):\n%s", round, diff)
		}
		if diff := cmp.Diff(want, receive()); diff != "" {
			t.Errorf("round %d (-in process +over the wire):\n%s", round, diff)
		}
	}
	if err := stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
}

func show(o *allocator.Offer) string {
	return fmt.Sprintf("%d %s to %s in %s on %s", o.Number, o.Resources, o.Framework, o.Role, o.Agent)
}
