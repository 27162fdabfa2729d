package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/mezzo-os/mezzo/core/master/mastertest"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
	schedulerv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1/scheduler"
)

// waitLimit bounds each wait for something that must come.
const waitLimit = time.Minute

// frameworksPerConnection share one.
const frameworksPerConnection = 50

// cluster is a master in a process of its own, with its allocator's plugin,
// and schedulers and simulated agents in this one.
type cluster struct {
	b      *bench
	dir    string
	batch  time.Duration
	master *process
	swarm  *mastertest.Swarm

	cancel     context.CancelFunc
	conns      []*grpc.ClientConn
	schedulers []*mastertest.Scheduler

	// told is set before anything is subscribed.
	update func(place int, s *mastertest.Scheduler, status *mezzov1.TaskStatus)

	mu     sync.Mutex
	offers []taken
	got    int           // offers in them
	last   time.Time     // of the newest offer
	news   chan struct{} // has room for one
}

// taken are offers that a framework got in one event.
type taken struct {
	place  int // of the framework
	offers mastertest.Sealed
}

// given is an offer that a framework got.
type given struct {
	place int // of the framework
	offer *mezzov1.Offer
}

// newCluster starts a master whose allocator collects what is freed for batch.
func (b *bench) newCluster(ctx context.Context, batch time.Duration) (*cluster, error) {
	dir, err := os.MkdirTemp(b.dir, "cluster-")
	if err != nil {
		return nil, err
	}
	c := &cluster{b: b, dir: dir, batch: batch, news: make(chan struct{}, 1)}
	return c, c.startMaster(ctx, "127.0.0.1:0")
}

func (c *cluster) startMaster(ctx context.Context, rpc string) (err error) {
	config := filepath.Join(c.dir, "master.hcl")
	text := fmt.Sprintf("data_dir = %q\nmaster {\n  rpc = %q\n  http = \"127.0.0.1:0\"\n  batch_interval = %q\n}\n", c.dir, rpc, c.batch)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return err
	}
	c.master, err = c.b.start(ctx, "master", "--config", config)
	return err
}

func (c *cluster) address() string { return c.master.fields["rpc"] }

// hangUp ends the schedulers' subscriptions.
func (c *cluster) hangUp() {
	if c.cancel != nil {
		c.cancel()
	}
	for _, conn := range c.conns {
		conn.Close()
	}
	for _, s := range c.schedulers {
		s.Wait()
	}
	c.conns, c.schedulers = nil, nil
}

// close ends all that the cluster has started.
func (c *cluster) close() {
	c.hangUp()
	if c.swarm != nil {
		c.swarm.Close()
	}
	if c.master != nil {
		c.master.stop()
	}
	os.RemoveAll(c.dir)
}

// agents starts simulated agents and waits until all are registered.
func (c *cluster) agents(ctx context.Context, o mastertest.SwarmOptions) (err error) {
	o.Address = c.address()
	if o.Connections == 0 {
		o.Connections = min(200, (o.Agents+99)/100)
	}
	if c.swarm, err = mastertest.NewSwarm(o); err != nil {
		return err
	}
	return c.swarm.AwaitRegistered(ctx)
}

// frameworks subscribes schedulers that want no offers yet.
func (c *cluster) frameworks(ctx context.Context, n int) error {
	ctx, c.cancel = context.WithCancel(ctx)
	for i := range n {
		if i%frameworksPerConnection == 0 {
			conn, err := mastertest.Dial(c.address())
			if err != nil {
				return err
			}
			c.conns = append(c.conns, conn)
		}
		s, err := mastertest.Subscribe(ctx, c.conns[len(c.conns)-1], mastertest.SchedulerOptions{
			Info: mastertest.Info(fmt.Sprint("framework", i+1)), Suppressed: []string{"*"},
			Event:  func(s *mastertest.Scheduler, event *schedulerv1.Event) { c.event(i, s, event) },
			Offers: func(_ *mastertest.Scheduler, offers mastertest.Sealed) { c.offered(i, offers) },
		})
		if err != nil {
			return err
		}
		c.schedulers = append(c.schedulers, s)
	}
	return nil
}

// offered takes offers as they came. They are decoded when they are wanted:
// decoding is the schedulers' work, on machines of their own.
func (c *cluster) offered(place int, offers mastertest.Sealed) {
	now := time.Now()
	c.mu.Lock()
	c.offers = append(c.offers, taken{place, offers})
	c.got += offers.Count
	c.last = now
	c.mu.Unlock()
	select {
	case c.news <- struct{}{}:
	default:
	}
}

func (c *cluster) event(place int, s *mastertest.Scheduler, event *schedulerv1.Event) {
	if event.GetType() == schedulerv1.Event_UPDATE {
		status := event.GetUpdate().GetStatus()
		if c.update != nil {
			c.update(place, s, status)
		}
		s.Acknowledge(status)
	}
}

// await waits for n offers and returns when the last came.
func (c *cluster) await(ctx context.Context, n int) (time.Time, error) {
	ctx, cancel := context.WithTimeout(ctx, waitLimit)
	defer cancel()
	for {
		c.mu.Lock()
		got, last := c.got, c.last
		c.mu.Unlock()
		switch {
		case got > n:
			return last, fmt.Errorf("%d offers, want %d", got, n)
		case got == n:
			return last, nil
		}
		select {
		case <-c.news:
		case <-c.master.ended:
			return last, fmt.Errorf("the master ended:\n%s", c.master.log)
		case <-ctx.Done():
			return last, fmt.Errorf("%d of %d offers came: %w", got, n, ctx.Err())
		}
	}
}

// take returns the offers that came, and forgets them.
func (c *cluster) take() ([]given, error) {
	c.mu.Lock()
	events := c.offers
	c.offers, c.got = nil, 0
	c.mu.Unlock()
	var out []given
	for _, e := range events {
		offers, err := e.offers.Offers()
		if err != nil {
			return nil, err
		}
		for _, o := range offers {
			out = append(out, given{e.place, o})
		}
	}
	return out, nil
}

// settled waits until every call is answered.
func (c *cluster) settled(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, waitLimit)
	defer cancel()
	for _, s := range c.schedulers {
		if err := s.Settled(ctx); err != nil {
			return err
		}
	}
	return nil
}

// quiet waits until the allocator has had nothing to do for some time: what
// was called before has had its effects.
func (c *cluster) quiet(ctx context.Context) error {
	if err := c.settled(ctx); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, waitLimit)
	defer cancel()
	for before := -1.0; ; {
		_, count, err := c.engineTime(ctx)
		if err != nil || count == before {
			return err
		}
		before = count
		select {
		case <-time.After(c.batch + 100*time.Millisecond):
		case <-ctx.Done():
			return errors.New("the allocator never comes to rest")
		}
	}
}

// engineTime is how long the plugin's cycles took by its own word, and how many
// there were.
func (c *cluster) engineTime(ctx context.Context) (sum time.Duration, count float64, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+c.master.fields["http"]+"/metrics", nil)
	if err != nil {
		return 0, 0, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, 0, err
	}
	defer response.Body.Close()
	for lines := bufio.NewScanner(response.Body); lines.Scan(); {
		name, text, _ := strings.Cut(lines.Text(), " ")
		value, _ := strconv.ParseFloat(text, 64)
		switch name {
		case "mezzo_master_allocator_cycle_seconds_sum":
			sum = time.Duration(value * 1e9)
		case "mezzo_master_allocator_cycle_seconds_count":
			count = value
		}
	}
	return sum, count, nil
}
