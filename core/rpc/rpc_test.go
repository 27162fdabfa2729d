package rpc_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/mezzo-os/mezzo/core/rpc"
	"github.com/mezzo-os/mezzo/core/rpc/rpctest"
	"github.com/mezzo-os/mezzo/sdk/client"
	operatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/operator/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// operator answers with who asked, and watches as each test wants.
type operator struct {
	operatorv1.UnimplementedOperatorServer
	leadership string
	leader     string
	watch      func(grpc.ServerStreamingServer[operatorv1.WatchEvent]) error
	teardown   func() error
}

func (o *operator) GetStatus(ctx context.Context, _ *operatorv1.GetStatusRequest) (*operatorv1.Status, error) {
	status := &operatorv1.Status{Leadership: o.leadership, MasterId: rpc.PrincipalFrom(ctx).Name}
	if o.leader != "" {
		status.Leader = []*operatorv1.Endpoint{{Name: "http", Address: "h:1"}, {Name: "rpc", Address: o.leader}}
	}
	return status, nil
}

func (o *operator) Watch(_ *operatorv1.WatchRequest, stream grpc.ServerStreamingServer[operatorv1.WatchEvent]) error {
	return o.watch(stream)
}

func (o *operator) Teardown(context.Context, *operatorv1.TeardownRequest) (*operatorv1.TeardownResponse, error) {
	return nil, o.teardown()
}

func serve(t *testing.T, o *operator, options rpc.Options) *rpc.Server {
	t.Helper()
	if options.Address == "" {
		options.Address = "127.0.0.1:0"
	}
	server, err := rpc.Listen(options)
	if err != nil {
		t.Fatal(err)
	}
	operatorv1.RegisterOperatorServer(server, o)
	done := make(chan error, 1)
	go func() { done <- server.Serve() }()
	t.Cleanup(func() {
		server.Stop(0)
		if err := <-done; err != nil {
			t.Errorf("Serve returned %v", err)
		}
	})
	return server
}

func dial(t *testing.T, address string, o client.Options) operatorv1.OperatorClient {
	t.Helper()
	conn, err := client.Dial(address, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return operatorv1.NewOperatorClient(conn)
}

func TestLoopbackRule(t *testing.T) {
	for _, test := range []struct {
		address       string
		tls, insecure bool
		ok            bool
	}{
		{"127.0.0.1:0", false, false, true},
		{"[::1]:0", false, false, true},
		{"localhost:0", false, false, true},
		{"127.8.9.10:1", false, false, true},
		{"0.0.0.0:0", false, false, false},
		{":0", false, false, false},
		{"[::]:0", false, false, false},
		{"192.0.2.1:5061", false, false, false},
		{"master.example:5061", false, false, false},
		{"0.0.0.0:0", true, false, true},
		{"0.0.0.0:0", false, true, true},
		{"127.0.0.1", false, true, false},
	} {
		err := rpc.CheckAddress(test.address, test.tls, test.insecure)
		if (err == nil) != test.ok {
			t.Errorf("%+v: %v", test, err)
		}
	}
	if _, err := rpc.Listen(rpc.Options{Address: "0.0.0.0:0"}); err == nil || !strings.Contains(err.Error(), "insecure = true") {
		t.Errorf("Listen everywhere without TLS: %v", err)
	}
}

func TestPortInUse(t *testing.T) {
	server := serve(t, &operator{}, rpc.Options{})
	_, err := rpc.Listen(rpc.Options{Address: server.Address()})
	if err == nil || !strings.Contains(err.Error(), server.Address()) || !strings.Contains(err.Error(), "in use") {
		t.Errorf("got %v", err)
	}
}

// syncBuffer collects log lines and tells of each.
type syncBuffer struct {
	mu    sync.Mutex
	text  strings.Builder
	wrote chan struct{}
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.text.Write(p)
	b.wrote <- struct{}{}
	return len(p), nil
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

func TestStrangersAreLoggedOnceAndHarmNobody(t *testing.T) {
	logs := &syncBuffer{wrote: make(chan struct{}, 100)}
	server := serve(t, &operator{leadership: "leading"}, rpc.Options{
		Logger: hclog.New(&hclog.LoggerOptions{Output: logs}), HandshakeTimeout: 2 * time.Second,
	})
	honest := dial(t, server.Address(), client.Options{})
	ask := func() {
		t.Helper()
		if _, err := honest.GetStatus(context.Background(), &operatorv1.GetStatusRequest{}); err != nil {
			t.Fatalf("an honest client got %v", err)
		}
	}
	ask()
	for range 5 {
		stranger(t, server.Address(), "GET / HTTP/1.1\r\nHost: example\r\n\r\n")
		ask()
	}
	// One who says nothing, and one who stops in the middle of the greeting.
	var silent sync.WaitGroup
	for _, text := range []string{"", "PRI * HT"} {
		silent.Go(func() { stranger(t, server.Address(), text) })
	}
	silent.Wait()
	ask()
	<-logs.wrote
	if got := logs.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got, "does not speak gRPC") || !strings.Contains(got, "GET / HTTP/1.1") {
		t.Errorf("the log is:\n%s", got)
	}
}

// stranger says text and waits to be cut off.
func stranger(t *testing.T, address, text string) {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Error(err)
		return
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Error(err)
	}
	if _, err := io.WriteString(conn, text); err != nil {
		t.Error(err)
	}
	_, err = io.Copy(io.Discard, conn)
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		t.Errorf("who said %q was not cut off", text)
	}
}

func TestSilentClientIsLogged(t *testing.T) {
	logs := &syncBuffer{wrote: make(chan struct{}, 10)}
	server := serve(t, &operator{}, rpc.Options{Logger: hclog.New(&hclog.LoggerOptions{Output: logs}), HandshakeTimeout: 50 * time.Millisecond})
	stranger(t, server.Address(), "")
	<-logs.wrote
	if !strings.Contains(logs.String(), "said nothing") {
		t.Errorf("the log is %s", logs)
	}
}

func TestMutualTLS(t *testing.T) {
	authority, other := rpctest.NewAuthority(t), rpctest.NewAuthority(t)
	files := authority.Issue("master")
	server := serve(t, &operator{leadership: "leading"}, rpc.Options{TLS: &files})
	ask := func(config *tls.Config) (string, error) {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		answer, err := dial(t, server.Address(), client.Options{TLS: config}).GetStatus(ctx, &operatorv1.GetStatusRequest{})
		return answer.GetMasterId(), err
	}
	config := func(f client.Files) *tls.Config {
		c, err := f.Client()
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	if who, err := ask(config(authority.Issue("ads-framework"))); err != nil || who != "ads-framework" {
		t.Errorf("a certified client is %q, %v", who, err)
	}
	if _, err := ask(nil); err == nil {
		t.Error("a client in plain text was served")
	}
	// A client of another authority does not believe the server, nor the server it.
	if _, err := ask(config(other.Issue("stranger"))); err == nil {
		t.Error("a client of another authority was served")
	}
	wrong := config(other.Issue("stranger"))
	wrong.RootCAs = config(files).RootCAs
	if _, err := ask(wrong); err == nil {
		t.Error("a client with another authority's certificate was served")
	}
	none := config(files)
	none.GetClientCertificate = nil
	if _, err := ask(none); err == nil {
		t.Error("a client without a certificate was served")
	}
}

func TestTLSFilesThatCannotBeUsed(t *testing.T) {
	authority := rpctest.NewAuthority(t)
	good, second := authority.Issue("a"), authority.Issue("b")
	for name, files := range map[string]client.Files{
		"ca is not set":  {Cert: good.Cert, Key: good.Key},
		"no such file":   {CA: good.CA + ".not", Cert: good.Cert, Key: good.Key},
		"no certificate": {CA: good.Key, Cert: good.Cert, Key: good.Key},
		"private key":    {CA: good.CA, Cert: good.Cert, Key: second.Key},
	} {
		_, err := rpc.Listen(rpc.Options{Address: "127.0.0.1:0", TLS: &files})
		if err == nil || !strings.Contains(err.Error(), name) && !strings.Contains(err.Error(), strings.Fields(name)[0]) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestErrorsCrossTheWire(t *testing.T) {
	o := &operator{}
	c := dial(t, serve(t, o, rpc.Options{}).Address(), client.Options{})
	for _, kind := range []error{rpc.ErrInvalid, rpc.ErrNotFound, rpc.ErrDenied, rpc.ErrConflict, rpc.ErrUnavailable, rpc.ErrExhausted, rpc.ErrSuperseded} {
		o.teardown = func() error { return errors.Join(kind) }
		_, err := c.Teardown(context.Background(), &operatorv1.TeardownRequest{})
		got := rpc.FromStatus(err)
		if !errors.Is(got, kind) || got.Error() != kind.Error() {
			t.Errorf("%v came over as %v", kind, got)
		}
	}
	o.teardown = func() error { panic("a bug") }
	if _, err := c.Teardown(context.Background(), &operatorv1.TeardownRequest{}); status.Code(err) != codes.Internal || strings.Contains(err.Error(), "a bug") {
		t.Errorf("a panic came over as %v", err)
	}
	o.teardown = func() error { return rpc.ErrNotFound }
	if _, err := c.Teardown(context.Background(), &operatorv1.TeardownRequest{}); status.Code(err) != codes.NotFound {
		t.Errorf("after a panic: %v", err)
	}
}

// event is as large as what one Send may wait for.
func event() *operatorv1.WatchEvent {
	return &operatorv1.WatchEvent{Event: &operatorv1.WatchEvent_AgentRemoved{AgentRemoved: strings.Repeat("x", 1<<16)}}
}

func drain(stream grpc.ServerStreamingClient[operatorv1.WatchEvent]) error {
	for {
		if _, err := stream.Recv(); err != nil {
			return err
		}
	}
}

func TestCancelStreamWakesItsHandler(t *testing.T) {
	contexts := make(chan context.Context)
	o := &operator{watch: func(stream grpc.ServerStreamingServer[operatorv1.WatchEvent]) error {
		contexts <- stream.Context()
		for { // nobody reads: this blocks once the windows are full
			if err := stream.Send(event()); err != nil {
				return err
			}
		}
	}}
	c := dial(t, serve(t, o, rpc.Options{}).Address(), client.Options{})
	stream, err := c.Watch(context.Background(), &operatorv1.WatchRequest{})
	if err != nil {
		t.Fatal(err)
	}
	rpc.CancelStream(<-contexts, errors.New("enough"))
	if err := drain(stream); status.Code(err) != codes.Canceled {
		t.Errorf("the client got %v, want Canceled", err)
	}
}

// A reader that is too slow is told so, and what blocks in Send ends.
func TestSlowReaderIsCutWithTheReason(t *testing.T) {
	o := &operator{watch: func(stream grpc.ServerStreamingServer[operatorv1.WatchEvent]) error {
		s := rpc.NewSender(4<<20, stream.Send)
		for {
			m := event()
			if err := s.Push(m, 1<<16, rpc.Bulk); err != nil {
				s.Abort(err)
				return err
			}
		}
	}}
	c := dial(t, serve(t, o, rpc.Options{}).Address(), client.Options{})
	stream, err := c.Watch(context.Background(), &operatorv1.WatchRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if err := drain(stream); status.Code(err) != codes.ResourceExhausted || !strings.Contains(err.Error(), "too slowly") {
		t.Errorf("the client got %v", err)
	}
}

func TestLeader(t *testing.T) {
	standby := serve(t, &operator{leadership: "standby"}, rpc.Options{})
	leader := serve(t, &operator{leadership: "recovering"}, rpc.Options{})
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone.Close()
	conn, err := client.Leader(context.Background(), []string{gone.Addr().String(), standby.Address(), leader.Address()}, client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if !strings.HasSuffix(conn.Target(), leader.Address()) {
		t.Errorf("the leader is %s, want %s", conn.Target(), leader.Address())
	}
	// A master that does not lead tells who does.
	knowing := serve(t, &operator{leadership: "standby", leader: leader.Address()}, rpc.Options{})
	conn, err = client.Leader(context.Background(), []string{knowing.Address(), gone.Addr().String()}, client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if !strings.HasSuffix(conn.Target(), leader.Address()) {
		t.Errorf("the leader is %s, want %s", conn.Target(), leader.Address())
	}
	_, err = client.Leader(context.Background(), []string{gone.Addr().String(), standby.Address(), "zk://a/mezzo"}, client.Options{})
	if !errors.Is(err, client.ErrNoLeader) {
		t.Fatalf("got %v, want ErrNoLeader", err)
	}
	for _, part := range []string{"standby", "refused", "zk:// address cannot be dialed"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("the error does not say %q: %v", part, err)
		}
	}
}
