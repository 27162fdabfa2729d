package command

import (
	"context"
	"encoding/json"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	operatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/operator/v1"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
)

// Processors are what was used between two rounds; what nests in another container
// is counted with that; and what is not measured any more is not known any more.
func TestMeter(t *testing.T) {
	at := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	round := func(seconds time.Duration, group, task float64) sample {
		return sample{measured: []measured{{agent: "S0", at: at.Add(seconds * time.Second), usages: []*operatorv1.ContainerUsage{
			{Container: "g", FrameworkId: "f", CpuSeconds: group, MemoryBytes: 3 << 20},
			{Container: "g.t", Parent: "g", FrameworkId: "f", TaskId: "t", CpuSeconds: task, MemoryBytes: 1 << 20},
		}}}}
	}
	var m meter
	m.take(round(0, 10, 4))
	key := objectKey{kindTask, "f", "t"}
	if u := m.tasks[key]; u == nil || u.cpus != nil || u.mem != 1 {
		t.Errorf("after one round the task uses %+v", u)
	}
	m.take(round(2, 13, 5))
	for what, got := range map[string]*use{"task": m.tasks[key], "framework": m.frameworks["f"], "agent": m.agents["S0"]} {
		want := map[string][2]float64{"task": {0.5, 1}, "framework": {1.5, 3}, "agent": {1.5, 3}}[what]
		if got == nil || got.cpus == nil || *got.cpus != want[0] || got.mem != want[1] {
			t.Errorf("the %s uses %+v, want %v", what, got, want)
		}
	}
	m.take(round(3, 1, 1)) // others, with the same names
	if u := m.tasks[key]; u.cpus != nil {
		t.Errorf("a container that began again uses %v", *u.cpus)
	}
	m.take(sample{})
	if len(m.tasks)+len(m.frameworks)+len(m.agents) != 0 {
		t.Errorf("what nobody measured is %+v", m)
	}
	if u := m.agent(&operatorv1.Agent{Id: "S1"}); u == nil || *u.cpus != 0 {
		t.Errorf("an agent without tasks uses %v", u)
	}
	if u := m.agent(&operatorv1.Agent{Id: "S1", Tasks: 1}); u != nil {
		t.Errorf("an agent that does not answer uses %v", u)
	}
}

// node is an agent whose containers use half a processor: a second of it at each
// question, as if two had passed, whatever has.
type node struct {
	operatorv1.UnimplementedAgentOperatorServer
	asked atomic.Int64

	mu       sync.Mutex
	images   []*operatorv1.Image
	noImages error
}

// setImages decides what it answers with when it is asked for its images.
func (n *node) setImages(err error, images ...*operatorv1.Image) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.images, n.noImages = images, err
}

func (n *node) ListImages(context.Context, *operatorv1.ListImagesRequest) (*operatorv1.ListImagesResponse, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return &operatorv1.ListImagesResponse{Images: n.images}, n.noImages
}

func (n *node) Usage(context.Context, *operatorv1.ContainerUsageRequest) (*operatorv1.ContainerUsageResponse, error) {
	return &operatorv1.ContainerUsageResponse{Usages: []*operatorv1.ContainerUsage{
		{Container: "c", TaskId: "web.1", FrameworkId: "m-0001", CpuSeconds: float64(n.asked.Add(1)), MemoryBytes: 5 << 20},
	}}, nil
}

func newNode(t *testing.T) (*node, string) {
	t.Helper()
	n := &node{}
	return n, serve(t, func(s *grpc.Server) { operatorv1.RegisterAgentOperatorServer(s, n) })
}

func topSnapshot(t *testing.T, w watchCall, agent string) {
	t.Helper()
	host := &operatorv1.Agent{
		Id: "m-S0", Hostname: "alpha", State: "active", Tasks: 1, RpcAddress: agent,
		Resources: quantities(map[string]float64{"cpus": 4, "mem": 4096}), Allocated: quantities(map[string]float64{"cpus": 1, "mem": 64}),
	}
	idle := proto.CloneOf(host)
	idle.Id, idle.Hostname, idle.Tasks, idle.Allocated = "m-S1", "beta", 0, nil
	w.tell(t, agentEvent(host), agentEvent(idle),
		&operatorv1.WatchEvent{Event: &operatorv1.WatchEvent_Framework{Framework: &operatorv1.Framework{Id: "m-0001", Name: "spark", State: "active", Tasks: 1, Allocated: host.Allocated}}},
		&operatorv1.WatchEvent{Event: &operatorv1.WatchEvent_Role{Role: &operatorv1.Role{Name: "ads", Weight: 2, Allocated: host.Allocated}}},
		taskEvent(webTask(mezzov1.TaskState_TASK_RUNNING, "")), snapshotEnd())
}

// Where it is no terminal it prints once, with what was used meanwhile.
func TestTopOnce(t *testing.T) {
	m := newMaster(t)
	_, agent := newNode(t)
	c := start(t, "top", "--by", "roles", "--interval", "500ms", "--json", "--address", m.address)
	topSnapshot(t, m.watched(t), agent)
	if code := <-c.code; code != 0 {
		t.Fatalf("it ends with %d: %s", code, c.err)
	}
	var rows []topRow
	if err := json.Unmarshal([]byte(c.out.String()), &rows); err != nil {
		t.Fatal(err)
	}
	if len(rows) != 1 || rows[0].ID != "ads" || rows[0].Tasks != 1 || rows[0].CPUs != 1 || rows[0].Share != 0.125 || rows[0].CPUsUsed == nil || *rows[0].CPUsUsed <= 0 || *rows[0].MemUsed != 5 {
		t.Errorf("it prints %s", c.out)
	}
}

// On a terminal it goes on; keys choose what is listed, and q ends it.
func TestTopOnATerminal(t *testing.T) {
	t.Setenv("NO_COLOR", "1")
	m := newMaster(t)
	_, agent := newNode(t)
	outer, inner, seen := terminals(t, 80, 12)
	c := startOn(t, inner, inner, "top", "--interval", "500ms", "--address", m.address)
	topSnapshot(t, m.watched(t), agent)
	seen.await(t, "cpus [########......................]  2 of 8 allocated (25%)") // in a bar of 30
	seen.await(t, "m-S0   alpha     active  1      1/4")
	if strings.Contains(seen.String(), green) {
		t.Error("it has colours, though NO_COLOR is set")
	}
	for _, step := range []struct{ key, shows string }{{"t", "spark on alpha"}, {"r", "ads   2       1"}, {"q", leaveScreen}} {
		if _, err := outer.WriteString(step.key); err != nil {
			t.Fatal(err)
		}
		seen.await(t, step.shows)
	}
	if code := <-c.code; code != 0 {
		t.Errorf("it ends with %d: %s", code, c.err)
	}
}

func TestTopKeys(t *testing.T) {
	x := &top{view: "agents", sort: "cpus", page: 5}
	for _, key := range []byte("tM j") {
		if !x.press(key) {
			t.Fatalf("%q ends it", key)
		}
	}
	if x.view != "tasks" || x.sort != "mem-used" || x.scroll != 6 {
		t.Errorf("after the keys: %+v", x)
	}
	for _, key := range []byte("q\x03") {
		if x.press(key) {
			t.Errorf("%q does not end it", key)
		}
	}
}
