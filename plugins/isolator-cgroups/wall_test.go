package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/mezzo-os/mezzo/plugins/internal/holder"
	isolatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/isolator/v1"
	v1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
)

// in runs a script in a running container as Exec does.
func (n *node) in(id, script string, user int) string {
	n.t.Helper()
	out, errs, s := n.exec(&isolatorv1.ExecStart{Container: id, Process: fmt.Appendf(nil,
		`{"cwd":"/","env":["PATH=/usr/bin:/bin"],"args":["sh","-c",%q],"user":{"uid":%d,"gid":%d}}`, script, user, user)})
	if s.GetCode() != 0 {
		n.t.Errorf("exec %q: %v %s", script, s, errs)
	}
	return out
}

func linuxInfo(l *v1.LinuxInfo) *v1.ContainerInfo {
	return &v1.ContainerInfo{Type: ptr(v1.ContainerInfo_MESOS), LinuxInfo: l}
}

func capabilities(list ...v1.CapabilityInfo_Capability) *v1.CapabilityInfo {
	return &v1.CapabilityInfo{Capabilities: list}
}

// TestCapabilities: what the operator gives, what a task asks for, and that
// nothing gets in by the side door.
func TestCapabilities(t *testing.T) {
	n := newNode(t, map[string]any{"bounding_capabilities": []string{"CAP_KILL", "net_bind_service"}, "effective_capabilities": []string{"KILL"}, "no_new_privs": true})
	const show = `grep -E 'CapPrm|CapEff|CapBnd|NoNewPrivs' /proc/self/status | tr '\n\t' '  '; echo`
	const given = "CapPrm: 0000000000000020 CapEff: 0000000000000020 CapBnd: 0000000000000420 NoNewPrivs: 1 \n"
	b := n.shell("given", show+`; while :; do sleep 0.1; done`)
	n.run(b)
	n.awaitOutput("given", strings.TrimSuffix(given, "\n"))
	if got := n.in("given", show, 0); got != given {
		t.Errorf("exec has %q, want %q", got, given)
	}
	asked := n.shell("asked", show)
	asked.task.Container = linuxInfo(&v1.LinuxInfo{EffectiveCapabilities: capabilities(v1.CapabilityInfo_NET_BIND_SERVICE)})
	asked.spec.Process.User.UID = 1234
	n.run(asked)
	n.wait("asked")
	if diff := cmp.Diff("CapPrm: 0000000000000400 CapEff: 0000000000000400 CapBnd: 0000000000000400 NoNewPrivs: 1 \n", n.read("asked", "stdout")); diff != "" {
		t.Errorf("asked for (-want +got):\n%s", diff)
	}
	claim, err := n.Claim(n.ctx(), &isolatorv1.ClaimRequest{Container: "more", Task: &isolatorv1.Task{
		Container: linuxInfo(&v1.LinuxInfo{EffectiveCapabilities: capabilities(v1.CapabilityInfo_SYS_ADMIN)})}})
	if err != nil || claim.GetClaim() != isolatorv1.ClaimResponse_CLAIM_NONE || !strings.Contains(claim.GetReason(), "CAP_SYS_ADMIN") {
		t.Errorf("a task that asks for more: %v, %v", claim, err)
	}
}

func TestCapabilityChoice(t *testing.T) {
	for _, c := range []struct {
		name                string
		config              Config
		asked               *v1.LinuxInfo
		effective, bounding []string
		err                 string
	}{
		{name: "nobody says anything"},
		{name: "none at all", config: Config{Basics: holder.Basics{Bounding: []string{"none"}}}, effective: []string{}, bounding: []string{}},
		{name: "effective alone", config: Config{Effective: []string{"KILL"}}, effective: []string{"CAP_KILL"}, bounding: []string{"CAP_KILL"}},
		{name: "the older field", asked: &v1.LinuxInfo{CapabilityInfo: capabilities(v1.CapabilityInfo_KILL)}, effective: []string{"CAP_KILL"}, bounding: []string{"CAP_KILL"}},
		{name: "an empty request", config: Config{Effective: []string{"KILL"}}, asked: &v1.LinuxInfo{EffectiveCapabilities: capabilities()}, effective: []string{}, bounding: []string{}},
		{name: "effective beyond bounding", asked: &v1.LinuxInfo{EffectiveCapabilities: capabilities(v1.CapabilityInfo_KILL), BoundingCapabilities: capabilities()}, err: "not among the bounding"},
	} {
		effective, bounding, err := c.config.capabilities().Of(c.asked)
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%s: %v", c.name, err)
			}
			continue
		}
		if diff := cmp.Diff([][]string{c.effective, c.bounding}, [][]string{effective, bounding}); diff != "" || err != nil {
			t.Errorf("%s: %v\n%s", c.name, err, diff)
		}
	}
}

func TestSeccompProfile(t *testing.T) {
	dir := t.TempDir()
	profile := `{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO","errnoRet":28}]}`
	if err := os.WriteFile(filepath.Join(dir, "nodirs.json"), []byte(profile), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "bad.json"), []byte(`{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdri"],"action":"SCMP_ACT_ERRNO"}]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	n := newNode(t, map[string]any{"seccomp_profile": "default", "seccomp_dir": dir})
	const script = `grep Seccomp: /proc/self/status; mkdir d && echo made; echo done; while :; do sleep 0.1; done`
	run := func(id string, user uint32, s *v1.SeccompInfo) string {
		b := n.shell(id, script)
		b.task.Container = linuxInfo(&v1.LinuxInfo{Seccomp: s})
		b.spec.Process.User.UID = user
		b.spec.Process.User.GID = user
		n.run(b)
		n.awaitOutput(id, "done")
		return strings.TrimSuffix(n.read(id, "stdout"), "done\n")
	}
	for _, user := range []uint32{0, 1234} {
		tag := fmt.Sprint(user)
		if got := run("default"+tag, user, nil); got != "Seccomp:\t2\nmade\n" {
			t.Errorf("default as %d: %q, %s", user, got, n.read("default"+tag, "stderr"))
		}
		if got := run("named"+tag, user, &v1.SeccompInfo{ProfileName: ptr("nodirs.json")}); got != "Seccomp:\t2\n" {
			t.Errorf("nodirs as %d: %q", user, got)
		}
		n.eventually("mkdir to complain", func() bool { return strings.Contains(n.read("named"+tag, "stderr"), "No space left") })
		if got := n.in("named"+tag, `grep Seccomp: /proc/self/status; mkdir /proc/d 2>&1; true`, int(user)); !strings.HasPrefix(got, "Seccomp:\t2\n") || !strings.Contains(got, "No space left") {
			t.Errorf("exec: %q", got)
		}
	}
	if got := run("free", 0, &v1.SeccompInfo{Unconfined: ptr(true)}); got != "Seccomp:\t0\nmade\n" {
		t.Errorf("unconfined: %q", got)
	}
	for want, s := range map[string]*v1.SeccompInfo{
		"there is no seccomp profile": {ProfileName: ptr("none.json")},
		"leads out":                   {ProfileName: ptr("../x")},
		`"mkdri"`:                     {ProfileName: ptr("bad.json")},
		"and for none":                {ProfileName: ptr("nodirs.json"), Unconfined: ptr(true)},
	} {
		b := n.shell("refused", "true")
		b.task.Container = linuxInfo(&v1.LinuxInfo{Seccomp: s})
		if _, err := n.create(b); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want an error with %q: %v", want, err)
		}
	}
}

// TestPaths: masked and read-only paths, and a private /tmp.
func TestPaths(t *testing.T) {
	top, err := os.MkdirTemp("/root", "mezzo-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(top) })
	t.Setenv("TMPDIR", top) // not below /tmp
	hidden := t.TempDir()
	if err := os.MkdirAll(filepath.Join(hidden, "dir"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"dir/file", "file", "kept"} {
		if err := os.WriteFile(filepath.Join(hidden, name), []byte("secret\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	n := newNode(t, map[string]any{
		"private_tmp": true, "masked_paths": []string{hidden + "/dir", hidden + "/file", hidden + "/absent"},
		"readonly_paths": []string{hidden},
	})
	private := "private-" + filepath.Base(n.dir) // nobody else has it in /tmp
	b := n.shell("c1", fmt.Sprintf(`ls %[1]s/dir; cat %[1]s/file; cat %[1]s/kept; (echo x > %[1]s/kept) 2>/dev/null || echo read-only; echo mine > /tmp/%[2]s; cd /var/tmp 2>/dev/null || cd /tmp; cat %[2]s; stat -c %%a /tmp; echo done; while :; do sleep 0.1; done`, hidden, private))
	n.run(b)
	n.awaitOutput("c1", "done")
	if diff := cmp.Diff("secret\nread-only\nmine\n1777\ndone\n", n.read("c1", "stdout")); diff != "" {
		t.Errorf("(-want +got):\n%s%s", diff, n.read("c1", "stderr"))
	}
	if got := n.in("c1", "cat /tmp/"+private+" "+hidden+"/file", 0); got != "mine\n" {
		t.Errorf("exec: %q", got)
	}
	if got := n.read("c1", "tmp/"+private); got != "mine\n" {
		t.Errorf("the sandbox's tmp: %q", got)
	}
	if _, err := os.Stat("/tmp/" + private); err == nil {
		t.Error("the host's /tmp was written to")
	}
}

func TestPrivateTmpRefused(t *testing.T) {
	if !strings.HasPrefix(os.TempDir(), "/tmp") {
		lacking(t, "TMPDIR below /tmp", "the sandbox is below %s", os.TempDir())
	}
	n := newNode(t, map[string]any{"private_tmp": true})
	if _, err := n.create(n.shell("c1", "true")); err == nil || !strings.Contains(err.Error(), "is itself below /tmp") {
		t.Errorf("a sandbox below /tmp: %v", err)
	}
}

// TestReadOnlyVolume: also what is mounted below the volume.
func TestReadOnlyVolume(t *testing.T) {
	n := newNode(t, nil)
	b := n.shell("c1", `(echo x > data/f) 2>/dev/null || echo read-only; (echo x > data/shm/mezzo-ro-test) 2>/dev/null || echo read-only below`)
	b.task.Container = &v1.ContainerInfo{Type: ptr(v1.ContainerInfo_MESOS), Volumes: []*v1.Volume{
		{HostPath: ptr("/dev"), ContainerPath: ptr("data"), Mode: ptr(v1.Volume_RO)}}}
	n.run(b)
	n.wait("c1")
	if got := n.read("c1", "stdout"); got != "read-only\nread-only below\n" {
		t.Errorf("%q %s", got, n.read("c1", "stderr"))
	}
	if _, err := os.Stat("/dev/shm/mezzo-ro-test"); err == nil {
		_ = os.Remove("/dev/shm/mezzo-ro-test")
		t.Error("a mount below a read-only volume was written to")
	}
}

// TestNestedNamespaces: a nested container shares what its parent has of its
// own, mounts too, unless it asks for its own.
func TestNestedNamespaces(t *testing.T) {
	n := newNode(t, nil)
	const who = `for x in pid ipc mnt; do readlink /proc/self/ns/$x; done; cat /dev/shm/word 2>/dev/null || echo nothing; cat vol/word 2>/dev/null || echo nothing`
	parent := n.shell("parent", `echo shared > /dev/shm/word; `+who+`; echo ready; while :; do sleep 0.1; done`)
	parent.task.Container = linuxInfo(&v1.LinuxInfo{SharePidNamespace: ptr(false), IpcMode: ptr(v1.LinuxInfo_PRIVATE)})
	n.run(parent)
	n.awaitOutput("parent", "ready")
	of := strings.Split(n.read("parent", "stdout"), "\n")
	host := t.TempDir()
	if err := os.WriteFile(host+"/word", []byte("volume\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	nested := func(id string, l *v1.LinuxInfo, volume bool) []string {
		b := n.shell(id, who)
		b.task.Parent, b.task.Container = "parent", linuxInfo(l)
		if volume {
			b.task.Container.Volumes = []*v1.Volume{{HostPath: &host, ContainerPath: ptr("vol"), Mode: ptr(v1.Volume_RO)}}
		}
		n.run(b)
		if s := n.wait(id); s.GetCode() != 0 {
			t.Errorf("%s: %v %s", id, s, n.read(id, "stderr"))
		}
		return strings.Split(n.read(id, "stdout"), "\n")
	}
	if got := nested("same", nil, false); !cmp.Equal(of[:5], got[:5]) {
		t.Errorf("it has\n%v, its parent\n%v", got, of)
	}
	got := nested("volume", &v1.LinuxInfo{SharePidNamespace: ptr(true), IpcMode: ptr(v1.LinuxInfo_SHARE_PARENT)}, true)
	if !cmp.Equal(of[:2], got[:2]) || of[2] == got[2] || got[3] != "shared" || got[4] != "volume" {
		t.Errorf("with a volume it has\n%v, its parent\n%v", got, of)
	}
	own := nested("own", &v1.LinuxInfo{SharePidNamespace: ptr(false), IpcMode: ptr(v1.LinuxInfo_PRIVATE)}, false)
	for i, kind := range []string{"pid", "ipc", "mnt"} {
		if own[i] == of[i] || own[i] == "" {
			t.Errorf("its %s namespace is %q, its parent's %q", kind, own[i], of[i])
		}
	}
	if own[3] != "nothing" {
		t.Errorf("it sees %q in its own /dev/shm", own[3])
	}
	root := &isolatorv1.Task{SandboxOnly: true, Container: linuxInfo(&v1.LinuxInfo{SharePidNamespace: ptr(false)})}
	claim, err := n.Claim(n.ctx(), &isolatorv1.ClaimRequest{Container: "root", Task: root})
	if err != nil || claim.GetClaim() != isolatorv1.ClaimResponse_CLAIM_NONE || !strings.Contains(claim.GetReason(), "has no process here") {
		t.Errorf("a root container with namespaces: %v, %v", claim, err)
	}
	if _, err := n.Kill(n.ctx(), &isolatorv1.KillRequest{Container: "parent"}); err != nil {
		t.Fatal(err)
	}
	n.wait("parent")
}

// TestOwnNamespacesBySetting: the operator's setting, and a task that shares.
func TestOwnNamespacesBySetting(t *testing.T) {
	n := newNode(t, map[string]any{"namespaces": []string{"pid", "ipc"}})
	own := n.shell("own", `echo pid $$`)
	n.run(own)
	n.wait("own")
	if got := n.read("own", "stdout"); got != "pid 1\n" {
		t.Errorf("by the setting: %q", got)
	}
	shared := n.shell("shared", `readlink /proc/self/ns/pid; readlink /proc/self/ns/ipc`)
	shared.task.Container = linuxInfo(&v1.LinuxInfo{SharePidNamespace: ptr(true), IpcMode: ptr(v1.LinuxInfo_SHARE_PARENT)})
	n.run(shared)
	n.wait("shared")
	pid, _ := os.Readlink("/proc/self/ns/pid")
	ipc, _ := os.Readlink("/proc/self/ns/ipc")
	if got := n.read("shared", "stdout"); got != pid+"\n"+ipc+"\n" {
		t.Errorf("sharing: %q, the host has %s %s", got, pid, ipc)
	}
}
