package state

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	corelink "github.com/mezzo-os/mezzo/core/link"
	"github.com/mezzo-os/mezzo/core/secret"
	linkv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/link/v1"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
	"github.com/mezzo-os/mezzo/sdk/resource"
)

// link is the stream to the master.
type link struct {
	state    linkState
	session  uint64 // of the newest Connect
	attempts int    // in a row that did not end in a registration
	master   string
	// until is when the present state is given up: the pause ends, the stream
	// was not opened in time, the master was silent too long.
	until       time.Time
	pingTimeout time.Duration
	taken       uint64 // operations that came by this stream
	told        string // what the master has heard of the agent; see standing
	said        string // the last complaint logged, so that it is logged once
	// exits are executors that ended while the registration that names them was
	// on its way.
	exits []*linkv1.ExecutorExited
}

type linkState int

const (
	down linkState = iota // waits before the next attempt
	connecting
	registering
	registered
)

func (l *link) deadline() time.Time { return l.until }

// linkTick does what is due.
func (m *Machine) linkTick() {
	l := &m.link
	if l.until.IsZero() || l.until.After(m.now) {
		return
	}
	switch l.state {
	case down:
		if m.ending != nil && m.ending.silent {
			l.until = time.Time{}
			return
		}
		m.connect()
	case connecting:
		m.disconnect(fmt.Sprintf("no stream to the master within %v", m.cfg.ConnectTimeout), 0)
	default:
		m.disconnect(fmt.Sprintf("the master has been silent for %v", l.pingTimeout), 0)
	}
}

func (m *Machine) connect() {
	l := &m.link
	l.state = connecting
	l.session++
	l.until = m.now.Add(m.cfg.ConnectTimeout)
	m.immediate = append(m.immediate, Connect{Session: l.session})
}

// disconnect gives the stream up and tries again after a pause: the one given,
// or else one that grows from failure to failure, with jitter.
func (m *Machine) disconnect(reason string, pause time.Duration) {
	m.immediate = append(m.immediate, Disconnect{Session: m.link.session, Reason: reason})
	m.pause(reason, pause)
}

func (m *Machine) pause(reason string, pause time.Duration) {
	l := &m.link
	if reason != l.said {
		l.said = reason
		m.log(Warn, "not registered with a master; trying again", "master", l.master, "reason", reason)
	}
	if pause <= 0 {
		most := m.cfg.Backoff << min(l.attempts, 16)
		pause = m.jitter(min(most, m.cfg.MaxBackoff))
		l.attempts++
	}
	l.state = down
	l.until = m.now.Add(pause)
	for _, t := range m.tasks {
		t.retryAt = time.Time{} // until the master is there again
	}
	m.pauseOperations()
}

func (m *Machine) linkUp(in LinkUp) {
	l := &m.link
	if in.Session != l.session || l.state != connecting {
		return
	}
	l.state, l.master, l.exits, l.taken = registering, in.Master, nil, 0
	m.alive()
	for _, r := range m.registration() {
		m.sendMaster(&linkv1.AgentMessage{Message: &linkv1.AgentMessage_Register{Register: r}})
	}
}

func (m *Machine) linkDown(in LinkDown) {
	if in.Session == m.link.session && m.link.state != down {
		m.pause(in.Reason, 0)
	}
}

// leaderFound begins anew with the pauses, chance included: all agents of the
// cluster hear of it at the same moment.
func (m *Machine) leaderFound() {
	l := &m.link
	l.attempts = 0
	if l.state != down {
		return
	}
	if soon := m.now.Add(m.jitter(min(m.cfg.Backoff, m.cfg.MaxBackoff))); soon.Before(l.until) {
		l.until = soon
	}
}

// alive notes a word of the master.
func (m *Machine) alive() { m.link.until = m.now.Add(m.link.pingTimeout) }

func (m *Machine) sendMaster(msg *linkv1.AgentMessage) {
	m.effect(SendMaster{Session: m.link.session, Message: msg})
}

func (m *Machine) linkMessage(in LinkMessage) {
	l := &m.link
	if in.Session != l.session || l.state != registering && l.state != registered {
		return
	}
	msg := in.Message
	if msg.GetEpoch() < m.epoch {
		m.disconnect(fmt.Sprintf("the master has epoch %d and a later one, of epoch %d, has led since: it does not lead any more", msg.GetEpoch(), m.epoch), 0)
		return
	}
	if msg.GetEpoch() > m.epoch {
		m.epoch = msg.GetEpoch()
		m.touch(agentEntity{m})
	}
	m.alive()
	switch msg := msg.GetMessage().(type) {
	case *linkv1.MasterMessage_Ping:
		m.immediate = append(m.immediate, SendMaster{Session: l.session, Message: &linkv1.AgentMessage{Message: &linkv1.AgentMessage_Pong{Pong: &linkv1.Pong{}}}})
	case *linkv1.MasterMessage_Registered:
		m.registered(msg.Registered)
	case *linkv1.MasterMessage_Refused:
		m.refused(msg.Refused)
	default:
		if l.state != registered {
			m.log(Warn, "the master sent orders before it registered the agent; they are ignored", "message", fmt.Sprintf("%T", msg))
			return
		}
		m.order(msg)
	}
}

// order carries out what a master asks of a registered agent.
func (m *Machine) order(msg any) {
	switch msg := msg.(type) {
	case *linkv1.MasterMessage_Run:
		m.run(msg.Run)
	case *linkv1.MasterMessage_Kill:
		m.killRequest(msg.Kill)
	case *linkv1.MasterMessage_Acknowledge:
		m.acknowledge(msg.Acknowledge)
	case *linkv1.MasterMessage_ShutdownFramework:
		m.shutdownFramework(msg.ShutdownFramework.GetFrameworkId())
	case *linkv1.MasterMessage_ShutdownExecutor:
		m.shutdownExecutor(msg.ShutdownExecutor)
	case *linkv1.MasterMessage_FrameworkMessage:
		m.messageFor(msg.FrameworkMessage)
	case *linkv1.MasterMessage_Reconcile:
		m.reconcile(msg.Reconcile)
	case *linkv1.MasterMessage_Operation:
		m.operation(msg.Operation)
	case *linkv1.MasterMessage_AcknowledgeOperation:
		m.acknowledgeOperation(msg.AcknowledgeOperation)
	case *linkv1.MasterMessage_UpdateFramework:
		if f := m.frameworks[msg.UpdateFramework.GetFramework().GetId().GetValue()]; f != nil {
			m.framework(msg.UpdateFramework.GetFramework())
		}
	case *linkv1.MasterMessage_Drain:
		m.drain(msg.Drain)
	case *linkv1.MasterMessage_Shutdown:
		m.end(msg.Shutdown.GetReason(), nil)
	case *linkv1.MasterMessage_Revoke:
		m.revoke(msg.Revoke)
	default:
		m.log(Warn, "the master sent something that this agent does not know; it is ignored", "message", fmt.Sprintf("%T", msg))
	}
}

func (m *Machine) registered(r *linkv1.Registered) {
	l := &m.link
	id := r.GetAgentId()
	if why := pathError(id); why != "" {
		m.disconnect(fmt.Sprintf("the master gave the agent id %q, which %s", id, why), 0)
		return
	}
	if m.id != "" && id != m.id {
		m.disconnect(fmt.Sprintf("the master gave the agent the id %s, and it is %s", id, m.id), 0)
		return
	}
	if m.id == "" {
		m.id = id
		m.touch(agentEntity{m})
	}
	l.state, l.attempts, l.said = registered, 0, ""
	if ms := r.GetPingTimeoutMs(); ms > 0 {
		l.pingTimeout = time.Duration(ms) * time.Millisecond
	}
	m.alive()
	m.draining = nil // the master says it again if it is so
	m.tellState()    // what changed since the registration was sent
	m.log(Info, "registered", "agent_id", m.id, "master", l.master, "epoch", m.epoch)
	for _, id := range r.GetCompletedFrameworks() {
		m.shutdownFramework(id)
	}
	for _, ref := range r.GetKilled() {
		if t := m.tasks[refKey(ref)]; t != nil {
			m.kill(t, m.grace(t, nil), byFramework, "")
		}
	}
	for _, x := range l.exits {
		m.sendMaster(&linkv1.AgentMessage{Message: &linkv1.AgentMessage_ExecutorExited{ExecutorExited: x}})
	}
	l.exits = nil
	m.resendOperations()
	for _, t := range m.sortedTasks() {
		if len(t.updates) > 0 {
			t.retryDelay = m.cfg.Retry
			m.send(t)
		}
	}
}

func (m *Machine) refused(r *linkv1.Refused) {
	if r.GetGone() {
		m.disconnect(r.GetReason(), 0)
		m.gone(r.GetReason())
		return
	}
	pause := time.Duration(r.GetRetryMs()) * time.Millisecond
	if r.GetShutdown() {
		m.disconnect(r.GetReason(), pause)
		m.endSilently(r.GetReason(), nil)
		return
	}
	m.disconnect("the master refused the agent: "+r.GetReason(), pause)
}

// gone ends an agent that an operator has marked gone: its tasks, and its name
// with the last of them. Until then it is the one that is gone, also when it is
// started again: as a new agent it would bring tasks along that have ended.
func (m *Machine) gone(reason string) {
	for _, id := range slices.Sorted(maps.Keys(m.frameworks)) {
		m.shutdownFramework(id)
	}
	for _, t := range m.sortedTasks() {
		if t.ended() {
			m.forgetTask(t)
		}
	}
	for _, p := range m.sortedOperations() {
		m.forgetOperation(p) // it has ended with the agent; what it changed stays
	}
	m.endSilently(reason, fmt.Errorf("agent %s was marked gone (%s): it has ended its tasks and forgotten its id; start it again to have it register as a new agent", m.id, reason))
	m.ending.forget = true
}

// end ends all tasks, and then the agent.
func (m *Machine) end(reason string, err error) {
	if m.ending != nil {
		return
	}
	m.log(Warn, "shutting down, with all tasks", "reason", reason)
	m.ending = &ending{reason: reason, err: err}
	for _, t := range m.sortedTasks() {
		m.kill(t, m.grace(t, nil), byShutdown, "The agent is shutting down")
	}
	m.stopAll(func(*executor) bool { return true })
	m.endStandalone()
}

// endSilently is end, without another word to a master: one would take it for an
// agent that is there, and its last word for that of one which never comes back.
func (m *Machine) endSilently(reason string, err error) {
	m.end(reason, err)
	m.ending.silent = true
}

// stopAll asks custom executors to end.
func (m *Machine) stopAll(which func(*executor) bool) {
	for _, e := range m.sortedExecutors() {
		if e.program != nil && !e.gone && which(e) {
			m.stop(e)
		}
	}
}

// shutdownFramework ends the tasks of a framework that is gone.
func (m *Machine) shutdownFramework(id string) {
	m.dropOperations(id)
	f := m.frameworks[id]
	if f == nil {
		for _, t := range m.sortedTasks() { // answers about tasks of which nothing was known
			if t.key.framework == id {
				m.forgetTask(t)
			}
		}
		return
	}
	if !f.terminating {
		f.terminating = true
		m.touch(f)
	}
	for _, t := range m.sortedTasks() {
		switch {
		case t.key.framework != id:
		case t.ended():
			m.forgetTask(t)
		default:
			t.updates, t.retryAt = nil, time.Time{}
			m.touch(t)
			m.kill(t, m.grace(t, nil), byFramework, "The framework was removed")
		}
	}
	m.stopAll(func(e *executor) bool { return e.framework == f })
}

func (m *Machine) shutdownExecutor(s *linkv1.ShutdownExecutor) {
	if e := m.live[executorKey{s.GetFrameworkId(), s.GetExecutorId()}]; e != nil && e.program != nil {
		m.stop(e)
		return
	}
	for _, t := range m.sortedTasks() {
		if t.key.framework == s.GetFrameworkId() && t.executorID == s.GetExecutorId() {
			m.kill(t, m.grace(t, nil), byFramework, "The executor was shut down")
		}
	}
}

// drain ends all tasks, so that the machine can be looked after.
func (m *Machine) drain(d *linkv1.Drain) {
	if d.GetOver() {
		m.draining = nil
		return
	}
	m.draining = d
	why := byDrain
	if d.GetMarkGone() {
		why = byDrainGone
	}
	for _, t := range m.sortedTasks() {
		grace := m.grace(t, nil)
		if d.MaxGraceMs != nil {
			grace = min(grace, time.Duration(d.GetMaxGraceMs())*time.Millisecond)
		}
		m.kill(t, grace, why, "The agent is draining")
	}
	m.stopAll(func(e *executor) bool { return len(e.tasks) == 0 })
	m.drained()
}

// drained tells the master once nothing is left to drain.
func (m *Machine) drained() {
	if m.draining != nil && len(m.tasks) == 0 {
		m.sendMaster(&linkv1.AgentMessage{Message: &linkv1.AgentMessage_DrainDone{DrainDone: &linkv1.DrainDone{}}})
	}
}

// agent is what the agent says of itself.
func (m *Machine) agent(p *corelink.Packer) *linkv1.Agent {
	return &linkv1.Agent{
		Id: m.id, Hostname: m.cfg.Hostname, Version: m.cfg.Version, Resources: p.Pack(m.resources.total), Attributes: m.cfg.Attributes,
		Domain: m.cfg.Domain, RpcAddress: m.cfg.RPCAddress, HttpAddress: m.cfg.HTTPAddress, BootId: m.cfg.BootID, Endpoints: m.endpoints(),
		Withheld: m.withheld(),
	}
}

// pack packs resources that were checked when they came.
func pack(p *corelink.Packer, list []*mezzov1.Resource) *linkv1.Quantities {
	r, err := resource.FromProto(list)
	if err != nil {
		return &linkv1.Quantities{}
	}
	return p.Pack(r)
}

// registration is all that the agent has, in parts.
func (m *Machine) registration() []*linkv1.Register {
	p := corelink.NewPacker()
	part := &linkv1.Register{Agent: m.agent(p)}
	m.link.told = m.standing()
	part.Kinds = p.Kinds()
	parts := []*linkv1.Register{part}
	size := proto.Size(part)
	// add puts an entry into the present part, or into a new one when it is full.
	add := func(entry proto.Message, into func(*linkv1.Register)) {
		kinds := p.Kinds()
		more := proto.Size(entry) + 8
		for _, k := range kinds {
			more += proto.Size(k) + 8
		}
		if size+more > m.cfg.MaxRegister && size > 0 {
			part.More = true
			part = &linkv1.Register{}
			parts = append(parts, part)
			size = 0
		}
		size += more
		part.Kinds = append(part.Kinds, kinds...)
		into(part)
	}
	places := map[string]uint32{}
	for _, id := range slices.Sorted(maps.Keys(m.frameworks)) {
		info := m.frameworks[id].info
		places[id] = uint32(len(places) + 1)
		add(info, func(r *linkv1.Register) { r.Frameworks = append(r.Frameworks, info) })
	}
	for _, run := range slices.Sorted(maps.Keys(m.executors)) {
		e := m.executors[run]
		if e.info == nil || !e.reported() {
			continue
		}
		entry := &linkv1.Executor{Framework: places[e.framework.id], Info: e.info, Resources: pack(p, e.info.GetResources()), Role: e.role}
		add(entry, func(r *linkv1.Register) { r.Executors = append(r.Executors, entry) })
	}
	for _, t := range m.sortedTasks() {
		if t.info == nil {
			continue // only an answer; its update says all there is
		}
		entry := m.registerTask(p, t, places)
		add(entry, func(r *linkv1.Register) { r.Tasks = append(r.Tasks, entry) })
	}
	for _, o := range m.sortedOperations() {
		if o.lasting() {
			entry := registerOperation(o)
			add(entry, func(r *linkv1.Register) { r.Operations = append(r.Operations, entry) })
		}
	}
	return parts
}

// reported is whether an executor is there as the master counts it: it has tasks
// or could be given some.
func (e *executor) reported() bool {
	if e.program != nil {
		return e.root != nil && e.root.phase != cleaning
	}
	return len(e.tasks) > 0
}

func (m *Machine) registerTask(p *corelink.Packer, t *task, places map[string]uint32) *linkv1.Task {
	entry := &linkv1.Task{
		Framework: places[t.key.framework], Id: t.key.id, Name: t.info.GetName(), ExecutorId: t.executorID,
		Resources: pack(p, t.info.GetResources()), Role: t.role, State: t.status.State, Status: t.status, Detail: wire(m.detail(t)),
	}
	if len(t.updates) > 0 {
		entry.Unacknowledged = true
		entry.UpdateState = t.updates[0].State
		entry.UpdateUuid = t.updates[0].GetUuid()
	}
	return entry
}

// detail is what is asked for only now and then.
func (m *Machine) detail(t *task) *mezzov1.Task {
	d := &mezzov1.Task{
		Name: t.info.Name, TaskId: t.info.TaskId, FrameworkId: t.framework.info.GetId(), AgentId: t.info.AgentId,
		ExecutorId: &mezzov1.ExecutorID{Value: proto.String(t.executorID)}, State: t.status.State,
		Labels: t.info.Labels, Discovery: t.info.Discovery, Container: secret.Container(t.info.Container), HealthCheck: t.info.HealthCheck,
		KillPolicy: t.info.KillPolicy, Limits: t.info.Limits, User: proto.String(userOf(t)),
	}
	return d
}
