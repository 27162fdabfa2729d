package state_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/mezzo-os/mezzo/core/master/state"
	"github.com/mezzo-os/mezzo/sdk/resource"

	linkv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/link/v1"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
	schedulerv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1/scheduler"
)

// TestRandomCluster drives a machine with a small cluster of agents and
// frameworks that do whatever chance says: come, go, launch, kill, fail. After
// every step the books balance and the allocator's mirror agrees with them. At
// the end the cluster is put in order, and then every launch has ended in a
// terminal state that its framework was told exactly once, nothing is held, and
// the same inputs at the same times give the same outputs.
func TestRandomCluster(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := newCluster(t)
		c.begin()
		steps := rapid.IntRange(20, 150).Draw(t, "steps")
		for range steps {
			c.act()
			for len(c.writes) > 0 && c.pick(4, "slow registry") > 0 {
				c.written(false)
			}
		}
		c.settle()
		c.replay()
	})
}

// begin brings the cluster to life, so that chance has something to break.
func (c *cluster) begin() {
	for _, a := range c.agents {
		c.register(a)
	}
	for _, f := range c.frameworks {
		c.subscribe(f)
	}
	for len(c.writes) > 0 {
		c.written(false)
	}
	c.sessionChange()
}

type moment struct {
	at   time.Time
	in   state.Input
	outs []state.Output
}

// cluster is a world with actors in it.
type cluster struct {
	*world
	rt         *rapid.T
	agents     []*actorAgent
	frameworks []*actorFramework
	links      state.Link
	streams    int
	tasks      int
	uuids      int
	history    []moment
	watcher    watcher
	recovered  state.Recovered
	began      time.Time
}

type actorTask struct {
	reported
	queue []*linkv1.StatusUpdate // the first is outstanding
}

// actorAgent behaves as the link's contract says, in small.
type actorAgent struct {
	id    string
	host  string
	link  state.Link // 0: none
	ready bool
	tasks map[state.TaskKey]*actorTask
}

type actorFramework struct {
	id, stream string
	aware      bool
	gone       bool
	offers     []*mezzov1.Offer
	launched   map[string]bool
	// ends counts the distinct terminal updates a task's framework was told of
	// by agents, by uuid; masterEnds those that the master refused at once.
	ends       map[string]map[string]bool
	masterEnds map[string]int
}

func newCluster(rt *rapid.T) *cluster {
	cfg := state.Config{
		MasterID: "m", Version: "1.0", SnapshotAgents: 1, OfferTimeout: 20 * time.Second, MaxCompletedTasks: 5,
		MaxCompletedFrameworks: 2, TellTasks: true,
		Roles: []state.Role{{Name: "b", Limit: resource.MustParse("cpus:3").Quantities()}},
	}
	c := &cluster{world: newWorld(rt, cfg), rt: rt, began: epoch, watcher: watcher{}}
	for i := range 3 {
		c.agents = append(c.agents, &actorAgent{host: fmt.Sprintf("h%d", i), tasks: map[state.TaskKey]*actorTask{}})
	}
	c.frameworks = []*actorFramework{newActor(true), newActor(false)}
	return c
}

func newActor(aware bool) *actorFramework {
	return &actorFramework{aware: aware, launched: map[string]bool{}, ends: map[string]map[string]bool{}, masterEnds: map[string]int{}}
}

// do gives the machine an input and lets the actors react to what comes out.
func (c *cluster) do(in state.Input) {
	queue := []state.Input{in}
	for len(queue) > 0 {
		in, queue = queue[0], queue[1:]
		outs := append([]state.Output(nil), c.m.Step(c.now, in)...)
		c.history = append(c.history, moment{c.now, in, outs})
		if err := c.m.Audit(); err != nil {
			c.rt.Fatalf("audit after %T: %v", in, err)
		}
		for _, out := range outs {
			switch out := out.(type) {
			case state.RegistryWrite:
				c.writes = append(c.writes, out)
			case state.AllocatorBegin:
				c.mirror = newMirror(out.Begin)
			case state.AllocatorBatch:
				c.mirror.apply(c.t, out.Batch)
			case state.Publish:
				c.watcher.see(out)
			case state.SendAgent:
				queue = append(queue, c.agentHears(out)...)
			case state.CloseAgent:
				for _, a := range c.agents {
					if a.link == out.Link {
						a.link, a.ready = 0, false
					}
				}
			case state.SendScheduler:
				queue = append(queue, c.frameworkHears(out)...)
			case state.CloseScheduler:
				for _, f := range c.frameworks {
					if f.stream == string(out.Stream) {
						f.stream, f.offers = "", nil
					}
				}
			}
		}
	}
	c.checkMirror(c.t)
}

func (c *cluster) agentOf(l state.Link) *actorAgent {
	for _, a := range c.agents {
		if a.link == l {
			return a
		}
	}
	return nil
}

// agentHears is how an agent answers a message of the master.
func (c *cluster) agentHears(out state.SendAgent) []state.Input {
	a := c.agentOf(out.Link)
	if a == nil {
		return nil
	}
	switch x := out.Message.GetMessage().(type) {
	case *linkv1.MasterMessage_Registered:
		a.id, a.ready = x.Registered.GetAgentId(), true
		var ins []state.Input
		for _, k := range x.Registered.GetKilled() {
			ins = append(ins, c.end(a, state.TaskKey{FrameworkID: k.GetFrameworkId(), TaskID: k.GetTaskId()}, mezzov1.TaskState_TASK_KILLED)...)
		}
		for _, f := range x.Registered.GetCompletedFrameworks() {
			ins = append(ins, c.endFramework(a, f)...)
		}
		for _, key := range a.sorted() {
			ins = append(ins, c.send(a, a.tasks[key])...)
		}
		return ins
	case *linkv1.MasterMessage_Run:
		for _, info := range x.Run.GetTasks() {
			res, err := resource.FromProto(info.GetResources())
			if err != nil {
				c.rt.Fatal(err)
			}
			key := state.TaskKey{FrameworkID: x.Run.GetFramework().GetId().GetValue(), TaskID: info.GetTaskId().GetValue()}
			if a.tasks[key] != nil {
				c.rt.Fatalf("task %v launched twice", key)
			}
			role := res[0].Kind.Allocation()
			a.tasks[key] = &actorTask{reported: reported{
				framework: key.FrameworkID, id: key.TaskID, resources: res.Unallocate(), role: role,
				state: mezzov1.TaskState_TASK_STAGING,
			}}
			if e := x.Run.GetExecutor(); e != nil {
				a.tasks[key].executor = e.GetExecutorId().GetValue()
			}
		}
	case *linkv1.MasterMessage_Kill:
		return c.end(a, state.TaskKey{FrameworkID: x.Kill.GetTask().GetFrameworkId(), TaskID: x.Kill.GetTask().GetTaskId()}, mezzov1.TaskState_TASK_KILLED)
	case *linkv1.MasterMessage_ShutdownFramework:
		return c.endFramework(a, x.ShutdownFramework.GetFrameworkId())
	case *linkv1.MasterMessage_Acknowledge:
		key := state.TaskKey{FrameworkID: x.Acknowledge.GetTask().GetFrameworkId(), TaskID: x.Acknowledge.GetTask().GetTaskId()}
		t := a.tasks[key]
		if t == nil || len(t.queue) == 0 || !slices.Equal(t.queue[0].GetStatus().GetUuid(), x.Acknowledge.GetUuid()) {
			return nil
		}
		t.queue = t.queue[1:]
		if len(t.queue) == 0 && ended(t.state) {
			delete(a.tasks, key)
			return nil
		}
		return c.send(a, t)
	case *linkv1.MasterMessage_Reconcile:
		var ins []state.Input
		for _, r := range x.Reconcile.GetTasks() {
			key := state.TaskKey{FrameworkID: r.GetFrameworkId(), TaskID: r.GetTaskId()}
			if a.tasks[key] == nil {
				a.tasks[key] = &actorTask{reported: reported{framework: key.FrameworkID, id: key.TaskID, state: mezzov1.TaskState_TASK_STAGING, resources: resource.MustParse("cpus:0.001"), role: "a"}}
				ins = append(ins, c.end(a, key, mezzov1.TaskState_TASK_DROPPED)...)
			}
		}
		return ins
	}
	return nil
}

func (a *actorAgent) sorted() []state.TaskKey {
	var keys []state.TaskKey
	for k := range a.tasks {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(x, y state.TaskKey) int {
		if x.FrameworkID != y.FrameworkID {
			return cmpString(x.FrameworkID, y.FrameworkID)
		}
		return cmpString(x.TaskID, y.TaskID)
	})
	return keys
}

func cmpString(a, b string) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

func ended(s mezzov1.TaskState) bool {
	switch s {
	case mezzov1.TaskState_TASK_STAGING, mezzov1.TaskState_TASK_STARTING, mezzov1.TaskState_TASK_RUNNING:
		return false
	}
	return true
}

// move puts a task into a state and queues the update.
func (c *cluster) move(a *actorAgent, t *actorTask, s mezzov1.TaskState) []state.Input {
	t.state = s
	c.uuids++
	t.queue = append(t.queue, &linkv1.StatusUpdate{FrameworkId: t.framework, Status: status(t.id, a.id, s, uuid(c.uuids))})
	if len(t.queue) == 1 {
		return c.send(a, t)
	}
	return nil
}

func (c *cluster) end(a *actorAgent, key state.TaskKey, s mezzov1.TaskState) []state.Input {
	t := a.tasks[key]
	if t == nil || ended(t.state) {
		return nil
	}
	return c.move(a, t, s)
}

func (c *cluster) endFramework(a *actorAgent, id string) []state.Input {
	var ins []state.Input
	for _, key := range a.sorted() {
		if key.FrameworkID == id {
			ins = append(ins, c.end(a, key, mezzov1.TaskState_TASK_KILLED)...)
		}
	}
	return ins
}

// send sends a task's outstanding update, with the newest state beside it.
func (c *cluster) send(a *actorAgent, t *actorTask) []state.Input {
	if !a.ready || len(t.queue) == 0 {
		return nil
	}
	u := proto.Clone(t.queue[0]).(*linkv1.StatusUpdate)
	u.LatestState = t.state.Enum()
	return []state.Input{state.LinkMessage{Link: a.link, Message: &linkv1.AgentMessage{Message: &linkv1.AgentMessage_Update{Update: u}}}}
}

// frameworkHears is how a framework answers an event.
func (c *cluster) frameworkHears(out state.SendScheduler) []state.Input {
	var f *actorFramework
	for _, x := range c.frameworks {
		if x.stream == string(out.Stream) {
			f = x
		}
	}
	if f == nil {
		return nil
	}
	switch e := out.Event; e.GetType() {
	case schedulerv1.Event_SUBSCRIBED:
		f.id = e.GetSubscribed().GetFrameworkId().GetValue()
	case schedulerv1.Event_OFFERS:
		f.offers = append(f.offers, e.GetOffers().GetOffers()...)
	case schedulerv1.Event_RESCIND:
		before := len(f.offers)
		f.offers = slices.DeleteFunc(f.offers, func(o *mezzov1.Offer) bool {
			return o.GetId().GetValue() == e.GetRescind().GetOfferId().GetValue()
		})
		if len(f.offers) == before {
			c.rt.Fatalf("offer %s rescinded that was never made, or twice", e.GetRescind().GetOfferId().GetValue())
		}
	case schedulerv1.Event_UPDATE:
		st := e.GetUpdate().GetStatus()
		id := st.GetTaskId().GetValue()
		if len(st.GetUuid()) == 0 {
			if r := st.GetReason(); r == mezzov1.TaskStatus_REASON_TASK_INVALID || r == mezzov1.TaskStatus_REASON_INVALID_OFFERS {
				f.masterEnds[id]++
			}
			return nil
		}
		if ended(st.GetState()) {
			if f.ends[id] == nil {
				f.ends[id] = map[string]bool{}
			}
			f.ends[id][string(st.GetUuid())] = true
		}
		return []state.Input{call(f.id, f.stream, &schedulerv1.Call{
			Type:        schedulerv1.Call_ACKNOWLEDGE.Enum(),
			Acknowledge: &schedulerv1.Call_Acknowledge{AgentId: st.GetAgentId(), TaskId: st.GetTaskId(), Uuid: st.GetUuid()},
		})}
	case schedulerv1.Event_ERROR:
		if f.id != "" && e.GetError().GetMessage() == "Framework has been removed" {
			f.gone = true
		}
	}
	return nil
}

func (c *cluster) pick(n int, name string) int { return rapid.IntRange(0, n-1).Draw(c.rt, name) }

// act does one random thing.
func (c *cluster) act() {
	a := c.agents[c.pick(len(c.agents), "agent")]
	f := c.frameworks[c.pick(len(c.frameworks), "framework")]
	switch c.pick(20, "action") {
	case 0, 1:
		c.register(a)
	case 2:
		c.cut(a)
	case 3:
		c.subscribe(f)
	case 4:
		if f.stream != "" {
			s := f.stream
			f.stream, f.offers = "", nil
			c.do(state.StreamClosed{Stream: state.Stream(s)})
		}
	case 5, 6, 7:
		c.decide(a, f)
	case 8, 9, 10:
		c.answer(f)
	case 11, 12:
		c.progress(a)
	case 13:
		c.kill(f)
	case 14:
		if c.pick(2, "short") == 0 {
			c.pass(time.Duration(c.pick(5, "short seconds")) * time.Second)
			return
		}
		c.pass(time.Duration(c.pick(100, "seconds")) * time.Second)
	case 15, 16, 17:
		c.written(c.pick(8, "failure") == 0)
	case 18:
		c.sessionChange()
	case 19:
		switch c.pick(8, "rare") {
		case 0:
			c.takeOver()
		case 1:
			if f.id != "" {
				c.do(state.Teardown{Request: 1, FrameworkID: f.id})
			}
		case 2:
			if f.stream != "" && f.id != "" {
				c.do(call(f.id, f.stream, &schedulerv1.Call{Type: schedulerv1.Call_SUPPRESS.Enum()}))
			}
		case 3:
			if f.stream != "" && f.id != "" {
				c.do(call(f.id, f.stream, &schedulerv1.Call{Type: schedulerv1.Call_REVIVE.Enum()}))
			}
		case 4:
			if f.stream != "" && f.id != "" {
				c.do(call(f.id, f.stream, &schedulerv1.Call{Type: schedulerv1.Call_RECONCILE.Enum(), Reconcile: &schedulerv1.Call_Reconcile{}}))
			}
		case 5:
			c.do(state.SetRole{Request: 1, Role: state.Role{Name: "a", Limit: resource.MustParse("cpus:2").Quantities()}})
		case 6:
			c.do(state.RemoveRole{Request: 1, Name: "a"})
		case 7:
			c.resize(a)
		}
	}
}

func (c *cluster) register(a *actorAgent) {
	c.links++
	a.link, a.ready = c.links, false
	var tasks []reported
	for _, key := range a.sorted() {
		t := a.tasks[key]
		r := t.reported
		if len(t.queue) > 0 {
			r.unacked, r.uuid = true, t.queue[0].GetStatus().GetUuid()
		}
		tasks = append(tasks, r)
	}
	reg := register(a.id, a.host, resource.MustParse("cpus:4;mem:1000;disk:100;ports:[1-9]"), tasks)
	for i, key := range a.sorted() {
		if t := a.tasks[key]; len(t.queue) > 0 {
			reg.Tasks[i].UpdateState = t.queue[0].GetStatus().State
		}
	}
	c.do(state.LinkOpened{Link: a.link})
	c.do(state.LinkMessage{Link: a.link, Message: &linkv1.AgentMessage{Message: &linkv1.AgentMessage_Register{Register: reg}}})
}

// cut breaks an agent's link; sometimes the master does not notice.
func (c *cluster) cut(a *actorAgent) {
	l := a.link
	a.link, a.ready = 0, false
	if l != 0 && c.pick(3, "unnoticed") > 0 {
		c.do(state.LinkClosed{Link: l})
	}
}

func (c *cluster) resize(a *actorAgent) {
	if !a.ready {
		return
	}
	r := register(a.id, a.host, resource.MustParse(fmt.Sprintf("cpus:%d;mem:1000;disk:100;ports:[1-9]", 1+c.pick(6, "cpus"))), nil)
	c.do(state.LinkMessage{Link: a.link, Message: &linkv1.AgentMessage{Message: &linkv1.AgentMessage_State{
		State: &linkv1.AgentState{Agent: r.Agent, Kinds: r.Kinds},
	}}})
}

func (c *cluster) subscribe(f *actorFramework) {
	if f.gone {
		return
	}
	c.streams++
	f.stream, f.offers = fmt.Sprintf("s%d", c.streams), nil
	var caps []mezzov1.FrameworkInfo_Capability_Type
	if f.aware {
		caps = append(caps, mezzov1.FrameworkInfo_Capability_PARTITION_AWARE)
	}
	c.do(state.Subscribe{Stream: state.Stream(f.stream), Call: &schedulerv1.Call_Subscribe{
		FrameworkInfo: framework("f", f.id, []string{"a", "b"}, 1000, caps...),
	}})
}

func (c *cluster) sessionChange() {
	if c.mirror != nil && c.pick(4, "crash") == 0 {
		c.mirror = nil
		c.do(state.AllocatorClosed{Session: c.session})
		return
	}
	c.session++
	c.do(state.AllocatorOpened{Session: c.session})
}

// decide proposes an offer: mostly a good one.
func (c *cluster) decide(a *actorAgent, f *actorFramework) {
	if c.mirror == nil {
		c.sessionChange()
	}
	if c.mirror.snapshot {
		c.now = c.now.Add(1)
		c.do(state.Tick{})
		return
	}
	c.do(state.AllocatorReady{Session: c.session})
	m := c.mirror.agents[a.id]
	if m == nil || f.id == "" {
		return
	}
	free := c.mirror.free(a.id)
	res := free.Intersect(resource.MustParse(fmt.Sprintf("cpus:%d;mem:%d;disk:10;ports:[%d-9]", 1+c.pick(4, "cpus"), 1+c.pick(500, "mem"), 1+c.pick(9, "port"))))
	if c.pick(10, "greedy") == 0 {
		res = resource.MustParse("cpus:5")
	}
	role := []string{"a", "b"}[c.pick(2, "role")]
	if fw := c.mirror.frameworks[f.id]; fw == nil {
		return
	}
	c.seq = max(c.seq+1, c.mirror.begin.FirstDecision)
	m.add(f.id, role, res)
	m.offers[c.seq] = res
	c.do(offerDecision(c.session, c.seq, a.id, f.id, role, res))
}

// answer accepts or declines some offers of a framework.
func (c *cluster) answer(f *actorFramework) {
	if f.stream == "" || f.id == "" {
		return
	}
	if len(f.offers) == 0 {
		return
	}
	n := 1 + c.pick(min(2, len(f.offers)), "offers")
	taken := f.offers[:n]
	f.offers = slices.Clone(f.offers[n:])
	var ids []string
	for _, o := range taken {
		ids = append(ids, o.GetId().GetValue())
	}
	filters := &mezzov1.Filters{RefuseSeconds: proto.Float64(float64(c.pick(20, "refuse")))}
	if c.pick(4, "decline") == 0 {
		c.do(call(f.id, f.stream, &schedulerv1.Call{Type: schedulerv1.Call_DECLINE.Enum(), Decline: &schedulerv1.Call_Decline{OfferIds: offerIDs(ids...), Filters: filters}}))
		return
	}
	var ops []*mezzov1.Offer_Operation
	agent := taken[0].GetAgentId().GetValue()
	group := c.pick(3, "group") == 0
	var tasks []*mezzov1.TaskInfo
	for range 1 + c.pick(3, "tasks") {
		c.tasks++
		id := fmt.Sprintf("t%d", c.tasks)
		f.launched[id] = true
		tasks = append(tasks, taskInfo(id, agent, resource.MustParse(fmt.Sprintf("cpus:%d.5;mem:%d", c.pick(2, "c"), 1+c.pick(300, "m")))))
	}
	if group {
		e := &mezzov1.ExecutorInfo{
			Type: mezzov1.ExecutorInfo_DEFAULT.Enum(), ExecutorId: &mezzov1.ExecutorID{Value: proto.String("e")},
			FrameworkId: &mezzov1.FrameworkID{Value: proto.String(f.id)}, Resources: resource.MustParse("cpus:0.1;mem:32;disk:1").ToProto(),
		}
		ops = append(ops, launchGroup(e, tasks...))
	} else {
		ops = append(ops, launch(tasks...))
	}
	c.do(call(f.id, f.stream, &schedulerv1.Call{Type: schedulerv1.Call_ACCEPT.Enum(), Accept: &schedulerv1.Call_Accept{OfferIds: offerIDs(ids...), Operations: ops, Filters: filters}}))
}

// progress moves a task of an agent on, or sends an update once more.
func (c *cluster) progress(a *actorAgent) {
	keys := a.sorted()
	if len(keys) == 0 {
		return
	}
	t := a.tasks[keys[c.pick(len(keys), "task")]]
	var ins []state.Input
	switch {
	case t.state == mezzov1.TaskState_TASK_STAGING:
		ins = c.move(a, t, mezzov1.TaskState_TASK_RUNNING)
	case !ended(t.state) && c.pick(2, "end") == 0:
		ins = c.move(a, t, mezzov1.TaskState_TASK_FINISHED)
	default:
		ins = c.send(a, t)
	}
	for _, in := range ins {
		c.do(in)
	}
}

func (c *cluster) kill(f *actorFramework) {
	if f.stream == "" || f.id == "" || c.tasks == 0 {
		return
	}
	id := fmt.Sprintf("t%d", 1+c.pick(c.tasks, "task"))
	c.do(call(f.id, f.stream, &schedulerv1.Call{Type: schedulerv1.Call_KILL.Enum(), Kill: &schedulerv1.Call_Kill{TaskId: &mezzov1.TaskID{Value: proto.String(id)}}}))
}

// pass lets time go by. Agents that are connected answer pings.
func (c *cluster) pass(d time.Duration) {
	end := c.now.Add(d)
	for {
		at, ok := c.m.NextDeadline()
		if !ok || at.After(end) {
			break
		}
		if at.After(c.now) {
			c.now = at
		}
		c.do(state.Tick{})
		for _, a := range c.agents {
			if a.ready {
				c.do(state.LinkMessage{Link: a.link, Message: &linkv1.AgentMessage{Message: &linkv1.AgentMessage_Pong{Pong: &linkv1.Pong{}}}})
			}
		}
	}
	c.now = end
	c.do(state.Tick{})
}

func (c *cluster) written(fail bool) {
	if len(c.writes) == 0 {
		return
	}
	w := c.writes[0]
	c.writes = c.writes[1:]
	if fail {
		c.do(state.RegistryWritten{ID: w.ID, Err: "disk full"})
		return
	}
	c.commit(w)
	c.do(state.RegistryWritten{ID: w.ID})
}

// look compares what a watcher knows with what is.
func (c *cluster) look() {
	if diff := cmp.Diff(c.m.Everything(), map[string]any(c.watcher), sameOutputs); diff != "" {
		c.rt.Fatalf("what was published is not what is (-is +published):\n%s", diff)
	}
}

// takeOver lets a new master lead, from what is durable.
func (c *cluster) takeOver() {
	c.do(state.Tick{})
	c.look()
	c.replay()
	c.history, c.writes, c.mirror, c.watcher = nil, nil, nil, watcher{}
	c.cfg.MasterID += "x"
	c.recovered = state.Recovered{}
	for _, k := range sortedKeys(c.durable) {
		c.recovered.Entries = append(c.recovered.Entries, state.Entry{Key: k, Value: c.durable[k]})
	}
	c.began = c.now
	m, err := state.New(c.cfg, c.recovered, c.now)
	if err != nil {
		c.rt.Fatal(err)
	}
	c.m = m
	for _, a := range c.agents {
		a.link, a.ready = 0, false
	}
	for _, f := range c.frameworks {
		f.stream, f.offers = "", nil
	}
}

// settle brings everybody back and lets all tasks end.
func (c *cluster) settle() {
	drain := func() {
		for i := 0; len(c.writes) > 0; i++ {
			c.written(false)
			if i > 1000 {
				c.rt.Fatal("registry writes never end")
			}
		}
	}
	c.do(state.Tick{})
	c.look()
	drain()
	c.pass(time.Minute)
	drain()
	for _, f := range c.frameworks {
		c.subscribe(f)
		drain()
	}
	for _, a := range c.agents {
		if a.id != "" || len(a.tasks) > 0 {
			c.register(a)
			drain()
		}
		if !a.ready && a.id != "" {
			c.rt.Fatalf("agent %s cannot come back", a.id)
		}
	}
	for _, a := range c.agents {
		for range 5 {
			for _, key := range a.sorted() {
				t := a.tasks[key]
				if t == nil {
					continue
				}
				ins := c.send(a, t)
				if !ended(t.state) {
					ins = c.move(a, t, mezzov1.TaskState_TASK_FINISHED)
				}
				for _, in := range ins {
					c.do(in)
				}
			}
		}
	}
	c.pass(40 * time.Second) // offers time out, removed frameworks are asked for
	drain()
	for _, a := range c.agents {
		for _, key := range a.sorted() {
			if f := c.actor(key.FrameworkID); f != nil && !f.gone {
				c.rt.Fatalf("task %v is still on agent %s: %+v", key, a.id, a.tasks[key])
			}
		}
	}
	c.look()
	_, held := c.m.Books()
	for id, h := range held {
		for key, r := range h {
			if !r.IsEmpty() {
				c.rt.Fatalf("%v still holds %s on agent %s", key, r, id)
			}
		}
	}
	for _, f := range c.frameworks {
		for id, uuids := range f.ends {
			if len(uuids)+f.masterEnds[id] != 1 {
				c.rt.Fatalf("framework %s was told %d ends of task %s", f.id, len(uuids)+f.masterEnds[id], id)
			}
		}
		if f.gone || f.stream == "" {
			continue
		}
		for id := range f.launched {
			if len(f.ends[id])+f.masterEnds[id] != 1 && !c.lostWithAMaster(f, id) {
				c.rt.Fatalf("framework %s was never told the end of task %s", f.id, id)
			}
		}
	}
}

// lostWithAMaster is whether a launch went down with a link or a master before
// any agent had it: then nobody knows of it, and reconciliation says so.
func (c *cluster) lostWithAMaster(f *actorFramework, id string) bool {
	c.do(call(f.id, f.stream, &schedulerv1.Call{Type: schedulerv1.Call_RECONCILE.Enum(), Reconcile: &schedulerv1.Call_Reconcile{
		Tasks: []*schedulerv1.Call_Reconcile_Task{{TaskId: &mezzov1.TaskID{Value: proto.String(id)}}},
	}}))
	outs := c.history[len(c.history)-1].outs
	for _, o := range outs {
		if e, ok := o.(state.SendScheduler); ok && e.Event.GetUpdate() != nil {
			s := e.Event.GetUpdate().GetStatus().GetState()
			return s == mezzov1.TaskState_TASK_UNKNOWN || s == mezzov1.TaskState_TASK_LOST
		}
	}
	return false
}

func (c *cluster) actor(id string) *actorFramework {
	for _, f := range c.frameworks {
		if f.id == id {
			return f
		}
	}
	return nil
}

// replay gives a second machine the same inputs and expects the same outputs.
func (c *cluster) replay() {
	m, err := state.New(c.cfg, c.recovered, c.began)
	if err != nil {
		c.rt.Fatal(err)
	}
	for i, h := range c.history {
		outs := m.Step(h.at, h.in)
		if diff := cmp.Diff(h.outs, append([]state.Output(nil), outs...), sameOutputs); diff != "" {
			c.rt.Fatalf("input %d (%T) gave other outputs the second time:\n%s", i, h.in, diff)
		}
	}
}
