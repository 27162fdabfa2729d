package legacy

import (
	"cmp"
	"maps"
	"net/url"
	"slices"
	"strconv"

	"github.com/mezzo-os/mezzo/plugins/framework-mesos/convert"
	"github.com/mezzo-os/mezzo/plugins/framework-mesos/mirror"
	"github.com/mezzo-os/mezzo/plugins/framework-mesos/operator"
	"github.com/mezzo-os/mezzo/plugins/framework-mesos/transport"
	operatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/operator/v1"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
)

// Build writes which build answers, in an object that the caller has begun.
func Build(j *JSON, about transport.About) {
	v := operator.VersionInfo(about)
	j.Key("version").Text(v.GetVersion())
	j.Key("build_date").Text(v.GetBuildDate())
	j.Key("build_time").Float(v.GetBuildTime())
	j.Key("build_user").Text(v.GetBuildUser())
}

// Settings writes the flags, in an object that the caller has begun.
func Settings(j *JSON, about transport.About) {
	j.Key("flags").Object(func() {
		for _, f := range operator.Flags(about) {
			j.Key(f.GetName()).Text(f.GetValue())
		}
	})
}

func (m *Master) state(j *JSON, now *mirror.Snapshot) {
	info := m.MasterInfo(now.Master)
	registered, recovered := now.Registered()
	j.Object(func() {
		Build(j, m.About)
		j.Key("start_time").Float(mirror.Seconds(now.Master.GetStarted()))
		if e := now.Master.GetElected(); e != nil {
			j.Key("elected_time").Float(mirror.Seconds(e))
		}
		j.Key("id").Text(info.GetId())
		j.Key("pid").Text(info.GetPid())
		j.Key("hostname").Text(info.GetHostname())
		j.Key("capabilities").Array(func() {
			for _, c := range info.GetCapabilities() {
				j.Text(c.GetType().String())
			}
		})
		m.counts(j, now, registered)
		if info.Domain != nil {
			j.Key("domain").Message(info.GetDomain())
		}
		j.Key("leader").Text(info.GetPid())
		j.Key("leader_info").Object(func() {
			j.Key("id").Text(info.GetId())
			j.Key("pid").Text(info.GetPid())
			j.Key("port").Int(int(info.GetPort()))
			j.Key("hostname").Text(info.GetHostname())
		})
		if m.Cluster != "" {
			j.Key("cluster").Text(m.Cluster)
		}
		Settings(j, m.About)
		j.Key("slaves").Array(func() {
			for _, a := range registered {
				j.Object(func() { slave(j, a) })
			}
		})
		recoveredSlaves(j, recovered)
		frameworkLists(j, now, "")
		j.Key("orphan_tasks").Array(func() {})
	})
}

func (m *Master) counts(j *JSON, now *mirror.Snapshot, registered []*operatorv1.AgentDetail) {
	active, unreachable := 0, 0
	for _, a := range registered {
		if mirror.Active(a) {
			active++
		}
	}
	for _, a := range now.Agents {
		if a.GetUnreachable() != nil {
			unreachable++
		}
	}
	j.Key("activated_slaves").Int(active)
	j.Key("deactivated_slaves").Int(len(registered) - active)
	j.Key("unreachable_slaves").Int(unreachable)
}

// machine writes what an agent is, whether it is there or awaited.
func machine(j *JSON, a *operatorv1.AgentDetail) {
	j.Key("id").Text(a.GetId())
	j.Key("hostname").Text(a.GetHostname())
	j.Key("port").Int(int(mirror.AgentInfo(a).GetPort()))
	j.Key("attributes")
	Attributes(j, a.GetAttributes())
	if a.Domain != nil {
		j.Key("domain").Message(a.GetDomain())
	}
}

// slave writes an agent, in an object that the caller has begun.
func slave(j *JSON, a *operatorv1.AgentDetail) {
	machine(j, a)
	j.Key("pid").Text(mirror.AgentPID(a))
	j.Key("registered_time").Float(mirror.Seconds(a.GetRegistered()))
	if a.Reregistered != nil {
		j.Key("reregistered_time").Float(mirror.Seconds(a.GetReregistered()))
	}
	j.Key("resources")
	Resources(j, a.GetTotal())
	j.Key("used_resources")
	Resources(j, a.GetAllocated())
	j.Key("offered_resources")
	Resources(j, a.GetOffered())
	reserved, unreserved := ByRole(a.GetTotal())
	j.Key("reserved_resources")
	Reserved(j, reserved)
	j.Key("unreserved_resources")
	Resources(j, unreserved)
	j.Key("active").Bool(mirror.Active(a))
	j.Key("deactivated").Bool(mirror.Deactivated(a))
	if d := mirror.DrainInfo(a); d != nil {
		j.Key("drain_info").Message(d)
		if t := a.GetDrain().GetStarted(); t != nil {
			j.Key("estimated_drain_start_time_seconds").Float(mirror.Seconds(t))
		}
	}
	j.Key("version").Text(transport.MesosVersion)
	j.Key("capabilities").Array(func() {
		for _, c := range mirror.AgentCapabilities() {
			j.Text(c.GetType().String())
		}
	})
}

func recoveredSlaves(j *JSON, recovered []*operatorv1.AgentDetail) {
	j.Key("recovered_slaves").Array(func() {
		for _, a := range recovered {
			j.Object(func() { machine(j, a) })
		}
	})
}

// full writes resources one by one, in the old form and the new.
func full(j *JSON, list []*mezzov1.Resource) {
	j.Array(func() {
		for _, r := range list {
			j.Message(r)
		}
	})
}

// both returns copies of resources that say who has reserved them in both forms.
func both(list []*mezzov1.Resource) []*mezzov1.Resource {
	out := make([]*mezzov1.Resource, len(list))
	for i, r := range list {
		x := cloneResource(r)
		convert.Both(x)
		out[i] = x
	}
	return out
}

func slaves(j *JSON, now *mirror.Snapshot, q url.Values) {
	registered, recovered := now.Registered()
	other := func(a *operatorv1.AgentDetail) bool { return q.Get("slave_id") != "" && a.GetId() != q.Get("slave_id") }
	held := now.Holdings()
	j.Object(func() {
		j.Key("slaves").Array(func() {
			for _, a := range slices.DeleteFunc(registered, other) {
				j.Object(func() {
					slave(j, a)
					reserved, unreserved := ByRole(both(a.GetTotal()))
					j.Key("reserved_resources_full").Object(func() {
						for _, role := range slices.Sorted(maps.Keys(reserved)) {
							j.Key(role)
							full(j, reserved[role])
						}
					})
					j.Key("unreserved_resources_full")
					full(j, unreserved)
					j.Key("used_resources_full")
					full(j, both(held.ByAgent[a.GetId()].ToProto()))
					j.Key("offered_resources_full")
					full(j, both(held.OfferedOn[a.GetId()].ToProto()))
				})
			}
		})
		recoveredSlaves(j, slices.DeleteFunc(recovered, other))
	})
}

func frameworks(j *JSON, now *mirror.Snapshot, q url.Values) {
	j.Object(func() { frameworkLists(j, now, q.Get("framework_id")) })
}

// frameworkLists writes the frameworks, or the one of an id, in an object that the
// caller has begun.
func frameworkLists(j *JSON, now *mirror.Snapshot, id string) {
	write := func(completed bool) {
		for _, f := range now.Frameworks {
			if f.Completed() == completed && (id == "" || f.ID() == id) {
				framework(j, now, f)
			}
		}
	}
	j.Key("frameworks").Array(func() { write(false) })
	j.Key("completed_frameworks").Array(func() { write(true) })
	j.Key("unregistered_frameworks").Array(func() {})
}

// identity writes what a framework says of itself, in an object that the caller
// has begun.
func identity(j *JSON, f *mirror.Framework) {
	info, active := f.GetInfo(), f.GetState() == "active"
	j.Key("id").Text(f.ID())
	j.Key("name").Text(info.GetName())
	j.Key("hostname").Text(info.GetHostname())
	j.Key("webui_url").Text(info.GetWebuiUrl())
	j.Key("active").Bool(active)
	j.Key("connected").Bool(active)
	j.Key("recovered").Bool(f.GetRecovered())
	j.Key("capabilities").Array(func() {
		for _, c := range info.GetCapabilities() {
			j.Text(c.GetType().String())
		}
	})
}

func framework(j *JSON, now *mirror.Snapshot, f *mirror.Framework) {
	info := f.GetInfo()
	j.Object(func() {
		identity(j, f)
		j.Key("user").Text(info.GetUser())
		j.Key("failover_timeout").Float(info.GetFailoverTimeout())
		j.Key("checkpoint").Bool(info.GetCheckpoint())
		if info.Principal != nil {
			j.Key("principal").Text(info.GetPrincipal())
		}
		Roles(j, info)
		j.Key("registered_time").Float(mirror.Seconds(f.GetRegistered()))
		j.Key("unregistered_time").Float(mirror.Seconds(f.GetUnregistered()))
		if r := f.GetReregistered(); r != nil && !r.AsTime().Equal(f.GetRegistered().AsTime()) {
			j.Key("reregistered_time").Float(mirror.Seconds(r))
		}
		used, offered := now.Holdings().ByFramework[f.ID()].ToProto(), now.Holdings().OfferedTo[f.ID()].ToProto()
		var sum Flat
		sum.Add(used)
		sum.Add(offered)
		j.Key("resources")
		sum.Write(j)
		j.Key("used_resources")
		Resources(j, used)
		j.Key("offered_resources")
		Resources(j, offered)
		frameworkTasks(j, now, f)
		frameworkHoldings(j, f)
		if info.Labels != nil {
			j.Key("labels")
			Labels(j, info.GetLabels())
		}
		if f.Constraints != nil {
			j.Key("offer_constraints").Message(f.GetConstraints())
		}
	})
}

// Roles writes a framework's role, or its roles, in an object that the caller has
// begun.
func Roles(j *JSON, info *mezzov1.FrameworkInfo) {
	if convert.FormOf(info).MultiRole {
		j.Key("roles").Texts(info.GetRoles())
	} else {
		j.Key("role").Text(cmp.Or(info.GetRole(), "*"))
	}
}

func frameworkTasks(j *JSON, now *mirror.Snapshot, f *mirror.Framework) {
	for place, name := range [...]string{mirror.Live: "tasks", mirror.Unreachable: "unreachable_tasks", mirror.Completed: "completed_tasks"} {
		j.Key(name).Array(func() {
			for _, t := range f.Tasks {
				if now.PlaceOf(t) == mirror.Place(place) {
					Task(j, t.GetTask(), t.GetRole())
				}
			}
		})
	}
}

func frameworkHoldings(j *JSON, f *mirror.Framework) {
	j.Key("offers").Array(func() {
		for _, o := range f.Offers {
			j.Object(func() {
				j.Key("id").Text(o.GetId().GetValue())
				j.Key("framework_id").Text(f.ID())
				j.Key("slave_id").Text(o.GetAgentId().GetValue())
				j.Key("allocation_info").Object(func() { j.Key("role").Text(o.GetAllocationInfo().GetRole()) })
				j.Key("resources")
				Resources(j, o.GetResources())
			})
		}
	})
	j.Key("executors").Array(func() {
		for _, e := range f.Executors {
			j.Object(func() {
				Executor(j, e.GetInfo(), e.GetRole(), e.GetResources())
				j.Key("slave_id").Text(e.GetAgentId())
			})
		}
	})
}

// tasks writes tasks of all places, sorted by the time of their first status.
func tasks(j *JSON, now *mirror.Snapshot, q url.Values) {
	number := func(name string, otherwise int) int {
		if v, err := strconv.Atoi(q.Get(name)); err == nil {
			return v
		}
		return otherwise
	}
	limit, offset := number("limit", 100), max(0, number("offset", 0))
	var list []*operatorv1.TaskDetail
	for _, f := range now.Frameworks {
		if id := q.Get("framework_id"); id != "" && id != f.ID() {
			continue
		}
		for _, t := range f.Tasks {
			if id := q.Get("task_id"); id == "" || id == t.GetTask().GetTaskId().GetValue() {
				list = append(list, t)
			}
		}
	}
	first := func(t *operatorv1.TaskDetail) float64 {
		if s := t.GetTask().GetStatuses(); len(s) > 0 {
			return s[0].GetTimestamp()
		}
		return 0
	}
	slices.SortStableFunc(list, func(a, b *operatorv1.TaskDetail) int {
		if q.Get("order") == "asc" {
			a, b = b, a
		}
		return cmp.Compare(first(b), first(a))
	})
	list = list[min(offset, len(list)):]
	if limit >= 0 {
		list = list[:min(limit, len(list))]
	}
	j.Object(func() {
		j.Key("tasks").Array(func() {
			for _, t := range list {
				Task(j, t.GetTask(), t.GetRole())
			}
		})
	})
}
