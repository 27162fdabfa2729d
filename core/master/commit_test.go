package master

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/mezzo-os/mezzo/core/master/state"
	"github.com/mezzo-os/mezzo/core/registry"
	"github.com/mezzo-os/mezzo/core/registry/bolt"
)

// A leader that has nothing to write finds out that a later epoch was taken.
func TestLaterEpochEndsATerm(t *testing.T) {
	store, err := bolt.Open(filepath.Join(t.TempDir(), bolt.File))
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	epoch, err := store.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	over := make(chan struct{})
	go func() {
		defer close(over)
		(&term{master: &Master{registry: store}, epoch: epoch}).watchEpoch(ctx, cancel, time.Millisecond)
	}()
	if ctx.Err() != nil {
		t.Errorf("the term has ended: %v", context.Cause(ctx))
	}
	if _, err := store.Acquire(t.Context()); err != nil {
		t.Fatal(err)
	}
	<-over
	if cause := context.Cause(ctx); !errors.Is(cause, registry.ErrSuperseded) {
		t.Errorf("the term ended by %v, want %v", cause, registry.ErrSuperseded)
	}
}

// What the machine writes at once may be more than a batch of the registry
// holds, in entries as in bytes, and may name a key twice.
func TestCommitOfMoreThanABatch(t *testing.T) {
	store, err := bolt.Open(filepath.Join(t.TempDir(), bolt.File))
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	epoch, err := store.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	entries := []state.Entry{{Key: "agents/twice", Value: []byte("first")}, {Key: "agents/gone", Value: []byte("there")}}
	for i := range 20_000 {
		entries = append(entries, state.Entry{Key: fmt.Sprintf("agents/a%05d", i), Value: []byte("{}")})
	}
	for i := range 20 {
		entries = append(entries, state.Entry{Key: fmt.Sprintf("agents/large%d", i), Value: []byte(strings.Repeat("x", 100<<10))})
	}
	entries = append(entries, state.Entry{Key: "agents/twice", Value: []byte("second")}, state.Entry{Key: "agents/gone"})
	leader := &term{master: &Master{registry: store}, epoch: epoch}
	if err := leader.commit(t.Context(), entries); err != nil {
		t.Fatal(err)
	}
	all, err := store.Load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]string{}
	for _, e := range all {
		found[e.Key] = string(e.Value)
	}
	if len(found) != 20_021 || found["agents/twice"] != "second" || found["agents/a19999"] != "{}" || len(found["agents/large19"]) != 100<<10 {
		t.Errorf("%d entries were written; the one that was named twice is %q", len(found), found["agents/twice"])
	}
}
