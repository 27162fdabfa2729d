package mirror

import (
	"sync"

	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
	"github.com/mezzo-os/mezzo/sdk/resource"
)

// Holdings are what is held, summed up, with the roles that hold it.
type Holdings struct {
	// ByAgent and ByFramework are by id; ByRole by name, without the roles below.
	ByAgent, ByFramework, ByRole map[string]resource.Resources
	// Offered is what is offered, likewise.
	OfferedOn, OfferedTo, OfferedIn map[string]resource.Resources
}

// holdings are made when somebody asks, once a snapshot.
type holdings struct {
	once sync.Once
	sums Holdings
}

// Holdings sums up what tasks and executors hold and what is offered. It costs in
// proportion to the cluster, the first time.
func (s *Snapshot) Holdings() *Holdings {
	s.held.once.Do(func() { s.held.sums = s.sumUp() })
	return &s.held.sums
}

// tally collects before it sums up: adding many short lists to a long one, each
// time anew, would cost the square.
type tally map[string][]resource.Resources

func (t tally) add(key string, r resource.Resources) { t[key] = append(t[key], r) }

func (t tally) sums() map[string]resource.Resources {
	out := make(map[string]resource.Resources, len(t))
	for key, list := range t {
		for len(list) > 1 { // in pairs
			half := (len(list) + 1) / 2
			for i := half; i < len(list); i++ {
				list[i-half] = list[i-half].Add(list[i])
			}
			list = list[:half]
		}
		out[key] = list[0]
	}
	return out
}

func (s *Snapshot) sumUp() Holdings {
	agents, frameworks, roles := tally{}, tally{}, tally{}
	on, to, in := tally{}, tally{}, tally{}
	known := map[*mezzov1.Resource]resource.Resources{}
	read := func(list []*mezzov1.Resource) resource.Resources {
		if len(list) == 0 {
			return nil
		}
		if r, there := known[list[0]]; there {
			return r
		}
		r, err := resource.FromProto(list)
		if err != nil {
			return nil // the core has checked them
		}
		known[list[0]] = r
		return r
	}
	for _, f := range s.Frameworks {
		hold := func(agent, role string, list []*mezzov1.Resource) {
			if r := read(list); !r.IsEmpty() {
				agents.add(agent, r)
				frameworks.add(f.ID(), r)
				roles.add(role, r)
			}
		}
		for _, t := range f.Tasks {
			if Holds(t) {
				hold(t.GetTask().GetAgentId().GetValue(), t.GetRole(), t.GetTask().GetResources())
			}
		}
		for _, e := range f.Executors {
			hold(e.GetAgentId(), e.GetRole(), e.GetResources())
		}
		for _, o := range f.Offers {
			if r := read(o.GetResources()); !r.IsEmpty() {
				on.add(o.GetAgentId().GetValue(), r)
				to.add(f.ID(), r)
				in.add(o.GetAllocationInfo().GetRole(), r)
			}
		}
	}
	return Holdings{
		ByAgent: agents.sums(), ByFramework: frameworks.sums(), ByRole: roles.sums(),
		OfferedOn: on.sums(), OfferedTo: to.sums(), OfferedIn: in.sums(),
	}
}
