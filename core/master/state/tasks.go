package state

import (
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/mezzo-os/mezzo/core/ledger"
	"github.com/mezzo-os/mezzo/sdk/allocator"
	"github.com/mezzo-os/mezzo/sdk/resource"

	linkv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/link/v1"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
	schedulerv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1/scheduler"
)

var timeZero time.Time

// task is a task from its launch until its terminal update was acknowledged.
type task struct {
	key       TaskKey
	id        *mezzov1.TaskID
	name      string
	framework *framework
	agent     *agent
	executor  *executor // nil for a command task
	role      string
	resources resource.Resources
	info      *mezzov1.TaskInfo
	detail    []byte
	// state is that of the newest update passed on to the framework; status is
	// that update, without its data.
	state  mezzov1.TaskState
	status *mezzov1.TaskStatus
	// statuses are those before status, oldest first, one a state; never changed
	// in place.
	statuses []*mezzov1.TaskStatus
	// latest is the newest state that the agent has told; it may be ahead.
	latest mezzov1.TaskState
	// held: its resources are in the books.
	held bool
	// lost: its agent is unreachable, or came back without it.
	lost bool
	// listed: it is in framework.lost.
	listed bool
	// kill is what to tell the agent when it comes back; killed alone: no
	// policy.
	killed bool
	kill   *mezzov1.KillPolicy
	// revoked: the allocator had its resources taken back; it is ending.
	revoked *revocation
	number  uint64 // for the allocator
	// completed: it is in framework.past.
	completed bool

	launched, started, finished time.Time
	dirty, forgotten            bool
}

func compareTasks(a, b *task) int {
	if c := strings.Compare(a.key.FrameworkID, b.key.FrameworkID); c != 0 {
		return c
	}
	return strings.Compare(a.key.TaskID, b.key.TaskID)
}

func (t *task) use() ledger.Key {
	return ledger.Key{Agent: t.agent.id, Framework: t.key.FrameworkID, Kind: ledger.Task, ID: t.key.TaskID}
}

// addTask enters a task that is launched or was reported.
func (m *Machine) addTask(t *task) {
	m.taskSerial++
	t.number = m.taskSerial
	t.id = &mezzov1.TaskID{Value: proto.String(t.key.TaskID)}
	t.agent.tasks[t.key] = t
	if other := t.framework.tasks[t.key.TaskID]; other == nil {
		t.framework.tasks[t.key.TaskID] = t
	} else {
		m.logf(Error, "two agents have a task of the same id; the framework sees the first", "framework_id", t.key.FrameworkID,
			"task_id", t.key.TaskID, "agent_id", other.agent.id, "other_agent_id", t.agent.id)
	}
	m.touchTask(t)
}

// holding marks a task's resources as held; they are in the books already.
func (m *Machine) holding(t *task) {
	t.held = true
	m.revocations.held(t)
	t.agent.live++
	t.framework.live++
	m.touchAgent(t.agent)
	m.touchFramework(t.framework)
	m.tell(t.agent, &allocator.TaskStarted{
		Number: t.number, Agent: t.agent.id, Framework: t.key.FrameworkID, Role: t.role, Resources: t.resources, Started: m.now,
	})
}

// endTask frees what a task holds, once.
func (m *Machine) endTask(t *task) {
	if !t.held {
		return
	}
	m.unhold(t)
	m.release(t.use())
}

// unhold counts a task out, without touching the books.
func (m *Machine) unhold(t *task) {
	t.held = false
	m.revocations.ended(t)
	t.agent.live--
	t.framework.live--
	m.touchAgent(t.agent)
	m.touchFramework(t.framework)
	m.tell(t.agent, &allocator.TaskEnded{Number: t.number})
	if e := t.executor; e != nil {
		e.live--
		m.retireExecutor(e)
	}
}

// completeTask moves a task that will not change any more into the past.
func (m *Machine) completeTask(t *task) {
	m.endTask(t)
	f := t.framework
	delete(t.agent.tasks, t.key)
	if f.tasks[t.key.TaskID] == t {
		delete(f.tasks, t.key.TaskID)
	}
	if t.finished.IsZero() {
		t.finished = m.now
	}
	f.past = append(f.past, t)
	t.completed = true
	m.recheckDrain(t.agent)
	m.touchTask(t)
	for len(f.past) > m.cfg.MaxCompletedTasks {
		m.removeTaskView(f.past[0])
		// The rest stays where it is; append moves it once in a while.
		f.past[0] = nil
		f.past = f.past[1:]
	}
	m.touchFramework(f)
	m.dropIfIdle(f)
}

// statusUpdate: an agent tells of a task.
func (m *Machine) statusUpdate(a *agent, u *linkv1.StatusUpdate) {
	st := u.GetStatus()
	key := TaskKey{FrameworkID: u.GetFrameworkId(), TaskID: st.GetTaskId().GetValue()}
	if key.FrameworkID == "" || key.TaskID == "" || st.State == nil {
		m.breakLink(a.link, "status update without a framework, a task or a state")
		return
	}
	f := m.frameworks[key.FrameworkID]
	if f == nil { // removed, and nothing of it is left that we know of
		m.acknowledge(a, key, st.GetUuid())
		return
	}
	st = m.completeStatus(a, u)
	if t := a.tasks[key]; t != nil {
		newest := st.GetState()
		if u.LatestState != nil {
			newest = u.GetLatestState()
		}
		if t.executor != nil && u.GetExecutorLives() {
			t.executor.proven = true
		}
		m.taskMoved(t, st, newest)
		if t.state.Terminal() && (len(st.GetUuid()) == 0 || f.removed()) {
			m.completeTask(t)
		}
	}
	if f.removed() {
		m.acknowledge(a, key, st.GetUuid())
		return
	}
	if f.connected() {
		m.event(f, &schedulerv1.Event{Type: schedulerv1.Event_UPDATE.Enum(), Update: &schedulerv1.Event_Update{Status: st}})
	}
}

// completeStatus fills in what an agent left out.
func (m *Machine) completeStatus(a *agent, u *linkv1.StatusUpdate) *mezzov1.TaskStatus {
	st := u.GetStatus()
	if st.GetAgentId().GetValue() == a.id && st.Timestamp != nil && st.Source != nil {
		return st
	}
	st = proto.Clone(st).(*mezzov1.TaskStatus)
	st.AgentId = a.pid
	if st.Timestamp == nil {
		st.Timestamp = proto.Float64(seconds(m.now))
	}
	if st.Source == nil {
		st.Source = mezzov1.TaskStatus_SOURCE_AGENT.Enum()
	}
	return st
}

func seconds(t time.Time) float64 { return float64(t.UnixNano()/1000) / 1e6 }

// taskMoved applies an update to a task. A terminal state is for ever, except
// that a task which was only lost from sight may be found again.
func (m *Machine) taskMoved(t *task, st *mezzov1.TaskStatus, newest mezzov1.TaskState) {
	if !t.state.Terminal() || t.lost {
		t.setStatus(withoutData(st))
		t.lost = false
		if t.state == mezzov1.TaskState_TASK_RUNNING && t.started.IsZero() {
			t.started = m.now
		}
	}
	if !t.latest.Terminal() {
		t.latest = newest
	}
	if t.executor != nil && !newest.Terminal() {
		t.executor.proven = true
	}
	if t.latest.Terminal() {
		if t.finished.IsZero() {
			t.finished = m.now
		}
		m.endTask(t)
	}
	m.touchTask(t)
}

// maxStatuses bounds what is remembered of a task that goes back and forth
// between states.
const maxStatuses = 32

// newest is the state to show of a task: what its agent has told, unless the
// framework was told something that is final, or that the task is lost.
func (t *task) newest() mezzov1.TaskState {
	if t.lost || t.state.Terminal() {
		return t.state
	}
	return t.latest
}

// setStatus takes over a status that is passed on. Of equal states in a row the
// last is remembered.
func (t *task) setStatus(st *mezzov1.TaskStatus) {
	if old := t.status; old != nil && old.GetState() != st.GetState() {
		past := t.statuses[max(0, len(t.statuses)-maxStatuses+2):]
		// Views have the old list: it is not written to.
		t.statuses = append(past[:len(past):len(past)], old)
	}
	t.state, t.status = st.GetState(), st
}

// withoutData is the status without the executor's own bytes, which are passed
// on and not kept.
func withoutData(st *mezzov1.TaskStatus) *mezzov1.TaskStatus {
	if st.Data == nil {
		return st
	}
	st = proto.Clone(st).(*mezzov1.TaskStatus)
	st.Data = nil
	return st
}

// acknowledge passes an acknowledgement on to the agent.
func (m *Machine) acknowledge(a *agent, key TaskKey, uuid []byte) {
	if len(uuid) == 0 || a.link == nil {
		return
	}
	m.send(a.link, &linkv1.MasterMessage{Message: &linkv1.MasterMessage_Acknowledge{Acknowledge: &linkv1.Acknowledge{
		Task: &linkv1.TaskRef{FrameworkId: key.FrameworkID, TaskId: key.TaskID}, Uuid: uuid,
	}}})
}

// masterStatus makes a status of the master's own.
func (m *Machine) masterStatus(t *task, state mezzov1.TaskState, reason mezzov1.TaskStatus_Reason, message string) *mezzov1.TaskStatus {
	st := &mezzov1.TaskStatus{
		TaskId: t.id, State: state.Enum(), AgentId: t.agent.pid,
		Source: mezzov1.TaskStatus_SOURCE_MASTER.Enum(), Reason: reason.Enum(),
		Message: proto.String(message), Timestamp: proto.Float64(seconds(m.now)),
	}
	if t.executor != nil {
		st.ExecutorId = t.executor.info.GetExecutorId()
	}
	return st
}

func (m *Machine) update(f *framework, st *mezzov1.TaskStatus) {
	if f.connected() {
		m.event(f, &schedulerv1.Event{Type: schedulerv1.Event_UPDATE.Enum(), Update: &schedulerv1.Event_Update{Status: st}})
	}
}

// loseTasks: the agent is unreachable. What it had is not counted until it
// comes back; those whose end was told already stay as they are.
func (m *Machine) loseTasks(a *agent) {
	m.forgetExecutors(a)
	for _, t := range m.tasksOf(a) {
		if t.held {
			m.unhold(t)
		}
		if t.framework.removed() {
			m.completeTask(t)
			continue
		}
		if t.state.Terminal() {
			continue
		}
		state := mezzov1.TaskState_TASK_LOST
		if t.framework.partitionAware {
			state = mezzov1.TaskState_TASK_UNREACHABLE
		}
		st := m.masterStatus(t, state, mezzov1.TaskStatus_REASON_AGENT_REMOVED, "Agent "+a.hostname+" is unreachable")
		st.UnreachableTime = &mezzov1.TimeInfo{Nanoseconds: proto.Int64(a.since.UnixNano())}
		t.setStatus(st)
		t.lost = true
		m.touchTask(t)
		m.update(t.framework, st)
		m.noteLost(t)
	}
}

// ending is how tasks end with their agent: what frameworks that are aware of
// partitions are told, and why. Others are told that they are LOST.
type ending struct {
	aware   mezzov1.TaskState
	reason  mezzov1.TaskStatus_Reason
	message string
}

// endTasksOfDown ends the tasks of an agent whose machine was taken down. Its
// reservations and volumes stay: what came of operations it tells when it is back.
func (m *Machine) endTasksOfDown(a *agent) {
	m.endTasks(a, ending{
		aware: mezzov1.TaskState_TASK_LOST, reason: mezzov1.TaskStatus_REASON_AGENT_REMOVED,
		message: "The machine of agent " + a.hostname + " is down for maintenance",
	})
	m.loseOperations(a)
}

// endTasks: the agent is gone, and its tasks have ended with it. Of one that has
// ended for its framework already, by a terminal update or as LOST, nothing more
// is told.
func (m *Machine) endTasks(a *agent, how ending) {
	m.forgetExecutors(a)
	for _, t := range m.tasksOf(a) {
		if t.held {
			m.unhold(t)
		}
		if !t.state.Terminal() && !t.framework.removed() {
			state, reason := mezzov1.TaskState_TASK_LOST, mezzov1.TaskStatus_REASON_AGENT_REMOVED
			if t.framework.partitionAware {
				state, reason = how.aware, how.reason
			}
			t.setStatus(m.masterStatus(t, state, reason, how.message))
			m.update(t.framework, t.status)
		}
		m.completeTask(t)
	}
}

// killTask asks a task's agent to end it, and remembers that, since the message
// may be lost with the link.
func (m *Machine) killTask(t *task, policy *mezzov1.KillPolicy) {
	t.killed, t.kill = true, policy
	if l := t.agent.link; l != nil {
		m.send(l, &linkv1.MasterMessage{Message: &linkv1.MasterMessage_Kill{Kill: &linkv1.Kill{Task: t.ref(), KillPolicy: policy}}})
	}
}

func (t *task) ref() *linkv1.TaskRef {
	return &linkv1.TaskRef{FrameworkId: t.key.FrameworkID, TaskId: t.key.TaskID}
}
