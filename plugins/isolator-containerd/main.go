// Command mezzo-isolator-containerd is the isolator that runs tasks as
// containerd containers, from images. Each container is held by a process of
// its own, mezzo-shim, which outlives this one and containerd, and speaks with
// mezzo-init, the first process in the container.
package main

import (
	"github.com/mezzo-os/mezzo/sdk/isolator"
)

// version is the plugin's own; a release build sets it.
var version = "0.1.0"

func main() {
	p := newPlugin()
	isolator.Serve(p.definition(), p)
}
