package main

import (
	"os"

	"github.com/mezzo-os/mezzo/plugins/internal/holder"
	"github.com/mezzo-os/mezzo/plugins/internal/seccomp"
	isolatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/isolator/v1"
)

// unable says why a task cannot be run at all; "" when it can. What it says
// reaches the framework, as the reason of TASK_ERROR.
func (p *cgroups) unable(t *isolatorv1.Task) string {
	if why := refuseNamespaces(t); why != "" {
		return why
	}
	l := t.GetContainer().GetLinuxInfo()
	pid, ipc, err := p.config.ownNamespaces(l)
	if err != nil {
		return holder.Message(err)
	}
	if _, _, err := p.config.capabilities().Of(l); err != nil {
		return holder.Message(err)
	}
	if name := l.GetSeccomp().GetProfileName(); name != "" && name != seccomp.Default {
		if _, err := seccomp.Path(p.config.SeccompDir, name); err != nil {
			return "seccomp profile " + err.Error()
		}
	}
	if os.Geteuid() == 0 {
		return ""
	}
	switch {
	case pid || ipc:
		return "a pid or ipc namespace of its own needs an agent that runs as root"
	case len(t.GetContainer().GetVolumes()) > 0:
		return "volumes need an agent that runs as root"
	case l.GetEffectiveCapabilities() != nil || l.GetBoundingCapabilities() != nil || l.GetCapabilityInfo() != nil:
		return "capabilities need an agent that runs as root"
	case t.GetContainer().GetHostname() != "":
		return "a host name of its own needs an agent that runs as root"
	}
	return ""
}
