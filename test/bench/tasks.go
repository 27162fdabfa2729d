package main

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/mezzo-os/mezzo/core/master/mastertest"
	operatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/operator/v1"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
	schedulerv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1/scheduler"
	"github.com/mezzo-os/mezzo/sdk/resource"
)

const (
	tasksAgents     = 100
	tasksSchedulers = 4
	tasksPerOffer   = 50
	tasksBudget     = 20_000
	tasksWatchers   = 10
)

// tasks measures how many tasks a second are launched and finish through a
// master, its allocator and schedulers, alone and while others watch the
// cluster; agents are simulated and end each task at once, and every update is
// acknowledged.
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
	t := b.table("Tasks launched and finished through a master, with simulated agents", "agents", "frameworks", "watchers", "budget", "tasks a second", "",
		"events a second to watchers", "master, processor us a task", "plugin")
	defer t.print()
	var told atomic.Int64
	if err := b.throughput(ctx, t, c, 0, &finished, &told, odd); err != nil {
		return err
	}
	if err := c.watch(ctx, tasksWatchers, &told); err != nil {
		return err
	}
	return b.throughput(ctx, t, c, tasksWatchers, &finished, &told, odd)
}

// watch has n watchers with connections of their own count the events that
// they are told.
func (c *cluster) watch(ctx context.Context, n int, told *atomic.Int64) error {
	for range n {
		conn, err := mastertest.Dial(c.address())
		if err != nil {
			return err
		}
		c.conns = append(c.conns, conn)
		stream, err := operatorv1.NewOperatorClient(conn).Watch(ctx, &operatorv1.WatchRequest{})
		if err != nil {
			return err
		}
		go func() {
			for {
				if _, err := stream.Recv(); err != nil {
					return
				}
				told.Add(1)
			}
		}()
	}
	return nil
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
func (b *bench) throughput(ctx context.Context, t *table, c *cluster, watchers int, finished, told *atomic.Int64, odd <-chan string) error {
	children, err := c.master.children()
	if err != nil {
		return err
	}
	plugin := children["mezzo-allocator-drf"]
	windows := 7
	if b.quick {
		windows = 2
	}
	var rates, events, masters, plugins []float64
	for i := range windows + 1 {
		before, toldBefore, m, p, began := finished.Load(), told.Load(), processor(c.master.pid()), processor(plugin), time.Now()
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
		seconds := time.Since(began).Seconds()
		rates = append(rates, n/seconds)
		events = append(events, float64(told.Load()-toldBefore)/seconds)
		masters = append(masters, float64(processor(c.master.pid())-m)/n/1e3)
		plugins = append(plugins, float64(processor(plugin)-p)/n/1e3)
	}
	if len(rates) == 0 {
		return errors.New("no task finished")
	}
	rate, limit, verdict := median(rates), 0, ""
	if watchers == 0 {
		limit, verdict = tasksBudget, "met"
		if rate < tasksBudget {
			verdict = "NOT MET"
		}
		b.verdicts = append(b.verdicts, outcome{"tasks launched and finished a second, at least", tasksBudget, rate, verdict})
	}
	t.row(fmt.Sprint(tasksAgents), fmt.Sprint(tasksSchedulers), fmt.Sprint(watchers), budget(float64(limit)), number(rate), verdict, number(median(events)), number(median(masters)), number(median(plugins)))
	return nil
}
