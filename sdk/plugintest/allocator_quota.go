package plugintest

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/mezzo-os/mezzo/sdk/allocator"
	"github.com/mezzo-os/mezzo/sdk/allocator/model"
	pluginv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/plugin/v1"
	"github.com/mezzo-os/mezzo/sdk/resource"
)

func cpus(n int) resource.Quantities {
	return resource.Quantities{{Name: "cpus", Amount: resource.Scalar(n) * resource.Unit}}
}

// holds is how many CPUs a role and those below it hold.
func (s *core) holds(role string) resource.Scalar { return s.Consumed(role, "cpus") / resource.Unit }

func playGuarantees(c *scenario) {
	c.capability("headroom", "it keeps nothing for roles that are below their guarantees")
	s := c.session()
	s.tell(&allocator.RoleUpdated{Name: "promised", Guarantee: cpus(6)})
	s.newFramework("f", "*")
	for i := range 5 {
		s.newAgent(fmt.Sprint("a", i), "cpus:2;mem:2048")
	}
	if !s.await(func() bool { return s.holds("*") >= 4 }) {
		s.failf("of 10 CPUs 6 are guaranteed to role promised; the role * is offered %v, want 4", s.holds("*"))
	}
	s.settle()
	s.newFramework("p", "promised/web")
	if !s.await(func() bool { return s.holds("promised") >= 6 }) {
		s.failf("role promised is guaranteed 6 CPUs, which were kept for it; a framework of promised/web is offered %v", s.holds("promised"))
	}
	s.settle()
	s.tell(&allocator.RoleUpdated{Name: "late", Guarantee: cpus(2)})
	s.settle()
	s.newAgent("more", "cpus:4;mem:4096")
	if !s.await(func() bool { return s.holds("*")+s.holds("promised") >= 12 }) {
		s.failf("of 4 more CPUs 2 are guaranteed to role late; the others are not offered")
	}
	s.settle()
	s.tell(&allocator.RoleUpdated{Name: "late"})
	s.allOffered("more", "the guarantee of role late has ended")
}

const (
	preemptAfter = 300 * time.Millisecond
	preemptGrace = time.Second
)

// preempting is an instance that may revoke, after preemptAfter and with
// preemptGrace: of plugins whose schema has the preempt block that those of the
// SDK have.
func (c *scenario) preempting() *Plugin {
	i := slices.IndexFunc(c.suite.description.GetSchema().GetBlocks(), func(b *pluginv1.Block) bool { return b.GetName() == "preempt" })
	if i < 0 {
		c.skipf("its schema has no block preempt, by which the suite could let it revoke")
	}
	known := func(name string) bool {
		return slices.ContainsFunc(c.suite.description.GetSchema().GetBlocks()[i].GetSchema().GetAttributes(), func(a *pluginv1.Attribute) bool { return a.GetName() == name })
	}
	if !known("after") || !known("grace_period") {
		c.skipf("its block preempt has no attributes after and grace_period, by which the suite could let it revoke")
	}
	p := c.fresh()
	config, err := c.suite.config(p)
	if err != nil {
		c.skipf("%v", err)
	}
	values := map[string]json.RawMessage{}
	if err := json.Unmarshal(config, &values); err != nil {
		c.skipf("its configuration is no JSON object: %v", err)
	}
	values["preempt"] = json.RawMessage(fmt.Sprintf(`{"after":%d,"grace_period":%d}`, preemptAfter, preemptGrace))
	if p.Config, err = json.Marshal(values); err != nil {
		c.skipf("%v", err)
	}
	if err := c.suite.configure(c.call(), p); err != nil {
		c.failf("it does not accept its configuration with a preempt block: %v", err)
	}
	return p
}

// mayRevoke is whether an instance's configuration lets it revoke, as far as
// the suite can tell.
func (c *scenario) mayRevoke(p *Plugin) bool {
	if !slices.ContainsFunc(c.suite.description.GetSchema().GetBlocks(), func(b *pluginv1.Block) bool { return b.GetName() == "preempt" }) {
		return c.suite.serves("revoke")
	}
	values := map[string]json.RawMessage{}
	return json.Unmarshal(p.Config, &values) == nil && len(values["preempt"]) > 0 && string(values["preempt"]) != "null"
}

// crowd has a framework run tasks on all that there is, and another that has
// nothing of what its role is guaranteed.
func (s *core) crowd() {
	s.newFramework("rich", "rich")
	s.newAgent("a", "cpus:8;mem:8192")
	s.allOffered("a", "agent a is free")
	for _, o := range slices.Clone(s.Offers) {
		s.Take(o)
	}
	for i := range 8 {
		s.tell(&allocator.TaskStarted{Number: uint64(i + 1), Agent: "a", Framework: "rich", Role: "rich", Resources: task(), Started: time.Now().Add(time.Duration(i-20) * time.Minute)})
	}
	s.tell(&allocator.RoleUpdated{Name: "rich", Guarantee: cpus(5)}, &allocator.RoleUpdated{Name: "poor", Guarantee: cpus(3)})
	s.newFramework("poor", "poor")
	s.settle()
}

func playRevocation(c *scenario) {
	c.capability("revoke", "it takes nothing from running work")
	if p := c.configured(); !c.mayRevoke(p) {
		s := c.session()
		s.crowd()
		s.pass(2 * preemptAfter) // nothing may be revoked
	}
	p := c.preempting()
	s := c.sessionOn(p, model.New(begun()))
	s.grace = preemptGrace
	s.finish()
	// A core that allows none.
	refused := 0
	s.refuse = func(d allocator.Decision) *allocator.Refused {
		if _, is := d.(*allocator.Revoke); !is {
			return nil
		}
		refused++
		return &allocator.Refused{Reason: allocator.RefusedRevocationDisabled, Message: "revocation is not enabled"}
	}
	s.crowd()
	if !s.await(func() bool { return refused > 0 }) {
		s.failf("role poor has nothing of the 3 CPUs that it is guaranteed, and rich 3 more than it is; it is to revoke after %v, and revokes nothing", preemptAfter)
	}
	s.pass(time.Second)
	if refused > refusalsPerSecond {
		s.failf("the core allows no revocations, and %d were proposed in a second", refused)
	}
	s.cut()
	// One that does, told of it all by a snapshot.
	s.Begin.FirstDecision = s.decided + 1
	again := c.sessionOn(p, s.Books)
	again.grace, again.again = preemptGrace, true
	again.finish()
	if !again.await(func() bool {
		again.end()
		return again.holds("poor") >= 3
	}) {
		again.failf("role poor is guaranteed 3 CPUs, and rich has 3 more than it is; revocation is allowed now: %d tasks were revoked, and poor holds %v CPUs", len(again.revoked), again.holds("poor"))
	}
	again.pass(2 * preemptAfter)
	again.end()
	again.settle()
}

// end ends the tasks that were revoked.
func (s *core) end() {
	for _, d := range s.revoked {
		if t := s.Tasks[d.Task]; t != nil {
			s.tell(&allocator.TaskEnded{Number: d.Task})
			s.tell(&allocator.Released{Agent: t.Agent, Framework: t.Framework, Role: t.Role, Resources: t.Resources})
		}
	}
}
