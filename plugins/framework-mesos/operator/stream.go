package operator

import (
	"bytes"
	"io"
	"net/http"
	"slices"
	"strconv"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/mezzo-os/mezzo/plugins/framework-mesos/mirror"
	"github.com/mezzo-os/mezzo/plugins/framework-mesos/transport"
	operatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/operator/v1"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
	masterv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1/master"
)

const heartbeatInterval = 15 * time.Second

// stream is one subscriber to events.
type stream struct {
	over chan struct{} // closed when it has to make room for a newer one
}

// subscribe answers SUBSCRIBE: the whole state, then what changes.
func (h *Handler) subscribe(q *request) *transport.Error {
	if failure := transport.MayView(q.r); failure != nil {
		return failure
	}
	changes, err := h.options.Mirror.Subscribe(q.r.Context(), h.options.Queue)
	if err != nil {
		return ReadFailed(err)
	}
	defer changes.Close()
	s := h.open()
	defer h.close(s)
	out, failure := greet(q, changes.Snapshot)
	if out == nil {
		return failure
	}
	changes.Snapshot = nil // large, and not needed any more
	if why := h.stream(q, s, changes, out); why != nil {
		h.logger.Info("a subscriber to events is cut off", "peer", q.r.RemoteAddr, "reason", why)
		switch why {
		case mirror.ErrTooSlow:
			transport.CountCut(q.w, transport.CutSlow)
		case errCrowded:
			transport.CountCut(q.w, transport.CutCrowded)
		default:
			transport.CountCut(q.w, transport.CutFeed)
		}
	}
	return nil
}

// greet begins the stream with the whole state. Nothing is returned when the
// client is gone.
func greet(q *request, now *mirror.Snapshot) (*transport.RecordWriter, *transport.Error) {
	write := writer(q.media, &masterv1.Event{
		Type: masterv1.Event_SUBSCRIBED.Enum(),
		Subscribed: &masterv1.Event_Subscribed{
			GetState: State(now), HeartbeatIntervalSeconds: proto.Float64(heartbeatInterval.Seconds()),
		},
	})
	first := &meter{limit: holdLimit}
	if err := write(first); err != nil {
		return nil, transport.Failed(http.StatusInternalServerError, "The state cannot be written: "+err.Error())
	}
	out, err := transport.OpenRecords(q.w, q.media)
	if err != nil {
		return nil, nil
	}
	if first.size == first.held.Len() {
		err = out.Write(first.held.Bytes())
	} else {
		// A record that is too large to be held is several chunks.
		first.held = bytes.Buffer{}
		if _, err = io.WriteString(q.w, strconv.Itoa(first.size)+"\n"); err == nil {
			err = write(q.w)
		}
		if err == nil {
			err = http.NewResponseController(q.w).Flush()
		}
	}
	if err != nil {
		return nil, nil // the client is gone
	}
	return out, nil
}

// stream sends heartbeats and changes until the client is gone or has to go.
func (h *Handler) stream(q *request, s *stream, changes *mirror.Subscription, out *transport.RecordWriter) error {
	beat, err := record(q.media, &masterv1.Event{Type: masterv1.Event_HEARTBEAT.Enum()})
	if err != nil {
		return err
	}
	if out.Write(beat) != nil {
		return nil
	}
	ticker := time.NewTicker(heartbeatInterval)
	defer ticker.Stop()
	kind, form := 0, func(c *mirror.Change) [][]byte { return h.records(c, transport.JSON) }
	if q.media == transport.Protobuf {
		kind, form = 1, func(c *mirror.Change) [][]byte { return h.records(c, transport.Protobuf) }
	}
	for {
		select {
		case <-changes.Ready():
		case <-ticker.C:
			if out.Write(beat) != nil {
				return nil
			}
			continue
		case <-s.over:
			return errCrowded
		case <-q.r.Context().Done():
			return nil
		}
		list, err := changes.Take()
		if err != nil {
			return err
		}
		for _, c := range list {
			for _, r := range c.Records(kind, form) {
				if out.Write(r) != nil {
					return nil
				}
			}
		}
	}
}

type crowded struct{}

func (crowded) Error() string { return "too many clients are subscribed; the oldest makes room" }

var errCrowded = crowded{}

// open counts a subscriber in. The oldest has to make room when there are too
// many.
func (h *Handler) open() *stream {
	s := &stream{over: make(chan struct{})}
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.streams) >= h.options.Streams {
		close(h.streams[0].over)
		h.streams = h.streams[1:]
	}
	h.streams = append(h.streams, s)
	return s
}

func (h *Handler) close(s *stream) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for i, x := range h.streams {
		if x == s {
			h.streams = append(h.streams[:i:i], h.streams[i+1:]...)
			return
		}
	}
}

// record is an event as it is sent.
func record(media string, event *masterv1.Event) ([]byte, error) {
	var out bytes.Buffer
	err := writer(media, event)(&out)
	return out.Bytes(), err
}

// records are the events that a change is.
func (h *Handler) records(c *mirror.Change, media string) [][]byte {
	var out [][]byte
	for _, event := range events(c) {
		r, err := record(media, event)
		if err != nil {
			h.logger.Error("an event cannot be written", "type", event.GetType().String(), "error", err)
			continue
		}
		out = append(out, r)
	}
	return out
}

// events are what a change is for subscribers, none perhaps.
func events(c *mirror.Change) []*masterv1.Event {
	switch {
	case c.Agent != nil || c.OldAgent != nil:
		return agentEvents(c.Agent, c.OldAgent)
	case c.Framework != nil:
		return frameworkEvents(c.Framework, c.OldFramework)
	case c.Task != nil:
		return taskEvents(c.Task, c.OldTask)
	}
	return nil
}

// present is whether subscribers count an agent among those that are there.
func present(a *operatorv1.AgentDetail) bool {
	return a != nil && a.GetUnreachable() == nil && !a.GetAwaited()
}

func agentEvents(now, before *operatorv1.AgentDetail) []*masterv1.Event {
	switch {
	case present(now) && !present(before):
		return []*masterv1.Event{{Type: masterv1.Event_AGENT_ADDED.Enum(), AgentAdded: &masterv1.Event_AgentAdded{Agent: agent(now, nil)}}}
	case present(before) && !present(now):
		return []*masterv1.Event{{Type: masterv1.Event_AGENT_REMOVED.Enum(), AgentRemoved: &masterv1.Event_AgentRemoved{
			AgentId: &mezzov1.AgentID{Value: proto.String(before.GetId())},
		}}}
	}
	return nil
}

func frameworkEvents(now, before *operatorv1.FrameworkDetail) []*masterv1.Event {
	completed := func(f *operatorv1.FrameworkDetail) bool { return f.GetState() == "completed" }
	switch {
	case before == nil && !completed(now):
		return []*masterv1.Event{{Type: masterv1.Event_FRAMEWORK_ADDED.Enum(), FrameworkAdded: &masterv1.Event_FrameworkAdded{Framework: framework(now)}}}
	case completed(now) && !completed(before) && before != nil:
		return []*masterv1.Event{{Type: masterv1.Event_FRAMEWORK_REMOVED.Enum(), FrameworkRemoved: &masterv1.Event_FrameworkRemoved{FrameworkInfo: now.GetInfo()}}}
	case completed(now) || before == nil:
		return nil
	}
	if proto.Equal(now.GetReregistered(), before.GetReregistered()) && proto.Equal(now.GetInfo(), before.GetInfo()) && proto.Equal(now.GetConstraints(), before.GetConstraints()) {
		return nil
	}
	return []*masterv1.Event{{Type: masterv1.Event_FRAMEWORK_UPDATED.Enum(), FrameworkUpdated: &masterv1.Event_FrameworkUpdated{Framework: framework(now)}}}
}

// taskEvents are a new task, and each status that came since: a task that went
// through several states between two looks is told of all.
func taskEvents(now, before *operatorv1.TaskDetail) []*masterv1.Event {
	var out []*masterv1.Event
	if before.GetCompleted() && !proto.Equal(before.GetLaunched(), now.GetLaunched()) {
		before = nil // another task took the id
	}
	if before == nil {
		added := now.GetTask()
		switch {
		case now.GetLaunched() == nil:
			before = now // learnt from its agent: it is as it is
		case len(added.GetStatuses()) > 0: // it began like every other
			added = proto.CloneOf(added)
			added.State, added.Statuses = mezzov1.TaskState_TASK_STAGING.Enum(), nil
			added.StatusUpdateState, added.StatusUpdateUuid = nil, nil
		}
		out = append(out, &masterv1.Event{Type: masterv1.Event_TASK_ADDED.Enum(), TaskAdded: &masterv1.Event_TaskAdded{Task: added}})
	}
	for _, status := range news(before.GetTask().GetStatuses(), now.GetTask().GetStatuses()) {
		out = append(out, &masterv1.Event{Type: masterv1.Event_TASK_UPDATED.Enum(), TaskUpdated: &masterv1.Event_TaskUpdated{
			FrameworkId: now.GetTask().GetFrameworkId(), Status: status, State: now.GetTask().GetState().Enum(),
		}})
	}
	return out
}

// news are the statuses that were not there before. Of equal states in a row only
// the last is remembered, so that the newest of before may have been replaced;
// and of very many the first are forgotten.
func news(before, now []*mezzov1.TaskStatus) []*mezzov1.TaskStatus {
	if len(before) == 0 || len(now) == 0 {
		return now
	}
	last := len(before) - 1
	continues := len(now) >= len(before) && slices.EqualFunc(before, now[:len(before)], func(a, b *mezzov1.TaskStatus) bool { return a.GetState() == b.GetState() })
	switch {
	case !continues && proto.Equal(before[last], now[len(now)-1]):
		return nil
	case !continues:
		return now[len(now)-1:]
	case worthTelling(before[last], now[last]):
		return now[last:]
	}
	return now[last+1:]
}

// worthTelling is whether a status that repeats a state has news: of the task's
// health or its checks.
func worthTelling(before, now *mezzov1.TaskStatus) bool {
	if proto.Equal(before, now) {
		return false
	}
	switch now.GetReason() {
	case mezzov1.TaskStatus_REASON_TASK_HEALTH_CHECK_STATUS_UPDATED, mezzov1.TaskStatus_REASON_TASK_CHECK_STATUS_UPDATED:
		return now.Reason != nil
	}
	return (before.Healthy == nil) != (now.Healthy == nil) || before.GetHealthy() != now.GetHealthy()
}
