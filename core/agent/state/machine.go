package state

import (
	"container/heap"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	isolatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/isolator/v1"
	linkv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/link/v1"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
)

// Machine is an agent's state. New makes one; its first input is Restore.
type Machine struct {
	cfg    Config
	chance *rand.ChaCha8
	now    time.Time

	restored bool
	over     bool // Exit was given
	ending   *ending
	exiting  bool // Exit is held

	id       string
	epoch    uint64
	before   *configured // what it was started with last
	rebooted bool        // the host was, since the agent ran last
	shrunk   bool        // there may be less than before
	tokenKey []byte      // signs executors' tokens; a secret
	stored   stored      // of these

	resources  resources
	operations map[string]*pending // by their names
	chores     map[string]*chore
	lastChore  uint64

	frameworks     map[string]*framework
	executors      map[string]*executor      // by run
	live           map[executorKey]*executor // those that take more tasks
	containers     map[string]*container
	tasks          map[taskKey]*task
	launches       map[uint64]*launch
	lastLaunch     uint64
	lastProbe      uint64
	completed      []*completed // oldest first
	standalone     map[string]*standalone
	claims         map[uint64]*standalone // that isolators are asked about, by the launch
	lastStandalone uint64

	streams  map[uint64]*executor // of those that are subscribed
	adapters map[string]*adapter  // of the configuration
	// adaptersBy is until when resources are withheld for adapters that have not
	// served yet; zero: they are not.
	adaptersBy time.Time

	isolators []*isolator // configured ones in order, then retired ones by name
	recovered bool        // all of them have answered once
	deferred  []*container
	orphans   map[string]bool // containers that nothing was known of, until they are cleaned up
	draining  *linkv1.Drain

	link   link
	timers timers

	immediate          []Output
	effects            []Output
	held               []held
	dirty              []entity
	sequence           uint64 // of the newest checkpoint
	written            uint64
	counts             Counts
	began, recoveredAt time.Time
}

// ending is why an agent ends all that it runs, and then itself.
type ending struct {
	reason string
	err    error
	// silent: masters are not spoken to any more; see endSilently.
	silent bool
	// forget: the agent's id goes with it.
	forget bool
}

// held is an output that waits for a checkpoint.
type held struct {
	after  uint64
	output Output
}

type executorKey struct{ framework, id string }

type taskKey struct{ framework, id string }

func (a taskKey) compare(b taskKey) int {
	if a.framework != b.framework {
		if a.framework < b.framework {
			return -1
		}
		return 1
	}
	switch {
	case a.id < b.id:
		return -1
	case a.id > b.id:
		return 1
	}
	return 0
}

type framework struct {
	stored
	id   string
	info *mezzov1.FrameworkInfo
	// terminating: the framework is gone. Its tasks end, and nobody is waited for
	// to acknowledge that.
	terminating bool
	uses        int // tasks and executors that name it
}

func (f *framework) has(c mezzov1.FrameworkInfo_Capability_Type) bool {
	if f == nil {
		return false
	}
	for _, have := range f.info.GetCapabilities() {
		if have.GetType() == c {
			return true
		}
	}
	return false
}

type executor struct {
	stored
	run       string // the id of the root container, or of the command task's
	framework *framework
	id        string
	info      *mezzov1.ExecutorInfo // nil: the agent itself, for a command task
	root      *container            // nil for a command task
	role      string
	tasks     []*task  // that have not ended, in order of arrival
	children  int      // containers, the root not counted
	program   *program // nil: the agent itself runs the tasks
	// waiting are launches for which the root is to be given more; covered are
	// those that a change under way is for. stale: another change is due after it.
	waiting, covered []*launch
	updating, stale  bool
}

type container struct {
	stored
	id         string
	executor   *executor
	task       *task // nil: a root
	chain      []Link
	phase      phase
	pid        int64
	netns      string
	networks   []*mezzov1.NetworkInfo
	cgroup     *mezzov1.CgroupInfo
	sandbox    string
	latest     string
	launch     *launch // until the task runs
	limitation *isolatorv1.Limitation
	failure    string // why its start failed, while its task has not ended yet
	waited     bool   // Wait was asked for
	lost       bool   // a root that is no more, though containers are nested in it
}

func (c *container) parent() string {
	if c.executor.root != nil && c.executor.root != c {
		return c.executor.root.id
	}
	return ""
}

// phase is how far a container has come.
type phase int

const (
	claiming phase = iota // nothing of it exists
	launching
	created  // its process is stopped
	starting // Start was asked for
	running
	unknown  // found in the records as started, its launcher has not answered
	unborn   // found in the records, not known to have been started
	cleaning // its process is gone, or is to be gone with it
)

var phaseNames = [...]string{"claiming", "launching", "created", "starting", "running", "recovering", "recovering", "cleaning"}

func (p phase) String() string { return phaseNames[p] }

type isolator struct {
	name       string
	configured bool
	healthy    bool
	reason     string
	up         bool // its process has answered Recover
	answered   bool // some process of it has, since the machine began
	spec       []byte
	stored     stored
	orphans    []string
}

// New makes a machine that has not been restored yet.
func New(cfg Config) *Machine {
	m := &Machine{
		cfg:        cfg.withDefaults(),
		chance:     rand.NewChaCha8(cfg.Seed),
		operations: map[string]*pending{},
		chores:     map[string]*chore{},
		frameworks: map[string]*framework{},
		executors:  map[string]*executor{},
		live:       map[executorKey]*executor{},
		containers: map[string]*container{},
		tasks:      map[taskKey]*task{},
		launches:   map[uint64]*launch{},
		orphans:    map[string]bool{},
		streams:    map[uint64]*executor{},
		standalone: map[string]*standalone{},
		claims:     map[uint64]*standalone{},
	}
	for _, name := range m.cfg.Isolators {
		m.isolators = append(m.isolators, &isolator{name: name, configured: true, reason: "has not started yet"})
	}
	m.setAdapters(m.cfg.Adapters)
	m.link.pingTimeout = m.cfg.PingTimeout
	return m
}

// Step takes one input and says what is to be done about it.
func (m *Machine) Step(now time.Time, in Input) []Output {
	m.now = now
	switch {
	case !m.restored:
		restore, ok := in.(Restore)
		if !ok {
			panic(fmt.Sprintf("agent state: %T before Restore", in))
		}
		m.restore(restore)
	case m.over:
		// Nothing is decided any more.
	default:
		m.handle(in)
	}
	if !m.over {
		m.fire()
		m.finish()
	}
	return m.settle()
}

func (m *Machine) handle(in Input) {
	if m.handleStandalone(in) {
		return
	}
	switch in := in.(type) {
	case Written:
		m.written = max(m.written, in.Sequence)
	case End:
		m.end(in.Reason, nil)
	case Tick:
	case LinkUp:
		m.linkUp(in)
	case LinkDown:
		m.linkDown(in)
	case LinkMessage:
		m.linkMessage(in)
	case LeaderFound:
		m.leaderFound()
	case IsolatorUp:
		m.isolatorUp(in)
	case IsolatorRecovered:
		m.isolatorRecovered(in)
	case IsolatorHealth:
		m.isolatorHealth(in)
	case SetIsolators:
		m.setIsolators(in)
	case SetAdapters:
		m.setAdapters(in.Adapters)
	case AdapterUp:
		m.adapterUp(in)
	case AdapterDown:
		m.adapterDown(in)
	case Claimed:
		m.claimed(in)
	case Created:
		m.created(in)
	case Progress:
		m.progress(in)
	case Started:
		m.started(in)
	case Updated:
		m.updated(in)
	case Probed:
		m.probed(in)
	case LaunchFailed:
		m.launchFailed(in)
	case Exited:
		m.exited(in)
	case Limited:
		m.limited(in)
	case CleanedUp:
		m.cleanedUp(in)
	case VolumeDone:
		m.volumeDone(in)
	case ExecutorSubscribe:
		m.subscribe(in)
	case ExecutorClosed:
		m.executorClosed(in)
	case ExecutorCall:
		m.executorCall(in)
	default:
		panic(fmt.Sprintf("agent state: unknown input %T", in))
	}
}

// settle closes a step: what changed goes into a checkpoint, what depends on it
// waits, what waited long enough goes out.
func (m *Machine) settle() []Output {
	if records := m.changes(); len(records) > 0 {
		m.sequence++
		m.immediate = append(m.immediate, Checkpoint{Sequence: m.sequence, Records: records})
	}
	for _, o := range m.effects {
		m.held = append(m.held, held{after: m.sequence, output: o})
	}
	n := 0
	for n < len(m.held) && m.held[n].after <= m.written {
		m.immediate = append(m.immediate, m.held[n].output)
		if _, ok := m.held[n].output.(Exit); ok {
			m.over = true
		}
		n++
	}
	m.held = slices.Delete(m.held, 0, n)
	out := m.immediate
	m.immediate, m.effects = nil, m.effects[:0]
	return out
}

// effect is an output that others notice: it waits for the checkpoint.
func (m *Machine) effect(o Output) { m.effects = append(m.effects, o) }

func (m *Machine) log(level Level, message string, fields ...any) {
	m.immediate = append(m.immediate, Log{Level: level, Message: message, Fields: fields})
}

// uuid is a random UUID, version 4.
func (m *Machine) uuid() []byte {
	b := make([]byte, 16)
	_, _ = m.chance.Read(b) // never fails
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	return b
}

func (m *Machine) newContainerID() string {
	b := m.uuid()
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[0:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// jitter is a random duration in (0, d].
func (m *Machine) jitter(d time.Duration) time.Duration {
	return time.Duration(m.chance.Uint64()%uint64(d)) + 1
}

// finish ends an agent that was told to end, once nothing runs any more.
func (m *Machine) finish() {
	if m.ending == nil || m.exiting || len(m.containers) > 0 {
		return
	}
	for _, s := range m.standalone {
		if s.living() {
			return
		}
	}
	if !m.ending.silent {
		m.sendMaster(&linkv1.AgentMessage{Message: &linkv1.AgentMessage_Unregister{Unregister: &linkv1.Unregister{}}})
	}
	if m.ending.forget {
		m.id = ""
		m.touch(agentEntity{m})
	}
	m.effect(Exit{Reason: m.ending.reason, Err: m.ending.err})
	m.exiting = true
}

// NextDeadline is when Tick is wanted next; zero: never.
func (m *Machine) NextDeadline() time.Time {
	next := m.link.deadline()
	if !m.adaptersBy.IsZero() && (next.IsZero() || m.adaptersBy.Before(next)) {
		next = m.adaptersBy
	}
	for len(m.timers) > 0 {
		first := m.timers[0]
		if !first.valid() {
			heap.Pop(&m.timers)
			continue
		}
		if next.IsZero() || first.at.Before(next) {
			next = first.at
		}
		break
	}
	return next
}

// fire does what is due.
func (m *Machine) fire() {
	m.linkTick()
	m.adaptersLate()
	for len(m.timers) > 0 {
		first := m.timers[0]
		if first.valid() && first.at.After(m.now) {
			return
		}
		heap.Pop(&m.timers)
		switch {
		case !first.valid():
		case first.pending != nil:
			m.sendOperation(first.pending)
		case first.prober != nil:
			m.probe(first.prober)
		case first.task != nil:
			m.resend(first.task)
		default:
			m.programDue(first.executor)
		}
	}
}

// timer is when a task's update is sent again, or a task is to be looked at, or
// something is due for a custom executor. It is void once their own time is
// another.
type timer struct {
	at       time.Time
	task     *task
	executor *executor
	prober   *prober
	pending  *pending
}

func (t timer) valid() bool {
	if t.pending != nil {
		return !t.pending.gone && t.pending.retryAt.Equal(t.at)
	}
	if t.prober != nil {
		return t.prober.due.Equal(t.at)
	}
	if t.task != nil {
		return !t.task.gone && t.task.retryAt.Equal(t.at)
	}
	return !t.executor.gone && t.executor.program.due().Equal(t.at)
}

// subject orders timers of the same time.
func (t timer) subject() taskKey {
	if t.pending != nil {
		return t.pending.key()
	}
	if t.prober != nil {
		return t.prober.task.key
	}
	if t.task != nil {
		return t.task.key
	}
	return taskKey{id: t.executor.run}
}

type timers []timer

func (t timers) Len() int { return len(t) }
func (t timers) Less(i, j int) bool {
	if !t[i].at.Equal(t[j].at) {
		return t[i].at.Before(t[j].at)
	}
	return t[i].subject().compare(t[j].subject()) < 0
}
func (t timers) Swap(i, j int) { t[i], t[j] = t[j], t[i] }
func (t *timers) Push(x any)   { *t = append(*t, x.(timer)) }
func (t *timers) Pop() any {
	old := *t
	last := old[len(old)-1]
	old[len(old)-1] = timer{}
	*t = old[:len(old)-1]
	return last
}

func (t *timers) add(x timer) { heap.Push(t, x) }

func (m *Machine) sortedTasks() []*task {
	return slices.SortedFunc(maps.Values(m.tasks), func(a, b *task) int { return a.key.compare(b.key) })
}

func (m *Machine) sortedContainers() []*container {
	ids := slices.Sorted(maps.Keys(m.containers))
	list := make([]*container, len(ids))
	for i, id := range ids {
		list[i] = m.containers[id]
	}
	return list
}

func (m *Machine) isolator(name string) *isolator {
	for _, i := range m.isolators {
		if i.name == name {
			return i
		}
	}
	return nil
}
