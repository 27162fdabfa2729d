package state_test

import (
	"time"

	"google.golang.org/protobuf/proto"

	corelink "github.com/mezzo-os/mezzo/core/link"
	"github.com/mezzo-os/mezzo/core/master/state"
	"github.com/mezzo-os/mezzo/sdk/allocator"
	"github.com/mezzo-os/mezzo/sdk/resource"

	linkv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/link/v1"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
	schedulerv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1/scheduler"
)

var epoch = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

// reporter is what testing.T and rapid.T share.
type reporter interface {
	Helper()
	Fatal(args ...any)
	Fatalf(format string, args ...any)
}

// world is a machine with what a shell would have around it: a registry, the
// time, and an allocator's mirror that is kept by the events alone.
type world struct {
	t       reporter
	m       *state.Machine
	cfg     state.Config
	now     time.Time
	durable map[string][]byte
	// manual: registry writes wait to be answered by hand.
	manual  bool
	writes  []state.RegistryWrite
	mirror  *mirror
	session state.Session // the current one
	// next is the mirror of a session that prepares to take over; nil: none does.
	next      *mirror
	preparing state.Session
	sessions  state.Session // the last that was named
	// views is what a watcher of Publish knows.
	tasks  map[state.TaskKey]*state.TaskView
	agents map[string]*state.AgentView
	// operationEnds are how often operations were told to have ended.
	operationEnds map[string]int
	seq           uint64
}

func newWorld(t reporter, cfg state.Config) *world {
	w := &world{t: t, cfg: cfg, now: epoch, durable: map[string][]byte{}, operationEnds: map[string]int{}}
	w.start()
	return w
}

// start makes a machine from what is durable: a first one, or a new leader.
func (w *world) start() {
	w.t.Helper()
	var rec state.Recovered
	for k, v := range w.durable {
		rec.Entries = append(rec.Entries, state.Entry{Key: k, Value: v})
	}
	m, err := state.New(w.cfg, rec, w.now)
	if err != nil {
		w.t.Fatal(err)
	}
	w.next, w.preparing = nil, 0
	w.m, w.writes, w.mirror, w.tasks = m, nil, nil, map[state.TaskKey]*state.TaskView{}
	w.agents = map[string]*state.AgentView{}
	if err := m.Audit(); err != nil {
		w.t.Fatalf("audit after recovery: %v", err)
	}
}

// step gives the machine one input and returns its outputs, those that follow
// from registry writes included. It audits after every step.
func (w *world) step(in state.Input) []state.Output {
	w.t.Helper()
	var all []state.Output
	queue := []state.Input{in}
	for len(queue) > 0 {
		in, queue = queue[0], queue[1:]
		outs := append([]state.Output(nil), w.m.Step(w.now, in)...)
		all = append(all, outs...)
		for _, out := range outs {
			switch out := out.(type) {
			case state.RegistryWrite:
				if w.manual {
					w.writes = append(w.writes, out)
					continue
				}
				w.commit(out)
				queue = append(queue, state.RegistryWritten{ID: out.ID})
			case state.AllocatorBegin, state.CloseAllocator, state.AllocatorCurrent, state.AllocatorBatch:
				w.allocatorHears(out)
			case state.Publish:
				for _, v := range out.Agents {
					w.agents[v.ID] = v
				}
				for _, id := range out.AgentsRemoved {
					delete(w.agents, id)
				}
				for _, v := range out.Tasks {
					w.tasks[v.TaskKey] = v
				}
				for _, k := range out.TasksRemoved {
					delete(w.tasks, k)
				}
				for _, end := range out.OperationEnds {
					w.operationEnds[end.Type.String()+" "+end.State.String()]++
				}
			}
		}
		if err := w.m.Audit(); err != nil {
			w.t.Fatalf("audit after %T: %v", in, err)
		}
	}
	return all
}

// allocatorHears keeps the mirrors.
func (w *world) allocatorHears(out state.Output) {
	w.t.Helper()
	place := func(s state.Session) **mirror {
		switch {
		case s == w.preparing:
			return &w.next
		case s == w.session:
			return &w.mirror
		}
		w.t.Fatalf("%T for session %d, which is neither current (%d) nor preparing (%d)", out, s, w.session, w.preparing)
		return nil
	}
	switch out := out.(type) {
	case state.AllocatorBegin:
		if out.Session != w.session {
			w.preparing = out.Session
		}
		*place(out.Session) = newMirror(out.Begin)
	case state.CloseAllocator:
		*place(out.Session) = nil
		if out.Session == w.preparing {
			w.preparing = 0
		}
	case state.AllocatorCurrent:
		if out.Session != w.preparing || w.mirror != nil && out.Replaced != w.session || w.mirror == nil && out.Replaced != 0 {
			w.t.Fatalf("%+v while %d is current and %d prepares", out, w.session, w.preparing)
		}
		w.session, w.mirror, w.preparing, w.next = out.Session, w.next, 0, nil
	case state.AllocatorBatch:
		r := *place(out.Session)
		if r == nil {
			w.t.Fatalf("batch before begin")
		}
		r.apply(w.t, out.Batch)
	}
}

// open is the next session, named; prepare it is one that is to take over.
func (w *world) open() state.AllocatorOpened {
	w.sessions++
	w.session = w.sessions
	return state.AllocatorOpened{Session: w.session}
}

func (w *world) prepare(config *state.Config) state.AllocatorOpened {
	w.sessions++
	if w.next == nil { // else the machine closes it first
		w.preparing = w.sessions
	}
	return state.AllocatorOpened{Session: w.sessions, Prepare: true, Config: config}
}

func (w *world) commit(out state.RegistryWrite) {
	for _, e := range out.Entries {
		if e.Value == nil {
			delete(w.durable, e.Key)
		} else {
			w.durable[e.Key] = e.Value
		}
	}
}

// advance lets time pass, with a Tick at every deadline.
func (w *world) advance(d time.Duration) []state.Output {
	w.t.Helper()
	var all []state.Output
	end := w.now.Add(d)
	for i := 0; ; i++ {
		at, ok := w.m.NextDeadline()
		if !ok || at.After(end) {
			break
		}
		if at.After(w.now) {
			w.now = at
		}
		all = append(all, w.step(state.Tick{})...)
		if i > 100_000 {
			w.t.Fatal("the machine's deadlines never end")
		}
	}
	w.now = end
	return append(all, w.step(state.Tick{})...)
}

// mirror is what an allocator knows by the events alone.
type mirror struct {
	begin      allocator.Begin
	agents     map[string]*mirrorAgent
	frameworks map[string]*allocator.FrameworkUpdated
	filters    int
	tasks      map[uint64]bool
	next       uint64
	snapshot   bool
	refused    []*allocator.Refused
}

type mirrorAgent struct {
	updated  *allocator.AgentUpdated
	holdings map[[2]string]resource.Resources
	offers   map[uint64]resource.Resources
}

func newMirror(b allocator.Begin) *mirror {
	return &mirror{begin: b, agents: map[string]*mirrorAgent{}, frameworks: map[string]*allocator.FrameworkUpdated{}, tasks: map[uint64]bool{}, next: 1, snapshot: true}
}

func (r *mirror) apply(t reporter, b allocator.Batch) {
	t.Helper()
	if b.Snapshot != r.snapshot {
		t.Fatalf("snapshot is %v, want %v", b.Snapshot, r.snapshot)
	}
	if !b.Snapshot {
		if b.FirstEvent != r.next {
			t.Fatalf("events begin at %d, want %d", b.FirstEvent, r.next)
		}
		r.next += uint64(len(b.Events))
	}
	for _, e := range b.Events {
		r.event(t, e)
	}
	if b.SnapshotEnd {
		r.snapshot = false
	}
}

func (r *mirror) agent(t reporter, id string) *mirrorAgent {
	t.Helper()
	a := r.agents[id]
	if a == nil {
		t.Fatalf("event names agent %s before it was told", id)
	}
	return a
}

func (a *mirrorAgent) add(f, role string, res resource.Resources) {
	key := [2]string{f, role}
	a.holdings[key] = a.holdings[key].Add(res)
}

func (r *mirror) event(t reporter, e allocator.Event) {
	t.Helper()
	switch e := e.(type) {
	case *allocator.AgentUpdated:
		r.setAgent(e)
	case *allocator.AgentRemoved:
		r.agent(t, e.ID)
		delete(r.agents, e.ID)
	case *allocator.FrameworkUpdated:
		r.frameworks[e.ID] = e
	case *allocator.FrameworkRemoved:
		if r.frameworks[e.ID] == nil {
			t.Fatalf("framework %s removed that was never told", e.ID)
		}
		delete(r.frameworks, e.ID)
		for id, a := range r.agents {
			for key, h := range a.holdings {
				if key[0] == e.ID && !h.IsEmpty() {
					t.Fatalf("framework %s removed while it holds %s on %s", e.ID, h, id)
				}
			}
		}
	case *allocator.Held:
		r.agent(t, e.Agent).add(e.Framework, e.Role, e.Resources)
	case *allocator.Released:
		a := r.agent(t, e.Agent)
		key := [2]string{e.Framework, e.Role}
		if !a.holdings[key].Contains(e.Resources) {
			t.Fatalf("released %s of %v on %s, which holds %s", e.Resources, key, e.Agent, a.holdings[key])
		}
		a.holdings[key] = a.holdings[key].Minus(e.Resources)
		if e.Offer != 0 {
			delete(a.offers, e.Offer)
		}
	case *allocator.OfferOutstanding:
		r.agent(t, e.Agent).offers[e.Number] = e.Resources
	case *allocator.Filter:
		r.agent(t, e.Agent)
		r.filters++
	case *allocator.Refused:
		r.refused = append(r.refused, e)
		if e.Agent != nil {
			r.setAgent(e.Agent)
		}
	case *allocator.InverseOfferStatus:
		if a := r.agent(t, e.Agent); a.updated.Unavailability == nil && e.State != allocator.InverseOfferRescinded {
			t.Fatalf("inverse offer %d of agent %s, which has no unavailability", e.Number, e.Agent)
		}
	case *allocator.TaskStarted:
		r.agent(t, e.Agent)
		r.tasks[e.Number] = true
	case *allocator.TaskEnded:
		delete(r.tasks, e.Number)
	case *allocator.Converted:
		a := r.agent(t, e.Agent)
		if !a.updated.Total.Contains(e.From) {
			t.Fatalf("converted %s on %s, which has %s", e.From, e.Agent, a.updated.Total)
		}
		if e.Framework != "" {
			key := [2]string{e.Framework, e.Role}
			if !a.holdings[key].Contains(e.From) {
				t.Fatalf("converted %s of %v on %s, which holds %s", e.From, key, e.Agent, a.holdings[key])
			}
			a.holdings[key] = a.holdings[key].Minus(e.From).Add(e.To)
		}
		u := *a.updated
		u.Total, u.Version = u.Total.Minus(e.From).Add(e.To), e.Version
		a.updated = &u
	case *allocator.RoleUpdated, *allocator.Suppressed, *allocator.Revived, *allocator.Requested:
	default:
		t.Fatalf("unexpected event %T", e)
	}
}

func (r *mirror) setAgent(e *allocator.AgentUpdated) {
	a := r.agents[e.ID]
	if a == nil {
		a = &mirrorAgent{holdings: map[[2]string]resource.Resources{}, offers: map[uint64]resource.Resources{}}
		r.agents[e.ID] = a
	}
	a.updated = e
	if e.HoldingsSet {
		a.holdings = map[[2]string]resource.Resources{}
		for _, h := range e.Holdings {
			a.add(h.Framework, h.Role, h.Resources)
		}
	}
}

// free is what the mirror believes nobody holds.
func (r *mirror) free(id string) resource.Resources {
	a := r.agents[id]
	free := a.updated.Total
	for _, h := range a.holdings {
		free = free.Minus(h)
	}
	return free
}

// openAllocator opens a session and brings it to readiness.
func (w *world) openAllocator() []state.Output {
	w.t.Helper()
	outs := w.step(w.open())
	for w.mirror.snapshot {
		w.now = w.now.Add(time.Nanosecond)
		outs = append(outs, w.step(state.Tick{})...)
	}
	return append(outs, w.step(state.AllocatorReady{Session: w.session})...)
}

// offer decides an offer and applies it to the mirror, as an engine does.
func (w *world) offer(framework, role, agent string, res resource.Resources) []state.Output {
	w.t.Helper()
	w.seq = max(w.seq+1, w.mirror.begin.FirstDecision)
	if a := w.mirror.agents[agent]; a != nil {
		a.add(framework, role, res)
		a.offers[w.seq] = res
	}
	return w.step(state.AllocatorDecisions{Session: w.session, Decisions: []allocator.Decision{
		&allocator.Offer{Number: w.seq, Agent: agent, Framework: framework, Role: role, Resources: res},
	}})
}

// reported is a task as an agent reports it.
type reported struct {
	framework, id, executor string
	resources               resource.Resources
	role                    string
	state                   mezzov1.TaskState
	unacked                 bool
	uuid                    []byte
}

func register(id, host string, total resource.Resources, tasks []reported) *linkv1.Register {
	p := corelink.NewPacker()
	r := &linkv1.Register{Agent: &linkv1.Agent{
		Id: id, Hostname: host, Version: "1.0", HttpAddress: host + ":5062", RpcAddress: host + ":5063", Resources: p.Pack(total),
	}}
	places := map[string]uint32{}
	executors := map[string]bool{}
	for _, t := range tasks {
		place := places[t.framework]
		if place == 0 {
			place = uint32(len(places) + 1)
			places[t.framework] = place
			r.Frameworks = append(r.Frameworks, &mezzov1.FrameworkInfo{
				Id: &mezzov1.FrameworkID{Value: proto.String(t.framework)}, User: proto.String("u"), Name: proto.String("n"),
			})
		}
		if t.executor != "" && !executors[t.framework+"/"+t.executor] {
			executors[t.framework+"/"+t.executor] = true
			r.Executors = append(r.Executors, &linkv1.Executor{
				Framework: place, Role: t.role, Resources: p.Pack(resource.MustParse("cpus:0.1;mem:32;disk:10")),
				Info: &mezzov1.ExecutorInfo{
					ExecutorId: &mezzov1.ExecutorID{Value: proto.String(t.executor)}, Type: mezzov1.ExecutorInfo_DEFAULT.Enum(),
				},
			})
		}
		r.Tasks = append(r.Tasks, &linkv1.Task{
			Framework: place, Id: t.id, Name: t.id, ExecutorId: t.executor, Resources: p.Pack(t.resources), Role: t.role,
			State: t.state.Enum(), Unacknowledged: t.unacked, UpdateState: t.state.Enum(), UpdateUuid: t.uuid,
			Status: status(t.id, id, t.state, t.uuid),
		})
	}
	r.Kinds = p.Kinds()
	return r
}

func status(task, agent string, s mezzov1.TaskState, uuid []byte) *mezzov1.TaskStatus {
	return &mezzov1.TaskStatus{
		TaskId: &mezzov1.TaskID{Value: proto.String(task)}, AgentId: &mezzov1.AgentID{Value: proto.String(agent)},
		State: s.Enum(), Uuid: uuid, Source: mezzov1.TaskStatus_SOURCE_EXECUTOR.Enum(), Timestamp: proto.Float64(1),
	}
}

// uuid makes a valid UUID of a small number.
func uuid(n int) []byte {
	return []byte{0, 0, 0, 0, 0, 0, 0x40, 0, 0x80, 0, 0, 0, 0, 0, byte(n >> 8), byte(n)}
}

func framework(name, id string, roles []string, failover float64, caps ...mezzov1.FrameworkInfo_Capability_Type) *mezzov1.FrameworkInfo {
	info := &mezzov1.FrameworkInfo{
		User: proto.String("root"), Name: proto.String(name), Roles: roles, FailoverTimeout: proto.Float64(failover),
	}
	if id != "" {
		info.Id = &mezzov1.FrameworkID{Value: proto.String(id)}
	}
	for _, c := range append(caps, mezzov1.FrameworkInfo_Capability_MULTI_ROLE) {
		info.Capabilities = append(info.Capabilities, &mezzov1.FrameworkInfo_Capability{Type: c.Enum()})
	}
	return info
}

func taskInfo(id, agent string, res resource.Resources) *mezzov1.TaskInfo {
	return &mezzov1.TaskInfo{
		Name: proto.String(id), TaskId: &mezzov1.TaskID{Value: proto.String(id)}, AgentId: &mezzov1.AgentID{Value: proto.String(agent)},
		Resources: res.ToProto(), Command: &mezzov1.CommandInfo{Value: proto.String("true")},
	}
}

func launch(tasks ...*mezzov1.TaskInfo) *mezzov1.Offer_Operation {
	return &mezzov1.Offer_Operation{
		Type: mezzov1.Offer_Operation_LAUNCH.Enum(), Launch: &mezzov1.Offer_Operation_Launch{TaskInfos: tasks},
	}
}

func launchGroup(e *mezzov1.ExecutorInfo, tasks ...*mezzov1.TaskInfo) *mezzov1.Offer_Operation {
	return &mezzov1.Offer_Operation{
		Type:        mezzov1.Offer_Operation_LAUNCH_GROUP.Enum(),
		LaunchGroup: &mezzov1.Offer_Operation_LaunchGroup{Executor: e, TaskGroup: &mezzov1.TaskGroupInfo{Tasks: tasks}},
	}
}

func offerIDs(ids ...string) []*mezzov1.OfferID {
	var out []*mezzov1.OfferID
	for _, id := range ids {
		out = append(out, &mezzov1.OfferID{Value: proto.String(id)})
	}
	return out
}

func call(framework, stream string, c *schedulerv1.Call) state.SchedulerCall {
	c.FrameworkId = &mezzov1.FrameworkID{Value: proto.String(framework)}
	if stream != "" {
		c.StreamId = proto.String(stream)
	}
	return state.SchedulerCall{Caller: 1, Call: c}
}
