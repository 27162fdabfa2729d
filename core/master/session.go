package master

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/mezzo-os/mezzo/core/master/state"
	"github.com/mezzo-os/mezzo/core/rpc"
	"github.com/mezzo-os/mezzo/sdk/allocator"
	allocatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/allocator/v1"
)

const (
	// sessionQueue bounds what waits for the allocator, in bytes, about.
	sessionQueue = 64 << 20
	// eventBytes is what an event that waits is counted as.
	eventBytes = 256
	// sessionPatience is for how long an allocator may make no progress with
	// what it was sent.
	sessionPatience = 30 * time.Second

	sessionBackoffMin = 50 * time.Millisecond
	sessionBackoffMax = 5 * time.Second
)

// session is one stream to the allocator. The loop pushes events, a goroutine
// encodes and sends them, another reads decisions; both use the encoder.
type session struct {
	id      state.Session
	run     *allocatorRun
	prepare bool // it is to take over; see state.AllocatorOpened
	stream  grpc.BidiStreamingClient[allocatorv1.FromCore, allocatorv1.FromAllocator]
	cancel  context.CancelCauseFunc
	sender  *rpc.Sender[func() error]

	mu      sync.Mutex // of the encoder
	encoder *allocator.Encoder

	progress progress
}

// progress notices an allocator that takes nothing in.
type progress struct {
	mu      sync.Mutex
	waiting bool      // something was sent that it has not confirmed
	since   time.Time // of the last progress
	sent    uint64    // the last event sent
	seen    uint64    // the last event confirmed
}

func (p *progress) send(last uint64, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sent = max(p.sent, last)
	if !p.waiting {
		p.waiting, p.since = true, now
	}
}

func (p *progress) confirm(seen uint64, ready bool, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if seen > p.seen || ready {
		p.since = now
	}
	p.seen = max(p.seen, seen)
	if p.seen >= p.sent {
		p.waiting = false
	}
}

// stuck tells for how long nothing was confirmed; 0 when nothing waits.
func (p *progress) stuck(now time.Time) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.waiting {
		return 0
	}
	return now.Sub(p.since)
}

// begin sends the first message of the session.
func (s *session) begin(begin allocator.Begin) {
	s.progress.send(0, time.Now())
	// The queue is empty: this cannot fail for want of room.
	_ = s.sender.Push(func() error {
		return s.stream.Send(&allocatorv1.FromCore{Session: uint64(s.id), Begin: begin.Proto()})
	}, eventBytes, rpc.Control)
}

// send queues a batch. What it becomes is worked out by the sender's
// goroutine, so that encoding does not hold up the loop.
func (s *session) send(batch allocator.Batch) error {
	return s.sender.Push(func() error {
		s.mu.Lock()
		messages := s.encoder.Encode(batch)
		s.mu.Unlock()
		if !batch.Snapshot && len(batch.Events) > 0 {
			s.progress.send(batch.FirstEvent+uint64(len(batch.Events))-1, time.Now())
		}
		for _, message := range messages {
			if err := s.stream.Send(&allocatorv1.FromCore{Session: uint64(s.id), Batch: message}); err != nil {
				return err
			}
		}
		return nil
	}, eventBytes*(1+len(batch.Events)), rpc.Control)
}

// cut ends the session.
func (s *session) cut(reason string) {
	err := errors.New(reason)
	s.sender.Abort(err)
	s.cancel(err)
}

// runSession opens a stream to the allocator and serves it until it ends.
func (t *term) runSession(ctx context.Context, run *allocatorRun, conn grpc.ClientConnInterface, prepare bool) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stream, err := allocatorv1.NewAllocatorClient(conn).Allocate(ctx)
	if err != nil {
		return fmt.Errorf("allocator: open its stream: %w", rpc.FromStatus(err))
	}
	s := &session{
		id: state.Session(t.master.sessions.Add(1)), run: run, prepare: prepare, stream: stream, cancel: cancel, encoder: allocator.NewEncoder(),
		sender: rpc.NewSender(sessionQueue, func(send func() error) error { return send() }),
	}
	if err := t.inbox.post(s); err != nil {
		return err
	}
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		s.watch(ctx)
	}()
	err = t.readDecisions(s)
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	s.cut(err.Error())
	<-watched
	<-s.sender.Done()
	_ = t.inbox.post(state.AllocatorClosed{Session: s.id, Reason: err.Error()})
	return err
}

// watch cuts the session when the allocator makes no progress.
func (s *session) watch(ctx context.Context) {
	ticker := time.NewTicker(sessionPatience / 10)
	defer ticker.Stop()
	for {
		select {
		case now := <-ticker.C:
			if d := s.progress.stuck(now); d > sessionPatience {
				s.cut(fmt.Sprintf("it has taken in nothing for %s", d.Round(time.Second)))
			}
		case <-ctx.Done():
			return
		}
	}
}

func (t *term) readDecisions(s *session) error {
	for {
		message, err := s.stream.Recv()
		if err != nil {
			return fmt.Errorf("its stream ended: %s", ended(err))
		}
		if message.Session != uint64(s.id) {
			return fmt.Errorf("it answered for session %d in session %d", message.Session, s.id)
		}
		s.progress.confirm(message.EventsSeen, message.Ready, time.Now())
		if cycle := message.Cycle; cycle != nil {
			t.master.metrics.cycle.Observe(float64(cycle.DurationNs) / 1e9)
		}
		if message.Ready {
			if err := t.inbox.post(state.AllocatorReady{Session: s.id, EventsSeen: message.EventsSeen}); err != nil {
				return err
			}
		}
		if len(message.Decisions) == 0 {
			// It only confirmed events, which matters while it is to catch up.
			if s.prepare && t.master.allocator.Load() != s.run {
				if err := t.inbox.post(state.AllocatorSeen{Session: s.id, EventsSeen: message.EventsSeen}); err != nil {
					return err
				}
			}
			continue
		}
		in := state.AllocatorDecisions{Session: s.id, EventsSeen: message.EventsSeen, Decisions: s.decode(message.Decisions)}
		if err := t.inbox.put(in, proto.Size(message)); err != nil {
			return err
		}
	}
}

// decode reads decisions. What cannot be read is refused by the machine, in
// its turn, as a plugin's mistake like any other.
func (s *session) decode(decisions []*allocatorv1.Decision) []allocator.Decision {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]allocator.Decision, len(decisions))
	for i, d := range decisions {
		decision, err := s.encoder.Decision(d)
		if err != nil {
			decision = &state.Malformed{Number: d.GetNumber(), Reason: allocator.ReasonOf(err), Message: err.Error()}
		}
		out[i] = decision
	}
	return out
}
