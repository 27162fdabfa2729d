package main

import (
	"github.com/opencontainers/runtime-spec/specs-go"

	isolatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/isolator/v1"
)

// asked puts into the spec what a task's ContainerInfo asks of Linux:
// namespaces, capabilities, system calls, volumes; and what the agent's settings
// say of them. What cannot be given is refused.
func (p *cgroups) asked(t *isolatorv1.Task, sandbox string, s *specs.Spec) error {
	l := t.GetContainer().GetLinuxInfo()
	if err := p.askedNamespaces(t, s); err != nil {
		return err
	}
	if s.Process != nil {
		if err := p.giveCapabilities(l, s.Process); err != nil {
			return err
		}
		s.Process.NoNewPrivileges = s.Process.NoNewPrivileges || p.config.NoNewPrivs
		if err := p.filterOf(l.GetSeccomp(), s); err != nil {
			return err
		}
		s.Linux.MaskedPaths = append(s.Linux.MaskedPaths, p.config.Masked...)
		s.Linux.ReadonlyPaths = append(s.Linux.ReadonlyPaths, p.config.Readonly...)
	}
	for _, v := range t.GetContainer().GetVolumes() {
		m, err := p.Volume(v, t.GetParent(), sandbox, sandbox)
		if err != nil {
			return err
		}
		s.Mounts = append(s.Mounts, m)
	}
	if s.Process == nil {
		return nil
	}
	return p.privateTmp(sandbox, s)
}
