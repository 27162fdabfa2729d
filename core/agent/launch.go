package agent

import (
	"context"
	"errors"
	"os"
	"slices"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/mezzo-os/mezzo/core/agent/fetcher"
	"github.com/mezzo-os/mezzo/core/agent/state"
	isolatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/isolator/v1"
)

// launchesAtOnce bounds how many containers are made at the same time: more
// only makes each slower.
const launchesAtOnce = 32

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
