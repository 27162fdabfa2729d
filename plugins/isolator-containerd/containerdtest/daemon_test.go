package containerdtest_test

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/containerd/v2/pkg/oci"
	"go.uber.org/goleak"

	"github.com/mezzo-os/mezzo/plugins/isolator-containerd/containerdtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestTask runs a task of both kinds of archive, and looks for what is left
// when a test that forgot everything has ended.
func TestTask(t *testing.T) {
	containerdtest.Require(t)
	for _, form := range []string{"oci", "docker"} {
		t.Run(form, func(t *testing.T) {
			var d *containerdtest.Daemon
			t.Run("forgetful", func(t *testing.T) {
				d = containerdtest.Start(t)
				image := containerdtest.Busybox("mezzo.test/busybox:latest")
				image.Files = map[string]string{"/etc/deep/er": "found"}
				write := image.WriteOCI
				if form == "docker" {
					write = image.WriteDocker
				}
				if names := d.Import(t, write(t)); len(names) != 1 || names[0] != "mezzo.test/busybox:latest" {
					t.Fatalf("imported %v", names)
				}
				run(t, d)
			})
			if text, err := os.ReadFile("/proc/self/mountinfo"); err != nil || strings.Contains(string(text), d.Dir) || strings.Contains(string(text), d.Namespace) {
				t.Errorf("mounts are left: %v\n%s", err, text)
			}
			for _, path := range []string{d.Dir, "/run/containerd/runc/" + d.Namespace} {
				if _, err := os.Stat(path); !os.IsNotExist(err) {
					t.Errorf("%s is left: %v", path, err)
				}
			}
			if groups, _ := filepath.Glob("/sys/fs/cgroup/*/" + d.Namespace); len(groups) > 0 {
				t.Errorf("%v are left", groups)
			}
		})
	}
}

// run runs one task to its end and leaves another running, with no daemon.
func run(t *testing.T, d *containerdtest.Daemon) {
	t.Helper()
	c, ctx := d.Client(t), d.Context(t)
	image, err := c.GetImage(ctx, "mezzo.test/busybox:latest")
	if err != nil {
		t.Fatal(err)
	}
	begin := func(id, script string) (client.Task, <-chan client.ExitStatus) {
		container, err := c.NewContainer(ctx, id, client.WithNewSnapshot(id, image),
			client.WithNewSpec(oci.WithImageConfigArgs(image, []string{"sh", "-c", script})))
		if err != nil {
			t.Fatal(err)
		}
		task, err := container.NewTask(ctx, cio.NullIO)
		if err != nil {
			t.Fatal(err)
		}
		exit, err := task.Wait(ctx)
		if err == nil {
			err = task.Start(ctx)
		}
		if err != nil {
			t.Fatal(err)
		}
		return task, exit
	}
	_, exit := begin("short", "test \"$(cat /etc/deep/er)\" = found && exit 7")
	if status := <-exit; status.ExitCode() != 7 {
		t.Errorf("exit code %d, want 7: %v", status.ExitCode(), status.Error())
	}
	task, _ := begin("long", "sleep 1000")
	pid := int(task.Pid())
	d.Kill()
	if err := syscall.Kill(pid, 0); err != nil {
		t.Errorf("the task ended with its daemon: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Kill(pid, 0); err != nil {
			t.Errorf("the task ended before the daemon's own cleanup: %v", err)
		}
	})
}
