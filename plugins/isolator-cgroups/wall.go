package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/mezzo-os/mezzo/plugins/internal/capability"
	"github.com/mezzo-os/mezzo/plugins/internal/holder"
	"github.com/mezzo-os/mezzo/plugins/internal/record"
	"github.com/mezzo-os/mezzo/plugins/internal/seccomp"
	v1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
)

// capabilities are the operator's settings of them.
func (c *Config) capabilities() capability.Policy {
	return capability.Policy{Effective: c.Effective, Bounding: c.Bounding}
}

// giveCapabilities puts them into the process. A user other than root has them
// as ambient ones, so that they outlast the start of a program.
func (p *cgroups) giveCapabilities(l *v1.LinuxInfo, process *specs.Process) error {
	effective, bounding, err := p.config.capabilities().Of(l)
	if err != nil || bounding == nil {
		return err
	}
	process.Capabilities = &specs.LinuxCapabilities{Bounding: bounding, Effective: effective, Permitted: effective, Inheritable: effective}
	if process.User.UID != 0 {
		// What only the agent's setting gives is for root: a user's task is not
		// to have more than the user.
		if l.GetEffectiveCapabilities() == nil && l.GetCapabilityInfo() == nil && l.GetBoundingCapabilities() == nil && len(p.config.Effective) == 0 {
			process.Capabilities = &specs.LinuxCapabilities{Bounding: bounding}
			return nil
		}
		process.Capabilities.Ambient = effective
	}
	return nil
}

// filterOf puts the profile of system calls into the spec: the task's, or the
// agent's.
func (p *cgroups) filterOf(asked *v1.SeccompInfo, s *specs.Spec) error {
	name := p.config.Seccomp
	switch {
	case asked.GetUnconfined() && asked.ProfileName != nil:
		return status.Error(codes.InvalidArgument, "linux_info.seccomp asks for a profile and for none: give profile_name or unconfined")
	case asked.GetUnconfined():
		return nil
	case asked.GetProfileName() != "":
		name = asked.GetProfileName()
	}
	if name == "" || s.Linux.Seccomp != nil {
		return nil
	}
	profile, err := seccomp.Named(p.config.SeccompDir, name, boundingOf(s.Process))
	if err != nil {
		return status.Error(codes.InvalidArgument, err.Error())
	}
	s.Linux.Seccomp = profile
	return nil
}

// boundingOf is what a process may have, for rules that depend on it.
func boundingOf(process *specs.Process) []string {
	switch {
	case process.Capabilities != nil:
		return process.Capabilities.Bounding
	case process.User.UID == 0:
		return capability.Names
	}
	return nil
}

// wallRecord says what binds every process in the container, those of Exec
// too.
func wallRecord(r *record.Record, s *specs.Spec) error {
	if s.Process.NoNewPrivileges {
		r.AddInt(record.NoNewPriv, 1)
	}
	if err := holder.CapabilityRecord(r, s.Process.Capabilities); err != nil {
		return err
	}
	if s.Linux == nil || s.Linux.Seccomp == nil {
		return nil
	}
	program, err := seccomp.Compile(s.Linux.Seccomp)
	if err != nil {
		return status.Errorf(codes.InvalidArgument, "seccomp profile: %v", err)
	}
	var text strings.Builder
	for _, i := range program {
		fmt.Fprintf(&text, "%04x%02x%02x%08x", i.Op, i.Jt, i.Jf, i.K)
	}
	r.Add(record.Seccomp, text.String())
	return nil
}

// privateTmp mounts the sandbox's directory tmp over the host's.
func (p *cgroups) privateTmp(sandbox string, s *specs.Spec) error {
	if !p.config.PrivateTmp || sandbox == "" {
		return nil
	}
	source := ""
	for _, target := range []string{"/tmp", "/var/tmp"} {
		if strings.HasPrefix(sandbox, target+"/") {
			return status.Errorf(codes.FailedPrecondition, "private_tmp cannot be: the sandbox %s is itself below %s; set another work_dir", sandbox, target)
		}
		if info, err := os.Stat(target); err != nil || !info.IsDir() ||
			slices.ContainsFunc(s.Mounts, func(m specs.Mount) bool { return filepath.Clean(m.Destination) == target }) {
			continue
		}
		if source == "" {
			var err error
			if source, err = holder.InSandbox(sandbox, "tmp"); err == nil {
				err = openToAll(sandbox, "tmp")
			}
			if err != nil {
				return status.Errorf(codes.FailedPrecondition, "private_tmp: %v", err)
			}
		}
		s.Mounts = append(s.Mounts, specs.Mount{Destination: target, Type: "bind", Source: source, Options: []string{"bind", "nosuid", "nodev"}})
	}
	return nil
}

// openToAll makes a directory of the sandbox one that everybody may write in,
// as the host's /tmp is.
func openToAll(sandbox, path string) error {
	root, err := os.OpenRoot(sandbox)
	if err != nil {
		return err
	}
	defer root.Close()
	return root.Chmod(path, os.ModeSticky|0o777)
}
