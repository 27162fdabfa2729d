package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os/user"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/mezzo-os/mezzo/sdk/framework"
	"github.com/mezzo-os/mezzo/sdk/plugin"
	frameworkv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/framework/v1"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
	"github.com/mezzo-os/mezzo/sdk/resource"
)

const (
	// endpoint is the name under which Mezzo publishes where the API is.
	endpoint = "plugin_name"
	// frameworkKey is where the core keeps the framework's id, so that the next
	// process, or that of the next leader, goes on as the same framework.
	frameworkKey = "framework"
	// failover is how long tasks run on while no process subscribes.
	failover = 24 * time.Hour
	// pause is between attempts to subscribe.
	pause = time.Second
)

// adapter serves the HTTP API, and is the scheduler behind it.
type adapter struct {
	settings *settings
	user     string
	want     resource.Resources // of each task
	logger   hclog.Logger
	tasks    *book

	core    *framework.Core // from Serve on
	server  http.Server
	running sync.WaitGroup

	mu        sync.Mutex
	scheduler *framework.Scheduler // nil while there is no subscription
}

// newAdapter opens nothing: that is for Serve.
func newAdapter(s *settings, logger hclog.Logger) (*adapter, []plugin.Diagnostic) {
	a := &adapter{settings: s, user: s.User, logger: logger, tasks: newBook()}
	var err error
	if a.want, err = resource.Parse(s.Resources); err != nil {
		return nil, []plugin.Diagnostic{plugin.Errorf("bad resources", "resources", "%v.", err)}
	}
	if a.user == "" {
		me, err := user.Current()
		if err != nil {
			return nil, []plugin.Diagnostic{plugin.Errorf("no user", "user", "Who runs the master is not known (%v): write a name here.", err)}
		}
		a.user = me.Username
	}
	return a, nil
}

// Serve returns as soon as the API is there. The adapter runs at every master; at
// one that does not lead it answers 503, and must not wait.
func (a *adapter) Serve(ctx context.Context, core *framework.Core) (*framework.Serving, error) {
	if core.Side != framework.Master {
		return nil, errors.New("it has nothing to do at an agent; write its block in the master block")
	}
	listener, err := core.Listen(ctx, endpoint, a.settings.Listen)
	if err != nil {
		return nil, err
	}
	a.core = core
	a.server.Handler = a.handler()
	a.server.ReadHeaderTimeout, a.server.ReadTimeout, a.server.IdleTimeout = 10*time.Second, 30*time.Second, 2*time.Minute
	a.running.Go(func() { a.server.Serve(listener) })
	a.running.Go(func() { a.schedule(ctx) })
	return &framework.Serving{Endpoints: map[string]string{endpoint: listener.Addr().String()}}, nil
}

// Shutdown comes when the context of Serve has ended.
func (a *adapter) Shutdown(ctx context.Context) {
	if a.server.Shutdown(ctx) != nil {
		a.server.Close()
	}
	a.running.Wait()
}

// schedule keeps the framework subscribed, for as long as the adapter lives.
func (a *adapter) schedule(ctx context.Context) {
	for ctx.Err() == nil {
		err := a.subscribe(ctx)
		switch {
		case errors.Is(err, framework.ErrEnded):
			a.core.Health.Degraded(err.Error()) // the operator sees it in `mezzo plugins`
		case err != nil && status.Code(err) != codes.Unavailable: // that is: this master does not lead
			a.logger.Warn("not subscribed", "error", err)
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
	}
}

// subscribe is one life of the scheduler. It returns when its context ends, or
// when there is no use in trying again at once.
func (a *adapter) subscribe(ctx context.Context) error {
	kept, err := a.core.Store().Get(ctx, &frameworkv1.GetRequest{Key: frameworkKey})
	if err != nil {
		return err
	}
	info := &mezzov1.FrameworkInfo{
		User: proto.String(a.user), Name: proto.String("plugin-name"), Roles: []string{a.settings.Role},
		FailoverTimeout: proto.Float64(failover.Seconds()),
		Capabilities: []*mezzov1.FrameworkInfo_Capability{
			{Type: mezzov1.FrameworkInfo_Capability_MULTI_ROLE.Enum()},
			{Type: mezzov1.FrameworkInfo_Capability_PARTITION_AWARE.Enum()},
		},
	}
	if id := kept.GetValue(); len(id) > 0 {
		info.Id = &mezzov1.FrameworkID{Value: proto.String(string(id))}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	s, err := framework.New(framework.Options{
		Master: a.core.Conn, Info: info,
		Callbacks: framework.Callbacks{
			Subscribed: func(s *framework.Scheduler, id string, _ bool) {
				_, err := a.core.Store().Put(ctx, &frameworkv1.PutRequest{Key: frameworkKey, Value: []byte(id), Version: kept.GetVersion()})
				if err != nil && status.Code(err) != codes.Aborted { // Aborted: it has been kept before
					cancel(fmt.Errorf("the framework's id cannot be kept: %w", err))
					return
				}
				a.subscribed(ctx, s)
			},
			Offers:       func(s *framework.Scheduler, offers []*mezzov1.Offer) { a.offers(ctx, s, offers) },
			Update:       func(_ *framework.Scheduler, status *mezzov1.TaskStatus) { a.update(ctx, status) },
			Disconnected: func(*framework.Scheduler, error) { a.connect(nil) },
		},
	})
	if err != nil {
		return err
	}
	return errors.Join(s.Run(ctx), context.Cause(ctx))
}

// subscribed asks what became of the tasks that were launched before: a call may
// have been lost with the last subscription.
func (a *adapter) subscribed(ctx context.Context, s *framework.Scheduler) {
	a.connect(s)
	a.core.Health.Healthy()
	err := s.Reconcile(ctx, a.tasks.launched()...)
	if err == nil && a.tasks.anyWaiting() {
		err = s.Revive(ctx)
	}
	a.complain("subscribing", err)
}

func (a *adapter) connect(s *framework.Scheduler) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.scheduler = s
}

// connected is the scheduler; nil while there is no subscription.
func (a *adapter) connected() *framework.Scheduler {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.scheduler
}

// offers fills each offer with as many waiting tasks as fit. Who has nothing to
// run says so, and costs the cluster nothing until he does.
func (a *adapter) offers(ctx context.Context, s *framework.Scheduler, offers []*mezzov1.Offer) {
	for _, offer := range offers {
		tasks := a.place(offer)
		if len(tasks) > 0 {
			a.complain("launching", s.Launch(ctx, offer, tasks...))
		} else {
			a.complain("declining", s.Decline(ctx, nil, offer.GetId()))
		}
	}
	if a.tasks.anyWaiting() {
		return
	}
	a.complain("suppressing", s.Suppress(ctx))
	if a.tasks.anyWaiting() { // one came meanwhile, and its Revive may have been earlier
		a.complain("reviving", s.Revive(ctx))
	}
}

// place takes the waiting tasks that fit into an offer.
func (a *adapter) place(offer *mezzov1.Offer) []*mezzov1.TaskInfo {
	free, err := resource.FromProto(offer.GetResources())
	if err != nil {
		a.logger.Error("an offer cannot be read", "error", err)
		return nil
	}
	var tasks []*mezzov1.TaskInfo
	for free = free.Unallocate(); free.Contains(a.want); free = free.Minus(a.want) {
		id, command, found := a.tasks.next(offer.GetAgentId())
		if !found {
			break
		}
		tasks = append(tasks, &mezzov1.TaskInfo{
			Name: proto.String(id), TaskId: &mezzov1.TaskID{Value: proto.String(id)}, AgentId: offer.GetAgentId(),
			Resources: a.want.ToProto(), Command: &mezzov1.CommandInfo{Value: proto.String(command)},
		})
	}
	return tasks
}

// update notes a task's state. It is acknowledged when this returns.
func (a *adapter) update(ctx context.Context, status *mezzov1.TaskStatus) {
	again := a.tasks.update(status)
	if s := a.connected(); s != nil && again {
		a.complain("reviving", s.Revive(ctx))
	}
}

// complain logs what a call came to. One that met a subscription which was just
// being lost is no failure: Subscribed makes up for it.
func (a *adapter) complain(what string, err error) {
	if err != nil && !errors.Is(err, framework.ErrNotSubscribed) && !errors.Is(err, context.Canceled) {
		a.logger.Error("a call failed", "call", what, "error", err)
	}
}
