package state

import (
	"github.com/mezzo-os/mezzo/sdk/allocator"

	linkv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/link/v1"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
	schedulerv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1/scheduler"
)

// Output is something that the shell must do: one of the types below.
type Output interface{ output() }

// SendAgent: send the message on the link. A link that is gone is no error.
// When the link's queue is full the shell closes it and tells LinkClosed.
type SendAgent struct {
	Link    Link
	Message *linkv1.MasterMessage
}

// CloseAgent: end the link, after what was sent. No LinkClosed is expected.
type CloseAgent struct {
	Link   Link
	Reason string
}

// SendScheduler: send the event on the stream. Offers go by SendOffers.
type SendScheduler struct {
	Stream Stream
	Event  *schedulerv1.Event
}

// SendOffers: send an event of type OFFERS on the stream.
type SendOffers struct {
	Stream Stream
	// Offers is the event's field of offers, as it goes over the wire. It is
	// never changed.
	Offers []byte
}

// Event returns the event to be sent. Its offers are there as a field of which
// nothing is known, which is sent as it is; who wants to read them decodes the
// encoded event.
func (o SendOffers) Event() *schedulerv1.Event {
	event := &schedulerv1.Event{Type: schedulerv1.Event_OFFERS.Enum()}
	event.ProtoReflect().SetUnknown(o.Offers)
	return event
}

// CloseScheduler: end the stream, after what was sent. No StreamClosed is
// expected.
type CloseScheduler struct {
	Stream Stream
	Reason string
}

// CallResult answers one SchedulerCall.
type CallResult struct {
	Caller Caller
	Result *schedulerv1.CallResult
}

// AllocatorBegin is the first message of the session.
type AllocatorBegin struct {
	Session Session
	Begin   allocator.Begin
}

// AllocatorBatch is the next batch of the session's events. A batch outside the
// snapshot may have no events: then it only tells DecisionsSeen.
type AllocatorBatch struct {
	Session Session
	Batch   allocator.Batch
}

// CloseAllocator: the allocator does not do its part; end the stream (and open
// another). No AllocatorClosed is expected.
type CloseAllocator struct {
	Session Session
	Reason  string
}

// AllocatorCurrent: the session that prepared is the current one from this step
// on. The stream of the one that it replaced (0: there was none) is to be ended;
// no AllocatorClosed is expected of it.
type AllocatorCurrent struct {
	Session  Session
	Replaced Session
}

// Revoked tells that a task was asked to end since the allocator took its
// resources back: for metrics.
type Revoked struct {
	Task    TaskKey
	AgentID string
	Role    string
}

// RegistryWrite: write the entries in order, then tell RegistryWritten. Each is
// written whole, and after an error all are written again; who reads meanwhile may
// find a part of them. At most one is under way at a time.
type RegistryWrite struct {
	ID      uint64
	Entries []Entry
}

// Publish tells what changed in what others may see. Views are immutable.
// Changes are in the order of their kinds as listed; each id is at most once
// in a list.
type Publish struct {
	Agents            []*AgentView
	AgentsRemoved     []string
	Frameworks        []*FrameworkView
	FrameworksRemoved []string
	Executors         []*ExecutorView
	ExecutorsRemoved  []ExecutorKey
	Operations        []*OperationView
	OperationsRemoved []string // by their UUID
	Tasks             []*TaskView
	TasksRemoved      []TaskKey
	Offers            []*OfferView
	OffersRemoved     []string
	Roles             []*RoleView
	RolesRemoved      []string
	// OperationEnds are operations whose outcome became known, each once.
	OperationEnds []OperationEnd
	// Schedule is the maintenance schedule; nil: it has not changed.
	Schedule *ScheduleView
}

// OperationEnd is what came of an operation.
type OperationEnd struct {
	Type  mezzov1.Offer_Operation_Type
	State mezzov1.OperationState
}

// Reply answers an operator's order. Err is nil when it was carried out; then
// Warnings say what the operator may not have meant.
type Reply struct {
	Request  Request
	Err      *OrderError
	Warnings []string
	// Explanation answers Explain.
	Explanation *Explanation
}

// OrderErrorCode says what kind of error an order met.
type OrderErrorCode int

// The kinds of errors; the shell maps them to gRPC codes.
const (
	OrderNotFound OrderErrorCode = iota + 1
	OrderInvalid
	OrderAmbiguous
	// OrderRefused: it could be carried out, and it would do harm.
	OrderRefused
	// OrderLost: nobody knows whether it was carried out.
	OrderLost
)

// OrderError says why an order was not carried out.
type OrderError struct {
	Code    OrderErrorCode
	Message string
}

func (e *OrderError) Error() string { return e.Message }

// Level of a log line.
type Level int

// The levels, lowest first.
const (
	Debug Level = iota
	Info
	Warn
	Error
)

// Log is one fact for the log. Fields are name, value, name, value…; values
// are strings, integers, durations or resources.
type Log struct {
	Level   Level
	Message string
	Fields  []any
}

func (SendAgent) output()        {}
func (CloseAgent) output()       {}
func (SendScheduler) output()    {}
func (SendOffers) output()       {}
func (CloseScheduler) output()   {}
func (CallResult) output()       {}
func (AllocatorBegin) output()   {}
func (AllocatorBatch) output()   {}
func (CloseAllocator) output()   {}
func (AllocatorCurrent) output() {}
func (Revoked) output()          {}
func (RegistryWrite) output()    {}
func (Publish) output()          {}
func (Reply) output()            {}
func (Log) output()              {}
