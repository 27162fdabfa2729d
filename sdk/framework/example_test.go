package framework_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/mezzo-os/mezzo/sdk/framework"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
)

// docs/framework-authors.md quotes this file; a test holds it to that.

// store is where a framework keeps what it must not forget: a database, or here
// a file.
type store struct{ path string }

func (s store) frameworkID() string {
	text, err := os.ReadFile(s.path)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text))
}

func (s store) saveFrameworkID(id string) error { return os.WriteFile(s.path, []byte(id+"\n"), 0o600) }

func (s store) saveStatus(*mezzov1.TaskStatus) error { return nil }

// A scheduler that may die and come back: it keeps its framework's id, has a
// failover timeout, and acknowledges an update once it has been made durable.
func Example_failover() {
	kept := store{path: "/var/lib/my-framework/id"}
	ctx, cancel := context.WithCancelCause(context.Background())

	info := &mezzov1.FrameworkInfo{
		User: proto.String("nobody"), Name: proto.String("my-framework"), Roles: []string{"services"},
		FailoverTimeout: proto.Float64((24 * time.Hour).Seconds()),
		Capabilities: []*mezzov1.FrameworkInfo_Capability{
			{Type: mezzov1.FrameworkInfo_Capability_MULTI_ROLE.Enum()},
			{Type: mezzov1.FrameworkInfo_Capability_PARTITION_AWARE.Enum()},
		},
	}
	if id := kept.frameworkID(); id != "" {
		info.Id = &mezzov1.FrameworkID{Value: proto.String(id)}
	}
	s, err := framework.New(framework.Options{
		Masters:           []string{"m1:5061", "m2:5061", "m3:5061"},
		Info:              info,
		ManualAcknowledge: true,
		Callbacks: framework.Callbacks{
			Subscribed: func(s *framework.Scheduler, id string, again bool) {
				if err := kept.saveFrameworkID(id); err != nil {
					cancel(err) // without it the next process would be another framework
					return
				}
				if !again {
					s.Reconcile(ctx) // what happened while no process of ours was there
				}
			},
			Update: func(s *framework.Scheduler, status *mezzov1.TaskStatus) {
				if err := kept.saveStatus(status); err != nil {
					return // not acknowledged: it comes again
				}
				s.Acknowledge(ctx, status)
			},
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	err = s.Run(ctx)
	switch {
	case errors.Is(err, framework.ErrEnded):
		log.Fatal("torn down, refused, or taken over by another scheduler: ", err)
	case context.Cause(ctx) != nil:
		log.Fatal(context.Cause(ctx))
	}
}

// replicas keeps a number of tasks running, through partitions.
type replicas struct {
	want     int
	patience time.Duration // with a task that is unreachable
	tasks    map[string]replica
}

type replica struct {
	state mezzov1.TaskState
	since time.Time
}

// update notes a status; the same one may come twice.
func (r *replicas) update(status *mezzov1.TaskStatus, now time.Time) {
	id, state := status.GetTaskId().GetValue(), status.GetState()
	switch known, there := r.tasks[id]; {
	case state.Terminal():
		delete(r.tasks, id)
	case !there || known.state != state:
		r.tasks[id] = replica{state, now}
	}
}

// plan says how many tasks to launch, and which to kill. One that is unreachable
// may still run: it is replaced after a while, and one too many if it comes back.
func (r *replicas) plan(now time.Time) (launch int, kill []string) {
	count := 0
	for _, id := range slices.Sorted(maps.Keys(r.tasks)) {
		t := r.tasks[id]
		switch {
		case t.state == mezzov1.TaskState_TASK_UNREACHABLE && now.Sub(t.since) >= r.patience:
		case count == r.want:
			kill = append(kill, id)
		default:
			count++
		}
	}
	return r.want - count, kill
}

// A framework with the capability PARTITION_AWARE decides itself what becomes of
// tasks whose agent is not heard of.
func Example_partition() {
	r := &replicas{want: 2, patience: 5 * time.Minute, tasks: map[string]replica{}}
	began := time.Date(2026, time.March, 1, 3, 0, 0, 0, time.UTC)
	tell := func(minute int, id string, state mezzov1.TaskState) {
		now := began.Add(time.Duration(minute) * time.Minute)
		r.update(&mezzov1.TaskStatus{TaskId: &mezzov1.TaskID{Value: &id}, State: &state}, now)
		launch, kill := r.plan(now)
		fmt.Println("minute", minute, id, state, "launch", launch, "kill", kill)
	}
	tell(0, "db-1", mezzov1.TaskState_TASK_RUNNING)
	tell(0, "db-2", mezzov1.TaskState_TASK_RUNNING)
	tell(10, "db-1", mezzov1.TaskState_TASK_UNREACHABLE)
	tell(15, "db-2", mezzov1.TaskState_TASK_RUNNING)
	tell(16, "db-3", mezzov1.TaskState_TASK_RUNNING)
	tell(30, "db-1", mezzov1.TaskState_TASK_RUNNING)
	// Output:
	// minute 0 db-1 TASK_RUNNING launch 1 kill []
	// minute 0 db-2 TASK_RUNNING launch 0 kill []
	// minute 10 db-1 TASK_UNREACHABLE launch 0 kill []
	// minute 15 db-2 TASK_RUNNING launch 1 kill []
	// minute 16 db-3 TASK_RUNNING launch 0 kill []
	// minute 30 db-1 TASK_RUNNING launch 0 kill [db-3]
}
