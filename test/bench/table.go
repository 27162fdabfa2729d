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
	notes []string
	// inRoles: the rows are of the variants with ten roles, and this guarantee.
	inRoles bool
	percent int64
	rows    [][]string
}

func (b *bench) table(title string, columns ...string) *table {
	return &table{b: b, title: title, rows: [][]string{columns}}
}

// note is a line under the title.
func (t *table) note(text string) { t.notes = append(t.notes, text) }

func (t *table) row(cells ...string) { t.rows = append(t.rows, cells) }

// print writes the table, without columns that say nothing; a row of other
// words in the first column than the one before begins after an empty line.
func (t *table) print() {
	fmt.Fprintf(t.b.out, "\n%s (load average %s)\n", t.title, load())
	for _, note := range t.notes {
		fmt.Fprintf(t.b.out, "  %s\n", note)
	}
	widths, empty := make([]int, len(t.rows[0])), make([]bool, len(t.rows[0]))
	for i := range widths {
		empty[i] = i > 0 && len(t.rows) > 1
		for r, row := range t.rows {
			widths[i] = max(widths[i], len(row[i]))
			empty[i] = empty[i] && (r == 0 || row[i] == "-" || row[i] == "")
		}
	}
	for _, row := range t.rows {
		line := fmt.Sprintf("  %-*s", widths[0], row[0])
		for i, cell := range row[1:] {
			if !empty[i+1] {
				line += fmt.Sprintf("  %*s", widths[i+1], cell)
			}
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

// ratio says how many times as long the reference is; 0: there is none.
func ratio(reference, v float64) string {
	switch {
	case reference == 0:
		return "-"
	case reference >= 1000*v:
		return ">1000x"
	}
	return number(reference/v) + "x"
}

// most says whether a figure keeps within its budget, and counts; 0: there is none.
func (b *bench) most(name string, v, budget float64) string {
	verdict := most(v, budget)
	if verdict != "-" {
		b.verdicts = append(b.verdicts, outcome{name, budget, v, verdict})
	}
	return verdict
}

func most(v, budget float64) string {
	switch {
	case budget == 0:
		return "-"
	case v <= budget:
		return "met"
	}
	return "NOT MET"
}

// outcome is how a figure stands to its budget.
type outcome struct {
	name             string
	budget, measured float64
	verdict          string
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

// budgets of a cycle, in milliseconds: of the engine alone, and through
// plugin, ledger and master.
var budgets = map[string]map[size][2]float64{
	"b":  {{10000, 200}: {35, 120}, {50000, 1000}: {300, 1000}},
	"c2": {{10000, 50}: {10, 15}},
	"d":  {{10000, 200}: {3, 8}},
	"e":  {{10000, 1000}: {10, 20}},
}

// result names a figure that other tables use.
type result struct {
	workload string
	size     size
}

// places of the figures in budgets.
var places = [2]string{"engine alone", "through plugin, ledger and master"}

// cycleRow is a row of both tables of cycles.
func (b *bench) cycleRow(t *table, name string, s size, column int, took []time.Duration, more ...string) {
	reference := mesos[original(name)][s] * b.scale
	limit := 0.0
	if name == original(name) {
		limit = budgets[name][s][column]
	}
	if t.inRoles {
		reference, limit = mesosRoles[inRoles{name, s, t.percent}]*b.scale, 0
	}
	ms := milliseconds(median(took))
	if column == 1 && !t.inRoles {
		b.cluster[result{name, s}] = ms
	}
	verdict := b.most(fmt.Sprintf("%s, %s, %s, ms", titles[name], s, places[column]), ms, limit)
	t.row(append([]string{titles[name], s.String(), budget(reference), budget(limit), number(ms), number(milliseconds(took[0])), verdict, ratio(reference, ms)}, more...)...)
}

// baseline are all sizes of Mesos's table.
func baseline() (out []size) {
	for _, agents := range []int{1000, 5000, 10_000, 50_000} {
		for _, frameworks := range []int{1, 50, 200, 1000} {
			out = append(out, size{agents, frameworks})
		}
	}
	return out
}

// engineSizes are those of the engine alone: all, unless others were asked for.
func (b *bench) engineSizes() []size {
	if len(b.sizes) == 0 {
		return baseline()
	}
	return b.sizes
}

// clusterSizes are those of a workload through a master: all or others where
// asked for, else some, those with a budget among them.
func (b *bench) clusterSizes(workload string) []size {
	switch {
	case len(b.sizes) > 0:
		return b.sizes
	case b.all:
		return baseline()
	}
	switch workload {
	case "a2":
		return []size{{1000, 200}, {10_000, 200}}
	case "b":
		return []size{{1000, 50}, {1000, 200}, {10_000, 50}, {10_000, 200}, {50_000, 1000}}
	}
	return []size{{1000, 200}, {10_000, 200}, {10_000, 1000}}
}
