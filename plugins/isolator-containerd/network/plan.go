package network

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containernetworking/cni/libcni"
	"google.golang.org/protobuf/encoding/protojson"

	isolatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/isolator/v1"
	v1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
)

// plan is what a request comes to; it makes nothing.
func (m *Manager) plan(r Request) (*record, error) {
	if err := checkOptions(r.Options); err != nil {
		return nil, err
	}
	rec := &record{Version: recordVersion, Hostname: r.Hostname}
	mode, networks := r.Network.GetMode(), r.Network.GetNetworks()
	switch mode {
	case isolatorv1.Network_MODE_HOST, isolatorv1.Network_MODE_UNSPECIFIED, isolatorv1.Network_MODE_NONE:
		for _, n := range networks {
			if len(n.GetPortMappings()) > 0 {
				return nil, fmt.Errorf("port mappings need a network of the container's own, BRIDGE or one by name")
			}
		}
		if rec.Netns = mode == isolatorv1.Network_MODE_NONE; rec.Netns {
			break
		}
		if rec.Hostname == "" {
			name, err := os.Hostname()
			if err != nil {
				return nil, err
			}
			rec.Hostname = name
		}
	case isolatorv1.Network_MODE_BRIDGE, isolatorv1.Network_MODE_NAMED:
		if len(networks) == 0 {
			return nil, fmt.Errorf("the task names no network")
		}
		rec.Netns = true
		for i, n := range networks {
			a, err := m.attachment(mode, n, i, r.Resources)
			if err != nil {
				return nil, err
			}
			if slices.ContainsFunc(rec.Attachments, func(b attachment) bool { return a.Network == b.Network }) {
				return nil, fmt.Errorf("network %q is named twice", a.Network)
			}
			rec.Attachments = append(rec.Attachments, a)
		}
	default:
		return nil, fmt.Errorf("network mode %v is not one that this agent knows", mode)
	}
	if rec.Hostname == "" {
		rec.Hostname = hostnameOf(r.Container)
	}
	return rec, nil
}

// hostnameOf makes a host name of a container's id: at most 63 letters, digits
// and dashes.
func hostnameOf(container string) string {
	name := strings.Map(func(c rune) rune {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
			return c
		}
		return '-'
	}, container)
	return strings.Trim(name[:min(len(name), 63)], "-")
}

func (m *Manager) attachment(mode isolatorv1.Network_Mode, n *v1.NetworkInfo, index int, resources []*v1.Resource) (attachment, error) {
	a := attachment{Network: n.GetName(), Interface: fmt.Sprintf("eth%d", index)}
	var err error
	if mode == isolatorv1.Network_MODE_BRIDGE {
		a.Network = m.o.Config.Bridge
		a.Config, err = m.bridgeConfig()
	} else {
		a.Config, err = m.find(a.Network)
	}
	if err != nil {
		return a, err
	}
	list, err := libcni.NetworkConfFromBytes(a.Config)
	if err != nil {
		return a, fmt.Errorf("network %q: %w", a.Network, err)
	}
	if a.Ports, err = portsOf(n, resources); err != nil {
		return a, fmt.Errorf("network %q: %w", a.Network, err)
	}
	if len(a.Ports) > 0 && !capable(list, "portMappings") {
		return a, fmt.Errorf("network %q maps no ports: none of its plugins has the capability portMappings", a.Network)
	}
	for _, ip := range n.GetIpAddresses() {
		if text := ip.GetIpAddress(); text != "" {
			if _, err := netip.ParseAddr(text); err != nil {
				return a, fmt.Errorf("network %q: %q is no IP address", a.Network, text)
			}
			a.IPs = append(a.IPs, text)
		}
	}
	if len(a.IPs) > 0 && !capable(list, "ips") {
		return a, fmt.Errorf("network %q gives no addresses on request: none of its plugins has the capability ips", a.Network)
	}
	a.Info, err = protojson.Marshal(n)
	return a, err
}

func capable(list *libcni.NetworkConfigList, capability string) bool {
	return slices.ContainsFunc(list.Plugins, func(p *libcni.PluginConfig) bool { return p.Network.Capabilities[capability] })
}

// portsOf are a network's port mappings; the host's ports must be the task's.
func portsOf(n *v1.NetworkInfo, resources []*v1.Resource) ([]portMapping, error) {
	var out []portMapping
	for _, p := range n.GetPortMappings() {
		x := portMapping{HostPort: p.GetHostPort(), ContainerPort: p.GetContainerPort(), Protocol: strings.ToLower(p.GetProtocol())}
		if x.Protocol == "" {
			x.Protocol = "tcp"
		}
		switch {
		case x.Protocol != "tcp" && x.Protocol != "udp" && x.Protocol != "sctp":
			return nil, fmt.Errorf("port mapping of protocol %q: want tcp, udp or sctp", p.GetProtocol())
		case x.ContainerPort < 1 || x.ContainerPort > 65535:
			return nil, fmt.Errorf("container port %d: want 1 to 65535", x.ContainerPort)
		case !owns(resources, x.HostPort):
			return nil, fmt.Errorf("host port %d is not among the task's ports (%s): ask for it as a resource", x.HostPort, portText(resources))
		}
		for _, y := range out {
			if y.HostPort == x.HostPort && y.Protocol == x.Protocol {
				return nil, fmt.Errorf("host port %d is mapped twice", x.HostPort)
			}
		}
		out = append(out, x)
	}
	return out, nil
}

func owns(resources []*v1.Resource, port uint32) bool {
	for _, r := range portRanges(resources) {
		if uint64(port) >= r.GetBegin() && uint64(port) <= r.GetEnd() {
			return true
		}
	}
	return false
}

func portRanges(resources []*v1.Resource) []*v1.Value_Range {
	var out []*v1.Value_Range
	for _, r := range resources {
		if r.GetName() == "ports" {
			out = append(out, r.GetRanges().GetRange()...)
		}
	}
	return out
}

func portText(resources []*v1.Resource) string {
	var list []string
	for _, r := range portRanges(resources) {
		list = append(list, fmt.Sprintf("%d-%d", r.GetBegin(), r.GetEnd()))
	}
	if len(list) == 0 {
		return "it has none"
	}
	return strings.Join(list, ", ")
}

// bridgeConfig is the network of the isolator's own bridge.
func (m *Manager) bridgeConfig() (json.RawMessage, error) {
	ipam := map[string]any{
		"type":   "host-local",
		"ranges": [][]map[string]string{{{"subnet": m.o.Config.Subnet}}},
		"routes": []map[string]string{{"dst": "0.0.0.0/0"}},
	}
	if m.o.LeaseDir != "" {
		ipam["dataDir"] = m.o.LeaseDir
	}
	return json.Marshal(map[string]any{
		"cniVersion": "1.0.0", "name": m.o.Config.Bridge,
		"plugins": []map[string]any{
			{"type": "bridge", "bridge": m.o.Config.Bridge, "isGateway": true, "ipMasq": true, "hairpinMode": true, "ipam": ipam},
			{"type": "portmap", "capabilities": map[string]bool{"portMappings": true}},
			// Hosts that let nothing pass, as those with Docker, let this pass.
			{"type": "firewall"},
		},
	})
}

// find returns the configuration of a network by its name.
func (m *Manager) find(name string) (json.RawMessage, error) {
	if name == "" {
		return nil, fmt.Errorf("a network has no name")
	}
	files, err := libcni.ConfFiles(m.o.Config.ConfDir, []string{".conflist", ".conf", ".json"})
	if err != nil && !os.IsNotExist(err) {
		return nil, fmt.Errorf("the agent's networks cannot be read: %w", err)
	}
	slices.Sort(files)
	var names []string
	for _, file := range files {
		config, found, err := parse(file)
		switch {
		case err != nil:
			m.o.Logger.Warn("a network's configuration is malformed", "file", file, "error", err)
			if found == name {
				return nil, fmt.Errorf("network %q: its configuration %s: %w", name, file, err)
			}
		case found == name:
			return config, nil
		default:
			names = append(names, found)
		}
	}
	if len(names) == 0 {
		return nil, fmt.Errorf("network %q: the agent has no networks in %s", name, m.o.Config.ConfDir)
	}
	slices.Sort(names)
	return nil, fmt.Errorf("network %q: the agent has no such network, but %s", name, strings.Join(slices.Compact(names), ", "))
}

// parse reads a network's configuration; that of a single plugin becomes a list
// of one. The name is there as far as the file tells it.
func parse(file string) (json.RawMessage, string, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, "", err
	}
	var head struct {
		Name, CNIVersion string
		Type             string
	}
	if err := json.Unmarshal(text, &head); err != nil {
		return nil, "", err
	}
	if filepath.Ext(file) != ".conflist" && head.Type != "" {
		text, err = json.Marshal(map[string]any{"name": head.Name, "cniVersion": head.CNIVersion, "plugins": []json.RawMessage{text}})
		if err != nil {
			return nil, head.Name, err
		}
	}
	list, err := libcni.NetworkConfFromBytes(text)
	if err != nil {
		return nil, head.Name, err
	}
	return text, list.Name, nil
}
