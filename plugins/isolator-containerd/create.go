package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/mezzo-os/mezzo/plugins/internal/cgroup"
	"github.com/mezzo-os/mezzo/plugins/internal/holder"
	"github.com/mezzo-os/mezzo/plugins/internal/record"
	isolatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/isolator/v1"
	v1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
)

// handle is the plugin's note for the agent: the state directory tells all.
const handle = "1"

// Where mezzo-init and its way to the shim are in every container.
const (
	initPath   = "/dev/.mezzo/init"
	socketPath = "/dev/.mezzo/shim"
)

// Labels of containerd's containers.
const (
	labelContainer = "mezzo.container" // the agent's name for it
	labelDirectory = "mezzo.directory" // whose it is: the plugin's state directory
)

// userFile, in a container's state directory, says who its process runs as.
const userFile = "user"

// initLog is where mezzo-init says why it cannot work.
const initLog = "init.log"

// Create makes the container, with mezzo-init in it that waits to be started.
func (p *plug) Create(ctx context.Context, r *isolatorv1.CreateRequest) (*isolatorv1.CreateResponse, error) {
	id := r.GetContainer()
	if err := holder.ValidID(id); err != nil {
		return nil, err
	}
	s, err := parseSpec(r.GetSpec())
	if err == nil && (s.Process == nil || s.Linux.CgroupsPath == "") {
		err = status.Error(codes.InvalidArgument, "its spec has not been prepared")
	}
	if err != nil {
		return nil, holder.Subject(id, err)
	}
	client, err := p.connection.get()
	if err != nil {
		return nil, err
	}
	c, err := p.Begin(r)
	if err != nil {
		return nil, err
	}
	m := &maker{plug: p, client: client, c: c, r: r, s: s}
	if err := m.create(p.connection.in(ctx)); err != nil {
		p.Logger.Debug("a container could not be created", "container_id", id, "error", err)
		undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoPatience)
		defer cancel()
		if e := m.undo(undo); e != nil {
			p.Logger.Error("a container that could not be created could not be removed either", "container_id", id, "error", e)
		}
		return nil, holder.Subject(id, p.failed(err))
	}
	return &isolatorv1.CreateResponse{Pid: c.Pid(), Handle: []byte(handle), Netns: m.netns, Networks: m.networked}, nil
}

// undoPatience is how long it may take to remove what a failed Create has made.
const undoPatience = 30 * time.Second

// failed gives an error of containerd's the code that says whether to try again.
func (p *plug) failed(err error) error {
	if err == nil {
		return nil
	}
	if code := status.Code(err); code != codes.Unknown && code != codes.OK {
		return err
	}
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	case errdefs.IsUnavailable(err), errdefs.IsCanceled(err), errdefs.IsDeadlineExceeded(err):
		return status.Error(codes.Unavailable, err.Error())
	case errdefs.IsInvalidArgument(err):
		return status.Error(codes.InvalidArgument, err.Error())
	case errdefs.IsResourceExhausted(err):
		return status.Error(codes.ResourceExhausted, err.Error())
	}
	return status.Error(codes.FailedPrecondition, err.Error())
}

// maker makes one container. Each step leaves for those after it what they need.
type maker struct {
	*plug
	client *containerd.Client
	c      *holder.Container
	r      *isolatorv1.CreateRequest
	s      *specs.Spec

	directories cgroup.Directories
	options     []containerd.NewContainerOpts
	mounts      []containerd.NewTaskOpts
	terminal    string // the task's, on the host
	launched    bool   // whether the shim runs
	netns       string
	networked   []*v1.NetworkInfo
	container   containerd.Container
	task        containerd.Task
}

// steps make the container, in an order in which whatever was made is found
// again by a process that knows nothing: the note first, and everything else
// under names that follow from it.
func (m *maker) steps() []step {
	return []step{
		{"gpus", m.takeGPUs}, {"note", m.note}, {"limit", m.limit}, {"root", m.root}, {"devices", m.giveGPUs}, {"launch", m.launch},
		{"network", m.network}, {"container", m.makeContainer}, {"task", m.makeTask}, {"adopt", m.adopt},
	}
}

// step is one, by the name that it is measured by.
type step struct {
	name string
	do   func(context.Context) error
}

func (m *maker) create(ctx context.Context) error {
	for _, step := range m.steps() {
		if err := m.Step(step.name, func() error { return step.do(ctx) }); err != nil {
			return err
		}
	}
	return nil
}

// undo removes what has been made so far.
func (m *maker) undo(ctx context.Context) error {
	if m.launched {
		return m.Discard(ctx, m.c)
	}
	return m.Remove(ctx, m.c)
}

func (m *maker) note(context.Context) error { return m.c.Note() }

// limit makes the container's cgroups. Which devices it may use is runc's affair,
// which adds those that every container has; everything else is limited here.
func (m *maker) limit(context.Context) (err error) {
	limits := *m.s.Linux.Resources
	m.s.Linux.Resources = &specs.LinuxResources{Devices: limits.Devices}
	limits.Devices = nil
	m.directories, err = m.Host.Create(m.c.Group, &limits)
	return err
}

// launch starts the container's shim.
func (m *maker) launch(ctx context.Context) error {
	config, err := m.shimRecord()
	if err != nil {
		return err
	}
	holder.AddDirectories(&config, m.directories)
	if err := record.Write(m.c.File(record.ConfigFile), config, false); err != nil {
		return err
	}
	answer, err := m.Launch(ctx, m.c)
	if err == nil {
		m.launched, m.terminal = true, answer.Get(record.Terminal)
		err = m.Follow(m.c)
	}
	if err != nil {
		return status.Error(codes.FailedPrecondition, err.Error())
	}
	return nil
}

// adopt gives the shim the container's first process.
func (m *maker) adopt(ctx context.Context) error {
	if err := m.Adopt(ctx, m.c, int64(m.task.Pid())); err != nil {
		return status.Error(codes.FailedPrecondition, err.Error())
	}
	if m.netns == "" && isNew(m.s, specs.NetworkNamespace) {
		m.netns = fmt.Sprintf("/proc/%d/ns/net", m.task.Pid())
	}
	return nil
}

// name is what containerd calls a container.
func name(id string) string {
	if len(id) <= 76 && validName.MatchString(id) {
		return id
	}
	sum := sha256.Sum256([]byte(id))
	return "mezzo-" + hex.EncodeToString(sum[:16])
}

var validName = regexp.MustCompile(`^[A-Za-z0-9]+(?:[._-](?:[A-Za-z0-9]+))*$`)

// root makes the container's root file system: a snapshot of its image, or the
// host's. Who the process runs as is looked up in it.
func (m *maker) root(ctx context.Context) error {
	t := m.r.GetTask()
	m.options = []containerd.NewContainerOpts{
		containerd.WithRuntime(m.config.Runtime, nil),
		containerd.WithContainerLabels(map[string]string{labelContainer: m.c.ID, labelDirectory: m.Dir}),
	}
	bind := func(source string) {
		m.mounts = []containerd.NewTaskOpts{containerd.WithRootFS([]mount.Mount{{Type: "bind", Source: source, Options: []string{"bind"}}})}
	}
	switch {
	case t.GetSandboxOnly():
		dir := m.c.File("root")
		if err := os.Mkdir(dir, 0o755); err != nil {
			return err
		}
		if err := m.makeSharedMemory(); err != nil {
			return err
		}
		bind(dir)
		return m.writeUser(specs.User{})
	case m.imageOf(t) == "":
		// Without the mounts below it: to take those away again would, where they
		// are shared, take them from the host.
		bind("/")
		return m.writeUser(m.s.Process.User)
	}
	found, err := m.images.Image(ctx, m.c.ID)
	if err != nil {
		return err
	}
	held := m.held(ctx)
	key := name(m.c.ID)
	if _, err := m.client.SnapshotService(m.snapshotter()).Prepare(held, key, found.Chain.String()); err != nil && !errdefs.IsAlreadyExists(err) {
		return fmt.Errorf("make the container's file system: %w", err)
	}
	if err := m.user(held, key, found.Config.User); err != nil {
		return err
	}
	m.options = append(m.options, containerd.WithImageName(found.Name()), containerd.WithSnapshotter(m.snapshotter()), containerd.WithSnapshot(key))
	return nil
}

func (p *plug) snapshotter() string {
	if p.config.Snapshotter != "" {
		return p.config.Snapshotter
	}
	return "overlayfs"
}

// user finds in the image who the process runs as. A task's own user whom the
// image does not know is the host's.
func (m *maker) user(ctx context.Context, key, images string) error {
	t, asked := m.r.GetTask(), m.s.Process.User
	name := m.config.UserOf(t, images)
	if name == "" || name == "root" {
		name = "0"
	}
	place := &containers.Container{ID: key, Snapshotter: m.snapshotter(), SnapshotKey: key}
	err := oci.ApplyOpts(ctx, m.client, place, m.s, oci.WithUser(name))
	plain, _, _ := strings.Cut(name, ":")
	if err == nil {
		err = oci.ApplyOpts(ctx, m.client, place, m.s, oci.WithAdditionalGIDs(plain))
	}
	// One whom the host does not know either is told as who the agent runs as,
	// root: nobody is root by mistake.
	if err != nil && name == t.GetUser() && t.GetOptions().GetUser() == "" && asked.UID != 0 {
		m.s.Process.User = asked
		err = nil
	}
	if err != nil {
		return status.Errorf(codes.InvalidArgument, "user %q is neither in the image nor on the host: %v", name, err)
	}
	m.s.Process.User.Username = ""
	return m.writeUser(asked)
}

// writeUser notes who the agent takes the task's user to be, and who that is in
// the container.
func (m *maker) writeUser(asked specs.User) error {
	r, u := record.Record{}, m.s.Process.User
	r.AddInt("asked", int64(asked.UID))
	r.AddInt(record.UID, int64(u.UID))
	r.AddInt(record.GID, int64(u.GID))
	for _, g := range u.AdditionalGids {
		r.AddInt(record.Group, int64(g))
	}
	r.Add("stop", m.s.Annotations[annotationStop])
	return record.Write(m.c.File(userFile), r, false)
}

// shimRecord is what the shim is told of the container.
func (m *maker) shimRecord() (record.Record, error) {
	config := record.Record{}
	config.AddInt(record.Guest, 1)
	if m.r.GetTask().GetSandboxOnly() {
		config.AddInt(record.NoProcess, 1)
	} else if len(m.s.Process.Args) == 0 {
		return nil, status.Error(codes.InvalidArgument, "the container's spec has no program to run (process.args)")
	}
	for _, v := range slices.Concat(m.s.Process.Args, m.s.Process.Env, []string{m.s.Process.Cwd}) {
		if strings.ContainsRune(v, 0) {
			return nil, status.Errorf(codes.InvalidArgument, "%q contains a zero byte", v)
		}
	}
	config.AddInt(record.UID, int64(m.s.Process.User.UID))
	config.AddInt(record.GID, int64(m.s.Process.User.GID))
	holder.AddKeeping(&config, m.r, m.s.Process)
	return config, nil
}

// enter puts mezzo-init before the task.
func (m *maker) enter() {
	bind := func(source, destination string, options ...string) {
		m.s.Mounts = append(m.s.Mounts, specs.Mount{Destination: destination, Type: "bind", Source: source, Options: append(options, "bind", "nosuid")})
	}
	bind(m.init, initPath, "ro")
	bind(m.c.File(record.GuestSocket), socketPath, "ro")
	if m.terminal != "" {
		bind(m.terminal, "/dev/console", "rw") // by which the task can find its terminal's name
	}
	args := []string{initPath, socketPath, m.s.Annotations[annotationExecute], "--"}
	m.s.Process.Args = append(args, m.s.Process.Args...)
	m.s.Process.Terminal = false
}

// makeContainer makes containerd's container.
func (m *maker) makeContainer(ctx context.Context) (err error) {
	m.enter()
	if m.container, err = m.client.NewContainer(m.held(ctx), name(m.c.ID), append(m.options, containerd.WithSpec(m.s))...); err != nil {
		return fmt.Errorf("make containerd's container: %w", err)
	}
	return nil
}

// makeTask makes its task, which is mezzo-init's process before its first
// instruction.
func (m *maker) makeTask(ctx context.Context) (err error) {
	if m.task, err = m.container.NewTask(m.held(ctx), cio.LogFile(m.c.File(initLog)), m.mounts...); err != nil {
		return fmt.Errorf("make the container's task: %w", explain(err))
	}
	return nil
}

// held is a context in which what containerd makes belongs to the container's
// image, where it has one, and is kept as long.
func (m *maker) held(ctx context.Context) context.Context {
	if m.imageOf(m.r.GetTask()) == "" {
		return ctx
	}
	return m.images.Context(ctx, m.c.ID)
}

// explain leaves out of an error what runc says of itself.
func explain(err error) error {
	text := err.Error()
	for _, noise := range []string{"failed to create shim task: ", "OCI runtime create failed: ", "runc create failed: ", "container_linux.go:380: starting container process caused: "} {
		text = strings.ReplaceAll(text, noise, "")
	}
	if text == err.Error() {
		return err
	}
	return &explained{text, err}
}

type explained struct {
	text string
	err  error
}

func (e *explained) Error() string { return e.text }
func (e *explained) Unwrap() error { return e.err }

// Start lets mezzo-init go, and it the task.
func (p *plug) Start(ctx context.Context, r *isolatorv1.StartRequest) (*isolatorv1.StartResponse, error) {
	c, err := p.Find(r.GetContainer())
	if err != nil {
		return nil, err
	}
	if c.Ended() {
		return nil, status.Errorf(codes.FailedPrecondition, "container %s has ended", c.ID)
	}
	if err := p.begin(p.connection.in(ctx), c); err != nil {
		return nil, holder.Subject(c.ID, p.failed(err))
	}
	return p.Holder.Start(ctx, r)
}

// begin starts containerd's task. One that runs already was started by a call
// whose answer was lost.
func (p *plug) begin(ctx context.Context, c *holder.Container) error {
	client, err := p.connection.get()
	if err != nil {
		return err
	}
	container, err := client.LoadContainer(ctx, name(c.ID))
	if err != nil {
		return fmt.Errorf("find containerd's container: %w", err)
	}
	task, err := container.Task(ctx, nil)
	if err != nil {
		return fmt.Errorf("find the container's task: %w", err)
	}
	state, err := task.Status(ctx)
	if err != nil {
		return fmt.Errorf("ask for the task's state: %w", err)
	}
	if state.Status != containerd.Created {
		return nil
	}
	if err := task.Start(ctx); err != nil {
		return fmt.Errorf("start the container's task: %w", explain(err))
	}
	return nil
}

// Update applies new limits. What is needed for it is in the cgroups.
func (p *plug) Update(_ context.Context, r *isolatorv1.UpdateRequest) (*isolatorv1.UpdateResponse, error) {
	c, err := p.Find(r.GetContainer())
	if err != nil {
		return nil, err
	}
	if c.Ended() {
		return nil, status.Errorf(codes.FailedPrecondition, "container %s has ended", c.ID)
	}
	resources := &specs.LinuxResources{}
	if len(r.GetSpec()) > 0 {
		s, err := parseSpec(r.GetSpec())
		if err != nil {
			return nil, holder.Subject(c.ID, err)
		}
		resources = s.Linux.Resources
	}
	p.policy().Limit(r.GetTask(), resources)
	if err := p.Relimit(c, resources); err != nil {
		return nil, err
	}
	return &isolatorv1.UpdateResponse{}, nil
}

// Kill asks the task to end by the signal that its image says, where the agent
// names none.
func (p *plug) Kill(ctx context.Context, r *isolatorv1.KillRequest) (*isolatorv1.KillResponse, error) {
	if c, err := p.Find(r.GetContainer()); err == nil && r.GetSignal() == 0 {
		if u, err := record.Read(c.File(userFile)); err == nil {
			if n, err := strconv.Atoi(u.Get("stop")); err == nil && n > 0 && n <= 64 {
				r = &isolatorv1.KillRequest{Container: r.GetContainer(), Signal: int32(n), GraceMs: r.GetGraceMs()}
			}
		}
	}
	return p.Holder.Kill(ctx, r)
}

// sharedMemory is the directory of /dev/shm that the containers of a group
// share; "": there is none.
func (b *builder) sharedMemory() string {
	if b.task.GetParent() == "" || isNew(b.spec, specs.IPCNamespace) {
		return ""
	}
	c, err := b.Find(b.task.GetParent())
	if err != nil {
		return ""
	}
	dir := c.File("shm")
	if _, err := os.Stat(dir); err != nil {
		return ""
	}
	return dir
}

// makeSharedMemory mounts what the containers of a group share.
func (m *maker) makeSharedMemory() error {
	dir := m.c.File("shm")
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	size := uint64(64 << 20)
	if n := m.r.GetTask().GetOptions().GetShmBytes(); n > 0 {
		size = n
	}
	return unix.Mount("shm", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=1777,size="+strconv.FormatUint(size, 10))
}

func isArchive(reference string) bool {
	for _, scheme := range []string{"file:", "http:", "https:"} {
		if strings.HasPrefix(reference, scheme) {
			return true
		}
	}
	return false
}
