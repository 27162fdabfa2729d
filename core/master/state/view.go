package state

import (
	"time"

	"github.com/mezzo-os/mezzo/sdk/allocator"
	"github.com/mezzo-os/mezzo/sdk/resource"

	linkv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/link/v1"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
	schedulerv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1/scheduler"
)

// AgentState is an agent's state as others see it.
type AgentState string

// The states of an agent, the weightiest first: one that is disconnected may be
// draining, and one that is draining may be withheld.
const (
	AgentUnreachable  AgentState = "unreachable"
	AgentDisconnected AgentState = "disconnected"
	AgentDraining     AgentState = "draining"
	AgentDrained      AgentState = "drained"
	AgentDeactivated  AgentState = "deactivated"
	AgentWithheld     AgentState = "withheld"
	AgentActive       AgentState = "active"
)

// FrameworkState is a framework's state as others see it.
type FrameworkState string

// The states of a framework.
const (
	FrameworkActive       FrameworkState = "active"
	FrameworkDisconnected FrameworkState = "disconnected"
	FrameworkCompleted    FrameworkState = "completed"
)

// AgentView is an agent at one moment. It is never changed.
type AgentView struct {
	ID       string
	Hostname string
	State    AgentState
	// Awaited: it has not come back since this master began to lead.
	Awaited bool
	// Reason says why, where the state needs it.
	Reason      string
	Version     string
	RPCAddress  string
	HTTPAddress string
	Endpoints   []*linkv1.Endpoint
	Attributes  []*mezzov1.Attribute
	Domain      *mezzov1.DomainInfo
	Total       resource.Resources
	Used        resource.Resources
	Offered     resource.Resources
	// Tasks counts those that have not ended.
	Tasks        int
	Registered   time.Time
	Reregistered time.Time // zero when it never did
	Unreachable  time.Time // since when; zero when it is reachable
	// Unavailability is planned; nil: none is. InverseOffers are how the
	// frameworks there were asked to leave, by their ids.
	Unavailability *allocator.Unavailability
	InverseOffers  []InverseOfferView
	IP             string // empty when none is known
	// Deactivated: operators have taken it out of service, whatever its state.
	Deactivated bool
	// Drain is how it is being drained, or was; nil: it is not.
	Drain *DrainView
}

// DrainView is the draining of an agent. It is never changed.
type DrainView struct {
	Drained  bool
	MaxGrace *time.Duration // nil: the tasks' own
	MarkGone bool
	Started  time.Time // when this master told the agent; zero: it is away
}

// ScheduleView is the maintenance schedule. It is never changed.
type ScheduleView struct {
	Windows []Window
	Down    []MachineID // those of its machines that are down
}

// InverseOfferView is how a framework was asked to leave an agent. It is never
// changed.
type InverseOfferView struct {
	ID          string
	FrameworkID string
	State       allocator.InverseOfferState
	Since       time.Time
}

// FrameworkView is a framework at one moment. It is never changed.
type FrameworkView struct {
	ID         string
	Info       *mezzov1.FrameworkInfo
	State      FrameworkState
	Roles      []string
	Suppressed []string
	Used       resource.Quantities // scalars, over all agents
	Offered    resource.Quantities
	// Tasks counts those that have not ended.
	Tasks        int
	Offers       int
	Registered   time.Time
	Reregistered time.Time
	Disconnected time.Time
	Unregistered time.Time
	// Recovered: it has not subscribed since this master began to lead.
	Recovered   bool
	Constraints *schedulerv1.OfferConstraints // nil: none
}

// TaskKey names a task.
type TaskKey struct {
	FrameworkID string
	TaskID      string
}

// TaskView is a task at one moment. It is never changed. It holds pointers to
// what was said of the task, so that whoever needs more can look it up.
type TaskView struct {
	TaskKey
	Name       string
	AgentID    string
	ExecutorID string
	Role       string
	Resources  resource.Resources
	// State is the newest that is known. It may be ahead of Status, while an
	// update waits for the acknowledgement of the one before it.
	State mezzov1.TaskState
	// Status is the newest status that was passed on; nil before the first.
	Status *mezzov1.TaskStatus
	// Earlier are those before it, oldest first; of equal states in a row the
	// last.
	Earlier []*mezzov1.TaskStatus
	// Info is how it was launched; nil when it was learnt from an agent.
	Info *mezzov1.TaskInfo
	// Detail is a serialised mezzo.v1.Task, from the agent; empty when Info is
	// set.
	Detail   []byte
	Launched time.Time // zero when it was learnt from an agent
	Started  time.Time // when it was first seen running
	Finished time.Time
	// Completed: it has ended and will not change again.
	Completed bool
}

// ExecutorKey names an executor.
type ExecutorKey struct {
	FrameworkID string
	ExecutorID  string
	AgentID     string
}

// ExecutorView is an executor that has not exited. It is never changed.
type ExecutorView struct {
	ExecutorKey
	Info      *mezzov1.ExecutorInfo
	Role      string
	Resources resource.Resources // without its tasks'
}

// OperationView is an operation on an agent's resources that an operator waits
// for, or a framework has to acknowledge. It is never changed.
type OperationView struct {
	UUID        string // 16 bytes
	AgentID     string
	FrameworkID string // empty: an operator's
	Info        *mezzov1.Offer_Operation
	// Status is the newest that the agent told; pending before the first.
	Status *mezzov1.OperationStatus
	// Unreachable: the agent is, and the operation has not ended.
	Unreachable bool
}

// OfferView is an outstanding offer. It is never changed.
type OfferView struct {
	ID          string
	FrameworkID string
	AgentID     string
	Hostname    string
	Role        string
	Resources   resource.Resources
	Created     time.Time
}

// RoleView is a role at one moment: one that an operator has set, that a
// framework is subscribed to, or that resources are held in.
type RoleView struct {
	Name      string
	Weight    uint64 // thousandths
	Guarantee resource.Quantities
	Limit     resource.Quantities
	Used      resource.Quantities // scalars, over all agents; without its descendants'
	Offered   resource.Quantities
	// Consumed is what counts toward guarantee and limit: with its descendants',
	// offers and reservations included, revocable and shared resources not.
	Consumed   resource.Quantities
	Frameworks []string
	// WeightSet and QuotaSet: an operator has set them; else they are those of
	// the configuration, if it has any. WeightConfigured: it has
	// a weight other than 1.
	WeightSet, QuotaSet, WeightConfigured bool
}
