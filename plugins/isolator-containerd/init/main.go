//go:debug containermaxprocs=0
//go:debug updatemaxprocs=0

// Command mezzo-init is the first process of a container that containerd runs.
// It starts the task and the processes of exec, reaps whatever ends in the
// container, and tells the container's mezzo-shim, which holds it from outside,
// how each ended. That way neither output nor exit status pass through
// containerd, and both survive its restart.
//
//	mezzo-init SOCKET PROGRAM -- [ARGUMENT]...
//
// The arguments are the task's whole vector; PROGRAM is what is executed where
// that is not its first, else empty.
//
// It is mounted in every container, read-only, so it is small: it links neither
// gRPC nor protobuf. It runs as the task's user, with the task's privileges and
// in its namespaces; a process of the container has nothing to gain from it.
// Package record has what the messages hold.
package main

import (
	"errors"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"slices"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/mezzo-os/mezzo/plugins/internal/reap"
	"github.com/mezzo-os/mezzo/plugins/internal/record"
)

// taskID is the task; processes of exec have greater numbers.
const taskID = 1

func main() {
	// It shares the task's memory limit, and has next to nothing to do.
	runtime.GOMAXPROCS(1)
	debug.SetGCPercent(25)
	i := slices.Index(os.Args, "--")
	if i != 3 {
		warn("usage: mezzo-init SOCKET PROGRAM -- [ARGUMENT]... (started in containers, not by hand)")
		os.Exit(2)
	}
	fd, err := connect(os.Args[1])
	if err != nil {
		warn(err.Error())
		os.Exit(1)
	}
	// Nobody in the container is to read or to steer this process.
	_ = unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0)
	m := &manager{socket: fd, program: os.Args[2], arguments: os.Args[i+1:], ids: map[int]int64{}, pids: map[int64]int{}}
	m.forked = sync.NewCond(&m.mu)
	// A handler for every signal is the default action for what is executed, and
	// none for this process, which the kernel lets ignore them as the first.
	signals := make(chan os.Signal, 16)
	signal.Notify(signals)
	go m.heed(signals)
	go m.reap()
	m.serve()
	// The shim is gone, and with it whoever could end the container.
	_ = unix.Kill(-1, unix.SIGKILL)
	os.Exit(1)
}

func warn(text string) { _, _ = os.Stderr.WriteString("mezzo-init: " + text + "\n") }

func connect(path string) (int, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err == nil {
		err = unix.Connect(fd, &unix.SockaddrUnix{Name: path})
	}
	if err != nil {
		return -1, failure("connect to the container's shim", err)
	}
	return fd, nil
}

// failure is an error with the thing that it happened to.
func failure(what string, err error) error { return errors.New(what + ": " + err.Error()) }

// manager has the container's processes, as far as the shim knows of them.
type manager struct {
	socket    int
	program   string
	arguments []string

	sending sync.Mutex

	mu     sync.Mutex // also keeps the reaper from freeing a pid meanwhile
	forked *sync.Cond // something was started
	ids    map[int]int64
	pids   map[int64]int
	paused bool // the container has no task
}

// heed ends a container without a task, when it is asked to. Everything else
// comes by way of the shim.
func (m *manager) heed(signals <-chan os.Signal) {
	for s := range signals {
		switch s {
		case syscall.SIGTERM, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGUSR2:
			m.mu.Lock()
			paused := m.paused
			m.mu.Unlock()
			if paused {
				os.Exit(0)
			}
		}
	}
}

func (m *manager) send(r record.Record) {
	m.sending.Lock()
	defer m.sending.Unlock()
	for {
		err := unix.Sendmsg(m.socket, r.Marshal(), nil, nil, unix.MSG_NOSIGNAL)
		if !errors.Is(err, unix.EINTR) {
			return // an error is the end of the shim, which serve sees
		}
	}
}

// serve does what the shim asks for, until its end.
func (m *manager) serve() {
	buffer, oob := make([]byte, 4096), make([]byte, unix.CmsgSpace(4*4))
	for {
		n, oobn, _, _, err := unix.Recvmsg(m.socket, buffer, oob, unix.MSG_CMSG_CLOEXEC)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || n == 0 {
			return
		}
		files := received(oob[:oobn])
		if r, err := record.Unmarshal(buffer[:n]); err == nil {
			m.handle(r, files)
		}
		for _, fd := range files {
			_ = unix.Close(fd)
		}
	}
}

func received(oob []byte) (files []int) {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil
	}
	for _, message := range messages {
		if fds, err := unix.ParseUnixRights(&message); err == nil {
			files = append(files, fds...)
		}
	}
	return files
}

func (m *manager) handle(r record.Record, files []int) {
	id := r.Int(record.ID)
	switch r.Get(record.Request) {
	case "start":
		if r.Has(record.NoProcess) {
			m.mu.Lock()
			m.paused = true
			m.mu.Unlock()
			m.send(answer(id, 0, nil))
			return
		}
		m.start(id, command{path: m.program, args: m.arguments, env: os.Environ(), terminal: r.Has(record.TTY)}, files)
	case "exec":
		if len(files) != 4 {
			m.send(answer(id, 0, errors.New("an exec needs four descriptors")))
			return
		}
		c, err := readCommand(files[0])
		if err != nil {
			m.send(answer(id, 0, err))
			return
		}
		m.start(id, c, files[1:])
	case "signal":
		m.signal(id, unix.Signal(r.Int(record.Signal)), r.Has(record.All))
	}
}

func answer(id int64, pid int, err error) record.Record {
	r := record.Record{}
	r.AddInt(record.ID, id)
	r.AddInt(record.Pid, int64(pid))
	if err != nil {
		r.Add(record.Error, err.Error())
	}
	return r
}

// start starts a process, and says so before its end can be told.
func (m *manager) start(id int64, c command, files []int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	pid, err := c.start(files)
	if err == nil {
		m.ids[pid], m.pids[id] = id, pid
		m.forked.Broadcast()
	}
	m.send(answer(id, pid, err))
	if err != nil && id == taskID {
		os.Exit(exitCode(err))
	}
}

func (m *manager) signal(id int64, sig unix.Signal, group bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	pid := m.pids[id]
	switch {
	case pid == 0:
	case group:
		_ = unix.Kill(-pid, sig)
	default:
		_ = unix.Kill(pid, sig)
	}
}

// reap collects every process that ends: those started here and the orphans of
// the container, which become the first process's children. The task's end is
// the container's: with this process the kernel ends everything in it.
func (m *manager) reap() {
	reap.All(&m.mu, m.forked, func() bool { return len(m.ids) == 0 }, m.ended)
}

func (m *manager) ended(pid int, status unix.WaitStatus) {
	id, ours := m.ids[pid]
	if !ours {
		return
	}
	delete(m.ids, pid)
	delete(m.pids, id)
	r := record.Record{}
	r.AddInt(record.ID, id)
	r.AddInt(record.Ended, int64(status))
	m.send(r)
	if id == taskID {
		os.Exit(0)
	}
}
