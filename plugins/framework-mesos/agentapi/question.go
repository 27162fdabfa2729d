package agentapi

import (
	"context"
	"maps"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/mezzo-os/mezzo/plugins/framework-mesos/files"
	"github.com/mezzo-os/mezzo/plugins/framework-mesos/transport"
	operatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/operator/v1"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
	agentv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1/agent"
)

// question answers what is asked of the agent.
func (h *Handler) question(q *request) *transport.Error {
	ctx := transport.CallContext(q.r)
	state, failure := h.detail(ctx)
	if failure != nil {
		return failure
	}
	d := state.GetDetail()
	switch q.call.GetType() {
	case agentv1.Call_GET_STATE:
		return q.respond(agentv1.Response_GET_STATE, &agentv1.Response{GetState: &agentv1.Response_GetState{
			GetTasks: tasks(d), GetExecutors: executors(d), GetFrameworks: frameworks(d),
		}})
	case agentv1.Call_GET_FRAMEWORKS:
		return q.respond(agentv1.Response_GET_FRAMEWORKS, &agentv1.Response{GetFrameworks: frameworks(d)})
	case agentv1.Call_GET_EXECUTORS:
		return q.respond(agentv1.Response_GET_EXECUTORS, &agentv1.Response{GetExecutors: executors(d)})
	case agentv1.Call_GET_TASKS:
		return q.respond(agentv1.Response_GET_TASKS, &agentv1.Response{GetTasks: tasks(d)})
	case agentv1.Call_GET_AGENT:
		return q.respond(agentv1.Response_GET_AGENT, &agentv1.Response{GetAgent: &agentv1.Response_GetAgent{AgentInfo: d.GetInfo()}})
	case agentv1.Call_GET_RESOURCE_PROVIDERS:
		return q.respond(agentv1.Response_GET_RESOURCE_PROVIDERS, &agentv1.Response{GetResourceProviders: &agentv1.Response_GetResourceProviders{}})
	case agentv1.Call_GET_CONTAINERS:
		list, failure := h.containerList(ctx, state, q.call.GetGetContainers())
		if failure != nil {
			return failure
		}
		return q.respond(agentv1.Response_GET_CONTAINERS, &agentv1.Response{GetContainers: list})
	}
	return q.respond(agentv1.Response_GET_OPERATIONS, &agentv1.Response{GetOperations: &agentv1.Response_GetOperations{Operations: d.GetOperations()}})
}

// completedInfos are frameworks of which only ended tasks are left: little more
// than their ids is known, sorted by them.
func completedInfos(d *operatorv1.AgentStateDetail) []*mezzov1.FrameworkInfo {
	ids := map[string]bool{}
	for _, t := range d.GetTasks() {
		ids[t.GetTask().GetFrameworkId().GetValue()] = true
	}
	for _, f := range d.GetFrameworks() {
		delete(ids, f.GetId().GetValue())
	}
	var out []*mezzov1.FrameworkInfo
	for _, id := range slices.Sorted(maps.Keys(ids)) {
		out = append(out, &mezzov1.FrameworkInfo{Id: &mezzov1.FrameworkID{Value: proto.String(id)}, Name: proto.String(""), User: proto.String("")})
	}
	return out
}

func frameworks(d *operatorv1.AgentStateDetail) *agentv1.Response_GetFrameworks {
	out := &agentv1.Response_GetFrameworks{}
	for _, f := range d.GetFrameworks() {
		out.Frameworks = append(out.Frameworks, &agentv1.Response_GetFrameworks_Framework{FrameworkInfo: f})
	}
	for _, f := range completedInfos(d) {
		out.CompletedFrameworks = append(out.CompletedFrameworks, &agentv1.Response_GetFrameworks_Framework{FrameworkInfo: f})
	}
	return out
}

// infoOf is an executor as clients see it: the agent's own, for a command task,
// has a name that tells what it is.
func infoOf(e *operatorv1.AgentExecutor) *mezzov1.ExecutorInfo {
	info := e.GetInfo()
	if !e.GetCommand() {
		return info
	}
	id := info.GetExecutorId().GetValue()
	return &mezzov1.ExecutorInfo{
		ExecutorId: info.ExecutorId, FrameworkId: &mezzov1.FrameworkID{Value: proto.String(e.GetFrameworkId())},
		Name: proto.String("Command Executor (Task: " + id + ")"), Source: proto.String(id),
	}
}

func executors(d *operatorv1.AgentStateDetail) *agentv1.Response_GetExecutors {
	out := &agentv1.Response_GetExecutors{}
	for _, e := range d.GetExecutors() {
		x := &agentv1.Response_GetExecutors_Executor{ExecutorInfo: infoOf(e)}
		if e.GetCompleted() {
			out.CompletedExecutors = append(out.CompletedExecutors, x)
		} else {
			out.Executors = append(out.Executors, x)
		}
	}
	return out
}

func tasks(d *operatorv1.AgentStateDetail) *agentv1.Response_GetTasks {
	out := &agentv1.Response_GetTasks{}
	for _, t := range d.GetTasks() {
		switch t.GetPlace() {
		case "queued":
			out.QueuedTasks = append(out.QueuedTasks, t.GetTask())
		case "terminated":
			out.TerminatedTasks = append(out.TerminatedTasks, t.GetTask())
		case "completed":
			out.CompletedTasks = append(out.CompletedTasks, t.GetTask())
		default:
			out.LaunchedTasks = append(out.LaunchedTasks, t.GetTask())
		}
	}
	return out
}

// usageAge is how old statistics may be: asking for them costs the isolators
// something for every container.
const usageAge = 500 * time.Millisecond

// usages are the statistics of all containers, by id.
func (h *Handler) usages(ctx context.Context) (map[string]*operatorv1.ContainerUsage, error) {
	h.usageMu.Lock()
	defer h.usageMu.Unlock()
	if time.Since(h.asked) > usageAge {
		answer, err := h.options.Agent.Usage(ctx, &operatorv1.ContainerUsageRequest{})
		if err != nil {
			return nil, err
		}
		h.usage, h.asked = answer.GetUsages(), time.Now()
	}
	out := map[string]*operatorv1.ContainerUsage{}
	for _, u := range h.usage {
		out[u.GetContainer()] = u
	}
	return out, nil
}

// box is a container as clients see it.
type box struct {
	executor   *operatorv1.AgentExecutor // nil: it is nested, or standalone
	standalone bool
	framework  string
	id         *mezzov1.ContainerID
	status     *mezzov1.ContainerStatus
	statistics *mezzov1.ResourceStatistics
}

// boxes are the containers, roots first where they belong.
func (h *Handler) boxes(ctx context.Context, state *operatorv1.AgentStateResponse) ([]box, *transport.Error) {
	usage, err := h.usages(ctx)
	if err != nil {
		return nil, files.Failed(err)
	}
	executors := map[string]*operatorv1.AgentExecutor{}
	for _, e := range state.GetDetail().GetExecutors() {
		if !e.GetCompleted() {
			executors[e.GetContainerId()] = e
		}
	}
	statuses := map[string]*mezzov1.ContainerStatus{}
	cpus := map[string]float64{} // that the tasks in a container have, by the executor's
	for _, t := range state.GetDetail().GetTasks() {
		if list := t.GetTask().GetStatuses(); len(list) > 0 {
			s := list[len(list)-1].GetContainerStatus()
			statuses[s.GetContainerId().GetValue()] = s
		}
		for _, r := range t.GetTask().GetResources() {
			if r.GetName() == "cpus" && t.GetPlace() == "launched" {
				cpus[t.GetRun()] += r.GetScalar().GetValue()
			}
		}
	}
	var out []box
	for _, c := range state.GetContainers() {
		b := box{executor: executors[c.GetId()], standalone: c.GetStandalone(), framework: c.GetFrameworkId(), status: statuses[c.GetId()]}
		b.id = &mezzov1.ContainerID{Value: proto.String(c.GetId())}
		if parent := usage[c.GetId()].GetParent(); parent != "" {
			b.id.Parent = &mezzov1.ContainerID{Value: proto.String(parent)}
		}
		if b.status == nil {
			b.status = &mezzov1.ContainerStatus{ContainerId: b.id}
			if c.GetPid() > 0 {
				b.status.ExecutorPid = proto.Uint32(uint32(c.GetPid()))
			}
		}
		b.statistics = &mezzov1.ResourceStatistics{}
		if s := usage[c.GetId()].GetStatistics(); s != nil {
			b.statistics = proto.CloneOf(s)
		}
		if b.statistics.Timestamp == nil {
			b.statistics.Timestamp = proto.Float64(float64(time.Now().UnixMicro()) / 1e6)
		}
		if n := cpus[c.GetId()]; b.statistics.CpusLimit == nil && n > 0 {
			b.statistics.CpusLimit = proto.Float64(n)
		}
		out = append(out, b)
	}
	return out, nil
}

func (h *Handler) containerList(ctx context.Context, state *operatorv1.AgentStateResponse, show *agentv1.Call_GetContainers) (*agentv1.Response_GetContainers, *transport.Error) {
	boxes, failure := h.boxes(ctx, state)
	if failure != nil {
		return nil, failure
	}
	out := &agentv1.Response_GetContainers{}
	for _, b := range boxes {
		if b.standalone && !show.GetShowStandalone() || b.executor == nil && !b.standalone && !show.GetShowNested() {
			continue
		}
		x := &agentv1.Response_GetContainers_Container{
			ContainerId: b.id, ContainerStatus: b.status, ResourceStatistics: b.statistics,
		}
		if !b.standalone {
			x.FrameworkId = &mezzov1.FrameworkID{Value: proto.String(b.framework)}
		}
		if b.executor != nil {
			info := infoOf(b.executor)
			x.ExecutorId, x.ExecutorName = info.GetExecutorId(), proto.String(info.GetName())
		}
		out.Containers = append(out.Containers, x)
	}
	return out, nil
}
