package state

import (
	"bytes"
	"container/heap"
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	isolatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/isolator/v1"
	linkv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/link/v1"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
)

type task struct {
	stored
	key         taskKey
	framework   *framework        // nil: nothing is known of it
	info        *mezzov1.TaskInfo // nil: the agent never had the task
	infoWritten bool
	executor    *executor // nil: it never had a place to run
	executorID  string
	container   string
	sandbox     string
	group       string // shared by tasks launched together as a group; else empty
	role        string
	launch      *launch  // until it runs, or was delivered to a custom executor
	delivered   bool     // to a custom executor
	seen        [][]byte // uuids of that executor's newest updates
	kill        *kill

	launched, started, finished time.Time

	probers []*prober
	// What was last seen of a task that is looked at; nil: nothing yet.
	healthy *bool
	checked *mezzov1.CheckStatusInfo

	status *mezzov1.TaskStatus // the newest
	// updates wait for acknowledgement, oldest first; the first is outstanding.
	updates    []*mezzov1.TaskStatus
	retryAt    time.Time
	retryDelay time.Duration
}

// kill is the wish that a task ends.
type kill struct {
	deadline time.Time // when SIGKILL is due
	escalate time.Time // when its custom executor is killed with it; zero: never
	asked    time.Time // when these were set, on the same clock
	why      cause
	message  string
}

// cause is who wishes it, and with that what its end is called.
type cause string

const (
	byFramework cause = "framework" // KILLED
	byDrain     cause = "drain"     // KILLED, for the drain
	byDrainGone cause = "drain-gone"
	byRevoke    cause = "revoke" // GONE or LOST
	byShutdown  cause = "shutdown"
	byGroup     cause = "group"  // another task of its group did not finish
	byHealth    cause = "health" // KILLED, and not healthy
)

func (t *task) ended() bool { return t.status.GetState().Terminal() }

const (
	fromAgent    = mezzov1.TaskStatus_SOURCE_AGENT
	fromExecutor = mezzov1.TaskStatus_SOURCE_EXECUTOR
)

// newStatus is a status of a task, without what depends on how it came about.
func (m *Machine) newStatus(t *task, state mezzov1.TaskState, source mezzov1.TaskStatus_Source) *mezzov1.TaskStatus {
	s := &mezzov1.TaskStatus{
		TaskId:    &mezzov1.TaskID{Value: proto.String(t.key.id)},
		State:     state.Enum(),
		Source:    source.Enum(),
		Timestamp: proto.Float64(float64(m.now.UnixMicro()) / 1e6),
		Uuid:      m.uuid(),
		Healthy:   t.healthy, CheckStatus: t.checked,
	}
	if m.id != "" {
		s.AgentId = &mezzov1.AgentID{Value: proto.String(m.id)}
	}
	if t.executorID != "" {
		s.ExecutorId = &mezzov1.ExecutorID{Value: proto.String(t.executorID)}
	}
	// A root is named by the tasks of a custom executor.
	if c := m.containers[t.container]; c != nil && (c.task == t || c.task == nil && t.delivered) && c.phase != claiming {
		s.ContainerStatus = m.containerStatus(c)
	}
	return s
}

func (m *Machine) containerStatus(c *container) *mezzov1.ContainerStatus {
	id := &mezzov1.ContainerID{Value: proto.String(c.id)}
	if p := c.parent(); p != "" {
		id.Parent = &mezzov1.ContainerID{Value: proto.String(p)}
	}
	s := &mezzov1.ContainerStatus{ContainerId: id, NetworkInfos: c.networks, CgroupInfo: c.cgroup}
	if c.pid > 0 {
		s.ExecutorPid = proto.Uint32(uint32(c.pid))
	}
	if len(s.NetworkInfos) == 0 && m.cfg.IP != "" {
		s.NetworkInfos = []*mezzov1.NetworkInfo{{IpAddresses: []*mezzov1.NetworkInfo_IPAddress{{IpAddress: proto.String(m.cfg.IP)}}}}
	}
	return s
}

func because(s *mezzov1.TaskStatus, r mezzov1.TaskStatus_Reason, message string) *mezzov1.TaskStatus {
	s.Reason = r.Enum()
	if message != "" {
		s.Message = proto.String(message)
	}
	return s
}

// lost is the state of a task that is no more: what a framework that knows of
// partitions is told, and what others are.
func lost(f *framework, aware mezzov1.TaskState) mezzov1.TaskState {
	if f.has(mezzov1.FrameworkInfo_Capability_PARTITION_AWARE) {
		return aware
	}
	return mezzov1.TaskState_TASK_LOST
}

// update adds a status to what the framework is to hear of a task.
func (m *Machine) update(t *task, s *mezzov1.TaskStatus) {
	t.status = s
	m.counts.StatusUpdates++
	m.touch(t)
	m.noteFramework(t.framework)
	if t.framework != nil && t.framework.terminating {
		// Nobody is there to acknowledge; the master hears of it once.
		t.updates = nil
		m.sendUpdate(t, s)
		if s.GetState().Terminal() {
			m.forgetTask(t)
		}
		return
	}
	t.updates = append(t.updates, s)
	if len(t.updates) == 1 {
		t.retryDelay = m.cfg.Retry
		m.send(t)
		return
	}
	// The newest state rides on the outstanding update. The end of a task frees
	// its resources, so that is told soon even if an acknowledgement is slow.
	if soon := m.now.Add(time.Second); s.GetState().Terminal() && m.link.state == registered && t.retryAt.After(soon) {
		m.retryAt(t, soon)
	}
}

// send sends the outstanding update, and sets when it is sent again.
func (m *Machine) send(t *task) {
	if m.link.state != registered {
		t.retryAt = time.Time{} // until the master is there
		return
	}
	m.sendUpdate(t, t.updates[0])
	m.retryAt(t, m.now.Add(t.retryDelay))
}

// resend is send again, with a longer pause after it.
func (m *Machine) resend(t *task) {
	t.retryAt = time.Time{}
	if len(t.updates) == 0 {
		return
	}
	t.retryDelay = min(2*t.retryDelay, m.cfg.MaxRetry)
	m.send(t)
}

func (m *Machine) retryAt(t *task, at time.Time) {
	t.retryAt = at
	heap.Push(&m.timers, timer{at: at, task: t})
}

func (m *Machine) sendUpdate(t *task, s *mezzov1.TaskStatus) {
	m.sendMaster(&linkv1.AgentMessage{Message: &linkv1.AgentMessage_Update{Update: &linkv1.StatusUpdate{
		FrameworkId: t.key.framework, Status: s, LatestState: t.status.State, ExecutorId: t.executorID,
		ExecutorLives: t.executor != nil && t.executor.program.lives(t.executor),
	}}})
}

// acknowledge takes the outstanding update off.
func (m *Machine) acknowledge(a *linkv1.Acknowledge) {
	t := m.tasks[refKey(a.GetTask())]
	if t == nil || len(t.updates) == 0 || !bytes.Equal(t.updates[0].GetUuid(), a.GetUuid()) {
		m.log(Debug, "acknowledgement of an update that is not outstanding", "framework_id", a.GetTask().GetFrameworkId(), "task_id", a.GetTask().GetTaskId())
		return
	}
	t.updates = slices.Clone(t.updates[1:])
	t.retryAt = time.Time{}
	m.touch(t)
	switch {
	case len(t.updates) > 0:
		t.retryDelay = m.cfg.Retry
		m.send(t)
	case t.ended():
		m.forgetTask(t)
	}
}

func refKey(r *linkv1.TaskRef) taskKey { return taskKey{r.GetFrameworkId(), r.GetTaskId()} }

// finishTask gives a task its last status. What that means for the rest of its
// group, and for its executor, follows from it.
func (m *Machine) finishTask(t *task, s *mezzov1.TaskStatus) {
	if t.ended() {
		return
	}
	t.finished = m.now
	t.launch = nil
	t.stopProbes()
	m.countEnd(t, s)
	e := t.executor
	if e != nil {
		e.tasks = slices.DeleteFunc(e.tasks, func(o *task) bool { return o == t })
		m.tellGroupsEnded(e) // before the update, with which the master forgets it
	}
	m.update(t, s)
	if e == nil {
		return
	}
	// A custom executor sees to its groups itself.
	if t.group != "" && s.GetState() != mezzov1.TaskState_TASK_FINISHED && e.program == nil {
		message := fmt.Sprintf("task %q of its group ended in %s", t.key.id, s.GetState())
		for _, other := range slices.Clone(e.tasks) {
			if other.group == t.group {
				m.kill(other, m.grace(other, nil), byGroup, message)
			}
		}
	}
	if e.program != nil && !e.program.escalateBy.IsZero() {
		m.escalate(e)
	}
	m.retireExecutor(e)
	if len(e.tasks) > 0 {
		m.resize(e)
	}
}

func (m *Machine) countEnd(t *task, s *mezzov1.TaskStatus) {
	if m.counts.TasksEnded == nil {
		m.counts.TasksEnded = map[mezzov1.TaskState]uint64{}
	}
	m.counts.TasksEnded[s.GetState()]++
	if t.kill != nil && t.kill.why == byRevoke {
		m.counts.TasksRevoked++
	}
}

// forgetTask drops an ended task, but for what `mezzo logs` wants.
func (m *Machine) forgetTask(t *task) {
	if t.gone {
		return // with another of its group
	}
	t.updates = nil
	m.forget(t)
	delete(m.tasks, t.key)
	if t.info != nil && t.container != "" {
		m.remember(t)
	}
	m.release(t.framework)
	m.drained()
}

func (m *Machine) remember(t *task) {
	c := &completed{
		framework: t.key.framework, id: t.key.id, name: t.info.GetName(), executor: t.executorID, role: t.role, container: t.container,
		user: userOf(t), owner: t.framework.info.GetPrincipal(),
		sandbox: t.sandbox, launched: t.launched, started: t.started, finished: t.finished, status: t.status, resources: t.info.GetResources(),
	}
	if n := len(m.completed); n > 0 {
		c.number = m.completed[n-1].number + 1
	}
	m.completed = append(m.completed, c)
	m.touch(c)
	for len(m.completed) > m.cfg.MaxCompleted {
		m.forget(m.completed[0])
		m.completed = slices.Delete(m.completed, 0, 1)
	}
}

// release drops a framework that nothing names any more.
func (m *Machine) release(f *framework) {
	if f == nil {
		return
	}
	if f.uses--; f.uses == 0 {
		m.forget(f)
		delete(m.frameworks, f.id)
	}
}

// unknownTask answers for a task that the agent does not have, with an update
// that is delivered as any other.
func (m *Machine) unknownTask(ref *linkv1.TaskRef, reason mezzov1.TaskStatus_Reason, message string) {
	key := refKey(ref)
	t := &task{key: key, framework: m.frameworks[key.framework], launched: m.now}
	t.status = &mezzov1.TaskStatus{TaskId: &mezzov1.TaskID{Value: proto.String(key.id)}, State: mezzov1.TaskState_TASK_STAGING.Enum()}
	if t.framework != nil {
		t.framework.uses++
	}
	s := m.newStatus(t, lost(t.framework, mezzov1.TaskState_TASK_DROPPED), fromAgent)
	because(s, reason, message)
	// It may have ended and been acknowledged, and the master has not heard that: it
	// is told the same update again, by which the scheduler knows it.
	for _, c := range m.completed {
		if c.framework == key.framework && c.id == key.id {
			uuid := s.Uuid
			if s = proto.Clone(c.status).(*mezzov1.TaskStatus); len(s.Uuid) == 0 {
				s.Uuid = uuid
			}
			t.executorID = c.executor
		}
	}
	m.tasks[key] = t
	m.finishTask(t, s)
}

// reconcile answers what became of tasks that the master expects here.
func (m *Machine) reconcile(r *linkv1.ReconcileTasks) {
	for _, ref := range r.GetTasks() {
		t := m.tasks[refKey(ref)]
		switch {
		case t == nil:
			m.unknownTask(ref, mezzov1.TaskStatus_REASON_RECONCILIATION, "the agent does not know the task")
		case len(t.updates) > 0:
			m.send(t)
		default:
			s := proto.Clone(t.status).(*mezzov1.TaskStatus)
			s.Uuid = nil // nothing to acknowledge: it was, already
			s.Source, s.Reason = fromAgent.Enum(), mezzov1.TaskStatus_REASON_RECONCILIATION.Enum()
			m.sendUpdate(t, s)
		}
	}
}

// grace is how long a task is given between SIGTERM and SIGKILL.
func (m *Machine) grace(t *task, policy *mezzov1.KillPolicy) time.Duration {
	for _, p := range []*mezzov1.KillPolicy{policy, t.info.GetKillPolicy()} {
		if p.GetGracePeriod() != nil {
			return max(0, time.Duration(p.GetGracePeriod().GetNanoseconds()))
		}
	}
	return m.cfg.Grace
}

// kill asks for the end of a task. Asked again it can only bring the deadline
// nearer; the first to ask says what the end is called.
func (m *Machine) kill(t *task, grace time.Duration, why cause, message string) {
	if t.ended() {
		return
	}
	if l := t.launch; l != nil && l.phase != startingTasks {
		m.abort(l, t, why, message)
		return
	}
	if t.executor.program != nil {
		m.killDelivered(t, grace, why, message)
		return
	}
	deadline := m.now.Add(grace)
	first := t.kill == nil
	if !first && !deadline.Before(t.kill.deadline) {
		return
	}
	if first {
		t.kill = &kill{why: why, message: message}
		t.stopProbes()
	}
	t.kill.deadline, t.kill.asked = deadline, m.now
	m.touch(t)
	c := m.containers[t.container]
	if c == nil || c.phase != running {
		return // it is killed when it runs
	}
	if first {
		m.killing(t)
	}
	m.effect(Kill{Container: c.id, Launcher: Launcher(c.chain), Grace: grace})
}

// killing tells frameworks that want to hear of it that a task is being killed.
func (m *Machine) killing(t *task) {
	if !t.framework.has(mezzov1.FrameworkInfo_Capability_TASK_KILLING_STATE) || t.status.GetState() == mezzov1.TaskState_TASK_KILLING {
		return
	}
	s := m.newStatus(t, mezzov1.TaskState_TASK_KILLING, fromExecutor)
	if r, message := t.kill.reason(); r != nil {
		because(s, *r, message)
	}
	m.update(t, s)
}

// reason is what a status says of the wish that a task ends; nil for what the
// framework itself asked for.
func (k *kill) reason() (*mezzov1.TaskStatus_Reason, string) {
	switch k.why {
	case byDrain, byDrainGone:
		return mezzov1.TaskStatus_REASON_AGENT_DRAINING.Enum(), k.message
	case byRevoke:
		return mezzov1.TaskStatus_REASON_CONTAINER_PREEMPTED.Enum(), k.message
	}
	return nil, k.message
}

// killRequest is a Kill of the master.
func (m *Machine) killRequest(k *linkv1.Kill) {
	t := m.tasks[refKey(k.GetTask())]
	if t == nil {
		m.unknownTask(k.GetTask(), mezzov1.TaskStatus_REASON_EXECUTOR_TERMINATED, "the agent does not know the task that it was asked to kill")
		return
	}
	m.kill(t, m.grace(t, k.GetKillPolicy()), byFramework, "")
}

func (m *Machine) revoke(r *linkv1.Revoke) {
	t := m.tasks[refKey(r.GetTask())]
	if t == nil {
		m.unknownTask(r.GetTask(), mezzov1.TaskStatus_REASON_CONTAINER_PREEMPTED, "the agent does not know the task whose resources it was asked to free")
		return
	}
	m.kill(t, time.Duration(r.GetGraceMs())*time.Millisecond, byRevoke, r.GetReason())
}

// outcome is the last status of a task whose process has ended.
func (m *Machine) outcome(t *task, c *container, exit *isolatorv1.ExitStatus) *mezzov1.TaskStatus {
	limitation := exit.GetLimitation()
	if limitation == nil {
		limitation = c.limitation
	}
	ended := m.endedHow("Command", exit)
	s := m.newStatus(t, mezzov1.TaskState_TASK_FAILED, fromExecutor)
	if exit.GetKnown() && exit.GetSignal() != 0 {
		s.ExitSignal = proto.Int32(exit.GetSignal())
	} else if exit.GetKnown() {
		s.ExitCode = proto.Int32(exit.GetCode())
	}
	switch {
	case limitation != nil:
		s.Source = fromAgent.Enum()
		return m.limitationStatus(s, limitation)
	case exit.GetDeadlineExceeded():
		most := time.Duration(t.info.GetMaxCompletionTime().GetNanoseconds())
		because(s, mezzov1.TaskStatus_REASON_MAX_COMPLETION_TIME_REACHED, fmt.Sprintf("The task was ended because it ran longer than its maximum completion time of %v", most))
	case t.kill != nil:
		return m.killedStatus(t, s, ended)
	case !exit.GetKnown():
		s.Source = fromAgent.Enum()
		because(s, mezzov1.TaskStatus_REASON_EXECUTOR_TERMINATED, ended)
	default:
		if exit.GetSignal() == 0 && exit.GetCode() == 0 {
			s.State = mezzov1.TaskState_TASK_FINISHED.Enum()
		}
		s.Message = proto.String(ended)
	}
	return s
}

func (m *Machine) limitationStatus(s *mezzov1.TaskStatus, l *isolatorv1.Limitation) *mezzov1.TaskStatus {
	reason := mezzov1.TaskStatus_REASON_CONTAINER_LIMITATION
	if l.Reason != nil {
		reason = l.GetReason()
	}
	because(s, reason, l.GetMessage())
	if len(l.GetResources()) > 0 {
		s.Limitation = &mezzov1.TaskResourceLimitation{Resources: l.GetResources()}
	}
	return s
}

// killedStatus makes a status that of a task which ended because somebody wished
// it: who wished it says what its end is called.
func (m *Machine) killedStatus(t *task, s *mezzov1.TaskStatus, ended string) *mezzov1.TaskStatus {
	if t.kill.why == byRevoke {
		s.State, s.Source = lost(t.framework, mezzov1.TaskState_TASK_GONE).Enum(), fromAgent.Enum()
		return because(s, mezzov1.TaskStatus_REASON_CONTAINER_PREEMPTED, join(t.kill.message, ended))
	}
	s.State = mezzov1.TaskState_TASK_KILLED.Enum()
	if t.kill.why == byDrainGone {
		s.State = lost(t.framework, mezzov1.TaskState_TASK_GONE_BY_OPERATOR).Enum()
	}
	r, message := t.kill.reason()
	if r != nil {
		s.Reason = r
	}
	s.Message = proto.String(join(message, ended))
	return s
}

func join(message, ended string) string {
	if message == "" {
		return ended
	}
	return message + ": " + ended
}

// endedHow says how a process ended, in the words that Mesos uses.
func (m *Machine) endedHow(who string, exit *isolatorv1.ExitStatus) string {
	if !exit.GetKnown() && m.rebooted {
		return "The agent's host was rebooted, and the container is gone with it"
	}
	if !exit.GetKnown() {
		return "The container is gone and nobody saw how it ended"
	}
	core := ""
	if exit.GetCoreDumped() {
		core = " (core dumped)"
	}
	if exit.GetSignal() != 0 {
		return fmt.Sprintf("%s terminated with signal %s%s", who, signalName(exit.GetSignal()), core)
	}
	return fmt.Sprintf("%s exited with status %d", who, exit.GetCode())
}

// signalName is what strsignal says on Linux.
func signalName(n int32) string {
	names := map[int32]string{
		1: "Hangup", 2: "Interrupt", 3: "Quit", 4: "Illegal instruction", 5: "Trace/breakpoint trap", 6: "Aborted", 7: "Bus error",
		8: "Floating point exception", 9: "Killed", 10: "User defined signal 1", 11: "Segmentation fault", 12: "User defined signal 2",
		13: "Broken pipe", 14: "Alarm clock", 15: "Terminated", 16: "Stack fault", 24: "CPU time limit exceeded",
		25: "File size limit exceeded", 31: "Bad system call",
	}
	if name, ok := names[n]; ok {
		return name
	}
	return fmt.Sprintf("%d", n)
}
