package state_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/mezzo-os/mezzo/core/master/state"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
	schedulerv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1/scheduler"
)

// What the registry could not hold is refused; it would be tried for ever, and
// all that is to be written after it would wait.
func TestWhatIsTooLargeForTheRegistryIsRefused(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	m, err := state.New(state.Config{MasterID: "m", Epoch: 1}, state.Recovered{}, now)
	if err != nil {
		t.Fatal(err)
	}
	step := func(in state.Input) (said string, wrote bool) {
		for _, out := range m.Step(now, in) {
			switch out := out.(type) {
			case state.RegistryWrite:
				wrote = true
			case state.Reply:
				if out.Err != nil {
					said = out.Err.Message
				}
			case state.SendScheduler:
				said = out.Event.GetError().GetMessage()
			}
		}
		return said, wrote
	}
	var machines []state.MachineID
	for i := range 20_000 {
		machines = append(machines, state.MachineID{Hostname: fmt.Sprintf("a-machine-of-a-large-cluster-%d", i)})
	}
	said, wrote := step(state.SetSchedule{Request: 1, Windows: []state.Window{{Machines: machines, Start: now}}})
	if wrote || !strings.Contains(said, "the most is") {
		t.Errorf("a schedule of 20,000 machines: written %v, answered %q", wrote, said)
	}
	info := &mezzov1.FrameworkInfo{User: proto.String("root"), Name: proto.String(strings.Repeat("x", 300<<10))}
	said, wrote = step(state.Subscribe{Stream: "s", Call: &schedulerv1.Call_Subscribe{FrameworkInfo: info}})
	if wrote || !strings.Contains(said, "the most is") {
		t.Errorf("a FrameworkInfo of 300 KiB: written %v, answered %q", wrote, said)
	}
}
