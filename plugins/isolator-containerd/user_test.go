package main

import (
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/mezzo-os/mezzo/plugins/isolator-containerd/containerdtest"
	isolatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/isolator/v1"
	v1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
)

// TestImageUser: with type MESOS a process is its framework's user, with type
// DOCKER the image's; and the operator may say that it is always the former.
func TestImageUser(t *testing.T) {
	t.Parallel()
	const name = "mezzo.test/user:1"
	image := containerdtest.Busybox(name)
	image.Config.User = "app"
	image.Files = map[string]string{"/etc/passwd": "root:x:0:0::/:/bin/sh\napp:x:1234:1234::/:/bin/sh\nalice:x:2000:2001::/:/bin/sh\n", "/etc/group": "alice:x:2001:\n"}
	box := func(n *node, id string, kind v1.ContainerInfo_Type) *box {
		b := n.shell(id, "id -u; id -g")
		b.task.User, b.task.Image.Reference, b.task.Container = "alice", name, &v1.ContainerInfo{Type: &kind}
		return b
	}
	n := newNode(t, nil)
	n.daemon.Import(t, image.WriteOCI(t))
	if got := n.outcome(box(n, "mesos", v1.ContainerInfo_MESOS)); got != "2000\n2001\n" {
		t.Errorf("type MESOS: %q", got)
	}
	if got := n.outcome(box(n, "docker", v1.ContainerInfo_DOCKER)); got != "1234\n1234\n" {
		t.Errorf("type DOCKER: %q", got)
	}
	unknown := box(n, "unknown", v1.ContainerInfo_DOCKER)
	unknown.task.User, unknown.task.OwnUser = "stranger", true
	if _, err := n.create(unknown); status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), `user "stranger" is neither in the image nor on the host`) {
		t.Errorf("a user whom nobody knows, and who may not be root: %v", err)
	}
	known := box(n, "known", v1.ContainerInfo_DOCKER)
	known.task.User, known.task.OwnUser, known.spec.Process.User = "hosts", true, specs.User{UID: 77, GID: 78}
	if got := n.outcome(known); got != "77\n78\n" {
		t.Errorf("a user whom only the host knows: %q", got)
	}
	strict := newNode(t, map[string]any{"image_user": "task"})
	strict.daemon.Import(t, image.WriteOCI(t))
	b := box(strict, "strict", v1.ContainerInfo_DOCKER)
	if got := strict.outcome(b); got != "2000\n2001\n" {
		t.Errorf("type DOCKER, where the framework's user counts: %q", got)
	}
	b.task.Options = &isolatorv1.Options{User: "0"}
	if c, err := strict.Claim(strict.ctx(), &isolatorv1.ClaimRequest{Container: "root", Task: b.task}); err != nil ||
		c.GetClaim() != isolatorv1.ClaimResponse_CLAIM_NONE || !strings.Contains(c.GetReason(), "image_user") {
		t.Errorf("a parameter that makes root of alice: %v, %v", c, err)
	}
}
