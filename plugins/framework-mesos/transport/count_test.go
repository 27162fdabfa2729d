package transport_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/mezzo-os/mezzo/plugins/framework-mesos/transport"
	"github.com/mezzo-os/mezzo/sdk/metric"
	"github.com/mezzo-os/mezzo/sdk/metric/metrictest"
)

// counted returns counts, and the set that they are in.
func counted() (transport.Counts, *metric.Set) {
	s := metric.NewSet()
	return transport.Counts{
		Requests: s.Counter("requests_total", "X.", "endpoint", "code"), Took: s.Histogram("request_seconds", "X.", []float64{1}, "endpoint"),
		Streams: s.Gauge("streams", "X.", "endpoint"), Cut: s.Counter("streams_cut_total", "X.", "endpoint", "reason"),
		Connections: s.Gauge("connections", "X."), Refused: s.Counter("connections_refused_total", "X."),
	}, s
}

// awaitCount waits for what is counted when a handler has returned, a moment
// after its client has the answer.
func awaitCount(t *testing.T, s *metric.Set, want float64, name string, labels ...string) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		got, _ := metrictest.Value(s, name, labels...)
		if got == want {
			return
		}
		if time.Now().After(deadline) {
			t.Errorf("%s%q is %v, want %v", name, labels, got, want)
			return
		}
	}
}

// TestCounts: each request is counted once, by where it went and what came of
// it; a stream is no request that takes long.
func TestCounts(t *testing.T) {
	counts, set := counted()
	opened, end := make(chan struct{}), make(chan struct{})
	s := serve(t, transport.Options{Counts: counts}, func(s *transport.Server) {
		s.HandleBasics(transport.About{})
		s.Handle("", "/state", transport.Endpoint{Serve: say("x")})
		s.Handle("files", "/read", transport.Endpoint{Serve: func(w http.ResponseWriter, _ *http.Request) { transport.Fail(w, http.StatusBadRequest, "") }})
		s.Handle("", "/panics", transport.Endpoint{Serve: func(http.ResponseWriter, *http.Request) { panic("x") }})
		s.Handle("", "/stream", transport.Endpoint{Serve: func(w http.ResponseWriter, r *http.Request) {
			if _, err := transport.OpenRecords(w, transport.JSON); err != nil {
				t.Error(err)
			}
			close(opened)
			<-end
		}})
	})
	for _, path := range []string{"/state", "/master/state", "/files/read", "/nowhere", "/elsewhere", "/panics"} {
		send(t, s, "GET "+path)
	}
	streaming := make(chan struct{})
	go func() { defer close(streaming); send(t, s, "GET /stream") }()
	<-opened
	awaitCount(t, set, 1, "streams", "/stream")
	close(end)
	<-streaming
	awaitCount(t, set, 0, "streams", "/stream")
	awaitCount(t, set, 2, "requests_total", "/state", "200")
	awaitCount(t, set, 1, "requests_total", "/files/read", "400")
	awaitCount(t, set, 2, "requests_total", "other", "404")
	awaitCount(t, set, 1, "requests_total", "/panics", "500")
	awaitCount(t, set, 1, "requests_total", "/stream", "200")
	awaitCount(t, set, 2, "request_seconds", "/state")
	awaitCount(t, set, 0, "connections")
	if _, there := metrictest.Value(set, "request_seconds", "/stream"); there {
		t.Error("a stream counts as a request that took long")
	}
}
