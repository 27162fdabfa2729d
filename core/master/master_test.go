package master_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/hcl/v2"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/mezzo-os/mezzo/config"
	"github.com/mezzo-os/mezzo/core/master"
	"github.com/mezzo-os/mezzo/core/rpc/rpctest"
	"github.com/mezzo-os/mezzo/sdk/allocator"
	"github.com/mezzo-os/mezzo/sdk/allocator/engine"
	"github.com/mezzo-os/mezzo/sdk/client"
	"github.com/mezzo-os/mezzo/sdk/framework"
	"github.com/mezzo-os/mezzo/sdk/plugin"
	operatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/operator/v1"
	pluginv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/plugin/v1"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
	schedulerv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1/scheduler"
	"github.com/mezzo-os/mezzo/sdk/resource"
)

// TestMain is an adapter's main, too, when a plugin host starts this binary.
func TestMain(m *testing.M) {
	if os.Getenv(plugin.CookieKey) == plugin.CookieValue {
		serveProbe()
		return
	}
	goleak.VerifyTestMain(m)
}

// patience bounds what a test waits for.
const patience = 30 * time.Second

func await[T any](t testing.TB, what string, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(patience):
		t.Fatalf("waited in vain for %s", what)
		panic("unreachable")
	}
}

// fair is an allocator in this process, by the real engine over the real wire.
func fair(t testing.TB) grpc.ClientConnInterface {
	t.Helper()
	def := allocator.Definition{
		Name: "fair", Version: "1.0.0",
		NewPolicy: func(any) (allocator.Policy, []plugin.Diagnostic) { return &engine.DominantShare{}, nil },
	}
	local, err := plugin.StartLocal(def.Plugin(), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(local.Close)
	if _, err := pluginv1.NewPluginClient(local.Conn).Configure(t.Context(), &pluginv1.ConfigureRequest{ContractVersion: 1}); err != nil {
		t.Fatal(err)
	}
	return local.Conn
}

func options(t testing.TB) master.Options {
	return master.Options{
		Version:   "0.1.0",
		Allocator: fair(t),
		Config: config.Master{
			DataDir: t.TempDir(), RPC: "127.0.0.1:0", HTTP: "127.0.0.1:0",
			BatchInterval: time.Millisecond, MinRefuse: time.Second, MaxDecisionsPerSecond: 100_000,
			AgentPingInterval: 15 * time.Second, AgentPingTimeouts: 5, AgentReregisterTimeout: time.Minute,
			MaxCompletedFrameworks: 50, MaxCompletedTasks: 1000,
		},
	}
}

// running is a master that runs until stop, or the end of the test.
type running struct {
	*master.Master
	stop func() error
}

func start(t testing.TB, o master.Options) *running {
	t.Helper()
	m, err := master.New(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx) }()
	stopped := false
	r := &running{Master: m, stop: func() error {
		if stopped {
			return nil
		}
		stopped = true
		cancel()
		return await(t, "the master's end", done)
	}}
	t.Cleanup(func() {
		if err := r.stop(); err != nil {
			t.Errorf("the master ended with %v", err)
		}
	})
	select {
	case <-m.Ready():
	case err := <-done:
		t.Fatalf("the master ended at once: %v", err)
	case <-time.After(patience):
		t.Fatal("the master is not ready")
	}
	return r
}

func (r *running) operator(t *testing.T) operatorv1.OperatorClient {
	return operatorv1.NewOperatorClient(dial(t, r.Addresses()["rpc"]))
}

func dial(t *testing.T, address string) *grpc.ClientConn {
	t.Helper()
	conn, err := client.Dial(address, client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// events are what a framework under test was told, as it comes.
type events struct {
	*framework.Scheduler
	subscribed   chan bool // again
	offers       chan *mezzov1.Offer
	updates      chan *mezzov1.TaskStatus
	disconnected chan error
	ended        chan error
	stop         context.CancelFunc
}

func subscribe(t testing.TB, address string, info *mezzov1.FrameworkInfo) *events {
	t.Helper()
	e := &events{
		subscribed: make(chan bool, 100), offers: make(chan *mezzov1.Offer, 1000), updates: make(chan *mezzov1.TaskStatus, 10000),
		disconnected: make(chan error, 100), ended: make(chan error, 1),
	}
	s, err := framework.New(framework.Options{
		Masters: []string{address}, Info: info, BackoffMin: 10 * time.Millisecond, BackoffMax: 100 * time.Millisecond,
		Callbacks: framework.Callbacks{
			Subscribed: func(_ *framework.Scheduler, _ string, again bool) { e.subscribed <- again },
			Offers: func(_ *framework.Scheduler, offers []*mezzov1.Offer) {
				for _, o := range offers {
					e.offers <- o
				}
			},
			Update:       func(_ *framework.Scheduler, s *mezzov1.TaskStatus) { e.updates <- s },
			Disconnected: func(_ *framework.Scheduler, err error) { e.disconnected <- err },
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	e.Scheduler = s
	ctx, cancel := context.WithCancel(context.Background())
	finished := make(chan struct{})
	go func() {
		defer close(finished)
		e.ended <- s.Run(ctx)
	}()
	e.stop = func() {
		cancel()
		await(t, "the scheduler's end", finished)
	}
	t.Cleanup(e.stop)
	return e
}

func info(name string) *mezzov1.FrameworkInfo {
	return &mezzov1.FrameworkInfo{
		User: proto.String("nobody"), Name: proto.String(name), Roles: []string{"*"}, FailoverTimeout: proto.Float64(3600),
		Capabilities: []*mezzov1.FrameworkInfo_Capability{{Type: mezzov1.FrameworkInfo_Capability_MULTI_ROLE.Enum()}},
	}
}

func task(id, resources string) *mezzov1.TaskInfo {
	return &mezzov1.TaskInfo{
		Name: proto.String(id), TaskId: &mezzov1.TaskID{Value: proto.String(id)},
		Resources: resource.MustParse(resources).ToProto(),
		Command:   &mezzov1.CommandInfo{Value: proto.String("true")},
	}
}

// launch accepts an offer with these tasks, and does not wait. What is left is
// wanted again at once.
func (e *events) launch(offer *mezzov1.Offer, tasks []*mezzov1.TaskInfo) {
	e.Send(&schedulerv1.Call{Type: schedulerv1.Call_ACCEPT.Enum(), Accept: &schedulerv1.Call_Accept{
		OfferIds: []*mezzov1.OfferID{offer.GetId()}, Filters: &mezzov1.Filters{RefuseSeconds: proto.Float64(0)},
		Operations: []*mezzov1.Offer_Operation{{
			Type: mezzov1.Offer_Operation_LAUNCH.Enum(), Launch: &mezzov1.Offer_Operation_Launch{TaskInfos: tasks},
		}},
	}})
}

// until reads updates of a task until it has this state.
func (e *events) until(t *testing.T, id string, want mezzov1.TaskState) *mezzov1.TaskStatus {
	t.Helper()
	for {
		s := await(t, id+" to be "+want.String(), e.updates)
		if s.GetTaskId().GetValue() == id && s.GetState() == want {
			return s
		}
	}
}

func TestTasksRunThroughMasterAndAllocator(t *testing.T) {
	m := start(t, options(t))
	a := newAgent(t, "h1", "cpus:4;mem:4096;ports:[31000-31009]")
	a.connect(m.Addresses()["rpc"])
	e := subscribe(t, m.Addresses()["rpc"], info("test"))
	if again := await(t, "the subscription", e.subscribed); again {
		t.Error("the first subscription is told as another")
	}
	offer := await(t, "an offer", e.offers)
	if offer.GetHostname() != "h1" || offer.GetFrameworkId().GetValue() != e.FrameworkID() {
		t.Errorf("the offer is %v", offer)
	}
	if err := e.Launch(t.Context(), offer, task("t1", "cpus:1;mem:64"), task("t2", "cpus:1;mem:64")); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"t1", "t2"} {
		e.until(t, id, mezzov1.TaskState_TASK_RUNNING)
	}
	operator := m.operator(t)
	awaitStatus(t, operator, func(s *operatorv1.Status) bool {
		return s.Tasks.GetRunning() == 2 && s.Agents.GetActive() == 1 && s.Frameworks.GetActive() == 1 && s.Allocated.GetFields()["cpus"].GetNumberValue() == 2
	})
	checkPages(t, "http://"+m.Addresses()["http"])
	// An operator's kill, and a task that ends by itself.
	if _, err := operator.KillTask(t.Context(), &operatorv1.KillTaskRequest{TaskId: "t1"}); err != nil {
		t.Fatal(err)
	}
	e.until(t, "t1", mezzov1.TaskState_TASK_KILLED)
	a.finish(e.FrameworkID(), "t2")
	e.until(t, "t2", mezzov1.TaskState_TASK_FINISHED)
	_, err := operator.KillTask(t.Context(), &operatorv1.KillTaskRequest{TaskId: "t9"})
	if status.Code(err) != codes.NotFound {
		t.Errorf("killing a task that is not there: %v", err)
	}
	// Both updates were acknowledged, so the agent has nothing left to tell.
	a.settled()
	explained, err := operator.Explain(t.Context(), &operatorv1.ExplainRequest{FrameworkId: e.FrameworkID(), Agents: true})
	if err != nil || len(explained.Roles) != 1 || explained.Roles[0].Role != "*" {
		t.Errorf("explain: %v, %v", explained, err)
	}
	awaitNumbers(t, operator, e.FrameworkID(), func(n map[string]float64) bool {
		return n["calls_total subscribe"] == 1 && n["calls_total accept"] == 1 && n["events_total subscribed"] == 1 && n["events_total update"] >= 4 &&
			n["offers_total sent"] >= 1 && n["offers_total accepted"] == 1 && n["operations_total launch"] == 1 &&
			n["tasks_ended_total task_killed"] == 1 && n["tasks_ended_total task_finished"] == 1
	})
	if err := e.Teardown(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := await(t, "the scheduler's end", e.ended); !errors.Is(err, framework.ErrEnded) {
		t.Errorf("after teardown the scheduler ended with %v", err)
	}
	awaitNumbers(t, operator, e.FrameworkID(), func(n map[string]float64) bool { return len(n) == 0 })
}

// awaitNumbers asks until a framework's numbers are as wanted.
func awaitNumbers(t *testing.T, operator operatorv1.OperatorClient, id string, want func(map[string]float64) bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var last map[string]float64
	for {
		answer, err := operator.GetMetrics(ctx, &operatorv1.GetMetricsRequest{})
		if err != nil {
			t.Fatalf("waited in vain: %v; the last numbers are %v", err, last)
		}
		last = map[string]float64{}
		for _, x := range answer.Metrics {
			if l := x.Labels; l["framework"] == id {
				last[strings.TrimPrefix(x.Name, "mezzo_master_framework_")+" "+l["type"]+l["outcome"]+l["state"]] = x.Value
			}
		}
		if want(last) {
			return
		}
	}
}

// awaitStatus asks until the status is as wanted: what is shown follows what
// has happened by a moment.
func awaitStatus(t *testing.T, operator operatorv1.OperatorClient, want func(*operatorv1.Status) bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var last *operatorv1.Status
	for {
		s, err := operator.GetStatus(ctx, &operatorv1.GetStatusRequest{})
		if err != nil {
			t.Fatalf("waited in vain: %v; the last status is %v", err, last)
		}
		if last = s; want(s) {
			return
		}
	}
}

func checkPages(t *testing.T, base string) {
	t.Helper()
	c := &http.Client{Transport: &http.Transport{}}
	defer c.CloseIdleConnections()
	for path, want := range map[string]string{
		"/healthz":                   "ok",
		"/readyz":                    "ready\nleader: this master\nregistry: writable\nallocator: ready\n",
		"/metrics":                   `mezzo_master_tasks{state="task_running"} 2`,
		"/v1/status":                 `"leadership":"leading"`,
		"/v1/agents":                 `"hostname":"h1"`,
		"/v1/frameworks":             `"name":"test"`,
		"/v1/tasks":                  `"state":"TASK_RUNNING"`,
		"/v1/tasks?framework_id=not": "[]",
		"/v1/roles":                  `"name":"*"`,
		"/v1/offers":                 "[",
		"/v1/plugins":                "[",
	} {
		answer, err := c.Get(base + path)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(answer.Body)
		answer.Body.Close()
		if err != nil || answer.StatusCode != 200 || !strings.Contains(string(body), want) {
			t.Errorf("GET %s: %d %v\n%s\nwant %s", path, answer.StatusCode, err, body, want)
		}
	}
}

func TestMasterRestartsOnItsData(t *testing.T) {
	o := options(t)
	first := start(t, o)
	o.Config.RPC = first.Addresses()["rpc"]
	a := newAgent(t, "h1", "cpus:4;mem:4096")
	a.connect(o.Config.RPC)
	e := subscribe(t, o.Config.RPC, info("test"))
	await(t, "the subscription", e.subscribed)
	if err := e.Launch(t.Context(), await(t, "an offer", e.offers), task("t1", "cpus:1;mem:64")); err != nil {
		t.Fatal(err)
	}
	e.until(t, "t1", mezzov1.TaskState_TASK_RUNNING)
	id, agentID := e.FrameworkID(), a.id
	before, err := first.operator(t).GetStatus(t.Context(), &operatorv1.GetStatusRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if err := first.stop(); err != nil {
		t.Fatal(err)
	}
	await(t, "the scheduler to notice", e.disconnected)
	a.lost()

	o.Allocator = fair(t)
	second := start(t, o)
	if again := await(t, "the second subscription", e.subscribed); !again || e.FrameworkID() != id {
		t.Errorf("the framework is %s (again %v), was %s", e.FrameworkID(), again, id)
	}
	a.connect(o.Config.RPC)
	if a.id != agentID {
		t.Errorf("the agent's id is %s, was %s", a.id, agentID)
	}
	operator := second.operator(t)
	awaitStatus(t, operator, func(s *operatorv1.Status) bool {
		return s.Tasks.GetRunning() == 1 && s.Epoch > before.Epoch && s.MasterId != before.MasterId
	})
	// The agent still takes orders about the task.
	if err := e.Kill(t.Context(), "t1", nil); err != nil {
		t.Fatal(err)
	}
	e.until(t, "t1", mezzov1.TaskState_TASK_KILLED)
}

func TestSecondSchedulerTakesOver(t *testing.T) {
	m := start(t, options(t))
	address := m.Addresses()["rpc"]
	first := subscribe(t, address, info("test"))
	await(t, "the subscription", first.subscribed)
	again := info("test")
	again.Id = &mezzov1.FrameworkID{Value: proto.String(first.FrameworkID())}
	second := subscribe(t, address, again)
	await(t, "the second subscription", second.subscribed)
	if err := await(t, "the first scheduler's end", first.ended); !errors.Is(err, framework.ErrEnded) {
		t.Errorf("the first scheduler ended with %v", err)
	}
	if second.FrameworkID() != first.FrameworkID() {
		t.Errorf("the second has id %s, the first %s", second.FrameworkID(), first.FrameworkID())
	}
	if err := second.Revive(t.Context()); err != nil {
		t.Errorf("the second cannot call: %v", err)
	}
}

func TestCallsAreAnsweredInOrder(t *testing.T) {
	m := start(t, options(t))
	e := subscribe(t, m.Addresses()["rpc"], info("test"))
	await(t, "the subscription", e.subscribed)
	stream, err := schedulerv1.NewSchedulerClient(dial(t, m.Addresses()["rpc"])).Calls(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	// A call of nobody in particular, of an unknown framework, and a wrong one.
	const calls = 300
	for i := range calls {
		call := &schedulerv1.Call{
			Type: schedulerv1.Call_REVIVE.Enum(), Revive: &schedulerv1.Call_Revive{}, Sequence: proto.Uint64(uint64(i)),
			FrameworkId: &mezzov1.FrameworkID{Value: proto.String("not-known")}, StreamId: proto.String("guess"),
		}
		if i%3 == 0 {
			call.FrameworkId.Value = proto.String(e.FrameworkID())
		}
		if err := stream.Send(call); err != nil {
			t.Fatal(err)
		}
	}
	if err := stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
	for i := range calls {
		result, err := stream.Recv()
		if err != nil {
			t.Fatalf("result %d: %v", i, err)
		}
		if result.GetSequence() != uint64(i) || result.GetCode() == schedulerv1.CallResult_ACCEPTED {
			t.Fatalf("result %d is %v", i, result)
		}
	}
	if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
		t.Errorf("after the last result: %v", err)
	}
}

func TestSlowSchedulerIsTold(t *testing.T) {
	m := start(t, options(t))
	a := newAgent(t, "h1", "cpus:4;mem:4096")
	a.connect(m.Addresses()["rpc"])
	slow, err := schedulerv1.NewSchedulerClient(dial(t, m.Addresses()["rpc"])).Subscribe(t.Context(), &schedulerv1.Call_Subscribe{FrameworkInfo: info("slow")})
	if err != nil {
		t.Fatal(err)
	}
	first, err := slow.Recv()
	if err != nil {
		t.Fatal(err)
	}
	id := first.GetSubscribed().GetFrameworkId().GetValue()
	operator := m.operator(t)
	// It reads no more, while an executor sends it a lot.
	for range 300 {
		a.message(id, make([]byte, 200<<10))
	}
	awaitStatus(t, operator, func(s *operatorv1.Status) bool { return s.Frameworks.GetActive() == 0 })
	told := ""
	for {
		event, err := slow.Recv()
		if err != nil {
			if status.Code(err) != codes.ResourceExhausted {
				t.Errorf("the stream ended with %v", err)
			}
			break
		}
		if event.GetType() == schedulerv1.Event_ERROR {
			told = event.GetError().GetMessage()
		}
	}
	if !strings.Contains(told, "too slowly") {
		t.Errorf("it was told %q", told)
	}
	// Others are unharmed.
	e := subscribe(t, m.Addresses()["rpc"], info("quick"))
	await(t, "an offer", e.offers)
}

func TestWatchIsASnapshotAndThenEvents(t *testing.T) {
	m := start(t, options(t))
	a := newAgent(t, "h1", "cpus:4;mem:4096")
	a.connect(m.Addresses()["rpc"])
	operator := m.operator(t)
	awaitStatus(t, operator, func(s *operatorv1.Status) bool { return s.Agents.GetActive() == 1 })
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	watch, err := operator.Watch(ctx, &operatorv1.WatchRequest{})
	if err != nil {
		t.Fatal(err)
	}
	next := func() *operatorv1.WatchEvent {
		t.Helper()
		event, err := watch.Recv()
		if err != nil {
			t.Fatal(err)
		}
		return event
	}
	agents := 0
	var number uint64
	for {
		event := next()
		if event.Number != 0 {
			t.Errorf("a snapshot's event has number %d", event.Number)
		}
		if event.GetAgent() != nil {
			agents++
		}
		if end := event.GetSnapshotEnd(); end != nil {
			number = end.Next
			break
		}
	}
	if agents != 1 {
		t.Errorf("the snapshot has %d agents", agents)
	}
	e := subscribe(t, m.Addresses()["rpc"], info("test"))
	await(t, "the subscription", e.subscribed)
	for {
		event := next()
		if event.Number != number {
			t.Fatalf("event %d came, want %d", event.Number, number)
		}
		number++
		if event.GetFramework().GetName() == "test" {
			break
		}
	}
	if err := m.stop(); err != nil {
		t.Error(err)
	}
	for err == nil {
		_, err = watch.Recv()
	}
	if status.Code(err) != codes.Unavailable {
		t.Errorf("the watch ended with %v", err)
	}
}

func TestMutualTLS(t *testing.T) {
	authority, other := rpctest.NewAuthority(t), rpctest.NewAuthority(t)
	o := options(t)
	files := authority.Issue("master")
	o.Config.TLS = &config.TLS{CA: files.CA, Cert: files.Cert, Key: files.Key}
	m := start(t, o)
	ask := func(f client.Files) error {
		c, err := f.Client()
		if err != nil {
			t.Fatal(err)
		}
		conn, err := client.Leader(t.Context(), []string{m.Addresses()["rpc"]}, client.Options{TLS: c})
		if err == nil {
			conn.Close()
		}
		return err
	}
	if err := ask(authority.Issue("friend")); err != nil {
		t.Errorf("a certified client: %v", err)
	}
	if err := ask(other.Issue("stranger")); err == nil {
		t.Error("a client of another authority was served")
	}
}

func TestStartThatFailsLeavesNothing(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for name, change := range map[string]func(*master.Options){
		"in use":             func(o *master.Options) { o.Config.HTTP = taken.Addr().String() },
		"not on loopback":    func(o *master.Options) { o.Config.RPC = "0.0.0.0:0" },
		"no server is named": func(o *master.Options) { o.Config.Registry.Kind = "zookeeper" },
		"is not a directory": func(o *master.Options) {
			o.Config.DataDir = filepath.Join(o.Config.DataDir, "file", "data")
			if err := os.WriteFile(filepath.Dir(o.Config.DataDir), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		},
	} {
		o := options(t)
		change(&o)
		if _, err := master.New(o); err == nil || !strings.Contains(err.Error(), name) && !strings.Contains(err.Error(), "not a directory") {
			t.Errorf("%s: %v", name, err)
		}
		// What was opened is closed: a second try gets as far.
		o.Config.HTTP, o.Config.RPC = "127.0.0.1:0", "127.0.0.1:0"
		o.Config.Election.Kind, o.Config.Registry.Kind, o.Config.Frameworks = "", "", nil
		if name != "is not a directory" {
			m, err := master.New(o)
			if err != nil {
				t.Errorf("after %s: %v", name, err)
				continue
			}
			m.Close()
		}
	}
}

func TestAllocatorThatDoesNotStart(t *testing.T) {
	o := options(t)
	o.Allocator = nil
	o.Config.PluginDir = t.TempDir()
	o.Config.Allocator = &config.Plugin{Kind: config.KindAllocator, Name: "drf", Body: hcl.EmptyBody()}
	m, err := master.New(o)
	if err != nil {
		t.Fatal(err)
	}
	err = m.Run(t.Context())
	if err == nil || !strings.Contains(err.Error(), "mezzo-allocator-drf") {
		t.Errorf("got %v", err)
	}
	select {
	case <-m.Ready():
		t.Error("it was ready")
	default:
	}
}

func TestGarbageHarmsNobody(t *testing.T) {
	o := options(t)
	o.HandshakeTimeout = 100 * time.Millisecond
	m := start(t, o)
	for _, said := range []string{"", "GET / HTTP/1.1\r\n\r\n", strings.Repeat("\x00\xff", 5000), "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + strings.Repeat("\xff", 500)} {
		conn, err := net.Dial("tcp", m.Addresses()["rpc"])
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := io.WriteString(conn, said); err != nil {
			t.Logf("cut off while it spoke: %v", err)
		}
	}
	a := newAgent(t, "h1", "cpus:4;mem:4096")
	a.connect(m.Addresses()["rpc"])
	e := subscribe(t, m.Addresses()["rpc"], info("test"))
	await(t, "an offer", e.offers)
}
