package engine

// Policy says in which order candidates are served: the one thing in which
// allocators differ.
//
// The candidates form a tree. Below the root are the top-level roles; below a
// role are the roles inside it and, as one candidate, the group of the
// frameworks that are subscribed to the role itself; below the group are those
// frameworks. When an agent has something to offer, the engine goes down the
// tree in the order of ranks, and the first framework that may and would take
// it gets all that it may have there.
//
// The engine asks for a candidate's rank again whenever what the candidate
// holds, its weight, or the cluster's total changed; and, where tasks may be
// revoked, what it would be if the candidate held more or less. So Rank must be a
// function of its arguments alone, must not block, and must keep neither of them.
// It is called by one goroutine at a time.
//
// Example: dominant resource fairness is
//
//	func (fair) Rank(c *Candidate, cluster *Cluster) Rank {
//		var share float64
//		for i, held := range c.Held {
//			share = max(share, float64(held)/float64(cluster.Total[i]))
//		}
//		return Rank{Share: share / c.Weight}
//	}
//
// (see DominantShare for the details).
type Policy interface {
	Rank(c *Candidate, cluster *Cluster) Rank
}

// Rank is a place in the order among siblings. Lower classes are served first;
// in a class, lower shares. Equal ranks are served in the order of who was
// made fewer offers in this session; then frameworks that subscribed later
// come first, and roles come in the order of their names.
type Rank struct {
	Class int64
	Share float64
}

// Candidate is a role, the frameworks of a role as a group, or a framework in a
// role.
type Candidate struct {
	// Role is the whole path of the role.
	Role string
	// Group tells the group of a role's own frameworks from the role itself.
	Group bool
	// Framework and Name are the framework's id and name; empty for a role and
	// for a group.
	Framework string
	Name      string
	// Weight is the role's; 1 for groups and frameworks.
	Weight float64
	// Held is what the candidate holds, offers included, and everything below
	// it, in thousandths, by the index of Cluster.Names. It may be shorter than
	// that: the rest is zero.
	Held []int64
}

// Cluster is what all candidates share.
type Cluster struct {
	// Names are the names of scalar resources. Names are only ever added.
	Names []string
	// Total is all there is in the cluster, in thousandths, by the same index.
	Total []int64
}

// DominantShare ranks by weighted dominant share: of all scalar resources, the
// largest share of the cluster that the candidate holds, divided by its weight.
type DominantShare struct {
	// Excluded are the names of resources that do not count.
	Excluded []string

	excluded []bool // by index of Cluster.Names
}

// Rank implements Policy.
func (p *DominantShare) Rank(c *Candidate, cluster *Cluster) Rank {
	for len(p.excluded) < len(cluster.Names) {
		name, out := cluster.Names[len(p.excluded)], false
		for _, x := range p.Excluded {
			out = out || x == name
		}
		p.excluded = append(p.excluded, out)
	}
	share := 0.0
	for i, held := range c.Held {
		if held > 0 && !p.excluded[i] && cluster.Total[i] > 0 {
			// One division, so that equal fractions are equal numbers.
			share = max(share, float64(held)/(float64(cluster.Total[i])*c.Weight))
		}
	}
	return Rank{Share: share}
}
