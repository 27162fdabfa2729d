package metric

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	pluginv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/plugin/v1"
)

// maxCombinations bounds what one family remembers. What is observed with new
// label values beyond it counts with the value "other" for each label.
const maxCombinations = 200

// other stands for label values that are too many.
const other = "other"

// Set is the families of one plugin. Its methods may be called from any
// goroutine.
type Set struct {
	mu       sync.Mutex
	families []*family
	errs     []error
}

// NewSet returns an empty set.
func NewSet() *Set { return &Set{} }

// Join returns a set of all families of the sets, for which each of them goes on
// counting. A set that is nil has none.
func Join(sets ...*Set) *Set {
	out := NewSet()
	for _, s := range sets {
		if s == nil {
			continue
		}
		s.mu.Lock()
		out.errs = append(out.errs, s.errs...)
		for _, f := range s.families {
			out.add(f)
		}
		s.mu.Unlock()
	}
	return out
}

// Counter declares something that only grows. Its name ends in _total.
func (s *Set) Counter(name, help string, labels ...string) *Counter {
	return &Counter{s.declare(&pluginv1.MetricFamily{Name: name, Help: help, Type: pluginv1.MetricType_METRIC_TYPE_COUNTER, Labels: labels}, nil)}
}

// Gauge declares something that goes up and down. It has no value before it is
// first set.
func (s *Set) Gauge(name, help string, labels ...string) *Gauge {
	return &Gauge{s.declare(&pluginv1.MetricFamily{Name: name, Help: help, Type: pluginv1.MetricType_METRIC_TYPE_GAUGE, Labels: labels}, nil)}
}

// Histogram declares a distribution, over buckets with these upper bounds,
// ascending; see Exponential.
func (s *Set) Histogram(name, help string, bounds []float64, labels ...string) *Histogram {
	return &Histogram{s.declare(&pluginv1.MetricFamily{
		Name: name, Help: help, Type: pluginv1.MetricType_METRIC_TYPE_HISTOGRAM, Labels: labels, Bounds: slices.Clone(bounds),
	}, nil)}
}

// Tell gives one sample: a value, and a value for each label.
type Tell func(value float64, labelValues ...string)

// CounterFunc declares something that only grows and is counted elsewhere: read
// tells it whenever the host asks. Read must be cheap, and may be called from
// several goroutines at once.
func (s *Set) CounterFunc(name, help string, read func(tell Tell), labels ...string) {
	s.declare(&pluginv1.MetricFamily{Name: name, Help: help, Type: pluginv1.MetricType_METRIC_TYPE_COUNTER, Labels: labels}, read)
}

// GaugeFunc declares something that goes up and down and is known elsewhere. The
// rules of CounterFunc hold for read.
func (s *Set) GaugeFunc(name, help string, read func(tell Tell), labels ...string) {
	s.declare(&pluginv1.MetricFamily{Name: name, Help: help, Type: pluginv1.MetricType_METRIC_TYPE_GAUGE, Labels: labels}, read)
}

// Exponential returns n bounds of buckets, each factor times the one before it.
func Exponential(first, factor float64, n int) []float64 {
	out := make([]float64, n)
	for i := range out {
		out[i] = first
		first *= factor
	}
	return out
}

// units are those that names tell of.
var units = []string{"seconds", "bytes", "ratio"}

func (s *Set) declare(of *pluginv1.MetricFamily, read func(tell Tell)) *family {
	base := strings.TrimSuffix(of.Name, "_total")
	of.Unit = base[strings.LastIndexByte(base, '_')+1:]
	if !slices.Contains(units, of.Unit) {
		of.Unit = ""
	}
	of.Labels = slices.Clone(of.Labels)
	f := &family{of: of, read: read, samples: map[string]*pluginv1.MetricSample{}}
	s.mu.Lock()
	defer s.mu.Unlock()
	if reason, why := faulty(of); reason != "" {
		s.errs = append(s.errs, fmt.Errorf("metric %s %s", shown(of.Name), why))
	}
	s.add(f)
	return f
}

// add takes a family in; the caller holds mu.
func (s *Set) add(f *family) {
	if slices.ContainsFunc(s.families, func(x *family) bool { return x.of.Name == f.of.Name }) {
		s.errs = append(s.errs, fmt.Errorf("metric %s is declared twice", shown(f.of.Name)))
	}
	s.families = append(s.families, f)
}

// Err says what of the declarations breaks the contract; nil: nothing.
func (s *Set) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.families) > MaxFamilies {
		return fmt.Errorf("%d metrics: want at most %d", len(s.families), MaxFamilies)
	}
	return errors.Join(s.errs...)
}

// Families returns all families with the samples that they have now, ordered by
// name.
func (s *Set) Families() []*pluginv1.MetricFamily {
	s.mu.Lock()
	families := slices.Clone(s.families)
	s.mu.Unlock()
	out := make([]*pluginv1.MetricFamily, len(families))
	for i, f := range families {
		out[i] = f.now()
	}
	slices.SortStableFunc(out, func(a, b *pluginv1.MetricFamily) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// family is one that is declared, with what was counted.
type family struct {
	of   *pluginv1.MetricFamily // without samples; never changed
	read func(tell Tell)        // nil: what samples has

	mu      sync.Mutex
	samples map[string]*pluginv1.MetricSample // by label values
}

// change changes the sample with these label values. Missing values are empty,
// those that are too many are left out.
func (f *family) change(values []string, change func(x *pluginv1.MetricSample)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	values = f.fit(values)
	x := f.samples[key(values)]
	if x == nil && len(f.samples) >= maxCombinations {
		for i := range values {
			values[i] = other
		}
		x = f.samples[key(values)]
	}
	if x == nil {
		x = &pluginv1.MetricSample{LabelValues: values}
		if f.of.Type == pluginv1.MetricType_METRIC_TYPE_HISTOGRAM {
			x.Counts = make([]uint64, len(f.of.Bounds)+1)
		}
		f.samples[key(values)] = x
	}
	change(x)
}

// fit makes label values such as the contract allows: as many as there are
// labels, of valid UTF-8, and not too long.
func (f *family) fit(values []string) []string {
	out := make([]string, len(f.of.Labels))
	for i := range out {
		if i < len(values) {
			v := values[i]
			out[i] = strings.ToValidUTF8(v[:min(len(v), MaxLabelValue)], "")
		}
	}
	return out
}

// now is the family with its samples, which are copies, in order.
func (f *family) now() *pluginv1.MetricFamily {
	from := f
	if f.read != nil { // its samples are of this moment alone
		from = &family{of: f.of, samples: map[string]*pluginv1.MetricSample{}}
		f.read(func(value float64, labelValues ...string) {
			if finite(value) {
				from.change(labelValues, func(x *pluginv1.MetricSample) { x.Value += value })
			}
		})
	}
	out := &pluginv1.MetricFamily{
		Name: f.of.Name, Help: f.of.Help, Type: f.of.Type, Unit: f.of.Unit, Labels: f.of.Labels, Bounds: f.of.Bounds,
	}
	from.mu.Lock()
	defer from.mu.Unlock()
	for _, x := range from.samples {
		out.Samples = append(out.Samples, &pluginv1.MetricSample{LabelValues: x.LabelValues, Value: x.Value, Counts: slices.Clone(x.Counts)})
	}
	slices.SortFunc(out.Samples, func(a, b *pluginv1.MetricSample) int { return slices.Compare(a.LabelValues, b.LabelValues) })
	return out
}

// Counter is something that only grows. One that is nil counts nothing, which
// tests are glad of; so it is with Gauge and Histogram.
type Counter struct{ family *family }

// Inc adds one.
func (c *Counter) Inc(labelValues ...string) { c.Add(1, labelValues...) }

// Add adds n; less than nothing, or no number, is not added. With 0 the sample is
// there from now on, as it should be for what is known beforehand: the first
// increase can only be seen by who saw it at 0.
func (c *Counter) Add(n float64, labelValues ...string) {
	if c != nil && n >= 0 && finite(n) {
		c.family.change(labelValues, func(x *pluginv1.MetricSample) { x.Value += n })
	}
}

// Gauge is something that goes up and down.
type Gauge struct{ family *family }

// Set makes it so; what is not finite removes the sample.
func (g *Gauge) Set(value float64, labelValues ...string) {
	switch {
	case g == nil:
		return
	case !finite(value):
		g.Unset(labelValues...)
		return
	}
	g.family.change(labelValues, func(x *pluginv1.MetricSample) { x.Value = value })
}

// Add changes it by n, from 0 if it has no value.
func (g *Gauge) Add(n float64, labelValues ...string) {
	if g != nil && finite(n) {
		g.family.change(labelValues, func(x *pluginv1.MetricSample) { x.Value += n })
	}
}

// Unset removes the sample: its value is not known any more.
func (g *Gauge) Unset(labelValues ...string) {
	if g == nil {
		return
	}
	g.family.mu.Lock()
	defer g.family.mu.Unlock()
	delete(g.family.samples, key(g.family.fit(labelValues)))
}

// Histogram is a distribution.
type Histogram struct{ family *family }

// Observe takes one value in; what is not finite is left out.
func (h *Histogram) Observe(value float64, labelValues ...string) {
	if h == nil || !finite(value) {
		return
	}
	bucket, _ := slices.BinarySearch(h.family.of.Bounds, value)
	h.family.change(labelValues, func(x *pluginv1.MetricSample) {
		x.Value += value
		x.Counts[bucket]++
	})
}
