package main

import (
	"testing"

	"github.com/mezzo-os/mezzo/plugins/isolator-containerd/containerdtest"
	isolatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/isolator/v1"
)

// TestImageVolume: where an image wants a volume, its user finds what the image
// has there, may write, and finds it in the sandbox afterwards.
func TestImageVolume(t *testing.T) {
	n := newNode(t, nil)
	image := containerdtest.Busybox("mezzo.test/volume:1")
	image.Files = map[string]string{"/seeds/one": "1"}
	image.Config.User, image.Config.Volumes = "worker", map[string]struct{}{"/home/worker": {}, "/seeds": {}}
	n.daemon.Import(t, image.WriteOCI(t))
	b := n.shell("v", `echo written > /home/worker/file && cat /home/worker/file /seeds/one && ls -n -d /home/worker | awk '{print " " $3}'`)
	b.task.Image = &isolatorv1.TaskImage{Reference: "mezzo.test/volume:1", Pull: isolatorv1.TaskImage_PULL_NEVER}
	if got := n.outcome(b); got != "written\n1 1234\n" {
		t.Errorf("output %q", got)
	}
	if got := n.read("v", ".volumes/0/file"); got != "written\n" {
		t.Errorf("in the sandbox: %q", got)
	}
}
