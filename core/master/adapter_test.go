package master_test

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclparse"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	"github.com/mezzo-os/mezzo/config"
	"github.com/mezzo-os/mezzo/core/master"
	"github.com/mezzo-os/mezzo/core/rpc"
	"github.com/mezzo-os/mezzo/sdk/framework"
	"github.com/mezzo-os/mezzo/sdk/plugin"
	frameworkv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/framework/v1"
	operatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/operator/v1"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
	schedulerv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1/scheduler"
)

// probeAdapter is an adapter for tests, which this test binary serves when a
// plugin host starts it: it lets a test use the core's services over HTTP.
type probeAdapter struct {
	core   *framework.Core
	server *http.Server
	done   sync.WaitGroup
}

type probeConfig struct {
	Listen string `hcl:"listen" default:"127.0.0.1:0" help:"Where it listens."`
	Name   string `hcl:"name" default:"probe" help:"What it calls its endpoint."`
	Word   string `hcl:"word" help:"Something to change."`
}

// serveProbe is the adapter's main.
func serveProbe() {
	framework.Serve(framework.Definition{
		Name: "probe", Version: "1.0.0", Summary: "For tests.",
		NewConfig: func() any { return new(probeConfig) },
		New: func(c any, _ plugin.Environment) (framework.Adapter, []plugin.Diagnostic) {
			return &namedProbe{config: c.(*probeConfig)}, nil
		},
	})
}

type namedProbe struct {
	probeAdapter
	config *probeConfig
}

func (p *namedProbe) Serve(ctx context.Context, core *framework.Core) (*framework.Serving, error) {
	listener, err := core.Listen(ctx, "probe", p.config.Listen)
	if err != nil {
		return nil, err
	}
	p.core = core
	mux := http.NewServeMux()
	mux.HandleFunc("/subscribe", p.subscribe)
	mux.HandleFunc("/leader", p.leader)
	mux.HandleFunc("/get", p.get)
	mux.HandleFunc("/put", p.put)
	mux.HandleFunc("/ask", p.ask)
	mux.HandleFunc("/word", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, p.config.Word) })
	p.server = &http.Server{Handler: mux, BaseContext: func(net.Listener) context.Context { return ctx }}
	p.done.Go(func() { p.server.Serve(listener) })
	return &framework.Serving{Endpoints: map[string]string{p.config.Name: listener.Addr().String()}}, nil
}

func (p *namedProbe) Shutdown(context.Context) {
	p.server.Close()
	p.done.Wait()
}

// subscribe is a scheduler's stream: a line an event.
func (p *probeAdapter) subscribe(w http.ResponseWriter, r *http.Request) {
	timeout, _ := strconv.ParseFloat(r.FormValue("failover"), 64)
	info := &mezzov1.FrameworkInfo{User: proto.String("u"), Name: proto.String("f"), FailoverTimeout: proto.Float64(timeout)}
	if id := r.FormValue("id"); id != "" {
		info.Id = &mezzov1.FrameworkID{Value: proto.String(id)}
	}
	events, err := p.core.Scheduler().Subscribe(r.Context(), &schedulerv1.Call_Subscribe{FrameworkInfo: info})
	for err == nil {
		var e *schedulerv1.Event
		if e, err = events.Recv(); err == nil {
			fmt.Fprintln(w, e.GetType(), e.GetSubscribed().GetFrameworkId().GetValue()+e.GetError().GetMessage())
			w.(http.Flusher).Flush()
		}
	}
	fmt.Fprintln(w, "END", err)
}

// leader tells every change of the leadership, a line each.
func (p *probeAdapter) leader(w http.ResponseWriter, r *http.Request) {
	states, err := p.core.Leadership().Watch(r.Context(), &frameworkv1.WatchLeadershipRequest{})
	for err == nil {
		var s *frameworkv1.LeadershipState
		if s, err = states.Recv(); err == nil {
			fmt.Fprint(w, s.GetState(), " ", s.GetEpoch())
			for _, e := range s.GetEndpoints() {
				fmt.Fprint(w, " ", e.GetName(), "=", e.GetAddress())
			}
			fmt.Fprintln(w)
			w.(http.Flusher).Flush()
		}
	}
}

func (p *probeAdapter) get(w http.ResponseWriter, r *http.Request) {
	answer, err := p.core.Store().Get(r.Context(), &frameworkv1.GetRequest{Key: r.FormValue("key")})
	if err != nil {
		fmt.Fprintln(w, err)
		return
	}
	fmt.Fprintf(w, "%s %t\n", answer.GetValue(), answer.GetVersion() > 0)
}

// put writes over what is there.
func (p *probeAdapter) put(w http.ResponseWriter, r *http.Request) {
	before, err := p.core.Store().Get(r.Context(), &frameworkv1.GetRequest{Key: r.FormValue("key")})
	if err == nil {
		_, err = p.core.Store().Put(r.Context(), &frameworkv1.PutRequest{
			Key: r.FormValue("key"), Value: []byte(r.FormValue("value")), Version: before.GetVersion(),
		})
	}
	fmt.Fprintln(w, err)
}

// ask asks the core for its plugins as somebody.
func (p *probeAdapter) ask(w http.ResponseWriter, r *http.Request) {
	ctx := r.Context()
	if who := r.FormValue("principal"); who != "" {
		ctx = framework.WithPrincipal(ctx, who)
	}
	_, err := p.core.Operator().ListPlugins(ctx, &operatorv1.ListPluginsRequest{})
	fmt.Fprintln(w, err)
}

// probe is a configuration block of the adapter above.
func probe(t testing.TB, text string) config.Plugin {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	file, diags := hclparse.NewParser().ParseHCL([]byte(text), "probe.hcl")
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	return config.Plugin{Kind: config.KindFramework, Name: "probe", Path: exe, Body: file.Body}
}

// lines are what one request answers, as it comes.
type lines struct {
	*bufio.Scanner
	cancel context.CancelFunc
}

func request(t *testing.T, address, path string, form url.Values) *lines {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+path+"?"+form.Encode(), nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Close = true
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		cancel()
		t.Fatal(err)
	}
	t.Cleanup(func() { cancel(); answer.Body.Close() })
	return &lines{bufio.NewScanner(answer.Body), cancel}
}

// line is the next.
func (l *lines) line(t *testing.T) string {
	t.Helper()
	if !l.Scan() {
		t.Fatalf("no more lines: %v", l.Err())
	}
	return l.Text()
}

// subscribeProbe subscribes a framework and returns its id.
func subscribeProbe(t *testing.T, address, id string, failover int) (*lines, string) {
	t.Helper()
	form := url.Values{"failover": {strconv.Itoa(failover)}}
	if id != "" {
		form.Set("id", id)
	}
	stream := request(t, address, "/subscribe", form)
	word, got, _ := strings.Cut(stream.line(t), " ")
	if word != "SUBSCRIBED" || id != "" && got != id {
		t.Fatalf("got %s %s, want SUBSCRIBED %s", word, got, id)
	}
	return stream, got
}

// frameworkState is "" when there is no such framework.
func (r *running) frameworkState(t *testing.T, id string) string {
	t.Helper()
	list, err := r.operator(t).ListFrameworks(t.Context(), &operatorv1.ListFrameworksRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range list.GetFrameworks() {
		if f.GetId() == id {
			return f.GetState()
		}
	}
	return ""
}

// until waits for a condition.
func until(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain until %s", what)
		}
	}
}

// plugin is the adapter as operators see it; nil when it is not listed.
func (r *running) plugin(t *testing.T, id string) *operatorv1.Plugin {
	t.Helper()
	list, err := r.operator(t).ListPlugins(t.Context(), &operatorv1.ListPluginsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range list.GetPlugins() {
		if p.GetId() == id {
			return p
		}
	}
	return nil
}

func (r *running) awaitPlugin(t *testing.T, what string, is func(*operatorv1.Plugin) bool) *operatorv1.Plugin {
	t.Helper()
	var p *operatorv1.Plugin
	until(t, "framework/probe is "+what, func() bool { p = r.plugin(t, "framework/probe"); return p != nil && is(p) })
	return p
}

func serves(p *operatorv1.Plugin) bool {
	return p.GetState() == "healthy" && len(p.GetEndpoints()) == 1
}

func TestAdapterLostAndBack(t *testing.T) {
	o := options(t)
	o.Config.Frameworks = []config.Plugin{probe(t, "")}
	m := start(t, o)
	at := m.Addresses()["probe"]
	if at == "" {
		t.Fatalf("the addresses are %v, want the adapter's, too", m.Addresses())
	}
	stream, brief := subscribeProbe(t, at, "", 0)
	_, second := subscribeProbe(t, at, "", 0)
	p := m.awaitPlugin(t, "healthy", serves)
	if diff := cmp.Diff([]string{"probe", at}, []string{p.GetEndpoints()[0].GetName(), p.GetEndpoints()[0].GetAddress()}); diff != "" {
		t.Errorf("endpoint (-want +got):\n%s", diff)
	}

	// Killed: the streams break, and the frameworks stay, though neither has a
	// failover timeout.
	if err := syscall.Kill(int(p.GetPid()), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	for stream.Scan() {
	}
	m.awaitPlugin(t, "back", func(now *operatorv1.Plugin) bool { return serves(now) && now.GetPid() != p.GetPid() })
	if got := m.Addresses()["probe"]; got != at {
		t.Errorf("the adapter is back at %s, want %s", got, at)
	}
	for _, id := range []string{brief, second} {
		until(t, "the loss is known", func() bool { return m.frameworkState(t, id) != "active" })
		if got := m.frameworkState(t, id); got != "disconnected" {
			t.Errorf("framework %s is %q, want disconnected", id, got)
		}
	}
	stream, _ = subscribeProbe(t, at, brief, 0)
	if got := m.frameworkState(t, brief); got != "active" {
		t.Errorf("after it has subscribed again the framework is %q, want active", got)
	}

	// A scheduler that leaves while its adapter lives is gone at once.
	stream.cancel()
	until(t, "the framework is gone", func() bool { return m.frameworkState(t, brief) == "" })
	if got := m.frameworkState(t, second); got != "disconnected" {
		t.Errorf("the other framework is %q, want disconnected", got)
	}
}

func TestReloadRestartsAdapter(t *testing.T) {
	o := options(t)
	o.Config.Frameworks = []config.Plugin{probe(t, `word = "one"`)}
	next := o.Config
	o.Reread = func() (*config.Master, *config.File, hcl.Diagnostics) {
		file, diags := config.Load(nil)
		c := next
		return &c, file, diags
	}
	m := start(t, o)
	at := m.Addresses()["probe"]
	_, id := subscribeProbe(t, at, "", 0)
	reload := func(failed bool, changes ...string) *operatorv1.ReloadResponse {
		t.Helper()
		answer, err := m.Reload(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, c := range answer.GetChanges() {
			got = append(got, c.GetWhat()+": "+c.GetFrom()+" -> "+c.GetTo())
		}
		if diff := cmp.Diff(changes, got); diff != "" || answer.GetFailed() != failed {
			t.Fatalf("failed=%t %s\n(-want +got):\n%s", answer.GetFailed(), answer.GetDiagnostics(), diff)
		}
		return answer
	}

	reload(false)
	next.Frameworks = []config.Plugin{probe(t, `word = "two"`)}
	reload(false, `framework "probe": as it was -> another config`)
	if got := request(t, at, "/word", nil).line(t); got != "two" {
		t.Errorf("the word is %q, want two", got)
	}
	if got := m.frameworkState(t, id); got != "disconnected" && got != "active" {
		t.Errorf("after the reload the framework is %q", got)
	}
	subscribeProbe(t, at, id, 0)

	// One that cannot listen leaves the one before it, at its place.
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	next.Frameworks = []config.Plugin{probe(t, fmt.Sprintf("word = \"three\"\nlisten = %q", taken.Addr()))}
	if answer := reload(true); !strings.Contains(answer.GetDiagnostics(), "address already in use") {
		t.Errorf("the operator reads %q", answer.GetDiagnostics())
	}
	if got := request(t, at, "/word", nil).line(t); got != "two" {
		t.Errorf("the word is %q, want two", got)
	}
	subscribeProbe(t, at, id, 0)

	// A configuration that is wrong touches nothing.
	pid := m.awaitPlugin(t, "healthy", serves).GetPid()
	next.Frameworks = []config.Plugin{probe(t, `words = "four"`)}
	if answer := reload(true); !strings.Contains(answer.GetDiagnostics(), "words") {
		t.Errorf("the operator reads %q", answer.GetDiagnostics())
	}
	if got := m.awaitPlugin(t, "healthy", serves).GetPid(); got != pid {
		t.Error("the adapter was started again for nothing")
	}

	next.Frameworks = nil
	reload(false, `framework "probe": as it was -> none`)
	until(t, "the adapter is not listed", func() bool { return m.plugin(t, "framework/probe") == nil })
	if got := m.Addresses()["probe"]; got != "" {
		t.Errorf("the adapter is still told to be at %s", got)
	}
	if got := m.frameworkState(t, id); got != "disconnected" {
		t.Errorf("without its adapter the framework is %q, want disconnected", got)
	}
	next.Frameworks = []config.Plugin{probe(t, "")}
	reload(false, `framework "probe": none -> started`)
	subscribeProbe(t, m.Addresses()["probe"], id, 0)
}

func TestAdapterThatCannotListenStopsTheStart(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for what, text := range map[string]string{
		"address already in use":     fmt.Sprintf("listen = %q", taken.Addr()),
		`an endpoint "rpc"`:          `name = "rpc"`,
		`an endpoint "Not A Name"`:   `name = "Not A Name"`,
		`framework "probe" does not`: `name = ""`,
	} {
		o := options(t)
		o.Config.Frameworks = []config.Plugin{probe(t, text)}
		m, err := master.New(o)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		err = m.Run(ctx)
		cancel()
		if err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("%s: the master ended with %v", what, err)
		}
	}
}

func TestAdapterStore(t *testing.T) {
	o := options(t)
	o.Config.Frameworks = []config.Plugin{probe(t, "")}
	m := start(t, o)
	say := func(path string, form url.Values) string {
		t.Helper()
		return request(t, m.Addresses()["probe"], path, form).line(t)
	}
	value := func(key, value string) url.Values { return url.Values{"key": {key}, "value": {value}} }
	if got := say("/put", value("jobs/1", "a")); got != "<nil>" {
		t.Fatal(got)
	}
	if got := say("/put", value("jobs/1", "b")); got != "<nil>" {
		t.Fatal(got)
	}
	if got := say("/put", value("gone", "x")); got != "<nil>" {
		t.Fatal(got)
	}
	if got := say("/put", value("gone", "")); got != "<nil>" {
		t.Fatal(got)
	}
	if got := say("/put", value("../jobs", "x")); !strings.Contains(got, "InvalidArgument") {
		t.Errorf("a key that leaves its place: %s", got)
	}
	// What was stored outlives the master.
	if err := m.stop(); err != nil {
		t.Fatal(err)
	}
	o.Allocator = fair(t)
	m = start(t, o)
	if got := say("/get", value("jobs/1", "")); got != "b true" {
		t.Errorf("after a restart: %s, want b", got)
	}
	if got := say("/get", value("gone", "")); got != " false" {
		t.Errorf("after a restart: %q of a key that was removed", got)
	}
}

// guard lets only ann see the cluster.
type guard struct{}

func (guard) Authorize(_ context.Context, who rpc.Principal, action rpc.Action, object rpc.Object) error {
	if action == rpc.ViewCluster && who.Name != "ann" {
		return rpc.Denied(who, action, object)
	}
	return nil
}

func TestPrincipalIsBelievedOfAdaptersOnly(t *testing.T) {
	o := options(t)
	o.Authorizer = guard{}
	o.Config.Frameworks = []config.Plugin{probe(t, "")}
	m := start(t, o)
	ask := func(who string) string {
		t.Helper()
		return request(t, m.Addresses()["probe"], "/ask", url.Values{"principal": {who}}).line(t)
	}
	if got := ask("ann"); got != "<nil>" {
		t.Errorf("ann asks through the adapter: %s", got)
	}
	for _, who := range []string{"", "bob"} {
		if got := ask(who); !strings.Contains(got, "PermissionDenied") {
			t.Errorf("%q asks through the adapter: %s", who, got)
		}
	}
	ctx := metadata.AppendToOutgoingContext(t.Context(), framework.PrincipalKey, "ann")
	if _, err := m.operator(t).ListPlugins(ctx, &operatorv1.ListPluginsRequest{}); err == nil || !strings.Contains(err.Error(), "PermissionDenied") {
		t.Errorf("somebody who says by himself that he is ann: %v", err)
	}
}

func TestLeadershipIsTold(t *testing.T) {
	o := options(t)
	o.Config.Frameworks = []config.Plugin{probe(t, "")}
	m := start(t, o)
	got := request(t, m.Addresses()["probe"], "/leader", nil).line(t)
	a := m.Addresses()
	want := fmt.Sprintf("STATE_LEADING 1 http=%s probe=%s rpc=%s", a["http"], a["probe"], a["rpc"])
	if got != want {
		t.Errorf("the adapter hears %q, want %q", got, want)
	}
	status, err := m.operator(t).GetStatus(t.Context(), &operatorv1.GetStatusRequest{})
	if err != nil {
		t.Fatal(err)
	}
	told := map[string]string{}
	for _, e := range status.GetEndpoints() {
		told[e.GetName()] = e.GetAddress()
	}
	if diff := cmp.Diff(a, told); diff != "" {
		t.Errorf("the status tells other endpoints (-want +got):\n%s", diff)
	}
}
