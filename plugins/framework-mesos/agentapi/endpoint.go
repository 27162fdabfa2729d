package agentapi

import (
	"maps"
	"net"
	"net/http"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/mezzo-os/mezzo/plugins/framework-mesos/convert"
	"github.com/mezzo-os/mezzo/plugins/framework-mesos/legacy"
	"github.com/mezzo-os/mezzo/plugins/framework-mesos/mirror"
	"github.com/mezzo-os/mezzo/plugins/framework-mesos/transport"
	operatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/operator/v1"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
)

// state answers /state (G.2).
func (h *Handler) state(w http.ResponseWriter, r *http.Request) *transport.Error {
	state, failure := h.detail(transport.CallContext(r))
	if failure != nil {
		return failure
	}
	d := state.GetDetail()
	legacy.Answer(w, r, func(j *legacy.JSON) {
		j.Object(func() {
			legacy.Build(j, h.options.About)
			j.Key("start_time").Float(mirror.Seconds(d.GetStarted()))
			j.Key("id").Text(state.GetAgentId())
			j.Key("pid").Text(h.options.PID)
			j.Key("hostname").Text(state.GetHostname())
			j.Key("capabilities").Array(func() {
				for _, c := range mirror.AgentCapabilities() {
					j.Text(c.GetType().String())
				}
			})
			if domain := d.GetInfo().GetDomain(); domain != nil {
				j.Key("domain").Message(domain)
			}
			resources(j, d)
			j.Key("resource_providers").Array(func() {})
			j.Key("attributes")
			legacy.Attributes(j, d.GetInfo().GetAttributes())
			if host, _, err := net.SplitHostPort(state.GetMaster()); err == nil {
				j.Key("master_hostname").Text(host)
			}
			legacy.Settings(j, h.options.About)
			frameworkLists(j, d)
		})
	})
	return nil
}

// resources writes what the agent has and what of it is in use, in an object that
// the caller has begun.
func resources(j *legacy.JSON, d *operatorv1.AgentStateDetail) {
	total := d.GetInfo().GetResources()
	j.Key("resources")
	legacy.Resources(j, total)
	reserved, unreserved := legacy.ByRole(total)
	j.Key("reserved_resources")
	legacy.Reserved(j, reserved)
	j.Key("unreserved_resources")
	legacy.Resources(j, unreserved)
	full := make([]*mezzov1.Resource, len(total))
	for i, r := range total {
		full[i] = proto.CloneOf(r)
		convert.Both(full[i])
	}
	reservedFull, unreservedFull := legacy.ByRole(full)
	j.Key("reserved_resources_full").Object(func() {
		for _, role := range slices.Sorted(maps.Keys(reservedFull)) {
			j.Key(role).Array(func() { messages(j, reservedFull[role]) })
		}
	})
	j.Key("unreserved_resources_full").Array(func() { messages(j, unreservedFull) })
	var used []*mezzov1.Resource
	for _, t := range d.GetTasks() {
		if t.GetPlace() == "queued" || t.GetPlace() == "launched" {
			used = append(used, t.GetTask().GetResources()...)
		}
	}
	for _, e := range d.GetExecutors() {
		if !e.GetCompleted() {
			used = append(used, e.GetInfo().GetResources()...)
		}
	}
	reservedUsed, unreservedUsed := legacy.ByRole(used)
	j.Key("reserved_resources_allocated")
	legacy.Reserved(j, reservedUsed)
	j.Key("unreserved_resources_allocated")
	legacy.Resources(j, unreservedUsed)
}

func messages(j *legacy.JSON, list []*mezzov1.Resource) {
	for _, r := range list {
		j.Message(r)
	}
}

func frameworkLists(j *legacy.JSON, d *operatorv1.AgentStateDetail) {
	write := func(list []*mezzov1.FrameworkInfo) func() {
		return func() {
			for _, info := range list {
				framework(j, d, info)
			}
		}
	}
	j.Key("frameworks").Array(write(d.GetFrameworks()))
	j.Key("completed_frameworks").Array(write(completedInfos(d)))
}

func framework(j *legacy.JSON, d *operatorv1.AgentStateDetail, info *mezzov1.FrameworkInfo) {
	id := info.GetId().GetValue()
	list := func(completed bool) func() {
		return func() {
			for _, e := range d.GetExecutors() {
				if e.GetFrameworkId() == id && e.GetCompleted() == completed {
					executor(j, d, e)
				}
			}
		}
	}
	j.Object(func() {
		j.Key("id").Text(id)
		j.Key("name").Text(info.GetName())
		j.Key("user").Text(info.GetUser())
		j.Key("failover_timeout").Float(info.GetFailoverTimeout())
		j.Key("checkpoint").Bool(info.GetCheckpoint())
		j.Key("hostname").Text(info.GetHostname())
		if info.Principal != nil {
			j.Key("principal").Text(info.GetPrincipal())
		}
		legacy.Roles(j, info)
		j.Key("executors").Array(list(false))
		j.Key("completed_executors").Array(list(true))
	})
}

func executor(j *legacy.JSON, d *operatorv1.AgentStateDetail, e *operatorv1.AgentExecutor) {
	info := infoOf(e)
	j.Object(func() {
		j.Key("id").Text(info.GetExecutorId().GetValue())
		j.Key("name").Text(info.GetName())
		j.Key("source").Text(info.GetSource())
		j.Key("container").Text(e.GetContainerId())
		j.Key("directory").Text(e.GetDirectory())
		var sum legacy.Flat
		sum.Add(info.GetResources())
		for _, t := range d.GetTasks() {
			if t.GetRun() == e.GetContainerId() && (t.GetPlace() == "queued" || t.GetPlace() == "launched") {
				sum.Add(t.GetTask().GetResources())
			}
		}
		j.Key("resources")
		sum.Write(j)
		if e.GetRole() != "" {
			j.Key("role").Text(e.GetRole())
		}
		if info.Labels != nil {
			j.Key("labels")
			legacy.Labels(j, info.GetLabels())
		}
		if info.Type != nil {
			j.Key("type").Text(info.GetType().String())
		}
		in := func(places ...string) func() {
			return func() {
				for _, t := range d.GetTasks() {
					for _, place := range places {
						if t.GetRun() == e.GetContainerId() && t.GetPlace() == place {
							legacy.Task(j, t.GetTask(), t.GetRole())
						}
					}
				}
			}
		}
		j.Key("tasks").Array(in("launched"))
		j.Key("queued_tasks").Array(in("queued"))
		j.Key("completed_tasks").Array(in("terminated", "completed"))
	})
}

// containers answers /containers.
func (h *Handler) containers(w http.ResponseWriter, r *http.Request) *transport.Error {
	q := r.URL.Query()
	id, framework, executor := q.Get("container_id"), q.Get("framework_id"), q.Get("executor_id")
	if id != "" && (framework != "" || executor != "") || executor != "" && framework == "" {
		return transport.Failed(http.StatusBadRequest, "Expecting either 'container_id', or 'framework_id' with or without 'executor_id'")
	}
	return h.list(w, r, func(b box) bool {
		return (id == "" || b.id.GetValue() == id) && (framework == "" || b.framework == framework) &&
			(executor == "" || b.executor.GetInfo().GetExecutorId().GetValue() == executor)
	}, true)
}

// statistics answers /monitor/statistics.
func (h *Handler) statistics(w http.ResponseWriter, r *http.Request) *transport.Error {
	return h.list(w, r, func(box) bool { return true }, false)
}

// list writes the containers of executors.
func (h *Handler) list(w http.ResponseWriter, r *http.Request, keep func(box) bool, withStatus bool) *transport.Error {
	ctx := transport.CallContext(r)
	state, failure := h.detail(ctx)
	if failure != nil {
		return failure
	}
	boxes, failure := h.boxes(ctx, state)
	if failure != nil {
		return failure
	}
	legacy.Answer(w, r, func(j *legacy.JSON) {
		j.Array(func() {
			for _, b := range boxes {
				if b.executor == nil || !keep(b) {
					continue
				}
				info := infoOf(b.executor)
				j.Object(func() {
					j.Key("framework_id").Text(b.framework)
					j.Key("executor_id").Text(info.GetExecutorId().GetValue())
					j.Key("executor_name").Text(info.GetName())
					j.Key("source").Text(info.GetSource())
					if withStatus {
						j.Key("container_id").Text(b.id.GetValue())
						j.Key("status").Message(b.status)
					}
					j.Key("statistics").Message(b.statistics)
				})
			}
		})
	})
	return nil
}
