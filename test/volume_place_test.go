package test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/mezzo-os/mezzo/sdk/framework"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
	"github.com/mezzo-os/mezzo/sdk/resource"
)

// volumeOn makes a volume of 32 MiB for the role db on the first agent.
func volumeOn(t *testing.T, mezzo func(...string) result, id, path string) *mezzov1.Resource {
	t.Helper()
	for _, args := range [][]string{
		{"reserve", "S0", "disk:32", "--role", "db"},
		{"volume", "create", "S0", id, "--role", "db", "--size", "32", "--path", path},
	} {
		if r := mezzo(args...); r.code != 0 {
			t.Fatalf("mezzo %v: %+v", args, r)
		}
	}
	return framework.PersistentVolume(framework.Reserved("db", "", framework.Disk(32))[0], id, path, "")
}

// The tasks of a group share their executor's volume, by its path in the
// executor's sandbox; what they write is on the volume.
func TestRunGroupOnItsExecutorsVolume(t *testing.T) {
	t.Parallel()
	c := startDev(t)
	volume := volumeOn(t, c.mezzo, "shared-data", "data")
	d := newDatabase(t, c.fields["rpc"])
	writer, reader := dbTask("writer", "echo row > mine/rows"), dbTask("reader", "until grep -q row mine/rows 2>/dev/null; do sleep 0.05; done; cat mine/rows")
	for _, task := range []*mezzov1.TaskInfo{writer, reader} {
		task.Container = &mezzov1.ContainerInfo{Type: mezzov1.ContainerInfo_MESOS.Enum(), Volumes: []*mezzov1.Volume{{
			Mode: mezzov1.Volume_RW.Enum(), ContainerPath: proto.String("mine"), Source: &mezzov1.Volume_Source{
				Type: mezzov1.Volume_Source_SANDBOX_PATH.Enum(),
				SandboxPath: &mezzov1.Volume_Source_SandboxPath{
					Type: mezzov1.Volume_Source_SandboxPath_PARENT.Enum(), Path: proto.String("data"),
				},
			},
		}}}
	}
	group := &mezzov1.Offer_Operation{Type: mezzov1.Offer_Operation_LAUNCH_GROUP.Enum(), LaunchGroup: &mezzov1.Offer_Operation_LaunchGroup{
		Executor: &mezzov1.ExecutorInfo{
			Type: mezzov1.ExecutorInfo_DEFAULT.Enum(), ExecutorId: &mezzov1.ExecutorID{Value: proto.String("group")},
			Resources: append(resource.MustParse("cpus:0.1;mem:32;disk:16").ToProto(), volume),
		},
		TaskGroup: &mezzov1.TaskGroupInfo{Tasks: []*mezzov1.TaskInfo{writer, reader}},
	}}
	d.with(append(needs("cpus:0.3;mem:64;disk:16"), volume), group)
	d.reaches("writer", mezzov1.TaskState_TASK_FINISHED)
	d.reaches("reader", mezzov1.TaskState_TASK_FINISHED)
	if r := c.mezzo("logs", "reader"); r.stdout != "row\n" {
		t.Errorf("what the reader read: %+v", r)
	}
	if text, err := os.ReadFile(volumeFile(t, c.dir, "shared-data", "rows")); err != nil || string(text) != "row\n" {
		t.Errorf("on the volume is %q (%v)", text, err)
	}
}

// volumeFile is a file on a volume of role db of the only agent below a directory.
func volumeFile(t *testing.T, dir, volume, file string) string {
	t.Helper()
	places, err := filepath.Glob(filepath.Join(dir, "*", "volumes", "roles", "db", volume))
	if err != nil || len(places) != 1 {
		t.Fatalf("directories of volume %s below %s: %v, %v", volume, dir, places, err)
	}
	return filepath.Join(places[0], file)
}

// A later task's volume reaches a custom executor that runs already in its
// sandbox, and is refused where it could not be seen.
func TestRunVolumeOfALaterTask(t *testing.T) {
	t.Parallel()
	c := startDev(t)
	d := newDatabase(t, c.fields["rpc"])
	executor := customExecutor("counter", filepath.Join(bin, "executor-hello"), "-executor", "-count", "1000s")
	executor.Resources = resource.MustParse("cpus:0.1;mem:64").ToProto()
	launch := func(id string, volumes ...*mezzov1.Resource) {
		task := dbTask(id, "", volumes...)
		task.Command, task.Executor = nil, executor
		d.with(append(needs("cpus:0.3;mem:128"), volumes...), framework.LaunchTasks(task))
	}
	launch("first")
	d.reaches("first", mezzov1.TaskState_TASK_RUNNING)

	launch("second", volumeOn(t, c.mezzo, "inside", "var/rows"))
	d.reaches("second", mezzov1.TaskState_TASK_RUNNING)
	if r := c.mezzo("exec", "second", "--", "sh", "-c", "echo late > var/rows/word"); r.code != 0 {
		t.Errorf("to write on the later volume: %+v", r)
	}
	if text, err := os.ReadFile(volumeFile(t, c.dir, "inside", "word")); err != nil || string(text) != "late\n" {
		t.Errorf("on the volume is %q (%v)", text, err)
	}

	launch("third", volumeOn(t, c.mezzo, "elsewhere", "/mezzo-elsewhere"))
	d.reaches("third", mezzov1.TaskState_TASK_ERROR)
	d.mu.Lock()
	defer d.mu.Unlock()
	if s := d.updates["third"][0]; !strings.Contains(s.GetMessage(), "executor runs already") && os.Getuid() == 0 {
		t.Errorf("the refusal: %v", s)
	}
}

// Without root a volume is a link in the sandbox, and what is on it stays.
func TestRunVolumeWithoutRoot(t *testing.T) {
	t.Parallel()
	drop, dir := unprivileged(t)
	data := filepath.Join(dir, "cluster")
	s := serve(t, drop, "dev", "--rpc", "127.0.0.1:0", "--http", "127.0.0.1:0", "--dir", data, "--resources", smallAgent)
	as := func(args ...string) result {
		t.Helper()
		return mezzoAs(t, drop, append(args, "--address", s.fields["rpc"])...)
	}
	inside := volumeOn(t, as, "data", "data")
	outside := volumeOn(t, as, "outside", "/mezzo-outside")
	d := newDatabaseAs(t, s.fields["rpc"], runningAs())
	d.with(append(needs("cpus:0.1;mem:16"), inside), framework.LaunchTasks(dbTask("db-1", "test -L data && echo row > data/rows", inside)))
	d.reaches("db-1", mezzov1.TaskState_TASK_FINISHED)
	d.with(append(needs("cpus:0.1;mem:16"), inside), framework.LaunchTasks(dbTask("db-2", "grep row data/rows", inside)))
	d.reaches("db-2", mezzov1.TaskState_TASK_FINISHED)
	if text, err := os.ReadFile(volumeFile(t, data, "data", "rows")); err != nil || string(text) != "row\n" {
		t.Errorf("on the volume is %q (%v)", text, err)
	}
	d.with(append(needs("cpus:0.1;mem:16"), outside), framework.LaunchTasks(dbTask("db-3", "true", outside)))
	d.reaches("db-3", mezzov1.TaskState_TASK_ERROR)
}
