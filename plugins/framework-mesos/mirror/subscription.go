package mirror

import (
	"context"
	"errors"
	"sync"

	operatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/operator/v1"
)

// ErrTooSlow: more waited for a subscription than it may hold.
var ErrTooSlow = errors.New("the subscriber reads too slowly: what waits for it has reached its bound")

// Change is one change of an agent, a framework or a task. What is nil was not
// there before, or is not there any more. It is never changed.
type Change struct {
	Agent, OldAgent         *operatorv1.AgentDetail
	Framework, OldFramework *operatorv1.FrameworkDetail
	Task, OldTask           *operatorv1.TaskDetail

	size  int // in bytes, about
	forms [2]form
}

// form is what one kind of subscribers makes of a change.
type form struct {
	once    sync.Once
	records [][]byte
}

// Records returns what subscribers of one kind, 0 or 1, make of the change. It is
// made once for all of them, so make must depend on nothing but the change.
func (c *Change) Records(kind int, make func(*Change) [][]byte) [][]byte {
	f := &c.forms[kind]
	f.once.Do(func() { f.records = make(c) })
	return f.records
}

// Subscription is a Snapshot and every change after it. One goroutine takes.
type Subscription struct {
	Snapshot *Snapshot
	mirror   *Mirror
	limit    int

	mu    sync.Mutex
	wait  []*Change
	bytes int
	err   error
	ready chan struct{} // has room for one signal
}

func newSubscription(m *Mirror, now *Snapshot, limit int) *Subscription {
	return &Subscription{Snapshot: now, mirror: m, limit: limit, ready: make(chan struct{}, 1)}
}

// push adds a change; false: there is no room, and the subscription has ended.
func (s *Subscription) push(c *Change) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.bytes > 0 && s.bytes+c.size > s.limit {
		s.taken()
		s.wait, s.err = nil, ErrTooSlow
		s.signal()
		return false
	}
	s.wait = append(s.wait, c)
	s.bytes += c.size
	s.mirror.Waiting.Add(float64(c.size))
	s.signal()
	return true
}

// taken notes that nothing waits any more. The lock is held.
func (s *Subscription) taken() {
	s.mirror.Waiting.Add(-float64(s.bytes))
	s.bytes = 0
}

func (s *Subscription) end(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil {
		s.err = err
	}
	s.signal()
}

func (s *Subscription) signal() {
	select {
	case s.ready <- struct{}{}:
	default:
	}
}

// Ready is signalled when Take has something to say.
func (s *Subscription) Ready() <-chan struct{} { return s.ready }

// Take returns the changes that wait, none perhaps. The error is why there will
// be no more.
func (s *Subscription) Take() ([]*Change, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.wait) == 0 && s.err != nil {
		return nil, s.err
	}
	changes := s.wait
	s.taken()
	s.wait = nil
	return changes, nil
}

// Close ends the subscription.
func (s *Subscription) Close() {
	s.mirror.mu.Lock()
	defer s.mirror.mu.Unlock()
	delete(s.mirror.listen, s)
	s.end(context.Canceled)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.taken()
}
