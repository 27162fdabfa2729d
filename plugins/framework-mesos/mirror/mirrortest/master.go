// Package mirrortest is a master for tests: it serves the Operator service as
// far as mirrors use it, from what a test tells it.
package mirrortest

import (
	"context"
	"net"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	operatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/operator/v1"
)

// Master is a master that knows what it was told by Tell. Orders that a test
// wants to see are answered by Service, which may be nil.
type Master struct {
	operatorv1.OperatorServer
	Client operatorv1.OperatorClient

	mu     sync.Mutex
	status *operatorv1.Status
	events []*operatorv1.WatchEvent
	news   chan struct{}
	broken error // why feeds end; nil: they go on
	feeds  int
}

// Start serves on loopback until the test ends. orders answers what the master
// itself does not, and may be nil.
func Start(t testing.TB, orders operatorv1.OperatorServer) *Master {
	t.Helper()
	if orders == nil {
		orders = operatorv1.UnimplementedOperatorServer{}
	}
	m := &Master{OperatorServer: orders, news: make(chan struct{}), status: &operatorv1.Status{Leadership: "leading", MasterId: "m-1", Version: "0.1.0"}}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	operatorv1.RegisterOperatorServer(server, m)
	done := make(chan struct{})
	go func() { defer close(done); _ = server.Serve(listener) }()
	conn, err := grpc.NewClient(listener.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(64<<20)))
	if err != nil {
		t.Fatal(err)
	}
	m.Client = operatorv1.NewOperatorClient(conn)
	t.Cleanup(func() { conn.Close(); server.Stop(); <-done })
	return m
}

// Tell has the master know, and tell all feeds, what is in the events. It
// numbers them.
func (m *Master) Tell(events ...*operatorv1.WatchEvent) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, e := range events {
		e.Number = uint64(len(m.events) + 1)
		m.events = append(m.events, e)
	}
	m.wake()
}

// SetStatus changes what the master says of itself.
func (m *Master) SetStatus(change func(*operatorv1.Status)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	change(m.status)
}

// Break ends all feeds with an error, and those to come until it is called with
// nil.
func (m *Master) Break(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.broken = err
	m.wake()
}

// Feeds is how many feeds have begun.
func (m *Master) Feeds() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.feeds
}

func (m *Master) wake() {
	close(m.news)
	m.news = make(chan struct{})
}

// GetStatus implements the service.
func (m *Master) GetStatus(context.Context, *operatorv1.GetStatusRequest) (*operatorv1.Status, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := proto.Clone(m.status).(*operatorv1.Status)
	out.Event = uint64(len(m.events))
	return out, nil
}

// Watch implements the service: the snapshot is all that was told so far.
func (m *Master) Watch(q *operatorv1.WatchRequest, stream grpc.ServerStreamingServer[operatorv1.WatchEvent]) error {
	if !q.GetDetail() {
		return status.Error(codes.InvalidArgument, "a mirror wants details")
	}
	m.mu.Lock()
	m.feeds++
	next := len(m.events)
	all := m.events[:next]
	if m.broken != nil {
		defer m.mu.Unlock()
		return m.broken
	}
	m.mu.Unlock()
	var batch []*operatorv1.WatchEvent
	for _, e := range all {
		copied := proto.Clone(e).(*operatorv1.WatchEvent)
		copied.Number = 0
		batch = append(batch, copied)
	}
	batch = append(batch, &operatorv1.WatchEvent{Event: &operatorv1.WatchEvent_SnapshotEnd{SnapshotEnd: &operatorv1.SnapshotEnd{Next: uint64(next + 1)}}})
	if err := stream.Send(&operatorv1.WatchEvent{Event: &operatorv1.WatchEvent_Batch{Batch: &operatorv1.WatchBatch{Events: batch}}}); err != nil {
		return err
	}
	for {
		m.mu.Lock()
		fresh, news, broken := m.events[next:], m.news, m.broken
		m.mu.Unlock()
		for _, e := range fresh {
			if err := stream.Send(e); err != nil {
				return err
			}
		}
		next += len(fresh)
		if broken != nil {
			return broken
		}
		if len(fresh) > 0 {
			continue
		}
		select {
		case <-news:
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
	}
}

// Patience bounds what tests wait for.
const Patience = time.Minute
