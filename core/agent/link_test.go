package agent_test

import (
	"context"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/mezzo-os/mezzo/core/rpc"
	linkv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/link/v1"
)

// An agent goes where its detector sends it, though the master before still
// speaks to it.
func TestAgentFollowsTheDetector(t *testing.T) {
	k, first, second := newKernel(), newMaster(t), newMaster(t)
	leaders := make(chan string, 3)
	o := options(t, first, newIsolator(t, k).up())
	o.Masters = nil
	o.Leaders = func(ctx context.Context) <-chan string {
		out := make(chan string)
		go func() {
			defer close(out)
			for {
				select {
				case leader := <-leaders:
					select {
					case out <- leader:
					case <-ctx.Done():
						return
					}
				case <-ctx.Done():
					return
				}
			}
		}()
		return out
	}
	leaders <- "" // nobody yet
	start(t, o)
	leaders <- first.address
	first.registered()
	leaders <- second.address
	second.registered()
}

// standby is a master that does not lead, and knows who does.
type standby struct {
	linkv1.UnimplementedAgentLinkServer
	leader string
}

func (s *standby) Connect(stream linkv1.AgentLink_ConnectServer) error {
	stream.SetTrailer(metadata.Pairs(rpc.LeaderKey, s.leader))
	return status.Error(codes.Unavailable, "this master does not lead")
}

// An agent that knows one address asks there, and goes where it is told.
func TestAgentFollowsAStandbysWord(t *testing.T) {
	leader := newMaster(t)
	address, stop := serve(t, func(s *grpc.Server) { linkv1.RegisterAgentLinkServer(s, &standby{leader: leader.address}) })
	t.Cleanup(stop)
	o := options(t, leader, newIsolator(t, newKernel()).up())
	o.Masters = []string{address}
	start(t, o)
	leader.registered()
}
