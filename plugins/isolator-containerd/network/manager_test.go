package network_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/mezzo-os/mezzo/plugins/isolator-containerd/containerdtest"
	"github.com/mezzo-os/mezzo/plugins/isolator-containerd/network"
	isolatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/isolator/v1"
	v1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
)

const (
	modeHost   = isolatorv1.Network_MODE_HOST
	modeNone   = isolatorv1.Network_MODE_NONE
	modeBridge = isolatorv1.Network_MODE_BRIDGE
	modeNamed  = isolatorv1.Network_MODE_NAMED
	modeParent = isolatorv1.Network_MODE_PARENT
)

func text(t *testing.T, path string) string {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

// TestHostAndNone: the one has no namespace, the other one with the loopback
// device alone; a nested container may share it.
func TestHostAndNone(t *testing.T) {
	h := newHost(t)
	n := h.setup(network.Request{Container: "h", Network: mode(modeHost), Options: &isolatorv1.Options{ExtraHosts: []string{"db:192.0.2.9", "six:2001:db8::1"}}})
	hosts := text(t, n.Hosts)
	if n.Netns != "" || len(n.Networks) > 0 || !strings.Contains(hosts, text(t, "/etc/hosts")) || !strings.Contains(hosts, "192.0.2.9\tdb\n2001:db8::1\tsix\n") {
		t.Errorf("host: %+v\n%s", n, hosts)
	}
	if name, _ := os.Hostname(); n.Hostname != name || text(t, n.HostnameFile) != name+"\n" {
		t.Errorf("host name %q", n.Hostname)
	}
	n = h.setup(network.Request{Container: "n.1_x", Network: mode(modeNone)})
	links := h.in(n, "ip", "-o", "link")
	if strings.Count(links, "\n") != 1 || !strings.Contains(links, "lo:") || !strings.Contains(links, "LOOPBACK,UP") {
		t.Errorf("devices of none:\n%s", links)
	}
	if n.Hostname != "n-1-x" || !strings.Contains(text(t, n.Hosts), "127.0.1.1\tn-1-x") || len(n.Networks) > 0 {
		t.Errorf("none: %+v\n%s", n, text(t, n.Hosts))
	}
	for _, file := range []string{n.Hosts, n.ResolvConf, n.HostnameFile} {
		if s, err := os.Stat(file); err != nil || s.Mode().Perm() != 0o644 {
			t.Errorf("%s: %v %v", file, s, err)
		}
	}
	h.restart()
	child, err := h.Setup(t.Context(), network.Request{Container: "child", Parent: "n.1_x", Network: mode(modeParent)})
	if err != nil || child.Netns != n.Netns || child.Hosts != n.Hosts {
		t.Errorf("a nested one: %+v %v", child, err)
	}
	h.teardown("child")
	if _, err := os.Stat(n.Netns); err != nil {
		t.Errorf("a nested one took its parent's network with it: %v", err)
	}
	if list, err := h.Containers(); err != nil || !slices.Equal(list, []string{"h", "n.1_x"}) {
		t.Errorf("containers: %v %v", list, err)
	}
	for _, c := range []string{"h", "n.1_x", "n.1_x", "never"} {
		h.teardown(c)
	}
	if _, err := h.Get("n.1_x"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what is gone: %v", err)
	}
	for _, id := range []string{"", ".", "..", "a/b"} {
		if _, err := h.Setup(t.Context(), network.Request{Container: id, Network: mode(modeNone)}); err == nil {
			t.Errorf("container %q was set up", id)
		}
		if err := h.Teardown(t.Context(), id); err == nil {
			t.Errorf("container %q was torn down", id)
		}
	}
	h.clean()
}

func fetch(t *testing.T, address string) string {
	got, err := containerdtest.Fetch(address)
	if err != nil {
		t.Error(err)
	}
	return got
}

// TestBridge: containers reach each other and the host, the host's mapped ports
// lead to them, and all of that goes with them, also when the plugin is new.
func TestBridge(t *testing.T) {
	h := newHost(t)
	request := func(id string, p ...*v1.NetworkInfo_PortMapping) network.Request {
		return network.Request{Container: id, Network: mode(modeBridge, info("", p...)), Resources: ports(31000, 31010), Hostname: "name-" + id}
	}
	one := h.setup(request("one", port(31001, 80, ""), port(31002, 53, "UDP")))
	two := h.setup(request("two"))
	address := func(n *network.Network) string { return n.Networks[0].GetIpAddresses()[0].GetIpAddress() }
	if address(one) == address(two) || !strings.HasPrefix(address(one), "10.90.0.") || len(one.Networks[0].GetPortMappings()) != 2 {
		t.Errorf("networks: %v %v", one.Networks, two.Networks)
	}
	if hosts := text(t, one.Hosts); !strings.Contains(hosts, address(one)+"\tname-one\n") {
		t.Errorf("hosts:\n%s", hosts)
	}
	h.in(two, "busybox", "ping", "-c", "1", "-W", "20", address(one))
	h.in(two, "busybox", "ping", "-c", "1", "-W", "20", "10.90.0.1")

	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "index.html"), []byte("hello of one"), 0o644); err != nil {
		t.Fatal(err)
	}
	server := exec.Command("nsenter", "--net="+one.Netns, "busybox", "httpd", "-f", "-p", "80", "-h", dir)
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Process.Kill(); _ = server.Wait() })
	get := func(who string) func() {
		return func() {
			if got := fetch(t, "10.90.0.1:31001"); !strings.HasSuffix(got, "hello of one") {
				t.Errorf("%s got %q", who, got)
			}
		}
	}
	<-h.enter(get("the host"))
	<-h.enterAt(two.Netns, get("a neighbour"))
	if rules := h.run("iptables-save"); !strings.Contains(rules, "31001") || !strings.Contains(rules, "31002") {
		t.Errorf("packet filter:\n%s", rules)
	}
	h.restart()
	again, err := h.Get("one")
	if err != nil || again.Netns != one.Netns || address(again) != address(one) {
		t.Errorf("after a restart: %+v %v", again, err)
	}
	// The plugin's own directory of plugins is read only at need.
	h.teardown("one")
	h.teardown("one")
	h.in(two, "busybox", "ping", "-c", "1", "-W", "20", "10.90.0.1")
	h.teardown("two")
	if rules := h.run("iptables-save"); strings.Contains(rules, "31001") || strings.Contains(rules, "10.90.0.2") {
		t.Errorf("rules are left:\n%s", rules)
	}
	h.clean()
}

// TestCrowd: twenty at a time get addresses of their own and leave nothing.
func TestCrowd(t *testing.T) {
	h := newHost(t)
	const crowd = 20
	var mu sync.Mutex
	owner := map[string]string{}
	var all []<-chan struct{}
	for i := range crowd {
		all = append(all, h.enter(func() {
			id := fmt.Sprint("c", i)
			n, err := h.Setup(t.Context(), network.Request{Container: id, Network: mode(modeBridge, info("", port(uint32(31000+i), 80, ""))), Resources: ports(31000, 31100)})
			if err != nil {
				t.Error(err)
				return
			}
			ip := n.Networks[0].GetIpAddresses()[0].GetIpAddress()
			mu.Lock()
			if owner[ip] != "" {
				t.Errorf("%s and %s have the address %s", id, owner[ip], ip)
			}
			owner[ip] = id
			mu.Unlock()
		}))
	}
	for _, done := range all {
		<-done
	}
	all = nil
	for i := range crowd {
		all = append(all, h.enter(func() {
			if err := h.Teardown(t.Context(), fmt.Sprint("c", i)); err != nil {
				t.Error(err)
			}
		}))
	}
	for _, done := range all {
		<-done
	}
	if rules := h.run("iptables-save"); strings.Contains(rules, "3100") {
		t.Errorf("rules are left:\n%s", rules)
	}
	h.clean()
}

const spyNet = `{"cniVersion":"1.0.0","name":%q,"plugins":[{"type":%q,"capabilities":{"portMappings":true,"ips":true},"args":{"own":1}}]}`

// TestNamed: plugins get what the task asked for, at ADD and DEL alike, also
// when the network's configuration is gone by then.
func TestNamed(t *testing.T) {
	h := newHost(t)
	spy := h.spy("spy")
	h.conf("10-red.conflist", fmt.Sprintf(spyNet, "red", "spy"))
	h.conf("20-lan.conf", `{"cniVersion":"1.0.0","name":"lan","type":"bridge","bridge":"lan0","isGateway":true,"ipam":{"type":"host-local","subnet":"10.91.0.0/24","dataDir":"`+h.options.LeaseDir+`"}}`)
	h.conf("30-broken.conflist", `{"name":`)
	red := info("red", port(31000, 80, "tcp"))
	red.Labels = &v1.Labels{Labels: []*v1.Label{{Key: proto.String("team"), Value: proto.String("blue")}}}
	red.IpAddresses = []*v1.NetworkInfo_IPAddress{{IpAddress: proto.String("192.0.2.7")}}
	n := h.setup(network.Request{Container: "c", Network: mode(modeNamed, red, info("lan")), Resources: ports(31000, 31000)})
	if got := spy.calls(); got != "ADD c eth0 netns=yes\n" {
		t.Errorf("calls: %s", got)
	}
	var heard struct {
		Args struct {
			Own   int
			Mesos struct {
				Info struct {
					Labels struct{ Labels []struct{ Key, Value string } }
				} `json:"network_info"`
			} `json:"org.apache.mesos"`
		}
		RuntimeConfig struct {
			PortMappings []struct{ HostPort, ContainerPort int }
			IPs          []string
		}
	}
	check := func(command string) {
		t.Helper()
		if err := json.Unmarshal([]byte(spy.heard(command)), &heard); err != nil {
			t.Fatal(err)
		}
		if l := heard.Args.Mesos.Info.Labels.Labels; heard.Args.Own != 1 || len(l) != 1 || l[0].Value != "blue" ||
			len(heard.RuntimeConfig.PortMappings) != 1 || heard.RuntimeConfig.PortMappings[0].HostPort != 31000 || !slices.Equal(heard.RuntimeConfig.IPs, []string{"192.0.2.7"}) {
			t.Errorf("%s heard %s", command, spy.heard(command))
		}
	}
	check("ADD")
	var addresses []string
	for _, x := range n.Networks {
		for _, ip := range x.GetIpAddresses() {
			addresses = append(addresses, x.GetName()+" "+ip.GetProtocol().String()+" "+ip.GetIpAddress())
		}
	}
	if want := []string{"red IPv4 192.0.2.7", "red IPv6 2001:db8::7", "lan IPv4 10.91.0.2"}; !slices.Equal(addresses, want) {
		t.Errorf("addresses %v, want %v", addresses, want)
	}
	if links := h.in(n, "ip", "-o", "link"); !strings.Contains(links, "eth1@") {
		t.Errorf("devices:\n%s", links)
	}
	if got := text(t, n.ResolvConf); got != "search spy.test\nnameserver 192.0.2.53\noptions ndots:2\n" {
		t.Errorf("resolv.conf:\n%s", got)
	}
	for _, file := range []string{"10-red.conflist", "20-lan.conf"} {
		if err := os.Remove(filepath.Join(h.options.Config.ConfDir, file)); err != nil {
			t.Fatal(err)
		}
	}
	h.restart()
	h.teardown("c")
	check("DEL")
	if got := spy.calls(); !strings.HasSuffix(got, "DEL c eth0 netns=yes\n") {
		t.Errorf("calls: %s", got)
	}
	h.clean()
}

// TestResolvConf: the task's words come before the network's, and those before
// the operator's.
func TestResolvConf(t *testing.T) {
	h := newHost(t)
	h.spy("spy")
	h.conf("red.conflist", fmt.Sprintf(spyNet, "red", "spy"))
	h.options.Config.DNS, h.options.Config.DNSSearch = []string{"192.0.2.1"}, []string{"op.test"}
	h.restart()
	for i, x := range []struct {
		network *isolatorv1.Network
		options *isolatorv1.Options
		want    string
	}{
		{mode(modeNone), nil, "search op.test\nnameserver 192.0.2.1\n"},
		{mode(modeNamed, info("red")), nil, "search spy.test\nnameserver 192.0.2.53\noptions ndots:2\n"},
		{mode(modeNamed, info("red")), &isolatorv1.Options{Dns: []string{"192.0.2.9", "::1"}}, "search spy.test\nnameserver 192.0.2.9\nnameserver ::1\noptions ndots:2\n"},
		{mode(modeHost), &isolatorv1.Options{Dns: []string{"192.0.2.9"}, DnsSearch: []string{"a", "b"}, DnsOptions: []string{"rotate"}}, "search a b\nnameserver 192.0.2.9\noptions rotate\n"},
	} {
		id := fmt.Sprint("c", i)
		n := h.setup(network.Request{Container: id, Network: x.network, Options: x.options})
		if got := text(t, n.ResolvConf); got != x.want {
			t.Errorf("%d: %q, want %q", i, got, x.want)
		}
		h.teardown(id)
	}
	h.clean()
}

// TestAddFails: what a failed ADD leaves is removed, at once or, where that
// fails, when it can be.
func TestAddFails(t *testing.T) {
	h := newHost(t)
	good, bad := h.spy("good"), h.spy("bad")
	h.conf("good.conflist", fmt.Sprintf(spyNet, "good", "good"))
	h.conf("bad.conflist", fmt.Sprintf(spyNet, "bad", "bad"))
	bad.fail("ADD", true)
	r := network.Request{Container: "c", Network: mode(modeNamed, info("good"), info("bad"))}
	if _, err := h.Setup(t.Context(), r); err == nil || !strings.Contains(err.Error(), `"bad"`) || !strings.Contains(err.Error(), "the spy fails") {
		t.Errorf("error: %v", err)
	}
	if got := good.calls() + bad.calls(); got != "ADD c eth0 netns=yes\nDEL c eth0 netns=yes\nADD c eth1 netns=yes\nDEL c eth1 netns=yes\n" {
		t.Errorf("calls:\n%s", got)
	}
	h.clean()

	bad.fail("DEL", true)
	if _, err := h.Setup(t.Context(), r); err == nil {
		t.Error("no error")
	}
	if _, err := h.Get("c"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a network that was never finished: %v", err)
	}
	h.restart()
	if list, err := h.Containers(); err != nil || !slices.Equal(list, []string{"c"}) {
		t.Errorf("what cannot be removed is forgotten: %v %v", list, err)
	}
	if err := h.Teardown(t.Context(), "c"); err == nil || !strings.Contains(err.Error(), `"bad"`) {
		t.Errorf("teardown: %v", err)
	}
	if _, err := h.Setup(t.Context(), r); err == nil || !strings.Contains(err.Error(), "earlier") {
		t.Errorf("setup on what is left: %v", err)
	}
	bad.fail("DEL", false)
	bad.fail("ADD", false)
	h.setup(r) // removes what is left first
	h.teardown("c")
	h.clean()
}

// TestAddIsTriedAgain: once, where what failed may pass, and after what it made
// was taken back.
func TestAddIsTriedAgain(t *testing.T) {
	const add, del = "ADD c eth0 netns=yes\n", "DEL c eth0 netns=yes\n"
	h := newHost(t)
	s := h.spy("spy")
	h.conf("spy.conflist", fmt.Sprintf(spyNet, "spy", "spy"))
	r := network.Request{Container: "c", Network: mode(modeNamed, info("spy"))}
	told := ""
	calls := func() string {
		all := s.calls()
		now := strings.TrimPrefix(all, told)
		told = all
		return now
	}
	for _, code := range []int{11, 999} { // "try again later", and whatever CNI's own plugins fail with
		s.failOnce("ADD", code)
		if n := h.setup(r); len(n.Networks) != 1 || len(n.Networks[0].GetIpAddresses()) != 2 {
			t.Errorf("code %d: %v", code, n.Networks)
		}
		if got := calls(); got != add+del+add {
			t.Errorf("code %d: calls:\n%s", code, got)
		}
		h.teardown("c")
		calls()
	}
	s.failOnce("ADD", 7) // the network's configuration
	if _, err := h.Setup(t.Context(), r); err == nil || !strings.Contains(err.Error(), "the spy is busy") {
		t.Errorf("a failure that stays: %v", err)
	}
	if got := calls(); got != add+del {
		t.Errorf("a failure that stays: calls:\n%s", got)
	}
	s.failOnce("ADD", 11)
	s.fail("ADD", true)
	if _, err := h.Setup(t.Context(), r); err == nil || !strings.Contains(err.Error(), "the spy fails") {
		t.Errorf("a second failure: %v", err)
	}
	if got := calls(); got != add+del+add+del {
		t.Errorf("a second failure: calls:\n%s", got)
	}
	h.clean()
}

// TestReboot: after a host's reboot the namespace is gone, and the addresses are
// given back all the same.
func TestReboot(t *testing.T) {
	h := newHost(t)
	spy := h.spy("spy")
	h.conf("red.conflist", fmt.Sprintf(spyNet, "red", "spy"))
	h.setup(network.Request{Container: "b", Network: mode(modeBridge, info(""))})
	h.setup(network.Request{Container: "r", Network: mode(modeNamed, info("red"))})
	h.setup(network.Request{Container: "n", Network: mode(modeNone)})
	h.unmountAll()
	if err := os.Truncate(filepath.Join(h.options.Dir, "containers", "n", "record.json"), 0); err != nil {
		t.Fatal(err)
	}
	h.restart()
	for _, c := range []string{"r", "b", "n"} {
		h.teardown(c)
	}
	if got := spy.calls(); !strings.HasSuffix(got, "DEL r eth0 netns=\n") {
		t.Errorf("calls: %s", got)
	}
	if left, _ := filepath.Glob(filepath.Join(h.options.LeaseDir, "*", "10.*")); len(left) > 0 {
		t.Errorf("addresses are left: %v", left)
	}
	if list, err := h.Containers(); err != nil || len(list) > 0 {
		t.Errorf("left: %v %v", list, err)
	}
}

// TestRefusals: what can never work is said before anything is made.
func TestRefusals(t *testing.T) {
	h := newHost(t)
	h.spy("spy")
	h.conf("red.conflist", fmt.Sprintf(spyNet, "red", "spy"))
	h.conf("plain.conflist", `{"cniVersion":"1.0.0","name":"plain","plugins":[{"type":"spy"}]}`)
	address := info("plain")
	address.IpAddresses = []*v1.NetworkInfo_IPAddress{{IpAddress: proto.String("192.0.2.1")}}
	malformed := info("red")
	malformed.IpAddresses = []*v1.NetworkInfo_IPAddress{{IpAddress: proto.String("nonsense")}}
	for want, r := range map[string]network.Request{
		"no such network, but plain, red": {Network: mode(modeNamed, info("blue"))},
		"names no network":                {Network: mode(modeNamed)},
		"has no name":                     {Network: mode(modeNamed, info(""))},
		"named twice":                     {Network: mode(modeNamed, info("red"), info("red"))},
		"need a network":                  {Network: mode(modeHost, info("", port(31000, 80, "")))},
		"it has none":                     {Network: mode(modeBridge, info("", port(31000, 80, "")))},
		"31000-31005":                     {Network: mode(modeBridge, info("", port(31006, 80, ""))), Resources: ports(31000, 31005)},
		"protocol":                        {Network: mode(modeBridge, info("", port(31000, 80, "icmp"))), Resources: ports(31000, 31005)},
		"container port 0":                {Network: mode(modeBridge, info("", port(31000, 0, ""))), Resources: ports(31000, 31005)},
		"mapped twice":                    {Network: mode(modeBridge, info("", port(31000, 80, ""), port(31000, 81, "TCP"))), Resources: ports(31000, 31005)},
		"maps no ports":                   {Network: mode(modeNamed, info("plain", port(31000, 80, ""))), Resources: ports(31000, 31005)},
		"no addresses on request":         {Network: mode(modeNamed, address)},
		"no IP address":                   {Network: mode(modeNamed, malformed)},
		"mode":                            {Network: mode(99)},
		"name server":                     {Network: mode(modeNone), Options: &isolatorv1.Options{Dns: []string{"dns.example"}}},
		"one word":                        {Network: mode(modeNone), Options: &isolatorv1.Options{DnsSearch: []string{"a\nnameserver 6.6.6.6"}}},
		"NAME:ADDRESS":                    {Network: mode(modeNone), Options: &isolatorv1.Options{ExtraHosts: []string{"db"}}},
	} {
		r.Container = "c"
		for what, err := range map[string]error{"Check": h.Check(r), "Setup": func() error { _, err := h.Setup(t.Context(), r); return err }()} {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v; want %q in it", what, err, want)
			}
		}
	}
	h.options.Config.ConfDir = filepath.Join(t.TempDir(), "none")
	h.restart()
	if err := h.Check(network.Request{Container: "c", Network: mode(modeNamed, info("red"))}); err == nil || !strings.Contains(err.Error(), "has no networks in") {
		t.Errorf("no directory: %v", err)
	}
	h.clean()
}

func TestValidate(t *testing.T) {
	for want, change := range map[string]func(*network.Settings){
		"":               func(c *network.Settings) { c.DNS = []string{"::1"} },
		"cni_conf_dir":   func(c *network.Settings) { c.ConfDir = "x" },
		"cni_bin_dirs.1": func(c *network.Settings) { c.BinDirs = append(c.BinDirs, "x") },
		"bridge":         func(c *network.Settings) { c.Bridge = "a name that is too long" },
		"bridge_subnet":  func(c *network.Settings) { c.Subnet = "10.0.0.1/24" },
		"dns.0":          func(c *network.Settings) { c.DNS = []string{"x"} },
	} {
		c := network.Settings{ConfDir: "/c", BinDirs: []string{"/b"}, Bridge: "mezzo0", Subnet: "10.90.0.0/16"}
		change(&c)
		ds := c.Validate()
		if want == "" && len(ds) > 0 || want != "" && (len(ds) != 1 || strings.Join(ds[0].Path, ".") != want) {
			t.Errorf("want a diagnostic at %q: %+v", want, ds)
		}
	}
}
