package test

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
	"github.com/mezzo-os/mezzo/sdk/resource"
)

var (
	tortureTasks = flag.Int("torture-tasks", 42, "how many tasks are launched while things are killed")
	tortureKills = flag.Int("torture-kills", 12, "how often something is killed")
	torturePause = flag.Duration("torture-pause", time.Second, "the longest pause between two kills")
	tortureSeed  = flag.Uint64("torture-seed", 0, "what is killed when; 0: another each time")
)

// kind is one kind of task, and the states that it may end in.
type kind struct {
	name   string
	script string
	grace  time.Duration
	ends   []mezzov1.TaskState
}

// Those that end by themselves come first; the others end when they are killed.
var kinds = []kind{
	{"short", "true", 0, []mezzov1.TaskState{mezzov1.TaskState_TASK_FINISHED}},
	{"failing", "exit 3", 0, []mezzov1.TaskState{mezzov1.TaskState_TASK_FAILED}},
	{"crashing", "kill -SEGV $$", 0, []mezzov1.TaskState{mezzov1.TaskState_TASK_FAILED}},
	{"loud", "head -c 50000000 /dev/zero | tr '\\0' x", 0, []mezzov1.TaskState{mezzov1.TaskState_TASK_FINISHED}},
	{"long", "sleep 100000", time.Second, []mezzov1.TaskState{mezzov1.TaskState_TASK_KILLED}},
	{"forking", "for i in 1 2 3 4 5 6 7 8; do (sleep 100000 & sleep 100000) & done; wait", time.Second, []mezzov1.TaskState{mezzov1.TaskState_TASK_KILLED}},
	{"stubborn", "trap '' TERM; while :; do sleep 0.2; done", 300 * time.Millisecond, []mezzov1.TaskState{mezzov1.TaskState_TASK_KILLED}},
}

const endless = 4 // kinds from here on do not end by themselves

// torture is one cluster, its tasks, and what happens to them.
type torture struct {
	*cluster
	*runner
	agents    []*server // the last one runs
	agentArgs []string
	chance    *rand.Rand
	of        map[string]kind // by task
}

// TestAgentTorture kills the agent, its isolator and its adapter again and again
// while tasks of every kind are launched, run and end: each reaches one terminal
// state, the right one, every update arrives, and nothing is left behind.
func TestAgentTorture(t *testing.T) {
	t.Parallel()
	seed := *tortureSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("-torture-seed=%d", seed)
	dir := tempDir(t)
	ports := []string{"--rpc", "127.0.0.1:0", "--http", "127.0.0.1:0"}
	master := serve(t, nil, append([]string{"master", "--data-dir", filepath.Join(dir, "m")}, ports...)...)
	file := writeFile(t, filepath.Join(dir, "agent.hcl"), "framework \"mesos\" {\n  config {\n    listen = \"127.0.0.1:0\"\n  }\n}\n")
	x := &torture{
		cluster: &cluster{t: t, fields: master.fields}, runner: newRunner(t, master.fields["rpc"]),
		chance: rand.New(rand.NewPCG(seed, 1)), of: map[string]kind{},
		agentArgs: append([]string{
			"agent", "--log-level", "debug", "--config", file, "--data-dir", filepath.Join(dir, "a"), "--master", master.fields["rpc"],
			"--resources", "cpus:1000;mem:1000000;disk:1000000",
		}, ports...),
	}
	x.startAgent()
	for round := range *tortureKills {
		x.launchMore(*tortureTasks * (round + 1) / *tortureKills)
		time.Sleep(time.Duration(x.chance.Int64N(int64(*torturePause)))) // a moment that nothing has chosen
		x.killSomething()
	}
	for _, id := range x.tasks() {
		x.until(id, "told of", func(*mezzov1.TaskStatus) bool { return true })
	}
	x.killTheEndless()
	x.judge()
	x.leavesNothing()
}

func (x *torture) tasks() []string {
	var list []string
	for id := range x.of {
		list = append(list, id)
	}
	slices.Sort(list)
	return list
}

// launchMore launches tasks until there were so many.
func (x *torture) launchMore(upTo int) {
	for n := len(x.of); n < upTo; n++ {
		k := kinds[n%len(kinds)]
		id := fmt.Sprintf("%s-%d", k.name, n)
		x.of[id] = k
		task := shellTask(id, k.script)
		task.Resources = resource.MustParse("cpus:0.1;mem:64").Allocate("*").ToProto()
		if k.grace > 0 {
			task.KillPolicy = &mezzov1.KillPolicy{GracePeriod: duration(k.grace)}
		}
		x.launch(task)
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

// killSomething kills -9 a part of the agent's side; what it is comes back.
func (x *torture) killSomething() {
	victim := []string{"agent", "isolator/cgroups", "framework/mesos"}[x.chance.IntN(3)]
	if victim == "agent" {
		x.agents[len(x.agents)-1].stop(syscall.SIGKILL)
		x.startAgent()
		return
	}
	for _, p := range x.list("plugins") {
		if p["id"] != victim || p["host"] == "master" {
			continue
		}
		if pid, ok := p["pid"].(float64); ok && pid > 0 {
			_ = syscall.Kill(int(pid), syscall.SIGKILL)
		}
	}
}

// killTheEndless asks for the end of what does not end by itself.
func (x *torture) killTheEndless() {
	for _, id := range x.tasks() {
		if !slices.ContainsFunc(kinds[endless:], func(k kind) bool { return k.name == x.of[id].name }) {
			continue
		}
		eventually(x.cluster.t, "to kill "+id, func() bool {
			r := x.mezzo("kill", id)
			return r.code == 0 || strings.Contains(r.stderr, "no task") || strings.Contains(r.stderr, "ended")
		})
	}
}

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
		x.runner.mu.Lock()
		heard := slices.Clone(x.heard[id])
		x.runner.mu.Unlock()
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
		case last == mezzov1.TaskState_TASK_LOST:
			never++
		case !slices.Contains(x.of[id].ends, last):
			container := heard[len(heard)-1].GetContainerStatus().GetContainerId().GetValue()
			t.Errorf("%s ended as %s, want %v:\n%v\n%s", id, last, x.of[id].ends, heard, x.logged(container))
		}
	}
	if never > len(x.of)/2 {
		t.Errorf("%d of %d tasks were never started", never, len(x.of))
	}
	t.Logf("%d tasks, %d of them never started", len(x.of), never)
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
			if id := s.GetContainerStatus().GetContainerId().GetValue(); id != "" && !slices.Contains(containers, id) {
				containers = append(containers, id)
			}
		}
	}
	eventually(t, "no process and no cgroup of a task to be left", func() bool {
		for _, id := range containers {
			if left, _ := filepath.Glob("/sys/fs/cgroup/*/mezzo/" + id); len(left) > 0 {
				return false
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
