package mastertest

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
	schedulerv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1/scheduler"
)

// Scheduler is a framework's scheduler with no comfort: it does what it is
// told, as fast as it can, and many of them share a connection. Its methods
// may be called from any goroutine.
type Scheduler struct {
	// ID is the framework's.
	ID string

	stream string
	calls  grpc.BidiStreamingClient[schedulerv1.Call, schedulerv1.CallResult]
	mu     sync.Mutex // of sending
	sent   uint64
	done   sync.WaitGroup

	answers  sync.Mutex
	answered uint64
	refused  error
	news     chan struct{} // has room for one
}

// SchedulerOptions say who the scheduler is and what it does.
type SchedulerOptions struct {
	Info *mezzov1.FrameworkInfo
	// Suppressed are the roles in which it wants no offers at first.
	Suppressed []string
	// Event is called for every event after SUBSCRIBED, from one goroutine.
	Event func(s *Scheduler, event *schedulerv1.Event)
	// Offers, if set, is called for offers instead, which are not decoded: what
	// is measured then is the master, and not the many schedulers beside it.
	Offers func(s *Scheduler, offers Sealed)
}

// Subscribe subscribes over conn; ctx ends the subscription.
func Subscribe(ctx context.Context, conn grpc.ClientConnInterface, o SchedulerOptions) (*Scheduler, error) {
	events, err := openEvents(ctx, conn, &schedulerv1.Call_Subscribe{FrameworkInfo: o.Info, SuppressedRoles: o.Suppressed})
	if err != nil {
		return nil, err
	}
	sealed, err := events.receive()
	if err != nil {
		return nil, fmt.Errorf("subscribe: %w", err)
	}
	first, err := sealed.open()
	if err != nil {
		return nil, fmt.Errorf("subscribe: %w", err)
	}
	if first.GetType() != schedulerv1.Event_SUBSCRIBED {
		return nil, fmt.Errorf("subscribe: the first event is %v", first)
	}
	s := &Scheduler{ID: first.GetSubscribed().GetFrameworkId().GetValue(), stream: first.GetSubscribed().GetStreamId(), news: make(chan struct{}, 1)}
	if s.calls, err = schedulerv1.NewSchedulerClient(conn).Calls(ctx); err != nil {
		return nil, err
	}
	s.done.Go(func() {
		for {
			sealed, err := events.receive()
			if err != nil {
				return
			}
			if o.Offers != nil && sealed.Count > 0 {
				o.Offers(s, sealed)
				continue
			}
			event, err := sealed.open()
			if err != nil {
				return
			}
			o.Event(s, event)
		}
	})
	s.done.Go(s.results)
	return s, nil
}

func (s *Scheduler) results() {
	for {
		result, err := s.calls.Recv()
		s.answers.Lock()
		switch {
		case err != nil:
			s.refused = errors.Join(s.refused, err)
		default:
			s.answered++
			if result.GetCode() != schedulerv1.CallResult_ACCEPTED && s.refused == nil {
				s.refused = fmt.Errorf("call %d: %s: %s", result.GetSequence(), result.GetCode(), result.GetMessage())
			}
		}
		s.answers.Unlock()
		select {
		case s.news <- struct{}{}:
		default:
		}
		if err != nil {
			return
		}
	}
}

// Call sends a call and does not wait for its answer.
func (s *Scheduler) Call(call *schedulerv1.Call) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sent++
	call.FrameworkId = &mezzov1.FrameworkID{Value: proto.String(s.ID)}
	call.StreamId, call.Sequence = proto.String(s.stream), proto.Uint64(s.sent)
	_ = s.calls.Send(call) // results learns that the stream has ended
}

// Settled waits until all calls are answered; it must not be called by two at
// a time. It returns the first refusal.
func (s *Scheduler) Settled(ctx context.Context) error {
	s.mu.Lock()
	sent := s.sent
	s.mu.Unlock()
	for {
		s.answers.Lock()
		answered, err := s.answered, s.refused
		s.answers.Unlock()
		if err != nil || answered >= sent {
			return err
		}
		select {
		case <-s.news:
		case <-ctx.Done():
			return fmt.Errorf("%d of %d calls are answered: %w", answered, sent, ctx.Err())
		}
	}
}

// Wait returns when the subscription has ended.
func (s *Scheduler) Wait() { s.done.Wait() }

// Acknowledge acknowledges an update, if it wants that.
func (s *Scheduler) Acknowledge(status *mezzov1.TaskStatus) {
	if len(status.GetUuid()) > 0 {
		s.Call(&schedulerv1.Call{Type: schedulerv1.Call_ACKNOWLEDGE.Enum(), Acknowledge: &schedulerv1.Call_Acknowledge{
			AgentId: status.GetAgentId(), TaskId: status.GetTaskId(), Uuid: status.GetUuid(),
		}})
	}
}

// Accept accepts offers of one agent with these tasks, none: gives them back.
// What is left is refused for so many seconds.
func (s *Scheduler) Accept(offer *mezzov1.Offer, tasks []*mezzov1.TaskInfo, refuse float64) {
	accept := &schedulerv1.Call_Accept{OfferIds: []*mezzov1.OfferID{offer.GetId()}, Filters: &mezzov1.Filters{RefuseSeconds: proto.Float64(refuse)}}
	if len(tasks) > 0 {
		accept.Operations = []*mezzov1.Offer_Operation{{
			Type: mezzov1.Offer_Operation_LAUNCH.Enum(), Launch: &mezzov1.Offer_Operation_Launch{TaskInfos: tasks},
		}}
	}
	s.Call(&schedulerv1.Call{Type: schedulerv1.Call_ACCEPT.Enum(), Accept: accept})
}

// Decline gives offers back; they are refused for so many seconds.
func (s *Scheduler) Decline(offers []*mezzov1.OfferID, refuse float64) {
	s.Call(&schedulerv1.Call{Type: schedulerv1.Call_DECLINE.Enum(), Decline: &schedulerv1.Call_Decline{
		OfferIds: offers, Filters: &mezzov1.Filters{RefuseSeconds: proto.Float64(refuse)},
	}})
}

// Suppress asks for no more offers.
func (s *Scheduler) Suppress() {
	s.Call(&schedulerv1.Call{Type: schedulerv1.Call_SUPPRESS.Enum(), Suppress: &schedulerv1.Call_Suppress{}})
}

// Revive asks for offers again and drops all filters.
func (s *Scheduler) Revive() {
	s.Call(&schedulerv1.Call{Type: schedulerv1.Call_REVIVE.Enum(), Revive: &schedulerv1.Call_Revive{}})
}

// Info is a framework that lives for an hour without its scheduler.
func Info(name string) *mezzov1.FrameworkInfo {
	return &mezzov1.FrameworkInfo{
		User: proto.String("nobody"), Name: proto.String(name), Roles: []string{"*"}, FailoverTimeout: proto.Float64(3600),
		Capabilities: []*mezzov1.FrameworkInfo_Capability{{Type: mezzov1.FrameworkInfo_Capability_MULTI_ROLE.Enum()}},
	}
}

// Task is a command task.
func Task(id string, agent *mezzov1.AgentID, resources []*mezzov1.Resource) *mezzov1.TaskInfo {
	return &mezzov1.TaskInfo{
		Name: proto.String("t"), TaskId: &mezzov1.TaskID{Value: proto.String(id)}, AgentId: agent,
		Resources: resources, Command: &mezzov1.CommandInfo{Value: proto.String("true")},
	}
}
