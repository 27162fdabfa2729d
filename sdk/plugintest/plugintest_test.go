package plugintest_test

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/mezzo-os/mezzo/sdk/allocator"
	"github.com/mezzo-os/mezzo/sdk/allocator/engine"
	"github.com/mezzo-os/mezzo/sdk/plugin"
	"github.com/mezzo-os/mezzo/sdk/plugintest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The engine of the SDK, with the policy that needs nothing else, keeps every
// rule.
func TestEngine(t *testing.T) {
	plugintest.Allocator(t, plugintest.Local(allocator.Definition{
		Name: "fair", Version: "1.0.0",
		NewPolicy: func(any) (allocator.Policy, []plugin.Diagnostic) { return &engine.DominantShare{}, nil },
	}.Plugin()))
}
