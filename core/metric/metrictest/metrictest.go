// Package metrictest compares the metrics that a process has with those that
// docs/metrics.md tells of.
package metrictest

import (
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"
	"google.golang.org/protobuf/proto"
)

// Metric is one that a page tells of, or that a process has.
type Metric struct {
	Type   string // "gauge", "counter" or "histogram"; empty: not known
	Labels string // in order, with commas
	Help   string
}

var (
	row  = regexp.MustCompile("^\\| `(mezzo_[a-z_]+)` \\| ([a-z]+) \\| ([a-z_`, ]*) ?\\| (.+) \\|$")
	desc = regexp.MustCompile(`^Desc\{fqName: "([^"]+)", help: "(.*?)"(?:, unit: "[^"]*")?, constLabels: \{.*\}, variableLabels: \{(.*)\}\}$`)
)

// Documented reads the tables of a page's sections, by name.
func Documented(path string, sections ...string) (map[string]Metric, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	out := map[string]Metric{}
	for _, part := range strings.Split(string(text), "\n## ")[1:] {
		heading, body, _ := strings.Cut(part, "\n")
		if !slices.Contains(sections, heading) {
			continue
		}
		for line := range strings.Lines(body) {
			line = strings.TrimSuffix(line, "\n")
			found := row.FindStringSubmatch(line)
			switch {
			case found != nil:
				out[found[1]] = Metric{Type: found[2], Labels: sorted(strings.ReplaceAll(found[3], "`", "")), Help: found[4]}
			case strings.HasPrefix(line, "| `"):
				return nil, fmt.Errorf("%s, section %q: this row is not | `name` | type | labels | meaning |: %s", path, heading, line)
			}
		}
	}
	return out, nil
}

// Check is that a registry's metrics, but for those of the Go runtime and of the
// process, are those of the sections, with their labels, and that their names
// follow Prometheus' conventions.
func Check(t *testing.T, registry *prometheus.Registry, path string, sections ...string) {
	t.Helper()
	documented, err := Documented(path, sections...)
	if err != nil {
		t.Fatal(err)
	}
	has := map[string]Metric{}
	all := make(chan *prometheus.Desc)
	go func() { defer close(all); registry.Describe(all) }()
	for d := range all {
		found := desc.FindStringSubmatch(d.String())
		if found == nil {
			t.Errorf("a metric describes itself as %s", d)
			continue
		}
		if name := found[1]; !strings.HasPrefix(name, "go_") && !strings.HasPrefix(name, "process_") {
			has[name] = Metric{Type: documented[name].Type, Labels: sorted(found[3]), Help: found[2]}
			lint(t, name, has[name])
		}
	}
	names := func(m map[string]Metric) (list []string) {
		for _, name := range slices.Sorted(maps.Keys(m)) {
			list = append(list, name+" {"+m[name].Labels+"}")
		}
		return list
	}
	if diff := cmp.Diff(names(has), names(documented)); diff != "" {
		t.Errorf("%s, sections %v (-the process has +the page has):\n%s", path, sections, diff)
	}
}

func sorted(labels string) string {
	list := strings.FieldsFunc(labels, func(r rune) bool { return r == ',' || r == ' ' })
	slices.Sort(list)
	return strings.Join(list, ",")
}

// lint holds a name to the conventions.
func lint(t *testing.T, name string, m Metric) {
	t.Helper()
	one := &dto.Metric{}
	kind := dto.MetricType_UNTYPED
	switch m.Type {
	case "gauge":
		kind, one.Gauge = dto.MetricType_GAUGE, &dto.Gauge{Value: proto.Float64(1)}
	case "counter":
		kind, one.Counter = dto.MetricType_COUNTER, &dto.Counter{Value: proto.Float64(1)}
	case "histogram":
		kind, one.Histogram = dto.MetricType_HISTOGRAM, &dto.Histogram{SampleCount: proto.Uint64(1)}
	default:
		return // it is not on the page
	}
	for label := range strings.SplitSeq(m.Labels, ",") {
		if label != "" {
			one.Label = append(one.Label, &dto.LabelPair{Name: proto.String(label), Value: proto.String("x")})
		}
	}
	problems, err := promlint.NewWithMetricFamilies([]*dto.MetricFamily{{
		Name: proto.String(name), Help: proto.String(m.Help), Type: &kind, Metric: []*dto.Metric{one},
	}}).Lint()
	if err != nil {
		t.Error(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}
