package zookeeper_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/go-zookeeper/zk"

	"github.com/mezzo-os/mezzo/core/election"
	"github.com/mezzo-os/mezzo/core/election/electiontest"
	elect "github.com/mezzo-os/mezzo/core/election/zookeeper"
	"github.com/mezzo-os/mezzo/core/zookeeper"
	"github.com/mezzo-os/mezzo/internal/zktest"
)

const patience = 90 * time.Second

var shared zktest.Shared

func TestMain(m *testing.M) { zktest.Main(m, &shared) }

func options(servers []string, path string, session time.Duration) elect.Options {
	return elect.Options{Session: zookeeper.Options{Servers: servers, Timeout: session}, Path: path}
}

// With credentials; the other tests have none.
func TestConformance(t *testing.T) {
	electiontest.Run(t, func(t *testing.T) func() election.Election {
		o := options(shared.Servers(t), shared.Path(t), 10*time.Second)
		o.Session.Auth = "mezzo:secret"
		return func() election.Election { return elect.New(o) }
	})
}

func campaign(t *testing.T, e election.Election, id string) <-chan election.Term {
	t.Helper()
	won := make(chan election.Term, 1)
	go func() {
		term, err := e.Campaign(context.Background(), election.Candidate{ID: id, Endpoints: map[string]string{"rpc": id + ":5061"}})
		if err == nil {
			won <- term
		}
	}()
	return won
}

func within[T any](t *testing.T, what string, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(patience):
		t.Fatalf("in vain: waited for %s", what)
		panic("unreachable")
	}
}

func leader(t *testing.T, watch <-chan *election.Candidate, id string) {
	t.Helper()
	late := time.After(patience)
	for {
		select {
		case c := <-watch:
			if c == nil && id == "" || c != nil && c.ID == id {
				return
			}
		case <-late:
			t.Fatalf("the watch did not tell leader %q", id)
		}
	}
}

// Whoever has no credentials finds the leader and can do nothing else.
func TestStrangersMayOnlyLook(t *testing.T) {
	o := options(shared.Servers(t), shared.Path(t), 10*time.Second)
	o.Session.Auth = "mezzo:secret"
	master := elect.New(o)
	defer master.Close()
	within(t, "the leadership", campaign(t, master, "m1"))
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	o.Session.Auth = ""
	stranger := elect.New(o)
	defer stranger.Close()
	leader(t, stranger.Watch(ctx), "m1")

	s, err := zookeeper.Connect(o.Session)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	_, err = zookeeper.Do(ctx, s, func(c *zk.Conn) (string, error) {
		return c.Create(o.Path+"/election/candidate-x-", nil, zk.FlagSequence, zk.WorldACL(zk.PermAll))
	})
	if err != zk.ErrNoAuth {
		t.Errorf("a stranger's candidacy gave %v, want ErrNoAuth", err)
	}
}

// An operator may remove a leader's node to have another one lead.
func TestNodeRemoved(t *testing.T) {
	o := options(shared.Servers(t), shared.Path(t), 10*time.Second)
	first, second := elect.New(o), elect.New(o)
	defer first.Close()
	defer second.Close()
	term := within(t, "the leadership", campaign(t, first, "m1"))
	s, err := zookeeper.Connect(o.Session)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	next := campaign(t, second, "m2")
	_, err = zookeeper.Do(context.Background(), s, func(c *zk.Conn) (struct{}, error) {
		names, _, err := c.Children(o.Path + "/election")
		for _, name := range names {
			if text, _, err := c.Get(o.Path + "/election/" + name); err == nil && strings.Contains(string(text), `"id":"m1"`) {
				return struct{}{}, c.Delete(o.Path+"/election/"+name, -1)
			}
		}
		return struct{}{}, err
	})
	if err != nil {
		t.Fatal(err)
	}
	within(t, "the end of the term", term.Done())
	within(t, "the other's leadership", next)
}

// The ensemble is gone: the term ends by the leader's own clock, and watchers
// keep what they know. It comes back: somebody leads again.
func TestEnsembleGoneAndBack(t *testing.T) {
	ensemble := zktest.Start(t, zktest.Options{})
	o := options(ensemble.Servers(), "/mezzo", 6*time.Second)
	e := elect.New(o)
	defer e.Close()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	watch := e.Watch(ctx)
	term := within(t, "the leadership", campaign(t, e, "m1"))
	leader(t, watch, "m1")
	ensemble.Kill()
	within(t, "the end of the term", term.Done())
	next := campaign(t, e, "m1")
	select {
	case <-next:
		t.Fatal("somebody leads without ZooKeeper")
	case c := <-watch:
		t.Fatalf("the watch told %v while nobody knows", c)
	case <-time.After(500 * time.Millisecond):
	}
	ensemble.Restart(t)
	within(t, "the leadership", next)
}

// A member that stops answers nobody, though its connections stay. The leader
// cannot know whether the others have elected somebody: its term ends by its
// own clock before ZooKeeper gives its session up.
func TestSilence(t *testing.T) {
	ensemble := zktest.Start(t, zktest.Options{})
	o := options(ensemble.Servers(), "/mezzo", 6*time.Second)
	e := elect.New(o)
	defer e.Close()
	term := within(t, "the leadership", campaign(t, e, "m1"))
	ensemble.Member(0).Stop()
	defer ensemble.Member(0).Continue()
	within(t, "the end of the term", term.Done())
	ensemble.Member(0).Continue()
	within(t, "the leadership", campaign(t, e, "m1"))
}

// A member of three is killed, the ensemble's leader: the session moves to
// another member, and the term goes on.
func TestSessionMoves(t *testing.T) {
	ensemble := zktest.Start(t, zktest.Options{Members: 3})
	o := options(ensemble.Servers(), "/mezzo", 40*time.Second)
	first, second := elect.New(o), elect.New(o)
	defer first.Close()
	defer second.Close()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	watch := second.Watch(ctx)
	term := within(t, "the leadership", campaign(t, first, "m1"))
	leader(t, watch, "m1")
	next := campaign(t, second, "m2")
	for round := range 3 {
		killed := ensemble.Member(round)
		killed.Kill()
		// Each member is killed once, so every session has moved.
		first.Update(election.Candidate{ID: "m1", Endpoints: map[string]string{"round": fmt.Sprint(round)}})
		for c := range watch {
			if c != nil && c.Endpoints["round"] == fmt.Sprint(round) {
				break
			}
		}
		killed.Restart(t)
	}
	select {
	case <-term.Done():
		t.Error("the term ended though its session lives")
	case <-next:
		t.Error("another leads at the same time")
	default:
	}
	term.Resign()
	within(t, "the other's leadership", next)
}
