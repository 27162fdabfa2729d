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
		it.SandboxOnly = true
		it.Name = e.info.GetName()
		it.User = e.info.GetCommand().GetUser()
		if it.User == "" {
			it.User = e.framework.info.GetUser()
		}
		it.Container = e.info.GetContainer()
		it.Labels = e.info.GetLabels()
		// The root holds what all that is nested in it may use.
		it.Resources = append(it.Resources, e.info.GetResources()...)
		for _, t := range e.tasks {
			it.Resources = append(it.Resources, t.info.GetResources()...)
		}
		return it
	}
	info := c.task.info
	it.TaskId = c.task.key.id
	it.Name = info.GetName()
	it.User = userOf(e.framework, info)
	it.Container = info.GetContainer()
	it.Resources = info.GetResources()
	it.Labels = info.GetLabels()
	it.Limits = limits(info.GetLimits())
	// As with Mesos: what is nested shares its parent's cgroups unless it says no.
	it.ShareCgroups = it.Parent != "" && info.GetContainer().GetLinuxInfo().GetShareCgroups()
	return it
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
