package master

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/mezzo-os/mezzo/core/master/state"
	operatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/operator/v1"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
	"github.com/mezzo-os/mezzo/sdk/resource"
)

// everything is what who asks for details wants.
var everything = wants{detail: true, operations: true}

// A change reaches those who want the details and those who do not, each in
// its form; numbers are the same for both.
func TestWatchersOfBothKinds(t *testing.T) {
	m := newMirror()
	brief, full := newWatcher(wants{}), newWatcher(everything)
	m.snapshot(brief)
	m.snapshot(full)
	key := state.ExecutorKey{FrameworkID: "f", ExecutorID: "e", AgentID: "a"}
	status := func(s mezzov1.TaskState) *mezzov1.TaskStatus {
		return &mezzov1.TaskStatus{TaskId: &mezzov1.TaskID{Value: proto.String("t")}, State: s.Enum()}
	}
	m.apply(&change{publish: state.Publish{
		Executors: []*state.ExecutorView{{ExecutorKey: key, Info: &mezzov1.ExecutorInfo{ExecutorId: &mezzov1.ExecutorID{Value: proto.String("e")}}, Role: "r"}},
		Tasks: []*state.TaskView{{
			TaskKey: state.TaskKey{FrameworkID: "f", TaskID: "t"}, Name: "n", AgentID: "a", ExecutorID: "e", Role: "r",
			State: mezzov1.TaskState_TASK_RUNNING, Status: status(mezzov1.TaskState_TASK_RUNNING),
			Earlier: []*mezzov1.TaskStatus{status(mezzov1.TaskState_TASK_STARTING)}, Resources: resource.MustParse("cpus:1"),
			Info: &mezzov1.TaskInfo{Command: &mezzov1.CommandInfo{User: proto.String("u")}, Labels: &mezzov1.Labels{}},
		}},
		ExecutorsRemoved: []state.ExecutorKey{key},
	}})
	want := &operatorv1.TaskDetail{Role: "r", Task: &mezzov1.Task{
		Name: proto.String("n"), TaskId: &mezzov1.TaskID{Value: proto.String("t")}, FrameworkId: &mezzov1.FrameworkID{Value: proto.String("f")},
		AgentId: &mezzov1.AgentID{Value: proto.String("a")}, ExecutorId: &mezzov1.ExecutorID{Value: proto.String("e")},
		State: mezzov1.TaskState_TASK_RUNNING.Enum(), User: proto.String("u"), Labels: &mezzov1.Labels{},
		Resources: []*mezzov1.Resource{{
			Name: proto.String("cpus"), Type: mezzov1.Value_SCALAR.Enum(), Scalar: &mezzov1.Value_Scalar{Value: proto.Float64(1)},
			AllocationInfo: &mezzov1.Resource_AllocationInfo{Role: proto.String("r")},
		}},
		Statuses:          []*mezzov1.TaskStatus{status(mezzov1.TaskState_TASK_STARTING), status(mezzov1.TaskState_TASK_RUNNING)},
		StatusUpdateState: mezzov1.TaskState_TASK_RUNNING.Enum(),
	}}
	got := full.take()
	if len(got.events) != 3 || got.events[0].GetExecutor().GetInfo().GetExecutorId().GetValue() != "e" || got.events[2].GetExecutorRemoved().GetAgentId() != "a" {
		t.Fatalf("the details are %v", got.events)
	}
	if diff := cmp.Diff(want, got.events[1].GetTaskDetail(), protocmp.Transform()); diff != "" {
		t.Errorf("the task's details (-want +got):\n%s", diff)
	}
	short := brief.take()
	if len(short.events) != 1 || short.events[0].GetTask().GetName() != "n" || short.events[0].GetNumber() != 2 || got.events[1].GetNumber() != 2 {
		t.Errorf("in short it is %v", short.events)
	}
}

// A framework's end is told after that of its tasks, and its beginning before
// theirs: subscribers of events would not know whose tasks they are.
func TestFrameworksEndAfterTheirTasks(t *testing.T) {
	task := []*state.TaskView{{TaskKey: state.TaskKey{FrameworkID: "f", TaskID: "t"}}}
	for _, test := range []struct {
		state state.FrameworkState
		last  bool
	}{{state.FrameworkActive, false}, {state.FrameworkCompleted, true}} {
		list := eventsOf(&change{publish: state.Publish{
			Frameworks: []*state.FrameworkView{{ID: "f", State: test.state, Info: &mezzov1.FrameworkInfo{}}}, Tasks: task,
		}})
		if len(list) != 2 || (list[1](everything).GetFrameworkDetail() != nil) != test.last || (list[0](everything).GetTaskDetail() != nil) != test.last {
			t.Errorf("%s: the events are %v", test.state, list)
		}
	}
}

// A task's end is counted once its framework is told, with its reason; not when
// its agent has announced it with an update before.
func TestEndsAreCountedAsTold(t *testing.T) {
	m := newMirror()
	view := func(newest, told mezzov1.TaskState, reason mezzov1.TaskStatus_Reason) {
		m.apply(&change{publish: state.Publish{Tasks: []*state.TaskView{{
			TaskKey: state.TaskKey{FrameworkID: "f", TaskID: "t"}, State: newest, Status: &mezzov1.TaskStatus{
				TaskId: &mezzov1.TaskID{Value: proto.String("t")}, State: told.Enum(), Reason: reason.Enum(),
				Source: mezzov1.TaskStatus_SOURCE_AGENT.Enum(),
			},
		}}}})
	}
	const failed, running = mezzov1.TaskState_TASK_FAILED, mezzov1.TaskState_TASK_RUNNING
	view(failed, running, mezzov1.TaskStatus_REASON_TASK_HEALTH_CHECK_STATUS_UPDATED)
	if len(m.taskEnds) != 0 || m.taskStates[failed] != 1 {
		t.Errorf("announced: ends %v, states %v", m.taskEnds, m.taskStates)
	}
	for range 2 {
		view(failed, failed, mezzov1.TaskStatus_REASON_CONTAINER_LIMITATION_MEMORY)
	}
	want := map[taskEnd]uint64{{failed, mezzov1.TaskStatus_SOURCE_AGENT, "container_limitation_memory"}: 1}
	if diff := cmp.Diff(want, m.taskEnds, cmp.AllowUnexported(taskEnd{})); diff != "" {
		t.Errorf("ends (-want +got):\n%s", diff)
	}
}

// Operations come to those who want details, or them alone: an operator's under way, one that a
// framework has to acknowledge, and one of an agent that is unreachable.
func TestOperationsAreWatched(t *testing.T) {
	m := newMirror()
	info := &mezzov1.Offer_Operation{Type: mezzov1.Offer_Operation_RESERVE.Enum(), Id: &mezzov1.OperationID{Value: proto.String("o")}}
	status := func(s mezzov1.OperationState) *mezzov1.OperationStatus {
		return &mezzov1.OperationStatus{State: s.Enum()}
	}
	pending, finished := status(mezzov1.OperationState_OPERATION_PENDING), status(mezzov1.OperationState_OPERATION_FINISHED)
	m.apply(&change{publish: state.Publish{Operations: []*state.OperationView{{UUID: "1", AgentID: "a", Status: pending}}}})
	brief, full := newWatcher(wants{}), newWatcher(everything)
	alone := newWatcher(wants{operations: true})
	m.snapshot(brief)
	m.snapshot(alone)
	all, _, number := m.snapshot(full)
	if list := eventsOf(&all); len(list) != 1 || string(list[0](everything).GetOperation().GetUuid().GetValue()) != "1" {
		t.Errorf("the snapshot is %v", all.publish)
	}
	m.apply(&change{publish: state.Publish{
		Operations: []*state.OperationView{
			{UUID: "2", AgentID: "a", FrameworkID: "f", Info: info, Status: finished},
			{UUID: "3", AgentID: "b", FrameworkID: "f", Info: info, Status: pending, Unreachable: true},
		},
		OperationsRemoved: []string{"1"},
	}})
	agent := func(id string) *mezzov1.AgentID { return &mezzov1.AgentID{Value: proto.String(id)} }
	framework := &mezzov1.FrameworkID{Value: proto.String("f")}
	want := []*operatorv1.WatchEvent{
		{Number: number + 1, Event: &operatorv1.WatchEvent_Operation{Operation: &mezzov1.Operation{
			FrameworkId: framework, AgentId: agent("a"), Info: info, LatestStatus: finished, Statuses: []*mezzov1.OperationStatus{finished},
			Uuid: &mezzov1.UUID{Value: []byte("2")},
		}}},
		{Number: number + 2, Event: &operatorv1.WatchEvent_Operation{Operation: &mezzov1.Operation{
			FrameworkId: framework, AgentId: agent("b"), Info: info, Uuid: &mezzov1.UUID{Value: []byte("3")},
			LatestStatus: &mezzov1.OperationStatus{OperationId: info.Id, AgentId: agent("b"), State: mezzov1.OperationState_OPERATION_UNREACHABLE.Enum()},
		}}},
		{Number: number + 3, Event: &operatorv1.WatchEvent_OperationRemoved{OperationRemoved: []byte("1")}},
	}
	got := full.take().events
	for who, events := range map[string][]*operatorv1.WatchEvent{"in full": got, "alone": alone.take().events} {
		if diff := cmp.Diff(want, events, protocmp.Transform()); diff != "" {
			t.Errorf("the events %s (-want +got):\n%s", who, diff)
		}
	}
	for _, e := range got {
		if _, err := proto.Marshal(e); err != nil {
			t.Error(err)
		}
	}
	if p := brief.take(); p == nil || len(p.events) != 0 {
		t.Errorf("in short it is %v", p)
	}
	if len(m.operations) != 2 {
		t.Errorf("the mirror has %v", m.operations)
	}
}

// recorder takes what a watcher is sent.
type recorder struct {
	grpc.ServerStreamingServer[operatorv1.WatchEvent]
	sent func(*operatorv1.WatchEvent)
}

func (r *recorder) Send(e *operatorv1.WatchEvent) error { r.sent(e); return nil }

// crowd is what a large cluster publishes.
func crowd(agents, tasks int) state.Publish {
	var p state.Publish
	total, used := resource.MustParse("cpus:32;mem:131072;disk:1000000;ports:[31000-32000]"), resource.MustParse("cpus:1;mem:1024")
	for i := range agents {
		p.Agents = append(p.Agents, &state.AgentView{
			ID: fmt.Sprint("a", i), Hostname: fmt.Sprint("h", i), State: state.AgentActive, Total: total, Used: used, Registered: time.Unix(1, 0),
		})
	}
	for i := range tasks {
		id := fmt.Sprint("t", i)
		p.Tasks = append(p.Tasks, &state.TaskView{
			TaskKey: state.TaskKey{FrameworkID: "f", TaskID: id}, Name: id, AgentID: fmt.Sprint("a", i%agents), Role: "r",
			Resources: used, State: mezzov1.TaskState_TASK_RUNNING, Status: &mezzov1.TaskStatus{
				TaskId: &mezzov1.TaskID{Value: proto.String(id)}, State: mezzov1.TaskState_TASK_RUNNING.Enum(), Timestamp: proto.Float64(1),
			},
			Info: &mezzov1.TaskInfo{Name: proto.String(id)},
		})
	}
	return p
}

// A snapshot comes in batches, and ends.
func TestDetailsComeInBatches(t *testing.T) {
	m := newMirror()
	m.apply(&change{publish: crowd(100, 2000)})
	w := newWatcher(everything)
	all, plugins, number := m.snapshot(w)
	events, messages := 0, 0
	send := &recorder{sent: func(e *operatorv1.WatchEvent) {
		messages++
		if size := proto.Size(e); size > 2*watchBatch {
			t.Errorf("a message has %d bytes", size)
		}
		list := e.GetBatch().GetEvents()
		events += len(list)
		if end := list[len(list)-1].GetSnapshotEnd(); end != nil {
			if end.Next != number+1 {
				t.Errorf("the next event is %d, want %d", end.Next, number+1)
			}
			w.cut(nil)
		}
	}}
	if err := w.send(&batcher{stream: send, batches: true}, &all, plugins, number); err != nil {
		t.Fatal(err)
	}
	if events != 2101 || messages > 20 {
		t.Errorf("%d events came in %d messages", events, messages)
	}
}

// BenchmarkWatchCostsTheLoop measures what the master's loop spends on telling
// the mirror, while somebody takes a snapshot of 10,000 agents and 100,000
// tasks in full: the loop only leaves its changes, and the rest is done beside
// it.
func BenchmarkWatchCostsTheLoop(b *testing.B) {
	m := newMirror()
	go m.run(b.Context())
	m.apply(&change{publish: crowd(10_000, 100_000)})
	one := crowd(1, 1)
	var worst, reading time.Duration
	for b.Loop() {
		w := newWatcher(everything)
		began := time.Now()
		all, plugins, number := m.snapshot(w)
		done := make(chan struct{})
		go func() {
			defer close(done)
			var size int
			_ = w.send(&batcher{stream: &recorder{sent: func(e *operatorv1.WatchEvent) {
				size += proto.Size(e)
				list := e.GetBatch().GetEvents()
				if len(list) > 0 && list[len(list)-1].GetSnapshotEnd() != nil {
					w.cut(nil)
				}
			}}, batches: true}, &all, plugins, number)
		}()
		for open := true; open; {
			at := time.Now()
			m.publish(one)
			worst = max(worst, time.Since(at))
			select {
			case <-done:
				open = false
			case <-time.After(time.Millisecond):
			}
		}
		m.forget(w)
		reading += time.Since(began)
	}
	b.ReportMetric(float64(worst.Microseconds()), "worst-loop-us")
	b.ReportMetric(float64(reading.Milliseconds())/float64(b.N), "snapshot-ms")
}
