// Mezzo-isolator-plugin-name is an isolator that amends: it takes part in every
// container of its agent, and leaves its process to another isolator.
package main

import (
	"github.com/mezzo-os/mezzo/sdk/isolator"
	"github.com/mezzo-os/mezzo/sdk/metric"
	"github.com/mezzo-os/mezzo/sdk/plugin"
)

// version is the plugin's own; `make VERSION=1.2.3` sets another.
var version = "0.1.0"

func main() { plugin.Serve(definition()) }

// definition is all that Mezzo knows of the plugin. The tests use it too.
func definition() plugin.Definition {
	metrics := metric.NewSet()
	i := &environment{amended: metrics.Counter("containers_amended_total", "Containers that were given the site's variables.")}
	return isolator.Plugin(isolator.Definition{
		Name: "plugin-name", Version: version,
		Summary:   "Gives every container environment variables of the site's.",
		NewConfig: func() any { return new(settings) },
		Configure: i.configure,
		Metrics:   metrics,
	}, i)
}
