// Package sim is the deterministic cluster simulator: the real state machines
// of master and agent and the real allocation engine, in a world that is not
// real. Time is virtual, everything random comes from one seed, nothing runs
// beside anything else: the same Config gives the same run, step by step.
//
//	report, err := sim.Run(sim.Config{Seed: 17, Agents: 4, Frameworks: 5, Duration: 2 * time.Minute, Faults: sim.AllFaults()})
//
// A run has three parts. In the first, faults come at random. Then the world is
// healed and given time, and the tasks that never end by themselves must be
// running, and everybody must agree on them. Then those are ended, and nothing
// may be left. The invariants (see invariant.go) are checked all along.
//
// What is simulated: the registry, the agents' disks and containers, the
// streams between all processes, schedulers of several temperaments, the
// allocator's process. What is real: every decision.
package sim
