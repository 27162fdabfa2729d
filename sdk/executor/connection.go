package executor

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/mezzo-os/mezzo/sdk/client"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
	executorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1/executor"
)

// connection is one stream of events, with its stream of calls. Calls go out in
// order from a goroutine of their own, so that nobody waits for the network.
type connection struct {
	cancel context.CancelFunc

	mu    sync.Mutex
	queue []*executorv1.Call
	wake  chan struct{} // has room for one
}

func (c *connection) call(call *executorv1.Call) {
	c.mu.Lock()
	c.queue = append(c.queue, call)
	c.mu.Unlock()
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

func (c *connection) take() []*executorv1.Call {
	c.mu.Lock()
	defer c.mu.Unlock()
	calls := c.queue
	c.queue = nil
	return calls
}

// connect makes one connection and serves it to its end. began tells whether it
// came about, over whether the agent has had the executor end.
func (e *Executor) connect(life context.Context) (began, over bool, err error) {
	conn, err := client.Dial(e.o.Agent, client.Options{TLS: e.o.TLS})
	if err != nil {
		return false, false, err
	}
	defer conn.Close()
	ctx, cancel := context.WithCancel(life)
	defer cancel()
	agent := executorv1.NewExecutorClient(conn)
	e.mu.Lock()
	subscribe := e.newCall(executorv1.Call_SUBSCRIBE, func(c *executorv1.Call) {
		c.Subscribe = &executorv1.Call_Subscribe{UnacknowledgedTasks: slices.Clone(e.tasks)}
		for _, s := range e.updates {
			c.Subscribe.UnacknowledgedUpdates = append(c.Subscribe.UnacknowledgedUpdates, &executorv1.Call_Update{Status: s})
		}
	})
	told := len(e.updates)
	e.mu.Unlock()
	events, err := agent.Subscribe(ctx, subscribe)
	if err != nil {
		return false, false, refused(err)
	}
	first, err := events.Recv()
	if err != nil {
		return false, false, refused(err)
	}
	if first.GetType() == executorv1.Event_SHUTDOWN {
		e.shutdown(life)
		return true, true, nil
	}
	calls, err := agent.Calls(ctx)
	if err != nil {
		return false, false, err
	}
	c := &connection{cancel: cancel, wake: make(chan struct{}, 1)}
	var workers sync.WaitGroup
	defer workers.Wait()
	defer cancel()
	workers.Go(func() { c.send(ctx, calls) })
	workers.Go(func() { e.answers(calls, cancel) })
	e.mu.Lock()
	e.link = c
	for _, s := range e.updates[min(told, len(e.updates)):] { // reported meanwhile
		c.call(e.newCall(executorv1.Call_UPDATE, func(c *executorv1.Call) { c.Update = &executorv1.Call_Update{Status: s} }))
	}
	e.mu.Unlock()
	defer func() {
		e.mu.Lock()
		e.link = nil
		e.mu.Unlock()
	}()
	over, err = e.serve(life, cancel, events, first)
	return true, over, err
}

// refused is why a subscription did not come about.
func refused(err error) error {
	switch status.Code(err) {
	case codes.NotFound, codes.InvalidArgument, codes.PermissionDenied, codes.Unauthenticated, codes.Unimplemented:
		return fmt.Errorf("%w: it refuses the executor: %s", ErrAbandoned, client.Reason(err))
	}
	return fmt.Errorf("subscribe: %s", client.Reason(err))
}

// send sends calls until the context ends.
func (c *connection) send(ctx context.Context, calls grpc.BidiStreamingClient[executorv1.Call, executorv1.CallResult]) {
	for {
		select {
		case <-c.wake:
		case <-ctx.Done():
			return
		}
		for _, call := range c.take() {
			if calls.Send(call) != nil {
				c.cancel()
				return
			}
		}
	}
}

// answers reads what became of calls. What is not accepted is a mistake, which
// is logged; the connection goes on.
func (e *Executor) answers(calls grpc.BidiStreamingClient[executorv1.Call, executorv1.CallResult], cancel context.CancelFunc) {
	for {
		r, err := calls.Recv()
		if err != nil {
			cancel()
			return
		}
		if r.GetCode() != executorv1.CallResult_ACCEPTED {
			e.logger.Error("the agent did not accept a call", "code", r.GetCode(), "message", r.GetMessage())
		}
	}
}

// serve gives the events to the callbacks until the connection ends.
func (e *Executor) serve(life context.Context, cancel context.CancelFunc, events grpc.ServerStreamingClient[executorv1.Event], event *executorv1.Event) (over bool, err error) {
	var ended chan struct{} // not nil: the executor is to end
	for {
		switch event.GetType() {
		case executorv1.Event_SHUTDOWN:
			if ended == nil {
				// Events are read on: statuses are stored only then.
				ended = make(chan struct{})
				go func() {
					defer close(ended)
					e.shutdown(life)
					cancel()
				}()
			}
		case executorv1.Event_ERROR:
			return false, fmt.Errorf("the agent ended the connection: %s", event.GetError().GetMessage())
		default:
			e.dispatch(event)
		}
		event, err = events.Recv()
		switch {
		case err == nil:
		case ended != nil:
			<-ended
			return true, nil
		default:
			return false, fmt.Errorf("the connection ended: %s", client.Reason(err))
		}
	}
}

// shutdown has the tasks end, and waits a while for their statuses to be stored.
func (e *Executor) shutdown(ctx context.Context) {
	limited, cancel := context.WithTimeout(ctx, e.o.ShutdownGrace)
	defer cancel()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if called := e.o.Callbacks.Shutdown; called != nil {
			called(e)
		}
	}()
	select {
	case <-ended:
	case <-limited.Done():
		return
	}
	_ = e.Flush(limited)
}

func (e *Executor) dispatch(event *executorv1.Event) {
	called := &e.o.Callbacks
	switch event.GetType() {
	case executorv1.Event_SUBSCRIBED:
		e.logger.Info("subscribed to the agent", "hostname", event.GetSubscribed().GetAgentInfo().GetHostname())
		if called.Subscribed != nil {
			called.Subscribed(e, event.GetSubscribed())
		}
	case executorv1.Event_LAUNCH:
		e.launch(event.GetLaunch().GetTask())
	case executorv1.Event_LAUNCH_GROUP:
		tasks := event.GetLaunchGroup().GetTaskGroup().GetTasks()
		if called.LaunchGroup == nil {
			for _, t := range tasks {
				e.launch(t)
			}
			return
		}
		e.note(tasks...)
		called.LaunchGroup(e, tasks)
	case executorv1.Event_KILL:
		if called.Kill != nil {
			called.Kill(e, event.GetKill().GetTaskId(), event.GetKill().GetKillPolicy())
		}
	case executorv1.Event_MESSAGE:
		if called.Message != nil {
			called.Message(e, event.GetMessage().GetData())
		}
	case executorv1.Event_ACKNOWLEDGED:
		e.acknowledged(event)
	}
}

func (e *Executor) note(tasks ...*mezzov1.TaskInfo) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.tasks = append(e.tasks, tasks...)
}

func (e *Executor) launch(task *mezzov1.TaskInfo) {
	e.note(task)
	if called := e.o.Callbacks.Launch; called != nil {
		called(e, task)
		return
	}
	s := Status(task.GetTaskId(), mezzov1.TaskState_TASK_FAILED)
	message := "the executor does not launch tasks"
	s.Message = &message
	e.Update(s)
}

// acknowledged forgets what the agent has stored.
func (e *Executor) acknowledged(event *executorv1.Event) {
	a := event.GetAcknowledged()
	if a == nil {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.tasks = slices.DeleteFunc(e.tasks, func(t *mezzov1.TaskInfo) bool { return t.GetTaskId().GetValue() == a.GetTaskId().GetValue() })
	e.updates = slices.DeleteFunc(e.updates, func(s *mezzov1.TaskStatus) bool { return bytes.Equal(s.GetUuid(), a.GetUuid()) })
	close(e.changed)
	e.changed = make(chan struct{})
}
