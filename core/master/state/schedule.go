package state

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/mezzo-os/mezzo/sdk/allocator"
)

// The maintenance schedule says when machines will not be there. Agents are on
// machines by their host name and address. A machine in the schedule is draining:
// nothing happens but that frameworks are told and asked; or it is down: its
// agents are shut down, and are not taken.

// MachineID names machines: those whose agents have this host name, this
// address, or both. Addresses are in canonical form, which the shell sees to;
// host names may be in any case.
type MachineID struct {
	Hostname string `json:"hostname,omitempty"`
	IP       string `json:"ip,omitempty"`
}

func (id MachineID) String() string {
	switch {
	case id.IP == "":
		return id.Hostname
	case id.Hostname == "":
		return id.IP
	}
	return id.Hostname + " (" + id.IP + ")"
}

// Names is whether it names the machine of an agent with this host name and
// address.
func (id MachineID) Names(hostname, ip string) bool {
	return (id.Hostname == "" || strings.EqualFold(id.Hostname, hostname)) && (id.IP == "" || id.IP == ip)
}

// Window is when machines are planned to be unavailable. Of the window Duration
// 0 is no end.
type Window struct {
	Machines []MachineID   `json:"machines"`
	Start    time.Time     `json:"start"`
	Duration time.Duration `json:"duration,omitempty"`
}

// schedule is the maintenance schedule. It is never changed, only replaced.
type schedule struct {
	windows []Window
	down    []MachineID // in the schedule's order
	index   map[MachineID]standsAs
}

// standsAs is how a machine of the schedule stands.
type standsAs struct {
	window *allocator.Unavailability
	down   bool
}

// scheduleRecord is the schedule in the registry, under one key, so that it changes
// whole.
type scheduleRecord struct {
	Version int         `json:"version"`
	Windows []Window    `json:"windows"`
	Down    []MachineID `json:"down,omitempty"`
}

func newSchedule(windows []Window, down func(MachineID) bool) *schedule {
	p := &schedule{windows: windows, index: map[MachineID]standsAs{}}
	for _, w := range windows {
		for _, id := range w.Machines {
			x := standsAs{window: &allocator.Unavailability{Start: w.Start, Duration: w.Duration}, down: down(id)}
			p.index[id] = x
			if x.down {
				p.down = append(p.down, id)
			}
		}
	}
	return p
}

// machine finds how the machine with this name and address stands; the entry
// that names it more closely counts, unless another has it down.
func (p *schedule) machine(hostname, ip string) (found standsAs) {
	if len(p.index) == 0 {
		return found
	}
	hostname = strings.ToLower(hostname)
	for _, id := range []MachineID{{hostname, ip}, {Hostname: hostname}, {IP: ip}} {
		x, ok := p.index[id]
		if !ok || id == (MachineID{}) {
			continue
		}
		if found.window == nil {
			found.window = x.window
		}
		found.down = found.down || x.down
	}
	return found
}

func (p *schedule) window(a *agent) *allocator.Unavailability {
	return p.machine(a.hostname, a.ip).window
}

func (p *schedule) isDown(a *agent) bool { return p.machine(a.hostname, a.ip).down }

// checkMachines checks a list of machines and writes them as they are compared.
func checkMachines(list []MachineID, seen map[MachineID]bool) ([]MachineID, error) {
	var out []MachineID
	for _, id := range list {
		id.Hostname = strings.ToLower(id.Hostname)
		if id == (MachineID{}) {
			return nil, fmt.Errorf("a machine has neither a host name nor an address")
		}
		if seen[id] {
			return nil, fmt.Errorf("machine %s appears more than once", id)
		}
		seen[id] = true
		out = append(out, id)
	}
	return out, nil
}

// orderSchedule is an operator's wish to replace the schedule.
func (m *Machine) orderSchedule(in SetSchedule) {
	fail := func(format string, args ...any) {
		m.reply(in.Request, &OrderError{OrderInvalid, fmt.Sprintf(format, args...)})
	}
	seen := map[MachineID]bool{}
	var windows []Window
	for i, w := range in.Windows {
		machines, err := checkMachines(w.Machines, seen)
		switch {
		case err != nil:
			fail("window %d of the schedule: %v", i+1, err)
			return
		case len(machines) == 0:
			fail("window %d of the schedule has no machines", i+1)
			return
		case w.Start.IsZero():
			fail("window %d of the schedule has no start", i+1)
			return
		case w.Duration < 0:
			fail("window %d of the schedule: its duration is negative", i+1)
			return
		}
		windows = append(windows, Window{Machines: machines, Start: w.Start.UTC(), Duration: w.Duration})
	}
	for _, id := range m.wantedSchedule.down {
		if !seen[id] {
			fail("machine %s is down and cannot be taken out of the schedule; bring it up first", id)
			return
		}
	}
	now := m.wantedSchedule
	next := newSchedule(windows, func(id MachineID) bool { return now.index[id].down })
	// With every machine down it must be no larger than that.
	if size := len(encodeRecord(scheduleRecord{Windows: windows, Down: slices.Collect(maps.Keys(next.index))})); size > maxSchedule {
		fail("a schedule of %d machines in %d windows has up to %d bytes, the most is %d; plan fewer machines at a time, and those of one time in one window", len(seen), len(windows), size, maxSchedule)
		return
	}
	m.replaceSchedule(next, func() {
		m.logf(Info, "operator replaces the maintenance schedule", "windows", len(windows), "machines", len(seen))
		m.reply(in.Request, nil)
	})
}

// orderMaintenance is an operator's wish to take machines down, or up again.
func (m *Machine) orderMaintenance(in SetMaintenance) {
	fail := func(format string, args ...any) {
		m.reply(in.Request, &OrderError{OrderInvalid, fmt.Sprintf(format, args...)})
	}
	seen := map[MachineID]bool{}
	machines, err := checkMachines(in.Machines, seen)
	if err != nil {
		fail("%v", err)
		return
	}
	if len(machines) == 0 {
		fail("no machine is named")
		return
	}
	now := m.wantedSchedule
	for _, id := range machines {
		x, planned := now.index[id]
		switch {
		case in.Down && !planned:
			fail("machine %s is not part of a maintenance schedule; only those that are can be taken down", id)
			return
		case in.Down && x.down:
			fail("machine %s is down already", id)
			return
		case !in.Down && !x.down:
			fail("machine %s is not down and cannot be brought up", id)
			return
		}
	}
	windows := now.windows
	if !in.Down {
		windows = without(windows, seen)
	}
	next := newSchedule(windows, func(id MachineID) bool { return now.index[id].down || seen[id] })
	m.replaceSchedule(next, func() {
		m.logf(Info, "operator takes machines down, or up again", "machines", fmt.Sprint(machines), "down", fmt.Sprint(in.Down))
		m.shutMachinesDown(func() { m.reply(in.Request, nil) })
	})
}

// without is a schedule without some machines, and without windows that have
// none left.
func without(windows []Window, machines map[MachineID]bool) []Window {
	var out []Window
	for _, w := range windows {
		w.Machines = slices.DeleteFunc(slices.Clone(w.Machines), func(id MachineID) bool { return machines[id] })
		if len(w.Machines) > 0 {
			out = append(out, w)
		}
	}
	return out
}

// replaceSchedule makes a schedule durable, and has it count then.
func (m *Machine) replaceSchedule(next *schedule, done func()) {
	m.wantedSchedule = next
	var value []byte
	if len(next.windows) > 0 {
		value = encodeRecord(scheduleRecord{Version: recordVersion, Windows: next.windows, Down: next.down})
	}
	m.write(scheduleKey, value, func() {
		m.schedule = next
		m.dirty.schedule = true
		for _, id := range sortedKeys(m.agents) {
			m.replaceWindow(m.agents[id])
		}
		done()
	})
}

// shutMachinesDown ends the agents on machines that are down: first in the
// registry, where they stand as unreachable, then in fact. An agent may still be
// unreachable for another reason; its tasks have ended all the same.
func (m *Machine) shutMachinesDown(done func()) {
	left := 1
	finish := func() {
		if left--; left == 0 {
			done()
		}
	}
	for _, id := range sortedKeys(m.agents) {
		a := m.agents[id]
		switch {
		case !m.schedule.isDown(a) || a.leaving || a.phase == admitting || a.phase == gone:
		case a.phase == unreachable && !a.returning:
			m.endTasksOfDown(a)
			m.touchAgent(a)
		case a.phase != unreachable && !a.marking:
			left++
			m.markUnreachable(a, "its machine is down for maintenance", finish)
		}
	}
	finish()
}

func downReason(a *agent) string {
	return fmt.Sprintf("the machine of agent %s (%s) is down for maintenance", a.id, a.hostname)
}

// replaceWindow brings an agent's window to what the schedule says of its machine.
// Offers and inverse offers were made with another in mind, so they are taken
// back.
func (m *Machine) replaceWindow(a *agent) {
	if a.phase == admitting || !m.takeWindow(a) {
		return
	}
	m.rescindAgent(a, "the agent's planned unavailability changed")
	m.agentChanged(a)
}

// takeWindow is replaceWindow, without telling anybody but those who were asked
// to leave; false: nothing changed.
func (m *Machine) takeWindow(a *agent) bool {
	if a.phase == gone {
		return false
	}
	next, now := m.schedule.window(a), a.unavailability()
	if next == nil && now == nil || next != nil && now != nil && *next == *now {
		return false
	}
	m.dropWindow(a, "the agent's planned unavailability changed")
	if next != nil {
		a.maintenance = &maintenance{window: *next, inverse: map[string]*inverseOffer{}}
		m.maintained[a.id] = a
	}
	m.touchAgent(a)
	return true
}

// dropWindow forgets the window of an agent.
func (m *Machine) dropWindow(a *agent, why string) {
	if a.maintenance != nil {
		m.dropInverse(a, why)
		a.maintenance = nil
		delete(m.maintained, a.id)
	}
}

// scheduleView is the schedule as others see it.
func (m *Machine) scheduleView() *ScheduleView {
	return &ScheduleView{Windows: m.schedule.windows, Down: m.schedule.down}
}
