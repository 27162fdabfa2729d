package main

import (
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/mezzo-os/mezzo/sdk/allocator/engine/workload"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
	"github.com/mezzo-os/mezzo/sdk/resource"
)

func TestNumbers(t *testing.T) {
	for v, want := range map[float64]string{0: "0", 0.001: "<0.01", 0.125: "0.12", 3.14159: "3.14", 42.42: "42.4", 12345.6: "12346"} {
		if got := number(v); got != want {
			t.Errorf("number(%v) is %q, want %q", v, got, want)
		}
	}
	if most(3, 0) != "-" || most(3, 3) != "met" || most(3.1, 3) != "NOT MET" {
		t.Errorf("budgets: %s, %s, %s", most(3, 0), most(3, 3), most(3.1, 3))
	}
	if got := median([]float64{5, 1, 3}); got != 3 {
		t.Errorf("median %v, want 3", got)
	}
}

// TestFill: a task needs 0.1 cpus and 64 mem; an offer without either has no room.
func TestFill(t *testing.T) {
	for offered, want := range map[string]int{
		"cpus:16;mem:65536": tasksPerOffer, "cpus:0.3;mem:65536": 3, "cpus:16;mem:130": 2, "mem:65536;disk:10": 0, "cpus:4": 0,
	} {
		launched := 0
		offer := &mezzov1.Offer{AgentId: &mezzov1.AgentID{Value: proto.String("a")}, Resources: resource.MustParse(offered).ToProto()}
		if got := len(fill(offer, nil, &launched)); got != want || launched != want {
			t.Errorf("an offer of %s has room for %d tasks, want %d", offered, got, want)
		}
	}
}

func TestTableIsAligned(t *testing.T) {
	var out strings.Builder
	b := &bench{out: &out, scale: 0.5, cluster: map[result]float64{}}
	tab := b.table("title", "workload", "size", "Mesos", "budget", "median", "best", "", "Mesos by it", "empty")
	tab.note("note")
	took := []time.Duration{9 * time.Millisecond, 7500 * time.Microsecond, 5 * time.Millisecond}
	b.cycleRow(tab, "d", size{10000, 200}, 1, slices.Clone(took), "-")
	b.cycleRow(tab, "d", size{10000, 200}, 0, slices.Clone(took), "")
	b.cycleRow(tab, "eall", size{10000, 1000}, 0, slices.Clone(took), "")
	tab.print()
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	want := []string{
		"  note",
		"  workload                  size  Mesos  budget  median  best           Mesos by it",
		"  d steady           10000 x 200   40.9    8.00    7.50  5.00      met        5.45x",
		"  d steady           10000 x 200   40.9    3.00    7.50  5.00  NOT MET        5.45x",
		"  e, all looked at  10000 x 1000   2102       -    7.50  5.00        -         280x",
	}
	for i, line := range want {
		if lines[i+1] != line {
			t.Errorf("line %d is\n%q, want\n%q", i, lines[i+1], line)
		}
	}
	if len(b.verdicts) != 2 || b.verdicts[0].verdict != "met" || b.verdicts[1].verdict != "NOT MET" {
		t.Errorf("verdicts %v", b.verdicts)
	}
	if got := b.cluster[result{"d", size{10000, 200}}]; got != 7.5 {
		t.Errorf("remembered %v, want 7.5", got)
	}
}

// TestSizesIncludeThoseWithABudget: what is measured unless something else is
// asked for has every size with a budget, and every figure of Mesos's has its
// place.
func TestSizesIncludeThoseWithABudget(t *testing.T) {
	b := &bench{}
	for name, sizes := range budgets {
		for s := range sizes {
			if !slices.Contains(b.engineSizes(), s) {
				t.Errorf("%s, %s is not measured in the engine alone", name, s)
			}
			through := name
			if name == "c2" {
				through = "b" // in the same cluster
			}
			if !slices.Contains(b.clusterSizes(through), s) {
				t.Errorf("%s, %s is not measured through a master", name, s)
			}
		}
	}
	for name, sizes := range mesos {
		if titles[name] == "" {
			t.Errorf("Mesos's workload %s is not measured", name)
		}
		for s := range sizes {
			if !slices.Contains(baseline(), s) {
				t.Errorf("Mesos's size %s of %s is not measured", s, name)
			}
		}
	}
	for _, name := range workload.Names() {
		if titles[name] == "" || !(&bench{only: "a1,a2,b,c1,c2,d,e"}).wants(name) {
			t.Errorf("workload %s has no title, or is never run", name)
		}
	}
}
