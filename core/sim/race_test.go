//go:build race

package sim

// How much the tests try when they are not told.
const (
	defaultSeeds  = 30
	defaultAgents = 100 // of TestScale
	shrinkRuns    = 8
)
