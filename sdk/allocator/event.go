package allocator

import (
	"time"

	"github.com/mezzo-os/mezzo/sdk/resource"
)

// Event is one thing that an allocator is told: one of the types below, as a
// pointer. They mirror the messages of the same names in
// mezzo.allocator.v1, with ids and names in place of the stream's numbers; an
// Encoder turns them into those. An event and all that it points to must not
// be changed once it has been given away.
//
// The snapshot of a state is told by the same events, in this order: roles,
// frameworks, agents with their holdings, then filters, outstanding offers,
// inverse offers and running tasks.
type Event interface{ event() }

// RoleUpdated tells of a role, new or changed: the whole of it. A role that
// is never told of has the weight 1 and no quota.
type RoleUpdated struct {
	// Name is the whole path: "eng/web/ads".
	Name string
	// Weight in thousandths; 0 stands for the default, 1000.
	Weight uint64
	// Guarantee is nil when there is none.
	Guarantee resource.Quantities
	// Limit is nil when there is none. A name that it lacks is not limited, so
	// that it may hold zeros, as no other Quantities do.
	Limit resource.Quantities
	// Starved is for how long the role has been below its guarantee while
	// wanting more.
	Starved time.Duration
}

// Capabilities are what a framework can handle.
type Capabilities uint32

// The capabilities that matter to allocation.
const (
	CapabilityRevocableResources    Capabilities = 1 << 0
	CapabilityGPUResources          Capabilities = 1 << 1
	CapabilitySharedResources       Capabilities = 1 << 2
	CapabilityReservationRefinement Capabilities = 1 << 3
	CapabilityRegionAware           Capabilities = 1 << 4
)

// FrameworkUpdated tells of a framework, new or changed: the whole of it. When
// a framework becomes inactive, or leaves a role, its filters (in that role)
// are gone.
type FrameworkUpdated struct {
	ID   string
	Name string
	// Roles are those that it is subscribed to, each once.
	Roles []string
	// Suppressed are those of Roles in which it wants no offers.
	Suppressed   []string
	Capabilities Capabilities
	// Active tells whether a scheduler is connected: only then does the
	// framework get offers.
	Active   bool
	Settings []RoleSettings
}

// RoleSettings are what a framework asked for in one of its roles.
type RoleSettings struct {
	Role string
	// MinAllocatable overrides the cluster's; any of these sets is enough.
	MinAllocatable []resource.Quantities
	// Constraints is a serialised
	// mezzo.v1.scheduler.OfferConstraints.RoleConstraints; nil for none.
	Constraints []byte
}

// FrameworkRemoved tells that a framework is gone for good, and so is all that
// it still held: Released events for it come before, if at all.
type FrameworkRemoved struct{ ID string }

// AgentUpdated tells of an agent, new or changed: the whole of it, but its
// holdings, which are told when the agent is new and in a Refused event. When
// the attributes of an agent change, every filter on it is gone.
type AgentUpdated struct {
	ID       string
	Hostname string
	// Version rises with every change of the agent's total, attributes or
	// activity.
	Version uint64
	// Total is all that the agent has, held or not, without allocation info.
	Total        resource.Resources
	Attributes   []Attribute
	Region, Zone string
	// Active tells whether the agent may be offered at all.
	Active         bool
	Unavailability *Unavailability
	// Holdings is the whole of what is held when HoldingsSet.
	HoldingsSet bool
	Holdings    []Holding
	// DecisionsSeen is the highest decision that is in Holdings.
	DecisionsSeen uint64
}

// Attribute is an agent's attribute: a text, a number, or ranges.
type Attribute struct {
	Name   string
	Type   AttributeType
	Text   string
	Scalar resource.Scalar
	Ranges resource.Ranges
}

// AttributeType tells which of an Attribute's values is set.
type AttributeType uint8

// The types of an attribute.
const (
	AttributeText AttributeType = iota
	AttributeScalar
	AttributeRanges
)

// Unavailability is a planned window in which an agent will not be there.
type Unavailability struct {
	Start time.Time
	// Duration is 0 when no end is planned.
	Duration time.Duration
}

// Holding is what a framework holds in a role on an agent, offered and used
// together.
type Holding struct {
	Framework string
	Role      string
	Resources resource.Resources
}

// AgentRemoved tells that an agent is gone, and all holdings and filters on it.
// Events that name it afterwards are dropped.
type AgentRemoved struct{ ID string }

// Held tells that resources became held otherwise than by a decision of the
// session that is told: a task reported by a re-registering agent, or an offer
// decided by an earlier session.
type Held struct {
	Agent     string
	Framework string
	Role      string
	Resources resource.Resources
}

// Released tells that what a framework held is free again.
type Released struct {
	Agent     string
	Framework string
	Role      string
	Resources resource.Resources
	// Refuse is for how long the framework does not want these resources, or a
	// part of them, again; 0: no filter.
	Refuse time.Duration
	// Declined tells that an offer was declined whole: min_refuse applies.
	Declined bool
	// Offer is the decision's number when an offer was the reason; else 0.
	Offer uint64
}

// Converted tells that resources changed their kind, by reserve, unreserve,
// create, destroy, grow or shrink; the agent's total changed with them.
type Converted struct {
	Agent string
	// Framework and Role are who held them; empty when nobody did.
	Framework string
	Role      string
	From, To  resource.Resources
	// Version is the agent's new one.
	Version uint64
}

// Suppressed tells that a framework wants no offers in these roles.
type Suppressed struct {
	Framework string
	Roles     []string
}

// Revived tells that a framework wants offers in these roles again; its filters
// in them are gone.
type Revived struct {
	Framework string
	Roles     []string
}

// Filter is told in a snapshot: an offer of these resources, or of a part of
// them, is not wanted for the time that remains.
type Filter struct {
	Agent     string
	Framework string
	Role      string
	Resources resource.Resources
	Remaining time.Duration
	// Soft tells that only min_refuse remains of it.
	Soft bool
}

// TaskStarted tells of a task, whose resources are part of its framework's
// holding already.
type TaskStarted struct {
	Number    uint64
	Agent     string
	Framework string
	Role      string
	Resources resource.Resources
	Started   time.Time
	// Revocation is set when it was revoked and has not ended yet.
	Revocation *Revocation
}

// Revocation is one that is under way. Framework and Role are whom it is for,
// empty when that is not known.
type Revocation struct {
	Remaining time.Duration // of the grace period
	Framework string
	Role      string
}

// TaskEnded tells that a task has ended; what it held comes in a Released.
type TaskEnded struct{ Number uint64 }

// Requested is a framework's hint of what it would like.
type Requested struct {
	Framework string
	Agent     string // empty: any
	Resources resource.Quantities
}

// OfferOutstanding is told in a snapshot, and of an offer that the session to be
// replaced makes, after its Held; the resources are in the holdings.
type OfferOutstanding struct {
	Number    uint64
	Agent     string
	Framework string
	Role      string
	Resources resource.Resources
}

// InverseOfferState is how an inverse offer stands.
type InverseOfferState uint8

// The states of an inverse offer.
const (
	InverseOfferOutstanding InverseOfferState = iota + 1
	InverseOfferAccepted
	InverseOfferDeclined
	InverseOfferRescinded
)

// InverseOfferStatus tells how an inverse offer stands.
type InverseOfferStatus struct {
	Number    uint64
	Agent     string
	Framework string
	State     InverseOfferState
	Refuse    time.Duration
}

// Refused tells that a decision was not carried out.
type Refused struct {
	Decision uint64
	Reason   RefusalReason
	Message  string
	// Agent is the decision's agent as the core knows it, with its holdings;
	// nil when the core does not know it. Decisions of higher numbers are not
	// in it yet.
	Agent *AgentUpdated
}

func (*RoleUpdated) event()        {}
func (*FrameworkUpdated) event()   {}
func (*FrameworkRemoved) event()   {}
func (*AgentUpdated) event()       {}
func (*AgentRemoved) event()       {}
func (*Held) event()               {}
func (*Released) event()           {}
func (*Converted) event()          {}
func (*Suppressed) event()         {}
func (*Revived) event()            {}
func (*Filter) event()             {}
func (*TaskStarted) event()        {}
func (*TaskEnded) event()          {}
func (*Requested) event()          {}
func (*OfferOutstanding) event()   {}
func (*InverseOfferStatus) event() {}
func (*Refused) event()            {}
