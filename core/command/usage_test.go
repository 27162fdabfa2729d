package command

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/mezzo-os/mezzo/core/rpc/rpctest"
	operatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/operator/v1"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
)

// What is wrong with a command line is said with what would be right, and tried by
// nobody.
func TestUsage(t *testing.T) {
	t.Setenv("MEZZO_ADDRESS", "127.0.0.1:1") // nobody
	for args, want := range map[string]string{
		"agnts":                  `mezzo has no verb "agnts"; agent or agents is meant, perhaps`,
		"sing":                   `mezzo has no verb "sing"`,
		"help nosuch":            `mezzo has no verb "nosuch"`,
		"help stauts":            `mezzo has no verb "stauts"; status is meant, perhaps`,
		"help agent drian":       `mezzo agent has no verb "drian"; drain is meant, perhaps`,
		"help run fast":          `mezzo run has no verb "fast"`,
		"agent drian x":          `mezzo agent has no verb "drian"; drain is meant, perhaps`,
		"agent drain":            "mezzo agent drain: it is called as mezzo agent drain AGENT",
		"plugin describe x":      `mezzo plugin has no verb "describe"; inspect is meant, perhaps`,
		"kill":                   "mezzo kill: it is called as mezzo kill TASK…",
		"status extra":           `mezzo status takes no arguments, but there is "extra"`,
		"quota":                  "mezzo quota: say what to do: get, remove, set",
		"image":                  "mezzo image: say what to do: import, list, prune, rm",
		"reserve S0 cpus:1":      `required flag(s) "role" not set`,
		"run --cpus x -- ls":     `invalid argument "x" for "--cpus" flag: invalid syntax`,
		"run":                    "run: give a command after --",
		"status --colour always": "unknown flag: --colour",
		"--color pink status":    "--color pink: give auto, always or never",
		"log-level loud":         `LEVEL "loud": give one of trace, debug, info, warn, error, or config`,
		"top --interval 1ms":     "--interval 1ms: give 500ms at least",
		"completion":             "mezzo completion: it is called as mezzo completion SHELL",
		"completion tcsh":        "completion tcsh: there are bash, zsh, fish",
		"dev --resources cpus":   `--resources: resources "cpus", character 5: the ":" and the value of "cpus" are missing`,
		"tasks --tls-ca x":       "--tls-ca, --tls-cert and --tls-key go together",
	} {
		if _, errOut, code := invoke(t, strings.Fields(args)...); code != 2 || !strings.Contains(errOut, want) || !strings.Contains(errOut, "\nmezzo: see mezzo") {
			t.Errorf("%s: %d, %s; want %q", args, code, errOut, want)
		}
	}
}

// Where no master is, it is said what an address is, or how to get one.
func TestNoMaster(t *testing.T) {
	_, agent := newNode(t)
	for address, want := range map[string]string{
		"127.0.0.1:1":       "127.0.0.1:1: dial tcp 127.0.0.1:1: connect: connection refused (is it running? mezzo dev starts a cluster;",
		"nowhere":           `address "nowhere" is not host:port`,
		"http://127.0.0.1":  "take the rpc address of a master, host:port, or zk://",
		agent:               "it is not a Mezzo master (--address and MEZZO_ADDRESS take the rpc address of a master",
		"zk://127.0.0.1:1/": "--address:",
	} {
		if _, errOut, code := invoke(t, "tasks", "--address", address); code == 0 || !strings.Contains(errOut, want) || strings.Contains(errOut, "desc =") {
			t.Errorf("%s: %d, %s; want %q", address, code, errOut, want)
		}
	}
	for _, verb := range []string{"reload", "log-level"} {
		if _, errOut, code := invoke(t, verb, "--address", "127.0.0.1:1"); code != 1 || strings.Contains(errOut, "desc =") || !strings.Contains(errOut, "127.0.0.1:1: dial tcp 127.0.0.1:1: connect: connection refused (is it running? --address") {
			t.Errorf("%s: %d, %s", verb, code, errOut)
		}
	}
	if _, errOut, code := invoke(t, "tasks", "--tls-ca", "/nope", "--tls-cert", "/nope", "--tls-key", "/nope"); code != 1 || !strings.Contains(errOut, "(--tls-ca, --tls-cert and --tls-key, or MEZZO_TLS_CA") {
		t.Errorf("TLS files that are not there: %d, %s", code, errOut)
	}
}

// A port of another kind, and TLS where there is none, are told from a master that
// is not there.
func TestNoMasterThere(t *testing.T) {
	web := httptest.NewServer(http.NotFoundHandler())
	defer web.Close()
	_, errOut, code := invoke(t, "tasks", "--address", web.Listener.Addr().String())
	if code != 1 || strings.Contains(errOut, "desc =") || !strings.Contains(errOut, "it serves HTTP, not rpc (--address and MEZZO_ADDRESS take the rpc address") {
		t.Errorf("HTTP: %d, %s", code, errOut)
	}
	m, files := newMaster(t), rpctest.NewAuthority(t).Issue("me")
	_, errOut, code = invoke(t, "tasks", "--address", m.address, "--tls-ca", files.CA, "--tls-cert", files.Cert, "--tls-key", files.Key)
	if code != 1 || strings.Contains(errOut, "desc =") || !strings.Contains(errOut, "it speaks no TLS, or hung up on this certificate") || !strings.Contains(errOut, "MEZZO_TLS_KEY, name them)") {
		t.Errorf("TLS: %d, %s", code, errOut)
	}
}

// A list with nothing in it says of what.
func TestNoSuchTask(t *testing.T) {
	m := newMaster(t)
	for args, want := range map[string]string{"tasks": "No tasks. (Those that have ended", "tasks web.1": "No task is called web.1, nor begins so"} {
		if out, errOut, code := invoke(t, append(strings.Fields(args), "--address", m.address)...); code != 0 || !strings.Contains(out, want) {
			t.Errorf("%s: %d, %s%s", args, code, out, errOut)
		}
	}
}

// A master that waits for agents says so of tasks that it does not know.
func TestTasksOfAMasterThatRecovers(t *testing.T) {
	m := newMaster(t)
	m.leadership = "recovering"
	m.agents = []*operatorv1.Agent{{Id: "m-S0"}}
	for args, want := range map[string]int{"tasks": 0, "tasks --json": 0, "logs web.1": 1, "kill web.1": 1} {
		if _, errOut, code := invoke(t, append(strings.Fields(args), "--address", m.address)...); code != want || !strings.Contains(errOut, "of 1 agents have not come back to it: what they run is not known until then") {
			t.Errorf("%s: %d, %s", args, code, errOut)
		}
	}
}

// Of a task whose agent does not answer it is said which agent that is.
func TestTaskOfAnAgentThatIsAway(t *testing.T) {
	m := newMaster(t)
	m.agents = []*operatorv1.Agent{{Id: "m-S0", Hostname: "alpha", State: "disconnected", RpcAddress: "127.0.0.1:1"}}
	m.tasks = []*operatorv1.Task{webTask(mezzov1.TaskState_TASK_RUNNING, "")}
	t.Setenv("MEZZO_ADDRESS", m.address)
	for _, args := range []string{"logs web", "exec web -- ls", "attach web"} {
		_, errOut, code := invoke(t, strings.Fields(args)...)
		if code != 1 || !strings.Contains(errOut, "web.1: agent m-S0 (alpha) does not answer: dial tcp 127.0.0.1:1: connect: connection refused (mezzo agents shows how it is") {
			t.Errorf("%s: %d, %s", args, code, errOut)
		}
	}
}

// The help of a verb, of one below it, and of a topic.
func TestHelp(t *testing.T) {
	for args, want := range map[string]string{
		"help":             "Run a cluster:",
		"help agent drain": "mezzo agent drain AGENT",
		"help exit-codes":  "Ctrl-C, or SIGTERM, ended it.",
		"help help":        "mezzo help exit-codes",
	} {
		if out, errOut, code := invoke(t, strings.Fields(args)...); code != 0 || !strings.Contains(out, want) || errOut != "" {
			t.Errorf("%s: %d, %s%s; want %q", args, code, out, errOut, want)
		}
	}
}
