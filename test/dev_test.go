package test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// TestKilledDev is the recipe of docs/operations.md: what to do when mezzo dev
// itself was killed, and when all of its processes were.
func TestKilledDev(t *testing.T) {
	t.Parallel()
	for name, everything := range map[string]bool{"dev alone": false, "every process of mezzo": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(tempDir(t), "dev")
			s := serve(t, nil, "dev", "--dir", dir, "--rpc", "127.0.0.1:0", "--http", "127.0.0.1:0", "--resources", smallAgent)
			address := []string{"MEZZO_ADDRESS=" + s.fields["rpc"]}
			marker := filepath.Join(filepath.Dir(dir), "pid")
			run := exec.Command(filepath.Join(bin, "mezzo"), "run", "--", "sh", "-c", "sleep 1000 & echo $$ > "+marker+"; sleep 1000; sleep 1000")
			run.Env = append(os.Environ(), address...)
			if err := run.Start(); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				_ = run.Process.Kill()
				_ = run.Wait()
			})
			var task int
			eventually(t, "the task", func() bool {
				text, _ := os.ReadFile(marker)
				task, _ = strconv.Atoi(strings.TrimSpace(string(text)))
				return task > 0
			})
			all := processesUnder(s.cmd.Process.Pid)
			t.Cleanup(func() { // whatever the test finds, nothing may outlive it
				for _, pid := range all {
					if alive(pid) {
						t.Errorf("process %d outlived the recipe", pid)
						_ = syscall.Kill(pid, syscall.SIGKILL)
					}
				}
			})
			children := map[string]int{}
			for _, verb := range []string{"master", "agent"} {
				out, _ := exec.Command("pgrep", "-P", fmt.Sprint(s.cmd.Process.Pid), "-f", filepath.Join(bin, "mezzo")+" "+verb+" ").Output()
				children[verb], _ = strconv.Atoi(strings.TrimSpace(string(out)))
				if children[verb] == 0 {
					t.Fatalf("no single %s below mezzo dev: %q", verb, out)
				}
			}
			// Not s.stop: its pipes stay open for as long as a child has them.
			_ = s.cmd.Process.Kill()
			eventually(t, "mezzo dev to be gone", func() bool { return !alive(s.cmd.Process.Pid) })
			if !everything {
				// Master, agent and tasks go on: it is a cluster without a supervisor.
				if r := mezzo(t, address, "run", "--", "echo", "again"); r.stdout != "again\n" || !alive(task) {
					t.Errorf("after kill -9 of dev: %+v, and the task lives: %t", r, alive(task))
				}
				for _, verb := range []string{"agent", "master"} {
					_ = syscall.Kill(children[verb], syscall.SIGTERM)
					eventually(t, "the "+verb+" to end", func() bool { return !alive(children[verb]) })
				}
			} else {
				for _, verb := range []string{"agent", "master"} {
					_ = syscall.Kill(children[verb], syscall.SIGKILL)
				}
				if !alive(task) {
					t.Error("the task did not outlive the agent")
				}
				serve(t, nil, "agent", "--data-dir", filepath.Join(dir, "agent1"), "--master", "127.0.0.1:1",
					"--rpc", "127.0.0.1:0", "--http", "127.0.0.1:0", "--end-tasks").stop(syscall.SIGTERM)
			}
			eventually(t, "every process to be gone", func() bool {
				for _, pid := range all {
					if alive(pid) {
						return false
					}
				}
				return true
			})
			groups, _ := filepath.Glob("/sys/fs/cgroup/*/mezzo*/*")
			for _, group := range groups {
				if text, _ := os.ReadFile(filepath.Join(group, "cgroup.procs")); strings.Contains(string(text), fmt.Sprintf("%d\n", task)) {
					t.Errorf("the task is still in %s", group)
				}
			}
			if left, _ := os.ReadDir(filepath.Join(dir, "agent1", "agent", "plugins", "isolator-cgroups", "containers")); len(left) > 0 {
				t.Errorf("containers are left: %v", left)
			}
		})
	}
}

// SIGHUP to mezzo dev reaches its master and its agents, and it lives on.
func TestHangUpDev(t *testing.T) {
	t.Parallel()
	config := writeFile(t, filepath.Join(tempDir(t), "dev.hcl"), "role \"ads\" {\n  weight = 2\n}\n")
	s := serve(t, nil, "dev", "--config", config, "--rpc", "127.0.0.1:0", "--http", "127.0.0.1:0", "--resources", smallAgent)
	writeFile(t, config, "role \"ads\" {\n  weight = 3\n}\n")
	if err := s.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	c := &cluster{server: s}
	eventually(t, "the new weight", func() bool {
		for _, r := range c.list("roles") {
			if r["name"] == "ads" {
				return fmt.Sprint(r["weight"]) == "3"
			}
		}
		return false
	})
	eventually(t, "the agent's word", func() bool { return strings.Count(s.stderr.String(), "the configuration was reloaded") == 2 })
	if r := mezzo(t, []string{"MEZZO_ADDRESS=" + s.fields["rpc"]}, "run", "--", "echo", "on"); r.stdout != "on\n" {
		t.Errorf("work after it: %+v", r)
	}
}
