package engine

import (
	"regexp"

	"google.golang.org/protobuf/proto"

	allocatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/allocator/v1"
	schedulerv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1/scheduler"
)

// constraints are what a framework wants an agent to be like in one of its
// roles: all conditions of one of the groups. Nil: any agent will do.
type constraints [][]condition

type condition struct {
	pseudo pseudoattribute // what the attribute is, when it is none of the agent's
	name   string
	// met says whether a text meets the condition.
	met func(text string) bool
	// absent says whether having no such attribute meets it; other whether one
	// that is no text does.
	absent, other bool
}

type pseudoattribute = schedulerv1.AttributeConstraint_Selector_PseudoattributeType

// parseConstraints reads a serialised RoleConstraints. What cannot be read, or
// is of a form that is not known, is met by no agent: an offer that is not made
// is the smaller mistake, and the core has checked them.
func parseConstraints(data []byte) constraints {
	if len(data) == 0 {
		return nil
	}
	var message schedulerv1.OfferConstraints_RoleConstraints
	if err := proto.Unmarshal(data, &message); err != nil {
		return constraints{}
	}
	out := constraints{}
	for _, group := range message.GetGroups() {
		conditions, ok := []condition{}, true
		for _, c := range group.GetAttributeConstraints() {
			parsed, known := parseCondition(c)
			conditions, ok = append(conditions, parsed), ok && known
		}
		if ok {
			out = append(out, conditions)
		}
	}
	return out
}

func parseCondition(c *schedulerv1.AttributeConstraint) (condition, bool) {
	out := condition{name: c.GetSelector().GetAttributeName(), pseudo: c.GetSelector().GetPseudoattributeType(), other: true}
	if out.name == "" && out.pseudo == schedulerv1.AttributeConstraint_Selector_UNKNOWN {
		return condition{}, false
	}
	always := func(met bool) func(string) bool { return func(string) bool { return met } }
	switch p := c.GetPredicate(); {
	case p.GetExists() != nil:
		out.met = always(true)
	case p.GetNotExists() != nil:
		out.met, out.absent, out.other = always(false), true, false
	case p.GetTextEquals() != nil:
		want := p.GetTextEquals().GetValue()
		out.met = func(text string) bool { return text == want }
	case p.GetTextNotEquals() != nil:
		bar := p.GetTextNotEquals().GetValue()
		out.met, out.absent = func(text string) bool { return text != bar }, true
	case p.GetTextMatches() != nil:
		whole, err := regexp.Compile(`\A(?:` + p.GetTextMatches().GetRegex() + `)\z`)
		if err != nil {
			return condition{}, false
		}
		out.met = whole.MatchString
	case p.GetTextNotMatches() != nil:
		whole, err := regexp.Compile(`\A(?:` + p.GetTextNotMatches().GetRegex() + `)\z`)
		if err != nil {
			return condition{}, false
		}
		out.met, out.absent = func(text string) bool { return !whole.MatchString(text) }, true
	default:
		return condition{}, false
	}
	return out, true
}

// meets reports whether the agent is as the constraints want it.
func (a *agent) meets(c constraints) bool {
	if c == nil {
		return true
	}
	for _, group := range c {
		all := true
		for i := range group {
			if !a.meetsOne(&group[i]) {
				all = false
				break
			}
		}
		if all {
			return true
		}
	}
	return false
}

// meetsOne tries the agent's attributes of the name: one that meets the
// condition is enough.
func (a *agent) meetsOne(c *condition) bool {
	if c.name == "" {
		text := a.hostname
		switch c.pseudo {
		case schedulerv1.AttributeConstraint_Selector_REGION:
			text = a.region
		case schedulerv1.AttributeConstraint_Selector_ZONE:
			text = a.zone
		}
		if text == "" {
			return c.absent
		}
		return c.met(text)
	}
	found := false
	for _, x := range a.attributes {
		if x.GetName() != c.name {
			continue
		}
		found = true
		if isText(x) && c.met(x.GetText()) || !isText(x) && c.other {
			return true
		}
	}
	return !found && c.absent
}

func isText(a *allocatorv1.Attribute) bool {
	return a.ScalarThousandths == nil && len(a.GetRanges()) == 0
}
