package agent

import (
	"path/filepath"
	"testing"

	"github.com/mezzo-os/mezzo/core/adapter"
	"github.com/mezzo-os/mezzo/core/agent/state"
	frameworkv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/framework/v1"
)

// What adapters store is kept beside the checkpoints, and is none of them.
func TestShelfIsKeptBesideTheCheckpoints(t *testing.T) {
	path := filepath.Join(t.TempDir(), "agent.db")
	open := func() (*store, frameworkv1.StoreServer) {
		t.Helper()
		s, err := openStore(path)
		if err != nil {
			t.Fatal(err)
		}
		shelf, err := openShelf(s)
		if err != nil {
			t.Fatal(err)
		}
		return s, adapter.StoreServer("mesos", func() (*adapter.Shelf, error) { return shelf, nil })
	}
	s, shelf := open()
	if err := s.write([]state.Checkpoint{{Sequence: 1, Records: []state.Record{{Bucket: "agent", Key: "self", Value: []byte("x")}}}}); err != nil {
		t.Fatal(err)
	}
	put := func(key, value string, version uint64) uint64 {
		t.Helper()
		answer, err := shelf.Put(t.Context(), &frameworkv1.PutRequest{Key: key, Value: []byte(value), Version: version})
		if err != nil {
			t.Fatal(err)
		}
		return answer.GetVersion()
	}
	put("kept", "value", 0)
	put("gone", "", put("gone", "value", 0))
	if err := s.close(); err != nil {
		t.Fatal(err)
	}

	s, shelf = open()
	defer s.close()
	records, err := s.load()
	if err != nil || len(records) != 1 || records[0].Key != "self" {
		t.Errorf("the checkpoint is %v, %v; want what was checkpointed alone", records, err)
	}
	list, err := shelf.List(t.Context(), &frameworkv1.ListRequest{})
	if err != nil || len(list.GetKeys()) != 1 {
		t.Fatalf("the keys are %v, %v; want the one that was kept", list.GetKeys(), err)
	}
	if got, err := shelf.Get(t.Context(), &frameworkv1.GetRequest{Key: "kept"}); err != nil || string(got.GetValue()) != "value" {
		t.Errorf("what was stored is %q, %v", got.GetValue(), err)
	}
}
