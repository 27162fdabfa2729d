package sim

import (
	"time"

	"github.com/mezzo-os/mezzo/core/master/state"
)

// Fault is a kind of thing that goes wrong.
type Fault string

// The kinds of faults.
const (
	AgentCrash        Fault = "agent crash"        // its process ends and is started again
	HostReboot        Fault = "host reboot"        // all its containers end, unseen
	DiskLoss          Fault = "disk loss"          // an agent's disk is empty; it begins anew beside its old containers
	SlowDisk          Fault = "slow disk"          // an agent's writes take seconds
	IsolatorCrash     Fault = "isolator crash"     // a plugin of an agent ends, and is back after a while
	LinkCut           Fault = "link cut"           // an agent's stream breaks
	Partition         Fault = "partition"          // an agent is cut off
	PartitionUp       Fault = "partition up"       // what it says is not heard
	PartitionDown     Fault = "partition down"     // it does not hear
	MasterCrash       Fault = "master crash"       // the leader ends; another follows from the registry
	MasterFailover    Fault = "master failover"    // another leads, and the old one does not know
	RegistryFailure   Fault = "registry failure"   // writes fail for a while
	AllocatorCrash    Fault = "allocator crash"    // the plugin ends, and is back after a while
	RogueAllocator    Fault = "rogue allocator"    // the plugin asks for what it likes
	SessionCut        Fault = "session cut"        // the stream to the allocator breaks
	SchedulerCut      Fault = "scheduler cut"      // a scheduler's stream breaks
	SchedulerFailover Fault = "scheduler failover" // a second instance takes over
	SlowNetwork       Fault = "slow network"       // messages, disks and plugins take seconds
	OperatorKill      Fault = "operator kill"
	OperatorTeardown  Fault = "operator teardown"
	OperatorRole      Fault = "operator role"    // sets or removes a weight and a limit
	OperatorService   Fault = "operator service" // drains, deactivates or reactivates an agent
	OperatorGone      Fault = "operator gone"    // marks an agent gone, dead or alive
)

// faultWeights are how often each kind happens, in proportion.
var faultWeights = []struct {
	fault  Fault
	weight int
}{
	{AgentCrash, 12}, {HostReboot, 3}, {DiskLoss, 1}, {SlowDisk, 4}, {IsolatorCrash, 8}, {LinkCut, 8}, {Partition, 6}, {PartitionUp, 4}, {PartitionDown, 4},
	{MasterCrash, 6}, {MasterFailover, 4}, {RegistryFailure, 3}, {AllocatorCrash, 5}, {RogueAllocator, 2}, {SessionCut, 3}, {SchedulerCut, 6}, {SchedulerFailover, 5},
	{SlowNetwork, 2}, {OperatorKill, 3}, {OperatorTeardown, 1}, {OperatorRole, 2},
	{OperatorService, 4}, {OperatorGone, 1},
}

// Faults says what goes wrong.
type Faults struct {
	// Every is the mean time between two faults; 0: none happens.
	Every time.Duration
	// Only, if set, are the kinds that happen.
	Only []Fault
}

// AllFaults is every kind of fault, one in two seconds.
func AllFaults() Faults { return Faults{Every: 2 * time.Second} }

func (f Faults) has(kind Fault) bool {
	for _, k := range f.Only {
		if k == kind {
			return true
		}
	}
	return len(f.Only) == 0
}

// planFault plans the next fault.
func (w *world) planFault() {
	if w.cfg.Faults.Every <= 0 {
		return
	}
	w.after(w.exponential(w.cfg.Faults.Every), func() {
		if w.healed {
			return
		}
		w.planFault()
		total := 0
		for _, f := range faultWeights {
			if w.cfg.Faults.has(f.fault) {
				total += f.weight
			}
		}
		n := w.pick(max(1, total))
		for _, f := range faultWeights {
			if !w.cfg.Faults.has(f.fault) {
				continue
			}
			if n -= f.weight; n < 0 {
				w.report.Faults[f.fault]++
				w.note([]string{everybody}, "FAULT: %s", f.fault)
				w.strike(f.fault)
				return
			}
		}
	})
}

// outage is how long something is away: mostly short, now and then for longer
// than anybody waits.
func (w *world) outage() time.Duration {
	if w.chance(0.15) {
		return w.between(5*time.Second, 40*time.Second)
	}
	return w.between(10*time.Millisecond, 4*time.Second)
}

func (w *world) strike(f Fault) {
	h := w.hosts[w.pick(len(w.hosts))]
	s := w.schedulers[w.pick(len(w.schedulers))]
	switch f {
	case AgentCrash:
		h.crash("killed")
		w.after(w.outage(), h.boot)
	case HostReboot:
		h.reboot()
		w.after(w.outage(), h.boot)
	case DiskLoss:
		h.loseDisk()
		w.after(w.outage(), h.boot)
	case SlowDisk:
		h.slowDisk = true
		w.after(w.outage(), func() { h.slowDisk = false })
	case IsolatorCrash:
		h.isolators[w.pick(len(h.isolators))].fail(w.outage())
	case LinkCut:
		if l := h.link; l != nil {
			l.breakFor(w, "cut")
		}
	case Partition, PartitionUp, PartitionDown:
		h.partition(f != PartitionDown, f != PartitionUp)
	case AllocatorCrash:
		w.crashAllocator(w.between(50*time.Millisecond, 2*time.Second))
	case RogueAllocator:
		w.allocation.rogueUntil = w.now + w.outage()
		w.crashAllocator(w.between(50*time.Millisecond, time.Second))
	case SchedulerCut:
		if s.cur != nil {
			s.cur.fail("cut")
		}
	case SchedulerFailover:
		w.note([]string{s.name}, "a second instance of %s takes over", s.name)
		s.connect()
	case SlowNetwork:
		w.weather.slowUntil = w.now + w.outage()
	default:
		w.strikeMaster(f, s)
	}
}

func (w *world) strikeMaster(f Fault, s *scheduler) {
	m := w.leader
	if m == nil || !m.alive {
		return
	}
	switch f {
	case MasterCrash:
		m.crash("killed")
		w.after(w.between(10*time.Millisecond, 3*time.Second), w.elect)
	case MasterFailover:
		w.startMaster()
		w.after(w.between(0, 15*time.Second), func() { m.crash("it finds out that it does not lead any more") })
	case RegistryFailure:
		w.registry.failing = true
		w.after(w.outage(), func() { w.registry.failing = false })
	case SessionCut:
		w.endSession(m, "cut")
	case OperatorKill:
		if len(w.order) > 0 {
			key := w.order[w.pick(len(w.order))]
			w.note([]string{key.id}, "an operator kills %s", key.id)
			m.step(state.KillTask{Request: 1, TaskID: key.id, FrameworkID: key.framework})
		}
	case OperatorService, OperatorGone:
		m.service(f)
	case OperatorTeardown:
		if s.id != "" {
			w.note([]string{s.name, s.id}, "an operator tears %s down", s.id)
			s.torn = true
			m.step(state.Teardown{Request: 2, FrameworkID: s.id})
		}
	case OperatorRole:
		name := roleNames[w.pick(len(roleNames))]
		if w.chance(0.5) {
			m.step(state.RemoveQuota{Request: 3, Role: name})
			return
		}
		m.step(state.SetWeights{Request: 4, Weights: []state.RoleWeight{{Role: name, Weight: uint64(500 * w.pick(7))}}})
		limit, guarantee := w.randomLimit(), w.randomLimit()
		m.step(state.SetQuota{Request: 5, Role: name, Limit: &limit, Guarantee: &guarantee, Force: w.chance(0.5)})
	}
}

// elect starts a leader where there is none.
func (w *world) elect() {
	if w.leader == nil || !w.leader.alive {
		w.startMaster()
	}
}

// partition cuts a host off, in one direction or both, for a while.
func (h *host) partition(up, down bool) {
	w := h.w
	h.blockedUp, h.blockedDown = h.blockedUp || up, h.blockedDown || down
	w.note(h.itself(), "%s is cut off: up %v, down %v", h.name, up, down)
	w.after(w.outage(), func() { h.rejoin() })
}

// rejoin ends a partition. What was held up comes through, unless the stream
// has been given up at one end.
func (h *host) rejoin() {
	if !h.blockedUp && !h.blockedDown {
		return
	}
	h.blockedUp, h.blockedDown = false, false
	h.w.note(h.itself(), "%s is back on the network", h.name)
	for _, m := range append([]*master(nil), h.w.masters...) {
		for _, id := range sorted(m.links) {
			if l := m.links[id]; l != nil && l.host == h {
				l.up.pump()
			}
		}
	}
	if h.link != nil {
		h.link.down.pump()
	}
}

// heal ends all faults.
func (w *world) heal() {
	w.note([]string{everybody}, "HEALED: nothing goes wrong from here on")
	w.healed = true
	w.registry.failing = false
	w.allocation.downUntil, w.allocation.rogueUntil = 0, 0
	for _, m := range append([]*master(nil), w.masters...) {
		if m != w.leader {
			m.crash("another leads")
		}
	}
	w.elect()
	if s := w.leader.session; s != nil && s.rogue {
		w.endSession(w.leader, "it is of no use")
	}
	for _, name := range roleNames {
		w.leader.step(state.RemoveQuota{Request: 6, Role: name})
	}
	w.restoreService()
	for _, h := range w.hosts {
		h.slowDisk = false
		h.rejoin()
		h.boot()
	}
}
