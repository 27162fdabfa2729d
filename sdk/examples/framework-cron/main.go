// Framework-cron is a framework within an adapter, as small as it can be: it
// runs commands at intervals, on whatever agent has room, and says over HTTP how
// often each has run. The cluster has a scheduler, and no machine of its own is
// needed for it.
//
//	framework "cron" {
//	  path = "/usr/local/lib/mezzo-framework-cron"
//	  config {
//	    job "hello" {
//	      every   = "1m"
//	      command = "echo hello"
//	    }
//	  }
//	}
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/mezzo-os/mezzo/sdk/framework"
	"github.com/mezzo-os/mezzo/sdk/plugin"
	frameworkv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/framework/v1"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
	"github.com/mezzo-os/mezzo/sdk/resource"
)

type config struct {
	Listen string `hcl:"listen" default:"127.0.0.1:0" help:"Where GET / tells of the jobs."`
	User   string `hcl:"user" default:"root" help:"Who the commands run as."`
	Jobs   []job  `hcl:"job,block" help:"What is to be run."`
}

type job struct {
	Name    string        `hcl:"name,label" help:"Its name."`
	Every   time.Duration `hcl:"every" required:"true" help:"How often it begins."`
	Command string        `hcl:"command" required:"true" help:"What a shell is given."`
}

func (j job) Validate() []plugin.Diagnostic {
	switch {
	case j.Every < time.Second:
		return []plugin.Diagnostic{plugin.Errorf("Too often", "every", "A job may begin once a second at most.")}
	case strings.Contains(j.Name, "."):
		return []plugin.Diagnostic{plugin.Errorf("Bad name", "", "A job's name has no dots.")}
	}
	return nil
}

func main() {
	framework.Serve(framework.Definition{
		Name: "cron", Version: "1.0.0", Summary: "Runs commands at intervals.",
		NewConfig: func() any { return new(config) },
		New: func(c any, _ plugin.Environment) (framework.Adapter, []plugin.Diagnostic) {
			return &cron{config: c.(*config), began: map[string]time.Time{}, Runs: map[string]int{}}, nil
		},
	})
}

// cron is the adapter, and the framework.
type cron struct {
	config  *config
	core    *framework.Core
	server  http.Server
	running sync.WaitGroup

	mu    sync.Mutex
	began map[string]time.Time // by job: the newest
	Runs  map[string]int       // by job: how many have finished
}

func (c *cron) Serve(ctx context.Context, core *framework.Core) (*framework.Serving, error) {
	if core.Side != framework.Master {
		return nil, errors.New("it has nothing to do at an agent; write its block in the master block")
	}
	listener, err := core.Listen(ctx, "cron", c.config.Listen)
	if err != nil {
		return nil, err
	}
	c.core = core
	c.server.Handler = http.HandlerFunc(c.tell)
	c.server.BaseContext = func(net.Listener) context.Context { return ctx }
	c.running.Go(func() { c.server.Serve(listener) })
	c.running.Go(func() { c.schedule(ctx) })
	return &framework.Serving{Endpoints: map[string]string{"cron": listener.Addr().String()}}, nil
}

func (c *cron) Shutdown(ctx context.Context) {
	c.server.Shutdown(ctx)
	c.running.Wait()
}

// tell answers how often each job has run.
func (c *cron) tell(w http.ResponseWriter, _ *http.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	json.NewEncoder(w).Encode(c)
}

// schedule is the framework, for as long as the adapter lives. At a master that
// does not lead it waits.
func (c *cron) schedule(ctx context.Context) {
	for ctx.Err() == nil {
		if err := c.subscribe(ctx); err != nil {
			c.core.Logger.Info("not scheduling", "reason", err)
		}
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
		}
	}
}

// frameworkKey is where the core keeps the framework's id, so that the next
// process, or the next leader's, goes on as the same framework.
const frameworkKey = "framework"

func (c *cron) subscribe(ctx context.Context) error {
	kept, err := c.core.Store().Get(ctx, &frameworkv1.GetRequest{Key: frameworkKey})
	if err != nil {
		return err // Unavailable: this master does not lead
	}
	info := &mezzov1.FrameworkInfo{
		User: proto.String(c.config.User), Name: proto.String("cron"), Roles: []string{"*"},
		FailoverTimeout: proto.Float64((7 * 24 * time.Hour).Seconds()),
		Capabilities:    []*mezzov1.FrameworkInfo_Capability{{Type: mezzov1.FrameworkInfo_Capability_MULTI_ROLE.Enum()}},
	}
	if id := kept.GetValue(); len(id) > 0 {
		info.Id = &mezzov1.FrameworkID{Value: proto.String(string(id))}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	s, err := framework.New(framework.Options{
		Master: c.core.Conn, Info: info,
		Callbacks: framework.Callbacks{
			Subscribed: func(_ *framework.Scheduler, id string, _ bool) {
				_, err := c.core.Store().Put(ctx, &frameworkv1.PutRequest{Key: frameworkKey, Value: []byte(id), Version: kept.GetVersion()})
				if err != nil && status.Code(err) != codes.Aborted { // it has been kept before
					cancel(fmt.Errorf("the framework's id cannot be kept: %w", err))
				}
			},
			Offers: func(s *framework.Scheduler, offers []*mezzov1.Offer) { c.offers(ctx, s, offers) },
			Update: c.update,
		},
	})
	if err != nil {
		return err
	}
	return errors.Join(s.Run(ctx), context.Cause(ctx))
}

var room = resource.MustParse("cpus:0.1;mem:32")

// offers starts what is due, one job an offer, and declines the others for a
// second.
func (c *cron) offers(ctx context.Context, s *framework.Scheduler, offers []*mezzov1.Offer) {
	for _, offer := range offers {
		var task *mezzov1.TaskInfo
		free, err := resource.FromProto(offer.GetResources())
		if err == nil && free.Unallocate().Contains(room) {
			task = c.due(offer, time.Now())
		}
		if task != nil {
			err = s.Launch(ctx, offer, task)
		} else {
			err = s.Decline(ctx, &mezzov1.Filters{RefuseSeconds: proto.Float64(1)}, offer.GetId())
		}
		if err != nil {
			c.core.Logger.Warn("an offer was not answered", "error", err)
		}
	}
}

// due is the task of the first job that is due; nil when none is.
func (c *cron) due(offer *mezzov1.Offer, now time.Time) *mezzov1.TaskInfo {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, j := range c.config.Jobs {
		if now.Sub(c.began[j.Name]) < j.Every {
			continue
		}
		c.began[j.Name] = now
		return &mezzov1.TaskInfo{
			Name: proto.String(j.Name), TaskId: &mezzov1.TaskID{Value: proto.String(fmt.Sprintf("%s.%d", j.Name, now.UnixNano()))},
			AgentId: offer.GetAgentId(), Resources: room.ToProto(), Command: &mezzov1.CommandInfo{Value: proto.String(j.Command)},
		}
	}
	return nil
}

// update counts what has finished.
func (c *cron) update(_ *framework.Scheduler, s *mezzov1.TaskStatus) {
	name, _, _ := strings.Cut(s.GetTaskId().GetValue(), ".")
	if s.GetState() == mezzov1.TaskState_TASK_FINISHED {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.Runs[name]++
	}
}
