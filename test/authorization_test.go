package test

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os/user"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mezzo-os/mezzo/core/rpc/rpctest"
	"github.com/mezzo-os/mezzo/sdk/client"
)

// companyRules are who may do what in the test below. VIEWERS is what viewers may.
const companyRules = `
authorization {
  rule "operators" {
    principals = ["ops"]
    actions    = ["*"]
  }
  rule "machines" {
    principals = ["agent", "master"]
    actions    = ["register_agent", "view_cluster", "read_sandbox"]
  }
  rule "web is not root" {
    effect     = "deny"
    principals = ["web"]
    actions    = ["run_task"]
    users      = ["root"]
  }
  rule "blind" {
    effect     = "deny"
    principals = ["blind"]
    actions    = ["read_sandbox"]
  }
  rule "teams" {
    principals = ["web", "batch", "blind"]
    actions    = ["register_framework", "run_task"]
    roles      = ["web", "batch", "batch/*"]
  }
  rule "own" {
    principals = ["*"]
    actions    = ["kill_task", "read_sandbox", "run_command"]
    owners     = ["self"]
  }
  rule "viewers" {
    principals = ["web", "batch", "blind", "viewer", "carl"]
    actions    = [VIEWERS]
  }
}
`

// TestCompany is a cluster in which everybody may do what is written, and no more.
func TestCompany(t *testing.T) {
	t.Parallel()
	dir := tempDir(t)
	authority := rpctest.NewAuthority(t)
	files := map[string]client.Files{}
	for _, name := range []string{"master", "agent", "ops", "web", "batch", "blind", "viewer", "stranger"} {
		files[name] = authority.Issue(name)
	}
	rules := filepath.Join(dir, "rules.hcl")
	write := func(viewers string) { writeFile(t, rules, strings.ReplaceAll(companyRules, "VIEWERS", viewers)) }
	write(`"view_cluster"`)
	ports := "  rpc  = \"127.0.0.1:0\"\n  http = \"127.0.0.1:0\"\n"
	mesos := "framework \"mesos\" {\n  config {\n    listen = \"127.0.0.1:0\"\n    credential \"carl\" {\n      password = \"c\"\n    }\n" +
		"    credential \"dora\" {\n      password = \"d\"\n    }\n  }\n}\n"
	master := serve(t, nil, "master", "--config", rules, "--config", writeFile(t, filepath.Join(dir, "master.hcl"),
		fmt.Sprintf("data_dir = %q\nmaster {\n%s}\n%s%s", filepath.Join(dir, "m"), ports, mesos, tlsBlock(files["master"]))))
	agentConfig := func(name string) string {
		return writeFile(t, filepath.Join(dir, name+".hcl"), fmt.Sprintf("data_dir = %q\nagent {\n  masters = [%q]\n  resources = %q\n%s}\n%s%s",
			filepath.Join(dir, name), master.fields["rpc"], smallAgent, ports, mesos, tlsBlock(files[name])))
	}
	agentd := serve(t, nil, "agent", "--config", rules, "--config", agentConfig("agent"), "--end-tasks")

	identity := func(name string) []string {
		f := files[name]
		return []string{"MEZZO_ADDRESS=" + master.fields["rpc"], "MEZZO_TLS_CA=" + f.CA, "MEZZO_TLS_CERT=" + f.Cert, "MEZZO_TLS_KEY=" + f.Key}
	}
	as := func(name string, args ...string) result {
		t.Helper()
		return mezzo(t, identity(name), args...)
	}
	refused := func(words, name string, args ...string) {
		t.Helper()
		if r := as(name, args...); r.code == 0 || !strings.Contains(r.stderr+r.stdout, "denied: ") || !strings.Contains(r.stderr+r.stdout, words) {
			t.Errorf("%s: mezzo %v: %+v, want it denied with %q", name, args, r, words)
		}
	}
	allowed := func(name string, args ...string) result {
		t.Helper()
		r := as(name, args...)
		if r.code != 0 {
			t.Errorf("%s: mezzo %v: %+v, want it done", name, args, r)
		}
		return r
	}
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}

	// A framework that may not run as root is refused, another runs.
	refused(`rule "web is not root"`, "web", "run", "--role", "web", "--user", "root", "--", "true")
	refused(`"viewer" may not register_framework`, "viewer", "run", "--role", "batch", "--", "true")
	refused(`role "*"`, "batch", "run", "--", "true")
	if r := allowed("batch", "run", "--role", "batch", "--name", "bee", "--", "sh", "-c", "echo honey"); r.stdout != "honey\n" {
		t.Errorf("batch's task: %+v", r)
	}
	if r := allowed("blind", "run", "--role", "batch", "--instances", "2", "--", "echo", "unseen"); r.stdout != "" ||
		strings.Count(r.stderr, `what the task prints is not shown: denied: "blind" may not read_sandbox`) != 1 {
		t.Errorf("a task of somebody who may not read what it prints: %+v", r)
	}
	bee := taskID(t, allowed("viewer", "tasks", "--all").stdout, "bee")

	// Who looks sees, and neither ends nor reads what others run.
	if r := allowed("batch", "logs", bee); r.stdout != "honey\n" {
		t.Errorf("batch's own output: %+v", r)
	}
	refused(fmt.Sprintf(`read_sandbox %q (role "batch", user %q, owner "batch")`, bee, me.Username), "viewer", "logs", bee)
	refused(`"web" may not read_sandbox`, "web", "logs", bee)
	refused(`"stranger" may not view_cluster`, "stranger", "agents")
	agent := strings.Fields(strings.SplitN(allowed("viewer", "agents").stdout, "\n", 3)[1])[0]
	refused(`"viewer" may not administer "reload"`, "viewer", "reload")
	refused(`"viewer" may not update_quota`, "viewer", "quota", "set", "web", "--limit", "cpus:1")
	refused(`"viewer" may not manage_agent`, "viewer", "agent", "drain", agent)

	drone := startMezzo(t, identity("batch"), "run", "--role", "batch", "--name", "drone", "--", "sleep", "1000")
	id := ""
	eventually(t, "the task to run", func() bool {
		r := as("viewer", "tasks")
		if !strings.Contains(r.stdout, "drone") || !strings.Contains(r.stdout, "RUNNING") {
			return false
		}
		id = taskID(t, r.stdout, "drone")
		return true
	})
	refused(fmt.Sprintf(`"viewer" may not kill_task %q (role "batch", user %q, owner "batch"): no rule`, id, me.Username), "viewer", "kill", id)
	refused(`"web" may not kill_task`, "web", "kill", id)
	refused(`"web" may not run_command`, "web", "exec", id, "--", "id")

	t.Run("http", func(t *testing.T) { companyHTTP(t, master, files["viewer"]) })
	t.Run("sandbox", func(t *testing.T) {
		framework := frameworkOf(t, as("viewer", "tasks", "--all", "--json").stdout, bee)
		path := "/v1/agent/" + agent + "/read?offset=0&length=100&path=/frameworks/" + framework + "/executors/" + bee + "/runs/latest/stdout"
		for name, want := range map[string]int{"batch": 200, "ops": 200, "viewer": 403, "web": 403} {
			f := files[name]
			config, err := f.Client()
			if err != nil {
				t.Fatal(err)
			}
			code, text := askHTTP(t, config, "GET", "https://"+master.fields["http"]+path, "", "")
			if code != want || code == 200 && text != "honey\n" {
				t.Errorf("%s reads a sandbox through the web UI: %d %q, want %d", name, code, text, want)
			}
		}
	})
	t.Run("mesos", func(t *testing.T) {
		companyMesos(t, master.fields["mesos"])
		companyMesosAgent(t, agentd.fields["mesos_agent"], bee)
	})

	// An agent that is none of ours.
	strange := serve(t, nil, "agent", "--config", rules, "--config", agentConfig("stranger"))
	eventually(t, "the strange agent to say why it cannot register", func() bool {
		return strings.Contains(strange.stderr.String(), `may not register_agent`)
	})

	// What is wrong changes nothing; what is right counts at once, for what runs too.
	write(`"view_clusters"`)
	if r := as("ops", "reload"); r.code != 1 || !strings.Contains(r.stdout+r.stderr, `Did you mean "view_cluster"?`) || !strings.Contains(r.stdout+r.stderr, "rules.hcl line") {
		t.Errorf("a reload of bad rules: %+v", r)
	}
	refused(`"viewer" may not kill_task`, "viewer", "kill", id)
	write(`"view_cluster", "kill_task", "read_sandbox"`)
	if r := mezzo(t, nil, "auth", "can", "viewer", "kill_task", "--role", "batch", "--config", rules); r.code != 0 || !strings.Contains(r.stdout, `rule "viewers"`) {
		t.Errorf("auth can: %+v", r)
	}
	if r := allowed("ops", "reload"); !strings.Contains(r.stdout+r.stderr, "authorization") {
		t.Errorf("the reload does not tell of the rules: %+v", r)
	}
	allowed("viewer", "kill", id)
	if r := drone.wait(); r.code == 0 {
		t.Errorf("the task that the viewer ended: %+v", r)
	}
	refused(`"viewer" may not read_sandbox`, "viewer", "logs", bee) // the agent has not been told yet
	allowed("ops", "reload", "--agent", agent)
	if r := allowed("viewer", "logs", bee); r.stdout != "honey\n" {
		t.Errorf("batch's output, for a viewer who may now: %+v", r)
	}
}

// companyHTTP is who is answered at the master's http address.
func companyHTTP(t *testing.T, master *server, viewer client.Files) {
	known, err := viewer.Client()
	if err != nil {
		t.Fatal(err)
	}
	unknown := &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: known.RootCAs}
	for _, x := range []struct {
		who, method, path, body string
		config                  *tls.Config
		code                    int
	}{
		{"a viewer", "GET", "/v1/tasks", "", known, 200},
		{"a viewer", "GET", "/metrics", "", known, 200},
		{"a viewer", "POST", "/v1/order/kill", `{"task_id":"x"}`, known, 403},
		{"a viewer", "POST", "/v1/order/reload", `{}`, known, 403},
		{"nobody", "GET", "/v1/tasks", "", unknown, 403},
		{"nobody", "GET", "/v1/watch", "", unknown, 403},
		{"nobody", "GET", "/metrics", "", unknown, 403},
		{"nobody", "POST", "/v1/order/kill", `{"task_id":"x"}`, unknown, 403},
		{"nobody", "GET", "/healthz", "", unknown, 200},
	} {
		code, text := askHTTP(t, x.config, x.method, "https://"+master.fields["http"]+x.path, x.body, "")
		if code != x.code || code == 403 && !strings.Contains(text, "denied: ") {
			t.Errorf("%s: %s %s: %d %s, want %d", x.who, x.method, x.path, code, text, x.code)
		}
	}
}

// companyMesos is who is answered by the adapter: its clients are asked for by
// their own names, and not by the adapter's.
func companyMesos(t *testing.T, address string) {
	// A scheduler is told in an event, as Mesos tells it, which ends its stream.
	subscribe := `{"type":"SUBSCRIBE","subscribe":{"framework_info":{"user":"nobody","name":"f","role":"web"}}}`
	if code, text := askHTTP(t, nil, "POST", "http://"+address+"/api/v1/scheduler", subscribe, "carl:c"); code != 200 ||
		!strings.Contains(text, `"ERROR"`) || !strings.Contains(text, `\"carl\" may not register_framework`) {
		t.Errorf("carl as a scheduler: %d %s", code, text)
	}
	for _, x := range []struct {
		who, method, path, body string
		code                    int
	}{
		{"carl:c", "GET", "/state", "", 200},
		{"carl:c", "GET", "/metrics/snapshot", "", 200},
		{"carl:c", "POST", "/api/v1", `{"type":"GET_TASKS"}`, 200},
		{"carl:c", "POST", "/teardown", "frameworkId=x", 403},
		{"carl:c", "POST", "/api/v1", `{"type":"SET_LOGGING_LEVEL","set_logging_level":{"level":1,"duration":{"nanoseconds":1}}}`, 403},
		{"dora:d", "GET", "/state", "", 403},
		{"dora:d", "GET", "/flags", "", 403},
		{"dora:d", "GET", "/metrics/snapshot", "", 403},
		{"dora:d", "GET", "/weights", "", 403},
		{"dora:d", "GET", "/quota", "", 403},
		{"dora:d", "GET", "/maintenance/schedule", "", 403},
		{"dora:d", "POST", "/api/v1", `{"type":"GET_TASKS"}`, 403},
		{"dora:d", "POST", "/api/v1", `{"type":"GET_FLAGS"}`, 403},
		{"dora:d", "POST", "/api/v1", `{"type":"GET_METRICS","get_metrics":{}}`, 403},
		{"dora:d", "POST", "/api/v1", `{"type":"GET_LOGGING_LEVEL"}`, 403},
		{"dora:d", "POST", "/api/v1", `{"type":"SUBSCRIBE"}`, 403},
		{"dora:d", "GET", "/tasks", "", 403},
		{"dora:d", "POST", "/api/v1", `{"type":"UPDATE_WEIGHTS","update_weights":{"weight_infos":[{"role":"web","weight":2}]}}`, 403},
		{"dora:d", "GET", "/health", "", 200},
		{"dora:wrong", "GET", "/state", "", 401},
	} {
		if code, text := askHTTP(t, nil, x.method, "http://"+address+x.path, x.body, x.who); code != x.code {
			t.Errorf("%s: %s %s %s: %d %s, want %d", x.who, x.method, x.path, x.body, code, text, x.code)
		}
	}
}

// companyMesosAgent is who is answered by the adapter of an agent.
func companyMesosAgent(t *testing.T, address, task string) {
	launch := `{"type":"LAUNCH_CONTAINER","launch_container":{"container_id":{"value":"c"},"command":{"value":"id","user":"root"},
		"resources":[{"name":"cpus","type":"SCALAR","scalar":{"value":0.1}}]}}`
	for _, x := range []struct {
		who, method, path, body string
		code                    int
	}{
		{"carl:c", "GET", "/state", "", 200},
		{"carl:c", "GET", "/metrics/snapshot", "", 200},
		{"carl:c", "POST", "/api/v1", `{"type":"GET_TASKS"}`, 200},
		{"carl:c", "POST", "/api/v1", launch, 403},
		{"carl:c", "POST", "/api/v1", `{"type":"PRUNE_IMAGES","prune_images":{}}`, 403},
		{"carl:c", "GET", "/files/read?path=/frameworks/f/executors/" + task + "/runs/x/stdout", "", 403},
		{"dora:d", "GET", "/state", "", 403},
		{"dora:d", "GET", "/flags", "", 403},
		{"dora:d", "GET", "/containers", "", 403},
		{"dora:d", "GET", "/monitor/statistics", "", 403},
		{"dora:d", "GET", "/metrics/snapshot", "", 403},
		{"dora:d", "POST", "/api/v1", `{"type":"GET_STATE"}`, 403},
		{"dora:d", "POST", "/api/v1", `{"type":"GET_FLAGS"}`, 403},
		{"dora:d", "POST", "/api/v1", `{"type":"GET_METRICS","get_metrics":{}}`, 403},
		{"dora:d", "POST", "/api/v1", `{"type":"GET_CONTAINERS","get_containers":{}}`, 403},
		{"dora:d", "POST", "/api/v1", `{"type":"WAIT_CONTAINER","wait_container":{"container_id":{"value":"c"}}}`, 403},
		{"dora:d", "GET", "/health", "", 200},
	} {
		if code, text := askHTTP(t, nil, x.method, "http://"+address+x.path, x.body, x.who); code != x.code {
			t.Errorf("at the agent, %s: %s %s %s: %d %s, want %d", x.who, x.method, x.path, x.body, code, text, x.code)
		}
	}
}

// frameworkOf is the framework of a task in a list's JSON.
func frameworkOf(t *testing.T, list, task string) string {
	t.Helper()
	var tasks []struct {
		ID        string `json:"id"`
		Framework string `json:"framework_id"`
	}
	if err := json.Unmarshal([]byte(list), &tasks); err != nil {
		t.Fatal(err)
	}
	for _, x := range tasks {
		if x.ID == task {
			return x.Framework
		}
	}
	t.Fatalf("no task %s in %s", task, list)
	return ""
}

// askHTTP makes one request, as "name:password" if that is not empty.
func askHTTP(t *testing.T, config *tls.Config, method, url, body, who string) (int, string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/json")
	if !strings.HasPrefix(body, "{") {
		request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	if name, password, ok := strings.Cut(who, ":"); ok {
		request.SetBasicAuth(name, password)
	}
	transport := &http.Transport{TLSClientConfig: config, DisableKeepAlives: true}
	answer, err := transport.RoundTrip(request)
	if err != nil {
		t.Fatalf("%s %s: %v", method, url, err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatalf("%s %s: %v", method, url, err)
	}
	return answer.StatusCode, string(text)
}
