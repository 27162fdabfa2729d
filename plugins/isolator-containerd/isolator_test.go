package main

import (
	"strings"
	"testing"

	isolatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/isolator/v1"
)

// TestRun: a task in an image has its sandbox, its output and its exit status.
func TestRun(t *testing.T) {
	t.Parallel()
	n := withImage(t, nil)
	b := n.shell("c1", `cd /mnt/mesos/sandbox; echo "$GREETING from $(pwd) as $(id -u)"; echo woe >&2; echo kept > file; test $$ != 1; exit 3`)
	created := n.run(b)
	if created.GetPid() == 0 {
		t.Error("no pid")
	}
	if s := n.wait("c1"); s.GetCode() != 3 || !s.GetKnown() {
		t.Errorf("status %v", s)
	}
	if got, want := n.read("c1", "stdout"), "hello from /mnt/mesos/sandbox as 0\n"; got != want {
		t.Errorf("stdout %q, want %q", got, want)
	}
	if got := n.read("c1", "stderr"); got != "woe\n" {
		t.Errorf("stderr %q", got)
	}
	if got := n.read("c1", "file"); !strings.HasPrefix(got, "kept") {
		t.Errorf("what the task wrote in its sandbox: %q", got)
	}
	if _, err := n.Cleanup(n.ctx(), &isolatorv1.CleanupRequest{Container: "c1"}); err != nil {
		t.Error(err)
	}
	n.nothingLeft()
}
