package plugin_test

import (
	"testing"

	"github.com/mezzo-os/mezzo/sdk/plugintest"
)

func TestConformance(t *testing.T) {
	plugintest.Allocator(t, plugintest.Local(favouritesDefinition().Plugin(), `{"first":["billing"]}`))
}
