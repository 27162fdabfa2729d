// Package cgroup makes, limits, measures and removes the control groups of
// containers, on cgroup v1, v2, and v1 with v2 beside it (hybrid).
//
// A container's groups are named by a path below one root group, ID for a
// top-level container and PARENT/ID for one nested in it. On v2, where a group
// with controllers for its children may hold no process itself, a container's
// processes are in a leaf below its group.
//
// The package never touches a group that it did not make, except that on v2 it
// enables controllers for the root group's parents where they are missing.
package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Controllers that the package knows.
var Controllers = []string{"cpu", "memory", "pids", "cpuset", "io", "devices", "hugetlb", "net_cls"}

// v1Name is what a controller is called on v1.
func v1Name(controller string) string {
	if controller == "io" {
		return "blkio"
	}
	return controller
}

// Host is where on this host the groups of containers are made. It is safe for
// concurrent use.
type Host struct {
	root        string // the root group's name, no slash
	controllers []string
	// v1: the mount point of each controller's hierarchy.
	v1 map[string]string
	// v2: the directory below which the root group is, "" without v2. Beside
	// v1 it carries no controllers and serves to find and kill processes.
	v2 string
	// v2Mount is where the hierarchy is mounted.
	v2Mount string
	// v2Limits is whether the controllers are those of v2.
	v2Limits bool
}

// Detect finds out how groups can be made. The error says, for an operator,
// why limits cannot be enforced.
func Detect(root string, controllers []string) (*Host, error) {
	mounts, err := readMounts()
	if err != nil {
		return nil, err
	}
	h := &Host{root: root, controllers: controllers, v1: map[string]string{}}
	for _, c := range controllers {
		if dir, ok := mounts.v1[v1Name(c)]; ok {
			h.v1[v1Name(c)] = dir
		}
	}
	if len(h.v1) == 0 {
		if mounts.v2 == "" {
			return nil, errors.New("no cgroup file system is mounted")
		}
		h.v2Limits, h.v2Mount = true, mounts.v2
		if slices.Contains(controllers, "net_cls") {
			return nil, errors.New("cgroup controller net_cls is of cgroup v1 only, and not mounted; on v2 mark packets by the cgroup's path (nftables: socket cgroupv2)")
		}
		if slices.Contains(controllers, "devices") && os.Geteuid() != 0 {
			return nil, errors.New("cgroup v2 limits devices by programs in the kernel (eBPF), which only root can load")
		}
		h.v2, err = delegated(mounts.v2, v2Controllers(controllers))
		return h, err
	}
	for _, c := range controllers {
		if h.v1[v1Name(c)] == "" {
			return nil, fmt.Errorf("cgroup controller %s is not mounted, while others are (cgroup v1)", v1Name(c))
		}
		if err := writable(h.v1[v1Name(c)]); err != nil {
			return nil, err
		}
	}
	if slices.Contains(controllers, "cpu") && mounts.v1["cpuacct"] != "" {
		h.v1["cpuacct"] = mounts.v1["cpuacct"]
	}
	if mounts.v2 != "" && writable(mounts.v2) == nil {
		h.v2, h.v2Mount = mounts.v2, mounts.v2
	}
	if dir := mounts.v1["freezer"]; dir != "" && writable(dir) == nil {
		h.v1["freezer"] = dir
	}
	return h, nil
}

// perfEvent is the hierarchy by which the kernel counts events of cgroups. It
// limits nothing, and is that of v2 wherever v1 does not have it.
const perfEvent = "perf_event"

// AddPerf has the groups of containers in the hierarchy by which events are
// counted. It comes before any group is made. The error says, for an operator,
// why events cannot be counted.
func (h *Host) AddPerf() error {
	mounts, err := readMounts()
	if err != nil {
		return err
	}
	dir := mounts.v1[perfEvent]
	switch {
	case dir == "" && h.v2 != "":
		return nil
	case dir == "":
		return errors.New("cgroup hierarchy perf_event is not mounted: mount -t cgroup -o perf_event none /sys/fs/cgroup/perf_event")
	case h.v2Limits:
		return fmt.Errorf("cgroup hierarchy perf_event is mounted as one of cgroup v1 (%s), while the limits are those of v2: unmount it", dir)
	}
	if err := writable(dir); err != nil {
		return err
	}
	h.v1[perfEvent] = dir
	return nil
}

// PerfDir is the directory of a container's group by which its events are
// counted, and those of the containers in it.
//
// For "" it is the top of the hierarchy, not the root group: on v2 a group can
// count only once the one above it has given its children any controller, which
// Create does.
func (h *Host) PerfDir(path string) string {
	switch {
	case path == "" && h.v1[perfEvent] != "":
		return h.v1[perfEvent]
	case path == "":
		return h.v2
	case h.v1[perfEvent] != "":
		return h.v1Dir(perfEvent, path)
	}
	return h.v2Dir(path)
}

// v2Controllers are those that the hierarchy has: devices are limited by
// programs instead.
func v2Controllers(controllers []string) []string {
	return slices.DeleteFunc(slices.Clone(controllers), func(c string) bool { return c == "devices" })
}

// String says what was found: "v1", "v2" or "hybrid".
func (h *Host) String() string {
	switch {
	case h.v2Limits:
		return "v2"
	case h.v2 != "":
		return "hybrid"
	}
	return "v1"
}

func writable(dir string) error {
	if err := unix.Access(dir, unix.W_OK); err != nil {
		return fmt.Errorf("cgroup directory %s: %w", dir, err)
	}
	return nil
}

type mounts struct {
	v1 map[string]string
	v2 string
}

func readMounts() (mounts, error) {
	m := mounts{v1: map[string]string{}}
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return m, err
	}
	for line := range strings.Lines(string(text)) {
		before, after, ok := strings.Cut(line, " - ")
		place, kind := strings.Fields(before), strings.Fields(after)
		if !ok || len(place) < 5 || len(kind) < 3 {
			continue
		}
		dir := place[4]
		switch kind[0] {
		case "cgroup2":
			if m.v2 == "" {
				m.v2 = dir
			}
		case "cgroup":
			for _, option := range strings.Split(kind[2], ",") {
				if m.v1[option] == "" {
					m.v1[option] = dir
				}
			}
		}
	}
	return m, nil
}

// delegated returns the directory of the v2 hierarchy below which groups can
// be made with the controllers: for root the top; else the nearest ancestor of
// this process's group that belongs to the user and has them to give.
func delegated(mount string, controllers []string) (string, error) {
	if err := lacks(mount, controllers); err != nil {
		return "", err
	}
	if os.Geteuid() == 0 {
		return mount, writable(mount)
	}
	text, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return "", err
	}
	own := ""
	for line := range strings.Lines(string(text)) {
		if path, ok := strings.CutPrefix(line, "0::"); ok {
			own = strings.TrimSpace(path)
		}
	}
	for dir := filepath.Join(mount, own); strings.HasPrefix(dir, mount) && dir != mount; dir = filepath.Dir(dir) {
		// Moving a process needs the right to write in the common ancestor.
		if writable(dir) != nil || writable(filepath.Join(dir, "cgroup.procs")) != nil || lacks(dir, controllers) != nil {
			continue
		}
		if gives(dir, controllers) || enable(dir, controllers) == nil {
			return dir, nil
		}
	}
	return "", fmt.Errorf("no cgroup v2 subtree with controllers %s is delegated to user id %d (this process is in %s)",
		strings.Join(controllers, ", "), os.Geteuid(), own)
}

func lacks(dir string, controllers []string) error {
	text, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	if err != nil {
		return err
	}
	have := strings.Fields(string(text))
	for _, c := range controllers {
		if !slices.Contains(have, c) {
			return fmt.Errorf("cgroup controller %s is not available in %s (which has: %s)", c, dir, strings.Join(have, " "))
		}
	}
	return nil
}

func gives(dir string, controllers []string) bool {
	text, err := os.ReadFile(filepath.Join(dir, "cgroup.subtree_control"))
	have := strings.Fields(string(text))
	return err == nil && !slices.ContainsFunc(controllers, func(c string) bool { return !slices.Contains(have, c) })
}

func enable(dir string, controllers []string) error {
	return write(filepath.Join(dir, "cgroup.subtree_control"), "+"+strings.Join(controllers, " +"))
}

// write writes a control file, which must be there.
func write(path, text string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}
