package main

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"

	"github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/mezzo-os/mezzo/plugins/internal/cgroup"
	"github.com/mezzo-os/mezzo/plugins/internal/holder"
	"github.com/mezzo-os/mezzo/plugins/internal/record"
	isolatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/isolator/v1"
	v1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
)

// cgroups is the plugin.
type cgroups struct {
	*holder.Holder
	config   Config
	settings settings

	classing  sync.Mutex
	lastClass uint32
	// assigning guards what containers have to themselves, until they are noted
	// and what follows for others is done.
	assigning sync.Mutex
}

func newPlugin() *cgroups {
	p := &cgroups{Holder: holder.New("cgroups")}
	p.Removed = p.removed
	return p
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
	if _, err := p.wantedGPUs(r.GetTask()); err != nil {
		return none(holder.Message(err))
	}
	return &isolatorv1.ClaimResponse{Claim: isolatorv1.ClaimResponse_CLAIM_LAUNCH}, nil
}

// Prepare writes limits, cgroup and what they imply into the spec.
func (p *cgroups) Prepare(_ context.Context, r *isolatorv1.PrepareRequest) (*isolatorv1.PrepareResponse, error) {
	if err := holder.ValidID(r.GetContainer()); err != nil {
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
		return nil, holder.Subject(r.GetContainer(), err)
	}
	text, err := json.Marshal(s)
	if err != nil {
		return nil, err
	}
	return &isolatorv1.PrepareResponse{Spec: text}, nil
}

// handle is the plugin's note for the agent: its state directory tells all.
const handle = "1"

// Create makes the container's cgroups and its shim, which makes its process.
func (p *cgroups) Create(ctx context.Context, r *isolatorv1.CreateRequest) (*isolatorv1.CreateResponse, error) {
	id := r.GetContainer()
	if err := holder.ValidID(id); err != nil {
		return nil, err
	}
	s, err := parseSpec(r.GetSpec())
	if err != nil {
		return nil, holder.Subject(id, err)
	}
	if s.Linux == nil {
		return nil, status.Errorf(codes.InvalidArgument, "container %s: its spec has not been prepared", id)
	}
	c, err := p.Begin(r)
	if err != nil {
		return nil, err
	}
	netns, err := p.create(ctx, c, r, s)
	if err != nil {
		if e := p.Remove(ctx, c); e != nil {
			p.Logger.Error("a container that could not be created could not be removed either", "container_id", id, "error", e)
		}
		return nil, holder.Subject(id, err)
	}
	if netns != "" {
		netns = fmt.Sprintf("/proc/%d/ns/net", c.Pid())
	}
	return &isolatorv1.CreateResponse{Pid: c.Pid(), Handle: []byte(handle), Netns: netns}, nil
}

func (p *cgroups) create(ctx context.Context, c *holder.Container, r *isolatorv1.CreateRequest, s *specs.Spec) (netns string, err error) {
	if err := hasNetwork(r.GetTask(), s); err != nil {
		return "", err
	}
	if s.Linux.Resources == nil {
		s.Linux.Resources = &specs.LinuxResources{}
	}
	if !cgroup.Shares(r.GetTask()) {
		if err := p.classify(c, s.Linux.Resources); err != nil {
			return "", err
		}
	}
	if err := p.Step("limit", func() error { return p.makeGroup(c, r, s) }); err != nil {
		return "", err
	}
	config, walls, network, err := shimRecord(r, s)
	if err != nil {
		return "", err
	}
	if p.Host != nil {
		holder.AddDirectories(&config, p.Host.Directories(c.Group))
	}
	if err := record.Write(c.File(record.WallsFile), walls, false); err != nil {
		return "", err
	}
	if err := record.Write(c.File(record.ConfigFile), config, false); err != nil {
		return "", err
	}
	if err := p.Step("launch", func() error { _, err := p.Launch(ctx, c); return err }); err != nil {
		return "", status.Error(codes.FailedPrecondition, err.Error())
	}
	if network {
		netns = "new"
	}
	return netns, p.Follow(c)
}

// makeGroup notes the container, with the processors and GPUs that are its own,
// and makes its cgroups.
func (p *cgroups) makeGroup(c *holder.Container, r *isolatorv1.CreateRequest, s *specs.Spec) error {
	p.assigning.Lock()
	exclusive := len(p.settings.processors) > 0
	if exclusive { // what others run on may follow of it
		defer p.assigning.Unlock()
	}
	err := p.assign(c, r.GetTask(), s)
	if !exclusive {
		p.assigning.Unlock()
	}
	if err == nil {
		err = c.Note()
	}
	if err != nil || p.Host == nil {
		return err
	}
	if _, err := p.Host.Create(c.Group, s.Linux.Resources); err != nil {
		return err
	}
	if len(c.CPUs) > 0 {
		p.rebalance()
	}
	return nil
}

// shimRecord is what the shim is told of the container, and what of that binds
// every other process in it as well.
func shimRecord(r *isolatorv1.CreateRequest, s *specs.Spec) (config, walls record.Record, network bool, err error) {
	if r.GetTask().GetSandboxOnly() {
		config.AddInt(record.NoProcess, 1)
	} else if err := holder.ProcessRecord(&config, s.Process); err != nil {
		return nil, nil, false, err
	}
	if network, err = namespaceRecord(&config, s); err != nil {
		return nil, nil, false, err
	}
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
	holder.AddKeeping(&config, r, s.Process)
	return config, walls, network, nil
}

// Update applies new limits. A memory limit is only ever raised: to take from
// a running process memory that it uses would be to kill it.
func (p *cgroups) Update(_ context.Context, r *isolatorv1.UpdateRequest) (*isolatorv1.UpdateResponse, error) {
	c, err := p.Find(r.GetContainer())
	if err != nil {
		return nil, err
	}
	if c.Ended() {
		return nil, status.Errorf(codes.FailedPrecondition, "container %s has ended", c.ID)
	}
	if p.Host == nil {
		return &isolatorv1.UpdateResponse{}, nil // there are no limits to change
	}
	resources := &specs.LinuxResources{}
	if len(r.GetSpec()) > 0 {
		s, err := parseSpec(r.GetSpec())
		if err != nil {
			return nil, holder.Subject(c.ID, err)
		}
		if s.Linux != nil && s.Linux.Resources != nil {
			resources = s.Linux.Resources
		}
	}
	p.limitsOf(r.GetTask(), resources)
	if len(p.settings.processors) > 0 {
		p.assigning.Lock()
		defer p.assigning.Unlock()
		if own := p.processorsFor(c); own != "" {
			if resources.CPU == nil {
				resources.CPU = &specs.LinuxCPU{}
			}
			resources.CPU.Cpus = own
		}
	}
	if err := p.Relimit(c, resources); err != nil {
		return nil, err
	}
	return &isolatorv1.UpdateResponse{}, nil
}
