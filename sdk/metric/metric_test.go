package metric_test

import (
	"fmt"
	"math"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/mezzo-os/mezzo/sdk/metric"
	pluginv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/plugin/v1"
)

const (
	counter   = pluginv1.MetricType_METRIC_TYPE_COUNTER
	gauge     = pluginv1.MetricType_METRIC_TYPE_GAUGE
	histogram = pluginv1.MetricType_METRIC_TYPE_HISTOGRAM
)

// What is counted is there in the answer, in order, and keeps the contract.
func TestSet(t *testing.T) {
	s := metric.NewSet()
	done := s.Counter("lookups_total", "Lookups.", "outcome")
	idle := s.Counter("idle_total", "Nothing.")
	size := s.Gauge("cache_bytes", "The cache.")
	took := s.Histogram("lookup_seconds", "How long.", []float64{1, 10})
	s.GaugeFunc("items", "Items.", func(tell metric.Tell) { tell(3, "b"); tell(2, "a"); tell(math.NaN(), "c") }, "shelf")

	done.Add(2, "found")
	done.Inc("missing")
	done.Add(-5, "found")
	done.Add(math.NaN(), "found")
	size.Set(7)
	size.Add(-3)
	for _, v := range []float64{0.5, 1, 2, 100, math.Inf(1)} {
		took.Observe(v)
	}
	want := []*pluginv1.MetricFamily{
		{Name: "cache_bytes", Help: "The cache.", Type: gauge, Unit: "bytes", Samples: []*pluginv1.MetricSample{{Value: 4}}},
		{Name: "idle_total", Help: "Nothing.", Type: counter},
		{Name: "items", Help: "Items.", Type: gauge, Labels: []string{"shelf"}, Samples: []*pluginv1.MetricSample{
			{LabelValues: []string{"a"}, Value: 2}, {LabelValues: []string{"b"}, Value: 3},
		}},
		{Name: "lookup_seconds", Help: "How long.", Type: histogram, Unit: "seconds", Bounds: []float64{1, 10}, Samples: []*pluginv1.MetricSample{
			{Value: 103.5, Counts: []uint64{2, 1, 1}},
		}},
		{Name: "lookups_total", Help: "Lookups.", Type: counter, Labels: []string{"outcome"}, Samples: []*pluginv1.MetricSample{
			{LabelValues: []string{"found"}, Value: 2}, {LabelValues: []string{"missing"}, Value: 1},
		}},
	}
	got := s.Families()
	if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	kept, problems := metric.Sift(got)
	if diff := cmp.Diff(got, kept, protocmp.Transform()); diff != "" || len(problems) > 0 {
		t.Errorf("what the set tells is not kept: %v %s", problems, diff)
	}
	if err := s.Err(); err != nil {
		t.Error(err)
	}
	idle.Inc()
	size.Set(math.NaN())
	for _, f := range s.Families() {
		if f.Name == "cache_bytes" && len(f.Samples) > 0 || f.Name == "idle_total" && f.Samples[0].Value != 1 {
			t.Errorf("after the changes: %v", f)
		}
	}
}

// Label values that nobody bounds do not fill the memory, nor break the answer.
func TestSetIsBounded(t *testing.T) {
	s := metric.NewSet()
	c := s.Counter("x_total", "X.", "a", "b")
	var all sync.WaitGroup
	for part := range 4 {
		all.Go(func() {
			for i := range 1000 {
				c.Inc(fmt.Sprint(part, i), "\xff"+strings.Repeat("ü", 200), "too much")
				s.Families()
			}
		})
	}
	c.Inc()
	all.Wait()
	families := s.Families()
	if _, problems := metric.Sift(families); len(problems) > 0 {
		t.Errorf("it breaks the contract: %v", problems)
	}
	sum, others := 0.0, 0.0
	for _, x := range families[0].Samples {
		sum += x.Value
		if x.LabelValues[0] == "other" && x.LabelValues[1] == "other" {
			others = x.Value
		}
	}
	if n := len(families[0].Samples); n > 250 || sum != 4001 || others < 3000 {
		t.Errorf("%d samples, %v in all, %v of them with other labels", n, sum, others)
	}
}

// A declaration that breaks the contract is told, and counting on it does no
// harm.
func TestSetSaysWhatIsWrong(t *testing.T) {
	s := metric.NewSet()
	s.Counter("Lookups", "X.").Inc()
	s.Counter("lookups", "X.").Inc()
	s.Gauge("size", "").Set(1)
	s.Gauge("size", "X.", "plugin").Set(1, "x")
	s.Histogram("took_seconds", "X.", nil).Observe(1)
	err := s.Err()
	for _, want := range []string{
		`metric "Lookups" is no name`, `metric "lookups" is a counter: its name must end in _total`, `metric "size" has a help text of 0 bytes`,
		`metric "size" has the label plugin, which is not for plugins`, `metric "size" is declared twice`, `metric "took_seconds" has 0 bounds`,
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: does not say %s", err, want)
		}
	}
	s.Families()
}

// A joined set has what its parts count, and no name twice.
func TestJoin(t *testing.T) {
	a, b := metric.NewSet(), metric.NewSet()
	x := a.Counter("x_total", "X.")
	y := b.Counter("y_total", "Y.")
	both := metric.Join(a, nil, b)
	x.Inc()
	y.Add(2)
	if f := both.Families(); len(f) != 2 || f[0].Samples[0].Value != 1 || f[1].Samples[0].Value != 2 || both.Err() != nil {
		t.Errorf("%v %v", f, both.Err())
	}
	if err := metric.Join(a, a).Err(); err == nil {
		t.Error("a family is there twice, and that is fine")
	}
}

func TestNil(t *testing.T) {
	var c *metric.Counter
	var g *metric.Gauge
	var h *metric.Histogram
	c.Inc()
	g.Set(1)
	g.Add(1)
	g.Unset()
	h.Observe(1)
}

func TestExponential(t *testing.T) {
	if diff := cmp.Diff([]float64{1, 4, 16}, metric.Exponential(1, 4, 3)); diff != "" {
		t.Error(diff)
	}
}
