package resource

import (
	"cmp"
	"math"
	"slices"
	"strconv"
	"strings"
)

// Scalar is an amount in thousandths: fixed point, so that sums are exact.
type Scalar int64

// Unit is the Scalar of one: one CPU, one megabyte.
const Unit Scalar = 1000

// MaxScalar is the most that one resource may hold, a hundred thousand million.
// It leaves room to add up a cluster without overflow.
const MaxScalar = 100_000_000_000 * Unit

// ScalarFromFloat rounds to the nearest thousandth, halves away from zero. The
// value must be finite and at most MaxScalar; Validate checks that.
func ScalarFromFloat(v float64) Scalar { return Scalar(math.Round(v * 1000)) }

// Float returns the amount in units.
func (s Scalar) Float() float64 { return float64(s) / 1000 }

// String returns the amount in units with as many decimals as it needs: "4",
// "0.5", "1.125".
func (s Scalar) String() string {
	sign, u := "", uint64(s)
	if s < 0 {
		sign, u = "-", -u
	}
	text := strconv.FormatUint(u/1000, 10)
	if m := u % 1000; m != 0 {
		frac := strconv.FormatUint(1000+m, 10)[1:]
		text += "." + strings.TrimRight(frac, "0")
	}
	return sign + text
}

// Range is a closed interval of numbers. Begin is at most End.
type Range struct{ Begin, End uint64 }

// Ranges are intervals in normal form: sorted, disjoint, and with a gap between
// neighbours. A nil Ranges is empty. Treat it as immutable.
type Ranges []Range

// NewRanges returns the normal form of any intervals; those with Begin after
// End are dropped.
func NewRanges(list ...Range) Ranges {
	in := make(Ranges, 0, len(list))
	for _, r := range list {
		if r.Begin <= r.End {
			in = append(in, r)
		}
	}
	slices.SortFunc(in, func(a, b Range) int {
		return cmp.Or(cmp.Compare(a.Begin, b.Begin), cmp.Compare(a.End, b.End))
	})
	out := in[:0]
	for _, r := range in {
		if n := len(out); n > 0 && (out[n-1].End == math.MaxUint64 || r.Begin <= out[n-1].End+1) {
			out[n-1].End = max(out[n-1].End, r.End)
			continue
		}
		out = append(out, r)
	}
	if len(out) == 0 {
		return nil
	}
	return out
}

// Union returns the numbers that are in a or in b.
func (a Ranges) Union(b Ranges) Ranges {
	switch {
	case len(a) == 0:
		return b
	case len(b) == 0:
		return a
	}
	return NewRanges(slices.Concat(a, b)...)
}

// Minus returns the numbers of a that are not in b.
func (a Ranges) Minus(b Ranges) Ranges {
	if len(a) == 0 || len(b) == 0 {
		return a
	}
	var out Ranges
	for _, r := range a {
		begin, whole := r.Begin, false
		first, _ := slices.BinarySearchFunc(b, r.Begin, func(x Range, v uint64) int { return cmp.Compare(x.End, v) })
		for _, cut := range b[first:] {
			if cut.Begin > r.End {
				break
			}
			if cut.Begin > begin {
				out = append(out, Range{begin, cut.Begin - 1})
			}
			if cut.End >= r.End {
				whole = true
				break
			}
			begin = cut.End + 1
		}
		if !whole {
			out = append(out, Range{begin, r.End})
		}
	}
	return out
}

// Intersect returns the numbers that are in both.
func (a Ranges) Intersect(b Ranges) Ranges {
	var out Ranges
	for i, j := 0, 0; i < len(a) && j < len(b); {
		begin, end := max(a[i].Begin, b[j].Begin), min(a[i].End, b[j].End)
		if begin <= end {
			out = append(out, Range{begin, end})
		}
		if a[i].End < b[j].End {
			i++
		} else {
			j++
		}
	}
	return out
}

// Contains reports whether every number of b is in a.
func (a Ranges) Contains(b Ranges) bool {
	i := 0
	for _, r := range b {
		for i < len(a) && a[i].End < r.Begin {
			i++
		}
		if i == len(a) || a[i].Begin > r.Begin || a[i].End < r.End {
			return false
		}
	}
	return true
}

// Count returns how many numbers there are; the most a uint64 can hold when
// there are more.
func (a Ranges) Count() uint64 {
	var n uint64
	for _, r := range a {
		size := r.End - r.Begin
		if size == math.MaxUint64 || n > math.MaxUint64-size-1 {
			return math.MaxUint64
		}
		n += size + 1
	}
	return n
}

// String returns "[31000-32000,40000-40000]".
func (a Ranges) String() string {
	b := []byte{'['}
	for i, r := range a {
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendUint(b, r.Begin, 10)
		b = append(b, '-')
		b = strconv.AppendUint(b, r.End, 10)
	}
	return string(append(b, ']'))
}

// Set is a set of texts in normal form: sorted, each once. A nil Set is empty.
// Treat it as immutable.
type Set []string

// NewSet returns the normal form of any texts.
func NewSet(items ...string) Set {
	if len(items) == 0 {
		return nil
	}
	s := slices.Clone(items)
	slices.Sort(s)
	return slices.Compact(s)
}

// Union returns the items that are in a or in b.
func (a Set) Union(b Set) Set {
	switch {
	case len(a) == 0:
		return b
	case len(b) == 0:
		return a
	}
	return NewSet(slices.Concat(a, b)...)
}

// Minus returns the items of a that are not in b.
func (a Set) Minus(b Set) Set {
	if len(a) == 0 || len(b) == 0 {
		return a
	}
	var out Set
	for _, item := range a {
		if !b.has(item) {
			out = append(out, item)
		}
	}
	return out
}

// Intersect returns the items that are in both.
func (a Set) Intersect(b Set) Set {
	var out Set
	for _, item := range a {
		if b.has(item) {
			out = append(out, item)
		}
	}
	return out
}

// Contains reports whether every item of b is in a.
func (a Set) Contains(b Set) bool {
	for _, item := range b {
		if !a.has(item) {
			return false
		}
	}
	return true
}

func (a Set) has(item string) bool {
	_, found := slices.BinarySearch(a, item)
	return found
}

// String returns "{a,b}".
func (a Set) String() string { return "{" + strings.Join(a, ",") + "}" }
