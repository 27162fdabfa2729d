package image

import (
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	isolatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/isolator/v1"
	v1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
)

func TestParse(t *testing.T) {
	digest := "sha256:" + strings.Repeat("a", 64)
	for text, want := range map[string]string{
		"busybox":                     "docker.io/library/busybox:latest",
		"busybox:1.36":                "docker.io/library/busybox:1.36",
		"docker.io/busybox":           "docker.io/library/busybox:latest",
		"index.docker.io/a/b":         "docker.io/a/b:latest",
		"team/app":                    "docker.io/team/app:latest",
		"reg.example/app":             "reg.example/app:latest",
		"reg.example:5000/a/b/c:1":    "reg.example:5000/a/b/c:1",
		"localhost/app":               "localhost/app:latest",
		"[::1]:5000/app:x":            "[::1]:5000/app:x",
		"busybox@" + digest:           "docker.io/library/busybox@" + digest,
		"reg.example/app:1@" + digest: "reg.example/app@" + digest,
		"":                            "", " ": "", "Busybox": "", "a b": "", "http://reg/app": "", "a:b:c": "", "busybox@sha256:1": "", "-x": "",
	} {
		got, err := Parse(text)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("Parse(%q) = %q, %v; want %q", text, got, err, want)
		}
	}
}

func TestMergeArguments(t *testing.T) {
	none := ocispec.ImageConfig{}
	cmd := ocispec.ImageConfig{Cmd: []string{"cmd", "c1"}}
	entry := ocispec.ImageConfig{Entrypoint: []string{"entry", "e1"}}
	both := ocispec.ImageConfig{Entrypoint: []string{"entry", "e1"}, Cmd: []string{"cmd", "c1"}}
	// The rows are those of Mesos's docker runtime, for images with neither, a
	// cmd, an entrypoint, and both; "" is refused.
	for _, row := range []struct {
		name string
		c    Command
		want [4]string
	}{
		{"nothing", Command{}, [4]string{"", "cmd c1", "entry e1", "entry e1 cmd c1"}},
		{"arguments", Command{Arguments: []string{"a", "b"}}, [4]string{"", "cmd a b", "entry e1 a b", "entry e1 a b"}},
		{"value", Command{Value: "prog"}, [4]string{"prog", "prog", "prog", "prog"}},
		{"value and arguments", Command{Value: "prog", Arguments: []string{"prog", "b"}}, [4]string{"prog b", "prog b", "prog b", "prog b"}},
		{"another argv[0]", Command{Value: "prog", Arguments: []string{"name", "b"}}, [4]string{"prog=name b", "prog=name b", "prog=name b", "prog=name b"}},
		{"shell", Command{Shell: true, Value: "x | y"}, [4]string{"/bin/sh -c x | y", "/bin/sh -c x | y", "/bin/sh -c x | y", "/bin/sh -c x | y"}},
		{"shell with arguments", Command{Shell: true, Value: "x", Arguments: []string{"ignored"}}, [4]string{"/bin/sh -c x", "/bin/sh -c x", "/bin/sh -c x", "/bin/sh -c x"}},
		{"shell without a value", Command{Shell: true}, [4]string{}},
		{"docker: nothing", Command{Docker: true}, [4]string{"", "cmd c1", "entry e1", "entry e1 cmd c1"}},
		{"docker: arguments", Command{Docker: true, Arguments: []string{"a", "b"}}, [4]string{"a b", "a b", "entry e1 a b", "entry e1 a b"}},
		{"docker: value", Command{Docker: true, Value: "prog"}, [4]string{"prog", "prog", "entry e1 prog", "entry e1 prog"}},
		{"docker: value and arguments", Command{Docker: true, Value: "v", Arguments: []string{"a"}}, [4]string{"v a", "v a", "entry e1 v a", "entry e1 v a"}},
		{"docker: shell", Command{Docker: true, Shell: true, Value: "x"}, [4]string{"/bin/sh -c x", "/bin/sh -c x", "/bin/sh -c x", "/bin/sh -c x"}},
		{"docker: shell without a value", Command{Docker: true, Shell: true}, [4]string{}},
		{"docker: an entrypoint", Command{Docker: true, Entrypoint: "mine"}, [4]string{"mine", "mine", "mine", "mine"}},
		{"docker: an entrypoint and arguments", Command{Docker: true, Entrypoint: "mine", Arguments: []string{"a"}}, [4]string{"mine a", "mine a", "mine a", "mine a"}},
	} {
		for i, config := range []ocispec.ImageConfig{none, cmd, entry, both} {
			p, err := Merge(config, row.c)
			got := ""
			if err == nil {
				got = strings.Join(p.Args, " ")
				if p.Exec != "" {
					got = p.Exec + "=" + got
				}
			}
			if got != row.want[i] || err != nil && len(err.Error()) < 20 {
				t.Errorf("%s, image %d: %q, %v; want %q", row.name, i, got, err, row.want[i])
			}
		}
	}
	if both.Cmd[0] != "cmd" || both.Entrypoint[0] != "entry" {
		t.Error("Merge changed the image's configuration")
	}
}

func TestMergeTheRest(t *testing.T) {
	config := ocispec.ImageConfig{
		Cmd: []string{"x"}, Env: []string{"A=image", "B=image=b", "malformed", "=x", "PATH=/image"}, User: "worker:staff", WorkingDir: "srv/../app",
		StopSignal: "SIGQUIT", Volumes: map[string]struct{}{"/data": {}, "logs/": {}, "/": {}, "/data/": {}},
	}
	got, err := Merge(config, Command{Env: []string{"A=task", "C="}, Sandbox: "/mnt/mesos/sandbox"})
	want := &Process{
		Args: []string{"x"}, Env: []string{"PATH=/image", "A=task", "B=image=b", "C="}, Cwd: "/app", User: "worker:staff",
		StopSignal: syscall.SIGQUIT, Volumes: []string{"/data", "/logs"},
	}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("the image's: %v %s", err, diff)
	}
	got, err = Merge(config, Command{User: "0", Workdir: "/w", StopSignal: "12"})
	if err != nil || got.User != "0" || got.Cwd != "/w" || got.StopSignal != syscall.SIGUSR2 {
		t.Errorf("the task's: %+v %v", got, err)
	}
	bare := ocispec.ImageConfig{Cmd: []string{"x"}}
	for _, c := range []struct {
		command Command
		cwd     string
	}{{Command{Sandbox: "/s"}, "/s"}, {Command{Sandbox: "/s", Docker: true}, "/"}, {Command{}, "/"}} {
		if p, err := Merge(bare, c.command); err != nil || p.Cwd != c.cwd || p.User != "" || p.StopSignal != syscall.SIGTERM || p.Env[0] != "PATH="+defaultPath {
			t.Errorf("%+v: %+v %v", c.command, p, err)
		}
	}
	if _, err := Merge(bare, Command{StopSignal: "SIGNONSENSE"}); err == nil || !strings.Contains(err.Error(), "SIGNONSENSE") {
		t.Errorf("a signal that is none: %v", err)
	}
}

func auth(text string) string { return base64.StdEncoding.EncodeToString([]byte(text)) }

func TestKeyring(t *testing.T) {
	file := filepath.Join(t.TempDir(), "config.json")
	operator := `{"auths":{"https://index.docker.io/v1/":{"auth":"` + auth("hub:h:ub") + `"},"reg.example":{"username":"file","password":"f"},"tok.example":{"identitytoken":"T"},"none.example":{}},"credHelpers":{"helped.example":"ecr"}}`
	if err := os.WriteFile(file, []byte(operator), 0o600); err != nil {
		t.Fatal(err)
	}
	c := &Config{DockerConfig: file, Registries: []Registry{{Host: "reg.example", Username: "block", Password: "b"}, {Host: "open.example"}}}
	task := []byte(`{"auths":{"http://task.example:5000/v2/":{"auth":"` + auth("me:mine") + `"},"reg.example":{"auth":"` + auth("task:t") + `"}}}`)
	for _, x := range []struct {
		task []byte
		host string
		want string
	}{
		{nil, "registry-1.docker.io", "hub h:ub"}, {nil, "docker.io", "hub h:ub"}, {nil, "reg.example", "block b"}, {nil, "tok.example", " T"},
		{nil, "none.example", " "}, {nil, "open.example", " "}, {nil, "task.example:5000", " "}, {nil, "helped.example", "!"},
		{task, "reg.example", "task t"}, {task, "task.example:5000", "me mine"}, {task, "docker.io", "hub h:ub"},
	} {
		k, err := c.keyring(x.task)
		if err != nil {
			t.Fatal(err)
		}
		user, secret, err := k.lookup(x.host)
		got := user + " " + secret
		if err != nil {
			got = "!"
		}
		if got != x.want {
			t.Errorf("%s: %q (%v), want %q", x.host, got, err, x.want)
		}
	}
	for _, text := range []string{`{"auths":{"r":{"auth":"c2VjcmV0"}}}`, `{"auths":{"r":{"auth":"%c2VjcmV0"}}}`, `{"auths": secret`, `[]`, `{"auths":{"r":"secret"}}`} {
		if _, err := c.keyring([]byte(text)); err == nil || !strings.Contains(err.Error(), "the task's credentials") || strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), "c2V") {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func TestValidate(t *testing.T) {
	fine := func() Config { return Config{Stall: time.Minute, KeepFor: time.Hour, DiskHigh: 85, User: UserMesos} }
	for want, change := range map[string]func(*Config){
		"":                     func(c *Config) { c.Platform = "linux/arm64/v8"; c.Pinned = []string{"busybox"}; c.DiskHigh = 0 },
		"docker_config":        func(c *Config) { c.DockerConfig = "relative" },
		"platform":             func(c *Config) { c.Platform = "a/b/c/d/e" },
		"image_user":           func(c *Config) { c.User = "nobody" },
		"pull_stall_timeout":   func(c *Config) { c.Stall = time.Millisecond },
		"keep_images_for":      func(c *Config) { c.KeepFor = -1 },
		"image_disk_high":      func(c *Config) { c.DiskHigh = 101 },
		"pinned_images.1":      func(c *Config) { c.Pinned = []string{"ok", "Not Ok"} },
		"registry":             func(c *Config) { c.Registries = []Registry{{Host: "a"}, {Host: "a"}} },
		"proxy":                func(c *Config) { c.Proxy = "proxy.example:3128" },
		"no_proxy":             func(c *Config) { c.NoProxy = []string{"x"} },
		"docker_config, again": func(c *Config) { c.DockerConfig = "x" },
	} {
		c := fine()
		change(&c)
		ds := c.Validate()
		want, _, _ = strings.Cut(want, ",")
		if want == "" && len(ds) > 0 || want != "" && (len(ds) != 1 || strings.Join(ds[0].Path, ".") != want) {
			t.Errorf("want a diagnostic at %q: %+v", want, ds)
		}
	}
	for _, x := range []struct {
		want string
		r    Registry
	}{
		{"-", Registry{Host: "reg.example:5000", Username: "u", Password: "p", CA: "/ca.pem", Mirrors: []string{"m.example", "m:5000/a/b", "[::1]:5000"}}},
		{"", Registry{Host: "https://reg.example"}}, {"", Registry{Host: "reg.example:99999"}}, {"", Registry{Host: ""}}, {"", Registry{Host: "reg.example/x"}},
		{"password", Registry{Host: "a", Password: "p"}}, {"username", Registry{Host: "a", Username: "p"}}, {"ca", Registry{Host: "a", CA: "x"}},
		{"plain_http", Registry{Host: "a", PlainHTTP: true, Insecure: true}}, {"mirrors.1", Registry{Host: "a", Mirrors: []string{"b", "http://c"}}},
		{"mirrors.0", Registry{Host: "a", Mirrors: []string{"b/../c"}}},
	} {
		ds := x.r.Validate()
		if x.want == "-" && len(ds) > 0 || x.want != "-" && (len(ds) != 1 || strings.Join(ds[0].Path, ".") != x.want) {
			t.Errorf("%+v: want a diagnostic at %q: %+v", x.r, x.want, ds)
		}
	}
	dir := t.TempDir()
	bad := filepath.Join(dir, "bad")
	if err := os.WriteFile(bad, []byte("no PEM, no JSON"), 0o600); err != nil {
		t.Fatal(err)
	}
	c := fine()
	c.DockerConfig, c.Registries = bad, []Registry{{Host: "a", CA: bad}, {Host: "b", CA: filepath.Join(dir, "none")}}
	if ds := c.Check(); len(ds) != 3 {
		t.Errorf("want three diagnostics: %+v", ds)
	}
}

// TestUserOf: who a task runs as, in an image whose own user is app.
func TestUserOf(t *testing.T) {
	task := func(kind v1.ContainerInfo_Type, own bool, parameter string) *isolatorv1.Task {
		return &isolatorv1.Task{
			User: "alice", OwnUser: own, Image: &isolatorv1.TaskImage{Reference: "x"},
			Container: &v1.ContainerInfo{Type: &kind}, Options: &isolatorv1.Options{User: parameter},
		}
	}
	const docker, mesos = v1.ContainerInfo_DOCKER, v1.ContainerInfo_MESOS
	for _, x := range []struct {
		name, setting, want string
		task                *isolatorv1.Task
	}{
		{"mesos", UserMesos, "alice", task(mesos, false, "")},
		{"docker", UserMesos, "app", task(docker, false, "")},
		{"docker, its own", UserMesos, "alice", task(docker, true, "")},
		{"docker, a parameter", UserMesos, "5:6", task(docker, true, "5:6")},
		{"the image's, mesos", UserImage, "app", task(mesos, false, "")},
		{"the image's, its own", UserImage, "alice", task(mesos, true, "")},
		{"the task's, docker", UserTask, "alice", task(docker, false, "")},
		{"the default image", UserImage, "alice", &isolatorv1.Task{User: "alice"}},
	} {
		c := Config{User: x.setting}
		if got := c.UserOf(x.task, "app"); got != x.want {
			t.Errorf("%s: %q, want %q", x.name, got, x.want)
		}
		refused := x.setting == UserTask && x.task.GetOptions().GetUser() != ""
		if err := c.CheckUser(x.task); (err != nil) != refused {
			t.Errorf("%s: %v", x.name, err)
		}
	}
	c := Config{User: UserTask}
	if err := c.CheckUser(task(docker, false, "0")); err == nil || !strings.Contains(err.Error(), "image_user") {
		t.Errorf("a parameter that makes root of alice: %v", err)
	}
}

// TestExplain: what a launch that failed tells its owner says what to do, names
// the image, and has nothing that is nobody's business.
func TestExplain(t *testing.T) {
	for text, want := range map[string]string{
		"pull access denied, authorization failed: no basic auth credentials":                          "docker.config",
		`Head "https://reg.example/v2/": http: server gave HTTP response to HTTPS client`:              "plain_http = true",
		`tls: failed to verify certificate: x509: certificate signed by unknown authority`:             "ca in a registry block",
		`Head "https://reg.example/v2/?sig=hush": dial tcp 192.0.2.1:443: connect: connection refused`: "cannot reach the registry",
		"dial tcp: lookup reg.example on 192.0.2.53:53: no such host":                                  "cannot reach the registry",
		"no match for platform in manifest sha256:0123: not found":                                     "this agent's platform",
		"it is for the platform linux/s390x, and this agent runs images for linux/amd64":               "image reg.example/app:1: it is for the platform",
	} {
		err := explain("reg.example/app:1", errors.New(text))
		if !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), "image reg.example/app:1: ") || strings.Contains(err.Error(), "hush") {
			t.Errorf("%s: %v", text, err)
		}
	}
	if err := explain("reg.example/app:1", fmt.Errorf("reg.example/app:1: %w", errdefs.ErrNotFound)); !strings.Contains(err.Error(), "look at its name") || Transient(err) {
		t.Errorf("an image that is not there: %v", err)
	}
}
