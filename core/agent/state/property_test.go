package state_test

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/mezzo-os/mezzo/core/agent/state"
	isolatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/isolator/v1"
	linkv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/link/v1"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
)

// ledger is what a master knows of the tasks that it gave to the agent.
type ledger struct {
	t     *rapid.T
	tasks map[string]*history
	acks  []*linkv1.StatusUpdate // not given yet
}

// history is the updates of a task, each once, in the order that they came.
type history struct {
	uuids  []string
	states []mezzov1.TaskState
}

func (h *history) over() bool {
	return len(h.states) > 0 && final(h.states[len(h.states)-1])
}

func final(s mezzov1.TaskState) bool {
	switch s {
	case mezzov1.TaskState_TASK_STARTING, mezzov1.TaskState_TASK_RUNNING, mezzov1.TaskState_TASK_KILLING, mezzov1.TaskState_TASK_STAGING:
		return false
	}
	return true
}

// hear takes an update, and checks that it may come.
func (l *ledger) hear(u *linkv1.StatusUpdate) {
	id := u.GetStatus().GetTaskId().GetValue()
	h := l.tasks[id]
	if h == nil {
		l.t.Fatalf("an update of task %q, which was never launched", id)
	}
	uuid := string(u.GetStatus().GetUuid())
	if uuid == "" {
		return // a mere answer
	}
	if i := slices.Index(h.uuids, uuid); i >= 0 {
		if h.states[i] != u.GetStatus().GetState() {
			l.t.Fatalf("task %q: one update was %v and then %v", id, h.states[i], u.GetStatus().GetState())
		}
	} else {
		if h.over() {
			l.t.Fatalf("task %q was %v and is %v now", id, h.states, u.GetStatus().GetState())
		}
		h.uuids, h.states = append(h.uuids, uuid), append(h.states, u.GetStatus().GetState())
	}
	l.acks = append(l.acks, u)
}

// register compares what the agent says it has with what it was given.
func (l *ledger) register(tasks map[string]bool) []*linkv1.TaskRef {
	var missing []*linkv1.TaskRef
	for _, id := range slices.Sorted(maps.Keys(l.tasks)) {
		if !l.tasks[id].over() && !tasks[id] {
			missing = append(missing, &linkv1.TaskRef{FrameworkId: "F1", TaskId: id})
		}
	}
	return missing
}

// run is one random life of an agent.
type life struct {
	*rapid.T
	w *world
	l *ledger
	n int
	// registered is the session that the master has admitted.
	registered uint64
}

// serve is the master's side: it takes what was sent, and admits the agent.
func (r *life) serve() {
	tasks := map[string]bool{}
	whole := false
	sent := r.w.sent
	r.w.sent = nil
	for _, m := range sent {
		switch {
		case m.GetRegister() != nil:
			for _, t := range m.GetRegister().GetTasks() {
				tasks[t.GetId()] = true
			}
			whole = !m.GetRegister().GetMore()
		case m.GetUpdate() != nil:
			r.l.hear(m.GetUpdate())
		}
	}
	if whole && r.w.session != 0 {
		r.registered = r.w.session
		r.w.master(1, registeredAs("A1"))
		if missing := r.l.register(tasks); len(missing) > 0 {
			r.w.master(1, &linkv1.MasterMessage{Message: &linkv1.MasterMessage_Reconcile{Reconcile: &linkv1.ReconcileTasks{Tasks: missing}}})
		}
	}
}

func (r *life) connected() bool { return r.w.session != 0 && r.registered == r.w.session }

func (r *life) run() {
	if !r.connected() {
		return
	}
	f := frameworkInfo("F1", mezzov1.FrameworkInfo_Capability_TASK_KILLING_STATE)
	var e *mezzov1.ExecutorInfo
	count := 1
	group := false
	switch rapid.IntRange(0, 3).Draw(r.T, "kind") {
	case 0:
		e = defaultExecutor(fmt.Sprintf("e%d", rapid.IntRange(1, 2).Draw(r.T, "executor")))
		count, group = rapid.IntRange(1, 3).Draw(r.T, "tasks"), true
	case 1, 2:
		e = customExecutor(fmt.Sprintf("x%d", rapid.IntRange(1, 2).Draw(r.T, "executor")))
		count, group = rapid.IntRange(1, 3).Draw(r.T, "tasks"), rapid.Bool().Draw(r.T, "group")
	}
	var tasks []*mezzov1.TaskInfo
	for range count {
		r.n++
		id := fmt.Sprintf("t%d", r.n)
		tasks = append(tasks, taskInfo(id, "true"))
		r.l.tasks[id] = &history{}
	}
	message := run(f, e, tasks...)
	message.GetRun().Group = group
	r.w.master(1, message)
}

func (r *life) anyTask(label string) string {
	if r.n == 0 {
		return ""
	}
	return fmt.Sprintf("t%d", rapid.IntRange(1, r.n).Draw(r.T, label))
}

func (r *life) anyContainer(label string) string {
	ids := slices.Sorted(maps.Keys(r.w.containers))
	if len(ids) == 0 {
		return ""
	}
	return ids[rapid.IntRange(0, len(ids)-1).Draw(r.T, label)]
}

// act does one random thing.
func (r *life) act() {
	w := r.w
	switch rapid.IntRange(0, 22).Draw(r.T, "act") {
	case 0, 1, 2:
		r.run()
	case 3:
		if id := r.anyTask("killed"); id != "" && r.connected() && !r.l.tasks[id].over() {
			w.master(1, &linkv1.MasterMessage{Message: &linkv1.MasterMessage_Kill{Kill: &linkv1.Kill{Task: &linkv1.TaskRef{FrameworkId: "F1", TaskId: id}}}})
		}
	case 4:
		w.ends(r.anyContainer("ended"), exitCode(int32(rapid.IntRange(0, 1).Draw(r.T, "code"))))
	case 5, 6, 7:
		w.write(rapid.IntRange(1, 3).Draw(r.T, "writes"))
	case 8, 9, 10, 11:
		for n := rapid.IntRange(1, 4).Draw(r.T, "answers"); n > 0 && len(w.inbox) > 0; n-- {
			r.fate()
			w.deliver()
		}
	case 12:
		r.crash()
	case 13: // a plugin's process ends: what it was doing for the agent fails
		for i, in := range w.inbox {
			switch in := in.(type) {
			case state.Created:
				w.inbox[i] = state.LaunchFailed{Container: in.Container, Message: "the plugin is gone"}
			case state.Started:
				w.inbox[i] = state.LaunchFailed{Container: in.Container, Message: "the plugin is gone"}
			}
		}
		w.answer(state.IsolatorUp{Isolator: w.cfg.Isolators[rapid.IntRange(0, len(w.cfg.Isolators)-1).Draw(r.T, "isolator")]})
	case 14:
		if w.session != 0 {
			session := w.session
			w.session = 0
			w.sent = nil
			w.step(state.LinkDown{Session: session, Reason: "cut"})
		}
	case 15:
		w.now = w.now.Add(time.Duration(rapid.IntRange(1, 20_000).Draw(r.T, "ms")) * time.Millisecond)
		w.step(state.Tick{})
	case 16:
		r.acknowledge()
	case 17:
		if r.connected() {
			w.master(1, &linkv1.MasterMessage{Message: &linkv1.MasterMessage_ShutdownExecutor{ShutdownExecutor: &linkv1.ShutdownExecutor{
				FrameworkId: "F1", ExecutorId: fmt.Sprintf("x%d", rapid.IntRange(1, 2).Draw(r.T, "ended")),
			}}})
		}
	default:
		w.programs.act(r.T)
	}
	r.serve()
}

// fate makes the oldest answer a failure now and then.
func (r *life) fate() {
	w := r.w
	fails := rapid.IntRange(0, 9).Draw(r.T, "fails") == 0
	if !fails {
		return
	}
	switch in := w.inbox[0].(type) {
	case state.Created:
		w.inbox[0] = state.LaunchFailed{Container: in.Container, Message: "no room"}
	case state.Started:
		if c := w.containers[in.Container]; c != nil && c.exit == nil {
			w.inbox[0] = state.LaunchFailed{Container: in.Container, Message: "no such program"}
		}
	case state.Claimed:
		w.inbox[0] = state.Claimed{Launch: in.Launch, Err: "no isolator answers"}
	case state.Updated:
		w.inbox[0] = state.Updated{Container: in.Container, Err: "no"}
	}
}

func (r *life) acknowledge() {
	if len(r.l.acks) == 0 || !r.connected() {
		return
	}
	u := r.l.acks[0]
	r.l.acks = r.l.acks[1:]
	r.w.master(1, ack(u))
}

// crash ends the agent's process: some of what was to be written is, what it had
// asked for may still happen, the answers are lost.
func (r *life) crash() {
	w := r.w
	w.write(rapid.IntRange(0, len(w.writes)).Draw(r.T, "written"))
	w.sent, r.l.acks = nil, nil
	if rapid.IntRange(0, 5).Draw(r.T, "reboot") == 0 {
		clear(w.containers)
	}
	w.boot()
	w.isolatorsUp()
}

// TestLives drives agents through random launches, kills, failures, crashes and
// cut streams, and checks what a master may count on: every launch ends in one
// last update or is running, updates come in order, nothing is lost over a
// crash at any point between two writes, and nothing is left behind.
func TestLives(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(state.Config{Hostname: "h1", Isolators: []string{"cgroups", "network"}, User: "root", Root: true, MaxRegister: 2000, MaxCompleted: 5})
		r := &life{T: t, w: w, l: &ledger{t: t, tasks: map[string]*history{}}}
		newPrograms(w)
		w.boot()
		w.isolatorsUp()
		for range rapid.IntRange(1, 120).Draw(t, "acts") {
			r.act()
		}
		r.calm()
		for id, h := range r.l.tasks {
			if !h.over() && !w.programs.has(id) && (len(h.states) == 0 || !running(w, id)) {
				t.Fatalf("task %s has not ended and is not running: %v\n%+v\n%+v\n%s", id, h.states, w.m.Find("F1", id), w.m.View().Containers, w.programs.describe())
			}
		}
		for _, x := range w.programs.list() {
			for _, id := range slices.Sorted(maps.Keys(x.tasks)) {
				if final(x.tasks[id]) {
					continue
				}
				if h := r.l.tasks[id]; h.over() {
					t.Fatalf("task %s has ended, %v, and its executor has it still", id, h.states)
				}
				if rapid.Bool().Draw(t, "finishes") {
					w.programs.report(x, id, mezzov1.TaskState_TASK_FINISHED)
				}
			}
		}
		r.calm()
		for _, id := range slices.Sorted(maps.Keys(w.containers)) {
			w.ends(id, exitCode(0))
		}
		r.calm()
		for id, h := range r.l.tasks {
			if !h.over() {
				t.Fatalf("task %s never ended: %v", id, h.states)
			}
		}
		if v := w.m.View(); len(v.Tasks)+len(v.Containers) > 0 {
			t.Fatalf("tasks and containers are left: %+v %+v", v.Tasks, v.Containers)
		}
		if len(w.containers) > 0 {
			t.Fatalf("containers are left in the isolators: %v", w.containers)
		}
		for _, bucket := range []string{"tasks", "taskinfos", "containers", "executors", "frameworks"} {
			if len(w.disk[bucket]) > 0 {
				t.Fatalf("records are left in %s: %v", bucket, slices.Sorted(maps.Keys(w.disk[bucket])))
			}
		}
		if len(w.disk["completed"]) > 5 {
			t.Fatalf("%d ended tasks are remembered, 5 are to be", len(w.disk["completed"]))
		}
	})
}

func running(w *world, id string) bool {
	for _, t := range w.m.Find("F1", id) {
		if c := w.containers[t.Container]; c != nil && c.state == isolatorv1.Recovered_STATE_RUNNING {
			return true
		}
	}
	return false
}

// calm lets everything go well until nothing more happens.
func (r *life) calm() {
	w := r.w
	for range 60 {
		if w.programs.calm(); len(w.inbox) == 0 {
			w.programs.end()
		}
		w.settle()
		r.serve()
		for len(r.l.acks) > 0 && r.connected() {
			r.acknowledge()
			w.settle()
			r.serve()
		}
		w.settle()
		if next := w.m.NextDeadline(); !next.IsZero() && next.Before(w.now.Add(time.Minute)) {
			if next.After(w.now) {
				w.now = next
			}
			w.step(state.Tick{})
		}
		if r.connected() {
			w.master(1, &linkv1.MasterMessage{Message: &linkv1.MasterMessage_Ping{Ping: &linkv1.Ping{}}})
		}
	}
}

// TestSameInputsSameOutputs runs one life twice.
func TestSameInputsSameOutputs(t *testing.T) {
	once := func(seed int) []string {
		var lines []string
		rapid.Custom(func(t *rapid.T) int {
			lines = nil
			w := newWorld(state.Config{Hostname: "h1", Isolators: []string{"cgroups"}, Root: true})
			w.log = func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) }
			r := &life{T: t, w: w, l: &ledger{t: t, tasks: map[string]*history{}}}
			newPrograms(w)
			w.boot()
			w.isolatorsUp()
			for range 200 {
				r.act()
			}
			return 0
		}).Example(seed)
		return lines
	}
	for seed := range 20 {
		a, b := once(seed), once(seed)
		if !slices.Equal(a, b) {
			t.Fatalf("seed %d: two runs differ", seed)
		}
		if len(a) < 10 {
			t.Fatalf("seed %d: only %d outputs", seed, len(a))
		}
	}
}
