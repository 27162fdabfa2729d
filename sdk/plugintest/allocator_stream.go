package plugintest

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/mezzo-os/mezzo/sdk/allocator"
	"github.com/mezzo-os/mezzo/sdk/allocator/model"
	allocatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/allocator/v1"
	"github.com/mezzo-os/mezzo/sdk/resource"
)

func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }

// withUnknown adds a field to a message that nobody knows.
func withUnknown[M proto.Message](m M) M {
	field := protowire.AppendTag(nil, 4000, protowire.BytesType)
	m.ProtoReflect().SetUnknown(protowire.AppendBytes(field, []byte("from the future")))
	return m
}

func playUnknown(c *scenario) {
	s := c.session()
	s.newFramework("f", "*")
	s.acknowledged()
	s.tellRaw("two that are empty", &allocatorv1.Event{}, &allocatorv1.Event{})
	s.acknowledged()
	s.tellRaw("one of a form from the future", withUnknown(&allocatorv1.Event{}))
	s.acknowledged()
	s.tellRaw("unknown values of enums",
		&allocatorv1.Event{Event: &allocatorv1.Event_Refused{Refused: withUnknown(&allocatorv1.Refused{Decision: 1 << 40, Reason: 9999, Message: "a reason from the future"})}},
		&allocatorv1.Event{Event: &allocatorv1.Event_InverseOffer{InverseOffer: &allocatorv1.InverseOfferStatus{Number: 1 << 40, Agent: 1, Framework: 1, Status: 77}}})
	s.acknowledged()
	s.tellRaw("unknown capabilities and fields", withUnknown(&allocatorv1.Event{Event: &allocatorv1.Event_Framework{
		Framework: withUnknown(&allocatorv1.FrameworkUpdated{Number: 1, Id: "f", Name: "f", Roles: []uint32{1}, Active: true, Capabilities: 1 << 30})}}))
	s.acknowledged()
	s.newAgent("a", "cpus:4;mem:4096")
	s.acknowledged()
	if s.wait("f", "a") == nil && len(s.arrivals) == 0 {
		s.inconclusive("nothing was offered afterwards")
	}
}

func playDuplicates(c *scenario) {
	c.needs = []string{"revive", checkFrameworks}
	s := c.session()
	twice := func(e allocator.Event) { s.tell(e, e); s.acknowledged() }
	twice(&allocator.RoleUpdated{Name: "*"})
	twice(&allocator.FrameworkUpdated{ID: "f", Name: "f", Roles: []string{"*"}, Active: true})
	twice(&allocator.AgentUpdated{ID: "a", Version: 1, Total: resource.MustParse("cpus:4;mem:4096"), Active: true, HoldingsSet: true})
	s.newAgent("b", "cpus:4;mem:4096")
	s.need("f", "b")
	s.settle()
	for _, o := range s.to("f", "b") {
		s.Take(o)
		twice(&allocator.Released{Agent: "b", Framework: "f", Role: "*", Resources: o.Resources, Refuse: time.Hour, Declined: true, Offer: o.Number})
	}
	twice(&allocator.TaskStarted{Number: 1, Agent: "a", Framework: "f", Role: "*", Resources: resource.MustParse("cpus:1"), Started: time.Unix(1, 0)})
	twice(&allocator.TaskEnded{Number: 1})
	twice(&allocator.Suppressed{Framework: "f", Roles: []string{"*"}})
	s.newAgent("c", "cpus:4;mem:4096")
	s.settle()
	twice(&allocator.Revived{Framework: "f", Roles: []string{"*"}})
	if s.wait("f", "c") == nil {
		s.failf("f suppressed twice and revived twice; agent c is not offered")
	}
	s.settle()
	s.removeTwice()
	s.newFramework("g", "*")
	if s.wait("g", "b") == nil {
		s.failf("agent c and framework f went, told twice; agent b is not offered to g")
	}
	s.settle()
}

// removeTwice removes agent c and framework f, each told twice. An encoder says
// the second time that nothing happened, so the events are written by hand.
func (s *core) removeTwice() {
	agent := s.agentNo["c"]
	s.tell(&allocator.AgentRemoved{ID: "c"})
	s.tellRaw("agent c is removed again", &allocatorv1.Event{Event: &allocatorv1.Event_AgentRemoved{AgentRemoved: &allocatorv1.AgentRemoved{Number: agent}}})
	s.acknowledged()
	s.tell(&allocator.FrameworkRemoved{ID: "f"})
	s.tellRaw("framework f is removed again", &allocatorv1.Event{Event: &allocatorv1.Event_FrameworkRemoved{FrameworkRemoved: &allocatorv1.FrameworkRemoved{Number: 1}}})
	s.acknowledged()
}

func playStale(c *scenario) {
	s := c.session()
	s.newFramework("f", "*")
	s.newAgent("a", "cpus:4;mem:4096")
	s.newAgent("b", "cpus:4;mem:4096")
	s.need("f", "b")
	s.settle()
	agent := s.agentNo["a"]
	s.tell(&allocator.AgentRemoved{ID: "a"}, &allocator.FrameworkUpdated{ID: "gone", Name: "gone", Roles: []string{"*"}},
		&allocator.FrameworkRemoved{ID: "gone"})
	s.acknowledged()
	cpu := &allocatorv1.Quantities{Kinds: []uint32{1}, Amounts: []int64{1000}}
	for _, x := range []struct {
		what  string
		event *allocatorv1.Event
	}{
		{"released on an agent that is gone", &allocatorv1.Event{Event: &allocatorv1.Event_Released{Released: &allocatorv1.Released{Agent: agent, Framework: 1, Role: 1, Quantities: cpu}}}},
		{"held on an agent that is gone", &allocatorv1.Event{Event: &allocatorv1.Event_Held{Held: &allocatorv1.Held{Agent: agent, Framework: 1, Role: 1, Quantities: cpu}}}},
		{"a filter on an agent that is gone", &allocatorv1.Event{Event: &allocatorv1.Event_Filter{Filter: &allocatorv1.Filter{Agent: agent, Framework: 1, Role: 1, Quantities: cpu, RemainingMs: 1000}}}},
		{"suppressed by a framework that is gone", &allocatorv1.Event{Event: &allocatorv1.Event_Suppressed{Suppressed: &allocatorv1.Suppressed{Framework: 2, Roles: []uint32{1}}}}},
		{"revived by a framework that is gone", &allocatorv1.Event{Event: &allocatorv1.Event_Revived{Revived: &allocatorv1.Revived{Framework: 2, Roles: []uint32{1}}}}},
		{"released by a framework that is gone", &allocatorv1.Event{Event: &allocatorv1.Event_Released{Released: &allocatorv1.Released{Agent: s.agentNo["b"], Framework: 2, Role: 1, Quantities: cpu}}}},
		{"the end of a task that never was", &allocatorv1.Event{Event: &allocatorv1.Event_TaskEnded{TaskEnded: &allocatorv1.TaskEnded{Number: 12345}}}},
		{"the refusal of a decision that never was", &allocatorv1.Event{Event: &allocatorv1.Event_Refused{Refused: &allocatorv1.Refused{Decision: 1 << 40, Reason: allocator.RefusedUnknownAgent}}}},
	} {
		s.tellRaw(x.what, x.event)
		s.acknowledged()
	}
	s.newAgent("a", "cpus:2;mem:2048")
	if s.wait("f", "a") == nil {
		s.failf("agent a is back after events about what was gone, and is not offered")
	}
	s.settle()
}

const (
	rateLimit  = 40
	rateAgents = 300
)

func playRate(c *scenario) {
	begin := begun()
	begin.MaxDecisionsPerSecond = rateLimit
	b := model.New(begin)
	s := c.sessionWith(b)
	events := []allocator.Event{&allocator.FrameworkUpdated{ID: "f", Name: "f", Roles: []string{"*"}, Active: true}}
	for i := range rateAgents {
		events = append(events, &allocator.AgentUpdated{ID: fmt.Sprint("a", i), Version: 1, Total: resource.MustParse("cpus:4;mem:4096"), Active: true, HoldingsSet: true})
	}
	for _, e := range events {
		b.Apply(e, 0, time.Now())
	}
	s.snapshot(events...)
	s.finish()
	s.pass(2500 * time.Millisecond)
	if len(s.arrivals) == 0 {
		s.inconclusive("nothing was offered, which the scenario needs")
	}
	// A quarter more allows for messages that were held up on their way.
	const most = rateLimit + rateLimit/4
	for first, last := 0, 0; last < len(s.arrivals); last++ {
		for s.arrivals[last].Sub(s.arrivals[first]) >= time.Second {
			first++
		}
		if n := last - first + 1; n > most {
			s.failf("max_decisions_per_second is %d, and %d came within %v", rateLimit, n, s.arrivals[last].Sub(s.arrivals[first]).Round(time.Millisecond))
		}
	}
}

const burstEvents = 20_000

func playBurst(c *scenario) {
	s := c.session()
	s.newFramework("f", "*")
	for round := range burstEvents / 1000 {
		events := make([]allocator.Event, 1000)
		for i := range events {
			events[i] = &allocator.AgentUpdated{ID: fmt.Sprint("a", i), Version: uint64(round + 1), Total: resource.MustParse("cpus:4;mem:4096"), HoldingsSet: round == 0}
		}
		s.tell(events...)
	}
	s.acknowledged()
	s.newAgent("last", "cpus:4;mem:4096")
	if s.wait("f", "last") == nil {
		s.inconclusive("nothing was offered afterwards")
	}
}

func playIdle(c *scenario) {
	s := c.session()
	s.newFramework("f", "*")
	for i := range 20 {
		s.newAgent(fmt.Sprint("a", i), "cpus:4;mem:4096")
	}
	s.settle()
	before, during := s.messages, 2*maxSettle
	s.pass(during)
	if n := s.messages - before; n > 20 {
		s.failf("nothing has changed for %v, in which it sent %d messages", during, n)
	}
}
