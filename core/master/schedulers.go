package master

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/mezzo-os/mezzo/core/adapter"
	"github.com/mezzo-os/mezzo/core/master/state"
	"github.com/mezzo-os/mezzo/core/rpc"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
	schedulerv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1/scheduler"
)

const (
	// schedulerQueue and callerQueue bound what waits for one scheduler, in bytes.
	schedulerQueue = 32 << 20
	callerQueue    = 8 << 20
	// closeGrace is how long a peer has to take what was queued before its
	// stream was closed.
	closeGrace = 5 * time.Second
)

// subscription is one scheduler's stream of events.
type subscription struct {
	id        state.Stream
	name      string
	peer      string
	principal string
	adapter   string // that it came through; empty: none
	sender    *rpc.Sender[*schedulerv1.Event]
	tally     *tally // of its framework, once it is subscribed; the loop's

	once sync.Once
	over chan struct{} // closed when why is set
	why  error
}

// opening brings a new subscription to the loop.
type opening struct {
	stream *subscription
	call   *schedulerv1.Call_Subscribe
}

// end closes the stream after what is queued, with this status.
func (s *subscription) end(why error) {
	s.sender.Close()
	s.stop(why)
}

// tooSlow drops what is queued and tells the scheduler so.
func (s *subscription) tooSlow(why error) {
	s.sender.CloseWith(&schedulerv1.Event{
		Type:  schedulerv1.Event_ERROR.Enum(),
		Error: &schedulerv1.Event_Error{Message: proto.String("disconnected: " + why.Error())},
	})
	s.stop(why)
}

func (s *subscription) stop(why error) {
	s.once.Do(func() {
		s.why = why
		close(s.over)
	})
}

// schedulerService serves mezzo.v1.scheduler.Scheduler.
type schedulerService struct {
	schedulerv1.UnimplementedSchedulerServer
	master *Master
	from   *adapter.Source // whose calls these are; nil: anybody's
}

// Subscribe serves one scheduler's events until the stream ends.
func (s *schedulerService) Subscribe(call *schedulerv1.Call_Subscribe, stream grpc.ServerStreamingServer[schedulerv1.Event]) error {
	term, err := s.master.leading()
	if err != nil {
		return err
	}
	ctx := stream.Context()
	s.master.metrics.traffic.call(schedulerv1.Call_SUBSCRIBE)
	if err := s.authorizeSubscribe(ctx, call); err != nil {
		return err
	}
	id, err := streamID()
	if err != nil {
		return err
	}
	sub := &subscription{
		id: id, name: call.GetFrameworkInfo().GetName(), peer: peerOf(ctx), principal: rpc.PrincipalFrom(ctx).Name,
		adapter: s.from.String(), sender: rpc.NewSender(schedulerQueue, stream.Send), over: make(chan struct{}),
	}
	if err := term.inbox.put(opening{sub, call}, proto.Size(call)); err != nil {
		return unavailable(err.Error())
	}
	select {
	case <-sub.over:
		wait, cancel := context.WithTimeout(ctx, closeGrace)
		defer cancel()
		_ = sub.sender.Wait(wait)
		sub.sender.Abort(sub.why)
		return sub.why
	case <-ctx.Done():
		sub.sender.Abort(ctx.Err())
	case <-sub.sender.Done():
		sub.sender.Abort(io.ErrClosedPipe)
	}
	closed := state.StreamClosed{Stream: id, Reason: "its connection was lost"}
	if s.from != nil && s.from.Lost() {
		closed.Reason, closed.AdapterLost = "its adapter was lost", true
	}
	_ = term.inbox.post(closed)
	return ctx.Err()
}

// streamID names a subscription. Who knows it may call for the framework, so
// it cannot be guessed.
func streamID() (state.Stream, error) {
	var b [16]byte
	if _, err := rand.Read(b[:]); err != nil {
		return "", fmt.Errorf("stream id: %w", err)
	}
	// As UUIDs of version 4 are, since that is what the Mesos API makes of it.
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return state.Stream(hex.EncodeToString(b[:])), nil
}

func (s *schedulerService) authorizeSubscribe(ctx context.Context, call *schedulerv1.Call_Subscribe) error {
	info := call.GetFrameworkInfo()
	if info == nil {
		return fmt.Errorf("%w: SUBSCRIBE has no framework_info", rpc.ErrInvalid)
	}
	// Rules go by whose a framework is: that has to be proven.
	if claimed := info.GetPrincipal(); claimed != "" && rpc.PrincipalFrom(ctx).Name == "" && !s.master.indifferent() {
		return fmt.Errorf("%w: the framework %q names the principal %q in its FrameworkInfo, and has shown neither a certificate nor a credential; "+
			"show one of %[3]q, or leave the principal out", rpc.ErrDenied, info.GetName(), claimed)
	}
	for _, role := range frameworkRoles(info) {
		object := rpc.Object{ID: info.GetName(), FrameworkID: info.GetId().GetValue(), Role: role, User: info.GetUser()}
		if err := s.master.authorize(ctx, rpc.RegisterFramework, object); err != nil {
			return err
		}
	}
	return nil
}

// callStream is one stream of calls.
type callStream struct {
	id     state.Caller
	ctx    context.Context
	sender *rpc.Sender[*schedulerv1.CallResult]
}

func (c *callStream) close(err error) {
	c.sender.Abort(err)
	rpc.CancelStream(c.ctx, err)
}

// deniedCall is answered in its turn without reaching the machine.
type deniedCall struct {
	caller state.Caller
	result *schedulerv1.CallResult
}

// callsEnded: the caller sends no more; what it sent is still answered.
type callsEnded struct{ caller state.Caller }

// Calls takes calls, in order, and answers each, in order.
func (s *schedulerService) Calls(stream grpc.BidiStreamingServer[schedulerv1.Call, schedulerv1.CallResult]) error {
	term, err := s.master.leading()
	if err != nil {
		return err
	}
	ctx := stream.Context()
	caller := &callStream{id: state.Caller(s.master.callers.Add(1)), ctx: ctx, sender: rpc.NewSender(callerQueue, stream.Send)}
	if err := term.inbox.post(caller); err != nil {
		return unavailable(err.Error())
	}
	defer caller.sender.Abort(io.ErrClosedPipe)
	principal := rpc.PrincipalFrom(ctx).Name
	for {
		call, err := stream.Recv()
		if err != nil {
			if term.inbox.post(callsEnded{caller.id}) == nil && errors.Is(err, io.EOF) {
				_ = caller.sender.Wait(ctx)
			}
			return nil
		}
		s.master.metrics.traffic.call(call.GetType())
		var input any = state.SchedulerCall{Caller: caller.id, Call: call, Principal: principal, Denied: s.deniedTasks(ctx, call),
			DeniedOperations: s.deniedOperations(ctx, call)}
		if err := s.authorizeCall(ctx, call); err != nil {
			input = deniedCall{caller.id, &schedulerv1.CallResult{
				Sequence: call.Sequence, Code: schedulerv1.CallResult_UNAUTHORIZED.Enum(), Message: proto.String(err.Error()),
			}}
		}
		if err := term.inbox.put(input, proto.Size(call)); err != nil {
			return unavailable(err.Error())
		}
	}
}

// authorizeCall asks for what a call would change.
func (s *schedulerService) authorizeCall(ctx context.Context, call *schedulerv1.Call) error {
	framework := call.GetFrameworkId().GetValue()
	switch call.GetType() {
	case schedulerv1.Call_TEARDOWN:
		return s.master.authorizeAll(ctx, rpc.TeardownFramework, frameworkObjects(s.master.knownFramework(ctx, framework), framework, framework))
	case schedulerv1.Call_KILL:
		return s.master.authorizeAll(ctx, rpc.KillTask, s.master.taskObjects(ctx, framework, call.GetKill().GetTaskId().GetValue()))
	case schedulerv1.Call_SHUTDOWN:
		key := state.ExecutorKey{
			FrameworkID: framework, ExecutorID: call.GetShutdown().GetExecutorId().GetValue(), AgentID: call.GetShutdown().GetAgentId().GetValue(),
		}
		return s.master.authorizeAll(ctx, rpc.KillTask, s.master.executorObjects(ctx, key))
	case schedulerv1.Call_UPDATE_FRAMEWORK:
		return s.authorizeSubscribe(ctx, &schedulerv1.Call_Subscribe{FrameworkInfo: call.GetUpdateFramework().GetFrameworkInfo()})
	}
	return nil
}

// deniedTasks asks for the tasks of an ACCEPT whether they may run as who they
// would, and gives why those may not that may not.
func (s *schedulerService) deniedTasks(ctx context.Context, call *schedulerv1.Call) map[string]string {
	if call.GetType() != schedulerv1.Call_ACCEPT {
		return nil
	}
	var denied map[string]string
	framework := call.GetFrameworkId().GetValue()
	launch := s.master.launchOf(ctx, framework, call.GetAccept().GetOfferIds())
	for _, operation := range call.GetAccept().GetOperations() {
		tasks, executor := operation.GetLaunch().GetTaskInfos(), (*mezzov1.ExecutorInfo)(nil)
		if group := operation.GetLaunchGroup(); group != nil {
			tasks, executor = group.GetTaskGroup().GetTasks(), group.GetExecutor()
		}
		for _, task := range tasks {
			id := task.GetTaskId().GetValue()
			if why := s.denied(ctx, launch, framework, task, executor); why != "" {
				if denied == nil {
					denied = map[string]string{}
				}
				denied[id] = why
			}
		}
	}
	return denied
}

// denied says why a task may not be launched; empty: it may.
func (s *schedulerService) denied(ctx context.Context, l launch, framework string, task *mezzov1.TaskInfo, executor *mezzov1.ExecutorInfo) string {
	object := rpc.Object{ID: task.GetTaskId().GetValue(), FrameworkID: framework, Owner: l.owner()}
	for _, user := range l.users(task, executor) {
		for _, role := range l.roles(task) {
			object.User, object.Role = user, role
			if err := s.master.authorize(ctx, rpc.RunTask, object); err != nil {
				return fmt.Sprintf("Not authorized to launch as user '%s': %s", user, err)
			}
		}
	}
	return ""
}
