package network_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/hashicorp/go-hclog"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/mezzo-os/mezzo/plugins/isolator-containerd/network"
	isolatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/isolator/v1"
	v1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// host is a host of the test's own: a network namespace, in which the test's
// goroutine is from then on, so that bridges, addresses, forwarding and packet
// filters are nobody else's.
type host struct {
	*network.Manager
	t       *testing.T
	options network.Options
	ns      int // the namespace
}

// newHost makes a host. It skips where that cannot be; in CI that is a failure.
func newHost(t *testing.T) *host {
	t.Helper()
	why := ""
	if os.Geteuid() != 0 {
		why = "network namespaces need root"
	}
	for _, program := range []string{"ip", "nsenter", "iptables", "busybox", "/usr/lib/cni/bridge"} {
		if _, err := exec.LookPath(program); err != nil {
			why = program + " is not installed: run make deps"
		}
	}
	switch {
	case why != "" && os.Getenv("CI") == "true":
		t.Fatal(why)
	case why != "":
		t.Skip(why)
	}
	// Never unlocked: the thread ends with the test.
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatal(err)
	}
	h := &host{t: t}
	h.run("ip", "link", "set", "lo", "up")
	var err error
	if h.ns, err = unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(h.ns) })
	dir := t.TempDir()
	h.options = network.Options{
		Dir: filepath.Join(dir, "net"), LeaseDir: filepath.Join(dir, "leases"), Logger: hclog.NewNullLogger(),
		Config: network.Settings{
			ConfDir: filepath.Join(dir, "conf"), BinDirs: []string{filepath.Join(dir, "bin"), "/usr/lib/cni"}, Bridge: "mezzo-test", Subnet: "10.90.0.0/24",
		},
	}
	for _, d := range []string{h.options.Config.ConfDir, filepath.Join(dir, "bin")} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(h.unmount)
	h.restart()
	return h
}

// unmount lets the test's directory be removed, however the test ended.
func (h *host) unmount() {
	paths, _ := filepath.Glob(filepath.Join(h.options.Dir, "containers", "*", "netns"))
	for _, p := range paths {
		if err := unix.Unmount(p, unix.MNT_DETACH); err == nil && !h.t.Failed() {
			h.t.Errorf("%s is left mounted", p)
		}
	}
}

// unmountAll is what a reboot does to namespaces.
func (h *host) unmountAll() {
	h.t.Helper()
	paths, _ := filepath.Glob(filepath.Join(h.options.Dir, "containers", "*", "netns"))
	for _, p := range paths {
		if err := unix.Unmount(p, unix.MNT_DETACH); err != nil {
			h.t.Fatal(err)
		}
	}
}

// restart is the plugin that has been started anew.
func (h *host) restart() {
	h.t.Helper()
	m, err := network.New(h.options)
	if err != nil {
		h.t.Fatal(err)
	}
	h.Manager = m
}

// enter runs f in another goroutine, in the host's network.
func (h *host) enter(f func()) <-chan struct{} { return h.join(h.ns, f) }

// enterAt runs f in another goroutine, in the network of a path.
func (h *host) enterAt(path string, f func()) <-chan struct{} {
	h.t.Helper()
	ns, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		h.t.Fatal(err)
	}
	return h.join(ns, func() {
		f()
		unix.Close(ns)
	})
}

func (h *host) join(ns int, f func()) <-chan struct{} {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		if err := unix.Setns(ns, unix.CLONE_NEWNET); err != nil {
			h.t.Error(err)
			return
		}
		f()
	}()
	return done
}

// run runs a program in the host's network.
func (h *host) run(args ...string) string {
	h.t.Helper()
	out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
	if err != nil {
		h.t.Fatalf("%v: %v\n%s", args, err, out)
	}
	return string(out)
}

// in runs a program in a container's network.
func (h *host) in(n *network.Network, args ...string) string {
	h.t.Helper()
	return h.run(append([]string{"nsenter", "--net=" + n.Netns}, args...)...)
}

func (h *host) setup(r network.Request) *network.Network {
	h.t.Helper()
	n, err := h.Setup(h.t.Context(), r)
	if err != nil {
		h.t.Fatal(err)
	}
	return n
}

func (h *host) teardown(container string) {
	h.t.Helper()
	if err := h.Teardown(h.t.Context(), container); err != nil {
		h.t.Fatal(err)
	}
}

// clean expects that nothing is left of any container.
func (h *host) clean() {
	h.t.Helper()
	if list, err := h.Containers(); err != nil || len(list) > 0 {
		h.t.Errorf("left: %v %v", list, err)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil || bytes.Contains(mounts, []byte(h.options.Dir)) {
		h.t.Errorf("mounts are left: %v", err)
	}
	for _, pattern := range []string{filepath.Join(h.options.LeaseDir, "*", "10.*"), filepath.Join(h.options.Dir, "cache", "results", "*")} {
		if left, _ := filepath.Glob(pattern); len(left) > 0 {
			h.t.Errorf("left: %v", left)
		}
	}
	if links := h.run("ip", "-o", "link", "show", "type", "veth"); links != "" {
		h.t.Errorf("devices are left:\n%s", links)
	}
}

// conf writes a network's configuration.
func (h *host) conf(file, text string) {
	h.t.Helper()
	if err := os.WriteFile(filepath.Join(h.options.Config.ConfDir, file), []byte(text), 0o644); err != nil {
		h.t.Fatal(err)
	}
}

// spy is a CNI plugin that notes down how it is called, and fails a command, or
// waits at it, when there is a file that says so.
type spy struct {
	t   *testing.T
	dir string
}

func (h *host) spy(name string) *spy {
	h.t.Helper()
	s := &spy{h.t, h.t.TempDir()}
	script := fmt.Sprintf(`#!/bin/sh
input=$(cat)
echo "$CNI_COMMAND $CNI_CONTAINERID $CNI_IFNAME netns=${CNI_NETNS:+yes}" >> %[1]s/calls
echo "$input" > "%[1]s/$CNI_COMMAND.json"
if [ -s "%[1]s/once-$CNI_COMMAND" ]; then
  echo "{\"cniVersion\":\"1.0.0\",\"code\":$(cat "%[1]s/once-$CNI_COMMAND"),\"msg\":\"the spy is busy\"}"
  : > "%[1]s/once-$CNI_COMMAND"
  exit 1
fi
if [ -e "%[1]s/fail-$CNI_COMMAND" ]; then
  echo '{"cniVersion":"1.0.0","code":111,"msg":"the spy fails"}'
  exit 1
fi
case $CNI_COMMAND in
VERSION) echo '{"cniVersion":"1.0.0","supportedVersions":["0.4.0","1.0.0"]}' ;;
ADD) echo '{"cniVersion":"1.0.0","interfaces":[{"name":"eth9","sandbox":"x"}],"ips":[{"address":"192.0.2.7/24","interface":0},{"address":"2001:db8::7/64","interface":0}],"dns":{"nameservers":["192.0.2.53"],"search":["spy.test"],"options":["ndots:2"]}}' ;;
esac
`, s.dir)
	bin := filepath.Join(h.options.Config.BinDirs[0], name)
	// Written by another process: one that is open for writing here may be
	// inherited by a fork of another test's, and then cannot be executed.
	cmd := exec.Command("sh", "-c", "cat > "+bin+" && chmod 755 "+bin)
	cmd.Stdin = strings.NewReader(script)
	if out, err := cmd.CombinedOutput(); err != nil {
		h.t.Fatalf("%v %s", err, out)
	}
	return s
}

func (s *spy) calls() string {
	text, err := os.ReadFile(filepath.Join(s.dir, "calls"))
	if err != nil && !os.IsNotExist(err) {
		s.t.Fatal(err)
	}
	return string(text)
}

// heard is what it was last told with a command.
func (s *spy) heard(command string) string {
	text, err := os.ReadFile(filepath.Join(s.dir, command+".json"))
	if err != nil {
		s.t.Fatal(err)
	}
	return string(text)
}

func (s *spy) fail(command string, yes bool) {
	path := filepath.Join(s.dir, "fail-"+command)
	err := os.Remove(path)
	if yes {
		err = os.WriteFile(path, nil, 0o600)
	}
	if err != nil {
		s.t.Fatal(err)
	}
}

// failOnce has it fail a command, the next time only, by a code of CNI's.
func (s *spy) failOnce(command string, code int) {
	s.t.Helper()
	if err := os.WriteFile(filepath.Join(s.dir, "once-"+command), fmt.Append(nil, code), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

func mode(m isolatorv1.Network_Mode, list ...*v1.NetworkInfo) *isolatorv1.Network {
	return &isolatorv1.Network{Mode: m, Networks: list}
}

func info(name string, ports ...*v1.NetworkInfo_PortMapping) *v1.NetworkInfo {
	n := &v1.NetworkInfo{PortMappings: ports}
	if name != "" {
		n.Name = &name
	}
	return n
}

func port(host, container uint32, protocol string) *v1.NetworkInfo_PortMapping {
	p := &v1.NetworkInfo_PortMapping{HostPort: &host, ContainerPort: &container}
	if protocol != "" {
		p.Protocol = &protocol
	}
	return p
}

func ports(begin, end uint64) []*v1.Resource {
	return []*v1.Resource{{
		Name: proto.String("ports"), Type: v1.Value_RANGES.Enum(),
		Ranges: &v1.Value_Ranges{Range: []*v1.Value_Range{{Begin: &begin, End: &end}}},
	}}
}
