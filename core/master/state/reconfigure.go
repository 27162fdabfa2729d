package state

import (
	"fmt"
	"slices"

	"github.com/mezzo-os/mezzo/sdk/resource"
)

// reconfigure carries out an operator's order to use another configuration.
func (m *Machine) reconfigure(in Reconfigure) {
	if err := m.checkRoles(in.Config.Roles); err != nil {
		m.reply(in.Request, &OrderError{OrderInvalid, err.Error()})
		return
	}
	m.configure(in.Config)
	m.reply(in.Request, nil)
}

// checkRoles says what is wrong with new first values of roles: each by itself,
// and in the tree together with what operators have set since.
func (m *Machine) checkRoles(first []Role) error {
	all := map[string]Role{}
	for name, r := range m.roles {
		all[name] = (&role{name: name}).with(r.wanted)
	}
	for _, f := range first {
		if err := checkRole(f); err != nil {
			return err
		}
		r := role{name: f.Name, first: &f}
		if known := m.roles[f.Name]; known != nil {
			r.wanted = known.wanted
		}
		all[f.Name] = r.with(r.wanted)
	}
	if why := treeProblem(all, func(string) bool { return true }); why != "" {
		return fmt.Errorf("the roles of the configuration, with what operators have set since: %s", why)
	}
	return nil
}

// configure takes over what may change while the master leads; see Reconfigure.
// The roles have been checked.
func (m *Machine) configure(c Config) {
	c = c.withDefaults()
	m.cfg.BatchInterval, m.cfg.MinRefuse, m.cfg.MaxDecisionsPerSecond = c.BatchInterval, c.MinRefuse, c.MaxDecisionsPerSecond
	m.cfg.MinAllocatable, m.cfg.FilterGPUResources = c.MinAllocatable, c.FilterGPUResources
	m.cfg.Revocation = c.Revocation
	if m.cfg.TellTasks != c.TellTasks {
		m.cfg.TellTasks = c.TellTasks
		m.tellTasksAnew()
	}
	m.cfg.UnreachablePerMinute = c.UnreachablePerMinute
	m.cfg.MaxCompletedFrameworks, m.cfg.MaxCompletedTasks = c.MaxCompletedFrameworks, c.MaxCompletedTasks
	m.cfg.MaxUnreachableTasks, m.cfg.MaxAwayAgents = c.MaxUnreachableTasks, c.MaxAwayAgents
	if m.cfg.OfferTimeout != c.OfferTimeout {
		m.cfg.OfferTimeout = c.OfferTimeout
		m.rearmOffers()
	}
	m.cfg.Roles = c.Roles
	m.configureRoles(c.Roles)
}

// rearmOffers gives outstanding offers the timeout that now counts, from when
// they were made.
func (m *Machine) rearmOffers() {
	for _, o := range m.offers.all() {
		m.armOffer(o)
	}
}

// configureRoles sets the first values of roles. What an operator has set since
// stays.
func (m *Machine) configureRoles(list []Role) {
	first := map[string]*Role{}
	for i := range list {
		first[list[i].Name] = &list[i]
		m.role(list[i].Name)
	}
	for _, name := range sortedKeys(m.roles) {
		r := m.roles[name]
		before := r.settings()
		r.first = first[name]
		if now := r.settings(); !before.equal(now) {
			m.applyRole(r)
			m.enforceLimit(name)
		} else {
			m.touchRole(name)
		}
	}
}

func (r Role) equal(other Role) bool {
	same := func(a, b resource.Quantities) bool { return (a == nil) == (b == nil) && slices.Equal(a, b) }
	return r.Name == other.Name && r.Weight == other.Weight && same(r.Guarantee, other.Guarantee) && same(r.Limit, other.Limit)
}

// tellTasksAnew tells the current session of all tasks, once it has to know of
// them. The one that takes over just now was told by its own configuration.
func (m *Machine) tellTasksAnew() {
	s := m.sessions.current
	if s == nil || m.cfg.TellTasks == s.toldTasks {
		return
	}
	if s.toldTasks = m.cfg.TellTasks; !s.toldTasks {
		return
	}
	for _, id := range sortedKeys(m.agents) {
		if a := m.agents[id]; s.knows(a) {
			m.tellTasks(s, a)
		}
	}
}
