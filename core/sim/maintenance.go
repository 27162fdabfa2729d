package sim

import (
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/mezzo-os/mezzo/core/master/state"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
	schedulerv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1/scheduler"
	"github.com/mezzo-os/mezzo/sdk/resource"
)

// maintain has an operator plan maintenance, or take a machine down or up.
func (m *master) maintain(f Fault) {
	w := m.w
	h := w.hosts[w.pick(len(w.hosts))]
	machine := state.MachineID{Hostname: h.name}
	if f == OperatorMachine {
		down := w.chance(0.6)
		if m.views.schedule != nil && len(m.views.schedule.Down) > 0 && w.chance(0.7) {
			machine, down = m.views.schedule.Down[0], false
		}
		w.note([]string{m.name, machine.Hostname}, "an operator takes %s down: %v", machine, down)
		if down {
			w.downs[machine.Hostname] = true
		}
		m.order(nil, func(id state.Request) state.Input {
			return state.SetMaintenance{Request: id, Machines: []state.MachineID{machine}, Down: down}
		})
		return
	}
	var windows []state.Window
	for _, h := range w.hosts {
		if w.chance(min(0.6, 100/float64(len(w.hosts)))) {
			windows = append(windows, state.Window{
				Machines: []state.MachineID{{Hostname: h.name}},
				Start:    m.now().Add(w.between(-10*time.Second, 30*time.Second)), Duration: w.between(0, 20*time.Second),
			})
		}
	}
	w.note([]string{m.name, everybody}, "an operator plans maintenance of %d machines", len(windows))
	m.order(nil, func(id state.Request) state.Input { return state.SetSchedule{Request: id, Windows: windows} })
}

// endMaintenance has an operator bring all machines up, and forget the plans.
func (m *master) endMaintenance() {
	plan := m.views.schedule
	switch {
	case plan == nil || len(plan.Windows) == 0:
	case len(plan.Down) > 0:
		m.order(nil, func(id state.Request) state.Input { return state.SetMaintenance{Request: id, Machines: plan.Down} })
	default:
		m.order(nil, func(id state.Request) state.Input { return state.SetSchedule{Request: id} })
	}
}

// asked is what a scheduler does with inverse offers: it accepts, declines, or
// does not answer.
func (s *scheduler) asked(list []*mezzov1.InverseOffer) {
	w := s.w
	for _, o := range list {
		ids, filters := []*mezzov1.OfferID{o.GetId()}, &mezzov1.Filters{RefuseSeconds: proto.Float64(float64(w.pick(5)))}
		accepts := w.chance(0.5)
		if w.chance(s.traits.ignores) {
			continue
		}
		stream := s.cur
		w.after(w.between(0, s.traits.thinks), func() {
			switch {
			case s.cur != stream:
			case accepts:
				s.call(&schedulerv1.Call{Type: schedulerv1.Call_ACCEPT_INVERSE_OFFERS.Enum(), AcceptInverseOffers: &schedulerv1.Call_AcceptInverseOffers{
					InverseOfferIds: ids, Filters: filters,
				}})
			default:
				s.call(&schedulerv1.Call{Type: schedulerv1.Call_DECLINE_INVERSE_OFFERS.Enum(), DeclineInverseOffers: &schedulerv1.Call_DeclineInverseOffers{
					InverseOfferIds: ids, Filters: filters,
				}})
			}
		})
	}
}

// promise is what an operator was told to be durable.
type promise struct {
	orders int // so far
	// sure: the newest order was carried out.
	sure bool
	want string
}

// promise notes an order, and returns what is to hear the answer.
func (w *world) promise(what, want string) func(error) {
	p := w.promises[what]
	if p == nil {
		p = &promise{}
		w.promises[what] = p
	}
	p.orders++
	p.sure = false
	newest := p.orders
	return func(err error) {
		if err == nil && p.orders == newest {
			p.sure, p.want = true, want
		}
	}
}

// orderRole has an operator set a role's weight and quota, or forget its quota.
func (m *master) orderRole(name string, forget bool) {
	w := m.w
	if forget {
		m.order(w.promise("quota of "+name, "none"), func(id state.Request) state.Input { return state.RemoveQuota{Request: id, Role: name} })
		return
	}
	weight, limit, guarantee, force := uint64(500*w.pick(7)), w.randomLimit(), w.randomLimit(), w.chance(0.5)
	m.order(w.promise("weight of "+name, weightText(weight, weight > 0)), func(id state.Request) state.Input {
		return state.SetWeights{Request: id, Weights: []state.RoleWeight{{Role: name, Weight: weight}}}
	})
	m.order(w.promise("quota of "+name, quotaText(guarantee, limit, true)), func(id state.Request) state.Input {
		return state.SetQuota{Request: id, Role: name, Limit: &limit, Guarantee: &guarantee, Force: force}
	})
}

func weightText(weight uint64, set bool) string {
	if !set {
		return "none"
	}
	return fmt.Sprint(weight)
}

func quotaText(guarantee, limit resource.Quantities, set bool) string {
	if !set || len(guarantee)+len(limit) == 0 {
		return "none"
	}
	return fmt.Sprintf("guarantee %s, limit %s", guarantee, limit)
}

// checkPromises: what an operator was told to be done stays, whoever leads.
func (w *world) checkPromises(m *master) {
	for _, name := range roleNames {
		weight, quota := "none", "none"
		if r := m.views.roles[name]; r != nil {
			weight, quota = weightText(r.Weight, r.WeightSet), quotaText(r.Guarantee, r.Limit, r.QuotaSet)
		}
		for _, x := range [][2]string{{"weight of ", weight}, {"quota of ", quota}} {
			what, got := x[0], x[1]
			if p := w.promises[what+name]; p != nil && p.sure && p.want != got {
				w.fail([]string{m.name, "roles/" + name}, "an operator was told that the %s is %s, and %s has %s", what+name, p.want, m.name, got)
			}
		}
	}
}
