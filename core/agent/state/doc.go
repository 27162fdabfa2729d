// Package state is the agent's state machine: what an agent decides, without
// the doing. It does no I/O, asks no clock and starts no goroutine; the same
// inputs in the same order give the same outputs.
//
// Terms. An *executor* is what the tasks of one launch run under: for a command
// task the agent itself (its executor id is the task's id), for a task group a
// root container without a process. A *container* holds one task's process, or
// is such a root. A container's *chain* is the isolators that take part in it.
//
// Life cycle of a launch:
//
//	Run           → Claim (every container of it)
//	Claimed       → Checkpoint, then Launch (the root first, if there is one)
//	Created       → Checkpoint (handles), then Start, once all are created
//	Started       → TASK_RUNNING, Wait
//	Exited        → a terminal update, Cleanup
//	CleanedUp     → the container is forgotten
//	Acknowledge   → the task is forgotten
//
// The rule that makes a crash harmless: every output that anybody outside can
// notice waits until all that was decided before it is durable. Step emits
// Checkpoint with a number; what depends on it comes out of the Step that is
// given Written with that number. So an agent that is rebuilt from what was
// written last has never promised, or done, more than it remembers.
//
// Example:
//
//	m := state.New(config)
//	outputs := m.Step(now, state.Restore{Records: records})
//	for { … outputs = m.Step(now, input) … wait until m.NextDeadline() }
//
// A Machine is not safe for concurrent use.
package state
