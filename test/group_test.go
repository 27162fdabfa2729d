package test

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
)

func sharedVolume(of mezzov1.Volume_Source_SandboxPath_Type) *mezzov1.ContainerInfo {
	return &mezzov1.ContainerInfo{Type: mezzov1.ContainerInfo_MESOS.Enum(), Volumes: []*mezzov1.Volume{{
		Mode: mezzov1.Volume_RW.Enum(), ContainerPath: proto.String("shared"),
		Source: &mezzov1.Volume_Source{Type: mezzov1.Volume_Source_SANDBOX_PATH.Enum(), SandboxPath: &mezzov1.Volume_Source_SandboxPath{
			Type: of.Enum(), Path: proto.String("common"),
		}},
	}}}
}

// The tasks of a group share a volume; when one fails, the others are ended, and
// one that has finished before has finished.
func TestGroupRunsAndEndsTogether(t *testing.T) {
	t.Parallel()
	c := startDev(t)
	r := newRunner(t, c.fields["rpc"])
	tasks := []*mezzov1.TaskInfo{
		shellTask("writer", "echo written > shared/draft && mv shared/draft shared/word"),
		shellTask("server", "while [ ! -e shared/word ]; do sleep 0.05; done; cat shared/word; exec sleep 1000"),
		shellTask("broken", "while [ ! -e shared/fail ]; do sleep 0.05; done; exit 3"),
	}
	for _, task := range tasks {
		task.Container = sharedVolume(mezzov1.Volume_Source_SandboxPath_PARENT)
	}
	r.launchGroup(tasks...)
	r.ends("writer", mezzov1.TaskState_TASK_FINISHED)
	eventually(t, "the server to read", func() bool { return c.mezzo("logs", "server").stdout == "written\n" })
	if r := c.mezzo("exec", "server", "--", "touch", "shared/fail"); r.code != 0 {
		t.Fatalf("to have one fail: %+v", r)
	}
	if s := r.ends("broken", mezzov1.TaskState_TASK_FAILED); s.GetMessage() != "Command exited with status 3" {
		t.Errorf("the one that failed: %v", s)
	}
	if s := r.ends("server", mezzov1.TaskState_TASK_KILLED); !strings.Contains(s.GetMessage(), `task "broken" of its group ended in TASK_FAILED`) {
		t.Errorf("the one that was ended: %v", s)
	}
	eventually(t, "the executor's end to be told", func() bool { return len(r.failures("group")) > 0 })
	if f := r.failures("group")[0]; f.GetStatus() != 0 || f.GetAgentId().GetValue() == "" {
		t.Errorf("the executor's end: %v", f)
	}
	if r := c.mezzo("logs", "server"); r.stdout != "written\n" {
		t.Errorf("what the server read: %+v", r)
	}
}

// What a task may use, for how long, and how it is killed.
func TestRunLimitsOfATask(t *testing.T) {
	t.Parallel()
	c := startDev(t)
	r := newRunner(t, c.fields["rpc"])
	hog := "head -c 60000000 /dev/zero | tail -c 60000000 | wc -c"
	within, beyond := shellTask("within", hog), shellTask("beyond", hog)
	within.Limits = map[string]*mezzov1.Value_Scalar{"mem": {Value: proto.Float64(256)}}
	long := shellTask("long", "trap '' TERM; sleep 1000 & wait; wait")
	long.MaxCompletionTime = duration(time.Second)
	stubborn := shellTask("stubborn", "trap '' TERM; echo up; while :; do sleep 0.1; done")
	stubborn.KillPolicy = &mezzov1.KillPolicy{GracePeriod: duration(time.Hour)}
	r.launch(within, beyond, long, stubborn)
	r.ends("within", mezzov1.TaskState_TASK_FINISHED)
	if s := r.ends("beyond", mezzov1.TaskState_TASK_FAILED); s.GetReason() != mezzov1.TaskStatus_REASON_CONTAINER_LIMITATION_MEMORY {
		t.Errorf("more memory than it may use: %v", s)
	}
	if s := r.ends("long", mezzov1.TaskState_TASK_FAILED); s.GetReason() != mezzov1.TaskStatus_REASON_MAX_COMPLETION_TIME_REACHED {
		t.Errorf("longer than it may run: %v", s)
	}
	// Its own policy would give it an hour; the kill's gives it none.
	eventually(t, "the stubborn one to be up", func() bool { return c.mezzo("logs", "stubborn").stdout == "up\n" })
	if err := r.s.Kill(t.Context(), "stubborn", &mezzov1.KillPolicy{GracePeriod: duration(0)}); err != nil {
		t.Fatal(err)
	}
	if s := r.ends("stubborn", mezzov1.TaskState_TASK_KILLED); s.GetExitSignal() != 9 {
		t.Errorf("killed without grace: %v", s)
	}
}

func duration(d time.Duration) *mezzov1.DurationInfo {
	return &mezzov1.DurationInfo{Nanoseconds: proto.Int64(int64(d))}
}
