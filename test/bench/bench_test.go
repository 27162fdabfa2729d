package main

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

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
	b := &bench{out: &out, scale: 0.5}
	tab := b.table("title", "workload", "size", "Mesos", "budget", "ours", "")
	b.cycleRow(tab, "d", size{10000, 200}, 1, 7.5)
	b.cycleRow(tab, "d", size{10000, 200}, 0, 7.5)
	tab.print()
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	want := []string{
		"  workload         size  Mesos  budget  ours",
		"  d         10000 x 200   40.9    8.00  7.50      met",
		"  d         10000 x 200   40.9    3.00  7.50  NOT MET",
	}
	for i, line := range want {
		if lines[i+1] != line {
			t.Errorf("line %d is\n%q, want\n%q", i, lines[i+1], line)
		}
	}
}

func TestSizesIncludeThoseWithABudget(t *testing.T) {
	b := &bench{sizes: []size{{10000, 1}, {1000, 50}}}
	got := b.sizesOf("e")
	if len(got) != 3 || got[2] != (size{10000, 1000}) {
		t.Errorf("sizes of e: %v", got)
	}
	if got := b.sizesOf("b"); len(got) != 3 || got[2] != (size{10000, 200}) {
		t.Errorf("sizes of b: %v; 50,000 agents only where asked for", got)
	}
}
