package state

import (
	"github.com/mezzo-os/mezzo/core/ledger"
	"github.com/mezzo-os/mezzo/sdk/allocator"
	"github.com/mezzo-os/mezzo/sdk/resource"
)

// Every change of the books is made here, or next to it an allocator event is
// written. What is in the books and what the allocator was told must agree.

// release ends a use in the books and tells the allocator.
func (m *Machine) release(key ledger.Key) {
	use, held := m.books.Release(key)
	if !held {
		m.logf(Error, "the books have no such use", "use", key.String())
		return
	}
	if a := m.agents[key.Agent]; a != nil {
		m.tell(a, &allocator.Released{Agent: a.id, Framework: key.Framework, Role: use.Role, Resources: use.Resources})
	}
	m.touchHolder(key, use.Role)
}

// touchHolder has all that show what a use holds shown again.
func (m *Machine) touchHolder(key ledger.Key, role string) {
	if a := m.agents[key.Agent]; a != nil {
		m.touchAgent(a)
	}
	if f := m.frameworks[key.Framework]; f != nil {
		m.touchFramework(f)
	}
	m.touchRole(role)
}

// recoverUse enters what an agent reports.
func (m *Machine) recoverUse(key ledger.Key, role string, res resource.Resources) {
	if err := m.books.Recover(key, role, res); err != nil {
		m.logf(Error, "what an agent reports cannot be entered", "error", err.Error())
		return
	}
	if a := m.agents[key.Agent]; a != nil {
		m.tell(a, &allocator.Held{Agent: a.id, Framework: key.Framework, Role: role, Resources: res})
	}
	m.touchHolder(key, role)
}

// settleExcess takes back the offers of an agent on which more is held than it
// has.
func (m *Machine) settleExcess(a *agent) {
	if len(a.offers) > 0 && !m.books.Excess(a.id).IsEmpty() {
		m.rescindAgent(a, "agent has less than is held on it")
	}
	if excess := m.books.Excess(a.id); !excess.IsEmpty() {
		m.logf(Warn, "more is held on an agent than it has", "agent_id", a.id, "excess", excess.String())
	}
}

func (m *Machine) booksAddAgent(a *agent) {
	m.books.SetAgent(a.id, a.total)
	m.touchReserved(a.total)
}

func (m *Machine) booksSetTotal(a *agent) {
	if before, known := m.books.Agent(a.id); known {
		m.touchReserved(before.Total)
	}
	m.books.SetAgent(a.id, a.total)
	m.touchReserved(a.total)
	m.settleExcess(a)
}

// touchReserved: reservations count toward their role's quota, held or not.
func (m *Machine) touchReserved(total resource.Resources) {
	for i := range total {
		if total[i].Kind.IsReserved() {
			m.touchRole(total[i].Kind.Role())
		}
	}
}

func (m *Machine) booksRemoveAgent(a *agent) {
	_, uses := m.books.RemoveAgent(a.id)
	for _, u := range uses {
		m.touchRole(u.Role)
	}
	m.touchReserved(a.total)
	m.touchAgent(a)
}

func (m *Machine) booksSetActive(a *agent) { m.books.SetAgentActive(a.id, a.active()) }

func (m *Machine) booksSetFramework(f *framework) {
	m.books.SetFramework(ledger.Framework{
		ID: f.id, Roles: f.roles, Suppressed: f.suppressedRoles(),
		Capabilities: f.ledgerCapabilities(), Active: f.connected() && !f.removing,
	})
	for _, name := range f.roles {
		m.recheckStarvation(name, true)
	}
}
