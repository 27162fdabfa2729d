// Package allocator is what the author of an allocation policy uses, and the
// core's end of the same contract.
//
// An allocator decides who is offered what. It is a plugin: a process of its
// own, that the core tells of every change by Events on one stream, and that
// answers with Decisions. mezzo.allocator.v1 is the contract, and says what the
// words mean.
//
// The core keeps an Encoder for each session. Events go out through
// Encoder.Encode, decisions come in through Encoder.Decision.
package allocator
