package pluginhost

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pluginv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/plugin/v1"
)

// start brings the first process up and hands it to the supervisor.
func (i *Instance) start(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(i.life, cancel)() // Stop during the start
	r, e := i.host.bringUp(ctx, i.spec, i.logger, 1)
	if e != nil {
		i.cancel()
		i.update(func(s *Status) { s.State, s.Message, s.LastError = Stopped, e.Problem, e.Summary() })
		close(i.ended)
		return e
	}
	i.begin(r)
	go i.supervise(r)
	return nil
}

// supervise keeps a process running until Stop.
func (i *Instance) supervise(r *running) {
	defer close(i.ended)
	deaths := 0 // in a row, none after StableAfter
	for r != nil {
		born := time.Now()
		reason := i.serve(r, deaths)
		if reason == nil {
			break
		}
		if time.Since(born) >= i.host.options.StableAfter {
			deaths = 0
		}
		deaths++
		r, deaths = i.replace(reason, deaths)
	}
	i.update(func(s *Status) { s.State, s.Message, s.PID = Stopped, "", 0 })
	i.logger.Info("plugin stopped")
}

// replace brings the next process up, trying until it works; nil after Stop. It
// returns how many have died in a row by then.
func (i *Instance) replace(reason *Error, deaths int) (*running, int) {
	number := i.Status().Generation
	for ; ; deaths++ {
		pause := i.host.options.backoff(deaths)
		i.logger.Error("plugin is down", "error", reason.Summary(), "deaths", deaths, "next_try", pause.Round(time.Millisecond), "stderr", lastLine(reason.Output))
		i.update(func(s *Status) {
			s.State, s.PID, s.LastError = Restarting, 0, reason.Summary()
			s.Message = reason.Problem
			s.Restarts++
			if deaths >= CrashLoop {
				s.State = Degraded
				s.Message = fmt.Sprintf("it died %d times in a row and is tried again every %v: %s", deaths, pause.Round(time.Second), reason.Problem)
			}
		})
		select {
		case <-time.After(pause):
		case <-i.life.Done():
			return nil, deaths
		}
		number++
		r, e := i.host.bringUp(i.life, i.spec, i.logger, number)
		if e == nil {
			i.begin(r)
			return r, deaths
		}
		if i.life.Err() != nil {
			return nil, deaths
		}
		i.update(func(s *Status) { s.Generation = number })
		reason = e
	}
}

// backoff is the pause before the n-th restart in a row, n from 1: it doubles
// from BackoffMin to BackoffMax, and a quarter of it is chance, so that what
// died together does not come back together.
func (o Options) backoff(n int) time.Duration {
	pause := o.BackoffMax
	if n < 32 {
		if doubled := o.BackoffMin << (n - 1); doubled > 0 {
			pause = min(doubled, o.BackoffMax)
		}
	}
	return pause*3/4 + rand.N(pause/4+1)
}

func lastLine(o Output) string {
	if len(o.Stderr) == 0 {
		return ""
	}
	return o.Stderr[len(o.Stderr)-1]
}

// begin shows a new process in the status; it may not be used yet.
func (i *Instance) begin(r *running) {
	g := r.generation
	i.update(func(s *Status) {
		s.PID, s.Generation, s.Checksum = g.PID, g.Number, g.Checksum
		s.Version, s.ContractVersion, s.Capabilities = g.Description.GetVersion(), g.ContractVersion, g.Description.GetCapabilities()
	})
	i.logger.Info("plugin runs", "pid", g.PID, "version", g.Description.GetVersion(), "generation", g.Number, "path", i.spec.Path)
}

// serve lets a process be used until it dies, hangs, fails or Stop is called.
// It returns with nothing left of the process: why, or nil for Stop.
func (i *Instance) serve(r *running, deaths int) *Error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	failed := make(chan *Error, 1)
	fail := func(e *Error) {
		select {
		case failed <- e:
		default:
		}
	}
	g := r.generation
	g.ctx = ctx
	g.fail = func(err error) {
		fail(i.deathError(r, err.Error(), err))
	}
	i.setCurrent(g, r.first, deaths)
	users := i.use(ctx, g)
	watchers := make(chan struct{})
	go func() {
		defer close(watchers)
		i.watchHealth(r, deaths, fail)
	}()
	pinging := make(chan struct{})
	go func() {
		defer close(pinging)
		i.ping(ctx, r, fail)
	}()

	var reason *Error
	select {
	case <-r.child.exited:
		reason = i.deathError(r, "it "+r.child.ending(), nil)
	case reason = <-failed:
	case <-i.life.Done():
	}
	i.unsetCurrent()
	cancel()
	if reason != nil {
		r.kill()
	} else {
		i.finish(r, users)
	}
	r.endHealth()
	<-watchers
	<-pinging
	i.awaitUsers(users)
	if i.spec.OnDown != nil {
		var err error
		if reason != nil {
			err = reason
		}
		i.spec.OnDown(g, err)
	}
	return reason
}

// use runs OnUp; the channel is closed when it has returned.
func (i *Instance) use(ctx context.Context, g *Generation) <-chan struct{} {
	done := make(chan struct{})
	go func() {
		defer close(done)
		if i.spec.OnUp != nil {
			i.spec.OnUp(ctx, g)
		}
	}()
	return done
}

// usersPatience is how late OnUp may return before it is called a bug.
const usersPatience = 10 * time.Second

// awaitUsers waits until OnUp has returned, as it must, and does not do so in
// silence.
func (i *Instance) awaitUsers(users <-chan struct{}) {
	select {
	case <-users:
		return
	case <-time.After(usersPatience):
	}
	i.logger.Error("mezzo still uses a plugin process that is gone, and cannot use another; report this", "after", usersPatience)
	<-users
}

// finish is the end that was asked for: users first, then the process.
func (i *Instance) finish(r *running, users <-chan struct{}) {
	i.mu.Lock()
	asked := i.stopCtx
	i.mu.Unlock()
	if asked == nil {
		asked = context.Background()
	}
	ctx, cancel := context.WithTimeout(asked, i.host.options.ShutdownGrace)
	defer cancel()
	select {
	case <-users:
	case <-ctx.Done():
	}
	r.end(ctx)
}

func (i *Instance) deathError(r *running, problem string, cause error) *Error {
	return &Error{
		Plugin: i.spec.title(), Path: r.child.Name(), Step: StepServe, Problem: problem, Err: cause,
		Output: Output{Stderr: r.out.get().Stderr},
		Remedy: "it is started again by itself; if this repeats, see its log lines and report it to the plugin's author",
	}
}

// setCurrent lets users have the process.
func (i *Instance) setCurrent(g *Generation, first *pluginv1.HealthStatus, deaths int) {
	i.update(func(s *Status) {
		i.current = g
		applyHealth(s, first, deaths)
	})
}

func (i *Instance) unsetCurrent() {
	i.update(func(*Status) { i.current = nil })
}

// applyHealth shows the plugin's own word, and a crash loop until it is over.
func applyHealth(s *Status, h *pluginv1.HealthStatus, deaths int) {
	s.Message = h.GetMessage()
	switch h.GetState() {
	case pluginv1.HealthStatus_STATE_HEALTHY:
		s.State = Healthy
	case pluginv1.HealthStatus_STATE_DEGRADED:
		s.State = Degraded
	case pluginv1.HealthStatus_STATE_UNHEALTHY:
		s.State = Unhealthy
	default:
		s.State, s.Message = Unhealthy, fmt.Sprintf("it reports a state that this mezzo does not know (%d)", h.GetState())
	}
	if s.State == Healthy && deaths >= CrashLoop {
		s.State = Degraded
		s.Message = fmt.Sprintf("it runs, after %d deaths in a row; the last: %s", deaths, s.LastError)
	}
}

// watchHealth shows every change of the plugin's word until the stream ends.
func (i *Instance) watchHealth(r *running, deaths int, fail func(*Error)) {
	last := r.first
	statuses := make(chan *pluginv1.HealthStatus)
	ended := make(chan error, 1)
	go func() {
		for {
			h, err := r.health.Recv()
			if err != nil {
				ended <- err
				close(statuses)
				return
			}
			statuses <- h
		}
	}()
	stable := time.NewTimer(i.host.options.StableAfter)
	defer stable.Stop()
	for {
		select {
		case h, ok := <-statuses:
			if !ok {
				i.healthEnded(r, <-ended, fail)
				return
			}
			last = h
		case <-stable.C:
			deaths = 0
		}
		i.mu.Lock()
		live := i.current == r.generation
		i.mu.Unlock()
		if live {
			i.update(func(s *Status) { applyHealth(s, last, deaths) })
		}
	}
}

// healthEnded fails a process that ended its health stream and lives on.
func (i *Instance) healthEnded(r *running, err error, fail func(*Error)) {
	if status.Code(err) == codes.Canceled {
		return
	}
	select {
	case <-r.child.exited: // that is the reason, and it is known
	case <-time.After(time.Second):
		fail(i.deathError(r, fmt.Sprintf("it ended its health stream: %v", err), err))
	}
}

// ping fails a process that does not answer for PingTimeout.
func (i *Instance) ping(ctx context.Context, r *running, fail func(*Error)) {
	tick := time.NewTicker(i.host.options.PingInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		call, cancel := context.WithTimeout(ctx, i.host.options.PingTimeout)
		_, err := r.base.Ping(call, &pluginv1.PingRequest{})
		cancel()
		// A connection that breaks is the death of the process, or the next ping
		// finds out.
		if status.Code(err) == codes.DeadlineExceeded && ctx.Err() == nil {
			fail(i.deathError(r, fmt.Sprintf("it did not answer a ping for %v%s", i.host.options.PingTimeout, r.child.stoppedNote()), err))
			return
		}
	}
}
