package main

import (
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/mezzo-os/mezzo/plugins/isolator-containerd/containerdtest"
	isolatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/isolator/v1"
	v1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
)

// outside is what the tests' CNI plugins take for the host's network.
type outside struct {
	t *testing.T
	*containerdtest.Outside
}

// newOutside makes one, and returns the settings by which a node uses it.
func newOutside(t *testing.T) (*outside, map[string]any) {
	t.Helper()
	o := containerdtest.NewOutside(t)
	return &outside{t, o}, map[string]any{"cni_bin_dirs": []string{o.BinDir}, "bridge": o.Bridge, "bridge_subnet": "10.92.0.0/24", "cni_conf_dir": t.TempDir()}
}

// fetch asks a web server from outside.
func (o *outside) fetch(address string) string {
	o.t.Helper()
	answer := make(chan string)
	go func() {
		runtime.LockOSThread() // the thread ends with the goroutine
		answer <- func() string {
			f, err := os.Open(o.Netns)
			if err != nil {
				return err.Error()
			}
			defer f.Close()
			if err := unix.Setns(int(f.Fd()), unix.CLONE_NEWNET); err != nil {
				return err.Error()
			}
			text, err := containerdtest.Fetch(address)
			if err != nil {
				return err.Error()
			}
			return text
		}()
	}()
	return <-answer
}

func bridged(host, container uint32) *isolatorv1.Network {
	n := &v1.NetworkInfo{}
	if host != 0 {
		n.PortMappings = []*v1.NetworkInfo_PortMapping{{HostPort: &host, ContainerPort: &container}}
	}
	return &isolatorv1.Network{Mode: isolatorv1.Network_MODE_BRIDGE, Networks: []*v1.NetworkInfo{n}}
}

func ports(begin, end uint64) *v1.Resource {
	return &v1.Resource{Name: proto.String("ports"), Type: v1.Value_RANGES.Enum(), Ranges: &v1.Value_Ranges{Range: []*v1.Value_Range{{Begin: &begin, End: &end}}}}
}

// TestBridge: a container has an address, names, and ports of the host, which
// stay when the plugin is started anew and go with the container.
func TestBridge(t *testing.T) {
	o, config := newOutside(t)
	n := withImage(t, config)
	b := n.shell("web", `cp /etc/hosts /etc/resolv.conf /mnt/mesos/sandbox; hostname; echo hello of web > /tmp/index.html; exec httpd -f -p 80 -h /tmp`)
	b.task.Network, b.task.Resources = bridged(31000, 80), append(b.task.Resources, ports(31000, 31000))
	b.task.Options = &isolatorv1.Options{ExtraHosts: []string{"db:192.0.2.7"}, Dns: []string{"192.0.2.53"}}
	b.spec.Hostname = "webhost"
	created := n.run(b)
	if len(created.GetNetworks()) != 1 || created.GetNetworks()[0].GetIpAddresses()[0].GetIpAddress() != "10.92.0.2" {
		t.Errorf("networks: %v", created.GetNetworks())
	}
	if created.GetNetns() == "" {
		t.Error("no network namespace is told")
	}
	n.restart()
	if got := o.fetch("10.92.0.1:31000"); !strings.HasSuffix(got, "hello of web\n") {
		t.Errorf("through the host's port: %q", got)
	}
	n.output("web", "webhost")
	if got := n.read("web", "hosts"); !strings.Contains(got, "10.92.0.2\twebhost\n") || !strings.Contains(got, "192.0.2.7\tdb\n") {
		t.Errorf("hosts: %q", got)
	}
	if got := n.read("web", "resolv.conf"); !strings.Contains(got, "nameserver 192.0.2.53\n") {
		t.Errorf("resolv.conf: %q", got)
	}
	n.restart()
	if _, err := n.Cleanup(n.ctx(), &isolatorv1.CleanupRequest{Container: "web"}); err != nil {
		t.Fatal(err)
	}
	if left := o.Left(); len(left) > 0 {
		t.Errorf("of the network stays %v", left)
	}
	if rules, err := exec.Command("nsenter", "--net="+o.Netns, "iptables-save").Output(); err != nil || strings.Contains(string(rules), "31000") {
		t.Errorf("rules stay: %v\n%s", err, rules)
	}
}

// TestNoNetwork: none is the loopback device alone.
func TestNoNetwork(t *testing.T) {
	n := withImage(t, nil)
	b := n.shell("lonely", `ls /sys/class/net; ping -c 1 -W 20 127.0.0.1 > /dev/null && echo up`)
	b.task.Network = &isolatorv1.Network{Mode: isolatorv1.Network_MODE_NONE}
	if got := n.outcome(b); got != "lo\nup\n" {
		t.Errorf("devices: %q", got)
	}
}

// TestGroupNetwork: the containers of a group have the network of its root
// container, which has no task, and its names.
func TestGroupNetwork(t *testing.T) {
	o, config := newOutside(t)
	n := withImage(t, config)
	root := n.shell("group", "")
	root.task.SandboxOnly, root.task.Image, root.task.Command, root.spec.Process = true, nil, nil, nil
	root.task.Network, root.task.Resources = bridged(31001, 8080), append(root.task.Resources, ports(31001, 31001))
	n.config["default"] = true
	n.restart()
	created := n.run(root)
	child := func(id, script string) *box {
		b := n.shell(id, script)
		b.task.Parent = "group"
		return b
	}
	first := n.run(child("first", `cp /etc/hosts /mnt/mesos/sandbox; echo hello of first > /tmp/index.html; exec httpd -f -p 8080 -h /tmp`))
	if first.GetNetns() != created.GetNetns() || created.GetNetns() == "" {
		t.Errorf("namespaces %q and %q", created.GetNetns(), first.GetNetns())
	}
	if got := o.fetch("10.92.0.1:31001"); !strings.HasSuffix(got, "hello of first\n") {
		t.Errorf("through the host's port: %q", got)
	}
	if got := n.outcome(child("second", `for i in $(seq 200); do nc 127.0.0.1 8080 -e true && echo reached && exit; sleep 0.1; done; exit 1`)); got != "reached\n" {
		t.Errorf("the neighbour: %q", got)
	}
	if got := n.read("first", "hosts"); !strings.Contains(got, "10.92.0.2\t") {
		t.Errorf("hosts: %q", got)
	}
}

// TestNetworkRefused: what can never work is said when the task is claimed.
func TestNetworkRefused(t *testing.T) {
	_, config := newOutside(t)
	n := newNode(t, config)
	b := n.shell("c", "true")
	b.task.Network = bridged(31002, 80)
	answer, err := n.Claim(n.ctx(), &isolatorv1.ClaimRequest{Container: "c", Task: b.task})
	if err != nil || answer.GetClaim() != isolatorv1.ClaimResponse_CLAIM_NONE || !strings.Contains(answer.GetReason(), "31002") {
		t.Errorf("%v %v", answer, err)
	}
	b.task.Network = &isolatorv1.Network{Mode: isolatorv1.Network_MODE_NAMED, Networks: []*v1.NetworkInfo{{Name: proto.String("blue")}}}
	answer, err = n.Claim(n.ctx(), &isolatorv1.ClaimRequest{Container: "c", Task: b.task})
	if err != nil || answer.GetClaim() != isolatorv1.ClaimResponse_CLAIM_NONE || !strings.Contains(answer.GetReason(), `"blue"`) {
		t.Errorf("%v %v", answer, err)
	}
}
