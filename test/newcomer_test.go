package test

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestRunPrintsAndExitsAsTheCommandDid(t *testing.T) {
	t.Parallel()
	c := startDev(t)
	r := c.mezzo("run", "--", "sh", "-c", "echo hello; echo woe >&2; exit 3")
	if r.code != 3 || r.stdout != "hello\n" || !strings.Contains(r.stderr, "woe\n") {
		t.Errorf("got %+v, want hello on stdout, woe on stderr, exit 3", r)
	}
	if r := c.mezzo("run", "--", "sh", "-c", "kill -9 $$"); r.code != 137 {
		t.Errorf("a command that SIGKILL ended: got %+v, want exit 137", r)
	}
	if r := c.mezzo("run", "--env", "GREETING=good day", "--", "sh", "-c", `echo "$GREETING"; pwd; echo "$MEZZO_SANDBOX"`); r.code != 0 || !strings.HasPrefix(r.stdout, "good day\n") {
		t.Errorf("environment: got %+v", r)
	} else if lines := strings.Fields(strings.TrimPrefix(r.stdout, "good day\n")); len(lines) != 2 || lines[0] != lines[1] {
		t.Errorf("the command should start in its sandbox: %q", r.stdout)
	}
	if r := c.mezzo("run", "--timeout", "1s", "--", "sleep", "60"); r.code != 124 {
		t.Errorf("timeout: got %+v, want exit 124", r)
	}
	if r := c.mezzo("run", "--", "/no/such/command"); r.code == 0 || !strings.Contains(r.stderr, "/no/such/command") {
		t.Errorf("a command that is not there: got %+v", r)
	}
	if r := c.mezzo("run"); r.code != 2 {
		t.Errorf("no command: got %+v, want exit 2", r)
	}
}

func TestRunSaysWhenNothingIsLargeEnough(t *testing.T) {
	t.Parallel()
	c := startDev(t)
	b := c.start("run", "--cpus", "64", "--", "true")
	eventually(t, "the complaint that no offer is large enough", func() bool {
		return strings.Contains(b.stderr.String(), "no offer is large enough") && strings.Contains(b.stderr.String(), "cpus:4")
	})
	_ = b.cmd.Process.Signal(syscall.SIGINT)
	if r := b.wait(); r.code != 130 {
		t.Errorf("after Ctrl-C: %+v, want exit 130", r)
	}
}

func TestRunInstances(t *testing.T) {
	t.Parallel()
	c := startDev(t, "--resources", "cpus:4;mem:4096;disk:4096")
	r := c.mezzo("run", "--instances", "50", "--cpus", "0.2", "--", "sh", "-c", "sleep 0.2; echo done")
	if r.code != 0 || strings.Count(r.stdout, "done\n") != 50 || !strings.Contains(r.stdout, "[49] done\n") {
		t.Errorf("got exit %d, %d lines, stderr %s", r.code, strings.Count(r.stdout, "done\n"), r.stderr)
	}
}

func TestMemoryLimit(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Log("without root there are no limits; see the non-root test of the isolator")
		return
	}
	c := startDev(t)
	r := c.mezzo("run", "--name", "hog", "--mem", "32", "--", "sh", "-c", "head -c 200000000 /dev/zero | tail -c 200000000 >/dev/null")
	if r.code == 0 || !strings.Contains(strings.ToLower(r.stderr), "memory limit") {
		t.Errorf("got %+v, want a message about the memory limit", r)
	}
	if task := c.task("hog"); task["reason"] != "REASON_CONTAINER_LIMITATION_MEMORY" || task["state"] != "TASK_FAILED" {
		t.Errorf("the task's status: %v", task)
	}
}

func TestCtrlCEndsEverything(t *testing.T) {
	t.Parallel()
	c := startDev(t)
	b := c.start("run", "--name", "sleeper", "--", "sh", "-c", "trap '' TERM; echo $$; sleep 1000 & wait; sleep 1000")
	eventually(t, "the task", func() bool { return strings.Contains(b.stdout.String(), "\n") })
	pids := processesUnder(c.cmd.Process.Pid)
	if len(pids) < 6 {
		t.Fatalf("only %d processes below mezzo dev: %v", len(pids), pids)
	}
	c.stop()
	if !c.cmd.ProcessState.Success() {
		t.Errorf("mezzo dev ended with %v", c.cmd.ProcessState)
	}
	for _, pid := range pids {
		if alive(pid) {
			command, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
			t.Errorf("process %d is still there: %q", pid, command)
		}
	}
}

// processesUnder lists all processes below one.
func processesUnder(pid int) []int {
	out, _ := exec.Command("pgrep", "-P", strconv.Itoa(pid)).Output()
	var all []int
	for _, word := range strings.Fields(string(out)) {
		child, _ := strconv.Atoi(word)
		all = append(append(all, child), processesUnder(child)...)
	}
	return all
}

func TestKilledPluginsComeBack(t *testing.T) {
	t.Parallel()
	c := startDev(t)
	b := c.start("run", "--name", "survivor", "--", "sh", "-c", "echo up; while [ ! -e go ]; do sleep 0.05; done; exit 7")
	eventually(t, "the task", func() bool { return b.stdout.String() == "up\n" })
	for _, id := range []string{"allocator/drf", "isolator/cgroups"} {
		killPlugin(t, c, id)
	}
	if state := c.task("survivor")["state"]; state != "TASK_RUNNING" {
		t.Errorf("the task is %v", state)
	}
	if r := c.mezzo("run", "--", "echo", "again"); r.stdout != "again\n" {
		t.Errorf("new work after the restarts: %+v", r)
	}
	release(t, c, "survivor")
	if r := b.wait(); r.code != 7 {
		t.Errorf("the survivor: %+v, want exit 7", r)
	}
}

// killPlugin kills a plugin's process and waits for the next.
func killPlugin(t *testing.T, c *cluster, id string) {
	t.Helper()
	pid := float64(c.kill(id))
	eventually(t, id+" to be back", func() bool {
		p := c.plugin(id)
		now, _ := p["pid"].(float64)
		return p["state"] == "healthy" && now > 0 && now != pid
	})
}

// kill kills a plugin's process, and returns which it was.
func (c *cluster) kill(id string) int {
	c.t.Helper()
	var pid float64
	eventually(c.t, id+" to be up", func() bool {
		pid, _ = c.plugin(id)["pid"].(float64)
		return pid > 0
	})
	if err := syscall.Kill(int(pid), syscall.SIGKILL); err != nil {
		c.t.Fatal(err)
	}
	return int(pid)
}

// release lets a task go that waits for the file `go` in its sandbox.
func release(t *testing.T, c *cluster, name string) {
	t.Helper()
	task := c.task(name)
	matches, _ := filepath.Glob(filepath.Join(c.dir, "agent1", "work", "*", "*", "frameworks", fmt.Sprint(task["framework_id"]), "executors", "*", "runs", "latest"))
	if len(matches) == 0 {
		t.Fatalf("no sandbox for %v", task)
	}
	for _, m := range matches {
		if err := os.WriteFile(filepath.Join(m, "go"), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func TestKilledAgentAndMasterGoOnWithTheirTasks(t *testing.T) {
	t.Parallel()
	c := startDev(t)
	b := c.start("run", "--name", "survivor", "--", "sh", "-c", "echo up; while [ ! -e go ]; do sleep 0.05; done; exit 7")
	eventually(t, "the task", func() bool { return b.stdout.String() == "up\n" })
	agentID := c.task("survivor")["agent_id"]
	events, watched := c.start("events", "--json"), c.start("tasks", "--watch")
	eventually(t, "the list that is watched", func() bool { return strings.Contains(watched.stdout.String(), "survivor") })
	weight := 1
	eventually(t, "an event", func() bool { // what was there before is none
		weight++
		c.mezzo("weights", "set", fmt.Sprintf("probe=%d", weight))
		return strings.Contains(events.stdout.String(), "probe")
	})
	for _, who := range []string{"agent1", "master"} {
		c.killChild(who)
		c.startAgain(who)
		eventually(t, "the agent to be back", func() bool {
			agents := c.list("agents")
			return len(agents) == 1 && agents[0]["state"] == "active" && agents[0]["id"] == agentID
		})
		eventually(t, "the task to be known again", func() bool { return c.task("survivor")["state"] == "TASK_RUNNING" })
	}
	release(t, c, "survivor")
	if r := b.wait(); r.code != 7 {
		t.Errorf("the survivor: %+v, want exit 7", r)
	}
	if r := c.mezzo("run", "--", "echo", "again"); r.stdout != "again\n" {
		t.Errorf("new work: %+v", r)
	}
	// Whoever watched has seen it too, with the master that came back.
	for who, b := range map[string]*background{"events": events, "tasks --watch": watched} {
		eventually(t, "the end of the survivor in "+who, func() bool {
			return strings.Contains(b.stderr.String(), "connecting again") && strings.Contains(b.stdout.String(), "FAILED")
		})
	}
	eventually(t, "the end of new work in events", func() bool { return strings.Contains(events.stdout.String(), "→ FINISHED") })
	if r := c.mezzo("top", "--interval", "500ms"); r.code != 0 || !strings.Contains(r.stdout, fmt.Sprint(agentID)) {
		t.Errorf("top: %+v", r)
	}
	if r := c.mezzo("__complete", "agent", "drain", ""); !strings.HasPrefix(r.stdout, fmt.Sprint(agentID)+"\t") {
		t.Errorf("completion: %+v", r)
	}
}

func childPid(t *testing.T, c *cluster, verb string) int {
	t.Helper()
	out, _ := exec.Command("pgrep", "-P", strconv.Itoa(c.cmd.Process.Pid), "-f", filepath.Join(bin, "mezzo")+" "+verb+" ").Output()
	pid, err := strconv.Atoi(strings.TrimSpace(string(out)))
	if err != nil {
		t.Fatalf("no single %s below mezzo dev: %q", verb, out)
	}
	return pid
}

// killChild kills a process of mezzo dev: "agent1", "master".
func (c *cluster) killChild(who string) {
	c.t.Helper()
	pid := childPid(c.t, c, strings.TrimRight(who, "1"))
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		c.t.Fatal(err)
	}
	eventually(c.t, who+" to be gone", func() bool { return !alive(pid) })
	kept := []string{"rpc", "http", "mesos"}
	if who != "master" {
		kept = []string{"agent", "agent_http", "mesos_agent"}
	}
	for _, field := range kept {
		keepFree(c.t, c.fields[field])
	}
}

// startAgain does what mezzo dev says is to be done when a process of it has
// ended.
func (c *cluster) startAgain(who string) {
	c.t.Helper()
	var command string
	eventually(c.t, "the command that starts the "+who+" again", func() bool {
		_, after, found := strings.Cut(c.stderr.String(), who+" has ended")
		if !found {
			return false
		}
		for _, line := range strings.Split(after, "\n") {
			if strings.HasPrefix(line, "  ") && strings.HasSuffix(after, "\n") {
				command = strings.TrimSpace(line)
				return true
			}
		}
		return false
	})
	restart := exec.Command("sh", "-c", "exec "+command)
	restart.Stdout, restart.Stderr = c.stderr, c.stderr
	if err := restart.Start(); err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() {
		_ = restart.Process.Signal(syscall.SIGTERM)
		_ = restart.Wait()
	})
}

func TestKillAndLogs(t *testing.T) {
	t.Parallel()
	c := startDev(t)
	b := c.start("run", "--name", "talker", "--", "sh", "-c", "echo one; echo two >&2; sleep 1000")
	eventually(t, "its output", func() bool { return b.stdout.String() == "one\n" })
	task := c.task("talker")
	id := fmt.Sprint(task["id"])
	if r := c.mezzo("logs", id); r.stdout != "one\n" {
		t.Errorf("logs: %+v", r)
	}
	if r := c.mezzo("logs", "--stderr", id); r.stdout != "two\n" {
		t.Errorf("logs --stderr: %+v", r)
	}
	if r := c.mezzo("kill", id); r.code != 0 {
		t.Errorf("kill: %+v", r)
	}
	if r := b.wait(); r.code == 0 {
		t.Errorf("a killed task: %+v, want a status that is not 0", r)
	}
	if state := c.task("talker")["state"]; state != "TASK_KILLED" {
		t.Errorf("the killed task is %v", state)
	}
	if r := c.mezzo("logs", id); r.stdout != "one\n" {
		t.Errorf("logs after its end: %+v", r)
	}
	if r := c.mezzo("logs", "no-such-task"); r.code != 1 || !strings.Contains(r.stderr, "no-such-task") {
		t.Errorf("logs of an unknown task: %+v", r)
	}
}

func TestTaskJSON(t *testing.T) {
	t.Parallel()
	c := startDev(t)
	if r := c.mezzo("run", "--name", "shape", "--cpus", "0.5", "--mem", "64MiB", "--role", "web", "--", "true"); r.code != 0 {
		t.Fatalf("run: %+v", r)
	}
	// At once: a reader sees what was answered before it asked.
	task := c.task("shape")
	if task["state"] != "TASK_FINISHED" {
		t.Errorf("right after its end the task is %v", task["state"])
	}
	for _, field := range []string{"id", "name", "state", "framework_id", "agent_id", "role", "resources", "started", "finished"} {
		if task[field] == nil {
			t.Errorf("no %s in %v", field, task)
		}
	}
	resources, _ := task["resources"].(map[string]any)
	if resources["cpus"] != 0.5 || resources["mem"] != 64.0 || task["role"] != "web" {
		t.Errorf("got %v", task)
	}
}

func TestStrangersOnThePort(t *testing.T) {
	t.Parallel()
	c := startDev(t)
	var silent []net.Conn
	for range 20 {
		conn, err := net.Dial("tcp", c.fields["rpc"])
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		silent = append(silent, conn)
	}
	for _, conn := range silent[:10] {
		if _, err := conn.Write([]byte("GET / HTTP/1.1\r\n\r\n\x00\xff garbage")); err != nil {
			t.Fatal(err)
		}
	}
	if r := c.mezzo("run", "--", "echo", "unharmed"); r.stdout != "unharmed\n" {
		t.Errorf("with strangers on the port: %+v", r)
	}
}

func TestFrameworkThatNeverAnswersOffers(t *testing.T) {
	t.Parallel()
	config := filepath.Join(tempDir(t), "dev.hcl")
	if err := os.WriteFile(config, []byte("master {\n  offer_timeout = \"1s\"\n}\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	c := startDev(t, "--config", config)
	silent := c.start("run", "--cpus", "3", "--", "sleep", "1000")
	eventually(t, "a task", func() bool { return len(c.list("tasks")) == 1 })
	// Stopped, it holds what it is offered and answers nothing.
	if err := silent.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = silent.cmd.Process.Signal(syscall.SIGCONT) }()
	if r := c.mezzo("run", "--", "echo", "unharmed"); r.stdout != "unharmed\n" {
		t.Errorf("beside a framework that never answers: %+v", r)
	}
}

func TestListVerbsAndTables(t *testing.T) {
	t.Parallel()
	c := startDev(t, "--agents", "2", "--resources", "cpus:2;mem:1024;disk:1024")
	b := c.start("run", "--name", "one", "--", "sleep", "1000")
	eventually(t, "the task", func() bool { return c.task("one")["state"] == "TASK_RUNNING" })
	for _, verb := range []string{"status", "agents", "frameworks", "tasks", "offers", "roles", "plugins", "version"} {
		if r := c.mezzo(verb); r.code != 0 || r.stdout == "" {
			t.Errorf("mezzo %s: %+v", verb, r)
		}
	}
	if agents := c.list("agents"); len(agents) != 2 {
		t.Errorf("agents: %v", agents)
	}
	ids := []string{}
	for _, p := range c.list("plugins") {
		ids = append(ids, fmt.Sprint(p["id"]))
	}
	slices.Sort(ids)
	if want := []string{"allocator/drf", "framework/mesos", "framework/mesos", "framework/mesos", "isolator/cgroups", "isolator/cgroups"}; !slices.Equal(ids, want) {
		t.Errorf("plugins: %v, want %v", ids, want)
	}
	if r := c.mezzo("completion", "bash"); r.code != 0 || !strings.Contains(r.stdout, "mezzo") {
		t.Errorf("completion: %+v", r)
	}
	_ = b.cmd.Process.Signal(os.Interrupt)
	if r := b.wait(); r.code != 130 {
		t.Errorf("Ctrl-C of a run: %+v, want 130", r)
	}
	eventually(t, "its task to be gone", func() bool { return len(c.list("tasks")) == 0 })
	if r := mezzo(t, []string{"MEZZO_ADDRESS=127.0.0.1:1"}, "agents"); r.code != 1 || !strings.Contains(r.stderr, "127.0.0.1:1") {
		t.Errorf("no master there: %+v", r)
	}
	if r := mezzo(t, nil, "agents", "--no-such-flag"); r.code != 2 {
		t.Errorf("an unknown flag: %+v, want exit 2", r)
	}
}

func TestReadyWithinThreeSeconds(t *testing.T) {
	began := time.Now()
	startDev(t)
	if took := time.Since(began); took > 3*time.Second && os.Getenv("CI") == "" {
		t.Logf("ready after %s; the promise is three seconds on an idle machine", took)
	}
}

func TestSchedulerHello(t *testing.T) {
	t.Parallel()
	c := startDev(t)
	out, err := exec.Command(filepath.Join(bin, "scheduler-hello"), "--masters", c.fields["rpc"]).CombinedOutput()
	if err != nil {
		t.Errorf("scheduler-hello: %v\n%s", err, out)
	}
}
