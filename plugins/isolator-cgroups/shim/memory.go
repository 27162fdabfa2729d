package main

import (
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/mezzo-os/mezzo/plugins/internal/record"
	"golang.org/x/sys/unix"
)

// memory watches the memory cgroup of the container's processes.
type memory struct {
	v1, v2    string   // where the processes are; one of them or none
	ancestors []string // from the nearest up: whose limits bind as well
}

// chargeSlack is how far below a limit the kernel may find that the next charge
// exceeds it.
const chargeSlack = 1 << 20

// excess is a memory limit that was exceeded.
type excess struct{ limit, used uint64 }

func (e *excess) add(r *record.Record) {
	r.AddInt(record.MemoryLimit, int64(e.limit))
	r.AddInt(record.MemoryUsed, int64(e.used))
}

// watch calls f whenever the kernel has run out of memory within a limit. It
// asks for too much rather than too little: f looks at the counters.
func (m memory) watch(f func() bool) {
	var notice *os.File
	var err error
	switch {
	case m.v1 != "":
		notice, err = watchV1(m.v1)
	case m.v2 != "":
		notice, err = watchV2(m.v2)
	default:
		return
	}
	if err != nil {
		warn("watch for memory exceeded: " + err.Error())
		return
	}
	go func() {
		buffer := make([]byte, 512)
		for {
			if _, err := notice.Read(buffer); err != nil {
				return
			}
			// v1 tells before the kernel has chosen its victim.
			for wait := time.Millisecond; wait < time.Second && !f(); wait *= 2 {
				time.Sleep(wait)
			}
		}
	}()
}

// watchV1 asks for an eventfd's notice at each out-of-memory of the cgroup and
// of those above it.
func watchV1(dir string) (*os.File, error) {
	control, err := unix.Open(dir+"/memory.oom_control", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, failure(dir+"/memory.oom_control", err)
	}
	defer unix.Close(control)
	event, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, failure("eventfd", err)
	}
	err = writeFile(dir+"/cgroup.event_control", strconv.Itoa(event)+" "+strconv.Itoa(control))
	if err != nil {
		_ = unix.Close(event)
		return nil, failure(dir+"/cgroup.event_control", err)
	}
	return os.NewFile(uintptr(event), "eventfd"), nil
}

func watchV2(dir string) (*os.File, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, failure("inotify", err)
	}
	if _, err := unix.InotifyAddWatch(fd, dir+"/memory.events", unix.IN_MODIFY); err != nil {
		_ = unix.Close(fd)
		return nil, failure(dir, err)
	}
	return os.NewFile(uintptr(fd), "inotify"), nil
}

// leaf is where, below a v2 group, the container's own processes are.
const leaf = "/.leaf"

// localEvents counts a cgroup's own events; before Linux 5.2 there is only a
// file that counts those of its children as well.
func localEvents(dir, key string) uint64 {
	if _, err := os.Stat(dir + "/memory.events.local"); err == nil {
		return counter(dir+"/memory.events.local", key)
	}
	return counter(dir+"/memory.events", key)
}

// outOfMemory looks whether a process of the container was killed because a
// limit was exceeded; then it notes so and ends the rest. It tells whether
// there was a victim at all.
func (c *container) outOfMemory() bool {
	e, victims := c.memory.check()
	if !victims {
		return false
	}
	c.mu.Lock()
	news := e != nil && c.exceeded == nil
	if news {
		c.exceeded = e
	}
	c.mu.Unlock()
	if news {
		c.tellWatchers(e)
		go c.destroy()
	}
	return true
}

// check reads the counters. Victims without an exceeded limit mean that the
// host itself ran out of memory.
func (m memory) check() (e *excess, victims bool) {
	if m.v1 != "" {
		if counter(m.v1+"/memory.oom_control", "oom_kill") == 0 {
			return nil, false
		}
		for _, dir := range append([]string{m.v1}, m.ancestors...) {
			limit := number(dir + "/memory.limit_in_bytes")
			used := number(dir + "/memory.max_usage_in_bytes")
			// Linux from 6.x on no longer counts failures here (failcnt), so the
			// high-water mark has to tell; charges come in batches.
			if limit < 1<<60 && used+chargeSlack >= limit {
				return &excess{limit, used}, true
			}
		}
		return nil, true
	}
	if m.v2 != "" {
		// The processes' own group counts for itself once it has a sibling.
		if localEvents(m.v2, "oom_kill")+localEvents(m.v2+leaf, "oom_kill") == 0 {
			return nil, false
		}
		for _, dir := range append([]string{m.v2}, m.ancestors...) {
			limit := number(dir + "/memory.max") // "max" reads as 0
			if limit > 0 && localEvents(dir, "oom") > 0 {
				return &excess{limit, max(number(dir+"/memory.peak"), number(dir+"/memory.current"))}, true
			}
		}
		return nil, true
	}
	return nil, false
}

func number(path string) uint64 {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0
	}
	n, _ := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 64)
	return n
}

// counter reads the line `key N` of a file.
func counter(path, key string) uint64 {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, key+" "); ok {
			n, _ := strconv.ParseUint(strings.TrimSpace(rest), 10, 64)
			return n
		}
	}
	return 0
}
