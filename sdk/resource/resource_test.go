package resource_test

import (
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
	"github.com/mezzo-os/mezzo/sdk/resource"
)

var parse = resource.MustParse

func TestScalarText(t *testing.T) {
	for s, want := range map[resource.Scalar]string{
		0: "0", 1: "0.001", 10: "0.01", 100: "0.1", 1000: "1", 1500: "1.5", 1234567: "1234.567", -500: "-0.5",
		math.MinInt64: "-9223372036854775.808",
	} {
		if got := s.String(); got != want {
			t.Errorf("%d is written %q, want %q", int64(s), got, want)
		}
	}
}

func TestScalarRounding(t *testing.T) {
	for v, want := range map[float64]resource.Scalar{
		0: 0, 0.0004: 0, 0.0005: 1, 0.1: 100, 0.1 + 0.2: 300, 1.0014999: 1001, 1.0015001: 1002, 2.675: 2675, 99999999999.999: resource.MaxScalar - 1,
	} {
		if got := resource.ScalarFromFloat(v); got != want {
			t.Errorf("%v becomes %d thousandths, want %d", v, got, want)
		}
		if got := resource.ScalarFromFloat(want.Float()); got != want {
			t.Errorf("%d thousandths do not survive a float: %d", want, got)
		}
	}
}

func TestArithmetic(t *testing.T) {
	for _, c := range []struct{ name, got, want string }{
		{"add", parse("cpus:1;mem:5").Add(parse("cpus:0.5;disk:3")).String(), "cpus:1.5;disk:3;mem:5"},
		{"add ports", parse("ports:[1-3]").Add(parse("ports:[4-5,9]")).String(), "ports:[1-5,9-9]"},
		{"roles are apart", parse("cpus:1").Add(parse("cpus(a):1")).String(), "cpus:1;cpus(a):1"},
		{"minus stops at zero", parse("cpus:1;mem:5").Minus(parse("cpus:3;mem:2;disk:1")).String(), "mem:3"},
		{"intersect", parse("cpus:1;mem:5;ports:[1-9]").Intersect(parse("cpus:3;ports:[5-20];disk:3")).String(), "cpus:1;ports:[5-9]"},
		{"whole ranges at the edge", parse("ports:[0-18446744073709551615]").Minus(parse("ports:[0,18446744073709551615]")).String(), "ports:[1-18446744073709551614]"},
		{"allocatable", parse("cpus:1;cpus(a):2;cpus(a/b):3;cpus(b):4").AllocatableTo("a/b").String(), "cpus:1;cpus(a):2;cpus(a/b):3"},
		{"reserved to", parse("cpus:1;cpus(a):2;cpus(a/b):3").ReservedTo("a").String(), "cpus(a):2"},
		{"unreserved", parse("cpus:1;cpus(a):2;cpus(a/b):3").ToUnreserved().String(), "cpus:6"},
		{"names", cmp.Diff([]string{"cpus", "mem"}, parse("cpus:1;cpus(a):2;mem:1").Names()), ""},
		{"sum of a name", parse("cpus:1;cpus(a):2.5;mem:1").Get("cpus").String(), "3.5"},
		{"ranges of a name", parse("ports:[1-2];ports(a):[3]").RangesOf("ports").String(), "[1-3]"},
		{"set of a name", parse("z:{a};z(a):{b}").SetOf("z").String(), "{a,b}"},
		{"quantities", parse("cpus:1;cpus(a):2.5;mem:1;ports:[1-2]").Quantities().String(), "cpus:3.5;mem:1"},
	} {
		if c.got != c.want {
			t.Errorf("%s: got %q, want %q", c.name, c.got, c.want)
		}
	}
}

func TestFind(t *testing.T) {
	for _, c := range []struct{ name, have, target, want string }{
		{"unreserved first for an unreserved target", "cpus:2;cpus(a):4", "cpus:3", "cpus:2;cpus(a):1"},
		{"own reservation first", "cpus:2;cpus(a):1;cpus(b):9", "cpus(a):2", "cpus:1;cpus(a):1"},
		{"then any other", "cpus:1;cpus(a):1;cpus(b):9", "cpus(a):4", "cpus:1;cpus(a):1;cpus(b):2"},
		{"others in order", "cpus(b):1;cpus(c):5", "cpus:3", "cpus(b):1;cpus(c):2"},
		{"ports from two", "ports:[1-5];ports(a):[6-9]", "ports:[4-7]", "ports:[4-5];ports(a):[6-7]"},
		{"not enough", "cpus:2;cpus(a):4", "cpus:6.5", ""},
		{"one of two is missing", "cpus:2", "cpus:1;mem:1", ""},
		{"revocable is something else", `cpus{"revocable":{}}:2`, "cpus:1", ""},
		{"two targets do not share", "cpus:3", "cpus:2;cpus(a):2", ""},
	} {
		found, ok := parse(c.have).Find(parse(c.target))
		if found.String() != c.want || ok != (c.want != "") {
			t.Errorf("%s: found %q, %v; want %q", c.name, found, ok, c.want)
		}
	}
}

const (
	mountDisk    = `disk{"disk":{"source":{"type":"MOUNT","mount":{"root":"/d"}}}}:64`
	volume       = `disk(a){"disk":{"persistence":{"id":"v"},"volume":{"mode":"RW","container_path":"p"}}}:64`
	sharedVolume = `disk(a){"disk":{"persistence":{"id":"v"},"volume":{"mode":"RW","container_path":"p"}},"shared":{}}:64`
)

func TestAtomicResourcesAreTakenWhole(t *testing.T) {
	half := func(r resource.Resources) resource.Resources {
		one := r[0]
		one.Scalar /= 2
		return resource.Of(one)
	}
	for _, text := range []string{mountDisk, volume, sharedVolume} {
		r := parse(text)
		if !r[0].Kind.Atomic() || r[0].Count != 1 {
			t.Errorf("%s: not atomic, or not one: %d", text, r[0].Count)
		}
		if _, ok := r.Subtract(half(r)); ok || r.Contains(half(r)) {
			t.Errorf("%s: half of it can be taken", text)
		}
		two := r.Add(r)
		if two[0].Count != 2 || two.Get("disk") != 128*resource.Unit || len(two.ToProto()) != 2 {
			t.Errorf("%s: two of it are %v", text, two)
		}
		if left, ok := two.Subtract(r); !ok || !left.Equal(r) {
			t.Errorf("%s: two without one are %v", text, left)
		}
		if r.Contains(two) {
			t.Errorf("%s: one contains two", text)
		}
	}
}

func TestKind(t *testing.T) {
	k := resource.ScalarKind("cpus")
	inner := resource.Reservation{Role: "a/b", Dynamic: true, Principal: "ops"}
	r := k.Push(resource.Reservation{Role: "a"}).Push(inner).WithAllocation("a/b/c")
	if r.Name() != "cpus" || r.Role() != "a/b" || !r.IsReserved() || !r.IsRefined() || r.Allocation() != "a/b/c" {
		t.Errorf("wrong kind %v", r)
	}
	stack := r.Reservations()
	if len(stack) != 2 || stack[0].Role != "a" || stack[0].Dynamic || stack[1] != inner {
		t.Errorf("wrong stack %v", stack)
	}
	if r.Pop().Pop().WithAllocation("") != k || k.Pop() != k || r.ToUnreserved().WithAllocation("") != k {
		t.Error("popping does not lead back")
	}
	if k.Role() != "*" || k.IsReserved() || k.Identity() != "" || k.Disk() != nil || k.Allocation() != "" {
		t.Errorf("cpus has what it should not: %v", k)
	}
	if got := parse(mountDisk)[0].Kind.Identity(); got != `disk {"source":{"type":"MOUNT","mount":{"root":"/d"}}}` {
		t.Errorf("identity %s", got)
	}
	if parse(volume)[0].Kind.PersistenceID() != "v" || k.PersistenceID() != "" {
		t.Error("wrong persistence ids")
	}
	var zero resource.Kind
	if !zero.IsZero() || zero.Name() != "" || zero.Allocation() != "" || zero.Reservations() != nil || zero.String() != "(no kind)" || k.IsZero() {
		t.Error("the zero kind is not nothing")
	}
	if zero.Compare(k) >= 0 || k.Compare(zero) <= 0 {
		t.Error("the zero kind does not come first")
	}
}

// TestOldFormsAreTheSameKind checks that the older ways of saying "reserved" give
// kinds equal to those of a stack, and that the order of labels does not matter.
func TestOldFormsAreTheSameKind(t *testing.T) {
	label := func(k, v string) *mezzov1.Label { return &mezzov1.Label{Key: proto.String(k), Value: proto.String(v)} }
	old := &mezzov1.Resource{Name: proto.String("cpus"), Type: mezzov1.Value_SCALAR.Enum(),
		Role: proto.String("ads"), Scalar: &mezzov1.Value_Scalar{Value: proto.Float64(1)},
		Reservation: &mezzov1.Resource_ReservationInfo{Principal: proto.String("ops"),
			Labels: &mezzov1.Labels{Labels: []*mezzov1.Label{label("b", "2"), label("a", "1")}}}}
	refined := &mezzov1.Resource{Name: old.Name, Type: old.Type, Scalar: old.Scalar,
		Reservations: []*mezzov1.Resource_ReservationInfo{{Role: proto.String("ads"), Principal: proto.String("ops"),
			Type:   mezzov1.Resource_ReservationInfo_DYNAMIC.Enum(),
			Labels: &mezzov1.Labels{Labels: []*mezzov1.Label{label("a", "1"), label("b", "2")}}}}}
	sum, err := resource.FromProto([]*mezzov1.Resource{old, refined})
	if err != nil {
		t.Fatal(err)
	}
	if len(sum) != 1 || sum[0].Scalar != 2*resource.Unit {
		t.Errorf("got %v, want one entry of two", sum)
	}
	if got := sum.ToProto()[0]; got.Role != nil || got.Reservation != nil || len(got.Reservations) != 1 {
		t.Errorf("the old fields are written: %v", got)
	}
}

func TestFromProtoBoundsSums(t *testing.T) {
	one := &mezzov1.Resource{Name: proto.String("mem"), Type: mezzov1.Value_SCALAR.Enum(),
		Scalar: &mezzov1.Value_Scalar{Value: proto.Float64(resource.MaxScalar.Float())}}
	if _, err := resource.FromProto(slices.Repeat([]*mezzov1.Resource{one}, 2)); err == nil {
		t.Error("two of the most that is allowed are accepted")
	}
	_, err := resource.FromProto(slices.Repeat([]*mezzov1.Resource{one}, 100_000))
	if err == nil {
		t.Error("an overflow is accepted")
	}
	volumes := parse(strings.Replace(volume, ":64", ":60000000000", 1)).ToProto()
	if _, err := resource.FromProto(volumes); err != nil {
		t.Errorf("a large volume: %v", err)
	}
	if _, err := resource.FromProto(slices.Repeat(volumes, 2)); err == nil {
		t.Error("copies that add up to more than the most are accepted")
	}
	bad := proto.Clone(one).(*mezzov1.Resource)
	bad.Name = proto.String("m\xff")
	if _, err := resource.FromProto([]*mezzov1.Resource{one, bad}); err == nil ||
		err.Error() != `resource 2 of 2: resource "m\xff": the text "m\xff" in mezzo.v1.Resource.name is not valid UTF-8` {
		t.Errorf("bad UTF-8: %v", err)
	}
}

func TestRoleTree(t *testing.T) {
	for _, c := range []struct {
		above, role string
		self, below bool
	}{
		{"a", "a", true, false}, {"a", "a/b", true, true}, {"a", "ab", false, false}, {"a/b", "a", false, false},
		{"*", "*", true, false}, {"*", "a", false, false}, {"a", "a/b/c", true, true},
	} {
		if got := resource.IsAncestorOrSelf(c.above, c.role); got != c.self {
			t.Errorf("IsAncestorOrSelf(%q, %q) = %v", c.above, c.role, got)
		}
		if got := resource.IsAncestor(c.above, c.role); got != c.below {
			t.Errorf("IsAncestor(%q, %q) = %v", c.above, c.role, got)
		}
	}
	if resource.ParentRole("a/b/c") != "a/b" || resource.ParentRole("a") != "" {
		t.Error("wrong parents")
	}
}

func TestQuantities(t *testing.T) {
	q := resource.NewQuantities(resource.Quantity{Name: "mem", Amount: 5}, resource.Quantity{Name: "cpus", Amount: 2},
		resource.Quantity{Name: "mem", Amount: 1}, resource.Quantity{Name: "disk"})
	if want := (resource.Quantities{{Name: "cpus", Amount: 2}, {Name: "mem", Amount: 6}}); !q.Equal(want) {
		t.Errorf("got %v", q)
	}
	less := resource.NewQuantities(resource.Quantity{Name: "cpus", Amount: 2}, resource.Quantity{Name: "gpus", Amount: 1})
	if got := q.Subtract(less); !got.Equal(resource.Quantities{{Name: "gpus", Amount: -1}, {Name: "mem", Amount: 6}}) {
		t.Errorf("subtract: %v", got)
	}
	if !q.Add(less).Subtract(less).Equal(q) || q.Contains(less) || !q.Add(less).Contains(less) {
		t.Error("wrong arithmetic")
	}
	if _, ok := q.Lookup("disk"); ok || q.Get("disk") != 0 {
		t.Error("a zero is kept")
	}
}

func TestOperationsDoNotChangeTheirOperands(t *testing.T) {
	a, b := parse("cpus:4;mem:10;ports:[1-10];zones:{a,b}"), parse("cpus:1;mem:1;ports:[3-4];zones:{b}")
	texts := []string{a.String(), b.String()}
	_ = a.Add(b)
	_, _ = a.Subtract(b)
	_ = a.Filter(func(k resource.Kind) bool { return k.Name() != "mem" })
	_ = a.Allocate("x").Push(resource.Reservation{Role: "x"})
	_, _ = a.Find(b)
	if a.String() != texts[0] || b.String() != texts[1] {
		t.Errorf("now %v and %v", a, b)
	}
}

func BenchmarkScalars(b *testing.B) {
	total, task := parse("cpus:64;mem:262144;disk:1000000;ports:[31000-32000]"), parse("cpus:0.1;mem:128;disk:1")
	b.Run("subtract", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, ok := total.Subtract(task); !ok {
				b.Fatal("not contained")
			}
		}
	})
	b.Run("add", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			total.Add(task)
		}
	})
	b.Run("allocate", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			task.Allocate("ads")
		}
	})
	list := task.Allocate("ads").ToProto()
	b.Run("from v1", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := resource.FromProto(list); err != nil {
				b.Fatal(err)
			}
		}
	})
}
