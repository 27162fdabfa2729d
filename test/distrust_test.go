package test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// An allocator that is wrong, in whatever way, can be unfair and no more: what
// it may not decide is refused and counted, nothing is given away twice, and
// work goes on, through its restart and its replacement too.
func TestMasterDistrustsItsAllocator(t *testing.T) {
	for _, test := range []struct {
		fault string
		// reasons are those by which its decisions are refused, any of them.
		reasons []string
		provoke func(*testing.T, *cluster)
	}{
		{"over-commit", []string{"not_free"}, nil},
		{"offers-twice", []string{"not_free"}, nil},
		{"spams", []string{"not_free"}, nil},
		{"talks-nonsense", []string{"malformed"}, nil},
		{"offers-dead-frameworks", []string{"unknown_framework", "framework_inactive"}, loseAFramework},
		// An allocator that was told once that the agent is inactive knows it.
		{"offers-lost-agents", []string{"unknown_agent", "agent_inactive"}, loseAnAgent},
	} {
		t.Run(test.fault, func(t *testing.T) {
			t.Parallel()
			c, file := startBroken(t, test.fault)
			b := c.start("run", "--name", "survivor", "--", "sh", "-c", "echo up; while [ ! -e go ]; do sleep 0.05; done; exit 7")
			eventually(t, "the task", func() bool { return b.stdout.String() == "up\n" })
			if test.provoke != nil {
				test.provoke(t, c)
			}
			for i := range 3 {
				if r := c.mezzo("run", "--cpus", "0.5", "--mem", "64", "--", "sh", "-c", fmt.Sprint("exit ", i)); r.code != i {
					t.Errorf("work beside a broken allocator: %+v, want exit %d", r, i)
				}
			}
			eventually(t, fmt.Sprintf("decisions refused as %v", test.reasons), func() bool {
				c.audit()
				return slices.ContainsFunc(test.reasons, func(reason string) bool { return c.refused(reason) > 0 })
			})
			c.restartAllocator()
			if r := c.mezzo("run", "--cpus", "0.5", "--mem", "64", "--", "sh", "-c", "exit 5"); r.code != 5 {
				t.Errorf("work after the allocator's restart: %+v, want exit 5", r)
			}
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			text, _, _ = bytes.Cut(text, []byte("allocator"))
			if err := os.WriteFile(file, append(text, "allocator \"drf\" {}\n"...), 0o644); err != nil {
				t.Fatal(err)
			}
			if r := c.mezzo("reload"); r.code != 0 || c.plugin("allocator/broken") != nil {
				t.Errorf("another allocator swapped in: %+v, %v", r, c.list("plugins"))
			}
			if r := c.mezzo("run", "--cpus", "0.5", "--mem", "64", "--", "sh", "-c", "exit 6"); r.code != 6 {
				t.Errorf("work after the swap: %+v, want exit 6", r)
			}
			c.audit()
			c.letGo("survivor")
			if r := b.wait(); r.code != 7 {
				t.Errorf("the survivor: %+v, want exit 7", r)
			}
		})
	}
}

// An allocator that reads nothing after its snapshot is given up, and told anew.
func TestMasterCutsAnAllocatorThatDoesNotRead(t *testing.T) {
	t.Parallel()
	c, _ := startBroken(t, "reads-nothing")
	b := c.start("run", "--name", "late", "--", "sh", "-c", "echo up; exit 6")
	eventuallyWithin(t, 3*patience, "the session to be cut, and the task to run by the snapshot of a later one", func() bool {
		select {
		case <-b.ended:
			return true
		default:
			return false
		}
	})
	if r := b.wait(); r.code != 6 {
		t.Errorf("got %+v, want exit 6", r)
	}
	if log := c.stderr.String(); !strings.Contains(log, "it has taken in nothing for") {
		t.Errorf("the log does not say why the session was cut:\n%s", log)
	}
	c.audit()
}

// startBroken starts a cluster on an allocator with this fault, and returns the
// master's configuration file too.
func startBroken(t *testing.T, fault string) (*cluster, string) {
	t.Helper()
	file := filepath.Join(tempDir(t), "master.hcl")
	pings := ""
	if fault == "offers-lost-agents" { // one that is lost is given up soon
		pings = "  agent_ping_interval = \"1s\"\n  agent_ping_timeouts = 6\n"
	}
	text := fmt.Sprintf(`
master {
%s}

allocator "broken" {
  config {
    fault = %q
  }
}
`, pings, fault)
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return startDev(t, "--config", file, "--agents", "2"), file
}

// refused is how many decisions were refused for this reason, by the metrics.
func (c *cluster) refused(reason string) float64 {
	c.t.Helper()
	answer, err := http.Get("http://" + c.fields["http"] + "/metrics")
	if err != nil {
		c.t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		c.t.Fatal(err)
	}
	for _, line := range strings.Split(string(text), "\n") {
		if value, ok := strings.CutPrefix(line, `mezzo_master_allocator_decisions_refused_total{reason="`+reason+`"} `); ok {
			n, _ := strconv.ParseFloat(value, 64)
			return n
		}
	}
	return 0
}

// audit says whether more is given away of any agent than it has.
func (c *cluster) audit() {
	c.t.Helper()
	for _, agent := range c.list("agents") {
		total, _ := agent["resources"].(map[string]any)
		for name, have := range total {
			sum := 0.0
			for _, part := range []string{"allocated", "offered"} {
				amounts, _ := agent[part].(map[string]any)
				amount, _ := amounts[name].(float64)
				sum += amount
			}
			if have, scalar := have.(float64); scalar && sum > have {
				c.t.Errorf("agent %v has %s:%v, and %v is allocated and offered: %v", agent["id"], name, have, sum, agent)
			}
		}
	}
}

// restartAllocator kills the allocator's process, and waits for the next.
func (c *cluster) restartAllocator() {
	c.t.Helper()
	pid := float64(c.kill("allocator/broken"))
	eventually(c.t, "the allocator to be back", func() bool {
		now, _ := c.plugin("allocator/broken")["pid"].(float64)
		return now > 0 && now != pid
	})
}

// sandbox finds the sandbox of a task, and the directory of its agent.
func (c *cluster) sandbox(name string) (agent, sandbox string) {
	c.t.Helper()
	task := c.task(name)
	pattern := filepath.Join(c.dir, "agent*", "work", "*", "*", "frameworks", fmt.Sprint(task["framework_id"]), "executors", "*", "runs", "latest")
	matches, _ := filepath.Glob(pattern)
	if len(matches) != 1 {
		c.t.Fatalf("the sandboxes of %v are %v, want one", task, matches)
	}
	rest, _ := filepath.Rel(c.dir, matches[0])
	first, _, _ := strings.Cut(rest, string(filepath.Separator))
	return filepath.Join(c.dir, first), matches[0]
}

// letGo ends a task that waits for the file `go`.
func (c *cluster) letGo(name string) {
	c.t.Helper()
	_, sandbox := c.sandbox(name)
	if err := os.WriteFile(filepath.Join(sandbox, "go"), nil, 0o644); err != nil {
		c.t.Fatal(err)
	}
}

// loseAnAgent kills the agent on which the survivor does not run, and waits
// until the master has given it up.
func loseAnAgent(t *testing.T, c *cluster) {
	home, _ := c.sandbox("survivor")
	for _, pid := range processesUnder(c.cmd.Process.Pid) {
		command, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		args := strings.Split(string(command), "\x00")
		i := slices.Index(args, "--data-dir")
		if len(args) < 2 || args[1] != "agent" || i < 0 || args[i+1] == home {
			continue
		}
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		// Only then is it lost, and the work that follows is what is decided about.
		eventually(t, "the agent to be given up", func() bool {
			return slices.ContainsFunc(c.list("agents"), func(agent map[string]any) bool { return agent["state"] == "unreachable" })
		})
		return
	}
	t.Fatal("there is no other agent")
}

// loseAFramework kills a scheduler that wants more than there is.
func loseAFramework(t *testing.T, c *cluster) {
	b := c.start("run", "--name", "greedy", "--cpus", "64", "--", "true")
	eventually(t, "the complaint that no offer is large enough", func() bool {
		return strings.Contains(b.stderr.String(), "no offer is large enough")
	})
	_ = b.cmd.Process.Kill()
	<-b.ended
}
