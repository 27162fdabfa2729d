// Package resource is the arithmetic of what a cluster has: scalars in fixed
// point, ranges and sets, and the reservations, disks and other marks that tell
// one resource from another.
//
// Terms. A *kind* is a resource's identity: everything but how much there is.
// A Resource is a kind and a value. Resources is a normalised collection of
// them and the type that most code deals in. Quantities are amounts by name
// alone, for quota and shares.
//
// A kind is *divisible* if a part of it can be taken (cpus, ports), and *atomic*
// if it is only ever taken whole: shared resources and indivisible ones (MOUNT
// disks, persistent volumes). Divisible resources of one kind are one entry,
// whose values add up. Atomic resources of one kind and one value are one
// entry, which counts copies.
//
// All values are immutable and safe for concurrent use; all operations are pure
// and their results do not depend on map order, time or anything else.
//
// Example:
//
//	total, err := resource.Parse("cpus:4;mem:4096;ports:[31000-32000]")
//	task, err := resource.Parse("cpus:1;ports:[31000-31001]")
//	left, ok := total.Subtract(task) // cpus:3;mem:4096;ports:[31002-32000]
package resource

import (
	"cmp"
	"slices"
)

// Resource is some amount of one kind. Only the field of its kind's type is
// used.
type Resource struct {
	Kind   Kind
	Scalar Scalar
	Ranges Ranges
	Set    Set
	// Count is how many copies there are if the kind is atomic: of a shared
	// resource one in an agent's total, and one for each task or offer that has
	// it. Zero if the kind is divisible.
	Count int
}

// IsEmpty reports whether there is nothing of it.
func (r *Resource) IsEmpty() bool {
	if r.Kind.Atomic() && r.Count <= 0 {
		return true
	}
	switch r.Kind.typ {
	case TypeScalar:
		return r.Scalar <= 0
	case TypeRanges:
		return len(r.Ranges) == 0
	case TypeSet:
		return len(r.Set) == 0
	}
	return true
}

// compareEntry orders entries; 0 means that they are the same entry of a
// collection, whose amounts can be added and subtracted.
func compareEntry(a, b *Resource) int {
	if a.Kind != b.Kind {
		return a.Kind.Compare(b.Kind)
	}
	if !a.Kind.Atomic() {
		return 0
	}
	return compareValue(a, b)
}

func compareValue(a, b *Resource) int {
	switch a.Kind.typ {
	case TypeScalar:
		return cmp.Compare(a.Scalar, b.Scalar)
	case TypeRanges:
		return slices.CompareFunc(a.Ranges, b.Ranges, func(x, y Range) int {
			return cmp.Or(cmp.Compare(x.Begin, y.Begin), cmp.Compare(x.End, y.End))
		})
	}
	return slices.Compare(a.Set, b.Set)
}

// add returns a and b together; they are the same entry.
func (r Resource) add(b *Resource) Resource {
	switch {
	case r.Kind.Atomic():
		r.Count += b.Count
	case r.Kind.typ == TypeScalar:
		r.Scalar += b.Scalar
	case r.Kind.typ == TypeRanges:
		r.Ranges = r.Ranges.Union(b.Ranges)
	default:
		r.Set = r.Set.Union(b.Set)
	}
	return r
}

// minus returns what of r is not in b; they are the same entry.
func (r Resource) minus(b *Resource) Resource {
	switch {
	case r.Kind.Atomic():
		r.Count = max(0, r.Count-b.Count)
	case r.Kind.typ == TypeScalar:
		r.Scalar = max(0, r.Scalar-b.Scalar)
	case r.Kind.typ == TypeRanges:
		r.Ranges = r.Ranges.Minus(b.Ranges)
	default:
		r.Set = r.Set.Minus(b.Set)
	}
	return r
}

// intersect returns what is in both; they are the same entry.
func (r Resource) intersect(b *Resource) Resource {
	switch {
	case r.Kind.Atomic():
		r.Count = min(r.Count, b.Count)
	case r.Kind.typ == TypeScalar:
		r.Scalar = min(r.Scalar, b.Scalar)
	case r.Kind.typ == TypeRanges:
		r.Ranges = r.Ranges.Intersect(b.Ranges)
	default:
		r.Set = r.Set.Intersect(b.Set)
	}
	return r
}

// contains reports whether all of b is in r; they are the same entry.
func (r *Resource) contains(b *Resource) bool {
	switch {
	case r.Kind.Atomic():
		return r.Count >= b.Count
	case r.Kind.typ == TypeScalar:
		return r.Scalar >= b.Scalar
	case r.Kind.typ == TypeRanges:
		return r.Ranges.Contains(b.Ranges)
	}
	return r.Set.Contains(b.Set)
}

// Resources are resources in normal form: sorted, each entry once, none empty.
// A nil Resources is empty. Treat it as immutable: operations share its parts.
type Resources []Resource

// Of returns the normal form of any resources. A Count of zero of an atomic
// kind is taken as one.
func Of(list ...Resource) Resources {
	out := make(Resources, 0, len(list))
	for _, r := range list {
		if r.Kind.Atomic() && r.Count == 0 {
			r.Count = 1
		}
		if !r.IsEmpty() {
			out = append(out, r)
		}
	}
	return normalise(out)
}

// ScalarOf returns resources of one unreserved scalar.
func ScalarOf(name string, amount Scalar) Resources {
	return Of(Resource{Kind: ScalarKind(name), Scalar: amount})
}

// normalise sorts list in place and adds equal entries; none may be empty.
func normalise(list Resources) Resources {
	sorted := true
	for i := 1; i < len(list) && sorted; i++ {
		sorted = compareEntry(&list[i-1], &list[i]) < 0
	}
	if sorted {
		if len(list) == 0 {
			return nil
		}
		return list
	}
	slices.SortStableFunc(list, func(a, b Resource) int { return compareEntry(&a, &b) })
	out := list[:0]
	for _, r := range list {
		if n := len(out); n > 0 && compareEntry(&out[n-1], &r) == 0 {
			out[n-1] = out[n-1].add(&r)
		} else {
			out = append(out, r)
		}
	}
	return out
}

// Sum returns all of them together.
func Sum(list ...Resources) Resources {
	var sum Resources
	for _, r := range list {
		sum = sum.Add(r)
	}
	return sum
}

// Add returns a and b together. Scalars and copies add up; ranges and sets are
// united, so a number or item that is in both is there once.
func (a Resources) Add(b Resources) Resources {
	switch {
	case len(a) == 0:
		return b
	case len(b) == 0:
		return a
	}
	out := make(Resources, 0, len(a)+len(b))
	i, j := 0, 0
	for i < len(a) && j < len(b) {
		switch c := compareEntry(&a[i], &b[j]); {
		case c < 0:
			out = append(out, a[i])
			i++
		case c > 0:
			out = append(out, b[j])
			j++
		default:
			out = append(out, a[i].add(&b[j]))
			i++
			j++
		}
	}
	out = append(out, a[i:]...)
	return append(out, b[j:]...)
}

// same reports whether a and b are the very same list, which much is that was
// handed on: what is held is what was offered.
func same(a, b Resources) bool { return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0]) }

// Subtract returns a without b, and true; nil and false if b is not contained
// in a.
func (a Resources) Subtract(b Resources) (Resources, bool) {
	if len(b) == 0 {
		return a, true
	}
	if !a.Contains(b) {
		return nil, false
	}
	return a.Minus(b), true
}

// Minus returns what of a is not in b: subtraction that stops at zero.
func (a Resources) Minus(b Resources) Resources {
	switch {
	case len(a) == 0 || len(b) == 0:
		return a
	case same(a, b):
		return nil
	}
	out := make(Resources, 0, len(a))
	j := 0
	for i := range a {
		for j < len(b) && compareEntry(&b[j], &a[i]) < 0 {
			j++
		}
		if j == len(b) || compareEntry(&b[j], &a[i]) != 0 {
			out = append(out, a[i])
			continue
		}
		if rest := a[i].minus(&b[j]); !rest.IsEmpty() {
			out = append(out, rest)
		}
	}
	if len(out) == 0 {
		return nil
	}
	return out
}

// Intersect returns what is in both a and b.
func (a Resources) Intersect(b Resources) Resources {
	var out Resources
	for i, j := 0, 0; i < len(a) && j < len(b); {
		switch c := compareEntry(&a[i], &b[j]); {
		case c < 0:
			i++
		case c > 0:
			j++
		default:
			if both := a[i].intersect(&b[j]); !both.IsEmpty() {
				out = append(out, both)
			}
			i++
			j++
		}
	}
	return out
}

// Contains reports whether all of b is in a. Every collection contains itself
// and the empty one.
func (a Resources) Contains(b Resources) bool {
	if same(a, b) {
		return true
	}
	i := 0
	for j := range b {
		for i < len(a) && compareEntry(&a[i], &b[j]) < 0 {
			i++
		}
		if i == len(a) || compareEntry(&a[i], &b[j]) != 0 || !a[i].contains(&b[j]) {
			return false
		}
	}
	return true
}

// Equal reports whether a and b are the same.
func (a Resources) Equal(b Resources) bool {
	return same(a, b) || slices.EqualFunc(a, b, func(x, y Resource) bool {
		return x.Kind == y.Kind && x.Count == y.Count && compareValue(&x, &y) == 0
	})
}

// IsEmpty reports whether there is nothing.
func (a Resources) IsEmpty() bool { return len(a) == 0 }

// Find looks in a for the resources of target by amount: whose reservation they
// carry does not matter, but those of target's own reservation come first, then
// unreserved ones, then others in order. It returns what it found, of the kinds
// that they have in a; nil and false if there is not enough.
func (a Resources) Find(target Resources) (Resources, bool) {
	var found Resources
	left := a
	for _, t := range target {
		got, ok := left.findOne(t)
		if !ok {
			return nil, false
		}
		found = found.Add(got)
		left = left.Minus(got)
	}
	return found, true
}

func (a Resources) findOne(target Resource) (Resources, bool) {
	want := target.Kind.ToUnreserved()
	remaining := target
	remaining.Kind = want
	var found Resources
	take := func(may func(Kind) bool) {
		for i := range a {
			r := a[i]
			if remaining.IsEmpty() || r.Kind.ToUnreserved() != want || !may(r.Kind) {
				continue
			}
			r.Kind = want
			if compareEntry(&r, &remaining) != 0 {
				continue // an atomic resource of another size
			}
			part := r.intersect(&remaining)
			if part.IsEmpty() {
				continue
			}
			remaining = remaining.minus(&part)
			part.Kind = a[i].Kind
			found = found.Add(Resources{part})
		}
	}
	own := target.Kind.Role()
	if target.Kind.IsReserved() {
		take(func(k Kind) bool { return k.IsReserved() && k.Role() == own })
	}
	take(func(k Kind) bool { return !k.IsReserved() })
	take(func(k Kind) bool { return k.IsReserved() && (!target.Kind.IsReserved() || k.Role() != own) })
	if !remaining.IsEmpty() {
		return nil, false
	}
	return found, true
}

// Filter returns the resources of the kinds that keep accepts.
func (a Resources) Filter(keep func(Kind) bool) Resources {
	for i := range a {
		if keep(a[i].Kind) {
			continue
		}
		out := append(make(Resources, 0, len(a)-1), a[:i]...)
		for _, r := range a[i+1:] {
			if keep(r.Kind) {
				out = append(out, r)
			}
		}
		if len(out) == 0 {
			return nil
		}
		return out
	}
	return a
}

// Map returns the resources with every kind replaced by what change makes of
// it. The new kind must have the type of the old one and be as divisible.
func (a Resources) Map(change func(Kind) Kind) Resources {
	if len(a) == 0 {
		return nil
	}
	out := slices.Clone(a)
	for i := range out {
		out[i].Kind = change(out[i].Kind)
	}
	return normalise(out)
}

// Allocate returns the resources allocated to role, whatever they were
// allocated to before.
func (a Resources) Allocate(role string) Resources {
	h := Kind{}.WithAllocation(role).allocation
	allocated := true
	for i := range a {
		allocated = allocated && a[i].Kind.allocation == h
	}
	if allocated {
		return a
	}
	return a.Map(func(k Kind) Kind { k.allocation = h; return k })
}

// Unallocate returns the resources allocated to no role.
func (a Resources) Unallocate() Resources { return a.Allocate("") }

// Push returns the resources with one more reservation each.
func (a Resources) Push(r Reservation) Resources {
	return a.Map(func(k Kind) Kind { return k.Push(r) })
}

// Pop returns the resources without their innermost reservations.
func (a Resources) Pop() Resources { return a.Map(Kind.Pop) }

// ToUnreserved returns the resources without their reservations.
func (a Resources) ToUnreserved() Resources { return a.Map(Kind.ToUnreserved) }

// Unreserved returns those that are not reserved.
func (a Resources) Unreserved() Resources {
	return a.Filter(func(k Kind) bool { return !k.IsReserved() })
}

// Reserved returns those that are reserved, to whatever role.
func (a Resources) Reserved() Resources { return a.Filter(Kind.IsReserved) }

// ReservedTo returns those that are reserved to this very role.
func (a Resources) ReservedTo(role string) Resources {
	return a.Filter(func(k Kind) bool { return k.IsReserved() && k.Role() == role })
}

// AllocatableTo returns those that may be offered to role: the unreserved, and
// those reserved to it or to an ancestor of it.
func (a Resources) AllocatableTo(role string) Resources {
	return a.Filter(func(k Kind) bool { return k.AllocatableTo(role) })
}

// Revocable returns those that may be taken back.
func (a Resources) Revocable() Resources { return a.Filter(Kind.Revocable) }

// NonRevocable returns those that may not be taken back.
func (a Resources) NonRevocable() Resources {
	return a.Filter(func(k Kind) bool { return !k.Revocable() })
}

// Shared returns those that several tasks may use.
func (a Resources) Shared() Resources { return a.Filter(Kind.Shared) }

// NonShared returns those that one task at a time may use.
func (a Resources) NonShared() Resources { return a.Filter(func(k Kind) bool { return !k.Shared() }) }

// Get returns the sum of the scalars of this name, of all kinds and copies.
func (a Resources) Get(name string) Scalar {
	var sum Scalar
	for i := range a {
		if a[i].Kind.typ == TypeScalar && a[i].Kind.Name() == name {
			sum += a[i].amount()
		}
	}
	return sum
}

// amount is what a scalar counts for: all its copies.
func (r *Resource) amount() Scalar {
	if r.Kind.Atomic() {
		return r.Scalar * Scalar(r.Count)
	}
	return r.Scalar
}

// RangesOf returns the union of the ranges of this name.
func (a Resources) RangesOf(name string) Ranges {
	var all Ranges
	for i := range a {
		if a[i].Kind.typ == TypeRanges && a[i].Kind.Name() == name {
			all = all.Union(a[i].Ranges)
		}
	}
	return all
}

// Names returns the names, sorted, each once.
func (a Resources) Names() []string {
	var names []string
	for i := range a {
		if n := a[i].Kind.Name(); len(names) == 0 || names[len(names)-1] != n {
			names = append(names, n)
		}
	}
	return names
}

// SetOf returns the union of the sets of this name.
func (a Resources) SetOf(name string) Set {
	var all Set
	for i := range a {
		if a[i].Kind.typ == TypeSet && a[i].Kind.Name() == name {
			all = all.Union(a[i].Set)
		}
	}
	return all
}
