package plugintest_test

import (
	"sync"
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
	slots := make(chan struct{}, 8)
	var mu sync.Mutex
	reports := map[string]*plugintest.Report{}
	var running sync.WaitGroup
	for _, fault := range broken.AdapterFaults() {
		running.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			report, err := plugintest.Verify(t.Context(), broken.Adapter(fault), plugintest.Options{Patience: 5 * time.Second, Settle: 500 * time.Millisecond})
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
		})
	}
}
