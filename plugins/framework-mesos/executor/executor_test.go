package executor_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/mezzo-os/mezzo/plugins/framework-mesos/executor"
	"github.com/mezzo-os/mezzo/plugins/framework-mesos/transport"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
	executorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1/executor"
	"github.com/mezzo-os/mezzo/sdk/recordio"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = time.Minute

// agent is an agent's native service with the executor "e" of framework "f". It
// answers as an agent does; what it was told is kept.
type agent struct {
	executorv1.UnimplementedExecutorServer

	mu         sync.Mutex
	recovering bool
	silent     bool
	events     chan *executorv1.Event // to the current stream; closed ends it
	refinement bool                   // the framework reads reservations as a stack
	calls      []*executorv1.Call
}

func (a *agent) refuse(call *executorv1.Call) string {
	switch {
	case call.GetFrameworkId().GetValue() != "f":
		return "Framework cannot be found"
	case call.GetExecutorId().GetValue() != "e":
		return "Executor cannot be found"
	}
	return ""
}

// check knows the token "good"; "another" is another executor's.
func (a *agent) check(call *executorv1.Call) executorv1.CallResult_Code {
	switch {
	case call.Token == nil || call.GetToken() == "good":
		return executorv1.CallResult_ACCEPTED
	case call.GetToken() == "another":
		return executorv1.CallResult_UNAUTHORIZED
	}
	return executorv1.CallResult_UNAUTHENTICATED
}

func (a *agent) Subscribe(call *executorv1.Call, stream grpc.ServerStreamingServer[executorv1.Event]) error {
	a.mu.Lock()
	recovering, silent := a.recovering, a.silent
	a.mu.Unlock()
	if code := a.check(call); code != executorv1.CallResult_ACCEPTED {
		return status.Error(map[executorv1.CallResult_Code]codes.Code{
			executorv1.CallResult_UNAUTHENTICATED: codes.Unauthenticated, executorv1.CallResult_UNAUTHORIZED: codes.PermissionDenied,
		}[code], "the token is bad")
	}
	switch why := a.refuse(call); {
	case silent:
		<-stream.Context().Done()
		return nil
	case recovering:
		return status.Error(codes.Unavailable, "Agent has not finished recovery")
	case why != "":
		return status.Error(codes.NotFound, why)
	}
	events := make(chan *executorv1.Event, 10)
	a.mu.Lock()
	if a.events != nil {
		close(a.events) // a second SUBSCRIBE takes over
	}
	a.events = events
	a.calls = append(a.calls, call)
	info := &mezzov1.FrameworkInfo{User: proto.String("u"), Name: proto.String("n"), Id: &mezzov1.FrameworkID{Value: proto.String("f")}}
	if a.refinement {
		info.Capabilities = []*mezzov1.FrameworkInfo_Capability{
			{Type: mezzov1.FrameworkInfo_Capability_RESERVATION_REFINEMENT.Enum()}, {Type: mezzov1.FrameworkInfo_Capability_MULTI_ROLE.Enum()},
		}
	}
	a.mu.Unlock()
	if err := stream.Send(&executorv1.Event{Type: executorv1.Event_SUBSCRIBED.Enum(), Subscribed: &executorv1.Event_Subscribed{
		ExecutorInfo: &mezzov1.ExecutorInfo{ExecutorId: &mezzov1.ExecutorID{Value: proto.String("e")}}, FrameworkInfo: info,
		AgentInfo: &mezzov1.AgentInfo{Hostname: proto.String("h")}, ContainerId: &mezzov1.ContainerID{Value: proto.String("c")},
	}}); err != nil {
		return err
	}
	for {
		select {
		case event, open := <-events:
			if !open {
				return nil
			}
			if err := stream.Send(event); err != nil {
				return err
			}
		case <-stream.Context().Done():
			return nil
		}
	}
}

func (a *agent) Calls(stream grpc.BidiStreamingServer[executorv1.Call, executorv1.CallResult]) error {
	for {
		call, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		a.mu.Lock()
		recovering, silent, subscribed := a.recovering, a.silent, a.events != nil
		a.calls = append(a.calls, call)
		a.mu.Unlock()
		result := &executorv1.CallResult{Sequence: call.Sequence, Code: executorv1.CallResult_ACCEPTED.Enum()}
		switch why := a.refuse(call); {
		case silent:
			continue
		case a.check(call) != executorv1.CallResult_ACCEPTED:
			result.Code, result.Message = a.check(call).Enum(), proto.String("the token is bad")
		case recovering:
			return status.Error(codes.Unavailable, "Agent has not finished recovery")
		case why != "":
			result.Code, result.Message = executorv1.CallResult_UNKNOWN_EXECUTOR.Enum(), proto.String(why)
		case !subscribed:
			result.Code, result.Message = executorv1.CallResult_NOT_SUBSCRIBED.Enum(), proto.String("Executor is not subscribed")
		case string(call.GetMessage().GetData()) == "bad":
			result.Code, result.Message = executorv1.CallResult_INVALID.Enum(), proto.String("Failed to validate Executor::Call: no")
		}
		if err := stream.Send(result); err != nil {
			return err
		}
	}
}

func (a *agent) send(e *executorv1.Event) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.events <- e
}

func (a *agent) told() []*executorv1.Call {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.calls
}

func (a *agent) set(change func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	change()
}

// serve puts the API before an agent and returns its address.
func serve(t *testing.T, a *agent) string {
	t.Helper()
	return serveWith(t, a, patience, nil)
}

// serveWith is serve with so much patience with the agent, and with somebody who
// recognises executors.
func serveWith(t *testing.T, a *agent, patience time.Duration, executors []transport.Authenticator) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	native := grpc.NewServer()
	executorv1.RegisterExecutorServer(native, a)
	go native.Serve(listener)
	t.Cleanup(native.Stop)
	conn, err := grpc.NewClient(listener.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	server, err := transport.Listen(transport.Options{
		Side: transport.Agent, Address: "127.0.0.1:0", Authenticators: map[transport.Realm][]transport.Authenticator{transport.Executor: executors},
	})
	if err != nil {
		t.Fatal(err)
	}
	api := executor.New(executor.Options{Client: executorv1.NewExecutorClient(conn), Patience: patience})
	api.Register(server)
	ended := make(chan error, 1)
	go func() { ended <- server.Serve() }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		server.Shutdown(ctx)
		api.Close()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return server.Address()
}

type answer struct {
	code         int
	media, body  string
	challenge    string
	stream       *recordio.Reader
	closeRequest func()
}

// post sends a call. A 200 leaves the body to be read as a stream.
func post(t *testing.T, url, body string, header ...string) answer {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	for i := 0; i < len(header); i += 2 {
		r.Header.Del(header[i])
		if header[i+1] != "" {
			r.Header.Set(header[i], header[i+1])
		}
	}
	client := &http.Client{Transport: &http.Transport{}}
	got, err := client.Do(r)
	if err != nil {
		cancel()
		t.Fatal(err)
	}
	end := func() { cancel(); got.Body.Close(); client.CloseIdleConnections() }
	out := answer{code: got.StatusCode, media: got.Header.Get("Content-Type"), challenge: got.Header.Get("Www-Authenticate"), closeRequest: end}
	if got.StatusCode == http.StatusOK {
		t.Cleanup(end)
		out.stream = recordio.NewReader(got.Body, recordio.DefaultLimit)
		return out
	}
	defer end()
	text, err := io.ReadAll(got.Body)
	if err != nil {
		t.Fatal(err)
	}
	out.body = string(text)
	return out
}

const (
	ids       = `"framework_id":{"value":"f"},"executor_id":{"value":"e"}`
	subscribe = `{"type":"SUBSCRIBE",` + ids + `,"subscribe":{}}`
	message   = `{"type":"MESSAGE",` + ids + `,"message":{"data":"aGk="}}`
)

func update(t *testing.T) string {
	t.Helper()
	uuid := []byte("0123456789abcdef")
	uuid[6], uuid[8] = 0x41, 0x91 // of version 4
	return `{"type":"UPDATE",` + ids + `,"update":{"status":{"task_id":{"value":"t"},"state":"TASK_RUNNING","source":"SOURCE_EXECUTOR","uuid":"` +
		base64.StdEncoding.EncodeToString(uuid) + `"}}}`
}

// TestStatuses has a row for each rule of statuses: A.3, A.8 and D.5 of the
// reference.
func TestStatuses(t *testing.T) {
	a := &agent{}
	at := "http://" + serve(t, a) + "/api/v1/executor"
	for _, row := range []struct {
		rule   string
		body   string
		header []string
		code   int
		text   string
	}{
		{"no Content-Type", subscribe, []string{"Content-Type", ""}, 400, "Expecting 'Content-Type' to be present"},
		{"another Content-Type", subscribe, []string{"Content-Type", "text/plain"}, 415, "Expecting 'Content-Type' of application/json or application/x-protobuf"},
		{"a charset is no other type", `{"type":"HEARTBEAT",` + ids + `}`, []string{"Content-Type", "application/json; charset=utf-8"}, 202, ""},
		{"no JSON", `{`, nil, 400, "Failed to parse body into JSON"},
		{"no protobuf", `{`, []string{"Content-Type", "application/x-protobuf"}, 400, "Failed to parse body into Call protobuf"},
		{"type missing", `{` + ids + `}`, nil, 400, "Failed to validate Executor::Call: Expecting 'type' to be present"},
		{"executor_id missing", `{"type":"SUBSCRIBE","framework_id":{"value":"f"},"subscribe":{}}`, nil, 400, "Failed to validate Executor::Call: Expecting 'executor_id' to be present"},
		{"framework_id missing", `{"type":"SUBSCRIBE","executor_id":{"value":"e"},"subscribe":{}}`, nil, 400, "Failed to validate Executor::Call: Expecting 'framework_id' to be present"},
		{"executor_id missing, protobuf", "\x12\x03\n\x01f\x18\x01", []string{"Content-Type", "application/x-protobuf"}, 400, "Failed to validate Executor::Call: Expecting 'executor_id' to be present"},
		{"framework_id missing, protobuf", "\n\x03\n\x01e\x18\x01", []string{"Content-Type", "application/x-protobuf"}, 400, "Failed to validate Executor::Call: Expecting 'framework_id' to be present"},
		{"another required field missing", `{"type":"MESSAGE",` + ids + `,"message":{}}`, nil, 400, "Failed to convert JSON into Call protobuf: Missing required fields: message.data"},
		{"subscribe missing", `{"type":"SUBSCRIBE",` + ids + `}`, nil, 400, "Failed to validate Executor::Call: Expecting 'subscribe' to be present"},
		{"type UNKNOWN", `{"type":"UNKNOWN",` + ids + `}`, nil, 501, ""},
		{"HEARTBEAT, ids not looked at", `{"type":"HEARTBEAT","framework_id":{"value":"x"},"executor_id":{"value":"y"}}`, nil, 202, ""},
		{"framework unknown, SUBSCRIBE", `{"type":"SUBSCRIBE","framework_id":{"value":"x"},"executor_id":{"value":"e"},"subscribe":{}}`, nil, 400, "Framework cannot be found"},
		{"executor unknown, SUBSCRIBE", `{"type":"SUBSCRIBE","framework_id":{"value":"f"},"executor_id":{"value":"x"},"subscribe":{}}`, nil, 400, "Executor cannot be found"},
		{"framework unknown, another call", `{"type":"MESSAGE","framework_id":{"value":"x"},"executor_id":{"value":"e"},"message":{"data":""}}`, nil, 400, "Framework cannot be found"},
		{"executor unknown, another call", `{"type":"MESSAGE","framework_id":{"value":"f"},"executor_id":{"value":"x"},"message":{"data":""}}`, nil, 400, "Executor cannot be found"},
		{"not subscribed, UPDATE", update(t), nil, 403, "Executor is not subscribed"},
		{"not subscribed, MESSAGE", message, nil, 403, "Executor is not subscribed"},
		{"Accept allows neither, SUBSCRIBE", subscribe, []string{"Accept", "text/html"}, 406, "Expecting 'Accept' to allow"},
	} {
		got := post(t, at, row.body, row.header...)
		if got.code != row.code || !strings.Contains(got.body, row.text) || row.text == "" && row.code == 202 && got.body != "" {
			t.Errorf("%s: %d %q, want %d %q", row.rule, got.code, got.body, row.code, row.text)
		}
	}
	r, err := http.Get(at)
	if err != nil {
		t.Fatal(err)
	}
	r.Body.Close()
	if r.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("GET: %s, want 405", r.Status)
	}

	subscribed := post(t, at, subscribe)
	if subscribed.code != 200 || subscribed.media != "application/json" {
		t.Fatalf("SUBSCRIBE: %d %s %s, want 200 of JSON, which it prefers", subscribed.code, subscribed.media, subscribed.body)
	}
	for rule, body := range map[string]string{"UPDATE": update(t), "MESSAGE": message} {
		// Executors ask for anything, and pymesos has a stream id to send.
		if got := post(t, at, body, "Accept", "text/html", "Mesos-Stream-Id", "x"); got.code != 202 || got.body != "" {
			t.Errorf("%s: %d %q, want 202 and no body", rule, got.code, got.body)
		}
	}
	bad := base64.StdEncoding.EncodeToString([]byte("bad"))
	if got := post(t, at, `{"type":"MESSAGE",`+ids+`,"message":{"data":"`+bad+`"}}`); got.code != 400 || got.body != "Failed to validate Executor::Call: no" {
		t.Errorf("what the agent finds invalid: %d %q", got.code, got.body)
	}
	// libmesos executors post to the process.
	if got := post(t, strings.Replace(at, "/api", "/slave(1)/api", 1), message); got.code != 202 {
		t.Errorf("/slave(1)/api/v1/executor: %d %q, want 202", got.code, got.body)
	}
	told := a.told()
	last := told[len(told)-1]
	if string(last.GetMessage().GetData()) != "hi" {
		t.Errorf("the agent was told %v", last)
	}

	a.set(func() { a.recovering = true })
	for rule, body := range map[string]string{"SUBSCRIBE": subscribe, "MESSAGE": message} {
		if got := post(t, at, body); got.code != 503 || !strings.Contains(got.body, "Agent has not finished recovery") {
			t.Errorf("%s while the agent recovers: %d %q, want 503", rule, got.code, got.body)
		}
	}
	a.set(func() { a.recovering, a.silent = false, true })
	hasty := "http://" + serveWith(t, a, 10*time.Millisecond, nil) + "/api/v1/executor"
	for rule, body := range map[string]string{"SUBSCRIBE": subscribe, "MESSAGE": message} {
		if got := post(t, hasty, body); got.code != 503 || got.body != "The agent did not answer in time" {
			t.Errorf("%s while the agent says nothing: %d %q, want 503", rule, got.code, got.body)
		}
	}
}

// A.9: with authentication of executors on, a call needs the token that the agent
// has given its executor. With it off nobody looks at one; nor is one taken from
// the body.
func TestTokens(t *testing.T) {
	a := &agent{}
	at := "http://" + serveWith(t, a, patience, []transport.Authenticator{transport.Bearer()}) + "/api/v1/executor"
	const challenge = `Bearer realm="mesos-agent-executor"`
	invalid := challenge + `, error="invalid_token", error_description="the token is bad"`
	for _, c := range []struct {
		row, authorization string
		code               int
		challenge, text    string
	}{
		{"A.3 row 1: none", "", 401, challenge, "401 Unauthorized."},
		{"basic", "Basic eDp5", 401, challenge, "401 Unauthorized."},
		{"an empty one", "Bearer ", 401, challenge, "401 Unauthorized."},
		{"none that the agent gave", "Bearer x", 401, invalid, "401 Unauthorized."},
		{"D.5 JWT claims differ", "Bearer another", 403, "", "the token is bad"},
	} {
		for rule, body := range map[string]string{"SUBSCRIBE": subscribe, "MESSAGE": message} {
			got := post(t, at, body, "Authorization", c.authorization)
			if got.code != c.code || got.challenge != c.challenge || got.body != c.text {
				t.Errorf("%s, %s: %d %q %q, want %d %q %q", c.row, rule, got.code, got.challenge, got.body, c.code, c.challenge, c.text)
			}
		}
	}
	if got := post(t, at, `{`, "Content-Type", "", "Authorization", ""); got.code != 401 {
		t.Errorf("A.3 row 1 comes before the others: %d", got.code)
	}
	s := post(t, at, subscribe, "Authorization", "bearer good")
	next(t, s)
	if got := post(t, at, message, "Authorization", "Bearer good"); got.code != 202 {
		t.Errorf("with its own token: %d %q", got.code, got.body)
	}

	open := "http://" + serve(t, a) + "/api/v1/executor"
	forged := strings.Replace(message, "{", `{"token":"another",`, 1)
	for _, body := range []string{message, forged} {
		if got := post(t, open, body, "Authorization", "Bearer x"); got.code != 202 {
			t.Errorf("without authentication: %d %q", got.code, got.body)
		}
	}
}

func next(t *testing.T, a answer) map[string]any {
	t.Helper()
	record, err := a.stream.Next()
	if err != nil {
		t.Fatal(err)
	}
	var event map[string]any
	if err := json.Unmarshal(record, &event); err != nil {
		t.Fatalf("%s: %v", record, err)
	}
	return event
}

func launch() *executorv1.Event {
	return &executorv1.Event{Type: executorv1.Event_LAUNCH.Enum(), Launch: &executorv1.Event_Launch{Task: &mezzov1.TaskInfo{
		Name: proto.String("t"), TaskId: &mezzov1.TaskID{Value: proto.String("t")}, AgentId: &mezzov1.AgentID{Value: proto.String("A1")},
		Resources: []*mezzov1.Resource{{
			Name: proto.String("cpus"), Type: mezzov1.Value_SCALAR.Enum(), Scalar: &mezzov1.Value_Scalar{Value: proto.Float64(1)},
			AllocationInfo: &mezzov1.Resource_AllocationInfo{Role: proto.String("ads")},
			Reservations:   []*mezzov1.Resource_ReservationInfo{{Type: mezzov1.Resource_ReservationInfo_STATIC.Enum(), Role: proto.String("ads")}},
		}},
	}}}
}

func TestEvents(t *testing.T) {
	a := &agent{}
	at := "http://" + serve(t, a) + "/api/v1/executor"
	first := post(t, at, subscribe, "Accept", "*/*")
	told := next(t, first)
	want := map[string]any{"type": "SUBSCRIBED", "executor_id": map[string]any{"value": "e"}, "framework_id": map[string]any{"value": "f"}, "container_id": map[string]any{"value": "c"}}
	s := told["subscribed"].(map[string]any)
	got := map[string]any{
		"type": told["type"], "executor_id": s["executor_info"].(map[string]any)["executor_id"],
		"framework_id": s["framework_info"].(map[string]any)["id"], "container_id": s["container_id"],
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("SUBSCRIBED; pymesos compares ids whole (-want +got):\n%s", diff)
	}
	// The framework knows the old form of a reservation alone.
	a.send(launch())
	task := next(t, first)["launch"].(map[string]any)["task"].(map[string]any)
	resource := task["resources"].([]any)[0].(map[string]any)
	if resource["role"] != "ads" || resource["reservations"] != nil || resource["allocation_info"] != nil {
		t.Errorf("a task for an old framework has the resource %v", resource)
	}
	a.send(&executorv1.Event{Type: executorv1.Event_MESSAGE.Enum(), Message: &executorv1.Event_Message{Data: []byte("ä")}})
	if data := next(t, first)["message"].(map[string]any)["data"]; data != "w6Q=" {
		t.Errorf("data is %v, want base64", data)
	}

	// A second SUBSCRIBE closes the first stream without a word, and takes over.
	a.set(func() { a.refinement = true })
	second := post(t, at, subscribe, "Accept", "application/x-protobuf")
	if second.media != "application/x-protobuf" {
		t.Errorf("the stream is %s, want protobuf", second.media)
	}
	if record, err := first.stream.Next(); !errors.Is(err, io.EOF) {
		t.Errorf("the first stream goes on with %s, %v; want its end", record, err)
	}
	if _, err := second.stream.Next(); err != nil {
		t.Fatal(err)
	}
	sent := launch()
	a.send(sent)
	record, err := second.stream.Next()
	if err != nil {
		t.Fatal(err)
	}
	event := new(executorv1.Event)
	if err := proto.Unmarshal(record, event); err != nil || !proto.Equal(event, sent) {
		t.Errorf("protobuf: %v, %v; want what was sent", event, err)
	}
	second.closeRequest()
}

func TestUnacknowledgedReachTheAgent(t *testing.T) {
	a := &agent{}
	at := "http://" + serve(t, a) + "/api/v1/executor"
	call := &executorv1.Call{
		Type: executorv1.Call_SUBSCRIBE.Enum(), FrameworkId: &mezzov1.FrameworkID{Value: proto.String("f")}, ExecutorId: &mezzov1.ExecutorID{Value: proto.String("e")},
		Subscribe: &executorv1.Call_Subscribe{UnacknowledgedTasks: []*mezzov1.TaskInfo{launch().GetLaunch().GetTask()}},
	}
	old := proto.CloneOf(call)
	resource := old.GetSubscribe().GetUnacknowledgedTasks()[0].GetResources()[0]
	resource.Role, resource.Reservations = proto.String("ads"), nil
	body, err := proto.Marshal(old)
	if err != nil {
		t.Fatal(err)
	}
	s := post(t, at, string(bytes.Clone(body)), "Content-Type", "application/x-protobuf")
	next(t, s)
	if diff := cmp.Diff(call.String(), a.told()[0].String()); diff != "" {
		t.Errorf("the agent hears, with resources in its own form (-want +got):\n%s", diff)
	}
}
