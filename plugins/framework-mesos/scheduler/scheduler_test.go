package scheduler_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/mezzo-os/mezzo/plugins/framework-mesos/scheduler"
	"github.com/mezzo-os/mezzo/plugins/framework-mesos/transport"
	"github.com/mezzo-os/mezzo/sdk/metric"
	"github.com/mezzo-os/mezzo/sdk/metric/metrictest"
	frameworkv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/framework/v1"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
	schedulerv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1/scheduler"
	"github.com/mezzo-os/mezzo/sdk/recordio"
	"github.com/mezzo-os/mezzo/sdk/wirejson"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is an API over a core.
type world struct {
	t          testing.TB
	core       *core
	leadership *transport.Leadership
	client     *http.Client
	base       string
}

func newWorld(t testing.TB, change func(*scheduler.Options, *transport.Options)) *world {
	t.Helper()
	c, client := startCore(t)
	leadership := transport.NewLeadership("mesos")
	leadership.Set(&frameworkv1.LeadershipState{State: frameworkv1.LeadershipState_STATE_LEADING})
	logger := slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
	options := scheduler.Options{Client: client, Logger: logger, Master: func(m *mezzov1.MasterInfo) {
		m.Pid = proto.String("master@127.0.0.1:5050")
		m.Capabilities = []*mezzov1.MasterInfo_Capability{
			{Type: mezzov1.MasterInfo_Capability_AGENT_UPDATE.Enum()}, {Type: mezzov1.MasterInfo_Capability_AGENT_DRAINING.Enum()},
			{Type: mezzov1.MasterInfo_Capability_QUOTA_V2.Enum()},
		}
	}}
	served := transport.Options{Side: transport.Master, Address: "127.0.0.1:0", Leadership: leadership, Logger: logger}
	if change != nil {
		change(&options, &served)
	}
	server, err := transport.Listen(served)
	if err != nil {
		t.Fatal(err)
	}
	api := scheduler.New(options)
	api.Register(server)
	done := make(chan error, 1)
	go func() { done <- server.Serve() }()
	w := &world{t: t, core: c, leadership: leadership, base: "http://" + server.Address(), client: &http.Client{Transport: &http.Transport{}}}
	t.Cleanup(func() {
		w.client.CloseIdleConnections()
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := server.Shutdown(ctx); err != nil {
			t.Errorf("shutdown: %v", err)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
		api.Close()
	})
	return w
}

type header map[string]string

// post sends a body. Without Content-Type it is JSON; "" means none.
func (w *world) post(body []byte, h header) *http.Response {
	w.t.Helper()
	r, err := http.NewRequest(http.MethodPost, w.base+"/api/v1/scheduler", bytes.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	r.Header.Set("Content-Type", transport.JSON)
	for name, value := range h {
		if value == "" {
			r.Header[name] = nil
			continue
		}
		r.Header.Set(name, value)
	}
	if user, password, ok := strings.Cut(r.Header.Get("X-User"), ":"); ok {
		r.SetBasicAuth(user, password)
	}
	response, err := w.client.Do(r)
	if err != nil {
		w.t.Fatal(err)
	}
	return response
}

// answer posts JSON and returns status and body of what is no stream.
func (w *world) answer(body string, h header) (int, string) {
	w.t.Helper()
	response := w.post([]byte(body), h)
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	if response.StatusCode < 300 {
		if _, has := response.Header["Content-Type"]; has || response.ContentLength != 0 {
			w.t.Errorf("%d has headers %v", response.StatusCode, response.Header)
		}
	} else if got := response.Header.Get("Content-Type"); got != "text/plain; charset=utf-8" || response.ContentLength < 0 {
		w.t.Errorf("%d has headers %v", response.StatusCode, response.Header)
	}
	return response.StatusCode, string(text)
}

func (w *world) want(row, body string, h header, status int, text string) {
	w.t.Helper()
	if got, said := w.answer(body, h); got != status || said != text {
		w.t.Errorf("%s: %d %q, want %d %q", row, got, said, status, text)
	}
}

// stream is an open subscription.
type stream struct {
	t        testing.TB
	response *http.Response
	in       *recordio.Reader
	id       string
	text     bool
}

func (w *world) subscribe(body []byte, h header) *stream {
	w.t.Helper()
	response := w.post(body, h)
	s := &stream{t: w.t, response: response, in: recordio.NewReader(response.Body, 64<<20), id: response.Header.Get("Mesos-Stream-Id")}
	if response.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(response.Body)
		w.t.Fatalf("SUBSCRIBE: %d %q", response.StatusCode, text)
	}
	if response.ContentLength != -1 || len(response.TransferEncoding) != 1 {
		w.t.Errorf("the stream is not chunked: %v", response.Header)
	}
	s.text = response.Header.Get("Content-Type") == transport.JSON
	w.t.Cleanup(func() { response.Body.Close() })
	return s
}

// record is the next record as it came.
func (s *stream) record() string {
	s.t.Helper()
	record, err := s.in.Next()
	if err != nil {
		s.t.Fatalf("next event: %v", err)
	}
	return string(record)
}

// event is the next event.
func (s *stream) event() *schedulerv1.Event {
	s.t.Helper()
	event, record := &schedulerv1.Event{}, s.record()
	err := proto.Unmarshal([]byte(record), event)
	if s.text {
		err = wirejson.NewDecoder().Unmarshal([]byte(record), event)
	}
	if err != nil {
		s.t.Fatalf("event %q: %v", record, err)
	}
	return event
}

func (s *stream) ends() {
	s.t.Helper()
	if record, err := s.in.Next(); !errors.Is(err, io.EOF) {
		s.t.Errorf("the stream goes on: %q %v", record, err)
	}
}

func (s *stream) close() { s.response.Body.Close() }

const subscribeX = `{"type":"SUBSCRIBE","framework_id":null,"subscribe":{"framework_info":{"user":"root","name":"x","id":null}}}`

// TestSubscribe is H.1, A.5, A.10 and D.1's SUBSCRIBE.
func TestSubscribe(t *testing.T) {
	w := newWorld(t, nil)
	s := w.subscribe([]byte(subscribeX), header{"Accept": "", "User-Agent": "npm"})
	t.Run("A.3 no Accept is JSON; A.7 Mesos-Stream-Id", func(t *testing.T) {
		if got := s.response.Header.Get("Content-Type"); got != transport.JSON {
			t.Errorf("content type %q", got)
		}
		if s.id != uuid(1) {
			t.Errorf("stream id %q, want %q", s.id, uuid(1))
		}
	})
	t.Run("H.1 SUBSCRIBED", func(t *testing.T) {
		want := `{"type":"SUBSCRIBED","subscribed":{"framework_id":{"value":"m-0001"},"heartbeat_interval_seconds":15.0,` +
			// Without AGENT_DRAINING and QUOTA_V2: the JSON of mesos-go does not read them.
			`"master_info":{"id":"m","ip":1,"port":5061,"pid":"master@127.0.0.1:5050","capabilities":[{"type":"AGENT_UPDATE"}]}}}`
		if got := s.record(); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	})
	t.Run("A.10 a HEARTBEAT at once", func(t *testing.T) {
		if got := s.record(); got != `{"type":"HEARTBEAT"}` {
			t.Error(got)
		}
	})
	t.Run("A.10 a second SUBSCRIBE takes over", func(t *testing.T) {
		again := w.subscribe([]byte(`{"type":"SUBSCRIBE","framework_id":{"value":"m-0001"},"subscribe":{"framework_info":{"user":"root","name":"x","id":{"value":"m-0001"}}}}`), nil)
		if got := s.record(); got != `{"type":"ERROR","error":{"message":"Framework failed over"}}` {
			t.Error(got)
		}
		s.ends()
		if got := again.event(); got.GetSubscribed().GetFrameworkId().GetValue() != "m-0001" || again.id != uuid(2) {
			t.Errorf("%v on %s", got, again.id)
		}
		w.want("A.7.6 the old stream", `{"type":"REVIVE","framework_id":{"value":"m-0001"}}`, header{"Mesos-Stream-Id": uuid(1)}, 400,
			"The stream ID '"+uuid(1)+"' included in this request didn't match the stream ID currently associated with framework ID m-0001")
		again.close()
		w.core.waitGone(t, "m-0001")
		w.want("A.7.3 the stream is gone", `{"type":"REVIVE","framework_id":{"value":"m-0001"}}`, header{"Mesos-Stream-Id": uuid(2)}, 403, "Framework is not subscribed")
	})
	t.Run("A.10 an error is the first event of a 200", func(t *testing.T) {
		for name, message := range map[string]string{"refused": "Framework has been removed", "denied": "Not authorized to register: denied: nobody may"} {
			s := w.subscribe([]byte(`{"type":"SUBSCRIBE","subscribe":{"framework_info":{"user":"root","name":"`+name+`"}}}`), nil)
			if got := s.record(); got != `{"type":"ERROR","error":{"message":"`+message+`"}}` {
				t.Error(got)
			}
			s.ends()
			if len(s.id) != 36 {
				t.Errorf("stream id %q", s.id)
			}
		}
	})
	t.Run("protobuf", func(t *testing.T) {
		body, err := proto.Marshal(&schedulerv1.Call{Type: schedulerv1.Call_SUBSCRIBE.Enum(), Subscribe: &schedulerv1.Call_Subscribe{
			FrameworkInfo: &mezzov1.FrameworkInfo{User: proto.String("root"), Name: proto.String("x")},
		}})
		if err != nil {
			t.Fatal(err)
		}
		s := w.subscribe(body, header{"Content-Type": transport.Protobuf, "Accept": transport.Protobuf, "Connection": "close"})
		if got := s.response.Header.Get("Content-Type"); got != transport.Protobuf {
			t.Errorf("content type %q", got)
		}
		first := s.event()
		if id := first.GetSubscribed().GetFrameworkId().GetValue(); id == "" || first.GetSubscribed().StreamId != nil {
			t.Errorf("first event %v", first)
		}
		if diff := cmp.Diff(&schedulerv1.Event{Type: schedulerv1.Event_HEARTBEAT.Enum()}, s.event(), protocmp.Transform()); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("D.1 an id that the master does not know", func(t *testing.T) {
		s := w.subscribe([]byte(`{"type":"SUBSCRIBE","framework_id":{"value":"Singularity"},"subscribe":{"framework_info":{"user":"root","name":"x","id":{"value":"Singularity"}}}}`), nil)
		if got := s.event().GetSubscribed().GetFrameworkId().GetValue(); got != "Singularity" {
			t.Errorf("subscribed as %q", got)
		}
	})
}

// TestRefusals is A.3, A.7 and B.5, row by row.
func TestRefusals(t *testing.T) {
	w := newWorld(t, nil)
	s := w.subscribe([]byte(subscribeX), nil)
	ours := header{"Mesos-Stream-Id": s.id}
	const id = `"framework_id":{"value":"m-0001"}`
	with := func(more header) header {
		out := header{"Mesos-Stream-Id": s.id}
		for k, v := range more {
			out[k] = v
		}
		return out
	}
	for _, c := range []struct {
		row, body string
		h         header
		status    int
		text      string
	}{
		{"A.3.7 no Content-Type", `{}`, header{"Content-Type": ""}, 400, "Expecting 'Content-Type' to be present"},
		{"A.3.8 another", `{}`, header{"Content-Type": "text/plain"}, 415, "Expecting 'Content-Type' of application/json or application/x-protobuf"},
		{"A.3.9, B.5 bad protobuf", `{}`, header{"Content-Type": transport.Protobuf}, 400, "Failed to parse body into Call protobuf"},
		{"A.3.9, B.5 wrong shape", `{"type":1}`, nil, 400, "Failed to convert JSON into Call protobuf: Not expecting a JSON number for field 'type'"},
		{"A.3.10, B.5 no type", `{}`, nil, 400, "Failed to validate scheduler::Call: Expecting 'type' to be present"},
		{"B.5 unknown type", `{"type":"NEW"}`, nil, 400, "Failed to validate scheduler::Call: Expecting 'type' to be present"},
		{"B.5 no framework id", `{"type":"REVIVE"}`, ours, 400, "Failed to validate scheduler::Call: Expecting 'framework_id' to be present"},
		{"B.5 no sub-message", `{"type":"ACCEPT",` + id + `}`, ours, 400, "Failed to validate scheduler::Call: Expecting 'accept' to be present"},
		{"B.5 no subscribe", `{"type":"SUBSCRIBE"}`, nil, 400, "Failed to validate scheduler::Call: Expecting 'subscribe' to be present"},
		{"B.5, I.3 uuid", `{"type":"ACKNOWLEDGE",` + id + `,"acknowledge":{"agent_id":{"value":"a"},"task_id":{"value":"t"},"uuid":"AAAAAAAAAAAAAAAAAAAAAA=="}}`, ours, 400,
			"Failed to validate scheduler::Call: Not a valid UUID"},
		{"D.1 ids differ", `{"type":"SUBSCRIBE",` + id + `,"subscribe":{"framework_info":{"user":"u","name":"n"}}}`, nil, 400,
			"Failed to validate scheduler::Call: 'framework_id' differs from 'subscribe.framework_info.id'"},
		{"A.3.10 before 11", `{"type":"SUBSCRIBE"}`, header{"Accept": "text/html"}, 400, "Failed to validate scheduler::Call: Expecting 'subscribe' to be present"},
		{"A.3.11 SUBSCRIBE", subscribeX, header{"Accept": "text/html"}, 406, "Expecting 'Accept' to allow 'application/x-protobuf' or 'application/json'"},
		{"A.3.11 RECONCILE_OPERATIONS", `{"type":"RECONCILE_OPERATIONS",` + id + `,"reconcile_operations":{}}`, with(header{"Accept": "text/html"}), 406, "Expecting 'Accept' to allow 'application/x-protobuf' or 'application/json'"},
		{"A.3.11 no other", `{"type":"REVIVE",` + id + `}`, with(header{"Accept": "text/html"}), 202, ""},
		{"A.7 SUBSCRIBE with a stream id", subscribeX, ours, 400, "Subscribe calls should not include the 'Mesos-Stream-Id' header"},
		{"A.7.1 unknown framework", `{"type":"REVIVE","framework_id":{"value":"other"}}`, ours, 400, "Framework cannot be found"},
		{"A.7.5 no header", `{"type":"REVIVE",` + id + `}`, nil, 400, "All non-subscribe calls should include the 'Mesos-Stream-Id' header"},
		{"A.7.6 another stream", `{"type":"REVIVE",` + id + `}`, header{"Mesos-Stream-Id": "x-y"}, 400,
			"The stream ID 'x-y' included in this request didn't match the stream ID currently associated with framework ID m-0001"},
		{"A.7.6 the native form is not the stream's id", `{"type":"REVIVE",` + id + `}`, header{"Mesos-Stream-Id": native(1)}, 400,
			"The stream ID '" + native(1) + "' included in this request didn't match the stream ID currently associated with framework ID m-0001"},
		{"I.1 UNKNOWN without an id", `{"type":"UNKNOWN"}`, ours, 400, "Failed to validate scheduler::Call: Expecting 'framework_id' to be present"},
		{"I.1 UNKNOWN of an unknown framework", `{"type":"UNKNOWN","framework_id":{"value":"other"}}`, ours, 400, "Framework cannot be found"},
		{"A.3.12, I.1 UNKNOWN", `{"type":"UNKNOWN",` + id + `}`, ours, 501, "501 Not Implemented."},
		{"A.8 not authorized", `{"type":"KILL",` + id + `,"kill":{"task_id":{"value":"forbidden"}}}`, ours, 403, "denied: not this one"},
		{"D.1 UPDATE_FRAMEWORK that may not be", `{"type":"UPDATE_FRAMEWORK",` + id + `,"update_framework":{"framework_info":{"id":{"value":"m-0001"},"user":"changed","name":"x"}}}`, ours, 400,
			"FrameworkInfo update is not valid: Updating 'FrameworkInfo.user' is unsupported"},
	} {
		t.Run(c.row, func(t *testing.T) {
			w.t = t
			w.want(c.row, c.body, c.h, c.status, c.text)
		})
	}
	t.Run("A.3.9, B.5 no JSON", func(t *testing.T) {
		if status, text := w.answer(`{"type":`, nil); status != 400 || !strings.HasPrefix(text, "Failed to parse body into JSON: ") {
			t.Errorf("%d %q", status, text)
		}
	})
	t.Run("A.3.6 another method", func(t *testing.T) {
		response, err := w.client.Get(w.base + "/api/v1/scheduler")
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if response.StatusCode != 405 || response.Header.Get("Allow") != "POST" {
			t.Errorf("%d %v", response.StatusCode, response.Header)
		}
	})
	t.Run("A.3.3 to 5 leadership", func(t *testing.T) {
		w.leadership.Set(&frameworkv1.LeadershipState{State: frameworkv1.LeadershipState_STATE_RECOVERING})
		w.want("A.3.5", `{}`, nil, 503, "Master has not finished recovery")
		w.leadership.Set(&frameworkv1.LeadershipState{State: frameworkv1.LeadershipState_STATE_STANDBY})
		w.want("A.3.4", `{}`, nil, 503, "No leader elected")
		w.leadership.Set(&frameworkv1.LeadershipState{State: frameworkv1.LeadershipState_STATE_LEADING})
	})
	w.t = t
}

// TestCalls is D.1: each call reaches the master as it was meant, and is answered
// with its status.
func TestCalls(t *testing.T) {
	w := newWorld(t, nil)
	s := w.subscribe([]byte(subscribeX), nil)
	const id = `"framework_id":{"value":"m-0001"}`
	for kind, body := range map[string]string{
		"ACCEPT":                       `"accept":{"offer_ids":[{"value":"o"}],"operations":{"type":"LAUNCH","launch":{"task_infos":[{"name":"n","task_id":{"value":"t"},"agent_id":{"value":"a"}}]}},"filters":null}`,
		"DECLINE":                      `"decline":{"offer_ids":[{"value":"o"}],"filters":{"refuse_seconds":1.5}}`,
		"ACCEPT_INVERSE_OFFERS":        `"accept_inverse_offers":{"inverse_offer_ids":[{"value":"o"}]}`,
		"DECLINE_INVERSE_OFFERS":       `"decline_inverse_offers":{"inverse_offer_ids":[{"value":"o"}]}`,
		"REVIVE":                       `"revive":{"roles":["r"]}`,
		"SUPPRESS":                     `"suppress":{"roles":["r"]}`,
		"KILL":                         `"kill":{"task_id":{"value":"t"},"agent_id":{"value":"a"}}`,
		"SHUTDOWN":                     `"shutdown":{"executor_id":{"value":"e"},"agent_id":{"value":"a"}}`,
		"ACKNOWLEDGE":                  `"acknowledge":{"agent_id":{"value":"a"},"task_id":{"value":"t"},"uuid":"AAAAAAAAQACAAAAAAAAAAA=="}`,
		"ACKNOWLEDGE_OPERATION_STATUS": `"acknowledge_operation_status":{"agent_id":{"value":"a"},"operation_id":{"value":"o"},"uuid":"AAAAAAAAQACAAAAAAAAAAA=="}`,
		"RECONCILE":                    `"reconcile":{"tasks":[{"task_id":{"value":"t"}}]}`,
		"RECONCILE_OPERATIONS":         `"reconcile_operations":{"operations":[{"operation_id":{"value":"o"}}]}`,
		"MESSAGE":                      `"message":{"agent_id":{"value":"a"},"executor_id":{"value":"e"},"data":"aGVsbG8="}`,
		"REQUEST":                      `"request":{"requests":[{}]}`,
		"UPDATE_FRAMEWORK":             `"update_framework":{"framework_info":{"id":{"value":"m-0001"},"user":"root","name":"y"}}`,
	} {
		t.Run("D.1 "+kind, func(t *testing.T) {
			w.t = t
			status := 202
			if kind == "UPDATE_FRAMEWORK" {
				status = 200 // D.1
			}
			text := `{"type":"` + kind + `",` + id + `,` + body + `}`
			want := &schedulerv1.Call{}
			if err := wirejson.NewDecoder().Unmarshal([]byte(text), want); err != nil {
				t.Fatal(err)
			}
			binary, err := proto.Marshal(want)
			if err != nil {
				t.Fatal(err)
			}
			w.want("JSON", text, header{"Mesos-Stream-Id": s.id}, status, "")
			w.want("protobuf", string(binary), header{"Mesos-Stream-Id": s.id, "Content-Type": transport.Protobuf}, status, "")
			told := w.core.told()
			if len(told) != 2 {
				t.Fatalf("the master got %d calls", len(told))
			}
			for _, got := range told {
				if got.GetStreamId() != native(1) {
					t.Errorf("stream %q", got.GetStreamId())
				}
				got.StreamId, got.Sequence = nil, nil
				if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
					t.Errorf("the master got (-want +got):\n%s", diff)
				}
			}
		})
	}
	w.t = t
	t.Run("D.1, A.10 TEARDOWN ends the stream, without an event", func(t *testing.T) {
		s.event()
		s.event()
		w.want("TEARDOWN", `{"type":"TEARDOWN",`+id+`}`, header{"Mesos-Stream-Id": s.id}, 202, "")
		s.ends()
	})
}

// TestForms is B.6: old forms of resources are converted, both ways.
func TestForms(t *testing.T) {
	w := newWorld(t, nil)
	s := w.subscribe([]byte(subscribeX), nil)
	s.event()
	s.event()
	offer := func() *schedulerv1.Event {
		offer := func(agent string, endpoints ...*mezzov1.URL_Endpoint) *mezzov1.Offer {
			return &mezzov1.Offer{
				Id: &mezzov1.OfferID{Value: proto.String("o")}, FrameworkId: &mezzov1.FrameworkID{Value: proto.String("m-0001")},
				AgentId: &mezzov1.AgentID{Value: proto.String(agent)}, Hostname: proto.String("h"),
				Url:            &mezzov1.URL{Scheme: proto.String("http"), Address: &mezzov1.Address{Ip: proto.String("10.0.0.3"), Port: proto.Int32(5062)}, Endpoints: endpoints},
				AllocationInfo: &mezzov1.Resource_AllocationInfo{Role: proto.String("r")},
				Resources: []*mezzov1.Resource{{
					Name: proto.String("cpus"), Type: mezzov1.Value_SCALAR.Enum(), Scalar: &mezzov1.Value_Scalar{Value: proto.Float64(1)},
					AllocationInfo: &mezzov1.Resource_AllocationInfo{Role: proto.String("r")},
					Reservations:   []*mezzov1.Resource_ReservationInfo{{Type: mezzov1.Resource_ReservationInfo_STATIC.Enum(), Role: proto.String("r")}},
				}},
			}
		}
		return &schedulerv1.Event{Type: schedulerv1.Event_OFFERS.Enum(), Offers: &schedulerv1.Event_Offers{Offers: []*mezzov1.Offer{
			offer("a", &mezzov1.URL_Endpoint{Name: proto.String("other"), Address: proto.String("10.0.0.9:1")},
				&mezzov1.URL_Endpoint{Name: proto.String("mesos"), Address: proto.String("10.0.0.2:5051")}),
			offer("b", &mezzov1.URL_Endpoint{Name: proto.String("mesos"), Address: proto.String("h:5052")}),
		}}}
	}
	const old = `"resources":[{"name":"cpus","type":"SCALAR","scalar":{"value":1.0},"role":"r"}]`
	const neu = `"resources":[{"name":"cpus","type":"SCALAR","scalar":{"value":1.0},"allocation_info":{"role":"r"},"reservations":[{"role":"r","type":"STATIC"}]}]`
	shows := func(row, want string, allocation bool) {
		t.Helper()
		w.core.send("m-0001", offer())
		got := s.record()
		if !strings.Contains(got, want) || strings.Contains(got, "allocation_info") != allocation {
			t.Errorf("%s: %s\nhas no %s", row, got, want)
		}
		for _, url := range []string{`{"ip":"10.0.0.2","port":5051},"path":"/slave(1)"}`, `{"ip":"10.0.0.3","port":5052},"path":"/slave(1)"}`} {
			if !strings.Contains(got, url) {
				t.Errorf("0.13 the url: %s\nhas no %s", got, url)
			}
		}
	}
	shows("B.6 neither capability", old, false)
	w.want("D.1 UPDATE_FRAMEWORK", `{"type":"UPDATE_FRAMEWORK","framework_id":{"value":"m-0001"},"update_framework":{"framework_info":{"id":{"value":"m-0001"},"user":"root","name":"x",
		"capabilities":[{"type":"MULTI_ROLE"},{"type":"RESERVATION_REFINEMENT"}]}}}`, header{"Mesos-Stream-Id": s.id}, 200, "")
	shows("B.6 both capabilities, from now on", neu, true)
	w.core.told()
	w.want("B.6 input in the old form", `{"type":"ACCEPT","framework_id":{"value":"m-0001"},"accept":{"offer_ids":[{"value":"o"}],"operations":[{"type":"LAUNCH","launch":{"task_infos":[
		{"name":"n","task_id":{"value":"t"},"agent_id":{"value":"a"},`+old+`}]}}]}}`, header{"Mesos-Stream-Id": s.id}, 202, "")
	got := w.core.told()[0].GetAccept().GetOperations()[0].GetLaunch().GetTaskInfos()[0].GetResources()[0]
	if got.Role != nil || got.GetReservations()[0].GetRole() != "r" {
		t.Errorf("the master got %v", got)
	}
}

// TestPrincipals is A.7.2, A.9 and I.11.
func TestPrincipals(t *testing.T) {
	w := newWorld(t, func(_ *scheduler.Options, o *transport.Options) {
		o.Authenticators = map[transport.Realm][]transport.Authenticator{transport.Scheduler: {transport.Basic(map[string]string{"p": "1", "q": "2"})}}
	})
	w.want("A.3.1", subscribeX, nil, 401, "401 Unauthorized.")
	w.want("I.11", `{"type":"SUBSCRIBE","subscribe":{"framework_info":{"user":"root","name":"x","principal":"q"}}}`, header{"X-User": "p:1"}, 400,
		"Failed to validate scheduler::Call: Authenticated principal 'p' does not match principal 'q' set in `FrameworkInfo`")
	s := w.subscribe([]byte(subscribeX), header{"X-User": "p:1"})
	const call = `{"type":"REVIVE","framework_id":{"value":"m-0001"}}`
	w.want("A.7.2 before the stream is looked at", call, header{"X-User": "q:2"}, 400, "Authenticated principal 'q' does not match principal 'p' set in `FrameworkInfo`")
	w.want("A.9", call, header{"X-User": "p:1", "Mesos-Stream-Id": s.id}, 202, "")
	w.core.set(func(c *core) {
		if diff := cmp.Diff([]string{"p"}, c.principals); diff != "" {
			t.Errorf("the master was called for: %s", diff)
		}
		if c.frameworks["m-0001"].principal != "p" {
			t.Errorf("the framework is %q's", c.frameworks["m-0001"].principal)
		}
	})
}

// TestCoreAway: while the master does not answer clients are told to come again.
func TestCoreAway(t *testing.T) {
	const call = `{"type":"REVIVE","framework_id":{"value":"m-0001"}}`
	hasty := newWorld(t, func(o *scheduler.Options, _ *transport.Options) { o.Patience = 10 * time.Millisecond })
	hasty.core.set(func(c *core) { c.silent = true })
	hasty.want("a call", call, header{"Mesos-Stream-Id": "x"}, 503, "The master did not answer in time")
	hasty.want("a subscription", subscribeX, nil, 503, "The master did not answer in time")

	w := newWorld(t, func(o *scheduler.Options, _ *transport.Options) { o.Patience = time.Minute })
	s := w.subscribe([]byte(subscribeX), nil)
	w.core.set(func(c *core) { c.down = true })
	w.want("a subscription", subscribeX, nil, 503, "The master does not answer: unavailable: this master does not lead")
	w.core.set(func(c *core) { c.down = false })
	w.want("it is back", call, header{"Mesos-Stream-Id": s.id}, 202, "")
}

// TestBeat is A.10's tip: heartbeats come more often than the core's.
func TestBeat(t *testing.T) {
	w := newWorld(t, func(o *scheduler.Options, _ *transport.Options) { o.Beat = 10 * time.Millisecond })
	for _, media := range []string{transport.JSON, transport.Protobuf} {
		s := w.subscribe([]byte(subscribeX), header{"Accept": media})
		s.event()
		for range 5 {
			if got := s.event(); got.GetType() != schedulerv1.Event_HEARTBEAT {
				t.Errorf("%s: %v", media, got)
			}
		}
		s.close()
	}
}

// TestDisconnect: the master learns that a scheduler has left.
func TestDisconnect(t *testing.T) {
	w := newWorld(t, nil)
	s := w.subscribe([]byte(subscribeX), nil)
	s.close()
	w.core.waitGone(t, "m-0001")
}

func messageOf(size int) *schedulerv1.Event {
	return &schedulerv1.Event{Type: schedulerv1.Event_MESSAGE.Enum(), Message: &schedulerv1.Event_Message{
		AgentId: &mezzov1.AgentID{Value: proto.String("a")}, ExecutorId: &mezzov1.ExecutorID{Value: proto.String("e")}, Data: make([]byte, size),
	}}
}

// TestUnreadSubscriptions: of a framework's streams that nobody reads only the
// newest few stay open.
func TestUnreadSubscriptions(t *testing.T) {
	counts := metric.NewSet()
	w := newWorld(t, func(o *scheduler.Options, s *transport.Options) {
		o.MaxStreams, s.Counts.Cut = 2, counts.Counter("cut_total", "X.", "endpoint", "reason")
	})
	var all []*stream
	for range 4 {
		s := w.subscribe([]byte(`{"type":"SUBSCRIBE","framework_id":{"value":"f"},"subscribe":{"framework_info":{"user":"root","name":"x","id":{"value":"f"}}}}`), nil)
		for range 10 {
			w.core.send("f", messageOf(3<<20)) // more than sockets hold
		}
		all = append(all, s)
	}
	for i, s := range all[:2] {
		read := 0
		for {
			_, err := s.in.Next()
			if err == nil {
				read++
				continue
			}
			if read >= 12 {
				t.Errorf("stream %d was not cut: %d events, then %v", i, read, err)
			}
			break
		}
	}
	if got := all[3].event(); got.GetType() != schedulerv1.Event_SUBSCRIBED {
		t.Errorf("the newest: %v", got)
	}
	if n, _ := metrictest.Value(counts, "cut_total", "/api/v1/scheduler", transport.CutCrowded); n != 2 {
		t.Errorf("%v are counted as cut", n)
	}
}

// TestCallsAreCounted: by type, and what came of them.
func TestCallsAreCounted(t *testing.T) {
	counts := metric.NewSet()
	w := newWorld(t, func(o *scheduler.Options, _ *transport.Options) {
		o.Calls = counts.Counter("calls_total", "X.", "type", "outcome")
	})
	call := `{"type":"SUPPRESS","framework_id":{"value":"nobody"}}`
	code, text := w.answer(call, nil)
	outcome := map[int]string{202: "accepted", 400: "unknown_framework"}[code]
	if n, _ := metrictest.Value(counts, "calls_total", "suppress", outcome); n != 1 {
		t.Errorf("%d %s: %v", code, text, counts.Families())
	}
}

// TestManyCalls: calls of many schedulers at a time are each answered with their
// own result.
func TestManyCalls(t *testing.T) {
	w := newWorld(t, nil)
	const schedulers, calls = 20, 50
	done := make(chan error, schedulers)
	for range schedulers {
		s := w.subscribe([]byte(subscribeX), nil)
		id := s.event().GetSubscribed().GetFrameworkId().GetValue()
		go func() {
			for i := range calls {
				stream, want := s.id, 202
				if i%5 == 0 {
					stream, want = "", 400
				}
				r, err := http.NewRequest(http.MethodPost, w.base+"/api/v1/scheduler", strings.NewReader(`{"type":"REVIVE","framework_id":{"value":"`+id+`"}}`))
				if err != nil {
					done <- err
					return
				}
				r.Header.Set("Content-Type", transport.JSON)
				if stream != "" {
					r.Header.Set("Mesos-Stream-Id", stream)
				}
				response, err := w.client.Do(r)
				if err != nil {
					done <- err
					return
				}
				_, _ = io.Copy(io.Discard, response.Body)
				response.Body.Close()
				if response.StatusCode != want {
					done <- fmt.Errorf("%s call %d: %d, want %d", id, i, response.StatusCode, want)
					return
				}
			}
			done <- nil
		}()
	}
	for range schedulers {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}
