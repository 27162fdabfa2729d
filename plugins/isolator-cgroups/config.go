package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/mezzo-os/mezzo/plugins/isolator-cgroups/cgroup"
	"github.com/mezzo-os/mezzo/sdk/isolator"
	"github.com/mezzo-os/mezzo/sdk/plugin"
)

// Config is what may stand in the plugin's config block.
type Config struct {
	Controllers []string `hcl:"controllers" default:"[\"cpu\",\"memory\",\"pids\"]" help:"The cgroup controllers that limit containers: cpu, memory, pids."`
	Root        string   `hcl:"root" default:"mezzo" help:"The name of the cgroup that all containers' cgroups are made in."`
	CFSQuota    bool     `hcl:"cfs_quota" default:"false" help:"Whether a container may never use more CPU time than it asked for, even on an idle host. A task's own cpu limit is always kept."`
	Swap        bool     `hcl:"swap" default:"false" help:"Whether containers may swap. Otherwise memory and swap together are limited to a container's memory."`
	PidsMax     int64    `hcl:"pids_max" default:"8192" help:"How many processes and threads a container may have; 0: as many as the host."`
	RuntimeDir  string   `hcl:"runtime_dir" help:"Where the state of containers is kept; an absolute path. By default the plugin's data directory."`
	Enforce     bool     `hcl:"enforce" default:"false" help:"Whether it is an error, at start, that limits cannot be enforced on this host. Otherwise tasks run without them, and the plugin says that it is degraded."`
}

// minPidsMax leaves room for the shim's own process before the task's begins.
const minPidsMax = 16

// Validate finds what can never work, on any host.
func (c *Config) Validate() []plugin.Diagnostic {
	var ds []plugin.Diagnostic
	for i, name := range c.Controllers {
		path := "controllers." + strconv.Itoa(i)
		switch {
		case !slices.Contains(cgroup.Controllers, name):
			ds = append(ds, plugin.Errorf("unknown controller", path, "%q is none of: %s.", name, strings.Join(cgroup.Controllers, ", ")))
		case slices.Index(c.Controllers, name) != i:
			ds = append(ds, plugin.Errorf("controller named twice", path, "%q stands in the list before.", name))
		}
	}
	if c.Root == "" || strings.ContainsAny(c.Root, "/\n") || strings.HasPrefix(c.Root, ".") || strings.HasPrefix(c.Root, "cgroup.") {
		ds = append(ds, plugin.Errorf("malformed cgroup name", "root", "%q: want one name with no slash, not beginning with a dot.", c.Root))
	}
	if c.PidsMax != 0 && c.PidsMax < minPidsMax {
		ds = append(ds, plugin.Errorf("too few processes", "pids_max", "%d: want 0 (no limit) or at least %d.", c.PidsMax, minPidsMax))
	}
	if c.RuntimeDir != "" && !filepath.IsAbs(c.RuntimeDir) {
		ds = append(ds, plugin.Errorf("relative path", "runtime_dir", "%q: want an absolute path.", c.RuntimeDir))
	}
	return ds
}

func (p *cgroups) definition() isolator.Definition {
	return isolator.Definition{
		Name: "cgroups", Version: version,
		Summary:    "Runs tasks as processes of the host, in cgroups and namespaces.",
		Companions: []string{shimName},
		NewConfig:  func() any { return new(Config) },
		Configure:  p.configure,
		Shutdown:   p.shutdown,
	}
}

const shimName = "mezzo-shim"

func (p *cgroups) configure(_ context.Context, config any, env plugin.Environment) []plugin.Diagnostic {
	p.config, p.logger = *config.(*Config), env.Logger
	if p.shim == "" {
		shim, err := plugin.Companion(shimName)
		if err != nil {
			return []plugin.Diagnostic{plugin.Errorf("mezzo-shim is missing", "", "%v.", err)}
		}
		p.shim = shim
	}
	dir := p.config.RuntimeDir
	if dir == "" {
		dir = env.DataDir
	}
	p.dir = filepath.Join(dir, "containers")
	if err := os.MkdirAll(p.dir, 0o700); err != nil {
		return []plugin.Diagnostic{plugin.Errorf("the runtime directory cannot be made", "runtime_dir", "%v.", err)}
	}
	if d := p.detect(env); d != nil {
		return []plugin.Diagnostic{*d}
	}
	if err := p.load(); err != nil {
		return []plugin.Diagnostic{plugin.Errorf("the runtime directory cannot be read", "runtime_dir", "%v.", err)}
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
	if err == nil {
		err = p.makeRoot(host)
	}
	if err == nil {
		p.host = host
		p.logger.Info("containers are limited by cgroups", "version", host.String(), "controllers", strings.Join(p.config.Controllers, " "))
		return nil
	}
	if p.config.Enforce {
		d := plugin.Errorf("limits cannot be enforced on this host", "enforce",
			"%v. Run the agent as root, or delegate a cgroup v2 subtree to its user, or set enforce = false.", err)
		return &d
	}
	why := fmt.Sprintf("tasks run without limits on cpu, memory and processes: %v", err)
	p.logger.Warn(why, "remedy", "run the agent as root, or delegate a cgroup v2 subtree to its user")
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
	return os.WriteFile(filepath.Join(filepath.Dir(p.dir), rootMark), nil, 0o600)
}

// shutdown removes the root cgroup when nothing is in it any more.
func (p *cgroups) shutdown(context.Context) {
	if p.host == nil {
		return
	}
	mark := filepath.Join(filepath.Dir(p.dir), rootMark)
	if _, err := os.Stat(mark); err != nil {
		return
	}
	if p.host.DeleteRoot() {
		_ = os.Remove(mark)
	}
}
