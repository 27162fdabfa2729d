package sim

import (
	"context"
	"errors"

	"github.com/mezzo-os/mezzo/core/master/state"
	"github.com/mezzo-os/mezzo/core/registry"
)

// records is the registry of the world: the store, how it fails, and what was
// ever seen in it.
type records struct {
	store *store
	// failing: nothing is read or written.
	failing bool
	// ended are the keys of entries that were deleted.
	ended map[string]bool
	// gone are the keys of agents that were written as gone, or that a master was
	// told to be.
	gone map[string]bool
}

// errNoRegistry is why the registry does not answer.
var errNoRegistry = errors.New("the registry does not answer")

// registryAway is whether the next use of the registry fails.
func (w *world) registryAway(c *candidate) bool {
	return w.registry.failing || c.cut || !w.healed && w.chance(0.01)
}

// apply writes what is in a batch.
func (m *master) apply(batch registry.Batch) error {
	r := &m.w.registry
	_, err := m.registry.Commit(context.Background(), m.w.cfg.plant.epoch(m), batch)
	if err != nil {
		return err
	}
	if newest, _ := m.registry.Epoch(context.Background()); m.epoch < newest {
		m.w.fail([]string{m.name}, "the registry took a write of %s, whose epoch is %d, and %d leads", m.name, m.epoch, newest)
	}
	for _, op := range batch {
		if op.Delete {
			r.ended[op.Key] = true
		}
	}
	r.noteGone(batch)
	return nil
}

// writing is a master's write that is under way: the batches that are left.
type writing struct {
	id   uint64
	left []registry.Batch
}

// write takes a master's write. As the shell does, it makes batches of it, one
// after the other, of which each is written whole.
func (m *master) write(out state.RegistryWrite) {
	w := m.w
	if m.writing != nil {
		w.fail([]string{m.name}, "master %s has two registry writes under way", m.name)
		return
	}
	m.writing = &writing{id: out.ID, left: w.batches(out.Entries)}
	if w.cfg.plant == plantEarlyWritten {
		w.after(w.weather.work(w), func() { m.step(state.RegistryWritten{ID: out.ID}) })
		left := m.writing.left
		w.after(w.between(0, 3*w.cfg.plant.delay()), func() {
			for _, b := range left {
				if m.alive {
					_ = m.apply(b)
				}
			}
		})
		m.writing = nil
		return
	}
	m.commit()
}

// batches makes batches of what is to be written, of which mostly there is one.
// Of a key that stands twice only the last counts.
func (w *world) batches(entries []state.Entry) []registry.Batch {
	last := map[string]int{}
	for i, e := range entries {
		last[e.Key] = i
	}
	var out []registry.Batch
	var b registry.Batch
	pieces := 1
	if w.chance(0.2) {
		pieces += w.pick(3)
	}
	bytes, size := 0, (len(entries)+pieces-1)/pieces
	for i, e := range entries {
		if last[e.Key] != i {
			continue
		}
		b = append(b, registry.Op{Key: e.Key, Value: e.Value, Delete: e.Value == nil, Expect: registry.Any})
		if bytes += len(e.Key) + len(e.Value) + registry.Overhead; len(b) >= size || bytes > registry.MaxBatch/2 {
			bytes = 0
			out, b = append(out, b), nil
		}
	}
	if len(b) > 0 || len(out) == 0 {
		out = append(out, b)
	}
	return out
}

// commit writes the next batch.
func (m *master) commit() {
	w, x := m.w, m.writing
	w.after(w.weather.work(w), func() {
		m.candidate.run(func() {
			if !m.alive || m.writing != x {
				return // see crash
			}
			if w.registryAway(m.candidate) {
				applied := !m.candidate.cut && w.chance(0.3) && m.apply(x.left[0]) == nil
				w.note([]string{m.name}, "registry: write %d of %s fails (applied: %v)", x.id, m.name, applied)
				m.writing = nil
				m.step(state.RegistryWritten{ID: x.id, Err: "the disk is full"})
				return
			}
			batch := x.left[0]
			if err := m.apply(w.cfg.plant.skips(w, batch)); errors.Is(err, registry.ErrSuperseded) && w.cfg.plant != plantDeafWriter {
				w.note([]string{m.name, everybody}, "the registry refuses %s: epoch %d leads", m.name, w.registry.store.epoch)
				m.crash("it does not lead any more")
				return
			} else if err != nil && w.cfg.plant != plantDeafWriter {
				w.fail([]string{m.name}, "%s: the registry does not take a write: %v", m.name, err)
				return
			}
			w.registry.noteGone(batch) // a plant may have left it out
			for _, op := range batch {
				if w.cfg.Large {
					break
				}
				w.note([]string{m.name, op.Key}, "registry: %s %s = %s", m.name, op.Key, op.Value)
			}
			if x.left = x.left[1:]; len(x.left) > 0 {
				m.commit()
				return
			}
			m.writing = nil
			m.step(state.RegistryWritten{ID: x.id})
		})
	})
}

// tearWrite decides what became of the write that was under way in a crash.
func (m *master) tearWrite() {
	if m.writing != nil && len(m.writing.left) > 0 && m.w.chance(0.5) {
		_ = m.apply(m.writing.left[0]) // refused if another leads
	}
	m.writing = nil
}
