package state_test

import (
	"fmt"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

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
	session state.Session
	// views is what a watcher of Publish knows.
	tasks map[state.TaskKey]*state.TaskView
	seq   uint64
}

func newWorld(t reporter, cfg state.Config) *world {
	w := &world{t: t, cfg: cfg, now: epoch, durable: map[string][]byte{}}
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
	w.m, w.writes, w.mirror, w.tasks = m, nil, nil, map[state.TaskKey]*state.TaskView{}
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
			case state.AllocatorBegin:
				w.mirror = newMirror(out.Begin)
			case state.AllocatorBatch:
				if w.mirror == nil {
					w.t.Fatalf("batch before begin")
				}
				w.mirror.apply(w.t, out.Batch)
			case state.Publish:
				for _, v := range out.Tasks {
					w.tasks[v.TaskKey] = v
				}
				for _, k := range out.TasksRemoved {
					delete(w.tasks, k)
				}
			}
		}
		if err := w.m.Audit(); err != nil {
			w.t.Fatalf("audit after %T: %v", in, err)
		}
	}
	return all
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
	return &mirror{begin: b, agents: map[string]*mirrorAgent{}, frameworks: map[string]*allocator.FrameworkUpdated{}, next: 1, snapshot: true}
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
	case *allocator.RoleUpdated, *allocator.Suppressed, *allocator.Revived, *allocator.Requested,
		*allocator.TaskStarted, *allocator.TaskEnded:
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
	w.session++
	outs := w.step(state.AllocatorOpened{Session: w.session})
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

// describe writes an output as one or more lines of a transcript; nothing for
// what a transcript does not show.
func describe(out state.Output) string {
	switch out := out.(type) {
	case state.SendAgent:
		return fmt.Sprintf("agent link %d <- %s", out.Link, describeMaster(out.Message))
	case state.CloseAgent:
		return fmt.Sprintf("agent link %d closed: %s", out.Link, out.Reason)
	case state.SendScheduler:
		return fmt.Sprintf("scheduler %s <- %s", out.Stream, describeEvent(out.Event))
	case state.CloseScheduler:
		return fmt.Sprintf("scheduler %s closed: %s", out.Stream, out.Reason)
	case state.CallResult:
		if out.Result.GetCode() == schedulerv1.CallResult_ACCEPTED {
			return ""
		}
		return fmt.Sprintf("call %s: %s", out.Result.GetCode(), out.Result.GetMessage())
	case state.AllocatorBegin:
		return fmt.Sprintf("allocator %d begin first_decision=%d", out.Session, out.Begin.FirstDecision)
	case state.AllocatorBatch:
		return describeBatch(out)
	case state.CloseAllocator:
		return fmt.Sprintf("allocator %d closed: %s", out.Session, out.Reason)
	case state.RegistryWrite:
		var lines []string
		for _, e := range out.Entries {
			value := "deleted"
			if e.Value != nil {
				value = standing(e)
			}
			lines = append(lines, fmt.Sprintf("registry %d: %s %s", out.ID, e.Key, value))
		}
		return strings.Join(lines, "\n")
	case state.Reply:
		if out.Err != nil {
			return fmt.Sprintf("reply %d: %s", out.Request, out.Err.Message)
		}
		return fmt.Sprintf("reply %d: done", out.Request)
	}
	return ""
}

func standing(e state.Entry) string {
	for _, s := range []string{"admitted", "unreachable", "gone"} {
		if strings.Contains(string(e.Value), `"standing":"`+s+`"`) {
			return s
		}
	}
	return "written"
}

func describeMaster(msg *linkv1.MasterMessage) string {
	refs := func(list []*linkv1.TaskRef) string {
		var out []string
		for _, r := range list {
			out = append(out, r.GetFrameworkId()+"/"+r.GetTaskId())
		}
		return strings.Join(out, ",")
	}
	switch x := msg.GetMessage().(type) {
	case *linkv1.MasterMessage_Registered:
		s := "REGISTERED " + x.Registered.GetAgentId()
		if k := x.Registered.GetKilled(); len(k) > 0 {
			s += " killed=" + refs(k)
		}
		if c := x.Registered.GetCompletedFrameworks(); len(c) > 0 {
			s += " completed=" + strings.Join(c, ",")
		}
		return s
	case *linkv1.MasterMessage_Refused:
		return fmt.Sprintf("REFUSED gone=%v: %s", x.Refused.GetGone(), x.Refused.GetReason())
	case *linkv1.MasterMessage_Ping:
		return "PING"
	case *linkv1.MasterMessage_Run:
		var ids []string
		for _, t := range x.Run.GetTasks() {
			ids = append(ids, t.GetTaskId().GetValue())
		}
		s := "RUN " + strings.Join(ids, ",")
		if e := x.Run.GetExecutor(); e != nil {
			s += " executor=" + e.GetExecutorId().GetValue()
		}
		if x.Run.GetGroup() {
			s += " group"
		}
		return s
	case *linkv1.MasterMessage_Kill:
		s := "KILL " + refs([]*linkv1.TaskRef{x.Kill.GetTask()})
		if g := x.Kill.GetKillPolicy().GetGracePeriod(); g != nil {
			s += fmt.Sprintf(" grace=%s", time.Duration(g.GetNanoseconds()))
		}
		return s
	case *linkv1.MasterMessage_Acknowledge:
		return "ACKNOWLEDGE " + refs([]*linkv1.TaskRef{x.Acknowledge.GetTask()})
	case *linkv1.MasterMessage_ShutdownFramework:
		return "SHUTDOWN FRAMEWORK " + x.ShutdownFramework.GetFrameworkId()
	case *linkv1.MasterMessage_ShutdownExecutor:
		return "SHUTDOWN EXECUTOR " + x.ShutdownExecutor.GetExecutorId()
	case *linkv1.MasterMessage_Reconcile:
		return "RECONCILE " + refs(x.Reconcile.GetTasks())
	case *linkv1.MasterMessage_FrameworkMessage:
		return fmt.Sprintf("MESSAGE executor=%s %q", x.FrameworkMessage.GetExecutorId(), x.FrameworkMessage.GetData())
	case *linkv1.MasterMessage_UpdateFramework:
		return "UPDATE FRAMEWORK " + x.UpdateFramework.GetFramework().GetId().GetValue()
	}
	return fmt.Sprintf("%T", msg.GetMessage())
}

func describeEvent(e *schedulerv1.Event) string {
	switch e.GetType() {
	case schedulerv1.Event_SUBSCRIBED:
		return "SUBSCRIBED " + e.GetSubscribed().GetFrameworkId().GetValue()
	case schedulerv1.Event_OFFERS:
		var lines []string
		for _, o := range e.GetOffers().GetOffers() {
			res, err := resource.FromProto(o.GetResources())
			if err != nil {
				return err.Error()
			}
			s := fmt.Sprintf("OFFER %s role=%s agent=%s %s", o.GetId().GetValue(), o.GetAllocationInfo().GetRole(),
				o.GetAgentId().GetValue(), res.Unallocate())
			for _, x := range o.GetExecutorIds() {
				s += " executor=" + x.GetValue()
			}
			lines = append(lines, s)
		}
		return strings.Join(lines, " + ")
	case schedulerv1.Event_RESCIND:
		return "RESCIND " + e.GetRescind().GetOfferId().GetValue()
	case schedulerv1.Event_UPDATE:
		st := e.GetUpdate().GetStatus()
		s := fmt.Sprintf("UPDATE %s %s source=%s", st.GetTaskId().GetValue(), strings.TrimPrefix(st.GetState().String(), "TASK_"),
			strings.TrimPrefix(st.GetSource().String(), "SOURCE_"))
		if st.Reason != nil {
			s += " reason=" + strings.TrimPrefix(st.GetReason().String(), "REASON_")
		}
		if st.UnreachableTime != nil {
			s += " unreachable_time"
		}
		if len(st.GetUuid()) > 0 {
			s += " uuid"
		}
		if st.Message != nil {
			s += ": " + st.GetMessage()
		}
		return s
	case schedulerv1.Event_UPDATE_OPERATION_STATUS:
		st := e.GetUpdateOperationStatus().GetStatus()
		return fmt.Sprintf("OPERATION %s %s: %s", st.GetOperationId().GetValue(), st.GetState(), st.GetMessage())
	case schedulerv1.Event_MESSAGE:
		return fmt.Sprintf("MESSAGE executor=%s %q", e.GetMessage().GetExecutorId().GetValue(), e.GetMessage().GetData())
	case schedulerv1.Event_FAILURE:
		s := "FAILURE agent=" + e.GetFailure().GetAgentId().GetValue()
		if x := e.GetFailure().GetExecutorId(); x != nil {
			s += fmt.Sprintf(" executor=%s status=%d", x.GetValue(), e.GetFailure().GetStatus())
		}
		return s
	case schedulerv1.Event_ERROR:
		return "ERROR " + e.GetError().GetMessage()
	}
	return e.GetType().String()
}

func describeBatch(out state.AllocatorBatch) string {
	b := out.Batch
	var lines []string
	head := fmt.Sprintf("allocator %d <- ", out.Session)
	if b.Snapshot {
		head += "snapshot "
	}
	for _, e := range b.Events {
		lines = append(lines, head+describeAllocatorEvent(e))
	}
	if b.SnapshotEnd {
		lines = append(lines, head+"end")
	}
	return strings.Join(lines, "\n")
}

func describeAllocatorEvent(e allocator.Event) string {
	res := func(r resource.Resources) string {
		if r.IsEmpty() {
			return "nothing"
		}
		return r.String()
	}
	switch e := e.(type) {
	case *allocator.AgentUpdated:
		s := fmt.Sprintf("agent %s active=%v total=%s", e.ID, e.Active, e.Total)
		for _, h := range e.Holdings {
			s += fmt.Sprintf(" held=%s/%s:%s", h.Framework, h.Role, h.Resources)
		}
		return s
	case *allocator.AgentRemoved:
		return "agent removed " + e.ID
	case *allocator.FrameworkUpdated:
		return fmt.Sprintf("framework %s active=%v roles=%v suppressed=%v", e.ID, e.Active, e.Roles, e.Suppressed)
	case *allocator.FrameworkRemoved:
		return "framework removed " + e.ID
	case *allocator.RoleUpdated:
		s := fmt.Sprintf("role %s weight=%d", e.Name, e.Weight)
		if e.Limit != nil {
			s += " limit=" + e.Limit.String()
		}
		return s
	case *allocator.Held:
		return fmt.Sprintf("held %s %s/%s %s", e.Agent, e.Framework, e.Role, e.Resources)
	case *allocator.Released:
		s := fmt.Sprintf("released %s %s/%s %s", e.Agent, e.Framework, e.Role, res(e.Resources))
		if e.Refuse > 0 {
			s += fmt.Sprintf(" refuse=%s", e.Refuse)
		}
		if e.Declined {
			s += " declined"
		}
		if e.Offer != 0 {
			s += fmt.Sprintf(" offer=%d", e.Offer)
		}
		return s
	case *allocator.Filter:
		s := fmt.Sprintf("filter %s %s/%s %s remaining=%s", e.Agent, e.Framework, e.Role, e.Resources, e.Remaining)
		if e.Soft {
			s += " soft"
		}
		return s
	case *allocator.OfferOutstanding:
		return fmt.Sprintf("offer %d %s %s/%s %s", e.Number, e.Agent, e.Framework, e.Role, e.Resources)
	case *allocator.Refused:
		return fmt.Sprintf("refused %d %s: %s", e.Decision, strings.TrimPrefix(e.Reason.String(), "REFUSAL_REASON_"), e.Message)
	case *allocator.Suppressed:
		return fmt.Sprintf("suppressed %s %v", e.Framework, e.Roles)
	case *allocator.Revived:
		return fmt.Sprintf("revived %s %v", e.Framework, e.Roles)
	case *allocator.TaskStarted:
		return fmt.Sprintf("task %d started %s", e.Number, e.Resources)
	case *allocator.TaskEnded:
		return fmt.Sprintf("task %d ended", e.Number)
	case *allocator.Requested:
		return fmt.Sprintf("requested %s %s", e.Framework, e.Resources)
	}
	return fmt.Sprintf("%T", e)
}

func lines(outs []state.Output) string {
	var b strings.Builder
	for _, o := range outs {
		if s := describe(o); s != "" {
			b.WriteString(s)
			b.WriteByte('\n')
		}
	}
	return b.String()
}

func sortedKeys[V any](m map[string]V) []string {
	var out []string
	for k := range m {
		out = append(out, k)
	}
	sort.Strings(out)
	return out
}

// checkMirror proves that the allocator's mirror, kept by events alone, is what
// a fresh session would be told. It opens that session on a copy: on the same
// machine, and goes on with it.
func (w *world) checkMirror(t reporter) {
	t.Helper()
	if w.mirror == nil || w.mirror.snapshot {
		return
	}
	total, held := w.m.Books()
	for id, a := range w.mirror.agents {
		want, known := total[id]
		if !known {
			t.Fatalf("mirror has agent %s, which is not present", id)
		}
		if !a.updated.Total.Equal(want) {
			t.Fatalf("mirror has total %s of agent %s, want %s", a.updated.Total, id, want)
		}
		for key, h := range a.holdings {
			if !h.Equal(held[id][key]) {
				t.Fatalf("mirror has %s for %v on agent %s, the books %s", h, key, id, held[id][key])
			}
		}
		for key, h := range held[id] {
			if !h.Equal(a.holdings[key]) {
				t.Fatalf("the books have %s for %v on agent %s, the mirror %s", h, key, id, a.holdings[key])
			}
		}
	}
	if len(total) != len(w.mirror.agents) {
		t.Fatalf("mirror has %d agents, %d are present", len(w.mirror.agents), len(total))
	}
}

func offerDecision(s state.Session, number uint64, agent, framework, role string, res resource.Resources) state.AllocatorDecisions {
	return state.AllocatorDecisions{Session: s, Decisions: []allocator.Decision{
		&allocator.Offer{Number: number, Agent: agent, Framework: framework, Role: role, Resources: res},
	}}
}

// watcher is what somebody knows who saw every Publish.
type watcher map[string]any

func (w watcher) see(p state.Publish) {
	for _, v := range p.Agents {
		w["agent "+v.ID] = v
	}
	for _, id := range p.AgentsRemoved {
		delete(w, "agent "+id)
	}
	for _, v := range p.Frameworks {
		w["framework "+v.ID] = v
	}
	for _, id := range p.FrameworksRemoved {
		delete(w, "framework "+id)
	}
	for _, v := range p.Tasks {
		w["task "+v.FrameworkID+"/"+v.TaskID] = v
	}
	for _, k := range p.TasksRemoved {
		delete(w, "task "+k.FrameworkID+"/"+k.TaskID)
	}
	for _, v := range p.Offers {
		w["offer "+v.ID] = v
	}
	for _, id := range p.OffersRemoved {
		delete(w, "offer "+id)
	}
	for _, v := range p.Roles {
		w["role "+v.Name] = v
	}
	for _, name := range p.RolesRemoved {
		delete(w, "role "+name)
	}
}

// sameOutputs compares what machines put out, messages by their contents.
var sameOutputs = cmp.Options{
	protocmp.Transform(),
	cmp.Comparer(func(a, b resource.Resources) bool { return a.Equal(b) }),
	cmp.Comparer(func(a, b resource.Quantities) bool { return slices.Equal(a, b) }),
}
