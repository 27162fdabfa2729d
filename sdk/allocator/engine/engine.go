package engine

import (
	"fmt"
	"math/rand/v2"
	"time"

	allocatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/allocator/v1"
)

// softYield is how long an offer that was declined whole is kept from its
// framework even if nobody else wants it.
const softYield = 100 * time.Millisecond

// Engine is the mirror of one session and its cycle. See the package comment.
type Engine struct {
	policy  Policy
	cluster Cluster
	begin   *allocatorv1.Begin
	random  *rand.Rand

	quantities map[string]uint32 // the index of a scalar's name in cluster
	kinds      kindTable
	shared     bool // some kind is shared

	roles      []*role // by number
	roleByName map[string]*role
	root       *node
	frameworks []*framework // by number
	clients    []*client    // by index; nil where one is free
	spare      []uint32     // free indices of clients
	leaving    []*client    // to be forgotten after the event, perhaps
	wanting    bitset       // clients that want offers, by index
	agents     []*agent     // by number
	ids        map[string]*framework

	// smallest are all sets that are worth an offer to anybody, the cluster's
	// own first.
	smallest [][]amount
	common   [][]amount // the cluster's own

	stale        []*node
	totalChanged bool
	limited      []*role // those with quota
	guaranteed   bool    // some role has a guarantee
	first        bool    // only roles whose guarantees are unmet are served
	unreserved   []int64 // the cluster's, not revocable, by quantity
	used         []int64 // what is held of it
	kept         []int64 // what of it is to stay free for guarantees; as of keptAt
	books        uint64  // rises with every change of what quota depends on
	keptAt       uint64
	heldRoles    []*role // those that agents are held back from
	moreRoom     bool    // some of them may have more room than before
	specials     bool    // some kind is kindSpecial
	wakes        uint64  // rises when a client is woken on idle agents
	idle         bitset  // agents with something worth an offer, by number
	dirty        []*agent
	spareDirty   []*agent      // memory for the next dirty
	sharedGiven  bool          // the agent being served was offered already
	due          time.Duration // when the dirty agents are to be looked at
	timers       timers
	filters      int // how many there are

	maintained bitset   // agents that are going to be unavailable
	asking     []*agent // of those, to be looked at
	armed      bool     // due is set

	preempt    *preemption       // nil: nothing is ever revoked
	taskAgents map[uint64]uint32 // an agent's number by a task's
	sizes      map[string]*size
	sizeKey    []byte

	ready    bool
	applied  uint64 // the last event
	next     uint64 // the next decision
	inflight []flight
	budget   budget
	paused   time.Duration // no cycle before
	out      []*allocatorv1.Decision
	slab     []decisionSlab
	counted  Stats // only its counters
}

// amount is some of a scalar by its name's index.
type amount struct {
	quantity    uint32
	thousandths int64
}

// flight is a decision whose outcome the core has not told yet.
type flight struct {
	number uint64
	agent  *agent
	client *client
	offer  vector
}

// Report says how a cycle went.
type Report struct {
	// Ran tells whether there was a cycle at all.
	Ran    bool
	Agents int // looked at
	Offers int
}

// New returns an engine for a new session.
func New(begin *allocatorv1.Begin, policy Policy) *Engine {
	e := &Engine{
		policy:     policy,
		begin:      begin,
		random:     rand.New(rand.NewPCG(begin.GetSeed(), 0x6d657a7a6f)),
		quantities: map[string]uint32{},
		kinds:      make(kindTable, 1),
		roles:      make([]*role, 1),
		roleByName: map[string]*role{},
		root:       &node{},
		frameworks: make([]*framework, 1),
		agents:     make([]*agent, 1),
		ids:        map[string]*framework{},
		books:      1,
		next:       max(1, begin.GetFirstDecision()),
		budget:     newBudget(begin.GetMaxDecisionsPerSecond()),
	}
	for _, set := range begin.GetMinAllocatable() {
		e.common = append(e.common, e.amounts(set))
	}
	if len(e.common) == 0 {
		e.common = [][]amount{{{e.quantity("cpus"), 10}}, {{e.quantity("mem"), 32_000}}}
	}
	e.smallest = e.common
	return e
}

// quantity returns the index of a scalar's name.
func (e *Engine) quantity(name string) uint32 {
	if q, ok := e.quantities[name]; ok {
		return q
	}
	q := uint32(len(e.cluster.Names))
	e.quantities[name] = q
	e.cluster.Names = append(e.cluster.Names, name)
	e.cluster.Total = append(e.cluster.Total, 0)
	return q
}

func (e *Engine) amounts(set *allocatorv1.NamedQuantities) []amount {
	var out []amount
	for i, name := range set.GetNames() {
		if i < len(set.GetThousandths()) {
			out = append(out, amount{e.quantity(name), set.GetThousandths()[i]})
		}
	}
	return out
}

// batchInterval is how long freed resources are collected.
func (e *Engine) batchInterval() time.Duration {
	return time.Duration(e.begin.GetBatchIntervalMs()) * time.Millisecond
}

// Ready reports whether the snapshot is whole, so that decisions are welcome.
func (e *Engine) Ready() bool { return e.ready }

// EventsSeen is the number of the last event that was applied.
func (e *Engine) EventsSeen() uint64 { return e.applied }

// Next returns when Run has something to do again; false when only an event
// can bring it anything.
func (e *Engine) Next() (time.Duration, bool) {
	if !e.ready {
		return 0, false
	}
	at, ok := e.timers.first()
	if e.work() {
		due := max(e.due, e.paused, e.budget.next())
		if !ok || due < at {
			at, ok = due, true
		}
	}
	if look, due := e.lookDue(); due && (!ok || max(look, e.paused) < at) {
		at, ok = max(look, e.paused), true
	}
	return at, ok
}

// Run lets timers pass that are due, and when dirty agents are due runs a cycle
// over them. The decisions are applied to the mirror already; the caller sends
// them in this order, and may keep them.
func (e *Engine) Run(now time.Duration) ([]*allocatorv1.Decision, Report) {
	if !e.ready {
		return nil, Report{}
	}
	e.tick(now)
	var report Report
	if e.work() && now >= max(e.due, e.paused) && e.budget.any(now) {
		report = e.cycle(now)
	}
	if at, ok := e.lookDue(); ok && now >= max(at, e.paused) && e.budget.any(now) {
		e.look(now)
		report.Ran = report.Ran || len(e.out) > 0
	}
	out := e.out
	e.out = nil
	e.tally(out, report.Agents)
	return out, report
}

// work reports whether there is anything for a cycle.
func (e *Engine) work() bool {
	return len(e.dirty) > 0 || len(e.asking) > 0 || e.moreRoom && len(e.heldRoles) > 0
}

// arm sets when the next cycle is due, once there is something for it.
func (e *Engine) arm(now time.Duration) {
	if !e.armed && e.work() {
		e.armed, e.due = true, now+e.batchInterval()
	}
}

// Touch makes every idle agent dirty, as if something about each had changed.
// Policies never need it; measurements of a cycle over the whole cluster do.
func (e *Engine) Touch(now time.Duration) {
	e.idle.each(func(number uint32) { e.soil(e.agents[number]) })
	e.arm(now)
}

// Apply brings the mirror up to date. An error means that the core and the
// engine no longer understand each other: the session is over.
func (e *Engine) Apply(now time.Duration, b *allocatorv1.Batch) error {
	for _, event := range b.GetDefinitions() {
		if err := e.apply(now, event); err != nil {
			return fmt.Errorf("definition: %w", err)
		}
	}
	for i, event := range b.GetEvents() {
		if err := e.apply(now, event); err != nil {
			return fmt.Errorf("event %d: %w", b.GetFirstEvent()+uint64(i), err)
		}
	}
	e.counted.Events += uint64(len(b.GetEvents()))
	if !b.GetSnapshot() && len(b.GetEvents()) > 0 {
		e.applied = b.GetFirstEvent() + uint64(len(b.GetEvents())) - 1
	}
	e.acknowledge(b.GetDecisionsSeen())
	e.arm(now)
	if b.GetSnapshotEnd() {
		e.ready = true
	}
	return nil
}

// numberGap is how far ahead of the others a number may be. Numbers are dense;
// within a batch they may come out of order.
const numberGap = 1 << 14

// room returns list with an element at a number, or an error when the number
// cannot be one of the stream's.
func room[T any](list []*T, number uint32, what string) ([]*T, error) {
	if number == 0 || int(number) > len(list)+numberGap {
		return list, fmt.Errorf("%s has number %d; the numbers are dense and begin with 1", what, number)
	}
	for int(number) >= len(list) {
		list = append(list, nil)
	}
	return list, nil
}

// bitset is a set of small numbers.
type bitset []uint64

func (b bitset) has(i uint32) bool {
	word := int(i >> 6)
	return word < len(b) && b[word]&(1<<(i&63)) != 0
}

func (b *bitset) add(i uint32) {
	for int(i>>6) >= len(*b) {
		*b = append(*b, 0)
	}
	(*b)[i>>6] |= 1 << (i & 63)
}

func (b bitset) remove(i uint32) {
	if word := int(i >> 6); word < len(b) {
		b[word] &^= 1 << (i & 63)
	}
}

// after returns the first member after i, or else the first of all. There is one
// at least.
func (b bitset) after(i uint32) uint32 {
	if len(b) == 0 {
		return 0
	}
	start := int(i>>6) % len(b)
	for n := 0; n <= len(b); n++ {
		at := (start + n) % len(b)
		word := b[at]
		if n == 0 {
			word &^= 1<<(i&63) | (1<<(i&63) - 1)
		}
		if word != 0 {
			return uint32(at<<6 + trailingZeros(word))
		}
	}
	return 0
}

// within reports whether every member is in o too.
func (b bitset) within(o bitset) bool {
	for i, word := range b {
		if i < len(o) {
			word &^= o[i]
		}
		if word != 0 {
			return false
		}
	}
	return true
}

// each calls f for every member, in ascending order.
func (b bitset) each(f func(uint32)) {
	for i, word := range b {
		for ; word != 0; word &= word - 1 {
			f(uint32(i<<6 + trailingZeros(word)))
		}
	}
}
