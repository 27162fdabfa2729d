package main

import (
	"testing"

	"github.com/mezzo-os/mezzo/sdk/plugintest"
)

// TestConformance plays an agent against the plugin, with these settings. What is
// about making processes is skipped. `mezzo plugin verify` makes the same checks
// of the binary.
func TestConformance(t *testing.T) {
	plugintest.Isolator(t, plugintest.Local(definition(), `{"variables":{"SITE":"lisbon"}}`))
}
