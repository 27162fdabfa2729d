package ui_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/mezzo-os/mezzo/core/http/ui"
	"github.com/mezzo-os/mezzo/core/rpc"
	operatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/operator/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// operator is a master with one agent, which sends what a test gives it.
type operator struct {
	operatorv1.UnimplementedOperatorServer
	agentAddress string
	events       chan *operatorv1.WatchEvent
	over         chan error
	killed       chan string
}

func (o *operator) Watch(_ *operatorv1.WatchRequest, s grpc.ServerStreamingServer[operatorv1.WatchEvent]) error {
	for {
		select {
		case e := <-o.events:
			if err := s.Send(e); err != nil {
				return err
			}
		case err := <-o.over:
			return err
		case <-s.Context().Done():
			return s.Context().Err()
		}
	}
}

func (o *operator) KillTask(_ context.Context, q *operatorv1.KillTaskRequest) (*operatorv1.KillTaskResponse, error) {
	if q.GetTaskId() == "" {
		return nil, fmt.Errorf("%w: no task is named", rpc.ErrInvalid)
	}
	o.killed <- q.GetTaskId()
	return &operatorv1.KillTaskResponse{}, nil
}

// agent serves one large file.
type agent struct {
	operatorv1.UnimplementedAgentOperatorServer
	file []byte
}

func (a *agent) ReadFile(_ context.Context, q *operatorv1.ReadFileRequest) (*operatorv1.ReadFileResponse, error) {
	if q.GetPath() != "/sandbox/stdout" {
		return nil, status.Errorf(codes.NotFound, "there is no file %s", q.GetPath())
	}
	from := min(q.GetOffset(), uint64(len(a.file)))
	to := min(from+q.GetLength(), uint64(len(a.file)))
	return &operatorv1.ReadFileResponse{Size: uint64(len(a.file)), Data: a.file[from:to]}, nil
}

type rig struct {
	*operator
	ui     *ui.UI
	url    string
	denied rpc.Action
}

func (r *rig) ask(action rpc.Action, id string) error {
	if action == r.denied {
		return rpc.Denied(rpc.Principal{Name: "eve"}, action, rpc.Object{ID: id})
	}
	return nil
}

func newRig(t *testing.T, file []byte) *rig {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	operatorv1.RegisterAgentOperatorServer(server, &agent{file: file})
	go server.Serve(listener)
	t.Cleanup(server.Stop)
	r := &rig{operator: &operator{
		agentAddress: listener.Addr().String(), events: make(chan *operatorv1.WatchEvent), over: make(chan error, 1), killed: make(chan string, 1),
	}}
	r.ui = ui.New(ui.Options{
		Operator: r.operator,
		Agent: func(_ context.Context, id string) (string, error) {
			switch id {
			case "a1":
				return r.agentAddress, nil
			case "silent":
				return "", fmt.Errorf("%w: agent silent has not said where it listens", rpc.ErrUnavailable)
			}
			return "", fmt.Errorf("%w: there is no agent %s", rpc.ErrNotFound, id)
		},
		View: func(context.Context) error { return r.ask(rpc.ViewCluster, "") },
		Read: func(_ context.Context, path string) error { return r.ask(rpc.ReadSandbox, path) },
		Dial: func(address string) (*grpc.ClientConn, error) {
			return grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
		},
		Settings: func() []ui.Setting { return []ui.Setting{{Name: "rpc", Value: "127.0.0.1:5061"}} },
	})
	t.Cleanup(r.ui.Close)
	mux := http.NewServeMux()
	for pattern, handler := range r.ui.Handlers() {
		mux.Handle(pattern, handler)
	}
	web := httptest.NewServer(mux)
	t.Cleanup(web.Close)
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	r.url = web.URL
	return r
}

func (r *rig) get(t *testing.T, path string) (int, string, http.Header) {
	t.Helper()
	answer, err := http.Get(r.url + path)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer.StatusCode, string(body), answer.Header
}

// Every address of a page is answered with the page, and files with themselves.
func TestPages(t *testing.T) {
	r := newRig(t, nil)
	for path, kind := range map[string]string{
		"/ui/": "text/html", "/ui/agents": "text/html", "/ui/agents/a1": "text/html", "/ui/tasks/f/t": "text/html", "/ui/pages": "text/html",
		"/ui/main.js": "text/javascript", "/ui/pages/tasks.js": "text/javascript", "/ui/app.css": "text/css", "/ui/icon.svg": "image/svg+xml",
	} {
		code, body, header := r.get(t, path)
		if code != http.StatusOK || !strings.HasPrefix(header.Get("Content-Type"), kind) || body == "" {
			t.Errorf("%s: %d, %s, want %s", path, code, header.Get("Content-Type"), kind)
		}
		if policy := header.Get("Content-Security-Policy"); !strings.Contains(policy, "script-src 'self'") || strings.Contains(policy, "unsafe") {
			t.Errorf("%s: the policy is %q", path, policy)
		}
	}
}

// next reads one server-sent event.
func next(t *testing.T, lines *bufio.Scanner) (name, data string) {
	t.Helper()
	for lines.Scan() {
		line := lines.Text()
		switch {
		case line == "" && data != "":
			return name, data
		case strings.HasPrefix(line, "event: "):
			name = line[len("event: "):]
		case strings.HasPrefix(line, "data: "):
			data = line[len("data: "):]
		}
	}
	t.Fatalf("the stream ended: %v", lines.Err())
	return "", ""
}

// A watch is the master's events as JSON lists, plain or compressed, and says
// why it ends.
func TestWatch(t *testing.T) {
	for _, zipped := range []bool{false, true} {
		r := newRig(t, nil)
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, r.url+"/v1/watch", nil)
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("Accept-Encoding", "identity")
		if zipped {
			request.Header.Set("Accept-Encoding", "gzip")
		}
		go func() {
			r.events <- &operatorv1.WatchEvent{Event: &operatorv1.WatchEvent_Agent{Agent: &operatorv1.Agent{Id: "a1", Hostname: "host"}}}
		}()
		answer, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		if kind := answer.Header.Get("Content-Type"); kind != "text/event-stream" {
			t.Fatalf("the type is %q", kind)
		}
		var body io.Reader = answer.Body
		if zipped {
			if body, err = gzip.NewReader(answer.Body); err != nil {
				t.Fatal(err)
			}
		}
		lines := bufio.NewScanner(body)
		if _, data := next(t, lines); data != `[{"agent":{"id":"a1","hostname":"host"}}]` {
			t.Errorf("the first event is %s", data)
		}
		r.events <- &operatorv1.WatchEvent{Number: 7, Event: &operatorv1.WatchEvent_AgentRemoved{AgentRemoved: "a1"}}
		if _, data := next(t, lines); data != `[{"number":7,"agent_removed":"a1"}]` {
			t.Errorf("the second event is %s", data)
		}
		r.over <- fmt.Errorf("%w: another master leads", rpc.ErrUnavailable)
		if name, data := next(t, lines); name != "over" || !strings.Contains(data, "another master leads") {
			t.Errorf("it ends with %q, %q", name, data)
		}
	}
}

func TestWatchThatFailsAtOnceHasAStatus(t *testing.T) {
	r := newRig(t, nil)
	r.over <- fmt.Errorf("%w: this master is a standby", rpc.ErrUnavailable)
	if code, body, _ := r.get(t, "/v1/watch"); code != http.StatusServiceUnavailable || !strings.Contains(body, "standby") {
		t.Errorf("it is answered with %d, %s", code, body)
	}
}

// A browser that does not read holds up nobody, and what waits for it is
// bounded.
func TestWatchSlowReader(t *testing.T) {
	r := newRig(t, nil)
	conn, err := net.Dial("tcp", strings.TrimPrefix(r.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(conn, "GET /v1/watch HTTP/1.1\r\nHost: x\r\n\r\n")
	large := &operatorv1.WatchEvent{Event: &operatorv1.WatchEvent_Agent{Agent: &operatorv1.Agent{Id: "a1", Reason: strings.Repeat("x", 256<<10)}}}
	sent := 0
	for full := false; !full; {
		select {
		case r.events <- large:
			if sent++; sent > 200 {
				t.Fatal("fifty megabytes were taken for somebody who does not read")
			}
		case <-time.After(2 * time.Second):
			full = true
		}
	}
	conn.Close()
	// Watch ends with the browser; it took no more than what fits on the way.
}

func TestOrders(t *testing.T) {
	r := newRig(t, nil)
	post := func(verb, kind, body string, header ...string) (int, string) {
		t.Helper()
		request, err := http.NewRequest(http.MethodPost, r.url+"/v1/order/"+verb, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("Content-Type", kind)
		for i := 0; i < len(header); i += 2 {
			request.Header.Set(header[i], header[i+1])
		}
		answer, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		text, _ := io.ReadAll(answer.Body)
		return answer.StatusCode, string(text)
	}
	if code, body := post("kill", "application/json", `{"task_id":"t1"}`); code != http.StatusOK || body != "{}\n" {
		t.Errorf("an order is answered with %d, %s", code, body)
	}
	if task := <-r.killed; task != "t1" {
		t.Errorf("task %q was killed", task)
	}
	for name, c := range map[string]struct {
		verb, kind, body string
		header           []string
		code             int
		says             string
	}{
		"unknown":           {"explode", "application/json", `{}`, nil, http.StatusNotFound, "kill"},
		"a form":            {"kill", "text/plain", `{"task_id":"t1"}`, nil, http.StatusBadRequest, "application/json"},
		"no JSON":           {"kill", "application/json", `{"task_id":`, nil, http.StatusBadRequest, "KillTaskRequest"},
		"refused":           {"kill", "application/json", `{}`, nil, http.StatusBadRequest, "no task is named"},
		"too large":         {"kill", "application/json", `{"task_id":"` + strings.Repeat("x", 70<<10) + `"}`, nil, http.StatusBadRequest, "too large"},
		"of another origin": {"kill", "application/json", `{"task_id":"t1"}`, []string{"Sec-Fetch-Site", "cross-site"}, http.StatusForbidden, "cross-origin"},
		"of another host":   {"kill", "application/json", `{"task_id":"t1"}`, []string{"Origin", "http://evil.example"}, http.StatusForbidden, "cross-origin"},
	} {
		if code, body := post(c.verb, c.kind, c.body, c.header...); code != c.code || !strings.Contains(body, c.says) {
			t.Errorf("%s: answered with %d, %s; want %d and %q", name, code, body, c.code, c.says)
		}
	}
	if len(r.killed) != 0 {
		t.Error("an order that was refused was carried out")
	}
}

// Files of agents come through the master, in pieces and whole.
func TestFiles(t *testing.T) {
	file := bytes.Repeat([]byte("0123456789abcdef"), 100_000) // three pieces and a bit
	r := newRig(t, file)
	path := "?path=" + url.QueryEscape("/sandbox/stdout")
	code, body, header := r.get(t, "/v1/agent/a1/read"+path+"&offset=16&length=16")
	if code != http.StatusOK || body != "0123456789abcdef" || header.Get("X-File-Size") != "1600000" {
		t.Errorf("a piece: %d, %q of %s", code, body, header.Get("X-File-Size"))
	}
	code, body, header = r.get(t, "/v1/agent/a1/download"+path)
	if code != http.StatusOK || body != string(file) || header.Get("Content-Disposition") != "attachment; filename=stdout" {
		t.Errorf("the whole: %d, %d bytes, %s", code, len(body), header.Get("Content-Disposition"))
	}
	for query, want := range map[string]int{
		"/v1/agent/a1/read?path=/etc/passwd&offset=0&length=1": http.StatusNotFound,
		"/v1/agent/a1/download?path=/etc/passwd":               http.StatusNotFound,
		"/v1/agent/a1/read" + path + "&offset=-1&length=1":     http.StatusBadRequest,
		"/v1/agent/nobody/state":                               http.StatusNotFound,
		"/v1/agent/silent/state":                               http.StatusServiceUnavailable,
	} {
		if code, body, _ := r.get(t, query); code != want {
			t.Errorf("%s: %d, %s; want %d", query, code, body, want)
		}
	}
	r.denied = rpc.ReadSandbox
	for _, verb := range []string{"read", "download", "files"} {
		if code, body, _ := r.get(t, "/v1/agent/a1/"+verb+path+"&offset=0&length=1"); code != http.StatusForbidden || !strings.Contains(body, "eve") {
			t.Errorf("%s by somebody who may not: %d, %s", verb, code, body)
		}
	}
}

// The history is an hour at most, of what has a number.
func TestHistory(t *testing.T) {
	r := newRig(t, nil)
	if _, body, _ := r.get(t, "/v1/history"); body != "[]\n" {
		t.Errorf("no history is %s", body)
	}
	total, err := structpb.NewStruct(map[string]any{"cpus": 4.0, "ports": "[1-2]"})
	if err != nil {
		t.Fatal(err)
	}
	begin := time.Unix(1_000_000, 0)
	for i := range 400 {
		r.ui.Sample(begin.Add(time.Duration(i)*ui.SampleInterval), &operatorv1.Status{Total: total, Tasks: &operatorv1.Counts{Active: 3}})
	}
	_, body, _ := r.get(t, "/v1/history")
	var samples []struct {
		At    int64
		Total map[string]float64
		Tasks uint64
	}
	if err := json.Unmarshal([]byte(body), &samples); err != nil {
		t.Fatal(err)
	}
	if len(samples) != 360 || samples[359].At != begin.Add(399*ui.SampleInterval).Unix() || samples[0].Tasks != 3 {
		t.Errorf("%d samples, from %+v to %+v", len(samples), samples[0], samples[len(samples)-1])
	}
	if diff := cmp.Diff(map[string]float64{"cpus": 4}, samples[0].Total); diff != "" {
		t.Errorf("the total (-want +got):\n%s", diff)
	}
}
