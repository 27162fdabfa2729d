package metric

import (
	"context"
	"net/url"
	"strings"
	"time"

	"github.com/mezzo-os/mezzo/plugins/framework-mesos/mirror"
	operatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/operator/v1"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
)

// Master has the numbers of a master. Safe for concurrent use.
type Master struct {
	Operator operatorv1.OperatorClient
	Mirror   *mirror.Mirror
	// Subscribers is how many clients are subscribed to the operator's events.
	Subscribers func() int
}

// masterNames are the numbers of a master that tools may ask for at any time.
const masterNames = `
	master/uptime_secs master/elected
	master/slaves_{connected,disconnected,active,inactive,unreachable}
	master/frameworks_{connected,disconnected,active,inactive}
	master/outstanding_offers
	master/tasks_{staging,starting,running,killing,finished,failed,killed,lost,error,dropped,unreachable,gone,gone_by_operator}
	master/messages_{register_framework,reregister_framework,unregister_framework,deactivate_framework,kill_task,launch_tasks,decline_offers,revive_offers,suppress_offers,reconcile_tasks,reconcile_operations,framework_to_executor,executor_to_framework,status_update,status_update_acknowledgement,operation_status_update,operation_status_update_acknowledgement,register_slave,reregister_slave,unregister_slave,update_slave,exited_executor,authenticate,resource_request}
	master/dropped_messages master/http_cache_hits
	master/{valid,invalid}_{framework_to_executor_messages,executor_to_framework_messages,status_updates,status_update_acknowledgements,operation_status_updates,operation_status_update_acknowledgements}
	master/task_lost/source_master/reason_{invalid_offers,slave_removed} master/task_lost/source_slave/reason_executor_terminated
	master/recovery_slave_removals master/slave_registrations master/slave_reregistrations
	master/slave_removals master/slave_removals/reason_{unhealthy,unregistered,registered}
	master/slave_shutdowns_{scheduled,canceled,completed} master/slave_unreachable_{scheduled,canceled,completed}
	master/event_queue_{messages,dispatches,http_requests}
	master/operator_event_stream_subscribers
	master/operations/{total,pending,recovering,unreachable,finished,failed,error,dropped,gone_by_operator}
	allocator/mesos/allocation_runs allocator/mesos/event_queue_dispatches allocator/event_queue_dispatches
	allocator/mesos/resources/{cpus,mem,disk}/{total,offered_or_allocated}
	registrar/queued_operations registrar/registry_size_bytes registrar/state_fetch_ms
	registrar/log/{recovered,ensemble_size}`

// messageOf is what Mesos calls a scheduler's call when it counts it.
var messageOf = map[string]string{
	"subscribe": "register_framework", "teardown": "unregister_framework", "accept": "launch_tasks", "decline": "decline_offers",
	"revive": "revive_offers", "suppress": "suppress_offers", "kill": "kill_task", "acknowledge": "status_update_acknowledgement",
	"acknowledge_operation_status": "operation_status_update_acknowledgement", "reconcile": "reconcile_tasks",
	"reconcile_operations": "reconcile_operations", "message": "framework_to_executor", "request": "resource_request",
}

// agentMessageOf is the same for an agent's message.
var agentMessageOf = map[string]string{
	"update": "status_update", "executor_exited": "exited_executor", "framework_message": "executor_to_framework", "state": "update_slave",
	"operation": "operation_status_update", "unregister": "unregister_slave",
}

// Numbers implements Source.
func (m *Master) Numbers(ctx context.Context) Numbers {
	n := Numbers{}
	n.zeros(masterNames)
	n.system()
	n.timer("allocator/mesos/allocation_run_ms", nil)
	n.timer("allocator/mesos/allocation_run_latency_ms", nil)
	n.timer("registrar/state_store_ms", nil)
	n.shares("master/", newResources(), newResources())
	if m.Subscribers != nil {
		n["master/operator_event_stream_subscribers"] = float64(m.Subscribers())
	}
	frameworks := map[string]string{} // the prefixes of those that live, by id
	if status, err := m.Mirror.Status(ctx); err == nil {
		if at := status.GetStarted(); at != nil {
			n["master/uptime_secs"] = time.Since(at.AsTime()).Seconds()
		}
		if status.GetLeadership() != "standby" {
			n["master/elected"], n["registrar/log/recovered"], n["registrar/log/ensemble_size"] = 1, 1, 1
			if now, err := m.Mirror.Read(ctx); err == nil {
				n.cluster(now)
				for _, f := range now.Frameworks {
					if !f.Completed() {
						frameworks[f.ID()] = prefixOf(f)
					}
				}
			}
		}
	}
	if answer, err := m.Operator.GetMetrics(ctx, &operatorv1.GetMetricsRequest{}); err == nil {
		for _, x := range answer.GetMetrics() {
			if prefix, of := frameworks[x.GetLabels()["framework"]]; of {
				n.ofFramework(prefix, x)
			} else {
				n.core(x)
			}
		}
	}
	return n
}

// frameworkNames are the numbers of a framework that are there from its first
// moment on; those of a type appear with the first of it.
const frameworkNames = `
	calls events operations offers/{sent,accepted,declined,rescinded}
	tasks/terminal/task_{finished,failed,killed,lost,error,dropped,unreachable,gone,gone_by_operator}`

func prefixOf(f *mirror.Framework) string {
	return "master/frameworks/" + url.QueryEscape(f.GetInfo().GetName()) + "/" + url.QueryEscape(f.ID()) + "/"
}

// ofFramework takes over one of the core's numbers that is a framework's.
func (n Numbers) ofFramework(prefix string, x *operatorv1.Metric) {
	label := x.GetLabels()
	each := func(what string) {
		n[prefix+what] += x.GetValue()
		n[prefix+what+"/"+label["type"]] += x.GetValue()
	}
	switch x.GetName() {
	case "mezzo_master_framework_calls_total":
		each("calls")
	case "mezzo_master_framework_events_total":
		each("events")
	case "mezzo_master_framework_operations_total":
		each("operations")
	case "mezzo_master_framework_offers_total":
		n[prefix+"offers/"+label["outcome"]] = x.GetValue()
	case "mezzo_master_framework_tasks_ended_total":
		n[prefix+"tasks/terminal/"+label["state"]] = x.GetValue()
	}
}

// core takes over one of the core's numbers.
func (n Numbers) core(x *operatorv1.Metric) {
	label := x.GetLabels()
	switch x.GetName() {
	case "mezzo_master_allocator_cycle_seconds":
		n.timer("allocator/mesos/allocation_run_ms", x)
		n["allocator/mesos/allocation_runs"] = float64(x.GetCount())
	case "mezzo_master_registry_write_seconds":
		n.timer("registrar/state_store_ms", x)
	case "mezzo_master_calls_total":
		if name := messageOf[label["type"]]; name != "" {
			n["master/messages_"+name] += x.GetValue()
		}
		switch label["type"] {
		case "acknowledge":
			n["master/valid_status_update_acknowledgements"] += x.GetValue()
		case "message":
			n["master/valid_framework_to_executor_messages"] += x.GetValue()
		}
	case "mezzo_master_agent_messages_total":
		if name := agentMessageOf[label["type"]]; name != "" {
			n["master/messages_"+name] += x.GetValue()
		}
		switch label["type"] {
		case "update":
			n["master/valid_status_updates"] += x.GetValue()
		case "framework_message":
			n["master/valid_executor_to_framework_messages"] += x.GetValue()
		}
	case "mezzo_master_agent_changes_total":
		n.agentChanges(label["change"], x.GetValue())
	case "mezzo_master_tasks_ended_total":
		n.ended(label["state"], label["source"], label["reason"], x.GetValue())
	case "mezzo_master_tasks_refused_total":
		n.ended(label["state"], "master", label["reason"], x.GetValue())
	case "mezzo_master_operations_ended_total":
		n["master/operations/"+label["state"]] += x.GetValue()
		n["master/operations/"+label["type"]+"/"+label["state"]] += x.GetValue()
	case "mezzo_master_streams_cut_total":
		n["master/dropped_messages"] += x.GetValue()
	}
}

func (n Numbers) agentChanges(change string, count float64) {
	switch change {
	case "registered":
		n["master/slave_registrations"], n["master/messages_register_slave"] = count, count
	case "reregistered":
		n["master/slave_reregistrations"], n["master/messages_reregister_slave"] = count, count
	case "unreachable":
		n["master/slave_unreachable_scheduled"], n["master/slave_unreachable_completed"] = count, count
		n["master/slave_removals/reason_unhealthy"] = count
		n["master/slave_removals"] += count
	case "removed":
		n["master/slave_removals/reason_unregistered"] = count
		n["master/slave_removals"] += count
	}
}

// ended counts tasks that ended in one way.
func (n Numbers) ended(state, source, reason string, count float64) {
	short := strings.TrimPrefix(state, "task_")
	n["master/tasks_"+short] += count
	if reason != "" {
		n["master/"+state+"/source_"+old(source)+"/reason_"+old(reason)] += count
	}
}

// cluster takes over what the mirror shows.
func (n Numbers) cluster(now *mirror.Snapshot) {
	total, used := newResources(), newResources()
	offered := 0
	for _, a := range now.Agents {
		n.agent(a)
		if a.GetUnreachable() == nil {
			total.add(a.GetTotal())
			used.add(a.GetAllocated())
		}
	}
	n.shares("master/", total, used)
	for _, f := range now.Frameworks {
		if f.Completed() {
			continue
		}
		n.framework(now, f)
		offered += len(f.Offers)
	}
	n["master/outstanding_offers"] = float64(offered)
	sum := now.Master
	for _, name := range []string{"cpus", "mem", "disk"} {
		n["allocator/mesos/resources/"+name+"/total"] = round(total.plain[name])
		n["allocator/mesos/resources/"+name+"/offered_or_allocated"] = round(used.plain[name] + sum.GetOffered().GetFields()[name].GetNumberValue())
	}
	for _, r := range now.Roles {
		n.role(r, sum)
	}
	for _, o := range now.Operations {
		switch o.GetLatestStatus().GetState() {
		case mezzov1.OperationState_OPERATION_PENDING:
			n["master/operations/pending"]++
		case mezzov1.OperationState_OPERATION_UNREACHABLE:
			n["master/operations/unreachable"]++
		}
	}
	n["master/operations/total"] = float64(len(now.Operations))
}

func (n Numbers) agent(a *operatorv1.AgentDetail) {
	switch {
	case a.GetUnreachable() != nil:
		n["master/slaves_unreachable"]++
		return
	case a.GetAwaited():
		return
	case mirror.Connected(a):
		n["master/slaves_connected"]++
	default:
		n["master/slaves_disconnected"]++
	}
	if mirror.Active(a) {
		n["master/slaves_active"]++
	} else {
		n["master/slaves_inactive"]++
	}
}

func (n Numbers) framework(now *mirror.Snapshot, f *mirror.Framework) {
	prefix := prefixOf(f)
	for name := range strings.FieldsSeq(frameworkNames) {
		n.zeros(prefix + name)
	}
	if f.GetState() == "active" {
		n["master/frameworks_connected"]++
		n["master/frameworks_active"]++
		n[prefix+"subscribed"] = 1
	} else {
		n["master/frameworks_disconnected"]++
		n["master/frameworks_inactive"]++
		n[prefix+"subscribed"] = 0
	}
	for _, state := range activeStates {
		n[prefix+"tasks/active/"+strings.ToLower(state.String())] = 0
	}
	for _, role := range f.GetInfo().GetRoles() {
		n[prefix+"roles/"+url.QueryEscape(role)+"/suppressed"] = 0
	}
	for _, role := range f.GetSuppressedRoles() {
		n[prefix+"roles/"+url.QueryEscape(role)+"/suppressed"] = 1
	}
	for _, t := range f.Tasks {
		state := t.GetTask().GetState()
		switch now.PlaceOf(t) {
		case mirror.Unreachable:
			n["master/tasks_unreachable"]++
		case mirror.Live:
			for _, s := range activeStates {
				if s == state {
					n["master/tasks_"+strings.ToLower(strings.TrimPrefix(s.String(), "TASK_"))]++
					n[prefix+"tasks/active/"+strings.ToLower(s.String())]++
				}
			}
		}
	}
}

// activeStates are those of tasks that go on.
var activeStates = []mezzov1.TaskState{
	mezzov1.TaskState_TASK_STAGING, mezzov1.TaskState_TASK_STARTING, mezzov1.TaskState_TASK_RUNNING, mezzov1.TaskState_TASK_KILLING,
}

// role tells of a role's quota and share.
func (n Numbers) role(r *operatorv1.Role, master *operatorv1.Status) {
	name := url.QueryEscape(r.GetName())
	share := 0.0
	for resource, v := range r.GetAllocated().GetFields() {
		if all := master.GetTotal().GetFields()[resource].GetNumberValue(); all > 0 {
			share = max(share, v.GetNumberValue()/all)
		}
	}
	n["allocator/mesos/roles/"+name+"/shares/dominant"] = share
	prefix := "allocator/mesos/quota/roles/" + name + "/resources/"
	for resource, v := range r.GetGuarantee().GetFields() {
		n[prefix+resource+"/guarantee"] = v.GetNumberValue()
	}
	for resource, v := range r.GetLimit().GetFields() {
		n[prefix+resource+"/limit"] = v.GetNumberValue()
	}
	if r.GetQuotaSource() == "" {
		return
	}
	for resource, v := range r.GetConsumed().GetFields() {
		n[prefix+resource+"/consumed"], n[prefix+resource+"/offered_or_allocated"] = v.GetNumberValue(), v.GetNumberValue()
	}
}
