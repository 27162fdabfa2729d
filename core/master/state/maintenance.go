package state

import (
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/mezzo-os/mezzo/sdk/allocator"

	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
	schedulerv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1/scheduler"
)

// maintenance is what is known of an agent that is going to be unavailable. Its
// offers tell of the window, and frameworks that hold something there are asked
// to leave, by inverse offers.
type maintenance struct {
	window allocator.Unavailability
	// inverse is how each framework was asked last, by its id.
	inverse map[string]*inverseOffer
}

// inverseOffer asks a framework to leave an agent. It is kept with the answer
// until the window changes, so that operators see who agreed, and a new
// allocator does not ask again too soon.
type inverseOffer struct {
	id        string
	decision  uint64
	framework *framework
	agent     *agent
	created   time.Time
	timer     timer
	sent      bool
	state     allocator.InverseOfferState
	// refused is until when the framework does not want to be asked again.
	refused time.Time
	since   time.Time // of the state
}

func (x *inverseOffer) outstanding() bool { return x.state == allocator.InverseOfferOutstanding }

// unavailability is the agent's planned window; nil: there is none.
func (a *agent) unavailability() *allocator.Unavailability {
	if a.maintenance == nil {
		return nil
	}
	window := a.maintenance.window
	return &window
}

func unavailabilityProto(u *allocator.Unavailability) *mezzov1.Unavailability {
	if u == nil {
		return nil
	}
	out := &mezzov1.Unavailability{Start: &mezzov1.TimeInfo{Nanoseconds: proto.Int64(u.Start.UnixNano())}}
	if u.Duration > 0 {
		out.Duration = &mezzov1.DurationInfo{Nanoseconds: proto.Int64(int64(u.Duration))}
	}
	return out
}

// makeInverseOffer asks a framework to leave an agent.
func (m *Machine) makeInverseOffer(d *allocator.InverseOffer) *refusedDecision {
	a, f := m.agents[d.Agent], m.frameworks[d.Framework]
	refuse := func(reason allocator.RefusalReason, format string, args ...any) *refusedDecision {
		return &refusedDecision{reason, fmt.Sprintf(format, args...)}
	}
	switch {
	case a == nil || a.phase != present:
		return refuse(allocator.RefusedUnknownAgent, "agent %s is not known", d.Agent)
	case f == nil || f.phase != frameworkLive:
		return refuse(allocator.RefusedUnknownFramework, "framework %s is not known", d.Framework)
	case !f.connected():
		return refuse(allocator.RefusedFrameworkInactive, "framework %s is not connected", f.id)
	case a.maintenance == nil:
		return refuse(allocator.RefusedMalformed, "agent %s has no unavailability planned; frameworks need not leave it", a.id)
	case !slices.Contains(m.books.AgentsOf(f.id), a.id):
		return refuse(allocator.RefusedMalformed, "framework %s holds nothing on agent %s", f.id, a.id)
	}
	if x := a.maintenance.inverse[f.id]; x != nil && x.outstanding() {
		return refuse(allocator.RefusedMalformed, "framework %s has not answered the inverse offer %s of agent %s yet", f.id, x.id, a.id)
	}
	x := &inverseOffer{
		id: fmt.Sprintf("%s-O%d", m.cfg.MasterID, m.offerSerial), decision: d.Number, framework: f, agent: a,
		created: m.now, since: m.now, state: allocator.InverseOfferOutstanding,
	}
	m.offerSerial++
	a.maintenance.inverse[f.id] = x
	m.inverse[x.id] = x
	m.asked = append(m.asked, x)
	if m.cfg.OfferTimeout > 0 {
		x.timer.fire = func() { m.rescindInverse(x, "it timed out") }
		m.after(&x.timer, m.cfg.OfferTimeout)
	}
	if next := m.sessions.preparing; next != nil {
		m.tellOne(next, a, m.inverseStatus(x))
	}
	m.touchAgent(a)
	return nil
}

// inverseByDecision finds an outstanding inverse offer by what the allocator
// calls it. There are few: one a framework and agent in maintenance.
func (m *Machine) inverseByDecision(number uint64) *inverseOffer {
	for _, x := range m.inverse {
		if x.decision == number {
			return x
		}
	}
	return nil
}

// sendInverseOffers sends what was decided in this step, one event a framework.
func (m *Machine) sendInverseOffers() {
	for i, x := range m.asked {
		if x == nil {
			continue
		}
		f := x.framework
		var list []*mezzov1.InverseOffer
		for j, other := range m.asked[i:] {
			if other == nil || other.framework != f {
				continue
			}
			m.asked[i+j] = nil
			if other.outstanding() {
				other.sent = true
				list = append(list, &mezzov1.InverseOffer{
					Id: &mezzov1.OfferID{Value: proto.String(other.id)}, Url: other.agent.url, FrameworkId: f.pid, AgentId: other.agent.pid,
					Unavailability: unavailabilityProto(other.agent.unavailability()),
				})
			}
		}
		if len(list) > 0 && f.connected() {
			m.event(f, &schedulerv1.Event{
				Type: schedulerv1.Event_INVERSE_OFFERS.Enum(), InverseOffers: &schedulerv1.Event_InverseOffers{InverseOffers: list},
			})
		}
	}
	m.asked = m.asked[:0]
}

// answerInverse is a framework's answer to inverse offers. Nothing happens to
// what it has there: it has said what it will do.
func (m *Machine) answerInverse(f *framework, ids []*mezzov1.OfferID, state allocator.InverseOfferState, filters *mezzov1.Filters) {
	refuse := refuseTime(filters)
	for _, id := range ids {
		x := m.inverse[id.GetValue()]
		if x == nil || x.framework != f {
			continue // gone in the meantime
		}
		m.settleInverse(x, state, refuse)
	}
}

// settleInverse ends an outstanding inverse offer.
func (m *Machine) settleInverse(x *inverseOffer, state allocator.InverseOfferState, refuse time.Duration) {
	delete(m.inverse, x.id)
	m.timers.cancel(&x.timer)
	x.state, x.since, x.refused = state, m.now, m.now.Add(refuse)
	m.tell(x.agent, m.inverseStatus(x))
	if state == allocator.InverseOfferRescinded {
		delete(x.agent.maintenance.inverse, x.framework.id)
	}
	m.touchAgent(x.agent)
}

// inverseStatus is an inverse offer as the allocator is told of it.
func (m *Machine) inverseStatus(x *inverseOffer) *allocator.InverseOfferStatus {
	return &allocator.InverseOfferStatus{
		Number: x.decision, Agent: x.agent.id, Framework: x.framework.id, State: x.state, Refuse: max(0, x.refused.Sub(m.now)),
	}
}

// rescindInverse takes an inverse offer back and tells the framework, if it was
// told of it.
func (m *Machine) rescindInverse(x *inverseOffer, why string) {
	m.settleInverse(x, allocator.InverseOfferRescinded, 0)
	if f := x.framework; x.sent && f.connected() {
		m.event(f, &schedulerv1.Event{
			Type: schedulerv1.Event_RESCIND_INVERSE_OFFER.Enum(), RescindInverseOffer: &schedulerv1.Event_RescindInverseOffer{
				InverseOfferId: &mezzov1.OfferID{Value: proto.String(x.id)},
			}})
	}
	m.logf(Debug, "inverse offer rescinded", "offer_id", x.id, "framework_id", x.framework.id, "agent_id", x.agent.id, "reason", why)
}

// dropInverse takes all inverse offers of an agent back, and forgets answers.
func (m *Machine) dropInverse(a *agent, why string) {
	if a.maintenance == nil {
		return
	}
	for _, id := range sortedKeys(a.maintenance.inverse) {
		if x := a.maintenance.inverse[id]; x.outstanding() {
			m.rescindInverse(x, why)
		}
	}
	clear(a.maintenance.inverse)
}

// dropFrameworkInverse forgets what a framework was asked and has answered: it
// is disconnected, so there is nobody to hold to it.
func (m *Machine) dropFrameworkInverse(f *framework) {
	for _, id := range sortedKeys(m.maintained) {
		a := m.maintained[id]
		x := a.maintenance.inverse[f.id]
		if x == nil {
			continue
		}
		if x.outstanding() {
			m.settleInverse(x, allocator.InverseOfferRescinded, 0)
		}
		delete(a.maintenance.inverse, f.id)
		m.touchAgent(a)
	}
}

// tellInverses tells a session how the frameworks on an agent were asked.
func (m *Machine) tellInverses(s *session, a *agent) {
	if a.maintenance == nil {
		return
	}
	for _, id := range sortedKeys(a.maintenance.inverse) {
		m.tellOne(s, a, m.inverseStatus(a.maintenance.inverse[id]))
	}
}

// inverseViews are how the frameworks on an agent were asked, in order.
func (a *agent) inverseViews() []InverseOfferView {
	if a.maintenance == nil {
		return nil
	}
	var out []InverseOfferView
	for _, id := range sortedKeys(a.maintenance.inverse) {
		x := a.maintenance.inverse[id]
		out = append(out, InverseOfferView{ID: x.id, FrameworkID: id, State: x.state, Since: x.since})
	}
	return out
}
