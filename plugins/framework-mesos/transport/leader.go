package transport

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	frameworkv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/framework/v1"
)

// Leadership is what an adapter at a master knows of who leads. Safe for
// concurrent use.
type Leadership struct {
	endpoint string
	state    atomic.Pointer[frameworkv1.LeadershipState]

	mu      sync.Mutex
	changed chan struct{} // closed and replaced by Set
}

// NewLeadership knows of no leader at first. endpoint is the name under which
// adapters of this kind publish where they listen.
func NewLeadership(endpoint string) *Leadership {
	l := &Leadership{endpoint: endpoint, changed: make(chan struct{})}
	l.Set(&frameworkv1.LeadershipState{State: frameworkv1.LeadershipState_STATE_STANDBY})
	return l
}

// Set takes over a newer state, which must not be changed afterwards.
func (l *Leadership) Set(state *frameworkv1.LeadershipState) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.state.Store(state)
	close(l.changed)
	l.changed = make(chan struct{})
}

// Changed closes when there is a newer state than that of now.
func (l *Leadership) Changed() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.changed
}

// State returns the newest state.
func (l *Leadership) State() *frameworkv1.LeadershipState { return l.state.Load() }

// Leading is whether this master leads and has recovered.
func (l *Leadership) Leading() bool {
	return l.State().GetState() == frameworkv1.LeadershipState_STATE_LEADING
}

// Leader returns where the leader's adapter listens, host:port; empty: nobody
// knows.
func (l *Leadership) Leader() string {
	for _, e := range l.State().GetEndpoints() {
		if e.GetName() == l.endpoint {
			return e.GetAddress()
		}
	}
	return ""
}

// Follow keeps the state up to date until ctx ends. While the core cannot be
// asked no leader is known.
func (l *Leadership) Follow(ctx context.Context, client frameworkv1.LeadershipClient, logger *slog.Logger) {
	const least, most = 50 * time.Millisecond, 2 * time.Second
	pause := least
	for ctx.Err() == nil {
		stream, err := client.Watch(ctx, &frameworkv1.WatchLeadershipRequest{})
		for err == nil {
			var state *frameworkv1.LeadershipState
			if state, err = stream.Recv(); err == nil {
				pause = least
				l.Set(state)
			}
		}
		l.Set(&frameworkv1.LeadershipState{State: frameworkv1.LeadershipState_STATE_STANDBY})
		if ctx.Err() != nil {
			return
		}
		logger.Warn("the core does not tell who leads; asking again", "error", err)
		select {
		case <-ctx.Done():
		case <-time.After(pause + rand.N(pause)):
		}
		pause = min(2*pause, most)
	}
}

// admit lets a request pass if this master leads.
func (l *Leadership) admit(r *http.Request) *Error {
	switch l.State().GetState() {
	case frameworkv1.LeadershipState_STATE_LEADING:
		return nil
	case frameworkv1.LeadershipState_STATE_RECOVERING:
		return Failed(http.StatusServiceUnavailable, "Master has not finished recovery")
	}
	return l.redirect(r.URL.RequestURI())
}

// redirect sends a client to the leader, which may be this master itself.
func (l *Leadership) redirect(path string) *Error {
	leader := l.Leader()
	if leader == "" {
		return NoLeader()
	}
	return &Error{Code: http.StatusTemporaryRedirect, Header: http.Header{"Location": {"//" + leader + path}}}
}

// NoLeader is the answer while nobody leads.
func NoLeader() *Error { return Failed(http.StatusServiceUnavailable, "No leader elected") }
