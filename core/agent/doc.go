// Package agent is the shell around the agent's state machine
// (core/agent/state): it keeps the checkpoints, holds the stream to the leading
// master, drives the isolators, makes the sandboxes, and answers operators.
//
// One goroutine, the loop, owns the machine. Everything else works for it: a
// writer for the checkpoints, a worker for each container that something is to
// be done with, a watcher for each isolator, a reader for the link. What they
// find comes back to the loop as an input. So no lock guards a decision.
//
//	a, err := agent.New(options)
//	operatorv1.RegisterAgentOperatorServer(server, a)
//	err = a.Run(ctx) // until ctx ends, or the master says so; tasks stay
package agent
