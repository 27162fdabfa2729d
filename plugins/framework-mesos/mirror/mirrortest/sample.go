package mirrortest

import (
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	operatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/operator/v1"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
)

// At is a time of the sample: seconds after its beginning.
func At(seconds int) *timestamppb.Timestamp {
	return timestamppb.New(time.Unix(1_700_000_000+int64(seconds), 0))
}

// Scalar is a resource of a number.
func Scalar(name string, v float64) *mezzov1.Resource {
	return &mezzov1.Resource{Name: proto.String(name), Type: mezzov1.Value_SCALAR.Enum(), Scalar: &mezzov1.Value_Scalar{Value: proto.Float64(v)}}
}

// Ports are a range of ports.
func Ports(begin, end uint64) *mezzov1.Resource {
	return &mezzov1.Resource{Name: proto.String("ports"), Type: mezzov1.Value_RANGES.Enum(), Ranges: &mezzov1.Value_Ranges{
		Range: []*mezzov1.Value_Range{{Begin: proto.Uint64(begin), End: proto.Uint64(end)}},
	}}
}

// Reserved is a resource reserved to a role, dynamically when there is a
// principal.
func Reserved(r *mezzov1.Resource, role, principal string) *mezzov1.Resource {
	info := &mezzov1.Resource_ReservationInfo{Type: mezzov1.Resource_ReservationInfo_STATIC.Enum(), Role: proto.String(role)}
	if principal != "" {
		info.Type, info.Principal = mezzov1.Resource_ReservationInfo_DYNAMIC.Enum(), proto.String(principal)
	}
	r.Reservations = append(r.Reservations, info)
	return r
}

// In is resources allocated to a role.
func In(role string, list ...*mezzov1.Resource) []*mezzov1.Resource {
	for _, r := range list {
		r.AllocationInfo = &mezzov1.Resource_AllocationInfo{Role: proto.String(role)}
	}
	return list
}

// Agent is an event of an agent.
func Agent(a *operatorv1.AgentDetail) *operatorv1.WatchEvent {
	return &operatorv1.WatchEvent{Event: &operatorv1.WatchEvent_AgentDetail{AgentDetail: a}}
}

// Framework is an event of a framework.
func Framework(f *operatorv1.FrameworkDetail) *operatorv1.WatchEvent {
	return &operatorv1.WatchEvent{Event: &operatorv1.WatchEvent_FrameworkDetail{FrameworkDetail: f}}
}

// Task is an event of a task.
func Task(t *operatorv1.TaskDetail) *operatorv1.WatchEvent {
	return &operatorv1.WatchEvent{Event: &operatorv1.WatchEvent_TaskDetail{TaskDetail: t}}
}

// Operation is an event of an operation.
func Operation(o *mezzov1.Operation) *operatorv1.WatchEvent {
	return &operatorv1.WatchEvent{Event: &operatorv1.WatchEvent_Operation{Operation: o}}
}

// Role is an event of a role.
func Role(r *operatorv1.Role) *operatorv1.WatchEvent {
	return &operatorv1.WatchEvent{Event: &operatorv1.WatchEvent_Role{Role: r}}
}

// Status is a status of a task.
func Status(task string, state mezzov1.TaskState, at int) *mezzov1.TaskStatus {
	return &mezzov1.TaskStatus{
		TaskId: &mezzov1.TaskID{Value: proto.String(task)}, State: state.Enum(), Timestamp: proto.Float64(float64(At(at).Seconds)),
		AgentId: &mezzov1.AgentID{Value: proto.String("m-1-S0")}, Source: mezzov1.TaskStatus_SOURCE_EXECUTOR.Enum(), Uuid: []byte("0123456789abcdef"),
	}
}

// NewTask is a task of framework "m-1-0000" on agent "m-1-S0" with the states that
// it has had, the first ten seconds after its launch.
func NewTask(id string, launched int, states ...mezzov1.TaskState) *operatorv1.TaskDetail {
	t := &operatorv1.TaskDetail{Role: "ads", Launched: At(launched), Task: &mezzov1.Task{
		Name: proto.String("name of " + id), TaskId: &mezzov1.TaskID{Value: proto.String(id)},
		FrameworkId: &mezzov1.FrameworkID{Value: proto.String("m-1-0000")}, AgentId: &mezzov1.AgentID{Value: proto.String("m-1-S0")},
		State:     mezzov1.TaskState_TASK_STAGING.Enum(),
		Resources: In("ads", Scalar("cpus", 1), Scalar("mem", 128), Ports(31000, 31001)),
	}}
	for i, s := range states {
		t.Task.Statuses = append(t.Task.Statuses, Status(id, s, launched+10*(i+1)))
		t.Task.State, t.Task.StatusUpdateState = s.Enum(), s.Enum()
		t.Task.StatusUpdateUuid = t.Task.Statuses[i].Uuid
	}
	return t
}

// Sample is a small cluster with something of everything: an agent with a
// reservation, one that is unreachable, one that has not come back; a framework
// with a task in each place, an offer and an executor; a framework that is gone;
// roles with quota and weight.
func Sample() []*operatorv1.WatchEvent {
	amount := func(list map[string]any) *structpb.Struct {
		s, err := structpb.NewStruct(list)
		if err != nil {
			panic(err)
		}
		return s
	}
	text := func(name, v string) *mezzov1.Attribute {
		return &mezzov1.Attribute{Name: proto.String(name), Type: mezzov1.Value_TEXT.Enum(), Text: &mezzov1.Value_Text{Value: proto.String(v)}}
	}
	agent := func(i int) *operatorv1.AgentDetail {
		return &operatorv1.AgentDetail{
			Id: fmt.Sprintf("m-1-S%d", i), Hostname: fmt.Sprintf("host%d", i), State: "active", Version: "0.1.0", RpcAddress: fmt.Sprintf("10.0.0.%d:5063", i+1),
			Endpoints:  []*operatorv1.Endpoint{{Name: "mesos", Address: fmt.Sprintf("10.0.0.%d:5051", i+1)}},
			Attributes: []*mezzov1.Attribute{text("rack", "r1")}, Registered: At(i),
			Total: []*mezzov1.Resource{
				Scalar("cpus", 8), Scalar("mem", 4096), Scalar("disk", 1000), Ports(31000, 32000), Reserved(Scalar("cpus", 2), "ads", "ops"),
			},
		}
	}
	first, gone, away := agent(0), agent(1), agent(2)
	first.Allocated = []*mezzov1.Resource{Scalar("cpus", 1.1), Scalar("mem", 160), Ports(31000, 31001)}
	first.Offered = []*mezzov1.Resource{Scalar("cpus", 2)}
	gone.State, gone.Unreachable = "unreachable", At(50)
	away.State, away.Awaited = "disconnected", true
	info := &mezzov1.FrameworkInfo{
		Id: &mezzov1.FrameworkID{Value: proto.String("m-1-0000")}, Name: proto.String("marathon"), User: proto.String("root"), Principal: proto.String("p"),
		Roles: []string{"ads"}, Capabilities: []*mezzov1.FrameworkInfo_Capability{{Type: mezzov1.FrameworkInfo_Capability_MULTI_ROLE.Enum()}},
		WebuiUrl: proto.String("http://marathon"), Hostname: proto.String("h"), FailoverTimeout: proto.Float64(600),
	}
	past := &mezzov1.FrameworkInfo{
		Id: &mezzov1.FrameworkID{Value: proto.String("m-1-0001")}, Name: proto.String("old"), User: proto.String("root"), Role: proto.String("*"),
	}
	running := NewTask("t-running", 20, mezzov1.TaskState_TASK_STARTING, mezzov1.TaskState_TASK_RUNNING)
	running.Task.Labels = &mezzov1.Labels{Labels: []*mezzov1.Label{{Key: proto.String("k"), Value: proto.String("v")}}}
	running.Task.Discovery = &mezzov1.DiscoveryInfo{Visibility: mezzov1.DiscoveryInfo_CLUSTER.Enum(), Name: proto.String("web")}
	last := running.Task.Statuses[1]
	last.Healthy = proto.Bool(true)
	last.ContainerStatus = &mezzov1.ContainerStatus{ContainerId: &mezzov1.ContainerID{Value: proto.String("c1")}, NetworkInfos: []*mezzov1.NetworkInfo{{
		IpAddresses: []*mezzov1.NetworkInfo_IPAddress{{IpAddress: proto.String("10.0.0.1")}},
	}}}
	lost := NewTask("t-lost", 21, mezzov1.TaskState_TASK_RUNNING, mezzov1.TaskState_TASK_UNREACHABLE)
	lost.Task.AgentId = &mezzov1.AgentID{Value: proto.String("m-1-S1")}
	over := NewTask("t-over", 22, mezzov1.TaskState_TASK_RUNNING, mezzov1.TaskState_TASK_FINISHED)
	over.Completed, over.Finished = true, At(60)
	return []*operatorv1.WatchEvent{
		Role(&operatorv1.Role{
			Name: "ads", Weight: 2, WeightSource: "operator", QuotaSource: "operator", Guarantee: amount(map[string]any{"cpus": 4}),
			Limit: amount(map[string]any{"cpus": 6, "mem": 1000}), Consumed: amount(map[string]any{"cpus": 3.1}),
			Allocated: amount(map[string]any{"cpus": 1.1, "mem": 160}), Offered: amount(map[string]any{"cpus": 2}), Frameworks: []string{"m-1-0000"},
		}),
		Agent(first), Agent(gone), Agent(away),
		Framework(&operatorv1.FrameworkDetail{Info: info, State: "active", Registered: At(10), Reregistered: At(15)}),
		Framework(&operatorv1.FrameworkDetail{Info: past, State: "completed", Registered: At(1), Unregistered: At(9)}),
		{Event: &operatorv1.WatchEvent_Executor{Executor: &operatorv1.ExecutorDetail{
			FrameworkId: "m-1-0000", AgentId: "m-1-S0", Role: "ads", Resources: In("ads", Scalar("cpus", 0.1), Scalar("mem", 32)),
			Info: &mezzov1.ExecutorInfo{
				ExecutorId: &mezzov1.ExecutorID{Value: proto.String("e1")}, FrameworkId: info.Id, Name: proto.String("exec"), Type: mezzov1.ExecutorInfo_CUSTOM.Enum(),
				Command: &mezzov1.CommandInfo{Value: proto.String("./run"), Shell: proto.Bool(true)},
			},
		}}},
		Task(running), Task(lost), Task(over),
		{Event: &operatorv1.WatchEvent_OfferDetail{OfferDetail: &mezzov1.Offer{
			Id: &mezzov1.OfferID{Value: proto.String("m-1-O3")}, FrameworkId: info.Id, AgentId: &mezzov1.AgentID{Value: proto.String("m-1-S0")},
			Hostname: proto.String("host0"), AllocationInfo: &mezzov1.Resource_AllocationInfo{Role: proto.String("ads")},
			Resources: In("ads", Scalar("cpus", 2)),
		}}},
	}
}
