// Package recorded holds a version to what those before it have written on disks.
//
// Terms. A *recording* is a directory with files as one version wrote them, below
// testdata/recorded/WHAT/VERSION, and with want.json: how that version understood
// them. Recordings are never changed: docs/upgrade.md promises that they are read.
//
// Example:
//
//	func TestRecorded(t *testing.T) {
//		recorded.Check(t, recorded.Kind{Name: "agent", Write: func(t *testing.T, dir string) {
//			… write files …
//		}, Read: func(t *testing.T, dir string) any {
//			… read them …
//			return understood
//		}})
//	}
//
// `make record VERSION=1.2.3` adds the recordings of a new version.
package recorded

import (
	"bytes"
	"compress/gzip"
	"flag"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var record = flag.String("update-recorded", "", "record what this code writes on disks as what the version of this name writes; what is there is left alone")

const (
	wantFile = "want.json"
	packed   = ".gz"
	// Files from here on, in bytes, are packed: databases are mostly zeros.
	large = 4 << 10
)

// Kind is something that is written on disks.
type Kind struct {
	Name string
	// Write writes files as this code does.
	Write func(t *testing.T, dir string)
	// Read is how this code understands files. It may change them: they are copies.
	Read func(t *testing.T, dir string) any
	// Slow: Write takes seconds, so it is only called to record.
	Slow bool
}

// Check reads every recording of a kind, and compares how this code understands it
// with how the version did that wrote it. Zero values do not count, so that fields
// may be added.
func Check(t *testing.T, k Kind) {
	t.Helper()
	root := filepath.Join("testdata", "recorded", k.Name)
	if *record != "" {
		add(t, filepath.Join(root, *record), k)
	}
	entries, err := os.ReadDir(root)
	if err != nil || len(entries) == 0 {
		t.Fatalf("there are no recordings of %s (%v); see docs/upgrade.md", k.Name, err)
	}
	for _, e := range entries {
		t.Run(k.Name+" of "+e.Name(), func(t *testing.T) {
			dir := t.TempDir()
			each(t, filepath.Join(root, e.Name()), func(name string, content []byte) { put(t, filepath.Join(dir, name), content) })
			_, want := file(t, filepath.Join(root, e.Name(), wantFile))
			if diff := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(string(describe(t, k.Read(t, dir))), "\n")); diff != "" {
				t.Errorf("version %s has written what is understood in another way now (-then +now):\n%s\nClusters are upgraded with such files on their disks: read the old form, too.", e.Name(), diff)
			}
		})
	}
	if k.Slow {
		return
	}
	t.Run(k.Name+" of now", func(t *testing.T) {
		dir := t.TempDir()
		k.Write(t, dir)
		if text := describe(t, k.Read(t, dir)); len(text) < 5 {
			t.Errorf("what is written now reads as %s", text)
		}
	})
}

// add makes a recording, unless there is one.
func add(t *testing.T, to string, k Kind) {
	t.Helper()
	if _, err := os.Stat(to); err == nil {
		t.Logf("%s is there and stays as it is", to)
		return
	}
	from := t.TempDir()
	k.Write(t, from)
	keep := func(name string, content []byte) {
		if len(content) >= large {
			name, content = name+packed, pack(t, content)
		}
		put(t, filepath.Join(to, name), content)
	}
	each(t, from, keep)
	keep(wantFile, describe(t, k.Read(t, from)))
}

// file is a file of a recording, unpacked, by the name that it had.
func file(t *testing.T, path string) (name string, content []byte) {
	t.Helper()
	if _, err := os.Stat(path); err != nil {
		path += packed
	}
	content = get(t, path)
	if base, is := strings.CutSuffix(path, packed); is {
		return base, unpack(t, content)
	}
	return path, content
}

// each goes through the files of a directory but want.json, unpacked.
func each(t *testing.T, dir string, do func(name string, content []byte)) {
	t.Helper()
	must(t, filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() || strings.TrimSuffix(e.Name(), packed) == wantFile {
			return err
		}
		path, content := file(t, path)
		name, err := filepath.Rel(dir, path)
		must(t, err)
		do(name, content)
		return nil
	}))
}

func pack(t *testing.T, content []byte) []byte {
	var out bytes.Buffer
	z, err := gzip.NewWriterLevel(&out, gzip.BestCompression)
	must(t, err)
	_, err = z.Write(content)
	must(t, err)
	must(t, z.Close())
	return out.Bytes()
}

func unpack(t *testing.T, content []byte) []byte {
	z, err := gzip.NewReader(bytes.NewReader(content))
	must(t, err)
	out, err := io.ReadAll(z)
	must(t, err)
	return out
}

func get(t *testing.T, path string) []byte {
	content, err := os.ReadFile(path)
	must(t, err)
	return content
}

func put(t *testing.T, path string, content []byte) {
	must(t, os.MkdirAll(filepath.Dir(path), 0o755))
	must(t, os.WriteFile(path, content, 0o644))
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
