package plugintest_test

import (
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
		"rounds-numbers":       {"prepare"},
		"cleanup-complains":    {"cleanup", "provision"},             // which cleans up what was never created
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
		"imports-garbage":      {"images"},
		"forgets-nothing":      {"images"},
		"provisions-nothing":   {"provision"},
		"keeps-no-image":       {"provision"},
	}
	for _, fault := range broken.IsolatorFaults() {
		if _, known := tests[fault]; !known {
			t.Errorf("no test says which check finds the fault %q", fault)
		}
	}
	reports := verifyAll(t, tests, func(fault string) (plugintest.Open, func()) {
		isolator := broken.NewIsolator(fault)
		return isolator.Open, isolator.Close
	}, plugintest.Options{Patience: 4 * time.Second, Settle: 100 * time.Millisecond})
	for fault, report := range reports {
		t.Run(fault, func(t *testing.T) {
			wantFailed(t, report, tests[fault])
			if n := report.Count(plugintest.Skipped); fault == "none" && n != 2 {
				t.Errorf("%d checks are skipped, want host-death and metrics", n)
			}
		})
	}
}
