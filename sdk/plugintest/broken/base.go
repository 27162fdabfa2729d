package broken

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"slices"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/proto"

	"github.com/mezzo-os/mezzo/sdk/plugin"
	"github.com/mezzo-os/mezzo/sdk/plugintest"
	allocatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/allocator/v1"
	pluginv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/plugin/v1"
)

// BaseFaults are the names of all faults in what every plugin serves; "none" is
// among them.
func BaseFaults() []string { return slices.Sorted(maps.Keys(baseFaults)) }

// Base opens an allocator that is right but for this fault in what every plugin
// serves: it stands before one that is right, and passes calls on.
func Base(fault string) plugintest.Open {
	return func(context.Context) (*plugintest.Plugin, error) {
		local, err := plugin.StartLocal(With("none"), nil)
		if err != nil {
			return nil, err
		}
		b := &base{inner: pluginv1.NewPluginClient(local.Conn), fault: baseFaults[fault], ended: make(chan struct{})}
		server := grpc.NewServer()
		pluginv1.RegisterPluginServer(server, b)
		if !b.fault.alone {
			var c catcher
			With("none").Register(&c)
			allocatorv1.RegisterAllocatorServer(server, c.caught)
		}
		listener := bufconn.Listen(1 << 16)
		var serving sync.WaitGroup
		serving.Go(func() { server.Serve(listener) })
		conn, err := grpc.NewClient("passthrough:///broken", grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }))
		end := sync.OnceFunc(func() {
			close(b.ended)
			if conn != nil {
				conn.Close()
			}
			server.Stop()
			serving.Wait()
			local.Close()
		})
		if err != nil {
			end()
			return nil, err
		}
		return &plugintest.Plugin{Conn: conn, Close: end}, nil
	}
}

// base is mezzo.plugin.v1.Plugin with a fault.
type base struct {
	pluginv1.UnimplementedPluginServer
	inner pluginv1.PluginClient
	fault baseFault
	ended chan struct{}

	mu        sync.Mutex
	described int
	validated int
	measured  int
}

// baseFault is one way to be wrong. Each function may be nil.
type baseFault struct {
	describe  func(d *pluginv1.Description, n int)
	configure func(r *pluginv1.ConfigureRequest, n int) (*pluginv1.ConfigureResponse, error) // both nil: as it should be
	health    func(stream grpc.ServerStreamingServer[pluginv1.HealthStatus]) error
	metrics   func(r *pluginv1.MetricsResponse, n int)
	// A call that hangs is never answered.
	hangsHealth, hangsPing, hangsShutdown bool
	// alone serves no kind's contract.
	alone bool
}

func (b *base) hang(ctx context.Context) error {
	select {
	case <-ctx.Done():
	case <-b.ended:
	}
	return status.Error(codes.Canceled, "too late")
}

func (b *base) Describe(ctx context.Context, r *pluginv1.DescribeRequest) (*pluginv1.Description, error) {
	d, err := b.inner.Describe(ctx, r)
	if err != nil || b.fault.describe == nil {
		return d, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.described++
	d = proto.CloneOf(d)
	b.fault.describe(d, b.described)
	return d, nil
}

func (b *base) Configure(ctx context.Context, r *pluginv1.ConfigureRequest) (*pluginv1.ConfigureResponse, error) {
	if b.fault.configure != nil {
		b.mu.Lock()
		b.validated++
		answer, err := b.fault.configure(r, b.validated)
		b.mu.Unlock()
		if answer != nil || err != nil {
			return answer, err
		}
	}
	return b.inner.Configure(ctx, r)
}

func (b *base) Health(r *pluginv1.HealthRequest, stream grpc.ServerStreamingServer[pluginv1.HealthStatus]) error {
	switch {
	case b.fault.hangsHealth:
		return b.hang(stream.Context())
	case b.fault.health != nil:
		return b.fault.health(stream)
	}
	inner, err := b.inner.Health(stream.Context(), r)
	for err == nil {
		var h *pluginv1.HealthStatus
		if h, err = inner.Recv(); err == nil {
			err = stream.Send(h)
		}
	}
	return err
}

func (b *base) Metrics(ctx context.Context, r *pluginv1.MetricsRequest) (*pluginv1.MetricsResponse, error) {
	answer, err := b.inner.Metrics(ctx, r)
	if err != nil || b.fault.metrics == nil {
		return answer, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.measured++
	b.fault.metrics(answer, b.measured)
	return answer, nil
}

func (b *base) Ping(ctx context.Context, r *pluginv1.PingRequest) (*pluginv1.PingResponse, error) {
	if b.fault.hangsPing {
		return nil, b.hang(ctx)
	}
	return b.inner.Ping(ctx, r)
}

func (b *base) Shutdown(ctx context.Context, r *pluginv1.ShutdownRequest) (*pluginv1.ShutdownResponse, error) {
	if b.fault.hangsShutdown {
		return nil, b.hang(ctx)
	}
	return b.inner.Shutdown(ctx, r)
}

func described(change func(*pluginv1.Description)) baseFault {
	return baseFault{describe: func(d *pluginv1.Description, _ int) { change(d) }}
}

// attribute is a fault of the schema alone: whatever is written there means
// nothing.
func attribute(a *pluginv1.Attribute) baseFault {
	out := described(func(d *pluginv1.Description) { d.Schema.Attributes = append(d.Schema.Attributes, a) })
	out.configure = func(r *pluginv1.ConfigureRequest, _ int) (*pluginv1.ConfigureResponse, error) {
		values := map[string]json.RawMessage{}
		if err := json.Unmarshal(r.GetConfig(), &values); err != nil {
			return nil, status.Error(codes.InvalidArgument, err.Error())
		}
		if text := values[a.GetName()]; len(text) > 0 && text[0] == '{' {
			return nil, status.Error(codes.InvalidArgument, "no value")
		}
		delete(values, a.GetName())
		var err error
		r.Config, err = json.Marshal(values)
		return nil, err
	}
	return out
}

// measured is a fault of one counter.
func measured(change func(f *pluginv1.MetricFamily, n int)) baseFault {
	return baseFault{metrics: func(r *pluginv1.MetricsResponse, n int) {
		f := &pluginv1.MetricFamily{
			Name: "flaw_total", Help: "It is wrong.", Type: pluginv1.MetricType_METRIC_TYPE_COUNTER, Samples: []*pluginv1.MetricSample{{Value: 1}},
		}
		change(f, n)
		r.Families = append(r.Families, f)
	}}
}

var unwanted = &pluginv1.Diagnostic{Severity: pluginv1.Severity_SEVERITY_ERROR, Summary: "no"}

var baseFaults = map[string]baseFault{
	"none":              {},
	"bad-name":          described(func(d *pluginv1.Description) { d.Name = "Not A Name" }),
	"no-version":        described(func(d *pluginv1.Description) { d.Version = "" }),
	"unknown-kind":      described(func(d *pluginv1.Description) { d.Kind = 77 }),
	"no-contract":       described(func(d *pluginv1.Description) { d.ContractVersions = nil }),
	"no-schema":         described(func(d *pluginv1.Description) { d.Schema = nil }),
	"changes-its-mind":  {describe: func(d *pluginv1.Description, n int) { d.Capabilities = append(d.Capabilities, string(rune('a'+n))) }},
	"unwritable-name":   attribute(&pluginv1.Attribute{Name: "no name", Type: pluginv1.Type_TYPE_STRING}),
	"typeless":          attribute(&pluginv1.Attribute{Name: "flaw"}),
	"unfitting-default": attribute(&pluginv1.Attribute{Name: "flaw", Type: pluginv1.Type_TYPE_DURATION, DefaultJson: `"10s"`}),
	"public-secret":     attribute(&pluginv1.Attribute{Name: "flaw", Type: pluginv1.Type_TYPE_STRING, Secret: true, DefaultJson: `"1234"`}),
	"validates-once": {configure: func(r *pluginv1.ConfigureRequest, n int) (*pluginv1.ConfigureResponse, error) {
		if r.GetValidateOnly() && n > 1 {
			return nil, status.Error(codes.FailedPrecondition, "it is configured already")
		}
		return nil, nil
	}},
	"rejects-defaults": {configure: func(r *pluginv1.ConfigureRequest, _ int) (*pluginv1.ConfigureResponse, error) {
		if r.GetValidateOnly() {
			return nil, nil
		}
		return &pluginv1.ConfigureResponse{Diagnostics: []*pluginv1.Diagnostic{unwanted}}, nil
	}},
	"accepts-nonsense": {configure: func(r *pluginv1.ConfigureRequest, _ int) (*pluginv1.ConfigureResponse, error) {
		if r.GetValidateOnly() {
			return &pluginv1.ConfigureResponse{}, nil
		}
		return nil, nil
	}},
	"accepts-any-contract": {configure: func(r *pluginv1.ConfigureRequest, _ int) (*pluginv1.ConfigureResponse, error) {
		r.ContractVersion = 1
		return nil, nil
	}},
	"wrong-kind":    {alone: true},
	"silent-health": {hangsHealth: true},
	"mute-sickness": {health: func(stream grpc.ServerStreamingServer[pluginv1.HealthStatus]) error {
		return stream.Send(&pluginv1.HealthStatus{State: pluginv1.HealthStatus_STATE_UNHEALTHY})
	}},
	"no-health": {health: func(stream grpc.ServerStreamingServer[pluginv1.HealthStatus]) error {
		return stream.Send(&pluginv1.HealthStatus{})
	}},
	"unlabelled-metrics": measured(func(f *pluginv1.MetricFamily, _ int) { f.Labels = []string{"kind"} }),
	"changing-metrics":   measured(func(f *pluginv1.MetricFamily, n int) { f.Name = fmt.Sprintf("flaw_%d_total", n) }),
	"falling-counter":    measured(func(f *pluginv1.MetricFamily, n int) { f.Samples[0].Value = 10 / float64(n) }),
	"passing-counter":    measured(func(f *pluginv1.MetricFamily, n int) { f.Samples = f.Samples[:n%2] }),
	"never-pings":        {hangsPing: true},
	"never-ends":         {hangsShutdown: true},
}
