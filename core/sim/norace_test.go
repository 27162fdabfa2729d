//go:build !race

package sim

// How much the tests try when they are not told.
const (
	defaultSeeds  = 300
	defaultAgents = 300 // of TestScale
	shrinkRuns    = 25
)
