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
func cycles(b *testing.B, name string, agents, frameworks int) {
	var took []time.Duration
	var objects, bytes uint64
	var applied time.Duration
	var events int
	base := heapBytes()
	w, err := workload.New(name, agents, frameworks, workload.Meter{
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
			b.Run(name+"/"+size, func(b *testing.B) { cycles(b, name, agents, frameworks) })
		}
	}
}

// TestWorkloads: each workload comes round again and again, as it is described.
func TestWorkloads(t *testing.T) {
	for _, name := range workload.Names() {
		for _, frameworks := range []int{1, 7} {
			measured := 0
			w, err := workload.New(name, 100, frameworks, workload.Meter{Cycle: func(run func()) { run(); measured++ }})
			if err != nil {
				t.Fatalf("%s, %d frameworks: %v", name, frameworks, err)
			}
			for range 5 {
				if err := w.Round(); err != nil {
					t.Fatalf("%s, %d frameworks: %v", name, frameworks, err)
				}
			}
			if measured != 5 {
				t.Errorf("%s: %d cycles in 5 rounds", name, measured)
			}
		}
	}
}
