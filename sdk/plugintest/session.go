package plugintest

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"

	"github.com/mezzo-os/mezzo/sdk/allocator"
	allocatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/allocator/v1"
	"github.com/mezzo-os/mezzo/sdk/resource"
)

// core is the core's end of one session. It is used by its scenario's goroutine
// alone.
type core struct {
	c       *scenario
	number  uint64 // of the session
	stream  grpc.BidiStreamingClient[allocatorv1.FromCore, allocatorv1.FromAllocator]
	cancel  context.CancelFunc
	encoder *allocator.Encoder
	*books

	out chan *allocatorv1.FromCore
	in  chan incoming

	next    uint64 // event
	acked   uint64
	ready   bool
	ended   bool   // the snapshot
	decided uint64 // the last decision

	offers   []*allocator.Offer // outstanding
	arrivals []time.Time        // of decisions
	messages int
	agentNo  map[string]uint32
	trace    []string
	wrong    int // violations that were seen

	// refuse, when set, may refuse what could be carried out.
	refuse func(*allocator.Offer) *allocator.Refused
	// answer, when set, is what a framework does with an offer; without it the
	// offer stays outstanding.
	answer func(*allocator.Offer)
}

type incoming struct {
	message *allocatorv1.FromAllocator
	err     error
}

// begun is how sessions begin unless a scenario wants something of its own.
func begun() allocator.Begin {
	return allocator.Begin{FirstDecision: 1, BatchInterval: 5 * time.Millisecond, MinRefuse: 100 * time.Millisecond, Seed: 1, MaxDecisionsPerSecond: 10_000}
}

// session opens one with an empty snapshot.
func (c *scenario) session() *core {
	s := c.sessionWith(newBooks(begun()), nil)
	s.finish()
	return s
}

// sessionWith opens one that the books tell of, and leaves the snapshot open.
func (c *scenario) sessionWith(b *books, outstanding []*allocator.Offer) *core {
	p := c.configured()
	c.suite.sessions++
	ctx, cancel := context.WithCancel(c.ctx)
	stream, err := allocatorv1.NewAllocatorClient(p.Conn).Allocate(ctx)
	if err != nil {
		cancel()
		c.failf("Allocate failed: %v", err)
	}
	s := &core{
		c: c, number: c.suite.sessions * 1000, stream: stream, cancel: cancel, encoder: allocator.NewEncoder(), books: b,
		out: make(chan *allocatorv1.FromCore, 4096), in: make(chan incoming, 1024), next: 1, agentNo: map[string]uint32{},
		offers: outstanding, decided: b.begin.FirstDecision - 1,
	}
	b.rebase()
	c.undo = append(c.undo, s.cut)
	go s.pump(ctx)
	go s.read(ctx)
	s.send(&allocatorv1.FromCore{Begin: b.begin.Proto()})
	s.snapshot(b.snapshot(time.Now(), outstanding)...)
	return s
}

// pump sends, so that a plugin that does not read holds nobody up.
func (s *core) pump(ctx context.Context) {
	for {
		select {
		case m := <-s.out:
			if s.stream.Send(m) != nil {
				return // Recv says why
			}
		case <-ctx.Done():
			return
		}
	}
}

func (s *core) read(ctx context.Context) {
	for {
		m, err := s.stream.Recv()
		select {
		case s.in <- incoming{m, err}:
		case <-ctx.Done():
			return
		}
		if err != nil {
			return
		}
	}
}

// cut ends the stream, as a core does that has had enough.
func (s *core) cut() { s.cancel() }

func (s *core) send(m *allocatorv1.FromCore) {
	m.Session = s.number
	for _, e := range append(m.GetBatch().GetDefinitions(), m.GetBatch().GetEvents()...) {
		if a := e.GetAgent(); a != nil {
			s.agentNo[a.GetId()] = a.GetNumber()
		}
	}
	select {
	case s.out <- m:
	default:
		s.lost("it has not read %d messages", cap(s.out))
	}
}

// snapshot tells events of the snapshot, which stays open.
func (s *core) snapshot(events ...allocator.Event) {
	for _, e := range events {
		s.note("snapshot: " + show(e))
	}
	for _, b := range s.encoder.Encode(allocator.Batch{Snapshot: true, Events: events}) {
		s.send(&allocatorv1.FromCore{Batch: b})
	}
}

// finish ends the snapshot and waits until the allocator is ready.
func (s *core) finish() {
	s.ended = true
	s.note("the snapshot ends")
	s.send(&allocatorv1.FromCore{Batch: &allocatorv1.Batch{Snapshot: true, SnapshotEnd: true}})
	if !s.await(func() bool { return s.ready }) {
		s.inconclusive("it is not ready %v after the snapshot", s.c.suite.options.Patience)
	}
}

// tell tells events and keeps the books by them.
func (s *core) tell(events ...allocator.Event) {
	for i, e := range events {
		number := s.next + uint64(i)
		s.note(fmt.Sprintf("event %d: %s", number, show(e)))
		s.apply(e, number, time.Now())
		s.forget(e)
	}
	for _, b := range s.encoder.Encode(allocator.Batch{FirstEvent: s.next, Events: events, DecisionsSeen: s.decided}) {
		s.send(&allocatorv1.FromCore{Batch: b})
	}
	s.next += uint64(len(events))
}

// forget drops outstanding offers that an event ended.
func (s *core) forget(e allocator.Event) {
	s.offers = slices.DeleteFunc(s.offers, func(o *allocator.Offer) bool {
		switch v := e.(type) {
		case *allocator.AgentRemoved:
			return o.Agent == v.ID
		case *allocator.FrameworkRemoved:
			return o.Framework == v.ID
		}
		return false
	})
}

// tellRaw tells events as they are, about which the books say nothing.
func (s *core) tellRaw(what string, events ...*allocatorv1.Event) {
	s.note(fmt.Sprintf("events %d to %d: %s", s.next, s.next+uint64(len(events))-1, what))
	s.send(&allocatorv1.FromCore{Batch: &allocatorv1.Batch{FirstEvent: s.next, Events: events, DecisionsSeen: s.decided}})
	s.next += uint64(len(events))
}

// traceLength is how much of what led to something is evidence of it.
const traceLength = 16

func (s *core) note(line string) {
	if len(line) > 300 {
		line = line[:300] + "…"
	}
	if s.trace = append(s.trace, line); len(s.trace) > 4*traceLength {
		s.trace = slices.Clone(s.trace[len(s.trace)-traceLength:])
	}
}

// evidence is what led to now.
func (s *core) evidence(first string) []string {
	out := []string{first}
	if n := len(s.trace); n > 0 {
		out = append(out, "what led to it:")
		for _, line := range s.trace[max(0, n-traceLength):] {
			out = append(out, "  "+line)
		}
	}
	return out
}

// failf fails the scenario's check with what led to it.
func (s *core) failf(format string, args ...any) {
	if s.wrong > 0 && s.c.verdict.by[s.c.rule.name] == nil {
		// What failed may follow from that; the violation has a check of its own.
		s.c.skipf("%s, after decisions that broke another rule", fmt.Sprintf(format, args...))
	}
	if name := s.broken(); name != "" {
		s.c.skipf("%s, which may follow from the failure of %s", fmt.Sprintf(format, args...), name)
	}
	s.lost(format, args...)
}

// inconclusive ends a scenario whose rule could not be tried.
func (s *core) inconclusive(format string, args ...any) {
	s.c.skipf(format, args...)
}

// lost fails the check since the session cannot go on.
func (s *core) lost(format string, args ...any) {
	s.c.verdict.fail(s.evidence(fmt.Sprintf(format, args...))...)
	runtime.Goexit()
}

// basics are rules without which no other can be tried.
var basics = []string{"ready", "acknowledges", "offers"}

// broken returns a rule that this scenario's stands on and that is broken.
func (s *core) broken() string {
	for _, name := range append(basics, s.c.needs...) {
		if v := s.c.suite.verdicts[name]; v != s.c.verdict && v.Outcome == Failed {
			return name
		}
	}
	return ""
}

// await handles what comes until a condition holds; false when it took longer
// than the suite's patience. What stands on a broken rule is not waited for.
func (s *core) await(condition func() bool) bool {
	patience := s.c.suite.options.Patience
	if s.broken() != "" {
		patience = s.c.suite.options.Quiet
	}
	return s.awaitFor(patience, condition)
}

func (s *core) awaitFor(d time.Duration, condition func() bool) bool {
	deadline := time.NewTimer(d)
	defer deadline.Stop()
	for !condition() {
		select {
		case m := <-s.in:
			s.receive(m)
		case <-deadline.C:
			return condition()
		}
	}
	return true
}

// pass handles what comes for a while.
func (s *core) pass(d time.Duration) { s.awaitFor(d, func() bool { return false }) }

// settle waits until everything told was acknowledged and nothing is decided
// any more. A plugin that never comes to rest is left after a while.
func (s *core) settle() {
	s.acknowledged()
	quiet := s.c.suite.options.Quiet
	for end := time.Now().Add(10 * quiet); time.Now().Before(end); {
		before := len(s.arrivals)
		if !s.awaitFor(quiet, func() bool { return len(s.arrivals) > before }) {
			return
		}
	}
}

// acknowledged waits until everything told was acknowledged.
func (s *core) acknowledged() {
	last := s.next - 1
	if s.await(func() bool { return s.acked >= last }) {
		return
	}
	if s.broken() != "" {
		s.inconclusive("event %d is not acknowledged", last)
	}
	s.lost("event %d was told, and %v later events_seen is %d", last, s.c.suite.options.Patience, s.acked)
}

// receive handles one message of the allocator's.
func (s *core) receive(m incoming) {
	if m.err != nil {
		lines := s.evidence(fmt.Sprintf("the stream ended: %v", m.err))
		if p := s.c.suite.current; p != nil && p.Output != nil {
			for _, line := range p.Output() {
				lines = append(lines, "  it printed: "+line)
			}
		}
		s.c.verdict.fail(lines...)
		runtime.Goexit()
	}
	s.messages++
	message := m.message
	if message.GetSession() != s.number {
		s.violated(checkDecisions, "a message bears session %d in session %d", message.GetSession(), s.number)
	}
	switch seen := message.GetEventsSeen(); {
	case seen >= s.next:
		s.violated("acknowledges", "events_seen is %d, and the last event told is %d", seen, s.next-1)
	case seen < s.acked:
		s.violated("acknowledges", "events_seen is %d after it was %d", seen, s.acked)
	default:
		s.acked = seen
	}
	if message.GetReady() {
		if s.ready || !s.ended {
			s.violated("ready", "it says ready when its snapshot %s", map[bool]string{true: "was taken in before, for the second time", false: "has not ended"}[s.ended])
		}
		s.ready = true
	}
	for _, d := range message.GetDecisions() {
		s.decision(d, message.GetEventsSeen())
	}
}

func (s *core) violated(rule, format string, args ...any) {
	s.wrong++
	s.c.violated(rule, s.evidence(fmt.Sprintf(format, args...))...)
}

// decision judges one, and carries it out or refuses it.
func (s *core) decision(d *allocatorv1.Decision, seen uint64) {
	now := time.Now()
	s.arrivals = append(s.arrivals, now)
	number := d.GetNumber()
	if !s.ended || !s.ready {
		s.violated("ready", "decision %d comes before it is ready: %v", number, d)
	}
	if number <= s.decided {
		s.violated(checkDecisions, "decision %d comes after %d, where they begin with %d", number, s.decided, s.begin.FirstDecision)
		return
	}
	s.decided = number
	decision, err := s.encoder.Decision(d)
	if err != nil {
		s.unreadable(d, err, seen)
		return
	}
	switch v := decision.(type) {
	case *allocator.Offer:
		s.offer(v, seen, now)
	case *allocator.Rescind:
		if i := slices.IndexFunc(s.offers, func(o *allocator.Offer) bool { return o.Number == v.Offer }); i >= 0 {
			o := s.offers[i]
			s.offers = slices.Delete(s.offers, i, i+1)
			s.release(o, o.Resources, 0, false)
			return
		}
		s.tell(&allocator.Refused{Decision: number, Reason: allocator.RefusedUnknownOffer})
	case *allocator.Revoke:
		s.tell(&allocator.Refused{Decision: number, Reason: allocator.RefusedRevocationDisabled})
	}
}

// unreadable is a decision that names what the session does not have.
func (s *core) unreadable(d *allocatorv1.Decision, err error, seen uint64) {
	reason := allocator.ReasonOf(err)
	rule, since := checkDecisions, uint64(0)
	switch reason {
	case allocator.RefusedUnknownAgent:
		rule, since = checkDeparted, s.agentRemoved
	case allocator.RefusedUnknownFramework:
		rule, since = checkFrameworks, s.frameworkRemoved
	}
	if since <= seen {
		s.violated(rule, "%v: %v", err, d)
	}
	s.tell(&allocator.Refused{Decision: d.GetNumber(), Reason: reason, Message: err.Error()})
}

func (s *core) offer(o *allocator.Offer, seen uint64, now time.Time) {
	line := fmt.Sprintf("decision %d (events_seen %d): offer %s of %s to %s in %s", o.Number, seen, o.Resources, o.Agent, o.Framework, o.Role)
	p := s.judge(o, now)
	s.note(line)
	if p != nil && p.since <= seen {
		s.violated(p.rule, "%s: %s", line, p.why)
	}
	if p != nil && p.reason != 0 {
		s.tell(&allocator.Refused{Decision: o.Number, Reason: p.reason, Message: p.why, Agent: s.state(o.Agent)})
		return
	}
	if s.refuse != nil {
		if r := s.refuse(o); r != nil {
			r.Decision = o.Number
			s.tell(r)
			return
		}
	}
	s.hold(holder{o.Agent, o.Framework, o.Role}, o.Resources)
	s.offers = append(s.offers, o)
	if s.answer != nil {
		s.answer(o)
	}
}

// release gives back a part of what a framework holds.
func (s *core) release(o *allocator.Offer, r resource.Resources, refuse time.Duration, declined bool) {
	s.tell(&allocator.Released{Agent: o.Agent, Framework: o.Framework, Role: o.Role, Resources: r, Refuse: refuse, Declined: declined, Offer: o.Number})
}

// decline answers an offer with no.
func (s *core) decline(o *allocator.Offer, refuse time.Duration) {
	s.take(o)
	s.release(o, o.Resources, refuse, true)
}

// accept launches task from an offer; what is left is free again.
func (s *core) accept(o *allocator.Offer, task resource.Resources) {
	s.take(o)
	if left := o.Resources.Minus(task); !left.IsEmpty() {
		s.release(o, left, 0, false)
	}
}

// take ends an offer, whose resources stay held.
func (s *core) take(o *allocator.Offer) {
	s.offers = slices.DeleteFunc(s.offers, func(x *allocator.Offer) bool { return x == o })
}

// to are the outstanding offers of a framework, on an agent if one is named.
func (s *core) to(framework, agent string) []*allocator.Offer {
	var out []*allocator.Offer
	for _, o := range s.offers {
		if o.Framework == framework && (agent == "" || o.Agent == agent) {
			out = append(out, o)
		}
	}
	return out
}

// wait waits for an offer.
func (s *core) wait(framework, agent string) *allocator.Offer {
	if !s.await(func() bool { return len(s.to(framework, agent)) > 0 }) {
		return nil
	}
	return s.to(framework, agent)[0]
}

// need waits for an offer without which the scenario's rule cannot be tried.
func (s *core) need(framework, agent string) *allocator.Offer {
	o := s.wait(framework, agent)
	if o == nil {
		s.inconclusive("nothing was offered to %s, which the scenario needs", framework)
	}
	return o
}

// newAgent tells of an agent whose resources are all free.
func (s *core) newAgent(id, total string) {
	s.tell(&allocator.AgentUpdated{ID: id, Hostname: id, Version: 1, Total: resource.MustParse(total), Active: true, HoldingsSet: true})
}

// newFramework tells of a framework that wants whatever it can have.
func (s *core) newFramework(id string, roles ...string) {
	s.tell(&allocator.FrameworkUpdated{ID: id, Name: id, Roles: roles, Active: true})
}

func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }

// show writes an event in a line.
func show(e allocator.Event) string {
	switch v := e.(type) {
	case *allocator.RoleUpdated:
		if v.Limit == nil {
			return "role " + v.Name + " with no limit"
		}
		return fmt.Sprintf("role %s with limit %s", v.Name, limitText(v.Limit))
	case *allocator.FrameworkUpdated:
		return fmt.Sprintf("framework %s in %v, suppressed in %v, active %v, capabilities %d", v.ID, v.Roles, v.Suppressed, v.Active, v.Capabilities)
	case *allocator.AgentUpdated:
		return showAgent(v)
	case *allocator.Released:
		return fmt.Sprintf("released by %s in %s on %s: %s, refused for %v, declined %v", v.Framework, v.Role, v.Agent, v.Resources, v.Refuse, v.Declined)
	case *allocator.Filter:
		return fmt.Sprintf("filter of %s in %s on %s: %s for %v", v.Framework, v.Role, v.Agent, v.Resources, v.Remaining.Round(time.Millisecond))
	case *allocator.Held:
		return fmt.Sprintf("held by %s in %s on %s: %s", v.Framework, v.Role, v.Agent, v.Resources)
	case *allocator.OfferOutstanding:
		return fmt.Sprintf("offer %d is outstanding: %s of %s to %s in %s", v.Number, v.Resources, v.Agent, v.Framework, v.Role)
	case *allocator.Refused:
		out := fmt.Sprintf("decision %d is refused: %s", v.Decision, strings.ToLower(strings.TrimPrefix(v.Reason.String(), "REFUSAL_REASON_")))
		if v.Agent != nil {
			out += "; " + showAgent(v.Agent)
		}
		return out
	}
	return strings.TrimPrefix(fmt.Sprintf("%T", e), "*allocator.") + fmt.Sprintf(" %+v", e)[2:]
}

func showAgent(v *allocator.AgentUpdated) string {
	out := fmt.Sprintf("agent %s with %s, active %v", v.ID, v.Total, v.Active)
	for _, h := range v.Holdings {
		out += fmt.Sprintf("; %s holds %s in %s", h.Framework, h.Resources, h.Role)
	}
	return out
}

func limitText(limit resource.Quantities) string {
	var parts []string
	for _, q := range limit {
		parts = append(parts, q.Name+":"+q.Amount.String())
	}
	return strings.Join(parts, ";")
}
