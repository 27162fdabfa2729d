package plugintest_test

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/mezzo-os/mezzo/sdk/allocator"
	"github.com/mezzo-os/mezzo/sdk/allocator/engine"
	"github.com/mezzo-os/mezzo/sdk/plugin"
	"github.com/mezzo-os/mezzo/sdk/plugintest"
	"github.com/mezzo-os/mezzo/sdk/plugintest/broken"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// verify runs the suites in a bubble, in which nobody waits for a clock.
func verify(t *testing.T, def plugin.Definition) (report *plugintest.Report) {
	synctest.Test(t, func(t *testing.T) {
		var err error
		if report, err = plugintest.Verify(t.Context(), plugintest.Local(def, ""), plugintest.Options{}); err != nil {
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
			report := verify(t, broken.With(fault))
			var got []string
			for _, c := range report.Checks {
				if c.Outcome == plugintest.Failed {
					got = append(got, c.Name)
				}
			}
			if fault == "spams" { // how much of it is heard in time is chance
				got = slices.DeleteFunc(got, func(name string) bool { return name == "refusals" || name == "rate" })
			}
			if diff := cmp.Diff(want, got); diff != "" {
				var text strings.Builder
				_ = report.Write(&text)
				t.Errorf("failed checks (-want +got):\n%s\n%s", diff, &text)
			}
		})
	}
}
