package state

import (
	"maps"
	"math"
	"slices"

	"github.com/mezzo-os/mezzo/core/agent/containerinfo"
	"github.com/mezzo-os/mezzo/core/secret"
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
		it.Labels = e.info.GetLabels()
		// The root holds what all that is nested in it may use.
		it.Resources = append(it.Resources, e.info.GetResources()...)
		for _, t := range e.tasks {
			it.Resources = append(it.Resources, t.info.GetResources()...)
		}
		it.Limits = rootLimits(e)
		wishes(it, e.framework, e.info.GetContainer(), e.info.GetCommand())
		return it
	}
	info := c.task.info
	it.TaskId = c.task.key.id
	it.Name = info.GetName()
	it.Resources = info.GetResources()
	it.Labels = info.GetLabels()
	it.Limits = limits(info.GetLimits())
	// As with Mesos: what is nested shares its parent's cgroups unless it says no.
	it.ShareCgroups = it.Parent != "" && info.GetContainer().GetLinuxInfo().GetShareCgroups()
	wishes(it, e.framework, info.GetContainer(), info.GetCommand())
	return it
}

// wishes tells isolators what a container is to be, in one form; command is nil
// for one without a process.
func wishes(it *isolatorv1.Task, f *framework, info *mezzov1.ContainerInfo, command *mezzov1.CommandInfo) {
	it.User, it.OwnUser, it.Command = commandUser(f, command), command.GetUser() != "", secret.Command(command)
	w, err := containerinfo.Read(info, it.GetParent() != "", it.GetResources())
	if err != nil {
		w = &containerinfo.Wish{Info: info} // it was checked when it came: an older agent took it
	}
	it.Container, it.Network, it.Options = w.Info, w.Network, w.Options
	if command != nil && w.Image != nil {
		it.Image, it.Entrypoint = w.Image, containerinfo.Entrypoint(info, command)
	}
}

// optionEnvironment is what options of the container set in its environment.
func optionEnvironment(it *isolatorv1.Task) []Variable {
	w, err := containerinfo.Read(it.GetContainer(), it.GetParent() != "", it.GetResources())
	if err != nil {
		return nil
	}
	var list []Variable
	for _, v := range w.Environment {
		list = append(list, Variable{v.GetName(), v.GetValue()})
	}
	return list
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
