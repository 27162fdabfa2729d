package main

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
	schedulerv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1/scheduler"
)

const (
	// maxOpen bounds the tasks that have not ended, maxEnded those that have and
	// are still told of.
	maxOpen, maxEnded = 1000, 1000
	// waiting is the state of a task that no agent has got yet. The others are
	// those of Mezzo.
	waiting = "WAITING"
)

var errFull = errors.New("too many tasks have not ended yet; try again later")

// task is what the API tells of one.
type task struct {
	ID      string `json:"id"`
	Command string `json:"command,omitempty"` // unknown of one of a process before this
	State   string `json:"state"`
	Message string `json:"message,omitempty"`
	Agent   string `json:"agent,omitempty"`

	// Each launch has a task id of its own, ID.ATTEMPT: news of one before are
	// no news of this.
	attempt int
	ended   bool
}

func (t *task) taskID() string { return fmt.Sprintf("%s.%d", t.ID, t.attempt) }

// book holds the tasks. It is in memory alone: a process that comes back is told
// of those that were launched, and has lost those that waited. A framework that
// must lose nothing keeps them in a database, or small things in Core.Store.
type book struct {
	mu     sync.Mutex
	prefix string
	number int
	tasks  map[string]*task
	order  []string // of ids, oldest first
	open   int
}

func newBook() *book {
	return &book{prefix: strconv.FormatInt(time.Now().UnixNano(), 36), tasks: map[string]*task{}}
}

// add takes a command up.
func (b *book) add(command string) (task, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.open >= maxOpen {
		return task{}, errFull
	}
	b.number++
	t := &task{ID: fmt.Sprintf("%s-%d", b.prefix, b.number), Command: command, State: waiting}
	b.insert(t)
	return *t, nil
}

func (b *book) insert(t *task) {
	b.tasks[t.ID] = t
	b.order = append(b.order, t.ID)
	b.open++
}

// next takes the oldest that waits, for an agent.
func (b *book) next(agent *mezzov1.AgentID) (id, command string, found bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, id := range b.order {
		if t := b.tasks[id]; t.State == waiting {
			t.State, t.Agent = mezzov1.TaskState_TASK_STAGING.String(), agent.GetValue()
			return t.taskID(), t.Command, true
		}
	}
	return "", "", false
}

func (b *book) anyWaiting() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, t := range b.tasks {
		if t.State == waiting {
			return true
		}
	}
	return false
}

// launched are the tasks of which an end is to come. Reconciliation tells of them,
// and of those of a process before this.
func (b *book) launched() []*schedulerv1.Call_Reconcile_Task {
	b.mu.Lock()
	defer b.mu.Unlock()
	var out []*schedulerv1.Call_Reconcile_Task
	for _, id := range b.order {
		if t := b.tasks[id]; !t.ended && t.State != waiting {
			out = append(out, &schedulerv1.Call_Reconcile_Task{
				TaskId:  &mezzov1.TaskID{Value: proto.String(t.taskID())},
				AgentId: &mezzov1.AgentID{Value: proto.String(t.Agent)},
			})
		}
	}
	return out
}

// update notes a status. A task that never came to run, by no fault of its own,
// waits again. The same status may come twice.
func (b *book) update(s *mezzov1.TaskStatus) (again bool) {
	id, number, _ := strings.Cut(s.GetTaskId().GetValue(), ".")
	attempt, err := strconv.Atoi(number)
	if err != nil {
		return false // none of ours
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	t := b.tasks[id]
	switch {
	case t == nil && s.GetState().Terminal():
		return false // forgotten
	case t == nil: // launched by a process before this
		t = &task{ID: id, attempt: attempt}
		b.insert(t)
	case t.attempt != attempt || t.ended:
		return false
	}
	staging := t.State == mezzov1.TaskState_TASK_STAGING.String()
	t.State, t.Message, t.Agent = s.GetState().String(), s.GetMessage(), s.GetAgentId().GetValue()
	switch s.GetState() {
	case mezzov1.TaskState_TASK_DROPPED, mezzov1.TaskState_TASK_GONE, mezzov1.TaskState_TASK_LOST:
		if staging && t.Command != "" {
			t.State, t.Agent, t.attempt = waiting, "", t.attempt+1
			return true
		}
	}
	if s.GetState().Terminal() {
		b.end(t)
	}
	return false
}

// end closes a task, and forgets the oldest that has ended when there are many.
func (b *book) end(t *task) {
	t.ended = true
	b.open--
	if len(b.tasks)-b.open <= maxEnded {
		return
	}
	for i, id := range b.order {
		if b.tasks[id].ended {
			delete(b.tasks, id)
			b.order = append(b.order[:i], b.order[i+1:]...)
			return
		}
	}
}

// cancel ends a task that waits; of one that was launched it returns the id by
// which it can be killed.
func (b *book) cancel(id string) (t task, taskID string, found bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	it := b.tasks[id]
	if it == nil {
		return task{}, "", false
	}
	switch {
	case it.State == waiting:
		it.State = mezzov1.TaskState_TASK_KILLED.String()
		b.end(it)
	case !it.ended:
		taskID = it.taskID()
	}
	return *it, taskID, true
}

func (b *book) get(id string) (task, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if t := b.tasks[id]; t != nil {
		return *t, true
	}
	return task{}, false
}

// list is all tasks, the oldest first.
func (b *book) list() []task {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := make([]task, 0, len(b.order))
	for _, id := range b.order {
		out = append(out, *b.tasks[id])
	}
	return out
}
