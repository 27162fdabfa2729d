package main

import (
	"context"
	"os"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/mezzo-os/mezzo/plugins/internal/holder"
	"github.com/mezzo-os/mezzo/plugins/isolator-containerd/network"
	isolatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/isolator/v1"
)

// wantedNetwork is the network that a task asks for.
func wantedNetwork(id string, t *isolatorv1.Task) network.Request {
	r := network.Request{Container: id, Parent: t.GetParent(), Network: t.GetNetwork(), Options: t.GetOptions(), Resources: t.GetResources()}
	if t.GetParent() != "" && r.Network.GetMode() == isolatorv1.Network_MODE_UNSPECIFIED {
		r.Network = &isolatorv1.Network{Mode: isolatorv1.Network_MODE_PARENT}
	}
	return r
}

// network makes the container's network, and has it find the names that go with
// it. One that an isolator before has chosen stays: of ours are then the names.
func (m *maker) network(ctx context.Context) error {
	r := wantedNetwork(m.c.ID, m.r.GetTask())
	if i := namespaceOf(m.s, specs.NetworkNamespace); i >= 0 && m.s.Linux.Namespaces[i].Path != "" && r.Parent == "" {
		r.Network = &isolatorv1.Network{Mode: isolatorv1.Network_MODE_HOST}
	}
	r.Hostname = m.s.Hostname
	if r.Hostname == "" && r.Parent != "" { // its parent's
		if n, err := m.networks.Get(r.Parent); err == nil {
			r.Hostname = n.Hostname
		}
	}
	n, err := m.networks.Setup(ctx, r)
	if err != nil {
		return status.Error(codes.FailedPrecondition, err.Error())
	}
	if n.Netns != "" {
		setNamespace(m.s, specs.NetworkNamespace, n.Netns, true)
	}
	m.names(n)
	m.networked, m.netns = n.Networks, n.Netns
	return nil
}

// names mounts the files by which the container finds names. In the host's root
// file system, which may have links there, it is done where they differ.
func (m *maker) names(n *network.Network) {
	t := m.r.GetTask()
	if t.GetSandboxOnly() {
		return // no process
	}
	for path, source := range map[string]string{"/etc/hosts": n.Hosts, "/etc/hostname": n.HostnameFile, "/etc/resolv.conf": n.ResolvConf} {
		if slices.ContainsFunc(m.s.Mounts, func(have specs.Mount) bool { return have.Destination == path }) {
			continue
		}
		if m.imageOf(t) == "" {
			if info, err := os.Lstat(path); n.Netns == "" || err != nil || !info.Mode().IsRegular() {
				continue
			}
		}
		m.s.Mounts = append(m.s.Mounts, specs.Mount{Destination: path, Type: "bind", Source: source, Options: []string{"rbind", "rw"}})
	}
}

// namespaceOf is where a container's namespace of a kind is; -1: it has none.
func namespaceOf(s *specs.Spec, kind specs.LinuxNamespaceType) int {
	return slices.IndexFunc(s.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == kind })
}

// disconnect gives back what network has made outside the container.
func (p *plug) disconnect(ctx context.Context, c *holder.Container) error {
	if err := p.networks.Teardown(ctx, c.ID); err != nil {
		return status.Error(codes.FailedPrecondition, err.Error())
	}
	return nil
}
