package state

import (
	"fmt"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/mezzo-os/mezzo/core/ledger"
	"github.com/mezzo-os/mezzo/sdk/allocator"
	"github.com/mezzo-os/mezzo/sdk/resource"

	linkv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/link/v1"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
	schedulerv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1/scheduler"
)

// acceptance is one ACCEPT while it is carried out: offers of one agent to one
// framework in one role, taken together.
type acceptance struct {
	framework *framework
	agent     *agent
	role      string
	offers    []*offer
	ids       []string
	// pool is what is left of the offers.
	pool resource.Resources
	used bool
	// made is what operations of the call have made and is still in pool.
	made resource.Resources
	// denied is why tasks must not run as who they would, by id; deniedOperations
	// why operations are not allowed, by their places.
	denied           map[string]string
	deniedOperations map[int]string
}

// accept carries out an ACCEPT: its operations in order, each checked whole
// before any of it takes effect, each seeing what those before it have left.
func (m *Machine) accept(f *framework, call *schedulerv1.Call_Accept, in SchedulerCall) {
	x, why := m.takeOffers(f, call.GetOfferIds())
	if why != "" {
		m.acceptInvalid(f, call, why)
		return
	}
	x.denied, x.deniedOperations = in.Denied, in.DeniedOperations
	for i, op := range call.GetOperations() {
		switch op.GetType() {
		case mezzov1.Offer_Operation_LAUNCH:
			m.launch(x, op)
		case mezzov1.Offer_Operation_LAUNCH_GROUP:
			m.launchGroup(x, op)
		default:
			m.convert(x, i, op)
		}
	}
	refuse := refuseTime(call.GetFilters())
	left := resource.Resources(nil)
	for _, o := range x.offers {
		left = left.Add(m.removeOffer(o))
	}
	// What was just made is wanted, by whoever made it: it goes back without a
	// filter.
	made := left.Intersect(x.made)
	left = left.Minus(made)
	m.addFilter(f, x.agent, x.role, left, refuse, !x.used)
	if !made.IsEmpty() {
		m.tell(x.agent, &allocator.Released{Agent: x.agent.id, Framework: f.id, Role: x.role, Resources: made})
	}
	for i, o := range x.offers {
		// What is left is told once; the other offers are over with nothing.
		r := &allocator.Released{Agent: x.agent.id, Framework: f.id, Role: x.role, Offer: o.decision}
		if i == 0 {
			r.Resources, r.Declined = left, !x.used
			if !left.IsEmpty() {
				r.Refuse = refuse
			}
		}
		m.tell(x.agent, r)
	}
}

// takeOffers checks the offers of an ACCEPT.
func (m *Machine) takeOffers(f *framework, ids []*mezzov1.OfferID) (*acceptance, string) {
	if len(ids) == 0 {
		return nil, "No offers specified"
	}
	x := &acceptance{framework: f}
	for _, id := range ids {
		o := m.offer(id.GetValue())
		switch {
		case slices.Contains(x.ids, id.GetValue()):
			return nil, "Duplicate offer " + id.GetValue() + " in offer list"
		case o == nil || o.framework != f:
			return nil, "Offer " + id.GetValue() + " is no longer valid"
		}
		if len(x.offers) > 0 {
			first := x.offers[0]
			if o.role != first.role {
				return nil, fmt.Sprintf("Aggregated offers must be allocated to the same role: offer %s has role '%s', offer %s role '%s'",
					o.id, o.role, first.id, first.role)
			}
			if o.agent != first.agent {
				return nil, fmt.Sprintf("Aggregated offers must belong to one single agent: offer %s is of agent %s, offer %s of agent %s",
					o.id, o.agent.id, first.id, first.agent.id)
			}
		}
		x.offers, x.ids = append(x.offers, o), append(x.ids, o.id)
		x.pool = x.pool.Add(o.resources)
	}
	x.agent, x.role = x.offers[0].agent, x.offers[0].role
	return x, ""
}

// acceptInvalid answers an ACCEPT whose offers are not good: those that exist
// are given back, and whatever was to be done with them is refused.
func (m *Machine) acceptInvalid(f *framework, call *schedulerv1.Call_Accept, why string) {
	for _, id := range call.GetOfferIds() {
		if o := m.offer(id.GetValue()); o != nil && o.framework == f {
			m.freeOffer(o, 0, false)
		}
	}
	state := mezzov1.TaskState_TASK_LOST
	if f.partitionAware {
		state = mezzov1.TaskState_TASK_DROPPED
	}
	for _, op := range call.GetOperations() {
		tasks := append(slices.Clone(op.GetLaunch().GetTaskInfos()), op.GetLaunchGroup().GetTaskGroup().GetTasks()...)
		for _, t := range tasks {
			m.refuseTask(f, t, state, mezzov1.TaskStatus_REASON_INVALID_OFFERS, "Task launched with invalid offers: "+why)
		}
		if op.GetLaunch() == nil && op.GetLaunchGroup() == nil {
			m.refuseOperation(f, op, "Operation attempted with invalid offers: "+why)
		}
	}
}

// refuseTask answers for a task that never came to be.
func (m *Machine) refuseTask(f *framework, t *mezzov1.TaskInfo, state mezzov1.TaskState, reason mezzov1.TaskStatus_Reason, why string) {
	m.update(f, &mezzov1.TaskStatus{
		TaskId: t.GetTaskId(), State: state.Enum(), AgentId: t.GetAgentId(),
		Source: mezzov1.TaskStatus_SOURCE_MASTER.Enum(), Reason: reason.Enum(), Message: proto.String(why),
		Timestamp: proto.Float64(seconds(m.now)),
	})
}

// refuseOperation answers for an operation that is not carried out, if the
// framework wants to know, which it says by giving it an id.
func (m *Machine) refuseOperation(f *framework, op *mezzov1.Offer_Operation, why string) {
	m.logf(Info, "operation refused", "framework_id", f.id, "type", op.GetType().String(), "reason", why)
	m.countOperationEnd(op, mezzov1.OperationState_OPERATION_ERROR)
	if op.GetId().GetValue() == "" || !f.connected() {
		return
	}
	m.event(f, &schedulerv1.Event{
		Type: schedulerv1.Event_UPDATE_OPERATION_STATUS.Enum(),
		UpdateOperationStatus: &schedulerv1.Event_UpdateOperationStatus{Status: &mezzov1.OperationStatus{
			OperationId: op.GetId(), State: mezzov1.OperationState_OPERATION_ERROR.Enum(), Message: proto.String(why),
		}},
	})
}

// launch carries out a LAUNCH: each task by itself.
func (m *Machine) launch(x *acceptance, op *mezzov1.Offer_Operation) {
	for _, info := range op.GetLaunch().GetTaskInfos() {
		if op.GetId() != nil {
			m.refuseTask(x.framework, info, mezzov1.TaskState_TASK_ERROR, mezzov1.TaskStatus_REASON_TASK_INVALID,
				"The operation LAUNCH must not have an id: tasks are told of by status updates")
			continue
		}
		if why, denied := x.denied[info.GetTaskId().GetValue()]; denied {
			m.refuseTask(x.framework, info, mezzov1.TaskState_TASK_ERROR, mezzov1.TaskStatus_REASON_TASK_UNAUTHORIZED, why)
			continue
		}
		p, why := m.checkTask(x, info, nil)
		if why == "" {
			why = m.checkFit(x, []*plan{p})
		}
		if why == "" {
			why = m.carryOut(x, []*plan{p}, nil)
		}
		if why != "" {
			m.refuseTask(x.framework, info, mezzov1.TaskState_TASK_ERROR, mezzov1.TaskStatus_REASON_TASK_INVALID, why)
		}
	}
}

// launchGroup carries out a LAUNCH_GROUP: all tasks or none.
func (m *Machine) launchGroup(x *acceptance, op *mezzov1.Offer_Operation) {
	group := op.GetLaunchGroup()
	tasks := group.GetTaskGroup().GetTasks()
	why := ""
	if op.GetId() != nil {
		why = "The operation LAUNCH_GROUP must not have an id: tasks are told of by status updates"
	}
	if len(tasks) == 0 {
		m.logf(Info, "task group without tasks ignored", "framework_id", x.framework.id)
		return
	}
	for _, info := range tasks {
		if denied := x.denied[info.GetTaskId().GetValue()]; denied != "" {
			m.refuseGroup(x.framework, tasks, mezzov1.TaskStatus_REASON_TASK_GROUP_UNAUTHORIZED,
				fmt.Sprintf("Task '%s' is not authorized: %s", info.GetTaskId().GetValue(), denied))
			return
		}
	}
	var executor *plannedExecutor
	if why == "" {
		executor, why = m.checkGroupExecutor(x, group.GetExecutor())
	}
	var plans []*plan
	seen := map[string]bool{}
	for _, info := range tasks {
		if why != "" {
			break
		}
		var p *plan
		p, why = m.checkGroupTask(x, info, executor)
		plans = append(plans, p)
		if id := info.GetTaskId().GetValue(); why == "" && seen[id] {
			why = "Task group has duplicate task ID: " + id
		}
		seen[info.GetTaskId().GetValue()] = true
		if why != "" {
			why = fmt.Sprintf("Task '%s' is invalid: %s", info.GetTaskId().GetValue(), why)
		}
	}
	if why == "" {
		why = m.checkFit(x, plans)
	}
	if why == "" {
		why = m.carryOut(x, plans, executor)
	}
	if why != "" {
		m.refuseGroup(x.framework, tasks, mezzov1.TaskStatus_REASON_TASK_GROUP_INVALID, why)
	}
}

func (m *Machine) refuseGroup(f *framework, tasks []*mezzov1.TaskInfo, reason mezzov1.TaskStatus_Reason, why string) {
	for _, info := range tasks {
		m.refuseTask(f, info, mezzov1.TaskState_TASK_ERROR, reason, why)
	}
}

// plan is a task that was found valid.
type plan struct {
	info      *mezzov1.TaskInfo // as the agent gets it
	resources resource.Resources
	executor  *plannedExecutor // nil for a command task
}

// plannedExecutor is an executor that a launch needs: a running one, or one
// that the launch brings.
type plannedExecutor struct {
	info      *mezzov1.ExecutorInfo
	resources resource.Resources
	running   *executor
}

// need is what a plan takes from the pool.
func need(plans []*plan) resource.Resources {
	var sum resource.Resources
	var counted []*plannedExecutor
	for _, p := range plans {
		sum = sum.Add(p.resources)
		if e := p.executor; e != nil && e.running == nil && !slices.Contains(counted, e) {
			sum = sum.Add(e.resources)
			counted = append(counted, e)
		}
	}
	return sum
}

// checkFit checks that the pool has what the plans need together. A copy of a
// shared resource in the pool is enough for all.
func (m *Machine) checkFit(x *acceptance, plans []*plan) string {
	want := need(plans)
	ok := x.pool.Contains(want.NonShared())
	for _, r := range want.Shared() {
		r.Count = 1
		ok = ok && x.pool.Contains(resource.Resources{r})
	}
	if !ok || !disjoint(plans) {
		return fmt.Sprintf("Total resources %s required by task and its executor is more than available %s", want, orNothing(x.pool))
	}
	return ""
}

// disjoint is whether no number or item of a range or set is in two of the
// plans, which adding them up does not show.
func disjoint(plans []*plan) bool {
	if len(plans) < 2 {
		return len(plans) == 0 || plans[0].executor == nil || plans[0].executor.running != nil ||
			noOverlap(plans[0].resources, plans[0].executor.resources)
	}
	var sum resource.Resources
	var counted []*plannedExecutor
	add := func(r resource.Resources) bool {
		if !noOverlap(sum, r) {
			return false
		}
		sum = sum.Add(r)
		return true
	}
	for _, p := range plans {
		if !add(p.resources) {
			return false
		}
		if e := p.executor; e != nil && e.running == nil && !slices.Contains(counted, e) {
			counted = append(counted, e)
			if !add(e.resources) {
				return false
			}
		}
	}
	return true
}

func noOverlap(a, b resource.Resources) bool {
	for _, r := range a.Intersect(b) {
		if r.Kind.Type() != resource.TypeScalar && !r.Kind.Shared() {
			return false
		}
	}
	return true
}

func orNothing(r resource.Resources) string {
	if r.IsEmpty() {
		return "nothing"
	}
	return r.String()
}

// carryOut launches what was found valid: books, then tasks, then the agent.
// group is the executor of a task group, nil for single tasks.
func (m *Machine) carryOut(x *acceptance, plans []*plan, group *plannedExecutor) string {
	var taken []ledger.Key
	take := func(key ledger.Key, res resource.Resources) string {
		if err := m.books.Use(x.ids, key, res); err != nil {
			for _, k := range taken { // cannot be after checkFit; back out whole
				m.release(k)
			}
			return "The books refuse it: " + err.Error()
		}
		taken = append(taken, key)
		return ""
	}
	f, a := x.framework, x.agent
	executors := map[*plannedExecutor]*executor{}
	planned := make([]*plannedExecutor, 0, 1)
	if group != nil {
		planned = append(planned, group)
	}
	for _, p := range plans {
		if p.executor != nil && !slices.Contains(planned, p.executor) {
			planned = append(planned, p.executor)
		}
	}
	for _, e := range planned {
		if e.running == nil {
			key := ledger.Key{Agent: a.id, Framework: f.id, Kind: ledger.Executor, ID: e.info.GetExecutorId().GetValue()}
			if why := take(key, e.resources); why != "" {
				return why
			}
		}
	}
	for _, p := range plans {
		key := ledger.Key{Agent: a.id, Framework: f.id, Kind: ledger.Task, ID: p.info.GetTaskId().GetValue()}
		if why := take(key, p.resources); why != "" {
			return why
		}
	}
	x.pool = x.pool.Minus(need(plans).NonShared())
	x.used = true
	for _, e := range planned {
		if executors[e] = e.running; e.running == nil {
			executors[e] = m.addExecutor(a, f, e.info, x.role, e.resources)
		}
	}
	for _, p := range plans {
		if copies := p.resources.Shared(); !copies.IsEmpty() {
			// They come beside those of the offer, which go back with it.
			m.tell(a, &allocator.Held{Agent: a.id, Framework: f.id, Role: x.role, Resources: copies})
		}
		t := &task{
			key: TaskKey{FrameworkID: f.id, TaskID: p.info.GetTaskId().GetValue()}, name: p.info.GetName(),
			framework: f, agent: a, role: x.role, resources: p.resources, info: p.info, launched: m.now,
			state: mezzov1.TaskState_TASK_STAGING, latest: mezzov1.TaskState_TASK_STAGING,
		}
		if p.executor != nil {
			t.executor = executors[p.executor]
			t.executor.live++
		}
		m.addTask(t)
		m.holding(t)
	}
	m.touchRole(x.role)
	m.sendRun(x, plans, group)
	return ""
}

func (m *Machine) sendRun(x *acceptance, plans []*plan, group *plannedExecutor) {
	run := &linkv1.Run{Framework: x.framework.info, Group: group != nil}
	for _, p := range plans {
		run.Tasks = append(run.Tasks, p.info)
	}
	if group != nil {
		run.Executor = group.info
	} else if p := plans[0]; p.executor != nil {
		run.Executor = p.executor.info
	}
	m.send(x.agent.link, &linkv1.MasterMessage{Message: &linkv1.MasterMessage_Run{Run: run}})
}
