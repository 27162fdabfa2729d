package main

import (
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/mezzo-os/mezzo/plugins/internal/capability"
	"github.com/mezzo-os/mezzo/plugins/internal/cgroup"
	"github.com/mezzo-os/mezzo/plugins/internal/holder"
	"github.com/mezzo-os/mezzo/plugins/internal/seccomp"
	"github.com/mezzo-os/mezzo/sdk/plugin"
)

// Config is what may stand in the plugin's config block.
type Config struct {
	holder.Basics

	Controllers []string `hcl:"controllers" default:"[\"cpu\",\"memory\",\"pids\"]" help:"The cgroup controllers that limit containers: cpu, memory, pids, cpuset, io (blkio on cgroup v1), devices, hugetlb, net_cls (cgroup v1 only)."`
	Enforce     bool     `hcl:"enforce" default:"false" help:"Whether it is an error, at start, that limits cannot be enforced on this host. Otherwise tasks run without them, and the plugin says that it is degraded."`

	CPUs          string       `hcl:"cpus" help:"The processors that containers run on, such as 2-7,12 (controller cpuset). By default all."`
	ExclusiveCPUs bool         `hcl:"exclusive_cpus" default:"false" help:"Whether a task that asks for whole CPUs (2, and not 1.5) has so many processors to itself; all others run on the rest, of which one is always left (controller cpuset). Tasks of task groups and of custom executors share."`
	MemoryNodes   string       `hcl:"memory_nodes" help:"The NUMA nodes that containers' memory is on, such as 0 or 0-1 (controller cpuset). By default all."`
	IOWeight      int64        `hcl:"io_weight" default:"0" help:"The weight of each container at block devices, 10 to 1000 (controller io); 0: the kernel's default. Needs a kernel and an I/O scheduler that weigh; without them it is an error at start."`
	Throttles     []Throttle   `hcl:"throttle,block" help:"How fast each container may read and write a block device (controller io)."`
	Devices       []string     `hcl:"allowed_devices" help:"Devices that containers may use besides the harmless ones (controller devices): paths, each with what is allowed, of r (read), w (write) and m (make the device file), such as /dev/fuse rw. A path alone allows all three."`
	GPUs          []string     `hcl:"gpu_devices" help:"The GPUs of this host, by the paths of their devices. A task that asks for gpus is given so many, which nobody else has meanwhile, and finds their numbers in NVIDIA_VISIBLE_DEVICES; controller devices keeps it from the others. By default /dev/nvidia0 and so on, where there are such."`
	HugePages     *plugin.Size `hcl:"hugetlb_limit" help:"How much memory each container may have in huge pages, of each size (controller hugetlb). By default as much as there is."`
	NetClass      int64        `hcl:"net_cls_major" default:"0" help:"The major number of the class that marks a container's packets for traffic control, 1 to 65535; each container has a minor number of its own (controller net_cls). 0: they are not marked."`

	Effective  []string `hcl:"effective_capabilities" help:"The capabilities of a task that asks for none, such as NET_BIND_SERVICE; [\"none\"]: no capability. By default those of bounding_capabilities."`
	Seccomp    string   `hcl:"seccomp_profile" help:"The system calls that tasks may make: default (Docker's default profile), or the name of a profile in seccomp_dir. A task may name another profile of seccomp_dir, or ask for none. By default all."`
	Namespaces []string `hcl:"namespaces" help:"The namespaces that every container has of its own, unless its task asks to share them: pid, ipc."`
	PrivateTmp bool     `hcl:"private_tmp" default:"false" help:"Whether every container has a /tmp and /var/tmp of its own, which is the directory tmp of its sandbox. The work directory must not be below either."`
	Masked     []string `hcl:"masked_paths" help:"Files and directories of the host that tasks find empty; absolute paths."`
	Readonly   []string `hcl:"readonly_paths" help:"Files and directories of the host that tasks cannot change; absolute paths."`
}

// Throttle limits a block device. At least one limit is set.
type Throttle struct {
	Device   string      `hcl:"device,label"`
	ReadBps  plugin.Size `hcl:"read_bps" default:"0B" help:"Bytes a second that a container may read; 0: no limit."`
	WriteBps plugin.Size `hcl:"write_bps" default:"0B" help:"Bytes a second that a container may write; 0: no limit."`
	ReadOps  int64       `hcl:"read_iops" default:"0" help:"Reads a second; 0: no limit."`
	WriteOps int64       `hcl:"write_iops" default:"0" help:"Writes a second; 0: no limit."`
}

// Validate finds what can never work, on any host.
func (t *Throttle) Validate() (ds []plugin.Diagnostic) {
	if !filepath.IsAbs(t.Device) {
		ds = append(ds, plugin.Errorf("no device", "", "%q: want the path of a block device, such as /dev/sda.", t.Device))
	}
	if t.ReadOps < 0 || t.WriteOps < 0 {
		ds = append(ds, plugin.Errorf("negative limit", "", "throttle %s: a limit is a positive number, or 0 for none.", t.Device))
	}
	if t.ReadBps == 0 && t.WriteBps == 0 && t.ReadOps == 0 && t.WriteOps == 0 {
		ds = append(ds, plugin.Errorf("no limit", "", "throttle %s sets none of read_bps, write_bps, read_iops and write_iops.", t.Device))
	}
	return ds
}

// minPidsMax leaves room for the shim's own process before the task's begins.
const minPidsMax = 16

// Validate finds what can never work, on any host.
func (c *Config) Validate() []plugin.Diagnostic {
	var ds []plugin.Diagnostic
	for i, name := range c.Controllers {
		path := "controllers." + strconv.Itoa(i)
		switch {
		case !slices.Contains(cgroup.Controllers, name):
			ds = append(ds, plugin.Errorf("unknown controller", path, "%q is none of: %s.", name, strings.Join(cgroup.Controllers, ", ")))
		case slices.Index(c.Controllers, name) != i:
			ds = append(ds, plugin.Errorf("controller named twice", path, "%q stands in the list before.", name))
		}
	}
	ds = append(ds, c.Basics.Validate(minPidsMax)...)
	ds = append(ds, c.needed()...)
	return append(ds, c.walls()...)
}

// needed finds settings whose controller is not among the controllers, where
// they would have no effect, and numbers out of range.
func (c *Config) needed() (ds []plugin.Diagnostic) {
	for _, s := range []struct {
		name, controller string
		set              bool
	}{
		{"cpus", "cpuset", c.CPUs != ""}, {"memory_nodes", "cpuset", c.MemoryNodes != ""},
		{"io_weight", "io", c.IOWeight != 0}, {"throttle", "io", len(c.Throttles) > 0},
		{"allowed_devices", "devices", len(c.Devices) > 0}, {"hugetlb_limit", "hugetlb", c.HugePages != nil},
		{"net_cls_major", "net_cls", c.NetClass != 0}, {"exclusive_cpus", "cpuset", c.ExclusiveCPUs},
		{"gpu_devices", "devices", len(c.GPUs) > 0},
	} {
		if s.set && !slices.Contains(c.Controllers, s.controller) {
			ds = append(ds, plugin.Errorf("controller missing", s.name, "%s has no effect without %q in controllers.", s.name, s.controller))
		}
	}
	for _, s := range []struct{ name, value string }{{"cpus", c.CPUs}, {"memory_nodes", c.MemoryNodes}} {
		if s.value != "" && !isNumberList(s.value) {
			ds = append(ds, plugin.Errorf("malformed list", s.name, "%q: want numbers and ranges, such as 0-3,8.", s.value))
		}
	}
	if c.IOWeight != 0 && (c.IOWeight < 10 || c.IOWeight > 1000) {
		ds = append(ds, plugin.Errorf("weight out of range", "io_weight", "%d: want 10 to 1000, or 0 for the kernel's default.", c.IOWeight))
	}
	if c.NetClass < 0 || c.NetClass > 65535 {
		ds = append(ds, plugin.Errorf("class out of range", "net_cls_major", "%d: want 1 to 65535, or 0 for none.", c.NetClass))
	}
	for i, path := range c.GPUs {
		if !filepath.IsAbs(path) || slices.Index(c.GPUs, path) != i {
			ds = append(ds, plugin.Errorf("malformed device", "gpu_devices."+strconv.Itoa(i), "%q: want the absolute path of a device, and each once.", path))
		}
	}
	for i, text := range c.Devices {
		if _, _, err := parseDevice(text); err != nil {
			ds = append(ds, plugin.Errorf("malformed device", "allowed_devices."+strconv.Itoa(i), "%v.", err))
		}
	}
	return ds
}

// walls finds mistakes in the settings that need no controller.
func (c *Config) walls() (ds []plugin.Diagnostic) {
	if _, err := capability.Parse(c.Effective); err != nil {
		ds = append(ds, plugin.Errorf("unknown capability", "effective_capabilities", "%v.", err))
	}
	if most, err := capability.Parse(c.Bounding); err == nil && len(c.Bounding) > 0 {
		has, _ := capability.Parse(c.Effective)
		for _, name := range has {
			if !slices.Contains(most, name) {
				ds = append(ds, plugin.Errorf("capability not allowed", "effective_capabilities", "%s is not among bounding_capabilities.", name))
			}
		}
	}
	if c.Seccomp != "" && c.Seccomp != seccomp.Default {
		if _, err := seccomp.Path(c.SeccompDir, c.Seccomp); err != nil {
			ds = append(ds, plugin.Errorf("unknown seccomp profile", "seccomp_profile", "%v.", err))
		}
	}
	for i, name := range c.Namespaces {
		if name != "pid" && name != "ipc" {
			ds = append(ds, plugin.Errorf("unknown namespace", "namespaces."+strconv.Itoa(i), "%q is none of: pid, ipc.", name))
		}
	}
	for _, s := range []struct {
		name  string
		paths []string
	}{{"masked_paths", c.Masked}, {"readonly_paths", c.Readonly}} {
		for i, path := range s.paths {
			if !filepath.IsAbs(path) || filepath.Clean(path) == "/" {
				ds = append(ds, plugin.Errorf("unusable path", s.name+"."+strconv.Itoa(i), "%q: want an absolute path, and not the root directory.", path))
			}
		}
	}
	return ds
}

// isNumberList tells whether a text is a list of numbers and ranges as the
// kernel writes it.
func isNumberList(text string) bool {
	for part := range strings.SplitSeq(text, ",") {
		first, last, isRange := strings.Cut(part, "-")
		from, err := strconv.ParseUint(first, 10, 16)
		if err != nil {
			return false
		}
		if to, err := strconv.ParseUint(last, 10, 16); isRange && (err != nil || to < from) {
			return false
		}
	}
	return true
}
