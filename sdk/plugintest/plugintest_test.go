package plugintest_test

import (
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/mezzo-os/mezzo/sdk/allocator"
	"github.com/mezzo-os/mezzo/sdk/allocator/engine"
	"github.com/mezzo-os/mezzo/sdk/plugin"
	"github.com/mezzo-os/mezzo/sdk/plugintest"
	"github.com/mezzo-os/mezzo/sdk/plugintest/broken"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// Every fault in what every plugin serves is found by the check of its own, and
// by no other.
func TestBrokenBase(t *testing.T) {
	tests := map[string][]string{
		"none":                 nil,
		"bad-name":             {"describe"},
		"no-version":           {"describe"},
		"unknown-kind":         {"describe"},
		"no-contract":          {"describe"},
		"no-schema":            {"describe"},
		"changes-its-mind":     {"describe"},
		"unwritable-name":      {"schema"},
		"typeless":             {"schema"},
		"unfitting-default":    {"schema"},
		"public-secret":        {"schema"},
		"validates-once":       {"validate-only"},
		"rejects-defaults":     {"configure"},
		"accepts-nonsense":     {"rejects"},
		"accepts-any-contract": {"rejects"},
		"wrong-kind":           {"serves"},
		"silent-health":        {"health"},
		"mute-sickness":        {"health"},
		"no-health":            {"health"},
		"unlabelled-metrics":   {"metrics"},
		"changing-metrics":     {"metrics"},
		"falling-counter":      {"metrics"},
		"passing-counter":      {"metrics"},
		"never-pings":          {"ping"},
		"never-ends":           {"shutdown"},
	}
	var names []string
	for _, c := range plugintest.Checks(0) {
		names = append(names, c.Name)
	}
	for _, fault := range broken.BaseFaults() {
		t.Run(fault, func(t *testing.T) {
			t.Parallel()
			want, known := tests[fault]
			if !known {
				t.Fatalf("no test says which check finds the fault %q", fault)
			}
			wantFailed(t, verify(t, broken.Base(fault), names...), want)
		})
	}
}

func failed(report *plugintest.Report) (names []string) {
	for _, c := range report.Checks {
		if c.Outcome == plugintest.Failed {
			names = append(names, c.Name)
		}
	}
	return names
}

// verifyAll verifies every fault at the real clock, several at a time, since
// they wait more than they work. The checks that
// do not say what the table says are asked again, alone and with all patience: a
// machine that has much else to do makes a right plugin late, and never a wrong
// one right.
func verifyAll(t *testing.T, want map[string][]string, open func(fault string) (plugintest.Open, func()), options plugintest.Options) map[string]*plugintest.Report {
	t.Helper()
	verify := func(fault string, options plugintest.Options) *plugintest.Report {
		open, end := open(fault)
		defer end()
		report, err := plugintest.Verify(t.Context(), open, options)
		if err != nil {
			t.Errorf("%s: %v", fault, err)
			return &plugintest.Report{}
		}
		return report
	}
	slots := make(chan struct{}, 8)
	var mu sync.Mutex
	reports := map[string]*plugintest.Report{}
	var running sync.WaitGroup
	for fault := range want {
		running.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			report := verify(fault, options)
			mu.Lock()
			defer mu.Unlock()
			reports[fault] = report
		})
	}
	running.Wait()
	options.Patience = 30 * time.Second
	for fault, report := range reports {
		options.Only = slices.DeleteFunc(append(failed(report), want[fault]...), func(name string) bool {
			return slices.Contains(failed(report), name) && slices.Contains(want[fault], name)
		})
		if len(options.Only) == 0 {
			continue
		}
		for _, again := range verify(fault, options).Checks {
			for i, c := range report.Checks {
				if c.Name == again.Name && slices.Contains(options.Only, c.Name) {
					report.Checks[i] = again
				}
			}
		}
	}
	return reports
}

// wantFailed wants these checks of a report to have failed, and no others.
func wantFailed(t *testing.T, report *plugintest.Report, want []string) {
	t.Helper()
	if diff := cmp.Diff(want, failed(report)); diff != "" {
		var text strings.Builder
		_ = report.Write(&text)
		t.Errorf("failed checks (-want +got):\n%s\n%s", diff, &text)
	}
}

// verify runs the suites in a bubble, in which nobody waits for a clock.
func verify(t *testing.T, open plugintest.Open, only ...string) (report *plugintest.Report) {
	synctest.Test(t, func(t *testing.T) {
		var err error
		if report, err = plugintest.Verify(t.Context(), open, plugintest.Options{Only: only}); err != nil {
			t.Fatal(err)
		}
	})
	return report
}

// The engine of the SDK, with the policy that needs nothing else, keeps every
// rule.
func TestEngine(t *testing.T) {
	t.Parallel()
	plugintest.Allocator(t, plugintest.Local(allocator.Definition{
		Name: "fair", Version: "1.0.0",
		NewPolicy: func(any) (allocator.Policy, []plugin.Diagnostic) { return &engine.DominantShare{}, nil },
	}.Plugin(), ""))
}

// Every fault is found by the check of its own, and by no other.
func TestBroken(t *testing.T) {
	tests := map[string][]string{
		"none":                    nil,
		"over-commit":             {"over-commit"},
		"offers-twice":            {"over-commit"},
		"ignores-min-refuse":      {"min-refuse"},
		"ignores-guarantees":      {"guarantees"},
		"hoards-for-guarantees":   {"guarantees"},
		"hoards-shared":           {"shared"},
		"hides-gpus":              {"capabilities"},
		"ignores-regions":         {"capabilities"},
		"ignores-constraints":     {"constraints"},
		"ignores-conversions":     {"conversions"},
		"avoids-maintenance":      {"unavailability", "inverse-offers", "snapshot"}, // wherever there is a window
		"asks-nobody":             {"inverse-offers"},
		"asks-everybody":          {"inverse-offers"},
		"asks-twice":              {"inverse-offers"},
		"asks-again":              {"inverse-offers"},
		"asks-for-the-past":       {"inverse-offers"},
		"forgets-inverse-offers":  {"snapshot"},
		"forgets-suppression":     {"snapshot"},
		"one-session":             {"sessions-beside"},
		"never-revokes":           {"revocation"},
		"revokes-twice":           {"revocation"},
		"revokes-at-once":         {"revocation"},
		"revokes-guaranteed":      {"revocation"},
		"revokes-unasked":         {"revocation"},
		"ignores-filters":         {"filters"},
		"filters-for-ever":        {"filter-expiry"},
		"filters-all-roles":       {"filter-scope"},
		"ignores-revive":          {"revive"},
		"ignores-suppression":     {"suppression"},
		"ignores-limits":          {"limits"},
		"ignores-reservations":    {"roles", "capabilities"}, // refined reservations too
		"ignores-capabilities":    {"capabilities"},
		"ignores-min-allocatable": {"min-allocatable"},
		"offers-inactive-agents":  {"inactive-agents"},
		"offers-departed-agents":  {"departed-agents"},
		"offers-dead-frameworks":  {"inactive-frameworks"},
		"ignores-refusals":        {"refusals"},
		"forgets-after-snapshot":  {"snapshot"},
		"never-offers":            {"offers"},
		"dies-on-unknown-events":  {"unknown-events"},
		"dies-on-duplicates":      {"duplicate-events"},
		"floods":                  {"rate"},
		"spams":                   {"over-commit"}, // and what follows from it
		"stops-reading":           {"burst"},
		"reads-nothing":           {"acknowledges"},
		"never-acknowledges":      {"acknowledges"},
		"never-ready":             {"ready"},
		"wrong-session":           {"decisions"},
		"chatters":                {"idle"},
		"offers-lost-agents":      {"inactive-agents", "departed-agents"},
		"talks-nonsense":          {"decisions"},
	}
	for _, fault := range broken.Faults() {
		t.Run(fault, func(t *testing.T) {
			t.Parallel()
			want, known := tests[fault]
			if !known {
				t.Fatalf("no test says which check finds the fault %q", fault)
			}
			report := verify(t, plugintest.Local(broken.With(fault), ""))
			if fault == "spams" { // how much of it is heard in time is chance
				report.Checks = slices.DeleteFunc(report.Checks, func(c plugintest.Check) bool { return c.Name == "refusals" || c.Name == "rate" })
			}
			wantFailed(t, report, want)
		})
	}
}
