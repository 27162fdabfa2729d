package network

import (
	"net"
	"net/netip"
	"path/filepath"
	"regexp"
	"strconv"

	"github.com/mezzo-os/mezzo/sdk/plugin"
)

// Settings are what the operator says of networks; they are part of the plugin's
// config block.
type Settings struct {
	ConfDir   string   `hcl:"cni_conf_dir" default:"/etc/cni/net.d" help:"Where the configurations of CNI networks are; an absolute path. It is read for each container."`
	BinDirs   []string `hcl:"cni_bin_dirs" default:"[\"/opt/cni/bin\",\"/usr/lib/cni\"]" help:"Where CNI plugins are; absolute paths."`
	Bridge    string   `hcl:"bridge" default:"mezzo0" help:"The bridge that containers of the network BRIDGE are on; it is made when it is first needed."`
	Subnet    string   `hcl:"bridge_subnet" default:"10.90.0.0/16" help:"The addresses on the bridge, a network of IPv4."`
	DNS       []string `hcl:"dns" help:"The name servers of containers with a network of their own, where neither the task nor the network names any. By default the host's."`
	DNSSearch []string `hcl:"dns_search" help:"The domains that containers with a network of their own search for short names, where the task names none. By default the host's, where its name servers are used."`
}

// validDevice is how network devices may be called; the kernel takes 15 bytes.
var validDevice = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,14}$`)

// minHosts is how many addresses a bridge is worth making for.
const minHosts = 8

// Validate finds what can never work, on any host.
func (c *Settings) Validate() (ds []plugin.Diagnostic) {
	if !filepath.IsAbs(c.ConfDir) {
		ds = append(ds, plugin.Errorf("relative path", "cni_conf_dir", "%q: want an absolute path.", c.ConfDir))
	}
	for i, dir := range c.BinDirs {
		if !filepath.IsAbs(dir) {
			ds = append(ds, plugin.Errorf("relative path", "cni_bin_dirs."+strconv.Itoa(i), "%q: want an absolute path.", dir))
		}
	}
	if !validDevice.MatchString(c.Bridge) {
		ds = append(ds, plugin.Errorf("no device", "bridge", "%q: want a name of at most 15 letters, digits, dashes and dots.", c.Bridge))
	}
	if p, err := netip.ParsePrefix(c.Subnet); err != nil || !p.Addr().Is4() || p.Masked() != p || 1<<(32-p.Bits()) < minHosts {
		ds = append(ds, plugin.Errorf("no network", "bridge_subnet", "%q: want a network of IPv4 with at least %d addresses, such as 10.90.0.0/16.", c.Subnet, minHosts))
	}
	for i, text := range c.DNS {
		if net.ParseIP(text) == nil {
			ds = append(ds, plugin.Errorf("no address", "dns."+strconv.Itoa(i), "%q: want an IP address.", text))
		}
	}
	return ds
}
