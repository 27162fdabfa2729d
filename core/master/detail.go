package master

import (
	"google.golang.org/protobuf/proto"

	"github.com/mezzo-os/mezzo/core/master/state"
	"github.com/mezzo-os/mezzo/core/secret"
	operatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/operator/v1"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
)

// The views in full, for watchers that keep a copy of the cluster. Parts that
// views share with the machine are never changed, so messages share them too.

func agentDetail(v *state.AgentView) *operatorv1.AgentDetail {
	out := &operatorv1.AgentDetail{
		Id: v.ID, Hostname: v.Hostname, State: string(v.State), Reason: v.Reason, Version: v.Version,
		RpcAddress: v.RPCAddress, HttpAddress: v.HTTPAddress, Attributes: v.Attributes, Domain: v.Domain,
		Total: v.Total.ToProto(), Allocated: v.Used.ToProto(), Offered: v.Offered.ToProto(),
		Registered: timestamp(v.Registered), Reregistered: timestamp(v.Reregistered), Unreachable: timestamp(v.Unreachable),
		Awaited: v.Awaited, Unavailability: unavailabilityMessage(v.Unavailability), InverseOffers: inverseMessages(v.InverseOffers),
	}
	out.Endpoints, out.Deactivated, out.Drain = linkEndpoints(v.Endpoints), v.Deactivated, drainMessage(v.Drain)
	return out
}

func frameworkDetail(v *state.FrameworkView) *operatorv1.FrameworkDetail {
	return &operatorv1.FrameworkDetail{
		Info: v.Info, State: string(v.State), Recovered: v.Recovered, SuppressedRoles: v.Suppressed, Constraints: v.Constraints,
		Registered: timestamp(v.Registered), Reregistered: timestamp(v.Reregistered),
		Disconnected: timestamp(v.Disconnected), Unregistered: timestamp(v.Unregistered),
	}
}

func executorDetail(v *state.ExecutorView) *operatorv1.ExecutorDetail {
	return &operatorv1.ExecutorDetail{
		FrameworkId: v.FrameworkID, AgentId: v.AgentID, Info: secret.Executor(v.Info), Role: v.Role, Resources: v.Resources.Allocate(v.Role).ToProto(),
	}
}

func taskDetail(v *state.TaskView) *operatorv1.TaskDetail {
	task := &mezzov1.Task{
		Name: proto.String(v.Name), TaskId: &mezzov1.TaskID{Value: proto.String(v.TaskID)},
		FrameworkId: &mezzov1.FrameworkID{Value: proto.String(v.FrameworkID)}, AgentId: &mezzov1.AgentID{Value: proto.String(v.AgentID)},
		State: v.State.Enum(), Resources: v.Resources.Allocate(v.Role).ToProto(),
	}
	if v.ExecutorID != "" {
		task.ExecutorId = &mezzov1.ExecutorID{Value: proto.String(v.ExecutorID)}
	}
	if v.Status != nil {
		task.Statuses = append(append(make([]*mezzov1.TaskStatus, 0, len(v.Earlier)+1), v.Earlier...), v.Status)
		task.StatusUpdateState, task.StatusUpdateUuid = v.Status.State, v.Status.Uuid
	}
	describeTask(task, v)
	return &operatorv1.TaskDetail{
		Task: task, Role: v.Role, Completed: v.Completed,
		Launched: timestamp(v.Launched), Started: timestamp(v.Started), Finished: timestamp(v.Finished),
	}
}

// describeTask fills in what was said of a task when it was launched.
func describeTask(task *mezzov1.Task, v *state.TaskView) {
	if info := v.Info; info != nil {
		task.Labels, task.Discovery, task.Container = info.Labels, info.Discovery, secret.Container(info.Container)
		task.HealthCheck, task.KillPolicy, task.Limits = info.HealthCheck, info.KillPolicy, info.Limits
		if command := info.Command; command != nil {
			task.User = command.User
		} else if command := info.GetExecutor().GetCommand(); command != nil {
			task.User = command.User
		}
		return
	}
	var told mezzov1.Task // without its ids, so that fields are missing
	if len(v.Detail) == 0 || (proto.UnmarshalOptions{AllowPartial: true}).Unmarshal(v.Detail, &told) != nil {
		return // the rest is worth more than nothing
	}
	task.Labels, task.Discovery, task.Container = told.Labels, told.Discovery, secret.Container(told.Container)
	task.HealthCheck, task.KillPolicy, task.Limits, task.User = told.HealthCheck, told.KillPolicy, told.Limits, told.User
	if proto.CheckInitialized(task) != nil { // it could not be sent
		task.Labels, task.Discovery, task.Container, task.HealthCheck, task.KillPolicy, task.Limits = nil, nil, nil, nil, nil, nil
	}
}

func operationDetail(v *state.OperationView) *mezzov1.Operation {
	latest := v.Status
	if v.Unreachable {
		latest = &mezzov1.OperationStatus{
			OperationId: v.Info.GetId(), State: mezzov1.OperationState_OPERATION_UNREACHABLE.Enum(),
			AgentId: &mezzov1.AgentID{Value: proto.String(v.AgentID)},
		}
	}
	info := v.Info
	if info == nil { // an agent told of it so; without one it could not be sent
		info = &mezzov1.Offer_Operation{}
	}
	out := &mezzov1.Operation{
		AgentId: &mezzov1.AgentID{Value: proto.String(v.AgentID)}, Info: info, LatestStatus: latest,
		Uuid: &mezzov1.UUID{Value: []byte(v.UUID)},
	}
	if v.FrameworkID != "" {
		out.FrameworkId = &mezzov1.FrameworkID{Value: proto.String(v.FrameworkID)}
	}
	if v.Status.GetState() != mezzov1.OperationState_OPERATION_PENDING {
		out.Statuses = []*mezzov1.OperationStatus{v.Status}
	}
	return out
}

func offerDetail(v *state.OfferView) *mezzov1.Offer {
	return &mezzov1.Offer{
		Id: &mezzov1.OfferID{Value: proto.String(v.ID)}, FrameworkId: &mezzov1.FrameworkID{Value: proto.String(v.FrameworkID)},
		AgentId: &mezzov1.AgentID{Value: proto.String(v.AgentID)}, Hostname: proto.String(v.Hostname),
		AllocationInfo: &mezzov1.Resource_AllocationInfo{Role: proto.String(v.Role)},
		Resources:      v.Resources.Allocate(v.Role).ToProto(),
	}
}
