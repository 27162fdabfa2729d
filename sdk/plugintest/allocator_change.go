package plugintest

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/mezzo-os/mezzo/sdk/allocator"
	"github.com/mezzo-os/mezzo/sdk/allocator/model"
	allocatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/allocator/v1"
	"github.com/mezzo-os/mezzo/sdk/resource"
)

// setActive tells of an agent again, active or not.
func (s *core) setActive(id string, active bool) {
	u := *s.Agents[id].Update
	u.Version++
	u.Active, u.HoldingsSet, u.Holdings = active, false, nil
	s.tell(&u)
}

func playInactiveAgent(c *scenario) {
	s := c.session()
	s.newFramework("f", "*")
	s.tell(&allocator.AgentUpdated{ID: "a", Version: 1, Total: resource.MustParse("cpus:4;mem:4096"), HoldingsSet: true})
	s.settle()
	s.setActive("a", true)
	if s.wait("f", "a") == nil {
		s.failf("agent a is active now, and is not offered")
	}
	s.settle()
	s.setActive("a", false)
	s.acknowledged()
	for _, o := range s.to("f", "a") {
		s.decline(o, 0)
	}
	s.settle()
	s.setActive("a", true)
	if s.wait("f", "a") == nil {
		s.failf("agent a is active again, and is not offered")
	}
}

func playDepartedAgent(c *scenario) {
	c.needs = []string{"revive"}
	s := c.session()
	s.tell(&allocator.FrameworkUpdated{ID: "f", Name: "f", Roles: []string{"*"}, Suppressed: []string{"*"}, Active: true})
	s.newAgent("a", "cpus:4;mem:4096")
	s.newAgent("b", "cpus:4;mem:4096")
	s.acknowledged()
	s.tell(&allocator.AgentRemoved{ID: "a"})
	s.acknowledged()
	s.tell(&allocator.Revived{Framework: "f", Roles: []string{"*"}})
	s.need("f", "b")
	s.settle()
	s.newAgent("a", "cpus:2;mem:2048")
	if s.wait("f", "a") == nil {
		s.failf("agent a is back, and is not offered")
	}
	s.settle()
	s.tell(&allocator.AgentRemoved{ID: "a"}) // with what f holds of it
	s.settle()
	s.newAgent("a", "cpus:2;mem:2048")
	if s.wait("f", "a") == nil {
		s.failf("agent a, of which f held everything, went and came back; it is not offered")
	}
}

func playInactiveFramework(c *scenario) {
	s := c.session()
	inactive := &allocator.FrameworkUpdated{ID: "f", Name: "f", Roles: []string{"*"}}
	s.tell(inactive)
	s.newAgent("a", "cpus:4;mem:4096")
	s.settle()
	s.newFramework("f", "*")
	if s.wait("f", "a") == nil {
		s.failf("framework f has a scheduler now, and is offered nothing")
	}
	s.settle()
	again := *inactive
	s.tell(&again)
	s.acknowledged()
	for _, o := range s.to("f", "") {
		s.Take(o)
		s.release(o, o.Resources, 0, false)
	}
	s.settle()
	s.newFramework("f", "*")
	s.need("f", "a")
	s.settle()
	s.tell(&allocator.FrameworkRemoved{ID: "f"})
	s.acknowledged()
	s.newAgent("b", "cpus:4;mem:4096")
	s.settle()
	s.newFramework("g", "*")
	if s.wait("g", "a") == nil {
		s.failf("framework f is gone, and what it held of agent a is not offered to g")
	}
}

func playMinAllocatable(c *scenario) {
	begin := begun()
	least := func(name string, n int) []resource.Quantities {
		return []resource.Quantities{{{Name: name, Amount: resource.Scalar(n) * resource.Unit}}}
	}
	begin.MinAllocatable = least("cpus", 2)
	s := c.sessionWith(model.New(begin))
	s.finish()
	s.newFramework("f", "*")
	s.newAgent("small", "cpus:1;mem:8192")
	s.newAgent("large", "cpus:2;mem:512")
	s.need("f", "large")
	s.settle()
	s.tell(&allocator.FrameworkUpdated{ID: "g", Name: "g", Roles: []string{"*"}, Active: true,
		Settings: []allocator.RoleSettings{{Role: "*", MinAllocatable: least("mem", 4096)}}})
	if s.wait("g", "small") == nil {
		s.failf("g set min_allocatable to mem:4096, and an agent with cpus:1;mem:8192 is not offered to it")
	}
	s.settle()
}

// refusalsPerSecond is how often a decision may be repeated that is refused
// again and again; the engine of the SDK stays far below.
const refusalsPerSecond = 200

func playRefusals(c *scenario) {
	s := c.session()
	s.newFramework("f", "*")
	refused := 0
	s.refuse = func(d allocator.Decision) *allocator.Refused {
		o, is := d.(*allocator.Offer)
		if !is {
			return nil
		}
		if refused++; refused > 1 {
			return nil
		}
		truth := s.State(o.Agent)
		truth.Holdings = append(truth.Holdings, allocator.Holding{Framework: "other", Role: "*", Resources: resource.MustParse("cpus:3")})
		return &allocator.Refused{Reason: allocator.RefusedNotFree, Message: "more than is free", Agent: truth}
	}
	s.newAgent("a", "cpus:4;mem:4096")
	if !s.await(func() bool { return refused > 0 }) {
		s.inconclusive("nothing was offered, which the scenario needs")
	}
	s.allOffered("a", "a decision on agent a was refused, because another holds cpus:3 of it")
	s.tell(&allocator.Released{Agent: "a", Framework: "other", Role: "*", Resources: resource.MustParse("cpus:3")})
	s.allOffered("a", "the other released its cpus:3")

	s.refuse = func(d allocator.Decision) *allocator.Refused {
		o, is := d.(*allocator.Offer)
		if !is {
			return nil
		}
		return &allocator.Refused{Reason: allocator.RefusedNotFree, Message: "because", Agent: s.State(o.Agent)}
	}
	before := len(s.arrivals)
	s.newAgent("b", "cpus:4;mem:4096")
	s.pass(time.Second)
	if n := len(s.arrivals) - before; n > refusalsPerSecond {
		s.failf("decisions on agent b were refused, and %d came in a second; an allocator backs off", n)
	}
	s.refuse = nil
	s.allOffered("b", "decisions on agent b are not refused any more")
}

// playFromSnapshot tells a state event by event in one session and as a
// snapshot to another. In both the same is free, and wanted.
func playSnapshot(c *scenario) {
	s := c.session()
	s.tell(&allocator.RoleUpdated{Name: "small", Limit: resource.Quantities{{Name: "cpus", Amount: 2 * resource.Unit}}})
	s.newFramework("f", "*")
	for _, id := range []string{"held", "refused", "offered"} {
		s.newAgent(id, "cpus:4;mem:4096")
		s.need("f", id)
	}
	s.settle()
	for _, o := range s.to("f", "") {
		switch o.Agent {
		case "held":
			s.Take(o)
		case "refused":
			s.decline(o, time.Hour)
		}
	}
	s.tell(&allocator.FrameworkUpdated{ID: "quiet", Name: "quiet", Roles: []string{"q"}, Suppressed: []string{"q"}, Active: true})
	s.tell(&allocator.FrameworkUpdated{ID: "away", Name: "away", Roles: []string{"*"}})
	s.newFramework("limited", "small")
	s.tell(&allocator.Suppressed{Framework: "limited", Roles: []string{"small"}})
	s.settle()
	if c.suite.serves("inverse-offers") {
		s.plan("held", 1)
		s.settle() // f was asked to leave; it is not asked again after the snapshot
	}
	s.cut()

	b := s.Books
	b.Begin.FirstDecision = s.decided + 1
	again := c.sessionWith(b)
	again.finish()
	again.settle()
	task := resource.MustParse("cpus:1;mem:1024")
	again.tell(&allocator.Released{Agent: "held", Framework: "f", Role: "*", Resources: task})
	again.allOffered("held", "after the snapshot, a task on the agent called held has ended")
	if o := again.to("f", "offered"); len(o) > 0 {
		again.decline(o[0], time.Hour)
	}
	again.settle()
	again.newFramework("new", "*")
	again.allOffered("refused", "after the snapshot, the framework called new came, which has refused nothing")
	again.settle()
	again.newAgent("fresh", "cpus:2;mem:2048")
	again.allOffered("fresh", "after the snapshot, the agent called fresh is new")
}

func playSessions(c *scenario) {
	for i := range 5 {
		b := model.New(begun())
		s := c.sessionWith(b)
		if i%2 == 1 { // cut in the middle of the snapshot
			s.snapshot(&allocator.FrameworkUpdated{ID: "f", Roles: []string{"*"}, Active: true})
			s.cut()
			continue
		}
		s.finish()
		s.newFramework("f", "*")
		s.newAgent(fmt.Sprint("a", i), "cpus:4;mem:4096")
		if s.wait("f", "") == nil && i > 0 {
			s.failf("session %d: nothing is offered, where the first session's offers were", i)
		}
		if len(s.Offers) == 0 {
			s.inconclusive("nothing was offered, which the scenario needs")
		}
		s.cut()
	}
}

// playSessionsBeside begins a session while the plugin has not noticed that the
// last one is over.
func playSessionsBeside(c *scenario) {
	first := c.session()
	first.newFramework("f", "*")
	first.newAgent("a", "cpus:4;mem:4096")
	first.need("f", "a")
	first.settle()
	second := c.sessionWith(model.New(begun()))
	second.ended = true
	second.send(&allocatorv1.FromCore{Batch: &allocatorv1.Batch{Snapshot: true, SnapshotEnd: true}})
	if !second.await(func() bool { return second.ready }) {
		second.failf("a second session began before the first had ended, and is not ready %v after its snapshot", c.suite.options.Patience)
	}
	second.newFramework("g", "ops")
	second.newAgent("b", "cpus:4;mem:4096")
	if second.wait("g", "b") == nil {
		second.failf("in a session that began before the last had ended nothing is offered")
	}
	first.cut()
	second.settle()
	second.newAgent("c", "cpus:4;mem:4096")
	if second.wait("g", "c") == nil {
		second.failf("the session before ended, and in this one nothing more is offered")
	}
	second.settle()
}

// playStorm plays a cluster in which much changes, and lets the books judge.
func playStorm(c *scenario) {
	s := c.session()
	random := rand.New(rand.NewPCG(7, 11))
	roles := []string{"*", "eng", "eng/web", "ops"}
	total := func() string {
		return fmt.Sprintf("cpus:%d;mem:%d;cpus(eng):%d;ports:[31000-31%03d]", 1+random.IntN(8), 512*(1+random.IntN(8)), 1+random.IntN(3), random.IntN(500))
	}
	framework := func(i int) {
		s.newFramework(fmt.Sprint("f", i), roles[i%len(roles)], roles[(i+1)%len(roles)])
	}
	for i := range 5 {
		framework(i)
	}
	for i := range 12 {
		s.newAgent(fmt.Sprint("a", i), total())
	}
	s.answer = func(o *allocator.Offer) {
		switch random.IntN(4) {
		case 0:
			s.decline(o, time.Duration(random.IntN(150))*time.Millisecond)
		case 1, 2:
			s.accept(o, o.Resources.Intersect(resource.MustParse(total())))
		}
	}
	s.refuse = func(d allocator.Decision) *allocator.Refused {
		o, is := d.(*allocator.Offer)
		if !is {
			return nil
		}
		if random.IntN(10) > 0 {
			return nil
		}
		return &allocator.Refused{Reason: allocator.RefusedNotFree, Message: "by chance", Agent: s.State(o.Agent)}
	}
	for range 300 {
		s.change(random, total, framework)
		s.pass(time.Duration(random.IntN(8)) * time.Millisecond)
	}
	s.settle()
	if len(s.arrivals) == 0 {
		s.inconclusive("nothing was offered, which the scenario needs")
	}
}

// change changes something in a storm.
func (s *core) change(random *rand.Rand, total func() string, framework func(int)) {
	i := random.IntN(5)
	id, agent := fmt.Sprint("f", i), fmt.Sprint("a", random.IntN(12))
	f := s.Frameworks[id]
	switch random.IntN(10) {
	case 0:
		if s.Agents[agent] != nil {
			s.tell(&allocator.AgentRemoved{ID: agent})
		}
	case 1, 2:
		if s.Agents[agent] == nil {
			s.newAgent(agent, total())
		}
	case 3:
		if f != nil && random.IntN(3) == 0 {
			s.tell(&allocator.FrameworkRemoved{ID: id})
		}
	case 4:
		if f == nil {
			framework(i)
		} else {
			s.tell(&allocator.Suppressed{Framework: id, Roles: f.Update.Roles[:1]})
		}
	case 5:
		if f != nil {
			s.tell(&allocator.Revived{Framework: id, Roles: f.Update.Roles})
		}
	case 6:
		if a := s.Agents[agent]; a != nil {
			s.setActive(agent, !a.Update.Active)
		}
	default:
		s.endSomething(random)
	}
}

// endSomething answers an offer, or ends what is held besides offers.
func (s *core) endSomething(random *rand.Rand) {
	if n := len(s.Offers); n > 0 && random.IntN(2) == 0 {
		s.decline(s.Offers[random.IntN(n)], 0)
		return
	}
	holders := s.Holders()
	if len(holders) == 0 {
		return
	}
	h := holders[random.IntN(len(holders))]
	used := s.Used(h)
	if !used.IsEmpty() {
		s.tell(&allocator.Released{Agent: h.Agent, Framework: h.Framework, Role: h.Role, Resources: used})
	}
}
