package command

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// agentStopLimit leaves an agent the time to end its tasks with their grace.
	agentStopLimit  = 20 * time.Second
	masterStopLimit = 5 * time.Second
	// sweepLimit is how long the last processes may take to be gone.
	sweepLimit = 5 * time.Second
)

// stop ends agents and with them the tasks, then the master, then whatever is
// left below this process, and removes a temporary directory.
func (d *dev) stop() error {
	if len(d.children) > 0 {
		var agents sync.WaitGroup
		for _, a := range d.children[1:] {
			agents.Go(func() { a.end() })
		}
		agents.Wait()
		d.children[0].stop(masterStopLimit)
	}
	left := sweepDescendants(sweepLimit)
	if d.temporary {
		if err := os.RemoveAll(d.o.dir); err != nil {
			return fmt.Errorf("remove %s: %w", d.o.dir, err)
		}
	}
	if left > 0 {
		return fmt.Errorf("%d processes did not end", left)
	}
	return nil
}

// end stops an agent. One that has died is started once more, because only an
// agent knows how to take down what its tasks left: cgroups, mounts, sandboxes.
func (c *child) end() {
	if c.done == nil {
		return
	}
	select {
	case <-c.done:
		if err := c.start(context.Background()); err != nil {
			fmt.Fprintf(c.stderr, "mezzo: the tasks of %s are killed, but its cgroups may be left: %v\n", c.name, err)
		}
	default:
	}
	c.stop(agentStopLimit)
}

// reapOrphans collects what became a child of this process by being orphaned,
// and leaves its own children to those who wait for them.
func (d *dev) reapOrphans() {
	own := map[int]bool{}
	for _, c := range d.children {
		if c.cmd != nil && c.cmd.Process != nil {
			own[c.cmd.Process.Pid] = true
		}
	}
	entries, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range entries {
		text, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		if pid, parent, state, ok := parseStat(text); ok && state == 'Z' && parent == os.Getpid() && !own[pid] {
			_, _ = unix.Wait4(pid, nil, unix.WNOHANG, nil)
		}
	}
}

// sweepDescendants kills every process below this one until none is left, and
// says how many would not go. What an agent leaves when it was killed itself
// (its tasks go on, by design) ends here.
func sweepDescendants(limit time.Duration) int {
	deadline := time.Now().Add(limit)
	for {
		pids := descendants(os.Getpid())
		if len(pids) == 0 || time.Now().After(deadline) {
			return len(pids)
		}
		for _, pid := range pids {
			// Only descendants of this living process are named here, and this
			// process reaps them itself: the pid cannot have been used again.
			_ = unix.Kill(pid, unix.SIGKILL)
		}
		reap()
		time.Sleep(20 * time.Millisecond)
	}
}

// reap collects the orphans that have become children of this process.
func reap() {
	for {
		pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil)
		if err != nil || pid <= 0 {
			return
		}
	}
}

// descendants are all living processes below pid; zombies are not.
func descendants(pid int) []int {
	children := map[int][]int{}
	entries, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range entries {
		text, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		id, parent, state, ok := parseStat(text)
		if ok && state != 'Z' {
			children[parent] = append(children[parent], id)
		}
	}
	var found []int
	for queue := []int{pid}; len(queue) > 0; queue = queue[1:] {
		found = append(found, children[queue[0]]...)
		queue = append(queue, children[queue[0]]...)
	}
	return found
}

// parseStat reads pid, parent and state of a /proc/PID/stat line. The name in
// the middle may hold any character, so the end of it is looked for.
func parseStat(text []byte) (pid, parent int, state byte, ok bool) {
	open, end := bytes.IndexByte(text, '('), bytes.LastIndexByte(text, ')')
	if open < 0 || end < open {
		return 0, 0, 0, false
	}
	pid, err := strconv.Atoi(string(bytes.TrimSpace(text[:open])))
	fields := bytes.Fields(text[end+1:])
	if err != nil || len(fields) < 2 || len(fields[0]) != 1 {
		return 0, 0, 0, false
	}
	parent, err = strconv.Atoi(string(fields[1]))
	return pid, parent, fields[0][0], err == nil
}
