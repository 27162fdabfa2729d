package state

import (
	"time"

	"github.com/mezzo-os/mezzo/sdk/allocator"
	"github.com/mezzo-os/mezzo/sdk/resource"

	linkv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/link/v1"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
	schedulerv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1/scheduler"
)

// Names that the shell gives, each used once.
type (
	// Link is one stream of one agent.
	Link uint64
	// Stream is one subscription of a scheduler; it is told to the scheduler
	// as Event.Subscribed.stream_id, so it should not be guessable.
	Stream string
	// Caller is one stream of scheduler calls (or one HTTP connection's calls).
	Caller uint64
	// Request is one order of an operator.
	Request uint64
	// Session is one stream to the allocator.
	Session uint64
)

// Input is something that happened: one of the types below.
type Input interface{ input() }

// Tick says that a deadline has come (see Machine.NextDeadline). A Tick too
// many does no harm.
type Tick struct{}

// LinkOpened: an agent opened a stream; its Register is to follow.
type LinkOpened struct {
	Link Link
	// Peer is where it comes from, for the log.
	Peer string
}

// LinkMessage: an agent sent a message.
type LinkMessage struct {
	Link    Link
	Message *linkv1.AgentMessage
}

// LinkClosed: an agent's stream ended, for any reason but CloseAgent.
type LinkClosed struct {
	Link   Link
	Reason string
}

// Subscribe: a scheduler asked for a stream. The answers are SendScheduler
// outputs to the stream: SUBSCRIBED, or ERROR followed by CloseScheduler.
type Subscribe struct {
	Stream Stream
	Call   *schedulerv1.Call_Subscribe
	// Principal is who it proved to be; empty when nobody asked.
	Principal string
	// Adapter is the framework adapter that it came through; empty: none.
	Adapter string
}

// SchedulerCall: a scheduler called. Each is answered, in the same step, by
// one CallResult.
type SchedulerCall struct {
	Caller Caller
	Call   *schedulerv1.Call
	// Principal is who it proved to be; empty when nobody asked.
	Principal string
	// Denied says, by their ids, why tasks of an ACCEPT must not run as the users
	// that they name. Each of them ends with TASK_ERROR; what else is in the
	// ACCEPT is carried out.
	Denied map[string]string
	// DeniedOperations says why operations of an ACCEPT are not allowed, by their
	// places in it. They end with OPERATION_ERROR.
	DeniedOperations map[int]string
}

// StreamClosed: a scheduler's stream ended, for any reason but CloseScheduler.
type StreamClosed struct {
	Stream Stream
	Reason string
	// AdapterLost: it ended because its adapter was lost, not the scheduler.
	AdapterLost bool
}

// AdapterUp: a framework adapter of this master serves, for the first time in
// this term or again.
type AdapterUp struct{ Adapter string }

// AdapterDown: an adapter does not serve any more. It is being started again;
// until it serves, at most ten minutes, its frameworks cannot come back, and
// their failover clocks do not run.
type AdapterDown struct{ Adapter string }

// AllocatorOpened: a new stream to the allocator is open. An older session, if
// there is one, is over: its decisions are ignored from now on.
//
// With Prepare the session is one that is to take over from the current one,
// which goes on meanwhile: it is sent its snapshot and the events since, and
// becomes current, as an AllocatorCurrent output tells, once it is ready and
// less than 100 ms behind. Until then its decisions are refused, and whatever
// becomes of it does not concern the current one.
type AllocatorOpened struct {
	Session Session
	Prepare bool
	// Config, with Prepare, counts from the moment that the session is current;
	// see Reconfigure. Nil: what counts now.
	Config *Config
}

// AllocatorReady: the allocator has applied the snapshot. When one message of
// the allocator says so and brings decisions too, this input comes first.
type AllocatorReady struct {
	Session    Session
	EventsSeen uint64
}

// AllocatorSeen: the allocator has applied all events up to this one. The
// machine wants to know while a session prepares; at other times it does no
// harm.
type AllocatorSeen struct {
	Session    Session
	EventsSeen uint64
}

// AllocatorDecisions are proposals, in the order of their numbers. One that
// the codec could not read is a Malformed.
type AllocatorDecisions struct {
	Session    Session
	EventsSeen uint64
	Decisions  []allocator.Decision
}

// Malformed stands for a decision that the codec could not read (an
// allocator.UnknownError, or an unknown form); it is refused with this reason,
// REFUSAL_REASON_MALFORMED when it is zero, and this message.
type Malformed struct {
	Number  uint64
	Reason  allocator.RefusalReason
	Message string
}

// DecisionNumber implements allocator.Decision.
func (d *Malformed) DecisionNumber() uint64 { return d.Number }

// AllocatorClosed: the stream to the allocator ended.
type AllocatorClosed struct {
	Session Session
	Reason  string
}

// RegistryWritten answers a RegistryWrite. After a failure the machine tries
// again, later; a shell whose leadership is over throws the machine away
// instead of telling it.
type RegistryWritten struct {
	ID uint64
	// Err is empty when the write is durable.
	Err string
}

// PublishNow is a reader's wish to see everything up to now: what changed is
// published before the Reply.
type PublishNow struct{ Request Request }

// Reconfigure is an operator's order: the configuration has changed. Of Config
// counts what may change while a master leads: OfferTimeout, BatchInterval,
// MinRefuse, MaxDecisionsPerSecond, MinAllocatable, FilterGPUResources (the
// allocator learns of these five with its next session only, unlike TellTasks), Revocation, UnreachablePerMinute, MaxCompletedFrameworks,
// MaxCompletedTasks, MaxUnreachableTasks, MaxAwayAgents, and the first values of roles. It is answered by Reply;
// with an error nothing has changed.
type Reconfigure struct {
	Request Request
	Config  Config
}

// DrainAgent is an operator's order: take an agent out of service and end its
// tasks. It is durable; the reply comes when it is written and the agent has been
// told, if it is there. How far it is, its view tells.
type DrainAgent struct {
	Request Request
	AgentID string
	// MaxGrace is the most time that a task is given; nil: its own kill policy.
	MaxGrace *time.Duration
	// MarkGone: when it is drained, it is gone for good.
	MarkGone bool
}

// DeactivateAgent is an operator's order: do not offer an agent any more. It is
// durable; its tasks run on.
type DeactivateAgent struct {
	Request Request
	AgentID string
}

// ReactivateAgent is an operator's order: an agent that was deactivated, or is
// drained, is in service again.
type ReactivateAgent struct {
	Request Request
	AgentID string
}

// MarkAgentGone is an operator's order: give an agent up for good. Its tasks have
// ended by it; should it be there, or come back, it is told to end them.
type MarkAgentGone struct {
	Request Request
	AgentID string
}

// SetSchedule is an operator's order: replace the maintenance schedule, durably.
// Offers of agents on its machines tell of the windows, and frameworks that hold
// something there are asked to leave; nothing is killed for it.
type SetSchedule struct {
	Request Request
	Windows []Window
}

// SetMaintenance is an operator's order: take machines of the schedule down, so
// that their agents end, or up again, and out of the schedule.
type SetMaintenance struct {
	Request  Request
	Machines []MachineID
	Down     bool
}

// ApplyOperation is an operator's order: change what resources of an agent are.
// What is offered is taken back for it. The reply comes when the agent has
// carried it out, refused it, or gone away.
type ApplyOperation struct {
	Request   Request
	AgentID   string
	Operation *mezzov1.Offer_Operation
	// Principal is who the operator proved to be; empty when nobody asked.
	Principal string
}

// Explain is an operator's question: why is a framework not offered more? The
// Reply has what the machine knows, with nothing of a framework that it does
// not know.
type Explain struct {
	Request     Request
	FrameworkID string
}

// KillTask is an operator's order: end a task as its framework could. It is
// answered by Reply.
type KillTask struct {
	Request Request
	TaskID  string
	// FrameworkID may be empty when only one framework has such a task.
	FrameworkID string
}

// Teardown is an operator's order: end a framework and all its tasks.
type Teardown struct {
	Request     Request
	FrameworkID string
}

// SetQuota is an operator's order: set a role's guarantee, limit or both,
// durably. The reply comes when it is written, perhaps with warnings. It is
// refused when it makes no sense in the tree of roles, or when the role uses
// more than the limit already and Force is not set; offers beyond the limit are
// taken back either way.
type SetQuota struct {
	Request Request
	Role    string
	// Guarantee and Limit are the new ones; nil: it stays as it is. One that is
	// empty means none. A limit may hold zeros, which forbid.
	Guarantee, Limit *resource.Quantities
	Force            bool
}

// RemoveQuota is an operator's order: forget what operators have set of a
// role's quota. What the configuration says counts again.
type RemoveQuota struct {
	Request Request
	Role    string
}

// SetWeights is an operator's order: set the weights of roles, durably; all of
// them or none.
type SetWeights struct {
	Request Request
	Weights []RoleWeight
}

// RoleWeight is a role's weight in thousandths; 0: that of the configuration,
// or else 1000.
type RoleWeight struct {
	Role   string
	Weight uint64
}

func (Tick) input()               {}
func (LinkOpened) input()         {}
func (LinkMessage) input()        {}
func (LinkClosed) input()         {}
func (Subscribe) input()          {}
func (SchedulerCall) input()      {}
func (StreamClosed) input()       {}
func (AdapterUp) input()          {}
func (AdapterDown) input()        {}
func (AllocatorOpened) input()    {}
func (AllocatorReady) input()     {}
func (AllocatorSeen) input()      {}
func (AllocatorDecisions) input() {}
func (AllocatorClosed) input()    {}
func (RegistryWritten) input()    {}
func (PublishNow) input()         {}
func (Reconfigure) input()        {}
func (KillTask) input()           {}
func (Teardown) input()           {}
func (SetQuota) input()           {}
func (RemoveQuota) input()        {}
func (Explain) input()            {}
func (ApplyOperation) input()     {}
func (DrainAgent) input()         {}
func (DeactivateAgent) input()    {}
func (ReactivateAgent) input()    {}
func (MarkAgentGone) input()      {}
func (SetSchedule) input()        {}
func (SetMaintenance) input()     {}
func (SetWeights) input()         {}
