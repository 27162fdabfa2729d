// Package standalone is the election of a master that is alone: it leads.
package standalone

import (
	"context"
	"errors"
	"sync"

	"github.com/mezzo-os/mezzo/core/election"
)

// Election has one candidate at a time, who leads until it resigns.
type Election struct {
	mu      sync.Mutex
	leader  *term
	waiting map[string]*election.Candidate // in Campaign, by ID
	changed chan struct{}                  // closed and replaced whenever the leader changes
	closed  chan struct{}
	once    sync.Once
}

var _ election.Election = (*Election)(nil)

var errClosed = errors.New("the election is closed")

// New returns an election without a leader.
func New() *Election {
	return &Election{waiting: map[string]*election.Candidate{}, changed: make(chan struct{}), closed: make(chan struct{})}
}

type term struct {
	election  *Election
	candidate *election.Candidate // replaced, never changed
	done      chan struct{}
	once      sync.Once
}

func (t *term) Done() <-chan struct{} { return t.done }

func (t *term) Resign() {
	t.once.Do(func() {
		e := t.election
		e.mu.Lock()
		defer e.mu.Unlock()
		if e.leader == t {
			e.leader = nil
			e.tell()
		}
		close(t.done)
	})
}

// tell wakes all who wait for a change. The lock is held.
func (e *Election) tell() {
	close(e.changed)
	e.changed = make(chan struct{})
}

// Campaign leads at once, or as soon as the leader before has resigned.
func (e *Election) Campaign(ctx context.Context, c election.Candidate) (election.Term, error) {
	e.mu.Lock()
	e.waiting[c.ID] = &c
	e.mu.Unlock()
	defer func() {
		e.mu.Lock()
		delete(e.waiting, c.ID)
		e.mu.Unlock()
	}()
	for {
		e.mu.Lock()
		select {
		case <-e.closed:
			e.mu.Unlock()
			return nil, errClosed
		default:
		}
		if e.leader == nil {
			t := &term{election: e, candidate: e.waiting[c.ID], done: make(chan struct{})}
			e.leader = t
			e.tell()
			e.mu.Unlock()
			return t, nil
		}
		changed := e.changed
		e.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-e.closed:
			return nil, errClosed
		}
	}
}

// Update changes the endpoints of a candidate.
func (e *Election) Update(c election.Candidate) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.waiting[c.ID] != nil {
		e.waiting[c.ID] = &c
	}
	if e.leader != nil && e.leader.candidate.ID == c.ID {
		e.leader.candidate = &c
		e.tell()
	}
}

// Watch sends the leader whenever it changes.
func (e *Election) Watch(ctx context.Context) <-chan *election.Candidate {
	leaders := make(chan *election.Candidate)
	go election.Tell(ctx, e.closed, leaders, func() (*election.Candidate, bool, <-chan struct{}) {
		e.mu.Lock()
		defer e.mu.Unlock()
		if e.leader == nil {
			return nil, true, e.changed
		}
		return e.leader.candidate, true, e.changed
	})
	return leaders
}

// Close ends the leadership and all that waits.
func (e *Election) Close() error {
	e.once.Do(func() {
		close(e.closed)
		e.mu.Lock()
		leader := e.leader
		e.mu.Unlock()
		if leader != nil {
			leader.Resign()
		}
	})
	return nil
}
