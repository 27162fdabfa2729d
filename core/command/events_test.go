package command

import (
	"encoding/json"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	operatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/operator/v1"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
)

func webTask(state mezzov1.TaskState, message string) *operatorv1.Task {
	return &operatorv1.Task{
		Id: "web.1", Name: "web", FrameworkId: "m-0001", AgentId: "m-S0", Role: "ads", State: state.Enum(), Message: message,
		Resources: quantities(map[string]float64{"cpus": 1}),
	}
}

// What was there before is not told, what comes is; and what has changed while the
// stream was lost is told once it is back.
func TestEventsGoOnWithTheNextMaster(t *testing.T) {
	m := newMaster(t)
	c := start(t, "events", "--address", m.address)
	w := m.watched(t)
	if !w.request.Operations || w.request.Detail {
		t.Errorf("it asks for %v", w.request)
	}
	host := &operatorv1.Agent{Id: "m-S0", Hostname: "alpha", State: "active"}
	spark := &operatorv1.WatchEvent{Event: &operatorv1.WatchEvent_Framework{Framework: &operatorv1.Framework{Id: "m-0001", Name: "spark", State: "active"}}}
	w.tell(t, agentEvent(host), spark, snapshotEnd(), taskEvent(webTask(mezzov1.TaskState_TASK_STAGING, "")))
	c.out.await(t, "web.1  STAGING on alpha of framework spark, role ads, cpus:1\n")
	busy := proto.CloneOf(host)
	busy.Allocated = quantities(map[string]float64{"cpus": 1})
	w.tell(t, agentEvent(busy), taskEvent(webTask(mezzov1.TaskState_TASK_RUNNING, "")))
	c.out.await(t, "web.1  STAGING → RUNNING\n")
	if strings.Contains(c.out.String(), "alpha active") || strings.Contains(c.out.String(), "m-S0") {
		t.Errorf("amounts, or what was there before, are told:\n%s", c.out)
	}
	w.end <- status.Error(codes.Unavailable, "the master does not lead any more")
	// However often it fails, it is said once; and then that it is back.
	for range 3 {
		m.watched(t).end <- status.Error(codes.Unavailable, "no master leads")
	}
	w = m.watched(t)
	c.err.await(t, "connecting again: the master does not lead any more")
	gone := proto.CloneOf(busy)
	gone.State, gone.Reason = "unreachable", "its link is closed"
	w.tell(t, agentEvent(gone), taskEvent(webTask(mezzov1.TaskState_TASK_RUNNING, "")), snapshotEnd())
	c.out.await(t, "m-S0  alpha active → unreachable: its link is closed\n")
	if got := strings.Count(c.out.String(), "RUNNING"); got != 1 {
		t.Errorf("RUNNING is told %d times:\n%s", got, c.out)
	}
	c.out.await(t, "framework  m-0001  spark removed\n")
	if got := c.err.String(); strings.Count(got, "\n") != 2 || !strings.Contains(got, "mezzo: the stream of events is back, after ") {
		t.Errorf("two lines were wanted:\n%s", got)
	}
	c.cancel()
	if code := <-c.code; code != 0 {
		t.Errorf("it ends with %d: %s", code, c.err)
	}
}

// --kind and ids choose, and JSON has the object whole.
func TestEventsChosen(t *testing.T) {
	m := newMaster(t)
	c := start(t, "events", "S0", "--kind", "tasks,agent", "--json", "--address", m.address)
	w := m.watched(t)
	other := webTask(mezzov1.TaskState_TASK_RUNNING, "")
	other.Id, other.AgentId = "web.2", "m-S1"
	w.tell(t, snapshotEnd(), taskEvent(other), &operatorv1.WatchEvent{Event: &operatorv1.WatchEvent_Role{Role: &operatorv1.Role{Name: "S0"}}},
		taskEvent(webTask(mezzov1.TaskState_TASK_FAILED, "exited\nwith 3")),
		&operatorv1.WatchEvent{Event: &operatorv1.WatchEvent_AgentRemoved{AgentRemoved: "m-S0"}}, // it was not known
		agentEvent(&operatorv1.Agent{Id: "m-S0", Hostname: "alpha", State: "active"}))
	c.out.await(t, `"agent"`)
	lines := strings.Split(strings.TrimSpace(c.out.String()), "\n")
	if len(lines) != 2 {
		t.Fatalf("two events were wanted:\n%s", c.out)
	}
	var line struct {
		Time, Kind, ID, Change, Text string
		Object                       map[string]any
	}
	if err := json.Unmarshal([]byte(lines[0]), &line); err != nil {
		t.Fatal(err)
	}
	if line.Kind != "task" || line.ID != "web.1" || line.Change != "added" || line.Object["state"] != "TASK_FAILED" || line.Time == "" || !strings.Contains(line.Text, "exited") {
		t.Errorf("the line is %s", lines[0])
	}
}

// A refusal that will not change ends it, and a bad kind is bad usage.
func TestEventsRefused(t *testing.T) {
	m := newMaster(t)
	c := start(t, "events", "--address", m.address)
	m.watched(t).end <- status.Error(codes.PermissionDenied, "you may not view the cluster")
	if code := <-c.code; code != 1 || !strings.Contains(c.err.String(), "you may not view the cluster") {
		t.Errorf("code %d, %s", code, c.err)
	}
	c = start(t, "events", "--address", m.address)
	w := m.watched(t)
	w.tell(t, snapshotEnd())
	w.end <- status.Error(codes.Unauthenticated, "who are you?")
	if code := <-c.code; code != 1 || !strings.Contains(c.err.String(), "who are you?") {
		t.Errorf("later: code %d, %s", code, c.err)
	}
	if _, errOut, code := invoke(t, "events", "--kind", "cat"); code != 2 || !strings.Contains(errOut, "--kind cat: give some of task, agent") {
		t.Errorf("a bad kind: %d, %s", code, errOut)
	}
}

// Every kind of object is told of in words, and nothing for amounts alone.
func TestDescribe(t *testing.T) {
	m := &mirror{objects: map[objectKey]proto.Message{
		{kind: kindAgent, id: "m-S0"}:       &operatorv1.Agent{Id: "m-S0", Hostname: "alpha"},
		{kind: kindAgent, id: "m-S1"}:       &operatorv1.Agent{Id: "m-S1", Hostname: "beta", State: "disconnected"},
		{kind: kindFramework, id: "m-0001"}: &operatorv1.Framework{Id: "m-0001", Name: "spark"},
	}}
	task := func(state mezzov1.TaskState, change func(*operatorv1.Task)) *operatorv1.Task {
		x := webTask(state, "")
		change(x)
		return x
	}
	running := webTask(mezzov1.TaskState_TASK_RUNNING, "")
	operation := func(state mezzov1.OperationState, message string) *mezzov1.Operation {
		return &mezzov1.Operation{
			AgentId: &mezzov1.AgentID{Value: proto.String("m-S0")}, Info: &mezzov1.Offer_Operation{Type: mezzov1.Offer_Operation_RESERVE.Enum()},
			LatestStatus: &mezzov1.OperationStatus{State: state.Enum(), Message: proto.String(message)},
		}
	}
	agent := func(change func(*operatorv1.Agent)) *operatorv1.Agent {
		x := &operatorv1.Agent{Id: "m-S0", Hostname: "alpha", State: "active"}
		change(x)
		return x
	}
	for _, c := range []struct {
		old, new proto.Message
		want     string
	}{
		{running, task(mezzov1.TaskState_TASK_FAILED, func(x *operatorv1.Task) {
			x.Reason, x.Message = mezzov1.TaskStatus_REASON_CONTAINER_LIMITATION_MEMORY.Enum(), "it used 65 MiB"
		}), "RUNNING → FAILED: CONTAINER_LIMITATION_MEMORY it used 65 MiB"},
		{running, task(mezzov1.TaskState_TASK_RUNNING, func(x *operatorv1.Task) { x.Healthy = proto.Bool(false) }), "unhealthy"},
		{webTask(mezzov1.TaskState_TASK_FINISHED, ""), nil, ""},
		{running, nil, "removed"},
		{task(mezzov1.TaskState_TASK_RUNNING, func(x *operatorv1.Task) { x.AgentId = "m-S1" }), nil, "not known until beta comes back"},
		{running, running, ""},
		{agent(func(*operatorv1.Agent) {}), agent(func(a *operatorv1.Agent) { a.Allocated = quantities(map[string]float64{"cpus": 1}) }), ""},
		{agent(func(*operatorv1.Agent) {}), agent(func(a *operatorv1.Agent) { a.Drain = &operatorv1.AgentDrain{State: "draining"} }), "alpha draining"},
		{agent(func(*operatorv1.Agent) {}), nil, "alpha removed"},
		{&operatorv1.Framework{Name: "spark", State: "active"}, &operatorv1.Framework{Name: "spark", State: "disconnected"}, "spark active → disconnected"},
		{&operatorv1.Role{Weight: 1}, &operatorv1.Role{Weight: 2, Limit: quantities(map[string]float64{"gpus": 0})}, "weight 1 → 2, limit - → gpus:0"},
		{&operatorv1.Plugin{State: "healthy"}, &operatorv1.Plugin{State: "restarting", Restarts: 1, LastError: "killed"}, "healthy → restarting: killed"},
		{nil, &operatorv1.Offer{Hostname: "alpha", FrameworkId: "m-0001", Role: "ads", Resources: quantities(map[string]float64{"cpus": 3})}, "cpus:3 of alpha to spark, role ads"},
		{nil, operation(mezzov1.OperationState_OPERATION_PENDING, ""), "RESERVE (an operator's) on alpha PENDING"},
		{operation(mezzov1.OperationState_OPERATION_PENDING, ""), operation(mezzov1.OperationState_OPERATION_FAILED, "no disk"), "RESERVE (an operator's) on alpha PENDING → FAILED: no disk"},
		{operation(mezzov1.OperationState_OPERATION_PENDING, ""), nil, "RESERVE (an operator's) on alpha is done"},
		{nil, &operatorv1.Maintenance{Windows: []*operatorv1.MaintenanceWindow{{}}}, "the schedule has 1 window, 0 machines down"},
	} {
		if got := m.describe(&delta{old: c.old, new: c.new}); got != c.want {
			t.Errorf("from %v to %v it says %q, want %q", c.old, c.new, got, c.want)
		}
	}
}
