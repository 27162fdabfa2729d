package http_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"

	mezzohttp "github.com/mezzo-os/mezzo/core/http"
	"github.com/mezzo-os/mezzo/core/rpc"
	"github.com/mezzo-os/mezzo/core/rpc/rpctest"
	operatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/operator/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func serve(t *testing.T, o mezzohttp.Options) *mezzohttp.Server {
	t.Helper()
	o.Address = "127.0.0.1:0"
	s, err := mezzohttp.Listen(o)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.Serve() }()
	t.Cleanup(func() {
		s.Stop(time.Second)
		if err := <-done; err != nil {
			t.Errorf("Serve returned %v", err)
		}
	})
	return s
}

func get(t *testing.T, c *http.Client, address string) (code int, body, kind string) {
	t.Helper()
	answer, err := c.Get(address)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer.StatusCode, string(text), answer.Header.Get("Content-Type")
}

func newClient(t *testing.T, config *tls.Config) *http.Client {
	transport := &http.Transport{TLSClientConfig: config}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

func TestPages(t *testing.T) {
	registry := prometheus.NewRegistry()
	counter := prometheus.NewCounter(prometheus.CounterOpts{Name: "mezzo_test_total", Help: "A test."})
	registry.MustRegister(counter)
	var readiness, health, failure error
	server := serve(t, mezzohttp.Options{
		Title: "Mezzo <master>", Metrics: registry, Healthy: func(context.Context) error { return health },
		Ready: func(context.Context) []mezzohttp.Check {
			return []mezzohttp.Check{{Name: "leader", State: "this master"}, {Name: "allocator", State: "ready", Err: readiness}}
		},
		Queries: map[string]mezzohttp.Query{
			"status": {One: func(context.Context, url.Values) (proto.Message, error) {
				return &operatorv1.Status{MasterId: "m1", Epoch: 1 << 60}, nil
			}},
			"tasks": {List: func(_ context.Context, q url.Values) ([]proto.Message, error) {
				return []proto.Message{&operatorv1.Task{Id: q.Get("task_id")}, &operatorv1.Task{Id: "b"}}, nil
			}},
			"none":   {List: func(context.Context, url.Values) ([]proto.Message, error) { return nil, nil }},
			"broken": {List: func(context.Context, url.Values) ([]proto.Message, error) { return nil, failure }},
		},
	})
	c := newClient(t, nil)
	base := "http://" + server.Address()
	expect := func(path string, wantCode int, want, wantKind string) {
		t.Helper()
		code, body, kind := get(t, c, base+path)
		if code != wantCode || !strings.Contains(body, want) || !strings.HasPrefix(kind, wantKind) {
			t.Errorf("GET %s: %d %s %q, want %d %s with %q", path, code, kind, body, wantCode, wantKind, want)
		}
	}
	expect("/healthz", 200, "ok", "text/plain")
	expect("/readyz", 200, "ready\nleader: this master\nallocator: ready\n", "text/plain")
	readiness = errors.New("the allocator is not running")
	expect("/readyz", 503, "not ready\nleader: this master\nallocator: no: the allocator is not running\n", "text/plain")
	expect("/healthz", 200, "ok", "text/plain")
	health = errors.New("the event loop is stuck")
	expect("/healthz", 503, "the event loop is stuck", "text/plain")
	expect("/metrics", 200, "mezzo_test_total 0", "text/plain")
	expect("/v1/status", 200, `{"master_id":"m1","epoch":1152921504606846976}`, "application/json")
	expect("/v1/tasks?task_id=a", 200, `[{"id":"a"},{"id":"b"}]`, "application/json")
	expect("/v1/none", 200, "[]", "application/json")
	expect("/", 200, `<a href="/v1/tasks">`, "text/html")
	expect("/", 200, "Mezzo &lt;master&gt;", "text/html")
	expect("/nowhere", 404, "", "text/plain")
	for kind, code := range map[error]int{rpc.ErrUnavailable: 503, rpc.ErrDenied: 403, rpc.ErrNotFound: 404, errors.New("other"): 500} {
		failure = fmt.Errorf("%w: because", kind)
		expect("/v1/broken", code, "because", "text/plain")
	}
	answer, err := c.Post(base+"/v1/status", "text/plain", strings.NewReader("x"))
	if err != nil {
		t.Fatal(err)
	}
	answer.Body.Close()
	if answer.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("POST gave %d", answer.StatusCode)
	}
}

func TestListenerRule(t *testing.T) {
	if _, err := mezzohttp.Listen(mezzohttp.Options{Address: "0.0.0.0:0"}); err == nil || !strings.Contains(err.Error(), "insecure = true") {
		t.Errorf("got %v", err)
	}
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	if _, err := mezzohttp.Listen(mezzohttp.Options{Address: taken.Addr().String()}); err == nil || !strings.Contains(err.Error(), taken.Addr().String()) {
		t.Errorf("got %v", err)
	}
}

func TestTLS(t *testing.T) {
	authority, other := rpctest.NewAuthority(t), rpctest.NewAuthority(t)
	files := authority.Issue("master")
	server := serve(t, mezzohttp.Options{TLS: &files, Queries: map[string]mezzohttp.Query{
		"who": {One: func(ctx context.Context, _ url.Values) (proto.Message, error) {
			return &operatorv1.Status{MasterId: "caller " + rpc.PrincipalFrom(ctx).Name}, nil
		}},
	}})
	address := "https://" + server.Address() + "/v1/who"
	certified, err := authority.Issue("alice").Client()
	if err != nil {
		t.Fatal(err)
	}
	if code, body, _ := get(t, newClient(t, certified), address); code != 200 || !strings.Contains(body, "caller alice") {
		t.Errorf("with a certificate: %d %s", code, body)
	}
	browser := &tls.Config{RootCAs: certified.RootCAs}
	if code, body, _ := get(t, newClient(t, browser), address); code != 200 || !strings.Contains(body, `"caller "`) {
		t.Errorf("without a certificate: %d %s", code, body)
	}
	stranger, err := other.Issue("mallory").Client()
	if err != nil {
		t.Fatal(err)
	}
	stranger.RootCAs = certified.RootCAs
	if answer, err := newClient(t, stranger).Get(address); err == nil {
		answer.Body.Close()
		t.Error("a certificate of another authority was taken")
	}
}

// TestProfiles is that profiles are served where they are asked for, on loopback
// alone.
func TestProfiles(t *testing.T) {
	for _, address := range []string{"0.0.0.0:0", ":0", "192.0.2.1:6060", "nonsense"} {
		if p, err := mezzohttp.ListenProfiles(address); err == nil {
			p.Stop()
			t.Errorf("profiles are served at %q", address)
		}
	}
	p, err := mezzohttp.ListenProfiles("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- p.Serve() }()
	c := newClient(t, nil)
	if code, body, _ := get(t, c, "http://"+p.Address()+"/debug/pprof/goroutine?debug=1"); code != 200 || !strings.Contains(body, "goroutine profile:") {
		t.Errorf("the goroutines: %d %q", code, body)
	}
	p.Stop()
	if err := <-done; err != nil {
		t.Errorf("it ended with %v", err)
	}
}
