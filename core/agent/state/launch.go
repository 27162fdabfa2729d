package state

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	isolatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/isolator/v1"
	linkv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/link/v1"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
	"github.com/mezzo-os/mezzo/sdk/resource"
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
	for _, t := range l.tasks {
		list = append(list, m.containers[t.container])
	}
	return list
}

// run takes a Run of the master.
func (m *Machine) run(r *linkv1.Run) {
	fid := r.GetFramework().GetId().GetValue()
	if fid == "" || len(r.GetTasks()) == 0 {
		m.log(Error, "the master sent a launch without framework or tasks; it is ignored", "framework", fid)
		return
	}
	for _, info := range r.GetTasks() {
		if key := (taskKey{fid, info.GetTaskId().GetValue()}); m.tasks[key] != nil {
			m.log(Warn, "the agent already has a task of a launch; the launch is ignored", "framework", fid, "task", key.id)
			return
		}
	}
	f := m.framework(r.GetFramework())
	if refused := m.refusal(f, r); refused != nil {
		m.refuse(f, r, *refused)
		m.unused(f)
		return
	}
	if r.GetExecutor() != nil {
		m.launchGroup(f, r)
		return
	}
	for _, info := range r.GetTasks() {
		m.launchCommand(f, info)
	}
}

// framework is what the agent knows of a framework, with its newest description.
func (m *Machine) framework(info *mezzov1.FrameworkInfo) *framework {
	id := info.GetId().GetValue()
	f := m.frameworks[id]
	if f == nil {
		f = &framework{id: id}
		m.frameworks[id] = f
	}
	if !proto.Equal(f.info, info) {
		f.info = info
		if f.known { // else it is written with the first task of it that is
			m.touch(f)
		}
	}
	return f
}

// noteFramework has a framework written, unless it is already.
func (m *Machine) noteFramework(f *framework) {
	if f != nil && !f.known {
		m.touch(f)
	}
}

// unused drops a framework that was noted for nothing.
func (m *Machine) unused(f *framework) {
	f.uses++
	m.release(f)
}

// refusal is why a launch is refused: what its tasks' status says.
type refusal struct {
	state   mezzov1.TaskState
	reason  mezzov1.TaskStatus_Reason
	message string
}

// refusal decides whether the agent can do what a launch asks for at all.
func (m *Machine) refusal(f *framework, r *linkv1.Run) *refusal {
	invalid := mezzov1.TaskStatus_REASON_TASK_INVALID
	if r.GetGroup() {
		invalid = mezzov1.TaskStatus_REASON_TASK_GROUP_INVALID
	}
	wrong := func(format string, args ...any) *refusal {
		return &refusal{mezzov1.TaskState_TASK_ERROR, invalid, fmt.Sprintf(format, args...)}
	}
	switch {
	case f.terminating:
		return &refusal{lost(f, mezzov1.TaskState_TASK_DROPPED), mezzov1.TaskStatus_REASON_FRAMEWORK_REMOVED, "the framework was removed"}
	case m.draining != nil:
		return &refusal{lost(f, mezzov1.TaskState_TASK_DROPPED), mezzov1.TaskStatus_REASON_AGENT_DRAINING, "the agent is draining"}
	case m.ending != nil:
		return &refusal{lost(f, mezzov1.TaskState_TASK_DROPPED), mezzov1.TaskStatus_REASON_AGENT_REMOVED, "the agent is shutting down"}
	}
	if why := pathError(f.id); why != "" {
		return wrong("framework id %q %s", f.id, why)
	}
	if e := r.GetExecutor(); e != nil {
		id := e.GetExecutorId().GetValue()
		if e.GetType() != mezzov1.ExecutorInfo_DEFAULT {
			return wrong("executor %q is a custom one: this agent runs command tasks, and task groups under an executor of type DEFAULT", id)
		}
		if e.GetCommand() != nil {
			return wrong("executor %q is of type DEFAULT and has a command: only custom executors have one", id)
		}
		if why := pathError(id); why != "" {
			return wrong("executor id %q %s", id, why)
		}
	} else if r.GetGroup() {
		return wrong("a task group without an executor")
	}
	seen := map[string]bool{}
	for _, t := range r.GetTasks() {
		id := t.GetTaskId().GetValue()
		if seen[id] {
			return wrong("task id %q stands twice in one launch", id)
		}
		seen[id] = true
		if why := m.taskError(f, t); why != "" {
			return wrong("task %q: %s", id, why)
		}
	}
	return nil
}

func (m *Machine) taskError(f *framework, t *mezzov1.TaskInfo) string {
	if why := pathError(t.GetTaskId().GetValue()); why != "" {
		return "its id " + why
	}
	if t.GetCommand() == nil {
		return "it has no command, and custom executors are not run by this agent"
	}
	if t.GetCommand().GetShell() && t.GetCommand().Value == nil {
		return "its command is for a shell and has no value"
	}
	if !t.GetCommand().GetShell() && t.GetCommand().GetValue() == "" && t.GetContainer() == nil {
		return "its command names no program"
	}
	if _, err := resource.FromProto(t.GetResources()); err != nil {
		return "its resources are wrong: " + err.Error()
	}
	if len(t.GetCommand().GetUris()) > 0 {
		return "it has URIs to fetch, which this agent does not do"
	}
	for _, v := range t.GetCommand().GetEnvironment().GetVariables() {
		if v.GetType() == mezzov1.Environment_Variable_SECRET {
			return fmt.Sprintf("environment variable %q is a secret, which this agent cannot resolve", v.GetName())
		}
	}
	if user := userOf(f, t); !m.cfg.Root && user != m.cfg.User {
		return fmt.Sprintf("it is to run as user %q, and this agent runs as %q: only an agent that runs as root can run tasks as another user", user, m.cfg.User)
	}
	return ""
}

// userOf is who a task runs as.
func userOf(f *framework, t *mezzov1.TaskInfo) string {
	if u := t.GetCommand().GetUser(); u != "" {
		return u
	}
	return f.info.GetUser()
}

// pathError says why an id cannot be part of a path, if it cannot.
func pathError(id string) string {
	switch {
	case id == "" || id == "." || id == "..":
		return "cannot be the name of a directory"
	case len(id) > 255:
		return "is longer than 255 bytes"
	case strings.ContainsAny(id, "/\\"):
		return "contains a slash"
	}
	for _, r := range id {
		if r < ' ' || r == 0x7f {
			return "contains a control character"
		}
	}
	return ""
}

// refuse answers every task of a launch with its last status.
func (m *Machine) refuse(f *framework, r *linkv1.Run, why refusal) {
	for _, info := range r.GetTasks() {
		key := taskKey{f.id, info.GetTaskId().GetValue()}
		if m.tasks[key] != nil {
			continue // the id stands twice
		}
		t := m.newTask(f, info, nil)
		if e := r.GetExecutor(); e != nil {
			t.executorID = e.GetExecutorId().GetValue()
		}
		m.finishTask(t, because(m.newStatus(t, why.state, fromAgent), why.reason, why.message))
	}
}

func (m *Machine) newTask(f *framework, info *mezzov1.TaskInfo, e *executor) *task {
	t := &task{key: taskKey{f.id, info.GetTaskId().GetValue()}, framework: f, info: info, executor: e, role: roleOf(info.GetResources()), launched: m.now}
	t.executorID = t.key.id
	t.status = &mezzov1.TaskStatus{TaskId: info.GetTaskId(), State: mezzov1.TaskState_TASK_STAGING.Enum()}
	if e != nil {
		t.executorID = e.id
		e.tasks = append(e.tasks, t)
	}
	f.uses++
	m.tasks[t.key] = t
	return t
}

func roleOf(resources []*mezzov1.Resource) string {
	for _, r := range resources {
		if role := r.GetAllocationInfo().GetRole(); role != "" {
			return role
		}
	}
	return ""
}

func (m *Machine) newExecutor(f *framework, id string, info *mezzov1.ExecutorInfo) *executor {
	e := &executor{run: m.newContainerID(), framework: f, id: id, info: info}
	f.uses++
	m.executors[e.run] = e
	m.live[executorKey{f.id, id}] = e
	return e
}

// newContainer notes a container; nothing of it is written before it is claimed.
func (m *Machine) newContainer(id string, e *executor, t *task, l *launch) *container {
	c := &container{id: id, executor: e, task: t, launch: l}
	runs := fmt.Sprintf("agents/%s/frameworks/%s/executors/%s/runs/", m.id, e.framework.id, e.id)
	switch {
	case t == nil: // the root
		e.root = c
		c.sandbox, c.latest = runs+id, runs+"latest"
	case e.info == nil:
		c.sandbox, c.latest = runs+id, runs+"latest"
		e.children++
	default:
		c.sandbox = runs + e.run + "/containers/" + id
		c.latest = runs + e.run + "/tasks/" + t.key.id
		e.children++
	}
	if t != nil {
		t.container, t.sandbox, t.launch = id, c.sandbox, l
	}
	m.containers[id] = c
	return c
}

func (m *Machine) newLaunch(e *executor) *launch {
	m.lastLaunch++
	l := &launch{id: m.lastLaunch, executor: e}
	m.launches[l.id] = l
	return l
}

func (m *Machine) launchCommand(f *framework, info *mezzov1.TaskInfo) {
	e := m.newExecutor(f, info.GetTaskId().GetValue(), nil)
	t := m.newTask(f, info, e)
	e.role = t.role
	l := m.newLaunch(e)
	l.tasks = []*task{t}
	m.newContainer(e.run, e, t, l)
	m.claim(l)
}

func (m *Machine) launchGroup(f *framework, r *linkv1.Run) {
	id := r.GetExecutor().GetExecutorId().GetValue()
	e := m.live[executorKey{f.id, id}]
	isNew := e == nil || e.info == nil
	if isNew {
		e = m.newExecutor(f, id, r.GetExecutor())
		e.role = roleOf(r.GetExecutor().GetResources())
	}
	l := m.newLaunch(e)
	if l.newRoot = isNew; isNew {
		m.newContainer(e.run, e, nil, l)
	}
	group := ""
	for _, info := range r.GetTasks() {
		t := m.newTask(f, info, e)
		if e.role == "" {
			e.role = t.role
		}
		c := m.newContainer(m.newContainerID(), e, t, l)
		if group == "" {
			group = c.id
		}
		t.group = group
		l.tasks = append(l.tasks, t)
	}
	m.claim(l)
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
		Task: m.isolatorTask(c),
	}
	if c.task != nil {
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
	if in.Err != "" {
		m.failLaunch(l, nil, in.Err)
		return
	}
	for i, c := range list {
		prefer := ""
		if c.task != nil && c.executor.root != nil {
			prefer = Launcher(c.executor.root.chain)
		}
		if c.chain = chainOf(in.Claims[i], prefer); Launcher(c.chain) == "" {
			m.failLaunch(l, c, "no isolator launches the container: "+refusals(in.Claims[i]))
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
	case l.newRoot:
		l.phase = waitingForRoot
		m.effect(Launch{Plan: m.plan(l.executor.root)})
	case l.executor.root == nil:
		m.create(l)
	default:
		l.phase = waitingForRoot
		l.executor.waiting = append(l.executor.waiting, l)
		if l.executor.root.phase == running {
			m.effect(Update{Plan: m.plan(l.executor.root)})
		}
	}
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

func (m *Machine) created(in Created) {
	c := m.containers[in.Container]
	if c == nil || c.phase != launching {
		return
	}
	c.phase, c.pid, c.netns = created, in.PID, in.Netns
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
	c.networks = in.Networks
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
	if l := c.launch; l != nil {
		c.launch = nil
		m.create(l)
	}
	if len(c.executor.waiting) > 0 {
		m.effect(Update{Plan: m.plan(c)})
	}
}

// updated goes on with the launches that need more than the root had.
func (m *Machine) updated(in Updated) {
	c := m.containers[in.Container]
	if c == nil || c.task != nil || c.phase != running {
		return
	}
	waiting := c.executor.waiting
	c.executor.waiting = nil
	for _, l := range waiting {
		if in.Err != "" {
			m.failLaunch(l, c, in.Err)
		} else {
			m.create(l)
		}
	}
}

// taskRuns reports a task whose process was let go.
func (m *Machine) taskRuns(c *container) {
	t := c.task
	c.phase = running
	m.launchDone(c)
	t.started = m.now
	m.touch(c)
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
	switch {
	case c.task == nil:
		m.failLaunches(c, in.Message)
	case c.phase == launching:
		m.failLaunch(c.launch, c, in.Message)
	default: // the others of its group go on, or are killed with it
		m.launchDone(c)
		t := c.task
		s := m.launchFailure(t, in.Message)
		if t.kill != nil {
			s = m.newStatus(t, mezzov1.TaskState_TASK_KILLED, fromAgent)
			because(s, mezzov1.TaskStatus_REASON_TASK_KILLED_DURING_LAUNCH, join(t.kill.message, "The task was killed before it was launched"))
		}
		m.finishTask(t, s)
		m.cleanup(c)
	}
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
	for _, id := range slices.Sorted(maps.Keys(m.launches)) {
		if l := m.launches[id]; l != nil && l.executor == root.executor {
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
	l.executor.waiting = slices.DeleteFunc(l.executor.waiting, func(o *launch) bool { return o == l })
	for _, t := range l.tasks {
		t.launch = nil
	}
	for _, t := range l.tasks {
		c := m.containers[t.container]
		c.launch = nil
		m.finishTask(t, status(t))
		m.cleanup(c)
	}
	if root := l.executor.root; root != nil && root.launch == l {
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
	if len(e.tasks) > 0 {
		return
	}
	if key := (executorKey{e.framework.id, e.id}); m.live[key] == e {
		delete(m.live, key)
	}
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
	m.effect(Cleanup{Container: c.id, Chain: slices.Clone(c.chain)})
}

func (m *Machine) cleanedUp(in CleanedUp) {
	if c := m.containers[in.Container]; c != nil && c.phase == cleaning {
		m.dropContainer(c)
	}
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
	if c == nil || c.task == nil || c.phase != running {
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
