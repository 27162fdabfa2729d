package test

import (
	"context"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
	schedulerv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1/scheduler"
)

var (
	tortureTasks = flag.Int("torture-tasks", 42, "how many tasks are launched while things are killed")
	tortureKills = flag.Int("torture-kills", 12, "how often something is killed")
	torturePause = flag.Duration("torture-pause", time.Second, "the longest pause between two kills")
	tortureSeed  = flag.Uint64("torture-seed", 0, "what is killed when; 0: another each time")
)

// torture is one cluster, its tasks, and what happens to them.
type torture struct {
	*cluster
	*crowd
	kinds   []kind
	victims []func()
	// launchesFail: a launch may fail, because what it needs is away.
	launchesFail bool
	agents       []*server // the last one runs
	agentArgs    []string
	dir          string // of the agent
	chance       *rand.Rand
	launched     int
	of           map[string]member // by task
	stores       *stores
}

// TestAgentTorture kills the agent, its isolator and its adapter again and again
// while tasks of every kind are launched, run and end: each reaches one terminal
// state, the right one, every update arrives, and nothing is left behind.
func TestAgentTorture(t *testing.T) {
	t.Parallel()
	x := newTorture(t, kinds, "framework \"mesos\" {\n  config {\n    listen = \"127.0.0.1:0\"\n  }\n}\n", "red", "green", "blue")
	x.victims = []func(){x.killAgent, x.killing("isolator/cgroups"), x.killing("framework/mesos")}
	x.run(*tortureTasks, *tortureKills)
	for _, id := range x.tasks() {
		x.until(id, "told of", func(*mezzov1.TaskStatus) bool { return true })
	}
	x.endStores()
	x.killTheEndless()
	x.judge()
	x.endExecutors()
	x.leavesNothing()
}

// newTorture starts a master and an agent with a configuration, and a framework
// with volumes.
func newTorture(t *testing.T, kinds []kind, config string, volumes ...string) *torture {
	t.Helper()
	seed := *tortureSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("-torture-seed=%d", seed)
	dir := tempDir(t)
	ports := []string{"--rpc", "127.0.0.1:0", "--http", "127.0.0.1:0"}
	master := serve(t, nil, append([]string{"master", "--data-dir", filepath.Join(dir, "m")}, ports...)...)
	file := writeFile(t, filepath.Join(dir, "agent.hcl"), config)
	x := &torture{
		cluster: &cluster{server: master}, chance: rand.New(rand.NewPCG(seed, 1)), of: map[string]member{}, kinds: kinds,
		dir: filepath.Join(dir, "a"),
		agentArgs: append([]string{
			"agent", "--log-level", "debug", "--config", file, "--data-dir", filepath.Join(dir, "a"), "--master", master.fields["rpc"],
			"--resources", "cpus:1000;mem:1000000;disk:1000000",
		}, ports...),
	}
	x.startAgent()
	// Executors look for the agent where it was.
	x.agentArgs = append(x.agentArgs, "--rpc", x.agents[0].fields["agent"])
	x.stores = &stores{t: t, dir: x.dir}
	for _, id := range volumes {
		x.stores.all = append(x.stores.all, &store{id: id})
	}
	x.stores.of = func(task string) { x.of[task] = member{ends: killed} } // the mutex is held
	x.crowd = newCrowd(t, master.fields["rpc"], x.stores)
	x.stores.last = x.crowd.newest
	return x
}

// run launches tasks while something is killed now and then.
func (x *torture) run(tasks, kills int) {
	for round := range kills {
		x.launchMore(tasks * (round + 1) / kills)
		time.Sleep(time.Duration(x.chance.Int64N(int64(*torturePause)))) // a moment that nothing has chosen
		x.work()
		x.victims[x.chance.IntN(len(x.victims))]()
	}
}

func (x *torture) tasks() []string {
	x.crowd.mu.Lock()
	defer x.crowd.mu.Unlock()
	return slices.Sorted(maps.Keys(x.of))
}

// launchMore launches tasks until there were so many.
func (x *torture) launchMore(upTo int) {
	x.crowd.mu.Lock()
	defer x.crowd.mu.Unlock()
	for ; len(x.of) < upTo; x.launched++ {
		k := x.kinds[x.launched%len(x.kinds)]
		j := k.job(x.launched, x.launched/len(x.kinds))
		for i, task := range j.tasks {
			x.of[task.GetTaskId().GetValue()] = k.members[i]
		}
		x.crowd.jobs = append(x.crowd.jobs, j)
	}
}

func (x *torture) startAgent() {
	x.agents = append(x.agents, serve(x.cluster.t, nil, x.agentArgs...))
}

// logged is what the agents said of a container.
func (x *torture) logged(container string) string {
	var lines []string
	for n, a := range x.agents {
		for line := range strings.Lines(a.stderr.String()) {
			if strings.Contains(line, container) {
				lines = append(lines, fmt.Sprintf("agent process %d: %s", n+1, line))
			}
		}
	}
	return strings.Join(lines, "")
}

// killAgent kills the agent with SIGKILL, and starts it again.
func (x *torture) killAgent() {
	x.agents[len(x.agents)-1].stop(syscall.SIGKILL)
	x.startAgent()
}

// killing kills a plugin with SIGKILL; the agent starts it again.
func (x *torture) killing(plugin string) func() {
	return func() {
		for _, p := range x.list("plugins") {
			if p["id"] != plugin || p["host"] == "master" {
				continue
			}
			if pid, ok := p["pid"].(float64); ok && pid > 0 {
				_ = syscall.Kill(int(pid), syscall.SIGKILL)
			}
		}
	}
}

// killTheEndless asks for the end of what does not end by itself.
func (x *torture) killTheEndless() {
	for _, id := range x.tasks() {
		if !x.of[id].endless {
			continue
		}
		eventually(x.cluster.t, "to kill "+id, func() bool {
			r := x.mezzo("kill", id)
			return r.code == 0 || strings.Contains(r.stderr, "no task") || strings.Contains(r.stderr, "ended")
		})
	}
}

func runs(s *mezzov1.TaskStatus) bool { return s.GetState() == mezzov1.TaskState_TASK_RUNNING }

func ended(s mezzov1.TaskState) bool {
	switch s {
	case mezzov1.TaskState_TASK_STAGING, mezzov1.TaskState_TASK_STARTING, mezzov1.TaskState_TASK_RUNNING, mezzov1.TaskState_TASK_KILLING:
		return false
	}
	return true
}

// judge waits for the end of every task and looks at what was told of it.
func (x *torture) judge() {
	t := x.cluster.t
	never := 0 // tasks that were never started, because the agent was killed first
	for _, id := range x.tasks() {
		x.until(id, "ended", func(s *mezzov1.TaskStatus) bool { return ended(s.GetState()) })
		x.crowd.mu.Lock()
		heard := slices.Clone(x.heard[id])
		x.crowd.mu.Unlock()
		ends := map[string]mezzov1.TaskState{}
		last := mezzov1.TaskState_TASK_STAGING
		for _, s := range heard {
			if ended(s.GetState()) {
				ends[string(s.GetUuid())] = s.GetState()
			} else if ended(last) {
				t.Errorf("%s is told to be %s after its end:\n%v", id, s.GetState(), heard)
			}
			last = s.GetState()
		}
		if len(ends) != 1 {
			t.Errorf("%s has %d ends:\n%v", id, len(ends), heard)
		}
		switch {
		case x.unlaunched(heard):
			never++
		case !slices.Contains(x.of[id].ends, last):
			container := heard[len(heard)-1].GetContainerStatus().GetContainerId().GetValue()
			t.Errorf("%s ended as %s, want %v:\n%v\n%s", id, last, x.of[id].ends, heard, x.logged(container))
		}
	}
	if never > len(x.of)/2 && !x.launchesFail || never == len(x.of) {
		t.Errorf("%d of %d tasks were never started", never, len(x.of))
	}
	t.Logf("%d tasks, %d of them never started", len(x.of), never)
}

// unlaunched tells whether a task ended without having run, for the reason that
// something was killed: the agent, or what its isolator needs (containerd).
func (x *torture) unlaunched(heard []*mezzov1.TaskStatus) bool {
	last := heard[len(heard)-1]
	if slices.ContainsFunc(heard, runs) {
		return false
	}
	switch {
	case last.GetState() == mezzov1.TaskState_TASK_LOST:
		return true
	case !x.launchesFail:
		return false
	case last.GetState() == mezzov1.TaskState_TASK_KILLED: // with another of its group, which could not be launched
		return last.GetReason() == mezzov1.TaskStatus_REASON_TASK_KILLED_DURING_LAUNCH
	}
	return last.GetState() == mezzov1.TaskState_TASK_FAILED && last.GetReason() == mezzov1.TaskStatus_REASON_CONTAINER_LAUNCH_FAILED
}

// endExecutors has the custom executors end, which live on without a task, and of
// which the framework is told.
func (x *torture) endExecutors() {
	t := x.cluster.t
	agents := map[string]*mezzov1.AgentID{}
	x.crowd.mu.Lock()
	for _, statuses := range x.heard {
		for _, s := range statuses {
			for _, name := range []string{"counting-", "by-mesos-"} {
				if id := s.GetExecutorId().GetValue(); strings.HasPrefix(id, name) && s.GetState() == mezzov1.TaskState_TASK_RUNNING {
					agents[id] = s.GetAgentId()
				}
			}
		}
	}
	x.crowd.mu.Unlock()
	if len(agents) == 0 {
		t.Error("no custom executor had a task that ran")
	}
	for id, agent := range agents {
		before := len(x.failures(id))
		eventually(t, "executor "+id+" to be asked to end", func() bool {
			return x.s.Call(context.Background(), &schedulerv1.Call{Type: schedulerv1.Call_SHUTDOWN.Enum(), Shutdown: &schedulerv1.Call_Shutdown{
				ExecutorId: &mezzov1.ExecutorID{Value: proto.String(id)}, AgentId: agent,
			}}) == nil
		})
		eventually(t, "the end of executor "+id+" to be told", func() bool { return len(x.failures(id)) > before })
		// One that the agent never had, since it was killed first, ended with -1.
		for _, f := range x.failures(id) {
			if f.GetStatus() > 0 {
				t.Errorf("executor %s ended with status %d", id, f.GetStatus())
			}
		}
	}
}

// leavesNothing: no task, no allocation, no process, no cgroup.
func (x *torture) leavesNothing() {
	t := x.cluster.t
	eventually(t, "all tasks to be acknowledged and gone", func() bool { return len(x.list("tasks")) == 0 })
	eventually(t, "the books to be even", func() bool {
		for _, a := range x.list("agents") {
			if allocated, _ := a["allocated"].(map[string]any); allocated["cpus"] != nil && allocated["cpus"] != 0.0 {
				return false
			}
		}
		return true
	})
	var containers []string
	for _, statuses := range x.heard {
		for _, s := range statuses {
			for c := s.GetContainerStatus().GetContainerId(); c.GetValue() != ""; c = c.GetParent() {
				if !slices.Contains(containers, c.GetValue()) {
					containers = append(containers, c.GetValue())
				}
			}
		}
	}
	eventually(t, "no process and no cgroup of a task to be left", func() bool {
		for _, id := range containers {
			for _, pattern := range []string{"/sys/fs/cgroup/*/mezzo/" + id, "/sys/fs/cgroup/*/mezzo/*/" + id} {
				if left, _ := filepath.Glob(pattern); len(left) > 0 {
					return false
				}
			}
			if len(processesOf(id)) > 0 {
				return false
			}
		}
		return true
	})
	if len(containers) == 0 {
		t.Error("no task had a container")
	}
}

// processesOf are the processes with a container's id in their environment.
func processesOf(container string) (found []string) {
	entries, _ := filepath.Glob("/proc/[0-9]*/environ")
	for _, entry := range entries {
		if text, err := os.ReadFile(entry); err == nil && strings.Contains(string(text), "MEZZO_CONTAINER_ID="+container) {
			found = append(found, entry)
		}
	}
	return found
}
