package framework

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	schedulerv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1/scheduler"
)

// silentHeartbeats is how many heartbeats may be missing before the master is
// taken for gone.
const silentHeartbeats = 5

// subscription is one stream of events, with its stream of calls.
type subscription struct {
	events    grpc.ServerStreamingClient[schedulerv1.Event]
	calls     grpc.BidiStreamingClient[schedulerv1.Call, schedulerv1.CallResult]
	cancel    context.CancelFunc
	id        string
	heartbeat time.Duration
	again     bool // not the scheduler's first
	logger    *slog.Logger

	// Calls are answered in order, so the oldest waiting is the next answered.
	mu       sync.Mutex
	sequence uint64
	waiting  []chan error
	over     bool
	reader   sync.WaitGroup
}

func newSubscription(
	events grpc.ServerStreamingClient[schedulerv1.Event],
	calls grpc.BidiStreamingClient[schedulerv1.Call, schedulerv1.CallResult],
	cancel context.CancelFunc, told *schedulerv1.Event_Subscribed, logger *slog.Logger,
) *subscription {
	sub := &subscription{
		events: events, calls: calls, cancel: cancel, id: told.GetStreamId(), logger: logger,
		heartbeat: time.Duration(told.GetHeartbeatIntervalSeconds() * float64(time.Second)),
	}
	sub.reader.Go(sub.read)
	return sub
}

// send makes a call. The channel brings its result, once.
func (sub *subscription) send(call *schedulerv1.Call, frameworkID string) <-chan error {
	result := make(chan error, 1)
	sub.mu.Lock()
	defer sub.mu.Unlock()
	if sub.over {
		result <- ErrNotSubscribed
		return result
	}
	sub.sequence++
	call.FrameworkId = frameworkIDOf(frameworkID)
	call.StreamId, call.Sequence = proto.String(sub.id), proto.Uint64(sub.sequence)
	sub.waiting = append(sub.waiting, result)
	if sub.calls.Send(call) != nil {
		// The reader learns why, and answers all that wait.
		sub.cancel()
	}
	return result
}

// read answers the calls that wait, until the stream ends.
func (sub *subscription) read() {
	for {
		answer, err := sub.calls.Recv()
		sub.mu.Lock()
		if err != nil || len(sub.waiting) == 0 {
			sub.over = true
			for _, result := range sub.waiting {
				result <- ErrNotSubscribed
			}
			sub.waiting = nil
			sub.mu.Unlock()
			// Without its calls the subscription is of no use.
			sub.cancel()
			return
		}
		result := sub.waiting[0]
		sub.waiting[0] = nil
		sub.waiting = sub.waiting[1:]
		sub.mu.Unlock()
		if answer.GetCode() == schedulerv1.CallResult_ACCEPTED {
			result <- nil
		} else {
			// Nobody may be waiting for it, as for an automatic acknowledgement.
			sub.logger.Debug("a call was not accepted", "sequence", answer.GetSequence(), "code", answer.GetCode(), "message", answer.GetMessage())
			result <- &CallError{Code: answer.GetCode(), Message: answer.GetMessage()}
		}
	}
}

// finishGrace is how long the last calls have to be answered when the events
// have ended.
const finishGrace = time.Second

// finish takes no more calls and returns when nothing of the subscription runs
// any more. Calls that wait are still answered, if the master is there to do
// it: what ends the events may be the very call that waits, as TEARDOWN does.
func (sub *subscription) finish() {
	sub.mu.Lock()
	if !sub.over {
		sub.over = true
		_ = sub.calls.CloseSend() // the reader learns of any error
	}
	sub.mu.Unlock()
	late := time.AfterFunc(finishGrace, sub.cancel)
	defer late.Stop()
	sub.reader.Wait()
}

// watchdog ends a subscription whose master says nothing, not even a
// heartbeat. The time that callbacks take does not count.
type watchdog struct {
	timer   *time.Timer
	patient time.Duration
}

func (sub *subscription) watch() *watchdog {
	if sub.heartbeat <= 0 {
		return &watchdog{}
	}
	patient := silentHeartbeats * sub.heartbeat
	return &watchdog{patient: patient, timer: time.AfterFunc(patient, func() {
		sub.logger.Warn("the master has said nothing; subscribing again", "for", patient)
		sub.cancel()
	})}
}

func (w *watchdog) pause() { w.stop() }

func (w *watchdog) resume() {
	if w.timer != nil {
		w.timer.Reset(w.patient)
	}
}

func (w *watchdog) stop() {
	if w.timer != nil {
		w.timer.Stop()
	}
}
