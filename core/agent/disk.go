package agent

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/mezzo-os/mezzo/core/agent/state"
	isolatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/isolator/v1"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
)

// diskWatch measures what sandboxes take, one after the other so that it is
// nobody's burden, and ends containers that have more than their disk resources
// where the operator has asked for that.
type diskWatch struct {
	work    *workDir
	volumes *volumes
	enforce bool
	list    func(context.Context) ([]state.ContainerView, error)
	post    func(context.Context, state.Input)

	mu   sync.Mutex
	used map[string]uint64 // bytes, by root container
	held map[state.VolumePlace]uint64
}

func (d *diskWatch) run(ctx context.Context, interval time.Duration) {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			d.measure(ctx)
		case <-ctx.Done():
			return
		}
	}
}

func (d *diskWatch) measure(ctx context.Context) {
	containers, err := d.list(ctx)
	if err != nil {
		return // the agent ends
	}
	used := map[string]uint64{}
	held := map[state.VolumePlace]uint64{}
	for _, c := range containers {
		d.measureVolumes(ctx, c, held)
		if c.Parent != "" {
			continue // it lies in its root's sandbox
		}
		n, err := d.size(ctx, c.Sandbox)
		if err != nil {
			continue // just made, or just gone
		}
		used[c.ID] = n
		if limit := diskLimit(c.Resources); d.enforce && limit > 0 && n > limit {
			d.post(ctx, state.Limited{Limitation: exceeded(c, "Disk usage", n, limit)})
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.used, d.held = used, held
}

// measureVolumes measures a container's volumes, each once however many have it.
func (d *diskWatch) measureVolumes(ctx context.Context, c state.ContainerView, held map[state.VolumePlace]uint64) {
	for _, v := range c.Volumes {
		n, known := held[v.VolumePlace]
		if !known {
			root, err := os.OpenRoot(d.volumes.path(v.VolumePlace))
			if err != nil {
				continue
			}
			n, err = sizeOf(ctx, root)
			if root.Close(); err != nil {
				continue
			}
			held[v.VolumePlace] = n
		}
		if limit := volumeLimit(v); d.enforce && limit > 0 && n > limit {
			d.post(ctx, state.Limited{Limitation: exceeded(c, "Disk usage of "+v.String(), n, limit)})
		}
	}
}

// volumeLimit is how many bytes a volume may hold. A disk of its own has its own
// limit.
func volumeLimit(v state.Volume) uint64 {
	if v.Whole {
		return 0
	}
	return uint64(v.SizeMB * mebibyte)
}

func exceeded(c state.ContainerView, what string, used, limit uint64) *isolatorv1.Limitation {
	return &isolatorv1.Limitation{
		Container: c.ID, Reason: mezzov1.TaskStatus_REASON_CONTAINER_LIMITATION_DISK.Enum(),
		Message: fmt.Sprintf("%s (%d KiB) exceeds quota (%d KiB)", what, used>>10, limit>>10),
		Resources: []*mezzov1.Resource{{
			Name: proto.String("disk"), Type: mezzov1.Value_SCALAR.Enum(),
			Scalar: &mezzov1.Value_Scalar{Value: proto.Float64(float64(used) / mebibyte)},
		}},
	}
}

// fill adds what is known of a container's disk to its statistics.
func (d *diskWatch) fill(c state.ContainerView, s *mezzov1.ResourceStatistics) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if n, found := d.used[c.ID]; found {
		s.DiskUsedBytes = proto.Uint64(n)
	}
	if limit := diskLimit(c.Resources); limit > 0 {
		s.DiskLimitBytes = proto.Uint64(limit)
	}
	for _, r := range c.Resources {
		if v := state.VolumesOf([]*mezzov1.Resource{r}); len(v) == 1 && slices.Contains(c.Volumes, v[0]) {
			entry := &mezzov1.DiskStatistics{Source: r.GetDisk().GetSource(), Persistence: r.GetDisk().GetPersistence()}
			if limit := volumeLimit(v[0]); limit > 0 {
				entry.LimitBytes = proto.Uint64(limit)
			}
			if n, found := d.held[v[0].VolumePlace]; found {
				entry.UsedBytes = proto.Uint64(n)
			}
			s.DiskStatistics = append(s.DiskStatistics, entry)
		}
	}
}

// diskLimit is how many bytes a sandbox may have: disk that is neither a volume
// nor another disk. 0: nothing is said.
func diskLimit(resources []*mezzov1.Resource) uint64 {
	total := 0.0
	for _, r := range resources {
		if r.GetName() == "disk" && r.GetDisk() == nil {
			total += r.GetScalar().GetValue()
		}
	}
	return uint64(total * mebibyte)
}

// size is what a sandbox takes on its disk. What is mounted in it does not
// count, and a file with several names counts once.
func (d *diskWatch) size(ctx context.Context, sandbox string) (uint64, error) {
	root, err := d.work.open(sandbox)
	if err != nil {
		return 0, err
	}
	defer root.Close()
	return sizeOf(ctx, root)
}

// sizeOf is what a directory takes on its disk.
func sizeOf(ctx context.Context, root *os.Root) (uint64, error) {
	top, err := root.Lstat(".")
	if err != nil {
		return 0, err
	}
	disk := top.Sys().(*syscall.Stat_t).Dev
	total := uint64(0)
	seen := map[uint64]bool{}
	err = fs.WalkDir(root.FS(), ".", func(_ string, e fs.DirEntry, err error) error {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			return nil // removed meanwhile
		}
		info, err := e.Info()
		if err != nil {
			return nil
		}
		s := info.Sys().(*syscall.Stat_t)
		if s.Dev != disk {
			if e.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		if s.Nlink > 1 && !e.IsDir() {
			if seen[s.Ino] {
				return nil
			}
			seen[s.Ino] = true
		}
		total += uint64(s.Blocks) * 512
		return nil
	})
	return total, err
}
