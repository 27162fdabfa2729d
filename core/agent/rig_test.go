package agent_test

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/mezzo-os/mezzo/core/agent"
	"github.com/mezzo-os/mezzo/core/agent/fetcher"
	isolatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/isolator/v1"
	linkv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/link/v1"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
	"github.com/mezzo-os/mezzo/sdk/resource"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == fetcher.Verb {
		if err := fetcher.Work(context.Background(), os.Stdin, os.Stdout); err != nil {
			println(err.Error())
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

// patience is how long a test waits for what must come.
const patience = time.Minute

func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

// serve runs a gRPC server on loopback.
func serve(t *testing.T, register func(*grpc.Server)) (address string, stop func()) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer()
	register(s)
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Serve(listener) }()
	return listener.Addr().String(), sync.OnceFunc(func() { s.Stop(); <-done })
}

func dial(address string) (*grpc.ClientConn, error) {
	return grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(insecure.NewCredentials()))
}

// kernel is the containers of a machine: they outlive plugins and agents.
type kernel struct {
	mu         sync.Mutex
	containers map[string]*box
	calls      []string
	fail       map[string]error // by call
	traced     []string         // the traceparents of Prepare
	changed    chan struct{}

	// What its plugins answer where it is not what the rig answers by itself.
	claim     func(*isolatorv1.Task) *isolatorv1.ClaimResponse
	provision func(context.Context, *isolatorv1.ProvisionRequest, func(string) error) error
	pulled    *isolatorv1.Pulled // what provision tells in the end
	created   *isolatorv1.CreateResponse
	images    map[string]string // by name, what was imported; nil: it keeps none
}

type box struct {
	spec    []byte
	sandbox string
	state   isolatorv1.Recovered_State
	task    *isolatorv1.Task
	status  *isolatorv1.ExitStatus
	ended   chan struct{}
	request *isolatorv1.CreateRequest
	kills   []*isolatorv1.KillRequest
}

func newKernel() *kernel {
	return &kernel{containers: map[string]*box{}, fail: map[string]error{}, changed: make(chan struct{})}
}

// note records a call, and says whether it is to fail. The lock is held.
func (k *kernel) note(call, container string) error {
	k.calls = append(k.calls, call+" "+container)
	close(k.changed)
	k.changed = make(chan struct{})
	return k.fail[call]
}

// await waits until something holds of the kernel.
func (k *kernel) await(t *testing.T, what string, holds func(*kernel) bool) {
	t.Helper()
	ctx := within(t)
	for {
		k.mu.Lock()
		ok, changed := holds(k), k.changed
		k.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			k.mu.Lock()
			defer k.mu.Unlock()
			t.Fatalf("%s: did not come about; calls were:\n%s", what, strings.Join(k.calls, "\n"))
		}
	}
}

func (k *kernel) called(prefix string) func(*kernel) bool {
	return func(k *kernel) bool {
		return slices.ContainsFunc(k.calls, func(c string) bool { return strings.HasPrefix(c, prefix) })
	}
}

// exit ends a container's process.
func (k *kernel) exit(id string, s *isolatorv1.ExitStatus) {
	k.mu.Lock()
	defer k.mu.Unlock()
	c := k.containers[id]
	c.state, c.status = isolatorv1.Recovered_STATE_EXITED, s
	close(c.ended)
}

func (k *kernel) get(id string) *box {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.containers[id]
}

// plugin is a process of the isolator.
type plugin struct {
	isolatorv1.UnimplementedIsolatorServer
	*kernel
	limits chan *isolatorv1.Limitation
}

func (p *plugin) Claim(_ context.Context, r *isolatorv1.ClaimRequest) (*isolatorv1.ClaimResponse, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	answer := &isolatorv1.ClaimResponse{Claim: isolatorv1.ClaimResponse_CLAIM_LAUNCH}
	if p.claim != nil {
		answer = p.claim(r.Task)
	}
	return answer, p.note("claim", r.Container)
}

func (p *plugin) Prepare(ctx context.Context, r *isolatorv1.PrepareRequest) (*isolatorv1.PrepareResponse, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.traced = append(p.traced, metadata.ValueFromIncomingContext(ctx, "traceparent")...)
	return &isolatorv1.PrepareResponse{Spec: r.Spec}, p.note("prepare", r.Container)
}

func (p *plugin) Create(_ context.Context, r *isolatorv1.CreateRequest) (*isolatorv1.CreateResponse, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.containers[r.Container] = &box{spec: r.Spec, sandbox: r.Sandbox, task: r.Task, state: isolatorv1.Recovered_STATE_CREATED, ended: make(chan struct{}), request: r}
	answer := &isolatorv1.CreateResponse{Pid: 4711, Handle: []byte("handle of " + r.Container)}
	if p.created != nil {
		answer.Netns, answer.Networks, answer.CgroupInfo = p.created.Netns, p.created.Networks, p.created.CgroupInfo
	}
	return answer, p.note("create", r.Container)
}

func (p *plugin) Start(_ context.Context, r *isolatorv1.StartRequest) (*isolatorv1.StartResponse, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.note("start", r.Container); err != nil {
		return nil, err
	}
	p.containers[r.Container].state = isolatorv1.Recovered_STATE_RUNNING
	return &isolatorv1.StartResponse{}, nil
}

func (p *plugin) Wait(ctx context.Context, r *isolatorv1.WaitRequest) (*isolatorv1.WaitResponse, error) {
	p.mu.Lock()
	c := p.containers[r.Container]
	_ = p.note("wait", r.Container)
	p.mu.Unlock()
	if c == nil {
		return nil, status.Error(codes.NotFound, "no such container")
	}
	select {
	case <-c.ended:
		return &isolatorv1.WaitResponse{Status: c.status}, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (p *plugin) Kill(_ context.Context, r *isolatorv1.KillRequest) (*isolatorv1.KillResponse, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if c := p.containers[r.Container]; c != nil {
		c.kills = append(c.kills, r)
	}
	return &isolatorv1.KillResponse{}, p.note("kill", r.Container)
}

func (p *plugin) Cleanup(_ context.Context, r *isolatorv1.CleanupRequest) (*isolatorv1.CleanupResponse, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.note("cleanup", r.Container); err != nil {
		return nil, err
	}
	delete(p.containers, r.Container)
	return &isolatorv1.CleanupResponse{}, nil
}

func (p *plugin) Recover(_ context.Context, r *isolatorv1.RecoverRequest) (*isolatorv1.RecoverResponse, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	answer := &isolatorv1.RecoverResponse{}
	known := map[string]bool{}
	for _, c := range r.Containers {
		known[c.Container] = true
		found := &isolatorv1.Recovered{Container: c.Container, State: isolatorv1.Recovered_STATE_LOST}
		if have := p.containers[c.Container]; have != nil {
			found.State, found.Pid = have.state, 4711
			created := have.state == isolatorv1.Recovered_STATE_CREATED && len(c.Handle) == 0 // the answer to Create was lost
			if string(c.Handle) != "handle of "+c.Container && !created || have.sandbox != c.Sandbox {
				return nil, status.Errorf(codes.InvalidArgument, "container %s has handle %q and sandbox %q", c.Container, c.Handle, c.Sandbox)
			}
		}
		answer.Containers = append(answer.Containers, found)
	}
	for id := range p.containers {
		if !known[id] {
			answer.Orphans = append(answer.Orphans, id)
		}
	}
	return answer, p.note("recover", "")
}

func (p *plugin) Limitations(_ *isolatorv1.LimitationsRequest, stream isolatorv1.Isolator_LimitationsServer) error {
	for {
		select {
		case l := <-p.limits:
			if err := stream.Send(l); err != nil {
				return err
			}
		case <-stream.Context().Done():
			return nil
		}
	}
}

// isolator is the plugin as the agent sees it: a process that comes and goes.
type isolator struct {
	t      *testing.T
	name   string
	kernel *kernel
	limits chan *isolatorv1.Limitation

	mu      sync.Mutex
	state   agent.IsolatorState
	changed chan struct{}
	stop    func()
	conn    *grpc.ClientConn
}

func newIsolator(t *testing.T, k *kernel) *isolator {
	i := &isolator{t: t, name: "fake", kernel: k, changed: make(chan struct{}), limits: make(chan *isolatorv1.Limitation, 1)}
	t.Cleanup(i.down)
	return i
}

func (i *isolator) set(s agent.IsolatorState) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.state = s
	close(i.changed)
	i.changed = make(chan struct{})
}

// up starts a process.
func (i *isolator) up() *isolator {
	address, stop := serve(i.t, func(s *grpc.Server) {
		isolatorv1.RegisterIsolatorServer(s, &plugin{kernel: i.kernel, limits: i.limits})
	})
	conn, err := dial(address)
	if err != nil {
		i.t.Fatal(err)
	}
	i.stop, i.conn = stop, conn
	i.set(agent.IsolatorState{Conn: conn, Healthy: true, Spec: []byte("{}")})
	return i
}

// down kills the process.
func (i *isolator) down() {
	if i.stop == nil {
		return
	}
	i.stop()
	i.conn.Close()
	i.stop = nil
	i.set(agent.IsolatorState{Reason: "it was killed", Spec: []byte("{}")})
}

func (i *isolator) Name() string { return i.name }

func (i *isolator) Watch(ctx context.Context, report func(agent.IsolatorState)) {
	for {
		i.mu.Lock()
		s, changed := i.state, i.changed
		i.mu.Unlock()
		report(s)
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// master is the other end of the link.
type master struct {
	linkv1.UnimplementedAgentLinkServer
	t       *testing.T
	address string

	mu       sync.Mutex
	messages []*linkv1.AgentMessage
	changed  chan struct{}
	stream   linkv1.AgentLink_ConnectServer
	hold     bool // does not acknowledge
	cuts     int  // how many more streams end as soon as the agent is registered

	offered bool // the registration that was awaited last withholds nothing
}

func newMaster(t *testing.T) *master {
	m := &master{t: t, changed: make(chan struct{})}
	address, stop := serve(t, func(s *grpc.Server) { linkv1.RegisterAgentLinkServer(s, m) })
	m.address = address
	t.Cleanup(stop)
	return m
}

func (m *master) Connect(stream linkv1.AgentLink_ConnectServer) error {
	for {
		msg, err := stream.Recv()
		if err != nil {
			if err == io.EOF {
				return nil
			}
			return err
		}
		m.mu.Lock()
		m.stream = stream
		m.mu.Unlock()
		// Before the test hears of it, which may send a Run at once.
		if msg.GetRegister() != nil && !msg.GetRegister().GetMore() {
			m.send(&linkv1.MasterMessage{Message: &linkv1.MasterMessage_Registered{Registered: &linkv1.Registered{AgentId: "A1", PingTimeoutMs: 60_000}}})
		}
		m.mu.Lock()
		m.messages = append(m.messages, msg)
		close(m.changed)
		m.changed = make(chan struct{})
		hold := m.hold
		cut := m.cuts > 0 && msg.GetRegister() != nil
		if cut {
			m.cuts--
		}
		m.mu.Unlock()
		if cut {
			return errors.New("the master is gone")
		}
		if u := msg.GetUpdate(); u != nil && !hold {
			m.send(&linkv1.MasterMessage{Message: &linkv1.MasterMessage_Acknowledge{Acknowledge: &linkv1.Acknowledge{
				Task: &linkv1.TaskRef{FrameworkId: u.GetFrameworkId(), TaskId: u.GetStatus().GetTaskId().GetValue()}, Uuid: u.GetStatus().GetUuid(),
			}}})
		}
	}
}

func (m *master) send(msg *linkv1.MasterMessage) {
	m.mu.Lock()
	defer m.mu.Unlock()
	msg.Epoch = 1
	_ = m.stream.Send(msg)
}

// await waits for a message of the agent, and takes it and all before it.
func await[M any](m *master, what string, match func(*linkv1.AgentMessage) (M, bool)) M {
	m.t.Helper()
	ctx := within(m.t)
	for {
		m.mu.Lock()
		for i, msg := range m.messages {
			if found, ok := match(msg); ok {
				m.messages = m.messages[i+1:]
				m.mu.Unlock()
				return found
			}
		}
		changed := m.changed
		m.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			m.t.Fatalf("%s: did not come; what came was %v", what, m.messages)
		}
	}
}

func (m *master) registered() *linkv1.Register {
	r := await(m, "registration", func(a *linkv1.AgentMessage) (*linkv1.Register, bool) { return a.GetRegister(), a.GetRegister() != nil })
	m.offered = r.GetAgent().GetWithheld() == ""
	return r
}

// ready waits until the agent's resources may be offered.
func (m *master) ready() {
	if m.offered {
		return // the agent had recovered before it registered
	}
	await(m, "resources that may be offered", func(a *linkv1.AgentMessage) (bool, bool) {
		agent := a.GetState().GetAgent()
		if a.GetRegister() != nil {
			agent = a.GetRegister().GetAgent()
		}
		return true, agent != nil && agent.GetWithheld() == ""
	})
}

func (m *master) update(state mezzov1.TaskState) *mezzov1.TaskStatus {
	return await(m, state.String(), func(a *linkv1.AgentMessage) (*mezzov1.TaskStatus, bool) {
		s := a.GetUpdate().GetStatus()
		return s, s != nil && s.GetState() == state
	})
}

func (m *master) run(t *mezzov1.TaskInfo) {
	m.send(&linkv1.MasterMessage{Message: &linkv1.MasterMessage_Run{Run: &linkv1.Run{
		Framework: &mezzov1.FrameworkInfo{User: proto.String(""), Name: proto.String("f"), Id: &mezzov1.FrameworkID{Value: proto.String("F1")}},
		Tasks:     []*mezzov1.TaskInfo{t},
	}}})
}

func (m *master) kill(id string, grace time.Duration) {
	m.send(&linkv1.MasterMessage{Message: &linkv1.MasterMessage_Kill{Kill: &linkv1.Kill{
		Task:       &linkv1.TaskRef{FrameworkId: "F1", TaskId: id},
		KillPolicy: &mezzov1.KillPolicy{GracePeriod: &mezzov1.DurationInfo{Nanoseconds: proto.Int64(int64(grace))}},
	}}})
}

func task(id string) *mezzov1.TaskInfo {
	return &mezzov1.TaskInfo{
		Name: proto.String(id), TaskId: &mezzov1.TaskID{Value: proto.String(id)}, AgentId: &mezzov1.AgentID{Value: proto.String("A1")},
		Resources: resource.MustParse("cpus:0.5;mem:64;ports:[31000-31001]").ToProto(),
		Command: &mezzov1.CommandInfo{
			Value:       proto.String("echo $GREETING"),
			Environment: &mezzov1.Environment{Variables: []*mezzov1.Environment_Variable{{Name: proto.String("GREETING"), Value: proto.String("hello")}}},
			User:        proto.String(me()),
		},
	}
}

// process is a running agent.
type process struct {
	*agent.Agent
	options agent.Options
	stop    func() error
}

func options(t *testing.T, m *master, i agent.Isolator) agent.Options {
	dir := t.TempDir()
	return agent.Options{
		DataDir: filepath.Join(dir, "data"), WorkDir: filepath.Join(dir, "work"), Hostname: "h1", RPCAddress: "127.0.0.1:5063",
		Masters: []string{m.address}, Dial: dial, Isolators: []agent.Isolator{i}, Resources: resource.MustParse("cpus:4;mem:1024;ports:[31000-32000]").ToProto(),
		RegistrationBackoff: 10 * time.Millisecond,
	}
}

// start runs an agent until stop, or the end of the test.
func start(t *testing.T, o agent.Options) *process {
	t.Helper()
	a, err := agent.New(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	p := &process{Agent: a, options: o, stop: sync.OnceValue(func() error { cancel(); return <-done })}
	t.Cleanup(func() {
		if err := p.stop(); err != nil {
			t.Errorf("the agent ended with %v", err)
		}
	})
	return p
}

// crashed is what a killed agent leaves: its database as it is now.
func (p *process) crashed(t *testing.T) agent.Options {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(p.options.DataDir, "agent.db"))
	if err != nil {
		t.Fatal(err)
	}
	o := p.options
	o.DataDir = t.TempDir()
	if err := os.WriteFile(filepath.Join(o.DataDir, "agent.db"), b, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := p.stop(); err != nil {
		t.Fatal(err)
	}
	return o
}

func (p *plugin) Update(_ context.Context, r *isolatorv1.UpdateRequest) (*isolatorv1.UpdateResponse, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return &isolatorv1.UpdateResponse{}, p.note("update", r.Container)
}
