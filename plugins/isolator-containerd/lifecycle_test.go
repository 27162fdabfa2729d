package main

import (
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/mezzo-os/mezzo/plugins/internal/holder"
	"github.com/mezzo-os/mezzo/plugins/internal/perf"
	"github.com/mezzo-os/mezzo/plugins/internal/record"
	"github.com/mezzo-os/mezzo/sdk/metric/metrictest"
	isolatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/isolator/v1"
	pluginv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/plugin/v1"
	v1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
)

const untilGo = `cd /mnt/mesos/sandbox; echo ready; while [ ! -e go ]; do sleep 0.05; done; echo done; exit `

// release lets a script of untilGo go on.
func (n *node) release(id string) {
	n.t.Helper()
	if err := os.WriteFile(filepath.Join(n.sandbox(id), "go"), nil, 0o644); err != nil {
		n.t.Fatal(err)
	}
}

func (n *node) known(id string) *isolatorv1.Known {
	return &isolatorv1.Known{Container: id, Launcher: true, Handle: []byte(handle), Sandbox: n.sandbox(id)}
}

func (n *node) recover(ids ...string) (map[string]isolatorv1.Recovered_State, []string) {
	n.t.Helper()
	r := &isolatorv1.RecoverRequest{}
	for _, id := range ids {
		r.Containers = append(r.Containers, n.known(id))
	}
	answer, err := n.Recover(n.ctx(), r)
	if err != nil {
		n.t.Fatal(err)
	}
	states := map[string]isolatorv1.Recovered_State{}
	for _, c := range answer.GetContainers() {
		states[c.GetContainer()] = c.GetState()
	}
	return states, answer.GetOrphans()
}

// TestContainerdEnds: containerd is killed under running tasks. They run on, and
// what can be done with them without it works; how one ended that ended
// meanwhile is known, also to a plugin that was started anew. What needs
// containerd says so, and works when it is back.
func TestContainerdEnds(t *testing.T) {
	t.Parallel()
	n := withImage(t, nil)
	n.run(n.shell("ends", untilGo+"7"))
	n.run(n.shell("stays", untilGo+"8"))
	n.run(n.shell("killed", "trap '' TERM; echo ready; while :; do sleep 0.05; done"))
	for _, id := range []string{"ends", "stays", "killed"} {
		n.output(id, "ready")
	}
	n.daemon.Kill()
	n.release("ends")
	if s := n.wait("ends"); s.GetCode() != 7 || !s.GetKnown() {
		t.Errorf("ended by exit 7 while containerd was away: %v", s)
	}
	if _, err := n.Kill(n.ctx(), &isolatorv1.KillRequest{Container: "killed", GraceMs: 100}); err != nil {
		t.Error(err)
	}
	if s := n.wait("killed"); s.GetSignal() != int32(syscall.SIGKILL) {
		t.Errorf("killed while containerd was away: %v", s)
	}
	if out := n.exec("stays", "echo inside; exit 4", 4); out != "inside\n" {
		t.Errorf("exec while containerd was away: %q", out)
	}
	u, err := n.Usage(n.ctx(), &isolatorv1.UsageRequest{Containers: []string{"stays"}})
	if err != nil || len(u.GetUsages()) != 1 || u.GetUsages()[0].GetStatistics().GetMemTotalBytes() == 0 {
		t.Errorf("usage while containerd was away: %v, %v", u, err)
	}
	if _, err := n.create(n.shell("later", "true")); status.Code(err) != codes.Unavailable {
		t.Errorf("a launch while containerd was away: %v", err)
	}
	if _, err := n.Cleanup(n.ctx(), &isolatorv1.CleanupRequest{Container: "ends"}); status.Code(err) != codes.Unavailable {
		t.Errorf("a cleanup while containerd was away: %v", err)
	}
	n.restart()
	states, _ := n.recover("ends", "stays", "killed")
	if states["ends"] != isolatorv1.Recovered_STATE_EXITED || states["stays"] != isolatorv1.Recovered_STATE_RUNNING || states["killed"] != isolatorv1.Recovered_STATE_EXITED {
		t.Errorf("recovered without containerd: %v", states)
	}
	if s := n.wait("ends"); s.GetCode() != 7 {
		t.Errorf("the plugin was started anew, and says of exit 7: %v", s)
	}
	n.daemon.Run(t)
	n.eventually("the plugin to reach containerd", func() bool { return n.p.connection.probe(n.ctx()) == nil })
	n.release("stays")
	if s := n.wait("stays"); s.GetCode() != 8 {
		t.Errorf("ended by exit 8 after containerd was back: %v", s)
	}
	if got := n.outcome(n.shell("after", "echo works")); got != "works\n" {
		t.Errorf("a task after containerd was back: %q", got)
	}
}

// TestHealth: without containerd the plugin is unhealthy and says why, and well
// again when containerd is back.
func TestHealth(t *testing.T) {
	t.Parallel()
	n := newNode(t, nil)
	client := pluginv1.NewPluginClient(n.conn)
	state := func() string {
		stream, err := client.Health(n.ctx(), &pluginv1.HealthRequest{})
		if err != nil {
			t.Fatal(err)
		}
		s, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		return s.GetMessage()
	}
	n.daemon.Kill()
	n.eventually("the plugin to be unhealthy", func() bool { return strings.Contains(state(), "containerd at ") })
	if up, there := metrictest.Value(n.p.Metrics, "runtime_up"); up != 0 || !there {
		t.Errorf("without containerd runtime_up is %v (%v)", up, there)
	}
	n.daemon.Run(t)
	n.eventually("the plugin to be healthy", func() bool { return state() == "" })
	if up, _ := metrictest.Value(n.p.Metrics, "runtime_up"); up != 1 {
		t.Errorf("with containerd runtime_up is %v", up)
	}
}

// TestRestart: the plugin is started anew. It knows what runs, what has ended and
// what nobody named; it cleans up what it was told nothing of.
func TestRestart(t *testing.T) {
	t.Parallel()
	n := withImage(t, nil)
	n.run(n.shell("runs", untilGo+"5"))
	n.run(n.shell("ended", "exit 6"))
	n.run(n.shell("orphan", "sleep 1000"))
	if _, err := n.create(n.shell("created", "exit 9")); err != nil {
		t.Fatal(err)
	}
	if _, err := n.prepare(n.shell("provisioned", "true")); err != nil {
		t.Fatal(err)
	}
	n.wait("ended")
	n.restart()
	states, orphans := n.recover("runs", "ended", "created", "lost")
	for id, want := range map[string]isolatorv1.Recovered_State{
		"runs": isolatorv1.Recovered_STATE_RUNNING, "ended": isolatorv1.Recovered_STATE_EXITED,
		"created": isolatorv1.Recovered_STATE_CREATED, "lost": isolatorv1.Recovered_STATE_LOST,
	} {
		if states[id] != want {
			t.Errorf("recovered %s: %v, want %v", id, states[id], want)
		}
	}
	if got := strings.Join(orphans, " "); got != "orphan provisioned" {
		t.Errorf("orphans: %s", got)
	}
	if n, _ := metrictest.Value(n.p.Metrics, "orphans_total"); n != 2 {
		t.Errorf("%v orphans are counted", n)
	}
	n.eventually("the images to be counted", func() bool {
		held, _ := metrictest.Value(n.p.Metrics, "images", "true")
		disk, _ := metrictest.Value(n.p.Metrics, "image_disk_used_ratio")
		return held == 1 && disk > 0 && disk <= 1
	})
	if _, err := n.Start(n.ctx(), &isolatorv1.StartRequest{Container: "created"}); err != nil {
		t.Errorf("start what another process created: %v", err)
	}
	if s := n.wait("created"); s.GetCode() != 9 {
		t.Errorf("created: %v", s)
	}
	n.release("runs")
	if s := n.wait("runs"); s.GetCode() != 5 {
		t.Errorf("runs: %v", s)
	}
}

// TestMemory: a task that takes more than it may is ended, and it is said why,
// however its end and the kernel's notice come.
func TestMemory(t *testing.T) {
	t.Parallel()
	n := withImage(t, nil)
	stream, err := n.Limitations(n.ctx(), &isolatorv1.LimitationsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	b := n.shell("c1", "tail /dev/zero")
	b.task.Resources = []*v1.Resource{scalar("cpus", 1), scalar("mem", 32)}
	n.run(b)
	s := n.wait("c1")
	if s.GetLimitation().GetReason() != v1.TaskStatus_REASON_CONTAINER_LIMITATION_MEMORY {
		t.Errorf("status %v", s)
	}
	l, err := stream.Recv()
	if err != nil || l.GetContainer() != "c1" || !strings.Contains(l.GetMessage(), "the limit is 32.0 MiB") {
		t.Errorf("limitation %v, %v", l, err)
	}
}

// TestTimeLimit: the shim ends a task when its time is over.
func TestTimeLimit(t *testing.T) {
	t.Parallel()
	n := withImage(t, nil)
	b := n.shell("c1", "sleep 1000")
	b.req = func(r *isolatorv1.CreateRequest) { r.Deadline = timestamppb.New(time.Now().Add(15 * time.Second)) } // it has to run by then
	n.run(b)
	if s := n.wait("c1"); !s.GetDeadlineExceeded() {
		t.Errorf("status %v", s)
	}
}

// TestLimits: a task has what it asked for and no more of processor time, memory
// and processes, and what it uses is told; limits change while it runs.
func TestLimits(t *testing.T) {
	t.Parallel()
	n := withImage(t, map[string]any{"cfs_quota": true, "pids_max": 40})
	b := n.shell("c1", `(i=0; while [ $i -lt 50 ]; do sleep 1000 & i=$((i+1)); done) 2>/dev/null; echo full; sleep 1000`)
	b.task.Resources = []*v1.Resource{scalar("cpus", 0.5), scalar("mem", 64)}
	usage := func() *v1.ResourceStatistics {
		u, err := n.Usage(n.ctx(), &isolatorv1.UsageRequest{Containers: []string{"c1"}})
		if err != nil || len(u.GetUsages()) != 1 {
			t.Fatal(u, err)
		}
		return u.GetUsages()[0].GetStatistics()
	}
	n.run(b)
	n.output("c1", "full")
	u := usage()
	if u.GetMemLimitBytes() != 64<<20 || u.GetCpusLimit() != 0.5 || u.GetProcesses() < 20 || u.GetProcesses() > 40 {
		t.Errorf("limited to 0.5 CPUs, 64 MiB and 40 processes: %v", u)
	}
	if u.GetMemTotalBytes() == 0 || u.GetCpusUserTimeSecs()+u.GetCpusSystemTimeSecs() == 0 {
		t.Errorf("nothing is said to be in use: %v", u)
	}
	b.task.Resources = []*v1.Resource{scalar("cpus", 2), scalar("mem", 128)}
	if _, err := n.Update(n.ctx(), &isolatorv1.UpdateRequest{Container: "c1", Task: b.task}); err != nil {
		t.Fatal(err)
	}
	if u := usage(); u.GetMemLimitBytes() != 128<<20 || u.GetCpusLimit() != 2 {
		t.Errorf("limited anew to 2 CPUs and 128 MiB: %v", u)
	}
}

// TestPerf: events are counted of what runs in a container, also over a restart of
// the plugin, which begins anew.
func TestPerf(t *testing.T) {
	t.Parallel()
	events := []string{"task-clock", "page-faults"} // of software: every kernel has them
	if _, _, err := perf.New("/sys/fs/cgroup/unified", events, []int{0}); err != nil {
		if _, _, v2 := perf.New("/sys/fs/cgroup", events, []int{0}); v2 != nil {
			t.Skipf("events of cgroups cannot be counted here: %v; %v", err, v2)
		}
	}
	n := withImage(t, map[string]any{"perf_events": events})
	n.run(n.shell("c1", `i=0; while [ $i -lt 50 ]; do (:); i=$((i+1)); done; echo done; sleep 1000`))
	n.output("c1", "done")
	count := func() *v1.PerfStatistics {
		u, err := n.Usage(n.ctx(), &isolatorv1.UsageRequest{Containers: []string{"c1"}})
		if err != nil || len(u.GetUsages()) != 1 {
			t.Fatal(u, err)
		}
		return u.GetUsages()[0].GetStatistics().GetPerf()
	}
	first := count()
	if first.GetPageFaults() < 50 || first.GetTaskClock() <= 0 || first.Cycles != nil {
		t.Errorf("fifty children: %v", first)
	}
	n.restart()
	if again := count(); again.GetTimestamp() <= first.GetTimestamp() || again.TaskClock == nil {
		t.Errorf("first %v, after the restart %v", first, again)
	}
}

// TestGroup: the containers of a group have one network, IPC and host name, and
// /dev/shm; each has its own image, file system and pids.
func TestGroup(t *testing.T) {
	t.Parallel()
	n := withImage(t, nil)
	root := &box{id: "root", task: &isolatorv1.Task{ExecutorId: "e", SandboxOnly: true, Resources: []*v1.Resource{scalar("mem", 64)},
		Network: &isolatorv1.Network{Mode: isolatorv1.Network_MODE_NONE}}, spec: n.shell("", "").spec}
	root.spec.Process = nil
	created := n.run(root)
	if created.GetNetns() == "" {
		t.Error("the group has no network of its own")
	}
	names := `readlink /proc/self/ns/net /proc/self/ns/ipc /proc/self/ns/uts | tr '\n' ' '`
	first := n.shell("first", names+`; echo; echo shared > /dev/shm/x; mkdir /tmp/own; `+untilGo+"0")
	second := n.shell("second", names+`; echo; cat /dev/shm/x; ls -d /tmp/own || echo none`)
	first.task.Parent, second.task.Parent = "root", "root"
	n.run(first)
	n.output("first", "ready")
	out := strings.Split(n.outcome(second), "\n")
	if want := strings.Split(n.read("first", "stdout"), "\n")[0]; out[0] != want {
		t.Errorf("namespaces %q and %q", want, out[0])
	}
	if len(out) < 3 || out[1] != "shared" || out[2] != "none" {
		t.Errorf("what the second sees: %q", out)
	}
	if text, err := os.ReadFile(filepath.Join("/sys/fs/cgroup/memory", n.daemon.Namespace, "root/first/memory.limit_in_bytes")); err == nil && strings.TrimSpace(string(text)) != "67108864" {
		t.Errorf("the limit of one that is nested: %s", text)
	}
	if _, err := n.Kill(n.ctx(), &isolatorv1.KillRequest{Container: "root", GraceMs: 1000}); err != nil {
		t.Error(err)
	}
	n.wait("root")
	n.wait("first")
}

// exec runs a script in a container and returns its output.
func (n *node) exec(id, script string, code int32) string {
	n.t.Helper()
	stream, err := n.Exec(n.ctx())
	if err != nil {
		n.t.Fatal(err)
	}
	process := `{"cwd":"/","args":["sh","-c",` + quote(script) + `]}`
	if err := stream.Send(&isolatorv1.ExecInput{Start: &isolatorv1.ExecStart{Container: id, Process: []byte(process)}}); err != nil {
		n.t.Fatal(err)
	}
	var out strings.Builder
	for {
		m, err := stream.Recv()
		if err == io.EOF {
			return out.String()
		}
		if err != nil {
			n.t.Fatalf("exec in %s: %v", id, err)
		}
		out.Write(m.GetStdout())
		out.Write(m.GetStderr())
		if s := m.GetStatus(); s != nil && s.GetCode() != code {
			n.t.Errorf("exec in %s: %v, want code %d", id, s, code)
		}
	}
}

func quote(text string) string { return strconv.Quote(text) }

// TestShimKilled: with its shim a container ends, since nobody would hold it any
// more; how it ended is not known.
func TestShimKilled(t *testing.T) {
	t.Parallel()
	n := withImage(t, nil)
	created := n.run(n.shell("c1", "echo ready; sleep 1000"))
	n.output("c1", "ready")
	shim, err := record.Read(filepath.Join(n.p.Dir, "c1", record.ShimFile))
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(int(shim.Int(record.ShimPid)), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if s := n.wait("c1"); s.GetKnown() {
		t.Errorf("its shim was killed, and it ended by %v", s)
	}
	n.eventually("its first process to end", func() bool {
		state := holder.StatFields(strconv.FormatInt(created.GetPid(), 10))
		return len(state) == 0 || state[0] == "Z" || state[0] == "X"
	})
}

// TestNeverStarted: what was created and not started can be killed, and removed.
func TestNeverStarted(t *testing.T) {
	t.Parallel()
	n := withImage(t, nil)
	for _, id := range []string{"killed", "removed"} {
		if _, err := n.create(n.shell(id, "touch /mnt/mesos/sandbox/ran")); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := n.Kill(n.ctx(), &isolatorv1.KillRequest{Container: "killed", GraceMs: 3_600_000}); err != nil {
		t.Error(err)
	}
	if s := n.wait("killed"); s.GetSignal() != int32(syscall.SIGKILL) {
		t.Errorf("killed before its start: %v", s)
	}
	if _, err := n.Cleanup(n.ctx(), &isolatorv1.CleanupRequest{Container: "removed"}); err != nil {
		t.Error(err)
	}
	for _, id := range []string{"killed", "removed"} {
		if _, err := os.Stat(filepath.Join(n.sandbox(id), "ran")); err == nil {
			t.Errorf("%s has run", id)
		}
	}
}
