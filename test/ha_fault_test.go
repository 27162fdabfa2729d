package test

import (
	"fmt"
	"math/rand/v2"
	"syscall"
	"time"

	"github.com/mezzo-os/mezzo/internal/netlab"
)

// fault does something, and waits until another epoch has a leader with all
// agents and the cluster works. Then it undoes it.
func (x *haCluster) fault(kind, note string, do func() (undo func())) {
	x.t.Helper()
	x.leader(0)
	epoch := x.newest()
	began := time.Now()
	undo := do()
	x.leader(epoch)
	led := time.Since(began)
	x.works()
	x.recovered(kind, note, time.Since(began), fmt.Sprintf("all agents are back with a leader after %5.1f s, ", led.Seconds()))
	undo()
	x.checkTasks(kind)
	x.checkNode()
}

// disturb does something, undoes it after a while, and waits until the cluster
// works with all agents. Another may lead then.
func (x *haCluster) disturb(kind, note string, while time.Duration, do func() (undo func())) {
	x.t.Helper()
	x.leader(0)
	undo := do()
	time.Sleep(while) // this is how long it lasts
	undo()
	began := time.Now()
	x.leader(0)
	x.works()
	x.recovered(kind, fmt.Sprintf("%s for %.1f s", note, while.Seconds()), time.Since(began), "")
	x.checkTasks(kind)
}

func (x *haCluster) recovered(kind, note string, after time.Duration, before string) {
	x.times[kind] = append(x.times[kind], after)
	line := fmt.Sprintf("%-60s %sa task has run after %5.1f s", kind+" "+note, before, after.Seconds())
	x.log = append(x.log, line)
	if *haFaults > 0 {
		x.t.Log(line)
	}
}

// checkTasks is that none of those that run has ended, or begun anew.
func (x *haCluster) checkTasks(after string) {
	x.t.Helper()
	if begun := x.notes("begin"); begun != haTasks || x.notes("end") != 0 {
		x.t.Fatalf("after %q %d tasks have begun and %d ended, want %d and none", after, begun, x.notes("end"), haTasks)
	}
}

func (x *haCluster) killLeader() (undo func()) {
	i := x.leader(0)
	x.masters[i].stop(syscall.SIGKILL)
	return func() { x.startMaster(i) }
}

// stopLeader has the leader stand still until another one leads. When it goes on
// it must find out.
func (x *haCluster) stopLeader() (undo func()) {
	i := x.leader(0)
	process, before := x.masters[i].cmd.Process, x.newest()
	_ = process.Signal(syscall.SIGSTOP)
	return func() {
		x.checkNode() // its adapter does not stand still, and must not go on telling
		_ = process.Signal(syscall.SIGCONT)
		x.standsBy(i, before)
	}
}

func (x *haCluster) standsBy(i int, before uint64) {
	x.t.Helper()
	eventuallyWithin(x.t, 2*patience, "the former leader to be back as a candidate", func() bool {
		s, ok := x.status(i)
		return ok && (s.Leadership == "standby" || s.Epoch > before)
	})
}

// cutLeader has nothing pass between the leader and ZooKeeper, or nothing one
// way. Agents and frameworks still reach it.
func (x *haCluster) cutLeader(way netlab.Way) (undo func()) {
	i := x.leader(0)
	before := x.newest()
	x.masterNodes[i].Cut(way, addresses(x.memberNodes)...)
	return func() {
		eventuallyWithin(x.t, 2*patience, "the master that is cut off to stand by", func() bool {
			s, ok := x.status(i)
			return ok && s.Leadership != "leading"
		})
		x.masterNodes[i].Mend()
		x.standsBy(i, before)
	}
}

// isolateLeader cuts the leader off from everybody.
func (x *haCluster) isolateLeader(way netlab.Way) (undo func()) {
	i := x.leader(0)
	before := x.newest()
	x.masterNodes[i].Cut(way)
	return func() {
		x.masterNodes[i].Mend()
		x.standsBy(i, before)
	}
}

// cut cuts nodes off from everybody.
func cut(nodes []*netlab.Node, way netlab.Way) (undo func()) {
	for _, n := range nodes {
		n.Cut(way)
	}
	return func() {
		for _, n := range nodes {
			n.Mend()
		}
	}
}

// loseZooKeeper takes all of it away until nobody leads any more.
func (x *haCluster) loseZooKeeper() (undo func()) {
	x.ensemble.Kill()
	eventuallyWithin(x.t, 2*patience, "that nobody leads without ZooKeeper", func() bool {
		for _, s := range x.statuses() {
			if s.Leadership == "leading" {
				return false
			}
		}
		return true
	})
	x.ensemble.Restart(x.t)
	return func() {}
}

// loseMember kills, stops or cuts off ZooKeeper's leader until the cluster works
// without it: the master may go on leading, or another one.
func (x *haCluster) loseMember(kind string, lose func(member int) (undo func())) {
	x.t.Helper()
	x.leader(0)
	i := x.ensemble.Leader()
	if i < 0 {
		return
	}
	began := time.Now()
	undo := lose(i)
	x.works()
	x.leader(0)
	x.recovered(kind, "", time.Since(began), "")
	undo()
	x.checkTasks(kind)
}

// someAgents are a quarter of them, by chance.
func (x *haCluster) someAgents(chance *rand.Rand) []int {
	return chance.Perm(len(x.agents))[:(len(x.agents)+3)/4]
}

// killAgents kills agents; their tasks and what watches those go on.
func (x *haCluster) killAgents(which []int) (undo func()) {
	for _, i := range which {
		x.agents[i].stop(syscall.SIGKILL)
	}
	return func() {
		for _, i := range which {
			x.startAgent(i)
		}
	}
}

func (x *haCluster) stopAgents(which []int) (undo func()) {
	all := func(s syscall.Signal) {
		for _, i := range which {
			_ = x.agents[i].cmd.Process.Signal(s)
		}
	}
	all(syscall.SIGSTOP)
	return func() { all(syscall.SIGCONT) }
}

// torture chooses faults.
func (x *haCluster) torture() {
	seed := *haSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	x.t.Logf("-ha-seed=%d", seed)
	chance := rand.New(rand.NewPCG(seed, 1))
	upTo := func(most time.Duration) time.Duration { return time.Duration(chance.Int64N(int64(most))) }
	for n := range *haFaults {
		time.Sleep(upTo(2 * time.Second)) // a moment that nothing has chosen
		note := fmt.Sprintf("(%d)", n)
		way := netlab.Ways[chance.IntN(len(netlab.Ways))]
		noteWay := fmt.Sprintf("(%d, %s)", n, way)
		// Half of these last until the agents are unreachable.
		while := upTo(2 * haTimeouts * haPing)
		switch chance.IntN(12) {
		case 0:
			x.fault("leader killed", note, x.killLeader)
		case 1:
			x.fault("leader stops and goes on", note, x.stopLeader)
		case 2:
			x.fault("leader cut from ZooKeeper", noteWay, func() func() { return x.cutLeader(way) })
		case 3:
			x.fault("leader cut from all", noteWay, func() func() { return x.isolateLeader(way) })
		case 4:
			x.disturb("leader cut from agents", noteWay, while, func() func() {
				i := x.leader(0)
				x.masterNodes[i].Cut(way, addresses(x.agentNodes)...)
				return x.masterNodes[i].Mend
			})
		case 5:
			x.fault("ZooKeeper gone and back", note, x.loseZooKeeper)
		case 6:
			x.loseMember("ZooKeeper's leader killed", func(i int) func() {
				x.ensemble.Member(i).Kill()
				return func() { x.ensemble.Member(i).Restart(x.t) }
			})
		case 7:
			x.loseMember("ZooKeeper's leader stops and goes on", func(i int) func() {
				x.ensemble.Member(i).Stop()
				return x.ensemble.Member(i).Continue
			})
		case 8:
			x.loseMember("ZooKeeper's leader cut from all", func(i int) func() { return cut(x.memberNodes[i:i+1], way) })
		case 9:
			which := x.someAgents(chance)
			x.disturb("agents killed", note, while, func() func() { return x.killAgents(which) })
		case 10:
			which := x.someAgents(chance)
			x.disturb("agents stop and go on", note, while, func() func() { return x.stopAgents(which) })
		case 11:
			var nodes []*netlab.Node
			for _, i := range x.someAgents(chance) {
				nodes = append(nodes, x.agentNodes[i])
			}
			x.disturb("agents cut from all", noteWay, while, func() func() { return cut(nodes, way) })
		}
	}
}
