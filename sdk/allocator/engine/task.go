package engine

import (
	"encoding/binary"
	"slices"

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
func (e *Engine) taskStarted(t *allocatorv1.TaskStarted) error {
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
	e.taskEnded(0, t.GetNumber()) // told again
	a.tasks = append(a.tasks, task{t.GetNumber(), t.GetStartedNs(), c, e.sizeOf(v)})
	e.taskAgents[t.GetNumber()] = a.number
	c.tasks++
	c.size = a.tasks[len(a.tasks)-1].size.amount
	c.hunger.fed()
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
