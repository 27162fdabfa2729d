package transport_test

import (
	"bufio"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/mezzo-os/mezzo/plugins/framework-mesos/transport"
	frameworkv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/framework/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const endpointName = "mesos"

func leading() *frameworkv1.LeadershipState {
	return &frameworkv1.LeadershipState{State: frameworkv1.LeadershipState_STATE_LEADING}
}

func led(state frameworkv1.LeadershipState_State, address string) *frameworkv1.LeadershipState {
	out := &frameworkv1.LeadershipState{State: state}
	if address != "" {
		out.Endpoints = []*frameworkv1.Endpoint{{Name: "other", Address: "x:1"}, {Name: endpointName, Address: address}}
	}
	return out
}

// patience is how long a test waits for what must come.
const patience = time.Minute

// serve starts a server of a side on a free port.
func serve(t *testing.T, o transport.Options, setup func(*transport.Server)) *transport.Server {
	t.Helper()
	o.Address = "127.0.0.1:0"
	if o.Side == 0 {
		o.Side = transport.Master
	}
	if o.Side == transport.Master && o.Leadership == nil {
		o.Leadership = transport.NewLeadership(endpointName)
		o.Leadership.Set(leading())
	}
	s, err := transport.Listen(o)
	if err != nil {
		t.Fatal(err)
	}
	setup(s)
	served := make(chan error, 1)
	go func() { served <- s.Serve() }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := s.Shutdown(ctx); err != nil {
			t.Errorf("shutdown: %v", err)
		}
		if err := <-served; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return s
}

// answer is what a raw request got.
type answer struct {
	status int
	header http.Header
	body   string
}

// send makes one request on a connection of its own, without a client library
// that would change it.
func send(t *testing.T, s *transport.Server, head string, headers ...string) answer {
	t.Helper()
	conn, err := net.Dial("tcp", s.Address())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "%s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n", head)
	for _, h := range headers {
		fmt.Fprintf(conn, "%s\r\n", h)
	}
	fmt.Fprint(conn, "\r\n")
	method, _, _ := strings.Cut(head, " ")
	response, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: method})
	if err != nil {
		return answer{}
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{response.StatusCode, response.Header, string(body)}
}

func say(what string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { transport.Text(w, http.StatusOK, what) }
}

// TestRouting is A.1, A.2's aliases, and I.10.
func TestRouting(t *testing.T) {
	master := serve(t, transport.Options{}, func(s *transport.Server) {
		s.Handle("", "/state", transport.Endpoint{Serve: say("state")})
		s.Handle("", "/api/v1", transport.Endpoint{Serve: say("operator")})
		s.Handle("", "/api/v1/scheduler", transport.Endpoint{Serve: say("scheduler")})
		s.Handle("", "/frameworks", transport.Endpoint{Serve: say("frameworks")})
		s.Handle("files", "/read", transport.Endpoint{Serve: say("read")})
		s.HandleBasics(transport.About{})
	})
	agent := serve(t, transport.Options{Side: transport.Agent}, func(s *transport.Server) {
		s.Handle("", "/state", transport.Endpoint{Serve: say("agent state")})
		s.Handle("", "/api/v1/executor", transport.Endpoint{Serve: say("executor")})
		s.HandleBasics(transport.About{})
	})
	for _, c := range []struct {
		row    string
		server *transport.Server
		path   string
		status int
		body   string
	}{
		{"A.1 default process", master, "/state", 200, "state"},
		{"A.1 named process", master, "/master/state", 200, "state"},
		{"A.1 trailing slash (0.9)", master, "/master/frameworks/", 200, "frameworks"},
		{"A.1 longest prefix (0.9)", master, "/api/v1/operator", 200, "operator"},
		{"A.1 longest prefix, deeper", master, "/api/v1/scheduler/x/y", 200, "scheduler"},
		{"A.1 another process", master, "/files/read?path=/x", 200, "read"},
		{"A.1 a process has no default path", master, "/files", 404, "404 Not Found."},
		{"A.1 nothing found", master, "/nothing", 404, "404 Not Found."},
		{"A.1 nothing found in the process", master, "/master/nothing/state", 404, "404 Not Found."},
		{"A.1 no empty path", master, "/", 404, "404 Not Found."},
		{"I.10 a deeper path of /version", master, "/version/x", 404, "404 Not Found."},
		{"I.10 a deeper path of /redirect", master, "/redirect/x", 404, "404 Not Found."},
		{"I.10 encodings are not undone", master, "/%73tate", 404, "404 Not Found."},
		{"I.10 nor those of slashes", master, "/master%2Fstate", 404, "404 Not Found."},
		{"A.1 the other side's process is none here", master, "/slave(1)/state", 404, "404 Not Found."},
		{"A.2 agent", agent, "/state", 200, "agent state"},
		{"A.2 slave(1) (0.10)", agent, "/slave(1)/state", 200, "agent state"},
		{"A.1 parentheses may be encoded", agent, "/slave%281%29/api/v1/executor", 200, "executor"},
		{"A.2 alias: any number", agent, "/slave(23)/state", 200, "agent state"},
		{"A.1 but a number", agent, "/slave(x)/state", 404, "404 Not Found."},
		{"H rxjava: /redirect at an agent", agent, "/redirect", 404, "404 Not Found."},
	} {
		t.Run(c.row, func(t *testing.T) {
			got := send(t, c.server, "GET "+c.path)
			if got.status != c.status || got.body != c.body {
				t.Errorf("%s: %d %q, want %d %q", c.path, got.status, got.body, c.status, c.body)
			}
			if want := "text/plain; charset=utf-8"; got.header.Get("Content-Type") != want {
				t.Errorf("%s: content type %q, want %q", c.path, got.header.Get("Content-Type"), want)
			}
		})
	}
	for _, head := range []string{"BREW /state", "GET /state?x=%zz"} {
		t.Run("I.10 no answer to "+head, func(t *testing.T) {
			if got := send(t, master, head); got.status != 0 {
				t.Errorf("answered %d", got.status)
			}
		})
	}
}

// TestAnswers is A.1 (bodies, gzip, JSONP, 405), and 0.3 to 0.5.
func TestAnswers(t *testing.T) {
	long := strings.Repeat("0123456789abcdef", 1<<15)
	s := serve(t, transport.Options{}, func(s *transport.Server) {
		s.Handle("", "/post", transport.Endpoint{Methods: []string{"POST"}, Serve: say("posted")})
		s.Handle("", "/weights", transport.Endpoint{Methods: []string{"GET", "PUT"}, Serve: say("")})
		s.Handle("", "/body", transport.Endpoint{Serve: func(w http.ResponseWriter, _ *http.Request) { transport.Body(w, transport.Protobuf, []byte(long)) }})
		s.Handle("", "/legacy", transport.Endpoint{Serve: func(w http.ResponseWriter, r *http.Request) { transport.Legacy(w, r, []byte(`{"a":"`+long+`"}`)) }})
		s.Handle("", "/short", transport.Endpoint{Serve: func(w http.ResponseWriter, r *http.Request) { transport.Legacy(w, r, []byte(`{}`)) }})
		s.Handle("", "/streamed", transport.Endpoint{Serve: func(w http.ResponseWriter, r *http.Request) {
			out, failure := transport.LegacyWriter(w, r)
			if failure != nil {
				failure.Write(w)
				return
			}
			_, _ = io.WriteString(out, `{"a":`)
			_, _ = io.WriteString(out, `1}`)
			_ = out.Close()
		}})
		s.Handle("", "/panics", transport.Endpoint{Serve: func(http.ResponseWriter, *http.Request) { panic("a bug") }})
		for _, code := range []int{400, 401, 403, 406, 409, 415, 501, 503} {
			s.Handle("", fmt.Sprint("/code/", code), transport.Endpoint{Serve: func(w http.ResponseWriter, _ *http.Request) { transport.Fail(w, code, "") }})
		}
		s.HandleBasics(transport.About{})
	})
	for code, body := range map[int]string{
		400: "400 Bad Request.", 401: "401 Unauthorized.", 403: "403 Forbidden.", 406: "406 Not Acceptable.", 409: "409 Conflict.",
		415: "415 Unsupported Media Type.", 501: "501 Not Implemented.", 503: "503 Service Unavailable.",
	} {
		t.Run(fmt.Sprint("A.1 default body of ", code), func(t *testing.T) {
			if got := send(t, s, fmt.Sprint("GET /code/", code)); got.status != code || got.body != body {
				t.Errorf("%d %q, want %q", got.status, got.body, body)
			}
		})
	}
	t.Run("A.1 405", func(t *testing.T) {
		got := send(t, s, "GET /post")
		if got.status != 405 || got.header.Get("Allow") != "POST" || got.body != "405 Method Not Allowed. Expecting one of { 'POST' }, but received 'GET'." {
			t.Errorf("%d %v %q", got.status, got.header, got.body)
		}
		got = send(t, s, "DELETE /weights")
		if got.status != 405 || got.header.Get("Allow") != "GET, PUT" || got.body != "405 Method Not Allowed. Expecting one of { 'GET', 'PUT' }, but received 'DELETE'." {
			t.Errorf("%d %v %q", got.status, got.header, got.body)
		}
	})
	t.Run("0.3 Content-Length, 0.4 exact Content-Type", func(t *testing.T) {
		got := send(t, s, "GET /body", "Accept-Encoding: gzip")
		want := http.Header{"Content-Length": {fmt.Sprint(len(long))}, "Content-Type": {"application/x-protobuf"}}
		delete(got.header, "Date")
		if diff := cmp.Diff(want, got.header); diff != "" || got.body != long {
			t.Errorf("headers (-want +got):\n%s", diff)
		}
	})
	t.Run("0.5 an empty 200 has no Content-Type", func(t *testing.T) {
		got := send(t, s, "GET /health")
		if _, has := got.header["Content-Type"]; has || got.status != 200 || got.header.Get("Content-Length") != "0" {
			t.Errorf("%d %v", got.status, got.header)
		}
	})
	t.Run("A.1 gzip from 1024 bytes on", func(t *testing.T) {
		got := send(t, s, "GET /legacy", "Accept-Encoding: gzip, deflate")
		if got.header.Get("Content-Encoding") != "gzip" || got.header.Get("Content-Type") != transport.JSON {
			t.Fatalf("headers %v", got.header)
		}
		in, err := gzip.NewReader(strings.NewReader(got.body))
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(in)
		if err != nil || string(body) != `{"a":"`+long+`"}` {
			t.Errorf("unzipped to %d bytes: %v", len(body), err)
		}
		for _, accept := range []string{"Accept-Encoding: gzip;q=0", "Accept-Encoding: br", "X: y"} {
			if got := send(t, s, "GET /legacy", accept); got.header.Get("Content-Encoding") != "" || got.header.Get("Content-Length") == "" {
				t.Errorf("%s: headers %v", accept, got.header)
			}
		}
		if got := send(t, s, "GET /short", "Accept-Encoding: gzip"); got.header.Get("Content-Encoding") != "" || got.body != "{}" {
			t.Errorf("short: %v %q", got.header, got.body)
		}
	})
	t.Run("A.1 JSONP", func(t *testing.T) {
		for _, path := range []string{"/short?jsonp=f", "/streamed?jsonp=f"} {
			got := send(t, s, "GET "+path)
			if got.header.Get("Content-Type") != "text/javascript" || !strings.HasPrefix(got.body, "f({") || !strings.HasSuffix(got.body, "})") {
				t.Errorf("%s: %v %q", path, got.header, got.body)
			}
		}
		if got := send(t, s, "GET /streamed"); got.body != `{"a":1}` || got.header.Get("Content-Type") != transport.JSON {
			t.Errorf("%v %q", got.header, got.body)
		}
		if got := send(t, s, "GET /short?jsonp=alert(1)"); got.status != 400 {
			t.Errorf("a script of the client's own: %d %q", got.status, got.body)
		}
	})
	t.Run("a handler's panic", func(t *testing.T) {
		if got := send(t, s, "GET /panics"); got.status != 500 || got.body != "500 Internal Server Error." {
			t.Errorf("%d %q", got.status, got.body)
		}
		if got := send(t, s, "GET /health"); got.status != 200 {
			t.Errorf("afterwards: %d", got.status)
		}
	})
	t.Run("0.8 version", func(t *testing.T) {
		got := send(t, s, "GET /version")
		if want := `{"build_date":"","build_time":0,"build_user":"","version":"1.11.0"}`; got.body != want {
			t.Errorf("%s, want %s", got.body, want)
		}
	})
	t.Run("A.2 flags", func(t *testing.T) {
		for _, method := range []string{"GET", "POST", "DELETE"} { // I.8
			if got := send(t, s, method+" /master/flags"); got.body != `{"flags":{}}` {
				t.Errorf("%s: %q", method, got.body)
			}
		}
	})
	t.Run("A.2 help", func(t *testing.T) {
		if got := send(t, s, "GET /help"); !strings.Contains(got.body, "/master/post  POST\n") || !strings.Contains(got.body, "/version  any\n") {
			t.Errorf("%s", got.body)
		}
	})
}

// TestNegotiation is A.3's rules of Content-Type and Accept, and I.7.
func TestNegotiation(t *testing.T) {
	request := func(header string, values ...string) *http.Request {
		r := &http.Request{Header: http.Header{}}
		if values != nil {
			r.Header[header] = values
		}
		return r
	}
	for _, c := range []struct {
		row    string
		values []string
		want   string // empty: none is acceptable
	}{
		{"missing means anything", nil, transport.JSON},
		{"I.7 empty is none", []string{""}, ""},
		{"JSON", []string{"application/json"}, transport.JSON},
		{"protobuf", []string{"application/x-protobuf"}, transport.Protobuf},
		{"JSON is preferred", []string{"application/x-protobuf, application/json"}, transport.JSON},
		{"q orders nothing", []string{"application/json;q=0.1, application/x-protobuf;q=1"}, transport.JSON},
		{"q=0 disables", []string{"application/json;q=0, application/x-protobuf"}, transport.Protobuf},
		{"q=0.000 too", []string{"application/json;q=0.000, application/x-protobuf"}, transport.Protobuf},
		{"*/*", []string{"*/*"}, transport.JSON},
		{"application/*", []string{"text/html, application/*"}, transport.JSON},
		{"the exact one decides", []string{"*/*, application/json;q=0"}, transport.Protobuf},
		{"type/* before */*", []string{"application/*;q=0, */*"}, ""},
		{"several headers", []string{"text/html", "application/x-protobuf"}, transport.Protobuf},
		{"neither", []string{"text/html"}, ""},
	} {
		t.Run("A.3 Accept: "+c.row, func(t *testing.T) {
			got, ok := transport.Accept(request("Accept", c.values...), "Accept", transport.JSON, transport.Protobuf)
			if ok != (c.want != "") || got != c.want {
				t.Errorf("%q: %q %v, want %q", c.values, got, ok, c.want)
			}
		})
	}
	for _, c := range []struct {
		row    string
		values []string
		want   string
		status int
	}{
		{"7 missing", nil, "", 400},
		{"8 other", []string{"text/plain"}, "", 415},
		{"8 empty", []string{""}, "", 415},
		{"JSON", []string{"application/json"}, transport.JSON, 0},
		{"charset and case", []string{"Application/JSON; charset=utf-8"}, transport.JSON, 0},
		{"protobuf", []string{"application/x-protobuf"}, transport.Protobuf, 0},
		{"A.4 recordio only where it is allowed", []string{"application/recordio"}, "", 415},
	} {
		t.Run("A.3 Content-Type: "+c.row, func(t *testing.T) {
			got, failure := transport.ContentType(request("Content-Type", c.values...))
			if got != c.want || (failure == nil) != (c.status == 0) || failure != nil && failure.Code != c.status {
				t.Errorf("%q: %q %v, want %q %d", c.values, got, failure, c.want, c.status)
			}
		})
	}
	if got, failure := transport.ContentType(request("Content-Type", "application/recordio"), transport.RecordIO); failure != nil || got != transport.RecordIO {
		t.Errorf("recordio, allowed: %q %v", got, failure)
	}
}

// TestLeader is A.3's rows 3 to 5 and A.6.
func TestLeader(t *testing.T) {
	leadership := transport.NewLeadership(endpointName)
	s := serve(t, transport.Options{Leadership: leadership}, func(s *transport.Server) {
		s.Handle("", "/api/v1", transport.Endpoint{Leader: true, Methods: []string{"POST"}, Serve: say("led")})
		s.HandleBasics(transport.About{})
	})
	const standby, recovering, leads = frameworkv1.LeadershipState_STATE_STANDBY, frameworkv1.LeadershipState_STATE_RECOVERING, frameworkv1.LeadershipState_STATE_LEADING
	for _, c := range []struct {
		row      string
		state    *frameworkv1.LeadershipState
		head     string
		status   int
		body     string
		location string
	}{
		{"A.3.3 leader known", led(standby, "m1.example:5050"), "POST /api/v1/x/?a=b%20c", 307, "", "//m1.example:5050/api/v1/x/?a=b%20c"},
		{"A.3.3 before the method", led(standby, "m1.example:5050"), "GET /api/v1", 307, "", "//m1.example:5050/api/v1"},
		{"A.3.4 no leader known", led(standby, ""), "POST /api/v1", 503, "No leader elected", ""},
		{"A.3.5 recovering", led(recovering, "m1.example:5050"), "POST /api/v1", 503, "Master has not finished recovery", ""},
		{"A.3.6 then the method", led(leads, "m1.example:5050"), "GET /api/v1", 405, "405 Method Not Allowed. Expecting one of { 'POST' }, but received 'GET'.", ""},
		{"A.3 leads", led(leads, "m1.example:5050"), "POST /api/v1", 200, "led", ""},
		{"A.6 /redirect", led(standby, "m1.example:5050"), "GET /redirect", 307, "", "//m1.example:5050"},
		{"A.6 /master/redirect", led(standby, "m1.example:5050"), "GET /master/redirect", 307, "", "//m1.example:5050"},
		{"A.6 /redirect on the leader", led(leads, "m1.example:5050"), "GET /redirect", 307, "", "//m1.example:5050"},
		{"A.6 /redirect without one", led(standby, ""), "GET /redirect", 503, "No leader elected", ""},
		{"I.10 deeper than /redirect", led(standby, "m1.example:5050"), "GET /redirect/x", 404, "404 Not Found.", ""},
		{"A.2 /health on a standby", led(standby, ""), "GET /health", 200, "", ""},
	} {
		t.Run(c.row, func(t *testing.T) {
			leadership.Set(c.state)
			got := send(t, s, c.head)
			if got.status != c.status || got.body != c.body || got.header.Get("Location") != c.location {
				t.Errorf("%d %q %q, want %d %q %q", got.status, got.body, got.header.Get("Location"), c.status, c.body, c.location)
			}
		})
	}
}

// claims recognises everybody, by claims alone.
type claims struct{}

func (claims) Authenticate(*http.Request, string) (*transport.Principal, string) {
	return &transport.Principal{Claims: map[string]string{"fid": "f"}}, ""
}

// refuses recognises nobody.
type refuses struct{}

func (refuses) Authenticate(_ *http.Request, realm string) (*transport.Principal, string) {
	return nil, `Bearer realm="` + realm + `"`
}

// TestAuthentication is A.9 and A.3's rows 1 and 2.
func TestAuthentication(t *testing.T) {
	who := func(w http.ResponseWriter, r *http.Request) {
		name := "nobody"
		if p := transport.PrincipalOf(r); p != nil {
			name = p.Value + p.Claims["fid"]
		}
		transport.Text(w, 200, name)
	}
	leadership := transport.NewLeadership(endpointName)
	people := transport.Basic(map[string]string{"alice": "secret", "bob": ""})
	s := serve(t, transport.Options{Leadership: leadership, Authenticators: map[transport.Realm][]transport.Authenticator{
		transport.Scheduler: {refuses{}, people}, transport.ReadWrite: {claims{}}, transport.Executor: {claims{}},
	}}, func(s *transport.Server) {
		s.Handle("", "/scheduler", transport.Endpoint{Realm: transport.Scheduler, Leader: true, Serve: who})
		s.Handle("", "/write", transport.Endpoint{Realm: transport.ReadWrite, Serve: who})
		s.Handle("", "/executor", transport.Endpoint{Realm: transport.Executor, Serve: who})
		s.Handle("", "/read", transport.Endpoint{Realm: transport.ReadOnly, Serve: who})
		s.Handle("", "/open", transport.Endpoint{Serve: who})
	})
	const challenge = `Bearer realm="mesos-master-scheduler",Basic realm="mesos-master-scheduler"`
	basic := func(pair string) string {
		r := &http.Request{Header: http.Header{}}
		name, password, _ := strings.Cut(pair, ":")
		r.SetBasicAuth(name, password)
		return "Authorization: " + r.Header.Get("Authorization")
	}
	for _, c := range []struct {
		row, path, header string
		leads             bool
		status            int
		body, challenge   string
	}{
		{"A.3.1 none, before the leader is asked for", "/scheduler", "X: y", false, 401, "401 Unauthorized.", challenge},
		{"A.9 wrong password", "/scheduler", basic("alice:wrong"), true, 401, "401 Unauthorized.", challenge},
		{"A.9 wrong name", "/scheduler", basic("carol:secret"), true, 401, "401 Unauthorized.", challenge},
		{"A.9 not even Basic", "/scheduler", "Authorization: Basic !!", true, 401, "401 Unauthorized.", challenge},
		{"A.9 the first that succeeds wins", "/scheduler", basic("alice:secret"), true, 200, "alice", ""},
		{"A.3.3 then the leader", "/scheduler", basic("alice:secret"), false, 503, "No leader elected", ""},
		{"A.9 an empty password", "/scheduler", basic("bob:"), true, 200, "bob", ""},
		{"A.3.2 claims without a value", "/write", "X: y", true, 403, "The request's authenticated principal has claims, but no value string. Principals need one", ""},
		{"A.9 executors have claims", "/executor", "X: y", true, 200, "f", ""},
		{"A.9 a realm that is switched off", "/read", "X: y", true, 200, "nobody", ""},
		{"A.2 never authenticated", "/open", "X: y", true, 200, "nobody", ""},
	} {
		t.Run(c.row, func(t *testing.T) {
			leadership.Set(led(frameworkv1.LeadershipState_STATE_STANDBY, ""))
			if c.leads {
				leadership.Set(leading())
			}
			got := send(t, s, "GET "+c.path, c.header)
			if got.status != c.status || got.body != c.body || got.header.Get("WWW-Authenticate") != c.challenge {
				t.Errorf("%d %q %q, want %d %q %q", got.status, got.body, got.header.Get("WWW-Authenticate"), c.status, c.body, c.challenge)
			}
		})
	}
	for realm, name := range map[transport.Realm]string{
		transport.ReadOnly: "mesos-agent-readonly", transport.ReadWrite: "mesos-agent-readwrite", transport.Executor: "mesos-agent-executor",
		transport.ResourceProvider: "mesos-agent-resource-provider",
	} {
		if got := realm.Name(transport.Agent); got != name {
			t.Errorf("A.9 realm %q, want %q", got, name)
		}
	}
}

// TestRecords is A.5 and 0.6: a record is a chunk, and goes out at once.
func TestRecords(t *testing.T) {
	next := make(chan []byte)
	s := serve(t, transport.Options{}, func(s *transport.Server) {
		s.Handle("", "/stream", transport.Endpoint{Serve: func(w http.ResponseWriter, r *http.Request) {
			out, err := transport.OpenRecords(w, transport.JSON)
			for record := range next {
				if err == nil {
					err = out.Write(record)
				}
			}
			if err != nil {
				t.Error(err)
			}
		}})
	})
	conn, err := net.Dial("tcp", s.Address())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprint(conn, "GET /stream HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAccept-Encoding: gzip\r\n\r\n")
	in := bufio.NewReader(conn)
	var head []string
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		if line == "\r\n" {
			break
		}
		head = append(head, line)
	}
	all := strings.Join(head, "")
	if !strings.HasPrefix(all, "HTTP/1.1 200 OK\r\n") || !strings.Contains(all, "Content-Type: application/json\r\n") ||
		!strings.Contains(all, "Transfer-Encoding: chunked\r\n") || strings.Contains(all, "gzip") {
		t.Fatalf("head: %q", all)
	}
	for _, record := range []string{`{"type":"HEARTBEAT"}`, "", strings.Repeat("x", 5000), strings.Repeat("y", 3<<20), "é"} {
		next <- []byte(record)
		var size int
		if _, err := fmt.Fscanf(in, "%x\r\n", &size); err != nil {
			t.Fatal(err)
		}
		chunk := make([]byte, size+2)
		if _, err := io.ReadFull(in, chunk); err != nil {
			t.Fatal(err)
		}
		if want := fmt.Sprintf("%d\n%s\r\n", len(record), record); string(chunk) != want {
			t.Errorf("a record of %d bytes came as a chunk of %d", len(record), size)
		}
	}
	close(next)
}
