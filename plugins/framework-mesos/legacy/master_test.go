package legacy_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"

	"github.com/mezzo-os/mezzo/plugins/framework-mesos/legacy"
	"github.com/mezzo-os/mezzo/plugins/framework-mesos/mirror"
	"github.com/mezzo-os/mezzo/plugins/framework-mesos/mirror/mirrortest"
	"github.com/mezzo-os/mezzo/plugins/framework-mesos/operator"
	"github.com/mezzo-os/mezzo/plugins/framework-mesos/transport"
	frameworkv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/framework/v1"
	operatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/operator/v1"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var update = flag.Bool("update", false, "write the golden files anew")

type rig struct {
	t      testing.TB
	orders *mirrortest.Orders
	server *transport.Server
}

func start(t testing.TB, known ...*operatorv1.WatchEvent) *rig {
	t.Helper()
	r := &rig{t: t, orders: mirrortest.NewOrders()}
	lead := transport.NewLeadership(mirror.Endpoint)
	lead.Set(&frameworkv1.LeadershipState{State: frameworkv1.LeadershipState_STATE_LEADING})
	master := mirrortest.Start(t, r.orders)
	master.SetStatus(func(s *operatorv1.Status) { s.Started, s.Elected = mirrortest.At(0), mirrortest.At(1) })
	master.Tell(known...)
	m := mirror.New(master.Client, nil)
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan struct{})
	go func() { defer close(ran); m.Run(ctx) }()
	server, err := transport.Listen(transport.Options{Side: transport.Master, Address: "127.0.0.1:0", Leadership: lead})
	if err != nil {
		t.Fatal(err)
	}
	r.server = server
	info := func(s *operatorv1.Status) *mezzov1.MasterInfo {
		return &mezzov1.MasterInfo{
			Id: proto.String(s.GetMasterId()), Ip: proto.Uint32(16777226), Port: proto.Uint32(5050), Hostname: proto.String("m1"), Pid: proto.String("master@10.0.0.1:5050"),
		}
	}
	about := transport.About{Flags: func() map[string]string { return map[string]string{"port": "5050"} }}
	v := operator.NewVerbosity(&mirrortest.LogLevels{}, nil)
	t.Cleanup(v.Close)
	handler := operator.New(operator.Options{Mirror: m, Operator: master.Client, Verbosity: v, MasterInfo: info, About: about})
	(&legacy.Master{Mirror: m, Orders: handler, MasterInfo: info, About: about, Cluster: "c"}).Register(server)
	legacy.RegisterProcess(server, v)
	served := make(chan error, 1)
	go func() { served <- server.Serve() }()
	t.Cleanup(func() {
		http.DefaultClient.CloseIdleConnections()
		ctx, stop := context.WithTimeout(context.Background(), mirrortest.Patience)
		defer stop()
		if err := server.Shutdown(ctx); err != nil {
			t.Errorf("shutdown: %v", err)
		}
		<-served
		cancel()
		<-ran
	})
	return r
}

func (r *rig) do(method, path, body string, header ...string) (*http.Response, string) {
	r.t.Helper()
	q, err := http.NewRequest(method, "http://"+r.server.Address()+path, strings.NewReader(body))
	if err != nil {
		r.t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		q.Header.Set(header[i], header[i+1])
	}
	response, err := http.DefaultTransport.RoundTrip(q)
	if err != nil {
		r.t.Fatal(err)
	}
	defer response.Body.Close()
	b, err := io.ReadAll(response.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return response, string(b)
}

func (r *rig) get(path string) string {
	r.t.Helper()
	response, body := r.do("GET", path, "")
	if response.StatusCode != 200 || response.Header.Get("Content-Type") != transport.JSON {
		r.t.Fatalf("%s: %s, %q: %s", path, response.Status, response.Header.Get("Content-Type"), body)
	}
	return body
}

// G.1, G.3: what each endpoint says of the sample, key by key.
func TestGolden(t *testing.T) {
	r := start(t, mirrortest.Sample()...)
	for name, path := range map[string]string{
		"state": "/state", "state-summary": "/state-summary", "slaves": "/slaves", "frameworks": "/master/frameworks/", "tasks": "/tasks",
		"roles": "/roles", "weights": "/weights", "quota": "/quota", "maintenance-schedule": "/maintenance/schedule", "maintenance-status": "/maintenance/status",
	} {
		t.Run(name, func(t *testing.T) {
			r.t = t
			var got bytes.Buffer
			if err := json.Indent(&got, []byte(r.get(path)), "", " "); err != nil {
				t.Fatal(err)
			}
			got.WriteByte('\n')
			file := filepath.Join("testdata", name+".json")
			if *update {
				if err := os.WriteFile(file, got.Bytes(), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got.String()); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// A.2, checklist 9 and 10: the same by other names.
func TestAliases(t *testing.T) {
	r := start(t, mirrortest.Sample()...)
	want := r.get("/state")
	for _, path := range []string{"/master/state", "/state.json", "/master/state.json", "/state/", "/state/x"} {
		if got := r.get(path); got != want {
			t.Errorf("%s differs from /state", path)
		}
	}
	if r.get("/tasks.json") != r.get("/master/tasks") {
		t.Error("/tasks.json differs from /master/tasks")
	}
}

// A.2: parameters of /tasks, /slaves and /frameworks.
func TestParameters(t *testing.T) {
	known := mirrortest.Sample()
	for i := range 150 {
		known = append(known, mirrortest.Task(mirrortest.NewTask(fmt.Sprintf("x%03d", i), 1000+i, mezzov1.TaskState_TASK_RUNNING)))
	}
	r := start(t, known...)
	ids := func(path, list string) []string {
		var answer map[string][]struct{ ID string }
		if err := json.Unmarshal([]byte(r.get(path)), &answer); err != nil {
			t.Fatal(err)
		}
		out := []string{}
		for _, x := range answer[list] {
			out = append(out, x.ID)
		}
		return out
	}
	if got := ids("/tasks", "tasks"); len(got) != 100 || got[0] != "x149" {
		t.Errorf("by default there are %d tasks, first %s", len(got), got[0])
	}
	if got := ids("/tasks?limit=-1", "tasks"); len(got) != 153 {
		t.Errorf("without limit there are %d", len(got))
	}
	if diff := cmp.Diff([]string{"t-lost", "t-over"}, ids("/tasks?order=asc&limit=2&offset=1", "tasks")); diff != "" {
		t.Errorf("the oldest but one (-want +got):\n%s", diff)
	}
	for path, want := range map[string][]string{
		"/tasks?task_id=x007":              {"x007"},
		"/tasks?framework_id=none":         {},
		"/slaves?slave_id=m-1-S0":          {"m-1-S0"},
		"/slaves?slave_id=none":            {},
		"/frameworks?framework_id=m-1-000": {},
	} {
		list, _, _ := strings.Cut(path[1:], "?")
		if diff := cmp.Diff(want, ids(path, list)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", path, diff)
		}
	}
}

// A.1: JSONP and gzip, for large answers as for small ones.
func TestForms(t *testing.T) {
	known := mirrortest.Sample()
	for i := range 3000 {
		known = append(known, mirrortest.Task(mirrortest.NewTask(fmt.Sprint("x", i), 1000+i, mezzov1.TaskState_TASK_RUNNING)))
	}
	r := start(t, known...)
	for _, path := range []string{"/weights", "/state"} {
		want := r.get(path)
		response, body := r.do("GET", path+"?jsonp=f", "")
		if body != "f("+want+")" || response.Header.Get("Content-Type") != "text/javascript" {
			t.Errorf("%s as JSONP is %q, %d bytes", path, response.Header.Get("Content-Type"), len(body))
		}
		response, _ = r.do("GET", path+"?jsonp=alert(1)", "")
		if response.StatusCode != 400 {
			t.Errorf("%s: a script as a name is answered with %s", path, response.Status)
		}
	}
	want := r.get("/state")
	response, body := r.do("GET", "/state", "", "Accept-Encoding", "gzip")
	if response.Header.Get("Content-Encoding") != "gzip" {
		t.Fatal("it is not compressed")
	}
	unzip, err := gzip.NewReader(strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(unzip); err != nil || string(got) != want {
		t.Errorf("compressed it is another: %v", err)
	}
}

// A.2, G.3, I.8: what changes something, row by row.
func TestOrders(t *testing.T) {
	r := start(t, mirrortest.Sample()...)
	for _, c := range []struct {
		row, method, path, body string
		code                    int
		text, order             string
	}{
		{"/weights PUT", "PUT", "/weights", `[{"role":"ads","weight":2.5}]`, 200, "", "weight ads 2.5"},
		{"/weights not positive", "PUT", "/weights", `[{"role":"ads","weight":-1}]`, 400, "Invalid weight '-1' for role 'ads': Weights must be positive", ""},
		{"/weights no list", "PUT", "/weights", `{}`, 400, "Failed to convert JSON: Expecting a JSON array", ""},
		{"/weights POST", "POST", "/weights", ``, 405, "405 Method Not Allowed. Expecting one of { 'GET', 'PUT' }, but received 'POST'.", ""},
		{"/quota POST", "POST", "/quota", `{"role":"x","force":true,"guarantee":[{"name":"cpus","type":"SCALAR","scalar":{"value":1}}]}`, 200, "", "quota x map[cpus:1] map[cpus:1]"},
		{"/quota DELETE", "DELETE", "/master/quota/ads", ``, 200, "", "no quota ads"},
		{"/quota DELETE of none", "DELETE", "/quota", ``, 400, "Failed to parse request path '/quota': 1 token ('role') required", ""},
		{"/teardown", "POST", "/master/teardown", `frameworkId=m-1-0000`, 200, "", "teardown m-1-0000"},
		{"/teardown unknown", "POST", "/teardown", `frameworkId=none`, 400, "No framework found with specified ID", ""},
		{"/teardown without", "POST", "/teardown", ``, 400, "Missing 'frameworkId' query parameter", ""},
		{"/machine/down", "POST", "/machine/down", `[{"hostname":"planned"}]`, 200, "", "down planned@"},
		{"/machine/down none", "POST", "/machine/down", `[]`, 400, "List of machines is empty", ""},
		{"/machine/down no list", "POST", "/machine/down", `{}`, 400, "Failed to convert JSON: Expecting a JSON array", ""},
		{"/machine/up", "POST", "/master/machine/up", `[{"hostname":"fallen","ip":"10.0.0.9"}]`, 200, "", "up fallen@10.0.0.9"},
		{"/machine/up not down", "POST", "/machine/up", `[{"hostname":"planned"}]`, 400, `Machine '{"hostname":"planned"}' is not in DOWN mode and cannot be brought up`, ""},
		{"/maintenance/schedule POST", "POST", "/maintenance/schedule", `{"windows":[{"machine_ids":[{"hostname":"fallen","ip":"10.0.0.9"}],"unavailability":{"start":{"nanoseconds":1700000000000000000}}}]}`, 200, "", "schedule fallen@10.0.0.9 from 1700000000 for 0"},
		{"/maintenance/schedule POST without one that is down", "POST", "/maintenance/schedule", `{}`, 400, `Machine '{"hostname":"fallen","ip":"10.0.0.9"}' is deactivated and cannot be removed from the schedule`, ""},
		{"/maintenance/schedule", "GET", "/maintenance/schedule", ``, 200, `{"windows":[{"machine_ids":[{"hostname":"planned"},{"hostname":"fallen","ip":"10.0.0.9"}],"unavailability":{"start":{"nanoseconds":1700000100000000000},"duration":{"nanoseconds":3600000000000}}}]}`, ""},
		{"/maintenance/status", "GET", "/maintenance/status", ``, 200, `{"draining_machines":[{"id":{"hostname":"planned"},"statuses":[{"status":"ACCEPT","framework_id":{"value":"m-1-0000"},"timestamp":{"nanoseconds":1700000060000000000}}]}],"down_machines":[{"hostname":"fallen","ip":"10.0.0.9"}]}`, ""},
		{"/reserve", "POST", "/reserve", `slaveId=a-1&resources=[{"name":"cpus","type":"SCALAR","scalar":{"value":1},"role":"ads","reservation":{"principal":"p"}}]`, 202, "", "RESERVE a-1 ads"},
		{"/unreserve", "POST", "/unreserve", `slaveId=a-1&resources=[{"name":"cpus","type":"SCALAR","scalar":{"value":1},"role":"ads","reservation":{}}]`, 202, "", "UNRESERVE a-1 ads"},
		{"/create-volumes", "POST", "/create-volumes", `slaveId=a-1&volumes=[{"name":"disk","type":"SCALAR","scalar":{"value":1},"role":"ads","reservation":{},"disk":{"persistence":{"id":"x"},"volume":{"mode":"RW","container_path":"x"}}}]`, 202, "", "CREATE a-1 ads"},
		{"/destroy-volumes in use", "POST", "/destroy-volumes", `slaveId=busy&volumes=[{"name":"disk","type":"SCALAR","scalar":{"value":1}}]`, 409, "in use", ""},
		{"/reserve without an agent", "POST", "/reserve", ``, 400, "Missing 'slaveId' query parameter in the request body", ""},
		{"/reserve without resources", "POST", "/reserve", `slaveId=a-1`, 400, "Missing 'resources' query parameter in the request body", ""},
		{"/reserve, unknown agent", "POST", "/reserve", `slaveId=none&resources=[]`, 400, "No agent found with specified ID", ""},
		{"/logging/toggle I.8", "POST", "/logging/toggle", ``, 200, "0\n", ""},
		{"/logging/toggle set", "POST", "/logging/toggle?level=2&duration=10mins", ``, 200, "", ""},
		{"/logging/toggle get", "GET", "/logging/toggle", ``, 200, "2\n", ""},
		{"/logging/toggle bad", "POST", "/logging/toggle?level=x&duration=1secs", ``, 400, "Expecting 'level=value' in query.\n", ""},
	} {
		t.Run(c.row, func(t *testing.T) {
			r.t = t
			response, body := r.do(c.method, c.path, c.body)
			if response.StatusCode != c.code || body != c.text {
				t.Errorf("%s %q, want %d %q", response.Status, body, c.code, c.text)
			}
			if c.order != "" {
				if got := <-r.orders.Log; got != c.order {
					t.Errorf("the core was told %q, want %q", got, c.order)
				}
			}
			if len(r.orders.Log) > 0 {
				t.Errorf("the core was told %q", <-r.orders.Log)
			}
		})
	}
}

func TestSystem(t *testing.T) {
	r := start(t)
	var got map[string]float64
	if err := json.Unmarshal([]byte(r.get("/system/stats.json")), &got); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"avg_load_1min", "avg_load_5min", "avg_load_15min", "cpus_total", "mem_total_bytes", "mem_free_bytes"} {
		if _, has := got[name]; !has {
			t.Errorf("%s is missing", name)
		}
	}
	if got["mem_total_bytes"] < 1<<20 || got["cpus_total"] < 1 {
		t.Errorf("the machine is %v", got)
	}
}

// Text of all kinds is JSON that reads back, in ASCII.
func FuzzText(f *testing.F) {
	f.Add("plain")
	f.Add("quo\"te \\ \n \x00 \x7f é 世 😀  <>&")
	f.Fuzz(func(t *testing.T, s string) {
		w := &recorder{header: http.Header{}}
		legacy.Answer(w, &http.Request{URL: mustURL(t)}, func(j *legacy.JSON) { j.Text(s) })
		for _, c := range w.body.Bytes() {
			if c >= 0x80 {
				t.Fatalf("%q is written as %q", s, w.body.String())
			}
		}
		var got string
		if err := json.Unmarshal(w.body.Bytes(), &got); err != nil {
			t.Fatal(err)
		}
		if want := strings.ToValidUTF8(s, "�"); got != want && !strings.Contains(want, "�") {
			t.Errorf("%q reads back as %q", s, got)
		}
	})
}

// BenchmarkState writes /state of 10,000 agents and 100,000 tasks: it tells how
// long it takes, and how much memory is in use meanwhile beside the mirror.
func BenchmarkState(b *testing.B) {
	known := mirrortest.Sample()
	for i := range 10_000 {
		a := proto.CloneOf(known[1].GetAgentDetail())
		a.Id = fmt.Sprint("a", i)
		known = append(known, mirrortest.Agent(a))
	}
	for i := range 100_000 {
		t := mirrortest.NewTask(fmt.Sprint("x", i), 1000+i, mezzov1.TaskState_TASK_STARTING, mezzov1.TaskState_TASK_RUNNING)
		t.Task.AgentId = &mezzov1.AgentID{Value: proto.String(fmt.Sprint("a", i%10_000))}
		known = append(known, mirrortest.Task(t))
	}
	r := start(b, known...)
	r.get("/weights")
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	runtime.GC()
	before, most := heap(), uint64(0)
	var size int64
	for b.Loop() {
		q, err := http.Get("http://" + r.server.Address() + "/state")
		if err != nil {
			b.Fatal(err)
		}
		size = 0
		buffer := make([]byte, 1<<20)
		for err == nil {
			var n int
			n, err = io.ReadFull(q.Body, buffer)
			size += int64(n)
			most = max(most, heap())
		}
		q.Body.Close()
	}
	b.ReportMetric(float64(size)/(1<<20), "MiB")
	b.ReportMetric(float64(most-before)/(1<<20), "MiB-heap-above")
}
