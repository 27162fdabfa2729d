package containerdtest

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// Outside is a network namespace that CNI plugins take for the host's, so that
// bridges, forwarding and packet filters are the test's alone.
type Outside struct {
	Netns  string // where it is mounted
	BinDir string // CNI plugins that work in it
	Bridge string // a name for the bridge, which is that of its network too
}

var outsides atomic.Int64

// NewOutside makes one, which is removed when the test ends.
func NewOutside(t testing.TB) *Outside {
	t.Helper()
	name := fmt.Sprintf("mz%d-%d", os.Getpid(), outsides.Add(1))
	o := &Outside{Netns: "/run/netns/" + name, BinDir: t.TempDir(), Bridge: name}
	run := func(args ...string) {
		t.Helper()
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", args, err, out)
		}
	}
	run("ip", "netns", "add", name)
	t.Cleanup(func() { run("ip", "netns", "delete", name) })
	run("ip", "-n", name, "link", "set", "lo", "up")
	for _, plugin := range []string{"bridge", "host-local", "portmap", "firewall", "loopback"} {
		script := fmt.Sprintf("#!/bin/sh\nexec nsenter --net=%s /usr/lib/cni/%s\n", o.Netns, plugin)
		// Written by another process: what is open for writing here may be so in a
		// child that another test starts, and then cannot be executed.
		write := exec.Command("sh", "-c", `cat > "$0" && chmod 755 "$0"`, filepath.Join(o.BinDir, plugin))
		write.Stdin = strings.NewReader(script)
		if out, err := write.CombinedOutput(); err != nil {
			t.Fatalf("%v %s", err, out)
		}
	}
	t.Cleanup(func() {
		_ = os.RemoveAll(o.leases())
		_ = os.Remove(filepath.Dir(o.leases()))
		_ = os.Remove("/var/lib/cni")
	})
	return o
}

func (o *Outside) leases() string { return "/var/lib/cni/networks/" + o.Bridge }

// Left is what containers still have of the network: their addresses, and their
// ends of links.
func (o *Outside) Left() (left []string) {
	left, _ = filepath.Glob(o.leases() + "/*.*.*.*")
	links, err := exec.Command("ip", "-n", filepath.Base(o.Netns), "-o", "link", "show", "type", "veth").Output()
	if err != nil {
		return append(left, "links: "+err.Error())
	}
	for line := range strings.Lines(string(links)) {
		left = append(left, "link "+strings.TrimSpace(line))
	}
	return left
}

// Fetch asks a web server, which may need a moment to begin, from the network that
// the caller's thread is in.
func Fetch(address string) (answer string, err error) {
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		if answer, err = ask(address); err == nil || time.Now().After(deadline) {
			return answer, err
		}
	}
}

func ask(address string) (string, error) {
	c, err := net.DialTimeout("tcp", address, 20*time.Second)
	if err != nil {
		return "", err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		return "", err
	}
	if _, err := c.Write([]byte("GET / HTTP/1.0\r\n\r\n")); err != nil {
		return "", err
	}
	answer, err := io.ReadAll(c)
	return string(answer), err
}
