package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/mezzo-os/mezzo/core/master/mastertest"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
	schedulerv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1/scheduler"
	"github.com/mezzo-os/mezzo/sdk/resource"
)

const (
	launchBudget = 30 // milliseconds, the median
	agentBudget  = 120
	shimBudget   = 4
	keptTasks    = 20 // run on, so that their shims can be measured
)

// launch measures a real agent: from an accepted offer to TASK_RUNNING, and the
// memory of the agent, its plugins and the shims.
func (b *bench) launch(ctx context.Context) error {
	if os.Getuid() != 0 {
		fmt.Fprintln(b.out, "\nlaunch: not measured: only root may make cgroups")
		return nil
	}
	r, err := b.realAgent(ctx, 256, "cpus:8;mem:8192;disk:8192;ports:[31000-32000]")
	defer r.close()
	if err != nil {
		return err
	}
	l := r.launcher
	idle, err := l.idle(ctx, r.agent)
	if err != nil {
		return err
	}
	tasks := 100
	if b.quick {
		tasks = 10
	}
	for range tasks {
		if err := l.one(ctx); err != nil {
			return err
		}
	}
	if err := l.shims(r.dir); err != nil {
		return err
	}
	l.print(b, r.cluster, idle)
	return nil
}

// launcher launches one task after the other.
type launcher struct {
	scheduler *mastertest.Scheduler
	offers    chan *mezzov1.Offer
	updates   chan *mezzov1.TaskStatus
	kept      int
	serial    int
	took      []time.Duration
	rss, pss  []float64 // of shims
}

func (l *launcher) event(s *mastertest.Scheduler, event *schedulerv1.Event) {
	for _, offer := range event.GetOffers().GetOffers() {
		l.offers <- offer
	}
	if status := event.GetUpdate().GetStatus(); status != nil {
		l.updates <- status
		s.Acknowledge(status)
	}
}

// idle measures the agent and its plugins before the first task: RSS of each.
func (l *launcher) idle(ctx context.Context, agent *process) (map[string]usage, error) {
	offer, err := l.offer(ctx)
	if err != nil {
		return nil, err
	}
	l.offers <- offer
	pids, err := agent.children()
	if err != nil {
		return nil, err
	}
	pids["mezzo agent"] = agent.pid()
	out := map[string]usage{}
	for name, pid := range pids {
		if out[name], err = usageOf(pid); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// one launches a task, and ends it again when enough are kept.
func (l *launcher) one(ctx context.Context) error {
	offer, err := l.offer(ctx)
	if err != nil {
		return err
	}
	l.serial++
	task := mastertest.Task(fmt.Sprint("t", l.serial), offer.GetAgentId(), resource.MustParse("cpus:0.05;mem:32").ToProto())
	task.Command = &mezzov1.CommandInfo{Value: proto.String("exec sleep 600")}
	began := time.Now()
	l.scheduler.Accept(offer, []*mezzov1.TaskInfo{task}, 0)
	if err := l.until(ctx, mezzov1.TaskState_TASK_RUNNING); err != nil {
		return err
	}
	l.took = append(l.took, time.Since(began))
	if l.kept < keptTasks {
		l.kept++
		return nil
	}
	l.scheduler.Call(&schedulerv1.Call{Type: schedulerv1.Call_KILL.Enum(), Kill: &schedulerv1.Call_Kill{TaskId: task.TaskId}})
	return l.until(ctx, mezzov1.TaskState_TASK_KILLED)
}

// until reads updates of the newest task.
func (l *launcher) until(ctx context.Context, state mezzov1.TaskState) error {
	late := time.NewTimer(waitLimit)
	defer late.Stop()
	for {
		select {
		case status := <-l.updates:
			switch {
			case status.GetTaskId().GetValue() != fmt.Sprint("t", l.serial):
			case status.GetState() == state:
				return nil
			case status.GetState() != mezzov1.TaskState_TASK_STARTING:
				return fmt.Errorf("the task became %s: %s", status.GetState(), status.GetMessage())
			}
		case <-late.C:
			return fmt.Errorf("the task did not become %s", state)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// shims measures those of the agent whose state lies in dir.
func (l *launcher) shims(dir string) error {
	entries, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return err
	}
	for _, entry := range entries {
		text, err := os.ReadFile(entry)
		args := strings.Split(string(text), "\x00")
		if err != nil || len(args) < 3 || args[1] != "run" || !strings.HasPrefix(args[2], dir) {
			continue
		}
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(entry)))
		use, err := usageOf(pid)
		if err != nil {
			continue
		}
		l.rss, l.pss = append(l.rss, use.rss), append(l.pss, use.pss)
	}
	if len(l.rss) == 0 {
		return errors.New("no shim of the tasks was found")
	}
	return nil
}

func (l *launcher) print(b *bench, c *cluster, idle map[string]usage) {
	t := b.table("A real agent with the cgroups isolator", "", "budget", "measured", "")
	m := milliseconds(median(l.took))
	t.row("accepted offer to TASK_RUNNING, median, ms", number(launchBudget), number(m), b.most("accepted offer to TASK_RUNNING, ms", m, launchBudget))
	t.row("the same, nine of ten, ms", "-", number(milliseconds(l.took[len(l.took)*9/10])), "-")
	total := usage{}
	for _, u := range idle {
		total.rss, total.pss = total.rss+u.rss, total.pss+u.pss
	}
	t.row("idle agent with plugins, RSS, MiB", number(agentBudget), number(total.rss), b.most("idle agent with plugins, MiB", total.rss, agentBudget))
	t.row("the same, PSS", "-", number(total.pss), "-")
	for name, u := range idle {
		t.row(name+", RSS", "-", number(u.rss), "-")
	}
	rss := median(l.rss)
	t.row(fmt.Sprintf("each of %d shims, RSS, MiB", len(l.rss)), number(shimBudget), number(rss), b.most("a task's shim, MiB", rss, shimBudget))
	t.row("the same, PSS", "-", number(median(l.pss)), "-")
	if master, allocator, err := c.memory(); err == nil {
		t.row("master with one agent, RSS, MiB", "-", number(master), "-")
		t.row("its allocator, RSS, MiB", "-", number(allocator), "-")
	}
	t.print()
}
