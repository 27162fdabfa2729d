package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"syscall"

	"github.com/containerd/containerd/v2/core/mount"
	continuity "github.com/containerd/continuity/fs"
	"github.com/containerd/errdefs"
)

// Fill copies directories of an image that a container holds into a directory of
// the host, with their owners: what the image has where it wants a volume.
// volumes are paths in the image, with paths below root; one that is there
// already is left as it is, and one that the image does not have is not made.
//
// root may belong to somebody who wishes no good: nothing is written outside it,
// and nothing in it gives rights on the host. Set-user-ID and set-group-ID
// bits, file capabilities, devices, sockets and pipes are left out.
func (s *Store) Fill(ctx context.Context, container string, image *Image, root *os.Root, volumes map[string]string) error {
	missing := map[string]string{}
	for from, to := range volumes {
		if _, err := root.Lstat(to); errors.Is(err, fs.ErrNotExist) {
			missing[from] = to
		} else if err != nil {
			return err
		}
	}
	if len(missing) == 0 {
		return nil
	}
	c, err := s.o.Client()
	if err != nil {
		return err
	}
	ctx = s.Context(ctx, container)
	snapshots, key := c.SnapshotService(s.o.Snapshotter), "mezzo-volumes-"+container
	mounts, err := snapshots.View(ctx, key, image.Chain.String())
	if errdefs.IsAlreadyExists(err) { // an earlier attempt was cut off
		mounts, err = snapshots.Mounts(ctx, key)
	}
	if err != nil {
		return explain(image.Name(), err)
	}
	defer func() {
		if err := snapshots.Remove(context.WithoutCancel(ctx), key); err != nil {
			s.o.Logger.Warn("a view of an image stays until its container is removed", "image", image.Name(), "container_id", container, "error", err)
		}
	}()
	var failed error // without what containerd says of the mount
	err = mount.WithReadonlyTempMount(ctx, mounts, func(dir string) error {
		for from, to := range missing {
			if err := fill(ctx, dir, from, root, to); err != nil {
				failed = fmt.Errorf("volume %s of image %s: %w", from, image.Name(), err)
				return failed
			}
		}
		return nil
	})
	if failed != nil {
		return failed
	}
	return err
}

// fill copies one directory, under another name until it is whole.
func fill(ctx context.Context, dir, from string, root *os.Root, to string) error {
	resolved, err := continuity.RootPath(dir, from) // a link may be in the way
	if err != nil {
		return err
	}
	info, err := os.Stat(resolved)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !info.IsDir() {
		return nil
	}
	if err != nil {
		return err
	}
	source, err := os.OpenRoot(resolved)
	if err != nil {
		return err
	}
	defer source.Close()
	begun := to + ".new"
	if err := root.RemoveAll(begun); err != nil {
		return err
	}
	if err := root.MkdirAll(path.Dir(to), 0o755); err != nil {
		return err
	}
	if err := copyTree(ctx, source, ".", root, begun); err != nil {
		return err
	}
	return root.Rename(begun, to)
}

func copyTree(ctx context.Context, source *os.Root, from string, root *os.Root, to string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	info, err := source.Lstat(from)
	if err != nil {
		return err
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return fmt.Errorf("the owner of %s cannot be told", from)
	}
	own := func() error { return root.Lchown(to, int(owner.Uid), int(owner.Gid)) }
	switch info.Mode().Type() {
	case fs.ModeDir:
		if err := root.Mkdir(to, 0o700); err != nil {
			return err
		}
		entries, err := readDir(source, from)
		if err != nil {
			return err
		}
		for _, e := range entries {
			if err := copyTree(ctx, source, path.Join(from, e.Name()), root, path.Join(to, e.Name())); err != nil {
				return err
			}
		}
	case fs.ModeSymlink:
		target, err := source.Readlink(from)
		if err != nil {
			return err
		}
		if err := root.Symlink(target, to); err != nil {
			return err
		}
		return own()
	case 0:
		if err := copyFile(source, from, root, to); err != nil {
			return err
		}
	default:
		return nil
	}
	if err := own(); err != nil {
		return err
	}
	if err := root.Chmod(to, info.Mode()&(fs.ModePerm|fs.ModeSticky)); err != nil {
		return err
	}
	return root.Chtimes(to, info.ModTime(), info.ModTime())
}

func readDir(source *os.Root, name string) ([]os.DirEntry, error) {
	f, err := source.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return f.ReadDir(-1)
}

func copyFile(source *os.Root, from string, root *os.Root, to string) error {
	in, err := source.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := root.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}
