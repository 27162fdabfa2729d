// Package metric turns what a Prometheus registry has into messages, for those
// who ask over gRPC.
package metric

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	operatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/operator/v1"
)

// Messages returns all that the registry has, sorted by name.
func Messages(from prometheus.Gatherer) ([]*operatorv1.Metric, error) {
	families, err := from.Gather()
	if err != nil {
		return nil, fmt.Errorf("metrics: %w", err)
	}
	var out []*operatorv1.Metric
	for _, family := range families {
		for _, m := range family.GetMetric() {
			x := &operatorv1.Metric{Name: family.GetName()}
			for _, label := range m.GetLabel() {
				if x.Labels == nil {
					x.Labels = map[string]string{}
				}
				x.Labels[label.GetName()] = label.GetValue()
			}
			fill(x, m)
			out = append(out, x)
		}
	}
	return out, nil
}

func fill(x *operatorv1.Metric, m *dto.Metric) {
	switch {
	case m.Counter != nil:
		x.Value = m.GetCounter().GetValue()
	case m.Gauge != nil:
		x.Value = m.GetGauge().GetValue()
	case m.Summary != nil:
		x.Value, x.Count = m.GetSummary().GetSampleSum(), m.GetSummary().GetSampleCount()
	case m.Histogram != nil:
		h := m.GetHistogram()
		x.Value, x.Count = h.GetSampleSum(), h.GetSampleCount()
		for _, b := range h.GetBucket() {
			x.Buckets = append(x.Buckets, &operatorv1.MetricBucket{UpperBound: b.GetUpperBound(), Count: b.GetCumulativeCount()})
		}
	default:
		x.Value = m.GetUntyped().GetValue()
	}
}
