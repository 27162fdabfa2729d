package pluginhost

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pluginv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/plugin/v1"
)

// Metrics tells such as are right, and such as are wrong in every way.
func (f *foreign) Metrics(ctx context.Context, _ *pluginv1.MetricsRequest) (*pluginv1.MetricsResponse, error) {
	_, what, _ := strings.Cut(strings.TrimPrefix(f.metrics, strings.Split(f.metrics, "/")[0]+"/"), "/")
	const (
		counter   = pluginv1.MetricType_METRIC_TYPE_COUNTER
		gauge     = pluginv1.MetricType_METRIC_TYPE_GAUGE
		histogram = pluginv1.MetricType_METRIC_TYPE_HISTOGRAM
	)
	family := func(name string, typ pluginv1.MetricType, labels string, samples ...*pluginv1.MetricSample) *pluginv1.MetricFamily {
		return &pluginv1.MetricFamily{Name: name, Help: "By " + f.metrics + ".", Type: typ, Labels: strings.Fields(labels), Samples: samples}
	}
	sample := func(v float64, labels ...string) *pluginv1.MetricSample {
		return &pluginv1.MetricSample{Value: v, LabelValues: labels}
	}
	beside := family("beside", gauge, "", sample(1))
	answer := func(families ...*pluginv1.MetricFamily) (*pluginv1.MetricsResponse, error) {
		return &pluginv1.MetricsResponse{Families: families}, nil
	}
	switch what {
	case "":
		return nil, status.Error(codes.Unimplemented, "no metrics")
	case "good":
		took := family("launch_seconds", histogram, "", &pluginv1.MetricSample{Value: 9.5, Counts: []uint64{2, 0, 3}})
		took.Bounds, took.Unit = []float64{1, 2}, "seconds"
		return answer(family("launches_total", counter, "outcome", sample(3, "done")), took, family("containers", gauge, "", sample(7)))
	case "newer":
		return answer(family("newer", gauge, "", sample(1)))
	case "junk":
		return answer(
			family("call seconds{", gauge, "", sample(1)),
			family("x_count", gauge, "", sample(1)),
			family("up", gauge, "plugin", sample(0, "allocator/drf")),
			family("nan", gauge, "", sample(math.NaN())),
			family("minus_total", counter, "", sample(-1)),
			family("twice", gauge, "a", sample(1, ""), sample(2, "")),
			beside)
	case "types": // others have it as a gauge
		x := family("containers", histogram, "", &pluginv1.MetricSample{Counts: []uint64{1, 2}})
		x.Bounds = []float64{1}
		return answer(x, beside)
	case "flood":
		return answer(family(strings.Repeat("x", 2<<20), gauge, "", sample(1)))
	case "wide":
		x := family("wide", gauge, "n")
		for i := range 5000 {
			x.Samples = append(x.Samples, sample(1, fmt.Sprint(i)))
		}
		return answer(x)
	case "text":
		return answer(family("x", gauge, "a", sample(1, "\xff")))
	case "fails":
		return nil, errors.New("no\nidea")
	case "hang":
		select {}
	}
	return nil, status.Error(codes.Unimplemented, what)
}
