package state

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	isolatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/isolator/v1"
	linkv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/link/v1"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
	executorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1/executor"
)

// program is what there is of an executor beyond the rest when it is a custom
// one: a process of the framework's own, in the executor's root container,
// which runs the executor's tasks and reports of them. Its life:
//
//	launched       the first tasks wait
//	subscribed     tasks are delivered as LAUNCH; from then on it reports
//	disconnected   it subscribes again; what it is to hear waits
//	stopping       SHUTDOWN was sent; it is killed when its grace has passed
//	exited         what it had not reported an end of has ended with it
type program struct {
	stream  uint64 // its subscription; 0: none now
	adapter string // that it came through last; checkpointed
	// known: it has subscribed once; checkpointed. joined: since this process of
	// the agent began.
	known, joined bool
	used          bool // it was sent a task once; checkpointed
	token         bool // it was given one; checkpointed
	// subscribeBy is when it must have subscribed; zero: it is not awaited.
	subscribeBy time.Time
	// stopBy is when it is killed, since it was asked to end; zero: it was not.
	// Checkpointed.
	stopBy    time.Time
	stopAsked time.Time // when that was set, on the same clock
	// escalateBy is when a task must have ended whose end cannot be left to it.
	escalateBy time.Time
	killed     bool // SIGKILL is on its way
	exited     bool // its process has ended
	end        *end // why the agent killed it; checkpointed
	// mounted are the volumes that its container was launched with, by path; the
	// zero place: one that is no more. Checkpointed.
	mounted map[string]VolumePlace
	queue   []*launch // ready to be delivered
}

// end is why the agent ended an executor, as its tasks' statuses say it.
type end struct {
	State   mezzov1.TaskState         `json:"state"`
	Reason  mezzov1.TaskStatus_Reason `json:"reason"`
	Message string                    `json:"message"`
}

// due is when something has to be done about it; zero: never.
func (p *program) due() time.Time {
	if p.killed {
		return time.Time{}
	}
	var first time.Time
	for _, t := range []time.Time{p.subscribeBy, p.stopBy, p.escalateBy} {
		if !t.IsZero() && (first.IsZero() || t.Before(first)) {
			first = t
		}
	}
	return first
}

// lives is whether the executor's process is there, or may be.
func (p *program) lives(e *executor) bool {
	return p != nil && !p.exited && e.root != nil && e.root.phase >= running && e.root.phase < cleaning
}

func (p *program) stopping() bool { return !p.stopBy.IsZero() }

// custom is whether an executor is a program of the framework's own.
func custom(info *mezzov1.ExecutorInfo) bool {
	return info != nil && info.GetType() != mezzov1.ExecutorInfo_DEFAULT
}

func (m *Machine) sortedExecutors() []*executor {
	list := make([]*executor, 0, len(m.executors))
	for _, e := range m.executors {
		list = append(list, e)
	}
	slices.SortFunc(list, func(a, b *executor) int { return cmp.Compare(a.run, b.run) })
	return list
}

// launchCustom gives tasks to a custom executor, which is launched if need be.
// Tasks of a group are delivered together, others each for itself.
func (m *Machine) launchCustom(f *framework, r *linkv1.Run) {
	id := r.GetExecutor().GetExecutorId().GetValue()
	e := m.live[executorKey{f.id, id}]
	isNew := e == nil || e.program == nil
	if isNew {
		e = m.newExecutor(f, id, r.GetExecutor())
		e.program = &program{token: true}
		e.role = roleOf(r.GetExecutor().GetResources())
		m.newContainer(e.run, e, nil, nil)
	}
	var list []*task
	for _, info := range r.GetTasks() {
		t := m.newTask(f, info, e)
		t.container, t.sandbox = e.root.id, e.root.sandbox
		if e.role == "" {
			e.role = t.role
		}
		list = append(list, t)
	}
	if r.GetGroup() {
		for _, t := range list {
			t.group = list[0].key.id
		}
	}
	m.queue(e, list)
	if isNew {
		// Of the launch itself nothing is known but that the root is to be claimed.
		l := m.newLaunch(e)
		l.newRoot, e.root.launch = true, l
		m.claim(l)
		return
	}
	if e.root.phase != claiming { // otherwise all is written when it has been claimed
		m.noteProgram(e)
	}
	m.resize(e)
}

// queue makes launches of tasks that wait for their executor.
func (m *Machine) queue(e *executor, tasks []*task) {
	var group *launch
	for _, t := range tasks {
		l := group
		if l == nil || t.group == "" || l.tasks[0].group != t.group {
			l = m.newLaunch(e)
			l.phase = waitingForRoot
			e.waiting = append(e.waiting, l)
		}
		if t.group != "" {
			group = l
		}
		l.tasks = append(l.tasks, t)
		t.launch = l
	}
}

// noteProgram has an executor and its tasks written.
func (m *Machine) noteProgram(e *executor) {
	m.noteFramework(e.framework)
	m.touch(e)
	for _, t := range e.tasks {
		if !t.known {
			m.touch(t)
		}
	}
}

// programRuns goes on with a custom executor whose process was let go, or was
// found running.
func (m *Machine) programRuns(e *executor) {
	c, p := e.root, e.program
	m.wait(c)
	switch {
	case p.end != nil || c.limitation != nil:
		m.killProgram(e)
	case p.stopping():
		m.arm(e)
	default:
		m.await(e)
		m.escalate(e)
	}
	covered := e.covered
	e.covered = nil
	for _, l := range covered {
		m.ready(l)
	}
	if len(e.waiting) > 0 || e.stale {
		m.resize(e)
	}
}

// ready notes that a launch's tasks have what they may use.
func (m *Machine) ready(l *launch) {
	l.executor.program.queue = append(l.executor.program.queue, l)
	m.deliver(l.executor)
}

// deliver sends the executor the tasks that wait for it. That they were sent is
// durable before they are: so a task which the executor does not know after a
// restart of the agent, and which was not noted, can be sent safely.
func (m *Machine) deliver(e *executor) {
	p := e.program
	if p.stream == 0 || p.stopping() || p.end != nil {
		return
	}
	queue := p.queue
	p.queue = nil
	for _, l := range queue {
		delete(m.launches, l.id)
		group := &mezzov1.TaskGroupInfo{}
		for _, t := range l.tasks {
			t.launch, t.delivered = nil, true
			m.touch(t)
			group.Tasks = append(group.Tasks, t.info)
		}
		if !p.used {
			p.used = true
			m.touch(e)
		}
		if l.tasks[0].group != "" {
			m.event(e, &executorv1.Event{Type: executorv1.Event_LAUNCH_GROUP.Enum(), LaunchGroup: &executorv1.Event_LaunchGroup{TaskGroup: group}})
			continue
		}
		m.event(e, &executorv1.Event{Type: executorv1.Event_LAUNCH.Enum(), Launch: &executorv1.Event_Launch{Task: group.Tasks[0]}})
	}
}

// event sends an event, if the executor is subscribed; what it must not miss it
// is sent again when it subscribes.
func (m *Machine) event(e *executor, event *executorv1.Event) {
	if p := e.program; p.stream != 0 {
		m.effect(SendExecutor{Stream: p.stream, Event: event})
	}
}

// resize has the root container given what the executor and its tasks may use
// now. One change is under way at a time.
func (m *Machine) resize(e *executor) {
	if e.root == nil || e.root.phase != running || e.program != nil && e.program.exited {
		return // rootRuns does it, if it comes to that
	}
	if e.updating {
		e.stale = true
		return
	}
	e.updating, e.stale = true, false
	e.covered, e.waiting = append(e.covered, e.waiting...), nil
	m.effect(Update{Plan: m.plan(e.root)})
}

// updated goes on with the launches that needed more than the root had.
func (m *Machine) updated(in Updated) {
	c := m.containers[in.Container]
	if c == nil || c.task != nil || c.phase != running || !c.executor.updating {
		return
	}
	e := c.executor
	e.updating = false
	covered := e.covered
	e.covered = nil
	if in.Err != "" && len(covered) == 0 {
		m.log(Warn, "a container was not given less, though a task in it has ended", "container_id", c.id, "reason", in.Err)
	}
	for _, l := range covered {
		switch {
		case in.Err != "" && e.program != nil:
			m.failUpdate(l, in.Err)
		case in.Err != "":
			m.failLaunch(l, c, in.Err)
		case e.program != nil:
			m.ready(l)
		default:
			m.create(l)
		}
	}
	if e.stale || len(e.waiting) > 0 {
		m.resize(e)
	}
}

// failUpdate ends a launch for which the executor's container could not be given
// more. What runs in it goes on.
func (m *Machine) failUpdate(l *launch, message string) {
	m.endLaunch(l, func(t *task) *mezzov1.TaskStatus {
		s := m.newStatus(t, lost(t.framework, mezzov1.TaskState_TASK_GONE), fromAgent)
		return because(s, mezzov1.TaskStatus_REASON_CONTAINER_UPDATE_FAILED, "the executor's container could not be given what the task needs: "+message)
	})
}

// killTask asks a custom executor to end a task.
func (m *Machine) killDelivered(t *task, grace time.Duration, why cause, message string) {
	deadline := m.now.Add(grace)
	if t.kill == nil {
		t.kill = &kill{why: why, message: message, deadline: deadline, asked: m.now}
		m.touch(t)
	} else if deadline.Before(t.kill.deadline) {
		t.kill.deadline, t.kill.asked = deadline, m.now
		m.touch(t)
	}
	var end time.Time
	switch why {
	case byRevoke:
		end = deadline
	case byDrain, byDrainGone:
		end = deadline.Add(m.stopGrace(t.executor))
	}
	if k := t.kill; !end.IsZero() && (k.escalate.IsZero() || end.Before(k.escalate)) {
		k.escalate, k.asked = end, m.now
		m.touch(t)
	}
	if why == byShutdown {
		return // the executor is asked to end with all its tasks
	}
	if t.executor.program.stopping() {
		return
	}
	m.sendKill(t)
	m.escalate(t.executor)
}

// sendKill tells the executor how long the task still has. It is told less than
// there is where the agent sees to the end itself.
func (m *Machine) sendKill(t *task) {
	k := &executorv1.Event_Kill{TaskId: t.info.GetTaskId()}
	grace := max(0, t.kill.deadline.Sub(m.now))
	if t.kill.why == byRevoke {
		grace = max(grace/2, grace-time.Second)
	}
	if grace != m.grace(t, nil) {
		n := int64(grace)
		k.KillPolicy = &mezzov1.KillPolicy{GracePeriod: &mezzov1.DurationInfo{Nanoseconds: &n}}
	}
	m.event(t.executor, &executorv1.Event{Type: executorv1.Event_KILL.Enum(), Kill: k})
}

// escalate sets when the executor's container is killed because of a task: a
// revoked one takes its executor with it when its time is over, since its
// resources are promised; one on a draining agent somewhat later. The
// framework's own kills are its executor's affair.
func (m *Machine) escalate(e *executor) {
	e.program.escalateBy = time.Time{}
	for _, t := range e.tasks {
		if t.kill == nil || t.kill.escalate.IsZero() {
			continue
		}
		if at := t.kill.escalate; e.program.escalateBy.IsZero() || at.Before(e.program.escalateBy) {
			e.program.escalateBy = at
		}
	}
	m.arm(e)
}

// await sets when a custom executor must have subscribed. It has its time only
// while what it subscribes through serves.
func (m *Machine) await(e *executor) {
	p := e.program
	p.subscribeBy = time.Time{}
	if p.stream != 0 || e.root == nil || e.root.phase != running {
		return
	}
	limit := m.cfg.ExecutorRegistrationTimeout
	switch {
	case p.joined:
		limit = m.cfg.RecoveryTimeout
	case p.known:
		limit = m.cfg.ExecutorReregistrationTimeout
	}
	if !m.reachable(p) {
		limit = max(limit, adapterPatience)
	}
	p.subscribeBy = m.now.Add(limit)
	m.arm(e)
}

// adapterPatience is how much longer an executor has while an adapter is down.
const adapterPatience = 10 * time.Minute

// reachable is whether an executor could subscribe now.
func (m *Machine) reachable(p *program) bool {
	for name, a := range m.adapters {
		if !a.serves && (!p.known || name == p.adapter) {
			return false
		}
	}
	return true
}

// arm has the timers know when something is due.
func (m *Machine) arm(e *executor) {
	if at := e.program.due(); !at.IsZero() {
		m.timers.add(timer{at: at, executor: e})
	}
}

// programDue does what is due for a custom executor.
func (m *Machine) programDue(e *executor) {
	p := e.program
	passed := func(t time.Time) bool { return !t.IsZero() && !t.After(m.now) }
	switch {
	case passed(p.stopBy):
		m.killProgram(e)
	case passed(p.escalateBy):
		m.destroy(e, end{mezzov1.TaskState_TASK_FAILED, mezzov1.TaskStatus_REASON_EXECUTOR_TERMINATED,
			"The executor was ended because it did not end a task of its in time"})
	case passed(p.subscribeBy) && p.known:
		m.destroy(e, end{lost(e.framework, mezzov1.TaskState_TASK_GONE), mezzov1.TaskStatus_REASON_EXECUTOR_REREGISTRATION_TIMEOUT,
			"The executor did not subscribe again in time"})
	case passed(p.subscribeBy):
		m.destroy(e, end{mezzov1.TaskState_TASK_FAILED, mezzov1.TaskStatus_REASON_EXECUTOR_REGISTRATION_TIMEOUT,
			fmt.Sprintf("The executor did not subscribe within %v", m.cfg.ExecutorRegistrationTimeout)})
	}
}

// destroy kills a custom executor, for a reason that its tasks' statuses name.
func (m *Machine) destroy(e *executor, why end) {
	m.log(Warn, "killing an executor", "framework_id", e.framework.id, "executor_id", e.id, "reason", why.Message)
	e.program.end = &why
	m.touch(e)
	m.killProgram(e)
}

func (m *Machine) killProgram(e *executor) {
	e.program.killed = true
	if e.root != nil && e.root.phase == running {
		m.effect(Kill{Container: e.root.id, Launcher: Launcher(e.root.chain), Signal: sigkill})
	}
}

// stopGrace is how long a custom executor has to end when it was asked to.
func (m *Machine) stopGrace(e *executor) time.Duration {
	if g := e.info.GetShutdownGracePeriod(); g != nil {
		return max(0, time.Duration(g.GetNanoseconds()))
	}
	return m.cfg.ExecutorShutdownGrace
}

// stop asks a custom executor to end, with its tasks.
func (m *Machine) stop(e *executor) {
	p := e.program
	if p.stopping() || e.root == nil || e.root.phase == cleaning {
		return
	}
	p.stopBy, p.stopAsked = m.now.Add(m.stopGrace(e)), m.now
	p.subscribeBy = time.Time{}
	if e.root.phase != claiming {
		m.touch(e)
	}
	switch e.root.phase {
	case claiming, launching, created, starting:
		// It has not begun: its tasks have not either.
		m.abandon(e)
		return
	case running:
		if p.stream == 0 && !p.known {
			// It may not understand anything else yet.
			m.effect(Kill{Container: e.root.id, Launcher: Launcher(e.root.chain), Grace: m.stopGrace(e)})
		}
	}
	m.event(e, &executorv1.Event{Type: executorv1.Event_SHUTDOWN.Enum()})
	m.arm(e)
}

// abandon ends the launches that count on an executor which is not to begin.
func (m *Machine) abandon(e *executor) {
	for _, l := range m.launchesOf(e) {
		if len(l.tasks) > 0 && l.phase != aborted {
			m.abort(l, l.tasks[0], byShutdown, "The executor was shut down")
		}
	}
	m.retireExecutor(e)
}

// retireProgram lets a custom executor go that has no task: it lives on, unless
// it never got one, or nothing is to run here any more.
func (m *Machine) retireProgram(e *executor) {
	if len(e.tasks) > 0 {
		return
	}
	switch root := e.root; {
	case root == nil:
		m.unlist(e)
		m.forgetExecutor(e)
	case root.phase == cleaning, e.program.exited:
	case root.phase <= starting:
		if root.launch != nil {
			delete(m.launches, root.launch.id)
		}
		m.unlist(e)
		m.tellExited(e, &isolatorv1.ExitStatus{}) // a registration may have named it
		m.cleanup(root)
	case !e.program.used || m.draining != nil || m.ending != nil || e.framework.terminating:
		m.stop(e)
	default:
		m.resize(e)
	}
}

// unlist has an executor take no more tasks. Another may have its name already.
func (m *Machine) unlist(e *executor) {
	if key := (executorKey{e.framework.id, e.id}); m.live[key] == e {
		delete(m.live, key)
	}
}

// programExited ends what a custom executor had not reported an end of.
func (m *Machine) programExited(e *executor, exit *isolatorv1.ExitStatus) {
	m.dropLaunches(e)
	m.unlist(e)
	root := e.root
	e.program.exited = true
	for _, t := range slices.Clone(e.tasks) {
		m.finishTask(t, m.fallen(t, e, exit))
	}
	m.tellExited(e, exit)
	m.hangUp(e, "the executor has exited")
	m.cleanup(root)
}

// dropLaunches forgets the launches of an executor; their tasks are ended by
// the caller.
func (m *Machine) dropLaunches(e *executor) {
	for _, l := range m.launchesOf(e) {
		l.phase = aborted
		delete(m.launches, l.id)
		for _, t := range l.tasks {
			t.launch = nil
		}
	}
	e.waiting, e.covered, e.program.queue = nil, nil, nil
}

// fallen is the last status of a task whose executor ended without giving it
// one.
func (m *Machine) fallen(t *task, e *executor, exit *isolatorv1.ExitStatus) *mezzov1.TaskStatus {
	ended := m.endedHow("Executor", exit)
	s := m.newStatus(t, mezzov1.TaskState_TASK_FAILED, fromAgent)
	limitation := exit.GetLimitation()
	if limitation == nil {
		limitation = e.root.limitation
	}
	switch end := e.program.end; {
	case limitation != nil:
		return m.limitationStatus(s, limitation)
	case t.kill != nil && t.kill.why != byFramework:
		return m.killedStatus(t, s, ended)
	case end != nil:
		s.State = end.State.Enum()
		return because(s, end.Reason, end.Message)
	default:
		return because(s, mezzov1.TaskStatus_REASON_EXECUTOR_TERMINATED, ended)
	}
}

// tellExited tells the master that an executor is no more. The registration that
// is under way may have named it.
func (m *Machine) tellExited(e *executor, exit *isolatorv1.ExitStatus) {
	x := &linkv1.ExecutorExited{FrameworkId: e.framework.id, ExecutorId: e.id, Status: waitStatus(exit)}
	switch m.link.state {
	case registered:
		m.sendMaster(&linkv1.AgentMessage{Message: &linkv1.AgentMessage_ExecutorExited{ExecutorExited: x}})
	case registering:
		m.link.exits = append(m.link.exits, x)
	}
}

// tellGroupsEnded tells the master that an executor of task groups ends, since it
// has no more tasks. It is no process: it has ended well when its container ran
// and did not exceed what it may use.
func (m *Machine) tellGroupsEnded(e *executor) {
	if e.info == nil || e.program != nil || len(e.tasks) > 0 {
		return
	}
	exit := &isolatorv1.ExitStatus{}
	if root := e.root; root != nil && root.phase == running && !root.lost {
		exit.Known = true
		if root.limitation != nil {
			exit.Signal = sigkill
		}
	}
	m.tellExited(e, exit)
}

// waitStatus is how a process ended in the form of wait(2), which is what
// schedulers expect; -1: nobody knows.
func waitStatus(exit *isolatorv1.ExitStatus) int32 {
	switch {
	case !exit.GetKnown():
		return -1
	case exit.GetSignal() != 0 && exit.GetCoreDumped():
		return exit.GetSignal() | 0x80
	case exit.GetSignal() != 0:
		return exit.GetSignal()
	}
	return exit.GetCode() << 8
}

// hangUp closes an executor's stream.
func (m *Machine) hangUp(e *executor, reason string) {
	if p := e.program; p.stream != 0 {
		m.effect(CloseExecutor{Stream: p.stream, Reason: reason})
		delete(m.streams, p.stream)
		p.stream = 0
	}
}

// launchesOf are the launches of an executor, oldest first.
func (m *Machine) launchesOf(e *executor) []*launch {
	var list []*launch
	for _, l := range m.launches {
		if l.executor == e {
			list = append(list, l)
		}
	}
	slices.SortFunc(list, func(a, b *launch) int { return cmp.Compare(a.id, b.id) })
	return list
}

// requeue makes launches again of what was not delivered when the agent ended.
func (m *Machine) requeue(e *executor) {
	var list []*task
	for _, t := range e.tasks {
		if !t.ended() && !t.delivered {
			list = append(list, t)
		}
	}
	slices.SortStableFunc(list, func(a, b *task) int {
		if c := a.launched.Compare(b.launched); c != 0 {
			return c
		}
		return cmp.Compare(a.group, b.group)
	})
	m.queue(e, list)
}
