// Package workload drives the allocation engine through the workloads by which
// Mesos's own allocator was measured, so that the figures can stand beside each
// other: agents of 24 cpus, 4096 mem, 4096 disk and ports 31000-32000,
// frameworks in the one role "*", no quota. It is pure: the caller measures.
//
//	w, err := workload.New("d", workload.Variant{}, 10_000, 200, workload.Meter{Cycle: timed})
//	for range 9 {
//		err = w.Round()
//	}
package workload

import (
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/mezzo-os/mezzo/sdk/allocator/engine"
	allocatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/allocator/v1"
)

// The workloads' names, and what a round of each is.
const (
	// A1: agents are added, and there is no framework.
	A1 = "a1"
	// A2: agents are added while frameworks wait for offers, until all are
	// offered.
	A2 = "a2"
	// Decline: every agent is offered, and declined with a long filter; what
	// the declining costs.
	Decline = "decline"
	// B: a cycle with everything free, one offer an agent.
	B = "b"
	// C1: the cycle after every offer was declined with a long filter.
	C1 = "c1"
	// C2: a cycle when every framework filters every agent and nothing changed.
	C2 = "c2"
	// C2All is C2 with every agent made dirty, as Mesos's timer does.
	C2All = "c2all"
	// DFull: agents are added on which 8 tasks use all.
	DFull = "dfull"
	// D0 and E0: a cycle in which every agent is looked at, and D's and E's
	// agents have nothing to offer.
	D0 = "d0"
	E0 = "e0"
	// D: 8 tasks an agent use all of it; 1 % of all tasks end before the cycle.
	D = "d"
	// E is D where every agent keeps leftovers too small to offer.
	E = "e"
	// EAll is E with every agent made dirty.
	EAll = "eall"
)

// Names are all workloads.
func Names() []string {
	return []string{A1, A2, B, Decline, C1, C2, C2All, DFull, D0, D, E0, E, EAll}
}

const (
	cpus, mem, disk, ports = 1, 2, 3, 4
	day                    = 86_400_000 // milliseconds
)

// TasksPerAgent is how many tasks an agent has in D and E.
const TasksPerAgent = 8

// Meter is told what is worth measuring. Each function must call run, once;
// a nil one is left out.
type Meter struct {
	// Cycle is a round's cycle: Engine.Run alone. Of A1, A2, Decline and DFull it
	// is all that their round is about, Engine.Apply too.
	Cycle func(run func())
	// Apply tells the engine this many events.
	Apply func(events int, run func())
}

// Variant is in what a workload differs from those of Mesos's table; the zero
// Variant in nothing.
type Variant struct {
	// Roles: framework i, from 0, is in role i mod Roles. 0: all are in "*".
	Roles int
	// Guarantee is how many percent of the cluster's cpus and mem each role is
	// guaranteed.
	Guarantee int64
	// Ended is how many tasks end before each cycle of D and E; 0: 1 %.
	Ended int
	// Preempt: the engine may revoke, and is told of tasks. They are never
	// starved for long enough.
	Preempt bool
}

// Workload is an engine in the state that a round begins with. It is for one
// goroutine at a time.
type Workload struct {
	Variant
	name       string
	agents     int
	frameworks int
	meter      Meter

	engine *engine.Engine
	event  uint64
	seen   uint64
	now    time.Duration
	batch  []*allocatorv1.Event
	tasks  Tasks
}

// New sets a workload up. Its Apply is metered in rounds only.
func New(name string, v Variant, agents, frameworks int, meter Meter) (*Workload, error) {
	if !slices.Contains(Names(), name) {
		return nil, fmt.Errorf("workload %q: want one of %v", name, Names())
	}
	w := &Workload{Variant: v, name: name, agents: agents, frameworks: frameworks}
	err := w.begin()
	if err == nil {
		err = w.prepare()
	}
	w.meter = meter
	return w, err
}

// begin makes an engine that knows kinds and roles.
func (w *Workload) begin() error {
	w.event, w.seen = 1, 0
	w.engine = engine.New(&allocatorv1.Begin{FirstDecision: 1, Seed: 1}, &engine.DominantShare{})
	if w.Preempt {
		w.engine.Preempt(engine.Preempt{After: 100 * 24 * time.Hour, GracePeriod: time.Minute})
	}
	for i, kind := range []string{"cpus", "mem", "disk", "ports"} {
		typ := allocatorv1.KindType_KIND_TYPE_SCALAR
		if kind == "ports" {
			typ = allocatorv1.KindType_KIND_TYPE_RANGES
		}
		w.tell(&allocatorv1.Event{Event: &allocatorv1.Event_Kind{Kind: &allocatorv1.KindDefined{Number: uint32(i + 1), Name: kind, Type: typ}}})
	}
	w.addRoles()
	err := w.flush()
	if err == nil {
		err = w.engine.Apply(w.now, &allocatorv1.Batch{Snapshot: true, SnapshotEnd: true})
	}
	return err
}

func (w *Workload) prepare() error {
	switch w.name {
	case A1, A2, DFull:
		return nil // a round does it
	case D, D0, E, E0, EAll:
		return w.fill()
	case C2, C2All:
		return w.filterAll()
	}
	if err := w.addAgents(nil); err != nil {
		return err
	}
	return w.addFrameworks()
}

// Round is one cycle, and what brings the engine to the next one.
func (w *Workload) Round() error {
	switch w.name {
	case A1, A2, DFull:
		return w.adding()
	case B:
		return w.free()
	case Decline:
		return w.declining()
	case D0, E0:
		w.engine.Touch(w.now)
		return want(0, len(w.cycle()))
	case C1:
		return w.declined()
	case C2, C2All:
		if w.name == C2All {
			w.engine.Touch(w.now)
		}
		return want(0, len(w.cycle()))
	}
	return w.steady()
}

func want(offers, got int) error {
	if offers != got {
		return fmt.Errorf("%d offers, want %d", got, offers)
	}
	return nil
}

func (w *Workload) tell(e *allocatorv1.Event) { w.batch = append(w.batch, e) }

func (w *Workload) flush() (err error) {
	run := func() {
		err = w.engine.Apply(w.now, &allocatorv1.Batch{FirstEvent: w.event, Events: w.batch, DecisionsSeen: w.seen})
	}
	if w.meter.Apply != nil {
		w.meter.Apply(len(w.batch), run)
	} else {
		run()
	}
	w.event += uint64(len(w.batch))
	clear(w.batch)
	w.batch = w.batch[:0]
	return err
}

func (w *Workload) addRoles() {
	for i := range max(1, w.Roles) {
		u := &allocatorv1.RoleUpdated{Number: uint32(i + 1), Name: "*", Weight: 1000}
		if w.Roles > 0 {
			u.Name = fmt.Sprint("role", i)
		}
		if n := int64(w.agents) * w.Guarantee; n > 0 {
			u.Guarantee = &allocatorv1.NamedQuantities{Names: []string{"cpus", "mem"}, Thousandths: []int64{24_000 * n / 100, 4096_000 * n / 100}}
		}
		w.tell(&allocatorv1.Event{Event: &allocatorv1.Event_Role{Role: u}})
	}
}

// role is the number of a framework's role.
func (w *Workload) role(framework uint32) uint32 { return (framework-1)%uint32(max(1, w.Roles)) + 1 }

func (w *Workload) addFrameworks() error {
	for i := range w.frameworks {
		w.tell(&allocatorv1.Event{Event: &allocatorv1.Event_Framework{Framework: &allocatorv1.FrameworkUpdated{
			Number: uint32(i + 1), Id: fmt.Sprint("framework", i+1), Roles: []uint32{w.role(uint32(i + 1))}, Active: true}}})
	}
	return w.flush()
}

func whole() *allocatorv1.Quantities {
	return &allocatorv1.Quantities{Kinds: []uint32{cpus, mem, disk, ports}, Amounts: []int64{24_000, 4096_000, 4096_000, 1, 31000, 1000}}
}

func (w *Workload) addAgents(holdings func(i int) []*allocatorv1.Holding) error {
	w.tellAgents(holdings)
	return w.flush()
}

func (w *Workload) tellAgents(holdings func(i int) []*allocatorv1.Holding) {
	for i := range w.agents {
		id := "agent" + strconv.Itoa(i+1)
		u := &allocatorv1.AgentUpdated{Number: uint32(i + 1), Id: id, Hostname: id, Total: whole(), Active: true, HoldingsSet: true}
		if holdings != nil {
			u.Holdings = holdings(i)
		}
		w.tell(&allocatorv1.Event{Event: &allocatorv1.Event_Agent{Agent: u}})
	}
}

// adding is a round of A1, A2 and DFull: the engine is new each time.
func (w *Workload) adding() (err error) {
	apply := w.meter.Apply
	w.meter.Apply = nil
	defer func() { w.meter.Apply = apply }()
	if err := w.begin(); err != nil {
		return err
	}
	var holdings func(int) []*allocatorv1.Holding
	if w.name == DFull {
		w.tasks = NewTasks(w.agents, w.frameworks)
		holdings = w.holdings
	}
	if w.name != A1 {
		if err := w.addFrameworks(); err != nil {
			return err
		}
	}
	w.tellAgents(holdings)
	offers, events := 0, w.batch
	w.batch = nil
	w.metered(func() {
		for len(events) > 0 && err == nil {
			n := min(len(events), eventsAtOnce)
			w.batch, events = events[:n:n], events[n:]
			err = w.flush()
			offers += len(w.unmetered())
		}
	})
	if err != nil {
		return err
	}
	if w.name == A2 {
		return want(w.agents, offers)
	}
	return want(0, offers)
}

// eventsAtOnce is how many events come in a batch while agents are added.
const eventsAtOnce = 1024

// declining is a round of Decline.
func (w *Workload) declining() (err error) {
	decisions := w.unmetered()
	if err := want(w.agents, len(decisions)); err != nil {
		return err
	}
	w.releaseAll(decisions, day, true)
	apply := w.meter.Apply
	w.meter.Apply = nil
	w.metered(func() { err = w.flush() })
	w.meter.Apply = apply
	if err != nil {
		return err
	}
	return w.reviveAll()
}

func (w *Workload) metered(run func()) {
	if w.meter.Cycle != nil {
		w.meter.Cycle(run)
	} else {
		run()
	}
}

// cycle runs one and returns its offers.
func (w *Workload) cycle() (decisions []*allocatorv1.Decision) {
	w.now += 10 * time.Millisecond
	w.metered(func() { decisions, _ = w.engine.Run(w.now) })
	if len(decisions) > 0 {
		w.seen = decisions[len(decisions)-1].GetNumber()
	}
	return decisions
}

// unmetered runs a cycle that is not a round's own.
func (w *Workload) unmetered() []*allocatorv1.Decision {
	meter := w.meter.Cycle
	w.meter.Cycle = nil
	defer func() { w.meter.Cycle = meter }()
	return w.cycle()
}

func (w *Workload) release(d *allocatorv1.Decision, q *allocatorv1.Quantities, refuse uint64, declined bool) {
	o := d.GetOffer()
	// As from the wire: in memory of its own.
	q = &allocatorv1.Quantities{Kinds: slices.Clone(q.GetKinds()), Amounts: slices.Clone(q.GetAmounts())}
	w.tell(&allocatorv1.Event{Event: &allocatorv1.Event_Released{Released: &allocatorv1.Released{
		Agent: o.GetAgent(), Framework: o.GetFramework(), Role: o.GetRole(), Quantities: q, RefuseMs: refuse, Declined: declined}}})
}

func (w *Workload) releaseAll(decisions []*allocatorv1.Decision, refuse uint64, declined bool) {
	for _, d := range decisions {
		w.release(d, d.GetOffer().GetQuantities(), refuse, declined)
	}
}

// free is a round of B.
func (w *Workload) free() error {
	decisions := w.cycle()
	if err := want(w.agents, len(decisions)); err != nil {
		return err
	}
	w.releaseAll(decisions, 0, false)
	return w.flush()
}

// declined is a round of C1.
func (w *Workload) declined() error {
	w.releaseAll(w.unmetered(), day, true)
	if err := w.flush(); err != nil {
		return err
	}
	decisions, offers := w.cycle(), w.agents
	if w.frameworks == 1 {
		offers = 0
	}
	if err := want(offers, len(decisions)); err != nil {
		return err
	}
	w.releaseAll(decisions, 0, false)
	return w.reviveAll()
}

// reviveAll drops all filters: a round ends where it began.
func (w *Workload) reviveAll() error {
	for i := range w.frameworks {
		w.tell(&allocatorv1.Event{Event: &allocatorv1.Event_Revived{Revived: &allocatorv1.Revived{Framework: uint32(i + 1), Roles: []uint32{w.role(uint32(i + 1))}}}})
	}
	return w.flush()
}

// filterAll lets every framework decline every agent.
func (w *Workload) filterAll() error {
	if err := w.addAgents(nil); err != nil {
		return err
	}
	if err := w.addFrameworks(); err != nil {
		return err
	}
	for range w.frameworks {
		w.releaseAll(w.cycle(), day, true)
		if err := w.flush(); err != nil {
			return err
		}
	}
	return want(0, len(w.cycle()))
}
