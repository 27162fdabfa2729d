package agent

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/mezzo-os/mezzo/core/adapter"
	"github.com/mezzo-os/mezzo/core/agent/state"
	"github.com/mezzo-os/mezzo/internal/recorded"
	frameworkv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/framework/v1"
)

// TestRecorded is that the databases of agents of earlier versions are read. What
// is in the checkpoints, core/agent/state looks after.
func TestRecorded(t *testing.T) {
	open := func(t *testing.T, dir string) (*store, frameworkv1.StoreServer) {
		s, err := openStore(filepath.Join(dir, "agent.db"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.close() })
		shelf, err := openShelf(s)
		if err != nil {
			t.Fatal(err)
		}
		return s, adapter.StoreServer("mesos", func() (*adapter.Shelf, error) { return shelf, nil })
	}
	recorded.Check(t, recorded.Kind{Name: "database", Write: func(t *testing.T, dir string) {
		s, shelf := open(t, dir)
		if err := s.write([]state.Checkpoint{
			{Sequence: 1, Records: []state.Record{
				{Bucket: "agent", Key: "self", Value: []byte("first")}, {Bucket: "tasks", Key: "f\x00t1", Value: []byte("a task")}, {Bucket: "tasks", Key: "f\x00t2", Value: []byte("gone")},
			}},
			{Sequence: 2, Records: []state.Record{{Bucket: "agent", Key: "self", Value: []byte("second")}, {Bucket: "tasks", Key: "f\x00t2"}}},
		}); err != nil {
			t.Fatal(err)
		}
		for _, value := range []string{"first", "second"} {
			if _, err := shelf.Put(t.Context(), &frameworkv1.PutRequest{Key: value, Value: []byte(value)}); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.close(); err != nil {
			t.Fatal(err)
		}
		launch, err := json.Marshal(launchSpec{Version: 1, Path: "/usr/lib/mezzo/plugins/mezzo-isolator-old", Checksum: "sha256:00", Config: json.RawMessage(`{"root":"/x"}`)})
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "isolator.json"), launch, 0o600); err != nil { // as the state has it, in a record
			t.Fatal(err)
		}
	}, Read: func(t *testing.T, dir string) any {
		s, shelf := open(t, dir)
		records, err := s.load()
		if err != nil {
			t.Fatal(err)
		}
		list, err := shelf.List(t.Context(), &frameworkv1.ListRequest{})
		if err != nil {
			t.Fatal(err)
		}
		stored := map[string]*frameworkv1.GetResponse{}
		for _, key := range list.GetKeys() {
			if stored[key], err = shelf.Get(t.Context(), &frameworkv1.GetRequest{Key: key}); err != nil {
				t.Fatal(err)
			}
		}
		text, err := os.ReadFile(filepath.Join(dir, "isolator.json"))
		if err != nil {
			t.Fatal(err)
		}
		launch, err := readLaunch(text)
		if err != nil {
			t.Fatal(err)
		}
		return map[string]any{"checkpoints": records, "stored": stored, "isolator": launch}
	}})
}
