package state

import (
	"time"

	"github.com/mezzo-os/mezzo/sdk/resource"
)

// dirty is what changed since views were last published. Each object knows
// whether it is in its list, so that one that changes a hundred times is
// published once.
type dirty struct {
	agents     []*agent
	frameworks []*framework
	tasks      []*task
	offers     []*offer
	roles      []*role
	executors  []*executor
	operations []*pendingOperation

	agentsRemoved     []string
	frameworksRemoved []string
	tasksRemoved      []TaskKey
	offersRemoved     []string
	executorsRemoved  []ExecutorKey
	operationsRemoved []*pendingOperation
	operationEnds     []OperationEnd

	schedule bool // the maintenance schedule

	timer timer
	ready bool // the interval has passed
}

func (d *dirty) empty() bool {
	return !d.schedule && len(d.agents)+len(d.frameworks)+len(d.tasks)+len(d.offers)+len(d.roles)+len(d.executors)+len(d.executorsRemoved)+
		len(d.agentsRemoved)+len(d.frameworksRemoved)+len(d.tasksRemoved)+len(d.offersRemoved)+len(d.operations)+len(d.operationsRemoved)+
		len(d.operationEnds) == 0
}

func (m *Machine) touchAgent(a *agent) {
	if !a.dirty {
		a.dirty = true
		m.dirty.agents = append(m.dirty.agents, a)
	}
}

func (m *Machine) touchFramework(f *framework) {
	if !f.dirty {
		f.dirty = true
		m.dirty.frameworks = append(m.dirty.frameworks, f)
	}
}

func (m *Machine) touchTask(t *task) {
	if !t.dirty {
		t.dirty = true
		m.dirty.tasks = append(m.dirty.tasks, t)
	}
}

func (m *Machine) touchExecutor(e *executor) {
	if !e.dirty {
		e.dirty = true
		m.dirty.executors = append(m.dirty.executors, e)
	}
}

func (m *Machine) touchOperation(p *pendingOperation) {
	if !p.dirty {
		p.dirty = true
		m.dirty.operations = append(m.dirty.operations, p)
	}
}

func (m *Machine) touchOffer(o *offer) {
	m.dirty.offers = append(m.dirty.offers, o)
	m.touchAgent(o.agent)
	m.touchFramework(o.framework)
	m.touchRole(o.role)
}

// touchRole: something of the role changed, and so something of those above it.
func (m *Machine) touchRole(name string) {
	touch := func(r *role) {
		if !r.dirty {
			r.dirty = true
			m.dirty.roles = append(m.dirty.roles, r)
		}
	}
	touch(m.role(name))
	for up := resource.ParentRole(name); up != ""; up = resource.ParentRole(up) {
		if r := m.roles[up]; r != nil {
			touch(r)
		}
	}
	m.recheckStarvation(name, false)
}

// removeTaskView: a completed task is forgotten.
func (m *Machine) removeTaskView(t *task) {
	t.forgotten = true
	m.dirty.tasksRemoved = append(m.dirty.tasksRemoved, t.key)
}

// removeFrameworkView: a completed framework is forgotten, tasks and all.
func (m *Machine) removeFrameworkView(f *framework) {
	for _, t := range f.past {
		m.removeTaskView(t)
	}
	f.forgotten = true
	m.dirty.frameworksRemoved = append(m.dirty.frameworksRemoved, f.id)
}

// publish tells what changed, at once or after the interval.
func (m *Machine) publish() {
	d := &m.dirty
	if d.empty() {
		return
	}
	if m.cfg.PublishInterval > 0 && !d.ready {
		if !d.timer.set() {
			m.after(&d.timer, m.cfg.PublishInterval)
		}
		return
	}
	m.timers.cancel(&d.timer)
	d.ready = false
	p := Publish{
		AgentsRemoved: d.agentsRemoved, FrameworksRemoved: d.frameworksRemoved, OffersRemoved: d.offersRemoved,
		OperationEnds: d.operationEnds,
	}
	// A view per object, in the order of the first change.
	for _, a := range d.agents {
		a.dirty = false
		if m.agents[a.id] == a && a.phase != admitting && a.phase != gone {
			p.Agents = append(p.Agents, m.agentView(a))
		}
	}
	for _, f := range d.frameworks {
		f.dirty = false
		if !f.forgotten && f.phase != frameworkAdmitting {
			p.Frameworks = append(p.Frameworks, m.frameworkView(f))
		}
	}
	shown := make(map[TaskKey]bool, len(d.tasks))
	for _, t := range d.tasks {
		t.dirty = false
		// A task that was launched anew under the id of one that has ended has
		// taken its place.
		if !t.forgotten && m.current(t) {
			p.Tasks = append(p.Tasks, t.view())
			shown[t.key] = true
		}
	}
	for _, key := range d.tasksRemoved {
		if !shown[key] && !m.taskKnown(key) {
			p.TasksRemoved = append(p.TasksRemoved, key)
		}
	}
	m.publishExecutors(d, &p)
	publishOperations(d, &p)
	for _, o := range d.offers {
		if !o.over { // else it is gone before anybody saw it
			o.shown = true
			p.Offers = append(p.Offers, o.view())
		}
	}
	for _, r := range d.roles {
		r.dirty = false
		m.publishRole(r, &p)
	}
	if d.schedule {
		p.Schedule = m.scheduleView()
	}
	m.dirty = dirty{timer: d.timer}
	m.dirty.timer.fire = d.timer.fire
	if p.Schedule != nil || len(p.Agents)+len(p.AgentsRemoved)+len(p.Frameworks)+len(p.FrameworksRemoved)+len(p.Tasks)+len(p.TasksRemoved)+
		len(p.Offers)+len(p.OffersRemoved)+len(p.Roles)+len(p.RolesRemoved)+len(p.Executors)+len(p.ExecutorsRemoved)+
		len(p.Operations)+len(p.OperationsRemoved)+len(p.OperationEnds) > 0 {
		m.emit(p)
	}
}

// publishExecutors tells of those that are there now, and of those that are not
// any more. One may have come again under the same id.
func (m *Machine) publishExecutors(d *dirty, p *Publish) {
	for _, e := range d.executors {
		e.dirty = false
		if e.agent.executors[e.key] == e {
			p.Executors = append(p.Executors, e.view())
		}
	}
	for _, key := range d.executorsRemoved {
		if a := m.agents[key.AgentID]; a == nil || a.executors[executorKey{key.FrameworkID, key.ExecutorID}] == nil {
			p.ExecutorsRemoved = append(p.ExecutorsRemoved, key)
		}
	}
}

// publishOperations tells of those that somebody still waits for, and of those
// that were shown and are over. One may have been taken up again from its agent.
func publishOperations(d *dirty, p *Publish) {
	for _, o := range d.operations {
		o.dirty = false
		if o.agent.operations[o.uuid] == o {
			o.shown = true
			p.Operations = append(p.Operations, o.view())
		}
	}
	for _, o := range d.operationsRemoved {
		if o.shown && o.agent.operations[o.uuid] == nil {
			p.OperationsRemoved = append(p.OperationsRemoved, o.uuid)
		}
	}
}

// current is whether a task is the one that its key stands for: it lives, or it
// has ended and no newer one lives.
func (m *Machine) current(t *task) bool {
	live := t.framework.tasks[t.key.TaskID]
	return live == t || live == nil
}

func (m *Machine) taskKnown(key TaskKey) bool {
	f := m.frameworks[key.FrameworkID]
	return f != nil && f.tasks[key.TaskID] != nil
}

func (m *Machine) publishRole(r *role, p *Publish) {
	sums := m.books.RoleTotals(r.name)
	totals := sums.Own
	if !r.known() && len(totals.Used) == 0 && len(totals.Offered) == 0 {
		delete(m.roles, r.name)
		if r.shown {
			p.RolesRemoved = append(p.RolesRemoved, r.name)
		}
		return
	}
	r.shown = true
	s := r.settings()
	p.Roles = append(p.Roles, &RoleView{
		Name: r.name, Weight: s.Weight, Guarantee: s.Guarantee, Limit: s.Limit,
		Used: totals.Used, Offered: totals.Offered, Consumed: sums.Consumed, Frameworks: sortedKeys(r.frameworks),
		WeightSet: r.set.weight != 0, QuotaSet: r.set.quota, WeightConfigured: r.first != nil && r.first.Weight != 0 && r.first.Weight != defaultWeight,
	})
}

func (m *Machine) agentView(a *agent) *AgentView {
	v := &AgentView{
		ID: a.id, Hostname: a.hostname, Version: a.info.GetVersion(), RPCAddress: a.info.GetRpcAddress(),
		HTTPAddress: a.info.GetHttpAddress(), Endpoints: a.info.GetEndpoints(), Attributes: a.info.GetAttributes(),
		Domain: a.info.GetDomain(), Total: a.total, Tasks: a.live, Registered: a.registered, Reregistered: a.reregistered,
		Unavailability: a.unavailability(), InverseOffers: a.inverseViews(),
		IP: a.ip, Deactivated: a.deactivated, Drain: a.drainView(),
	}
	if b, ok := m.books.Agent(a.id); ok {
		v.Used, v.Offered = b.Used, b.Offered
	}
	switch {
	case a.phase == recovering:
		v.Awaited = a.since.IsZero()
		v.State, v.Reason = AgentDisconnected, "it has not come back since this master began to lead"
	case a.phase == unreachable:
		v.State, v.Unreachable = AgentUnreachable, a.since
		if m.schedule.isDown(a) {
			v.Reason = "its machine is down for maintenance"
		}
	case a.leaving:
		v.State, v.Reason = AgentDisconnected, "it is being marked gone"
	case a.marking:
		v.State, v.Reason = AgentDisconnected, "it is being marked unreachable"
	case a.link == nil:
		v.State, v.Reason = AgentDisconnected, "its link is closed"
	case a.drain != nil && a.drain.record.Drained:
		v.State = AgentDrained
	case a.drain != nil:
		v.State, v.Reason = AgentDraining, a.drainReason()
	case a.deactivated:
		v.State = AgentDeactivated
	case a.withheld() != "":
		v.State, v.Reason = AgentWithheld, a.withheld()
	default:
		v.State = AgentActive
	}
	return v
}

func (m *Machine) frameworkView(f *framework) *FrameworkView {
	totals := m.books.FrameworkTotals(f.id)
	v := &FrameworkView{
		ID: f.id, Info: f.info, State: FrameworkDisconnected, Roles: f.roles, Suppressed: f.suppressedRoles(),
		Used: totals.Used, Offered: totals.Offered, Tasks: f.live, Offers: len(f.offers), Registered: f.registered,
		Reregistered: f.reregistered, Disconnected: f.disconnected, Unregistered: f.unregistered,
		Recovered: f.recovered, Constraints: f.constraints,
	}
	switch {
	case f.removed():
		v.State = FrameworkCompleted
	case f.connected():
		v.State = FrameworkActive
	}
	return v
}

func (t *task) view() *TaskView {
	v := &TaskView{
		TaskKey: t.key, Name: t.name, AgentID: t.agent.id, Role: t.role, Resources: t.resources, State: t.newest(),
		Status: t.status, Earlier: t.statuses, Info: t.info, Detail: t.detail, Launched: t.launched, Started: t.started, Finished: t.finished,
		Completed: t.completed,
	}
	if t.executor != nil {
		v.ExecutorID = t.executor.key.id
	}
	return v
}

func (o *offer) view() *OfferView {
	return &OfferView{
		ID: o.id, FrameworkID: o.framework.id, AgentID: o.agent.id, Hostname: o.agent.hostname, Role: o.role,
		Resources: o.resources, Created: o.created,
	}
}

func (p *pendingOperation) view() *OperationView {
	v := &OperationView{UUID: p.uuid, AgentID: p.agent.id, Info: p.info, Status: p.status, Unreachable: p.lost && !p.ended()}
	if p.framework != nil {
		v.FrameworkID = p.framework.id
	}
	return v
}

func (e *executor) view() *ExecutorView {
	return &ExecutorView{ExecutorKey: e.viewKey(), Info: e.info, Role: e.role, Resources: e.resources}
}

func (e *executor) viewKey() ExecutorKey {
	return ExecutorKey{FrameworkID: e.key.framework, ExecutorID: e.key.id, AgentID: e.agent.id}
}

func fromSeconds(s float64) time.Time {
	return time.Unix(0, int64(s*1e6)*1000).UTC()
}
