package plugintest

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	isolatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/isolator/v1"
)

// alive says whether a process lives; a zombie does not.
func alive(pid int64) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, rest, _ := strings.Cut(string(text), ") ")
	return !strings.HasPrefix(rest, "Z") && !strings.HasPrefix(rest, "X")
}

func playStart(c *scenario) {
	n := c.launcher()
	b := n.create(`echo "$GREETING from $(pwd)"; echo woe >&2; touch ran`)
	if b.pid != 0 && !alive(b.pid) {
		c.failf("Create said pid %d, and there is no such process", b.pid)
	}
	time.Sleep(c.suite.window()) // in which nothing must happen
	if _, err := os.Stat(b.sandbox + "/ran"); err == nil || b.read("stdout") != "" {
		c.failf("the task ran before Start: stdout is %q", b.read("stdout"))
	}
	if _, err := n.Start(c.call(), &isolatorv1.StartRequest{Container: b.id}); err != nil {
		c.failf("Start failed: %v", err)
	}
	n.wait(b)
	if got, want := b.read("stdout"), "hello from "+b.sandbox+"\n"; got != want {
		c.failf("its stdout is %q, want %q", got, want)
	}
	if got := b.read("stderr"); got != "woe\n" {
		c.failf("its stderr is %q, want %q", got, "woe\n")
	}
}

func playExitCode(c *scenario) {
	n := c.launcher()
	for _, code := range []int32{0, 3, 200} {
		b := n.run(fmt.Sprintf("exit %d", code))
		for range 2 {
			if s := n.wait(b); !s.GetKnown() || s.GetCode() != code || s.GetSignal() != 0 || s.GetTime() == nil {
				c.failf("a process that ended by exit %d: Wait says %v", code, s)
			}
		}
	}
}

func playExitSignal(c *scenario) {
	n := c.launcher()
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		if s := n.wait(n.run(fmt.Sprintf("kill -%d $$; sleep 1000", int(signal)))); !s.GetKnown() || s.GetSignal() != int32(signal) {
			c.failf("a process that signal %d ended: Wait says %v", int(signal), s)
		}
	}
}

func playSignal(c *scenario) {
	n := c.launcher()
	b := n.run(`trap 'echo caught; exit 4' USR1; echo ready; while :; do sleep 0.02; done`)
	n.output(b, "ready")
	if _, err := n.Signal(c.call(), &isolatorv1.SignalRequest{Container: b.id, Signal: int32(syscall.SIGUSR1)}); err != nil {
		c.failf("Signal failed: %v", err)
	}
	if s := n.wait(b); s.GetCode() != 4 || !strings.Contains(b.read("stdout"), "caught") {
		c.failf("the process was sent SIGUSR1, which it handles by exit 4: Wait says %v, stdout %q", s, b.read("stdout"))
	}
}

// kill asks a container to end within grace.
func (n *cell) kill(b *box, grace time.Duration) {
	if _, err := n.Kill(n.c.call(), &isolatorv1.KillRequest{Container: b.id, GraceMs: grace.Milliseconds()}); err != nil {
		n.c.failf("container %s: Kill failed: %v", b.id, err)
	}
}

func playKill(c *scenario) {
	n := c.launcher()
	b := n.run(`trap 'echo bye; exit 9' TERM; echo ready; while :; do sleep 0.02; done`)
	n.output(b, "ready")
	began := time.Now()
	n.kill(b, time.Hour)
	if s := n.wait(b); s.GetCode() != 9 || s.GetSignal() != 0 {
		c.failf("the process handles SIGTERM by exit 9: after Kill, Wait says %v", s)
	}
	if took := time.Since(began); took > c.suite.options.Patience/2 {
		c.failf("the process ends at once on SIGTERM; after Kill that took %v", took)
	}
}

const stubborn = `trap '' TERM; echo ready; (trap '' TERM; while :; do sleep 0.02; done) & while :; do sleep 0.02; done`

func playEscalation(c *scenario) {
	n := c.launcher()
	b := n.run(stubborn)
	n.output(b, "ready")
	const grace = 700 * time.Millisecond
	began := time.Now()
	n.kill(b, grace)
	s := n.wait(b)
	took := time.Since(began)
	switch {
	case s.GetSignal() != int32(syscall.SIGKILL):
		c.failf("the process ignores SIGTERM: after Kill with a grace of %v, Wait says %v, want signal 9", grace, s)
	case took < grace-50*time.Millisecond:
		c.failf("the grace was %v, and the process was ended after %v", grace, took)
	case b.pid != 0 && alive(b.pid):
		c.failf("Wait has returned, and process %d lives", b.pid)
	}
}

func playNearer(c *scenario) {
	n := c.launcher()
	b := n.run(stubborn)
	n.output(b, "ready")
	began := time.Now()
	n.kill(b, time.Hour)
	n.kill(b, 300*time.Millisecond)
	n.kill(b, time.Hour)
	if s := n.wait(b); s.GetSignal() != int32(syscall.SIGKILL) || time.Since(began) > c.suite.options.Patience {
		c.failf("killed with graces of 1h, 300ms and 1h: after %v, Wait says %v", time.Since(began), s)
	}
}

func playNotFound(c *scenario) {
	n := c.launcher()
	const id = "verify-never-was"
	for what, call := range map[string]func() error{
		"Wait": func() error {
			_, err := n.Wait(c.call(), &isolatorv1.WaitRequest{Container: id})
			return err
		},
		"Signal": func() error {
			_, err := n.Signal(c.call(), &isolatorv1.SignalRequest{Container: id, Signal: int32(syscall.SIGTERM)})
			return err
		},
		"Kill": func() error {
			_, err := n.Kill(c.call(), &isolatorv1.KillRequest{Container: id})
			return err
		},
	} {
		if err := call(); status.Code(err) != codes.NotFound {
			c.failf("%s of a container that never was: %v", what, err)
		}
	}
}

func playBadProgram(c *scenario) {
	n := c.launcher()
	b, text := n.box("")
	text = []byte(strings.Replace(string(text), `"args":["/bin/sh","-c",""]`, `"args":["/verify/no/such/program"]`, 1))
	if err := n.tryCreate(b, text); err != nil {
		return
	}
	if _, err := n.Start(c.call(), &isolatorv1.StartRequest{Container: b.id}); err != nil {
		return
	}
	if s := n.wait(b); s.GetCode() != 127 {
		c.failf("a program that is not there was created and started, and Wait says %v", s)
	}
}

func playConcurrent(c *scenario) {
	n := c.launcher()
	var boxes []*box
	for i := range 8 {
		boxes = append(boxes, n.run(fmt.Sprintf("echo ready; while [ ! -e go ]; do sleep 0.02; done; exit %d", i+1)))
	}
	for i, b := range slices.Backward(boxes) {
		n.output(b, "ready")
		if err := os.WriteFile(b.sandbox+"/go", nil, 0o644); err != nil {
			c.failf("write a file in a sandbox: %v", err)
		}
		if s := n.wait(b); s.GetCode() != int32(i+1) {
			c.failf("container %s ended by exit %d: Wait says %v", b.id, i+1, s)
		}
	}
}

func playUsage(c *scenario) {
	n := c.launcher()
	if !slices.Contains(c.suite.description.GetCapabilities(), "usage") {
		c.skipf("it does not measure usage")
	}
	b := n.run("echo ready; sleep 1000")
	n.output(b, "ready")
	r, err := n.Usage(c.call(), &isolatorv1.UsageRequest{Containers: []string{b.id}})
	if err != nil || len(r.GetUsages()) != 1 || r.GetUsages()[0].GetContainer() != b.id || r.GetUsages()[0].GetStatistics() == nil {
		c.failf("Usage of a container that runs: %v, %v", r, err)
	}
	n.kill(b, time.Millisecond)
	n.wait(b)
	if _, err := n.Cleanup(c.call(), &isolatorv1.CleanupRequest{Container: b.id, Handle: b.handle}); err != nil {
		c.failf("Cleanup failed: %v", err)
	}
	r, err = n.Usage(c.call(), &isolatorv1.UsageRequest{Containers: []string{b.id}})
	if status.Code(err) != codes.NotFound && (err != nil || len(r.GetUsages()) != 0) {
		c.failf("Usage of a container that was cleaned up: %v, %v", r, err)
	}
}

func playLimitations(c *scenario) {
	n := c.launcher()
	if !slices.Contains(c.suite.description.GetCapabilities(), "limitations") {
		c.skipf("it notices no exceeded limits")
	}
	ctx, cancel := context.WithTimeout(c.ctx, 2*c.suite.window())
	defer cancel()
	stream, err := n.Limitations(ctx, &isolatorv1.LimitationsRequest{})
	if err != nil {
		c.failf("Limitations failed: %v", err)
	}
	n.wait(n.run("exit 0"))
	if l, err := stream.Recv(); status.Code(err) != codes.DeadlineExceeded {
		c.failf("a container ended by itself, and Limitations says %v, %v", l, err)
	}
}

// restart kills the plugin, and goes on with the next process of it.
func (n *cell) restart() {
	c := n.c
	if n.plugin.Kill == nil {
		c.skipf("the plugin is served in the test's process")
	}
	n.plugin.Kill()
	n.use(c.configured())
	c.suite.recovered = n.plugin // whoever restarts it calls Recover himself
}

func (b *box) known() *isolatorv1.Known {
	return &isolatorv1.Known{Container: b.id, Handle: b.handle, Launcher: true, Sandbox: b.sandbox, Task: b.task}
}

func playRecover(c *scenario) {
	n := c.launcher()
	running := n.run("echo ready; while [ ! -e go ]; do sleep 0.02; done; exit 5")
	ended := n.run("echo ready; while [ ! -e go ]; do sleep 0.02; done; exit 6")
	orphan := n.run("echo ready; sleep 1000")
	for _, b := range []*box{running, ended, orphan} {
		n.output(b, "ready")
	}
	touch := func(b *box) {
		if err := os.WriteFile(b.sandbox+"/go", nil, 0o644); err != nil {
			c.failf("write a file in a sandbox: %v", err)
		}
	}
	touch(ended)
	n.wait(ended)
	n.restart()
	if running.pid != 0 && !alive(running.pid) {
		c.failf("the plugin was killed, and process %d of a container is gone", running.pid)
	}
	lost := &isolatorv1.Known{Container: "verify-lost", Launcher: true, Sandbox: running.sandbox, Task: running.task}
	r, err := n.Recover(c.call(), &isolatorv1.RecoverRequest{Containers: []*isolatorv1.Known{running.known(), ended.known(), lost}})
	if err != nil {
		c.failf("Recover failed: %v", err)
	}
	got := map[string]isolatorv1.Recovered_State{}
	for _, x := range r.GetContainers() {
		got[x.GetContainer()] = x.GetState()
	}
	for id, want := range map[string]isolatorv1.Recovered_State{
		running.id: isolatorv1.Recovered_STATE_RUNNING, ended.id: isolatorv1.Recovered_STATE_EXITED, lost.Container: isolatorv1.Recovered_STATE_LOST,
	} {
		if got[id] != want {
			c.failf("Recover says of %s: %v, want %v\nall of it: %v", id, got[id], want, r)
		}
	}
	if !slices.Contains(r.GetOrphans(), orphan.id) {
		c.failf("container %s runs and was not named to Recover; the orphans are %v", orphan.id, r.GetOrphans())
	}
	if s := n.wait(ended); s.GetCode() != 6 {
		c.failf("a container ended by exit 6 before the plugin was killed; afterwards Wait says %v", s)
	}
	touch(running)
	if s := n.wait(running); !s.GetKnown() || s.GetCode() != 5 {
		c.failf("a container ended by exit 5 after the plugin was killed and started again; Wait says %v", s)
	}
}

func playColdCleanup(c *scenario) {
	n := c.launcher()
	b := n.run("echo ready; sleep 1000")
	n.output(b, "ready")
	n.restart()
	if _, err := n.Cleanup(c.call(), &isolatorv1.CleanupRequest{Container: b.id, Handle: b.handle}); err != nil {
		c.failf("the plugin was started anew and told nothing; Cleanup of a container that runs failed: %v", err)
	}
	if !n.eventually(func() bool { return !alive(b.pid) }) {
		c.failf("process %d lives on after Cleanup by a plugin that was started anew", b.pid)
	}
}
