package network

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containernetworking/cni/pkg/types"

	isolatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/isolator/v1"
	v1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
)

// resolvConfs are the host's, the one with name servers that are not the host
// itself first: in a namespace of its own a container does not reach those.
var resolvConfs = []string{"/run/systemd/resolve/resolv.conf", "/etc/resolv.conf"}

// writeFiles writes the files for a container's /etc.
func (m *Manager) writeFiles(r Request, rec *record, networks []*v1.NetworkInfo, dns []types.DNS) error {
	resolv, err := m.resolvConf(r, rec, dns)
	if err != nil {
		return err
	}
	hosts, err := hostsFile(r, rec, networks)
	if err != nil {
		return err
	}
	for name, content := range map[string][]byte{"resolv.conf": resolv, "hosts": hosts, "hostname": []byte(rec.Hostname + "\n")} {
		path := filepath.Join(m.dir(r.Container), name)
		if err := os.WriteFile(path, content, 0o644); err != nil {
			return err
		}
		if err := os.Chmod(path, 0o644); err != nil { // whatever the umask is
			return err
		}
	}
	return nil
}

// checkOptions finds what would make a malformed file.
func checkOptions(o *isolatorv1.Options) error {
	for _, s := range o.GetDns() {
		if net.ParseIP(s) == nil {
			return fmt.Errorf("name server %q is no IP address", s)
		}
	}
	for _, s := range slices.Concat(o.GetDnsSearch(), o.GetDnsOptions()) {
		if s == "" || strings.ContainsAny(s, " \t\r\n") {
			return fmt.Errorf("DNS domain or option %q is malformed: want one word", s)
		}
	}
	for _, entry := range o.GetExtraHosts() {
		name, ip, _ := strings.Cut(entry, ":")
		if name == "" || strings.ContainsAny(name, " \t\r\n#") || net.ParseIP(ip) == nil {
			return fmt.Errorf("extra host %q: want NAME:ADDRESS", entry)
		}
	}
	return nil
}

// resolvConf takes each setting from whom it is said first by: the task, the
// networks, the operator, the host.
func (m *Manager) resolvConf(r Request, rec *record, dns []types.DNS) ([]byte, error) {
	servers, search, options := r.Options.GetDns(), r.Options.GetDnsSearch(), r.Options.GetDnsOptions()
	for _, d := range dns {
		if len(servers) == 0 {
			servers = d.Nameservers
		}
		if len(search) == 0 {
			search = d.Search
		}
		if len(search) == 0 && d.Domain != "" {
			search = []string{d.Domain}
		}
		if len(options) == 0 {
			options = d.Options
		}
	}
	if rec.Netns {
		if len(servers) == 0 {
			servers = m.o.Config.DNS
		}
		if len(search) == 0 {
			search = m.o.Config.DNSSearch
		}
	}
	if len(servers) == 0 {
		host, err := readResolvConf(rec.Netns)
		if err != nil {
			return nil, err
		}
		servers = host.servers
		if len(search) == 0 {
			search = host.search
		}
		if len(options) == 0 {
			options = host.options
		}
		if rec.Netns && len(servers) == 0 && len(rec.Attachments) > 0 {
			m.o.Logger.Warn("the container has no name server: those of the host are the host itself; set dns in the isolator's configuration", "container_id", r.Container)
		}
	}
	var out bytes.Buffer
	if len(search) > 0 {
		fmt.Fprintln(&out, "search", strings.Join(search, " "))
	}
	for _, s := range servers {
		fmt.Fprintln(&out, "nameserver", s)
	}
	if len(options) > 0 {
		fmt.Fprintln(&out, "options", strings.Join(options, " "))
	}
	return out.Bytes(), nil
}

type resolv struct{ servers, search, options []string }

// readResolvConf reads the host's name servers, without those on the host
// itself where they cannot be reached.
func readResolvConf(ownNetns bool) (resolv, error) {
	files := resolvConfs
	if !ownNetns {
		files = files[len(files)-1:]
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if os.IsNotExist(err) {
			continue
		}
		if err != nil {
			return resolv{}, err
		}
		return parseResolvConf(string(text), ownNetns), nil
	}
	return resolv{}, nil
}

func parseResolvConf(text string, ownNetns bool) (out resolv) {
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) < 2 {
			continue
		}
		switch fields[0] {
		case "nameserver":
			a, err := netip.ParseAddr(fields[1])
			if err != nil || ownNetns && a.IsLoopback() {
				continue
			}
			out.servers = append(out.servers, fields[1])
		case "search", "domain":
			out.search = fields[1:]
		case "options":
			out.options = append(out.options, fields[1:]...)
		}
	}
	return out
}

// hostsFile is the host's own for the host's network, and names the container in
// others; with what the task adds.
func hostsFile(r Request, rec *record, networks []*v1.NetworkInfo) ([]byte, error) {
	var out bytes.Buffer
	if rec.Netns {
		out.WriteString("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n")
		named := false
		for _, n := range networks {
			for _, ip := range n.GetIpAddresses() {
				fmt.Fprintf(&out, "%s\t%s\n", ip.GetIpAddress(), rec.Hostname)
				named = true
			}
		}
		if !named {
			fmt.Fprintf(&out, "127.0.1.1\t%s\n", rec.Hostname)
		}
	} else {
		text, err := os.ReadFile("/etc/hosts")
		if err != nil && !os.IsNotExist(err) {
			return nil, err
		}
		out.Write(text)
		if len(text) > 0 && text[len(text)-1] != '\n' {
			out.WriteByte('\n')
		}
	}
	for _, entry := range r.Options.GetExtraHosts() {
		name, ip, _ := strings.Cut(entry, ":")
		fmt.Fprintf(&out, "%s\t%s\n", ip, name)
	}
	return out.Bytes(), nil
}
