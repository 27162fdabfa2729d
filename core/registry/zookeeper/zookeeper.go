// Package zookeeper keeps the registry of several masters in a ZooKeeper
// ensemble.
//
// Below `<path>/registry`:
//
//	epoch               {"format":1,"base":0}; the epoch is base plus the node's version
//	commit              the name of the newest batch and the sum of all entries; its version counts batches
//	entries/3f/agents%2Fa1   an entry: one byte that says what follows, and the value or a pointer
//	chunks/7-12/0       a part of a value that is too large for its entry
//
// A batch is one ZooKeeper transaction. It checks the version of epoch, so that a
// master which no longer leads cannot write, and sets commit at its expected
// version: a transaction that is sent twice, because the connection was lost and
// its outcome unknown, takes effect once, and its second answer tells so. Values
// that make a transaction too large are written in chunks first, under a
// generation of their own; the entry then points to it. What nothing points to
// is removed when a leader loads.
//
// The sum is of what every entry is and says, and changes with each batch. Whoever
// loads compares it: members of an ensemble have lost committed transactions
// when they synchronised with their leader (ZOOKEEPER-4646, 4785, 4394 and 4925
// are of that kind; see docs/high-availability.md). Such a member is left for
// another one.
package zookeeper

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"math/rand/v2"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/go-zookeeper/zk"

	"github.com/mezzo-os/mezzo/core/registry"
	"github.com/mezzo-os/mezzo/core/zookeeper"
)

const (
	formatVersion = 1

	// buckets spread the entries: the list of a node's children must fit into
	// one answer.
	buckets = 256

	// maxTransaction is when values are moved out of a transaction;
	// hardTransaction is what ZooKeeper would refuse, less what is not counted.
	maxTransaction  = 480 << 10
	hardTransaction = 960 << 10
	maxChunk        = 256 << 10

	backoffMin = 50 * time.Millisecond
	backoffMax = 2 * time.Second
)

// What an entry's data begins with.
const (
	inline  byte = 0 // the value follows
	pointer byte = 1 // JSON follows: see generation
)

// generation says where a large value is.
type generation struct {
	Name   string `json:"generation"`
	Chunks int    `json:"chunks"`
	Size   int    `json:"size"`
}

// Options of a registry.
type Options struct {
	// Session is how the ensemble is reached.
	Session zookeeper.Options
	// Path is the node below which everything lies, "/mezzo".
	Path string
	// Damaged, when set, is told of each server that was found not to hold what was
	// written; it is left for another one, if there is one. It must not block.
	Damaged func(server string)
}

// Registry is a registry.Registry in ZooKeeper. What it does waits for the
// ensemble as long as its context lasts.
type Registry struct {
	root    string
	session *zookeeper.Session
	damaged func(server string)
	turn    chan struct{} // holds a token: one works at a time

	// Under turn.
	epoch   uint64 // that was acquired; 0: none
	version int32  // of the epoch node then
	commits int32  // version of the commit node
	sum     uint64 // of the entries in index
	index   map[string]place
	batches uint64 // names generations and batches
}

// place is what is known of an entry.
type place struct {
	version uint64
	sum     uint64
	large   *generation // nil: the value is in the entry
}

var _ registry.Registry = (*Registry)(nil)

// Open begins a session. It does not wait for the ensemble.
func Open(o Options) (*Registry, error) {
	session, err := zookeeper.Connect(o.Session)
	if err != nil {
		return nil, err
	}
	damaged := o.Damaged
	if damaged == nil {
		damaged = func(string) {}
	}
	return &Registry{root: strings.TrimSuffix(o.Path, "/") + "/registry", session: session, damaged: damaged, turn: make(chan struct{}, 1)}, nil
}

func (r *Registry) node(parts ...string) string { return r.root + "/" + strings.Join(parts, "/") }

// entryNode is where an entry is. The name of a node may not be "." or "..", and
// must have no slash.
func (r *Registry) entryNode(key string) string {
	hash := fnv.New32a()
	_, _ = hash.Write([]byte(key))
	return r.node("entries", bucket(int(hash.Sum32()%buckets)), "k-"+url.PathEscape(key))
}

func bucket(n int) string { return fmt.Sprintf("%02x", n) }

func keyOf(name string) (string, error) {
	escaped, ok := strings.CutPrefix(name, "k-")
	if !ok {
		return "", fmt.Errorf("the node %q is no entry", name)
	}
	return url.PathUnescape(escaped)
}

// sumOf is an entry's part of the sum. The parts are added up, so that their
// order does not matter, and one may be taken away.
func sumOf(key string, value []byte) uint64 {
	h := sha256.New()
	_, _ = h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(key))))
	_, _ = io.WriteString(h, key)
	_, _ = h.Write(value)
	return binary.BigEndian.Uint64(h.Sum(nil))
}

// head is what the commit node holds.
func head(name string, sum uint64) []byte { return fmt.Appendf(nil, "%s sum=%016x", name, sum) }

// sumIn is the sum that the commit node tells; an earlier version wrote none.
func sumIn(head string) (sum uint64, told bool) {
	_, digits, told := strings.Cut(head, " sum=")
	sum, err := strconv.ParseUint(digits, 16, 64)
	return sum, told && err == nil
}

// take waits for its turn.
func (r *Registry) take(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	select {
	case r.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (r *Registry) give() { <-r.turn }

// wrap makes an error the caller's.
func (r *Registry) wrap(err error) error {
	switch {
	case err == nil, errors.Is(err, registry.ErrSuperseded), errors.Is(err, registry.ErrConflict), errors.Is(err, registry.ErrTooLarge), errors.Is(err, registry.ErrDamaged):
		return err
	case errors.Is(err, zookeeper.ErrClosed):
		return registry.ErrClosed
	case errors.Is(err, zk.ErrNoAuth):
		return fmt.Errorf("registry in ZooKeeper at %s: %w; its nodes belong to whoever made them: give the same auth as then", r.root, err)
	default:
		return fmt.Errorf("registry in ZooKeeper at %s: %w", r.root, err)
	}
}

// epochData is what the epoch node holds.
type epochData struct {
	Format int    `json:"format"`
	Base   uint64 `json:"base"`
}

// epochNow reads the epoch node. ErrNoNode: there is no registry yet.
func (r *Registry) epochNow(ctx context.Context) (epochData, int32, error) {
	var d epochData
	type got struct {
		text []byte
		stat *zk.Stat
	}
	now, err := zookeeper.Do(ctx, r.session, func(c *zk.Conn) (got, error) {
		text, stat, err := c.Get(r.node("epoch"))
		return got{text, stat}, err
	})
	if err != nil {
		return d, 0, err
	}
	if err := json.Unmarshal(now.text, &d); err != nil {
		return d, 0, fmt.Errorf("%s holds %q, which is not an epoch: %w", r.node("epoch"), now.text, err)
	}
	if d.Format != formatVersion {
		return d, 0, fmt.Errorf("it has format %d and this master reads %d; run the version that wrote it, or give another path", d.Format, formatVersion)
	}
	return d, now.stat.Version, nil
}

// Epoch is the newest that was taken.
func (r *Registry) Epoch(ctx context.Context) (uint64, error) {
	d, version, err := r.epochNow(ctx)
	if errors.Is(err, zk.ErrNoNode) {
		return 0, nil
	}
	return d.Base + uint64(version), r.wrap(err)
}

// Acquire takes the next epoch.
func (r *Registry) Acquire(ctx context.Context) (uint64, error) {
	if err := r.take(ctx); err != nil {
		return 0, err
	}
	defer r.give()
	epoch, err := r.bump(ctx, nil)
	if err != nil {
		return 0, r.wrap(err)
	}
	return epoch, nil
}

// Raise has the next epoch be above floor.
func (r *Registry) Raise(ctx context.Context, floor uint64) error {
	if err := r.take(ctx); err != nil {
		return err
	}
	defer r.give()
	_, err := r.bump(ctx, &floor)
	return r.wrap(err)
}

// bump takes the next epoch, or, with a floor, sees to it that the newest is not
// below it. When the connection is lost it may take two: nobody has the first.
func (r *Registry) bump(ctx context.Context, floor *uint64) (uint64, error) {
	if err := r.setUp(ctx); err != nil {
		return 0, err
	}
	for {
		d, version, err := r.epochNow(ctx)
		if err != nil {
			return 0, err
		}
		if floor != nil {
			if d.Base+uint64(version) >= *floor {
				return 0, nil
			}
			d.Base = *floor - uint64(version) - 1
		}
		text, err := json.Marshal(d)
		if err != nil {
			return 0, err
		}
		stat, err := zookeeper.Once(ctx, r.session, func(c *zk.Conn) (*zk.Stat, error) { return c.Set(r.node("epoch"), text, version) })
		switch {
		case err == nil && floor != nil:
			return 0, nil
		case err == nil:
			r.epoch, r.version, r.index = d.Base+uint64(stat.Version), stat.Version, nil
			return r.epoch, nil
		case errors.Is(err, zk.ErrBadVersion):
		case !zookeeper.Lost(err):
			return 0, err
		}
	}
}

// setUp makes the nodes, unless they are there. epoch is the last: when it is
// there, all are.
func (r *Registry) setUp(ctx context.Context) error {
	_, _, err := r.epochNow(ctx)
	if !errors.Is(err, zk.ErrNoNode) {
		return err
	}
	if err := r.session.MakePath(ctx, r.root, false); err != nil {
		return err
	}
	acl := r.session.ACL(false)
	text, err := json.Marshal(epochData{Format: formatVersion})
	if err != nil {
		return err
	}
	ops := []any{
		&zk.CreateRequest{Path: r.node("commit"), Data: head("none", 0), Acl: acl},
		&zk.CreateRequest{Path: r.node("chunks"), Data: []byte{}, Acl: acl},
		&zk.CreateRequest{Path: r.node("entries"), Data: []byte{}, Acl: acl},
	}
	for i := range buckets {
		ops = append(ops, &zk.CreateRequest{Path: r.node("entries", bucket(i)), Data: []byte{}, Acl: acl})
	}
	ops = append(ops, &zk.CreateRequest{Path: r.node("epoch"), Data: text, Acl: acl})
	_, err = zookeeper.Do(ctx, r.session, func(c *zk.Conn) (struct{}, error) {
		_, err := c.Multi(ops...)
		if errors.Is(err, zk.ErrNodeExists) {
			err = nil // another master was faster, or this one, without knowing
		}
		return struct{}{}, err
	})
	return err
}

// Close ends the session.
func (r *Registry) Close() error {
	r.session.Close()
	return nil
}

// pause waits before another attempt, and gives the next pause.
func pause(ctx context.Context, p time.Duration) (time.Duration, error) {
	select {
	case <-time.After(p/2 + rand.N(p/2+1)):
		return min(2*p, backoffMax), nil
	case <-ctx.Done():
		return p, ctx.Err()
	}
}
