package main

import (
	"errors"
	"os"
	"sync"

	"github.com/mezzo-os/mezzo/plugins/internal/record"
	"golang.org/x/sys/unix"
)

// tap passes on what a container writes to those who are attached to it. It
// never waits: who does not read fast enough is cut off, not the task held up.
type tap struct {
	mu      sync.Mutex
	readers []*reader
	ended   bool
}

// reader is the writing end of one who is attached; -1 once it was closed. slow
// tells that it is closed for not reading.
type reader struct {
	fd   int
	slow func()
}

func (r *reader) close() {
	if r.fd >= 0 {
		_ = unix.Close(r.fd)
		r.fd = -1
	}
}

// add takes over a descriptor, of which nobody waits for the writing.
func (t *tap) add(fd int, slow func()) *reader {
	t.mu.Lock()
	defer t.mu.Unlock()
	r := &reader{fd, slow}
	if t.ended || unix.SetNonblock(fd, true) != nil {
		r.close()
		return r
	}
	t.readers = append(t.readers, r)
	return r
}

func (t *tap) remove(r *reader) {
	t.mu.Lock()
	defer t.mu.Unlock()
	r.close()
	t.sweep()
}

// sweep drops those that were closed.
func (t *tap) sweep() {
	kept := t.readers[:0]
	for _, r := range t.readers {
		if r.fd >= 0 {
			kept = append(kept, r)
		}
	}
	t.readers = kept
}

func (t *tap) write(b []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, r := range t.readers {
		if n, err := unix.Write(r.fd, b); err != nil || n < len(b) {
			r.slow() // said before the end of the output is seen
			r.close()
		}
	}
	t.sweep()
}

func (t *tap) end() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, r := range t.readers {
		r.close()
	}
	t.readers, t.ended = nil, true
}

// attach connects two descriptors to the container's output for as long as the
// connection lasts. The answer brings the container's terminal, if it has one:
// what is written there is typed.
func (c *container) attach(p *conn, fds []int) {
	if len(fds) != 2 || c.main == nil {
		closeEach(fds)
		_ = p.send(answer(errors.New("there is no process to attach to")))
		return
	}
	slow := func() { _ = p.send(answer(errors.New("it does not read what the container writes"))) }
	for i, fd := range fds {
		r := c.taps[i].add(fd, slow)
		defer c.taps[i].remove(r)
	}
	if c.terminal == nil {
		if p.send(answer(nil)) != nil {
			return
		}
	} else if err := p.sendFile(answer(nil), c.terminal); err != nil {
		_ = p.send(answer(err))
		return
	}
	for {
		_, fds, err := p.receive()
		closeEach(fds)
		if err != nil {
			return
		}
	}
}

// sendFile sends a record with an open file.
func (p *conn) sendFile(r record.Record, f *os.File) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Control(func(file uintptr) { failed = p.sendFDs(r, []int{int(file)}) })
	return errors.Join(err, failed)
}
