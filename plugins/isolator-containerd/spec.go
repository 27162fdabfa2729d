package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/mezzo-os/mezzo/plugins/internal/holder"
	"github.com/mezzo-os/mezzo/plugins/isolator-containerd/image"
	isolatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/isolator/v1"
	v1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
)

// imageSandbox is where a container with an image finds its sandbox.
const imageSandbox = "/mnt/mesos/sandbox"

// What Prepare has Create know beyond the spec.
const (
	annotationExecute = "mezzo.execute"     // the program, where it is not the first argument
	annotationStop    = "mezzo.stop_signal" // what asks the task to end
)

// Prepare writes the whole spec: containerd's defaults, what the image says of
// the process, what the task asks for, and over it what the agent and the
// isolators before have said.
func (p *plug) Prepare(ctx context.Context, r *isolatorv1.PrepareRequest) (*isolatorv1.PrepareResponse, error) {
	id := r.GetContainer()
	if err := holder.ValidID(id); err != nil {
		return nil, err
	}
	given, err := parseSpec(r.GetSpec())
	if err != nil {
		return nil, holder.Subject(id, err)
	}
	s, err := p.build(ctx, id, r.GetSandbox(), r.GetTask(), given)
	if err != nil {
		return nil, holder.Subject(id, err)
	}
	text, err := json.Marshal(s)
	if err != nil {
		return nil, err
	}
	return &isolatorv1.PrepareResponse{Spec: text}, nil
}

func parseSpec(text []byte) (*specs.Spec, error) {
	var s specs.Spec
	if err := json.Unmarshal(text, &s); err != nil {
		return nil, status.Errorf(codes.InvalidArgument, "the container's spec is not an OCI runtime spec: %v", err)
	}
	if s.Linux == nil {
		s.Linux = &specs.Linux{}
	}
	if s.Linux.Resources == nil {
		s.Linux.Resources = &specs.LinuxResources{}
	}
	return &s, nil
}

func (p *plug) build(ctx context.Context, id, sandbox string, t *isolatorv1.Task, given *specs.Spec) (*specs.Spec, error) {
	s, err := oci.GenerateSpec(p.connection.in(ctx), nil, &containers.Container{ID: "mezzo"})
	if err != nil {
		return nil, fmt.Errorf("containerd's default spec: %w", err)
	}
	b := &builder{plug: p, id: id, sandbox: sandbox, inside: sandbox, task: t, given: given, spec: s}
	if t.GetImage() != nil {
		b.inside = imageSandbox
	}
	for _, step := range []func(context.Context) error{
		b.process, b.cgroups, b.namespaces, b.mounts, b.volumes, b.devices, b.privileges, b.rest,
	} {
		if err := step(ctx); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// builder makes one container's spec.
type builder struct {
	*plug
	id, sandbox string
	inside      string // where the container finds its sandbox
	task        *isolatorv1.Task
	given, spec *specs.Spec
	wanted      []string // directories that the image wants kept out of its own
}

// process is the task's, before mezzo-init is put before it.
func (b *builder) process(ctx context.Context) error {
	b.spec.Annotations = map[string]string{}
	for k, v := range b.given.Annotations {
		b.spec.Annotations[k] = v
	}
	if b.task.GetSandboxOnly() {
		b.spec.Process = &specs.Process{Cwd: "/", NoNewPrivileges: true, Capabilities: &specs.LinuxCapabilities{}}
		return nil
	}
	if b.given.Process == nil {
		return status.Error(codes.InvalidArgument, "the container's spec has no process")
	}
	process := *b.given.Process
	b.spec.Process = &process
	if b.image() == "" {
		return nil
	}
	found, err := b.provided(ctx)
	if err != nil {
		return err
	}
	merged, err := image.Merge(found.Config, b.command(process.Args, process.Env))
	if err != nil {
		return status.Error(codes.InvalidArgument, err.Error())
	}
	process.Args, process.Env = merged.Args, merged.Env
	if b.task.GetImage() != nil {
		process.Cwd = merged.Cwd
	}
	b.wanted = merged.Volumes
	if merged.Exec != "" {
		b.spec.Annotations[annotationExecute] = merged.Exec
	}
	b.spec.Annotations[annotationStop] = strconv.Itoa(int(merged.StopSignal))
	return nil
}

// image is the reference of the container's image; "": it has none, and sees the
// host's file system.
func (b *builder) image() string { return b.imageOf(b.task) }

func (p *plug) imageOf(t *isolatorv1.Task) string {
	switch {
	case t.GetSandboxOnly():
		return ""
	case t.GetImage() != nil:
		return t.GetImage().GetReference()
	}
	return p.config.DefaultImage
}

// provided is the image that Provision has got. Nobody asks for the default one,
// which is to be here.
func (b *builder) provided(ctx context.Context) (*image.Image, error) {
	if b.task.GetImage() != nil {
		found, err := b.images.Image(ctx, b.id)
		return found, b.failed(err)
	}
	found, err := b.images.Provide(ctx, b.id, image.Want{Reference: b.config.DefaultImage}, nil)
	return found, b.failed(err)
}

// command is what the task says of its process, in the image's terms.
func (b *builder) command(args, env []string) image.Command {
	c, o := b.task.GetCommand(), b.task.GetOptions()
	command := image.Command{
		Docker: b.task.GetContainer().GetType() == v1.ContainerInfo_DOCKER,
		Shell:  c.GetShell(), Value: c.GetValue(), Arguments: c.GetArguments(), Env: env,
		Entrypoint: o.GetEntrypoint(), Workdir: o.GetWorkdir(), StopSignal: o.GetStopSignal(), Sandbox: b.inside,
	}
	if b.task.GetImage() == nil { // the default image: the command is whole
		command.Docker, command.Shell, command.Value, command.Arguments = false, false, args[0], args
	}
	return command
}

func (b *builder) cgroups(context.Context) error {
	group, err := b.Group(b.id, b.task.GetParent())
	if err != nil {
		return err
	}
	b.spec.Linux.CgroupsPath = b.Host.RuntimePath(group)
	r := *b.given.Linux.Resources
	b.policy().Limit(b.task, &r)
	r.Devices = append(b.spec.Linux.Resources.Devices, r.Devices...)
	b.spec.Linux.Resources = &r
	return nil
}

// namespaces are new ones, those of the parent for what is nested, or the
// host's for what asks for that. What an isolator before has chosen stays.
func (b *builder) namespaces(context.Context) error {
	o, l := b.task.GetOptions(), b.task.GetContainer().GetLinuxInfo()
	s := b.spec
	if o.GetHostPid() || l != nil && l.SharePidNamespace != nil && l.GetSharePidNamespace() {
		if b.task.GetParent() != "" {
			return status.Error(codes.InvalidArgument, "isolator containerd gives every container of a group a pid namespace of its own; take share_pid_namespace away")
		}
		setNamespace(s, specs.PIDNamespace, "", false)
	}
	if o.GetHostIpc() {
		setNamespace(s, specs.IPCNamespace, "", false)
	}
	if parent := b.task.GetParent(); parent != "" {
		c, err := b.Find(parent)
		if err != nil {
			return status.Errorf(codes.FailedPrecondition, "its parent %s was not launched by isolator containerd", parent)
		}
		of := "/proc/" + strconv.FormatInt(c.Pid(), 10) + "/ns/"
		if c.Ended() || c.Pid() == 0 {
			return status.Errorf(codes.FailedPrecondition, "its parent %s has ended", parent)
		}
		if l.GetIpcMode() != v1.LinuxInfo_PRIVATE {
			setNamespace(s, specs.IPCNamespace, of+"ipc", true)
		}
		if m := b.task.GetNetwork().GetMode(); m == isolatorv1.Network_MODE_UNSPECIFIED || m == isolatorv1.Network_MODE_PARENT {
			setNamespace(s, specs.NetworkNamespace, of+"net", true)
		}
		if b.given.Hostname == "" {
			setNamespace(s, specs.UTSNamespace, of+"uts", true)
		}
	} else if b.hostNetwork() {
		setNamespace(s, specs.NetworkNamespace, "", false)
	}
	for _, n := range b.given.Linux.Namespaces {
		setNamespace(s, n.Type, n.Path, true)
	}
	switch {
	case b.given.Hostname != "":
		s.Hostname = b.given.Hostname
	case b.task.GetParent() != "":
	case b.hostNetwork():
		s.Hostname, _ = os.Hostname()
	default:
		s.Hostname = strings.Trim(b.id[:min(len(b.id), 12)], "-._:")
	}
	return nil
}

// hostNetwork is whether a container that is nested in none is in the host's
// network, as one that asks for nothing is.
func (b *builder) hostNetwork() bool {
	switch b.task.GetNetwork().GetMode() {
	case isolatorv1.Network_MODE_UNSPECIFIED, isolatorv1.Network_MODE_HOST, isolatorv1.Network_MODE_PARENT:
		return b.task.GetParent() == "" || b.task.GetNetwork().GetMode() == isolatorv1.Network_MODE_HOST
	}
	return false
}

func setNamespace(s *specs.Spec, kind specs.LinuxNamespaceType, path string, have bool) {
	s.Linux.Namespaces = slices.DeleteFunc(s.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == kind })
	if have {
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: kind, Path: path})
	}
}

// isNew tells whether a container has a namespace of its own.
func isNew(s *specs.Spec, kind specs.LinuxNamespaceType) bool {
	return slices.ContainsFunc(s.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == kind && n.Path == "" })
}

// mounts are containerd's own, the sandbox, and what the agent and other
// isolators have given.
func (b *builder) mounts(context.Context) error {
	s, o := b.spec, b.task.GetOptions()
	shm := uint64(o.GetShmBytes())
	if l := b.task.GetContainer().GetLinuxInfo(); shm == 0 && l.GetShmSize() > 0 {
		shm = uint64(l.GetShmSize()) << 20
	}
	s.Mounts = slices.DeleteFunc(s.Mounts, func(m specs.Mount) bool {
		return m.Destination == "/run" && b.image() != "" // it may have something there
	})
	for i, m := range s.Mounts {
		if m.Destination == "/dev/shm" && shm > 0 {
			s.Mounts[i].Options = append(slices.DeleteFunc(slices.Clone(m.Options), func(o string) bool { return strings.HasPrefix(o, "size=") }),
				"size="+strconv.FormatUint(shm, 10))
		}
	}
	if o.GetHostIpc() {
		b.mount(specs.Mount{Destination: "/dev/shm", Type: "bind", Source: "/dev/shm", Options: []string{"rbind", "nosuid", "nodev"}})
	} else if shared := b.sharedMemory(); shared != "" {
		b.mount(specs.Mount{Destination: "/dev/shm", Type: "bind", Source: shared, Options: []string{"rbind", "nosuid", "nodev", "noexec"}})
	}
	if b.sandbox != "" {
		b.mount(specs.Mount{Destination: b.inside, Type: "bind", Source: b.sandbox, Options: []string{"rbind", "rw"}})
	}
	for _, m := range b.given.Mounts {
		b.mount(m)
	}
	return nil
}

// mount adds a mount; an earlier one at the same place gives way.
func (b *builder) mount(m specs.Mount) {
	b.spec.Mounts = slices.DeleteFunc(b.spec.Mounts, func(have specs.Mount) bool {
		return filepath.Clean(have.Destination) == filepath.Clean(m.Destination)
	})
	b.spec.Mounts = append(b.spec.Mounts, m)
}

// volumes are what the task asks for, and what the image wants kept out of its
// file system: directories of the sandbox.
func (b *builder) volumes(ctx context.Context) error {
	for _, v := range b.task.GetContainer().GetVolumes() {
		m, err := b.Volume(v, b.task.GetParent(), b.sandbox, b.inside)
		if err != nil {
			return err
		}
		b.mount(m)
	}
	for _, text := range b.task.GetOptions().GetTmpfs() {
		path, options, _ := strings.Cut(text, ":")
		if !filepath.IsAbs(path) || filepath.Clean(path) == "/" {
			return status.Errorf(codes.InvalidArgument, "tmpfs %q: want an absolute path, and perhaps a colon and options", text)
		}
		m := specs.Mount{Destination: filepath.Clean(path), Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "nodev", "noexec"}}
		if options != "" {
			m.Options = append(m.Options, strings.Split(options, ",")...)
		}
		b.mount(m)
	}
	if err := b.fill(ctx); err != nil {
		return err
	}
	for i, path := range b.wanted {
		if b.sandbox == "" || slices.ContainsFunc(b.spec.Mounts, func(m specs.Mount) bool { return filepath.Clean(m.Destination) == path }) {
			continue
		}
		source, err := holder.InSandbox(b.sandbox, imageVolume(i))
		if err != nil {
			return status.Errorf(codes.FailedPrecondition, "volume %s of the image: %v", path, err)
		}
		b.mount(specs.Mount{Destination: path, Type: "bind", Source: source, Options: []string{"rbind", "rw"}})
	}
	return nil
}

// imageVolume is where in the sandbox a volume of the image is.
func imageVolume(i int) string { return ".volumes/" + strconv.Itoa(i) }

// fill puts into the image's volumes what the image has there.
func (b *builder) fill(ctx context.Context) error {
	volumes := map[string]string{}
	for i, path := range b.wanted {
		if !slices.ContainsFunc(b.spec.Mounts, func(m specs.Mount) bool { return filepath.Clean(m.Destination) == path }) {
			volumes[path] = imageVolume(i)
		}
	}
	if b.sandbox == "" || len(volumes) == 0 {
		return nil
	}
	found, err := b.images.Image(ctx, b.id)
	if err != nil {
		return b.failed(err)
	}
	root, err := os.OpenRoot(b.sandbox)
	if err != nil {
		return err
	}
	defer root.Close()
	return b.failed(b.images.Fill(ctx, b.id, found, root, volumes))
}

// rest is what the isolators before have said of what nothing else sets.
func (b *builder) rest(context.Context) error {
	s, g, o := b.spec, b.given, b.task.GetOptions()
	if len(g.Linux.Sysctl) > 0 || len(o.GetSysctls()) > 0 {
		s.Linux.Sysctl = map[string]string{}
	}
	for _, text := range o.GetSysctls() {
		name, value, ok := strings.Cut(text, "=")
		if !ok {
			return status.Errorf(codes.InvalidArgument, "sysctl %q: want NAME=VALUE", text)
		}
		s.Linux.Sysctl[name] = value
	}
	for name, value := range g.Linux.Sysctl {
		s.Linux.Sysctl[name] = value
	}
	s.Linux.MaskedPaths = append(s.Linux.MaskedPaths, g.Linux.MaskedPaths...)
	s.Linux.ReadonlyPaths = append(s.Linux.ReadonlyPaths, g.Linux.ReadonlyPaths...)
	s.Linux.MountLabel = g.Linux.MountLabel
	s.Root.Readonly = o.GetReadOnly() || g.Root != nil && g.Root.Readonly
	return nil
}
