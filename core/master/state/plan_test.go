package state_test

import (
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/mezzo-os/mezzo/core/master/state"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
)

// Agents go by the type of a health check: the master sets it where a framework of
// the older kind leaves it out, and does not touch what the framework gave.
func TestAgentsAreToldTheTypeOfAHealthCheck(t *testing.T) {
	for _, test := range []struct {
		given *mezzov1.HealthCheck
		want  mezzov1.HealthCheck_Type
	}{
		{&mezzov1.HealthCheck{Command: &mezzov1.CommandInfo{}}, mezzov1.HealthCheck_COMMAND},
		{&mezzov1.HealthCheck{Http: &mezzov1.HealthCheck_HTTPCheckInfo{}}, mezzov1.HealthCheck_HTTP},
		{&mezzov1.HealthCheck{Type: mezzov1.HealthCheck_TCP.Enum(), Tcp: &mezzov1.HealthCheck_TCPCheckInfo{}}, mezzov1.HealthCheck_TCP},
	} {
		before := proto.CloneOf(test.given)
		got := state.CompleteTask(&mezzov1.TaskInfo{HealthCheck: test.given}).GetHealthCheck()
		if got.Type == nil || got.GetType() != test.want {
			t.Errorf("%v: the type is %v, want %v", test.given, got.Type, test.want)
		}
		if !proto.Equal(before, test.given) {
			t.Errorf("%v was changed to %v", before, test.given)
		}
	}
	if got := state.CompleteTask(&mezzov1.TaskInfo{}).GetHealthCheck(); got != nil {
		t.Errorf("a task without a health check got %v", got)
	}
}
