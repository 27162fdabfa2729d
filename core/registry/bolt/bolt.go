// Package bolt keeps the registry of a single master in one bbolt file.
package bolt

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"github.com/mezzo-os/mezzo/core/registry"
)

const (
	// File is the usual name, in the master's data_dir.
	File = "registry.db"
	// formatVersion of what the file holds.
	formatVersion = 1

	lockTimeout = 2 * time.Second
)

var (
	entriesBucket = []byte("entries")
	metaBucket    = []byte("meta")
	epochKey      = []byte("epoch")
	formatKey     = []byte("format")
)

// Registry is a registry.Registry in a bbolt file. Every Commit is synced to
// the disk before it returns.
type Registry struct {
	path string
	db   *bbolt.DB
}

var _ registry.Registry = (*Registry)(nil)

// Open opens the file, and makes it and its directory when they are not there.
// The file is locked while it is open: one master a file.
func Open(path string) (r *Registry, err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("registry %s: %w", path, err)
	}
	// bbolt maps the file into memory and panics on some kinds of damage.
	defer func() {
		if p := recover(); p != nil {
			r, err = nil, corrupt(path, fmt.Errorf("%v", p))
		}
	}()
	if err := whole(path); err != nil {
		return nil, explain(path, err)
	}
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{Timeout: lockTimeout, FreelistType: bbolt.FreelistMapType})
	if err != nil {
		return nil, explain(path, err)
	}
	if err := db.Update(prepare); err != nil {
		db.Close()
		if errors.Is(err, errFormat) {
			return nil, fmt.Errorf("registry %s: %w", path, err)
		}
		return nil, explain(path, err)
	}
	return &Registry{path: path, db: db}, nil
}

var errFormat = errors.New("it was written by a later version of Mezzo; run that version, or move the file away to start with an empty registry")

func prepare(tx *bbolt.Tx) error {
	meta, err := tx.CreateBucketIfNotExists(metaBucket)
	if err != nil {
		return err
	}
	if _, err := tx.CreateBucketIfNotExists(entriesBucket); err != nil {
		return err
	}
	switch format := meta.Get(formatKey); {
	case format == nil:
		return meta.Put(formatKey, number(formatVersion))
	case len(format) != 8 || binary.BigEndian.Uint64(format) > formatVersion:
		return errFormat
	}
	return nil
}

// whole returns an error when the file is shorter than its own records say.
// Reading beyond the end of a mapped file kills the process, and an ordinary
// Open reads far; one for reading only looks at the first pages.
func whole(path string) error {
	info, err := os.Stat(path)
	if errors.Is(err, os.ErrNotExist) || err == nil && info.Size() == 0 {
		return nil
	}
	if err != nil {
		return err
	}
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{Timeout: lockTimeout, ReadOnly: true})
	if err != nil {
		return err
	}
	defer db.Close()
	return db.View(func(tx *bbolt.Tx) error {
		if tx.Size() > info.Size() {
			return fmt.Errorf("%w: it has %d bytes and should have %d", bolterrors.ErrInvalid, info.Size(), tx.Size())
		}
		return nil
	})
}

func explain(path string, err error) error {
	switch {
	case errors.Is(err, bolterrors.ErrTimeout):
		return fmt.Errorf("registry %s is locked: another master uses this data_dir; end it, or give this one a data_dir of its own", path)
	case errors.Is(err, os.ErrPermission):
		return fmt.Errorf("registry %s: %w; run the master as the file's owner", path, err)
	case errors.Is(err, bolterrors.ErrInvalid), errors.Is(err, bolterrors.ErrChecksum), errors.Is(err, bolterrors.ErrVersionMismatch):
		return corrupt(path, err)
	default:
		return fmt.Errorf("registry %s: %w", path, err)
	}
}

func corrupt(path string, err error) error {
	return fmt.Errorf("registry %s is damaged (%w): put a copy of it back, or move it away to start with an empty registry "+
		"(agents and tasks are then learned anew as agents register; quota, weights and marks of gone agents are lost)", path, err)
}

// Acquire takes the next epoch.
func (r *Registry) Acquire(ctx context.Context) (epoch uint64, err error) {
	err = r.update(ctx, func(tx *bbolt.Tx) error {
		meta := tx.Bucket(metaBucket)
		epoch = current(meta) + 1
		return meta.Put(epochKey, number(epoch))
	})
	return epoch, err
}

// Raise has the next epoch be above floor.
func (r *Registry) Raise(ctx context.Context, floor uint64) error {
	return r.update(ctx, func(tx *bbolt.Tx) error {
		if meta := tx.Bucket(metaBucket); current(meta) < floor {
			return meta.Put(epochKey, number(floor))
		}
		return nil
	})
}

// Epoch is the newest that was taken.
func (r *Registry) Epoch(ctx context.Context) (epoch uint64, err error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	err = r.db.View(func(tx *bbolt.Tx) error {
		epoch = current(tx.Bucket(metaBucket))
		return nil
	})
	return epoch, r.wrap(err)
}

// Load returns all entries, sorted by key.
func (r *Registry) Load(ctx context.Context) (entries []registry.Entry, err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	err = r.db.View(func(tx *bbolt.Tx) error {
		return tx.Bucket(entriesBucket).ForEach(func(key, stored []byte) error {
			if len(stored) < 8 {
				return corrupt(r.path, fmt.Errorf("entry %q has no version", key))
			}
			entries = append(entries, registry.Entry{
				Key: string(key), Value: bytes.Clone(stored[8:]), Version: binary.BigEndian.Uint64(stored),
			})
			return nil
		})
	})
	return entries, r.wrap(err)
}

// Commit writes the batch.
func (r *Registry) Commit(ctx context.Context, epoch uint64, batch registry.Batch) (versions []uint64, err error) {
	if err := batch.Check(); err != nil {
		return nil, err
	}
	err = r.update(ctx, func(tx *bbolt.Tx) error {
		meta := tx.Bucket(metaBucket)
		if newest := current(meta); newest != epoch {
			return fmt.Errorf("%w: the newest epoch is %d, this leader's is %d", registry.ErrSuperseded, newest, epoch)
		}
		// The bucket's sequence gives versions, so that an entry that was
		// deleted and made again does not get an old version.
		entries := tx.Bucket(entriesBucket)
		versions = make([]uint64, 0, len(batch))
		for _, op := range batch {
			version, err := write(entries, op)
			if err != nil {
				return err
			}
			versions = append(versions, version)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return versions, nil
}

func write(entries *bbolt.Bucket, op registry.Op) (version uint64, err error) {
	key := []byte(op.Key)
	stored := entries.Get(key)
	var have uint64
	if len(stored) >= 8 {
		have = binary.BigEndian.Uint64(stored)
	}
	if op.Expect != registry.Any && op.Expect != have {
		return 0, fmt.Errorf("%w: %q has version %d, not %d", registry.ErrConflict, op.Key, have, op.Expect)
	}
	if op.Delete {
		return 0, entries.Delete(key)
	}
	if version, err = entries.NextSequence(); err != nil {
		return 0, err
	}
	return version, entries.Put(key, append(number(version), op.Value...))
}

// Close closes the file, after a write that is under way.
func (r *Registry) Close() error {
	if err := r.db.Close(); err != nil {
		return fmt.Errorf("registry %s: %w", r.path, err)
	}
	return nil
}

func (r *Registry) update(ctx context.Context, change func(*bbolt.Tx) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return r.wrap(r.db.Update(change))
}

func (r *Registry) wrap(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, bolterrors.ErrDatabaseNotOpen):
		return registry.ErrClosed
	case errors.Is(err, registry.ErrSuperseded), errors.Is(err, registry.ErrConflict):
		return err
	default:
		return fmt.Errorf("registry %s: %w", r.path, err)
	}
}

func current(meta *bbolt.Bucket) uint64 {
	if stored := meta.Get(epochKey); len(stored) == 8 {
		return binary.BigEndian.Uint64(stored)
	}
	return 0
}

func number(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }
