package master_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/mezzo-os/mezzo/core/master/mastertest"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
	schedulerv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1/scheduler"
	"github.com/mezzo-os/mezzo/sdk/resource"
)

// TestManyAgentsAndSchedulers: agents that share connections register, each
// of several schedulers that share one gets all its tasks run, every call is
// accepted, and a second term of the same master gets all agents back.
func TestManyAgentsAndSchedulers(t *testing.T) {
	const agents, schedulers, tasks = 40, 3, 100
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	o := options(t)
	m := start(t, o)
	address := m.Addresses()["rpc"]
	swarm, err := mastertest.NewSwarm(mastertest.SwarmOptions{Address: address, Agents: agents, Connections: 2, Reconnect: true})
	if err != nil {
		t.Fatal(err)
	}
	defer swarm.Close()
	if err := swarm.AwaitRegistered(ctx); err != nil {
		t.Fatal(err)
	}
	conn, err := mastertest.Dial(address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	each := resource.MustParse("cpus:1;mem:128")
	want := each.ToProto()
	finished := make(chan string, schedulers*tasks)
	var list []*mastertest.Scheduler
	for i := range schedulers {
		var launched atomic.Int64
		s, err := mastertest.Subscribe(ctx, conn, mastertest.SchedulerOptions{
			Info: mastertest.Info(fmt.Sprint("f", i)),
			Event: func(s *mastertest.Scheduler, event *schedulerv1.Event) {
				for _, offer := range event.GetOffers().GetOffers() {
					// An offer may be no more than what one task has left.
					free, err := resource.FromProto(offer.GetResources())
					if err != nil {
						t.Errorf("offer %v: %v", offer, err)
					}
					free = free.Unallocate()
					var batch []*mezzov1.TaskInfo
					for ; len(batch) < 4 && launched.Load() < tasks && free.Contains(each); free = free.Minus(each) {
						batch = append(batch, mastertest.Task(fmt.Sprint("t", launched.Add(1)), offer.GetAgentId(), want))
					}
					if len(batch) == 0 {
						s.Decline([]*mezzov1.OfferID{offer.GetId()}, 3600)
						continue
					}
					s.Accept(offer, batch, 0)
				}
				if status := event.GetUpdate().GetStatus(); status != nil {
					if status.GetState() != mezzov1.TaskState_TASK_FINISHED {
						t.Errorf("a task became %v", status)
					}
					s.Acknowledge(status)
					finished <- status.GetTaskId().GetValue()
				}
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, s)
	}
	for range schedulers * tasks {
		await(t, "a task to finish", finished)
	}
	for _, s := range list {
		if err := s.Settled(ctx); err != nil {
			t.Errorf("a call was not accepted: %v", err)
		}
	}

	swarm.Forget()
	if err := m.stop(); err != nil {
		t.Fatal(err)
	}
	for _, s := range list {
		s.Wait()
	}
	o.Allocator = fair(t)
	o.Config.RPC = address
	start(t, o)
	if err := swarm.AwaitRegistered(ctx); err != nil {
		t.Errorf("after another election: %v", err)
	}
}
