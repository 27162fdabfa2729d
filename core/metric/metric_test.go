package metric_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/mezzo-os/mezzo/core/metric"
	operatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/operator/v1"
)

func TestMessages(t *testing.T) {
	r := prometheus.NewRegistry()
	counter := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "b_total"}, []string{"kind"})
	gauge := prometheus.NewGauge(prometheus.GaugeOpts{Name: "a"})
	histogram := prometheus.NewHistogram(prometheus.HistogramOpts{Name: "c", Buckets: []float64{1, 2}})
	r.MustRegister(counter, gauge, histogram)
	counter.WithLabelValues("x").Add(3)
	gauge.Set(-1)
	for _, v := range []float64{0.5, 1.5, 9} {
		histogram.Observe(v)
	}
	got, err := metric.Messages(r)
	if err != nil {
		t.Fatal(err)
	}
	want := []*operatorv1.Metric{
		{Name: "a", Value: -1},
		{Name: "b_total", Labels: map[string]string{"kind": "x"}, Value: 3},
		{Name: "c", Value: 11, Count: 3, Buckets: []*operatorv1.MetricBucket{{UpperBound: 1, Count: 1}, {UpperBound: 2, Count: 2}}},
	}
	if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}
