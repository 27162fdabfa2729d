// Mezzo-allocator-plugin-name is an allocator: it says in which order frameworks
// are offered what the cluster has.
package main

import (
	"github.com/mezzo-os/mezzo/sdk/allocator"
	"github.com/mezzo-os/mezzo/sdk/plugin"
)

// version is the plugin's own; `make VERSION=1.2.3` sets another.
var version = "0.1.0"

func main() { allocator.Serve(definition()) }

// definition is all that Mezzo knows of the plugin. The tests use it too.
func definition() allocator.Definition {
	return allocator.Definition{
		Name: "plugin-name", Version: version,
		Summary:   "Shares one resource fairly, by the weights of roles and frameworks.",
		NewConfig: func() any { return new(settings) },
		NewPolicy: func(config any) (allocator.Policy, []plugin.Diagnostic) {
			return newPolicy(config.(*settings)), nil
		},
	}
}
