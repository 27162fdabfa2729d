package command

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/structpb"

	operatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/operator/v1"
)

// topRow is who has something, and what. Memory is in MiB.
type topRow struct {
	ID        string   `json:"id"`
	Name      string   `json:"name,omitempty"`
	State     string   `json:"state,omitempty"`
	Tasks     uint64   `json:"tasks,omitempty"`
	CPUs      float64  `json:"cpus"`
	CPUsTotal float64  `json:"cpus_total,omitempty"`
	CPUsUsed  *float64 `json:"cpus_used,omitempty"`
	Mem       float64  `json:"mem"`
	MemTotal  float64  `json:"mem_total,omitempty"`
	MemUsed   *float64 `json:"mem_used,omitempty"`
	// The greatest part of any resource of the cluster that it has, of an agent of
	// its own.
	Share float64 `json:"share"`
	place string  // of a task: its framework and its agent
}

// rows are what is listed, in order.
func (t *top) rows() []topRow {
	rows := []topRow{}
	add := func(r topRow, allocated *structpb.Struct, used *use) {
		r.CPUs, r.Mem = amountOf(allocated, "cpus"), amountOf(allocated, "mem")
		if used != nil {
			r.CPUsUsed, r.MemUsed = used.cpus, &used.mem
		}
		rows = append(rows, r)
	}
	switch t.view {
	case "agents":
		for _, a := range objectsOf[*operatorv1.Agent](&t.mirror, kindAgent, nil) {
			add(topRow{
				ID: a.Id, Name: a.Hostname, State: a.State, Tasks: a.Tasks, Share: dominant(a.Allocated, a.Resources),
				CPUsTotal: amountOf(a.Resources, "cpus"), MemTotal: amountOf(a.Resources, "mem"),
			}, a.Allocated, t.meter.agent(a))
		}
	case "frameworks":
		for _, f := range objectsOf[*operatorv1.Framework](&t.mirror, kindFramework, nil) {
			if f.State != "completed" {
				add(topRow{ID: f.Id, Name: f.Name, State: f.State, Tasks: f.Tasks, Share: dominant(f.Allocated, t.status.Total)}, f.Allocated, t.meter.frameworks[f.Id])
			}
		}
	case "roles":
		tasks, used := t.byRole()
		for _, r := range objectsOf[*operatorv1.Role](&t.mirror, kindRole, nil) {
			add(topRow{ID: r.Name, State: "weight " + number(r.Weight), Tasks: tasks[r.Name], Share: dominant(r.Allocated, t.status.Total)}, r.Allocated, used[r.Name])
		}
	case "tasks":
		for _, x := range objectsOf[*operatorv1.Task](&t.mirror, kindTask, nil) {
			if !taskEnded(x) {
				add(topRow{
					ID: x.Id, Name: x.Name, State: taskState(x), Share: dominant(x.Resources, t.status.Total),
					place: t.mirror.frameworkName(x.FrameworkId) + " on " + t.mirror.agentName(x.AgentId),
				}, x.Resources, t.meter.tasks[objectKey{kindTask, x.FrameworkId, x.Id}])
			}
		}
	}
	value := func(p *float64) float64 {
		if p == nil {
			return -1
		}
		return *p
	}
	slices.SortStableFunc(rows, func(a, b topRow) int {
		switch t.sort {
		case "mem":
			return cmp.Compare(b.Mem, a.Mem)
		case "cpus-used":
			return cmp.Compare(value(b.CPUsUsed), value(a.CPUsUsed))
		case "mem-used":
			return cmp.Compare(value(b.MemUsed), value(a.MemUsed))
		case "tasks":
			return cmp.Compare(b.Tasks, a.Tasks)
		case "name":
			return cmp.Compare(cmp.Or(a.Name, a.ID), cmp.Or(b.Name, b.ID))
		}
		return cmp.Compare(b.CPUs, a.CPUs)
	})
	return rows
}

// byRole sums what tasks use by role. A role whose tasks are not all measured is
// shown with what is.
func (t *top) byRole() (tasks map[string]uint64, used map[string]*use) {
	tasks, used = map[string]uint64{}, map[string]*use{}
	for _, x := range objectsOf[*operatorv1.Task](&t.mirror, kindTask, nil) {
		if taskEnded(x) {
			continue
		}
		tasks[x.Role]++
		if u := t.meter.tasks[objectKey{kindTask, x.FrameworkId, x.Id}]; u != nil {
			used[x.Role] = used[x.Role].plus(u)
		}
	}
	return tasks, used
}

// table is the rows for people.
func (t *top) table(rows []topRow) *table {
	header := map[string][]string{
		"agents":     {"AGENT", "HOSTNAME", "STATE", "TASKS", "CPUS", "USED", "MEM", "USED", "SHARE"},
		"frameworks": {"FRAMEWORK", "NAME", "STATE", "TASKS", "CPUS", "USED", "MEM", "USED", "SHARE"},
		"roles":      {"ROLE", "WEIGHT", "TASKS", "CPUS", "USED", "MEM", "USED", "SHARE"},
		"tasks":      {"TASK", "STATE", "CPUS", "USED", "MEM", "USED", "SHARE", "OF"},
	}[t.view]
	out := newTable(header...)
	for _, r := range rows {
		cells := []string{withTotal(r.CPUs, r.CPUsTotal), measuredText(r.CPUsUsed), withTotal(r.Mem, r.MemTotal), measuredText(r.MemUsed), fmt.Sprintf("%.1f%%", 100*r.Share)}
		count := strconv.FormatUint(r.Tasks, 10)
		switch t.view {
		case "roles":
			cells = append([]string{r.ID, strings.TrimPrefix(r.State, "weight "), count}, cells...)
		case "tasks":
			cells = append(append([]string{r.ID, r.State}, cells...), r.place)
		default:
			cells = append([]string{r.ID, r.Name, r.State, count}, cells...)
		}
		out.row(cells...)
	}
	return out
}

func withTotal(have, total float64) string {
	if total == 0 {
		return number(have)
	}
	return number(have) + "/" + number(total)
}

func measuredText(v *float64) string {
	if v == nil {
		return "-"
	}
	return strconv.FormatFloat(*v, 'f', 1, 64)
}

// head is the cluster in a few lines.
func (t *top) head(width int, color bool) []string {
	s := t.status
	style := func(code, text string) string {
		if !color {
			return text
		}
		return paint(code, text)
	}
	lines := []string{
		fmt.Sprintf("Master %s, %s for %s, at %s", s.MasterId, style(stateColor(s.Leadership), s.Leadership), age(s.Elected), time.Now().Format(time.TimeOnly)),
		fmt.Sprintf("Agents %s; frameworks %s; tasks %d, %d running; offers %d", counts(s.Agents), counts(s.Frameworks), s.Tasks.GetActive(), s.Tasks.GetRunning(), s.Offers),
	}
	if t.lost != "" {
		lines = append(lines, style(red, "No master answers; this is what was known last: "+oneLine(t.lost)))
	}
	for _, name := range []string{"cpus", "mem", "disk", "gpus"} {
		total := amountOf(s.Total, name)
		if total == 0 {
			continue
		}
		allocated, offered := amountOf(s.Allocated, name), amountOf(s.Offered, name)
		text := fmt.Sprintf("%s of %s allocated (%.0f%%)", number(allocated), number(total), 100*allocated/total)
		if offered > 0 {
			text += ", " + number(offered) + " offered"
		}
		lines = append(lines, fmt.Sprintf("%-5s%s  %s", name, bar(allocated/total, offered/total, barWidth(width), color), text))
	}
	for _, p := range s.Plugins {
		if p.State != "healthy" {
			lines = append(lines, style(red, fmt.Sprintf("%s is %s: %s", p.Id, p.State, dash(oneLine(p.Reason)))))
		}
	}
	return append(lines, "")
}

func barWidth(width int) int {
	if width == 0 {
		return 30
	}
	return max(min(width-50, 60), 10)
}

// bar shows parts of a whole: # what is allocated, + what is offered.
func bar(allocated, offered float64, width int, color bool) string {
	cells := func(part float64) int { return int(min(max(part, 0), 1)*float64(width) + 0.5) }
	full := cells(allocated)
	part := min(cells(allocated+offered), width) - full
	a, o, rest := strings.Repeat("#", full), strings.Repeat("+", max(part, 0)), strings.Repeat(".", width-full-max(part, 0))
	if color {
		a, o, rest = paint(green, a), paint(yellow, o), paint(dim, rest)
	}
	return "[" + a + o + rest + "]"
}

func amountOf(s *structpb.Struct, name string) float64 {
	return s.GetFields()[name].GetNumberValue()
}

// dominant is the greatest part of any of the resources.
func dominant(have, total *structpb.Struct) float64 {
	share := 0.0
	for name, v := range total.GetFields() {
		if of := v.GetNumberValue(); of > 0 {
			share = max(share, amountOf(have, name)/of)
		}
	}
	return share
}
