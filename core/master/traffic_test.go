package master

import (
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/mezzo-os/mezzo/core/master/state"
	"github.com/mezzo-os/mezzo/core/metric"
	linkv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/link/v1"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
	schedulerv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1/scheduler"
)

// Each end of a task and each change of an agent is counted once, however often it
// is told; what schedulers and agents say is counted by its type.
func TestWhatHappenedIsCounted(t *testing.T) {
	m := newMirror()
	x := newMetrics(m, func() int { return 0 }, func() bool { return true }, func() bool { return false }, nil)
	task := func(id string, s mezzov1.TaskState, reason *mezzov1.TaskStatus_Reason, launched time.Time) {
		m.apply(&change{publish: state.Publish{Tasks: []*state.TaskView{{
			TaskKey: state.TaskKey{FrameworkID: "f", TaskID: id}, State: s, Launched: launched,
			Status: &mezzov1.TaskStatus{State: s.Enum(), Reason: reason, Source: mezzov1.TaskStatus_SOURCE_AGENT.Enum()},
		}}}})
	}
	first, second := time.Unix(1, 0), time.Unix(2, 0)
	task("a", mezzov1.TaskState_TASK_RUNNING, nil, first)
	task("a", mezzov1.TaskState_TASK_FINISHED, nil, first)
	task("a", mezzov1.TaskState_TASK_FINISHED, nil, first) // acknowledged
	task("a", mezzov1.TaskState_TASK_FINISHED, nil, second)
	task("b", mezzov1.TaskState_TASK_FAILED, mezzov1.TaskStatus_REASON_EXECUTOR_TERMINATED.Enum(), first)
	agent := func(a state.AgentView) {
		a.ID = "s"
		m.apply(&change{publish: state.Publish{Agents: []*state.AgentView{&a}}})
	}
	agent(state.AgentView{State: state.AgentActive})
	agent(state.AgentView{State: state.AgentWithheld})
	agent(state.AgentView{State: state.AgentUnreachable})
	agent(state.AgentView{State: state.AgentUnreachable})
	agent(state.AgentView{State: state.AgentActive, Reregistered: second})
	agent(state.AgentView{State: state.AgentActive, Reregistered: second})
	m.apply(&change{publish: state.Publish{AgentsRemoved: []string{"s"}}})

	x.traffic.call(schedulerv1.Call_KILL)
	x.traffic.call(schedulerv1.Call_Type(1000)) // a newer client's
	x.traffic.message(&linkv1.AgentMessage{Message: &linkv1.AgentMessage_ExecutorExited{ExecutorExited: &linkv1.ExecutorExited{}}})
	x.traffic.message(&linkv1.AgentMessage{})
	refused := &mezzov1.TaskStatus{
		State: mezzov1.TaskState_TASK_ERROR.Enum(), Source: mezzov1.TaskStatus_SOURCE_MASTER.Enum(), Reason: mezzov1.TaskStatus_REASON_TASK_INVALID.Enum(),
		TaskId: &mezzov1.TaskID{Value: proto.String("c")},
	}
	x.traffic.event(&schedulerv1.Event{Type: schedulerv1.Event_UPDATE.Enum(), Update: &schedulerv1.Event_Update{Status: refused}})

	list, err := metric.Messages(x.registry)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, v := range list {
		key := v.Name
		for _, label := range []string{"type", "change", "state", "source", "reason"} {
			if text := v.Labels[label]; text != "" {
				key += " " + text
			}
		}
		got[key] = v.Value
	}
	for key, want := range map[string]float64{
		"mezzo_master_tasks_ended_total task_finished agent":                   2,
		"mezzo_master_tasks_ended_total task_failed agent executor_terminated": 1,
		"mezzo_master_agent_changes_total registered":                          1,
		"mezzo_master_agent_changes_total unreachable":                         1,
		"mezzo_master_agent_changes_total reregistered":                        1,
		"mezzo_master_agent_changes_total removed":                             1,
		"mezzo_master_calls_total kill":                                        1,
		"mezzo_master_calls_total accept":                                      0,
		"mezzo_master_agent_messages_total executor_exited":                    1,
		"mezzo_master_events_total update":                                     1,
		"mezzo_master_tasks_refused_total task_error task_invalid":             1,
	} {
		if v, has := got[key]; !has || v != want {
			t.Errorf("%s is %v, want %v", key, v, want)
		}
	}
}
