package metric

import (
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/mezzo-os/mezzo/core/pluginhost"
	"github.com/mezzo-os/mezzo/sdk/metric"
	pluginv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/plugin/v1"
)

// Own shows the metrics that plugins give of themselves, by the rules of
// mezzo.plugin.v1.Plugin/Metrics: a family of a plugin of kind "isolator" is
// mezzo_isolator_<name>, with the label plugin. What breaks the rules is left
// out, counted, and told in the plugin's log once a process and reason; so
// nothing that a plugin answers can make a scrape fail. It may be used from any
// goroutine.
type Own struct {
	ask     func() []pluginhost.Numbers
	dropped *prometheus.CounterVec

	mu   sync.Mutex
	said map[string]said // by plugin
}

// said is what the log has been told of one process.
type said struct {
	generation uint64
	reasons    map[string]bool
}

// NewOwn returns the gatherer of what ask returns: see pluginhost.Host.Numbers.
func NewOwn(ask func() []pluginhost.Numbers) *Own {
	return &Own{
		ask: ask, said: map[string]said{},
		dropped: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "mezzo_plugin_metrics_dropped_total", Help: "Samples of a plugin's own metrics that broke the contract and were left out, by what was wrong with them. Each answer counts again.",
		}, []string{"plugin", "reason"}),
	}
}

// Register has a registry show what was dropped.
func (o *Own) Register(r prometheus.Registerer) { r.MustRegister(o.dropped) }

// Beside returns a gatherer of all that the registry has and of what plugins
// give of themselves.
func (o *Own) Beside(registry prometheus.Gatherer) prometheus.Gatherer {
	return prometheus.Gatherers{o, registry} // what is dropped now is counted now
}

// Gather implements prometheus.Gatherer. It never fails.
func (o *Own) Gather() ([]*dto.MetricFamily, error) {
	families := map[string]*dto.MetricFamily{}
	for _, n := range o.ask() {
		if n.Err != nil {
			if code := status.Code(n.Err); code != codes.Canceled && code != codes.Unavailable && o.first(n, "code "+code.String()) {
				n.Logger.Warn("the plugin's own metrics are not shown: it does not tell them", "error", status.Convert(n.Err).Message(), "code", code)
			}
			continue
		}
		kept, problems := metric.Sift(n.Families)
		for _, f := range kept {
			if p := add(families, n.Plugin, f); p != nil {
				problems = append(problems, *p)
			}
		}
		for _, p := range problems {
			o.dropped.WithLabelValues(n.Plugin, p.Reason).Add(float64(p.Dropped))
			if o.first(n, p.Reason) {
				n.Logger.Warn("some of the plugin's own metrics are not shown: they break the contract", "reason", p.Reason, "problem", p.Text, "dropped", p.Dropped)
			}
		}
	}
	out := make([]*dto.MetricFamily, 0, len(families))
	for _, name := range slices.Sorted(maps.Keys(families)) {
		out = append(out, families[name])
	}
	return out, nil
}

// first says whether the log has not been told this of this process.
func (o *Own) first(n pluginhost.Numbers, reason string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	s := o.said[n.Plugin]
	if s.reasons == nil || s.generation != n.Generation {
		s = said{n.Generation, map[string]bool{}}
		o.said[n.Plugin] = s
	}
	if s.reasons[reason] {
		return false
	}
	s.reasons[reason] = true
	return true
}

var types = map[pluginv1.MetricType]dto.MetricType{
	pluginv1.MetricType_METRIC_TYPE_COUNTER:   dto.MetricType_COUNTER,
	pluginv1.MetricType_METRIC_TYPE_GAUGE:     dto.MetricType_GAUGE,
	pluginv1.MetricType_METRIC_TYPE_HISTOGRAM: dto.MetricType_HISTOGRAM,
}

// add adds a family that keeps the contract, unless one of another plugin has
// its name and is of another type.
func add(families map[string]*dto.MetricFamily, plugin string, f *pluginv1.MetricFamily) *metric.Problem {
	kind, _, _ := strings.Cut(plugin, "/")
	name, typ := "mezzo_"+kind+"_"+f.GetName(), types[f.GetType()]
	if len(f.GetSamples()) == 0 {
		return nil
	}
	there := families[name]
	if there == nil {
		there = &dto.MetricFamily{Name: proto.String(name), Help: proto.String(f.GetHelp()), Type: typ.Enum()}
		if f.GetUnit() != "" {
			there.Unit = proto.String(f.GetUnit())
		}
		families[name] = there
	}
	if there.GetType() != typ {
		return &metric.Problem{
			Reason: metric.BadType, Dropped: len(f.GetSamples()),
			Text: name + " is a " + strings.ToLower(typ.String()) + " here, and a " + strings.ToLower(there.GetType().String()) + " of another plugin's: rename one",
		}
	}
	for _, x := range f.GetSamples() {
		there.Metric = append(there.Metric, sample(plugin, f, x))
	}
	return nil
}

func sample(plugin string, f *pluginv1.MetricFamily, x *pluginv1.MetricSample) *dto.Metric {
	out := &dto.Metric{Label: []*dto.LabelPair{{Name: proto.String("plugin"), Value: proto.String(plugin)}}}
	for i, label := range f.GetLabels() {
		out.Label = append(out.Label, &dto.LabelPair{Name: proto.String(label), Value: proto.String(x.GetLabelValues()[i])})
	}
	slices.SortFunc(out.Label, func(a, b *dto.LabelPair) int { return strings.Compare(a.GetName(), b.GetName()) })
	switch f.GetType() {
	case pluginv1.MetricType_METRIC_TYPE_COUNTER:
		out.Counter = &dto.Counter{Value: proto.Float64(x.GetValue())}
	case pluginv1.MetricType_METRIC_TYPE_GAUGE:
		out.Gauge = &dto.Gauge{Value: proto.Float64(x.GetValue())}
	default:
		h := &dto.Histogram{SampleSum: proto.Float64(x.GetValue())}
		count := uint64(0)
		for i, n := range x.GetCounts() {
			count += n
			if i < len(f.GetBounds()) {
				h.Bucket = append(h.Bucket, &dto.Bucket{UpperBound: proto.Float64(f.GetBounds()[i]), CumulativeCount: proto.Uint64(count)})
			}
		}
		h.SampleCount = proto.Uint64(count)
		out.Histogram = h
	}
	return out
}
