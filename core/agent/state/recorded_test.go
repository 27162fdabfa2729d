package state_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
	"google.golang.org/protobuf/proto"

	"github.com/mezzo-os/mezzo/core/agent/state"
	"github.com/mezzo-os/mezzo/internal/recorded"
	isolatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/isolator/v1"
	linkv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/link/v1"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
)

// TestRecorded is that an agent takes up what agents of earlier versions have
// checkpointed: docs/upgrade.md promises it. The recordings are the checkpoints at
// restarts in the transcripts, of those that hold a kind of record, or a field of
// one, that no recording before has.
func TestRecorded(t *testing.T) {
	recorded.Check(t, recorded.Kind{Name: "checkpoint", Slow: true, Write: recordCheckpoints, Read: func(t *testing.T, dir string) any {
		out := map[string]any{}
		files, err := filepath.Glob(filepath.Join(dir, "*.jsonl"))
		if err != nil || len(files) == 0 {
			t.Fatalf("no checkpoints: %v", err)
		}
		for _, file := range files {
			out[filepath.Base(file)] = takeUp(t, file)
		}
		return out
	}})
}

// line is a record of a checkpoint. The values are JSON but for those of tasks'
// infos, and only their bytes count.
type line struct {
	Bucket, Key string
	Value       []byte
}

func recordCheckpoints(t *testing.T, dir string) {
	paths, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no transcripts: %v", err)
	}
	seen := map[string]bool{}
	for _, path := range paths {
		var w *world
		var out strings.Builder
		boots := 0
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			out.Reset()
			if d.Cmd != "agent" {
				command(t, w, d)
			} else {
				if w != nil && news(w.disk, seen) {
					boots++
					name := fmt.Sprintf("%s-%d.jsonl", strings.TrimSuffix(filepath.Base(path), ".txt"), boots)
					if err := os.WriteFile(filepath.Join(dir, name), lines(t, w.disk), 0o600); err != nil {
						t.Fatal(err)
					}
				}
				w = play(t, d, w, &out)
			}
			return d.Expected
		})
	}
}

// news is whether a disk has a field that was not seen yet.
func news(disk map[string]map[string][]byte, seen map[string]bool) (is bool) {
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
				if strings.HasSuffix(path, "/mounted") {
					k = "*" // a path
				}
				walk(path+"/"+k, x)
			}
		case []any:
			for _, x := range v {
				walk(path+"/[]", x)
			}
		case string:
			if strings.HasSuffix(path, "/state") {
				note(path + "=" + v)
			}
		}
	}
	for bucket, records := range disk {
		for _, value := range records {
			var v any
			if json.Unmarshal(value, &v) != nil {
				v = nil
			}
			walk(bucket, v)
		}
	}
	return is
}

func lines(t *testing.T, disk map[string]map[string][]byte) []byte {
	var out []byte
	for _, bucket := range slices.Sorted(maps.Keys(disk)) {
		for _, key := range slices.Sorted(maps.Keys(disk[bucket])) {
			text, err := json.Marshal(line{bucket, key, disk[bucket][key]})
			if err != nil {
				t.Fatal(err)
			}
			out = append(append(out, text...), '\n')
		}
	}
	return out
}

// taken is how an agent understands a checkpoint: what it shows before any isolator
// has answered, and what it tells its master when all that was there still runs.
type taken struct {
	Exit       string
	View       state.View
	Detail     state.Detail
	Retired    map[string][]byte
	Registered []*linkv1.Register
}

func takeUp(t *testing.T, file string) (out taken) {
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(state.Config{Hostname: "h1", Isolators: []string{"cgroups"}, Adapters: []string{"mesos"}, User: "root", Root: true})
	for l := range strings.Lines(string(text)) {
		var r line
		if err := json.Unmarshal([]byte(l), &r); err != nil {
			t.Fatal(err)
		}
		if w.disk[r.Bucket] == nil {
			w.disk[r.Bucket] = map[string][]byte{}
		}
		w.disk[r.Bucket][r.Key] = r.Value
	}
	configure(t, w)
	w.boot()
	if w.exit != nil {
		out.Exit = fmt.Sprintf("%+v", *w.exit)
		return out
	}
	out.View, out.Detail, out.Retired = w.m.View(), w.m.Detail(), w.m.Retired()
	for i := range out.View.Tasks { // they follow from the task and its framework, which are compared
		out.View.Tasks[i].User, out.View.Tasks[i].Owner = "", ""
	}
	for _, c := range out.View.Containers {
		w.containers[c.ID] = &fake{state: isolatorv1.Recovered_STATE_RUNNING, pid: 7}
	}
	w.isolatorsUp()
	w.settle()
	for _, m := range w.sent {
		if r := m.GetRegister(); r != nil {
			out.Registered = append(out.Registered, r)
		}
	}
	return out
}

// configure makes the agent one that is started again as it was: with the
// resources, the isolators and the boot that its checkpoint names.
func configure(t *testing.T, w *world) {
	var self struct {
		Boot       string
		Configured struct {
			Resources, Attributes [][]byte
			Detected              bool
		}
	}
	if text, there := w.disk["agent"]["self"]; there {
		if err := json.Unmarshal(text, &self); err != nil {
			t.Fatal(err)
		}
	}
	w.cfg.BootID, w.cfg.Detected = self.Boot, self.Configured.Detected
	for _, text := range self.Configured.Resources {
		r := &mezzov1.Resource{}
		if err := proto.Unmarshal(text, r); err != nil {
			t.Fatal(err)
		}
		w.cfg.Resources = append(w.cfg.Resources, r)
	}
	for _, text := range self.Configured.Attributes {
		a := &mezzov1.Attribute{}
		if err := proto.Unmarshal(text, a); err != nil {
			t.Fatal(err)
		}
		w.cfg.Attributes = append(w.cfg.Attributes, a)
	}
	for _, text := range w.disk["containers"] {
		var c struct{ Chain []struct{ Isolator string } }
		if err := json.Unmarshal(text, &c); err != nil {
			t.Fatal(err)
		}
		for _, l := range c.Chain {
			if !slices.Contains(w.cfg.Isolators, l.Isolator) {
				w.cfg.Isolators = append(w.cfg.Isolators, l.Isolator)
			}
		}
	}
	slices.Sort(w.cfg.Isolators)
}
