package link

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/mezzo-os/mezzo/sdk/resource"

	linkv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/link/v1"
)

func kindsOf(t interface{ Fatal(...any) }, list []*linkv1.Kind) []resource.Kind {
	var out []resource.Kind
	for _, k := range list {
		kind, err := resource.KindFromProto(k.GetResource())
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, kind)
	}
	return out
}

func TestPackUnpack(t *testing.T) {
	p := NewPacker()
	first := resource.MustParse("cpus:4;mem:4096;ports:[31000-32000,40000-40000];zones:{a,b};cpus(ads):1.125")
	second := resource.MustParse("cpus:1;ports:[0-0,18446744073709551615-18446744073709551615];racks:{b}")
	a := p.Pack(first)
	kinds := kindsOf(t, p.Kinds())
	b := p.Pack(second)
	kinds = append(kinds, kindsOf(t, p.Kinds())...)
	for _, c := range []struct {
		want resource.Resources
		q    *linkv1.Quantities
	}{{first, a}, {second, b}} {
		got, err := Unpack(kinds, c.q)
		if err != nil {
			t.Fatal(err)
		}
		if !got.Equal(c.want) {
			t.Errorf("got %s, want %s", got, c.want)
		}
	}
}

func TestUnpackRefuses(t *testing.T) {
	kinds := []resource.Kind{resource.ScalarKind("cpus"), resource.RangesKind("ports"), resource.SetKind("zones")}
	for name, q := range map[string]*linkv1.Quantities{
		"unknown kind":    {Kinds: []uint32{4}, Amounts: []int64{1}},
		"kind zero":       {Kinds: []uint32{0}, Amounts: []int64{1}},
		"no amount":       {Kinds: []uint32{1}},
		"negative":        {Kinds: []uint32{1}, Amounts: []int64{-1}},
		"amount left":     {Kinds: []uint32{1}, Amounts: []int64{1, 2}},
		"too many ranges": {Kinds: []uint32{2}, Amounts: []int64{9, 1, 1}},
		"too many items":  {Kinds: []uint32{3}, Amounts: []int64{2, 1}, Symbols: []string{"a"}},
		"unknown item":    {Kinds: []uint32{3}, Amounts: []int64{1, 2}, Symbols: []string{"a"}},
	} {
		if got, err := Unpack(kinds, q); err == nil {
			t.Errorf("%s: unpacked to %s", name, got)
		}
	}
}

// Whatever a broken agent packs, Unpack answers and does not panic.
func TestUnpackNeverPanics(t *testing.T) {
	kinds := []resource.Kind{resource.ScalarKind("cpus"), resource.RangesKind("ports"), resource.SetKind("zones")}
	rapid.Check(t, func(t *rapid.T) {
		q := &linkv1.Quantities{
			Kinds:   rapid.SliceOfN(rapid.Uint32Range(0, 4), 0, 5).Draw(t, "kinds"),
			Amounts: rapid.SliceOfN(rapid.Int64Range(-2, 6), 0, 12).Draw(t, "amounts"),
			Symbols: []string{"a", "b"},
		}
		got, err := Unpack(kinds, q)
		if err != nil {
			return
		}
		p := NewPacker()
		again, err := Unpack(kindsOf(t, func() []*linkv1.Kind { p.Pack(got); return p.Kinds() }()), NewPacker().Pack(got))
		if err != nil || !again.Equal(got) {
			t.Fatalf("%s became %s, %v", got, again, err)
		}
	})
}
