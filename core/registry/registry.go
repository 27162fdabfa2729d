// Package registry is the master's durable state: small keys and values, in
// batches that are written whole or not at all.
//
// Terms. An *entry* is a key, its value and its version. The *version* of an
// entry rises with every write of it, and is 0 while there is none. The
// *epoch* numbers leaderships: each leader takes a higher one than all before
// it, and every write is refused once a later leader has taken its own, so a
// master that no longer leads cannot write.
//
// Life cycle: open a Registry, Acquire once, Load once, then Commit as often
// as needed, Close. A master whose Commit fails with ErrSuperseded has to stop.
//
// Example:
//
//	epoch, err := r.Acquire(ctx)
//	entries, err := r.Load(ctx)
//	versions, err := r.Commit(ctx, epoch, registry.Batch{{Key: "agent/a1", Value: admitted, Expect: 0}})
package registry

import (
	"context"
	"errors"
	"fmt"
)

const (
	// MaxKey is the longest key, in bytes.
	MaxKey = 512
	// MaxBatch is the largest batch, keys and values together and Overhead for
	// each operation, in bytes.
	MaxBatch = 512 << 10
	// Overhead is what an operation counts besides its key and value, in bytes.
	Overhead = 128
	// Any as Op.Expect writes whatever the entry's version is.
	Any = ^uint64(0)
)

var (
	// ErrSuperseded means that a later leader has taken its epoch.
	ErrSuperseded = errors.New("registry: a later leader has taken over")
	// ErrConflict means that an entry did not have the expected version;
	// nothing of the batch was written.
	ErrConflict = errors.New("registry: an entry has changed")
	// ErrTooLarge means that a key or a batch is over its bound.
	ErrTooLarge = errors.New("registry: too large")
	// ErrDamaged means that what the store holds is not what was written: it has
	// lost or kept back some writes.
	ErrDamaged = errors.New("registry: the store has lost writes")
	// ErrClosed means that the registry was closed.
	ErrClosed = errors.New("registry: closed")
)

// Registry keeps entries durably. Safe for concurrent use; batches take
// effect one after the other.
type Registry interface {
	// Acquire takes the next epoch, one higher than any before. It is durable
	// when Acquire returns.
	Acquire(ctx context.Context) (epoch uint64, err error)
	// Epoch is the newest that was taken; 0: none.
	Epoch(ctx context.Context) (uint64, error)
	// Load returns all entries, sorted by key, as they were at one moment. Whoever
	// does not lead may load, too. With ErrDamaged the entries are what the store
	// holds all the same, some of them Lost: for whoever repairs it, and for nobody
	// else.
	Load(ctx context.Context) ([]Entry, error)
	// Commit writes the batch whole or not at all, if epoch is the newest, and
	// returns when it is durable: the new version of each entry, in the
	// batch's order (0 for a deletion). Errors: ErrSuperseded, ErrConflict,
	// ErrTooLarge, ErrClosed; any other leaves it unknown whether the batch
	// was written.
	Commit(ctx context.Context, epoch uint64, batch Batch) (versions []uint64, err error)
	// Raise sees to it that every epoch from now on is above floor: agents refuse
	// a leader whose epoch is not above all that they have seen, and a registry
	// that was restored elsewhere would begin anew. It supersedes whoever leads
	// when it changes anything.
	Raise(ctx context.Context, floor uint64) error
	// Close ends the use of the registry. What was committed stays.
	Close() error
}

// Entry is a key with its value.
type Entry struct {
	Key     string
	Value   []byte
	Version uint64
	// Lost is set, with ErrDamaged only, when there is an entry and its value, or a
	// part of it, is not there.
	Lost bool
}

// Op writes or deletes one entry.
type Op struct {
	Key   string
	Value []byte
	// Delete removes the entry; Value is not used. Removing what is not there
	// is no error when Expect allows it.
	Delete bool
	// Expect is the version that the entry must have: 0 for none there yet,
	// Any for no condition.
	Expect uint64
}

// Batch is a list of writes, each of another key.
type Batch []Op

// Check returns an error when the batch breaks a bound or names a key twice.
func (b Batch) Check() error {
	size := 0
	seen := make(map[string]bool, len(b))
	for _, op := range b {
		switch {
		case op.Key == "":
			return errors.New("registry: an operation has no key")
		case len(op.Key) > MaxKey:
			return fmt.Errorf("%w: key of %d bytes, the most is %d", ErrTooLarge, len(op.Key), MaxKey)
		case seen[op.Key]:
			return fmt.Errorf("registry: key %q stands twice in a batch", op.Key)
		}
		seen[op.Key] = true
		size += len(op.Key) + len(op.Value) + Overhead
	}
	if size > MaxBatch {
		return fmt.Errorf("%w: batch of %d bytes, the most is %d", ErrTooLarge, size, MaxBatch)
	}
	return nil
}
