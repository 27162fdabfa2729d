package main

import (
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/mezzo-os/mezzo/plugins/internal/holder"
	isolatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/isolator/v1"
	v1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
)

// network makes the container's network, where it is not one that the runtime
// makes by itself, and the files by which it finds names.
func (m *maker) network(context.Context) ([]*v1.NetworkInfo, string, error) {
	switch mode := m.r.GetTask().GetNetwork().GetMode(); mode {
	case isolatorv1.Network_MODE_BRIDGE, isolatorv1.Network_MODE_NAMED:
		return nil, "", status.Errorf(codes.InvalidArgument, "isolator containerd has no network for %v", mode)
	}
	return nil, "", m.names()
}

// disconnect gives back what network has made outside the container.
func (p *plug) disconnect(context.Context, *holder.Container) error { return nil }

// names writes the container's /etc/hosts, /etc/hostname and /etc/resolv.conf,
// which are the host's where it is in the host's network and asks for nothing.
func (m *maker) names() error {
	t := m.r.GetTask()
	if t.GetSandboxOnly() || m.imageOf(t) == "" {
		return nil // no process; the host's own files
	}
	o := t.GetOptions()
	hosts, err := os.ReadFile("/etc/hosts")
	if err != nil || m.own() {
		hosts = []byte("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n")
	}
	if m.s.Hostname != "" && m.own() {
		hosts = fmt.Appendf(hosts, "127.0.0.1\t%s\n", m.s.Hostname)
	}
	for _, text := range o.GetExtraHosts() {
		host, address, ok := strings.Cut(text, ":")
		if !ok || host == "" || address == "" {
			return status.Errorf(codes.InvalidArgument, "extra host %q: want HOST:ADDRESS", text)
		}
		hosts = fmt.Appendf(hosts, "%s\t%s\n", address, host)
	}
	resolv, err := os.ReadFile("/etc/resolv.conf")
	if err != nil {
		resolv = nil // a host without a resolver
	}
	files := map[string][]byte{"hosts": hosts, "resolv.conf": resolver(resolv, o.GetDns(), o.GetDnsSearch(), o.GetDnsOptions())}
	if m.s.Hostname != "" {
		files["hostname"] = []byte(m.s.Hostname + "\n")
	}
	for _, name := range []string{"hosts", "resolv.conf", "hostname"} {
		text, ok := files[name]
		if !ok || m.mounted("/etc/"+name) {
			continue
		}
		path := m.c.File(name)
		if err := os.WriteFile(path, text, 0o644); err != nil {
			return err
		}
		m.s.Mounts = append(m.s.Mounts, specs.Mount{Destination: "/etc/" + name, Type: "bind", Source: path, Options: []string{"rbind", "rw"}})
	}
	return nil
}

// own is whether the container has a network of its own.
func (m *maker) own() bool { return isNew(m.s, specs.NetworkNamespace) }

func (m *maker) mounted(path string) bool {
	for _, have := range m.s.Mounts {
		if have.Destination == path {
			return true
		}
	}
	return false
}

// resolver puts what a task asks for in the place of what the host has.
func resolver(host []byte, servers, search, options []string) []byte {
	if len(servers)+len(search)+len(options) == 0 {
		return host
	}
	var b strings.Builder
	replaced := map[string]bool{"nameserver": len(servers) > 0, "search": len(search) > 0, "domain": len(search) > 0, "options": len(options) > 0}
	for line := range strings.Lines(string(host)) {
		if f := strings.Fields(line); len(f) > 0 && !replaced[f[0]] {
			b.WriteString(strings.TrimRight(line, "\n") + "\n")
		}
	}
	for _, s := range servers {
		b.WriteString("nameserver " + s + "\n")
	}
	if len(search) > 0 {
		b.WriteString("search " + strings.Join(search, " ") + "\n")
	}
	if len(options) > 0 {
		b.WriteString("options " + strings.Join(options, " ") + "\n")
	}
	return []byte(b.String())
}
