package framework

import (
	"context"

	"google.golang.org/protobuf/proto"

	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
	schedulerv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1/scheduler"
)

// Send makes a call and does not wait: the channel brings its result, once.
// Calls are carried out in the order of Send. The scheduler fills in framework
// id, stream id and sequence; the call must not be used again.
func (s *Scheduler) Send(call *schedulerv1.Call) <-chan error {
	s.mu.Lock()
	sub, id := s.subscription, s.info.GetId().GetValue()
	s.mu.Unlock()
	if sub == nil {
		result := make(chan error, 1)
		result <- ErrNotSubscribed
		return result
	}
	return sub.send(call, id)
}

// Call makes a call and waits for its result: nil when the master accepted it,
// a *CallError when not, ErrNotSubscribed when the subscription was lost. What
// comes of an accepted call comes as events.
func (s *Scheduler) Call(ctx context.Context, call *schedulerv1.Call) error {
	if parent, _ := ctx.Value(traceKey{}).(string); parent != "" && call.Traceparent == nil {
		call.Traceparent = proto.String(parent)
	}
	select {
	case err := <-s.Send(call):
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

type traceKey struct{}

// WithTraceparent has the calls that are made with the context tell the master
// what trace they belong to, as W3C Trace Context's traceparent: a master that
// traces tells of what they launch there.
//
//	carrier := propagation.MapCarrier{}
//	propagation.TraceContext{}.Inject(ctx, carrier)
//	err := s.Launch(framework.WithTraceparent(ctx, carrier["traceparent"]), offer, task)
func WithTraceparent(ctx context.Context, traceparent string) context.Context {
	return context.WithValue(ctx, traceKey{}, traceparent)
}

// Launch accepts the offer and starts tasks on it; what they leave of it is
// free again. The tasks' AgentId is filled in when it is unset.
func (s *Scheduler) Launch(ctx context.Context, offer *mezzov1.Offer, tasks ...*mezzov1.TaskInfo) error {
	for _, task := range tasks {
		if task.AgentId == nil {
			task.AgentId = offer.GetAgentId()
		}
	}
	return s.Accept(ctx, []*mezzov1.OfferID{offer.GetId()}, []*mezzov1.Offer_Operation{{
		Type:   mezzov1.Offer_Operation_LAUNCH.Enum(),
		Launch: &mezzov1.Offer_Operation_Launch{TaskInfos: tasks},
	}}, nil)
}

// Accept carries out operations, in order, on offers of one agent. Filters say
// for how long what is left is not wanted; nil: 5 s.
func (s *Scheduler) Accept(ctx context.Context, offers []*mezzov1.OfferID, operations []*mezzov1.Offer_Operation, filters *mezzov1.Filters) error {
	return s.Call(ctx, &schedulerv1.Call{
		Type:   schedulerv1.Call_ACCEPT.Enum(),
		Accept: &schedulerv1.Call_Accept{OfferIds: offers, Operations: operations, Filters: filters},
	})
}

// Decline gives offers back. Filters say for how long what was offered is not
// wanted; nil: 5 s.
func (s *Scheduler) Decline(ctx context.Context, filters *mezzov1.Filters, offers ...*mezzov1.OfferID) error {
	return s.Call(ctx, &schedulerv1.Call{
		Type:    schedulerv1.Call_DECLINE.Enum(),
		Decline: &schedulerv1.Call_Decline{OfferIds: offers, Filters: filters},
	})
}

// AnswerInverse says whether the framework will leave the agents of inverse
// offers. Filters say for how long it does not want to be asked again; nil: 5 s.
func (s *Scheduler) AnswerInverse(ctx context.Context, willLeave bool, filters *mezzov1.Filters, offers ...*mezzov1.OfferID) error {
	call := &schedulerv1.Call{
		Type:                 schedulerv1.Call_DECLINE_INVERSE_OFFERS.Enum(),
		DeclineInverseOffers: &schedulerv1.Call_DeclineInverseOffers{InverseOfferIds: offers, Filters: filters},
	}
	if willLeave {
		call = &schedulerv1.Call{
			Type:                schedulerv1.Call_ACCEPT_INVERSE_OFFERS.Enum(),
			AcceptInverseOffers: &schedulerv1.Call_AcceptInverseOffers{InverseOfferIds: offers, Filters: filters},
		}
	}
	return s.Call(ctx, call)
}

// Kill asks a task to end. Policy overrides the task's own kill policy; it may
// be nil.
func (s *Scheduler) Kill(ctx context.Context, taskID string, policy *mezzov1.KillPolicy) error {
	return s.Call(ctx, &schedulerv1.Call{
		Type: schedulerv1.Call_KILL.Enum(),
		Kill: &schedulerv1.Call_Kill{TaskId: &mezzov1.TaskID{Value: proto.String(taskID)}, KillPolicy: policy},
	})
}

// Suppress asks for no more offers in these roles; none: in all. It holds for
// later subscriptions too.
func (s *Scheduler) Suppress(ctx context.Context, roles ...string) error {
	err := s.Call(ctx, &schedulerv1.Call{Type: schedulerv1.Call_SUPPRESS.Enum(), Suppress: &schedulerv1.Call_Suppress{Roles: roles}})
	if err == nil {
		s.remember(roles, true)
	}
	return err
}

// Revive asks for offers in these roles again, and drops all filters in them;
// none: in all.
func (s *Scheduler) Revive(ctx context.Context, roles ...string) error {
	err := s.Call(ctx, &schedulerv1.Call{Type: schedulerv1.Call_REVIVE.Enum(), Revive: &schedulerv1.Call_Revive{Roles: roles}})
	if err == nil {
		s.remember(roles, false)
	}
	return err
}

// remember keeps what the next subscription has to say of suppressed roles.
func (s *Scheduler) remember(roles []string, suppressed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(roles) == 0 {
		roles = rolesOf(s.info)
	}
	changed := make(map[string]bool, len(roles))
	for _, role := range roles {
		changed[role] = true
	}
	var kept []string
	for _, role := range s.suppressed {
		if !changed[role] {
			kept = append(kept, role)
		}
	}
	if suppressed {
		kept = append(kept, roles...)
	}
	s.suppressed = kept
}

func rolesOf(info *mezzov1.FrameworkInfo) []string {
	if len(info.GetRoles()) > 0 {
		return info.GetRoles()
	}
	return []string{info.GetRole()}
}

// Reconcile asks for the newest state of these tasks, which come as updates;
// none: of all that the master knows.
func (s *Scheduler) Reconcile(ctx context.Context, tasks ...*schedulerv1.Call_Reconcile_Task) error {
	return s.Call(ctx, &schedulerv1.Call{
		Type: schedulerv1.Call_RECONCILE.Enum(), Reconcile: &schedulerv1.Call_Reconcile{Tasks: tasks},
	})
}

// Acknowledge tells that an update was taken in, so that the agent may send the
// task's next. Only with Options.ManualAcknowledge. An update that needs no
// acknowledgement is no error.
func (s *Scheduler) Acknowledge(ctx context.Context, status *mezzov1.TaskStatus) error {
	call := acknowledgement(status)
	if call == nil {
		return nil
	}
	return s.Call(ctx, call)
}

// acknowledgement returns nil for an update that the master made itself.
func acknowledgement(status *mezzov1.TaskStatus) *schedulerv1.Call {
	if len(status.GetUuid()) == 0 || status.GetAgentId() == nil {
		return nil
	}
	return &schedulerv1.Call{
		Type: schedulerv1.Call_ACKNOWLEDGE.Enum(),
		Acknowledge: &schedulerv1.Call_Acknowledge{
			AgentId: status.GetAgentId(), TaskId: status.GetTaskId(), Uuid: status.GetUuid(),
		},
	}
}

// Message sends bytes to an executor, best effort.
func (s *Scheduler) Message(ctx context.Context, agent *mezzov1.AgentID, executor *mezzov1.ExecutorID, data []byte) error {
	return s.Call(ctx, &schedulerv1.Call{
		Type: schedulerv1.Call_MESSAGE.Enum(), Message: &schedulerv1.Call_Message{AgentId: agent, ExecutorId: executor, Data: data},
	})
}

// Teardown ends the framework and all its tasks. Run then returns ErrEnded.
func (s *Scheduler) Teardown(ctx context.Context) error {
	return s.Call(ctx, &schedulerv1.Call{Type: schedulerv1.Call_TEARDOWN.Enum()})
}

func frameworkIDOf(id string) *mezzov1.FrameworkID {
	return &mezzov1.FrameworkID{Value: proto.String(id)}
}
