package command

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/mezzo-os/mezzo/config"
)

// containerdSocket is where containerd usually listens.
const containerdSocket = "/run/containerd/containerd.sock"

// checkContainerd says why agents could not run images on this machine: what the
// agents would say of it themselves, again and again, is no use to a newcomer.
func (d *dev) checkContainerd() error {
	if d.o.containerd == "" {
		return nil
	}
	if !filepath.IsAbs(d.o.containerd) {
		return usage("--containerd=%s: give the absolute path of containerd's socket", d.o.containerd)
	}
	if os.Geteuid() != 0 {
		return usage("--containerd: containers need an agent that runs as root; try sudo %s dev --containerd", d.exe)
	}
	conn, err := net.DialTimeout("unix", d.o.containerd, 2*time.Second)
	if err != nil {
		return fmt.Errorf("--containerd: no containerd answers at %s: %w; install it and start it (on Debian: apt-get install containerd; systemctl start containerd), or give its socket with --containerd=PATH",
			d.o.containerd, err)
	}
	return conn.Close()
}

// checkIsolators refuses isolators that are given twice.
func (d *dev) checkIsolators(isolators []config.Plugin) error {
	byFile := slices.ContainsFunc(isolators, func(p config.Plugin) bool { return p.DefRange.Filename != "" })
	if d.o.containerd != "" && byFile {
		return usage("--containerd: the configuration has isolators already; add isolator \"containerd\" {} to them there")
	}
	return nil
}

// containerdConfig writes the isolators of an agent that also runs images, and
// returns how it is told of them. The namespace is the same each time, so that
// images are there the next time, too.
func (d *dev) containerdConfig(agent int) ([]string, error) {
	if d.o.containerd == "" {
		return nil, nil
	}
	path := filepath.Join(d.o.dir, fmt.Sprintf("agent%d-isolators.hcl", agent))
	text := fmt.Sprintf("# Written by mezzo dev.\nisolator \"cgroups\" {}\n\nisolator \"containerd\" {\n  config {\n    address   = %q\n    namespace = \"mezzo-dev-%d\"\n  }\n}\n", d.o.containerd, agent)
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		return nil, fmt.Errorf("configure the isolators: %w", err)
	}
	return []string{"--config", path}, nil
}
