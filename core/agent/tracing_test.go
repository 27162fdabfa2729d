package agent_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/mezzo-os/mezzo/config"
	"github.com/mezzo-os/mezzo/core/trace"
	"github.com/mezzo-os/mezzo/core/trace/tracetest"
	isolatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/isolator/v1"
	linkv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/link/v1"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
)

// launchParent is the launch of a master that traces, and launchUnsampled that of
// one that has decided not to.
const (
	launchTrace     = "0af7651916cd43dd8448eb211c80319c"
	launchParent    = "00-" + launchTrace + "-b7ad6b7169203331-01"
	launchUnsampled = "00-1bf7651916cd43dd8448eb211c80319c-c7ad6b7169203331-00"
)

func tracer(t *testing.T, c *tracetest.Collector) *trace.Tracer {
	t.Helper()
	tracer, err := trace.New(trace.Options{
		Config:  config.Tracing{Endpoint: "http://" + c.GRPC, Protocol: "grpc", SampleRatio: 1, QueueSize: 1024},
		Service: "agent",
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tracer.Close(within(t)) })
	return tracer
}

func (m *master) runTraced(t *mezzov1.TaskInfo, parent string) {
	m.send(&linkv1.MasterMessage{Message: &linkv1.MasterMessage_Run{Run: &linkv1.Run{
		Framework: &mezzov1.FrameworkInfo{User: proto.String(""), Name: proto.String("f"), Id: &mezzov1.FrameworkID{Value: proto.String("F1")}},
		Tasks:     []*mezzov1.TaskInfo{t}, Traceparent: parent,
	}}})
}

// container waits for the container of a task.
func (k *kernel) container(t *testing.T, task string) (id string) {
	t.Helper()
	k.await(t, "a container of "+task, func(k *kernel) bool {
		for name, b := range k.containers {
			if b.task.GetTaskId() == task {
				id = name
			}
		}
		return id != ""
	})
	return id
}

// TestTraceOfATask is the whole life of a task, below the master's launch; the
// isolator is told where its part belongs. A task that the master does not trace
// leaves nothing.
func TestTraceOfATask(t *testing.T) {
	c := tracetest.Start(t)
	k, m := newKernel(), newMaster(t)
	o := options(t, m, newIsolator(t, k).up())
	o.Tracer = tracer(t, c)
	p := start(t, o)
	m.registered()
	m.ready()

	m.runTraced(task("untraced"), "")
	m.update(mezzov1.TaskState_TASK_RUNNING)
	m.runTraced(task("unsampled"), launchUnsampled)
	m.update(mezzov1.TaskState_TASK_RUNNING)
	m.runTraced(task("t1"), launchParent)
	update := await(m, "TASK_RUNNING", func(a *linkv1.AgentMessage) (*linkv1.StatusUpdate, bool) {
		u := a.GetUpdate()
		return u, u.GetStatus().GetState() == mezzov1.TaskState_TASK_RUNNING
	})
	for _, id := range []string{"untraced", "unsampled", "t1"} {
		k.exit(k.container(t, id), &isolatorv1.ExitStatus{Known: true})
		m.update(mezzov1.TaskState_TASK_FINISHED)
		k.await(t, "the cleanup of "+id, func(k *kernel) bool {
			for _, b := range k.containers {
				if b.task.GetTaskId() == id {
					return false
				}
			}
			return true
		})
	}
	if err := p.stop(); err != nil {
		t.Fatal(err)
	}
	spans := c.Await(t, "the last update and the cleanup", func(s tracetest.Spans) bool {
		return len(s.Named("status update").With("mezzo.task.state", "TASK_FINISHED")) == 1 && len(s.Named("cleanup")) == 1
	})
	want := `agent: launch task
  agent: claim isolator/fake
  agent: create isolator/fake
  agent: isolate isolator/fake
  agent: prepare isolator/fake
  agent: start isolator/fake
agent: run task TASK_FINISHED
  agent: cleanup isolator/fake
agent: status update TASK_FINISHED
agent: status update TASK_RUNNING
`
	if diff := cmp.Diff(want, spans.Tree()); diff != "" {
		t.Errorf("the spans (-want +got):\n%s", diff)
	}
	for _, s := range spans {
		if s.Trace != launchTrace {
			t.Errorf("%s is not in the launch's trace", s.Name)
		}
	}
	if s := spans.One("launch task"); s.Parent != "b7ad6b7169203331" || s.Attributes["mezzo.task.id"] != "t1" || s.Attributes["mezzo.framework.id"] != "F1" {
		t.Errorf("the launch is %+v", s)
	}
	running := spans.Named("status update").With("mezzo.task.state", "TASK_RUNNING")
	if want := "00-" + launchTrace + "-" + running[0].ID + "-01"; update.GetTraceparent() != want {
		t.Errorf("the update says that it belongs to %q, not to %q", update.GetTraceparent(), want)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if prepare := spans.One("prepare"); len(k.traced) != 1 || !strings.Contains(k.traced[0], prepare.ID) {
		t.Errorf("the isolator was told %q, and its span is %s", k.traced, prepare.ID)
	}
}

// TestTraceOfALaunchThatFails says why.
func TestTraceOfALaunchThatFails(t *testing.T) {
	c := tracetest.Start(t)
	k, m := newKernel(), newMaster(t)
	k.fail["create"] = status.Error(codes.InvalidArgument, "no such image")
	o := options(t, m, newIsolator(t, k).up())
	o.Tracer = tracer(t, c)
	p := start(t, o)
	m.registered()
	m.ready()
	m.runTraced(task("t1"), launchParent)
	m.update(mezzov1.TaskState_TASK_FAILED)
	if err := p.stop(); err != nil {
		t.Fatal(err)
	}
	spans := c.Await(t, "the launch", func(s tracetest.Spans) bool { return s.One("launch task") != nil && s.One("create") != nil })
	if s := spans.One("launch task"); !s.Failed || s.Attributes["mezzo.task.state"] != "TASK_FAILED" || s.Attributes["mezzo.reason"] == "" {
		t.Errorf("the launch is %+v", s)
	}
	if s := spans.One("create"); !s.Failed || !strings.Contains(s.Message, "no such image") {
		t.Errorf("the call is %+v", s)
	}
	if spans.One("run task") != nil {
		t.Error("a task that failed to start ran")
	}
}
