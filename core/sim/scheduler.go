package sim

import (
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/mezzo-os/mezzo/core/master/state"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
	schedulerv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1/scheduler"
)

// scheduler is a framework's own program, with a store of its own: what it has
// noted of its tasks outlives its streams. When its framework is removed it
// begins again as another.
type scheduler struct {
	w      *world
	name   string
	traits traits
	info   *mezzov1.FrameworkInfo
	id     string // empty until it is told
	serial int    // of the framework that it is now
	cur    *stream
	// subscribed: cur has got SUBSCRIBED.
	subscribed bool
	wanted     int // tasks that it still wants to launch
	launches   int
	deeds      []*deed // with an id
	// conversions are how many operations it has asked for.
	conversions int
	tasks       map[string]*record
	order       []*record
	offers      map[string]*mezzov1.Offer // that it holds
	held        []string                  // their ids, oldest first
	suppressed  bool
	// torn: an operator has ended the framework. led is when it was last subscribed
	// with the leader.
	torn bool
	led  time.Duration
}

// traits are a scheduler's temperament, as probabilities.
type traits struct {
	accepts  float64 // an offer that it could use
	ignores  float64 // never answers an offer
	kills    float64 // ends a task before its time
	groups   float64 // launches as a task group
	forgets  float64 // does not acknowledge, until it is told again
	services float64 // a task that never ends by itself
	converts float64 // reserves, makes volumes, and undoes that
	thinks   time.Duration
	aware    bool
}

// record is what a scheduler has noted of a task.
type record struct {
	id      string
	key     taskKey
	agent   string
	updates []*mezzov1.TaskStatus // with a uuid, each once
	final   *mezzov1.TaskStatus   // the terminal one of these
	// refused: the master said that it does not launch it.
	refused bool
	// gone: the master said that its agent was marked gone.
	gone bool
	// believed is what the master said of it last, by itself.
	believed mezzov1.TaskState
	killed   bool
}

// over is whether the scheduler holds the task to have ended for good.
func (r *record) over() bool { return r.final != nil || r.refused || r.gone }

// nowhere is whether the state says that the task is not there.
func nowhere(s mezzov1.TaskState) bool {
	return s.Terminal() || s == mezzov1.TaskState_TASK_UNKNOWN
}

var roleNames = []string{"*", "web", "web/ads", "batch"}

func (w *world) addScheduler(i int) {
	s := &scheduler{w: w, name: fmt.Sprintf("sched%d", i)}
	odd := func(p, value float64) float64 {
		if w.chance(p) {
			return value
		}
		return 0
	}
	s.traits = traits{
		accepts: 0.3 + 0.7*w.rng.Float64(), ignores: odd(0.2, 0.3), kills: odd(0.4, 0.4), groups: odd(0.4, 0.6), forgets: odd(0.5, 0.3),
		services: odd(0.6, 0.2), converts: odd(0.5, 0.3), thinks: time.Duration(1+w.pick(400)) * time.Millisecond, aware: w.chance(0.5),
	}
	if w.chance(0.08) {
		s.traits.ignores = 1
	}
	w.schedulers = append(w.schedulers, s)
	s.begin()
	w.after(w.between(0, 2*time.Second), s.connect)
	w.after(w.between(time.Second, 3*time.Second), s.live)
}

// begin makes it a new framework.
func (s *scheduler) begin() {
	w := s.w
	s.serial++
	s.id, s.wanted, s.torn, s.led = "", 10+w.pick(40), false, w.now
	s.tasks, s.order, s.deeds = map[string]*record{}, nil, nil
	s.offers, s.held = map[string]*mezzov1.Offer{}, nil
	timeout := 40.0
	switch {
	case w.chance(0.1):
		timeout = 0
	case w.chance(0.2):
		timeout = 5
	}
	s.info = &mezzov1.FrameworkInfo{
		User: proto.String("root"), Name: proto.String(fmt.Sprintf("%s-%d", s.name, s.serial)), FailoverTimeout: proto.Float64(timeout),
	}
	add := func(c mezzov1.FrameworkInfo_Capability_Type) {
		s.info.Capabilities = append(s.info.Capabilities, &mezzov1.FrameworkInfo_Capability{Type: c.Enum()})
	}
	add(mezzov1.FrameworkInfo_Capability_MULTI_ROLE)
	if s.traits.aware {
		add(mezzov1.FrameworkInfo_Capability_PARTITION_AWARE)
	}
	if w.chance(0.5) {
		add(mezzov1.FrameworkInfo_Capability_TASK_KILLING_STATE)
	}
	if w.chance(0.5) {
		add(mezzov1.FrameworkInfo_Capability_RESERVATION_REFINEMENT)
	}
	if w.chance(0.5) {
		add(mezzov1.FrameworkInfo_Capability_SHARED_RESOURCES)
	}
	s.info.Roles = w.someRoles()
}

// live does now and then what a scheduler does of its own accord.
func (s *scheduler) live() {
	w := s.w
	w.after(w.between(time.Second, 4*time.Second), s.live)
	if !s.subscribed {
		return
	}
	switch {
	case w.healed:
		switch {
		case w.closing && !s.suppressed:
			s.suppress()
		case s.suppressed && !w.closing && (!w.cfg.Large || s.wanted > 0):
			s.revive()
		}
		s.reconcile(true)
		s.reconcileOperations(true)
		s.killAgain()
	case w.chance(0.15):
		s.reconcile(w.chance(0.5))
		s.reconcileOperations(w.chance(0.5))
	case w.chance(0.1):
		s.suppress()
	case s.suppressed && w.chance(0.5) || w.chance(0.05):
		s.revive()
	case w.chance(0.2):
		s.killAgain()
	case w.chance(0.05):
		s.change()
	}
}

// change changes the framework's roles.
func (s *scheduler) change() {
	s.info = proto.Clone(s.info).(*mezzov1.FrameworkInfo)
	s.info.Roles = s.w.someRoles()
	s.suppressed = false
	s.w.note([]string{s.name, s.id}, "%s goes to roles %v", s.name, s.info.Roles)
	info := proto.Clone(s.info).(*mezzov1.FrameworkInfo)
	info.Id = &mezzov1.FrameworkID{Value: proto.String(s.id)}
	s.call(&schedulerv1.Call{Type: schedulerv1.Call_UPDATE_FRAMEWORK.Enum(), UpdateFramework: &schedulerv1.Call_UpdateFramework{FrameworkInfo: info}})
}

func (w *world) someRoles() []string {
	roles := []string{roleNames[w.pick(len(roleNames))]}
	if second := roleNames[w.pick(len(roleNames))]; w.chance(0.3) && second != roles[0] {
		roles = append(roles, second)
	}
	return roles
}

func (s *scheduler) suppress() {
	s.suppressed = true
	s.call(&schedulerv1.Call{Type: schedulerv1.Call_SUPPRESS.Enum(), Suppress: &schedulerv1.Call_Suppress{}})
}

func (s *scheduler) revive() {
	s.suppressed = false
	s.call(&schedulerv1.Call{Type: schedulerv1.Call_REVIVE.Enum(), Revive: &schedulerv1.Call_Revive{}})
}

// reconcile asks for the state of tasks: each by name, or all.
func (s *scheduler) reconcile(explicit bool) {
	ask := &schedulerv1.Call_Reconcile{}
	for _, r := range s.order {
		if explicit && !r.over() {
			t := &schedulerv1.Call_Reconcile_Task{TaskId: &mezzov1.TaskID{Value: proto.String(r.id)}}
			if s.w.healed || s.w.chance(0.8) {
				t.AgentId = &mezzov1.AgentID{Value: proto.String(r.agent)}
			}
			ask.Tasks = append(ask.Tasks, t)
		}
	}
	if explicit && len(ask.Tasks) == 0 {
		return
	}
	s.call(&schedulerv1.Call{Type: schedulerv1.Call_RECONCILE.Enum(), Reconcile: ask})
}

// killAgain asks again for the end of what is to end: a kill may be lost with
// a master.
func (s *scheduler) killAgain() {
	for _, r := range s.order {
		if r.killed && !r.over() {
			s.kill(r)
		}
	}
}

func (s *scheduler) kill(r *record) {
	r.killed = true
	k := &schedulerv1.Call_Kill{TaskId: &mezzov1.TaskID{Value: proto.String(r.id)}, AgentId: &mezzov1.AgentID{Value: proto.String(r.agent)}}
	if s.w.chance(0.3) {
		k.KillPolicy = &mezzov1.KillPolicy{GracePeriod: &mezzov1.DurationInfo{Nanoseconds: proto.Int64(int64(s.w.between(0, 3*time.Second)))}}
	}
	s.w.note([]string{s.name, r.id}, "%s kills %s", s.name, r.id)
	s.call(&schedulerv1.Call{Type: schedulerv1.Call_KILL.Enum(), Kill: k})
}

// stream is one subscription of a scheduler.
type stream struct {
	number  uint64
	w       *world
	master  *master
	sched   *scheduler
	serial  int
	events  pipe
	calls   pipe
	results pipe
}

func (x *stream) id() state.Stream { return state.Stream(fmt.Sprintf("stream-%d", x.number)) }

// connect subscribes. An older stream may still be open: then this is another
// instance of the scheduler that takes over.
func (s *scheduler) connect() {
	w := s.w
	if w.failure != nil {
		return
	}
	m := w.someMaster()
	if m == nil {
		w.after(w.between(100*time.Millisecond, time.Second), func() {
			if s.cur == nil {
				s.connect()
			}
		})
		return
	}
	w.streams++
	x := &stream{number: w.streams, w: w, master: m, sched: s, serial: s.serial}
	x.events = pipe{w: w, deliver: x.atScheduler}
	x.calls = pipe{w: w, deliver: x.atMaster}
	x.results = pipe{w: w, deliver: x.answered}
	m.streams[x.id()] = x
	s.cur, s.subscribed = x, false
	s.offers, s.held = map[string]*mezzov1.Offer{}, nil
	call := &schedulerv1.Call_Subscribe{FrameworkInfo: proto.Clone(s.info).(*mezzov1.FrameworkInfo)}
	if s.id != "" {
		call.FrameworkInfo.Id = &mezzov1.FrameworkID{Value: proto.String(s.id)}
	}
	if s.suppressed {
		call.SuppressedRoles = s.info.Roles
	}
	w.note([]string{s.name, s.id, m.name}, "%s subscribes to %s as %q on %s", s.name, m.name, s.id, x.id())
	x.calls.send(call)
}

func (x *stream) atMaster(content any) {
	m := x.master
	switch c := content.(type) {
	case *schedulerv1.Call_Subscribe:
		m.step(state.Subscribe{Stream: x.id(), Call: c})
	case *schedulerv1.Call:
		m.step(state.SchedulerCall{Caller: state.Caller(x.number), Call: c})
	case closed:
		x.closedAtMaster(c.reason)
	}
}

func (x *stream) closedAtMaster(reason string) {
	if x.master.streams[x.id()] == x {
		delete(x.master.streams, x.id())
		x.events.cut()
		x.calls.cut()
		x.master.step(state.StreamClosed{Stream: x.id(), Reason: reason})
	}
}

// fail breaks the stream: what is under way is lost, both ends hear of it.
func (x *stream) fail(reason string) {
	w := x.w
	x.events.cut()
	x.calls.fails()
	x.results.cut()
	w.note([]string{x.sched.name, x.master.name}, "%s of %s breaks: %s", x.id(), x.sched.name, reason)
	w.after(w.between(0, 800*time.Millisecond), func() { x.closedAtMaster(reason) })
	w.after(w.between(0, 800*time.Millisecond), func() { x.sched.lost(x) })
}

// lost is the end of a stream, at the scheduler.
func (s *scheduler) lost(x *stream) {
	if s.cur != x {
		return
	}
	s.cur, s.subscribed = nil, false
	wait := s.w.between(10*time.Millisecond, time.Second)
	if !s.w.healed && s.w.chance(0.1) {
		wait = s.w.between(time.Second, 20*time.Second)
	}
	s.w.after(wait, func() {
		if s.cur == nil {
			s.connect()
		}
	})
}

// call sends a call on the current stream; without one it is lost.
func (s *scheduler) call(c *schedulerv1.Call) {
	if s.cur == nil || !s.subscribed {
		return
	}
	c.FrameworkId = &mezzov1.FrameworkID{Value: proto.String(s.id)}
	c.StreamId = proto.String(string(s.cur.id()))
	s.cur.calls.send(s.w.wire(c))
	if c.GetType() != schedulerv1.Call_ACCEPT && s.w.weather.twice(s.w) {
		s.cur.calls.send(s.w.wire(c))
	}
}

func (x *stream) answered(content any) {
	r, s := content.(*schedulerv1.CallResult), x.sched
	switch r.GetCode() {
	case schedulerv1.CallResult_ACCEPTED:
	case schedulerv1.CallResult_NOT_SUBSCRIBED, schedulerv1.CallResult_UNKNOWN_FRAMEWORK, schedulerv1.CallResult_SUPERSEDED:
		x.w.note([]string{s.name}, "%s: call answered %s: %s", s.name, r.GetCode(), r.GetMessage())
		if s.cur == x {
			x.hangUp()
			s.lost(x)
		}
	default:
		x.w.fail([]string{s.name, s.id}, "%s: a call was answered %s: %s", s.name, r.GetCode(), r.GetMessage())
	}
}

// hangUp closes the stream from the scheduler's end.
func (x *stream) hangUp() {
	x.events.cut()
	x.results.cut()
	x.calls.send(closed{"the scheduler closed it"})
}

func (x *stream) atScheduler(content any) {
	s := x.sched
	if s.cur != x || s.serial != x.serial {
		return // an older instance, which is of no account any more
	}
	if c, end := content.(closed); end {
		s.w.note([]string{s.name}, "%s: %s is closed: %s", s.name, x.id(), c.reason)
		x.calls.cut()
		s.lost(x)
		return
	}
	e := content.(*schedulerv1.Event)
	if e.GetType() == schedulerv1.Event_SUBSCRIBED && s.id != "" && s.w.registry.ended["frameworks/"+s.id] {
		// An earlier master removed it, and this one, which has never heard of it,
		// has taken it up by its id. Its tasks are ended all the same.
		s.removed()
		return
	}
	if e.GetType() != schedulerv1.Event_ERROR && x.master == s.w.leader {
		s.led = s.w.now
	}
	switch e.GetType() {
	case schedulerv1.Event_SUBSCRIBED:
		s.subscribe(e.GetSubscribed())
	case schedulerv1.Event_OFFERS:
		s.offered(e.GetOffers().GetOffers())
	case schedulerv1.Event_RESCIND:
		if s.w.healed || s.w.chance(0.8) { // else it is used although it is gone
			s.drop(e.GetRescind().GetOfferId().GetValue())
		}
	case schedulerv1.Event_INVERSE_OFFERS:
		s.asked(e.GetInverseOffers().GetInverseOffers())
	case schedulerv1.Event_UPDATE:
		s.update(e.GetUpdate().GetStatus())
	case schedulerv1.Event_UPDATE_OPERATION_STATUS:
		s.operationTold(e.GetUpdateOperationStatus().GetStatus())
	case schedulerv1.Event_ERROR:
		s.w.note([]string{s.name, s.id}, "%s: ERROR %s", s.name, e.GetError().GetMessage())
		if slices.Contains([]string{"Framework has been removed", "Framework was torn down by an operator"}, e.GetError().GetMessage()) {
			s.removed()
		} else if e.GetError().GetMessage() != "Framework failed over" {
			s.w.fail([]string{s.name, s.id}, "%s: ERROR %s", s.name, e.GetError().GetMessage())
		}
	}
}

func (s *scheduler) subscribe(e *schedulerv1.Event_Subscribed) {
	id := e.GetFrameworkId().GetValue()
	if s.id != "" && s.id != id {
		s.w.fail([]string{s.name, s.id, id}, "%s was %s and is subscribed as %s", s.name, s.id, id)
	}
	s.id, s.subscribed = id, true
	s.w.note([]string{s.name, id}, "%s is subscribed as %s", s.name, id)
	if s.w.chance(0.5) {
		s.reconcile(s.w.chance(0.5))
	}
}

// removed begins a new framework: the old one is gone for ever.
func (s *scheduler) removed() {
	w := s.w
	w.note([]string{s.name, s.id}, "%s: framework %s is gone", s.name, s.id)
	s.checkRemoval()
	for _, r := range s.order {
		w.lives[r.key].abandoned = true
	}
	for _, d := range s.deeds {
		d.abandoned = true
	}
	s.cur.hangUp()
	s.cur, s.subscribed = nil, false
	s.begin()
	w.after(w.between(0, time.Second), func() {
		if s.cur == nil {
			s.connect()
		}
	})
}

// update takes a status, checks that it may come, notes it and acknowledges it.
func (s *scheduler) update(st *mezzov1.TaskStatus) {
	w := s.w
	id := st.GetTaskId().GetValue()
	r := s.tasks[id]
	subjects := []string{s.name, id, s.id, st.GetAgentId().GetValue()}
	w.note(subjects, "%s <- %s", s.name, describeStatus(st))
	if r == nil {
		w.fail(subjects, "%s is told of task %q, which it never launched", s.name, id)
		return
	}
	if len(st.GetUuid()) == 0 {
		s.told(r, st, subjects)
		return
	}
	i := slices.IndexFunc(r.updates, func(u *mezzov1.TaskStatus) bool { return slices.Equal(u.GetUuid(), st.GetUuid()) })
	switch {
	case i >= 0 && r.updates[i].GetState() != st.GetState():
		w.fail(subjects, "task %s: update %s was %s and is %s", id, shortUUID(st.GetUuid()), r.updates[i].GetState(), st.GetState())
	case i >= 0: // again
	case r.refused:
		w.fail(subjects, "task %s was refused by the master, and its agent tells of it: %s", id, describeStatus(st))
	case r.gone:
		w.fail(subjects, "task %s is gone with its agent, and then comes %s", id, describeStatus(st))
	case r.final != nil:
		w.fail(subjects, "task %s ended as %s, and then comes %s", id, describeStatus(r.final), describeStatus(st))
	case len(r.updates) > 0 && rank(st.GetState()) < rank(r.updates[len(r.updates)-1].GetState()):
		w.fail(subjects, "task %s: %s comes after %s", id, describeStatus(st), describeStatus(r.updates[len(r.updates)-1]))
	default:
		r.updates = append(r.updates, st)
		if st.GetState().Terminal() {
			r.final = st
		}
	}
	s.acknowledge(st)
	if st.GetState() == mezzov1.TaskState_TASK_RUNNING && i < 0 && w.chance(s.traits.kills) && !w.healed {
		serial := s.serial
		w.after(w.between(0, 5*time.Second), func() {
			if s.serial == serial && !r.over() {
				s.kill(r)
			}
		})
	}
}

func rank(s mezzov1.TaskState) int {
	switch s {
	case mezzov1.TaskState_TASK_STAGING:
		return 0
	case mezzov1.TaskState_TASK_STARTING:
		return 1
	case mezzov1.TaskState_TASK_RUNNING:
		return 2
	case mezzov1.TaskState_TASK_KILLING:
		return 3
	}
	return 4
}

// told is a status that nobody waits for: a refusal, a loss, an answer.
func (s *scheduler) told(r *record, st *mezzov1.TaskStatus, subjects []string) {
	w := s.w
	if s.cur != nil && s.cur.master != w.leader && !nowhere(st.GetState()) {
		return // a leader that does not know yet that it leads no more says what it knew
	}
	if r.final != nil && !nowhere(st.GetState()) {
		w.fail(subjects, "task %s has ended as %s and the master says %s", r.id, describeStatus(r.final), describeStatus(st))
	}
	r.goneByOperator(w, st, subjects)
	r.believed = st.GetState()
	switch st.GetReason() {
	case mezzov1.TaskStatus_REASON_TASK_INVALID, mezzov1.TaskStatus_REASON_TASK_GROUP_INVALID, mezzov1.TaskStatus_REASON_INVALID_OFFERS:
		if len(r.updates) > 0 {
			w.fail(subjects, "task %s is refused after it was launched: %s", r.id, describeStatus(st))
		}
		r.refused = true
		w.lives[r.key].refused = true
		w.report.Refused++
		if l := w.lives[r.key]; l.started != "" {
			w.fail(subjects, "task %s is refused and has run on %s", r.id, l.started)
		}
	}
}

func (s *scheduler) acknowledge(st *mezzov1.TaskStatus) {
	w := s.w
	if !w.healed && w.chance(s.traits.forgets) {
		return // the agent will tell it again
	}
	stream := s.cur
	w.after(w.between(0, s.traits.thinks), func() {
		if s.cur != stream {
			return
		}
		s.call(&schedulerv1.Call{Type: schedulerv1.Call_ACKNOWLEDGE.Enum(), Acknowledge: &schedulerv1.Call_Acknowledge{
			AgentId: st.GetAgentId(), TaskId: st.GetTaskId(), Uuid: st.GetUuid(),
		}})
	})
}
