// Package capability decides which Linux capabilities a container has, by what
// its task asks for and what the operator gives.
package capability

import (
	"fmt"
	"slices"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	v1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
)

// Names are all capabilities; they in the order of their numbers.
var Names = strings.Fields(`CAP_CHOWN CAP_DAC_OVERRIDE CAP_DAC_READ_SEARCH CAP_FOWNER CAP_FSETID
	CAP_KILL CAP_SETGID CAP_SETUID CAP_SETPCAP CAP_LINUX_IMMUTABLE CAP_NET_BIND_SERVICE CAP_NET_BROADCAST
	CAP_NET_ADMIN CAP_NET_RAW CAP_IPC_LOCK CAP_IPC_OWNER CAP_SYS_MODULE CAP_SYS_RAWIO CAP_SYS_CHROOT
	CAP_SYS_PTRACE CAP_SYS_PACCT CAP_SYS_ADMIN CAP_SYS_BOOT CAP_SYS_NICE CAP_SYS_RESOURCE CAP_SYS_TIME
	CAP_SYS_TTY_CONFIG CAP_MKNOD CAP_LEASE CAP_AUDIT_WRITE CAP_AUDIT_CONTROL CAP_SETFCAP CAP_MAC_OVERRIDE
	CAP_MAC_ADMIN CAP_SYSLOG CAP_WAKE_ALARM CAP_BLOCK_SUSPEND CAP_AUDIT_READ CAP_PERFMON CAP_BPF
	CAP_CHECKPOINT_RESTORE`)

// Policy is what an operator gives, in the form of Parse: to a task that asks
// for nothing, and to any at most.
type Policy struct{ Effective, Bounding []string }

// Parse reads names with or without CAP_. The one word "none" is no
// capability; no word at all is nil.
func Parse(names []string) ([]string, error) {
	if len(names) == 0 {
		return nil, nil
	}
	list := []string{}
	for _, text := range names {
		if strings.EqualFold(text, "none") && len(names) == 1 {
			return list, nil
		}
		name := "CAP_" + strings.TrimPrefix(strings.ToUpper(text), "CAP_")
		if !slices.Contains(Names, name) {
			return nil, fmt.Errorf("%q is no capability", text)
		}
		list = append(list, name)
	}
	return list, nil
}

// first is the number of CAP_CHOWN in CapabilityInfo.
const first = 1000

// list is what a task asks for; nil when it asks for nothing.
func list(info *v1.CapabilityInfo) ([]string, error) {
	if info == nil {
		return nil, nil
	}
	names := []string{}
	for _, c := range info.GetCapabilities() {
		i := int(c) - first
		if i < 0 || i >= len(Names) {
			return nil, status.Errorf(codes.InvalidArgument, "unknown capability %v", c)
		}
		names = append(names, Names[i])
	}
	return names, nil
}

// Of decides between what the task asks for and what the operator
// gives: nil when neither says anything. Of the task's two sets, the one that
// is not given follows the other.
func (p Policy) Of(l *v1.LinuxInfo) (effective, bounding []string, err error) {
	most, err := Parse(p.Bounding)
	if err != nil {
		return nil, nil, err
	}
	asked := l.GetEffectiveCapabilities()
	if asked == nil {
		asked = l.GetCapabilityInfo()
	}
	if effective, err = list(asked); err != nil {
		return nil, nil, err
	}
	if bounding, err = list(l.GetBoundingCapabilities()); err != nil {
		return nil, nil, err
	}
	switch {
	case effective == nil && bounding == nil:
		if effective, err = Parse(p.Effective); err != nil {
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
