package main

import (
	"encoding/json"
	"errors"
	"fmt"
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

	"github.com/mezzo-os/mezzo/plugins/isolator-cgroups/record"
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

// amount adds up a task's scalar resource: all of it, and what of it is
// revocable.
func amount(t *isolatorv1.Task, name string) (all, revocable float64) {
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

// limitsOf puts into the spec what the task's resources come to, and what the
// operator's settings do.
func (p *cgroups) limitsOf(t *isolatorv1.Task, r *specs.LinuxResources) {
	p.shareOf(t, r)
	p.limit(t, r)
}

func (p *cgroups) shareOf(t *isolatorv1.Task, r *specs.LinuxResources) {
	if shares(t) {
		r.CPU, r.Memory, r.Pids = nil, nil, nil // the parent's bind
		return
	}
	has := func(c string) bool { return slices.Contains(p.config.Controllers, c) }
	if all, revocable := amount(t, "cpus"); has("cpu") && all > 0 {
		weight := uint64(max((all-revocable)*cpuShares+revocable*revocableCPUShares, minCPUShares))
		if r.CPU == nil {
			r.CPU = &specs.LinuxCPU{}
		}
		r.CPU.Shares = &weight
		period, quota := uint64(cpuPeriod), int64(-1)
		switch limit, ok := limitOf(t, "cpus"); {
		case ok && limit > 0:
			quota = max(limit*cpuPeriod/1000, minCPUQuota)
		case !ok && p.config.CFSQuota:
			quota = max(int64(all*cpuPeriod), minCPUQuota)
		}
		r.CPU.Quota, r.CPU.Period = &quota, &period
	}
	if all, _ := amount(t, "mem"); has("memory") && all > 0 {
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
		if !p.config.Swap && hard > 0 {
			swap := hard
			r.Memory.Swap = &swap
		}
	}
	if has("pids") && p.config.PidsMax > 0 && (r.Pids == nil || r.Pids.Limit == nil || *r.Pids.Limit <= 0) {
		most := p.config.PidsMax
		r.Pids = &specs.LinuxPids{Limit: &most}
	}
}

// amend makes the changes of Prepare.
func (p *cgroups) amend(id, sandbox string, t *isolatorv1.Task, s *specs.Spec) error {
	if s.Linux == nil {
		s.Linux = &specs.Linux{}
	}
	if err := p.asked(t, sandbox, s); err != nil {
		return err
	}
	if p.host != nil {
		path, err := p.cgroupPath(id, t)
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

// processRecord says how to run an OCI process.
func processRecord(r *record.Record, process *specs.Process) error {
	if process == nil || len(process.Args) == 0 {
		return status.Error(codes.InvalidArgument, "the container's spec has no program to run (process.args)")
	}
	if uid := int(process.User.UID); os.Geteuid() != 0 && uid != os.Geteuid() {
		return status.Errorf(codes.InvalidArgument, "the task is for user id %d, but the agent runs as user id %d and not as root", uid, os.Geteuid())
	}
	for _, v := range slices.Concat(process.Args, process.Env, []string{process.Cwd}) {
		if strings.ContainsRune(v, 0) {
			return status.Errorf(codes.InvalidArgument, "%q contains a zero byte", v)
		}
	}
	for _, a := range process.Args {
		r.Add(record.Arg, a)
	}
	for _, e := range process.Env {
		r.Add(record.Env, e)
	}
	r.Add(record.Cwd, process.Cwd)
	r.AddInt(record.UID, int64(process.User.UID))
	r.AddInt(record.GID, int64(process.User.GID))
	for _, g := range process.User.AdditionalGids {
		r.AddInt(record.Group, int64(g))
	}
	if u := process.User.Umask; u != nil {
		r.AddInt(record.Umask, int64(*u))
	}
	if process.NoNewPrivileges {
		r.AddInt(record.NoNewPriv, 1)
	}
	if n := process.OOMScoreAdj; n != nil {
		r.AddInt(record.OOMScore, int64(*n))
	}
	if c := process.ConsoleSize; c != nil {
		r.AddInt(record.Rows, int64(c.Height))
		r.AddInt(record.Columns, int64(c.Width))
	}
	for _, l := range process.Rlimits {
		n, ok := rlimits[l.Type]
		if !ok {
			return status.Errorf(codes.InvalidArgument, "unknown resource limit %q", l.Type)
		}
		r.Add(record.Rlimit, fmt.Sprintf("%d %d %d", n, l.Soft, l.Hard))
	}
	return capabilityRecord(r, process.Capabilities)
}

var rlimits = map[string]int{
	"RLIMIT_AS": unix.RLIMIT_AS, "RLIMIT_CORE": unix.RLIMIT_CORE, "RLIMIT_CPU": unix.RLIMIT_CPU,
	"RLIMIT_DATA": unix.RLIMIT_DATA, "RLIMIT_FSIZE": unix.RLIMIT_FSIZE, "RLIMIT_LOCKS": unix.RLIMIT_LOCKS,
	"RLIMIT_MEMLOCK": unix.RLIMIT_MEMLOCK, "RLIMIT_MSGQUEUE": unix.RLIMIT_MSGQUEUE, "RLIMIT_NICE": unix.RLIMIT_NICE,
	"RLIMIT_NOFILE": unix.RLIMIT_NOFILE, "RLIMIT_NPROC": unix.RLIMIT_NPROC, "RLIMIT_RSS": unix.RLIMIT_RSS,
	"RLIMIT_RTPRIO": unix.RLIMIT_RTPRIO, "RLIMIT_RTTIME": unix.RLIMIT_RTTIME,
	"RLIMIT_SIGPENDING": unix.RLIMIT_SIGPENDING, "RLIMIT_STACK": unix.RLIMIT_STACK,
}

// capabilityNames are in the order of their numbers.
var capabilityNames = strings.Fields(`CAP_CHOWN CAP_DAC_OVERRIDE CAP_DAC_READ_SEARCH CAP_FOWNER CAP_FSETID
	CAP_KILL CAP_SETGID CAP_SETUID CAP_SETPCAP CAP_LINUX_IMMUTABLE CAP_NET_BIND_SERVICE CAP_NET_BROADCAST
	CAP_NET_ADMIN CAP_NET_RAW CAP_IPC_LOCK CAP_IPC_OWNER CAP_SYS_MODULE CAP_SYS_RAWIO CAP_SYS_CHROOT
	CAP_SYS_PTRACE CAP_SYS_PACCT CAP_SYS_ADMIN CAP_SYS_BOOT CAP_SYS_NICE CAP_SYS_RESOURCE CAP_SYS_TIME
	CAP_SYS_TTY_CONFIG CAP_MKNOD CAP_LEASE CAP_AUDIT_WRITE CAP_AUDIT_CONTROL CAP_SETFCAP CAP_MAC_OVERRIDE
	CAP_MAC_ADMIN CAP_SYSLOG CAP_WAKE_ALARM CAP_BLOCK_SUSPEND CAP_AUDIT_READ CAP_PERFMON CAP_BPF
	CAP_CHECKPOINT_RESTORE`)

func capabilityRecord(r *record.Record, c *specs.LinuxCapabilities) error {
	if c == nil {
		return nil
	}
	for _, set := range []struct {
		key   string
		names []string
	}{
		{record.Bounding, c.Bounding}, {record.Effective, c.Effective}, {record.Permitted, c.Permitted},
		{record.Inherit, c.Inheritable}, {record.Ambient, c.Ambient},
	} {
		var mask uint64
		for _, name := range set.names {
			i := slices.Index(capabilityNames, name)
			if i < 0 {
				return status.Errorf(codes.InvalidArgument, "unknown capability %q", name)
			}
			mask |= 1 << i
		}
		r.Add(set.key, strconv.FormatUint(mask, 16))
	}
	return nil
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

// validID is a container id that can name a directory and a cgroup.
func validID(id string) error {
	if id == "" || len(id) > 200 || strings.HasPrefix(id, ".") || strings.HasPrefix(id, "cgroup.") {
		return invalidID(id)
	}
	for _, c := range id {
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.ContainsRune("._-:", c)) {
			return invalidID(id)
		}
	}
	return nil
}

func invalidID(id string) error {
	return status.Errorf(codes.InvalidArgument, "container id %q: want letters, digits, dots, dashes, colons and underscores, not beginning with a dot", id)
}

// subject puts the container before the message of an error and keeps its code.
func subject(id string, err error) error {
	if err == nil {
		return nil
	}
	code := codes.Internal
	var s interface{ GRPCStatus() *status.Status }
	if errors.As(err, &s) {
		code = s.GRPCStatus().Code()
	}
	return status.Errorf(code, "container %s: %s", id, message(err))
}

// message is the text of an error without its code.
func message(err error) string {
	var s interface{ GRPCStatus() *status.Status }
	if errors.As(err, &s) {
		return s.GRPCStatus().Message()
	}
	return err.Error()
}
