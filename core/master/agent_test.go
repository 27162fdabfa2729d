package master_test

import (
	"context"
	"crypto/rand"
	"sync"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/mezzo-os/mezzo/core/link"
	"github.com/mezzo-os/mezzo/sdk/client"
	linkv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/link/v1"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
	"github.com/mezzo-os/mezzo/sdk/resource"
)

// fakeAgent is an agent whose tasks are entries in a map.
type fakeAgent struct {
	t         *testing.T
	hostname  string
	resources resource.Resources
	id        string

	mu         sync.Mutex
	stream     grpc.BidiStreamingClient[linkv1.AgentMessage, linkv1.MasterMessage]
	tasks      map[string]*fakeTask // by framework and task
	frameworks []*mezzov1.FrameworkInfo
	unacked    int
	quiet      chan struct{} // told when unacked becomes 0
	closed     chan struct{} // closed when the stream has ended
	epoch      uint64
	quick      bool // tasks finish as soon as they are known to run
}

type fakeTask struct {
	framework string
	info      *mezzov1.TaskInfo
	state     mezzov1.TaskState
	trace     string // as its launch told
}

func newAgent(t *testing.T, hostname, resources string) *fakeAgent {
	return &fakeAgent{
		t: t, hostname: hostname, resources: resource.MustParse(resources), tasks: map[string]*fakeTask{}, quiet: make(chan struct{}, 1000),
	}
}

// connect registers and serves the stream until it ends.
func (a *fakeAgent) connect(address string) {
	a.t.Helper()
	conn, err := client.Dial(address, client.Options{})
	if err != nil {
		a.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	stream, err := linkv1.NewAgentLinkClient(conn).Connect(ctx, grpc.WaitForReady(true))
	if err != nil {
		a.t.Fatal(err)
	}
	a.stream, a.closed = stream, make(chan struct{})
	a.send(&linkv1.AgentMessage{Message: &linkv1.AgentMessage_Register{Register: a.register()}})
	registered := make(chan *linkv1.MasterMessage, 1)
	go func() {
		defer close(a.closed)
		for {
			m, err := stream.Recv()
			if err != nil {
				return
			}
			if m.GetRegistered() != nil || m.GetRefused() != nil {
				registered <- m
			} else {
				a.take(m)
			}
		}
	}()
	a.t.Cleanup(func() {
		cancel()
		await(a.t, "the agent's end", a.closed)
		conn.Close()
	})
	answer := await(a.t, "the agent's registration", registered)
	if answer.GetRegistered() == nil {
		a.t.Fatalf("the agent was refused: %v", answer)
	}
	if answer.Epoch <= a.epoch {
		a.t.Errorf("epoch %d comes after %d", answer.Epoch, a.epoch)
	}
	a.id, a.epoch = answer.GetRegistered().GetAgentId(), answer.Epoch
}

func (a *fakeAgent) lost() {
	a.t.Helper()
	await(a.t, "the agent to lose its master", a.closed)
}

func (a *fakeAgent) register() *linkv1.Register {
	a.mu.Lock()
	defer a.mu.Unlock()
	p := link.NewPacker()
	r := &linkv1.Register{
		Agent: &linkv1.Agent{
			Id: a.id, Hostname: a.hostname, Version: "0.1.0", Resources: p.Pack(a.resources),
			RpcAddress: "127.0.0.1:5063", HttpAddress: "127.0.0.1:5062", BootId: "boot",
		},
		Frameworks: a.frameworks,
	}
	places := map[string]uint32{}
	for i, f := range a.frameworks {
		places[f.GetId().GetValue()] = uint32(i + 1)
	}
	for _, task := range a.tasks {
		resources, err := resource.FromProto(task.info.GetResources())
		if err != nil {
			a.t.Error(err)
		}
		r.Tasks = append(r.Tasks, &linkv1.Task{
			Framework: places[task.framework], Id: task.info.GetTaskId().GetValue(), Name: task.info.GetName(),
			Resources: p.Pack(resources), Role: "*", State: task.state.Enum(),
			Status: &mezzov1.TaskStatus{TaskId: task.info.GetTaskId(), State: task.state.Enum()},
		})
	}
	r.Kinds = p.Kinds()
	return r
}

func (a *fakeAgent) send(m *linkv1.AgentMessage) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := a.stream.Send(m); err != nil {
		a.t.Logf("the agent could not send: %v", err)
	}
}

func (a *fakeAgent) take(m *linkv1.MasterMessage) {
	switch in := m.Message.(type) {
	case *linkv1.MasterMessage_Ping:
		a.send(&linkv1.AgentMessage{Message: &linkv1.AgentMessage_Pong{Pong: &linkv1.Pong{}}})
	case *linkv1.MasterMessage_Run:
		framework := in.Run.GetFramework().GetId().GetValue()
		a.mu.Lock()
		known := false
		for _, f := range a.frameworks {
			known = known || f.GetId().GetValue() == framework
		}
		if !known {
			a.frameworks = append(a.frameworks, in.Run.GetFramework())
		}
		for _, task := range in.Run.GetTasks() {
			a.tasks[framework+"/"+task.GetTaskId().GetValue()] = &fakeTask{framework: framework, info: task, trace: in.Run.GetTraceparent()}
		}
		a.mu.Unlock()
		for _, task := range in.Run.GetTasks() {
			a.update(framework, task.GetTaskId().GetValue(), mezzov1.TaskState_TASK_RUNNING)
		}
	case *linkv1.MasterMessage_Kill:
		a.update(in.Kill.GetTask().GetFrameworkId(), in.Kill.GetTask().GetTaskId(), mezzov1.TaskState_TASK_KILLED)
	case *linkv1.MasterMessage_Acknowledge:
		framework, id := in.Acknowledge.GetTask().GetFrameworkId(), in.Acknowledge.GetTask().GetTaskId()
		a.mu.Lock()
		running := a.quick && a.tasks[framework+"/"+id].state == mezzov1.TaskState_TASK_RUNNING
		a.mu.Unlock()
		if running {
			a.finish(framework, id)
		}
		a.mu.Lock()
		if a.unacked--; a.unacked == 0 {
			a.quiet <- struct{}{}
		}
		a.mu.Unlock()
	}
}

func (a *fakeAgent) finish(framework, id string) {
	a.update(framework, id, mezzov1.TaskState_TASK_FINISHED)
}

func (a *fakeAgent) update(framework, id string, state mezzov1.TaskState) {
	uuid := make([]byte, 16)
	if _, err := rand.Read(uuid); err != nil {
		a.t.Error(err)
	}
	uuid[6], uuid[8] = uuid[6]&0x0f|0x40, uuid[8]&0x3f|0x80 // a UUID of version 4
	a.mu.Lock()
	a.unacked++
	traceparent := ""
	if task := a.tasks[framework+"/"+id]; task == nil {
		a.t.Errorf("the agent has no task %s of %s", id, framework)
	} else {
		task.state, traceparent = state, task.trace
	}
	a.mu.Unlock()
	a.send(&linkv1.AgentMessage{Message: &linkv1.AgentMessage_Update{Update: &linkv1.StatusUpdate{
		FrameworkId: framework, LatestState: state.Enum(), Traceparent: traceparent,
		Status: &mezzov1.TaskStatus{
			TaskId: &mezzov1.TaskID{Value: proto.String(id)}, AgentId: &mezzov1.AgentID{Value: proto.String(a.id)},
			State: state.Enum(), Uuid: uuid, Source: mezzov1.TaskStatus_SOURCE_EXECUTOR.Enum(),
		},
	}}})
}

// message sends bytes from an executor to a scheduler.
func (a *fakeAgent) message(framework string, data []byte) {
	a.send(&linkv1.AgentMessage{Message: &linkv1.AgentMessage_FrameworkMessage{FrameworkMessage: &linkv1.FrameworkMessage{
		FrameworkId: framework, ExecutorId: "e1", Data: data,
	}}})
}

// settled waits until all updates are acknowledged.
func (a *fakeAgent) settled() {
	a.t.Helper()
	for {
		a.mu.Lock()
		left := a.unacked
		a.mu.Unlock()
		if left == 0 {
			return
		}
		await(a.t, "acknowledgements", a.quiet)
	}
}
