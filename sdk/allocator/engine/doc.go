// Package engine is what every allocator needs, whatever its policy: a mirror
// of the cluster that is fed by events, and a cycle that turns what is free
// into offers. A Policy says only in which order candidates are served.
//
// The engine is pure: the time is an argument, it starts no goroutine, does no
// I/O, and its random choices come from the session's seed. The same inputs
// give the same decisions. It is for one goroutine at a time.
//
// Terms. A *client* is a framework in one of its roles: what is offered, held,
// filtered and suppressed is always a client's. An agent is *dirty* when
// something about it changed that may lead to an offer; a cycle looks at dirty
// agents only. An agent is *idle* when enough of it is free to be worth an
// offer.
//
// What it costs. A cycle is proportional to the dirty agents. An agent
// remembers which clients were tried in vain for what is free on it, so that
// neither a filter nor anything else is looked at twice for the same reason;
// what could change the answer (more is free, a filter ends, a revive) clears
// the memory of just that client or just that agent. Shares are kept up to
// date by every event, and an offer moves one client in its role's order.
//
// Life cycle:
//
//	e := engine.New(begin, policy)
//	err := e.Apply(now, batch)    // for each batch; an error ends the session
//	decisions, report := e.Run(now)
//	at, ok := e.Next()            // when Run has something to do again
//
// Times are durations since any fixed moment, and never go back.
package engine
