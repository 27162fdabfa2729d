package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/mezzo-os/mezzo/core/link"
	"github.com/mezzo-os/mezzo/core/master/mastertest"
	"github.com/mezzo-os/mezzo/sdk/allocator/engine/workload"
	linkv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/link/v1"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
	"github.com/mezzo-os/mezzo/sdk/resource"
)

const (
	agentResources = "cpus:24;mem:4096;disk:4096;ports:[31000-32000]"
	// clusterFilters is how many filters c2 sets up through a master at the most.
	clusterFilters = 500_000
	// collect is the batch interval of these masters: all that starts a cycle
	// has reached the allocator when it passes, and the cycle's time is counted
	// from there.
	collect = 150 * time.Millisecond
	day     = 86_400
)

// batchFor is the batch interval of a master with so many agents: all that
// starts a cycle has reached the allocator when it passes.
func batchFor(agents int) time.Duration {
	if agents > 10_000 {
		return 10 * collect
	}
	return collect
}

// prompt has what was given back without a filter offered again at once, as
// Mesos's allocator does: else the end of min_refuse would start a cycle.
func (v variant) prompt() variant {
	v.config += "  min_refuse = \"1ms\"\n"
	return v
}

// cycleTable has a row for each workload through a master.
func (b *bench) cycleTable(title string) *table {
	t := b.table(title, "workload", "agents x frameworks", "Mesos", "budget", "median", "best", "", "Mesos by it",
		"engine's part", "processor: master", "plugin", "KiB", "objects", "RSS MiB: master", "plugin", "load")
	t.note("A cycle is timed from the end of the allocator's batch interval to the last offer at its scheduler, a from the first agent's call to")
	t.note("the last registered (in a durable registry), decline from the first call to the last answer. Mesos's figures are calls in process.")
	t.note("KiB, objects: what the master allocates in a round, of d and e with the updates and the launches. Processor: from the trigger on.")
	return t
}

// cycles measures the workloads from the end of the allocator's batch interval
// to the last offer in a scheduler's hands, through plugin, ledger, master and
// the master's end of the schedulers' streams.
func (b *bench) cycles(ctx context.Context) error {
	t := b.cycleTable("Through plugin, ledger and master, milliseconds")
	defer t.print()
	for _, name := range []string{workload.A2, workload.B, workload.D, workload.E} {
		if !b.wants(name) && !(name == workload.B && (b.wants(workload.C2) || b.wants(workload.C1) || b.wants(workload.A1))) {
			continue
		}
		for _, s := range b.clusterSizes(name) {
			if err := ctx.Err(); err != nil {
				return err
			}
			var err error
			switch name {
			case workload.A2:
				err = b.clusterLive(ctx, t, s)
			case workload.B:
				err = b.clusterFree(ctx, t, s, variant{})
			default:
				var laps []lap
				var more []string
				if laps, more, err = b.clusterTasks(ctx, name, s, variant{}); err == nil {
					b.row(t, name, s, laps, more)
				}
			}
			if err != nil {
				return fmt.Errorf("%s, %s: %w", name, s, err)
			}
		}
	}
	return nil
}

// clusterRoles measures b, c1 and d with ten roles, with and without quota.
func (b *bench) clusterRoles(ctx context.Context) error {
	sizes := []size{{10_000, 50}}
	if b.all {
		sizes = []size{{1000, 50}, {1000, 1000}, {10_000, 50}, {10_000, 1000}}
	}
	for _, percent := range []int64{0, 5} {
		t := b.cycleTable(fmt.Sprintf("Through plugin, ledger and master, frameworks in ten roles, each guaranteed %d %%, milliseconds", percent))
		t.percent, t.inRoles = percent, true
		for _, s := range sizes {
			v := variant{roles: 10, percent: percent}
			if percent > 0 {
				v.blocks = guarantees(10, percent, s.agents)
			}
			if err := b.clusterFree(ctx, t, s, v); err != nil {
				return fmt.Errorf("b, %s: %w", s, err)
			}
			laps, more, err := b.clusterTasks(ctx, workload.D, s, v)
			if err != nil {
				return fmt.Errorf("d, %s: %w", s, err)
			}
			b.row(t, workload.D, s, laps, more)
		}
		t.print()
	}
	return nil
}

// lap is one measured cycle.
type lap struct{ whole, engine, master, plugin time.Duration }

// timed measures from the trigger to the last of n offers.
func (c *cluster) timed(ctx context.Context, n int, trigger func()) (lap, error) {
	before, _, err := c.engineTime(ctx)
	if err != nil {
		return lap{}, err
	}
	children, err := c.master.children()
	if err != nil {
		return lap{}, err
	}
	plugin := children["mezzo-allocator-drf"]
	// The clock starts last: reading the processor time of all threads takes
	// most of a millisecond.
	m, p := processor(c.master.pid()), processor(plugin)
	began := time.Now()
	trigger()
	last, err := c.await(ctx, n)
	if err != nil {
		return lap{}, err
	}
	m, p = processor(c.master.pid())-m, processor(plugin)-p
	// The report of the cycle comes with its last decision.
	after, _, err := c.engineTime(ctx)
	l := lap{last.Sub(began) - c.batch, after - before, m, p}
	if err == nil && l.whole <= 0 {
		err = errors.New("the cycle began too early: something else had started the batch interval")
	}
	return l, err
}

// split returns what was measured, one by one; the first is sorted.
func split(laps []lap) (whole, engine, master, plugin []time.Duration) {
	for _, l := range laps {
		whole, engine = append(whole, l.whole), append(engine, l.engine)
		master, plugin = append(master, l.master), append(plugin, l.plugin)
	}
	slices.Sort(whole)
	return whole, engine, master, plugin
}

// row prints laps; more are what the master allocates, and memory.
func (b *bench) row(t *table, name string, s size, laps []lap, more []string) {
	whole, engine, master, plugin := split(laps)
	cells := append([]string{number(milliseconds(median(engine))), number(milliseconds(median(master))), number(milliseconds(median(plugin)))}, more...)
	b.cycleRow(t, name, s, 1, whole, append(cells, load())...)
}

// plain is a row of a time that no cycle was.
func (b *bench) plain(t *table, name string, s size, took []time.Duration) {
	slices.Sort(took)
	b.cycleRow(t, name, s, 1, took, "-", "-", "-", "-", "-", "-", "-", load())
}

// more is what the master allocates in run, and what both processes hold.
func (c *cluster) more(ctx context.Context, run func() error) ([]string, error) {
	use, err := c.allocates(ctx, run)
	if err != nil {
		return nil, err
	}
	master, plugin, err := c.memory()
	return []string{kib(use.bytes), number(use.objects), number(master), number(plugin)}, err
}

// few says that no sizes were asked for: what takes long is left out.
func (b *bench) few() bool { return len(b.sizes) == 0 && !b.all }

// roundsOf are fewer on large clusters.
func (b *bench) roundsOf(s size) int {
	if s.agents > 10_000 {
		return min(3, b.rounds())
	}
	return b.rounds()
}

func (b *bench) rounds() int {
	if b.quick {
		return 2
	}
	return b.laps
}

// agentOf is an agent of the workloads.
func agentOf(i int) (*link.Packer, *linkv1.Register) {
	p := link.NewPacker()
	total := p.Pack(resource.MustParse(agentResources))
	return p, &linkv1.Register{
		Agent: &linkv1.Agent{Hostname: fmt.Sprint("agent", i+1), Version: mastertest.Version, Resources: total, BootId: "b"},
		Kinds: p.Kinds(),
	}
}

// clusterLive measures a2: agents come while frameworks wait for offers.
func (b *bench) clusterLive(ctx context.Context, t *table, s size) error {
	var took []time.Duration
	for range max(1, b.rounds()/2) {
		c, err := b.newCluster(ctx, 5*time.Millisecond, variant{})
		if c != nil {
			defer c.close()
		}
		if err != nil {
			return err
		}
		if err := c.subscribe(ctx, s.frameworks, false); err != nil {
			return err
		}
		began := time.Now()
		if err := c.agents(ctx, mastertest.SwarmOptions{Agents: s.agents, Register: plainAgent}); err != nil {
			return err
		}
		last, err := c.await(ctx, s.agents)
		if err != nil {
			return err
		}
		took = append(took, last.Sub(began))
		c.close()
	}
	b.plain(t, workload.A2, s, took)
	return nil
}

func plainAgent(i int) *linkv1.Register {
	_, r := agentOf(i)
	return r
}

// clusterFree measures b and, in the same cluster, a1, the declining, c1 and c2.
func (b *bench) clusterFree(ctx context.Context, t *table, s size, v variant) error {
	c, err := b.newCluster(ctx, batchFor(s.agents), v.prompt())
	if c != nil {
		defer c.close()
	}
	if err != nil {
		return err
	}
	began := time.Now()
	if err := c.agents(ctx, mastertest.SwarmOptions{Agents: s.agents, Register: plainAgent}); err != nil {
		return err
	}
	if b.wants(workload.A1) && v.roles == 0 {
		b.plain(t, workload.A1, s, []time.Duration{time.Since(began)})
	}
	if err := c.frameworks(ctx, s.frameworks); err != nil {
		return err
	}
	if b.wants(workload.B) {
		if err := b.clusterAll(ctx, t, s, c); err != nil {
			return err
		}
	}
	if b.wants(workload.C1) && s.frameworks > 1 && (s.agents <= 10_000 || !b.few()) {
		if err := b.clusterDeclined(ctx, t, s, c); err != nil {
			return err
		}
	}
	if s.agents*s.frameworks > clusterFilters || !b.wants(workload.C2) || v.roles > 0 || b.few() && s.frameworks > 50 {
		return nil
	}
	return b.clusterFiltered(ctx, t, s, c)
}

func (c *cluster) revive() {
	for _, f := range c.schedulers {
		f.Revive()
	}
}

// rest has all frameworks give back what they have, and want nothing more.
func (c *cluster) rest(ctx context.Context) error {
	for _, f := range c.schedulers {
		f.Suppress()
	}
	if _, err := c.declineAll(0); err != nil {
		return err
	}
	return c.quiet(ctx)
}

// clusterAll measures b.
func (b *bench) clusterAll(ctx context.Context, t *table, s size, c *cluster) error {
	var laps []lap
	round := func() error {
		l, err := c.timed(ctx, s.agents, c.revive)
		laps = append(laps, l)
		return err
	}
	for range b.roundsOf(s) {
		if err := c.quiet(ctx); err != nil {
			return err
		}
		if err := round(); err != nil {
			return err
		}
		if err := c.rest(ctx); err != nil {
			return err
		}
	}
	measured := laps
	more, err := c.more(ctx, round)
	if err != nil {
		return err
	}
	b.row(t, workload.B, s, measured, more)
	return c.rest(ctx)
}

// clusterDeclined measures how long it takes to decline everything, and c1,
// the cycle after that.
func (b *bench) clusterDeclined(ctx context.Context, t *table, s size, c *cluster) error {
	var laps []lap
	var declines []time.Duration
	for range b.roundsOf(s) {
		c.revive()
		if _, err := c.await(ctx, s.agents); err != nil {
			return err
		}
		if err := c.quiet(ctx); err != nil {
			return err
		}
		var failed error
		l, err := c.timed(ctx, s.agents, func() {
			began := time.Now()
			_, failed = c.declineAll(day)
			failed = errors.Join(failed, c.settled(ctx))
			declines = append(declines, time.Since(began))
		})
		if err := errors.Join(err, failed); err != nil {
			return fmt.Errorf("c1: %w", err)
		}
		laps = append(laps, l)
		if err := c.rest(ctx); err != nil {
			return err
		}
	}
	b.plain(t, workload.Decline, s, declines)
	b.row(t, workload.C1, s, laps, []string{"-", "-", "-", "-"})
	return nil
}

// declineAll declines every offer that came, and returns how many.
func (c *cluster) declineAll(refuse float64) (int, error) {
	byFramework := make([][]*mezzov1.OfferID, len(c.schedulers))
	offers, err := c.take()
	for _, o := range offers {
		byFramework[o.place] = append(byFramework[o.place], o.offer.GetId())
	}
	for place, ids := range byFramework {
		if len(ids) > 0 {
			c.schedulers[place].Decline(ids, refuse)
		}
	}
	return len(offers), err
}

// clusterFiltered measures c2: when every framework filters every agent, one
// agent grows, and is offered.
func (b *bench) clusterFiltered(ctx context.Context, t *table, s size, c *cluster) error {
	if err := c.quiet(ctx); err != nil {
		return err
	}
	c.revive()
	for declined := 0; declined < s.agents*s.frameworks; {
		if err := c.some(ctx); err != nil {
			return err
		}
		n, err := c.declineAll(day)
		if err != nil {
			return err
		}
		declined += n
	}
	if err := c.quiet(ctx); err != nil {
		return err
	}
	larger := resource.MustParse("cpus:25;mem:4096;disk:4096;ports:[31000-32000]")
	var laps []lap
	for i := range b.rounds() {
		l, err := c.timed(ctx, 1, func() {
			_, r := agentOf(i)
			p := link.NewPacker()
			r.Agent.Id, r.Agent.Resources = c.swarm.Agent(i).ID(), p.Pack(larger)
			_ = c.swarm.Agent(i).Send(&linkv1.AgentMessage{Message: &linkv1.AgentMessage_State{State: &linkv1.AgentState{Agent: r.Agent, Kinds: p.Kinds()}}})
		})
		if err != nil {
			return fmt.Errorf("c2: %w", err)
		}
		laps = append(laps, l)
		if _, err := c.take(); err != nil { // its framework keeps the offer
			return err
		}
	}
	master, plugin, err := c.memory()
	if err != nil {
		return err
	}
	b.row(t, workload.C2, s, laps, []string{"-", "-", number(master), number(plugin)})
	return nil
}

// some waits until there are offers.
func (c *cluster) some(ctx context.Context) error {
	late := time.NewTimer(waitLimit)
	defer late.Stop()
	for {
		c.mu.Lock()
		n := len(c.offers)
		c.mu.Unlock()
		if n > 0 {
			return nil
		}
		select {
		case <-c.news:
		case <-c.master.ended:
			return fmt.Errorf("the master ended:\n%s", c.master.log)
		case <-late.C:
			return errors.New("no offers come")
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// clusterTasks measures d or e.
func (b *bench) clusterTasks(ctx context.Context, name string, s size, v variant) ([]lap, []string, error) {
	c, err := b.newCluster(ctx, batchFor(s.agents), v.prompt())
	if c != nil {
		defer c.close()
	}
	if err != nil {
		return nil, nil, err
	}
	if err := c.frameworks(ctx, s.frameworks); err != nil {
		return nil, nil, err
	}
	w := &clusterWork{c: c, small: name == workload.E, ended: v.ended, tasks: workload.NewTasks(s.agents, s.frameworks), launched: make(chan int, 1024)}
	w.prepare()
	err = c.agents(ctx, mastertest.SwarmOptions{Agents: s.agents, Register: w.register, Run: func(_ *mastertest.Agent, run *linkv1.Run) {
		w.launched <- len(run.GetTasks())
	}})
	if err != nil {
		return nil, nil, err
	}
	c.revive()
	var laps []lap
	round := func() error {
		l, err := w.round(ctx)
		laps = append(laps, l)
		return err
	}
	for range b.rounds() {
		if err := c.quiet(ctx); err != nil {
			return nil, nil, err
		}
		if err := round(); err != nil {
			return nil, nil, err
		}
	}
	measured := laps
	more, err := c.more(ctx, round)
	return measured, more, err
}

// clusterWork is d or e through a master.
type clusterWork struct {
	c        *cluster
	small    bool
	ended    int // tasks that end in a round; 0: 1 %
	tasks    workload.Tasks
	names    []string // of each task, as it is now
	uses     [workload.TasksPerAgent][]*mezzov1.Resource
	serial   int
	launched chan int // how many tasks an agent was told to run
}

func (w *clusterWork) prepare() {
	for t := range w.uses {
		w.uses[t] = w.use(t).ToProto()
	}
	for j := range w.tasks.Owner {
		w.names = append(w.names, fmt.Sprint("t", j))
	}
	w.serial = len(w.names)
}

func (w *clusterWork) use(t int) resource.Resources {
	cpus, mem, disk, first, last := workload.Use(t, w.small)
	return resource.MustParse(fmt.Sprintf("cpus:%d;mem:%d;disk:%d;ports:[%d-%d]", cpus/1000, mem/1000, disk/1000, first, last))
}

// register is agent i with its eight tasks.
func (w *clusterWork) register(i int) *linkv1.Register {
	p, r := agentOf(i)
	var owners []uint32
	for t := range workload.TasksPerAgent {
		j := workload.TasksPerAgent*i + t
		place := slices.Index(owners, w.tasks.Owner[j])
		if place < 0 {
			place = len(owners)
			owners = append(owners, w.tasks.Owner[j])
			r.Frameworks = append(r.Frameworks, w.c.infoOf(int(w.tasks.Owner[j])))
		}
		r.Tasks = append(r.Tasks, running(place, w.names[j], p.Pack(w.use(t)), w.c.role(int(w.tasks.Owner[j]))))
	}
	r.Kinds = append(r.Kinds, p.Kinds()...)
	return r
}

// infoOf is a framework as agents report it.
func (c *cluster) infoOf(place int) *mezzov1.FrameworkInfo {
	info := c.info(place)
	info.Id = &mezzov1.FrameworkID{Value: proto.String(c.schedulers[place].ID)}
	return info
}

// running is a task that an agent reports, of the framework at this place of
// its list.
func running(place int, id string, use *linkv1.Quantities, role string) *linkv1.Task {
	return &linkv1.Task{
		Framework: uint32(place + 1), Id: id, Name: "t", Resources: use, Role: role, State: mezzov1.TaskState_TASK_RUNNING.Enum(),
		Status: &mezzov1.TaskStatus{TaskId: &mezzov1.TaskID{Value: proto.String(id)}, State: mezzov1.TaskState_TASK_RUNNING.Enum()},
	}
}

// round ends tasks, waits for the offers and launches others in their place.
func (w *clusterWork) round(ctx context.Context) (lap, error) {
	n := w.ended
	if n == 0 {
		n = len(w.tasks.Owner) / 100
	}
	ended := w.tasks.EndSome(n)
	slots := map[string][]int{} // of each agent's id
	for _, j := range ended {
		id := w.c.swarm.Agent(j / workload.TasksPerAgent).ID()
		slots[id] = append(slots[id], j)
	}
	l, err := w.c.timed(ctx, len(slots), func() {
		for _, j := range ended {
			w.c.swarm.Agent(j/workload.TasksPerAgent).Update(w.c.schedulers[w.tasks.Owner[j]].ID, w.names[j], mezzov1.TaskState_TASK_FINISHED)
		}
	})
	if err != nil {
		return l, err
	}
	offers, err := w.c.take()
	if err != nil {
		return l, err
	}
	for _, o := range offers {
		var tasks []*mezzov1.TaskInfo
		for _, j := range slots[o.offer.GetAgentId().GetValue()] {
			w.serial++
			w.tasks.Owner[j], w.names[j] = uint32(o.place), fmt.Sprint("t", w.serial)
			tasks = append(tasks, mastertest.Task(w.names[j], o.offer.GetAgentId(), w.uses[j%workload.TasksPerAgent]))
		}
		w.c.schedulers[o.place].Accept(o.offer, tasks, 0)
	}
	late := time.NewTimer(waitLimit)
	defer late.Stop()
	for running := 0; running < len(ended); {
		select {
		case n := <-w.launched:
			running += n
		case <-late.C:
			return l, fmt.Errorf("%d of %d tasks were launched", running, len(ended))
		case <-ctx.Done():
			return l, ctx.Err()
		}
	}
	return l, nil
}
