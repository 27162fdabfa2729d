package mirror

import (
	"net"
	"strconv"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	operatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/operator/v1"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
)

// What the copy says, in the words of Mesos.

// Endpoint is the name under which adapters of this kind publish where they
// listen.
const Endpoint = "mesos"

// AgentPort is where clients look for an agent that has no adapter of this kind.
const AgentPort = 5051

// AgentAddress is where an agent's adapter listens, host:port; without one, where
// the agent itself is, at the port where clients look for it.
func AgentAddress(a *operatorv1.AgentDetail) string {
	for _, e := range a.GetEndpoints() {
		if e.GetName() == Endpoint {
			return e.GetAddress()
		}
	}
	host, _, err := net.SplitHostPort(a.GetRpcAddress())
	if err != nil {
		host = a.GetHostname()
	}
	return net.JoinHostPort(host, strconv.Itoa(AgentPort))
}

// AgentPID is an agent's process id, "slave(1)@10.0.0.2:5051".
func AgentPID(a *operatorv1.AgentDetail) string { return "slave(1)@" + AgentAddress(a) }

// AgentInfo is what frameworks are told of an agent.
func AgentInfo(a *operatorv1.AgentDetail) *mezzov1.AgentInfo {
	_, text, _ := net.SplitHostPort(AgentAddress(a))
	port, err := strconv.Atoi(text)
	if err != nil {
		port = AgentPort
	}
	return &mezzov1.AgentInfo{
		Hostname: proto.String(a.GetHostname()), Port: proto.Int32(int32(port)), Id: &mezzov1.AgentID{Value: proto.String(a.GetId())},
		Resources: a.GetTotal(), Attributes: a.GetAttributes(), Domain: a.GetDomain(),
	}
}

// AgentCapabilities are what every agent of Mezzo is able to do.
func AgentCapabilities() []*mezzov1.AgentInfo_Capability {
	var out []*mezzov1.AgentInfo_Capability
	for _, c := range []mezzov1.AgentInfo_Capability_Type{
		mezzov1.AgentInfo_Capability_MULTI_ROLE, mezzov1.AgentInfo_Capability_HIERARCHICAL_ROLE,
		mezzov1.AgentInfo_Capability_RESERVATION_REFINEMENT, mezzov1.AgentInfo_Capability_RESIZE_VOLUME,
		mezzov1.AgentInfo_Capability_AGENT_OPERATION_FEEDBACK, mezzov1.AgentInfo_Capability_AGENT_DRAINING, mezzov1.AgentInfo_Capability_TASK_RESOURCE_LIMITS,
	} {
		out = append(out, &mezzov1.AgentInfo_Capability{Type: c.Enum()})
	}
	return out
}

// Registered sorts out the agents: those that are registered, connected or not, and
// those of whom nothing was heard since the master took over. Unreachable ones
// are neither.
func (s *Snapshot) Registered() (registered, recovered []*operatorv1.AgentDetail) {
	for _, a := range s.Agents {
		switch {
		case a.GetUnreachable() != nil:
		case a.GetAwaited():
			recovered = append(recovered, a)
		default:
			registered = append(registered, a)
		}
	}
	return registered, recovered
}

// Active is whether an agent is offered.
func Active(a *operatorv1.AgentDetail) bool { return a.GetState() == "active" }

// Connected is whether an agent's link is open.
func Connected(a *operatorv1.AgentDetail) bool {
	return a.GetUnreachable() == nil && a.GetState() != "disconnected"
}

// Deactivated is whether an operator has taken an agent out of service.
func Deactivated(a *operatorv1.AgentDetail) bool { return a.GetDeactivated() }

// Draining is the state of a drain that is not done.
const Draining = "draining"

// DrainInfo is how an agent is being drained, or was; nil: it is not.
func DrainInfo(a *operatorv1.AgentDetail) *mezzov1.DrainInfo {
	d := a.GetDrain()
	if d == nil {
		return nil
	}
	out := &mezzov1.DrainInfo{State: mezzov1.DrainState_DRAINED.Enum(), Config: &mezzov1.DrainConfig{MarkGone: proto.Bool(d.GetMarkGone())}}
	if d.GetState() == Draining {
		out.State = mezzov1.DrainState_DRAINING.Enum()
	}
	if d.MaxGraceSeconds != nil {
		out.Config.MaxGracePeriod = &mezzov1.DurationInfo{Nanoseconds: proto.Int64(int64(d.GetMaxGraceSeconds() * 1e9))}
	}
	return out
}

// Place is where a task belongs in answers.
type Place int

// The places of tasks.
const (
	Live Place = iota
	Unreachable
	Completed
)

// PlaceOf says where a task belongs.
func (s *Snapshot) PlaceOf(t *operatorv1.TaskDetail) Place {
	switch {
	case t.GetCompleted():
		return Completed
	case s.unreachable(t):
		return Unreachable
	}
	return Live
}

// unreachable is whether a task is on an agent that is unreachable.
func (s *Snapshot) unreachable(t *operatorv1.TaskDetail) bool {
	switch t.GetTask().GetState() {
	case mezzov1.TaskState_TASK_UNREACHABLE:
		return true
	case mezzov1.TaskState_TASK_LOST:
		return s.agents[t.GetTask().GetAgentId().GetValue()].GetUnreachable() != nil
	}
	return false
}

// Holds is whether a task still holds its resources.
func Holds(t *operatorv1.TaskDetail) bool {
	return !t.GetCompleted() && t.GetFinished() == nil && t.GetTask().GetState() != mezzov1.TaskState_TASK_UNREACHABLE
}

// InverseOffers are those to a framework that it has not answered.
func (s *Snapshot) InverseOffers(framework string) []*mezzov1.InverseOffer {
	var out []*mezzov1.InverseOffer
	for _, a := range s.Agents {
		for _, x := range a.GetInverseOffers() {
			if x.GetFrameworkId() == framework && x.GetStatus() == "outstanding" {
				out = append(out, &mezzov1.InverseOffer{
					Id: &mezzov1.OfferID{Value: proto.String(x.GetId())}, FrameworkId: &mezzov1.FrameworkID{Value: proto.String(framework)},
					AgentId: &mezzov1.AgentID{Value: proto.String(a.GetId())}, Unavailability: Unavailability(a.GetUnavailability()),
				})
			}
		}
	}
	return out
}

// Unavailability is a planned window.
func Unavailability(u *operatorv1.Unavailability) *mezzov1.Unavailability {
	out := &mezzov1.Unavailability{Start: TimeInfo(u.GetStart())}
	if out.Start == nil {
		out.Start = &mezzov1.TimeInfo{Nanoseconds: proto.Int64(0)}
	}
	if d := u.GetDurationSeconds(); d > 0 {
		out.Duration = &mezzov1.DurationInfo{Nanoseconds: proto.Int64(int64(d * 1e9))}
	}
	return out
}

// TimeInfo is a time; nil when it is not set.
func TimeInfo(t *timestamppb.Timestamp) *mezzov1.TimeInfo {
	if t == nil {
		return nil
	}
	return &mezzov1.TimeInfo{Nanoseconds: proto.Int64(t.AsTime().UnixNano())}
}

// Seconds is a time as seconds since 1970; 0 when it is not set.
func Seconds(t *timestamppb.Timestamp) float64 {
	if t == nil {
		return 0
	}
	return float64(t.AsTime().UnixMicro()) / 1e6
}
