package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mezzo-os/mezzo/plugins/internal/holder"
	"github.com/mezzo-os/mezzo/plugins/internal/perf"
	"github.com/mezzo-os/mezzo/sdk/plugin"
	isolatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/isolator/v1"
	v1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
)

// perfNode is a plugin that counts software events, which every kernel has.
func perfNode(t *testing.T) *node {
	n := newNode(t, map[string]any{"perf_events": []string{"task-clock", "context-switches", "page-faults", "cpu-migrations"}})
	if n.p.Perf == nil {
		_, _, err := perf.New(n.p.Host.PerfDir(""), nil, []int{0})
		lacking(t, "perf", "events of cgroups cannot be counted here: %v", err)
	}
	return n
}

func (n *node) perf(id string) *v1.PerfStatistics {
	n.t.Helper()
	r, err := n.Usage(n.ctx(), &isolatorv1.UsageRequest{Containers: []string{id}})
	if err != nil || len(r.GetUsages()) != 1 {
		n.t.Fatalf("usage of %s: %v, %v", id, r, err)
	}
	return r.GetUsages()[0].GetStatistics().GetPerf()
}

// perfDescriptors are those that this process has open.
func perfDescriptors(t *testing.T) (count int) {
	t.Helper()
	links, err := filepath.Glob("/proc/self/fd/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range links {
		if to, _ := os.Readlink(l); strings.Contains(to, "perf_event") {
			count++
		}
	}
	return count
}

func TestPerf(t *testing.T) {
	n := perfNode(t)
	n.run(n.shell("busy", `i=0; while [ $i -lt 200 ]; do (:); i=$((i+1)); done; echo done; exec sleep 1000`))
	n.run(n.shell("idle", `echo ready; exec sleep 1000`))
	n.awaitOutput("busy", "done")
	n.awaitOutput("idle", "ready")
	busy, idle := n.perf("busy"), n.perf("idle")
	for id, s := range map[string]*v1.PerfStatistics{"busy": busy, "idle": idle} {
		if s.GetTimestamp() == 0 || s.GetDuration() <= 0 || s.GetTaskClock() <= 0 || s.CpuMigrations == nil || s.Cycles != nil {
			t.Errorf("%s: %v", id, s)
		}
	}
	// Two hundred children: each faults its pages in and is switched to and from.
	if busy.GetPageFaults() < idle.GetPageFaults()+200 || busy.GetContextSwitches() < 200 {
		t.Errorf("busy: %v; idle: %v", busy, idle)
	}
	again := n.perf("busy")
	if again.GetTimestamp() != busy.GetTimestamp() || again.GetDuration() <= busy.GetDuration() || again.GetPageFaults() < busy.GetPageFaults() {
		t.Errorf("first %v, then %v", busy, again)
	}
	if got, want := perfDescriptors(t), 2*n.p.Perf.Each(); got != want {
		t.Errorf("%d descriptors for two containers, want %d", got, want)
	}
	n.cleanup("busy")
	if got, want := perfDescriptors(t), n.p.Perf.Each(); got != want {
		t.Errorf("%d descriptors for the other container, want %d", got, want)
	}

	// The plugin ends, and is started anew: counting begins again.
	stop := n.stop
	n.p.Close()
	if got := perfDescriptors(t); got != 0 {
		t.Errorf("%d descriptors are left", got)
	}
	n.serve()
	anew := n.perf("idle")
	if anew.GetTimestamp() <= idle.GetTimestamp() || anew.TaskClock == nil {
		t.Errorf("before %v, after the restart %v", idle, anew)
	}
	if _, err := n.Kill(n.ctx(), &isolatorv1.KillRequest{Container: "idle"}); err != nil {
		t.Fatal(err)
	}
	n.wait("idle")
	if got := perfDescriptors(t); got != 0 {
		t.Errorf("a container that has ended holds %d descriptors", got)
	}
	n.cleanup("idle")
	stop() // waits for the shims that the first one started
}

// TestPerfIsOptional: what cannot be counted is told, and the task runs.
func TestPerfIsOptional(t *testing.T) {
	n := prepareNode(t, map[string]any{"perf_events": []string{"emulation-faults", "node-prefetch-misses"}, "controllers": []string{}})
	n.serveProcess(0)
	if want := "no perf events are counted"; !strings.Contains(n.health, "DEGRADED") || !strings.Contains(n.health, want) {
		t.Errorf("health %q, want %q", n.health, want)
	}
	n.run(n.shell("c1", "exit 3"))
	if s := n.wait("c1"); s.GetCode() != 3 {
		t.Errorf("status %v", s)
	}
}

func TestPerfOff(t *testing.T) {
	n := newNode(t, nil)
	n.run(n.shell("c1", "exec sleep 1000"))
	if s := n.perf("c1"); s != nil || perfDescriptors(t) != 0 {
		t.Errorf("nobody asked for %v", s)
	}
}

// TestPerfAbsentEvents: an event that the machine does not have is left out and
// told, and the others are counted.
func TestPerfAbsentEvents(t *testing.T) {
	n := prepareNode(t, map[string]any{"perf_events": []string{"task-clock", "cycles"}})
	n.serveProcess(0)
	if strings.Contains(n.health, "no perf events are counted") {
		lacking(t, "perf", "%s", n.health)
	}
	n.run(n.shell("c1", `echo ready; exec sleep 1000`))
	n.awaitOutput("c1", "ready")
	s := n.perf("c1")
	absent := strings.Contains(n.health, "DEGRADED") && strings.HasSuffix(n.health, "are not counted: cycles")
	if s.GetTaskClock() <= 0 || (s.Cycles == nil) != absent {
		t.Errorf("%v, while the plugin says %q", s, n.health)
	}
}

func TestPerfEnforced(t *testing.T) {
	p := newPlugin()
	p.config = Config{Basics: holder.Basics{PerfEvents: []string{"cycles"}}, Enforce: true}
	d := p.detectPerf(plugin.Environment{}, errors.New("perf is not there"))
	if d == nil || strings.Join(d.Path, ".") != "perf_events" || !strings.Contains(d.Detail, "perf is not there") {
		t.Errorf("%v", d)
	}
}
