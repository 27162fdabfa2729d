package master

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mezzo-os/mezzo/core/master/state"
	"github.com/mezzo-os/mezzo/core/registry"
	"github.com/mezzo-os/mezzo/core/rpc"
	operatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/operator/v1"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
)

func TestSlowWatcherIsCut(t *testing.T) {
	m := newMirror()
	slow, quick := newWatcher(wants{}), newWatcher(wants{})
	m.snapshot(slow)
	m.snapshot(quick)
	text := strings.Repeat("x", 1<<20)
	read := 0
	for i := range 2 * watchQueue >> 20 {
		m.apply(&change{publish: state.Publish{Agents: []*state.AgentView{{ID: fmt.Sprint("a", i), Hostname: text}}}})
		read += len(quick.take().events)
	}
	select {
	case <-slow.over:
		if !errors.Is(slow.why, rpc.ErrExhausted) {
			t.Errorf("it was cut with %v", slow.why)
		}
	default:
		t.Error("the slow watcher was not cut")
	}
	select {
	case <-quick.over:
		t.Errorf("the quick watcher was cut: %v", quick.why)
	default:
	}
	if read != 2*watchQueue>>20 {
		t.Errorf("the quick watcher got %d events", read)
	}
	if slow.bytes > watchQueue {
		t.Errorf("%d bytes wait for the slow one", slow.bytes)
	}
	if len(m.watchers) != 1 {
		t.Errorf("the mirror has %d watchers", len(m.watchers))
	}
}

func TestMirrorCounts(t *testing.T) {
	m := newMirror()
	key := state.TaskKey{FrameworkID: "f", TaskID: "t"}
	set := func(s mezzov1.TaskState) {
		m.apply(&change{publish: state.Publish{Tasks: []*state.TaskView{{TaskKey: key, State: s}}}})
	}
	expect := func(total, active, running uint64) {
		t.Helper()
		var s operatorv1.Status
		m.counts(&s)
		if s.Tasks.Total != total || s.Tasks.Active != active || s.Tasks.Running != running {
			t.Errorf("tasks are %v, want total %d, active %d, running %d", s.Tasks, total, active, running)
		}
	}
	set(mezzov1.TaskState_TASK_STAGING)
	expect(1, 1, 0)
	set(mezzov1.TaskState_TASK_RUNNING)
	expect(1, 1, 1)
	set(mezzov1.TaskState_TASK_FINISHED)
	expect(1, 0, 0)
	m.apply(&change{publish: state.Publish{TasksRemoved: []state.TaskKey{key, key}}})
	expect(0, 0, 0)
	set(mezzov1.TaskState_TASK_RUNNING)
	m.apply(&change{reset: true})
	expect(0, 0, 0)
}

func TestInboxMakesPeersWait(t *testing.T) {
	b := newInbox()
	if err := b.put("large", inboxLimit); err != nil {
		t.Fatal(err)
	}
	if err := b.post("a completion"); err != nil { // never waits
		t.Fatal(err)
	}
	var wait sync.WaitGroup
	second := make(chan error, 1)
	wait.Go(func() { second <- b.put("second", 1) })
	select {
	case <-second:
		t.Error("it did not wait for room")
	case <-time.After(20 * time.Millisecond):
	}
	if got := b.take(nil); len(got) != 2 || got[0].input != "large" || got[1].input != "a completion" {
		t.Errorf("took %v", got)
	}
	if err := <-second; err != nil {
		t.Error(err)
	}
	if got := b.take(nil); len(got) != 1 || got[0].input != "second" {
		t.Errorf("took %v", got)
	}
	// Whoever waits when leadership ends is told so.
	if err := b.put("large", inboxLimit); err != nil {
		t.Fatal(err)
	}
	wait.Go(func() { second <- b.put("third", 1) })
	b.close()
	if err := <-second; !errors.Is(err, errStopped) {
		t.Errorf("after close: %v", err)
	}
	wait.Wait()
}

func TestProgressNoticesAnAllocatorThatTakesNothingIn(t *testing.T) {
	var p progress
	now := time.Unix(1000, 0)
	after := func(d time.Duration) time.Time { return now.Add(d) }
	if d := p.stuck(after(time.Hour)); d != 0 {
		t.Errorf("idle for an hour is stuck for %s", d)
	}
	p.send(10, now)
	if d := p.stuck(after(time.Minute)); d != time.Minute {
		t.Errorf("stuck for %s, want a minute", d)
	}
	p.confirm(5, false, after(time.Minute)) // slow, but it moves
	if d := p.stuck(after(90 * time.Second)); d != 30*time.Second {
		t.Errorf("stuck for %s, want 30s", d)
	}
	p.confirm(5, false, after(2*time.Minute)) // no progress
	if d := p.stuck(after(3 * time.Minute)); d != 2*time.Minute {
		t.Errorf("stuck for %s, want 2m", d)
	}
	p.confirm(10, false, after(3*time.Minute))
	if d := p.stuck(after(time.Hour)); d != 0 {
		t.Errorf("stuck for %s after all was confirmed", d)
	}
}

// A loop whose registry says that another leads ends its term.
func TestSupersededMasterStopsLeading(t *testing.T) {
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	m := &Master{registry: superseded{}, metrics: newMetrics(newMirror(), func() int { return 0 }, func() bool { return true }, func() bool { return false }, nil)}
	term := &term{master: m, inbox: newInbox(), writes: make(chan state.RegistryWrite, 1)}
	term.writes <- state.RegistryWrite{ID: 1, Entries: []state.Entry{{Key: "k", Value: []byte("v")}}}
	close(term.writes)
	term.write(ctx, cancel)
	if cause := context.Cause(ctx); !errors.Is(cause, errLaterLeader) {
		t.Errorf("the term goes on: %v", cause)
	}
	if left := term.inbox.take(nil); len(left) != 0 {
		t.Errorf("the machine was told %v", left)
	}
}

var errLaterLeader = registry.ErrSuperseded

// superseded is a registry that a later leader has taken over.
type superseded struct{ registry.Registry }

func (superseded) Commit(context.Context, uint64, registry.Batch) ([]uint64, error) {
	return nil, fmt.Errorf("%w: the newest epoch is 2", registry.ErrSuperseded)
}
