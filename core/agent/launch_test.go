package agent_test

import (
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
)

// An isolator's process ends in the middle of a launch: what is left is removed,
// and the launch made again with the next process.
func TestLaunchIsMadeAgainWhenTheIsolatorDies(t *testing.T) {
	for _, call := range []string{"claim", "prepare", "create"} {
		t.Run(call, func(t *testing.T) {
			k, m := newKernel(), newMaster(t)
			i := newIsolator(t, k).up()
			start(t, options(t, m, i))
			m.ready()
			k.mu.Lock()
			k.fail[call] = status.Error(codes.Unavailable, "the process is gone")
			k.mu.Unlock()
			m.run(task("t1"))
			k.await(t, call, k.called(call+" "))
			i.down()
			k.mu.Lock()
			delete(k.fail, call)
			k.mu.Unlock()
			i.up()
			m.update(mezzov1.TaskState_TASK_RUNNING)
			k.mu.Lock()
			defer k.mu.Unlock()
			if len(k.containers) != 1 {
				t.Errorf("%d containers, want one; calls were:\n%s", len(k.containers), strings.Join(k.calls, "\n"))
			}
		})
	}
}

// An isolator that goes on failing fails the launch, with the reason.
func TestLaunchThatNeverWorksFails(t *testing.T) {
	k, m := newKernel(), newMaster(t)
	start(t, options(t, m, newIsolator(t, k).up()))
	m.ready()
	k.mu.Lock()
	k.fail["create"] = status.Error(codes.Unavailable, "no room now")
	k.mu.Unlock()
	m.run(task("t1"))
	failed := m.update(mezzov1.TaskState_TASK_FAILED)
	if failed.GetReason() != mezzov1.TaskStatus_REASON_CONTAINER_LAUNCH_FAILED || !strings.Contains(failed.GetMessage(), "no room now") {
		t.Errorf("status %v", failed)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	n := 0
	for _, c := range k.calls {
		if strings.HasPrefix(c, "create ") {
			n++
		}
	}
	if n != 3 {
		t.Errorf("it was tried %d times, want 3", n)
	}
}
