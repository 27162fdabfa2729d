package legacy

import (
	"cmp"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
)

// Flat is resources by name, of all kinds together: what is revocable has a name
// of its own.
type Flat struct{ list []amount }

// amount is what there is of one name.
type amount struct {
	name   string
	kind   mezzov1.Value_Type
	scalar float64
	ranges []*mezzov1.Value_Range
	set    []string
}

// Reset empties it, to be used again.
func (f *Flat) Reset() { f.list = f.list[:0] }

// Add adds resources. Names are few, so they are looked for one by one.
func (f *Flat) Add(list []*mezzov1.Resource) {
	for _, r := range list {
		name := r.GetName()
		if r.GetRevocable() != nil {
			name += "_revocable"
		}
		x := f.amount(name, r.GetType())
		switch r.GetType() {
		case mezzov1.Value_SCALAR:
			x.scalar += r.GetScalar().GetValue()
		case mezzov1.Value_RANGES:
			if x.ranges == nil {
				x.ranges = r.GetRanges().GetRange()
			} else {
				x.ranges = append(slices.Clip(x.ranges), r.GetRanges().GetRange()...)
			}
		case mezzov1.Value_SET:
			x.set = append(slices.Clip(x.set), r.GetSet().GetItem()...)
		}
	}
}

func (f *Flat) amount(name string, kind mezzov1.Value_Type) *amount {
	for i := range f.list {
		if x := &f.list[i]; x.name == name && x.kind == kind {
			return x
		}
	}
	f.list = append(f.list, amount{name: name, kind: kind})
	return &f.list[len(f.list)-1]
}

// always are there when there is none of them, too.
var always = []string{"disk", "mem", "gpus", "cpus"}

// Write writes the resources as one object.
func (f *Flat) Write(j *JSON) {
	slices.SortFunc(f.list, func(a, b amount) int { return cmp.Or(cmp.Compare(a.kind, b.kind), strings.Compare(a.name, b.name)) })
	j.open('{')
	for _, name := range always {
		v := 0.0
		for i := range f.list {
			if x := &f.list[i]; x.name == name && x.kind == mezzov1.Value_SCALAR {
				v = x.scalar
			}
		}
		j.Key(name).Float(thousandths(v))
	}
	for i := range f.list {
		switch x := &f.list[i]; {
		case x.kind == mezzov1.Value_RANGES:
			j.Key(x.name).Text(rangesText(x.ranges))
		case x.kind == mezzov1.Value_SET:
			j.Key(x.name).Text("{" + strings.Join(slices.Compact(slices.Sorted(slices.Values(x.set))), ", ") + "}")
		case !slices.Contains(always, x.name):
			j.Key(x.name).Float(thousandths(x.scalar))
		}
	}
	j.close('}')
}

// thousandths rounds to the precision that resources have.
func thousandths(v float64) float64 { return math.Round(v*1000) / 1000 }

// rangesText writes ranges joined where they meet: "[1-3, 5-5]".
func rangesText(list []*mezzov1.Value_Range) string {
	compare := func(a, b *mezzov1.Value_Range) int { return cmp.Compare(a.GetBegin(), b.GetBegin()) }
	if !slices.IsSortedFunc(list, compare) {
		list = slices.SortedFunc(slices.Values(list), compare)
	}
	out := []byte{'['}
	for i := 0; i < len(list); {
		begin, end := list[i].GetBegin(), list[i].GetEnd()
		for i++; i < len(list) && (list[i].GetBegin() <= end || list[i].GetBegin() == end+1); i++ {
			end = max(end, list[i].GetEnd())
		}
		if len(out) > 1 {
			out = append(out, ',', ' ')
		}
		out = append(strconv.AppendUint(out, begin, 10), '-')
		out = strconv.AppendUint(out, end, 10)
	}
	return string(append(out, ']'))
}

// Resources writes resources as one object.
func Resources(j *JSON, list []*mezzov1.Resource) {
	j.flat.Reset()
	j.flat.Add(list)
	j.flat.Write(j)
}

// RoleOf is the role that a resource is reserved to; "*": it is not.
func RoleOf(r *mezzov1.Resource) string {
	if stack := r.GetReservations(); len(stack) > 0 {
		return stack[len(stack)-1].GetRole()
	}
	return "*"
}

// ByRole sorts out reserved resources by role, and those that are not.
func ByRole(list []*mezzov1.Resource) (reserved map[string][]*mezzov1.Resource, unreserved []*mezzov1.Resource) {
	reserved = map[string][]*mezzov1.Resource{}
	for _, r := range list {
		if role := RoleOf(r); role != "*" {
			reserved[role] = append(reserved[role], r)
		} else {
			unreserved = append(unreserved, r)
		}
	}
	return reserved, unreserved
}

// Reserved writes resources by role.
func Reserved(j *JSON, reserved map[string][]*mezzov1.Resource) {
	j.Object(func() {
		for _, role := range slices.Sorted(maps.Keys(reserved)) {
			j.Key(role)
			Resources(j, reserved[role])
		}
	})
}

// Attributes writes attributes: numbers, or text for all else.
func Attributes(j *JSON, list []*mezzov1.Attribute) {
	j.Object(func() {
		for i, a := range list {
			if slices.ContainsFunc(list[:i], func(b *mezzov1.Attribute) bool { return b.GetName() == a.GetName() }) {
				continue // a name is there once
			}
			switch j.Key(a.GetName()); a.GetType() {
			case mezzov1.Value_SCALAR:
				j.Float(a.GetScalar().GetValue())
			case mezzov1.Value_RANGES:
				j.Text(rangesText(a.GetRanges().GetRange()))
			case mezzov1.Value_SET:
				j.Text("{" + strings.Join(a.GetSet().GetItem(), ", ") + "}")
			default:
				j.Text(a.GetText().GetValue())
			}
		}
	})
}
