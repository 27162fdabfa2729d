package test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// counting is the example framework that has an executor of its own.
type counting struct {
	t    *testing.T
	out  *syncBuffer
	done chan error
}

func startCounting(t *testing.T, c *cluster, args ...string) *counting {
	t.Helper()
	n := &counting{t: t, out: &syncBuffer{}, done: make(chan error, 1)}
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	cmd := exec.CommandContext(ctx, filepath.Join(bin, "executor-hello"), append([]string{"-masters", c.fields["rpc"]}, args...)...)
	cmd.Stdout, cmd.Stderr = n.out, n.out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { defer close(ended); n.done <- cmd.Wait() }()
	t.Cleanup(func() { cancel(); <-ended })
	return n
}

// says waits until the framework has printed something so often.
func (n *counting) says(text string, times int) {
	n.t.Helper()
	eventually(n.t, fmt.Sprintf("the framework to say %q %d times", text, times), func() bool {
		return strings.Count(n.out.String(), text) >= times
	})
}

// own is about that long, and no other process of tests takes the same time: its
// processes are known by it.
func own(d time.Duration) time.Duration { return d + time.Duration(os.Getpid()) }

// executorPid is the executor's process: the one that counts that slowly.
func executorPid(t *testing.T, count time.Duration) (pid int) {
	t.Helper()
	eventually(t, "one executor to run", func() bool {
		out, _ := exec.Command("pgrep", "-f", "executor-hello -executor -count "+count.String()).Output()
		var err error
		pid, err = strconv.Atoi(strings.TrimSpace(string(out)))
		return err == nil
	})
	return pid
}

// A framework's own executor runs its tasks while agent and isolator are killed:
// what it reports meanwhile is told, and every task ends once.
func TestExecutorRunsOnWhenTheAgentIsKilled(t *testing.T) {
	t.Parallel()
	c := startDev(t)
	count := own(2011 * time.Millisecond)
	n := startCounting(t, c, "-tasks", "4", "-count", count.String())
	n.says("TASK_RUNNING", 4)
	n.says("executor: you said hello", 1)
	pid := executorPid(t, count)
	c.killChild("agent1")
	c.startAgain("agent1")
	if err := <-n.done; err != nil {
		t.Fatalf("the framework: %v\n%s", err, n.out)
	}
	n.done <- nil
	for task := range 4 {
		if got := strings.Count(n.out.String(), fmt.Sprintf("count-%d TASK_FINISHED", task)); got != 1 {
			t.Errorf("task %d finished %d times:\n%s", task, got, n.out)
		}
	}
	if r := c.mezzo("logs", "count-1"); r.code != 0 || !strings.Contains(r.stdout, "count-1 counts 3\n") {
		t.Errorf("logs of a task of the executor: %+v", r)
	}
	// The framework is torn down, and its executor ends with it.
	eventually(t, "the executor's end", func() bool { return !alive(pid) })
}

// An executor that is killed takes its tasks with it, and the framework hears
// of both.
func TestExecutorKilled(t *testing.T) {
	t.Parallel()
	c := startDev(t)
	count := own(1013 * time.Second)
	n := startCounting(t, c, "-tasks", "2", "-count", count.String())
	n.says("TASK_RUNNING", 2)
	if err := syscall.Kill(executorPid(t, count), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	err := <-n.done
	n.done <- err
	out := n.out.String()
	if err == nil || !strings.Contains(out, "ended as TASK_FAILED: Executor terminated with signal Killed") {
		t.Errorf("the framework: %v\n%s", err, out)
	}
	eventually(t, "both tasks to have failed", func() bool {
		failed := 0
		for _, task := range c.list("tasks", "--all") {
			if task["state"] == "TASK_FAILED" && task["reason"] == "REASON_EXECUTOR_TERMINATED" {
				failed++
			}
		}
		return failed == 2
	})
}
