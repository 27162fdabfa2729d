package sim

import (
	"maps"
	"slices"

	"github.com/mezzo-os/mezzo/core/master/state"
)

// registry is the masters' durable store. It takes one write of a master at a
// time, checks the writer's epoch, and may fail: before the write, or after it.
type registry struct {
	entries map[string][]byte
	epoch   uint64 // of the leader that was elected last
	failing bool
	// ended are the keys of entries that were deleted.
	ended map[string]bool
	// gone are the keys of agents that were written as gone, or that a master was
	// told to be.
	gone map[string]bool
}

func (r *registry) all() []state.Entry {
	var out []state.Entry
	for _, key := range slices.Sorted(maps.Keys(r.entries)) {
		out = append(out, state.Entry{Key: key, Value: r.entries[key]})
	}
	return out
}

func (r *registry) apply(entries []state.Entry) {
	r.noteGone(entries)
	for _, e := range entries {
		if e.Value == nil {
			delete(r.entries, e.Key)
			r.ended[e.Key] = true
		} else {
			r.entries[e.Key] = e.Value
		}
	}
}

// write takes a master's write.
func (m *master) write(out state.RegistryWrite) {
	w, r := m.w, &m.w.registry
	if m.writing != nil {
		w.fail([]string{m.name}, "master %s has two registry writes under way", m.name)
		return
	}
	m.writing = &out
	if w.cfg.plant == plantEarlyWritten {
		w.after(w.weather.work(w), func() { m.step(state.RegistryWritten{ID: out.ID}) })
		w.after(w.between(0, 3*w.cfg.plant.delay()), func() {
			if m.alive {
				r.apply(out.Entries)
			}
		})
		m.writing = nil
		return
	}
	w.after(w.weather.work(w), func() {
		if !m.alive {
			return // see crash
		}
		m.writing = nil
		switch {
		case m.epoch < r.epoch:
			w.note([]string{m.name, everybody}, "registry refuses %s: epoch %d leads", m.name, r.epoch)
			m.crash("it does not lead any more")
		case r.failing || !w.healed && w.chance(0.01):
			applied := w.chance(0.3)
			if applied {
				r.apply(out.Entries)
			}
			w.note([]string{m.name}, "registry: write %d of %s fails (applied: %v)", out.ID, m.name, applied)
			m.step(state.RegistryWritten{ID: out.ID, Err: "the disk is full"})
		default:
			r.noteGone(out.Entries)
			r.apply(w.cfg.plant.skips(out.Entries))
			for _, e := range out.Entries {
				w.note([]string{m.name, e.Key}, "registry: %s %s = %s", m.name, e.Key, e.Value)
			}
			m.step(state.RegistryWritten{ID: out.ID})
		}
	})
}

// tearWrite decides what became of the write that was under way in a crash.
func (m *master) tearWrite() {
	if m.writing != nil && m.epoch == m.w.registry.epoch && m.w.chance(0.5) {
		m.w.registry.apply(m.writing.Entries)
	}
	m.writing = nil
}
