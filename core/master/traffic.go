package master

import (
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/mezzo-os/mezzo/core/master/state"
	linkv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/link/v1"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
	schedulerv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1/scheduler"
)

// traffic counts what schedulers and agents say and are told. Counters are found
// by number: they are on the way of every message.
type traffic struct {
	calls    [64]prometheus.Counter
	events   [64]prometheus.Counter
	messages map[string]prometheus.Counter
	refused  *prometheus.CounterVec
}

func newTraffic(r *prometheus.Registry) *traffic {
	vector := func(name, help string) *prometheus.CounterVec {
		v := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, []string{"type"})
		r.MustRegister(v)
		return v
	}
	t := &traffic{messages: map[string]prometheus.Counter{}, refused: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "mezzo_master_tasks_refused_total", Help: "Tasks that never came to be, by the state that their frameworks were told and why.",
	}, []string{"state", "reason"})}
	r.MustRegister(t.refused)
	calls := vector("mezzo_master_calls_total", "Calls of schedulers, by type.")
	for number, name := range schedulerv1.Call_Type_name {
		t.calls[number] = calls.WithLabelValues(strings.ToLower(name))
	}
	events := vector("mezzo_master_events_total", "Events that schedulers were sent, by type.")
	for number, name := range schedulerv1.Event_Type_name {
		t.events[number] = events.WithLabelValues(strings.ToLower(name))
	}
	messages := vector("mezzo_master_agent_messages_total", "Messages of agents, by type.")
	kinds := (&linkv1.AgentMessage{}).ProtoReflect().Descriptor().Oneofs().ByName("message").Fields()
	for i := range kinds.Len() {
		name := string(kinds.Get(i).Name())
		t.messages[name] = messages.WithLabelValues(name)
	}
	return t
}

// call counts a call. Safe for concurrent use, as all of traffic is.
func (t *traffic) call(kind schedulerv1.Call_Type) { count(&t.calls, int32(kind)) }

func (t *traffic) event(e *schedulerv1.Event) {
	count(&t.events, int32(e.GetType()))
	if e.GetType() == schedulerv1.Event_UPDATE {
		if s := e.GetUpdate().GetStatus(); refused(s) {
			t.refused.WithLabelValues(stateLabel(s.GetState()), reasonLabel(s)).Inc()
		}
	}
}

func count(counters *[64]prometheus.Counter, number int32) {
	if number >= 0 && int(number) < len(counters) && counters[number] != nil {
		counters[number].Inc()
	}
}

// message counts a message of an agent.
func (t *traffic) message(m *linkv1.AgentMessage) {
	name := ""
	switch m.GetMessage().(type) {
	case *linkv1.AgentMessage_Update:
		name = "update"
	case *linkv1.AgentMessage_Pong:
		name = "pong"
	case *linkv1.AgentMessage_Register:
		name = "register"
	default:
		in := m.ProtoReflect()
		if field := in.WhichOneof(in.Descriptor().Oneofs().ByName("message")); field != nil {
			name = string(field.Name())
		}
	}
	if c := t.messages[name]; c != nil {
		c.Inc()
	}
}

// refusals are the reasons for which a task never comes to be.
var refusals = map[mezzov1.TaskStatus_Reason]bool{
	mezzov1.TaskStatus_REASON_INVALID_OFFERS: true, mezzov1.TaskStatus_REASON_TASK_INVALID: true, mezzov1.TaskStatus_REASON_TASK_UNAUTHORIZED: true,
	mezzov1.TaskStatus_REASON_TASK_GROUP_INVALID: true, mezzov1.TaskStatus_REASON_TASK_GROUP_UNAUTHORIZED: true,
}

// refused tells whether a status is of a task that never came to be.
func refused(s *mezzov1.TaskStatus) bool {
	return s.GetSource() == mezzov1.TaskStatus_SOURCE_MASTER && refusals[s.GetReason()]
}

// taskEnd is how a task ended.
type taskEnd struct {
	state  mezzov1.TaskState
	source mezzov1.TaskStatus_Source
	reason string
}

func (e taskEnd) labels() []string {
	return []string{stateLabel(e.state), strings.ToLower(strings.TrimPrefix(e.source.String(), "SOURCE_")), e.reason}
}

// stateLabel is a state as a label: "task_failed".
func stateLabel(s mezzov1.TaskState) string { return strings.ToLower(s.String()) }

// reasonLabel is a status's reason as a label: "executor_terminated"; empty when
// it has none.
func reasonLabel(s *mezzov1.TaskStatus) string {
	if s == nil || s.Reason == nil {
		return ""
	}
	return strings.ToLower(strings.TrimPrefix(s.GetReason().String(), "REASON_"))
}

// told is the state that a task's framework was told last: its status says why.
func told(v *state.TaskView) mezzov1.TaskState {
	if v.Status == nil {
		return v.State
	}
	return v.Status.GetState()
}

// countTask counts a task whose end was told. The view's lock is held.
func (m *mirror) countTask(before, now *state.TaskView) {
	end := told(now)
	if !end.Terminal() || before != nil && told(before) == end && before.Launched.Equal(now.Launched) {
		return
	}
	source := mezzov1.TaskStatus_SOURCE_MASTER
	if now.Status != nil && now.Status.Source != nil {
		source = now.Status.GetSource()
	}
	m.taskEnds[taskEnd{end, source, reasonLabel(now.Status)}]++
	m.tallies.find(now.FrameworkID).end(end)
}

// countAgent counts what became of an agent. The view's lock is held.
func (m *mirror) countAgent(before, now *state.AgentView) {
	gone := func(a *state.AgentView) bool { return a == nil || a.Awaited || a.State == state.AgentUnreachable }
	switch {
	case now.State == state.AgentUnreachable:
		if before != nil && before.State != state.AgentUnreachable {
			m.agentChanges["unreachable"]++
		}
	case now.Awaited:
	case gone(before) && now.Reregistered.IsZero():
		m.agentChanges["registered"]++
	case !now.Reregistered.IsZero() && (before == nil || !before.Reregistered.Equal(now.Reregistered)):
		m.agentChanges["reregistered"]++
	}
}
