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

	detected bool // the leader is detected: masters are not used

	next int // the master to try; used by the loop only

	mu      sync.Mutex
	leader  string        // as detected, or as a master told; empty: unknown
	found   chan struct{} // closed and replaced when leader changes
	address string        // of the session
	session uint64
	sender  *rpc.Sender[*linkv1.AgentMessage]
	cancel  context.CancelFunc
}

// follow learns from a detector who leads. A stream to another master is given
// up: that one may not know yet that it does not lead.
func (l *links) follow(ctx context.Context, leaders <-chan string) {
	for leader := range leaders {
		l.mu.Lock()
		l.leader = leader
		close(l.found)
		l.found = make(chan struct{})
		if leader != "" && l.address != "" && l.address != leader && l.cancel != nil {
			l.cancel()
		}
		l.mu.Unlock()
		if leader != "" {
			l.post(ctx, state.LeaderFound{})
		}
	}
}

// connect opens the stream of a session to the leader, or else the next master.
// It does not wait.
func (l *links) connect(session uint64) {
	l.close()
	address := ""
	if !l.detected {
		address = l.masters[l.next%len(l.masters)]
		l.next++
	}
	l.mu.Lock()
	l.session, l.address = session, ""
	if !l.detected && l.leader != "" {
		// A hint counts once: it may be old.
		address, l.leader = l.leader, ""
	}
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
		if address == "" {
			address = l.await(ctx, session)
		}
		why := "no master leads"
		if address != "" {
			why = fmt.Sprintf("master %s: %s", address, reason(l.stream(ctx, session, address)))
		}
		// Not with ctx, which has ended when the stream has: the input must not be
		// dropped.
		l.post(life, state.LinkDown{Session: session, Reason: why})
	})
}

// await waits until there is a leader; empty: ctx has ended.
func (l *links) await(ctx context.Context, session uint64) string {
	for {
		l.mu.Lock()
		leader, found := l.leader, l.found
		if leader != "" && l.session == session {
			l.address = leader
		}
		l.mu.Unlock()
		if leader != "" {
			return leader
		}
		select {
		case <-found:
		case <-ctx.Done():
			return ""
		}
	}
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
			if told := stream.Trailer().Get(rpc.LeaderKey); len(told) > 0 && !l.detected {
				l.mu.Lock()
				l.leader = told[0]
				l.mu.Unlock()
			}
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
	l.cancel, l.sender, l.session, l.address = nil, nil, 0, ""
}
