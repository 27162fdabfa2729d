package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/grpc"

	"github.com/mezzo-os/mezzo/plugins/internal/holder"
	"github.com/mezzo-os/mezzo/plugins/isolator-containerd/containerdtest"
	"github.com/mezzo-os/mezzo/sdk/isolator"
	"github.com/mezzo-os/mezzo/sdk/plugin"
	isolatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/isolator/v1"
	pluginv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/plugin/v1"
	v1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
)

// programs is where mezzo-shim and mezzo-init are, built for the test.
var programs string

func TestMain(m *testing.M) { os.Exit(runTests(m)) }

func runTests(m *testing.M) int {
	if programs = os.Getenv("MEZZO_TEST_PROGRAMS"); programs != "" { // a machine without Go
		return m.Run()
	}
	dir, err := os.MkdirTemp("", "mezzo-containerd-")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	programs = dir
	for program, from := range map[string]string{holder.ShimName: "../isolator-cgroups/shim", initName: "./init"} {
		build := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", filepath.Join(dir, program), from)
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			panic(string(out))
		}
	}
	return m.Run()
}

// busybox is the image that tests run.
const busybox = "mezzo.test/busybox:latest"

// node is an agent's plugin under test, with a containerd of its own.
type node struct {
	isolatorv1.IsolatorClient
	t      *testing.T
	daemon *containerdtest.Daemon
	p      *plug
	conn   *grpc.ClientConn
	dir    string
	config map[string]any
	ids    []string
	stop   func()
}

func newNode(t *testing.T, config map[string]any) *node {
	t.Helper()
	daemon := containerdtest.Start(t)
	dir, err := os.MkdirTemp("", "mezzo-node-")
	if err != nil {
		t.Fatal(err)
	}
	n := &node{t: t, daemon: daemon, dir: dir, config: map[string]any{
		"address": daemon.Address, "namespace": daemon.Namespace, "root": daemon.Namespace,
	}}
	for k, v := range config {
		n.config[k] = v
	}
	t.Cleanup(n.finish)
	n.serve()
	return n
}

// withImage is a node that has busybox.
func withImage(t *testing.T, config map[string]any) *node {
	t.Helper()
	n := newNode(t, config)
	n.daemon.Import(t, containerdtest.Busybox(busybox).WriteOCI(t))
	return n
}

// settings are the whole configuration, with the schema's defaults.
func settings(t *testing.T, config map[string]any) []byte {
	t.Helper()
	all := map[string]any{
		"runtime": "io.containerd.runc.v2", "snapshotter": "", "default": false, "default_image": "", "cfs_quota": false, "swap": false,
		"pids_max": 8192, "runtime_dir": "", "allow_privileged": false, "no_new_privs": false, "seccomp_profile": "default", "seccomp_dir": "",
		"apparmor_profile": "", "docker_config": "", "image_user": "mesos", "proxy": "", "platform": "", "pull_stall_timeout": time.Minute, "keep_images_for": time.Hour, "image_disk_high": 0,
		"cni_conf_dir": "/etc/cni/net.d", "cni_bin_dirs": []string{"/usr/lib/cni"}, "bridge": "mezzo0", "bridge_subnet": "10.90.0.0/16",
	}
	for k, v := range config {
		all[k] = v
	}
	text, err := json.Marshal(all)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// serve begins to serve; again after a stop, it is the plugin started anew.
func (n *node) serve() {
	n.t.Helper()
	p := newPlugin()
	p.Shim, p.init = filepath.Join(programs, holder.ShimName), filepath.Join(programs, initName)
	local, err := plugin.StartLocal(isolator.Plugin(p.definition(), p), nil)
	if err != nil {
		n.t.Fatal(err)
	}
	r, err := pluginv1.NewPluginClient(local.Conn).Configure(n.ctx(), &pluginv1.ConfigureRequest{Config: settings(n.t, n.config), ContractVersion: 1, DataDir: n.dir})
	if err != nil || len(r.GetDiagnostics()) > 0 {
		n.t.Fatalf("configure: %v %v", r.GetDiagnostics(), err)
	}
	n.p, n.IsolatorClient, n.conn = p, isolatorv1.NewIsolatorClient(local.Conn), local.Conn
	n.stop = func() {
		p.Close()
		local.Close()
		p.shutdown(context.Background())
	}
}

// restart ends the plugin, and starts it anew; nothing is done in good order
// but what the test's own process needs.
func (n *node) restart() {
	n.t.Helper()
	n.stop()
	n.serve()
}

// finish removes every container, and finds what stays.
func (n *node) finish() {
	if n.p == nil {
		return // it has never served
	}
	for i := len(n.ids) - 1; i >= 0; i-- {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		if _, err := n.Cleanup(ctx, &isolatorv1.CleanupRequest{Container: n.ids[i]}); err != nil {
			n.t.Errorf("cleanup of %s: %v", n.ids[i], err)
		}
		cancel()
	}
	n.nothingLeft()
	n.stop()
	n.p.Reaped()
	if err := os.RemoveAll(n.dir); err != nil {
		n.t.Error(err)
	}
}

// nothingLeft finds what a container has left behind.
func (n *node) nothingLeft() {
	n.t.Helper()
	client, err := n.p.connection.get()
	if err != nil {
		return // the test has taken containerd away
	}
	ctx, cancel := context.WithTimeout(n.p.connection.in(context.Background()), time.Minute)
	defer cancel()
	list, err := client.ContainerService().List(ctx)
	if err != nil || len(list) > 0 {
		n.t.Errorf("containers stay in containerd: %v, %v", list, err)
	}
	leases, err := client.LeasesService().List(ctx)
	if err != nil || len(leases) > 0 {
		n.t.Errorf("leases stay: %v, %v", leases, err)
	}
	if entries, err := os.ReadDir(n.p.Dir); err != nil || len(entries) > 0 {
		n.t.Errorf("state stays: %v, %v", entries, err)
	}
	if list, err := n.p.networks.Containers(); err != nil || len(list) > 0 {
		n.t.Errorf("networks stay: %v, %v", list, err)
	}
	if groups, _ := filepath.Glob("/sys/fs/cgroup/*/" + n.daemon.Namespace + "/*/"); len(groups) > 0 {
		n.t.Errorf("cgroups stay: %v", groups)
	}
	if text, err := os.ReadFile("/proc/self/mountinfo"); err != nil || strings.Contains(string(text), n.dir) {
		n.t.Errorf("mounts stay: %v\n%s", err, text)
	}
}

func (n *node) ctx() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	n.t.Cleanup(cancel)
	return ctx
}

// eventually waits for what another process does.
func (n *node) eventually(what string, ok func() bool, instead ...func() string) {
	n.t.Helper()
	for until := time.Now().Add(time.Minute); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(until) {
			text := ""
			for _, f := range instead {
				text += "\n" + f()
			}
			n.t.Fatalf("waited in vain for %s%s", what, text)
		}
	}
}

// box is a container to be.
type box struct {
	id   string
	task *isolatorv1.Task
	spec *specs.Spec
	req  func(*isolatorv1.CreateRequest)
}

func scalar(name string, value float64) *v1.Resource {
	kind := v1.Value_SCALAR
	return &v1.Resource{Name: &name, Type: &kind, Scalar: &v1.Value_Scalar{Value: &value}}
}

// shell is a container that runs a script in busybox.
func (n *node) shell(id, script string) *box {
	value, shell := script, true
	return &box{
		id: id,
		task: &isolatorv1.Task{
			TaskId: id, User: "root", Resources: []*v1.Resource{scalar("cpus", 1), scalar("mem", 64)},
			Image:   &isolatorv1.TaskImage{Reference: busybox, Pull: isolatorv1.TaskImage_PULL_NEVER},
			Command: &v1.CommandInfo{Value: &value, Shell: &shell},
		},
		spec: &specs.Spec{Process: &specs.Process{
			Args: []string{"/bin/sh", "-c", script}, Env: []string{"GREETING=hello"}, Cwd: imageSandbox,
		}},
	}
}

func (n *node) sandbox(id string) string { return filepath.Join(n.dir, "work", id) }

func (n *node) read(id, name string) string {
	text, _ := os.ReadFile(filepath.Join(n.sandbox(id), name)) // not there yet: empty
	return string(text)
}

// prepare goes as far as Prepare.
func (n *node) prepare(b *box) ([]byte, error) {
	n.t.Helper()
	if err := os.MkdirAll(n.sandbox(b.id), 0o777); err != nil {
		n.t.Fatal(err)
	}
	n.ids = append(n.ids, b.id)
	if b.task.GetImage() != nil {
		stream, err := n.Provision(n.ctx(), &isolatorv1.ProvisionRequest{Container: b.id, Task: b.task})
		if err != nil {
			return nil, err
		}
		for err == nil {
			_, err = stream.Recv()
		}
		if err.Error() != "EOF" {
			return nil, err
		}
	}
	text, err := json.Marshal(b.spec)
	if err != nil {
		n.t.Fatal(err)
	}
	prepared, err := n.Prepare(n.ctx(), &isolatorv1.PrepareRequest{Container: b.id, Task: b.task, Spec: text, Sandbox: n.sandbox(b.id)})
	return prepared.GetSpec(), err
}

// create goes as far as Create.
func (n *node) create(b *box) (*isolatorv1.CreateResponse, error) {
	n.t.Helper()
	spec, err := n.prepare(b)
	if err != nil {
		return nil, err
	}
	request := &isolatorv1.CreateRequest{Container: b.id, Task: b.task, Spec: spec, Sandbox: n.sandbox(b.id)}
	if b.req != nil {
		b.req(request)
	}
	return n.Create(n.ctx(), request)
}

// run makes a container and starts it.
func (n *node) run(b *box) *isolatorv1.CreateResponse {
	n.t.Helper()
	created, err := n.create(b)
	if err != nil {
		n.t.Fatalf("container %s: %v", b.id, err)
	}
	if _, err := n.Start(n.ctx(), &isolatorv1.StartRequest{Container: b.id}); err != nil {
		n.t.Fatalf("container %s: start: %v\n%s", b.id, err, n.shimLog(b.id))
	}
	return created
}

func (n *node) shimLog(id string) string {
	text, _ := os.ReadFile(filepath.Join(n.p.Dir, id, "shim.log"))
	init, _ := os.ReadFile(filepath.Join(n.p.Dir, id, initLog))
	text = append(text, init...)
	return string(text)
}

func (n *node) wait(id string) *isolatorv1.ExitStatus {
	n.t.Helper()
	r, err := n.Wait(n.ctx(), &isolatorv1.WaitRequest{Container: id})
	if err != nil {
		n.t.Fatalf("container %s: wait: %v", id, err)
	}
	return r.GetStatus()
}

// outcome runs a script to its end, and fails unless it ends by code 0.
func (n *node) outcome(b *box) string {
	n.t.Helper()
	n.run(b)
	if s := n.wait(b.id); s.GetCode() != 0 || s.GetSignal() != 0 {
		n.t.Fatalf("container %s ended by %v; stdout %q, stderr %q", b.id, s, n.read(b.id, "stdout"), n.read(b.id, "stderr"))
	}
	return n.read(b.id, "stdout")
}

func (n *node) output(id, line string) {
	n.t.Helper()
	n.eventually(fmt.Sprintf("%q in the output of %s", line, id), func() bool { return strings.Contains(n.read(id, "stdout"), line+"\n") })
}
