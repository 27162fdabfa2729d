package main

import (
	"github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/mezzo-os/mezzo/plugins/internal/holder"
)

// classify gives a container the next free class of its own. A container that
// is limited together with its parent has the parent's.
func (p *cgroups) classify(c *holder.Container, r *specs.LinuxResources) error {
	if p.config.NetClass == 0 || p.Host == nil || r.Network != nil && r.Network.ClassID != nil {
		return nil
	}
	p.classing.Lock()
	defer p.classing.Unlock()
	taken := map[uint32]bool{}
	for _, other := range p.All() {
		taken[other.Class] = true
	}
	const minors = 65535
	for range minors {
		p.lastClass = p.lastClass%minors + 1
		if class := uint32(p.config.NetClass)<<16 | p.lastClass; !taken[class] {
			c.Class = class
			if r.Network == nil {
				r.Network = &specs.LinuxNetwork{}
			}
			r.Network.ClassID = &class
			return nil
		}
	}
	return status.Errorf(codes.ResourceExhausted, "all %d network classes of %d are in use", minors, p.config.NetClass)
}
