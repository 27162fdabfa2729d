package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/mezzo-os/mezzo/plugins/internal/cgroup"
	"github.com/mezzo-os/mezzo/plugins/internal/holder"
	"github.com/mezzo-os/mezzo/sdk/isolator"
	"github.com/mezzo-os/mezzo/sdk/plugin"
)

func (p *cgroups) definition() isolator.Definition {
	return isolator.Definition{
		Name: "cgroups", Version: version,
		Summary:    "Runs tasks as processes of the host, in cgroups and namespaces.",
		Companions: []string{holder.ShimName},
		NewConfig:  func() any { return new(Config) },
		Configure:  p.configure,
		Metrics:    p.Metrics,
		Shutdown:   p.shutdown,
	}
}

func (p *cgroups) configure(_ context.Context, config any, env plugin.Environment) []plugin.Diagnostic {
	p.config, p.Logger = *config.(*Config), env.Logger
	if p.Shim == "" {
		shim, err := plugin.Companion(holder.ShimName)
		if err != nil {
			return []plugin.Diagnostic{plugin.Errorf("mezzo-shim is missing", "", "%v.", err)}
		}
		p.Shim = shim
	}
	if ds := p.Place(p.config.RuntimeDir, env.DataDir); len(ds) > 0 {
		return ds
	}
	if d := p.detect(env); d != nil {
		return []plugin.Diagnostic{*d}
	}
	if ds := p.provide(); len(ds) > 0 {
		return ds
	}
	if err := p.Load(); err != nil {
		return []plugin.Diagnostic{plugin.Errorf("the runtime directory cannot be read", "runtime_dir", "%v.", err)}
	}
	if len(p.settings.processors) > 0 { // an earlier process may have ended in the middle of it
		p.assigning.Lock()
		defer p.assigning.Unlock()
		if slices.ContainsFunc(p.All(), func(c *holder.Container) bool { return len(c.CPUs) > 0 }) {
			p.rebalance()
		}
	}
	return nil
}

// detect finds out whether limits can be enforced here, and says so once when
// they cannot.
func (p *cgroups) detect(env plugin.Environment) *plugin.Diagnostic {
	var host *cgroup.Host
	err := fmt.Errorf("no controllers are configured")
	if len(p.config.Controllers) > 0 {
		host, err = cgroup.Detect(p.config.Root, p.config.Controllers)
	}
	var noPerf error
	if err == nil && len(p.config.PerfEvents) > 0 {
		noPerf = host.AddPerf()
	}
	if err == nil {
		err = p.makeRoot(host)
	}
	if err == nil {
		p.Host = host
		p.Logger.Info("containers are limited by cgroups", "version", host.String(), "controllers", strings.Join(p.config.Controllers, " "))
		return p.detectPerf(env, noPerf)
	}
	if p.config.Enforce {
		d := plugin.Errorf("limits cannot be enforced on this host", "enforce",
			"%v. Run the agent as root, or delegate a cgroup v2 subtree to its user, or set enforce = false.", err)
		return &d
	}
	why := fmt.Sprintf("tasks run without limits on cpu, memory and processes: %v", err)
	if len(p.config.PerfEvents) > 0 {
		why += "; without cgroups no perf events are counted either"
	}
	p.Logger.Warn(why, "remedy", "run the agent as root, or delegate a cgroup v2 subtree to its user")
	env.Health.Degraded(why)
	return nil
}

// rootMark says that the root cgroup is the plugin's to remove.
const rootMark = "made-root-cgroup"

func (p *cgroups) makeRoot(host *cgroup.Host) error {
	made, err := host.Root()
	if err != nil || !made {
		return err
	}
	return os.WriteFile(filepath.Join(filepath.Dir(p.Dir), rootMark), nil, 0o600)
}

// shutdown removes the root cgroup when nothing is in it any more.
func (p *cgroups) shutdown(context.Context) {
	if p.Host == nil {
		return
	}
	mark := filepath.Join(filepath.Dir(p.Dir), rootMark)
	if _, err := os.Stat(mark); err != nil {
		return
	}
	if p.Host.DeleteRoot() {
		_ = os.Remove(mark)
	}
}
