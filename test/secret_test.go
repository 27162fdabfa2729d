package test

import (
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"google.golang.org/protobuf/proto"

	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
	"github.com/mezzo-os/mezzo/sdk/resource"
)

func secretOf(value, name string) *mezzov1.Secret {
	if name != "" {
		return &mezzov1.Secret{Type: mezzov1.Secret_REFERENCE.Enum(), Reference: &mezzov1.Secret_Reference{Name: proto.String(name)}}
	}
	return &mezzov1.Secret{Type: mezzov1.Secret_VALUE.Enum(), Value: &mezzov1.Secret_Value{Data: []byte(value)}}
}

func withSecret(task *mezzov1.TaskInfo, name string, s *mezzov1.Secret) {
	task.Command.Environment = &mezzov1.Environment{Variables: append(task.GetCommand().GetEnvironment().GetVariables(), &mezzov1.Environment_Variable{
		Name: proto.String(name), Type: mezzov1.Environment_Variable_SECRET.Enum(), Secret: s,
	})}
}

// Tasks find their secrets, also after the agent was killed, and nobody is shown
// them.
func TestRunSecrets(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		lacking(t, "secrets are mounted by root alone")
	}
	const quiet, named = "unspeakable-value", "unspeakable-name"
	dir := tempDir(t)
	if err := os.Mkdir(filepath.Join(dir, "s"), 0o700); err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(dir, "s", "db-password"), named)
	file := writeFile(t, filepath.Join(dir, "agent.hcl"), "agent {\n  secrets {\n    dir = \"s\"\n  }\n}\nframework \"mesos\" {\n  config {\n    listen = \"127.0.0.1:0\"\n  }\n}\n")
	ports := []string{"--rpc", "127.0.0.1:0", "--http", "127.0.0.1:0", "--log-level", "debug"}
	master := serve(t, nil, append([]string{"master", "--data-dir", filepath.Join(dir, "m")}, ports...)...)
	args := append([]string{"agent", "--config", file, "--data-dir", filepath.Join(dir, "a"), "--master", master.fields["rpc"], "--resources", smallAgent}, ports...)
	agent := serve(t, nil, args...)
	c := &cluster{server: master}
	r := newRunner(t, master.fields["rpc"])

	good := shellTask("good", `fail() { echo "$1"; exit 1; }; [ "$GIVEN" = `+quiet+` ] || fail value; [ "$NAMED" = `+named+` ] || fail name
[ "$(cat file)" = `+quiet+` ] || fail file; (echo x > file) 2>/dev/null && fail writable; echo all found; exec sleep 1000`)
	withSecret(good, "GIVEN", secretOf(quiet, ""))
	withSecret(good, "NAMED", secretOf("", "db-password"))
	good.Container = &mezzov1.ContainerInfo{Type: mezzov1.ContainerInfo_MESOS.Enum(), Volumes: []*mezzov1.Volume{{
		Mode: mezzov1.Volume_RO.Enum(), ContainerPath: proto.String("file"),
		Source: &mezzov1.Volume_Source{Type: mezzov1.Volume_Source_SECRET.Enum(), Secret: secretOf(quiet, "")},
	}}}
	bad := shellTask("bad", "true")
	withSecret(bad, "NAMED", secretOf("", "no-such-secret"))
	r.launch(good, bad)
	if s := r.ends("bad", mezzov1.TaskState_TASK_ERROR); !strings.Contains(s.GetMessage(), "secret no-such-secret is not known") || !strings.Contains(s.GetMessage(), "NAMED") {
		t.Errorf("an unknown secret: %v", s)
	}
	r.ends("good", mezzov1.TaskState_TASK_RUNNING)
	eventually(t, "the task to find its secrets", func() bool { return c.mezzo("logs", "good").stdout == "all found\n" })

	custom := customExecutor("secretive", filepath.Join(bin, "executor-hello"), "-executor", "-count", "1000s")
	custom.Command.Environment = &mezzov1.Environment{Variables: []*mezzov1.Environment_Variable{{
		Name: proto.String("GIVEN"), Type: mezzov1.Environment_Variable_SECRET.Enum(), Secret: secretOf(quiet, ""),
	}}}
	count := &mezzov1.TaskInfo{
		Name: proto.String("count"), TaskId: &mezzov1.TaskID{Value: proto.String("count")}, Executor: custom,
		Resources: resource.MustParse("cpus:0.1;mem:32").Allocate("*").ToProto(),
	}
	lost := proto.CloneOf(count)
	lost.TaskId.Value, lost.Name = proto.String("lost"), proto.String("lost")
	lost.Executor.ExecutorId.Value = proto.String("lost")
	lost.Executor.Command.Environment.Variables[0].Secret = secretOf("", "lost-secret")
	r.launch(count, lost)
	if s := r.ends("lost", mezzov1.TaskState_TASK_ERROR); !strings.Contains(s.GetMessage(), "secret lost-secret is not known") {
		t.Errorf("an executor's unknown secret: %v", s)
	}
	r.ends("count", mezzov1.TaskState_TASK_RUNNING)
	agent.stop(syscall.SIGKILL)
	again := serve(t, nil, append(args, "--end-tasks")...) // nothing is left after the test
	eventually(t, "the task's environment to be seen", func() bool {
		return strings.Contains(c.mezzo("exec", "good", "--", "sh", "-c", "echo $NAMED; cat file").stdout, named+"\n"+quiet)
	})
	for what, text := range map[string]string{
		"mezzo tasks --json":      c.mezzo("tasks", "--all", "--json").stdout,
		"mezzo frameworks --json": c.mezzo("frameworks", "--json").stdout,
		"mezzo agents --json":     c.mezzo("agents", "--json").stdout,
		"the master's log":        master.stderr.String(),
		"the agent's log":         agent.stderr.String() + again.stderr.String(),
		"the agent's state":       body(t, "http://"+again.fields["agent_http"]+"/v1/state"),
		"GET_TASKS":               mesosCall(t, again.fields["mesos_agent"], "GET_TASKS"),
		"GET_EXECUTORS":           mesosCall(t, again.fields["mesos_agent"], "GET_EXECUTORS"),
	} {
		if text == "" {
			t.Errorf("%s is empty", what)
		}
		for _, value := range []string{quiet, "dW5zcGVha2FibGUtdmFsdWU", named, "dW5zcGVha2FibGUtbmFtZQ"} {
			// The script of the task has the words, and is the framework's own.
			if strings.Contains(strings.ReplaceAll(text, good.GetCommand().GetValue(), ""), value) {
				t.Errorf("%s shows %s", what, value)
			}
		}
	}
	if err := r.s.Teardown(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the files of secrets to be gone", func() bool {
		left, err := os.ReadDir(filepath.Join(dir, "a", "secrets"))
		return err == nil && len(left) == 0
	})
}

func body(t *testing.T, url string) string {
	t.Helper()
	answer, err := http.Get(url)
	return bodyOf(t, answer, err)
}

func mesosCall(t *testing.T, address, kind string) string {
	t.Helper()
	answer, err := http.Post("http://"+address+"/api/v1", "application/json", strings.NewReader(`{"type":"`+kind+`"}`))
	return bodyOf(t, answer, err)
}

func bodyOf(t *testing.T, answer *http.Response, err error) string {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	text, _ := io.ReadAll(answer.Body)
	if answer.StatusCode != http.StatusOK {
		t.Errorf("%s: %s: %s", answer.Request.URL, answer.Status, text)
	}
	return string(text)
}
