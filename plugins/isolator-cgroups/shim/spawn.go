package main

import (
	"errors"
	"io"
	"os"
	"runtime"
	"strconv"
	"syscall"

	"github.com/mezzo-os/mezzo/plugins/internal/reap"
	"github.com/mezzo-os/mezzo/plugins/internal/record"
	"golang.org/x/sys/unix"
)

// child is a process that the shim started: the container's first, or one of
// an exec.
type child struct {
	pid     int
	guest   *guest   // nil: it is a child of the shim
	id      int64    // among the guest's
	stdio   [3]int   // of the guest's exec, until it is started
	file    int      // likewise: what to run
	release int      // write end: the byte that lets it go
	report  *os.File // read end: what initialize reports
	exited  chan unix.WaitStatus
	dead    bool // reaped; guarded by container.mu
}

// pipe returns a pipe whose read end the Go poller can wait on.
func pipe() (r *os.File, w int, err error) {
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		return nil, 0, failure("make a pipe", err)
	}
	if err := unix.SetNonblock(p[0], true); err != nil {
		return nil, 0, err
	}
	return os.NewFile(uintptr(p[0]), "pipe"), p[1], nil
}

// spawn starts an init process for the record in file and returns once it is
// in the container's cgroups and ready to be released. stdio is closed here.
func (c *container) spawn(file string, r record.Record, stdio [3]int) (*child, error) {
	var release [2]int
	if err := unix.Pipe2(release[:], unix.O_CLOEXEC); err != nil {
		closeAll(stdio)
		return nil, failure("make a pipe", err)
	}
	report, reportW, err := pipe()
	if err != nil {
		closeAll(stdio)
		_ = unix.Close(release[0])
		_ = unix.Close(release[1])
		return nil, err
	}
	ch := &child{release: release[1], report: report, exited: make(chan unix.WaitStatus, 1)}
	attr := &syscall.ProcAttr{
		Env:   []string{"GOMAXPROCS=1"},
		Files: []uintptr{uintptr(stdio[0]), uintptr(stdio[1]), uintptr(stdio[2]), uintptr(release[0]), uintptr(reportW)},
		Sys:   &syscall.SysProcAttr{Setsid: true, Cloneflags: uintptr(r.Int(record.Unshare))},
	}
	err = c.fork(ch, file, r, attr)
	_ = unix.Close(release[0])
	_ = unix.Close(reportW)
	closeAll(stdio)
	if err == nil {
		err = c.join(ch.pid)
	}
	if err == nil {
		err = ch.awaitReady()
	}
	if err != nil {
		c.abandon(ch)
		return nil, err
	}
	return ch, nil
}

func closeAll(fds [3]int) {
	for i, fd := range fds {
		if fd > 2 && (i == 0 || fd != fds[i-1]) && (i < 2 || fd != fds[0]) {
			_ = unix.Close(fd)
		}
	}
}

// fork starts the process and registers it before the reaper can see its end.
func (c *container) fork(ch *child, file string, r record.Record, attr *syscall.ProcAttr) error {
	leave, err := enterPidNamespace(r)
	if err != nil {
		return err
	}
	defer leave()
	c.mu.Lock()
	defer c.mu.Unlock()
	pid, err := syscall.ForkExec("/proc/self/exe", []string{"mezzo-shim", "init", file}, attr)
	if err != nil {
		return failure("start a process (new namespaces need root)", err)
	}
	ch.pid = pid
	c.children[pid] = ch
	c.forked.Broadcast()
	return nil
}

// enterPidNamespace makes the next child of this thread be born in the pid
// namespace that the record names, if it names one.
func enterPidNamespace(r record.Record) (leave func(), err error) {
	path := r.Get(record.JoinPid)
	if path == "" {
		return func() {}, nil
	}
	runtime.LockOSThread()
	own, err := unix.Open("/proc/thread-self/ns/pid", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		runtime.UnlockOSThread()
		return nil, failure("open the own pid namespace", err)
	}
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err == nil {
		err = unix.Setns(fd, unix.CLONE_NEWPID)
		_ = unix.Close(fd)
	}
	if err != nil {
		_ = unix.Close(own)
		runtime.UnlockOSThread()
		return nil, failure("join pid namespace "+path, err)
	}
	return func() {
		// When this fails the thread stays locked and is never used again.
		if unix.Setns(own, unix.CLONE_NEWPID) == nil {
			runtime.UnlockOSThread()
		}
		_ = unix.Close(own)
	}, nil
}

// join puts a stopped process into the container's cgroups.
func (c *container) join(pid int) error {
	for _, dir := range c.cgroups {
		if err := writeFile(dir+"/cgroup.procs", strconv.Itoa(pid)); err != nil {
			return failure("join cgroup "+dir, err)
		}
	}
	return nil
}

func writeFile(path, text string) error {
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	_, err = unix.Write(fd, []byte(text))
	if e := unix.Close(fd); err == nil {
		err = e
	}
	return err
}

// awaitReady reads init's first report.
func (ch *child) awaitReady() error {
	b := make([]byte, 1)
	n, _ := io.ReadFull(ch.report, b)
	if n == 1 && b[0] == readyByte {
		return nil
	}
	return ch.reported(b[:n])
}

// letGo releases the process and returns once the task's program runs.
func (ch *child) letGo() error {
	if ch.guest != nil {
		if ch.id == taskID {
			return ch.guest.letGo()
		}
		return ch.guest.run(ch)
	}
	_, err := unix.Write(ch.release, []byte{1})
	_ = unix.Close(ch.release)
	ch.release = -1
	if err != nil {
		return failure("release the process", err)
	}
	text, err := io.ReadAll(io.LimitReader(ch.report, 4096))
	_ = ch.report.Close()
	if err != nil || len(text) > 0 {
		if len(text) == 0 {
			return failure("hear from the process", err)
		}
		return errors.New(string(text))
	}
	return nil
}

func (ch *child) reported(first []byte) error {
	rest, _ := io.ReadAll(io.LimitReader(ch.report, 4096))
	if text := string(first) + string(rest); text != "" {
		return errors.New(text)
	}
	return errors.New("the process ended before it could report")
}

// abandon ends a process that could not be set up.
func (c *container) abandon(ch *child) {
	if ch.guest != nil {
		return // the container has ended: it was never begun
	}
	if ch.release >= 0 {
		_ = unix.Close(ch.release)
	}
	_ = ch.report.Close()
	if ch.pid != 0 {
		c.signalChild(ch, unix.SIGKILL)
	}
}

// signalChild signals a process that the shim started. The lock keeps the
// reaper from freeing its pid meanwhile.
func (c *container) signalChild(ch *child, sig unix.Signal) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case ch.dead:
	case ch.guest != nil:
		ch.guest.signal(ch, sig, false)
	default:
		_ = unix.Kill(ch.pid, sig)
	}
}

// reap collects every child that ends, those adopted included.
func (c *container) reap() {
	reap.All(&c.mu, c.forked, c.childless, func(pid int, status unix.WaitStatus) {
		if ch := c.children[pid]; ch != nil {
			ch.dead = true
			delete(c.children, pid)
			ch.exited <- status
		}
	})
}
