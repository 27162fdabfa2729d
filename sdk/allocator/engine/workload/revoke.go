package workload

import (
	"errors"
	"fmt"
	"time"

	"github.com/mezzo-os/mezzo/sdk/allocator/engine"
	allocatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/allocator/v1"
)

// Revocation is a full cluster, as D's, in which a framework without anything
// is starved, in a role whose guarantee is a tenth of the cluster.
type Revocation struct {
	w     *Workload
	every time.Duration // between two rounds
	kind  RevocationKind
}

// RevocationKind is what a round of Revocation is.
type RevocationKind int

const (
	// Look: nobody has been starved for long enough. It is only looked who is.
	Look RevocationKind = iota + 1
	// Plan: tasks are revoked in every round, more and more.
	Plan
	// Vain: 200 frameworks have been starved for long, and no task may be
	// revoked, since the guarantee of its role would be broken by it.
	Vain
	// Useless: one framework has been starved for long, and wants offers larger
	// than any agent.
	Useless
	// Far: the same, but for the agent that is tried last.
	Far
)

// String returns the kind's name in small letters.
func (k RevocationKind) String() string {
	return [...]string{"", "look", "plan", "vain", "useless", "far"}[k]
}

// NewRevocation sets one up.
func NewRevocation(agents, frameworks int, kind RevocationKind, meter Meter) (*Revocation, error) {
	w := &Workload{Variant: Variant{Preempt: true}, name: D, agents: agents, frameworks: frameworks}
	if err := w.begin(); err != nil {
		return nil, err
	}
	after := 100 * 24 * time.Hour
	if kind != Look {
		after = time.Second
	}
	w.engine.Preempt(engine.Preempt{After: after, GracePeriod: time.Hour})
	if err := w.fill(); err != nil {
		return nil, err
	}
	n := int64(agents)
	w.tell(&allocatorv1.Event{Event: &allocatorv1.Event_Role{Role: &allocatorv1.RoleUpdated{Number: 2, Name: "poor", Weight: 1000,
		Guarantee: &allocatorv1.NamedQuantities{Names: []string{"cpus", "mem"}, Thousandths: []int64{2_400 * n, 409_600 * n}}}}})
	poor := 1
	if kind == Vain {
		poor = 200
		w.tell(&allocatorv1.Event{Event: &allocatorv1.Event_Role{Role: &allocatorv1.RoleUpdated{Number: 1, Name: "*", Weight: 1000,
			Guarantee: &allocatorv1.NamedQuantities{Names: []string{"cpus", "mem"}, Thousandths: []int64{24_000 * n, 4_096_000 * n}}}}})
	}
	for i := range poor {
		f := &allocatorv1.FrameworkUpdated{Number: uint32(frameworks + 1 + i), Id: fmt.Sprint("poor", i), Roles: []uint32{2}, Active: true}
		if kind >= Useless {
			f.Settings = []*allocatorv1.RoleSettings{{Role: 2, MinAllocatable: []*allocatorv1.NamedQuantities{{Names: []string{"cpus"}, Thousandths: []int64{25_000}}}}}
		}
		w.tell(&allocatorv1.Event{Event: &allocatorv1.Event_Framework{Framework: f}})
	}
	if kind == Far {
		// What agent 1 has more than the others is too little by itself.
		for i := range frameworks {
			w.tell(&allocatorv1.Event{Event: &allocatorv1.Event_Suppressed{Suppressed: &allocatorv1.Suppressed{Framework: uint32(i + 1), Roles: []uint32{1}}}})
		}
		total := whole()
		total.Amounts[0] = 26_000
		w.tell(&allocatorv1.Event{Event: &allocatorv1.Event_Agent{Agent: &allocatorv1.AgentUpdated{
			Number: 1, Id: "agent1", Hostname: "agent1", Total: total, Active: true}}})
	}
	if err := w.flush(); err != nil {
		return nil, err
	}
	r := &Revocation{w: w, every: 10 * time.Second, kind: kind}
	if kind == Vain || kind == Useless {
		r.every = time.Hour // each plan in vain doubles the time to the next
	}
	// Agents are looked at for the newcomer, and it is seen that it is starved.
	w.now += r.every
	if len(w.cycle()) > 0 {
		return nil, errors.New("something was decided before anybody is starved")
	}
	w.meter = meter
	return r, nil
}

// Round is one look, which is metered as a cycle.
func (r *Revocation) Round() error {
	revoked, err := r.Look(r.every)
	if err == nil && (r.kind == Plan) != (revoked > 0) {
		err = fmt.Errorf("%d tasks are revoked", revoked)
	}
	return err
}

// Look is one look some time after the one before, and returns how many tasks
// are to end by it.
func (r *Revocation) Look(after time.Duration) (revoked int, err error) {
	r.w.now += after
	decisions := r.w.cycle()
	for _, d := range decisions {
		if d.GetRevoke() == nil {
			return 0, fmt.Errorf("a decision is %v, want a revocation", d)
		}
	}
	return len(decisions), r.w.flush()
}
