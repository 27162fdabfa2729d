package test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/snapshots"
	"google.golang.org/protobuf/proto"

	"github.com/mezzo-os/mezzo/plugins/isolator-containerd/containerdtest"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
)

const testImage = "mezzo.test/busybox:latest"

// imageTask is a task in busybox.
func imageTask(id, script string) *mezzov1.TaskInfo {
	t := shellTask(id, script)
	inImage(t)
	return t
}

// inImage puts a task into busybox.
func inImage(t *mezzov1.TaskInfo) {
	if t.Container == nil {
		t.Container = &mezzov1.ContainerInfo{Type: mezzov1.ContainerInfo_MESOS.Enum()}
	}
	t.Container.Mesos = &mezzov1.ContainerInfo_MesosInfo{Image: &mezzov1.Image{
		Type: mezzov1.Image_DOCKER.Enum(), Docker: &mezzov1.Image_Docker{Name: proto.String(testImage)},
	}}
}

// onBridge puts a task into busybox, with an address of its own.
func onBridge(t *mezzov1.TaskInfo) {
	t.Container = &mezzov1.ContainerInfo{Type: mezzov1.ContainerInfo_DOCKER.Enum(), Docker: &mezzov1.ContainerInfo_DockerInfo{
		Image: proto.String(testImage), Network: mezzov1.ContainerInfo_DockerInfo_BRIDGE.Enum(),
	}}
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
	return startContainerdAs(t, daemon, resources, containerdConfig(daemon), "")
}

// startContainerdAs starts an agent and a master that are configured so.
func startContainerdAs(t *testing.T, daemon *containerdtest.Daemon, resources, forAgent, forMaster string) *containerd {
	t.Helper()
	dir := tempDir(t)
	file := writeFile(t, filepath.Join(dir, "agent.hcl"), forAgent)
	ports := []string{"--rpc", "127.0.0.1:0", "--http", "127.0.0.1:0"}
	master := serve(t, nil, append([]string{"master", "--config", writeFile(t, filepath.Join(dir, "master.hcl"), forMaster), "--data-dir", filepath.Join(dir, "m")}, ports...)...)
	c := &containerd{cluster: &cluster{server: master}, daemon: daemon, dir: filepath.Join(dir, "a"), args: append([]string{
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
	c.kill("isolator/containerd")
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

// An agent changes from cgroups to containerd: what runs runs on and ends as it
// would have, and what comes is containerd's.
func TestReloadFromCgroups(t *testing.T) {
	t.Parallel()
	daemon := containerdtest.Start(t)
	c := startContainerdAs(t, daemon, smallAgent, "isolator \"cgroups\" {}\n", "")
	b := c.start("run", "--name", "old", "--", "sh", "-c", "echo up; while [ ! -e $MESOS_SANDBOX/go ]; do sleep 0.05; done; exit 7")
	eventually(t, "the task", func() bool { return b.stdout.String() == "up\n" })
	id := fmt.Sprint(c.task("old")["id"])
	launched := func() bool {
		list, err := daemon.Client(t).ContainerService().List(daemon.Context(t))
		if err != nil {
			t.Fatal(err)
		}
		return len(list) > 0
	}
	_, isolator, _ := strings.Cut(containerdConfig(daemon), "\n\n")
	writeFile(t, c.args[2], strings.Replace(isolator, "  config {\n", "  config {\n    default = true\n", 1))
	if r := c.mezzo("reload", "--address", c.agent.fields["agent"]); r.code != 0 || !strings.Contains(r.stdout, "isolators: cgroups -> containerd") {
		t.Fatalf("reload: %+v", r)
	}
	next := c.start("run", "--name", "new", "--", "sh", "-c", "echo up; while [ ! -e $MESOS_SANDBOX/go ]; do sleep 0.05; done; exit 8")
	eventually(t, "the next task", func() bool { return next.stdout.String() == "up\n" })
	if !launched() {
		t.Error("the next task is not containerd's")
	}
	if r := c.mezzo("exec", id, "--", "echo", "inside"); r.code != 0 || r.stdout != "inside\n" {
		t.Errorf("exec in the task of cgroups: %+v", r)
	}
	c.agent.stop(syscall.SIGKILL) // what was changed under it holds for the next one
	c.agent = serve(t, nil, c.args...)
	for id, p := range map[string]*background{id: b, fmt.Sprint(c.task("new")["id"]): next} {
		eventually(t, "a task to end by a process in it", func() bool {
			c.mezzo("exec", id, "--", "sh", "-c", "touch $MESOS_SANDBOX/go")
			select {
			case <-p.ended:
				return true
			default:
				return false
			}
		})
	}
	if r := b.wait(); r.code != 7 {
		t.Errorf("the task of cgroups: %+v, want exit 7", r)
	}
	if r := next.wait(); r.code != 8 {
		t.Errorf("the task of containerd: %+v, want exit 8", r)
	}
	c.removed()
}

// removed waits until nothing is left of any container.
func (c *containerd) removed() {
	c.t.Helper()
	nothingLeft(c.t, c.daemon, c.dir)
}

// nothingLeft waits until no container has left anything behind: not in
// containerd, not in the agent's directory, no cgroup, mount or process.
func nothingLeft(t *testing.T, daemon *containerdtest.Daemon, agent string) {
	t.Helper()
	client := daemon.Client(t)
	var left []string
	look := func() bool {
		left = nil
		note := func(what string, err error) {
			if err != nil {
				what += ": " + err.Error()
			}
			left = append(left, what)
		}
		ctx := daemon.Context(t)
		containers, err := client.ContainerService().List(ctx)
		if err != nil || len(containers) > 0 {
			note(fmt.Sprintf("%d containers of containerd's", len(containers)), err)
		}
		held, err := client.LeasesService().List(ctx)
		// One that containerd's own client took for a moment, when it or containerd
		// was killed, is containerd's to end.
		held = slices.DeleteFunc(held, func(l leases.Lease) bool { return l.Labels["containerd.io/gc.expire"] != "" })
		if err != nil || len(held) > 0 {
			note(fmt.Sprintf("leases %v", held), err)
		}
		err = client.SnapshotService("overlayfs").Walk(ctx, func(_ context.Context, info snapshots.Info) error {
			if info.Kind != snapshots.KindCommitted {
				note("snapshot "+info.Name, nil)
			}
			return nil
		})
		if err != nil {
			note("snapshots", err)
		}
		plugin := filepath.Join(agent, "agent", "plugins", "isolator-containerd")
		for _, dir := range []string{"containers", "networks/containers"} {
			if entries, err := os.ReadDir(filepath.Join(plugin, dir)); err != nil && !os.IsNotExist(err) || len(entries) > 0 {
				note(fmt.Sprintf("in the plugin's directory %s: %v", dir, entries), err)
			}
		}
		if groups, _ := filepath.Glob("/sys/fs/cgroup/*/" + daemon.Namespace + "/*/"); len(groups) > 0 {
			note(fmt.Sprintf("cgroups %v", groups), nil)
		}
		mounts, err := os.ReadFile("/proc/self/mountinfo")
		if err != nil {
			note("mounts", err)
		}
		for line := range strings.Lines(string(mounts)) {
			if fields := strings.Fields(line); len(fields) > 4 && (strings.HasPrefix(fields[4], agent+"/") || strings.HasPrefix(fields[4], daemon.Dir+"/")) {
				note("mount "+fields[4], nil)
			}
		}
		processes, _ := filepath.Glob("/proc/[0-9]*/cmdline")
		for _, file := range processes {
			text, err := os.ReadFile(file)
			if words := strings.Split(string(text), "\x00"); err == nil &&
				(slices.Contains(words, daemon.Namespace) || strings.Contains(string(text), filepath.Join(plugin, "containers"))) {
				note("process "+strings.Join(words, " "), nil)
			}
		}
		return len(left) == 0
	}
	for deadline := time.Now().Add(patience); !look(); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("after %s there is still:\n%s", patience, strings.Join(left, "\n"))
		}
	}
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
