package main

import (
	"context"
	"fmt"
	"time"

	"github.com/mezzo-os/mezzo/core/master/mastertest"
)

// fullAgents is how many new agents the budgets are for.
const fullAgents = 50_000

// register measures how fast agents register with a new master, and the memory
// of both processes.
func (b *bench) register(ctx context.Context) error {
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
	master, allocator, err := c.memory()
	if err != nil {
		return err
	}
	seconds, mib := 0.0, 0.0
	if b.agents == fullAgents {
		seconds, mib = 10, 2048
	}
	t := b.table("Registration of new agents", "agents", "seconds", "budget", "", "MiB: master", "allocator", "budget", "")
	t.row(fmt.Sprint(b.agents), number(took.Seconds()), budget(seconds), b.most(fmt.Sprintf("%d new agents, s", b.agents), took.Seconds(), seconds),
		number(master), number(allocator), budget(mib), b.most(fmt.Sprintf("%d new agents: master and allocator, MiB", b.agents), master+allocator, mib))
	t.print()
	return nil
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
