package engine

import (
	"fmt"
	"sort"
	"time"

	allocatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/allocator/v1"
)

// reason is why a client is not offered what is free on an agent.
type reason uint8

const (
	reasonNone     reason = iota
	reasonInactive        // the agent is not offered to anybody
	reasonLeft            // the agent is left alone after refused decisions
	reasonFull            // too little is free on the agent for anybody
	reasonSmall
	reasonFiltered
	reasonDeclined
	reasonReserved
	reasonGPUs
	reasonRegion
	reasonConstraints
	reasonLimit
	reasonKept      // what is free was taken back from tasks for another client
	reasonGuarantee // it would not help to meet a guarantee, in the first round
	reasonOffered   // nothing stands against it: an offer is about to be made
)

// String is the sentence that an operator reads.
func (r reason) String() string {
	switch r {
	case reasonInactive:
		return "the agent is disconnected, draining or deactivated"
	case reasonLeft:
		return "the agent is left alone for a moment after a refused decision"
	case reasonFull:
		return "less is free than is worth an offer"
	case reasonSmall:
		return "what is free for the role is less than is worth an offer"
	case reasonFiltered:
		return "the framework declined this much and set a filter"
	case reasonDeclined:
		return "the framework declined this much a moment ago"
	case reasonReserved:
		return "what is free is reserved to other roles, or needs a capability that the framework lacks"
	case reasonGPUs:
		return "the agent has GPUs, and the framework lacks GPU_RESOURCES"
	case reasonRegion:
		return "the agent is in another region, and the framework lacks REGION_AWARE"
	case reasonConstraints:
		return "the agent is not as the framework's offer constraints want it"
	case reasonKept:
		return "what is free was taken back from running tasks for another role, and is kept for it for a moment"
	case reasonLimit:
		return "the role's quota limit is reached, or the rest is kept for other roles' guarantees"
	}
	return "an offer is on its way, or others come first"
}

// Explain says why a framework is not being offered more.
func (e *Engine) Explain(now time.Duration, request *allocatorv1.ExplainRequest) *allocatorv1.ExplainResponse {
	f := e.ids[request.GetFrameworkId()]
	if f == nil {
		return &allocatorv1.ExplainResponse{}
	}
	e.settle()
	out := &allocatorv1.ExplainResponse{Known: true}
	for _, c := range f.clients {
		if c.subscribed && (request.GetRole() == "" || request.GetRole() == c.role.name) {
			out.Roles = append(out.Roles, e.explain(now, c, request.GetAgents()))
		}
	}
	sort.Slice(out.Roles, func(i, j int) bool { return out.Roles[i].GetRole() < out.Roles[j].GetRole() })
	return out
}

func (e *Engine) explain(now time.Duration, c *client, agents bool) *allocatorv1.RoleExplanation {
	out := &allocatorv1.RoleExplanation{
		Role: c.role.name, Suppressed: c.suppressed,
		FrameworkShare: e.share(&c.node), RoleShare: e.share(c.role.node),
	}
	for _, set := range e.smallestOf(c) {
		out.MinAllocatable = append(out.MinAllocatable, e.named(set))
	}
	for _, r := range c.framework.requests {
		out.Requested = append(out.Requested, e.named(r.want))
	}
	if e.preempt != nil {
		e.explainHunger(now, c, out)
	}
	e.root.walk(func(other *client) bool {
		out.Positions++
		if other == c {
			out.Position = out.Positions
		}
		return false
	})
	var count [reasonOffered + 1]uint32
	for _, a := range e.agents {
		if a == nil {
			continue
		}
		v := e.verdictFor(now, a, c)
		count[v.reason]++
		if agents {
			left := &allocatorv1.AgentExplanation{AgentId: a.id, Reason: v.reason.String()}
			if v.until > now {
				left.RemainingMs = uint64((v.until - now + time.Millisecond - 1) / time.Millisecond)
			}
			out.Agents = append(out.Agents, left)
		}
	}
	all := uint32(0)
	for r, n := range count {
		if all += n; n > 0 {
			out.Reasons = append(out.Reasons, &allocatorv1.ReasonCount{Reason: reason(r).String(), Agents: n})
		}
	}
	sort.SliceStable(out.Reasons, func(i, j int) bool { return out.Reasons[i].GetAgents() > out.Reasons[j].GetAgents() })
	out.Summary = summary(c, out, all, count[reasonOffered])
	return out
}

// explainHunger tells of the revocations that a client waits for.
func (e *Engine) explainHunger(now time.Duration, c *client, out *allocatorv1.RoleExplanation) {
	for i := range e.preempt.underWay {
		if r := &e.preempt.underWay[i]; r.keep.to == c && !r.ended {
			out.Revoking++
		}
	}
	if h := &c.hunger; h.starved && c.wants() {
		out.StarvedMs = uint64(max(time.Millisecond, now-h.since) / time.Millisecond)
		out.RevokeMs = uint64(max(0, h.since+e.preempt.After<<h.vain-now, e.preempt.refused.until-now) / time.Millisecond)
	}
}

// named is a set of amounts by name.
func (e *Engine) named(set []amount) *allocatorv1.NamedQuantities {
	out := &allocatorv1.NamedQuantities{}
	for _, a := range set {
		out.Names, out.Thousandths = append(out.Names, e.cluster.Names[a.quantity]), append(out.Thousandths, a.thousandths)
	}
	return out
}

// verdictFor is consider, for an agent that may not be offered at all.
func (e *Engine) verdictFor(now time.Duration, a *agent, c *client) verdict {
	switch {
	case !a.active:
		return verdict{reason: reasonInactive}
	case now < a.left:
		return verdict{reason: reasonLeft, until: a.left}
	case !e.idle.has(a.number):
		return verdict{reason: reasonFull}
	}
	e.sharedGiven = false
	free := e.freeFor(now, a, c)
	_, v := e.consider(now, a, c, free)
	switch {
	case v.reason == reasonNone:
		v.reason = reasonOffered
	case v.reason == reasonSmall && !free.equal(a.free):
		v.reason = reasonKept
	}
	return v
}

func summary(c *client, out *allocatorv1.RoleExplanation, agents, offerable uint32) string {
	switch {
	case !c.framework.active:
		return "no scheduler of the framework is connected"
	case c.suppressed:
		return fmt.Sprintf("the framework has suppressed offers in role %q; it has to revive them", c.role.name)
	case agents == 0:
		return "there are no agents"
	case offerable > 0:
		return fmt.Sprintf("%d of %s can be offered; the framework is number %d of %d in the order of service",
			offerable, agentsText(agents), out.Position, out.Positions)
	}
	return fmt.Sprintf("on %d of %s %s", out.GetReasons()[0].GetAgents(), agentsText(agents), out.GetReasons()[0].GetReason())
}

func agentsText(n uint32) string {
	if n == 1 {
		return "1 agent"
	}
	return fmt.Sprintf("%d agents", n)
}

// share is a node's dominant share of the cluster, in millionths, whatever the
// policy ranks by.
func (e *Engine) share(n *node) uint64 {
	share := 0.0
	for i, held := range n.Held {
		if total := e.cluster.Total[i]; held > 0 && total > 0 {
			share = max(share, float64(held)/float64(total))
		}
	}
	return uint64(share*1e6 + 0.5)
}
