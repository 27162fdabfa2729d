package main

import (
	"math"

	"github.com/mezzo-os/mezzo/sdk/allocator"
	"github.com/mezzo-os/mezzo/sdk/allocator/engine"
	"github.com/mezzo-os/mezzo/sdk/plugin"
)

// version is the plugin's own.
const version = "0.1.0"

// priority is the policy: the higher priority is served first, and equals
// fairly, by weighted dominant share. A role's priority is its block's, else its
// weight; the group of a role's own frameworks, and each framework without a
// block, have 1. All are compared with what stands beside them in the tree, so
// a role's priority counts before those of the roles and frameworks in it.
//
// While a role is below its floor, it is served before those beside it that are
// not; among roles below their floors, the higher priority comes first.
type priority struct {
	roles      map[string]roleConfig
	frameworks map[string]int64
	fair       engine.DominantShare // divided by weight
}

func newPriority(c *config) *priority {
	p := &priority{
		roles: map[string]roleConfig{}, frameworks: map[string]int64{},
		fair: engine.DominantShare{Excluded: c.FairSharingExcluded},
	}
	for _, r := range c.Roles {
		p.roles[r.Name] = r
	}
	for _, f := range c.Frameworks {
		p.frameworks[f.Name] = f.Priority
	}
	return p
}

// A priority of 1 is a thousand classes, since weights have three decimals.
const classesPerPriority = 1000

// floorClasses are more than all priorities have.
const floorClasses = 4 * maxPriority * classesPerPriority

// Rank implements allocator.Policy.
func (p *priority) Rank(c *allocator.Candidate, cluster *allocator.Cluster) allocator.Rank {
	rank := p.fair.Rank(c, cluster)
	rank.Class = -p.level(c)
	if !c.Group && c.Framework == "" && p.belowFloor(c, cluster) {
		rank.Class -= floorClasses
	}
	return rank
}

// level is a candidate's priority in thousandths.
func (p *priority) level(c *allocator.Candidate) int64 {
	of := int64(1)
	switch {
	case c.Framework != "":
		if own, ok := p.frameworks[c.Name]; ok {
			of = own
		}
	case c.Group:
	case p.roles[c.Role].Priority != nil:
		of = *p.roles[c.Role].Priority
	default:
		return int64(math.Round(min(c.Weight, maxPriority) * classesPerPriority))
	}
	return of * classesPerPriority
}

func (p *priority) belowFloor(c *allocator.Candidate, cluster *allocator.Cluster) bool {
	floor := p.roles[c.Role].Floor
	if floor <= 0 {
		return false
	}
	unweighted := *c
	unweighted.Weight = 1
	return p.fair.Rank(&unweighted, cluster).Share < floor
}

func definition() allocator.Definition {
	return allocator.Definition{
		Name:      "priority",
		Version:   version,
		Summary:   "Strict priority: the higher priority is served first, equals fairly, and a role may have a floor.",
		NewConfig: func() any { return new(config) },
		NewPolicy: func(c any) (allocator.Policy, []plugin.Diagnostic) { return newPriority(c.(*config)), nil },
		Preempt:   func(c any) *allocator.Preempt { return c.(*config).Preempt },
	}
}
