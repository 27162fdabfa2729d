package state

import (
	"testing"

	"google.golang.org/protobuf/proto"

	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
)

// TestReconciliationTellsHowACommandEnded: a scheduler that subscribes again
// after its task's end may hear of it by reconciliation first.
func TestReconciliationTellsHowACommandEnded(t *testing.T) {
	for _, known := range []*mezzov1.TaskStatus{
		{ExitCode: proto.Int32(7)},
		{ExitSignal: proto.Int32(9)},
		{},
	} {
		answer := &mezzov1.TaskStatus{}
		new(Machine).fillKnown(answer, &task{status: known})
		if answer.GetExitCode() != known.GetExitCode() || answer.GetExitSignal() != known.GetExitSignal() {
			t.Errorf("of %v the answer says %v", known, answer)
		}
		if (answer.ExitCode == nil) != (known.ExitCode == nil) || (answer.ExitSignal == nil) != (known.ExitSignal == nil) {
			t.Errorf("of %v the answer says %v: what is unknown must stay unset", known, answer)
		}
	}
}
