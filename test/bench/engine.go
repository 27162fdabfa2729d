package main

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/mezzo-os/mezzo/sdk/allocator/engine/workload"
)

// filtersLimit is how many filters c2 sets up at the most, in the engine alone.
const filtersLimit = 2_000_000

// titles are the workloads as the tables name them.
var titles = map[string]string{
	workload.A1: "a1 add agents", workload.A2: "a2 add agents, live", workload.B: "b all free", workload.Decline: "b decline all",
	workload.C1: "c1 after declines", workload.C2: "c2 all filtered", workload.C2All: "c2, all looked at",
	workload.DFull: "d add full agents", workload.D0: "d0 idle", workload.D: "d steady",
	workload.E0: "e0 idle", workload.E: "e steady", workload.EAll: "e, all looked at",
}

// original is the workload of which Mesos's figure and the budget are.
func original(name string) string {
	switch name {
	case workload.C2All:
		return workload.C2
	case workload.EAll:
		return workload.E
	}
	return name
}

// family is the letter by which -workloads chooses.
func family(name string) string {
	switch name {
	case workload.Decline:
		return "b"
	case workload.DFull, workload.D0:
		return "d"
	case workload.E0, workload.EAll:
		return "e"
	case workload.C2All:
		return "c2"
	}
	return name
}

// wants says whether a workload is to be run.
func (b *bench) wants(name string) bool {
	return slices.Contains(strings.Split(b.only, ","), family(name))
}

// engine measures the engine alone, in this process.
func (b *bench) engine(ctx context.Context) error {
	t := b.table("The allocation engine alone: one cycle (a, decline, add: all of it), milliseconds",
		"workload", "agents x frameworks", "Mesos", "budget", "median", "best", "", "Mesos by it", "KiB a cycle", "objects", "MiB held", "Mesos RSS", "a filter or agent, B", "budget", "")
	for _, name := range workload.Names() {
		if !b.wants(name) {
			continue
		}
		for _, s := range b.engineSizes() {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if original(name) == workload.C2 && s.agents*s.frameworks > filtersLimit {
				continue
			}
			if err := b.engineOne(t, name, s); err != nil {
				return fmt.Errorf("%s, %s: %w", name, s, err)
			}
		}
	}
	t.print()
	return nil
}

// measured is what one workload cost the engine.
type measured struct {
	took           []time.Duration
	bytes, objects float64 // a cycle
	held           float64 // bytes, once it is set up
}

func (b *bench) measureEngine(name string, v workload.Variant, s size, rounds int) (measured, error) {
	var m measured
	before := heap()
	w, err := workload.New(name, v, s.agents, s.frameworks, workload.Meter{Cycle: func(run func()) {
		var first, last runtime.MemStats
		runtime.ReadMemStats(&first)
		began := time.Now()
		run()
		m.took = append(m.took, time.Since(began))
		runtime.ReadMemStats(&last)
		m.bytes += float64(last.TotalAlloc - first.TotalAlloc)
		m.objects += float64(last.Mallocs - first.Mallocs)
	}})
	if err != nil {
		return m, err
	}
	m.held = heap() - before
	for range rounds {
		if err := w.Round(); err != nil {
			return m, err
		}
	}
	m.bytes, m.objects = m.bytes/float64(rounds), m.objects/float64(rounds)
	runtime.KeepAlive(w)
	return m, nil
}

func (b *bench) engineRounds(s size) int {
	switch {
	case b.quick:
		return 3
	case s.agents >= 50_000:
		return 5
	}
	return 9
}

func (b *bench) engineOne(t *table, name string, s size) error {
	m, err := b.measureEngine(name, workload.Variant{}, s, b.engineRounds(s))
	if err != nil {
		return err
	}
	each, limit, mesosMiB := 0.0, 0.0, 0.0
	switch name {
	case workload.B:
		mesosMiB = mesosMemory[s][0]
	case workload.C2:
		each, limit, mesosMiB = m.held/float64(s.agents*s.frameworks), 128, mesosMemory[s][1]
	case workload.D:
		each, limit, mesosMiB = m.held/float64(s.agents), 4096, mesosMemory[s][2]
	}
	if s.agents*s.frameworks < 100_000 {
		limit = 0 // what there is only once counts too much
	}
	eachVerdict := "-"
	if limit > 0 {
		eachVerdict = most(each, limit)
	}
	b.cycleRow(t, name, s, 0, m.took, kib(m.bytes), number(m.objects), heldMiB(m.held), budget(mesosMiB), budget(each), budget(limit), eachVerdict)
	return nil
}

// heldMiB is "-" where nothing is set up before the cycle.
func heldMiB(bytes float64) string {
	if bytes < 1<<16 {
		return "-"
	}
	return number(bytes / (1 << 20))
}

func kib(bytes float64) string { return number(bytes / 1024) }

// roles measures the variants with ten roles: in the engine alone, and through
// a master.
func (b *bench) roles(ctx context.Context) error {
	if err := b.engineRoles(ctx); err != nil {
		return err
	}
	return b.clusterRoles(ctx)
}

func (b *bench) engineRoles(ctx context.Context) error {
	t := b.table("The engine alone, frameworks in ten roles: one cycle, milliseconds",
		"workload", "agents x frameworks", "guarantee a role", "Mesos", "median", "best", "Mesos by it", "KiB a cycle", "objects")
	for _, name := range []string{workload.B, workload.C1, workload.D0, workload.D} {
		for _, s := range []size{{1000, 50}, {1000, 1000}, {10_000, 50}, {10_000, 1000}} {
			for _, percent := range []int64{0, 5} {
				if ctx.Err() != nil {
					return ctx.Err()
				}
				m, err := b.measureEngine(name, workload.Variant{Roles: 10, Guarantee: percent}, s, b.engineRounds(s))
				if err != nil {
					return fmt.Errorf("%s, %s: %w", name, s, err)
				}
				reference := mesosRoles[inRoles{name, s, percent}] * b.scale
				ms := milliseconds(median(m.took))
				t.row(titles[name], s.String(), fmt.Sprintf("%d %%", percent), budget(reference), number(ms), number(milliseconds(m.took[0])),
					ratio(reference, ms), kib(m.bytes), number(m.objects))
			}
		}
	}
	t.print()
	return nil
}

// steady shows what a cycle costs with a fixed change, on clusters of
// different sizes: in the engine alone, and through a master.
func (b *bench) steady(ctx context.Context) error {
	t := b.table("The same change on larger clusters: 100 tasks have ended, 200 frameworks; one cycle, milliseconds",
		"agents", "engine, median", "KiB", "objects", "with guarantees, median", "KiB", "objects", "through a master", "best", "processor: master", "plugin")
	for _, agents := range []int{1000, 5000, 10_000, 50_000} {
		s := size{agents, 200}
		cells := []string{fmt.Sprint(agents)}
		for _, percent := range []int64{0, 5} {
			m, err := b.measureEngine(workload.D, workload.Variant{Roles: 10, Guarantee: percent, Ended: steadyTasks}, s, 50)
			if err != nil {
				return err
			}
			cells = append(cells, fmt.Sprintf("%.3f", milliseconds(median(m.took))), kib(m.bytes), number(m.objects))
		}
		if agents < 50_000 || b.all {
			laps, _, err := b.clusterTasks(ctx, workload.D, s, variant{ended: steadyTasks})
			if err != nil {
				return fmt.Errorf("%s: %w", s, err)
			}
			whole, _, master, plugin := split(laps)
			cells = append(cells, number(milliseconds(median(whole))), number(milliseconds(whole[0])), number(milliseconds(median(master))), number(milliseconds(median(plugin))))
		} else {
			cells = append(cells, "-", "-", "-", "-")
		}
		t.row(cells...)
	}
	t.print()
	return nil
}

// steadyTasks end before each cycle of a fixed change.
const steadyTasks = 100

func heap() float64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc)
}
