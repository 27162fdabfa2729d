package main

import (
	"errors"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/mezzo-os/mezzo/plugins/internal/record"
	"golang.org/x/sys/unix"
)

// guest is mezzo-init, the first process of a container that another runtime
// makes. It connects to a socket that is mounted in the container, and does
// there what the shim cannot do from outside: it starts the task and the
// processes of exec, signals them, and tells how they ended. Its end is the
// container's.
//
// The first to connect is mezzo-init, since nothing else runs in the container
// by then; nobody is let in after.
type guest struct {
	c        *container
	listener *conn
	stdio    [3]int // of the task, until it is given to it

	connected chan struct{} // closed once there is a connection
	lost      chan struct{} // closed when there is none any more, or will be

	mu       sync.Mutex
	conn     *conn
	pid      int // mezzo-init's; 0: not known yet
	pidfd    int
	next     int64
	answers  map[int64]chan record.Record
	children map[int64]*child
}

// guestPatience is how long mezzo-init may take from its start until it has
// connected, and to answer: on a busy host a runtime takes its time.
const guestPatience = 60 * time.Second

// taskID is the task among the guest's processes; those of exec follow.
const taskID = 1

func newGuest(c *container) (*guest, error) {
	listener, err := listenAt(record.GuestSocket)
	if err != nil {
		return nil, err
	}
	// Whoever the container's user is, mezzo-init runs as it.
	if err := os.Chmod(record.GuestSocket, 0o666); err != nil {
		return nil, failure("open the guest's socket", err)
	}
	g := &guest{
		c: c, listener: listener, stdio: [3]int{-1, -1, -1}, pidfd: -1, next: taskID,
		connected: make(chan struct{}), lost: make(chan struct{}),
		answers: map[int64]chan record.Record{}, children: map[int64]*child{},
	}
	go g.serve()
	return g, nil
}

// task is the process that is to be the container's first.
func (g *guest) task(stdio [3]int, uid, gid int) *child {
	if os.Geteuid() == 0 {
		for _, fd := range stdio[1:] {
			_ = unix.Fchown(fd, uid, gid) // /dev/stdout can be opened by its name
		}
	}
	g.stdio = stdio
	ch := &child{guest: g, id: taskID, release: -1, exited: make(chan unix.WaitStatus, 1)}
	g.children[taskID] = ch
	return ch
}

// serve takes the one connection, and hears what comes on it until its end.
func (g *guest) serve() {
	fd, err := g.listener.accept()
	_ = g.listener.file.Close()
	_ = os.Remove(record.GuestSocket)
	var peer *conn
	if err == nil {
		peer, err = newConn(fd)
	}
	if err != nil {
		close(g.lost)
		return
	}
	g.mu.Lock()
	g.conn = peer
	g.mu.Unlock()
	close(g.connected)
	for {
		r, fds, err := peer.receive()
		closeEach(fds)
		if err != nil {
			break
		}
		g.heard(r)
	}
	close(g.lost)
	g.fail()
}

func (g *guest) heard(r record.Record) {
	id := r.Int(record.ID)
	g.mu.Lock()
	answer, ch := g.answers[id], g.children[id]
	ended := r.Has(record.Ended)
	if ended {
		delete(g.children, id)
	} else {
		delete(g.answers, id)
	}
	g.mu.Unlock()
	switch {
	case ended && ch != nil:
		g.end(ch, unix.WaitStatus(r.Int(record.Ended)))
	case !ended && answer != nil:
		answer <- r
	}
}

func (g *guest) end(ch *child, status unix.WaitStatus) {
	g.c.mu.Lock()
	ch.dead = true
	g.c.mu.Unlock()
	ch.exited <- status
}

// fail ends what the guest had: with mezzo-init everything in its pid namespace
// is killed.
func (g *guest) fail() {
	g.mu.Lock()
	children := g.children
	g.children = map[int64]*child{}
	g.mu.Unlock()
	for _, ch := range children {
		g.end(ch, unix.WaitStatus(unix.SIGKILL))
	}
	g.closeStdio()
}

func (g *guest) closeStdio() {
	g.mu.Lock()
	stdio := g.stdio
	g.stdio = [3]int{-1, -1, -1}
	g.mu.Unlock()
	closeAll(stdio)
}

// adopt takes note of mezzo-init's process, made and not started yet.
func (g *guest) adopt(pid int) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return failure("hold process "+strconv.Itoa(pid), err)
	}
	g.mu.Lock()
	if g.pidfd >= 0 {
		g.mu.Unlock()
		_ = unix.Close(fd)
		return errors.New("the container has its first process already")
	}
	g.pid, g.pidfd = pid, fd
	g.mu.Unlock()
	go func() {
		poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		for {
			if _, err := unix.Poll(poll, -1); !errors.Is(err, unix.EINTR) {
				break
			}
		}
		g.gone()
	}()
	return g.c.note()
}

// gone is called when mezzo-init has ended. What it said before is heard first.
func (g *guest) gone() {
	_ = g.listener.file.Close()
	<-g.lost
	g.fail()
	if g.c.main == nil {
		g.c.end()
	}
}

// kill ends mezzo-init, and with it the container.
func (g *guest) kill() {
	g.mu.Lock()
	fd := g.pidfd
	g.mu.Unlock()
	if fd >= 0 {
		_ = unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
		return
	}
	_ = g.listener.file.Close() // there never was one
	go g.fail()                 // the caller may hold the container's lock
}

// ask sends a request about a process and returns the answer.
func (g *guest) ask(id int64, r record.Record, fds []int) (record.Record, error) {
	patience := time.NewTimer(guestPatience)
	defer patience.Stop()
	select {
	case <-g.connected:
	case <-g.lost:
		return nil, errGuestEnded
	case <-patience.C:
		return nil, errors.New("the container's first process does not report")
	}
	answer := make(chan record.Record, 1)
	g.mu.Lock()
	g.answers[id] = answer
	conn := g.conn
	g.mu.Unlock()
	r.AddInt(record.ID, id)
	if err := conn.sendFDs(r, fds); err != nil {
		return nil, errGuestEnded
	}
	var a record.Record
	select {
	case a = <-answer:
	case <-g.lost:
		select {
		case a = <-answer: // it was the last that was heard
		default:
			return nil, errGuestEnded
		}
	case <-patience.C:
		return nil, errors.New("the container's first process does not answer")
	}
	if text := a.Get(record.Error); text != "" {
		return nil, errors.New(text)
	}
	return a, nil
}

var errGuestEnded = errors.New("the container has ended")

// letGo starts the task, or a container without one.
func (g *guest) letGo() error {
	r := record.Record{{Key: record.Request, Value: "start"}}
	if g.c.main == nil {
		r.AddInt(record.NoProcess, 1)
		_, err := g.ask(0, r, nil)
		return err
	}
	if g.c.terminal != nil {
		r.AddInt(record.TTY, 1)
	}
	g.mu.Lock()
	stdio := g.stdio
	g.mu.Unlock()
	_, err := g.ask(taskID, r, stdio[:])
	g.closeStdio()
	return err
}

// exec makes ready a process that the record in a file describes.
func (g *guest) exec(file string, stdio [3]int) (*child, error) {
	fd, err := unix.Open(file, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		closeAll(stdio)
		return nil, failure("read what to run", err)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.next++
	ch := &child{guest: g, id: g.next, release: -1, exited: make(chan unix.WaitStatus, 1), stdio: stdio, file: fd}
	g.children[ch.id] = ch
	return ch, nil
}

// run starts a process of exec.
func (g *guest) run(ch *child) error {
	fds := []int{ch.file, ch.stdio[0], ch.stdio[1], ch.stdio[2]}
	a, err := g.ask(ch.id, record.Record{{Key: record.Request, Value: "exec"}}, fds)
	_ = unix.Close(ch.file)
	closeAll(ch.stdio)
	if err != nil {
		g.mu.Lock()
		delete(g.children, ch.id)
		g.mu.Unlock()
		return err
	}
	ch.pid = int(a.Int(record.Pid))
	return nil
}

// signal signals one of the guest's processes, or the group that it leads.
func (g *guest) signal(ch *child, sig unix.Signal, group bool) {
	g.mu.Lock()
	conn := g.conn
	g.mu.Unlock()
	if conn == nil {
		if sig == unix.SIGKILL && ch.id == taskID {
			g.kill()
		}
		return
	}
	r := record.Record{{Key: record.Request, Value: "signal"}}
	r.AddInt(record.ID, ch.id)
	r.AddInt(record.Signal, int64(sig))
	if group {
		r.AddInt(record.All, 1)
	}
	_ = conn.send(r) // a guest that is gone takes its processes with it
}
