// Mezzo-allocator-broken is an allocator that is wrong on purpose: `fault` in
// its config block says how.
package main

import (
	"github.com/mezzo-os/mezzo/sdk/plugin"
	"github.com/mezzo-os/mezzo/sdk/plugintest/broken"
)

func main() { plugin.Serve(broken.Definition()) }
