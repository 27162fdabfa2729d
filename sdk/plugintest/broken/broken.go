// Package broken is an allocator that is wrong on purpose, in whatever way it
// is told: the conformance suite must find every fault, and a master must live
// with all of them.
//
// It is the SDK's engine, which is right, with somebody in the middle of its
// stream: events are changed on their way in, decisions on their way out.
package broken

import (
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/mezzo-os/mezzo/sdk/allocator"
	"github.com/mezzo-os/mezzo/sdk/allocator/engine"
	"github.com/mezzo-os/mezzo/sdk/plugin"
	allocatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/allocator/v1"
)

// Config is what may stand in the plugin's config block.
type Config struct {
	Fault   string             `hcl:"fault" default:"none" help:"What the allocator does wrong."`
	Preempt *allocator.Preempt `hcl:"preempt" help:"When tasks are ended for roles that are starved; without it never."`
}

// Validate finds faults that there are not.
func (c *Config) Validate() []plugin.Diagnostic {
	if _, known := faults[c.Fault]; !known {
		return []plugin.Diagnostic{plugin.Errorf("unknown fault", "fault", "%q is none of: %s.", c.Fault, strings.Join(Faults(), ", "))}
	}
	return nil
}

// Faults are the names of all faults; "none" is among them.
func Faults() []string { return slices.Sorted(maps.Keys(faults)) }

// Definition is the plugin, called "broken".
func Definition() plugin.Definition { return With("") }

// With is the plugin with this fault, whatever its configuration says; with the
// configuration's if it is empty.
func With(fault string) plugin.Definition {
	var mu sync.Mutex
	right := allocator.Definition{
		Name: "broken", Version: "1.0.0", Summary: "An allocator that is wrong on purpose, for tests.",
		NewConfig: func() any { return new(Config) },
		NewPolicy: func(config any) (allocator.Policy, []plugin.Diagnostic) {
			mu.Lock()
			defer mu.Unlock()
			if fault == "" {
				fault = config.(*Config).Fault
			}
			return &engine.DominantShare{}, nil
		},
		Preempt: func(config any) *allocator.Preempt {
			mu.Lock()
			defer mu.Unlock()
			if p := faults[fault].preempt; p != nil {
				return p
			}
			return config.(*Config).Preempt
		},
	}.Plugin()
	out := right
	out.Register = func(r grpc.ServiceRegistrar) {
		var c catcher
		right.Register(&c)
		allocatorv1.RegisterAllocatorServer(r, &server{AllocatorServer: c.caught, one: make(chan struct{}, 1), fault: func() tampering {
			mu.Lock()
			defer mu.Unlock()
			return faults[fault]
		}})
	}
	return out
}

// catcher is a registrar that keeps what is registered.
type catcher struct{ caught allocatorv1.AllocatorServer }

func (c *catcher) RegisterService(_ *grpc.ServiceDesc, impl any) {
	c.caught = impl.(allocatorv1.AllocatorServer)
}

type server struct {
	allocatorv1.AllocatorServer
	fault func() tampering
	one   chan struct{} // held by the session that is served, where they are served one after the other
}

// Allocate serves a session with somebody in the middle.
func (s *server) Allocate(stream grpc.BidiStreamingServer[allocatorv1.FromCore, allocatorv1.FromAllocator]) error {
	fault := s.fault()
	if fault.oneSession {
		select {
		case s.one <- struct{}{}:
			defer func() { <-s.one }()
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
	}
	return s.AllocatorServer.Allocate(&tampered{BidiStreamingServer: stream, fault: fault, copies: 1, kinds: map[uint32]allocatorv1.KindType{}})
}

// tampering is one way to be wrong. Each function may be nil.
type tampering struct {
	begin func(*allocatorv1.Begin)
	// event changes an event; false drops it, but counts it.
	event func(t *tampered, e *allocatorv1.Event, snapshot bool) bool
	// receive is called for every message before its events, send before one
	// goes out; an error ends the session.
	receive func(t *tampered, m *allocatorv1.FromCore) error
	send    func(t *tampered, m *allocatorv1.FromAllocator) error
	// copies is how often every decision is sent, or those of which only is
	// true; 0: once.
	copies uint64
	only   func(*allocatorv1.Decision) bool
	// preempt, when set, is what the engine is told whatever its configuration
	// says.
	preempt *allocator.Preempt
	// oneSession has a session wait until the one before it has ended.
	oneSession bool
}

// tampered is the stream between a core and the engine.
type tampered struct {
	grpc.BidiStreamingServer[allocatorv1.FromCore, allocatorv1.FromAllocator]
	fault  tampering
	copies uint64
	first  uint64 // decision
	events int    // read
	// planned are the agents that were ever going to be unavailable.
	planned []uint32
	kinds   map[uint32]allocatorv1.KindType

	mu       sync.Mutex // of sending
	seen     uint64     // the last events_seen sent
	chatting sync.Once
}

func (t *tampered) Recv() (*allocatorv1.FromCore, error) {
	m, err := t.BidiStreamingServer.Recv()
	if err != nil {
		return nil, err
	}
	if b := m.GetBegin(); b != nil {
		t.first, t.copies = b.GetFirstDecision(), max(1, t.fault.copies)
		if t.fault.begin != nil {
			t.fault.begin(b)
		}
	}
	if t.fault.receive != nil {
		if err := t.fault.receive(t, m); err != nil {
			return nil, err
		}
	}
	b := m.GetBatch()
	t.events += len(b.GetEvents())
	if b != nil {
		b.DecisionsSeen = t.innerSeen(b.GetDecisionsSeen())
	}
	for _, list := range [][]*allocatorv1.Event{b.GetDefinitions(), b.GetEvents()} {
		for _, e := range list {
			if k := e.GetKind(); k != nil {
				t.kinds[k.GetNumber()] = k.GetType()
			}
			if a := e.GetAgent(); a != nil {
				a.DecisionsSeen = t.innerSeen(a.GetDecisionsSeen())
			}
			if r := e.GetRefused(); r != nil && r.GetDecision() >= t.first {
				r.Decision = t.inner(r.GetDecision())
				if r.Agent != nil {
					r.Agent.DecisionsSeen = t.innerSeen(r.Agent.GetDecisionsSeen())
				}
			}
			if t.fault.event != nil && !t.fault.event(t, e, b.GetSnapshot()) {
				e.Event = nil
			}
		}
	}
	return m, nil
}

// inner is the engine's number of a decision that bears this one outside.
func (t *tampered) inner(number uint64) uint64 { return t.first + (number-t.first)/t.copies }

// innerSeen is the engine's number of the last decision that was seen outside.
func (t *tampered) innerSeen(number uint64) uint64 {
	if number < t.first {
		return number
	}
	return t.inner(number)
}

func (t *tampered) Send(m *allocatorv1.FromAllocator) error {
	if t.copies > 1 {
		var out []*allocatorv1.Decision
		for _, d := range m.GetDecisions() {
			for i := range t.copies {
				if i > 0 && t.fault.only != nil && !t.fault.only(d) {
					continue
				}
				out = append(out, &allocatorv1.Decision{Number: t.first + (d.GetNumber()-t.first)*t.copies + i, Decision: d.GetDecision()})
			}
		}
		m.Decisions = out
	}
	if t.fault.send != nil {
		if err := t.fault.send(t, m); err != nil {
			return err
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.seen = m.GetEventsSeen()
	return t.BidiStreamingServer.Send(m)
}

// double makes an agent seem to have twice as much of every scalar.
func (t *tampered) double(a *allocatorv1.AgentUpdated) {
	amounts := a.GetTotal().GetAmounts()
	for _, kind := range a.GetTotal().GetKinds() {
		if len(amounts) == 0 {
			return
		}
		n := amounts[0]
		switch t.kinds[kind] {
		case allocatorv1.KindType_KIND_TYPE_RANGES:
			amounts = amounts[1+2*n:]
		case allocatorv1.KindType_KIND_TYPE_SET:
			amounts = amounts[1+n:]
		default:
			amounts[0] *= 2
			amounts = amounts[1:]
		}
	}
}

// filterAllRoles takes what a framework refuses in one role as refused in all.
func filterAllRoles(_ *tampered, m *allocatorv1.FromCore) error {
	for _, e := range m.GetBatch().GetEvents() {
		r := e.GetReleased()
		for role := uint32(1); r.GetRefuseMs() > 0 && role < 8; role++ {
			m.Batch.Definitions = append(m.Batch.Definitions, &allocatorv1.Event{Event: &allocatorv1.Event_Filter{Filter: &allocatorv1.Filter{
				Framework: r.GetFramework(), Role: role, Agent: r.GetAgent(), Quantities: r.GetQuantities(), RemainingMs: r.GetRefuseMs()}}})
		}
	}
	return nil
}

// diesOnDuplicates ends the session at an event that is told twice in a batch.
func diesOnDuplicates(_ *tampered, m *allocatorv1.FromCore) error {
	var last *allocatorv1.Event
	for _, e := range m.GetBatch().GetEvents() {
		if e.GetEvent() != nil && proto.Equal(e, last) {
			return status.Error(codes.Internal, "that was told before")
		}
		last = e
	}
	return nil
}

// chatter sends without end, at every tick, and with nonsense decisions.
func chatter(every time.Duration, nonsense int) func(*tampered, *allocatorv1.FromAllocator) error {
	return func(t *tampered, m *allocatorv1.FromAllocator) error {
		if m.GetReady() {
			t.chatting.Do(func() { go t.chat(m.GetSession(), every, nonsense) })
		}
		return nil
	}
}

func (t *tampered) chat(session uint64, every time.Duration, nonsense int) {
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		select {
		case <-t.Context().Done():
			return
		case <-ticker.C:
		}
		t.mu.Lock()
		m := &allocatorv1.FromAllocator{Session: session, EventsSeen: t.seen}
		for range nonsense {
			m.Decisions = append(m.Decisions, &allocatorv1.Decision{Number: 1})
		}
		err := t.BidiStreamingServer.Send(m)
		t.mu.Unlock()
		if err != nil {
			return
		}
	}
}

func isOffer(d *allocatorv1.Decision) bool { return d.GetOffer() != nil }

func isInverse(d *allocatorv1.Decision) bool { return d.GetInverseOffer() != nil }

func isRevoke(d *allocatorv1.Decision) bool { return d.GetRevoke() != nil }

// drop never sends decisions of a form.
func drop(form func(*allocatorv1.Decision) bool) func(*tampered, *allocatorv1.FromAllocator) error {
	return func(_ *tampered, m *allocatorv1.FromAllocator) error {
		m.Decisions = slices.DeleteFunc(slices.Clone(m.GetDecisions()), form)
		return nil
	}
}

// stopReadingAfter is how many events an allocator reads that stops reading.
const stopReadingAfter = 2000

var faults = map[string]tampering{
	"none": {},
	// Offers more than there is: to it every agent is twice as large, until it is
	// refused.
	"over-commit": {event: func(t *tampered, e *allocatorv1.Event, _ bool) bool {
		t.double(e.GetAgent())
		return true
	}},
	"offers-twice": {copies: 2, only: isOffer},
	"ignores-filters": {event: func(_ *tampered, e *allocatorv1.Event, _ bool) bool {
		if r := e.GetReleased(); r != nil {
			r.RefuseMs = 0
		}
		return e.GetFilter() == nil
	}},
	"ignores-min-refuse": {event: func(_ *tampered, e *allocatorv1.Event, _ bool) bool {
		if r := e.GetReleased(); r != nil {
			r.Declined = false
		}
		return !e.GetFilter().GetSoft()
	}},
	"ignores-guarantees": {event: func(_ *tampered, e *allocatorv1.Event, _ bool) bool {
		if r := e.GetRole(); r.GetName() == "promised" || r.GetName() == "late" {
			r.Guarantee = nil
		}
		return true
	}},
	"hoards-for-guarantees": {event: func(_ *tampered, e *allocatorv1.Event, _ bool) bool {
		if r := e.GetRole(); r.GetName() == "promised" && r.GetGuarantee() != nil {
			r.Guarantee.Thousandths[0] *= 10
		}
		return true
	}},
	"hoards-shared": {event: func(_ *tampered, e *allocatorv1.Event, _ bool) bool {
		if k := e.GetKind(); k != nil {
			k.Shared = false
		}
		return true
	}},
	"hides-gpus": {event: func(_ *tampered, e *allocatorv1.Event, _ bool) bool {
		if f := e.GetFramework(); f != nil {
			f.Capabilities &^= uint32(allocator.CapabilityGPUResources)
		}
		return true
	}},
	"ignores-regions": {begin: func(b *allocatorv1.Begin) { b.Region = "" }},
	"ignores-constraints": {event: func(_ *tampered, e *allocatorv1.Event, _ bool) bool {
		for _, s := range e.GetFramework().GetSettings() {
			s.Constraints = nil
		}
		return true
	}},
	"ignores-conversions": {event: func(_ *tampered, e *allocatorv1.Event, _ bool) bool { return e.GetConverted() == nil }},
	"avoids-maintenance": {event: func(_ *tampered, e *allocatorv1.Event, _ bool) bool {
		if a := e.GetAgent(); a.GetUnavailability() != nil {
			a.Active = false
		}
		return true
	}, send: drop(isInverse)},
	"asks-nobody": {send: drop(isInverse)},
	"asks-everybody": {event: func(_ *tampered, e *allocatorv1.Event, _ bool) bool {
		if a := e.GetAgent(); a != nil && a.Unavailability == nil {
			a.Unavailability = &allocatorv1.Unavailability{StartNs: 1}
		}
		return true
	}},
	"asks-twice": {copies: 2, only: isInverse},
	"asks-again": {event: func(_ *tampered, e *allocatorv1.Event, _ bool) bool {
		if s := e.GetInverseOffer(); s != nil {
			s.RefuseMs = 0
		}
		return true
	}},
	"asks-for-the-past": {event: func(t *tampered, e *allocatorv1.Event, _ bool) bool {
		if a := e.GetAgent(); a.GetUnavailability() != nil {
			t.planned = append(t.planned, a.GetNumber())
		} else if a != nil && slices.Contains(t.planned, a.GetNumber()) {
			a.Unavailability = &allocatorv1.Unavailability{StartNs: 1}
		}
		return true
	}},
	"forgets-inverse-offers": {event: func(_ *tampered, e *allocatorv1.Event, snapshot bool) bool {
		return !snapshot || e.GetInverseOffer() == nil
	}},
	"forgets-suppression": {event: func(_ *tampered, e *allocatorv1.Event, snapshot bool) bool {
		if f := e.GetFramework(); f != nil && snapshot {
			f.Suppressed = nil
		}
		return true
	}},
	"one-session":   {oneSession: true},
	"never-revokes": {send: drop(isRevoke)},
	"revokes-twice": {copies: 2, only: isRevoke},
	"revokes-at-once": {send: func(_ *tampered, m *allocatorv1.FromAllocator) error {
		for _, d := range m.GetDecisions() {
			if r := d.GetRevoke(); r != nil {
				r.GraceMs = 0
			}
		}
		return nil
	}},
	"revokes-guaranteed": {event: func(_ *tampered, e *allocatorv1.Event, _ bool) bool {
		if r := e.GetRole(); r.GetName() == "rich" {
			r.Guarantee = nil
		}
		return true
	}},
	"revokes-unasked": {preempt: &allocator.Preempt{After: 50 * time.Millisecond, GracePeriod: time.Minute}},
	"filters-for-ever": {event: func(_ *tampered, e *allocatorv1.Event, _ bool) bool {
		if r := e.GetReleased(); r.GetRefuseMs() > 0 {
			r.RefuseMs = 1 << 40
		}
		return true
	}},
	"filters-all-roles": {receive: filterAllRoles},
	"ignores-revive":    {event: func(_ *tampered, e *allocatorv1.Event, _ bool) bool { return e.GetRevived() == nil }},
	"ignores-suppression": {event: func(_ *tampered, e *allocatorv1.Event, _ bool) bool {
		if f := e.GetFramework(); f != nil {
			f.Suppressed = nil
		}
		return e.GetSuppressed() == nil
	}},
	"ignores-limits": {event: func(_ *tampered, e *allocatorv1.Event, _ bool) bool {
		if r := e.GetRole(); r != nil {
			r.Limit = nil
		}
		return true
	}},
	"ignores-reservations": {event: func(_ *tampered, e *allocatorv1.Event, _ bool) bool {
		if k := e.GetKind(); k != nil {
			k.Reservations = nil
		}
		return true
	}},
	"ignores-capabilities": {event: func(_ *tampered, e *allocatorv1.Event, _ bool) bool {
		if f := e.GetFramework(); f != nil {
			f.Capabilities = 31
		}
		return true
	}},
	"ignores-min-allocatable": {begin: func(b *allocatorv1.Begin) {
		b.MinAllocatable = []*allocatorv1.NamedQuantities{{Names: []string{"cpus"}, Thousandths: []int64{1}}}
	}},
	"offers-inactive-agents": {event: func(_ *tampered, e *allocatorv1.Event, _ bool) bool {
		if a := e.GetAgent(); a != nil {
			a.Active = true
		}
		return true
	}},
	"offers-departed-agents": {event: func(_ *tampered, e *allocatorv1.Event, _ bool) bool { return e.GetAgentRemoved() == nil }},
	"offers-dead-frameworks": {event: func(_ *tampered, e *allocatorv1.Event, _ bool) bool {
		if f := e.GetFramework(); f != nil {
			f.Active = true
		}
		return e.GetFrameworkRemoved() == nil
	}},
	"offers-lost-agents": {event: func(_ *tampered, e *allocatorv1.Event, _ bool) bool {
		if a := e.GetAgent(); a != nil {
			a.Active = true
		}
		return e.GetAgentRemoved() == nil
	}},
	"ignores-refusals": {event: func(_ *tampered, e *allocatorv1.Event, _ bool) bool { return e.GetRefused() == nil }},
	"forgets-after-snapshot": {event: func(_ *tampered, e *allocatorv1.Event, snapshot bool) bool {
		if a := e.GetAgent(); a != nil && snapshot {
			a.Holdings = nil
		}
		return !snapshot || e.GetFilter() == nil
	}},
	"never-offers": {send: func(_ *tampered, m *allocatorv1.FromAllocator) error {
		m.Decisions = nil
		return nil
	}},
	"dies-on-unknown-events": {receive: func(_ *tampered, m *allocatorv1.FromCore) error {
		for _, e := range m.GetBatch().GetEvents() {
			if e.GetEvent() == nil {
				return status.Error(codes.Internal, "what is that?")
			}
		}
		return nil
	}},
	"dies-on-duplicates": {receive: diesOnDuplicates},
	"floods":             {begin: func(b *allocatorv1.Begin) { b.MaxDecisionsPerSecond = 0 }},
	"spams":              {copies: 20, only: isOffer, begin: func(b *allocatorv1.Begin) { b.MaxDecisionsPerSecond = 0 }},
	"stops-reading": {receive: func(t *tampered, _ *allocatorv1.FromCore) error {
		if t.events > stopReadingAfter {
			<-t.Context().Done()
		}
		return nil
	}},
	"reads-nothing": {receive: func(t *tampered, m *allocatorv1.FromCore) error {
		if m.GetBatch() != nil && !m.GetBatch().GetSnapshot() {
			<-t.Context().Done()
		}
		return nil
	}},
	"never-acknowledges": {send: func(_ *tampered, m *allocatorv1.FromAllocator) error {
		m.EventsSeen = 0
		return nil
	}},
	"never-ready": {send: func(_ *tampered, m *allocatorv1.FromAllocator) error {
		m.Ready = false
		return nil
	}},
	"wrong-session": {send: func(_ *tampered, m *allocatorv1.FromAllocator) error {
		m.Session++
		return nil
	}},
	"chatters":       {send: chatter(2*time.Millisecond, 0)},
	"talks-nonsense": {send: chatter(5*time.Millisecond, 5)},
}
