package main

import (
	"slices"

	"github.com/mezzo-os/mezzo/sdk/allocator"
)

// policy serves first who holds the least of one resource for his weight.
//
// The engine of the SDK does everything else: the mirror of the cluster, filters,
// quota, reservations, batching, and the explanations of `mezzo why`.
type policy struct {
	resource string
	weights  map[string]float64 // by framework name
}

func newPolicy(s *settings) *policy {
	p := &policy{resource: s.Resource, weights: map[string]float64{}}
	for _, f := range s.Frameworks {
		p.weights[f.Name] = f.Weight
	}
	return p
}

// Rank is a candidate's place among its siblings: lower classes are served first,
// in a class lower shares. A candidate is a role, the group of a role's own
// frameworks, or a framework. Rank is asked again whenever what the candidate
// holds, its weight, or the cluster's total changes, so it must be a function of
// its arguments alone, and must not block.
func (p *policy) Rank(c *allocator.Candidate, cluster *allocator.Cluster) allocator.Rank {
	i := slices.Index(cluster.Names, p.resource)
	if i < 0 || i >= len(c.Held) || cluster.Total[i] == 0 {
		return allocator.Rank{} // it holds none of it: nobody is before it
	}
	weight := c.Weight // of a role; 1 for all others
	if own, set := p.weights[c.Name]; set && c.Framework != "" {
		weight = own
	}
	return allocator.Rank{Share: float64(c.Held[i]) / (float64(cluster.Total[i]) * weight)}
}
