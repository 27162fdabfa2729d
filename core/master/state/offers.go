package state

import (
	"cmp"
	"slices"
	"strconv"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/mezzo-os/mezzo/core/ledger"
	"github.com/mezzo-os/mezzo/sdk/allocator"
	"github.com/mezzo-os/mezzo/sdk/resource"

	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
	schedulerv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1/scheduler"
)

// offer is an outstanding offer: in the books, and sent or about to be.
type offer struct {
	id        string
	serial    uint64
	decision  uint64
	framework *framework
	agent     *agent
	role      string
	resources resource.Resources
	created   time.Time
	timer     timer
	sent      bool
	over      bool // it is outstanding no more
	shown     bool // a view of it has been published
	// Places in the lists of framework and agent.
	atFramework, atAgent int
}

// makeOffer enters a proposal that the ledger has to accept first.
func (m *Machine) makeOffer(d *allocator.Offer, a *agent) *ledger.Refusal {
	id := m.offerID(m.offerSerial)
	if r := m.books.Offer(ledger.Offer{ID: id, Agent: d.Agent, Framework: d.Framework, Role: d.Role, Resources: d.Resources}); r != nil {
		return r
	}
	f := m.frameworks[d.Framework]
	o := &offer{
		id: id, serial: m.offerSerial, decision: d.Number, framework: f, agent: a,
		role: d.Role, resources: d.Resources.Unallocate(), created: m.now,
		atFramework: len(f.offers), atAgent: len(a.offers),
	}
	m.offerSerial++
	m.offers.add(o)
	f.offers = append(f.offers, o)
	a.offers = append(a.offers, o)
	if len(f.pending) == 0 {
		m.offered = append(m.offered, f)
	}
	f.pending = append(f.pending, o)
	m.armOffer(o)
	m.touchOffer(o)
	return nil
}

// offerID is the id of the offer with this number.
func (m *Machine) offerID(serial uint64) string {
	var room [96]byte
	return string(strconv.AppendUint(append(room[:0], m.offerPrefix...), serial, 10))
}

// armOffer has an offer time out as the configuration says.
func (m *Machine) armOffer(o *offer) {
	if m.cfg.OfferTimeout > 0 {
		o.timer.fire = func() {
			m.logf(Debug, "offer timed out", "offer_id", o.id, "framework_id", o.framework.id)
			m.rescind(o, "offer timed out")
		}
		m.timers.schedule(&o.timer, o.created.Add(m.cfg.OfferTimeout))
	} else {
		m.timers.cancel(&o.timer)
	}
}

// removeOffer takes an offer out of the lists and the books. What was left of
// it is free again; the caller tells the allocator.
func (m *Machine) removeOffer(o *offer) resource.Resources {
	rest, outstanding := m.books.Withdraw(o.id)
	if !outstanding {
		m.logf(Error, "the books have no such offer", "offer_id", o.id)
	}
	m.offers.remove(o)
	o.over = true
	m.timers.cancel(&o.timer)
	cut := func(list []*offer, at int, moved func(*offer)) []*offer {
		last := len(list) - 1
		list[at] = list[last]
		moved(list[at])
		list[last] = nil
		return list[:last]
	}
	f, a := o.framework, o.agent
	i, j := o.atFramework, o.atAgent
	f.offers = cut(f.offers, i, func(x *offer) { x.atFramework = i })
	a.offers = cut(a.offers, j, func(x *offer) { x.atAgent = j })
	if o.shown {
		m.dirty.offersRemoved = append(m.dirty.offersRemoved, o.id)
	}
	m.touchAgent(a)
	m.touchFramework(f)
	m.touchRole(o.role)
	return rest.Resources
}

// freeOffer ends an offer that was not used, and tells the allocator.
func (m *Machine) freeOffer(o *offer, refuse time.Duration, declined bool) {
	rest := m.removeOffer(o)
	m.tell(o.agent, &allocator.Released{
		Agent: o.agent.id, Framework: o.framework.id, Role: o.role, Resources: rest,
		Refuse: refuse, Declined: declined, Offer: o.decision,
	})
}

// rescind takes an offer back and tells the framework, if it was told of it.
func (m *Machine) rescind(o *offer, why string) {
	m.freeOffer(o, 0, false)
	if o.sent && o.framework.connected() {
		m.event(o.framework, &schedulerv1.Event{Type: schedulerv1.Event_RESCIND.Enum(), Rescind: &schedulerv1.Event_Rescind{
			OfferId: &mezzov1.OfferID{Value: proto.String(o.id)},
		}})
	}
	m.logf(Debug, "offer rescinded", "offer_id", o.id, "framework_id", o.framework.id, "agent_id", o.agent.id, "reason", why)
}

// inOrder returns offers in the order in which they were made.
func inOrder(list []*offer) []*offer {
	out := slices.Clone(list)
	slices.SortFunc(out, func(a, b *offer) int { return cmp.Compare(a.serial, b.serial) })
	return out
}

// rescindAgent takes back all offers of an agent.
func (m *Machine) rescindAgent(a *agent, why string) {
	for _, o := range inOrder(a.offers) {
		m.rescind(o, why)
	}
}

// withdrawAll ends all offers of a framework without telling it.
func (m *Machine) withdrawAll(f *framework) {
	for _, o := range inOrder(f.offers) {
		m.freeOffer(o, 0, false)
	}
}

// sendOffers sends what was decided in this step, one event a framework.
func (m *Machine) sendOffers() {
	for _, f := range m.offered {
		events, err := m.writer.write(f.pending)
		if err != nil {
			m.logf(Error, "offers cannot be encoded, and are not sent", "framework_id", f.id, "error", err.Error())
		}
		clear(f.pending)
		f.pending = f.pending[:0]
		if !f.connected() {
			continue
		}
		for _, event := range events {
			m.emit(SendOffers{Stream: f.stream, Offers: event})
		}
	}
	clear(m.offered)
	m.offered = m.offered[:0]
}

// decline gives offers back, each with the filter.
func (m *Machine) decline(f *framework, call *schedulerv1.Call_Decline) {
	refuse := refuseTime(call.GetFilters())
	for _, id := range call.GetOfferIds() {
		o := m.offer(id.GetValue())
		if o == nil || o.framework != f {
			continue // gone in the meantime
		}
		m.addFilter(f, o.agent, o.role, o.resources, refuse, true)
		m.freeOffer(o, refuse, true)
	}
}
