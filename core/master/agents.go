package master

import (
	"context"
	"errors"
	"io"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	"github.com/mezzo-os/mezzo/core/master/state"
	"github.com/mezzo-os/mezzo/core/rpc"
	linkv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/link/v1"
)

const (
	// agentQueue bounds what waits for one agent, in bytes.
	agentQueue = 8 << 20
	// registerTimeout is how long a stream has for its first message.
	registerTimeout = 30 * time.Second
)

// agentLink is one stream of one agent. Its handler receives; a goroutine that
// sends is there only while there is something to send.
type agentLink struct {
	id     state.Link
	peer   string
	ctx    context.Context
	sender *rpc.Sender[*linkv1.MasterMessage]
}

// close ends the stream after what was queued, or at once when the peer does
// not take it within the grace.
func (a *agentLink) close(reason string) {
	a.sender.Close()
	go func() {
		ctx, cancel := context.WithTimeout(a.ctx, closeGrace)
		defer cancel()
		_ = a.sender.Wait(ctx)
		rpc.CancelStream(a.ctx, errors.New(reason))
	}()
}

// agentService serves mezzo.link.v1.AgentLink.
type agentService struct {
	linkv1.UnimplementedAgentLinkServer
	master *Master
	last   atomic.Uint64
}

// Connect serves one agent until its stream ends.
func (s *agentService) Connect(stream grpc.BidiStreamingServer[linkv1.AgentMessage, linkv1.MasterMessage]) error {
	term, err := s.master.leading()
	if err != nil {
		if leader := s.master.leadersRPC(); leader != "" {
			stream.SetTrailer(metadata.Pairs(rpc.LeaderKey, leader))
		}
		return err
	}
	ctx := stream.Context()
	link := &agentLink{id: state.Link(s.last.Add(1)), peer: peerOf(ctx), ctx: ctx, sender: rpc.NewSender(agentQueue, stream.Send)}
	opened := false
	silent := time.AfterFunc(registerTimeout, func() { rpc.CancelStream(ctx, errors.New("it did not register in time")) })
	defer silent.Stop()
	for {
		message, err := stream.Recv()
		if err != nil {
			reason := ended(err)
			link.sender.Abort(errors.New(reason))
			if opened {
				_ = term.inbox.post(state.LinkClosed{Link: link.id, Reason: reason})
			}
			return nil
		}
		if register := message.GetRegister(); register.GetAgent() != nil {
			if err := s.master.authorize(ctx, rpc.RegisterAgent, rpc.Object{ID: register.GetAgent().GetHostname()}); err != nil {
				return err
			}
		}
		s.master.metrics.traffic.message(message)
		// A stream that says nothing costs the machine nothing.
		if !opened {
			silent.Stop()
			if err := term.inbox.post(link); err != nil {
				return unavailable(err.Error())
			}
			opened = true
		}
		if err := term.inbox.put(state.LinkMessage{Link: link.id, Message: message}, proto.Size(message)); err != nil {
			return unavailable(err.Error())
		}
	}
}

// ended says in a few words why a stream's Recv failed.
func ended(err error) string {
	if errors.Is(err, io.EOF) {
		return "it closed the stream"
	}
	return rpc.FromStatus(err).Error()
}
