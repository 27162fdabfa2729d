// Command mezzo-framework-mesos is the framework adapter "mesos": it speaks the
// HTTP APIs of Mesos 1.x, so that unmodified Mesos frameworks, executors and
// tools work with Mezzo. One runs at each master, by default at port 5050, and
// one at each agent, by default at port 5051.
//
//	framework "mesos" {
//	  config {
//	    listen = "10.0.0.1:5050"
//	  }
//	}
package main

import (
	"github.com/mezzo-os/mezzo/sdk/framework"
	"github.com/mezzo-os/mezzo/sdk/plugin"
)

// version is the plugin's own; a release build sets it.
var version = "0.1.0"

func main() { framework.Serve(definition()) }

func definition() framework.Definition {
	own := newNumbers()
	return framework.Definition{
		Name: "mesos", Version: version, Summary: "The HTTP APIs of Mesos 1.x, for unmodified frameworks, executors and tools.",
		NewConfig: func() any { return new(settings) },
		New: func(config any, _ plugin.Environment) (framework.Adapter, []plugin.Diagnostic) {
			return &adapter{settings: config.(*settings), numbers: own}, nil
		},
		Metrics: own.set,
	}
}
