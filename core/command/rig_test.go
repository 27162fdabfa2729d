package command

import (
	"bytes"
	"cmp"
	"context"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/structpb"

	operatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/operator/v1"
)

// patience bounds every wait for something that must happen.
const patience = time.Minute

// testMaster is a master whose answers the test decides. What a test does not set is
// answered with UNIMPLEMENTED, or with nothing in it.
type testMaster struct {
	operatorv1.UnimplementedOperatorServer
	address string

	mu         sync.Mutex
	agents     []*operatorv1.Agent
	frameworks []*operatorv1.Framework
	tasks      []*operatorv1.Task
	roles      []*operatorv1.Role
	plugins    []*operatorv1.Plugin
	leadership string   // "leading" without it
	killed     []string // tasks, and frameworks that were torn down
	watches    chan watchCall
}

// watchCall is one that watches: what is sent to events it hears, and what is sent
// to end ends it.
type watchCall struct {
	request *operatorv1.WatchRequest
	events  chan<- *operatorv1.WatchEvent
	end     chan<- error
}

func newMaster(t *testing.T) *testMaster {
	t.Helper()
	m := &testMaster{watches: make(chan watchCall)}
	m.address = serve(t, func(s *grpc.Server) { operatorv1.RegisterOperatorServer(s, m) })
	return m
}

// serve serves on loopback until the test ends.
func serve(t *testing.T, register func(*grpc.Server)) (address string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server, served := grpc.NewServer(), make(chan struct{})
	register(server)
	go func() {
		defer close(served)
		_ = server.Serve(listener)
	}()
	t.Cleanup(func() {
		server.Stop()
		<-served
	})
	return listener.Addr().String()
}

func (m *testMaster) GetStatus(context.Context, *operatorv1.GetStatusRequest) (*operatorv1.Status, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return &operatorv1.Status{
		MasterId: "m", Leadership: cmp.Or(m.leadership, "leading"), Version: "0.1.0", Epoch: 1,
		Agents:     &operatorv1.Counts{Total: uint64(len(m.agents)), Active: uint64(len(m.agents))},
		Frameworks: &operatorv1.Counts{Total: uint64(len(m.frameworks))},
		Tasks:      &operatorv1.Counts{Total: uint64(len(m.tasks)), Active: uint64(len(m.tasks))},
		Total:      quantities(map[string]float64{"cpus": 8, "mem": 8192}), Allocated: quantities(map[string]float64{"cpus": 2, "mem": 512}),
	}, nil
}

func (m *testMaster) ListAgents(context.Context, *operatorv1.ListAgentsRequest) (*operatorv1.ListAgentsResponse, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return &operatorv1.ListAgentsResponse{Agents: m.agents}, nil
}

func (m *testMaster) ListFrameworks(context.Context, *operatorv1.ListFrameworksRequest) (*operatorv1.ListFrameworksResponse, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return &operatorv1.ListFrameworksResponse{Frameworks: m.frameworks}, nil
}

func (m *testMaster) ListTasks(_ context.Context, q *operatorv1.ListTasksRequest) (*operatorv1.ListTasksResponse, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	answer := &operatorv1.ListTasksResponse{}
	for _, t := range m.tasks {
		if (q.TaskId == "" || q.TaskId == t.Id) && (q.FrameworkId == "" || q.FrameworkId == t.FrameworkId) && (q.AgentId == "" || q.AgentId == t.AgentId) && (q.Completed || !t.GetState().Terminal()) {
			answer.Tasks = append(answer.Tasks, t)
		}
	}
	return answer, nil
}

func (m *testMaster) ListRoles(context.Context, *operatorv1.ListRolesRequest) (*operatorv1.ListRolesResponse, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return &operatorv1.ListRolesResponse{Roles: m.roles}, nil
}

func (m *testMaster) ListPlugins(context.Context, *operatorv1.ListPluginsRequest) (*operatorv1.ListPluginsResponse, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return &operatorv1.ListPluginsResponse{Plugins: m.plugins}, nil
}

func (m *testMaster) KillTask(_ context.Context, q *operatorv1.KillTaskRequest) (*operatorv1.KillTaskResponse, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.killed = append(m.killed, q.FrameworkId+"/"+q.TaskId)
	return &operatorv1.KillTaskResponse{}, nil
}

func (m *testMaster) Teardown(_ context.Context, q *operatorv1.TeardownRequest) (*operatorv1.TeardownResponse, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.killed = append(m.killed, q.FrameworkId)
	return &operatorv1.TeardownResponse{}, nil
}

func (m *testMaster) Watch(q *operatorv1.WatchRequest, stream grpc.ServerStreamingServer[operatorv1.WatchEvent]) error {
	events, end := make(chan *operatorv1.WatchEvent), make(chan error, 1)
	select {
	case m.watches <- watchCall{q, events, end}:
	case <-stream.Context().Done():
		return stream.Context().Err()
	}
	for {
		select {
		case e := <-events:
			if err := stream.Send(e); err != nil {
				return err
			}
		case err := <-end:
			return err
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
	}
}

// watched waits for the next one that watches.
func (m *testMaster) watched(t *testing.T) watchCall {
	t.Helper()
	select {
	case w := <-m.watches:
		return w
	case <-time.After(patience):
		t.Fatal("nobody watches")
		return watchCall{}
	}
}

// tell sends events, after or without a snapshot's end.
func (w watchCall) tell(t *testing.T, events ...*operatorv1.WatchEvent) {
	t.Helper()
	for _, e := range events {
		select {
		case w.events <- e:
		case <-time.After(patience):
			t.Fatal("nobody hears")
		}
	}
}

func snapshotEnd() *operatorv1.WatchEvent {
	return &operatorv1.WatchEvent{Event: &operatorv1.WatchEvent_SnapshotEnd{SnapshotEnd: &operatorv1.SnapshotEnd{}}}
}

func taskEvent(t *operatorv1.Task) *operatorv1.WatchEvent {
	return &operatorv1.WatchEvent{Event: &operatorv1.WatchEvent_Task{Task: t}}
}

func agentEvent(a *operatorv1.Agent) *operatorv1.WatchEvent {
	return &operatorv1.WatchEvent{Event: &operatorv1.WatchEvent_Agent{Agent: a}}
}

func quantities(of map[string]float64) *structpb.Struct {
	s := &structpb.Struct{Fields: map[string]*structpb.Value{}}
	for name, v := range of {
		s.Fields[name] = structpb.NewNumberValue(v)
	}
	return s
}

// buffer is written by one goroutine and read by another.
type buffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// await waits until a text is there.
func (b *buffer) await(t *testing.T, text string) {
	t.Helper()
	for deadline := time.Now().Add(patience); !strings.Contains(b.String(), text); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%q does not come; there is:\n%s", text, b.String())
		}
	}
}

// command is a command line that runs.
type command struct {
	out, err *buffer
	cancel   context.CancelFunc
	code     chan int
}

// start begins a command line, and ends it when the test ends.
func start(t *testing.T, args ...string) *command {
	t.Helper()
	out := &buffer{}
	c := startOn(t, strings.NewReader(""), out, args...)
	c.out = out
	return c
}

// startOn begins one with an input and an output of the test's.
func startOn(t *testing.T, in io.Reader, out io.Writer, args ...string) *command {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	c := &command{err: &buffer{}, cancel: cancel, code: make(chan int, 1)}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		c.code <- run(ctx, args, in, out, c.err)
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
	})
	return c
}

// invoke runs a command line to its end.
func invoke(t *testing.T, args ...string) (out, errOut string, code int) {
	t.Helper()
	var o, e bytes.Buffer
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	code = run(ctx, args, strings.NewReader(""), &o, &e)
	return o.String(), e.String(), code
}
