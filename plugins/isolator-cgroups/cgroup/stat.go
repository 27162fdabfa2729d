package cgroup

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/cgroups/v3/cgroup1"
	"github.com/containerd/cgroups/v3/cgroup2"
	"golang.org/x/sys/unix"
)

// Usage is what a container's processes, and those nested in it, use.
type Usage struct {
	User, System time.Duration // CPU time since its start
	Periods      uint64        // CFS periods that passed, …
	Throttled    uint64        // …those in which it was throttled, …
	ThrottledFor time.Duration // …and for how long
	Memory       uint64        // bytes in all, page cache included
	MemoryRSS    uint64
	MemoryFile   uint64
	MemoryMapped uint64
	Swap         uint64
	Processes    uint64
	Threads      uint64
}

// Stat measures a container; the error is fs.ErrNotExist when it is gone.
func (h *Host) Stat(path string) (Usage, error) {
	if !h.Exists(path) {
		return Usage{}, fmt.Errorf("cgroup %s: %w", h.group(path), fs.ErrNotExist)
	}
	if h.v2Limits {
		return h.statV2(path)
	}
	return h.statV1(path)
}

func (h *Host) statV2(path string) (u Usage, err error) {
	m, err := cgroup2.Load(h.relative(path), cgroup2.WithMountpoint(h.v2Mount))
	if err != nil {
		return u, err
	}
	s, err := m.StatFiltered(cgroup2.StatCPU | cgroup2.StatMemory | cgroup2.StatPids)
	if err != nil {
		return u, err
	}
	if c := s.GetCPU(); c != nil {
		u.User, u.System = usec(c.UserUsec), usec(c.SystemUsec)
		u.Periods, u.Throttled, u.ThrottledFor = c.NrPeriods, c.NrThrottled, usec(c.ThrottledUsec)
	}
	if m := s.GetMemory(); m != nil {
		u.Memory, u.MemoryRSS, u.MemoryFile, u.MemoryMapped, u.Swap = m.Usage, m.Anon, m.File, m.FileMapped, m.SwapUsage
	}
	if p := s.GetPids(); p != nil {
		u.Threads = p.Current
	}
	u.Processes = count(h.v2Dir(path))
	return u, nil
}

func (h *Host) statV1(path string) (u Usage, err error) {
	g, err := cgroup1.Load(cgroup1.StaticPath(h.group(path)), cgroup1.WithHierarchy(h.hierarchy))
	if err != nil {
		return u, err
	}
	s, err := g.Stat(cgroup1.IgnoreNotExist)
	if err != nil {
		return u, err
	}
	if c := s.GetCPU(); c != nil {
		u.User, u.System = time.Duration(c.GetUsage().GetUser()), time.Duration(c.GetUsage().GetKernel())
		t := c.GetThrottling()
		u.Periods, u.Throttled, u.ThrottledFor = t.GetPeriods(), t.GetThrottledPeriods(), time.Duration(t.GetThrottledTime())
	}
	if m := s.GetMemory(); m != nil {
		u.Memory, u.MemoryRSS = m.GetUsage().GetUsage(), m.TotalRSS
		u.MemoryFile, u.MemoryMapped = m.TotalCache, m.TotalMappedFile
		u.Swap = max(m.GetSwap().GetUsage(), u.Memory) - u.Memory // the kernel counts both together
	}
	if p := s.GetPids(); p != nil {
		u.Threads = p.Current
	}
	u.Processes = count(h.dirs(path)[0])
	return u, nil
}

func usec(n uint64) time.Duration { return time.Duration(n) * time.Microsecond }

// count counts the processes in a directory and below.
func count(dir string) (n uint64) {
	_ = filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			n += uint64(len(procs(p)))
		}
		return nil
	})
	return n
}

func procs(dir string) []string {
	text, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
	if err != nil {
		return nil
	}
	return strings.Fields(string(text))
}

func number(path string) uint64 {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0
	}
	n, _ := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64)
	return n
}

// Kill sends SIGKILL to every process of a container whose shim is gone, and
// of those nested in it, until none is left or the patience is over.
func (h *Host) Kill(path string, patience time.Duration) bool {
	until := time.Now().Add(patience)
	for wait := time.Millisecond; h.populated(path); wait = min(2*wait, 50*time.Millisecond) {
		if time.Now().After(until) {
			return false
		}
		for _, dir := range h.dirs(path) {
			if write(filepath.Join(dir, "cgroup.kill"), "1") == nil {
				continue
			}
			_ = filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
				if err == nil && d.IsDir() {
					killIn(p)
				}
				return nil
			})
		}
		time.Sleep(wait)
	}
	return true
}

// killIn holds each process by a pidfd and looks it up again before it is
// signalled, so that a pid that has become another process's is left alone.
func killIn(dir string) {
	held := map[string]int{}
	for _, text := range procs(dir) {
		if pid, err := strconv.Atoi(text); err == nil && pid > 0 {
			if fd, err := unix.PidfdOpen(pid, 0); err == nil {
				held[text] = fd
			}
		}
	}
	still := map[string]bool{}
	for _, text := range procs(dir) {
		still[text] = true
	}
	for text, fd := range held {
		if still[text] {
			_ = unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
		}
		_ = unix.Close(fd)
	}
}

func (h *Host) populated(path string) bool {
	for _, dir := range h.dirs(path) {
		if count(dir) > 0 {
			return true
		}
	}
	return false
}
