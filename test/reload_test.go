package test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// What may change on a live master does; what an operator has set stays; what
// needs a restart is said, and not applied. SIGHUP does what the verb does.
func TestReloadMaster(t *testing.T) {
	t.Parallel()
	file := filepath.Join(tempDir(t), "master.hcl")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("role \"ads\" {\n  weight = 2\n}\n")
	m := serve(t, nil, "master", "--config", file, "--data-dir", filepath.Join(tempDir(t), "m"), "--rpc", "127.0.0.1:0", "--http", "127.0.0.1:0")
	env := []string{"MEZZO_ADDRESS=" + m.fields["rpc"]}
	if r := mezzo(t, env, "reload"); r.code != 0 || r.stdout != "nothing to change\n" {
		t.Errorf("nothing changed: %+v", r)
	}
	for _, step := range [][2]string{{"", "info\n"}, {"debug", "debug (info in the configuration)\n"}, {"warn", "warn (info in"}, {"config", "info\n"}} {
		if r := mezzo(t, env, append([]string{"log-level"}, strings.Fields(step[0])...)...); r.code != 0 || !strings.HasPrefix(r.stdout, step[1]) {
			t.Errorf("log-level %s: %+v", step[0], r)
		}
	}
	if r := mezzo(t, env, "log-level", "loud"); r.code != 2 || !strings.Contains(r.stderr, `"loud": give one of trace, debug`) {
		t.Errorf("a level that there is not: %+v", r)
	}
	if r := mezzo(t, env, "weights", "set", "web=7"); r.code != 0 {
		t.Fatalf("weights set: %+v", r)
	}
	write("log_json = true\nmaster {\n  offer_timeout = \"1m\"\n  agent_ping_timeouts = 9\n}\nrole \"ads\" {\n  weight = 3\n}\nrole \"web\" {\n  weight = 5\n}\n")
	r := mezzo(t, env, "reload")
	for _, want := range []string{
		"changed offer_timeout: 5m0s -> 1m0s\n", "changed role \"ads\": weight 2 -> weight 3\n",
		"changed role \"web\": none -> weight 5 (what an operator has set of it stays)\n",
		"needs a restart, not applied: agent_ping_timeouts: 5 -> 9\n", "needs a restart, not applied: log_json: false -> true\n",
	} {
		if !strings.Contains(r.stdout, want) {
			t.Errorf("reload does not print %q:\n%+v", want, r)
		}
	}
	if strings.Contains(r.stdout, "allocator") {
		t.Errorf("the allocator was touched: %s", r.stdout)
	}
	weights := func() string {
		out := map[string]any{}
		for _, role := range (&cluster{server: m}).list("roles") {
			out[fmt.Sprint(role["name"])] = role["weight"]
		}
		return fmt.Sprint(out["ads"], " ", out["web"])
	}
	eventually(t, "the roles' weights", func() bool { return weights() == "3 7" })
	write("role \"ads\" {\n  weight = 4\n}\n")
	if err := m.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	eventually(t, "what SIGHUP changes", func() bool { return weights() == "4 7" })
	write("role \"ads\" {\n  wieght = 5\n}\n")
	if r := mezzo(t, env, "reload"); r.code != 1 || !strings.Contains(r.stderr, "line 2, column 3") || !strings.Contains(r.stderr, "nothing has changed") {
		t.Errorf("an error in the file: %+v", r)
	}
	if weights() != "4 7" {
		t.Errorf("weights after a reload that failed: %s", weights())
	}
}

// An agent's isolator gets another configuration under a running task.
func TestReloadAgent(t *testing.T) {
	t.Parallel()
	dir := tempDir(t)
	file := filepath.Join(dir, "agent.hcl")
	write := func(controllers string) {
		t.Helper()
		text := fmt.Sprintf("agent {\n  hostname = \"reloaded\"\n}\nisolator \"cgroups\" {\n  config {\n    controllers = [%s]\n  }\n}\n", controllers)
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write(`"cpu", "memory", "pids"`)
	m := serve(t, nil, "master", "--data-dir", filepath.Join(dir, "m"), "--rpc", "127.0.0.1:0", "--http", "127.0.0.1:0")
	a := serve(t, nil, "agent", "--config", file, "--master", m.fields["rpc"], "--data-dir", filepath.Join(dir, "a"), "--rpc", "127.0.0.1:0",
		"--http", "127.0.0.1:0", "--resources", smallAgent, "--end-tasks")
	c := &cluster{server: m, dir: dir}
	b := c.start("run", "--name", "survivor", "--", "sh", "-c", "echo up; while [ ! -e "+filepath.Join(dir, "go")+" ]; do sleep 0.05; done; exit 7")
	eventually(t, "the task", func() bool { return b.stdout.String() == "up\n" })
	var pid any
	eventually(t, "the isolator to be listed", func() bool { pid = c.plugin("isolator/cgroups")["pid"]; return pid != nil })
	write(`"nonsense"`)
	if r := c.mezzo("reload", "--address", a.fields["agent"]); r.code != 1 || !strings.Contains(r.stderr, "line 6, column 20") {
		t.Errorf("a configuration that the isolator refuses: %+v", r)
	}
	if now := c.plugin("isolator/cgroups")["pid"]; now != pid {
		t.Errorf("the isolator was replaced though its configuration was refused: %v, was %v", now, pid)
	}
	write(`"cpu", "memory"`)
	if r := c.mezzo("reload", "--agent", "reloaded"); r.code != 0 || !strings.Contains(r.stdout, `changed isolator "cgroups"`) {
		t.Errorf("another configuration: %+v", r)
	}
	eventually(t, "the agent to be offered again", func() bool {
		agents := c.list("agents")
		return len(agents) == 1 && agents[0]["state"] == "active"
	})
	eventually(t, "another process of the isolator", func() bool { // which the agent tells the master
		now := c.plugin("isolator/cgroups")["pid"]
		return now != nil && now != pid
	})
	if state := c.task("survivor")["state"]; state != "TASK_RUNNING" {
		t.Errorf("the task is %v", state)
	}
	// What a reload logs, it logs before it is answered.
	logged := strings.Count(a.stderr.String(), "the configuration was reloaded")
	if r := c.mezzo("log-level", "--agent", "reloaded", "warn", "--for", "1h"); r.code != 0 || !strings.HasPrefix(r.stdout, "warn (info in the configuration, again from ") {
		t.Errorf("the agent's log level: %+v", r)
	}
	c.mezzo("reload", "--agent", "reloaded")
	c.mezzo("log-level", "--agent", "reloaded", "config")
	c.mezzo("reload", "--agent", "reloaded")
	eventually(t, "the line of the second of two reloads", func() bool { return strings.Count(a.stderr.String(), "the configuration was reloaded") > logged })
	if n := strings.Count(a.stderr.String(), "the configuration was reloaded"); n != logged+1 {
		t.Errorf("%d reloads were logged while the log level was warn", n-logged-1)
	}
	if r := c.mezzo("run", "--", "echo", "again"); r.stdout != "again\n" {
		t.Errorf("new work: %+v", r)
	}
	if err := os.WriteFile(filepath.Join(dir, "go"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if r := b.wait(); r.code != 7 {
		t.Errorf("the survivor: %+v, want exit 7", r)
	}
}

// Adapters at an agent are reloaded by themselves: started again at their place,
// put back when they cannot listen, taken out, and brought in again.
func TestReloadAdapters(t *testing.T) {
	t.Parallel()
	dir := tempDir(t)
	file := filepath.Join(dir, "agent.hcl")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte("agent {\n  hostname = \"adapted\"\n"+text+"}\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	block := func(config string) string {
		return "  framework \"mesos\" {\n    config {\n      " + config + "\n    }\n  }\n"
	}
	write(block(`listen = "127.0.0.1:0"`))
	c := startDev(t, "--config", file)
	at := c.fields["mesos_agent"]
	reload := func(want ...string) {
		t.Helper()
		r := c.mezzo("reload", "--agent", "adapted")
		for _, w := range want {
			if !strings.Contains(r.stdout+r.stderr, w) {
				t.Errorf("reload does not print %q:\n%+v", w, r)
			}
		}
	}
	reload("nothing to change")
	write(block("listen = \"127.0.0.1:0\"\n      cluster = \"east\""))
	reload(`changed framework "mesos": as it was -> another config`)
	if _, flags := httpGet(t, "http://"+at+"/flags"); !strings.Contains(flags, `"cluster":"east"`) {
		t.Errorf("after the reload the flags are %s", flags)
	}
	write(block(fmt.Sprintf("listen = %q", c.fields["rpc"])))
	reload("address already in use", "line 3, column 3", "nothing has changed")
	if _, flags := httpGet(t, "http://"+at+"/flags"); !strings.Contains(flags, `"cluster":"east"`) {
		t.Errorf("after a reload that failed the flags are %s", flags)
	}
	write("")
	reload(`changed framework "mesos": as it was -> none`)
	eventually(t, "the adapter to be listed no more", func() bool {
		plugins := c.list("plugins")
		return len(plugins) > 0 && !slices.ContainsFunc(plugins, func(p map[string]any) bool { return p["id"] == "framework/mesos" && p["host"] != "master" })
	})
	if r := c.mezzo("run", "--", "echo", "without it"); r.stdout != "without it\n" {
		t.Errorf("a task without the adapter: %+v", r)
	}
	write(block(`listen = "127.0.0.1:0"`))
	reload(`changed framework "mesos": none -> started`)
	if code, _ := httpGet(t, "http://"+at+"/health"); code != 200 {
		t.Errorf("brought in again, the adapter answers %d at its place", code)
	}
}
