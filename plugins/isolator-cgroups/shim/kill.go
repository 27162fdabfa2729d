package main

import (
	"errors"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/mezzo-os/mezzo/plugins/internal/record"
	"golang.org/x/sys/unix"
)

// killers is how all processes of a container are found and ended. Without
// any, they are the shim's descendants: it is their subreaper, so none of them
// can leave.
type killers struct {
	v2       []string // cgroup directories with cgroup.kill
	freezers []string // v1 freezer directories
	trees    []string // cgroup directories whose processes are the container's
}

// kill sends the signal now and SIGKILL to everything once the grace period
// has passed. A later kill may bring that nearer, never push it back.
func (c *container) kill(sig unix.Signal, grace time.Duration) error {
	if sig == 0 {
		sig = unix.SIGTERM
	}
	// A task that is being let go must not miss the signal.
	c.starting.Lock()
	defer c.starting.Unlock()
	c.mu.Lock()
	if c.gone {
		c.mu.Unlock()
		return nil
	}
	at := time.Now().Add(grace)
	if c.killAt.IsZero() {
		c.signal = sig
	}
	if c.killAt.IsZero() || at.Before(c.killAt) {
		c.killAt = at
		if c.killer != nil {
			c.killer.Stop()
		}
		c.killer = time.AfterFunc(grace, c.destroy)
	}
	started := c.started
	c.mu.Unlock()
	c.noteDeadlines()
	switch {
	case c.main == nil && c.guest != nil && !started:
		c.guest.kill()
		go c.endWhenEmpty()
	case c.main == nil:
		c.signalAll(sig)
		go c.endWhenEmpty()
	case !started:
		c.signalChild(c.main, unix.SIGKILL)
	default:
		c.signalChild(c.main, sig)
	}
	return nil
}

// destroy ends every process, and with that the container.
func (c *container) destroy() {
	c.mu.Lock()
	gone := c.gone
	c.mu.Unlock()
	if gone {
		return
	}
	if c.main != nil {
		c.signalChild(c.main, unix.SIGKILL)
	}
	c.endAll()
	c.end()
}

// end lets hold go on for a container without a process.
func (c *container) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.main == nil && !c.gone {
		c.gone = true
		close(c.ended)
	}
}

// endWhenEmpty ends a container without a process of its own as soon as those
// of the containers nested in it are gone.
func (c *container) endWhenEmpty() {
	for wait := 2 * time.Millisecond; !c.empty(); wait = min(2*wait, 50*time.Millisecond) {
		select {
		case <-c.ended:
			return
		case <-time.After(wait):
		}
	}
	c.end()
}

// setDeadline sets when the container's time is over.
func (c *container) setDeadline(at time.Time) {
	c.mu.Lock()
	if c.reaper != nil {
		c.reaper.Stop()
		c.reaper = nil
	}
	c.deadline = at
	if !at.IsZero() {
		c.reaper = time.AfterFunc(time.Until(at), c.timeOver)
	}
	c.mu.Unlock()
	c.noteDeadlines()
}

func (c *container) timeOver() {
	c.mu.Lock()
	over := !c.gone && c.killAt.IsZero()
	if over {
		c.overdue = true
	}
	c.mu.Unlock()
	if over {
		_ = c.kill(unix.SIGTERM, c.grace)
	}
}

// noteDeadlines writes the deadlines down. They are for people and for a
// plugin that looks: the timers that count are the shim's own.
func (c *container) noteDeadlines() {
	c.mu.Lock()
	r := record.Record{}
	if !c.deadline.IsZero() {
		r.AddInt(record.Deadline, c.deadline.UnixNano())
	}
	if !c.killAt.IsZero() {
		r.AddInt(record.KillAt, c.killAt.UnixNano())
		r.AddInt(record.Signal, int64(c.signal))
	}
	err := record.Write(record.DeadlinesFile, r, true)
	c.mu.Unlock()
	if err != nil {
		warn("write the deadlines: " + err.Error())
	}
}

// endAll kills until nothing is left, or the kernel does not let go of it.
func (c *container) endAll() {
	until := time.Now().Add(stragglerPatience)
	for wait := time.Millisecond; !c.empty(); wait = min(2*wait, 50*time.Millisecond) {
		if time.Now().After(until) {
			warn("some processes did not end after SIGKILL (waiting on a device?)")
			return
		}
		c.killOnce()
		time.Sleep(wait)
	}
}

// killOnce sends SIGKILL to every process that there is now.
func (c *container) killOnce() {
	for _, dir := range c.killers.v2 {
		if err := writeFile(dir+"/cgroup.kill", "1"); err != nil {
			c.signalCgroup(dir, unix.SIGKILL)
		}
	}
	for _, dir := range c.killers.freezers {
		// Frozen, none of them can fork away from the signal.
		_ = writeFile(dir+"/freezer.state", "FROZEN")
		c.signalCgroup(dir, unix.SIGKILL)
		_ = writeFile(dir+"/freezer.state", "THAWED")
	}
	for _, dir := range c.killers.trees {
		c.signalCgroup(dir, unix.SIGKILL)
	}
	if !c.childless() {
		// Stopped first, so that none forks while the others are being found.
		if len(c.killers.v2)+len(c.killers.freezers)+len(c.killers.trees) == 0 {
			signalDescendants(unix.SIGSTOP)
		}
		signalDescendants(unix.SIGKILL)
	}
}

// signalAll sends the signal to every process of the container once.
func (c *container) signalAll(sig unix.Signal) {
	dirs := append(append(append([]string{}, c.killers.v2...), c.killers.freezers...), c.killers.trees...)
	if len(dirs) == 0 {
		signalDescendants(sig)
		return
	}
	c.signalCgroup(dirs[0], sig)
}

// empty tells whether no process of the container is left.
func (c *container) empty() bool {
	for _, dirs := range [][]string{c.killers.v2, c.killers.freezers, c.killers.trees} {
		for _, dir := range dirs {
			if populated(dir) {
				return false
			}
		}
	}
	return c.childless()
}

// childless tells whether the shim has no children, dead ones included.
func (c *container) childless() bool {
	err := unix.Waitid(unix.P_ALL, 0, nil, unix.WEXITED|unix.WNOWAIT|unix.WNOHANG, nil)
	return errors.Is(err, unix.ECHILD)
}

func subdirectories(dir string) []string {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	var names []string
	for _, e := range entries {
		if e.IsDir() {
			names = append(names, dir+"/"+e.Name())
		}
	}
	return names
}

func processes(dir string) []string {
	b, err := os.ReadFile(dir + "/cgroup.procs")
	if err != nil {
		return nil
	}
	return strings.Fields(string(b))
}

func populated(dir string) bool {
	if len(processes(dir)) > 0 {
		return true
	}
	for _, sub := range subdirectories(dir) {
		if populated(sub) {
			return true
		}
	}
	return false
}

// signalCgroup signals every process in the cgroup and those below it. Each
// is held by a pidfd and then looked up again, so that a pid that has become
// another process's is never signalled.
func (c *container) signalCgroup(dir string, sig unix.Signal) {
	const batch = 256
	pids := processes(dir)
	for len(pids) > 0 {
		n := min(batch, len(pids))
		held := hold(pids[:n])
		still := map[string]bool{}
		for _, pid := range processes(dir) {
			still[pid] = true
		}
		for pid, fd := range held {
			if still[pid] {
				_ = unix.PidfdSendSignal(fd, sig, nil, 0)
			}
			_ = unix.Close(fd)
		}
		pids = pids[n:]
	}
	for _, sub := range subdirectories(dir) {
		c.signalCgroup(sub, sig)
	}
}

// hold opens a pidfd for each process that there is.
func hold(pids []string) map[string]int {
	held := map[string]int{}
	for _, text := range pids {
		pid, err := strconv.Atoi(text)
		if err != nil || pid <= 0 {
			continue // 0: a process of another pid namespace
		}
		if fd, err := unix.PidfdOpen(pid, 0); err == nil {
			held[text] = fd
		}
	}
	return held
}

// signalDescendants signals every process below the shim. Parents are read
// again once the pidfd is held.
func signalDescendants(sig unix.Signal) {
	children := map[string][]string{}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		warn("list processes: " + err.Error())
		return
	}
	for _, e := range entries {
		if name := e.Name(); name[0] >= '1' && name[0] <= '9' {
			if f := statFields(name); len(f) > 1 {
				children[f[1]] = append(children[f[1]], name)
			}
		}
	}
	self := strconv.Itoa(os.Getpid())
	var visit func(parent string)
	visit = func(parent string) {
		held := hold(children[parent])
		for pid, fd := range held {
			// An orphan's parent is the shim by now.
			if f := statFields(pid); len(f) > 1 && (f[1] == parent || f[1] == self) {
				_ = unix.PidfdSendSignal(fd, sig, nil, 0)
			}
			_ = unix.Close(fd)
		}
		for _, pid := range children[parent] {
			visit(pid)
		}
	}
	visit(self)
}
