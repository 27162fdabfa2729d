package state

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	linkv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/link/v1"
)

// adapter is a framework adapter of the configuration.
type adapter struct {
	// serves: while one does not, an executor that is not connected may have come
	// by it, and is not to blame.
	serves      bool
	served      bool               // once, since this process of the agent began
	endpoints   []*linkv1.Endpoint // where it listened last
	environment []Variable
	tokens      []string // variables in which executors find their tokens
}

// adapterLimit is how long the first start of an adapter withholds resources: an
// executor that is launched before could not be told of it.
const adapterLimit = 30 * time.Second

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
	before := m.withheld()
	a.serves, a.served, a.endpoints, a.environment, a.tokens = true, true, in.Endpoints, in.Environment, in.TokenVariables
	m.withheldMayChange(before)
	m.adaptersChanged()
}

func (m *Machine) adapterDown(in AdapterDown) {
	if a := m.adapters[in.Adapter]; a != nil && a.serves {
		// It comes back at the same place, so the endpoints stay.
		a.serves = false
		m.adaptersChanged()
	}
}

// adaptersChanged does what follows from an adapter's coming or going: the
// master is told, and executors that are awaited have their time from now on.
func (m *Machine) adaptersChanged() {
	m.tellState()
	for _, e := range m.sortedExecutors() {
		if e.program != nil && !e.program.subscribeBy.IsZero() {
			m.await(e)
		}
	}
}

// adapterNames are those of the configuration, in order.
func (m *Machine) adapterNames() []string { return slices.Sorted(maps.Keys(m.adapters)) }

// missingAdapter says which adapter has not served yet and is still waited for;
// empty: there is none.
func (m *Machine) missingAdapter() string {
	if m.adaptersBy.IsZero() {
		return ""
	}
	for _, name := range m.adapterNames() {
		if !m.adapters[name].served {
			return fmt.Sprintf("framework adapter %s: has not started yet", name)
		}
	}
	return ""
}

// adaptersLate stops waiting for adapters.
func (m *Machine) adaptersLate() {
	if m.adaptersBy.IsZero() || m.adaptersBy.After(m.now) {
		return
	}
	before := m.withheld()
	m.adaptersBy = time.Time{}
	m.withheldMayChange(before)
}

// endpoints are where the agent is reached beside its own services.
func (m *Machine) endpoints() []*linkv1.Endpoint {
	list := slices.Clone(m.cfg.Endpoints)
	for _, name := range m.adapterNames() {
		list = append(list, m.adapters[name].endpoints...)
	}
	return list
}

// standing is all that the agent says of itself and that may change.
func (m *Machine) standing() string {
	var b strings.Builder
	b.WriteString(m.withheld())
	// The count stands for the resources, which change by operations alone. It is
	// told too when an operation was refused, since the master expects its effect.
	fmt.Fprintf(&b, "\x00%d", m.link.taken)
	for _, e := range m.endpoints() {
		b.WriteString("\x00" + e.GetName() + "\x00" + e.GetAddress())
	}
	return b.String()
}
