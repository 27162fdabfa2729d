package state

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/mezzo-os/mezzo/core/ledger"
	"github.com/mezzo-os/mezzo/core/operation"
	linkv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/link/v1"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
	schedulerv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1/scheduler"
	"github.com/mezzo-os/mezzo/sdk/resource"
)

// The operations that change resources: reserve, unreserve, create, destroy,
// grow, shrink. The master checks one, changes its books at once, and sends it to
// the agent, which has the last word: what it then says of its resources counts.

// pendingOperation is one that the agent was sent, and whose outcome somebody
// waits for or has to acknowledge.
type pendingOperation struct {
	uuid      string
	agent     *agent
	framework *framework // nil: an operator's
	id        string     // the framework's
	request   Request    // the operator's
	info      *mezzov1.Offer_Operation
	// status is the newest that the agent told; pending before the first.
	status *mezzov1.OperationStatus
	lost   bool // its agent is unreachable
	// told: the agent has told of it. Then the agent has it until it is acknowledged.
	told bool

	dirty, shown bool // see publish
}

func (p *pendingOperation) ended() bool {
	return p.status.GetState() != mezzov1.OperationState_OPERATION_PENDING
}

// flight is an operation that the agent has not said it took in: the resources
// that it tells of are from before.
type flight struct {
	number uint64 // on the agent's link, from 1
	change operation.Change
}

// sendOperation has the agent do what the books say already.
func (m *Machine) sendOperation(a *agent, p *pendingOperation, c operation.Change) {
	m.operationSerial++
	p.uuid, p.agent = m.operationUUID(), a
	p.status = &mezzov1.OperationStatus{State: mezzov1.OperationState_OPERATION_PENDING.Enum()}
	a.sent++
	a.flights = append(a.flights, flight{a.sent, c})
	msg := &linkv1.Operation{OperationId: p.id, Uuid: []byte(p.uuid), Info: p.info}
	if p.framework != nil {
		msg.FrameworkId = p.framework.id
	}
	if p.id != "" || p.framework == nil {
		m.addOperation(p)
	}
	m.logf(Info, "operation", "type", p.info.GetType().String(), "framework_id", msg.FrameworkId, "agent_id", a.id, "from", c.From.String(), "to", c.To.String())
	m.send(a.link, &linkv1.MasterMessage{Message: &linkv1.MasterMessage_Operation{Operation: msg}})
}

func (m *Machine) addOperation(p *pendingOperation) {
	p.agent.operations[p.uuid] = p
	m.touchOperation(p)
	if f := p.framework; f != nil {
		f.operations[p.id] = p
	}
}

func (m *Machine) forgetOperation(p *pendingOperation) {
	delete(p.agent.operations, p.uuid)
	m.recheckDrain(p.agent)
	m.dirty.operationsRemoved = append(m.dirty.operationsRemoved, p)
	if f := p.framework; f != nil && f.operations[p.id] == p {
		delete(f.operations, p.id)
	}
}

// operationUUID names an operation: differently in every term of every master.
func (m *Machine) operationUUID() string {
	sum := sha256.Sum256(binary.BigEndian.AppendUint64([]byte("operation "+m.cfg.MasterID+" "), m.operationSerial))
	b := sum[:16]
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	return string(b)
}

// tookIn brings what an agent says it has to what it will have when it has taken
// in all operations that were sent.
func (a *agent) tookIn(operations uint64, total resource.Resources) resource.Resources {
	a.flights = slices.DeleteFunc(a.flights, func(f flight) bool { return f.number <= operations })
	for _, f := range a.flights {
		if total.Contains(f.change.From) {
			total = total.Minus(f.change.From).Add(f.change.To)
		}
	}
	return total
}

// operationUpdate: an agent tells what came of an operation.
func (m *Machine) operationUpdate(a *agent, u *linkv1.OperationUpdate) {
	p := a.operations[string(u.GetOperationUuid())]
	if p == nil { // its framework is gone, or never wanted to know
		m.acknowledgeOperation(a, u.GetFrameworkId(), u.GetOperationUuid(), u.GetStatus())
		return
	}
	st := proto.CloneOf(u.GetStatus())
	st.AgentId = a.pid
	p.told = true
	m.setOperationStatus(p, st)
	m.touchOperation(p)
	if p.framework == nil {
		m.forgetOperation(p)
		switch st.GetState() {
		case mezzov1.OperationState_OPERATION_FINISHED:
			m.reply(p.request, nil)
		default:
			m.reply(p.request, &OrderError{OrderRefused, fmt.Sprintf("agent %s refused it: %s", a.id, st.GetMessage())})
		}
		return
	}
	m.operationEvent(p.framework, st)
}

// setOperationStatus takes over what an agent says of an operation.
func (m *Machine) setOperationStatus(p *pendingOperation, st *mezzov1.OperationStatus) {
	known := p.status != nil && p.ended()
	if p.status, p.lost = st, false; !known && p.ended() {
		m.countOperationEnd(p.info, st.GetState())
	}
}

// countOperationEnd has watchers learn that an operation has come to its end. It
// is called once for each.
func (m *Machine) countOperationEnd(op *mezzov1.Offer_Operation, state mezzov1.OperationState) {
	m.dirty.operationEnds = append(m.dirty.operationEnds, OperationEnd{op.GetType(), state})
}

func (m *Machine) operationEvent(f *framework, st *mezzov1.OperationStatus) {
	if f.connected() {
		m.event(f, &schedulerv1.Event{
			Type:                  schedulerv1.Event_UPDATE_OPERATION_STATUS.Enum(),
			UpdateOperationStatus: &schedulerv1.Event_UpdateOperationStatus{Status: st},
		})
	}
}

func (m *Machine) acknowledgeOperation(a *agent, framework string, uuid []byte, st *mezzov1.OperationStatus) {
	if a.link == nil || len(st.GetUuid().GetValue()) == 0 {
		return
	}
	m.send(a.link, &linkv1.MasterMessage{Message: &linkv1.MasterMessage_AcknowledgeOperation{AcknowledgeOperation: &linkv1.AcknowledgeOperation{
		FrameworkId: framework, OperationUuid: uuid, StatusUuid: st.GetUuid().GetValue(),
	}}})
}

// acknowledgeOperationCall passes a framework's acknowledgement on. What is not
// known, or no more, needs none.
func (m *Machine) acknowledgeOperationCall(f *framework, c *schedulerv1.Call_AcknowledgeOperationStatus) *refusal {
	if !validUUID(c.GetUuid()) {
		return invalid("Not a valid UUID")
	}
	p := f.operations[c.GetOperationId().GetValue()]
	if p == nil || !slices.Equal(p.status.GetUuid().GetValue(), c.GetUuid()) || p.agent.link == nil {
		return nil // the agent will tell it again
	}
	m.acknowledgeOperation(p.agent, f.id, []byte(p.uuid), p.status)
	m.forgetOperation(p)
	return nil
}

// reconcileOperations tells a framework what became of operations: of those that
// it names, or of all that are known.
func (m *Machine) reconcileOperations(f *framework, c *schedulerv1.Call_ReconcileOperations) {
	if len(c.GetOperations()) == 0 {
		for _, id := range sortedKeys(f.operations) {
			m.operationEvent(f, m.reconciled(f.operations[id]))
		}
		return
	}
	for _, o := range c.GetOperations() {
		if p := f.operations[o.GetOperationId().GetValue()]; p != nil {
			m.operationEvent(f, m.reconciled(p))
			continue
		}
		state := mezzov1.OperationState_OPERATION_UNKNOWN
		if a := m.agents[o.GetAgentId().GetValue()]; a != nil {
			switch a.phase {
			case recovering:
				state = mezzov1.OperationState_OPERATION_RECOVERING
			case unreachable:
				state = mezzov1.OperationState_OPERATION_UNREACHABLE
			case gone:
				state = mezzov1.OperationState_OPERATION_GONE_BY_OPERATOR
			}
		}
		m.operationEvent(f, &mezzov1.OperationStatus{
			OperationId: o.GetOperationId(), AgentId: o.GetAgentId(), ResourceProviderId: o.GetResourceProviderId(),
			State: state.Enum(), Message: proto.String("Reconciliation: the master knows of no such operation"),
		})
	}
}

// reconciled is what a reconciliation tells of a known operation.
func (m *Machine) reconciled(p *pendingOperation) *mezzov1.OperationStatus {
	state := p.status.GetState()
	if p.lost && !p.ended() {
		state = mezzov1.OperationState_OPERATION_UNREACHABLE
	}
	return m.ownOperationStatus(p, state, "Reconciliation: Latest operation state")
}

// ownOperationStatus is a status of the master's own, which is not acknowledged.
func (m *Machine) ownOperationStatus(p *pendingOperation, state mezzov1.OperationState, message string) *mezzov1.OperationStatus {
	return &mezzov1.OperationStatus{
		OperationId: &mezzov1.OperationID{Value: proto.String(p.id)}, AgentId: p.agent.pid, State: state.Enum(), Message: proto.String(message),
		ConvertedResources: p.status.GetConvertedResources(),
	}
}

// adoptOperations takes up what an agent tells of operations when it registers.
// Those that it does not know are missing: what never reached it is given up when
// it has answered on this link, since a registration may come late, from before an
// operation arrived, of a process that is dead. What it has told of before has been
// acknowledged meanwhile.
func (m *Machine) adoptOperations(a *agent, reg *registration) {
	a.flights, a.sent, a.missing = nil, 0, nil
	seen := map[string]bool{}
	for _, o := range reg.operations {
		uuid := string(o.GetUuid())
		f := m.frameworks[o.GetFrameworkId()]
		if f == nil || f.removed() {
			m.acknowledgeOperation(a, o.GetFrameworkId(), o.GetUuid(), o.GetLatestStatus())
			continue
		}
		seen[uuid] = true
		p := a.operations[uuid]
		if p == nil {
			p = &pendingOperation{uuid: uuid, agent: a, framework: f, id: o.GetOperationId(), info: o.GetInfo()}
			m.addOperation(p)
		}
		st := proto.CloneOf(o.GetLatestStatus())
		if st == nil {
			st = &mezzov1.OperationStatus{State: mezzov1.OperationState_OPERATION_PENDING.Enum()}
		}
		st.AgentId = a.pid
		p.told = true
		m.setOperationStatus(p, st)
		m.touchOperation(p)
	}
	for _, uuid := range sortedKeys(a.operations) {
		switch p := a.operations[uuid]; {
		case seen[uuid]:
		case p.framework == nil:
			m.giveUpOperation(p, 0, "it registered again")
		case p.told:
			m.forgetOperation(p)
		default:
			a.missing = append(a.missing, p)
		}
	}
}

// askForMissing has an agent answer on its new link, when something is missing.
func (m *Machine) askForMissing(a *agent) {
	if len(a.missing) > 0 {
		m.send(a.link, &linkv1.MasterMessage{Message: &linkv1.MasterMessage_Ping{Ping: &linkv1.Ping{}}})
	}
}

// dropMissing gives up what never reached an agent, which has answered on its new
// link.
func (m *Machine) dropMissing(a *agent) {
	for _, p := range a.missing {
		if a.operations[p.uuid] == p && !p.told {
			m.giveUpOperation(p, mezzov1.OperationState_OPERATION_DROPPED, "it never reached the agent")
		}
	}
	a.missing = nil
}

// giveUpOperation ends an operation of which nothing more will be heard.
func (m *Machine) giveUpOperation(p *pendingOperation, state mezzov1.OperationState, why string) {
	m.forgetOperation(p)
	switch {
	case p.framework == nil: // what came of it is not known, and not counted
		m.reply(p.request, &OrderError{OrderLost, fmt.Sprintf("agent %s went away (%s): it is unknown whether the operation was carried out; look at what the agent has when it is back", p.agent.id, why)})
	case !p.ended():
		m.countOperationEnd(p.info, state)
		m.operationEvent(p.framework, m.ownOperationStatus(p, state, "The operation was lost: "+why))
	}
}

// operatorsLose answers operators whose operations an agent may not have got.
func (m *Machine) operatorsLose(a *agent, why string) {
	for _, uuid := range sortedKeys(a.operations) {
		if p := a.operations[uuid]; p.framework == nil {
			m.giveUpOperation(p, 0, why)
		}
	}
}

// loseOperations: the agent is unreachable.
func (m *Machine) loseOperations(a *agent) {
	a.flights = nil
	m.operatorsLose(a, "it is unreachable")
	for _, uuid := range sortedKeys(a.operations) {
		if p := a.operations[uuid]; !p.lost {
			m.touchOperation(p)
			if p.lost = true; !p.ended() {
				m.operationEvent(p.framework, m.ownOperationStatus(p, mezzov1.OperationState_OPERATION_UNREACHABLE, "Agent "+a.hostname+" is unreachable"))
			}
		}
	}
}

// endOperations: the agent will not come back.
func (m *Machine) endOperations(a *agent) {
	for _, uuid := range sortedKeys(a.operations) {
		m.giveUpOperation(a.operations[uuid], mezzov1.OperationState_OPERATION_GONE_BY_OPERATOR, "agent "+a.hostname+" is gone")
	}
}

// dropOperations: the framework is removed; nobody waits any more.
func (m *Machine) dropOperations(f *framework) {
	for _, id := range sortedKeys(f.operations) {
		p := f.operations[id]
		m.acknowledgeOperation(p.agent, f.id, []byte(p.uuid), p.status)
		m.forgetOperation(p)
	}
}

// orderOperation is an operator's wish to change what resources of an agent are.
func (m *Machine) orderOperation(in ApplyOperation) {
	fail := func(code OrderErrorCode, format string, args ...any) {
		m.reply(in.Request, &OrderError{code, fmt.Sprintf(format, args...)})
	}
	a := m.agents[in.AgentID]
	if a == nil || a.phase == admitting || a.phase == gone {
		fail(OrderNotFound, "no agent %q is known", in.AgentID)
		return
	}
	change, why := checkOrderedOperation(in)
	if why == "" {
		why = checkVolumes(a, change)
	}
	if why != "" {
		fail(OrderInvalid, "%s", why)
		return
	}
	if a.phase != present || a.link == nil {
		fail(OrderRefused, "agent %s is not connected: try again when it is back", in.AgentID)
		return
	}
	if why := m.free(a, change); why != "" {
		fail(OrderRefused, "%s", why)
		return
	}
	if err := m.books.Convert(ledger.Conversion{Agent: a.id, From: change.From, To: change.To}); err != nil {
		fail(OrderRefused, "%s", m.refusedConversion(a, change, err))
		return
	}
	m.converted(a, "", "", change)
	m.sendOperation(a, &pendingOperation{request: in.Request, info: in.Operation}, change)
}

// checkOrderedOperation checks an operator's operation as such.
func checkOrderedOperation(in ApplyOperation) (operation.Change, string) {
	op := in.Operation
	lists := [][]*mezzov1.Resource{
		op.GetReserve().GetResources(), op.GetReserve().GetSource(), op.GetUnreserve().GetResources(), op.GetCreate().GetVolumes(), op.GetDestroy().GetVolumes(),
	}
	for _, r := range slices.Concat(lists...) {
		if r.AllocationInfo != nil {
			return operation.Change{}, fmt.Sprintf("the resource %q is allocated to a role; an operator's operations name resources without 'allocation_info'", r.GetName())
		}
	}
	change, err := operation.Of(op)
	if err != nil {
		return change, err.Error()
	}
	for i := range change.To {
		k := change.To[i].Kind
		switch op.GetType() {
		case mezzov1.Offer_Operation_RESERVE:
			if stack := k.Reservations(); in.Principal != "" && len(stack) > 0 && stack[len(stack)-1].Principal != in.Principal {
				return change, fmt.Sprintf("the reservation's principal '%s' is not the caller's, '%s'", stack[len(stack)-1].Principal, in.Principal)
			}
		case mezzov1.Offer_Operation_CREATE:
			if why := checkVolumePrincipal(k, in.Principal, "the caller"); why != "" {
				return change, why
			}
		}
	}
	return change, ""
}

// free takes back offers until nobody holds what an operator wants to change; it
// does not begin if somebody uses it.
func (m *Machine) free(a *agent, c operation.Change) string {
	if missing := c.From.Minus(a.total); !missing.IsEmpty() {
		return fmt.Sprintf("agent %s does not have %s; it has %s", a.id, missing, a.total)
	}
	v, _ := m.books.Agent(a.id)
	shared := one(c.From.Shared())
	if missing := c.From.NonShared().Minus(a.total.Minus(v.Used.NonShared())); !missing.IsEmpty() || holdsAny(v.Used, shared) {
		return fmt.Sprintf("%s of agent %s is in use by %s", c.From, a.id, m.usersOf(a, c.From))
	}
	for _, o := range inOrder(a.offers) {
		missing := c.From.NonShared().Minus(m.books.Free(a.id))
		if holdsAny(o.resources, shared) || !missing.Intersect(o.resources).IsEmpty() {
			m.rescind(o, "an operator changes resources in it")
		}
	}
	return ""
}
