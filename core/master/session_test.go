package master_test

import (
	"net"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	allocatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/allocator/v1"
	operatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/operator/v1"
)

// script is an allocator that does with its streams what a test says, one
// function a stream.
type script struct {
	allocatorv1.UnimplementedAllocatorServer
	streams chan func(*scripted) error
}

// scripted is one stream, after its snapshot.
type scripted struct {
	grpc.BidiStreamingServer[allocatorv1.FromCore, allocatorv1.FromAllocator]
	session  uint64
	snapshot []*allocatorv1.Event
}

func (s *script) Allocate(stream grpc.BidiStreamingServer[allocatorv1.FromCore, allocatorv1.FromAllocator]) error {
	do, open := <-s.streams
	if !open {
		return status.Error(codes.Unavailable, "the test is over")
	}
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	if first.Begin == nil {
		return status.Error(codes.InvalidArgument, "no Begin")
	}
	played := &scripted{BidiStreamingServer: stream, session: first.Session}
	for {
		m, err := stream.Recv()
		if err != nil {
			return err
		}
		played.snapshot = append(played.snapshot, m.Batch.Events...)
		if m.Batch.SnapshotEnd {
			return do(played)
		}
	}
}

// refused waits for the refusal of a decision.
func (s *scripted) refused(decision uint64) (*allocatorv1.Refused, error) {
	for {
		m, err := s.Recv()
		if err != nil {
			return nil, err
		}
		for _, event := range m.Batch.Events {
			if r := event.GetRefused(); r != nil && r.Decision == decision {
				return r, nil
			}
		}
	}
}

func (s *scripted) agents() int {
	n := 0
	for _, e := range s.snapshot {
		if e.GetAgent() != nil {
			n++
		}
	}
	return n
}

func play(t *testing.T) (*script, grpc.ClientConnInterface) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &script{streams: make(chan func(*scripted) error)}
	server := grpc.NewServer(grpc.WaitForHandlers(true))
	allocatorv1.RegisterAllocatorServer(server, s)
	done := make(chan error, 1)
	go func() { done <- server.Serve(listener) }()
	t.Cleanup(func() {
		close(s.streams)
		server.Stop()
		if err := await(t, "the allocator's end", done); err != nil {
			t.Error(err)
		}
	})
	return s, dial(t, listener.Addr().String())
}

// An allocator that fails again and again is given a new session each time,
// with the whole state; and whatever it says, the master goes on.
func TestAllocatorThatMisbehaves(t *testing.T) {
	s, conn := play(t)
	o := options(t)
	o.Allocator = conn
	m := start(t, o)
	a := newAgent(t, "h1", "cpus:4;mem:4096")

	first, fall := make(chan uint64), make(chan struct{})
	s.streams <- func(p *scripted) error {
		first <- p.session
		<-fall
		return status.Error(codes.Internal, "it fell over")
	}
	before := await(t, "the first session", first)
	a.connect(m.Addresses()["rpc"])
	awaitStatus(t, m.operator(t), func(s *operatorv1.Status) bool { return s.Agents.GetActive() == 1 })
	close(fall)

	second := make(chan *scripted)
	s.streams <- func(p *scripted) error {
		second <- p
		return p.Send(&allocatorv1.FromAllocator{Session: p.session + 1000, Ready: true}) // another's session
	}
	p := await(t, "the second session", second)
	if p.session == before || p.agents() != 1 {
		t.Errorf("session %d after %d was told of %d agents", p.session, before, p.agents())
	}

	refusals := make(chan *allocatorv1.Refused, 1)
	leave := make(chan struct{})
	s.streams <- func(p *scripted) error {
		if err := p.Send(&allocatorv1.FromAllocator{Session: p.session, Ready: true}); err != nil {
			return err
		}
		// Nothing that a decision names needs to be true.
		if err := p.Send(&allocatorv1.FromAllocator{Session: p.session, Decisions: []*allocatorv1.Decision{{
			Number: 77, Decision: &allocatorv1.Decision_Offer{Offer: &allocatorv1.OfferDecision{
				Agent: 99, Framework: 98, Role: 97, Quantities: &allocatorv1.Quantities{Kinds: []uint32{1, 2, 3}, Amounts: []int64{-5}},
			}},
		}}}); err != nil {
			return err
		}
		r, err := p.refused(77)
		if err != nil {
			return err
		}
		refusals <- r
		<-leave
		return nil
	}
	if r := await(t, "the refusal", refusals); r.Reason != allocatorv1.RefusalReason_REFUSAL_REASON_UNKNOWN_AGENT || r.Message == "" {
		t.Errorf("refused with %v", r)
	}
	close(leave)
	awaitStatus(t, m.operator(t), func(s *operatorv1.Status) bool { return s.Agents.GetActive() == 1 })
}
