package state

import (
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/mezzo-os/mezzo/core/ledger"
	"github.com/mezzo-os/mezzo/sdk/allocator"
	"github.com/mezzo-os/mezzo/sdk/resource"

	linkv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/link/v1"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
	schedulerv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1/scheduler"
)

// frameworkPhase is where a framework is in its life.
type frameworkPhase int

const (
	// frameworkAdmitting: it is being written into the registry.
	frameworkAdmitting frameworkPhase = iota
	// frameworkLive: it may be connected or not.
	frameworkLive
	// frameworkRemoved: it will never come back; its tasks are ending. Once
	// nothing of it is left it is completed.
	frameworkRemoved
)

// framework is a framework from its first subscription on.
type framework struct {
	id    string
	pid   *mezzov1.FrameworkID
	info  *mezzov1.FrameworkInfo
	phase frameworkPhase
	// roles are sorted; suppressed are those of them that want no offers.
	roles          []string
	suppressed     map[string]bool
	constraints    *schedulerv1.OfferConstraints
	capabilities   map[mezzov1.FrameworkInfo_Capability_Type]bool
	partitionAware bool
	// stream is the current subscription; empty while disconnected.
	stream Stream
	// adapter is what its scheduler came through last; empty: by itself.
	adapter string
	// held: the failover clock does not run, since its adapter does not serve.
	held bool
	// The failover clock runs out at ends, and has run since counted, besides waited,
	// which is what the registry knows, or will when noting is over.
	ends, counted time.Time
	waited        time.Duration
	noting        bool
	// recovered: it has not subscribed since this master began to lead.
	recovered bool
	// removing: the registry is being told that it is removed.
	removing  bool
	heartbeat timer
	// clock is the failover timer while it is disconnected, and the reminder
	// of the agents once it is removed.
	clock     timer
	tasks     map[string]*task
	past      []*task // completed, oldest first, bounded
	lost      []*task // unreachable, oldest first, and some that are not any more
	live      int     // tasks that have not ended
	executors int
	offers    []*offer // in no order
	pending   []*offer // decided in this step, not sent yet
	filters   *filter
	// operations that it gave an id, by that, until it has acknowledged them.
	operations map[string]*pendingOperation

	registered, reregistered, disconnected, unregistered time.Time
	dirty, forgotten                                     bool
}

func (f *framework) connected() bool { return f.stream != "" && f.phase == frameworkLive }
func (f *framework) removed() bool   { return f.phase == frameworkRemoved }

func (m *Machine) newFramework(id string, info *mezzov1.FrameworkInfo) *framework {
	f := &framework{
		id: id, pid: &mezzov1.FrameworkID{Value: proto.String(id)},
		tasks: map[string]*task{}, suppressed: map[string]bool{}, operations: map[string]*pendingOperation{},
	}
	f.setInfo(info)
	f.heartbeat.fire = func() { m.beat(f) }
	f.clock.fire = func() { m.frameworkDeadline(f) }
	return f
}

// setInfo takes over what a framework says of itself.
func (f *framework) setInfo(info *mezzov1.FrameworkInfo) {
	f.info = info
	f.capabilities = map[mezzov1.FrameworkInfo_Capability_Type]bool{}
	for _, c := range info.GetCapabilities() {
		f.capabilities[c.GetType()] = true
	}
	f.partitionAware = f.capabilities[mezzov1.FrameworkInfo_Capability_PARTITION_AWARE]
	f.roles = rolesOf(info)
}

// rolesOf returns the roles of a framework, sorted.
func rolesOf(info *mezzov1.FrameworkInfo) []string {
	for _, c := range info.GetCapabilities() {
		if c.GetType() == mezzov1.FrameworkInfo_Capability_MULTI_ROLE {
			return slices.Compact(slices.Sorted(slices.Values(info.GetRoles())))
		}
	}
	return []string{info.GetRole()}
}

func (f *framework) suppressedRoles() []string { return sortedKeys(f.suppressed) }

func (f *framework) ledgerCapabilities() ledger.Capabilities {
	var out ledger.Capabilities
	for c, bit := range map[mezzov1.FrameworkInfo_Capability_Type]ledger.Capabilities{
		mezzov1.FrameworkInfo_Capability_REVOCABLE_RESOURCES:    ledger.RevocableResources,
		mezzov1.FrameworkInfo_Capability_GPU_RESOURCES:          ledger.GPUResources,
		mezzov1.FrameworkInfo_Capability_SHARED_RESOURCES:       ledger.SharedResources,
		mezzov1.FrameworkInfo_Capability_RESERVATION_REFINEMENT: ledger.ReservationRefinement,
	} {
		if f.capabilities[c] {
			out |= bit
		}
	}
	return out
}

// failoverTimeout is how long it may be disconnected.
func (m *Machine) failoverTimeout(f *framework) time.Duration {
	d := time.Duration(f.info.GetFailoverTimeout() * float64(time.Second))
	if m.cfg.MaxFailoverTimeout > 0 {
		d = min(d, m.cfg.MaxFailoverTimeout)
	}
	return max(d, 0)
}

// recoverFramework takes a framework from the registry. Its clock goes on where
// the last leader has noted it, and does not run out before the agents had their
// time to come back: until then nobody knows what it has.
func (m *Machine) recoverFramework(id string, info *mezzov1.FrameworkInfo, rec frameworkRecord) {
	f := m.newFramework(id, info)
	f.phase, f.registered, f.disconnected, f.recovered = frameworkLive, rec.Registered, m.now, true
	f.adapter, f.waited = rec.Adapter, max(rec.Waited, 0)
	m.frameworks[id] = f
	m.joinRoles(f)
	m.booksSetFramework(f)
	if f.adapter != "" {
		m.awaitAdapter(f)
	} else {
		m.startFailover(f, 0)
	}
	m.touchFramework(f)
}

// subscribe is a scheduler's wish for a stream.
func (m *Machine) subscribe(in Subscribe) {
	fail := func(why string) {
		m.logf(Warn, "subscription refused", "framework_id", in.Call.GetFrameworkInfo().GetId().GetValue(),
			"name", in.Call.GetFrameworkInfo().GetName(), "reason", why)
		m.emit(SendScheduler{Stream: in.Stream, Event: errorEvent(why)})
		m.emit(CloseScheduler{Stream: in.Stream, Reason: why})
	}
	if in.Stream == "" || m.streams[in.Stream] != nil {
		fail("the stream's id is empty or taken")
		return
	}
	info, why := m.checkFramework(in.Call.GetFrameworkInfo(), in.Principal)
	if why == "" {
		why = checkSubscription(info, in.Call.GetSuppressedRoles(), in.Call.GetOfferConstraints())
	}
	if why != "" {
		fail(why)
		return
	}
	id := info.GetId().GetValue()
	if id == "" {
		m.admitFramework(in, info)
		return
	}
	f := m.frameworks[id]
	switch {
	case f != nil && f.phase == frameworkAdmitting:
		fail("Framework has been removed") // nobody was told of this id yet
		return
	case f == nil && m.finished[id] == nil:
		f = m.presentedFramework(id, in.Adapter, info)
	case f == nil || f.removed() || f.removing:
		// This ends the framework for its scheduler, for ever, so a master says it
		// only if it still leads, which a write proves. The key is gone already, or
		// is about to be.
		m.write(frameworkPrefix+id, nil, func() { fail("Framework has been removed") })
		return
	}
	if p := f.info.GetPrincipal(); p != "" && p != info.GetPrincipal() {
		fail("Changing framework's principal is not allowed.")
		return
	}
	m.resubscribe(f, in, info)
}

// presentedFramework takes up a framework by an id that nobody here knows: its
// scheduler brought it from another cluster, from before the registry was lost,
// or made it up, as frameworks with a configured id do.
func (m *Machine) presentedFramework(id, adapter string, info *mezzov1.FrameworkInfo) *framework {
	m.recoverFramework(id, proto.Clone(info).(*mezzov1.FrameworkInfo), frameworkRecord{Adapter: adapter, Registered: m.now})
	f := m.frameworks[id]
	m.writeFramework(f, nil)
	m.logf(Info, "framework taken up by the id that it presented", "framework_id", id, "name", info.GetName())
	return f
}

func errorEvent(message string) *schedulerv1.Event {
	return &schedulerv1.Event{Type: schedulerv1.Event_ERROR.Enum(), Error: &schedulerv1.Event_Error{Message: proto.String(message)}}
}

// newFrameworkID makes an id that nobody has: a scheduler may have presented any.
func (m *Machine) newFrameworkID() string {
	for {
		id := fmt.Sprintf("%s-%04d", m.cfg.MasterID, m.frameworkSerial)
		m.frameworkSerial++
		if m.frameworks[id] == nil && m.finished[id] == nil {
			return id
		}
	}
}

// admitFramework writes a new framework into the registry, then subscribes it.
func (m *Machine) admitFramework(in Subscribe, info *mezzov1.FrameworkInfo) {
	id := m.newFrameworkID()
	info = proto.Clone(info).(*mezzov1.FrameworkInfo)
	info.Id = &mezzov1.FrameworkID{Value: proto.String(id)}
	f := m.newFramework(id, info)
	f.registered, f.adapter = m.now, in.Adapter
	m.frameworks[id] = f
	m.streams[in.Stream] = f
	f.stream = in.Stream
	m.writeFramework(f, func() {
		if f.stream == "" { // it did not wait, and does not know its id
			delete(m.frameworks, id)
			m.write(frameworkPrefix+id, nil, nil)
			return
		}
		f.phase, f.registered = frameworkLive, m.now
		m.joinRoles(f)
		m.subscribed(f, in.Call.GetSuppressedRoles(), in.Call.GetOfferConstraints())
		m.logf(Info, "framework registered", "framework_id", f.id, "name", info.GetName(), "roles", f.roles)
	})
}

// resubscribe lets a newer scheduler take a framework over: the newest wins.
func (m *Machine) resubscribe(f *framework, in Subscribe, info *mezzov1.FrameworkInfo) {
	if old := f.stream; old != "" {
		m.event(f, errorEvent("Framework failed over"))
		m.emit(CloseScheduler{Stream: old, Reason: "another scheduler has taken the framework over"})
		m.dropStream(f)
		m.withdrawAll(f)
		m.dropFrameworkInverse(f)
	}
	info = proto.Clone(info).(*mezzov1.FrameworkInfo)
	info.User, info.Checkpoint = f.info.User, f.info.Checkpoint // as they were, silently
	m.dropFrameworkFilters(f, nil)
	m.streams[in.Stream] = f
	f.stream = in.Stream
	// What the registry has to know besides the info.
	moved := f.adapter != in.Adapter || f.waited > 0
	f.adapter, f.waited = in.Adapter, 0
	if !m.changeInfo(f, info) && moved {
		m.writeFramework(f, nil)
	}
	f.reregistered, f.disconnected = m.now, timeZero
	m.subscribed(f, in.Call.GetSuppressedRoles(), in.Call.GetOfferConstraints())
	m.logf(Info, "framework subscribed again", "framework_id", f.id, "name", info.GetName())
}

// changeInfo takes over a changed FrameworkInfo: registry, roles, agents. It
// says whether anything changed.
func (m *Machine) changeInfo(f *framework, info *mezzov1.FrameworkInfo) bool {
	if proto.Equal(f.info, info) {
		return false
	}
	m.leaveRoles(f)
	f.setInfo(info)
	m.joinRoles(f)
	m.writeFramework(f, nil)
	for _, id := range m.agentsOf(f) {
		if a := m.agents[id]; a != nil && a.link != nil {
			m.sendFramework(a, f)
		}
	}
	return true
}

// agentsOf returns the ids of the agents where a framework has tasks or
// executors, in order.
func (m *Machine) agentsOf(f *framework) []string {
	ids := map[string]bool{}
	for _, t := range f.tasks {
		ids[t.agent.id] = true
	}
	for _, id := range m.books.AgentsOf(f.id) {
		ids[id] = true
	}
	return sortedKeys(ids)
}

func (m *Machine) sendFramework(a *agent, f *framework) {
	m.send(a.link, &linkv1.MasterMessage{Message: &linkv1.MasterMessage_UpdateFramework{UpdateFramework: &linkv1.UpdateFramework{
		Framework: f.info, Constraints: f.constraints,
	}}})
}

// subscribed completes a subscription.
func (m *Machine) subscribed(f *framework, suppressed []string, constraints *schedulerv1.OfferConstraints) {
	m.setSuppressed(f, suppressed)
	f.constraints, f.recovered = constraints, false
	m.timers.cancel(&f.clock)
	f.held = false
	m.event(f, &schedulerv1.Event{Type: schedulerv1.Event_SUBSCRIBED.Enum(), Subscribed: &schedulerv1.Event_Subscribed{
		FrameworkId: f.pid, HeartbeatIntervalSeconds: proto.Float64(m.cfg.HeartbeatInterval.Seconds()),
		MasterInfo: m.cfg.MasterInfo, StreamId: proto.String(string(f.stream)), Epoch: proto.Uint64(m.cfg.Epoch),
	}})
	m.beat(f)
	m.booksSetFramework(f)
	m.tellFramework(f)
	m.touchFramework(f)
}

func (m *Machine) setSuppressed(f *framework, roles []string) {
	f.suppressed = map[string]bool{}
	for _, r := range roles {
		f.suppressed[r] = true
	}
}

// beat sends a HEARTBEAT and arms the next.
func (m *Machine) beat(f *framework) {
	m.event(f, &schedulerv1.Event{Type: schedulerv1.Event_HEARTBEAT.Enum()})
	m.after(&f.heartbeat, m.cfg.HeartbeatInterval)
}

func (m *Machine) event(f *framework, e *schedulerv1.Event) {
	m.emit(SendScheduler{Stream: f.stream, Event: e})
}

func (m *Machine) dropStream(f *framework) {
	delete(m.streams, f.stream)
	f.stream = ""
	m.timers.cancel(&f.heartbeat)
}

// streamClosed: a scheduler's stream is gone.
func (m *Machine) streamClosed(in StreamClosed) {
	f := m.streams[in.Stream]
	if f == nil {
		return
	}
	m.dropStream(f)
	if f.phase != frameworkLive {
		return // it was being admitted; see admitFramework
	}
	f.disconnected = m.now
	m.withdrawAll(f)
	m.dropFrameworkInverse(f)
	m.dropFrameworkFilters(f, nil)
	m.booksSetFramework(f)
	m.tellFramework(f)
	m.touchFramework(f)
	if f.removing {
		return
	}
	m.logf(Info, "framework disconnected", "framework_id", f.id, "reason", in.Reason, "failover_timeout", m.failoverTimeout(f))
	if in.AdapterLost && f.adapter != "" {
		m.awaitAdapter(f)
	} else {
		m.startFailover(f, 0)
	}
}

// frameworkDeadline is what a framework's clock does.
func (m *Machine) frameworkDeadline(f *framework) {
	if f.removed() {
		m.remindAgents(f)
		return
	}
	if f.held {
		m.startFailover(f, 0)
		return
	}
	if m.now.Before(f.ends) {
		m.noteFailover(f)
		m.runFailover(f)
		return
	}
	m.removeFramework(f, "its failover timeout ran out", nil)
}

// removeFramework ends a framework for good: first in the registry, then in
// fact. A master that does not lead any more, and does not know it, must not end
// tasks of a framework that lives on with the next. removed, if not nil, is told
// just before it happens.
func (m *Machine) removeFramework(f *framework, why string, removed func()) {
	if f.removing {
		if removed != nil {
			m.write(frameworkPrefix+f.id, nil, removed)
		}
		return
	}
	f.removing = true
	m.timers.cancel(&f.clock)
	// Its calls are refused from here on, so it is offered nothing more.
	m.withdrawAll(f)
	m.booksSetFramework(f)
	m.tellFramework(f)
	m.write(frameworkPrefix+f.id, nil, func() {
		if removed != nil {
			removed()
		}
		m.frameworkRemoved(f, why)
	})
}

// frameworkRemoved: the registry has it that the framework is removed. Its
// tasks are shut down; what they hold is counted until the agents say that they
// have ended.
func (m *Machine) frameworkRemoved(f *framework, why string) {
	f.removing = false
	m.logf(Info, "framework removed", "framework_id", f.id, "name", f.info.GetName(), "reason", why, "tasks", len(f.tasks))
	m.withdrawAll(f)
	m.dropOperations(f)
	m.dropFrameworkInverse(f)
	m.dropFrameworkFilters(f, nil)
	m.timers.cancel(&f.clock)
	if f.stream != "" {
		stream := f.stream
		m.dropStream(f)
		m.emit(CloseScheduler{Stream: stream, Reason: "the framework was removed: " + why})
	}
	f.phase, f.unregistered = frameworkRemoved, m.now
	m.leaveRoles(f)
	m.books.RemoveFramework(f.id)
	m.tellFramework(f)
	m.touchFramework(f)
	for _, id := range m.agentsOf(f) {
		a := m.agents[id]
		if a == nil {
			continue
		}
		if a.phase == unreachable {
			for _, t := range m.tasksOf(a) {
				if t.framework == f {
					m.completeTask(t)
				}
			}
			continue
		}
		m.shutdownFramework(a, f)
	}
	m.dropIdle([]*framework{f})
}

// remindAfter is how long an agent has to end a removed framework's tasks
// before it is told again.
const remindAfter = 15 * time.Second

// remindAgents tells agents again that a framework was removed, and asks what
// became of its tasks, in case the agent forgot them without a word.
func (m *Machine) remindAgents(f *framework) {
	for _, id := range m.agentsOf(f) {
		a := m.agents[id]
		if a == nil || a.link == nil {
			continue
		}
		m.shutdownFramework(a, f)
		var refs []*linkv1.TaskRef
		for _, t := range m.tasksOf(a) {
			if t.framework == f {
				refs = append(refs, t.ref())
			}
		}
		if len(refs) > 0 {
			m.send(a.link, &linkv1.MasterMessage{Message: &linkv1.MasterMessage_Reconcile{Reconcile: &linkv1.ReconcileTasks{Tasks: refs}}})
		}
	}
	m.after(&f.clock, remindAfter)
}

func (m *Machine) shutdownFramework(a *agent, f *framework) {
	if a.link == nil {
		return // it is told when it registers
	}
	m.send(a.link, &linkv1.MasterMessage{Message: &linkv1.MasterMessage_ShutdownFramework{
		ShutdownFramework: &linkv1.ShutdownFramework{FrameworkId: f.id},
	}})
}

// dropIfIdle completes a removed framework of which nothing is left.
func (m *Machine) dropIfIdle(f *framework) bool {
	if !f.removed() || len(f.tasks) > 0 || f.live > 0 || f.executors > 0 || m.frameworks[f.id] != f {
		return false
	}
	delete(m.frameworks, f.id)
	m.timers.cancel(&f.clock)
	m.finished[f.id] = f
	m.completed = append(m.completed, f)
	m.tellFrameworkRemoved(f)
	m.touchFramework(f)
	if over := len(m.completed) - m.cfg.MaxCompletedFrameworks; over > 0 {
		for _, old := range m.completed[:over] {
			delete(m.finished, old.id)
			m.removeFrameworkView(old)
		}
		m.completed = slices.Delete(m.completed, 0, over)
	}
	return true
}

// dropIdle completes those of the frameworks that are removed and idle.
func (m *Machine) dropIdle(list []*framework) {
	for _, f := range list {
		if !m.dropIfIdle(f) && f.removed() && m.frameworks[f.id] == f && !f.clock.set() {
			m.after(&f.clock, remindAfter)
		}
	}
}

// reviveCompleted takes a completed framework up again, as removed, since an
// agent still has something of it.
func (m *Machine) reviveCompleted(f *framework) {
	delete(m.finished, f.id)
	m.completed = slices.DeleteFunc(m.completed, func(x *framework) bool { return x == f })
	m.frameworks[f.id] = f
	m.tellFramework(f)
	m.touchFramework(f)
}

// allocatorFramework is a framework as the allocator is told of it.
func (m *Machine) allocatorFramework(f *framework) *allocator.FrameworkUpdated {
	u := &allocator.FrameworkUpdated{ID: f.id, Name: f.info.GetName(), Active: f.connected() && !f.removing}
	if f.removed() {
		return u
	}
	u.Roles, u.Suppressed = f.roles, f.suppressedRoles()
	bits := []struct {
		c mezzov1.FrameworkInfo_Capability_Type
		b allocator.Capabilities
	}{
		{mezzov1.FrameworkInfo_Capability_REVOCABLE_RESOURCES, allocator.CapabilityRevocableResources},
		{mezzov1.FrameworkInfo_Capability_GPU_RESOURCES, allocator.CapabilityGPUResources},
		{mezzov1.FrameworkInfo_Capability_SHARED_RESOURCES, allocator.CapabilitySharedResources},
		{mezzov1.FrameworkInfo_Capability_RESERVATION_REFINEMENT, allocator.CapabilityReservationRefinement},
		{mezzov1.FrameworkInfo_Capability_REGION_AWARE, allocator.CapabilityRegionAware},
	}
	for _, x := range bits {
		if f.capabilities[x.c] {
			u.Capabilities |= x.b
		}
	}
	for _, role := range f.roles {
		s := allocator.RoleSettings{Role: role}
		for _, q := range f.info.GetOfferFilters()[role].GetMinAllocatableResources().GetQuantities() {
			var list []resource.Quantity
			for _, name := range sortedKeys(q.GetQuantities()) {
				list = append(list, resource.Quantity{Name: name, Amount: resource.ScalarFromFloat(q.GetQuantities()[name].GetValue())})
			}
			s.MinAllocatable = append(s.MinAllocatable, resource.NewQuantities(list...))
		}
		if c := f.constraints.GetRoleConstraints()[role]; c != nil {
			b, err := proto.MarshalOptions{Deterministic: true}.Marshal(c)
			if err != nil {
				panic("state: offer constraints do not encode: " + err.Error())
			}
			s.Constraints = b
		}
		if s.MinAllocatable != nil || s.Constraints != nil {
			u.Settings = append(u.Settings, s)
		}
	}
	return u
}
