package standalone_test

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/mezzo-os/mezzo/core/election"
	"github.com/mezzo-os/mezzo/core/election/electiontest"
	"github.com/mezzo-os/mezzo/core/election/standalone"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// There is one process: whoever joins joins that.
func TestConformance(t *testing.T) {
	electiontest.Run(t, func(*testing.T) func() election.Election {
		e := standalone.New()
		return func() election.Election { return e }
	})
}
