package plugintest_test

import (
	"testing"
	"time"

	"github.com/mezzo-os/mezzo/sdk/plugintest"
	"github.com/mezzo-os/mezzo/sdk/plugintest/broken"
)

// An adapter that is right keeps every rule.
func TestAdapter(t *testing.T) {
	t.Parallel()
	plugintest.Framework(t, broken.Adapter("none"))
}

// Every fault of an adapter is found by the check of its own, and by no other.
func TestBrokenAdapters(t *testing.T) {
	t.Parallel()
	tests := map[string][]string{
		"none":                 nil,
		"waits-for-the-leader": {"standby"},
		"waits-for-the-agent":  {"agent-side"},
		"bad-endpoint-name":    {"endpoints"},
		"bad-variable":         {"endpoints"},
		"unspecified-address":  {"endpoints"},
		"listens-nowhere":      {"endpoints"},
		"closes-when-standby":  {"leadership"},
		"sick-when-leading":    {"leadership"},
		"bad-key":              {"store"},
		"long-key":             {"store"},
		"large-value":          {"store"},
		"moves":                {"comes-back"},
		"lingers":              {"closes"},
	}
	for _, fault := range broken.AdapterFaults() {
		if _, known := tests[fault]; !known {
			t.Errorf("no test says which check finds the fault %q", fault)
		}
	}
	reports := verifyAll(t, tests, func(fault string) (plugintest.Open, func()) {
		return broken.Adapter(fault), func() {}
	}, plugintest.Options{Patience: 5 * time.Second, Settle: 500 * time.Millisecond})
	for fault, report := range reports {
		t.Run(fault, func(t *testing.T) {
			wantFailed(t, report, tests[fault])
		})
	}
}
