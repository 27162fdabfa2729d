package test

import (
	"context"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/mezzo-os/mezzo/sdk/framework"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
	schedulerv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1/scheduler"
	"github.com/mezzo-os/mezzo/sdk/resource"
)

// kind is one kind of what is launched: a task, or several together.
type kind struct {
	name    string
	members []member
	// executor is whose tasks they are; nil: the agent's own. group: they are one.
	executor func(n, round int) *mezzov1.ExecutorInfo
	group    bool
	// box says what is to be a container's, of the tasks; nil: nothing.
	box func(*mezzov1.TaskInfo)
}

// member is one task of a kind, and the states that it may end in.
type member struct {
	name, script string
	grace        time.Duration
	ends         []mezzov1.TaskState
	endless      bool // it ends when it is killed
}

var (
	finished = []mezzov1.TaskState{mezzov1.TaskState_TASK_FINISHED}
	failed   = []mezzov1.TaskState{mezzov1.TaskState_TASK_FAILED}
	killed   = []mezzov1.TaskState{mezzov1.TaskState_TASK_KILLED}
)

func alone(name, script string, ends []mezzov1.TaskState) kind {
	return kind{name: name, members: []member{{script: script, ends: ends}}}
}

func endless(name, script string, grace time.Duration) kind {
	return kind{name: name, members: []member{{script: script, grace: grace, ends: killed, endless: true}}}
}

var kinds = []kind{
	alone("short", "true", finished),
	alone("failing", "exit 3", failed),
	alone("crashing", "kill -SEGV $$", failed),
	alone("loud", "head -c 50000000 /dev/zero | tr '\\0' x", finished), // 50 MB as fast as they go: in less than a second
	endless("long", "sleep 100000", time.Second),
	endless("forking", "for i in 1 2 3 4 5 6 7 8; do (sleep 100000 & sleep 100000) & done; wait", time.Second),
	endless("stubborn", "trap '' TERM; while :; do sleep 0.2; done", 300*time.Millisecond),
	{name: "group", executor: defaultExecutor, group: true, members: []member{
		{name: "writer", script: "echo here > shared/word", ends: finished},
		{name: "reader", script: "until [ -s shared/word ]; do sleep 0.05; done; cat shared/word", ends: finished},
	}},
	{name: "broken-group", executor: defaultExecutor, group: true, members: []member{
		{name: "victim", script: "sleep 100000 & wait", ends: killed},
		{name: "culprit", script: "sleep 0.2; exit 3", ends: failed},
	}},
	{name: "long-group", executor: defaultExecutor, group: true, members: []member{
		{name: "one", script: "sleep 100000", ends: killed, endless: true},
		{name: "other", script: "trap '' TERM; while :; do sleep 0.2; done", grace: 300 * time.Millisecond, ends: killed, endless: true},
	}},
	{name: "counting", executor: countingExecutor, members: []member{{name: "a", ends: finished}, {name: "b", ends: finished}}},
	{name: "by-mesos", executor: mesosExecutor, members: []member{{name: "a", ends: killed, endless: true}, {name: "b", ends: killed, endless: true}}},
}

// defaultExecutor is one for each group.
func defaultExecutor(n, _ int) *mezzov1.ExecutorInfo {
	return &mezzov1.ExecutorInfo{
		Type: mezzov1.ExecutorInfo_DEFAULT.Enum(), ExecutorId: &mezzov1.ExecutorID{Value: proto.String(fmt.Sprintf("group-%d", n))},
		Resources: resource.MustParse("cpus:0.1;mem:32;disk:16").Allocate("*").ToProto(),
	}
}

// countingExecutor and mesosExecutor have two executors each, which get more and
// more tasks. The one comes to the agent by itself, the other by the adapter.
func countingExecutor(_, round int) *mezzov1.ExecutorInfo {
	return customExecutor(fmt.Sprintf("counting-%d", round%2), filepath.Join(bin, "executor-hello"), "-executor", "-count", "150ms")
}

func mesosExecutor(_, round int) *mezzov1.ExecutorInfo {
	return customExecutor(fmt.Sprintf("by-mesos-%d", round%2), filepath.Join(bin, "mesos-executor"))
}

func customExecutor(id, program string, args ...string) *mezzov1.ExecutorInfo {
	return &mezzov1.ExecutorInfo{
		Type: mezzov1.ExecutorInfo_CUSTOM.Enum(), ExecutorId: &mezzov1.ExecutorID{Value: proto.String(id)},
		Command:   &mezzov1.CommandInfo{Shell: proto.Bool(false), Value: proto.String(program), Arguments: append([]string{program}, args...)},
		Resources: resource.MustParse("cpus:0.1;mem:128").Allocate("*").ToProto(),
	}
}

// job is what is launched together.
type job struct {
	tasks []*mezzov1.TaskInfo
	group *mezzov1.ExecutorInfo // of a group
}

// job makes the n-th job, in the round-th turn of all kinds.
func (k kind) job(n, round int) job {
	j := job{}
	for _, m := range k.members {
		id := fmt.Sprintf("%s-%d", k.name, n)
		if m.name != "" {
			id += "-" + m.name
		}
		task := shellTask(id, m.script)
		task.Resources = resource.MustParse("cpus:0.1;mem:64").Allocate("*").ToProto()
		if m.grace > 0 {
			task.KillPolicy = &mezzov1.KillPolicy{GracePeriod: duration(m.grace)}
		}
		switch {
		case k.group:
			task.Container = sharedVolume(mezzov1.Volume_Source_SandboxPath_PARENT)
			j.group = k.executor(n, round)
		case k.executor != nil:
			task.Command, task.Executor = nil, k.executor(n, round)
		}
		if k.box != nil {
			k.box(task)
		}
		j.tasks = append(j.tasks, task)
	}
	return j
}

// crowd is a framework with the role "*" for what only runs and the role "db"
// for what keeps data. It launches what it is given, and keeps what it hears.
type crowd struct {
	*runner
	jobs []job
	data *stores // get what is offered to "db"
}

func newCrowd(t *testing.T, master string, data *stores) *crowd {
	t.Helper()
	c := &crowd{
		runner: &runner{t: t, heard: map[string][]*mezzov1.TaskStatus{}, fails: map[string][]*schedulerv1.Event_Failure{}}, data: data,
	}
	c.s = runScheduler(t, master, &mezzov1.FrameworkInfo{Roles: []string{"*", "db"}},
		framework.Callbacks{Offers: c.offers, Update: c.update, Failure: c.failure, OperationUpdate: c.operated},
		mezzov1.FrameworkInfo_Capability_MULTI_ROLE, mezzov1.FrameworkInfo_Capability_RESERVATION_REFINEMENT)
	return c
}

func (c *crowd) operated(_ *framework.Scheduler, s *mezzov1.OperationStatus) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.data.operated(s)
}

// newest is the newest status of a task; the mutex is held.
func (c *crowd) newest(task string) *mezzov1.TaskStatus {
	if all := c.heard[task]; len(all) > 0 {
		return all[len(all)-1]
	}
	return nil
}

func (c *crowd) offers(s *framework.Scheduler, offers []*mezzov1.Offer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, o := range offers {
		var ops []*mezzov1.Offer_Operation
		if o.GetAllocationInfo().GetRole() == "db" {
			ops = c.data.offered(o)
		} else {
			for _, j := range c.jobs {
				ops = append(ops, j.launch(s, o))
			}
			c.jobs = nil
		}
		if len(ops) == 0 {
			_ = s.Decline(context.Background(), refuse(0), o.GetId())
			continue
		}
		_ = s.Accept(context.Background(), []*mezzov1.OfferID{o.GetId()}, ops, refuse(0))
	}
}

// launch is the operation that launches a job. The agent has room for all.
func (j job) launch(s *framework.Scheduler, o *mezzov1.Offer) *mezzov1.Offer_Operation {
	for _, task := range j.tasks {
		task.AgentId = o.GetAgentId()
	}
	if j.group == nil {
		return framework.LaunchTasks(j.tasks...)
	}
	j.group.FrameworkId = &mezzov1.FrameworkID{Value: proto.String(s.FrameworkID())}
	return &mezzov1.Offer_Operation{Type: mezzov1.Offer_Operation_LAUNCH_GROUP.Enum(), LaunchGroup: &mezzov1.Offer_Operation_LaunchGroup{
		Executor: j.group, TaskGroup: &mezzov1.TaskGroupInfo{Tasks: j.tasks},
	}}
}
