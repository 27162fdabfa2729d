package test

import (
	"context"
	"os"
	"os/user"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/mezzo-os/mezzo/sdk/framework"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
	"github.com/mezzo-os/mezzo/sdk/resource"
)

// database is a framework that accepts an offer as the test wants it, and keeps
// what it hears.
type database struct {
	t  *testing.T
	s  *framework.Scheduler
	mu sync.Mutex
	// wanted says what to do with an offer; nil, or no operations: decline it.
	wanted     func(*mezzov1.Offer) []*mezzov1.Offer_Operation
	updates    map[string][]*mezzov1.TaskStatus
	operations map[string]*mezzov1.OperationStatus
}

func newDatabase(t *testing.T, master string) *database {
	t.Helper()
	return newDatabaseAs(t, master, os.Getuid())
}

// newDatabaseAs is one whose tasks run as a user.
func newDatabaseAs(t *testing.T, master string, uid int) *database {
	t.Helper()
	me, err := user.LookupId(strconv.Itoa(uid))
	if err != nil {
		t.Fatal(err)
	}
	d := &database{t: t, updates: map[string][]*mezzov1.TaskStatus{}, operations: map[string]*mezzov1.OperationStatus{}}
	info := &mezzov1.FrameworkInfo{
		User: proto.String(me.Username), Name: proto.String("database"), Roles: []string{"db"}, FailoverTimeout: proto.Float64(3600),
	}
	d.s = runScheduler(t, master, info, framework.Callbacks{Offers: d.offers, Update: d.update, OperationUpdate: d.operated},
		mezzov1.FrameworkInfo_Capability_MULTI_ROLE, mezzov1.FrameworkInfo_Capability_SHARED_RESOURCES, mezzov1.FrameworkInfo_Capability_RESERVATION_REFINEMENT)
	return d
}

func (d *database) offers(s *framework.Scheduler, offers []*mezzov1.Offer) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, o := range offers {
		var ops []*mezzov1.Offer_Operation
		if d.wanted != nil {
			ops = d.wanted(o)
		}
		if len(ops) == 0 {
			_ = s.Decline(context.Background(), refuse(0), o.GetId())
			continue
		}
		d.wanted = nil
		for _, op := range ops {
			for _, task := range append(op.GetLaunch().GetTaskInfos(), op.GetLaunchGroup().GetTaskGroup().GetTasks()...) {
				task.AgentId = o.GetAgentId()
			}
			if group := op.GetLaunchGroup(); group != nil {
				group.Executor.FrameworkId = o.GetFrameworkId()
			}
		}
		_ = s.Accept(context.Background(), []*mezzov1.OfferID{o.GetId()}, ops, refuse(0))
	}
}

func (d *database) update(_ *framework.Scheduler, s *mezzov1.TaskStatus) {
	d.mu.Lock()
	defer d.mu.Unlock()
	id := s.GetTaskId().GetValue()
	d.updates[id] = append(d.updates[id], s)
}

func (d *database) operated(_ *framework.Scheduler, s *mezzov1.OperationStatus) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.operations[s.GetOperationId().GetValue()] = s
}

// with does what is wanted with the next offer that has all of need.
func (d *database) with(need []*mezzov1.Resource, ops ...*mezzov1.Offer_Operation) {
	d.t.Helper()
	want, err := resource.FromProto(need)
	if err != nil {
		d.t.Fatal(err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.wanted = func(o *mezzov1.Offer) []*mezzov1.Offer_Operation {
		if have, err := resource.FromProto(o.GetResources()); err != nil || !have.Unallocate().Contains(want) {
			return nil
		}
		return ops
	}
}

// reaches waits for a task to come to a state.
func (d *database) reaches(id string, state mezzov1.TaskState) {
	d.t.Helper()
	eventually(d.t, "task "+id+" to be "+state.String(), func() bool {
		d.mu.Lock()
		defer d.mu.Unlock()
		return slices.ContainsFunc(d.updates[id], func(s *mezzov1.TaskStatus) bool {
			if s.GetState() != state && s.GetState() >= mezzov1.TaskState_TASK_FINISHED && s.GetState() != mezzov1.TaskState_TASK_STAGING &&
				s.GetState() != mezzov1.TaskState_TASK_KILLING {
				d.t.Fatalf("task %s is %v", id, s)
			}
			return s.GetState() == state
		})
	})
}

// finishes waits for an operation to be done.
func (d *database) finishes(id string) {
	d.t.Helper()
	eventually(d.t, "operation "+id+" to be done", func() bool {
		d.mu.Lock()
		defer d.mu.Unlock()
		return d.operations[id].GetState() == mezzov1.OperationState_OPERATION_FINISHED
	})
}

// dbTask is a task on a volume, with 0.1 CPUs.
func dbTask(id, script string, volumes ...*mezzov1.Resource) *mezzov1.TaskInfo {
	task := shellTask(id, script)
	task.Resources = append(resource.MustParse("cpus:0.1;mem:16").ToProto(), volumes...)
	return task
}

// A database: reserved, created and launched in one call; its data is there when
// it comes again, also after its agent and master were killed.
func TestRunDatabaseOnItsVolume(t *testing.T) {
	t.Parallel()
	c := startDev(t)
	d := newDatabase(t, c.fields["rpc"])
	disk := framework.Reserved("db", "", framework.Disk(64))
	volume := framework.PersistentVolume(disk[0], "data", "data", "")
	write := "echo precious >> data/rows && cat data/rows && sleep 600"
	d.with(needs("cpus:0.1;mem:16;disk:64"),
		framework.Reserve("reserve-1", disk...), framework.CreateVolumes("create-1", volume), framework.LaunchTasks(dbTask("db-1", write, volume)))
	d.finishes("reserve-1")
	d.finishes("create-1")
	d.reaches("db-1", mezzov1.TaskState_TASK_RUNNING)

	if r := c.mezzo("volume", "list"); r.code != 0 || !strings.Contains(r.stdout, "data") || !strings.Contains(r.stdout, "db-1") {
		t.Errorf("mezzo volume list: %+v", r)
	}
	if r := c.mezzo("volume", "destroy", "S0", "data", "--yes"); r.code == 0 || !strings.Contains(r.stderr, "in use by task db-1") {
		t.Errorf("a volume in use was destroyed, or the reason is not given: %+v", r)
	}
	if err := d.s.Kill(context.Background(), "db-1", nil); err != nil {
		t.Fatal(err)
	}
	d.reaches("db-1", mezzov1.TaskState_TASK_KILLED)

	read := "grep -c precious data/rows && echo precious >> data/rows && sleep 600"
	d.with([]*mezzov1.Resource{volume}, framework.LaunchTasks(dbTask("db-2", read, volume)))
	d.reaches("db-2", mezzov1.TaskState_TASK_RUNNING)
	if out := c.mezzo("logs", "db-2").stdout; strings.TrimSpace(out) != "1" {
		eventually(t, "the second run to have found the first's row", func() bool {
			return strings.TrimSpace(c.mezzo("logs", "db-2").stdout) == "1"
		})
	}
	for _, who := range []string{"agent1", "master"} {
		c.killChild(who)
		c.startAgain(who)
	}
	eventually(t, "the cluster to be whole again", func() bool {
		r := c.mezzo("volume", "list")
		return r.code == 0 && strings.Contains(r.stdout, "db-2")
	})
	if err := d.s.Kill(context.Background(), "db-2", nil); err != nil {
		t.Log(err) // not subscribed again yet
		eventually(t, "the scheduler to call again", func() bool { return d.s.Kill(context.Background(), "db-2", nil) == nil })
	}
	d.reaches("db-2", mezzov1.TaskState_TASK_KILLED)
	d.with([]*mezzov1.Resource{volume}, framework.LaunchTasks(dbTask("db-3", "test $(grep -c precious data/rows) = 2", volume)))
	d.reaches("db-3", mezzov1.TaskState_TASK_FINISHED)

	d.with([]*mezzov1.Resource{volume}, framework.DestroyVolumes("destroy-1", volume), framework.Unreserve("unreserve-1", disk...))
	d.finishes("destroy-1")
	d.finishes("unreserve-1")
	if r := c.mezzo("volume", "list"); !strings.Contains(r.stdout, "no persistent volumes") {
		t.Errorf("after DESTROY: %+v", r)
	}
}

// Two tasks write to one shared volume at the same time.
func TestRunTwoTasksOnASharedVolume(t *testing.T) {
	t.Parallel()
	c := startDev(t)
	for _, args := range [][]string{
		{"reserve", "S0", "disk:100", "--role", "db"},
		{"volume", "create", "S0", "both", "--role", "db", "--size", "32", "--path", "common", "--shared"},
	} {
		if r := c.mezzo(args...); r.code != 0 {
			t.Fatalf("mezzo %v: %+v", args, r)
		}
	}
	d := newDatabase(t, c.fields["rpc"])
	volume := framework.Shared(framework.PersistentVolume(framework.Reserved("db", "", framework.Disk(32))[0], "both", "common", ""))
	meet := func(me, other string) string {
		return "touch common/" + me + "; for i in $(seq 900); do test -e common/" + other + " && exit 0; sleep 0.1; done; exit 1"
	}
	d.with([]*mezzov1.Resource{volume}, framework.LaunchTasks(dbTask("left", meet("left", "right"), volume)))
	d.reaches("left", mezzov1.TaskState_TASK_RUNNING)
	d.with([]*mezzov1.Resource{volume}, framework.LaunchTasks(dbTask("right", meet("right", "left"), volume)))
	d.reaches("left", mezzov1.TaskState_TASK_FINISHED)
	d.reaches("right", mezzov1.TaskState_TASK_FINISHED)
	if r := c.mezzo("volume", "destroy", "S0", "both", "--yes"); r.code != 0 {
		t.Errorf("mezzo volume destroy: %+v", r)
	}
	if r := c.mezzo("unreserve", "S0", "disk:100", "--role", "db"); r.code != 0 {
		t.Errorf("mezzo unreserve: %+v", r)
	}
}

func needs(text string) []*mezzov1.Resource { return resource.MustParse(text).ToProto() }
