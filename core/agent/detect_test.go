package agent

import (
	"os"
	"path/filepath"
	"testing"
)

// tree writes files of a machine.
func tree(t *testing.T, files map[string]string) machine {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return machine{root: root, processors: 8}
}

const eightGiB = "MemTotal:        8388608 kB\nMemFree: 1 kB\n"

func TestDetectMachine(t *testing.T) {
	for _, c := range []struct {
		name   string
		files  map[string]string
		cpus   float64
		memory uint64
	}{
		{"bare", map[string]string{}, 8, 8192},
		{"cgroup v2, a limit of its own and one above", map[string]string{
			"proc/self/cgroup":    "0::/system.slice/mezzo.service\n",
			"proc/self/mountinfo": "30 24 0:26 / /sys/fs/cgroup rw shared:4 - cgroup2 cgroup2 rw\n",
			"sys/fs/cgroup/system.slice/mezzo.service/cpu.max":    "max 100000\n",
			"sys/fs/cgroup/system.slice/cpu.max":                  "150000 100000\n",
			"sys/fs/cgroup/system.slice/mezzo.service/memory.max": "1073741824\n",
			"sys/fs/cgroup/system.slice/memory.max":               "max\n",
		}, 1.5, 1024},
		{"cgroup v1, mounted from the container's group on", map[string]string{
			"proc/self/cgroup":        "5:cpu,cpuacct:/docker/abc\n4:memory:/docker/abc\n0::/\n",
			"proc/self/mountinfo":     "31 24 0:27 /docker/abc /cg/cpu ro - cgroup cgroup rw,cpu,cpuacct\n32 24 0:28 /docker/abc /cg/memory ro - cgroup cgroup rw,memory\n",
			"cg/cpu/cpu.cfs_quota_us": "250000\n", "cg/cpu/cpu.cfs_period_us": "100000\n",
			"cg/memory/memory.limit_in_bytes": "2147483648\n",
		}, 2.5, 2048},
		{"cgroup v1, no limits", map[string]string{
			"proc/self/cgroup":        "5:cpu:/\n4:memory:/a\n",
			"proc/self/mountinfo":     "31 24 0:27 / /cg/cpu rw - cgroup cgroup rw,cpu\n32 24 0:28 / /cg/memory rw - cgroup cgroup rw,memory\n",
			"cg/cpu/cpu.cfs_quota_us": "-1\n", "cg/cpu/cpu.cfs_period_us": "100000\n",
			"cg/memory/a/memory.limit_in_bytes": "9223372036854771712\n",
		}, 8, 8192},
	} {
		c.files["proc/meminfo"] = eightGiB
		m := tree(t, c.files)
		memory, err := m.memory()
		if err != nil || memory != c.memory || m.cpus() != c.cpus {
			t.Errorf("%s: %v cpus, %d MiB, %v; want %v, %d", c.name, m.cpus(), memory, err, c.cpus, c.memory)
		}
	}
	if _, err := tree(t, map[string]string{"proc/meminfo": "x\n"}).memory(); err == nil {
		t.Error("a meminfo without MemTotal is no error")
	}
}

func TestDetectPorts(t *testing.T) {
	const local, reserved = "proc/sys/net/ipv4/ip_local_port_range", "proc/sys/net/ipv4/ip_local_reserved_ports"
	for _, c := range []struct{ local, reserved, want string }{
		{"32768\t60999\n", "", "[31000-32000]"},
		{"31500\t60999\n", "", "[31000-31499]"},
		{"31100\t31200\n", "31150-31160,31170", "[31000-31099,31150-31160,31170-31170,31201-32000]"},
		{"1024\t65535\n", "", "[31000-32000]"},
		{"", "", "[31000-32000]"},
	} {
		if got := tree(t, map[string]string{local: c.local, reserved: c.reserved}).ports(); got != c.want {
			t.Errorf("local %q, reserved %q: %s, want %s", c.local, c.reserved, got, c.want)
		}
	}
}

func TestDetectGPUs(t *testing.T) {
	for want, files := range map[int]map[string]string{
		0: {"dev/null": ""},
		1: {"proc/driver/nvidia/gpus/0000:01:00.0/information": "", "dev/nvidia0": "", "dev/nvidia1": ""},
		2: {"dev/nvidia0": "", "dev/nvidia1": "", "dev/nvidiactl": "", "dev/nvidia-uvm": ""},
	} {
		if got := tree(t, files).gpus(); got != want {
			t.Errorf("%v: %d GPUs, want %d", files, got, want)
		}
	}
}
