package zookeeper

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/go-zookeeper/zk"

	"github.com/mezzo-os/mezzo/core/registry"
	"github.com/mezzo-os/mezzo/core/zookeeper"
)

const (
	// readers ask at the same time: most of an answer's time is the way.
	readers = 64
	// looks are how often it is read anew when a leader writes meanwhile.
	looks = 8
)

// Load returns all entries, sorted by key, of a member that holds all that was
// written. A leader's Load removes what batches that were not finished have left.
func (r *Registry) Load(ctx context.Context) ([]registry.Entry, error) {
	if err := r.take(ctx); err != nil {
		return nil, err
	}
	defer r.give()
	entries, err := r.load(ctx)
	return entries, r.wrap(err)
}

// state is what changes with every batch, and with every leader.
type state struct {
	epoch, commits int32
	head           string // of the commit node
}

func (r *Registry) load(ctx context.Context) ([]registry.Entry, error) {
	if r.epoch != 0 {
		if err := r.fence(ctx); err != nil {
			return nil, err
		}
	}
	damaged := 0
	for range looks {
		before, err := r.now(ctx)
		if errors.Is(err, zk.ErrNoNode) {
			return nil, nil // nobody has led yet
		}
		if err != nil {
			return nil, err
		}
		entries, index, sum, err := r.read(ctx)
		if err != nil {
			return nil, err
		}
		after, nowErr := r.now(ctx)
		switch {
		case nowErr != nil:
			return nil, nowErr
		case after != before:
			continue // a batch was written meanwhile: what was read is of two moments
		}
		var damage error
		lost := slices.ContainsFunc(entries, func(e registry.Entry) bool { return e.Lost })
		if want, told := sumIn(after.head); lost || told && want != sum {
			server, members := r.session.Leave()
			r.damaged(server)
			if damaged++; damaged < min(2*members, looks-1) {
				continue // another member may have all of it
			}
			damage = fmt.Errorf("%w: ZooKeeper's %s at %s, and the others, do not hold what was written (%d entries); see \"lost writes\" in docs/high-availability.md",
				registry.ErrDamaged, server, r.root, len(entries))
		}
		if r.epoch != 0 && after.epoch != r.version {
			return nil, superseded(r.epoch)
		}
		if r.epoch == 0 {
			return entries, damage
		}
		r.index, r.commits, r.sum = index, after.commits, sum
		return entries, errors.Join(damage, r.sweep(ctx))
	}
	return nil, errors.New("it changes faster than it can be read; try again")
}

// fence sees to it that no transaction which was sent before takes effect
// afterwards: each expects a version of the commit node that is gone then.
func (r *Registry) fence(ctx context.Context) error {
	r.batches++
	name := fmt.Sprintf("%d-%d", r.epoch, r.batches)
	for {
		passed, err := zookeeper.Do(ctx, r.session, func(c *zk.Conn) (bool, error) {
			text, stat, err := c.Get(r.node("commit"))
			if err != nil {
				return false, err
			}
			data := []byte(name)
			if sum, told := sumIn(string(text)); told {
				data = head(name, sum)
			}
			answers, err := c.Multi(
				&zk.CheckVersionRequest{Path: r.node("epoch"), Version: r.version},
				&zk.SetDataRequest{Path: r.node("commit"), Data: data, Version: stat.Version})
			switch failed(answers) {
			case checkEpoch:
				return false, superseded(r.epoch)
			case setCommit:
				return false, nil // one of those took effect; the member that answers knows of it now
			}
			return true, err
		})
		if passed || err != nil {
			return err
		}
	}
}

// now reads the versions of epoch and commit, as new as the ensemble has them.
func (r *Registry) now(ctx context.Context) (state, error) {
	return zookeeper.Do(ctx, r.session, func(c *zk.Conn) (state, error) {
		// A member may be behind the others; not after this.
		if _, err := c.Sync(r.root); err != nil {
			return state{}, err
		}
		_, epoch, err := c.Get(r.node("epoch"))
		if err != nil {
			return state{}, err
		}
		head, commit, err := c.Get(r.node("commit"))
		if err != nil {
			return state{}, err
		}
		return state{epoch.Version, commit.Version, string(head)}, nil
	})
}

// errLost means that an entry, or a part of its value, is not there: removed
// since it was listed, or lost.
var errLost = errors.New("the entry is not whole")

// read reads all entries in one pass, and adds up their sum.
func (r *Registry) read(ctx context.Context) (entries []registry.Entry, index map[string]place, sum uint64, err error) {
	lists, err := each(ctx, numbers(buckets), func(ctx context.Context, n int) ([]string, error) {
		dir := r.node("entries", bucket(n))
		names, err := r.children(ctx, dir)
		for i := range names {
			names[i] = dir + "/" + names[i]
		}
		return names, err
	})
	if err != nil {
		return nil, nil, 0, err
	}
	nodes := slices.Concat(lists...)
	type found struct {
		entry registry.Entry
		large *generation
	}
	all, err := each(ctx, nodes, func(ctx context.Context, node string) (found, error) {
		e, large, err := r.readEntry(ctx, node)
		if errors.Is(err, errLost) {
			e.Lost, err = true, nil
		}
		return found{e, large}, err
	})
	if err != nil {
		return nil, nil, 0, err
	}
	entries, index = make([]registry.Entry, len(all)), make(map[string]place, len(all))
	for i, f := range all {
		entries[i] = f.entry
		if f.entry.Lost && f.entry.Version == 0 {
			continue // there is no node
		}
		part := sumOf(f.entry.Key, f.entry.Value)
		index[f.entry.Key] = place{f.entry.Version, part, f.large}
		sum += part
	}
	slices.SortFunc(entries, func(a, b registry.Entry) int { return strings.Compare(a.Key, b.Key) })
	return entries, index, sum, nil
}

func numbers(n int) []int {
	out := make([]int, n)
	for i := range out {
		out[i] = i
	}
	return out
}

func (r *Registry) children(ctx context.Context, dir string) ([]string, error) {
	return zookeeper.Do(ctx, r.session, func(c *zk.Conn) ([]string, error) {
		names, _, err := c.Children(dir)
		return names, err
	})
}

// get reads a node, and the number of the transaction that wrote it last.
func (r *Registry) get(ctx context.Context, node string) ([]byte, uint64, error) {
	type got struct {
		text []byte
		stat *zk.Stat
	}
	now, err := zookeeper.Do(ctx, r.session, func(c *zk.Conn) (got, error) {
		text, stat, err := c.Get(node)
		return got{text, stat}, err
	})
	if err != nil {
		return nil, 0, fmt.Errorf("%s: %w", node, err)
	}
	return now.text, uint64(now.stat.Mzxid), nil
}

func (r *Registry) readEntry(ctx context.Context, node string) (e registry.Entry, large *generation, err error) {
	if e.Key, err = keyOf(node[strings.LastIndexByte(node, '/')+1:]); err != nil {
		return e, nil, err
	}
	text, version, err := r.get(ctx, node)
	if errors.Is(err, zk.ErrNoNode) {
		return e, nil, errLost
	}
	if err != nil {
		return e, nil, err
	}
	e.Version = version
	switch {
	case len(text) > 0 && text[0] == inline:
		e.Value = text[1:]
		return e, nil, nil
	case len(text) == 0 || text[0] != pointer:
		return e, nil, fmt.Errorf("%s is not in a form that this master knows; it was written by a later version, or is damaged", node)
	}
	large = new(generation)
	if err := json.Unmarshal(text[1:], large); err != nil {
		return e, nil, fmt.Errorf("%s points nowhere: %w", node, err)
	}
	for i := range large.Chunks {
		part, _, err := r.get(ctx, r.node("chunks", large.Name, strconv.Itoa(i)))
		if errors.Is(err, zk.ErrNoNode) {
			return registry.Entry{Key: e.Key, Version: version}, nil, errLost // the sweep removes the other chunks
		}
		if err != nil {
			return e, nil, err
		}
		e.Value = append(e.Value, part...)
	}
	if len(e.Value) != large.Size {
		return registry.Entry{Key: e.Key, Version: version}, nil, errLost
	}
	return e, large, nil
}

// sweep removes the chunks that no entry points to.
func (r *Registry) sweep(ctx context.Context) error {
	used := map[string]bool{}
	for p := range maps.Values(r.index) {
		if p.large != nil {
			used[p.large.Name] = true
		}
	}
	names, err := r.children(ctx, r.node("chunks"))
	if err != nil {
		return err
	}
	for _, name := range names {
		if used[name] {
			continue
		}
		parts, err := r.children(ctx, r.node("chunks", name))
		if errors.Is(err, zk.ErrNoNode) {
			continue
		}
		if err != nil {
			return err
		}
		ops := []any{&zk.CheckVersionRequest{Path: r.node("epoch"), Version: r.version}}
		for _, part := range parts {
			ops = append(ops, &zk.DeleteRequest{Path: r.node("chunks", name, part), Version: -1})
		}
		ops = append(ops, &zk.DeleteRequest{Path: r.node("chunks", name), Version: -1})
		_, err = zookeeper.Do(ctx, r.session, func(c *zk.Conn) (struct{}, error) {
			answers, err := c.Multi(ops...)
			switch {
			case failed(answers) == checkEpoch:
				err = superseded(r.epoch)
			case errors.Is(err, zk.ErrNoNode):
				err = nil // an attempt before did it
			}
			return struct{}{}, err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// each asks for many things at a time, and gives the answers in order.
func each[In, Out any](ctx context.Context, in []In, ask func(context.Context, In) (Out, error)) ([]Out, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	out := make([]Out, len(in))
	next := make(chan int)
	var working sync.WaitGroup
	for range min(readers, len(in)) {
		working.Go(func() {
			for i := range next {
				answer, err := ask(ctx, in[i])
				if err != nil {
					cancel(err)
					return
				}
				out[i] = answer
			}
		})
	}
feeding:
	for i := range in {
		select {
		case next <- i:
		case <-ctx.Done():
			break feeding
		}
	}
	close(next)
	working.Wait()
	return out, context.Cause(ctx)
}
