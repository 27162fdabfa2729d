package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/protobuf/proto"

	"github.com/mezzo-os/mezzo/core/agent/state"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
)

// volumes keeps the directories of persistent volumes:
//
//	<root>/volumes/roles/<role>/<id>/
//
// where root is the agent's data directory or a disk's own, and the slashes of a
// role are spaces. A volume on a MOUNT disk is the disk. What is removed is moved
// to <root>/volumes/trash/<chore>/ first, so that nobody finds half of it. The
// directory there stays, empty, until the removal will not be asked for again.
//
// What concerns one volume is done in the order in which it was asked for.
type volumes struct {
	root   string // of volumes on no disk of their own
	logger hclog.Logger
	post   func(context.Context, state.Input)
	run    func(func(context.Context))
	// pause is the first one after something did not work, doubled up to a minute.
	pause time.Duration

	mu     sync.Mutex
	queues map[state.VolumePlace]*volumeQueue
}

// volumeQueue is what is to be done to one volume, in order.
type volumeQueue struct {
	work    []volumeWork
	failed  error         // why the first of them has not worked yet
	changed chan struct{} // closed, and made anew, when something changes
}

type volumeWork struct {
	chore string
	do    func() error
}

const (
	volumePause    = time.Second
	volumePauseMax = time.Minute
)

// path is a volume's directory.
func (v *volumes) path(p state.VolumePlace) string {
	if p.Whole {
		return p.Root
	}
	return filepath.Join(v.base(p), "volumes", "roles", strings.ReplaceAll(p.Role, "/", " "), p.ID)
}

func (v *volumes) base(p state.VolumePlace) string {
	if p.Root != "" {
		return p.Root
	}
	return v.root
}

func (v *volumes) trash(p state.VolumePlace, chore string) string {
	name := "volumes"
	if p.Whole {
		name = ".mezzo" // beside what belongs to the task
	}
	return filepath.Join(v.base(p), name, "trash", chore)
}

func (v *volumes) make(o state.MakeVolume) {
	v.enqueue(o.Place, o.Chore, func() error { return makeVolume(v.path(o.Place), o.Place.Whole) })
}

func (v *volumes) remove(o state.RemoveVolume) {
	path, trash := v.path(o.Place), v.trash(o.Place, o.Chore)
	v.enqueue(o.Place, o.Chore, func() error { return removeVolume(path, trash, o.Place.Whole) })
}

// forget drops the sign that a removal was done.
func (v *volumes) forget(o state.ForgetVolume) {
	if err := os.RemoveAll(v.trash(o.Place, o.Chore)); err != nil {
		v.logger.Warn("what is left of a removed volume stays", "volume", o.Place.String(), "error", err)
	}
}

// enqueue does work until it works, after what was to be done to the volume
// before.
func (v *volumes) enqueue(p state.VolumePlace, chore string, do func() error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	q := v.queues[p]
	if q == nil {
		q = &volumeQueue{changed: make(chan struct{})}
		v.queues[p] = q
		v.run(func(ctx context.Context) { v.serve(ctx, p, q) })
	}
	q.work = append(q.work, volumeWork{chore, do})
}

// serve works a queue off, until it is empty.
func (v *volumes) serve(ctx context.Context, p state.VolumePlace, q *volumeQueue) {
	pause := v.pause
	for ctx.Err() == nil {
		v.mu.Lock()
		if len(q.work) == 0 {
			delete(v.queues, p)
			close(q.changed)
			v.mu.Unlock()
			return
		}
		work := q.work[0]
		v.mu.Unlock()
		err := work.do()
		if err == nil {
			pause = v.pause
			v.mu.Lock()
			q.failed = nil
			v.mu.Unlock()
			// The machine hears of it before anybody who waits for the volume does.
			v.post(ctx, state.VolumeDone{Chore: work.chore})
		} else {
			v.logger.Error("the directory of a persistent volume cannot be made or removed; trying again", "volume", p.String(), "path", v.path(p), "error", err)
		}
		v.mu.Lock()
		if q.failed = err; err == nil {
			q.work = q.work[1:]
		}
		close(q.changed)
		q.changed = make(chan struct{})
		v.mu.Unlock()
		if err != nil {
			select {
			case <-time.After(jittered(pause)):
			case <-ctx.Done():
			}
			pause = min(2*pause, volumePauseMax)
		}
	}
}

func jittered(d time.Duration) time.Duration { return d/2 + rand.N(d/2+1) }

// ready waits until all that was asked for has been done to a volume, or did not
// work, and returns its directory.
func (v *volumes) ready(ctx context.Context, p state.VolumePlace) (string, error) {
	for {
		v.mu.Lock()
		q := v.queues[p]
		if q == nil {
			v.mu.Unlock()
			break
		}
		failed, changed := q.failed, q.changed
		v.mu.Unlock()
		if failed != nil {
			return "", fmt.Errorf("%s is not there yet: %w", p, failed)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return "", ctx.Err()
		}
	}
	path := v.path(p)
	info, err := os.Lstat(path)
	if p.Whole {
		info, err = os.Stat(path)
	}
	if err == nil && !info.IsDir() {
		err = fmt.Errorf("%s is not a directory", path)
	}
	if err != nil {
		return "", fmt.Errorf("the directory of %s is gone: %w; destroy the volume, or put its directory back", p, err)
	}
	return path, nil
}

// give has a task find its volumes: who runs it may write there, and where the
// container cannot have mounts of its own, links in the sandbox lead there.
func (v *volumes) give(ctx context.Context, work *workDir, p *state.Plan, who *account, link bool) error {
	for _, volume := range p.Volumes {
		path, err := v.ready(ctx, volume.VolumePlace)
		if err != nil {
			return err
		}
		if err := own(path, who, volume.Shared); err != nil {
			return fmt.Errorf("%s cannot be given to user %s: %w", volume, who.name, err)
		}
		if !link || volume.Mounted || filepath.IsAbs(volume.ContainerPath) {
			continue
		}
		if err := linkVolume(work, p.Sandbox, volume.ContainerPath, path); err != nil {
			return fmt.Errorf("%s cannot be put at %s of the sandbox: %w", volume, volume.ContainerPath, err)
		}
	}
	return nil
}

// own gives a volume's directory to a user. A shared one stays with who had it
// first.
func own(path string, who *account, shared bool) error {
	if os.Geteuid() != 0 {
		return nil // there is only one user
	}
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	s := info.Sys().(*syscall.Stat_t)
	if s.Uid == who.uid && s.Gid == who.gid || shared && s.Uid != 0 {
		return nil
	}
	return os.Chown(path, int(who.uid), int(who.gid))
}

// linkVolume makes a link in a sandbox. One that leads elsewhere was made for a
// volume that is not used here any more.
func linkVolume(work *workDir, sandbox, at, target string) error {
	root, err := work.open(sandbox)
	if err != nil {
		return err
	}
	defer root.Close()
	at = filepath.Clean(at)
	if info, err := root.Lstat(at); err == nil {
		if info.Mode()&fs.ModeSymlink == 0 {
			return errors.New("something else is there already")
		}
		if to, err := root.Readlink(at); err == nil && to == target {
			return nil
		}
		if err := root.Remove(at); err != nil {
			return err
		}
	}
	if err := root.MkdirAll(filepath.Dir(at), 0o755); err != nil {
		return err
	}
	return root.Symlink(target, at)
}

// mounts are those that a container is given for its volumes.
func (v *volumes) mounts(p *state.Plan, sandbox string) []specs.Mount {
	var list []specs.Mount
	for _, volume := range p.Volumes {
		at := volume.ContainerPath
		if !filepath.IsAbs(at) {
			at = filepath.Join(sandbox, at)
		}
		list = append(list, specs.Mount{Destination: at, Type: "bind", Source: v.path(volume.VolumePlace), Options: []string{"rbind", "rw"}})
	}
	return list
}

// makeVolume makes a volume's directory; one that is there stays as it is.
func makeVolume(path string, whole bool) error {
	if whole {
		info, err := os.Stat(path)
		if err == nil && !info.IsDir() {
			err = fmt.Errorf("%s is not a directory", path)
		}
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if err := os.Mkdir(path, 0o750); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// removeVolume removes a volume with all that is in it. The directory trash, which
// stays, says that it is not there any more: whatever is at path then is another
// volume.
func removeVolume(path, trash string, whole bool) error {
	if err := setAside(path, trash, whole); err != nil {
		return err
	}
	entries, err := os.ReadDir(trash)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Name() == emptied {
			continue
		}
		if err := os.RemoveAll(filepath.Join(trash, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

// emptied is a file in the trash of a volume that is a whole disk: all that was on
// it is there.
const emptied = ".emptied"

// setAside moves a volume to the trash, unless that was done.
func setAside(path, trash string, whole bool) error {
	if whole {
		return setAsideDisk(path, trash)
	}
	if _, err := os.Lstat(trash); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	parent := filepath.Dir(trash)
	if err := os.MkdirAll(parent, 0o700); err != nil {
		return err
	}
	switch err := os.Rename(path, trash); {
	case errors.Is(err, fs.ErrNotExist):
		return os.Mkdir(trash, 0o700) // somebody else has removed it
	case err != nil:
		return err
	}
	return errors.Join(os.Chmod(trash, 0o700), syncDir(filepath.Dir(path)), syncDir(parent))
}

func setAsideDisk(path, trash string) error {
	marker := filepath.Join(trash, emptied)
	if _, err := os.Lstat(marker); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.MkdirAll(trash, 0o700); err != nil {
		return err
	}
	if err := empty(path, trash); err != nil {
		return err
	}
	f, err := os.OpenFile(marker, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(f.Close(), syncDir(trash))
}

// empty moves all that is on a disk to the trash.
func empty(path, trash string) error {
	entries, err := os.ReadDir(path)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Name() == ".mezzo" || e.Name() == "lost+found" {
			continue
		}
		if err := os.Rename(filepath.Join(path, e.Name()), filepath.Join(trash, e.Name())); err != nil {
			return err
		}
	}
	return syncDir(path)
}

func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// resolve is the plan with the volumes of the task's executor named by where they
// lie. A path of the parent's sandbox would lead there by a link, and links lead
// nobody out of a sandbox.
func (v *volumes) resolve(p *state.Plan) *state.Plan {
	if len(p.ParentVolumes) == 0 {
		return p
	}
	resolved := *p
	resolved.Task = proto.CloneOf(p.Task)
	for _, wanted := range resolved.Task.GetContainer().GetVolumes() {
		from := wanted.GetSource().GetSandboxPath()
		if from.GetType() != mezzov1.Volume_Source_SandboxPath_PARENT {
			continue
		}
		for _, has := range p.ParentVolumes {
			if filepath.Clean(from.GetPath()) == filepath.Clean(has.ContainerPath) {
				wanted.Source = &mezzov1.Volume_Source{
					Type:     mezzov1.Volume_Source_HOST_PATH.Enum(),
					HostPath: &mezzov1.Volume_Source_HostPath{Path: proto.String(v.path(has.VolumePlace))},
				}
				break
			}
		}
	}
	return &resolved
}
