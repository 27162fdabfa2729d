package command

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/testing/protocmp"

	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
)

// runOf reads the flags and the command of `mezzo run`.
func runOf(t *testing.T, args ...string) (runOptions, error) {
	t.Helper()
	o := runOptions{cpus: 0.1, instances: 1, mem: "64", disk: "0", role: "*"}
	f := pflag.NewFlagSet("run", pflag.ContinueOnError)
	o.containerOptions.add(f)
	f.StringVar(&o.user, "user", "", "")
	if err := f.Parse(args); err != nil {
		t.Fatal(err)
	}
	o.command = f.Args()
	return o, o.check()
}

func TestRunContainer(t *testing.T) {
	for _, c := range []struct {
		args, container, command string
	}{
		{"-- true", "", `shell: false value: "true" arguments: "true" user: "me"`},
		{"--user me --image busybox -- true", `type: DOCKER pull_policy: PULL_MISSING docker { image: "busybox" network: HOST }`, `shell: false arguments: "true" user: "me"`},
		{"--image busybox --pull never", `type: DOCKER pull_policy: PULL_NEVER docker { image: "busybox" network: HOST }`, `shell: false`},
		{"--image nginx --publish 31080:80 --publish 31081:53/udp", `type: DOCKER pull_policy: PULL_MISSING docker { image: "nginx" network: BRIDGE
			port_mappings { host_port: 31080 container_port: 80 protocol: "tcp" } port_mappings { host_port: 31081 container_port: 53 protocol: "udp" } }`, `shell: false`},
		{"--image nginx --network blue --publish 31080:80", `type: DOCKER pull_policy: PULL_MISSING docker { image: "nginx" network: USER
			port_mappings { host_port: 31080 container_port: 80 protocol: "tcp" } } network_infos { name: "blue" }`, `shell: false`},
		{"--image nginx --network none", `type: DOCKER pull_policy: PULL_MISSING docker { image: "nginx" network: NONE }`, `shell: false`},
		{"--network blue -- true", `type: MESOS network_infos { name: "blue" }`, `shell: false value: "true" arguments: "true" user: "me"`},
		{"--volume /a:/b:ro --volume /c:d -- true", `type: MESOS volumes { host_path: "/a" container_path: "/b" mode: RO } volumes { host_path: "/c" container_path: "d" mode: RW }`,
			`shell: false value: "true" arguments: "true" user: "me"`},
	} {
		o, err := runOf(t, strings.Fields(c.args)...)
		if err != nil {
			t.Errorf("%s: %v", c.args, err)
			continue
		}
		var want *mezzov1.ContainerInfo
		if c.container != "" {
			want = &mezzov1.ContainerInfo{}
			if err := prototext.Unmarshal([]byte(c.container), want); err != nil {
				t.Fatal(err)
			}
		}
		if diff := cmp.Diff(want, o.container, protocmp.Transform()); diff != "" {
			t.Errorf("%s: %s", c.args, diff)
		}
		command := &mezzov1.CommandInfo{}
		if err := prototext.Unmarshal([]byte(c.command), command); err != nil {
			t.Fatal(err)
		}
		if command.User != nil {
			command.User = &o.user
		}
		got := o.commandInfo()
		got.Environment = nil
		if diff := cmp.Diff(command, got, protocmp.Transform()); diff != "" {
			t.Errorf("%s: %s", c.args, diff)
		}
		if ports := o.resources.RangesOf("ports").String(); strings.Contains(c.args, "31080") != strings.Contains(ports, "31080") {
			t.Errorf("%s: it asks for the ports %s", c.args, ports)
		}
	}
	if o, _ := runOf(t, "--image", "registry.example:5000/team/web:1.4"); o.name != "web" {
		t.Errorf("the tasks are named %q", o.name)
	}
}

func TestRunContainerRefused(t *testing.T) {
	for args, want := range map[string]string{
		"--image x --pull often":                      "always, missing or never",
		"--pull always -- true":                       "--image",
		"--publish 1:2 -- true":                       "--network NAME",
		"--network bridge -- true":                    "needs an --image",
		"--image x --network host --publish 31080:80": "no meaning",
		"--image x --publish 80":                      "HOST:CONTAINER",
		"--image x --publish 31080:80/icmp":           "HOST:CONTAINER",
		"--image x --publish 0:80":                    "HOST:CONTAINER",
		"--volume data:/b -- true":                    "HOST:CONTAINER",
		"--volume /a:/b:rx -- true":                   "HOST:CONTAINER",
	} {
		if _, err := runOf(t, strings.Fields(args)...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q in it", args, err, want)
		}
	}
}
