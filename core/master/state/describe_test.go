package state_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/mezzo-os/mezzo/core/master/state"
	"github.com/mezzo-os/mezzo/sdk/allocator"
	"github.com/mezzo-os/mezzo/sdk/resource"

	linkv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/link/v1"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
	schedulerv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1/scheduler"
)

// describe writes an output as one or more lines of a transcript; nothing for
// what a transcript does not show.
func describe(out state.Output) string {
	switch out := out.(type) {
	case state.SendAgent:
		return fmt.Sprintf("agent link %d <- %s", out.Link, describeMaster(out.Message))
	case state.CloseAgent:
		return fmt.Sprintf("agent link %d closed: %s", out.Link, out.Reason)
	case state.SendScheduler:
		return fmt.Sprintf("scheduler %s <- %s", out.Stream, describeEvent(out.Event))
	case state.SendOffers:
		return fmt.Sprintf("scheduler %s <- %s", out.Stream, describeEvent(read(out)))
	case state.CloseScheduler:
		return fmt.Sprintf("scheduler %s closed: %s", out.Stream, out.Reason)
	case state.CallResult:
		if out.Result.GetCode() == schedulerv1.CallResult_ACCEPTED {
			return ""
		}
		return fmt.Sprintf("call %s: %s", out.Result.GetCode(), out.Result.GetMessage())
	case state.AllocatorBegin:
		return fmt.Sprintf("allocator %d begin first_decision=%d", out.Session, out.Begin.FirstDecision)
	case state.AllocatorBatch:
		return describeBatch(out)
	case state.AllocatorCurrent:
		return fmt.Sprintf("allocator %d is current, replaces %d", out.Session, out.Replaced)
	case state.CloseAllocator:
		return fmt.Sprintf("allocator %d closed: %s", out.Session, out.Reason)
	case state.RegistryWrite:
		var lines []string
		for _, e := range out.Entries {
			value := "deleted"
			if e.Value != nil {
				value = standing(e)
			}
			lines = append(lines, fmt.Sprintf("registry %d: %s %s", out.ID, e.Key, value))
		}
		return strings.Join(lines, "\n")
	case state.Reply:
		if out.Err != nil {
			return fmt.Sprintf("reply %d: %s", out.Request, out.Err.Message)
		}
		s := fmt.Sprintf("reply %d: done", out.Request)
		for _, w := range out.Warnings {
			s += "; warning: " + w
		}
		return s
	}
	return ""
}

func standing(e state.Entry) string {
	for _, s := range []string{"admitted", "unreachable", "gone"} {
		if strings.Contains(string(e.Value), `"standing":"`+s+`"`) {
			return s + service(string(e.Value))
		}
	}
	var record struct{ Waited time.Duration }
	if json.Unmarshal(e.Value, &record) == nil && record.Waited > 0 {
		return "written waited=" + record.Waited.String()
	}
	return "written"
}

// service is what an agent's record says of its being in service.
func service(record string) string {
	var out string
	if strings.Contains(record, `"deactivated":true`) {
		out += " deactivated"
	}
	switch {
	case strings.Contains(record, `"drained":true`):
		out += " drained"
	case strings.Contains(record, `"drain":`):
		out += " draining"
	}
	return out
}

func describeMaster(msg *linkv1.MasterMessage) string {
	refs := func(list []*linkv1.TaskRef) string {
		var out []string
		for _, r := range list {
			out = append(out, r.GetFrameworkId()+"/"+r.GetTaskId())
		}
		return strings.Join(out, ",")
	}
	switch x := msg.GetMessage().(type) {
	case *linkv1.MasterMessage_Registered:
		s := "REGISTERED " + x.Registered.GetAgentId()
		if k := x.Registered.GetKilled(); len(k) > 0 {
			s += " killed=" + refs(k)
		}
		if c := x.Registered.GetCompletedFrameworks(); len(c) > 0 {
			s += " completed=" + strings.Join(c, ",")
		}
		return s
	case *linkv1.MasterMessage_Refused:
		s := fmt.Sprintf("REFUSED gone=%v", x.Refused.GetGone())
		if x.Refused.GetShutdown() {
			s += " shutdown"
		}
		return s + ": " + x.Refused.GetReason()
	case *linkv1.MasterMessage_Ping:
		return "PING"
	case *linkv1.MasterMessage_Run:
		var ids []string
		for _, t := range x.Run.GetTasks() {
			ids = append(ids, t.GetTaskId().GetValue())
		}
		s := "RUN " + strings.Join(ids, ",")
		if e := x.Run.GetExecutor(); e != nil {
			s += " executor=" + e.GetExecutorId().GetValue()
		}
		if x.Run.GetGroup() {
			s += " group"
		}
		return s
	case *linkv1.MasterMessage_Kill:
		s := "KILL " + refs([]*linkv1.TaskRef{x.Kill.GetTask()})
		if g := x.Kill.GetKillPolicy().GetGracePeriod(); g != nil {
			s += fmt.Sprintf(" grace=%s", time.Duration(g.GetNanoseconds()))
		}
		return s
	case *linkv1.MasterMessage_Revoke:
		return fmt.Sprintf("REVOKE %s grace=%s: %s", refs([]*linkv1.TaskRef{x.Revoke.GetTask()}),
			time.Duration(x.Revoke.GetGraceMs())*time.Millisecond, x.Revoke.GetReason())
	case *linkv1.MasterMessage_Acknowledge:
		return "ACKNOWLEDGE " + refs([]*linkv1.TaskRef{x.Acknowledge.GetTask()})
	case *linkv1.MasterMessage_ShutdownFramework:
		return "SHUTDOWN FRAMEWORK " + x.ShutdownFramework.GetFrameworkId()
	case *linkv1.MasterMessage_ShutdownExecutor:
		return "SHUTDOWN EXECUTOR " + x.ShutdownExecutor.GetExecutorId()
	case *linkv1.MasterMessage_Reconcile:
		return "RECONCILE " + refs(x.Reconcile.GetTasks())
	case *linkv1.MasterMessage_FrameworkMessage:
		return fmt.Sprintf("MESSAGE executor=%s %q", x.FrameworkMessage.GetExecutorId(), x.FrameworkMessage.GetData())
	case *linkv1.MasterMessage_Operation:
		s := "OPERATION " + x.Operation.GetInfo().GetType().String()
		if id := x.Operation.GetOperationId(); id != "" {
			s += " id=" + id
		}
		if f := x.Operation.GetFrameworkId(); f != "" {
			s += " of " + f
		}
		return s
	case *linkv1.MasterMessage_AcknowledgeOperation:
		return "ACKNOWLEDGE OPERATION of " + x.AcknowledgeOperation.GetFrameworkId()
	case *linkv1.MasterMessage_Drain:
		s := "DRAIN"
		if x.Drain.MaxGraceMs != nil {
			s += fmt.Sprintf(" grace=%s", time.Duration(x.Drain.GetMaxGraceMs())*time.Millisecond)
		}
		if x.Drain.GetMarkGone() {
			s += " mark_gone"
		}
		if x.Drain.GetOver() {
			s += " over"
		}
		return s
	case *linkv1.MasterMessage_UpdateFramework:
		return "UPDATE FRAMEWORK " + x.UpdateFramework.GetFramework().GetId().GetValue()
	}
	return fmt.Sprintf("%T", msg.GetMessage())
}

// read is an event of offers as a scheduler reads it.
func read(out state.SendOffers) *schedulerv1.Event {
	event := new(schedulerv1.Event)
	data, err := proto.Marshal(out.Event())
	if err == nil {
		err = proto.Unmarshal(data, event)
	}
	if err != nil {
		panic(fmt.Sprintf("offers that nobody can read: %v", err))
	}
	return event
}

func describeEvent(e *schedulerv1.Event) string {
	switch e.GetType() {
	case schedulerv1.Event_SUBSCRIBED:
		return "SUBSCRIBED " + e.GetSubscribed().GetFrameworkId().GetValue()
	case schedulerv1.Event_OFFERS:
		var lines []string
		for _, o := range e.GetOffers().GetOffers() {
			res, err := resource.FromProto(o.GetResources())
			if err != nil {
				return err.Error()
			}
			s := fmt.Sprintf("OFFER %s role=%s agent=%s %s", o.GetId().GetValue(), o.GetAllocationInfo().GetRole(),
				o.GetAgentId().GetValue(), res.Unallocate()) + window(o.GetUnavailability())
			for _, x := range o.GetExecutorIds() {
				s += " executor=" + x.GetValue()
			}
			lines = append(lines, s)
		}
		return strings.Join(lines, " + ")
	case schedulerv1.Event_RESCIND:
		return "RESCIND " + e.GetRescind().GetOfferId().GetValue()
	case schedulerv1.Event_INVERSE_OFFERS:
		var lines []string
		for _, o := range e.GetInverseOffers().GetInverseOffers() {
			lines = append(lines, fmt.Sprintf("INVERSE OFFER %s agent=%s%s", o.GetId().GetValue(), o.GetAgentId().GetValue(), window(o.GetUnavailability())))
		}
		return strings.Join(lines, " + ")
	case schedulerv1.Event_RESCIND_INVERSE_OFFER:
		return "RESCIND INVERSE OFFER " + e.GetRescindInverseOffer().GetInverseOfferId().GetValue()
	case schedulerv1.Event_UPDATE:
		st := e.GetUpdate().GetStatus()
		s := fmt.Sprintf("UPDATE %s %s source=%s", st.GetTaskId().GetValue(), strings.TrimPrefix(st.GetState().String(), "TASK_"),
			strings.TrimPrefix(st.GetSource().String(), "SOURCE_"))
		if st.Reason != nil {
			s += " reason=" + strings.TrimPrefix(st.GetReason().String(), "REASON_")
		}
		if st.UnreachableTime != nil {
			s += " unreachable_time"
		}
		if len(st.GetUuid()) > 0 {
			s += " uuid"
		}
		if st.Message != nil {
			s += ": " + st.GetMessage()
		}
		return s
	case schedulerv1.Event_UPDATE_OPERATION_STATUS:
		st := e.GetUpdateOperationStatus().GetStatus()
		s := fmt.Sprintf("OPERATION %s %s", st.GetOperationId().GetValue(), st.GetState())
		if st.GetUuid() != nil {
			s += " to acknowledge"
		}
		return s + ": " + st.GetMessage()
	case schedulerv1.Event_MESSAGE:
		return fmt.Sprintf("MESSAGE executor=%s %q", e.GetMessage().GetExecutorId().GetValue(), e.GetMessage().GetData())
	case schedulerv1.Event_FAILURE:
		s := "FAILURE agent=" + e.GetFailure().GetAgentId().GetValue()
		if x := e.GetFailure().GetExecutorId(); x != nil {
			s += fmt.Sprintf(" executor=%s status=%d", x.GetValue(), e.GetFailure().GetStatus())
		}
		return s
	case schedulerv1.Event_ERROR:
		return "ERROR " + e.GetError().GetMessage()
	}
	return e.GetType().String()
}

// window is a planned unavailability, by when it begins from the epoch of the
// tests; empty: none.
func window(u *mezzov1.Unavailability) string {
	if u == nil {
		return ""
	}
	return fmt.Sprintf(" unavailable=%s+%s", time.Unix(0, u.GetStart().GetNanoseconds()).Sub(epoch), time.Duration(u.GetDuration().GetNanoseconds()))
}

func describeBatch(out state.AllocatorBatch) string {
	b := out.Batch
	var lines []string
	head := fmt.Sprintf("allocator %d <- ", out.Session)
	if b.Snapshot {
		head += "snapshot "
	}
	for _, e := range b.Events {
		lines = append(lines, head+describeAllocatorEvent(e))
	}
	if b.SnapshotEnd {
		lines = append(lines, head+"end")
	}
	return strings.Join(lines, "\n")
}

func describeAllocatorEvent(e allocator.Event) string {
	res := func(r resource.Resources) string {
		if r.IsEmpty() {
			return "nothing"
		}
		return r.String()
	}
	switch e := e.(type) {
	case *allocator.AgentUpdated:
		s := fmt.Sprintf("agent %s active=%v total=%s", e.ID, e.Active, e.Total)
		if u := e.Unavailability; u != nil {
			s += fmt.Sprintf(" unavailable=%s+%s", u.Start.Sub(epoch), u.Duration)
		}
		for _, h := range e.Holdings {
			s += fmt.Sprintf(" held=%s/%s:%s", h.Framework, h.Role, h.Resources)
		}
		return s
	case *allocator.AgentRemoved:
		return "agent removed " + e.ID
	case *allocator.FrameworkUpdated:
		return fmt.Sprintf("framework %s active=%v roles=%v suppressed=%v", e.ID, e.Active, e.Roles, e.Suppressed)
	case *allocator.FrameworkRemoved:
		return "framework removed " + e.ID
	case *allocator.RoleUpdated:
		s := fmt.Sprintf("role %s weight=%d", e.Name, e.Weight)
		if e.Limit != nil {
			s += " limit=" + e.Limit.String()
		}
		if e.Guarantee != nil {
			s += " guarantee=" + e.Guarantee.String()
		}
		if e.Starved > 0 {
			s += fmt.Sprintf(" starved=%s", e.Starved)
		}
		return s
	case *allocator.Held:
		return fmt.Sprintf("held %s %s/%s %s", e.Agent, e.Framework, e.Role, e.Resources)
	case *allocator.Converted:
		s := fmt.Sprintf("converted %s %s to %s", e.Agent, res(e.From), res(e.To))
		if e.Framework != "" {
			s += fmt.Sprintf(" of %s/%s", e.Framework, e.Role)
		}
		return s
	case *allocator.Released:
		s := fmt.Sprintf("released %s %s/%s %s", e.Agent, e.Framework, e.Role, res(e.Resources))
		if e.Refuse > 0 {
			s += fmt.Sprintf(" refuse=%s", e.Refuse)
		}
		if e.Declined {
			s += " declined"
		}
		if e.Offer != 0 {
			s += fmt.Sprintf(" offer=%d", e.Offer)
		}
		return s
	case *allocator.Filter:
		s := fmt.Sprintf("filter %s %s/%s %s remaining=%s", e.Agent, e.Framework, e.Role, e.Resources, e.Remaining)
		if e.Soft {
			s += " soft"
		}
		return s
	case *allocator.OfferOutstanding:
		return fmt.Sprintf("offer %d %s %s/%s %s", e.Number, e.Agent, e.Framework, e.Role, e.Resources)
	case *allocator.InverseOfferStatus:
		s := fmt.Sprintf("inverse offer %d %s %s %s", e.Number, e.Agent, e.Framework,
			[]string{"", "outstanding", "accepted", "declined", "rescinded"}[e.State])
		if e.Refuse > 0 {
			s += fmt.Sprintf(" refuse=%s", e.Refuse)
		}
		return s
	case *allocator.Refused:
		return fmt.Sprintf("refused %d %s: %s", e.Decision, strings.TrimPrefix(e.Reason.String(), "REFUSAL_REASON_"), e.Message)
	case *allocator.Suppressed:
		return fmt.Sprintf("suppressed %s %v", e.Framework, e.Roles)
	case *allocator.Revived:
		return fmt.Sprintf("revived %s %v", e.Framework, e.Roles)
	case *allocator.TaskStarted:
		s := fmt.Sprintf("task %d started %s", e.Number, e.Resources)
		if r := e.Revocation; r != nil {
			s += fmt.Sprintf(" revoked, %s left", r.Remaining)
			if r.Framework != "" {
				s += fmt.Sprintf(", for %s in %s", r.Framework, r.Role)
			}
		}
		return s
	case *allocator.TaskEnded:
		return fmt.Sprintf("task %d ended", e.Number)
	case *allocator.Requested:
		return fmt.Sprintf("requested %s %s", e.Framework, e.Resources)
	}
	return fmt.Sprintf("%T", e)
}

func lines(outs []state.Output) string {
	var b strings.Builder
	for _, o := range outs {
		if s := describe(o); s != "" {
			b.WriteString(s)
			b.WriteByte('\n')
		}
	}
	return b.String()
}

func sortedKeys[V any](m map[string]V) []string {
	var out []string
	for k := range m {
		out = append(out, k)
	}
	sort.Strings(out)
	return out
}

// checkMirror proves that the allocator's mirror, kept by events alone, is what
// a fresh session would be told. It opens that session on a copy: on the same
// machine, and goes on with it.
func (w *world) checkMirror(t reporter) {
	t.Helper()
	for _, r := range []*mirror{w.mirror, w.next} {
		if r != nil && !r.snapshot {
			w.checkOne(t, r)
		}
	}
}

func (w *world) checkOne(t reporter, r *mirror) {
	t.Helper()
	total, held := w.m.Books()
	for id, a := range r.agents {
		want, known := total[id]
		if !known {
			t.Fatalf("mirror has agent %s, which is not present", id)
		}
		if !a.updated.Total.Equal(want) {
			t.Fatalf("mirror has total %s of agent %s, want %s", a.updated.Total, id, want)
		}
		for key, h := range a.holdings {
			if !h.Equal(held[id][key]) {
				t.Fatalf("mirror has %s for %v on agent %s, the books %s", h, key, id, held[id][key])
			}
		}
		for key, h := range held[id] {
			if !h.Equal(a.holdings[key]) {
				t.Fatalf("the books have %s for %v on agent %s, the mirror %s", h, key, id, a.holdings[key])
			}
		}
	}
	if len(total) != len(r.agents) {
		t.Fatalf("mirror has %d agents, %d are present", len(r.agents), len(total))
	}
}

func offerDecision(s state.Session, number uint64, agent, framework, role string, res resource.Resources) state.AllocatorDecisions {
	return state.AllocatorDecisions{Session: s, Decisions: []allocator.Decision{
		&allocator.Offer{Number: number, Agent: agent, Framework: framework, Role: role, Resources: res},
	}}
}

// watcher is what somebody knows who saw every Publish.
type watcher map[string]any

func (w watcher) see(p state.Publish) {
	for _, v := range p.Agents {
		w["agent "+v.ID] = v
	}
	for _, id := range p.AgentsRemoved {
		delete(w, "agent "+id)
	}
	for _, v := range p.Frameworks {
		w["framework "+v.ID] = v
	}
	for _, id := range p.FrameworksRemoved {
		delete(w, "framework "+id)
	}
	for _, v := range p.Executors {
		w[fmt.Sprint("executor ", v.ExecutorKey)] = v
	}
	for _, k := range p.ExecutorsRemoved {
		delete(w, fmt.Sprint("executor ", k))
	}
	for _, v := range p.Operations {
		w["operation "+v.UUID] = v
	}
	for _, uuid := range p.OperationsRemoved {
		delete(w, "operation "+uuid)
	}
	for _, v := range p.Tasks {
		w["task "+v.FrameworkID+"/"+v.TaskID] = v
	}
	for _, k := range p.TasksRemoved {
		delete(w, "task "+k.FrameworkID+"/"+k.TaskID)
	}
	for _, v := range p.Offers {
		w["offer "+v.ID] = v
	}
	for _, id := range p.OffersRemoved {
		delete(w, "offer "+id)
	}
	for _, v := range p.Roles {
		w["role "+v.Name] = v
	}
	for _, name := range p.RolesRemoved {
		delete(w, "role "+name)
	}
}

// sameOutputs compares what machines put out, messages by their contents.
var sameOutputs = cmp.Options{
	protocmp.Transform(),
	cmp.Comparer(func(a, b resource.Resources) bool { return a.Equal(b) }),
	cmp.Comparer(func(a, b resource.Quantities) bool { return slices.Equal(a, b) }),
}
