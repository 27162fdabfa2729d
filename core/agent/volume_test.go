package agent

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/protobuf/proto"

	"github.com/mezzo-os/mezzo/core/agent/state"
	isolatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/isolator/v1"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
)

// volumeRig is volumes on a directory, with what they post.
type volumeRig struct {
	*volumes
	t    *testing.T
	done chan string
}

func newVolumeRig(t *testing.T) *volumeRig {
	t.Helper()
	r := &volumeRig{t: t, done: make(chan string, 100)}
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	r.volumes = &volumes{
		root: t.TempDir(), logger: hclog.NewNullLogger(), pause: time.Millisecond, queues: map[state.VolumePlace]*volumeQueue{},
		post: func(_ context.Context, in state.Input) { r.done <- in.(state.VolumeDone).Chore },
		run:  func(f func(context.Context)) { running.Go(func() { f(ctx) }) },
	}
	t.Cleanup(func() { stop(); running.Wait() })
	return r
}

func (r *volumeRig) finished(chore string) {
	r.t.Helper()
	select {
	case got := <-r.done:
		if got != chore {
			r.t.Fatalf("chore %s is done, want %s", got, chore)
		}
	case <-time.After(time.Minute):
		r.t.Fatalf("chore %s is not done", chore)
	}
}

func (r *volumeRig) write(path, text string) {
	r.t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		r.t.Fatal(err)
	}
}

var dataVolume = state.VolumePlace{Role: "db/east", ID: "data"}

func TestVolumeIsMadeAndRemoved(t *testing.T) {
	r := newVolumeRig(t)
	r.make(state.MakeVolume{Chore: "1", Place: dataVolume})
	r.finished("1")
	dir, err := r.ready(context.Background(), dataVolume)
	if want := filepath.Join(r.root, "volumes", "roles", "db east", "data"); err != nil || dir != want {
		t.Fatalf("the volume is at %q (%v), want %q", dir, err, want)
	}
	r.write(filepath.Join(dir, "rows"), "precious")
	r.make(state.MakeVolume{Chore: "again", Place: dataVolume}) // after a crash
	r.finished("again")
	if text, err := os.ReadFile(filepath.Join(dir, "rows")); err != nil || string(text) != "precious" {
		t.Fatalf("made again, it has %q (%v)", text, err)
	}
	r.remove(state.RemoveVolume{Chore: "2", Place: dataVolume})
	r.finished("2")
	if _, err := os.Lstat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the removed volume is there: %v", err)
	}
	if _, err := r.ready(context.Background(), dataVolume); err == nil || !strings.Contains(err.Error(), "volume data of role db/east is gone") {
		t.Errorf("a volume that is gone is given: %v", err)
	}
}

// A removal that is asked for again, since the agent died before it had noted
// that it was done, must not touch the next volume of that name.
func TestVolumeRemovedAgainLeavesTheNext(t *testing.T) {
	disk := t.TempDir()
	for name, place := range map[string]state.VolumePlace{
		"directory": dataVolume, "on a disk": {Root: disk, Role: "db", ID: "data"}, "a whole disk": {Root: t.TempDir(), Whole: true, Role: "db", ID: "data"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newVolumeRig(t)
			r.make(state.MakeVolume{Chore: "1", Place: place})
			r.finished("1")
			old := filepath.Join(r.path(place), "old")
			r.write(old, "old")
			r.remove(state.RemoveVolume{Chore: "2", Place: place})
			r.make(state.MakeVolume{Chore: "3", Place: place})
			r.finished("2")
			r.finished("3")
			if _, err := os.Lstat(old); !errors.Is(err, os.ErrNotExist) {
				t.Fatalf("the new volume has what was in the old one: %v", err)
			}
			next := filepath.Join(r.path(place), "next")
			r.write(next, "next")
			r.remove(state.RemoveVolume{Chore: "2", Place: place})
			r.finished("2")
			if _, err := os.Lstat(next); err != nil {
				t.Fatalf("the next volume's content: %v", err)
			}
			r.forget(state.ForgetVolume{Chore: "2", Place: place})
			if left, err := os.ReadDir(filepath.Dir(r.trash(place, "2"))); err != nil || len(left) > 0 {
				t.Errorf("left in the trash: %v %v", left, err)
			}
		})
	}
}

// What cannot be made is tried again; who needs it hears why.
func TestVolumeIsTriedAgain(t *testing.T) {
	r := newVolumeRig(t)
	blocked := filepath.Join(r.root, "volumes")
	r.write(blocked, "not a directory")
	r.make(state.MakeVolume{Chore: "1", Place: dataVolume})
	if _, err := r.ready(context.Background(), dataVolume); err == nil || !strings.Contains(err.Error(), "is not there yet") {
		t.Errorf("a volume that cannot be made: %v", err)
	}
	if err := os.Remove(blocked); err != nil {
		t.Fatal(err)
	}
	r.finished("1")
	if _, err := r.ready(context.Background(), dataVolume); err != nil {
		t.Error(err)
	}
}

// A link in the sandbox leads to the volume, and what a task has put there
// first stays.
func TestVolumeIsLinked(t *testing.T) {
	r := newVolumeRig(t)
	r.make(state.MakeVolume{Chore: "1", Place: dataVolume})
	r.finished("1")
	work := &workDir{root: t.TempDir()}
	who, err := lookupUser("")
	if err != nil {
		t.Fatal(err)
	}
	plan := &state.Plan{Container: "c", Sandbox: "agents/A/frameworks/F/executors/E/runs/c", Volumes: []state.Volume{
		{VolumePlace: dataVolume, ContainerPath: "var/data"}, {VolumePlace: dataVolume, ContainerPath: "taken", Mounted: true},
	}}
	sandbox, err := work.make(plan, who)
	if err != nil {
		t.Fatal(err)
	}
	r.write(filepath.Join(sandbox, "taken"), "mine")
	for range 2 {
		if err := r.give(context.Background(), work, plan, who, true); err != nil {
			t.Fatal(err)
		}
	}
	if target, err := os.Readlink(filepath.Join(sandbox, "var/data")); err != nil || target != r.path(dataVolume) {
		t.Errorf("the link leads to %q (%v), want %q", target, err, r.path(dataVolume))
	}
	if text, err := os.ReadFile(filepath.Join(sandbox, "taken")); err != nil || string(text) != "mine" {
		t.Errorf("the task's own file is %q (%v)", text, err)
	}
	// What is in the way is not taken away, but for the link to a volume that was
	// there before.
	plan.Volumes[1].Mounted = false
	if err := r.give(context.Background(), work, plan, who, true); err == nil || !strings.Contains(err.Error(), "something else is there") {
		t.Errorf("a volume at the task's own file: %v", err)
	}
	other := state.VolumePlace{Role: "db", ID: "other"}
	r.make(state.MakeVolume{Chore: "2", Place: other})
	r.finished("2")
	plan.Volumes = []state.Volume{{VolumePlace: other, ContainerPath: "var/data"}}
	if err := r.give(context.Background(), work, plan, who, true); err != nil {
		t.Fatal(err)
	}
	if target, err := os.Readlink(filepath.Join(sandbox, "var/data")); err != nil || target != r.path(other) {
		t.Errorf("the link leads to %q (%v), want %q", target, err, r.path(other))
	}
	// Out of the sandbox by a link of the task's: no.
	if err := os.Symlink(t.TempDir(), filepath.Join(sandbox, "out")); err != nil {
		t.Fatal(err)
	}
	plan.Volumes = []state.Volume{{VolumePlace: dataVolume, ContainerPath: "out/data"}}
	if err := r.give(context.Background(), work, plan, who, true); err == nil {
		t.Error("a volume was put outside of the sandbox")
	}
}

// Tasks of a group name their executor's volumes as paths of its sandbox.
func TestVolumeOfTheParent(t *testing.T) {
	r := newVolumeRig(t)
	path := func(kind mezzov1.Volume_Source_SandboxPath_Type, path string) *mezzov1.Volume {
		return &mezzov1.Volume{ContainerPath: proto.String("here"), Mode: mezzov1.Volume_RW.Enum(), Source: &mezzov1.Volume_Source{
			Type: mezzov1.Volume_Source_SANDBOX_PATH.Enum(), SandboxPath: &mezzov1.Volume_Source_SandboxPath{Type: kind.Enum(), Path: proto.String(path)},
		}}
	}
	volumes := []*mezzov1.Volume{
		path(mezzov1.Volume_Source_SandboxPath_PARENT, "./data"), path(mezzov1.Volume_Source_SandboxPath_PARENT, "other"), path(mezzov1.Volume_Source_SandboxPath_SELF, "data"),
	}
	plan := &state.Plan{
		Task:          &isolatorv1.Task{Container: &mezzov1.ContainerInfo{Volumes: volumes}},
		ParentVolumes: []state.Volume{{VolumePlace: dataVolume, ContainerPath: "data"}},
	}
	before := proto.CloneOf(plan.Task)
	got := r.resolve(plan).Task.GetContainer().GetVolumes()
	if source := got[0].GetSource(); source.GetType() != mezzov1.Volume_Source_HOST_PATH || source.GetHostPath().GetPath() != r.path(dataVolume) {
		t.Errorf("the executor's volume is %v", source)
	}
	for i := 1; i < 3; i++ {
		if !proto.Equal(got[i], volumes[i]) {
			t.Errorf("%v has become %v", volumes[i], got[i])
		}
	}
	if !proto.Equal(plan.Task, before) {
		t.Error("what the machine gave was changed")
	}
}
