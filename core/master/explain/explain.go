// Package explain works out why a framework is not offered more, from what the
// master knows and what the allocator answered. It is a function of its facts:
// no I/O, no clock.
//
// Example: a framework that declined all that is free, with a long filter:
//
//	answer := explain.Explain(facts)
//	answer.Roles[0].Causes[0].Text   // "on 3 of 5 agents the framework itself declined …"
//	answer.Roles[0].Causes[0].Advice // "revive the role, which clears its filters, …"
package explain

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/mezzo-os/mezzo/core/master/state"
	allocatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/allocator/v1"
	operatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/operator/v1"
	"github.com/mezzo-os/mezzo/sdk/resource"
)

// Facts are what an explanation is made of, all of about the same moment.
type Facts struct {
	Now       time.Time
	Framework *state.FrameworkView
	// Role is the one to explain; empty: all of the framework's.
	Role   string
	Agents []*state.AgentView
	Offers []*state.OfferView
	Roles  []*state.RoleView
	// Names are those of all frameworks, by id.
	Names map[string]string
	// Known is what the machine alone knows.
	Known state.Explanation
	// Allocator is its answer, nil with AllocatorError when it gave none.
	Allocator      *allocatorv1.ExplainResponse
	AllocatorError string
	// OfferTimeout takes back offers that nobody answers; 0: never.
	OfferTimeout time.Duration
	// MinAllocatable are the sets of the configuration that are worth an offer.
	MinAllocatable []resource.Quantities
	// PerAgent: explain agent by agent too.
	PerAgent bool
}

// The kinds of causes; see Cause.kind of mezzo.operator.v1.
const (
	completed        = "completed"
	disconnected     = "disconnected"
	allocatorDown    = "allocator"
	noAgents         = "no_agents"
	agentsInactive   = "agents_inactive"
	agentsAwaited    = "agents_awaited"
	suppressed       = "suppressed"
	unanswered       = "unanswered"
	limitReached     = "limit"
	headroom         = "headroom"
	filtered         = "filtered"
	justDeclined     = "min_refuse"
	offeredElsewhere = "offered_elsewhere"
	nothingFree      = "nothing_free"
	heldBack         = "order"
	requested        = "requested"
	revoking         = "revoking"
	starved          = "starved"
)

// maxDetails bounds the particulars of one cause.
const maxDetails = 10

// Explain explains.
func Explain(f Facts) *operatorv1.ExplainResponse {
	out := &operatorv1.ExplainResponse{AllocatorError: f.AllocatorError, Causes: f.common()}
	if f.Framework.State == state.FrameworkCompleted {
		return out
	}
	for _, role := range f.Framework.Roles {
		if f.Role == "" || f.Role == role {
			out.Roles = append(out.Roles, f.role(role))
		}
	}
	return out
}

// common are the causes that concern all roles.
func (f Facts) common() []*operatorv1.Cause {
	var out []*operatorv1.Cause
	switch v := f.Framework; v.State {
	case state.FrameworkCompleted:
		return []*operatorv1.Cause{{
			Kind: completed, Text: "the framework ended " + span(f.Now.Sub(v.Unregistered)) + " ago; it will never be offered anything again",
			Advice: "subscribe as a new framework, without an id",
		}}
	case state.FrameworkDisconnected:
		out = append(out, f.gone())
	}
	if !f.Known.AllocatorReady {
		text := "no allocator decides at the moment, so nobody is offered anything; running work goes on"
		if f.AllocatorError != "" {
			text += " (" + f.AllocatorError + ")"
		}
		out = append(out, &operatorv1.Cause{Kind: allocatorDown, Text: text, Advice: "mezzo plugins says what is wrong with it"})
	}
	return append(out, f.inactive()...)
}

// gone says for how long no scheduler has been there.
func (f Facts) gone() *operatorv1.Cause {
	away := f.Now.Sub(f.Framework.Disconnected)
	timeout := time.Duration(f.Framework.Info.GetFailoverTimeout() * float64(time.Second))
	cause := &operatorv1.Cause{
		Kind: disconnected, Text: fmt.Sprintf("no scheduler of the framework has been connected for %s", span(away)),
		Advice: "start the framework's scheduler again",
	}
	if left := timeout - away; left > 0 {
		cause.Text += fmt.Sprintf("; in %s it is removed, and its tasks are ended", span(left))
	}
	return cause
}

// inactive says which agents are offered to nobody.
func (f Facts) inactive() []*operatorv1.Cause {
	if len(f.Agents) == 0 {
		return []*operatorv1.Cause{{Kind: noAgents, Text: "the cluster has no agents", Advice: "start an agent: mezzo agent --config FILE"}}
	}
	var list, awaited []string
	for _, a := range f.Agents {
		switch {
		case a.Awaited:
			awaited = append(awaited, a.Hostname+" ("+a.ID+")")
		case a.State != state.AgentActive:
			line := fmt.Sprintf("%s (%s) is %s", a.Hostname, a.ID, a.State)
			if a.Reason != "" {
				line += ": " + a.Reason
			}
			list = append(list, line)
		}
	}
	var out []*operatorv1.Cause
	if n := len(list); n > 0 {
		cause := &operatorv1.Cause{
			Kind: agentsInactive, Agents: uint32(n), Details: few(list),
			Text: fmt.Sprintf("%d of %s %s offered to nobody", n, count(len(f.Agents), "agent"), are(n)),
		}
		if n == len(f.Agents) {
			cause.Advice = "bring an agent back; mezzo agents shows them"
			if !slices.ContainsFunc(f.Agents, func(a *state.AgentView) bool { return !a.Deactivated }) {
				cause.Advice = "put an agent back into service: mezzo agent activate AGENT"
			}
		}
		out = append(out, cause)
	}
	if n := len(awaited); n > 0 {
		out = append(out, &operatorv1.Cause{
			Kind: agentsAwaited, Agents: uint32(n), Details: few(awaited),
			Text: fmt.Sprintf("%s not come back since this master began to lead", count(n, "agent", "has", "have")),
		})
	}
	return out
}

func (f Facts) role(name string) *operatorv1.RoleExplanation {
	out := &operatorv1.RoleExplanation{Role: name, Suppressed: slices.Contains(f.Framework.Suppressed, name)}
	if out.Suppressed {
		out.Causes = append(out.Causes, &operatorv1.Cause{
			Kind: suppressed, Text: fmt.Sprintf("the framework has suppressed offers in role %q", name),
			Advice: fmt.Sprintf("the framework has to revive role %q (the call REVIVE); nobody can do that for it", name),
		})
	}
	said := f.said(name)
	census := f.census(name, f.smallest(name, said))
	if c := f.unanswered(name); c != nil {
		out.Causes = append(out.Causes, c)
	}
	limits, cuts := f.limits(name, census)
	out.Causes = append(out.Causes, limits...)
	if c := f.headroom(name, census); c != nil && len(limits) == 0 {
		out.Causes = append(out.Causes, c)
	}
	out.Causes = append(out.Causes, census.causes(f)...)
	if said != nil {
		f.fromAllocator(out, said)
	}
	out.Causes = append(append(out.Causes, cuts...), census.wishes(said)...)
	// With agents to offer and nothing that the master knows of against it, what
	// the allocator says is the cause.
	if f.Framework.State == state.FrameworkActive && len(out.Causes) == 0 && len(census.open) > 0 && out.Summary != "" {
		out.Causes = append(out.Causes, &operatorv1.Cause{Kind: heldBack, Agents: uint32(len(census.open)), Text: out.Summary})
	}
	agents := out.Agents
	out.Agents = nil
	if f.PerAgent {
		out.Agents = census.perAgent(agents)
	}
	return out
}

// said is the allocator's answer for a role; nil: it gave none.
func (f Facts) said(role string) *allocatorv1.RoleExplanation {
	for _, r := range f.Allocator.GetRoles() {
		if r.Role == role {
			return r
		}
	}
	return nil
}

// smallest are the sets that are worth an offer in a role: as the allocator
// says, else as the framework has asked, else as the configuration has them.
func (f Facts) smallest(role string, said *allocatorv1.RoleExplanation) []resource.Quantities {
	if said != nil && len(said.MinAllocatable) > 0 {
		return namedSets(said.MinAllocatable)
	}
	var own []resource.Quantities
	for _, q := range f.Framework.Info.GetOfferFilters()[role].GetMinAllocatableResources().GetQuantities() {
		var list []resource.Quantity
		for name, v := range q.GetQuantities() {
			list = append(list, resource.Quantity{Name: name, Amount: resource.ScalarFromFloat(v.GetValue())})
		}
		own = append(own, resource.NewQuantities(list...))
	}
	switch {
	case len(own) > 0:
		return own
	case len(f.MinAllocatable) > 0:
		return f.MinAllocatable
	}
	return usual
}

// usual is what is worth an offer where nobody says otherwise; see Begin of the
// allocator's contract.
var usual = []resource.Quantities{{{Name: "cpus", Amount: 10}}, {{Name: "mem", Amount: 32 * resource.Unit}}}

func namedSets(list []*allocatorv1.NamedQuantities) (sets []resource.Quantities) {
	for _, n := range list {
		var set []resource.Quantity
		for i, name := range n.GetNames() {
			if i < len(n.GetThousandths()) {
				set = append(set, resource.Quantity{Name: name, Amount: resource.Scalar(n.GetThousandths()[i])})
			}
		}
		sets = append(sets, resource.NewQuantities(set...))
	}
	return sets
}

func (f Facts) fromAllocator(out *operatorv1.RoleExplanation, r *allocatorv1.RoleExplanation) {
	out.Summary = r.Summary
	out.FrameworkShare, out.RoleShare = float64(r.FrameworkShare)/1e6, float64(r.RoleShare)/1e6
	out.Position, out.Positions = r.Position, r.Positions
	for _, c := range r.Reasons {
		out.Reasons = append(out.Reasons, &operatorv1.ReasonCount{Reason: c.Reason, Agents: c.Agents})
	}
	for _, a := range r.Agents {
		out.Agents = append(out.Agents, &operatorv1.AgentExplanation{AgentId: a.AgentId, Reason: a.Reason, RemainingSeconds: float64(a.RemainingMs) / 1000})
	}
}

// unanswered says which offers the framework has and has not answered.
func (f Facts) unanswered(role string) *operatorv1.Cause {
	var list []string
	var oldest time.Duration
	for _, o := range f.Offers {
		if o.FrameworkID != f.Framework.ID || o.Role != role {
			continue
		}
		age := f.Now.Sub(o.Created)
		oldest = max(oldest, age)
		list = append(list, fmt.Sprintf("%s on %s, %s, for %s", o.ID, o.Hostname, amounts(o.Resources), span(age)))
	}
	if len(list) == 0 {
		return nil
	}
	c := &operatorv1.Cause{
		Kind: unanswered, Agents: uint32(len(list)), Details: few(list),
		Text:   fmt.Sprintf("it has %s that it has not answered, the oldest for %s", count(len(list), "offer"), span(oldest)),
		Advice: "accept or decline the offers that it has",
	}
	if f.OfferTimeout > 0 {
		c.RemainingSeconds = max(0, (f.OfferTimeout - oldest).Seconds())
		c.Text += fmt.Sprintf("; offers are taken back after %s", span(f.OfferTimeout))
	}
	return c
}

// limits says which limits of the role and of those above it are reached, and
// by whom; and which ones cut offers down.
func (f Facts) limits(role string, census *census) (out, cuts []*operatorv1.Cause) {
	for _, r := range f.Roles {
		if !resource.IsAncestorOrSelf(r.Name, role) {
			continue
		}
		for _, limit := range r.Limit {
			if limit.Amount == 0 && limit.Name != "cpus" && limit.Name != "mem" {
				continue // forbidden, which is no obstacle to offers of the rest
			}
			have := r.Consumed.Get(limit.Name)
			if have < limit.Amount {
				if c := cutCause(r.Name, limit, have, census); c != nil {
					cuts = append(cuts, c)
				}
				continue
			}
			c := &operatorv1.Cause{
				Kind: limitReached, Text: fmt.Sprintf("the limit of role %q is reached: it has %s of %s %s", r.Name, have, limit.Amount, limit.Name),
				Advice: fmt.Sprintf("raise the limit (mezzo quota set %s --limit …), or end something in the role", r.Name),
			}
			var list []string
			for _, h := range f.Known.Holders {
				if h.Limited == r.Name && h.Held.Get(limit.Name) > 0 {
					list = append(list, fmt.Sprintf("%s has %s:%s in role %q", f.name(h.FrameworkID), limit.Name, h.Held.Get(limit.Name), h.Role))
				}
			}
			c.Details = few(list)
			out = append(out, c)
		}
	}
	return out, cuts
}

// cutCause says that a limit keeps a role from having all that is free on an
// agent in one offer; nil: it does not.
func cutCause(role string, limit resource.Quantity, have resource.Scalar, census *census) *operatorv1.Cause {
	room := limit.Amount - have
	if free := census.largest.Get(limit.Name); free <= room || limit.Amount == 0 {
		return nil
	}
	return &operatorv1.Cause{
		Kind:   limitReached,
		Text:   fmt.Sprintf("no offer has more than %s %s: the limit of role %q is %s, and it has %s", room, limit.Name, role, limit.Amount, have),
		Advice: fmt.Sprintf("raise the limit (mezzo quota set %s --limit …), if the framework needs more than that", role),
	}
}

// headroom says when what is free is kept for the guarantees of others.
func (f Facts) headroom(role string, census *census) *operatorv1.Cause {
	var lacking resource.Quantities
	var list []string
	own := func(name string) bool {
		return resource.IsAncestorOrSelf(name, role) || resource.IsAncestorOrSelf(role, name)
	}
	for _, r := range f.Roles {
		for _, g := range r.Guarantee {
			lack := g.Amount - r.Consumed.Get(g.Name)
			if lack <= 0 || own(r.Name) {
				continue
			}
			list = append(list, fmt.Sprintf("role %q lacks %s of the %s %s that it is guaranteed", r.Name, lack, g.Amount, g.Name))
			lacking = lacking.Add(resource.Quantities{{Name: g.Name, Amount: lack}})
		}
	}
	if !slices.ContainsFunc(census.each, func(a *agent) bool { return census.enough(a.free) }) {
		return nil // nothing would be offered to anybody
	}
	for _, q := range lacking {
		free := census.free.Get(q.Name)
		if q.Name != "cpus" && q.Name != "mem" || free == 0 || q.Amount < free {
			continue
		}
		return &operatorv1.Cause{
			Kind: headroom, Details: few(list),
			Text: fmt.Sprintf("what is free is held back for guarantees: %s %s %s free, and other roles still lack %s", free, q.Name, areFree(free), q.Amount),
			Advice: "add agents, lower the guarantees of others (mezzo quota get lists them), " +
				"or give this role a guarantee of its own",
		}
	}
	return nil
}

func areFree(n resource.Scalar) string {
	if n == resource.Unit {
		return "is"
	}
	return "are"
}

// name is how a framework is called for people.
func (f Facts) name(id string) string {
	if n := f.Names[id]; n != "" {
		return fmt.Sprintf("%s (%s)", n, id)
	}
	return id
}

// span is a duration in the two units that matter.
func span(d time.Duration) string {
	switch d = max(d, 0); {
	case d < time.Second:
		return fmt.Sprintf("%dms", d.Milliseconds())
	case d < time.Minute:
		return d.Round(time.Second / 10).String()
	case d < time.Hour:
		return twoUnits(d, time.Minute, "m", time.Second, "s")
	case d < 48*time.Hour:
		return twoUnits(d, time.Hour, "h", time.Minute, "m")
	}
	return twoUnits(d, 24*time.Hour, "d", time.Hour, "h")
}

func twoUnits(d, large time.Duration, l string, small time.Duration, s string) string {
	out := fmt.Sprintf("%d%s", d/large, l)
	if rest := d % large / small; rest > 0 {
		out += fmt.Sprintf("%d%s", rest, s)
	}
	return out
}

// count is "1 agent" or "3 agents", with a verb to match if two are given.
func count(n int, noun string, verbs ...string) string {
	i := 1
	if n == 1 {
		i = 0
	} else {
		noun += "s"
	}
	out := fmt.Sprintf("%d %s", n, noun)
	if len(verbs) == 2 {
		out += " " + verbs[i]
	}
	return out
}

func are(n int) string {
	if n == 1 {
		return "is"
	}
	return "are"
}

// few bounds a list of particulars.
func few(list []string) []string {
	if len(list) > maxDetails {
		return append(slices.Clone(list[:maxDetails]), fmt.Sprintf("and %d more", len(list)-maxDetails))
	}
	return list
}

// amounts prints resources for people.
func amounts(r resource.Resources) string {
	if r.IsEmpty() {
		return "nothing"
	}
	return strings.ReplaceAll(r.String(), ";", " ")
}
