package main

import (
	"cmp"
	"context"
	"slices"
	"strings"

	containerdapparmor "github.com/containerd/containerd/v2/contrib/apparmor"
	containerdseccomp "github.com/containerd/containerd/v2/contrib/seccomp"
	"github.com/containerd/containerd/v2/pkg/apparmor"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/mezzo-os/mezzo/plugins/internal/seccomp"
	isolatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/isolator/v1"
)

// unconfined is the name of no profile at all.
const unconfined = "unconfined"

// security reads one of a task's security options: "seccomp=NAME".
func security(t *isolatorv1.Task, name string) string {
	for _, text := range t.GetOptions().GetSecurity() {
		if value, ok := strings.CutPrefix(text, name+"="); ok {
			return value
		}
		if value, ok := strings.CutPrefix(text, name+":"); ok {
			return value
		}
	}
	return ""
}

// privileges are what the process may do: capabilities, system calls, devices.
func (b *builder) privileges(ctx context.Context) error {
	if b.task.GetSandboxOnly() {
		b.spec.Linux.Seccomp = containerdseccomp.DefaultProfile(b.spec)
		return nil
	}
	for _, text := range b.task.GetOptions().GetSecurity() {
		name, _, _ := strings.Cut(strings.Replace(text, ":", "=", 1), "=")
		if !slices.Contains([]string{"seccomp", "apparmor", "no-new-privileges"}, name) {
			return status.Errorf(codes.InvalidArgument, "security option %q is none of: seccomp=NAME, apparmor=NAME, no-new-privileges", text)
		}
	}
	process := b.spec.Process
	process.NoNewPrivileges = process.NoNewPrivileges || b.config.NoNewPrivs ||
		slices.ContainsFunc(b.task.GetOptions().GetSecurity(), func(s string) bool {
			return s == "no-new-privileges" || s == "no-new-privileges=true" || s == "no-new-privileges:true"
		})
	if b.given.Process.Capabilities == nil {
		c, err := b.capabilities(b.task)
		if err != nil {
			return err
		}
		process.Capabilities = &specs.LinuxCapabilities{Bounding: c.bounding, Effective: c.effective, Permitted: c.effective}
		if c.asked { // a user other than root has them too, past the start of a program
			process.Capabilities.Inheritable, process.Capabilities.Ambient = c.effective, c.effective
		}
	}
	if b.task.GetOptions().GetPrivileged() {
		return b.privileged(ctx)
	}
	if err := b.filter(); err != nil {
		return err
	}
	return b.confine()
}

// privileged takes the walls away that are not namespaces.
func (b *builder) privileged(ctx context.Context) error {
	b.spec.Linux.Seccomp, b.spec.Process.ApparmorProfile = b.given.Linux.Seccomp, b.given.Process.ApparmorProfile
	return oci.ApplyOpts(ctx, nil, nil, b.spec, oci.WithMaskedPaths(nil), oci.WithReadonlyPaths(nil), oci.WithWriteableSysfs,
		oci.WithWriteableCgroupfs, oci.WithAllDevicesAllowed, oci.WithHostDevices)
}

// filter is the profile of system calls: an isolator's before, the task's, or
// the agent's. It comes after the capabilities, on which the default depends.
func (b *builder) filter() error {
	asked := b.task.GetContainer().GetLinuxInfo().GetSeccomp()
	name := b.config.Seccomp
	if n := security(b.task, "seccomp"); n != "" {
		name = n
	}
	switch {
	case asked.GetUnconfined() && asked.ProfileName != nil:
		return status.Error(codes.InvalidArgument, "linux_info.seccomp asks for a profile and for none: give profile_name or unconfined")
	case asked.GetUnconfined():
		name = unconfined
	case asked.GetProfileName() != "":
		name = asked.GetProfileName()
	}
	switch {
	case b.given.Linux.Seccomp != nil:
		b.spec.Linux.Seccomp = b.given.Linux.Seccomp
	case name == unconfined:
	case name == seccomp.Default:
		b.spec.Linux.Seccomp = containerdseccomp.DefaultProfile(b.spec)
	default:
		profile, err := seccomp.Named(b.config.SeccompDir, name, b.spec.Process.Capabilities.Bounding)
		if err != nil {
			return status.Error(codes.InvalidArgument, err.Error())
		}
		b.spec.Linux.Seccomp = profile
	}
	return nil
}

// defaultProfile is the AppArmor profile of containers that ask for none; it is
// Docker's, under a name of our own.
const defaultProfile = "mezzo-default"

// armour is what the host has of AppArmor.
type armour struct {
	present bool
	load    func(name string) error // gives the kernel the default profile, where it has not got it
}

func hostArmour() armour {
	return armour{apparmor.HostSupports(), containerdapparmor.LoadDefaultProfile}
}

// unarmoured says why a task cannot have the AppArmor profile that it asks for;
// "" when it can.
func (p *plug) unarmoured(t *isolatorv1.Task) string {
	if name := security(t, "apparmor"); name != "" && name != unconfined && !p.armour.present {
		return "the task asks for AppArmor profile " + name + ", and this agent's host has no AppArmor"
	}
	return ""
}

// confine chooses the AppArmor profile, on a host that has AppArmor.
func (b *builder) confine() error {
	name := cmp.Or(security(b.task, "apparmor"), b.config.AppArmor)
	why := b.unarmoured(b.task)
	switch {
	case b.given.Process.ApparmorProfile != "" || name == unconfined:
		return nil
	case why != "":
		return status.Error(codes.InvalidArgument, why)
	case !b.armour.present:
		return nil
	case name != "":
		b.spec.Process.ApparmorProfile = name
		return nil
	}
	if err := b.armour.load(defaultProfile); err != nil {
		return status.Errorf(codes.FailedPrecondition, "the default AppArmor profile cannot be loaded: %v; set apparmor_profile", err)
	}
	b.spec.Process.ApparmorProfile = defaultProfile
	return nil
}
