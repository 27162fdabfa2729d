package test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// patience bounds every wait for something that must happen.
const patience = 60 * time.Second

// bin is where TestMain has put the binaries.
var bin string

func TestMain(m *testing.M) {
	code, err := buildAndRun(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "test:", err)
		code = 1
	}
	os.Exit(code)
}

// binEnv tells a test that runs again, in a process of its own, where they are.
const binEnv = "MEZZO_TEST_BIN"

func buildAndRun(m *testing.M) (int, error) {
	if bin = os.Getenv(binEnv); bin != "" {
		return m.Run(), nil
	}
	dir, err := os.MkdirTemp("", "mezzo-e2e-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil {
		return 0, err
	}
	bin = dir
	for out, pkg := range map[string]string{
		"mezzo":                             "..",
		"mezzo-demo":                        "./demo",
		"scheduler-hello":                   "../sdk/examples/scheduler-hello",
		"executor-hello":                    "../sdk/examples/executor-hello",
		"plugins/mezzo-allocator-drf":       "../plugins/allocator-drf",
		"plugins/mezzo-allocator-priority":  "../plugins/allocator-priority",
		"plugins/mezzo-allocator-faulty":    "./allocator-faulty",
		"plugins/mezzo-allocator-broken":    "./broken",
		"plugins/mezzo-allocator-lottery":   "../sdk/examples/allocator-lottery",
		"plugins/mezzo-isolator-cgroups":    "../plugins/isolator-cgroups",
		"plugins/mezzo-framework-mesos":     "../plugins/framework-mesos",
		"mesos-executor":                    "./mesos-executor",
		"plugins/mezzo-framework-cron":      "../sdk/examples/framework-cron",
		"plugins/mezzo-shim":                "../plugins/isolator-cgroups/shim",
		"plugins/mezzo-isolator-containerd": "../plugins/isolator-containerd",
		"plugins/mezzo-init":                "../plugins/isolator-containerd/init",
	} {
		cmd := exec.Command("go", "build", "-trimpath", "-o", filepath.Join(dir, out), pkg)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if text, err := cmd.CombinedOutput(); err != nil {
			return 0, fmt.Errorf("build %s: %w\n%s", pkg, err, text)
		}
	}
	return m.Run(), nil
}

// cluster is one `mezzo dev`, or what a master that was started leads.
type cluster struct {
	*server
	dir string
}

// clusterAt is the cluster of a master at an address.
func clusterAt(t *testing.T, address string) *cluster {
	return &cluster{server: &server{t: t, fields: map[string]string{"rpc": address}}}
}

type syncBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

const smallAgent = "cpus:4;mem:2048;disk:4096;ports:[31000-31999]"

// startDev starts a cluster on free ports and stops it when the test ends.
func startDev(t *testing.T, args ...string) *cluster {
	t.Helper()
	dir := filepath.Join(tempDir(t), "cluster")
	all := append([]string{"dev", "--rpc", "127.0.0.1:0", "--http", "127.0.0.1:0", "--dir", dir}, args...)
	if !strings.Contains(strings.Join(args, " "), "--resources") {
		all = append(all, "--resources", smallAgent)
	}
	c := &cluster{server: serve(t, nil, all...), dir: dir}
	t.Cleanup(c.stop)
	return c
}

// tempDir is a directory that every user may pass through.
func tempDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "mezzo-e2e-dir-")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("remove %s: %v", dir, err)
		}
	})
	return dir
}

// stop is Ctrl-C. It may be called again.
func (c *cluster) stop() {
	c.t.Helper()
	c.server.stop(syscall.SIGINT)
}

// result is what a command left.
type result struct {
	stdout, stderr string
	code           int
}

// mezzo runs one command line against the cluster, to its end.
func (c *cluster) mezzo(args ...string) result {
	c.t.Helper()
	return mezzo(c.t, []string{"MEZZO_ADDRESS=" + c.fields["rpc"]}, args...)
}

func mezzo(t *testing.T, env []string, args ...string) result {
	t.Helper()
	return mezzoAs(t, func(cmd *exec.Cmd) { cmd.Env = append(os.Environ(), env...) }, args...)
}

// start runs a command line in the background.
func (c *cluster) start(args ...string) *background {
	c.t.Helper()
	return startMezzo(c.t, []string{"MEZZO_ADDRESS=" + c.fields["rpc"]}, args...)
}

func startMezzo(t *testing.T, env []string, args ...string) *background {
	t.Helper()
	b := &background{t: t, stdout: &syncBuffer{}, stderr: &syncBuffer{}, ended: make(chan struct{})}
	b.cmd = exec.Command(filepath.Join(bin, "mezzo"), args...)
	b.cmd.Env = append(os.Environ(), env...)
	b.cmd.Stdout, b.cmd.Stderr = b.stdout, b.stderr
	if err := b.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = b.cmd.Wait()
		close(b.ended)
	}()
	t.Cleanup(func() {
		_ = b.cmd.Process.Kill()
		<-b.ended
	})
	return b
}

type background struct {
	t              *testing.T
	cmd            *exec.Cmd
	stdout, stderr *syncBuffer
	ended          chan struct{}
}

func (b *background) wait() result {
	b.t.Helper()
	select {
	case <-b.ended:
	case <-time.After(patience):
		b.t.Fatalf("%v did not end\nstdout: %s\nstderr: %s", b.cmd.Args, b.stdout, b.stderr)
	}
	return result{b.stdout.String(), b.stderr.String(), b.cmd.ProcessState.ExitCode()}
}

// list reads a list verb's JSON.
func (c *cluster) list(args ...string) []map[string]any {
	c.t.Helper()
	r := c.mezzo(append(args, "--json")...)
	if r.code != 0 {
		return nil // the cluster may be in the middle of a restart
	}
	var items []map[string]any
	if err := json.Unmarshal([]byte(r.stdout), &items); err != nil {
		c.t.Fatalf("mezzo %v --json printed no list: %v\n%s", args, err, r.stdout)
	}
	return items
}

// task is the task with this name, ended ones too.
func (c *cluster) task(name string) map[string]any {
	c.t.Helper()
	for _, task := range c.list("tasks", "--all") {
		if task["name"] == name {
			return task
		}
	}
	return nil
}

func (c *cluster) plugin(id string) map[string]any {
	c.t.Helper()
	for _, p := range c.list("plugins") {
		if p["id"] == id {
			return p
		}
	}
	return nil
}

// eventually waits for a condition, asking again and again.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !condition(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited %s in vain for: %s", patience, what)
		}
	}
}

// alive says whether a process lives; a zombie does not.
func alive(pid int) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, rest, _ := strings.Cut(string(text), ") ")
	return !strings.HasPrefix(rest, "Z")
}
