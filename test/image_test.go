package test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mezzo-os/mezzo/plugins/isolator-containerd/containerdtest"
)

// images is what `mezzo image list` has, by name.
func (c *containerd) images() map[string]map[string]any {
	c.t.Helper()
	var list []map[string]any
	r := c.mezzo("image", "list", "--json")
	if err := json.Unmarshal([]byte(r.stdout), &list); r.code != 0 || err != nil {
		c.t.Fatalf("image list: %+v, %v", r, err)
	}
	out := map[string]map[string]any{}
	for _, i := range list {
		out[fmt.Sprint(i["name"])] = i
	}
	return out
}

// An image is imported, run in, and removed, by the command line alone; tasks
// without one run on the same agent as before.
func TestRunImages(t *testing.T) {
	t.Parallel()
	c := startContainerd(t)
	const image = "mezzo.test/imported:1"
	archive := containerdtest.Busybox(image).WriteOCI(t)
	eventually(t, "the agent to be registered", func() bool { return len(c.list("agents")) == 1 })
	if r := c.mezzo("image", "import", archive); r.code != 0 || !strings.Contains(r.stdout, image) {
		t.Fatalf("image import: %+v", r)
	}
	if i := c.images()[image]; i == nil || i["isolator"] != "containerd" || i["pinned"] != true {
		t.Errorf("the image that was imported: %v", i)
	}
	// The agent's directory is the host's: in an image it is not there.
	where := "test -e " + c.dir + " && echo host || echo image; echo $GREETING; exit 3"
	if r := c.mezzo("run", "--image", image, "--pull", "never", "--env", "GREETING=hello", "--", "sh", "-c", where); r.code != 3 || r.stdout != "image\nhello\n" {
		t.Errorf("in an image: %+v", r)
	}
	if r := c.mezzo("run", "--env", "GREETING=hello", "--", "sh", "-c", where); r.code != 3 || r.stdout != "host\nhello\n" {
		t.Errorf("without one: %+v", r)
	}
	if r := c.mezzo("run", "--image", "file://"+archive, "--", "echo", "from an archive"); r.code != 0 || r.stdout != "from an archive\n" {
		t.Errorf("in an archive's image: %+v", r)
	}
	if r := c.mezzo("run", "--image", "mezzo.test/none", "--pull", "never", "--", "true"); r.code != 125 || !strings.Contains(r.stderr, "mezzo.test/none") {
		t.Errorf("in an image that is not there: %+v", r)
	}
	data := tempDir(t)
	writeFile(t, filepath.Join(data, "word"), "found\n")
	if r := c.mezzo("run", "--image", image, "--network", "none", "--volume", data+":/data:ro", "--", "sh", "-c",
		"cat /data/word; touch /data/more 2>/dev/null || echo closed; ls /sys/class/net; pwd; echo $MESOS_SANDBOX"); r.stdout != "found\nclosed\nlo\n/\n/mnt/mesos/sandbox\n" {
		t.Errorf("with a volume and no network: %+v", r)
	}
	// The last container may not have been removed yet.
	eventually(t, "the image to be removed", func() bool { return c.mezzo("image", "rm", image).code == 0 })
	if i := c.images()[image]; i != nil {
		t.Errorf("it is there again: %v", i)
	}
	c.removed()
}

// A cluster of mezzo dev runs images without a line of configuration; where it
// could not it says so before it starts.
func TestDevContainerd(t *testing.T) {
	t.Parallel()
	daemon := containerdtest.Start(t)
	c := startDev(t, "--containerd="+daemon.Address)
	eventually(t, "the image to be imported", func() bool {
		return c.mezzo("image", "import", containerdtest.Busybox(testImage).WriteOCI(t)).code == 0
	})
	if r := c.mezzo("run", "--image", testImage, "--pull", "never", "--", "sh", "-c", "test ! -e "+c.dir+" && echo in a box"); r.code != 0 || r.stdout != "in a box\n" {
		t.Errorf("in an image: %+v", r)
	}
	if r := c.mezzo("run", "--", "sh", "-c", "test -e "+c.dir+" && echo on the host"); r.code != 0 || r.stdout != "on the host\n" {
		t.Errorf("without one: %+v", r)
	}
	if r := c.mezzo("run", "--image", testImage, "--pull", "never", "--user", "stranger", "--", "id"); r.code != 125 || !strings.Contains(r.stderr, `user "stranger"`) {
		t.Errorf("as a user whom nobody knows: %+v", r)
	}
	if r := c.mezzo("run", "--image", "file:///no/such/archive.tar", "--", "true"); r.code != 125 || !strings.Contains(r.stderr, "/no/such/archive.tar") {
		t.Errorf("from an archive that is not there: %+v", r)
	}
	file := writeFile(t, filepath.Join(tempDir(t), "agent.hcl"), containerdConfig(daemon))
	for want, args := range map[string][]string{
		"no containerd answers at " + daemon.Dir: {"--containerd=" + filepath.Join(daemon.Dir, "none.sock")},
		"absolute path":                          {"--containerd=none.sock"},
		"has isolators already":                  {"--containerd", "--config", file},
	} {
		if r := mezzo(t, nil, append([]string{"dev", "--rpc", "127.0.0.1:0", "--http", "127.0.0.1:0"}, args...)...); r.code == 0 || !strings.Contains(r.stderr, want) {
			t.Errorf("%v: %+v, want %q", args, r, want)
		}
	}
}

// A task in an image goes on while containerd is away, and when its isolator is
// taken out of the configuration; new ones are not offered, or refused.
func TestImageTaskOutlivesItsIsolator(t *testing.T) {
	t.Parallel()
	c := startContainerd(t)
	b := c.start("run", "--name", "survivor", "--image", testImage, "--pull", "never", "--", "sh", "-c",
		"echo up; while [ ! -e $MESOS_SANDBOX/go ]; do sleep 0.05; done; exit 7")
	eventually(t, "the task", func() bool { return b.stdout.String() == "up\n" })
	id := fmt.Sprint(c.task("survivor")["id"])
	if r := c.mezzo("exec", id, "--", "sh", "-c", "echo $MESOS_SANDBOX; exit 4"); r.code != 4 || r.stdout != "/mnt/mesos/sandbox\n" {
		t.Errorf("exec: %+v", r)
	}
	if r := c.mezzo("image", "rm", testImage); r.code != 1 || !strings.Contains(r.stderr, "containers use it") {
		t.Errorf("an image that a container uses: %+v", r)
	}

	c.daemon.Kill()
	eventually(t, "the agent's resources to be withheld", func() bool {
		agents := c.list("agents")
		return len(agents) == 1 && strings.Contains(fmt.Sprint(agents[0]["reason"]), "isolator containerd")
	})
	if state := c.task("survivor")["state"]; state != "TASK_RUNNING" {
		t.Errorf("without containerd the task is %v", state)
	}
	c.daemon.Run(t)
	if r := c.mezzo("run", "--image", testImage, "--pull", "never", "--", "echo", "again"); r.code != 0 || r.stdout != "again\n" {
		t.Errorf("once containerd is back: %+v", r)
	}

	if err := os.WriteFile(c.args[2], []byte("isolator \"cgroups\" {}\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if r := c.mezzo("reload", "--address", c.agent.fields["agent"]); r.code != 0 || !strings.Contains(r.stdout, "isolators: cgroups, containerd -> cgroups") {
		t.Fatalf("reload: %+v", r)
	}
	if r := c.mezzo("run", "--image", testImage, "--", "true"); r.code != 125 || !strings.Contains(r.stderr, "isolator that runs images") {
		t.Errorf("an image without an isolator for it: %+v", r)
	}
	if r := c.mezzo("exec", id, "--", "echo", "inside"); r.code != 0 || r.stdout != "inside\n" {
		t.Errorf("exec once the isolator was taken out: %+v", r)
	}
	c.mezzo("exec", id, "--", "touch", "/mnt/mesos/sandbox/go") // the task's end may be this process's too
	if r := b.wait(); r.code != 7 {
		t.Errorf("the survivor: %+v, want exit 7", r)
	}
	c.removed()
}

// An agent starts while containerd is away: it says so, and offers its resources
// when containerd is there.
func TestAgentStartsBeforeContainerd(t *testing.T) {
	t.Parallel()
	daemon := containerdtest.Start(t)
	daemon.Import(t, containerdtest.Busybox(testImage).WriteOCI(t))
	daemon.Stop()
	dir := tempDir(t)
	file := writeFile(t, filepath.Join(dir, "agent.hcl"), containerdConfig(daemon))
	ports := []string{"--rpc", "127.0.0.1:0", "--http", "127.0.0.1:0"}
	m := serve(t, nil, append([]string{"master", "--data-dir", filepath.Join(dir, "m")}, ports...)...)
	c := &cluster{server: m}
	serve(t, nil, append([]string{"agent", "--config", file, "--data-dir", filepath.Join(dir, "a"), "--master", m.fields["rpc"], "--resources", smallAgent}, ports...)...)
	eventually(t, "the agent to say why nothing of it is offered", func() bool {
		agents := c.list("agents")
		return len(agents) == 1 && strings.Contains(fmt.Sprint(agents[0]["reason"]), "isolator containerd")
	})
	daemon.Run(t)
	if r := c.mezzo("run", "--image", testImage, "--pull", "never", "--", "echo", "hello"); r.code != 0 || r.stdout != "hello\n" {
		t.Errorf("once containerd is there: %+v", r)
	}
}
