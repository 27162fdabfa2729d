package state

import (
	"slices"

	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
)

// View is what the agent shows of itself now. It costs as much as the agent has
// tasks, and shares no memory with the machine but messages, which nobody
// changes.
func (m *Machine) View() View {
	v := View{
		AgentID: m.id, Hostname: m.cfg.Hostname, Master: m.link.master, Epoch: m.epoch, Resources: m.resources.total.ToProto(), Withheld: m.withheld(),
		Endpoints: m.endpoints(),
	}
	switch {
	case !m.recovered:
		v.State = "recovering"
	case m.link.state == registered:
		v.State = "registered"
	case m.link.state == registering:
		v.State = "registering"
	default:
		v.State = "disconnected"
	}
	if m.link.state != registered && m.link.state != registering {
		v.Master = ""
	}
	for _, t := range m.sortedTasks() {
		v.Tasks = append(v.Tasks, m.taskView(t))
	}
	for _, c := range m.completed {
		v.Completed = append(v.Completed, c.view())
	}
	for _, c := range m.sortedContainers() {
		shown := c.view()
		shown.Resources, shown.Volumes = m.isolatorTask(c).GetResources(), m.volumesOf(c)
		v.Containers = append(v.Containers, shown)
	}
	for _, s := range m.sortedStandalone() {
		if s.living() {
			v.Containers = append(v.Containers, s.view())
		}
	}
	for _, i := range m.isolators {
		v.Isolators = append(v.Isolators, IsolatorView{Name: i.name, Healthy: i.healthy, Recovered: i.up, Reason: i.reason})
	}
	return v
}

func (m *Machine) taskView(t *task) TaskView {
	v := TaskView{
		FrameworkID: t.key.framework, ID: t.key.id, Name: t.info.GetName(), ExecutorID: t.executorID, Role: t.role, Status: t.status,
		Resources: t.info.GetResources(), Launched: t.launched, Started: t.started, Finished: t.finished,
		Container: t.container, Sandbox: t.sandbox, Exited: t.ended(),
	}
	if t.framework != nil { // else it is only an answer about a task that nobody here knows
		v.User, v.Owner = userOf(t), t.framework.info.GetPrincipal()
	}
	return v
}

func (c *completed) view() TaskView {
	return TaskView{
		FrameworkID: c.framework, ID: c.id, Name: c.name, ExecutorID: c.executor, Role: c.role, Status: c.status, Resources: c.resources,
		Launched: c.launched, Started: c.started, Finished: c.finished, Container: c.container, Sandbox: c.sandbox, Exited: true,
		User: c.user, Owner: c.owner,
	}
}

func (c *container) view() ContainerView {
	v := ContainerView{
		ID: c.id, FrameworkID: c.executor.framework.id, ExecutorID: c.executor.id, Parent: c.parent(),
		Launcher: Launcher(c.chain), PID: c.pid, State: c.phase.String(), Sandbox: c.sandbox,
	}
	if c.task != nil {
		v.TaskID = c.task.key.id
	}
	for _, l := range c.chain {
		v.Chain = append(v.Chain, l.Isolator)
	}
	return v
}

// Running is the plan of a container whose process runs; nil when there is none.
func (m *Machine) Running(container string) *Plan {
	if s := m.standalone[container]; s != nil && s.phase == running {
		return m.standalonePlan(s)
	}
	c := m.containers[container]
	if c == nil || c.phase != running {
		return nil
	}
	p := m.plan(c)
	if e := c.executor; c.task == nil && e.program != nil {
		// What runs beside the executor is not the executor.
		token := m.token(e)
		p.Environment = slices.DeleteFunc(p.Environment, func(v Variable) bool { return v.Value == token })
	}
	return p
}

// Holder is whose something is, for who decides about access to it. What is empty
// is not known.
type Holder struct{ Role, User, Owner string }

// Holder says whose the sandboxes of an executor are: of one that the agent has,
// else of the one of that id that ended last.
func (m *Machine) Holder(framework, executor string) Holder {
	for _, run := range sortedStrings(m.executors) {
		if e := m.executors[run]; e.framework.id == framework && e.id == executor && e.info != nil {
			return Holder{e.role, commandUser(e.framework, e.info.GetCommand()), e.framework.info.GetPrincipal()}
		}
	}
	// A task without one has the agent's own, of its name, which may be gone before
	// the end of the task is acknowledged.
	for _, t := range m.sortedTasks() {
		if t.key.framework == framework && t.executorID == executor && t.info != nil {
			return Holder{t.role, userOf(t), t.framework.info.GetPrincipal()}
		}
	}
	for i := len(m.completed) - 1; i >= 0; i-- {
		if c := m.completed[i]; c.framework == framework && c.executor == executor {
			return Holder{c.role, c.user, c.owner}
		}
	}
	return Holder{Owner: m.Owner(framework)}
}

// Owner is a framework's principal; empty: it has none, or nothing is known of it.
func (m *Machine) Owner(framework string) string {
	if f := m.frameworks[framework]; f != nil {
		return f.info.GetPrincipal()
	}
	return ""
}

// StandaloneUser is as whom a command runs in a container of an operator's; for
// one that is not known, as whom one runs that names nobody.
func (m *Machine) StandaloneUser(id string) string {
	var command *mezzov1.CommandInfo
	if s := m.standalone[id]; s != nil {
		command = s.spec.Command
	}
	return commandUser(m.operators(), command)
}

// Find returns the tasks of that id, of that framework or of any when it is
// empty: those that the agent has first, then ended ones, newest first.
func (m *Machine) Find(frameworkID, taskID string) []TaskView {
	var list []TaskView
	for _, t := range m.sortedTasks() {
		if t.key.id == taskID && (frameworkID == "" || t.key.framework == frameworkID) && t.info != nil {
			list = append(list, m.taskView(t))
		}
	}
	for i := len(m.completed) - 1; i >= 0; i-- {
		if c := m.completed[i]; c.id == taskID && (frameworkID == "" || c.framework == frameworkID) {
			list = append(list, c.view())
		}
	}
	return list
}
