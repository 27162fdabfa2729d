package main

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/containerd/containerd/v2/pkg/cap"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"tags.cncf.io/container-device-interface/pkg/cdi"

	"github.com/mezzo-os/mezzo/plugins/internal/capability"
	"github.com/mezzo-os/mezzo/plugins/internal/cgroup"
	"github.com/mezzo-os/mezzo/plugins/internal/holder"
	"github.com/mezzo-os/mezzo/plugins/internal/seccomp"
	"github.com/mezzo-os/mezzo/plugins/isolator-containerd/image"
	"github.com/mezzo-os/mezzo/plugins/isolator-containerd/network"
	"github.com/mezzo-os/mezzo/sdk/metric"
	isolatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/isolator/v1"
)

// plug is the plugin. What a container's shim holds is the Holder's; what
// containerd keeps for it (the container, its task, its snapshot, the lease on
// its image) is found again by names that follow from the container's id.
type plug struct {
	*holder.Holder
	config     Config
	init       string // the path of mezzo-init
	connection *connection
	images     *image.Store
	networks   *network.Manager
	cdi        *cdi.Cache
	armour     armour

	up     *metric.Gauge // whether containerd answers
	strays *metric.Counter
	counts image.Counts

	running sync.WaitGroup
}

func newPlugin() *plug {
	p := &plug{Holder: holder.New("containerd"), armour: hostArmour()}
	p.Release = p.release
	p.up = p.Metrics.Gauge("runtime_up", "Whether the container runtime answered when it was last asked, some seconds ago.")
	p.strays = p.Metrics.Counter("strays_ended_total", "Shims of the container runtime that it had lost, and that were ended with their container.")
	p.strays.Add(0)
	p.counts = image.Count(p.Metrics)
	return p
}

// Claim launches the tasks that have an image, and with default = true those
// that have none.
func (p *plug) Claim(_ context.Context, r *isolatorv1.ClaimRequest) (*isolatorv1.ClaimResponse, error) {
	none := func(why string, args ...any) (*isolatorv1.ClaimResponse, error) {
		return &isolatorv1.ClaimResponse{Claim: isolatorv1.ClaimResponse_CLAIM_NONE, Reason: fmt.Sprintf(why, args...)}, nil
	}
	t := r.GetTask()
	if !p.ours(t) {
		return none("isolator containerd runs tasks that have an image, and others only with default = true in its configuration")
	}
	if why := p.unable(t); why != "" {
		return none("isolator containerd: %s", why)
	}
	return &isolatorv1.ClaimResponse{Claim: isolatorv1.ClaimResponse_CLAIM_LAUNCH}, nil
}

// ours is whether a task is for containerd at all. The root of a group, which
// has no process, goes where the tasks of the group go, and what is nested in a
// container where that is.
func (p *plug) ours(t *isolatorv1.Task) bool {
	if t.GetImage() != nil || t.GetSandboxOnly() || p.config.Default {
		return true
	}
	_, err := p.Find(t.GetParent())
	return err == nil
}

// unable says why a task cannot be run at all; "" when it can. It reaches the
// framework, as the reason of TASK_ERROR.
func (p *plug) unable(t *isolatorv1.Task) string {
	o, l := t.GetOptions(), t.GetContainer().GetLinuxInfo()
	if ref := t.GetImage().GetReference(); ref != "" && !isArchive(ref) {
		if _, err := image.Parse(ref); err != nil {
			return err.Error()
		}
	}
	if !p.config.Privileged {
		switch {
		case o.GetPrivileged():
			return "the task asks to be privileged, which this agent does not allow (allow_privileged)"
		case o.GetHostPid(), l != nil && l.SharePidNamespace != nil && l.GetSharePidNamespace() && t.GetParent() == "":
			return "the task asks for the host's pid namespace, which this agent does not allow (allow_privileged)"
		case o.GetHostIpc():
			return "the task asks for the host's IPC namespace, which this agent does not allow (allow_privileged)"
		case slices.Contains(o.GetSecurity(), "seccomp=unconfined"), l.GetSeccomp().GetUnconfined():
			return "the task asks for no seccomp profile, which this agent does not allow (allow_privileged)"
		case slices.Contains(o.GetSecurity(), "apparmor=unconfined"):
			return "the task asks for no AppArmor profile, which this agent does not allow (allow_privileged)"
		}
	}
	if err := p.config.CheckUser(t); err != nil {
		return err.Error()
	}
	if err := p.networks.Check(wantedNetwork("", t)); err != nil {
		return err.Error()
	}
	if _, err := p.capabilities(t); err != nil {
		return holder.Message(err)
	}
	if _, err := p.devices(o.GetDevices()); err != nil {
		return holder.Message(err)
	}
	if why := p.unarmoured(t); why != "" {
		return why
	}
	if _, _, err := p.wantedGPUs(t); err != nil {
		return holder.Message(err)
	}
	if name := l.GetSeccomp().GetProfileName(); name != "" && name != seccomp.Default {
		if _, err := seccomp.Path(p.config.SeccompDir, name); err != nil {
			return "seccomp profile " + err.Error()
		}
	}
	return ""
}

// policy is how a task's resources become limits.
func (p *plug) policy() cgroup.Policy {
	return p.config.Policy(controllers)
}

// capabilities are those of a task: what its linux_info says, else the default
// ones with what it adds and drops.
func (p *plug) capabilities(t *isolatorv1.Task) (sets, error) {
	o, l := t.GetOptions(), t.GetContainer().GetLinuxInfo()
	most, err := capability.Parse(p.config.Bounding)
	if err != nil {
		return sets{}, err
	}
	if o.GetPrivileged() {
		all := everyCapability()
		return sets{effective: all, bounding: all}, nil
	}
	if l.GetEffectiveCapabilities() != nil || l.GetBoundingCapabilities() != nil || l.GetCapabilityInfo() != nil {
		effective, bounding, err := capability.Policy{Effective: p.config.Effective, Bounding: p.config.Bounding}.Of(l)
		return sets{effective: effective, bounding: bounding, asked: true}, err
	}
	have := defaultCapabilities
	if len(p.config.Effective) > 0 {
		if have, err = capability.Parse(p.config.Effective); err != nil {
			return sets{}, err
		}
	}
	if have, err = change(have, o.GetCapDrop(), o.GetCapAdd()); err != nil {
		return sets{}, err
	}
	if most != nil {
		added, err := change(nil, nil, o.GetCapAdd())
		if err != nil {
			return sets{}, err
		}
		for _, name := range added {
			if !slices.Contains(most, name) && !slices.Contains(o.GetCapAdd(), "ALL") {
				return sets{}, status.Errorf(codes.InvalidArgument, "the task asks for capability %s, which this agent's bounding_capabilities do not have", name)
			}
		}
		have = slices.DeleteFunc(slices.Clone(have), func(name string) bool { return !slices.Contains(most, name) })
	}
	return sets{effective: have, bounding: have}, nil
}

// sets are a process's capabilities. asked: a user other than root has them too.
type sets struct {
	effective, bounding []string
	asked               bool
}

// change drops from capabilities and then adds to them, as docker run does.
func change(have, drop, add []string) ([]string, error) {
	parse := func(names []string) (all bool, list []string, err error) {
		for _, name := range names {
			if name == "ALL" || name == "CAP_ALL" {
				all = true
				continue
			}
			one, err := capability.Parse([]string{name})
			if err != nil {
				return false, nil, status.Error(codes.InvalidArgument, err.Error())
			}
			list = append(list, one...)
		}
		return all, list, nil
	}
	dropAll, dropped, err := parse(drop)
	if err != nil {
		return nil, err
	}
	addAll, added, err := parse(add)
	if err != nil {
		return nil, err
	}
	all := slices.Clone(have)
	if dropAll {
		all = nil
	}
	if addAll {
		all = slices.Clone(everyCapability())
	}
	all = append(all, added...)
	if !dropAll {
		all = slices.DeleteFunc(all, func(name string) bool {
			return slices.Contains(dropped, name) && !slices.Contains(added, name)
		})
	}
	slices.Sort(all)
	return slices.Compact(all), nil
}

// everyCapability is every one that the agent has itself: in a container of its
// own it may lack some.
var everyCapability = sync.OnceValue(func() []string {
	own, err := cap.Current()
	if err != nil {
		return capability.Names
	}
	return slices.DeleteFunc(slices.Clone(capability.Names), func(name string) bool { return !slices.Contains(own, name) })
})

// defaultCapabilities are those that containerd and Docker give.
var defaultCapabilities = []string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID", "CAP_SETUID",
	"CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE",
}
