// Package metrictest reads a plugin's own metrics in its tests.
package metrictest

import (
	"slices"

	"github.com/mezzo-os/mezzo/sdk/metric"
	pluginv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/plugin/v1"
)

// Value is that of the sample with these label values: of a histogram how many
// were observed. 0, false: there is none.
func Value(s *metric.Set, name string, labelValues ...string) (float64, bool) {
	for _, f := range s.Families() {
		for _, x := range f.GetSamples() {
			if f.GetName() != name || !slices.Equal(x.GetLabelValues(), labelValues) {
				continue
			}
			if f.GetType() != pluginv1.MetricType_METRIC_TYPE_HISTOGRAM {
				return x.GetValue(), true
			}
			sum := 0.0
			for _, n := range x.GetCounts() {
				sum += float64(n)
			}
			return sum, true
		}
	}
	return 0, false
}
