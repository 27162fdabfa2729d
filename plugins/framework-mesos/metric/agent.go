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
// recovery_errors stays 0: an agent that cannot read what it wrote does not start.
const agentNames = `
	slave/uptime_secs slave/registered slave/recovery_errors slave/recovery_time_secs
	slave/frameworks_active slave/executors_{registering,running,terminating,terminated,preempted}
	slave/tasks_{staging,starting,running,killing,finished,failed,killed,lost,gone,error}
	slave/{valid,invalid}_{status_updates,framework_messages}
	slave/executor_directory_max_allowed_age_secs slave/container_launch_errors
	containerizer/mesos/container_destroy_errors
	containerizer/fetcher/{task_fetches_succeeded,task_fetches_failed,cache_size_total_bytes,cache_size_used_bytes}
	gc/path_removals_{succeeded,failed,pending}`

// agentNumbers are those that Mesos names otherwise, and nothing more.
var agentNumbers = map[string]string{
	"mezzo_agent_registered": "slave/registered", "mezzo_agent_recovery_seconds": "slave/recovery_time_secs",
	"mezzo_agent_frameworks": "slave/frameworks_active", "mezzo_agent_executors_ended_total": "slave/executors_terminated",
	"mezzo_agent_tasks_revoked_total": "slave/executors_preempted", "mezzo_agent_launch_failures_total": "slave/container_launch_errors",
	"mezzo_agent_cleanup_failures_total":  "containerizer/mesos/container_destroy_errors",
	"mezzo_agent_sandbox_age_seconds":     "slave/executor_directory_max_allowed_age_secs",
	"mezzo_agent_sandboxes_waiting":       "gc/path_removals_pending",
	"mezzo_agent_fetch_cache_bytes":       "containerizer/fetcher/cache_size_total_bytes",
	"mezzo_agent_fetch_cache_used_bytes":  "containerizer/fetcher/cache_size_used_bytes",
	"mezzo_agent_fetches_total":           "containerizer/fetcher/task_fetches_{outcome}",
	"mezzo_agent_sandboxes_removed_total": "gc/path_removals_{outcome}",
}

// executorStates are the agent's words for how far an executor is, as Mesos has
// them.
var executorStates = map[string]string{"starting": "registering", "running": "running", "ending": "terminating"}

// Numbers implements Source.
func (a *Agent) Numbers(ctx context.Context) Numbers {
	n := Numbers{}
	n.zeros(agentNames)
	n.system()
	total, used := newResources(), newResources()
	if answer, err := a.Agent.GetMetrics(ctx, &operatorv1.GetMetricsRequest{}); err == nil {
		for _, x := range answer.GetMetrics() {
			n.agentCore(x, total, used)
		}
	}
	n.shares("slave/", total, used)
	return n
}

// agentCore takes over one of the core's numbers.
func (n Numbers) agentCore(x *operatorv1.Metric, total, used resources) {
	label := x.GetLabels()
	if name := agentNumbers[x.GetName()]; name != "" {
		n[strings.Replace(name, "{outcome}", label["outcome"], 1)] = x.GetValue()
		return
	}
	sum := func(r resources) {
		if label["revocable"] == "true" {
			r.revocable[label["resource"]] += x.GetValue()
		} else {
			r.plain[label["resource"]] += x.GetValue()
		}
	}
	validity := map[string]string{"true": "valid", "false": "invalid"}[label["valid"]]
	switch x.GetName() {
	case "mezzo_agent_start_time_seconds":
		seconds := x.GetValue()
		n["slave/uptime_secs"] = max(0, time.Since(time.Unix(0, int64(seconds*1e9))).Seconds())
	case "mezzo_agent_tasks", "mezzo_agent_tasks_ended_total":
		n["slave/tasks_"+strings.TrimPrefix(label["state"], "task_")] += x.GetValue()
	case "mezzo_agent_executors":
		if state := executorStates[label["state"]]; state != "" {
			n["slave/executors_"+state] = x.GetValue()
		}
	case "mezzo_agent_status_updates_total":
		n["slave/"+validity+"_status_updates"] = x.GetValue()
	case "mezzo_agent_framework_messages_total":
		n["slave/"+validity+"_framework_messages"] = x.GetValue()
	case "mezzo_agent_resources":
		sum(total)
	case "mezzo_agent_resources_used":
		sum(used)
	}
}
