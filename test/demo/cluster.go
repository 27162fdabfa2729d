package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// cluster is a master and an agent, processes of their own.
type cluster struct {
	mezzo, dir string
	master     *process
	agent      *process
	end        context.CancelFunc // of the frameworks
	ctx        context.Context
	schedulers []*scheduler
}

// process is a mezzo process that has said that it serves.
type process struct {
	cmd    *exec.Cmd
	fields map[string]string
	log    string
	done   chan struct{}
}

func startMaster(ctx context.Context, mezzo string) (*cluster, error) {
	dir, err := os.MkdirTemp("", "mezzo-demo-")
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		return nil, err
	}
	c := &cluster{mezzo: mezzo, dir: dir}
	c.ctx, c.end = context.WithCancel(context.WithoutCancel(ctx))
	c.master, err = c.start(ctx, "master", "--data-dir", filepath.Join(dir, "master"), "--rpc", "127.0.0.1:0", "--http", "127.0.0.1:0")
	if err != nil {
		return nil, errors.Join(err, c.stop())
	}
	return c, nil
}

func (c *cluster) startAgent(ctx context.Context, resources string) (err error) {
	c.agent, err = c.start(ctx, "agent", "--data-dir", filepath.Join(c.dir, "agent"), "--master", c.master.fields["rpc"],
		"--rpc", "127.0.0.1:0", "--http", "127.0.0.1:0", "--resources", resources, "--end-tasks")
	return err
}

// start returns once the process has printed its ready line.
func (c *cluster) start(ctx context.Context, args ...string) (*process, error) {
	p := &process{cmd: exec.Command(c.mezzo, args...), log: filepath.Join(c.dir, args[0]+".log"), done: make(chan struct{})}
	log, err := os.Create(p.log)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	p.cmd.Stderr = log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is ours to pass on
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	ready := make(chan map[string]string, 1)
	go func() {
		lines := bufio.NewScanner(stdout)
		for lines.Scan() {
			if words := strings.Fields(lines.Text()); len(words) > 0 && words[0] == "ready" {
				fields := map[string]string{}
				for _, word := range words[1:] {
					name, value, _ := strings.Cut(word, "=")
					fields[name] = value
				}
				ready <- fields
			}
		}
		_, _ = io.Copy(io.Discard, stdout)
		_ = p.cmd.Wait()
		close(p.done)
	}()
	select {
	case p.fields = <-ready:
		return p, nil
	case <-p.done:
		text, _ := os.ReadFile(p.log)
		return nil, fmt.Errorf("the %s did not start:\n%s", args[0], text)
	case <-ctx.Done():
		_ = p.cmd.Process.Kill()
		<-p.done
		return nil, fmt.Errorf("the %s was not ready in time", args[0])
	}
}

// stop ends the tasks, the agent, the master, and removes what they wrote.
func (c *cluster) stop() error {
	// The frameworks first: what their tasks leave is not to be taken again.
	c.end()
	for _, s := range c.schedulers {
		<-s.ended
	}
	for _, p := range []*process{c.agent, c.master} {
		if p == nil {
			continue
		}
		_ = p.cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-p.done:
		case <-time.After(15 * time.Second):
			_ = p.cmd.Process.Kill()
			<-p.done
		}
	}
	return os.RemoveAll(c.dir)
}

// list asks the cluster, as a user would.
func (c *cluster) list(ctx context.Context, verb string) ([]map[string]any, error) {
	cmd := exec.CommandContext(ctx, c.mezzo, verb, "--json", "--address", c.master.fields["rpc"])
	out, err := cmd.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return nil, fmt.Errorf("mezzo %s: %s", verb, exit.Stderr)
	}
	if err != nil {
		return nil, err
	}
	var items []map[string]any
	if err := json.Unmarshal(out, &items); err != nil {
		return nil, fmt.Errorf("mezzo %s --json: %w", verb, err)
	}
	return items, nil
}

// showTasks prints what `mezzo tasks` prints, and checks how many run.
func (c *cluster) showTasks(ctx context.Context, want int) error {
	tasks, err := c.list(ctx, "tasks")
	if err != nil {
		return err
	}
	running := 0
	for _, t := range tasks {
		if t["state"] == "TASK_RUNNING" {
			running++
		}
	}
	if running != want {
		return fmt.Errorf("%d tasks run, not %d: %v", running, want, tasks)
	}
	fmt.Printf("\n   $ mezzo tasks\n")
	out, err := exec.CommandContext(ctx, c.mezzo, "tasks", "--address", c.master.fields["rpc"]).Output()
	for _, line := range strings.Split(strings.TrimSpace(string(out)), "\n") {
		fmt.Println("   " + line)
	}
	return err
}

// allocator is the allocator plugin as the cluster reports it.
func (c *cluster) allocator(ctx context.Context) (pid int, state string, err error) {
	plugins, err := c.list(ctx, "plugins")
	if err != nil {
		return 0, "", err
	}
	for _, p := range plugins {
		if p["id"] == "allocator/drf" {
			number, _ := p["pid"].(float64)
			return int(number), fmt.Sprint(p["state"]), nil
		}
	}
	return 0, "", errors.New("mezzo plugins shows no allocator/drf")
}

// killAllocator kills the allocator's process and shows that tasks run on and
// that new offers come.
func (c *cluster) killAllocator(ctx context.Context, one *scheduler) error {
	pid, _, err := c.allocator(ctx)
	if err != nil {
		return err
	}
	before := c.taskProcesses()
	fmt.Printf("\n2. The allocator, process %d, is killed (kill -9) while the five tasks run.\n", pid)
	one.mark()
	began := time.Now()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		return fmt.Errorf("kill the allocator: %w", err)
	}
	for {
		now, state, err := c.allocator(ctx)
		if err != nil {
			return err
		}
		if now != pid && now != 0 && state == "healthy" {
			fmt.Printf("   a new allocator, process %d, serves after %.1f s\n", now, time.Since(began).Seconds())
			break
		}
		if ctx.Err() != nil {
			return errors.New("the allocator did not come back")
		}
		time.Sleep(50 * time.Millisecond)
	}
	if _, err := receive(ctx, "an offer from the new allocator", one.newOffer); err != nil {
		return err
	}
	fmt.Println("   and new offers come")
	if after := c.taskProcesses(); len(before) == 0 || strings.Join(before, " ") != strings.Join(after, " ") {
		return fmt.Errorf("the tasks' processes changed: %v, then %v", before, after)
	}
	fmt.Println("   the tasks' processes are the same as before:", strings.Join(before, " "))
	return c.showTasks(ctx, 5)
}

// taskProcesses are the pids of the demo's own tasks.
func (c *cluster) taskProcesses() []string {
	var pids []string
	paths, _ := filepath.Glob("/proc/[0-9]*/environ")
	for _, path := range paths {
		pid := filepath.Base(filepath.Dir(path))
		environ, _ := os.ReadFile(path)
		command, _ := os.ReadFile(filepath.Join("/proc", pid, "comm"))
		if strings.Contains(string(environ), "MEZZO_DEMO="+c.dir+"\x00") && strings.TrimSpace(string(command)) == "sleep" {
			if _, err := strconv.Atoi(pid); err == nil {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}
