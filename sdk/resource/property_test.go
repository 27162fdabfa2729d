package resource_test

import (
	"fmt"
	"testing"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
	"github.com/mezzo-os/mezzo/sdk/resource"
)

// kinds is a pool with something of everything.
func kinds() []resource.Kind {
	static := resource.Reservation{Role: "a"}
	dynamic := resource.Reservation{Role: "a/b", Dynamic: true, Principal: "ops",
		Labels: &mezzov1.Labels{Labels: []*mezzov1.Label{{Key: proto.String("k"), Value: proto.String("v")}}}}
	cpus, disk := resource.ScalarKind("cpus"), resource.ScalarKind("disk").Push(static)
	mount := &mezzov1.Resource_DiskInfo{Source: &mezzov1.Resource_DiskInfo_Source{
		Type:  mezzov1.Resource_DiskInfo_Source_MOUNT.Enum(),
		Mount: &mezzov1.Resource_DiskInfo_Source_Mount{Root: proto.String("/mnt")}}}
	volume := &mezzov1.Resource_DiskInfo{
		Persistence: &mezzov1.Resource_DiskInfo_Persistence{Id: proto.String("v")},
		Volume:      &mezzov1.Volume{Mode: mezzov1.Volume_RW.Enum(), ContainerPath: proto.String("data")}}
	pool := []resource.Kind{
		cpus, cpus.Push(static), cpus.Push(static).Push(dynamic), cpus.WithRevocable(true),
		resource.ScalarKind("mem"), resource.RangesKind("ports"), resource.RangesKind("ports").Push(static),
		resource.SetKind("zones"), resource.SetKind("zones").Push(dynamic), resource.ScalarKind("odd:name"),
		disk, disk.WithDisk(mount), disk.WithDisk(volume), disk.WithDisk(volume).WithShared(true),
	}
	return append(pool, cpus.WithAllocation("a/b"), resource.RangesKind("ports").WithAllocation("a"))
}

// genResources draws resources; numbers and items are those that own accepts, so
// that collections that must not overlap can be drawn.
func genResources(own func(int) bool) *rapid.Generator[resource.Resources] {
	pool := kinds()
	return rapid.Custom(func(t *rapid.T) resource.Resources {
		var list []resource.Resource
		for range rapid.IntRange(0, 8).Draw(t, "entries") {
			k := rapid.SampledFrom(pool).Draw(t, "kind")
			r := resource.Resource{Kind: k}
			switch k.Type() {
			case resource.TypeScalar:
				r.Scalar = resource.Scalar(rapid.Int64Range(0, 5000).Draw(t, "amount"))
				if k.Atomic() {
					r.Scalar = resource.Scalar(rapid.Int64Range(1, 2).Draw(t, "size")) * resource.Unit
					r.Count = rapid.IntRange(1, 3).Draw(t, "count")
				}
			case resource.TypeRanges:
				var ranges []resource.Range
				for n := range 24 {
					if own(n) && rapid.Bool().Draw(t, "has") {
						ranges = append(ranges, resource.Range{Begin: uint64(n), End: uint64(n)})
					}
				}
				r.Ranges = resource.NewRanges(ranges...)
			case resource.TypeSet:
				var items []string
				for n := range 6 {
					if own(n) && rapid.Bool().Draw(t, "has") {
						items = append(items, fmt.Sprintf("z%d", n))
					}
				}
				r.Set = resource.NewSet(items...)
			}
			list = append(list, r)
		}
		return resource.Of(list...)
	})
}

func anyNumber(int) bool { return true }
func even(n int) bool    { return n%2 == 0 }
func odd(n int) bool     { return n%2 == 1 }

func check(t *rapid.T, ok bool, format string, args ...any) {
	t.Helper()
	if !ok {
		t.Fatalf(format, args...)
	}
}

func TestAddIsCommutativeAndAssociative(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		gen := genResources(anyNumber)
		a, b, c := gen.Draw(t, "a"), gen.Draw(t, "b"), gen.Draw(t, "c")
		check(t, a.Add(b).Equal(b.Add(a)), "a+b = %v, b+a = %v", a.Add(b), b.Add(a))
		check(t, a.Add(b).Add(c).Equal(a.Add(b.Add(c))), "(a+b)+c = %v, a+(b+c) = %v", a.Add(b).Add(c), a.Add(b.Add(c)))
		check(t, resource.Of(append(append(resource.Resources{}, a...), b...)...).Equal(a.Add(b)), "Of(a, b) is not a+b")
		check(t, a.Add(nil).Equal(a), "a+0 = %v", a.Add(nil))
	})
}

func TestSubtractUndoesAdd(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := genResources(even).Draw(t, "a"), genResources(odd).Draw(t, "b")
		got, ok := a.Add(b).Subtract(b)
		check(t, ok && got.Equal(a), "(a+b)-b = %v, %v; want %v", got, ok, a)
		got, ok = a.Subtract(a)
		check(t, ok && got.IsEmpty(), "a-a = %v, %v", got, ok)
	})
}

func TestSubtractFailsWhenNotContained(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		gen := genResources(anyNumber)
		a, b := gen.Draw(t, "a"), gen.Draw(t, "b")
		got, ok := a.Subtract(b)
		check(t, ok == a.Contains(b), "subtract %v, contains %v", ok, a.Contains(b))
		if ok {
			check(t, got.Add(b).Equal(a), "(a-b)+b = %v, want %v", got.Add(b), a)
		} else {
			check(t, got == nil, "a result without success: %v", got)
		}
		check(t, a.Minus(b).Add(a.Intersect(b)).Equal(a), "(a less b) + (a and b) = %v, want %v", a.Minus(b).Add(a.Intersect(b)), a)
		check(t, a.Intersect(b).Equal(b.Intersect(a)), "intersection depends on the order")
		check(t, a.Minus(b).Intersect(b).IsEmpty() || !overlapping(a.Minus(b), b), "a number of %v is left in %v", b, a.Minus(b))
	})
}

func overlapping(a, b resource.Resources) bool {
	for _, r := range a.Intersect(b) {
		if r.Kind.Type() != resource.TypeScalar {
			return true
		}
	}
	return false
}

func TestContainsIsAPartialOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		gen := genResources(anyNumber)
		a, b, c := gen.Draw(t, "a"), gen.Draw(t, "b"), gen.Draw(t, "c")
		check(t, a.Contains(a), "not reflexive")
		check(t, a.Add(b).Contains(a) && a.Add(b).Contains(b), "a+b does not contain its parts")
		check(t, a.Contains(a.Intersect(b)) && a.Contains(a.Minus(b)), "a does not contain a part of it")
		check(t, a.Contains(nil), "a does not contain nothing")
		if a.Contains(b) && b.Contains(a) {
			check(t, a.Equal(b), "not antisymmetric")
		}
		ab := a.Intersect(b)
		abc := ab.Intersect(c)
		check(t, a.Contains(ab) && ab.Contains(abc) && a.Contains(abc), "not transitive")
		if a.Contains(b) && b.Contains(c) {
			check(t, a.Contains(c), "not transitive")
		}
	})
}

func TestFormsRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a := genResources(anyNumber).Draw(t, "a")
		for _, text := range []string{a.String(), a.JSON()} {
			back, err := resource.Parse(text)
			check(t, err == nil && back.Equal(a), "%s is read back as %v: %v", text, back, err)
		}
		list := a.ToProto()
		back, err := resource.FromProto(list)
		check(t, err == nil && back.Equal(a), "v1 form is read back as %v: %v", back, err)
		for i, r := range list {
			check(t, resource.Validate(r) == nil, "resource %d is invalid: %v", i, resource.Validate(r))
			raw, err := proto.Marshal(r)
			check(t, err == nil, "resource %d does not encode: %v", i, err)
			again := new(mezzov1.Resource)
			check(t, proto.Unmarshal(raw, again) == nil && proto.Equal(r, again), "resource %d changes on the wire", i)
		}
	})
}

func TestFindProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		gen := genResources(anyNumber)
		a, target := gen.Draw(t, "a"), gen.Draw(t, "target")
		found, ok := a.Find(target)
		if ok {
			check(t, a.Contains(found), "found %v is not in %v", found, a)
			check(t, found.ToUnreserved().Quantities().Equal(target.ToUnreserved().Quantities()), "found %v for %v", found, target)
		} else {
			check(t, found == nil, "a result without success: %v", found)
			// A number that the target wants twice, reserved and not, is one number
			// when the reservations are gone.
			twice := overlapping(target.Unreserved(), target.Reserved().ToUnreserved())
			check(t, twice || !a.ToUnreserved().Contains(target.ToUnreserved()), "%v has %v and it is not found", a, target)
		}
	})
}

func TestAllocationAndReservationUndo(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a := genResources(anyNumber).Draw(t, "a").Unallocate()
		check(t, a.Allocate("r").Unallocate().Equal(a), "allocating cannot be undone")
		r := resource.Reservation{Role: "a/b/c", Dynamic: true}
		check(t, a.Push(r).Pop().Equal(a), "reserving cannot be undone")
		check(t, a.Push(r).ReservedTo("a/b/c").Equal(a.Push(r)), "not all are reserved")
		check(t, a.Reserved().Add(a.Unreserved()).Equal(a), "reserved and unreserved are not all")
		check(t, a.Shared().Add(a.NonShared()).Equal(a), "shared and non-shared are not all")
		check(t, a.Revocable().Add(a.NonRevocable()).Equal(a), "revocable and non-revocable are not all")
	})
}

func TestKindOrderIsTotal(t *testing.T) {
	pool := kinds()
	for i, a := range pool {
		for j, b := range pool {
			c := a.Compare(b)
			if c != -b.Compare(a) || (c == 0) != (a == b) || (c == 0) != (i == j) {
				t.Errorf("Compare(%v, %v) = %d, the other way %d", a, b, c, b.Compare(a))
			}
			for _, d := range pool {
				if c < 0 && b.Compare(d) < 0 && a.Compare(d) >= 0 {
					t.Errorf("%v < %v < %v and not %v < %v", a, b, d, a, d)
				}
			}
		}
	}
}

// TestRangesAgainstNumbers checks the arithmetic of ranges against that of plain
// sets of numbers.
func TestRangesAgainstNumbers(t *testing.T) {
	gen := rapid.Custom(func(t *rapid.T) []resource.Range {
		return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) resource.Range {
			begin := rapid.Uint64Range(0, 40).Draw(t, "begin")
			return resource.Range{Begin: begin, End: begin + rapid.Uint64Range(0, 10).Draw(t, "more")}
		}), 0, 5).Draw(t, "ranges")
	})
	const size = 60
	numbers := func(list []resource.Range) (set [size]bool) {
		for _, r := range list {
			for n := r.Begin; n <= r.End; n++ {
				set[n] = true
			}
		}
		return set
	}
	rapid.Check(t, func(t *rapid.T) {
		x, y := gen.Draw(t, "x"), gen.Draw(t, "y")
		a, b := resource.NewRanges(x...), resource.NewRanges(y...)
		na, nb := numbers(x), numbers(y)
		var union, minus, both [size]bool
		contains, count := true, uint64(0)
		for i := range na {
			union[i], minus[i], both[i] = na[i] || nb[i], na[i] && !nb[i], na[i] && nb[i]
			contains = contains && (na[i] || !nb[i])
			if na[i] {
				count++
			}
		}
		check(t, numbers(a) == na, "NewRanges(%v) = %v", x, a)
		check(t, numbers(a.Union(b)) == union, "%v or %v = %v", a, b, a.Union(b))
		check(t, numbers(a.Minus(b)) == minus, "%v less %v = %v", a, b, a.Minus(b))
		check(t, numbers(a.Intersect(b)) == both, "%v and %v = %v", a, b, a.Intersect(b))
		check(t, a.Contains(b) == contains, "%v contains %v is %v", a, b, a.Contains(b))
		check(t, a.Count() == count, "%v has %d numbers", a, a.Count())
		for _, r := range []resource.Ranges{a, a.Union(b), a.Minus(b), a.Intersect(b)} {
			for i := range r {
				check(t, r[i].Begin <= r[i].End && (i == 0 || r[i].Begin > r[i-1].End+1), "%v is not normal", r)
			}
		}
	})
}
