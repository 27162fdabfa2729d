package state

import (
	"slices"
	"testing"

	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
)

// Of a task every state is remembered that it was in, of equal ones in a row
// the last; views that were taken before do not change.
func TestStatusesOfATask(t *testing.T) {
	const (
		starting    = mezzov1.TaskState_TASK_STARTING
		running     = mezzov1.TaskState_TASK_RUNNING
		unreachable = mezzov1.TaskState_TASK_UNREACHABLE
	)
	x := &task{agent: &agent{}}
	set := func(s mezzov1.TaskState) *TaskView {
		x.setStatus(&mezzov1.TaskStatus{State: s.Enum()})
		return x.view()
	}
	states := func(v *TaskView) []mezzov1.TaskState {
		out := []mezzov1.TaskState{}
		for _, s := range append(slices.Clone(v.Earlier), v.Status) {
			out = append(out, s.GetState())
		}
		return out
	}
	set(starting)
	before := set(running)
	set(running) // its health changed
	after := set(unreachable)
	back := set(running)
	for _, c := range []struct {
		view *TaskView
		want []mezzov1.TaskState
	}{
		{before, []mezzov1.TaskState{starting, running}},
		{after, []mezzov1.TaskState{starting, running, unreachable}},
		{back, []mezzov1.TaskState{starting, running, unreachable, running}},
	} {
		if got := states(c.view); !slices.Equal(got, c.want) {
			t.Errorf("its states are %v, want %v", got, c.want)
		}
	}
	for range 100 {
		set(unreachable)
		back = set(running)
	}
	if got := len(states(back)); got != maxStatuses {
		t.Errorf("%d statuses are remembered, want %d", got, maxStatuses)
	}
}
