package main

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/mezzo-os/mezzo/plugins/internal/cgroup"
	"github.com/mezzo-os/mezzo/plugins/internal/holder"
	isolatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/isolator/v1"
)

// Processors and GPUs that one container has, and no other meanwhile. Which ones
// is in the container's note (metaFile) before anything of it is made, and they
// are given back when it is cleaned up.

// gpu is one that tasks may be given.
type gpu struct {
	path   string
	name   string // as NVIDIA_VISIBLE_DEVICES has it: a number
	device specs.LinuxDeviceCgroup
}

// gpuControls are devices of the driver that whoever has a GPU needs.
var gpuControls = []string{"/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools", "/dev/nvidia-modeset"}

// findGPUs finds the GPUs of the host: those of the settings, or NVIDIA's.
func (p *cgroups) findGPUs() (list []gpu, controls []specs.LinuxDeviceCgroup, err error) {
	paths := p.config.GPUs
	if len(paths) == 0 {
		paths, _ = filepath.Glob("/dev/nvidia[0-9]*")
		slices.SortFunc(paths, func(a, b string) int { return gpuNumber(a) - gpuNumber(b) })
	}
	for i, path := range paths {
		device, err := deviceOf(path)
		if err != nil {
			return nil, nil, err
		}
		name := strconv.Itoa(i)
		if n := gpuNumber(path); n >= 0 {
			name = strconv.Itoa(n)
		}
		list = append(list, gpu{path, name, device})
	}
	for _, path := range gpuControls {
		if device, err := deviceOf(path); err == nil && len(list) > 0 {
			controls = append(controls, device)
		}
	}
	return list, controls, nil
}

// gpuNumber is N of /dev/nvidiaN; -1: the path is another.
func gpuNumber(path string) int {
	text, found := strings.CutPrefix(path, "/dev/nvidia")
	n, err := strconv.Atoi(text)
	if !found || err != nil {
		return -1
	}
	return n
}

func deviceOf(path string) (d specs.LinuxDeviceCgroup, err error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return d, fmt.Errorf("%s: %w", path, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFCHR {
		return d, fmt.Errorf("%s: it is no character device", path)
	}
	major, minor := int64(unix.Major(st.Rdev)), int64(unix.Minor(st.Rdev))
	return specs.LinuxDeviceCgroup{Allow: true, Type: "c", Major: &major, Minor: &minor, Access: "rw"}, nil
}

// wantedGPUs is how many a task's container is to be given.
func (p *cgroups) wantedGPUs(t *isolatorv1.Task) (int, error) {
	return p.WantedGPUs(t, len(p.settings.gpus), "/dev/nvidia*, or gpu_devices")
}

// assign gives a container its own processors and GPUs. The lock is
// held.
func (p *cgroups) assign(c *holder.Container, t *isolatorv1.Task, s *specs.Spec) error {
	if err := p.assignGPUs(c, t, s); err != nil {
		return err
	}
	if p.Host == nil || !slices.Contains(p.config.Controllers, "cpuset") || len(p.settings.processors) == 0 || cgroup.Shares(t) {
		return nil
	}
	if cpu := s.Linux.Resources.CPU; cpu != nil && cpu.Cpus != "" && cpu.Cpus != p.config.CPUs {
		c.Placed = true
		return nil
	}
	own := p.chooseProcessors(t)
	c.CPUs = own
	if len(own) == 0 {
		own = p.sharedProcessors()
		if len(own) == len(p.settings.processors) {
			return nil // it may have all that the settings say
		}
	}
	if s.Linux.Resources.CPU == nil {
		s.Linux.Resources.CPU = &specs.LinuxCPU{}
	}
	s.Linux.Resources.CPU.Cpus = formatNumbers(own)
	return nil
}

func (p *cgroups) assignGPUs(c *holder.Container, t *isolatorv1.Task, s *specs.Spec) error {
	r := s.Linux.Resources
	walled := p.Host != nil && slices.Contains(p.config.Controllers, "devices")
	allow := func(list ...specs.LinuxDeviceCgroup) {
		if walled {
			r.Devices = append(r.Devices, list...)
		}
	}
	if t.GetSandboxOnly() { // no process is in it, and what is nested in it may have what it may
		for _, g := range p.settings.gpus {
			allow(g.device)
		}
		allow(p.settings.gpuControls...)
		return nil
	}
	wanted, err := p.wantedGPUs(t)
	if err != nil || wanted == 0 || s.Process == nil {
		return err
	}
	paths := make([]string, len(p.settings.gpus))
	for i, g := range p.settings.gpus {
		paths[i] = g.path
	}
	if err := p.TakeGPUs(c, wanted, paths); err != nil {
		return err
	}
	var names []string
	for _, g := range p.settings.gpus {
		if slices.Contains(c.GPUs, g.path) {
			names = append(names, g.name)
			allow(g.device)
		}
	}
	allow(p.settings.gpuControls...)
	s.Process.Env = append(s.Process.Env, "NVIDIA_VISIBLE_DEVICES="+strings.Join(names, ","))
	return nil
}

// chooseProcessors finds processors of its own for a task that asks for whole
// ones; none when it has to share. One processor is always shared. The lock is
// held.
func (p *cgroups) chooseProcessors(t *isolatorv1.Task) []int {
	asked, revocable := cgroup.Amount(t, "cpus")
	if !p.config.ExclusiveCPUs || t.GetTaskId() == "" || t.GetParent() != "" || revocable > 0 || asked < 1 || asked != math.Trunc(asked) {
		return nil
	}
	free := p.sharedProcessors()
	if int(asked) >= len(free) {
		p.Logger.Warn("a task asks for whole processors, and shares them: too few are left", "task_id", t.GetTaskId(), "asked", asked, "shared", len(free))
		return nil
	}
	return slices.Clone(free[len(free)-int(asked):])
}

// sharedProcessors are those that no container has to itself. The lock is held.
func (p *cgroups) sharedProcessors() []int {
	return slices.DeleteFunc(slices.Clone(p.settings.processors), func(n int) bool {
		for _, c := range p.All() {
			if slices.Contains(c.CPUs, n) {
				return true
			}
		}
		return false
	})
}

// processorsFor is the processors of a container that runs, for an update of its
// limits; "": those of the settings. The lock is held.
func (p *cgroups) processorsFor(c *holder.Container) string {
	if len(c.CPUs) > 0 {
		return formatNumbers(c.CPUs)
	}
	if c.Placed {
		return ""
	}
	if shared := p.sharedProcessors(); len(shared) < len(p.settings.processors) {
		return formatNumbers(shared)
	}
	return ""
}

// rebalance has all containers without processors of their own run on those that
// are shared. The lock is held.
func (p *cgroups) rebalance() {
	text := formatNumbers(p.sharedProcessors())
	var groups []string
	for _, c := range p.All() {
		if len(c.CPUs) == 0 && !c.Placed && c.Group != "" {
			groups = append(groups, c.Group)
		}
	}
	// On cgroup v1 a group may have no processor that the one above it has not: so
	// the lowest are the first to have fewer, and the last to have more.
	slices.SortFunc(groups, func(a, b string) int { return strings.Count(a, "/") - strings.Count(b, "/") })
	for _, g := range slices.Backward(groups) {
		_ = p.Host.SetProcessors(g, text)
	}
	for _, g := range groups {
		if err := p.Host.SetProcessors(g, text); err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENODEV) {
			p.Logger.Warn("a container may still run on the processors of another", "cgroup", g, "error", err)
		}
	}
}

// removed gives back what a container had to itself.
func (p *cgroups) removed(c *holder.Container) {
	if len(c.CPUs) == 0 || len(p.settings.processors) == 0 {
		return
	}
	p.assigning.Lock()
	defer p.assigning.Unlock()
	p.rebalance()
}

// findProcessors are those that containers may run on.
func (p *cgroups) findProcessors() ([]int, error) {
	text := p.config.CPUs
	if text == "" {
		all, err := p.Host.Processors()
		if err != nil {
			return nil, err
		}
		text = all
	}
	return cgroup.ParseList(text)
}

func formatNumbers(list []int) string {
	texts := make([]string, len(list))
	for i, n := range list {
		texts[i] = strconv.Itoa(n)
	}
	return strings.Join(texts, ",")
}

// gpuSettings are a part of provide.
func (p *cgroups) gpuSettings() error {
	var err error
	p.settings.gpus, p.settings.gpuControls, err = p.findGPUs()
	if err == nil && len(p.settings.gpus) > 0 && (p.Host == nil || !slices.Contains(p.config.Controllers, "devices")) {
		p.Logger.Warn("tasks can use GPUs that they were not given: add \"devices\" to controllers", "gpus", len(p.settings.gpus), "root", os.Geteuid() == 0)
	}
	return err
}
