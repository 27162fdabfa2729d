package master

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/mezzo-os/mezzo/core/master/state"
	operatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/operator/v1"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
	"github.com/mezzo-os/mezzo/sdk/resource"
)

// mirror is what others see of the cluster. It is fed by what the machine
// publishes, on a goroutine of its own, so that no reader ever holds up the
// loop. What it holds is never changed, only replaced.
type mirror struct {
	mu      sync.Mutex
	waiting []change
	wake    chan struct{}

	view       sync.RWMutex
	agents     map[string]*state.AgentView
	frameworks map[string]*state.FrameworkView
	tasks      map[state.TaskKey]*state.TaskView
	offers     map[string]*state.OfferView
	executors  map[state.ExecutorKey]*state.ExecutorView
	operations map[string]*state.OperationView // by their UUID
	roles      map[string]*state.RoleView
	schedule   *state.ScheduleView // of maintenance; never nil
	plugins    map[string]*operatorv1.Plugin
	number     uint64 // of the last event
	watchers   map[*watcher]struct{}

	sumMu  sync.Mutex
	sum    totals
	summed time.Time

	agentStates     map[state.AgentState]int
	frameworkStates map[state.FrameworkState]int
	taskStates      map[mezzov1.TaskState]int
	taskEnds        map[taskEnd]uint64 // since the process began
	agentChanges    map[string]uint64  // likewise
	operationEnds   map[state.OperationEnd]uint64
	tallies         *tallies // which the loop keeps
	awaited         int      // agents that have not come back since it began to lead
}

// change is what is to be applied: a publication, a plugin's status, or a new
// beginning.
type change struct {
	publish state.Publish
	plugin  *operatorv1.Plugin
	// pluginRemoved is the id of a plugin that another has replaced.
	pluginRemoved string
	reset         bool
	applied       chan<- struct{} // closed when all changes up to this one are applied
}

func newMirror() *mirror {
	m := &mirror{
		wake: make(chan struct{}, 1), watchers: map[*watcher]struct{}{}, plugins: map[string]*operatorv1.Plugin{},
		taskEnds: map[taskEnd]uint64{}, agentChanges: map[string]uint64{},
		operationEnds: map[state.OperationEnd]uint64{}, tallies: newTallies(),
	}
	m.clear()
	return m
}

// clear forgets all but plugins, which outlive leadership. The view's lock is
// held, or nobody else knows the mirror yet.
func (m *mirror) clear() {
	m.agents = map[string]*state.AgentView{}
	m.frameworks = map[string]*state.FrameworkView{}
	m.tasks = map[state.TaskKey]*state.TaskView{}
	m.offers = map[string]*state.OfferView{}
	m.executors = map[state.ExecutorKey]*state.ExecutorView{}
	m.operations = map[string]*state.OperationView{}
	m.roles = map[string]*state.RoleView{}
	m.schedule = &state.ScheduleView{}
	m.agentStates = map[state.AgentState]int{}
	m.frameworkStates = map[state.FrameworkState]int{}
	m.taskStates = map[mezzov1.TaskState]int{}
	m.awaited = 0
}

func (m *mirror) publish(p state.Publish) { m.put(change{publish: p}) }

func (m *mirror) put(c change) {
	m.mu.Lock()
	m.waiting = append(m.waiting, c)
	m.mu.Unlock()
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// await returns when all that was put so far is applied, or ctx ends.
func (m *mirror) await(ctx context.Context) {
	applied := make(chan struct{})
	m.put(change{applied: applied})
	select {
	case <-applied:
	case <-ctx.Done():
	}
}

// run applies changes until ctx ends.
func (m *mirror) run(ctx context.Context) {
	var batch []change
	for {
		select {
		case <-m.wake:
		case <-ctx.Done():
			m.cutAll(errStopped)
			return
		}
		clear(batch)
		m.mu.Lock()
		batch, m.waiting = m.waiting, batch[:0]
		m.mu.Unlock()
		for i := range batch {
			m.apply(&batch[i])
		}
	}
}

// apply takes a change over and tells the watchers of it.
func (m *mirror) apply(c *change) {
	number, watchers := m.enter(c)
	if err := tell(c, number, watchers); len(err) > 0 {
		m.view.Lock()
		defer m.view.Unlock()
		for w, why := range err {
			delete(m.watchers, w)
			w.cut(why)
		}
	}
}

// enter takes a change over. It returns the number of its first event, and who
// is to be told of it: whoever begins to watch later has it in its snapshot.
func (m *mirror) enter(c *change) (first uint64, watchers []*watcher) {
	m.view.Lock()
	defer m.view.Unlock()
	if c.applied != nil {
		close(c.applied)
		return 0, nil
	}
	if c.reset {
		m.clear()
		for w := range m.watchers {
			delete(m.watchers, w)
			w.cut(unavailable("the master does not lead any more"))
		}
		return 0, nil
	}
	if c.plugin != nil {
		m.plugins[c.plugin.Id] = c.plugin
	}
	delete(m.plugins, c.pluginRemoved)
	m.applyAgents(&c.publish)
	m.applyFrameworks(&c.publish)
	m.applyTasks(&c.publish)
	for _, o := range c.publish.Offers {
		m.offers[o.ID] = o
	}
	for _, id := range c.publish.OffersRemoved {
		delete(m.offers, id)
	}
	for _, e := range c.publish.Executors {
		m.executors[e.ExecutorKey] = e
	}
	for _, key := range c.publish.ExecutorsRemoved {
		delete(m.executors, key)
	}
	for _, o := range c.publish.Operations {
		m.operations[o.UUID] = o
	}
	for _, uuid := range c.publish.OperationsRemoved {
		delete(m.operations, uuid)
	}
	for _, end := range c.publish.OperationEnds {
		m.operationEnds[end]++
	}
	if s := c.publish.Schedule; s != nil {
		m.schedule = s
	}
	for _, r := range c.publish.Roles {
		m.roles[r.Name] = r
	}
	for _, name := range c.publish.RolesRemoved {
		delete(m.roles, name)
	}
	first = m.number + 1
	m.number += uint64(c.events())
	return first, slices.Collect(maps.Keys(m.watchers))
}

func (m *mirror) applyAgents(p *state.Publish) {
	forget := func(id string) {
		if old := m.agents[id]; old != nil {
			m.agentStates[old.State]--
			if old.Awaited {
				m.awaited--
			}
			delete(m.agents, id)
		}
	}
	for _, a := range p.Agents {
		m.countAgent(m.agents[a.ID], a)
		forget(a.ID)
		m.agents[a.ID] = a
		m.agentStates[a.State]++
		if a.Awaited {
			m.awaited++
		}
	}
	for _, id := range p.AgentsRemoved {
		m.agentChanges["removed"]++
		forget(id)
	}
}

func (m *mirror) applyFrameworks(p *state.Publish) {
	forget := func(id string) {
		if old := m.frameworks[id]; old != nil {
			m.frameworkStates[old.State]--
			delete(m.frameworks, id)
		}
	}
	for _, f := range p.Frameworks {
		forget(f.ID)
		m.frameworks[f.ID] = f
		m.frameworkStates[f.State]++
	}
	for _, id := range p.FrameworksRemoved {
		forget(id)
	}
}

func (m *mirror) applyTasks(p *state.Publish) {
	forget := func(key state.TaskKey) {
		if old := m.tasks[key]; old != nil {
			m.taskStates[old.State]--
			delete(m.tasks, key)
		}
	}
	for _, t := range p.Tasks {
		m.countTask(m.tasks[t.TaskKey], t)
		forget(t.TaskKey)
		m.tasks[t.TaskKey] = t
		m.taskStates[t.State]++
	}
	for _, key := range p.TasksRemoved {
		forget(key)
	}
}

// tell gives a change to the watchers, made into events once for those that
// want the same. It returns those that have to be cut, and why.
func tell(c *change, first uint64, watchers []*watcher) map[*watcher]error {
	made := map[wants]*parcel{}
	var slow map[*watcher]error
	for _, w := range watchers {
		if made[w.want] == nil {
			made[w.want] = newParcel(c, first, w.want)
		}
		if err := w.push(made[w.want]); err != nil {
			if slow == nil {
				slow = map[*watcher]error{}
			}
			slow[w] = err
		}
	}
	return slow
}

// snapshot returns the mirror as it is, as events yet to be made, and has the
// watcher told of all that comes after it.
func (m *mirror) snapshot(w *watcher) (all change, plugins []*operatorv1.Plugin, number uint64) {
	m.view.Lock()
	defer m.view.Unlock()
	m.watchers[w] = struct{}{}
	all.publish = state.Publish{
		Agents: values(m.agents), Frameworks: values(m.frameworks), Tasks: values(m.tasks), Offers: values(m.offers), Roles: values(m.roles),
		Executors: values(m.executors), Operations: values(m.operations),
	}
	if len(m.schedule.Windows) > 0 {
		all.publish.Schedule = m.schedule
	}
	return all, values(m.plugins), m.number
}

func (m *mirror) forget(w *watcher) {
	m.view.Lock()
	defer m.view.Unlock()
	delete(m.watchers, w)
}

func (m *mirror) cutAll(err error) {
	m.view.Lock()
	defer m.view.Unlock()
	for w := range m.watchers {
		delete(m.watchers, w)
		w.cut(unavailable(err.Error()))
	}
}

func values[K comparable, V any](in map[K]V) []V {
	out := make([]V, 0, len(in))
	for _, v := range in {
		out = append(out, v)
	}
	return out
}

// listed returns those that keep wants, sorted.
func listed[K comparable, V any](m *mirror, in *map[K]V, keep func(V) bool, compare func(a, b V) int) []V {
	m.view.RLock()
	out := make([]V, 0, len(*in))
	for _, v := range *in {
		if keep == nil || keep(v) {
			out = append(out, v)
		}
	}
	m.view.RUnlock()
	slices.SortFunc(out, compare)
	return out
}

func (m *mirror) listAgents() []*state.AgentView {
	return listed(m, &m.agents, nil, func(a, b *state.AgentView) int {
		return cmp.Or(a.Registered.Compare(b.Registered), cmp.Compare(a.ID, b.ID))
	})
}

func (m *mirror) listFrameworks(completed bool) []*state.FrameworkView {
	keep := func(f *state.FrameworkView) bool { return completed || f.State != state.FrameworkCompleted }
	return listed(m, &m.frameworks, keep, func(a, b *state.FrameworkView) int {
		return cmp.Or(a.Registered.Compare(b.Registered), cmp.Compare(a.ID, b.ID))
	})
}

func (m *mirror) listTasks(q *operatorv1.ListTasksRequest) []*state.TaskView {
	keep := func(t *state.TaskView) bool {
		return (q.Completed || !t.Completed) && (q.FrameworkId == "" || q.FrameworkId == t.FrameworkID) &&
			(q.AgentId == "" || q.AgentId == t.AgentID) && (q.TaskId == "" || q.TaskId == t.TaskID)
	}
	return listed(m, &m.tasks, keep, func(a, b *state.TaskView) int {
		return cmp.Or(a.Launched.Compare(b.Launched), cmp.Compare(a.FrameworkID, b.FrameworkID), cmp.Compare(a.TaskID, b.TaskID))
	})
}

// agent is one agent; nil: it is not known.
func (m *mirror) agent(id string) *state.AgentView {
	m.view.RLock()
	defer m.view.RUnlock()
	return m.agents[id]
}

// task is one task; nil: it is not known.
func (m *mirror) task(key state.TaskKey) *state.TaskView {
	m.view.RLock()
	defer m.view.RUnlock()
	return m.tasks[key]
}

func (m *mirror) listOffers() []*state.OfferView {
	return listed(m, &m.offers, nil, func(a, b *state.OfferView) int {
		return cmp.Or(a.Created.Compare(b.Created), cmp.Compare(a.ID, b.ID))
	})
}

// listRoles are those that somebody uses or has set something of.
func (m *mirror) listRoles() []*state.RoleView {
	return listed(m, &m.roles, nil, func(a, b *state.RoleView) int { return cmp.Compare(a.Name, b.Name) })
}

// rolesWith are these, and those that only have reservations.
func (m *mirror) rolesWith(reserved map[string]resource.Quantities) []*state.RoleView {
	list := m.listRoles()
	known := map[string]bool{}
	for _, r := range list {
		known[r.Name] = true
	}
	for name := range reserved {
		if !known[name] {
			list = append(list, &state.RoleView{Name: name, Weight: 1000})
		}
	}
	slices.SortFunc(list, func(a, b *state.RoleView) int { return cmp.Compare(a.Name, b.Name) })
	return list
}

func (m *mirror) maintenance() *state.ScheduleView {
	m.view.RLock()
	defer m.view.RUnlock()
	return m.schedule
}

func (m *mirror) listPlugins() []*operatorv1.Plugin {
	return listed(m, &m.plugins, nil, func(a, b *operatorv1.Plugin) int { return cmp.Compare(a.Id, b.Id) })
}

// framework is one framework; nil: it is not known.
func (m *mirror) framework(id string) *state.FrameworkView {
	m.view.RLock()
	defer m.view.RUnlock()
	return m.frameworks[id]
}

// executor is one executor; nil: it is not known.
func (m *mirror) executor(key state.ExecutorKey) *state.ExecutorView {
	m.view.RLock()
	defer m.view.RUnlock()
	return m.executors[key]
}

// offer is one offer; nil: it is not known.
func (m *mirror) offer(id string) *state.OfferView {
	m.view.RLock()
	defer m.view.RUnlock()
	return m.offers[id]
}

// totals are sums over all agents that can be reached.
type totals struct {
	total, used, offered resource.Quantities
	reserved             map[string]resource.Quantities // by role
}

// totalsAge is how old sums may be: who looks for the leader asks for them too.
const totalsAge = 100 * time.Millisecond

func (m *mirror) totals() totals {
	m.sumMu.Lock()
	defer m.sumMu.Unlock()
	if time.Since(m.summed) < totalsAge {
		return m.sum
	}
	m.view.RLock()
	agents := values(m.agents)
	m.view.RUnlock()
	m.sum = totals{reserved: map[string]resource.Quantities{}}
	for _, a := range agents {
		if a.State == state.AgentUnreachable {
			continue
		}
		m.sum.total = m.sum.total.Add(a.Total.Quantities())
		m.sum.used = m.sum.used.Add(a.Used.Quantities())
		m.sum.offered = m.sum.offered.Add(a.Offered.Quantities())
		for _, r := range a.Total.Filter(func(k resource.Kind) bool { return len(k.Reservations()) > 0 }) {
			stack := r.Kind.Reservations()
			role := stack[len(stack)-1].Role
			m.sum.reserved[role] = m.sum.reserved[role].Add(resource.Resources{r}.Quantities())
		}
	}
	m.summed = time.Now()
	return m.sum
}

// counts fills in what a status has of numbers.
func (m *mirror) counts(s *operatorv1.Status) {
	sum := m.totals()
	s.Total, s.Allocated, s.Offered = quantityMessage(sum.total), quantityMessage(sum.used), quantityMessage(sum.offered)
	m.view.RLock()
	defer m.view.RUnlock()
	s.Agents = &operatorv1.Counts{
		Total: uint64(len(m.agents)), Active: uint64(m.agentStates[state.AgentActive]), Unreachable: uint64(m.agentStates[state.AgentUnreachable]),
	}
	s.Frameworks = &operatorv1.Counts{
		Total: uint64(len(m.frameworks)), Active: uint64(m.frameworkStates[state.FrameworkActive]),
	}
	s.Tasks = &operatorv1.Counts{Total: uint64(len(m.tasks)), Running: uint64(m.taskStates[mezzov1.TaskState_TASK_RUNNING])}
	for st, n := range m.taskStates {
		switch st {
		case mezzov1.TaskState_TASK_UNREACHABLE, mezzov1.TaskState_TASK_LOST:
			s.Tasks.Unreachable += uint64(n)
		case mezzov1.TaskState_TASK_STAGING, mezzov1.TaskState_TASK_STARTING, mezzov1.TaskState_TASK_RUNNING, mezzov1.TaskState_TASK_KILLING:
			s.Tasks.Active += uint64(n)
		}
	}
	s.Offers, s.Event = uint64(len(m.offers)), m.number
	if s.Leadership == "leading" && m.awaited > 0 {
		s.Leadership = "recovering"
	}
}
