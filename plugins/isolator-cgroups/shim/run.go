package main

import (
	"errors"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/mezzo-os/mezzo/plugins/internal/record"
	"golang.org/x/sys/unix"
)

// How long the end of a container may take once everything in it was killed:
// for processes that the kernel cannot end at once, and for pipes that
// something outside the container holds open.
const (
	stragglerPatience = 30 * time.Second
	outputPatience    = 2 * time.Second
)

// container is the one that this shim holds.
type container struct {
	cgroups []string // each one's cgroup.procs is joined
	killers killers
	memory  memory
	grace   time.Duration // from SIGTERM to SIGKILL at the deadline

	main         *child        // nil: a container without a process
	guest        *guest        // nil: the shim starts the container's processes
	taps         [2]tap        // of stdout and stderr
	terminal     *os.File      // nil: it has none
	terminalPath string        // the task's end of it
	reports      chan struct{} // one message for each output that reached its end
	outputs      int

	starting sync.Mutex // held while the task is being let go
	// A task may end before the request that started it has been answered; the
	// shim ends after.
	answering sync.RWMutex
	ended     chan struct{}

	mu       sync.Mutex
	forked   *sync.Cond // a child was started
	children map[int]*child
	started  bool
	gone     bool // the first process was reaped, or an empty container was killed
	killAt   time.Time
	killer   *time.Timer
	deadline time.Time
	reaper   *time.Timer // ends the container at its deadline
	overdue  bool
	exceeded *excess
	signal   unix.Signal // the first kill's
	watchers map[*conn]bool
}

// run holds the container until it has ended and its status is on disk.
func run(dir string) error {
	if err := closeInherited(3); err != nil {
		return failure("close inherited descriptors", err)
	}
	signal.Ignore(syscall.SIGHUP, syscall.SIGINT, syscall.SIGTERM, syscall.SIGPIPE, syscall.SIGQUIT,
		syscall.SIGUSR1, syscall.SIGUSR2)
	c, err := create(dir)
	if err != nil {
		// The plugin reads it there.
		r := record.Record{{Key: record.Error, Value: err.Error()}}
		_, _ = os.Stdout.Write(r.Marshal())
		return err
	}
	answer := record.Record{}
	answer.Add(record.State, "created")
	answer.AddInt(record.Pid, int64(c.firstPid()))
	answer.Add(record.Terminal, c.terminalPath)
	_, _ = os.Stdout.Write(answer.Marshal())
	if err := releaseStdout(); err != nil {
		warn(err.Error())
	}
	return c.hold()
}

// releaseStdout puts /dev/null in the place of the pipe to the plugin.
func releaseStdout() error {
	fd, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Dup3(fd, 1, 0)
}

// create does everything up to the stopped process.
func create(dir string) (*container, error) {
	if err := unix.Chdir(dir); err != nil {
		return nil, failure("change to the state directory "+dir, err)
	}
	if _, err := unix.Setsid(); err != nil && !errors.Is(err, unix.EPERM) {
		return nil, failure("begin a session", err)
	}
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return nil, failure("become a subreaper", err)
	}
	r, err := record.Read(record.ConfigFile)
	if err != nil {
		return nil, failure("read the container's configuration", err)
	}
	c := &container{
		cgroups: r.All(record.Cgroup),
		killers: killers{
			v2:       r.All(record.KillV2),
			freezers: r.All(record.Freezer),
			trees:    r.All(record.Tree),
		},
		memory: memory{
			v1: r.Get(record.MemoryV1), v2: r.Get(record.MemoryV2), ancestors: r.All(record.MemoryTop),
		},
		grace:    time.Duration(r.Int(record.DeadlineGrace)),
		reports:  make(chan struct{}, 2),
		ended:    make(chan struct{}),
		children: map[int]*child{},
		watchers: map[*conn]bool{},
	}
	c.forked = sync.NewCond(&c.mu)
	listener, err := listenAt(record.ControlSocket)
	if err != nil {
		return nil, err
	}
	if r.Has(record.Guest) {
		if c.guest, err = newGuest(c); err != nil {
			return nil, err
		}
	}
	go c.reap()
	if err := c.startMain(r); err != nil {
		c.endAll()
		_ = os.Remove(record.ControlSocket)
		return nil, err
	}
	if err := c.note(); err != nil {
		c.endAll()
		return nil, failure("write the state of the container", err)
	}
	go c.serve(listener)
	c.memory.watch(c.outOfMemory)
	if at := r.Int(record.Deadline); at != 0 {
		c.setDeadline(time.Unix(0, at))
	}
	return c, nil
}

// note writes down which processes there are, for a plugin that restarts.
func (c *container) note() error {
	r := record.Record{}
	r.AddInt(record.ShimPid, int64(os.Getpid()))
	r.Add(record.ShimStart, startTime(os.Getpid()))
	if pid := c.firstPid(); pid != 0 {
		r.AddInt(record.Pid, int64(pid))
		r.Add(record.PidStart, startTime(pid))
	}
	return record.Write(record.ShimFile, r, false)
}

// firstPid is the container's first process; 0: it has none, or none yet.
func (c *container) firstPid() int {
	switch {
	case c.guest != nil:
		c.guest.mu.Lock()
		defer c.guest.mu.Unlock()
		return c.guest.pid
	case c.main != nil:
		return c.main.pid
	}
	return 0
}

// startTime is a process's start, in clock ticks since boot; with its pid it
// names the process for as long as the host is up. "" when there is none.
func startTime(pid int) string {
	fields := statFields(strconv.Itoa(pid))
	if len(fields) < 20 {
		return ""
	}
	return fields[19]
}

// statFields returns /proc/PID/stat from its third field (the state) on.
func statFields(pid string) []string {
	b, err := os.ReadFile("/proc/" + pid + "/stat")
	if err != nil {
		return nil
	}
	text := string(b)
	return strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
}

// startMain opens the output and starts the container's process, stopped.
func (c *container) startMain(r record.Record) error {
	if r.Has(record.NoProcess) {
		return nil
	}
	sandbox, err := unix.Open(r.Get(record.Sandbox), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return failure("open the sandbox "+r.Get(record.Sandbox), err)
	}
	open := func(name string) (*output, error) {
		return openOutput(sandbox, name, int(r.Int(record.UID)), int(r.Int(record.GID)),
			r.Int(record.LogBytes), int(r.Int(record.LogFiles)))
	}
	stdout, err := open("stdout")
	if err != nil {
		return err
	}
	stderr, err := open("stderr")
	if err != nil {
		return err
	}
	var stdio [3]int
	if r.Has(record.TTY) {
		master, slave, path, err := openTerminal(uint16(r.Int(record.Rows)), uint16(r.Int(record.Columns)))
		if err != nil {
			return err
		}
		c.terminalPath = path
		stdio = [3]int{slave, slave, slave}
		c.outputs = 1
		c.terminal = master
		c.taps[1].end()
		go pump(master, stdout, &c.taps[0], c.reports)
	} else {
		null, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return failure("open /dev/null", err)
		}
		out, outW, err := pipe()
		if err != nil {
			return err
		}
		errs, errsW, err := pipe()
		if err != nil {
			return err
		}
		stdio = [3]int{null, outW, errsW}
		c.outputs = 2
		go pump(out, stdout, &c.taps[0], c.reports)
		go pump(errs, stderr, &c.taps[1], c.reports)
	}
	if c.guest != nil {
		c.main = c.guest.task(stdio, int(r.Int(record.UID)), int(r.Int(record.GID)))
		return nil
	}
	c.main, err = c.spawn(record.ConfigFile, r, stdio)
	return err
}

// start lets the task go.
func (c *container) start() error {
	c.starting.Lock()
	defer c.starting.Unlock()
	c.mu.Lock()
	started, gone := c.started, c.gone || !c.killAt.IsZero()
	c.started = true
	c.mu.Unlock()
	switch {
	case gone:
		return errors.New("the container has been killed")
	case started, c.main == nil && c.guest == nil:
		return nil
	case c.main == nil:
		return c.guest.letGo()
	}
	err := c.main.letGo()
	// It may hold secrets, and nobody needs it from here on.
	_ = os.Remove(record.ConfigFile)
	return err
}

// hold waits for the end and leaves the status.
func (c *container) hold() error {
	var status unix.WaitStatus
	if c.main != nil {
		status = <-c.main.exited
	} else {
		<-c.ended
	}
	at := time.Now()
	c.mu.Lock()
	c.gone = true
	c.mu.Unlock()
	// The kernel may have killed the task before its notice was read.
	c.outOfMemory()
	c.endAll()
	c.awaitOutputs()
	if err := record.Write(record.StatusFile, c.status(status, at), true); err != nil {
		// Without fsync it still is there for a plugin on a host that lives on.
		warn("write the exit status durably: " + err.Error())
		if err := record.Write(record.StatusFile, c.status(status, at), false); err != nil {
			return failure("write the exit status", err)
		}
	}
	c.answering.Lock()
	return nil
}

func (c *container) awaitOutputs() {
	patience := time.After(outputPatience)
	for range c.outputs {
		select {
		case <-c.reports:
		case <-patience:
			warn("a process outside the container holds its output open; the rest of it is lost")
			return
		}
	}
}

func (c *container) status(status unix.WaitStatus, at time.Time) record.Record {
	c.mu.Lock()
	defer c.mu.Unlock()
	r := record.Record{}
	r.AddInt(record.Known, 1)
	r.AddInt(record.Time, at.UnixNano())
	addStatus(&r, status)
	if c.main == nil && c.signal != 0 {
		r.AddInt(record.Signal, int64(c.signal))
	}
	if !c.started {
		r.AddInt(record.Unstarted, 1)
	}
	if c.overdue {
		r.AddInt(record.DeadlinePassed, 1)
	}
	if c.exceeded != nil {
		c.exceeded.add(&r)
	}
	return r
}

func addStatus(r *record.Record, status unix.WaitStatus) {
	if status.Signaled() {
		r.AddInt(record.Signal, int64(status.Signal()))
		if status.CoreDump() {
			r.AddInt(record.Core, 1)
		}
		return
	}
	r.AddInt(record.Code, int64(status.ExitStatus()))
}
