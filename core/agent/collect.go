package agent

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"
)

// collector removes the sandboxes of executors that have ended. A sandbox is
// kept for delay, less the fuller the disk is: for delay × (1 − headroom − used),
// as Mesos has it, so that the last of it goes before the disk is full.
//
// When a sandbox ended is written on it, as the directory's time of change: so
// nothing of this has to be remembered.
type collector struct {
	work     *workDir
	delay    time.Duration
	headroom float64
	// live gives the sandboxes, relative to the work directory, that are in use.
	live    func(context.Context) (map[string]bool, error)
	used    func(dir string) (float64, error) // the part of the disk that is in use, 0 to 1
	mounts  func() ([]string, error)
	now     func() time.Time
	logger  hclog.Logger
	metrics *metrics
}

// run sweeps every interval until the context ends.
func (g *collector) run(ctx context.Context, interval time.Duration) {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		if err := g.sweep(ctx); err != nil && ctx.Err() == nil {
			g.logger.Warn("old sandboxes could not be removed", "error", err)
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

// age is how long a sandbox is kept.
func (g *collector) age(used float64) time.Duration {
	return time.Duration(float64(g.delay) * max(0, 1-g.headroom-used))
}

// sweep removes what is due.
func (g *collector) sweep(ctx context.Context) error {
	used, err := g.used(g.work.root)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // no sandbox was ever made
	}
	if err != nil {
		return err
	}
	age := g.age(used)
	found, err := g.found()
	if err != nil {
		return err
	}
	// Asked after the directories were found: one that is made meanwhile is not
	// among them.
	live, err := g.live(ctx)
	if err != nil {
		return err
	}
	var due []string
	waiting := 0
	for _, s := range found {
		switch {
		case live[s.path]:
		case s.changed.After(g.now().Add(-age)):
			waiting++
		default:
			due = append(due, s.path)
		}
	}
	g.metrics.age.Set(age.Seconds())
	g.metrics.waiting.Set(float64(waiting))
	if len(due) == 0 {
		return nil
	}
	mounts, err := g.mounts()
	if err != nil {
		return err
	}
	var failed []error
	for _, run := range due {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		err := g.remove(run, mounts)
		g.metrics.removals.WithLabelValues(outcome(err)).Inc()
		if err != nil {
			failed = append(failed, err)
			continue
		}
		g.logger.Debug("sandbox removed", "sandbox", run)
	}
	return errors.Join(failed...)
}

// sandbox is one that was found.
type sandbox struct {
	path    string // relative to the work directory
	changed time.Time
}

// found are all sandboxes that there are.
func (g *collector) found() ([]sandbox, error) {
	found, err := filepath.Glob(filepath.Join(g.work.root, "agents", "*", "frameworks", "*", "executors", "*", "runs", "*"))
	if err != nil {
		return nil, err
	}
	var list []sandbox
	for _, dir := range found {
		info, err := os.Lstat(dir)
		if err != nil || !info.IsDir() {
			continue // `latest` is a link
		}
		relative, err := filepath.Rel(g.work.root, dir)
		if err != nil {
			return nil, err
		}
		list = append(list, sandbox{filepath.ToSlash(relative), info.ModTime()})
	}
	return list, nil
}

// remove removes a sandbox, and the directories above it that are empty then.
func (g *collector) remove(run string, mounts []string) error {
	dir := g.work.path(run)
	for _, m := range mounts {
		if m == dir || strings.HasPrefix(m, dir+"/") {
			// A volume, perhaps: its content is not ours to remove.
			return fmt.Errorf("sandbox %s is kept: %s is still mounted in it", run, m)
		}
	}
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("sandbox %s: %w", run, err)
	}
	g.work.prune(run)
	return nil
}

// prune removes what stands empty above a sandbox that is gone: its runs, its
// executor, its framework.
func (w *workDir) prune(run string) {
	w.mu.Lock() // or a sandbox could be made in what is removed
	defer w.mu.Unlock()
	runs := path.Dir(run)
	latest := w.path(path.Join(runs, "latest"))
	if _, err := os.Stat(latest); errors.Is(err, fs.ErrNotExist) {
		_ = os.Remove(latest)
	}
	for dir := runs; dir != "agents" && dir != "."; dir = path.Dir(dir) {
		if os.Remove(w.path(dir)) != nil {
			return // not empty
		}
	}
}

// ended notes when a root container's sandbox was last in use.
func (w *workDir) ended(sandbox string, at time.Time) error {
	trusted, rest := split(sandbox)
	if rest != "." {
		return nil
	}
	return os.Chtimes(w.path(trusted), at, at)
}

// diskUsed is the part of a directory's disk that is in use.
func diskUsed(dir string) (float64, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return 0, &fs.PathError{Op: "statfs", Path: dir, Err: err}
	}
	if s.Blocks == 0 {
		return 0, nil
	}
	return 1 - float64(s.Bavail)/float64(s.Blocks), nil
}

// mountPoints are the places where something is mounted.
func mountPoints() ([]string, error) {
	file, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer file.Close()
	var list []string
	lines := bufio.NewScanner(file)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 5 {
			continue
		}
		list = append(list, unescapeMount(fields[4]))
	}
	return list, lines.Err()
}

// unescapeMount reads the kernel's \040 for a space, and its like.
func unescapeMount(text string) string {
	var out strings.Builder
	for i := 0; i < len(text); i++ {
		if text[i] == '\\' && i+3 < len(text) {
			if n, err := strconv.ParseUint(text[i+1:i+4], 8, 8); err == nil {
				out.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		out.WriteByte(text[i])
	}
	return out.String()
}
