package agent

import (
	"bufio"
	"bytes"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/mezzo-os/mezzo/sdk/resource"
)

const mebibyte = 1 << 20

// detect finds what the machine has to give: its processors, its memory and the
// disk of dir less a reserve for the system (1 GiB and 5 GiB; half of it on a
// small machine), ports that the kernel does not give to outgoing connections,
// and GPUs where there are any. An agent that is itself in a cgroup with limits
// has no more processors and memory to give than those.
func detect(dir string) (resource.Resources, error) {
	m := machine{root: "/", processors: runtime.NumCPU()}
	memory, err := m.memory()
	if err != nil {
		return nil, fmt.Errorf("detect resources: %w: write them in the configuration (resources = …)", err)
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return nil, fmt.Errorf("detect resources: %w", err)
	}
	for dir != "/" {
		if _, err := os.Stat(dir); !os.IsNotExist(err) {
			break
		}
		dir = filepath.Dir(dir) // not made yet: it will be on its parent's disk
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return nil, fmt.Errorf("detect resources: disk of %s: %w: write them in the configuration (resources = …)", dir, err)
	}
	disk := fs.Blocks * uint64(fs.Bsize) / mebibyte
	text := fmt.Sprintf("cpus:%g;mem:%d;disk:%d;ports:%s", m.cpus(), reserved(memory, 1024), reserved(disk, 5*1024), m.ports())
	if gpus := m.gpus(); gpus > 0 {
		text += fmt.Sprintf(";gpus:%d", gpus)
	}
	return resource.Parse(text)
}

// reserved is what is left of total, both in MiB, when reserve is kept back, or
// half of it when that is most of it.
func reserved(total, reserve uint64) uint64 {
	if total > 2*reserve {
		return total - reserve
	}
	return total / 2
}

// machine is one as its files in /proc, /sys and /dev tell it.
type machine struct {
	root       string // "/", or a directory with such files
	processors int    // that this process may run on
}

func (m machine) read(path string) string {
	b, _ := os.ReadFile(filepath.Join(m.root, path))
	return strings.TrimSpace(string(b))
}

// memory is what this process can have, in MiB.
func (m machine) memory() (uint64, error) {
	b, err := os.ReadFile(filepath.Join(m.root, "proc/meminfo"))
	if err != nil {
		return 0, err
	}
	for lines := bufio.NewScanner(bytes.NewReader(b)); lines.Scan(); {
		if rest, found := strings.CutPrefix(lines.Text(), "MemTotal:"); found {
			kib, err := strconv.ParseUint(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			if err != nil {
				return 0, err
			}
			total := kib << 10
			for _, dir := range m.groups("memory") {
				for _, name := range []string{"memory.max", "memory.limit_in_bytes"} {
					if limit, err := strconv.ParseUint(m.read(dir+"/"+name), 10, 64); err == nil && limit > 0 {
						total = min(total, limit)
					}
				}
			}
			return total / mebibyte, nil
		}
	}
	return 0, fmt.Errorf("/proc/meminfo has no MemTotal")
}

// cpus is how many processors this process can use, with a tenth where a cgroup
// gives it a part of one.
func (m machine) cpus() float64 {
	most := float64(m.processors)
	for _, dir := range m.groups("cpu") {
		quota, period, _ := strings.Cut(m.read(dir+"/cpu.max"), " ")
		if quota == "" {
			quota, period = m.read(dir+"/cpu.cfs_quota_us"), m.read(dir+"/cpu.cfs_period_us")
		}
		q, err1 := strconv.ParseFloat(quota, 64)
		p, err2 := strconv.ParseFloat(period, 64)
		if err1 == nil && err2 == nil && q > 0 && p > 0 {
			most = min(most, q/p)
		}
	}
	return max(math.Floor(most*10)/10, 0.1)
}

// groups are the cgroup directories that limit this process: its own and those
// above it, as far as they are seen from here.
func (m machine) groups(controller string) (dirs []string) {
	for line := range strings.Lines(m.read("proc/self/cgroup")) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) != 3 {
			continue
		}
		v2 := parts[0] == "0" && parts[1] == ""
		if !v2 && !slices.Contains(strings.Split(parts[1], ","), controller) {
			continue
		}
		top, seen := m.hierarchy(controller, v2)
		if top == "" {
			continue
		}
		// Of a hierarchy that is mounted from a group on, the rest is below.
		path, below := strings.CutPrefix(parts[2], strings.TrimSuffix(seen, "/"))
		if !below {
			path = "/"
		}
		for path = filepath.Clean("/" + path); ; path = filepath.Dir(path) {
			dirs = append(dirs, filepath.Join(top, path))
			if path == "/" {
				break
			}
		}
	}
	return dirs
}

// hierarchy is where a cgroup hierarchy is mounted, and which group of it is
// seen there.
func (m machine) hierarchy(controller string, v2 bool) (dir, group string) {
	for line := range strings.Lines(m.read("proc/self/mountinfo")) {
		before, after, _ := strings.Cut(line, " - ")
		place, kind := strings.Fields(before), strings.Fields(after)
		if len(place) < 5 || len(kind) < 3 {
			continue
		}
		if v2 && kind[0] == "cgroup2" || !v2 && kind[0] == "cgroup" && slices.Contains(strings.Split(kind[2], ","), controller) {
			return place[4], place[3]
		}
	}
	return "", ""
}

// The ports that Mesos agents have had from the beginning.
const firstPort, lastPort = 31000, 32000

// ports are those of 31000 to 32000 that the kernel does not take for outgoing
// connections: "[31000-32000]". Where it would take all of them they are kept as
// they are.
func (m machine) ports() string {
	var first, last int
	_, _ = fmt.Sscan(m.read("proc/sys/net/ipv4/ip_local_port_range"), &first, &last)
	kept := func(int) bool { return false }
	if text := m.read("proc/sys/net/ipv4/ip_local_reserved_ports"); text != "" {
		kept = func(port int) bool {
			return slices.ContainsFunc(strings.Split(text, ","), func(part string) bool {
				from, to, isRange := strings.Cut(part, "-")
				low, err := strconv.Atoi(from)
				high := low
				if isRange && err == nil {
					high, err = strconv.Atoi(to)
				}
				return err == nil && low <= port && port <= high
			})
		}
	}
	var ranges []string
	begin := 0
	for port := firstPort; port <= lastPort+1; port++ {
		free := port <= lastPort && (port < first || port > last || kept(port))
		switch {
		case free && begin == 0:
			begin = port
		case !free && begin != 0:
			ranges = append(ranges, fmt.Sprintf("%d-%d", begin, port-1))
			begin = 0
		}
	}
	if len(ranges) == 0 {
		return fmt.Sprintf("[%d-%d]", firstPort, lastPort)
	}
	return "[" + strings.Join(ranges, ",") + "]"
}

// gpus is how many GPUs of NVIDIA the machine has.
func (m machine) gpus() int {
	if entries, err := os.ReadDir(filepath.Join(m.root, "proc/driver/nvidia/gpus")); err == nil {
		return len(entries)
	}
	devices, _ := filepath.Glob(filepath.Join(m.root, "dev/nvidia[0-9]*"))
	return len(devices)
}

// bootID tells one boot of the machine from another; empty when the kernel does
// not say.
func bootID() string {
	b, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(b))
}
