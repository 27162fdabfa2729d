package rpc

import (
	"context"
	"errors"
	"sync"
)

// Class says which messages go first.
type Class uint8

const (
	// Control messages go before bulk ones, in the order of their Push.
	Control Class = iota
	// Bulk messages go when no control message waits, in the order of their Push.
	Bulk
)

var (
	// ErrQueueFull means that the reader at the other end is too slow: what
	// waits for it has reached its bound.
	ErrQueueFull = errors.New("outbound queue is full: the peer reads too slowly")
	// ErrSenderClosed means that the sender takes no more messages.
	ErrSenderClosed = errors.New("the stream is closed")
)

// Sender writes messages to one stream through a queue that is bounded in
// bytes. It has a goroutine only while there is something to send, so an idle
// stream costs none. Push never blocks. Safe for concurrent use; messages
// must not be changed after Push.
//
// What is larger than 256 KiB its caller sends in parts, so that control
// messages never wait long behind one bulk message.
type Sender[M any] struct {
	send  func(M) error
	limit int

	mu      sync.Mutex
	control []queued[M]
	bulk    []queued[M]
	bytes   int
	running bool
	closed  bool
	err     error
	done    chan struct{}
}

type queued[M any] struct {
	message M
	size    int
}

// NewSender returns a sender that calls send, one message at a time, and
// holds at most limit bytes. A single message larger than the limit passes
// when nothing else waits.
func NewSender[M any](limit int, send func(M) error) *Sender[M] {
	return &Sender[M]{send: send, limit: limit, done: make(chan struct{})}
}

// Push queues a message of size bytes. It returns ErrQueueFull, with the
// message not queued, or ErrSenderClosed after Close, Abort or a failed send.
func (s *Sender[M]) Push(m M, size int, class Class) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return ErrSenderClosed
	}
	if s.bytes > 0 && s.bytes+size > s.limit {
		return ErrQueueFull
	}
	s.bytes += size
	if class == Control {
		s.control = append(s.control, queued[M]{m, size})
	} else {
		s.bulk = append(s.bulk, queued[M]{m, size})
	}
	if !s.running {
		s.running = true
		go s.pump()
	}
	return nil
}

// pump sends until nothing is left. There is one at a time.
func (s *Sender[M]) pump() {
	var batch []queued[M]
	for {
		var ok bool
		if batch, ok = s.take(batch[:0]); !ok {
			return
		}
		sent := 0
		for _, q := range batch {
			if err := s.send(q.message); err != nil {
				s.fail(err)
				return
			}
			sent += q.size
		}
		s.mu.Lock()
		s.bytes -= sent
		s.mu.Unlock()
	}
}

// take moves all control messages, or else one bulk message, into batch. It
// reports false when there is nothing left, and then pump has to end.
func (s *Sender[M]) take(batch []queued[M]) ([]queued[M], bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.err != nil:
	case len(s.control) > 0:
		// The two slices change places, so that both are used again.
		clear(batch[:cap(batch)])
		batch, s.control = s.control, batch
		return batch, true
	case len(s.bulk) > 0:
		batch = append(batch, s.bulk[0])
		s.bulk[0] = queued[M]{}
		if s.bulk = s.bulk[1:]; len(s.bulk) == 0 {
			s.bulk = nil
		}
		return batch, true
	}
	s.running = false
	if s.closed {
		s.finish()
	}
	return nil, false
}

func (s *Sender[M]) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.running, s.closed = false, true
	if s.err == nil {
		s.err = err
	}
	s.finish()
}

// finish drops what waits and closes done. The lock is held.
func (s *Sender[M]) finish() {
	s.control, s.bulk, s.bytes = nil, nil, 0
	select {
	case <-s.done:
	default:
		close(s.done)
	}
}

// Close takes no more messages; what is queued is still sent, then Done closes.
func (s *Sender[M]) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	s.closed = true
	if !s.running {
		s.finish()
	}
}

// CloseWith drops what is queued and sends only last, then Done closes. It is
// how a peer that reads too slowly is told why it is cut off.
func (s *Sender[M]) CloseWith(last M) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	s.closed = true
	s.control, s.bulk = []queued[M]{{message: last}}, nil
	if !s.running {
		s.running = true
		go s.pump()
	}
}

// Abort takes no more messages and drops what is queued. A send that is under
// way ends when its stream does.
func (s *Sender[M]) Abort(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil {
		s.err = err
	}
	s.closed = true
	s.control, s.bulk = nil, nil
	if !s.running {
		s.finish()
	}
}

// Done is closed when the sender is closed and nothing is being sent.
func (s *Sender[M]) Done() <-chan struct{} { return s.done }

// Err returns why the sender ended early: the failed send, or Abort's reason.
func (s *Sender[M]) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// Bytes returns how much waits to be sent, for metrics.
func (s *Sender[M]) Bytes() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.bytes
}

// Wait blocks until Done or the end of ctx.
func (s *Sender[M]) Wait(ctx context.Context) error {
	select {
	case <-s.done:
		return s.Err()
	case <-ctx.Done():
		return ctx.Err()
	}
}
