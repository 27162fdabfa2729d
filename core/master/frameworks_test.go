package master

import (
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/mezzo-os/mezzo/core/master/state"
	"github.com/mezzo-os/mezzo/core/metric"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
	schedulerv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1/scheduler"
)

// A framework's numbers are there while it lives, and go with it.
func TestFrameworksAreCountedWhileTheyLive(t *testing.T) {
	m := newMirror()
	x := newMetrics(m, func() int { return 0 }, func() bool { return true }, func() bool { return false }, nil)
	numbers := func() map[string]float64 {
		t.Helper()
		list, err := metric.Messages(x.registry)
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]float64{}
		for _, v := range list {
			if v.Labels["framework"] == "f" {
				got[v.Name+" "+v.Labels["type"]+v.Labels["outcome"]+v.Labels["state"]] = v.Value
			}
		}
		return got
	}
	frameworks := func(s state.FrameworkState) *state.Publish {
		return &state.Publish{Frameworks: []*state.FrameworkView{{ID: "f", State: s}}}
	}
	m.tallies.published(frameworks(state.FrameworkActive))
	tally := m.tallies.begin("f")
	offers, err := proto.MarshalOptions{AllowPartial: true}.Marshal(&schedulerv1.Event{Offers: &schedulerv1.Event_Offers{Offers: make([]*mezzov1.Offer, 3)}})
	if err != nil {
		t.Fatal(err)
	}
	tally.event(state.SendOffers{Offers: offers}.Event())
	tally.event(&schedulerv1.Event{Type: schedulerv1.Event_RESCIND.Enum()})
	tally.event(&schedulerv1.Event{Type: schedulerv1.Event_UPDATE.Enum(), Update: &schedulerv1.Event_Update{Status: &mezzov1.TaskStatus{
		State: mezzov1.TaskState_TASK_ERROR.Enum(), Source: mezzov1.TaskStatus_SOURCE_MASTER.Enum(), Reason: mezzov1.TaskStatus_REASON_TASK_INVALID.Enum(),
	}}})
	ids := []*mezzov1.OfferID{{}, {}}
	tally.call(&schedulerv1.Call{Type: schedulerv1.Call_ACCEPT.Enum(), Accept: &schedulerv1.Call_Accept{
		OfferIds: ids, Operations: []*mezzov1.Offer_Operation{{Type: mezzov1.Offer_Operation_RESERVE.Enum()}, {Type: mezzov1.Offer_Operation_LAUNCH.Enum()}},
	}})
	tally.call(&schedulerv1.Call{Type: schedulerv1.Call_DECLINE.Enum(), Decline: &schedulerv1.Call_Decline{OfferIds: ids[:1]}})
	tally.call(&schedulerv1.Call{Type: schedulerv1.Call_Type(1000).Enum()}) // a newer client's
	m.tallies.find("nobody").call(&schedulerv1.Call{})
	for range 2 { // the second is its acknowledgement
		m.apply(&change{publish: state.Publish{Tasks: []*state.TaskView{{
			TaskKey: state.TaskKey{FrameworkID: "f", TaskID: "t"}, State: mezzov1.TaskState_TASK_FINISHED,
		}}}})
	}
	got := numbers()
	for name, want := range map[string]float64{
		"calls_total accept": 1, "calls_total decline": 1, "events_total offers": 1, "events_total update": 1,
		"operations_total reserve": 1, "operations_total launch": 1,
		"offers_total sent": 3, "offers_total accepted": 2, "offers_total declined": 1, "offers_total rescinded": 1,
		"tasks_ended_total task_error": 1, "tasks_ended_total task_finished": 1,
	} {
		if v := got["mezzo_master_framework_"+name]; v != want {
			t.Errorf("%s is %v, want %v", name, v, want)
		}
	}
	m.tallies.published(frameworks(state.FrameworkCompleted))
	if got := numbers(); len(got) != 0 {
		t.Errorf("after it is completed there are %v", got)
	}
}
