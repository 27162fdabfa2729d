package master_test

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/mezzo-os/mezzo/core/link"
	"github.com/mezzo-os/mezzo/sdk/client"
	linkv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/link/v1"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
	"github.com/mezzo-os/mezzo/sdk/resource"
)

// swarm is many agents over few connections. Each answers pings and ends every
// task at once.
type swarm struct {
	registered sync.WaitGroup
	ended      sync.WaitGroup
	cancel     context.CancelFunc
	conns      []*grpc.ClientConn
}

func newSwarm(b *testing.B, address string, agents, connections int) *swarm {
	b.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	s := &swarm{cancel: cancel}
	for range connections {
		conn, err := client.Dial(address, client.Options{})
		if err != nil {
			b.Fatal(err)
		}
		s.conns = append(s.conns, conn)
	}
	total := resource.MustParse("cpus:16;mem:65536;disk:102400;ports:[31000-32000]")
	s.registered.Add(agents)
	for i := range agents {
		s.ended.Go(func() {
			stream, err := linkv1.NewAgentLinkClient(s.conns[i%connections]).Connect(ctx)
			if err != nil {
				b.Error(err)
				s.registered.Done()
				return
			}
			p := link.NewPacker()
			register := &linkv1.Register{Agent: &linkv1.Agent{Hostname: fmt.Sprintf("h%d", i), Version: "0.1.0", Resources: p.Pack(total), BootId: "b"}}
			register.Kinds = p.Kinds()
			if err := stream.Send(&linkv1.AgentMessage{Message: &linkv1.AgentMessage_Register{Register: register}}); err != nil {
				b.Error(err)
			}
			s.serve(stream)
		})
	}
	return s
}

func (s *swarm) serve(stream grpc.BidiStreamingClient[linkv1.AgentMessage, linkv1.MasterMessage]) {
	agentID, serial := "", uint64(0)
	tell := func(framework string, task *mezzov1.TaskID, state mezzov1.TaskState) {
		serial++
		uuid := fmt.Appendf(nil, "%016d", serial)
		uuid[6], uuid[8] = 0x40, 0x80
		_ = stream.Send(&linkv1.AgentMessage{Message: &linkv1.AgentMessage_Update{Update: &linkv1.StatusUpdate{
			FrameworkId: framework, LatestState: state.Enum(),
			Status: &mezzov1.TaskStatus{TaskId: task, AgentId: &mezzov1.AgentID{Value: proto.String(agentID)}, State: state.Enum(), Uuid: uuid},
		}}})
	}
	for {
		m, err := stream.Recv()
		if err != nil {
			return
		}
		switch in := m.Message.(type) {
		case *linkv1.MasterMessage_Registered:
			agentID = in.Registered.AgentId
			s.registered.Done()
		case *linkv1.MasterMessage_Ping:
			_ = stream.Send(&linkv1.AgentMessage{Message: &linkv1.AgentMessage_Pong{Pong: &linkv1.Pong{}}})
		case *linkv1.MasterMessage_Run:
			for _, task := range in.Run.Tasks {
				tell(in.Run.Framework.GetId().GetValue(), task.TaskId, mezzov1.TaskState_TASK_FINISHED)
			}
		}
	}
}

func (s *swarm) close() {
	s.cancel()
	s.ended.Wait()
	for _, conn := range s.conns {
		conn.Close()
	}
}

// BenchmarkRegister registers agents, of which there are 50,000 unless
// -short is given, over 100 connections.
func BenchmarkRegister(b *testing.B) {
	agents := 50_000
	if testing.Short() {
		agents = 2_000
	}
	for b.Loop() {
		m := start(b, options(b))
		began := time.Now()
		s := newSwarm(b, m.Addresses()["rpc"], agents, 100)
		s.registered.Wait()
		b.ReportMetric(float64(agents)/time.Since(began).Seconds(), "agents/s")
		// Both ends of every stream are in this process.
		var memory runtime.MemStats
		runtime.ReadMemStats(&memory)
		b.ReportMetric(float64(memory.HeapInuse+memory.StackInuse)/(1<<20), "MiB-both-ends")
		s.close()
		if err := m.stop(); err != nil {
			b.Error(err)
		}
	}
}

// BenchmarkTasks launches tasks as fast as offers come, on 100 agents.
func BenchmarkTasks(b *testing.B) {
	m := start(b, options(b))
	s := newSwarm(b, m.Addresses()["rpc"], 100, 10)
	defer s.close()
	s.registered.Wait()
	e := subscribe(b, m.Addresses()["rpc"], info("bench"))
	want := resource.MustParse("cpus:0.1;mem:64").ToProto()
	b.ResetTimer()
	began := time.Now()
	launched, finished := 0, 0
	for finished < b.N {
		select {
		case offer := <-e.offers:
			free, err := resource.FromProto(offer.Resources)
			if err != nil {
				b.Fatal(err)
			}
			fit := int(min(free.Get("cpus")/100, free.Get("mem")/64_000, 50))
			var tasks []*mezzov1.TaskInfo
			for len(tasks) < fit && launched < b.N {
				launched++
				tasks = append(tasks, &mezzov1.TaskInfo{
					Name: proto.String("t"), TaskId: &mezzov1.TaskID{Value: proto.String(fmt.Sprint("t", launched))},
					AgentId: offer.AgentId, Resources: want, Command: &mezzov1.CommandInfo{Value: proto.String("true")},
				})
			}
			if len(tasks) > 0 {
				e.launch(offer, tasks)
			}
		case update := <-e.updates:
			if update.GetState() != mezzov1.TaskState_TASK_FINISHED {
				b.Fatal(update)
			}
			finished++
		case <-time.After(patience):
			b.Fatalf("stuck: %d launched, %d finished", launched, finished)
		}
	}
	b.ReportMetric(float64(b.N)/time.Since(began).Seconds(), "tasks/s")
}
