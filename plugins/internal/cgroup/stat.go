package cgroup

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
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
	Unevictable  uint64
	SoftLimit    uint64  // bytes; 0: none
	CPUs         float64 // its part when all are busy; 0: not known
	CPULimit     float64 // what it cannot go beyond; 0: none
	Processes    uint64
	Threads      uint64
	Devices      []Transfers
	// Pressure is by resource: cpu, memory, io. Empty without PSI.
	Pressure map[string]Pressure
}

// Pressure is how much of the time processes waited for a resource: some of
// them, or all at once (full).
type Pressure struct{ Some, Full Stall }

// Stall is a part of the last 10, 60 and 300 seconds in percent, and the whole
// time so far.
type Stall struct {
	Avg10, Avg60, Avg300 float64
	Total                time.Duration
}

// Stat measures a container; the error is fs.ErrNotExist when it is gone.
func (h *Host) Stat(path string) (Usage, error) {
	if !h.Exists(path) {
		return Usage{}, fmt.Errorf("cgroup %s: %w", h.group(path), fs.ErrNotExist)
	}
	stat := h.statV1
	if h.v2Limits {
		stat = h.statV2
	}
	u, err := stat(path)
	if err != nil {
		return u, err
	}
	h.shareStat(path, &u)
	if slices.Contains(h.controllers, "io") {
		u.Devices = h.transfers(path)
	}
	if h.v2 != "" {
		u.Pressure = pressures(h.v2Dir(path))
	}
	return u, nil
}

// shareStat reads the limits back that are not the same on v1 and v2.
func (h *Host) shareStat(path string, u *Usage) {
	if h.v2Limits {
		if slices.Contains(h.controllers, "cpu") {
			u.CPUs = float64(number(h.v2Dir(path)+"/cpu.weight")) / 100
			text, _ := os.ReadFile(h.v2Dir(path) + "/cpu.max")
			var quota, period float64
			if n, _ := fmt.Sscan(string(text), &quota, &period); n == 2 && period > 0 {
				u.CPULimit = quota / period
			}
		}
		u.SoftLimit = bounded(number(h.v2Dir(path) + "/memory.low"))
		return
	}
	if h.v1["cpu"] != "" {
		u.CPUs = float64(number(h.v1Dir("cpu", path)+"/cpu.shares")) / 1024
		quota, period := number(h.v1Dir("cpu", path)+"/cpu.cfs_quota_us"), number(h.v1Dir("cpu", path)+"/cpu.cfs_period_us")
		if period > 0 {
			u.CPULimit = float64(quota) / float64(period) // -1, no quota, reads as 0
		}
	}
	if h.v1["memory"] != "" {
		u.SoftLimit = bounded(number(h.v1Dir("memory", path) + "/memory.soft_limit_in_bytes"))
	}
}

// bounded: the kernel writes no limit as a very large one.
func bounded(bytes uint64) uint64 {
	if bytes >= 1<<60 {
		return 0
	}
	return bytes
}

// pressures reads the pressure stall information of a v2 group; nil where the
// kernel has none, or has it switched off.
func pressures(dir string) map[string]Pressure {
	var all map[string]Pressure
	for _, resource := range []string{"cpu", "memory", "io"} {
		text, err := os.ReadFile(filepath.Join(dir, resource+".pressure"))
		if err != nil {
			continue
		}
		if all == nil {
			all = map[string]Pressure{}
		}
		all[resource] = parsePressure(string(text))
	}
	return all
}

// parsePressure reads `some avg10=0.00 avg60=0.00 avg300=0.00 total=0` and the
// like for full.
func parsePressure(text string) (p Pressure) {
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) == 0 {
			continue
		}
		var s Stall
		for _, f := range fields[1:] {
			key, value, _ := strings.Cut(f, "=")
			part, _ := strconv.ParseFloat(value, 64)
			switch key {
			case "avg10":
				s.Avg10 = part
			case "avg60":
				s.Avg60 = part
			case "avg300":
				s.Avg300 = part
			case "total":
				s.Total = time.Duration(part) * time.Microsecond
			}
		}
		switch fields[0] {
		case "some":
			p.Some = s
		case "full":
			p.Full = s
		}
	}
	return p
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
		u.Unevictable = m.Unevictable
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
		u.MemoryFile, u.MemoryMapped, u.Unevictable = m.TotalCache, m.TotalMappedFile, m.TotalUnevictable
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
