package sim

import (
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	agentstate "github.com/mezzo-os/mezzo/core/agent/state"
	isolatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/isolator/v1"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
	executorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1/executor"
	"github.com/mezzo-os/mezzo/sdk/resource"
)

// program is a custom executor: the process in a container, which runs its tasks
// within itself, outlives the agent, and keeps what the agent has not stored.
type program struct {
	c         *container
	framework string
	id        string
	token     string
	tasks     map[string]*container // that run in it; they are none of the isolators'
	unstored  []*mezzov1.TaskStatus
	unacked   []*mezzov1.TaskInfo
	stream    uint64 // 0: none
	up, down  *pipe  // of that stream
	ending    bool
	idle      int // rises with every task
}

// becomesProgram makes a container that of a custom executor.
func (c *container) becomesProgram(p *agentstate.Plan) {
	c.task.id = ""
	c.use = groupExecutor // its tasks count for themselves
	c.program = &program{c: c, framework: p.Task.GetFrameworkId(), id: p.Task.GetExecutorId(), tasks: map[string]*container{}}
	for _, v := range p.Environment {
		if v.Name == "MEZZO_EXECUTOR_TOKEN" {
			c.program.token = v.Value
		}
	}
}

// alive is whether its process runs.
func (p *program) alive() bool {
	return !p.c.gone && p.c.state == isolatorv1.Recovered_STATE_RUNNING
}

// connect has it subscribe, and again until the agent is there.
func (p *program) connect() {
	h := p.c.host
	h.w.after(h.w.between(10*time.Millisecond, time.Second), func() {
		if !p.alive() || p.stream != 0 {
			return
		}
		if h.alive() {
			p.subscribe()
		} else {
			p.connect()
		}
	})
}

func (p *program) subscribe() {
	h := p.c.host
	h.streams++
	stream, life := h.streams, h.life
	p.stream = stream
	p.up = &pipe{w: h.w, deliver: func(in any) {
		if h.life == life && h.alive() {
			h.step(in.(agentstate.Input))
		}
	}}
	p.down = &pipe{w: h.w, deliver: func(event any) {
		if e, over := event.(*executorv1.Event); p.alive() && p.stream == stream && over {
			p.hear(e)
		} else if p.stream == stream {
			p.hangUp()
		}
	}}
	h.w.note([]string{h.name, p.framework}, "%s: executor %s subscribes with %d tasks and %d updates", h.name, p.id, len(p.unacked), len(p.unstored))
	call := p.call(executorv1.Call_SUBSCRIBE)
	call.Subscribe = &executorv1.Call_Subscribe{UnacknowledgedTasks: slices.Clone(p.unacked)}
	for _, s := range p.unstored {
		call.Subscribe.UnacknowledgedUpdates = append(call.Subscribe.UnacknowledgedUpdates, &executorv1.Call_Update{Status: s})
	}
	p.up.send(agentstate.ExecutorSubscribe{Stream: stream, Call: call})
}

func (p *program) call(kind executorv1.Call_Type) *executorv1.Call {
	return &executorv1.Call{
		Token: proto.String(p.token), Type: kind.Enum(), FrameworkId: &mezzov1.FrameworkID{Value: proto.String(p.framework)}, ExecutorId: &mezzov1.ExecutorID{Value: proto.String(p.id)},
	}
}

// hangUp notes that the stream is no more.
func (p *program) hangUp() {
	if p.stream != 0 {
		p.stream = 0
		p.down.cut()
		p.connect()
	}
}

// programOf is the executor that has a stream, or nil.
func (h *host) programOf(stream uint64) *program {
	for _, c := range h.containers {
		if c.program != nil && c.program.stream == stream && c.program.alive() {
			return c.program
		}
	}
	return nil
}

// carryOutExecutor does what concerns custom executors.
func (h *host) carryOutExecutor(output agentstate.Output) bool {
	switch out := output.(type) {
	case agentstate.SendExecutor:
		if p := h.programOf(out.Stream); p != nil {
			p.down.send(out.Event)
		}
	case agentstate.CloseExecutor:
		if p := h.programOf(out.Stream); p != nil {
			p.down.send(closed{out.Reason})
		}
	case agentstate.RefuseExecutor:
		if p := h.programOf(out.Stream); p != nil { // nobody here knows it
			p.down.cut()
			p.c.end(&isolatorv1.ExitStatus{Code: 1, Known: true})
		}
	case agentstate.AnswerExecutor:
	default:
		return false
	}
	return true
}

func (p *program) hear(e *executorv1.Event) {
	switch e.GetType() {
	case executorv1.Event_LAUNCH:
		p.launch(e.GetLaunch().GetTask())
	case executorv1.Event_LAUNCH_GROUP:
		for _, t := range e.GetLaunchGroup().GetTaskGroup().GetTasks() {
			p.launch(t)
		}
	case executorv1.Event_KILL:
		grace := 2 * time.Second
		if g := e.GetKill().GetKillPolicy().GetGracePeriod(); g != nil {
			grace = time.Duration(g.GetNanoseconds())
		}
		p.kill(e.GetKill().GetTaskId().GetValue(), grace)
	case executorv1.Event_ACKNOWLEDGED:
		a := e.GetAcknowledged()
		p.unstored = slices.DeleteFunc(p.unstored, func(s *mezzov1.TaskStatus) bool { return string(s.GetUuid()) == string(a.GetUuid()) })
		p.unacked = slices.DeleteFunc(p.unacked, func(t *mezzov1.TaskInfo) bool { return t.GetTaskId().GetValue() == a.GetTaskId().GetValue() })
		p.mayEnd()
	case executorv1.Event_SHUTDOWN:
		p.ending = true
		for _, id := range sorted(p.tasks) {
			p.kill(id, 0)
		}
		p.mayEnd()
	}
}

// launch runs a task within the executor.
func (p *program) launch(t *mezzov1.TaskInfo) {
	h, w := p.c.host, p.c.host.w
	key := taskKey{p.framework, t.GetTaskId().GetValue()}
	use, err := resource.FromProto(t.GetResources())
	if err != nil {
		w.fail([]string{h.name, key.id}, "%s: task %s has resources that cannot be read: %v", h.name, key.id, err)
	}
	task := &container{host: h, id: "in " + p.c.id + " " + key.id, task: key, use: occupies(use), state: isolatorv1.Recovered_STATE_CREATED, within: p}
	h.give(task, agentstate.VolumesOf(t.GetResources()))
	p.tasks[key.id] = task
	p.unacked = append(p.unacked, t)
	p.idle++
	p.report(key.id, mezzov1.TaskState_TASK_RUNNING)
	task.begin()
	if !w.healed && w.chance(0.03) {
		w.after(w.between(0, 3*time.Second), func() { p.c.end(&isolatorv1.ExitStatus{Code: 9, Known: true}) })
	}
}

// kill ends a task, at the latest when its grace is over.
func (p *program) kill(id string, grace time.Duration) {
	task := p.tasks[id]
	if task == nil {
		return
	}
	w := p.c.host.w
	after := w.between(0, grace)
	if l := w.lives[task.task]; l != nil && l.stubborn {
		after = grace
	}
	w.after(after, func() { task.end(&isolatorv1.ExitStatus{Signal: 15, Known: true}) })
}

// ended reports the end of a task.
func (p *program) ended(task *container, exit *isolatorv1.ExitStatus) {
	delete(p.tasks, task.task.id)
	if !p.alive() {
		return
	}
	state := mezzov1.TaskState_TASK_FINISHED
	switch {
	case exit.GetSignal() == 15:
		state = mezzov1.TaskState_TASK_KILLED
	case exit.GetCode() != 0 || exit.GetSignal() != 0:
		state = mezzov1.TaskState_TASK_FAILED
	}
	p.report(task.task.id, state)
	p.leave()
}

// leave has an executor end that has had nothing to do for a while.
func (p *program) leave() {
	p.idle++
	idle, w := p.idle, p.c.host.w
	w.after(w.between(time.Second, 5*time.Second), func() {
		if p.idle == idle && len(p.tasks) == 0 && p.alive() {
			p.ending = true
			p.mayEnd()
		}
	})
}

// mayEnd ends an executor that is to end and has told everything.
func (p *program) mayEnd() {
	if p.ending && len(p.tasks) == 0 && len(p.unstored) == 0 {
		p.c.end(&isolatorv1.ExitStatus{Known: true})
	}
}

func (p *program) report(id string, state mezzov1.TaskState) {
	uuid := make([]byte, 16)
	for i := range uuid {
		uuid[i] = byte(p.c.host.w.rng.Uint32())
	}
	uuid[6], uuid[8] = uuid[6]&0x0f|0x40, uuid[8]&0x3f|0x80
	s := &mezzov1.TaskStatus{
		TaskId: &mezzov1.TaskID{Value: proto.String(id)}, State: state.Enum(), Source: mezzov1.TaskStatus_SOURCE_EXECUTOR.Enum(), Uuid: uuid,
	}
	p.unstored = append(p.unstored, s)
	if p.stream != 0 {
		call := p.call(executorv1.Call_UPDATE)
		call.Update = &executorv1.Call_Update{Status: s}
		p.up.send(agentstate.ExecutorCall{Call: call})
	}
}

// exits ends all that ran in an executor whose process has ended.
func (p *program) exits() {
	if h := p.c.host; p.stream != 0 {
		p.up.send(agentstate.ExecutorClosed{Stream: p.stream})
		p.stream = 0
		h.w.note([]string{h.name, p.framework}, "%s: executor %s has ended with %d tasks", h.name, p.id, len(p.tasks))
	}
	for _, id := range sorted(p.tasks) {
		p.tasks[id].gone = true
		delete(p.tasks, id)
	}
}

// running are all tasks that run on a host, those within executors too.
func (h *host) running() []*container {
	var list []*container
	for _, id := range sorted(h.containers) {
		c := h.containers[id]
		if c.running() {
			list = append(list, c)
		}
		if c.program != nil && c.program.alive() {
			for _, task := range sorted(c.program.tasks) {
				if t := c.program.tasks[task]; t.running() {
					list = append(list, t)
				}
			}
		}
	}
	return list
}
