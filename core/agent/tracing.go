package agent

import (
	"context"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	oteltrace "go.opentelemetry.io/otel/trace"

	"github.com/mezzo-os/mezzo/core/agent/state"
	"github.com/mezzo-os/mezzo/core/trace"
	isolatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/isolator/v1"
	linkv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/link/v1"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
)

// tracedTasks bounds how many tasks are traced at a time.
const tracedTasks = 1 << 16

// traces makes spans of the tasks whose launch the master traces:
//
//	launch task         from the launch's arrival until the task runs, or has ended
//	  claim, prepare, create, isolate, start, each with its isolator; fetch, provision
//	run task            from then until it has ended
//	  kill, cleanup     with their isolators
//	status update       from the first time it is sent until it is acknowledged
//
// All three have the master's launch as their parent. What an earlier process of
// the agent has launched is not traced. Its methods may be called from any
// goroutine; those of nil do nothing.
type traces struct {
	tracer *trace.Tracer

	mu         sync.Mutex
	tasks      map[taskRef]*taskTrace
	executors  map[taskRef]*taskTrace // by executor: its first task
	containers map[string]*taskTrace
}

// taskRef names a task, or an executor, of a framework.
type taskRef struct{ framework, id string }

// taskTrace is one task's.
type taskTrace struct {
	parent  oteltrace.SpanContext
	about   []attribute.KeyValue
	phase   oteltrace.Span            // launch or run
	running bool                      // phase is run
	over    bool                      // phase has ended
	updates map[string]oteltrace.Span // by UUID
}

func newTraces(t *trace.Tracer) *traces {
	if t == nil {
		return nil
	}
	return &traces{tracer: t, tasks: map[taskRef]*taskTrace{}, executors: map[taskRef]*taskTrace{}, containers: map[string]*taskTrace{}}
}

// input sees what comes into the machine, before it does.
func (t *traces) input(in state.Input) {
	if t == nil {
		return
	}
	switch in := in.(type) {
	case state.LinkMessage:
		switch {
		case in.Message.GetRun() != nil:
			t.received(in.Message.GetRun())
		case in.Message.GetAcknowledge() != nil:
			t.acknowledged(in.Message.GetAcknowledge())
		}
	case state.CleanedUp:
		t.mu.Lock()
		delete(t.containers, in.Container)
		t.mu.Unlock()
	}
}

// received begins the traces of a launch's tasks.
func (t *traces) received(run *linkv1.Run) {
	parent := trace.Parse(run.GetTraceparent())
	if !parent.IsSampled() {
		return
	}
	framework, executor := run.GetFramework().GetId().GetValue(), run.GetExecutor().GetExecutorId().GetValue()
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, info := range run.GetTasks() {
		ref := taskRef{framework, info.GetTaskId().GetValue()}
		if t.tasks[ref] != nil || len(t.tasks) >= tracedTasks {
			continue
		}
		task := &taskTrace{parent: parent, updates: map[string]oteltrace.Span{}}
		task.about = []attribute.KeyValue{trace.Framework.String(framework), trace.Task.String(ref.id), trace.Agent.String(info.GetAgentId().GetValue())}
		if executor != "" {
			task.about = append(task.about, trace.Executor.String(executor))
			t.executors[taskRef{framework, executor}] = task
		}
		task.phase = t.tracer.Start(parent, "launch task", time.Now(), task.about...)
		t.tasks[ref] = task
	}
}

// output sees what the machine wants, before it is done.
func (t *traces) output(out state.Output) {
	if t == nil {
		return
	}
	switch out := out.(type) {
	case state.ClaimContainers:
		t.mu.Lock()
		defer t.mu.Unlock()
		for _, p := range out.Containers {
			if task := t.find(p.Task); task != nil {
				t.containers[p.Container] = task
			}
		}
	case state.SendMaster:
		if u := out.Message.GetUpdate(); u != nil {
			t.updated(u)
		}
	}
}

// find is the trace that a container belongs to, or nil. The lock is held.
func (t *traces) find(of *isolatorv1.Task) *taskTrace {
	if id := of.GetTaskId(); id != "" {
		return t.tasks[taskRef{of.GetFrameworkId(), id}]
	}
	return t.executors[taskRef{of.GetFrameworkId(), of.GetExecutorId()}]
}

// updated sees an update on its way to the master, and tells where it belongs.
// The message is the machine's no more.
func (t *traces) updated(u *linkv1.StatusUpdate) {
	status := u.GetStatus()
	ref := taskRef{u.GetFrameworkId(), status.GetTaskId().GetValue()}
	t.mu.Lock()
	defer t.mu.Unlock()
	task := t.tasks[ref]
	if task == nil {
		return
	}
	uuid := string(status.GetUuid())
	span := task.updates[uuid]
	if span != nil {
		span.AddEvent("sent again")
	} else {
		task.move(t.tracer, status)
		span = t.tracer.Start(task.parent, "status update", time.Now(), append(task.about[:len(task.about):len(task.about)], stateOf(status)...)...)
		if uuid == "" { // nobody acknowledges it
			span.End()
			if task.over {
				t.forget(ref, task)
			}
		} else {
			task.updates[uuid] = span
		}
	}
	u.Traceparent = trace.Format(span.SpanContext())
}

func stateOf(s *mezzov1.TaskStatus) []attribute.KeyValue {
	list := []attribute.KeyValue{trace.State.String(s.GetState().String())}
	if s.Reason != nil {
		list = append(list, trace.Reason.String(s.GetReason().String()))
	}
	return list
}

// move ends the phase that a task is in, and begins the next, as its newest
// update says.
func (task *taskTrace) move(tracer *trace.Tracer, s *mezzov1.TaskStatus) {
	switch s.GetState() {
	case mezzov1.TaskState_TASK_STAGING, mezzov1.TaskState_TASK_STARTING, mezzov1.TaskState_TASK_KILLING:
		return
	case mezzov1.TaskState_TASK_RUNNING:
		if !task.running {
			task.phase.End()
			task.phase, task.running = tracer.Start(task.parent, "run task", time.Now(), task.about...), true
		}
		return
	}
	if task.over {
		return
	}
	task.over = true
	task.phase.SetAttributes(stateOf(s)...)
	if s.GetState() != mezzov1.TaskState_TASK_FINISHED && s.GetState() != mezzov1.TaskState_TASK_KILLED {
		task.phase.SetStatus(codes.Error, s.GetMessage())
	}
	task.phase.End()
}

// acknowledged ends the span of an update; with that of its end a task is
// forgotten.
func (t *traces) acknowledged(a *linkv1.Acknowledge) {
	ref := taskRef{a.GetTask().GetFrameworkId(), a.GetTask().GetTaskId()}
	uuid := string(a.GetUuid())
	t.mu.Lock()
	defer t.mu.Unlock()
	task := t.tasks[ref]
	if task == nil || task.updates[uuid] == nil {
		return
	}
	task.updates[uuid].End()
	delete(task.updates, uuid)
	if task.over && len(task.updates) == 0 {
		t.forget(ref, task)
	}
}

// forget forgets a task; its containers are forgotten when they are cleaned up.
// The lock is held.
func (t *traces) forget(ref taskRef, task *taskTrace) {
	delete(t.tasks, ref)
	for key, of := range t.executors {
		if of == task {
			delete(t.executors, key)
		}
	}
}

// end ends every span: the agent ends, and its tasks run on.
func (t *traces) end() {
	if t == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, task := range t.tasks {
		if !task.over {
			task.phase.AddEvent("the agent has stopped")
			task.phase.End()
		}
		for _, span := range task.updates {
			span.End()
		}
	}
	clear(t.tasks)
	clear(t.executors)
	clear(t.containers)
}

// within is a context of what is done with a container; its calls make spans.
func (t *traces) within(ctx context.Context, container string) context.Context {
	if t == nil {
		return ctx
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	task := t.containers[container]
	if task == nil {
		return ctx
	}
	return context.WithValue(ctx, scopeKey{}, &scope{tracer: t.tracer, parent: task.phase.SpanContext(), container: container})
}

// scope is where spans belong that are made on the way.
type scope struct {
	tracer    *trace.Tracer
	parent    oteltrace.SpanContext
	container string
}

type scopeKey struct{}

// span begins a span of what is done with a container, where that is traced. The
// context that it returns tells the called where it belongs; it is made of
// calling, and scope is looked for in ctx. End it with what came of it.
func span(ctx, calling context.Context, name, isolator string) (context.Context, func(error)) {
	s, _ := ctx.Value(scopeKey{}).(*scope)
	if s == nil {
		return calling, func(error) {}
	}
	about := []attribute.KeyValue{trace.Container.String(s.container)}
	if isolator != "" {
		about = append(about, trace.Plugin.String("isolator/"+isolator))
	}
	made := s.tracer.Start(s.parent, name, time.Now(), about...)
	return trace.Outgoing(calling, made.SpanContext()), func(err error) {
		if err != nil {
			made.SetStatus(codes.Error, reason(err))
		}
		made.End()
	}
}
