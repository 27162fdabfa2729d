// Mezzo-framework-plugin-name is a framework within an adapter: it runs commands
// that it is given over HTTP, on whatever agent has room.
package main

import (
	"github.com/mezzo-os/mezzo/sdk/framework"
	"github.com/mezzo-os/mezzo/sdk/plugin"
)

// version is the plugin's own; `make VERSION=1.2.3` sets another.
var version = "0.1.0"

func main() { framework.Serve(definition()) }

// definition is all that Mezzo knows of the plugin. The tests use it too. An
// adapter serves once, so each instance has a definition of its own.
func definition() framework.Definition {
	return framework.Definition{
		Name: "plugin-name", Version: version,
		Summary:   "Runs commands that it is given over HTTP.",
		NewConfig: func() any { return new(settings) },
		New: func(config any, env plugin.Environment) (framework.Adapter, []plugin.Diagnostic) {
			return newAdapter(config.(*settings), env.Logger)
		},
	}
}
