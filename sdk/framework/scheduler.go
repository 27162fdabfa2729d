// Package framework is what a framework written in Go uses of Mezzo: a
// scheduler that finds the leading master, subscribes, subscribes again
// whenever it has to, and makes calls. Authors of adapters, which are plugins
// that speak to frameworks in a dialect of their own or are frameworks
// themselves, begin at Adapter.
//
// Terms. A *scheduler* is the part of a framework that speaks to the master. A
// *subscription* is one stream of events from one master; a scheduler has one
// after the other, under one framework id. An *offer* is resources that the
// scheduler may use until it answers or the master takes the offer back.
//
// Life cycle: New, then Run, which returns when the framework is over. Events
// come to the Callbacks, one at a time, in order. When a subscription is lost,
// all its offers are void, Disconnected is called, and Run subscribes again,
// with the same id, after a pause that grows and is random; then it reconciles,
// so that updates that were missed come as updates. It never goes back to a
// leader older than one that it has seen: each numbers its leadership by an
// epoch, and one that was stopped or cut off may not know yet that another leads.
//
// Example:
//
//	s, err := framework.New(framework.Options{
//		Masters: []string{"127.0.0.1:5061"},
//		Info:    &mezzov1.FrameworkInfo{User: proto.String("nobody"), Name: proto.String("hello")},
//		Callbacks: framework.Callbacks{
//			Offers: func(s *framework.Scheduler, offers []*mezzov1.Offer) { … s.Launch(ctx, offer, task) … },
//			Update: func(s *framework.Scheduler, status *mezzov1.TaskStatus) { … },
//		},
//	})
//	err = s.Run(ctx)
package framework

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/mezzo-os/mezzo/sdk/client"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
	schedulerv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1/scheduler"
)

var (
	// ErrNotSubscribed means that there is no subscription now; Run is making
	// another. The call was not made, or it is unknown whether it was.
	ErrNotSubscribed = errors.New("not subscribed to a master now")
	// ErrEnded means that the master has ended the framework's subscription for
	// good: it was refused, torn down, or taken over by another scheduler.
	ErrEnded = errors.New("the master ended the framework's subscription")
)

// CallError says why the master did not accept a call.
type CallError struct {
	Code    schedulerv1.CallResult_Code
	Message string
}

func (e *CallError) Error() string {
	if e.Message == "" {
		return "the master did not accept the call: " + e.Code.String()
	}
	return fmt.Sprintf("the master did not accept the call: %s: %s", e.Code, e.Message)
}

// Callbacks are how events come to a framework. Each may be nil. They are
// called one at a time, and while one runs no event is read: a scheduler that
// stays behind for long is cut off by the master and has to subscribe again.
// They may make calls.
type Callbacks struct {
	// Subscribed: a subscription has begun. again is false for the first.
	Subscribed func(s *Scheduler, frameworkID string, again bool)
	// Offers are to be answered with Launch, Accept or Decline.
	Offers func(s *Scheduler, offers []*mezzov1.Offer)
	// Rescinded: the offer is void.
	Rescinded func(s *Scheduler, offerID string)
	// InverseOffers ask the framework to leave agents that are going to be
	// unavailable. They are to be answered with AnswerInverse; what the framework
	// has there it has to move or end by itself.
	InverseOffers func(s *Scheduler, offers []*mezzov1.InverseOffer)
	// InverseRescinded: the inverse offer is void.
	InverseRescinded func(s *Scheduler, offerID string)
	// Update: a task has changed its state. The update is acknowledged when
	// the callback returns, unless Options.ManualAcknowledge is set.
	Update func(s *Scheduler, status *mezzov1.TaskStatus)
	// OperationUpdate: an operation has changed its state. It is acknowledged as
	// updates are.
	OperationUpdate func(s *Scheduler, status *mezzov1.OperationStatus)
	// Message: an executor has sent bytes.
	Message func(s *Scheduler, message *schedulerv1.Event_Message)
	// Failure: an agent is gone, or an executor has ended.
	Failure func(s *Scheduler, failure *schedulerv1.Event_Failure)
	// Disconnected: the subscription is over, and all its offers are void.
	Disconnected func(s *Scheduler, err error)
}

// Options of a Scheduler.
type Options struct {
	// Masters are the addresses, host:port, of all masters, or of some: one that
	// does not lead tells who does.
	Masters []string
	// Resolve, when set, is used instead of Masters: it is asked for their
	// addresses before each attempt. It may look them up wherever the framework
	// keeps them.
	Resolve func(ctx context.Context) ([]string, error)
	// Master, when set, is used instead of Masters: a framework within an adapter
	// gives its Core.Conn. While that master does not lead, the scheduler waits.
	Master grpc.ClientConnInterface
	// TLS is the client's side of mutual TLS; nil: plain text.
	TLS *tls.Config
	// Info is what the framework is. With Id set, the framework that has the id
	// goes on, and a scheduler that has it now is told so and ends. User and
	// Name are required.
	Info *mezzov1.FrameworkInfo
	// SuppressedRoles are roles in which no offers are wanted at first.
	SuppressedRoles []string
	// OfferConstraints narrow the agents that are offered; nil: all.
	OfferConstraints *schedulerv1.OfferConstraints
	Callbacks        Callbacks
	// ManualAcknowledge leaves acknowledging updates to the framework, which
	// can first make durable what it learnt. See Scheduler.Acknowledge.
	ManualAcknowledge bool
	// Logger gets what happens to the connection; nil: nothing is logged.
	Logger *slog.Logger
	// BackoffMin and BackoffMax bound the pause before another attempt; 0:
	// 100 ms and 10 s.
	BackoffMin, BackoffMax time.Duration
}

// Scheduler is a framework's connection to the cluster. Its methods may be
// called from any goroutine.
type Scheduler struct {
	options Options
	logger  *slog.Logger

	mu           sync.Mutex
	info         *mezzov1.FrameworkInfo // with the id, once there is one; never changed, only replaced
	suppressed   []string
	subscription *subscription // nil while there is none
	subscribed   bool          // there has been one

	epochs client.Epochs // of the leaders that it has seen
}

// New returns a scheduler that Run will connect.
func New(o Options) (*Scheduler, error) {
	switch {
	case len(o.Masters) == 0 && o.Master == nil && o.Resolve == nil:
		return nil, errors.New("framework: Options.Masters is empty; give a master's address, host:port")
	case o.Info == nil || o.Info.User == nil || o.Info.Name == nil:
		return nil, errors.New("framework: Options.Info needs User and Name")
	}
	if o.BackoffMin <= 0 {
		o.BackoffMin = 100 * time.Millisecond
	}
	if o.BackoffMax <= 0 {
		o.BackoffMax = 10 * time.Second
	}
	logger := o.Logger
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	return &Scheduler{
		options: o, logger: logger, info: proto.CloneOf(o.Info), suppressed: o.SuppressedRoles,
	}, nil
}

// FrameworkID returns the framework's id; empty before the first subscription.
func (s *Scheduler) FrameworkID() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.info.GetId().GetValue()
}

// Run connects, and stays connected until ctx ends (it returns nil) or the
// master ends the subscription for good (ErrEnded with the reason). The
// framework is not torn down by the end of Run: within its failover timeout
// its tasks run on and another Run may take it up. Run must not be called
// twice at a time.
func (s *Scheduler) Run(ctx context.Context) error {
	pause := s.options.BackoffMin
	for {
		began, err := s.subscribe(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if errors.Is(err, ErrEnded) {
			return err
		}
		if began {
			pause = s.options.BackoffMin
		}
		s.logger.Warn("not subscribed; trying again", "pause", pause, "error", err)
		// Half of the pause is random, so that frameworks of one cluster do not
		// all come back at the same moment.
		select {
		case <-time.After(pause/2 + rand.N(pause/2+1)):
		case <-ctx.Done():
			return nil
		}
		pause = min(2*pause, s.options.BackoffMax)
	}
}

// subscribe makes one subscription and serves it to its end. began tells
// whether it came about.
func (s *Scheduler) subscribe(ctx context.Context) (began bool, err error) {
	master := s.options.Master
	if master == nil {
		masters := s.options.Masters
		if s.options.Resolve != nil {
			if masters, err = s.options.Resolve(ctx); err != nil {
				return false, err
			}
		}
		conn, err := client.Leader(ctx, masters, client.Options{TLS: s.options.TLS, Epochs: &s.epochs})
		if err != nil {
			return false, err
		}
		defer conn.Close()
		master = conn
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	sub, err := s.open(ctx, cancel, schedulerv1.NewSchedulerClient(master))
	if err != nil {
		return false, err
	}
	defer func() {
		s.mu.Lock()
		s.subscription = nil
		s.mu.Unlock()
		sub.finish()
		if called := s.options.Callbacks.Disconnected; called != nil {
			called(s, err)
		}
	}()
	return true, s.serve(sub)
}

// open subscribes and opens the stream of calls.
func (s *Scheduler) open(ctx context.Context, cancel context.CancelFunc, master schedulerv1.SchedulerClient) (*subscription, error) {
	s.mu.Lock()
	call := &schedulerv1.Call_Subscribe{
		FrameworkInfo: s.info, SuppressedRoles: s.suppressed, OfferConstraints: s.options.OfferConstraints,
	}
	again := s.subscribed
	s.mu.Unlock()
	events, err := master.Subscribe(ctx, call)
	if err != nil {
		return nil, ended(err, nil)
	}
	first, err := events.Recv()
	switch {
	case err != nil:
		return nil, ended(err, nil)
	case first.GetType() == schedulerv1.Event_ERROR:
		_, err := events.Recv()
		return nil, ended(err, first.GetError())
	case first.GetType() != schedulerv1.Event_SUBSCRIBED:
		return nil, fmt.Errorf("the master's first event is %s, not SUBSCRIBED", first.GetType())
	}
	told := first.GetSubscribed()
	if err := s.epochs.Admit(told.GetEpoch()); err != nil {
		return nil, fmt.Errorf("the master %s cannot be believed: %w", told.GetMasterInfo().GetId(), err)
	}
	calls, err := master.Calls(ctx)
	if err != nil {
		return nil, err
	}
	sub := newSubscription(events, calls, cancel, told, s.logger)
	sub.again = again
	s.mu.Lock()
	s.info = proto.CloneOf(s.info)
	s.info.Id = told.GetFrameworkId()
	s.subscription, s.subscribed = sub, true
	s.mu.Unlock()
	s.logger.Info("subscribed", "framework_id", told.GetFrameworkId().GetValue(), "again", again)
	return sub, nil
}

// ended returns why a subscription is over. An ERROR, or a refusal that
// another attempt cannot change, is for good; a master that is slow, full or
// gone is not.
func ended(err error, told *schedulerv1.Event_Error) error {
	reason := status.Convert(err).Message()
	if told != nil {
		reason = told.GetMessage()
	}
	switch code := status.Code(err); {
	case code == codes.ResourceExhausted, code == codes.Unavailable:
		return fmt.Errorf("the subscription ended: %s", reason)
	case told != nil, code == codes.InvalidArgument, code == codes.PermissionDenied, code == codes.Unauthenticated, code == codes.Unimplemented:
		return fmt.Errorf("%w: %s", ErrEnded, reason)
	default:
		return fmt.Errorf("the subscription ended: %s", reason)
	}
}

// serve gives the events to the callbacks until the subscription ends.
func (s *Scheduler) serve(sub *subscription) error {
	if called := s.options.Callbacks.Subscribed; called != nil {
		called(s, s.FrameworkID(), sub.again)
	}
	if sub.again {
		// Updates may have been missed: ask for the newest of every task.
		sub.send(&schedulerv1.Call{Type: schedulerv1.Call_RECONCILE.Enum(), Reconcile: &schedulerv1.Call_Reconcile{}}, s.FrameworkID())
	}
	alive := sub.watch()
	defer alive.stop()
	var told *schedulerv1.Event_Error
	for {
		event, err := sub.events.Recv()
		if err != nil {
			return ended(err, told)
		}
		alive.pause()
		if event.GetType() == schedulerv1.Event_ERROR {
			told = event.GetError() // the stream's end follows
		} else {
			s.dispatch(sub, event)
		}
		alive.resume()
	}
}

func (s *Scheduler) dispatch(sub *subscription, event *schedulerv1.Event) {
	c := &s.options.Callbacks
	switch event.GetType() {
	case schedulerv1.Event_OFFERS:
		if c.Offers != nil {
			c.Offers(s, event.GetOffers().GetOffers())
		}
	case schedulerv1.Event_RESCIND:
		if c.Rescinded != nil {
			c.Rescinded(s, event.GetRescind().GetOfferId().GetValue())
		}
	case schedulerv1.Event_INVERSE_OFFERS:
		if c.InverseOffers != nil {
			c.InverseOffers(s, event.GetInverseOffers().GetInverseOffers())
		}
	case schedulerv1.Event_RESCIND_INVERSE_OFFER:
		if c.InverseRescinded != nil {
			c.InverseRescinded(s, event.GetRescindInverseOffer().GetInverseOfferId().GetValue())
		}
	case schedulerv1.Event_UPDATE:
		status := event.GetUpdate().GetStatus()
		if c.Update != nil {
			c.Update(s, status)
		}
		if !s.options.ManualAcknowledge {
			if call := acknowledgement(status); call != nil {
				sub.send(call, s.FrameworkID())
			}
		}
	case schedulerv1.Event_UPDATE_OPERATION_STATUS:
		if c.OperationUpdate != nil {
			c.OperationUpdate(s, event.GetUpdateOperationStatus().GetStatus())
		}
		if !s.options.ManualAcknowledge {
			if call := operationAcknowledgement(event.GetUpdateOperationStatus().GetStatus()); call != nil {
				sub.send(call, s.FrameworkID())
			}
		}
	case schedulerv1.Event_MESSAGE:
		if c.Message != nil {
			c.Message(s, event.GetMessage())
		}
	case schedulerv1.Event_FAILURE:
		if c.Failure != nil {
			c.Failure(s, event.GetFailure())
		}
	}
}
