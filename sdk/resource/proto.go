package resource

import (
	"fmt"

	"google.golang.org/protobuf/proto"

	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
)

// FromProto converts v1 Resources. Each is checked as Validate does; older
// forms of reservations (role and reservation) are accepted. Resources with
// nothing in them are dropped, and each copy of a shared resource counts.
func FromProto(list []*mezzov1.Resource) (Resources, error) {
	out := make(Resources, 0, len(list))
	for i, p := range list {
		if err := Validate(p); err != nil {
			return nil, fmt.Errorf("resource %d of %d: %w", i+1, len(list), err)
		}
		r := fromValid(p)
		if !r.IsEmpty() {
			out = append(out, r)
		}
	}
	return checkSums(normalise(out))
}

// checkSums fails if equal kinds added up to more than a resource may hold.
func checkSums(list Resources) (Resources, error) {
	for i := range list {
		if r := &list[i]; r.Kind.typ == TypeScalar && (r.Scalar < 0 || r.Scalar > MaxScalar/Scalar(max(1, r.Count))) {
			return nil, fmt.Errorf("resource %q: the amounts add up to more than %s, the most that is allowed", r.Kind.Name(), MaxScalar)
		}
	}
	return list, nil
}

// fromValid converts a resource that Validate has accepted.
func fromValid(p *mezzov1.Resource) Resource {
	r := Resource{Kind: kindOf(p)}
	switch r.Kind.typ {
	case TypeScalar:
		r.Scalar = ScalarFromFloat(p.GetScalar().GetValue())
	case TypeRanges:
		ranges := make([]Range, 0, len(p.GetRanges().GetRange()))
		for _, x := range p.GetRanges().GetRange() {
			ranges = append(ranges, Range{x.GetBegin(), x.GetEnd()})
		}
		r.Ranges = NewRanges(ranges...)
	case TypeSet:
		r.Set = NewSet(p.GetSet().GetItem()...)
	}
	if r.Kind.Atomic() {
		r.Count = 1
	}
	return r
}

// ToProto converts to v1 Resources, in order; reservations are in the form of a
// stack. An atomic resource of several copies is there as many times. The
// caller owns the result.
func (a Resources) ToProto() []*mezzov1.Resource {
	out := make([]*mezzov1.Resource, 0, len(a))
	for i := range a {
		for range max(1, a[i].Count) {
			out = append(out, a[i].ToProto())
		}
	}
	return out
}

// ToProto converts one resource, or one copy of it. The caller owns the result.
func (r *Resource) ToProto() *mezzov1.Resource {
	p := r.Kind.ToProto()
	switch r.Kind.typ {
	case TypeScalar:
		p.Scalar = &mezzov1.Value_Scalar{Value: proto.Float64(r.Scalar.Float())}
	case TypeRanges:
		p.Ranges = &mezzov1.Value_Ranges{}
		for _, x := range r.Ranges {
			p.Ranges.Range = append(p.Ranges.Range, &mezzov1.Value_Range{Begin: proto.Uint64(x.Begin), End: proto.Uint64(x.End)})
		}
	case TypeSet:
		p.Set = &mezzov1.Value_Set{Item: append([]string(nil), r.Set...)}
	}
	return p
}
