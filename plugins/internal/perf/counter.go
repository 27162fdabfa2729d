// Package perf counts events of the processor and the kernel, such as cycles and
// context switches, for cgroups: what perf stat does, all the time.
//
// A Set is what is counted, the same for each container. A Counter is one
// container's: it counts from Open to Close, for the cgroup and those below it,
// and takes a file descriptor an event and processor.
package perf

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	v1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
)

// Set is what is counted on this host. It is safe for concurrent use.
type Set struct {
	events []event
	cpus   []int
	limit  int64 // of descriptors, of all Counters together
	inUse  atomic.Int64
}

// New finds out which of the events, by their names, this kernel counts for the
// cgroup in dir, and has them counted on the processors, of which there is at
// least one. The absent ones are left out; the error is for an operator, and says
// why nothing can be counted.
func New(dir string, names []string, cpus []int) (s *Set, absent []string, err error) {
	group, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("open cgroup %s: %w", dir, err)
	}
	defer unix.Close(group)
	try := func(e event) error {
		fd, err := e.open(group, cpus[0])
		if err == nil {
			unix.Close(fd)
		}
		return err
	}
	switch err := try(event{kind: unix.PERF_TYPE_SOFTWARE, config: unix.PERF_COUNT_SW_DUMMY}); {
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		return nil, nil, fmt.Errorf("the kernel does not let this process count events of cgroups (%w): run the agent as root or with CAP_PERFMON, or set the sysctl kernel.perf_event_paranoid to 0", err)
	case err != nil:
		return nil, nil, fmt.Errorf("this kernel cannot count events of cgroups: %w", err)
	}
	s = &Set{cpus: cpus}
	for _, name := range names {
		i := find(name)
		if i < 0 {
			return nil, nil, Known(name)
		}
		if try(events[i]) != nil { // mostly ENOENT: a virtual machine without counters
			absent = append(absent, name)
			continue
		}
		s.events = append(s.events, events[i])
	}
	var files unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &files); err != nil {
		return nil, nil, fmt.Errorf("read the limit of open files: %w", err)
	}
	s.limit = int64(min(files.Cur/2, 1<<30))
	return s, absent, nil
}

// open begins to count for a cgroup on one processor.
func (e event) open(group, cpu int) (int, error) {
	a := unix.PerfEventAttr{
		Type: e.kind, Config: e.config, Size: uint32(unsafe.Sizeof(unix.PerfEventAttr{})),
		Read_format: unix.PERF_FORMAT_TOTAL_TIME_ENABLED | unix.PERF_FORMAT_TOTAL_TIME_RUNNING,
	}
	return unix.PerfEventOpen(&a, group, cpu, -1, unix.PERF_FLAG_PID_CGROUP|unix.PERF_FLAG_FD_CLOEXEC)
}

// Each is how many descriptors a Counter takes.
func (s *Set) Each() int { return len(s.events) * len(s.cpus) }

// Counter counts for one cgroup. It is safe for concurrent use; a nil one counts
// nothing.
type Counter struct {
	set   *Set
	began time.Time

	mu  sync.Mutex
	fds []int // event by event, in each processor by processor; -1: none; nil: closed
}

// Open begins to count for the cgroup in dir. All Counters together may have half
// of the files that this process may open, so that its work goes on whatever is
// counted: beyond that it is an error.
func (s *Set) Open(dir string) (*Counter, error) {
	if s.Each() == 0 {
		return nil, nil
	}
	if s.inUse.Add(int64(s.Each())) > s.limit {
		s.inUse.Add(-int64(s.Each()))
		return nil, fmt.Errorf("its %d counters would be more than half of the files that this process may open: raise that limit (LimitNOFILE), or count fewer events", s.Each())
	}
	c := &Counter{set: s, fds: make([]int, 0, s.Each()), began: time.Now()}
	group, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		c.Close()
		return nil, fmt.Errorf("open cgroup %s: %w", dir, err)
	}
	defer unix.Close(group)
	for _, e := range s.events {
		for _, cpu := range s.cpus {
			fd, err := e.open(group, cpu)
			if errors.Is(err, unix.ENODEV) {
				fd, err = -1, nil // the processor is off line now
			}
			if err != nil {
				c.Close()
				return nil, fmt.Errorf("count %s on processor %d: %w", e.name, cpu, err)
			}
			c.fds = append(c.fds, fd)
		}
	}
	return c, nil
}

// Read tells what was counted since Open; nil once closed.
func (c *Counter) Read() *v1.PerfStatistics {
	if c == nil {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fds == nil {
		return nil
	}
	began, duration := float64(c.began.UnixNano())/1e9, time.Since(c.began).Seconds()
	s := &v1.PerfStatistics{Timestamp: &began, Duration: &duration}
	for i, e := range c.set.events {
		var sum uint64
		for n := range c.set.cpus {
			sum += count(c.fds[i*len(c.set.cpus)+n])
		}
		e.set(s, sum)
	}
	return s
}

// count reads one counter. Where a processor has fewer counters than there are
// events they take turns, and what was counted stands for the whole time.
func count(fd int) uint64 {
	var text [24]byte
	if fd < 0 {
		return 0
	}
	if n, err := unix.Read(fd, text[:]); err != nil || n != len(text) {
		return 0
	}
	return scale(binary.NativeEndian.Uint64(text[0:]), binary.NativeEndian.Uint64(text[8:]), binary.NativeEndian.Uint64(text[16:]))
}

func scale(value, enabled, running uint64) uint64 {
	if running == 0 || running >= enabled {
		return value
	}
	return uint64(float64(value) * (float64(enabled) / float64(running)))
}

// Close ends the counting; idempotent.
func (c *Counter) Close() {
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fds == nil {
		return
	}
	for _, fd := range c.fds {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
	c.fds = nil
	c.set.inUse.Add(-int64(c.set.Each()))
}
