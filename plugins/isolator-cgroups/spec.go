package main

import (
	"encoding/json"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/mezzo-os/mezzo/plugins/internal/record"
	isolatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/isolator/v1"
)

// parseSpec reads an OCI runtime specification and refuses what this isolator
// would have to leave out.
func parseSpec(text []byte) (*specs.Spec, error) {
	var s specs.Spec
	if err := json.Unmarshal(text, &s); err != nil {
		return nil, status.Errorf(codes.InvalidArgument, "the container's spec is not an OCI runtime spec: %v", err)
	}
	var unable []string
	if s.Root != nil && s.Root.Path != "" && filepath.Clean(s.Root.Path) != "/" {
		unable = append(unable, "a root file system of its own")
	}
	if s.Hooks != nil {
		unable = append(unable, "hooks")
	}
	if p := s.Process; p != nil && (p.ApparmorProfile != "" || p.SelinuxLabel != "") {
		unable = append(unable, "AppArmor or SELinux labels")
	}
	if l := s.Linux; l != nil {
		if len(l.Devices) > 0 {
			unable = append(unable, "devices")
		}
		for _, n := range l.Namespaces {
			if _, ok := namespaceFlags[n.Type]; !ok {
				unable = append(unable, "a namespace of type "+string(n.Type))
			}
		}
	}
	if len(unable) > 0 {
		return nil, status.Errorf(codes.InvalidArgument, "isolator cgroups cannot give a container %s", strings.Join(unable, ", nor "))
	}
	return &s, nil
}

var namespaceFlags = map[specs.LinuxNamespaceType]int{
	specs.PIDNamespace:     unix.CLONE_NEWPID,
	specs.MountNamespace:   unix.CLONE_NEWNS,
	specs.IPCNamespace:     unix.CLONE_NEWIPC,
	specs.UTSNamespace:     unix.CLONE_NEWUTS,
	specs.NetworkNamespace: unix.CLONE_NEWNET,
	specs.CgroupNamespace:  unix.CLONE_NEWCGROUP,
}

// limitsOf puts into the spec what the task's resources come to, and what the
// operator's settings do.
func (p *cgroups) limitsOf(t *isolatorv1.Task, r *specs.LinuxResources) {
	policy := p.config.Policy(p.config.Controllers)
	policy.Limit(t, r)
	p.limit(t, r)
}

// amend makes the changes of Prepare.
func (p *cgroups) amend(id, sandbox string, t *isolatorv1.Task, s *specs.Spec) error {
	if s.Linux == nil {
		s.Linux = &specs.Linux{}
	}
	if err := p.asked(t, sandbox, s); err != nil {
		return err
	}
	if p.Host != nil {
		path, err := p.Group(id, t.GetParent())
		if err != nil {
			return err
		}
		s.Linux.CgroupsPath = "/" + p.config.Root + "/" + path
		if s.Linux.Resources == nil {
			s.Linux.Resources = &specs.LinuxResources{}
		}
		p.limitsOf(t, s.Linux.Resources)
	}
	if len(s.Mounts)+len(s.Linux.MaskedPaths)+len(s.Linux.ReadonlyPaths) > 0 {
		addNamespace(s, specs.MountNamespace) // they are not the host's to see
	}
	seesOwnProcesses(s)
	if s.Hostname != "" {
		addNamespace(s, specs.UTSNamespace) // nor is the name
	}
	if s.Process != nil {
		addGroups(t, s.Process)
	}
	if os.Geteuid() != 0 && len(s.Linux.Namespaces) > 0 {
		return status.Error(codes.FailedPrecondition, "namespaces and mounts need an agent that runs as root")
	}
	return nil
}

// addGroups gives the user's own supplementary groups when the spec has none.
func addGroups(t *isolatorv1.Task, process *specs.Process) {
	if t.GetUser() == "" || len(process.User.AdditionalGids) > 0 || os.Geteuid() != 0 {
		return
	}
	u, err := user.Lookup(t.GetUser())
	if err != nil || u.Uid != strconv.Itoa(int(process.User.UID)) {
		return
	}
	ids, err := u.GroupIds()
	if err != nil {
		return
	}
	for _, id := range ids {
		if n, err := strconv.ParseUint(id, 10, 32); err == nil {
			process.User.AdditionalGids = append(process.User.AdditionalGids, uint32(n))
		}
	}
}

// hasNetwork refuses a task that asks for a network which nobody has given its
// container: in the host's it would reach more, and be reached by more, than was
// asked for.
func hasNetwork(task *isolatorv1.Task, s *specs.Spec) error {
	var asked string
	switch network := task.GetNetwork(); network.GetMode() {
	case isolatorv1.Network_MODE_NONE:
		asked = "no network"
	case isolatorv1.Network_MODE_BRIDGE:
		asked = "a bridge"
	case isolatorv1.Network_MODE_NAMED:
		asked = "a network"
		for _, n := range network.GetNetworks() {
			asked += " " + strconv.Quote(n.GetName())
		}
	default:
		return nil
	}
	if slices.ContainsFunc(s.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.NetworkNamespace }) {
		return nil
	}
	return status.Errorf(codes.FailedPrecondition, "the task asks for %s: isolator cgroups makes no networks, and no isolator beside it has made one; run it in an image, where the agent has an isolator that does, such as containerd, or without", asked)
}

// namespaceRecord says which namespaces are new and which are joined.
func namespaceRecord(r *record.Record, s *specs.Spec) (network bool, err error) {
	var flags int
	for _, n := range s.Linux.Namespaces {
		flag := namespaceFlags[n.Type]
		switch {
		case n.Path == "":
			flags |= flag
		case n.Type == specs.PIDNamespace:
			r.Add(record.JoinPid, n.Path)
		default:
			r.Add(record.Join, record.Words(strconv.Itoa(flag), n.Path))
		}
		network = network || n.Type == specs.NetworkNamespace && n.Path == ""
	}
	r.AddInt(record.Unshare, int64(flags))
	r.Add(record.Hostname, s.Hostname)
	if !isNew(s, specs.MountNamespace) && len(s.Mounts)+len(s.Linux.MaskedPaths)+len(s.Linux.ReadonlyPaths) > 0 {
		r.AddInt(record.CopyMounts, 1)
	}
	for _, path := range s.Linux.MaskedPaths {
		r.Add(record.Masked, path)
	}
	for _, path := range s.Linux.ReadonlyPaths {
		r.Add(record.Readonly, path)
	}
	for _, m := range s.Mounts {
		line, err := mountRecord(m)
		if err != nil {
			return false, err
		}
		r.Add(record.Mount, line)
	}
	return network, nil
}

var mountFlags = map[string]uintptr{
	"bind": unix.MS_BIND, "rbind": unix.MS_BIND | unix.MS_REC, "ro": unix.MS_RDONLY, "rw": 0,
	"nosuid": unix.MS_NOSUID, "suid": 0, "nodev": unix.MS_NODEV, "dev": 0, "noexec": unix.MS_NOEXEC, "exec": 0,
	"sync": unix.MS_SYNCHRONOUS, "async": 0, "noatime": unix.MS_NOATIME, "relatime": unix.MS_RELATIME,
	"strictatime": unix.MS_STRICTATIME, "nodiratime": unix.MS_NODIRATIME, "defaults": 0,
	"private": unix.MS_PRIVATE, "rprivate": unix.MS_PRIVATE | unix.MS_REC, "slave": unix.MS_SLAVE,
	"rslave": unix.MS_SLAVE | unix.MS_REC, "shared": unix.MS_SHARED, "rshared": unix.MS_SHARED | unix.MS_REC,
	"unbindable": unix.MS_UNBINDABLE, "runbindable": unix.MS_UNBINDABLE | unix.MS_REC,
}

func mountRecord(m specs.Mount) (string, error) {
	if !filepath.IsAbs(m.Destination) {
		return "", status.Errorf(codes.InvalidArgument, "mount destination %q is not an absolute path", m.Destination)
	}
	var flags uintptr
	var data []string
	for _, o := range m.Options {
		if f, ok := mountFlags[o]; ok {
			flags |= f
		} else {
			data = append(data, o)
		}
	}
	kind := m.Type
	if kind == "bind" {
		flags, kind = flags|unix.MS_BIND, ""
	}
	return record.Words(filepath.Clean(m.Destination), m.Source, kind, strconv.FormatUint(uint64(flags), 10), strings.Join(data, ",")), nil
}
