package engine_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mezzo-os/mezzo/sdk/allocator"
	"github.com/mezzo-os/mezzo/sdk/allocator/engine"
	"github.com/mezzo-os/mezzo/sdk/resource"
)

// player is a framework whose tasks all need the same.
type player struct {
	id, role, task string
}

// fill serves the players, who take one task an offer and leave the rest for
// nobody in particular, until a second passes in which nobody takes a task. It
// returns who took a task, in order.
func fill(w *world, players []player) []string {
	var order []string
	tasks := map[string]resource.Resources{}
	for _, p := range players {
		tasks[p.id] = w.parse(p.task)
	}
	for idle := 0; idle < 1000; {
		took := false
		for _, o := range w.settle() {
			task := tasks[o.Framework]
			if o.Resources.Contains(task) {
				w.accept(o, task)
				order = append(order, o.Framework)
				took = true
			} else {
				w.decline(o, time.Hour)
			}
		}
		if took {
			idle = 0
		} else {
			idle++
		}
	}
	return order
}

func counts(order []string) map[string]int {
	n := map[string]int{}
	for _, id := range order {
		n[id]++
	}
	return n
}

// The tables and examples of Ghodsi et al., "Dominant Resource Fairness", NSDI
// 2011, on one agent: who gets a task in which order, and how many.
func TestDRFPaper(t *testing.T) {
	for _, test := range []struct {
		name    string
		agent   string
		weights map[string]uint64
		players []player
		order   []string
		counts  map[string]int
	}{
		{
			name:    "table 1: 9 CPUs, 18 GB; <1, 4> and <3, 1>",
			agent:   "cpus:9;mem:18",
			players: []player{{"1", "*", "cpus:1;mem:4"}, {"2", "*", "cpus:3;mem:1"}},
			order:   []string{"2", "1", "1", "2", "1"},
			counts:  map[string]int{"1": 3, "2": 2},
		},
		{
			name:    "weighted: role b counts for two",
			agent:   "cpus:12;mem:12",
			weights: map[string]uint64{"a": 1000, "b": 2000},
			players: []player{{"1", "a", "cpus:1;mem:0.1"}, {"2", "b", "cpus:1;mem:0.1"}},
			counts:  map[string]int{"1": 4, "2": 8},
		},
		{
			name:    "one resource: max-min",
			agent:   "cpus:10",
			players: []player{{"1", "*", "cpus:1"}, {"2", "*", "cpus:1"}, {"3", "*", "cpus:1"}},
			counts:  map[string]int{"1": 3, "2": 3, "3": 4},
		},
		{
			name:    "three resources",
			agent:   "cpus:30;mem:30;disk:30",
			players: []player{{"1", "*", "cpus:3;mem:1;disk:1"}, {"2", "*", "cpus:1;mem:3;disk:1"}, {"3", "*", "cpus:1;mem:1;disk:3"}},
			counts:  map[string]int{"1": 6, "2": 6, "3": 6},
		},
		{
			name:    "progressive filling goes on with who still fits",
			agent:   "cpus:10;mem:100",
			players: []player{{"1", "*", "cpus:5;mem:1"}, {"2", "*", "cpus:0.01;mem:10"}},
			order:   nil,
			counts:  map[string]int{"1": 1, "2": 9},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			begin := defaults()
			begin.MinAllocatable = []resource.Quantities{{{Name: "cpus", Amount: 1}}, {{Name: "mem", Amount: 1}}}
			w := newWorld(t, begin, &engine.DominantShare{})
			for role, weight := range test.weights {
				w.tell(&allocator.RoleUpdated{Name: role, Weight: weight})
			}
			for _, p := range test.players {
				w.framework(p.id, p.role)
			}
			w.agent("agent", test.agent)
			order := fill(w, test.players)
			if test.order != nil && !slices.Equal(order, test.order) {
				t.Errorf("order %v, want %v", order, test.order)
			}
			if diff := cmp.Diff(test.counts, counts(order)); diff != "" {
				t.Errorf("tasks (-want +got):\n%s\norder %v", diff, order)
			}
		})
	}
}

// Offers without takers go round: everybody gets one before anybody gets a
// second.
func TestTiesGoRound(t *testing.T) {
	w := newWorld(t, defaults(), &engine.DominantShare{})
	for i := range 4 {
		w.framework(fmt.Sprint("f", i), "*")
	}
	w.agent("agent", "cpus:4;mem:1024")
	var order []string
	for range 4 {
		for _, o := range w.settle() {
			order = append(order, o.Framework)
			w.decline(o, 0)
		}
	}
	if want := []string{"f3", "f2", "f1", "f0"}; !slices.Equal(order, want) {
		t.Errorf("order %v, want %v", order, want)
	}
}
