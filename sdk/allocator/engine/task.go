package engine

import (
	"encoding/binary"
	"slices"
	"time"

	allocatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/allocator/v1"
)

// task is what could be revoked. Tasks are kept only when revocation is on.
type task struct {
	number  uint64
	started int64 // nanoseconds since the Unix epoch
	client  *client
	size    *size
}

// size is the scalars of a task. Most tasks are of few sizes, which they share.
type size struct {
	amount vector
	key    string
	tasks  int
}

// taskStarted adds a task. Its resources are in its client's holding already.
func (e *Engine) taskStarted(now time.Duration, t *allocatorv1.TaskStarted) error {
	if e.preempt == nil {
		return nil
	}
	v, err := e.kinds.parse(t.GetQuantities())
	if err != nil {
		return err
	}
	a, c := e.agent(t.GetAgent()), e.client(t.GetFramework(), t.GetRole())
	if a == nil || c == nil {
		return nil
	}
	_, again := e.taskAgents[t.GetNumber()]
	if again {
		e.forgetTask(now, t.GetNumber())
	}
	started := task{t.GetNumber(), t.GetStartedNs(), c, e.sizeOf(v)}
	a.tasks = append(a.tasks, started)
	e.taskAgents[t.GetNumber()] = a.number
	c.tasks++
	c.size = started.size.amount
	if r := t.GetRevocation(); r != nil {
		e.revocationTold(now, started, a, r)
	} else if !again {
		c.hunger.fed()
	}
	return nil
}

// sizeOf returns the size of the scalars in v.
func (e *Engine) sizeOf(v vector) *size {
	key := e.sizeKey[:0]
	e.kinds.each(v, func(k uint32, amounts []int64) {
		if e.kinds[k].quantity != noQuantity {
			key = binary.LittleEndian.AppendUint32(key, k)
			key = binary.LittleEndian.AppendUint64(key, uint64(amounts[0]))
		}
	})
	e.sizeKey = key
	s := e.sizes[string(key)]
	if s == nil {
		s = &size{key: string(key)}
		e.kinds.each(v, func(k uint32, amounts []int64) {
			if e.kinds[k].quantity != noQuantity {
				s.amount.kinds = append(s.amount.kinds, k)
				s.amount.amounts = append(s.amount.amounts, amounts[0])
			}
		})
		e.sizes[s.key] = s
	}
	s.tasks++
	return s
}

// forgetTask forgets a task that is known, and its revocation.
func (e *Engine) forgetTask(now time.Duration, number uint64) {
	a := e.agents[e.taskAgents[number]]
	e.dropTask(a, slices.IndexFunc(a.tasks, func(t task) bool { return t.number == number }))
	u := &e.preempt.underWay
	if i := slices.IndexFunc(*u, func(r revocation) bool { return r.task == number && !r.ended }); i >= 0 {
		k := (*u)[i].keep
		*u = slices.Delete(*u, i, i+1)
		e.oneLess(now, k)
	}
}

// dropTask forgets one of an agent's tasks.
func (e *Engine) dropTask(a *agent, i int) {
	t := &a.tasks[i]
	delete(e.taskAgents, t.number)
	t.client.tasks--
	if t.size.tasks--; t.size.tasks == 0 {
		delete(e.sizes, t.size.key)
	}
	a.tasks = slices.Delete(a.tasks, i, i+1)
}

// dropTasks forgets an agent's tasks: all, or those of a framework.
func (e *Engine) dropTasks(a *agent, f *framework) {
	for i := len(a.tasks) - 1; i >= 0; i-- {
		if f == nil || a.tasks[i].client.framework == f {
			e.dropTask(a, i)
		}
	}
}
