package sim

import (
	"fmt"
	"time"

	"github.com/mezzo-os/mezzo/core/master/state"
	"github.com/mezzo-os/mezzo/sdk/allocator"
	"github.com/mezzo-os/mezzo/sdk/allocator/engine"
	allocatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/allocator/v1"
	"github.com/mezzo-os/mezzo/sdk/resource"
)

// allocation is the allocator's plugin: whether its process runs.
type allocation struct {
	sessions  uint64
	downUntil time.Duration
	// rogueUntil: sessions that begin before are of a plugin gone mad.
	rogueUntil time.Duration
	// slowUntil: nothing passes between it and masters.
	slowUntil time.Duration
}

// slow has the allocator neither hear nor say anything for a while.
func (a *allocation) slow(w *world, until time.Duration) {
	a.slowUntil = until
	w.at(until, func() {
		for _, m := range append([]*master(nil), w.masters...) {
			if s := m.session; s != nil {
				s.down.pump()
				s.up.pump()
			}
		}
	})
}

// session is one stream between a master and its allocator. The encoder is the
// master's end of it, the engine the plugin's.
type session struct {
	id      state.Session
	w       *world
	master  *master
	encoder *allocator.Encoder
	engine  *engine.Engine
	began   time.Duration
	down    pipe // to the allocator
	up      pipe // to the master
	ready   bool
	seen    uint64
	tick    time.Duration
	audits  int
	over    bool
	// rogue: what the engine decides is changed at random, so that its mirror is
	// of no account. The core must hold all the same.
	rogue bool
}

// toCore is a message of the allocator.
type toCore struct {
	ready     bool
	seen      uint64
	decisions []*allocatorv1.Decision
}

// openSession gives a master a stream to an allocator that has just started.
func (w *world) openSession(m *master) {
	if !m.alive || m.session != nil {
		return
	}
	if wait := w.allocation.downUntil - w.now; wait > 0 {
		w.after(wait, func() { w.openSession(m) })
		return
	}
	w.allocation.sessions++
	s := &session{id: state.Session(w.allocation.sessions), w: w, master: m, encoder: allocator.NewEncoder(), began: w.now, rogue: w.now < w.allocation.rogueUntil}
	slow := func() bool { return w.now < w.allocation.slowUntil }
	s.down = pipe{w: w, deliver: s.atAllocator, blocked: slow}
	s.up = pipe{w: w, deliver: s.atMaster, blocked: slow}
	m.session = s
	w.note([]string{m.name}, "%s: allocator session %d", m.name, s.id)
	m.step(state.AllocatorOpened{Session: s.id})
}

func (m *master) beginSession(out state.AllocatorBegin) {
	if s := m.session; s != nil && s.id == out.Session {
		s.down.send(m.w.wire(out.Begin.Proto()))
	}
}

func (m *master) sendBatch(out state.AllocatorBatch) {
	s := m.session
	if s == nil || s.id != out.Session {
		return
	}
	for _, message := range s.encoder.Encode(m.w.cfg.plant.forgets(m.w, out.Batch)) {
		s.down.send(m.w.wire(message))
	}
}

func (s *session) now() time.Duration { return s.w.now - s.began }

func (s *session) atAllocator(content any) {
	switch x := content.(type) {
	case *allocatorv1.Begin:
		s.engine = engine.New(x, &engine.DominantShare{})
	case *allocatorv1.Batch:
		if s.engine == nil {
			s.w.fail(s.subjects(), "the allocator got events before it got Begin")
			return
		}
		if err := s.engine.Apply(s.now(), x); err != nil {
			if !s.rogue {
				s.w.fail(s.subjects(), "the engine does not understand the master: %v", err)
			}
			s.w.endSession(s.master, err.Error())
			return
		}
		s.turn()
	}
}

func (s *session) subjects() []string { return []string{s.master.name} }

// turn lets the engine run, and sends what it decides.
func (s *session) turn() {
	w := s.w
	if s.over || w.failure != nil {
		return
	}
	decisions, _ := s.engine.Run(s.now())
	if s.audits++; s.audits%w.cfg.AuditEvery == 0 {
		if err := s.engine.Audit(); err != nil && !s.rogue {
			w.fail(s.subjects(), "the engine's own books: %v", err)
			return
		}
	}
	msg := toCore{seen: s.engine.EventsSeen(), decisions: decisions}
	if s.engine.Ready() && !s.ready {
		msg.ready, s.ready = true, true
	}
	if len(decisions) > 0 || msg.ready || msg.seen != s.seen {
		s.seen = msg.seen
		s.up.send(msg)
	}
	next, ok := s.engine.Next()
	if !ok {
		return
	}
	at := max(next+s.began, w.now+time.Nanosecond)
	if s.tick == 0 || at < s.tick || s.tick <= w.now {
		s.tick = at
		w.at(at, func() {
			if s.tick == at {
				s.tick = 0
			}
			s.turn()
		})
	}
}

func (s *session) atMaster(content any) {
	m, msg := s.master, content.(toCore)
	if msg.ready {
		m.step(state.AllocatorReady{Session: s.id})
	}
	if len(msg.decisions) == 0 && msg.seen == 0 {
		return
	}
	in := state.AllocatorDecisions{Session: s.id, EventsSeen: msg.seen}
	for _, d := range msg.decisions {
		decision, err := s.encoder.Decision(s.w.wire(d).(*allocatorv1.Decision))
		if err != nil {
			decision = &state.Malformed{Number: d.GetNumber(), Reason: allocator.ReasonOf(err), Message: err.Error()}
		}
		if s.rogue {
			decision = s.madden(decision)
		}
		if o, ok := decision.(*allocator.Offer); ok {
			s.w.note([]string{m.name, o.Agent, o.Framework}, "allocator: offer %d: %s of %s to %s in %s", o.Number, o.Resources, o.Agent, o.Framework, o.Role)
		}
		in.Decisions = append(in.Decisions, decision)
	}
	m.step(in)
}

// madden changes a decision into one that no sane allocator would make.
func (s *session) madden(d allocator.Decision) allocator.Decision {
	w := s.w
	o, ok := d.(*allocator.Offer)
	if !ok {
		return d
	}
	mad := *o
	switch w.pick(8) {
	case 0:
		mad.Resources = mad.Resources.Add(mad.Resources.Filter(func(k resource.Kind) bool { return k.Type() == resource.TypeScalar }))
	case 1:
		mad.Framework = s.anyFramework()
	case 2:
		if ids := sorted(s.master.views.agents); len(ids) > 0 {
			mad.Agent = ids[w.pick(len(ids))]
		}
	case 3:
		mad.Role = roleNames[w.pick(len(roleNames))]
	case 4:
		mad.Number -= min(mad.Number, uint64(w.pick(4)))
	case 5:
		return &allocator.Rescind{Number: mad.Number, Offer: uint64(w.pick(int(mad.Number) + 1))}
	case 6:
		mad.Resources = nil
	}
	return &mad
}

func (s *session) anyFramework() string {
	ids := sorted(s.master.views.frameworks)
	if len(ids) == 0 {
		return "nobody"
	}
	return ids[s.w.pick(len(ids))]
}

// end ends the session at both ends; the master is told if it lives.
func (s *session) end() {
	if s.over {
		return
	}
	s.over = true
	s.down.cut()
	s.up.cut()
	if s.master.session == s {
		s.master.session = nil
	}
}

// crashAllocator ends the plugin's process; it comes back after a while.
func (w *world) crashAllocator(wait time.Duration) {
	w.allocation.downUntil = w.now + wait
	w.note([]string{everybody}, "the allocator dies, back in %v", wait)
	for _, m := range append([]*master(nil), w.masters...) {
		w.endSession(m, "the allocator is gone")
	}
}

func (w *world) endSession(m *master, reason string) {
	s := m.session
	if s == nil {
		return
	}
	s.end()
	w.after(w.weather.delay(w), func() {
		m.step(state.AllocatorClosed{Session: s.id, Reason: reason})
		w.openSession(m)
	})
}

// mirror is what the engine believes of each agent; an error when what it
// believes cannot be read by the master's end of the stream.
func (s *session) mirror() (map[string]*allocator.AgentUpdated, error) {
	out := map[string]*allocator.AgentUpdated{}
	for _, u := range s.engine.Agents() {
		a, err := s.encoder.Agent(u)
		if err != nil {
			return nil, fmt.Errorf("agent %s: %w", u.GetId(), err)
		}
		out[a.ID] = a
	}
	return out, nil
}

// quiet is whether both ends have heard all that the other has said.
func (s *session) quiet() bool {
	return s.ready && s.down.empty() && s.up.empty() && s.engine.Settled()
}
