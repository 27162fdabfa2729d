package registry

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
)

// dumpFormat is the format of dumps.
const dumpFormat = 1

// LeadersSince is how many epochs a restore leaves free above the dump's: agents
// refuse a leader with a lower epoch than the highest that they have seen, and
// when the store was lost nobody else knows who has led since the dump.
const LeadersSince = 10_000

// dumpHead is a dump's first line.
type dumpHead struct {
	Kind    string `json:"kind"` // "mezzo registry"
	Format  int    `json:"format"`
	Epoch   uint64 `json:"epoch"`
	Entries int    `json:"entries"`
}

// dumpEntry is each other line.
type dumpEntry struct {
	Key   string `json:"key"`
	Value []byte `json:"value"` // in base64
}

const dumpKind = "mezzo registry"

// Dump writes all entries as lines of JSON: first the format, the epoch and how
// many there are, then each entry, in order of the keys. Of a damaged registry it
// writes what there is, entries without their values left out, and gives the
// error.
func Dump(ctx context.Context, r Registry, w io.Writer) error {
	entries, damage := r.Load(ctx)
	if damage != nil && !errors.Is(damage, ErrDamaged) {
		return damage
	}
	// Read after the entries: it may not be below any that they were written in.
	epoch, err := r.Epoch(ctx)
	if err != nil {
		return err
	}
	entries = slices.DeleteFunc(entries, func(e Entry) bool { return e.Lost })
	out := bufio.NewWriter(w)
	encoder := json.NewEncoder(out)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(dumpHead{dumpKind, dumpFormat, epoch, len(entries)}); err != nil {
		return err
	}
	for _, e := range entries {
		if err := encoder.Encode(dumpEntry{e.Key, e.Value}); err != nil {
			return err
		}
	}
	return errors.Join(out.Flush(), damage)
}

// Restore makes the registry what a dump says, entries that are not in it
// removed, and gives the epoch that it wrote in: the next leader's is above it,
// and above the dump's by LeadersSince. The dump is read whole before anything is written. What
// is written is not one batch: after an error, restore again. A damaged registry
// is written whole, and is not damaged any more.
func Restore(ctx context.Context, r Registry, dump io.Reader) (epoch uint64, err error) {
	head, wanted, err := readDump(dump)
	if err != nil {
		return 0, err
	}
	if err := r.Raise(ctx, head.Epoch+LeadersSince); err != nil {
		return 0, err
	}
	if epoch, err = r.Acquire(ctx); err != nil {
		return 0, err
	}
	have, err := r.Load(ctx)
	damaged := errors.Is(err, ErrDamaged)
	if err != nil && !damaged {
		return 0, err
	}
	var ops Batch
	is := make(map[string][]byte, len(have))
	for _, e := range have {
		is[e.Key] = e.Value
		if _, stays := wanted[e.Key]; !stays {
			ops = append(ops, Op{Key: e.Key, Delete: true, Expect: Any})
		}
	}
	for key, value := range wanted {
		if old, there := is[key]; damaged || !there || !bytes.Equal(old, value) {
			ops = append(ops, Op{Key: key, Value: value, Expect: Any})
		}
	}
	if damaged && len(ops) == 0 {
		ops = Batch{{Key: "none", Delete: true, Expect: Any}} // nothing is lost of nothing: a write says so
	}
	for len(ops) > 0 {
		n, size := 0, 0
		for n < len(ops) {
			size += len(ops[n].Key) + len(ops[n].Value) + Overhead
			if n > 0 && size > MaxBatch/2 {
				break
			}
			n++
		}
		if _, err := r.Commit(ctx, epoch, ops[:n]); err != nil {
			return 0, fmt.Errorf("the registry is restored in part; restore it again: %w", err)
		}
		ops = ops[n:]
	}
	return epoch, nil
}

func readDump(from io.Reader) (head dumpHead, entries map[string][]byte, err error) {
	decoder := json.NewDecoder(from)
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&head); err != nil || head.Kind != dumpKind {
		return head, nil, errors.New("registry: this is no dump of a registry; `mezzo registry dump` writes them")
	}
	if head.Format != dumpFormat {
		return head, nil, fmt.Errorf("registry: the dump has format %d and this version reads %d; use the version that wrote it, or a newer one", head.Format, dumpFormat)
	}
	entries = map[string][]byte{}
	for {
		var e dumpEntry
		err := decoder.Decode(&e)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return head, nil, fmt.Errorf("registry: the dump is damaged after %d of %d entries: %w", len(entries), head.Entries, err)
		}
		if _, twice := entries[e.Key]; twice || e.Key == "" {
			return head, nil, fmt.Errorf("registry: the dump is damaged: the key %q stands twice, or is none", e.Key)
		}
		entries[e.Key] = e.Value
	}
	if len(entries) != head.Entries {
		return head, nil, fmt.Errorf("registry: the dump is cut off: it has %d of %d entries", len(entries), head.Entries)
	}
	return head, entries, nil
}
