// Executor-hello is a framework with an executor of its own, as small as it can
// be. As a scheduler it has its executor run some tasks, says hello to it, and
// exits 0 when all tasks have finished and the executor has answered. The same
// binary is the executor: the agent starts it with -executor, and it runs each
// task as a goroutine that counts to three.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"time"

	"github.com/mezzo-os/mezzo/sdk/executor"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
)

func main() {
	masters := flag.String("masters", "127.0.0.1:5061", "the masters' addresses, with commas between them")
	tasks := flag.Int("tasks", 3, "how many tasks to run")
	every := flag.Duration("count", 100*time.Millisecond, "how long the executor counts for one number")
	execute := flag.Bool("executor", false, "be the executor; the agent gives this")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	var err error
	if *execute {
		err = runExecutor(ctx, *every)
	} else {
		err = runScheduler(ctx, strings.Split(*masters, ","), *tasks, *every)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "executor-hello:", err)
		os.Exit(1)
	}
}

// counter is the executor: a goroutine a task. Only callbacks use running.
type counter struct {
	every   time.Duration
	running map[string]context.CancelFunc // by task
}

func runExecutor(ctx context.Context, every time.Duration) error {
	o, err := executor.FromEnvironment()
	if err != nil {
		return err
	}
	c := &counter{every: every, running: map[string]context.CancelFunc{}}
	o.Logger = slog.New(slog.NewTextHandler(os.Stderr, nil))
	o.Callbacks = executor.Callbacks{
		Launch: c.launch,
		Kill: func(_ *executor.Executor, id *mezzov1.TaskID, _ *mezzov1.KillPolicy) {
			if end := c.running[id.GetValue()]; end != nil {
				end()
			}
		},
		Message: func(e *executor.Executor, data []byte) {
			if err := e.Send([]byte("you said " + string(data))); err != nil {
				fmt.Fprintln(os.Stderr, err)
			}
		},
		Shutdown: func(*executor.Executor) {
			for _, end := range c.running {
				end()
			}
		},
	}
	e, err := executor.New(o)
	if err != nil {
		return err
	}
	err = e.Run(ctx)
	if errors.Is(err, executor.ErrAbandoned) {
		return fmt.Errorf("tasks end with the executor: %w", err)
	}
	return err
}

// launch counts to three, and says how it went.
func (c *counter) launch(e *executor.Executor, task *mezzov1.TaskInfo) {
	ctx, cancel := context.WithCancel(context.Background())
	c.running[task.GetTaskId().GetValue()] = cancel
	e.Update(executor.Status(task.GetTaskId(), mezzov1.TaskState_TASK_RUNNING))
	go func() {
		for n := 1; n <= 3; n++ {
			fmt.Println(task.GetName(), "counts", n)
			select {
			case <-time.After(c.every):
			case <-ctx.Done():
				e.Update(executor.Status(task.GetTaskId(), mezzov1.TaskState_TASK_KILLED))
				return
			}
		}
		e.Update(executor.Status(task.GetTaskId(), mezzov1.TaskState_TASK_FINISHED))
	}()
}
