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
	roles  int    // framework i is in role i mod roles; 0: all are in "*"
	config string // of the master, beside what all have
	blocks string // after its block
	rpc    string // where it listens, as configured
	master *process
	swarm  *mastertest.Swarm

	cancel     context.CancelFunc
	conns      []*grpc.ClientConn
	schedulers []*mastertest.Scheduler

	// offer and update are set before anything is subscribed; offer is told of
	// offers as they come.
	offer  func(place int, s *mastertest.Scheduler, offers mastertest.Sealed)
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

// variant is in what a cluster differs from those of Mesos's table.
type variant struct {
	roles   int   // framework i is in role i mod roles; 0: all are in "*"
	percent int64 // of the cluster that each role is guaranteed
	ended   int   // tasks that end before each cycle of d and e; 0: 1 %
	config  string
	blocks  string
}

// newCluster starts a master whose allocator collects what is freed for batch.
func (b *bench) newCluster(ctx context.Context, batch time.Duration, v variant) (*cluster, error) {
	dir, err := os.MkdirTemp(b.dir, "cluster-")
	if err != nil {
		return nil, err
	}
	c := &cluster{b: b, dir: dir, batch: batch, roles: v.roles, config: v.config, blocks: v.blocks, news: make(chan struct{}, 1)}
	return c, c.startMaster(ctx, "127.0.0.1:0")
}

// guarantees are blocks that guarantee each role so many percent of the
// agents' cpus and mem.
func guarantees(roles int, percent int64, agents int) (out string) {
	for i := range roles {
		n := percent * int64(agents)
		out += fmt.Sprintf("role \"role%d\" {\n  guarantee = \"cpus:%d;mem:%d\"\n}\n", i, 24*n/100, 4096*n/100)
	}
	return out
}

// role is that of a framework.
func (c *cluster) role(place int) string {
	if c.roles == 0 {
		return "*"
	}
	return fmt.Sprint("role", place%c.roles)
}

// info is a framework before it has an id.
func (c *cluster) info(place int) *mezzov1.FrameworkInfo {
	info := mastertest.Info(fmt.Sprint("framework", place+1))
	info.Roles = []string{c.role(place)}
	return info
}

func (c *cluster) startMaster(ctx context.Context, rpc string) (err error) {
	config, err := c.writeConfig(rpc)
	if err != nil {
		return err
	}
	c.master, err = c.b.start(ctx, "master", "--config", config)
	return err
}

// writeConfig writes the master's configuration as it is wanted now.
func (c *cluster) writeConfig(rpc string) (string, error) {
	c.rpc = rpc
	config := filepath.Join(c.dir, "master.hcl")
	text := fmt.Sprintf("data_dir = %q\nmaster {\n  rpc = %q\n  http = \"127.0.0.1:0\"\n  batch_interval = %q\n%s}\n%s", c.dir, rpc, c.batch, c.config, c.blocks)
	return config, os.WriteFile(config, []byte(text), 0o600)
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
	return c.subscribe(ctx, n, true)
}

func (c *cluster) subscribe(ctx context.Context, n int, suppressed bool) error {
	ctx, c.cancel = context.WithCancel(ctx)
	for i := range n {
		if i%frameworksPerConnection == 0 {
			conn, err := mastertest.Dial(c.address())
			if err != nil {
				return err
			}
			c.conns = append(c.conns, conn)
		}
		var silent []string
		if suppressed {
			silent = []string{c.role(i)}
		}
		s, err := mastertest.Subscribe(ctx, c.conns[len(c.conns)-1], mastertest.SchedulerOptions{
			Info: c.info(i), Suppressed: silent,
			Event:  func(s *mastertest.Scheduler, event *schedulerv1.Event) { c.event(i, s, event) },
			Offers: func(s *mastertest.Scheduler, offers mastertest.Sealed) { c.offered(i, s, offers) },
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
func (c *cluster) offered(place int, s *mastertest.Scheduler, offers mastertest.Sealed) {
	if c.offer != nil {
		c.offer(place, s, offers)
		return
	}
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
	m, err := c.metrics(ctx)
	return time.Duration(m["mezzo_master_allocator_cycle_seconds_sum"] * 1e9), m["mezzo_master_allocator_cycle_seconds_count"], err
}

// metrics are those of the master that have no labels.
func (c *cluster) metrics(ctx context.Context) (map[string]float64, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+c.master.fields["http"]+"/metrics", nil)
	if err != nil {
		return nil, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	out := map[string]float64{}
	for lines := bufio.NewScanner(response.Body); lines.Scan(); {
		name, text, _ := strings.Cut(lines.Text(), " ")
		if value, err := strconv.ParseFloat(text, 64); err == nil {
			out[name] = value
		}
	}
	return out, nil
}

// heapUse is what was allocated on a heap.
type heapUse struct{ bytes, objects float64 }

func (c *cluster) heap(ctx context.Context) (heapUse, error) {
	m, err := c.metrics(ctx)
	return heapUse{m["go_memstats_alloc_bytes_total"], m["go_memstats_mallocs_total"]}, err
}

// allocates is what the master allocates while run runs, without what asking
// costs.
func (c *cluster) allocates(ctx context.Context, run func() error) (heapUse, error) {
	if err := c.quiet(ctx); err != nil {
		return heapUse{}, err
	}
	var at [3]heapUse
	for i := range at {
		if i == 2 {
			if err := run(); err != nil {
				return heapUse{}, err
			}
		}
		var err error
		// The sums that /metrics shows are kept for a while: each is to be
		// made anew.
		time.Sleep(collect)
		if at[i], err = c.heap(ctx); err != nil {
			return heapUse{}, err
		}
	}
	asking := heapUse{at[1].bytes - at[0].bytes, at[1].objects - at[0].objects}
	return heapUse{max(0, at[2].bytes-at[1].bytes-asking.bytes), max(0, at[2].objects-at[1].objects-asking.objects)}, nil
}
