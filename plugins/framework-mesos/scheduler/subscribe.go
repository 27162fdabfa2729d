package scheduler

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/mezzo-os/mezzo/plugins/framework-mesos/convert"
	"github.com/mezzo-os/mezzo/plugins/framework-mesos/line"
	"github.com/mezzo-os/mezzo/plugins/framework-mesos/transport"
	schedulerv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1/scheduler"
)

// subscription is one open answer to a SUBSCRIBE.
type subscription struct {
	framework string
	form      atomic.Pointer[convert.Form] // that its framework reads
	cut       func()                       // ends it at once
	media     string
	heartbeat []byte
	buffer    []byte
}

// subscribe answers SUBSCRIBE. What the master has against the subscription is
// its first event, after a 200; only when there is no master to say so the
// status tells.
func (a *API) subscribe(w http.ResponseWriter, r *http.Request, call *schedulerv1.Call_Subscribe) {
	media, ok := transport.Accept(r, "Accept", transport.JSON, transport.Protobuf)
	if !ok {
		transport.NotAcceptable().Write(w)
		return
	}
	if _, has := r.Header[StreamHeader]; has {
		transport.Fail(w, http.StatusBadRequest, "Subscribe calls should not include the 'Mesos-Stream-Id' header")
		return
	}
	ctx, cancel := context.WithCancel(transport.CallContext(r))
	defer cancel()
	stream, first, err := line.First(ctx, cancel, a.options.Patience, func(ctx context.Context) (grpc.ServerStreamingClient[schedulerv1.Event], error) {
		return a.options.Client.Subscribe(ctx, call)
	})
	switch {
	case r.Context().Err() != nil:
		return
	case errors.Is(err, context.DeadlineExceeded):
		transport.Fail(w, http.StatusServiceUnavailable, "The master did not answer in time")
		return
	case err != nil:
		event, failure := denied(err)
		if failure != nil {
			failure.Write(w)
			return
		}
		first, stream = event, nil
	}
	w.Header().Set(StreamHeader, streamIDOf(first))
	records, err := transport.OpenRecords(w, media)
	if err != nil {
		return
	}
	sub := &subscription{framework: first.GetSubscribed().GetFrameworkId().GetValue(), media: media, heartbeat: a.heartbeats[media], cut: func() {
		transport.CountCut(w, transport.CutCrowded)
		cancel()
		records.Cut()
	}}
	form := convert.FormOf(call.GetFrameworkInfo())
	sub.form.Store(&form)
	if sub.framework != "" {
		a.streams.add(sub)
		defer a.streams.remove(sub)
	}
	if err := a.pass(sub, first, stream, records); err != nil {
		a.options.Logger.Debug("a scheduler's stream has ended", "framework_id", sub.framework, "reason", err)
	}
}

// pass writes events until there are no more, or nobody reads them.
func (a *API) pass(sub *subscription, first *schedulerv1.Event, stream grpc.ServerStreamingClient[schedulerv1.Event], records *transport.RecordWriter) error {
	out := newPulse(records, sub.heartbeat, a.options.Beat)
	defer out.stop()
	for event := first; ; {
		record, err := a.encode(sub, event)
		if err != nil {
			a.options.Logger.Error("an event cannot be written; its scheduler is disconnected", "framework_id", sub.framework, "type", event.GetType().String(), "error", err)
			return err
		}
		if err := out.write(record); err != nil {
			return err
		}
		if stream == nil {
			return nil
		}
		if event, err = stream.Recv(); err != nil {
			return line.Plain(err)
		}
	}
}

// encode is an event as the client reads it. The bytes are good until the next
// call.
func (a *API) encode(sub *subscription, event *schedulerv1.Event) ([]byte, error) {
	a.outward(*sub.form.Load(), event)
	const keep = 64 << 10
	if cap(sub.buffer) > keep {
		sub.buffer = nil
	}
	var err error
	if sub.media == transport.Protobuf {
		sub.buffer, err = proto.MarshalOptions{}.MarshalAppend(sub.buffer[:0], event)
	} else {
		sub.buffer, err = a.json.Append(sub.buffer[:0], event)
	}
	return sub.buffer, err
}

// denied is what a client is told when the master did not open a stream: an
// event if the master means this framework, else an answer for "not now".
func denied(err error) (*schedulerv1.Event, *transport.Error) {
	s, _ := status.FromError(err)
	switch s.Code() {
	case codes.PermissionDenied, codes.Unauthenticated:
		return errorEvent("Not authorized to register: " + s.Message()), nil
	case codes.InvalidArgument, codes.FailedPrecondition, codes.Aborted:
		return errorEvent(s.Message()), nil
	}
	return nil, unavailable(line.Plain(err))
}

func errorEvent(text string) *schedulerv1.Event {
	return &schedulerv1.Event{Type: schedulerv1.Event_ERROR.Enum(), Error: &schedulerv1.Event_Error{Message: proto.String(text)}}
}

// streamIDOf is the stream id that the header tells. A stream that only has an
// error gets one that nobody knows.
func streamIDOf(first *schedulerv1.Event) string {
	if id := first.GetSubscribed().GetStreamId(); id != "" {
		return clientStream(id)
	}
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	return clientStream(hex.EncodeToString(b[:]))
}

// streams are the open subscriptions by framework, oldest first.
type streams struct {
	limit int
	mu    sync.Mutex
	open  map[string][]*subscription
}

// add enters a subscription. Of a framework's older ones, which its takeovers
// have ended, only so many may be left unread.
func (s *streams) add(sub *subscription) {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := append(s.open[sub.framework], sub)
	for len(list) > s.limit {
		list[0].cut()
		list = slices.Delete(list, 0, 1)
	}
	s.open[sub.framework] = list
}

func (s *streams) remove(sub *subscription) {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := slices.DeleteFunc(s.open[sub.framework], func(x *subscription) bool { return x == sub })
	if len(list) == 0 {
		delete(s.open, sub.framework)
		return
	}
	s.open[sub.framework] = list
}

// update has a framework's newest subscription speak another form from now on.
func (s *streams) update(framework string, form convert.Form) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if list := s.open[framework]; len(list) > 0 {
		list[len(list)-1].form.Store(&form)
	}
}
