package master_test

import (
	"context"
	"fmt"
	"runtime"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/mezzo-os/mezzo/core/master/mastertest"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
	"github.com/mezzo-os/mezzo/sdk/resource"
)

// newSwarm returns registered agents.
func newSwarm(b *testing.B, address string, agents, connections int) *mastertest.Swarm {
	b.Helper()
	s, err := mastertest.NewSwarm(mastertest.SwarmOptions{Address: address, Agents: agents, Connections: connections})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := s.AwaitRegistered(ctx); err != nil {
		s.Close()
		b.Fatal(err)
	}
	return s
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
		b.ReportMetric(float64(agents)/time.Since(began).Seconds(), "agents/s")
		// Both ends of every stream are in this process.
		var memory runtime.MemStats
		runtime.ReadMemStats(&memory)
		b.ReportMetric(float64(memory.HeapInuse+memory.StackInuse)/(1<<20), "MiB-both-ends")
		s.Close()
		if err := m.stop(); err != nil {
			b.Error(err)
		}
	}
}

// BenchmarkTasks launches tasks as fast as offers come, on 100 agents.
func BenchmarkTasks(b *testing.B) {
	m := start(b, options(b))
	s := newSwarm(b, m.Addresses()["rpc"], 100, 10)
	defer s.Close()
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
