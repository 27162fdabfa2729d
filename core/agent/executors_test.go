package agent_test

import (
	"context"
	"encoding/json"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/mezzo-os/mezzo/core/agent"
	"github.com/mezzo-os/mezzo/sdk/executor"
	isolatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/isolator/v1"
	linkv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/link/v1"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
	executorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1/executor"
	"github.com/mezzo-os/mezzo/sdk/resource"
)

func customExecutor() *mezzov1.ExecutorInfo {
	return &mezzov1.ExecutorInfo{
		Type: mezzov1.ExecutorInfo_CUSTOM.Enum(), ExecutorId: &mezzov1.ExecutorID{Value: proto.String("x")},
		Command:             &mezzov1.CommandInfo{Value: proto.String("./x"), User: proto.String(me())},
		Resources:           resource.MustParse("cpus:0.1;mem:32").ToProto(),
		ShutdownGracePeriod: &mezzov1.DurationInfo{Nanoseconds: proto.Int64(int64(90 * time.Second))},
	}
}

func (m *master) runUnder(e *mezzov1.ExecutorInfo, ids ...string) {
	run := &linkv1.Run{
		Framework: &mezzov1.FrameworkInfo{User: proto.String(""), Name: proto.String("f"), Id: &mezzov1.FrameworkID{Value: proto.String("F1")}},
		Executor:  e,
	}
	for _, id := range ids {
		t := task(id)
		t.Command, t.Executor = nil, e
		run.Tasks = append(run.Tasks, t)
	}
	m.send(&linkv1.MasterMessage{Message: &linkv1.MasterMessage_Run{Run: run}})
}

// root is the executor's container, once it runs.
func (k *kernel) root(t *testing.T) (id string, environment []string) {
	t.Helper()
	k.await(t, "the executor's start", k.called("start "))
	k.mu.Lock()
	defer k.mu.Unlock()
	for name, c := range k.containers {
		var spec specs.Spec
		if err := json.Unmarshal(c.spec, &spec); err != nil || spec.Process == nil {
			t.Fatalf("spec of %s: %v, %v", name, err, spec.Process)
		}
		return name, spec.Process.Env
	}
	t.Fatal("no container")
	return "", nil
}

// environment is that of a container's process.
func (k *kernel) environment(t *testing.T, id string) []string {
	t.Helper()
	var spec specs.Spec
	if err := json.Unmarshal(k.get(id).spec, &spec); err != nil || spec.Process == nil {
		t.Fatalf("spec of %s: %v, %v", id, err, spec.Process)
	}
	return spec.Process.Env
}

func variable(t *testing.T, environment []string, name string) string {
	t.Helper()
	for _, v := range environment {
		if value, found := strings.CutPrefix(v, name+"="); found {
			return value
		}
	}
	t.Errorf("no %s in the environment of an executor: %v", name, environment)
	return ""
}

// executorAt serves an agent's executor service on an address of its own, as
// its process would; another agent can take its place.
type executorAt struct {
	mu     sync.Mutex
	agent  executorv1.ExecutorServer
	served string
	executorv1.UnimplementedExecutorServer
}

func newExecutorAt(t *testing.T) *executorAt {
	at := &executorAt{}
	address, stop := serve(t, func(s *grpc.Server) { executorv1.RegisterExecutorServer(s, at) })
	at.served = address
	t.Cleanup(stop)
	return at
}

func (a *executorAt) be(p *process) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.agent = p.ExecutorServer("")
}

func (a *executorAt) now() executorv1.ExecutorServer {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.agent
}

func (a *executorAt) Subscribe(c *executorv1.Call, s grpc.ServerStreamingServer[executorv1.Event]) error {
	return a.now().Subscribe(c, s)
}

func (a *executorAt) Calls(s grpc.BidiStreamingServer[executorv1.Call, executorv1.CallResult]) error {
	return a.now().Calls(s)
}

// following is an executor of the SDK in this process.
type following struct {
	*executor.Executor
	launched chan *mezzov1.TaskInfo
	killed   chan string
	told     chan string
	done     chan error
}

func follow(t *testing.T, k *kernel, at *executorAt) *following {
	t.Helper()
	_, environment := k.root(t)
	f := &following{launched: make(chan *mezzov1.TaskInfo, 10), killed: make(chan string, 10), told: make(chan string, 10), done: make(chan error, 1)}
	e, err := executor.New(executor.Options{
		Agent: at.served, FrameworkID: "F1", ExecutorID: "x", Token: variable(t, environment, "MEZZO_EXECUTOR_TOKEN"), BackoffMax: 20 * time.Millisecond, ShutdownGrace: patience,
		Callbacks: executor.Callbacks{
			Launch:  func(_ *executor.Executor, t *mezzov1.TaskInfo) { f.launched <- t },
			Kill:    func(_ *executor.Executor, id *mezzov1.TaskID, _ *mezzov1.KillPolicy) { f.killed <- id.GetValue() },
			Message: func(_ *executor.Executor, data []byte) { f.told <- string(data) },
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	f.Executor = e
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { defer close(ended); f.done <- e.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-ended })
	return f
}

func receive[T any](t *testing.T, what string, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-within(t).Done():
		t.Fatalf("%s: did not come", what)
		panic("unreachable")
	}
}

func id(name string) *mezzov1.TaskID { return &mezzov1.TaskID{Value: proto.String(name)} }

func TestCustomExecutor(t *testing.T) {
	k, m, at := newKernel(), newMaster(t), newExecutorAt(t)
	o := options(t, m, newIsolator(t, k).up())
	o.RPCAddress = at.served
	p := start(t, o)
	at.be(p)
	m.ready()
	m.runUnder(customExecutor(), "t1", "t2")
	root, environment := k.root(t)
	for name, want := range map[string]string{
		"MESOS_FRAMEWORK_ID": "F1", "MESOS_EXECUTOR_ID": "x", "MESOS_SLAVE_ID": "A1", "MESOS_CHECKPOINT": "1", "MESOS_RECOVERY_TIMEOUT": "15mins",
		"MESOS_SUBSCRIPTION_BACKOFF_MAX": "2secs", "MESOS_EXECUTOR_SHUTDOWN_GRACE_PERIOD": "90secs", "MESOS_HTTP_COMMAND_EXECUTOR": "0",
		"LIBPROCESS_PORT": "0", "MEZZO_AGENT_ADDRESS": at.served, "MESOS_SANDBOX": k.get(root).sandbox, "MESOS_DIRECTORY": k.get(root).sandbox,
	} {
		if got := variable(t, environment, name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	if slices.ContainsFunc(environment, func(v string) bool { return strings.HasPrefix(v, "MESOS_TASK_ID=") }) {
		t.Error("an executor has the id of a task in its environment")
	}
	if got := resourcesOf(t, k.get(root)); !got.Equal(resource.MustParse("cpus:1.1;mem:160;ports:[31000-31001]")) {
		t.Errorf("the executor's container may use %v", got)
	}

	x := follow(t, k, at)
	first, second := receive(t, "t1", x.launched), receive(t, "t2", x.launched)
	if first.GetTaskId().GetValue() != "t1" || second.GetTaskId().GetValue() != "t2" || first.GetExecutor().GetExecutorId().GetValue() != "x" {
		t.Fatalf("launched %v, %v", first, second)
	}
	x.Update(executor.Status(id("t1"), mezzov1.TaskState_TASK_RUNNING))
	running := m.update(mezzov1.TaskState_TASK_RUNNING)
	if s := running.GetContainerStatus(); s.GetContainerId().GetValue() != root || s.GetExecutorPid() != 4711 || running.GetAgentId().GetValue() != "A1" {
		t.Errorf("status %v; want it completed by the agent", running)
	}
	if err := x.Flush(within(t)); err != nil {
		t.Error(err)
	}

	m.send(&linkv1.MasterMessage{Message: &linkv1.MasterMessage_FrameworkMessage{FrameworkMessage: &linkv1.FrameworkMessage{FrameworkId: "F1", ExecutorId: "x", Data: []byte("hi")}}})
	if got := receive(t, "MESSAGE", x.told); got != "hi" {
		t.Errorf("MESSAGE %q", got)
	}
	if err := x.Send([]byte("ho")); err != nil {
		t.Fatal(err)
	}
	if got := await(m, "the executor's message", func(a *linkv1.AgentMessage) (string, bool) {
		return string(a.GetFrameworkMessage().GetData()), a.GetFrameworkMessage() != nil
	}); got != "ho" {
		t.Errorf("message %q", got)
	}
	m.kill("t2", time.Second)
	if got := receive(t, "KILL", x.killed); got != "t2" {
		t.Errorf("KILL of %q", got)
	}
	x.Update(executor.Status(id("t2"), mezzov1.TaskState_TASK_KILLED))
	m.update(mezzov1.TaskState_TASK_KILLED)
	k.await(t, "the container's update", k.called("update "+root))

	// It is shut down: what it still reports is heard, and then it has ended.
	m.send(&linkv1.MasterMessage{Message: &linkv1.MasterMessage_ShutdownExecutor{ShutdownExecutor: &linkv1.ShutdownExecutor{FrameworkId: "F1", ExecutorId: "x"}}})
	if err := receive(t, "the executor's end", x.done); err != nil {
		t.Errorf("the executor ended with %v", err)
	}
	k.exit(root, &isolatorv1.ExitStatus{Known: true})
	failed := m.update(mezzov1.TaskState_TASK_FAILED)
	if failed.GetTaskId().GetValue() != "t1" || failed.GetReason() != mezzov1.TaskStatus_REASON_EXECUTOR_TERMINATED {
		t.Errorf("status of the task that was left: %v", failed)
	}
	await(m, "the executor's end", func(a *linkv1.AgentMessage) (bool, bool) { return true, a.GetExecutorExited().GetExecutorId() == "x" })
	k.await(t, "cleanup", k.called("cleanup "+root))
}

func resourcesOf(t *testing.T, b *box) resource.Resources {
	t.Helper()
	r, err := resource.FromProto(b.task.GetResources())
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// The agent dies while an executor has news; its next process hears them.
func TestExecutorOutlivesTheAgent(t *testing.T) {
	k, m, at := newKernel(), newMaster(t), newExecutorAt(t)
	p := start(t, options(t, m, newIsolator(t, k).up()))
	at.be(p)
	m.ready()
	m.runUnder(customExecutor(), "t1")
	x := follow(t, k, at)
	receive(t, "t1", x.launched)
	x.Update(executor.Status(id("t1"), mezzov1.TaskState_TASK_RUNNING))
	m.update(mezzov1.TaskState_TASK_RUNNING)

	o := p.crashed(t)
	x.Update(executor.Status(id("t1"), mezzov1.TaskState_TASK_FINISHED))
	next := start(t, o)
	at.be(next)
	finished := m.update(mezzov1.TaskState_TASK_FINISHED)
	if finished.GetTaskId().GetValue() != "t1" {
		t.Errorf("status %v", finished)
	}
	// It takes more tasks as before.
	m.runUnder(customExecutor(), "t2")
	if got := receive(t, "t2", x.launched); got.GetTaskId().GetValue() != "t2" {
		t.Errorf("launched %v", got)
	}
}

func TestExecutorServiceRefuses(t *testing.T) {
	k, m, at := newKernel(), newMaster(t), newExecutorAt(t)
	o := options(t, m, newIsolator(t, k).up())
	a, err := agent.New(o)
	if err != nil {
		t.Fatal(err)
	}
	at.agent = a.ExecutorServer("")
	conn, err := dial(at.served)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	call := &executorv1.Call{
		Type: executorv1.Call_SUBSCRIBE.Enum(), Subscribe: &executorv1.Call_Subscribe{},
		FrameworkId: &mezzov1.FrameworkID{Value: proto.String("F1")}, ExecutorId: &mezzov1.ExecutorID{Value: proto.String("x")},
	}
	subscribe := func(c *executorv1.Call) error {
		stream, err := executorv1.NewExecutorClient(conn).Subscribe(within(t), c)
		if err != nil {
			t.Fatal(err)
		}
		_, err = stream.Recv()
		return err
	}
	if err := subscribe(call); status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "has not finished recovery") {
		t.Errorf("before the agent runs: %v", err)
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(o.DataDir); err != nil {
		t.Fatal(err)
	}
	at.be(start(t, o))
	m.ready()
	if err := subscribe(call); status.Code(err) != codes.NotFound || !strings.Contains(err.Error(), "Framework cannot be found") {
		t.Errorf("an unknown framework: %v", err)
	}
	wrong := proto.CloneOf(call)
	wrong.Subscribe = nil
	m.runUnder(customExecutor(), "t1")
	_, environment := k.root(t)
	token := variable(t, environment, "MEZZO_EXECUTOR_TOKEN")
	wrong.Token, call.Token = &token, &token
	if err := subscribe(wrong); status.Code(err) != codes.InvalidArgument {
		t.Errorf("a call without its part: %v", err)
	}
	calls, err := executorv1.NewExecutorClient(conn).Calls(within(t))
	if err != nil {
		t.Fatal(err)
	}
	beat := proto.CloneOf(call)
	beat.Type, beat.Sequence = executorv1.Call_HEARTBEAT.Enum(), proto.Uint64(7)
	message := proto.CloneOf(call)
	message.Type, message.Sequence = executorv1.Call_MESSAGE.Enum(), proto.Uint64(8)
	for _, c := range []*executorv1.Call{beat, message} {
		if err := calls.Send(c); err != nil {
			t.Fatal(err)
		}
	}
	if err := calls.CloseSend(); err != nil {
		t.Fatal(err)
	}
	for _, want := range []struct {
		sequence uint64
		code     executorv1.CallResult_Code
	}{{7, executorv1.CallResult_ACCEPTED}, {8, executorv1.CallResult_NOT_SUBSCRIBED}} {
		r, err := calls.Recv()
		if err != nil || r.GetSequence() != want.sequence || r.GetCode() != want.code {
			t.Errorf("answer %v, %v; want %v of %d", r, err, want.code, want.sequence)
		}
	}
}
