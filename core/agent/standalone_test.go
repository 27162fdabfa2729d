package agent_test

import (
	"os"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	isolatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/isolator/v1"
	operatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/operator/v1"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
	"github.com/mezzo-os/mezzo/sdk/resource"
)

func standaloneRequest(id string) *operatorv1.LaunchContainerRequest {
	return &operatorv1.LaunchContainerRequest{
		ContainerId: id, Command: &mezzov1.CommandInfo{Value: proto.String("date"), User: proto.String(me())},
		Resources: resource.MustParse("cpus:0.1;mem:32").ToProto(),
	}
}

// waiting waits for a standalone container's end.
func (p *process) waiting(t *testing.T, id string) <-chan *operatorv1.WaitContainerResponse {
	t.Helper()
	out := make(chan *operatorv1.WaitContainerResponse, 1)
	ctx := within(t)
	go func() {
		defer close(out)
		if r, err := p.WaitContainer(ctx, &operatorv1.WaitContainerRequest{ContainerId: id}); err == nil {
			out <- r
		}
	}()
	return out
}

// A standalone container lives without a framework, is found again by the agent's
// next process, and its end is known until it is removed.
func TestStandaloneContainer(t *testing.T) {
	k, m := newKernel(), newMaster(t)
	p := start(t, options(t, m, newIsolator(t, k).up()))
	m.registered()
	m.ready()
	launch := func(q *operatorv1.LaunchContainerRequest) (bool, codes.Code) {
		t.Helper()
		r, err := p.LaunchContainer(within(t), q)
		return r.GetAlready(), status.Code(err)
	}
	remove := func(id string) codes.Code {
		t.Helper()
		_, err := p.RemoveContainer(within(t), &operatorv1.RemoveContainerRequest{ContainerId: id})
		return status.Code(err)
	}
	if already, code := launch(standaloneRequest("one")); already || code != codes.OK {
		t.Fatalf("launched: %v, %v", already, code)
	}
	if already, code := launch(standaloneRequest("one")); !already || code != codes.OK {
		t.Errorf("launched again: %v, %v", already, code)
	}
	box := k.get("one")
	if !strings.HasSuffix(box.sandbox, "/work/containers/one") || box.task.GetFrameworkId() != "" || !resourcesOf(t, box).Equal(resource.MustParse("cpus:0.1;mem:32")) {
		t.Errorf("it is made as %v in %s", box.task, box.sandbox)
	}
	if _, err := os.Stat(box.sandbox); err != nil {
		t.Error(err)
	}
	shown := func() *operatorv1.Container {
		t.Helper()
		state, err := p.GetState(within(t), &operatorv1.GetAgentStateRequest{})
		if err != nil {
			t.Fatal(err)
		}
		if len(state.GetContainers()) != 1 {
			return nil
		}
		return state.GetContainers()[0]
	}
	if c := shown(); !c.GetStandalone() || c.GetId() != "one" || c.GetState() != "running" || c.GetPid() != 4711 {
		t.Errorf("it is shown as %v", c)
	}
	if code := remove("one"); code != codes.FailedPrecondition {
		t.Errorf("removed while it runs: %v", code)
	}
	if code := remove("two"); code != codes.NotFound {
		t.Errorf("one that there is not is removed: %v", code)
	}

	waits := func(k *kernel) (n int) {
		for _, c := range k.calls {
			if c == "wait one" {
				n++
			}
		}
		return n
	}
	k.await(t, "the wait for it", func(k *kernel) bool { return waits(k) > 0 })
	o := p.crashed(t) // nobody waits any more
	k.mu.Lock()
	before := waits(k)
	k.mu.Unlock()
	p = start(t, o)
	m.registered()
	k.await(t, "its recovery", func(k *kernel) bool { return waits(k) > before })
	if c := shown(); !c.GetStandalone() || c.GetState() != "running" {
		t.Errorf("after a restart it is shown as %v", c)
	}
	end := p.waiting(t, "one")
	k.exit("one", &isolatorv1.ExitStatus{Known: true, Code: 3})
	if r := receive(t, "its end", end); r.GetEnd().GetCode() != 3 {
		t.Errorf("it ended with %v", r)
	}
	if c := shown(); c != nil {
		t.Errorf("it has ended and is shown as %v", c)
	}
	if _, code := launch(standaloneRequest("one")); code != codes.FailedPrecondition {
		t.Errorf("launched while its end is kept: %v", code)
	}
	p = start(t, p.crashed(t))
	m.registered()
	if r := receive(t, "its end, after a restart", p.waiting(t, "one")); r.GetEnd().GetCode() != 3 {
		t.Errorf("it ended with %v", r)
	}
	if code := remove("one"); code != codes.OK {
		t.Errorf("removed: %v", code)
	}
	if _, err := p.WaitContainer(within(t), &operatorv1.WaitContainerRequest{ContainerId: "one"}); status.Code(err) != codes.NotFound {
		t.Errorf("it is removed, and its end is %v", err)
	}
	if already, code := launch(standaloneRequest("one")); already || code != codes.OK {
		t.Errorf("launched anew: %v, %v", already, code)
	}
	k.exit("one", &isolatorv1.ExitStatus{})
}

// What cannot be is refused, with nothing left of it.
func TestStandaloneContainerIsRefused(t *testing.T) {
	k, m := newKernel(), newMaster(t)
	p := start(t, options(t, m, newIsolator(t, k).up()))
	m.registered()
	m.ready()
	for name, c := range map[string]struct {
		change func(*operatorv1.LaunchContainerRequest)
		want   string
	}{
		"a path":    {func(q *operatorv1.LaunchContainerRequest) { q.ContainerId = "../up" }, "other characters"},
		"no id":     {func(q *operatorv1.LaunchContainerRequest) { q.ContainerId = "" }, "1 to 128"},
		"nothing":   {func(q *operatorv1.LaunchContainerRequest) { q.Command = nil }, "no command"},
		"a role's":  {func(q *operatorv1.LaunchContainerRequest) { q.Resources = resource.MustParse("cpus(db):1").ToProto() }, "not be reserved"},
		"nobody is": {func(q *operatorv1.LaunchContainerRequest) { q.Command.Value = nil }, "no value"},
	} {
		q := standaloneRequest("one")
		c.change(q)
		if _, err := p.LaunchContainer(within(t), q); status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
	k.mu.Lock()
	k.fail["create"] = status.Error(codes.Internal, "no room")
	k.mu.Unlock()
	if _, err := p.LaunchContainer(within(t), standaloneRequest("one")); status.Code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), "no room") {
		t.Errorf("one that cannot be made: %v", err)
	}
	k.await(t, "its cleanup", k.called("cleanup one"))
	k.mu.Lock()
	delete(k.fail, "create")
	k.mu.Unlock()
	if r, err := p.LaunchContainer(within(t), standaloneRequest("one")); err != nil || r.GetAlready() {
		t.Errorf("made after all: %v, %v", r, err)
	}
	k.exit("one", &isolatorv1.ExitStatus{})
}
