package bolt_test

import (
	"path/filepath"
	"testing"

	"github.com/mezzo-os/mezzo/core/registry"
	"github.com/mezzo-os/mezzo/core/registry/bolt"
	"github.com/mezzo-os/mezzo/internal/recorded"
)

// TestRecorded is that the files of earlier versions are read, and written on.
func TestRecorded(t *testing.T) {
	open := func(t *testing.T, dir string) *bolt.Registry {
		r, err := bolt.Open(filepath.Join(dir, bolt.File))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { r.Close() })
		return r
	}
	write := func(t *testing.T, r *bolt.Registry, epoch uint64, ops ...registry.Op) {
		if _, err := r.Commit(t.Context(), epoch, ops); err != nil {
			t.Fatal(err)
		}
	}
	recorded.Check(t, recorded.Kind{Name: "file", Write: func(t *testing.T, dir string) {
		r := open(t, dir)
		if err := r.Raise(t.Context(), 41); err != nil {
			t.Fatal(err)
		}
		epoch, err := r.Acquire(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		write(t, r, epoch, registry.Op{Key: "agents/a1", Value: []byte("first")}, registry.Op{Key: "agents/a2", Value: []byte("gone")}, registry.Op{Key: "empty"})
		write(t, r, epoch, registry.Op{Key: "agents/a1", Value: []byte("second"), Expect: registry.Any}, registry.Op{Key: "agents/a2", Delete: true, Expect: registry.Any})
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
	}, Read: func(t *testing.T, dir string) any {
		r := open(t, dir)
		before, err := r.Epoch(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		entries, err := r.Load(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		epoch, err := r.Acquire(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		// Versions go on from what they were.
		for _, e := range entries {
			write(t, r, epoch, registry.Op{Key: e.Key, Value: []byte("new"), Expect: e.Version})
		}
		return map[string]any{"epoch": before, "next": epoch, "entries": entries}
	}})
}
