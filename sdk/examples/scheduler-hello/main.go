// Scheduler-hello is a framework as small as it can be: it runs some tasks that
// say hello, one after the other or at once as offers allow, and exits 0 when
// all have finished.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"os/user"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/mezzo-os/mezzo/sdk/framework"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
	"github.com/mezzo-os/mezzo/sdk/resource"
)

func main() {
	masters := flag.String("masters", "127.0.0.1:5061", "the masters' addresses, with commas between them")
	tasks := flag.Int("tasks", 3, "how many tasks to run")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, strings.Split(*masters, ","), *tasks); err != nil {
		fmt.Fprintln(os.Stderr, "scheduler-hello:", err)
		os.Exit(1)
	}
}

// hello is what the framework knows. Only callbacks use it, one at a time.
type hello struct {
	ctx      context.Context
	end      context.CancelCauseFunc
	want     resource.Resources
	launched int
	finished map[string]bool // by id: an update may come twice
	tasks    int
}

func run(ctx context.Context, masters []string, tasks int) error {
	want, err := resource.Parse("cpus:0.1;mem:32")
	if err != nil {
		return err
	}
	me, err := user.Current()
	if err != nil {
		return err
	}
	ctx, end := context.WithCancelCause(ctx)
	h := &hello{ctx: ctx, end: end, want: want, tasks: tasks, finished: map[string]bool{}}
	s, err := framework.New(framework.Options{
		Masters: masters,
		Info: &mezzov1.FrameworkInfo{
			User: proto.String(me.Username), Name: proto.String("hello"), Roles: []string{"*"},
			Capabilities: []*mezzov1.FrameworkInfo_Capability{{Type: mezzov1.FrameworkInfo_Capability_MULTI_ROLE.Enum()}},
		},
		Callbacks: framework.Callbacks{Offers: h.offers, Update: h.update},
	})
	if err != nil {
		return err
	}
	err = s.Run(ctx)
	if cause := context.Cause(ctx); !errors.Is(cause, errDone) {
		return errors.Join(err, cause)
	}
	return nil
}

var errDone = errors.New("all tasks have finished")

// offers fills each offer with as many tasks as fit and are still to be run.
func (h *hello) offers(s *framework.Scheduler, offers []*mezzov1.Offer) {
	for _, offer := range offers {
		free, err := resource.FromProto(offer.GetResources())
		if err != nil {
			h.end(err)
			return
		}
		free = free.Unallocate()
		var tasks []*mezzov1.TaskInfo
		for ; h.launched < h.tasks && free.Contains(h.want); h.launched++ {
			free = free.Minus(h.want)
			id := fmt.Sprintf("hello-%d", h.launched)
			tasks = append(tasks, &mezzov1.TaskInfo{
				Name: proto.String(id), TaskId: &mezzov1.TaskID{Value: proto.String(id)},
				Resources: h.want.ToProto(),
				Command:   &mezzov1.CommandInfo{Value: proto.String("echo hello from " + id)},
			})
		}
		if len(tasks) == 0 {
			err = s.Decline(h.ctx, nil, offer.GetId())
		} else {
			err = s.Launch(h.ctx, offer, tasks...)
		}
		if err != nil && !errors.Is(err, framework.ErrNotSubscribed) {
			h.end(err)
		}
	}
}

// update counts what has finished. Any other end of a task is a failure.
func (h *hello) update(s *framework.Scheduler, status *mezzov1.TaskStatus) {
	id := status.GetTaskId().GetValue()
	fmt.Println(id, status.GetState())
	switch status.GetState() {
	case mezzov1.TaskState_TASK_STAGING, mezzov1.TaskState_TASK_STARTING, mezzov1.TaskState_TASK_RUNNING:
	case mezzov1.TaskState_TASK_FINISHED:
		if h.finished[id] = true; len(h.finished) < h.tasks {
			return
		}
		if err := s.Teardown(h.ctx); err != nil {
			h.end(err)
			return
		}
		h.end(errDone)
	default:
		h.end(fmt.Errorf("task %s ended as %s: %s", id, status.GetState(), status.GetMessage()))
	}
}
