package state

import (
	"fmt"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/mezzo-os/mezzo/sdk/allocator"
	"github.com/mezzo-os/mezzo/sdk/resource"

	linkv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/link/v1"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
	schedulerv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1/scheduler"
)

// refusal is why a call is not carried out.
type refusal struct {
	code schedulerv1.CallResult_Code
	why  string
}

func invalid(format string, args ...any) *refusal {
	return &refusal{schedulerv1.CallResult_INVALID, fmt.Sprintf(format, args...)}
}

// schedulerCall carries out one call and answers it.
func (m *Machine) schedulerCall(in SchedulerCall) {
	result := &schedulerv1.CallResult{Sequence: in.Call.Sequence, Code: schedulerv1.CallResult_ACCEPTED.Enum()}
	f, no := m.callerOf(in)
	if no == nil {
		no = m.call(f, in)
	}
	if no != nil {
		result.Code, result.Message = no.code.Enum(), proto.String(no.why)
	}
	m.emit(CallResult{Caller: in.Caller, Result: result})
}

// callerOf finds the framework of a call and checks that it may call.
func (m *Machine) callerOf(in SchedulerCall) (*framework, *refusal) {
	id := in.Call.GetFrameworkId().GetValue()
	if in.Call.GetType() == schedulerv1.Call_SUBSCRIBE {
		return nil, invalid("SUBSCRIBE opens a stream of its own and is not a call")
	}
	if id == "" {
		return nil, invalid("Expecting 'framework_id' to be present")
	}
	f := m.frameworks[id]
	if f == nil || f.removed() || f.removing || f.phase == frameworkAdmitting {
		return nil, &refusal{schedulerv1.CallResult_UNKNOWN_FRAMEWORK, "Framework cannot be found"}
	}
	if p := f.info.GetPrincipal(); in.Principal != "" && p != in.Principal {
		return nil, &refusal{schedulerv1.CallResult_WRONG_PRINCIPAL,
			fmt.Sprintf("Authenticated principal '%s' does not match principal '%s' set in `FrameworkInfo`", in.Principal, p)}
	}
	switch stream := Stream(in.Call.GetStreamId()); {
	case !f.connected():
		return nil, &refusal{schedulerv1.CallResult_NOT_SUBSCRIBED, "Framework is not subscribed"}
	case stream == "":
		return nil, &refusal{schedulerv1.CallResult_NO_STREAM, "The call has no stream id; set 'stream_id' to that of SUBSCRIBED"}
	case stream != f.stream:
		return nil, &refusal{schedulerv1.CallResult_SUPERSEDED, "The stream id is not that of the framework's current subscription"}
	}
	return f, nil
}

func (m *Machine) call(f *framework, in SchedulerCall) *refusal {
	c := in.Call
	missing := func(set bool, name string) *refusal {
		if !set {
			return invalid("Expecting '%s' to be present", name)
		}
		return nil
	}
	switch c.GetType() {
	case schedulerv1.Call_TEARDOWN:
		m.removeFramework(f, "its scheduler tore it down", nil)
	case schedulerv1.Call_ACCEPT:
		if no := missing(c.Accept != nil, "accept"); no != nil {
			return no
		}
		m.accept(f, c.GetAccept(), in)
	case schedulerv1.Call_DECLINE:
		if no := missing(c.Decline != nil, "decline"); no != nil {
			return no
		}
		m.decline(f, c.GetDecline())
	case schedulerv1.Call_ACCEPT_INVERSE_OFFERS:
		if no := missing(c.AcceptInverseOffers != nil, "accept_inverse_offers"); no != nil {
			return no
		}
		m.answerInverse(f, c.GetAcceptInverseOffers().GetInverseOfferIds(), allocator.InverseOfferAccepted, c.GetAcceptInverseOffers().GetFilters())
	case schedulerv1.Call_DECLINE_INVERSE_OFFERS:
		if no := missing(c.DeclineInverseOffers != nil, "decline_inverse_offers"); no != nil {
			return no
		}
		m.answerInverse(f, c.GetDeclineInverseOffers().GetInverseOfferIds(), allocator.InverseOfferDeclined, c.GetDeclineInverseOffers().GetFilters())
	case schedulerv1.Call_REVIVE:
		m.revive(f, c.GetRevive().GetRoles())
	case schedulerv1.Call_SUPPRESS:
		m.suppress(f, c.GetSuppress().GetRoles())
	case schedulerv1.Call_KILL:
		if no := missing(c.Kill != nil && c.GetKill().GetTaskId() != nil, "kill"); no != nil {
			return no
		}
		if why := checkKillPolicy(c.GetKill().GetKillPolicy()); why != "" {
			return invalid("%s", why)
		}
		m.kill(f, c.GetKill())
	case schedulerv1.Call_SHUTDOWN:
		if no := missing(c.Shutdown != nil, "shutdown"); no != nil {
			return no
		}
		m.shutdownExecutor(f, c.GetShutdown())
	case schedulerv1.Call_ACKNOWLEDGE:
		if no := missing(c.Acknowledge != nil, "acknowledge"); no != nil {
			return no
		}
		return m.acknowledgeCall(f, c.GetAcknowledge())
	case schedulerv1.Call_ACKNOWLEDGE_OPERATION_STATUS:
		if no := missing(c.AcknowledgeOperationStatus != nil, "acknowledge_operation_status"); no != nil {
			return no
		}
		return m.acknowledgeOperationCall(f, c.GetAcknowledgeOperationStatus())
	case schedulerv1.Call_RECONCILE:
		if no := missing(c.Reconcile != nil, "reconcile"); no != nil {
			return no
		}
		m.reconcile(f, c.GetReconcile())
	case schedulerv1.Call_RECONCILE_OPERATIONS:
		m.reconcileOperations(f, c.GetReconcileOperations())
	case schedulerv1.Call_MESSAGE:
		if no := missing(c.Message != nil, "message"); no != nil {
			return no
		}
		m.schedulerMessage(f, c.GetMessage())
	case schedulerv1.Call_REQUEST:
		m.request(f, c.GetRequest())
	case schedulerv1.Call_UPDATE_FRAMEWORK:
		if no := missing(c.UpdateFramework != nil, "update_framework"); no != nil {
			return no
		}
		return m.updateFramework(f, c.GetUpdateFramework(), in.Principal)
	default:
		return invalid("Unknown call type")
	}
	return nil
}

// rolesFor returns the roles that a REVIVE or SUPPRESS is about; false when one
// of them is not the framework's, and then nothing is done.
func (f *framework) rolesFor(roles []string) ([]string, bool) {
	if len(roles) == 0 {
		return f.roles, true
	}
	for _, r := range roles {
		if !slices.Contains(f.roles, r) {
			return nil, false
		}
	}
	return slices.Compact(slices.Sorted(slices.Values(roles))), true
}

func (m *Machine) revive(f *framework, roles []string) {
	roles, ok := f.rolesFor(roles)
	if !ok {
		m.logf(Warn, "REVIVE of a role that the framework is not subscribed to ignored", "framework_id", f.id)
		return
	}
	for _, r := range roles {
		delete(f.suppressed, r)
	}
	m.dropFrameworkFilters(f, roles)
	m.booksSetFramework(f)
	m.tellAlways(&allocator.Revived{Framework: f.id, Roles: roles})
	m.touchFramework(f)
}

func (m *Machine) suppress(f *framework, roles []string) {
	roles, ok := f.rolesFor(roles)
	if !ok {
		m.logf(Warn, "SUPPRESS of a role that the framework is not subscribed to ignored", "framework_id", f.id)
		return
	}
	for _, r := range roles {
		f.suppressed[r] = true
	}
	m.booksSetFramework(f)
	m.tellAlways(&allocator.Suppressed{Framework: f.id, Roles: roles})
	m.touchFramework(f)
}

// kill asks for a task's end; for one that is not known it answers as
// reconciliation does.
func (m *Machine) kill(f *framework, c *schedulerv1.Call_Kill) {
	t := f.tasks[c.GetTaskId().GetValue()]
	if t == nil {
		m.reconcileTask(f, c.GetTaskId(), c.GetAgentId())
		return
	}
	if id := c.GetAgentId().GetValue(); id != "" && id != t.agent.id {
		m.logf(Warn, "KILL with the wrong agent ignored", "framework_id", f.id, "task_id", t.key.TaskID, "agent_id", id)
		return
	}
	m.killTask(t, c.GetKillPolicy())
	if t.agent.phase == unreachable {
		m.reconcileKnown(f, t) // it is remembered, and the framework is told
	}
}

func (m *Machine) shutdownExecutor(f *framework, c *schedulerv1.Call_Shutdown) {
	a := m.agents[c.GetAgentId().GetValue()]
	if a == nil || a.link == nil {
		return
	}
	m.send(a.link, &linkv1.MasterMessage{Message: &linkv1.MasterMessage_ShutdownExecutor{ShutdownExecutor: &linkv1.ShutdownExecutor{
		FrameworkId: f.id, ExecutorId: c.GetExecutorId().GetValue(),
	}}})
}

// acknowledgeCall passes an acknowledgement on. A task whose end was
// acknowledged is over.
func (m *Machine) acknowledgeCall(f *framework, c *schedulerv1.Call_Acknowledge) *refusal {
	if !validUUID(c.GetUuid()) {
		return invalid("Not a valid UUID")
	}
	if c.GetTaskId().GetValue() == "" || c.GetAgentId().GetValue() == "" {
		return invalid("ACKNOWLEDGE needs the agent's and the task's id")
	}
	a := m.agents[c.GetAgentId().GetValue()]
	if a == nil || a.link == nil {
		return nil // the agent will tell it again
	}
	key := TaskKey{FrameworkID: f.id, TaskID: c.GetTaskId().GetValue()}
	m.acknowledge(a, key, c.GetUuid())
	if t := a.tasks[key]; t != nil && t.state.Terminal() && slices.Equal(t.status.GetUuid(), c.GetUuid()) {
		m.completeTask(t)
	}
	return nil
}

// validUUID is whether the bytes are a UUID with a version of RFC 4122. Which
// variant it says it is does not count: executors make their own.
func validUUID(b []byte) bool {
	return len(b) == 16 && b[6]>>4 >= 1 && b[6]>>4 <= 5
}

func (m *Machine) schedulerMessage(f *framework, c *schedulerv1.Call_Message) {
	a := m.agents[c.GetAgentId().GetValue()]
	if a == nil || a.link == nil {
		return // best effort
	}
	m.send(a.link, &linkv1.MasterMessage{Message: &linkv1.MasterMessage_FrameworkMessage{FrameworkMessage: &linkv1.FrameworkMessage{
		FrameworkId: f.id, ExecutorId: c.GetExecutorId().GetValue(), Data: c.GetData(),
	}}})
}

// request passes a hint on to the allocator.
func (m *Machine) request(f *framework, c *schedulerv1.Call_Request) {
	for _, r := range c.GetRequests() {
		res, err := resource.FromProto(r.GetResources())
		if err != nil {
			m.logf(Warn, "REQUEST with bad resources ignored", "framework_id", f.id, "error", err.Error())
			continue
		}
		e := &allocator.Requested{Framework: f.id, Resources: res.Quantities()}
		if id := r.GetAgentId().GetValue(); id != "" {
			a := m.agents[id]
			if a == nil || a.phase != present {
				continue
			}
			e.Agent = id
			m.tell(a, e)
			continue
		}
		m.tellAlways(e)
	}
}

// updateFramework changes a framework's info, suppression and constraints, all
// or nothing.
func (m *Machine) updateFramework(f *framework, c *schedulerv1.Call_UpdateFramework, principal string) *refusal {
	if c.GetFrameworkInfo().GetId().GetValue() != f.id {
		return invalid("'framework_id' differs from 'update_framework.framework_info.id'")
	}
	info, why := m.checkFramework(c.GetFrameworkInfo(), principal)
	if why != "" {
		return invalid("Supplied FrameworkInfo is not valid: %s", why)
	}
	switch {
	case info.GetPrincipal() != f.info.GetPrincipal():
		return invalid("FrameworkInfo update is not valid: Changing framework's principal is not allowed.")
	case info.GetUser() != f.info.GetUser():
		return invalid("FrameworkInfo update is not valid: Updating 'FrameworkInfo.user' is unsupported")
	case info.GetCheckpoint() != f.info.GetCheckpoint():
		return invalid("FrameworkInfo update is not valid: Updating 'FrameworkInfo.checkpoint' is unsupported")
	}
	if why := checkSubscription(info, c.GetSuppressedRoles(), c.GetOfferConstraints()); why != "" {
		return invalid("'UpdateFramework' call is not valid: %s", why)
	}
	var revived []string
	for _, r := range sortedKeys(f.suppressed) {
		if !slices.Contains(c.GetSuppressedRoles(), r) {
			revived = append(revived, r)
		}
	}
	m.changeInfo(f, proto.Clone(info).(*mezzov1.FrameworkInfo))
	for _, o := range inOrder(f.offers) {
		if !slices.Contains(f.roles, o.role) {
			m.rescind(o, "the framework left the role")
		}
	}
	for x := f.filters; x != nil; {
		next := x.after
		if !slices.Contains(f.roles, x.key.role) {
			m.dropFilter(x)
		}
		x = next
	}
	if len(revived) > 0 {
		m.dropFrameworkFilters(f, revived)
	}
	m.setSuppressed(f, c.GetSuppressedRoles())
	f.constraints = c.GetOfferConstraints()
	m.booksSetFramework(f)
	m.tellFramework(f)
	var still []string
	for _, r := range revived {
		if slices.Contains(f.roles, r) {
			still = append(still, r)
		}
	}
	if len(still) > 0 {
		m.tellAlways(&allocator.Revived{Framework: f.id, Roles: still})
	}
	m.touchFramework(f)
	return nil
}
