package operator_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"

	"github.com/mezzo-os/mezzo/plugins/framework-mesos/mirror"
	"github.com/mezzo-os/mezzo/plugins/framework-mesos/mirror/mirrortest"
	"github.com/mezzo-os/mezzo/plugins/framework-mesos/operator"
	"github.com/mezzo-os/mezzo/plugins/framework-mesos/transport"
	frameworkv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/framework/v1"
	operatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/operator/v1"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
	masterv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1/master"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type rig struct {
	t      *testing.T
	master *mirrortest.Master
	orders *mirrortest.Orders
	server *transport.Server
	lead   *transport.Leadership
}

func start(t *testing.T, o operator.Options, known ...*operatorv1.WatchEvent) *rig {
	t.Helper()
	r := &rig{t: t, orders: mirrortest.NewOrders(), lead: transport.NewLeadership(mirror.Endpoint)}
	r.lead.Set(&frameworkv1.LeadershipState{State: frameworkv1.LeadershipState_STATE_LEADING})
	r.master = mirrortest.Start(t, r.orders)
	r.master.SetStatus(func(s *operatorv1.Status) { s.Started, s.Elected = mirrortest.At(0), mirrortest.At(1) })
	r.master.Tell(known...)
	m := mirror.New(r.master.Client, nil)
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan struct{})
	go func() { defer close(ran); m.Run(ctx) }()
	// A busy machine may take longer to fill it than clients are made to wait.
	for late := time.Now().Add(mirrortest.Patience); ; {
		_, err := m.Read(ctx)
		if err == nil {
			break
		}
		if time.Now().After(late) {
			t.Fatal(err)
		}
	}
	server, err := transport.Listen(transport.Options{Side: transport.Master, Address: "127.0.0.1:0", Leadership: r.lead})
	if err != nil {
		t.Fatal(err)
	}
	r.server = server
	o.Mirror, o.Operator, o.Verbosity = m, r.master.Client, operator.NewVerbosity(&mirrortest.LogLevels{}, nil)
	o.MasterInfo = func(s *operatorv1.Status) *mezzov1.MasterInfo {
		return &mezzov1.MasterInfo{Id: proto.String(s.GetMasterId()), Ip: proto.Uint32(1), Port: proto.Uint32(5050)}
	}
	o.About = transport.About{Flags: func() map[string]string { return map[string]string{"port": "5050"} }}
	o.Metrics = func(context.Context) []*mezzov1.Metric {
		return []*mezzov1.Metric{{Name: proto.String("master/elected"), Value: proto.Float64(1)}}
	}
	operator.New(o).Register(server)
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

// answer is what came back.
type answer struct {
	code   int
	header http.Header
	length int64
	body   string
}

func (r *rig) request(method, media, accept, body string) *http.Response {
	r.t.Helper()
	q, err := http.NewRequest(method, "http://"+r.server.Address()+"/api/v1", strings.NewReader(body))
	if err != nil {
		r.t.Fatal(err)
	}
	if media != "" {
		q.Header.Set("Content-Type", media)
	}
	if accept != "" {
		q.Header.Set("Accept", accept)
	}
	response, err := http.DefaultTransport.RoundTrip(q)
	if err != nil {
		r.t.Fatal(err)
	}
	return response
}

func (r *rig) do(method, media, accept, body string) answer {
	r.t.Helper()
	response := r.request(method, media, accept, body)
	defer response.Body.Close()
	b, err := io.ReadAll(response.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return answer{response.StatusCode, response.Header, response.ContentLength, string(b)}
}

func (r *rig) post(body string) answer {
	r.t.Helper()
	return r.do("POST", transport.JSON, "", body)
}

// schedule is a call with a schedule of one window.
func schedule(machines, sign string) string {
	return `{"type":"UPDATE_MAINTENANCE_SCHEDULE","update_maintenance_schedule":{"schedule":{"windows":[{"machine_ids":[` + machines +
		`],"unavailability":{"start":{"nanoseconds":1700000000000000000},"duration":{"nanoseconds":` + sign + `60000000000}}}]}}}`
}

// Each row is one of the tables A.3, B.5 or E.1.
func TestRows(t *testing.T) {
	r := start(t, operator.Options{})
	r.master.Tell(mirrortest.Sample()...)
	r.master.Tell(mirrortest.Agent(&operatorv1.AgentDetail{Id: "m-1-S9", Hostname: "leaving", State: "draining", Deactivated: true, Drain: &operatorv1.AgentDrain{State: "draining"}}))
	rows := []struct {
		row, method, media, accept, body string
		code                             int
		text                             string // the body, or what it begins with when it ends in "…"
		order                            string // what the core is told
	}{
		{row: "A.3 6 method", method: "GET", media: transport.JSON, code: 405, text: "405 Method Not Allowed. Expecting one of { 'POST' }, but received 'GET'."},
		{row: "A.3 7 no Content-Type", code: 400, text: "Expecting 'Content-Type' to be present"},
		{row: "A.3 8 Content-Type", media: "text/plain", code: 415, text: "Expecting 'Content-Type' of application/json or application/x-protobuf"},
		{row: "A.3 9 not JSON", media: transport.JSON, body: "{", code: 400, text: "Failed to parse body into JSON: …"},
		{row: "B.5 wrong shape", media: transport.JSON, body: `{"type":7}`, code: 400, text: "Failed to convert JSON into Call protobuf: Not expecting a JSON number for field 'type'"},
		{row: "A.3 9 not protobuf", media: transport.Protobuf, body: "\xff", code: 400, text: "Failed to parse body into Call protobuf"},
		{row: "A.3 10 no type", media: transport.JSON, body: `{}`, code: 400, text: "Failed to validate master::Call: Expecting 'type' to be present"},
		{row: "B.5 sub-message missing", media: transport.JSON, body: `{"type":"GET_METRICS"}`, code: 400, text: "Failed to validate master::Call: Expecting 'get_metrics' to be present"},
		{row: "A.3 11 Accept", media: transport.JSON, accept: "text/html", body: `{"type":"GET_HEALTH"}`, code: 406, text: "Expecting 'Accept' to allow 'application/x-protobuf' or 'application/json'"},
		{row: "A.3 12 UNKNOWN", media: transport.JSON, body: `{"type":"UNKNOWN"}`, code: 501, text: "501 Not Implemented."},

		{row: "E.1 GET_HEALTH", body: `{"type":"GET_HEALTH"}`, code: 200, text: `{"type":"GET_HEALTH","get_health":{"healthy":true}}`},
		{row: "E.1 GET_FLAGS", body: `{"type":"GET_FLAGS"}`, code: 200, text: `{"type":"GET_FLAGS","get_flags":{"flags":[{"name":"port","value":"5050"}]}}`},
		{row: "E.1 GET_VERSION", body: `{"type":"GET_VERSION"}`, code: 200, text: `{"type":"GET_VERSION","get_version":{"version_info":{"version":"1.11.0"…`},
		{row: "E.1 GET_METRICS", body: `{"type":"GET_METRICS","get_metrics":{"timeout":{"nanoseconds":1000000000}}}`, code: 200, text: `{"type":"GET_METRICS","get_metrics":{"metrics":[{"name":"master/elected","value":1.0}]}}`},
		{row: "E.1 SET_LOGGING_LEVEL", body: `{"type":"SET_LOGGING_LEVEL","set_logging_level":{"level":2,"duration":{"nanoseconds":1}}}`, code: 200},
		{row: "E.1 GET_LOGGING_LEVEL", body: `{"type":"GET_LOGGING_LEVEL"}`, code: 200, text: `{"type":"GET_LOGGING_LEVEL","get_logging_level":{"level":2}}`},
		{row: "I.9 LIST_FILES", body: `{"type":"LIST_FILES","list_files":{"path":"/x"}}`, code: 404},
		{row: "I.9 READ_FILE", body: `{"type":"READ_FILE","read_file":{"path":"/x","offset":0}}`, code: 404},
		{row: "E.1 GET_MASTER", body: `{"type":"GET_MASTER"}`, code: 200, text: `{"type":"GET_MASTER","get_master":{"master_info":{"id":"m-1","ip":1,"port":5050},"start_time":1700000000.0,"elected_time":1700000001.0}}`},
		{row: "E.1 GET_WEIGHTS", body: `{"type":"GET_WEIGHTS"}`, code: 200, text: `{"type":"GET_WEIGHTS","get_weights":{"weight_infos":[{"weight":2.0,"role":"ads"}]}}`},
		{row: "I.5 GET_OPERATIONS", body: `{"type":"GET_OPERATIONS"}`, code: 200, text: `{"type":"GET_OPERATIONS","get_operations":{}}`},
		{row: "E.1 GET_QUOTA", body: `{"type":"GET_QUOTA"}`, code: 200, text: `{"type":"GET_QUOTA","get_quota":{"status":{"infos":[{"role":"ads","guarantee":[{"name":"cpus","type":"SCALAR","scalar":{"value":4.0}}]}],"configs":[{"role":"ads","guarantees":{"cpus":{"value":4.0}},"limits":{"cpus":{"value":6.0},"mem":{"value":1000.0}}}]}}}`},
		{row: "E.1 GET_ROLES", body: `{"type":"GET_ROLES"}`, code: 200, text: `{"type":"GET_ROLES","get_roles":{"roles":[{"name":"ads","weight":2.0,"frameworks":[{"value":"m-1-0000"}],"resources":[{"name":"cpus"…`},
		{row: "E.1 GET_EXECUTORS", body: `{"type":"GET_EXECUTORS"}`, code: 200, text: `{"type":"GET_EXECUTORS","get_executors":{"executors":[{"executor_info":{"executor_id":{"value":"e1"}…`},

		{row: "E.1 UPDATE_WEIGHTS", body: `{"type":"UPDATE_WEIGHTS","update_weights":{"weight_infos":[{"role":"ads","weight":3}]}}`, code: 200, order: "weight ads 3"},
		{row: "E.1 UPDATE_WEIGHTS, not positive", body: `{"type":"UPDATE_WEIGHTS","update_weights":{"weight_infos":[{"role":"ads","weight":0}]}}`, code: 400, text: "Invalid weight '0' for role 'ads': Weights must be positive"},
		{row: "E.1 UPDATE_QUOTA", body: `{"type":"UPDATE_QUOTA","update_quota":{"force":true,"quota_configs":[{"role":"x","guarantees":{"cpus":{"value":1}},"limits":{"cpus":{"value":2}}}]}}`, code: 200, order: "quota x map[cpus:1] map[cpus:2]"},
		{row: "I.14 UPDATE_QUOTA, overcommitted", body: `{"type":"UPDATE_QUOTA","update_quota":{"quota_configs":[{"role":"x","guarantees":{"cpus":{"value":1}}}]}}`, code: 400, text: "Invalid QuotaConfig: total guarantees of 'cpus' (5) exceed the cluster's capacity (0)…"},
		{row: "E.1 UPDATE_QUOTA, all or none", body: `{"type":"UPDATE_QUOTA","update_quota":{"quota_configs":[{"role":"x","limits":{"cpus":{"value":2}}},{"role":"refused"}]}}`, code: 400, text: "Invalid QuotaConfig: the role uses more", order: "quota x map[] map[cpus:2]|no quota x"},
		{row: "E.1 SET_QUOTA", body: `{"type":"SET_QUOTA","set_quota":{"quota_request":{"role":"y","force":true,"guarantee":[{"name":"cpus","type":"SCALAR","scalar":{"value":1}}]}}}`, code: 200, order: "quota y map[cpus:1] map[cpus:1]"},
		{row: "I.14 SET_QUOTA, has one", body: `{"type":"SET_QUOTA","set_quota":{"quota_request":{"role":"ads","force":true,"guarantee":[{"name":"cpus","type":"SCALAR","scalar":{"value":1}}]}}}`, code: 400, text: "Failed to validate set quota request: Role 'ads' already has quota"},
		{row: "I.14 SET_QUOTA, over capacity", body: `{"type":"SET_QUOTA","set_quota":{"quota_request":{"role":"y","guarantee":[{"name":"cpus","type":"SCALAR","scalar":{"value":1}}]}}}`, code: 409, text: "Not enough available cluster capacity…"},
		{row: "I.2 REMOVE_QUOTA, has none", body: `{"type":"REMOVE_QUOTA","remove_quota":{"role":"none"}}`, code: 400, text: "Failed to remove quota for role 'none': Role 'none' has no quota set"},
		{row: "E.1 REMOVE_QUOTA", body: `{"type":"REMOVE_QUOTA","remove_quota":{"role":"ads"}}`, code: 200, order: "no quota ads"},
		{row: "E.1 TEARDOWN", body: `{"type":"TEARDOWN","teardown":{"framework_id":{"value":"m-1-0000"}}}`, code: 200, order: "teardown m-1-0000"},
		{row: "E.1 TEARDOWN, unknown", body: `{"type":"TEARDOWN","teardown":{"framework_id":{"value":"x"}}}`, code: 400, text: "No framework found with specified ID"},

		{row: "E.1 RESERVE_RESOURCES", body: `{"type":"RESERVE_RESOURCES","reserve_resources":{"agent_id":{"value":"a-1"},"resources":[{"name":"cpus","type":"SCALAR","scalar":{"value":1},"role":"ads","reservation":{}}]}}`, code: 202, order: "RESERVE a-1 ads"},
		{row: "E.1 UNRESERVE_RESOURCES, used", body: `{"type":"UNRESERVE_RESOURCES","unreserve_resources":{"agent_id":{"value":"busy"},"resources":[]}}`, code: 409, text: "in use"},
		{row: "E.1 CREATE_VOLUMES, unknown agent", body: `{"type":"CREATE_VOLUMES","create_volumes":{"agent_id":{"value":"none"},"volumes":[]}}`, code: 400, text: "No agent found with specified ID"},
		{row: "E.1 GROW_VOLUME", body: `{"type":"GROW_VOLUME","grow_volume":{"agent_id":{"value":"a-1"},"volume":{"name":"disk","type":"SCALAR","scalar":{"value":1}},"addition":{"name":"disk","type":"SCALAR","scalar":{"value":1}}}}`, code: 202, order: "GROW_VOLUME a-1 "},
		{row: "E.1 DRAIN_AGENT", body: `{"type":"DRAIN_AGENT","drain_agent":{"agent_id":{"value":"m-1-S0"},"max_grace_period":{"seconds":2,"nanos":500000000},"mark_gone":true}}`, code: 200, order: "drain m-1-S0 true 2.5 true"},
		{row: "E.1 DRAIN_AGENT, own grace", body: `{"type":"DRAIN_AGENT","drain_agent":{"agent_id":{"value":"m-1-S0"}}}`, code: 200, order: "drain m-1-S0 false 0 false"},
		{row: "E.1 DRAIN_AGENT, unknown", body: `{"type":"DRAIN_AGENT","drain_agent":{"agent_id":{"value":"none"}}}`, code: 400, text: "Unknown agent"},
		{row: "E.1 DRAIN_AGENT, being marked gone", body: `{"type":"DRAIN_AGENT","drain_agent":{"agent_id":{"value":"going"}}}`, code: 409, text: "agent going is being marked gone"},
		{row: "E.1 DEACTIVATE_AGENT", body: `{"type":"DEACTIVATE_AGENT","deactivate_agent":{"agent_id":{"value":"m-1-S0"}}}`, code: 200, order: "deactivate m-1-S0"},
		{row: "E.1 DEACTIVATE_AGENT, unknown", body: `{"type":"DEACTIVATE_AGENT","deactivate_agent":{"agent_id":{"value":"none"}}}`, code: 400, text: "Unknown agent"},
		{row: "E.1 REACTIVATE_AGENT", body: `{"type":"REACTIVATE_AGENT","reactivate_agent":{"agent_id":{"value":"m-1-S0"}}}`, code: 200, order: "reactivate m-1-S0"},
		{row: "I.13 REACTIVATE_AGENT, unknown", body: `{"type":"REACTIVATE_AGENT","reactivate_agent":{"agent_id":{"value":"none"}}}`, code: 400, text: "Agent is not deactivated"},
		{row: "E.1 REACTIVATE_AGENT, not deactivated", body: `{"type":"REACTIVATE_AGENT","reactivate_agent":{"agent_id":{"value":"m-1-S1"}}}`, code: 400, text: "Agent is not deactivated"},
		{row: "E.1 REACTIVATE_AGENT, draining", body: `{"type":"REACTIVATE_AGENT","reactivate_agent":{"agent_id":{"value":"m-1-S9"}}}`, code: 400, text: "Agent is still in the DRAINING state"},
		{row: "E.1 MARK_AGENT_GONE", body: `{"type":"MARK_AGENT_GONE","mark_agent_gone":{"agent_id":{"value":"m-1-S0"}}}`, code: 200, order: "gone m-1-S0"},
		{row: "E.1 MARK_AGENT_GONE, unknown", body: `{"type":"MARK_AGENT_GONE","mark_agent_gone":{"agent_id":{"value":"none"}}}`, code: 404, text: "Agent 'none' not found"},
		{row: "E.1 GET_MAINTENANCE_SCHEDULE", body: `{"type":"GET_MAINTENANCE_SCHEDULE"}`, code: 200,
			text: `{"type":"GET_MAINTENANCE_SCHEDULE","get_maintenance_schedule":{"schedule":{"windows":[{"machine_ids":[{"hostname":"planned"},{"hostname":"fallen","ip":"10.0.0.9"}],"unavailability":{"start":{"nanoseconds":1700000100000000000},"duration":{"nanoseconds":3600000000000}}}]}}}`},
		{row: "E.1 GET_MAINTENANCE_STATUS", body: `{"type":"GET_MAINTENANCE_STATUS"}`, code: 200,
			text: `{"type":"GET_MAINTENANCE_STATUS","get_maintenance_status":{"status":{"draining_machines":[{"id":{"hostname":"planned"},"statuses":[{"status":"ACCEPT","framework_id":{"value":"m-1-0000"},"timestamp":{"nanoseconds":1700000060000000000}}]}],"down_machines":[{"hostname":"fallen","ip":"10.0.0.9"}]}}}`},
		{row: "E.1 UPDATE_MAINTENANCE_SCHEDULE", body: schedule(`{"hostname":"Fallen","ip":"10.0.0.9"},{"ip":"10.0.0.1"}`, ``), code: 200, order: "schedule Fallen@10.0.0.9,@10.0.0.1 from 1700000000 for 60"},
		{row: "E.1 UPDATE_MAINTENANCE_SCHEDULE, without one that is down", body: schedule(`{"hostname":"a"}`, ``), code: 400, text: `Machine '{"hostname":"fallen","ip":"10.0.0.9"}' is deactivated and cannot be removed from the schedule`},
		{row: "E.1 UPDATE_MAINTENANCE_SCHEDULE, no machines", body: schedule(``, ``), code: 400, text: "List of machines in the maintenance window is empty"},
		{row: "E.1 UPDATE_MAINTENANCE_SCHEDULE, twice", body: schedule(`{"hostname":"a"},{"hostname":"A"}`, ``), code: 400, text: `Machine '{"hostname":"a"}' appears more than once in the schedule`},
		{row: "E.1 UPDATE_MAINTENANCE_SCHEDULE, no name", body: schedule(`{}`, ``), code: 400, text: "Both 'hostname' and 'ip' for a machine are empty"},
		{row: "E.1 UPDATE_MAINTENANCE_SCHEDULE, no address", body: schedule(`{"ip":"x"}`, ``), code: 400, text: "Failed to parse IP 'x'"},
		{row: "E.1 UPDATE_MAINTENANCE_SCHEDULE, negative", body: schedule(`{"hostname":"a"}`, `-`), code: 400, text: "Unavailability 'duration' is negative"},
		{row: "E.1 START_MAINTENANCE", body: `{"type":"START_MAINTENANCE","start_maintenance":{"machines":[{"hostname":"planned"}]}}`, code: 200, order: "down planned@"},
		{row: "E.1 START_MAINTENANCE, not scheduled", body: `{"type":"START_MAINTENANCE","start_maintenance":{"machines":[{"hostname":"a"}]}}`, code: 400, text: `Machine '{"hostname":"a"}' is not part of a maintenance schedule`},
		{row: "E.1 START_MAINTENANCE, down", body: `{"type":"START_MAINTENANCE","start_maintenance":{"machines":[{"hostname":"fallen","ip":"10.0.0.9"}]}}`, code: 400, text: `Machine '{"hostname":"fallen","ip":"10.0.0.9"}' is not in DRAINING mode and cannot be brought down`},
		{row: "E.1 START_MAINTENANCE, none", body: `{"type":"START_MAINTENANCE","start_maintenance":{}}`, code: 400, text: "List of machines is empty"},
		{row: "E.1 STOP_MAINTENANCE", body: `{"type":"STOP_MAINTENANCE","stop_maintenance":{"machines":[{"hostname":"fallen","ip":"10.0.0.9"}]}}`, code: 200, order: "up fallen@10.0.0.9"},
		{row: "E.1 STOP_MAINTENANCE, not down", body: `{"type":"STOP_MAINTENANCE","stop_maintenance":{"machines":[{"hostname":"planned"}]}}`, code: 400, text: `Machine '{"hostname":"planned"}' is not in DOWN mode and cannot be brought up`},
	}
	for _, c := range rows {
		t.Run(c.row, func(t *testing.T) {
			r.t = t
			if c.method == "" {
				c.method = "POST"
			}
			if c.media == "" && !strings.HasPrefix(c.row, "A.3 7") {
				c.media = transport.JSON
			}
			got := r.do(c.method, c.media, c.accept, c.body)
			if got.code != c.code {
				t.Fatalf("status %d, want %d; body %q", got.code, c.code, got.body)
			}
			if begin, cut := strings.CutSuffix(c.text, "…"); cut && !strings.HasPrefix(got.body, begin) || !cut && got.body != c.text {
				t.Errorf("body %q,\nwant %q", got.body, c.text)
			}
			if got.length != int64(len(got.body)) {
				t.Errorf("checklist 3: Content-Length is %d of %d bytes", got.length, len(got.body))
			}
			switch media, has := got.header["Content-Type"]; {
			case c.code == 200 && got.body == "" && has:
				t.Errorf("checklist 5: an empty answer has the Content-Type %q", media)
			case c.code == 200 && got.body != "" && media[0] != transport.JSON:
				t.Errorf("checklist 4: Content-Type is %q", media)
			}
			for want := range strings.SplitSeq(c.order, "|") {
				if want == "" {
					continue
				}
				if got := <-r.orders.Log; got != want {
					t.Errorf("the core was told %q, want %q", got, want)
				}
			}
			if len(r.orders.Log) > 0 {
				t.Errorf("the core was told %q", <-r.orders.Log)
			}
		})
	}
}

// A.3 3 to 5: who does not lead sends clients to who does.
func TestNotLeading(t *testing.T) {
	r := start(t, operator.Options{})
	r.lead.Set(&frameworkv1.LeadershipState{State: frameworkv1.LeadershipState_STATE_STANDBY})
	if got := r.post(`{"type":"GET_HEALTH"}`); got.code != 503 || got.body != "No leader elected" {
		t.Errorf("without a leader: %v", got)
	}
	r.lead.Set(&frameworkv1.LeadershipState{
		State: frameworkv1.LeadershipState_STATE_STANDBY, Endpoints: []*frameworkv1.Endpoint{{Name: mirror.Endpoint, Address: "h:5050"}},
	})
	if got := r.post(`{"type":"GET_HEALTH"}`); got.code != 307 || got.header.Get("Location") != "//h:5050/api/v1" {
		t.Errorf("with another leader: %v", got)
	}
	r.lead.Set(&frameworkv1.LeadershipState{State: frameworkv1.LeadershipState_STATE_RECOVERING})
	if got := r.post(`{"type":"GET_HEALTH"}`); got.code != 503 || got.body != "Master has not finished recovery" {
		t.Errorf("while recovering: %v", got)
	}
}

// B.1: the lists of an answer are there when they are empty.
func TestEmptyLists(t *testing.T) {
	r := start(t, operator.Options{})
	for call, want := range map[string]string{
		"GET_AGENTS":     `{"type":"GET_AGENTS","get_agents":{"agents":[],"recovered_agents":[]}}`,
		"GET_FRAMEWORKS": `{"type":"GET_FRAMEWORKS","get_frameworks":{"frameworks":[],"completed_frameworks":[]}}`,
		"GET_TASKS":      `{"type":"GET_TASKS","get_tasks":{"tasks":[],"completed_tasks":[],"unreachable_tasks":[]}}`,
		"GET_EXECUTORS":  `{"type":"GET_EXECUTORS","get_executors":{"executors":[]}}`,
		"GET_WEIGHTS":    `{"type":"GET_WEIGHTS"}`,
		"GET_ROLES":      `{"type":"GET_ROLES","get_roles":{}}`,
		"GET_QUOTA":      `{"type":"GET_QUOTA","get_quota":{"status":{}}}`,
		"GET_STATE": `{"type":"GET_STATE","get_state":{"get_tasks":{"tasks":[],"completed_tasks":[],"unreachable_tasks":[]},"get_executors":{"executors":[]},` +
			`"get_frameworks":{"frameworks":[],"completed_frameworks":[]},"get_agents":{"agents":[],"recovered_agents":[]}}}`,
	} {
		if got := r.post(`{"type":"` + call + `"}`); got.body != want {
			t.Errorf("%s is\n%s, want\n%s", call, got.body, want)
		}
	}
}

// The state in protobuf and in JSON says the same, and what the sample has.
func TestState(t *testing.T) {
	r := start(t, operator.Options{})
	r.master.Tell(mirrortest.Sample()...)
	call, err := proto.Marshal(&masterv1.Call{Type: masterv1.Call_GET_STATE.Enum()})
	if err != nil {
		t.Fatal(err)
	}
	got := r.do("POST", transport.Protobuf, transport.Protobuf, string(call))
	if got.header.Get("Content-Type") != transport.Protobuf {
		t.Errorf("Content-Type is %q", got.header.Get("Content-Type"))
	}
	var response masterv1.Response
	if err := proto.Unmarshal([]byte(got.body), &response); err != nil {
		t.Fatal(err)
	}
	state := response.GetGetState()
	names := func(list []*mezzov1.Task) (out []string) {
		for _, task := range list {
			out = append(out, task.GetTaskId().GetValue())
		}
		return out
	}
	if diff := cmp.Diff([][]string{{"t-running"}, {"t-lost"}, {"t-over"}}, [][]string{
		names(state.GetGetTasks().GetTasks()), names(state.GetGetTasks().GetUnreachableTasks()), names(state.GetGetTasks().GetCompletedTasks()),
	}); diff != "" {
		t.Errorf("tasks (-want +got):\n%s", diff)
	}
	agents := state.GetGetAgents()
	if len(agents.GetAgents()) != 1 || len(agents.GetRecoveredAgents()) != 1 {
		t.Fatalf("agents are %v", agents)
	}
	a := agents.GetAgents()[0]
	if a.GetPid() != "slave(1)@10.0.0.1:5051" || !a.GetActive() || a.GetAgentInfo().GetPort() != 5051 {
		t.Errorf("the agent is %v", a)
	}
	for _, x := range a.GetAllocatedResources() {
		if x.GetAllocationInfo().GetRole() != "ads" {
			t.Errorf("an allocated resource is %v", x)
		}
	}
	frameworks := state.GetGetFrameworks()
	if len(frameworks.GetFrameworks()) != 1 || len(frameworks.GetCompletedFrameworks()) != 1 {
		t.Fatalf("frameworks are %v", frameworks)
	}
	f := frameworks.GetFrameworks()[0]
	sum := 0.0
	for _, x := range f.GetAllocatedResources() {
		if x.GetName() == "cpus" {
			sum += x.GetScalar().GetValue()
		}
		if x.GetRole() != "*" {
			t.Errorf("B.6: a resource of a framework has no role: %v", x)
		}
	}
	if sum != 1.1 || len(f.GetOffers()) != 1 || !f.GetActive() || f.GetRegisteredTime().GetNanoseconds() != mirrortest.At(10).AsTime().UnixNano() {
		t.Errorf("the framework is %v", f)
	}
	if got := r.post(`{"type":"GET_STATE"}`); !json.Valid([]byte(got.body)) {
		t.Errorf("the state is not JSON: %s", got.body)
	}
}

// A large answer is the same as a small one, with its length.
func TestLargeAnswer(t *testing.T) {
	const tasks = 2000
	events := mirrortest.Sample()
	for i := range tasks {
		events = append(events, mirrortest.Task(mirrortest.NewTask(fmt.Sprint(strings.Repeat("x", 400), i), i, mezzov1.TaskState_TASK_RUNNING)))
	}
	r := start(t, operator.Options{}, events...)
	got := r.do("POST", transport.JSON, transport.Protobuf, `{"type":"GET_STATE"}`)
	if got.length < 1<<20+1 || got.length != int64(len(got.body)) {
		t.Errorf("Content-Length is %d of %d: %d %.100s", got.length, len(got.body), got.code, got.body)
	}
	var response masterv1.Response
	if err := proto.Unmarshal([]byte(got.body), &response); err != nil {
		t.Fatal(err)
	}
	if n := len(response.GetGetState().GetGetTasks().GetTasks()); n != tasks+1 {
		t.Errorf("protobuf has %d tasks", n)
	}
	if state := r.subscribe().expect("SUBSCRIBED"); len(state["subscribed"].(map[string]any)["get_state"].(map[string]any)["get_tasks"].(map[string]any)["tasks"].([]any)) != tasks+1 {
		t.Error("a subscriber is told of another state")
	}
	got = r.post(`{"type":"GET_TASKS"}`)
	var parsed struct {
		GetTasks struct{ Tasks []json.RawMessage } `json:"get_tasks"`
	}
	if err := json.Unmarshal([]byte(got.body), &parsed); err != nil {
		t.Fatal(err)
	}
	if got.length != int64(len(got.body)) || len(parsed.GetTasks.Tasks) != tasks+1 {
		t.Errorf("JSON has %d tasks in %d bytes of %d", len(parsed.GetTasks.Tasks), len(got.body), got.length)
	}
}

// E.1 GET_OPERATIONS and I.5: those that somebody waits for, by agent; empty
// again when they are over.
func TestOperations(t *testing.T) {
	r := start(t, operator.Options{})
	status := &mezzov1.OperationStatus{State: mezzov1.OperationState_OPERATION_PENDING.Enum()}
	operation := func(uuid, agent, framework string) *operatorv1.WatchEvent {
		o := &mezzov1.Operation{
			AgentId: &mezzov1.AgentID{Value: proto.String(agent)}, Uuid: &mezzov1.UUID{Value: []byte(uuid)}, LatestStatus: status,
			Info: &mezzov1.Offer_Operation{Type: mezzov1.Offer_Operation_UNRESERVE.Enum()},
		}
		if framework != "" {
			o.FrameworkId = &mezzov1.FrameworkID{Value: proto.String(framework)}
		}
		return mirrortest.Operation(o)
	}
	r.master.Tell(operation("u2", "a-2", ""), operation("u1", "a-1", "f"))
	const first = `{"framework_id":{"value":"f"},"agent_id":{"value":"a-1"},"info":{"type":"UNRESERVE"},"latest_status":{"state":"OPERATION_PENDING"},"uuid":{"value":"dTE="}}`
	const second = `{"agent_id":{"value":"a-2"},"info":{"type":"UNRESERVE"},"latest_status":{"state":"OPERATION_PENDING"},"uuid":{"value":"dTI="}}`
	for _, want := range []string{`{"operations":[` + first + `,` + second + `]}`, `{"operations":[` + first + `]}`} {
		if got := r.post(`{"type":"GET_OPERATIONS"}`); got.code != 200 || got.body != `{"type":"GET_OPERATIONS","get_operations":`+want+`}` {
			t.Errorf("answered %d %s", got.code, got.body)
		}
		r.master.Tell(&operatorv1.WatchEvent{Event: &operatorv1.WatchEvent_OperationRemoved{OperationRemoved: []byte("u2")}})
	}
}
