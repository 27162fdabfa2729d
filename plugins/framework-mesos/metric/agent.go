package metric

import (
	"context"
	"strings"
	"time"

	operatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/operator/v1"
)

// Agent has the numbers of an agent. Safe for concurrent use.
type Agent struct {
	Agent operatorv1.AgentOperatorClient
}

// agentNames are the numbers of an agent that tools may ask for at any time.
// tasks_error is one that Mesos does not have, and an exporter asks for.
const agentNames = `
	slave/uptime_secs slave/registered slave/recovery_errors slave/recovery_time_secs
	slave/frameworks_active slave/executors_{registering,running,terminating,terminated,preempted}
	slave/tasks_{staging,starting,running,killing,finished,failed,killed,lost,gone,error}
	slave/{valid,invalid}_{status_updates,framework_messages}
	slave/executor_directory_max_allowed_age_secs slave/container_launch_errors
	containerizer/mesos/container_destroy_errors
	containerizer/fetcher/{task_fetches_succeeded,task_fetches_failed,cache_size_total_bytes,cache_size_used_bytes}
	gc/path_removals_{succeeded,failed,pending}`

// Numbers implements Source.
func (a *Agent) Numbers(ctx context.Context) Numbers {
	n := Numbers{}
	n.zeros(agentNames)
	n.system()
	n.shares("slave/", newResources(), newResources())
	state, err := a.Agent.GetState(ctx, &operatorv1.GetAgentStateRequest{Detail: true})
	if err != nil {
		return n
	}
	d := state.GetDetail()
	if at := d.GetStarted(); at != nil {
		n["slave/uptime_secs"] = time.Since(at.AsTime()).Seconds()
	}
	if state.GetState() == "registered" {
		n["slave/registered"] = 1
	}
	n["slave/frameworks_active"] = float64(len(d.GetFrameworks()))
	total, used := newResources(), newResources()
	total.add(d.GetInfo().GetResources())
	for _, t := range d.GetTasks() {
		if place := t.GetPlace(); place == "queued" || place == "launched" {
			n["slave/tasks_"+strings.ToLower(strings.TrimPrefix(t.GetTask().GetState().String(), "TASK_"))]++
			used.add(t.GetTask().GetResources())
		}
	}
	for _, e := range d.GetExecutors() {
		if e.GetCompleted() {
			continue
		}
		n["slave/executors_running"]++
		used.add(e.GetInfo().GetResources())
	}
	n.shares("slave/", total, used)
	for _, x := range d.GetEnded() {
		n["slave/tasks_"+strings.ToLower(strings.TrimPrefix(x.GetState().String(), "TASK_"))] = float64(x.GetCount())
	}
	return n
}
