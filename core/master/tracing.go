package master

import (
	"time"

	"go.opentelemetry.io/otel/codes"
	oteltrace "go.opentelemetry.io/otel/trace"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/mezzo-os/mezzo/core/master/state"
	"github.com/mezzo-os/mezzo/core/trace"
	linkv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/link/v1"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
	schedulerv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1/scheduler"
)

// openSpans bounds how many spans of a kind are open at a time. What comes beyond
// is not traced.
const openSpans = 1 << 16

// traced is a machine whose inputs and outputs make spans; a master that traces
// nothing has the bare machine. It is the loop's, as that is.
//
//	subscribe                 a SUBSCRIBE, until SUBSCRIBED is sent
//	offer                     from the allocator's decision to the answer
//	  accept                  an ACCEPT: from its turn until all it launches is sent
//	    launch                a launch, sent to the agent
//	      …                   the agent's spans: see core/agent
//	        deliver update    an update, from the agent's word to the acknowledgement
//
// Of offers only those that are sampled are remembered.
type traced struct {
	*state.Machine
	tracer      *trace.Tracer
	subscribing map[state.Stream]oteltrace.Span
	offers      map[string]offerSpan
	updates     map[string]oteltrace.Span // by the update's UUID
}

type offerSpan struct {
	oteltrace.Span
	stream state.Stream
}

// withTraces is a machine that is traced, if there is a tracer.
func withTraces(m *state.Machine, t *trace.Tracer) machine {
	if t == nil {
		return m
	}
	return &traced{
		Machine: m, tracer: t, subscribing: map[state.Stream]oteltrace.Span{},
		offers: map[string]offerSpan{}, updates: map[string]oteltrace.Span{},
	}
}

// Step implements machine.
func (t *traced) Step(now time.Time, in state.Input) []state.Output {
	s := tracedStep{traced: t, began: time.Now()}
	s.before(in)
	outputs := t.Machine.Step(now, in)
	for _, out := range outputs {
		s.after(out)
	}
	if s.accept != nil {
		s.accept.End()
	}
	return outputs
}

// tracedStep is one step as it is traced.
type tracedStep struct {
	*traced
	began  time.Time
	accept oteltrace.Span       // of an ACCEPT that is traced
	update *linkv1.StatusUpdate // of an agent that is traced
}

// before sees what comes in.
func (s *tracedStep) before(in state.Input) {
	switch in := in.(type) {
	case state.Subscribe:
		info := in.Call.GetFrameworkInfo()
		span := s.tracer.Start(oteltrace.SpanContext{}, "subscribe", s.began,
			trace.Framework.String(info.GetId().GetValue()), trace.FrameworkName.String(info.GetName()))
		if span.IsRecording() && len(s.subscribing) < openSpans {
			s.subscribing[in.Stream] = span
		}
	case state.StreamClosed:
		s.streamOver(in.Stream, in.Reason)
	case state.LinkMessage:
		if u := in.Message.GetUpdate(); u.GetTraceparent() != "" {
			s.update = u
		}
	case state.SchedulerCall:
		s.call(in.Call)
	}
}

func (s *tracedStep) call(call *schedulerv1.Call) {
	switch call.GetType() {
	case schedulerv1.Call_ACCEPT:
		s.begin(call)
	case schedulerv1.Call_DECLINE:
		for _, id := range call.GetDecline().GetOfferIds() {
			s.offerOver(id.GetValue(), "declined")
		}
	case schedulerv1.Call_ACKNOWLEDGE:
		uuid := string(call.GetAcknowledge().GetUuid())
		if span := s.updates[uuid]; span != nil {
			delete(s.updates, uuid)
			span.End()
		}
	}
}

// begin begins the span of an ACCEPT: in the caller's trace, or else in that of
// its first offer that is traced; or nowhere.
func (s *tracedStep) begin(call *schedulerv1.Call) {
	parent := trace.Parse(call.GetTraceparent())
	var links []oteltrace.Link
	for _, id := range call.GetAccept().GetOfferIds() {
		o, known := s.offers[id.GetValue()]
		if !known {
			continue
		}
		if parent.IsValid() { // the caller's, or another offer's
			links = append(links, oteltrace.Link{SpanContext: o.SpanContext()})
		} else {
			parent = o.SpanContext()
		}
		s.offerOver(id.GetValue(), "accepted")
	}
	if !parent.IsValid() {
		return
	}
	s.accept = s.tracer.Start(parent, "accept", s.began, trace.Framework.String(call.GetFrameworkId().GetValue()))
	for _, l := range links {
		s.accept.AddLink(l)
	}
}

// after sees what goes out.
func (s *tracedStep) after(out state.Output) {
	switch out := out.(type) {
	case state.SendOffers:
		s.offered(out)
	case state.SendScheduler:
		s.told(out)
	case state.CloseScheduler:
		s.streamOver(out.Stream, out.Reason)
	case state.SendAgent:
		if run := out.Message.GetRun(); run != nil && s.accept != nil {
			s.launched(run)
		}
	case state.CallResult:
		if s.accept != nil && out.Result.GetCode() != schedulerv1.CallResult_ACCEPTED {
			s.accept.SetStatus(codes.Error, out.Result.GetMessage())
		}
	}
}

// launched tells the agent where its part of a launch belongs. The message is
// the machine's no more.
func (s *tracedStep) launched(run *linkv1.Run) {
	span := s.tracer.Start(s.accept.SpanContext(), "launch", s.began, trace.Framework.String(run.GetFramework().GetId().GetValue()))
	first := run.GetTasks()[0]
	span.SetAttributes(trace.Agent.String(first.GetAgentId().GetValue()), trace.Task.String(first.GetTaskId().GetValue()), trace.Tasks.Int(len(run.GetTasks())))
	run.Traceparent = trace.Format(span.SpanContext())
	span.End()
}

// told sees an event of a scheduler.
func (s *tracedStep) told(out state.SendScheduler) {
	switch event := out.Event; event.GetType() {
	case schedulerv1.Event_SUBSCRIBED, schedulerv1.Event_ERROR:
		span := s.subscribing[out.Stream]
		if span == nil {
			return
		}
		delete(s.subscribing, out.Stream)
		span.SetAttributes(trace.Framework.String(event.GetSubscribed().GetFrameworkId().GetValue()))
		if event.GetError() != nil {
			span.SetStatus(codes.Error, event.GetError().GetMessage())
		}
		span.End()
	case schedulerv1.Event_RESCIND:
		s.offerOver(event.GetRescind().GetOfferId().GetValue(), "rescinded")
	case schedulerv1.Event_UPDATE:
		switch status := event.GetUpdate().GetStatus(); {
		case s.accept != nil: // a task that could not be launched
			s.accept.AddEvent("task refused", oteltrace.WithAttributes(trace.Task.String(status.GetTaskId().GetValue()),
				trace.State.String(status.GetState().String()), trace.Reason.String(status.GetMessage())))
			s.accept.SetStatus(codes.Error, status.GetMessage())
		case s.update != nil:
			s.delivered(status)
		}
	}
}

// delivered sees an update on its way to the scheduler, for the first time or
// again.
func (s *tracedStep) delivered(status *mezzov1.TaskStatus) {
	uuid := string(status.GetUuid())
	if span := s.updates[uuid]; span != nil {
		span.AddEvent("sent again")
		return
	}
	span := s.tracer.Start(trace.Parse(s.update.GetTraceparent()), "deliver update", s.began,
		trace.Framework.String(s.update.GetFrameworkId()), trace.Task.String(status.GetTaskId().GetValue()), trace.State.String(status.GetState().String()))
	if uuid == "" || !span.IsRecording() || len(s.updates) >= openSpans {
		span.End()
		return
	}
	s.updates[uuid] = span
}

// offered begins the spans of offers.
func (s *tracedStep) offered(out state.SendOffers) {
	eachOffer(out.Offers, func(id, framework, agent string) {
		span := s.tracer.Start(oteltrace.SpanContext{}, "offer", s.began)
		if !span.IsRecording() || len(s.offers) >= openSpans {
			return
		}
		span.SetAttributes(trace.Offer.String(id), trace.Framework.String(framework), trace.Agent.String(agent))
		span.AddEvent("sent")
		s.offers[id] = offerSpan{span, out.Stream}
	})
}

func (t *traced) offerOver(id, outcome string) {
	if o, known := t.offers[id]; known {
		delete(t.offers, id)
		o.SetAttributes(trace.Outcome.String(outcome))
		o.End()
	}
}

// streamOver ends what belongs to a scheduler's stream.
func (t *traced) streamOver(stream state.Stream, reason string) {
	if span := t.subscribing[stream]; span != nil {
		delete(t.subscribing, stream)
		span.SetStatus(codes.Error, reason)
		span.End()
	}
	for id, o := range t.offers {
		if o.stream == stream {
			t.offerOver(id, "void")
		}
	}
}

// end ends every span: leadership is over.
func (t *traced) end() {
	for stream := range t.subscribing {
		t.streamOver(stream, errStopped.Error())
	}
	for id := range t.offers {
		t.offerOver(id, "void")
	}
	for uuid, span := range t.updates {
		delete(t.updates, uuid)
		span.SetStatus(codes.Error, errStopped.Error())
		span.End()
	}
}

// eachOffer finds the ids in an event's field of offers, as it goes over the wire.
func eachOffer(encoded []byte, f func(id, framework, agent string)) {
	fields(encoded, func(_ protowire.Number, list []byte) {
		fields(list, func(_ protowire.Number, offer []byte) {
			var ids [4]string
			fields(offer, func(number protowire.Number, value []byte) {
				if number < protowire.Number(len(ids)) {
					fields(value, func(_ protowire.Number, text []byte) { ids[number] = string(text) })
				}
			})
			f(ids[1], ids[2], ids[3])
		})
	})
}

// fields finds the fields of a message that are bytes. What cannot be read ends
// it.
func fields(message []byte, f func(protowire.Number, []byte)) {
	for len(message) > 0 {
		number, kind, n := protowire.ConsumeTag(message)
		if n < 0 {
			return
		}
		message = message[n:]
		if kind == protowire.BytesType {
			value, n := protowire.ConsumeBytes(message)
			if n < 0 {
				return
			}
			f(number, value)
			message = message[n:]
			continue
		}
		if n = protowire.ConsumeFieldValue(number, kind, message); n < 0 {
			return
		}
		message = message[n:]
	}
}
