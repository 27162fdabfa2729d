package engine_test

import (
	"testing"
	"time"

	"github.com/mezzo-os/mezzo/sdk/allocator/engine/workload"
)

// TestALongPlanTakesSeveralLooks: one look tries a bounded number of agents, and
// the next, which comes soon, goes on where it ended: the one agent that helps is
// found though it is the last of ten thousand.
func TestALongPlanTakesSeveralLooks(t *testing.T) {
	w, err := workload.NewRevocation(10_000, 5, workload.Far, workload.Meter{})
	if err != nil {
		t.Fatal(err)
	}
	var looks []int
	for len(looks) < 5 {
		revoked, err := w.Look(time.Second)
		if err != nil {
			t.Fatal(err)
		}
		if looks = append(looks, revoked); revoked > 0 {
			break
		}
	}
	if len(looks) != 3 || looks[2] != workload.TasksPerAgent {
		t.Errorf("the looks revoked %v tasks, want none, none, and all of the last agent", looks)
	}
}
