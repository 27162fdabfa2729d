package test

import (
	"bufio"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// installNpm copies one of the folders here and installs what it depends on:
// public clients of Mesos, as they are.
func installNpm(t *testing.T, folder string) string {
	t.Helper()
	for _, program := range []string{"node", "npm"} {
		if _, err := exec.LookPath(program); err != nil {
			lacking(t, "%v", err)
		}
	}
	dir := filepath.Join(tempDir(t), folder)
	copyTree(t, folder, dir)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund")
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		lacking(t, "npm ci: %v\n%s", err, out)
	}
	return dir
}

// nodeProgram is a program in Node that says on stdout what happens to it.
type nodeProgram struct {
	t     *testing.T
	cmd   *exec.Cmd
	ended chan struct{}

	mu    sync.Mutex
	lines []string
}

func startNode(t *testing.T, dir string, args ...string) *nodeProgram {
	t.Helper()
	p := &nodeProgram{t: t, cmd: exec.Command("node", args...), ended: make(chan struct{})}
	p.cmd.Dir = dir
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.cmd.Stderr = p.cmd.Stdout
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.ended)
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			p.mu.Lock()
			p.lines = append(p.lines, lines.Text())
			p.mu.Unlock()
		}
		_ = p.cmd.Wait()
	}()
	t.Cleanup(func() {
		p.kill()
		if t.Failed() {
			t.Logf("%v said:\n%s", args, strings.Join(p.said(""), "\n"))
		}
	})
	return p
}

// kill ends it and waits. It may be called again.
func (p *nodeProgram) kill() {
	_ = p.cmd.Process.Kill()
	<-p.ended
}

// said returns the lines that begin so.
func (p *nodeProgram) said(prefix string) (found []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, line := range p.lines {
		if strings.HasPrefix(line, prefix) {
			found = append(found, line)
		}
	}
	return found
}

// waitSaid waits until it has said so many lines that begin so.
func (p *nodeProgram) waitSaid(prefix string, count int) []string {
	p.t.Helper()
	eventually(p.t, "it to say "+prefix, func() bool { return len(p.said(prefix)) >= count })
	return p.said(prefix)
}

// finish waits until it has ended, well.
func (p *nodeProgram) finish() {
	p.t.Helper()
	select {
	case <-p.ended:
	case <-time.After(patience):
		p.t.Fatal("it does not end")
	}
	if code := p.cmd.ProcessState.ExitCode(); code != 0 || len(p.said("done")) != 1 {
		p.t.Errorf("it ended with %d, and said done %d times", code, len(p.said("done")))
	}
}

// frameworkID is the id that it subscribed with.
func frameworkID(t *testing.T, subscribed string) string {
	t.Helper()
	words := strings.Fields(subscribed)
	if len(words) != 3 {
		t.Fatalf("it said %q", subscribed)
	}
	return words[1]
}

// TestNpmMesosFramework: a framework on the public npm package mesos-framework
// runs its tasks to the end.
func TestNpmMesosFramework(t *testing.T) {
	t.Parallel()
	dir := installNpm(t, "mesos-framework")
	c := startDev(t)
	p := startNode(t, dir, "scheduler.js", c.fields["mesos"], "3", "sleep 0.2")
	p.finish()
	if errors := p.said("error"); len(errors) != 0 {
		t.Errorf("errors: %q", errors)
	}
	if running := p.said("TASK_RUNNING"); len(running) < 3 {
		t.Errorf("running: %q", running)
	}
	eventually(t, "the framework to be gone", func() bool {
		for _, f := range c.list("frameworks") {
			if f["connected"] == true || f["active"] == true {
				return false
			}
		}
		return true
	})
}

// TestNpmMesosFrameworkFailsOver: its adapter is killed in the middle, and comes
// back; then the scheduler is killed, and another goes on with its framework.
func TestNpmMesosFrameworkFailsOver(t *testing.T) {
	t.Parallel()
	dir := installNpm(t, "mesos-framework")
	c := startDev(t)
	release := filepath.Join(filepath.Dir(c.dir), "release")
	p := startNode(t, dir, "scheduler.js", c.fields["mesos"], "3", "while ! test -e "+release+"; do sleep 0.05; done")
	p.waitSaid("TASK_RUNNING", 3)
	id := frameworkID(t, p.waitSaid("subscribed", 1)[0])

	c.killAdapter()
	if got := frameworkID(t, p.waitSaid("subscribed", 2)[1]); got != id {
		t.Errorf("it was %s and is %s", id, got)
	}
	p.kill()

	p = startNode(t, dir, "scheduler.js", c.fields["mesos"], "3", "", id)
	if got := frameworkID(t, p.waitSaid("subscribed", 1)[0]); got != id {
		t.Errorf("it was to be %s and is %s", id, got)
	}
	if err := os.WriteFile(release, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	p.finish()
	for _, state := range []string{"TASK_LOST", "TASK_FAILED", "TASK_KILLED"} {
		if lines := p.said(state); len(lines) != 0 {
			t.Errorf("%q", lines)
		}
	}
}
