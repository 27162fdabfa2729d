package config

import (
	"strings"

	"github.com/hashicorp/hcl/v2"

	"github.com/mezzo-os/mezzo/sdk/resource"
)

var roleSchema = schema([]string{"weight", "guarantee", "limit"})

// roles reads the role blocks, in the order written.
func (d *decoder) roles(blocks hcl.Blocks) (list []Role) {
	seen := map[string]hcl.Range{}
	for _, block := range blocks {
		if block.Type != "role" {
			continue
		}
		r := Role{Name: block.Labels[0], Weight: 1, DefRange: block.DefRange}
		if err := resource.ValidateRole(r.Name); err != nil {
			d.add(invalid(block.LabelRanges[0], "Bad role", "%s.", err))
		}
		if first, again := seen[r.Name]; again {
			d.add(duplicate(r.DefRange, first, "role \""+r.Name+"\"", "A role is described once."))
		}
		seen[r.Name] = block.DefRange
		s, _ := d.content(block.Body, roleSchema)
		s.number("weight", &r.Weight, func(n float64) bool { return n > 0 }, "above 0")
		s.resources("guarantee", &r.Guarantee, checkQuota)
		s.resources("limit", &r.Limit, checkQuota)
		if name, over := r.exceeds(); over {
			d.add(invalid(s.attrs["guarantee"].Expr.Range(), "Guarantee above limit",
				"The guarantee of %s is above the limit at %s.", name, place(s.attrs["limit"].Expr.Range())))
		}
		list = append(list, r)
	}
	return list
}

// resources reads a resource text that passes the check.
func (s scope) resources(name string, to *string, check func(string) error) {
	var got string
	rng, ok := s.text(name, &got)
	if !ok {
		return
	}
	got = strings.TrimSpace(got) // file() gives the last line's end, too
	if err := check(got); err != nil {
		s.d.add(invalid(rng, "Bad resources", "In %s: %s.", name, err))
		return
	}
	*to = got
}
