package holder

import (
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/mezzo-os/mezzo/plugins/internal/cgroup"
	"github.com/mezzo-os/mezzo/plugins/internal/record"
)

// StatFields returns /proc/PID/stat from its third field (the state) on.
func StatFields(pid string) []string {
	b, err := os.ReadFile("/proc/" + pid + "/stat")
	if err != nil {
		return nil
	}
	text := string(b)
	return strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
}

// startTime is a process's start in clock ticks since boot, "" when there is
// no such process.
func startTime(pid int) string {
	fields := StatFields(strconv.Itoa(pid))
	if len(fields) < 20 {
		return ""
	}
	return fields[19]
}

// treeUsage measures a container without cgroups: the processes below its
// shim. CPU time of those that have ended is that which their parents waited
// for.
func (c *Container) treeUsage() (u cgroup.Usage, ok bool) {
	r, err := record.Read(c.File(record.ShimFile))
	if err != nil || startTime(int(r.Int(record.ShimPid))) != r.Get(record.ShimStart) {
		return u, false
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return u, false
	}
	children, stats := map[string][]string{}, map[string][]string{}
	for _, e := range entries {
		if name := e.Name(); name[0] >= '1' && name[0] <= '9' {
			if f := StatFields(name); len(f) >= 22 {
				children[f[1]] = append(children[f[1]], name)
				stats[name] = f
			}
		}
	}
	var visit func(pid string)
	visit = func(pid string) {
		for _, child := range children[pid] {
			f := stats[child]
			u.User += ticks(f[11]) + ticks(f[13])
			u.System += ticks(f[12]) + ticks(f[14])
			u.Processes++
			u.Threads += integer(f[17])
			u.MemoryRSS += integer(f[21]) * uint64(os.Getpagesize())
			visit(child)
		}
	}
	visit(r.Get(record.ShimPid))
	u.Memory = u.MemoryRSS
	return u, true
}

func integer(text string) uint64 {
	n, _ := strconv.ParseUint(text, 10, 64)
	return n
}

// ticks: Linux shows user space a hundred a second, whatever its own clock.
func ticks(text string) time.Duration { return time.Duration(integer(text)) * 10 * time.Millisecond }
