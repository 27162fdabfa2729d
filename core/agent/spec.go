package agent

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/mezzo-os/mezzo/core/agent/state"
	isolatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/isolator/v1"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
)

// imageSandbox is where a container with an image finds its sandbox, as with
// Mesos.
const imageSandbox = "/mnt/mesos/sandbox"

// inside is where a container's process finds its sandbox.
func inside(p *state.Plan, sandbox string) string {
	if p.Task.GetImage() != nil {
		return imageSandbox
	}
	return sandbox
}

// baseSpec is the OCI runtime specification of a container before any isolator
// has touched it: what the task asked for, and nothing of how it is walled off.
func baseSpec(p *state.Plan, sandbox string, who *account, endpoint, hostname string, mounts []specs.Mount) ([]byte, error) {
	spec := &specs.Spec{
		Version: specs.Version,
		Root:    &specs.Root{Path: "/"},
		Mounts:  mounts,
		Annotations: map[string]string{
			"mezzo.container": p.Container, "mezzo.framework": p.Task.GetFrameworkId(), "mezzo.task": p.Task.GetTaskId(),
		},
		Linux: &specs.Linux{Resources: resourceLimits(p.Task)},
	}
	cwd := inside(p, sandbox)
	if p.Task.GetImage() != nil {
		spec.Root = nil // the launcher's
		box := specs.Mount{Destination: imageSandbox, Type: "bind", Source: sandbox, Options: []string{"rbind", "rw"}}
		spec.Mounts = append([]specs.Mount{box}, mounts...)
	}
	if h := p.Task.GetContainer().GetHostname(); h != "" {
		spec.Hostname = h
	}
	if p.Command != nil {
		spec.Process = &specs.Process{
			Terminal: p.Task.GetContainer().GetTtyInfo() != nil,
			User:     specs.User{UID: who.uid, GID: who.gid, AdditionalGids: who.groups, Username: who.name},
			Args:     arguments(p.Command),
			Env:      environment(p, cwd, who, endpoint, hostname),
			Cwd:      cwd,
		}
		// DOCKER is also what a task without a container seems to have.
		if c := p.Task.GetContainer(); c != nil && c.GetType() == mezzov1.ContainerInfo_DOCKER && !p.Command.GetShell() {
			spec.Process.Args = dockerArguments(p.Command)
		}
		limits, err := rlimits(p.Task.GetContainer().GetRlimitInfo())
		if err != nil {
			return nil, err
		}
		spec.Process.Rlimits = limits
	}
	return json.Marshal(spec)
}

// arguments is the argument vector of a command. With a shell it is the shell's;
// without, `arguments` is all of it, the program's own name included, as Mesos
// has it, and `value` is what is executed.
func arguments(c *mezzov1.CommandInfo) []string {
	if c.GetShell() {
		return []string{"/bin/sh", "-c", c.GetValue()}
	}
	list := append([]string{}, c.GetArguments()...)
	switch {
	case c.GetValue() == "":
	case len(list) == 0:
		list = []string{c.GetValue()}
	default:
		list[0] = c.GetValue()
	}
	return list
}

// dockerArguments is what `docker run` would be given after the image.
func dockerArguments(c *mezzov1.CommandInfo) []string {
	list := append([]string{}, c.GetArguments()...)
	if c.GetValue() != "" {
		list = append([]string{c.GetValue()}, list...)
	}
	return list
}

// environment is what a task finds set: where and who it is, then what it asked
// for, which wins.
func environment(p *state.Plan, sandbox string, who *account, endpoint, hostname string) []string {
	t := p.Task
	executor := t.GetExecutorId()
	if executor == "" {
		executor = t.GetTaskId()
	}
	search := os.Getenv("PATH")
	if search == "" {
		search = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	}
	var order []string
	values := map[string]string{}
	set := func(name, value string) {
		if _, known := values[name]; !known {
			order = append(order, name)
		}
		values[name] = value
	}
	if t.GetImage() == nil { // these are the host's; an image has its own
		set("PATH", search)
		set("HOME", who.home)
		set("USER", who.name)
		set("LOGNAME", who.name)
		if lang := os.Getenv("LANG"); lang != "" {
			set("LANG", lang)
		}
	}
	for _, v := range p.Environment {
		set(v.Name, v.Value)
	}
	for _, prefix := range []string{"MEZZO_", "MESOS_"} {
		set(prefix+"SANDBOX", sandbox)
		set(prefix+"DIRECTORY", sandbox)
		set(prefix+"FRAMEWORK_ID", t.GetFrameworkId())
		set(prefix+"EXECUTOR_ID", executor)
		if t.GetTaskId() != "" {
			set(prefix+"TASK_ID", t.GetTaskId())
		}
		set(prefix+"AGENT_ID", p.AgentID)
		set(prefix+"ALLOCATION_ROLE", t.GetRole())
	}
	set("MESOS_SLAVE_ID", p.AgentID)
	set("MEZZO_CONTAINER_ID", p.Container)
	set("MEZZO_TASK_NAME", t.GetName())
	set("MEZZO_AGENT_ADDRESS", endpoint)
	set("MEZZO_AGENT_HOSTNAME", hostname)
	if ports := portRanges(t.GetResources()); ports != "" {
		set("MEZZO_PORTS", ports)
	}
	for _, v := range p.Command.GetEnvironment().GetVariables() {
		set(v.GetName(), v.GetValue())
	}
	list := make([]string, len(order))
	for i, name := range order {
		list[i] = name + "=" + values[name]
	}
	return list
}

// portRanges is the ports of a task: "31000-31001,31005-31005".
func portRanges(resources []*mezzov1.Resource) string {
	var list []string
	for _, r := range resources {
		if r.GetName() == "ports" {
			for _, x := range r.GetRanges().GetRange() {
				list = append(list, fmt.Sprintf("%d-%d", x.GetBegin(), x.GetEnd()))
			}
		}
	}
	return strings.Join(list, ",")
}

const (
	sharesPerCPU = 1024
	minShares    = 2
	cpuPeriod    = 100_000 // microseconds
	minQuota     = 1_000   // the kernel's least
)

// resourceLimits is what a container may use. A limit beside the request, which
// a task may set (`limits`), says how far it may go: a CPU limit is a quota,
// which there is none of without it; a memory limit takes the place of the
// request as the hard limit.
func resourceLimits(t *isolatorv1.Task) *specs.LinuxResources {
	r := &specs.LinuxResources{}
	limit := map[string]int64{}
	for _, l := range t.GetLimits() {
		limit[l.GetName()] = l.GetThousandths()
	}
	if cpus, asked := sum(t.GetResources(), "cpus"); asked {
		shares := uint64(max(minShares, math.Round(cpus*sharesPerCPU)))
		r.CPU = &specs.LinuxCPU{Shares: &shares}
	}
	if most, limited := limit["cpus"]; limited && most >= 0 {
		if r.CPU == nil {
			r.CPU = &specs.LinuxCPU{}
		}
		quota, period := max(minQuota, most*cpuPeriod/1000), uint64(cpuPeriod)
		r.CPU.Quota, r.CPU.Period = &quota, &period
	}
	if mem, asked := sum(t.GetResources(), "mem"); asked {
		hard := int64(mem * (1 << 20))
		r.Memory = &specs.LinuxMemory{Limit: &hard}
		if most, limited := limit["mem"]; limited {
			soft := hard
			hard = -1
			if most >= 0 {
				hard = most * (1 << 20) / 1000
			}
			r.Memory.Reservation = &soft
		}
	}
	if pids, asked := sum(t.GetResources(), "pids"); asked {
		most := int64(pids)
		r.Pids = &specs.LinuxPids{Limit: &most}
	}
	return r
}

func sum(resources []*mezzov1.Resource, name string) (float64, bool) {
	total, found := 0.0, false
	for _, r := range resources {
		if r.GetName() == name {
			total, found = total+r.GetScalar().GetValue(), true
		}
	}
	return total, found
}

func rlimits(info *mezzov1.RLimitInfo) ([]specs.POSIXRlimit, error) {
	var list []specs.POSIXRlimit
	for _, l := range info.GetRlimits() {
		name, found := strings.CutPrefix(l.GetType().String(), "RLMT_")
		if !found {
			return nil, fmt.Errorf("resource limit of type %v is not one that this agent knows", l.GetType())
		}
		entry := specs.POSIXRlimit{Type: "RLIMIT_" + name, Hard: math.MaxUint64, Soft: math.MaxUint64}
		switch {
		case l.Hard != nil && l.Soft != nil:
			entry.Hard, entry.Soft = l.GetHard(), l.GetSoft()
		case l.Hard != nil || l.Soft != nil:
			return nil, fmt.Errorf("resource limit %s has only one of hard and soft: give both, or neither for no limit", name)
		}
		list = append(list, entry)
	}
	return list, nil
}
