package state

import (
	"slices"
	"time"
)

const (
	// adapterPatience is how long the failover clocks of an adapter's frameworks
	// wait for it to serve again before they start all the same.
	adapterPatience = 10 * time.Minute
	// resubscribeGrace is how long a scheduler has, at the least, to come back
	// through an adapter that serves again, whatever its failover timeout: it may
	// be in a pause of its own between two attempts.
	resubscribeGrace = 2 * time.Minute

	// A failover clock that runs is noted in the registry after an eighth of the
	// timeout each, within these bounds; that of a timeout below them is not.
	failoverNoteLeast = time.Minute
	failoverNoteMost  = 10 * time.Minute
)

// adapterUp lets the failover clocks of an adapter's frameworks start.
func (m *Machine) adapterUp(in AdapterUp) {
	m.adapters[in.Adapter] = true
	for _, f := range m.frameworksOf(in.Adapter) {
		if f.held {
			m.startFailover(f, resubscribeGrace)
		}
	}
}

// adapterDown holds the clocks of those that are not connected now. The streams
// of the others end, too.
func (m *Machine) adapterDown(in AdapterDown) {
	delete(m.adapters, in.Adapter)
	for _, f := range m.frameworksOf(in.Adapter) {
		if f.phase == frameworkLive && f.stream == "" && !f.removing && !f.held {
			m.awaitAdapter(f)
		}
	}
}

// frameworksOf returns the frameworks whose scheduler came through an adapter
// last, by id.
func (m *Machine) frameworksOf(adapter string) []*framework {
	var out []*framework
	for _, f := range m.frameworks {
		if f.adapter == adapter {
			out = append(out, f)
		}
	}
	slices.SortFunc(out, func(a, b *framework) int {
		if a.id < b.id {
			return -1
		}
		return 1
	})
	return out
}

// awaitAdapter holds the failover clock of a framework that is cut off with its
// adapter, and so not to blame, until the adapter serves again.
func (m *Machine) awaitAdapter(f *framework) {
	if m.adapters[f.adapter] {
		m.startFailover(f, resubscribeGrace)
		return
	}
	f.held = true
	m.logf(Info, "framework waits for its adapter", "framework_id", f.id, "adapter", f.adapter, "at_most", adapterPatience)
	m.after(&f.clock, adapterPatience)
}

// startFailover starts the failover clock of a disconnected framework. It does
// not run out before least has passed. After an election that an adapter's
// framework has lived through, it does not run out either before the agents had
// their time to come back.
func (m *Machine) startFailover(f *framework, least time.Duration) {
	f.held = false
	timeout := max(m.failoverTimeout(f)-f.waited, least)
	if f.recovered {
		timeout = max(timeout, m.began.Add(m.cfg.AgentReregisterTimeout).Sub(m.now))
	}
	if timeout <= 0 {
		why := "its scheduler disconnected and it has no failover timeout"
		if f.waited > 0 {
			why = "its failover timeout ran out"
		}
		m.removeFramework(f, why, nil)
		return
	}
	f.ends = m.now.Add(timeout)
	m.runFailover(f)
}

// noteFailover writes how long the failover clock has run. While the registry
// cannot be written, one note waits, and no more.
func (m *Machine) noteFailover(f *framework) {
	f.waited += m.now.Sub(f.counted)
	if !f.noting {
		f.noting = true
		m.writeFramework(f, func() { f.noting = false })
	}
}

// runFailover lets the failover clock run until it is noted the next time, or has
// run out. The notes are for the next leader: without them a framework whose
// scheduler is gone would live for as long as masters change more often than its
// timeout runs out. A change of masters gives it what was not noted, and no more.
func (m *Machine) runFailover(f *framework) {
	f.counted = m.now
	left := f.ends.Sub(m.now)
	if timeout := m.failoverTimeout(f); timeout > failoverNoteLeast {
		left = min(left, max(timeout/8, failoverNoteLeast), failoverNoteMost)
	}
	m.after(&f.clock, left)
}
