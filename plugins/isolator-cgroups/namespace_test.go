package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/mezzo-os/mezzo/plugins/internal/holder"
	isolatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/isolator/v1"
	v1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
)

func TestNamespaces(t *testing.T) {
	n := newNode(t, nil)
	b := n.shell("c1", `echo pid $$; hostname; ls -d /proc/[0-9]* | wc -l; cat mnt/file; touch ready; while :; do sleep 1; done`)
	for _, kind := range []specs.LinuxNamespaceType{specs.PIDNamespace, specs.IPCNamespace, specs.UTSNamespace} {
		b.spec.Linux = &specs.Linux{Namespaces: append(linuxNamespaces(b), specs.LinuxNamespace{Type: kind})}
	}
	b.spec.Hostname = "inside"
	source := t.TempDir()
	if err := os.WriteFile(filepath.Join(source, "file"), []byte("mounted\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	b.spec.Mounts = []specs.Mount{{Destination: n.sandbox("c1") + "/mnt", Source: source, Type: "bind", Options: []string{"rbind", "ro"}}}
	n.run(b)
	n.awaitOutput("c1", "mounted")
	if out := n.read("c1", "stdout"); !strings.HasPrefix(out, "pid 1\ninside\n") {
		t.Errorf("inside it is %q", out)
	}
	if _, err := os.Stat(n.sandbox("c1") + "/mnt/file"); err == nil {
		t.Error("the mount is seen from outside")
	}
	out, errs, s := n.exec(&isolatorv1.ExecStart{Container: "c1", Process: []byte(`{"cwd":"` + n.sandbox("c1") + `","env":["PATH=/usr/bin:/bin"],"args":["sh","-c","hostname; cat mnt/file; cat /proc/1/cmdline | tr '\\0' ' '; echo x > mnt/file"]}`)})
	if !strings.HasPrefix(out, "inside\nmounted\nsh -c echo pid") || !strings.Contains(errs, "Read-only") || s.GetCode() == 0 {
		t.Errorf("exec: %q %q %v", out, errs, s)
	}
}

func linuxNamespaces(b *box) []specs.LinuxNamespace {
	if b.spec.Linux == nil {
		return nil
	}
	return b.spec.Linux.Namespaces
}

// TestIdentity: user, groups, limits, capabilities, umask.
func TestIdentity(t *testing.T) {
	n := newNode(t, nil)
	b := n.shell("c1", `id -u; id -g; id -G; umask; ulimit -n; grep -E 'NoNewPrivs|CapEff|CapBnd' /proc/self/status`)
	umask := uint32(0o077)
	b.spec.Process.User = specs.User{UID: 1234, GID: 2345, AdditionalGids: []uint32{3456, 4567}, Umask: &umask}
	b.spec.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 99, Hard: 99}}
	b.spec.Process.NoNewPrivileges = true
	b.spec.Process.Capabilities = &specs.LinuxCapabilities{Bounding: []string{"CAP_NET_BIND_SERVICE"}, Effective: []string{"CAP_NET_BIND_SERVICE"},
		Permitted: []string{"CAP_NET_BIND_SERVICE"}, Inheritable: []string{"CAP_NET_BIND_SERVICE"}, Ambient: []string{"CAP_NET_BIND_SERVICE"}}
	n.run(b)
	n.wait("c1")
	want := "1234\n2345\n2345 3456 4567\n0077\n99\nCapEff:\t0000000000000400\nCapBnd:\t0000000000000400\nNoNewPrivs:\t1\n"
	if diff := cmp.Diff(want, n.read("c1", "stdout")); diff != "" {
		t.Errorf("the task is (-want +got):\n%s%s", diff, n.read("c1", "stderr"))
	}
	var st unix.Stat_t
	if err := unix.Stat(n.sandbox("c1")+"/stdout", &st); err != nil || st.Uid != 1234 || st.Gid != 2345 {
		t.Errorf("stdout belongs to %d:%d, %v", st.Uid, st.Gid, err)
	}
}

// TestGroup: a root container without a process limits those nested in it.
func TestGroup(t *testing.T) {
	n := newNode(t, nil)
	root := n.shell("root", "")
	root.spec.Process = nil
	root.task.SandboxOnly = true
	root.task.Resources = []*v1.Resource{scalar("cpus", 1), scalar("mem", 48)}
	if pid, err := n.create(root); err != nil || pid != 0 {
		t.Fatalf("pid %d, %v", pid, err)
	}
	if _, err := n.Start(n.ctx(), &isolatorv1.StartRequest{Container: "root"}); err != nil {
		t.Fatal(err)
	}
	hog := n.shell("hog", `head -c 200000000 /dev/zero | tail; sleep 1000`)
	hog.task.Parent, hog.task.ShareCgroups = "root", true
	first := 900 // of those who share a limit the kernel may end any: mostly, but not always, the largest
	hog.spec.Process.OOMScoreAdj = &first
	good := n.shell("good", `trap 'exit 8' TERM; echo ready; while :; do sleep 0.01; done`)
	good.task.Parent = "root"
	n.run(good)
	n.awaitOutput("good", "ready")
	n.run(hog)
	if s := n.wait("hog"); !strings.Contains(s.GetLimitation().GetMessage(), "the limit is 48.0 MiB") {
		t.Errorf("the hog: %v", s)
	}
	if _, err := n.Kill(n.ctx(), &isolatorv1.KillRequest{Container: "root", GraceMs: 60_000}); err != nil {
		t.Fatal(err)
	}
	if s := n.wait("good"); s.GetCode() != 8 {
		t.Errorf("the other: %v", s)
	}
	if s := n.wait("root"); !s.GetKnown() || s.GetSignal() != int32(unix.SIGTERM) {
		t.Errorf("the root: %v", s)
	}
}

func TestTerminal(t *testing.T) {
	n := newNode(t, nil)
	b := n.shell("c1", `tty >/dev/null && echo "a terminal"; stty size; echo err >&2`)
	b.spec.Process.ConsoleSize = &specs.Box{Height: 10, Width: 20}
	b.logs = &isolatorv1.Logs{Tty: true}
	n.run(b)
	if s := n.wait("c1"); s.GetCode() != 0 {
		t.Errorf("status %v", s)
	}
	if out := n.read("c1", "stdout"); out != "a terminal\r\n10 20\r\nerr\r\n" {
		t.Errorf("terminal %q", out)
	}
}

func TestClaim(t *testing.T) {
	p := newPlugin()
	docker, mesos, image := v1.ContainerInfo_DOCKER, v1.ContainerInfo_MESOS, v1.Image_DOCKER
	for name, c := range map[string]struct {
		info *v1.ContainerInfo
		want isolatorv1.ClaimResponse_Claim
	}{
		"no container":   {nil, isolatorv1.ClaimResponse_CLAIM_LAUNCH},
		"without image":  {&v1.ContainerInfo{Type: &mesos}, isolatorv1.ClaimResponse_CLAIM_LAUNCH},
		"docker":         {&v1.ContainerInfo{Type: &docker}, isolatorv1.ClaimResponse_CLAIM_NONE},
		"mesos an image": {&v1.ContainerInfo{Type: &mesos, Mesos: &v1.ContainerInfo_MesosInfo{Image: &v1.Image{Type: &image}}}, isolatorv1.ClaimResponse_CLAIM_NONE},
	} {
		r, err := p.Claim(t.Context(), &isolatorv1.ClaimRequest{Task: &isolatorv1.Task{Container: c.info}})
		if err != nil || r.GetClaim() != c.want || (r.GetReason() == "") != (c.want == isolatorv1.ClaimResponse_CLAIM_LAUNCH) {
			t.Errorf("%s: %v, %v", name, r, err)
		}
	}
}

// TestRefused: nothing that was asked for is left out in silence.
func TestRefused(t *testing.T) {
	n := newNode(t, nil)
	for text, want := range map[string]string{
		`{"root":{"path":"/srv/image"},"process":{"args":["x"]}}`:              "a root file system of its own",
		`{"process":{"args":["x"]},"hooks":{}}`:                                "hooks",
		`{"process":{"args":["x"]},"linux":{"seccomp":{"defaultAction":"x"}}}`: "seccomp",
		`{"process":{"args":["x"]},"linux":{"namespaces":[{"type":"user"}]}}`:  "a namespace of type user",
		`{"process":`: "not an OCI runtime spec",
	} {
		_, err := n.Prepare(n.ctx(), &isolatorv1.PrepareRequest{Container: "c1", Spec: []byte(text)})
		if status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", text, err)
		}
	}
	for _, id := range []string{"", "../c1", ".leaf", "a/b", "cgroup.procs"} {
		if _, err := n.Prepare(n.ctx(), &isolatorv1.PrepareRequest{Container: id, Spec: []byte(`{}`)}); status.Code(err) != codes.InvalidArgument {
			t.Errorf("id %q: %v", id, err)
		}
	}
}

func TestConfigDiagnostics(t *testing.T) {
	c := Config{Controllers: []string{"cpu", "blkio", "cpu"},
		Basics: holder.Basics{Root: "a/b", PidsMax: 3, RuntimeDir: "run", PerfEvents: []string{"cycles", "cycels", "cycles"}}}
	var got []string
	for _, d := range c.Validate() {
		got = append(got, strings.Join(d.Path, ".")+": "+d.Summary)
	}
	want := []string{"controllers.1: unknown controller", "controllers.2: controller named twice", "root: malformed cgroup name", "pids_max: too few processes", "runtime_dir: relative path",
		"perf_events.1: unknown event", "perf_events.2: event named twice"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("diagnostics (-want +got):\n%s", diff)
	}
}

// TestLinuxInfo: what a framework asks for in a task's ContainerInfo.
func TestLinuxInfo(t *testing.T) {
	n := newNode(t, nil)
	b := n.shell("c1", `echo pid $$; df -m /dev/shm | awk 'NR==2 { print $2 }'; grep CapBnd /proc/self/status; echo x > data/file`)
	mesos, private, share, shm := v1.ContainerInfo_MESOS, v1.LinuxInfo_PRIVATE, false, uint32(7)
	host, target, rw := t.TempDir(), "data", v1.Volume_RW
	b.task.Container = &v1.ContainerInfo{Type: &mesos, Volumes: []*v1.Volume{{HostPath: &host, ContainerPath: &target, Mode: &rw}},
		LinuxInfo: &v1.LinuxInfo{SharePidNamespace: &share, IpcMode: &private, ShmSize: &shm,
			EffectiveCapabilities: &v1.CapabilityInfo{Capabilities: []v1.CapabilityInfo_Capability{v1.CapabilityInfo_KILL}}}}
	n.run(b)
	n.wait("c1")
	if diff := cmp.Diff("pid 1\n7\nCapBnd:\t0000000000000020\n", n.read("c1", "stdout")); diff != "" {
		t.Errorf("(-want +got):\n%s%s", diff, n.read("c1", "stderr"))
	}
	if _, err := os.Stat(filepath.Join(host, "file")); err != nil {
		t.Errorf("the volume: %v", err)
	}
	for want, task := range map[string]*v1.ContainerInfo{
		"leaves the sandbox": {Volumes: []*v1.Volume{{HostPath: &host, ContainerPath: ptr("../x"), Mode: &rw}}},
		"escapes":            {Volumes: []*v1.Volume{{HostPath: ptr("../x"), ContainerPath: &target, Mode: &rw}}},
		"no seccomp_dir":     {LinuxInfo: &v1.LinuxInfo{Seccomp: &v1.SeccompInfo{ProfileName: ptr("x")}}},
		"ipc_mode PRIVATE":   {LinuxInfo: &v1.LinuxInfo{ShmSize: ptr(uint32(7))}},
	} {
		_, err := n.Prepare(n.ctx(), &isolatorv1.PrepareRequest{Container: "c2", Task: &isolatorv1.Task{Container: withType(task)}, Spec: []byte(`{"process":{"args":["x"]}}`), Sandbox: n.sandbox("c1")})
		if status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}

func ptr[T any](v T) *T { return &v }

func withType(c *v1.ContainerInfo) *v1.ContainerInfo {
	c.Type = ptr(v1.ContainerInfo_MESOS)
	for _, v := range c.GetVolumes() {
		v.Mode = ptr(v1.Volume_RW)
	}
	return c
}

// TestSandboxVolumes: tasks of a group share a directory of their parent's
// sandbox; what is of a task's own sandbox is its own.
func TestSandboxVolumes(t *testing.T) {
	n := newNode(t, nil)
	root := n.shell("root", "")
	root.spec.Process, root.task.SandboxOnly = nil, true
	if _, err := n.create(root); err != nil {
		t.Fatal(err)
	}
	if _, err := n.Start(n.ctx(), &isolatorv1.StartRequest{Container: "root"}); err != nil {
		t.Fatal(err)
	}
	volumes := func(mode v1.Volume_Mode) *v1.ContainerInfo {
		info := &v1.ContainerInfo{Type: ptr(v1.ContainerInfo_MESOS)}
		for name, of := range map[string]v1.Volume_Source_SandboxPath_Type{"shared": v1.Volume_Source_SandboxPath_PARENT, "own": v1.Volume_Source_SandboxPath_SELF} {
			info.Volumes = append(info.Volumes, &v1.Volume{Mode: ptr(mode), ContainerPath: ptr("mnt/" + name), Source: &v1.Volume_Source{
				Type: ptr(v1.Volume_Source_SANDBOX_PATH), SandboxPath: &v1.Volume_Source_SandboxPath{Type: ptr(of), Path: ptr("of/" + name)},
			}})
		}
		return info
	}
	writer := n.shell("writer", `echo hello > mnt/shared/word; echo mine > mnt/own/word`)
	writer.task.Parent, writer.task.Container = "root", volumes(v1.Volume_RW)
	n.run(writer)
	if s := n.wait("writer"); s.GetCode() != 0 {
		t.Fatalf("the writer: %v\n%s", s, n.read("writer", "stderr"))
	}
	reader := n.shell("reader", `cat mnt/shared/word; ls mnt/own; (echo x > mnt/shared/other) 2>/dev/null || echo read-only`)
	reader.task.Parent, reader.task.Container = "root", volumes(v1.Volume_RO)
	n.run(reader)
	n.wait("reader")
	if out := n.read("reader", "stdout"); out != "hello\nread-only\n" {
		t.Errorf("the reader: %q %s", out, n.read("reader", "stderr"))
	}
	if b, err := os.ReadFile(filepath.Join(n.sandbox("root"), "of/shared/word")); err != nil || string(b) != "hello\n" {
		t.Errorf("the parent's sandbox: %q, %v", b, err)
	}
	alone := n.shell("alone", "true")
	alone.task.Container = volumes(v1.Volume_RW)
	if _, err := n.create(alone); status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), "no parent") {
		t.Errorf("a parent's volume without a parent: %v", err)
	}
	if _, err := n.Kill(n.ctx(), &isolatorv1.KillRequest{Container: "root"}); err != nil {
		t.Fatal(err)
	}
	n.wait("root")
}

// A task that asks for a network which nobody makes does not run in the host's.
func TestNetworkOfNobody(t *testing.T) {
	n := newNode(t, nil)
	for id, network := range map[string]*isolatorv1.Network{
		"named":  {Mode: isolatorv1.Network_MODE_NAMED, Networks: []*v1.NetworkInfo{{Name: proto.String("blue")}}},
		"bridge": {Mode: isolatorv1.Network_MODE_BRIDGE, Networks: []*v1.NetworkInfo{{}}},
		"none":   {Mode: isolatorv1.Network_MODE_NONE},
	} {
		b := n.shell(id, "true")
		b.task.Network = network
		if _, err := n.create(b); status.Code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), "makes no networks") {
			t.Errorf("%s: %v", id, err)
		}
		b = n.shell(id+"-made", "ls /sys/class/net")
		b.task.Network = network
		b.spec.Linux = &specs.Linux{Namespaces: []specs.LinuxNamespace{{Type: specs.NetworkNamespace}}}
		if _, err := n.create(b); err != nil && n.user == 0 {
			t.Errorf("%s, when another isolator has made it: %v", id, err)
		}
	}
}
