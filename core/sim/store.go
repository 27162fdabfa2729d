package sim

import (
	"bytes"
	"context"
	"maps"
	"slices"
	"sync"

	"github.com/mezzo-os/mezzo/core/registry"
)

// store is a registry in memory: what masters write lies in it, and each of them
// has a handle of its own. It keeps the registry's contract, which its test
// proves; what goes wrong with it is up to who uses it.
type store struct {
	mu       sync.Mutex // for that test; a world is one goroutine
	entries  map[string]registry.Entry
	versions uint64 // the newest that was given
	epoch    uint64
}

// handle is one process's use of a store.
type handle struct {
	*store
	closed bool
}

var _ registry.Registry = (*handle)(nil)

func newStore() *store { return &store{entries: map[string]registry.Entry{}} }

func (s *store) open() *handle { return &handle{store: s} }

func (h *handle) Acquire(context.Context) (uint64, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return 0, registry.ErrClosed
	}
	h.epoch++
	return h.epoch, nil
}

func (h *handle) Epoch(context.Context) (uint64, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return 0, registry.ErrClosed
	}
	return h.epoch, nil
}

func (h *handle) Load(context.Context) ([]registry.Entry, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return nil, registry.ErrClosed
	}
	var out []registry.Entry
	for _, key := range slices.Sorted(maps.Keys(h.entries)) {
		e := h.entries[key]
		e.Value = append([]byte{}, e.Value...)
		out = append(out, e)
	}
	return out, nil
}

func (h *handle) Commit(_ context.Context, epoch uint64, batch registry.Batch) ([]uint64, error) {
	if err := batch.Check(); err != nil {
		return nil, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.closed:
		return nil, registry.ErrClosed
	case epoch != h.epoch || epoch == 0:
		return nil, registry.ErrSuperseded
	}
	for _, op := range batch {
		if op.Expect != registry.Any && op.Expect != h.entries[op.Key].Version {
			return nil, registry.ErrConflict
		}
	}
	h.versions++
	out := make([]uint64, len(batch))
	for i, op := range batch {
		if op.Delete {
			delete(h.entries, op.Key)
			continue
		}
		h.entries[op.Key] = registry.Entry{Key: op.Key, Value: bytes.Clone(op.Value), Version: h.versions}
		out[i] = h.versions
	}
	return out, nil
}

func (h *handle) Raise(_ context.Context, floor uint64) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return registry.ErrClosed
	}
	h.epoch = max(h.epoch, floor)
	return nil
}

func (h *handle) Close() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	return nil
}
