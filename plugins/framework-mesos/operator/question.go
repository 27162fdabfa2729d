package operator

import (
	"maps"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/mezzo-os/mezzo/plugins/framework-mesos/convert"
	"github.com/mezzo-os/mezzo/plugins/framework-mesos/mirror"
	"github.com/mezzo-os/mezzo/plugins/framework-mesos/transport"
	operatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/operator/v1"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
	masterv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1/master"
	quotav1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1/quota"
	"github.com/mezzo-os/mezzo/sdk/resource"
)

// question answers what is asked of the cluster.
func (h *Handler) question(q *request) *transport.Error {
	if failure := transport.MayView(q.r); failure != nil {
		return failure
	}
	now, err := h.options.Mirror.Read(q.r.Context())
	if err != nil {
		return ReadFailed(err)
	}
	switch q.call.GetType() {
	case masterv1.Call_GET_STATE:
		return q.answer(masterv1.Response_GET_STATE, &masterv1.Response{GetState: State(now)})
	case masterv1.Call_GET_AGENTS:
		return q.answer(masterv1.Response_GET_AGENTS, &masterv1.Response{GetAgents: agents(now)})
	case masterv1.Call_GET_FRAMEWORKS:
		return q.answer(masterv1.Response_GET_FRAMEWORKS, &masterv1.Response{GetFrameworks: frameworks(now)})
	case masterv1.Call_GET_EXECUTORS:
		return q.answer(masterv1.Response_GET_EXECUTORS, &masterv1.Response{GetExecutors: executors(now)})
	case masterv1.Call_GET_TASKS:
		return q.answer(masterv1.Response_GET_TASKS, &masterv1.Response{GetTasks: tasks(now)})
	case masterv1.Call_GET_OPERATIONS:
		return q.answer(masterv1.Response_GET_OPERATIONS, &masterv1.Response{
			GetOperations: &masterv1.Response_GetOperations{Operations: now.Operations},
		})
	case masterv1.Call_GET_ROLES:
		return q.answer(masterv1.Response_GET_ROLES, &masterv1.Response{GetRoles: &masterv1.Response_GetRoles{Roles: roles(now)}})
	case masterv1.Call_GET_WEIGHTS:
		out := &masterv1.Response{}
		if weights := Weights(now); len(weights) > 0 {
			out.GetWeights = &masterv1.Response_GetWeights{WeightInfos: weights}
		}
		return q.answer(masterv1.Response_GET_WEIGHTS, out)
	case masterv1.Call_GET_MASTER:
		return q.answer(masterv1.Response_GET_MASTER, &masterv1.Response{GetMaster: &masterv1.Response_GetMaster{
			MasterInfo: h.options.MasterInfo(now.Master), StartTime: proto.Float64(mirror.Seconds(now.Master.GetStarted())),
			ElectedTime: proto.Float64(mirror.Seconds(now.Master.GetElected())),
		}})
	case masterv1.Call_GET_MAINTENANCE_STATUS:
		status, failure := h.ClusterStatus(transport.CallContext(q.r))
		if failure != nil {
			return failure
		}
		return q.answer(masterv1.Response_GET_MAINTENANCE_STATUS, &masterv1.Response{
			GetMaintenanceStatus: &masterv1.Response_GetMaintenanceStatus{Status: status},
		})
	case masterv1.Call_GET_MAINTENANCE_SCHEDULE:
		schedule, failure := h.Schedule(transport.CallContext(q.r))
		if failure != nil {
			return failure
		}
		return q.answer(masterv1.Response_GET_MAINTENANCE_SCHEDULE, &masterv1.Response{
			GetMaintenanceSchedule: &masterv1.Response_GetMaintenanceSchedule{Schedule: schedule},
		})
	case masterv1.Call_GET_QUOTA:
		return q.answer(masterv1.Response_GET_QUOTA, &masterv1.Response{GetQuota: &masterv1.Response_GetQuota{Status: Quota(now)}})
	}
	return transport.Failed(501, "")
}

// State is the whole cluster. What is large in it is shared with the snapshot.
func State(now *mirror.Snapshot) *masterv1.Response_GetState {
	return &masterv1.Response_GetState{
		GetTasks: tasks(now), GetExecutors: executors(now), GetFrameworks: frameworks(now), GetAgents: agents(now),
	}
}

func agents(now *mirror.Snapshot) *masterv1.Response_GetAgents {
	out := &masterv1.Response_GetAgents{}
	registered, recovered := now.Registered()
	for _, a := range registered {
		out.Agents = append(out.Agents, agent(a, now.Holdings()))
	}
	for _, a := range recovered {
		out.RecoveredAgents = append(out.RecoveredAgents, mirror.AgentInfo(a))
	}
	return out
}

// agent is an agent as clients see it. held may be nil for an agent that is new.
func agent(a *operatorv1.AgentDetail, held *mirror.Holdings) *masterv1.Response_GetAgents_Agent {
	out := &masterv1.Response_GetAgents_Agent{
		AgentInfo: mirror.AgentInfo(a), Active: proto.Bool(mirror.Active(a)), Deactivated: proto.Bool(mirror.Deactivated(a)),
		Version: proto.String(transport.MesosVersion), Pid: proto.String(mirror.AgentPID(a)),
		RegisteredTime: mirror.TimeInfo(a.GetRegistered()), ReregisteredTime: mirror.TimeInfo(a.GetReregistered()),
		TotalResources: a.GetTotal(), Capabilities: mirror.AgentCapabilities(),
		DrainInfo: mirror.DrainInfo(a), EstimatedDrainStartTime: mirror.TimeInfo(a.GetDrain().GetStarted()),
	}
	if held != nil {
		out.AllocatedResources, out.OfferedResources = held.ByAgent[a.GetId()].ToProto(), held.OfferedOn[a.GetId()].ToProto()
	}
	return out
}

func frameworks(now *mirror.Snapshot) *masterv1.Response_GetFrameworks {
	out := &masterv1.Response_GetFrameworks{}
	for _, f := range now.Frameworks {
		x := framework(f.FrameworkDetail)
		x.Offers, x.InverseOffers = f.Offers, now.InverseOffers(f.ID())
		x.AllocatedResources = endpointForm(now.Holdings().ByFramework[f.ID()])
		x.OfferedResources = endpointForm(now.Holdings().OfferedTo[f.ID()])
		if f.Completed() {
			out.CompletedFrameworks = append(out.CompletedFrameworks, x)
		} else {
			out.Frameworks = append(out.Frameworks, x)
		}
	}
	return out
}

// framework is a framework as clients see it, without what it has.
func framework(f *operatorv1.FrameworkDetail) *masterv1.Response_GetFrameworks_Framework {
	active := f.GetState() == "active"
	out := &masterv1.Response_GetFrameworks_Framework{
		FrameworkInfo: f.GetInfo(), Active: proto.Bool(active), Connected: proto.Bool(active), Recovered: proto.Bool(f.GetRecovered()),
		RegisteredTime: mirror.TimeInfo(f.GetRegistered()), ReregisteredTime: mirror.TimeInfo(f.GetReregistered()),
		UnregisteredTime: mirror.TimeInfo(f.GetUnregistered()), OfferConstraints: f.GetConstraints(),
	}
	return out
}

// endpointForm writes reservations in the old way and the new, as clients of the
// endpoints for people read either.
func endpointForm(list resource.Resources) []*mezzov1.Resource {
	out := list.ToProto()
	for _, r := range out {
		convert.Both(r)
	}
	return out
}

func executors(now *mirror.Snapshot) *masterv1.Response_GetExecutors {
	out := &masterv1.Response_GetExecutors{}
	for _, f := range now.Frameworks {
		for _, e := range f.Executors {
			out.Executors = append(out.Executors, &masterv1.Response_GetExecutors_Executor{
				ExecutorInfo: e.GetInfo(), AgentId: &mezzov1.AgentID{Value: proto.String(e.GetAgentId())},
			})
		}
	}
	return out
}

func tasks(now *mirror.Snapshot) *masterv1.Response_GetTasks {
	out := &masterv1.Response_GetTasks{}
	for _, f := range now.Frameworks {
		for _, t := range f.Tasks {
			switch now.PlaceOf(t) {
			case mirror.Completed:
				out.CompletedTasks = append(out.CompletedTasks, t.GetTask())
			case mirror.Unreachable:
				out.UnreachableTasks = append(out.UnreachableTasks, t.GetTask())
			default:
				out.Tasks = append(out.Tasks, t.GetTask())
			}
		}
	}
	return out
}

// RolesOf are the names of all roles that somebody has said something of or holds
// something in, and of those above them, sorted.
func RolesOf(now *mirror.Snapshot) []string {
	names := map[string]bool{}
	add := func(name string) {
		for ; name != ""; name = resource.ParentRole(name) {
			names[name] = true
		}
	}
	for _, r := range now.Roles {
		add(r.GetName())
	}
	for _, a := range now.Agents {
		for _, r := range a.GetTotal() {
			if stack := r.GetReservations(); len(stack) > 0 {
				add(stack[len(stack)-1].GetRole())
			}
		}
	}
	return slices.Sorted(maps.Keys(names))
}

func roles(now *mirror.Snapshot) []*mezzov1.Role {
	var out []*mezzov1.Role
	for _, name := range RolesOf(now) {
		x := &mezzov1.Role{Name: proto.String(name), Weight: proto.Float64(1)}
		if r := roleOf(now, name); r != nil {
			x.Weight = proto.Float64(r.GetWeight())
			for _, id := range r.GetFrameworks() {
				x.Frameworks = append(x.Frameworks, &mezzov1.FrameworkID{Value: proto.String(id)})
			}
		}
		x.Resources = now.Holdings().ByRole[name].Add(now.Holdings().OfferedIn[name]).ToProto()
		out = append(out, x)
	}
	return out
}

// Weights are those that somebody has set.
func Weights(now *mirror.Snapshot) []*mezzov1.WeightInfo {
	var out []*mezzov1.WeightInfo
	for _, r := range now.Roles {
		if r.GetWeightSource() != "" {
			out = append(out, &mezzov1.WeightInfo{Role: proto.String(r.GetName()), Weight: proto.Float64(r.GetWeight())})
		}
	}
	return out
}

// Quota is what somebody has set of guarantees and limits.
func Quota(now *mirror.Snapshot) *quotav1.QuotaStatus {
	out := &quotav1.QuotaStatus{}
	for _, r := range now.Roles {
		if !hasQuota(r) {
			continue
		}
		config := &quotav1.QuotaConfig{Role: proto.String(r.GetName())}
		info := &quotav1.QuotaInfo{Role: proto.String(r.GetName())}
		for _, name := range slices.Sorted(maps.Keys(r.GetGuarantee().GetFields())) {
			v := r.GetGuarantee().GetFields()[name].GetNumberValue()
			if config.Guarantees == nil {
				config.Guarantees = amounts{}
			}
			config.Guarantees[name] = &mezzov1.Value_Scalar{Value: proto.Float64(v)}
			info.Guarantee = append(info.Guarantee, &mezzov1.Resource{
				Name: proto.String(name), Type: mezzov1.Value_SCALAR.Enum(), Scalar: &mezzov1.Value_Scalar{Value: proto.Float64(v)},
			})
		}
		for name, v := range r.GetLimit().GetFields() {
			if config.Limits == nil {
				config.Limits = amounts{}
			}
			config.Limits[name] = &mezzov1.Value_Scalar{Value: proto.Float64(v.GetNumberValue())}
		}
		out.Infos, out.Configs = append(out.Infos, info), append(out.Configs, config)
	}
	return out
}
