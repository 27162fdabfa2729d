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
type Flat struct {
	scalars map[string]float64
	ranges  map[string][]*mezzov1.Value_Range
	sets    map[string][]string
}

// Add adds resources.
func (f *Flat) Add(list []*mezzov1.Resource) {
	for _, r := range list {
		name := r.GetName()
		if r.GetRevocable() != nil {
			name += "_revocable"
		}
		switch r.GetType() {
		case mezzov1.Value_SCALAR:
			if f.scalars == nil {
				f.scalars = map[string]float64{}
			}
			f.scalars[name] += r.GetScalar().GetValue()
		case mezzov1.Value_RANGES:
			if f.ranges == nil {
				f.ranges = map[string][]*mezzov1.Value_Range{}
			}
			f.ranges[name] = append(f.ranges[name], r.GetRanges().GetRange()...)
		case mezzov1.Value_SET:
			if f.sets == nil {
				f.sets = map[string][]string{}
			}
			f.sets[name] = append(f.sets[name], r.GetSet().GetItem()...)
		}
	}
}

// always are there when there is none of them, too.
var always = []string{"disk", "mem", "gpus", "cpus"}

// Write writes the resources as one object.
func (f *Flat) Write(j *JSON) {
	j.Object(func() {
		for _, name := range always {
			j.Key(name).Float(thousandths(f.scalars[name]))
		}
		for _, name := range slices.Sorted(maps.Keys(f.scalars)) {
			if !slices.Contains(always, name) {
				j.Key(name).Float(thousandths(f.scalars[name]))
			}
		}
		for _, name := range slices.Sorted(maps.Keys(f.ranges)) {
			j.Key(name).Text(rangesText(f.ranges[name]))
		}
		for _, name := range slices.Sorted(maps.Keys(f.sets)) {
			j.Key(name).Text("{" + strings.Join(slices.Compact(slices.Sorted(slices.Values(f.sets[name]))), ", ") + "}")
		}
	})
}

// thousandths rounds to the precision that resources have.
func thousandths(v float64) float64 { return math.Round(v*1000) / 1000 }

// rangesText writes ranges joined where they meet: "[1-3, 5-5]".
func rangesText(list []*mezzov1.Value_Range) string {
	list = slices.SortedFunc(slices.Values(list), func(a, b *mezzov1.Value_Range) int { return cmp.Compare(a.GetBegin(), b.GetBegin()) })
	var parts []string
	for i := 0; i < len(list); {
		begin, end := list[i].GetBegin(), list[i].GetEnd()
		for i++; i < len(list) && (list[i].GetBegin() <= end || list[i].GetBegin() == end+1); i++ {
			end = max(end, list[i].GetEnd())
		}
		parts = append(parts, strconv.FormatUint(begin, 10)+"-"+strconv.FormatUint(end, 10))
	}
	return "[" + strings.Join(parts, ", ") + "]"
}

// Resources writes resources as one object.
func Resources(j *JSON, list []*mezzov1.Resource) {
	var f Flat
	f.Add(list)
	f.Write(j)
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
