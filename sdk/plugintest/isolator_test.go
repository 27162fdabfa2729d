package plugintest_test

import (
	"sync"
	"testing"
	"time"

	"github.com/mezzo-os/mezzo/sdk/plugintest"
	"github.com/mezzo-os/mezzo/sdk/plugintest/broken"
)

// Every fault of an isolator is found by the check of its own, and by no other.
// Its containers are real processes, so that time is real here.
func TestBrokenIsolators(t *testing.T) {
	t.Parallel()
	tests := map[string][]string{
		"none":                 nil,
		"claims-unexplained":   {"claim"},
		"claims-by-turns":      {"claim"},
		"loses-annotations":    {"prepare"},
		"cleanup-complains":    {"cleanup"},
		"leaves-processes":     {"cleanup", "usage", "cold-cleanup"}, // they are still there
		"cleans-what-it-knows": {"cold-cleanup"},
		"runs-at-once":         {"start"},
		"bad-program-succeeds": {"bad-program"},
		"short-codes":          {"exit-code"},
		"signals-are-codes":    {"exit-signal"},
		"deaf":                 {"signal"},
		"never-asks":           {"kill"},
		"escalates-early":      {"kill-escalates"},
		"pushes-back":          {"kill-nearer"},
		"knows-everybody":      {"not-found"},
		"few-at-a-time":        {"concurrent"},
		"usage-of-the-dead":    {"usage"},
		"limits-everybody":     {"limitations"},
		"recovers-nothing":     {"recover"},
		"names-no-orphans":     {"recover"},
		"dies-with-plugin":     {"recover"},
		"exec-is-always-fine":  {"exec"},
		"exec-stays":           {"exec-ends"},
		"exec-is-blind":        {"exec-terminal"},
		"attach-remembers":     {"attach"},
		"attach-takes-along":   {"attach"},
		"attach-holds-up":      {"attach-slow"},
		"attach-skips":         {"attach-slow"},
		"attach-is-deaf":       {"attach-terminal"},
	}
	// They wait more than they work: several at a time, however few the cores.
	slots := make(chan struct{}, 8)
	var mu sync.Mutex
	reports := map[string]*plugintest.Report{}
	var running sync.WaitGroup
	for _, fault := range broken.IsolatorFaults() {
		running.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			isolator := broken.NewIsolator(fault)
			defer isolator.Close()
			report, err := plugintest.Verify(t.Context(), isolator.Open, plugintest.Options{Patience: 4 * time.Second, Settle: 100 * time.Millisecond})
			if err != nil {
				t.Errorf("%s: %v", fault, err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			reports[fault] = report
		})
	}
	running.Wait()
	for fault, report := range reports {
		t.Run(fault, func(t *testing.T) {
			want, known := tests[fault]
			if !known {
				t.Fatalf("no test says which check finds the fault %q", fault)
			}
			wantFailed(t, report, want)
			if n := report.Count(plugintest.Skipped); fault == "none" && n != 1 {
				t.Errorf("%d checks are skipped, want host-death alone", n)
			}
		})
	}
}
