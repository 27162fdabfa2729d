package plugintest

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	frameworkv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/framework/v1"
	operatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/operator/v1"
	executorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1/executor"
	schedulerv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1/scheduler"
)

// adapterCore is what a core offers to an adapter: at a master that is told when
// it leads, and whose cluster is empty; at an agent that has not registered.
type adapterCore struct {
	operatorv1.UnimplementedOperatorServer
	frameworkv1.UnimplementedStoreServer

	mu      sync.Mutex
	state   *frameworkv1.LeadershipState
	changed chan struct{} // closed when state has changed
	over    chan struct{}
	ended   sync.Once
	store   map[string]*frameworkv1.GetResponse
	wrong   []string // what it did with the store
}

func newAdapterCore() *adapterCore {
	return &adapterCore{
		state:   &frameworkv1.LeadershipState{State: frameworkv1.LeadershipState_STATE_STANDBY},
		changed: make(chan struct{}), over: make(chan struct{}), store: map[string]*frameworkv1.GetResponse{},
	}
}

// end ends the streams that are open.
func (a *adapterCore) end() { a.ended.Do(func() { close(a.over) }) }

func (a *adapterCore) become(state frameworkv1.LeadershipState_State, epoch uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.state = &frameworkv1.LeadershipState{State: state}
	if state == frameworkv1.LeadershipState_STATE_LEADING {
		a.state.Epoch, a.state.LeaderId = epoch, fmt.Sprintf("verify-%d", epoch)
		a.state.Endpoints = []*frameworkv1.Endpoint{{Name: "rpc", Address: "localhost:5061"}, {Name: "http", Address: "localhost:5060"}}
	}
	close(a.changed)
	a.changed = make(chan struct{})
}

func (a *adapterCore) now() (*frameworkv1.LeadershipState, <-chan struct{}) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.state, a.changed
}

func (a *adapterCore) register(r grpc.ServiceRegistrar, side frameworkv1.Side) {
	frameworkv1.RegisterStoreServer(gate{r, a, side}, a)
	frameworkv1.RegisterAuthorizationServer(r, anybody{})
	if side == frameworkv1.Side_SIDE_AGENT {
		executorv1.RegisterExecutorServer(r, executorv1.UnimplementedExecutorServer{})
		operatorv1.RegisterAgentOperatorServer(r, operatorv1.UnimplementedAgentOperatorServer{})
		return
	}
	frameworkv1.RegisterLeadershipServer(r, leadership{core: a})
	operatorv1.RegisterOperatorServer(gate{r, a, side}, a)
	schedulerv1.RegisterSchedulerServer(gate{r, a, side}, schedulerv1.UnimplementedSchedulerServer{})
}

// gate registers services of which a master that does not lead answers nothing
// but how it is.
type gate struct {
	grpc.ServiceRegistrar
	core *adapterCore
	side frameworkv1.Side
}

func (g gate) closed(method string) error {
	state, _ := g.core.now()
	if g.side != frameworkv1.Side_SIDE_MASTER || state.GetState() == frameworkv1.LeadershipState_STATE_LEADING ||
		slices.Contains([]string{"GetStatus", "ListPlugins", "GetMetrics"}, method) {
		return nil
	}
	return status.Error(codes.Unavailable, "this master does not lead")
}

func (g gate) RegisterService(desc *grpc.ServiceDesc, impl any) {
	d := *desc
	d.Methods, d.Streams = slices.Clone(d.Methods), slices.Clone(d.Streams)
	for i := range d.Methods {
		m := d.Methods[i]
		d.Methods[i].Handler = func(srv any, ctx context.Context, decode func(any) error, interceptor grpc.UnaryServerInterceptor) (any, error) {
			if err := g.closed(m.MethodName); err != nil {
				return nil, err
			}
			return m.Handler(srv, ctx, decode, interceptor)
		}
	}
	for i := range d.Streams {
		m := d.Streams[i]
		d.Streams[i].Handler = func(srv any, stream grpc.ServerStream) error {
			if err := g.closed(m.StreamName); err != nil {
				return err
			}
			return m.Handler(srv, stream)
		}
	}
	g.ServiceRegistrar.RegisterService(&d, impl)
}

func (a *adapterCore) GetStatus(context.Context, *operatorv1.GetStatusRequest) (*operatorv1.Status, error) {
	state, _ := a.now()
	return &operatorv1.Status{
		Version: "0.1.0", MasterId: state.GetLeaderId(), Epoch: state.GetEpoch(),
		Leadership: strings.ToLower(strings.TrimPrefix(state.GetState().String(), "STATE_")),
	}, nil
}

// Watch is of a cluster in which nothing is, and nothing happens while its master
// leads.
func (a *adapterCore) Watch(_ *operatorv1.WatchRequest, stream grpc.ServerStreamingServer[operatorv1.WatchEvent]) error {
	_, changed := a.now()
	if err := stream.Send(&operatorv1.WatchEvent{Event: &operatorv1.WatchEvent_SnapshotEnd{SnapshotEnd: &operatorv1.SnapshotEnd{}}}); err != nil {
		return err
	}
	select {
	case <-changed:
		return status.Error(codes.Unavailable, "this master does not lead")
	case <-a.over:
		return status.Error(codes.Unavailable, "the core ends")
	case <-stream.Context().Done():
		return stream.Context().Err()
	}
}

// anybody may do everything.
type anybody struct {
	frameworkv1.UnimplementedAuthorizationServer
}

func (anybody) Check(context.Context, *frameworkv1.CheckRequest) (*frameworkv1.CheckResponse, error) {
	return &frameworkv1.CheckResponse{}, nil
}

// leadership is the adapterCore as frameworkv1.LeadershipServer.
type leadership struct {
	frameworkv1.UnimplementedLeadershipServer
	core *adapterCore
}

func (l leadership) Watch(_ *frameworkv1.WatchLeadershipRequest, stream grpc.ServerStreamingServer[frameworkv1.LeadershipState]) error {
	for {
		state, changed := l.core.now()
		if err := stream.Send(state); err != nil {
			return err
		}
		select {
		case <-changed:
		case <-l.core.over:
			return status.Error(codes.Unavailable, "the core ends")
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
	}
}

var storeKey = regexp.MustCompile(`^[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)*$`)

const (
	maxStoreKey   = 256
	maxStoreValue = 64 << 10
	maxStoreTotal = 1 << 20
)

// misuses are what the adapter did with the store that no core accepts.
func (a *adapterCore) misuses() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.wrong)
}

// misuse notes and refuses.
func (a *adapterCore) misuse(code codes.Code, format string, args ...any) error {
	problem := fmt.Sprintf(format, args...)
	if len(a.wrong) < maxEvidence {
		a.wrong = append(a.wrong, problem)
	}
	return status.Error(code, problem)
}

func (a *adapterCore) Get(_ context.Context, r *frameworkv1.GetRequest) (*frameworkv1.GetResponse, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if x := a.store[r.GetKey()]; x != nil {
		return x, nil
	}
	return &frameworkv1.GetResponse{}, nil
}

func (a *adapterCore) Put(_ context.Context, r *frameworkv1.PutRequest) (*frameworkv1.PutResponse, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	total := len(r.GetKey()) + len(r.GetValue())
	for key, x := range a.store {
		if key != r.GetKey() {
			total += len(key) + len(x.GetValue())
		}
	}
	switch {
	case len(r.GetKey()) > maxStoreKey || !storeKey.MatchString(r.GetKey()):
		return nil, a.misuse(codes.InvalidArgument, "it puts the key %.300q; want at most %d letters, digits, '.', '_' and '-', in parts between slashes", r.GetKey(), maxStoreKey)
	case len(r.GetValue()) > maxStoreValue:
		return nil, a.misuse(codes.ResourceExhausted, "it puts %d bytes at the key %q; a value has at most %d", len(r.GetValue()), r.GetKey(), maxStoreValue)
	case total > maxStoreTotal:
		return nil, a.misuse(codes.ResourceExhausted, "with the key %q its store would have %d bytes; it has at most %d", r.GetKey(), total, maxStoreTotal)
	}
	version := a.store[r.GetKey()].GetVersion()
	if r.GetVersion() != version {
		return nil, status.Errorf(codes.Aborted, "the key's version is %d, not %d", version, r.GetVersion())
	}
	if len(r.GetValue()) == 0 {
		delete(a.store, r.GetKey())
		return &frameworkv1.PutResponse{}, nil
	}
	a.store[r.GetKey()] = &frameworkv1.GetResponse{Value: slices.Clone(r.GetValue()), Version: version + 1}
	return &frameworkv1.PutResponse{Version: version + 1}, nil
}

func (a *adapterCore) List(_ context.Context, r *frameworkv1.ListRequest) (*frameworkv1.ListResponse, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	out := &frameworkv1.ListResponse{}
	for _, key := range sortedKeys(a.store) {
		if strings.HasPrefix(key, r.GetPrefix()) {
			out.Keys = append(out.Keys, key)
		}
	}
	return out, nil
}
