package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/mezzo-os/mezzo/plugins/isolator-cgroups/record"
	"github.com/mezzo-os/mezzo/plugins/isolator-cgroups/seccomp"
	v1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
)

// parseCapabilities reads names with or without CAP_. The one word "none" is no
// capability; no word at all is nil.
func parseCapabilities(names []string) ([]string, error) {
	if len(names) == 0 {
		return nil, nil
	}
	list := []string{}
	for _, text := range names {
		if strings.EqualFold(text, "none") && len(names) == 1 {
			return list, nil
		}
		name := "CAP_" + strings.TrimPrefix(strings.ToUpper(text), "CAP_")
		if !slices.Contains(capabilityNames, name) {
			return nil, fmt.Errorf("%q is no capability", text)
		}
		list = append(list, name)
	}
	return list, nil
}

// firstCapability is the number of CAP_CHOWN in CapabilityInfo.
const firstCapability = 1000

// capabilityList is what a task asks for; nil when it asks for nothing.
func capabilityList(info *v1.CapabilityInfo) ([]string, error) {
	if info == nil {
		return nil, nil
	}
	names := []string{}
	for _, c := range info.GetCapabilities() {
		i := int(c) - firstCapability
		if i < 0 || i >= len(capabilityNames) {
			return nil, status.Errorf(codes.InvalidArgument, "unknown capability %v", c)
		}
		names = append(names, capabilityNames[i])
	}
	return names, nil
}

// capabilities decides between what the task asks for and what the operator
// gives: nil when neither says anything. Of the task's two sets, the one that
// is not given follows the other.
func (c *Config) capabilities(l *v1.LinuxInfo) (effective, bounding []string, err error) {
	most, err := parseCapabilities(c.Bounding)
	if err != nil {
		return nil, nil, err
	}
	asked := l.GetEffectiveCapabilities()
	if asked == nil {
		asked = l.GetCapabilityInfo()
	}
	if effective, err = capabilityList(asked); err != nil {
		return nil, nil, err
	}
	if bounding, err = capabilityList(l.GetBoundingCapabilities()); err != nil {
		return nil, nil, err
	}
	switch {
	case effective == nil && bounding == nil:
		if effective, err = parseCapabilities(c.Effective); err != nil {
			return nil, nil, err
		}
		if bounding = most; bounding == nil {
			bounding = effective
		}
		if effective == nil {
			effective = bounding
		}
	case bounding == nil:
		bounding = effective
	case effective == nil:
		effective = bounding
	}
	for _, name := range effective {
		if !slices.Contains(bounding, name) {
			return nil, nil, status.Errorf(codes.InvalidArgument, "%s is among the effective capabilities but not among the bounding ones", name)
		}
	}
	for _, name := range bounding {
		if most != nil && !slices.Contains(most, name) {
			return nil, nil, status.Errorf(codes.InvalidArgument, "the task asks for capability %s, which this agent's bounding_capabilities do not have", name)
		}
	}
	return effective, bounding, nil
}

// giveCapabilities puts them into the process. A user other than root has them
// as ambient ones, so that they outlast the start of a program.
func (p *cgroups) giveCapabilities(l *v1.LinuxInfo, process *specs.Process) error {
	effective, bounding, err := p.config.capabilities(l)
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

// profilePath is the file of a profile by its name, which leads nowhere else.
func (c *Config) profilePath(name string) (string, error) {
	switch {
	case c.SeccompDir == "":
		return "", fmt.Errorf("%q: no seccomp_dir is set that could have it", name)
	case !filepath.IsLocal(name):
		return "", fmt.Errorf("%q leads out of seccomp_dir; give a name in it", name)
	}
	return filepath.Join(c.SeccompDir, name), nil
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
	if name != seccomp.Default {
		path, err := p.config.profilePath(name)
		if err != nil {
			return status.Errorf(codes.InvalidArgument, "seccomp profile %v", err)
		}
		name = path
	}
	profile, err := seccomp.Load(name, boundingOf(s.Process))
	if errors.Is(err, fs.ErrNotExist) {
		return status.Errorf(codes.InvalidArgument, "there is no seccomp profile %s on this agent", name)
	}
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
		return capabilityNames
	}
	return nil
}

// wallRecord says what binds every process in the container, those of Exec
// too.
func wallRecord(r *record.Record, s *specs.Spec) error {
	if s.Process.NoNewPrivileges {
		r.AddInt(record.NoNewPriv, 1)
	}
	if err := capabilityRecord(r, s.Process.Capabilities); err != nil {
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

// addWalls gives a process that is started in the container what binds the
// container's own. What it says itself stays.
func (c *container) addWalls(r *record.Record) error {
	walls, err := record.Read(c.file(record.WallsFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil // made by an earlier build, or without a process
	}
	if err != nil {
		return err
	}
	for _, f := range walls {
		if !r.Has(f.Key) {
			*r = append(*r, f)
		}
	}
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
			if source, err = inSandbox(sandbox, "tmp"); err == nil {
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
