// Package link is what both ends of mezzo.link.v1 share: how resources are
// packed on it. It is pure.
package link

import (
	"fmt"
	"slices"

	"github.com/mezzo-os/mezzo/sdk/resource"

	linkv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/link/v1"
)

// Packer packs the resources of one registration. Kinds and set items are
// numbered from 1 as they come; Kinds returns those that are new. It is for one
// goroutine at a time.
//
//	p := link.NewPacker()
//	agent.Resources = p.Pack(total)
//	register.Kinds = p.Kinds()
type Packer struct {
	numbers map[resource.Kind]uint32
	kinds   []*linkv1.Kind
}

// NewPacker returns a packer that has numbered nothing.
func NewPacker() *Packer { return &Packer{numbers: map[resource.Kind]uint32{}} }

// Kinds returns the kinds that were numbered since it was last called: those
// of a registration's first part, then those that its second part adds.
func (p *Packer) Kinds() []*linkv1.Kind {
	out := p.kinds
	p.kinds = nil
	return out
}

// Pack packs resources, without their allocation info. A resource of several
// copies is there as many times.
func (p *Packer) Pack(list resource.Resources) *linkv1.Quantities {
	q := &linkv1.Quantities{}
	for i := range list {
		for range max(1, list[i].Count) {
			p.add(q, &list[i])
		}
	}
	return q
}

func (p *Packer) add(q *linkv1.Quantities, r *resource.Resource) {
	kind := r.Kind.WithAllocation("")
	number, known := p.numbers[kind]
	if !known {
		number = uint32(len(p.numbers) + 1)
		p.numbers[kind] = number
		p.kinds = append(p.kinds, &linkv1.Kind{Resource: kind.ToProto()})
	}
	q.Kinds = append(q.Kinds, number)
	switch kind.Type() {
	case resource.TypeScalar:
		q.Amounts = append(q.Amounts, int64(r.Scalar))
	case resource.TypeRanges:
		q.Amounts = append(q.Amounts, int64(len(r.Ranges)))
		last := uint64(0)
		for _, x := range r.Ranges {
			q.Amounts = append(q.Amounts, int64(x.Begin-last), int64(x.End-x.Begin))
			last = x.End
		}
	case resource.TypeSet:
		q.Amounts = append(q.Amounts, int64(len(r.Set)))
		for _, item := range r.Set {
			i := slices.Index(q.Symbols, item)
			if i < 0 {
				i = len(q.Symbols)
				q.Symbols = append(q.Symbols, item)
			}
			q.Amounts = append(q.Amounts, int64(i+1))
		}
	}
}

// Unpack reads what Pack wrote; kinds are all of the registration so far, in
// order. The resources carry no allocation info. The error says what is wrong.
func Unpack(kinds []resource.Kind, q *linkv1.Quantities) (resource.Resources, error) {
	list := make([]resource.Resource, 0, len(q.GetKinds()))
	amounts := q.GetAmounts()
	next := func() (int64, error) {
		if len(amounts) == 0 {
			return 0, fmt.Errorf("packed resources end too early")
		}
		x := amounts[0]
		amounts = amounts[1:]
		return x, nil
	}
	for _, number := range q.GetKinds() {
		if number == 0 || int(number) > len(kinds) {
			return nil, fmt.Errorf("packed resources name kind %d of %d", number, len(kinds))
		}
		r := resource.Resource{Kind: kinds[number-1].WithAllocation("")}
		if r.Kind.Atomic() {
			r.Count = 1
		}
		first, err := next()
		if err != nil {
			return nil, err
		}
		switch r.Kind.Type() {
		case resource.TypeScalar:
			if first < 0 || resource.Scalar(first) > resource.MaxScalar {
				return nil, fmt.Errorf("packed resource %q has the amount %d, which is negative or too large", r.Kind.Name(), first)
			}
			r.Scalar = resource.Scalar(first)
		case resource.TypeRanges:
			if first < 0 || first > int64(len(amounts)/2) {
				return nil, fmt.Errorf("packed resource %q has %d ranges, more than there is room for", r.Kind.Name(), first)
			}
			ranges := make([]resource.Range, first)
			last := uint64(0)
			for i := range ranges {
				begin := last + uint64(amounts[2*i])
				last = begin + uint64(amounts[2*i+1])
				ranges[i] = resource.Range{Begin: begin, End: last}
			}
			amounts = amounts[2*first:]
			r.Ranges = resource.NewRanges(ranges...)
		case resource.TypeSet:
			if first < 0 || first > int64(len(amounts)) {
				return nil, fmt.Errorf("packed resource %q has %d items, more than there is room for", r.Kind.Name(), first)
			}
			items := make([]string, first)
			for i := range items {
				s := amounts[i]
				if s < 1 || s > int64(len(q.GetSymbols())) {
					return nil, fmt.Errorf("packed resource %q names item %d of %d", r.Kind.Name(), s, len(q.GetSymbols()))
				}
				items[i] = q.GetSymbols()[s-1]
			}
			amounts = amounts[first:]
			r.Set = resource.NewSet(items...)
		}
		list = append(list, r)
	}
	if len(amounts) > 0 {
		return nil, fmt.Errorf("packed resources have %d amounts too many", len(amounts))
	}
	return resource.Of(list...), nil
}
