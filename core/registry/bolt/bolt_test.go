package bolt_test

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mezzo-os/mezzo/core/registry"
	"github.com/mezzo-os/mezzo/core/registry/bolt"
	"github.com/mezzo-os/mezzo/core/registry/registrytest"
)

func TestConformance(t *testing.T) {
	registrytest.Run(t, func(t *testing.T) func() registry.Registry {
		dir := t.TempDir()
		return func() registry.Registry {
			r, err := bolt.Open(filepath.Join(dir, bolt.File))
			if err != nil {
				t.Fatal(err)
			}
			return r
		}
	})
}

func TestFileIsPrivate(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	r, err := bolt.Open(filepath.Join(dir, bolt.File))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for path, want := range map[string]os.FileMode{dir: 0o700, filepath.Join(dir, "registry.db"): 0o600} {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if got := info.Mode().Perm(); got != want {
			t.Errorf("%s has mode %o, want %o", path, got, want)
		}
	}
}

func TestLocked(t *testing.T) {
	dir := t.TempDir()
	r, err := bolt.Open(filepath.Join(dir, bolt.File))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := bolt.Open(filepath.Join(dir, bolt.File)); err == nil || !strings.Contains(err.Error(), "another master uses this data_dir") {
		t.Errorf("a second open gave %v", err)
	}
}

// What a crash, a full disk or a careless copy may leave.
func TestDamaged(t *testing.T) {
	good := file(t)
	for name, content := range map[string][]byte{
		"not a database": bytes.Repeat([]byte("not a database\n"), 5000),
		"cut short":      good[:3*os.Getpagesize()],
		"only the head":  good[:100],
		"both metas bad": append(bytes.Repeat([]byte{0xff}, 2*os.Getpagesize()), good[2*os.Getpagesize():]...),
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, "registry.db"), content, 0o600); err != nil {
				t.Fatal(err)
			}
			r, err := bolt.Open(filepath.Join(dir, bolt.File))
			if err == nil {
				r.Close()
				t.Fatal("a damaged file was opened")
			}
			if !strings.Contains(err.Error(), "registry.db") || !strings.Contains(err.Error(), "move it away") {
				t.Errorf("the error does not show the way out: %v", err)
			}
		})
	}
}

// A master that is killed in the middle of a write leaves what was committed:
// bbolt writes data pages first and its meta page last, so the file with the
// last meta page torn is the file before that write.
func TestTornMetaPage(t *testing.T) {
	content := file(t)
	page := os.Getpagesize()
	for meta := range 2 {
		dir := t.TempDir()
		torn := bytes.Clone(content)
		copy(torn[meta*page+16:meta*page+64], bytes.Repeat([]byte{0xff}, 48))
		if err := os.WriteFile(filepath.Join(dir, "registry.db"), torn, 0o600); err != nil {
			t.Fatal(err)
		}
		r, err := bolt.Open(filepath.Join(dir, bolt.File))
		if err != nil {
			t.Fatalf("with meta page %d torn: %v", meta, err)
		}
		entries, err := r.Load(context.Background())
		if err != nil || len(entries) < 1 {
			t.Errorf("with meta page %d torn there is %v, %v", meta, entries, err)
		}
		r.Close()
	}
}

// file returns a registry's file with two committed entries.
func file(t *testing.T) []byte {
	t.Helper()
	dir := t.TempDir()
	r, err := bolt.Open(filepath.Join(dir, bolt.File))
	if err != nil {
		t.Fatal(err)
	}
	epoch, err := r.Acquire(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"a", "b"} {
		if _, err := r.Commit(context.Background(), epoch, registry.Batch{{Key: key, Value: []byte("1")}}); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(filepath.Join(dir, "registry.db"))
	if err != nil {
		t.Fatal(err)
	}
	return content
}
