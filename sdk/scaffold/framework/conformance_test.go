package main

import (
	"context"
	"testing"

	"github.com/mezzo-os/mezzo/sdk/plugintest"
)

// TestConformance plays a master against the plugin, with the defaults of its
// settings. `mezzo plugin verify` makes the same checks of the binary.
func TestConformance(t *testing.T) {
	plugintest.Framework(t, func(ctx context.Context) (*plugintest.Plugin, error) {
		return plugintest.Local(definition().Plugin(), "")(ctx)
	})
}
