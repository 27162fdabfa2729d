package test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/mezzo-os/mezzo/sdk/framework"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
	schedulerv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1/scheduler"
	"github.com/mezzo-os/mezzo/sdk/resource"
)

// runner is a framework that launches the tasks it is given, and keeps what it
// hears of them.
type runner struct {
	t       *testing.T
	mu      sync.Mutex
	waiting []*mezzov1.TaskInfo
	group   *mezzov1.Offer_Operation_LaunchGroup // waits, too
	heard   map[string][]*mezzov1.TaskStatus
	fails   map[string][]*schedulerv1.Event_Failure // by executor
	s       *framework.Scheduler
}

func newRunner(t *testing.T, master string) *runner {
	t.Helper()
	r := &runner{t: t, heard: map[string][]*mezzov1.TaskStatus{}, fails: map[string][]*schedulerv1.Event_Failure{}}
	r.s = runScheduler(t, master, &mezzov1.FrameworkInfo{}, framework.Callbacks{Offers: r.offers, Update: r.update, Failure: r.failure})
	return r
}

func (r *runner) offers(s *framework.Scheduler, offers []*mezzov1.Offer) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, o := range offers {
		if r.group != nil {
			for _, t := range r.group.GetTaskGroup().GetTasks() {
				t.AgentId = o.GetAgentId()
			}
			r.group.Executor.FrameworkId = &mezzov1.FrameworkID{Value: proto.String(s.FrameworkID())}
			_ = s.Accept(context.Background(), []*mezzov1.OfferID{o.GetId()}, []*mezzov1.Offer_Operation{
				{Type: mezzov1.Offer_Operation_LAUNCH_GROUP.Enum(), LaunchGroup: r.group},
			}, nil)
			r.group = nil
			continue
		}
		if len(r.waiting) == 0 {
			_ = s.Decline(context.Background(), refuse(0), o.GetId())
			continue
		}
		_ = s.Launch(context.Background(), o, r.waiting...)
		r.waiting = nil
	}
}

func (r *runner) update(_ *framework.Scheduler, s *mezzov1.TaskStatus) {
	r.mu.Lock()
	defer r.mu.Unlock()
	id := s.GetTaskId().GetValue()
	r.heard[id] = append(r.heard[id], s)
}

func (r *runner) failure(_ *framework.Scheduler, f *schedulerv1.Event_Failure) {
	r.mu.Lock()
	defer r.mu.Unlock()
	id := f.GetExecutorId().GetValue()
	r.fails[id] = append(r.fails[id], f)
}

// failures are what was told of the ends of an executor.
func (r *runner) failures(executor string) []*schedulerv1.Event_Failure {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.fails[executor])
}

// launch launches tasks with the next offer.
func (r *runner) launch(tasks ...*mezzov1.TaskInfo) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.waiting = append(r.waiting, tasks...)
}

// launchGroup launches a group with the next offer, under an executor of its own.
func (r *runner) launchGroup(tasks ...*mezzov1.TaskInfo) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.group = &mezzov1.Offer_Operation_LaunchGroup{
		Executor: &mezzov1.ExecutorInfo{
			Type: mezzov1.ExecutorInfo_DEFAULT.Enum(), ExecutorId: &mezzov1.ExecutorID{Value: proto.String("group")},
			Resources: resource.MustParse("cpus:0.1;mem:32;disk:16").ToProto(),
		},
		TaskGroup: &mezzov1.TaskGroupInfo{Tasks: tasks},
	}
}

// ends waits for a task's end in that state.
func (r *runner) ends(id string, state mezzov1.TaskState) *mezzov1.TaskStatus {
	r.t.Helper()
	return r.until(id, state.String(), func(s *mezzov1.TaskStatus) bool { return s.GetState() == state })
}

// last is the newest status of a task; an empty one when there is none.
func (r *runner) last(id string) *mezzov1.TaskStatus {
	r.mu.Lock()
	defer r.mu.Unlock()
	if all := r.heard[id]; len(all) > 0 {
		return all[len(all)-1]
	}
	return &mezzov1.TaskStatus{}
}

// until waits for a status of a task for which ok holds.
func (r *runner) until(id, what string, ok func(*mezzov1.TaskStatus) bool) *mezzov1.TaskStatus {
	r.t.Helper()
	var found *mezzov1.TaskStatus
	eventually(r.t, fmt.Sprintf("task %s: %s", id, what), func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		for _, s := range r.heard[id] {
			if ok(s) {
				found = s
				return true
			}
		}
		return false
	})
	return found
}

// shellTask is a task that runs a script.
func shellTask(id, script string) *mezzov1.TaskInfo {
	return &mezzov1.TaskInfo{
		Name: proto.String(id), TaskId: &mezzov1.TaskID{Value: proto.String(id)},
		Resources: resource.MustParse("cpus:0.1;mem:32").Allocate("*").ToProto(),
		Command:   &mezzov1.CommandInfo{Value: proto.String(script)},
	}
}

// TestChecks: tasks are looked at from within, what is seen is told, and what is
// not healthy ends.
func TestChecks(t *testing.T) {
	t.Parallel()
	c := startDev(t)
	var status atomic.Int32
	status.Store(200)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		if q.URL.Path == "/moved" {
			http.Redirect(w, q, "/health", http.StatusFound)
			return
		}
		w.WriteHeader(int(status.Load()))
	}))
	t.Cleanup(server.Close)
	port := proto.Uint32(uint32(server.Listener.Addr().(*net.TCPAddr).Port))
	every := func(h *mezzov1.HealthCheck) *mezzov1.HealthCheck {
		h.DelaySeconds, h.IntervalSeconds, h.GracePeriodSeconds = proto.Float64(0), proto.Float64(0.1), proto.Float64(0)
		h.ConsecutiveFailures = proto.Uint32(2)
		return h
	}
	const wait = "while :; do sleep 0.1; done"

	byHTTP := shellTask("http", wait)
	byHTTP.HealthCheck = every(&mezzov1.HealthCheck{
		Type: mezzov1.HealthCheck_HTTP.Enum(), Http: &mezzov1.HealthCheck_HTTPCheckInfo{Port: port, Path: proto.String("/moved")},
	})
	byCommand := shellTask("command", "touch fine; "+wait)
	byCommand.HealthCheck = every(&mezzov1.HealthCheck{Command: &mezzov1.CommandInfo{Value: proto.String("test -e fine")}})
	byCommand.HealthCheck.GracePeriodSeconds = proto.Float64(60) // until it has begun
	slow := shellTask("slow", wait)
	slow.HealthCheck = every(&mezzov1.HealthCheck{Command: &mezzov1.CommandInfo{Value: proto.String("sleep 1000")}})
	slow.HealthCheck.TimeoutSeconds = proto.Float64(0.5)
	looked := shellTask("looked", wait)
	looked.Check = &mezzov1.CheckInfo{
		Type: mezzov1.CheckInfo_COMMAND.Enum(), Command: &mezzov1.CheckInfo_Command{Command: &mezzov1.CommandInfo{Value: proto.String("test -e late || exit 7")}},
		DelaySeconds: proto.Float64(0), IntervalSeconds: proto.Float64(0.1),
	}
	looked.HealthCheck = every(&mezzov1.HealthCheck{Type: mezzov1.HealthCheck_TCP.Enum(), Tcp: &mezzov1.HealthCheck_TCPCheckInfo{Port: port}})

	r := newRunner(t, c.fields["rpc"])
	r.launch(byHTTP, byCommand, slow, looked)
	healthy := func(s *mezzov1.TaskStatus) bool { return s.Healthy != nil && s.GetHealthy() }
	ended := func(s *mezzov1.TaskStatus) bool { return s.GetState() == mezzov1.TaskState_TASK_KILLED }
	r.until("http", "healthy", healthy)
	r.until("looked", "healthy by TCP", healthy)
	r.until("looked", "exit code 7", func(s *mezzov1.TaskStatus) bool {
		return s.GetCheckStatus().GetCommand().ExitCode != nil && s.GetCheckStatus().GetCommand().GetExitCode() == 7
	})
	in := func(task string, command ...string) {
		t.Helper()
		if got := c.mezzo(append([]string{"exec", task, "--"}, command...)...); got.code != 0 {
			t.Errorf("%v in %s: %+v", command, task, got)
		}
	}
	in("looked", "touch", "late")
	r.until("looked", "exit code 0", func(s *mezzov1.TaskStatus) bool {
		return s.GetCheckStatus().GetCommand().ExitCode != nil && s.GetCheckStatus().GetCommand().GetExitCode() == 0
	})
	r.until("command", "healthy", healthy)
	in("command", "rm", "fine")
	for id, want := range map[string]string{"command": "exited with status 1", "slow": "no answer within 500ms"} {
		s := r.until(id, "killed", ended)
		if s.Healthy == nil || s.GetHealthy() || !strings.Contains(s.GetMessage(), want) {
			t.Errorf("%s ended with %v", id, s)
		}
	}
	if s := r.last("http"); s.GetState() != mezzov1.TaskState_TASK_RUNNING {
		t.Errorf("a healthy task: %v", s)
	}
	status.Store(503)
	if s := r.until("http", "killed", ended); !strings.Contains(s.GetMessage(), "HTTP status 503") {
		t.Errorf("http ended with %v", s)
	}
	if s := r.last("looked"); s.GetState() != mezzov1.TaskState_TASK_RUNNING {
		t.Errorf("a task that is only looked at: %v", s)
	}
}
