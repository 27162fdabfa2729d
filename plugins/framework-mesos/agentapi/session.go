package agentapi

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	operatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/operator/v1"
)

// What sessions may take.
const (
	// sessionMost is how many sessions may run at a time.
	sessionMost = 256
	// attachedMost is how many inputs and outputs may be attached at a time, those
	// of sessions and those of tasks.
	attachedMost = 512
	// endedMost and endedFor say which sessions that have ended are remembered, for
	// those who ask for their status.
	endedMost = 256
	endedFor  = 10 * time.Minute
	// behindMost is how many bytes an attached reader may be behind.
	behindMost = 1 << 20
	// startPatience is how long a command may take to be started.
	startPatience = 30 * time.Second
	// killPatience is how long a killed command may take to be gone before its
	// stream is cut, which kills it too.
	killPatience = 5 * time.Second
)

// execution is what carries a command, or what attaches to a container.
type execution = grpc.BidiStreamingClient[operatorv1.ExecRequest, operatorv1.ExecResponse]

// session is a command that a client had started in a task's container, as a
// container nested in it. It lives as long as the stream that carries it, and
// that as long as the adapter at most.
type session struct {
	id    string // its own id and its parents', with points between them
	owner string // the principal who started it; nobody else may use it
	tty   bool
	// main is whose connection the session lives by; nil: nobody's. It is never
	// cut off, but waited for.
	main *reader

	ctx    context.Context // of the stream
	cancel context.CancelCauseFunc
	over   context.Context // ends when all output has been passed on, and end is set
	finish context.CancelFunc
	end    ending

	far     execution
	sending chan struct{} // holds one: the right to send

	mu       sync.Mutex
	attached map[*reader]bool // nil: it has ended
}

// ending is how a command ended.
type ending struct {
	status *int32 // as wait(2) gives it; nil: nobody knows
	text   string
	at     time.Time
	failed error // it never ran
}

// reader is somebody who reads what a command writes.
type reader struct {
	out    chan *operatorv1.ExecResponse // closed early: the reader was too slow
	behind atomic.Int64                  // bytes in out
}

func newReader(messages int) *reader {
	return &reader{out: make(chan *operatorv1.ExecResponse, messages)}
}

func size(out *operatorv1.ExecResponse) int64 {
	return int64(len(out.GetStdout()) + len(out.GetStderr()))
}

// errDetached is why a session ends whose connection has ended.
var errDetached = errors.New("its connection ended")

// errKilled is why a session ends that was killed and is not gone.
var errKilled = errors.New("it was killed")

// run carries the output until the command has ended.
func (x *session) run() {
	for {
		out, err := x.far.Recv()
		if err != nil {
			x.ended(lost(x.ctx, err))
			return
		}
		if end := out.GetEnd(); end != nil {
			x.ended(exited(end))
			return
		}
		x.pass(out)
	}
}

// pass gives output to all who read: it waits for the session's own reader, and
// cuts off another that is too far behind.
func (x *session) pass(out *operatorv1.ExecResponse) {
	if x.main != nil {
		select {
		case x.main.out <- out:
		case <-x.ctx.Done():
		}
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	for r := range x.attached {
		if !r.push(out) {
			close(r.out)
			delete(x.attached, r)
		}
	}
}

func (r *reader) push(out *operatorv1.ExecResponse) bool {
	if r.behind.Add(size(out)) > behindMost {
		return false
	}
	select {
	case r.out <- out:
		return true
	default:
		return false
	}
}

// ended notes the end, once.
func (x *session) ended(end ending) {
	x.mu.Lock()
	x.attached = nil
	x.mu.Unlock()
	end.at = time.Now()
	x.end = end
	x.cancel(nil)
	x.finish()
}

// attach adds a reader, which sees what is written from now on. When the session
// has ended there is nothing to read.
func (x *session) attach() (_ *reader, leave func()) {
	const messages = 128
	r := newReader(messages)
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.attached != nil {
		x.attached[r] = true
	}
	return r, func() {
		x.mu.Lock()
		defer x.mu.Unlock()
		delete(x.attached, r)
	}
}

// send sends something to the command. It may wait as long as the command does
// not read its input, and the context lasts.
func (x *session) send(ctx context.Context, in *operatorv1.ExecRequest) error {
	select {
	case x.sending <- struct{}{}:
		defer func() { <-x.sending }()
		return x.far.Send(in)
	case <-x.over.Done():
		return errors.New("it has ended")
	case <-ctx.Done():
		return ctx.Err()
	}
}

// signal signals the command. One that is to be killed is killed, though it reads
// none of its input and the signal is stuck behind that.
func (x *session) signal(ctx context.Context, signal int32) error {
	ctx, cancel := context.WithTimeout(ctx, killPatience)
	defer cancel()
	err := x.send(ctx, &operatorv1.ExecRequest{Signal: signal})
	if signal != int32(unix.SIGKILL) {
		return err
	}
	select {
	case <-x.over.Done():
	case <-ctx.Done():
		x.cancel(errKilled)
	}
	return nil
}

// exited is the end of a command that says how it ended.
func exited(end *operatorv1.ExecEnd) ending {
	if n := end.GetSignal(); n != 0 {
		return ending{status: &n, text: fmt.Sprintf("Command terminated with signal %d (%s)", n, unix.SignalName(unix.Signal(n)))}
	}
	raw := end.GetCode() << 8
	return ending{status: &raw, text: fmt.Sprintf("Command exited with status %d", end.GetCode())}
}

// lost is the end of a command whose stream broke. Where that kills it, its
// status is known.
func lost(ctx context.Context, err error) ending {
	killed := int32(unix.SIGKILL)
	switch cause := context.Cause(ctx); {
	case cause != nil:
		return ending{status: &killed, text: "Command was killed: " + cause.Error()}
	case status.Code(err) == codes.FailedPrecondition:
		return ending{status: &killed, text: "Command was killed: " + status.Convert(err).Message()}
	}
	return ending{text: "Command was lost: " + status.Convert(err).Message()}
}
