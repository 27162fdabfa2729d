package metric_test

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"pgregory.net/rapid"

	"github.com/mezzo-os/mezzo/sdk/metric"
	pluginv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/plugin/v1"
)

// one is a right family; each case changes it.
func one() *pluginv1.MetricFamily {
	return &pluginv1.MetricFamily{Name: "x_total", Help: "X.", Type: counter, Labels: []string{"a"}, Samples: []*pluginv1.MetricSample{
		{LabelValues: []string{"1"}, Value: 1}, {LabelValues: []string{"2"}, Value: 2},
	}}
}

func buckets() *pluginv1.MetricFamily {
	return &pluginv1.MetricFamily{Name: "x_seconds", Help: "X.", Type: histogram, Unit: "seconds", Bounds: []float64{1, 2}, Samples: []*pluginv1.MetricSample{
		{Value: 1, Counts: []uint64{1, 0, 0}},
	}}
}

// Every breach is found for what it is, and costs what is wrong and no more.
func TestSift(t *testing.T) {
	long := strings.Repeat("x", 5000)
	for name, test := range map[string]struct {
		from    func() *pluginv1.MetricFamily
		change  func(f *pluginv1.MetricFamily)
		reason  string
		dropped int // samples
		left    int // samples; -1: the family is dropped
	}{
		"right":               {one, func(f *pluginv1.MetricFamily) {}, "", 0, 2},
		"right histogram":     {buckets, func(f *pluginv1.MetricFamily) {}, "", 0, 1},
		"no samples":          {one, func(f *pluginv1.MetricFamily) { f.Samples = nil }, "", 0, 0},
		"no name":             {one, func(f *pluginv1.MetricFamily) { f.Name = "" }, metric.BadName, 2, -1},
		"upper case":          {one, func(f *pluginv1.MetricFamily) { f.Name = "X_total" }, metric.BadName, 2, -1},
		"two underscores":     {one, func(f *pluginv1.MetricFamily) { f.Name = "x__y_total" }, metric.BadName, 2, -1},
		"line break":          {one, func(f *pluginv1.MetricFamily) { f.Name = "x_total\n" }, metric.BadName, 2, -1},
		"long name":           {one, func(f *pluginv1.MetricFamily) { f.Name = long + "_total" }, metric.BadName, 2, -1},
		"counter's name":      {one, func(f *pluginv1.MetricFamily) { f.Name = "x" }, metric.BadName, 2, -1},
		"gauge's name":        {one, func(f *pluginv1.MetricFamily) { f.Type = gauge }, metric.BadName, 2, -1},
		"histogram's part":    {one, func(f *pluginv1.MetricFamily) { f.Type, f.Name = gauge, "x_count" }, metric.BadName, 2, -1},
		"unit":                {one, func(f *pluginv1.MetricFamily) { f.Unit = "seconds" }, metric.BadName, 2, -1},
		"unit's name":         {one, func(f *pluginv1.MetricFamily) { f.Unit = "!" }, metric.BadName, 2, -1},
		"no help":             {one, func(f *pluginv1.MetricFamily) { f.Help = "" }, metric.BadText, 2, -1},
		"long help":           {one, func(f *pluginv1.MetricFamily) { f.Help = long }, metric.BadText, 2, -1},
		"help not UTF-8":      {one, func(f *pluginv1.MetricFamily) { f.Help = "\xff" }, metric.BadText, 2, -1},
		"no type":             {one, func(f *pluginv1.MetricFamily) { f.Type = 0 }, metric.BadType, 2, -1},
		"strange type":        {one, func(f *pluginv1.MetricFamily) { f.Type = 9 }, metric.BadType, 2, -1},
		"many labels":         {one, func(f *pluginv1.MetricFamily) { f.Labels = strings.Split("abcdefg", "") }, metric.BadLabel, 2, -1},
		"label's name":        {one, func(f *pluginv1.MetricFamily) { f.Labels[0] = "__name__" }, metric.BadLabel, 2, -1},
		"host's label":        {one, func(f *pluginv1.MetricFamily) { f.Labels[0] = "plugin" }, metric.BadLabel, 2, -1},
		"label twice":         {one, func(f *pluginv1.MetricFamily) { f.Labels = []string{"a", "a"} }, metric.BadLabel, 2, -1},
		"bounds":              {one, func(f *pluginv1.MetricFamily) { f.Bounds = []float64{1} }, metric.BadBounds, 2, -1},
		"no bounds":           {buckets, func(f *pluginv1.MetricFamily) { f.Bounds = nil }, metric.BadBounds, 1, -1},
		"many bounds":         {buckets, func(f *pluginv1.MetricFamily) { f.Bounds = make([]float64, 51) }, metric.BadBounds, 1, -1},
		"bounds descend":      {buckets, func(f *pluginv1.MetricFamily) { f.Bounds = []float64{2, 1} }, metric.BadBounds, 1, -1},
		"bound no number":     {buckets, func(f *pluginv1.MetricFamily) { f.Bounds = []float64{1, math.NaN()} }, metric.BadBounds, 1, -1},
		"bound infinite":      {buckets, func(f *pluginv1.MetricFamily) { f.Bounds = []float64{1, math.Inf(1)} }, metric.BadBounds, 1, -1},
		"value missing":       {one, func(f *pluginv1.MetricFamily) { f.Samples[0].LabelValues = nil }, metric.BadLabel, 1, 1},
		"long value":          {one, func(f *pluginv1.MetricFamily) { f.Samples[0].LabelValues[0] = long }, metric.BadLabel, 1, 1},
		"value not UTF-8":     {one, func(f *pluginv1.MetricFamily) { f.Samples[0].LabelValues[0] = "\xff" }, metric.BadLabel, 1, 1},
		"NaN":                 {one, func(f *pluginv1.MetricFamily) { f.Samples[0].Value = math.NaN() }, metric.BadValue, 1, 1},
		"infinite":            {one, func(f *pluginv1.MetricFamily) { f.Samples[0].Value = math.Inf(-1) }, metric.BadValue, 1, 1},
		"counter below 0":     {one, func(f *pluginv1.MetricFamily) { f.Samples[0].Value = -1 }, metric.BadValue, 1, 1},
		"counts of buckets":   {buckets, func(f *pluginv1.MetricFamily) { f.Samples[0].Counts = []uint64{1} }, metric.BadValue, 1, 0},
		"counts of no bucket": {one, func(f *pluginv1.MetricFamily) { f.Samples[1].Counts = []uint64{1} }, metric.BadValue, 1, 1},
		"sample twice":        {one, func(f *pluginv1.MetricFamily) { f.Samples[1].LabelValues[0] = "1" }, metric.Duplicate, 1, 1},
		"nothing at all":      {one, func(f *pluginv1.MetricFamily) { proto.Reset(f) }, metric.BadName, 1, -1},
	} {
		t.Run(name, func(t *testing.T) {
			f := test.from()
			test.change(f)
			beside := &pluginv1.MetricFamily{Name: "beside", Help: "Beside.", Type: gauge, Samples: []*pluginv1.MetricSample{{Value: 1}}}
			kept, problems := metric.Sift([]*pluginv1.MetricFamily{f, beside})
			if test.reason == "" {
				if len(problems) > 0 {
					t.Errorf("problems: %v", problems)
				}
			} else if len(problems) != 1 || problems[0].Reason != test.reason || problems[0].Dropped != test.dropped {
				t.Errorf("problems: %+v, want one, %s, with %d dropped", problems, test.reason, test.dropped)
			} else if len(problems[0].Text) > 300 || (strings.Contains(problems[0].Text, "\n") || !utf8.ValidString(problems[0].Text)) {
				t.Errorf("the text is not for a log: %s", problems[0].Text)
			}
			if diff := cmp.Diff(beside, kept[len(kept)-1], protocmp.Transform()); diff != "" {
				t.Errorf("the family beside it:\n%s", diff)
			}
			switch {
			case test.left < 0:
				if len(kept) != 1 {
					t.Errorf("it is kept: %v", kept[0])
				}
			case len(kept) != 2 || len(kept[0].Samples) != test.left:
				t.Errorf("left is %v, want %d samples", kept, test.left)
			}
		})
	}
}

// Bounds of number drop from the end.
func TestSiftBounds(t *testing.T) {
	var many []*pluginv1.MetricFamily
	for i := range 300 {
		many = append(many, &pluginv1.MetricFamily{Name: fmt.Sprint("x", i), Help: "X.", Type: gauge, Samples: []*pluginv1.MetricSample{{Value: 1}}})
	}
	kept, problems := metric.Sift(append(many, many[0]))
	if len(kept) != 200 || len(problems) != 1 || problems[0].Reason != metric.TooMany || problems[0].Dropped != 101 {
		t.Errorf("%d families are kept; %+v", len(kept), problems)
	}

	wide := buckets()
	wide.Labels, wide.Samples = []string{"a"}, nil
	for i := range 500 {
		wide.Samples = append(wide.Samples, &pluginv1.MetricSample{LabelValues: []string{fmt.Sprint(i)}, Counts: []uint64{0, 0, 1}})
	}
	kept, problems = metric.Sift([]*pluginv1.MetricFamily{wide, many[0]})
	if len(kept) != 2 || len(kept[0].Samples) != 400 || len(kept[1].Samples) != 0 {
		t.Errorf("of a wide family and another: %d %d", len(kept[0].Samples), len(kept[1].Samples))
	}
	if len(problems) != 2 || problems[0].Reason != metric.TooMany || problems[0].Dropped != 100 || problems[1].Dropped != 1 {
		t.Errorf("%+v", problems)
	}

	twice := []*pluginv1.MetricFamily{one(), one()}
	if kept, problems = metric.Sift(twice); len(kept) != 1 || len(problems) != 1 || problems[0].Reason != metric.Duplicate || problems[0].Dropped != 2 {
		t.Errorf("a family twice: %d kept; %+v", len(kept), problems)
	}
}

// Whatever comes, what is kept keeps the contract, nothing is lost without a
// word, and nothing is changed.
func TestSiftHolds(t *testing.T) {
	word := rapid.SampledFrom([]string{"", "x", "x_total", "x_seconds", "y_total", "x_sum", "X", "a", "b", "plugin", "\xff", "é"})
	value := rapid.SampledFrom([]float64{0, 1, -1, math.NaN(), math.Inf(1), 2})
	sample := rapid.Custom(func(t *rapid.T) *pluginv1.MetricSample {
		return &pluginv1.MetricSample{
			LabelValues: rapid.SliceOfN(word, 0, 2).Draw(t, "values"), Value: value.Draw(t, "value"),
			Counts: rapid.SliceOfN(rapid.Uint64Max(9), 0, 3).Draw(t, "counts"),
		}
	})
	family := rapid.Custom(func(t *rapid.T) *pluginv1.MetricFamily {
		return &pluginv1.MetricFamily{
			Name: word.Draw(t, "name"), Help: word.Draw(t, "help"), Unit: rapid.SampledFrom([]string{"", "seconds"}).Draw(t, "unit"),
			Type:   pluginv1.MetricType(rapid.IntRange(0, 4).Draw(t, "type")),
			Labels: rapid.SliceOfN(word, 0, 2).Draw(t, "labels"), Bounds: rapid.SliceOfN(value, 0, 2).Draw(t, "bounds"),
			Samples: rapid.SliceOfN(sample, 0, 4).Draw(t, "samples"),
		}
	})
	rapid.Check(t, func(t *rapid.T) {
		families := rapid.SliceOfN(family, 0, 4).Draw(t, "families")
		before := fmt.Sprint(families)
		kept, problems := metric.Sift(families)
		if fmt.Sprint(families) != before {
			t.Fatal("it changed the answer")
		}
		again, more := metric.Sift(kept)
		if diff := cmp.Diff(kept, again, protocmp.Transform()); diff != "" || len(more) > 0 {
			t.Fatalf("what is kept does not keep the contract: %v\n%s", more, diff)
		}
		in, out, dropped := 0, 0, 0
		for _, f := range families {
			in += len(f.GetSamples())
		}
		for _, f := range kept {
			out += len(f.GetSamples())
		}
		for _, p := range problems {
			dropped += p.Dropped
		}
		if in-out > dropped || len(kept) == len(families) && in-out != dropped {
			t.Fatalf("%d of %d samples are kept, and %d are told of as dropped", out, in, dropped)
		}
	})
}
