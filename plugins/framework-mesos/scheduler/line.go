package scheduler

import (
	"context"
	"errors"
	"io"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/mezzo-os/mezzo/plugins/framework-mesos/transport"
	schedulerv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1/scheduler"
)

// lines are the native streams of calls, one a principal: the master learns of
// the principal as a stream is opened.
type lines struct {
	client schedulerv1.SchedulerClient

	mu     sync.Mutex
	open   map[string]*line
	closed bool
	done   sync.WaitGroup
}

// maxLines bounds the lines that stay open. Principals are few; the bound keeps
// many of them from costing anything.
const maxLines = 256

var (
	errClosed = errors.New("the adapter is ending")
	errBroken = errors.New("its stream of calls has ended")
)

// call makes a call and waits for its result. An error means that there was
// none: whether the call was carried out is not known.
func (l *lines) call(ctx context.Context, principal string, call *schedulerv1.Call) (*schedulerv1.CallResult, error) {
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
func (l *lines) get(principal string) (*line, error) {
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
	stream, err := l.client.Calls(transport.WithPrincipal(ctx, &transport.Principal{Value: principal}))
	if err != nil {
		cancel()
		return nil, plain(err)
	}
	for name, other := range l.open {
		if len(l.open) < maxLines {
			break
		}
		delete(l.open, name)
		other.cancel()
	}
	line := &line{stream: stream, cancel: cancel, wait: map[uint64]chan<- *schedulerv1.CallResult{}}
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

func (l *lines) close() {
	l.mu.Lock()
	l.closed = true
	for _, line := range l.open {
		line.cancel()
	}
	l.mu.Unlock()
	l.done.Wait()
}

// line is one native stream of calls.
type line struct {
	stream grpc.BidiStreamingClient[schedulerv1.Call, schedulerv1.CallResult]
	cancel context.CancelFunc

	sending sync.Mutex // of stream.Send

	mu   sync.Mutex
	last uint64
	wait map[uint64]chan<- *schedulerv1.CallResult
	err  error // why it is over
}

// send makes a call. The channel brings its result, or nil when the line ended
// without one.
func (l *line) send(call *schedulerv1.Call) (<-chan *schedulerv1.CallResult, error) {
	answer := make(chan *schedulerv1.CallResult, 1)
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
	call.Sequence = proto.Uint64(number)
	if err := l.stream.Send(call); err != nil && !errors.Is(err, io.EOF) {
		l.mu.Lock()
		delete(l.wait, number)
		l.mu.Unlock()
		return nil, plain(err)
	}
	return answer, nil // after an EOF the reader learns why, and answers
}

// read brings results to those that wait, until the stream ends.
func (l *line) read() {
	defer l.cancel()
	for {
		result, err := l.stream.Recv()
		l.mu.Lock()
		if err != nil {
			l.err = plain(err)
			for _, answer := range l.wait {
				answer <- nil
			}
			l.wait = nil
			l.mu.Unlock()
			return
		}
		if answer := l.wait[result.GetSequence()]; answer != nil {
			answer <- result
			delete(l.wait, result.GetSequence())
		}
		l.mu.Unlock()
	}
}

func (l *line) reason() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}

// plain is an error of a native call as clients are told of it.
func plain(err error) error {
	if errors.Is(err, io.EOF) {
		return errBroken
	}
	if s, ok := status.FromError(err); ok {
		return errors.New(s.Message())
	}
	return err
}
