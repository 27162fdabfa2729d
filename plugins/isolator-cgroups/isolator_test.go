package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/mezzo-os/mezzo/plugins/internal/record"
	isolatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/isolator/v1"
	v1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
)

func TestExitStatusAndOutput(t *testing.T) {
	n := newNode(t, nil)
	n.run(n.shell("c1", `echo "$GREETING"; echo oops >&2; exit 3`))
	s := n.wait("c1")
	if !s.GetKnown() || s.GetCode() != 3 || s.GetSignal() != 0 || s.GetLimitation() != nil || s.GetDeadlineExceeded() {
		t.Errorf("status %v, want exit code 3", s)
	}
	if out := n.read("c1", "stdout"); out != "hello\n" {
		t.Errorf("stdout %q", out)
	}
	if out := n.read("c1", "stderr"); out != "oops\n" {
		t.Errorf("stderr %q", out)
	}
	if again := n.wait("c1"); again.GetCode() != 3 {
		t.Errorf("a second Wait says %v", again)
	}
	if _, err := n.Recover(n.ctx(), &isolatorv1.RecoverRequest{}); err != nil {
		t.Error(err)
	}
	n.wantMetric(1, "containers_ended_total", "exited")
	n.wantMetric(0, "containers_ended_total", "lost")
	n.wantMetric(1, "containers", "ended")
	n.wantMetric(0, "containers", "running")
	n.wantMetric(1, "create_step_seconds", "launch")
	n.wantMetric(1, "orphans_total")
}

func TestNothingRunsBeforeStart(t *testing.T) {
	n := newNode(t, nil)
	pid, err := n.create(n.shell("c1", "echo ran"))
	if err != nil {
		t.Fatal(err)
	}
	if !alive(int(pid)) {
		t.Fatalf("process %d is not there", pid)
	}
	in, err := os.ReadFile("/proc/" + strconv.Itoa(int(pid)) + "/cgroup")
	if err != nil || !strings.Contains(string(in), n.config["root"].(string)+"/c1") {
		t.Errorf("the stopped process is in %q, %v", in, err)
	}
	n.cleanup("c1")
	if out := n.read("c1", "stdout"); out != "" {
		t.Errorf("the task ran: %q", out)
	}
}

func TestStartFails(t *testing.T) {
	n := newNode(t, nil)
	b := n.shell("c1", "")
	b.spec.Process.Args = []string{"no-such-program"}
	if _, err := n.create(b); err != nil {
		t.Fatal(err)
	}
	_, err := n.Start(n.ctx(), &isolatorv1.StartRequest{Container: "c1"})
	if status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), `program "no-such-program" not found`) {
		t.Errorf("Start says %v", err)
	}
	if s := n.wait("c1"); s.GetCode() != 127 {
		t.Errorf("status %v, want code 127 as from a shell", s)
	}
}

func TestSignal(t *testing.T) {
	n := newNode(t, nil)
	n.run(n.shell("c1", `trap 'echo usr1' USR1; echo ready; while :; do sleep 0.01; done`))
	n.awaitOutput("c1", "ready")
	if _, err := n.Signal(n.ctx(), &isolatorv1.SignalRequest{Container: "c1", Signal: int32(unix.SIGUSR1)}); err != nil {
		t.Fatal(err)
	}
	n.awaitOutput("c1", "usr1")
	if _, err := n.Signal(n.ctx(), &isolatorv1.SignalRequest{Container: "c1", Signal: int32(unix.SIGKILL), All: true}); err != nil {
		t.Fatal(err)
	}
	if s := n.wait("c1"); s.GetSignal() != int32(unix.SIGKILL) {
		t.Errorf("status %v, want signal 9", s)
	}
	n.wantMetric(1, "containers_ended_total", "signaled")
}

func TestRotation(t *testing.T) {
	n := newNode(t, nil)
	b := n.shell("c1", `i=0; while [ $i -lt 3000 ]; do echo 0123456789; i=$((i+1)); done`)
	b.logs = &isolatorv1.Logs{MaxBytes: 10000, MaxFiles: 2}
	n.run(b)
	n.wait("c1")
	files, err := filepath.Glob(n.sandbox("c1") + "/stdout*")
	if err != nil || len(files) != 3 {
		t.Fatalf("files %v, %v: want stdout, stdout.1 and stdout.2", files, err)
	}
	tail := n.read("c1", "stdout.2") + n.read("c1", "stdout.1") + n.read("c1", "stdout")
	if whole := strings.Repeat("0123456789\n", 3000); !strings.HasSuffix(whole, tail) || len(tail) < 20000 {
		t.Errorf("the files do not hold the end of the output: %d bytes", len(tail))
	}
}

// TestOutputLinks: a task must not make the shim, which may be root, write
// elsewhere.
func TestOutputLinks(t *testing.T) {
	n := newNode(t, nil)
	victim := filepath.Join(t.TempDir(), "victim")
	if err := os.WriteFile(victim, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(n.sandbox("c1"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(victim, filepath.Join(n.sandbox("c1"), "stdout")); err != nil {
		t.Fatal(err)
	}
	if err := os.Link(victim, filepath.Join(n.sandbox("c1"), "stderr")); err != nil {
		t.Fatal(err)
	}
	b := n.shell("c1", `echo out; echo err >&2; ln -sf `+victim+` stdout.1; head -c 3000 /dev/zero`)
	b.spec.Process.User.UID, b.spec.Process.User.GID = 65534, 65534
	b.logs = &isolatorv1.Logs{MaxBytes: 1000, MaxFiles: 1}
	n.run(b)
	n.wait("c1")
	if text, _ := os.ReadFile(victim); string(text) != "precious" {
		t.Errorf("the victim holds %q", text)
	}
	info, err := os.Lstat(filepath.Join(n.sandbox("c1"), "stdout"))
	if err != nil || !info.Mode().IsRegular() {
		t.Errorf("stdout is %v, %v", info, err)
	}
	if n.read("c1", "stderr") != "err\n" {
		t.Errorf("stderr %q", n.read("c1", "stderr"))
	}
}

func TestMemoryLimit(t *testing.T) {
	n := newNode(t, nil)
	stream, err := n.Limitations(n.ctx(), &isolatorv1.LimitationsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	b := n.shell("c1", `sleep 1000 & head -c 200000000 /dev/zero | tail; echo survived; wait`)
	b.task.Resources = []*v1.Resource{scalar("cpus", 1), scalar("mem", 16)} // 32 MiB is the least
	n.run(b)
	s := n.wait("c1")
	told, err := stream.Recv()
	if err != nil {
		t.Fatal(err)
	}
	for what, l := range map[string]*isolatorv1.Limitation{"status": s.GetLimitation(), "stream": told} {
		if l.GetContainer() != "c1" || l.GetReason() != v1.TaskStatus_REASON_CONTAINER_LIMITATION_MEMORY ||
			!strings.Contains(l.GetMessage(), "the limit is 32.0 MiB") {
			t.Errorf("%s: %v", what, l)
		}
	}
	if s.GetSignal() != int32(unix.SIGKILL) {
		t.Errorf("status %v, want signal 9", s)
	}
	n.wantMetric(1, "containers_ended_total", "limited")
}

func TestForkBomb(t *testing.T) {
	n := newNode(t, map[string]any{"pids_max": 40})
	n.run(n.shell("c1", `bomb() { bomb | bomb & }; while :; do (bomb) 2>/dev/null; sleep 0.1; done`))
	n.eventually("the bomb to reach the limit", func() bool {
		r, err := n.Usage(n.ctx(), &isolatorv1.UsageRequest{Containers: []string{"c1"}})
		if err != nil || len(r.GetUsages()) > 0 && r.GetUsages()[0].GetStatistics().GetThreads() > 40 {
			t.Fatalf("usage %v, %v; the limit is 40", r, err)
		}
		for _, dir := range n.p.Host.Directories("c1").Join {
			for _, file := range []string{dir + "/pids.events", filepath.Dir(dir) + "/pids.events"} {
				if text, _ := os.ReadFile(file); strings.HasPrefix(string(text), "max ") && !strings.HasPrefix(string(text), "max 0\n") {
					return true
				}
			}
		}
		return false
	})
	n.cleanup("c1")
}

func TestGrandchildrenEnd(t *testing.T) {
	n := newNode(t, nil)
	n.run(n.shell("c1", `(setsid sh -c 'echo $$ > daemon; exec sleep 1000' >/dev/null 2>&1 </dev/null &); while [ ! -s daemon ]; do sleep 0.01; done; exit 0`))
	if s := n.wait("c1"); s.GetCode() != 0 {
		t.Errorf("status %v", s)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(n.read("c1", "daemon")))
	if err != nil {
		t.Fatal(err)
	}
	if alive(pid) {
		t.Errorf("the daemon %d lives on after its container", pid)
	}
}

func TestKillEscalates(t *testing.T) {
	n := newNode(t, nil)
	n.run(n.shell("c1", `trap 'echo term' TERM; echo ready; while :; do sleep 0.01; done`))
	n.awaitOutput("c1", "ready")
	if _, err := n.Kill(n.ctx(), &isolatorv1.KillRequest{Container: "c1", GraceMs: 3_600_000}); err != nil {
		t.Fatal(err)
	}
	n.awaitOutput("c1", "term")
	r, err := record.Read(filepath.Join(n.dir, "containers", "c1", record.DeadlinesFile))
	if err != nil || time.Until(time.Unix(0, r.Int(record.KillAt))) < 50*time.Minute {
		t.Errorf("the deadline on disk is %v, %v", r, err)
	}
	began := time.Now()
	if _, err := n.Kill(n.ctx(), &isolatorv1.KillRequest{Container: "c1", GraceMs: 50}); err != nil {
		t.Fatal(err)
	}
	// Later deadlines do not count any more.
	if _, err := n.Kill(n.ctx(), &isolatorv1.KillRequest{Container: "c1", GraceMs: 3_600_000}); err != nil {
		t.Fatal(err)
	}
	if s := n.wait("c1"); s.GetSignal() != int32(unix.SIGKILL) {
		t.Errorf("status %v, want signal 9", s)
	}
	if d := time.Since(began); d < 50*time.Millisecond {
		t.Errorf("killed after %v, before the grace period was over", d)
	}
	if _, err := n.Kill(n.ctx(), &isolatorv1.KillRequest{Container: "c1"}); err != nil {
		t.Errorf("a kill after the end: %v", err)
	}
}

func TestDeadline(t *testing.T) {
	n := newNode(t, nil)
	b := n.shell("c1", `trap 'echo term; exit 9' TERM; echo ready; while :; do sleep 0.01; done`)
	b.req = func(r *isolatorv1.CreateRequest) {
		r.Deadline, r.DeadlineGraceMs = timestamppb.New(time.Now().Add(10*time.Second)), 60_000 // it has to be ready by then
	}
	n.run(b)
	if s := n.wait("c1"); !s.GetDeadlineExceeded() || s.GetCode() != 9 {
		t.Errorf("status %v, want code 9 and the deadline exceeded", s)
	}
}

func TestShimDies(t *testing.T) {
	n := newNode(t, nil)
	pid := n.run(n.shell("c1", `sleep 1000 & echo $! > child; echo ready; wait`))
	n.awaitOutput("c1", "ready")
	child, err := strconv.Atoi(strings.TrimSpace(n.read("c1", "child")))
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Kill(n.shimOf("c1"), unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if s := n.wait("c1"); s.GetKnown() {
		t.Errorf("status %v, want one that is not known", s)
	}
	if alive(int(pid)) || alive(child) {
		t.Error("processes live on without a shim")
	}
	n.wantMetric(1, "containers_ended_total", "lost")
}

func TestCleanupIsIdempotent(t *testing.T) {
	n := newNode(t, nil)
	n.cleanup("never-was")
	n.run(n.shell("c1", "sleep 1000"))
	n.cleanup("c1")
	n.cleanup("c1")
	if _, err := n.Wait(n.ctx(), &isolatorv1.WaitRequest{Container: "c1"}); status.Code(err) != codes.NotFound {
		t.Errorf("Wait after Cleanup says %v", err)
	}
	// The id is free again.
	n.run(n.shell("c1", "exit 4"))
	if s := n.wait("c1"); s.GetCode() != 4 {
		t.Errorf("status %v", s)
	}
}

// TestDescriptors: whatever plugin and host have open is neither the shim's
// nor the task's.
func TestDescriptors(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	for _, f := range []*os.File{r, w} { // leaky on purpose
		if _, err := unix.FcntlInt(f.Fd(), unix.F_SETFD, 0); err != nil {
			t.Fatal(err)
		}
	}
	leaked, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(int(r.Fd())))
	if err != nil {
		t.Fatal(err)
	}
	n := newNode(t, nil)
	pid := n.run(n.shell("c1", `echo ready; exec sleep 1000`))
	n.awaitOutput("c1", "ready")
	for _, p := range []int{n.shimOf("c1"), int(pid)} {
		links, err := filepath.Glob("/proc/" + strconv.Itoa(p) + "/fd/*")
		if err != nil || len(links) < 3 {
			t.Fatalf("%v %v", links, err)
		}
		for _, l := range links {
			if to, _ := os.Readlink(l); to == leaked || strings.HasPrefix(to, "/sys/fs/cgroup") {
				t.Errorf("process %d holds %s open as %s", p, to, l)
			}
		}
		if p == int(pid) && len(links) != 3 {
			t.Errorf("the task has %d descriptors, want 3: %v", len(links), links)
		}
	}
}

// TestShimMemory holds mezzo-shim to its budget of 4 MiB resident.
func TestShimMemory(t *testing.T) {
	n := newNode(t, nil)
	n.run(n.shell("c1", `head -c 3000000 /dev/zero; echo; echo ready; exec sleep 1000`))
	n.awaitOutput("c1", "ready")
	text, err := os.ReadFile("/proc/" + strconv.Itoa(n.shimOf("c1")) + "/status")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "Rss") {
			t.Log(strings.TrimSpace(line))
		}
		if f := strings.Fields(line); len(f) == 3 && f[0] == "VmRSS:" {
			t.Logf("mezzo-shim has %s KiB resident", f[1])
			if kib, _ := strconv.Atoi(f[1]); kib == 0 || kib > 4096 {
				t.Errorf("mezzo-shim has %s KiB resident, the budget is 4096", f[1])
			}
		}
	}
}

// TestShimLinksLittle: a shim runs beside every task.
func TestShimLinksLittle(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", "./shim").Output()
	if err != nil {
		if _, missing := exec.LookPath("go"); missing != nil {
			lacking(t, "go", "%v", missing)
		}
		t.Fatal(err)
	}
	for _, p := range strings.Fields(string(out)) {
		for _, heavy := range []string{"google.golang.org/", "github.com/hashicorp/", "net", "net/http", "encoding/json", "fmt"} {
			if p == heavy || strings.HasSuffix(heavy, "/") && strings.HasPrefix(p, heavy) {
				t.Errorf("mezzo-shim links %s", p)
			}
		}
	}
}

func TestUsageAndLimits(t *testing.T) {
	n := newNode(t, map[string]any{"cfs_quota": true})
	b := n.shell("c1", `while :; do :; done`)
	b.task.Resources = []*v1.Resource{scalar("cpus", 0.1), scalar("mem", 64)}
	n.run(b)
	var s *v1.ResourceStatistics
	n.eventually("throttling", func() bool {
		r, err := n.Usage(n.ctx(), &isolatorv1.UsageRequest{})
		if err != nil || len(r.GetUsages()) != 1 {
			t.Fatalf("%v %v", r, err)
		}
		s = r.GetUsages()[0].GetStatistics()
		return s.GetCpusNrThrottled() > 0 && s.GetCpusUserTimeSecs()+s.GetCpusSystemTimeSecs() > 0
	})
	if s.GetMemLimitBytes() != 64<<20 || s.GetProcesses() != 1 || s.GetMemTotalBytes() == 0 {
		t.Errorf("usage %v", s)
	}
	update := &isolatorv1.Task{Resources: []*v1.Resource{scalar("cpus", 2), scalar("mem", 128)}}
	if _, err := n.Update(n.ctx(), &isolatorv1.UpdateRequest{Container: "c1", Task: update}); err != nil {
		t.Fatal(err)
	}
	if limit := n.p.Host.MemoryLimit("c1"); limit != 128<<20 {
		t.Errorf("memory limit %d after the update", limit)
	}
	update.Resources[1] = scalar("mem", 32)
	if _, err := n.Update(n.ctx(), &isolatorv1.UpdateRequest{Container: "c1", Task: update}); err != nil {
		t.Fatal(err)
	}
	if limit := n.p.Host.MemoryLimit("c1"); limit != 128<<20 {
		t.Errorf("memory limit %d, it must not be lowered", limit)
	}
}
