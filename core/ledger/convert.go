package ledger

import (
	"errors"
	"fmt"
	"slices"

	"github.com/mezzo-os/mezzo/sdk/resource"
)

// ErrInUse means that a shared resource cannot be changed because others have it.
var ErrInUse = errors.New("it is in use")

// Conversion changes the kind of resources: reserve, unreserve, create, destroy,
// grow, shrink.
type Conversion struct {
	Agent string
	// Offers are those that the resources are in, all of the same agent, framework
	// and role; what they become is in the first of them. Empty: the resources are
	// free, and an operator converts them.
	Offers []string
	// From and To have the same quantities.
	From, To resource.Resources
	// IgnoreLimits carries it out even if a role's limit is exceeded by it.
	IgnoreLimits bool
}

// Convert carries out a conversion: the agent's total changes, and what the
// offers have or what is free changes with it. On an error nothing has changed:
// ErrUnknownAgent, ErrUnknownOffer, ErrMismatch (also of quantities), ErrNotHeld,
// ErrInUse (a shared resource that another offer or use has), or a *Refusal with
// the reason Limit.
func (l *Ledger) Convert(c Conversion) error {
	c.From, c.To = c.From.Unallocate(), c.To.Unallocate()
	a := l.agents[c.Agent]
	if a == nil {
		return fmt.Errorf("agent %s: %w", c.Agent, ErrUnknownAgent)
	}
	from, err := l.sources(c.Offers)
	if err != nil {
		return err
	}
	if len(from) > 0 && from[0].Agent != c.Agent {
		return fmt.Errorf("offer %s is not of agent %s: %w", from[0].ID, c.Agent, ErrMismatch)
	}
	if err := sameQuantities(c.From, c.To); err != nil {
		return err
	}
	parts, err := a.convertible(c, from)
	if err != nil {
		return err
	}
	holder := ""
	if len(from) > 0 {
		holder = from[0].Role
	}
	if r := l.checkConversion(c, holder); r != nil && !c.IgnoreLimits {
		return r
	}
	total := a.total.Minus(c.From).Add(c.To)
	if len(from) == 0 {
		l.setTotal(a, total)
		a.settle()
		return nil
	}
	l.move(from, parts)
	l.setTotal(a, total)
	a.settle()
	from[0].Resources = from[0].Resources.Add(c.To)
	l.hold(from[0].holding, offered, c.To)
	return nil
}

// convertible checks that the resources are where they are said to be, and
// returns what comes from each offer.
func (a *agent) convertible(c Conversion, from []*outstanding) ([]resource.Resources, error) {
	if missing := c.From.Minus(a.total); !missing.IsEmpty() {
		return nil, fmt.Errorf("%s is not in the total of agent %s: %w", missing, a.id, ErrNotHeld)
	}
	parts, err := draw(from, c.From)
	if len(from) == 0 {
		parts, err = nil, nil
		if missing := c.From.Minus(a.free); !missing.IsEmpty() {
			err = fmt.Errorf("%s is not free on agent %s: %w", missing, a.id, ErrNotHeld)
		}
	}
	if err != nil {
		return nil, err
	}
	if gone := a.conflicts(c.From); len(from) > 0 && !gone.IsEmpty() {
		return nil, fmt.Errorf("%s is in an offer and agent %s has it no more: %w", gone, a.id, ErrNotHeld)
	}
	if shared := c.From.Shared(); !shared.IsEmpty() {
		others := a.offered.Add(a.used)
		for _, p := range parts {
			others = others.Minus(p)
		}
		// One copy is enough to be in the way, so the counts do not matter.
		for i := range shared {
			one := shared[i]
			one.Count = 1
			if others.Contains(resource.Resources{one}) {
				return nil, fmt.Errorf("%s on agent %s: %w", resource.Resources{one}, a.id, ErrInUse)
			}
		}
	}
	return parts, nil
}

// sameQuantities checks that nothing appears or vanishes by a conversion.
func sameQuantities(from, to resource.Resources) error {
	if from.IsEmpty() {
		return fmt.Errorf("a conversion of nothing: %w", ErrMismatch)
	}
	if a, b := from.Quantities(), to.Quantities(); !a.Equal(b) {
		return fmt.Errorf("%s cannot become %s, the amounts differ: %w", from, orNothing(to), ErrMismatch)
	}
	for _, name := range slices.Compact(append(from.Names(), to.Names()...)) {
		if !slices.Equal(from.RangesOf(name), to.RangesOf(name)) || !slices.Equal(from.SetOf(name), to.SetOf(name)) {
			return fmt.Errorf("%s cannot become %s, the %s differ: %w", from, orNothing(to), name, ErrMismatch)
		}
	}
	return nil
}

// checkConversion checks the limits of all roles that would consume more.
func (l *Ledger) checkConversion(c Conversion, holder string) *Refusal {
	growth := func(n *role) tally {
		var t tally
		n.consumes(&t, c.To, holder, +1)
		n.consumes(&t, c.From, holder, -1)
		return t
	}
	for i := range c.To {
		if k := c.To[i].Kind; k.IsReserved() {
			if r := l.checkLimits(k.Role(), growth); r != nil {
				return r
			}
		}
	}
	if holder == "" {
		return nil
	}
	return l.checkLimits(holder, growth)
}

// consumes adds what of r the role consumes when holder, if any, has it.
func (n *role) consumes(t *tally, r resource.Resources, holder string, sign resource.Scalar) {
	for i := range r {
		k := r[i].Kind
		reserved := k.IsReserved() && resource.IsAncestorOrSelf(n.name, k.Role())
		if reserved || holder != "" && resource.IsAncestorOrSelf(n.name, holder) && n.charges(k) {
			t.addOne(&r[i], sign)
		}
	}
}
