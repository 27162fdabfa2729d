// Demo shows Mezzo's main job on a small cluster of real processes: the
// allocation table of the DRF paper, as it happens; the walk-through of the
// Mesos architecture page; and an allocator that is killed while tasks run. It
// exits 0 only if all that was so.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"
)

// limit bounds the whole demo.
const limit = 55 * time.Second

func main() {
	mezzo := flag.String("mezzo", "bin/mezzo", "the mezzo binary; its plugins are beside it")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if err := run(ctx, *mezzo); err != nil {
		fmt.Fprintln(os.Stderr, "\ndemo failed:", err)
		os.Exit(1)
	}
	fmt.Println("\nAll of it was so.")
}

func run(ctx context.Context, mezzo string) error {
	mezzo, err := filepath.Abs(mezzo)
	if err != nil {
		return err
	}
	for _, part := range []func(context.Context, string) error{fairness, architecture} {
		if err := part(ctx, mezzo); err != nil {
			if ctx.Err() != nil {
				err = errors.Join(err, ctx.Err())
			}
			return err
		}
	}
	return nil
}

// fairness is the example of the DRF paper (Ghodsi and others, NSDI 2011,
// section 4.1), followed by the death of the allocator.
func fairness(ctx context.Context, mezzo string) (err error) {
	fmt.Println(`1. Dominant resource fairness: 9 CPUs and 18 GB. Tasks of framework 1 need <1 CPU, 4 GB>,
   tasks of framework 2 <3 CPUs, 1 GB>. Each framework takes one task an offer.`)
	fmt.Println()
	c, err := startMaster(ctx, mezzo)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.stop()) }()
	table := newTable(9, 18*1024)
	one, err := c.subscribe(ctx, 1, "cpus:1;mem:4096", table.launched)
	if err != nil {
		return err
	}
	two, err := c.subscribe(ctx, 2, "cpus:3;mem:1024", table.launched)
	if err != nil {
		return err
	}
	if err := c.startAgent(ctx, "cpus:9;mem:18432"); err != nil {
		return err
	}
	if err := table.wait(ctx, 5); err != nil {
		return err
	}
	if err := errors.Join(one.running(ctx, 3), two.running(ctx, 2)); err != nil {
		return err
	}
	if err := table.check([]int{2, 1, 1, 2, 1}); err != nil {
		return err
	}
	if err := c.showTasks(ctx, 5); err != nil {
		return err
	}
	return c.killAllocator(ctx, one)
}

// architecture is the walk-through of Mesos's architecture page: an agent with
// four CPUs and 4 GB.
func architecture(ctx context.Context, mezzo string) (err error) {
	fmt.Println("\n3. Resource offers: an agent with 4 CPUs and 4 GB.")
	fmt.Println()
	c, err := startMaster(ctx, mezzo)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.stop()) }()
	// Framework 2 first, for the allocator serves the newest of equals first: so
	// framework 1 gets the whole agent, as on that page.
	watcher, err := c.observe(ctx, 2)
	if err != nil {
		return err
	}
	taker, err := c.subscribeTaker(ctx, 1, []string{"cpus:2;mem:1024", "cpus:1;mem:2048"})
	if err != nil {
		return err
	}
	if err := c.startAgent(ctx, "cpus:4;mem:4096"); err != nil {
		return err
	}
	whole, err := receive(ctx, "the offer to framework 1", taker.offers)
	if err != nil {
		return err
	}
	fmt.Printf("   the agent's <4 CPUs, 4 GB> are offered to framework %d: %s\n", 1, whole)
	fmt.Println("   framework 1 accepts with two tasks: <2 CPUs, 1 GB> and <1 CPU, 2 GB>")
	rest, err := receive(ctx, "the offer to framework 2", watcher.offers)
	if err != nil {
		return err
	}
	fmt.Printf("   what it left is offered to framework 2: %s\n", rest)
	if err := taker.running(ctx, 2); err != nil {
		return err
	}
	if whole != "cpus:4;mem:4096" || rest != "cpus:1;mem:1024" {
		return fmt.Errorf("the offers were %s and %s; they should have been cpus:4;mem:4096 and cpus:1;mem:1024", whole, rest)
	}
	return c.showTasks(ctx, 2)
}

func receive[T any](ctx context.Context, what string, from <-chan T) (T, error) {
	select {
	case v := <-from:
		return v, nil
	case <-ctx.Done():
		var none T
		return none, fmt.Errorf("waited in vain for %s", what)
	}
}
