package main

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/mezzo-os/mezzo/core/master/mastertest"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
	schedulerv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1/scheduler"
	"github.com/mezzo-os/mezzo/sdk/resource"
)

const (
	tasksAgents     = 100
	tasksSchedulers = 4
	tasksPerOffer   = 50
	tasksBudget     = 20_000
)

// tasks measures how many tasks a second are launched and finish through a
// master, its allocator and schedulers; agents are simulated and end each task
// at once, and every update is acknowledged.
func (b *bench) tasks(ctx context.Context) error {
	c, err := b.newCluster(ctx, 5*time.Millisecond, variant{})
	if c != nil {
		defer c.close()
	}
	if err != nil {
		return err
	}
	if err := c.agents(ctx, mastertest.SwarmOptions{Agents: tasksAgents, Connections: 10}); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var finished atomic.Int64
	odd := make(chan string, 1)
	want := resource.MustParse("cpus:0.1;mem:64").ToProto()
	for i := range tasksSchedulers {
		conn, err := mastertest.Dial(c.address())
		if err != nil {
			return err
		}
		defer conn.Close()
		launched := 0
		_, err = mastertest.Subscribe(ctx, conn, mastertest.SchedulerOptions{
			Info: mastertest.Info(fmt.Sprint("bench", i)),
			Event: func(s *mastertest.Scheduler, event *schedulerv1.Event) {
				for _, offer := range event.GetOffers().GetOffers() {
					s.Accept(offer, fill(offer, want, &launched), 0)
				}
				if status := event.GetUpdate().GetStatus(); status != nil {
					if status.GetState() == mezzov1.TaskState_TASK_FINISHED {
						finished.Add(1)
					} else {
						select {
						case odd <- fmt.Sprintf("a task became %s: %s", status.GetState(), status.GetMessage()):
						default:
						}
					}
					s.Acknowledge(status)
				}
			},
		})
		if err != nil {
			return err
		}
	}
	return b.throughput(ctx, c, &finished, odd)
}

// fill returns as many tasks as the offer has room for, within bounds.
func fill(offer *mezzov1.Offer, want []*mezzov1.Resource, launched *int) []*mezzov1.TaskInfo {
	var cpus, mem float64
	for _, r := range offer.GetResources() {
		switch r.GetName() {
		case "cpus":
			cpus += r.GetScalar().GetValue()
		case "mem":
			mem += r.GetScalar().GetValue()
		}
	}
	room := min(tasksPerOffer, int(10*cpus+0.01), int(mem/64))
	var out []*mezzov1.TaskInfo
	for range room {
		*launched++
		out = append(out, mastertest.Task(fmt.Sprint("t", *launched), offer.GetAgentId(), want))
	}
	return out
}

// throughput counts in windows of a second, after a first that is not counted.
func (b *bench) throughput(ctx context.Context, c *cluster, finished *atomic.Int64, odd <-chan string) error {
	children, err := c.master.children()
	if err != nil {
		return err
	}
	plugin := children["mezzo-allocator-drf"]
	windows := 7
	if b.quick {
		windows = 2
	}
	var rates, masters, plugins []float64
	for i := range windows + 1 {
		before, m, p, began := finished.Load(), processor(c.master.pid()), processor(plugin), time.Now()
		select {
		case <-time.After(time.Second):
		case why := <-odd:
			return errors.New(why)
		case <-c.master.ended:
			return fmt.Errorf("the master ended:\n%s", c.master.log)
		case <-ctx.Done():
			return ctx.Err()
		}
		n := float64(finished.Load() - before)
		if i == 0 || n == 0 {
			continue
		}
		rates = append(rates, n/time.Since(began).Seconds())
		masters = append(masters, float64(processor(c.master.pid())-m)/n/1e3)
		plugins = append(plugins, float64(processor(plugin)-p)/n/1e3)
	}
	if len(rates) == 0 {
		return errors.New("no task finished")
	}
	rate := median(rates)
	verdict := "met"
	if rate < tasksBudget {
		verdict = "NOT MET"
	}
	b.verdicts = append(b.verdicts, outcome{"tasks launched and finished a second, at least", tasksBudget, rate, verdict})
	t := b.table("Tasks launched and finished through a master, with simulated agents", "agents", "frameworks", "budget", "tasks a second", "",
		"master, processor us a task", "plugin")
	t.row(fmt.Sprint(tasksAgents), fmt.Sprint(tasksSchedulers), number(tasksBudget), number(rate), verdict, number(median(masters)), number(median(plugins)))
	t.print()
	return nil
}
