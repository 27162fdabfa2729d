package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	isolatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/isolator/v1"
)

// shims are how many shims a container has.
func (n *node) shims(id string) (count int) {
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, file := range files {
		if text, err := os.ReadFile(file); err == nil && isShim(strings.Split(string(text), "\x00"), n.daemon.Namespace, name(id), n.daemon.Address) {
			count++
		}
	}
	return count
}

// TestStrayShim: a shim that containerd was killed before it knew goes with its
// container.
func TestStrayShim(t *testing.T) {
	t.Parallel()
	n := withImage(t, nil)
	n.run(n.shell("c1", "sleep 1000"))
	n.run(n.shell("c2", "sleep 1000"))
	n.daemon.Kill()
	bundle := filepath.Join(n.daemon.Dir, "state", "io.containerd.runtime.v2.task", n.daemon.Namespace, "c1")
	noted := false
	for _, file := range []string{"address", "bootstrap.json"} { // of 1.x, of 2.x
		noted = os.Remove(filepath.Join(bundle, file)) == nil || noted
	}
	if !noted {
		t.Fatalf("where this containerd notes its shim's address is not known: %s", bundle)
	}
	n.daemon.Run(t)
	n.eventually("the plugin to reach containerd", func() bool { return n.p.connection.probe(n.ctx()) == nil })
	if n.shims("c1") != 1 {
		t.Fatalf("%d shims of c1: containerd ends it by itself", n.shims("c1"))
	}
	if _, err := n.Cleanup(n.ctx(), &isolatorv1.CleanupRequest{Container: "c1"}); err != nil {
		t.Fatal(err)
	}
	n.eventually("the shim to end", func() bool { return n.shims("c1") == 0 })
	if n.shims("c2") != 1 {
		t.Errorf("the other container has %d shims", n.shims("c2"))
	}
}
