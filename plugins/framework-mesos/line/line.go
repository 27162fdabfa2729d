// Package line makes calls over native streams of calls, which the calls of many
// clients share: each is numbered, and each waits for its result.
//
// Terms. A *line* is one stream. There is one for each principal on whose behalf
// calls are made, opened when it is needed, and again after it broke.
package line

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/status"

	"github.com/mezzo-os/mezzo/plugins/framework-mesos/transport"
)

// Service is a native service's way of calls C with results R.
type Service[C, R any] struct {
	// Open opens a stream of calls. The core learns of the principal, which is in
	// the context, as a stream is opened.
	Open func(ctx context.Context) (grpc.BidiStreamingClient[C, R], error)
	// Number gives a call its number, and NumberOf is the number of the call that a
	// result is of.
	Number   func(call *C, number uint64)
	NumberOf func(result *R) uint64
}

// Lines are the streams of calls. Safe for concurrent use.
type Lines[C, R any] struct {
	service Service[C, R]

	mu     sync.Mutex
	open   map[string]*line[C, R]
	closed bool
	done   sync.WaitGroup
}

// New returns lines of which none is open yet.
func New[C, R any](service Service[C, R]) *Lines[C, R] {
	return &Lines[C, R]{service: service, open: map[string]*line[C, R]{}}
}

// maxLines bounds the lines that stay open. Principals are few; the bound keeps
// many of them from costing anything.
const maxLines = 256

var (
	errClosed = errors.New("the adapter is ending")
	errBroken = errors.New("its stream of calls has ended")
)

// Call makes a call on behalf of a principal (empty: of nobody in particular),
// and waits for its result. An error means that there was none: whether the call
// was carried out is not known.
func (l *Lines[C, R]) Call(ctx context.Context, principal string, call *C) (*R, error) {
	line, err := l.get(principal)
	if err != nil {
		return nil, err
	}
	answer, err := line.send(call)
	if err != nil {
		return nil, err
	}
	select {
	case result := <-answer:
		if result == nil {
			return nil, line.reason()
		}
		return result, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// get returns the line of a principal, opened if there is none.
func (l *Lines[C, R]) get(principal string) (*line[C, R], error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil, errClosed
	}
	if line := l.open[principal]; line != nil {
		return line, nil
	}
	ctx, cancel := context.WithCancel(context.Background())
	// Opening does not wait for the master: what is wrong shows at the first
	// answer.
	stream, err := l.service.Open(transport.WithPrincipal(ctx, &transport.Principal{Value: principal}))
	if err != nil {
		cancel()
		return nil, Plain(err)
	}
	for name, other := range l.open {
		if len(l.open) < maxLines {
			break
		}
		delete(l.open, name)
		other.cancel()
	}
	line := &line[C, R]{service: l.service, stream: stream, cancel: cancel, wait: map[uint64]chan<- *R{}}
	l.open[principal] = line
	l.done.Go(func() {
		line.read()
		l.mu.Lock()
		if l.open[principal] == line {
			delete(l.open, principal)
		}
		l.mu.Unlock()
	})
	return line, nil
}

// Close ends the lines. Calls that wait have no result.
func (l *Lines[C, R]) Close() {
	l.mu.Lock()
	l.closed = true
	for _, line := range l.open {
		line.cancel()
	}
	l.mu.Unlock()
	l.done.Wait()
}

// line is one native stream of calls.
type line[C, R any] struct {
	service Service[C, R]
	stream  grpc.BidiStreamingClient[C, R]
	cancel  context.CancelFunc

	sending sync.Mutex // of stream.Send

	mu   sync.Mutex
	last uint64
	wait map[uint64]chan<- *R
	err  error // why it is over
}

// send makes a call. The channel brings its result, or nil when the line ended
// without one.
func (l *line[C, R]) send(call *C) (<-chan *R, error) {
	answer := make(chan *R, 1)
	l.sending.Lock()
	defer l.sending.Unlock()
	l.mu.Lock()
	if l.err != nil {
		l.mu.Unlock()
		return nil, l.err
	}
	l.last++
	number := l.last
	l.wait[number] = answer
	l.mu.Unlock()
	l.service.Number(call, number)
	if err := l.stream.Send(call); err != nil && !errors.Is(err, io.EOF) {
		l.mu.Lock()
		delete(l.wait, number)
		l.mu.Unlock()
		return nil, Plain(err)
	}
	return answer, nil // after an EOF the reader learns why, and answers
}

// read brings results to those that wait, until the stream ends.
func (l *line[C, R]) read() {
	defer l.cancel()
	for {
		result, err := l.stream.Recv()
		l.mu.Lock()
		if err != nil {
			l.err = Plain(err)
			for _, answer := range l.wait {
				answer <- nil
			}
			l.wait = nil
			l.mu.Unlock()
			return
		}
		number := l.service.NumberOf(result)
		if answer := l.wait[number]; answer != nil {
			answer <- result
			delete(l.wait, number)
		}
		l.mu.Unlock()
	}
}

func (l *line[C, R]) reason() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}

// First opens a stream of events and waits for its first event, no longer than
// patience: then the error is context.DeadlineExceeded. The stream is ctx's, which
// cancel ends; it is the caller's to call.
func First[E any](ctx context.Context, cancel context.CancelFunc, patience time.Duration, open func(context.Context) (grpc.ServerStreamingClient[E], error)) (stream grpc.ServerStreamingClient[E], first *E, err error) {
	late := time.AfterFunc(patience, cancel)
	if stream, err = open(ctx); err == nil {
		first, err = stream.Recv()
	}
	if !late.Stop() {
		err = context.DeadlineExceeded
	}
	return stream, first, err
}

// Plain is an error of a native call as clients are told of it.
func Plain(err error) error {
	if errors.Is(err, io.EOF) {
		return errBroken
	}
	if s, ok := status.FromError(err); ok {
		return errors.New(s.Message())
	}
	return err
}
