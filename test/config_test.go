package test

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/mezzo-os/mezzo/core/rpc/rpctest"
)

// badConfigs are configurations that nothing may start with. PLUGINS, TAKEN
// and DIR stand for what a test has.
var badConfigs = map[string]struct {
	text string
	// says are words of the answer; FILE stands for the configuration's path.
	says []string
	// agent is that it is an agent that refuses it.
	agent bool
	// notDev is that `mezzo dev` does not mind.
	notDev bool
	// startOnly is that a check does not look at it.
	startOnly bool
}{
	"unknown attribute": {
		text: "master {\n  offer_timeot = \"5m\"\n}\n",
		says: []string{"on FILE line 4, column 3, in master", "offer_timeot", `Did you mean "offer_timeout"?`},
	},
	"syntax": {
		text: "master {\n  offer_timeout = \n}\n",
		says: []string{"on FILE line 4", "Invalid expression"},
	},
	"duplicate allocator": {
		text: "master {}\nallocator \"drf\" {}\nallocator \"priority\" {}\n",
		says: []string{"Duplicate allocator block", "on FILE line 4, column 1", "on FILE line 5, column 1", "exactly one allocator"},
	},
	"missing binary": {
		text: "master {}\nallocator \"drff\" {}\n",
		says: []string{`allocator "drff": its binary does not exist`, "declared at: FILE:4", "PLUGINS/mezzo-allocator-drff", "mezzo-allocator-drf"},
	},
	"wrong checksum": {
		text: "master {}\nallocator \"drf\" {\n  checksum = \"sha256:" + strings.Repeat("0", 64) + "\"\n}\n",
		says: []string{"its binary is not the one that is pinned", "declared at: FILE:4", "expected: sha256:" + strings.Repeat("0", 64), "found:    sha256:", "mezzo plugin lock FILE"},
	},
	"unknown setting of a plugin": {
		text: "master {}\nallocator \"drf\" {\n  config {\n    fair_sharing_exclude = [\"gpus\"]\n  }\n}\n",
		says: []string{"on FILE line 6, column 5", "fair_sharing_exclude", `Did you mean "fair_sharing_excluded"?`},
	},
	"setting that a plugin rejects": {
		text: "master {}\nallocator \"drf\" {\n  config {\n    fair_sharing_excluded = [\"gpus\", \"\"]\n  }\n}\n",
		says: []string{"on FILE line 6, column 38", "empty resource name"},
	},
	"setting that an isolator rejects": {
		text:  "agent {}\nisolator \"cgroups\" {\n  config {\n    controllers = [\"cpu\", \"cpus\"]\n  }\n}\n",
		says:  []string{"on FILE line 6, column 27", "unknown controller", "cpus"},
		agent: true,
	},
	"missing isolator": {
		text:  "agent {}\nisolator \"containerd\" {}\n",
		says:  []string{`isolator "containerd": its binary does not exist`, "declared at: FILE:4"},
		agent: true,
	},
	"port in use": {
		text:      "master {\n  rpc = \"TAKEN\"\n}\n",
		says:      []string{"TAKEN", "address already in use", "choose another"},
		startOnly: true,
	},
	"TLS files missing": {
		text: "master {}\nagent {}\ntls {\n  ca   = \"ca.pem\"\n  cert = \"cert.pem\"\n  key  = \"key.pem\"\n}\n",
		says: []string{"on FILE line 5, column 1, in tls", `ca = "DIR/ca.pem": no such file`, `cert = "DIR/cert.pem": no such file`, `key = "DIR/key.pem": no such file`},
	},
	"beyond loopback without TLS": {
		text: "master {\n  rpc = \"0.0.0.0:0\"\n}\n",
		says: []string{"on FILE line 4, column 9, in master", "Listener without TLS", "insecure = true"},
	},
	"TLS to ZooKeeper without its files": {
		text: "master {}\nelection \"zookeeper\" {\n  servers = [\"z1:2181\"]\n  tls {\n    ca = \"ca.pem\"\n  }\n}\nregistry \"zookeeper\" {}\n",
		says: []string{"on FILE line 6, column 3", "Unusable TLS files", "DIR/ca.pem: no such file"},
	},
	"adapter that anybody could reach": {
		text: "master {}\nframework \"mesos\" {\n  config {\n    listen = \"0.0.0.0:0\"\n  }\n}\n",
		says: []string{"on FILE line 6, column 14, in framework", "Listener without TLS", "insecure = true"},
	},
	"agent to find masters by ZooKeeper with TLS, without a certificate": {
		text:  "agent {\n  masters = [\"zks://z1:2181/mezzo\"]\n}\n",
		says:  []string{"on FILE line 4, column 13, in agent", "TLS to ZooKeeper without files"},
		agent: true, notDev: true, // which finds the master itself
	},
}

// TestBadConfigStartsNothing is that a configuration that is wrong gives an
// error with its place and exit 1, whoever reads it, and leaves nothing.
func TestBadConfigStartsNothing(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for name, bad := range badConfigs {
		t.Run(name, func(t *testing.T) {
			dir := tempDir(t)
			plugins := ownPlugins(t, dir)
			stand := strings.NewReplacer("TAKEN", taken.Addr().String(), "DIR", dir, "PLUGINS", plugins)
			file := writeFile(t, filepath.Join(dir, "bad.hcl"),
				fmt.Sprintf("data_dir = %q\nplugin_dir = %q\n%s", filepath.Join(dir, "data"), plugins, stand.Replace(bad.text)))
			scratch := filepath.Join(dir, "tmp")
			if err := os.Mkdir(scratch, 0o755); err != nil {
				t.Fatal(err)
			}
			refused := func(t *testing.T, args ...string) {
				t.Helper()
				r := mezzoAs(t, func(cmd *exec.Cmd) { cmd.Env = append(os.Environ(), "TMPDIR="+scratch) }, args...)
				if r.code != 1 || strings.Contains(r.stdout, "ready") {
					t.Errorf("mezzo %v: exit %d, stdout %q; want exit 1 and no ready line", args, r.code, r.stdout)
				}
				for _, words := range bad.says {
					words = stand.Replace(words)
					// The remedy names a FILE of its own.
					if !strings.Contains(words, "lock FILE") {
						words = strings.ReplaceAll(words, "FILE", file)
					}
					if !strings.Contains(r.stderr, words) {
						t.Errorf("mezzo %v does not say %q:\n%s", args, words, r.stderr)
					}
				}
				if left := processesNaming(dir); len(left) > 0 {
					t.Errorf("mezzo %v left %q", args, left)
				}
				if left, _ := os.ReadDir(scratch); len(left) > 0 {
					t.Errorf("mezzo %v left %v in the temporary directory", args, left)
				}
			}
			if !bad.startOnly {
				refused(t, "config", "check", file)
			}
			loopback := []string{"--http", "127.0.0.1:0"}
			if bad.agent {
				refused(t, append([]string{"agent", "--config", file, "--rpc", "127.0.0.1:0"}, loopback...)...)
			} else {
				refused(t, append([]string{"master", "--config", file}, loopback...)...)
			}
			if bad.notDev {
				return
			}
			rpc := "127.0.0.1:0"
			if bad.startOnly {
				rpc = taken.Addr().String() // dev's flags win over the file
			}
			refused(t, append([]string{"dev", "--config", file, "--rpc", rpc}, loopback...)...)
		})
	}
}

// TestExamplesRun starts what people copy, on free ports and with a directory
// of the test's.
func TestExamplesRun(t *testing.T) {
	t.Parallel()
	examples := filepath.Join("..", "config", "examples")
	for _, name := range []string{"single.hcl", "dev.hcl", "trusted-network.hcl"} {
		if r := mezzo(t, nil, "config", "check", "--data-dir", "/var/lib/mezzo", filepath.Join(examples, name)); r.code != 0 || r.stdout+r.stderr != "" {
			t.Errorf("config check %s: %+v, want nothing", name, r)
		}
	}
	checkClustered(t, examples)

	// One file and one data_dir for both processes, as the README has it.
	single := filepath.Join(examples, "single.hcl")
	dir := filepath.Join(tempDir(t), "mezzo")
	ports := []string{"--rpc", "127.0.0.1:0", "--http", "127.0.0.1:0"}
	master := serve(t, nil, append([]string{"master", "--config", single, "--data-dir", dir}, ports...)...)
	serve(t, nil, append([]string{"agent", "--config", single, "--data-dir", dir, "--master", master.fields["rpc"], "--end-tasks"}, ports...)...)
	if r := mezzo(t, []string{"MEZZO_ADDRESS=" + master.fields["rpc"]}, "run", "--", "echo", "single"); r.stdout != "single\n" || r.code != 0 {
		t.Errorf("run on single.hcl: %+v", r)
	}

	serve(t, nil, append([]string{"master", "--config", filepath.Join(examples, "trusted-network.hcl"), "--data-dir", filepath.Join(tempDir(t), "m")}, ports...)...)

	c := startDev(t, "--config", filepath.Join(examples, "dev.hcl"))
	if r := c.mezzo("run", "--role", "services", "--", "echo", "dev"); r.stdout != "dev\n" || r.code != 0 {
		t.Errorf("run on dev.hcl: %+v", r)
	}
}

// checkClustered is that the examples of a highly available cluster are right, but
// for the places of certificates and plugins.
func checkClustered(t *testing.T, examples string) {
	t.Helper()
	dir := tempDir(t)
	files := rpctest.NewAuthority(t).Issue("master")
	for name, from := range map[string]string{
		"ca.pem": files.CA, "master.pem": files.Cert, "master.key": files.Key, "agent.pem": files.Cert, "agent.key": files.Key,
	} {
		text, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		writeFile(t, filepath.Join(dir, name), string(text))
	}
	here := strings.NewReplacer("/etc/mezzo", dir, "/usr/lib/mezzo/plugins", filepath.Join(bin, "plugins"))
	for _, name := range []string{"master.hcl", "three-masters.hcl", "containerd-agent.hcl"} {
		text, err := os.ReadFile(filepath.Join(examples, name))
		if err != nil {
			t.Fatal(err)
		}
		file := writeFile(t, filepath.Join(dir, name), here.Replace(string(text)))
		if r := mezzo(t, nil, "config", "check", file); r.code != 0 || r.stdout+r.stderr != "" {
			t.Errorf("config check %s: %+v, want nothing", name, r)
		}
	}
}

func TestPluginLockPinsBinaries(t *testing.T) {
	t.Parallel()
	for _, changed := range []string{"mezzo-allocator-drf", "mezzo-isolator-cgroups", "mezzo-shim"} {
		t.Run(changed, func(t *testing.T) {
			t.Parallel()
			dir := tempDir(t)
			plugins := ownPlugins(t, dir)
			file := writeFile(t, filepath.Join(dir, "mezzo.hcl"),
				fmt.Sprintf("data_dir = %q\nplugin_dir = %q\nmaster {\n  rpc = \"127.0.0.1:0\"\n  http = \"127.0.0.1:0\"\n}\nagent {\n  masters = [\"127.0.0.1:1\"]\n  rpc = \"127.0.0.1:0\"\n  http = \"127.0.0.1:0\"\n}\n", filepath.Join(dir, "data"), plugins))
			if r := mezzo(t, nil, "plugin", "lock", file); r.code != 0 || !strings.Contains(r.stdout, filepath.Join(dir, "mezzo.lock.hcl")) {
				t.Fatalf("plugin lock: %+v", r)
			}
			if r := mezzo(t, nil, "config", "check", file); r.code != 0 || r.stderr != "" {
				t.Fatalf("config check after the lock: %+v", r)
			}
			f, err := os.OpenFile(filepath.Join(plugins, changed), os.O_APPEND|os.O_WRONLY, 0)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := f.WriteString("changed"); err != nil {
				t.Fatal(err)
			}
			if err := f.Close(); err != nil {
				t.Fatal(err)
			}
			verb := "agent"
			if changed == "mezzo-allocator-drf" {
				verb = "master"
			}
			pinned := regexp.MustCompile(`(?m)is not the one that is pinned\n  expected: sha256:[0-9a-f]{64}\n  found:    sha256:[0-9a-f]{64}$`)
			for _, args := range [][]string{{"config", "check", file}, {verb, "--config", file}} {
				r := mezzo(t, nil, args...)
				if r.code != 1 || !pinned.MatchString(r.stderr) || !strings.Contains(r.stderr, changed) || !strings.Contains(r.stderr, "mezzo plugin lock FILE") {
					t.Errorf("mezzo %v with a changed %s: %+v", args, changed, r)
				}
			}
			if left := processesNaming(dir); len(left) > 0 {
				t.Errorf("left: %q", left)
			}
			// The remedy works.
			if r := mezzo(t, nil, "plugin", "lock", file); r.code != 0 {
				t.Fatalf("plugin lock again: %+v", r)
			}
			if changed == "mezzo-allocator-drf" {
				serve(t, nil, "master", "--config", file)
			} else if r := mezzo(t, nil, "config", "check", file); r.code != 0 {
				t.Errorf("config check after the second lock: %+v", r)
			}
		})
	}
}

// What a plugin has to say has its place for programs, too; and nothing is an empty
// list.
func TestConfigCheckJSON(t *testing.T) {
	t.Parallel()
	file := filepath.Join(tempDir(t), "agent.hcl")
	for controllers, want := range map[string]string{`["cpu", "cpv"]`: `"line": 5`, `["cpu"]`: ""} {
		writeFile(t, file, "data_dir = \"/d\"\nagent {\n}\nisolator \"cgroups\" {\n  config { controllers = "+controllers+" }\n}\n")
		r := mezzo(t, nil, "config", "check", "--json", file)
		var found []map[string]any
		if err := json.Unmarshal([]byte(r.stdout), &found); err != nil || r.stderr != "" || (r.code == 0) != (want == "") || (len(found) == 0) != (want == "") || !strings.Contains(r.stdout, want) {
			t.Errorf("controllers %s: %+v, %v, want %q", controllers, r, err, want)
		}
	}
}

func TestPluginInspect(t *testing.T) {
	t.Parallel()
	plugins := filepath.Join(bin, "plugins")
	r := mezzo(t, nil, "plugin", "inspect", filepath.Join(plugins, "mezzo-isolator-cgroups"))
	for _, words := range []string{`isolator "cgroups", version`, "sha256:", ",mezzo-shim=sha256:", "mezzo.isolator.v1", `controllers = (list of texts, default ["cpu", "memory", "pids"])`} {
		if r.code != 0 || !strings.Contains(r.stdout, words) {
			t.Errorf("inspect does not say %q: %+v", words, r)
		}
	}
	r = mezzo(t, nil, "plugin", "inspect", "--json", filepath.Join(plugins, "mezzo-allocator-drf"))
	if r.code != 0 || !strings.Contains(r.stdout, `"name": "drf"`) {
		t.Errorf("inspect --json: %+v", r)
	}
	for path, words := range map[string]string{
		"/bin/true": "it exited with status 0 before it was ready",
		filepath.Join(plugins, "mezzo-allocator-none"): "its binary does not exist",
		plugins: "is a directory",
		writeFile(t, filepath.Join(tempDir(t), "text"), "no program"): "",
	} {
		r := mezzo(t, nil, "plugin", "inspect", path)
		if r.code != 1 || r.stdout != "" || !strings.Contains(r.stderr, words) || !strings.Contains(r.stderr, filepath.Base(path)) || !strings.Contains(r.stderr, "what to do:") {
			t.Errorf("inspect %s: %+v, want %q", path, r, words)
		}
	}
}
