package test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// nobody is the user id that the tests without root run as when the test itself
// is root.
const nobody = 65534

// unprivileged makes a command run without root, and gives a directory that it
// may write in.
func unprivileged(t *testing.T) (func(*exec.Cmd), string) {
	t.Helper()
	dir := tempDir(t)
	if os.Getuid() != 0 {
		return nil, dir
	}
	if err := os.Chown(dir, nobody, nobody); err != nil {
		t.Fatal(err)
	}
	return func(cmd *exec.Cmd) {
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "HOME="+dir, "TMPDIR="+dir)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	}, dir
}

func TestDevWithoutRoot(t *testing.T) {
	t.Parallel()
	drop, dir := unprivileged(t)
	s := serve(t, drop, "dev", "--rpc", "127.0.0.1:0", "--http", "127.0.0.1:0", "--resources", smallAgent)
	as := func(args ...string) result {
		t.Helper()
		return mezzoAs(t, drop, append(args, "--address", s.fields["rpc"])...)
	}
	run := func(flags []string, command string) result {
		t.Helper()
		return mezzoAs(t, drop, append(append([]string{"run", "--address", s.fields["rpc"]}, flags...), "--", "sh", "-c", command)...)
	}

	if r := run(nil, "id -u; echo woe >&2; exit 3"); r.code != 3 || r.stdout != fmt.Sprintln(runningAs()) || !strings.Contains(r.stderr, "woe\n") {
		t.Errorf("run: %+v, want its own user id on stdout, woe on stderr, exit 3", r)
	}
	if r := run([]string{"--timeout", "1s"}, "sleep 60 & wait"); r.code != 124 {
		t.Errorf("a run past its timeout: %+v, want exit 124", r)
	}

	// Without limits is said once in the log, and stays to be seen.
	if !strings.Contains(as("plugins").stdout, "degraded") {
		t.Skip("limits can be enforced here without root: there is nothing to be said")
	}
	if log := s.stderr.String(); strings.Count(log, "tasks run without limits on cpu, memory and processes: ") != 1 || !strings.Contains(log, "delegate a cgroup v2 subtree") {
		t.Errorf("that there are no limits should be said once, with what to do:\n%s", log)
	}
	for _, words := range []string{"isolator/cgroups", "degraded", "tasks run without limits on cpu, memory and processes: "} {
		if r := as("plugins"); r.code != 0 || !strings.Contains(r.stdout, words) {
			t.Errorf("mezzo plugins does not say %q: %+v", words, r)
		}
	}

	r := run([]string{"--user", "root", "--name", "climber"}, "id -u")
	if r.code != 125 || r.stdout != "" || !strings.Contains(r.stderr, "TASK_ERROR") || !strings.Contains(r.stderr, `as user "root"`) || !strings.Contains(r.stderr, "only an agent that runs as root") {
		t.Errorf("a task for root: %+v, want a TASK_ERROR that says why", r)
	}

	// Ctrl-C ends everything: a task that ignores SIGTERM and what it started.
	marker := filepath.Join(dir, "pid")
	sleeper := exec.Command(filepath.Join(bin, "mezzo"), "run", "--address", s.fields["rpc"], "--", "sh", "-c", "trap '' TERM; setsid sleep 1000 & echo $$ > "+marker+"; sleep 1000; sleep 1000")
	if drop != nil {
		drop(sleeper)
	}
	if err := sleeper.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = sleeper.Process.Kill()
		_ = sleeper.Wait()
	})
	eventually(t, "the task", func() bool {
		text, err := os.ReadFile(marker)
		return err == nil && len(text) > 0
	})
	pids := processesUnder(s.cmd.Process.Pid)
	if len(pids) < 6 {
		t.Errorf("only %d processes below mezzo dev: %v", len(pids), pids)
	}
	s.stop(syscall.SIGINT)
	if code := s.cmd.ProcessState.ExitCode(); code != 0 {
		t.Errorf("mezzo dev ended with %d on Ctrl-C\n%s", code, s.stderr)
	}
	for _, pid := range pids {
		if alive(pid) {
			command, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
			t.Errorf("process %d is still there: %q", pid, command)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "mezzo-*")); len(left) > 0 {
		t.Errorf("mezzo dev left %v", left)
	}
}

func runningAs() int {
	if uid := os.Getuid(); uid != 0 {
		return uid
	}
	return nobody
}

func TestDemoWithoutRoot(t *testing.T) {
	t.Parallel()
	drop, dir := unprivileged(t)
	r := runAs(t, drop, filepath.Join(bin, "mezzo-demo"), "--mezzo", filepath.Join(bin, "mezzo"))
	if r.code != 0 || !strings.Contains(r.stdout, "All of it was so.") {
		t.Errorf("the demo without root: exit %d\n%s\n%s", r.code, r.stdout, r.stderr)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "mezzo-*")); len(left) > 0 {
		t.Errorf("the demo left %v", left)
	}
}

func TestEnforceWithoutRoot(t *testing.T) {
	t.Parallel()
	drop, dir := unprivileged(t)
	file := writeFile(t, filepath.Join(dir, "agent.hcl"), `agent {
  masters = ["127.0.0.1:1"]
  rpc     = "127.0.0.1:0"
  http    = "127.0.0.1:0"
}

isolator "cgroups" {
  config {
    enforce = true
  }
}
`)
	data := filepath.Join(dir, "data")
	if os.Getuid() == 0 {
		serve(t, nil, "agent", "--config", file, "--data-dir", filepath.Join(tempDir(t), "data")).stop(syscall.SIGTERM)
	}
	r := mezzoAs(t, drop, "agent", "--config", file, "--data-dir", data)
	for _, words := range []string{"on " + file + " line 9, column 15", "limits cannot be enforced on this host", "Run the agent as root, or delegate a cgroup v2 subtree to its user, or set enforce = false."} {
		if r.code != 1 || strings.Contains(r.stdout, "ready") || !strings.Contains(r.stderr, words) {
			t.Errorf("an agent that must enforce limits and cannot does not say %q: %+v", words, r)
		}
	}
	if left := processesNaming(dir); len(left) > 0 {
		t.Errorf("it left %q", left)
	}
}
