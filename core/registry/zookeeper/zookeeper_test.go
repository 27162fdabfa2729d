package zookeeper_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-zookeeper/zk"

	"github.com/mezzo-os/mezzo/core/registry"
	"github.com/mezzo-os/mezzo/core/registry/registrytest"
	keep "github.com/mezzo-os/mezzo/core/registry/zookeeper"
	"github.com/mezzo-os/mezzo/core/zookeeper"
	"github.com/mezzo-os/mezzo/internal/zktest"
)

const patience = 90 * time.Second

var shared zktest.Shared

func TestMain(m *testing.M) { zktest.Main(m, &shared) }

func open(t testing.TB, o keep.Options) *keep.Registry {
	t.Helper()
	r, err := keep.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func options(servers []string, path string) keep.Options {
	return keep.Options{Session: zookeeper.Options{Servers: servers, Timeout: 10 * time.Second}, Path: path}
}

// With credentials; the other tests have none.
func TestConformance(t *testing.T) {
	registrytest.Run(t, func(t *testing.T) func() registry.Registry {
		o := options(shared.Servers(t), shared.Path(t))
		o.Session.Auth = "mezzo:secret"
		return func() registry.Registry { return open(t, o) }
	})
}

func deadline(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

func acquire(t testing.TB, r *keep.Registry) uint64 {
	t.Helper()
	epoch, err := r.Acquire(deadline(t))
	if err != nil {
		t.Fatal(err)
	}
	return epoch
}

// Without the credentials nobody reads or writes what a master with them wrote.
func TestStrangersAreRefused(t *testing.T) {
	o := options(shared.Servers(t), shared.Path(t))
	o.Session.Auth = "mezzo:secret"
	r := open(t, o)
	defer r.Close()
	acquire(t, r)
	o.Session.Auth = ""
	stranger := open(t, o)
	defer stranger.Close()
	if _, err := stranger.Load(deadline(t)); !errors.Is(err, zk.ErrNoAuth) || !strings.Contains(err.Error(), "the same auth") {
		t.Errorf("a stranger's Load gave %v", err)
	}
	if _, err := stranger.Acquire(deadline(t)); !errors.Is(err, zk.ErrNoAuth) {
		t.Errorf("a stranger's Acquire gave %v", err)
	}
}

// The leader before is still there, and writes: nothing of it counts, not even
// what it had begun.
func TestOldLeaderIsRefused(t *testing.T) {
	o := options(shared.Servers(t), shared.Path(t))
	old, next := open(t, o), open(t, o)
	defer old.Close()
	defer next.Close()
	first := acquire(t, old)
	if _, err := old.Commit(deadline(t), first, registry.Batch{{Key: "k", Value: []byte("1")}}); err != nil {
		t.Fatal(err)
	}
	second := acquire(t, next)
	for _, batch := range []registry.Batch{
		{{Key: "k", Value: []byte("old"), Expect: registry.Any}},
		{{Key: "large", Value: bytes.Repeat([]byte("old"), 160<<10)}},
	} {
		if _, err := old.Commit(deadline(t), first, batch); !errors.Is(err, registry.ErrSuperseded) {
			t.Errorf("the old leader's write gave %v, want ErrSuperseded", err)
		}
	}
	if _, err := old.Load(deadline(t)); !errors.Is(err, registry.ErrSuperseded) {
		t.Errorf("the old leader's Load gave %v, want ErrSuperseded", err)
	}
	if _, err := next.Commit(deadline(t), second, registry.Batch{{Key: "k", Value: []byte("2"), Expect: registry.Any}}); err != nil {
		t.Fatal(err)
	}
	entries, err := next.Load(deadline(t))
	if err != nil || len(entries) != 1 || string(entries[0].Value) != "2" {
		t.Errorf("there is %v, %v", entries, err)
	}
}

// A leader dies after it wrote a value's chunks and before its entry points to
// them. The next leader removes them.
func TestLeftoversAreRemoved(t *testing.T) {
	o := options(shared.Servers(t), shared.Path(t))
	r := open(t, o)
	defer r.Close()
	epoch := acquire(t, r)
	if _, err := r.Commit(deadline(t), epoch, registry.Batch{{Key: "big", Value: make([]byte, 500<<10)}}); err != nil {
		t.Fatal(err)
	}
	s, err := zookeeper.Connect(o.Session)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	chunks := o.Path + "/registry/chunks"
	_, err = zookeeper.Do(deadline(t), s, func(c *zk.Conn) (struct{}, error) {
		for _, node := range []string{chunks + "/7-7", chunks + "/7-7/0"} {
			if _, err := c.Create(node, []byte("x"), 0, zk.WorldACL(zk.PermAll)); err != nil {
				return struct{}{}, err
			}
		}
		return struct{}{}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	next := open(t, o)
	defer next.Close()
	acquire(t, next)
	entries, err := next.Load(deadline(t))
	if err != nil || len(entries) != 1 || len(entries[0].Value) != 500<<10 {
		t.Fatalf("%d entries, %v", len(entries), err)
	}
	names, err := zookeeper.Do(deadline(t), s, func(c *zk.Conn) ([]string, error) {
		names, _, err := c.Children(chunks)
		return names, err
	})
	if err != nil || len(names) != 1 || names[0] == "7-7" {
		t.Errorf("the generations are %v, %v; want the one in use", names, err)
	}
}

// proxy stands between a master and ZooKeeper, and cuts the connection at a
// moment that the test chooses.
type proxy struct {
	listener net.Listener
	target   string

	mu     sync.Mutex
	conns  map[net.Conn]bool
	cut    func(toServer bool, packet []byte) (forward, cut bool)
	active sync.WaitGroup
}

func newProxy(t *testing.T, target string) *proxy {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{listener: l, target: target, conns: map[net.Conn]bool{}}
	p.active.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", target)
			if err != nil {
				client.Close()
				continue
			}
			p.mu.Lock()
			p.conns[client], p.conns[server] = true, true
			p.mu.Unlock()
			both := func() { client.Close(); server.Close() }
			p.active.Go(func() { p.copy(server, client, true); both() })
			p.active.Go(func() { p.copy(client, server, false); both() })
		}
	})
	t.Cleanup(func() {
		l.Close()
		p.mu.Lock()
		for c := range p.conns {
			c.Close()
		}
		p.mu.Unlock()
		p.active.Wait()
	})
	return p
}

// copy passes packets on: four bytes of length, and so many.
func (p *proxy) copy(to, from net.Conn, toServer bool) {
	for {
		head := make([]byte, 4)
		if _, err := io.ReadFull(from, head); err != nil {
			return
		}
		n := int(head[0])<<24 | int(head[1])<<16 | int(head[2])<<8 | int(head[3])
		packet := append(head, make([]byte, n)...)
		if _, err := io.ReadFull(from, packet[4:]); err != nil {
			return
		}
		p.mu.Lock()
		forward, cut := true, false
		if p.cut != nil {
			forward, cut = p.cut(toServer, packet)
		}
		p.mu.Unlock()
		if forward {
			if _, err := to.Write(packet); err != nil {
				return
			}
		}
		if cut {
			return
		}
	}
}

func (p *proxy) judge(f func(toServer bool, packet []byte) (forward, cut bool)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut = f
}

const multi = 14

// A commit's connection is lost before ZooKeeper has the transaction, or after it
// has done it and before the answer. Each is written once, and the master knows.
func TestConnectionLostInACommit(t *testing.T) {
	p := newProxy(t, shared.Servers(t)[0])
	o := options([]string{p.listener.Addr().String()}, shared.Path(t))
	r := open(t, o)
	defer r.Close()
	epoch := acquire(t, r)
	commit := func(key string, expect uint64) uint64 {
		t.Helper()
		versions, err := r.Commit(deadline(t), epoch, registry.Batch{{Key: key, Value: []byte("v"), Expect: expect}, {Key: "n", Value: []byte(key), Expect: registry.Any}})
		if err != nil {
			t.Fatal(err)
		}
		return versions[0]
	}
	before := commit("before", 0)

	for name, answered := range map[string]bool{"asked": false, "done": true} {
		var once sync.Once
		cuts := 0
		p.judge(func(toServer bool, packet []byte) (forward, cut bool) {
			forward = true
			isMulti := toServer && len(packet) > 12 && packet[11] == multi
			switch {
			case isMulti && !answered:
				once.Do(func() { forward, cut = false, true; cuts++ })
			case isMulti && answered:
				once.Do(func() { cuts = -1 }) // the next packet to the client is its answer
			case !toServer && cuts == -1 && binary.BigEndian.Uint32(packet[4:8]) < 1<<31: // not that of a ping
				cuts, forward, cut = 1, false, true
			}
			return forward, cut
		})
		version := commit(name, 0)
		p.judge(nil)
		if cuts != 1 {
			t.Fatalf("%s: the connection was cut %d times, the test is wrong", name, cuts)
		}
		// What the master learned is what there is: it goes on from that version.
		if again := commit(name, version); again <= version || version <= before {
			t.Errorf("%s: versions %d, %d, %d do not rise", name, before, version, again)
		}
	}
	p.judge(nil)
	entries, err := r.Load(deadline(t))
	if err != nil || len(entries) != 4 {
		t.Errorf("there is %v, %v; want 4 entries", entries, err)
	}
}

// A commit is given up with its outcome open. The master may go on: the next one
// finds out what there is, and nothing comes after it.
func TestGivenUpCommit(t *testing.T) {
	p := newProxy(t, shared.Servers(t)[0])
	o := options([]string{p.listener.Addr().String()}, shared.Path(t))
	r := open(t, o)
	defer r.Close()
	epoch := acquire(t, r)
	if _, err := r.Load(deadline(t)); err != nil {
		t.Fatal(err)
	}
	ctx, giveUp := context.WithCancel(context.Background())
	asked := false
	p.judge(func(toServer bool, packet []byte) (forward, cut bool) {
		if toServer && len(packet) > 12 && packet[11] == multi {
			asked = true
		}
		if !toServer && asked && binary.BigEndian.Uint32(packet[4:8]) < 1<<31 {
			giveUp()
			return false, false // the answer never comes; that of a ping has a number below 0
		}
		return true, false
	})
	if _, err := r.Commit(ctx, epoch, registry.Batch{{Key: "k", Value: []byte("1")}}); err == nil {
		t.Fatal("a commit without an answer succeeded")
	}
	p.judge(nil)
	// It was written: so the first version is not 0 any more.
	if _, err := r.Commit(deadline(t), epoch, registry.Batch{{Key: "k", Value: []byte("2"), Expect: 0}}); !errors.Is(err, registry.ErrConflict) {
		t.Errorf("got %v, want ErrConflict", err)
	}
	if _, err := r.Commit(deadline(t), epoch, registry.Batch{{Key: "k", Value: []byte("2"), Expect: registry.Any}}); err != nil {
		t.Error(err)
	}
}

// Members die one after another, the ensemble's leader too, while a master
// writes: each write is there exactly once, in order. They sync what they write, as
// in production. With forceSync=no, and so ten times as many writes, ZooKeeper 3.8.0
// itself came back from five of about sixty such rounds without some of them, which
// this test saw as a counter 170 writes old: see docs/high-availability.md.
func TestMembersDieWhileWriting(t *testing.T) {
	ensemble := zktest.Start(t, zktest.Options{Members: 3, Sync: true})
	o := options(ensemble.Servers(), "/mezzo")
	r := open(t, o)
	defer r.Close()
	epoch := acquire(t, r)
	stop, stopped := make(chan struct{}), make(chan error, 1)
	written := 0
	go func() {
		version := uint64(0)
		for {
			select {
			case <-stop:
				stopped <- nil
				return
			default:
			}
			versions, err := r.Commit(deadline(t), epoch, registry.Batch{
				{Key: "counter", Value: fmt.Append(nil, written), Expect: version},
				{Key: fmt.Sprintf("entry/%06d", written), Value: []byte("x"), Expect: 0},
			})
			if err != nil {
				stopped <- fmt.Errorf("write %d: %w", written, err)
				return
			}
			version = versions[0]
			written++
		}
	}()
	for i := range 3 {
		ensemble.Member(i).Kill()
		ensemble.Member(i).Restart(t)
	}
	close(stop)
	if err := <-stopped; err != nil {
		t.Fatal(err)
	}
	next := open(t, o)
	defer next.Close()
	acquire(t, next)
	entries, err := next.Load(deadline(t))
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != written+1 || string(entries[0].Value) != fmt.Sprint(written-1) {
		t.Errorf("%d entries after %d writes, the counter is %s", len(entries), written, entries[0].Value)
		for i, server := range ensemble.Servers() {
			t.Logf("member %d (of which %d leads): %s", i, ensemble.Leader(), holds(t, server))
		}
	}
}

// holds is what a member itself has: whether ZooKeeper or the registry is to blame.
func holds(t *testing.T, server string) string {
	s, err := zookeeper.Connect(options([]string{server}, "").Session)
	if err != nil {
		return err.Error()
	}
	defer s.Close()
	text, err := zookeeper.Do(deadline(t), s, func(c *zk.Conn) (string, error) {
		const at = "/mezzo/registry/"
		if _, err := c.Sync(at + "commit"); err != nil {
			return "", err
		}
		head, stat, err := c.Get(at + "commit")
		if err != nil {
			return "", err
		}
		out, entries := fmt.Sprintf("commit %q version %d mzxid %#x", head, stat.Version, stat.Mzxid), 0
		for i := range 256 {
			dir := fmt.Sprintf("%sentries/%02x", at, i)
			names, _, err := c.Children(dir)
			if err != nil {
				return "", err
			}
			entries += len(names)
			if slices.Contains(names, "k-counter") {
				value, stat, err := c.Get(dir + "/k-counter")
				if err != nil {
					return "", err
				}
				out += fmt.Sprintf(", counter %q version %d mzxid %#x", value, stat.Version, stat.Mzxid)
			}
		}
		return fmt.Sprintf("%s, %d entries", out, entries), nil
	})
	if err != nil {
		return err.Error()
	}
	return text
}

// A member answers with an older value than was written, as one does that has
// lost transactions. It is left for another; when there is none, that is said.
func TestMemberHasLostWrites(t *testing.T) {
	var mu sync.Mutex
	var first *proxy // whoever is asked first is damaged
	all := false     // or everybody
	var members []string
	for range 2 {
		p := newProxy(t, shared.Servers(t)[0])
		members = append(members, p.listener.Addr().String())
		p.judge(func(toServer bool, packet []byte) (forward, cut bool) {
			mu.Lock()
			defer mu.Unlock()
			if toServer || !bytes.Contains(packet, []byte("newest")) {
				return true, false
			}
			if first == nil {
				first = p
			}
			if all || first == p {
				copy(packet, bytes.ReplaceAll(packet, []byte("newest"), []byte("former")))
			}
			return true, false
		})
	}
	o := options(members, shared.Path(t))
	writer := open(t, o)
	defer writer.Close()
	epoch := acquire(t, writer)
	if _, err := writer.Commit(deadline(t), epoch, registry.Batch{{Key: "k", Value: []byte("newest")}, {Key: "l", Value: []byte("other")}}); err != nil {
		t.Fatal(err)
	}
	load := func() (string, error) {
		r := open(t, o)
		defer r.Close()
		acquire(t, r)
		entries, err := r.Load(deadline(t))
		if len(entries) != 2 {
			t.Fatalf("%d entries, %v", len(entries), err)
		}
		return string(entries[0].Value), err
	}
	if value, err := load(); value != "newest" || err != nil {
		t.Errorf("with a damaged member: %q, %v", value, err)
	}
	mu.Lock()
	if first == nil {
		t.Error("no member was damaged, the test is wrong")
	}
	all = true
	mu.Unlock()
	if value, err := load(); value != "former" || !errors.Is(err, registry.ErrDamaged) || !strings.Contains(err.Error(), "lost writes") {
		t.Errorf("with damaged members only: %q, %v", value, err)
	}
}

// The ensemble as a whole has lost a write. A leader does not begin with that; a
// dump has what there is, and restoring it is the way back.
func TestLostWritesAreRepaired(t *testing.T) {
	var chunks string // the node with the chunks of large values
	for name, lose := range map[string]func(c *zk.Conn, node string) error{
		"an older value":  func(c *zk.Conn, node string) error { _, err := c.Set(node, []byte("\x00old"), -1); return err },
		"a missing entry": func(c *zk.Conn, node string) error { return c.Delete(node, -1) },
		"a missing part of a value": func(c *zk.Conn, _ string) error {
			names, _, err := c.Children(chunks)
			if err != nil || len(names) != 1 {
				return fmt.Errorf("there are the values %v: %w", names, err)
			}
			return c.Delete(chunks+"/"+names[0]+"/0", -1)
		},
	} {
		t.Run(name, func(t *testing.T) {
			o := options(shared.Servers(t), shared.Path(t))
			chunks = o.Path + "/registry/chunks"
			var told []string
			o.Damaged = func(server string) { told = append(told, server) }
			r := open(t, o)
			defer r.Close()
			epoch := acquire(t, r)
			large := bytes.Repeat([]byte("x"), 400<<10)
			for _, value := range []string{"old", "new"} {
				if _, err := r.Commit(deadline(t), epoch, registry.Batch{{Key: "k", Value: []byte(value), Expect: registry.Any}}); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := r.Commit(deadline(t), epoch, registry.Batch{{Key: "large", Value: large}, {Key: "larger", Value: large[:100<<10]}}); err != nil {
				t.Fatal(err)
			}
			s, err := zookeeper.Connect(o.Session)
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			if _, err := zookeeper.Do(deadline(t), s, func(c *zk.Conn) (struct{}, error) {
				for i := range 256 {
					node := fmt.Sprintf("%s/registry/entries/%02x/k-k", o.Path, i)
					if there, _, err := c.Exists(node); err != nil || there {
						return struct{}{}, errors.Join(err, lose(c, node))
					}
				}
				return struct{}{}, errors.New("there is no entry")
			}); err != nil {
				t.Fatal(err)
			}
			next := open(t, o)
			defer next.Close()
			acquire(t, next)
			if _, err := next.Load(deadline(t)); !errors.Is(err, registry.ErrDamaged) {
				t.Fatalf("Load gave %v, want ErrDamaged", err)
			}
			if server := shared.Servers(t)[0]; len(told) == 0 || told[0] != server {
				t.Errorf("the servers without it are %v, want %s", told, server)
			}
			var dump bytes.Buffer
			if err := registry.Dump(deadline(t), next, &dump); !errors.Is(err, registry.ErrDamaged) {
				t.Errorf("Dump gave %v, want ErrDamaged", err)
			}
			if _, err := registry.Restore(deadline(t), next, &dump); err != nil {
				t.Fatal(err)
			}
			told = nil
			entries, err := next.Load(deadline(t))
			if err != nil || len(told) > 0 {
				t.Errorf("after the restore: %v, without it are %v", err, told)
			}
			if want := map[string]int{"an older value": 3}[name]; len(entries) != max(want, 2) {
				t.Errorf("after the restore there are %d entries", len(entries))
			}
			for _, e := range entries {
				if strings.HasPrefix(e.Key, "large") && !bytes.Equal(e.Value, large[:len(e.Value)]) {
					t.Errorf("%s was restored without its value", e.Key)
				}
			}
		})
	}
}

// BenchmarkCluster writes a cluster of 50,000 agents into an ensemble of three
// that syncs every write, and reads it as a new leader does.
func BenchmarkCluster(b *testing.B) {
	const agents = 50_000
	ensemble := zktest.Start(b, zktest.Options{Members: 3, Sync: true})
	record := []byte(`{"version":1,"standing":"admitted","hostname":"agent-00000.rack-17.example.com","since":"2026-11-21T13:29:40.123456789Z"}`)
	for n := 0; b.Loop(); n++ {
		o := options(ensemble.Servers(), fmt.Sprint("/bench", n))
		r := open(b, o)
		epoch := acquire(b, r)
		began := time.Now()
		for at := 0; at < agents; {
			var batch registry.Batch
			for size := 0; at < agents && size < 256<<10; at++ {
				op := registry.Op{Key: fmt.Sprintf("agents/0f3a9c2e-7-S%d", at), Value: record}
				size += len(op.Key) + len(op.Value)
				batch = append(batch, op)
			}
			if _, err := r.Commit(deadline(b), epoch, batch); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(time.Since(began).Seconds(), "write-s")
		r.Close()
		next := open(b, o)
		began = time.Now()
		acquire(b, next)
		entries, err := next.Load(deadline(b))
		if err != nil || len(entries) != agents {
			b.Fatalf("%d entries, %v", len(entries), err)
		}
		b.ReportMetric(time.Since(began).Seconds(), "recover-s")
		next.Close()
	}
}
