package cgroup

import (
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"

	isolatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/isolator/v1"
)

const (
	cpuShares          = 1024 // a CPU
	revocableCPUShares = 10   // a CPU that may be taken back: runs when nothing else wants to
	minCPUShares       = 2    // the kernel's
	cpuPeriod          = 100_000
	minCPUQuota        = 1_000
	minMemory          = 32 << 20 // less does not hold a program's own start
	mebibyte           = 1 << 20
)

// Policy is how a task's resources become limits, by the operator's settings.
type Policy struct {
	Controllers []string
	CFSQuota    bool  // no more CPU time than was asked for, even on an idle host
	Swap        bool  // containers may swap
	PidsMax     int64 // processes and threads a container; 0: as many as the host
}

// Shares tells whether a container is limited together with its parent.
func Shares(t *isolatorv1.Task) bool { return t.GetParent() != "" && t.GetShareCgroups() }

// Amount adds up a task's scalar resource: all of it, and what of it is
// revocable.
func Amount(t *isolatorv1.Task, name string) (all, revocable float64) {
	for _, r := range t.GetResources() {
		if r.GetName() != name || r.GetScalar() == nil {
			continue
		}
		all += r.GetScalar().GetValue()
		if r.GetRevocable() != nil {
			revocable += r.GetScalar().GetValue()
		}
	}
	return all, revocable
}

// limitOf is a task's own limit: in thousandths, -1 for none at all, and
// whether it has one.
func limitOf(t *isolatorv1.Task, name string) (int64, bool) {
	for _, l := range t.GetLimits() {
		if l.GetName() == name {
			return l.GetThousandths(), true
		}
	}
	return 0, false
}

// Limit puts into a container's resources what those of its task come to.
func (p Policy) Limit(t *isolatorv1.Task, r *specs.LinuxResources) {
	if Shares(t) {
		r.CPU, r.Memory, r.Pids = nil, nil, nil // the parent's bind
		return
	}
	has := func(c string) bool { return slices.Contains(p.Controllers, c) }
	if all, revocable := Amount(t, "cpus"); has("cpu") && all > 0 {
		weight := uint64(max((all-revocable)*cpuShares+revocable*revocableCPUShares, minCPUShares))
		if r.CPU == nil {
			r.CPU = &specs.LinuxCPU{}
		}
		r.CPU.Shares = &weight
		period, quota := uint64(cpuPeriod), int64(-1)
		switch limit, ok := limitOf(t, "cpus"); {
		case ok && limit > 0:
			quota = max(limit*cpuPeriod/1000, minCPUQuota)
		case !ok && p.CFSQuota:
			quota = max(int64(all*cpuPeriod), minCPUQuota)
		}
		r.CPU.Quota, r.CPU.Period = &quota, &period
	}
	if all, _ := Amount(t, "mem"); has("memory") && all > 0 {
		request := max(int64(all*mebibyte), minMemory)
		hard := request
		if limit, ok := limitOf(t, "mem"); ok {
			hard = -1
			if limit >= 0 {
				hard = max(limit*mebibyte/1000, request)
			}
		}
		r.Memory = &specs.LinuxMemory{Limit: &hard}
		if hard != request {
			r.Memory.Reservation = &request
		}
		if !p.Swap && hard > 0 {
			swap := hard
			r.Memory.Swap = &swap
		}
	}
	if has("pids") && p.PidsMax > 0 && (r.Pids == nil || r.Pids.Limit == nil || *r.Pids.Limit <= 0) {
		most := p.PidsMax
		r.Pids = &specs.LinuxPids{Limit: &most}
	}
}
