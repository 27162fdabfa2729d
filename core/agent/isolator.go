package agent

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/mezzo-os/mezzo/core/agent/state"
	isolatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/isolator/v1"
)

// Deadlines of calls to isolators. What an isolator may have to download or
// unpack happens in Prepare and Create.
const (
	claimTimeout   = 10 * time.Second
	prepareTimeout = 5 * time.Minute
	startTimeout   = time.Minute
	killTimeout    = 10 * time.Second
	cleanupTimeout = time.Minute
	recoverTimeout = time.Minute
	usageTimeout   = 10 * time.Second
	// readyTimeout is how long a launch waits for an isolator that is restarting.
	readyTimeout = 30 * time.Second
)

// isolatorClient is one isolator to the rest of the agent: whatever process
// serves it now. Calls go only to a process that has recovered.
type isolatorClient struct {
	name   string
	logger hclog.Logger
	post   func(context.Context, state.Input)
	run    func(func(context.Context))

	following sync.Once          // of its plugin
	over      context.Context    // ends when it is retired
	retire    context.CancelFunc // ends over

	mu      sync.Mutex
	conn    grpc.ClientConnInterface // nil: no process
	ended   context.CancelFunc       // of what belongs to conn
	life    context.Context          // ends with conn
	ready   bool                     // conn has recovered
	reason  string
	changed chan struct{} // closed and replaced when ready changes
}

func newIsolatorClient(name string, logger hclog.Logger, post func(context.Context, state.Input), run func(func(context.Context))) *isolatorClient {
	i := &isolatorClient{name: name, logger: logger.With("isolator", name), post: post, run: run, changed: make(chan struct{}), reason: "has not started yet"}
	i.over, i.retire = context.WithCancel(context.Background())
	return i
}

// watch follows the plugin until the context ends.
func (i *isolatorClient) watch(ctx context.Context, plugin Isolator) {
	healthy, why := false, ""
	told := false
	plugin.Watch(ctx, func(s IsolatorState) {
		if s.Conn != i.current() {
			i.replace(ctx, s.Conn)
			if s.Conn != nil {
				i.post(ctx, state.IsolatorUp{Isolator: i.name, Spec: s.Spec})
			}
		}
		if s.Conn == nil {
			s.Healthy = false
			if s.Reason == "" {
				s.Reason = "its process is not running"
			}
		}
		if !told || s.Healthy != healthy || s.Reason != why {
			told, healthy, why = true, s.Healthy, s.Reason
			i.mu.Lock()
			i.reason = s.Reason
			i.mu.Unlock()
			i.post(ctx, state.IsolatorHealth{Isolator: i.name, Healthy: s.Healthy, Reason: s.Reason})
		}
	})
	i.replace(ctx, nil)
}

func (i *isolatorClient) current() grpc.ClientConnInterface {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.conn
}

// replace makes another process, or none, the current one.
func (i *isolatorClient) replace(ctx context.Context, conn grpc.ClientConnInterface) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.ended != nil {
		i.ended()
	}
	i.conn, i.ready, i.life, i.ended = conn, false, nil, nil
	if conn != nil {
		i.life, i.ended = context.WithCancel(ctx)
	}
}

// recover asks the current process what became of its containers, until it
// answers or is gone.
func (i *isolatorClient) recover(known []*isolatorv1.Known) {
	i.mu.Lock()
	conn, life := i.conn, i.life
	i.mu.Unlock()
	if conn == nil {
		return
	}
	i.run(func(ctx context.Context) {
		pause := newPause(10 * time.Second)
		for life.Err() == nil {
			call, cancel := context.WithTimeout(life, recoverTimeout)
			answer, err := isolatorv1.NewIsolatorClient(conn).Recover(call, &isolatorv1.RecoverRequest{Containers: known})
			cancel()
			if err == nil {
				i.post(life, state.IsolatorRecovered{Isolator: i.name, Containers: answer.GetContainers(), Orphans: answer.GetOrphans()})
				i.open(conn, life)
				return
			}
			if life.Err() == nil {
				i.logger.Error("isolator could not recover its containers; trying again", "error", reason(err))
			}
			pause.wait(life)
		}
	})
}

// open lets calls through to a process that has recovered.
func (i *isolatorClient) open(conn grpc.ClientConnInterface, life context.Context) {
	i.mu.Lock()
	current := i.conn == conn
	if current {
		i.ready = true
		close(i.changed)
		i.changed = make(chan struct{})
	}
	i.mu.Unlock()
	if current {
		i.run(func(context.Context) { i.limitations(life, conn) })
	}
}

// limitations passes on what the isolator says of containers that exceed what
// they may use, for as long as its process lives.
func (i *isolatorClient) limitations(life context.Context, conn grpc.ClientConnInterface) {
	pause := newPause(10 * time.Second)
	for life.Err() == nil {
		stream, err := isolatorv1.NewIsolatorClient(conn).Limitations(life, &isolatorv1.LimitationsRequest{})
		for err == nil {
			var l *isolatorv1.Limitation
			if l, err = stream.Recv(); err == nil {
				pause.reset()
				i.post(life, state.Limited{Limitation: l})
			}
		}
		if status.Code(err) == codes.Unimplemented {
			return
		}
		if life.Err() == nil {
			i.logger.Debug("the stream of limitations ended; opening it again", "reason", reason(err))
		}
		pause.wait(life)
	}
}

// await returns a client of a process that has recovered, and waits for one.
func (i *isolatorClient) await(ctx context.Context) (isolatorv1.IsolatorClient, error) {
	for {
		i.mu.Lock()
		conn, ready, why, changed := i.conn, i.ready, i.reason, i.changed
		i.mu.Unlock()
		if ready {
			return isolatorv1.NewIsolatorClient(conn), nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			if why == "" {
				why = "it is recovering"
			}
			return nil, fmt.Errorf("isolator %s is not ready: %s", i.name, why)
		}
	}
}

// awaitSoon is await with the patience of somebody at a terminal.
func (i *isolatorClient) awaitSoon(ctx context.Context) (isolatorv1.IsolatorClient, error) {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	return i.await(ctx)
}

// call makes one call with a deadline to a process that is ready, waiting a
// while for that. The context can end the waiting, but not the call: what is
// done next for the container must find this finished.
func (i *isolatorClient) call(ctx context.Context, timeout time.Duration, what string, f func(context.Context, isolatorv1.IsolatorClient) error) error {
	client, err := i.awaitSoon(ctx)
	if err != nil {
		return err
	}
	i.mu.Lock()
	life := i.life
	i.mu.Unlock()
	if life == nil || ctx.Err() != nil {
		return fmt.Errorf("isolator %s: %s: given up before it was begun", i.name, what)
	}
	calling, cancel := context.WithTimeout(life, timeout)
	defer cancel()
	calling, done := span(ctx, calling, what, i.name)
	err = f(calling, client)
	done(err)
	if err != nil {
		return &callError{isolator: i.name, what: what, err: err}
	}
	return nil
}

// callError is an isolator's answer to a call that did not work.
type callError struct {
	isolator, what string
	err            error
}

func (e *callError) Error() string {
	return fmt.Sprintf("isolator %s: %s: %s", e.isolator, e.what, reason(e.err))
}
func (e *callError) Unwrap() error { return e.err }

// persist makes a call until it works or the context ends. again says of an
// error whether another try is of use.
func (i *isolatorClient) persist(ctx context.Context, timeout time.Duration, what string, f func(context.Context, isolatorv1.IsolatorClient) error, again func(error) bool) error {
	pause := newPause(30 * time.Second)
	said := ""
	for {
		client, err := i.await(ctx)
		if err != nil {
			return err
		}
		calling, cancel := ctx, context.CancelFunc(func() {})
		if timeout > 0 {
			calling, cancel = context.WithTimeout(ctx, timeout)
		}
		calling, done := span(ctx, calling, what, i.name)
		err = f(calling, client)
		done(err)
		cancel()
		if err == nil || !again(err) || ctx.Err() != nil {
			return err
		}
		// A process that is gone answers Unavailable; its end is logged by others.
		if text := reason(err); text != said && status.Code(err) != codes.Unavailable {
			said = text
			i.logger.Warn("a call did not work; trying again", "call", what, "error", text)
		}
		pause.wait(ctx)
	}
}

// pause is a wait that grows, with jitter.
type pause struct{ most, next time.Duration }

// firstPause is the shortest of them.
const firstPause = 100 * time.Millisecond

func newPause(most time.Duration) *pause { return &pause{most: most, next: firstPause} }

func (p *pause) reset() { p.next = firstPause }

func (p *pause) wait(ctx context.Context) {
	t := time.NewTimer(p.next/2 + rand.N(p.next/2+1))
	defer t.Stop()
	p.next = min(2*p.next, p.most)
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
