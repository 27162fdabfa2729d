package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/snapshots"

	isolatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/isolator/v1"
	v1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
)

// halfway has a container made by the first so many steps of Create.
func (n *node) halfway(b *box, steps int) *maker {
	n.t.Helper()
	text, err := n.prepare(b)
	if err != nil {
		n.t.Fatal(err)
	}
	s, err := parseSpec(text)
	if err != nil {
		n.t.Fatal(err)
	}
	client, err := n.p.connection.get()
	if err != nil {
		n.t.Fatal(err)
	}
	r := &isolatorv1.CreateRequest{Container: b.id, Task: b.task, Sandbox: n.sandbox(b.id), Spec: text}
	c, err := n.p.Begin(r)
	if err != nil {
		n.t.Fatal(err)
	}
	m := &maker{plug: n.p, client: client, c: c, r: r, s: s}
	for i, step := range m.steps()[:steps] {
		if err := step.do(n.p.connection.in(n.ctx())); err != nil {
			n.t.Fatalf("%s, step %d: %v", b.id, i, err)
		}
	}
	return m
}

// things are what a test's containers have outside the plugin: what containerd
// has, what the kernel has, files.
func (n *node) things() []string {
	n.t.Helper()
	client, ctx := n.daemon.Client(n.t), n.daemon.Context(n.t)
	var all []string
	list, err := client.ContainerService().List(ctx)
	if err != nil {
		n.t.Fatal(err)
	}
	for _, c := range list {
		all = append(all, "container "+c.ID)
	}
	leases, err := client.LeasesService().List(ctx)
	if err != nil {
		n.t.Fatal(err)
	}
	for _, l := range leases {
		all = append(all, "lease "+l.ID)
	}
	err = client.SnapshotService("").Walk(ctx, func(_ context.Context, info snapshots.Info) error {
		all = append(all, "snapshot "+info.Name)
		return nil
	})
	if err != nil {
		n.t.Fatal(err)
	}
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		n.t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if fields := strings.Fields(line); strings.HasPrefix(fields[4], n.dir) || strings.HasPrefix(fields[4], n.daemon.Dir) || strings.Contains(fields[4], n.daemon.Namespace) {
			all = append(all, "mount "+fields[4])
		}
	}
	for what, pattern := range map[string]string{
		"state": n.p.Dir + "/*", "network": filepath.Join(filepath.Dir(n.p.Dir), "networks", "containers", "*"),
		"CNI's result": filepath.Join(filepath.Dir(n.p.Dir), "networks", "cache", "results", "*"),
		"cgroup of v1": "/sys/fs/cgroup/*/" + n.daemon.Namespace + "/*/", "cgroup": "/sys/fs/cgroup/" + n.daemon.Namespace + "/*/",
		"bundle":       filepath.Join(n.daemon.Dir, "state", "io.containerd.runtime.v2.task", n.daemon.Namespace, "*"),
		"runc's state": filepath.Join("/run/containerd/runc", n.daemon.Namespace, "*"),
	} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			n.t.Fatal(err)
		}
		for _, path := range found {
			all = append(all, what+" "+path)
		}
	}
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, file := range files {
		text, err := os.ReadFile(file)
		if line := strings.ReplaceAll(string(text), "\x00", " "); err == nil && (strings.Contains(line, n.p.Dir) ||
			strings.Contains(line, "containerd-shim") && strings.Contains(line, n.daemon.Address)) {
			all = append(all, "process "+line)
		}
	}
	slices.Sort(all)
	return all
}

// gone waits until there is nothing but what there was before.
func (n *node) gone(before []string) {
	n.t.Helper()
	var more []string
	n.eventually("everything of the containers to go", func() bool {
		more = slices.DeleteFunc(n.things(), func(thing string) bool { return slices.Contains(before, thing) })
		return len(more) == 0
	}, func() string { return strings.Join(more, "\n") })
}

// inNetwork is a container on the bridge with a GPU, so that every step has
// something to do.
func (n *node) inNetwork(id string) *box {
	b := n.withGPUs(id, 1)
	b.task.Network = bridged(0, 0)
	return b
}

// TestCrash: the plugin ends after each step of a launch. Its next process knows
// the container or is told of it, cleans it up, and nothing stays.
func TestCrash(t *testing.T) {
	o, config := newOutside(t)
	gpus := make([]string, 32)
	for i := range gpus {
		gpus[i] = fmt.Sprint(i)
	}
	dir, _ := describeGPUs(t, gpus...)
	config["cdi_dirs"] = []string{dir}
	n := withImage(t, config)
	before := n.things()
	steps := len((&maker{}).steps())
	var ids []string
	for i := range steps + 1 {
		id := fmt.Sprintf("crash%02d", i)
		n.halfway(n.inNetwork(id), i)
		ids = append(ids, id)
	}
	root := &box{id: "root", task: &isolatorv1.Task{ExecutorId: "e", SandboxOnly: true, Resources: []*v1.Resource{scalar("mem", 64)}}, spec: n.shell("", "").spec}
	root.spec.Process = nil
	n.halfway(root, steps)
	ids = append(ids, root.id)

	n.restart()
	_, orphans := n.recover()
	// Of the first, which ended before the first step, there is only the image that
	// was provided for it: of that too the agent is told.
	for _, id := range ids {
		if !slices.Contains(orphans, id) {
			t.Errorf("nobody is told of %s: %v", id, orphans)
		}
		if _, err := n.Cleanup(n.ctx(), &isolatorv1.CleanupRequest{Container: id}); err != nil {
			t.Errorf("cleanup of %s: %v", id, err)
		}
	}
	n.gone(before)
	if left := o.Left(); len(left) > 0 {
		t.Errorf("of the networks stays %v", left)
	}
}

// TestStepsFail: a launch that fails after any of its steps has nothing to be
// cleaned up but its image, and its GPU is free.
func TestStepsFail(t *testing.T) {
	o, config := newOutside(t)
	dir, _ := describeGPUs(t, "0")
	config["cdi_dirs"] = []string{dir}
	n := withImage(t, config)
	before := n.things()
	for i := range len((&maker{}).steps()) + 1 {
		m := n.halfway(n.inNetwork(fmt.Sprintf("fails%02d", i)), i)
		if err := m.undo(n.p.connection.in(n.ctx())); err != nil {
			t.Errorf("undo after %d steps: %v", i, err)
		}
		n.gone(before)
	}
	if left := o.Left(); len(left) > 0 {
		t.Errorf("of the networks stays %v", left)
	}
}
