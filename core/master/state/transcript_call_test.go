package state_test

import (
	"strconv"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/mezzo-os/mezzo/core/master/state"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
	schedulerv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1/scheduler"
	"github.com/mezzo-os/mezzo/sdk/resource"
)

func (s *script) schedulerCall(verb, rest string, a args) []state.Output {
	stream := a.words[0]
	fid := a.get("framework", s.streams[stream])
	c := &schedulerv1.Call{Sequence: proto.Uint64(1)}
	switch verb {
	case "accept":
		c.Type = schedulerv1.Call_ACCEPT.Enum()
		c.Accept = &schedulerv1.Call_Accept{OfferIds: offerIDs(a.list("offers")...), Filters: s.filters(a)}
		_, ops, _ := strings.Cut(rest, ":: ")
		for _, op := range strings.Split(ops, " | ") {
			if strings.TrimSpace(op) != "" {
				c.Accept.Operations = append(c.Accept.Operations, s.operation(fid, strings.TrimSpace(op)))
			}
		}
	case "agree", "disagree":
		if verb == "agree" {
			c.Type = schedulerv1.Call_ACCEPT_INVERSE_OFFERS.Enum()
			c.AcceptInverseOffers = &schedulerv1.Call_AcceptInverseOffers{InverseOfferIds: offerIDs(a.list("offers")...), Filters: s.filters(a)}
		} else {
			c.Type = schedulerv1.Call_DECLINE_INVERSE_OFFERS.Enum()
			c.DeclineInverseOffers = &schedulerv1.Call_DeclineInverseOffers{InverseOfferIds: offerIDs(a.list("offers")...), Filters: s.filters(a)}
		}
	case "decline":
		c.Type = schedulerv1.Call_DECLINE.Enum()
		c.Decline = &schedulerv1.Call_Decline{OfferIds: offerIDs(a.list("offers")...), Filters: s.filters(a)}
	case "revive":
		c.Type = schedulerv1.Call_REVIVE.Enum()
		c.Revive = &schedulerv1.Call_Revive{Roles: a.list("roles")}
	case "suppress":
		c.Type = schedulerv1.Call_SUPPRESS.Enum()
		c.Suppress = &schedulerv1.Call_Suppress{Roles: a.list("roles")}
	case "kill":
		c.Type = schedulerv1.Call_KILL.Enum()
		c.Kill = &schedulerv1.Call_Kill{TaskId: &mezzov1.TaskID{Value: proto.String(a.words[1])}, AgentId: agentID(a.get("agent", ""))}
		if g := a.get("grace", ""); g != "" {
			c.Kill.KillPolicy = &mezzov1.KillPolicy{GracePeriod: &mezzov1.DurationInfo{Nanoseconds: proto.Int64(int64(s.duration(g)))}}
		}
	case "shutdown":
		c.Type = schedulerv1.Call_SHUTDOWN.Enum()
		c.Shutdown = &schedulerv1.Call_Shutdown{ExecutorId: &mezzov1.ExecutorID{Value: proto.String(a.words[1])}, AgentId: agentID(a.get("agent", "m-S0"))}
	case "ack":
		c.Type = schedulerv1.Call_ACKNOWLEDGE.Enum()
		c.Acknowledge = &schedulerv1.Call_Acknowledge{
			AgentId: agentID(a.get("agent", "m-S0")), TaskId: &mezzov1.TaskID{Value: proto.String(a.words[1])},
			Uuid: uuid(s.number(a.get("uuid", "1"))),
		}
		if a.get("bad", "") != "" {
			c.Acknowledge.Uuid = []byte("short")
		}
	case "reconcile":
		c.Type = schedulerv1.Call_RECONCILE.Enum()
		c.Reconcile = &schedulerv1.Call_Reconcile{}
		for _, t := range a.list("tasks") {
			id, agent, _ := strings.Cut(t, "@")
			c.Reconcile.Tasks = append(c.Reconcile.Tasks, &schedulerv1.Call_Reconcile_Task{
				TaskId: &mezzov1.TaskID{Value: proto.String(id)}, AgentId: agentID(agent),
			})
		}
	case "message":
		c.Type = schedulerv1.Call_MESSAGE.Enum()
		c.Message = &schedulerv1.Call_Message{
			AgentId: agentID(a.get("agent", "m-S0")), ExecutorId: &mezzov1.ExecutorID{Value: proto.String(a.words[1])}, Data: []byte(a.words[2]),
		}
	case "request":
		c.Type = schedulerv1.Call_REQUEST.Enum()
		c.Request = &schedulerv1.Call_Request{Requests: []*mezzov1.Request{{Resources: resource.MustParse(a.words[1]).ToProto()}}}
	case "reconcile_operations":
		c.Type = schedulerv1.Call_RECONCILE_OPERATIONS.Enum()
		if len(a.words) == 1 {
			c.ReconcileOperations = &schedulerv1.Call_ReconcileOperations{}
			break
		}
		c.ReconcileOperations = &schedulerv1.Call_ReconcileOperations{Operations: []*schedulerv1.Call_ReconcileOperations_Operation{{
			OperationId: &mezzov1.OperationID{Value: proto.String(a.words[1])}, AgentId: agentID(a.get("agent", "")),
		}}}
	case "acknowledge_operation":
		c.Type = schedulerv1.Call_ACKNOWLEDGE_OPERATION_STATUS.Enum()
		c.AcknowledgeOperationStatus = &schedulerv1.Call_AcknowledgeOperationStatus{
			AgentId: agentID(a.get("agent", "m-S0")), OperationId: &mezzov1.OperationID{Value: proto.String(a.words[1])}, Uuid: uuid(s.number(a.get("uuid", "1"))),
		}
	case "teardown":
		c.Type = schedulerv1.Call_TEARDOWN.Enum()
	case "update_framework":
		sub := s.subscription(a)
		sub.FrameworkInfo.Id = &mezzov1.FrameworkID{Value: proto.String(fid)}
		if u := a.get("user", ""); u != "" {
			sub.FrameworkInfo.User = proto.String(u)
		}
		c.Type = schedulerv1.Call_UPDATE_FRAMEWORK.Enum()
		c.UpdateFramework = &schedulerv1.Call_UpdateFramework{FrameworkInfo: sub.FrameworkInfo, SuppressedRoles: sub.SuppressedRoles}
	default:
		s.t.Fatalf("unknown verb %q", verb)
	}
	in := call(fid, stream, c)
	if place := a.get("denied_operation", ""); place != "" {
		in.DeniedOperations = map[int]string{s.number(place): "Not authorized to perform RESERVE"}
	}
	for _, id := range a.list("denied") {
		if in.Denied == nil {
			in.Denied = map[string]string{}
		}
		in.Denied[id] = "Not authorized to launch as user 'root'"
	}
	return s.w.step(in)
}

func agentID(id string) *mezzov1.AgentID {
	if id == "" {
		return nil
	}
	return &mezzov1.AgentID{Value: proto.String(id)}
}

func (s *script) filters(a args) *mezzov1.Filters {
	r := a.get("refuse", "")
	if r == "" {
		return nil
	}
	f, err := strconv.ParseFloat(r, 64)
	if err != nil {
		s.t.Fatal(err)
	}
	return &mezzov1.Filters{RefuseSeconds: proto.Float64(f)}
}

// operation reads one operation of an accept: "launch ID RESOURCES", "group
// EXECUTOR ID,RESOURCES …", or the name of another with resources.
func (s *script) operation(fid, text string) *mezzov1.Offer_Operation {
	verb, rest, _ := strings.Cut(text, " ")
	a := parse(rest)
	agent := a.get("agent", "m-S0")
	switch verb {
	case "launch":
		t := taskInfo(a.words[0], agent, parseShort(a.words[1]))
		s.spoil(t, a)
		if e := a.get("executor", ""); e != "" {
			t.Command = nil
			t.Executor = &mezzov1.ExecutorInfo{
				ExecutorId: &mezzov1.ExecutorID{Value: proto.String(e)}, Command: &mezzov1.CommandInfo{Value: proto.String(a.get("run", "x"))},
				Resources: resource.MustParse("cpus:0.1;mem:32").ToProto(),
			}
		}
		op := launch(t)
		if id := a.get("operation", ""); id != "" {
			op.Id = &mezzov1.OperationID{Value: proto.String(id)}
		}
		return op
	case "group":
		e := &mezzov1.ExecutorInfo{
			Type: mezzov1.ExecutorInfo_DEFAULT.Enum(), ExecutorId: &mezzov1.ExecutorID{Value: proto.String(a.words[0])},
			FrameworkId: &mezzov1.FrameworkID{Value: proto.String(a.get("framework", fid))},
			Resources:   resource.MustParse(a.get("resources", "cpus:0.1;mem:32;disk:10")).ToProto(),
		}
		var tasks []*mezzov1.TaskInfo
		for _, w := range a.words[1:] {
			id, res, _ := strings.Cut(w, ",")
			t := taskInfo(id, agent, resource.MustParse(res))
			s.spoil(t, a)
			tasks = append(tasks, t)
		}
		return launchGroup(e, tasks...)
	case "reserve", "unreserve", "create", "destroy", "grow", "shrink":
		return resourceOperation(verb, a)
	}
	s.t.Fatalf("unknown operation %q", text)
	return nil
}

// spoil makes a task wrong in the way that the line asks for.
func (s *script) spoil(t *mezzov1.TaskInfo, a args) {
	switch a.get("bad", "") {
	case "":
	case "command":
		t.Command = nil
	case "both":
		t.Executor = &mezzov1.ExecutorInfo{ExecutorId: &mezzov1.ExecutorID{Value: proto.String("e")}, Command: t.Command}
	case "id":
		t.TaskId.Value = proto.String("a/b")
	case "kill":
		t.KillPolicy = &mezzov1.KillPolicy{GracePeriod: &mezzov1.DurationInfo{Nanoseconds: proto.Int64(-1)}}
	case "time":
		t.MaxCompletionTime = &mezzov1.DurationInfo{Nanoseconds: proto.Int64(-1)}
	case "check":
		t.Check = &mezzov1.CheckInfo{Type: mezzov1.CheckInfo_HTTP.Enum()}
	case "health":
		t.HealthCheck = &mezzov1.HealthCheck{Type: mezzov1.HealthCheck_TCP.Enum(), DelaySeconds: proto.Float64(-3)}
	case "resources":
		t.Resources = nil
	case "negative":
		t.Resources[0].Scalar.Value = proto.Float64(-1)
	case "role":
		t.Resources[0].AllocationInfo = &mezzov1.Resource_AllocationInfo{Role: proto.String("other")}
	case "environment":
		t.Command.Environment = &mezzov1.Environment{Variables: []*mezzov1.Environment_Variable{{Name: proto.String("A")}}}
	case "container":
		t.Container = &mezzov1.ContainerInfo{Type: mezzov1.ContainerInfo_DOCKER.Enum()}
	case "limits":
		t.Limits = map[string]*mezzov1.Value_Scalar{"cpus": {Value: proto.Float64(0.001)}}
	case "limit_name":
		t.Limits = map[string]*mezzov1.Value_Scalar{"disk": {Value: proto.Float64(1)}}
	case "cgroups":
		t.Container = &mezzov1.ContainerInfo{Type: mezzov1.ContainerInfo_MESOS.Enum(), LinuxInfo: &mezzov1.LinuxInfo{ShareCgroups: proto.Bool(false)}}
	default:
		s.t.Fatalf("unknown way to be wrong: %q", a.get("bad", ""))
	}
}
