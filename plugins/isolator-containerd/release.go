package main

import (
	"context"
	"errors"
	"fmt"
	"slices"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/mezzo-os/mezzo/plugins/internal/holder"
	isolatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/isolator/v1"
)

// release gives back what containerd has for a container: its task, with
// everything that still runs, its snapshot, its lease. What is not there is no
// error; that containerd is away is one, and the agent asks again.
func (p *plug) release(ctx context.Context, c *holder.Container) error {
	client, err := p.connection.get()
	if err != nil {
		return err
	}
	ctx = p.connection.in(ctx)
	if err := p.removeTask(ctx, client, name(c.ID)); err != nil {
		return p.failed(err)
	}
	p.endStray(name(c.ID))
	err = client.SnapshotService(p.snapshotter()).Remove(ctx, name(c.ID))
	if err != nil && !errdefs.IsNotFound(err) {
		return p.failed(fmt.Errorf("remove the container's file system: %w", err))
	}
	if err := p.disconnect(ctx, c); err != nil {
		return err
	}
	if err := p.images.Release(ctx, c.ID); err != nil {
		return p.failed(fmt.Errorf("give up the container's image: %w", err))
	}
	if err := unix.Unmount(c.File("shm"), unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("unmount the shared memory: %w", err)
	}
	// runc makes groups in hierarchies that limit nothing here, and leaves those
	// that others were nested in.
	if c.Group != "" {
		p.Host.Sweep(c.Group)
	}
	return nil
}

// removeTask removes a container of containerd's, with its task.
func (p *plug) removeTask(ctx context.Context, client *containerd.Client, name string) error {
	container, err := client.LoadContainer(ctx, name)
	if errdefs.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("find containerd's container: %w", err)
	}
	task, err := container.Task(ctx, nil)
	if err == nil {
		_, err = task.Delete(ctx, containerd.WithProcessKill)
	}
	if err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("remove the container's task: %w", err)
	}
	if err := container.Delete(ctx); err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("remove containerd's container: %w", err)
	}
	return nil
}

// Cleanup removes a container with everything of it, also one that only
// containerd knows of.
func (p *plug) Cleanup(ctx context.Context, r *isolatorv1.CleanupRequest) (*isolatorv1.CleanupResponse, error) {
	if _, err := p.Find(r.GetContainer()); err == nil {
		return p.Holder.Cleanup(ctx, r)
	}
	if holder.ValidID(r.GetContainer()) != nil {
		return &isolatorv1.CleanupResponse{}, nil // it never was
	}
	if err := p.release(ctx, p.Container(r.GetContainer())); err != nil {
		return nil, holder.Subject(r.GetContainer(), p.failed(err))
	}
	return &isolatorv1.CleanupResponse{}, nil
}

// Recover compares what the agent knows with what there is, in the state
// directory and in containerd. Of one that containerd has and nobody else knows
// the agent hears when containerd is there to be asked.
func (p *plug) Recover(ctx context.Context, r *isolatorv1.RecoverRequest) (*isolatorv1.RecoverResponse, error) {
	response, err := p.Holder.Recover(ctx, r)
	if err != nil {
		return nil, err
	}
	known := map[string]bool{}
	for _, k := range r.GetContainers() {
		known[k.GetContainer()] = true
	}
	for _, id := range response.GetOrphans() {
		known[id] = true
	}
	for _, id := range p.kept(p.connection.in(ctx)) {
		if !known[id] {
			known[id] = true
			p.Orphaned(1)
			response.Orphans = append(response.Orphans, id)
		}
	}
	slices.Sort(response.Orphans)
	return response, nil
}

// kept are the containers that containerd has something of, or the network, and
// that are this plugin's.
func (p *plug) kept(ctx context.Context) []string {
	ctx, cancel := context.WithTimeout(ctx, probePatience)
	defer cancel()
	ids, err := p.networks.Containers()
	if err != nil {
		p.Logger.Warn("the records of networks cannot be read", "error", err)
	}
	client, err := p.connection.get()
	if err != nil {
		p.Logger.Warn("containerd cannot be asked for containers that nobody knows", "error", err)
		return ids
	}
	list, err := client.ContainerService().List(ctx, fmt.Sprintf("labels.%q==%q", labelDirectory, p.Dir))
	for _, c := range list {
		ids = append(ids, c.Labels[labelContainer])
	}
	held, e := p.images.Held(ctx)
	for id := range held {
		ids = append(ids, id)
	}
	if err := errors.Join(err, e); err != nil {
		p.Logger.Warn("containerd cannot be asked for containers that nobody knows", "error", err)
	}
	slices.Sort(ids)
	return slices.Compact(ids)
}
