package agent

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/mezzo-os/mezzo/core/agent/fetcher"
	"github.com/mezzo-os/mezzo/core/agent/state"
	"github.com/mezzo-os/mezzo/core/secret"
	isolatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/isolator/v1"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
)

// containers does what the machine asks for with containers. For each container
// one thing is done at a time, in order; Wait and Kill run beside that.
type containers struct {
	work     *workDir
	logs     *isolatorv1.Logs
	endpoint string // the agent's rpc address, for what runs here
	hostname string
	fetcher  *fetcher.Fetcher
	volumes  *volumes
	secrets  *secrets
	logger   hclog.Logger
	metrics  *metrics
	traces   *traces
	post     func(context.Context, state.Input)
	run      func(func(context.Context))
	slots    chan struct{}
	archives string        // where archives of images are fetched to
	stall    time.Duration // for how long a Provision may be silent

	mu        sync.Mutex
	workers   map[string]*worker
	isolators map[string]*isolatorClient // by name, retired ones too
	order     []string                   // of the configuration
}

// client is the isolator of that name, or nil.
func (c *containers) client(name string) *isolatorClient {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.isolators[name]
}

// listed are the isolators of the configuration, in order.
func (c *containers) listed() []*isolatorClient {
	c.mu.Lock()
	defer c.mu.Unlock()
	var list []*isolatorClient
	for _, name := range c.order {
		list = append(list, c.isolators[name])
	}
	return list
}

// worker is a container that something is to be done with.
type worker struct {
	ops     []func(context.Context)
	busy    bool
	cancel  context.CancelFunc // of the operation that runs
	waiting context.CancelFunc // of Wait
	killing context.CancelFunc // of Kill
	life    context.Context    // of probes; nil: there were none
	probing context.CancelFunc // of probes
}

// enqueue does op after all that was asked for before.
func (c *containers) enqueue(id string, op func(context.Context)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	w := c.worker(id)
	w.ops = append(w.ops, op)
	c.start(w)
}

func (c *containers) worker(id string) *worker {
	w := c.workers[id]
	if w == nil {
		w = &worker{}
		c.workers[id] = w
	}
	return w
}

// start runs the operations of a worker, unless that is going on.
func (c *containers) start(w *worker) {
	if w.busy {
		return
	}
	w.busy = true
	c.run(func(ctx context.Context) {
		for {
			c.mu.Lock()
			if len(w.ops) == 0 {
				w.busy = false
				c.mu.Unlock()
				return
			}
			op := w.ops[0]
			w.ops = w.ops[1:]
			ctx, cancel := context.WithCancel(ctx)
			w.cancel = cancel
			c.mu.Unlock()
			op(ctx)
			cancel()
		}
	})
}

func (c *containers) isolator(name string) (*isolatorClient, error) {
	if i := c.client(name); i != nil {
		return i, nil
	}
	return nil, fmt.Errorf("isolator %s has a part in the container and is not in the agent's configuration: add it again", name)
}

// update changes what a running container may use.
func (c *containers) update(p *state.Plan) {
	p = c.resolve(p)
	c.enqueue(p.Container, func(ctx context.Context) {
		in := state.Updated{Container: p.Container}
		if err := c.persevere(ctx, func() error { return c.change(ctx, p) }); err != nil {
			in.Err = err.Error()
		}
		c.post(ctx, in)
	})
}

// change amends the whole spec again; the launcher comes last, and applies it.
func (c *containers) change(ctx context.Context, p *state.Plan) error {
	user, err := accountOf(p.Task)
	if err != nil {
		return err
	}
	// What a container is given while it runs cannot be mounted any more.
	if err := c.volumes.give(ctx, c.work, p, user, true); err != nil {
		return err
	}
	spec, err := c.baseSpec(p, c.work.path(p.Sandbox), user)
	if err != nil {
		return err
	}
	chain := slices.Clone(p.Chain)
	slices.SortStableFunc(chain, func(a, b state.Link) int {
		switch {
		case a.Launcher == b.Launcher:
			return 0
		case a.Launcher:
			return 1
		}
		return -1
	})
	for _, l := range chain {
		i, err := c.isolator(l.Isolator)
		if err != nil {
			return err
		}
		err = i.call(ctx, startTimeout, "update", func(ctx context.Context, i isolatorv1.IsolatorClient) error {
			_, err := i.Update(ctx, &isolatorv1.UpdateRequest{Container: p.Container, Task: p.Task, Spec: spec})
			if status.Code(err) == codes.Unimplemented {
				return nil // what it does for a container does not depend on amounts
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// wait waits for the end of a container, for as long as it takes.
func (c *containers) wait(o state.Wait) {
	i, err := c.isolator(o.Launcher)
	if err != nil {
		return // the machine has said so when it restored the container
	}
	life, cancel := context.WithCancel(context.Background())
	c.mu.Lock()
	c.worker(o.Container).waiting = cancel
	c.mu.Unlock()
	c.run(func(ctx context.Context) {
		ctx, cancel := merge(ctx, life)
		defer cancel()
		in := state.Exited{Container: o.Container}
		err := i.persist(ctx, 0, "wait", func(ctx context.Context, i isolatorv1.IsolatorClient) error {
			answer, err := i.Wait(ctx, &isolatorv1.WaitRequest{Container: o.Container})
			in.Status = answer.GetStatus()
			return err
		}, func(err error) bool { return status.Code(err) != codes.NotFound })
		if ctx.Err() != nil {
			return
		}
		if err != nil || in.Status == nil {
			in.Status = &isolatorv1.ExitStatus{} // nobody knows
		}
		c.post(ctx, in)
	})
}

// merge is a context that ends with either.
func merge(a, b context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(a)
	stop := context.AfterFunc(b, cancel)
	return ctx, func() { stop(); cancel() }
}

// kill ends a container: it is asked for until the isolator has taken it. It
// replaces an earlier one.
func (c *containers) kill(o state.Kill) {
	i, err := c.isolator(o.Launcher)
	if err != nil {
		return
	}
	deadline := time.Now().Add(o.Grace)
	c.mu.Lock()
	w := c.worker(o.Container)
	if w.killing != nil {
		w.killing()
	}
	life, cancel := context.WithCancel(context.Background())
	w.killing = cancel
	c.mu.Unlock()
	c.run(func(ctx context.Context) {
		ctx, cancel := merge(c.traces.within(ctx, o.Container), life)
		defer cancel()
		_ = i.persist(ctx, killTimeout, "kill", func(ctx context.Context, i isolatorv1.IsolatorClient) error {
			_, err := i.Kill(ctx, &isolatorv1.KillRequest{
				Container: o.Container, Signal: o.Signal, GraceMs: max(0, time.Until(deadline)).Milliseconds(),
			})
			return err
		}, func(err error) bool { return status.Code(err) != codes.NotFound })
	})
}

// cleanup gives up what goes on with a container and removes all of it, however
// often that has to be tried.
func (c *containers) cleanup(o state.Cleanup) {
	c.mu.Lock()
	w := c.worker(o.Container)
	for _, cancel := range []context.CancelFunc{w.cancel, w.waiting, w.killing, w.probing} {
		if cancel != nil {
			cancel()
		}
	}
	w.ops = []func(context.Context){func(ctx context.Context) { c.remove(c.traces.within(ctx, o.Container), o) }}
	c.start(w)
	c.mu.Unlock()
}

func (c *containers) remove(ctx context.Context, o state.Cleanup) {
	for _, l := range slices.Backward(o.Chain) {
		i, err := c.isolator(l.Isolator)
		if err != nil {
			return // kept until the operator adds the isolator again
		}
		err = i.persist(ctx, cleanupTimeout, "cleanup", func(ctx context.Context, i isolatorv1.IsolatorClient) error {
			_, err := i.Cleanup(ctx, &isolatorv1.CleanupRequest{Container: o.Container, Handle: l.Handle})
			return err
		}, func(err error) bool {
			if status.Code(err) != codes.Unavailable { // else the isolator was not there to be asked
				c.metrics.cleanups.Inc()
			}
			return true
		})
		if err != nil {
			return // the agent ends; it begins again with its next start
		}
	}
	if err := c.secrets.drop(o.Container); err != nil {
		c.logger.Warn("the secrets of a container stay on the disk", "container_id", o.Container, "error", err)
	}
	if o.Sandbox != "" {
		_ = c.work.ended(o.Sandbox, time.Now()) // it may never have been made
	}
	c.mu.Lock()
	delete(c.workers, o.Container)
	c.mu.Unlock()
	c.post(ctx, state.CleanedUp{Container: o.Container})
}

// withoutSecrets is a task as isolators are told of it: what they mount of a
// secret is a file.
func withoutSecrets(t *isolatorv1.Task) *isolatorv1.Task {
	bare := secret.Container(t.GetContainer())
	if bare == t.GetContainer() {
		return t
	}
	t = proto.CloneOf(t)
	t.Container = bare
	return t
}

// recover gives an isolator what it had a part in, with paths as it knows them.
func (c *containers) recover(o state.Recover) {
	i := c.client(o.Isolator)
	if i == nil {
		return
	}
	known := make([]*isolatorv1.Known, len(o.Known))
	for n, k := range o.Known {
		known[n] = &isolatorv1.Known{Container: k.Container, Handle: k.Handle, Launcher: k.Launcher, Sandbox: c.work.path(k.Sandbox), Task: withoutSecrets(k.Task)}
	}
	i.recover(known)
}

// usage asks the isolators what containers use; the answers of several are
// put together.
func (c *containers) usage(ctx context.Context, ids []string) (map[string]*mezzov1.ResourceStatistics, error) {
	all := map[string]*mezzov1.ResourceStatistics{}
	for _, isolator := range c.listed() {
		err := isolator.call(ctx, usageTimeout, "usage", func(ctx context.Context, i isolatorv1.IsolatorClient) error {
			answer, err := i.Usage(ctx, &isolatorv1.UsageRequest{Containers: ids})
			if status.Code(err) == codes.Unimplemented {
				return nil
			}
			for _, u := range answer.GetUsages() {
				if all[u.GetContainer()] == nil {
					all[u.GetContainer()] = u.GetStatistics()
				}
			}
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return all, nil
}
