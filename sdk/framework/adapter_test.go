package framework_test

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/mezzo-os/mezzo/sdk/framework"
	"github.com/mezzo-os/mezzo/sdk/plugin"
	frameworkv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/framework/v1"
	operatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/operator/v1"
	pluginv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/plugin/v1"
)

// core is what a test offers to an adapter: it tells for whom GetStatus was
// called.
type core struct {
	operatorv1.UnimplementedOperatorServer
}

func (core) GetStatus(ctx context.Context, _ *operatorv1.GetStatusRequest) (*operatorv1.Status, error) {
	in, _ := metadata.FromIncomingContext(ctx)
	return &operatorv1.Status{MasterId: strings.Join(in.Get(framework.PrincipalKey), ",")}, nil
}

// probe is an adapter that keeps what it got.
type probe struct {
	fail     error
	core     *framework.Core
	life     context.Context
	shutdown bool
}

func (p *probe) Serve(ctx context.Context, c *framework.Core) (*framework.Serving, error) {
	p.core, p.life = c, ctx
	if p.fail != nil {
		return nil, p.fail
	}
	return &framework.Serving{
		Endpoints:           map[string]string{"probe": "h1:7000", "extra": "h1:7001"},
		ExecutorEnvironment: map[string]string{"PROBE": "1"},
	}, nil
}

func (p *probe) Shutdown(context.Context) { p.shutdown = p.life.Err() != nil }

// start serves an adapter in this process and configures it.
func start(t *testing.T, p *probe) (frameworkv1.FrameworkClient, *frameworkv1.ServeRequest, *plugin.Local) {
	t.Helper()
	local, err := plugin.StartLocal(framework.Definition{
		Name: "probe", Version: "1.0.0", Summary: "For a test.",
		New: func(any, plugin.Environment) (framework.Adapter, []plugin.Diagnostic) { return p, nil },
	}.Plugin(), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(local.Close)
	id, err := local.Offer(func(s grpc.ServiceRegistrar) { operatorv1.RegisterOperatorServer(s, core{}) })
	if err != nil {
		t.Fatal(err)
	}
	return frameworkv1.NewFrameworkClient(local.Conn), &frameworkv1.ServeRequest{
		Side: framework.Master, Core: id, Hostname: "h1", Version: "0.1.0",
	}, local
}

func configure(t *testing.T, local *plugin.Local) {
	t.Helper()
	_, err := pluginv1.NewPluginClient(local.Conn).Configure(t.Context(), &pluginv1.ConfigureRequest{
		Config: []byte("{}"), ContractVersion: 1, DataDir: t.TempDir(),
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestAdapterServesOnce(t *testing.T) {
	p := &probe{}
	client, request, local := start(t, p)
	if _, err := client.Serve(t.Context(), request); status.Code(err) != codes.FailedPrecondition {
		t.Errorf("before Configure: %v, want FailedPrecondition", err)
	}
	configure(t, local)
	answer, err := client.Serve(t.Context(), request)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, e := range answer.GetEndpoints() {
		got[e.GetName()] = e.GetAddress()
	}
	for _, v := range answer.GetExecutorEnvironment() {
		got[v.GetName()] = v.GetValue()
	}
	if diff := cmp.Diff(map[string]string{"probe": "h1:7000", "extra": "h1:7001", "PROBE": "1"}, got); diff != "" {
		t.Errorf("what the core is told (-want +got):\n%s", diff)
	}
	if p.core.Side != framework.Master || p.core.Hostname != "h1" || p.core.Version != "0.1.0" || p.core.DataDir == "" {
		t.Errorf("the adapter is told %+v", p.core)
	}
	if _, err := client.Serve(t.Context(), request); status.Code(err) != codes.FailedPrecondition {
		t.Errorf("a second Serve: %v, want FailedPrecondition", err)
	}
	for want, ctx := range map[string]context.Context{"": t.Context(), "ann": framework.WithPrincipal(t.Context(), "ann")} {
		who, err := p.core.Operator().GetStatus(ctx, &operatorv1.GetStatusRequest{})
		if err != nil || who.GetMasterId() != want {
			t.Errorf("the core hears of principal %q (%v), want %q", who.GetMasterId(), err, want)
		}
	}
	local.Close()
	if !p.shutdown {
		t.Error("Shutdown was not called, or what it has to wait for was not told to end")
	}
}

func TestAdapterThatCannotServeSaysWhy(t *testing.T) {
	p := &probe{fail: errors.New("port 7000 is taken")}
	client, request, local := start(t, p)
	configure(t, local)
	_, err := client.Serve(t.Context(), request)
	if s := status.Convert(err); s.Code() != codes.FailedPrecondition || s.Message() != "port 7000 is taken" {
		t.Errorf("got %v, want FailedPrecondition with the adapter's own words", err)
	}
}

func TestListenComesBackAtTheSamePort(t *testing.T) {
	c := &framework.Core{DataDir: t.TempDir()}
	first, err := c.Listen(t.Context(), "probe", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := first.Addr().String()
	other, err := c.Listen(t.Context(), "other", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if other.Addr().String() == address {
		t.Error("two listeners have one address")
	}
	first.Close()
	again, err := c.Listen(t.Context(), "probe", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if got := again.Addr().String(); got != address {
		t.Errorf("came back at %s, want %s", got, address)
	}
	// Where the port is taken for good, another is better than none.
	short, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	moved, err := c.Listen(short, "probe", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer moved.Close()
	again.Close()
	if moved.Addr().String() == address {
		t.Error("two listeners have one address")
	}
}

func TestListenWaitsForAPortThatIsGivenUp(t *testing.T) {
	c := &framework.Core{DataDir: t.TempDir()}
	before, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	type result struct {
		listener net.Listener
		err      error
	}
	got := make(chan result, 1)
	go func() {
		l, err := c.Listen(t.Context(), "probe", before.Addr().String())
		got <- result{l, err}
	}()
	before.Close()
	r := <-got
	if r.err != nil {
		t.Fatal(r.err)
	}
	r.listener.Close()
	if _, err := c.Listen(t.Context(), "probe", "nonsense"); err == nil {
		t.Error("an address without a port is taken")
	}
}
