package main

import (
	"context"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	isolatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/isolator/v1"
	v1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
)

// nvidiaGPU is the kind of the devices that NVIDIA's tools describe. They have
// each GPU by its number, and by other names again.
const nvidiaGPU = "nvidia.com/gpu"

// gpus are those that tasks may be given, by their names in the Container Device
// Interface: the operator's, or NVIDIA's by their numbers. What describes them may
// be written after the plugin has started, so it is read each time.
func (p *plug) gpus() (names []string) {
	if len(p.config.GPUs) > 0 {
		return p.config.GPUs
	}
	p.refreshCDI()
	number := func(name string) int {
		text, found := strings.CutPrefix(name, nvidiaGPU+"=")
		if n, err := strconv.Atoi(text); found && err == nil && n >= 0 {
			return n
		}
		return -1
	}
	names = slices.DeleteFunc(p.cdi.ListDevices(), func(name string) bool { return number(name) < 0 })
	slices.SortFunc(names, func(a, b string) int { return number(a) - number(b) })
	return names
}

// wantedGPUs is how many of all a task's container is to be given.
func (p *plug) wantedGPUs(t *isolatorv1.Task) (wanted int, all []string, err error) {
	if !slices.ContainsFunc(t.GetResources(), func(r *v1.Resource) bool { return r.GetName() == "gpus" }) {
		return 0, nil, nil
	}
	all = p.gpus()
	wanted, err = p.WantedGPUs(t, len(all), "CDI devices "+nvidiaGPU+"=N, or gpu_devices")
	return wanted, all, err
}

// takeGPUs chooses the container's GPUs, before it is noted.
func (m *maker) takeGPUs(context.Context) error {
	wanted, all, err := m.wantedGPUs(m.r.GetTask())
	if err != nil {
		return err
	}
	return m.TakeGPUs(m.c, wanted, all)
}

// giveGPUs puts them into the container, with all that belongs to them.
func (m *maker) giveGPUs(context.Context) error {
	if len(m.c.GPUs) == 0 {
		return nil
	}
	m.refreshCDI()
	if _, err := m.cdi.InjectDevices(m.s, m.c.GPUs...); err != nil {
		return status.Errorf(codes.FailedPrecondition, "GPUs %s: %v", strings.Join(m.c.GPUs, ", "), err)
	}
	return nil
}

// unknownGPU is one of the operator's that nothing describes; "": all are known.
func (p *plug) unknownGPU() string {
	for _, name := range p.config.GPUs {
		if p.cdi.GetDevice(name) == nil {
			return name
		}
	}
	return ""
}

// refreshCDI reads the descriptions of devices anew. What is wrong in one file is
// no reason to be without the others.
func (p *plug) refreshCDI() {
	if err := p.cdi.Refresh(); err != nil {
		p.Logger.Warn("some CDI specifications cannot be read", "error", err)
	}
}
