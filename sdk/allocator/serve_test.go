package allocator_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/mezzo-os/mezzo/sdk/allocator"
	"github.com/mezzo-os/mezzo/sdk/allocator/engine"
	"github.com/mezzo-os/mezzo/sdk/metric"
	"github.com/mezzo-os/mezzo/sdk/plugin"
	allocatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/allocator/v1"
	pluginv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/plugin/v1"
	"github.com/mezzo-os/mezzo/sdk/resource"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func drf() allocator.Definition {
	return allocator.Definition{
		Name: "drf", Version: "1.0.0",
		NewPolicy: func(any) (allocator.Policy, []plugin.Diagnostic) { return &engine.DominantShare{}, nil },
	}
}

// wire is the core's end of one session over a real connection.
type wire struct {
	t       *testing.T
	stream  grpc.BidiStreamingClient[allocatorv1.FromCore, allocatorv1.FromAllocator]
	encoder *allocator.Encoder
	next    uint64
	seen    uint64
}

func connect(t *testing.T, def allocator.Definition) allocatorv1.AllocatorClient {
	t.Helper()
	local, err := plugin.StartLocal(def.Plugin(), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(local.Close)
	if _, err := pluginv1.NewPluginClient(local.Conn).Configure(t.Context(), &pluginv1.ConfigureRequest{ContractVersion: 1}); err != nil {
		t.Fatal(err)
	}
	return allocatorv1.NewAllocatorClient(local.Conn)
}

func open(t *testing.T, client allocatorv1.AllocatorClient, begin allocator.Begin, snapshot ...allocator.Event) *wire {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	stream, err := client.Allocate(ctx)
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{t: t, stream: stream, encoder: allocator.NewEncoder(), next: 1}
	w.send(&allocatorv1.FromCore{Session: 7, Begin: begin.Proto()})
	for _, b := range w.encoder.Encode(allocator.Batch{Snapshot: true, SnapshotEnd: true, Events: snapshot}) {
		w.send(&allocatorv1.FromCore{Session: 7, Batch: b})
	}
	return w
}

func (w *wire) send(m *allocatorv1.FromCore) {
	w.t.Helper()
	if err := w.stream.Send(m); err != nil {
		w.t.Fatal(err)
	}
}

func (w *wire) tell(events ...allocator.Event) {
	w.t.Helper()
	for _, b := range w.encoder.Encode(allocator.Batch{FirstEvent: w.next, Events: events, DecisionsSeen: w.seen}) {
		w.send(&allocatorv1.FromCore{Session: 7, Batch: b})
	}
	w.next += uint64(len(events))
}

// cycle receives until a cycle was reported that made offers.
func (w *wire) cycle() []*allocator.Offer {
	w.t.Helper()
	var out []*allocator.Offer
	for {
		m, err := w.stream.Recv()
		if err != nil {
			w.t.Fatal(err)
		}
		if m.GetSession() != 7 {
			w.t.Fatalf("session %d, want 7", m.GetSession())
		}
		for _, d := range m.GetDecisions() {
			decision, err := w.encoder.Decision(d)
			if err != nil {
				w.t.Fatal(err)
			}
			w.seen = d.GetNumber()
			out = append(out, decision.(*allocator.Offer))
		}
		if m.GetCycle() != nil && len(out) > 0 {
			return out
		}
	}
}

func parse(t testing.TB, text string) resource.Resources {
	t.Helper()
	r, err := resource.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func show(offers []*allocator.Offer) []string {
	var out []string
	for _, o := range offers {
		out = append(out, fmt.Sprintf("%d %s to %s in %s on %s", o.Number, o.Resources, o.Framework, o.Role, o.Agent))
	}
	return out
}

// What comes over the wire is what the engine decides in process.
func TestWireAndProcessDecideAlike(t *testing.T) {
	begin := allocator.Begin{FirstDecision: 1, BatchInterval: 5 * time.Millisecond, MinRefuse: time.Second, Seed: 42}
	random := rand.New(rand.NewPCG(1, 2))
	var snapshot []allocator.Event
	for i := range 20 {
		snapshot = append(snapshot, &allocator.FrameworkUpdated{ID: fmt.Sprint("f", i), Roles: []string{fmt.Sprint("role", i%3)}, Active: true})
	}
	for i := range 300 {
		total := parse(t, fmt.Sprintf("cpus:%d;mem:%d;ports:[31000-31%03d];racks:{r%d}", 1+random.IntN(16), 100+random.IntN(9000), random.IntN(1000), random.IntN(9)))
		snapshot = append(snapshot, &allocator.AgentUpdated{ID: fmt.Sprint("a", i), Total: total, Active: true, HoldingsSet: true})
	}

	w := open(t, connect(t, drf()), begin, snapshot...)
	encoder, inProcess := allocator.NewEncoder(), engine.New(begin.Proto(), &engine.DominantShare{})
	now := time.Duration(0)
	local := func(b allocator.Batch) (out []*allocator.Offer) {
		for _, message := range encoder.Encode(b) {
			if err := inProcess.Apply(now, message); err != nil {
				t.Fatal(err)
			}
		}
		now += begin.BatchInterval
		decisions, _ := inProcess.Run(now)
		inProcess.Group(decisions)
		for _, d := range decisions {
			decision, err := encoder.Decision(d)
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, decision.(*allocator.Offer))
		}
		return out
	}

	got, want := w.cycle(), local(allocator.Batch{Snapshot: true, SnapshotEnd: true, Events: snapshot})
	for round := range 4 {
		if diff := cmp.Diff(show(want), show(got)); diff != "" {
			t.Fatalf("round %d (-in process +over the wire):\n%s", round, diff)
		}
		if len(got) == 0 {
			t.Fatalf("round %d: no offers", round)
		}
		var events []allocator.Event
		for _, o := range got {
			if random.IntN(3) > 0 {
				events = append(events, &allocator.Released{Agent: o.Agent, Framework: o.Framework, Role: o.Role, Resources: o.Resources, Refuse: time.Hour, Declined: true})
			}
		}
		next, seen := w.next, w.seen
		w.tell(events...)
		got, want = w.cycle(), local(allocator.Batch{FirstEvent: next, Events: events, DecisionsSeen: seen})
	}
}

func TestServeSaysWhenItIsReadyAndHowFarItHasRead(t *testing.T) {
	w := open(t, connect(t, drf()), allocator.Begin{FirstDecision: 1})
	m, err := w.stream.Recv()
	if err != nil {
		t.Fatal(err)
	}
	if !m.GetReady() {
		t.Errorf("the first message is %v, want ready", m)
	}
	w.tell(&allocator.RoleUpdated{Name: "a"}, &allocator.RoleUpdated{Name: "b"})
	if m, err = w.stream.Recv(); err != nil {
		t.Fatal(err)
	}
	if m.GetReady() || m.GetEventsSeen() != 2 {
		t.Errorf("got %v, want events_seen 2 and no second ready", m)
	}
}

func TestServeRejectsWhatTheContractDoesNotAllow(t *testing.T) {
	for _, test := range []struct {
		name     string
		messages []*allocatorv1.FromCore
	}{
		{"no Begin", []*allocatorv1.FromCore{{Session: 1, Batch: &allocatorv1.Batch{}}}},
		{"two Begins", []*allocatorv1.FromCore{{Session: 1, Begin: &allocatorv1.Begin{}}, {Session: 1, Begin: &allocatorv1.Begin{}}}},
		{"an undefined kind", []*allocatorv1.FromCore{{Session: 1, Begin: &allocatorv1.Begin{}}, {Session: 1, Batch: &allocatorv1.Batch{Events: []*allocatorv1.Event{
			{Event: &allocatorv1.Event_Agent{Agent: &allocatorv1.AgentUpdated{Number: 1, Total: &allocatorv1.Quantities{Kinds: []uint32{9}, Amounts: []int64{1}}}}},
		}}}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			stream, err := connect(t, drf()).Allocate(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range test.messages {
				if err := stream.Send(m); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := stream.Recv(); status.Code(err) != codes.InvalidArgument {
				t.Errorf("got %v, want InvalidArgument", err)
			}
		})
	}
}

func TestServeExplains(t *testing.T) {
	client := connect(t, drf())
	if _, err := client.Explain(t.Context(), &allocatorv1.ExplainRequest{FrameworkId: "f"}); status.Code(err) != codes.Unavailable {
		t.Errorf("without a session: %v, want Unavailable", err)
	}
	w := open(t, client, allocator.Begin{FirstDecision: 1},
		&allocator.FrameworkUpdated{ID: "f", Roles: []string{"*"}, Suppressed: []string{"*"}, Active: true})
	if _, err := w.stream.Recv(); err != nil {
		t.Fatal(err)
	}
	answer, err := client.Explain(t.Context(), &allocatorv1.ExplainRequest{FrameworkId: "f"})
	if err != nil {
		t.Fatal(err)
	}
	if len(answer.GetRoles()) != 1 || !answer.GetRoles()[0].GetSuppressed() {
		t.Errorf("got %v, want one role, suppressed", answer)
	}
	if answer, err = client.Explain(t.Context(), &allocatorv1.ExplainRequest{FrameworkId: "nobody"}); err != nil || answer.GetKnown() {
		t.Errorf("an unknown framework: %v, %v", answer, err)
	}
}

// What the engine counts is told, from the first session on and over all of
// them; how it is now is told while there is one.
func TestMetrics(t *testing.T) {
	own := metric.NewSet()
	own.Counter("own_total", "The policy's own.").Inc()
	def := drf()
	def.Metrics = own
	local, err := plugin.StartLocal(def.Plugin(), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(local.Close)
	base := pluginv1.NewPluginClient(local.Conn)
	if _, err := base.Configure(t.Context(), &pluginv1.ConfigureRequest{ContractVersion: 1}); err != nil {
		t.Fatal(err)
	}
	values := func() map[string]float64 {
		t.Helper()
		answer, err := base.Metrics(t.Context(), &pluginv1.MetricsRequest{})
		if err != nil {
			t.Fatal(err)
		}
		if _, problems := metric.Sift(answer.GetFamilies()); len(problems) > 0 {
			t.Fatalf("they break the contract: %v", problems)
		}
		out := map[string]float64{}
		for _, f := range answer.GetFamilies() {
			for _, x := range f.GetSamples() {
				out[strings.Join(append([]string{f.GetName()}, x.GetLabelValues()...), " ")] = x.GetValue()
			}
		}
		return out
	}
	want := func(got map[string]float64, want map[string]float64) {
		t.Helper()
		for name, v := range want {
			if x, there := got[name]; !there || x != v {
				t.Errorf("%s is %v (%v), want %v", name, x, there, v)
			}
		}
	}
	want(values(), map[string]float64{"own_total": 1, "sessions_total": 0, "decisions_total offer": 0})
	if _, there := values()["agents_idle"]; there {
		t.Error("without a session there is something idle")
	}
	events := []allocator.Event{
		&allocator.FrameworkUpdated{ID: "f", Roles: []string{"r"}, Active: true},
		&allocator.AgentUpdated{ID: "a", Hostname: "a", Active: true, Total: parse(t, "cpus:1;mem:100"), HoldingsSet: true},
	}
	client := allocatorv1.NewAllocatorClient(local.Conn)
	first := open(t, client, allocator.Begin{}, events...)
	first.cycle()
	want(values(), map[string]float64{
		"sessions_total": 1, "events_total": 2, "decisions_total offer": 1, "decisions_total revoke": 0, "decisions_unanswered": 1,
		"agents_considered_total": 1, "agents_idle": 0, "agents_waiting": 0, "candidates_wanting": 1, "filters": 0, "revocations": 0,
	})
	open(t, client, allocator.Begin{}, events...).cycle()
	want(values(), map[string]float64{"sessions_total": 2, "events_total": 4, "decisions_total offer": 2, "decisions_unanswered": 1})
}

// blocked is a policy that takes its time.
type blocked struct {
	engine.DominantShare
	entered chan struct{} // closed when it is first asked
	once    *sync.Once
	let     chan struct{} // closed when it may go on
}

func (b *blocked) Rank(c *allocator.Candidate, cluster *allocator.Cluster) allocator.Rank {
	b.once.Do(func() { close(b.entered) })
	<-b.let
	return b.DominantShare.Rank(c, cluster)
}

// Whoever asks for metrics waits for no cycle, however long that takes.
func TestMetricsDuringACycle(t *testing.T) {
	policy := &blocked{entered: make(chan struct{}), once: &sync.Once{}, let: make(chan struct{})}
	def := drf()
	def.NewPolicy = func(any) (allocator.Policy, []plugin.Diagnostic) { return policy, nil }
	local, err := plugin.StartLocal(def.Plugin(), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(local.Close)
	base := pluginv1.NewPluginClient(local.Conn)
	if _, err := base.Configure(t.Context(), &pluginv1.ConfigureRequest{ContractVersion: 1}); err != nil {
		t.Fatal(err)
	}
	w := open(t, allocatorv1.NewAllocatorClient(local.Conn), allocator.Begin{},
		&allocator.FrameworkUpdated{ID: "f", Roles: []string{"r"}, Active: true},
		&allocator.AgentUpdated{ID: "a", Hostname: "a", Active: true, Total: parse(t, "cpus:1;mem:100"), HoldingsSet: true})
	<-policy.entered
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	_, err = base.Metrics(ctx, &pluginv1.MetricsRequest{})
	close(policy.let)
	if err != nil {
		t.Errorf("during a cycle: %v", err)
	}
	w.cycle()
}
