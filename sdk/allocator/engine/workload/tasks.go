package workload

import (
	allocatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/allocator/v1"
)

// Tasks are those of workloads D and E. Task number 8i+t of agent i belongs at
// first to framework (8i+t) mod F, and then to whoever was offered what it
// left. All counting is from 0.
type Tasks struct {
	// Owner is the framework of each task.
	Owner []uint32
	p     int // counts ended tasks through all rounds
}

// NewTasks returns the tasks of full agents.
func NewTasks(agents, frameworks int) Tasks {
	out := Tasks{Owner: make([]uint32, TasksPerAgent*agents)}
	for j := range out.Owner {
		out.Owner[j] = uint32(j % frameworks)
	}
	return out
}

// End returns the numbers of the tasks that end before the next cycle: one in a
// hundred.
func (t *Tasks) End() []int { return t.EndSome(len(t.Owner) / 100) }

// EndSome is End for n tasks.
func (t *Tasks) EndSome(n int) []int {
	out := make([]int, n)
	for i := range out {
		out[i] = 7919 * t.p % len(t.Owner)
		t.p++
	}
	return out
}

// Use is what task t (0 to 7) of an agent uses, in thousandths; its ports are
// from first to last. small is workload E's, which leaves 512 disk and port
// 32000 free.
func Use(t int, small bool) (cpus, mem, disk, first, last int64) {
	disk, first, last = 512_000, 31000+125*int64(t), 31000+125*int64(t)+124
	if small {
		disk = 448_000
	} else if t == TasksPerAgent-1 {
		last++
	}
	return 3_000, 512_000, disk, first, last
}

func (w *Workload) leavesSome() bool { return w.name == E || w.name == E0 || w.name == EAll }

func (w *Workload) use(t int) *allocatorv1.Quantities {
	c, m, d, first, last := Use(t, w.leavesSome())
	return &allocatorv1.Quantities{Kinds: []uint32{cpus, mem, disk, ports}, Amounts: []int64{c, m, d, 1, first, last - first}}
}

// fill makes a cluster whose agents are full.
func (w *Workload) fill() error {
	w.tasks = NewTasks(w.agents, w.frameworks)
	if err := w.addFrameworks(); err != nil {
		return err
	}
	if err := w.addAgents(w.holdings); err != nil {
		return err
	}
	if w.Preempt {
		for j, owner := range w.tasks.Owner {
			w.start(j, owner+1)
		}
		if err := w.flush(); err != nil {
			return err
		}
	}
	return want(0, len(w.cycle()))
}

// holdings are the tasks of agent i.
func (w *Workload) holdings(i int) []*allocatorv1.Holding {
	var out []*allocatorv1.Holding
	for t := range TasksPerAgent {
		owner := w.tasks.Owner[TasksPerAgent*i+t] + 1
		out = append(out, &allocatorv1.Holding{Framework: owner, Role: w.role(owner), Quantities: w.use(t)})
	}
	return out
}

// start tells of a task, whose number is one more than its index.
func (w *Workload) start(j int, framework uint32) {
	w.tell(&allocatorv1.Event{Event: &allocatorv1.Event_TaskStarted{TaskStarted: &allocatorv1.TaskStarted{
		Number: uint64(j + 1), Agent: uint32(j/TasksPerAgent + 1), Framework: framework, Role: w.role(framework),
		Quantities: w.use(j % TasksPerAgent), StartedNs: int64(w.now)}}})
}

// steady is a round of D and E: tasks end, a cycle, and the frameworks that
// get offers launch just the tasks that ended.
func (w *Workload) steady() error {
	ended := map[uint32][]int{}
	tasks := w.tasks.End
	if w.Ended > 0 {
		tasks = func() []int { return w.tasks.EndSome(w.Ended) }
	}
	for _, j := range tasks() {
		if w.Preempt {
			w.tell(&allocatorv1.Event{Event: &allocatorv1.Event_TaskEnded{TaskEnded: &allocatorv1.TaskEnded{Number: uint64(j + 1)}}})
		}
		agent := uint32(j/TasksPerAgent + 1)
		ended[agent] = append(ended[agent], j)
		w.tell(&allocatorv1.Event{Event: &allocatorv1.Event_Released{Released: &allocatorv1.Released{
			Agent: agent, Framework: w.tasks.Owner[j] + 1, Role: w.role(w.tasks.Owner[j] + 1), Quantities: w.use(j % TasksPerAgent)}}})
	}
	if err := w.flush(); err != nil {
		return err
	}
	if w.name == EAll {
		w.engine.Touch(w.now)
	}
	decisions := w.cycle()
	if err := want(len(ended), len(decisions)); err != nil {
		return err
	}
	for _, d := range decisions {
		o := d.GetOffer()
		for _, j := range ended[o.GetAgent()] {
			w.tasks.Owner[j] = o.GetFramework() - 1
			if w.Preempt {
				w.start(j, o.GetFramework())
			}
		}
		if w.leavesSome() {
			w.release(d, &allocatorv1.Quantities{Kinds: []uint32{disk, ports}, Amounts: []int64{512_000, 1, 32000, 0}}, 0, false)
		}
	}
	return w.flush()
}
