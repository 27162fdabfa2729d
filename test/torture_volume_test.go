package test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mezzo-os/mezzo/sdk/framework"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
	"github.com/mezzo-os/mezzo/sdk/resource"
)

// stores are volumes, each with one task after the other: a task finds what all
// before it have written, adds a row, and is killed.
type stores struct {
	t     *testing.T
	dir   string // of the agent
	of    func(task string)
	last  func(task string) *mezzov1.TaskStatus
	all   []*store // the framework's mutex guards them
	phase storePhase
}

type storePhase int

const (
	storing storePhase = iota
	ending             // a task more where there were not two
	dismantling
)

// store is one volume. Its life: nothing, made by operations, used by one task
// at a time, destroyed by operations.
type store struct {
	id      string
	made    bool   // there is the volume
	pending string // the operation that makes or destroys it, which nothing was heard of
	ops     int    // how often there was one
	task    string // that uses it
	tasks   int
	rows    int // that the ended tasks wrote
	served  int // tasks that found all rows and were killed
}

func (s *store) disk() []*mezzov1.Resource { return framework.Reserved("db", "", framework.Disk(16)) }

func (s *store) volume() *mezzov1.Resource {
	return framework.PersistentVolume(s.disk()[0], s.id, "data", "")
}

func (d *stores) path(s *store) string { return filepath.Join(d.dir, "volumes", "roles", "db", s.id) }

// written is how many rows are on the volume.
func (d *stores) written(s *store) int {
	text, err := os.ReadFile(filepath.Join(d.path(s), "rows"))
	if err != nil && !os.IsNotExist(err) {
		d.t.Error(err)
	}
	return bytes.Count(text, []byte("\n"))
}

// offered says what to do with an offer to "db".
func (d *stores) offered(o *mezzov1.Offer) (ops []*mezzov1.Offer_Operation) {
	free, err := resource.FromProto(o.GetResources())
	if err != nil {
		d.t.Error(err)
		return nil
	}
	free = free.Unallocate()
	take := func(list ...*mezzov1.Resource) bool {
		want, err := resource.FromProto(list)
		if err != nil || !free.Contains(want) {
			return false
		}
		free = free.Minus(want)
		return true
	}
	for _, s := range d.all {
		if s.task != "" || s.pending != "" {
			continue
		}
		if d.phase == dismantling {
			if s.made && take(s.volume()) {
				s.ops++
				s.pending = fmt.Sprintf("unreserve-%s-%d", s.id, s.ops)
				ops = append(ops, framework.DestroyVolumes("", s.volume()), framework.Unreserve(s.pending, s.disk()...))
			}
			continue
		}
		if d.phase == ending && s.served >= 2 || !take(resource.MustParse("cpus:0.1;mem:32").ToProto()...) {
			continue
		}
		switch {
		case s.made && take(s.volume()):
		case !s.made && take(s.disk()...):
			ops = append(ops, s.make()...)
		case !s.made && take(framework.Disk(16)):
			ops = append(append(ops, framework.Reserve("", s.disk()...)), s.make()...)
		default:
			continue
		}
		ops = append(ops, d.launch(s, o))
	}
	return ops
}

func (s *store) make() []*mezzov1.Offer_Operation {
	s.ops++
	s.pending = fmt.Sprintf("create-%s-%d", s.id, s.ops)
	return []*mezzov1.Offer_Operation{framework.CreateVolumes(s.pending, s.volume())}
}

// launch has a task look for all rows and add one.
func (d *stores) launch(s *store, o *mezzov1.Offer) *mezzov1.Offer_Operation {
	s.task = fmt.Sprintf("%s-%d", s.id, s.tasks)
	s.tasks++
	d.of(s.task)
	script := fmt.Sprintf("test $(cat data/rows 2>/dev/null | wc -l) = %d || exit 9; echo %s >> data/rows; exec sleep 100000", s.rows, s.task)
	task := dbTask(s.task, script, s.volume())
	task.Resources = append(resource.MustParse("cpus:0.1;mem:32").ToProto(), s.volume())
	task.AgentId = o.GetAgentId()
	return framework.LaunchTasks(task)
}

// operated takes in what came of an operation.
func (d *stores) operated(status *mezzov1.OperationStatus) {
	for _, s := range d.all {
		if s.pending == "" || s.pending != status.GetOperationId().GetValue() || status.GetState() == mezzov1.OperationState_OPERATION_PENDING {
			continue
		}
		if status.GetState() == mezzov1.OperationState_OPERATION_FINISHED {
			s.made = strings.HasPrefix(s.pending, "create")
		}
		s.pending = ""
	}
}

// step kills what has written, and lets go of what has ended. What it returns is
// for the caller to kill, without the mutex.
func (d *stores) step() (kill []string) {
	for _, s := range d.all {
		if s.task == "" {
			continue
		}
		rows, last := d.written(s), d.last(s.task)
		switch {
		case last.GetTaskId() == nil:
		case !ended(last.GetState()):
			if rows > s.rows {
				kill = append(kill, s.task)
			}
		case rows < s.rows || rows > s.rows+1:
			d.t.Errorf("volume %s had %d rows before task %s, and has %d now", s.id, s.rows, s.task, rows)
			fallthrough
		default:
			s.served += rows - s.rows
			s.rows, s.task = rows, ""
		}
	}
	return kill
}

// work does what is to be done with the stores now.
func (x *torture) work() {
	x.crowd.mu.Lock()
	kill := x.stores.step()
	x.crowd.mu.Unlock()
	for _, task := range kill {
		_ = x.s.Kill(context.Background(), task, nil) // it is asked for again
	}
}

// endStores waits until each volume was used twice, and destroys all.
func (x *torture) endStores() {
	t := x.cluster.t
	t.Helper()
	phase := func(p storePhase, what string, over func(*store) bool) {
		x.crowd.mu.Lock()
		x.stores.phase = p
		x.crowd.mu.Unlock()
		eventually(t, what, func() bool {
			x.work()
			x.crowd.mu.Lock()
			defer x.crowd.mu.Unlock()
			for _, s := range x.stores.all {
				if !over(s) {
					return false
				}
			}
			return true
		})
	}
	phase(ending, "every volume to have served two tasks", func(s *store) bool { return s.served >= 2 && s.task == "" && s.pending == "" })
	phase(dismantling, "every volume to be destroyed", func(s *store) bool { return !s.made })
	served := 0
	for _, s := range x.stores.all {
		served += s.served
		eventually(t, "the directory of volume "+s.id+" to be gone", func() bool {
			_, err := os.Stat(x.stores.path(s))
			return os.IsNotExist(err)
		})
	}
	t.Logf("%d tasks found on their volumes all that was written before", served)
	if r := x.mezzo("volume", "list"); r.code != 0 || !strings.Contains(r.stdout, "no persistent volumes") {
		t.Errorf("after the last DESTROY: %+v", r)
	}
}
