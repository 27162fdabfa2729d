package main

import (
	"fmt"
	"os"
	"slices"
	"strconv"

	"github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	isolatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/isolator/v1"
	v1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
)

// ownNamespaces tells which namespaces a container has of its own: what its
// task says, else what the agent's setting says.
func (c *Config) ownNamespaces(l *v1.LinuxInfo) (pid, ipc bool, err error) {
	pid, ipc = slices.Contains(c.Namespaces, "pid"), slices.Contains(c.Namespaces, "ipc")
	if l != nil && l.SharePidNamespace != nil {
		pid = !l.GetSharePidNamespace()
	}
	switch l.GetIpcMode() {
	case v1.LinuxInfo_PRIVATE:
		ipc = true
	case v1.LinuxInfo_SHARE_PARENT:
		ipc = false
	}
	if l != nil && l.ShmSize != nil && !ipc {
		return false, false, status.Error(codes.InvalidArgument, "linux_info.shm_size is for a /dev/shm of its own: it needs ipc_mode PRIVATE")
	}
	return pid, ipc, nil
}

// askedNamespaces gives a container its own namespaces, and otherwise those of
// the container that it is nested in.
func (p *cgroups) askedNamespaces(t *isolatorv1.Task, s *specs.Spec) error {
	l := t.GetContainer().GetLinuxInfo()
	pid, ipc, err := p.config.ownNamespaces(l)
	if err != nil {
		return err
	}
	if t.GetSandboxOnly() {
		// It has no process that could hold any; each task of the group says
		// for itself what it wants.
		return nil
	}
	if pid {
		addNamespace(s, specs.PIDNamespace)
	}
	if ipc {
		addNamespace(s, specs.IPCNamespace)
		options := []string{"nosuid", "nodev", "noexec", "mode=1777"}
		if size := l.GetShmSize(); size > 0 {
			options = append(options, "size="+strconv.FormatUint(uint64(size), 10)+"m")
		}
		s.Mounts = append(s.Mounts, specs.Mount{Destination: "/dev/shm", Type: "tmpfs", Source: "shm", Options: options})
	}
	if t.GetParent() == "" {
		return nil
	}
	return p.parentNamespaces(t.GetParent(), s)
}

// parentNamespaces joins those that the parent has of its own and that the spec
// says nothing of. Mounts of the container are then made in a copy of the
// parent's.
func (p *cgroups) parentNamespaces(id string, s *specs.Spec) error {
	parent, err := p.Find(id)
	if err != nil {
		return status.Errorf(codes.FailedPrecondition, "its parent %s was not launched by isolator cgroups", id)
	}
	pid := parent.Pid()
	if pid == 0 {
		return nil
	}
	for _, n := range []struct {
		kind specs.LinuxNamespaceType
		name string
	}{{specs.PIDNamespace, "pid"}, {specs.IPCNamespace, "ipc"}, {specs.UTSNamespace, "uts"}, {specs.NetworkNamespace, "net"}, {specs.MountNamespace, "mnt"}} {
		if n.kind == specs.UTSNamespace && s.Hostname != "" {
			continue
		}
		path := fmt.Sprintf("/proc/%d/ns/%s", pid, n.name)
		theirs, err := os.Readlink(path)
		if err != nil {
			continue
		}
		if ours, err := os.Readlink("/proc/self/ns/" + n.name); err != nil || ours == theirs {
			continue
		}
		if !slices.ContainsFunc(s.Linux.Namespaces, func(have specs.LinuxNamespace) bool { return have.Type == n.kind }) {
			s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: n.kind, Path: path})
		}
	}
	if parent.Ended() {
		return status.Errorf(codes.FailedPrecondition, "its parent %s has ended", id)
	}
	return nil
}

func addNamespace(s *specs.Spec, kind specs.LinuxNamespaceType) {
	if !slices.ContainsFunc(s.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == kind }) {
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: kind})
	}
}

func isNew(s *specs.Spec, kind specs.LinuxNamespaceType) bool {
	return slices.ContainsFunc(s.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == kind && n.Path == "" })
}

// seesOwnProcesses mounts /proc where a container has a pid namespace of its
// own and none was asked for.
func seesOwnProcesses(s *specs.Spec) {
	if !isNew(s, specs.PIDNamespace) {
		return
	}
	addNamespace(s, specs.MountNamespace)
	if !slices.ContainsFunc(s.Mounts, func(m specs.Mount) bool { return m.Destination == "/proc" }) {
		s.Mounts = append(s.Mounts, specs.Mount{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}})
	}
}

// refuseNamespaces says why a task group's root cannot have what it asks for;
// "" when it asks for nothing of the kind.
func refuseNamespaces(t *isolatorv1.Task) string {
	l := t.GetContainer().GetLinuxInfo()
	if !t.GetSandboxOnly() || l == nil {
		return ""
	}
	if l.SharePidNamespace != nil && !l.GetSharePidNamespace() || l.GetIpcMode() == v1.LinuxInfo_PRIVATE {
		return "the executor of a task group has no process here that could hold a pid or ipc namespace; ask for them in the linux_info of the group's tasks"
	}
	return ""
}
