package engine

import (
	"fmt"
	"slices"

	allocatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/allocator/v1"
)

// kind is what the engine knows of an interned resource kind.
type kind struct {
	name     string
	typ      allocatorv1.KindType
	quantity uint32 // the index of the name among scalars; noQuantity otherwise
	copy     int64  // see KindDefined.copy
	flags    kindFlags
	// role is whom the innermost reservation is for; nil when unreserved.
	role *role
}

type kindFlags uint8

const (
	kindReserved kindFlags = 1 << iota
	kindRefined            // more than one reservation
	kindRevocable
	kindShared
	kindGPU
	kindWhole // cannot be split
)

// kindSpecial are the flags for which not every framework in every role may
// have a resource.
const kindSpecial = kindReserved | kindRefined | kindRevocable | kindShared | kindGPU

const noQuantity = ^uint32(0)

// vector is amounts of kinds, packed as allocatorv1.Quantities are, in normal
// form: kinds ascend, no amount is zero or empty, ranges are sorted, disjoint
// and not adjacent, set items ascend. A vector is immutable, so that agents,
// holdings, filters and decisions share its memory.
type vector struct {
	kinds   []uint32
	amounts []int64
}

func (v vector) empty() bool { return len(v.kinds) == 0 }

func (v vector) equal(o vector) bool {
	if len(v.kinds) != len(o.kinds) || len(v.amounts) != len(o.amounts) {
		return false
	}
	if len(v.kinds) == 0 {
		return true
	}
	return (&v.kinds[0] == &o.kinds[0] || slices.Equal(v.kinds, o.kinds)) &&
		(&v.amounts[0] == &o.amounts[0] || slices.Equal(v.amounts, o.amounts))
}

// kindTable holds the kinds by number; number 0 is not used.
type kindTable []kind

// width is how many amounts a kind takes, given those from its first on.
func (t kindTable) width(k uint32, amounts []int64) int {
	switch t[k].typ {
	case allocatorv1.KindType_KIND_TYPE_RANGES:
		return 1 + 2*int(amounts[0])
	case allocatorv1.KindType_KIND_TYPE_SET:
		return 1 + int(amounts[0])
	default:
		return 1
	}
}

// parse checks quantities that came over the wire, and brings them into
// normal form. The vector shares their memory where it can.
func (t kindTable) parse(q *allocatorv1.Quantities) (vector, error) {
	v := vector{kinds: q.GetKinds(), amounts: q.GetAmounts()}
	normal := true
	at := 0
	for i, k := range v.kinds {
		if int(k) >= len(t) || t[k].typ == allocatorv1.KindType_KIND_TYPE_UNSPECIFIED {
			return vector{}, fmt.Errorf("quantities: kind %d was not defined", k)
		}
		if i > 0 && v.kinds[i-1] >= k {
			normal = false
		}
		n, ok, err := t.check(k, v.amounts[at:])
		if err != nil {
			return vector{}, fmt.Errorf("quantities: %s: %w", t[k].name, err)
		}
		normal = normal && ok
		at += n
	}
	if at != len(v.amounts) {
		return vector{}, fmt.Errorf("quantities: %d amounts, %d are described by the kinds", len(v.amounts), at)
	}
	if normal {
		return v, nil
	}
	return t.normalise(v), nil
}

// check reports how many amounts the kind takes, and whether they are in
// normal form.
func (t kindTable) check(k uint32, amounts []int64) (width int, normal bool, err error) {
	if len(amounts) == 0 {
		return 0, false, fmt.Errorf("an amount is missing")
	}
	n := amounts[0]
	if n < 0 {
		return 0, false, fmt.Errorf("the amount or count %d is negative", n)
	}
	normal = n > 0
	switch t[k].typ {
	case allocatorv1.KindType_KIND_TYPE_RANGES:
		if n > int64(len(amounts)-1)/2 {
			return 0, false, fmt.Errorf("%d ranges do not fit in %d amounts", n, len(amounts)-1)
		}
		var end uint64
		for i := range int(n) {
			gap, size := uint64(amounts[1+2*i]), uint64(amounts[2+2*i])
			begin := end + gap
			// A first range begins anywhere; a later one leaves a gap.
			if i > 0 && (gap < 2 || begin < end) {
				normal = false
			}
			if begin+size < begin {
				return 0, false, fmt.Errorf("range %d ends before it begins", i)
			}
			end = begin + size
		}
		return 1 + 2*int(n), normal, nil
	case allocatorv1.KindType_KIND_TYPE_SET:
		if n > int64(len(amounts)-1) {
			return 0, false, fmt.Errorf("%d set items do not fit in %d amounts", n, len(amounts)-1)
		}
		items := amounts[1 : 1+n]
		for i := 1; i < len(items); i++ {
			normal = normal && items[i-1] < items[i]
		}
		return 1 + int(n), normal, nil
	default:
		return 1, normal, nil
	}
}

// normalise brings checked quantities into normal form, by adding up their
// parts one by one.
func (t kindTable) normalise(v vector) vector {
	var sum vector
	at := 0
	for _, k := range v.kinds {
		n := t.width(k, v.amounts[at:])
		part := v.amounts[at : at+n]
		at += n
		switch t[k].typ {
		case allocatorv1.KindType_KIND_TYPE_RANGES:
			var end uint64
			for i := range int(part[0]) {
				begin := end + uint64(part[1+2*i])
				end = begin + uint64(part[2+2*i])
				sum = t.add(sum, vector{[]uint32{k}, []int64{1, int64(begin), part[2+2*i]}})
			}
		case allocatorv1.KindType_KIND_TYPE_SET:
			for _, item := range part[1:] {
				sum = t.add(sum, vector{[]uint32{k}, []int64{1, item}})
			}
		default:
			if part[0] > 0 {
				sum = t.add(sum, vector{[]uint32{k}, part})
			}
		}
	}
	return sum
}

// add returns a + b: sums of scalars, unions of ranges and sets.
func (t kindTable) add(a, b vector) vector {
	if a.empty() {
		return b
	}
	if b.empty() {
		return a
	}
	out := vector{
		kinds:   make([]uint32, 0, len(a.kinds)+extra(a, b)),
		amounts: make([]int64, 0, max(len(a.amounts), len(b.amounts))+extra(a, b)),
	}
	i, j, x, y := 0, 0, 0, 0
	for i < len(a.kinds) || j < len(b.kinds) {
		switch {
		case j == len(b.kinds) || i < len(a.kinds) && a.kinds[i] < b.kinds[j]:
			n := t.width(a.kinds[i], a.amounts[x:])
			out.kinds = append(out.kinds, a.kinds[i])
			out.amounts = append(out.amounts, a.amounts[x:x+n]...)
			i, x = i+1, x+n
		case i == len(a.kinds) || b.kinds[j] < a.kinds[i]:
			n := t.width(b.kinds[j], b.amounts[y:])
			out.kinds = append(out.kinds, b.kinds[j])
			out.amounts = append(out.amounts, b.amounts[y:y+n]...)
			j, y = j+1, y+n
		default:
			k := a.kinds[i]
			n, m := t.width(k, a.amounts[x:]), t.width(k, b.amounts[y:])
			out.kinds = append(out.kinds, k)
			p, q := a.amounts[x:x+n], b.amounts[y:y+m]
			switch t[k].typ {
			case allocatorv1.KindType_KIND_TYPE_RANGES:
				out.amounts = unionRanges(out.amounts, p, q)
			case allocatorv1.KindType_KIND_TYPE_SET:
				out.amounts = unionSets(out.amounts, p, q)
			default:
				out.amounts = append(out.amounts, p[0]+q[0])
			}
			i, x, j, y = i+1, x+n, j+1, y+m
		}
	}
	return out
}

// extra is how many kinds more than a's a sum may need, cheaply estimated.
func extra(a, b vector) int {
	if len(a.kinds) == len(b.kinds) && a.kinds[0] == b.kinds[0] {
		return 0
	}
	return len(b.kinds)
}

// sub returns a - b, never less than nothing, and whether b was in a.
func (t kindTable) sub(a, b vector) (vector, bool) {
	if b.empty() {
		return a, true
	}
	if a.empty() {
		return a, false
	}
	if a.equal(b) {
		return vector{}, true
	}
	exact := true
	out := vector{kinds: make([]uint32, 0, len(a.kinds)), amounts: make([]int64, 0, len(a.amounts)+2)}
	i, j, x, y := 0, 0, 0, 0
	for i < len(a.kinds) {
		for j < len(b.kinds) && b.kinds[j] < a.kinds[i] {
			exact = false
			y += t.width(b.kinds[j], b.amounts[y:])
			j++
		}
		k := a.kinds[i]
		n := t.width(k, a.amounts[x:])
		p := a.amounts[x : x+n]
		i, x = i+1, x+n
		if j == len(b.kinds) || b.kinds[j] != k {
			out.kinds = append(out.kinds, k)
			out.amounts = append(out.amounts, p...)
			continue
		}
		m := t.width(k, b.amounts[y:])
		q := b.amounts[y : y+m]
		j, y = j+1, y+m
		before := len(out.amounts)
		switch t[k].typ {
		case allocatorv1.KindType_KIND_TYPE_RANGES:
			exact = containsRanges(p, q) && exact
			out.amounts = minusRanges(out.amounts, p, q)
		case allocatorv1.KindType_KIND_TYPE_SET:
			exact = containsSet(p, q) && exact
			out.amounts = minusSet(out.amounts, p, q)
		default:
			exact = exact && p[0] >= q[0]
			if p[0] > q[0] {
				out.amounts = append(out.amounts, p[0]-q[0])
			}
		}
		if len(out.amounts) > before {
			out.kinds = append(out.kinds, k)
		}
	}
	return out, exact && j == len(b.kinds)
}

// contains reports whether all of b is in a.
func (t kindTable) contains(a, b vector) bool {
	if a.equal(b) {
		return true
	}
	i, x, y := 0, 0, 0
	for _, k := range b.kinds {
		for i < len(a.kinds) && a.kinds[i] < k {
			x += t.width(a.kinds[i], a.amounts[x:])
			i++
		}
		if i == len(a.kinds) || a.kinds[i] != k {
			return false
		}
		n, m := t.width(k, a.amounts[x:]), t.width(k, b.amounts[y:])
		p, q := a.amounts[x:x+n], b.amounts[y:y+m]
		switch t[k].typ {
		case allocatorv1.KindType_KIND_TYPE_RANGES:
			if !containsRanges(p, q) {
				return false
			}
		case allocatorv1.KindType_KIND_TYPE_SET:
			if !containsSet(p, q) {
				return false
			}
		default:
			if p[0] < q[0] {
				return false
			}
		}
		y += m
	}
	return true
}

// each calls f with every kind of v and its amounts.
func (t kindTable) each(v vector, f func(k uint32, amounts []int64)) {
	at := 0
	for _, k := range v.kinds {
		n := t.width(k, v.amounts[at:])
		f(k, v.amounts[at:at+n])
		at += n
	}
}

// filter returns the part of v whose amounts keep returns, which may be fewer
// of a scalar; nil amounts drop the kind.
func (t kindTable) filter(v vector, keep func(k uint32, amounts []int64) []int64) vector {
	var out vector
	t.each(v, func(k uint32, amounts []int64) {
		if kept := keep(k, amounts); kept != nil {
			out.kinds = append(out.kinds, k)
			out.amounts = append(out.amounts, kept...)
		}
	})
	return out
}

// reader walks packed ranges: a count, then for each range its begin minus the
// end before, and its end minus its begin.
type reader struct {
	packed     []int64
	begin, end uint64
	ok         bool
}

func readRanges(p []int64) reader {
	r := reader{packed: p[1:]}
	r.next()
	return r
}

func (r *reader) next() {
	if r.ok = len(r.packed) > 0; r.ok {
		r.begin = r.end + uint64(r.packed[0])
		r.end = r.begin + uint64(r.packed[1])
		r.packed = r.packed[2:]
	}
}

// writer packs ranges that come in order; adjacent and overlapping ones are
// joined.
type writer struct {
	out        []int64
	head       int
	begin, end uint64
	last       uint64 // the end of the range that was packed last
	open       bool
}

func writeRanges(out []int64) writer { return writer{out: append(out, 0), head: len(out)} }

func (w *writer) add(begin, end uint64) {
	if w.open && begin <= w.end+1 && w.end+1 != 0 {
		w.end = max(w.end, end)
		return
	}
	w.flush()
	w.begin, w.end, w.open = begin, end, true
}

func (w *writer) flush() {
	if w.open {
		w.out = append(w.out, int64(w.begin-w.last), int64(w.end-w.begin))
		w.out[w.head]++
		w.last, w.open = w.end, false
	}
}

// done returns the packed ranges; nothing at all when there are none.
func (w *writer) done() []int64 {
	w.flush()
	if w.out[w.head] == 0 {
		return w.out[:w.head]
	}
	return w.out
}

func unionRanges(out, a, b []int64) []int64 {
	w, p, q := writeRanges(out), readRanges(a), readRanges(b)
	for p.ok || q.ok {
		if !q.ok || p.ok && p.begin <= q.begin {
			w.add(p.begin, p.end)
			p.next()
		} else {
			w.add(q.begin, q.end)
			q.next()
		}
	}
	return w.done()
}

func minusRanges(out, a, b []int64) []int64 {
	w, q := writeRanges(out), readRanges(b)
	for p := readRanges(a); p.ok; p.next() {
		begin := p.begin
		for q.ok && q.end < begin {
			q.next()
		}
		whole := true
		for q.ok && q.begin <= p.end {
			if q.begin > begin {
				w.add(begin, q.begin-1)
			}
			if q.end >= p.end {
				whole = false
				break
			}
			begin = q.end + 1
			q.next()
		}
		if whole {
			w.add(begin, p.end)
		}
	}
	return w.done()
}

func containsRanges(a, b []int64) bool {
	p := readRanges(a)
	for q := readRanges(b); q.ok; q.next() {
		for p.ok && p.end < q.begin {
			p.next()
		}
		if !p.ok || p.begin > q.begin || p.end < q.end {
			return false
		}
	}
	return true
}

func unionSets(out, a, b []int64) []int64 {
	head := len(out)
	out = append(out, 0)
	a, b = a[1:], b[1:]
	for len(a) > 0 || len(b) > 0 {
		switch {
		case len(b) == 0 || len(a) > 0 && a[0] < b[0]:
			out, a = append(out, a[0]), a[1:]
		case len(a) == 0 || b[0] < a[0]:
			out, b = append(out, b[0]), b[1:]
		default:
			out, a, b = append(out, a[0]), a[1:], b[1:]
		}
		out[head]++
	}
	return out
}

func minusSet(out, a, b []int64) []int64 {
	head := len(out)
	out = append(out, 0)
	b = b[1:]
	for _, item := range a[1:] {
		for len(b) > 0 && b[0] < item {
			b = b[1:]
		}
		if len(b) == 0 || b[0] != item {
			out = append(out, item)
			out[head]++
		}
	}
	if out[head] == 0 {
		return out[:head]
	}
	return out
}

func containsSet(a, b []int64) bool {
	a = a[1:]
	for _, item := range b[1:] {
		for len(a) > 0 && a[0] < item {
			a = a[1:]
		}
		if len(a) == 0 || a[0] != item {
			return false
		}
	}
	return true
}
