package main

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/mezzo-os/mezzo/plugins/internal/cgroup"
	"github.com/mezzo-os/mezzo/plugins/internal/holder"
	"github.com/mezzo-os/mezzo/plugins/internal/record"
	"github.com/mezzo-os/mezzo/sdk/plugin"
	isolatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/isolator/v1"
)

// settings are the limits that the operator's configuration comes to on this
// host. They are the same for every container.
type settings struct {
	throttles *specs.LinuxBlockIO
	devices   []specs.LinuxDeviceCgroup
	hugePages []specs.LinuxHugepageLimit
	// processors are those that containers run on; none: nobody asks which.
	processors  []int
	gpus        []gpu
	gpuControls []specs.LinuxDeviceCgroup
}

// provide works the configuration out on this host, and finds what of it the
// host cannot do.
func (p *cgroups) provide() (ds []plugin.Diagnostic) {
	c := &p.config
	p.settings = settings{}
	if os.Geteuid() != 0 {
		for name, set := range map[string]bool{
			"namespaces": len(c.Namespaces) > 0, "private_tmp": c.PrivateTmp, "masked_paths": len(c.Masked) > 0,
			"readonly_paths": len(c.Readonly) > 0, "bounding_capabilities": len(c.Bounding) > 0, "effective_capabilities": len(c.Effective) > 0,
		} {
			if set {
				ds = append(ds, plugin.Errorf("not without root", name, "The agent runs as user id %d; run it as root, or take %s away.", os.Geteuid(), name))
			}
		}
	}
	if c.Seccomp != "" {
		if err := p.tryProfile(); err != nil {
			ds = append(ds, plugin.Errorf("unusable seccomp profile", "seccomp_profile", "%v.", err))
		}
	}
	if err := p.gpuSettings(); err != nil {
		ds = append(ds, plugin.Errorf("unusable GPU", "gpu_devices", "%v.", err))
	}
	if p.Host == nil {
		return ds
	}
	if slices.Contains(c.Controllers, "cpuset") {
		var err error
		if p.settings.processors, err = p.findProcessors(); err != nil {
			ds = append(ds, plugin.Errorf("the host's processors cannot be found out", "controllers", "%v.", err))
		}
	}
	if err := p.Host.CanWeigh(); c.IOWeight != 0 && err != nil {
		ds = append(ds, plugin.Errorf("this host cannot weigh block devices", "io_weight", "%v. Take io_weight away; throttle limits do not need it.", err))
	}
	io := &specs.LinuxBlockIO{}
	for i := range c.Throttles {
		if err := c.Throttles[i].add(io); err != nil {
			ds = append(ds, plugin.Errorf("unusable device", "throttle."+strconv.Itoa(i), "%v.", err))
		}
	}
	if c.IOWeight != 0 {
		weight := uint16(c.IOWeight)
		io.Weight = &weight
	}
	if c.IOWeight != 0 || len(c.Throttles) > 0 {
		p.settings.throttles = io
	}
	if slices.Contains(c.Controllers, "devices") {
		var bad []plugin.Diagnostic
		p.settings.devices, bad = c.deviceRules()
		ds = append(ds, bad...)
	}
	if c.HugePages != nil {
		sizes, err := hugePageSizes()
		if err != nil || len(sizes) == 0 {
			ds = append(ds, plugin.Errorf("no huge pages", "hugetlb_limit", "This kernel has no huge pages (/sys/kernel/mm/hugepages): %v.", err))
		}
		for _, size := range sizes {
			p.settings.hugePages = append(p.settings.hugePages, specs.LinuxHugepageLimit{Pagesize: size, Limit: uint64(*c.HugePages)})
		}
	}
	return ds
}

// tryProfile makes the program of the agent's profile once, to find its
// mistakes before a task does.
func (p *cgroups) tryProfile() error {
	s := &specs.Spec{Process: &specs.Process{}, Linux: &specs.Linux{}}
	if err := p.filterOf(nil, s); err != nil {
		return fmt.Errorf("%s", holder.Message(err))
	}
	if err := wallRecord(&record.Record{}, s); err != nil {
		return fmt.Errorf("%s", holder.Message(err))
	}
	return nil
}

// limit puts them into a container's resources. What the spec says for itself,
// by an isolator before this one, stays.
func (p *cgroups) limit(t *isolatorv1.Task, r *specs.LinuxResources) {
	has := func(c string) bool { return slices.Contains(p.config.Controllers, c) }
	if has("cpuset") && (p.config.CPUs != "" || p.config.MemoryNodes != "") {
		if r.CPU == nil {
			r.CPU = &specs.LinuxCPU{}
		}
		if r.CPU.Cpus == "" {
			r.CPU.Cpus = p.config.CPUs
		}
		if r.CPU.Mems == "" {
			r.CPU.Mems = p.config.MemoryNodes
		}
	}
	if r.BlockIO == nil && !cgroup.Shares(t) {
		r.BlockIO = p.settings.throttles
	}
	if len(r.HugepageLimits) == 0 && !cgroup.Shares(t) {
		r.HugepageLimits = p.settings.hugePages
	}
	if has("devices") {
		r.Devices = append(slices.Clone(p.settings.devices), r.Devices...)
	}
}

func (t *Throttle) add(io *specs.LinuxBlockIO) error {
	var st unix.Stat_t
	if err := unix.Stat(t.Device, &st); err != nil {
		return fmt.Errorf("throttle %s: %w", t.Device, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFBLK {
		return fmt.Errorf("throttle %s: it is no block device", t.Device)
	}
	for _, l := range []struct {
		list *[]specs.LinuxThrottleDevice
		rate int64
	}{
		{&io.ThrottleReadBpsDevice, int64(t.ReadBps)}, {&io.ThrottleWriteBpsDevice, int64(t.WriteBps)},
		{&io.ThrottleReadIOPSDevice, t.ReadOps}, {&io.ThrottleWriteIOPSDevice, t.WriteOps},
	} {
		if l.rate > 0 {
			d := specs.LinuxThrottleDevice{Rate: uint64(l.rate)}
			d.Major, d.Minor = int64(unix.Major(st.Rdev)), int64(unix.Minor(st.Rdev))
			*l.list = append(*l.list, d)
		}
	}
	return nil
}

// harmless are the devices that every container may use; "c *:* m": device
// files may be made, which gives no right to use them.
var harmless = []string{
	"c *:* m", "b *:* m",
	"c 1:3 rwm", "c 1:5 rwm", "c 1:7 rwm", "c 1:8 rwm", "c 1:9 rwm", // null, zero, full, random, urandom
	"c 5:0 rwm", "c 5:1 rwm", "c 5:2 rwm", "c 136:* rwm", // tty, console, ptmx, pts
	"c 10:200 rwm", // net/tun
}

// deviceRules forbid all devices but the harmless ones and those allowed.
func (c *Config) deviceRules() (rules []specs.LinuxDeviceCgroup, ds []plugin.Diagnostic) {
	rules = []specs.LinuxDeviceCgroup{{Allow: false, Type: "a", Access: "rwm"}}
	for _, text := range harmless {
		f := strings.FieldsFunc(text, func(r rune) bool { return r == ' ' || r == ':' })
		rules = append(rules, specs.LinuxDeviceCgroup{Allow: true, Type: f[0], Major: deviceNumber(f[1]), Minor: deviceNumber(f[2]), Access: f[3]})
	}
	for i, text := range c.Devices {
		path, access, err := parseDevice(text)
		var st unix.Stat_t
		if err == nil {
			err = unix.Stat(path, &st)
		}
		kind := map[uint32]string{unix.S_IFCHR: "c", unix.S_IFBLK: "b"}[st.Mode&unix.S_IFMT]
		if err == nil && kind == "" {
			err = fmt.Errorf("it is no device")
		}
		if err != nil {
			ds = append(ds, plugin.Errorf("unusable device", "allowed_devices."+strconv.Itoa(i), "%s: %v.", text, err))
			continue
		}
		major, minor := int64(unix.Major(st.Rdev)), int64(unix.Minor(st.Rdev))
		rules = append(rules, specs.LinuxDeviceCgroup{Allow: true, Type: kind, Major: &major, Minor: &minor, Access: access})
	}
	return rules, ds
}

func deviceNumber(text string) *int64 {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		n = -1 // all
	}
	return &n
}

// parseDevice reads "/dev/fuse rw".
func parseDevice(text string) (path, access string, err error) {
	path, access, _ = strings.Cut(text, " ")
	if access == "" {
		access = "rwm"
	}
	if !strings.HasPrefix(path, "/") || strings.Trim(access, "rwm") != "" {
		return "", "", fmt.Errorf("%q: want the path of a device and what is allowed (r, w, m), such as /dev/fuse rw", text)
	}
	return path, access, nil
}

// hugePageSizes are as the kernel's cgroup files name them: 2MB, 1GB.
func hugePageSizes() ([]string, error) {
	entries, err := os.ReadDir("/sys/kernel/mm/hugepages")
	if err != nil {
		return nil, err
	}
	var sizes []string
	for _, e := range entries {
		kib, err := strconv.ParseUint(strings.TrimSuffix(strings.TrimPrefix(e.Name(), "hugepages-"), "kB"), 10, 64)
		switch {
		case err != nil:
		case kib >= 1<<20:
			sizes = append(sizes, strconv.FormatUint(kib>>20, 10)+"GB")
		case kib >= 1<<10:
			sizes = append(sizes, strconv.FormatUint(kib>>10, 10)+"MB")
		default:
			sizes = append(sizes, strconv.FormatUint(kib, 10)+"KB")
		}
	}
	return sizes, nil
}
