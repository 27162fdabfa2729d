package sim

import (
	"testing"

	"github.com/mezzo-os/mezzo/core/registry"
	"github.com/mezzo-os/mezzo/core/registry/registrytest"
)

// TestStore: what masters write to in a simulated world keeps the contract that
// the real registries keep.
func TestStore(t *testing.T) {
	registrytest.Run(t, func(*testing.T) func() registry.Registry {
		s := newStore()
		return func() registry.Registry { return s.open() }
	})
}
