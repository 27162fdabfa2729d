// Package containerdtest gives tests a containerd of their own, images to run
// without a registry, and a registry on loopback.
//
//	d := containerdtest.Start(t)
//	archive := containerdtest.Busybox("mezzo.test/busybox:latest").WriteOCI(t)
//	d.Import(t, archive)
//
// A daemon has its own root, state, socket and containerd namespace; several
// run beside each other and beside the host's. What a test leaves behind
// (tasks, shims, mounts, control groups, files) is removed when it ends.
//
// Tests run the containerd that is installed, or that whose path is in the
// environment as MEZZO_TEST_CONTAINERD, with the shim beside it.
package containerdtest

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"golang.org/x/sys/unix"
)

// Daemon is a containerd that belongs to one test.
type Daemon struct {
	Address   string // its socket, an absolute path
	Namespace string // a containerd namespace that no other test uses
	Dir       string // its root, state and log are in it

	t     testing.TB
	cmd   *exec.Cmd     // nil: it does not run
	ended chan struct{} // closed when it has ended
}

var daemons atomic.Int64

// program is the containerd that tests run.
func program() string { return cmp.Or(os.Getenv("MEZZO_TEST_CONTAINERD"), "containerd") }

// patience is how long a loaded machine may take for what takes a tenth of a
// second on an idle one.
const patience = time.Minute

// Require skips a test where containerd cannot run; in CI that is a failure.
func Require(t testing.TB) {
	t.Helper()
	why := ""
	if os.Geteuid() != 0 {
		why = "containerd needs root"
	}
	for _, program := range []string{program(), "runc", "containerd-shim-runc-v2", "busybox"} {
		if _, err := exec.LookPath(program); err != nil {
			why = program + " is not installed: run make deps"
		}
	}
	switch {
	case why == "":
	case os.Getenv("CI") == "true":
		t.Fatal(why)
	default:
		t.Skip(why)
	}
}

// Start runs a containerd until the test ends.
func Start(t testing.TB) *Daemon {
	t.Helper()
	Require(t)
	// A socket's path has 108 bytes at most: t.TempDir's, with the test's name,
	// may be too long.
	dir, err := os.MkdirTemp("", "ctd")
	if err != nil {
		t.Fatal(err)
	}
	n := daemons.Add(1)
	d := &Daemon{
		t: t, Dir: dir, Address: filepath.Join(dir, "c.sock"),
		Namespace: fmt.Sprintf("mezzo-test-%d-%d", os.Getpid(), n),
	}
	t.Cleanup(d.remove)
	config := fmt.Sprintf(`version = 2
root = %q
state = %q
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt", "io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime", "io.containerd.nri.v1.nri"]
[grpc]
  address = %q
[ttrpc]
  address = %q
`, filepath.Join(dir, "root"), filepath.Join(dir, "state"), d.Address, d.Address+".ttrpc")
	if err := os.WriteFile(d.configFile(), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	d.Run(t)
	return d
}

func (d *Daemon) configFile() string { return filepath.Join(d.Dir, "config.toml") }

// Run starts the daemon again, after Stop or Kill, and returns when it serves.
func (d *Daemon) Run(t testing.TB) {
	t.Helper()
	log, err := os.OpenFile(filepath.Join(d.Dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command(program(), "-c", d.configFile())
	if dir := filepath.Dir(program()); dir != "." { // it looks for its shim there first
		cmd.Env = append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"))
	}
	cmd.Stdout, cmd.Stderr = log, log
	// Whoever kills the test ends the daemon as well: the kernel does, when the
	// thread ends that started it, so that one waits for it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	started, ended := make(chan error), make(chan struct{})
	go func() {
		defer close(ended)
		runtime.LockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	d.cmd, d.ended = cmd, ended
	c, err := client.New(d.Address, client.WithTimeout(patience))
	if err == nil {
		defer c.Close()
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		for {
			var serving bool
			if serving, err = c.IsServing(ctx); serving {
				return
			}
			if ctx.Err() != nil {
				break
			}
		}
	}
	t.Fatalf("containerd does not serve: %v\n%s", err, d.Log())
}

// Log is what the daemon has written.
func (d *Daemon) Log() string {
	text, err := os.ReadFile(filepath.Join(d.Dir, "log"))
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// Kill ends the daemon with SIGKILL; shims and tasks live on.
func (d *Daemon) Kill() { d.end(syscall.SIGKILL) }

// Stop ends the daemon as an operator does; shims and tasks live on.
func (d *Daemon) Stop() { d.end(syscall.SIGTERM) }

func (d *Daemon) end(signal syscall.Signal) {
	if d.cmd == nil {
		return
	}
	_ = d.cmd.Process.Signal(signal)
	kill := time.AfterFunc(patience, func() { _ = d.cmd.Process.Kill() })
	<-d.ended
	kill.Stop()
	d.cmd = nil
}

// Client connects to the daemon, in its namespace, until the test ends.
func (d *Daemon) Client(t testing.TB) *client.Client {
	t.Helper()
	c, err := client.New(d.Address, client.WithTimeout(patience), client.WithDefaultNamespace(d.Namespace))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// Context is one in the daemon's namespace that ends with the test.
func (d *Daemon) Context(t testing.TB) context.Context {
	return namespaces.WithNamespace(t.Context(), d.Namespace)
}

// Import gives the daemon the images of an archive, unpacked, and returns their
// names.
func (d *Daemon) Import(t testing.TB, archive string) []string {
	t.Helper()
	c, err := client.New(d.Address, client.WithTimeout(patience), client.WithDefaultNamespace(d.Namespace))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	f, err := os.Open(archive)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	ctx := d.Context(t)
	images, err := c.Import(ctx, f)
	if err != nil {
		t.Fatalf("import %s: %v", archive, err)
	}
	var names []string
	for _, i := range images {
		if err := client.NewImage(c, i).Unpack(ctx, ""); err != nil {
			t.Fatalf("unpack %s: %v", i.Name, err)
		}
		names = append(names, i.Name)
	}
	return names
}

// remove ends what runs and deletes what is left, however the test ended.
func (d *Daemon) remove() {
	if d.cmd == nil && d.anyShim() {
		d.Run(d.t) // to delete the tasks of a daemon that the test has ended
	}
	if d.cmd != nil {
		d.removeTasks()
	}
	d.Stop()
	for _, pid := range d.shims() {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	unmountBelow(d.Dir)
	unmountBelow(filepath.Join("/run/containerd/runc", d.Namespace))
	_ = os.RemoveAll(filepath.Join("/run/containerd/runc", d.Namespace))
	groups, _ := filepath.Glob("/sys/fs/cgroup/*/" + d.Namespace)
	for _, g := range append(groups, "/sys/fs/cgroup/"+d.Namespace) {
		removeGroup(g)
	}
	if err := os.RemoveAll(d.Dir); err != nil {
		d.t.Errorf("containerd's files stay: %v", err)
	}
}

func (d *Daemon) removeTasks() {
	ctx, cancel := context.WithTimeout(namespaces.WithNamespace(context.Background(), d.Namespace), patience)
	defer cancel()
	c, err := client.New(d.Address, client.WithTimeout(patience), client.WithDefaultNamespace(d.Namespace))
	if err != nil {
		d.t.Errorf("containerd's tasks stay: %v", err)
		return
	}
	defer c.Close()
	list, err := c.Containers(ctx)
	if err != nil {
		d.t.Errorf("containerd's tasks stay: %v", err)
	}
	for _, container := range list {
		if task, err := container.Task(ctx, nil); err == nil {
			_, _ = task.Delete(ctx, client.WithProcessKill)
		}
		_ = container.Delete(ctx, client.WithSnapshotCleanup)
	}
}

func (d *Daemon) anyShim() bool { return len(d.shims()) > 0 }

// shims are the processes that hold the daemon's tasks.
func (d *Daemon) shims() []int {
	var pids []int
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil || !bytes.Contains(text, []byte("containerd-shim")) || !bytes.Contains(text, []byte(d.Namespace)) {
			continue
		}
		// Namespaces are numbered: one's name may begin another's.
		for _, word := range strings.Split(string(text), "\x00") {
			if word == d.Namespace {
				if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(f))); err == nil {
					pids = append(pids, pid)
				}
				break
			}
		}
	}
	return pids
}

// unmountBelow unmounts everything that is mounted in a directory, what was
// mounted last first.
func unmountBelow(dir string) {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return
	}
	lines := strings.Split(string(text), "\n")
	for i := len(lines) - 1; i >= 0; i-- {
		if fields := strings.Fields(lines[i]); len(fields) > 4 && strings.HasPrefix(fields[4], dir+"/") {
			_ = unix.Unmount(fields[4], unix.MNT_DETACH)
		}
	}
}

// removeGroup removes a control group, those in it first.
func removeGroup(dir string) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	for _, e := range entries {
		if e.IsDir() {
			removeGroup(filepath.Join(dir, e.Name()))
		}
	}
	if err := unix.Rmdir(dir); err != nil && !errors.Is(err, unix.ENOENT) {
		return
	}
}
