// Package zookeeper elects a leader among masters by a ZooKeeper ensemble.
//
// Each candidacy has a session of its own, with one ephemeral, numbered node
// below `<path>/election`, whose data is the candidate as JSON:
//
//	candidate-0f3a…-0000000007  {"id":"…","endpoints":{"rpc":"m1:5061","http":"m1:5060"}}
//
// The candidate with the lowest number leads; each of the others watches the one
// before it. A term ends when its session has expired or its node is gone, and
// before: when nothing has been heard of the ensemble for two thirds of the
// session, by this process's monotonic clock. So a leader that is cut off stops
// before another one is elected, unless its clock or its process stands still;
// what it does then is refused, by the registry's epoch.
//
// While the ensemble cannot be reached nobody is elected, and watchers keep the
// leader that they know.
package zookeeper

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/go-zookeeper/zk"

	"github.com/mezzo-os/mezzo/core/election"
	"github.com/mezzo-os/mezzo/core/zookeeper"
)

const (
	prefix = "candidate-"

	// The pause before another candidacy: it doubles, and half of it is chance.
	backoffMin = 100 * time.Millisecond
	backoffMax = 5 * time.Second
)

var errClosed = errors.New("the election is closed")

// Options of an election.
type Options struct {
	// Session is how the ensemble is reached.
	Session zookeeper.Options
	// Path is the node below which everything lies, "/mezzo".
	Path string
}

// Election is an election.Election by ZooKeeper.
type Election struct {
	options Options
	dir     string
	life    context.Context
	stop    context.CancelFunc
	running sync.WaitGroup

	mu         sync.Mutex
	closed     bool
	candidates map[string]*candidacy // by ID: they wait or lead
	watching   bool
	known      bool // leader is what the ensemble said
	leader     *election.Candidate
	changed    chan struct{} // closed and replaced when leader or known change
}

var _ election.Election = (*Election)(nil)

// New returns an election. Nothing is connected before it is used.
func New(o Options) *Election {
	e := &Election{
		options: o, dir: strings.TrimSuffix(o.Path, "/") + "/election", candidates: map[string]*candidacy{}, changed: make(chan struct{}),
	}
	e.life, e.stop = context.WithCancel(context.Background())
	return e
}

// data is a candidate as its node has it.
type data struct {
	ID        string            `json:"id"`
	Endpoints map[string]string `json:"endpoints"`
}

func encode(c election.Candidate) []byte {
	text, err := json.Marshal(data{c.ID, c.Endpoints})
	if err != nil {
		panic(err) // strings always encode
	}
	return text
}

// candidacy is one master that waits or leads.
type candidacy struct {
	mu      sync.Mutex
	self    election.Candidate
	updated chan struct{} // holds one: self has changed
}

func (c *candidacy) candidate() election.Candidate {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.self
}

// Campaign waits until this candidate leads. While the ensemble cannot be
// reached it goes on trying.
func (e *Election) Campaign(ctx context.Context, c election.Candidate) (election.Term, error) {
	own := &candidacy{self: c, updated: make(chan struct{}, 1)}
	e.mu.Lock()
	if e.closed {
		e.mu.Unlock()
		return nil, errClosed
	}
	e.candidates[c.ID] = own
	e.running.Add(1) // so that Close waits
	e.mu.Unlock()
	defer e.running.Done()
	pause := backoffMin
	for {
		t, err := e.stand(ctx, own)
		if err == nil {
			return t, nil
		}
		if gone := e.gone(ctx); gone != nil {
			e.forget(own)
			return nil, gone
		}
		e.log().Warn("not a candidate; trying again", "pause", pause, "error", err)
		select {
		case <-time.After(pause/2 + rand.N(pause/2+1)):
		case <-ctx.Done():
		case <-e.life.Done():
		}
		pause = min(2*pause, backoffMax)
	}
}

// gone is why nothing is to be tried any more, or nil.
func (e *Election) gone(ctx context.Context) error {
	if e.life.Err() != nil {
		return errClosed
	}
	return ctx.Err()
}

func (e *Election) forget(own *candidacy) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if id := own.candidate().ID; e.candidates[id] == own {
		delete(e.candidates, id)
	}
}

// stand makes one candidacy, until it leads or fails.
func (e *Election) stand(ctx context.Context, own *candidacy) (*term, error) {
	session, err := zookeeper.Connect(e.options.Session)
	if err != nil {
		return nil, err
	}
	t := &term{election: e, own: own, session: session, resigned: make(chan struct{}), done: make(chan struct{})}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(e.life, func() { cancel(errClosed) })()
	waiting := make(chan struct{})
	defer close(waiting)
	go func() {
		select {
		case <-session.Expired():
			cancel(zk.ErrSessionExpired)
		case <-waiting:
		}
	}()
	err = e.win(ctx, t)
	if err == nil {
		e.mu.Lock()
		defer e.mu.Unlock()
		if !e.closed {
			e.running.Go(t.hold)
			return t, nil
		}
		err = errClosed
	}
	session.Close()
	return nil, err
}

// win creates the candidate's node and waits until it is the first.
func (e *Election) win(ctx context.Context, t *term) error {
	if err := t.session.MakePath(ctx, e.dir, true); err != nil {
		return err
	}
	if err := t.enter(ctx); err != nil {
		return err
	}
	for {
		names, err := zookeeper.Do(ctx, t.session, func(c *zk.Conn) ([]string, error) {
			names, _, err := c.Children(e.dir)
			return names, err
		})
		if err != nil {
			return err
		}
		names = order(names)
		place := slices.Index(names, t.node)
		switch {
		case place < 0:
			return fmt.Errorf("the node %s/%s is gone: somebody has removed it", e.dir, t.node)
		case place == 0:
			return nil
		}
		if err := t.await(ctx, names[place-1]); err != nil {
			return err
		}
	}
}

// order gives the candidates among a node's children, the leader first.
func order(names []string) []string {
	type numbered struct {
		name   string
		number uint64
	}
	var all []numbered
	for _, name := range names {
		if n, ok := number(name); ok {
			all = append(all, numbered{name, n})
		}
	}
	slices.SortFunc(all, func(a, b numbered) int {
		if a.number != b.number {
			if a.number < b.number {
				return -1
			}
			return 1
		}
		return strings.Compare(a.name, b.name)
	})
	out := make([]string, len(all))
	for i, n := range all {
		out[i] = n.name
	}
	return out
}

func number(name string) (uint64, bool) {
	dash := strings.LastIndexByte(name, '-')
	if !strings.HasPrefix(name, prefix) || dash < len(prefix) {
		return 0, false
	}
	n, err := strconv.ParseUint(name[dash+1:], 10, 64)
	return n, err == nil
}

// Update changes the endpoints of a candidate that waits or leads.
func (e *Election) Update(c election.Candidate) {
	e.mu.Lock()
	own := e.candidates[c.ID]
	e.mu.Unlock()
	if own == nil {
		return
	}
	own.mu.Lock()
	own.self = c
	own.mu.Unlock()
	select {
	case own.updated <- struct{}{}:
	default:
	}
}

// Close ends candidacies, terms and watches, and waits for them.
func (e *Election) Close() error {
	e.mu.Lock()
	e.closed = true
	e.mu.Unlock()
	e.stop()
	e.running.Wait()
	return nil
}
