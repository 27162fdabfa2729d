package framework_test

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/mezzo-os/mezzo/sdk/framework"
	operatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/operator/v1"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
	schedulerv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1/scheduler"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 30 * time.Second

func await[T any](t *testing.T, what string, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(patience):
		t.Fatalf("waited in vain for %s", what)
		panic("unreachable")
	}
}

// fakeMaster leads, plays one function a subscription, and answers calls.
type fakeMaster struct {
	operatorv1.UnimplementedOperatorServer
	schedulerv1.UnimplementedSchedulerServer
	address    string
	epoch      atomic.Uint64 // as GetStatus tells it
	subscribed chan *schedulerv1.Call_Subscribe
	play       chan func(grpc.ServerStreamingServer[schedulerv1.Event]) error
	calls      chan *schedulerv1.Call
	answer     func(*schedulerv1.Call) *schedulerv1.CallResult
}

func (f *fakeMaster) GetStatus(context.Context, *operatorv1.GetStatusRequest) (*operatorv1.Status, error) {
	return &operatorv1.Status{Leadership: "leading", Epoch: f.epoch.Load()}, nil
}

func (f *fakeMaster) Subscribe(call *schedulerv1.Call_Subscribe, stream grpc.ServerStreamingServer[schedulerv1.Event]) error {
	f.subscribed <- call
	select {
	case play := <-f.play:
		return play(stream)
	case <-stream.Context().Done():
		return stream.Context().Err()
	}
}

func (f *fakeMaster) Calls(stream grpc.BidiStreamingServer[schedulerv1.Call, schedulerv1.CallResult]) error {
	for {
		call, err := stream.Recv()
		if err != nil {
			return nil
		}
		result := &schedulerv1.CallResult{Code: schedulerv1.CallResult_ACCEPTED.Enum()}
		if f.answer != nil {
			result = f.answer(call)
		}
		result.Sequence = call.Sequence
		f.calls <- call
		if err := stream.Send(result); err != nil {
			return err
		}
	}
}

func serve(t *testing.T) *fakeMaster {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := &fakeMaster{
		address: listener.Addr().String(), subscribed: make(chan *schedulerv1.Call_Subscribe, 100),
		play: make(chan func(grpc.ServerStreamingServer[schedulerv1.Event]) error), calls: make(chan *schedulerv1.Call, 1000),
	}
	server := grpc.NewServer(grpc.WaitForHandlers(true))
	operatorv1.RegisterOperatorServer(server, f)
	schedulerv1.RegisterSchedulerServer(server, f)
	done := make(chan error, 1)
	go func() { done <- server.Serve(listener) }()
	t.Cleanup(func() {
		server.Stop()
		if err := await(t, "the master's end", done); err != nil {
			t.Error(err)
		}
	})
	return f
}

func send(stream grpc.ServerStreamingServer[schedulerv1.Event], events ...*schedulerv1.Event) error {
	for _, e := range events {
		if err := stream.Send(e); err != nil {
			return err
		}
	}
	return nil
}

func subscribedEvent(heartbeat float64) *schedulerv1.Event {
	return &schedulerv1.Event{Type: schedulerv1.Event_SUBSCRIBED.Enum(), Subscribed: &schedulerv1.Event_Subscribed{
		FrameworkId: &mezzov1.FrameworkID{Value: proto.String("f1")}, StreamId: proto.String("s1"), HeartbeatIntervalSeconds: proto.Float64(heartbeat),
	}}
}

func update(id string, uuid string) *schedulerv1.Event {
	s := &mezzov1.TaskStatus{
		TaskId: &mezzov1.TaskID{Value: proto.String(id)}, State: mezzov1.TaskState_TASK_RUNNING.Enum(),
		AgentId: &mezzov1.AgentID{Value: proto.String("a1")},
	}
	if uuid != "" {
		s.Uuid = []byte(uuid)
	}
	return &schedulerv1.Event{Type: schedulerv1.Event_UPDATE.Enum(), Update: &schedulerv1.Event_Update{Status: s}}
}

func errorEvent(text string) *schedulerv1.Event {
	return &schedulerv1.Event{Type: schedulerv1.Event_ERROR.Enum(), Error: &schedulerv1.Event_Error{Message: proto.String(text)}}
}

func hold(stream grpc.ServerStreamingServer[schedulerv1.Event]) error {
	<-stream.Context().Done()
	return nil
}

// run runs a scheduler until the test ends.
func run(t *testing.T, f *fakeMaster, change func(*framework.Options)) (*framework.Scheduler, <-chan error) {
	t.Helper()
	o := framework.Options{
		Masters: []string{f.address}, BackoffMin: time.Millisecond, BackoffMax: 10 * time.Millisecond,
		Info: &mezzov1.FrameworkInfo{User: proto.String("nobody"), Name: proto.String("test"), Roles: []string{"a", "b"}},
	}
	if change != nil {
		change(&o)
	}
	s, err := framework.New(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended, finished := make(chan error, 1), make(chan struct{})
	go func() {
		defer close(finished)
		ended <- s.Run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		await(t, "the scheduler's end", finished)
	})
	return s, ended
}

func TestUpdatesAreAcknowledged(t *testing.T) {
	f := serve(t)
	seen := make(chan string, 10)
	run(t, f, func(o *framework.Options) {
		o.Callbacks.Update = func(_ *framework.Scheduler, s *mezzov1.TaskStatus) { seen <- s.GetTaskId().GetValue() }
	})
	f.play <- func(stream grpc.ServerStreamingServer[schedulerv1.Event]) error {
		// The second is the master's own and needs no acknowledgement.
		if err := send(stream, subscribedEvent(15), update("t1", "u1"), update("t2", ""), update("t3", "u3")); err != nil {
			return err
		}
		return hold(stream)
	}
	for i, want := range []string{"t1", "t3"} {
		call := await(t, "an acknowledgement", f.calls)
		if call.GetType() != schedulerv1.Call_ACKNOWLEDGE || call.GetAcknowledge().GetTaskId().GetValue() != want ||
			call.GetStreamId() != "s1" || call.GetFrameworkId().GetValue() != "f1" || call.GetSequence() != uint64(i+1) {
			t.Errorf("call %d is %v", i, call)
		}
	}
	for _, want := range []string{"t1", "t2", "t3"} {
		if got := await(t, "an update", seen); got != want {
			t.Errorf("update %s came, want %s", got, want)
		}
	}
}

func TestManualAcknowledgement(t *testing.T) {
	f := serve(t)
	updates := make(chan *mezzov1.TaskStatus, 10)
	s, _ := run(t, f, func(o *framework.Options) {
		o.ManualAcknowledge = true
		o.Callbacks.Update = func(_ *framework.Scheduler, s *mezzov1.TaskStatus) { updates <- s }
	})
	f.play <- func(stream grpc.ServerStreamingServer[schedulerv1.Event]) error {
		if err := send(stream, subscribedEvent(15), update("t1", "u1"), update("t2", "u2")); err != nil {
			return err
		}
		return hold(stream)
	}
	await(t, "the first update", updates)
	if err := s.Acknowledge(t.Context(), await(t, "the second update", updates)); err != nil {
		t.Fatal(err)
	}
	if call := await(t, "the acknowledgement", f.calls); call.GetAcknowledge().GetTaskId().GetValue() != "t2" {
		t.Errorf("the first call is %v", call)
	}
}

func TestSubscribesAgainWithItsIDAndReconciles(t *testing.T) {
	f := serve(t)
	lost, began := make(chan error, 10), make(chan string, 10)
	s, _ := run(t, f, func(o *framework.Options) {
		o.Callbacks.Subscribed = func(_ *framework.Scheduler, id string, _ bool) { began <- id }
		o.Callbacks.Disconnected = func(_ *framework.Scheduler, err error) { lost <- err }
	})
	if call := await(t, "the first subscription", f.subscribed); call.GetFrameworkInfo().Id != nil {
		t.Errorf("the first subscription has the id %v", call.GetFrameworkInfo().GetId())
	}
	end := make(chan struct{})
	f.play <- func(stream grpc.ServerStreamingServer[schedulerv1.Event]) error {
		if err := send(stream, subscribedEvent(15)); err != nil {
			return err
		}
		<-end
		return status.Error(codes.Unavailable, "the master goes")
	}
	// What is suppressed stays so.
	if id := await(t, "the subscription", began); id != "f1" || s.FrameworkID() != id {
		t.Errorf("the id is %s, or %s", id, s.FrameworkID())
	}
	if err := s.Suppress(t.Context()); err != nil {
		t.Fatal(err)
	}
	await(t, "SUPPRESS", f.calls)
	if err := s.Revive(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	await(t, "REVIVE", f.calls)
	close(end)
	// The stream broke off, with no status that says it is for good.
	if err := await(t, "it to notice", lost); err == nil {
		t.Error("it is not told why")
	}
	call := await(t, "the second subscription", f.subscribed)
	if diff := cmp.Diff([]string{"b"}, call.GetSuppressedRoles()); call.GetFrameworkInfo().GetId().GetValue() != "f1" || diff != "" {
		t.Errorf("it subscribed as %v, suppressed %s", call.GetFrameworkInfo().GetId(), diff)
	}
	f.play <- func(stream grpc.ServerStreamingServer[schedulerv1.Event]) error {
		if err := send(stream, subscribedEvent(15)); err != nil {
			return err
		}
		return hold(stream)
	}
	if call := await(t, "a call", f.calls); call.GetType() != schedulerv1.Call_RECONCILE {
		t.Errorf("its first call is %v", call)
	}
}

func TestWhatEndsItForGood(t *testing.T) {
	for name, play := range map[string]func(grpc.ServerStreamingServer[schedulerv1.Event]) error{
		"refused at once": func(stream grpc.ServerStreamingServer[schedulerv1.Event]) error {
			return errors.Join(send(stream, errorEvent("no such role")), nil)
		},
		"taken over": func(stream grpc.ServerStreamingServer[schedulerv1.Event]) error {
			if err := send(stream, subscribedEvent(15), errorEvent("taken over")); err != nil {
				return err
			}
			return status.Error(codes.FailedPrecondition, "closed")
		},
		"not allowed": func(grpc.ServerStreamingServer[schedulerv1.Event]) error {
			return status.Error(codes.PermissionDenied, "not allowed here")
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := serve(t)
			_, ended := run(t, f, nil)
			f.play <- play
			err := await(t, "the end", ended)
			if !errors.Is(err, framework.ErrEnded) {
				t.Errorf("it ended with %v", err)
			}
		})
	}
}

func TestWhatDoesNotEndIt(t *testing.T) {
	for name, play := range map[string]func(grpc.ServerStreamingServer[schedulerv1.Event]) error{
		"too slow": func(stream grpc.ServerStreamingServer[schedulerv1.Event]) error {
			if err := send(stream, subscribedEvent(15), errorEvent("too slow")); err != nil {
				return err
			}
			return status.Error(codes.ResourceExhausted, "too slow")
		},
		"no leader": func(grpc.ServerStreamingServer[schedulerv1.Event]) error {
			return status.Error(codes.Unavailable, "standby")
		},
		"no heartbeats": func(stream grpc.ServerStreamingServer[schedulerv1.Event]) error {
			return errors.Join(send(stream, subscribedEvent(0.01)), hold(stream))
		},
		"an odd greeting": func(stream grpc.ServerStreamingServer[schedulerv1.Event]) error {
			return send(stream, update("t", "u"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := serve(t)
			run(t, f, nil)
			await(t, "the first subscription", f.subscribed)
			f.play <- play
			await(t, "another subscription", f.subscribed)
		})
	}
}

func TestCallsThatAreNotAccepted(t *testing.T) {
	f := serve(t)
	f.answer = func(call *schedulerv1.Call) *schedulerv1.CallResult {
		if call.GetType() == schedulerv1.Call_KILL {
			return &schedulerv1.CallResult{Code: schedulerv1.CallResult_INVALID.Enum(), Message: proto.String("no such task")}
		}
		return &schedulerv1.CallResult{Code: schedulerv1.CallResult_ACCEPTED.Enum()}
	}
	began := make(chan string, 10)
	s, _ := run(t, f, func(o *framework.Options) {
		o.Callbacks.Subscribed = func(_ *framework.Scheduler, id string, _ bool) { began <- id }
	})
	if err := s.Revive(t.Context()); !errors.Is(err, framework.ErrNotSubscribed) {
		t.Errorf("a call before the subscription gave %v", err)
	}
	f.play <- func(stream grpc.ServerStreamingServer[schedulerv1.Event]) error {
		if err := send(stream, subscribedEvent(15)); err != nil {
			return err
		}
		return hold(stream)
	}
	await(t, "the subscription", began)
	// Pipelined calls are answered each with its own result.
	var results []<-chan error
	for i := range 50 {
		call := &schedulerv1.Call{Type: schedulerv1.Call_REVIVE.Enum(), Revive: &schedulerv1.Call_Revive{}}
		if i%2 == 1 {
			call = &schedulerv1.Call{Type: schedulerv1.Call_KILL.Enum(), Kill: &schedulerv1.Call_Kill{TaskId: &mezzov1.TaskID{Value: proto.String("t")}}}
		}
		results = append(results, s.Send(call))
	}
	for i, result := range results {
		err := await(t, "a result", result)
		var refused *framework.CallError
		if i%2 == 0 && err != nil || i%2 == 1 && (!errors.As(err, &refused) || refused.Code != schedulerv1.CallResult_INVALID || !strings.Contains(err.Error(), "no such task")) {
			t.Errorf("result %d is %v", i, err)
		}
	}
}

func TestOptionsThatCannotBe(t *testing.T) {
	for _, o := range []framework.Options{
		{Info: &mezzov1.FrameworkInfo{User: proto.String("u"), Name: proto.String("n")}},
		{Masters: []string{"127.0.0.1:1"}},
		{Masters: []string{"127.0.0.1:1"}, Info: &mezzov1.FrameworkInfo{Name: proto.String("n")}},
	} {
		if _, err := framework.New(o); err == nil {
			t.Errorf("%+v was taken", o)
		}
	}
}

// A master that was stopped and goes on may say that it leads: a scheduler that
// has seen a later leader does not believe it, neither before it subscribes nor
// when the subscription tells.
func TestNoLeaderOfBefore(t *testing.T) {
	told := func(epoch uint64) func(grpc.ServerStreamingServer[schedulerv1.Event]) error {
		return func(stream grpc.ServerStreamingServer[schedulerv1.Event]) error {
			event := subscribedEvent(15)
			event.Subscribed.Epoch = proto.Uint64(epoch)
			return errors.Join(send(stream, event), status.Error(codes.Unavailable, "the connection breaks"))
		}
	}
	f := serve(t)
	began, refused := make(chan string, 100), newErrors()
	run(t, f, func(o *framework.Options) {
		o.Callbacks.Subscribed = func(_ *framework.Scheduler, id string, _ bool) { began <- id }
		o.Logger = slog.New(refused)
	})
	f.play <- told(7)
	await(t, "the subscription", began)
	f.play <- func(stream grpc.ServerStreamingServer[schedulerv1.Event]) error {
		f.epoch.Store(6) // from now on it is known before any subscription
		return told(6)(stream)
	}
	for range 3 {
		if text := await(t, "the refusal", refused.texts); !strings.Contains(text, "its epoch is 6 and a later leader, of epoch 7, was seen") {
			t.Errorf("it tries again since %q", text)
		}
	}
	f.epoch.Store(8)
	f.play <- told(8)
	await(t, "the subscription with the next leader", began)
	if len(began) > 0 {
		t.Errorf("it was subscribed %d times too often", len(began))
	}
}

// newErrors is a log that tells why a scheduler of epochs tries again.
func newErrors() *tried { return &tried{texts: make(chan string, 1000)} }

type tried struct{ texts chan string }

func (l *tried) Enabled(context.Context, slog.Level) bool { return true }
func (l *tried) WithAttrs([]slog.Attr) slog.Handler       { return l }
func (l *tried) WithGroup(string) slog.Handler            { return l }
func (l *tried) Handle(_ context.Context, r slog.Record) error {
	r.Attrs(func(a slog.Attr) bool {
		if a.Key == "error" && strings.Contains(a.Value.String(), "epoch") {
			l.texts <- a.Value.String()
		}
		return true
	})
	return nil
}
