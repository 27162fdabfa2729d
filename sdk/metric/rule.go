package metric

import (
	"fmt"
	"math"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	pluginv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/plugin/v1"
)

// The bounds of one plugin's answer; see the contract, mezzo.plugin.v1.
const (
	MaxFamilies   = 200
	MaxSeries     = 2000
	MaxLabels     = 6
	MaxName       = 100 // bytes
	MaxHelp       = 500 // bytes
	MaxLabelValue = 128 // bytes
	MaxBounds     = 50  // buckets of a histogram, but for the last
	MaxAnswer     = 1 << 20
)

// The reasons why something is dropped, as they stand in a label.
const (
	BadName      = "name"      // of a family
	BadText      = "help"      // of a family
	BadType      = "type"      // of a family
	BadLabel     = "label"     // of a family, or a sample's value of one
	BadBounds    = "bounds"    // of a histogram
	BadValue     = "value"     // of a sample
	Duplicate    = "duplicate" // a family or a sample
	TooMany      = "too_many"  // families or series
	longestShown = 60          // bytes of a name in a Problem's text
)

// Problem is something in an answer that breaks the contract, and is dropped.
type Problem struct {
	// Reason is one of the constants.
	Reason string
	// Text says what is wrong and what would be right: a sentence that begins
	// with the family. It is at most some hundred bytes, whatever the answer has.
	Text string
	// Dropped is how many samples are left out for it; 1 at least.
	Dropped int
}

// Series is how many series a sample of the family is.
func Series(f *pluginv1.MetricFamily) int {
	if f.GetType() == pluginv1.MetricType_METRIC_TYPE_HISTOGRAM {
		return len(f.GetBounds()) + 3
	}
	return 1
}

// Sift returns what of an answer keeps the contract, in its order, and what does
// not. It changes nothing of the answer, which the result shares. Any answer may
// be given, however hostile.
func Sift(families []*pluginv1.MetricFamily) (kept []*pluginv1.MetricFamily, problems []Problem) {
	s := sieve{names: map[string]bool{}}
	for i, f := range families {
		if i == MaxFamilies {
			dropped := 0
			for _, rest := range families[i:] {
				dropped += max(1, len(rest.GetSamples()))
			}
			s.drop(TooMany, dropped, "there are %d families; at most %d are allowed", len(families), MaxFamilies)
			break
		}
		if reason, why := faulty(f); reason != "" {
			s.drop(reason, len(f.GetSamples()), "%s %s", shown(f.GetName()), why)
			continue
		}
		if s.names[f.GetName()] {
			s.drop(Duplicate, len(f.GetSamples()), "%s stands twice in the answer", shown(f.GetName()))
			continue
		}
		s.names[f.GetName()] = true
		samples := s.samples(f)
		kept = append(kept, &pluginv1.MetricFamily{
			Name: f.GetName(), Help: f.GetHelp(), Type: f.GetType(), Unit: f.GetUnit(), Labels: f.GetLabels(), Bounds: f.GetBounds(), Samples: samples,
		})
	}
	return kept, s.problems
}

type sieve struct {
	names    map[string]bool
	series   int
	problems []Problem
}

func (s *sieve) drop(reason string, samples int, format string, args ...any) {
	s.problems = append(s.problems, Problem{Reason: reason, Text: fmt.Sprintf(format, args...), Dropped: max(1, samples)})
}

// samples are those of a family that keep the contract. What is wrong with them
// is told once for each reason.
func (s *sieve) samples(f *pluginv1.MetricFamily) (kept []*pluginv1.MetricSample) {
	wrong := map[string]int{} // where in problems
	seen := map[string]bool{}
	each := Series(f)
	for _, x := range f.GetSamples() {
		reason, why := faultySample(f, x)
		key := key(x.GetLabelValues())
		switch {
		case reason != "":
		case seen[key]:
			reason, why = Duplicate, "has two samples with the same labels"
		case s.series+each > MaxSeries:
			reason, why = TooMany, fmt.Sprintf("is above the bound of %d series of all families", MaxSeries)
		}
		if reason == "" {
			seen[key] = true
			s.series += each
			kept = append(kept, x)
			continue
		}
		if at, told := wrong[reason]; told {
			s.problems[at].Dropped++
			continue
		}
		wrong[reason] = len(s.problems)
		s.drop(reason, 1, "%s %s", shown(f.GetName()), why)
	}
	return kept
}

// key tells label values apart: no valid one holds the byte.
func key(values []string) string { return strings.Join(values, "\xff") }

var (
	validName = regexp.MustCompile(`^[a-z][a-z0-9]*(_[a-z0-9]+)*$`)
	// The host makes names with these endings of a histogram's.
	reservedEndings = []string{"_count", "_sum", "_bucket", "_created"}
	// The host and Prometheus give these.
	reservedLabels = []string{"plugin", "job", "instance", "le", "quantile"}
)

func validWord(name string) bool { return len(name) <= MaxName && validName.MatchString(name) }

// faulty says what is wrong with a family but for its samples; "": nothing.
func faulty(f *pluginv1.MetricFamily) (reason, why string) {
	name := f.GetName()
	counter := f.GetType() == pluginv1.MetricType_METRIC_TYPE_COUNTER
	base, total := strings.CutSuffix(name, "_total")
	switch {
	case !validWord(name):
		return BadName, fmt.Sprintf("is no name: want lower-case letters, digits and single underscores between them, a letter first, at most %d bytes", MaxName)
	case slices.ContainsFunc(reservedEndings, func(ending string) bool { return strings.HasSuffix(name, ending) }):
		return BadName, "ends in a word that is kept for parts of histograms: _count, _sum, _bucket, _created"
	case f.GetType() < pluginv1.MetricType_METRIC_TYPE_COUNTER || f.GetType() > pluginv1.MetricType_METRIC_TYPE_HISTOGRAM:
		return BadType, fmt.Sprintf("is of the unknown type %d: want counter, gauge or histogram", f.GetType())
	case counter && !total:
		return BadName, "is a counter: its name must end in _total"
	case !counter && total:
		return BadName, "is no counter: its name must not end in _total"
	case f.GetUnit() != "" && (!validWord(f.GetUnit()) || base != f.GetUnit() && !strings.HasSuffix(base, "_"+f.GetUnit())):
		return BadName, fmt.Sprintf("does not end with its unit %s", shown(f.GetUnit()))
	case f.GetHelp() == "" || len(f.GetHelp()) > MaxHelp || !utf8.ValidString(f.GetHelp()):
		return BadText, fmt.Sprintf("has a help text of %d bytes: want 1 to %d, in UTF-8", len(f.GetHelp()), MaxHelp)
	}
	if why := faultyLabels(f.GetLabels()); why != "" {
		return BadLabel, why
	}
	return faultyBounds(f)
}

func faultyLabels(labels []string) string {
	if len(labels) > MaxLabels {
		return fmt.Sprintf("has %d labels: want at most %d", len(labels), MaxLabels)
	}
	for i, l := range labels {
		switch {
		case !validWord(l):
			return fmt.Sprintf("has the label %s, which is no name", shown(l))
		case slices.Contains(reservedLabels, l):
			return fmt.Sprintf("has the label %s, which is not for plugins", l)
		case slices.Contains(labels[:i], l):
			return fmt.Sprintf("has the label %s twice", l)
		}
	}
	return ""
}

func faultyBounds(f *pluginv1.MetricFamily) (reason, why string) {
	n := len(f.GetBounds())
	histogram := f.GetType() == pluginv1.MetricType_METRIC_TYPE_HISTOGRAM
	switch {
	case !histogram && n > 0:
		return BadBounds, "has bounds of buckets and is no histogram"
	case histogram && (n == 0 || n > MaxBounds):
		return BadBounds, fmt.Sprintf("has %d bounds of buckets: want 1 to %d", n, MaxBounds)
	}
	for i, b := range f.GetBounds() {
		if !finite(b) || i > 0 && !(b > f.GetBounds()[i-1]) {
			return BadBounds, "has bounds of buckets that are not finite and ascending"
		}
	}
	return "", ""
}

// faultySample says what is wrong with a sample by itself; "": nothing.
func faultySample(f *pluginv1.MetricFamily, x *pluginv1.MetricSample) (reason, why string) {
	if len(x.GetLabelValues()) != len(f.GetLabels()) {
		return BadLabel, fmt.Sprintf("has %d labels and a sample with %d values", len(f.GetLabels()), len(x.GetLabelValues()))
	}
	for i, v := range x.GetLabelValues() {
		if len(v) > MaxLabelValue || !utf8.ValidString(v) {
			return BadLabel, fmt.Sprintf("has a value of %d bytes of the label %s: want at most %d, in UTF-8", len(v), f.GetLabels()[i], MaxLabelValue)
		}
	}
	counts := 0
	if f.GetType() == pluginv1.MetricType_METRIC_TYPE_HISTOGRAM {
		counts = len(f.GetBounds()) + 1
	}
	switch {
	case !finite(x.GetValue()):
		return BadValue, fmt.Sprintf("has the value %v: want a finite one, or no sample", x.GetValue())
	case f.GetType() == pluginv1.MetricType_METRIC_TYPE_COUNTER && x.GetValue() < 0:
		return BadValue, fmt.Sprintf("is a counter with the value %v: want 0 or more", x.GetValue())
	case len(x.GetCounts()) != counts:
		return BadValue, fmt.Sprintf("has a sample with %d counts of buckets: want %d", len(x.GetCounts()), counts)
	}
	return "", ""
}

func finite(v float64) bool { return !math.IsNaN(v) && !math.IsInf(v, 0) }

// shown is a name in a text: quoted, and not longer than a line can hold.
func shown(name string) string {
	if len(name) > longestShown {
		name = name[:longestShown] + "…"
	}
	return fmt.Sprintf("%q", name)
}
