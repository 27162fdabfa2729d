package zookeeper_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/go-zookeeper/zk"

	"github.com/mezzo-os/mezzo/core/registry"
	"github.com/mezzo-os/mezzo/core/zookeeper"
	"github.com/mezzo-os/mezzo/internal/recorded"
)

// node is a node of ZooKeeper.
type node struct {
	Path string // below the registry's
	Data []byte
}

// TestRecorded is that the nodes of earlier versions are read, and written on. The
// versions of nodes are not recorded, as ZooKeeper gives them: the epoch is then
// its base.
func TestRecorded(t *testing.T) {
	const file = "nodes.json"
	recorded.Check(t, recorded.Kind{Name: "nodes", Write: func(t *testing.T, dir string) {
		o := options(shared.Servers(t), shared.Path(t))
		r := open(t, o)
		defer r.Close()
		if err := r.Raise(deadline(t), 41); err != nil {
			t.Fatal(err)
		}
		epoch := acquire(t, r)
		large := bytes.Repeat([]byte("x"), 250<<10)
		for _, batch := range []registry.Batch{
			{{Key: "agents/a1", Value: []byte("first")}, {Key: "agents/a2", Value: []byte("gone")}, {Key: "empty"}},
			{{Key: "agents/a1", Value: []byte("second"), Expect: registry.Any}, {Key: "agents/a2", Delete: true, Expect: registry.Any}},
			{{Key: "large/1", Value: large}, {Key: "large/2", Value: large}},
		} {
			if _, err := r.Commit(deadline(t), epoch, batch); err != nil {
				t.Fatal(err)
			}
		}
		text, err := json.Marshal(export(t, o.Session, o.Path+"/registry"))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, file), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}, Read: func(t *testing.T, dir string) any {
		text, err := os.ReadFile(filepath.Join(dir, file))
		if err != nil {
			t.Fatal(err)
		}
		var nodes []node
		if err := json.Unmarshal(text, &nodes); err != nil {
			t.Fatal(err)
		}
		o := options(shared.Servers(t), shared.Path(t))
		bring(t, o.Session, o.Path+"/registry", nodes)
		r := open(t, o)
		defer r.Close()
		before, err := r.Epoch(deadline(t))
		if err != nil {
			t.Fatal(err)
		}
		epoch := acquire(t, r)
		entries, err := r.Load(deadline(t))
		if err != nil {
			t.Fatal(err)
		}
		shown := map[string]string{}
		for _, e := range entries {
			value := string(e.Value)
			if count := strings.Count(value, "x"); count > 100 && count == len(value) {
				value = "large"
			}
			shown[e.Key] = value
			if _, err := r.Commit(deadline(t), epoch, registry.Batch{{Key: e.Key, Value: []byte("new"), Expect: e.Version}}); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := r.Load(deadline(t)); err != nil {
			t.Errorf("after it was written on: %v", err)
		}
		return map[string]any{"base": before, "next": epoch, "entries": shown}
	}})
}

// export is what is below a path; lists of children that are empty are left out.
func export(t *testing.T, o zookeeper.Options, root string) (out []node) {
	s, err := zookeeper.Connect(o)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	var walk func(c *zk.Conn, path string) error
	walk = func(c *zk.Conn, path string) error {
		text, _, err := c.Get(path)
		if err != nil {
			return err
		}
		names, _, err := c.Children(path)
		if err != nil {
			return err
		}
		if below := strings.TrimPrefix(path, root); below != "" {
			out = append(out, node{below, text})
		}
		slices.Sort(names)
		for _, name := range names {
			if err := walk(c, path+"/"+name); err != nil {
				return err
			}
		}
		return nil
	}
	if _, err := zookeeper.Do(deadline(t), s, func(c *zk.Conn) (struct{}, error) {
		out = nil
		return struct{}{}, walk(c, root)
	}); err != nil {
		t.Fatal(err)
	}
	return out
}

// bring makes the nodes below a path.
func bring(t *testing.T, o zookeeper.Options, root string, nodes []node) {
	s, err := zookeeper.Connect(o)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.MakePath(deadline(t), root, false); err != nil {
		t.Fatal(err)
	}
	if _, err := zookeeper.Do(deadline(t), s, func(c *zk.Conn) (struct{}, error) {
		for _, n := range nodes {
			if _, err := c.Create(root+n.Path, n.Data, 0, s.ACL(false)); err != nil && !errors.Is(err, zk.ErrNodeExists) {
				return struct{}{}, err
			}
		}
		return struct{}{}, nil
	}); err != nil {
		t.Fatal(err)
	}
}
