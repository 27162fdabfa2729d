package master

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/hcl/v2"
	"google.golang.org/grpc"

	"github.com/mezzo-os/mezzo/config"
	"github.com/mezzo-os/mezzo/core/master/state"
	"github.com/mezzo-os/mezzo/core/pluginhost"
	operatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/operator/v1"
	pluginv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/plugin/v1"
)

const (
	// explainTimeout bounds a question to the allocator.
	explainTimeout = 10 * time.Second
	// retireTimeout bounds the end of an allocator that was replaced, or that
	// was to replace another and failed.
	retireTimeout = 10 * time.Second
	// swapTimeout bounds the time from the launch of an allocator that is to
	// take over until it does.
	swapTimeout = 2 * time.Minute
)

// allocatorRun is one allocator under supervision, with however many processes
// after one another: the current one (Master.allocator), one that prepares to
// take over, or one that was replaced and is ending.
type allocatorRun struct {
	instance *pluginhost.Instance // nil with Options.Allocator
	block    config.Plugin
	binary   string
	// conn is a way to the process that runs now; nil while there is none.
	conn atomic.Pointer[grpc.ClientConnInterface]

	// Of one that prepares: the configuration that comes with it, and whether it
	// took over (nil), or why it did not.
	config  *state.Config
	outcome chan error

	// Under Master.allocatorMu: abandoned says that it must not take over any
	// more.
	status    *operatorv1.Plugin
	abandoned bool

	mu    sync.Mutex
	given []byte // what Configure was told last, for a comparison
}

func (r *allocatorRun) setGiven(config []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.given = config
}

// settle says what came of the preparation; the first word counts.
func (r *allocatorRun) settle(err error) {
	select {
	case r.outcome <- err:
	default:
	}
}

// newRun makes a run of the allocator that a configuration names, and how to
// start it.
func (m *Master) newRun(c *config.Master) (*allocatorRun, pluginhost.Spec) {
	spec := pluginhost.FromConfig(*c.Allocator, c.PluginDir)
	run := &allocatorRun{block: *c.Allocator, binary: spec.Path, outcome: make(chan error, 1)}
	configure := spec.Configure
	spec.Configure = func(schema *pluginv1.Schema) ([]byte, error) {
		given, err := configure(schema)
		if err == nil {
			run.setGiven(given)
		}
		return given, err
	}
	spec.OnUp = func(ctx context.Context, g *pluginhost.Generation) { m.serveAllocator(ctx, run, g.Conn) }
	spec.OnDown = func(_ *pluginhost.Generation, err error) {
		if err != nil {
			run.settle(err)
		}
	}
	spec.OnStatus = func(s pluginhost.Status) {
		m.allocatorMu.Lock()
		defer m.allocatorMu.Unlock()
		run.status = s.ToProto("master")
		if m.allocator.Load() == run {
			m.mirror.put(change{plugin: run.status})
		}
	}
	return run, spec
}

// startAllocator brings the first allocator's plugin up. Its error is the
// operator's to read.
func (m *Master) startAllocator(ctx context.Context) error {
	if m.options.Allocator != nil {
		run := &allocatorRun{outcome: make(chan error, 1)}
		m.allocator.Store(run)
		m.background.Go(func() { m.serveAllocator(m.life, run, m.options.Allocator) })
		return nil
	}
	run, spec := m.newRun(m.config.Load())
	m.allocator.Store(run)
	instance, err := m.host.Start(ctx, spec)
	run.instance = instance
	return err
}

// takeOver makes a run the current one. The loop calls it in the turn in which
// the machine made its session current. When it is too late for that, the run
// is being stopped, and the one that it replaced opens a session again.
func (m *Master) takeOver(run *allocatorRun) {
	m.allocatorMu.Lock()
	defer m.allocatorMu.Unlock()
	if run.abandoned {
		return
	}
	old := m.allocator.Swap(run)
	if run.status != nil {
		m.mirror.put(change{plugin: run.status})
	}
	if old != nil && old.status != nil && run.status != nil && old.status.Id != run.status.Id {
		m.mirror.put(change{pluginRemoved: old.status.Id})
	}
	run.settle(nil)
}

// abandon keeps a run from taking over; false: it has done so.
func (m *Master) abandon(run *allocatorRun) bool {
	m.allocatorMu.Lock()
	defer m.allocatorMu.Unlock()
	if m.allocator.Load() == run {
		return false
	}
	run.abandoned = true
	return true
}

// allocatorConn is a way to the allocator that runs now, or nil.
func (m *Master) allocatorConn() grpc.ClientConnInterface {
	if run := m.allocator.Load(); run != nil {
		if conn := run.conn.Load(); conn != nil {
			return *conn
		}
	}
	return nil
}

// serveAllocator opens session after session with one process of an allocator,
// until ctx ends or another allocator has taken over. Each begins with a
// snapshot. A run that is to take over has one session to do so.
func (m *Master) serveAllocator(ctx context.Context, run *allocatorRun, conn grpc.ClientConnInterface) {
	run.conn.Store(&conn)
	defer run.conn.CompareAndSwap(&conn, nil)
	defer context.AfterFunc(ctx, func() { run.conn.CompareAndSwap(&conn, nil) })()
	pause := sessionBackoffMin
	prepared := false
	for {
		current := m.allocator.Load() == run
		if !current && prepared {
			return // it was replaced, or could not take over
		}
		if !current && m.term.Load() == nil {
			// Nothing is led, so there is nothing to prepare for.
			m.takeOver(run)
			current = true
		}
		t, err := m.awaitTerm(ctx)
		if err != nil {
			return
		}
		began := time.Now()
		prepared = true
		err = t.runSession(ctx, run, conn, !current)
		if ctx.Err() != nil {
			return
		}
		if m.allocator.Load() != run {
			run.settle(err)
			return
		}
		if time.Since(began) > sessionPatience {
			pause = sessionBackoffMin
		}
		if m.term.Load() == t {
			m.logger.Warn("the allocator's session ended; it is begun again", "error", err, "pause", pause)
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return
		}
		pause = min(2*pause, sessionBackoffMax)
	}
}

// noTakeOver says, at the operator's line, why an allocator did not take over.
// The one before it serves.
func noTakeOver(p *config.Plugin, err error) error {
	d := &hcl.Diagnostic{
		Severity: hcl.DiagError, Summary: fmt.Sprintf("allocator %q did not take over", p.Name),
		Detail: fmt.Sprintf("It started, and then: %s. The allocator before it goes on.", err),
	}
	if (p.DefRange != hcl.Range{}) {
		d.Subject = &p.DefRange
	}
	return hcl.Diagnostics{d}
}

// swapAllocator starts the allocator of another configuration beside the
// current one and has it take over, together with settings (nil: they stay), in
// one step of the machine. With an error nothing has changed, and nothing is left of the other.
func (m *Master) swapAllocator(ctx context.Context, c *config.Master, settings *state.Config) (err error) {
	defer func() {
		m.metrics.swaps.WithLabelValues(map[bool]string{true: "done", false: "failed"}[err == nil]).Inc()
	}()
	old := m.allocator.Load()
	if m.host == nil || old.instance == nil {
		return errors.New("this master's allocator is no plugin that could be replaced")
	}
	ctx, cancel := context.WithTimeout(ctx, m.swapTimeout())
	defer cancel()
	run, spec := m.newRun(c)
	run.config = settings
	spec.Replaces = old.instance
	began := time.Now()
	run.instance, err = m.host.Start(ctx, spec)
	if err != nil {
		return err
	}
	err = m.awaitOutcome(ctx, run)
	if err != nil && m.abandon(run) {
		retire(ctx, run.instance)
		return noTakeOver(c.Allocator, err)
	}
	m.logger.Info("another allocator has taken over", "from", old.block.Name, "to", c.Allocator.Name, "took", time.Since(began).Round(time.Millisecond))
	retire(ctx, old.instance)
	return nil
}

// awaitOutcome waits until a run has taken over, or cannot.
func (m *Master) awaitOutcome(ctx context.Context, run *allocatorRun) error {
	began := time.Now()
	select {
	case err := <-run.outcome:
		return err
	case <-m.life.Done():
		return errStopped
	case <-ctx.Done():
		if !errors.Is(ctx.Err(), context.DeadlineExceeded) {
			return ctx.Err()
		}
		return fmt.Errorf("it had not taken in its snapshot, and all that happened since, after %s", time.Since(began).Round(100*time.Millisecond))
	}
}

// retire ends an allocator that is not wanted any more, whatever becomes of ctx.
func retire(ctx context.Context, i *pluginhost.Instance) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), retireTimeout)
	defer cancel()
	i.Stop(ctx)
}

func (m *Master) swapTimeout() time.Duration {
	if m.options.SwapTimeout > 0 {
		return m.options.SwapTimeout
	}
	return swapTimeout
}
