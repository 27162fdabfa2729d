package state

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/mezzo-os/mezzo/sdk/allocator"
	"github.com/mezzo-os/mezzo/sdk/resource"

	linkv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/link/v1"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
	schedulerv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1/scheduler"
)

// phase is where an agent is in its life.
type phase int

const (
	// admitting: its admission is being written; nobody knows of it yet.
	admitting phase = iota
	// recovering: the registry knows it, it has not come back yet.
	recovering
	// present: it has registered; it may be disconnected for a while.
	present
	// unreachable: it was given up; its tasks are not counted.
	unreachable
	// gone: an operator has given it up for good.
	gone
)

// link is one stream of an agent.
type link struct {
	id   Link
	peer string
	// agent is set once the link has asked to register as it.
	agent *agent
	// parts collects a registration; nil when none is under way.
	parts *registration
}

// agent is a machine that the registry knows, or is about to.
//
// What an offer reads comes first and together, so that it takes few reads of
// memory: see Machine.approach.
type agent struct {
	id    string
	phase phase
	dirty bool
	// told is the allocator session that knows of the agent; queued: the
	// snapshot under way will come to it.
	queued [2]bool
	told   [2]Session
	offers []*offer
	text   []byte // what offers say of it, encoded; nil: it cannot be
	// executors that run on it.
	executors map[executorKey]*executor
	// maintenance is nil unless an unavailability is planned.
	maintenance *maintenance

	pid      *mezzov1.AgentID // the id as messages carry it
	link     *link            // the registered one; nil while disconnected
	waiting  *link            // one that waits for a registry write
	arrival  *registration
	hostname string
	ip       string
	info     *linkv1.Agent
	url      *mezzov1.URL
	// attributes as the allocator is told them.
	attributes []allocator.Attribute
	total      resource.Resources
	// version rises with every change of total, attributes or activity.
	version uint64
	tasks   map[TaskKey]*task
	// operations by their uuid. sent counts those sent on the link, flights are
	// those of them that the agent has not said it took in, in order.
	operations map[string]*pendingOperation
	sent       uint64
	flights    []flight
	// missing are those that the agent does not know by its last registration.
	missing []*pendingOperation
	filters map[filterKey]*filter
	live    int // tasks that have not ended

	// record is what the registry has of it, or is to have; see writeRecord.
	record agentRecord
	// deactivated: operators have taken it out of service; drain is nil unless it
	// is being drained, or was.
	deactivated bool
	drain       *drain
	// leaving: the registry is being told that it is gone.
	leaving bool

	heard time.Time // when the last message came
	// challenge runs while the agent of the link is asked whether it lives, since
	// another waits that says it is the same.
	challenge timer
	timer     timer // ping, timeout of recovery, or forgetting, by phase
	// marking: the registry is being told that it is unreachable.
	marking      bool
	registered   time.Time
	reregistered time.Time
	since        time.Time // unreachable or gone since
	// returning: the registry is being told that it is back.
	returning bool
}

// withheld says why the agent must not be offered; empty: it may.
func (a *agent) withheld() string { return a.info.GetWithheld() }

// active is whether the agent may be offered.
func (a *agent) active() bool {
	return a.phase == present && a.link != nil && !a.marking && !a.leaving && !a.deactivated && a.withheld() == ""
}

func (m *Machine) newAgent(id, hostname string) *agent {
	a := &agent{
		id: id, pid: &mezzov1.AgentID{Value: proto.String(id)}, hostname: hostname,
		tasks: map[TaskKey]*task{}, executors: map[executorKey]*executor{}, filters: map[filterKey]*filter{},
		operations: map[string]*pendingOperation{},
	}
	a.timer.fire = func() { m.agentDeadline(a) }
	a.challenge.fire = func() { m.twinStays(a) }
	m.agents[id] = a
	return a
}

func (m *Machine) recoverAgent(id string, rec agentRecord) error {
	a := m.newAgent(id, rec.Hostname)
	a.ip, a.since, a.record, a.deactivated = rec.IP, rec.Since, rec, rec.Deactivated
	if rec.Drain != nil {
		a.drain = &drain{record: *rec.Drain}
	}
	switch rec.Standing {
	case standingAdmitted:
		m.setPhase(a, recovering)
		a.registered, a.since = rec.Since, time.Time{}
		m.after(&a.timer, m.cfg.AgentReregisterTimeout)
	case standingUnreachable:
		m.setPhase(a, unreachable)
		m.timers.schedule(&a.timer, rec.Since.Add(m.cfg.AgentForgetAfter))
	case standingGone:
		m.setPhase(a, gone)
		m.timers.schedule(&a.timer, rec.Since.Add(m.cfg.AgentForgetAfter))
	default:
		return fmt.Errorf("registry entry %q has the unknown standing %q; it was written by a newer master", agentPrefix+id, rec.Standing)
	}
	if a.phase != gone {
		m.touchAgent(a)
	}
	return nil
}

// setPhase moves an agent on and counts those that are still to come back, and
// those that are away.
func (m *Machine) setPhase(a *agent, p phase) {
	if x := m.away[a.phase]; x != nil {
		x.count--
	}
	if x := m.away[p]; x != nil {
		x.count++
	}
	if a.phase == recovering {
		m.recovering--
	}
	if p == recovering {
		m.recovering++
	}
	a.phase = p
}

func (m *Machine) linkOpened(in LinkOpened) {
	if _, known := m.links[in.Link]; known {
		m.logf(Error, "the shell opened a link twice", "link", uint64(in.Link))
		return
	}
	m.links[in.Link] = &link{id: in.Link, peer: in.Peer}
}

func (m *Machine) linkClosed(in LinkClosed) {
	l := m.links[in.Link]
	if l == nil {
		return
	}
	delete(m.links, in.Link)
	a := l.agent
	if a == nil {
		return
	}
	if a.waiting == l {
		a.waiting, a.arrival = nil, nil
	}
	if a.link == l {
		m.disconnectAgent(a, in.Reason)
		if a.challenge.set() {
			m.twinStays(a)
		}
	}
}

// disconnectAgent: the link is gone, which is not the agent's death. Its
// offers are taken back; its tasks are left alone until its time is over.
func (m *Machine) disconnectAgent(a *agent, reason string) {
	a.link = nil
	m.logf(Info, "agent disconnected", "agent_id", a.id, "hostname", a.hostname, "reason", reason)
	m.rescindAgent(a, "agent disconnected")
	a.flights, a.missing = nil, nil // what it took in it says when it is back
	m.operatorsLose(a, reason)
	m.agentChanged(a)
}

// closeLink ends a link from our side.
func (m *Machine) closeLink(l *link, reason string) {
	delete(m.links, l.id)
	m.emit(CloseAgent{Link: l.id, Reason: reason})
}

func (m *Machine) send(l *link, msg *linkv1.MasterMessage) {
	msg.Epoch = m.cfg.Epoch
	m.emit(SendAgent{Link: l.id, Message: msg})
}

func (m *Machine) refuse(l *link, r *linkv1.Refused) {
	m.logf(Warn, "agent refused", "peer", l.peer, "reason", r.Reason, "gone", r.Gone)
	m.send(l, &linkv1.MasterMessage{Message: &linkv1.MasterMessage_Refused{Refused: r}})
	m.closeLink(l, r.Reason)
}

// agentDeadline is what an agent's timer does, by its phase.
func (m *Machine) agentDeadline(a *agent) {
	if a.leaving {
		return // what becomes of it is decided
	}
	switch a.phase {
	case recovering:
		m.giveUp(a, "did not come back after this master began to lead")
	case present:
		silent := m.now.Sub(a.heard)
		if silent >= m.cfg.PingInterval*time.Duration(m.cfg.PingTimeouts) {
			m.giveUp(a, fmt.Sprintf("no message for %s", silent.Round(time.Millisecond)))
			return
		}
		if a.link != nil {
			m.send(a.link, &linkv1.MasterMessage{Message: &linkv1.MasterMessage_Ping{Ping: &linkv1.Ping{}}})
		}
		m.after(&a.timer, m.cfg.PingInterval)
	case unreachable, gone:
		if a.returning || a.phase == unreachable && m.schedule.isDown(a) {
			m.after(&a.timer, m.cfg.AgentForgetAfter)
			return
		}
		m.forgetAgent(a)
	}
}

// giveUp marks an agent unreachable: first in the registry, then in fact.
func (m *Machine) giveUp(a *agent, why string) {
	if wait := m.removals.take(m); wait > 0 {
		m.after(&a.timer, wait)
		return
	}
	m.markUnreachable(a, why, nil)
}

// markUnreachable is giveUp, at once. done, if not nil, runs when it has
// happened.
func (m *Machine) markUnreachable(a *agent, why string, done func()) {
	m.logf(Warn, "marking agent unreachable", "agent_id", a.id, "hostname", a.hostname, "reason", why)
	a.marking = true
	m.rescindAgent(a, "agent unreachable")
	m.agentChanged(a)
	m.writeAgent(a, standingUnreachable, func() {
		if a.phase != gone {
			m.agentLost(a)
		}
		if done != nil {
			done()
		}
	})
}

// agentLost: the registry has it that the agent is unreachable. From here its
// tasks do not count, until it comes back.
func (m *Machine) agentLost(a *agent) {
	a.marking = false
	m.timers.cancel(&a.challenge)
	m.setPhase(a, unreachable)
	a.since = m.now
	m.noteAway(a)
	down := m.schedule.isDown(a)
	if l := a.link; l != nil {
		a.link = nil
		if down {
			m.refuse(l, &linkv1.Refused{Reason: downReason(a), Shutdown: true})
		} else {
			m.closeLink(l, "the agent was marked unreachable; register again")
		}
	}
	m.dropFilters(a)
	m.dropInverse(a, "agent unreachable")
	m.tellAgentRemoved(a)
	if down {
		m.endTasksOfDown(a)
	} else {
		m.loseTasks(a)
		m.loseOperations(a)
	}
	m.booksRemoveAgent(a)
	m.after(&a.timer, m.cfg.AgentForgetAfter)
	m.logf(Warn, "agent is unreachable", "agent_id", a.id, "hostname", a.hostname, "tasks", len(a.tasks))
	m.tellFailure(a)
	m.touchAgent(a)
	if l := a.waiting; l != nil { // it came back while we wrote
		arrival := a.arrival
		a.waiting, a.arrival = nil, nil
		m.register(l, arrival)
	}
	m.forgetOldest(unreachable)
}

// tellFailure sends FAILURE for a lost agent to every framework.
func (m *Machine) tellFailure(a *agent) {
	for _, id := range sortedKeys(m.frameworks) {
		if f := m.frameworks[id]; f.connected() {
			m.event(f, &schedulerv1.Event{
				Type:    schedulerv1.Event_FAILURE.Enum(),
				Failure: &schedulerv1.Event_Failure{AgentId: a.pid},
			})
		}
	}
}

// forgetAgent drops an agent that has been away for so long that nobody asks.
func (m *Machine) forgetAgent(a *agent) {
	m.logf(Info, "forgetting agent", "agent_id", a.id, "hostname", a.hostname, "away_since", a.since)
	m.timers.cancel(&a.timer)
	for _, t := range m.tasksOf(a) {
		m.completeTask(t)
	}
	if l := a.waiting; l != nil {
		a.waiting = nil
		m.refuse(l, &linkv1.Refused{Reason: unknownAgent(a.id)})
	}
	m.dropWindow(a, "the agent is forgotten")
	m.endOperations(a)
	m.setPhase(a, admitting) // it is in no list any more
	delete(m.agents, a.id)
	m.write(agentPrefix+a.id, nil, nil)
	m.dirty.agentsRemoved = append(m.dirty.agentsRemoved, a.id)
}

// agentChanged: the agent's total, attributes or activity changed.
func (m *Machine) agentChanged(a *agent) {
	a.version++
	m.touchAgent(a)
	m.booksSetActive(a)
	m.tellAgent(a, false)
}

// setInfo takes over what an agent says of itself.
func (m *Machine) setInfo(a *agent, info *linkv1.Agent, peer string) {
	a.info = info
	a.hostname = info.GetHostname()
	a.attributes = allocatorAttributes(info.GetAttributes())
	a.url = agentURL(info, peer)
	a.ip = a.url.GetAddress().GetIp()
	// What cannot be encoded is tried again, and complained of, with an offer.
	a.text, _ = a.encode()
}

// agentURL is where an agent serves HTTP. Clients count on an IP address in it:
// where the agent names none that others could use, it is the one that the agent
// speaks from.
func agentURL(info *linkv1.Agent, peer string) *mezzov1.URL {
	host, port := splitAddress(info.GetHttpAddress())
	if !usable(host) {
		host, _ = splitAddress(peer)
	}
	address := &mezzov1.Address{Hostname: proto.String(info.GetHostname()), Port: proto.Int32(port)}
	if isIP(host) {
		address.Ip = proto.String(host)
	}
	url := &mezzov1.URL{Scheme: proto.String("http"), Address: address}
	for _, e := range info.GetEndpoints() {
		url.Endpoints = append(url.Endpoints, &mezzov1.URL_Endpoint{Name: proto.String(e.GetName()), Address: proto.String(e.GetAddress())})
	}
	return url
}

func splitAddress(s string) (host string, port int32) {
	i := strings.LastIndexByte(s, ':')
	if i < 0 {
		return "", 0
	}
	fmt.Sscanf(s[i+1:], "%d", &port)
	return strings.Trim(s[:i], "[]"), port
}

// usable is whether a host is an address of one machine.
func usable(host string) bool { return isIP(host) && host != "0.0.0.0" && host != "::" }

// isIP is whether a host is an address and not a name: enough for choosing a
// field.
func isIP(host string) bool {
	if strings.Contains(host, ":") {
		return true
	}
	return host != "" && strings.Trim(host, "0123456789.") == ""
}

func allocatorAttributes(list []*mezzov1.Attribute) []allocator.Attribute {
	var out []allocator.Attribute
	for _, p := range list {
		x := allocator.Attribute{Name: p.GetName()}
		switch p.GetType() {
		case mezzov1.Value_SCALAR:
			x.Type, x.Scalar = allocator.AttributeScalar, resource.ScalarFromFloat(p.GetScalar().GetValue())
		case mezzov1.Value_RANGES:
			var ranges []resource.Range
			for _, r := range p.GetRanges().GetRange() {
				ranges = append(ranges, resource.Range{Begin: r.GetBegin(), End: r.GetEnd()})
			}
			x.Type, x.Ranges = allocator.AttributeRanges, resource.NewRanges(ranges...)
		default:
			x.Type, x.Text = allocator.AttributeText, p.GetText().GetValue()
		}
		out = append(out, x)
	}
	return out
}

// tasksOf returns an agent's tasks in order of their keys.
func (m *Machine) tasksOf(a *agent) []*task {
	out := make([]*task, 0, len(a.tasks))
	for _, t := range a.tasks {
		out = append(out, t)
	}
	slices.SortFunc(out, compareTasks)
	return out
}

func unknownAgent(id string) string {
	return fmt.Sprintf("agent id %q is not in the registry of this cluster: it was never admitted here, or was forgotten after being away for too long; "+
		"check that the agent has the right master, or remove the identity in its data directory to register it as a new agent", id)
}

// removalLimit spreads the marking of agents as unreachable over time.
type removalLimit struct {
	start time.Time
	taken int
}

// take asks to remove one agent now: 0, or how long to wait before asking
// again.
func (r *removalLimit) take(m *Machine) time.Duration {
	limit := m.cfg.UnreachablePerMinute
	if limit <= 0 {
		return 0
	}
	if m.now.Sub(r.start) >= time.Minute {
		r.start, r.taken = m.now, 0
	}
	if r.taken < limit {
		r.taken++
		return 0
	}
	return r.start.Add(time.Minute).Sub(m.now)
}
