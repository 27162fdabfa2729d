package test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// Plugins that `mezzo plugin new` begins build without a network, pass their own
// tests and the conformance suite, and run in a cluster, as they are.
func TestPluginNew(t *testing.T) {
	t.Parallel()
	for kind, uses := range map[string]func(*testing.T, *cluster){
		"allocator": usesNewAllocator,
		"isolator":  usesNewIsolator,
		"framework": usesNewFramework,
	} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(tempDir(t), "new")
			if r := mezzo(t, nil, "plugin", "new", "my-own", "--kind", kind, "--dir", dir, "--sdk", ".."); r.code != 0 || !strings.Contains(r.stdout, "make verify") {
				t.Fatalf("plugin new: %+v", r)
			}
			config := filepath.Join(dir, "my-own.hcl")
			inNew(t, dir, "build", "test", "verify")
			for _, args := range [][]string{{"plugin", "lock", config}, {"config", "check", "--data-dir", dir, config}} {
				if r := mezzo(t, nil, args...); r.code != 0 || r.stderr != "" {
					t.Errorf("mezzo %v: %+v", args, r)
				}
			}
			lock, err := os.ReadFile(filepath.Join(dir, "mezzo.lock.hcl"))
			if err != nil || !strings.Contains(string(lock), "my-own") {
				t.Errorf("the lock does not pin it: %v\n%s", err, lock)
			}
			c := startDev(t, "--config", config)
			eventually(t, "the plugin to be healthy", func() bool { return c.plugin(kind + "/my-own")["state"] == "healthy" })
			uses(t, c)
		})
	}
}

// inNew runs targets of a new plugin's Makefile.
func inNew(t *testing.T, dir string, targets ...string) {
	t.Helper()
	out, err := build(t, dir, []string{"GOPROXY=off"}, "make", append(targets, "MEZZO="+filepath.Join(bin, "mezzo"), "FLAGS=--patience "+patience.String())...)
	if err != nil || !strings.Contains(out, " 0 failed, ") {
		t.Fatalf("make %v: %v\n%s", targets, err, out)
	}
}

// build runs a command that builds with Go, as the plugins of these tests are
// built, so that what is built is shared. It ends with everything that it started.
func build(t *testing.T, dir string, env []string, name string, args ...string) (output string, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	cmd.Env = append(append(os.Environ(), "GOFLAGS=-trimpath -buildvcs=false", "CGO_ENABLED=0"), env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func usesNewAllocator(t *testing.T, c *cluster) {
	if r := c.mezzo("run", "--", "echo", "served"); r.code != 0 || r.stdout != "served\n" {
		t.Errorf("a task: %+v", r)
	}
	if p := c.plugin("allocator/drf"); p != nil {
		t.Errorf("there is another allocator: %v", p)
	}
}

func usesNewIsolator(t *testing.T, c *cluster) {
	r := c.mezzo("run", "--env", "RACK=mine", "--", "sh", "-c", "echo $SITE $RACK")
	if r.code != 0 || r.stdout != "lisbon mine\n" {
		t.Errorf("a task: %+v", r)
	}
}

func usesNewFramework(t *testing.T, c *cluster) {
	api := "http://" + c.fields["my_own"] + "/tasks"
	ask := func(method, url, body string) (code int, text string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		q, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		answer, err := http.DefaultClient.Do(q)
		if err != nil {
			return 0, err.Error() // its process may be on the way back
		}
		defer answer.Body.Close()
		all, err := io.ReadAll(answer.Body)
		if err != nil {
			return 0, err.Error()
		}
		return answer.StatusCode, string(all)
	}
	type task struct{ ID, State string }
	post := func(command string) (out task) {
		t.Helper()
		eventually(t, "the framework to take "+command, func() bool {
			code, text := ask(http.MethodPost, api, command)
			return code == http.StatusCreated && json.Unmarshal([]byte(text), &out) == nil
		})
		return out
	}
	becomes := func(id, state string) {
		t.Helper()
		eventually(t, fmt.Sprintf("task %s to be %s", id, state), func() bool {
			var now task
			code, text := ask(http.MethodGet, api+"/"+id, "")
			return code == http.StatusOK && json.Unmarshal([]byte(text), &now) == nil && now.State == state
		})
	}
	done, long := post("echo hello"), post("sleep 1000")
	becomes(done.ID, "TASK_FINISHED")
	becomes(long.ID, "TASK_RUNNING")
	before := c.list("frameworks")
	killPlugin(t, c, "framework/my-own")
	becomes(long.ID, "TASK_RUNNING") // the next process is told of it
	if after := c.list("frameworks"); len(before) != 1 || len(after) != 1 || after[0]["id"] != before[0]["id"] {
		t.Errorf("the frameworks were %v and are %v", before, after)
	}
	if code, text := ask(http.MethodDelete, api+"/"+long.ID, ""); code != http.StatusAccepted {
		t.Errorf("to end a task: %d %s", code, text)
	}
	becomes(long.ID, "TASK_KILLED")
	// After it had nothing to do it was suppressed, and is offered something again.
	becomes(post("true").ID, "TASK_FINISHED")
}
