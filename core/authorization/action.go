package authorization

import "github.com/mezzo-os/mezzo/core/rpc"

// Action is what can be asked for, and which parts its objects have.
type Action struct {
	Name              rpc.Action
	Role, User, Owner bool
	// Meaning is what it allows, in Markdown, without a full stop.
	Meaning string
}

// Actions are all that there are, in the order in which the manual has them.
var Actions = []Action{
	{rpc.ViewCluster, false, false, false, "See agents, frameworks, tasks, offers, roles, plugins, quota, metrics and events: all of them, or nothing"},
	{rpc.RegisterAgent, false, false, false, "Be an agent of the cluster"},
	{rpc.RegisterFramework, true, true, false, "Be a framework: in each of its roles, and with the user of its tasks that say nothing else"},
	{rpc.TeardownFramework, true, true, true, "End a framework with all its tasks: in each of its roles"},
	{rpc.RunTask, true, true, true, "Launch a task, or an executor, in that role and as that user"},
	{rpc.KillTask, true, true, true, "End a task, or an executor"},
	{rpc.ReadSandbox, true, true, true, "Read the output and the files of a task"},
	{rpc.RunCommand, true, true, true, "Run a command beside a task, attach to it, signal it"},
	{rpc.RunContainer, false, true, false, "Run and remove a container on an agent that is no framework's"},
	{rpc.ReserveResources, true, false, false, "Reserve resources to a role"},
	{rpc.UnreserveResources, true, false, true, "Take a reservation back; its owner is who made it"},
	{rpc.CreateVolume, true, false, false, "Create a persistent volume"},
	{rpc.DestroyVolume, true, false, true, "Destroy a persistent volume, with what is in it; its owner is who made it"},
	{rpc.ResizeVolume, true, false, true, "Grow or shrink a persistent volume; its owner is who made it"},
	{rpc.UpdateQuota, true, false, false, "Set or remove the quota of a role"},
	{rpc.UpdateWeight, true, false, false, "Set the weight of a role"},
	{rpc.ManageAgent, false, false, false, "Drain, deactivate, reactivate agents or mark them gone; maintenance"},
	{rpc.ManageImage, false, false, false, "Import, remove and prune images on agents"},
	{rpc.Administer, false, false, false, "Reload the configuration, this policy with it; set the log level"},
}

// Find returns an action by its name.
func Find(name string) (Action, bool) {
	for _, a := range Actions {
		if string(a.Name) == name {
			return a, true
		}
	}
	return Action{}, false
}

// Names are the names of all actions.
func Names() (out []string) {
	for _, a := range Actions {
		out = append(out, string(a.Name))
	}
	return out
}

type part struct{ name, value string }

// parts are those that the action's objects have.
func (a Action) parts(o rpc.Object) (out []part) {
	if a.Role {
		out = append(out, part{"role", o.Role})
	}
	if a.User {
		out = append(out, part{"user", o.User})
	}
	if a.Owner {
		out = append(out, part{"owner", o.Owner})
	}
	return out
}
