package agent

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"github.com/mezzo-os/mezzo/core/agent/state"
	isolatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/isolator/v1"
)

// workDir is where the sandboxes are:
//
//	agents/<id>/frameworks/<fid>/executors/<eid>/runs/<container>/
//
// What is above a sandbox belongs to the agent. What is in one belongs to the
// task, which may put symbolic links there: so nothing in a sandbox is opened
// but through an os.Root.
type workDir struct {
	root string
	mu   sync.Mutex // while directories above sandboxes are made or removed
}

func (w *workDir) path(relative string) string {
	return filepath.Join(w.root, filepath.FromSlash(relative))
}

// split cuts a sandbox's path into the part that only the agent can change, and
// the rest, which lies in the sandbox of a root container; "." for none.
func split(sandbox string) (trusted, rest string) {
	if at := strings.Index(sandbox, "/runs/"); at >= 0 {
		if run, nested, found := strings.Cut(sandbox[at+len("/runs/"):], "/"); found {
			return sandbox[:at] + "/runs/" + run, nested
		}
	}
	return sandbox, "."
}

// open opens a sandbox so that nothing outside of it can be reached. Whoever
// asks closes it.
func (w *workDir) open(sandbox string) (*os.Root, error) {
	if !filepath.IsLocal(filepath.FromSlash(sandbox)) {
		return nil, fmt.Errorf("sandbox %q is outside the work directory", sandbox)
	}
	trusted, rest := split(sandbox)
	outer, err := os.OpenRoot(w.path(trusted))
	if err != nil || rest == "." {
		return outer, err
	}
	defer outer.Close()
	return outer.OpenRoot(filepath.FromSlash(rest))
}

// make makes a container's sandbox, owned by who it runs as, and points the
// link at it that people follow.
func (w *workDir) make(p *state.Plan, who *account) (string, error) {
	if err := w.makeDir(p, who); err != nil {
		return "", fmt.Errorf("the sandbox cannot be made: %w", err)
	}
	return w.path(p.Sandbox), nil
}

// openDir opens a sandbox's directory itself. Whoever asks closes it.
func (w *workDir) openDir(sandbox string) (*os.File, error) {
	root, err := w.open(sandbox)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	return root.Open(".")
}

func (w *workDir) makeDir(p *state.Plan, who *account) error {
	sandbox := p.Sandbox
	if !filepath.IsLocal(filepath.FromSlash(sandbox)) || p.Latest != "" && !filepath.IsLocal(filepath.FromSlash(p.Latest)) {
		return fmt.Errorf("%q is outside the work directory", sandbox)
	}
	base, dir := w.root, sandbox
	if trusted, rest := split(sandbox); rest != "." {
		base, dir = w.path(trusted), rest
	} else if err := os.MkdirAll(w.root, 0o755); err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	root, err := os.OpenRoot(base)
	if err != nil {
		return err
	}
	defer root.Close()
	if err := root.MkdirAll(path.Dir(dir), 0o755); err != nil {
		return err
	}
	if err := root.Mkdir(dir, 0o750); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if err := root.Chmod(dir, 0o750); err != nil { // whatever the umask
		return err
	}
	if os.Geteuid() == 0 {
		if err := root.Lchown(dir, int(who.uid), int(who.gid)); err != nil {
			return err
		}
	}
	if p.Latest == "" {
		return nil
	}
	link := p.Latest
	if base != w.root {
		_, link = split(p.Latest)
	}
	return point(root, link, dir)
}

// point makes link a symbolic link to target, by its relative path, at once.
func point(root *os.Root, link, target string) error {
	if err := root.MkdirAll(path.Dir(link), 0o755); err != nil {
		return err
	}
	relative, err := filepath.Rel(path.Dir(link), target)
	if err != nil {
		return err
	}
	fresh := link + "." + path.Base(target)
	if err := root.Remove(fresh); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := root.Symlink(relative, fresh); err != nil {
		return err
	}
	return root.Rename(fresh, link)
}

// account is a user of the operating system.
type account struct {
	name     string
	uid, gid uint32
	groups   []uint32
	home     string
}

// accountOf is who a container's sandbox belongs to, and who runs in it when it
// has no image. A user that only an image knows cannot own anything here: the
// sandbox then belongs to who the agent runs as.
func accountOf(t *isolatorv1.Task) (*account, error) {
	a, err := lookupUser(t.GetUser())
	if err != nil && t.GetImage() != nil && t.GetOwnUser() {
		return lookupUser("")
	}
	return a, err
}

// lookupUser finds a user by name or by number; the empty name is who the agent
// runs as.
func lookupUser(name string) (*account, error) {
	var u *user.User
	var err error
	if name == "" {
		u, err = user.Current()
	} else if u, err = user.Lookup(name); err != nil {
		if _, notNumber := strconv.ParseUint(name, 10, 32); notNumber == nil {
			u, err = user.LookupId(name)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("the task is to run as user %q: %w on this agent's host", name, err)
	}
	a := &account{name: u.Username, home: u.HomeDir}
	if a.uid, err = number(u.Uid); err != nil {
		return nil, fmt.Errorf("user %q: %w", name, err)
	}
	if a.gid, err = number(u.Gid); err != nil {
		return nil, fmt.Errorf("user %q: %w", name, err)
	}
	groups, err := u.GroupIds()
	if err != nil {
		return nil, fmt.Errorf("groups of user %q: %w", name, err)
	}
	for _, g := range groups {
		gid, err := number(g)
		if err != nil {
			return nil, fmt.Errorf("groups of user %q: %w", name, err)
		}
		if gid != a.gid {
			a.groups = append(a.groups, gid)
		}
	}
	return a, nil
}

func number(text string) (uint32, error) {
	n, err := strconv.ParseUint(text, 10, 32)
	return uint32(n), err
}
