package holder

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/mezzo-os/mezzo/plugins/internal/record"
	isolatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/isolator/v1"
)

// Load takes up the containers that an earlier process of this plugin left.
// Nothing is changed by it but in memory.
func (h *Holder) Load() error {
	entries, err := os.ReadDir(h.Dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !e.IsDir() || ValidID(e.Name()) != nil {
			continue
		}
		c := readContainer(filepath.Join(h.Dir, e.Name()))
		h.containers[c.ID] = c
		h.take(c)
	}
	return nil
}

// take finds out how a container is. One that leaves its status meanwhile is
// read again: the shim writes first and ends then.
func (h *Holder) take(c *Container) {
	if shim, err := record.Read(c.File(record.ShimFile)); err == nil {
		c.pid = shim.Int(record.Pid)
	}
	if status, err := c.readStatus(); err == nil {
		c.end(status, false)
		return
	}
	err := h.Follow(c)
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
		h.Logger.Error("a container's shim cannot be followed", "container_id", c.ID, "error", err)
		c.end(unknownStatus(), true)
	}
}

// Recover compares what the agent knows with what there is.
func (h *Holder) Recover(_ context.Context, r *isolatorv1.RecoverRequest) (*isolatorv1.RecoverResponse, error) {
	response := &isolatorv1.RecoverResponse{}
	known := map[string]bool{}
	for _, k := range r.GetContainers() {
		known[k.GetContainer()] = true
		if !k.GetLauncher() {
			continue
		}
		recovered := &isolatorv1.Recovered{Container: k.GetContainer(), State: isolatorv1.Recovered_STATE_LOST}
		if c, err := h.Find(k.GetContainer()); err == nil {
			recovered.State, recovered.Pid = c.state()
		} else if ValidID(k.GetContainer()) == nil {
			// Known again, so that Wait can say that its status is not known.
			h.lose(k.GetContainer())
		}
		response.Containers = append(response.Containers, recovered)
	}
	h.mu.Lock()
	for id := range h.containers {
		if !known[id] {
			response.Orphans = append(response.Orphans, id)
		}
	}
	h.mu.Unlock()
	slices.Sort(response.Orphans)
	h.Orphaned(len(response.Orphans))
	return response, nil
}

func (c *Container) state() (isolatorv1.Recovered_State, int64) {
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
func (h *Holder) lose(id string) {
	c := &Container{ID: id, Dir: filepath.Join(h.Dir, id), done: make(chan struct{}), absent: true}
	if _, err := os.Stat(c.Dir); !errors.Is(err, fs.ErrNotExist) {
		return
	}
	c.end(unknownStatus(), true)
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.containers[id] == nil {
		h.containers[id] = c
	}
}
