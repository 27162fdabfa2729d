package agent_test

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/mezzo-os/mezzo/core/agent"
	"github.com/mezzo-os/mezzo/core/agent/state"
	isolatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/isolator/v1"
	linkv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/link/v1"
	operatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/operator/v1"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
)

func me() string {
	u, err := user.Current()
	if err != nil {
		panic(err)
	}
	return u.Username
}

func view(t *testing.T, p *process) state.View {
	t.Helper()
	v, err := p.State(within(t))
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestTaskFromLaunchToAcknowledgement(t *testing.T) {
	k, m := newKernel(), newMaster(t)
	p := start(t, options(t, m, newIsolator(t, k).up()))
	m.ready()
	m.run(task("t1"))
	running := m.update(mezzov1.TaskState_TASK_RUNNING)
	id := running.GetContainerStatus().GetContainerId().GetValue()
	if got := running.GetContainerStatus().GetExecutorPid(); got != 4711 {
		t.Errorf("the status has pid %d, want 4711", got)
	}
	box := k.get(id)
	if want := filepath.Join(p.options.WorkDir, "agents/A1/frameworks/F1/executors/t1/runs", id); box.sandbox != want {
		t.Errorf("sandbox %s, want %s", box.sandbox, want)
	}
	if info, err := os.Stat(box.sandbox); err != nil || info.Mode().Perm() != 0o750 {
		t.Errorf("sandbox: %v, %v; want mode 0750", info, err)
	}
	latest, err := filepath.EvalSymlinks(filepath.Join(filepath.Dir(box.sandbox), "latest"))
	if err != nil || latest != box.sandbox {
		t.Errorf("latest leads to %s, %v; want %s", latest, err, box.sandbox)
	}
	if info, err := os.Stat(filepath.Join(p.options.DataDir, "agent.db")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("agent.db: %v, %v; want mode 0600", info, err)
	}
	checkSpec(t, box)

	k.exit(id, &isolatorv1.ExitStatus{Known: true, Code: 3})
	failed := m.update(mezzov1.TaskState_TASK_FAILED)
	if failed.GetMessage() != "Command exited with status 3" || failed.GetExitCode() != 3 || failed.GetSource() != mezzov1.TaskStatus_SOURCE_EXECUTOR {
		t.Errorf("the last status is %v", failed)
	}
	k.await(t, "cleanup", k.called("cleanup "+id))
	for ctx := within(t); len(view(t, p).Tasks)+len(view(t, p).Containers) > 0; {
		if ctx.Err() != nil {
			t.Fatalf("the task is never forgotten: %+v", view(t, p))
		}
	}
	if v := view(t, p); len(v.Completed) != 1 || v.Completed[0].ID != "t1" || v.State != "registered" {
		t.Errorf("view: %+v", v)
	}
}

func checkSpec(t *testing.T, b *box) {
	t.Helper()
	var spec specs.Spec
	if err := json.Unmarshal(b.spec, &spec); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"/bin/sh", "-c", "echo $GREETING"}, spec.Process.Args); diff != "" {
		t.Error(diff)
	}
	for _, want := range []string{"GREETING=hello", "MESOS_SANDBOX=" + b.sandbox, "MEZZO_TASK_ID=t1", "MESOS_FRAMEWORK_ID=F1", "MEZZO_PORTS=31000-31001"} {
		if !slices.Contains(spec.Process.Env, want) {
			t.Errorf("the environment lacks %s: %v", want, spec.Process.Env)
		}
	}
	if spec.Process.Cwd != b.sandbox {
		t.Errorf("working directory %s, want the sandbox %s", spec.Process.Cwd, b.sandbox)
	}
	if int(spec.Process.User.UID) != os.Getuid() {
		t.Errorf("user %d, want %d", spec.Process.User.UID, os.Getuid())
	}
	if got := *spec.Linux.Resources.CPU.Shares; got != 512 || spec.Linux.Resources.CPU.Quota != nil {
		t.Errorf("cpu %+v, want 512 shares and no quota", spec.Linux.Resources.CPU)
	}
	if got := *spec.Linux.Resources.Memory.Limit; got != 64<<20 {
		t.Errorf("memory limit %d, want 64 MiB", got)
	}
}

func TestAgentKilledAndStartedAgain(t *testing.T) {
	k, m := newKernel(), newMaster(t)
	i := newIsolator(t, k).up()
	p := start(t, options(t, m, i))
	m.ready()
	m.run(task("gone"))
	gone := m.update(mezzov1.TaskState_TASK_RUNNING).GetContainerStatus().GetContainerId().GetValue()
	m.run(task("stays"))
	stays := m.update(mezzov1.TaskState_TASK_RUNNING).GetContainerStatus().GetContainerId().GetValue()

	o := p.crashed(t)
	k.exit(gone, &isolatorv1.ExitStatus{Known: true, Code: 7})
	k.mu.Lock()
	k.containers["orphan"] = &box{state: isolatorv1.Recovered_STATE_RUNNING, ended: make(chan struct{})}
	k.mu.Unlock()
	start(t, o)
	r := m.registered()
	if r.GetAgent().GetId() != "A1" || len(r.GetTasks()) != 2 {
		t.Fatalf("it registers as %v", r)
	}
	if s := m.update(mezzov1.TaskState_TASK_FAILED); s.GetTaskId().GetValue() != "gone" || s.GetExitCode() != 7 {
		t.Errorf("what ended meanwhile is told as %v", s)
	}
	k.await(t, "end of the orphan", k.called("cleanup orphan"))
	m.kill("stays", 5*time.Second)
	k.await(t, "kill", k.called("kill "+stays))
	if kill := k.get(stays).kills[0]; kill.GetGraceMs() < 4000 || kill.GetGraceMs() > 5000 {
		t.Errorf("grace %d ms, want 5 s less what has passed", kill.GetGraceMs())
	}
	k.exit(stays, &isolatorv1.ExitStatus{Known: true, Signal: 15})
	if s := m.update(mezzov1.TaskState_TASK_KILLED); s.GetMessage() != "Command terminated with signal Terminated" {
		t.Errorf("killed: %v", s)
	}
}

func TestPluginKilledWhileATaskRuns(t *testing.T) {
	k, m := newKernel(), newMaster(t)
	i := newIsolator(t, k).up()
	p := start(t, options(t, m, i))
	m.ready()
	m.run(task("t1"))
	id := m.update(mezzov1.TaskState_TASK_RUNNING).GetContainerStatus().GetContainerId().GetValue()
	k.await(t, "wait", k.called("wait "+id))

	i.down()
	withheld := await(m, "withholding", func(a *linkv1.AgentMessage) (string, bool) {
		w := a.GetState().GetAgent().GetWithheld()
		return w, w != ""
	})
	if !strings.Contains(withheld, "isolator fake") {
		t.Errorf("withheld because of %q", withheld)
	}
	// A kill while the plugin is away is not lost.
	m.kill("t1", 0)
	k.mu.Lock()
	k.calls = nil
	k.mu.Unlock()
	i.up()
	m.ready()
	k.await(t, "kill", k.called("kill "+id))
	k.await(t, "wait in the new process", k.called("wait "+id))
	if first := k.calls[0]; first != "recover " {
		t.Errorf("the first call to the new process is %q, want recover", first)
	}
	k.exit(id, &isolatorv1.ExitStatus{Known: true, Signal: 9})
	m.update(mezzov1.TaskState_TASK_KILLED)

	// Limitations of the new process are heard.
	m.run(task("t2"))
	id = m.update(mezzov1.TaskState_TASK_RUNNING).GetContainerStatus().GetContainerId().GetValue()
	i.limits <- &isolatorv1.Limitation{Container: id, Reason: mezzov1.TaskStatus_REASON_CONTAINER_LIMITATION_MEMORY.Enum(), Message: "Memory limit exceeded: 64 MiB"}
	k.await(t, "kill of what exceeds its limit", k.called("kill "+id))
	k.exit(id, &isolatorv1.ExitStatus{Known: true, Signal: 9})
	s := m.update(mezzov1.TaskState_TASK_FAILED)
	if s.GetReason() != mezzov1.TaskStatus_REASON_CONTAINER_LIMITATION_MEMORY || !strings.Contains(s.GetMessage(), "64 MiB") {
		t.Errorf("limitation: %v", s)
	}
	_ = p
}

func TestLaunchThatFailsSaysWhy(t *testing.T) {
	for _, call := range []string{"claim", "prepare", "create", "start"} {
		t.Run(call, func(t *testing.T) {
			k, m := newKernel(), newMaster(t)
			k.fail[call] = status.Error(codes.ResourceExhausted, "no space left on device")
			start(t, options(t, m, newIsolator(t, k).up()))
			m.ready()
			m.run(task("t1"))
			s := m.update(mezzov1.TaskState_TASK_FAILED)
			if want := "isolator fake: " + call + ": no space left on device"; s.GetMessage() != want || s.GetReason() != mezzov1.TaskStatus_REASON_CONTAINER_LAUNCH_FAILED {
				t.Errorf("message %q, reason %v; want %q", s.GetMessage(), s.GetReason(), want)
			}
			if call != "claim" {
				k.await(t, "cleanup", k.called("cleanup"))
			}
		})
	}
	t.Run("user", func(t *testing.T) {
		if os.Geteuid() != 0 {
			t.Skip("only root is asked to run tasks as another user")
		}
		k, m := newKernel(), newMaster(t)
		start(t, options(t, m, newIsolator(t, k).up()))
		m.ready()
		info := task("t1")
		nobody := "no-such-user"
		info.Command.User = &nobody
		m.run(info)
		if s := m.update(mezzov1.TaskState_TASK_FAILED); !strings.Contains(s.GetMessage(), "no-such-user") {
			t.Errorf("message %q", s.GetMessage())
		}
	})
}

func TestCleanupIsTriedUntilItWorks(t *testing.T) {
	k, m := newKernel(), newMaster(t)
	p := start(t, options(t, m, newIsolator(t, k).up()))
	m.ready()
	m.run(task("t1"))
	id := m.update(mezzov1.TaskState_TASK_RUNNING).GetContainerStatus().GetContainerId().GetValue()
	k.mu.Lock()
	k.fail["cleanup"] = status.Error(codes.Internal, "device or resource busy")
	k.mu.Unlock()
	k.exit(id, &isolatorv1.ExitStatus{Known: true})
	m.update(mezzov1.TaskState_TASK_FINISHED)
	k.await(t, "first try", k.called("cleanup "+id))
	k.mu.Lock()
	delete(k.fail, "cleanup")
	k.mu.Unlock()
	k.await(t, "end of the container", func(k *kernel) bool { return k.containers[id] == nil })
	if v := view(t, p); v.AgentID != "A1" {
		t.Errorf("agent id %q", v.AgentID)
	}
}

func TestLostLinksAreAlwaysNoticed(t *testing.T) {
	const cuts = 12
	m := newMaster(t)
	m.cuts = cuts
	o := options(t, m, newIsolator(t, newKernel()).up())
	o.RegistrationBackoff = time.Millisecond
	start(t, o)
	for range cuts + 1 {
		m.registered()
	}
}

func TestMasterEndsTheAgent(t *testing.T) {
	k, m := newKernel(), newMaster(t)
	o := options(t, m, newIsolator(t, k).up())
	a, err := agent.New(o)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- a.Run(context.Background()) }()
	m.ready()
	m.run(task("t1"))
	id := m.update(mezzov1.TaskState_TASK_RUNNING).GetContainerStatus().GetContainerId().GetValue()
	m.send(&linkv1.MasterMessage{Message: &linkv1.MasterMessage_Shutdown{Shutdown: &linkv1.Shutdown{Reason: "it is time"}}})
	k.await(t, "kill", k.called("kill "+id))
	k.exit(id, &isolatorv1.ExitStatus{Known: true, Signal: 15})
	select {
	case err := <-done:
		if err != nil {
			t.Errorf("the agent ended with %v", err)
		}
	case <-within(t).Done():
		t.Fatal("the agent goes on")
	}
	if err := a.Run(context.Background()); !errors.Is(err, agent.ErrStopped) {
		t.Errorf("a second Run: %v", err)
	}
}

func TestDatabaseThatCannotBeUsed(t *testing.T) {
	k, m := newKernel(), newMaster(t)
	o := options(t, m, newIsolator(t, k))
	a, err := agent.New(o)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := agent.New(o); err == nil || !strings.Contains(err.Error(), "in use by another process") {
		t.Errorf("a second agent on one database: %v", err)
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(o.DataDir, "agent.db")
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	damages := map[string][]byte{
		"garbage": []byte(strings.Repeat("not a database ", 1000)),
		"cut":     whole[:len(whole)/3],
		"page":    append(append(append([]byte{}, whole[:8192]...), make([]byte, 4096)...), whole[min(len(whole), 12288):]...),
	}
	for name, b := range damages {
		t.Run(name, func(t *testing.T) {
			o := o
			o.DataDir = t.TempDir()
			path := filepath.Join(o.DataDir, "agent.db")
			if err := os.WriteFile(path, b, 0o600); err != nil {
				t.Fatal(err)
			}
			a, err := agent.New(o)
			if err == nil {
				ctx, cancel := context.WithCancel(context.Background())
				cancel()
				err = a.Run(ctx)
			}
			if err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "--recover=skip") {
				t.Errorf("error %v; want one that names the file and the way out", err)
			}
			// The database code keeps what it failed to open: another process would not.
			o.DataDir = t.TempDir()
			path = filepath.Join(o.DataDir, "agent.db")
			if err := os.WriteFile(path, b, 0o600); err != nil {
				t.Fatal(err)
			}
			o.Forget = true
			if a, err = agent.New(o); err != nil {
				t.Fatalf("the way out: %v", err)
			}
			if err := a.Close(); err != nil {
				t.Fatal(err)
			}
			aside, err := filepath.Glob(path + ".2*")
			if err != nil || len(aside) != 1 {
				t.Fatalf("put aside: %v, %v; want one file", aside, err)
			}
			if kept, err := os.ReadFile(aside[0]); err != nil || string(kept) != string(b) {
				t.Errorf("what was put aside is not what there was (%v)", err)
			}
		})
	}
}

func TestGetState(t *testing.T) {
	k, m := newKernel(), newMaster(t)
	p := start(t, options(t, m, newIsolator(t, k).up()))
	m.ready()
	m.run(task("t1"))
	m.update(mezzov1.TaskState_TASK_RUNNING)
	s, err := p.GetState(within(t), &operatorv1.GetAgentStateRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if s.AgentId != "A1" || s.State != "registered" || len(s.Tasks) != 1 || len(s.Containers) != 1 || s.Containers[0].Launcher != "fake" {
		t.Errorf("state %v", s)
	}
	if got := s.Tasks[0].Resources.AsMap(); got["cpus"] != 0.5 || got["ports"] != "[31000-31001]" {
		t.Errorf("resources %v", got)
	}
}
