package state

import (
	"fmt"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/mezzo-os/mezzo/sdk/resource"

	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
)

// checkTask checks one task of a LAUNCH, or of a group when an executor is
// given, and makes its plan.
func (m *Machine) checkTask(x *acceptance, info *mezzov1.TaskInfo, group *plannedExecutor) (*plan, string) {
	id := info.GetTaskId().GetValue()
	if why := checkID(id); why != "" {
		return nil, "Task ID: " + why
	}
	if t := x.framework.tasks[id]; t != nil {
		if t.agent.phase == unreachable {
			return nil, "Task reuses the ID of an unreachable task: " + id
		}
		return nil, "Task has duplicate ID: " + id
	}
	if got := info.GetAgentId().GetValue(); got != x.agent.id {
		return nil, fmt.Sprintf("Task uses invalid agent %s while agent %s is expected", got, x.agent.id)
	}
	for _, why := range []string{
		checkKillPolicy(info.GetKillPolicy()),
		checkDuration(info.GetMaxCompletionTime(), "Task's 'max_completion_time'"),
		prefix("Task uses invalid check: ", checkCheck(info.GetCheck())),
		prefix("Task uses invalid health check: ", checkHealth(info.GetHealthCheck())),
	} {
		if why != "" {
			return nil, why
		}
	}
	res, why := checkResources(info.GetResources(), x.role)
	switch {
	case why != "":
		return nil, "Task uses invalid resources: " + why
	case len(info.GetResources()) == 0:
		return nil, "Task uses no resources"
	}
	if info.GetCommand() != nil {
		if why := checkCommand(info.GetCommand()); why != "" {
			return nil, "Task's command is invalid: " + why
		}
	}
	for _, why := range []string{
		prefix("Task's container is invalid: ", checkContainer(info.GetContainer())),
		checkLimits(info.GetLimits(), res),
	} {
		if why != "" {
			return nil, why
		}
	}
	p := &plan{resources: res, executor: group}
	if group == nil {
		if (info.GetCommand() == nil) == (info.GetExecutor() == nil) {
			return nil, "Task should have at least one (but not both) of CommandInfo or ExecutorInfo present"
		}
		if l := info.GetContainer().GetLinuxInfo(); l != nil && l.ShareCgroups != nil && !l.GetShareCgroups() {
			return nil, "Only tasks of a task group may have 'share_cgroups' set to false"
		}
		if info.GetExecutor() != nil {
			if p.executor, why = m.checkExecutor(x, info.GetExecutor()); why != "" {
				return nil, why
			}
		}
	}
	p.info = completeTask(info, p.executor, x.role)
	return p, ""
}

func prefix(p, why string) string {
	if why == "" {
		return ""
	}
	return p + why
}

// completeTask fills in what the framework left out; what it gave is not
// changed.
func completeTask(info *mezzov1.TaskInfo, e *plannedExecutor, role string) *mezzov1.TaskInfo {
	h := info.GetHealthCheck()
	whole := allocated(info.GetResources()) && (h == nil || h.Type != nil)
	if whole && (info.GetExecutor() == nil || e == nil || e.info == info.GetExecutor()) {
		return info
	}
	info = proto.Clone(info).(*mezzov1.TaskInfo)
	allocate(info.GetResources(), role)
	if h := info.GetHealthCheck(); h != nil {
		h.Type = healthType(h).Enum()
	}
	if info.GetExecutor() != nil && e != nil {
		info.Executor = e.info
	}
	return info
}

func allocated(list []*mezzov1.Resource) bool {
	return !slices.ContainsFunc(list, func(r *mezzov1.Resource) bool { return r.GetAllocationInfo().GetRole() == "" })
}

func allocate(list []*mezzov1.Resource, role string) {
	for _, r := range list {
		r.AllocationInfo = &mezzov1.Resource_AllocationInfo{Role: proto.String(role)}
	}
}

// checkExecutor checks the custom executor of a task.
func (m *Machine) checkExecutor(x *acceptance, info *mezzov1.ExecutorInfo) (*plannedExecutor, string) {
	if t := info.GetType(); t == mezzov1.ExecutorInfo_DEFAULT {
		return nil, "ExecutorInfo.type must be 'CUSTOM' for LAUNCH; DEFAULT executors run task groups"
	}
	if info.GetCommand() == nil {
		return nil, "'ExecutorInfo.command' must be set for a CUSTOM executor"
	}
	return m.planExecutor(x, info, false)
}

// planExecutor checks what both kinds of executors share, and finds the one
// that runs already.
func (m *Machine) planExecutor(x *acceptance, info *mezzov1.ExecutorInfo, idRequired bool) (*plannedExecutor, string) {
	id := info.GetExecutorId().GetValue()
	if why := checkID(id); why != "" {
		return nil, "Executor ID: " + why
	}
	fid := info.GetFrameworkId()
	if fid == nil && idRequired {
		return nil, "'ExecutorInfo.framework_id' must be set"
	}
	if fid != nil && fid.GetValue() != x.framework.id {
		return nil, fmt.Sprintf("ExecutorInfo has an invalid FrameworkID (Actual: %s vs Expected: %s)", fid.GetValue(), x.framework.id)
	}
	if info.GetCommand() != nil {
		if why := checkCommand(info.GetCommand()); why != "" {
			return nil, "Executor's command is invalid: " + why
		}
	}
	for _, why := range []string{
		prefix("Executor's container is invalid: ", checkContainer(info.GetContainer())),
		checkDuration(info.GetShutdownGracePeriod(), "ExecutorInfo's 'shutdown_grace_period'"),
	} {
		if why != "" {
			return nil, why
		}
	}
	res, why := checkResources(info.GetResources(), x.role)
	if why != "" {
		return nil, "Executor uses invalid resources: " + why
	}
	if !res.Shared().IsEmpty() {
		return nil, "Executor resources cannot be shared"
	}
	if fid == nil || !allocated(info.GetResources()) {
		info = proto.Clone(info).(*mezzov1.ExecutorInfo)
		info.FrameworkId = x.framework.pid
		allocate(info.GetResources(), x.role)
	}
	p := &plannedExecutor{info: info, resources: res}
	if running := x.agent.executors[executorKey{x.framework.id, id}]; running != nil {
		if !proto.Equal(running.info, info) {
			return nil, fmt.Sprintf("ExecutorInfo is not compatible with existing ExecutorInfo with same ExecutorID '%s'", id)
		}
		p.running, p.info = running, running.info
	}
	return p, ""
}

// checkGroupExecutor checks the executor of a task group.
func (m *Machine) checkGroupExecutor(x *acceptance, info *mezzov1.ExecutorInfo) (*plannedExecutor, string) {
	if info == nil {
		return nil, "Task group's executor is not set"
	}
	switch info.GetType() {
	case mezzov1.ExecutorInfo_DEFAULT:
		if info.GetCommand() != nil {
			return nil, "'ExecutorInfo.command' must not be set for 'DEFAULT' executor"
		}
		if c := info.GetContainer(); c != nil && c.GetType() != mezzov1.ContainerInfo_MESOS {
			return nil, "'ExecutorInfo.container.type' must be 'MESOS' for 'DEFAULT' executor"
		} else if c.GetMesos().GetImage() != nil {
			return nil, "'ExecutorInfo.container.mesos.image' must not be set for 'DEFAULT' executor"
		}
	case mezzov1.ExecutorInfo_CUSTOM:
		if info.GetCommand() == nil {
			return nil, "'ExecutorInfo.command' must be set for 'CUSTOM' executor"
		}
	default:
		return nil, "'ExecutorInfo.type' must be set to 'DEFAULT' or 'CUSTOM' for a task group"
	}
	p, why := m.planExecutor(x, info, true)
	if why != "" {
		return nil, why
	}
	const least = "Executor of a task group must use at least 0.01 cpus, 32 MB of memory and some disk"
	if p.resources.Get("cpus") < 10 || p.resources.Get("mem") < 32*resource.Unit || p.resources.Get("disk") == 0 {
		return nil, least
	}
	return p, ""
}

// checkGroupTask checks one task of a group.
func (m *Machine) checkGroupTask(x *acceptance, info *mezzov1.TaskInfo, e *plannedExecutor) (*plan, string) {
	c := info.GetContainer()
	if c != nil && c.GetType() == mezzov1.ContainerInfo_DOCKER {
		return nil, "Docker ContainerInfo is not supported on the task of a task group"
	}
	if own := info.GetExecutor(); own != nil && !sameExecutor(own, e.info) {
		return nil, "The 'ExecutorInfo' of task and task group differ"
	}
	if e.info.GetType() == mezzov1.ExecutorInfo_DEFAULT && info.GetCommand() == nil {
		return nil, "Task of a task group must have a CommandInfo"
	}
	if h := info.GetHealthCheck(); h != nil && len(c.GetNetworkInfos()) > 0 {
		if t := healthType(h); t == mezzov1.HealthCheck_HTTP || t == mezzov1.HealthCheck_TCP {
			return nil, "HTTP and TCP health checks are not supported for tasks of a task group with networks of their own"
		}
	}
	if len(info.GetLimits()) > 0 {
		l := c.GetLinuxInfo()
		if l == nil || l.ShareCgroups == nil || l.GetShareCgroups() {
			return nil, "Resource limits may only be set for tasks of a task group which do not share cgroups"
		}
	}
	return m.checkTask(x, info, e)
}

// sameExecutor compares as frameworks write them, who may leave out what the
// master fills in.
func sameExecutor(a, b *mezzov1.ExecutorInfo) bool {
	strip := func(e *mezzov1.ExecutorInfo) *mezzov1.ExecutorInfo {
		e = proto.Clone(e).(*mezzov1.ExecutorInfo)
		e.FrameworkId = nil
		for _, r := range e.GetResources() {
			r.AllocationInfo = nil
		}
		return e
	}
	return proto.Equal(strip(a), strip(b))
}
