package main

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/testing/protocmp"

	isolatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/isolator/v1"
	v1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
)

const nobody = 65534

func (n *node) recover(ids ...string) *isolatorv1.RecoverResponse {
	n.t.Helper()
	request := &isolatorv1.RecoverRequest{}
	for _, id := range ids {
		request.Containers = append(request.Containers, &isolatorv1.Known{Container: id, Launcher: true, Sandbox: n.sandbox(id), Handle: []byte(handle)})
	}
	r, err := n.Recover(n.ctx(), request)
	if err != nil {
		n.t.Fatal(err)
	}
	return r
}

// TestPluginKilled: containers outlive the plugin, and the next one knows how
// they ended, whenever that was.
func TestPluginKilled(t *testing.T) {
	for name, uid := range map[string]int{"root": 0, "nobody": nobody} {
		t.Run(name, func(t *testing.T) {
			n := prepareNode(t, nil)
			n.serveProcess(uid)
			running := n.run(n.shell("running", `echo ready; while [ ! -e go ]; do sleep 0.01; done; exit 5`))
			n.run(n.shell("ended", `echo ready; while [ ! -e go ]; do sleep 0.01; done; kill -TERM $$`))
			n.run(n.shell("orphan", `sleep 1000`))
			created, err := n.create(n.shell("created", "exit 6"))
			if err != nil {
				t.Fatal(err)
			}
			n.awaitOutput("ended", "ready")
			n.crash()
			n.touch("ended", "go")
			n.eventually("the task's status", func() bool {
				_, err := os.Stat(filepath.Join(n.dir, "containers", "ended", "status"))
				return err == nil
			})
			if !alive(int(running)) {
				t.Fatal("the task died with the plugin")
			}

			n.serveProcess(uid)
			want := &isolatorv1.RecoverResponse{
				Containers: []*isolatorv1.Recovered{
					{Container: "running", State: isolatorv1.Recovered_STATE_RUNNING, Pid: running},
					{Container: "ended", State: isolatorv1.Recovered_STATE_EXITED},
					{Container: "created", State: isolatorv1.Recovered_STATE_CREATED, Pid: created},
					{Container: "lost", State: isolatorv1.Recovered_STATE_LOST},
				},
				Orphans: []string{"orphan"},
			}
			if diff := cmp.Diff(want, n.recover("running", "ended", "created", "lost"), protocmp.Transform()); diff != "" {
				t.Errorf("Recover (-want +got):\n%s", diff)
			}
			if s := n.wait("ended"); s.GetSignal() != int32(unix.SIGTERM) || !s.GetKnown() {
				t.Errorf("the task that ended meanwhile: %v", s)
			}
			if s := n.wait("lost"); s.GetKnown() {
				t.Errorf("the task of which nothing is left: %v", s)
			}
			if _, err := n.Start(n.ctx(), &isolatorv1.StartRequest{Container: "created"}); err != nil {
				t.Fatal(err)
			}
			if s := n.wait("created"); s.GetCode() != 6 {
				t.Errorf("the task that was started after: %v", s)
			}
			n.touch("running", "go")
			if s := n.wait("running"); s.GetCode() != 5 {
				t.Errorf("the task that ran on: %v", s)
			}
		})
	}
}

func (n *node) touch(id, name string) {
	n.t.Helper()
	if err := os.WriteFile(filepath.Join(n.sandbox(id), name), nil, 0o644); err != nil {
		n.t.Fatal(err)
	}
}

// TestKilledBeforeItsStart: a container whose process is killed before it was
// let go has not run, whatever its status; and one that Recover did not find can
// be made.
func TestKilledBeforeItsStart(t *testing.T) {
	n := prepareNode(t, nil)
	n.serveProcess(0)
	created, err := n.create(n.shell("created", "exit 6"))
	if err != nil {
		t.Fatal(err)
	}
	n.crash()
	if err := unix.Kill(int(created), unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	n.eventually("its status", func() bool {
		_, err := os.Stat(filepath.Join(n.dir, "containers", "created", "status"))
		return err == nil
	})
	n.serveProcess(0)
	r := n.recover("created", "later")
	for _, c := range r.GetContainers() {
		if c.GetState() != isolatorv1.Recovered_STATE_LOST {
			t.Errorf("%s is %v: nothing of it has run", c.GetContainer(), c.GetState())
		}
	}
	n.run(n.shell("later", "exit 7"))
	if got := n.wait("later"); got.GetCode() != 7 {
		t.Errorf("a container that Recover did not find and that was made then: %v", got)
	}
}

// TestDeadlinesOutliveThePlugin: the shim alone holds the escalation.
func TestDeadlinesOutliveThePlugin(t *testing.T) {
	n := prepareNode(t, nil)
	n.serveProcess(0)
	pid := n.run(n.shell("c1", `trap '' TERM; echo ready; while :; do sleep 0.01; done`))
	n.awaitOutput("c1", "ready")
	if _, err := n.Kill(n.ctx(), &isolatorv1.KillRequest{Container: "c1", GraceMs: 500}); err != nil {
		t.Fatal(err)
	}
	n.crash()
	n.eventually("the escalation", func() bool { return !alive(int(pid)) })
	n.serveProcess(0)
	if s := n.wait("c1"); s.GetSignal() != int32(unix.SIGKILL) {
		t.Errorf("status %v", s)
	}
}

// TestMemoryExceededWhileAway: the limitation is told afterwards.
func TestMemoryExceededWhileAway(t *testing.T) {
	n := prepareNode(t, nil)
	n.serveProcess(0)
	b := n.shell("c1", `echo ready; while [ ! -e go ]; do sleep 0.01; done; head -c 200000000 /dev/zero | tail`)
	b.task.Resources = []*v1.Resource{scalar("cpus", 1), scalar("mem", 16)} // 32 MiB is the least
	n.run(b)
	n.awaitOutput("c1", "ready")
	n.crash()
	n.touch("c1", "go")
	n.eventually("the task's status", func() bool {
		_, err := os.Stat(filepath.Join(n.dir, "containers", "c1", "status"))
		return err == nil
	})
	n.serveProcess(0)
	if s := n.wait("c1"); !strings.Contains(s.GetLimitation().GetMessage(), "memory limit exceeded") {
		t.Errorf("status %v", s)
	}
	stream, err := n.Limitations(n.ctx(), &isolatorv1.LimitationsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if l, err := stream.Recv(); err != nil || l.GetContainer() != "c1" {
		t.Errorf("limitation %v, %v", l, err)
	}
}

// TestWithoutRoot: no limits, which is said, but everything else.
func TestWithoutRoot(t *testing.T) {
	n := prepareNode(t, nil)
	n.serveProcess(nobody)
	if n.limited() {
		lacking(t, "undelegated cgroups", "a cgroup v2 subtree is delegated to nobody")
	}
	if !strings.Contains(n.health, "DEGRADED") || !strings.Contains(n.health, "without limits") {
		t.Errorf("health %q", n.health)
	}
	n.run(n.shell("c1", `id -u; (setsid sleep 1000 & echo $! > daemon); trap '' TERM; echo ready; while :; do sleep 0.01; done`))
	n.awaitOutput("c1", "ready")
	n.awaitOutput("c1", strconv.Itoa(nobody))
	r, err := n.Usage(n.ctx(), &isolatorv1.UsageRequest{Containers: []string{"c1"}})
	if err != nil || len(r.GetUsages()) != 1 || r.GetUsages()[0].GetStatistics().GetProcesses() < 2 {
		t.Errorf("usage %v, %v", r, err)
	}
	daemon, err := strconv.Atoi(strings.TrimSpace(n.read("c1", "daemon")))
	if err != nil || !alive(daemon) {
		t.Fatal(daemon, err)
	}
	if _, err := n.Kill(n.ctx(), &isolatorv1.KillRequest{Container: "c1", GraceMs: 50}); err != nil {
		t.Fatal(err)
	}
	if s := n.wait("c1"); s.GetSignal() != int32(unix.SIGKILL) {
		t.Errorf("status %v", s)
	}
	if alive(daemon) {
		t.Error("the task's daemon lives on")
	}
	other := n.shell("c2", "true")
	other.spec.Process.User.UID = 0
	if _, err := n.create(other); status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), "not as root") {
		t.Errorf("a task for root: %v", err)
	}
}

func (n *node) limited() bool { return strings.Contains(n.health, "HEALTHY") }

// exec runs a process in a container and returns its output and status.
func (n *node) exec(start *isolatorv1.ExecStart, inputs ...*isolatorv1.ExecInput) (string, string, *isolatorv1.ExitStatus) {
	n.t.Helper()
	stream, err := n.Exec(n.ctx())
	if err != nil {
		n.t.Fatal(err)
	}
	for _, in := range append([]*isolatorv1.ExecInput{{Start: start}}, inputs...) {
		if err := stream.Send(in); err != nil {
			n.t.Fatal(err)
		}
	}
	var stdout, stderr []byte
	for {
		o, err := stream.Recv()
		if err != nil {
			n.t.Fatalf("exec: %v (stdout %q, stderr %q)", err, stdout, stderr)
		}
		stdout, stderr = append(stdout, o.GetStdout()...), append(stderr, o.GetStderr()...)
		if o.GetStatus() != nil {
			if _, err := stream.Recv(); err != io.EOF {
				n.t.Errorf("after the status: %v", err)
			}
			return string(stdout), string(stderr), o.GetStatus()
		}
	}
}

func TestExec(t *testing.T) {
	n := newNode(t, nil)
	n.run(n.shell("c1", `sleep 1000`))
	out, errs, s := n.exec(&isolatorv1.ExecStart{Container: "c1", Process: []byte(`{"cwd":"/","env":["A=b"],"args":["/bin/sh","-c","cat; echo $A >&2; cat /proc/self/cgroup; exit 7"]}`)},
		&isolatorv1.ExecInput{Stdin: []byte("typed\n")}, &isolatorv1.ExecInput{StdinClosed: true})
	if !strings.HasPrefix(out, "typed\n") || !strings.Contains(out, "/c1") || errs != "b\n" || s.GetCode() != 7 {
		t.Errorf("stdout %q, stderr %q, status %v", out, errs, s)
	}
	out, _, s = n.exec(&isolatorv1.ExecStart{Container: "c1", Tty: true, Size: &isolatorv1.WindowSize{Rows: 11, Columns: 22},
		Process: []byte(`{"cwd":"/","env":["PATH=/usr/bin:/bin"],"args":["sh","-c","stty size; read line; echo got $line; stty size"]}`)},
		&isolatorv1.ExecInput{Resize: &isolatorv1.WindowSize{Rows: 33, Columns: 44}}, &isolatorv1.ExecInput{Stdin: []byte("it\n")})
	if !strings.Contains(out, "got it") || !strings.Contains(out, "33 44") || s.GetCode() != 0 {
		t.Errorf("terminal %q, status %v", out, s)
	}
	stream, err := n.Exec(n.ctx())
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&isolatorv1.ExecInput{Start: &isolatorv1.ExecStart{Container: "c1", Process: []byte(`{"cwd":"/","args":["/no/such"]}`)}}); err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); status.Code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), "/no/such") {
		t.Errorf("a program that is not there: %v", err)
	}
}

// TestExecEndsWithItsStream: nobody would see what it does.
func TestExecEndsWithItsStream(t *testing.T) {
	n := newNode(t, nil)
	n.run(n.shell("c1", `sleep 1000`))
	ctx, cancel := context.WithCancel(n.ctx())
	stream, err := n.Exec(ctx)
	if err != nil {
		t.Fatal(err)
	}
	start := &isolatorv1.ExecStart{Container: "c1", Process: []byte(`{"cwd":"` + n.sandbox("c1") + `","args":["/bin/sh","-c","echo $$ > pid; exec sleep 1000"]}`)}
	if err := stream.Send(&isolatorv1.ExecInput{Start: start}); err != nil {
		t.Fatal(err)
	}
	var pid int
	n.eventually("the process", func() bool {
		text, _ := os.ReadFile(filepath.Join(n.sandbox("c1"), "pid"))
		pid, _ = strconv.Atoi(strings.TrimSpace(string(text)))
		return pid != 0
	})
	cancel()
	n.eventually("the process to be killed", func() bool { return !alive(pid) })
	if c, err := n.p.Find("c1"); err != nil || c.Ended() {
		t.Error("the container ended with it")
	}
}

// TestDelegated: a user to whom a cgroup v2 subtree is delegated has limits.
// Such a host is that of make test-cgroup2.
func TestDelegated(t *testing.T) {
	if os.Getenv("MEZZO_TEST_DELEGATED") == "" {
		lacking(t, "delegated cgroups", "needs a cgroup v2 subtree delegated to nobody: make test-cgroup2")
	}
	n := prepareNode(t, map[string]any{"enforce": true})
	n.serveProcess(nobody)
	if !strings.Contains(n.health, "HEALTHY") {
		t.Errorf("health %q", n.health)
	}
	n.run(n.shell("c1", `head -c 200000000 /dev/zero | tail; sleep 1000`))
	if s := n.wait("c1"); !strings.Contains(s.GetLimitation().GetMessage(), "memory limit exceeded") {
		t.Errorf("status %v", s)
	}
}
