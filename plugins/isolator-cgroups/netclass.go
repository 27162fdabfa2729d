package main

import (
	"strconv"

	"github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// classify gives a container the next free class of its own. A container that
// is limited together with its parent has the parent's.
func (p *cgroups) classify(c *container, r *specs.LinuxResources) error {
	if p.config.NetClass == 0 || p.host == nil || r.Network != nil && r.Network.ClassID != nil {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	taken := map[uint32]bool{}
	for _, other := range p.containers {
		taken[other.class] = true
	}
	const minors = 65535
	for range minors {
		p.lastClass = p.lastClass%minors + 1
		if class := uint32(p.config.NetClass)<<16 | p.lastClass; !taken[class] {
			c.class = class
			if r.Network == nil {
				r.Network = &specs.LinuxNetwork{}
			}
			r.Network.ClassID = &class
			return nil
		}
	}
	return status.Errorf(codes.ResourceExhausted, "all %d network classes of %d are in use", minors, p.config.NetClass)
}

func parseClass(text string) uint32 {
	n, _ := strconv.ParseUint(text, 10, 32)
	return uint32(n)
}
