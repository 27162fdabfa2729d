package state

import (
	"maps"
	"time"

	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
	"github.com/mezzo-os/mezzo/sdk/resource"
)

// Counts are what has happened since the process began.
type Counts struct {
	LaunchFailures uint64 // containers that could not be made or started
	// StatusUpdates are all of tasks, the agent's own too; those that are not valid
	// came from executors.
	StatusUpdates, InvalidStatusUpdates uint64
	// Messages are those between executors and schedulers that were passed on, and
	// those that could not be.
	Messages, DroppedMessages uint64
	ExecutorsEnded            uint64
	TasksRevoked              uint64
	TasksEnded                map[mezzov1.TaskState]uint64 // by their last state
}

// Numbers are what there is to count of an agent.
type Numbers struct {
	Counts
	Registered bool
	Frameworks int
	Tasks      map[mezzov1.TaskState]int // that have not ended
	// Executors are by how far they are; a command task has one, the agent itself.
	ExecutorsStarting, ExecutorsRunning, ExecutorsEnding int
	// Recovery is how long it took to find what an earlier process left; negative:
	// that goes on.
	Recovery time.Duration
	// Total and Used are without, TotalRevocable and UsedRevocable are what may be
	// taken back.
	Total, Used, TotalRevocable, UsedRevocable resource.Quantities
}

// Numbers costs as much as the agent has tasks and shares no memory with the
// machine.
func (m *Machine) Numbers() Numbers {
	n := Numbers{Counts: m.counts, Registered: m.link.state == registered, Frameworks: len(m.frameworks), Tasks: map[mezzov1.TaskState]int{}, Recovery: -1}
	n.TasksEnded = maps.Clone(m.counts.TasksEnded)
	if m.recovered {
		n.Recovery = m.recoveredAt.Sub(m.began)
	}
	for _, t := range m.tasks {
		if !t.ended() {
			n.Tasks[t.status.GetState()]++
		}
	}
	for _, e := range m.executors {
		switch e.stage() {
		case executorStarting:
			n.ExecutorsStarting++
		case executorEnding:
			n.ExecutorsEnding++
		default:
			n.ExecutorsRunning++
		}
	}
	used, _ := m.inUse()
	n.Total, n.TotalRevocable = quantities(m.resources.total)
	n.Used, n.UsedRevocable = quantities(used)
	return n
}

// quantities are resources by name, and those that may be taken back apart.
func quantities(all resource.Resources) (plain, revocable resource.Quantities) {
	return all.NonRevocable().Quantities(), all.Revocable().Quantities()
}

type executorStage int

const (
	executorRunning executorStage = iota
	executorStarting
	executorEnding
)

// stage is how far an executor is: of one without a process of its own, how far
// its containers are.
func (e *executor) stage() executorStage {
	if p := e.program; p != nil {
		switch {
		case p.exited || p.stopping() || p.end != nil || e.root == nil || e.root.phase == cleaning:
			return executorEnding
		case !p.known:
			return executorStarting
		}
		return executorRunning
	}
	if len(e.tasks) == 0 {
		return executorEnding
	}
	for _, t := range e.tasks {
		if t.launch == nil {
			return executorRunning
		}
	}
	return executorStarting
}
