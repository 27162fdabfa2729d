package legacy

import (
	"maps"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/mezzo-os/mezzo/plugins/framework-mesos/mirror"
	"github.com/mezzo-os/mezzo/plugins/framework-mesos/operator"
	operatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/operator/v1"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
)

func cloneResource(r *mezzov1.Resource) *mezzov1.Resource { return proto.CloneOf(r) }

// counted are the states that the summary counts.
var counted = []mezzov1.TaskState{
	mezzov1.TaskState_TASK_STAGING, mezzov1.TaskState_TASK_STARTING, mezzov1.TaskState_TASK_RUNNING, mezzov1.TaskState_TASK_KILLING,
	mezzov1.TaskState_TASK_FINISHED, mezzov1.TaskState_TASK_KILLED, mezzov1.TaskState_TASK_FAILED, mezzov1.TaskState_TASK_LOST,
	mezzov1.TaskState_TASK_ERROR, mezzov1.TaskState_TASK_UNREACHABLE,
}

// census counts tasks by state, and remembers with whom they are.
type census struct {
	states map[mezzov1.TaskState]int
	others map[string]bool
}

type censuses map[string]*census

func (c censuses) of(id string) *census {
	x := c[id]
	if x == nil {
		x = &census{states: map[mezzov1.TaskState]int{}, others: map[string]bool{}}
		c[id] = x
	}
	return x
}

func (c *census) write(j *JSON, others string) {
	for _, s := range counted {
		j.Key(s.String()).Int(c.states[s])
	}
	j.Key(others).Texts(slices.Sorted(maps.Keys(c.others)))
}

func (m *Master) summary(j *JSON, now *mirror.Snapshot) {
	agents, frameworks := censuses{}, censuses{}
	for _, f := range now.Frameworks {
		for _, t := range f.Tasks {
			agent, state := t.GetTask().GetAgentId().GetValue(), t.GetTask().GetState()
			agents.of(agent).states[state]++
			frameworks.of(f.ID()).states[state]++
			if now.PlaceOf(t) == mirror.Live {
				agents.of(agent).others[f.ID()] = true
				frameworks.of(f.ID()).others[agent] = true
			}
		}
	}
	registered, _ := now.Registered()
	j.Object(func() {
		j.Key("hostname").Text(m.MasterInfo(now.Master).GetHostname())
		j.Key("cluster").Text(m.Cluster)
		j.Key("slaves").Array(func() {
			for _, a := range registered {
				j.Object(func() {
					slave(j, a)
					agents.of(a.GetId()).write(j, "framework_ids")
				})
			}
		})
		j.Key("frameworks").Array(func() {
			for _, f := range now.Frameworks {
				if f.Completed() {
					continue
				}
				j.Object(func() {
					identity(j, f)
					j.Key("used_resources")
					Resources(j, now.Holdings().ByFramework[f.ID()].ToProto())
					j.Key("offered_resources")
					Resources(j, now.Holdings().OfferedTo[f.ID()].ToProto())
					frameworks.of(f.ID()).write(j, "slave_ids")
				})
			}
		})
	})
}

func roles(j *JSON, now *mirror.Snapshot) {
	known := map[string]*operatorv1.Role{}
	for _, r := range now.Roles {
		known[r.GetName()] = r
	}
	reserved := map[string][]*mezzov1.Resource{}
	for _, a := range now.Agents {
		if a.GetUnreachable() == nil {
			byRole, _ := ByRole(a.GetTotal())
			for role, list := range byRole {
				reserved[role] = append(reserved[role], list...)
			}
		}
	}
	j.Object(func() {
		j.Key("roles").Array(func() {
			for _, name := range operator.RolesOf(now) {
				role(j, now, name, known[name], reserved[name])
			}
		})
	})
}

func role(j *JSON, now *mirror.Snapshot, name string, r *operatorv1.Role, reserved []*mezzov1.Resource) {
	used, offered := now.Holdings().ByRole[name].ToProto(), now.Holdings().OfferedIn[name].ToProto()
	amounts := func(list map[string]float64) {
		j.Object(func() {
			for _, key := range slices.Sorted(maps.Keys(list)) {
				j.Key(key).Float(list[key])
			}
		})
	}
	j.Object(func() {
		j.Key("name").Text(name)
		weight := 1.0
		if r != nil {
			weight = r.GetWeight()
		}
		j.Key("weight").Float(weight)
		j.Key("quota").Object(func() {
			j.Key("role").Text(name)
			j.Key("guarantee")
			amounts(numbers(r.GetGuarantee().AsMap()))
			j.Key("limit")
			amounts(numbers(r.GetLimit().AsMap()))
			j.Key("consumed")
			amounts(numbers(r.GetConsumed().AsMap()))
		})
		var sum Flat
		sum.Add(used)
		sum.Add(offered)
		j.Key("resources")
		sum.Write(j)
		j.Key("allocated")
		Resources(j, used)
		j.Key("offered")
		Resources(j, offered)
		j.Key("reserved")
		Resources(j, reserved)
		j.Key("frameworks").Texts(r.GetFrameworks())
	})
}

// numbers are those of the values that are numbers.
func numbers(in map[string]any) map[string]float64 {
	out := map[string]float64{}
	for name, v := range in {
		if f, ok := v.(float64); ok {
			out[name] = f
		}
	}
	return out
}
