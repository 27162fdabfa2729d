package agent_test

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"

	isolatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/isolator/v1"
	operatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/operator/v1"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
)

// numbers are the agent's metrics, by name and labels.
func (p *process) numbers(t *testing.T) map[string]float64 {
	t.Helper()
	answer, err := p.GetMetrics(within(t), &operatorv1.GetMetricsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]float64{}
	for _, m := range answer.GetMetrics() {
		name := m.GetName()
		for _, label := range slices.Sorted(maps.Keys(m.GetLabels())) {
			name += " " + label + "=" + m.GetLabels()[label]
		}
		out[name] = m.GetValue()
	}
	return out
}

// What is counted of tasks, executors and resources, while they are there and
// when they have ended.
func TestMetrics(t *testing.T) {
	k := newKernel()
	m := newMaster(t)
	p := start(t, options(t, m, newIsolator(t, k).up()))
	m.registered()
	m.ready()
	expect := func(when string, want map[string]float64) {
		t.Helper()
		got := p.numbers(t)
		for name, v := range want {
			if n, has := got[name]; !has || n != v {
				t.Errorf("%s %s is %v, want %v", when, name, n, v)
			}
		}
	}
	expect("idle:", map[string]float64{
		"mezzo_agent_frameworks": 0, "mezzo_agent_executors state=running": 0, "mezzo_agent_launch_failures_total": 0,
		"mezzo_agent_resources resource=cpus revocable=false": 4, "mezzo_agent_resources resource=mem revocable=false": 1024,
	})
	if _, has := p.numbers(t)["mezzo_agent_recovery_seconds"]; !has {
		t.Error("the time that recovery took is missing")
	}
	m.run(task("t1"))
	m.update(mezzov1.TaskState_TASK_RUNNING)
	expect("running:", map[string]float64{
		"mezzo_agent_registered": 1, "mezzo_agent_tasks state=task_running": 1, "mezzo_agent_frameworks": 1, "mezzo_agent_executors state=running": 1,
		"mezzo_agent_resources_used resource=cpus revocable=false": 0.5, "mezzo_agent_status_updates_total valid=true": 1,
	})
	k.await(t, "the wait for it", k.called("wait "))
	k.mu.Lock()
	id := slices.Collect(maps.Keys(k.containers))[0]
	k.mu.Unlock()
	k.exit(id, &isolatorv1.ExitStatus{Known: true})
	m.update(mezzov1.TaskState_TASK_FINISHED)
	k.await(t, "its cleanup", k.called("cleanup "))
	k.mu.Lock()
	k.fail["create"] = errors.New("broken")
	k.mu.Unlock()
	m.run(task("t2"))
	m.update(mezzov1.TaskState_TASK_FAILED)
	expect("ended:", map[string]float64{
		"mezzo_agent_tasks_ended_total state=task_finished": 1, "mezzo_agent_tasks_ended_total state=task_failed": 1,
		"mezzo_agent_launch_failures_total": 1, "mezzo_agent_tasks_revoked_total": 0,
	})
	for name := range p.numbers(t) {
		if strings.HasPrefix(name, "mezzo_agent_tasks ") {
			t.Errorf("%s, though none is left", name)
		}
	}
}
