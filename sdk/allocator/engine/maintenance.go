package engine

import (
	"slices"
	"time"

	allocatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/allocator/v1"
)

// maintenance is what the engine knows of an agent that is going to be
// unavailable: in time each framework that holds something there is asked, by
// an inverse offer, to leave. Offers of the agent go on; they tell of the
// window.
type maintenance struct {
	start, duration int64
	queued          bool
	asked           []inverse
}

// inverse is how a framework was asked last.
type inverse struct {
	framework   *framework
	number      uint64 // the decision
	outstanding bool
	refusals    uint8 // by the core, in a row
	// until is when it may be asked again, if the question is not outstanding.
	until time.Duration
}

// askAgain is the least time between an answer to an inverse offer and the next
// one to the same framework.
const askAgain = time.Second

// setUnavailability takes over an agent's planned window. When it changed, what
// was answered about the old one counts no more.
func (e *Engine) setUnavailability(a *agent, u *allocatorv1.Unavailability) {
	if u == nil {
		a.maintenance = nil
		e.maintained.remove(a.number)
		return
	}
	if m := a.maintenance; m == nil || m.start != u.GetStartNs() || m.duration != u.GetDurationNs() {
		a.maintenance = &maintenance{start: u.GetStartNs(), duration: u.GetDurationNs(), queued: m != nil && m.queued}
		e.maintained.add(a.number)
	}
	e.ask(a)
}

// ask has the agent looked at for frameworks that are to be asked to leave.
func (e *Engine) ask(a *agent) {
	if m := a.maintenance; m != nil && a.active && !m.queued {
		m.queued = true
		e.asking = append(e.asking, a)
	}
}

// askFramework is called when a framework can be asked again, or not any more:
// its answers are forgotten. It is proportional to the agents in maintenance.
func (e *Engine) askFramework(f *framework, outstandingToo bool) {
	e.maintained.each(func(number uint32) {
		a := e.agents[number]
		m := a.maintenance
		m.asked = slices.DeleteFunc(m.asked, func(x inverse) bool {
			return x.framework == f && (outstandingToo || !x.outstanding)
		})
		if f.active {
			e.ask(a)
		}
	})
}

// askAll sends the inverse offers that are due, and returns how many.
func (e *Engine) askAll(now time.Duration) int {
	batch := e.asking
	e.asking = nil
	sent := 0
	for _, a := range batch {
		if e.agents[a.number] == a && a.maintenance != nil {
			a.maintenance.queued = false
			sent += e.askOn(now, a)
		}
	}
	return sent
}

func (e *Engine) askOn(now time.Duration, a *agent) int {
	if !a.active {
		return 0
	}
	m, sent := a.maintenance, 0
	for _, h := range a.held {
		f := h.client.framework
		if !f.active {
			continue
		}
		x := m.of(f)
		if x.outstanding || now < x.until {
			continue
		}
		if !e.budget.spend() {
			e.ask(a)
			break
		}
		x.number, x.outstanding = e.next, true
		e.next++
		sent++
		e.out = append(e.out, &allocatorv1.Decision{Number: x.number, Decision: &allocatorv1.Decision_InverseOffer{
			InverseOffer: &allocatorv1.InverseOfferDecision{Agent: a.number, Framework: f.number}}})
	}
	return sent
}

func (m *maintenance) of(f *framework) *inverse {
	for i := range m.asked {
		if m.asked[i].framework == f {
			return &m.asked[i]
		}
	}
	m.asked = append(m.asked, inverse{framework: f})
	return &m.asked[len(m.asked)-1]
}

// inverseOfferStatus is told of how a framework answered.
func (e *Engine) inverseOfferStatus(now time.Duration, s *allocatorv1.InverseOfferStatus) {
	a := e.agent(s.GetAgent())
	if a == nil || a.maintenance == nil || int(s.GetFramework()) >= len(e.frameworks) || e.frameworks[s.GetFramework()] == nil {
		return
	}
	x := a.maintenance.of(e.frameworks[s.GetFramework()])
	if s.GetNumber() < x.number {
		return // about a question before the last
	}
	x.number, x.refusals = s.GetNumber(), 0
	x.outstanding = s.GetStatus() == allocatorv1.InverseOfferStatus_STATUS_OUTSTANDING
	if !x.outstanding {
		e.askLater(now, a, x, max(askAgain, time.Duration(min(s.GetRefuseMs(), maxRefuse))*time.Millisecond))
	}
}

func (e *Engine) askLater(now time.Duration, a *agent, x *inverse, pause time.Duration) {
	x.until = now + pause
	e.timers.add(timer{x.until, a.number, noClientAsk})
}

// inverseRefused reports whether the decision was an inverse offer, which then
// is made again after a while: longer for each refusal in a row, unless the core
// only asks to wait.
func (e *Engine) inverseRefused(now time.Duration, number uint64, wait bool) bool {
	found := false
	e.maintained.each(func(agent uint32) {
		a := e.agents[agent]
		for i := range a.maintenance.asked {
			if x := &a.maintenance.asked[i]; x.outstanding && x.number == number {
				found, x.outstanding = true, false
				if wait {
					e.askLater(now, a, x, refusalPause)
					continue
				}
				x.refusals = min(x.refusals+1, 7)
				e.askLater(now, a, x, askAgain<<(x.refusals-1))
			}
		}
	})
	return found
}
