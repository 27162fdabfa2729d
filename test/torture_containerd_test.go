package test

import (
	"flag"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/mezzo-os/mezzo/plugins/isolator-containerd/containerdtest"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
)

var (
	boxedTasks = flag.Int("torture-image-tasks", 28, "how many tasks TestContainerdTorture launches")
	boxedKills = flag.Int("torture-image-kills", 8, "how often TestContainerdTorture kills something")
	soakTasks  = flag.Int("soak-tasks", 0, "how many tasks TestContainerdSoak launches")
)

// boxed is a kind in an image.
func boxed(k kind, box func(*mezzov1.TaskInfo)) kind {
	k.name, k.box = "boxed-"+k.name, box
	return k
}

// boxedKinds are kinds in images, and some of the host beside them.
func boxedKinds() (all []kind) {
	for _, k := range kinds {
		switch k.name {
		case "short":
			all = append(all, k, boxed(k, inImage), boxed(kind{name: "bridged", members: k.members}, onBridge))
		case "long":
			all = append(all, k, boxed(k, inImage), boxed(kind{name: "long-bridged", members: k.members}, onBridge))
		case "failing", "crashing", "forking", "stubborn", "group", "broken-group", "long-group":
			all = append(all, boxed(k, inImage))
		}
	}
	return all
}

// bothIsolators is the configuration of an agent with cgroups, and with containerd
// on a network of the test's own.
func bothIsolators(t *testing.T, daemon *containerdtest.Daemon, o *containerdtest.Outside) string {
	t.Helper()
	more := fmt.Sprintf("    cni_bin_dirs = [%q]\n    cni_conf_dir = %q\n    bridge = %q\n    bridge_subnet = \"10.93.0.0/16\"\n", o.BinDir, t.TempDir(), o.Bridge)
	return strings.Replace(containerdConfig(daemon), "    address", more+"    address", 1)
}

// TestContainerdTorture is TestAgentTorture for tasks in images and of the host on
// one agent: also containerd is killed, is away for a while, and comes back.
func TestContainerdTorture(t *testing.T) {
	t.Parallel()
	daemon := containerdtest.Start(t)
	daemon.Import(t, containerdtest.Busybox(testImage).WriteOCI(t))
	o := containerdtest.NewOutside(t)
	x := newTorture(t, boxedKinds(), bothIsolators(t, daemon, o))
	x.launchesFail = true
	x.victims = []func(){x.killAgent, x.killing("isolator/cgroups"), x.killing("isolator/containerd"), func() {
		daemon.Kill()
		time.Sleep(time.Duration(x.chance.Int64N(int64(*torturePause) / 2)))
		if x.chance.IntN(2) == 0 {
			x.killAgent()
		}
		daemon.Run(t)
	}}
	x.run(*boxedTasks, *boxedKills)
	x.launchMore(*boxedTasks + len(x.kinds)) // which nothing disturbs
	for _, id := range x.tasks() {
		x.until(id, "told of", func(*mezzov1.TaskStatus) bool { return true })
	}
	x.killTheEndless()
	x.judge()
	x.leavesNothing()
	nothingLeft(t, daemon, x.dir)
	nothingOutside(t, o)
}

// nothingOutside waits until no container has an address or a link.
func nothingOutside(t *testing.T, o *containerdtest.Outside) {
	t.Helper()
	eventually(t, "addresses and links to be given back", func() bool { return len(o.Left()) == 0 })
}

// TestContainerdSoak launches, when it is asked to, many short tasks in images,
// twenty-five at a time and every fifth on the bridge, and looks for what is left.
func TestContainerdSoak(t *testing.T) {
	if *soakTasks == 0 {
		t.Skip("give -soak-tasks")
	}
	daemon := containerdtest.Start(t)
	daemon.Import(t, containerdtest.Busybox(testImage).WriteOCI(t))
	o := containerdtest.NewOutside(t)
	x := newTorture(t, nil, bothIsolators(t, daemon, o))
	began := time.Now()
	for n := 0; n < *soakTasks; n += 25 {
		var together []string
		for i := n; i < min(n+25, *soakTasks); i++ {
			task := imageTask(fmt.Sprintf("soak-%d", i), "echo $HOSTNAME; exit 0")
			if i%5 == 0 {
				onBridge(task)
			}
			task.Name = proto.String("soak")
			together = append(together, task.GetTaskId().GetValue())
			x.crowd.mu.Lock()
			x.crowd.jobs = append(x.crowd.jobs, job{tasks: []*mezzov1.TaskInfo{task}})
			x.crowd.mu.Unlock()
		}
		for _, id := range together {
			x.ends(id, mezzov1.TaskState_TASK_FINISHED)
		}
	}
	took := time.Since(began)
	x.leavesNothing()
	nothingLeft(t, daemon, x.dir)
	nothingOutside(t, o)
	t.Logf("%d tasks in %.0f s; %.1f s later nothing of them was left", *soakTasks, took.Seconds(), (time.Since(began) - took).Seconds())
}
