package state

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/mezzo-os/mezzo/core/ledger"
)

// Machine is the master's state. It is not safe for concurrent use.
type Machine struct {
	cfg    Config
	began  time.Time // when it was made
	now    time.Time
	out    []Output
	timers timerHeap

	links      map[Link]*link
	agents     map[string]*agent
	frameworks map[string]*framework // all but the completed
	completed  []*framework          // oldest first, bounded
	finished   map[string]*framework // the completed by id
	streams    map[Stream]*framework
	adapters   map[string]bool // those that serve
	offers     offerList
	roles      map[string]*role
	recovering int // agents that have not come back since recovery

	// Serial numbers of ids given out in this term.
	agentSerial, frameworkSerial, offerSerial, taskSerial, operationSerial uint64
	offerPrefix                                                            string // of offers' ids, before the number

	books    *ledger.Ledger
	registry registry
	sessions sessions
	filters  filterHeap
	removals removalLimit
	dirty    dirty
	// watched counts the roles with a guarantee; starving are those of them that
	// are to be looked at when the step ends.
	watched  int
	starving []*role

	revocations revocations
	// maintained are the agents with a planned unavailability, inverse the
	// outstanding inverse offers by id, asked those to be sent in this step.
	maintained map[string]*agent
	inverse    map[string]*inverseOffer
	asked      []*inverseOffer
	// schedule is the maintenance schedule that counts, wantedSchedule the newest that is
	// written or is to be.
	schedule, wantedSchedule *schedule
	// emptied are draining agents that are to be looked at when the step ends.
	emptied []*agent
	away    map[phase]*away // of unreachable and gone
	// offered are frameworks with offers that are to be sent in this step.
	offered []*framework
	writer  offerWriter
	// Memory of approach, and what it has read.
	near    []*agent
	nearIDs []string
	read    int
}

// New makes a machine from what the registry holds. It fails if that cannot be
// read; the error names the entry.
func New(cfg Config, recovered Recovered, now time.Time) (*Machine, error) {
	if cfg.MasterID == "" {
		return nil, fmt.Errorf("master state: Config.MasterID is empty; give every term of leadership an id of its own")
	}
	m := &Machine{
		cfg: cfg.withDefaults(), began: now, now: now, adapters: map[string]bool{},
		links: map[Link]*link{}, agents: map[string]*agent{}, frameworks: map[string]*framework{},
		finished: map[string]*framework{}, streams: map[Stream]*framework{},
		offerPrefix: cfg.MasterID + "-O", roles: map[string]*role{}, books: ledger.New(),
		maintained: map[string]*agent{}, inverse: map[string]*inverseOffer{},
		schedule: &schedule{}, wantedSchedule: &schedule{}, away: map[phase]*away{unreachable: {}, gone: {}},
	}
	m.registry.retry.fire = func() {}
	m.dirty.timer.fire = func() { m.dirty.ready = true }
	for _, r := range m.cfg.Roles {
		if err := m.configureRole(r); err != nil {
			return nil, err
		}
	}
	entries := slices.SortedFunc(slices.Values(recovered.Entries), func(a, b Entry) int { return strings.Compare(a.Key, b.Key) })
	for _, e := range entries {
		if err := m.recoverEntry(e); err != nil {
			return nil, err
		}
	}
	m.recoverAway()
	for _, id := range sortedKeys(m.agents) {
		m.takeWindow(m.agents[id])
	}
	m.sessions.init(m)
	return m, nil
}

// Step gives the machine one input and returns what is to be done, in order.
// The slice is good until the next Step. A time before that of the last Step
// counts as that time.
func (m *Machine) Step(now time.Time, in Input) []Output {
	clear(m.out)
	m.out = m.out[:0]
	if now.After(m.now) {
		m.now = now
	}
	m.fireTimers()
	m.take(in)
	m.settleDrains()
	m.expireFilters()
	m.sendOffers()
	m.sendInverseOffers()
	m.settleStarvation()
	m.flushAllocator()
	m.flushRegistry()
	m.publish()
	return m.out
}

// NextDeadline is when the machine wants a Tick at the latest; false: never.
func (m *Machine) NextDeadline() (time.Time, bool) { return m.timers.next() }

func (m *Machine) take(in Input) {
	switch in := in.(type) {
	case Tick:
	case LinkOpened:
		m.linkOpened(in)
	case LinkMessage:
		m.linkMessage(in)
	case LinkClosed:
		m.linkClosed(in)
	case Subscribe:
		m.subscribe(in)
	case SchedulerCall:
		m.schedulerCall(in)
	case StreamClosed:
		m.streamClosed(in)
	case AdapterUp:
		m.adapterUp(in)
	case AdapterDown:
		m.adapterDown(in)
	case AllocatorOpened:
		m.allocatorOpened(in)
	case AllocatorReady:
		m.allocatorReady(in)
	case AllocatorSeen:
		m.allocatorSeen(in)
	case AllocatorDecisions:
		m.allocatorDecisions(in)
	case AllocatorClosed:
		m.allocatorClosed(in)
	case RegistryWritten:
		m.registryWritten(in)
	case PublishNow:
		m.dirty.ready = true
		m.publish()
		m.reply(in.Request, nil)
	case Reconfigure:
		m.reconfigure(in)
	case KillTask:
		m.orderKill(in)
	case Teardown:
		m.orderTeardown(in)
	case SetQuota:
		m.orderSetQuota(in)
	case RemoveQuota:
		m.orderRemoveQuota(in)
	case SetWeights:
		m.orderSetWeights(in)
	case ApplyOperation:
		m.orderOperation(in)
	case Explain:
		m.orderExplain(in)
	case DrainAgent:
		m.orderDrain(in)
	case DeactivateAgent:
		m.orderDeactivate(in)
	case ReactivateAgent:
		m.orderReactivate(in)
	case MarkAgentGone:
		m.orderGone(in)
	case SetSchedule:
		m.orderSchedule(in)
	case SetMaintenance:
		m.orderMaintenance(in)
	default:
		panic(fmt.Sprintf("state: unknown input %T", in))
	}
}

func (m *Machine) emit(o Output) { m.out = append(m.out, o) }

func (m *Machine) logf(level Level, message string, fields ...any) {
	m.emit(Log{Level: level, Message: message, Fields: fields})
}

// sortedKeys returns the keys of a map in order, so that no map order ever
// reaches an output.
func sortedKeys[K cmp.Ordered, V any](in map[K]V) []K {
	return slices.Sorted(maps.Keys(in))
}
