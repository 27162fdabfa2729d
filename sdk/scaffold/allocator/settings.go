package main

import (
	"fmt"

	"github.com/mezzo-os/mezzo/sdk/plugin"
)

// settings is what may stand in the config block. The tags are its schema: Mezzo
// checks what the operator wrote, converts it, and fills in the defaults.
type settings struct {
	Resource   string      `hcl:"resource" default:"cpus" help:"The resource that is shared: who holds less of it is served first."`
	Frameworks []framework `hcl:"framework,block" help:"A framework whose weight is not 1."`
}

type framework struct {
	Name   string  `hcl:"name,label" help:"The name that the framework subscribes with."`
	Weight float64 `hcl:"weight" required:"true" help:"How much it may hold for each unit that one of weight 1 holds."`
}

// Validate checks what types cannot say. It must have no effect: `mezzo config
// check` calls it too. A diagnostic's path leads to the line that it is about.
func (s *settings) Validate() []plugin.Diagnostic {
	var wrong []plugin.Diagnostic
	if s.Resource == "" {
		wrong = append(wrong, plugin.Errorf("no resource", "resource", "Write the name of a resource, such as cpus or mem."))
	}
	seen := map[string]bool{}
	for i, f := range s.Frameworks {
		if seen[f.Name] {
			wrong = append(wrong, plugin.Errorf("framework twice", fmt.Sprintf("framework.%d", i), "There is another block for %q.", f.Name))
		}
		seen[f.Name] = true
	}
	return wrong
}

// Validate checks one block.
func (f framework) Validate() []plugin.Diagnostic {
	if f.Weight > 0 {
		return nil
	}
	return []plugin.Diagnostic{plugin.Errorf("weight is not positive", "weight", "Write a number above 0; 1 is the weight of all others.")}
}
