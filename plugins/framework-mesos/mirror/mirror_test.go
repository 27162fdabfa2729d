package mirror_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/mezzo-os/mezzo/plugins/framework-mesos/mirror"
	"github.com/mezzo-os/mezzo/plugins/framework-mesos/mirror/mirrortest"
	"github.com/mezzo-os/mezzo/sdk/metric"
	"github.com/mezzo-os/mezzo/sdk/metric/metrictest"
	operatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/operator/v1"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func run(t testing.TB, master *mirrortest.Master) *mirror.Mirror {
	m, _ := counted(t, master)
	return m
}

// counted is run, and what the mirror counts.
func counted(t testing.TB, master *mirrortest.Master) (*mirror.Mirror, func(name string) float64) {
	t.Helper()
	m, set := mirror.New(master.Client, nil), metric.NewSet()
	m.Ready, m.Feeds, m.Waiting = set.Gauge("ready", "X."), set.Counter("feeds_total", "X."), set.Gauge("queued_bytes", "X.")
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); m.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	return m, func(name string) float64 { v, _ := metrictest.Value(set, name); return v }
}

func agent(id string) *operatorv1.WatchEvent {
	return &operatorv1.WatchEvent{Event: &operatorv1.WatchEvent_AgentDetail{AgentDetail: &operatorv1.AgentDetail{Id: id, State: "active"}}}
}

func framework(id string) *operatorv1.WatchEvent {
	return &operatorv1.WatchEvent{Event: &operatorv1.WatchEvent_FrameworkDetail{FrameworkDetail: &operatorv1.FrameworkDetail{
		State: "active", Info: &mezzov1.FrameworkInfo{
			Name: proto.String(id), User: proto.String("u"), Id: &mezzov1.FrameworkID{Value: proto.String(id)},
		},
	}}}
}

func task(id string, state mezzov1.TaskState) *operatorv1.WatchEvent {
	return &operatorv1.WatchEvent{Event: &operatorv1.WatchEvent_TaskDetail{TaskDetail: &operatorv1.TaskDetail{Task: &mezzov1.Task{
		Name: proto.String(id), TaskId: &mezzov1.TaskID{Value: proto.String(id)}, FrameworkId: &mezzov1.FrameworkID{Value: proto.String("f")},
		AgentId: &mezzov1.AgentID{Value: proto.String("a")}, State: state.Enum(),
	}}}}
}

// next waits for changes.
func next(t *testing.T, s *mirror.Subscription) ([]*mirror.Change, error) {
	ctx := patient(t)
	for {
		if changes, err := s.Take(); len(changes) > 0 || err != nil {
			return changes, err
		}
		select {
		case <-s.Ready():
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func patient(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), mirrortest.Patience)
	t.Cleanup(cancel)
	return ctx
}

// Whoever reads sees all that the master knew before, at once; and what it has
// is not changed by what comes after.
func TestReadHasWhatTheMasterHad(t *testing.T) {
	master := mirrortest.Start(t, nil)
	master.Tell(agent("a"), framework("f"))
	m := run(t, master)
	before, err := m.Read(patient(t))
	if err != nil {
		t.Fatal(err)
	}
	if len(before.Agents) != 1 || len(before.Frameworks) != 1 || before.Agent("a") == nil || before.Framework("f") == nil {
		t.Fatalf("the snapshot has %d agents and %d frameworks", len(before.Agents), len(before.Frameworks))
	}
	for i := range 100 {
		master.Tell(task(fmt.Sprint("t", i), mezzov1.TaskState_TASK_RUNNING))
		now, err := m.Read(patient(t))
		if err != nil {
			t.Fatal(err)
		}
		if got := len(now.Framework("f").Tasks); got != i+1 {
			t.Fatalf("after %d tasks there are %d", i+1, got)
		}
	}
	if got := len(before.Framework("f").Tasks); got != 0 {
		t.Errorf("an old snapshot has %d tasks now", got)
	}
	master.Tell(
		&operatorv1.WatchEvent{Event: &operatorv1.WatchEvent_TaskRemoved{TaskRemoved: &operatorv1.TaskKey{FrameworkId: "f", TaskId: "t0"}}},
		&operatorv1.WatchEvent{Event: &operatorv1.WatchEvent_AgentRemoved{AgentRemoved: "a"}},
	)
	now, err := m.Read(patient(t))
	if err != nil {
		t.Fatal(err)
	}
	if len(now.Framework("f").Tasks) != 99 || len(now.Agents) != 0 || now.Agent("a") != nil || before.Agent("a") == nil {
		t.Errorf("after removals there are %d tasks, %d agents", len(now.Framework("f").Tasks), len(now.Agents))
	}
}

// A subscription misses no change and sees none twice, whenever it begins.
func TestSubscriptionIsWhole(t *testing.T) {
	master := mirrortest.Start(t, nil)
	master.Tell(framework("f"))
	m := run(t, master)
	const tasks = 300
	var telling sync.WaitGroup
	telling.Go(func() {
		for i := range tasks {
			master.Tell(task(fmt.Sprint("t", i), mezzov1.TaskState_TASK_RUNNING))
		}
	})
	for range 5 {
		s, err := m.Subscribe(patient(t), 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		seen := len(s.Snapshot.Framework("f").Tasks)
		for seen < tasks {
			changes, err := next(t, s)
			if err != nil {
				t.Fatal(err)
			}
			for _, c := range changes {
				if want := fmt.Sprint("t", seen); c.Task.GetTask().GetName() != want || c.OldTask != nil {
					t.Fatalf("%v came, want %s for the first time", c.Task, want)
				}
				seen++
			}
		}
		s.Close()
	}
	telling.Wait()
}

// When the feed breaks it is begun again; subscriptions end, and what was missed
// is there.
func TestBrokenFeed(t *testing.T) {
	for _, c := range []struct {
		name string
		code codes.Code
		kept bool
	}{{"cut since it was slow", codes.ResourceExhausted, true}, {"the master stopped leading", codes.Unavailable, false}} {
		t.Run(c.name, func(t *testing.T) {
			master := mirrortest.Start(t, nil)
			master.Tell(agent("a"))
			m, count := counted(t, master)
			s, err := m.Subscribe(patient(t), 1<<20)
			if err != nil {
				t.Fatal(err)
			}
			master.Break(status.Error(c.code, "broken"))
			if _, err := next(t, s); !errors.Is(err, mirror.ErrNotReady) {
				t.Errorf("the subscription ended with %v", err)
			}
			if c.kept {
				if _, err := m.Read(patient(t)); err != nil {
					t.Errorf("what there was cannot be read: %v", err)
				}
			} else {
				master.SetStatus(func(s *operatorv1.Status) { s.Leadership = "standby" })
				if _, err := m.Read(patient(t)); !errors.Is(err, mirror.ErrNotReady) {
					t.Errorf("a master that does not lead is read: %v", err)
				}
				master.SetStatus(func(s *operatorv1.Status) { s.Leadership = "leading" })
			}
			master.Tell(agent("b"))
			master.Break(nil)
			now, err := m.Read(patient(t))
			if err != nil {
				t.Fatal(err)
			}
			if len(now.Agents) != 2 {
				t.Errorf("there are %d agents", len(now.Agents))
			}
			if count("ready") != 1 || count("feeds_total") < 2 {
				t.Errorf("ready %v, after %v feeds", count("ready"), count("feeds_total"))
			}
		})
	}
}

// Who does not take is cut off; others are not.
func TestSlowSubscriber(t *testing.T) {
	master := mirrortest.Start(t, nil)
	m, count := counted(t, master)
	slow, err := m.Subscribe(patient(t), 1000)
	if err != nil {
		t.Fatal(err)
	}
	quick, err := m.Subscribe(patient(t), 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 100 {
		master.Tell(agent(fmt.Sprint("agent-with-a-long-name-", i)))
	}
	for seen := 0; seen < 100; {
		changes, err := next(t, quick)
		if err != nil {
			t.Fatal(err)
		}
		seen += len(changes)
	}
	if _, err := next(t, slow); !errors.Is(err, mirror.ErrTooSlow) {
		t.Errorf("the slow one ended with %v", err)
	}
	if n := count("queued_bytes"); n != 0 {
		t.Errorf("%v bytes wait for nobody", n)
	}
	master.Tell(agent("another"))
	for list, err := quick.Take(); len(list) == 0; list, err = quick.Take() { // it waits until it is taken
		if err != nil {
			t.Fatal(err)
		}
		<-quick.Ready()
	}
	quick.Close()
	if n := count("queued_bytes"); n != 0 {
		t.Errorf("%v bytes wait for one that is closed", n)
	}
}

// Readers of a large cluster while it changes: none waits long, and the feed
// goes on. With -bench it tells what a snapshot costs.
func BenchmarkRead(b *testing.B) {
	master := mirrortest.Start(b, nil)
	master.Tell(framework("f"))
	for i := range 100_000 {
		master.Tell(task(fmt.Sprint("t", i), mezzov1.TaskState_TASK_RUNNING))
	}
	m := run(b, master)
	if _, err := m.Read(patient(b)); err != nil {
		b.Fatal(err)
	}
	var worst time.Duration
	for b.Loop() {
		master.Tell(task("t5", mezzov1.TaskState_TASK_RUNNING))
		began := time.Now()
		if _, err := m.Read(patient(b)); err != nil {
			b.Fatal(err)
		}
		worst = max(worst, time.Since(began))
	}
	b.ReportMetric(float64(worst.Milliseconds()), "worst-ms")
}
