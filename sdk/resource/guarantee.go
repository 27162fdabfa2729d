package resource

import (
	"cmp"
	"maps"
	"slices"
	"strings"
)

// Guaranteed returns, of what is guaranteed to roles, by their names, what is
// guaranteed to each of them and the roles below it together: the greater of its
// own guarantee and of what is guaranteed to its children. Roles above those that
// have a guarantee are in it too, and "" has what is guaranteed to all.
//
// Example: with a guarantee of 4 CPUs for "eng", of 3 for "eng/web" and of 2 for
// "eng/batch", eng has 5 guaranteed: so much of it is always its children's.
func Guaranteed(guarantees map[string]Quantities) map[string]Quantities {
	out, below := map[string]Quantities{}, map[string]Quantities{}
	names := map[string]bool{}
	for name, g := range guarantees {
		for ; len(g) > 0 && name != ""; name = ParentRole(name) {
			names[name] = true
		}
	}
	// Children come before their parents.
	order := slices.SortedFunc(maps.Keys(names), func(a, b string) int {
		return cmp.Or(strings.Count(b, "/")-strings.Count(a, "/"), strings.Compare(a, b))
	})
	for _, name := range order {
		out[name] = guarantees[name].Max(below[name])
		up := ParentRole(name)
		below[up] = below[up].Add(out[name])
	}
	out[""] = below[""]
	return out
}

// Max returns the greater of both amounts of each name.
func (a Quantities) Max(b Quantities) Quantities {
	list := slices.Clone(a)
	for _, q := range b {
		if i := slices.IndexFunc(list, func(x Quantity) bool { return x.Name == q.Name }); i < 0 {
			list = append(list, q)
		} else {
			list[i].Amount = max(list[i].Amount, q.Amount)
		}
	}
	return NewQuantities(list...)
}
