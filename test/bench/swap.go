package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/mezzo-os/mezzo/core/master/mastertest"
	"github.com/mezzo-os/mezzo/sdk/allocator/engine/workload"
	linkv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/link/v1"
	operatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/operator/v1"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
)

const (
	// trickle agents have nothing to do, and are offered and declined all the
	// time, so that a pause in offers is seen.
	trickle = 20
	// pauseBudget is the longest pause in offers while the allocator changes.
	pauseBudget = 1.0
)

// swap measures a live change of the allocator: every agent but a few has
// eight tasks, of which the newcomer has to be told.
func (b *bench) swap(ctx context.Context) error {
	t := b.table("Another allocator takes over, while offers go on", "agents x frameworks", "tasks", "change", "start to current, s",
		"longest pause in offers, s", "budget", "", "usual pause, median, s", "longest", "load")
	s := size{10_000, 200}
	if len(b.sizes) > 0 {
		s = b.sizes[len(b.sizes)-1]
	}
	w := &swapWork{clusterWork: clusterWork{tasks: workload.NewTasks(s.agents, s.frameworks)}}
	c, err := b.newCluster(ctx, 5*time.Millisecond, variant{config: "  min_refuse = \"1ms\"\n"})
	if c != nil {
		defer c.close()
	}
	if err != nil {
		return err
	}
	w.c, c.offer = c, w.decline
	if err := c.frameworks(ctx, s.frameworks); err != nil {
		return err
	}
	w.prepare()
	err = c.agents(ctx, mastertest.SwarmOptions{Agents: s.agents + trickle, Register: func(i int) *linkv1.Register {
		if i >= s.agents {
			return plainAgent(i)
		}
		return w.register(i)
	}})
	if err != nil {
		return err
	}
	c.schedulers[0].Revive()
	var longest float64
	for i, name := range []string{"priority", "drf", "priority", "drf"} {
		usual, usualLongest, err := w.watch(ctx, func() error { time.Sleep(time.Second); return nil })
		if err != nil {
			return err
		}
		var took time.Duration
		_, pause, err := w.watch(ctx, func() (err error) {
			took, err = c.changeAllocator(ctx, name)
			return err
		})
		if err != nil {
			return fmt.Errorf("change %d, to %s: %w", i+1, name, err)
		}
		longest = max(longest, pause.Seconds())
		t.row(s.String(), fmt.Sprint(workload.TasksPerAgent*s.agents), "to "+name, number(took.Seconds()), number(pause.Seconds()), number(pauseBudget),
			most(pause.Seconds(), pauseBudget), number(usual.Seconds()), number(usualLongest.Seconds()), load())
	}
	b.most("longest pause in offers while another allocator takes over, s", longest, pauseBudget)
	t.print()
	return nil
}

// swapWork declines what it is offered, and notes when.
type swapWork struct {
	clusterWork
	mu   sync.Mutex
	came []time.Time
	err  error
}

func (w *swapWork) decline(_ int, s *mastertest.Scheduler, offers mastertest.Sealed) {
	now := time.Now()
	list, err := offers.Offers()
	w.mu.Lock()
	w.came, w.err = append(w.came, now), errors.Join(w.err, err)
	w.mu.Unlock()
	ids := make([]*mezzov1.OfferID, 0, len(list))
	for _, o := range list {
		ids = append(ids, o.GetId())
	}
	s.Decline(ids, 0)
}

// watch returns the median and the longest pause in offers while run runs and
// shortly before and after it.
func (w *swapWork) watch(ctx context.Context, run func() error) (usual, longest time.Duration, err error) {
	const around = 500 * time.Millisecond
	w.mu.Lock()
	w.came = nil
	w.mu.Unlock()
	time.Sleep(around)
	if err := run(); err != nil {
		return 0, 0, err
	}
	select {
	case <-time.After(around):
	case <-ctx.Done():
		return 0, 0, ctx.Err()
	}
	w.mu.Lock()
	came, err := slices.Clone(w.came), w.err
	w.mu.Unlock()
	if err != nil {
		return 0, 0, err
	}
	var pauses []time.Duration
	for i, at := range append(came, time.Now()) {
		if i > 0 {
			pauses = append(pauses, at.Sub(came[i-1]))
		}
	}
	if len(pauses) < 2 {
		return 0, 0, errors.New("no offers come")
	}
	usual = median(pauses)
	return usual, pauses[len(pauses)-1], nil
}

// changeAllocator reloads the master with another allocator, and returns how
// long it took until that was the current one.
func (c *cluster) changeAllocator(ctx context.Context, name string) (time.Duration, error) {
	c.blocks = fmt.Sprintf("allocator %q {}\n", name)
	if _, err := c.writeConfig(c.rpc); err != nil {
		return 0, err
	}
	select {
	case <-c.master.swapped:
	default:
	}
	conn, err := mastertest.Dial(c.address())
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	began := time.Now()
	if _, err := operatorv1.NewOperatorClient(conn).Reload(ctx, &operatorv1.ReloadRequest{}); err != nil {
		return 0, err
	}
	select {
	case at := <-c.master.swapped:
		return at.Sub(began), nil
	case <-time.After(waitLimit):
		return 0, errors.New("the master did not say that another allocator has taken over")
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}
