package sim

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	linkv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/link/v1"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
)

// wire passes a message as a real stream would: as bytes, if the run is one in
// which that is tried.
func (w *world) wire(m proto.Message) proto.Message {
	if !w.cfg.Wire {
		return m
	}
	return w.decoded(m)
}

// decoded is the message as whoever gets it reads it.
func (w *world) decoded(m proto.Message) proto.Message {
	b, err := proto.MarshalOptions{AllowPartial: true, Deterministic: true}.Marshal(m)
	if err != nil {
		w.fail(w.lastSubjects(), "%T does not encode: %v", m, err)
		return m
	}
	out := m.ProtoReflect().New().Interface()
	if err := (proto.UnmarshalOptions{AllowPartial: true}).Unmarshal(b, out); err != nil {
		w.fail(w.lastSubjects(), "%T does not decode: %v", m, err)
	}
	return out
}

func sorted[K cmp.Ordered, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }

func shortUUID(b []byte) string {
	if len(b) == 0 {
		return "-"
	}
	return fmt.Sprintf("%x", b[:min(4, len(b))])
}

func refs(list []*linkv1.TaskRef) string {
	var out []string
	for _, r := range list {
		out = append(out, r.GetTaskId())
	}
	return strings.Join(out, ",")
}

// tasksOf are the tasks that a message is about.
func tasksOf(msg *linkv1.MasterMessage) []string {
	var out []string
	add := func(list ...*linkv1.TaskRef) {
		for _, r := range list {
			out = append(out, r.GetTaskId())
		}
	}
	switch x := msg.GetMessage().(type) {
	case *linkv1.MasterMessage_Run:
		for _, t := range x.Run.GetTasks() {
			out = append(out, t.GetTaskId().GetValue())
		}
	case *linkv1.MasterMessage_Kill:
		add(x.Kill.GetTask())
	case *linkv1.MasterMessage_Acknowledge:
		add(x.Acknowledge.GetTask())
	case *linkv1.MasterMessage_Reconcile:
		add(x.Reconcile.GetTasks()...)
	case *linkv1.MasterMessage_Registered:
		add(x.Registered.GetKilled()...)
	case *linkv1.MasterMessage_Operation:
		out = append(out, x.Operation.GetInfo().GetId().GetValue())
	}
	return out
}

func describeMaster(msg *linkv1.MasterMessage) string {
	switch x := msg.GetMessage().(type) {
	case *linkv1.MasterMessage_Registered:
		return fmt.Sprintf("REGISTERED %s killed=%s completed=%v", x.Registered.GetAgentId(), refs(x.Registered.GetKilled()), x.Registered.GetCompletedFrameworks())
	case *linkv1.MasterMessage_Refused:
		return "REFUSED " + x.Refused.GetReason()
	case *linkv1.MasterMessage_Run:
		return "RUN " + strings.Join(tasksOf(msg), ",") + " executor=" + x.Run.GetExecutor().GetExecutorId().GetValue()
	case *linkv1.MasterMessage_Kill:
		return "KILL " + x.Kill.GetTask().GetTaskId()
	case *linkv1.MasterMessage_Acknowledge:
		return fmt.Sprintf("ACK %s %s", x.Acknowledge.GetTask().GetTaskId(), shortUUID(x.Acknowledge.GetUuid()))
	case *linkv1.MasterMessage_ShutdownFramework:
		return "SHUTDOWN FRAMEWORK " + x.ShutdownFramework.GetFrameworkId()
	case *linkv1.MasterMessage_Operation:
		return fmt.Sprintf("OPERATION %s %s %s", x.Operation.GetInfo().GetId().GetValue(), shortUUID(x.Operation.GetUuid()), x.Operation.GetInfo().GetType())
	case *linkv1.MasterMessage_AcknowledgeOperation:
		return "ACK OPERATION " + shortUUID(x.AcknowledgeOperation.GetOperationUuid())
	case *linkv1.MasterMessage_Reconcile:
		return "RECONCILE " + refs(x.Reconcile.GetTasks())
	}
	return strings.TrimPrefix(fmt.Sprintf("%T", msg.GetMessage()), "*linkv1.MasterMessage_")
}

// tasksIn are the tasks that an agent's message is about.
func tasksIn(msg *linkv1.AgentMessage) []string {
	var out []string
	switch x := msg.GetMessage().(type) {
	case *linkv1.AgentMessage_Update:
		out = append(out, x.Update.GetStatus().GetTaskId().GetValue())
	case *linkv1.AgentMessage_Register:
		for _, t := range x.Register.GetTasks() {
			out = append(out, t.GetId())
		}
		for _, o := range x.Register.GetOperations() {
			out = append(out, o.GetOperationId())
		}
	case *linkv1.AgentMessage_Operation:
		out = append(out, x.Operation.GetStatus().GetOperationId().GetValue())
	}
	return out
}

func describeAgent(msg *linkv1.AgentMessage) string {
	switch x := msg.GetMessage().(type) {
	case *linkv1.AgentMessage_Register:
		var tasks []string
		for _, t := range x.Register.GetTasks() {
			s := fmt.Sprintf("%s:%s", t.GetId(), stateName(t.GetState()))
			if t.GetUnacknowledged() {
				s += fmt.Sprintf("(%s %s)", stateName(t.GetUpdateState()), shortUUID(t.GetUpdateUuid()))
			}
			tasks = append(tasks, s)
		}
		for _, o := range x.Register.GetOperations() {
			tasks = append(tasks, o.GetOperationId()+":"+o.GetLatestStatus().GetState().String())
		}
		return fmt.Sprintf("REGISTER %q tasks=%v withheld=%q more=%v", x.Register.GetAgent().GetId(), tasks, x.Register.GetAgent().GetWithheld(), x.Register.GetMore())
	case *linkv1.AgentMessage_Update:
		return "UPDATE " + describeStatus(x.Update.GetStatus()) + " latest=" + stateName(x.Update.GetLatestState())
	case *linkv1.AgentMessage_State:
		return fmt.Sprintf("STATE withheld=%q operations=%d", x.State.GetAgent().GetWithheld(), x.State.GetOperations())
	case *linkv1.AgentMessage_Operation:
		return fmt.Sprintf("UPDATE OPERATION %s %s", shortUUID(x.Operation.GetOperationUuid()), describeOperation(x.Operation.GetStatus()))
	}
	return strings.TrimPrefix(fmt.Sprintf("%T", msg.GetMessage()), "*linkv1.AgentMessage_")
}

func describeOperation(s *mezzov1.OperationStatus) string {
	return fmt.Sprintf("%s %s %s %q", s.GetOperationId().GetValue(), s.GetState(), shortUUID(s.GetUuid().GetValue()), s.GetMessage())
}

func stateName(s mezzov1.TaskState) string { return strings.TrimPrefix(s.String(), "TASK_") }

func describeStatus(s *mezzov1.TaskStatus) string {
	out := fmt.Sprintf("%s %s %s %s", s.GetTaskId().GetValue(), stateName(s.GetState()), shortUUID(s.GetUuid()), strings.TrimPrefix(s.GetSource().String(), "SOURCE_"))
	if s.Reason != nil {
		out += " " + strings.TrimPrefix(s.GetReason().String(), "REASON_")
	}
	if s.Message != nil {
		out += fmt.Sprintf(" %q", s.GetMessage())
	}
	return out
}
