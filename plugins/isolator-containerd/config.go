package main

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"tags.cncf.io/container-device-interface/pkg/parser"

	"github.com/mezzo-os/mezzo/plugins/internal/capability"
	"github.com/mezzo-os/mezzo/plugins/internal/cgroup"
	"github.com/mezzo-os/mezzo/plugins/internal/holder"
	"github.com/mezzo-os/mezzo/plugins/internal/seccomp"
	"github.com/mezzo-os/mezzo/plugins/isolator-containerd/image"
	"github.com/mezzo-os/mezzo/plugins/isolator-containerd/network"
	"github.com/mezzo-os/mezzo/sdk/isolator"
	"github.com/mezzo-os/mezzo/sdk/plugin"
)

// Config is what may stand in the plugin's config block.
type Config struct {
	Address      string `hcl:"address" default:"/run/containerd/containerd.sock" help:"containerd's socket; an absolute path."`
	Namespace    string `hcl:"namespace" default:"mezzo" help:"The containerd namespace of the agent's containers and images. Agents that share one containerd need one each."`
	Runtime      string `hcl:"runtime" default:"io.containerd.runc.v2" help:"The containerd runtime that containers are run by."`
	Snapshotter  string `hcl:"snapshotter" help:"The containerd snapshotter that images are unpacked into. By default containerd's own (overlayfs)."`
	Default      bool   `hcl:"default" default:"false" help:"Whether this isolator also runs the tasks that have no image. Otherwise another isolator must."`
	DefaultImage string `hcl:"default_image" help:"The image of tasks that have none, such as busybox:1.36. Needs default. By default none: they see the host's files."`

	Privileged bool     `hcl:"allow_privileged" default:"false" help:"Whether tasks may ask to be privileged, for the host's pid or IPC namespace, for any device, and for no seccomp or AppArmor profile."`
	Effective  []string `hcl:"effective_capabilities" help:"The capabilities of a task that asks for none; [\"none\"]: no capability. By default those that containerd and Docker give."`
	Seccomp    string   `hcl:"seccomp_profile" default:"default" help:"The system calls that tasks may make: default (containerd's default profile), unconfined, or the name of a profile in seccomp_dir. A task may name another profile of seccomp_dir."`
	AppArmor   string   `hcl:"apparmor_profile" help:"The AppArmor profile of tasks that name none, or unconfined. By default one like Docker's, on a host that has AppArmor."`
	Devices    []string `hcl:"allowed_devices" help:"Devices that tasks may ask for: paths such as /dev/fuse, and kinds or names of the Container Device Interface such as nvidia.com/gpu."`
	GPUs       []string `hcl:"gpu_devices" help:"The GPUs of this host, by their names in the Container Device Interface, such as nvidia.com/gpu=0. A task that asks for gpus is given so many, which nobody else has meanwhile. By default those that are called nvidia.com/gpu=N."`
	CDIDirs    []string `hcl:"cdi_dirs" help:"Where the specifications of the Container Device Interface are; absolute paths. By default /etc/cdi and /var/run/cdi."`

	holder.Basics
	image.Config
	network.Settings
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
	ds = append(ds, c.Basics.Validate(minPidsMax)...)
	for i, path := range c.CDIDirs {
		if !filepath.IsAbs(path) {
			ds = append(ds, plugin.Errorf("relative path", "cdi_dirs."+strconv.Itoa(i), "%q: want an absolute path.", path))
		}
	}
	if _, err := capability.Parse(c.Effective); err != nil {
		ds = append(ds, plugin.Errorf("unknown capability", "effective_capabilities", "%v.", err))
	}
	for i, name := range c.GPUs {
		if !parser.IsQualifiedName(name) || slices.Index(c.GPUs, name) != i {
			ds = append(ds, plugin.Errorf("malformed device", "gpu_devices."+strconv.Itoa(i), "%q: want a name of the Container Device Interface such as nvidia.com/gpu=0, and each once.", name))
		}
	}
	if c.Seccomp != unconfined && c.Seccomp != seccomp.Default {
		if _, err := seccomp.Path(c.SeccompDir, c.Seccomp); err != nil {
			ds = append(ds, plugin.Errorf("unknown seccomp profile", "seccomp_profile", "%v.", err))
		}
	}
	if c.DefaultImage != "" {
		if _, err := image.Parse(c.DefaultImage); err != nil {
			ds = append(ds, plugin.Errorf("no image", "default_image", "%v.", err))
		}
	}
	ds = append(ds, c.Config.Validate()...)
	ds = append(ds, c.Settings.Validate()...)
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
		Summary:    "Runs tasks as containerd containers, from images.",
		Companions: []string{holder.ShimName, initName},
		NewConfig:  func() any { return new(Config) },
		Configure:  p.configure,
		Metrics:    p.Metrics,
		Shutdown:   p.shutdown,
	}
}

// initName is the first process of every container.
const initName = "mezzo-init"

// controllers limit containers.
var controllers = []string{"cpu", "memory", "pids"}

func (p *plug) configure(_ context.Context, config any, env plugin.Environment) []plugin.Diagnostic {
	p.config, p.Logger = *config.(*Config), env.Logger
	for _, companion := range []struct {
		name string
		path *string
	}{{holder.ShimName, &p.Shim}, {initName, &p.init}} {
		if *companion.path != "" {
			continue
		}
		path, err := plugin.Companion(companion.name)
		if err != nil {
			return []plugin.Diagnostic{plugin.Errorf(companion.name+" is missing", "", "%v.", err)}
		}
		*companion.path = path
	}
	if os.Geteuid() != 0 {
		return []plugin.Diagnostic{plugin.Errorf("not without root", "", "The agent runs as user id %d; containerd needs an agent that runs as root.", os.Geteuid())}
	}
	if ds := p.Place(p.config.RuntimeDir, env.DataDir); len(ds) > 0 {
		return ds
	}
	if ds := p.config.Config.Check(); len(ds) > 0 {
		return ds
	}
	host, err := cgroup.Detect(p.config.Root, controllers)
	var noPerf error
	if err == nil && len(p.config.PerfEvents) > 0 {
		noPerf = host.AddPerf()
	}
	if err == nil {
		_, err = host.Root()
	}
	if err != nil {
		return []plugin.Diagnostic{plugin.Errorf("limits cannot be enforced on this host", "", "%v.", err)}
	}
	p.Host = host
	problem := p.DetectPerf(p.config.PerfEvents, noPerf)
	if p.cdi, err = newCDI(p.config.CDIDirs); err != nil {
		return []plugin.Diagnostic{plugin.Errorf("CDI specifications cannot be read", "cdi_dirs", "%v.", err)}
	}
	if name := p.unknownGPU(); name != "" {
		return []plugin.Diagnostic{plugin.Errorf("unknown GPU", "gpu_devices", "No CDI specification in %s has device %s.", strings.Join(p.cdi.GetSpecDirectories(), " or "), name)}
	}
	p.connection = newConnection(p.config.Address, p.config.Namespace, env.Logger, env.Health)
	p.connection.up = p.up
	p.images, err = image.New(image.Options{
		Client: p.connection.get, Namespace: p.config.Namespace, Owner: p.Dir, Snapshotter: p.config.Snapshotter, Config: p.config.Config, Counts: p.counts, Logger: env.Logger,
	})
	if err != nil {
		return []plugin.Diagnostic{plugin.Errorf("images cannot be kept", "", "%v.", err)}
	}
	p.networks, err = network.New(network.Options{Dir: filepath.Join(filepath.Dir(p.Dir), "networks"), Config: p.config.Settings, Logger: env.Logger})
	if err != nil {
		return []plugin.Diagnostic{plugin.Errorf("the runtime directory cannot be made", "runtime_dir", "%v.", err)}
	}
	if err := p.Load(); err != nil {
		return []plugin.Diagnostic{plugin.Errorf("the runtime directory cannot be read", "runtime_dir", "%v.", err)}
	}
	p.running.Go(func() { p.connection.watch(p.connection.in(p.Closing())) })
	p.running.Go(func() { p.images.Run(p.Closing()) })
	return p.lacking(problem)
}

// lacking are warnings of what this host has not, while tasks run all the same.
func (p *plug) lacking(perf string) (ds []plugin.Diagnostic) {
	if perf != "" {
		ds = append(ds, plugin.Warningf("perf events are not counted", "perf_events", "%s.", perf))
	}
	if p.config.AppArmor != "" && p.config.AppArmor != unconfined && !p.armour.present {
		ds = append(ds, plugin.Warningf("no AppArmor", "apparmor_profile", "This host has no AppArmor: tasks run without profile %q.", p.config.AppArmor))
	}
	return ds
}

// shutdown ends what goes on in this process. Containers live on.
func (p *plug) shutdown(context.Context) {
	p.Close()
	p.running.Wait()
	if p.images != nil {
		p.images.Close()
		p.connection.close()
	}
	if p.Host != nil && len(p.All()) == 0 {
		p.Host.SweepRoot()
	}
}
