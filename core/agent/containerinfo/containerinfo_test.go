package containerinfo_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/mezzo-os/mezzo/core/agent/containerinfo"
	isolatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/isolator/v1"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
)

func read(t *testing.T, text string, m proto.Message) {
	t.Helper()
	if err := prototext.Unmarshal([]byte(text), m); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
}

func info(t *testing.T, text string) *mezzov1.ContainerInfo {
	t.Helper()
	i := &mezzov1.ContainerInfo{}
	read(t, text, i)
	return i
}

func ports(t *testing.T) []*mezzov1.Resource {
	t.Helper()
	r := &mezzov1.Resource{}
	read(t, `name: "ports" type: RANGES ranges { range { begin: 31000 end: 31001 } }`, r)
	return []*mezzov1.Resource{r}
}

func TestRead(t *testing.T) {
	for name, c := range map[string]struct {
		in, image, network, options string
		nested                      bool
	}{
		"host":      {in: `type: MESOS`, network: `mode: MODE_HOST`},
		"nested":    {in: `type: MESOS`, nested: true, network: `mode: MODE_PARENT`},
		"mesos":     {in: `type: MESOS mesos { image { type: DOCKER docker { name: "busybox" } } }`, image: `reference: "busybox" pull: PULL_MISSING`, network: `mode: MODE_HOST`},
		"fresh":     {in: `type: MESOS mesos { image { type: DOCKER cached: false docker { name: "busybox" } } }`, image: `reference: "busybox" pull: PULL_ALWAYS`, network: `mode: MODE_HOST`},
		"never":     {in: `type: MESOS pull_policy: PULL_NEVER mesos { image { type: DOCKER docker { name: "busybox" } } }`, image: `reference: "busybox" pull: PULL_NEVER`, network: `mode: MODE_HOST`},
		"secret":    {in: `type: MESOS mesos { image { type: DOCKER docker { name: "b" config { type: VALUE value { data: "{}" } } } } }`, image: `reference: "b" pull: PULL_MISSING docker_config: "{}"`, network: `mode: MODE_HOST`},
		"reference": {in: `type: MESOS mesos { image { type: DOCKER docker { name: "b" config { type: REFERENCE reference { name: "s" } } } } }`, image: `reference: "b" pull: PULL_MISSING`, network: `mode: MODE_HOST`},
		"named":     {in: `type: MESOS network_infos { name: "blue" port_mappings { host_port: 31000 container_port: 80 } }`, network: `mode: MODE_NAMED networks { name: "blue" port_mappings { host_port: 31000 container_port: 80 } }`},
		"unnamed":   {in: `type: MESOS network_infos { labels { } }`, nested: true, network: `mode: MODE_HOST`},
		"docker":    {in: `type: DOCKER docker { image: "nginx" force_pull_image: true }`, image: `reference: "nginx" pull: PULL_ALWAYS`, network: `mode: MODE_HOST`},
		"bridge": {in: `type: DOCKER docker { image: "nginx" network: BRIDGE privileged: true port_mappings { host_port: 31001 container_port: 80 protocol: "udp" } }`,
			image: `reference: "nginx" pull: PULL_MISSING`, options: `privileged: true`,
			network: `mode: MODE_BRIDGE networks { port_mappings { host_port: 31001 container_port: 80 protocol: "udp" } }`},
		"none": {in: `type: DOCKER docker { image: "nginx" network: NONE }`, image: `reference: "nginx" pull: PULL_MISSING`, network: `mode: MODE_NONE`},
		"user": {in: `type: DOCKER docker { image: "nginx" network: USER port_mappings { host_port: 31000 container_port: 80 } } network_infos { name: "blue" }`,
			image: `reference: "nginx" pull: PULL_MISSING`, network: `mode: MODE_NAMED networks { name: "blue" port_mappings { host_port: 31000 container_port: 80 } }`},
		"parameters": {in: `type: DOCKER docker { image: "nginx"
			parameters { key: "cap-add" value: "net_admin" } parameters { key: "cap-drop" value: "CAP_CHOWN" } parameters { key: "privileged" value: "false" }
			parameters { key: "workdir" value: "/srv" } parameters { key: "entrypoint" value: "/x" } parameters { key: "user" value: "1:2" }
			parameters { key: "shm-size" value: "64M" } parameters { key: "add-host" value: "db:10.0.0.1" } parameters { key: "read-only" value: "true" }
			parameters { key: "ipc" value: "host" } parameters { key: "label" value: "a=b" } }`,
			image: `reference: "nginx" pull: PULL_MISSING`, network: `mode: MODE_HOST`,
			options: `cap_add: "NET_ADMIN" cap_drop: "CHOWN" workdir: "/srv" entrypoint: "/x" user: "1:2" shm_bytes: 67108864 extra_hosts: "db:10.0.0.1" read_only: true host_ipc: true`},
	} {
		t.Run(name, func(t *testing.T) {
			w, err := containerinfo.Read(info(t, c.in), c.nested, ports(t))
			if err != nil {
				t.Fatal(err)
			}
			image, network, options := &isolatorv1.TaskImage{}, &isolatorv1.Network{}, &isolatorv1.Options{}
			read(t, c.image, image)
			read(t, c.network, network)
			read(t, c.options, options)
			if (c.image == "") != (w.Image == nil) || c.options == "" && w.Options != nil {
				t.Errorf("image %v, options %v", w.Image, w.Options)
			}
			if w.Image == nil {
				w.Image = &isolatorv1.TaskImage{}
			}
			if w.Options == nil {
				w.Options = &isolatorv1.Options{}
			}
			if diff := cmp.Diff(image, w.Image, protocmp.Transform()); diff != "" {
				t.Error(diff)
			}
			if diff := cmp.Diff(network, w.Network, protocmp.Transform()); diff != "" {
				t.Error(diff)
			}
			if diff := cmp.Diff(options, w.Options, protocmp.Transform()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestParametersThatHaveFields(t *testing.T) {
	in := info(t, `type: DOCKER volumes { container_path: "a" host_path: "/a" mode: RO } docker { image: "nginx"
		parameters { key: "hostname" value: "web" } parameters { key: "volume" value: "/srv/www:/www:ro" }
		parameters { key: "ulimit" value: "nofile=1024:2048" } parameters { key: "ulimit" value: "core=-1" } parameters { key: "env" value: "A=b=c" } }`)
	w, err := containerinfo.Read(in, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := info(t, `type: DOCKER hostname: "web" volumes { container_path: "a" host_path: "/a" mode: RO } volumes { container_path: "/www" host_path: "/srv/www" mode: RO }
		rlimit_info { rlimits { type: RLMT_NOFILE soft: 1024 hard: 2048 } rlimits { type: RLMT_CORE } }`)
	want.Docker = in.Docker
	if diff := cmp.Diff(want, w.Info, protocmp.Transform()); diff != "" {
		t.Error(diff)
	}
	if len(w.Environment) != 1 || w.Environment[0].GetName() != "A" || w.Environment[0].GetValue() != "b=c" {
		t.Errorf("the environment is %v", w.Environment)
	}
	if in.Hostname != nil || len(in.Volumes) != 1 {
		t.Error("what the framework sent has been changed")
	}
}

func TestRefused(t *testing.T) {
	for in, want := range map[string]string{
		`type: MESOS docker { image: "x" }`:                                                                               "mesos.image",
		`type: MESOS mesos { image { type: APPC appc { name: "x" } } }`:                                                   "APPC",
		`type: MESOS mesos { image { type: DOCKER docker { name: "" } } }`:                                                "no name",
		`type: MESOS mesos { image { type: DOCKER docker { name: "a b" } } }`:                                             "space",
		`type: MESOS mesos { image { type: DOCKER docker { name: "a" config { type: REFERENCE } } } }`:                    "without a name",
		`type: MESOS mesos { image { type: DOCKER docker { name: "a" config { type: VALUE value { data: "hush" } } } } }`: "not the JSON",
		`type: MESOS network_infos { name: "a" } network_infos { }`:                                                       "some have none",
		`type: MESOS network_infos { name: "a" port_mappings { host_port: 80 container_port: 80 } }`:                      "not among the task's resources",
		`type: MESOS network_infos { name: "a" port_mappings { host_port: 31000 container_port: 0 } }`:                    "from 1 to 65535",
		`type: MESOS network_infos { port_mappings { host_port: 31000 container_port: 80 } }`:                             "without a name",
		`type: DOCKER`: "no docker part",
		`type: DOCKER docker { image: "x" } mesos { }`:                                                                           "mesos part",
		`type: DOCKER docker { image: "x" volume_driver: "nfs" }`:                                                                "volume_driver",
		`type: DOCKER docker { image: "x" network: USER }`:                                                                       "name no network",
		`type: DOCKER docker { image: "x" port_mappings { host_port: 31000 container_port: 80 } }`:                               "BRIDGE and USER",
		`type: DOCKER docker { image: "x" network: BRIDGE port_mappings { host_port: 31000 container_port: 8 protocol: "ipx" }}`: "neither tcp nor udp",
		`type: DOCKER docker { image: "x" parameters { key: "link" value: "y" } }`:                                               `parameter "link"`,
		`type: DOCKER docker { image: "x" parameters { key: "volume" value: "data:/y" } }`:                                       "Docker's own volumes",
		`type: DOCKER docker { image: "x" parameters { key: "volume" value: "/x:/y:z" } }`:                                       `option "z"`,
		`type: DOCKER docker { image: "x" parameters { key: "shm-size" value: "many" } }`:                                        "not a size",
		`type: DOCKER docker { image: "x" parameters { key: "ulimit" value: "nofile=5:3" } }`:                                    "above the hard",
		`type: DOCKER docker { image: "x" parameters { key: "pid" value: "container:z" } }`:                                      "not supported",
		`type: DOCKER docker { image: "x" parameters { key: "workdir" value: "y" } }`:                                            "absolute",
		`type: DOCKER docker { image: "x" parameters { key: "privileged" value: "very" } }`:                                      "neither true nor false",
	} {
		_, err := containerinfo.Read(info(t, in), false, ports(t))
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hush") {
			t.Errorf("%s: %v, want %q in it", in, err, want)
		}
	}
}

func TestEntrypoint(t *testing.T) {
	for _, c := range []struct {
		info, command string
		want          bool
	}{
		{`type: DOCKER docker { image: "x" }`, `shell: true value: "ls"`, false},
		{`type: DOCKER docker { image: "x" }`, `shell: false value: "ls"`, true},
		{`type: MESOS`, `shell: false value: "ls"`, false},
		{`type: MESOS`, `shell: false arguments: "-l"`, true},
	} {
		command := &mezzov1.CommandInfo{}
		read(t, c.command, command)
		if got := containerinfo.Entrypoint(info(t, c.info), command); got != c.want || containerinfo.Entrypoint(nil, command) != (command.GetValue() == "") {
			t.Errorf("%s, %s: %v", c.info, c.command, got)
		}
	}
}
