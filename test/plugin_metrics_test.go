package test

import (
	"io"
	"maps"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"github.com/mezzo-os/mezzo/core/metric"
	"github.com/mezzo-os/mezzo/core/metric/metrictest"
	"github.com/mezzo-os/mezzo/core/pluginhost"
	"github.com/mezzo-os/mezzo/sdk/plugin"
	pluginv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/plugin/v1"
)

// TestPluginMetricsAreDocumented is that docs/metrics.md has every metric that
// Mezzo's own plugins give of themselves, and no other, and that their names
// follow Prometheus' conventions.
func TestPluginMetricsAreDocumented(t *testing.T) {
	t.Parallel()
	for section, binaries := range map[string][]string{
		"Allocators":         {"mezzo-allocator-drf", "mezzo-allocator-priority"},
		"Isolators":          {"mezzo-isolator-cgroups", "mezzo-isolator-containerd"},
		"Framework adapters": {"mezzo-framework-mesos"},
	} {
		t.Run(section, func(t *testing.T) {
			t.Parallel()
			documented, err := metrictest.Documented("../docs/metrics.md", section)
			if err != nil {
				t.Fatal(err)
			}
			var told []pluginhost.Numbers
			for _, binary := range binaries {
				told = append(told, familiesOf(t, binary))
			}
			families, err := metric.NewOwn(func() []pluginhost.Numbers { return told }).Gather()
			if err != nil {
				t.Fatal(err)
			}
			has := map[string]metrictest.Metric{}
			for _, f := range families {
				m := metrictest.Metric{Type: strings.ToLower(f.GetType().String()), Help: strings.TrimSuffix(f.GetHelp(), ".")}
				var labels []string
				for _, l := range f.GetMetric()[0].GetLabel() {
					if l.GetName() != "plugin" {
						labels = append(labels, l.GetName())
					}
				}
				slices.Sort(labels)
				m.Labels = strings.Join(labels, ",")
				has[f.GetName()] = m
			}
			if diff := cmp.Diff(has, documented); diff != "" {
				t.Errorf("docs/metrics.md, section %q (-the plugins have +the page has):\n%s", section, diff)
			}
			problems, err := promlint.NewWithMetricFamilies(families).Lint()
			if err != nil {
				t.Fatal(err)
			}
			for _, p := range problems {
				t.Errorf("%s: %s", p.Metric, p.Text)
			}
		})
	}
}

// familiesOf is what a plugin tells that does nothing yet, with one sample of
// each family, and only of the first plugin that has it.
func familiesOf(t *testing.T, binary string) pluginhost.Numbers {
	t.Helper()
	words := strings.SplitN(binary, "-", 3)
	kind, _ := plugin.KindOf(words[1])
	p, err := pluginhost.OpenProbe(t.Context(), pluginhost.Spec{Kind: kind, Name: words[2], Path: filepath.Join(bin, "plugins", binary)},
		pluginhost.Options{StartTimeout: patience})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	answer, err := pluginv1.NewPluginClient(p.Conn).Metrics(t.Context(), &pluginv1.MetricsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range answer.GetFamilies() {
		x := &pluginv1.MetricSample{LabelValues: make([]string, len(f.GetLabels()))}
		if n := len(f.GetBounds()); n > 0 {
			x.Counts = make([]uint64, n+1)
		}
		f.Samples = []*pluginv1.MetricSample{x}
	}
	return pluginhost.Numbers{Plugin: words[1] + "/" + words[2], Families: answer.GetFamilies()}
}

// TestPluginMetrics is that a cluster shows what its plugins tell: master and
// agent, at /metrics, with what has happened in it.
func TestPluginMetrics(t *testing.T) {
	t.Parallel()
	c := startDev(t)
	if r := c.mezzo("run", "--", "true"); r.code != 0 {
		t.Fatalf("the task: %+v", r)
	}
	// A request of the Mesos API's, too.
	answer, err := http.Get("http://" + c.fields["mesos"] + "/state")
	if err != nil {
		t.Fatal(err)
	}
	answer.Body.Close()
	wait := func(address string, series ...string) {
		t.Helper()
		var page map[string]string
		eventually(t, "what the plugins tell at "+address, func() bool {
			page = scrape(t, address)
			return !slices.ContainsFunc(series, func(s string) bool { return page[s] == "" || page[s] == "0" })
		})
		for series := range maps.Keys(page) {
			if strings.HasPrefix(series, "mezzo_plugin_metrics_dropped_total") {
				t.Errorf("%s %s", series, page[series])
			}
		}
	}
	wait(c.fields["http"],
		`mezzo_allocator_sessions_total{plugin="allocator/drf"}`,
		`mezzo_allocator_decisions_total{plugin="allocator/drf",type="offer"}`,
		`mezzo_framework_requests_total{code="200",endpoint="/state",plugin="framework/mesos"}`,
		`mezzo_framework_request_seconds_count{endpoint="/state",plugin="framework/mesos"}`,
		`mezzo_framework_mirror_ready{plugin="framework/mesos"}`,
	)
	agents := c.list("agents")
	wait(agents[0]["http_address"].(string),
		`mezzo_isolator_containers_ended_total{outcome="exited",plugin="isolator/cgroups"}`,
		`mezzo_isolator_create_step_seconds_count{plugin="isolator/cgroups",step="launch"}`,
	)
}

// scrape is what a process shows, by series.
func scrape(t *testing.T, address string) map[string]string {
	t.Helper()
	answer, err := http.Get("http://" + address + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s %v: %s", address, answer.Status, err, text)
	}
	page := map[string]string{}
	for line := range strings.Lines(string(text)) {
		if at := strings.LastIndexByte(line, ' '); at > 0 && !strings.HasPrefix(line, "#") {
			page[line[:at]] = strings.TrimSpace(line[at:])
		}
	}
	return page
}
