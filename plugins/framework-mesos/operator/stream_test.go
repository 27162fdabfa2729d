package operator_test

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/mezzo-os/mezzo/plugins/framework-mesos/mirror"
	"github.com/mezzo-os/mezzo/plugins/framework-mesos/mirror/mirrortest"
	"github.com/mezzo-os/mezzo/plugins/framework-mesos/operator"
	"github.com/mezzo-os/mezzo/plugins/framework-mesos/transport"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
)

// events reads a stream of records.
type events struct {
	t    *testing.T
	in   *bufio.Reader
	body io.Closer
}

func (r *rig) subscribe() *events {
	r.t.Helper()
	response := r.request("POST", transport.JSON, "", `{"type":"SUBSCRIBE"}`)
	if response.StatusCode != 200 || response.Header.Get("Content-Type") != transport.JSON || response.ContentLength != -1 {
		r.t.Fatalf("SUBSCRIBE is answered with %v", response)
	}
	r.t.Cleanup(func() { response.Body.Close() })
	return &events{r.t, bufio.NewReader(response.Body), response.Body}
}

func (e *events) next() map[string]any {
	e.t.Helper()
	line, err := e.in.ReadString('\n')
	if err != nil {
		e.t.Fatalf("the stream ended: %v", err)
	}
	n, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		e.t.Fatal(err)
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(e.in, b); err != nil {
		e.t.Fatal(err)
	}
	var out map[string]any
	if err := json.Unmarshal(b, &out); err != nil {
		e.t.Fatalf("%s: %v", b, err)
	}
	return out
}

func (e *events) expect(kind string) map[string]any {
	e.t.Helper()
	got := e.next()
	if got["type"] != kind {
		e.t.Fatalf("%v came, want %s", got, kind)
	}
	return got
}

// E.2 and I.12: what subscribers are told, in order.
func TestEvents(t *testing.T) {
	r := start(t, operator.Options{})
	sample := mirrortest.Sample()
	r.master.Tell(sample...)
	e := r.subscribe()
	first := e.expect("SUBSCRIBED")["subscribed"].(map[string]any)
	if first["heartbeat_interval_seconds"] != 15.0 || first["get_state"].(map[string]any)["get_agents"] == nil {
		t.Errorf("it begins with %v", first)
	}
	e.expect("HEARTBEAT")

	// A task that is running before anybody looked.
	r.master.Tell(mirrortest.Task(mirrortest.NewTask("new", 100, mezzov1.TaskState_TASK_STARTING, mezzov1.TaskState_TASK_RUNNING)))
	added := e.expect("TASK_ADDED")["task_added"].(map[string]any)["task"].(map[string]any)
	if added["state"] != "TASK_STAGING" || added["statuses"] != nil {
		t.Errorf("it was added as %v", added)
	}
	for _, state := range []string{"TASK_STARTING", "TASK_RUNNING"} {
		updated := e.expect("TASK_UPDATED")["task_updated"].(map[string]any)
		if updated["status"].(map[string]any)["state"] != state || updated["state"] != "TASK_RUNNING" {
			t.Errorf("it was updated to %v", updated)
		}
	}
	// The same again, with nothing new; then its health; then its end.
	again := mirrortest.NewTask("new", 100, mezzov1.TaskState_TASK_STARTING, mezzov1.TaskState_TASK_RUNNING)
	r.master.Tell(mirrortest.Task(proto.CloneOf(again)))
	again.Task.Statuses[1].Healthy = proto.Bool(false)
	again.Task.Statuses[1].Reason = mezzov1.TaskStatus_REASON_TASK_HEALTH_CHECK_STATUS_UPDATED.Enum()
	r.master.Tell(mirrortest.Task(proto.CloneOf(again)))
	if got := e.expect("TASK_UPDATED")["task_updated"].(map[string]any)["status"].(map[string]any); got["healthy"] != false {
		t.Errorf("its health is told as %v", got)
	}
	again.Task.Statuses = append(again.Task.Statuses, mirrortest.Status("new", mezzov1.TaskState_TASK_FINISHED, 130))
	again.Task.State = mezzov1.TaskState_TASK_FINISHED.Enum()
	r.master.Tell(mirrortest.Task(proto.CloneOf(again)))
	if got := e.expect("TASK_UPDATED")["task_updated"].(map[string]any); got["state"] != "TASK_FINISHED" {
		t.Errorf("its end is told as %v", got)
	}
	again.Completed = true
	r.master.Tell(mirrortest.Task(again))

	agent := proto.CloneOf(sample[1].GetAgentDetail())
	agent.State, agent.Unreachable = "unreachable", mirrortest.At(200)
	r.master.Tell(mirrortest.Agent(proto.CloneOf(agent)))
	e.expect("AGENT_REMOVED")
	agent.State, agent.Unreachable = "active", nil
	r.master.Tell(mirrortest.Agent(agent))
	e.expect("AGENT_ADDED")

	f := proto.CloneOf(sample[4].GetFrameworkDetail())
	f.State = "disconnected"
	r.master.Tell(mirrortest.Framework(proto.CloneOf(f)))
	f.State, f.Reregistered = "active", mirrortest.At(300)
	r.master.Tell(mirrortest.Framework(proto.CloneOf(f)))
	e.expect("FRAMEWORK_UPDATED")
	f.State = "completed"
	r.master.Tell(mirrortest.Framework(f))
	e.expect("FRAMEWORK_REMOVED")
	other := proto.CloneOf(sample[4].GetFrameworkDetail())
	other.Info.Id = &mezzov1.FrameworkID{Value: proto.String("m-1-0009")}
	r.master.Tell(mirrortest.Framework(other))
	e.expect("FRAMEWORK_ADDED")
}

// A.10: the oldest subscriber makes room; all end when the master stops leading.
func TestSubscribersEnd(t *testing.T) {
	r := start(t, operator.Options{Streams: 2})
	ended := func(e *events) error {
		done := make(chan error, 1)
		go func() { _, err := io.Copy(io.Discard, e.in); done <- err }()
		select {
		case err := <-done:
			return err
		case <-time.After(mirrortest.Patience):
			return context.DeadlineExceeded
		}
	}
	var list []*events
	for range 3 {
		e := r.subscribe()
		e.expect("SUBSCRIBED")
		e.expect("HEARTBEAT")
		list = append(list, e)
	}
	if err := ended(list[0]); err != nil {
		t.Errorf("the oldest ended with %v", err)
	}
	r.master.Break(status.Error(codes.Unavailable, "it does not lead any more"))
	for _, e := range list[1:] {
		if err := ended(e); err != nil {
			t.Errorf("the others ended with %v", err)
		}
	}
}

// logged gets what is logged, record by record.
type logged chan string

func (l logged) Write(b []byte) (int, error) { l <- string(b); return len(b), nil }

// One who does not read is cut off when more waits for it than it may have.
func TestUnreadEvents(t *testing.T) {
	log := make(logged, 10)
	r := start(t, operator.Options{Queue: 64 << 10, Logger: slog.New(slog.NewTextHandler(log, nil))})
	e := r.subscribe()
	e.expect("SUBSCRIBED")
	e.expect("HEARTBEAT")
	// More than the kernel holds for it, less than it may have by default.
	for i := range 7 << 4 {
		task := mirrortest.NewTask(strconv.Itoa(i), 100, mezzov1.TaskState_TASK_RUNNING)
		task.Task.Name = proto.String(strings.Repeat("x", 64<<10))
		r.master.Tell(mirrortest.Task(task))
	}
	select {
	case line := <-log:
		if !strings.Contains(line, "cut off") || !strings.Contains(line, mirror.ErrTooSlow.Error()) {
			t.Error(line)
		}
	case <-time.After(mirrortest.Patience):
		t.Error("the stream goes on")
	}
}
