package holder

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/mezzo-os/mezzo/plugins/internal/capability"
	"github.com/mezzo-os/mezzo/plugins/internal/record"
)

// ProcessRecord says how to run an OCI process.
func ProcessRecord(r *record.Record, process *specs.Process) error {
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
	return CapabilityRecord(r, process.Capabilities)
}

var rlimits = map[string]int{
	"RLIMIT_AS": unix.RLIMIT_AS, "RLIMIT_CORE": unix.RLIMIT_CORE, "RLIMIT_CPU": unix.RLIMIT_CPU,
	"RLIMIT_DATA": unix.RLIMIT_DATA, "RLIMIT_FSIZE": unix.RLIMIT_FSIZE, "RLIMIT_LOCKS": unix.RLIMIT_LOCKS,
	"RLIMIT_MEMLOCK": unix.RLIMIT_MEMLOCK, "RLIMIT_MSGQUEUE": unix.RLIMIT_MSGQUEUE, "RLIMIT_NICE": unix.RLIMIT_NICE,
	"RLIMIT_NOFILE": unix.RLIMIT_NOFILE, "RLIMIT_NPROC": unix.RLIMIT_NPROC, "RLIMIT_RSS": unix.RLIMIT_RSS,
	"RLIMIT_RTPRIO": unix.RLIMIT_RTPRIO, "RLIMIT_RTTIME": unix.RLIMIT_RTTIME,
	"RLIMIT_SIGPENDING": unix.RLIMIT_SIGPENDING, "RLIMIT_STACK": unix.RLIMIT_STACK,
}

// CapabilityRecord says which capabilities a process has.
func CapabilityRecord(r *record.Record, c *specs.LinuxCapabilities) error {
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
			i := slices.Index(capability.Names, name)
			if i < 0 {
				return status.Errorf(codes.InvalidArgument, "unknown capability %q", name)
			}
			mask |= 1 << i
		}
		r.Add(set.key, strconv.FormatUint(mask, 16))
	}
	return nil
}
