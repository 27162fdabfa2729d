package state

import (
	"encoding/hex"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/mezzo-os/mezzo/core/secret"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
)

// Detail is the agent as frameworks see it. It shares no memory with the machine
// but messages, which nobody changes.
type Detail struct {
	Info       *mezzov1.AgentInfo
	Version    string
	Frameworks []*mezzov1.FrameworkInfo // by id
	Executors  []ExecutorDetail         // live ones by framework and id, then ended ones
	Tasks      []TaskDetail             // as in View: Tasks, then Completed
	Ended      map[mezzov1.TaskState]uint64
	Operations []*mezzov1.Operation // by uuid
}

// ExecutorDetail is an executor, or the agent in the place of one.
type ExecutorDetail struct {
	FrameworkID string
	// Info of a command task's has only an id.
	Info      *mezzov1.ExecutorInfo
	Role      string
	Container string
	Sandbox   string // relative to the work directory; empty: there is none yet
	Command   bool
	Completed bool
}

// Place is where a task is in its life on an agent.
type Place string

// The places of a task.
const (
	PlaceQueued     Place = "queued" // on its way to its executor
	PlaceLaunched   Place = "launched"
	PlaceTerminated Place = "terminated" // ended, and not acknowledged yet
	PlaceCompleted  Place = "completed"
)

// TaskDetail is a task with all that is known of it.
type TaskDetail struct {
	Task  *mezzov1.Task
	Role  string
	Place Place
	// Run is the container of its executor.
	Run string
}

// Detail returns the agent as frameworks see it.
func (m *Machine) Detail() Detail {
	d := Detail{
		Info: &mezzov1.AgentInfo{
			Hostname: proto.String(m.cfg.Hostname), Id: &mezzov1.AgentID{Value: proto.String(m.id)}, Resources: m.cfg.Resources,
			Attributes: m.cfg.Attributes, Domain: m.cfg.Domain,
		},
		Version: m.cfg.Version, Ended: map[mezzov1.TaskState]uint64{},
	}
	for state, n := range m.counts.TasksEnded {
		d.Ended[state] = n
	}
	for _, id := range sortedStrings(m.frameworks) {
		if f := m.frameworks[id]; f.info != nil {
			d.Frameworks = append(d.Frameworks, f.info)
		}
	}
	for _, p := range m.sortedOperations() {
		d.Operations = append(d.Operations, m.operationDetail(p))
	}
	live := map[string]bool{}
	for _, run := range sortedStrings(m.executors) {
		e := m.executors[run]
		live[e.run] = true
		d.Executors = append(d.Executors, m.executorDetail(e))
	}
	for _, t := range m.sortedTasks() {
		if t.info != nil {
			d.Tasks = append(d.Tasks, m.taskDetail(t))
		}
	}
	seen := map[string]bool{}
	for _, c := range m.completed {
		run := runOf(c.sandbox, c.container)
		d.Tasks = append(d.Tasks, c.detail(m.id, run))
		if run != "" && !live[run] && !seen[run] {
			seen[run] = true
			d.Executors = append(d.Executors, ExecutorDetail{
				FrameworkID: c.framework, Info: bareExecutor(c.framework, c.executor), Role: c.role, Container: run,
				Sandbox: rootSandbox(c.sandbox), Command: c.executor == c.id, Completed: true,
			})
		}
	}
	return d
}

func (m *Machine) operationDetail(p *pending) *mezzov1.Operation {
	uuid, _ := hex.DecodeString(p.uuid)
	o := &mezzov1.Operation{
		AgentId: &mezzov1.AgentID{Value: proto.String(m.id)}, Info: p.info, LatestStatus: p.status, Uuid: &mezzov1.UUID{Value: uuid},
	}
	if p.framework != "" {
		o.FrameworkId = &mezzov1.FrameworkID{Value: proto.String(p.framework)}
	}
	if p.ended() {
		o.Statuses = []*mezzov1.OperationStatus{p.status} // the agent has told no other
	}
	return o
}

func (m *Machine) executorDetail(e *executor) ExecutorDetail {
	d := ExecutorDetail{FrameworkID: e.framework.id, Info: secret.Executor(e.info), Role: e.role, Container: e.run, Command: e.info == nil}
	if d.Info == nil {
		d.Info = bareExecutor(e.framework.id, e.id)
	}
	if e.root != nil {
		d.Sandbox = e.root.sandbox
	} else if len(e.tasks) > 0 {
		d.Sandbox = e.tasks[0].sandbox
	}
	return d
}

// bareExecutor is an executor of which only the id is known.
func bareExecutor(framework, id string) *mezzov1.ExecutorInfo {
	return &mezzov1.ExecutorInfo{
		ExecutorId: &mezzov1.ExecutorID{Value: proto.String(id)}, FrameworkId: &mezzov1.FrameworkID{Value: proto.String(framework)},
	}
}

func (m *Machine) taskDetail(t *task) TaskDetail {
	d := TaskDetail{Task: m.detail(t), Role: t.role, Place: PlaceLaunched}
	d.Task.Resources, d.Task.Statuses = t.info.GetResources(), []*mezzov1.TaskStatus{t.status}
	if t.executor != nil {
		d.Run = t.executor.run
	}
	switch {
	case t.ended():
		d.Place = PlaceTerminated
	case t.launch != nil:
		d.Place = PlaceQueued
	}
	return d
}

func (c *completed) detail(agent, run string) TaskDetail {
	task := &mezzov1.Task{
		Name: proto.String(c.name), TaskId: &mezzov1.TaskID{Value: proto.String(c.id)}, FrameworkId: &mezzov1.FrameworkID{Value: proto.String(c.framework)},
		ExecutorId: &mezzov1.ExecutorID{Value: proto.String(c.executor)}, AgentId: &mezzov1.AgentID{Value: proto.String(agent)},
		State: c.status.GetState().Enum(), Resources: c.resources, Statuses: []*mezzov1.TaskStatus{c.status},
	}
	return TaskDetail{Task: task, Role: c.role, Place: PlaceCompleted, Run: run}
}

func sortedStrings[V any](in map[string]V) []string {
	out := make([]string, 0, len(in))
	for key := range in {
		out = append(out, key)
	}
	slices.Sort(out)
	return out
}

// runOf is the container of the executor that a sandbox belongs to: its own, or
// the one that it lies in.
func runOf(sandbox, container string) string {
	_, run, found := strings.Cut(sandbox, "/runs/")
	if !found {
		return container
	}
	run, _, _ = strings.Cut(run, "/")
	return run
}

// rootSandbox is the sandbox of the executor that a sandbox belongs to.
func rootSandbox(sandbox string) string {
	executor, run, found := strings.Cut(sandbox, "/runs/")
	if !found {
		return sandbox
	}
	run, _, _ = strings.Cut(run, "/")
	return executor + "/runs/" + run
}
