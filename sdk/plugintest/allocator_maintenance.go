package plugintest

import (
	"slices"
	"time"

	"github.com/mezzo-os/mezzo/sdk/allocator"
	"github.com/mezzo-os/mezzo/sdk/allocator/model"
)

func (s *core) holder(agent, framework, role string) model.Holder {
	return model.Holder{Agent: agent, Framework: framework, Role: role}
}

// plan gives an agent a window in which it will not be there, so many hours
// from now; 0: none any more.
func (s *core) plan(id string, hours int) {
	u := *s.Agents[id].Update
	u.Version++
	u.HoldingsSet, u.Holdings, u.Unavailability = false, nil, nil
	if hours > 0 {
		u.Unavailability = &allocator.Unavailability{Start: time.Now().Add(time.Duration(hours) * time.Hour), Duration: time.Hour}
	}
	s.tell(&u)
}

func playUnavailability(c *scenario) {
	s := c.session()
	s.newFramework("f", "*")
	s.tell(&allocator.AgentUpdated{ID: "a", Hostname: "a", Version: 1, Total: task(), Active: true, HoldingsSet: true,
		Unavailability: &allocator.Unavailability{Start: time.Now().Add(time.Hour), Duration: time.Hour}})
	s.allOffered("a", "agent a is free, and going to be unavailable in an hour")
	s.newAgent("b", "cpus:4;mem:4096")
	s.need("f", "b")
	s.settle()
	s.plan("b", 1)
	for _, o := range s.to("f", "b") {
		s.accept(o, task())
	}
	s.allOffered("b", "agent b is going to be unavailable in an hour, and f left a part of its offer")
}

// asks waits for another inverse offer to a framework on an agent.
func (s *core) asks(framework, agent, when string) *allocator.InverseOffer {
	before := len(s.asked)
	is := func(d *allocator.InverseOffer) bool { return d.Framework == framework && d.Agent == agent }
	if !s.await(func() bool { return slices.ContainsFunc(s.asked[before:], is) }) {
		s.failf("%s, and %v later %s, which holds something on agent %s, has not been asked to leave it", when, s.c.suite.options.Patience, framework, agent)
	}
	return s.asked[before+slices.IndexFunc(s.asked[before:], is)]
}

func (s *core) answerInverse(d *allocator.InverseOffer, state allocator.InverseOfferState, refuse time.Duration) {
	s.tell(&allocator.InverseOfferStatus{Number: d.Number, Agent: d.Agent, Framework: d.Framework, State: state, Refuse: refuse})
}

func playInverse(c *scenario) {
	c.capability("inverse-offers", "frameworks are not asked to leave agents that are going to be unavailable")
	s := c.session()
	for _, id := range []string{"a", "b"} {
		s.newFramework("f-"+id, "role-"+id)
		s.newAgent(id, "cpus(role-"+id+"):4;mem(role-"+id+"):4096")
		s.need("f-"+id, id)
	}
	s.settle()
	for _, o := range slices.Clone(s.Offers) {
		s.Take(o)
	}
	s.plan("a", 1)
	first := s.asks("f-a", "a", "agent a is going to be unavailable")
	s.settle() // no second question while the first is open, none to f-b
	s.answerInverse(first, allocator.InverseOfferDeclined, time.Hour)
	s.settle()
	s.pass(1500 * time.Millisecond)

	s.plan("b", 1)
	second := s.asks("f-b", "b", "agent b is going to be unavailable")
	s.answerInverse(second, allocator.InverseOfferDeclined, 700*time.Millisecond)
	third := s.asks("f-b", "b", "f-b has refused the inverse offer for 700 ms")
	s.settle()
	s.answerInverse(third, allocator.InverseOfferRescinded, 0)
	s.plan("b", 0)
	s.pass(1500 * time.Millisecond) // it is not asked for a window that is gone
	s.settle()
	s.plan("b", 2)
	s.asks("f-b", "b", "agent b has another window")
	s.settle()
}
