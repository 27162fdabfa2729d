// Package mastertest puts a master under load: many simulated agents, and
// schedulers, over few connections, with real streams. Tests, benchmarks and
// `make bench` use it.
//
//	swarm, err := mastertest.NewSwarm(mastertest.SwarmOptions{Address: address, Agents: 1000})
//	if err != nil {
//		return err
//	}
//	defer swarm.Close()
//	err = swarm.AwaitRegistered(ctx)
package mastertest

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/protobuf/proto"

	"github.com/mezzo-os/mezzo/core/link"
	"github.com/mezzo-os/mezzo/sdk/client"
	linkv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/link/v1"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
	"github.com/mezzo-os/mezzo/sdk/resource"
)

// Version is what simulated agents say that they are.
const Version = "0.1.0"

// retryMin and retryMax bound the pause before an agent connects again.
const retryMin, retryMax = 50 * time.Millisecond, 150 * time.Millisecond

// SwarmOptions say which agents there are.
type SwarmOptions struct {
	// Address is the master's.
	Address string
	// Agents is how many there are, and Connections how many connections they
	// share; 0: one for every hundred.
	Agents, Connections int
	// Register is what agent i says when it registers, but for its id; nil:
	// 16 cpus, 64 GiB, some disk and ports, and no tasks.
	Register func(i int) *linkv1.Register
	// Run is called when the agent is told to launch; nil: every task has
	// finished at once. It is called from the agent's own goroutine.
	Run func(a *Agent, run *linkv1.Run)
	// Reconnect: an agent that loses its stream connects again.
	Reconnect bool
	// Backoff is how long an agent waits before, as real ones do: a random part of
	// it, which doubles up to a minute while it does not register; 0: always a
	// tenth of a second or so.
	Backoff time.Duration
}

// Swarm is many simulated agents.
type Swarm struct {
	options SwarmOptions
	agents  []*Agent
	conns   []*grpc.ClientConn
	cancel  context.CancelFunc
	ended   sync.WaitGroup

	mu         sync.Mutex
	registered int
	reached    chan struct{} // closed when all have registered; replaced by Forget
	failed     error
}

// Agent is one simulated agent. Its methods may be called from any goroutine.
type Agent struct {
	// Index is its number in the swarm, from 0.
	Index int

	swarm  *Swarm
	id     atomic.Pointer[string]
	mu     sync.Mutex // of sending
	stream grpc.BidiStreamingClient[linkv1.AgentMessage, linkv1.MasterMessage]
	serial uint64
	in     bool // counted as registered
}

// NewSwarm starts the agents. AwaitRegistered waits for them.
func NewSwarm(o SwarmOptions) (*Swarm, error) {
	if o.Connections == 0 {
		o.Connections = (o.Agents + 99) / 100
	}
	if o.Register == nil {
		o.Register = plain
	}
	if o.Run == nil {
		o.Run = finish
	}
	ctx, cancel := context.WithCancel(context.Background())
	s := &Swarm{options: o, cancel: cancel, reached: make(chan struct{})}
	for range o.Connections {
		conn, err := Dial(o.Address)
		if err != nil {
			s.Close()
			return nil, err
		}
		s.conns = append(s.conns, conn)
	}
	for i := range o.Agents {
		a := &Agent{Index: i, swarm: s}
		s.agents = append(s.agents, a)
		s.ended.Go(func() { a.live(ctx, linkv1.NewAgentLinkClient(s.conns[i%len(s.conns)])) })
	}
	return s, nil
}

// Dial returns a connection that many may share, and that is made again
// quickly when its master comes back.
func Dial(address string) (*grpc.ClientConn, error) {
	return client.Dial(address, client.Options{Dial: []grpc.DialOption{
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: retryMin, Multiplier: 1.2, Jitter: 0.2, MaxDelay: retryMax},
			MinConnectTimeout: 5 * time.Second,
		}),
		grpc.WithDefaultCallOptions(grpc.WaitForReady(true)),
	}})
}

func plain(i int) *linkv1.Register {
	p := link.NewPacker()
	total := p.Pack(resource.MustParse("cpus:16;mem:65536;disk:102400;ports:[31000-32000]"))
	return &linkv1.Register{
		Agent: &linkv1.Agent{Hostname: fmt.Sprint("h", i), Version: Version, Resources: total, BootId: "b"},
		Kinds: p.Kinds(),
	}
}

func finish(a *Agent, run *linkv1.Run) {
	for _, task := range run.GetTasks() {
		a.Update(run.GetFramework().GetId().GetValue(), task.GetTaskId().GetValue(), mezzov1.TaskState_TASK_FINISHED)
	}
}

// AwaitRegistered waits until every agent is registered.
func (s *Swarm) AwaitRegistered(ctx context.Context) error {
	s.mu.Lock()
	reached := s.reached
	s.mu.Unlock()
	select {
	case <-reached:
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.failed
	case <-ctx.Done():
		s.mu.Lock()
		defer s.mu.Unlock()
		return fmt.Errorf("%d of %d agents have registered: %w", s.registered, s.options.Agents, ctx.Err())
	}
}

// Forget makes AwaitRegistered wait until every agent has registered anew.
func (s *Swarm) Forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.registered, s.reached = 0, make(chan struct{})
	for _, a := range s.agents {
		a.in = false
	}
}

// Agent returns agent i.
func (s *Swarm) Agent(i int) *Agent { return s.agents[i] }

// Close ends all agents and their connections.
func (s *Swarm) Close() {
	s.cancel()
	for _, conn := range s.conns {
		conn.Close()
	}
	s.ended.Wait()
}

func (s *Swarm) enter(a *Agent) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if a.in {
		return
	}
	a.in = true
	if s.registered++; s.registered == s.options.Agents {
		close(s.reached)
	}
}

// fail ends the wait for an agent that will never register.
func (s *Swarm) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failed == nil && s.registered < s.options.Agents {
		s.failed = err
		close(s.reached)
		s.registered = s.options.Agents
	}
}

// live connects, and again when it may.
func (a *Agent) live(ctx context.Context, master linkv1.AgentLinkClient) {
	register := a.swarm.options.Register(a.Index)
	most := a.swarm.options.Backoff
	for {
		registered, err := a.connect(ctx, master, register)
		switch {
		case ctx.Err() != nil:
			return
		case !a.swarm.options.Reconnect:
			a.swarm.fail(fmt.Errorf("agent %d: %w", a.Index, err))
			return
		}
		pause := retryMin + rand.N(retryMax-retryMin)
		if a.swarm.options.Backoff > 0 {
			if registered {
				most = a.swarm.options.Backoff
			}
			pause = rand.N(most)
			most = min(2*most, time.Minute)
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return
		}
	}
}

// connect has one stream, and tells whether the agent was registered on it.
func (a *Agent) connect(ctx context.Context, master linkv1.AgentLinkClient, register *linkv1.Register) (registered bool, err error) {
	stream, err := master.Connect(ctx)
	if err != nil {
		return false, err
	}
	a.mu.Lock()
	a.stream = stream
	a.mu.Unlock()
	if err := a.Send(&linkv1.AgentMessage{Message: &linkv1.AgentMessage_Register{Register: register}}); err != nil && !errors.Is(err, io.EOF) {
		return false, err
	}
	for {
		m, err := stream.Recv()
		if err != nil {
			return registered, err
		}
		switch in := m.GetMessage().(type) {
		case *linkv1.MasterMessage_Registered:
			id := in.Registered.GetAgentId()
			a.id.Store(&id)
			register.Agent.Id = id
			registered = true
			a.swarm.enter(a)
		case *linkv1.MasterMessage_Refused:
			return registered, fmt.Errorf("refused: %s", in.Refused.GetReason())
		case *linkv1.MasterMessage_Ping:
			_ = a.Send(&linkv1.AgentMessage{Message: &linkv1.AgentMessage_Pong{Pong: &linkv1.Pong{}}})
		case *linkv1.MasterMessage_Run:
			a.swarm.options.Run(a, in.Run)
		}
	}
}

// ID returns the agent's id; empty before it has one.
func (a *Agent) ID() string {
	if id := a.id.Load(); id != nil {
		return *id
	}
	return ""
}

// Send sends a message on the newest stream.
func (a *Agent) Send(m *linkv1.AgentMessage) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.stream == nil {
		return errors.New("the agent is not connected")
	}
	return a.stream.Send(m)
}

// Update tells a task's new state. A stream that has broken is noticed by its
// reader.
func (a *Agent) Update(framework, task string, state mezzov1.TaskState) {
	a.mu.Lock()
	a.serial++
	serial := a.serial
	a.mu.Unlock()
	uuid := make([]byte, 16)
	binary.BigEndian.PutUint32(uuid, uint32(a.Index))
	binary.BigEndian.PutUint64(uuid[8:], serial)
	uuid[6], uuid[8] = 0x40, 0x80
	_ = a.Send(&linkv1.AgentMessage{Message: &linkv1.AgentMessage_Update{Update: &linkv1.StatusUpdate{
		FrameworkId: framework, LatestState: state.Enum(),
		Status: &mezzov1.TaskStatus{
			TaskId: &mezzov1.TaskID{Value: proto.String(task)}, AgentId: &mezzov1.AgentID{Value: proto.String(a.ID())},
			State: state.Enum(), Uuid: uuid,
		},
	}}})
}
