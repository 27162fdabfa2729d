package main

import (
	"context"
	"fmt"
	"time"

	"github.com/mezzo-os/mezzo/core/master/mastertest"
	linkv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/link/v1"
	"github.com/mezzo-os/mezzo/sdk/resource"
)

const (
	tasksEach = 10
	failovers = 3
	// The budgets of registration are for so many new agents, and for so many
	// that come back with their tasks.
	fullAgents, knownAgents = 50_000, 10_000
)

// register measures how fast agents register with a new master, and again,
// with ten tasks each, with a new leader; and the memory of both processes.
func (b *bench) register(ctx context.Context) error {
	t := b.table("Registration", "", "agents", "seconds", "budget", "", "MiB: master", "allocator", "budget", "")
	// The one is worth printing without the other.
	defer t.print()
	if err := b.registerNew(ctx, t); err != nil {
		return err
	}
	return b.registerAgain(ctx, t)
}

// memory of the master and its allocator, RSS in MiB.
func (c *cluster) memory() (master, allocator float64, err error) {
	m, err := usageOf(c.master.pid())
	if err != nil {
		return 0, 0, err
	}
	children, err := c.master.children()
	if err != nil {
		return 0, 0, err
	}
	p, err := usageOf(children["mezzo-allocator-drf"])
	return m.rss, p.rss, err
}

func (c *cluster) registration(t *table, agents int, what string, took time.Duration, seconds, mib float64) error {
	master, allocator, err := c.memory()
	if err != nil {
		return err
	}
	t.row(what, fmt.Sprint(agents), number(took.Seconds()), budget(seconds), c.b.most(fmt.Sprintf("%d %s, s", agents, what), took.Seconds(), seconds),
		number(master), number(allocator), budget(mib), c.b.most(fmt.Sprintf("%d %s: master and allocator, MiB", agents, what), master+allocator, mib))
	return nil
}

func (b *bench) registerNew(ctx context.Context, t *table) error {
	c, err := b.newCluster(ctx, 5*time.Millisecond, variant{})
	if c != nil {
		defer c.close()
	}
	if err != nil {
		return err
	}
	began := time.Now()
	if err := c.agents(ctx, mastertest.SwarmOptions{Agents: b.agents}); err != nil {
		return err
	}
	took := time.Since(began)
	if err := c.quiet(ctx); err != nil {
		return err
	}
	if b.agents == fullAgents {
		return c.registration(t, b.agents, "new agents", took, 10, 2048)
	}
	return c.registration(t, b.agents, "new agents", took, 0, 0)
}

func (b *bench) registerAgain(ctx context.Context, t *table) error {
	c, err := b.newCluster(ctx, 5*time.Millisecond, variant{})
	if c != nil {
		defer c.close()
	}
	if err != nil {
		return err
	}
	if err := c.frameworks(ctx, tasksEach); err != nil {
		return err
	}
	agents := min(b.agents, knownAgents)
	use := resource.MustParse("cpus:1;mem:256")
	err = c.agents(ctx, mastertest.SwarmOptions{Agents: agents, Reconnect: true, Register: func(i int) *linkv1.Register {
		p, r := agentOf(i)
		for k := range tasksEach {
			r.Frameworks = append(r.Frameworks, c.infoOf(k))
			r.Tasks = append(r.Tasks, running(k, fmt.Sprintf("t%d-%d", i, k), p.Pack(use), "*"))
		}
		r.Kinds = append(r.Kinds, p.Kinds()...)
		return r
	}})
	if err != nil {
		return err
	}
	if err := c.quiet(ctx); err != nil {
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
	seconds := 0.0
	if agents == knownAgents {
		seconds = 2
	}
	return c.registration(t, agents, "known agents, ten tasks each, new leader", median(took), seconds, 0)
}
