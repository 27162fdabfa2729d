package explain

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/structpb"

	"github.com/mezzo-os/mezzo/core/master/state"
	allocatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/allocator/v1"
	operatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/operator/v1"
	"github.com/mezzo-os/mezzo/sdk/resource"
)

// census sorts the active agents by what stands first against offering them in
// a role.
type census struct {
	all int // agents, active or not
	// free is what is free on active agents, unreserved.
	free resource.Quantities
	// largest is what is free on the agent that has the most, by cpus, then mem.
	largest     resource.Resources
	largestHost string
	// smallest are the sets that are worth an offer; any of them is enough.
	smallest []resource.Quantities

	full, elsewhere, open []*agent
	filtered, declined    []*agent
	own                   []*agent // offers of the framework's own are there
	each                  []*agent // all, in order
}

type agent struct {
	*state.AgentView
	free   resource.Resources
	reason string
	// filter is what the framework has declined there, if that stands against
	// an offer.
	filter *state.FilterView
}

// enough is whether resources are worth an offer.
func (c *census) enough(r resource.Resources) bool {
	return slices.ContainsFunc(c.smallest, func(set resource.Quantities) bool { return covers(r, set) })
}

// covers is whether resources have as much as a set that is not empty.
func covers(r resource.Resources, set resource.Quantities) bool {
	return len(set) > 0 && !slices.ContainsFunc(set, func(q resource.Quantity) bool { return r.Get(q.Name) < q.Amount })
}

func (f Facts) census(role string, smallest []resource.Quantities) *census {
	c := &census{all: len(f.Agents), smallest: smallest}
	mine := map[string]bool{}
	for _, o := range f.Offers {
		if o.FrameworkID == f.Framework.ID && o.Role == role {
			mine[o.AgentID] = true
		}
	}
	filters := map[string][]*state.FilterView{}
	for i := range f.Known.Filters {
		if x := &f.Known.Filters[i]; x.Role == role {
			filters[x.AgentID] = append(filters[x.AgentID], x)
		}
	}
	for _, v := range f.Agents {
		a := &agent{AgentView: v}
		c.each = append(c.each, a)
		if v.State != state.AgentActive {
			a.reason = string(v.State)
			if v.Reason != "" {
				a.reason += ": " + v.Reason
			}
			continue
		}
		unused := v.Total.Minus(v.Used)
		a.free = unused.Minus(v.Offered).AllocatableTo(role)
		c.free = c.free.Add(a.free.Filter(func(k resource.Kind) bool { return !k.IsReserved() }).Quantities())
		c.measure(a)
		switch x := covering(filters[v.ID], f.within(role, a.free)); {
		case !c.enough(a.free) && mine[v.ID]:
			a.reason = "it is offered to the framework already"
			c.own = append(c.own, a)
		case !c.enough(a.free) && c.enough(unused.AllocatableTo(role)):
			a.reason = "what is free is in offers to others"
			c.elsewhere = append(c.elsewhere, a)
		case !c.enough(a.free):
			a.reason = "it is full"
			c.full = append(c.full, a)
		case x != nil && x.Soft:
			a.reason, a.filter = "the framework declined it a moment ago", x
			c.declined = append(c.declined, a)
		case x != nil:
			a.reason, a.filter = "the framework declined it and set a filter", x
			c.filtered = append(c.filtered, a)
		default:
			c.open = append(c.open, a)
		}
	}
	return c
}

// within is the part of what is free that the limits of a role and of those above
// it leave room for.
func (f Facts) within(role string, free resource.Resources) resource.Resources {
	for _, r := range f.Roles {
		if !resource.IsAncestorOrSelf(r.Name, role) {
			continue
		}
		for _, limit := range r.Limit {
			room := max(0, limit.Amount-r.Consumed.Get(limit.Name))
			if over := free.Unreserved().Get(limit.Name) - room; over > 0 {
				free = free.Minus(resource.ScalarOf(limit.Name, over))
			}
		}
	}
	return free
}

func (c *census) measure(a *agent) {
	more := func(x, y resource.Resources) bool {
		if x.Get("cpus") != y.Get("cpus") {
			return x.Get("cpus") > y.Get("cpus")
		}
		return x.Get("mem") > y.Get("mem")
	}
	if more(a.free, c.largest) {
		c.largest, c.largestHost = a.free, a.Hostname
	}
}

// covering is the filter that stands longest against an offer of r: that of
// something of which r is a part.
func covering(list []*state.FilterView, r resource.Resources) *state.FilterView {
	var found *state.FilterView
	for _, x := range list {
		if x.Resources.Contains(r) && (found == nil || x.Remaining > found.Remaining) {
			found = x
		}
	}
	return found
}

// causes are what the census says, what concerns most agents first.
func (c *census) causes(f Facts) []*operatorv1.Cause {
	var out []*operatorv1.Cause
	add := func(kind string, list []*agent, make func([]*agent) *operatorv1.Cause) {
		if len(list) > 0 {
			cause := make(list)
			cause.Kind, cause.Agents = kind, uint32(len(list))
			out = append(out, cause)
		}
	}
	add(filtered, c.filtered, c.filteredCause)
	add(justDeclined, c.declined, c.declinedCause)
	add(offeredElsewhere, c.elsewhere, func(list []*agent) *operatorv1.Cause { return c.elsewhereCause(f, list) })
	add(nothingFree, c.full, c.fullCause)
	slices.SortStableFunc(out, func(a, b *operatorv1.Cause) int { return int(b.Agents) - int(a.Agents) })
	return out
}

func (c *census) of(n int) string { return fmt.Sprintf("on %d of %s", n, count(c.all, "agent")) }

func (c *census) filteredCause(list []*agent) *operatorv1.Cause {
	first, last := ends(list)
	text := fmt.Sprintf("%s the framework itself declined what is free, and set a filter", c.of(len(list)))
	if first == last {
		text += " that ends in " + span(first)
	} else {
		text += fmt.Sprintf("; the first ends in %s, the last in %s", span(first), span(last))
	}
	return &operatorv1.Cause{
		Text: text, RemainingSeconds: first.Seconds(), Details: few(filterLines(list)),
		Advice: "revive the role, which clears its filters, or decline with a shorter filter (refuse_seconds)",
	}
}

func (c *census) declinedCause(list []*agent) *operatorv1.Cause {
	first, _ := ends(list)
	return &operatorv1.Cause{
		Text: fmt.Sprintf("%s the framework declined what is free a moment ago; min_refuse keeps it from being repeated for %s",
			c.of(len(list)), span(first)),
		RemainingSeconds: first.Seconds(),
	}
}

// ends are when the first and the last of the filters end.
func ends(list []*agent) (first, last time.Duration) {
	first = list[0].filter.Remaining
	for _, a := range list {
		first, last = min(first, a.filter.Remaining), max(last, a.filter.Remaining)
	}
	return first, last
}

func filterLines(list []*agent) []string {
	var out []string
	for _, a := range list {
		out = append(out, fmt.Sprintf("%s: %s free, declined for %s more", a.Hostname, amounts(a.free), span(a.filter.Remaining)))
	}
	return out
}

// patient is for how long an offer may be unanswered before it is worth a word.
const patient = time.Minute

func (c *census) elsewhereCause(f Facts, list []*agent) *operatorv1.Cause {
	type holder struct {
		id     string
		offers int
		oldest time.Duration
	}
	var holders []*holder
	for _, o := range f.Offers {
		if !slices.ContainsFunc(list, func(a *agent) bool { return a.ID == o.AgentID }) {
			continue
		}
		i := slices.IndexFunc(holders, func(h *holder) bool { return h.id == o.FrameworkID })
		if i < 0 {
			i = len(holders)
			holders = append(holders, &holder{id: o.FrameworkID})
		}
		holders[i].offers++
		holders[i].oldest = max(holders[i].oldest, f.Now.Sub(o.Created))
	}
	slices.SortStableFunc(holders, func(a, b *holder) int { return int(b.oldest - a.oldest) })
	cause := &operatorv1.Cause{Text: fmt.Sprintf("%s what is free is in offers that others have not answered", c.of(len(list)))}
	var lines []string
	for _, h := range holders {
		lines = append(lines, fmt.Sprintf("%s has %s, the oldest for %s", f.name(h.id), count(h.offers, "offer"), span(h.oldest)))
		if h.oldest >= patient && f.OfferTimeout == 0 {
			cause.Advice = "set offer_timeout in the master's configuration, so that offers which nobody answers are taken back"
		}
	}
	cause.Details = few(lines)
	return cause
}

func (c *census) fullCause(list []*agent) *operatorv1.Cause {
	cause := &operatorv1.Cause{Text: fmt.Sprintf("%s nothing is free that is worth an offer (%s)", c.of(len(list)), c.least())}
	if c.enough(c.largest) {
		cause.Details = []string{fmt.Sprintf("the most that is free on one agent is %s, on %s", amounts(c.largest), c.largestHost)}
	}
	if len(list) == c.all {
		cause.Text = fmt.Sprintf("nothing is free on any agent that is worth an offer (%s)", c.least())
		if !c.largest.IsEmpty() {
			cause.Details = []string{fmt.Sprintf("the most that is free on one agent is %s, on %s", amounts(c.largest), c.largestHost)}
		}
		cause.Advice = "add agents, or end something; mezzo roles shows who has how much"
	}
	return cause
}

// least says what is worth an offer.
func (c *census) least() string {
	var sets []string
	for _, set := range c.smallest {
		sets = append(sets, strings.ReplaceAll(set.String(), ";", " "))
	}
	if len(sets) == 0 {
		return "the allocator says how much that is"
	}
	return "that is " + strings.Join(sets, ", or ")
}

// wishes are what the framework waits for: resources that it requested, and
// tasks of others that end, or will, for it.
func (c *census) wishes(said *allocatorv1.RoleExplanation) (out []*operatorv1.Cause) {
	var large []string
	for _, want := range namedSets(said.GetRequested()) {
		if !slices.ContainsFunc(c.each, func(a *agent) bool { return covers(a.free, want) }) {
			large = append(large, fmt.Sprintf("requested: %s", strings.ReplaceAll(want.String(), ";", " ")))
		}
	}
	if len(large) > 0 {
		cause := &operatorv1.Cause{
			Kind: requested, Details: few(large),
			Text:   fmt.Sprintf("no agent has as much free as the framework has requested; the most is %s", amounts(c.largest)),
			Advice: "request less on one agent, add larger agents, or end something",
		}
		if c.largestHost != "" {
			cause.Text += ", on " + c.largestHost
		}
		out = append(out, cause)
	}
	left := time.Duration(said.GetRevokeMs()) * time.Millisecond
	hungry := time.Duration(said.GetStarvedMs()) * time.Millisecond
	switch n := int(said.GetRevoking()); {
	case n > 0:
		out = append(out, &operatorv1.Cause{Kind: revoking, Text: fmt.Sprintf("%s of others %s being ended for it; what they leave is kept for it", count(n, "task"), are(n))})
	case hungry > 0 && left > 0:
		out = append(out, &operatorv1.Cause{Kind: starved, RemainingSeconds: left.Seconds(),
			Text: fmt.Sprintf("it has had less than its share or its guarantee for %s; in %s tasks of others may be ended for it", span(hungry), span(left))})
	case hungry > 0:
		out = append(out, &operatorv1.Cause{Kind: starved,
			Text: fmt.Sprintf("it has had less than its share or its guarantee for %s, and no tasks of others are found that may be ended for it", span(hungry))})
	}
	return out
}

// perAgent joins what the master knows of each agent with what the allocator
// says of it.
func (c *census) perAgent(said []*operatorv1.AgentExplanation) []*operatorv1.AgentExplanation {
	byID := map[string]*operatorv1.AgentExplanation{}
	for _, a := range said {
		byID[a.AgentId] = a
	}
	out := make([]*operatorv1.AgentExplanation, 0, len(c.each))
	for _, a := range c.each {
		e := &operatorv1.AgentExplanation{AgentId: a.ID, Hostname: a.Hostname, State: string(a.State), Reason: a.reason, Free: freeMessage(a.free)}
		if a.filter != nil {
			e.RemainingSeconds = a.filter.Remaining.Seconds()
		}
		// Where the master sees nothing against an offer, the allocator knows.
		if s := byID[a.ID]; e.Reason == "" && s != nil {
			e.Reason, e.RemainingSeconds = s.Reason, s.RemainingSeconds
		}
		out = append(out, e)
	}
	return out
}

func freeMessage(r resource.Resources) *structpb.Struct {
	q := r.Quantities()
	if len(q) == 0 {
		return nil
	}
	out := &structpb.Struct{Fields: map[string]*structpb.Value{}}
	for _, x := range q {
		out.Fields[x.Name] = structpb.NewNumberValue(x.Amount.Float())
	}
	return out
}
