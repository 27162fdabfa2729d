package state_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"

	"github.com/mezzo-os/mezzo/core/master/state"
	"github.com/mezzo-os/mezzo/internal/recorded"
)

// TestRecorded is that a master leads on what masters of earlier versions have
// written into the registry: docs/upgrade.md promises it. The recordings are the
// registries at changes of masters, and at the ends of transcripts, of those that
// hold a kind of entry, or a field of one, that no recording before has.
func TestRecorded(t *testing.T) {
	recorded.Check(t, recorded.Kind{Name: "registry", Slow: true, Write: recordRegistries, Read: func(t *testing.T, dir string) any {
		files, err := filepath.Glob(filepath.Join(dir, "*.json"))
		if err != nil || len(files) == 0 {
			t.Fatalf("no registries: %v", err)
		}
		out := map[string]any{}
		for _, file := range files {
			out[filepath.Base(file)] = led(t, file)
		}
		return out
	}})
}

func recordRegistries(t *testing.T, dir string) {
	paths, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no transcripts: %v", err)
	}
	seen := map[string]bool{}
	for _, path := range paths {
		s, n := &script{t: t, streams: map[string]string{}}, 0
		keep := func() {
			if s.w == nil || !news(s.w.durable, seen) {
				return
			}
			n++
			text, err := json.MarshalIndent(s.w.durable, "", " ")
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("%s-%d.json", strings.TrimSuffix(filepath.Base(path), ".txt"), n)), text, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			s.t = t
			if d.Cmd == "master" {
				keep()
				s.master(d)
				return d.Expected
			}
			for line := range strings.Lines(d.Input) {
				line = strings.TrimSpace(line)
				if line == "" || line[0] == '#' {
					continue
				}
				if line == "recover" {
					keep()
				}
				s.run(line)
			}
			return d.Expected
		})
		keep()
	}
}

// news is whether a registry has a field that was not seen yet.
func news(durable map[string][]byte, seen map[string]bool) (is bool) {
	note := func(path string) {
		is = is || !seen[path]
		seen[path] = true
	}
	var walk func(path string, v any)
	walk = func(path string, v any) {
		note(path)
		switch v := v.(type) {
		case map[string]any:
			for k, x := range v {
				if strings.HasSuffix(path, "/guarantee") || strings.HasSuffix(path, "/limit") {
					k = "*" // a resource
				}
				walk(path+"/"+k, x)
			}
		case []any:
			for _, x := range v {
				walk(path+"/[]", x)
			}
		case string:
			if strings.HasSuffix(path, "/standing") {
				note(path + "=" + v)
			}
		}
	}
	for key, value := range durable {
		kind, _, _ := strings.Cut(key, "/")
		var v any
		_ = json.Unmarshal(value, &v)
		walk(kind, v)
	}
	return is
}

// led is how a master that takes over shows a registry.
func led(t *testing.T, file string) any {
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, cfg: state.Config{MasterID: "m"}, now: epoch, operationEnds: map[string]int{}}
	if err := json.Unmarshal(text, &w.durable); err != nil {
		t.Fatal(err)
	}
	w.start()
	var out taken
	for _, o := range w.step(state.StreamClosed{Stream: "none"}) {
		if p, is := o.(state.Publish); is {
			out.Shown = p
		}
	}
	for range 180 {
		for _, o := range w.advance(time.Minute) {
			if write, is := o.(state.RegistryWrite); is {
				for _, e := range write.Entries {
					if e.Value == nil {
						out.Removed = append(out.Removed, fmt.Sprintf("%s after %s", e.Key, w.now.Sub(epoch)))
					}
				}
			}
		}
	}
	return out
}

// taken is what a new leader shows at first, and what it removes, and when, if
// nobody comes back for three hours.
type taken struct {
	Shown   state.Publish
	Removed []string
}
