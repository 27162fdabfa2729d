package state

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/protobuf/proto"

	linkv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/link/v1"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
	executorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1/executor"
)

const (
	// maxUpdates bounds the updates of a task that wait for the framework.
	maxUpdates = 1000
	// maxSeen is how many of an executor's newest updates of a task are known
	// again, since it repeats those of which it has not heard that they are stored.
	maxSeen = 64
)

// accepted is the code of a call that nothing is wrong with.
const accepted = executorv1.CallResult_ACCEPTED

// speaker finds the executor that a call is of. Otherwise it says what is wrong,
// in the words of Mesos where that has them.
func (m *Machine) speaker(call *executorv1.Call, adapter string) (e *executor, code executorv1.CallResult_Code, why string) {
	fid, eid := call.GetFrameworkId().GetValue(), call.GetExecutorId().GetValue()
	missing := func(field string) (*executor, executorv1.CallResult_Code, string) {
		return nil, executorv1.CallResult_INVALID, fmt.Sprintf("Failed to validate Executor::Call: Expecting '%s' to be present", field)
	}
	switch {
	case call.Type == nil:
		return missing("type")
	case call.ExecutorId == nil:
		return missing("executor_id")
	case call.FrameworkId == nil:
		return missing("framework_id")
	case m.frameworks[fid] == nil:
		return nil, executorv1.CallResult_UNKNOWN_EXECUTOR, "Framework cannot be found"
	}
	e = m.live[executorKey{fid, eid}]
	if e == nil || e.program == nil {
		return nil, executorv1.CallResult_UNKNOWN_EXECUTOR, "Executor cannot be found"
	}
	if code, why := m.denial(e, call, adapter); why != "" {
		m.log(Warn, "a call for an executor was refused", "framework_id", fid, "executor_id", eid, "reason", why)
		return nil, code, why
	}
	return e, accepted, ""
}

// subscribe takes an executor's SUBSCRIBE: its newest stream is the one that
// counts.
func (m *Machine) subscribe(in ExecutorSubscribe) {
	e, code, why := m.speaker(in.Call, in.Adapter)
	invalid := func(text string) {
		if why == "" {
			code, why = executorv1.CallResult_INVALID, text
		}
	}
	if in.Call.GetType() != executorv1.Call_SUBSCRIBE || in.Call.Subscribe == nil {
		invalid("Failed to validate Executor::Call: Expecting 'subscribe' to be present")
	}
	for _, u := range in.Call.GetSubscribe().GetUnacknowledgedUpdates() {
		if bad := checkUpdate(in.Call, u.GetStatus()); bad != "" {
			invalid(bad)
		}
	}
	if why != "" {
		m.effect(RefuseExecutor{Stream: in.Stream, Code: code, Message: why})
		return
	}
	p := e.program
	m.hangUp(e, "the executor has subscribed anew")
	if p.stopping() || p.end != nil || m.ending != nil || e.framework.terminating {
		m.effect(SendExecutor{Stream: in.Stream, Event: &executorv1.Event{Type: executorv1.Event_SHUTDOWN.Enum()}})
		m.effect(CloseExecutor{Stream: in.Stream, Reason: "the executor is to end"})
		p.joined = true
		return
	}
	m.log(Debug, "executor subscribed", "framework_id", e.framework.id, "executor_id", e.id, "again", p.known, "adapter", in.Adapter)
	if !p.known || p.adapter != in.Adapter {
		m.touch(e)
	}
	p.stream, p.adapter, p.known, p.joined = in.Stream, in.Adapter, true, true
	m.streams[p.stream] = e
	m.await(e) // no more
	m.event(e, m.subscribed(e))
	ended := map[string]bool{}
	for _, u := range in.Call.GetSubscribe().GetUnacknowledgedUpdates() {
		m.executorUpdate(e, u.GetStatus())
		ended[u.GetStatus().GetTaskId().GetValue()] = u.GetStatus().GetState().Terminal()
	}
	m.dropUnknown(e, in.Call.GetSubscribe().GetUnacknowledgedTasks())
	for _, info := range in.Call.GetSubscribe().GetUnacknowledgedTasks() {
		if id := info.GetTaskId().GetValue(); !ended[id] && !m.hasLive(e, id) {
			m.endThere(e, info.GetTaskId())
		}
	}
	for _, t := range e.tasks {
		if t.kill != nil && t.delivered {
			m.sendKill(t)
		}
	}
	m.deliver(e)
}

// dropUnknown ends tasks that were sent to an executor and never got there: it
// has neither reported of them, nor does it name them now.
func (m *Machine) dropUnknown(e *executor, known []*mezzov1.TaskInfo) {
	for _, t := range slices.Clone(e.tasks) {
		if !t.delivered || t.status.GetState() != mezzov1.TaskState_TASK_STAGING ||
			slices.ContainsFunc(known, func(i *mezzov1.TaskInfo) bool { return i.GetTaskId().GetValue() == t.key.id }) {
			continue
		}
		s := m.newStatus(t, lost(t.framework, mezzov1.TaskState_TASK_DROPPED), fromAgent)
		m.finishTask(t, because(s, mezzov1.TaskStatus_REASON_AGENT_RESTARTED, "Task launched during agent restart"))
	}
}

func (m *Machine) subscribed(e *executor) *executorv1.Event {
	info := e.info
	if info.FrameworkId == nil {
		info = proto.CloneOf(info)
		info.FrameworkId = &mezzov1.FrameworkID{Value: proto.String(e.framework.id)}
	}
	return &executorv1.Event{Type: executorv1.Event_SUBSCRIBED.Enum(), Subscribed: &executorv1.Event_Subscribed{
		ExecutorInfo: info, FrameworkInfo: e.framework.info, AgentInfo: m.agentInfo(e.program.adapter),
		ContainerId: &mezzov1.ContainerID{Value: proto.String(e.root.id)},
	}}
}

// agentInfo is the agent as executors are told; its port is that of the adapter
// which they speak through.
func (m *Machine) agentInfo(adapter string) *mezzov1.AgentInfo {
	info := &mezzov1.AgentInfo{
		Hostname: proto.String(m.cfg.Hostname), Resources: m.cfg.Resources, Attributes: m.cfg.Attributes, Domain: m.cfg.Domain,
		Id: &mezzov1.AgentID{Value: proto.String(m.id)},
	}
	address := m.cfg.RPCAddress
	if a := m.adapters[adapter]; a != nil && len(a.endpoints) > 0 {
		address = a.endpoints[0].GetAddress()
	}
	if at := strings.LastIndexByte(address, ':'); at >= 0 {
		if n, err := strconv.ParseInt(address[at+1:], 10, 32); err == nil {
			info.Port = proto.Int32(int32(n))
		}
	}
	return info
}

// executorClosed notes that a stream has ended.
func (m *Machine) executorClosed(in ExecutorClosed) {
	e := m.streams[in.Stream]
	if e == nil {
		return
	}
	delete(m.streams, in.Stream)
	e.program.stream = 0
	m.log(Info, "an executor is disconnected", "framework_id", e.framework.id, "executor_id", e.id)
	if !e.program.stopping() {
		m.await(e)
	}
}

// executorCall carries out a call beside the stream.
func (m *Machine) executorCall(in ExecutorCall) {
	answer := func(code executorv1.CallResult_Code, message string) {
		r := &executorv1.CallResult{Sequence: in.Call.Sequence, Code: code.Enum()}
		if message != "" {
			r.Message = proto.String(message)
		}
		m.immediate = append(m.immediate, AnswerExecutor{Caller: in.Caller, Result: r})
	}
	if in.Call.GetType() == executorv1.Call_HEARTBEAT {
		answer(executorv1.CallResult_ACCEPTED, "")
		return
	}
	e, code, why := m.speaker(in.Call, in.Adapter)
	switch {
	case code != accepted:
		answer(code, why)
	case !e.program.joined:
		answer(executorv1.CallResult_NOT_SUBSCRIBED, "Executor is not subscribed")
	case in.Call.GetType() == executorv1.Call_UPDATE:
		if why := checkUpdate(in.Call, in.Call.GetUpdate().GetStatus()); why != "" {
			m.counts.InvalidStatusUpdates++
			answer(executorv1.CallResult_INVALID, why)
			return
		}
		m.executorUpdate(e, in.Call.GetUpdate().GetStatus())
		answer(executorv1.CallResult_ACCEPTED, "")
	case in.Call.GetType() == executorv1.Call_MESSAGE && in.Call.Message == nil:
		answer(executorv1.CallResult_INVALID, "Failed to validate Executor::Call: Expecting 'message' to be present")
	case in.Call.GetType() == executorv1.Call_MESSAGE:
		if m.link.state != registered {
			m.counts.DroppedMessages++
		} else {
			m.counts.Messages++
			m.sendMaster(&linkv1.AgentMessage{Message: &linkv1.AgentMessage_FrameworkMessage{FrameworkMessage: &linkv1.FrameworkMessage{
				FrameworkId: e.framework.id, ExecutorId: e.id, Data: in.Call.GetMessage().GetData(),
			}}})
		}
		answer(executorv1.CallResult_ACCEPTED, "")
	default:
		answer(executorv1.CallResult_INVALID, fmt.Sprintf("Failed to validate Executor::Call: a call of type %v cannot be made here", in.Call.GetType()))
	}
}

// checkUpdate says what is wrong with an update; empty: nothing.
func checkUpdate(call *executorv1.Call, s *mezzov1.TaskStatus) string {
	wrong := func(format string, args ...any) string {
		return "Failed to validate Executor::Call: " + fmt.Sprintf(format, args...)
	}
	switch {
	case s == nil:
		return wrong("Expecting 'update' to be present")
	case s.TaskId == nil || s.State == nil:
		return wrong("Expecting 'task_id' and 'state' of the status to be present")
	case s.Uuid == nil:
		return wrong("Expecting 'uuid' to be present")
	case len(s.Uuid) != 16:
		return wrong("Not a valid UUID")
	case s.ExecutorId != nil && s.GetExecutorId().GetValue() != call.GetExecutorId().GetValue():
		return wrong("ExecutorID in Call: %s does not match ExecutorID in TaskStatus: %s", call.GetExecutorId().GetValue(), s.GetExecutorId().GetValue())
	case s.Source == nil || s.GetSource() != fromExecutor:
		return wrong("Received Call from executor %s of framework %s with invalid source, expecting 'SOURCE_EXECUTOR'", call.GetExecutorId().GetValue(), call.GetFrameworkId().GetValue())
	case s.GetState() == mezzov1.TaskState_TASK_STAGING:
		return wrong("Received TASK_STAGING from executor %s of framework %s which is not allowed", call.GetExecutorId().GetValue(), call.GetFrameworkId().GetValue())
	}
	if c := s.GetCheckStatus(); c != nil {
		if why := checkStatus(c); why != "" {
			return wrong("%s", why)
		}
	}
	return ""
}

func checkStatus(c *mezzov1.CheckStatusInfo) string {
	if c.Type == nil {
		return "CheckStatusInfo must specify 'type'"
	}
	field := map[mezzov1.CheckInfo_Type]bool{
		mezzov1.CheckInfo_COMMAND: c.Command != nil, mezzov1.CheckInfo_HTTP: c.Http != nil, mezzov1.CheckInfo_TCP: c.Tcp != nil,
	}
	if given, known := field[c.GetType()]; !known {
		return fmt.Sprintf("'%v' is not a valid check's status type", c.GetType())
	} else if !given {
		return fmt.Sprintf("Expecting the part of the check's status that its type %v names to be set", c.GetType())
	}
	return ""
}

// executorUpdate takes what an executor reports of a task. The executor hears
// that it is stored when it is, whatever the scheduler does.
func (m *Machine) executorUpdate(e *executor, s *mezzov1.TaskStatus) {
	id := s.GetTaskId().GetValue()
	t := m.tasks[taskKey{e.framework.id, id}]
	switch {
	case t != nil && slices.ContainsFunc(t.seen, func(uuid []byte) bool { return bytes.Equal(uuid, s.GetUuid()) }):
	case m.hasLive(e, id):
		m.adopt(t, s)
	case s.GetState().Terminal() || t != nil && !t.ended():
		m.log(Debug, "an executor's update says nothing new and is dropped", "framework_id", e.framework.id, "executor_id", e.id, "task_id", id)
	default:
		m.endThere(e, s.GetTaskId())
	}
	m.event(e, &executorv1.Event{Type: executorv1.Event_ACKNOWLEDGED.Enum(), Acknowledged: &executorv1.Event_Acknowledged{
		TaskId: s.GetTaskId(), Uuid: s.GetUuid(),
	}})
}

// hasLive is whether an executor has a task that was sent to it and has not ended.
func (m *Machine) hasLive(e *executor, id string) bool {
	t := m.tasks[taskKey{e.framework.id, id}]
	return t != nil && t.executor == e && t.delivered && !t.ended()
}

// endThere has an executor end a task which the agent has given up.
func (m *Machine) endThere(e *executor, id *mezzov1.TaskID) {
	m.log(Warn, "an executor has a task that has ended; it is told to end it", "framework_id", e.framework.id, "executor_id", e.id, "task_id", id.GetValue())
	m.event(e, &executorv1.Event{Type: executorv1.Event_KILL.Enum(), Kill: &executorv1.Event_Kill{TaskId: id}})
}

// adopt makes an executor's status the newest of a task, completed by what the
// agent knows.
func (m *Machine) adopt(t *task, from *mezzov1.TaskStatus) {
	s := proto.CloneOf(from)
	own := m.newStatus(t, s.GetState(), fromExecutor)
	s.AgentId, s.ExecutorId = own.AgentId, own.ExecutorId
	if s.Timestamp == nil {
		s.Timestamp = own.Timestamp
	}
	if s.ContainerStatus == nil {
		s.ContainerStatus = own.ContainerStatus
	} else if own.ContainerStatus != nil {
		merged := proto.CloneOf(own.ContainerStatus)
		proto.Merge(merged, s.ContainerStatus)
		if len(s.ContainerStatus.NetworkInfos) > 0 {
			merged.NetworkInfos = s.ContainerStatus.NetworkInfos
		}
		s.ContainerStatus = merged
	}
	t.seen = append(slices.Clone(t.seen), s.GetUuid())
	if over := len(t.seen) - maxSeen; over > 0 {
		t.seen = t.seen[over:]
	}
	if t.kill != nil {
		r, message := t.kill.reason()
		switch {
		case r == nil: // what the framework itself wished
		case s.GetState() == mezzov1.TaskState_TASK_KILLED:
			s = m.killedStatus(t, s, cmp.Or(s.GetMessage(), "The executor has ended the task"))
		case s.GetState() == mezzov1.TaskState_TASK_KILLING:
			because(s, *r, message)
		}
	}
	if t.started.IsZero() && s.GetState() == mezzov1.TaskState_TASK_RUNNING {
		t.started = m.now
	}
	if s.GetState().Terminal() {
		m.finishTask(t, s)
		return
	}
	if len(t.updates) >= maxUpdates {
		// Between the one that is out and the newest some have to go.
		m.log(Warn, "too many updates of a task wait for its framework; the oldest is dropped", "framework_id", t.key.framework, "task_id", t.key.id)
		t.updates = slices.Delete(slices.Clone(t.updates), 1, 2)
	}
	m.update(t, s)
}

// messageFor passes a scheduler's bytes on to an executor, if it is there.
func (m *Machine) messageFor(msg *linkv1.FrameworkMessage) {
	e := m.live[executorKey{msg.GetFrameworkId(), msg.GetExecutorId()}]
	if e == nil || e.program == nil || e.program.stream == 0 {
		m.counts.DroppedMessages++
		m.log(Info, "a message for an executor was dropped: it is not subscribed here", "framework_id", msg.GetFrameworkId(), "executor_id", msg.GetExecutorId())
		return
	}
	m.counts.Messages++
	m.event(e, &executorv1.Event{Type: executorv1.Event_MESSAGE.Enum(), Message: &executorv1.Event_Message{Data: msg.GetData()}})
}
