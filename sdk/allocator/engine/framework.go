package engine

import (
	"slices"

	allocatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/allocator/v1"
)

// framework is the mirror of one framework.
type framework struct {
	number       uint32
	id, name     string
	capabilities uint32
	active       bool
	clients      []*client
	requests     []request
}

func (f *framework) can(c allocatorv1.FrameworkCapability) bool {
	return f.capabilities&uint32(c) != 0
}

// client is a framework in one of its roles. It stays after the framework has
// left the role for as long as it holds something.
type client struct {
	node
	index      uint32
	framework  *framework
	role       *role
	number     uint32 // the role's number in the stream
	subscribed bool
	suppressed bool
	// smallest are the sets worth an offer to it; nil: the cluster's.
	smallest    [][]amount
	constraints constraints
	holdings    int // agents on which it holds something
	filters     int
	filteredOn  bitset // agents on which it has filters, or had
	tasks       int
	size        vector // of the last task that started
	hunger      hunger
	classes     []int64 // of those above it and its own, from the root, during a look
}

func (c *client) wants() bool { return c.framework.active && c.subscribed && !c.suppressed }

// client returns a framework's client in a role, made when it is new; nil when
// one of them was not told of.
func (e *Engine) client(frameworkNumber, roleNumber uint32) *client {
	if int(frameworkNumber) >= len(e.frameworks) || int(roleNumber) >= len(e.roles) {
		return nil
	}
	f, r := e.frameworks[frameworkNumber], e.roles[roleNumber]
	if f == nil || r == nil {
		return nil
	}
	for _, c := range f.clients {
		if c.role == r {
			return c
		}
	}
	c := &client{framework: f, role: r, number: roleNumber}
	if last := len(e.spare) - 1; last >= 0 {
		c.index, e.spare = e.spare[last], e.spare[:last]
	} else {
		c.index = uint32(len(e.clients))
		e.clients = append(e.clients, nil)
	}
	e.clients[c.index] = c
	c.node = node{
		Candidate: Candidate{Role: r.name, Framework: f.id, Name: f.name, Weight: 1},
		parent:    r.group,
		tie:       -int64(f.number), // later ones first
	}
	c.node.client = c
	f.clients = append(f.clients, c)
	return c
}

// retire forgets those of the clients left over from an event that are not
// subscribed and hold nothing. The next client with such an index is woken when
// it first wants offers, which clears what agents remember of the index.
func (e *Engine) retire() {
	for _, c := range e.leaving {
		if !c.subscribed && c.holdings == 0 && e.clients[c.index] == c {
			e.forget(c)
		}
	}
	e.leaving = e.leaving[:0]
}

func (e *Engine) forget(c *client) {
	e.dropClientFilters(c)
	e.clients[c.index] = nil
	e.spare = append(e.spare, c.index)
	f := c.framework
	f.clients = slices.DeleteFunc(f.clients, func(x *client) bool { return x == c })
	// It may still be in the list of what to rank again, which does no harm.
}

func (e *Engine) frameworkUpdated(u *allocatorv1.FrameworkUpdated) (err error) {
	if e.frameworks, err = room(e.frameworks, u.GetNumber(), "framework"); err != nil {
		return err
	}
	f := e.frameworks[u.GetNumber()]
	if f == nil {
		f = &framework{number: u.GetNumber(), id: u.GetId()}
		e.frameworks[f.number] = f
		e.ids[f.id] = f
	}
	// What a framework can handle or asks for decides what was passed over.
	f.name, f.capabilities, f.active = u.GetName(), u.GetCapabilities(), u.GetActive()
	for _, number := range u.GetRoles() {
		e.client(f.number, number)
	}
	for _, c := range slices.Clone(f.clients) {
		c.Name = f.name
		c.subscribed = slices.Contains(u.GetRoles(), c.number)
		c.suppressed = slices.Contains(u.GetSuppressed(), c.number)
		if !f.active || !c.subscribed {
			e.dropClientFilters(c)
		}
		e.setClient(c, settingsOf(u, c.number))
		e.changed(c)
		e.leaving = append(e.leaving, c)
	}
	e.askFramework(f, !f.active)
	if !f.active {
		f.requests = nil
	}
	return nil
}

func settingsOf(u *allocatorv1.FrameworkUpdated, role uint32) *allocatorv1.RoleSettings {
	for _, s := range u.GetSettings() {
		if s.GetRole() == role {
			return s
		}
	}
	return nil
}

// setClient takes over what a framework asked for in a role.
func (e *Engine) setClient(c *client, s *allocatorv1.RoleSettings) {
	c.constraints = parseConstraints(s.GetConstraints())
	had := len(c.smallest) > 0
	c.smallest = nil
	if c.subscribed {
		for _, set := range s.GetMinAllocatable() {
			c.smallest = append(c.smallest, e.amounts(set))
		}
	}
	if !had && len(c.smallest) == 0 {
		return
	}
	e.books++
	e.smallest = slices.Clone(e.common)
	for _, other := range e.clients {
		if other != nil {
			e.smallest = append(e.smallest, other.smallest...)
		}
	}
	for _, a := range e.agents {
		if a != nil {
			e.markIdle(a)
		}
	}
}

// changed is called when what decides whether and what a client is offered may
// have changed: it is put into the order of service or taken out, and if it
// wants offers every idle agent is looked at for it again.
func (e *Engine) changed(c *client) {
	wants := c.wants()
	if wants != e.wanting.has(c.index) {
		if wants {
			e.wanting.add(c.index)
		} else {
			e.wanting.remove(c.index)
		}
		e.want(&c.node, wants)
	}
	if wants {
		e.wake(c)
	}
}

// wake makes every idle agent dirty for one client.
func (e *Engine) wake(c *client) {
	e.wakes++
	e.idle.each(func(number uint32) {
		a := e.agents[number]
		a.tried.remove(c.index)
		a.wakes = e.wakes
		e.soil(a)
	})
}

func (e *Engine) frameworkRemoved(number uint32) {
	if int(number) >= len(e.frameworks) || e.frameworks[number] == nil {
		return
	}
	f := e.frameworks[number]
	f.active = false
	held := false
	e.askFramework(f, true)
	for _, c := range slices.Clone(f.clients) {
		c.subscribed = false
		held = held || c.holdings > 0
		e.changed(c)
	}
	if held {
		for _, a := range e.agents {
			if a != nil {
				e.releaseAll(a, f)
			}
		}
	}
	for _, c := range slices.Clone(f.clients) {
		e.setClient(c, nil)
		e.leaving = append(e.leaving, c)
	}
	e.retire()
	e.frameworks[number] = nil
	if e.ids[f.id] == f {
		delete(e.ids, f.id)
	}
}

// releaseAll gives back what a framework holds on an agent.
func (e *Engine) releaseAll(a *agent, f *framework) {
	e.dropTasks(a, f)
	released := false
	for _, h := range slices.Clone(a.held) {
		if h.client.framework == f {
			e.release(a, h.client, h.amount)
			released = true
		}
	}
	if released {
		e.freed(a)
	}
}

// clientsOf returns a framework's clients in these roles.
func (e *Engine) clientsOf(frameworkNumber uint32, roles []uint32) []*client {
	var out []*client
	for _, r := range roles {
		if c := e.client(frameworkNumber, r); c != nil {
			out = append(out, c)
		}
	}
	return out
}
