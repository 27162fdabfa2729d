package sim

import (
	"fmt"
	"time"

	agentstate "github.com/mezzo-os/mezzo/core/agent/state"
	"github.com/mezzo-os/mezzo/core/master/state"

	linkv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/link/v1"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
	"google.golang.org/protobuf/proto"
)

// master is one process of a master: the machine and what its shell holds.
type master struct {
	w         *world
	candidate *candidate // the process
	registry  *handle
	name      string
	epoch     uint64
	m         *state.Machine
	alive     bool
	skew      time.Duration // of its clock
	links     map[state.Link]*link
	streams   map[state.Stream]*stream
	writing   *writing
	session   *session
	tick      time.Duration // the earliest Tick that is planned; 0: none
	views     views
	audits    int
	orders    map[state.Request]func(error) // of operators, that are not answered yet
}

// views is what the master publishes.
type views struct {
	agents     map[string]*state.AgentView
	frameworks map[string]*state.FrameworkView
	tasks      map[state.TaskKey]*state.TaskView
	offers     map[string]*state.OfferView
	roles      map[string]*state.RoleView
	executors  map[state.ExecutorKey]*state.ExecutorView
	operations map[string]*state.OperationView // by the master's names
	schedule   *state.ScheduleView
}

// startMaster begins a term on what the registry holds.
func (w *world) startMaster(c *candidate, r *handle, epoch uint64, entries []state.Entry) *master {
	m := &master{
		w: w, candidate: c, registry: r, name: fmt.Sprintf("M%d", epoch), epoch: epoch, alive: true, skew: c.skew,
		links: map[state.Link]*link{}, streams: map[state.Stream]*stream{}, orders: map[state.Request]func(error){},
		views: views{map[string]*state.AgentView{}, map[string]*state.FrameworkView{}, map[state.TaskKey]*state.TaskView{}, map[string]*state.OfferView{}, map[string]*state.RoleView{}, map[state.ExecutorKey]*state.ExecutorView{}, map[string]*state.OperationView{}, nil},
	}
	cfg := state.Config{
		MasterID: m.name, Epoch: epoch, Seed: w.rng.Uint64(), MasterInfo: &mezzov1.MasterInfo{
			Id: proto.String(m.name), Ip: proto.Uint32(0), Port: proto.Uint32(5050), Hostname: proto.String(m.name),
		},
		OfferTimeout: w.tempo.offerTimeout, PingInterval: w.tempo.pingInterval, PingTimeouts: pingTimeouts,
		AgentReregisterTimeout: w.tempo.reregisterTimeout, HeartbeatInterval: 5 * time.Second,
		SnapshotAgents: 1 + w.pick(3), TellTasks: w.chance(0.5), MaxCompletedTasks: 20, MaxCompletedFrameworks: 3,
		UnreachablePerMinute: 20 * w.pick(2),
	}
	if w.cfg.Large {
		cfg.SnapshotAgents, cfg.PublishInterval = 0, 100*time.Millisecond
	}
	machine, err := state.New(cfg, state.Recovered{Entries: entries}, m.now())
	if err != nil {
		w.fail([]string{m.name}, "master %s cannot recover from the registry: %v", m.name, err)
		return nil
	}
	m.m = machine
	if w.leader == nil || w.leader.epoch < epoch {
		w.leader = m
	}
	c.master = m
	w.masters = append(w.masters, m)
	w.note([]string{m.name, everybody}, "%s leads with epoch %d, on %s", m.name, m.epoch, c.name)
	m.step(state.Tick{})
	w.after(w.between(0, 50*time.Millisecond), func() { w.openSession(m) })
	for _, h := range w.hosts {
		life := h.life
		w.after(w.weather.delay(w), func() {
			if h.life == life && !h.blockedDown {
				h.step(agentstate.LeaderFound{})
			}
		})
	}
	return m
}

// now is the time on the clock of the master's machine.
func (m *master) now() time.Time { return m.w.time().Add(m.skew) }

// step gives the machine an input and carries out what it asks for. Nothing
// that comes of it happens within the step.
func (m *master) step(in state.Input) {
	if m.alive {
		m.candidate.run(func() { m.take(in) })
	}
}

func (m *master) take(in state.Input) {
	if !m.alive || m.w.failure != nil {
		return
	}
	for _, out := range m.m.Step(m.now(), in) {
		m.carryOut(out)
	}
	m.w.checkMaster(m)
	next, ok := m.m.NextDeadline()
	if !ok {
		return
	}
	at := max(next.Sub(began)-m.skew, m.w.now)
	if m.tick == 0 || at < m.tick || m.tick < m.w.now {
		m.tick = at
		m.w.at(at, func() {
			if m.tick == at {
				m.tick = 0
			}
			m.step(state.Tick{})
		})
	}
}

func (m *master) carryOut(output state.Output) {
	w := m.w
	switch out := output.(type) {
	case state.SendAgent:
		if l := m.links[out.Link]; l != nil {
			l.toAgent(out.Message)
		}
	case state.CloseAgent:
		if l := m.links[out.Link]; l != nil {
			w.note(l.subjects(), "%s closes %s: %s", m.name, l, out.Reason)
			delete(m.links, out.Link)
			l.down.send(closed{out.Reason})
			l.up.cut()
		}
	case state.SendScheduler:
		if s := m.streams[out.Stream]; s != nil {
			s.events.send(w.wire(out.Event))
		}
	case state.SendOffers:
		if s := m.streams[out.Stream]; s != nil {
			s.events.send(w.decoded(out.Event()))
		}
	case state.CloseScheduler:
		if s := m.streams[out.Stream]; s != nil {
			delete(m.streams, out.Stream)
			s.events.send(closed{out.Reason})
			s.calls.cut()
		}
	case state.CallResult:
		if s := m.streams[state.Stream(fmt.Sprintf("stream-%d", out.Caller))]; s != nil {
			s.results.send(out.Result)
		}
	case state.AllocatorBegin:
		m.beginSession(out)
	case state.AllocatorBatch:
		m.sendBatch(out)
	case state.CloseAllocator:
		w.fail([]string{m.name}, "%s found that the allocator broke its contract: %s", m.name, out.Reason)
	case state.RegistryWrite:
		m.write(out)
	case state.Publish:
		m.publish(out)
	case state.Reply:
		if done := m.orders[out.Request]; done != nil {
			delete(m.orders, out.Request)
			if out.Err != nil {
				done(out.Err)
			} else {
				done(nil)
			}
		}
	case state.Log:
		if out.Level == state.Error && out.Message != "registry write failed; nothing that depends on it is done before it works" {
			w.fail([]string{m.name}, "%s logs an error: %s %v", m.name, out.Message, out.Fields)
		}
		if out.Level >= state.Info {
			w.note(append([]string{m.name}, subjectsOf(out.Fields)...), "%s: %s %v", m.name, out.Message, out.Fields)
		}
	}
}

// subjectsOf are the values of a log line.
func subjectsOf(fields []any) []string {
	var out []string
	for i := 1; i < len(fields); i += 2 {
		if s, ok := fields[i].(string); ok {
			out = append(out, s)
		}
	}
	return out
}

func (m *master) publish(p state.Publish) {
	v := &m.views
	for _, a := range p.Agents {
		v.agents[a.ID] = a
	}
	for _, id := range p.AgentsRemoved {
		delete(v.agents, id)
	}
	for _, f := range p.Frameworks {
		v.frameworks[f.ID] = f
	}
	for _, id := range p.FrameworksRemoved {
		delete(v.frameworks, id)
	}
	for _, t := range p.Tasks {
		v.tasks[t.TaskKey] = t
	}
	for _, k := range p.TasksRemoved {
		delete(v.tasks, k)
	}
	m.checkService(p.Offers)
	m.checkReserved(p.Offers)
	for _, o := range p.Offers {
		v.offers[o.ID] = o
		delete(m.w.free, o.AgentID)
	}
	for _, id := range p.OffersRemoved {
		delete(v.offers, id)
	}
	for _, r := range p.Roles {
		v.roles[r.Name] = r
	}
	for _, name := range p.RolesRemoved {
		delete(v.roles, name)
	}
	for _, e := range p.Executors {
		v.executors[e.ExecutorKey] = e
	}
	for _, key := range p.ExecutorsRemoved {
		delete(v.executors, key)
	}
	for _, o := range p.Operations {
		v.operations[o.UUID] = o
	}
	for _, uuid := range p.OperationsRemoved {
		delete(v.operations, uuid)
	}
	if p.Schedule != nil {
		v.schedule = p.Schedule
	}
}

// crash ends the term, at once.
func (m *master) crash(why string) {
	if !m.alive {
		return
	}
	w := m.w
	m.alive = false
	w.note([]string{m.name, everybody}, "%s dies: %s", m.name, why)
	m.tearWrite()
	for _, id := range sorted(m.links) {
		m.links[id].breakFor(w, "the master is gone")
	}
	for _, id := range sorted(m.streams) {
		m.streams[id].fail("the master is gone")
	}
	if m.session != nil {
		m.session.end()
	}
	for i, x := range w.masters {
		if x == m {
			w.masters = append(w.masters[:i:i], w.masters[i+1:]...)
			break
		}
	}
	if m.candidate.master == m {
		m.candidate.resign(why)
	}
}

// order is an operator's order; done, which may be nil, hears the answer, if one
// comes.
func (m *master) order(done func(error), in func(state.Request) state.Input) {
	m.w.requests++
	id := state.Request(m.w.requests)
	if done != nil {
		m.orders[id] = done
	}
	m.step(in(id))
}

// closed is the last that comes through a pipe.
type closed struct{ reason string }

// link is the stream between an agent and a master.
type link struct {
	id       state.Link
	w        *world
	master   *master
	host     *host
	life     uint64 // of the host's agent
	session  uint64
	up, down pipe
}

func (l *link) String() string { return fmt.Sprintf("link %d of %s", l.id, l.host.name) }

func (l *link) subjects() []string { return []string{l.host.name, l.master.name} }

// openLink is a stream that an agent has asked for.
func (w *world) openLink(h *host, m *master, session uint64) *link {
	w.links++
	l := &link{id: state.Link(w.links), w: w, master: m, host: h, life: h.life, session: session}
	l.up = pipe{w: w, deliver: l.atMaster, blocked: func() bool { return h.blockedUp }}
	l.down = pipe{w: w, deliver: l.atAgent, blocked: func() bool { return h.blockedDown }}
	m.links[l.id] = l
	w.note(l.subjects(), "%s opens to %s", l, m.name)
	m.step(state.LinkOpened{Link: l.id, Peer: h.name})
	return l
}

func (l *link) toAgent(msg *linkv1.MasterMessage) {
	if l.w.cfg.plant.drops(l.w, msg) {
		return
	}
	if l.w.cfg.plant == plantDoubleRun && msg.GetRun() != nil && l.w.chance(0.3) {
		l.w.after(l.w.between(time.Second, 30*time.Second), func() { l.down.send(l.w.wire(msg)) })
	}
	l.w.cfg.plant.repeats(l, msg)
	if _, ping := msg.Message.(*linkv1.MasterMessage_Ping); !ping {
		l.w.note(append(l.subjects(), tasksOf(msg)...), "%s -> %s: %s", l.master.name, l.host.name, describeMaster(msg))
	}
	l.down.send(l.w.wire(msg))
	if (msg.GetAcknowledge() != nil || msg.GetKill() != nil || msg.GetAcknowledgeOperation() != nil) && l.w.weather.twice(l.w) {
		l.down.send(l.w.wire(msg))
	}
}

func (l *link) atMaster(content any) {
	switch x := content.(type) {
	case *linkv1.AgentMessage:
		if l.w.cfg.plant.swallows(l, x) {
			return
		}
		l.master.step(state.LinkMessage{Link: l.id, Message: x})
	case closed:
		l.closedAtMaster(x.reason)
	}
}

func (l *link) closedAtMaster(reason string) {
	if l.master.links[l.id] == l {
		delete(l.master.links, l.id)
		l.up.cut()
		l.down.cut()
		l.master.step(state.LinkClosed{Link: l.id, Reason: reason})
	}
}

func (l *link) atAgent(content any) {
	switch x := content.(type) {
	case *linkv1.MasterMessage:
		l.host.hear(l, x)
	case closed:
		l.host.hung(l, x.reason)
	}
}

// breakFor breaks the stream: what is under way is lost, and both ends hear of
// it after a while, if they live.
func (l *link) breakFor(w *world, reason string) {
	l.up.fails()
	l.down.fails()
	w.note(l.subjects(), "%s breaks: %s", l, reason)
	w.after(w.between(0, 800*time.Millisecond), func() { l.closedAtMaster(reason) })
	w.after(w.between(0, 800*time.Millisecond), func() { l.host.hung(l, reason) })
}
