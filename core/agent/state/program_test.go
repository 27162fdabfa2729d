package state_test

import (
	"fmt"
	"maps"
	"slices"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/mezzo-os/mezzo/core/agent/state"
	isolatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/isolator/v1"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
	executorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1/executor"
)

// programs are the custom executors that run, by their container. They outlive
// the agent, and keep what it has not stored.
type programs struct {
	w       *world
	running map[string]*program
	stream  uint64
	uuid    int
}

type program struct {
	id       string
	token    string
	stream   uint64
	tasks    map[string]mezzov1.TaskState
	unstored []*mezzov1.TaskStatus
	unacked  []*mezzov1.TaskInfo
	ending   bool
}

func newPrograms(w *world) {
	w.programs = &programs{w: w, running: map[string]*program{}}
}

// hear takes what the machine has asked for.
func (p *programs) hear(o state.Output) {
	switch o := o.(type) {
	case state.Launch:
		if t := o.Plan.Task; t.GetTaskId() == "" && !t.GetSandboxOnly() {
			p.running[o.Plan.Container] = &program{id: t.GetExecutorId(), token: tokenIn(o.Plan), tasks: map[string]mezzov1.TaskState{}}
		}
	case state.SendExecutor:
		if x := p.of(o.Stream); x != nil {
			p.event(x, o.Event)
		}
	case state.CloseExecutor:
		if x := p.of(o.Stream); x != nil {
			x.stream = 0
		}
	case state.RefuseExecutor:
		if x := p.of(o.Stream); x != nil {
			x.stream = 0
		}
	}
}

// tokenIn is the token that an executor is launched with.
func tokenIn(p *state.Plan) string {
	for _, v := range p.Environment {
		if v.Name == "MEZZO_EXECUTOR_TOKEN" {
			return v.Value
		}
	}
	return ""
}

func (p *programs) of(stream uint64) *program {
	for _, x := range p.running {
		if x.stream == stream {
			return x
		}
	}
	return nil
}

func (p *programs) event(x *program, e *executorv1.Event) {
	switch e.GetType() {
	case executorv1.Event_LAUNCH:
		p.launch(x, e.GetLaunch().GetTask())
	case executorv1.Event_LAUNCH_GROUP:
		for _, t := range e.GetLaunchGroup().GetTaskGroup().GetTasks() {
			p.launch(x, t)
		}
	case executorv1.Event_KILL:
		p.report(x, e.GetKill().GetTaskId().GetValue(), mezzov1.TaskState_TASK_KILLED)
	case executorv1.Event_ACKNOWLEDGED:
		a := e.GetAcknowledged()
		x.unstored = slices.DeleteFunc(x.unstored, func(s *mezzov1.TaskStatus) bool { return string(s.GetUuid()) == string(a.GetUuid()) })
		x.unacked = slices.DeleteFunc(x.unacked, func(t *mezzov1.TaskInfo) bool { return t.GetTaskId().GetValue() == a.GetTaskId().GetValue() })
	case executorv1.Event_SHUTDOWN:
		x.ending = true
		for _, id := range slices.Sorted(maps.Keys(x.tasks)) {
			p.report(x, id, mezzov1.TaskState_TASK_KILLED)
		}
	}
}

func (p *programs) launch(x *program, t *mezzov1.TaskInfo) {
	id := t.GetTaskId().GetValue()
	if _, twice := x.tasks[id]; twice {
		panic("task " + id + " was sent to its executor twice")
	}
	x.tasks[id] = mezzov1.TaskState_TASK_STAGING
	x.unacked = append(x.unacked, t)
}

// report sends a status of a task that the executor has and that has not ended.
func (p *programs) report(x *program, id string, to mezzov1.TaskState) {
	if now, known := x.tasks[id]; !known || final(now) {
		return
	}
	x.tasks[id] = to
	p.uuid++
	s := executorStatus(id, to, fmt.Sprint(p.uuid))
	x.unstored = append(x.unstored, s)
	if x.stream != 0 {
		call := executorCall("F1", x.id, executorv1.Call_UPDATE)
		call.Update, call.Token = &executorv1.Call_Update{Status: s}, proto.String(x.token)
		p.w.answer(state.ExecutorCall{Call: call})
	}
}

func (p *programs) subscribe(x *program) {
	p.stream++
	x.stream = p.stream
	call := executorCall("F1", x.id, executorv1.Call_SUBSCRIBE)
	call.Subscribe, call.Token = &executorv1.Call_Subscribe{UnacknowledgedTasks: slices.Clone(x.unacked)}, proto.String(x.token)
	for _, s := range x.unstored {
		call.Subscribe.UnacknowledgedUpdates = append(call.Subscribe.UnacknowledgedUpdates, &executorv1.Call_Update{Status: s})
	}
	p.w.answer(state.ExecutorSubscribe{Stream: x.stream, Call: call})
}

// list are those whose process runs, in order of their containers.
func (p *programs) list() []*program {
	var list []*program
	for _, id := range slices.Sorted(maps.Keys(p.running)) {
		if c := p.w.containers[id]; c == nil || c.state == isolatorv1.Recovered_STATE_EXITED {
			delete(p.running, id)
		} else if c.state == isolatorv1.Recovered_STATE_RUNNING {
			list = append(list, p.running[id])
		}
	}
	return list
}

// act has one executor do something.
func (p *programs) act(t *rapid.T) {
	list := p.list()
	if len(list) == 0 {
		return
	}
	x := list[rapid.IntRange(0, len(list)-1).Draw(t, "executor")]
	switch rapid.IntRange(0, 5).Draw(t, "program") {
	case 0, 1:
		if x.stream == 0 || rapid.IntRange(0, 5).Draw(t, "anew") == 0 {
			p.subscribe(x)
		}
	case 2:
		if x.stream != 0 {
			p.w.answer(state.ExecutorClosed{Stream: x.stream})
			x.stream = 0
		}
	default:
		ids := slices.Sorted(maps.Keys(x.tasks))
		if len(ids) == 0 {
			return
		}
		states := []mezzov1.TaskState{mezzov1.TaskState_TASK_STARTING, mezzov1.TaskState_TASK_RUNNING, mezzov1.TaskState_TASK_FINISHED, mezzov1.TaskState_TASK_FAILED}
		p.report(x, ids[rapid.IntRange(0, len(ids)-1).Draw(t, "task")], rapid.SampledFrom(states).Draw(t, "state"))
	}
}

// calm has every executor subscribe, and end if it was asked to.
func (p *programs) calm() {
	for _, x := range p.list() {
		if x.stream == 0 {
			p.subscribe(x)
		}
	}
}

// end has executors end that were asked to and have told everything.
func (p *programs) end() {
	for _, id := range slices.Sorted(maps.Keys(p.running)) {
		if x := p.running[id]; x.ending && len(x.unstored) == 0 {
			p.w.ends(id, exitCode(0))
		}
	}
}

// has is whether a running executor has a task that has not ended.
func (p *programs) has(id string) bool {
	for _, x := range p.list() {
		if now, known := x.tasks[id]; known && !final(now) {
			return true
		}
	}
	return false
}

func (p *programs) describe() (text string) {
	for _, id := range slices.Sorted(maps.Keys(p.running)) {
		x := p.running[id]
		text += fmt.Sprintf("executor %s in %s: stream %d, ending %v, tasks %v, %d not stored, %+v\n", x.id, id, x.stream, x.ending, x.tasks, len(x.unstored), p.w.containers[id])
	}
	return text
}
