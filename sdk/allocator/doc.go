// Package allocator is what the author of an allocation policy uses, and the
// core's end of the same contract.
//
// An allocator decides who is offered what. It is a plugin: a process of its
// own, that the core tells of every change by Events on one stream, and that
// answers with Decisions. mezzo.allocator.v1 is the contract, and says what the
// words mean.
//
// An author writes a Policy and calls Serve; the engine of this SDK does the
// rest. Example, a whole plugin that serves frameworks by name:
//
//	type byName struct{}
//
//	func (byName) Rank(c *allocator.Candidate, _ *allocator.Cluster) allocator.Rank {
//		if c.Name == "important" {
//			return allocator.Rank{}
//		}
//		return allocator.Rank{Class: 1}
//	}
//
//	func main() {
//		allocator.Serve(allocator.Definition{
//			Name: "by-name", Version: "1.0.0", Summary: "The framework called important comes first.",
//			NewPolicy: func(any) (allocator.Policy, []plugin.Diagnostic) { return byName{}, nil },
//		})
//	}
//
// An author for whom the engine is not right implements allocatorv1.AllocatorServer
// and gives it to plugin.Serve, in Definition.Register.
//
// The core keeps an Encoder for each session. Events go out through
// Encoder.Encode, decisions come in through Encoder.Decision.
package allocator
