package state

import (
	"time"

	"google.golang.org/protobuf/proto"

	linkv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/link/v1"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
	schedulerv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1/scheduler"
)

// findings are what a registration's tasks ask for in answer.
type findings struct {
	killed  []*linkv1.TaskRef
	kills   []*linkv1.Kill
	missing []*linkv1.TaskRef
	revoked []*task // whose Revoke may have been lost with a link
}

// reconcileExecutors makes the master's executors those of the agent.
func (m *Machine) reconcileExecutors(a *agent, reg *registration, owners []*framework) {
	seen := map[executorKey]bool{}
	for _, r := range reg.executors {
		f := owners[r.framework]
		key := executorKey{f.id, r.info.GetExecutorId().GetValue()}
		seen[key] = true
		e := a.executors[key]
		if e != nil && (e.role != r.role || !e.resources.Equal(r.resources)) {
			m.swapExecutor(e, r)
		}
		if e == nil {
			e = m.addExecutor(a, f, r.info, r.role, r.resources)
			m.recoverUse(e.use(), e.role, e.resources)
		}
		e.proven = true
	}
	for _, e := range m.executorsOf(a) {
		// One that was launched into a link that broke is not there; if its
		// tasks are missing too, they are asked for below.
		if !seen[e.key] {
			m.removeExecutor(e)
		}
	}
}

// swapExecutor takes the agent's word for what an executor holds.
func (m *Machine) swapExecutor(e *executor, r *reportedExecutor) {
	m.release(e.use())
	e.role, e.resources = r.role, r.resources
	m.touchExecutor(e)
	m.recoverUse(e.use(), e.role, e.resources)
}

// reconcileTasks makes the master's tasks those of the agent, as far as the
// agent knows better, and finds out what to tell it.
func (m *Machine) reconcileTasks(a *agent, reg *registration, owners []*framework, returned bool) findings {
	var out findings
	seen := make(map[TaskKey]bool, len(reg.tasks))
	for _, r := range reg.tasks {
		f := owners[r.framework]
		key := TaskKey{FrameworkID: f.id, TaskID: r.GetId()}
		if seen[key] {
			continue
		}
		seen[key] = true
		t := a.tasks[key]
		if t == nil {
			t = m.learnTask(a, f, key, r)
		} else {
			m.compareTask(t, r)
		}
		if returned && !f.removed() && (!t.latest.Terminal() || t.lost) {
			m.update(f, m.announcement(t))
		}
		t.lost = false
		if t.revoked != nil {
			out.revoked = append(out.revoked, t)
		}
		if t.killed && !t.latest.Terminal() {
			if t.kill == nil {
				out.killed = append(out.killed, t.ref())
			} else {
				out.kills = append(out.kills, &linkv1.Kill{Task: t.ref(), KillPolicy: t.kill})
			}
		}
	}
	for _, t := range m.tasksOf(a) {
		switch {
		case seen[t.key]:
		case t.framework.removed() || t.latest.Terminal():
			// Ended, and acknowledged, or nobody is there to care.
			m.completeTask(t)
		default:
			out.missing = append(out.missing, t.ref())
		}
	}
	return out
}

// learnTask takes up a task that only the agent knows.
func (m *Machine) learnTask(a *agent, f *framework, key TaskKey, r *reportedTask) *task {
	t := &task{
		key: key, framework: f, agent: a, name: r.GetName(), role: r.GetRole(),
		resources: r.resources, detail: r.GetDetail(), latest: r.GetState(),
		executor: a.executors[executorKey{f.id, r.GetExecutorId()}],
	}
	t.adopt(r, m.now)
	m.addTask(t)
	if t.latest.Terminal() {
		t.finished = m.now
	} else {
		if t.executor != nil {
			t.executor.live++
		}
		m.recoverUse(t.use(), t.role, t.resources)
		m.holding(t)
	}
	return t
}

// adopt takes the state of a task from what the agent reports: that of the
// update which waits for the framework, if one does, for that is the newest
// which the framework has been told or will be.
func (t *task) adopt(r *reportedTask, now time.Time) {
	state, status := r.GetState(), r.GetStatus()
	if r.GetUnacknowledged() && r.UpdateState != nil && r.GetUpdateState() != state {
		state = r.GetUpdateState()
		status = &mezzov1.TaskStatus{
			TaskId: &mezzov1.TaskID{Value: proto.String(r.GetId())}, State: state.Enum(), Uuid: r.GetUpdateUuid(),
			AgentId: r.GetStatus().GetAgentId(), ExecutorId: r.GetStatus().GetExecutorId(), Timestamp: r.GetStatus().Timestamp,
		}
	}
	if status == nil {
		t.state, t.status = state, nil
	} else {
		t.setStatus(withoutData(status))
		t.state = state
	}
	if ts := r.GetStatus().GetTimestamp(); ts > 0 && t.state == mezzov1.TaskState_TASK_RUNNING && t.started.IsZero() {
		// The agent's clock may be ahead; nothing began in the future.
		if t.started = fromSeconds(ts); t.started.After(now) {
			t.started = now
		}
	}
}

// compareTask brings a task that both know to what the agent says.
func (m *Machine) compareTask(t *task, r *reportedTask) {
	if t.lost || !r.GetUnacknowledged() && !t.state.Terminal() {
		t.adopt(r, m.now)
	}
	if t.executor != nil {
		if e := t.agent.executors[t.executor.key]; e != t.executor {
			if t.held { // it was counted with one that is no more
				t.executor.live--
				if e != nil {
					e.live++
				}
			}
			t.executor = e
		}
	} else if id := r.GetExecutorId(); id != "" {
		if e := t.agent.executors[executorKey{t.key.FrameworkID, id}]; e != nil {
			t.executor = e
			if t.held {
				e.live++
			}
		}
	}
	t.latest = r.GetState()
	switch {
	case t.latest.Terminal():
		if t.finished.IsZero() {
			t.finished = m.now
		}
		m.endTask(t)
	case !t.held:
		t.finished = timeZero
		t.role, t.resources = r.GetRole(), r.resources
		if t.executor != nil {
			t.executor.live++
		}
		m.recoverUse(t.use(), t.role, t.resources)
		m.holding(t)
	case t.role != r.GetRole() || !t.resources.Equal(r.resources):
		m.release(t.use())
		t.role, t.resources = r.GetRole(), r.resources
		m.recoverUse(t.use(), t.role, t.resources)
	}
	m.touchTask(t)
}

// announcement tells a framework that a task which was lost from sight is there.
func (m *Machine) announcement(t *task) *mezzov1.TaskStatus {
	st := m.masterStatus(t, t.state, mezzov1.TaskStatus_REASON_AGENT_REREGISTERED, "Agent "+t.agent.hostname+" registered again")
	m.fillKnown(st, t)
	return st
}

// fillKnown copies what a reconciliation tells of a known task.
func (m *Machine) fillKnown(st *mezzov1.TaskStatus, t *task) {
	if s := t.status; s != nil {
		if s.ExecutorId != nil {
			st.ExecutorId = s.ExecutorId
		}
		st.Healthy, st.CheckStatus, st.ContainerStatus = s.Healthy, s.CheckStatus, s.ContainerStatus
		st.UnreachableTime = s.UnreachableTime
		// Else a scheduler that was away at the end would take a plain exit for
		// something unknown, until the agent's own update comes again.
		st.ExitCode, st.ExitSignal = s.ExitCode, s.ExitSignal
	}
}

// reconcile answers a framework's RECONCILE: implicit for all tasks that have
// not ended for it, explicit for those it names.
func (m *Machine) reconcile(f *framework, call *schedulerv1.Call_Reconcile) {
	if len(call.GetTasks()) == 0 {
		for _, id := range sortedKeys(f.tasks) {
			m.reconcileKnown(f, f.tasks[id])
		}
		return
	}
	for _, t := range call.GetTasks() {
		m.reconcileTask(f, t.GetTaskId(), t.GetAgentId())
	}
}

func (m *Machine) reconcileKnown(f *framework, t *task) {
	st := m.masterStatus(t, t.state, mezzov1.TaskStatus_REASON_RECONCILIATION, "Reconciliation: Latest task state")
	m.fillKnown(st, t)
	m.update(f, st)
}

// reconcileTask answers for one task; nothing while the master cannot know.
func (m *Machine) reconcileTask(f *framework, id *mezzov1.TaskID, agentID *mezzov1.AgentID) {
	if t := f.tasks[id.GetValue()]; t != nil {
		m.reconcileKnown(f, t)
		return
	}
	st := &mezzov1.TaskStatus{
		TaskId: id, AgentId: agentID, Source: mezzov1.TaskStatus_SOURCE_MASTER.Enum(),
		Reason: mezzov1.TaskStatus_REASON_RECONCILIATION.Enum(), Timestamp: proto.Float64(seconds(m.now)),
	}
	answer := func(state mezzov1.TaskState, message string) {
		if !f.partitionAware {
			state = mezzov1.TaskState_TASK_LOST
		}
		st.State, st.Message = state.Enum(), proto.String("Reconciliation: "+message)
		m.update(f, st)
	}
	if agentID.GetValue() == "" {
		if m.recovering == 0 {
			answer(mezzov1.TaskState_TASK_UNKNOWN, "Task is unknown")
		}
		return
	}
	a := m.agents[agentID.GetValue()]
	switch {
	case a == nil || a.phase == admitting:
		answer(mezzov1.TaskState_TASK_UNKNOWN, "Task is unknown, and so is its agent")
	case a.phase == recovering:
		// Nobody knows before it has come back.
	case a.phase == unreachable && m.schedule.isDown(a):
		answer(mezzov1.TaskState_TASK_UNKNOWN, "Task is unknown, and its agent's machine is down for maintenance")
	case a.phase == unreachable:
		st.UnreachableTime = &mezzov1.TimeInfo{Nanoseconds: proto.Int64(a.since.UnixNano())}
		answer(mezzov1.TaskState_TASK_UNREACHABLE, "Task's agent is unreachable")
	case a.phase == gone:
		answer(mezzov1.TaskState_TASK_GONE_BY_OPERATOR, "Task's agent was marked gone by an operator")
	default:
		answer(mezzov1.TaskState_TASK_GONE, "Task is not known to its agent")
	}
}
