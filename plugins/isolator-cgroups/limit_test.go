package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/mezzo-os/mezzo/plugins/internal/cgroup"
	"github.com/mezzo-os/mezzo/plugins/internal/holder"
	"github.com/mezzo-os/mezzo/sdk/plugin"
	isolatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/isolator/v1"
	v1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
)

// withControllers serves a plugin with further controllers, where the kernel
// has them.
func withControllers(t *testing.T, config map[string]any, more ...string) *node {
	t.Helper()
	all := append([]string{"cpu", "memory", "pids"}, more...)
	if _, err := cgroup.Detect("mezzo-probe", all); err != nil {
		lacking(t, strings.Join(more, " and "), "not on this kernel: %v", err)
	}
	config["controllers"] = all
	return newNode(t, config)
}

// control reads a control file of a container's cgroup.
func (n *node) control(controller, id, name string) string {
	n.t.Helper()
	root := n.config["root"].(string)
	for _, dir := range []string{"/sys/fs/cgroup/" + controller, "/sys/fs/cgroup"} {
		if text, err := os.ReadFile(filepath.Join(dir, root, id, name)); err == nil {
			return strings.TrimSpace(string(text))
		}
	}
	n.t.Errorf("container %s has no %s", id, name)
	return ""
}

func TestCPUSet(t *testing.T) {
	n := withControllers(t, map[string]any{"cpus": "0", "memory_nodes": "0"}, "cpuset")
	n.run(n.shell("c1", `grep Cpus_allowed_list /proc/self/status`))
	n.wait("c1")
	if got := n.read("c1", "stdout"); got != "Cpus_allowed_list:\t0\n" {
		t.Errorf("by the setting: %q", got)
	}
	// An isolator before this one may say more exactly; what cannot be is refused.
	b := n.shell("c2", "true")
	b.spec.Linux = &specs.Linux{Resources: &specs.LinuxResources{CPU: &specs.LinuxCPU{Cpus: "4000"}}}
	if _, err := n.create(b); err == nil {
		t.Error("a processor that is not there is no error")
	}
	root := n.shell("group", "")
	root.spec.Process, root.task.SandboxOnly = nil, true
	root.task.Resources = []*v1.Resource{scalar("cpus", 1), scalar("mem", 64)}
	if _, err := n.create(root); err != nil {
		t.Fatal(err)
	}
	if _, err := n.Start(n.ctx(), &isolatorv1.StartRequest{Container: "group"}); err != nil {
		t.Fatal(err)
	}
	nested := n.shell("nested", `grep Cpus_allowed_list /proc/self/status`)
	nested.task.Parent = "group"
	n.run(nested)
	n.wait("nested")
	if got := n.read("nested", "stdout"); got != "Cpus_allowed_list:\t0\n" {
		t.Errorf("nested: %q", got)
	}
	if _, err := n.Kill(n.ctx(), &isolatorv1.KillRequest{Container: "group"}); err != nil {
		t.Fatal(err)
	}
	n.wait("group")
}

// TestDevices: the harmless devices, those allowed, and no others, though the
// task is root.
func TestDevices(t *testing.T) {
	if _, err := os.Stat("/dev/kmsg"); err != nil {
		lacking(t, "/dev/kmsg", "%v", err)
	}
	const script = `echo x > /dev/null && head -c 1 /dev/zero | wc -c | tr -d ' '; mknod kmsg c 1 11 && echo made; (: < kmsg) 2>/dev/null && echo read; (: > kmsg) 2>/dev/null && echo wrote; (: <> kmsg) 2>/dev/null && echo both; true`
	n := withControllers(t, map[string]any{}, "devices")
	b := n.shell("none", script)
	b.task.Resources = []*v1.Resource{scalar("cpus", 1), scalar("mem", 64)}
	n.run(b)
	n.wait("none")
	if got := n.read("none", "stdout"); got != "1\nmade\n" {
		t.Errorf("%q %s", got, n.read("none", "stderr"))
	}
	some := withControllers(t, map[string]any{"allowed_devices": []string{"/dev/kmsg r"}}, "devices")
	some.run(some.shell("some", script))
	some.wait("some")
	if got := some.read("some", "stdout"); got != "1\nmade\nread\n" {
		t.Errorf("with /dev/kmsg: %q %s", got, some.read("some", "stderr"))
	}
	// New limits leave a running container its devices.
	long := n.shell("long", `echo ready; while :; do echo x > /dev/null || echo lost; sleep 0.01; done`)
	long.task.Resources = []*v1.Resource{scalar("cpus", 1), scalar("mem", 64)}
	n.run(long)
	n.awaitOutput("long", "ready")
	long.task.Resources = []*v1.Resource{scalar("cpus", 2), scalar("mem", 96)}
	if _, err := n.Update(n.ctx(), &isolatorv1.UpdateRequest{Container: "long", Task: long.task}); err != nil {
		t.Fatal(err)
	}
	if _, err := n.Kill(n.ctx(), &isolatorv1.KillRequest{Container: "long"}); err != nil {
		t.Fatal(err)
	}
	n.wait("long")
	if got := n.read("long", "stdout"); got != "ready\n" {
		t.Errorf("while limits changed: %q", got)
	}
}

// blockDevice is some whole disk of this machine.
func blockDevice(t *testing.T) (path, number string) {
	t.Helper()
	all, _ := filepath.Glob("/sys/block/*/dev")
	for _, file := range all {
		name := filepath.Base(filepath.Dir(file))
		text, err := os.ReadFile(file)
		if _, missing := os.Stat("/dev/" + name); err == nil && missing == nil && !strings.HasPrefix(name, "loop") && !strings.HasPrefix(name, "nbd") {
			return "/dev/" + name, strings.TrimSpace(string(text))
		}
	}
	lacking(t, "block device", "none of %d in /sys/block is one to throttle", len(all))
	return "", ""
}

func TestThrottle(t *testing.T) {
	device, number := blockDevice(t)
	n := withControllers(t, map[string]any{"throttle": []map[string]any{{"device": device, "read_bps": 0, "write_bps": 1 << 20, "read_iops": 50, "write_iops": 0}}}, "io")
	b := n.shell("c1", `echo ready; while :; do sleep 0.1; done`)
	n.run(b)
	n.awaitOutput("c1", "ready")
	if _, err := os.Stat("/sys/fs/cgroup/blkio"); err == nil {
		if got := n.control("blkio", "c1", "blkio.throttle.write_bps_device"); got != number+" 1048576" {
			t.Errorf("bytes: %q", got)
		}
		if got := n.control("blkio", "c1", "blkio.throttle.read_iops_device"); got != number+" 50" {
			t.Errorf("operations: %q", got)
		}
	} else if got := n.control("", "c1", "io.max"); !strings.Contains(got, number+" rbps=max wbps=1048576 riops=50 wiops=max") {
		t.Errorf("io.max: %q", got)
	}
	if _, err := n.Kill(n.ctx(), &isolatorv1.KillRequest{Container: "c1"}); err != nil {
		t.Fatal(err)
	}
	n.wait("c1")
}

// TestIOStatistics writes to a disk past the page cache and is told of it.
func TestIOStatistics(t *testing.T) {
	device, number := blockDevice(t)
	file := "file"
	if strings.HasPrefix(device, "/dev/ram") {
		file = device // the sandbox is on no disk
	}
	n := withControllers(t, map[string]any{}, "io")
	b := n.shell("c1", `dd if=/dev/zero of=`+file+` bs=65536 count=16 conv=fsync 2>/dev/null && echo written; while :; do sleep 0.1; done`)
	n.run(b)
	n.awaitOutput("c1", "written")
	u, err := n.Usage(n.ctx(), &isolatorv1.UsageRequest{Containers: []string{"c1"}})
	if err != nil || len(u.GetUsages()) != 1 {
		t.Fatalf("%v, %v", u, err)
	}
	for _, d := range u.GetUsages()[0].GetStatistics().GetBlkioStatistics().GetThrottling() {
		for _, v := range d.GetIoServiceBytes() {
			if v.GetOp() == v1.CgroupInfo_Blkio_WRITE && v.GetValue() >= 16<<16 {
				t.Logf("device %s (%v): %d bytes", number, d.GetDevice(), v.GetValue())
				number = ""
			}
		}
	}
	if number != "" {
		t.Errorf("no write of a MiB in %v", u.GetUsages()[0].GetStatistics().GetBlkioStatistics())
	}
	if _, err := n.Kill(n.ctx(), &isolatorv1.KillRequest{Container: "c1"}); err != nil {
		t.Fatal(err)
	}
	n.wait("c1")
}

func TestHugePages(t *testing.T) {
	sizes, err := hugePageSizes()
	if err != nil || len(sizes) == 0 {
		lacking(t, "huge pages", "the kernel has none: %v", err)
	}
	n := withControllers(t, map[string]any{"hugetlb_limit": 0}, "hugetlb")
	n.run(n.shell("c1", `echo ready; while :; do sleep 0.1; done`))
	n.awaitOutput("c1", "ready")
	for _, size := range sizes {
		name := "hugetlb." + size + ".max"
		if _, err := os.Stat("/sys/fs/cgroup/hugetlb"); err == nil {
			name = "hugetlb." + size + ".limit_in_bytes"
		}
		if got := n.control("hugetlb", "c1", name); got != "0" {
			t.Errorf("%s: %q", size, got)
		}
	}
	if _, err := n.Kill(n.ctx(), &isolatorv1.KillRequest{Container: "c1"}); err != nil {
		t.Fatal(err)
	}
	n.wait("c1")
}

// TestNetClass: classes are given out one by one, past those in use, also those
// of containers that were there before the plugin.
func TestNetClass(t *testing.T) {
	p := newPlugin()
	p.config.NetClass, p.Host, p.Dir = 0x10, &cgroup.Host{}, t.TempDir()
	var got []uint32
	add := func(id string) {
		c, err := p.Begin(&isolatorv1.CreateRequest{Container: id})
		if err != nil {
			t.Fatal(err)
		}
		r := &specs.LinuxResources{}
		if err := p.classify(c, r); err != nil {
			t.Fatal(err)
		}
		if err := c.Note(); err != nil {
			t.Fatal(err)
		}
		got = append(got, *r.Network.ClassID)
	}
	add("a")
	add("b")
	again := newPlugin()
	again.config, again.Host, again.Dir = p.config, p.Host, p.Dir
	if err := again.Load(); err != nil {
		t.Fatal(err)
	}
	p = again
	add("c")
	if diff := cmp.Diff([]uint32{0x100001, 0x100002, 0x100003}, got); diff != "" {
		t.Error(diff)
	}
	p.lastClass = 65535
	if err := p.Remove(t.Context(), p.All()[0]); err != nil {
		t.Fatal(err)
	}
	add("d")
	if got[3] != 0x100001 {
		t.Errorf("after the last comes %#x", got[3])
	}
}

// TestNetClassOfKernel: two containers, two classes, in the kernel's own file.
func TestNetClassOfKernel(t *testing.T) {
	controllers := []string{"net_cls"}
	if _, err := cgroup.Detect("mezzo-probe", controllers); err != nil {
		lacking(t, "net_cls", "not on this kernel: %v", err)
	}
	n := newNode(t, map[string]any{"controllers": controllers, "net_cls_major": 16})
	for i, id := range []string{"c1", "c2"} {
		n.run(n.shell(id, `echo ready; while :; do sleep 0.1; done`))
		n.awaitOutput(id, "ready")
		if got, want := n.control("net_cls", id, "net_cls.classid"), []string{"1048577", "1048578"}[i]; got != want {
			t.Errorf("%s has class %s, want %s", id, got, want)
		}
	}
	for _, id := range []string{"c1", "c2"} {
		if _, err := n.Kill(n.ctx(), &isolatorv1.KillRequest{Container: id}); err != nil {
			t.Fatal(err)
		}
		n.wait(id)
	}
}

func TestSettingDiagnostics(t *testing.T) {
	size := plugin.Size(0)
	c := Config{Basics: holder.Basics{Root: "mezzo", Bounding: []string{"KILL"}, SeccompDir: "rel"},
		Controllers: []string{"cpu", "cpuset"}, CPUs: "3-1", IOWeight: 5, HugePages: &size, Devices: []string{"fuse"},
		Effective: []string{"CHOWN"}, Seccomp: "x", Namespaces: []string{"net"}, Masked: []string{"/"}}
	var got []string
	for _, d := range c.Validate() {
		got = append(got, strings.Join(d.Path, ".")+": "+d.Summary)
	}
	want := []string{
		"seccomp_dir: relative path", "io_weight: controller missing", "allowed_devices: controller missing", "hugetlb_limit: controller missing", "cpus: malformed list",
		"io_weight: weight out of range", "allowed_devices.0: malformed device", "effective_capabilities: capability not allowed",
		"namespaces.0: unknown namespace", "masked_paths.0: unusable path",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("diagnostics (-want +got):\n%s", diff)
	}
	throttle := Throttle{Device: "sda"}
	if ds := throttle.Validate(); len(ds) != 2 {
		t.Errorf("a throttle of nothing: %v", ds)
	}
}

func TestIOWeight(t *testing.T) {
	n := prepareNode(t, map[string]any{"controllers": []string{"io"}, "io_weight": 500})
	host, err := cgroup.Detect(n.config["root"].(string), []string{"io"})
	if err != nil {
		lacking(t, "io", "not on this kernel: %v", err)
	}
	if _, err := host.Root(); err != nil {
		t.Fatal(err)
	}
	cannot := host.CanWeigh()
	host.DeleteRoot()
	p := newPlugin()
	p.Shim = shimPath
	_, err = configurePlugin(p, n.configText(), n.dir)
	p.shutdown(t.Context())
	if (cannot == nil) != (err == nil) || err != nil && !strings.Contains(err.Error(), "cannot weigh") {
		t.Errorf("the kernel: %v; the plugin: %v", cannot, err)
	}
}
