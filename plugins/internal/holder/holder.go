// Package holder is what the isolators that launch have in common: containers
// that a mezzo-shim each holds, in cgroups of their own.
//
// The shim of a container has its output, its exit status and the deadlines of
// its killing, and outlives the plugin. What a Holder knows it can read again
// from its directory, where each container has one of its own, and from the
// shims. How the first process of a container comes to be is the plugin's own
// affair: the shim starts it (isolator-cgroups), or another runtime does and
// mezzo-init in it connects to the shim (isolator-containerd).
//
// A plugin embeds a Holder and has by that the methods Start, Wait, Signal,
// Kill, Usage, Limitations, Exec, Attach, Cleanup and Recover of the contract.
package holder

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/mezzo-os/mezzo/plugins/internal/cgroup"
	"github.com/mezzo-os/mezzo/plugins/internal/perf"
	"github.com/mezzo-os/mezzo/plugins/internal/record"
	"github.com/mezzo-os/mezzo/sdk/metric"
	"github.com/mezzo-os/mezzo/sdk/plugin"
	isolatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/isolator/v1"
)

// ShimName is the program that holds a container, a companion of the plugin.
const ShimName = "mezzo-shim"

// Holder has a plugin's containers. The exported fields are set before Load and
// not changed afterwards; the methods are safe for concurrent use.
type Holder struct {
	Name   string // the plugin's, for messages
	Logger hclog.Logger
	Shim   string       // the path of mezzo-shim
	Dir    string       // a state directory a container
	Host   *cgroup.Host // nil: no limits on this host
	Perf   *perf.Set    // events that are counted of each container; nil: none, as without Host
	// Release gives back what the plugin itself made for a container that has
	// ended; idempotent. Nil: there is nothing of the kind.
	Release func(context.Context, *Container) error
	// Removed is told of a container that is not known any more. Nil: nobody is.
	Removed func(*Container)
	// Metrics are the Holder's own; a plugin adds its own to them.
	Metrics *metric.Set

	counts   counts
	closing  context.Context // ended by Close
	cancel   context.CancelFunc
	watchers sync.WaitGroup // one a container
	children sync.WaitGroup // shims that this process started

	mu         sync.Mutex
	containers map[string]*Container
	limits     chan struct{} // closed and replaced when a limitation is new
}

// Place has the state of containers in the operator's directory, or in the
// plugin's own where that is empty, and makes what is not there.
func (h *Holder) Place(runtimeDir, dataDir string) []plugin.Diagnostic {
	h.Dir = filepath.Join(cmp.Or(runtimeDir, dataDir), "containers")
	if err := os.MkdirAll(h.Dir, 0o700); err != nil {
		return []plugin.Diagnostic{plugin.Errorf("the runtime directory cannot be made", "runtime_dir", "%v.", err)}
	}
	return nil
}

// New returns a Holder without containers.
func New(name string) *Holder {
	h := &Holder{Name: name, Logger: hclog.NewNullLogger(), containers: map[string]*Container{}, limits: make(chan struct{})}
	h.closing, h.cancel = context.WithCancel(context.Background())
	h.declare()
	return h
}

// Close ends what goes on in this process; the containers live on. The shims
// that it has started are not waited for.
func (h *Holder) Close() {
	h.cancel()
	h.watchers.Wait()
}

// Closing ends when the Holder is closed.
func (h *Holder) Closing() context.Context { return h.closing }

// Reaped waits until the shims that this process started have ended.
func (h *Holder) Reaped() { h.children.Wait() }

// Container returns a container that is not known yet, without Parent and Group.
func (h *Holder) Container(id string) *Container {
	return &Container{ID: id, Dir: filepath.Join(h.Dir, id), done: make(chan struct{})}
}

// Begin makes a container known that is about to be created. One that Recover
// found missing may be made after all: the agent was about to.
func (h *Holder) Begin(r *isolatorv1.CreateRequest) (c *Container, err error) {
	c = h.Container(r.GetContainer())
	c.Parent = r.GetTask().GetParent()
	if c.Group, err = h.Group(c.ID, c.Parent); err != nil {
		return nil, Subject(c.ID, err)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if old := h.containers[c.ID]; old != nil && !old.absent {
		return nil, status.Errorf(codes.AlreadyExists, "container %s exists", c.ID)
	}
	h.containers[c.ID] = c
	return c, nil
}

// All are the containers that are known, by their ids.
func (h *Holder) All() []*Container {
	h.mu.Lock()
	defer h.mu.Unlock()
	all := make([]*Container, 0, len(h.containers))
	for _, c := range h.containers {
		all = append(all, c)
	}
	slices.SortFunc(all, func(a, b *Container) int { return strings.Compare(a.ID, b.ID) })
	return all
}

// Group is where a container's cgroups are: below its parent's.
func (h *Holder) Group(id, parent string) (string, error) {
	if h.Host == nil {
		return "", nil
	}
	if parent == "" {
		return id, nil
	}
	c, err := h.Find(parent)
	if err != nil {
		return "", status.Errorf(codes.FailedPrecondition, "its parent %s was not launched by isolator %s", parent, h.Name)
	}
	return c.Group + "/" + id, nil
}

// limited wakes the streams that tell of limitations.
func (h *Holder) limited() {
	h.mu.Lock()
	defer h.mu.Unlock()
	close(h.limits)
	h.limits = make(chan struct{})
}

// Find returns a container by its id.
func (h *Holder) Find(id string) (*Container, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if c := h.containers[id]; c != nil {
		return c, nil
	}
	return nil, status.Errorf(codes.NotFound, "container %s is not known to isolator %s", id, h.Name)
}

// gone is the answer when a container's shim cannot be asked any more: nothing
// to do for a container that has ended.
func gone(err error) bool { return errors.Is(err, errShimGone) }

// Start lets the container's process go.
func (h *Holder) Start(ctx context.Context, r *isolatorv1.StartRequest) (*isolatorv1.StartResponse, error) {
	c, err := h.Find(r.GetContainer())
	if err != nil {
		return nil, err
	}
	if err := c.ask(ctx, "start"); err != nil {
		if gone(err) {
			return nil, status.Errorf(codes.FailedPrecondition, "container %s has ended", c.ID)
		}
		return nil, status.Errorf(codes.InvalidArgument, "container %s: %v", c.ID, err)
	}
	c.mu.Lock()
	c.started = true
	c.mu.Unlock()
	return &isolatorv1.StartResponse{}, nil
}

// Wait returns when the container has ended.
func (h *Holder) Wait(ctx context.Context, r *isolatorv1.WaitRequest) (*isolatorv1.WaitResponse, error) {
	c, err := h.Find(r.GetContainer())
	if err != nil {
		return nil, err
	}
	select {
	case <-c.done:
		return &isolatorv1.WaitResponse{Status: c.status}, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-h.closing.Done():
		return nil, status.Error(codes.Unavailable, "isolator "+h.Name+" is shutting down; ask it again once it is back")
	}
}

// Signal signals the container's first process, or all.
func (h *Holder) Signal(ctx context.Context, r *isolatorv1.SignalRequest) (*isolatorv1.SignalResponse, error) {
	if r.GetSignal() <= 0 || r.GetSignal() > 64 {
		return nil, status.Errorf(codes.InvalidArgument, "container %s: %d is no signal", r.GetContainer(), r.GetSignal())
	}
	c, err := h.Find(r.GetContainer())
	if err != nil {
		return nil, err
	}
	fields := []record.Field{field(record.Signal, int64(r.GetSignal()))}
	if r.GetAll() {
		fields = append(fields, field(record.All, 1))
	}
	if err := c.ask(ctx, "signal", fields...); err != nil {
		if gone(err) {
			return nil, status.Errorf(codes.FailedPrecondition, "container %s has ended", c.ID)
		}
		return nil, status.Errorf(codes.FailedPrecondition, "container %s: %v", c.ID, err)
	}
	return &isolatorv1.SignalResponse{}, nil
}

// Kill hands signal and grace period to the shim, which holds them.
func (h *Holder) Kill(ctx context.Context, r *isolatorv1.KillRequest) (*isolatorv1.KillResponse, error) {
	if r.GetSignal() < 0 || r.GetSignal() > 64 || r.GetGraceMs() < 0 {
		return nil, status.Errorf(codes.InvalidArgument, "container %s: signal %d, grace %d ms: neither may be negative, nor the signal above 64", r.GetContainer(), r.GetSignal(), r.GetGraceMs())
	}
	c, err := h.Find(r.GetContainer())
	if err != nil {
		return nil, err
	}
	signal, grace := unix.Signal(r.GetSignal()), time.Duration(r.GetGraceMs())*time.Millisecond
	if h.Host == nil {
		// Nothing else connects the processes of a group's containers.
		for _, child := range h.nested(c.ID) {
			if err := child.kill(ctx, signal, grace); err != nil {
				return nil, status.Errorf(codes.Unavailable, "container %s: %v", child.ID, err)
			}
		}
	}
	if err := c.kill(ctx, signal, grace); err != nil {
		return nil, status.Errorf(codes.Unavailable, "container %s: %v", c.ID, err)
	}
	return &isolatorv1.KillResponse{}, nil
}

func (c *Container) kill(ctx context.Context, signal unix.Signal, grace time.Duration) error {
	err := c.ask(ctx, "kill", field(record.Signal, int64(signal)), field(record.Grace, int64(grace)))
	if gone(err) {
		return nil // it has ended, or watch is about to find out that it has
	}
	return err
}

// nested are the containers below one, at any depth.
func (h *Holder) nested(id string) []*Container {
	h.mu.Lock()
	defer h.mu.Unlock()
	var below []*Container
	parents := []string{id}
	for len(parents) > 0 {
		id, parents = parents[0], parents[1:]
		for _, c := range h.containers {
			if c.Parent == id {
				below, parents = append(below, c), append(parents, c.ID)
			}
		}
	}
	return below
}

// Limitations tells of the containers that exceeded their memory.
func (h *Holder) Limitations(ctx context.Context, send func(*isolatorv1.Limitation) error) error {
	told := map[*Container]bool{}
	for {
		h.mu.Lock()
		changed := h.limits
		h.mu.Unlock()
		all := h.All()
		for _, c := range all {
			c.mu.Lock()
			l := c.limitation
			c.mu.Unlock()
			if l == nil || told[c] {
				continue
			}
			if err := send(l); err != nil {
				return err
			}
			told[c] = true
		}
		for c := range told {
			if !slices.Contains(all, c) {
				delete(told, c)
			}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		case <-h.closing.Done():
			return status.Error(codes.Unavailable, "isolator "+h.Name+" is shutting down")
		}
	}
}

// Usage measures containers.
func (h *Holder) Usage(_ context.Context, r *isolatorv1.UsageRequest) (*isolatorv1.UsageResponse, error) {
	ids := r.GetContainers()
	if len(ids) == 0 {
		h.mu.Lock()
		for id := range h.containers {
			ids = append(ids, id)
		}
		h.mu.Unlock()
		slices.Sort(ids)
	}
	response := &isolatorv1.UsageResponse{}
	for _, id := range ids {
		c, err := h.Find(id)
		if err != nil {
			if len(r.GetContainers()) == 1 {
				return nil, err
			}
			continue
		}
		u, ok, err := h.measure(c)
		if err != nil {
			return nil, status.Errorf(codes.Internal, "container %s: measure: %v", id, err)
		}
		if ok {
			response.Usages = append(response.Usages, &isolatorv1.Usage{Container: id, Statistics: h.statistics(c, u)})
		}
	}
	return response, nil
}

// measure returns what a container uses; not ok when it has ended.
func (h *Holder) measure(c *Container) (u cgroup.Usage, ok bool, err error) {
	if c.Ended() {
		return u, false, nil
	}
	if h.Host == nil || c.Group == "" {
		u, ok = c.treeUsage()
		return u, ok, nil
	}
	u, err = h.Host.Stat(c.Group)
	if errors.Is(err, fs.ErrNotExist) || c.Ended() {
		return u, false, nil
	}
	return u, err == nil, err
}

// Cleanup removes a container with everything of it.
func (h *Holder) Cleanup(ctx context.Context, r *isolatorv1.CleanupRequest) (*isolatorv1.CleanupResponse, error) {
	c, err := h.Find(r.GetContainer())
	if err != nil {
		return &isolatorv1.CleanupResponse{}, nil
	}
	if err := h.Discard(ctx, c); err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, status.Errorf(codes.Unavailable, "container %s: %s", c.ID, Message(err))
	}
	return &isolatorv1.CleanupResponse{}, nil
}

// Discard ends a container and removes it.
func (h *Holder) Discard(ctx context.Context, c *Container) error {
	if !c.Ended() {
		if err := c.kill(ctx, unix.SIGKILL, 0); err != nil {
			h.Logger.Warn("a shim does not answer; ending it", "container_id", c.ID, "error", err)
			h.killShim(c)
		}
		select {
		case <-c.done:
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(shimPatience):
			h.killShim(c)
		}
	}
	return h.Remove(ctx, c)
}

// Remove takes away what there is of a container, its state directory last: as
// long as something is left, the directory says so.
func (h *Holder) Remove(ctx context.Context, c *Container) error {
	h.killRest(c)
	if h.Release != nil {
		if err := h.Release(ctx, c); err != nil {
			return err
		}
	}
	if h.Host != nil && c.Group != "" {
		if err := h.Host.Delete(c.Group); err != nil {
			return err
		}
	}
	if err := os.RemoveAll(c.Dir); err != nil {
		return err
	}
	c.end(unknownStatus(), true)
	h.mu.Lock()
	delete(h.containers, c.ID)
	h.mu.Unlock()
	if h.Removed != nil {
		h.Removed(c)
	}
	return nil
}

// Relimit applies new limits. A memory limit is only ever raised: to take from
// a running process memory that it uses would be to kill it.
func (h *Holder) Relimit(c *Container, resources *specs.LinuxResources) error {
	if m := resources.Memory; m != nil && m.Limit != nil && *m.Limit > 0 {
		if now := int64(h.Host.MemoryLimit(c.Group)); now == 0 || *m.Limit < now {
			wanted := *m.Limit
			resources.Memory = &specs.LinuxMemory{Reservation: &wanted}
		}
	}
	if err := h.Host.Update(c.Group, resources); err != nil {
		return status.Errorf(codes.Internal, "container %s: change its limits: %v", c.ID, err)
	}
	return nil
}

// Adopt tells the shim of a container whose first process is a guest's which one
// that is.
func (h *Holder) Adopt(ctx context.Context, c *Container, pid int64) error {
	if err := c.ask(ctx, "adopt", field(record.Pid, pid)); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pid = pid
	return nil
}

// AddKeeping tells a shim how to keep a container: where its output goes and
// when its time is over.
func AddKeeping(config *record.Record, r *isolatorv1.CreateRequest, process *specs.Process) {
	config.Add(record.Sandbox, r.GetSandbox())
	config.AddInt(record.LogBytes, int64(r.GetLogs().GetMaxBytes()))
	config.AddInt(record.LogFiles, int64(r.GetLogs().GetMaxFiles()))
	if r.GetLogs().GetTty() || process != nil && process.Terminal {
		config.AddInt(record.TTY, 1)
	}
	if at := r.GetDeadline(); at != nil {
		config.AddInt(record.Deadline, at.AsTime().UnixNano())
		config.AddInt(record.DeadlineGrace, int64(time.Duration(r.GetDeadlineGraceMs())*time.Millisecond))
	}
}

// AddDirectories tells a shim of the container's cgroups.
func AddDirectories(r *record.Record, d cgroup.Directories) {
	for key, dirs := range map[string][]string{
		record.Cgroup: d.Join, record.KillV2: d.KillV2, record.Freezer: d.Freezers, record.Tree: d.Trees, record.MemoryTop: d.Ancestors,
	} {
		for _, dir := range dirs {
			r.Add(key, dir)
		}
	}
	if d.MemoryV1 != "" {
		r.Add(record.MemoryV1, d.MemoryV1)
	}
	if d.MemoryV2 != "" {
		r.Add(record.MemoryV2, d.MemoryV2)
	}
}
