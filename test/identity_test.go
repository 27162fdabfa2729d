package test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
)

// TestAgentIdentity is what becomes of an agent whose data directory was copied to
// another host, whose host was booted again, and whose disk was lost.
func TestAgentIdentity(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root can have an agent see another boot id")
	}
	y := startYard(t, "  agent_ping_interval = \"500ms\"\n  agent_ping_timeouts = 8\n")
	a := y.agent("h1")
	id := y.awaitState("h1", "active")["id"].(string)
	dir := y.dirs["h1"]

	// The copy has the same id, and is refused while the first lives.
	a.stop(syscall.SIGKILL)
	copied := y.agentArgs("h2")
	if text, err := exec.Command("cp", "-a", dir, y.dirs["h2"]).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	a = y.agent("h1")
	y.awaitState("h1", "active")
	twin := serve(t, nil, copied...)
	eventually(t, "the copy to be refused", func() bool { return strings.Contains(twin.stderr.String(), "two agents must not share one identity") })
	if all := y.list("agents"); len(all) != 1 || all[0]["id"] != id || all[0]["hostname"] != "h1" {
		t.Errorf("beside its copy the agent is %v", all)
	}
	twin.stop(syscall.SIGKILL)
	l := y.lodger("aware", mezzov1.FrameworkInfo_Capability_PARTITION_AWARE)
	l.run("t1", "h1")

	// The host is booted again: nothing runs on it, and the kernel has another id.
	a.stop(syscall.SIGKILL)
	powerOff(t, dir)
	boot := writeFile(t, filepath.Join(tempDir(t), "boot_id"), "9c0ffee0-0000-4000-8000-000000000000\n")
	a = serve(t, func(cmd *exec.Cmd) {
		const there = "/proc/sys/kernel/random/boot_id"
		script := `mount --bind "$0" ` + there + ` && exec "$@"`
		cmd.Args = append([]string{"unshare", "--mount", "--propagation", "private", "sh", "-c", script, boot, cmd.Path}, cmd.Args[1:]...)
		if cmd.Path, cmd.Err = exec.LookPath("unshare"); cmd.Err != nil {
			t.Fatal(cmd.Err)
		}
	}, y.agentArgs("h1")...)
	if st := l.await("t1", mezzov1.TaskState_TASK_FAILED); !strings.Contains(st.GetMessage(), "rebooted") {
		t.Errorf("the task that ran at the reboot: %v", st)
	}
	if got := y.awaitState("h1", "active"); got["id"] != id {
		t.Errorf("after the reboot the agent is %v, want the id %s", got, id)
	}
	l.run("t2", "h1")
	if ends := l.ends("t1"); len(ends) != 1 {
		t.Errorf("the task that ran at the reboot ended %v", ends)
	}

	// Its disk is lost: it is another agent now, and the one before is away until
	// somebody says that it will not come back.
	a.stop(syscall.SIGKILL)
	powerOff(t, dir)
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	y.agent("h1")
	l.await("t2", mezzov1.TaskState_TASK_UNREACHABLE)
	states := map[any]int{}
	for _, one := range y.list("agents") {
		if states[one["state"]]++; one["state"] == "unreachable" && one["id"] != id || one["state"] == "active" && one["id"] == id {
			t.Errorf("after the disk was lost: %v", one)
		}
	}
	if states["active"] != 1 || states["unreachable"] != 1 {
		t.Errorf("after the disk was lost there are agents %v", states)
	}
	l.run("t3", "h1")
	y.do("", "agent", "gone", "--yes", id)
	l.await("t2", mezzov1.TaskState_TASK_GONE_BY_OPERATOR)
}

// powerOff kills whatever runs from a data directory: plugins, shims, tasks.
func powerOff(t *testing.T, dir string) {
	t.Helper()
	eventually(t, "everything in "+dir+" to be dead", func() bool {
		processes, _ := filepath.Glob("/proc/[0-9]*")
		found := false
		for _, p := range processes {
			cwd, _ := os.Readlink(filepath.Join(p, "cwd"))
			command, _ := os.ReadFile(filepath.Join(p, "cmdline"))
			if !strings.HasPrefix(cwd, dir+"/") && !bytes.Contains(command, []byte(dir+"/")) {
				continue
			}
			if pid, err := strconv.Atoi(filepath.Base(p)); err == nil && alive(pid) {
				found = true
				_ = syscall.Kill(pid, syscall.SIGKILL)
			}
		}
		return !found
	})
}
