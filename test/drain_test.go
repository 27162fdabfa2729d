package test

import (
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/mezzo-os/mezzo/sdk/framework"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
)

// yard is a master and agents as processes, which operators take out of service.
type yard struct {
	*cluster
	swap *swapCluster
	dirs map[string]string // of agents, by host name
}

func startYard(t *testing.T, settings string) *yard {
	t.Helper()
	dir := tempDir(t)
	config := writeFile(t, filepath.Join(dir, "master.hcl"), "master {\n  min_refuse = \"10ms\"\n"+settings+"}\n")
	m := serve(t, nil, "master", "--config", config, "--data-dir", filepath.Join(dir, "master"), "--rpc", "127.0.0.1:0", "--http", "127.0.0.1:0")
	return &yard{
		cluster: &cluster{server: m}, swap: &swapCluster{t: t, rpc: m.fields["rpc"]}, dirs: map[string]string{},
	}
}

// agentArgs start an agent on the data directory of a host.
func (y *yard) agentArgs(host string) []string {
	if y.dirs[host] == "" {
		y.dirs[host] = filepath.Join(tempDir(y.t), host)
	}
	return []string{"agent", "--data-dir", y.dirs[host], "--master", y.fields["rpc"], "--rpc", "127.0.0.1:0", "--http", "127.0.0.1:0",
		"--resources", "cpus:2;mem:512;disk:100", "--hostname", host, "--end-tasks"}
}

func (y *yard) agent(host string) *server { return serve(y.t, nil, y.agentArgs(host)...) }

// shown is the agent of a host, as mezzo agents lists it; nil: it is not.
func (y *yard) shown(host string) map[string]any {
	for _, a := range y.list("agents") {
		if a["hostname"] == host {
			return a
		}
	}
	return nil
}

func (y *yard) awaitState(host, state string) map[string]any {
	y.t.Helper()
	var a map[string]any
	eventually(y.t, "agent "+host+" to be "+state, func() bool {
		a = y.shown(host)
		return a != nil && a["state"] == state
	})
	return a
}

// do runs a verb that has to succeed and say something.
func (y *yard) do(want string, args ...string) {
	y.t.Helper()
	if r := y.mezzo(args...); r.code != 0 || !strings.Contains(r.stdout, want) {
		y.t.Fatalf("mezzo %v: exit %d, want %q\nstdout: %s\nstderr: %s", args, r.code, want, r.stdout, r.stderr)
	}
}

// lodger launches the tasks that it is asked to, each on its host, and notes what
// becomes of them.
type lodger struct {
	t *testing.T
	*framework.Scheduler
	mu      sync.Mutex
	wanted  map[string]string // host by task
	updates map[string][]*mezzov1.TaskStatus
	asked   chan *mezzov1.InverseOffer
}

func (y *yard) lodger(name string, can ...mezzov1.FrameworkInfo_Capability_Type) *lodger {
	l := &lodger{t: y.t, wanted: map[string]string{}, updates: map[string][]*mezzov1.TaskStatus{}, asked: make(chan *mezzov1.InverseOffer, 100)}
	l.Scheduler = y.swap.scheduler(name, "*", framework.Callbacks{
		Offers: l.offers,
		InverseOffers: func(_ *framework.Scheduler, list []*mezzov1.InverseOffer) {
			for _, o := range list {
				l.asked <- o
			}
		},
		Update: func(_ *framework.Scheduler, st *mezzov1.TaskStatus) {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.updates[st.GetTaskId().GetValue()] = append(l.updates[st.GetTaskId().GetValue()], st)
		},
	}, can...)
	return l
}

func (l *lodger) offers(s *framework.Scheduler, list []*mezzov1.Offer) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, o := range list {
		var tasks []*mezzov1.TaskInfo
		for id, host := range l.wanted {
			if host == o.GetHostname() {
				delete(l.wanted, id)
				// It does not end when it is asked to.
				tasks = append(tasks, sleepTask(id, o.GetAgentId(), "*", "sh", "-c", "trap '' TERM; exec sleep 100000"))
			}
		}
		if len(tasks) > 0 {
			_ = s.Launch(l.t.Context(), o, tasks...)
		} else {
			_ = s.Decline(l.t.Context(), refuse(0.05), o.GetId())
		}
	}
}

// run launches a task on a host and waits until it runs.
func (l *lodger) run(id, host string) {
	l.t.Helper()
	l.mu.Lock()
	l.wanted[id] = host
	l.mu.Unlock()
	l.await(id, mezzov1.TaskState_TASK_RUNNING)
}

// await waits until the last that was told of a task is a state.
func (l *lodger) await(id string, state mezzov1.TaskState) *mezzov1.TaskStatus {
	l.t.Helper()
	defer func() {
		if l.t.Failed() {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.t.Logf("wanted %v, told of %s: %v", l.wanted, id, l.updates[id])
		}
	}()
	var last *mezzov1.TaskStatus
	eventually(l.t, fmt.Sprintf("task %s to be %s", id, state), func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		if n := len(l.updates[id]); n > 0 {
			last = l.updates[id][n-1]
		}
		return last.GetState() == state
	})
	return last
}

// ends are the distinct ends that were told of a task.
func (l *lodger) ends(id string) (out []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	seen := map[string]bool{}
	for _, st := range l.updates[id] {
		if key := string(st.GetUuid()); st.GetState().Terminal() && (key == "" || !seen[key]) {
			seen[key] = true
			out = append(out, st.GetState().String()+" "+st.GetReason().String())
		}
	}
	return out
}

func (s *server) awaitEnd() int {
	s.t.Helper()
	select {
	case <-s.ended:
	case <-time.After(patience):
		s.t.Fatalf("%v did not end\n%s", s.cmd.Args, s.stderr)
	}
	return s.cmd.ProcessState.ExitCode()
}

// Agents are taken out of service under running tasks: drained, put back, drained
// for good, given up while they live.
func TestAgentsOutOfService(t *testing.T) {
	t.Parallel()
	y := startYard(t, "")
	first, second := y.agent("h1"), y.agent("h2")
	l := y.lodger("lodger", mezzov1.FrameworkInfo_Capability_PARTITION_AWARE)
	l.run("t1", "h1")
	l.run("other", "h2")

	// Deactivated: what runs goes on, nothing more comes.
	y.do("is deactivated", "agent", "deactivate", "h1")
	id := y.awaitState("h1", "deactivated")["id"]
	y.do("is in service", "agent", "activate", "h1")
	y.awaitState("h1", "active")
	if r := y.mezzo("agent", "activate", "h1"); r.code != 1 || !strings.Contains(r.stderr, "is not deactivated") {
		t.Errorf("activate what is active: %+v", r)
	}

	// Drained: the task has a tenth of a second, and would take for ever.
	y.do("is drained", "agent", "drain", "h1", "--grace", "100ms", "--wait")
	if got := l.ends("t1"); len(got) != 1 || got[0] != "TASK_KILLED REASON_AGENT_DRAINING" {
		t.Errorf("the drained task's ends: %v", got)
	}
	if a := y.shown("h1"); a["state"] != "drained" || a["deactivated"] != true || a["tasks"] != nil && a["tasks"] != 0.0 {
		t.Errorf("the drained agent: %v", a)
	}
	if r := y.mezzo("why", "lodger"); !strings.Contains(r.stdout, "h1 ("+fmt.Sprint(id)+") is drained") {
		t.Errorf("why says nothing of the drain:\n%s%s", r.stdout, r.stderr)
	}
	y.do("is in service", "agent", "activate", "h1")
	l.run("t2", "h1")

	// Drained for good: the agent ends, and begins anew when it is started.
	y.do("is gone", "agent", "drain", "h1", "--grace", "100ms", "--mark-gone", "--wait")
	if got := l.ends("t2"); len(got) != 1 || got[0] != "TASK_GONE_BY_OPERATOR REASON_AGENT_DRAINING" {
		t.Errorf("the ends of the task that was drained for good: %v", got)
	}
	if code := first.awaitEnd(); code == 0 || !strings.Contains(first.stderr.String(), "was marked gone") {
		t.Errorf("the agent that is gone exits with %d and says\n%s", code, first.stderr)
	}
	y.agent("h1")
	if a := y.awaitState("h1", "active"); a["id"] == id {
		t.Errorf("an agent that is gone came back as %v", a)
	}
	l.run("t3", "h1")

	// Given up while it lives.
	if r := y.mezzo("agent", "gone", "h2"); r.code != 1 || !strings.Contains(r.stderr, "with 1 task) up for good?") || !strings.Contains(r.stderr, "nothing was done") {
		t.Errorf("gone without an answer: %+v", r)
	}
	y.awaitState("h2", "active")
	y.do("is gone", "agent", "gone", "h2", "--yes")
	l.await("other", mezzov1.TaskState_TASK_GONE_BY_OPERATOR)
	if got := l.ends("other"); len(got) != 1 || got[0] != "TASK_GONE_BY_OPERATOR REASON_AGENT_REMOVED_BY_OPERATOR" {
		t.Errorf("the ends of the task of an agent that is gone: %v", got)
	}
	if code := second.awaitEnd(); code == 0 {
		t.Error("the agent that is gone exits with 0")
	}
	if a := y.shown("h2"); a != nil {
		t.Errorf("an agent that is gone is shown: %v", a)
	}
}

// A maintenance window: frameworks are asked to leave, the machine is taken down,
// and the agent that was there comes back with its id when it is up.
func TestMaintenanceWindow(t *testing.T) {
	t.Parallel()
	y := startYard(t, "")
	a := y.agent("h1")
	l := y.lodger("lodger", mezzov1.FrameworkInfo_Capability_PARTITION_AWARE)
	l.run("t1", "h1")
	id := y.awaitState("h1", "active")["id"]
	if r := y.mezzo("maintenance", "down", "h1"); r.code != 1 || !strings.Contains(r.stderr, "not part of a maintenance schedule") {
		t.Errorf("down without a schedule: %+v", r)
	}
	file := writeFile(t, filepath.Join(tempDir(t), "schedule.hcl"), "window {\n  machines = [\"H1\", \"10.99.0.1\"]\n  start    = \"2030-01-01T00:00:00Z\"\n  duration = \"1h0m0s\"\n}\n")
	y.do("2 machines in 1 window", "maintenance", "schedule", "set", file)
	y.do("machines = [\"h1\", \"10.99.0.1\"]", "maintenance", "schedule", "show")
	if r := y.mezzo("agent", "drain", "h1"); r.code != 1 || !strings.Contains(r.stderr, "is in the maintenance schedule") {
		t.Errorf("drain of an agent in the schedule: %+v", r)
	}
	inverse := receive(t, "an inverse offer", l.asked)
	if err := l.AnswerInverse(t.Context(), true, refuse(3600), inverse.GetId()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the answer in the status", func() bool {
		return strings.Contains(y.mezzo("maintenance", "status").stdout, l.FrameworkID()+" accepted")
	})
	if ends := l.ends("t1"); len(ends) != 0 {
		t.Errorf("a task ended for a window: %v", ends)
	}

	y.do("h1: down", "maintenance", "down", "h1")
	l.await("t1", mezzov1.TaskState_TASK_LOST)
	if code := a.awaitEnd(); code != 0 {
		t.Errorf("the agent whose machine is down exits with %d:\n%s", code, a.stderr)
	}
	if shown := y.shown("h1"); shown["state"] != "unreachable" || !strings.Contains(fmt.Sprint(shown["reason"]), "down for maintenance") {
		t.Errorf("the agent whose machine is down: %v", shown)
	}
	if r := y.mezzo("maintenance", "schedule", "clear"); r.code != 1 || !strings.Contains(r.stderr, "bring it up first") {
		t.Errorf("clear with a machine that is down: %+v", r)
	}
	refused := y.start(y.agentArgs("h1")...)
	if r := refused.wait(); r.code != 0 || !strings.Contains(r.stderr, "down for maintenance") {
		t.Errorf("an agent on a machine that is down: %+v", r)
	}
	y.do("h1: up", "maintenance", "up", "h1")
	y.agent("h1")
	if again := y.awaitState("h1", "active"); again["id"] != id || again["unavailability"] != nil {
		t.Errorf("the agent is back as %v, want id %v and no window", again, id)
	}
	l.run("t2", "h1")
	y.do("nothing is planned", "maintenance", "schedule", "clear")
	y.do("Nothing is planned", "maintenance", "status")
}

// An agent that is stopped for longer than the master waits, and goes on, has its
// tasks as they were: they were unreachable, and are told as running again.
func TestAgentStoppedAndContinued(t *testing.T) {
	t.Parallel()
	y := startYard(t, "  agent_ping_interval = \"500ms\"\n  agent_ping_timeouts = 6\n")
	a := y.agent("h1")
	aware, plain := y.lodger("aware", mezzov1.FrameworkInfo_Capability_PARTITION_AWARE), y.lodger("plain")
	aware.run("t1", "h1")
	plain.run("t2", "h1")
	id := y.awaitState("h1", "active")["id"]
	if err := a.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	goOn := func() { _ = a.cmd.Process.Signal(syscall.SIGCONT) }
	t.Cleanup(goOn) // else it cannot be stopped
	if st := aware.await("t1", mezzov1.TaskState_TASK_UNREACHABLE); st.GetUnreachableTime() == nil || st.GetReason() != mezzov1.TaskStatus_REASON_AGENT_REMOVED {
		t.Errorf("the task is unreachable: %v", st)
	}
	plain.await("t2", mezzov1.TaskState_TASK_LOST)
	y.awaitState("h1", "unreachable")
	goOn()
	for id, l := range map[string]*lodger{"t1": aware, "t2": plain} {
		l.await(id, mezzov1.TaskState_TASK_RUNNING)
		l.mu.Lock()
		told := 0
		for _, st := range l.updates[id] {
			if st.GetReason() == mezzov1.TaskStatus_REASON_AGENT_REREGISTERED {
				told++
			}
		}
		if told == 0 {
			t.Errorf("nobody said that %s is back: %v", id, l.updates[id])
		}
		l.mu.Unlock()
	}
	if again := y.awaitState("h1", "active"); again["id"] != id || again["tasks"] != 2.0 {
		t.Errorf("the agent is back as %v", again)
	}
}
