package command

import (
	"fmt"
	"path"
	"strconv"
	"strings"

	"github.com/spf13/pflag"
	"google.golang.org/protobuf/proto"

	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
	"github.com/mezzo-os/mezzo/sdk/resource"
)

// containerOptions are the flags of `mezzo run` about the container.
type containerOptions struct {
	image, network, pull string
	publish, volumes     []string

	container *mezzov1.ContainerInfo // nil: nothing is asked for
	ports     resource.Resources     // those of the host that are published
}

func (o *containerOptions) add(f *pflag.FlagSet) {
	f.StringVar(&o.image, "image", "", "run in this image: a name as docker has it, or the URL of an archive; without a command, what the image says")
	f.StringVar(&o.network, "network", "", "the container's network: host, none, bridge, or the name of a CNI network (default: host; bridge with --publish)")
	f.StringVar(&o.pull, "pull", "missing", "when to pull the image: always, missing, never")
	f.StringArrayVar(&o.publish, "publish", nil, "HOST:CONTAINER[/udp]: a port of the host that leads to one of the container; may be repeated")
	f.StringArrayVar(&o.volumes, "volume", nil, "HOST:CONTAINER[:ro]: a path of the host to have in the container; may be repeated")
}

var pullPolicies = map[string]mezzov1.ContainerInfo_PullPolicy{
	"always": mezzov1.ContainerInfo_PULL_ALWAYS, "missing": mezzov1.ContainerInfo_PULL_MISSING, "never": mezzov1.ContainerInfo_PULL_NEVER,
}

// check makes the container of what was asked for.
func (o *containerOptions) check() error {
	pull, known := pullPolicies[o.pull]
	switch {
	case !known:
		return usage("--pull %s: always, missing or never", o.pull)
	case o.image == "" && len(o.publish) > 0 && o.network == "":
		return usage("--publish: a container without an image has a network of its own only with --network NAME")
	case o.image == "" && o.pull != "missing":
		return usage("--pull is about an --image")
	case o.image == "" && (o.network == "bridge" || o.network == "none"):
		return usage("--network %s needs an --image; without one: host, or the name of a CNI network", o.network)
	case (o.network == "host" || o.network == "none") && len(o.publish) > 0:
		return usage("--publish has no meaning with --network %s", o.network)
	}
	volumes, err := runVolumes(o.volumes)
	if err != nil {
		return err
	}
	mappings, err := o.mappings()
	if err != nil {
		return err
	}
	if o.network == "" && len(mappings) > 0 {
		o.network = "bridge"
	}
	if o.image != "" {
		o.container = o.docker(mappings)
		o.container.PullPolicy = pull.Enum()
	} else if o.network != "" || len(volumes) > 0 {
		o.container = &mezzov1.ContainerInfo{Type: mezzov1.ContainerInfo_MESOS.Enum()}
	}
	if o.container != nil {
		o.container.Volumes = volumes
	}
	if o.network != "" && o.network != "host" && o.network != "none" && o.network != "bridge" {
		network := &mezzov1.NetworkInfo{Name: proto.String(o.network)}
		if o.image == "" {
			network.PortMappings = mappings
		}
		o.container.NetworkInfos = []*mezzov1.NetworkInfo{network}
	}
	return nil
}

// docker is a container with an image: what is run in it is as with docker run.
func (o *containerOptions) docker(mappings []*mezzov1.NetworkInfo_PortMapping) *mezzov1.ContainerInfo {
	network := mezzov1.ContainerInfo_DockerInfo_USER
	switch o.network {
	case "", "host":
		network = mezzov1.ContainerInfo_DockerInfo_HOST
	case "none":
		network = mezzov1.ContainerInfo_DockerInfo_NONE
	case "bridge":
		network = mezzov1.ContainerInfo_DockerInfo_BRIDGE
	}
	d := &mezzov1.ContainerInfo_DockerInfo{Image: proto.String(o.image), Network: network.Enum()}
	for _, m := range mappings {
		d.PortMappings = append(d.PortMappings, &mezzov1.ContainerInfo_DockerInfo_PortMapping{HostPort: m.HostPort, ContainerPort: m.ContainerPort, Protocol: m.Protocol})
	}
	return &mezzov1.ContainerInfo{Type: mezzov1.ContainerInfo_DOCKER.Enum(), Docker: d}
}

// mappings reads what is to be published, and notes which ports of the host the
// task needs.
func (o *containerOptions) mappings() ([]*mezzov1.NetworkInfo_PortMapping, error) {
	var list []*mezzov1.NetworkInfo_PortMapping
	for _, text := range o.publish {
		ports, protocol, _ := strings.Cut(text, "/")
		host, inside, found := strings.Cut(ports, ":")
		h, hostErr := strconv.ParseUint(host, 10, 16)
		c, insideErr := strconv.ParseUint(inside, 10, 16)
		if protocol == "" {
			protocol = "tcp"
		}
		if !found || hostErr != nil || insideErr != nil || h == 0 || c == 0 || protocol != "tcp" && protocol != "udp" {
			return nil, usage("--publish %s: write HOST:CONTAINER, perhaps with /udp, as in 31080:80", text)
		}
		list = append(list, &mezzov1.NetworkInfo_PortMapping{HostPort: proto.Uint32(uint32(h)), ContainerPort: proto.Uint32(uint32(c)), Protocol: proto.String(protocol)})
		port, err := resource.Parse(fmt.Sprintf("ports:[%d-%d]", h, h))
		if err != nil {
			return nil, err
		}
		o.ports = o.ports.Add(port)
	}
	return list, nil
}

func runVolumes(list []string) ([]*mezzov1.Volume, error) {
	var out []*mezzov1.Volume
	for _, text := range list {
		parts := strings.Split(text, ":")
		mode := mezzov1.Volume_RW
		if len(parts) == 3 && parts[2] == "ro" {
			mode, parts = mezzov1.Volume_RO, parts[:2]
		}
		if len(parts) != 2 || !path.IsAbs(parts[0]) || parts[1] == "" {
			return nil, usage("--volume %s: write HOST:CONTAINER, perhaps with :ro, as in /srv/data:/data:ro", text)
		}
		out = append(out, &mezzov1.Volume{HostPath: proto.String(parts[0]), ContainerPath: proto.String(parts[1]), Mode: mode.Enum()})
	}
	return out, nil
}

// imageName is a task's name by its image.
func imageName(image string) string {
	name := path.Base(image)
	if at := strings.IndexAny(name, ":@"); at > 0 {
		name = name[:at]
	}
	return name
}

// commandInfo is what the tasks run. With an image it is what docker run takes
// after the image's name.
func (o *runOptions) commandInfo() *mezzov1.CommandInfo {
	c := &mezzov1.CommandInfo{Shell: proto.Bool(false), Environment: o.environment, Uris: o.uris}
	switch {
	case o.image != "":
		c.Arguments = o.command
	default:
		c.Value, c.Arguments = proto.String(o.command[0]), o.command
	}
	if o.ownUser {
		c.User = proto.String(o.user)
	}
	return c
}
