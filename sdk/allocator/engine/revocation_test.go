package engine_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/mezzo-os/mezzo/sdk/allocator"
	allocatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/allocator/v1"
)

// How long a role was starved under another session counts.
func TestStarvationIsCarriedOver(t *testing.T) {
	r := full(t, patient())
	fresh := newRunning(t, defaults(), patient(),
		&allocator.RoleUpdated{Name: "poor", Starved: 119 * time.Second},
		&allocator.FrameworkUpdated{ID: "rich", Name: "rich", Roles: []string{"rich"}, Active: true},
		&allocator.FrameworkUpdated{ID: "poor", Name: "poor", Roles: []string{"poor"}, Active: true},
		r.State("a"), r.State("b"))
	for n := uint64(1); n <= 8; n++ {
		task := r.Tasks[n]
		fresh.tell(&allocator.TaskStarted{Number: n, Agent: task.Agent, Framework: task.Framework, Role: task.Role, Resources: task.Resources, Started: time.Unix(int64(n), 0)})
	}
	fresh.pass(10 * time.Second)
	fresh.wantRevoked(8, 7, 6, 5)
}

// What another session has revoked counts as done, for whom it was.
func TestRevocationsAreCarriedOver(t *testing.T) {
	for _, test := range []struct {
		name string
		to   string // of the two revocations under way
		want []uint64
	}{
		{"for the starved", "poor", []uint64{6, 5}},
		{"for somebody who is gone", "", []uint64{6, 5, 4}},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := full(t, patient())
			fresh := newRunning(t, defaults(), patient(),
				&allocator.RoleUpdated{Name: "poor", Starved: 119 * time.Second},
				&allocator.FrameworkUpdated{ID: "rich", Name: "rich", Roles: []string{"rich"}, Active: true},
				&allocator.FrameworkUpdated{ID: "poor", Name: "poor", Roles: []string{"poor"}, Active: true},
				r.State("a"), r.State("b"))
			for n := uint64(1); n <= 8; n++ {
				task := r.Tasks[n]
				started := &allocator.TaskStarted{Number: n, Agent: task.Agent, Framework: task.Framework, Role: task.Role, Resources: task.Resources, Started: time.Unix(int64(n), 0)}
				fresh.tell(started)
				if n > 6 { // told again
					again := *started
					again.Revocation = &allocator.Revocation{Remaining: 20 * time.Second, Framework: test.to, Role: test.to}
					fresh.tell(&again)
					fresh.due[n] = fresh.now + 20*time.Second
				}
			}
			fresh.wants("poor", "poor", "cpus:1", 100)
			fresh.pass(10 * time.Second)
			fresh.wantRevoked(test.want...)
			fresh.pass(time.Hour)
			if fresh.cpus("poor") != 4 && test.to != "" {
				t.Errorf("poor has %v CPUs, want 4", fresh.cpus("poor"))
			}
		})
	}
}

// What a plan's tasks leave as they end, one after the other, is kept until the
// last has, and for whom it was taken.
func TestProceedsAreKept(t *testing.T) {
	setup := func(t *testing.T) *running {
		r := full(t, patient())
		r.count["rich"] = 1000 // takes back what it is offered
		r.wants("poor", "poor", "cpus:3", 1)
		r.polite = map[string]bool{"poor": true}
		r.tell(&allocator.Requested{Framework: "poor", Agent: "a", Resources: r.parse("cpus:3").Quantities()})
		r.early = func(task uint64) time.Duration { return time.Duration(task) * 5 * time.Second }
		r.pass(2*time.Minute + 20*time.Second)
		r.wantRevoked(4, 3, 2)
		return r
	}
	t.Run("for one who takes it", func(t *testing.T) {
		r := setup(t)
		r.pass(30 * time.Second)
		r.wantRevoked(4, 3, 2)
		if r.cpus("poor") != 3 || r.cpus("rich") != 5 {
			t.Errorf("poor has %v, rich %v CPUs, want 3 and 5", r.cpus("poor"), r.cpus("rich"))
		}
	})
	t.Run("and the others are told so", func(t *testing.T) {
		r := setup(t)
		if free := r.Free("a"); free.Get("cpus") == 0 {
			t.Fatal("no task has ended yet")
		}
		answer := r.engine.Explain(r.now, &allocatorv1.ExplainRequest{FrameworkId: "rich"})
		if text := answer.String(); !strings.Contains(text, "is kept for it for a moment") {
			t.Errorf("rich is told %s", text)
		}
		poor := r.engine.Explain(r.now, &allocatorv1.ExplainRequest{FrameworkId: "poor"}).GetRoles()[0]
		if poor.GetRevoking() != uint32(len(r.due)) || poor.GetRevoking() == 0 || poor.GetRequested()[0].GetThousandths()[0] != 3000 ||
			len(poor.GetMinAllocatable()) == 0 {
			t.Errorf("poor is told %v, while %d tasks are ending", poor, len(r.due))
		}
	})
	t.Run("no longer than it may take", func(t *testing.T) {
		r := setup(t)
		clear(r.due) // the last never end
		r.pass(50 * time.Second)
		if free := r.Free("a"); free.Get("cpus") != 0 {
			t.Errorf("%v is free", free)
		}
	})
	t.Run("until it wants nothing", func(t *testing.T) {
		r := setup(t)
		r.tell(&allocator.Suppressed{Framework: "poor", Roles: []string{"poor"}})
		r.pass(40 * time.Second)
		if r.cpus("rich") != 8 {
			t.Errorf("rich has %v CPUs, want all 8 again", r.cpus("rich"))
		}
	})
}

// A framework that declines what was revoked for it does not get more for long,
// and in the end hardly any; one that starts tasks again does.
func TestRevokingInVainIsGivenUp(t *testing.T) {
	r := full(t, patient())
	r.wants("poor", "poor", "cpus:1", 0) // declines everything
	r.count["rich"] = 1000               // takes it all back
	r.pass(10 * time.Minute)
	first := len(r.revoked)
	if first == 0 {
		t.Fatal("nothing was revoked at all")
	}
	r.pass(10 * time.Hour)
	if n := len(r.revoked); n > 64 {
		t.Errorf("%d tasks were revoked in ten hours for a framework that launches none", n)
	}
	before := len(r.revoked)
	r.count["poor"] = 100
	r.pass(6 * time.Hour)
	if r.cpus("poor") != 4 {
		t.Errorf("poor has %v CPUs, want 4, %d revocations later", r.cpus("poor"), len(r.revoked)-before)
	}
}

func TestRefusedRevocationsBackOff(t *testing.T) {
	for _, test := range []struct {
		reason allocator.RefusalReason
		most   int
	}{
		{allocator.RefusedRevocationDisabled, 5 * 4},
		{allocator.RefusedRevocationBounds, 8 * 4},
		{allocator.RefusedRevocationGuarantee, 8 * 4},
		{allocator.RefusedRevocationTask, 2 * 8 * 4}, // on each of two agents
		{allocator.RefusedAgentInactive, 2 * 8 * 4},
	} {
		t.Run(test.reason.String(), func(t *testing.T) {
			r := full(t, patient())
			r.refuseOther = test.reason
			r.wants("poor", "poor", "cpus:1", 100)
			r.pass(20 * time.Minute)
			if n := len(r.revoked); n < 8 || n > test.most {
				t.Errorf("%d revocations proposed in twenty minutes, want at most %d, and more than one round", n, test.most)
			}
			r.refuseOther = 0
			r.revoked = nil
			r.pass(3 * time.Hour)
			r.wantRevoked(8, 7, 6, 5)
		})
	}
}

// What the core refuses for one role or one agent does not keep the starved from
// the tasks of others.
func TestRefusedRevocationsConcernOnlyTheirOwn(t *testing.T) {
	for _, test := range []struct {
		name   string
		reason allocator.RefusalReason
		refuse func(allocator.TaskStarted) bool
	}{
		{"role", allocator.RefusedRevocationGuarantee, func(t allocator.TaskStarted) bool { return t.Role == "young" }},
		{"agent", allocator.RefusedAgentInactive, func(t allocator.TaskStarted) bool { return t.Agent == "b" }},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := newRunning(t, defaults(), patient())
			r.wants("old", "old", "cpus:1", 4)
			r.agent("a", "cpus:4")
			r.pass(time.Second)
			r.wants("young", "young", "cpus:1", 4)
			r.agent("b", "cpus:4")
			r.pass(time.Second)
			r.refuseTask = func(task uint64) allocator.RefusalReason {
				if test.refuse(r.Tasks[task].TaskStarted) {
					return test.reason
				}
				return 0
			}
			r.wants("poor", "poor", "cpus:1", 100)
			r.pass(2*time.Minute + 12*time.Second)
			r.wantRevoked(8, 7, 4, 3) // the last at the next look
			r.pass(time.Minute)
			if r.cpus("poor") == 0 {
				t.Error("poor has nothing")
			}
		})
	}
}

// A revocation of which nothing is heard is forgotten, and may be made again.
func TestLostRevocations(t *testing.T) {
	r := full(t, patient())
	r.wants("poor", "poor", "cpus:1", 100)
	r.until(3 * time.Minute)
	r.wantRevoked(8, 7, 6, 5)
	r.until(30 * time.Second)
	r.wantRevoked(8, 7, 6, 5)
	for range 10 {
		for _, t := range r.Tasks {
			t.Revocation = nil
		}
		r.until(time.Minute)
	}
	if len(r.revoked) < 8 {
		t.Errorf("%d revocations, want those that were lost made again", len(r.revoked))
	}
}

// What is revoked is what a framework has requested, where it has.
func TestRequestsSayWhatIsNeeded(t *testing.T) {
	r := full(t, patient())
	r.wants("poor", "poor", "cpus:3", 1)
	r.polite = map[string]bool{"poor": true}
	r.tell(&allocator.Requested{Framework: "poor", Agent: "a", Resources: r.parse("cpus:3").Quantities()})
	r.pass(3 * time.Minute)
	r.wantRevoked(4, 3, 2)
	if r.cpus("poor") != 3 {
		t.Errorf("poor has %v CPUs, want 3", r.cpus("poor"))
	}
}

// What is under way for one framework of a role does not make another of it try
// again as if it had been served: a share that has no room for one more task of
// either is tried ever less often.
func TestVainRevocationsForNeighboursGrowRare(t *testing.T) {
	r := newRunning(t, defaults(), patient())
	for i, cpus := range []int{4, 12, 6, 5, 8} {
		r.agent(fmt.Sprint("agent", i), fmt.Sprintf("cpus:%d", cpus))
	}
	r.wants("small", "a", "cpus:1", 1000)
	r.pass(7 * time.Second)
	r.wants("large", "c", "cpus:3", 1000)
	r.pass(30 * time.Second)
	r.wants("neighbour", "c", "cpus:3", 1000)
	r.pass(2 * time.Hour)
	settled := len(r.revoked)
	r.pass(6 * time.Hour)
	if n := len(r.revoked) - settled; n > 4 {
		t.Errorf("%d tasks were revoked in vain in six hours", n)
	}
}
