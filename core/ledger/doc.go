// Package ledger keeps the master's books: who holds what on each agent, and
// what is free. Every proposal of an allocator is checked here, so a bad one can
// be unfair and cannot over-commit an agent.
//
// Terms. An agent has a *total*. What of it is in an *offer* is offered; what a
// task, an executor or a pending operation has is in a *use*, and used. The rest
// is *free*. Each offer and each use belongs to a framework, in one role. A
// *holding* is what a framework has in a role on an agent, offered and used. A
// role's *limit* bounds what it and its descendants *consume*: what is reserved
// to them, held by somebody or not, and what they hold besides that.
//
// Life cycle of a resource:
//
//	free ──Offer──▶ offered ──Use──▶ used ──Release──▶ free
//	                   └──Withdraw──▶ free
//
// Convert changes kinds (reserve, unreserve, create, destroy, grow, shrink) of
// what is offered or free, and the agent's total with them. Recover enters a use
// that a re-registering agent reports; that one comes from no offer and may
// exceed the total if the agent was configured anew, in which case free stops at
// zero and Excess says by how much.
//
// Rules that always hold, and that Audit proves:
//   - on each agent, free, offered and used together are its total, unless uses
//     exceed the total; then free is what of the total nobody holds;
//   - shared resources are different: free always has those of the total, offers
//     and uses have copies of them, and no sum counts them as offered or used,
//     only as reserved;
//   - revocable resources count in the sums and not toward limits.
//
// Role names, framework ids and so on are plain texts. Resources are taken with
// or without allocation info, and are kept and returned without it: the role is
// beside them.
//
// The package is pure: no I/O, no clock, no goroutine, and no result depends on
// map order. A Ledger is not safe for concurrent use. Every change costs work in
// proportion to what it touches on one agent, never to the size of the cluster.
//
// Example:
//
//	l := ledger.New()
//	l.SetAgent("A", resource.MustParse("cpus:4;mem:1024"))
//	l.SetAgentActive("A", true)
//	l.SetFramework(ledger.Framework{ID: "F", Roles: []string{"*"}, Active: true})
//	refusal := l.Offer(ledger.Offer{ID: "O", Agent: "A", Framework: "F", Role: "*",
//		Resources: resource.MustParse("cpus:4;mem:1024")})
//	task := ledger.Key{Agent: "A", Framework: "F", Kind: ledger.Task, ID: "T"}
//	err := l.Use([]string{"O"}, task, resource.MustParse("cpus:1;mem:512"))
//	rest, _ := l.Withdraw("O")  // cpus:3;mem:512 are free again
//	use, _ := l.Release(task)   // and all is
package ledger
