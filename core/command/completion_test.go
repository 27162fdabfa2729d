package command

import (
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	operatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/operator/v1"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
)

// populate gives a master a small cluster.
func populate(m *testMaster) {
	m.agents = []*operatorv1.Agent{
		{Id: "aa-1-S0", Hostname: "alpha", State: "active"}, {Id: "aa-1-S1", Hostname: "beta", State: "draining"}, {Id: "bb-2-S0", Hostname: "gamma", State: "active"},
	}
	m.frameworks = []*operatorv1.Framework{
		{Id: "aa-1-0001", Name: "spark", State: "active"}, {Id: "aa-1-0002", Name: "spark", State: "completed"}, {Id: "aa-1-0003", Name: "run sh", State: "active"},
	}
	task := func(id, framework string, state mezzov1.TaskState) *operatorv1.Task {
		return &operatorv1.Task{Id: id, FrameworkId: framework, AgentId: "aa-1-S0", State: state.Enum()}
	}
	m.tasks = []*operatorv1.Task{
		task("web.1", "aa-1-0001", mezzov1.TaskState_TASK_RUNNING), task("web.10", "aa-1-0001", mezzov1.TaskState_TASK_RUNNING),
		task("web.1", "aa-1-0003", mezzov1.TaskState_TASK_RUNNING), task("old.1", "aa-1-0001", mezzov1.TaskState_TASK_FINISHED),
	}
	m.roles = []*operatorv1.Role{{Name: "ads", Weight: 2}, {Name: "web", Weight: 1}}
}

// completed is what a shell would be offered, without descriptions.
func completed(t *testing.T, args ...string) []string {
	t.Helper()
	out, _, code := invoke(t, append([]string{"__complete"}, args...)...)
	if code != 0 {
		t.Fatalf("completion of %q ends with %d", args, code)
	}
	var words []string
	for _, line := range strings.Split(strings.TrimSpace(out), "\n") {
		if !strings.HasPrefix(line, ":") {
			word, _, _ := strings.Cut(line, "\t")
			words = append(words, word)
		}
	}
	return words
}

func TestCompletion(t *testing.T) {
	m := newMaster(t)
	populate(m)
	t.Setenv("MEZZO_ADDRESS", m.address)
	for _, c := range []struct {
		typed string // words, the last perhaps empty
		want  string
	}{
		{"agent drain ", "aa-1-S0 aa-1-S1 bb-2-S0"},
		{"agent drain aa", "aa-1-S0 aa-1-S1"},
		{"agent drain g", "gamma"},
		{"agent drain S1", "S1"},
		{"agent drain aa-1-S0 ", ""},
		{"reserve bb-2-S0 ", "--role"},
		{"kill web", "web.1 web.10"},
		{"kill web.1 ", "web.10"},
		{"logs ", "old.1 web.1 web.10"},
		{"exec web.1 -- ", ""},
		{"why ", "aa-1-0001 aa-1-0002 aa-1-0003 spark"},
		{"tasks --framework s", "spark"},
		{"tasks --agent b", "bb-2-S0 beta"},
		{"weights set a", "ads="},
		{"run --role ", "ads web"},
		{"run --pull ", "always missing never"},
		{"run --cpus ", ""},
		{"events --kind o", "operation offer"},
		{"--color ", "auto always never"},
		{"log-level d", "debug"},
		{"maintenance sch", "schedule"},
		{"plugin inspect ", ""},
	} {
		got := completed(t, strings.Split(c.typed, " ")...)
		got = slices.DeleteFunc(got, func(word string) bool { return word == "" })
		if strings.Join(got, " ") != c.want {
			t.Errorf("%q is completed by %q, want %q", c.typed, got, c.want)
		}
	}
}

// Nothing is said, and nothing offered, when no master answers, or only at length.
func TestCompletionWithoutAMaster(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	began := time.Now()
	for _, address := range []string{"127.0.0.1:1", silent.Addr().String()} {
		if got := completed(t, "kill", "--address", address, ""); len(got) != 0 {
			t.Errorf("at %s it offers %q", address, got)
		}
	}
	if took := time.Since(began); took > patience/2 {
		t.Errorf("it took %s", took)
	}
}

// A name is an id, its end, its beginning, or what people call it; where it means
// several, they are listed.
func TestNames(t *testing.T) {
	m := &testMaster{}
	populate(m)
	for name, want := range map[string]string{
		"aa-1-S0": "aa-1-S0", "S1": "aa-1-S1", "bb": "bb-2-S0", "BETA": "aa-1-S1",
		"S0": `"S0" means 2 agents: say which, of
  aa-1-S0 (alpha, active)
  bb-2-S0 (gamma, active)`,
		"aa": `"aa" means 2 agents: say which, of
  aa-1-S0 (alpha, active)
  aa-1-S1 (beta, draining)`,
		"nobody": `no agent "nobody" is known; mezzo agents lists them`, "": `no agent "" is known; mezzo agents lists them`,
	} {
		a, err := findAgent(m.agents, name)
		if got := a.GetId(); err != nil && err.Error() != want || err == nil && got != want {
			t.Errorf("%q is %q, %v; want %q", name, got, err, want)
		}
	}
	// One that lives goes before one that is gone.
	if f, err := findFramework(m.frameworks, "spark"); err != nil || f.Id != "aa-1-0001" {
		t.Errorf("spark is %v, %v", f, err)
	}
	if f, err := findFramework(m.frameworks, "0002"); err != nil || f.Id != "aa-1-0002" {
		t.Errorf("0002 is %v, %v", f, err)
	}
	gone := proto.CloneOf(m.frameworks[0])
	gone.Id, gone.State = "aa-1-0009", "disconnected"
	if _, err := findFramework(append(m.frameworks, gone), "spark"); err == nil || !strings.Contains(err.Error(), "means 2 frameworks") {
		t.Errorf("two that live: %v", err)
	}
}

// call is a command line, and how it must end.
type call struct {
	args string
	code int
	says string
}

func (m *testMaster) invoke(t *testing.T, calls []call) {
	t.Helper()
	for _, c := range calls {
		out, errOut, code := invoke(t, append(strings.Fields(c.args), "--address", m.address)...)
		if code != c.code || !strings.Contains(out+errOut, c.says) {
			t.Errorf("%s: %d, %s%s", c.args, code, out, errOut)
		}
	}
}

// A framework is torn down by its name or its id, once that was answered for, and
// never one of several.
func TestTeardown(t *testing.T) {
	m := newMaster(t)
	populate(m)
	m.invoke(t, []call{
		{"teardown spark", 1, "nothing was done; --yes answers the question"},
		{"teardown nobody --yes", 1, `no framework "nobody" is known`},
		{"teardown", 2, "it is called as mezzo teardown FRAMEWORK"},
		{"teardown spark --yes", 0, "ended framework aa-1-0001 (spark)"},
	})
	if want := []string{"aa-1-0001"}; !slices.Equal(m.killed, want) {
		t.Errorf("torn down were %v, want %v", m.killed, want)
	}
}

// A question waits for its answer; Ctrl-C is one.
func TestConfirm(t *testing.T) {
	m := newMaster(t)
	populate(m)
	ask := func() (*command, *io.PipeWriter) {
		in, typed := io.Pipe()
		t.Cleanup(func() { typed.Close() })
		c := startOn(t, in, io.Discard, "teardown", "spark", "--address", m.address)
		c.err.await(t, "End framework aa-1-0001 (spark, active, with 0 tasks) for good? [y/N] ")
		return c, typed
	}
	c, _ := ask()
	c.cancel()
	if code := <-c.code; code != exitInterrupted || len(m.killed) != 0 {
		t.Errorf("Ctrl-C: %d, %s, %v", code, c.err, m.killed)
	}
	c, typed := ask()
	if _, err := typed.Write([]byte("yes\n")); err != nil {
		t.Fatal(err)
	}
	if code := <-c.code; code != 0 || !slices.Equal(m.killed, []string{"aa-1-0001"}) {
		t.Errorf("yes: %d, %s, %v", code, c.err, m.killed)
	}
}

// Tasks are killed by the beginning of their ids, and only those that run, and
// never one of several.
func TestKill(t *testing.T) {
	m := newMaster(t)
	populate(m)
	m.invoke(t, []call{
		{"kill web.10", 0, "asked web.10 to end"},
		{"kill web.1 --framework spark", 0, "asked web.1 to end"},
		{"kill web.1", 1, `kill web.1: "web.1" means 2 tasks`},
		{"kill old", 1, `no task "old" is known; mezzo tasks lists them`},
		{"kill web.1 --framework flink", 1, `no framework "flink" is known`},
		{"kill", 2, "it is called as mezzo kill TASK…"},
	})
	if want := []string{"aa-1-0001/web.10", "aa-1-0001/web.1"}; !slices.Equal(m.killed, want) {
		t.Errorf("killed were %v, want %v", m.killed, want)
	}
	out, _, _ := invoke(t, "tasks", "web", "--address", m.address)
	if lines := strings.Count(out, "web.1"); lines != 3 {
		t.Errorf("tasks by the beginning of their ids:\n%s", out)
	}
}
