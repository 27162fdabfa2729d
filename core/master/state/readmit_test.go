package state_test

import (
	"testing"
	"time"

	"github.com/mezzo-os/mezzo/core/master/state"
	"github.com/mezzo-os/mezzo/sdk/resource"

	linkv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/link/v1"
)

// TestAgentThatLeavesWhileItIsReadmitted is shown as what it is: awaited again,
// and no longer unreachable.
func TestAgentThatLeavesWhileItIsReadmitted(t *testing.T) {
	m, err := state.New(state.Config{MasterID: "m"}, state.Recovered{}, epoch)
	if err != nil {
		t.Fatal(err)
	}
	now, shown, write := epoch, state.AgentState(""), uint64(0)
	step := func(after time.Duration, in state.Input) {
		now = now.Add(after)
		for _, out := range m.Step(now, in) {
			switch out := out.(type) {
			case state.RegistryWrite:
				write = out.ID
			case state.Publish:
				for _, a := range out.Agents {
					shown = a.State
				}
			}
		}
	}
	written := func() {
		id := write
		write = 0
		step(time.Second, state.RegistryWritten{ID: id})
	}
	arrive := func(link state.Link, id string) {
		step(time.Second, state.LinkOpened{Link: link})
		r := register(id, "h", resource.MustParse("cpus:1"), nil)
		step(time.Second, message(link, &linkv1.AgentMessage{Message: &linkv1.AgentMessage_Register{Register: r}}))
	}
	arrive(1, "")
	written()
	step(time.Second, state.LinkClosed{Link: 1})
	for i := 0; write == 0 && i < 100; i++ {
		step(time.Minute, state.Tick{})
	}
	written()
	if shown != state.AgentUnreachable {
		t.Fatalf("the agent that was given up is shown as %q", shown)
	}
	arrive(2, "m-S0")
	step(time.Second, state.LinkClosed{Link: 2})
	written()
	if shown != state.AgentDisconnected {
		t.Errorf("the agent that left while it was readmitted is shown as %q", shown)
	}
}
