package allocator_test

import (
	"fmt"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/mezzo-os/mezzo/sdk/allocator"
	allocatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/allocator/v1"
)

// BenchmarkBoundary is what the plugin boundary costs beside the engine's own
// work, step by step, for 10,000 agents each of which is offered and declined:
// the core encodes 10,000 events and marshals them, the plugin unmarshals them;
// the plugin marshals 10,000 decisions, the core unmarshals and reads them.
func BenchmarkBoundary(b *testing.B) {
	const agents, frameworks = 10_000, 200
	e := allocator.NewEncoder()
	total := parse(b, "cpus:24;mem:4096;disk:4096;ports:[31000-32000]")
	var snapshot, releases []allocator.Event
	for i := range frameworks {
		snapshot = append(snapshot, &allocator.FrameworkUpdated{ID: fmt.Sprint("f", i), Roles: []string{"*"}, Active: true})
	}
	for i := range agents {
		id := fmt.Sprint("agent", i)
		snapshot = append(snapshot, &allocator.AgentUpdated{ID: id, Hostname: id, Total: total, Active: true, HoldingsSet: true})
		releases = append(releases, &allocator.Released{Agent: id, Framework: fmt.Sprint("f", i%frameworks), Role: "*", Resources: total, Refuse: 5 * time.Second, Declined: true, Offer: uint64(i + 1)})
	}
	e.Encode(allocator.Batch{Snapshot: true, SnapshotEnd: true, Events: snapshot})
	batches := e.Encode(allocator.Batch{FirstEvent: 1, Events: releases})
	decisions := &allocatorv1.FromAllocator{}
	var messages [][]byte
	for _, batch := range batches {
		for i, event := range batch.GetEvents() {
			r := event.GetReleased()
			decisions.Decisions = append(decisions.Decisions, &allocatorv1.Decision{Number: uint64(i + 1), Decision: &allocatorv1.Decision_Offer{
				Offer: &allocatorv1.OfferDecision{Agent: r.GetAgent(), Framework: r.GetFramework(), Role: 1, Quantities: r.GetQuantities()}}})
		}
		message, err := proto.Marshal(batch)
		if err != nil {
			b.Fatal(err)
		}
		messages = append(messages, message)
	}
	answer, err := proto.Marshal(decisions)
	if err != nil {
		b.Fatal(err)
	}
	step := func(name string, f func() error) {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := f(); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/1e6, "ms/10000")
			b.ReportMetric(0, "ns/op")
		})
	}
	step("core encodes", func() error {
		e.Encode(allocator.Batch{FirstEvent: 1, Events: releases})
		return nil
	})
	step("core marshals", func() error {
		for _, batch := range batches {
			if _, err := proto.Marshal(batch); err != nil {
				return err
			}
		}
		return nil
	})
	step("plugin unmarshals", func() error {
		for _, m := range messages {
			if err := proto.Unmarshal(m, new(allocatorv1.Batch)); err != nil {
				return err
			}
		}
		return nil
	})
	step("plugin marshals", func() error {
		_, err := proto.Marshal(decisions)
		return err
	})
	step("core unmarshals", func() error { return proto.Unmarshal(answer, new(allocatorv1.FromAllocator)) })
	step("core reads", func() error {
		for _, d := range decisions.Decisions {
			if _, err := e.Decision(d); err != nil {
				return err
			}
		}
		return nil
	})
}
