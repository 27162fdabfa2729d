package client

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"

	operatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/operator/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// master says of itself what it is made to.
type master struct {
	operatorv1.UnimplementedOperatorServer
	status  *operatorv1.Status
	address string
	asked   chan struct{} // gets one a question
	silent  bool          // it does not answer
}

func (m *master) GetStatus(ctx context.Context, _ *operatorv1.GetStatusRequest) (*operatorv1.Status, error) {
	m.asked <- struct{}{}
	if m.silent {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return m.status, nil
}

func serve(t *testing.T, m *master) *master {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	m.address, m.asked = listener.Addr().String(), make(chan struct{}, 100)
	server := grpc.NewServer(grpc.WaitForHandlers(true))
	operatorv1.RegisterOperatorServer(server, m)
	done := make(chan error, 1)
	go func() { done <- server.Serve(listener) }()
	t.Cleanup(func() {
		server.Stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return m
}

func leads(t *testing.T, epoch uint64) *master {
	return serve(t, &master{status: &operatorv1.Status{Leadership: "leading", Epoch: epoch}})
}

// found is the master that Leader takes.
func found(t *testing.T, o Options, among ...*master) (*master, error) {
	t.Helper()
	var addresses []string
	for _, m := range among {
		addresses = append(addresses, m.address)
	}
	conn, err := Leader(t.Context(), addresses, o)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	for _, m := range among {
		if strings.HasSuffix(conn.Target(), m.address) {
			return m, nil
		}
	}
	t.Fatalf("it is connected to %s, which was not asked", conn.Target())
	return nil, nil
}

// A master that was stopped and goes on says that it leads, until it finds out.
func TestOfSeveralLeadersTheLatestIsTaken(t *testing.T) {
	old, latest, recovering := leads(t, 3), leads(t, 4), serve(t, &master{status: &operatorv1.Status{Leadership: "recovering"}})
	o := Options{contest: time.Minute}
	for _, among := range [][]*master{{old, latest, recovering}, {recovering, latest, old}, {latest, old, recovering}} {
		if got, err := found(t, o, among...); err != nil || got != latest {
			t.Errorf("took %+v, %v; want the leader of epoch 4", got, err)
		}
	}
}

// A machine that is dead does not keep anybody from the leader.
func TestOneThatIsSilentIsNotWaitedFor(t *testing.T) {
	silent, leader := serve(t, &master{silent: true}), leads(t, 4)
	if got, err := found(t, Options{contest: time.Millisecond}, silent, leader); err != nil || got != leader {
		t.Errorf("took %+v, %v; want the leader", got, err)
	}
}

func TestNoLeaderOlderThanOneThatWasSeen(t *testing.T) {
	old, latest, newest := leads(t, 3), leads(t, 4), leads(t, 5)
	untold := leads(t, 0)
	seen := &Epochs{}
	o := Options{Epochs: seen, contest: time.Minute}
	for _, step := range []struct {
		among []*master
		want  *master
	}{
		{[]*master{old}, old}, {[]*master{latest}, latest}, {[]*master{old}, nil}, {[]*master{latest}, latest},
		{[]*master{old, newest}, newest}, {[]*master{old, latest}, nil}, {[]*master{untold}, untold}, {[]*master{latest}, nil},
	} {
		got, err := found(t, o, step.among...)
		if got != step.want {
			t.Fatalf("took %+v, %v; want %+v", got, err, step.want)
		}
		if step.want == nil && (!errors.Is(err, ErrNoLeader) || !strings.Contains(err.Error(), "a later leader, of epoch")) {
			t.Errorf("the error is %v", err)
		}
	}
	// Whoever remembers nothing takes what there is.
	if got, err := found(t, Options{}, old); got != old {
		t.Errorf("took %+v, %v; want the only one", got, err)
	}
}

// A leader of before that is asked while a later one is found by another question
// of the same client.
func TestALaterLeaderIsSeenMeanwhile(t *testing.T) {
	old, silent := leads(t, 3), serve(t, &master{silent: true})
	seen := &Epochs{}
	ended := make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() {
		conn, err := Leader(ctx, []string{old.address, silent.address}, Options{Epochs: seen, contest: time.Minute})
		if err == nil {
			conn.Close()
		}
		ended <- err
	}()
	<-old.asked
	<-silent.asked
	if err := seen.Admit(4); err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := <-ended; !errors.Is(err, ErrNoLeader) {
		t.Errorf("the leader of before was taken: %v", err)
	}
}
