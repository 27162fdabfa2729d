package sim

import (
	"slices"
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
	MasterStop        Fault = "master stop"        // the leader stands still, and goes on, perhaps as one of the past
	StandbyCrash      Fault = "standby crash"      // a master that may not lead ends
	ElectionStorm     Fault = "election storm"     // several are elected, one after the other, and do not get far
	RegistryFailure   Fault = "registry failure"   // it does not answer for a while
	AllocatorCrash    Fault = "allocator crash"    // the plugin ends, and is back after a while
	RogueAllocator    Fault = "rogue allocator"    // the plugin asks for what it likes
	SessionCut        Fault = "session cut"        // the stream to the allocator breaks
	SchedulerCut      Fault = "scheduler cut"      // a scheduler's stream breaks
	SchedulerFailover Fault = "scheduler failover" // a second instance takes over
	SlowNetwork       Fault = "slow network"       // messages, disks and plugins take seconds
	Duplicates        Fault = "duplicates"         // what may be told more than once is, for a while
	SlowIsolators     Fault = "slow isolators"     // an agent's plugins take seconds
	SlowAllocator     Fault = "slow allocator"     // it hears and says nothing for a while
	DiskFull          Fault = "disk full"          // an agent cannot write, and ends
	ClockJump         Fault = "clock jump"         // of a machine, by up to two hours either way, for what starts on it
	OperatorKill      Fault = "operator kill"
	OperatorTeardown  Fault = "operator teardown"
	OperatorRole      Fault = "operator role"     // sets or removes a weight and a limit
	OperatorService   Fault = "operator service"  // drains, deactivates or reactivates an agent
	OperatorGone      Fault = "operator gone"     // marks an agent gone, dead or alive
	OperatorSchedule  Fault = "operator schedule" // plans maintenance of machines, or none
	OperatorMachine   Fault = "operator machine"  // takes a machine down for maintenance, or up again
	OperatorConvert   Fault = "operator convert"  // reserves, makes volumes, and undoes that
)

type weighted struct {
	fault  Fault
	weight int
}

// faultWeights are how often each kind happens, in proportion.
var faultWeights = []weighted{
	{AgentCrash, 12}, {HostReboot, 3}, {DiskLoss, 1}, {SlowDisk, 4}, {IsolatorCrash, 8}, {LinkCut, 8}, {Partition, 6}, {PartitionUp, 4}, {PartitionDown, 4},
	{MasterCrash, 5}, {MasterFailover, 3}, {MasterStop, 3}, {StandbyCrash, 1}, {ElectionStorm, 2}, {RegistryFailure, 3}, {AllocatorCrash, 5}, {RogueAllocator, 2}, {SessionCut, 3}, {SchedulerCut, 6}, {SchedulerFailover, 5},
	{SlowNetwork, 2}, {OperatorKill, 3}, {OperatorTeardown, 1}, {OperatorRole, 2},
	{OperatorService, 4}, {OperatorGone, 1}, {OperatorSchedule, 2}, {OperatorMachine, 2}, {OperatorConvert, 3},
	{Duplicates, 2}, {SlowIsolators, 2}, {SlowAllocator, 2}, {DiskFull, 2}, {ClockJump, 3},
}

// Faults says what goes wrong.
type Faults struct {
	// Every is the mean time between two faults; 0: none happens.
	Every time.Duration
	// Only, if set, are the kinds that happen.
	Only []Fault
	// Keep, if not nil, are the only faults that happen, by their numbers, which are
	// those of the trace.
	Keep []int
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

// planFaults plans all faults. Each has chance of its own, so that those that are
// left do the same when one is left out.
func (w *world) planFaults() {
	f := w.cfg.Faults
	if f.Every <= 0 {
		return
	}
	total := 0
	for _, x := range faultWeights {
		if f.has(x.fault) {
			total += x.weight
		}
	}
	usual := w.rng
	w.rng = chanceOf(w.cfg.Seed, 1)
	for at, n := w.exponential(f.Every), 1; at < w.cfg.Duration; at, n = at+w.exponential(f.Every), n+1 {
		kind := w.pickFault(w.pick(max(1, total)))
		if f.Keep != nil && !slices.Contains(f.Keep, n) {
			continue
		}
		w.at(at, func() {
			w.report.struck = append(w.report.struck, n)
			w.report.Faults[kind]++
			w.note([]string{everybody}, "FAULT %d: %s", n, kind)
			usual := w.rng
			w.rng = chanceOf(w.cfg.Seed, uint64(1+n))
			w.strike(kind)
			w.rng = usual
		})
	}
	w.rng = usual
}

// pickFault is the kind of a number below the sum of the weights.
func (w *world) pickFault(n int) (kind Fault) {
	for _, x := range faultWeights {
		if !w.cfg.Faults.has(x.fault) {
			continue
		}
		if n -= x.weight; n < 0 {
			return x.fault
		}
	}
	return kind
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
	case Duplicates:
		w.weather.twiceUntil = w.now + w.outage()
	case SlowIsolators:
		h.slowUntil = w.now + w.outage()
	case SlowAllocator:
		w.allocation.slow(w, w.now+w.between(10*time.Millisecond, 4*time.Second))
	case DiskFull:
		h.full = true
		w.after(w.outage(), func() { h.full = false })
	case ClockJump:
		w.jump(h)
	case StandbyCrash:
		c := w.election.candidates[w.pick(candidates)]
		c.crash("killed")
		w.after(w.outage(), c.boot)
	case ElectionStorm:
		w.election.storm = 2 + w.pick(5)
		if c := w.election.elected; c != nil {
			w.storm(c)
		}
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
		c := m.candidate
		c.crash("killed")
		w.after(w.outage(), c.boot)
	case MasterFailover:
		w.expire(m.candidate, w.between(0, 15*time.Second))
	case MasterStop:
		m.candidate.stop(w.between(0, 4*sessionTimeout))
	case RegistryFailure:
		w.registry.failing = true
		w.after(w.outage(), func() { w.registry.failing = false })
	case SessionCut:
		w.endSession(m, "cut")
	case OperatorKill:
		if len(w.order) > 0 {
			key := w.order[w.pick(len(w.order))]
			w.note([]string{key.id}, "an operator kills %s", key.id)
			m.order(nil, func(id state.Request) state.Input {
				return state.KillTask{Request: id, TaskID: key.id, FrameworkID: key.framework}
			})
		}
	case OperatorService, OperatorGone:
		m.service(f)
	case OperatorSchedule, OperatorMachine:
		m.maintain(f)
	case OperatorConvert:
		m.convert()
	case OperatorTeardown:
		if s.id != "" {
			w.note([]string{s.name, s.id}, "an operator tears %s down", s.id)
			s.torn = true
			id := s.id
			m.order(nil, func(request state.Request) state.Input {
				return state.Teardown{Request: request, FrameworkID: id}
			})
		}
	case OperatorRole:
		m.orderRole(roleNames[w.pick(len(roleNames))], w.chance(0.5))
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

// jump sets a machine's clock: a host's, or that of a master's. Processes there
// go by how much time has passed; the next ones find another time of day.
func (w *world) jump(h *host) {
	by := w.between(-2*time.Hour, 2*time.Hour)
	if w.chance(0.3) {
		c := w.election.candidates[w.pick(candidates)]
		c.skew += by
		w.note([]string{c.name}, "the clock of %s jumps by %v", c.name, by)
		return
	}
	h.nextSkew += by
	w.note(h.itself(), "the clock of %s jumps by %v", h.name, by)
}

// heal ends all faults.
func (w *world) heal() {
	w.note([]string{everybody}, "HEALED: nothing goes wrong from here on")
	w.healed = true
	w.allocation.downUntil, w.allocation.rogueUntil = 0, 0
	w.allocation.slow(w, w.now)
	w.settleElection()
	if w.failure != nil {
		return
	}
	if s := w.leader.session; s != nil && s.rogue {
		w.endSession(w.leader, "it is of no use")
	}
	for _, name := range roleNames {
		w.leader.orderRole(name, true)
	}
	w.restoreService()
	for _, h := range w.hosts {
		h.slowDisk, h.full, h.slowUntil = false, false, 0
		h.rejoin()
		h.boot()
	}
}
