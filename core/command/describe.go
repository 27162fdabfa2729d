package command

import (
	"fmt"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	operatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/operator/v1"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
)

// describe says what happened to an object, for people. It is empty for what is
// only a change of amounts.
func (m *mirror) describe(d *delta) string {
	switch object := d.object().(type) {
	case *operatorv1.Task:
		return m.describeTask(was[*operatorv1.Task](d), object, d.new == nil)
	case *operatorv1.Agent:
		return describeAgent(was[*operatorv1.Agent](d), object, d.new == nil)
	case *operatorv1.Framework:
		return describeFramework(was[*operatorv1.Framework](d), object, d.new == nil)
	case *operatorv1.Offer:
		return m.describeOffer(object, d.new == nil)
	case *operatorv1.Role:
		return describeRole(was[*operatorv1.Role](d), object, d.new == nil)
	case *operatorv1.Plugin:
		return describePlugin(was[*operatorv1.Plugin](d), object, d.new == nil)
	case *mezzov1.Operation:
		return m.describeOperation(was[*mezzov1.Operation](d), object, d.new == nil)
	case *operatorv1.Maintenance:
		return fmt.Sprintf("the schedule has %s, %s down", plural(uint64(len(object.Windows)), "window"), plural(uint64(len(object.Down)), "machine"))
	}
	return ""
}

// was is the object before, or nil.
func was[T proto.Message](d *delta) T {
	old, _ := d.old.(T)
	return old
}

// arrow says from what to what.
func arrow(from, to string) string { return dash(from) + " → " + dash(to) }

// because adds a reason, if there is one.
func because(text, reason string) string {
	if reason == "" {
		return text
	}
	return text + ": " + reason
}

func taskState(t *operatorv1.Task) string { return strings.TrimPrefix(t.GetState().String(), "TASK_") }

// taskReason is the reason and the message of a task's newest status.
func taskReason(t *operatorv1.Task) string {
	if t.Reason == nil {
		return t.Message
	}
	return strings.TrimSpace(strings.TrimPrefix(t.GetReason().String(), "REASON_") + " " + t.Message)
}

func (m *mirror) describeTask(old, t *operatorv1.Task, gone bool) string {
	switch {
	case gone && taskEnded(t):
		return "" // it ended long ago, and is forgotten
	case gone && m.isAway(t.AgentId):
		return "not known until " + m.agentName(t.AgentId) + " comes back"
	case gone:
		return "removed"
	case old == nil:
		text := fmt.Sprintf("%s on %s of framework %s, role %s, %s", taskState(t), m.agentName(t.AgentId), m.frameworkName(t.FrameworkId), t.Role, dash(amounts(t.Resources)))
		return because(text, taskReason(t))
	case old.GetState() != t.GetState():
		return because(arrow(taskState(old), taskState(t)), taskReason(t))
	case old.Healthy != nil && t.Healthy != nil && t.GetHealthy() != old.GetHealthy(), old.Healthy == nil && t.Healthy != nil:
		if t.GetHealthy() {
			return "healthy"
		}
		return because("unhealthy", t.Message)
	case old.Message != t.Message && t.Message != "":
		return because(taskState(t), t.Message)
	}
	return ""
}

// isAway reports whether a master waits for an agent: when it has taken over, it
// knows no tasks of it.
func (m *mirror) isAway(agent string) bool {
	a, known := m.objects[objectKey{kind: kindAgent, id: agent}].(*operatorv1.Agent)
	return known && a.GetState() == "disconnected"
}

// taskEnded reports a state after which no other comes.
func taskEnded(t *operatorv1.Task) bool { return t.GetState().Terminal() }

func describeAgent(old, a *operatorv1.Agent, gone bool) string {
	switch {
	case gone:
		return a.Hostname + " removed"
	case old == nil:
		return because(fmt.Sprintf("%s %s with %s", a.Hostname, a.State, dash(amounts(a.Resources))), a.Reason)
	case old.State != a.State:
		return because(a.Hostname+" "+arrow(old.State, a.State), a.Reason)
	case old.Reason != a.Reason && a.Reason != "":
		return because(a.Hostname+" "+a.State, a.Reason)
	case !proto.Equal(old.Drain, a.Drain) && a.Drain != nil:
		return a.Hostname + " " + a.Drain.State
	case old.Deactivated != a.Deactivated && a.Deactivated:
		return a.Hostname + " deactivated"
	case old.Deactivated != a.Deactivated:
		return a.Hostname + " back in service"
	case !proto.Equal(old.Resources, a.Resources):
		return a.Hostname + " has " + arrow(amounts(old.Resources), amounts(a.Resources))
	case old.RpcAddress != a.RpcAddress:
		return a.Hostname + " at " + arrow(old.RpcAddress, a.RpcAddress)
	case !proto.Equal(old.Unavailability, a.Unavailability) && a.Unavailability != nil:
		return a.Hostname + " is planned to be unavailable from " + a.Unavailability.GetStart().AsTime().Format("2006-01-02 15:04 MST")
	case !proto.Equal(old.Unavailability, a.Unavailability):
		return a.Hostname + " is not planned to be unavailable any more"
	}
	return ""
}

func describeFramework(old, f *operatorv1.Framework, gone bool) string {
	switch {
	case gone && f.State == "completed":
		return ""
	case gone:
		return f.Name + " removed"
	case old == nil:
		return fmt.Sprintf("%s %s, roles %s", f.Name, f.State, dash(strings.Join(f.Roles, ",")))
	case old.State != f.State:
		return f.Name + " " + arrow(old.State, f.State)
	case strings.Join(old.Roles, ",") != strings.Join(f.Roles, ","):
		return f.Name + " roles " + arrow(strings.Join(old.Roles, ","), strings.Join(f.Roles, ","))
	case strings.Join(old.SuppressedRoles, ",") != strings.Join(f.SuppressedRoles, ","):
		return f.Name + " suppresses offers to " + arrow(strings.Join(old.SuppressedRoles, ","), strings.Join(f.SuppressedRoles, ","))
	}
	return ""
}

func (m *mirror) describeOffer(o *operatorv1.Offer, gone bool) string {
	if gone {
		return fmt.Sprintf("of %s to %s is answered or withdrawn", o.Hostname, m.frameworkName(o.FrameworkId))
	}
	return fmt.Sprintf("%s of %s to %s, role %s", amounts(o.Resources), o.Hostname, m.frameworkName(o.FrameworkId), o.Role)
}

func describeRole(old, r *operatorv1.Role, gone bool) string {
	var parts []string
	differ := func(what, from, to string) {
		if from != to {
			parts = append(parts, what+" "+arrow(from, to))
		}
	}
	switch {
	case gone:
		return "removed"
	case old == nil:
		parts = append(parts, "weight "+number(r.Weight))
		differ("guarantee", "", quotaText(r.Guarantee))
		differ("limit", "", quotaText(r.Limit))
		return strings.Join(parts, ", ")
	}
	differ("weight", number(old.Weight), number(r.Weight))
	differ("guarantee", quotaText(old.Guarantee), quotaText(r.Guarantee))
	differ("limit", quotaText(old.Limit), quotaText(r.Limit))
	return strings.Join(parts, ", ")
}

func describePlugin(old, p *operatorv1.Plugin, gone bool) string {
	switch {
	case gone:
		return "replaced or stopped"
	case old == nil:
		return because(fmt.Sprintf("%s on %s, version %s", p.State, p.Host, dash(p.Version)), p.Reason)
	case old.State != p.State:
		reason := p.Reason
		if reason == "" && p.Restarts > old.Restarts {
			reason = p.LastError
		}
		return because(arrow(old.State, p.State), reason)
	case old.Reason != p.Reason && p.Reason != "":
		return because(p.State, p.Reason)
	case old.Checksum != p.Checksum || old.Version != p.Version:
		return "version " + arrow(old.Version, p.Version)
	}
	return ""
}

func (m *mirror) describeOperation(old, o *mezzov1.Operation, gone bool) string {
	state := operationState(o)
	who := "an operator's"
	if id := o.GetFrameworkId().GetValue(); id != "" {
		who = "framework " + m.frameworkName(id)
	}
	what := fmt.Sprintf("%s (%s) on %s", o.GetInfo().GetType(), who, m.agentName(o.GetAgentId().GetValue()))
	switch {
	case gone && state == "PENDING":
		return what + " is done"
	case gone:
		return ""
	case old == nil:
		return because(what+" "+state, o.GetLatestStatus().GetMessage())
	case operationState(old) != state:
		return because(what+" "+arrow(operationState(old), state), o.GetLatestStatus().GetMessage())
	}
	return ""
}

func operationState(o *mezzov1.Operation) string {
	return strings.TrimPrefix(o.GetLatestStatus().GetState().String(), "OPERATION_")
}

// stateOf is an object's state, where it has one.
func stateOf(object proto.Message) string {
	switch x := object.(type) {
	case *operatorv1.Task:
		return taskState(x)
	case *operatorv1.Agent:
		return x.State
	case *operatorv1.Framework:
		return x.State
	case *operatorv1.Plugin:
		return x.State
	case *mezzov1.Operation:
		return operationState(x)
	}
	return ""
}

// amountsText is what an object holds.
func amountsText(d *delta) string {
	held := func(allocated, offered *structpb.Struct) string {
		return fmt.Sprintf("allocated %s, offered %s", dash(amounts(allocated)), dash(amounts(offered)))
	}
	switch x := d.object().(type) {
	case *operatorv1.Agent:
		return held(x.Allocated, x.Offered)
	case *operatorv1.Framework:
		return held(x.Allocated, x.Offered)
	case *operatorv1.Role:
		return held(x.Allocated, x.Offered)
	}
	return d.change()
}

// names are all by which an object, or what it belongs to, may be asked for.
func (m *mirror) names(d *delta) []string {
	out := []string{d.key.id}
	agent := func(id string) { out = append(out, id, m.agentName(id)) }
	framework := func(id string) { out = append(out, id, m.frameworkName(id)) }
	switch x := d.object().(type) {
	case *operatorv1.Task:
		out = append(out, x.Name)
		agent(x.AgentId)
		framework(x.FrameworkId)
	case *operatorv1.Agent:
		out = append(out, x.Hostname)
	case *operatorv1.Framework:
		out = append(out, x.Name)
	case *operatorv1.Offer:
		out = append(out, x.Hostname, x.AgentId)
		framework(x.FrameworkId)
	case *operatorv1.Plugin:
		out = append(out, x.Host)
	case *mezzov1.Operation:
		out = append(out, x.GetLatestStatus().GetOperationId().GetValue())
		agent(x.GetAgentId().GetValue())
		framework(x.GetFrameworkId().GetValue())
	}
	return out
}

// frameworkName is the framework's name if it is known, or its id.
func (m *mirror) frameworkName(id string) string {
	if f, ok := m.objects[objectKey{kind: kindFramework, id: id}].(*operatorv1.Framework); ok && f.Name != "" {
		return f.Name
	}
	return id
}

// agentName is the agent's host name if it is known, or its id.
func (m *mirror) agentName(id string) string {
	if a, ok := m.objects[objectKey{kind: kindAgent, id: id}].(*operatorv1.Agent); ok && a.Hostname != "" {
		return a.Hostname
	}
	return id
}
