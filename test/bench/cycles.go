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

// cycles measures the workloads from the end of the allocator's batch interval
// to the last offer in a scheduler's hands, through plugin, ledger, master and
// both ends of the schedulers' streams.
func (b *bench) cycles(ctx context.Context) error {
	t := b.table("Cycle through plugin, ledger and master, until the last offer is read by its scheduler, milliseconds",
		"workload", "agents x frameworks", "Mesos", "budget", "cycle", "", "engine's part", "processor: master", "plugin", "load")
	for _, name := range []string{workload.B, workload.D, workload.E} {
		if !b.wants(name) && !(name == workload.B && b.wants(workload.C2)) {
			continue
		}
		for _, s := range b.sizesOf(name) {
			if err := ctx.Err(); err != nil {
				return err
			}
			var err error
			if name == workload.B {
				err = b.clusterFree(ctx, t, s)
			} else {
				err = b.clusterTasks(ctx, t, name, s)
			}
			if err != nil {
				return fmt.Errorf("%s, %s: %w", name, s, err)
			}
		}
	}
	t.print()
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
	began, m, p := time.Now(), processor(c.master.pid()), processor(plugin)
	trigger()
	last, err := c.await(ctx, n)
	if err != nil {
		return lap{}, err
	}
	m, p = processor(c.master.pid())-m, processor(plugin)-p
	// The report of the cycle comes with its last decision.
	after, _, err := c.engineTime(ctx)
	return lap{last.Sub(began) - c.batch, after - before, m, p}, err
}

func (b *bench) row(t *table, name string, s size, laps []lap) {
	var whole, engine, master, plugin []time.Duration
	for _, l := range laps {
		whole, engine = append(whole, l.whole), append(engine, l.engine)
		master, plugin = append(master, l.master), append(plugin, l.plugin)
	}
	b.cycleRow(t, name, s, 1, milliseconds(median(whole)), number(milliseconds(median(engine))),
		number(milliseconds(median(master))), number(milliseconds(median(plugin))), load())
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

// clusterFree measures b and, in the same cluster, c2.
func (b *bench) clusterFree(ctx context.Context, t *table, s size) error {
	c, err := b.newCluster(ctx, collect)
	if c != nil {
		defer c.close()
	}
	if err != nil {
		return err
	}
	err = c.agents(ctx, mastertest.SwarmOptions{Agents: s.agents, Register: func(i int) *linkv1.Register {
		_, r := agentOf(i)
		return r
	}})
	if err != nil {
		return err
	}
	if err := c.frameworks(ctx, s.frameworks); err != nil {
		return err
	}
	revive := func() {
		for _, f := range c.schedulers {
			f.Revive()
		}
	}
	var laps []lap
	for range b.rounds() {
		if err := c.quiet(ctx); err != nil {
			return err
		}
		l, err := c.timed(ctx, s.agents, revive)
		if err != nil {
			return err
		}
		laps = append(laps, l)
		for _, f := range c.schedulers {
			f.Suppress()
		}
		if _, err := c.declineAll(0); err != nil {
			return err
		}
	}
	b.row(t, workload.B, s, laps)
	if s.agents*s.frameworks > clusterFilters || !b.wants(workload.C2) {
		return nil
	}
	return b.clusterFiltered(ctx, t, s, c, revive)
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
func (b *bench) clusterFiltered(ctx context.Context, t *table, s size, c *cluster, revive func()) error {
	if err := c.quiet(ctx); err != nil {
		return err
	}
	revive()
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
	b.row(t, workload.C2, s, laps)
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

// clusterTasks measures d and e.
func (b *bench) clusterTasks(ctx context.Context, t *table, name string, s size) error {
	c, err := b.newCluster(ctx, collect)
	if c != nil {
		defer c.close()
	}
	if err != nil {
		return err
	}
	if err := c.frameworks(ctx, s.frameworks); err != nil {
		return err
	}
	w := &clusterWork{c: c, small: name == workload.E, tasks: workload.NewTasks(s.agents, s.frameworks), launched: make(chan int, 1024)}
	w.prepare()
	err = c.agents(ctx, mastertest.SwarmOptions{Agents: s.agents, Register: w.register, Run: func(_ *mastertest.Agent, run *linkv1.Run) {
		w.launched <- len(run.GetTasks())
	}})
	if err != nil {
		return err
	}
	for _, f := range c.schedulers {
		f.Revive()
	}
	var laps []lap
	for range b.rounds() {
		if err := c.quiet(ctx); err != nil {
			return err
		}
		l, err := w.round(ctx)
		if err != nil {
			return err
		}
		laps = append(laps, l)
	}
	b.row(t, name, s, laps)
	return nil
}

// clusterWork is d or e through a master.
type clusterWork struct {
	c        *cluster
	small    bool
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
		r.Tasks = append(r.Tasks, running(place, w.names[j], p.Pack(w.use(t))))
	}
	r.Kinds = append(r.Kinds, p.Kinds()...)
	return r
}

// infoOf is a framework as agents report it.
func (c *cluster) infoOf(place int) *mezzov1.FrameworkInfo {
	info := mastertest.Info(fmt.Sprint("framework", place+1))
	info.Id = &mezzov1.FrameworkID{Value: proto.String(c.schedulers[place].ID)}
	return info
}

// running is a task that an agent reports, of the framework at this place of
// its list.
func running(place int, id string, use *linkv1.Quantities) *linkv1.Task {
	return &linkv1.Task{
		Framework: uint32(place + 1), Id: id, Name: "t", Resources: use, Role: "*", State: mezzov1.TaskState_TASK_RUNNING.Enum(),
		Status: &mezzov1.TaskStatus{TaskId: &mezzov1.TaskID{Value: proto.String(id)}, State: mezzov1.TaskState_TASK_RUNNING.Enum()},
	}
}

// round ends tasks, waits for the offers and launches others in their place.
func (w *clusterWork) round(ctx context.Context) (lap, error) {
	ended := w.tasks.End()
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
