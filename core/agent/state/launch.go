package state

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	isolatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/isolator/v1"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
)

// launch is tasks that are launched whole or not at all. It lives in memory
// only: after a restart what became of it is read from its containers.
type launch struct {
	id       uint64
	executor *executor
	newRoot  bool
	tasks    []*task
	phase    launchPhase
	created  int
}

type launchPhase int

const (
	claimingTasks launchPhase = iota
	waitingForRoot
	creatingTasks
	startingTasks // from here on each task is for itself
	aborted
)

// containers are those that the launch makes, the root first.
func (m *Machine) containersOf(l *launch) []*container {
	var list []*container
	if l.newRoot {
		list = append(list, l.executor.root)
	}
	if l.executor.program != nil {
		return list // its tasks have none of their own
	}
	for _, t := range l.tasks {
		list = append(list, m.containers[t.container])
	}
	return list
}

func (m *Machine) claim(l *launch) {
	var plans []*Plan
	for _, c := range m.containersOf(l) {
		plans = append(plans, m.plan(c))
	}
	// To claim has no effect, so it need not wait.
	m.immediate = append(m.immediate, ClaimContainers{Launch: l.id, Containers: plans})
}

// plan is what the shell is told of a container.
func (m *Machine) plan(c *container) *Plan {
	p := &Plan{
		Container: c.id, Parent: c.parent(), Chain: slices.Clone(c.chain), Sandbox: c.sandbox, Latest: c.latest, AgentID: m.id,
		Task: m.isolatorTask(c), Volumes: m.volumesOf(c),
	}
	if c.task != nil && c.executor.root != nil {
		p.ParentVolumes = VolumesOf(c.executor.info.GetResources())
	}
	p.Environment = optionEnvironment(p.Task)
	switch {
	case c.task == nil && c.executor.program != nil:
		p.Command = c.executor.info.GetCommand()
		p.Environment = slices.Concat(p.Environment, m.environment(c.executor), m.tokenVariables(c.executor))
	case c.task != nil:
		p.Command = c.task.info.GetCommand()
		if most := c.task.info.GetMaxCompletionTime(); most != nil {
			p.Deadline = m.now.Add(time.Duration(most.GetNanoseconds()))
		}
	}
	return p
}

// claimed chooses each container's chain and launcher. A nested container goes
// to its parent's launcher when that one would have it.
func (m *Machine) claimed(in Claimed) {
	l := m.launches[in.Launch]
	if l == nil || l.phase != claimingTasks {
		return
	}
	list := m.containersOf(l)
	if in.Err == "" && len(in.Claims) != len(list) {
		in.Err = fmt.Sprintf("the isolators answered for %d of %d containers", len(in.Claims), len(list))
	}
	if in.Invalid {
		m.refuseClaim(l, in.Err)
		return
	}
	if in.Err != "" {
		m.failClaim(l, nil, in.Err)
		return
	}
	all := launchesAll(in.Claims)
	for i, c := range list {
		prefer := all
		if c.task != nil && c.executor.root != nil {
			prefer = Launcher(c.executor.root.chain)
		}
		if c.chain = chainOf(in.Claims[i], prefer); Launcher(c.chain) == "" {
			m.failClaim(l, c, "no isolator launches the container: "+refusals(in.Claims[i]))
			return
		}
	}
	for _, c := range list {
		c.phase = launching
		m.touch(c)
	}
	for _, t := range l.tasks {
		m.touch(t)
	}
	m.touch(l.executor)
	m.noteFramework(l.executor.framework)
	switch {
	case l.executor.program != nil:
		m.launchProgram(l)
	case l.newRoot:
		l.phase = waitingForRoot
		m.effect(Launch{Plan: m.plan(l.executor.root)})
	case l.executor.root == nil:
		m.create(l)
	default:
		l.phase = waitingForRoot
		l.executor.waiting = append(l.executor.waiting, l)
		m.resize(l.executor)
	}
}

// failClaim ends a launch whose containers nobody takes.
func (m *Machine) failClaim(l *launch, failed *container, message string) {
	m.counts.LaunchFailures++
	if l.executor.program != nil {
		m.failLaunches(l.executor.root, message)
		m.retireExecutor(l.executor)
		return
	}
	m.failLaunch(l, failed, message)
}

// refuseClaim ends a launch that asks for what there is not.
func (m *Machine) refuseClaim(l *launch, message string) {
	list := []*launch{l}
	if l.executor.program != nil {
		list = m.launchesOf(l.executor)
	}
	for _, l := range list {
		if l.phase == aborted {
			continue
		}
		m.endLaunch(l, func(t *task) *mezzov1.TaskStatus {
			reason := mezzov1.TaskStatus_REASON_TASK_INVALID
			if t.group != "" {
				reason = mezzov1.TaskStatus_REASON_TASK_GROUP_INVALID
			}
			return because(m.newStatus(t, mezzov1.TaskState_TASK_ERROR, fromAgent), reason, message)
		})
	}
	m.retireExecutor(l.executor)
}

// launchProgram launches a custom executor. Its container is made for the tasks
// that wait now.
func (m *Machine) launchProgram(l *launch) {
	e := l.executor
	delete(m.launches, l.id)
	e.root.launch = nil
	m.noteMounted(e)
	m.noteProgram(e)
	e.covered, e.waiting = e.waiting, nil
	m.effect(Launch{Plan: m.plan(e.root)})
}

// launchesAll is the first isolator that would launch every container of a
// launch: those of a task group, and their root, are to be one isolator's.
func launchesAll(claims [][]Claim) string {
	if len(claims) == 0 {
		return ""
	}
	for _, first := range claims[0] {
		if !slices.ContainsFunc(claims, func(list []Claim) bool {
			return !slices.ContainsFunc(list, func(c Claim) bool {
				return c.Isolator == first.Isolator && c.Claim == isolatorv1.ClaimResponse_CLAIM_LAUNCH
			})
		}) {
			return first.Isolator
		}
	}
	return ""
}

// chainOf is who takes part, with one launcher.
func chainOf(claims []Claim, prefer string) []Link {
	launcher := ""
	for _, c := range claims {
		if c.Claim == isolatorv1.ClaimResponse_CLAIM_LAUNCH && (launcher == "" || c.Isolator == prefer) {
			launcher = c.Isolator
		}
	}
	var chain []Link
	for _, c := range claims {
		switch {
		case c.Isolator == launcher:
			chain = append(chain, Link{Isolator: c.Isolator, Launcher: true})
		case c.Claim == isolatorv1.ClaimResponse_CLAIM_AMEND:
			chain = append(chain, Link{Isolator: c.Isolator})
		}
	}
	return chain
}

func refusals(claims []Claim) string {
	var list []string
	for _, c := range claims {
		reason := c.Reason
		if reason == "" {
			reason = "gives no reason"
		}
		list = append(list, c.Isolator+": "+reason)
	}
	return strings.Join(list, "; ")
}

// create makes the containers of a launch's tasks.
func (m *Machine) create(l *launch) {
	l.phase = creatingTasks
	for _, t := range l.tasks {
		m.effect(Launch{Plan: m.plan(m.containers[t.container])})
	}
}

// progress tells the framework what a launch is at. A sentence that would have
// to wait for another to be acknowledged is not worth telling.
func (m *Machine) progress(in Progress) {
	c := m.containers[in.Container]
	if c == nil || c.phase != launching || c.task == nil || len(c.task.updates) > 0 || c.task.status.GetMessage() == in.Message {
		return
	}
	s := m.newStatus(c.task, mezzov1.TaskState_TASK_STARTING, fromExecutor)
	s.Message = proto.String(in.Message)
	m.update(c.task, s)
}

func (m *Machine) created(in Created) {
	c := m.containers[in.Container]
	if c == nil || c.phase != launching {
		return
	}
	c.phase, c.pid, c.netns, c.networks, c.cgroup = created, in.PID, in.Netns, in.Networks, in.Cgroup
	if root := c.executor.root; root != nil && root != c && c.netns == "" && len(c.networks) == 0 {
		c.netns, c.networks = root.netns, root.networks // it is in the root's network
	}
	for i := range c.chain {
		c.chain[i].Handle = in.Handles[c.chain[i].Isolator]
	}
	m.touch(c)
	if c.task == nil {
		m.start(c)
		return
	}
	l := c.launch
	if l.created++; l.created < len(l.tasks) {
		return
	}
	l.phase = startingTasks
	for _, t := range l.tasks {
		m.start(m.containers[t.container])
	}
}

func (m *Machine) start(c *container) {
	c.phase = starting
	m.effect(Start{Container: c.id, Chain: slices.Clone(c.chain), PID: c.pid, Netns: c.netns})
}

func (m *Machine) started(in Started) {
	c := m.containers[in.Container]
	if c == nil || c.phase != starting {
		return
	}
	c.networks = append(slices.Clone(c.networks), in.Networks...)
	if c.task == nil {
		m.rootRuns(c)
		return
	}
	m.taskRuns(c)
}

// rootRuns goes on with the launches that waited for the root.
func (m *Machine) rootRuns(c *container) {
	c.phase = running
	m.touch(c)
	if c.executor.program != nil {
		m.programRuns(c.executor)
		return
	}
	if l := c.launch; l != nil {
		c.launch = nil
		m.create(l)
	}
	if len(c.executor.waiting) > 0 || c.executor.stale {
		m.resize(c.executor)
	}
}

// taskRuns reports a task whose process was let go.
func (m *Machine) taskRuns(c *container) {
	t := c.task
	c.phase = running
	m.launchDone(c)
	t.started = m.now
	m.touch(c)
	m.startProbes(t)
	s := m.newStatus(t, mezzov1.TaskState_TASK_RUNNING, fromExecutor)
	m.update(t, s)
	m.wait(c)
	if t.kill != nil {
		m.killing(t)
		m.effect(Kill{Container: c.id, Launcher: Launcher(c.chain), Grace: max(0, t.kill.deadline.Sub(m.now))})
	}
	if c.limitation != nil {
		m.effect(Kill{Container: c.id, Launcher: Launcher(c.chain), Signal: sigkill})
	}
}

func (m *Machine) wait(c *container) {
	if !c.waited {
		c.waited = true
		m.effect(Wait{Container: c.id, Launcher: Launcher(c.chain)})
	}
}

// launchDone notes that a task is no longer part of its launch.
func (m *Machine) launchDone(c *container) {
	l := c.launch
	c.launch = nil
	if c.task != nil {
		c.task.launch = nil
	}
	if l == nil || l.phase == aborted {
		return
	}
	for _, t := range l.tasks {
		if t.launch == l {
			return
		}
	}
	delete(m.launches, l.id)
}

func (m *Machine) launchFailed(in LaunchFailed) {
	c := m.containers[in.Container]
	if c == nil || c.phase != launching && c.phase != starting {
		return
	}
	m.counts.LaunchFailures++
	switch {
	case c.task == nil:
		m.failLaunches(c, in.Message)
		m.retireExecutor(c.executor)
	case c.phase == launching:
		m.failLaunch(c.launch, c, in.Message)
	default:
		// Its process may run all the same, if the call was cut off: so it has not
		// ended before it is cleaned up. The others of its group go on until then.
		m.launchDone(c)
		c.failure = in.Message
		m.cleanup(c)
	}
}

// startFailed ends a task of whose process nothing is left, if there ever was
// one.
func (m *Machine) startFailed(c *container) {
	t := c.task
	s := m.launchFailure(t, c.failure)
	if t.kill != nil {
		s = m.newStatus(t, mezzov1.TaskState_TASK_KILLED, fromAgent)
		because(s, mezzov1.TaskStatus_REASON_TASK_KILLED_DURING_LAUNCH, join(t.kill.message, "The task was killed before it was launched"))
	}
	m.finishTask(t, s)
}

func (m *Machine) launchFailure(t *task, message string) *mezzov1.TaskStatus {
	s := m.newStatus(t, mezzov1.TaskState_TASK_FAILED, fromAgent)
	return because(s, mezzov1.TaskStatus_REASON_CONTAINER_LAUNCH_FAILED, message)
}

// failLaunch ends a launch of which a container could not be made: all of it.
func (m *Machine) failLaunch(l *launch, failed *container, message string) {
	m.endLaunch(l, func(t *task) *mezzov1.TaskStatus {
		if failed != nil && failed.task != nil && failed.task != t {
			return m.launchFailure(t, fmt.Sprintf("task %q of its group could not be launched: %s", failed.task.key.id, message))
		}
		return m.launchFailure(t, message)
	})
}

// failLaunches ends all launches that count on a root which cannot be made.
func (m *Machine) failLaunches(root *container, message string) {
	for _, l := range m.launchesOf(root.executor) {
		if l.phase != aborted {
			m.failLaunch(l, root, message)
		}
	}
}

// abort ends a launch before anything of it was started, because one of its
// tasks is to end.
func (m *Machine) abort(l *launch, killed *task, why cause, message string) {
	m.endLaunch(l, func(t *task) *mezzov1.TaskStatus {
		text := join(message, "The task was killed before it was launched")
		if t != killed {
			text = fmt.Sprintf("task %q of its group was killed before the group was launched", killed.key.id)
		}
		s := m.newStatus(t, mezzov1.TaskState_TASK_KILLED, fromAgent)
		switch {
		case t == killed && why == byRevoke:
			s.State = lost(t.framework, mezzov1.TaskState_TASK_GONE).Enum()
			return because(s, mezzov1.TaskStatus_REASON_CONTAINER_PREEMPTED, text)
		case why == byDrainGone:
			s.State = lost(t.framework, mezzov1.TaskState_TASK_GONE_BY_OPERATOR).Enum()
			return because(s, mezzov1.TaskStatus_REASON_AGENT_DRAINING, text)
		case why == byDrain:
			return because(s, mezzov1.TaskStatus_REASON_AGENT_DRAINING, text)
		}
		return because(s, mezzov1.TaskStatus_REASON_TASK_KILLED_DURING_LAUNCH, text)
	})
}

// endLaunch gives each task of a launch its last status and cleans up what was
// made of it.
func (m *Machine) endLaunch(l *launch, status func(*task) *mezzov1.TaskStatus) {
	l.phase = aborted
	delete(m.launches, l.id)
	e := l.executor
	this := func(o *launch) bool { return o == l }
	e.waiting, e.covered = slices.DeleteFunc(e.waiting, this), slices.DeleteFunc(e.covered, this)
	if e.program != nil {
		e.program.queue = slices.DeleteFunc(e.program.queue, this)
	}
	for _, t := range l.tasks {
		t.launch = nil
	}
	for _, t := range l.tasks {
		if e.program != nil {
			m.finishTask(t, status(t))
			continue
		}
		c := m.containers[t.container]
		c.launch = nil
		m.finishTask(t, status(t))
		m.cleanup(c)
	}
	if root := l.executor.root; root != nil && root.launch == l && e.program == nil {
		root.launch = nil
		if root.phase == claiming {
			m.failLaunches(root, "the launch that was to make the executor's root container did not come about")
		}
	}
	m.retireExecutor(l.executor)
}

// retireExecutor lets an executor go that has no task left, and with it its
// root once no container is nested in that any more.
func (m *Machine) retireExecutor(e *executor) {
	if e.program != nil {
		m.retireProgram(e)
		return
	}
	if len(e.tasks) > 0 {
		return
	}
	m.unlist(e)
	if e.children > 0 {
		return
	}
	if e.root != nil {
		m.cleanup(e.root)
		return
	}
	m.forgetExecutor(e)
}

func (m *Machine) forgetExecutor(e *executor) {
	if e.gone {
		return
	}
	m.counts.ExecutorsEnded++
	m.forget(e)
	delete(m.executors, e.run)
	m.release(e.framework)
}

// cleanup gets rid of a container and of what may still run in it.
func (m *Machine) cleanup(c *container) {
	switch c.phase {
	case cleaning:
		return
	case claiming:
		c.phase = cleaning
		m.dropContainer(c)
		return
	}
	c.phase = cleaning
	m.touch(c)
	if !m.recovered {
		m.deferred = append(m.deferred, c)
		return
	}
	m.effect(Cleanup{Container: c.id, Chain: slices.Clone(c.chain), Sandbox: c.sandbox})
}

func (m *Machine) cleanedUp(in CleanedUp) {
	if m.orphans[in.Container] {
		before := m.withheld()
		delete(m.orphans, in.Container)
		m.withheldMayChange(before)
	}
	c := m.containers[in.Container]
	if c == nil || c.phase != cleaning {
		return
	}
	if c.task != nil && !c.task.ended() {
		m.startFailed(c)
	}
	m.dropContainer(c)
}

func (m *Machine) dropContainer(c *container) {
	m.forget(c)
	delete(m.containers, c.id)
	e := c.executor
	if c == e.root {
		e.root = nil
	} else {
		e.children--
	}
	m.retireExecutor(e)
	m.retireIsolators()
}

const sigkill = 9

func (m *Machine) exited(in Exited) {
	c := m.containers[in.Container]
	if c == nil || c.phase != running || c.task == nil && c.executor.program == nil {
		return
	}
	if c.task == nil {
		m.programExited(c.executor, in.Status)
		return
	}
	m.finishTask(c.task, m.outcome(c.task, c, in.Status))
	m.cleanup(c)
}

// limited ends a container that exceeded what it may use.
func (m *Machine) limited(in Limited) {
	c := m.containers[in.Limitation.GetContainer()]
	if c == nil || c.phase == cleaning || c.limitation != nil {
		return
	}
	c.limitation = in.Limitation
	if c.phase == claiming {
		return
	}
	m.touch(c)
	if c.executor.program != nil {
		m.killProgram(c.executor)
		return
	}
	if c.task == nil {
		// All of the group share what the root may use: it ends whole.
		for _, t := range slices.Clone(c.executor.tasks) {
			if nested := m.containers[t.container]; nested != nil && nested.limitation == nil {
				m.limited(Limited{Limitation: &isolatorv1.Limitation{
					Container: nested.id, Reason: in.Limitation.Reason, Message: in.Limitation.GetMessage(), Resources: in.Limitation.GetResources(),
				}})
			}
		}
		return
	}
	if c.phase == running {
		m.effect(Kill{Container: c.id, Launcher: Launcher(c.chain), Signal: sigkill})
	}
}
