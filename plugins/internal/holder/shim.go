package holder

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mezzo-os/mezzo/plugins/internal/record"
)

// shimPatience is how long a shim may take to answer: it never does anything
// slow before it does.
const shimPatience = 10 * time.Second

// errShimGone means that no shim answers for the container.
var errShimGone = errors.New("the container's shim is gone")

// shimConn is a connection to a container's shim; one record a packet.
type shimConn struct{ *net.UnixConn }

// dial connects to a container's shim, by way of a descriptor of its directory
// since a socket's path may have no more than 107 bytes.
func (c *Container) dial() (*shimConn, error) {
	dir, err := os.Open(c.Dir)
	if err != nil {
		return nil, errors.Join(errShimGone, err)
	}
	defer dir.Close()
	path := "/proc/self/fd/" + strconv.Itoa(int(dir.Fd())) + "/" + record.ControlSocket
	conn, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: path, Net: "unixpacket"})
	if err != nil {
		return nil, errors.Join(errShimGone, err)
	}
	return &shimConn{conn}, nil
}

func (s *shimConn) send(r record.Record) error {
	_, err := s.Write(r.Marshal())
	return err
}

// receive reads one record; io.EOF when the shim has closed the connection.
func (s *shimConn) receive() (record.Record, error) {
	buffer := make([]byte, 64<<10)
	n, err := s.Read(buffer)
	if err != nil {
		return nil, err
	}
	if n == 0 {
		return nil, io.EOF
	}
	return record.Unmarshal(buffer[:n])
}

// ask sends one request to the container's shim, and waits until it is done. The
// error is errShimGone when there is no shim, else what the shim said.
func (c *Container) ask(ctx context.Context, request string, fields ...record.Field) error {
	conn, err := c.dial()
	if err != nil {
		return err
	}
	defer conn.Close()
	deadline := time.Now().Add(shimPatience)
	if at, ok := ctx.Deadline(); ok && at.Before(deadline) {
		deadline = at
	}
	_ = conn.SetDeadline(deadline)
	r := append(record.Record{{Key: record.Request, Value: request}}, fields...)
	if err := conn.send(r); err != nil {
		return errors.Join(errShimGone, err)
	}
	answer, err := conn.receive()
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("the container's shim does not answer: %w", err)
	}
	if err != nil {
		return errors.Join(errShimGone, err)
	}
	if text := answer.Get(record.Error); text != "" {
		return errors.New(text)
	}
	return nil
}

func field(key string, value int64) record.Field {
	return record.Field{Key: key, Value: strconv.FormatInt(value, 10)}
}

// Launch starts a shim for the container and returns what it says once the
// container's process is there, stopped.
func (h *Holder) Launch(ctx context.Context, c *Container) (record.Record, error) {
	log, err := os.OpenFile(c.File(record.LogFile), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	// Blocking on the shim's side: its Go runtime must open no poller for it.
	var ends [2]int
	if err := unix.Pipe2(ends[:], unix.O_CLOEXEC); err != nil {
		return nil, err
	}
	_ = unix.SetNonblock(ends[0], true)
	r, w := os.NewFile(uintptr(ends[0]), "shim"), os.NewFile(uintptr(ends[1]), "shim")
	defer r.Close()
	cmd := exec.Command(h.Shim, "run", c.Dir)
	cmd.Args[0] = ShimName
	cmd.Dir, cmd.Env = "/", []string{"GOMAXPROCS=1", "GOGC=25", "GODEBUG=disablethp=1"}
	cmd.Stdout, cmd.Stderr = w, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err = cmd.Start()
	w.Close()
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", h.Shim, err)
	}
	h.children.Add(1)
	go func() {
		defer h.children.Done()
		_ = cmd.Wait() // while this plugin lives it is the one to reap it
	}()
	deadline := time.Now().Add(shimPatience)
	if at, ok := ctx.Deadline(); ok && at.Before(deadline) {
		deadline = at
	}
	_ = r.SetReadDeadline(deadline)
	text, err := io.ReadAll(io.LimitReader(r, 64<<10))
	if err == nil && len(text) == 0 {
		err = fmt.Errorf("%s ended without a word; see %s", ShimName, c.File(record.LogFile))
	}
	var answer record.Record
	if err == nil {
		answer, err = record.Unmarshal(text)
	}
	if err == nil && answer.Has(record.Error) {
		err = errors.New(answer.Get(record.Error))
	}
	if err != nil {
		_ = cmd.Process.Kill()
		return nil, err
	}
	return answer, nil
}

// watch follows a container through its shim until its end. It runs for as
// long as the container or the plugin lives.
func (h *Holder) watch(c *Container, conn *shimConn) {
	defer h.watchers.Done()
	defer conn.Close()
	for {
		r, err := conn.receive()
		if err != nil {
			break
		}
		h.heard(c, r)
	}
	c.counter.Close() // before anybody knows that the container has ended
	if h.closing.Err() != nil {
		return
	}
	status, err := c.readStatus()
	if err == nil {
		h.sawEnd(c, status)
		c.end(status, false)
	} else {
		h.sawEnd(c, nil)
		h.Logger.Error("the shim of a container ended without leaving its exit status", "container_id", c.ID, "error", err)
		h.killRest(c)
		c.end(unknownStatus(), true)
	}
	h.limited()
}

// heard takes up what a shim says of its container.
func (h *Holder) heard(c *Container, r record.Record) {
	c.mu.Lock()
	if r.Get(record.State) == "running" {
		c.started = true
	}
	if pid := r.Int(record.Pid); pid != 0 {
		c.pid = pid
	}
	news := r.Has(record.OOM) && c.limitation == nil
	if news {
		c.limitation = c.memoryLimitation(r)
	}
	c.mu.Unlock()
	if news {
		h.limited()
	}
}

// Follow connects to the container's shim and begins to watch it.
func (h *Holder) Follow(c *Container) error {
	conn, err := c.dial()
	if err != nil {
		return err
	}
	_ = conn.SetDeadline(time.Now().Add(shimPatience))
	err = conn.send(record.Record{{Key: record.Request, Value: "watch"}})
	var first record.Record
	if err == nil {
		first, err = conn.receive()
	}
	if err != nil {
		conn.Close()
		return errors.Join(errShimGone, err)
	}
	_ = conn.SetDeadline(time.Time{})
	h.heard(c, first)
	h.count(c)
	h.watchers.Add(1)
	stop := context.AfterFunc(h.closing, func() { conn.Close() })
	go func() {
		defer stop()
		h.watch(c, conn)
	}()
	return nil
}

// count begins to count events, until watch ends. A container that cannot be
// counted runs as well.
func (h *Holder) count(c *Container) {
	if h.Perf == nil || h.Host == nil || c.Group == "" {
		return
	}
	counter, err := h.Perf.Open(h.Host.PerfDir(c.Group))
	if err != nil {
		h.Logger.Warn("no perf events are counted of a container", "container_id", c.ID, "error", err)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.counter = counter
}

// killRest ends what is left of a container whose shim is gone.
func (h *Holder) killRest(c *Container) {
	if h.Host != nil && c.Group != "" && !h.Host.Kill(c.Group, shimPatience) {
		h.Logger.Error("processes of a container do not end", "container_id", c.ID)
	}
}
