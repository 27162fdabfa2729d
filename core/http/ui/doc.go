// Package ui is the web UI of a master and what it alone needs of the HTTP
// address: the cluster as a stream of events, orders, and what lies on agents.
//
//	GET  /ui/…                     the pages, which are in the binary
//	GET  /v1/watch                 Operator.Watch as server-sent events, batched
//	GET  /v1/history               what was allocated and offered, over the last hour
//	GET  /v1/agent/ID/state        AgentOperator.GetState of an agent
//	GET  /v1/agent/ID/usage        AgentOperator.Usage
//	GET  /v1/agent/ID/files?path=  a directory of a sandbox
//	GET  /v1/agent/ID/read         a part of a file, as bytes
//	GET  /v1/agent/ID/download     a whole file
//	POST /v1/order/VERB            an order, as JSON
//
// A browser reaches the master alone: what is on agents comes through it. The
// caller's principal is asked for at the master, and the master's at the agent.
package ui
