package main

import (
	"context"
	"fmt"
	"time"

	"github.com/mezzo-os/mezzo/core/master/mastertest"
	linkv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/link/v1"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
	"github.com/mezzo-os/mezzo/sdk/resource"
)

const (
	failoverTasks  = 10 // of each agent
	failovers      = 3
	failoverAgents = 10_000 // for which there is a budget
)

// failover measures, by the size of the cluster, how long after a new leader
// was elected all agents are back with their tasks, and what that leader then
// needs. How long an election takes is ZooKeeper's session timeout.
func (b *bench) failover(ctx context.Context) error {
	t := b.table("A new leader", "agents", "tasks", "all are back, s", "budget", "", "longest, s", "MiB: master", "allocator")
	defer t.print() // what was measured is worth printing
	sizes := []int{1000, failoverAgents, 50_000}
	if b.quick {
		sizes = sizes[:2]
	}
	for _, agents := range sizes {
		if err := b.failoverOf(ctx, t, agents); err != nil {
			return fmt.Errorf("%d agents: %w", agents, err)
		}
	}
	return nil
}

func (b *bench) failoverOf(ctx context.Context, t *table, agents int) error {
	c, err := b.newCluster(ctx, 5*time.Millisecond, variant{})
	if c != nil {
		defer c.close()
	}
	if err != nil {
		return err
	}
	if err := c.frameworks(ctx, failoverTasks); err != nil {
		return err
	}
	if err := c.agents(ctx, mastertest.SwarmOptions{Agents: agents, Reconnect: true, Register: c.withTasks(failoverTasks)}); err != nil {
		return err
	}
	// The schedulers stay away: a new leader knows them from its registry.
	c.hangUp()
	var took []time.Duration
	for range failovers {
		if err := c.quiet(ctx); err != nil {
			return err
		}
		address := c.address()
		c.swarm.Forget()
		c.master.kill()
		if err := c.startMaster(ctx, address); err != nil {
			return err
		}
		elected := <-c.master.leading
		if err := c.swarm.AwaitRegistered(ctx); err != nil {
			return err
		}
		took = append(took, time.Since(elected))
	}
	if err := c.quiet(ctx); err != nil {
		return err
	}
	master, allocator, err := c.memory()
	if err != nil {
		return err
	}
	seconds := 0.0
	if agents == failoverAgents {
		seconds = 2
	}
	half := median(took)
	t.row(fmt.Sprint(agents), fmt.Sprint(agents*failoverTasks), number(half.Seconds()), budget(seconds),
		b.most(fmt.Sprintf("%d agents back at a new leader, s", agents), half.Seconds(), seconds), number(took[len(took)-1].Seconds()), number(master), number(allocator))
	return nil
}

// withTasks is what agents say that have n tasks each, one of each of the first
// n frameworks.
func (c *cluster) withTasks(n int) func(i int) *linkv1.Register {
	use := resource.MustParse("cpus:1;mem:256")
	var infos []*mezzov1.FrameworkInfo
	for k := range n {
		infos = append(infos, c.infoOf(k))
	}
	return func(i int) *linkv1.Register {
		p, r := agentOf(i)
		r.Frameworks = infos
		for k := range n {
			r.Tasks = append(r.Tasks, running(k, fmt.Sprintf("t%d-%d", i, k), p.Pack(use), "*"))
		}
		r.Kinds = append(r.Kinds, p.Kinds()...)
		return r
	}
}
