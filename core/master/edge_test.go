package master_test

import (
	"context"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/mezzo-os/mezzo/core/link"
	"github.com/mezzo-os/mezzo/core/rpc"
	linkv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/link/v1"
	operatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/operator/v1"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
	schedulerv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1/scheduler"
	"github.com/mezzo-os/mezzo/sdk/resource"
)

// strict allows all but what it names.
type strict struct {
	action rpc.Action
	object func(rpc.Object) bool
}

func (s strict) Authorize(_ context.Context, who rpc.Principal, action rpc.Action, object rpc.Object) error {
	if action == s.action && s.object(object) {
		return rpc.Denied(who, action, object)
	}
	return nil
}

func TestAuthorizerIsAskedForTheUserThatATaskRunsAs(t *testing.T) {
	o := options(t)
	o.Authorizer = strict{rpc.RunTask, func(object rpc.Object) bool { return object.User == "root" }}
	m := start(t, o)
	a := newAgent(t, "h1", "cpus:4;mem:4096")
	a.connect(m.Addresses()["rpc"])
	e := subscribe(t, m.Addresses()["rpc"], info("test"))
	offer := await(t, "an offer", e.offers)
	evil, good := task("t1", "cpus:1;mem:64"), task("t2", "cpus:1;mem:64")
	evil.Command.User = proto.String("root")
	// Each task for itself: the others of the same call run.
	if err := e.Launch(t.Context(), offer, evil, good); err != nil {
		t.Errorf("the call: %v", err)
	}
	if st := e.until(t, "t1", mezzov1.TaskState_TASK_ERROR); st.GetReason() != mezzov1.TaskStatus_REASON_TASK_UNAUTHORIZED ||
		!strings.Contains(st.GetMessage(), "'root'") {
		t.Errorf("a task as root: %v", st)
	}
	e.until(t, "t2", mezzov1.TaskState_TASK_RUNNING)
}

func TestAuthorizerIsAskedAtEveryDoor(t *testing.T) {
	for _, action := range []rpc.Action{rpc.RegisterAgent, rpc.RegisterFramework, rpc.ViewCluster, rpc.KillTask, rpc.TeardownFramework} {
		t.Run(string(action), func(t *testing.T) {
			o := options(t)
			o.Authorizer = strict{action, func(rpc.Object) bool { return true }}
			m := start(t, o)
			conn := dial(t, m.Addresses()["rpc"])
			operator := operatorv1.NewOperatorClient(conn)
			var err error
			switch action {
			case rpc.RegisterAgent:
				stream, opened := linkv1.NewAgentLinkClient(conn).Connect(t.Context())
				if opened != nil {
					t.Fatal(opened)
				}
				if err := stream.Send(&linkv1.AgentMessage{Message: &linkv1.AgentMessage_Register{Register: &linkv1.Register{Agent: &linkv1.Agent{Hostname: "h"}}}}); err != nil {
					t.Fatal(err)
				}
				_, err = stream.Recv()
			case rpc.RegisterFramework:
				stream, opened := schedulerv1.NewSchedulerClient(conn).Subscribe(t.Context(), &schedulerv1.Call_Subscribe{FrameworkInfo: info("test")})
				if opened != nil {
					t.Fatal(opened)
				}
				_, err = stream.Recv()
			case rpc.ViewCluster:
				_, err = operator.ListAgents(t.Context(), &operatorv1.ListAgentsRequest{})
			case rpc.KillTask:
				_, err = operator.KillTask(t.Context(), &operatorv1.KillTaskRequest{TaskId: "t"})
			case rpc.TeardownFramework:
				_, err = operator.Teardown(t.Context(), &operatorv1.TeardownRequest{FrameworkId: "f"})
			}
			if status.Code(err) != codes.PermissionDenied {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestSlowAgentIsDisconnectedAndOthersGoOn(t *testing.T) {
	m := start(t, options(t))
	stream, err := linkv1.NewAgentLinkClient(dial(t, m.Addresses()["rpc"])).Connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	p := link.NewPacker()
	register := &linkv1.Register{Agent: &linkv1.Agent{Hostname: "slow", Version: "0.1.0", BootId: "b", Resources: p.Pack(resource.MustParse("cpus:1;mem:1024"))}}
	register.Kinds = p.Kinds()
	if err := stream.Send(&linkv1.AgentMessage{Message: &linkv1.AgentMessage_Register{Register: register}}); err != nil {
		t.Fatal(err)
	}
	answer, err := stream.Recv()
	if err != nil {
		t.Fatal(err)
	}
	// It reads no more, while a scheduler sends its executor a lot.
	e := subscribe(t, m.Addresses()["rpc"], info("test"))
	await(t, "the subscription", e.subscribed)
	id := &mezzov1.AgentID{Value: proto.String(answer.GetRegistered().GetAgentId())}
	var results []<-chan error
	for range 100 {
		results = append(results, e.Send(&schedulerv1.Call{Type: schedulerv1.Call_MESSAGE.Enum(), Message: &schedulerv1.Call_Message{
			AgentId: id, ExecutorId: &mezzov1.ExecutorID{Value: proto.String("e")}, Data: make([]byte, 200<<10),
		}}))
	}
	for _, result := range results {
		await(t, "a call's result", result)
	}
	awaitStatus(t, m.operator(t), func(s *operatorv1.Status) bool { return s.Agents.GetTotal() == 1 && s.Agents.GetActive() == 0 })
	for err == nil {
		_, err = stream.Recv()
	}
	if status.Code(err) != codes.Canceled {
		t.Errorf("its stream ended with %v", err)
	}
	a := newAgent(t, "quick", "cpus:4;mem:4096")
	a.connect(m.Addresses()["rpc"])
	for {
		if offer := await(t, "an offer", e.offers); offer.GetHostname() == "quick" {
			return
		}
	}
}

// TestHostname is that schedulers are told the name that the operator gave.
func TestHostname(t *testing.T) {
	o := options(t)
	o.Config.Hostname = "m1.example.org"
	m := start(t, o)
	stream, err := schedulerv1.NewSchedulerClient(dial(t, m.Addresses()["rpc"])).Subscribe(t.Context(), &schedulerv1.Call_Subscribe{FrameworkInfo: info("named")})
	if err != nil {
		t.Fatal(err)
	}
	first, err := stream.Recv()
	if err != nil {
		t.Fatal(err)
	}
	told := first.GetSubscribed().GetMasterInfo()
	if told.GetHostname() != "m1.example.org" || told.GetAddress().GetHostname() != "m1.example.org" {
		t.Errorf("the master calls itself %v", told)
	}
}
