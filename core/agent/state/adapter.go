package state

import (
	"maps"
	"slices"
	"strings"

	linkv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/link/v1"
)

// adapter is a framework adapter of the configuration.
type adapter struct {
	// serves: while one does not, an executor that is not connected may have come
	// by it, and is not to blame.
	serves    bool
	endpoints []*linkv1.Endpoint // where it listened last
}

// setAdapters takes over which adapters the configuration has.
func (m *Machine) setAdapters(names []string) {
	next := map[string]*adapter{}
	for _, name := range names {
		if next[name] = m.adapters[name]; next[name] == nil {
			next[name] = &adapter{}
		}
	}
	m.adapters = next
	m.adaptersChanged()
}

func (m *Machine) adapterUp(in AdapterUp) {
	a := m.adapters[in.Adapter]
	if a == nil {
		return // it was taken out of the configuration meanwhile
	}
	a.serves, a.endpoints = true, in.Endpoints
	m.adaptersChanged()
}

func (m *Machine) adapterDown(in AdapterDown) {
	if a := m.adapters[in.Adapter]; a != nil && a.serves {
		// It comes back at the same place, so the endpoints stay.
		a.serves = false
		m.adaptersChanged()
	}
}

// adaptersChanged does what follows from an adapter's coming or going.
func (m *Machine) adaptersChanged() {
	m.tellState()
}

// endpoints are where the agent is reached beside its own services.
func (m *Machine) endpoints() []*linkv1.Endpoint {
	list := slices.Clone(m.cfg.Endpoints)
	for _, name := range slices.Sorted(maps.Keys(m.adapters)) {
		list = append(list, m.adapters[name].endpoints...)
	}
	return list
}

// standing is all that the agent says of itself and that may change.
func (m *Machine) standing() string {
	var b strings.Builder
	b.WriteString(m.withheld())
	for _, e := range m.endpoints() {
		b.WriteString("\x00" + e.GetName() + "\x00" + e.GetAddress())
	}
	return b.String()
}
