package master

import (
	"testing"

	"github.com/mezzo-os/mezzo/core/master/state"
)

// TestNothingIsTracedAtNoCost is that without a tracer the loop drives the machine
// itself.
func TestNothingIsTracedAtNoCost(t *testing.T) {
	m := &state.Machine{}
	if got := withTraces(m, nil); got != machine(m) {
		t.Errorf("the loop drives a %T", got)
	}
}
