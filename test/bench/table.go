package main

import (
	"fmt"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"
)

func processors() int { return runtime.NumCPU() }

// table collects rows and prints them aligned.
type table struct {
	b     *bench
	title string
	rows  [][]string
}

func (b *bench) table(title string, columns ...string) *table {
	return &table{b: b, title: title, rows: [][]string{columns}}
}

func (t *table) row(cells ...string) { t.rows = append(t.rows, cells) }

func (t *table) print() {
	fmt.Fprintf(t.b.out, "\n%s (load average %s)\n", t.title, load())
	widths := make([]int, len(t.rows[0]))
	for _, row := range t.rows {
		for i, cell := range row {
			widths[i] = max(widths[i], len(cell))
		}
	}
	for _, row := range t.rows {
		line := fmt.Sprintf("  %-*s", widths[0], row[0])
		for i, cell := range row[1:] {
			line += fmt.Sprintf("  %*s", widths[i+1], cell)
		}
		fmt.Fprintln(t.b.out, strings.TrimRight(line, " "))
	}
}

// number prints with three digits that count.
func number(v float64) string {
	switch {
	case v == 0:
		return "0"
	case v >= 100:
		return strconv.FormatFloat(v, 'f', 0, 64)
	case v >= 10:
		return strconv.FormatFloat(v, 'f', 1, 64)
	case v >= 0.01:
		return strconv.FormatFloat(v, 'f', 2, 64)
	}
	return "<0.01"
}

// budget prints a budget; 0: there is none.
func budget(v float64) string {
	if v == 0 {
		return "-"
	}
	return number(v)
}

// most says whether a figure keeps within its budget; 0: there is none.
func most(v, budget float64) string {
	switch {
	case budget == 0:
		return "-"
	case v <= budget:
		return "met"
	}
	return "NOT MET"
}

func milliseconds(d time.Duration) float64 { return float64(d) / 1e6 }

// median of what was measured; it sorts.
func median[T ~int64 | ~float64](v []T) T {
	if len(v) == 0 {
		return 0
	}
	slices.Sort(v)
	return v[len(v)/2]
}

// mesos are milliseconds of a cycle of Mesos's own allocator, in C++ and in
// process: the median of three runs.
var mesos = map[string]map[size]float64{
	"b": {
		{1000, 1}: 37.4, {1000, 50}: 49.1, {1000, 200}: 31.1, {1000, 1000}: 48.5, {10000, 1}: 273, {10000, 50}: 332, {10000, 200}: 390,
		{10000, 1000}: 720, {50000, 1}: 1762, {50000, 50}: 1569, {50000, 200}: 1736, {50000, 1000}: 3390,
	},
	"c1": {
		{1000, 1}: 11.0, {1000, 50}: 28.7, {1000, 200}: 51.1, {1000, 1000}: 48.5, {10000, 1}: 116, {10000, 50}: 311, {10000, 200}: 407,
		{10000, 1000}: 599, {50000, 1}: 510, {50000, 50}: 1555, {50000, 200}: 1808, {50000, 1000}: 2885,
	},
	"c2": {
		{1000, 1}: 7.06, {1000, 50}: 266, {1000, 200}: 827, {1000, 1000}: 5006, {10000, 1}: 109, {10000, 50}: 3018, {10000, 200}: 8699,
		{50000, 1}: 579, {50000, 50}: 12338,
	},
	"d": {
		{1000, 1}: 5.94, {1000, 50}: 5.03, {1000, 200}: 6.52, {1000, 1000}: 6.82, {10000, 1}: 66.4, {10000, 50}: 88.9, {10000, 200}: 81.8,
		{10000, 1000}: 103, {50000, 1}: 424, {50000, 50}: 432, {50000, 200}: 456, {50000, 1000}: 606,
	},
	"e": {
		{1000, 1}: 5.64, {1000, 50}: 23.6, {1000, 200}: 77.6, {1000, 1000}: 373, {10000, 1}: 87.3, {10000, 50}: 270, {10000, 200}: 851,
		{10000, 1000}: 4204, {50000, 1}: 487, {50000, 50}: 1380, {50000, 200}: 4198, {50000, 1000}: 20231,
	},
}

// budgets of a cycle, in milliseconds: of the engine alone, and through
// plugin, ledger and master.
var budgets = map[string]map[size][2]float64{
	"b":  {{10000, 200}: {35, 120}, {50000, 1000}: {300, 1000}},
	"c2": {{10000, 50}: {10, 15}},
	"d":  {{10000, 200}: {3, 8}},
	"e":  {{10000, 1000}: {10, 20}},
}

// cycleRow is a row of both tables of cycles.
func (b *bench) cycleRow(t *table, workload string, s size, column int, ms float64, more ...string) {
	original := "-"
	if v := mesos[workload][s]; v > 0 {
		original = number(v * b.scale)
	}
	limit := budgets[workload][s][column]
	t.row(append([]string{workload, s.String(), original, budget(limit), number(ms), most(ms, limit)}, more...)...)
}

// sizesOf are the sizes of a workload: those that were asked for, and those
// that have a budget and no more agents than these.
func (b *bench) sizesOf(workload string) []size {
	out := slices.Clone(b.sizes)
	largest := 0
	for _, s := range b.sizes {
		largest = max(largest, s.agents)
	}
	for s := range budgets[workload] {
		if s.agents <= largest && !slices.Contains(out, s) && !b.quick {
			out = append(out, s)
		}
	}
	slices.SortFunc(out, func(a, b size) int {
		if a.agents != b.agents {
			return a.agents - b.agents
		}
		return a.frameworks - b.frameworks
	})
	return out
}
