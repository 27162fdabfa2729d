package engine

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	allocatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/allocator/v1"
)

// testKinds are two scalars, ranges and a set.
var testKinds = kindTable{
	{},
	{name: "cpus", typ: allocatorv1.KindType_KIND_TYPE_SCALAR},
	{name: "mem", typ: allocatorv1.KindType_KIND_TYPE_SCALAR},
	{name: "ports", typ: allocatorv1.KindType_KIND_TYPE_RANGES},
	{name: "zones", typ: allocatorv1.KindType_KIND_TYPE_SET},
}

// plain is a vector as anybody would write it: amounts, and which numbers and
// items are in it.
type plain struct {
	cpus, mem    int64
	ports, zones [12]bool
}

func (p plain) vector() vector {
	var v vector
	scalar := func(k uint32, n int64) {
		if n > 0 {
			v.kinds, v.amounts = append(v.kinds, k), append(v.amounts, n)
		}
	}
	scalar(1, p.cpus)
	scalar(2, p.mem)
	var packed []int64
	var end int64
	for i := 0; i < len(p.ports); i++ {
		if !p.ports[i] {
			continue
		}
		begin := int64(i)
		for i+1 < len(p.ports) && p.ports[i+1] {
			i++
		}
		packed = append(packed, begin-end, int64(i)-begin)
		end = int64(i)
	}
	if len(packed) > 0 {
		v.kinds, v.amounts = append(v.kinds, 3), append(append(v.amounts, int64(len(packed)/2)), packed...)
	}
	var items []int64
	for i, in := range p.zones {
		if in {
			items = append(items, int64(i+1))
		}
	}
	if len(items) > 0 {
		v.kinds, v.amounts = append(v.kinds, 4), append(append(v.amounts, int64(len(items))), items...)
	}
	return v
}

func drawPlain(t *rapid.T, name string) plain {
	p := plain{cpus: rapid.Int64Range(0, 5).Draw(t, name+" cpus"), mem: rapid.Int64Range(0, 5).Draw(t, name+" mem")}
	for i := range p.ports {
		p.ports[i], p.zones[i] = rapid.Bool().Draw(t, name+" port"), rapid.Bool().Draw(t, name+" zone")
	}
	return p
}

func equalVectors(a, b vector) bool {
	return slices.Equal(a.kinds, b.kinds) && slices.Equal(a.amounts, b.amounts)
}

func TestVectorArithmetic(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := drawPlain(t, "a"), drawPlain(t, "b")
		sum := plain{cpus: a.cpus + b.cpus, mem: a.mem + b.mem}
		less := plain{cpus: max(0, a.cpus-b.cpus), mem: max(0, a.mem-b.mem)}
		within := b.cpus <= a.cpus && b.mem <= a.mem
		for i := range a.ports {
			sum.ports[i], sum.zones[i] = a.ports[i] || b.ports[i], a.zones[i] || b.zones[i]
			less.ports[i], less.zones[i] = a.ports[i] && !b.ports[i], a.zones[i] && !b.zones[i]
			within = within && (a.ports[i] || !b.ports[i]) && (a.zones[i] || !b.zones[i])
		}
		if got := testKinds.add(a.vector(), b.vector()); !equalVectors(got, sum.vector()) {
			t.Errorf("%v + %v = %v, want %v", a.vector(), b.vector(), got, sum.vector())
		}
		got, exact := testKinds.sub(a.vector(), b.vector())
		if !equalVectors(got, less.vector()) || exact != within {
			t.Errorf("%v - %v = %v (exact %v), want %v (%v)", a.vector(), b.vector(), got, exact, less.vector(), within)
		}
		if got := testKinds.contains(a.vector(), b.vector()); got != within {
			t.Errorf("%v contains %v: %v, want %v", a.vector(), b.vector(), got, within)
		}
	})
}

func TestParse(t *testing.T) {
	for _, test := range []struct {
		name    string
		kinds   []uint32
		amounts []int64
		want    vector
		wrong   bool
	}{
		{"nothing", nil, nil, vector{}, false},
		{"normal", []uint32{1, 3}, []int64{5, 2, 10, 5, 2, 0}, vector{[]uint32{1, 3}, []int64{5, 2, 10, 5, 2, 0}}, false},
		{"kinds out of order", []uint32{2, 1}, []int64{7, 5}, vector{[]uint32{1, 2}, []int64{5, 7}}, false},
		{"a kind twice", []uint32{1, 1}, []int64{7, 5}, vector{[]uint32{1}, []int64{12}}, false},
		{"zero", []uint32{1, 2}, []int64{0, 5}, vector{[]uint32{2}, []int64{5}}, false},
		{"ranges that touch", []uint32{3}, []int64{2, 10, 5, 1, 4}, vector{[]uint32{3}, []int64{1, 10, 9 + 1}}, false},
		{"no ranges", []uint32{3}, []int64{0}, vector{}, false},
		{"items out of order", []uint32{4}, []int64{3, 2, 1, 2}, vector{[]uint32{4}, []int64{2, 1, 2}}, false},
		{"unknown kind", []uint32{9}, []int64{1}, vector{}, true},
		{"kind 0", []uint32{0}, []int64{1}, vector{}, true},
		{"negative", []uint32{1}, []int64{-1}, vector{}, true},
		{"amount missing", []uint32{1, 2}, []int64{1}, vector{}, true},
		{"amounts too many", []uint32{1}, []int64{1, 2}, vector{}, true},
		{"fewer ranges than told", []uint32{3}, []int64{2, 10, 5}, vector{}, true},
		{"very many ranges told", []uint32{3}, []int64{1 << 62, 10, 5}, vector{}, true},
		{"a range that wraps", []uint32{3}, []int64{1, -1, 5}, vector{}, true},
		{"fewer items than told", []uint32{4}, []int64{2, 1}, vector{}, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := testKinds.parse(&allocatorv1.Quantities{Kinds: test.kinds, Amounts: test.amounts})
			if (err != nil) != test.wrong {
				t.Fatalf("error %v, want one: %v", err, test.wrong)
			}
			if !equalVectors(got, test.want) {
				t.Errorf("got %v, want %v", got, test.want)
			}
		})
	}
}

func TestTimersComeInOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var heap timers
		var want []int
		for _, at := range rapid.SliceOf(rapid.IntRange(0, 50)).Draw(t, "times") {
			heap.add(timer{at: time.Duration(at)})
			want = append(want, at)
		}
		slices.Sort(want)
		var got []int
		for len(heap) > 0 {
			got = append(got, int(heap.take().at))
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}
