package zookeeper

import (
	"context"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/go-zookeeper/zk"

	"github.com/mezzo-os/mezzo/core/election"
	"github.com/mezzo-os/mezzo/core/zookeeper"
)

// Watch sends the leader whenever it changes. The first is sent once the
// ensemble has answered. All watches of an election share a session.
func (e *Election) Watch(ctx context.Context) <-chan *election.Candidate {
	leaders := make(chan *election.Candidate)
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		close(leaders)
		return leaders
	}
	if !e.watching {
		e.watching = true
		e.running.Go(e.detect)
	}
	e.running.Go(func() {
		election.Tell(ctx, e.life.Done(), leaders, func() (*election.Candidate, bool, <-chan struct{}) {
			e.mu.Lock()
			defer e.mu.Unlock()
			return e.leader, e.known, e.changed
		})
	})
	return leaders
}

// Addresses sends where the leader listens, by this name of its endpoints,
// whenever that changes; empty: nobody leads. The channel closes when ctx ends.
func Addresses(ctx context.Context, o Options, endpoint string) <-chan string {
	out := make(chan string)
	go func() {
		defer close(out)
		e := New(o)
		defer e.Close()
		for leader := range e.Watch(ctx) {
			address := ""
			if leader != nil {
				address = leader.Endpoints[endpoint]
			}
			select {
			case out <- address:
			case <-ctx.Done():
				return
			}
		}
	}()
	return out
}

// tell makes a leader known to all watches.
func (e *Election) tell(leader *election.Candidate) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.known && same(e.leader, leader) {
		return
	}
	e.leader, e.known = leader, true
	close(e.changed)
	e.changed = make(chan struct{})
}

func same(a, b *election.Candidate) bool {
	if a == nil || b == nil {
		return a == b
	}
	return string(encode(*a)) == string(encode(*b))
}

// detect follows the leader until the election is closed.
func (e *Election) detect() {
	pause := backoffMin
	for e.life.Err() == nil {
		session, err := zookeeper.Connect(e.options.Session)
		if err == nil {
			for last := (sight{}); err == nil; {
				if last, err = e.look(session, last); err == nil {
					pause = backoffMin
				}
			}
			session.Close()
		}
		if e.life.Err() != nil {
			return
		}
		e.log().Warn("the leader cannot be followed; trying again", "pause", pause, "error", err)
		select {
		case <-time.After(pause/2 + rand.N(pause/2+1)):
		case <-e.life.Done():
		}
		pause = min(2*pause, backoffMax)
	}
}

// sight is what one look has found, and what tells of a change.
type sight struct {
	leader   *election.Candidate
	children <-chan zk.Event
	node     string          // the leader's; empty: none
	changed  <-chan zk.Event // its data; nil once that has been told
}

// look finds the leader, tells it, and waits until that may have changed.
func (e *Election) look(session *zookeeper.Session, last sight) (sight, error) {
	seen, err := zookeeper.Do(e.life, session, func(c *zk.Conn) (sight, error) { return e.see(c, last) })
	if err != nil {
		return sight{}, err
	}
	e.tell(seen.leader)
	select {
	case <-seen.children:
	case <-seen.changed:
		seen.changed = nil
	case <-e.life.Done():
		return sight{}, e.life.Err()
	}
	return seen, nil
}

func (e *Election) see(c *zk.Conn, last sight) (sight, error) {
	names, _, children, err := c.ChildrenW(e.dir)
	if errors.Is(err, zk.ErrNoNode) {
		there, _, created, err := c.ExistsW(e.dir)
		if err == nil && there {
			return e.see(c, last)
		}
		return sight{children: created}, err
	}
	if err != nil {
		return sight{}, err
	}
	for _, name := range order(names) {
		if name == last.node && last.changed != nil {
			// It is watched already: watches must not pile up.
			last.children = children
			return last, nil
		}
		text, _, changed, err := c.GetW(e.dir + "/" + name)
		if errors.Is(err, zk.ErrNoNode) {
			continue // it has just gone
		}
		if err != nil {
			return sight{}, err
		}
		var d data
		if json.Unmarshal(text, &d) != nil || d.ID == "" {
			continue // not one of ours
		}
		return sight{&election.Candidate{ID: d.ID, Endpoints: d.Endpoints}, children, name, changed}, nil
	}
	return sight{children: children}, nil
}
