package image

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

// ErrInUse says that containers use an image that is to be removed.
var ErrInUse = errors.New("containers use it")

// Info is an image that is here.
type Info struct {
	Name       string
	Digest     digest.Digest
	Bytes      uint64 // compressed, as far as it is here
	Pinned     bool
	Containers int // that hold it
	Created    time.Time
	Used       time.Time // last
}

// List returns all images, sorted by name.
func (s *Store) List(ctx context.Context) ([]Info, error) {
	return s.list(ctx, true)
}

func (s *Store) list(ctx context.Context, sizes bool) ([]Info, error) {
	ctx = s.in(ctx)
	c, err := s.o.Client()
	if err != nil {
		return nil, err
	}
	holds, err := s.holds(ctx)
	if err != nil {
		return nil, err
	}
	holders := map[string]int{}
	for _, l := range holds {
		holders[l.Labels[labelImage]]++
	}
	records, err := c.ImageService().List(ctx)
	if err != nil {
		return nil, err
	}
	var out []Info
	for _, r := range records {
		i := Info{
			Name: r.Name, Digest: r.Target.Digest, Created: r.CreatedAt, Used: r.CreatedAt, Containers: holders[r.Name],
			Pinned: s.pinned[r.Name] || r.Labels[labelPinned] == "true",
		}
		if t, err := time.Parse(time.RFC3339, r.Labels[labelUsed]); err == nil {
			i.Used = t
		}
		if sizes {
			size, err := r.Size(ctx, c.ContentStore(), s.platform)
			if err != nil && !errdefs.IsNotFound(err) {
				return nil, explain(r.Name, err)
			}
			i.Bytes = uint64(max(0, size))
		}
		out = append(out, i)
	}
	slices.SortFunc(out, func(a, b Info) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

// Remove forgets an image's name; what nothing else needs is deleted. The error
// is errdefs.ErrNotFound when there is none, ErrInUse while containers hold it.
func (s *Store) Remove(ctx context.Context, text string) error {
	name, err := Parse(text)
	if err != nil {
		return &permanent{err}
	}
	ctx = s.in(ctx)
	c, err := s.o.Client()
	if err != nil {
		return err
	}
	if _, err := c.ImageService().Get(ctx, name); err != nil {
		if errdefs.IsNotFound(err) {
			return fmt.Errorf("image %s is not on this agent: %w", name, errdefs.ErrNotFound)
		}
		return err
	}
	removed, err := s.remove(ctx, c, name)
	if err == nil && !removed {
		return fmt.Errorf("image %s cannot be removed: %w", name, ErrInUse)
	}
	return err
}

// remove removes an image, unless it is held by now.
func (s *Store) remove(ctx context.Context, c *client.Client, name string) (bool, error) {
	s.names.Lock()
	defer s.names.Unlock()
	list, err := c.LeasesService().List(ctx, fmt.Sprintf("labels.%q==%q", labelImage, name))
	if err != nil || len(list) > 0 {
		return false, err
	}
	err = c.ImageService().Delete(ctx, name, images.SynchronousDelete())
	if errdefs.IsNotFound(err) {
		err = nil
	}
	return err == nil, err
}

// collectEvery is how often Run collects.
const collectEvery = 10 * time.Minute

// measurePatience is how long containerd may take to tell of its images.
const measurePatience = 30 * time.Second

// Run collects from time to time until ctx ends.
func (s *Store) Run(ctx context.Context) {
	for {
		s.measure(ctx)
		select {
		case <-ctx.Done():
			return
		case <-time.After(collectEvery/2 + rand.N(collectEvery)):
		}
		if removed, err := s.Collect(ctx); err != nil && ctx.Err() == nil {
			s.o.Logger.Warn("images could not be collected", "removed", len(removed), "error", err)
		}
	}
}

// Collect removes the images that nobody has used for the configured time, and
// then, while the disk is too full, those unused longest. It never touches one
// that is pinned or in use. It returns the names of those removed.
func (s *Store) Collect(ctx context.Context) ([]string, error) {
	ctx = s.in(ctx)
	c, err := s.o.Client()
	if err != nil {
		return nil, err
	}
	all, err := s.list(ctx, false)
	if err != nil {
		return nil, err
	}
	all = slices.DeleteFunc(all, func(i Info) bool { return i.Pinned || i.Containers > 0 })
	slices.SortStableFunc(all, func(a, b Info) int { return a.Used.Compare(b.Used) })
	var removed []string
	remove := func(i Info, reason, why string) error {
		gone, err := s.remove(ctx, c, i.Name)
		if err != nil {
			return explain(i.Name, err)
		}
		if gone {
			removed = append(removed, i.Name)
			s.o.Counts.Removed.Inc(reason)
			s.o.Logger.Info("image removed", "image", i.Name, "why", why, "used", i.Used.Format(time.RFC3339))
		}
		return nil
	}
	if keep := s.o.Config.KeepFor; keep > 0 {
		for len(all) > 0 && s.o.Now().Sub(all[0].Used) > keep {
			if err := remove(all[0], "unused", "nobody has used it for "+keep.String()); err != nil {
				return removed, err
			}
			all = all[1:]
		}
	}
	if s.o.Config.DiskHigh == 0 || len(all) == 0 {
		return removed, nil
	}
	dir, err := s.directory(ctx, c)
	if err != nil {
		return removed, err
	}
	for _, i := range all {
		used, err := s.o.DiskUsed(dir)
		if err != nil {
			return removed, err
		}
		if used*100 <= float64(s.o.Config.DiskHigh) {
			break
		}
		if err := remove(i, "disk", fmt.Sprintf("the disk of %s is %.0f %% full", dir, used*100)); err != nil {
			return removed, err
		}
	}
	return removed, nil
}

// directory is where the snapshotter has its files.
func (s *Store) directory(ctx context.Context, c *client.Client) (string, error) {
	answer, err := c.IntrospectionService().Plugins(ctx, "type==io.containerd.snapshotter.v1,id=="+s.o.Snapshotter)
	if err != nil {
		return "", err
	}
	for _, p := range answer.GetPlugins() {
		if p.GetID() == s.o.Snapshotter && p.GetExports()["root"] != "" {
			return p.GetExports()["root"], nil
		}
	}
	return "", fmt.Errorf("containerd does not say where snapshotter %s has its files", s.o.Snapshotter)
}

func diskUsed(dir string) (float64, error) {
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return 0, fmt.Errorf("the disk of %s: %w", dir, err)
	}
	if fs.Blocks == 0 {
		return 0, nil
	}
	// As df counts: what is kept for root is neither used nor free.
	used := fs.Blocks - fs.Bfree
	return float64(used) / float64(used+fs.Bavail), nil
}
