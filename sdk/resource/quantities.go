package resource

import (
	"cmp"
	"slices"
	"strings"
)

// Quantity is an amount of a scalar by its name.
type Quantity struct {
	Name   string
	Amount Scalar
}

// Quantities are amounts of scalars by name, sorted by name, each once, none of
// them zero. A nil Quantities is empty. Treat it as immutable.
type Quantities []Quantity

// NewQuantities returns the normal form: equal names are added up, zeros are
// dropped.
func NewQuantities(list ...Quantity) Quantities {
	in := slices.Clone(list)
	slices.SortStableFunc(in, func(a, b Quantity) int { return strings.Compare(a.Name, b.Name) })
	out := in[:0]
	for _, q := range in {
		if n := len(out); n > 0 && out[n-1].Name == q.Name {
			out[n-1].Amount += q.Amount
		} else {
			out = append(out, q)
		}
	}
	out = slices.DeleteFunc(out, func(q Quantity) bool { return q.Amount == 0 })
	if len(out) == 0 {
		return nil
	}
	return out
}

// Quantities returns the scalars of a by name, all kinds and copies together.
func (a Resources) Quantities() Quantities {
	var out Quantities
	for i := range a {
		if a[i].Kind.typ != TypeScalar {
			continue
		}
		name := a[i].Kind.Name()
		if n := len(out); n > 0 && out[n-1].Name == name {
			out[n-1].Amount += a[i].amount()
		} else {
			out = append(out, Quantity{name, a[i].amount()})
		}
	}
	return out
}

// Get returns the amount of this name; zero if there is none.
func (a Quantities) Get(name string) Scalar {
	q, _ := a.Lookup(name)
	return q
}

// Lookup returns the amount of this name and whether there is any.
func (a Quantities) Lookup(name string) (Scalar, bool) {
	i, found := slices.BinarySearchFunc(a, name, func(q Quantity, n string) int { return strings.Compare(q.Name, n) })
	if !found {
		return 0, false
	}
	return a[i].Amount, true
}

// Add returns both together.
func (a Quantities) Add(b Quantities) Quantities { return a.merge(b, 1) }

// Subtract returns a less b; amounts may become negative.
func (a Quantities) Subtract(b Quantities) Quantities { return a.merge(b, -1) }

func (a Quantities) merge(b Quantities, sign Scalar) Quantities {
	if len(b) == 0 {
		return a
	}
	out := make(Quantities, 0, len(a)+len(b))
	for i, j := 0, 0; i < len(a) || j < len(b); {
		c := 0
		switch {
		case i == len(a):
			c = 1
		case j == len(b):
			c = -1
		default:
			c = strings.Compare(a[i].Name, b[j].Name)
		}
		var q Quantity
		switch {
		case c < 0:
			q = a[i]
			i++
		case c > 0:
			q = Quantity{b[j].Name, sign * b[j].Amount}
			j++
		default:
			q = Quantity{a[i].Name, a[i].Amount + sign*b[j].Amount}
			i++
			j++
		}
		if q.Amount != 0 {
			out = append(out, q)
		}
	}
	if len(out) == 0 {
		return nil
	}
	return out
}

// Contains reports whether a has at least the amounts of b.
func (a Quantities) Contains(b Quantities) bool {
	for _, q := range b {
		if a.Get(q.Name) < q.Amount {
			return false
		}
	}
	return true
}

// Equal reports whether a and b are the same.
func (a Quantities) Equal(b Quantities) bool { return slices.Equal(a, b) }

// Compare orders quantities in some fixed order.
func (a Quantities) Compare(b Quantities) int {
	return slices.CompareFunc(a, b, func(x, y Quantity) int {
		return cmp.Or(strings.Compare(x.Name, y.Name), cmp.Compare(x.Amount, y.Amount))
	})
}

// String returns "cpus:4;mem:512".
func (a Quantities) String() string {
	parts := make([]string, len(a))
	for i, q := range a {
		parts[i] = q.Name + ":" + q.Amount.String()
	}
	return strings.Join(parts, ";")
}
