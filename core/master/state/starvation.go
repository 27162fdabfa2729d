package state

import (
	"time"

	"github.com/mezzo-os/mezzo/sdk/resource"
)

// starvation tells since when a role is below its guarantee while somebody in
// it wants more. It outlives an allocator, which is told of it in its snapshot:
// a crash of the allocator must not start the clocks of revocation again.
type starvation struct {
	guarantee resource.Quantities // nil: the role is not watched
	since     time.Time           // zero: it is not starved
	// wants: a connected framework in the role or below it wants offers. It is
	// worked out anew when stale.
	wants, stale bool
	waiting      bool // in Machine.starving
}

// lasting is for how long the role has been starved.
func (s *starvation) lasting(now time.Time) time.Duration {
	if s.since.IsZero() {
		return 0
	}
	return now.Sub(s.since)
}

// watchStarvation begins or ends watching a role, by its guarantee.
func (m *Machine) watchStarvation(r *role, guarantee resource.Quantities) {
	if len(guarantee) == 0 {
		if r.starvation.guarantee != nil {
			m.watched--
		}
		r.starvation = starvation{waiting: r.starvation.waiting}
		return
	}
	if r.starvation.guarantee == nil {
		m.watched++
	}
	r.starvation.guarantee, r.starvation.stale = guarantee, true
	m.recheckStarvation(r.name, false)
}

// recheckStarvation has a role and those above it looked at when the step ends;
// wants: because a framework's wishes changed.
func (m *Machine) recheckStarvation(name string, wants bool) {
	if m.watched == 0 {
		return
	}
	for ; name != ""; name = resource.ParentRole(name) {
		r := m.roles[name]
		if r == nil || r.starvation.guarantee == nil {
			continue
		}
		r.starvation.stale = r.starvation.stale || wants
		if !r.starvation.waiting {
			r.starvation.waiting = true
			m.starving = append(m.starving, r)
		}
	}
}

// settleStarvation looks at the roles of which something changed in this step.
func (m *Machine) settleStarvation() {
	for _, r := range m.starving {
		s := &r.starvation
		s.waiting = false
		if s.guarantee == nil {
			continue
		}
		if s.stale {
			s.stale, s.wants = false, m.wantsOffers(r.name)
		}
		switch starved := s.wants && m.belowGuarantee(r); {
		case !starved:
			s.since = time.Time{}
		case s.since.IsZero():
			s.since = m.now
		}
	}
	clear(m.starving)
	m.starving = m.starving[:0]
}

func (m *Machine) belowGuarantee(r *role) bool {
	consumed := m.books.RoleTotals(r.name).Consumed
	for _, q := range r.starvation.guarantee {
		if consumed.Get(q.Name) < q.Amount {
			return true
		}
	}
	return false
}

// wantsOffers is whether a connected framework has not suppressed the role or
// one below it.
func (m *Machine) wantsOffers(name string) bool {
	for below, r := range m.roles {
		if !resource.IsAncestorOrSelf(name, below) {
			continue
		}
		for id := range r.frameworks {
			if f := m.frameworks[id]; f != nil && f.connected() && !f.suppressed[below] {
				return true
			}
		}
	}
	return false
}
