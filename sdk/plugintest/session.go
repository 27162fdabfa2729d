package plugintest

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"time"

	"google.golang.org/grpc"

	"github.com/mezzo-os/mezzo/sdk/allocator"
	"github.com/mezzo-os/mezzo/sdk/allocator/model"
	allocatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/allocator/v1"
	"github.com/mezzo-os/mezzo/sdk/resource"
)

// core is the core's end of one session. It is used by its scenario's goroutine
// alone.
type core struct {
	c       *scenario
	plugin  *Plugin
	number  uint64 // of the session
	stream  grpc.BidiStreamingClient[allocatorv1.FromCore, allocatorv1.FromAllocator]
	cancel  context.CancelFunc
	encoder *allocator.Encoder
	*model.Books

	out chan *allocatorv1.FromCore
	in  chan incoming

	next    uint64 // event
	acked   uint64
	ready   bool
	ended   bool   // the snapshot
	decided uint64 // the last decision

	arrivals []time.Time // of decisions
	messages int
	agentNo  map[string]uint32
	trace    []string
	wrong    int  // violations that were seen
	again    bool // it goes on where another session of the scenario ended

	told time.Time // when the last event was

	// refuse, when set, may refuse what could be carried out.
	refuse func(allocator.Decision) *allocator.Refused
	// never, when set, says why an offer is none that the scenario allows.
	never func(*allocator.Offer) string
	// answer, when set, is what a framework does with an offer; without it the
	// offer stays outstanding.
	answer func(*allocator.Offer)
	// mayRevoke is whether the plugin's configuration lets it revoke, with at
	// least that grace.
	mayRevoke bool
	grace     time.Duration
	// asked and revoked are what was carried out.
	asked   []*allocator.InverseOffer
	revoked []*allocator.Revoke
}

type incoming struct {
	message *allocatorv1.FromAllocator
	err     error
}

// begun is how sessions begin unless a scenario wants something of its own:
// with a min_refuse that is over before a settle window is.
func begun() allocator.Begin {
	return allocator.Begin{FirstDecision: 1, BatchInterval: 5 * time.Millisecond, MinRefuse: 100 * time.Millisecond, Seed: 1, MaxDecisionsPerSecond: 10_000}
}

// session opens one with an empty snapshot.
func (c *scenario) session() *core {
	s := c.sessionWith(model.New(begun()))
	s.finish()
	return s
}

// sessionWith opens one that the books tell of, and leaves the snapshot open.
func (c *scenario) sessionWith(b *model.Books) *core { return c.sessionOn(c.configured(), b) }

// sessionOn opens one on an instance.
func (c *scenario) sessionOn(p *Plugin, b *model.Books) *core {
	c.suite.sessions++
	ctx, cancel := context.WithCancel(c.ctx)
	stream, err := allocatorv1.NewAllocatorClient(p.Conn).Allocate(ctx)
	if err != nil {
		cancel()
		c.failf("Allocate failed: %v", err)
	}
	s := &core{
		c: c, number: c.suite.sessions * 1000, stream: stream, cancel: cancel, encoder: allocator.NewEncoder(), Books: b,
		out: make(chan *allocatorv1.FromCore, 4096), in: make(chan incoming, 1024), next: 1, agentNo: map[string]uint32{},
		decided: b.Begin.FirstDecision - 1, plugin: p,
	}
	s.mayRevoke = c.mayRevoke(p)
	b.Headroom = c.suite.serves("headroom")
	b.Rebase()
	c.undo = append(c.undo, s.cut)
	go s.pump(ctx)
	go s.read(ctx)
	s.send(&allocatorv1.FromCore{Begin: b.Begin.Proto()})
	s.snapshot(b.Snapshot(time.Now())...)
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
		if u, ok := e.(*allocator.AgentUpdated); ok {
			u.DecisionsSeen = s.decided
		}
		s.note(fmt.Sprintf("event %d: %s", number, show(e)))
		s.Apply(e, number, time.Now())
	}
	s.told = time.Now()
	for _, b := range s.encoder.Encode(allocator.Batch{FirstEvent: s.next, Events: events, DecisionsSeen: s.decided}) {
		s.send(&allocatorv1.FromCore{Batch: b})
	}
	s.next += uint64(len(events))
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
		patience = s.c.suite.window()
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

// settle waits until everything told was acknowledged, and then until nothing
// was decided for a settle window (see Options.Settle). A plugin that never
// comes to rest is left after a while.
func (s *core) settle() {
	s.acknowledged()
	window := s.c.suite.window()
	for end := time.Now().Add(10 * window); time.Now().Before(end); {
		before := len(s.arrivals)
		if !s.awaitFor(window, func() bool { return len(s.arrivals) > before }) {
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
		if p := s.plugin; p.Output != nil {
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
	where := s.c.rule.name
	if s.again && rule != where {
		where = checkSnapshot
	}
	s.c.violated(rule, where, s.evidence(fmt.Sprintf(format, args...))...)
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
		s.violated(checkDecisions, "decision %d comes after %d, where they begin with %d", number, s.decided, s.Begin.FirstDecision)
		return
	}
	s.decided = number
	decision, err := s.encoder.Decision(d)
	if err != nil {
		s.unreadable(d, err, seen)
		return
	}
	s.judge(decision, seen, now)
}

// unreadable is a decision that names what the session does not have.
func (s *core) unreadable(d *allocatorv1.Decision, err error, seen uint64) {
	reason := allocator.ReasonOf(err)
	if rule, since := s.Gone(reason); since <= seen {
		s.violated(string(rule), "%v: %v", err, d)
	}
	s.tell(&allocator.Refused{Decision: d.GetNumber(), Reason: reason, Message: err.Error()})
}

// judge judges a decision that was made when the allocator had seen that many
// events, and carries it out or refuses it.
func (s *core) judge(d allocator.Decision, seen uint64, now time.Time) {
	line := fmt.Sprintf("decision %d (events_seen %d): %s", d.DecisionNumber(), seen, showDecision(d))
	p := s.Judge(d, now)
	s.note(line)
	offer, isOffer := d.(*allocator.Offer)
	if p == nil && isOffer && s.never != nil {
		if why := s.never(offer); why != "" {
			p = &model.Problem{Rule: model.Rule(s.c.rule.name), Why: why}
		}
	}
	if revoke, is := d.(*allocator.Revoke); is && p == nil {
		switch {
		case !s.mayRevoke:
			p = &model.Problem{Rule: model.RuleRevocation, Reason: allocator.RefusedRevocationDisabled, Why: "its configuration does not let it revoke"}
		case revoke.Grace < s.grace:
			p = &model.Problem{Rule: model.RuleRevocation, Reason: allocator.RefusedRevocationBounds, Why: fmt.Sprintf("its grace_period is %v", s.grace)}
		}
	}
	if p != nil && p.Since <= seen {
		s.violated(string(p.Rule), "%s: %s", line, p.Why)
	}
	var refused *allocator.Refused
	if p != nil && p.Reason != 0 {
		refused = &allocator.Refused{Reason: p.Reason, Message: p.Why}
		if isOffer {
			refused.Agent = s.State(offer.Agent)
		}
	} else if s.refuse != nil {
		refused = s.refuse(d)
	}
	if refused != nil {
		refused.Decision = d.DecisionNumber()
		s.tell(refused)
		return
	}
	s.carryOut(d)
}

func (s *core) carryOut(d allocator.Decision) {
	switch d := d.(type) {
	case *allocator.Offer:
		s.CarryOut(d)
		if s.answer != nil {
			s.answer(d)
		}
	case *allocator.InverseOffer:
		s.CarryOut(d)
		s.asked = append(s.asked, d)
	case *allocator.Revoke:
		s.CarryOut(d)
		s.revoked = append(s.revoked, d)
	case *allocator.Rescind:
		i := slices.IndexFunc(s.Offers, func(o *allocator.Offer) bool { return o.Number == d.Offer })
		o := s.Offers[i]
		s.CarryOut(d)
		s.release(o, o.Resources, 0, false)
	}
}

// release gives back a part of what a framework holds.
func (s *core) release(o *allocator.Offer, r resource.Resources, refuse time.Duration, declined bool) {
	s.tell(&allocator.Released{Agent: o.Agent, Framework: o.Framework, Role: o.Role, Resources: r, Refuse: refuse, Declined: declined, Offer: o.Number})
}

// decline answers an offer with no.
func (s *core) decline(o *allocator.Offer, refuse time.Duration) {
	s.Take(o)
	s.release(o, o.Resources, refuse, true)
}

// accept launches task from an offer; what is left is free again.
func (s *core) accept(o *allocator.Offer, task resource.Resources) {
	s.Take(o)
	if left := o.Resources.Minus(task); !left.IsEmpty() {
		s.release(o, left, 0, false)
	}
}

// to are the outstanding offers of a framework, on an agent if one is named.
func (s *core) to(framework, agent string) []*allocator.Offer {
	var out []*allocator.Offer
	for _, o := range s.Offers {
		if o.Framework == framework && (agent == "" || o.Agent == agent) {
			out = append(out, o)
		}
	}
	return out
}

// leave has a framework want nothing any more, and give its offers back.
func (s *core) leave(framework string) {
	s.tell(&allocator.Suppressed{Framework: framework, Roles: s.Frameworks[framework].Update.Roles})
	for _, o := range s.to(framework, "") {
		s.decline(o, 0)
	}
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
