package agent

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/mezzo-os/mezzo/sdk/resource"
)

const mebibyte = 1 << 20

// Detect finds what the machine has to give: its processors, its memory and the
// disk of dir less a reserve for the system (1 GiB and 5 GiB; half of it on a
// small machine), and the ports 31000 to 32000.
func Detect(dir string) (resource.Resources, error) {
	memory, err := totalMemory()
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
	return resource.Parse(fmt.Sprintf("cpus:%d;mem:%d;disk:%d;ports:[31000-32000]",
		runtime.NumCPU(), reserved(memory, 1024), reserved(disk, 5*1024)))
}

// reserved is what is left of total, both in MiB, when reserve is kept back, or
// half of it when that is most of it.
func reserved(total, reserve uint64) uint64 {
	if total > 2*reserve {
		return total - reserve
	}
	return total / 2
}

// totalMemory is the machine's memory in MiB.
func totalMemory() (uint64, error) {
	f, err := os.Open("/proc/meminfo")
	if err != nil {
		return 0, err
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if rest, found := strings.CutPrefix(lines.Text(), "MemTotal:"); found {
			kib, err := strconv.ParseUint(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			return kib / 1024, err
		}
	}
	return 0, fmt.Errorf("/proc/meminfo has no MemTotal")
}

// bootID tells one boot of the machine from another; empty when the kernel does
// not say.
func bootID() string {
	b, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(b))
}
