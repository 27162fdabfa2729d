package main

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"github.com/mezzo-os/mezzo/sdk/allocator"
	"github.com/mezzo-os/mezzo/sdk/allocator/engine"
	"github.com/mezzo-os/mezzo/sdk/plugin"
	allocatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/allocator/v1"
	pluginv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/plugin/v1"
	"github.com/mezzo-os/mezzo/sdk/resource"
)

func TestAtMostSixtyLines(t *testing.T) {
	src, err := os.ReadFile("main.go")
	if err != nil {
		t.Fatal(err)
	}
	if n := bytes.Count(src, []byte("\n")); n > 60 {
		t.Errorf("main.go has %d lines", n)
	}
}

// seeded is a lottery whose draws can be repeated.
func seeded() *lottery {
	policy, _ := newLottery(nil)
	l := policy.(*lottery)
	l.random = rand.New(rand.NewPCG(1, 2))
	return l
}

var one = resource.Sum(resource.ScalarOf("cpus", 1000), resource.ScalarOf("mem", 64_000))

func players() []allocator.Event {
	return []allocator.Event{
		&allocator.RoleUpdated{Name: "three", Weight: 3000},
		&allocator.RoleUpdated{Name: "half", Weight: 500},
		&allocator.FrameworkUpdated{ID: "a", Roles: []string{"one"}, Active: true},
		&allocator.FrameworkUpdated{ID: "b", Roles: []string{"three"}, Active: true},
		&allocator.FrameworkUpdated{ID: "c", Roles: []string{"half"}, Active: true},
		&allocator.FrameworkUpdated{ID: "d", Roles: []string{"half"}, Active: true},
		&allocator.FrameworkUpdated{ID: "e", Roles: []string{"half/x"}, Active: true},
		&allocator.AgentUpdated{ID: "agent", Total: one, Active: true, HoldingsSet: true},
	}
}

// Everybody takes the one agent for a moment and gives it back: over many draws
// each is served as its weight says, and one draw says nothing of the next.
func TestFairInTheLongRun(t *testing.T) {
	const draws = 20_000
	encoder := allocator.NewEncoder()
	begin := allocator.Begin{FirstDecision: 1, BatchInterval: time.Millisecond}
	e := engine.New(begin.Proto(), seeded())
	now := time.Duration(0)
	apply := func(b allocator.Batch) {
		for _, message := range encoder.Encode(b) {
			if err := e.Apply(now, message); err != nil {
				t.Fatal(err)
			}
		}
	}
	apply(allocator.Batch{Snapshot: true, SnapshotEnd: true, Events: players()})
	counts, after := map[string]int{}, map[string]int{}
	last := ""
	for i := range draws {
		now += begin.BatchInterval
		decisions, _ := e.Run(now)
		if len(decisions) != 1 {
			t.Fatalf("draw %d: %d decisions, want 1", i, len(decisions))
		}
		decision, err := encoder.Decision(decisions[0])
		if err != nil {
			t.Fatal(err)
		}
		o := decision.(*allocator.Offer)
		counts[o.Framework]++
		after[last+o.Framework]++
		last = o.Framework
		apply(allocator.Batch{FirstEvent: uint64(i + 1), DecisionsSeen: o.Number, Events: []allocator.Event{
			&allocator.Released{Agent: o.Agent, Framework: o.Framework, Role: o.Role, Resources: o.Resources},
		}})
	}
	// In the role half, its own frameworks and the role half/x have weight 1 each.
	chance := map[string]float64{"a": 1 / 4.5, "b": 3 / 4.5, "c": 0.5 / 4.5 / 4, "d": 0.5 / 4.5 / 4, "e": 0.5 / 4.5 / 2}
	chi, serial := 0.0, 0.0
	for id, p := range chance {
		expected := p * draws
		chi += math.Pow(float64(counts[id])-expected, 2) / expected
		for next, q := range chance {
			expected := p * q * draws
			serial += math.Pow(float64(after[id+next])-expected, 2) / expected
		}
	}
	// One in a thousand fair lotteries would be beyond each of these bounds:
	// chi-square with 4 and, for what pairs add to it, 20 degrees of freedom.
	if chi > 18.5 || serial-chi > 45.3 {
		t.Errorf("chi-square %.1f, pairs add %.1f: counts %v", chi, serial-chi, counts)
	}
}

// It serves as a plugin.
func TestServes(t *testing.T) {
	policy, _ := newLottery(nil)
	local, err := plugin.StartLocal(allocator.Definition{
		Name: "lottery", Version: "1.0.0", NewPolicy: func(any) (allocator.Policy, []plugin.Diagnostic) { return policy, nil },
	}.Plugin(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer local.Close()
	if _, err := pluginv1.NewPluginClient(local.Conn).Configure(t.Context(), &pluginv1.ConfigureRequest{ContractVersion: 1}); err != nil {
		t.Fatal(err)
	}
	stream, err := allocatorv1.NewAllocatorClient(local.Conn).Allocate(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	encoder := allocator.NewEncoder()
	if err := stream.Send(&allocatorv1.FromCore{Session: 1, Begin: allocator.Begin{FirstDecision: 1}.Proto()}); err != nil {
		t.Fatal(err)
	}
	for _, batch := range encoder.Encode(allocator.Batch{Snapshot: true, SnapshotEnd: true, Events: players()}) {
		if err := stream.Send(&allocatorv1.FromCore{Session: 1, Batch: batch}); err != nil {
			t.Fatal(err)
		}
	}
	for {
		m, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if len(m.GetDecisions()) > 0 {
			decision, err := encoder.Decision(m.GetDecisions()[0])
			if err != nil {
				t.Fatal(err)
			}
			if o := decision.(*allocator.Offer); !o.Resources.Equal(one) {
				t.Errorf("offered %v, want %v", o.Resources, one)
			}
			return
		}
	}
}

// What does not grow keeps its rank, however often it is asked.
func TestRankIsStable(t *testing.T) {
	l := seeded()
	c := &allocator.Candidate{Role: "a", Weight: 1, Held: []int64{5}}
	first := l.Rank(c, nil)
	c.Held = []int64{3}
	if again := l.Rank(c, nil); again != first {
		t.Errorf("after a release: %v, want %v", again, first)
	}
	c.Held = []int64{3, 1}
	if drawn := l.Rank(c, nil); drawn.Share <= first.Share {
		t.Errorf("after it was drawn: %v, want more than %v", drawn, first)
	}
	for i := range 200_000 {
		l.Rank(&allocator.Candidate{Role: "a", Framework: fmt.Sprint(i), Weight: 1}, nil)
	}
	if len(l.tickets) > 100_001 {
		t.Errorf("%d tickets of frameworks that have left", len(l.tickets))
	}
}
