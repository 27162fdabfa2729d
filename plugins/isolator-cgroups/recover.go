package main

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/mezzo-os/mezzo/plugins/isolator-cgroups/record"
	isolatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/isolator/v1"
)

// load takes up the containers that an earlier process of this plugin left.
// Nothing is changed by it but in memory.
func (p *cgroups) load() error {
	entries, err := os.ReadDir(p.dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !e.IsDir() || validID(e.Name()) != nil {
			continue
		}
		c := readContainer(filepath.Join(p.dir, e.Name()))
		p.containers[c.id] = c
		p.take(c)
	}
	return nil
}

// take finds out how a container is. One that leaves its status meanwhile is
// read again: the shim writes first and ends then.
func (p *cgroups) take(c *container) {
	if shim, err := record.Read(c.file(record.ShimFile)); err == nil {
		c.pid = shim.Int(record.Pid)
	}
	if status, err := c.readStatus(); err == nil {
		c.end(status, false)
		return
	}
	err := p.follow(c)
	if err == nil {
		return
	}
	status, e := c.readStatus()
	switch {
	case e == nil:
		c.end(status, false)
	case errors.Is(err, errShimGone):
		c.end(unknownStatus(), true)
	default:
		p.logger.Error("a container's shim cannot be followed", "container", c.id, "error", err)
		c.end(unknownStatus(), true)
	}
}

// Recover compares what the agent knows with what there is.
func (p *cgroups) Recover(_ context.Context, r *isolatorv1.RecoverRequest) (*isolatorv1.RecoverResponse, error) {
	response := &isolatorv1.RecoverResponse{}
	known := map[string]bool{}
	for _, k := range r.GetContainers() {
		known[k.GetContainer()] = true
		if !k.GetLauncher() {
			continue
		}
		recovered := &isolatorv1.Recovered{Container: k.GetContainer(), State: isolatorv1.Recovered_STATE_LOST}
		if c, err := p.find(k.GetContainer()); err == nil {
			recovered.State, recovered.Pid = c.state()
		} else if validID(k.GetContainer()) == nil {
			// Known again, so that Wait can say that its status is not known.
			p.lose(k.GetContainer())
		}
		response.Containers = append(response.Containers, recovered)
	}
	p.mu.Lock()
	for id := range p.containers {
		if !known[id] {
			response.Orphans = append(response.Orphans, id)
		}
	}
	p.mu.Unlock()
	slices.Sort(response.Orphans)
	return response, nil
}

func (c *container) state() (isolatorv1.Recovered_State, int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.lost, c.unstarted && c.status != nil:
		return isolatorv1.Recovered_STATE_LOST, 0
	case c.status != nil:
		return isolatorv1.Recovered_STATE_EXITED, 0
	case c.started:
		return isolatorv1.Recovered_STATE_RUNNING, c.pid
	}
	return isolatorv1.Recovered_STATE_CREATED, c.pid
}

// lose makes a container known of which nothing is left.
func (p *cgroups) lose(id string) {
	c := &container{id: id, dir: filepath.Join(p.dir, id), done: make(chan struct{}), absent: true}
	if _, err := os.Stat(c.dir); !errors.Is(err, fs.ErrNotExist) {
		return
	}
	c.end(unknownStatus(), true)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.containers[id] == nil {
		p.containers[id] = c
	}
}
