package pluginhost

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestCrashIsRepaired(t *testing.T) {
	r := newRig(t)
	i := r.start(r.spec("good", `{}`))
	first := r.up()
	if _, err := do(r.context(), first.Conn, "exit 7"); err == nil {
		t.Error("the call that killed it succeeded")
	}
	err := r.down()
	var e *Error
	if !errors.As(err, &e) || e.Step != StepServe {
		t.Fatalf("OnDown: %v", err)
	}
	wantText(t, e.Error(), `allocator "test": it exited with status 7`, "last lines on stderr:", "told to exit")
	if first.Context().Err() == nil {
		t.Error("the dead process's context goes on")
	}
	second := r.up()
	if second.Number != 2 || second.PID == first.PID {
		t.Errorf("second generation: number %d, pid %d after %d", second.Number, second.PID, first.PID)
	}
	if got := r.do(second, "greet"); got != "hello" {
		t.Errorf("greet after the restart: %q", got)
	}
	s := i.Status()
	if s.State != Healthy || s.Restarts != 1 || s.Generation != 2 || s.LastError != `allocator "test": it exited with status 7` {
		t.Errorf("status: %+v", s)
	}
}

func TestKilledAndPanicking(t *testing.T) {
	r := newRig(t)
	r.start(r.spec("good", `{}`))
	g := r.up()
	if err := unix.Kill(g.PID, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	wantText(t, r.down().Error(), "it was killed by signal 9 (killed)")
	do(r.context(), r.up().Conn, "panic oh no")
	wantText(t, r.down().Error(), "it exited with status 2", "panic: oh no")
	r.up()
	wantText(t, r.log.String(), "[ERROR] allocator.test: panic: oh no")
}

func TestCrashLoop(t *testing.T) {
	r := newRig(t)
	broken := filepath.Join(r.dataDir, "broken")
	i := r.start(r.spec("crash:"+broken, `{}`))
	g := r.up()
	r.write(broken, nil, 0o600)
	do(r.context(), g.Conn, "exit 1")
	r.down()
	s := r.status("crash loop", func(s Status) bool { return s.State == Degraded })
	if s.PID != 0 || s.Restarts != CrashLoop {
		t.Errorf("status in the loop: %+v", s)
	}
	wantText(t, s.Message, fmt.Sprintf("it died %d times in a row", CrashLoop), "it exited with status 4 before it was ready")
	// It goes on trying, and comes back when it can.
	r.status("more tries", func(s Status) bool { return s.Restarts > CrashLoop+2 })
	if err := os.Remove(broken); err != nil {
		t.Fatal(err)
	}
	if got := r.do(r.up(), "greet"); got != "hello" {
		t.Errorf("greet: %q", got)
	}
	s = i.Status()
	if s.State != Degraded {
		t.Errorf("state just after a crash loop: %+v", s)
	}
	wantText(t, s.Message, "it runs, after", "deaths in a row")
}

func TestCrashLoopIsForgotten(t *testing.T) {
	r := newRig(t, func(o *Options) { o.StableAfter = 50 * time.Millisecond })
	broken := filepath.Join(r.dataDir, "broken")
	r.start(r.spec("crash:"+broken, `{}`))
	g := r.up()
	r.write(broken, nil, 0o600)
	do(r.context(), g.Conn, "exit 1")
	r.status("crash loop", func(s Status) bool { return s.State == Degraded })
	if err := os.Remove(broken); err != nil {
		t.Fatal(err)
	}
	s := r.status("healthy", func(s Status) bool { return s.State == Healthy })
	if s.Message != "" {
		t.Errorf("healthy, with the message %q", s.Message)
	}
}

func TestBackoff(t *testing.T) {
	o := Options{}.withDefaults()
	for n, full := range map[int]time.Duration{
		1: 500 * time.Millisecond, 2: time.Second, 5: 8 * time.Second, 7: 32 * time.Second, 8: time.Minute, 40: time.Minute, 1000: time.Minute,
	} {
		for range 100 {
			if got := o.backoff(n); got < full*3/4 || got > full {
				t.Fatalf("backoff(%d) = %v, want between three quarters of %v and all of it", n, got, full)
			}
		}
	}
}

func TestStoppedProcessIsNoticed(t *testing.T) {
	r := newRig(t, func(o *Options) { o.PingInterval, o.PingTimeout = 20*time.Millisecond, 5*time.Second })
	r.start(r.spec("good", `{}`))
	g := r.up()
	if err := unix.Kill(g.PID, unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	wantText(t, r.down().Error(), "it did not answer a ping for 5s; the process is stopped (SIGSTOP)")
	if unix.Kill(g.PID, 0) == nil {
		t.Error("the stopped process lives on")
	}
	if got := r.do(r.up(), "greet"); got != "hello" {
		t.Errorf("greet after the restart: %q", got)
	}
}

func TestHealthIsShown(t *testing.T) {
	r := newRig(t)
	i := r.start(r.spec("good", `{}`))
	g := r.up()
	r.do(g, "unhealthy no disk")
	s := r.status("unhealthy", func(s Status) bool { return s.State == Unhealthy })
	if s.Message != "no disk" || s.PID != g.PID {
		t.Errorf("status: %+v", s)
	}
	since := s.Since
	r.do(g, "degraded little disk")
	s = r.status("degraded", func(s Status) bool { return s.State == Degraded })
	if s.Message != "little disk" || !s.Since.After(since) {
		t.Errorf("status: %+v after %v", s, since)
	}
	r.do(g, "healthy")
	r.status("healthy", func(s Status) bool { return s.State == Healthy && s.Message == "" })
	if i.Current() != g {
		t.Error("a plugin's word on its health has replaced its process")
	}
}

func TestFailReplacesTheProcess(t *testing.T) {
	r := newRig(t)
	r.start(r.spec("good", `{}`))
	g := r.up()
	cause := errors.New("it gave decision 7 twice")
	g.Fail(cause)
	g.Fail(errors.New("not heard"))
	err := r.down()
	wantText(t, err.Error(), "it gave decision 7 twice")
	if !errors.Is(err, cause) {
		t.Error("the cause is lost")
	}
	r.up()
	g.Fail(cause) // of a dead process: nothing
}

func TestOrderOfCallbacks(t *testing.T) {
	r := newRig(t)
	spec := r.spec("good", `{}`)
	events := make(chan string, 20)
	spec.OnUp = func(ctx context.Context, g *Generation) {
		events <- fmt.Sprintf("up %d", g.Number)
		r.ups <- g
		<-ctx.Done()
		events <- fmt.Sprintf("gone %d", g.Number)
	}
	spec.OnDown = func(g *Generation, err error) { events <- fmt.Sprintf("down %d %v", g.Number, err != nil) }
	i := r.start(spec)
	do(r.context(), r.up().Conn, "exit 1")
	r.up()
	i.Stop(r.context())
	close(events)
	var got []string
	for e := range events {
		got = append(got, e)
	}
	want := "up 1, gone 1, down 1 true, up 2, gone 2, down 2 false"
	if strings.Join(got, ", ") != want {
		t.Errorf("order: %q, want %q", got, want)
	}
}

func TestStubbornPluginIsKilled(t *testing.T) {
	r := newRig(t, func(o *Options) { o.ShutdownGrace = 100 * time.Millisecond })
	i := r.start(r.spec("stubborn", `{}`))
	g := r.up()
	i.Stop(r.context())
	if unix.Kill(g.PID, 0) == nil {
		t.Error("the process is left")
	}
}

func TestStopOfAStoppedProcess(t *testing.T) {
	r := newRig(t, func(o *Options) { o.ShutdownGrace = 100 * time.Millisecond })
	i := r.start(r.spec("good", `{}`))
	g := r.up()
	if err := unix.Kill(g.PID, unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	i.Stop(r.context())
	if unix.Kill(g.PID, 0) == nil {
		t.Error("the process is left")
	}
}

func TestStopDuringBackoff(t *testing.T) {
	r := newRig(t, func(o *Options) { o.BackoffMin, o.BackoffMax = time.Hour, time.Hour })
	i := r.start(r.spec("good", `{}`))
	do(r.context(), r.up().Conn, "exit 1")
	r.status("restarting", func(s Status) bool { return s.State == Restarting })
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	if _, err := i.Await(ctx); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "restarting") {
		t.Errorf("Await of what does not run: %v", err)
	}
	i.Stop(r.context())
	if s := i.Status(); s.State != Stopped {
		t.Errorf("status: %+v", s)
	}
}

// TestGrandchildHoldsOutput has something that the plugin started keep its
// stderr: the death of the plugin is noticed all the same.
func TestGrandchildHoldsOutput(t *testing.T) {
	r := newRig(t)
	r.start(r.spec("good", `{}`))
	g := r.up()
	child, err := strconv.Atoi(r.do(g, "child 1000"))
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Kill(child, unix.SIGKILL)
	if err := unix.Kill(g.PID, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	r.down()
	r.up()
}

func TestLogForwarding(t *testing.T) {
	r := newRig(t)
	r.start(r.spec("good", `{}`))
	g := r.up()
	r.do(g, "print a stray print")
	r.do(g, "log trouble")
	// The end of the process is the end of its output.
	unix.Kill(g.PID, unix.SIGKILL)
	wantText(t, r.down().Error(), "last lines on stderr:", "a stray print", "[DEBUG] counted sheep=7 word=trouble", "[ERROR] trouble")
	log := r.log.String()
	wantText(t, log, "[INFO]  allocator.test: a stray print")
	wantText(t, log, "[DEBUG] allocator.test.engine: counted: sheep=7 word=trouble")
	wantText(t, log, "[ERROR] allocator.test: trouble")
}

func TestLogLevelOfOnePlugin(t *testing.T) {
	r := newRig(t)
	spec := r.spec("good", `{}`)
	spec.LogLevel = "error"
	r.start(spec)
	g := r.up()
	if env := r.do(g, "env"); !strings.Contains(env, "MEZZO_PLUGIN_LOG_LEVEL=error") {
		t.Errorf("the plugin is not told the level:\n%s", env)
	}
	r.do(g, "log trouble")
	unix.Kill(g.PID, unix.SIGKILL)
	r.down()
	wantText(t, r.log.String(), "[ERROR] allocator.test: trouble")
	if strings.Contains(r.log.String(), "sheep") {
		t.Error("a debug line of a plugin whose level is error")
	}
}

func TestHostDiesByKill(t *testing.T) {
	r := newRig(t)
	dataDir := filepath.Join(r.dataDir, "other")
	host := exec.Command(os.Args[0])
	host.Env = append(os.Environ(), hostEnv+"="+dataDir, "MEZZO_TEST_BINARY="+r.bin)
	host.Stderr = os.Stderr
	stdin, err := host.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer stdin.Close()
	stdout, err := host.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := host.Start(); err != nil {
		t.Fatal(err)
	}
	defer host.Wait()
	defer host.Process.Kill()
	var pid int
	if _, err := fmt.Fscan(stdout, &pid); err != nil {
		t.Fatalf("the host's plugin: %v", err)
	}
	if unix.Kill(pid, 0) != nil {
		t.Fatalf("the plugin %d does not run", pid)
	}
	if _, err := New(Options{DataDir: dataDir}); err == nil || !strings.Contains(err.Error(), "another process runs plugins from data directory "+dataDir) {
		t.Errorf("a second host on the same data directory: %v", err)
	}
	if err := host.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	awaitDeath(t, pid)

	left, err := filepath.Glob(filepath.Join(dataDir, "run", "*", "*", "*"))
	if err != nil || len(left) == 0 {
		t.Fatalf("sockets left by the dead: %v, %v; the test tests nothing", left, err)
	}
	next, err := New(Options{DataDir: dataDir})
	if err != nil {
		t.Fatalf("the next host: %v", err)
	}
	r.wantNoSockets(dataDir)
	if err := next.Close(context.Background()); err != nil {
		t.Error(err)
	}
}

func TestLongDataDir(t *testing.T) {
	r := newRig(t)
	long := filepath.Join(r.dataDir, strings.Repeat("long/", 30))
	host, err := New(Options{DataDir: long})
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(host.sockets.path)
	i, err := host.Start(r.context(), r.spec("good", `{}`))
	if err != nil {
		t.Fatal(err)
	}
	if got := r.do(r.up(), "datadir"); !strings.HasPrefix(got, long) {
		t.Errorf("data dir %q", got)
	}
	_ = i
	if err := host.Close(r.context()); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(host.sockets.path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket directory outside of the data directory is left: %v", err)
	}
}

// TestTemporarySocketsChangeHands is that a directory that is removed at the end
// has one owner at a time all the same.
func TestTemporarySocketsChangeHands(t *testing.T) {
	long := filepath.Join(t.TempDir(), strings.Repeat("long/", 30))
	var owners atomic.Int32
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for range 10 {
				s, err := openSocketDir(long)
				if err != nil {
					t.Error(err)
					return
				}
				if n := owners.Add(1); n != 1 {
					t.Errorf("%d owners at once", n)
				}
				if _, err := s.attempt(); err != nil {
					t.Error(err)
				}
				owners.Add(-1)
				if err := s.close(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
}

func TestCallsAreMeasured(t *testing.T) {
	calls := make(chan string, 100)
	r := newRig(t, func(o *Options) {
		o.OnCall = func(plugin, method string, took time.Duration, err error) {
			calls <- fmt.Sprintf("%s %s %v %v", plugin, method, took > 0, err)
		}
	})
	r.start(r.spec("good", `{}`))
	r.do(r.up(), "greet")
	want := []string{
		"allocator/test /mezzo.plugin.v1.Plugin/Describe true <nil>",
		"allocator/test /mezzo.plugin.v1.Plugin/Configure true <nil>",
		"allocator/test /test.Control/Do true <nil>",
	}
	for _, w := range want {
		if got := receive(t, calls, "call"); got != w {
			t.Errorf("call %q, want %q", got, w)
		}
	}
}

func TestNoDescriptorLeaks(t *testing.T) {
	r := newRig(t)
	r.start(r.spec("good", `{}`))
	do(r.context(), r.up().Conn, "exit 1") // warms up
	g := r.up()
	before := openFiles(t)
	fds := r.do(g, "fds")
	for range 5 {
		do(r.context(), g.Conn, "exit 1")
		g = r.up()
	}
	// What a process that is gone had open here is closed a moment later.
	after, again := 0, ""
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		if after, again = openFiles(t), r.do(g, "fds"); after <= before && again == fds {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d open files after five restarts, %d before; a restarted plugin has %s open, the first had %s", after, before, again, fds)
		}
	}
}

func openFiles(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// Two instances of one identity run beside each other while one replaces the
// other; a third does not; either may be the one that stays.
func TestReplaces(t *testing.T) {
	r := newRig(t)
	old := r.start(r.spec("good", `{}`))
	spec := r.spec("good", `{}`)
	spec.Replaces = old
	next, err := r.host.Start(r.context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	if got := r.host.Instances(); len(got) != 2 || got[0] != old || got[1] != next {
		t.Fatalf("instances: %v, want the old one and the new one", got)
	}
	if a, b := old.Status().PID, next.Status().PID; a == b || a == 0 || b == 0 {
		t.Errorf("processes %d and %d, want two", a, b)
	}
	if _, err := r.host.Start(r.context(), spec); err == nil || !strings.Contains(err.Error(), "it runs already") {
		t.Errorf("a third of the same identity: %v", err)
	}
	old.Stop(r.context())
	if got := r.host.Instances(); len(got) != 1 || got[0] != next || next.Current() == nil {
		t.Errorf("after the old one's end: %v, want the new one", got)
	}
	again := r.spec("good", `{}`)
	again.Replaces = next
	failed, err := r.host.Start(r.context(), again)
	if err != nil {
		t.Fatal(err)
	}
	failed.Stop(r.context())
	if got := r.host.Instances(); len(got) != 1 || got[0] != next || next.Current() == nil {
		t.Errorf("after the end of one that was to replace it: %v, want the one before", got)
	}
}
