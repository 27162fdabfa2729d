package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/cgroups/v3/cgroup1"
	"github.com/containerd/cgroups/v3/cgroup2"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// leaf is where a container's own processes are on v2.
const leaf = ".leaf"

// Directories are those of one container that its shim works with.
type Directories struct {
	Join      []string // whose cgroup.procs the process is written to
	KillV2    []string // with cgroup.kill
	Freezers  []string // v1 freezer directories
	Trees     []string // others that hold all processes of the container
	MemoryV1  string   // where memory events show; one of the two, or none
	MemoryV2  string
	Ancestors []string // memory directories above, whose limits bind too
}

// Create makes a container's groups with the limits of resources. When it
// fails it has removed what it made. An existing group is used as it is.
func (h *Host) Create(path string, resources *specs.LinuxResources) (d Directories, err error) {
	if resources == nil {
		resources = &specs.LinuxResources{}
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("make cgroup %s: %w", h.group(path), err), h.Delete(path))
		}
	}()
	// Another plugin may remove the root group just as this one needs it.
	for try := 0; ; try++ {
		err = h.make(path, resources)
		if err == nil || try == 3 || !errors.Is(err, fs.ErrNotExist) {
			break
		}
	}
	if err != nil {
		return d, err
	}
	return h.Directories(path), nil
}

func (h *Host) make(path string, resources *specs.LinuxResources) error {
	if h.v2 != "" {
		if err := os.MkdirAll(h.v2Dir(path), 0o755); err != nil {
			return err
		}
	}
	if h.v1[perfEvent] != "" {
		if err := os.MkdirAll(h.v1Dir(perfEvent, path), 0o755); err != nil {
			return err
		}
	}
	if !h.v2Limits {
		if _, err := cgroup1.New(cgroup1.StaticPath(h.group(path)), h.v1Resources(resources), cgroup1.WithHierarchy(h.hierarchy)); err != nil {
			return err
		}
		return h.weigh(path, resources)
	}
	m, err := cgroup2.NewManager(h.v2Mount, h.relative(path), h.bare())
	if err != nil {
		return err
	}
	if err := os.Mkdir(filepath.Join(h.v2Dir(path), leaf), 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if more := v2Controllers(h.controllers); len(more) > 0 {
		if err := m.ToggleControllers(more, cgroup2.Enable); err != nil {
			return err
		}
	}
	r := h.v2Resources(path, resources)
	r.Devices = v2Devices(resources.Devices)
	if err := m.Update(r); err != nil {
		return err
	}
	return h.weigh(path, resources)
}

// group is the container's group in its hierarchy, for v1 and for messages.
func (h *Host) group(path string) string { return "/" + h.root + "/" + path }

// relative is the container's v2 group from the mount point.
func (h *Host) relative(path string) string {
	return strings.TrimPrefix(h.v2, strings.TrimSuffix(h.v2Mount, "/")) + h.group(path)
}

func (h *Host) v2Dir(path string) string { return h.v2 + h.group(path) }

func (h *Host) v1Dir(controller, path string) string { return h.v1[controller] + h.group(path) }

// Directories returns the directories of a container, which need not exist.
func (h *Host) Directories(path string) Directories {
	var d Directories
	if h.v2Limits {
		d.Join = []string{filepath.Join(h.v2Dir(path), leaf)}
		d.KillV2 = []string{h.v2Dir(path)}
		if slices.Contains(h.controllers, "memory") {
			d.MemoryV2 = h.v2Dir(path)
			for p := filepath.Dir(path); p != "."; p = filepath.Dir(p) {
				d.Ancestors = append(d.Ancestors, h.v2Dir(p))
			}
		}
		return d
	}
	for _, c := range h.v1Names() {
		d.Join = append(d.Join, h.v1Dir(c, path))
	}
	switch {
	case h.v2 != "":
		d.Join = append(d.Join, h.v2Dir(path))
		d.KillV2 = []string{h.v2Dir(path)}
	case h.v1["freezer"] != "":
		d.Freezers = []string{h.v1Dir("freezer", path)}
	default:
		d.Trees = []string{h.v1Dir(v1Name(h.controllers[0]), path)}
	}
	if h.v1["memory"] != "" {
		d.MemoryV1 = h.v1Dir("memory", path)
		for p := filepath.Dir(path); p != "."; p = filepath.Dir(p) {
			d.Ancestors = append(d.Ancestors, h.v1Dir("memory", p))
		}
	}
	return d
}

func (h *Host) v1Names() []string {
	names := make([]string, 0, len(h.v1))
	for c := range h.v1 {
		names = append(names, c)
	}
	slices.Sort(names)
	return names
}

// hierarchy is the library's list of v1 controllers, ours only. It has nothing to
// do for perf_event, which may be mounted where it does not look.
func (h *Host) hierarchy() ([]cgroup1.Subsystem, error) {
	all, err := cgroup1.Default()
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(all, func(s cgroup1.Subsystem) bool { return h.v1[string(s.Name())] == "" || s.Name() == perfEvent }), nil
}

// v1Resources leaves out what this kernel has no file for.
func (h *Host) v1Resources(r *specs.LinuxResources) *specs.LinuxResources {
	c := *r
	if c.Memory != nil && c.Memory.Swap != nil {
		if _, err := os.Stat(filepath.Join(h.v1["memory"], "memory.memsw.limit_in_bytes")); err != nil {
			m := *c.Memory
			m.Swap = nil
			c.Memory = &m
		}
	}
	c.BlockIO = unweighed(c.BlockIO)
	return &c
}

// bare enables the controllers and sets nothing.
func (h *Host) bare() *cgroup2.Resources {
	r := &cgroup2.Resources{}
	for _, c := range h.controllers {
		switch c {
		case "cpu":
			r.CPU = &cgroup2.CPU{}
		case "memory":
			r.Memory = &cgroup2.Memory{}
		case "pids":
			r.Pids = &cgroup2.Pids{}
		}
	}
	return r
}

// v2Resources translates. A CPU's weight is 100, so that as many as a group
// can have keep their proportions.
func (h *Host) v2Resources(path string, r *specs.LinuxResources) *cgroup2.Resources {
	out := h.bare()
	if out.CPU != nil && r.CPU != nil {
		if r.CPU.Shares != nil {
			weight := min(max(*r.CPU.Shares*100/1024, 1), 10000)
			out.CPU.Weight = &weight
		}
		if r.CPU.Quota != nil {
			quota := r.CPU.Quota
			if *quota <= 0 {
				quota = nil
			}
			out.CPU.Max = cgroup2.NewCPUMax(quota, r.CPU.Period)
		}
	}
	if out.Memory != nil && r.Memory != nil {
		out.Memory.Max, out.Memory.Low = atMost(r.Memory.Limit), r.Memory.Reservation
		if r.Memory.Swap != nil && r.Memory.Limit != nil && *r.Memory.Limit > 0 {
			swap := max(*r.Memory.Swap-*r.Memory.Limit, 0)
			if _, err := os.Stat(filepath.Join(h.v2Dir(path), "memory.swap.max")); err == nil {
				out.Memory.Swap = &swap
			}
		}
	}
	if out.Pids != nil && r.Pids != nil && r.Pids.Limit != nil {
		out.Pids.Max = *r.Pids.Limit
	}
	if r.CPU != nil && slices.Contains(h.controllers, "cpuset") {
		if out.CPU == nil {
			out.CPU = &cgroup2.CPU{}
		}
		out.CPU.Cpus, out.CPU.Mems = r.CPU.Cpus, r.CPU.Mems
	}
	if r.BlockIO != nil && slices.Contains(h.controllers, "io") {
		out.IO = &cgroup2.IO{Max: v2Throttles(r.BlockIO)}
	}
	if len(r.HugepageLimits) > 0 && slices.Contains(h.controllers, "hugetlb") {
		pages := cgroup2.HugeTlb{}
		for _, l := range r.HugepageLimits {
			pages = append(pages, cgroup2.HugeTlbEntry{HugePageSize: l.Pagesize, Limit: l.Limit})
		}
		out.HugeTlb = &pages
	}
	return out
}

// atMost turns "no limit" into a number that the kernel takes for "max".
func atMost(limit *int64) *int64 {
	if limit != nil && *limit < 0 {
		most := int64(math.MaxInt64)
		return &most
	}
	return limit
}

// Update changes the limits of a container, but not which devices it may use:
// for a moment it would have none.
func (h *Host) Update(path string, resources *specs.LinuxResources) error {
	if len(resources.Devices) > 0 {
		c := *resources
		c.Devices = nil
		resources = &c
	}
	if err := h.weigh(path, resources); err != nil {
		return err
	}
	if h.v2Limits {
		m, err := cgroup2.Load(h.relative(path), cgroup2.WithMountpoint(h.v2Mount))
		if err != nil {
			return err
		}
		return m.Update(h.v2Resources(path, resources))
	}
	g, err := cgroup1.Load(cgroup1.StaticPath(h.group(path)), cgroup1.WithHierarchy(h.hierarchy))
	if err != nil {
		return err
	}
	r := h.v1Resources(resources)
	if r.Memory != nil && r.Memory.Swap != nil {
		// The kernel wants it never below the other, which the library writes
		// first. It is too low for now only when the other is to be lowered.
		_ = write(h.v1Dir("memory", path)+"/memory.memsw.limit_in_bytes", strconv.FormatInt(*r.Memory.Swap, 10))
	}
	return g.Update(r)
}

// MemoryLimit is the container's own hard limit in bytes, 0 when it has none.
func (h *Host) MemoryLimit(path string) uint64 {
	file := h.v2Dir(path) + "/memory.max"
	if !h.v2Limits {
		file = h.v1Dir("memory", path) + "/memory.limit_in_bytes"
	}
	if n := number(file); n < 1<<60 {
		return n
	}
	return 0
}

// Processors are those that the root group has, as the kernel writes them: 0-3,8.
// Only with controller cpuset.
func (h *Host) Processors() (string, error) {
	dir, file := h.v2, "cpuset.cpus.effective"
	if !h.v2Limits {
		dir, file = h.v1["cpuset"], "cpuset.cpus"
	}
	text, err := os.ReadFile(filepath.Join(dir, file))
	return strings.TrimSpace(string(text)), err
}

// ParseList reads a list as the kernel writes it: 0-3,8.
func ParseList(text string) (list []int, err error) {
	for part := range strings.SplitSeq(strings.TrimSpace(text), ",") {
		first, last, isRange := strings.Cut(part, "-")
		from, err := strconv.Atoi(first)
		to := from
		if err == nil && isRange {
			to, err = strconv.Atoi(last)
		}
		if err != nil || to-from > math.MaxUint16 {
			return nil, fmt.Errorf("%q is no list of numbers and ranges", text)
		}
		for n := from; n <= to; n++ {
			list = append(list, n)
		}
	}
	slices.Sort(list)
	return slices.Compact(list), nil
}

// SetProcessors has a container run on certain processors only.
func (h *Host) SetProcessors(path, list string) error {
	dir := h.v2Dir(path)
	if !h.v2Limits {
		dir = h.v1Dir("cpuset", path)
	}
	return write(dir+"/cpuset.cpus", list)
}

// Root makes the root group where it is not there, and tells whether it did.
func (h *Host) Root() (made bool, err error) {
	for _, dir := range h.rootDirs() {
		err := os.Mkdir(dir, 0o755)
		if err == nil {
			made = true
		} else if !errors.Is(err, fs.ErrExist) {
			return made, err
		}
	}
	return made, nil
}

// DeleteRoot removes the root group where nothing is in it, and tells whether
// it is gone altogether.
func (h *Host) DeleteRoot() bool {
	gone := true
	for _, dir := range h.rootDirs() {
		if err := unix.Rmdir(dir); err != nil && err != unix.ENOENT {
			gone = false
		}
	}
	return gone
}

func (h *Host) rootDirs() []string {
	var dirs []string
	if h.v2 != "" {
		dirs = append(dirs, h.v2+"/"+h.root)
	}
	for _, c := range h.v1Names() {
		dirs = append(dirs, h.v1[c]+"/"+h.root)
	}
	return dirs
}

// dirs are all directories of a container.
func (h *Host) dirs(path string) []string {
	var dirs []string
	if h.v2 != "" {
		dirs = append(dirs, h.v2Dir(path))
	}
	for _, c := range h.v1Names() {
		dirs = append(dirs, h.v1Dir(c, path))
	}
	return dirs
}

// removePatience is how long a group may stay busy after its last process was
// killed.
const removePatience = 5 * time.Second

// Delete removes a container's groups and those below them. It is no error
// when there are none.
func (h *Host) Delete(path string) error {
	until := time.Now().Add(removePatience)
	for _, dir := range h.dirs(path) {
		for wait := time.Millisecond; ; wait = min(2*wait, 100*time.Millisecond) {
			err := removeTree(dir)
			if err == nil {
				break
			}
			if !errors.Is(err, unix.EBUSY) && !errors.Is(err, unix.EAGAIN) || time.Now().After(until) {
				return fmt.Errorf("remove cgroup %s: %w", dir, err)
			}
			time.Sleep(wait)
		}
	}
	return nil
}

// removeTree removes the deepest first; the files of a cgroup go with it.
func removeTree(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := removeTree(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	if err := unix.Rmdir(dir); err != nil && err != unix.ENOENT {
		return err
	}
	return nil
}

// Exists tells whether any group of the container is there.
func (h *Host) Exists(path string) bool {
	return slices.ContainsFunc(h.dirs(path), func(dir string) bool {
		_, err := os.Stat(dir)
		return err == nil
	})
}

// RuntimePath is where an OCI runtime puts the processes of a container whose
// groups Create has made.
func (h *Host) RuntimePath(path string) string {
	if h.v2Limits {
		return h.relative(path) + "/" + leaf
	}
	return h.group(path)
}

// Sweep removes a container's group, and those below it, in every hierarchy of
// this host where nothing is in them: an OCI runtime makes them also where there
// are no limits.
func (h *Host) Sweep(path string) {
	everywhere(func(mount string) { _ = removeTree(filepath.Join(mount, h.RuntimePath(path))) })
}

// SweepRoot is Sweep for the root group.
func (h *Host) SweepRoot() {
	everywhere(func(mount string) { _ = unix.Rmdir(filepath.Join(mount, h.root)) })
}

func everywhere(do func(mount string)) {
	m, err := readMounts()
	if err != nil {
		return
	}
	for _, dir := range slices.Compact(slices.Sorted(maps.Values(m.v1))) {
		do(dir)
	}
	if m.v2 != "" {
		do(m.v2)
	}
}
