package state_test

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/mezzo-os/mezzo/core/agent/state"
	corelink "github.com/mezzo-os/mezzo/core/link"
	isolatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/isolator/v1"
	linkv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/link/v1"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
	"github.com/mezzo-os/mezzo/sdk/resource"
)

// world is all that is around a machine: a disk, isolators with containers that
// outlive the agent, and a stream to a master. What the machine asks for is
// noted, and answered when the test says so.
type world struct {
	probe uint64 // the serial of the newest
	cfg   state.Config
	seed  byte
	now   time.Time
	m     *state.Machine

	disk    map[string]map[string][]byte
	writes  []state.Checkpoint // asked for, not durable yet
	inbox   []state.Input      // answers on their way
	session uint64             // of the open stream; 0: none
	online  bool               // whether a Connect succeeds
	sent    []*linkv1.AgentMessage
	exit    *state.Exit

	containers map[string]*fake
	// showResources has transcripts show what the agent says it has.
	showResources bool
	volumes       map[state.VolumePlace]bool // whose directories are there
	removed       map[string]bool            // chores that were done and may come again
	stubborn      bool                       // containers ignore SIGTERM
	pid           int64

	programs *programs         // nil: custom executors do nothing by themselves
	tokens   map[string]string // that executors were given last, by their ids

	// transcript of outputs, if anybody wants one
	log   func(string, ...any)
	names map[string]string
}

type fake struct {
	state  isolatorv1.Recovered_State
	pid    int64
	exit   *isolatorv1.ExitStatus
	waited bool
}

func newWorld(cfg state.Config) *world {
	w := &world{
		cfg: cfg, now: time.Unix(1_800_000_000, 0).UTC(), disk: map[string]map[string][]byte{}, tokens: map[string]string{}, containers: map[string]*fake{}, pid: 100,
		volumes: map[state.VolumePlace]bool{}, removed: map[string]bool{},
		log: func(string, ...any) {}, names: map[string]string{}, online: true,
	}
	return w
}

// boot starts an agent on what the disk holds.
func (w *world) boot() {
	w.seed++
	cfg := w.cfg
	cfg.Seed = [32]byte{w.seed}
	w.m, w.writes, w.inbox, w.session, w.exit = state.New(cfg), nil, nil, 0, nil
	for _, c := range w.containers {
		c.waited = false
	}
	if w.programs != nil {
		for _, x := range w.programs.running {
			x.stream = 0
		}
	}
	var records []state.Record
	for _, bucket := range slices.Sorted(maps.Keys(w.disk)) {
		for _, key := range slices.Sorted(maps.Keys(w.disk[bucket])) {
			records = append(records, state.Record{Bucket: bucket, Key: key, Value: w.disk[bucket][key]})
		}
	}
	w.step(state.Restore{Records: records})
}

func (w *world) isolatorsUp() {
	for _, name := range w.cfg.Isolators {
		w.inbox = append(w.inbox, state.IsolatorUp{Isolator: name, Spec: []byte(name)}, state.IsolatorHealth{Isolator: name, Healthy: true})
	}
}

func (w *world) step(in state.Input) {
	for _, o := range w.m.Step(w.now, in) {
		w.do(o)
	}
}

// write makes the oldest n checkpoints durable.
func (w *world) write(n int) {
	for ; n > 0 && len(w.writes) > 0; n-- {
		c := w.writes[0]
		w.writes = w.writes[1:]
		for _, r := range c.Records {
			if w.disk[r.Bucket] == nil {
				w.disk[r.Bucket] = map[string][]byte{}
			}
			if r.Value == nil {
				delete(w.disk[r.Bucket], r.Key)
			} else {
				w.disk[r.Bucket][r.Key] = r.Value
			}
		}
		w.inbox = append(w.inbox, state.Written{Sequence: c.Sequence})
	}
}

// settle answers everything until nothing more is asked.
func (w *world) settle() {
	for i := 0; len(w.inbox)+len(w.writes) > 0; i++ {
		if i > 100_000 {
			panic("the agent never comes to rest")
		}
		w.write(len(w.writes))
		if len(w.inbox) > 0 {
			w.deliver()
		}
	}
}

// deliver gives the machine the oldest answer.
func (w *world) deliver() {
	in := w.inbox[0]
	w.inbox = w.inbox[1:]
	w.step(in)
}

func (w *world) master(epoch uint64, msg *linkv1.MasterMessage) {
	msg.Epoch = epoch
	w.step(state.LinkMessage{Session: w.session, Message: msg})
}

func (w *world) answer(in state.Input) { w.inbox = append(w.inbox, in) }

// ends lets a container's process end.
func (w *world) ends(id string, exit *isolatorv1.ExitStatus) {
	c := w.containers[id]
	if c == nil || c.state != isolatorv1.Recovered_STATE_RUNNING || c.pid == 0 {
		return
	}
	c.state, c.exit = isolatorv1.Recovered_STATE_EXITED, exit
	if c.waited {
		w.answer(state.Exited{Container: id, Status: exit})
	}
}

func exitCode(n int32) *isolatorv1.ExitStatus { return &isolatorv1.ExitStatus{Code: n, Known: true} }
func exitSignal(n int32) *isolatorv1.ExitStatus {
	return &isolatorv1.ExitStatus{Signal: n, Known: true}
}

func (w *world) do(o state.Output) {
	if text := w.describe(o); text != "" {
		w.log("%s", text)
	}
	if w.programs != nil {
		w.programs.hear(o)
	}
	switch o := o.(type) {
	case state.Checkpoint:
		w.writes = append(w.writes, o)
	case state.Connect:
		if w.online {
			w.session = o.Session
			w.answer(state.LinkUp{Session: o.Session, Master: "m1:5061"})
		} else {
			w.session = 0
			w.answer(state.LinkDown{Session: o.Session, Reason: "connection refused"})
		}
	case state.Disconnect:
		w.session = 0
	case state.SendMaster:
		if o.Session == w.session {
			w.sent = append(w.sent, o.Message)
		}
	case state.Recover:
		w.recover(o)
	case state.ClaimContainers:
		w.answer(w.claim(o))
	case state.Launch:
		if token := tokenIn(o.Plan); token != "" {
			w.tokens[o.Plan.Task.GetExecutorId()] = token
		}
		c := &fake{state: isolatorv1.Recovered_STATE_CREATED}
		if !o.Plan.Task.GetSandboxOnly() {
			w.pid++
			c.pid = w.pid
		}
		w.containers[o.Plan.Container] = c
		w.answer(state.Created{Container: o.Plan.Container, PID: c.pid, Handles: map[string][]byte{state.Launcher(o.Plan.Chain): []byte("h-" + o.Plan.Container)}})
	case state.Start:
		if c := w.containers[o.Container]; c != nil {
			c.state = isolatorv1.Recovered_STATE_RUNNING
			w.answer(state.Started{Container: o.Container})
		}
	case state.Update:
		w.answer(state.Updated{Container: o.Plan.Container})
	case state.Wait:
		if c := w.containers[o.Container]; c != nil {
			c.waited = true
			if c.exit != nil {
				w.answer(state.Exited{Container: o.Container, Status: c.exit})
			}
		}
	case state.Kill:
		if o.Grace == 0 {
			w.ends(o.Container, exitSignal(9))
		} else if !w.stubborn {
			w.ends(o.Container, exitSignal(15))
		}
	case state.Cleanup:
		delete(w.containers, o.Container)
		w.answer(state.CleanedUp{Container: o.Container})
	case state.MakeVolume:
		w.volumes[o.Place] = true
		w.answer(state.VolumeDone{Chore: o.Chore})
	case state.RemoveVolume:
		if !w.removed[o.Chore] {
			delete(w.volumes, o.Place)
			w.removed[o.Chore] = true
		}
		w.answer(state.VolumeDone{Chore: o.Chore})
	case state.ForgetVolume:
		delete(w.removed, o.Chore)
	case state.Exit:
		w.exit = &o
	}
}

func (w *world) claim(o state.ClaimContainers) state.Claimed {
	in := state.Claimed{Launch: o.Launch}
	for range o.Containers {
		var claims []state.Claim
		for i, name := range w.cfg.Isolators {
			c := state.Claim{Isolator: name, Claim: isolatorv1.ClaimResponse_CLAIM_AMEND}
			if i == 0 {
				c.Claim = isolatorv1.ClaimResponse_CLAIM_LAUNCH
			}
			claims = append(claims, c)
		}
		in.Claims = append(in.Claims, claims)
	}
	return in
}

func (w *world) recover(o state.Recover) {
	in := state.IsolatorRecovered{Isolator: o.Isolator}
	known := map[string]bool{}
	for _, k := range o.Known {
		known[k.GetContainer()] = true
		r := &isolatorv1.Recovered{Container: k.GetContainer(), State: isolatorv1.Recovered_STATE_LOST}
		if c := w.containers[k.GetContainer()]; c != nil {
			r.State, r.Pid = c.state, c.pid
		}
		in.Containers = append(in.Containers, r)
	}
	for _, id := range slices.Sorted(maps.Keys(w.containers)) {
		if !known[id] {
			in.Orphans = append(in.Orphans, id)
		}
	}
	w.answer(in)
}

// unacknowledged takes the updates that were sent since it was last called.
func (w *world) updates() []*linkv1.StatusUpdate {
	var list []*linkv1.StatusUpdate
	for _, s := range w.sent {
		if u := s.GetUpdate(); u != nil {
			list = append(list, u)
		}
	}
	w.sent = nil
	return list
}

func ack(u *linkv1.StatusUpdate) *linkv1.MasterMessage {
	return &linkv1.MasterMessage{Message: &linkv1.MasterMessage_Acknowledge{Acknowledge: &linkv1.Acknowledge{
		Task: &linkv1.TaskRef{FrameworkId: u.GetFrameworkId(), TaskId: u.GetStatus().GetTaskId().GetValue()}, Uuid: u.GetStatus().GetUuid(),
	}}}
}

func registeredAs(id string) *linkv1.MasterMessage {
	return &linkv1.MasterMessage{Message: &linkv1.MasterMessage_Registered{Registered: &linkv1.Registered{AgentId: id, PingTimeoutMs: 75_000}}}
}

func frameworkInfo(id string, capabilities ...mezzov1.FrameworkInfo_Capability_Type) *mezzov1.FrameworkInfo {
	f := &mezzov1.FrameworkInfo{User: proto.String("ann"), Name: proto.String(id), Id: &mezzov1.FrameworkID{Value: proto.String(id)}}
	for _, c := range capabilities {
		f.Capabilities = append(f.Capabilities, &mezzov1.FrameworkInfo_Capability{Type: c.Enum()})
	}
	return f
}

func taskInfo(id, command string) *mezzov1.TaskInfo {
	return &mezzov1.TaskInfo{
		Name: proto.String(id), TaskId: &mezzov1.TaskID{Value: proto.String(id)}, AgentId: &mezzov1.AgentID{Value: proto.String("A1")},
		Command:   &mezzov1.CommandInfo{Value: proto.String(command)},
		Resources: []*mezzov1.Resource{scalar("cpus", 1), scalar("mem", 64)},
	}
}

func scalar(name string, value float64) *mezzov1.Resource {
	return &mezzov1.Resource{
		Name: proto.String(name), Type: mezzov1.Value_SCALAR.Enum(), Scalar: &mezzov1.Value_Scalar{Value: proto.Float64(value)},
		AllocationInfo: &mezzov1.Resource_AllocationInfo{Role: proto.String("*")},
	}
}

func defaultExecutor(id string) *mezzov1.ExecutorInfo {
	return &mezzov1.ExecutorInfo{
		ExecutorId: &mezzov1.ExecutorID{Value: proto.String(id)}, Type: mezzov1.ExecutorInfo_DEFAULT.Enum(), Resources: []*mezzov1.Resource{scalar("cpus", 0.1), scalar("mem", 32)},
	}
}

func run(f *mezzov1.FrameworkInfo, e *mezzov1.ExecutorInfo, tasks ...*mezzov1.TaskInfo) *linkv1.MasterMessage {
	return &linkv1.MasterMessage{Message: &linkv1.MasterMessage_Run{Run: &linkv1.Run{Framework: f, Tasks: tasks, Executor: e, Group: e.GetType() == mezzov1.ExecutorInfo_DEFAULT}}}
}

var uuids = regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`)

// short gives identifiers names that a reader can follow: c1, c2… for
// containers, u1, u2… for updates.
func (w *world) short(text string) string {
	return uuids.ReplaceAllStringFunc(text, func(id string) string { return w.name("c", id) })
}

func (w *world) name(prefix, id string) string {
	if w.names[prefix+id] == "" {
		n := 0
		for k := range w.names {
			if strings.HasPrefix(k, prefix) {
				n++
			}
		}
		w.names[prefix+id] = fmt.Sprintf("%s%d", prefix, n+1)
	}
	return w.names[prefix+id]
}

// long is the container of a short name.
func (w *world) long(short string) string {
	for k, v := range w.names {
		if v == short {
			return k[1:]
		}
	}
	return short
}

func (w *world) describe(o state.Output) string {
	switch o := o.(type) {
	case state.Checkpoint:
		var list []string
		for _, r := range o.Records {
			sign := "+"
			if r.Value == nil {
				sign = "-"
			}
			list = append(list, sign+r.Bucket+"/"+strings.ReplaceAll(r.Key, "\x00", ","))
		}
		return w.short(fmt.Sprintf("checkpoint %d: %s", o.Sequence, strings.Join(list, " ")))
	case state.Connect:
		return fmt.Sprintf("connect (session %d)", o.Session)
	case state.Disconnect:
		return fmt.Sprintf("disconnect (session %d): %s", o.Session, o.Reason)
	case state.SendMaster:
		return w.short("→ master " + w.describeMessage(o.Message))
	case state.Recover:
		var list []string
		for _, k := range o.Known {
			list = append(list, fmt.Sprintf("%s launcher=%v handle=%q", k.GetContainer(), k.GetLauncher(), k.GetHandle()))
		}
		return w.short(fmt.Sprintf("recover %s [%s]", o.Isolator, strings.Join(list, "; ")))
	case state.Retire:
		return "retire " + o.Isolator
	case state.ClaimContainers:
		var list []string
		for _, p := range o.Containers {
			list = append(list, p.Container)
		}
		return w.short(fmt.Sprintf("claim %v", list))
	case state.Launch:
		p := o.Plan
		text := fmt.Sprintf("launch %s task=%q user=%q in %s", p.Container, p.Task.GetTaskId(), p.Task.GetUser(), p.Sandbox)
		if p.Parent != "" {
			text += " parent=" + p.Parent
		}
		if !p.Deadline.IsZero() {
			text += fmt.Sprintf(" deadline=+%v", p.Deadline.Sub(w.now))
		}
		for _, v := range p.Volumes {
			text += fmt.Sprintf(" %s at %s", v, v.ContainerPath)
		}
		return w.short(text)
	case state.MakeVolume:
		return fmt.Sprintf("make %s (%s)", o.Place, w.name("chore", o.Chore))
	case state.RemoveVolume:
		return fmt.Sprintf("remove %s (%s)", o.Place, w.name("chore", o.Chore))
	case state.ForgetVolume:
		return fmt.Sprintf("forget %s (%s)", o.Place, w.name("chore", o.Chore))
	case state.Start:
		return w.short(fmt.Sprintf("start %s pid=%d", o.Container, o.PID))
	case state.Update:
		return w.short("update " + o.Plan.Container + limitText(o.Plan.Task))
	case state.Probe:
		w.probe = o.Serial
		return w.short(describeProbe(o))
	case state.Wait:
		return w.short("wait " + o.Container)
	case state.Kill:
		return w.short(fmt.Sprintf("kill %s signal=%d grace=%v", o.Container, o.Signal, o.Grace))
	case state.Cleanup:
		return w.short(fmt.Sprintf("cleanup %s %d isolators", o.Container, len(o.Chain)))
	case state.Exit:
		return fmt.Sprintf("exit: %s (%v)", o.Reason, o.Err)
	case state.Log:
		return w.short(fmt.Sprintf("log %d: %s %v", o.Level, o.Message, o.Fields))
	}
	return w.describeExecutor(o)
}

// limitText is what a container may use, of cpus.
func limitText(t *isolatorv1.Task) string {
	total := 0.0
	for _, r := range t.GetResources() {
		if r.GetName() == "cpus" {
			total += r.GetScalar().GetValue()
		}
	}
	text := fmt.Sprintf(" cpus=%.1f", total)
	for _, l := range t.GetLimits() {
		text += fmt.Sprintf(" limit.%s=%d", l.GetName(), l.GetThousandths())
	}
	return text
}

// resourcesText is what an agent says it has, in short.
func resourcesText(kinds []*linkv1.Kind, a *linkv1.Agent) string {
	var list []resource.Kind
	for _, k := range kinds {
		kind, err := resource.KindFromProto(k.GetResource())
		if err != nil {
			return err.Error()
		}
		list = append(list, kind)
	}
	r, err := corelink.Unpack(list, a.GetResources())
	if err != nil {
		return err.Error()
	}
	return resourceText(r)
}

// resourceText is resources as "disk(db)[data]:64 disk:36".
func resourceText(r resource.Resources) string {
	var parts []string
	for i := range r {
		text := r[i].Kind.Name()
		for _, x := range r[i].Kind.Reservations() {
			text += "(" + x.Role + ")"
		}
		if id := r[i].Kind.PersistenceID(); id != "" {
			text += "[" + id + "]"
		}
		if r[i].Kind.Shared() {
			text += "shared"
		}
		parts = append(parts, text+":"+r[i].Scalar.String())
	}
	return strings.Join(parts, " ")
}

func endpointText(a *linkv1.Agent) (text string) {
	for _, e := range a.GetEndpoints() {
		text += " " + e.GetName() + "=" + e.GetAddress()
	}
	return text
}

func (w *world) describeMessage(m *linkv1.AgentMessage) string {
	switch {
	case m.GetRegister() != nil:
		r := m.GetRegister()
		text := fmt.Sprintf("register id=%q withheld=%q frameworks=%d executors=%d more=%v", r.GetAgent().GetId(), r.GetAgent().GetWithheld(), len(r.GetFrameworks()), len(r.GetExecutors()), r.GetMore())
		text += endpointText(r.GetAgent())
		for _, t := range r.GetTasks() {
			text += fmt.Sprintf("\n           task %s %v unacknowledged=%v %v", t.GetId(), t.GetState(), t.GetUnacknowledged(), t.GetUpdateState())
		}
		for _, o := range r.GetOperations() {
			text += fmt.Sprintf("\n           operation %s %v", o.GetOperationId(), o.GetLatestStatus().GetState())
		}
		if w.showResources {
			text += "\n           has " + resourcesText(r.GetKinds(), r.GetAgent())
		}
		return text
	case m.GetPong() != nil:
		return "pong"
	case m.GetExecutorExited() != nil:
		x := m.GetExecutorExited()
		return fmt.Sprintf("executor %s of %s exited, status %d", x.GetExecutorId(), x.GetFrameworkId(), x.GetStatus())
	case m.GetFrameworkMessage() != nil:
		return fmt.Sprintf("message of %s: %q", m.GetFrameworkMessage().GetExecutorId(), m.GetFrameworkMessage().GetData())
	case m.GetState() != nil:
		text := fmt.Sprintf("state withheld=%q", m.GetState().GetAgent().GetWithheld()) + endpointText(m.GetState().GetAgent())
		if n := m.GetState().GetOperations(); n > 0 {
			text += fmt.Sprintf(" after %d operations", n)
		}
		if w.showResources {
			text += " has " + resourcesText(m.GetState().GetKinds(), m.GetState().GetAgent())
		}
		return text
	case m.GetOperation() != nil:
		u := m.GetOperation()
		s := u.GetStatus()
		text := fmt.Sprintf("operation %s of %q: %v", s.GetOperationId().GetValue(), u.GetFrameworkId(), s.GetState())
		if s.GetUuid() != nil {
			text += " " + w.name("s", string(s.GetUuid().GetValue()))
		}
		if s.Message != nil {
			text += fmt.Sprintf(" %q", s.GetMessage())
		}
		if made, err := resource.FromProto(s.GetConvertedResources()); err == nil && !made.IsEmpty() {
			text += " made " + resourceText(made)
		}
		return text
	case m.GetUpdate() != nil:
		u := m.GetUpdate()
		s := u.GetStatus()
		text := fmt.Sprintf("update %s %s/%s %v %v", w.name("u", string(s.GetUuid())), u.GetFrameworkId(), s.GetTaskId().GetValue(), s.GetState(), s.GetSource())
		if s.Reason != nil {
			text += " " + s.GetReason().String()
		}
		if s.Message != nil {
			text += fmt.Sprintf(" %q", s.GetMessage())
		}
		if s.Healthy != nil {
			text += fmt.Sprintf(" healthy=%v", s.GetHealthy())
		}
		if c := s.GetCheckStatus(); c != nil {
			text += " check=" + checkText(c)
		}
		if cs := s.GetContainerStatus(); cs != nil {
			text += fmt.Sprintf(" container=%s pid=%d", cs.GetContainerId().GetValue(), cs.GetExecutorPid())
		}
		if u.GetLatestState() != s.GetState() {
			text += fmt.Sprintf(" latest=%v", u.GetLatestState())
		}
		return text
	}
	return fmt.Sprintf("%T", m.GetMessage())
}
