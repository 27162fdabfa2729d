package state_test

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/mezzo-os/mezzo/core/master/state"
	"github.com/mezzo-os/mezzo/sdk/allocator"
	"github.com/mezzo-os/mezzo/sdk/resource"

	linkv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/link/v1"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
	schedulerv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1/scheduler"
)

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
			c.do(state.StreamClosed{Stream: state.Stream(s), AdapterLost: c.pick(4, "adapter lost") == 0})
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
		if c.mirror == nil || c.next == nil {
			c.sessionChange()
		} else {
			c.swap()
		}
	case 19:
		switch c.pick(15, "rare") {
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
			limit, guarantee := resource.MustParse("cpus:2").Quantities(), resource.MustParse("cpus:1").Quantities()
			c.do(state.SetQuota{Request: 1, Role: "a", Limit: &limit, Guarantee: &guarantee, Force: c.pick(2, "force") == 0})
			c.do(state.SetWeights{Request: 2, Weights: []state.RoleWeight{{Role: "a", Weight: uint64(c.pick(3, "weight") * 500)}}})
		case 6:
			c.do(state.RemoveQuota{Request: 1, Role: "a"})
		case 7:
			c.resize(a)
		case 8:
			c.maintain()
		case 9, 10:
			c.decideOnWork(a, f)
		case 11:
			c.do(state.AdapterUp{Adapter: "mesos"})
		case 12:
			c.do(state.AdapterDown{Adapter: "mesos"})
		case 13, 14:
			c.serviceOrder(a)
		}
	}
}

// maintain changes the maintenance schedule, or takes a machine down, or up.
func (c *cluster) maintain() {
	machine := []state.MachineID{{Hostname: fmt.Sprintf("H%d", c.pick(len(c.agents), "machine"))}}
	switch c.pick(3, "maintenance") {
	case 0:
		var windows []state.Window
		for _, a := range c.agents {
			if c.pick(3, "planned") > 0 {
				start := epoch.Add(time.Duration(c.pick(100, "start")) * time.Minute)
				windows = append(windows, state.Window{Machines: []state.MachineID{{Hostname: a.host}}, Start: start, Duration: time.Hour})
			}
		}
		c.do(state.SetSchedule{Request: 1, Windows: windows})
	default:
		c.do(state.SetMaintenance{Request: 1, Machines: machine, Down: c.pick(3, "down") > 0})
	}
}

// serviceOrder takes an agent out of service, or puts it back.
func (c *cluster) serviceOrder(a *actorAgent) {
	switch c.pick(6, "service") {
	case 0, 1:
		c.do(state.DrainAgent{Request: 1, AgentID: a.id, MarkGone: c.pick(4, "mark gone") == 0})
	case 2:
		c.do(state.DeactivateAgent{Request: 1, AgentID: a.id})
	case 3, 4:
		c.do(state.ReactivateAgent{Request: 1, AgentID: a.id})
	case 5:
		c.do(state.MarkAgentGone{Request: 1, AgentID: a.id})
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
	a.taken = 0
	reg := register(a.id, a.host, a.total, tasks)
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
	// Only what nobody has reserved.
	rest := a.total.Minus(a.total.Filter(func(k resource.Kind) bool { return k == resource.ScalarKind("cpus") }))
	a.total = rest.Add(resource.MustParse(fmt.Sprintf("cpus:%d", 1+c.pick(6, "cpus"))))
	r := register(a.id, a.host, a.total, nil)
	c.do(state.LinkMessage{Link: a.link, Message: &linkv1.AgentMessage{Message: &linkv1.AgentMessage_State{
		State: &linkv1.AgentState{Agent: r.Agent, Kinds: r.Kinds, Operations: a.taken},
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
	adapter := ""
	if c.pick(2, "through an adapter") == 0 {
		adapter = "mesos"
	}
	c.do(state.Subscribe{Stream: state.Stream(f.stream), Adapter: adapter, Call: &schedulerv1.Call_Subscribe{
		FrameworkInfo: framework("f", f.id, []string{"a", "b"}, 1000, caps...),
	}})
}

func (c *cluster) sessionChange() {
	if c.mirror != nil && c.pick(4, "crash") == 0 {
		c.mirror = nil
		c.do(state.AllocatorClosed{Session: c.session})
		c.session = 0
		return
	}
	if c.mirror == nil || c.pick(2, "swap") == 0 {
		c.do(c.open())
		return
	}
	c.swap()
}

// swap is a step of another allocator's taking over.
func (c *cluster) swap() {
	switch {
	case c.next == nil || c.pick(8, "again") == 0:
		c.do(c.prepare(nil))
	case c.pick(8, "failed") == 0:
		s := c.preparing
		c.next, c.preparing = nil, 0
		c.do(state.AllocatorClosed{Session: s})
	case c.next.snapshot:
		c.now = c.now.Add(1)
		c.do(state.Tick{})
	case c.pick(2, "early") == 0:
		// Refused: it is not current.
		c.do(state.AllocatorDecisions{Session: c.preparing, Decisions: []allocator.Decision{
			&allocator.Rescind{Number: c.next.begin.FirstDecision, Offer: c.seq},
		}})
	case c.pick(2, "lag") == 0:
		c.do(state.AllocatorReady{Session: c.preparing, EventsSeen: c.next.next / 2})
	default:
		c.do(state.AllocatorReady{Session: c.preparing, EventsSeen: c.next.next - 1})
		if c.next != nil {
			c.rt.Fatal("a session that was ready and saw everything did not become current")
		}
	}
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
	if c.pick(2, "reserved") == 0 {
		res = res.Add(free.ReservedTo(role).NonShared())
	}
	if fw := c.mirror.frameworks[f.id]; fw == nil {
		return
	}
	c.seq = max(c.seq+1, c.mirror.begin.FirstDecision)
	m.add(f.id, role, res)
	m.offers[c.seq] = res
	c.do(offerDecision(c.session, c.seq, a.id, f.id, role, res))
}

// decideOnWork revokes a task, or asks a framework to leave an agent.
func (c *cluster) decideOnWork(a *actorAgent, f *actorFramework) {
	if c.mirror == nil || c.mirror.snapshot {
		return
	}
	c.do(state.AllocatorReady{Session: c.session})
	c.seq = max(c.seq+1, c.mirror.begin.FirstDecision)
	var d allocator.Decision = &allocator.InverseOffer{Number: c.seq, Agent: a.id, Framework: f.id}
	if tasks := slices.Sorted(maps.Keys(c.mirror.tasks)); len(tasks) > 0 && c.pick(2, "revoke") == 0 {
		d = &allocator.Revoke{Number: c.seq, Task: tasks[c.pick(len(tasks), "task")], Grace: time.Duration(c.pick(20, "grace")) * time.Second}
	}
	c.do(state.AllocatorDecisions{Session: c.session, Decisions: []allocator.Decision{d}})
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
	if c.pick(3, "convert") == 0 {
		ops = append(ops, c.conversion(taken[0]))
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
	c.next, c.preparing = nil, 0
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
	for _, a := range c.agents { // those that are not down are not up, which is no harm
		c.do(state.SetMaintenance{Request: 1, Machines: []state.MachineID{{Hostname: a.host}}})
	}
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
		for id, n := range f.masterEnds {
			if n != 1 {
				c.rt.Fatalf("framework %s was told %d times by the master that task %s has ended", f.id, n, id)
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
