package main

import (
	"context"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"tags.cncf.io/container-device-interface/pkg/cdi"
	"tags.cncf.io/container-device-interface/pkg/parser"
)

// device is a file of the host's /dev that a container is to have.
type device struct{ host, container, access string }

// wantedDevices are those that a task asks for.
type wantedDevices struct {
	files []device
	cdi   []string // qualified names of the Container Device Interface
}

// devices reads what a task asks for: "HOST[:CONTAINER[:PERMISSIONS]]", or a CDI
// name. Those that the operator does not allow are refused.
func (p *plug) devices(asked []string) (w wantedDevices, err error) {
	for _, text := range asked {
		if parser.IsQualifiedName(text) {
			vendor, class, _, err := parser.ParseQualifiedName(text)
			if err != nil || !p.allowed(vendor+"/"+class) && !p.allowed(text) {
				return w, refused(text)
			}
			w.cdi = append(w.cdi, text)
			continue
		}
		parts := strings.Split(text, ":")
		d := device{host: parts[0], container: parts[0], access: "rwm"}
		if len(parts) > 1 && parts[1] != "" {
			d.container = parts[1]
		}
		if len(parts) > 2 {
			d.access = parts[2]
		}
		if len(parts) > 3 || !filepath.IsAbs(d.host) || !filepath.IsAbs(d.container) || d.access == "" || strings.Trim(d.access, "rwm") != "" {
			return w, status.Errorf(codes.InvalidArgument, "device %q: want HOST[:CONTAINER[:rwm]] or a CDI name such as vendor.com/class=name", text)
		}
		if !p.allowed(filepath.Clean(d.host)) {
			return w, refused(d.host)
		}
		w.files = append(w.files, d)
	}
	return w, nil
}

func (p *plug) allowed(name string) bool {
	return p.config.Privileged || slices.Contains(p.config.Devices, name)
}

func refused(name string) error {
	return status.Errorf(codes.InvalidArgument, "the task asks for device %s, which is not among this agent's allowed_devices", name)
}

// devices gives the container those that its task asks for, and keeps what
// isolators before have given it.
func (b *builder) devices(ctx context.Context) error {
	s := b.spec
	s.Hooks, s.Linux.IntelRdt = b.given.Hooks, b.given.Linux.IntelRdt
	s.Linux.Devices = append(s.Linux.Devices, b.given.Linux.Devices...)
	if b.task.GetSandboxOnly() { // no process of a task is in it, and what is nested in it may have what it may
		s.Linux.Resources.Devices = append([]specs.LinuxDeviceCgroup{{Allow: true, Access: "rwm"}}, b.given.Linux.Resources.Devices...)
		return nil
	}
	w, err := b.plug.devices(b.task.GetOptions().GetDevices())
	if err != nil {
		return err
	}
	for _, d := range w.files {
		if err := oci.ApplyOpts(ctx, nil, nil, s, oci.WithDevices(d.host, d.container, d.access)); err != nil {
			return status.Errorf(codes.InvalidArgument, "device %s: %v", d.host, err)
		}
	}
	if len(w.cdi) > 0 {
		b.refreshCDI()
		if _, err := b.cdi.InjectDevices(s, w.cdi...); err != nil {
			return status.Errorf(codes.InvalidArgument, "devices %s: %v", strings.Join(w.cdi, ", "), err)
		}
	}
	return nil
}

// newCDI reads devices from the operator's directories.
func newCDI(dirs []string) (*cdi.Cache, error) {
	options := []cdi.Option{cdi.WithAutoRefresh(false)}
	if len(dirs) > 0 {
		options = append(options, cdi.WithSpecDirs(dirs...))
	}
	return cdi.NewCache(options...)
}
