package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
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

	"github.com/mezzo-os/mezzo/plugins/isolator-cgroups/cgroup"
	"github.com/mezzo-os/mezzo/plugins/isolator-cgroups/record"
	isolatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/isolator/v1"
	v1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
)

// cgroups is the plugin.
type cgroups struct {
	logger hclog.Logger
	config Config
	shim   string       // the path of mezzo-shim
	dir    string       // a state directory a container
	host   *cgroup.Host // nil: no limits on this host

	settings settings

	closing  context.Context // ended by close
	close    context.CancelFunc
	watchers sync.WaitGroup // one a container
	children sync.WaitGroup // shims that this process started

	mu         sync.Mutex
	containers map[string]*container
	lastClass  uint32
	limits     chan struct{} // closed and replaced when a limitation is new
}

func newPlugin() *cgroups {
	p := &cgroups{logger: hclog.NewNullLogger(), containers: map[string]*container{}, limits: make(chan struct{})}
	p.closing, p.close = context.WithCancel(context.Background())
	return p
}

// limited wakes the streams that tell of limitations.
func (p *cgroups) limited() {
	p.mu.Lock()
	defer p.mu.Unlock()
	close(p.limits)
	p.limits = make(chan struct{})
}

// find returns a container by its id.
func (p *cgroups) find(id string) (*container, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if c := p.containers[id]; c != nil {
		return c, nil
	}
	return nil, status.Errorf(codes.NotFound, "container %s is not known to isolator cgroups", id)
}

// Claim launches everything that needs no image.
func (p *cgroups) Claim(_ context.Context, r *isolatorv1.ClaimRequest) (*isolatorv1.ClaimResponse, error) {
	info := r.GetTask().GetContainer()
	none := func(why string) (*isolatorv1.ClaimResponse, error) {
		return &isolatorv1.ClaimResponse{Claim: isolatorv1.ClaimResponse_CLAIM_NONE, Reason: why}, nil
	}
	switch {
	case info != nil && info.GetType() == v1.ContainerInfo_DOCKER:
		return none("isolator cgroups runs processes of the host; a container of type DOCKER needs an isolator that runs images, such as containerd")
	case info.GetMesos().GetImage() != nil:
		return none("isolator cgroups runs processes of the host and has no images; add an isolator that runs images, such as containerd")
	}
	if why := p.unable(r.GetTask()); why != "" {
		return none(why)
	}
	return &isolatorv1.ClaimResponse{Claim: isolatorv1.ClaimResponse_CLAIM_LAUNCH}, nil
}

// Prepare writes limits, cgroup and what they imply into the spec.
func (p *cgroups) Prepare(_ context.Context, r *isolatorv1.PrepareRequest) (*isolatorv1.PrepareResponse, error) {
	if err := validID(r.GetContainer()); err != nil {
		return nil, err
	}
	s, err := parseSpec(r.GetSpec())
	if err == nil {
		err = p.amend(r.GetContainer(), r.GetSandbox(), r.GetTask(), s)
	}
	if err == nil && s.Process != nil {
		err = wallRecord(&record.Record{}, s) // a profile's mistakes
	}
	if err != nil {
		return nil, subject(r.GetContainer(), err)
	}
	text, err := json.Marshal(s)
	if err != nil {
		return nil, err
	}
	return &isolatorv1.PrepareResponse{Spec: text}, nil
}

// cgroupPath is where a container's cgroups are: below its parent's.
func (p *cgroups) cgroupPath(id string, t *isolatorv1.Task) (string, error) {
	if t.GetParent() == "" {
		return id, nil
	}
	parent, err := p.find(t.GetParent())
	if err != nil {
		return "", status.Errorf(codes.FailedPrecondition, "its parent %s was not launched by isolator cgroups", t.GetParent())
	}
	return parent.group + "/" + id, nil
}

// handle is the plugin's note for the agent: its state directory tells all.
const handle = "1"

// Create makes the container's cgroups and its shim, which makes its process.
func (p *cgroups) Create(ctx context.Context, r *isolatorv1.CreateRequest) (*isolatorv1.CreateResponse, error) {
	id := r.GetContainer()
	if err := validID(id); err != nil {
		return nil, err
	}
	s, err := parseSpec(r.GetSpec())
	if err != nil {
		return nil, subject(id, err)
	}
	if s.Linux == nil {
		return nil, status.Errorf(codes.InvalidArgument, "container %s: its spec has not been prepared", id)
	}
	c := &container{id: id, dir: filepath.Join(p.dir, id), parent: r.GetTask().GetParent(), done: make(chan struct{})}
	if p.host != nil {
		if c.group, err = p.cgroupPath(id, r.GetTask()); err != nil {
			return nil, subject(id, err)
		}
	}
	p.mu.Lock()
	// One that Recover found missing may be made after all: the agent was about to.
	if old := p.containers[id]; old != nil && !old.absent {
		p.mu.Unlock()
		return nil, status.Errorf(codes.AlreadyExists, "container %s exists", id)
	}
	p.containers[id] = c
	p.mu.Unlock()
	netns, err := p.create(ctx, c, r, s)
	if err != nil {
		if e := p.remove(c); e != nil {
			p.logger.Error("a container that could not be created could not be removed either", "container", id, "error", e)
		}
		return nil, subject(id, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if netns != "" {
		netns = fmt.Sprintf("/proc/%d/ns/net", c.pid)
	}
	return &isolatorv1.CreateResponse{Pid: c.pid, Handle: []byte(handle), Netns: netns}, nil
}

func (p *cgroups) create(ctx context.Context, c *container, r *isolatorv1.CreateRequest, s *specs.Spec) (netns string, err error) {
	config, walls, network, err := shimRecord(r, s)
	if err != nil {
		return "", err
	}
	if s.Linux.Resources == nil {
		s.Linux.Resources = &specs.LinuxResources{}
	}
	if !shares(r.GetTask()) {
		if err := p.classify(c, s.Linux.Resources); err != nil {
			return "", err
		}
	}
	if err := c.writeMeta(); err != nil {
		return "", err
	}
	if p.host != nil {
		d, err := p.host.Create(c.group, s.Linux.Resources)
		if err != nil {
			return "", err
		}
		addDirectories(&config, d)
	}
	if err := record.Write(c.file(record.WallsFile), walls, false); err != nil {
		return "", err
	}
	if err := record.Write(c.file(record.ConfigFile), config, false); err != nil {
		return "", err
	}
	if _, err := p.launch(ctx, c); err != nil {
		return "", status.Error(codes.FailedPrecondition, err.Error())
	}
	if network {
		netns = "new"
	}
	return netns, p.follow(c)
}

// shimRecord is what the shim is told of the container, and what of that binds
// every other process in it as well.
func shimRecord(r *isolatorv1.CreateRequest, s *specs.Spec) (config, walls record.Record, network bool, err error) {
	if r.GetTask().GetSandboxOnly() {
		config.AddInt(record.NoProcess, 1)
	} else if err := processRecord(&config, s.Process); err != nil {
		return nil, nil, false, err
	}
	if network, err = namespaceRecord(&config, s); err != nil {
		return nil, nil, false, err
	}
	config.Add(record.Sandbox, r.GetSandbox())
	if !config.Has(record.NoProcess) {
		if err := wallRecord(&walls, s); err != nil {
			return nil, nil, false, err
		}
		for _, f := range walls {
			if !config.Has(f.Key) {
				config = append(config, f)
			}
		}
	}
	config.AddInt(record.LogBytes, int64(r.GetLogs().GetMaxBytes()))
	config.AddInt(record.LogFiles, int64(r.GetLogs().GetMaxFiles()))
	if r.GetLogs().GetTty() || s.Process != nil && s.Process.Terminal {
		config.AddInt(record.TTY, 1)
	}
	if at := r.GetDeadline(); at != nil {
		config.AddInt(record.Deadline, at.AsTime().UnixNano())
		config.AddInt(record.DeadlineGrace, int64(time.Duration(r.GetDeadlineGraceMs())*time.Millisecond))
	}
	return config, walls, network, nil
}

func addDirectories(r *record.Record, d cgroup.Directories) {
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

// gone is the answer when a container's shim cannot be asked any more: nothing
// to do for a container that has ended.
func gone(err error) bool { return errors.Is(err, errShimGone) }

// Start lets the container's process go.
func (p *cgroups) Start(ctx context.Context, r *isolatorv1.StartRequest) (*isolatorv1.StartResponse, error) {
	c, err := p.find(r.GetContainer())
	if err != nil {
		return nil, err
	}
	if _, err := c.ask(ctx, "start"); err != nil {
		if gone(err) {
			return nil, status.Errorf(codes.FailedPrecondition, "container %s has ended", c.id)
		}
		return nil, status.Errorf(codes.InvalidArgument, "container %s: %v", c.id, err)
	}
	c.mu.Lock()
	c.started = true
	c.mu.Unlock()
	return &isolatorv1.StartResponse{}, nil
}

// Wait returns when the container has ended.
func (p *cgroups) Wait(ctx context.Context, r *isolatorv1.WaitRequest) (*isolatorv1.WaitResponse, error) {
	c, err := p.find(r.GetContainer())
	if err != nil {
		return nil, err
	}
	select {
	case <-c.done:
		return &isolatorv1.WaitResponse{Status: c.status}, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-p.closing.Done():
		return nil, status.Error(codes.Unavailable, "isolator cgroups is shutting down; ask it again once it is back")
	}
}

// Signal signals the container's first process, or all.
func (p *cgroups) Signal(ctx context.Context, r *isolatorv1.SignalRequest) (*isolatorv1.SignalResponse, error) {
	if r.GetSignal() <= 0 || r.GetSignal() > 64 {
		return nil, status.Errorf(codes.InvalidArgument, "container %s: %d is no signal", r.GetContainer(), r.GetSignal())
	}
	c, err := p.find(r.GetContainer())
	if err != nil {
		return nil, err
	}
	fields := []record.Field{field(record.Signal, int64(r.GetSignal()))}
	if r.GetAll() {
		fields = append(fields, field(record.All, 1))
	}
	if _, err := c.ask(ctx, "signal", fields...); err != nil {
		if gone(err) {
			return nil, status.Errorf(codes.FailedPrecondition, "container %s has ended", c.id)
		}
		return nil, status.Errorf(codes.FailedPrecondition, "container %s: %v", c.id, err)
	}
	return &isolatorv1.SignalResponse{}, nil
}

// Kill hands signal and grace period to the shim, which holds them.
func (p *cgroups) Kill(ctx context.Context, r *isolatorv1.KillRequest) (*isolatorv1.KillResponse, error) {
	if r.GetSignal() < 0 || r.GetSignal() > 64 || r.GetGraceMs() < 0 {
		return nil, status.Errorf(codes.InvalidArgument, "container %s: signal %d, grace %d ms: neither may be negative, nor the signal above 64", r.GetContainer(), r.GetSignal(), r.GetGraceMs())
	}
	c, err := p.find(r.GetContainer())
	if err != nil {
		return nil, err
	}
	signal, grace := unix.Signal(r.GetSignal()), time.Duration(r.GetGraceMs())*time.Millisecond
	if p.host == nil {
		// Nothing else connects the processes of a group's containers.
		for _, child := range p.nested(c.id) {
			if err := child.kill(ctx, signal, grace); err != nil {
				return nil, status.Errorf(codes.Unavailable, "container %s: %v", child.id, err)
			}
		}
	}
	if err := c.kill(ctx, signal, grace); err != nil {
		return nil, status.Errorf(codes.Unavailable, "container %s: %v", c.id, err)
	}
	return &isolatorv1.KillResponse{}, nil
}

func (c *container) kill(ctx context.Context, signal unix.Signal, grace time.Duration) error {
	_, err := c.ask(ctx, "kill", field(record.Signal, int64(signal)), field(record.Grace, int64(grace)))
	if gone(err) {
		return nil // it has ended, or watch is about to find out that it has
	}
	return err
}

// nested are the containers below one, at any depth.
func (p *cgroups) nested(id string) []*container {
	p.mu.Lock()
	defer p.mu.Unlock()
	var below []*container
	parents := []string{id}
	for len(parents) > 0 {
		id, parents = parents[0], parents[1:]
		for _, c := range p.containers {
			if c.parent == id {
				below, parents = append(below, c), append(parents, c.id)
			}
		}
	}
	return below
}

// Update applies new limits. A memory limit is only ever raised: to take from
// a running process memory that it uses would be to kill it.
func (p *cgroups) Update(_ context.Context, r *isolatorv1.UpdateRequest) (*isolatorv1.UpdateResponse, error) {
	c, err := p.find(r.GetContainer())
	if err != nil {
		return nil, err
	}
	if c.ended() {
		return nil, status.Errorf(codes.FailedPrecondition, "container %s has ended", c.id)
	}
	if p.host == nil {
		return &isolatorv1.UpdateResponse{}, nil // there are no limits to change
	}
	resources := &specs.LinuxResources{}
	if len(r.GetSpec()) > 0 {
		s, err := parseSpec(r.GetSpec())
		if err != nil {
			return nil, subject(c.id, err)
		}
		if s.Linux != nil && s.Linux.Resources != nil {
			resources = s.Linux.Resources
		}
	}
	p.limitsOf(r.GetTask(), resources)
	if m := resources.Memory; m != nil && m.Limit != nil && *m.Limit > 0 {
		if now := int64(p.host.MemoryLimit(c.group)); now == 0 || *m.Limit < now {
			wanted := *m.Limit
			resources.Memory = &specs.LinuxMemory{Reservation: &wanted}
		}
	}
	if err := p.host.Update(c.group, resources); err != nil {
		return nil, status.Errorf(codes.Internal, "container %s: change its limits: %v", c.id, err)
	}
	return &isolatorv1.UpdateResponse{}, nil
}

// Limitations tells of the containers that exceeded their memory.
func (p *cgroups) Limitations(ctx context.Context, send func(*isolatorv1.Limitation) error) error {
	told := map[*container]bool{}
	for {
		p.mu.Lock()
		changed := p.limits
		all := make([]*container, 0, len(p.containers))
		for _, c := range p.containers {
			all = append(all, c)
		}
		p.mu.Unlock()
		slices.SortFunc(all, func(a, b *container) int { return strings.Compare(a.id, b.id) })
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
		case <-p.closing.Done():
			return status.Error(codes.Unavailable, "isolator cgroups is shutting down")
		}
	}
}

// Usage measures containers.
func (p *cgroups) Usage(_ context.Context, r *isolatorv1.UsageRequest) (*isolatorv1.UsageResponse, error) {
	ids := r.GetContainers()
	if len(ids) == 0 {
		p.mu.Lock()
		for id := range p.containers {
			ids = append(ids, id)
		}
		p.mu.Unlock()
		slices.Sort(ids)
	}
	response := &isolatorv1.UsageResponse{}
	for _, id := range ids {
		c, err := p.find(id)
		if err != nil {
			if len(r.GetContainers()) == 1 {
				return nil, err
			}
			continue
		}
		u, ok, err := p.measure(c)
		if err != nil {
			return nil, status.Errorf(codes.Internal, "container %s: measure: %v", id, err)
		}
		if ok {
			response.Usages = append(response.Usages, &isolatorv1.Usage{Container: id, Statistics: p.statistics(c, u)})
		}
	}
	return response, nil
}

// measure returns what a container uses; not ok when it has ended.
func (p *cgroups) measure(c *container) (u cgroup.Usage, ok bool, err error) {
	if c.ended() {
		return u, false, nil
	}
	if p.host == nil || c.group == "" {
		u, ok = c.treeUsage()
		return u, ok, nil
	}
	u, err = p.host.Stat(c.group)
	if errors.Is(err, fs.ErrNotExist) || c.ended() {
		return u, false, nil
	}
	return u, err == nil, err
}

// Cleanup removes a container with everything of it.
func (p *cgroups) Cleanup(ctx context.Context, r *isolatorv1.CleanupRequest) (*isolatorv1.CleanupResponse, error) {
	c, err := p.find(r.GetContainer())
	if err != nil {
		return &isolatorv1.CleanupResponse{}, nil
	}
	if !c.ended() {
		if err := c.kill(ctx, unix.SIGKILL, 0); err != nil {
			p.logger.Warn("a shim does not answer; ending it", "container", c.id, "error", err)
			c.killShim()
		}
		select {
		case <-c.done:
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(shimPatience):
			c.killShim()
		}
	}
	if err := p.remove(c); err != nil {
		return nil, status.Errorf(codes.Unavailable, "container %s: %v", c.id, err)
	}
	return &isolatorv1.CleanupResponse{}, nil
}

// remove takes away what there is of a container, its state directory last: as
// long as something is left, the directory says so.
func (p *cgroups) remove(c *container) error {
	p.killRest(c)
	if p.host != nil && c.group != "" {
		if err := p.host.Delete(c.group); err != nil {
			return err
		}
	}
	if err := os.RemoveAll(c.dir); err != nil {
		return err
	}
	c.end(unknownStatus(), true)
	p.mu.Lock()
	delete(p.containers, c.id)
	p.mu.Unlock()
	return nil
}
