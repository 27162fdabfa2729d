package agent_test

import (
	"testing"
	"time"

	"github.com/mezzo-os/mezzo/core/agent"
	isolatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/isolator/v1"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
)

// An isolator that is taken out of the configuration keeps its container, gets
// no other, and is retired when that has ended.
func TestIsolatorsChangeUnderATask(t *testing.T) {
	m := newMaster(t)
	oldKernel, newKernel := newKernel(), newKernel()
	first := newIsolator(t, oldKernel).up()
	o := options(t, m, first)
	retired := make(chan string, 10)
	o.Retire = func(name string) { retired <- name }
	a := start(t, o)
	m.registered()
	m.ready()
	m.run(task("t1"))
	id := m.update(mezzov1.TaskState_TASK_RUNNING).GetContainerStatus().GetContainerId().GetValue()

	second := newIsolator(t, newKernel)
	second.name = "second"
	second.up()
	if err := a.SetIsolators([]agent.Isolator{second}); err != nil {
		t.Fatal(err)
	}
	newKernel.await(t, "recovery", newKernel.called("recover"))
	m.run(task("t2"))
	newKernel.await(t, "the launch of the second task", newKernel.called("start"))
	oldKernel.mu.Lock()
	cleaned := oldKernel.called("cleanup")(oldKernel)
	oldKernel.mu.Unlock()
	if cleaned {
		t.Error("the container of the isolator that was taken out was cleaned up")
	}
	select {
	case name := <-retired:
		t.Errorf("%s was retired, and has a container", name)
	default:
	}
	oldKernel.exit(id, &isolatorv1.ExitStatus{Known: true, Code: 3})
	m.update(mezzov1.TaskState_TASK_FAILED)
	oldKernel.await(t, "cleanup", oldKernel.called("cleanup "+id))
	select {
	case name := <-retired:
		if name != "fake" {
			t.Errorf("%s was retired, want fake", name)
		}
	case <-time.After(patience):
		t.Error("the isolator that nothing needs was not retired")
	}
}
