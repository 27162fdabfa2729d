package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/mezzo-os/mezzo/core/master/mastertest"
	operatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/operator/v1"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
	"github.com/mezzo-os/mezzo/sdk/resource"
)

const (
	restartContainers = 500
	logMegabytes      = 500
)

// agent measures a real agent with many tasks: what each costs, how long it takes
// until all are taken up again after it was killed, and how fast a task can log.
func (b *bench) agent(ctx context.Context) error {
	if os.Getuid() != 0 {
		fmt.Fprintln(b.out, "\nagent: not measured: only root may make cgroups")
		return nil
	}
	r, err := b.realAgent(ctx, 4*restartContainers, "cpus:1000;mem:1000000;disk:1000000")
	defer r.close()
	if err != nil {
		return err
	}
	l := r.launcher
	before, err := usageOf(r.agent.pid())
	if err != nil {
		return err
	}
	containers := restartContainers
	if b.quick {
		containers = 50
	}
	launched, err := l.many(ctx, containers)
	if err != nil {
		return err
	}
	after, err := usageOf(r.agent.pid())
	if err != nil {
		return err
	}
	r.agent.kill()
	for len(l.offers) > 0 {
		<-l.offers // void now
	}
	began := time.Now()
	if err := r.start(ctx); err != nil {
		return err
	}
	if err := recovered(ctx, r.agent, containers); err != nil {
		return err
	}
	restart := time.Since(began)
	t := b.table(fmt.Sprintf("A real agent with %d tasks", containers), "", "measured")
	t.row("launched together, all running, s", number(launched.Seconds()))
	t.row("agent killed -9, started, all recovered and registered, s", number(restart.Seconds()))
	t.row("the agent's memory, KiB a task", number((after.rss-before.rss)*1024/float64(containers)))
	rate, err := l.logs(ctx)
	if err != nil {
		return err
	}
	t.row("a task's log, rotated, MB/s", number(rate))
	t.print()
	return nil
}

// realAgent is an agent's process, on a cluster of its own with a framework that
// gets all its offers.
type realAgent struct {
	bench    *bench
	cluster  *cluster
	agent    *process
	dir      string // where its state lies
	args     []string
	conn     *grpc.ClientConn
	launcher *launcher
}

// realAgent starts one. What there is of it is to be closed, after an error too.
func (b *bench) realAgent(ctx context.Context, updates int, resources string) (*realAgent, error) {
	r := &realAgent{bench: b, launcher: &launcher{offers: make(chan *mezzov1.Offer, 16), updates: make(chan *mezzov1.TaskStatus, updates)}}
	var err error
	if r.cluster, err = b.newCluster(ctx, 5*time.Millisecond, variant{}); err != nil {
		return r, err
	}
	r.dir = filepath.Join(r.cluster.dir, "agent")
	r.args = []string{"agent", "--data-dir", r.dir, "--master", r.cluster.address(), "--rpc", "127.0.0.1:0", "--http", "127.0.0.1:0",
		"--resources", resources, "--end-tasks"}
	if err := r.start(ctx); err != nil {
		return r, err
	}
	if r.conn, err = mastertest.Dial(r.cluster.address()); err != nil {
		return r, err
	}
	info := mastertest.Info("bench")
	info.User = proto.String("root")
	r.launcher.scheduler, err = mastertest.Subscribe(ctx, r.conn, mastertest.SchedulerOptions{Info: info, Event: r.launcher.event})
	return r, err
}

// start starts the agent's process, for the first time or again.
func (r *realAgent) start(ctx context.Context) (err error) {
	r.agent, err = r.bench.start(ctx, r.args...)
	return err
}

func (r *realAgent) close() {
	if r.conn != nil {
		r.conn.Close()
	}
	if r.agent != nil {
		r.agent.stop()
	}
	if r.cluster != nil {
		r.cluster.close()
	}
}

// many launches tasks that do nothing, with one offer.
func (l *launcher) many(ctx context.Context, count int) (time.Duration, error) {
	offer, err := l.offer(ctx)
	if err != nil {
		return 0, err
	}
	var tasks []*mezzov1.TaskInfo
	for range count {
		l.serial++
		task := mastertest.Task(fmt.Sprint("t", l.serial), offer.GetAgentId(), resource.MustParse("cpus:0.01;mem:32").ToProto())
		task.Command = &mezzov1.CommandInfo{Value: proto.String("exec sleep 600")}
		tasks = append(tasks, task)
	}
	began := time.Now()
	l.scheduler.Accept(offer, tasks, 0)
	err = l.count(ctx, mezzov1.TaskState_TASK_RUNNING, count)
	return time.Since(began), err
}

func (l *launcher) offer(ctx context.Context) (*mezzov1.Offer, error) {
	select {
	case offer := <-l.offers:
		return offer, nil
	case <-time.After(waitLimit):
		return nil, errors.New("no offer came")
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// count waits for so many updates of a state.
func (l *launcher) count(ctx context.Context, state mezzov1.TaskState, want int) error {
	late := time.NewTimer(2 * waitLimit)
	defer late.Stop()
	for got := 0; got < want; {
		select {
		case s := <-l.updates:
			switch s.GetState() {
			case state:
				got++
			case mezzov1.TaskState_TASK_STARTING, mezzov1.TaskState_TASK_RUNNING:
			default:
				return fmt.Errorf("task %s became %s: %s", s.GetTaskId().GetValue(), s.GetState(), s.GetMessage())
			}
		case <-late.C:
			return fmt.Errorf("%d of %d tasks became %s", got, want, state)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// recovered waits until an agent is registered and has all its containers.
func recovered(ctx context.Context, agent *process, containers int) error {
	conn, err := mastertest.Dial(agent.fields["agent"])
	if err != nil {
		return err
	}
	defer conn.Close()
	client := operatorv1.NewAgentOperatorClient(conn)
	for began := time.Now(); time.Since(began) < waitLimit; {
		s, err := client.GetState(ctx, &operatorv1.GetAgentStateRequest{})
		if err == nil && s.GetState() == "registered" {
			running := 0
			for _, c := range s.GetContainers() {
				if c.GetState() == "running" {
					running++
				}
			}
			if running == containers {
				return nil
			}
		}
		time.Sleep(5 * time.Millisecond)
	}
	return errors.New("the agent did not recover all its containers")
}

// logs is how fast a task's output goes to its log.
func (l *launcher) logs(ctx context.Context) (float64, error) {
	offer, err := l.offer(ctx)
	if err != nil {
		return 0, err
	}
	l.serial++
	task := mastertest.Task(fmt.Sprint("t", l.serial), offer.GetAgentId(), resource.MustParse("cpus:1;mem:64").ToProto())
	task.Command = &mezzov1.CommandInfo{Value: proto.String(fmt.Sprintf("head -c %d000000 /dev/zero", logMegabytes))}
	began := time.Now()
	l.scheduler.Accept(offer, []*mezzov1.TaskInfo{task}, 0)
	if err := l.count(ctx, mezzov1.TaskState_TASK_FINISHED, 1); err != nil {
		return 0, err
	}
	return logMegabytes / time.Since(began).Seconds(), nil
}
