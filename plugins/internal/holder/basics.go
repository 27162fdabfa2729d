package holder

import (
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/mezzo-os/mezzo/plugins/internal/capability"
	"github.com/mezzo-os/mezzo/plugins/internal/cgroup"
	"github.com/mezzo-os/mezzo/plugins/internal/perf"
	"github.com/mezzo-os/mezzo/sdk/plugin"
)

// Basics are the settings that every isolator which launches has, embedded in the
// others of its configuration.
type Basics struct {
	Root       string   `hcl:"root" default:"mezzo" help:"The name of the cgroup that all containers' cgroups are made in."`
	CFSQuota   bool     `hcl:"cfs_quota" default:"false" help:"Whether a container may never use more CPU time than it asked for, even on an idle host. A task's own cpu limit is always kept."`
	Swap       bool     `hcl:"swap" default:"false" help:"Whether containers may swap. Otherwise memory and swap together are limited to a container's memory."`
	PidsMax    int64    `hcl:"pids_max" default:"8192" help:"How many processes and threads a container may have; 0: as many as the host. At least 16, and with images 32."`
	RuntimeDir string   `hcl:"runtime_dir" help:"Where the state of containers is kept; an absolute path. By default the plugin's data directory."`
	PerfEvents []string `hcl:"perf_events" help:"The events that are counted of each container, by the names that perf has for them, such as cycles, instructions, task-clock and context-switches. Each takes a file descriptor a container and processor. By default none."`
	Bounding   []string `hcl:"bounding_capabilities" help:"The capabilities that tasks may have at most; [\"none\"]: no capability. A task that asks for more is refused. By default all, for tasks that run as root."`
	NoNewPrivs bool     `hcl:"no_new_privs" default:"false" help:"Whether tasks can gain no privileges by running a program (set-user-ID programs such as sudo then have no effect)."`
	SeccompDir string   `hcl:"seccomp_dir" help:"A directory with seccomp profiles in Docker's JSON form, which tasks and seccomp_profile name; an absolute path."`
}

// Validate finds what can never work, on any host. minPids is the least for
// pids_max, with which the isolator's own processes in a container have room.
func (b *Basics) Validate(minPids int64) (ds []plugin.Diagnostic) {
	if b.Root == "" || strings.ContainsAny(b.Root, "/\n") || strings.HasPrefix(b.Root, ".") || strings.HasPrefix(b.Root, "cgroup.") {
		ds = append(ds, plugin.Errorf("malformed cgroup name", "root", "%q: want one name with no slash, not beginning with a dot.", b.Root))
	}
	if b.PidsMax != 0 && b.PidsMax < minPids {
		ds = append(ds, plugin.Errorf("too few processes", "pids_max", "%d: want 0 (no limit) or at least %d.", b.PidsMax, minPids))
	}
	for _, x := range []struct{ name, path string }{{"runtime_dir", b.RuntimeDir}, {"seccomp_dir", b.SeccompDir}} {
		if x.path != "" && !filepath.IsAbs(x.path) {
			ds = append(ds, plugin.Errorf("relative path", x.name, "%q: want an absolute path.", x.path))
		}
	}
	for i, name := range b.PerfEvents {
		path := "perf_events." + strconv.Itoa(i)
		if err := perf.Known(name); err != nil {
			ds = append(ds, plugin.Errorf("unknown event", path, "%v.", err))
		} else if slices.Index(b.PerfEvents, name) != i {
			ds = append(ds, plugin.Errorf("event named twice", path, "%q stands in the list before.", name))
		}
	}
	if _, err := capability.Parse(b.Bounding); err != nil {
		ds = append(ds, plugin.Errorf("unknown capability", "bounding_capabilities", "%v.", err))
	}
	return ds
}

// Policy is how a task's resources become limits of these controllers.
func (b *Basics) Policy(controllers []string) cgroup.Policy {
	return cgroup.Policy{Controllers: controllers, CFSQuota: b.CFSQuota, Swap: b.Swap, PidsMax: b.PidsMax}
}
