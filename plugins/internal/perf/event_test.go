package perf

import (
	"strings"
	"testing"

	v1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
)

// TestEveryFieldHasItsEvent: each event has a place of its own in PerfStatistics,
// and each place but the times an event.
func TestEveryFieldHasItsEvent(t *testing.T) {
	s := &v1.PerfStatistics{}
	kinds := map[[2]uint64]string{}
	for i, e := range events {
		if e.field() == nil {
			t.Fatalf("event %s has no field", e.name)
		}
		if s.ProtoReflect().Has(e.field()) {
			t.Errorf("field %s is that of two events", e.field().Name())
		}
		e.set(s, uint64(i+1))
		key := [2]uint64{uint64(e.kind), e.config}
		if kinds[key] != "" {
			t.Errorf("%s is %s to the kernel", e.name, kinds[key])
		}
		kinds[key] = e.name
	}
	if fields := s.ProtoReflect().Descriptor().Fields().Len(); len(events) != fields-2 {
		t.Errorf("%d events for %d fields besides timestamp and duration", len(events), fields-2)
	}
	if s.GetCycles() != 1 || s.GetL1DcacheLoads() == 0 || s.GetLlcPrefetchMisses() == 0 || s.GetNodePrefetchMisses() != uint64(len(events)) {
		t.Errorf("misplaced: %v", s)
	}
	e := events[find("task-clock")]
	if e.set(s, 1_500_000); s.GetTaskClock() != 1.5 {
		t.Errorf("task-clock of 1.5 ms is %v", s.GetTaskClock())
	}
}

func TestKnown(t *testing.T) {
	if err := Known("L1-dcache-load-misses"); err != nil {
		t.Error(err)
	}
	if err := Known("cycels"); err == nil || !strings.HasPrefix(err.Error(), `"cycels" is none of: cycles, `) || !strings.HasSuffix(err.Error(), ", node-prefetch-misses") {
		t.Errorf("%v", err)
	}
}

func TestScale(t *testing.T) {
	for _, c := range []struct{ value, enabled, running, want uint64 }{
		{10, 0, 0, 10}, {10, 8, 8, 10}, {10, 8, 2, 40}, {10, 8, 9, 10},
	} {
		if got := scale(c.value, c.enabled, c.running); got != c.want {
			t.Errorf("scale(%d, %d, %d) = %d, want %d", c.value, c.enabled, c.running, got, c.want)
		}
	}
}
