package agent

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/mezzo-os/mezzo/core/agent/state"
	"github.com/mezzo-os/mezzo/core/rpc"
	linkv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/link/v1"
	executorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1/executor"
)

const (
	// executorQueue and executorAnswers bound what waits for one executor, in
	// bytes.
	executorQueue   = 8 << 20
	executorAnswers = 1 << 20
	// executorHeartbeat is how often an executor hears that the agent is alive.
	executorHeartbeat = 30 * time.Minute
	// executorGrace is how long an executor has to take what was sent before its
	// stream was closed.
	executorGrace = 5 * time.Second
)

// executors are the streams of executors.
type executors struct {
	mu      sync.Mutex
	last    uint64
	streams map[uint64]*executorStream
	callers map[uint64]*executorCaller
}

func newExecutors() *executors {
	return &executors{streams: map[uint64]*executorStream{}, callers: map[uint64]*executorCaller{}}
}

// executorStream is one executor's stream of events.
type executorStream struct {
	sender *rpc.Sender[*executorv1.Event]
	once   sync.Once
	over   chan struct{} // closed when why is set
	why    error         // nil: an orderly end
}

func (s *executorStream) end(why error) {
	s.once.Do(func() {
		s.why = why
		close(s.over)
	})
}

// executorCaller is one stream of calls.
type executorCaller struct {
	ctx    context.Context
	sender *rpc.Sender[*executorv1.CallResult]

	mu      sync.Mutex
	pending int
	last    bool // no more calls come
	done    chan struct{}
}

// expect counts calls and answers, and notes the end of the calls.
func (c *executorCaller) expect(more int, last bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pending += more
	if c.last = c.last || last; c.last && c.pending == 0 {
		close(c.done)
	}
}

func (x *executors) open(s *executorStream, c *executorCaller) uint64 {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.last++
	if s != nil {
		x.streams[x.last] = s
	} else {
		x.callers[x.last] = c
	}
	return x.last
}

func (x *executors) forget(id uint64) {
	x.mu.Lock()
	defer x.mu.Unlock()
	delete(x.streams, id)
	delete(x.callers, id)
}

func (x *executors) stream(id uint64) *executorStream {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.streams[id]
}

// send queues an event. It reports false when the executor reads too slowly, and
// its stream is given up.
func (x *executors) send(o state.SendExecutor) bool {
	s := x.stream(o.Stream)
	if s == nil {
		return true
	}
	// All in one class: the order of events matters.
	if err := s.sender.Push(o.Event, proto.Size(o.Event), rpc.Control); !errors.Is(err, rpc.ErrQueueFull) {
		return true
	}
	s.end(status.Error(codes.ResourceExhausted, rpc.ErrQueueFull.Error()))
	s.sender.CloseWith(&executorv1.Event{
		Type:  executorv1.Event_ERROR.Enum(),
		Error: &executorv1.Event_Error{Message: proto.String("disconnected: " + rpc.ErrQueueFull.Error())},
	})
	return false
}

func (x *executors) close(id uint64, why error) {
	if s := x.stream(id); s != nil {
		s.end(why) // before the sender's end, which would say nothing
		s.sender.Close()
	}
}

func (x *executors) refuse(o state.RefuseExecutor) {
	code := codes.InvalidArgument
	switch o.Code {
	case executorv1.CallResult_UNKNOWN_EXECUTOR:
		code = codes.NotFound
	case executorv1.CallResult_UNAUTHENTICATED:
		code = codes.Unauthenticated
	case executorv1.CallResult_UNAUTHORIZED:
		code = codes.PermissionDenied
	}
	x.close(o.Stream, status.Error(code, o.Message))
}

func (x *executors) answer(o state.AnswerExecutor) {
	x.mu.Lock()
	c := x.callers[o.Caller]
	x.mu.Unlock()
	if c == nil {
		return
	}
	if errors.Is(c.sender.Push(o.Result, proto.Size(o.Result), rpc.Control), rpc.ErrQueueFull) {
		c.sender.Abort(rpc.ErrQueueFull)
		rpc.CancelStream(c.ctx, rpc.ErrQueueFull)
	}
	c.expect(-1, false)
}

// ExecutorServer serves mezzo.v1.executor.Executor: for executors that come to
// the agent by themselves when adapter is empty, otherwise for those that come
// through the framework adapter of that name.
//
// Subscribe fails with Unavailable while the agent has not read its checkpoint,
// NotFound for a framework or an executor that is not here, Unauthenticated and
// PermissionDenied for a token that does not do, InvalidArgument for
// a call that is wrong; the texts of the latter are those of Mesos. It ends
// without an error when the agent has closed the stream.
func (a *Agent) ExecutorServer(adapter string) executorv1.ExecutorServer {
	return &executorService{agent: a, adapter: adapter}
}

// AdapterUp says that a framework adapter serves: where it listens, and what it
// adds to the environment of executors, which find their tokens in the variables
// of the last list. It is said again when that changes.
func (a *Agent) AdapterUp(ctx context.Context, adapter string, environment []state.Variable, endpoints []*linkv1.Endpoint, tokens ...string) {
	a.post(ctx, state.AdapterUp{Adapter: adapter, Environment: environment, TokenVariables: tokens, Endpoints: endpoints})
}

// AdapterDown says that a framework adapter does not serve any more.
func (a *Agent) AdapterDown(ctx context.Context, adapter string) {
	a.post(ctx, state.AdapterDown{Adapter: adapter})
}

type executorService struct {
	executorv1.UnimplementedExecutorServer
	agent   *Agent
	adapter string
}

var errRecovering = status.Error(codes.Unavailable, "Agent has not finished recovery")

// ready is whether the agent takes calls.
func (s *executorService) ready() error {
	select {
	case <-s.agent.ended:
		return status.Error(codes.Unavailable, ErrStopped.Error())
	case <-s.agent.running:
		return nil
	default:
		return errRecovering
	}
}

// Subscribe implements executorv1.ExecutorServer.
func (s *executorService) Subscribe(call *executorv1.Call, stream grpc.ServerStreamingServer[executorv1.Event]) error {
	if err := s.ready(); err != nil {
		return err
	}
	ctx := stream.Context()
	e := &executorStream{sender: rpc.NewSender(executorQueue, stream.Send), over: make(chan struct{})}
	id := s.agent.executors.open(e, nil)
	defer s.agent.executors.forget(id)
	s.agent.post(ctx, state.ExecutorSubscribe{Stream: id, Adapter: s.adapter, Call: call})
	defer func() { s.agent.post(s.agent.life, state.ExecutorClosed{Stream: id}) }()
	beat := time.NewTicker(executorHeartbeat)
	defer beat.Stop()
	for {
		select {
		case <-beat.C:
			event := &executorv1.Event{Type: executorv1.Event_HEARTBEAT.Enum()}
			_ = e.sender.Push(event, proto.Size(event), rpc.Control) // a full queue is noticed with the next event
		case <-e.over:
			wait, cancel := context.WithTimeout(ctx, executorGrace)
			defer cancel()
			_ = e.sender.Wait(wait)
			e.sender.Abort(io.ErrClosedPipe)
			return e.why
		case <-ctx.Done():
			e.sender.Abort(ctx.Err())
			return ctx.Err()
		case <-e.sender.Done():
			select {
			case <-e.over: // both are true of a stream that was closed
				return e.why
			default:
				return nil
			}
		case <-s.agent.ended:
			e.sender.Abort(ErrStopped)
			return status.Error(codes.Unavailable, ErrStopped.Error())
		}
	}
}

// Calls implements executorv1.ExecutorServer.
func (s *executorService) Calls(stream grpc.BidiStreamingServer[executorv1.Call, executorv1.CallResult]) error {
	if err := s.ready(); err != nil {
		return err
	}
	ctx := stream.Context()
	c := &executorCaller{ctx: ctx, sender: rpc.NewSender(executorAnswers, stream.Send), done: make(chan struct{})}
	id := s.agent.executors.open(nil, c)
	defer s.agent.executors.forget(id)
	defer c.sender.Abort(io.ErrClosedPipe)
	defer context.AfterFunc(s.agent.life, func() { rpc.CancelStream(ctx, ErrStopped) })()
	for {
		call, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			c.expect(0, true)
			select {
			case <-c.done:
				c.sender.Close()
				_ = c.sender.Wait(ctx)
			case <-ctx.Done():
			case <-s.agent.ended:
			}
			return nil
		}
		if err != nil {
			return err
		}
		c.expect(1, false)
		s.agent.post(ctx, state.ExecutorCall{Caller: id, Adapter: s.adapter, Call: call})
	}
}
