package command

import (
	"encoding/json"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	operatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/operator/v1"
)

// image list --watch tells what comes and goes. Of an agent that does not answer it
// is said once, and its images stay.
func TestImageListWatch(t *testing.T) {
	m := newMaster(t)
	n, address := newNode(t)
	other, otherAddress := newNode(t)
	m.agents = []*operatorv1.Agent{{Id: "m-S0", RpcAddress: address}, {Id: "m-S1", RpcAddress: otherAddress}}
	image := func(agent, name string, containers uint32) *operatorv1.Image {
		return &operatorv1.Image{Name: name, Isolator: "containerd", AgentId: agent, Containers: containers}
	}
	n.setImages(nil, image("m-S0", "busybox", 0))
	other.setImages(nil, image("m-S1", "web", 1))
	c := start(t, "image", "list", "--watch", "--json", "--address", m.address)
	w := m.watched(t)
	w.tell(t, snapshotEnd())
	c.out.await(t, `"id":"m-S0/containerd/busybox","change":"added"`)
	c.out.await(t, `"id":"m-S1/containerd/web","change":"added"`)
	other.setImages(status.Error(codes.Unavailable, "containerd is away"))
	n.setImages(nil, image("m-S0", "busybox", 2))
	c.out.await(t, `"change":"changed"`)
	c.err.await(t, "it did not work on 1 of 2 agents")
	n.setImages(nil)
	c.out.await(t, `"change":"removed"`)
	if got := c.err.String(); strings.Count(got, "agent m-S1: containerd is away") != 1 || strings.Contains(c.out.String(), `"id":"m-S1/containerd/web","change":"removed"`) {
		t.Errorf("it says %s\n%s", got, c.out)
	}
	// Without --watch what could be had is listed, and it fails.
	n.setImages(nil, image("m-S0", "busybox", 0))
	out, errOut, code := invoke(t, "image", "list", "--json", "--address", m.address)
	var images []struct{ Name string }
	if err := json.Unmarshal([]byte(out), &images); err != nil || len(images) != 1 || code != 1 || !strings.Contains(errOut, "agent m-S1: containerd is away") {
		t.Errorf("%d, %s%s, %v", code, out, errOut, err)
	}
}

// Where no agent keeps images, it is said, also by --watch.
func TestImageListNowhere(t *testing.T) {
	m := newMaster(t)
	if _, errOut, code := invoke(t, "image", "list", "--address", m.address); code != 1 || !strings.Contains(errOut, "there is no agent") {
		t.Errorf("without agents: %d, %s", code, errOut)
	}
	n, address := newNode(t)
	n.setImages(status.Error(codes.Unimplemented, "its isolators keep none"))
	m.agents = []*operatorv1.Agent{{Id: "m-S0", RpcAddress: address}}
	for _, more := range []string{"--json", "--watch"} {
		if _, errOut, code := invoke(t, "image", "list", more, "--address", m.address); code != 1 || !strings.Contains(errOut, "no agent keeps images: none has an isolator that does") {
			t.Errorf("%s: %d, %s", more, code, errOut)
		}
	}
}
