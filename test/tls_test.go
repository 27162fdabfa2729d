package test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/mezzo-os/mezzo/core/rpc/rpctest"
	"github.com/mezzo-os/mezzo/sdk/client"
)

// tlsBlock is what an operator writes for the files.
func tlsBlock(files client.Files) string {
	return fmt.Sprintf("tls {\n  ca   = %q\n  cert = %q\n  key  = %q\n}\n", files.CA, files.Cert, files.Key)
}

// TestMutualTLS is a cluster in which everybody needs a certificate.
func TestMutualTLS(t *testing.T) {
	t.Parallel()
	dir := tempDir(t)
	ours, theirs := rpctest.NewAuthority(t), rpctest.NewAuthority(t)
	masterFiles, agentFiles, operator := ours.Issue("master"), ours.Issue("agent"), ours.Issue("operator")
	ports := "  rpc  = \"127.0.0.1:0\"\n  http = \"127.0.0.1:0\"\n}\n"
	masterConfig := writeFile(t, filepath.Join(dir, "master.hcl"),
		fmt.Sprintf("data_dir = %q\nlog_level = \"trace\"\nmaster {\n%s%s", filepath.Join(dir, "m"), ports, tlsBlock(masterFiles)))
	if r := mezzo(t, nil, "config", "check", masterConfig); r.code != 0 || r.stderr != "" {
		t.Fatalf("config check: %+v", r)
	}
	master := serve(t, nil, "master", "--config", masterConfig)
	agentConfig := func(name string, files *client.Files) string {
		text := fmt.Sprintf("data_dir = %q\nlog_level = \"trace\"\nagent {\n  masters = [%q]\n  resources = %q\n%s", filepath.Join(dir, name), master.fields["rpc"], smallAgent, ports)
		if files != nil {
			text += tlsBlock(*files)
		}
		return writeFile(t, filepath.Join(dir, name+".hcl"), text)
	}
	agent := serve(t, nil, "agent", "--config", agentConfig("a", &agentFiles), "--end-tasks")

	as := func(files client.Files, args ...string) result {
		t.Helper()
		env := []string{"MEZZO_ADDRESS=" + master.fields["rpc"], "MEZZO_TLS_CA=" + files.CA, "MEZZO_TLS_CERT=" + files.Cert, "MEZZO_TLS_KEY=" + files.Key}
		return mezzo(t, env, args...)
	}
	flags := []string{"--tls-ca", operator.CA, "--tls-cert", operator.Cert, "--tls-key", operator.Key, "--address", master.fields["rpc"]}
	if r := mezzo(t, nil, append(append([]string{"run"}, flags...), "--name", "secure", "--", "sh", "-c", "echo hello; exit 3")...); r.code != 3 || r.stdout != "hello\n" {
		t.Fatalf("run with --tls-*: %+v", r)
	}
	var shown strings.Builder
	for _, verb := range []string{"status", "agents", "frameworks", "tasks", "offers", "roles", "plugins"} {
		r := as(operator, verb, "--json")
		if r.code != 0 || r.stdout == "" {
			t.Errorf("%s --json with MEZZO_TLS_*: %+v", verb, r)
		}
		shown.WriteString(r.stdout)
	}
	if r := as(operator, "logs", fmt.Sprint(taskID(t, as(operator, "tasks", "--all").stdout, "secure"))); r.stdout != "hello\n" {
		t.Errorf("logs, from the agent, with MEZZO_TLS_*: %+v", r)
	}

	t.Run("refused", func(t *testing.T) {
		plain := mezzo(t, []string{"MEZZO_ADDRESS=" + master.fields["rpc"]}, "agents")
		strange := as(theirs.Issue("stranger"), "agents")
		half := ours.Issue("half")
		half.CA = theirs.Issue("x").CA // does not believe the master
		doubting := as(half, "agents")
		impostor := theirs.Issue("operator")
		impostor.CA = operator.CA // believes the master, who does not believe it
		disbelieved := as(impostor, "agents")
		for name, r := range map[string]struct {
			got   result
			words string
		}{
			"no certificate": {plain, "--tls-cert"}, "another authority's": {strange, "certificate"},
			"a CA that did not sign the master's": {doubting, "certificate"}, "a certificate of another authority": {disbelieved, "certificate"},
		} {
			if r.got.code != 1 || r.got.stdout != "" || !strings.Contains(r.got.stderr, r.words) || !strings.Contains(r.got.stderr, master.fields["rpc"]) {
				t.Errorf("%s: %+v, want exit 1 and a word about %s", name, r.got, r.words)
			}
		}
		if r := mezzo(t, nil, "agents", "--address", master.fields["rpc"], "--tls-ca", operator.CA); r.code != 2 || !strings.Contains(r.stderr, "--tls-key") {
			t.Errorf("one flag of three: %+v, want exit 2", r)
		}
		if r := as(client.Files{CA: operator.CA, Cert: operator.Cert, Key: "/no/such.key"}, "agents"); r.code != 1 || !strings.Contains(r.stderr, "/no/such.key") {
			t.Errorf("a key that is not there: %+v", r)
		}
	})

	t.Run("agents", func(t *testing.T) {
		foreign := theirs.Issue("agent")
		for name, files := range map[string]*client.Files{"plain": nil, "foreign": &foreign} {
			s := serve(t, nil, "agent", "--config", agentConfig(name, files))
			eventually(t, "the "+name+" agent to say why it cannot register", func() bool {
				for line := range strings.Lines(s.stderr.String()) {
					if strings.Contains(line, "[WARN]") && strings.Contains(line, master.fields["rpc"]) && (strings.Contains(line, "certificate") || strings.Contains(line, "TLS")) {
						return true
					}
				}
				return false
			})
			s.stop(syscall.SIGTERM)
		}
		if r := as(operator, "agents", "--json"); strings.Count(r.stdout, `"hostname"`) != 1 {
			t.Errorf("agents: %+v, want the one with a certificate of ours", r)
		}
	})

	t.Run("http", func(t *testing.T) {
		config, err := operator.Client()
		if err != nil {
			t.Fatal(err)
		}
		get := func(config *tls.Config, scheme string) (string, error) {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			request, err := http.NewRequestWithContext(ctx, http.MethodGet, scheme+"://"+master.fields["http"]+"/healthz", nil)
			if err != nil {
				return "", err
			}
			transport := &http.Transport{TLSClientConfig: config}
			defer transport.CloseIdleConnections()
			answer, err := transport.RoundTrip(request)
			if err != nil {
				return "", err
			}
			defer answer.Body.Close()
			text, err := io.ReadAll(answer.Body)
			if answer.StatusCode != http.StatusOK {
				return "", errors.Join(err, errors.New(answer.Status))
			}
			return string(text), err
		}
		if _, err := get(config, "https"); err != nil {
			t.Errorf("https with the cluster's CA: %v", err)
		}
		if text, err := get(nil, "http"); err == nil {
			t.Errorf("http in plain text was answered: %q", text)
		}
		if _, err := get(&tls.Config{MinVersion: tls.VersionTLS12}, "https"); err == nil {
			t.Error("a client that does not know the CA believed the master")
		}
	})

	// What nobody may read in a log or an answer.
	agent.stop(syscall.SIGTERM)
	master.stop(syscall.SIGTERM)
	everything := shown.String() + master.stderr.String() + agent.stderr.String()
	for _, files := range []client.Files{masterFiles, agentFiles, operator} {
		text, err := os.ReadFile(files.Key)
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range strings.Split(string(text), "\n") {
			if len(line) > 20 && strings.Contains(everything, line) {
				t.Errorf("a line of %s is in a log or in --json: %s", files.Key, line)
			}
		}
	}
	if len(everything) < 1000 {
		t.Errorf("only %d bytes of logs and JSON: the test tests nothing", len(everything))
	}
}

// taskID finds a task in the table of `mezzo tasks`.
func taskID(t *testing.T, table, name string) string {
	t.Helper()
	for line := range strings.Lines(table) {
		if words := strings.Fields(line); len(words) > 1 && words[1] == name {
			return words[0]
		}
	}
	t.Fatalf("no task %s in:\n%s", name, table)
	return ""
}

// TestCertificatesOfAnotherPair is that a key that belongs to another
// certificate is found by the check and by the start.
func TestCertificatesOfAnotherPair(t *testing.T) {
	t.Parallel()
	dir := tempDir(t)
	authority := rpctest.NewAuthority(t)
	files := authority.Issue("master")
	files.Key = authority.Issue("other").Key
	file := writeFile(t, filepath.Join(dir, "master.hcl"), fmt.Sprintf("data_dir = %q\nmaster {}\n%s", filepath.Join(dir, "m"), tlsBlock(files)))
	for _, args := range [][]string{{"config", "check", file}, {"master", "--config", file, "--rpc", "127.0.0.1:0", "--http", "127.0.0.1:0"}} {
		r := mezzo(t, nil, args...)
		if r.code != 1 || !strings.Contains(r.stderr, "on "+file+" line 3, column 1, in tls") || !strings.Contains(r.stderr, "private key does not match") {
			t.Errorf("mezzo %v with the key of another certificate: %+v", args, r)
		}
	}
}
