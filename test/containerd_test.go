package test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/mezzo-os/mezzo/plugins/isolator-containerd/containerdtest"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
)

const testImage = "mezzo.test/busybox:latest"

// imageTask is a task in busybox.
func imageTask(id, script string) *mezzov1.TaskInfo {
	t := shellTask(id, script)
	t.Container = &mezzov1.ContainerInfo{Type: mezzov1.ContainerInfo_MESOS.Enum(), Mesos: &mezzov1.ContainerInfo_MesosInfo{Image: &mezzov1.Image{
		Type: mezzov1.Image_DOCKER.Enum(), Docker: &mezzov1.Image_Docker{Name: proto.String(testImage)},
	}}}
	return t
}

// containerd is a cluster whose agent has both isolators, and a containerd of its
// own.
type containerd struct {
	*cluster
	daemon *containerdtest.Daemon
	dir    string // the agent's
	agent  *server
	args   []string
}

func startContainerd(t *testing.T) *containerd {
	t.Helper()
	return startContainerdWith(t, smallAgent)
}

func startContainerdWith(t *testing.T, resources string) *containerd {
	t.Helper()
	daemon := containerdtest.Start(t)
	daemon.Import(t, containerdtest.Busybox(testImage).WriteOCI(t))
	dir := tempDir(t)
	file := writeFile(t, filepath.Join(dir, "agent.hcl"), containerdConfig(daemon))
	ports := []string{"--rpc", "127.0.0.1:0", "--http", "127.0.0.1:0"}
	master := serve(t, nil, append([]string{"master", "--data-dir", filepath.Join(dir, "m")}, ports...)...)
	c := &containerd{cluster: &cluster{t: t, fields: master.fields}, daemon: daemon, dir: filepath.Join(dir, "a"), args: append([]string{
		"agent", "--config", file, "--data-dir", filepath.Join(dir, "a"), "--master", master.fields["rpc"], "--resources", resources,
	}, ports...)}
	c.agent = serve(t, nil, c.args...)
	return c
}

func containerdConfig(daemon *containerdtest.Daemon) string {
	return fmt.Sprintf("isolator \"cgroups\" {\n}\n\nisolator \"containerd\" {\n  config {\n    address = %q\n    namespace = %q\n    root = %q\n  }\n}\n",
		daemon.Address, daemon.Namespace, daemon.Namespace)
}

// A task in an image runs beside one of the host, to its end; so does a group in
// images.
func TestContainerdRuns(t *testing.T) {
	t.Parallel()
	c := startContainerd(t)
	r := newRunner(t, c.fields["rpc"])
	r.launch(imageTask("boxed", "test -x /bin/busybox && test ! -e /usr/lib && echo in a box; exit 3"), shellTask("plain", "test -e /usr/lib && echo on the host"))
	if s := r.ends("boxed", mezzov1.TaskState_TASK_FAILED); s.GetMessage() != "Command exited with status 3" {
		t.Errorf("boxed: %v", s)
	}
	r.ends("plain", mezzov1.TaskState_TASK_FINISHED)
	for task, want := range map[string]string{"boxed": "in a box\n", "plain": "on the host\n"} {
		if l := c.mezzo("logs", task); l.stdout != want {
			t.Errorf("logs of %s: %+v", task, l)
		}
	}
	r.launchGroup(imageTask("first", "echo shared > /dev/shm/x; readlink /proc/self/ns/ipc"), imageTask("second", "while [ ! -e /dev/shm/x ]; do sleep 0.05; done; readlink /proc/self/ns/ipc"))
	r.ends("first", mezzov1.TaskState_TASK_FINISHED)
	r.ends("second", mezzov1.TaskState_TASK_FINISHED)
	c.removed()
	if first, second := c.mezzo("logs", "first").stdout, c.mezzo("logs", "second").stdout; first == "" || first != second {
		t.Errorf("IPC namespaces of a group: %q and %q", first, second)
	}
}

// The plugin, the agent and containerd are killed, one after the other, while
// tasks run and end: each is told of once, with the right end.
func TestContainerdKilled(t *testing.T) {
	t.Parallel()
	c := startContainerd(t)
	r := newRunner(t, c.fields["rpc"])
	gate := tempDir(t)
	wait := func(name string) string {
		return fmt.Sprintf("echo up; while [ ! -e /gate/%s ]; do sleep 0.05; done; echo down; exit 5", name)
	}
	names := []string{"plugin", "agent", "containerd", "after"}
	for _, name := range names {
		task := imageTask(name, wait(name))
		task.Container.Volumes = []*mezzov1.Volume{{Mode: mezzov1.Volume_RO.Enum(), ContainerPath: proto.String("/gate"), HostPath: proto.String(gate)}}
		r.launch(task)
	}
	for _, name := range names {
		r.until(name, "running", runs)
		eventually(t, name+" to be up", func() bool { return c.mezzo("logs", name).stdout == "up\n" })
	}
	open := func(name string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(gate, name), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	ended := func(name string) {
		t.Helper()
		if s := r.ends(name, mezzov1.TaskState_TASK_FAILED); s.GetMessage() != "Command exited with status 5" {
			t.Errorf("%s: %v", name, s)
		}
		if l := c.mezzo("logs", name); l.stdout != "up\ndown\n" {
			t.Errorf("logs of %s: %+v", name, l)
		}
	}
	pid, _ := c.plugin("isolator/containerd")["pid"].(float64)
	if err := syscall.Kill(int(pid), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	open("plugin")
	ended("plugin")

	c.agent.stop(syscall.SIGKILL)
	open("agent")
	c.agent = serve(t, nil, c.args...)
	ended("agent")

	c.daemon.Kill()
	open("containerd")
	ended("containerd") // without it
	eventually(t, "the agent to say which isolator is unhealthy", func() bool {
		return strings.Contains(c.mezzo("plugins").stdout, "unhealthy")
	})
	c.daemon.Run(t)
	open("after")
	ended("after")
	eventually(t, "the isolator to be well", func() bool { return c.plugin("isolator/containerd")["state"] == "healthy" })
	r.launch(imageTask("again", "exit 0"))
	r.ends("again", mezzov1.TaskState_TASK_FINISHED)
	c.removed()
}

// removed waits until nothing is left of any container: the state directory is
// what goes last.
func (c *containerd) removed() {
	c.t.Helper()
	client := c.daemon.Client(c.t)
	eventually(c.t, "everything to be removed", func() bool {
		state, err := os.ReadDir(filepath.Join(c.dir, "agent", "plugins", "isolator-containerd", "containers"))
		if err != nil || len(state) > 0 {
			return false
		}
		left, err := client.ContainerService().List(c.daemon.Context(c.t))
		return err == nil && len(left) == 0
	})
}

// The isolator keeps its contract, also when its process is killed.
func TestContainerdKeepsItsContract(t *testing.T) {
	t.Parallel()
	daemon := containerdtest.Start(t)
	config := "agent {\n}\n\n" + strings.Replace(containerdConfig(daemon), "  config {\n", "  config {\n    default = true\n", 1)
	file := writeFile(t, filepath.Join(tempDir(t), "agent.hcl"), config)
	r := mezzo(t, nil, "plugin", "verify", filepath.Join(bin, "plugins", "mezzo-isolator-containerd"), "--config", file, "--patience", "1m")
	if r.code != 0 || !strings.Contains(r.stdout, " 0 failed") {
		t.Errorf("exit %d, stderr %s\n%s", r.code, r.stderr, r.stdout)
	}
}
