// Package plugintest is the conformance suite: it plays the host and the core
// against a plugin, whatever the plugin is written in, and says where the
// plugin keeps the contract of its kind and where it does not.
//
// A check is one rule of the contract. It has a name, a sentence, an outcome,
// and, when it failed, the evidence: what the plugin did, and the events that
// led to it. A check that could not be made, because something before it went
// wrong or because the plugin does not serve that part, is skipped and says why.
//
// An author's own test, which serves the plugin in the test's process, over a
// real connection:
//
//	func TestConformance(t *testing.T) {
//		plugintest.Allocator(t, plugintest.Local(definition().Plugin(), ""))
//	}
//
// The same suite runs against a binary by `mezzo plugin verify BINARY`.
//
// The suite is a core in miniature. It keeps its own books of what every agent
// has and who holds it, judges every decision against them as they were when
// the plugin made it (events_seen says that), carries out what is right and
// refuses what is not, as a core does. What the contract leaves to policy, such
// as whose turn it is, it does not judge.
package plugintest
