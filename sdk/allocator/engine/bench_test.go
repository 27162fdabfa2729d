package engine_test

import (
	"flag"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mezzo-os/mezzo/sdk/allocator/engine/workload"
)

// go test -run '^$' -bench Cycle ./sdk/allocator/engine -sizes 10000x200
var sizes = flag.String("sizes", "1000x1,1000x50,1000x200,10000x1,10000x50,10000x200", "agents x frameworks of the benchmarks")

func heapBytes() float64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc)
}

// cycles measures Engine.Run alone; ns/event is what Engine.Apply costs for
// each event told between cycles.
func cycles(b *testing.B, name string, v workload.Variant, agents, frameworks int) {
	var took []time.Duration
	var objects, bytes uint64
	var applied time.Duration
	var events int
	base := heapBytes()
	w, err := workload.New(name, v, agents, frameworks, workload.Meter{
		Cycle: func(run func()) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			began := time.Now()
			run()
			took = append(took, time.Since(began))
			runtime.ReadMemStats(&after)
			objects += after.Mallocs - before.Mallocs
			bytes += after.TotalAlloc - before.TotalAlloc
		},
		Apply: func(n int, run func()) {
			began := time.Now()
			run()
			applied += time.Since(began)
			events += n
		},
	})
	if err != nil {
		b.Fatal(err)
	}
	grown := heapBytes() - base
	for b.Loop() {
		if err := w.Round(); err != nil {
			b.Fatal(err)
		}
	}
	slices.Sort(took)
	n := float64(len(took))
	b.ReportMetric(float64(took[len(took)/2])/1e6, "ms/cycle")
	b.ReportMetric(float64(objects)/n, "allocs/cycle")
	b.ReportMetric(float64(bytes)/n/1024, "KiB/cycle")
	if events > 0 {
		b.ReportMetric(float64(applied.Nanoseconds())/float64(events), "ns/event")
	}
	switch name {
	case workload.C2:
		b.ReportMetric(grown/float64(agents*frameworks), "B/filter")
	case workload.D:
		b.ReportMetric(grown/float64(agents), "B/agent")
	}
	b.ReportMetric(0, "ns/op")
}

func BenchmarkCycle(b *testing.B) {
	for _, name := range workload.Names() {
		for _, size := range strings.Split(*sizes, ",") {
			var agents, frameworks int
			if _, err := fmt.Sscanf(size, "%dx%d", &agents, &frameworks); err != nil {
				b.Fatalf("-sizes: %q: want agents x frameworks, such as 1000x50", size)
			}
			b.Run(name+"/"+size, func(b *testing.B) { cycles(b, name, workload.Variant{}, agents, frameworks) })
		}
	}
}

// BenchmarkRoles are the variants of Mesos's table with ten roles, with and
// without a guarantee of 5 % for each, and with tasks that may be revoked.
//
//	go test -run '^$' -bench Roles -benchtime 9x ./sdk/allocator/engine
func BenchmarkRoles(b *testing.B) {
	for _, size := range [][2]int{{1000, 50}, {1000, 1000}, {10_000, 50}, {10_000, 1000}} {
		for _, variant := range []struct {
			name string
			workload.Variant
		}{
			{"none", workload.Variant{Roles: 10}},
			{"5%", workload.Variant{Roles: 10, Guarantee: 5}},
			{"preempt", workload.Variant{Roles: 10, Preempt: true}},
		} {
			for _, name := range []string{workload.B, workload.C1, workload.D} {
				b.Run(fmt.Sprintf("%s/%s/%dx%d", name, variant.name, size[0], size[1]), func(b *testing.B) {
					cycles(b, name, variant.Variant, size[0], size[1])
				})
			}
		}
	}
}

// BenchmarkSteady is what a cycle costs in which always the same number of
// tasks ended, on clusters of different sizes.
//
//	go test -run '^$' -bench Steady -benchtime 100x ./sdk/allocator/engine
func BenchmarkSteady(b *testing.B) {
	for _, quota := range []int64{0, 5} {
		for _, agents := range []int{1000, 5000, 10_000, 50_000} {
			b.Run(fmt.Sprintf("quota=%d%%/%d", quota, agents), func(b *testing.B) {
				cycles(b, workload.D, workload.Variant{Roles: 10, Guarantee: quota, Ended: 100}, agents, 200)
			})
		}
	}
}

// TestWorkloads: each workload comes round again and again, as it is described.
func TestWorkloads(t *testing.T) {
	for _, v := range []workload.Variant{{}, {Roles: 3}, {Roles: 3, Guarantee: 5}, {Roles: 2, Preempt: true, Ended: 5}} {
		for _, name := range workload.Names() {
			for _, frameworks := range []int{max(1, v.Roles), 7} {
				measured := 0
				w, err := workload.New(name, v, 100, frameworks, workload.Meter{Cycle: func(run func()) { run(); measured++ }})
				if err != nil {
					t.Fatalf("%s, %+v, %d frameworks: %v", name, v, frameworks, err)
				}
				for range 5 {
					if err := w.Round(); err != nil {
						t.Fatalf("%s, %+v, %d frameworks: %v", name, v, frameworks, err)
					}
				}
				if measured != 5 {
					t.Errorf("%s: %d cycles in 5 rounds", name, measured)
				}
			}
		}
	}
}

// BenchmarkRevocation is what it costs to look who is starved, to plan which
// tasks are to end, and to find for 200 frameworks that none may, in a full
// cluster with eight tasks an agent.
//
//	go test -run '^$' -bench Revocation -benchtime 9x ./sdk/allocator/engine
func BenchmarkRevocation(b *testing.B) {
	for _, agents := range []int{1000, 10_000, 50_000} {
		for _, kind := range []workload.RevocationKind{workload.Look, workload.Plan, workload.Vain, workload.Useless} {
			b.Run(fmt.Sprintf("%s/%d", kind, agents), func(b *testing.B) {
				var took []time.Duration
				w, err := workload.NewRevocation(agents, 200, kind, workload.Meter{Cycle: func(run func()) {
					began := time.Now()
					run()
					took = append(took, time.Since(began))
				}})
				if err != nil {
					b.Fatal(err)
				}
				b.ReportAllocs()
				for b.Loop() {
					if err := w.Round(); err != nil {
						b.Fatal(err)
					}
				}
				slices.Sort(took)
				b.ReportMetric(float64(took[len(took)/2])/1e6, "ms/look")
				b.ReportMetric(0, "ns/op")
			})
		}
	}
}
