package plugintest

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/mezzo-os/mezzo/sdk/metric"
	pluginv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/plugin/v1"
)

// metricsTime is how long a host waits for metrics.
const metricsTime = time.Second

// playMetrics asks for the metrics as a host does: before Configure, after it,
// and when the plugin has been used.
func playMetrics(c *scenario) {
	p := c.fresh()
	told := [][]*pluginv1.MetricFamily{c.metrics(p, "before Configure")}
	if err := c.suite.configure(c.call(), p); err != nil {
		c.skipf("the plugin is not configured: %v", err)
	}
	told = append(told, c.metrics(p, "after Configure"))
	_ = c.use(p) // whether it works is for others to say
	told = append(told, c.metrics(p, "later"))
	for i, after := range told[1:] {
		if problems := falls(told[i], after); len(problems) > 0 {
			c.failf("between two calls of one process:\n%s", strings.Join(problems, "\n"))
		}
		if diff := different(told[i], after); diff != "" {
			c.failf("two calls tell different families: %s", diff)
		}
	}
}

// metrics asks, and fails the check for an answer that a host would not show
// whole. A busy machine may be late, and is asked again.
func (c *scenario) metrics(p *Plugin, when string) (families []*pluginv1.MetricFamily) {
	for again := 0; ; again++ {
		began := time.Now()
		answer, err := pluginv1.NewPluginClient(p.Conn).Metrics(c.call(), &pluginv1.MetricsRequest{})
		took := time.Since(began)
		switch {
		case status.Code(err) == codes.Unimplemented:
			c.skipf("it serves no metrics")
		case err != nil:
			c.failf("%s, Metrics failed: %v", when, err)
		case proto.Size(answer) > metric.MaxAnswer:
			c.failf("%s, Metrics answers with %d bytes: at most %d are allowed", when, proto.Size(answer), metric.MaxAnswer)
		case took > metricsTime && again < 2:
			continue
		case took > metricsTime:
			c.failf("%s, Metrics took %v: a host waits for %v", when, took.Round(time.Millisecond), metricsTime)
		}
		families = answer.GetFamilies()
		break
	}
	if _, problems := metric.Sift(families); len(problems) > 0 {
		var text []string
		for _, p := range problems {
			text = append(text, p.Text)
		}
		c.failf("%s, a host would leave some of its metrics out:\n%s", when, strings.Join(text, "\n"))
	}
	return families
}

// different says how the families of two answers differ, but for the samples.
func different(before, after []*pluginv1.MetricFamily) string {
	told := func(families []*pluginv1.MetricFamily) map[string]*pluginv1.MetricFamily {
		out := map[string]*pluginv1.MetricFamily{}
		for _, f := range families {
			out[f.GetName()] = &pluginv1.MetricFamily{Help: f.GetHelp(), Type: f.GetType(), Unit: f.GetUnit(), Labels: f.GetLabels(), Bounds: f.GetBounds()}
		}
		return out
	}
	a, b := told(before), told(after)
	for _, f := range before {
		if other, there := b[f.GetName()]; !there {
			return fmt.Sprintf("%s is gone", f.GetName())
		} else if !proto.Equal(a[f.GetName()], other) {
			return fmt.Sprintf("%s was %v, and is %v", f.GetName(), a[f.GetName()], other)
		}
	}
	for _, f := range after {
		if a[f.GetName()] == nil {
			return fmt.Sprintf("%s is new; a family without a sample is told, too", f.GetName())
		}
	}
	return ""
}

// falls says what was counted and is less now, or gone.
func falls(before, after []*pluginv1.MetricFamily) (problems []string) {
	for _, f := range before {
		i := slices.IndexFunc(after, func(x *pluginv1.MetricFamily) bool { return x.GetName() == f.GetName() })
		if i < 0 || f.GetType() == pluginv1.MetricType_METRIC_TYPE_GAUGE || f.GetType() != after[i].GetType() {
			continue
		}
		for _, x := range f.GetSamples() {
			name := fmt.Sprintf("%s%q", f.GetName(), x.GetLabelValues())
			j := slices.IndexFunc(after[i].GetSamples(), func(y *pluginv1.MetricSample) bool { return slices.Equal(x.GetLabelValues(), y.GetLabelValues()) })
			if j < 0 {
				problems = append(problems, name+" is gone")
				continue
			}
			y := after[i].GetSamples()[j]
			switch f.GetType() {
			case pluginv1.MetricType_METRIC_TYPE_COUNTER:
				if y.GetValue() < x.GetValue() {
					problems = append(problems, fmt.Sprintf("%s went back from %v to %v", name, x.GetValue(), y.GetValue()))
				}
			default:
				for n := range min(len(x.GetCounts()), len(y.GetCounts())) {
					if y.GetCounts()[n] < x.GetCounts()[n] {
						problems = append(problems, fmt.Sprintf("%s went back from %v to %v", name, x.GetCounts(), y.GetCounts()))
						break
					}
				}
			}
		}
	}
	return problems
}
