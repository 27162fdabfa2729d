package allocator

import (
	"cmp"
	"slices"
	"time"

	allocatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/allocator/v1"
	"github.com/mezzo-os/mezzo/sdk/resource"
)

// Begin opens a session: allocatorv1.Begin in Go's types.
type Begin struct {
	// FirstDecision is the first number that the allocator may use.
	FirstDecision uint64
	// BatchInterval is for how long freed resources are collected.
	BatchInterval time.Duration
	// MinRefuse is for how long an offer that was declined whole is not
	// repeated to the same framework, whatever its filter says.
	MinRefuse time.Duration
	Seed      uint64
	// MaxDecisionsPerSecond is 0 when there is no cap.
	MaxDecisionsPerSecond int
	// MinAllocatable are the smallest sets worth offering, any of which is
	// enough. Empty: cpus 0.01 or mem 32.
	MinAllocatable []resource.Quantities
	// FilterGPUResources keeps agents with GPUs for frameworks that are aware
	// of them.
	FilterGPUResources bool
	// Region is the core's own; agents of others go to frameworks that are
	// aware of regions. Empty: regions do not matter.
	Region string
}

// Proto returns the message.
func (b Begin) Proto() *allocatorv1.Begin {
	return &allocatorv1.Begin{
		FirstDecision:         b.FirstDecision,
		BatchIntervalMs:       milliseconds(b.BatchInterval),
		MinRefuseMs:           milliseconds(b.MinRefuse),
		Seed:                  b.Seed,
		MaxDecisionsPerSecond: uint64(max(0, b.MaxDecisionsPerSecond)),
		MinAllocatable:        namedSets(b.MinAllocatable),
		FilterGpuResources:    b.FilterGPUResources,
		Region:                b.Region,
	}
}

// Batch is some events and what goes with them: allocatorv1.Batch in Go's
// types.
type Batch struct {
	// FirstEvent is the number of the first event; 0 in a snapshot.
	FirstEvent    uint64
	Events        []Event
	Snapshot      bool
	SnapshotEnd   bool
	DecisionsSeen uint64
}

// batchSize is about how many bytes of events an encoder puts in one message.
const batchSize = 192 << 10

// Encoder turns one session's events into messages and its decisions back. It
// gives everything its number when it is first named, so it serves one session
// and must see every event of it. It is for one goroutine at a time.
//
// Events that name an agent which was removed, or never told of, are encoded as
// events that mean nothing, so that the numbers of the others stay. Frameworks
// and roles that were not told of are defined first: as inactive, and as having
// weight 1 and no quota.
type Encoder struct {
	kinds   map[kindKey]uint32
	byKind  []resource.Resource // by number: the kind, and one copy's value if it is atomic
	symbols numbering
	roles   numbering
	known   []bool // by a role's number: RoleUpdated was sent

	frameworks numbering
	agents     numbering

	definitions []*allocatorv1.Event
	size        int // of what was encoded since the last message, about

	// Resources mostly come again: as the same list, when what an offer or a
	// task held is released, and with the same contents, when agents are alike.
	// Both caches are emptied when they are full.
	packed   map[listKey]*allocatorv1.Quantities
	unpacked map[string]resource.Resources
	key      []byte // memory for keys of unpacked
}

// listKey is the identity of an immutable list of resources.
type listKey struct {
	first  *resource.Resource
	length int
}

// cacheSize is how many entries each cache holds.
const cacheSize = 1 << 12

// kindKey tells interned kinds apart. An atomic kind is interned once for every
// size of its copies.
type kindKey struct {
	kind  resource.Kind
	copy  resource.Scalar
	value string
}

// numbering gives out dense numbers from 1.
type numbering struct {
	numbers map[string]uint32
	names   []string // by number
}

func newNumbering() numbering { return numbering{map[string]uint32{}, []string{""}} }

// get returns the name's number, and whether it is new.
func (n *numbering) get(name string) (number uint32, isNew bool) {
	if number, ok := n.numbers[name]; ok {
		return number, false
	}
	number = uint32(len(n.names))
	n.numbers[name] = number
	n.names = append(n.names, name)
	return number, true
}

// forget makes the name new again; its number is not used again.
func (n *numbering) forget(name string) {
	if number, ok := n.numbers[name]; ok {
		delete(n.numbers, name)
		n.names[number] = ""
	}
}

// name returns the name of a number; false when it is not in use.
func (n *numbering) name(number uint32) (string, bool) {
	if number == 0 || int(number) >= len(n.names) || n.names[number] == "" {
		return "", false
	}
	return n.names[number], true
}

// NewEncoder returns an encoder for a new session.
func NewEncoder() *Encoder {
	return &Encoder{
		kinds:      map[kindKey]uint32{},
		byKind:     make([]resource.Resource, 1),
		symbols:    newNumbering(),
		roles:      newNumbering(),
		known:      make([]bool, 1),
		frameworks: newNumbering(),
		agents:     newNumbering(),
		packed:     map[listKey]*allocatorv1.Quantities{},
		unpacked:   map[string]resource.Resources{},
	}
}

// Encode returns the batch as one or more messages, each of a few hundred
// kilobytes at most unless a single event is larger.
func (e *Encoder) Encode(b Batch) []*allocatorv1.Batch {
	var out []*allocatorv1.Batch
	next := b.FirstEvent
	current := &allocatorv1.Batch{FirstEvent: next, Snapshot: b.Snapshot}
	for _, event := range b.Events {
		encoded := e.encode(event)
		current.Definitions = append(current.Definitions, e.definitions...)
		e.definitions = e.definitions[:0]
		current.Events = append(current.Events, encoded)
		if !b.Snapshot {
			next++
		}
		if e.size += 16; e.size > batchSize {
			e.size = 0
			out = append(out, current)
			current = &allocatorv1.Batch{FirstEvent: next, Snapshot: b.Snapshot}
		}
	}
	e.size = 0
	if last := len(out) - 1; last >= 0 && len(current.Events) == 0 {
		current = out[last]
		out = out[:last]
	}
	current.SnapshotEnd = b.SnapshotEnd
	current.DecisionsSeen = b.DecisionsSeen
	return append(out, current)
}

// encode turns one event into its message; what it names for the first time is
// added to e.definitions.
func (e *Encoder) encode(event Event) *allocatorv1.Event {
	switch v := event.(type) {
	case *RoleUpdated:
		return &allocatorv1.Event{Event: &allocatorv1.Event_Role{Role: e.roleUpdated(v)}}
	case *FrameworkUpdated:
		return &allocatorv1.Event{Event: &allocatorv1.Event_Framework{Framework: e.frameworkUpdated(v)}}
	case *FrameworkRemoved:
		number, isNew := e.frameworks.get(v.ID)
		e.frameworks.forget(v.ID)
		if isNew {
			return &allocatorv1.Event{}
		}
		return &allocatorv1.Event{Event: &allocatorv1.Event_FrameworkRemoved{FrameworkRemoved: &allocatorv1.FrameworkRemoved{Number: number}}}
	case *AgentUpdated:
		return &allocatorv1.Event{Event: &allocatorv1.Event_Agent{Agent: e.agentUpdated(v)}}
	case *Suppressed:
		return &allocatorv1.Event{Event: &allocatorv1.Event_Suppressed{Suppressed: &allocatorv1.Suppressed{
			Framework: e.framework(v.Framework), Roles: e.roleNumbers(v.Roles)}}}
	case *Revived:
		return &allocatorv1.Event{Event: &allocatorv1.Event_Revived{Revived: &allocatorv1.Revived{
			Framework: e.framework(v.Framework), Roles: e.roleNumbers(v.Roles)}}}
	case *TaskEnded:
		return &allocatorv1.Event{Event: &allocatorv1.Event_TaskEnded{TaskEnded: &allocatorv1.TaskEnded{Number: v.Number}}}
	case *Refused:
		out := &allocatorv1.Refused{Decision: v.Decision, Reason: v.Reason, Message: v.Message}
		if v.Agent != nil {
			out.Agent = e.agentUpdated(v.Agent)
		}
		return &allocatorv1.Event{Event: &allocatorv1.Event_Refused{Refused: out}}
	case *Requested:
		out := &allocatorv1.Requested{Framework: e.framework(v.Framework), Quantities: named(v.Resources)}
		if v.Agent != "" {
			agent, ok := e.agents.numbers[v.Agent]
			if !ok {
				return &allocatorv1.Event{}
			}
			out.Agent = agent
		}
		return &allocatorv1.Event{Event: &allocatorv1.Event_Requested{Requested: out}}
	}
	return e.encodeOnAgent(event)
}

// encodeOnAgent turns an event about an agent that was told of before.
func (e *Encoder) encodeOnAgent(event Event) *allocatorv1.Event {
	id := agentOf(event)
	agent, ok := e.agents.numbers[id]
	if !ok {
		return &allocatorv1.Event{}
	}
	switch v := event.(type) {
	case *AgentRemoved:
		e.agents.forget(id)
		return &allocatorv1.Event{Event: &allocatorv1.Event_AgentRemoved{AgentRemoved: &allocatorv1.AgentRemoved{Number: agent}}}
	case *Held:
		return &allocatorv1.Event{Event: &allocatorv1.Event_Held{Held: &allocatorv1.Held{
			Agent: agent, Framework: e.framework(v.Framework), Role: e.role(v.Role), Quantities: e.quantities(v.Resources)}}}
	case *Released:
		return &allocatorv1.Event{Event: &allocatorv1.Event_Released{Released: &allocatorv1.Released{
			Agent: agent, Framework: e.framework(v.Framework), Role: e.role(v.Role), Quantities: e.quantities(v.Resources),
			RefuseMs: milliseconds(v.Refuse), Declined: v.Declined, Offer: v.Offer}}}
	case *Converted:
		out := &allocatorv1.Converted{Agent: agent, From: e.quantities(v.From), To: e.quantities(v.To), Version: v.Version}
		if v.Framework != "" {
			out.Framework, out.Role = e.framework(v.Framework), e.role(v.Role)
		}
		return &allocatorv1.Event{Event: &allocatorv1.Event_Converted{Converted: out}}
	case *Filter:
		return &allocatorv1.Event{Event: &allocatorv1.Event_Filter{Filter: &allocatorv1.Filter{
			Agent: agent, Framework: e.framework(v.Framework), Role: e.role(v.Role), Quantities: e.quantities(v.Resources),
			RemainingMs: milliseconds(v.Remaining), Soft: v.Soft}}}
	case *TaskStarted:
		out := &allocatorv1.TaskStarted{
			Number: v.Number, Agent: agent, Framework: e.framework(v.Framework), Role: e.role(v.Role),
			Quantities: e.quantities(v.Resources), StartedNs: v.Started.UnixNano()}
		if r := v.Revocation; r != nil {
			out.Revocation = &allocatorv1.Revocation{RemainingMs: milliseconds(r.Remaining)}
			if r.Framework != "" {
				out.Revocation.Framework, out.Revocation.Role = e.framework(r.Framework), e.role(r.Role)
			}
		}
		return &allocatorv1.Event{Event: &allocatorv1.Event_TaskStarted{TaskStarted: out}}
	case *OfferOutstanding:
		return &allocatorv1.Event{Event: &allocatorv1.Event_Offer{Offer: &allocatorv1.OfferOutstanding{
			Number: v.Number, Agent: agent, Framework: e.framework(v.Framework), Role: e.role(v.Role), Quantities: e.quantities(v.Resources)}}}
	case *InverseOfferStatus:
		return &allocatorv1.Event{Event: &allocatorv1.Event_InverseOffer{InverseOffer: &allocatorv1.InverseOfferStatus{
			Number: v.Number, Agent: agent, Framework: e.framework(v.Framework),
			Status: allocatorv1.InverseOfferStatus_Status(v.State), RefuseMs: milliseconds(v.Refuse)}}}
	}
	return &allocatorv1.Event{}
}

// agentOf returns the id of the agent that an event is about.
func agentOf(event Event) string {
	switch v := event.(type) {
	case *AgentRemoved:
		return v.ID
	case *Held:
		return v.Agent
	case *Released:
		return v.Agent
	case *Converted:
		return v.Agent
	case *Filter:
		return v.Agent
	case *TaskStarted:
		return v.Agent
	case *OfferOutstanding:
		return v.Agent
	case *InverseOfferStatus:
		return v.Agent
	}
	return ""
}

func (e *Encoder) roleUpdated(v *RoleUpdated) *allocatorv1.RoleUpdated {
	number := e.roleNumber(v.Name)
	e.known[number] = true
	return &allocatorv1.RoleUpdated{
		Number: number, Name: v.Name, Weight: cmp.Or(v.Weight, 1000),
		Guarantee: named(v.Guarantee), Limit: named(v.Limit), StarvedMs: milliseconds(v.Starved),
	}
}

func (e *Encoder) frameworkUpdated(v *FrameworkUpdated) *allocatorv1.FrameworkUpdated {
	number, _ := e.frameworks.get(v.ID)
	e.size += 64
	out := &allocatorv1.FrameworkUpdated{
		Number: number, Id: v.ID, Name: v.Name,
		Roles: e.roleNumbers(v.Roles), Suppressed: e.roleNumbers(v.Suppressed),
		Capabilities: uint32(v.Capabilities), Active: v.Active,
	}
	for _, s := range v.Settings {
		e.size += len(s.Constraints)
		out.Settings = append(out.Settings, &allocatorv1.RoleSettings{
			Role: e.role(s.Role), MinAllocatable: namedSets(s.MinAllocatable), Constraints: s.Constraints})
	}
	return out
}

func (e *Encoder) agentUpdated(v *AgentUpdated) *allocatorv1.AgentUpdated {
	number, _ := e.agents.get(v.ID)
	e.size += 96
	out := &allocatorv1.AgentUpdated{
		Number: number, Id: v.ID, Hostname: v.Hostname, Version: v.Version, Total: e.quantities(v.Total),
		Region: v.Region, Zone: v.Zone, Active: v.Active, HoldingsSet: v.HoldingsSet, DecisionsSeen: v.DecisionsSeen,
	}
	for _, a := range v.Attributes {
		e.size += len(a.Name) + len(a.Text) + 8
		out.Attributes = append(out.Attributes, encodeAttribute(a))
	}
	if u := v.Unavailability; u != nil {
		out.Unavailability = &allocatorv1.Unavailability{StartNs: u.Start.UnixNano(), DurationNs: int64(u.Duration)}
	}
	for _, h := range v.Holdings {
		out.Holdings = append(out.Holdings, &allocatorv1.Holding{
			Framework: e.framework(h.Framework), Role: e.role(h.Role), Quantities: e.quantities(h.Resources)})
	}
	return out
}

func encodeAttribute(a Attribute) *allocatorv1.Attribute {
	out := &allocatorv1.Attribute{Name: a.Name}
	switch a.Type {
	case AttributeScalar:
		amount := int64(a.Scalar)
		out.ScalarThousandths = &amount
	case AttributeRanges:
		for _, r := range a.Ranges {
			out.Ranges = append(out.Ranges, r.Begin, r.End)
		}
	default:
		out.Text = a.Text
	}
	return out
}

// framework returns a framework's number; one that was not told of is defined
// as inactive.
func (e *Encoder) framework(id string) uint32 {
	number, isNew := e.frameworks.get(id)
	if isNew {
		e.define(&allocatorv1.Event{Event: &allocatorv1.Event_Framework{
			Framework: &allocatorv1.FrameworkUpdated{Number: number, Id: id}}})
	}
	return number
}

func (e *Encoder) roleNumber(name string) uint32 {
	number, isNew := e.roles.get(name)
	if isNew {
		e.known = append(e.known, false)
	}
	return number
}

// role returns a role's number; one that was not told of is defined without
// weight or quota.
func (e *Encoder) role(name string) uint32 {
	number := e.roleNumber(name)
	if !e.known[number] {
		e.known[number] = true
		e.define(&allocatorv1.Event{Event: &allocatorv1.Event_Role{
			Role: &allocatorv1.RoleUpdated{Number: number, Name: name, Weight: 1000}}})
	}
	return number
}

func (e *Encoder) roleNumbers(names []string) []uint32 {
	if len(names) == 0 {
		return nil
	}
	out := make([]uint32, len(names))
	for i, name := range names {
		out[i] = e.role(name)
	}
	return out
}

func (e *Encoder) define(event *allocatorv1.Event) {
	e.definitions = append(e.definitions, event)
	e.size += 48
}

// quantities packs resources in normal form. Allocation info is left out: who
// holds them is told beside.
func (e *Encoder) quantities(list resource.Resources) *allocatorv1.Quantities {
	if len(list) == 0 {
		return &allocatorv1.Quantities{}
	}
	key := listKey{&list[0], len(list)}
	if q := e.packed[key]; q != nil {
		e.size += len(q.Kinds) + 3*len(q.Amounts)
		return q
	}
	if len(e.packed) >= cacheSize {
		clear(e.packed)
	}
	q := e.pack(list)
	e.packed[key] = q
	return q
}

func (e *Encoder) pack(list resource.Resources) *allocatorv1.Quantities {
	type entry struct {
		number uint32
		index  int
	}
	var room [8]entry
	order := room[:0]
	words := 0
	for i := range list {
		order = append(order, entry{e.kind(&list[i]), i})
		words += 1 + 2*len(list[i].Ranges) + len(list[i].Set)
	}
	slices.SortFunc(order, func(a, b entry) int { return cmp.Compare(a.number, b.number) })
	for i := 1; i < len(order); i++ {
		if order[i-1].number == order[i].number { // they differ in their allocation only
			return e.pack(list.Unallocate())
		}
	}
	e.size += len(order) + 3*words
	q := &allocatorv1.Quantities{Kinds: make([]uint32, 0, len(order)), Amounts: make([]int64, 0, words)}
	for _, o := range order {
		q.Kinds = append(q.Kinds, o.number)
		q.Amounts = e.appendAmounts(q.Amounts, &list[o.index])
	}
	return q
}

func (e *Encoder) appendAmounts(out []int64, r *resource.Resource) []int64 {
	switch {
	case r.Kind.Atomic():
		return append(out, int64(r.Count)*int64(copySize(r)))
	case r.Kind.Type() == resource.TypeRanges:
		out = append(out, int64(len(r.Ranges)))
		var end uint64
		for _, x := range r.Ranges {
			out = append(out, int64(x.Begin-end), int64(x.End-x.Begin))
			end = x.End
		}
		return out
	case r.Kind.Type() == resource.TypeSet:
		out = append(out, int64(len(r.Set)))
		head := len(out)
		for _, text := range r.Set {
			out = append(out, int64(e.symbol(text)))
		}
		slices.Sort(out[head:])
		return out
	}
	return append(out, int64(r.Scalar))
}

// copySize is what one copy of an atomic resource counts for; one that is not
// a scalar counts as one.
func copySize(r *resource.Resource) resource.Scalar {
	if r.Kind.Type() == resource.TypeScalar {
		return r.Scalar
	}
	return resource.Unit
}

func (e *Encoder) symbol(text string) uint32 {
	number, isNew := e.symbols.get(text)
	if isNew {
		e.define(&allocatorv1.Event{Event: &allocatorv1.Event_Symbol{
			Symbol: &allocatorv1.SymbolDefined{Number: number, Text: text}}})
		e.size += len(text)
	}
	return number
}

func (e *Encoder) kind(r *resource.Resource) uint32 {
	key := kindKey{kind: r.Kind.WithAllocation("")}
	if r.Kind.Atomic() {
		key.copy = copySize(r)
		if r.Kind.Type() != resource.TypeScalar {
			key.value = r.Ranges.String() + r.Set.String()
		}
	}
	if number, ok := e.kinds[key]; ok {
		return number
	}
	number := uint32(len(e.byKind))
	e.kinds[key] = number
	one := resource.Resource{Kind: key.kind}
	k := key.kind
	def := &allocatorv1.KindDefined{
		Number: number, Name: k.Name(), Type: allocatorv1.KindType(k.Type()),
		Revocable: k.Revocable(), Shared: k.Shared(), Indivisible: k.Indivisible(), Identity: k.Identity(),
	}
	if k.Atomic() {
		one.Scalar, one.Ranges, one.Set, one.Count = r.Scalar, r.Ranges, r.Set, 1
		def.Copy = int64(key.copy)
		def.Type = allocatorv1.KindType_KIND_TYPE_SCALAR
	}
	for _, s := range k.Reservations() {
		def.Reservations = append(def.Reservations, &allocatorv1.Reservation{Role: s.Role, Dynamic: s.Dynamic})
	}
	e.byKind = append(e.byKind, one)
	e.define(&allocatorv1.Event{Event: &allocatorv1.Event_Kind{Kind: def}})
	return number
}

func named(q resource.Quantities) *allocatorv1.NamedQuantities {
	if len(q) == 0 {
		return nil
	}
	out := &allocatorv1.NamedQuantities{}
	for _, x := range q {
		out.Names = append(out.Names, x.Name)
		out.Thousandths = append(out.Thousandths, int64(x.Amount))
	}
	return out
}

func namedSets(sets []resource.Quantities) []*allocatorv1.NamedQuantities {
	var out []*allocatorv1.NamedQuantities
	for _, q := range sets {
		out = append(out, named(q))
	}
	return out
}

// milliseconds rounds up, so that a short time does not become none.
func milliseconds(d time.Duration) uint64 {
	if d <= 0 {
		return 0
	}
	return uint64((d + time.Millisecond - 1) / time.Millisecond)
}
