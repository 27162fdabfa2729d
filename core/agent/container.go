package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/mezzo-os/mezzo/core/agent/fetcher"
	"github.com/mezzo-os/mezzo/core/agent/state"
	"github.com/mezzo-os/mezzo/core/secret"
	isolatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/isolator/v1"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
)

// launchesAtOnce bounds how many containers are made at the same time: more
// only makes each slower.
const launchesAtOnce = 32

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

// claim asks every isolator about every container of a launch.
func (c *containers) claim(o state.ClaimContainers) {
	c.run(func(ctx context.Context) {
		in := state.Claimed{Launch: o.Launch}
		for _, p := range o.Containers {
			if err := c.secrets.check(p); err != nil {
				in.Claims, in.Err, in.Invalid = nil, err.Error(), true
				break
			}
			var claims []state.Claim
			ctx := c.traces.within(ctx, p.Container)
			err := c.persevere(ctx, func() (err error) { claims, err = c.claimOne(ctx, c.resolve(p)); return err })
			if err != nil {
				in.Claims, in.Err = nil, err.Error()
				break
			}
			in.Claims = append(in.Claims, claims)
		}
		c.post(ctx, in)
	})
}

func (c *containers) claimOne(ctx context.Context, p *state.Plan) ([]state.Claim, error) {
	var claims []state.Claim
	for _, isolator := range c.listed() {
		claim := state.Claim{Isolator: isolator.name}
		err := isolator.call(ctx, claimTimeout, "claim", func(ctx context.Context, i isolatorv1.IsolatorClient) error {
			answer, err := i.Claim(ctx, &isolatorv1.ClaimRequest{Container: p.Container, Task: p.Task})
			claim.Claim, claim.Reason = answer.GetClaim(), answer.GetReason()
			return err
		})
		if err != nil {
			return nil, err
		}
		claims = append(claims, claim)
	}
	return claims, nil
}

// launch makes a container as far as Create.
func (c *containers) launch(p *state.Plan) {
	asked := p
	p = c.resolve(p)
	c.enqueue(p.Container, func(ctx context.Context) {
		ctx = c.traces.within(ctx, p.Container)
		// To fetch may take long and is somebody else's time.
		err := c.furnish(ctx, p)
		if err == nil {
			err = c.putSecrets(asked)
		}
		if err == nil {
			err = c.provision(ctx, p)
		}
		if err != nil {
			c.post(ctx, state.LaunchFailed{Container: p.Container, Message: err.Error()})
			return
		}
		select {
		case c.slots <- struct{}{}:
			defer func() { <-c.slots }()
		case <-ctx.Done():
			return
		}
		var created *state.Created
		begun := false
		err = c.persevere(ctx, func() (err error) {
			if begun {
				if err := c.undo(ctx, p); err != nil {
					return err
				}
				if err := c.provision(ctx, p); err != nil {
					return err
				}
			}
			begun = true
			created, err = c.make(ctx, p)
			return err
		})
		if err != nil {
			c.post(ctx, state.LaunchFailed{Container: p.Container, Message: err.Error()})
			return
		}
		c.post(ctx, *created)
	})
}

// launchAttempts is how often something is tried that an isolator's end cuts off.
const launchAttempts = 3

// persevere does something again when the isolator's process ended meanwhile, or
// says that it may work later; each call waits for a process that is ready.
func (c *containers) persevere(ctx context.Context, f func() error) error {
	pause := newPause(5 * time.Second)
	for n := 1; ; n++ {
		err := f()
		var failed *callError
		if !errors.As(err, &failed) || n == launchAttempts || ctx.Err() != nil {
			return err
		}
		if code := status.Code(failed.err); code != codes.Unavailable && code != codes.Canceled {
			return err
		}
		pause.wait(ctx)
	}
}

// undo removes what an attempt to make a container has left.
func (c *containers) undo(ctx context.Context, p *state.Plan) error {
	for _, l := range slices.Backward(p.Chain) {
		i, err := c.isolator(l.Isolator)
		if err != nil {
			return err
		}
		err = i.call(ctx, cleanupTimeout, "cleanup", func(ctx context.Context, i isolatorv1.IsolatorClient) error {
			_, err := i.Cleanup(ctx, &isolatorv1.CleanupRequest{Container: p.Container})
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// furnish makes a container's sandbox, with what the command's URIs name.
func (c *containers) furnish(ctx context.Context, p *state.Plan) error {
	user, err := accountOf(p.Task)
	if err != nil {
		return err
	}
	if _, err := c.work.make(p, user); err != nil {
		return err
	}
	if err := c.volumes.give(ctx, c.work, p, user, !mountable(p)); err != nil {
		return err
	}
	uris := p.Command.GetUris()
	if len(uris) == 0 {
		return nil
	}
	if c.fetcher == nil {
		return errors.New("the task has URIs, and this agent fetches none")
	}
	dir, err := c.work.openDir(p.Sandbox)
	if err != nil {
		return err
	}
	defer dir.Close()
	who := fetcher.User{UID: user.uid, GID: user.gid, Groups: user.groups}
	_, done := span(ctx, ctx, "fetch", "")
	err = c.fetcher.Fetch(ctx, dir, who, uris, func(text string) {
		c.post(ctx, state.Progress{Container: p.Container, Message: text})
	})
	done(err)
	if ctx.Err() == nil { // else it was given up
		c.metrics.fetches.WithLabelValues(outcome(err)).Inc()
	}
	return err
}

// mountable is whether a container can have mounts of its own: it has a process,
// and the agent is root.
func mountable(p *state.Plan) bool { return p.Command != nil && os.Geteuid() == 0 }

// revealed is the plan with the secrets of its command's environment.
func (c *containers) revealed(p *state.Plan) (*state.Plan, error) {
	command, err := c.secrets.reveal(p.Command)
	if err != nil || command == p.Command {
		return p, err
	}
	changed := *p
	changed.Command = command
	return &changed, nil
}

// putSecrets writes the secrets that the container finds in files.
func (c *containers) putSecrets(p *state.Plan) error {
	who, err := accountOf(p.Task)
	if err != nil {
		return err
	}
	return c.secrets.put(p, who)
}

// resolve is the plan with what volumes name replaced by where that lies.
func (c *containers) resolve(p *state.Plan) *state.Plan { return c.secrets.mount(c.volumes.resolve(p)) }

// baseSpec is a container's specification, with its volumes.
func (c *containers) baseSpec(p *state.Plan, sandbox string, who *account) ([]byte, error) {
	var mounts []specs.Mount
	if mountable(p) {
		mounts = c.volumes.mounts(p, inside(p, sandbox))
	}
	return baseSpec(p, sandbox, who, c.endpoint, c.hostname, mounts)
}

func (c *containers) make(ctx context.Context, p *state.Plan) (*state.Created, error) {
	p, err := c.revealed(p)
	if err != nil {
		return nil, err
	}
	user, err := accountOf(p.Task)
	if err != nil {
		return nil, err
	}
	sandbox := c.work.path(p.Sandbox)
	spec, err := c.baseSpec(p, sandbox, user)
	if err != nil {
		return nil, err
	}
	created := &state.Created{Container: p.Container, Handles: map[string][]byte{}}
	for _, l := range p.Chain {
		i, err := c.isolator(l.Isolator)
		if err != nil {
			return nil, err
		}
		err = i.call(ctx, prepareTimeout, "prepare", func(ctx context.Context, i isolatorv1.IsolatorClient) error {
			answer, err := i.Prepare(ctx, &isolatorv1.PrepareRequest{Container: p.Container, Task: p.Task, Spec: spec, Sandbox: sandbox})
			if err == nil {
				created.Handles[l.Isolator] = answer.GetHandle()
				if len(answer.GetSpec()) > 0 {
					spec = answer.GetSpec()
				}
			}
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	request := &isolatorv1.CreateRequest{Container: p.Container, Task: p.Task, Spec: spec, Sandbox: sandbox, Logs: c.logs}
	if tty := p.Task.GetContainer().GetTtyInfo(); tty != nil {
		request.Logs = &isolatorv1.Logs{MaxBytes: c.logs.GetMaxBytes(), MaxFiles: c.logs.GetMaxFiles(), Tty: true}
	}
	if !p.Deadline.IsZero() {
		request.Deadline = timestamppb.New(p.Deadline)
	}
	launcher, err := c.isolator(state.Launcher(p.Chain))
	if err != nil {
		return nil, err
	}
	return created, launcher.call(ctx, prepareTimeout, "create", func(ctx context.Context, i isolatorv1.IsolatorClient) error {
		answer, err := i.Create(ctx, request)
		if err == nil {
			created.PID, created.Netns = answer.GetPid(), answer.GetNetns()
			created.Networks, created.Cgroup = answer.GetNetworks(), answer.GetCgroupInfo()
			created.Handles[launcher.name] = answer.GetHandle()
		}
		return err
	})
}

func (c *containers) isolator(name string) (*isolatorClient, error) {
	if i := c.client(name); i != nil {
		return i, nil
	}
	return nil, fmt.Errorf("isolator %s has a part in the container and is not in the agent's configuration: add it again", name)
}

// begin lets a container's process go.
func (c *containers) begin(o state.Start) {
	c.enqueue(o.Container, func(ctx context.Context) {
		ctx = c.traces.within(ctx, o.Container)
		var in state.Started
		asked := false // Start was asked for
		err := c.persevere(ctx, func() error {
			in = state.Started{Container: o.Container}
			if err := c.isolate(ctx, o, &in); err != nil {
				return err
			}
			i, err := c.isolator(state.Launcher(o.Chain))
			if err != nil {
				return err
			}
			err = i.call(ctx, startTimeout, "start", func(ctx context.Context, i isolatorv1.IsolatorClient) error {
				_, err := i.Start(ctx, &isolatorv1.StartRequest{Container: o.Container})
				return err
			})
			if asked && status.Code(err) == codes.FailedPrecondition {
				err = nil // it has run, and ended since; Wait tells how
			}
			asked = true
			return err
		})
		if err != nil {
			c.post(ctx, state.LaunchFailed{Container: o.Container, Message: err.Error()})
			return
		}
		c.post(ctx, in)
	})
}

func (c *containers) isolate(ctx context.Context, o state.Start, in *state.Started) error {
	for _, l := range o.Chain {
		i, err := c.isolator(l.Isolator)
		if err != nil {
			return err
		}
		err = i.call(ctx, startTimeout, "isolate", func(ctx context.Context, i isolatorv1.IsolatorClient) error {
			answer, err := i.Isolate(ctx, &isolatorv1.IsolateRequest{Container: o.Container, Pid: o.PID, Netns: o.Netns})
			if status.Code(err) == codes.Unimplemented {
				return nil // it does not need to see the process
			}
			in.Networks = append(in.Networks, answer.GetNetworks()...)
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
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
