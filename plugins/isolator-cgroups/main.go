// Command mezzo-isolator-cgroups is the isolator that runs tasks as processes
// of the host, in control groups and namespaces. Each container is held by a
// process of its own, mezzo-shim, which outlives this one: what the plugin
// knows it can read again from its runtime directory and from the shims.
package main

import "github.com/mezzo-os/mezzo/sdk/isolator"

// version is the plugin's own; a release build sets it.
var version = "0.1.0"

func main() {
	p := newPlugin()
	isolator.Serve(p.definition(), p)
}
