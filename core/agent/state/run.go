package state

import (
	"fmt"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/mezzo-os/mezzo/core/agent/containerinfo"
	"github.com/mezzo-os/mezzo/core/secret"
	linkv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/link/v1"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
	"github.com/mezzo-os/mezzo/sdk/resource"
)

// run takes a Run of the master.
func (m *Machine) run(r *linkv1.Run) {
	fid := r.GetFramework().GetId().GetValue()
	if fid == "" || len(r.GetTasks()) == 0 {
		m.log(Error, "the master sent a launch without framework or tasks; it is ignored", "framework_id", fid)
		return
	}
	for _, info := range r.GetTasks() {
		if key := (taskKey{fid, info.GetTaskId().GetValue()}); m.tasks[key] != nil {
			m.log(Warn, "the agent already has a task of a launch; the launch is ignored", "framework_id", fid, "task_id", key.id)
			return
		}
	}
	f := m.framework(r.GetFramework())
	if refused := m.refusal(f, r); refused != nil {
		m.refuse(f, r, *refused)
		m.unused(f)
		return
	}
	switch {
	case custom(r.GetExecutor()):
		m.launchCustom(f, r)
		return
	case r.GetExecutor() != nil:
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
		if why := m.executorError(f, e); why != "" {
			return wrong("executor %s", why)
		}
		if why := m.volumeError(e.GetResources()); why != "" {
			return wrong("executor %q: %s", e.GetExecutorId().GetValue(), why)
		}
		if unknown := m.unknownResources(e.GetResources()); unknown != "" {
			return m.notHere(f, "executor "+e.GetExecutorId().GetValue(), unknown)
		}
		if running := m.live[executorKey{f.id, e.GetExecutorId().GetValue()}]; running != nil && running.info != nil {
			if custom(e) != (running.program != nil) {
				return wrong("executor %q runs here already and is of another type", running.id)
			}
			if p := running.program; p != nil && (p.stopping() || p.end != nil) {
				return &refusal{lost(f, mezzov1.TaskState_TASK_DROPPED), mezzov1.TaskStatus_REASON_EXECUTOR_TERMINATED, "the executor is being ended"}
			}
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
		if why := m.taskError(f, t, r.GetExecutor()); why != "" {
			return wrong("task %q: %s", id, why)
		}
		if unknown := m.unknownResources(t.GetResources()); unknown != "" {
			return m.notHere(f, "task "+id, unknown)
		}
	}
	if e := r.GetExecutor(); custom(e) {
		if why := m.joinError(m.live[executorKey{f.id, e.GetExecutorId().GetValue()}], e, r.GetTasks()); why != "" {
			return wrong("%s", why)
		}
	}
	return nil
}

// notHere refuses a launch on reservations or volumes that the agent does not
// have: the operation that was to make them was refused or lost.
func (m *Machine) notHere(f *framework, who, unknown string) *refusal {
	return &refusal{lost(f, mezzov1.TaskState_TASK_DROPPED), mezzov1.TaskStatus_REASON_RESOURCES_UNKNOWN,
		fmt.Sprintf("%s uses %s, which the agent does not have", who, unknown)}
}

// executorError says what is wrong with an executor; empty: nothing.
func (m *Machine) executorError(f *framework, e *mezzov1.ExecutorInfo) string {
	id := e.GetExecutorId().GetValue()
	if why := pathError(id); why != "" {
		return fmt.Sprintf("id %q %s", id, why)
	}
	if _, err := resource.FromProto(e.GetResources()); err != nil {
		return fmt.Sprintf("%q has wrong resources: %v", id, err)
	}
	switch {
	case !custom(e) && e.GetCommand() != nil:
		return fmt.Sprintf("%q is of type DEFAULT and has a command: only custom executors have one", id)
	case !custom(e):
		if why := containerError(e.GetContainer(), false, e.GetResources()); why != "" {
			return fmt.Sprintf("%q: %s", id, why)
		}
		return ""
	case e.GetCommand() == nil:
		return fmt.Sprintf("%q is a custom one and has no command", id)
	}
	why := m.commandError(f, e.GetCommand(), e.GetContainer())
	if why == "" {
		why = containerError(e.GetContainer(), false, e.GetResources())
	}
	if why != "" {
		return fmt.Sprintf("%q: %s", id, why)
	}
	return ""
}

// taskError says what is wrong with a task of an executor, if it has one; empty:
// nothing. What a custom executor makes of a task's command is its own affair.
func (m *Machine) taskError(f *framework, t *mezzov1.TaskInfo, e *mezzov1.ExecutorInfo) string {
	if why := pathError(t.GetTaskId().GetValue()); why != "" {
		return "its id " + why
	}
	if _, err := resource.FromProto(t.GetResources()); err != nil {
		return "its resources are wrong: " + err.Error()
	}
	if why := m.volumeError(t.GetResources()); why != "" {
		return why
	}
	switch {
	case custom(e):
		return ""
	case t.GetCommand() == nil:
		return "it has no command"
	}
	if why := m.commandError(f, t.GetCommand(), t.GetContainer()); why != "" {
		return why
	}
	if secret.InEnvironment(t.GetHealthCheck().GetCommand()) || secret.InEnvironment(t.GetCheck().GetCommand().GetCommand()) {
		return "the command of its check has a secret in its environment: it finds those of the task"
	}
	return containerError(t.GetContainer(), e != nil, t.GetResources())
}

// containerError says why a container cannot be what is asked; empty: it can.
func containerError(info *mezzov1.ContainerInfo, nested bool, resources []*mezzov1.Resource) string {
	if _, err := containerinfo.Read(info, nested, resources); err != nil {
		return err.Error()
	}
	return ""
}

// commandError says why a command cannot be run; empty: it can.
func (m *Machine) commandError(f *framework, c *mezzov1.CommandInfo, container *mezzov1.ContainerInfo) string {
	if c.GetShell() && c.Value == nil {
		return "its command is for a shell and has no value"
	}
	image := container != nil && container.GetType() == mezzov1.ContainerInfo_DOCKER || container.GetMesos().GetImage() != nil
	if !c.GetShell() && c.GetValue() == "" && !image {
		return "its command names no program"
	}
	if user := commandUser(f, c); !m.cfg.Root && user != m.cfg.User {
		return fmt.Sprintf("it is to run as user %q, and this agent runs as %q: only an agent that runs as root can run tasks as another user", user, m.cfg.User)
	}
	return ""
}

// userOf is who a task runs as.
func userOf(t *task) string {
	if e := t.executor; e != nil && e.program != nil {
		return commandUser(t.framework, e.info.GetCommand())
	}
	return commandUser(t.framework, t.info.GetCommand())
}

// commandUser is who a command is run as.
func commandUser(f *framework, c *mezzov1.CommandInfo) string {
	if u := c.GetUser(); u != "" {
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
	isNew := e == nil || e.info == nil || e.program != nil
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
