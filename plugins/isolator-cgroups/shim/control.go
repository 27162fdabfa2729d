package main

import (
	"errors"
	"os"
	"strconv"
	"syscall"
	"time"

	"github.com/mezzo-os/mezzo/plugins/internal/record"
	"golang.org/x/sys/unix"
)

// The control socket carries one record a packet. The directory that it is in
// belongs to the agent alone, and so does the socket.

// conn is one connection of the plugin's.
type conn struct {
	file *os.File
	raw  syscall.RawConn
}

func newConn(fd int) (*conn, error) {
	file := os.NewFile(uintptr(fd), "control")
	raw, err := file.SyscallConn()
	if err != nil {
		_ = file.Close()
		return nil, err
	}
	return &conn{file, raw}, nil
}

// listenAt opens a socket, relative to the working directory since its path may
// have no more than 107 bytes.
func listenAt(name string) (*conn, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, failure("open the socket "+name, err)
	}
	_ = os.Remove(name)
	err = unix.Bind(fd, &unix.SockaddrUnix{Name: name})
	if err == nil {
		err = unix.Listen(fd, 16)
	}
	if err != nil {
		_ = unix.Close(fd)
		return nil, failure("open the socket "+name, err)
	}
	return newConn(fd)
}

// accept returns the next connection; the error is that the listener was closed.
func (p *conn) accept() (int, error) {
	for {
		fd := -1
		var failed error
		err := p.raw.Read(func(l uintptr) bool {
			fd, _, failed = unix.Accept4(int(l), unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
			return !errors.Is(failed, unix.EAGAIN)
		})
		if err != nil {
			return -1, err
		}
		if failed == nil {
			return fd, nil
		}
		time.Sleep(10 * time.Millisecond) // no descriptors; the peer went away
	}
}

func (c *container) serve(listener *conn) {
	for {
		fd, err := listener.accept()
		if err != nil {
			return
		}
		if peer, err := newConn(fd); err == nil {
			go c.talk(peer)
		}
	}
}

// receive reads one packet and the descriptors that came with it.
func (p *conn) receive() (record.Record, []int, error) {
	buffer, oob := make([]byte, 4096), make([]byte, unix.CmsgSpace(3*4))
	var n, oobn int
	var failed error
	err := p.raw.Read(func(fd uintptr) bool {
		n, oobn, _, _, failed = unix.Recvmsg(int(fd), buffer, oob, unix.MSG_CMSG_CLOEXEC)
		return !errors.Is(failed, unix.EAGAIN)
	})
	if err == nil {
		err = failed
	}
	if err != nil {
		return nil, nil, err
	}
	if n == 0 {
		return nil, nil, os.ErrClosed
	}
	var fds []int
	if messages, err := unix.ParseSocketControlMessage(oob[:oobn]); err == nil {
		for _, m := range messages {
			if got, err := unix.ParseUnixRights(&m); err == nil {
				fds = append(fds, got...)
			}
		}
	}
	r, err := record.Unmarshal(buffer[:n])
	return r, fds, err
}

func (p *conn) send(r record.Record) error { return p.sendFDs(r, nil) }

// sendFDs sends a record with open files.
func (p *conn) sendFDs(r record.Record, fds []int) error {
	text := r.Marshal()
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	var failed error
	err := p.raw.Write(func(fd uintptr) bool {
		failed = unix.Sendmsg(int(fd), text, rights, nil, unix.MSG_NOSIGNAL)
		return !errors.Is(failed, unix.EAGAIN)
	})
	if err == nil {
		err = failed
	}
	return err
}

// answer is never empty: an empty packet would look like the end.
func answer(err error) record.Record {
	if err != nil {
		return record.Record{{Key: record.Error, Value: err.Error()}}
	}
	return record.Record{{Key: record.Done, Value: "1"}}
}

// talk answers one connection until its end.
func (c *container) talk(p *conn) {
	defer func() {
		c.mu.Lock()
		delete(c.watchers, p)
		c.mu.Unlock()
		_ = p.file.Close()
	}()
	for {
		r, fds, err := p.receive()
		if err != nil {
			closeEach(fds)
			return
		}
		if r.Get(record.Request) == "exec" {
			c.exec(p, r, fds)
			return
		}
		if r.Get(record.Request) == "attach" {
			c.attach(p, fds)
			return
		}
		closeEach(fds)
		c.answering.RLock()
		err = p.send(c.handle(p, r))
		c.answering.RUnlock()
		if err != nil {
			return
		}
	}
}

func closeEach(fds []int) {
	for _, fd := range fds {
		_ = unix.Close(fd)
	}
}

func (c *container) handle(p *conn, r record.Record) record.Record {
	sig := unix.Signal(r.Int(record.Signal))
	switch request := r.Get(record.Request); request {
	case "start":
		return answer(c.start())
	case "kill":
		return answer(c.kill(sig, time.Duration(r.Int(record.Grace))))
	case "signal":
		return answer(c.send(sig, r.Has(record.All)))
	case "deadline":
		at := time.Time{}
		if n := r.Int(record.Deadline); n != 0 {
			at = time.Unix(0, n)
		}
		c.setDeadline(at)
		return answer(nil)
	case "watch":
		return c.watch(p)
	case "adopt":
		if c.guest == nil {
			return answer(errors.New("the container has a first process of its own"))
		}
		return answer(c.guest.adopt(int(r.Int(record.Pid))))
	default:
		return answer(errors.New("this shim does not know the request " + strconv.Quote(request)))
	}
}

// send signals the task, or everything in the container.
func (c *container) send(sig unix.Signal, all bool) error {
	c.starting.Lock()
	defer c.starting.Unlock()
	c.mu.Lock()
	started := c.started
	c.mu.Unlock()
	switch {
	case !started:
		return errors.New("the container has not been started")
	case all:
		c.signalAll(sig)
	case c.main == nil:
		return errors.New("the container has no process of its own")
	default:
		c.signalChild(c.main, sig)
	}
	return nil
}

// watch tells how the container is, and from then on whatever happens to it.
// The end of the connection is the end of the container.
func (c *container) watch(p *conn) record.Record {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.watchers[p] = true
	r := record.Record{}
	state := "created"
	if c.started {
		state = "running"
	}
	r.Add(record.State, state)
	r.AddInt(record.Pid, int64(c.firstPid()))
	if c.exceeded != nil {
		r.AddInt(record.OOM, 1)
		c.exceeded.add(&r)
	}
	return r
}

func (c *container) tellWatchers(e *excess) {
	r := record.Record{}
	r.AddInt(record.OOM, 1)
	e.add(&r)
	c.mu.Lock()
	var watchers []*conn
	for p := range c.watchers {
		watchers = append(watchers, p)
	}
	c.mu.Unlock()
	for _, p := range watchers {
		_ = p.send(r)
	}
}

// exec runs another process in the container, with the three descriptors that
// came with the request, for as long as the connection lasts.
func (c *container) exec(p *conn, r record.Record, fds []int) {
	if len(fds) != 3 {
		closeEach(fds)
		_ = p.send(answer(errors.New("an exec needs three descriptors")))
		return
	}
	file := r.Get(record.File)
	ch, err := c.enter(file, [3]int{fds[0], fds[1], fds[2]})
	_ = os.Remove(file)
	if err == nil {
		err = ch.letGo()
	}
	if err != nil {
		_ = p.send(answer(err))
		return
	}
	a := record.Record{}
	a.AddInt(record.Pid, int64(ch.pid))
	if p.send(a) != nil {
		c.signalGroup(ch, unix.SIGKILL)
		return
	}
	go func() {
		for {
			r, fds, err := p.receive()
			closeEach(fds)
			if err != nil {
				c.signalGroup(ch, unix.SIGKILL)
				return
			}
			if sig := r.Int(record.Signal); sig != 0 {
				c.signalGroup(ch, unix.Signal(sig))
			}
		}
	}()
	status := <-ch.exited
	end := record.Record{}
	end.AddInt(record.Known, 1)
	end.AddInt(record.Time, time.Now().UnixNano())
	addStatus(&end, status)
	_ = p.send(end)
}

// signalGroup signals a process's group, which it leads since its session.
func (c *container) signalGroup(ch *child, sig unix.Signal) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case ch.dead:
	case ch.guest != nil:
		ch.guest.signal(ch, sig, true)
	default:
		_ = unix.Kill(-ch.pid, sig)
	}
}

// enter starts a process in the cgroups and namespaces of the container.
func (c *container) enter(file string, stdio [3]int) (*child, error) {
	r, err := record.Read(file)
	if err != nil {
		closeAll(stdio)
		return nil, failure("read what to run", err)
	}
	c.mu.Lock()
	ready := c.started && !c.gone
	c.mu.Unlock()
	if !ready {
		closeAll(stdio)
		return nil, errors.New("the container is not running")
	}
	if c.guest != nil {
		return c.guest.exec(file, stdio)
	}
	if c.main != nil {
		c.addNamespaces(&r)
		if err := record.Write(file, r, false); err != nil {
			closeAll(stdio)
			return nil, failure("write what to run", err)
		}
	}
	ch, err := c.spawn(file, r, stdio)
	if err != nil {
		return nil, err
	}
	// Had the task ended meanwhile, its pid could have been another's when the
	// namespaces were joined.
	c.mu.Lock()
	gone := c.gone || c.main != nil && c.main.dead
	c.mu.Unlock()
	if gone {
		c.abandon(ch)
		return nil, errors.New("the container has ended")
	}
	return ch, nil
}

// addNamespaces adds those of the task that are not the shim's own.
func (c *container) addNamespaces(r *record.Record) {
	of := "/proc/" + strconv.Itoa(c.main.pid) + "/ns/"
	for _, n := range []struct {
		name string
		flag int
	}{
		{"pid", unix.CLONE_NEWPID}, {"ipc", unix.CLONE_NEWIPC}, {"uts", unix.CLONE_NEWUTS},
		{"net", unix.CLONE_NEWNET}, {"cgroup", unix.CLONE_NEWCGROUP}, {"mnt", unix.CLONE_NEWNS},
	} {
		theirs, err := os.Readlink(of + n.name)
		if err != nil {
			continue
		}
		if ours, err := os.Readlink("/proc/self/ns/" + n.name); err != nil || ours == theirs {
			continue
		}
		if n.name == "pid" {
			r.Add(record.JoinPid, of+n.name)
		} else {
			r.Add(record.Join, record.Words(strconv.Itoa(n.flag), of+n.name))
		}
	}
}
