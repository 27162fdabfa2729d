// Package election decides which master leads, and tells where the leader is.
//
// Terms. A *candidate* is a master with the endpoints at which it can be
// reached. A *term* is one uninterrupted leadership: it begins when Campaign
// returns it and ends when its Done channel closes. Terms say nothing about
// epochs: the registry numbers those, and only they keep an old leader from
// writing.
//
// Life cycle of a master: Campaign, take the registry's epoch, lead until the
// term's Done, throw the state away, Campaign again.
package election

import "context"

// Candidate is a master as others see it.
type Candidate struct {
	// ID is the master's, fresh at every start.
	ID string
	// Endpoints are where it listens, by name: "rpc", "http", and what its
	// adapters have registered. Each is host:port.
	Endpoints map[string]string
}

// Election is one group of masters that elect a leader. Safe for concurrent
// use.
type Election interface {
	// Campaign waits until this candidate leads, or ctx ends.
	Campaign(ctx context.Context, c Candidate) (Term, error)
	// Update changes the endpoints of the candidate of that ID, whether it waits
	// in Campaign or leads. Before its Campaign it has no effect.
	Update(c Candidate)
	// Watch sends the leader whenever it changes, or its endpoints do, nil while
	// there is none, at once the first time; a slow reader gets only the newest. The channel
	// closes when ctx ends.
	Watch(ctx context.Context) <-chan *Candidate
	// Close ends candidacies and watches.
	Close() error
}

// Term is a leadership.
type Term interface {
	// Done closes when this candidate no longer leads.
	Done() <-chan struct{}
	// Resign gives the leadership up.
	Resign()
}
