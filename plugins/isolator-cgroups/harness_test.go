package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/mezzo-os/mezzo/plugins/internal/cgroup"
	"github.com/mezzo-os/mezzo/plugins/internal/holder"
	"github.com/mezzo-os/mezzo/plugins/internal/record"
	"github.com/mezzo-os/mezzo/sdk/isolator"
	"github.com/mezzo-os/mezzo/sdk/metric/metrictest"
	"github.com/mezzo-os/mezzo/sdk/plugin"
	isolatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/isolator/v1"
	pluginv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/plugin/v1"
	v1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
)

// shimPath is the mezzo-shim under test; MEZZO_TEST_SHIM names one that is
// built already, for a machine without Go.
var shimPath string

// The environment of a process of this binary that serves the plugin rather
// than running tests.
const (
	serveSocket = "MEZZO_TEST_SOCKET"
	serveConfig = "MEZZO_TEST_CONFIG"
	serveShim   = "MEZZO_TEST_SHIM"
)

func TestMain(m *testing.M) {
	if os.Getenv(serveSocket) != "" {
		if err := serveHelper(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(runTests(m))
}

func runTests(m *testing.M) int {
	shimPath = os.Getenv(serveShim)
	if shimPath == "" {
		dir, err := os.MkdirTemp("", "mezzo-shim-")
		if err != nil {
			panic(err)
		}
		defer os.RemoveAll(dir)
		_ = os.Chmod(dir, 0o755) // also for tests that run as nobody
		shimPath = filepath.Join(dir, holder.ShimName)
		build := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", shimPath, "./shim")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			panic(string(out))
		}
	}
	return m.Run()
}

// serveHelper serves a configured plugin on a socket until it is killed.
func serveHelper() error {
	p := newPlugin()
	p.Shim = os.Getenv(serveShim)
	health, err := configurePlugin(p, []byte(os.Getenv(serveConfig)), os.Getenv("HOME"))
	if err != nil {
		return err
	}
	if err := os.WriteFile(os.Getenv(serveSocket)+".health", []byte(health.GetState().String()+" "+health.GetMessage()), 0o600); err != nil {
		return err
	}
	l, err := net.Listen("unix", os.Getenv(serveSocket))
	if err != nil {
		return err
	}
	server := grpc.NewServer()
	isolatorv1.RegisterIsolatorServer(server, isolator.NewServer("cgroups", p))
	return server.Serve(l)
}

// configurePlugin configures p as the host does, over gRPC.
func configurePlugin(p *cgroups, config []byte, dataDir string) (*pluginv1.HealthStatus, error) {
	local, err := plugin.StartLocal(isolator.Plugin(p.definition(), p), nil)
	if err != nil {
		return nil, err
	}
	defer local.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	c := pluginv1.NewPluginClient(local.Conn)
	r, err := c.Configure(ctx, &pluginv1.ConfigureRequest{Config: config, ContractVersion: 1, DataDir: dataDir})
	if err != nil {
		return nil, err
	}
	if len(r.GetDiagnostics()) > 0 {
		return nil, fmt.Errorf("configure: %v", r.GetDiagnostics())
	}
	stream, err := c.Health(ctx, &pluginv1.HealthRequest{})
	if err != nil {
		return nil, err
	}
	return stream.Recv()
}

// node is a plugin under test, in this process or one of its own.
type node struct {
	isolatorv1.IsolatorClient
	t      *testing.T
	p      *cgroups // nil in a process of its own
	cmd    *exec.Cmd
	conn   *grpc.ClientConn
	dir    string
	config map[string]any
	health string
	user   int // whom containers run as
	ids    []string
	stop   func()
}

var rootNumber = os.Getpid() * 1000

// newNode serves the plugin in this process.
func newNode(t *testing.T, config map[string]any) *node {
	t.Helper()
	n := prepareNode(t, config)
	n.serve()
	return n
}

func prepareNode(t *testing.T, config map[string]any) *node {
	t.Helper()
	rootNumber++
	root := "mezzo-test-" + strconv.Itoa(rootNumber)
	n := &node{t: t, dir: t.TempDir(), config: map[string]any{
		"controllers": []string{"cpu", "memory", "pids"}, "root": root, "cfs_quota": false, "swap": false,
		"pids_max": 8192, "enforce": false, "runtime_dir": "",
	}}
	for k, v := range config {
		n.config[k] = v
	}
	for dir := n.dir; dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil { // tasks of other users have their sandboxes in it
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { n.finish(root) })
	return n
}

func (n *node) configText() []byte {
	text, err := json.Marshal(n.config)
	if err != nil {
		n.t.Fatal(err)
	}
	return text
}

// serve begins to serve in this process; again after a stop, it is the plugin
// that has been started anew.
func (n *node) serve() {
	n.t.Helper()
	p := newPlugin()
	p.Shim = shimPath
	local, err := plugin.StartLocal(isolator.Plugin(p.definition(), p), nil)
	if err != nil {
		n.t.Fatal(err)
	}
	r, err := pluginv1.NewPluginClient(local.Conn).Configure(n.ctx(), &pluginv1.ConfigureRequest{Config: n.configText(), ContractVersion: 1, DataDir: n.dir})
	if err != nil || len(r.GetDiagnostics()) > 0 {
		n.t.Fatalf("configure: %v %v", r.GetDiagnostics(), err)
	}
	n.p, n.IsolatorClient = p, isolatorv1.NewIsolatorClient(local.Conn)
	n.stop = func() {
		p.Close()
		local.Close()
		p.shutdown(context.Background())
		p.Reaped()
	}
}

// serveProcess serves the plugin in a process of its own, as user uid.
func (n *node) serveProcess(uid int) {
	n.t.Helper()
	socket := filepath.Join(n.dir, "s"+strconv.FormatInt(time.Now().UnixNano(), 36))
	n.cmd = exec.Command("/proc/self/exe")
	n.cmd.Env = []string{serveSocket + "=" + socket, serveConfig + "=" + string(n.configText()), serveShim + "=" + shimPath,
		"HOME=" + n.dir, "TMPDIR=" + n.dir, "PATH=" + os.Getenv("PATH")}
	n.cmd.Stdout, n.cmd.Stderr = os.Stdout, os.Stderr
	if uid != 0 {
		n.user = uid
		n.cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}}
		self, err := os.Executable()
		if err != nil {
			n.t.Fatal(err)
		}
		n.cmd.Path = n.copyForAll(self)
		if err := os.Chown(n.dir, uid, uid); err != nil {
			n.t.Fatal(err)
		}
	}
	if err := n.cmd.Start(); err != nil {
		n.t.Fatal(err)
	}
	n.stop = n.crash
	n.eventually("the plugin to listen", func() bool {
		conn, err := net.Dial("unix", socket)
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
	text, err := os.ReadFile(socket + ".health")
	if err != nil {
		n.t.Fatal(err)
	}
	n.health = string(text)
	n.conn, err = grpc.NewClient("unix:"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		n.t.Fatal(err)
	}
	n.IsolatorClient = isolatorv1.NewIsolatorClient(n.conn)
}

// copyForAll copies a program to where every user may run it.
func (n *node) copyForAll(path string) string {
	n.t.Helper()
	dir, err := os.MkdirTemp("", "mezzo-test-")
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { os.RemoveAll(dir) })
	text, err := os.ReadFile(path)
	if err != nil {
		n.t.Fatal(err)
	}
	to := filepath.Join(dir, "plugin")
	if err := os.Chmod(dir, 0o755); err != nil {
		n.t.Fatal(err)
	}
	if err := os.WriteFile(to, text, 0o755); err != nil {
		n.t.Fatal(err)
	}
	return to
}

// crash kills the plugin's process.
func (n *node) crash() {
	n.t.Helper()
	_ = n.conn.Close()
	if err := n.cmd.Process.Kill(); err != nil {
		n.t.Fatal(err)
	}
	_ = n.cmd.Wait()
}

func (n *node) ctx() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	n.t.Cleanup(cancel)
	return ctx
}

// eventually waits for what another process does.
func (n *node) eventually(what string, ok func() bool) {
	n.t.Helper()
	for until := time.Now().Add(50 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(until) {
			n.t.Fatalf("waited in vain for %s", what)
		}
	}
}

// box is a container to be.
type box struct {
	id   string
	task *isolatorv1.Task
	spec *specs.Spec
	logs *isolatorv1.Logs
	req  func(*isolatorv1.CreateRequest)
}

func scalar(name string, value float64) *v1.Resource {
	kind := v1.Value_SCALAR
	return &v1.Resource{Name: &name, Type: &kind, Scalar: &v1.Value_Scalar{Value: &value}}
}

// shell is a container that runs a script.
func (n *node) shell(id, script string) *box {
	return &box{
		id:   id,
		task: &isolatorv1.Task{TaskId: id, Resources: []*v1.Resource{scalar("cpus", 1), scalar("mem", 64)}},
		spec: &specs.Spec{Process: &specs.Process{
			Args: []string{"sh", "-c", script}, Env: []string{"PATH=/usr/local/bin:/usr/bin:/bin", "GREETING=hello"},
			User: specs.User{UID: uint32(n.user), GID: uint32(n.user)},
		}},
	}
}

func (n *node) sandbox(id string) string { return filepath.Join(n.dir, "work", id) }

// create prepares and creates a container, and has it cleaned up.
func (n *node) create(b *box) (int64, error) {
	n.t.Helper()
	sandbox := n.sandbox(b.id)
	if err := os.MkdirAll(sandbox, 0o755); err != nil {
		n.t.Fatal(err)
	}
	if b.spec.Process != nil {
		b.spec.Process.Cwd = sandbox
		if err := os.Chown(sandbox, int(b.spec.Process.User.UID), int(b.spec.Process.User.GID)); err != nil {
			n.t.Fatal(err)
		}
	}
	text, err := json.Marshal(b.spec)
	if err != nil {
		n.t.Fatal(err)
	}
	prepared, err := n.Prepare(n.ctx(), &isolatorv1.PrepareRequest{Container: b.id, Task: b.task, Spec: text, Sandbox: sandbox})
	if err != nil {
		return 0, err
	}
	r := &isolatorv1.CreateRequest{Container: b.id, Task: b.task, Spec: prepared.GetSpec(), Sandbox: sandbox, Logs: b.logs}
	if b.req != nil {
		b.req(r)
	}
	n.ids = append(n.ids, b.id)
	created, err := n.Create(n.ctx(), r)
	return created.GetPid(), err
}

// run creates and starts a container.
func (n *node) run(b *box) int64 {
	n.t.Helper()
	pid, err := n.create(b)
	if err != nil {
		n.t.Fatal(err)
	}
	if _, err := n.Start(n.ctx(), &isolatorv1.StartRequest{Container: b.id}); err != nil {
		n.t.Fatal(err)
	}
	return pid
}

func (n *node) wait(id string) *isolatorv1.ExitStatus {
	n.t.Helper()
	r, err := n.Wait(n.ctx(), &isolatorv1.WaitRequest{Container: id})
	if err != nil {
		n.t.Fatal(err)
	}
	return r.GetStatus()
}

func (n *node) cleanup(id string) {
	n.t.Helper()
	if _, err := n.Cleanup(n.ctx(), &isolatorv1.CleanupRequest{Container: id}); err != nil {
		n.t.Errorf("cleanup %s: %v", id, err)
	}
}

func (n *node) read(id, name string) string {
	n.t.Helper()
	text, err := os.ReadFile(filepath.Join(n.sandbox(id), name))
	if err != nil {
		n.t.Fatal(err)
	}
	return string(text)
}

// awaitOutput waits until a container has written the line to stdout.
func (n *node) awaitOutput(id, line string) {
	n.t.Helper()
	n.eventually(strconv.Quote(line)+" on stdout of "+id, func() bool {
		text, _ := os.ReadFile(filepath.Join(n.sandbox(id), "stdout"))
		return strings.Contains(string(text), line+"\n")
	})
}

// alive tells whether the process runs; one that only waits to be reaped does
// not.
func alive(pid int) bool {
	f := holder.StatFields(strconv.Itoa(pid))
	return len(f) > 0 && f[0] != "Z" && f[0] != "X"
}

// finish cleans every container up, ends the plugin, and looks for what a test
// must not leave: state, cgroups, and processes that know of its directory.
func (n *node) finish(root string) {
	n.t.Helper()
	if n.stop == nil {
		return
	}
	for _, id := range slices.Backward(n.ids) {
		n.cleanup(id)
	}
	n.stop()
	if entries, _ := os.ReadDir(filepath.Join(n.dir, "containers")); len(entries) > 0 {
		n.t.Errorf("state of containers is left: %v", entries)
	}
	controllers, _ := n.config["controllers"].([]string)
	if len(controllers) == 0 {
		controllers = []string{"cpu", "memory", "pids"}
	}
	if host, err := cgroup.Detect(root, controllers); err == nil {
		if n.config["perf_events"] != nil {
			_ = host.AddPerf() // where there is none nothing was made
		}
		if n.p == nil && !host.DeleteRoot() { // a killed plugin leaves its root, and nothing in it
			n.t.Errorf("cgroups in %s are left", root)
		}
		if host.Exists("") {
			n.t.Errorf("cgroup %s is left", root)
		}
	}
	n.eventually("every process of the test to end", func() bool { return len(n.processes()) == 0 })
}

// processes are the pids of those whose command line or directory is in the
// node's directory.
func (n *node) processes() []string {
	all, _ := filepath.Glob("/proc/[0-9]*")
	return slices.DeleteFunc(all, func(dir string) bool {
		pid, _ := strconv.Atoi(filepath.Base(dir))
		cmdline, _ := os.ReadFile(dir + "/cmdline")
		cwd, _ := os.Readlink(dir + "/cwd")
		return !alive(pid) || !strings.Contains(string(cmdline)+"\x00"+cwd, n.dir+"/")
	})
}

// shimOf returns the pid of a container's shim.
func (n *node) shimOf(id string) int {
	n.t.Helper()
	r, err := record.Read(filepath.Join(n.dir, "containers", id, record.ShimFile))
	if err != nil {
		n.t.Fatal(err)
	}
	return int(r.Int(record.ShimPid))
}

// absentInCI is what the machine of CI lacks; make test-cgroup2 has a machine with
// it.
var absentInCI = []string{"hugetlb", "net_cls", "delegated cgroups", "perf"}

// lacking skips a test for want of something. In CI it fails instead, so that no
// test is lost there without a word: but for what is known to be absent.
func lacking(t *testing.T, what, format string, args ...any) {
	t.Helper()
	if os.Getenv("CI") == "true" && !slices.Contains(absentInCI, what) {
		t.Fatalf("%s is lacking: %s", what, fmt.Sprintf(format, args...))
	}
	t.Skipf("%s is lacking: %s", what, fmt.Sprintf(format, args...))
}

// wantMetric checks what the plugin tells of itself.
func (n *node) wantMetric(want float64, name string, labels ...string) {
	n.t.Helper()
	if got, there := metrictest.Value(n.p.Metrics, name, labels...); got != want || !there {
		n.t.Errorf("%s%q is %v (%v), want %v", name, labels, got, there, want)
	}
}
