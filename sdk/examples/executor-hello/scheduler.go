package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/user"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/mezzo-os/mezzo/sdk/framework"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
	schedulerv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1/scheduler"
	"github.com/mezzo-os/mezzo/sdk/resource"
)

// hello is what the scheduler knows. Only callbacks use it, one at a time.
type hello struct {
	ctx      context.Context
	end      context.CancelCauseFunc
	program  string // this binary
	every    time.Duration
	tasks    int
	launched bool
	finished map[string]bool // by id: an update may come twice
	greeted  bool            // the executor was
	answered bool
}

var errDone = errors.New("all tasks have finished, and the executor has answered")

func runScheduler(ctx context.Context, masters []string, tasks int, every time.Duration) error {
	program, err := os.Executable()
	if err != nil {
		return err
	}
	me, err := user.Current()
	if err != nil {
		return err
	}
	ctx, end := context.WithCancelCause(ctx)
	h := &hello{ctx: ctx, end: end, program: program, every: every, tasks: tasks, finished: map[string]bool{}}
	s, err := framework.New(framework.Options{
		Masters: masters,
		Info: &mezzov1.FrameworkInfo{
			User: proto.String(me.Username), Name: proto.String("executor-hello"), Roles: []string{"*"},
			Capabilities: []*mezzov1.FrameworkInfo_Capability{{Type: mezzov1.FrameworkInfo_Capability_MULTI_ROLE.Enum()}},
		},
		Callbacks: framework.Callbacks{Offers: h.offers, Update: h.update, Message: h.message, Failure: h.failure},
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

// offers launches all tasks, under one executor, on the first offer that has
// room for them.
func (h *hello) offers(s *framework.Scheduler, offers []*mezzov1.Offer) {
	task := resource.MustParse("cpus:0.1;mem:16")
	own := resource.MustParse("cpus:0.1;mem:64")
	for _, offer := range offers {
		free, err := resource.FromProto(offer.GetResources())
		if err != nil {
			h.end(err)
			return
		}
		need := own
		for range h.tasks {
			need = need.Add(task)
		}
		if h.launched || !free.Unallocate().Contains(need) {
			err = s.Decline(h.ctx, nil, offer.GetId())
		} else {
			h.launched = true
			err = s.Launch(h.ctx, offer, h.infos(task, own)...)
		}
		if err != nil && !errors.Is(err, framework.ErrNotSubscribed) {
			h.end(err)
		}
	}
}

// infos are the tasks. That all name the same executor makes them share it.
func (h *hello) infos(task, own resource.Resources) []*mezzov1.TaskInfo {
	info := &mezzov1.ExecutorInfo{
		Type: mezzov1.ExecutorInfo_CUSTOM.Enum(), ExecutorId: &mezzov1.ExecutorID{Value: proto.String("counter")}, Name: proto.String("counter"),
		Command: &mezzov1.CommandInfo{
			Shell: proto.Bool(false), Value: proto.String(h.program), Arguments: []string{h.program, "-executor", "-count", h.every.String()},
		},
		Resources: own.ToProto(),
	}
	var list []*mezzov1.TaskInfo
	for n := range h.tasks {
		id := fmt.Sprintf("count-%d", n)
		list = append(list, &mezzov1.TaskInfo{
			Name: proto.String(id), TaskId: &mezzov1.TaskID{Value: proto.String(id)}, Resources: task.ToProto(), Executor: info,
		})
	}
	return list
}

// update counts what has finished. Any other end of a task is a failure.
func (h *hello) update(s *framework.Scheduler, status *mezzov1.TaskStatus) {
	id := status.GetTaskId().GetValue()
	fmt.Println(id, status.GetState())
	switch status.GetState() {
	case mezzov1.TaskState_TASK_RUNNING:
		if !h.greeted {
			h.greeted = true
			s.Send(&schedulerv1.Call{Type: schedulerv1.Call_MESSAGE.Enum(), Message: &schedulerv1.Call_Message{
				AgentId: status.GetAgentId(), ExecutorId: status.GetExecutorId(), Data: []byte("hello"),
			}})
		}
	case mezzov1.TaskState_TASK_STAGING, mezzov1.TaskState_TASK_STARTING:
	case mezzov1.TaskState_TASK_FINISHED:
		h.finished[id] = true
		h.done(s)
	default:
		h.end(fmt.Errorf("task %s ended as %s: %s", id, status.GetState(), status.GetMessage()))
	}
}

func (h *hello) message(s *framework.Scheduler, m *schedulerv1.Event_Message) {
	fmt.Printf("executor: %s\n", m.GetData())
	h.answered = true
	h.done(s)
}

func (h *hello) failure(_ *framework.Scheduler, f *schedulerv1.Event_Failure) {
	fmt.Printf("executor %s has ended, status %d\n", f.GetExecutorId().GetValue(), f.GetStatus())
}

// done tears the framework down, and the executor with it, when all is done.
func (h *hello) done(s *framework.Scheduler) {
	if !h.answered || len(h.finished) < h.tasks {
		return
	}
	if err := s.Teardown(h.ctx); err != nil {
		h.end(err)
		return
	}
	h.end(errDone)
}
