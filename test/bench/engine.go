package main

import (
	"context"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/mezzo-os/mezzo/sdk/allocator/engine/workload"
)

// filtersLimit is how many filters c2 sets up at the most.
const filtersLimit = 2_000_000

// engine measures the engine alone, in this process.
func (b *bench) engine(ctx context.Context) error {
	t := b.table("Cycle of the engine alone, milliseconds", "workload", "agents x frameworks", "Mesos", "budget", "engine", "", "bytes")
	rounds := 9
	if b.quick {
		rounds = 3
	}
	for _, name := range []string{workload.B, workload.C2, workload.C2All, workload.D, workload.E, workload.EAll} {
		if !b.wants(base(name)) {
			continue
		}
		for _, s := range b.sizesOf(base(name)) {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if base(name) == workload.C2 && s.agents*s.frameworks > filtersLimit {
				continue
			}
			if err := b.engineOne(t, name, s, rounds); err != nil {
				return err
			}
		}
	}
	t.print()
	return nil
}

// base is the workload without "all": what Mesos's figure and the budget are of.
func base(name string) string {
	switch name {
	case workload.C2All:
		return workload.C2
	case workload.EAll:
		return workload.E
	}
	return name
}

// wants says whether a workload is to be run.
func (b *bench) wants(name string) bool { return slices.Contains(strings.Split(b.only, ","), name) }

func (b *bench) engineOne(t *table, name string, s size, rounds int) error {
	var took []time.Duration
	before := heap()
	w, err := workload.New(name, s.agents, s.frameworks, workload.Meter{Cycle: func(run func()) {
		began := time.Now()
		run()
		took = append(took, time.Since(began))
	}})
	if err != nil {
		return err
	}
	grown := heap() - before
	for range rounds {
		if err := w.Round(); err != nil {
			return err
		}
	}
	bytes, title := "", name
	switch name {
	case workload.C2:
		bytes = number(grown/float64(s.agents*s.frameworks)) + " a filter"
	case workload.D:
		bytes = number(grown/float64(s.agents)) + " an agent"
	case workload.C2All:
		title = "c2, all looked at"
	case workload.EAll:
		title = "e, all looked at"
	}
	b.cycleRow(t, base(name), s, 0, milliseconds(median(took)), bytes)
	t.rows[len(t.rows)-1][0] = title
	return nil
}

func heap() float64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc)
}
