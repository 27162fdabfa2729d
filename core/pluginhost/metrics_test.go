package pluginhost_test

import (
	"bytes"
	"context"
	"io"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/mezzo-os/mezzo/core/metric"
	"github.com/mezzo-os/mezzo/core/pluginhost"
	"github.com/mezzo-os/mezzo/sdk/plugin"
)

// scrapes is a host with plugins of this test binary, and what it shows.
type scrapes struct {
	t     *testing.T
	host  *pluginhost.Host
	own   *metric.Own
	calls *metric.Calls
	all   *prometheus.Registry
	log   *lines
}

type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) count(part string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.b.String(), part)
}

func newScrapes(t *testing.T, timeout time.Duration) *scrapes {
	t.Helper()
	dir, err := os.MkdirTemp("", "ph") // t.TempDir's names are too long for sockets
	if err != nil {
		t.Fatal(err)
	}
	s := &scrapes{t: t, calls: metric.NewCalls(), all: prometheus.NewRegistry(), log: &lines{}}
	s.host, err = pluginhost.New(pluginhost.Options{
		DataDir: dir, MetricsTimeout: timeout, OnCall: s.calls.Called,
		Logger: hclog.New(&hclog.LoggerOptions{Output: s.log, Level: hclog.Debug, IndependentLevels: true}),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.host.Close(context.Background()); err != nil {
			t.Error(err)
		}
		os.RemoveAll(dir)
	})
	s.own = metric.NewOwn(s.host.Numbers)
	s.own.Register(s.all)
	s.calls.Register(s.all)
	return s
}

// start starts a plugin that tells such metrics.
func (s *scrapes) start(kind, name, metrics string, replaces *pluginhost.Instance) *pluginhost.Instance {
	s.t.Helper()
	self, err := os.Executable()
	if err != nil {
		s.t.Fatal(err)
	}
	k, _ := plugin.KindOf(kind)
	mode := "good"
	if metrics != "" {
		mode = "metrics:" + kind + "/" + name + "/" + metrics
	}
	i, err := s.host.Start(s.t.Context(), pluginhost.Spec{
		Kind: k, Name: name, Path: self, Replaces: replaces,
		Env: map[string]string{"MEZZO_TEST_MODE": mode, "GORACE": "atexit_sleep_ms=0"},
	})
	if err != nil {
		s.t.Fatalf("start %s %s: %v", kind, name, err)
	}
	return i
}

// scrape is what /metrics shows: the lines of series, without comments.
func (s *scrapes) scrape() map[string]string {
	s.t.Helper()
	server := httptest.NewServer(promhttp.HandlerFor(s.own.Beside(s.all), promhttp.HandlerOpts{}))
	defer server.Close()
	answer, err := server.Client().Get(server.URL)
	if err != nil {
		s.t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode != 200 {
		s.t.Fatalf("the scrape fails: %s %v\n%s", answer.Status, err, text)
	}
	out := map[string]string{}
	for line := range strings.Lines(string(text)) {
		if !strings.HasPrefix(line, "#") {
			at := strings.LastIndexByte(line, ' ')
			out[line[:at]] = strings.TrimSpace(line[at:])
		}
	}
	return out
}

func (s *scrapes) want(got map[string]string, series ...string) {
	s.t.Helper()
	for _, x := range series {
		at := strings.LastIndexByte(x, ' ')
		if v := got[x[:at]]; v != x[at+1:] {
			s.t.Errorf("%s is %q, want %s", x[:at], v, x[at+1:])
		}
	}
}

func (s *scrapes) lacks(got map[string]string, parts ...string) {
	s.t.Helper()
	for series := range got {
		for _, part := range parts {
			if strings.Contains(series, part) {
				s.t.Errorf("%s is there", series)
			}
		}
	}
}

// What plugins tell is shown, labelled; one that serves no metrics is asked once
// a process.
func TestOwnMetrics(t *testing.T) {
	s := newScrapes(t, 30*time.Second)
	first := s.start("isolator", "first", "good", nil)
	s.start("isolator", "second", "good", nil)
	s.start("allocator", "test", "", nil)
	got := s.scrape()
	s.want(got,
		`mezzo_isolator_launches_total{outcome="done",plugin="isolator/first"} 3`,
		`mezzo_isolator_launches_total{outcome="done",plugin="isolator/second"} 3`,
		`mezzo_isolator_launch_seconds_bucket{plugin="isolator/first",le="1"} 2`,
		`mezzo_isolator_launch_seconds_bucket{plugin="isolator/first",le="+Inf"} 5`,
		`mezzo_isolator_launch_seconds_sum{plugin="isolator/first"} 9.5`,
		`mezzo_isolator_launch_seconds_count{plugin="isolator/first"} 5`,
		`mezzo_isolator_containers{plugin="isolator/first"} 7`,
	)
	got = s.scrape()
	s.want(got,
		`mezzo_plugin_call_seconds_count{method="Metrics",plugin="allocator/test"} 1`,
		`mezzo_plugin_call_seconds_count{method="Metrics",plugin="isolator/first"} 2`,
	)
	s.lacks(got, "metrics_dropped", "call_failures")

	// While another process takes over, the one in use tells; then the new one.
	newer := s.start("isolator", "first", "newer", first)
	got = s.scrape()
	s.want(got, `mezzo_isolator_containers{plugin="isolator/first"} 7`)
	s.lacks(got, "mezzo_isolator_newer")
	first.Stop(t.Context())
	got = s.scrape()
	s.want(got, `mezzo_isolator_newer{plugin="isolator/first"} 1`)
	s.lacks(got, `containers{plugin="isolator/first"}`)

	// A plugin's series end with it.
	newer.Stop(t.Context())
	got = s.scrape()
	s.lacks(got, `mezzo_isolator_newer`)
	s.want(got, `mezzo_isolator_containers{plugin="isolator/second"} 7`)
}

// Whatever a plugin tells, the scrape works, the others' metrics are there, and
// what is dropped is counted and told once.
func TestHostileMetrics(t *testing.T) {
	s := newScrapes(t, 30*time.Second)
	s.start("isolator", "a-right", "good", nil)
	s.start("isolator", "junk", "junk", nil)
	s.start("isolator", "types", "types", nil)
	s.start("isolator", "flood", "flood", nil)
	s.start("isolator", "wide", "wide", nil)
	s.start("isolator", "text", "text", nil)
	s.start("isolator", "fails", "fails", nil)
	s.scrape()
	got := s.scrape()
	s.want(got,
		`mezzo_isolator_launches_total{outcome="done",plugin="isolator/a-right"} 3`,
		`mezzo_isolator_containers{plugin="isolator/a-right"} 7`,
		`mezzo_isolator_beside{plugin="isolator/junk"} 1`,
		`mezzo_isolator_beside{plugin="isolator/types"} 1`,
		`mezzo_plugin_metrics_dropped_total{plugin="isolator/junk",reason="name"} 4`,
		`mezzo_plugin_metrics_dropped_total{plugin="isolator/junk",reason="label"} 2`,
		`mezzo_plugin_metrics_dropped_total{plugin="isolator/junk",reason="value"} 4`,
		`mezzo_plugin_metrics_dropped_total{plugin="isolator/junk",reason="duplicate"} 2`,
		`mezzo_plugin_metrics_dropped_total{plugin="isolator/types",reason="type"} 2`,
		`mezzo_plugin_metrics_dropped_total{plugin="isolator/wide",reason="too_many"} 6000`,
		`mezzo_plugin_call_failures_total{code="ResourceExhausted",method="Metrics",plugin="isolator/flood"} 2`,
		`mezzo_plugin_call_failures_total{code="Internal",method="Metrics",plugin="isolator/text"} 2`,
		`mezzo_plugin_call_failures_total{code="Unknown",method="Metrics",plugin="isolator/fails"} 2`,
	)
	s.lacks(got, "__name__", "NaN", `containers{plugin="isolator/types"}`, `mezzo_isolator_up{`, `plugin="allocator/drf"`)
	wide := 0
	for series := range got {
		if strings.HasPrefix(series, "mezzo_isolator_wide") {
			wide++
		}
	}
	if wide != 2000 {
		t.Errorf("%d series of the wide plugin are shown", wide)
	}
	for part, times := range map[string]int{
		"isolator.junk: some of the plugin's own metrics are not shown":  4,
		"isolator.types: some of the plugin's own metrics are not shown": 1,
		"isolator.wide: some of the plugin's own metrics are not shown":  1,
		"isolator.flood: the plugin's own metrics are not shown":         1,
		"isolator.fails: the plugin's own metrics are not shown":         1,
		"isolator.a-right: some of":                                      0,
	} {
		if n := s.log.count(part); n != times {
			t.Errorf("the log has %q %d times, want %d", part, n, times)
		}
	}
}

// A plugin that hangs costs a scrape no more than the deadline, and is told once.
func TestMetricsThatHang(t *testing.T) {
	s := newScrapes(t, 100*time.Millisecond)
	s.start("isolator", "hung", "hang", nil)
	for range 3 {
		s.lacks(s.scrape(), "mezzo_isolator")
	}
	if got := s.scrape()[`mezzo_plugin_call_failures_total{code="DeadlineExceeded",method="Metrics",plugin="isolator/hung"}`]; got == "" {
		t.Error("it is not counted")
	}
	if n := s.log.count("isolator.hung: the plugin's own metrics are not shown"); n != 1 {
		t.Errorf("it was told %d times", n)
	}
}

// A plugin that is stopped while it hangs is waited for no longer, and the
// others' metrics are there.
func TestMetricsOfAPluginThatGoes(t *testing.T) {
	s := newScrapes(t, time.Hour)
	s.start("isolator", "right", "good", nil)
	hung := s.start("isolator", "hung", "hang", nil)
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			s.want(s.scrape(), `mezzo_isolator_containers{plugin="isolator/right"} 7`)
		})
	}
	hung.Stop(t.Context())
	all.Wait()
	if n := s.log.count("own metrics are not shown"); n != 0 {
		t.Errorf("the log has %d words of it", n)
	}
}
