package zookeeper

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"github.com/go-zookeeper/zk"

	"github.com/mezzo-os/mezzo/core/registry"
	"github.com/mezzo-os/mezzo/core/zookeeper"
)

// transaction is a batch as ZooKeeper gets it.
type transaction struct {
	name    string
	head    []byte // of the commit node
	ops     []any
	changes map[string]*place // what the index becomes; nil: no entry
	sum     uint64            // of all entries then
}

// The first operations of every transaction.
const (
	checkEpoch = 0
	setCommit  = 1
	headOps    = 2
)

// Commit writes the batch. When the connection is lost it goes on until it has
// learned whether the batch was written, as long as ctx lasts.
func (r *Registry) Commit(ctx context.Context, epoch uint64, batch registry.Batch) ([]uint64, error) {
	if err := batch.Check(); err != nil {
		return nil, err
	}
	if err := r.take(ctx); err != nil {
		return nil, err
	}
	defer r.give()
	versions, err := r.commit(ctx, epoch, batch)
	if err != nil {
		return nil, r.wrap(err)
	}
	return versions, nil
}

func (r *Registry) commit(ctx context.Context, epoch uint64, batch registry.Batch) ([]uint64, error) {
	if r.epoch == 0 || epoch != r.epoch {
		return nil, fmt.Errorf("%w: this leader's epoch is %d, the batch's %d", registry.ErrSuperseded, r.epoch, epoch)
	}
	if r.index == nil {
		if _, err := r.load(ctx); err != nil {
			r.index = nil // a damaged one is not written to unasked
			return nil, err
		}
	}
	for _, op := range batch {
		if have := r.index[op.Key].version; op.Expect != registry.Any && op.Expect != have {
			return nil, fmt.Errorf("%w: %q has version %d, not %d", registry.ErrConflict, op.Key, have, op.Expect)
		}
	}
	t, err := r.prepare(ctx, batch)
	if err != nil {
		return nil, err
	}
	zxid, err := r.send(ctx, t)
	if err != nil {
		return nil, err
	}
	r.commits++
	r.sum = t.sum
	versions := make([]uint64, len(batch))
	for i, op := range batch {
		if op.Delete {
			delete(r.index, op.Key)
			continue
		}
		versions[i] = zxid
		p := t.changes[op.Key]
		p.version = zxid
		r.index[op.Key] = *p
	}
	return versions, nil
}

// prepare makes the transaction of a batch, and writes the chunks of values that
// are too large for it.
func (r *Registry) prepare(ctx context.Context, batch registry.Batch) (*transaction, error) {
	r.batches++
	t := &transaction{name: fmt.Sprintf("%d-%d", r.epoch, r.batches), changes: map[string]*place{}, sum: r.sum}
	for _, op := range batch {
		t.sum -= r.index[op.Key].sum
		if !op.Delete {
			t.changes[op.Key] = &place{sum: sumOf(op.Key, op.Value)}
			t.sum += t.changes[op.Key].sum
		}
	}
	t.head = head(t.name, t.sum)
	t.ops = append(t.ops,
		&zk.CheckVersionRequest{Path: r.node("epoch"), Version: r.version},
		&zk.SetDataRequest{Path: r.node("commit"), Data: t.head, Version: r.commits})
	acl := r.session.ACL(false)
	size := 0
	var values []int // places in ops of those that could be moved out
	for _, op := range batch {
		node := r.entryNode(op.Key)
		old, exists := r.index[op.Key]
		switch {
		case op.Delete && !exists:
			continue
		case op.Delete:
			t.ops = append(t.ops, &zk.DeleteRequest{Path: node, Version: -1})
		case exists:
			t.ops = append(t.ops, &zk.SetDataRequest{Path: node, Data: inlined(op.Value), Version: -1})
		default:
			t.ops = append(t.ops, &zk.CreateRequest{Path: node, Data: inlined(op.Value), Acl: acl})
		}
		size += len(node) + len(op.Value) + overhead(acl)
		if !op.Delete && len(op.Value) > overhead(acl) {
			values = append(values, len(t.ops)-1)
		}
		if old.large != nil {
			for i := range old.large.Chunks {
				t.ops = append(t.ops, &zk.DeleteRequest{Path: r.node("chunks", old.large.Name, strconv.Itoa(i)), Version: -1})
			}
			t.ops = append(t.ops, &zk.DeleteRequest{Path: r.node("chunks", old.large.Name), Version: -1})
		}
	}
	slices.SortStableFunc(values, func(a, b int) int { return len(*data(t.ops[b])) - len(*data(t.ops[a])) })
	for n := 0; size > maxTransaction && n < len(values); n++ {
		to := data(t.ops[values[n]])
		large, err := r.stage(ctx, fmt.Sprintf("%s-%d", t.name, n), (*to)[1:])
		if err != nil {
			return nil, err
		}
		size -= len(*to)
		if *to, err = pointed(large); err != nil {
			return nil, err
		}
		size += len(*to)
		for _, op := range batch {
			if r.entryNode(op.Key) == pathOf(t.ops[values[n]]) {
				t.changes[op.Key].large = large
			}
		}
	}
	if size > hardTransaction {
		return nil, fmt.Errorf("%w: a transaction of %d bytes; write fewer entries at a time", registry.ErrTooLarge, size)
	}
	return t, nil
}

// overhead is what an operation takes besides its node's name and its value.
func overhead(acl []zk.ACL) int {
	n := 40
	for _, a := range acl {
		n += 12 + len(a.Scheme) + len(a.ID)
	}
	return n
}

func data(op any) *[]byte {
	switch op := op.(type) {
	case *zk.SetDataRequest:
		return &op.Data
	case *zk.CreateRequest:
		return &op.Data
	}
	panic("zookeeper: the operation has no data")
}

func pathOf(op any) string {
	switch op := op.(type) {
	case *zk.SetDataRequest:
		return op.Path
	case *zk.CreateRequest:
		return op.Path
	}
	return ""
}

func inlined(value []byte) []byte { return append([]byte{inline}, value...) }

func pointed(g *generation) ([]byte, error) {
	text, err := json.Marshal(g)
	return append([]byte{pointer}, text...), err
}

// stage writes a value in chunks, where nothing points to yet.
func (r *Registry) stage(ctx context.Context, name string, value []byte) (*generation, error) {
	g := &generation{Name: name, Size: len(value)}
	acl := r.session.ACL(false)
	write := func(path string, part []byte) error {
		_, err := zookeeper.Do(ctx, r.session, func(c *zk.Conn) (struct{}, error) {
			answers, err := c.Multi(&zk.CheckVersionRequest{Path: r.node("epoch"), Version: r.version}, &zk.CreateRequest{Path: path, Data: part, Acl: acl})
			if errors.Is(err, zk.ErrNodeExists) {
				err = nil // the first attempt did it: the name is this batch's own
			}
			if failed(answers) == checkEpoch {
				err = superseded(r.epoch)
			}
			return struct{}{}, err
		})
		return err
	}
	if err := write(r.node("chunks", name), []byte{}); err != nil {
		return nil, err
	}
	for part := range slices.Chunk(value, maxChunk) {
		if err := write(r.node("chunks", name, strconv.Itoa(g.Chunks)), part); err != nil {
			return nil, err
		}
		g.Chunks++
	}
	return g, nil
}

func superseded(epoch uint64) error {
	return fmt.Errorf("%w: this leader's epoch is %d", registry.ErrSuperseded, epoch)
}

// failed is the place of the operation that a transaction failed at; -1: it did
// not, or the answer does not say.
func failed(answers []zk.MultiResponse) int {
	return slices.IndexFunc(answers, func(a zk.MultiResponse) bool { return a.Error != nil })
}

// send has a transaction done once, and gives its number, which is higher than
// all before. An error that is none of the registry's leaves it open whether it
// was done; the index is thrown away then.
func (r *Registry) send(ctx context.Context, t *transaction) (zxid uint64, err error) {
	wait, unsure := backoffMin, false
	for {
		answers, err := zookeeper.Once(ctx, r.session, func(c *zk.Conn) ([]zk.MultiResponse, error) { return c.Multi(t.ops...) })
		switch {
		case err == nil:
			return uint64(answers[setCommit].Stat.Mzxid), nil
		case zookeeper.Lost(err):
			unsure = true
		case failed(answers) == checkEpoch:
			r.index = nil
			return 0, superseded(r.epoch)
		case failed(answers) == setCommit && unsure:
			return r.learn(ctx, t)
		default:
			// Also when ctx has ended or the session is closed, with the transaction
			// on its way.
			r.index = nil
			if failed(answers) >= 0 {
				err = fmt.Errorf("somebody else has changed it below this leader: %w", err)
			}
			return 0, err
		}
		if wait, err = pause(ctx, wait); err != nil {
			r.index = nil
			return 0, err
		}
	}
}

// learn finds out whether the newest batch is this one: its transaction was sent
// again, and refused, since a batch has been written at its place.
func (r *Registry) learn(ctx context.Context, t *transaction) (zxid uint64, err error) {
	type got struct {
		text []byte
		stat *zk.Stat
	}
	newest, err := zookeeper.Do(ctx, r.session, func(c *zk.Conn) (got, error) {
		text, stat, err := c.Get(r.node("commit"))
		return got{text, stat}, err
	})
	if err != nil || !bytes.Equal(newest.text, t.head) || newest.stat.Version != r.commits+1 {
		r.index = nil
		if err == nil {
			err = fmt.Errorf("somebody else has written batch %q below this leader", newest.text)
		}
		return 0, err
	}
	return uint64(newest.stat.Mzxid), nil
}
