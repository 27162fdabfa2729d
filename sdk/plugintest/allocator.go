package plugintest

import (
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/mezzo-os/mezzo/sdk/allocator"
	"github.com/mezzo-os/mezzo/sdk/allocator/model"
	allocatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/allocator/v1"
	"github.com/mezzo-os/mezzo/sdk/resource"
)

// Rules of which every decision is judged, wherever it is made, and scenarios to
// which others refer; all are names of checks.
const (
	checkDecisions      = string(model.RuleDecisions)
	checkFrameworks     = string(model.RuleFrameworks)
	checkRevocation     = string(model.RuleRevocation)
	checkSnapshot       = "snapshot"
	checkConversions    = "conversions"
	checkSessions       = "sessions"
	checkSessionsBeside = "sessions-beside"
)

// allocatorRules are what an allocator must keep. What is an optional part of
// the contract is checked of those that describe it as a capability.
func allocatorRules() []rule {
	return []rule{
		{"ready", "It says ready once, after the snapshot's end, and decides nothing before.", playReady},
		{"acknowledges", "It acknowledges every event by its number, and none that it was not told.", playAcknowledges},
		{checkDecisions, "Decisions are numbered upwards from first_decision, can be read, and bear the session's number.", playNumbers},
		{"offers", "What is free is offered, in the end, to whoever wants it: at first, when it is freed, when it is new.", playOffers},
		{string(model.RuleOverCommit), "No decision gives away what is not free.", playStorm},
		{string(model.RuleFilters), "What a framework refused, or a part of it, is not offered to it again while its filter lasts.", playFilter},
		{"filter-expiry", "When a filter's time is over, the resources are offered again.", playFilterExpiry},
		{"filter-scope", "A filter keeps nothing from others: other frameworks, roles and agents, and more than was refused.", playFilterScope},
		{string(model.RuleMinRefuse), "An offer that was declined whole is not repeated at once, whatever its filter, and is later.", playMinRefuse},
		{"revive", "Revived ends filters and suppression: what was refused is offered again.", playRevive},
		{string(model.RuleSuppression), "A framework gets no offers in a role that it has suppressed, and goes on getting them in others.", playSuppressed},
		{string(model.RuleLimits), "No role gets more than its limit, nor than that of a role above it; a limit that is raised is used.", playLimit},
		{string(model.RuleGuarantees), "What roles lack of their guarantees is kept for them, and given to them. (capability headroom)", playGuarantees},
		{string(model.RuleRoles), "Offers are in roles that the framework is subscribed to; what is reserved goes to its role, or one below.", playRole},
		{string(model.RuleCapability), "A framework gets no resources that it lacks the capability for, and those that it has one for.", playCapabilities},
		{"shared", "What is shared is offered to several at a time. (capability shared)", playShared},
		{"constraints", "A framework gets offers of agents that meet its offer constraints alone. (capability constraints)", playConstraints},
		{string(model.RuleInactive), "Nothing of an agent is offered while it is not active: draining, deactivated, away; when it is again, it is.", playInactiveAgent},
		{string(model.RuleDeparted), "Nothing of an agent that is gone is offered; one that comes back is.", playDepartedAgent},
		{checkFrameworks, "Nothing is offered to a framework that is gone or has no scheduler; when it has one again, it is.", playInactiveFramework},
		{string(model.RuleSmallest), "Nothing is offered that is smaller than min_allocatable, the cluster's or the framework's own.", playMinAllocatable},
		{checkConversions, "What was reserved, unreserved or made a volume is offered as what it is now.", playConversions},
		{"unavailability", "An agent that is going to be unavailable is offered until it is.", playUnavailability},
		{string(model.RuleInverse), "Who holds something on an agent that is going to be unavailable is asked to leave, and not again within its filter. (capability inverse-offers)", playInverse},
		{checkRevocation, "Tasks are revoked where that is configured: each once, with its grace, no role below its guarantee. (capability revoke)", playRevocation},
		{"refusals", "After Refused it works with the agent as the core told it, and does not repeat the decision without end.", playRefusals},
		{checkSnapshot, "A session that begins with a snapshot goes on as if it had been told everything one by one.", playSnapshot},
		{checkSessions, "A session may be cut at any time, and another begun.", playSessions},
		{checkSessionsBeside, "A session may begin before the end of the last was noticed.", playSessionsBeside},
		{"unknown-events", "Events of an unknown form, unknown fields and unknown values are counted and passed over.", playUnknown},
		{"duplicate-events", "Events that are told twice do no harm.", playDuplicates},
		{"stale-events", "Events about what is gone do no harm.", playStale},
		{"rate", "It keeps to max_decisions_per_second.", playRate},
		{"burst", "It takes in events as fast as they come.", playBurst},
		{"idle", "It is silent when nothing changes.", playIdle},
		{"explain", "Explain knows the frameworks that it was told of, and says so of those that it was not.", playExplain},
	}
}

func playReady(c *scenario) {
	b := model.New(begun())
	s := c.sessionWith(b)
	for _, e := range []allocator.Event{
		&allocator.FrameworkUpdated{ID: "f", Name: "f", Roles: []string{"*"}, Active: true},
		&allocator.AgentUpdated{ID: "a", Total: resource.MustParse("cpus:4;mem:4096"), Active: true, HoldingsSet: true},
	} {
		b.Apply(e, 0, time.Now())
		s.snapshot(e)
	}
	s.pass(c.suite.window()) // what comes now is judged
	s.ended = true
	s.note("the snapshot ends")
	s.send(&allocatorv1.FromCore{Batch: &allocatorv1.Batch{Snapshot: true, SnapshotEnd: true}})
	if !s.await(func() bool { return s.ready }) {
		s.failf("%v after the snapshot's end it has not said that it is ready", c.suite.options.Patience)
	}
	s.settle()
}

func playAcknowledges(c *scenario) {
	s := c.session()
	s.acknowledged() // nothing: events_seen may stay 0
	for range 5 {
		s.tell(&allocator.RoleUpdated{Name: "a"}, &allocator.RoleUpdated{Name: "b"})
		s.acknowledged()
	}
	s.newAgent("a", "cpus:1;mem:512")
	s.newFramework("f", "a")
	s.acknowledged()
}

func playNumbers(c *scenario) {
	begin := begun()
	begin.FirstDecision = 1000
	s := c.sessionWith(model.New(begin))
	s.finish()
	s.newFramework("f", "*")
	s.newAgent("a", "cpus:4;mem:4096;ports:[31000-31009,32000-32009];zones:{x,y}")
	s.decline(s.need("f", "a"), 0)
	s.need("f", "a")
	s.settle()
}

// allOffered waits until nothing of an agent is free any more.
func (s *core) allOffered(agent, when string) {
	if !s.await(func() bool { return s.Free(agent).IsEmpty() }) {
		s.failf("%s, and %v later %s of it is not offered, though a framework wants it", when, s.c.suite.options.Patience, s.Free(agent))
	}
}

func playOffers(c *scenario) {
	s := c.session()
	s.newFramework("f", "*")
	for _, id := range []string{"a1", "a2", "a3"} {
		s.newAgent(id, "cpus:4;mem:4096;ports:[31000-31099]")
	}
	for _, id := range []string{"a1", "a2", "a3"} {
		s.allOffered(id, "agent "+id+" is free")
	}
	c.suite.reaction = max(c.suite.reaction, time.Since(s.told))
	for len(s.to("f", "a1")) > 0 {
		o := s.to("f", "a1")[0]
		s.accept(o, o.Resources.Intersect(resource.MustParse("cpus:1;mem:1024;ports:[31000-31009]")))
	}
	s.allOffered("a1", "tasks were launched on a1, and what was left is free")
	task := resource.MustParse("cpus:0.5;mem:512")
	s.tell(&allocator.Released{Agent: "a1", Framework: "f", Role: "*", Resources: task})
	s.allOffered("a1", "a task on a1 has ended")
	s.newAgent("a4", "cpus:0.5;mem:64")
	s.allOffered("a4", "agent a4 is new")
	c.suite.reaction = max(c.suite.reaction, time.Since(s.told))
	s.tell(&allocator.Suppressed{Framework: "f", Roles: []string{"*"}})
	s.newFramework("g", "eng/web")
	s.decline(s.to("f", "a4")[0], 0)
	s.allOffered("a4", "f has declined a4 and suppressed its role, and g in role eng/web is new")
	if len(s.to("g", "a4")) == 0 {
		s.failf("agent a4 was not offered to g")
	}
}

func playFilter(c *scenario) {
	s := c.session()
	s.newFramework("f", "*")
	s.newAgent("a1", "cpus:4;mem:4096")
	s.newAgent("a2", "cpus:4;mem:4096")
	s.need("f", "a1")
	s.need("f", "a2")
	s.settle()
	for _, o := range append(s.to("f", "a1"), s.to("f", "a2")...) {
		s.decline(o, time.Hour)
	}
	s.settle()
	// A part of what was refused is refused too.
	s.tell(&allocator.Held{Agent: "a1", Framework: "g", Role: "*", Resources: resource.MustParse("cpus:2")})
	s.settle()
	s.tell(&allocator.Released{Agent: "a1", Framework: "g", Role: "*", Resources: resource.MustParse("cpus:1")})
	s.settle()
	// Something else on the agent or the framework is no reason to ask again.
	s.tell(&allocator.RoleUpdated{Name: "*", Weight: 3000})
	s.settle()
}

func playFilterExpiry(c *scenario) {
	s := c.session()
	s.newFramework("f", "*")
	s.newAgent("a", "cpus:4;mem:4096")
	s.need("f", "a")
	s.settle()
	for _, o := range s.to("f", "") {
		s.decline(o, 700*time.Millisecond)
	}
	if s.wait("f", "a") == nil {
		s.failf("it was refused for 700 ms, and %v later it is not offered again", c.suite.options.Patience)
	}
}

func playFilterScope(c *scenario) {
	s := c.session()
	s.newFramework("f", "x", "y")
	s.newAgent("a", "cpus:2;mem:2048")
	o := s.need("f", "a")
	s.settle()
	other := map[string]string{"x": "y", "y": "x"}[o.Role]
	s.decline(o, time.Hour)
	if !s.await(func() bool { return len(s.to("f", "a")) > 0 }) {
		s.failf("f refused the agent in role %s; in role %s, in which it did not, it is not offered", o.Role, other)
	}
	s.settle()
	for _, o := range s.to("f", "a") {
		s.decline(o, time.Hour)
	}
	s.newAgent("b", "cpus:2;mem:2048")
	if s.wait("f", "b") == nil {
		s.failf("f refused another agent; b is new and is not offered to it")
	}
	s.tell(&allocator.AgentUpdated{ID: "a", Hostname: "a", Version: 2, Total: resource.MustParse("cpus:6;mem:6144"), Active: true})
	if s.wait("f", "a") == nil {
		s.failf("f refused cpus:2;mem:2048 of a; cpus:6;mem:6144 is free now, and is not offered to it")
	}
	s.settle()
	// Whose turn it is in f's two roles is policy: it refuses in both.
	s.answer = func(o *allocator.Offer) {
		if o.Framework == "f" {
			s.decline(o, time.Hour)
		}
	}
	for _, o := range s.to("f", "a") {
		s.decline(o, time.Hour)
	}
	s.newFramework("g", "z")
	if s.wait("g", "a") == nil {
		s.failf("f refused the agent, and g is new; it is not offered to g")
	}
}

func playRevive(c *scenario) {
	s := c.session()
	s.newFramework("f", "*")
	s.newAgent("a", "cpus:4;mem:4096")
	s.need("f", "a")
	s.settle()
	for _, o := range s.to("f", "a") {
		s.decline(o, time.Hour)
	}
	s.settle()
	s.tell(&allocator.Revived{Framework: "f", Roles: []string{"*"}})
	if s.wait("f", "a") == nil {
		s.failf("f refused the agent and then revived; it is not offered again")
	}
	s.settle()
	s.tell(&allocator.Suppressed{Framework: "f", Roles: []string{"*"}})
	for _, o := range s.to("f", "a") {
		s.decline(o, 0)
	}
	s.settle()
	s.tell(&allocator.Revived{Framework: "f", Roles: []string{"*"}})
	if s.wait("f", "a") == nil {
		s.failf("f suppressed its role and then revived; nothing is offered to it")
	}
}

func playSuppressed(c *scenario) {
	s := c.session()
	s.newFramework("f", "x", "y")
	s.tell(&allocator.Suppressed{Framework: "f", Roles: []string{"x"}})
	s.newAgent("a", "cpus:4;mem:4096")
	if s.wait("f", "a") == nil {
		s.failf("f suppressed role x, and is offered nothing in role y either")
	}
	s.settle()
	s.tell(&allocator.Suppressed{Framework: "f", Roles: []string{"y"}})
	for _, o := range s.to("f", "a") {
		s.decline(o, 0)
	}
	s.newAgent("b", "cpus:4;mem:4096")
	s.settle()
	s.tell(&allocator.FrameworkUpdated{ID: "f", Name: "f", Roles: []string{"x", "y"}, Suppressed: []string{"x", "y"}, Active: true})
	s.newAgent("c", "cpus:4;mem:4096")
	s.settle()
}

func playLimit(c *scenario) {
	cpus := func(n int) resource.Quantities {
		return resource.Quantities{{Name: "cpus", Amount: resource.Scalar(n) * resource.Unit}}
	}
	s := c.session()
	s.tell(&allocator.RoleUpdated{Name: "eng", Limit: cpus(4)}, &allocator.RoleUpdated{Name: "none", Limit: cpus(0)})
	s.newFramework("f", "eng/web")
	s.newFramework("g", "eng")
	s.newFramework("h", "none")
	for _, id := range []string{"a", "b", "c", "d", "e"} {
		s.newAgent(id, "cpus:2;mem:512")
	}
	held := func() resource.Scalar {
		var sum resource.Scalar
		for h, r := range s.Held {
			if resource.IsAncestorOrSelf("eng", h.Role) {
				sum += r.Get("cpus")
			}
		}
		return sum
	}
	if !s.await(func() bool { return held() > 0 }) {
		s.inconclusive("nothing was offered in role eng, which the scenario needs")
	}
	s.settle()
	s.tell(&allocator.RoleUpdated{Name: "eng", Limit: cpus(8)})
	before := held()
	if !s.await(func() bool { return held() > before }) {
		s.failf("the limit of role eng rose from 4 to 8 CPUs; it holds %v, and is offered no more", before)
	}
	s.settle()
	s.tell(&allocator.RoleUpdated{Name: "eng"})
	// What was offered without its CPUs comes again with them.
	for _, o := range append([]*allocator.Offer(nil), s.Offers...) {
		if o.Resources.Get("cpus") == 0 {
			s.decline(o, 0)
		}
	}
	before = held()
	if before < 10*resource.Unit && !s.await(func() bool { return held() > before }) {
		s.failf("the limit of role eng ended; it holds %v CPUs, and is offered no more", before)
	}
}

func playRole(c *scenario) {
	s := c.session()
	s.newFramework("f", "eng/web")
	s.newFramework("g", "ops")
	s.newAgent("a", "cpus(eng):2;mem(eng):512")
	if s.wait("f", "a") == nil {
		s.failf("resources reserved to eng are not offered in role eng/web, which is below it")
	}
	s.newAgent("b", "cpus(eng/web/ads):2;mem(eng/web/ads):512")
	s.newAgent("c", "cpus(ops):2;mem(ops):512")
	if s.wait("g", "c") == nil {
		s.failf("resources reserved to ops are not offered in role ops")
	}
	s.settle()
	s.newFramework("h", "eng/web/ads")
	if s.wait("h", "b") == nil {
		s.failf("resources reserved to eng/web/ads are not offered in that role")
	}
	s.tell(&allocator.FrameworkUpdated{ID: "g", Name: "g", Roles: []string{"other"}, Active: true})
	for _, o := range s.to("g", "c") {
		s.Take(o)
		s.release(o, o.Resources, 0, false)
	}
	s.settle()
}

func playCapabilities(c *scenario) {
	begin := begun()
	begin.FilterGPUResources, begin.Region = true, "here"
	s := c.sessionWith(model.New(begin))
	s.finish()
	s.newFramework("f", "eng/web")
	s.newAgent("plain", "cpus:2;mem:512")
	s.newAgent("gpus", "cpus:2;mem:512;gpus:2")
	s.newAgent("revocable", `cpus{"revocable":{}}:2;mem{"revocable":{}}:512`)
	refined := resource.Of(resource.Resource{
		Kind:   resource.ScalarKind("cpus").Push(resource.Reservation{Role: "eng"}).Push(resource.Reservation{Role: "eng/web", Dynamic: true}),
		Scalar: 2 * resource.Unit,
	})
	s.tell(&allocator.AgentUpdated{ID: "refined", Version: 1, Total: refined, Active: true, HoldingsSet: true})
	s.tell(&allocator.AgentUpdated{ID: "abroad", Version: 1, Total: resource.MustParse("cpus:2;mem:512"), Region: "there", Active: true, HoldingsSet: true})
	s.need("f", "plain")
	s.settle()
	needs := map[string]allocator.Capabilities{
		"gpus": allocator.CapabilityGPUResources, "revocable": allocator.CapabilityRevocableResources,
		"refined": allocator.CapabilityReservationRefinement, "abroad": allocator.CapabilityRegionAware,
	}
	all := allocator.CapabilitySharedResources
	for _, id := range sortedKeys(needs) {
		all |= needs[id]
		s.tell(&allocator.FrameworkUpdated{ID: "only-" + id, Name: "only-" + id, Roles: []string{"eng/web"}, Active: true, Capabilities: needs[id]})
		if s.wait("only-"+id, id) == nil {
			s.failf("agent %s is not offered to a framework that has the capability for it", id)
		}
		s.settle()
		s.leave("only-" + id)
	}
	s.tell(&allocator.FrameworkUpdated{ID: "able", Name: "able", Roles: []string{"eng/web"}, Active: true, Capabilities: all})
	for _, id := range sortedKeys(needs) {
		if s.wait("able", id) == nil {
			s.failf("agent %s is not offered to a framework that has every capability", id)
		}
	}
}

func playExplain(c *scenario) {
	s := c.session()
	s.newFramework("f", "*")
	s.acknowledged()
	client := allocatorv1.NewAllocatorClient(c.configured().Conn)
	answer, err := client.Explain(c.call(), &allocatorv1.ExplainRequest{FrameworkId: "f"})
	switch {
	case status.Code(err) == codes.Unimplemented:
		c.skipf("it does not serve Explain; mezzo why will say so")
	case err != nil:
		s.failf("Explain failed: %v", err)
	case !answer.GetKnown():
		s.failf("framework f was told of, and Explain says that it is not known")
	}
	answer, err = client.Explain(c.call(), &allocatorv1.ExplainRequest{FrameworkId: "nobody", Agents: true})
	switch {
	case err != nil:
		s.failf("Explain of a framework that was never told of failed: %v", err)
	case answer.GetKnown():
		s.failf("a framework that was never told of is known to Explain")
	}
}
