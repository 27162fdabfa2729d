package main

import (
	"fmt"
	"strings"

	"github.com/mezzo-os/mezzo/sdk/allocator"
	"github.com/mezzo-os/mezzo/sdk/plugin"
)

// maxPriority bounds priorities on both sides.
const maxPriority = 1_000_000

// config is the allocator's `config` block. It says nothing of weights and
// quota: they are the cluster's, whatever allocates.
type config struct {
	Roles               []roleConfig       `hcl:"role,block" help:"What is special about a role; the label is its whole path."`
	Frameworks          []frameworkConfig  `hcl:"framework,block" help:"What is special about the frameworks of one name, the label."`
	Preempt             *allocator.Preempt `hcl:"preempt,block" help:"When tasks of those who are served later may be ended for those who are served first. Without this block, never."`
	FairSharingExcluded []string           `hcl:"fair_sharing_excluded" help:"Names of scalar resources that do not count as a share, neither among equals nor for a floor, such as scarce gpus."`
}

// roleConfig is one `role` block.
type roleConfig struct {
	Name     string  `hcl:"name,label" help:"The role's whole path."`
	Priority *int64  `hcl:"priority" help:"Its priority among the roles beside it, from -1000000 to 1000000: the higher is served first. By default its weight, which is 1 unless the operator has set another."`
	Floor    float64 `hcl:"floor" default:"0" help:"A share of the cluster, from 0 to 1. While the role holds less than that of every resource, it is served before the roles beside it that are not below theirs, whatever their priorities. Nothing is kept free for it."`
}

// frameworkConfig is one `framework` block.
type frameworkConfig struct {
	Name     string `hcl:"name,label" help:"The framework's name."`
	Priority int64  `hcl:"priority" required:"true" help:"Its priority among the frameworks of its role, from -1000000 to 1000000: the higher is served first. Others have priority 1."`
}

// Validate implements plugin.Validator.
func (c *config) Validate() []plugin.Diagnostic {
	var out []plugin.Diagnostic
	floors := map[string]float64{}
	for i, r := range c.Roles {
		path := fmt.Sprintf("role.%d", i)
		if _, twice := floors[r.Name]; twice {
			out = append(out, plugin.Errorf("role named twice", path, "There is a block for the role %q before this one.", r.Name))
		}
		floors[r.Name] = r.Floor
		if r.Priority != nil {
			out = append(out, validatePriority(path, *r.Priority)...)
		}
		if r.Floor < 0 || r.Floor > 1 {
			out = append(out, plugin.Errorf("no share of a cluster", path+".floor", "%v: want a number from 0 to 1, such as 0.1 for a tenth of the cluster.", r.Floor))
		}
		if r.Name == "" {
			out = append(out, plugin.Errorf("empty role name", path, "Write the role's whole path, such as \"eng/web\"."))
		}
	}
	out = append(out, c.validateFloors(floors)...)
	seen := map[string]bool{}
	for i, f := range c.Frameworks {
		path := fmt.Sprintf("framework.%d", i)
		switch {
		case f.Name == "":
			out = append(out, plugin.Errorf("empty framework name", path, "Write the name that the framework registers with."))
		case seen[f.Name]:
			out = append(out, plugin.Errorf("framework named twice", path, "There is a block for the framework %q before this one.", f.Name))
		}
		seen[f.Name] = true
		out = append(out, validatePriority(path, f.Priority)...)
	}
	for i, name := range c.FairSharingExcluded {
		if strings.TrimSpace(name) == "" {
			out = append(out, plugin.Errorf("empty resource name", fmt.Sprintf("fair_sharing_excluded.%d", i), "Write the name of a scalar resource, such as \"gpus\"."))
		}
	}
	return out
}

func validatePriority(path string, p int64) []plugin.Diagnostic {
	if -maxPriority <= p && p <= maxPriority {
		return nil
	}
	return []plugin.Diagnostic{plugin.Errorf("priority out of range", path+".priority", "%d: want a number from %d to %d.", p, -maxPriority, maxPriority)}
}

// validateFloors warns of floors that cannot be kept: more than there is, and
// one below a role that has less of a floor, which is served only when that
// role is.
func (c *config) validateFloors(floors map[string]float64) []plugin.Diagnostic {
	var out []plugin.Diagnostic
	below := map[string]float64{} // the sum of floors by the role above
	for i, r := range c.Roles {
		if r.Floor <= 0 || r.Floor > 1 {
			continue
		}
		above := ""
		if cut := strings.LastIndexByte(r.Name, '/'); cut > 0 {
			above = r.Name[:cut]
		}
		room := 1.0
		if above != "" {
			room = floors[above]
		}
		before := below[above]
		if below[above] += r.Floor; below[above] <= room+1e-9 || before > room {
			continue
		}
		path := fmt.Sprintf("role.%d.floor", i)
		if above == "" {
			out = append(out, plugin.Warningf("more floor than cluster", path, "With this one, the floors of roles come to more than the whole cluster. Where they cannot all be kept, the higher priority comes first."))
		} else {
			out = append(out, plugin.Warningf("floor above that of the role above", path, "%q is served only when %q is. For this floor to hold against other roles, give %q one of at least %v.", r.Name, above, above, below[above]))
		}
	}
	return out
}
