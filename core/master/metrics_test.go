package master

import (
	"context"
	"testing"

	"github.com/mezzo-os/mezzo/config"
	"github.com/mezzo-os/mezzo/core/metric"
	"github.com/mezzo-os/mezzo/core/metric/metrictest"
	"github.com/mezzo-os/mezzo/core/trace"
)

// TestMetricsAreDocumented is that docs/metrics.md has every metric of a master,
// and no other.
func TestMetricsAreDocumented(t *testing.T) {
	m := newMetrics(newMirror(), func() int { return 0 }, func() bool { return false }, func() bool { return false }, nil)
	tracer, err := trace.New(trace.Options{Config: config.Tracing{Endpoint: "http://127.0.0.1:1", Protocol: "grpc", QueueSize: 1}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tracer.Close(context.Background()) })
	tracer.Register(m.registry)
	metric.NewDenials(nil, nil).Register(m.registry)
	metrictest.Check(t, m.registry, "../../docs/metrics.md", "Master", "Both")
}
