package state

import (
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	corelink "github.com/mezzo-os/mezzo/core/link"
	"github.com/mezzo-os/mezzo/sdk/allocator"
	"github.com/mezzo-os/mezzo/sdk/resource"

	linkv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/link/v1"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
)

// maxRegistrationItems bounds the tasks and executors of one registration, so
// that a broken agent cannot fill the master's memory.
const maxRegistrationItems = 100_000

// registration is what an agent says when it registers, put together from its
// parts.
type registration struct {
	agent      *linkv1.Agent
	kinds      []resource.Kind
	frameworks []*mezzov1.FrameworkInfo
	executors  []*reportedExecutor
	tasks      []*reportedTask
	operations []*linkv1.Operation
	total      resource.Resources
}

type reportedExecutor struct {
	framework int // place in frameworks
	info      *mezzov1.ExecutorInfo
	role      string
	resources resource.Resources
}

type reportedTask struct {
	*linkv1.Task
	framework int
	resources resource.Resources
}

func (m *Machine) linkMessage(in LinkMessage) {
	l := m.links[in.Link]
	if l == nil {
		return // closed by us; the agent had more to say
	}
	if r := in.Message.GetRegister(); r != nil {
		m.registerPart(l, r)
		return
	}
	a := l.agent
	if a == nil || a.link != l {
		if a != nil && a.waiting == l || in.Message.GetPong() != nil {
			return // it waits for the registry; nothing of it counts yet
		}
		m.refuse(l, &linkv1.Refused{Reason: "the agent sent a message before it was registered; register first"})
		return
	}
	a.heard = m.now
	if a.challenge.set() {
		m.refuseTwin(a)
	}
	switch msg := in.Message.GetMessage().(type) {
	case *linkv1.AgentMessage_Pong:
		m.dropMissing(a)
	case *linkv1.AgentMessage_Update:
		m.statusUpdate(a, msg.Update)
	case *linkv1.AgentMessage_ExecutorExited:
		m.executorExited(a, msg.ExecutorExited)
	case *linkv1.AgentMessage_FrameworkMessage:
		m.executorMessage(a, msg.FrameworkMessage)
	case *linkv1.AgentMessage_State:
		m.agentState(a, msg.State)
	case *linkv1.AgentMessage_Unregister:
		m.unregister(a)
	case *linkv1.AgentMessage_Operation:
		m.operationUpdate(a, msg.Operation)
	case *linkv1.AgentMessage_DrainDone:
		m.recheckDrain(a)
	default:
		m.logf(Warn, "agent sent a message of an unknown kind", "agent_id", a.id)
	}
}

// registerPart takes one part of a registration; the last completes it.
func (m *Machine) registerPart(l *link, r *linkv1.Register) {
	if l.agent != nil {
		m.breakLink(l, "the agent registered twice on one link")
		return
	}
	if l.parts == nil {
		if r.GetAgent() == nil {
			m.refuse(l, &linkv1.Refused{Reason: "the first part of the registration does not say which agent it is"})
			return
		}
		l.parts = &registration{agent: r.GetAgent()}
	}
	if err := l.parts.add(r); err != nil {
		m.refuse(l, &linkv1.Refused{Reason: "registration cannot be read: " + err.Error()})
		return
	}
	if r.GetMore() {
		return
	}
	reg := l.parts
	l.parts = nil
	m.register(l, reg)
}

// breakLink ends the link of an agent that does not keep to the contract.
func (m *Machine) breakLink(l *link, reason string) {
	m.logf(Error, "agent broke the link's contract", "peer", l.peer, "reason", reason)
	if a := l.agent; a != nil {
		if a.waiting == l {
			a.waiting, a.arrival = nil, nil
		}
		if a.link == l {
			m.disconnectAgent(a, reason)
		}
	}
	m.closeLink(l, reason)
}

func (g *registration) add(r *linkv1.Register) error {
	if len(g.tasks)+len(g.executors)+len(g.operations)+len(r.GetTasks())+len(r.GetExecutors())+len(r.GetOperations()) > maxRegistrationItems {
		return fmt.Errorf("it has more than %d tasks, executors and operations", maxRegistrationItems)
	}
	g.operations = append(g.operations, r.GetOperations()...)
	for i, k := range r.GetKinds() {
		kind, err := resource.KindFromProto(k.GetResource())
		if err != nil {
			return fmt.Errorf("resource kind %d: %w", len(g.kinds)+1+i, err)
		}
		g.kinds = append(g.kinds, kind)
	}
	g.frameworks = append(g.frameworks, r.GetFrameworks()...)
	if r.GetAgent() != nil {
		total, err := corelink.Unpack(g.kinds, r.GetAgent().GetResources())
		if err != nil {
			return fmt.Errorf("the agent's resources: %w", err)
		}
		g.total = total
	}
	for _, e := range r.GetExecutors() {
		res, err := corelink.Unpack(g.kinds, e.GetResources())
		if err != nil {
			return fmt.Errorf("resources of executor %q: %w", e.GetInfo().GetExecutorId().GetValue(), err)
		}
		f, err := g.frameworkOf(e.GetFramework())
		if err != nil {
			return err
		}
		g.executors = append(g.executors, &reportedExecutor{framework: f, info: e.GetInfo(), role: e.GetRole(), resources: res})
	}
	for _, t := range r.GetTasks() {
		res, err := corelink.Unpack(g.kinds, t.GetResources())
		if err != nil {
			return fmt.Errorf("resources of task %q: %w", t.GetId(), err)
		}
		f, err := g.frameworkOf(t.GetFramework())
		if err != nil {
			return err
		}
		g.tasks = append(g.tasks, &reportedTask{Task: t, framework: f, resources: res})
	}
	return nil
}

// frameworkOf checks a place in the list of frameworks, from 1, and returns it
// from 0.
func (g *registration) frameworkOf(place uint32) (int, error) {
	if place == 0 || int(place) > len(g.frameworks) {
		return 0, fmt.Errorf("it names framework %d of %d", place, len(g.frameworks))
	}
	return int(place) - 1, nil
}

// register handles a whole registration: refuse it, write to the registry
// first, or complete it at once.
func (m *Machine) register(l *link, reg *registration) {
	if why := m.checkAgent(reg); why != "" {
		m.refuse(l, &linkv1.Refused{Reason: why})
		return
	}
	id := reg.agent.GetId()
	a := m.agents[id]
	switch {
	case a != nil && a.phase == gone:
	case id != "" && (a == nil || a.phase == admitting):
		m.refuse(l, &linkv1.Refused{Reason: unknownAgent(id)})
		return
	case m.schedule.machine(reg.agent.GetHostname(), agentURL(reg.agent, l.peer).GetAddress().GetIp()).down:
		m.refuse(l, &linkv1.Refused{
			Reason: fmt.Sprintf("machine %s is down for maintenance: start the agent when it is up (mezzo maintenance up)", reg.agent.GetHostname()), Shutdown: true,
		})
		return
	case id == "":
		m.admit(l, reg)
		return
	}
	if old := a.waiting; old != nil {
		a.waiting, a.arrival = nil, nil
		m.closeLink(old, "a newer link of the same agent took its place")
	}
	switch {
	case a.phase == gone:
		m.refuse(l, &linkv1.Refused{Reason: goneReason(id), Gone: true})
	case a.marking || a.leaving:
		// The registry is just being told that the agent is unreachable, or gone.
		// What has begun is finished: then it comes back as one that was lost, or
		// is refused.
		l.agent, a.waiting, a.arrival = a, l, reg
	case a.link != nil && a.differs(reg.agent):
		m.challenge(a, l, reg)
	case a.phase == unreachable:
		l.agent, a.waiting, a.arrival = a, l, reg
		m.readmit(a)
	default:
		m.arrive(a, l, reg)
	}
}

// checkAgent says why an agent cannot be taken; empty: it can.
func (m *Machine) checkAgent(reg *registration) string {
	info := reg.agent
	if info.GetHostname() == "" {
		return "the agent's hostname is empty"
	}
	if mine, theirs := majorVersion(m.cfg.Version), majorVersion(info.GetVersion()); mine != "" && mine != theirs {
		return fmt.Sprintf("the agent's version is %q and the master's %q: their first numbers must be equal; install matching versions",
			info.GetVersion(), m.cfg.Version)
	}
	return ""
}

func majorVersion(v string) string {
	v = strings.TrimPrefix(v, "v")
	if i := strings.IndexByte(v, '.'); i >= 0 {
		v = v[:i]
	}
	return v
}

// admit writes a new agent into the registry, then registers it.
func (m *Machine) admit(l *link, reg *registration) {
	m.agentSerial++
	a := m.newAgent(fmt.Sprintf("%s-S%d", m.cfg.MasterID, m.agentSerial-1), reg.agent.GetHostname())
	l.agent, a.waiting, a.arrival = a, l, reg
	m.writeAgent(a, standingAdmitted, func() {
		if a.waiting == nil {
			// The agent did not wait. It does not know its id, so nobody will
			// ever come back by it.
			delete(m.agents, a.id)
			m.write(agentPrefix+a.id, nil, nil)
			return
		}
		a.registered = m.now
		m.arriveWaiting(a)
	})
}

// readmit writes that an unreachable agent is back, then registers it.
func (m *Machine) readmit(a *agent) {
	if a.returning {
		return // the write is under way; whoever waits when it is done arrives
	}
	a.returning = true
	m.writeAgent(a, standingAdmitted, func() {
		a.returning = false
		if a.waiting == nil {
			// It has left again. The registry says admitted, so it has the time
			// of a recovering agent to come back.
			m.setPhase(a, recovering)
			a.since = m.now
			m.after(&a.timer, m.cfg.AgentReregisterTimeout)
			m.touchAgent(a)
			return
		}
		m.arriveWaiting(a)
	})
}

func (m *Machine) arriveWaiting(a *agent) {
	l, reg := a.waiting, a.arrival
	a.waiting, a.arrival = nil, nil
	m.arrive(a, l, reg)
	if m.schedule.isDown(a) && !a.leaving { // its machine was taken down meanwhile
		m.markUnreachable(a, "its machine is down for maintenance", nil)
	}
}

// arrive completes a registration: the agent is present from now on.
func (m *Machine) arrive(a *agent, l *link, reg *registration) {
	was := a.phase
	m.timers.cancel(&a.challenge)
	returned := was == unreachable || was == recovering && !a.since.IsZero()
	if old := a.link; old != nil && old != l {
		a.link = nil
		m.closeLink(old, "a newer link of the same agent took its place")
		m.rescindAgent(a, "agent registered again")
	}
	m.setPhase(a, present)
	l.agent, a.link, a.heard = a, l, m.now
	a.since = timeZero
	if was != admitting {
		a.reregistered = m.now
	}
	a.total = reg.total
	m.setInfo(a, reg.agent, l.peer)
	m.takeWindow(a)
	a.version++

	if was == present {
		m.booksSetTotal(a)
	} else {
		m.booksAddAgent(a)
	}
	owners := m.adoptFrameworks(reg)
	answer := &linkv1.Registered{
		AgentId:        a.id,
		PingIntervalMs: m.cfg.PingInterval.Milliseconds(),
		PingTimeoutMs:  m.cfg.PingInterval.Milliseconds() * int64(m.cfg.PingTimeouts),
	}
	for _, f := range owners {
		if f.removed() {
			answer.CompletedFrameworks = append(answer.CompletedFrameworks, f.id)
		}
	}
	m.adoptOperations(a, reg)
	m.reconcileExecutors(a, reg, owners)
	found := m.reconcileTasks(a, reg, owners, returned)
	answer.Killed = found.killed
	for _, e := range m.executorsOf(a) {
		m.retireExecutor(e) // one that was reported after its last task ended
	}
	m.send(l, &linkv1.MasterMessage{Message: &linkv1.MasterMessage_Registered{Registered: answer}})
	m.askForMissing(a)
	for _, k := range found.kills {
		m.send(l, &linkv1.MasterMessage{Message: &linkv1.MasterMessage_Kill{Kill: k}})
	}
	for _, t := range found.revoked {
		m.sendRevoke(t)
	}
	m.sendDrain(a)
	m.recheckDrain(a)
	if len(found.missing) > 0 {
		m.send(l, &linkv1.MasterMessage{Message: &linkv1.MasterMessage_Reconcile{
			Reconcile: &linkv1.ReconcileTasks{Tasks: found.missing},
		}})
	}
	m.updateFrameworksAt(a, reg, owners)
	m.logf(Info, "agent registered", "agent_id", a.id, "hostname", a.hostname, "resources", a.total.String(),
		"tasks", len(reg.tasks), "again", was != admitting)
	if w := a.withheld(); w != "" {
		m.logf(Info, "agent's resources are not offered yet", "agent_id", a.id, "reason", w)
	}
	m.after(&a.timer, m.cfg.PingInterval)
	m.booksSetActive(a)
	m.touchAgent(a)
	m.tellAgent(a, true)
	m.dropIdle(owners)
}

// adoptFrameworks finds the frameworks of a registration. One that nobody
// knows has been removed, maybe by an earlier master: it is taken up as
// removed, so that what its tasks use is counted until they have ended.
func (m *Machine) adoptFrameworks(reg *registration) []*framework {
	out := make([]*framework, len(reg.frameworks))
	for i, info := range reg.frameworks {
		id := info.GetId().GetValue()
		f := m.frameworks[id]
		if f == nil {
			f = m.finished[id]
		}
		if f == nil {
			f = m.newFramework(id, info)
			f.phase = frameworkRemoved
			f.unregistered = m.now
			m.frameworks[id] = f
			m.tellFramework(f)
			m.touchFramework(f)
			m.logf(Warn, "an agent has a framework that was removed; its tasks will end", "framework_id", id)
		} else if m.finished[id] != nil {
			m.reviveCompleted(f)
		}
		out[i] = f
	}
	return out
}

// updateFrameworksAt tells an agent of frameworks that changed while it was
// away.
func (m *Machine) updateFrameworksAt(a *agent, reg *registration, owners []*framework) {
	for i, f := range owners {
		if !f.removed() && f.info != reg.frameworks[i] && !proto.Equal(f.info, reg.frameworks[i]) {
			m.sendFramework(a, f)
		}
	}
}

// agentState: the agent's own attributes, resources or health changed.
func (m *Machine) agentState(a *agent, s *linkv1.AgentState) {
	reg := &registration{agent: s.GetAgent()}
	if err := reg.add(&linkv1.Register{Agent: s.GetAgent(), Kinds: s.GetKinds()}); err != nil {
		m.breakLink(a.link, "agent state cannot be read: "+err.Error())
		return
	}
	if id := s.GetAgent().GetId(); id != "" && id != a.id {
		m.breakLink(a.link, fmt.Sprintf("agent %s sent the state of agent %s", a.id, id))
		return
	}
	if why := m.checkAgent(reg); why != "" {
		m.breakLink(a.link, why)
		return
	}
	before, withheld := a.total, a.withheld()
	attributes := a.attributes
	m.setInfo(a, s.GetAgent(), a.link.peer)
	m.replaceWindow(a)
	a.total = a.tookIn(s.GetOperations(), reg.total)
	if s.GetOperations() > 0 && before.Equal(a.total) && withheld == a.withheld() && slices.EqualFunc(attributes, a.attributes, equalAttribute) {
		m.touchAgent(a) // it took an operation in, as was expected
		return
	}
	if w := a.withheld(); w != withheld {
		if w == "" {
			m.logf(Info, "agent's resources may be offered", "agent_id", a.id)
		} else {
			m.logf(Warn, "agent's resources are withheld", "agent_id", a.id, "reason", w)
		}
	}
	if !before.Equal(a.total) || a.withheld() != "" {
		m.rescindAgent(a, "agent changed")
	}
	if !before.Equal(a.total) {
		m.booksSetTotal(a)
	}
	if !slices.EqualFunc(attributes, a.attributes, equalAttribute) {
		m.dropFilters(a)
	}
	m.agentChanged(a)
}

func equalAttribute(a, b allocator.Attribute) bool {
	return a.Name == b.Name && a.Type == b.Type && a.Text == b.Text && a.Scalar == b.Scalar && slices.Equal(a.Ranges, b.Ranges)
}

// unregister: the agent ends in order and will not come back. Its tasks have
// ended with it.
func (m *Machine) unregister(a *agent) {
	l := a.link
	if a.leaving { // it is gone in a moment, with all that follows
		m.disconnectAgent(a, "it unregistered")
		m.closeLink(l, "the agent unregistered")
		return
	}
	a.link = nil
	m.logf(Info, "agent unregistered", "agent_id", a.id, "hostname", a.hostname)
	m.rescindAgent(a, "agent unregistered")
	m.closeLink(l, "the agent unregistered")
	m.setPhase(a, gone)
	a.since = m.now
	m.dropFilters(a)
	m.dropWindow(a, "the agent unregistered")
	m.tellAgentRemoved(a)
	m.endTasks(a, ending{
		aware: mezzov1.TaskState_TASK_LOST, reason: mezzov1.TaskStatus_REASON_AGENT_REMOVED, message: "Agent " + a.hostname + " unregistered",
	})
	m.endOperations(a)
	m.booksRemoveAgent(a)
	m.tellFailure(a)
	m.setPhase(a, admitting) // it is in no list any more
	delete(m.agents, a.id)
	m.timers.cancel(&a.timer)
	m.write(agentPrefix+a.id, nil, nil)
	m.dirty.agentsRemoved = append(m.dirty.agentsRemoved, a.id)
}
