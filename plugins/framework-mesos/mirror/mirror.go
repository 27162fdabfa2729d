// Package mirror keeps a copy of the cluster, as the leading master knows it, in
// the adapter's own process, so that readers of large answers cost the master
// nothing.
//
// Terms. The *feed* is Operator.Watch with details: a snapshot and then numbered
// events. A *Snapshot* is the copy at one moment; it is never changed. A
// *Subscription* is a Snapshot and then every Change, in order.
//
// Life cycle: New, Run until its context ends. Whenever the feed breaks, by a
// change of leader or since this side has read too slowly, it is begun again
// with a snapshot of its own, and all subscriptions end. While this master does
// not lead there is no copy.
//
//	m := mirror.New(core.Operator(), logger)
//	go m.Run(ctx)
//	now, err := m.Read(ctx) // has all that the master answered before
package mirror

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/mezzo-os/mezzo/sdk/metric"
	operatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/operator/v1"
)

// ErrNotReady: this master does not lead, or the copy is not there yet.
var ErrNotReady = errors.New("the master does not lead, or has not told its state yet")

// How long Read waits: for a copy to be there at all, and for it to catch up
// with the master before what is there is taken.
const (
	readyPatience = 10 * time.Second
	freshPatience = 2 * time.Second
)

// Mirror is the copy. Safe for concurrent use.
type Mirror struct {
	// What is counted, set before Run; each may be nil: whether there is a copy,
	// how often one was begun, and the bytes that wait for subscriptions.
	Ready   *metric.Gauge
	Feeds   *metric.Counter
	Waiting *metric.Gauge

	client operatorv1.OperatorClient
	logger *slog.Logger

	mu     sync.Mutex
	copy   *contents     // nil: there is none
	news   chan struct{} // closed and replaced when copy or its number changes
	listen map[*Subscription]struct{}

	askMu sync.Mutex
	next  *question // the next question to the master, not asked yet
	asked bool      // one is under way
}

// New makes a mirror that is empty until Run.
func New(client operatorv1.OperatorClient, logger *slog.Logger) *Mirror {
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	return &Mirror{client: client, logger: logger, news: make(chan struct{}), listen: map[*Subscription]struct{}{}}
}

// Run feeds the mirror until ctx ends.
func (m *Mirror) Run(ctx context.Context) {
	const least, most = 20 * time.Millisecond, 250 * time.Millisecond
	pause := least
	for ctx.Err() == nil {
		fed, err := m.follow(ctx)
		if fed {
			pause = least
		}
		// Who has read too slowly still has what was true a moment ago.
		m.broke(status.Code(err) == codes.ResourceExhausted)
		if ctx.Err() == nil && (fed || status.Code(err) != codes.Unavailable) {
			m.logger.Warn("the master's feed broke; beginning again", "error", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause/2 + rand.N(pause)):
		}
		pause = min(2*pause, most)
	}
	m.broke(false)
}

// follow takes one feed until it breaks. fed: the snapshot came.
func (m *Mirror) follow(ctx context.Context) (fed bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	feed, err := m.client.Watch(ctx, &operatorv1.WatchRequest{Detail: true})
	if err != nil {
		return false, err
	}
	fresh := newContents()
	for {
		message, err := feed.Recv()
		if err != nil {
			return fed, err
		}
		events := []*operatorv1.WatchEvent{message}
		if batch := message.GetBatch(); batch != nil {
			events = batch.GetEvents()
		}
		if fed {
			m.apply(events)
			continue
		}
		for i, event := range events {
			end := event.GetSnapshotEnd()
			if end == nil {
				fresh.apply(event)
				continue
			}
			fed, fresh.number = true, end.GetNext()-1
			m.begin(fresh)
			m.apply(events[i+1:])
			break
		}
	}
}

// begin takes over the copy that a feed began with.
func (m *Mirror) begin(c *contents) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.copy = c
	m.Ready.Set(1)
	m.Feeds.Inc()
	m.wake()
}

// broke ends all subscriptions, and forgets the copy unless it is to be kept.
func (m *Mirror) broke(keep bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for s := range m.listen {
		s.end(ErrNotReady)
	}
	clear(m.listen)
	if !keep {
		m.copy = nil
		m.Ready.Set(0)
	}
	m.wake()
}

// wake tells those who wait. The lock is held.
func (m *Mirror) wake() {
	close(m.news)
	m.news = make(chan struct{})
}

// apply brings the copy up to date and tells the subscriptions. Each event is
// applied under the lock for itself, so that readers wait for one at most.
func (m *Mirror) apply(events []*operatorv1.WatchEvent) {
	for _, event := range events {
		m.mu.Lock()
		change := m.copy.apply(event)
		if change != nil && len(m.listen) > 0 {
			change.size = proto.Size(event)
			for s := range m.listen {
				if !s.push(change) {
					delete(m.listen, s)
				}
			}
		}
		m.mu.Unlock()
	}
	m.mu.Lock()
	m.wake()
	m.mu.Unlock()
}

// Read returns the copy, with everything in it that the master had answered to
// anybody before the call. When the feed stays behind for long it returns what
// there is. The error is ErrNotReady or ctx's.
func (m *Mirror) Read(ctx context.Context) (*Snapshot, error) {
	s, err := m.take(ctx, func(*Snapshot) {})
	if err != nil {
		return nil, err
	}
	return s.sort(), nil
}

// take returns the copy, not yet sorted, when it has caught up. No change comes
// between it and what then does, which holds the lock.
func (m *Mirror) take(ctx context.Context, then func(*Snapshot)) (*Snapshot, error) {
	master, err := m.catchUp(ctx)
	if err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.copy == nil {
		return nil, ErrNotReady
	}
	s := m.copy.snapshot(master)
	then(s)
	return s, nil
}

// Subscribe returns the copy as Read does, and has all changes after it pushed to
// the subscription, of which at most limit bytes wait.
func (m *Mirror) Subscribe(ctx context.Context, limit int) (*Subscription, error) {
	var s *Subscription
	if _, err := m.take(ctx, func(now *Snapshot) {
		s = newSubscription(m, now, limit)
		m.listen[s] = struct{}{}
	}); err != nil {
		return nil, err
	}
	s.Snapshot.sort()
	return s, nil
}

// Status asks the master how it is, without waiting for the copy.
func (m *Mirror) Status(ctx context.Context) (*operatorv1.Status, error) { return m.ask(ctx) }

// catchUp waits until the copy has what the master has now.
func (m *Mirror) catchUp(ctx context.Context) (*operatorv1.Status, error) {
	master, err := m.ask(ctx)
	if err != nil {
		return nil, err
	}
	if master.GetLeadership() == "standby" {
		return nil, ErrNotReady
	}
	late := time.NewTimer(readyPatience)
	defer late.Stop()
	slow := time.NewTimer(freshPatience)
	defer slow.Stop()
	behind := false // for so long that what there is has to do
	for {
		m.mu.Lock()
		there, news := m.copy != nil, m.news
		if there && (behind || m.copy.number >= master.GetEvent()) {
			m.mu.Unlock()
			return master, nil
		}
		m.mu.Unlock()
		select {
		case <-news:
		case <-slow.C:
			behind = true
		case <-late.C:
			return nil, ErrNotReady
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// question is one GetStatus that several readers share.
type question struct {
	done   chan struct{}
	status *operatorv1.Status
	err    error
}

// ask asks the master for its status. Readers that come while a question is
// under way share the next one: the answer to the first may be older than what
// they know.
func (m *Mirror) ask(ctx context.Context) (*operatorv1.Status, error) {
	m.askMu.Lock()
	if m.next == nil {
		m.next = &question{done: make(chan struct{})}
	}
	q := m.next
	if !m.asked {
		m.asked = true
		go m.askAll()
	}
	m.askMu.Unlock()
	select {
	case <-q.done:
		return q.status, q.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// askAll asks until nobody wants to know any more.
func (m *Mirror) askAll() {
	for {
		m.askMu.Lock()
		q := m.next
		m.next = nil
		if q == nil {
			m.asked = false
			m.askMu.Unlock()
			return
		}
		m.askMu.Unlock()
		ctx, cancel := context.WithTimeout(context.Background(), readyPatience)
		q.status, q.err = m.client.GetStatus(ctx, &operatorv1.GetStatusRequest{})
		cancel()
		close(q.done)
	}
}
