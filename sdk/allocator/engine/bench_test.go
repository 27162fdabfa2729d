package engine_test

import (
	"flag"
	"fmt"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/mezzo-os/mezzo/sdk/allocator/engine"
	allocatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/allocator/v1"
)

// The workloads are those by which Mesos's own allocator was measured, so that
// the figures can stand beside each other: agents of 24 cpus, 4096 mem, 4096
// disk and ports 31000-32000, frameworks in the one role "*", no quota.
//
//	b   a cycle with everything free: one offer an agent
//	c1  the cycle after every offer was declined with a long filter
//	c2  the cycle when every framework filters every agent
//	d   8 tasks an agent use all of it; 1 % of all tasks end before each cycle
//	e   as d, but every agent keeps leftovers too small to offer
//
// c2 is measured twice: as the engine meets it (nothing changed, so there is
// nothing to do), and with every agent made dirty ("all"), as Mesos's timer
// does. So is e, in whose "all" cycles the agents are looked at that did not
// change.
//
//	go test -run '^$' -bench Cycle ./sdk/allocator/engine -sizes 10000x200
var sizes = flag.String("sizes", "1000x1,1000x50,1000x200,10000x1,10000x50,10000x200", "agents x frameworks of the benchmarks")

const (
	cpus, mem, disk, ports = 1, 2, 3, 4
	day                    = 86_400_000 // milliseconds
)

// bench drives an engine by messages of the contract, as a core would.
type bench struct {
	b      *testing.B
	engine *engine.Engine
	agents int
	fws    int
	event  uint64
	seen   uint64
	now    time.Duration
	batch  []*allocatorv1.Event

	cycles  []time.Duration
	objects uint64
	bytes   uint64
	applied time.Duration
	events  int
}

func newBench(b *testing.B, agents, frameworks int) *bench {
	w := &bench{b: b, agents: agents, fws: frameworks, event: 1}
	w.engine = engine.New(&allocatorv1.Begin{FirstDecision: 1, Seed: 1}, &engine.DominantShare{})
	for i, name := range []string{"cpus", "mem", "disk", "ports"} {
		typ := allocatorv1.KindType_KIND_TYPE_SCALAR
		if name == "ports" {
			typ = allocatorv1.KindType_KIND_TYPE_RANGES
		}
		w.tell(&allocatorv1.Event{Event: &allocatorv1.Event_Kind{Kind: &allocatorv1.KindDefined{Number: uint32(i + 1), Name: name, Type: typ}}})
	}
	w.tell(&allocatorv1.Event{Event: &allocatorv1.Event_Role{Role: &allocatorv1.RoleUpdated{Number: 1, Name: "*", Weight: 1000}}})
	w.flush()
	if err := w.engine.Apply(0, &allocatorv1.Batch{Snapshot: true, SnapshotEnd: true}); err != nil {
		b.Fatal(err)
	}
	return w
}

func (w *bench) tell(e *allocatorv1.Event) { w.batch = append(w.batch, e) }

func (w *bench) flush() {
	began := time.Now()
	err := w.engine.Apply(w.now, &allocatorv1.Batch{FirstEvent: w.event, Events: w.batch, DecisionsSeen: w.seen})
	w.applied += time.Since(began)
	if err != nil {
		w.b.Fatal(err)
	}
	w.event += uint64(len(w.batch))
	w.events += len(w.batch)
	w.batch = w.batch[:0]
}

func (w *bench) frameworks() {
	for i := range w.fws {
		w.tell(&allocatorv1.Event{Event: &allocatorv1.Event_Framework{Framework: &allocatorv1.FrameworkUpdated{
			Number: uint32(i + 1), Id: fmt.Sprint("framework", i+1), Roles: []uint32{1}, Active: true}}})
	}
	w.flush()
}

func whole() *allocatorv1.Quantities {
	return &allocatorv1.Quantities{Kinds: []uint32{cpus, mem, disk, ports}, Amounts: []int64{24_000, 4096_000, 4096_000, 1, 31000, 1000}}
}

func (w *bench) addAgents(holdings func(i int) []*allocatorv1.Holding) {
	for i := range w.agents {
		id := "agent" + strconv.Itoa(i+1)
		u := &allocatorv1.AgentUpdated{Number: uint32(i + 1), Id: id, Hostname: id, Total: whole(), Active: true, HoldingsSet: true}
		if holdings != nil {
			u.Holdings = holdings(i)
		}
		w.tell(&allocatorv1.Event{Event: &allocatorv1.Event_Agent{Agent: u}})
	}
	w.flush()
}

// cycle runs one and returns its offers; timed cycles are counted.
func (w *bench) cycle(timed bool) []*allocatorv1.Decision {
	w.now += 10 * time.Millisecond
	var before, after runtime.MemStats
	if timed {
		runtime.ReadMemStats(&before)
	}
	began := time.Now()
	decisions, _ := w.engine.Run(w.now)
	took := time.Since(began)
	if timed {
		runtime.ReadMemStats(&after)
		w.cycles = append(w.cycles, took)
		w.objects += after.Mallocs - before.Mallocs
		w.bytes += after.TotalAlloc - before.TotalAlloc
	}
	if len(decisions) > 0 {
		w.seen = decisions[len(decisions)-1].GetNumber()
	}
	return decisions
}

func (w *bench) release(d *allocatorv1.Decision, q *allocatorv1.Quantities, refuse uint64, declined bool) {
	o := d.GetOffer()
	// As from the wire: in memory of its own.
	q = &allocatorv1.Quantities{Kinds: slices.Clone(q.GetKinds()), Amounts: slices.Clone(q.GetAmounts())}
	w.tell(&allocatorv1.Event{Event: &allocatorv1.Event_Released{Released: &allocatorv1.Released{
		Agent: o.GetAgent(), Framework: o.GetFramework(), Role: 1, Quantities: q, RefuseMs: refuse, Declined: declined}}})
}

func (w *bench) report() {
	slices.Sort(w.cycles)
	n := float64(len(w.cycles))
	w.b.ReportMetric(float64(w.cycles[len(w.cycles)/2])/1e6, "ms/cycle")
	w.b.ReportMetric(float64(w.objects)/n, "allocs/cycle")
	w.b.ReportMetric(float64(w.bytes)/n/1024, "KiB/cycle")
	if w.events > 0 {
		w.b.ReportMetric(float64(w.applied.Nanoseconds())/float64(w.events), "ns/event")
	}
	w.b.ReportMetric(0, "ns/op")
}

func heapMiB() float64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc) / (1 << 20)
}

func eachSize(b *testing.B, f func(b *testing.B, agents, frameworks int)) {
	for _, size := range strings.Split(*sizes, ",") {
		var agents, frameworks int
		if _, err := fmt.Sscanf(size, "%dx%d", &agents, &frameworks); err != nil {
			b.Fatalf("-sizes: %q: want agents x frameworks, such as 1000x50", size)
		}
		b.Run(size, func(b *testing.B) { f(b, agents, frameworks) })
	}
}

func BenchmarkCycleB(b *testing.B) {
	eachSize(b, func(b *testing.B, agents, frameworks int) {
		w := newBench(b, agents, frameworks)
		w.addAgents(nil)
		w.frameworks()
		w.applied, w.events = 0, 0
		for b.Loop() {
			decisions := w.cycle(true)
			if len(decisions) != agents {
				b.Fatalf("%d offers, want %d", len(decisions), agents)
			}
			for _, d := range decisions {
				w.release(d, d.GetOffer().GetQuantities(), 0, false)
			}
			w.flush()
		}
		w.report()
	})
}

func BenchmarkCycleC1(b *testing.B) {
	eachSize(b, func(b *testing.B, agents, frameworks int) {
		w := newBench(b, agents, frameworks)
		w.addAgents(nil)
		w.frameworks()
		w.applied, w.events = 0, 0
		for b.Loop() {
			for _, d := range w.cycle(false) {
				w.release(d, d.GetOffer().GetQuantities(), day, true)
			}
			w.flush()
			want := agents
			if frameworks == 1 {
				want = 0
			}
			decisions := w.cycle(true)
			if len(decisions) != want {
				b.Fatalf("%d offers, want %d", len(decisions), want)
			}
			for _, d := range decisions {
				w.release(d, d.GetOffer().GetQuantities(), 0, false)
			}
			for i := range frameworks { // back to where it began
				w.tell(&allocatorv1.Event{Event: &allocatorv1.Event_Revived{Revived: &allocatorv1.Revived{Framework: uint32(i + 1), Roles: []uint32{1}}}})
			}
			w.flush()
		}
		w.report()
	})
}

// filterAll lets every framework decline every agent.
func (w *bench) filterAll() {
	w.addAgents(nil)
	w.frameworks()
	w.applied, w.events = 0, 0
	for range w.fws {
		for _, d := range w.cycle(false) {
			w.release(d, d.GetOffer().GetQuantities(), day, true)
		}
		w.flush()
	}
	if rest := w.cycle(false); len(rest) > 0 {
		w.b.Fatalf("%d offers although everybody filters everything", len(rest))
	}
}

func BenchmarkCycleC2(b *testing.B) {
	eachSize(b, func(b *testing.B, agents, frameworks int) {
		w := newBench(b, agents, frameworks)
		base := heapMiB()
		w.filterAll()
		perFilter := (heapMiB() - base) * (1 << 20) / float64(agents*frameworks)
		for b.Loop() {
			if n := len(w.cycle(true)); n > 0 {
				b.Fatalf("%d offers, want none", n)
			}
		}
		w.report()
		b.ReportMetric(perFilter, "B/filter")
	})
}

func BenchmarkCycleC2All(b *testing.B) {
	eachSize(b, func(b *testing.B, agents, frameworks int) {
		w := newBench(b, agents, frameworks)
		w.filterAll()
		for b.Loop() {
			w.engine.Touch(w.now)
			if n := len(w.cycle(true)); n > 0 {
				b.Fatalf("%d offers, want none", n)
			}
		}
		w.report()
	})
}

// tasks are those of workloads d and e: number 8i+t of agent i belongs to a
// framework, which changes as tasks end and others begin.
type tasks struct {
	*bench
	owner []uint32
	rest  bool // workload e
	p     int  // counts ended tasks through all rounds
}

// quantities are what task t of an agent uses.
func (w *tasks) quantities(t int) *allocatorv1.Quantities {
	diskPart, last := int64(512_000), int64(124)
	if w.rest {
		diskPart = 448_000
	} else if t == 7 {
		last = 125
	}
	return &allocatorv1.Quantities{Kinds: []uint32{cpus, mem, disk, ports}, Amounts: []int64{3_000, 512_000, diskPart, 1, 31000 + 125*int64(t), last}}
}

func newTasks(b *testing.B, agents, frameworks int, rest bool) *tasks {
	w := &tasks{bench: newBench(b, agents, frameworks), owner: make([]uint32, 8*agents), rest: rest}
	w.frameworks()
	w.addAgents(func(i int) []*allocatorv1.Holding {
		var out []*allocatorv1.Holding
		for t := range 8 {
			w.owner[8*i+t] = uint32((8*i+t)%frameworks) + 1
			out = append(out, &allocatorv1.Holding{Framework: w.owner[8*i+t], Role: 1, Quantities: w.quantities(t)})
		}
		return out
	})
	w.applied, w.events = 0, 0
	if n := len(w.cycle(false)); n > 0 {
		b.Fatalf("%d offers of full agents", n)
	}
	return w
}

// end ends one task in a hundred, and returns those that ended by agent.
func (w *tasks) end() map[uint32][]int {
	ended := map[uint32][]int{}
	for range len(w.owner) / 100 {
		j := 7919 * w.p % len(w.owner)
		w.p++
		agent := uint32(j/8 + 1)
		ended[agent] = append(ended[agent], j)
		w.tell(&allocatorv1.Event{Event: &allocatorv1.Event_Released{Released: &allocatorv1.Released{
			Agent: agent, Framework: w.owner[j], Role: 1, Quantities: w.quantities(j % 8)}}})
	}
	w.flush()
	return ended
}

// round lets tasks end, runs a cycle, and lets the frameworks that get offers
// launch just the tasks that ended.
func (w *tasks) round(all bool) {
	ended := w.end()
	if all {
		w.engine.Touch(w.now)
	}
	decisions := w.cycle(true)
	if len(decisions) != len(ended) {
		w.b.Fatalf("%d offers, %d agents have something free", len(decisions), len(ended))
	}
	for _, d := range decisions {
		o := d.GetOffer()
		for _, j := range ended[o.GetAgent()] {
			w.owner[j] = o.GetFramework()
		}
		if w.rest {
			w.release(d, &allocatorv1.Quantities{Kinds: []uint32{disk, ports}, Amounts: []int64{512_000, 1, 32000, 0}}, 0, false)
		}
	}
	w.flush()
}

func BenchmarkCycleD(b *testing.B) {
	eachSize(b, func(b *testing.B, agents, frameworks int) {
		base := heapMiB()
		w := newTasks(b, agents, frameworks, false)
		perAgent := (heapMiB() - base) * (1 << 20) / float64(agents)
		for b.Loop() {
			w.round(false)
		}
		w.report()
		b.ReportMetric(perAgent, "B/agent")
	})
}

func BenchmarkCycleE(b *testing.B) {
	eachSize(b, func(b *testing.B, agents, frameworks int) {
		w := newTasks(b, agents, frameworks, true)
		for b.Loop() {
			w.round(false)
		}
		w.report()
	})
}

func BenchmarkCycleEAll(b *testing.B) {
	eachSize(b, func(b *testing.B, agents, frameworks int) {
		w := newTasks(b, agents, frameworks, true)
		for b.Loop() {
			w.round(true)
		}
		w.report()
	})
}
