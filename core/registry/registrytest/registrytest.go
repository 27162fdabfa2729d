// Package registrytest holds what every implementation of registry.Registry
// must do, as tests.
package registrytest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/mezzo-os/mezzo/core/registry"
)

// Run tests an implementation. open opens the same registry each time it is
// called in one test, and a fresh one in each test; the suite closes what it
// opens before it opens it again.
func Run(t *testing.T, fresh func(t *testing.T) (open func() registry.Registry)) {
	tests := map[string]func(*testing.T, func() registry.Registry){
		"a fresh registry is empty":          empty,
		"what is committed is loaded":        committed,
		"a batch is whole or not at all":     atomic,
		"compare and set":                    compareAndSet,
		"a version is never given again":     versions,
		"an old epoch cannot write":          epochs,
		"bounds":                             bounds,
		"nothing after close":                closed,
		"concurrent commits take turns":      concurrent,
		"values are the caller's afterwards": aliasing,
		"epochs can be raised":               raises,
		"a dump is restored":                 dumps,
		"large values come and go":           large,
		"many entries":                       many,
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) { test(t, fresh(t)) })
	}
}

func empty(t *testing.T, open func() registry.Registry) {
	r := open()
	defer r.Close()
	if entries := load(t, r); len(entries) != 0 {
		t.Errorf("a fresh registry has %v", entries)
	}
}

func committed(t *testing.T, open func() registry.Registry) {
	r := open()
	epoch := acquire(t, r)
	got := commit(t, r, epoch, registry.Batch{{Key: "b", Value: []byte("2")}, {Key: "a", Value: []byte("1")}, {Key: "empty"}})
	want := []registry.Entry{{Key: "a", Value: []byte("1"), Version: got[1]}, {Key: "b", Value: []byte("2"), Version: got[0]}, {Key: "empty", Value: []byte{}, Version: got[2]}}
	if diff := cmp.Diff(want, load(t, r)); diff != "" {
		t.Errorf("before closing (-want +got):\n%s", diff)
	}
	closing(t, r)
	r = open()
	defer r.Close()
	if diff := cmp.Diff(want, load(t, r)); diff != "" {
		t.Errorf("after reopening (-want +got):\n%s", diff)
	}
}

func atomic(t *testing.T, open func() registry.Registry) {
	r := open()
	defer r.Close()
	epoch := acquire(t, r)
	commit(t, r, epoch, registry.Batch{{Key: "taken", Value: []byte("x")}})
	before := load(t, r)
	_, err := r.Commit(context.Background(), epoch, registry.Batch{{Key: "new", Value: []byte("y")}, {Key: "taken", Value: []byte("z")}})
	if !errors.Is(err, registry.ErrConflict) {
		t.Fatalf("a batch with a wrong version gave %v, want ErrConflict", err)
	}
	if diff := cmp.Diff(before, load(t, r)); diff != "" {
		t.Errorf("a refused batch left something (-before +after):\n%s", diff)
	}
}

func compareAndSet(t *testing.T, open func() registry.Registry) {
	r := open()
	defer r.Close()
	epoch := acquire(t, r)
	first := commit(t, r, epoch, registry.Batch{{Key: "k", Value: []byte("1")}})[0]
	second := commit(t, r, epoch, registry.Batch{{Key: "k", Value: []byte("2"), Expect: first}})[0]
	if second <= first {
		t.Errorf("the second write's version is %d, the first's %d", second, first)
	}
	for _, wrong := range []uint64{0, first, second + 1} {
		for _, remove := range []bool{false, true} {
			_, err := r.Commit(context.Background(), epoch, registry.Batch{{Key: "k", Delete: remove, Expect: wrong}})
			if !errors.Is(err, registry.ErrConflict) {
				t.Errorf("expecting version %d of %d (delete=%v) gave %v", wrong, second, remove, err)
			}
		}
	}
	if v := commit(t, r, epoch, registry.Batch{{Key: "k", Delete: true, Expect: second}})[0]; v != 0 {
		t.Errorf("a deletion's version is %d, want 0", v)
	}
	commit(t, r, epoch, registry.Batch{{Key: "k", Delete: true, Expect: registry.Any}})
	if entries := load(t, r); len(entries) != 0 {
		t.Errorf("after deletion there is %v", entries)
	}
}

func versions(t *testing.T, open func() registry.Registry) {
	r := open()
	defer r.Close()
	epoch := acquire(t, r)
	first := commit(t, r, epoch, registry.Batch{{Key: "k", Value: []byte("1")}})[0]
	commit(t, r, epoch, registry.Batch{{Key: "k", Delete: true, Expect: first}})
	again := commit(t, r, epoch, registry.Batch{{Key: "k", Value: []byte("2")}})[0]
	if again == first {
		t.Errorf("an entry made again has the old version %d", again)
	}
}

func epochs(t *testing.T, open func() registry.Registry) {
	r := open()
	old := acquire(t, r)
	if old == 0 {
		t.Error("the first epoch is 0")
	}
	commit(t, r, old, registry.Batch{{Key: "k", Value: []byte("1")}})
	closing(t, r)
	r = open()
	defer r.Close()
	newer := acquire(t, r)
	if newer <= old {
		t.Errorf("the second epoch is %d, the first %d", newer, old)
	}
	for _, epoch := range []uint64{0, old, newer + 1} {
		_, err := r.Commit(context.Background(), epoch, registry.Batch{{Key: "k", Value: []byte("2"), Expect: registry.Any}})
		if !errors.Is(err, registry.ErrSuperseded) {
			t.Errorf("a write in epoch %d of %d gave %v, want ErrSuperseded", epoch, newer, err)
		}
	}
	if got := load(t, r); len(got) != 1 || string(got[0].Value) != "1" {
		t.Errorf("an old leader changed the registry: %v", got)
	}
}

// dumps takes a registry to another state and back, whoever led meanwhile.
func dumps(t *testing.T, open func() registry.Registry) {
	r := open()
	defer r.Close()
	epoch := acquire(t, r)
	commit(t, r, epoch, registry.Batch{{Key: "agents/a", Value: []byte{0, 255}}, {Key: "big", Value: make([]byte, 400<<10)}, {Key: "empty"}})
	before := load(t, r)
	var dump bytes.Buffer
	if err := registry.Dump(context.Background(), r, &dump); err != nil {
		t.Fatal(err)
	}
	text := dump.String()
	commit(t, r, epoch, registry.Batch{{Key: "agents/a", Delete: true, Expect: registry.Any}, {Key: "agents/b", Value: []byte("new")}, {Key: "big", Value: []byte("x"), Expect: registry.Any}})
	for name, bad := range map[string]string{
		"empty": "", "no dump": "hello\n", "cut off": text[:len(text)-30], "a line short": text[:strings.LastIndex(strings.TrimSpace(text), "\n")+1],
		"a later format": strings.Replace(text, `"format":1`, `"format":2`, 1), "a key twice": text + `{"key":"empty","value":""}` + "\n",
	} {
		if _, err := registry.Restore(context.Background(), r, strings.NewReader(bad)); err == nil {
			t.Errorf("%s: it was restored", name)
		}
	}
	if got := load(t, r); len(got) != 3 || got[0].Key != "agents/b" {
		t.Errorf("a dump that is no good changed the registry")
	}
	next, err := registry.Restore(context.Background(), r, strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	// Others may have led since the dump, and agents remember them.
	if next < epoch+registry.LeadersSince {
		t.Errorf("the restored registry has epoch %d, the dump %d", next, epoch)
	}
	if now, err := r.Epoch(context.Background()); err != nil || now != next {
		t.Errorf("the newest epoch is %d, %v; want %d", now, err, next)
	}
	got := load(t, r)
	for i := range got {
		got[i].Version = 0
	}
	for i := range before {
		before[i].Version = 0
	}
	if diff := cmp.Diff(before, got); diff != "" {
		t.Errorf("what was restored differs from what was dumped: %d bytes of difference", len(diff))
	}
	// The dump of those who have none.
	next, err = registry.Restore(context.Background(), r, strings.NewReader(`{"kind":"mezzo registry","format":1,"epoch":1000000,"entries":0}`))
	if err != nil || next <= 1000000 || len(load(t, r)) > 0 {
		t.Errorf("after a dump of nothing there are %d entries, and the epoch is %d: %v", len(load(t, r)), next, err)
	}
}

func raises(t *testing.T, open func() registry.Registry) {
	r := open()
	before := acquire(t, r)
	commit(t, r, before, registry.Batch{{Key: "k", Value: []byte("1")}})
	if err := r.Raise(context.Background(), before+100); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Commit(context.Background(), before, registry.Batch{{Key: "k", Value: []byte("2"), Expect: registry.Any}}); !errors.Is(err, registry.ErrSuperseded) {
		t.Errorf("a write of before the epoch was raised gave %v, want ErrSuperseded", err)
	}
	first := acquire(t, r)
	if first <= before+100 {
		t.Errorf("the epoch is %d, want more than %d", first, before+100)
	}
	if err := r.Raise(context.Background(), before); err != nil {
		t.Fatal(err)
	}
	commit(t, r, first, registry.Batch{{Key: "k", Value: []byte("3"), Expect: registry.Any}})
	closing(t, r)
	r = open()
	defer r.Close()
	if second := acquire(t, r); second <= first {
		t.Errorf("the epoch is %d, want more than %d", second, first)
	}
}

// large writes values that fill batches, over one another, and removes them.
func large(t *testing.T, open func() registry.Registry) {
	r := open()
	epoch := acquire(t, r)
	value := func(seed byte) []byte {
		out := make([]byte, 400<<10)
		for i := range out {
			out[i] = seed + byte(i%251)
		}
		return out
	}
	for seed := range byte(3) {
		commit(t, r, epoch, registry.Batch{{Key: "big", Value: value(seed), Expect: registry.Any}, {Key: "small", Value: []byte{seed}, Expect: registry.Any}})
	}
	_, err := r.Commit(context.Background(), epoch, registry.Batch{{Key: "big", Value: value(9), Expect: 0}})
	if !errors.Is(err, registry.ErrConflict) {
		t.Errorf("a large value over one that it did not expect gave %v, want ErrConflict", err)
	}
	closing(t, r)
	r = open()
	defer r.Close()
	epoch = acquire(t, r)
	got := load(t, r)
	if len(got) != 2 || string(got[0].Value) != string(value(2)) || string(got[1].Value) != "\x02" {
		t.Fatalf("%d entries, not the two that were written last", len(got))
	}
	commit(t, r, epoch, registry.Batch{{Key: "big", Value: []byte("little"), Expect: got[0].Version}})
	commit(t, r, epoch, registry.Batch{{Key: "small", Delete: true, Expect: registry.Any}})
	if got = load(t, r); len(got) != 1 || string(got[0].Value) != "little" {
		t.Errorf("after that there is %v", got)
	}
}

// many fills whole batches with small entries of keys of all kinds.
func many(t *testing.T, open func() registry.Registry) {
	r := open()
	epoch := acquire(t, r)
	want := map[string]string{}
	var batch registry.Batch
	for i := range 2500 {
		key := fmt.Sprintf("agents/%d/ä:%%\x01 ..", i)
		want[key] = fmt.Sprint(i)
		batch = append(batch, registry.Op{Key: key, Value: []byte(want[key])})
	}
	for _, key := range []string{".", "..", "/", "a//b", "zookeeper", "%2F"} {
		want[key] = key
		batch = append(batch, registry.Op{Key: key, Value: []byte(key)})
	}
	commit(t, r, epoch, batch)
	closing(t, r)
	r = open()
	defer r.Close()
	got := map[string]string{}
	last := ""
	for _, e := range load(t, r) {
		if e.Key <= last {
			t.Fatalf("%q follows %q", e.Key, last)
		}
		last, got[e.Key] = e.Key, string(e.Value)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func bounds(t *testing.T, open func() registry.Registry) {
	r := open()
	defer r.Close()
	epoch := acquire(t, r)
	ctx := context.Background()
	for name, batch := range map[string]registry.Batch{
		"a long key":    {{Key: strings.Repeat("k", registry.MaxKey+1)}},
		"a large batch": {{Key: "a", Value: make([]byte, registry.MaxBatch/2)}, {Key: "b", Value: make([]byte, registry.MaxBatch/2)}},
	} {
		if _, err := r.Commit(ctx, epoch, batch); !errors.Is(err, registry.ErrTooLarge) {
			t.Errorf("%s gave %v, want ErrTooLarge", name, err)
		}
	}
	for name, batch := range map[string]registry.Batch{"no key": {{}}, "a key twice": {{Key: "a"}, {Key: "a"}}} {
		if _, err := r.Commit(ctx, epoch, batch); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
	commit(t, r, epoch, registry.Batch{{Key: strings.Repeat("k", registry.MaxKey), Value: make([]byte, registry.MaxBatch-registry.MaxKey-registry.Overhead)}})
	if entries := load(t, r); len(entries) != 1 {
		t.Errorf("%d entries, want the one largest", len(entries))
	}
}

func closed(t *testing.T, open func() registry.Registry) {
	r := open()
	epoch := acquire(t, r)
	closing(t, r)
	ctx := context.Background()
	if _, err := r.Commit(ctx, epoch, registry.Batch{{Key: "k"}}); !errors.Is(err, registry.ErrClosed) {
		t.Errorf("Commit gave %v, want ErrClosed", err)
	}
	if _, err := r.Load(ctx); !errors.Is(err, registry.ErrClosed) {
		t.Errorf("Load gave %v, want ErrClosed", err)
	}
	if _, err := r.Acquire(ctx); !errors.Is(err, registry.ErrClosed) {
		t.Errorf("Acquire gave %v, want ErrClosed", err)
	}
}

func concurrent(t *testing.T, open func() registry.Registry) {
	r := open()
	defer r.Close()
	epoch := acquire(t, r)
	// All want to be the first to write one key: one wins.
	const writers = 8
	errs := make([]error, writers)
	var wait sync.WaitGroup
	for i := range writers {
		wait.Go(func() {
			_, errs[i] = r.Commit(context.Background(), epoch, registry.Batch{{Key: "k", Value: fmt.Append(nil, i)}, {Key: fmt.Sprint("own-", i)}})
		})
	}
	wait.Wait()
	won := 0
	for _, err := range errs {
		switch {
		case err == nil:
			won++
		case !errors.Is(err, registry.ErrConflict):
			t.Errorf("a writer got %v", err)
		}
	}
	if entries := load(t, r); won != 1 || len(entries) != 2 {
		t.Errorf("%d writers won and %d entries are there, want 1 and 2", won, len(entries))
	}
}

func aliasing(t *testing.T, open func() registry.Registry) {
	r := open()
	defer r.Close()
	epoch := acquire(t, r)
	value := []byte("good")
	commit(t, r, epoch, registry.Batch{{Key: "k", Value: value}})
	copy(value, "evil")
	first := load(t, r)
	copy(first[0].Value, "evil")
	if got := string(load(t, r)[0].Value); got != "good" {
		t.Errorf("the value became %q", got)
	}
}

func acquire(t *testing.T, r registry.Registry) uint64 {
	t.Helper()
	epoch, err := r.Acquire(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return epoch
}

func commit(t *testing.T, r registry.Registry, epoch uint64, batch registry.Batch) []uint64 {
	t.Helper()
	got, err := r.Commit(context.Background(), epoch, batch)
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != len(batch) {
		t.Fatalf("%d versions for %d operations", len(got), len(batch))
	}
	return got
}

func load(t *testing.T, r registry.Registry) []registry.Entry {
	t.Helper()
	entries, err := r.Load(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return entries
}

func closing(t *testing.T, r registry.Registry) {
	t.Helper()
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
}
