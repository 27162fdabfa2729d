package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"

	"github.com/mezzo-os/mezzo/sdk/isolator"
	"github.com/mezzo-os/mezzo/sdk/plugin"
)

// Config is what may stand in the plugin's config block.
type Config struct {
	Address      string `hcl:"address" default:"/run/containerd/containerd.sock" help:"containerd's socket; an absolute path."`
	Namespace    string `hcl:"namespace" default:"mezzo" help:"The containerd namespace of the agent's containers and images. Agents that share one containerd need one each."`
	Runtime      string `hcl:"runtime" default:"io.containerd.runc.v2" help:"The containerd runtime that containers are run by."`
	Snapshotter  string `hcl:"snapshotter" help:"The containerd snapshotter that images are unpacked into. By default containerd's own (overlayfs)."`
	Default      bool   `hcl:"default" default:"false" help:"Whether this isolator also runs the tasks that have no image. Otherwise it leaves them to the isolators listed after it."`
	DefaultImage string `hcl:"default_image" help:"The image of tasks that have none, when default is true. By default they see the host's root file system."`
	Root         string `hcl:"root" default:"mezzo" help:"The name of the cgroup that all containers' cgroups are made in."`
	CFSQuota     bool   `hcl:"cfs_quota" default:"false" help:"Whether a container may never use more CPU time than it asked for, even on an idle host. A task's own cpu limit is always kept."`
	Swap         bool   `hcl:"swap" default:"false" help:"Whether containers may swap. Otherwise memory and swap together are limited to a container's memory."`
	PidsMax      int64  `hcl:"pids_max" default:"8192" help:"How many processes and threads a container may have; 0: as many as the host."`
	RuntimeDir   string `hcl:"runtime_dir" help:"Where the state of containers is kept; an absolute path. By default the plugin's data directory."`
}

// Validate finds what can never work, on any host.
func (c *Config) Validate() []plugin.Diagnostic {
	var ds []plugin.Diagnostic
	if !filepath.IsAbs(c.Address) {
		ds = append(ds, plugin.Errorf("relative path", "address", "%q: want the absolute path of containerd's socket.", c.Address))
	}
	if c.Namespace == "" || strings.ContainsAny(c.Namespace, "/ \n") {
		ds = append(ds, plugin.Errorf("malformed namespace", "namespace", "%q: want letters, digits, dashes and dots.", c.Namespace))
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
	if c.DefaultImage != "" && !c.Default {
		ds = append(ds, plugin.Errorf("no effect", "default_image", "default_image is for tasks without an image, which this isolator runs only with default = true."))
	}
	return ds
}

// minPidsMax leaves room for the threads of mezzo-init and of runc.
const minPidsMax = 32

func (p *plug) definition() isolator.Definition {
	return isolator.Definition{
		Name: "containerd", Version: version,
		Summary:   "Runs tasks as containerd containers, from images.",
		NewConfig: func() any { return new(Config) },
		Configure: p.configure,
		Shutdown:  p.shutdown,
	}
}

func (p *plug) configure(_ context.Context, config any, env plugin.Environment) []plugin.Diagnostic {
	p.config, p.logger = *config.(*Config), env.Logger
	dir := p.config.RuntimeDir
	if dir == "" {
		dir = env.DataDir
	}
	p.dir = filepath.Join(dir, "containers")
	if err := os.MkdirAll(p.dir, 0o700); err != nil {
		return []plugin.Diagnostic{plugin.Errorf("the runtime directory cannot be made", "runtime_dir", "%v.", err)}
	}
	p.connection = newConnection(p.config.Address, p.config.Namespace, env.Logger, env.Health)
	p.running.Go(func() { p.connection.watch(p.connection.in(p.closing)) })
	return nil
}
