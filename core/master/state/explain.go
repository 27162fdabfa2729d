package state

import (
	"slices"
	"strings"
	"time"

	"github.com/mezzo-os/mezzo/sdk/resource"
)

// Explanation is what the machine alone knows of why a framework is not offered
// more, at one moment.
type Explanation struct {
	// AllocatorReady: an allocator decides; else nobody is offered anything.
	AllocatorReady bool
	// Filters are the framework's, by agent and role.
	Filters []FilterView
	// Holders are who holds what in the roles whose limit is also this
	// framework's.
	Holders []Holder
}

// FilterView is what a framework does not want on an agent, and for how long.
type FilterView struct {
	AgentID   string
	Role      string
	Resources resource.Resources
	Remaining time.Duration
	// Soft: what it asked for is over, and min_refuse remains.
	Soft bool
}

// Holder is what a framework holds in a role, offers included, that counts
// toward the limit of Limited, which is the role or one above it.
type Holder struct {
	Limited     string
	FrameworkID string
	Role        string
	Held        resource.Quantities
}

// orderExplain answers what the machine knows of a framework.
func (m *Machine) orderExplain(in Explain) {
	f := m.frameworks[in.FrameworkID]
	out := &Explanation{AllocatorReady: m.sessions.current != nil && m.sessions.current.ready}
	if f != nil {
		for x := f.filters; x != nil; x = x.after {
			v := FilterView{AgentID: x.agent.id, Role: x.key.role, Resources: x.resources, Remaining: x.refused.Sub(m.now)}
			if v.Remaining <= 0 {
				v.Remaining, v.Soft = x.until.Sub(m.now), true
			}
			if v.Remaining > 0 {
				out.Filters = append(out.Filters, v)
			}
		}
		slices.SortStableFunc(out.Filters, func(a, b FilterView) int {
			if c := strings.Compare(a.AgentID, b.AgentID); c != 0 {
				return c
			}
			return strings.Compare(a.Role, b.Role)
		})
		m.explainLimits(f, out)
	}
	m.emit(Reply{Request: in.Request, Explanation: out})
}

// explainLimits lists who holds what in the limited roles of a framework.
func (m *Machine) explainLimits(f *framework, out *Explanation) {
	seen := map[string]bool{}
	for _, role := range f.roles {
		for name := role; name != ""; name = resource.ParentRole(name) {
			if _, limited := m.books.Limit(name); !limited || seen[name] {
				continue
			}
			seen[name] = true
			for _, h := range m.books.HoldersIn(name) {
				out.Holders = append(out.Holders, Holder{
					Limited: name, FrameworkID: h.Framework, Role: h.Role, Held: h.Offered.Add(h.Used),
				})
			}
		}
	}
}
