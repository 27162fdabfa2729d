package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/mezzo-os/mezzo/core/agent/state"
	"github.com/mezzo-os/mezzo/core/rpc"
	"github.com/mezzo-os/mezzo/sdk/client"
	linkv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/link/v1"
)

// linkBuffer bounds, in bytes, what waits to be sent to the master. An agent
// whose master reads too slowly registers again.
const linkBuffer = 64 << 20

// links opens streams to masters, one at a time.
type links struct {
	dial    func(string) (*grpc.ClientConn, error)
	masters []string
	post    func(context.Context, state.Input)
	run     func(func(context.Context)) // runs it as part of the agent

	next int // the master to try; used by the loop only

	mu      sync.Mutex
	session uint64
	sender  *rpc.Sender[*linkv1.AgentMessage]
	cancel  context.CancelFunc
}

// connect opens the stream of a session to the next master. It does not wait.
func (l *links) connect(session uint64) {
	l.close()
	address := l.masters[l.next%len(l.masters)]
	l.next++
	l.mu.Lock()
	l.session = session
	l.mu.Unlock()
	l.run(func(life context.Context) {
		ctx, cancel := context.WithCancel(life)
		defer cancel()
		l.mu.Lock()
		if l.session != session {
			l.mu.Unlock()
			return
		}
		l.cancel = cancel
		l.mu.Unlock()
		err := l.stream(ctx, session, address)
		// Not with ctx, which has ended when the stream has: the input must not be
		// dropped.
		l.post(life, state.LinkDown{Session: session, Reason: fmt.Sprintf("master %s: %s", address, reason(err))})
	})
}

// reason is an error without gRPC's wrapping.
func reason(err error) string {
	if errors.Is(err, io.EOF) {
		return "closed the stream"
	}
	return client.Reason(err)
}

// stream carries one session until it ends.
func (l *links) stream(ctx context.Context, session uint64, address string) error {
	conn, err := l.dial(address)
	if err != nil {
		return err
	}
	defer conn.Close()
	stream, err := linkv1.NewAgentLinkClient(conn).Connect(ctx)
	if err != nil {
		return err
	}
	sender := rpc.NewSender(linkBuffer, stream.Send)
	defer func() {
		sender.Abort(io.EOF)
		l.mu.Lock()
		if l.sender == sender {
			l.sender = nil
		}
		cancel := l.cancel
		current := l.session == session
		l.mu.Unlock()
		if current && cancel != nil {
			cancel() // ends a send that is under way
		}
		<-sender.Done()
	}()
	l.mu.Lock()
	if l.session != session {
		l.mu.Unlock()
		return context.Canceled
	}
	l.sender = sender
	l.mu.Unlock()
	l.post(ctx, state.LinkUp{Session: session, Master: address})
	for {
		message, err := stream.Recv()
		if err != nil {
			return err
		}
		l.post(ctx, state.LinkMessage{Session: session, Message: message})
	}
}

// send queues a message. It reports false when the master reads too slowly, and
// the stream has to be given up; a message of an older session is dropped.
func (l *links) send(o state.SendMaster) bool {
	l.mu.Lock()
	sender := l.sender
	if l.session != o.Session {
		sender = nil
	}
	l.mu.Unlock()
	if sender == nil {
		return true
	}
	class := rpc.Bulk
	if o.Message.GetPong() != nil {
		class = rpc.Control
	}
	return !errors.Is(sender.Push(o.Message, proto.Size(o.Message), class), rpc.ErrQueueFull)
}

// finish sends what is queued and closes the stream, or gives up with the
// context.
func (l *links) finish(ctx context.Context) {
	l.mu.Lock()
	sender := l.sender
	l.mu.Unlock()
	if sender != nil {
		sender.Close()
		_ = sender.Wait(ctx)
	}
	l.close()
}

// close gives the stream up.
func (l *links) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cancel != nil {
		l.cancel()
	}
	l.cancel, l.sender, l.session = nil, nil, 0
}
