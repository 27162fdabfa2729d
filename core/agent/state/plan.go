package state

import (
	"maps"
	"math"
	"slices"

	isolatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/isolator/v1"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
)

// isolatorTask is what isolators are told of the work that a container is for.
func (m *Machine) isolatorTask(c *container) *isolatorv1.Task {
	e := c.executor
	it := &isolatorv1.Task{FrameworkId: e.framework.id, Role: e.role, Parent: c.parent()}
	if e.info != nil {
		it.ExecutorId = e.id
	}
	if c.task == nil {
		it.SandboxOnly = e.program == nil
		it.Name = e.info.GetName()
		it.User = commandUser(e.framework, e.info.GetCommand())
		it.Container = e.info.GetContainer()
		it.Labels = e.info.GetLabels()
		// The root holds what all that is nested in it may use.
		it.Resources = append(it.Resources, e.info.GetResources()...)
		for _, t := range e.tasks {
			it.Resources = append(it.Resources, t.info.GetResources()...)
		}
		it.Limits = rootLimits(e)
		return it
	}
	info := c.task.info
	it.TaskId = c.task.key.id
	it.Name = info.GetName()
	it.User = commandUser(e.framework, info.GetCommand())
	it.Container = info.GetContainer()
	it.Resources = info.GetResources()
	it.Labels = info.GetLabels()
	it.Limits = limits(info.GetLimits())
	// As with Mesos: what is nested shares its parent's cgroups unless it says no.
	it.ShareCgroups = it.Parent != "" && info.GetContainer().GetLinuxInfo().GetShareCgroups()
	return it
}

// rootLimits is how far a root container may go: as far as its tasks together,
// each by its limit or else its request. There is one where a task has one.
func rootLimits(e *executor) []*isolatorv1.Limit {
	var list []*isolatorv1.Limit
	for _, name := range []string{"cpus", "mem"} {
		limited, total := false, thousandths(e.info.GetResources(), name)
		for _, t := range e.tasks {
			limit := t.info.GetLimits()[name]
			switch {
			case limit == nil:
				total += thousandths(t.info.GetResources(), name)
				continue
			case math.IsInf(limit.GetValue(), 1):
				total = math.Inf(1)
			default:
				total += math.Round(limit.GetValue() * 1000)
			}
			limited = true
		}
		switch {
		case !limited:
		case math.IsInf(total, 1):
			list = append(list, &isolatorv1.Limit{Name: name, Thousandths: -1})
		default:
			list = append(list, &isolatorv1.Limit{Name: name, Thousandths: int64(total)})
		}
	}
	return list
}

func thousandths(resources []*mezzov1.Resource, name string) float64 {
	total := 0.0
	for _, r := range resources {
		if r.GetName() == name {
			total += math.Round(r.GetScalar().GetValue() * 1000)
		}
	}
	return total
}

func limits(by map[string]*mezzov1.Value_Scalar) []*isolatorv1.Limit {
	var list []*isolatorv1.Limit
	for _, name := range slices.Sorted(maps.Keys(by)) {
		l := &isolatorv1.Limit{Name: name, Thousandths: -1}
		if v := by[name].GetValue(); !math.IsInf(v, 1) {
			l.Thousandths = int64(math.Round(v * 1000))
		}
		list = append(list, l)
	}
	return list
}
