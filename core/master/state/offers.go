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
		list, slabs := make([]*mezzov1.Offer, 0, len(f.pending)), make([]offerSlab, len(f.pending))
		for i, o := range f.pending {
			if !o.over {
				o.sent = true
				list = append(list, m.offerProto(o, &slabs[i]))
			}
		}
		clear(f.pending)
		f.pending = f.pending[:0]
		if len(list) > 0 && f.connected() {
			m.event(f, &schedulerv1.Event{Type: schedulerv1.Event_OFFERS.Enum(), Offers: &schedulerv1.Event_Offers{Offers: list}})
		}
	}
	clear(m.offered)
	m.offered = m.offered[:0]
}

// offeredForm names a list of resources in a role. The list is known by where
// it lies: it is never changed, and kept from being used again by the map that
// has it as a key.
type offeredForm struct {
	first  *resource.Resource
	length int
	role   string
}

// formsLimit bounds what is remembered of offers' resources.
const formsLimit = 4096

// offerResources is what an offer has, as frameworks are told of it. Agents are
// alike, so that most offers have the same list.
func (m *Machine) offerResources(o *offer) []*mezzov1.Resource {
	if len(o.resources) == 0 {
		return nil
	}
	key := offeredForm{&o.resources[0], len(o.resources), o.role}
	form, known := m.forms[key]
	if !known {
		form = o.resources.Allocate(o.role).ToProto()
		if m.forms == nil || len(m.forms) >= formsLimit {
			m.forms = map[offeredForm][]*mezzov1.Resource{}
		}
		m.forms[key] = form
	}
	return form
}

// offerSlab is the memory of one offer as a framework is told of it.
type offerSlab struct {
	offer          mezzov1.Offer
	id             mezzov1.OfferID
	text, hostname string
}

// offerProto is the offer as a framework is told of it, in the inner form. What
// it shares with others is never changed.
func (m *Machine) offerProto(o *offer, slab *offerSlab) *mezzov1.Offer {
	a, f := o.agent, o.framework
	slab.text, slab.hostname = o.id, a.hostname
	slab.id.Value = &slab.text
	p := &slab.offer
	p.Id, p.FrameworkId, p.AgentId = &slab.id, f.pid, a.pid
	p.Hostname, p.Url, p.Attributes, p.Domain = &slab.hostname, a.url, a.info.GetAttributes(), a.info.GetDomain()
	p.Resources, p.AllocationInfo = m.offerResources(o), m.allocationInfo(o.role)
	p.Unavailability = unavailabilityProto(a.unavailability())
	if len(a.executors) > 0 {
		p.ExecutorIds = a.executorsOf(f)
	}
	return p
}

// executorsOf returns the ids of a framework's executors on the agent, sorted.
func (a *agent) executorsOf(f *framework) []*mezzov1.ExecutorID {
	var ids []string
	for key := range a.executors {
		if key.framework == f.id {
			ids = append(ids, key.id)
		}
	}
	slices.Sort(ids)
	var out []*mezzov1.ExecutorID
	for _, id := range ids {
		out = append(out, &mezzov1.ExecutorID{Value: proto.String(id)})
	}
	return out
}

// allocationInfo says in which role something is offered. The last is
// remembered, since it is the next as a rule.
func (m *Machine) allocationInfo(role string) *mezzov1.Resource_AllocationInfo {
	if m.allocation.GetRole() != role || m.allocation == nil {
		m.allocation = &mezzov1.Resource_AllocationInfo{Role: proto.String(role)}
	}
	return m.allocation
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
