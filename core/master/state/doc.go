// Package state is the master as a pure state machine: it knows every agent,
// framework, offer and task, decides what becomes of each message, and keeps
// the books. It does no I/O, starts no goroutine and never asks the time.
//
// A shell feeds it:
//
//	m, err := state.New(config, recovered, now)
//	for in := range inputs {
//		for _, out := range m.Step(now, in) {
//			carryOut(out)
//		}
//		arm(m.NextDeadline()) // and send Tick when it comes
//	}
//
// Terms. A *link* is one stream of one agent, a *stream* is one subscription of
// a scheduler, a *session* is one stream of the allocator, a *caller* is one
// stream of scheduler calls, a *request* is one order of an operator. The shell
// names each of them with a number (or a text) that it never uses again.
//
// Rules that the shell must keep: one Step at a time, with a time that never
// goes back; outputs are carried out in order; outputs for one link, stream,
// caller or session are never reordered; every RegistryWrite is answered by one
// RegistryWritten; messages that were given to an output or an input are never
// changed afterwards, by anybody (machine, shell and views share them).
//
// The same inputs at the same times give the same outputs, byte for byte.
//
// What is durable: agents are admitted, marked unreachable and marked reachable
// again only after the registry said that it is written, and so are frameworks
// before their first SUBSCRIBED. A framework is removed, and a scheduler told that
// it is, only after the registry said so too: a master that has lost its lead
// without knowing it ends nothing that lives on. Everything else is rebuilt from
// what agents and frameworks say when they come back.
package state
