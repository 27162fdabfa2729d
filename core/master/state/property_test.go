package state_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

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
	// outOfService are agents that were shown as such; gone are ids of agents
	// that were taken off the list of agents by an operator's order.
	outOfService map[string]bool
	gone         map[string]bool
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
	// total is what operations have made of what it has; taken counts those of
	// the link.
	total resource.Resources
	taken uint64
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
		Revocation: state.Revocation{Enabled: true, MinGrace: 5 * time.Second, MaxPerMinute: 3},
		Roles:      []state.Role{{Name: "b", Limit: resource.MustParse("cpus:3").Quantities()}},
	}
	c := &cluster{world: newWorld(rt, cfg), rt: rt, began: epoch, watcher: watcher{}, outOfService: map[string]bool{}, gone: map[string]bool{}}
	for i := range 3 {
		c.agents = append(c.agents, &actorAgent{host: fmt.Sprintf("h%d", i), tasks: map[state.TaskKey]*actorTask{}, total: resource.MustParse(actorResources)})
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
			case state.AllocatorBegin, state.CloseAllocator, state.AllocatorCurrent, state.AllocatorBatch:
				c.allocatorHears(out)
			case state.Publish:
				c.watcher.see(out)
				for _, v := range out.Agents {
					c.outOfService[v.ID] = v.Deactivated
				}
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
			case state.SendOffers:
				queue = append(queue, c.frameworkHears(state.SendScheduler{Stream: out.Stream, Event: read(out)})...)
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
	case *linkv1.MasterMessage_Refused:
		switch {
		case x.Refused.GetGone(): // it begins anew
			c.gone[a.id] = true
			a.id, a.tasks, a.total = "", map[state.TaskKey]*actorTask{}, resource.MustParse(actorResources)
		case x.Refused.GetShutdown():
			a.ready = false
			return c.endAll(a, mezzov1.TaskState_TASK_KILLED)
		}
	case *linkv1.MasterMessage_Drain:
		if x.Drain.GetMarkGone() {
			return c.endAll(a, mezzov1.TaskState_TASK_GONE_BY_OPERATOR)
		}
		return c.endAll(a, mezzov1.TaskState_TASK_KILLED)
	case *linkv1.MasterMessage_Registered:
		if id := x.Registered.GetAgentId(); c.gone[id] {
			c.rt.Fatalf("agent %s is gone, and is taken again", id)
		}
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
	case *linkv1.MasterMessage_Operation:
		return c.operate(a, x.Operation)
	case *linkv1.MasterMessage_Kill:
		return c.end(a, state.TaskKey{FrameworkID: x.Kill.GetTask().GetFrameworkId(), TaskID: x.Kill.GetTask().GetTaskId()}, mezzov1.TaskState_TASK_KILLED)
	case *linkv1.MasterMessage_Revoke:
		return c.end(a, state.TaskKey{FrameworkID: x.Revoke.GetTask().GetFrameworkId(), TaskID: x.Revoke.GetTask().GetTaskId()}, mezzov1.TaskState_TASK_GONE)
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

func (c *cluster) endAll(a *actorAgent, s mezzov1.TaskState) []state.Input {
	var ins []state.Input
	for _, key := range a.sorted() {
		ins = append(ins, c.end(a, key, s)...)
	}
	return ins
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
		for _, o := range e.GetOffers().GetOffers() {
			if id := o.GetAgentId().GetValue(); c.outOfService[id] || c.gone[id] {
				c.rt.Fatalf("agent %s is offered, and is out of service", id)
			}
		}
		f.offers = append(f.offers, e.GetOffers().GetOffers()...)
	case schedulerv1.Event_RESCIND:
		before := len(f.offers)
		f.offers = slices.DeleteFunc(f.offers, func(o *mezzov1.Offer) bool {
			return o.GetId().GetValue() == e.GetRescind().GetOfferId().GetValue()
		})
		if len(f.offers) == before {
			c.rt.Fatalf("offer %s rescinded that was never made, or twice", e.GetRescind().GetOfferId().GetValue())
		}
	case schedulerv1.Event_INVERSE_OFFERS:
		var ins []state.Input
		for _, o := range e.GetInverseOffers().GetInverseOffers() {
			ids := []*mezzov1.OfferID{o.GetId()}
			switch c.pick(3, "inverse offer") {
			case 0:
				ins = append(ins, call(f.id, f.stream, &schedulerv1.Call{
					Type: schedulerv1.Call_ACCEPT_INVERSE_OFFERS.Enum(), AcceptInverseOffers: &schedulerv1.Call_AcceptInverseOffers{InverseOfferIds: ids},
				}))
			case 1:
				ins = append(ins, call(f.id, f.stream, &schedulerv1.Call{
					Type: schedulerv1.Call_DECLINE_INVERSE_OFFERS.Enum(), DeclineInverseOffers: &schedulerv1.Call_DeclineInverseOffers{InverseOfferIds: ids},
				}))
			}
		}
		return ins
	case schedulerv1.Event_UPDATE:
		st := e.GetUpdate().GetStatus()
		id := st.GetTaskId().GetValue()
		if len(st.GetUuid()) == 0 {
			switch st.GetReason() {
			case mezzov1.TaskStatus_REASON_TASK_INVALID, mezzov1.TaskStatus_REASON_TASK_GROUP_INVALID,
				mezzov1.TaskStatus_REASON_INVALID_OFFERS, mezzov1.TaskStatus_REASON_AGENT_REMOVED_BY_OPERATOR:
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
