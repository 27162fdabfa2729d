package containerinfo

import (
	"errors"
	"fmt"
	"math"
	"path"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/protobuf/proto"

	isolatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/isolator/v1"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
)

// docker reads a container of type DOCKER.
func (w *Wish) docker(info *mezzov1.ContainerInfo) error {
	d := info.GetDocker()
	switch {
	case d == nil:
		return errors.New("the container is of type DOCKER and has no docker part")
	case info.GetMesos() != nil:
		return errors.New("the container is of type DOCKER and has a mesos part: the image of type DOCKER is docker.image")
	case d.GetVolumeDriver() != "":
		return fmt.Errorf("docker.volume_driver %q is not supported", d.GetVolumeDriver())
	}
	pull := isolatorv1.TaskImage_PULL_MISSING
	if d.GetForcePullImage() {
		pull = isolatorv1.TaskImage_PULL_ALWAYS
	}
	if err := w.image(d.GetImage(), pull); err != nil {
		return err
	}
	if d.GetPrivileged() {
		w.options().Privileged = true
	}
	if err := w.dockerNetwork(info); err != nil {
		return err
	}
	for _, p := range d.GetParameters() {
		if err := w.parameter(info, p.GetKey(), p.GetValue()); err != nil {
			return fmt.Errorf("docker parameter %q: %w", p.GetKey(), err)
		}
	}
	return nil
}

func (w *Wish) dockerNetwork(info *mezzov1.ContainerInfo) error {
	d := info.GetDocker()
	mappings := make([]*mezzov1.NetworkInfo_PortMapping, len(d.GetPortMappings()))
	for i, p := range d.GetPortMappings() {
		mappings[i] = &mezzov1.NetworkInfo_PortMapping{HostPort: p.HostPort, ContainerPort: p.ContainerPort, Protocol: p.Protocol}
	}
	switch n := d.GetNetwork(); n {
	case mezzov1.ContainerInfo_DockerInfo_HOST, mezzov1.ContainerInfo_DockerInfo_NONE:
		if len(mappings) > 0 {
			return fmt.Errorf("docker.network is %v and there are port mappings: they are for BRIDGE and USER", n)
		}
		if n == mezzov1.ContainerInfo_DockerInfo_NONE {
			w.Network = &isolatorv1.Network{Mode: isolatorv1.Network_MODE_NONE}
		}
	case mezzov1.ContainerInfo_DockerInfo_BRIDGE:
		w.Network = &isolatorv1.Network{Mode: isolatorv1.Network_MODE_BRIDGE, Networks: []*mezzov1.NetworkInfo{{PortMappings: mappings}}}
	case mezzov1.ContainerInfo_DockerInfo_USER:
		if err := w.named(info.GetNetworkInfos(), true); err != nil {
			return err
		}
		if len(mappings) > 0 {
			first := proto.CloneOf(w.Network.Networks[0])
			first.PortMappings = append(first.PortMappings, mappings...)
			w.Network.Networks = append([]*mezzov1.NetworkInfo{first}, w.Network.Networks[1:]...)
		}
	default:
		return fmt.Errorf("docker.network %v is not known", n)
	}
	return nil
}

// parameter reads an option of `docker run`, without its dashes.
func (w *Wish) parameter(info *mezzov1.ContainerInfo, key, value string) error {
	o := w.options()
	switch key {
	case "privileged":
		return flag(value, &o.Privileged)
	case "read-only":
		return flag(value, &o.ReadOnly)
	case "cap-add", "cap-drop":
		list := &o.CapAdd
		if key == "cap-drop" {
			list = &o.CapDrop
		}
		*list = append(*list, strings.TrimPrefix(strings.ToUpper(value), "CAP_"))
	case "workdir", "w":
		if !path.IsAbs(value) {
			return fmt.Errorf("%q is not an absolute path", value)
		}
		o.Workdir = value
	case "entrypoint":
		o.Entrypoint = value
	case "user", "u":
		o.User = value
	case "stop-signal":
		o.StopSignal = value
	case "tmpfs":
		o.Tmpfs = append(o.Tmpfs, value)
	case "shm-size":
		return size(value, &o.ShmBytes)
	case "dns":
		o.Dns = append(o.Dns, value)
	case "dns-search":
		o.DnsSearch = append(o.DnsSearch, value)
	case "dns-opt", "dns-option":
		o.DnsOptions = append(o.DnsOptions, value)
	case "add-host":
		if host, ip, found := strings.Cut(value, ":"); !found || host == "" || ip == "" {
			return fmt.Errorf("%q is not HOST:IP", value)
		}
		o.ExtraHosts = append(o.ExtraHosts, value)
	case "device":
		o.Devices = append(o.Devices, value)
	case "security-opt":
		o.Security = append(o.Security, value)
	case "sysctl":
		if name, _, found := strings.Cut(value, "="); !found || name == "" {
			return fmt.Errorf("%q is not NAME=VALUE", value)
		}
		o.Sysctls = append(o.Sysctls, value)
	case "pid":
		return hostNamespace(value, &o.HostPid)
	case "ipc":
		return hostNamespace(value, &o.HostIpc)
	case "hostname", "h":
		w.own(info).Hostname = proto.String(value)
	case "env", "e":
		name, text, found := strings.Cut(value, "=")
		if !found || name == "" {
			return fmt.Errorf("%q is not NAME=VALUE", value)
		}
		w.Environment = append(w.Environment, &mezzov1.Environment_Variable{Name: proto.String(name), Value: proto.String(text)})
	case "volume", "v":
		volume, err := volume(value)
		if err != nil {
			return err
		}
		c := w.own(info)
		c.Volumes = append(c.Volumes, volume)
	case "ulimit":
		limit, err := ulimit(value)
		if err != nil {
			return err
		}
		c := w.own(info)
		if c.RlimitInfo == nil {
			c.RlimitInfo = &mezzov1.RLimitInfo{}
		}
		c.RlimitInfo.Rlimits = append(c.RlimitInfo.Rlimits, limit)
	case "label", "l", "rm", "init":
		// They are about Docker's own bookkeeping, which there is none of.
	default:
		return errors.New("it is not supported here")
	}
	return nil
}

func flag(value string, to *bool) error {
	if value == "" {
		*to = true
		return nil
	}
	v, err := strconv.ParseBool(value)
	if err != nil {
		return fmt.Errorf("%q is neither true nor false", value)
	}
	*to = v
	return nil
}

// hostNamespace reads the name of a namespace: the host's, or one of its own.
func hostNamespace(value string, to *bool) error {
	switch value {
	case "host":
		*to = true
	case "", "private", "shareable":
	default:
		return fmt.Errorf("%q is not supported: host, or none for one of its own", value)
	}
	return nil
}

// size reads bytes as docker takes them: 64m.
func size(value string, to *uint64) error {
	digits := strings.TrimRight(strings.ToLower(value), "bkmgt")
	n, err := strconv.ParseUint(digits, 10, 64)
	shift := map[string]uint{"": 0, "b": 0, "k": 10, "kb": 10, "m": 20, "mb": 20, "g": 30, "gb": 30, "t": 40, "tb": 40}
	by, known := shift[strings.ToLower(value[len(digits):])]
	if err != nil || !known || n > math.MaxInt64>>by {
		return fmt.Errorf("%q is not a size such as 64m", value)
	}
	*to = n << by
	return nil
}

// volume reads HOST:CONTAINER[:MODE].
func volume(value string) (*mezzov1.Volume, error) {
	parts := strings.Split(value, ":")
	if len(parts) < 2 || len(parts) > 3 || !path.IsAbs(parts[0]) || !path.IsAbs(parts[1]) {
		return nil, fmt.Errorf("%q is not /HOST:/CONTAINER[:ro]; Docker's own volumes are not supported", value)
	}
	v := &mezzov1.Volume{HostPath: proto.String(parts[0]), ContainerPath: proto.String(parts[1]), Mode: mezzov1.Volume_RW.Enum()}
	if len(parts) == 3 {
		for _, option := range strings.Split(parts[2], ",") {
			switch option {
			case "ro":
				v.Mode = mezzov1.Volume_RO.Enum()
			case "rw":
			default:
				return nil, fmt.Errorf("%q: option %q is not supported; ro and rw are", value, option)
			}
		}
	}
	return v, nil
}

// ulimit reads NAME=SOFT[:HARD]; -1 is no limit.
func ulimit(value string) (*mezzov1.RLimitInfo_RLimit, error) {
	wrong := fmt.Errorf("%q is not NAME=SOFT[:HARD]", value)
	name, limits, found := strings.Cut(value, "=")
	number, known := mezzov1.RLimitInfo_RLimit_Type_value["RLMT_"+strings.ToUpper(name)]
	if !found || !known {
		return nil, wrong
	}
	soft, hard, both := strings.Cut(limits, ":")
	if !both {
		hard = soft
	}
	l := &mezzov1.RLimitInfo_RLimit{Type: mezzov1.RLimitInfo_RLimit_Type(number).Enum()}
	if soft == "-1" && hard == "-1" {
		return l, nil // neither: no limit
	}
	values := make([]uint64, 2)
	for i, text := range []string{soft, hard} {
		if text == "-1" || text == "unlimited" {
			values[i] = math.MaxUint64
			continue
		}
		n, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			return nil, wrong
		}
		values[i] = n
	}
	if !slices.IsSorted(values) {
		return nil, fmt.Errorf("%q: the soft limit is above the hard one", value)
	}
	l.Soft, l.Hard = proto.Uint64(values[0]), proto.Uint64(values[1])
	return l, nil
}
