package executor_test

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/mezzo-os/mezzo/sdk/executor"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
	executorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1/executor"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = time.Minute

// agent is the other end: each subscription is given to the test, which says
// what becomes of it.
type agent struct {
	executorv1.UnimplementedExecutorServer
	address string
	subs    chan *subscription
	calls   chan *executorv1.Call
	refuse  error
}

type subscription struct {
	call   *executorv1.Call
	stream grpc.ServerStreamingServer[executorv1.Event]
	end    chan error
}

func (s *subscription) send(t *testing.T, e *executorv1.Event) {
	t.Helper()
	if err := s.stream.Send(e); err != nil {
		t.Fatal(err)
	}
}

func newAgent(t *testing.T) *agent {
	t.Helper()
	a := &agent{subs: make(chan *subscription, 10), calls: make(chan *executorv1.Call, 10)}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	executorv1.RegisterExecutorServer(server, a)
	done := make(chan struct{})
	go func() { defer close(done); _ = server.Serve(listener) }()
	t.Cleanup(func() { server.Stop(); <-done })
	a.address = listener.Addr().String()
	return a
}

func (a *agent) Subscribe(c *executorv1.Call, stream grpc.ServerStreamingServer[executorv1.Event]) error {
	if a.refuse != nil {
		return a.refuse
	}
	s := &subscription{c, stream, make(chan error, 1)}
	a.subs <- s
	select {
	case err := <-s.end:
		return err
	case <-stream.Context().Done():
		return nil
	}
}

func (a *agent) Calls(stream grpc.BidiStreamingServer[executorv1.Call, executorv1.CallResult]) error {
	for {
		c, err := stream.Recv()
		if err != nil {
			return nil
		}
		a.calls <- c
		if err := stream.Send(&executorv1.CallResult{Code: executorv1.CallResult_ACCEPTED.Enum()}); err != nil {
			return err
		}
	}
}

func receive[T any](t *testing.T, what string, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(patience):
		t.Fatalf("%s: did not come", what)
		panic("unreachable")
	}
}

func subscribed() *executorv1.Event {
	return &executorv1.Event{Type: executorv1.Event_SUBSCRIBED.Enum(), Subscribed: &executorv1.Event_Subscribed{
		ExecutorInfo:  &mezzov1.ExecutorInfo{ExecutorId: &mezzov1.ExecutorID{Value: proto.String("x")}},
		FrameworkInfo: &mezzov1.FrameworkInfo{User: proto.String(""), Name: proto.String("f")},
		AgentInfo:     &mezzov1.AgentInfo{Hostname: proto.String("h1")},
	}}
}

func launch(id string) *executorv1.Event {
	return &executorv1.Event{Type: executorv1.Event_LAUNCH.Enum(), Launch: &executorv1.Event_Launch{Task: &mezzov1.TaskInfo{
		Name: proto.String(id), TaskId: &mezzov1.TaskID{Value: proto.String(id)}, AgentId: &mezzov1.AgentID{Value: proto.String("A1")},
	}}}
}

func start(t *testing.T, a *agent, c executor.Callbacks, change func(*executor.Options)) (*executor.Executor, <-chan error) {
	t.Helper()
	o := executor.Options{Agent: a.address, FrameworkID: "F1", ExecutorID: "x", BackoffMax: 10 * time.Millisecond, Callbacks: c}
	if change != nil {
		change(&o)
	}
	e, err := executor.New(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done, ended := make(chan error, 1), make(chan struct{})
	go func() { defer close(ended); done <- e.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-ended })
	return e, done
}

// What the agent has not stored is told again with the next subscription; what
// it has is not.
func TestSubscribesAgainWithWhatIsNotStored(t *testing.T) {
	a := newAgent(t)
	launched := make(chan *mezzov1.TaskInfo, 10)
	e, _ := start(t, a, executor.Callbacks{Launch: func(_ *executor.Executor, t *mezzov1.TaskInfo) { launched <- t }}, nil)
	first := receive(t, "a subscription", a.subs)
	if c := first.call; c.GetFrameworkId().GetValue() != "F1" || c.GetExecutorId().GetValue() != "x" || c.Subscribe == nil || len(c.GetSubscribe().GetUnacknowledgedTasks()) > 0 {
		t.Errorf("SUBSCRIBE %v", c)
	}
	first.send(t, subscribed())
	for _, id := range []string{"stored", "sent", "silent"} {
		first.send(t, launch(id))
		receive(t, "LAUNCH", launched)
	}
	var uuids [][]byte
	for _, id := range []string{"stored", "sent"} {
		e.Update(executor.Status(&mezzov1.TaskID{Value: proto.String(id)}, mezzov1.TaskState_TASK_RUNNING))
		s := receive(t, "UPDATE", a.calls).GetUpdate().GetStatus()
		if s.GetSource() != mezzov1.TaskStatus_SOURCE_EXECUTOR || len(s.GetUuid()) != 16 || s.GetExecutorId().GetValue() != "x" || s.GetTimestamp() == 0 {
			t.Errorf("status %v", s)
		}
		uuids = append(uuids, s.GetUuid())
	}
	first.send(t, &executorv1.Event{Type: executorv1.Event_ACKNOWLEDGED.Enum(), Acknowledged: &executorv1.Event_Acknowledged{
		TaskId: &mezzov1.TaskID{Value: proto.String("stored")}, Uuid: uuids[0],
	}})
	first.send(t, launch("after")) // once it is there, so is the acknowledgement
	receive(t, "LAUNCH", launched)
	first.end <- status.Error(codes.Unavailable, "the agent is stopping")

	second := receive(t, "another subscription", a.subs)
	var tasks []string
	for _, info := range second.call.GetSubscribe().GetUnacknowledgedTasks() {
		tasks = append(tasks, info.GetTaskId().GetValue())
	}
	if got := strings.Join(tasks, " "); got != "sent silent after" {
		t.Errorf("unacknowledged tasks: %s", got)
	}
	updates := second.call.GetSubscribe().GetUnacknowledgedUpdates()
	if len(updates) != 1 || string(updates[0].GetStatus().GetUuid()) != string(uuids[1]) {
		t.Errorf("unacknowledged updates: %v", updates)
	}
}

// SHUTDOWN: the executor ends its tasks, sees that their ends are stored, and is
// over.
func TestShutdown(t *testing.T) {
	a := newAgent(t)
	e, done := start(t, a, executor.Callbacks{Shutdown: func(e *executor.Executor) {
		e.Update(executor.Status(&mezzov1.TaskID{Value: proto.String("t1")}, mezzov1.TaskState_TASK_KILLED))
	}}, func(o *executor.Options) { o.ShutdownGrace = patience })
	s := receive(t, "a subscription", a.subs)
	s.send(t, subscribed())
	s.send(t, &executorv1.Event{Type: executorv1.Event_SHUTDOWN.Enum()})
	update := receive(t, "UPDATE", a.calls).GetUpdate().GetStatus()
	select {
	case err := <-done:
		t.Fatalf("it has ended before its status was stored: %v", err)
	default:
	}
	s.send(t, &executorv1.Event{Type: executorv1.Event_ACKNOWLEDGED.Enum(), Acknowledged: &executorv1.Event_Acknowledged{
		TaskId: update.GetTaskId(), Uuid: update.GetUuid(),
	}})
	if err := receive(t, "the end", done); err != nil {
		t.Errorf("Run returned %v", err)
	}
	if err := e.Send([]byte("x")); !errors.Is(err, executor.ErrNotSubscribed) {
		t.Errorf("a message without a connection: %v", err)
	}
}

func TestAbandoned(t *testing.T) {
	a := newAgent(t)
	a.refuse = status.Error(codes.NotFound, "Executor cannot be found")
	_, done := start(t, a, executor.Callbacks{}, nil)
	if err := receive(t, "the end", done); !errors.Is(err, executor.ErrAbandoned) || !strings.Contains(err.Error(), "cannot be found") {
		t.Errorf("an agent that does not know it: %v", err)
	}
	b := newAgent(t)
	b.refuse = status.Error(codes.Unavailable, "Agent has not finished recovery")
	_, done = start(t, b, executor.Callbacks{}, func(o *executor.Options) { o.RecoveryTimeout = 50 * time.Millisecond })
	if err := receive(t, "the end", done); !errors.Is(err, executor.ErrAbandoned) || !strings.Contains(err.Error(), "not finished recovery") {
		t.Errorf("an agent that stays away: %v", err)
	}
}

func TestFromEnvironment(t *testing.T) {
	if _, err := executor.FromEnvironment(); err == nil || !strings.Contains(err.Error(), "is not set") {
		t.Errorf("without an agent: %v", err)
	}
	for name, value := range map[string]string{
		"MEZZO_AGENT_ADDRESS": "h:1", "MEZZO_FRAMEWORK_ID": "F1", "MEZZO_EXECUTOR_ID": "x", "MEZZO_RECOVERY_TIMEOUT": "15mins", "MEZZO_EXECUTOR_TOKEN": "t",
		"MEZZO_SUBSCRIPTION_BACKOFF_MAX": "1500ms", "MEZZO_EXECUTOR_SHUTDOWN_GRACE_PERIOD": "1.5secs",
	} {
		t.Setenv(name, value)
	}
	o, err := executor.FromEnvironment()
	if err != nil || o.Agent != "h:1" || o.FrameworkID != "F1" || o.ExecutorID != "x" || o.Token != "t" ||
		o.RecoveryTimeout != 15*time.Minute || o.BackoffMax != 1500*time.Millisecond || o.ShutdownGrace != 1500*time.Millisecond {
		t.Errorf("%+v, %v", o, err)
	}
	t.Setenv("MEZZO_RECOVERY_TIMEOUT", "15m0s")
	if _, err := executor.FromEnvironment(); err == nil || !strings.Contains(err.Error(), "MEZZO_RECOVERY_TIMEOUT") {
		t.Errorf("a duration of another kind: %v", err)
	}
}
