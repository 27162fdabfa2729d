package main

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/google/go-cmp/cmp"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/mezzo-os/mezzo/plugins/isolator-containerd/containerdtest"
	isolatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/isolator/v1"
	v1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
)

// TestAsked: what a task can ask for, as its processes see it.
func TestAsked(t *testing.T) {
	t.Parallel()
	described, profiles := cdiSpec(t), t.TempDir()
	noDirectories := `{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}]}`
	if err := os.WriteFile(filepath.Join(profiles, "no-directories.json"), []byte(noDirectories), 0o644); err != nil {
		t.Fatal(err)
	}
	n := withImage(t, map[string]any{"seccomp_dir": profiles, "allowed_devices": []string{"/dev/zero", "vendor.test/thing"}, "cdi_dirs": []string{described}})
	host := filepath.Join(n.dir, "host")
	if err := os.Mkdir(host, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(host, "file"), []byte("of the host\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	options := func(o *isolatorv1.Options) func(*box) { return func(b *box) { b.task.Options = o } }
	const caps = `grep CapBnd /proc/self/status | cut -f2`
	for name, c := range map[string]struct {
		ask    func(*box)
		script string
		want   string
	}{
		"capabilities": {nil, caps, "00000000a80425fb\n"},
		"cap-drop":     {options(&isolatorv1.Options{CapDrop: []string{"ALL"}, CapAdd: []string{"KILL"}}), caps, "0000000000000020\n"},
		"cap-add":      {options(&isolatorv1.Options{CapAdd: []string{"SYS_TIME"}}), caps, "00000000aa0425fb\n"},
		"linux_info": {func(b *box) {
			b.task.Container = &v1.ContainerInfo{Type: v1.ContainerInfo_MESOS.Enum(), LinuxInfo: &v1.LinuxInfo{
				EffectiveCapabilities: &v1.CapabilityInfo{Capabilities: []v1.CapabilityInfo_Capability{v1.CapabilityInfo_KILL}},
				Seccomp:               &v1.SeccompInfo{ProfileName: proto.String("no-directories.json")},
			}}
		}, `grep CapEff /proc/self/status | cut -f2; mkdir /tmp/x 2>/dev/null || echo refused`, "0000000000000020\nrefused\n"},
		"seccomp":      {nil, `grep ^Seccomp: /proc/self/status | cut -f2`, "2\n"},
		"no-new-privs": {options(&isolatorv1.Options{Security: []string{"no-new-privileges"}}), `grep NoNewPrivs /proc/self/status | cut -f2`, "1\n"},
		"user": {options(&isolatorv1.Options{User: "1000:1001"}), `id -u; id -g; id -G; echo written > /dev/stdout`,
			"1000\n1001\n1001\nwritten\n"},
		"read-only": {options(&isolatorv1.Options{ReadOnly: true, Tmpfs: []string{"/scratch:size=1m"}}),
			`touch /x 2>/dev/null || echo refused; touch /scratch/x && echo kept; df -k /scratch | tail -1 | awk '{print $2}'`, "refused\nkept\n1024\n"},
		"shm":      {options(&isolatorv1.Options{ShmBytes: 8 << 20}), `df -k /dev/shm | tail -1 | awk '{print $2}'`, "8192\n"},
		"device":   {options(&isolatorv1.Options{Devices: []string{"/dev/zero:/dev/nothing:r"}}), `head -c 2 /dev/nothing | wc -c`, "2\n"},
		"cdi":      {options(&isolatorv1.Options{Devices: []string{"vendor.test/thing=one"}}), `echo $THING; test -c /dev/thing && echo there`, "one\nthere\n"},
		"sysctl":   {options(&isolatorv1.Options{Sysctls: []string{"kernel.shmmni=100"}}), `cat /proc/sys/kernel/shmmni`, "100\n"},
		"hosts":    {options(&isolatorv1.Options{ExtraHosts: []string{"db:192.0.2.7"}}), `grep db /etc/hosts`, "192.0.2.7\tdb\n"},
		"hostname": {func(b *box) { b.spec.Hostname = "boxed" }, `hostname; cat /etc/hostname`, "boxed\nboxed\n"},
		"rlimit": {func(b *box) {
			b.spec.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 77, Hard: 78}}
		},
			`ulimit -Sn; ulimit -Hn`, "77\n78\n"},
		"volume": {func(b *box) {
			b.task.Container = &v1.ContainerInfo{Type: v1.ContainerInfo_MESOS.Enum(), Volumes: []*v1.Volume{
				{Mode: v1.Volume_RO.Enum(), ContainerPath: proto.String("/data"), HostPath: proto.String(host)},
				{Mode: v1.Volume_RW.Enum(), ContainerPath: proto.String("inner"), HostPath: proto.String("outer")},
			}}
		}, `cat /data/file; touch /data/x 2>/dev/null || echo refused; echo in > /mnt/mesos/sandbox/inner/x; cat /mnt/mesos/sandbox/outer/x`, "of the host\nrefused\nin\n"},
		"an isolator before": {func(b *box) {
			b.spec.Mounts = []specs.Mount{{Destination: "/given", Type: "bind", Source: host, Options: []string{"rbind", "ro"}}}
			b.spec.Linux = &specs.Linux{MaskedPaths: []string{"/etc/passwd"}}
		}, `cat /given/file; wc -c < /etc/passwd`, "of the host\n0\n"},
	} {
		b := n.shell("asked-"+strings.ReplaceAll(name, " ", "-"), c.script)
		if c.ask != nil {
			c.ask(b)
		}
		if got := n.outcome(b); got != c.want {
			t.Errorf("%s: %q, want %q; stderr %q", name, got, c.want, n.read(b.id, "stderr"))
		}
	}
	if _, err := os.Stat(filepath.Join(described, "hooked")); err != nil {
		t.Errorf("the hook of a CDI device has not run: %v", err)
	}
}

// cdiSpec is a directory with a device of the Container Device Interface.
func cdiSpec(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	text := `{"cdiVersion": "0.6.0", "kind": "vendor.test/thing", "devices": [{"name": "one", "containerEdits": {
		"env": ["THING=one"], "deviceNodes": [{"path": "/dev/thing", "hostPath": "/dev/null"}],
		"hooks": [{"hookName": "createContainer", "path": "/bin/touch", "args": ["touch", "` + filepath.Join(dir, "hooked") + `"]}]}}]}`
	if err := os.WriteFile(filepath.Join(dir, "vendor.json"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestRefused: what the operator does not allow is refused by Claim, with a
// sentence; with allow_privileged it is not.
func TestRefused(t *testing.T) {
	t.Parallel()
	asks := map[string]*isolatorv1.Options{
		"privileged": {Privileged: true}, "host's pid namespace": {HostPid: true}, "host's IPC namespace": {HostIpc: true},
		"no AppArmor profile": {Security: []string{"apparmor=unconfined"}},
		"no seccomp profile":  {Security: []string{"seccomp=unconfined"}}, "device /dev/full": {Devices: []string{"/dev/full"}},
	}
	strict, lenient := newNode(t, nil), withImage(t, map[string]any{"allow_privileged": true})
	claim := func(n *node, o *isolatorv1.Options) *isolatorv1.ClaimResponse {
		b := n.shell("c1", "true")
		b.task.Options = o
		r, err := n.Claim(n.ctx(), &isolatorv1.ClaimRequest{Container: "c1", Task: b.task})
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	for words, o := range asks {
		if r := claim(strict, o); r.GetClaim() != isolatorv1.ClaimResponse_CLAIM_NONE || !strings.Contains(r.GetReason(), words) {
			t.Errorf("%s: %v", words, r)
		}
		if r := claim(lenient, o); r.GetClaim() != isolatorv1.ClaimResponse_CLAIM_LAUNCH {
			t.Errorf("%s, allowed: %v", words, r)
		}
	}
	if r, err := strict.Claim(strict.ctx(), &isolatorv1.ClaimRequest{Container: "c1", Task: &isolatorv1.Task{}}); err != nil || r.GetClaim() != isolatorv1.ClaimResponse_CLAIM_NONE {
		t.Errorf("a task without an image: %v, %v", r, err)
	}
	b := lenient.shell("all", `grep CapEff /proc/self/status | grep -v 0000000000000000 >/dev/null && test -e /dev/full && readlink /proc/self/ns/pid`)
	b.task.Options = &isolatorv1.Options{Privileged: true, HostPid: true}
	own, err := os.Readlink("/proc/self/ns/pid")
	if err != nil {
		t.Fatal(err)
	}
	if got := lenient.outcome(b); got != own+"\n" {
		t.Errorf("the pid namespace is %q, the host's %s", got, own)
	}
}

// TestImageSays: entrypoint, environment, directory, user, volumes and stop
// signal are the image's, where the task says nothing.
func TestImageSays(t *testing.T) {
	t.Parallel()
	n := newNode(t, nil)
	i := containerdtest.Busybox("mezzo.test/app:1")
	i.Config = ocispec.ImageConfig{
		Entrypoint: []string{"/bin/sh", "-c", `echo "$0 $1 $FROM $(pwd) $(id -un)"; mount | grep -c ' /kept '; trap 'echo asked; exit 4' QUIT; echo up; while :; do sleep 0.05; done`},
		Cmd:        []string{"zero", "one"}, Env: []string{"FROM=image"}, WorkingDir: "/bin", User: "app",
		StopSignal: "SIGQUIT", Volumes: map[string]struct{}{"/kept": {}},
	}
	i.Files = map[string]string{"/etc/passwd": "root:x:0:0::/:/bin/sh\napp:x:1234:1234::/:/bin/sh\n", "/etc/group": "app:x:1234:\n"}
	n.daemon.Import(t, i.WriteOCI(t))
	b := n.shell("c1", "")
	b.task.Image.Reference = "mezzo.test/app:1"
	no := false
	b.task.Command = &v1.CommandInfo{Shell: &no}
	b.spec.Process.Args = nil
	n.run(b)
	n.output("c1", "up")
	if diff := cmp.Diff("zero one image /bin app\n1\nup\n", n.read("c1", "stdout")); diff != "" {
		t.Errorf("-want +got:\n%s%s", diff, n.read("c1", "stderr"))
	}
	if _, err := n.Kill(n.ctx(), &isolatorv1.KillRequest{Container: "c1", GraceMs: 3_600_000}); err != nil {
		t.Fatal(err)
	}
	if s := n.wait("c1"); s.GetCode() != 4 {
		t.Errorf("asked to end by the image's signal: %v", s)
	}
	own := n.shell("c2", `trap 'exit 4' QUIT; trap 'exit 5' USR1; echo up; while :; do sleep 0.05; done`)
	own.task.Image.Reference, own.task.Options = "mezzo.test/app:1", &isolatorv1.Options{StopSignal: "SIGUSR1"}
	n.run(own)
	n.output("c2", "up")
	if _, err := n.Kill(n.ctx(), &isolatorv1.KillRequest{Container: "c2", GraceMs: 3_600_000}); err != nil {
		t.Fatal(err)
	}
	if s := n.wait("c2"); s.GetCode() != 5 {
		t.Errorf("asked to end by the signal that its parameters name: %v", s)
	}
}

// TestNothing: a program that is not there, and an image that is not.
func TestNothing(t *testing.T) {
	t.Parallel()
	n := withImage(t, nil)
	b := n.shell("c1", "")
	no := false
	b.task.Command = &v1.CommandInfo{Shell: &no, Value: proto.String("no-such-program")}
	if _, err := n.create(b); err != nil {
		t.Fatal(err)
	}
	if _, err := n.Start(n.ctx(), &isolatorv1.StartRequest{Container: "c1"}); status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), `"no-such-program" not found in the container`) {
		t.Errorf("start: %v", err)
	}
	b = n.shell("c2", "true")
	b.task.Image.Reference = "mezzo.test/none:1"
	if _, err := n.prepare(b); err == nil || !strings.Contains(err.Error(), "mezzo.test/none:1") {
		t.Errorf("provision: %v", err)
	}
}

// TestTerminal: a task with a terminal controls it, and finds its name.
func TestTerminal(t *testing.T) {
	t.Parallel()
	n := withImage(t, nil)
	b := n.shell("c1", `test -t 0 && tty; test -t 1 && echo yes`)
	b.req = func(r *isolatorv1.CreateRequest) { r.Logs = &isolatorv1.Logs{Tty: true} }
	if got := n.outcome(b); got != "/dev/console\r\nyes\r\n" {
		t.Errorf("%q", got)
	}
}

// TestManyLeaveNothing: after many tasks, some of which end badly, there is as
// much as before: snapshots, cgroups, and what nothingLeft looks for.
func TestManyLeaveNothing(t *testing.T) {
	t.Parallel()
	n := withImage(t, nil)
	count := func() map[string]int {
		client := n.daemon.Client(t)
		layers := 0
		err := client.SnapshotService("").Walk(n.daemon.Context(t), func(context.Context, snapshots.Info) error { layers++; return nil })
		if err != nil {
			t.Fatal(err)
		}
		groups := 0
		for _, dir := range []string{"/sys/fs/cgroup/*/" + n.daemon.Namespace + "/*/", "/sys/fs/cgroup/" + n.daemon.Namespace + "/*/"} {
			found, _ := filepath.Glob(dir)
			groups += len(found)
		}
		return map[string]int{"snapshots": layers, "groups": groups}
	}
	before := count()
	const tasks = 24
	for i := range tasks {
		id := "c" + strconv.Itoa(i)
		b := n.shell(id, []string{"exit 0", "exit 3", "kill -9 $$", "sleep 1000"}[i%4])
		n.run(b)
		if i%4 == 3 {
			if _, err := n.Kill(n.ctx(), &isolatorv1.KillRequest{Container: id, Signal: int32(syscall.SIGKILL)}); err != nil {
				t.Fatal(err)
			}
		}
		n.wait(id)
		if _, err := n.Cleanup(n.ctx(), &isolatorv1.CleanupRequest{Container: id}); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(before, count()); diff != "" {
		t.Errorf("-before +after:\n%s", diff)
	}
	n.nothingLeft()
}
