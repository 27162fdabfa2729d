package state_test

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
	"google.golang.org/protobuf/proto"

	"github.com/mezzo-os/mezzo/core/master/state"
	"github.com/mezzo-os/mezzo/sdk/allocator"
	linkv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/link/v1"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
	schedulerv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1/scheduler"
	"github.com/mezzo-os/mezzo/sdk/resource"
)

// TestTranscripts runs the scenarios of testdata. Each block is a few verbs,
// one a line, and below the line what the machine did in answer. The master's
// id is "m", so its first agent is m-S0, its first framework m-0000 and its
// first offer m-O0. The books are audited after every step, and the allocator's
// mirror, kept by events alone, has to agree with them after every verb.
// `go test -rewrite` writes the answers anew.
func TestTranscripts(t *testing.T) {
	paths, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no transcripts: %v", err)
	}
	for _, path := range paths {
		s := &script{t: t, streams: map[string]string{}}
		run := func(t *testing.T, d *datadriven.TestData) string {
			s.t = t
			if d.Cmd != "do" && d.Cmd != "master" {
				d.Fatalf(t, "unknown block %q: use master or do", d.Cmd)
			}
			if d.Cmd == "master" {
				s.master(d)
				return ""
			}
			var out strings.Builder
			for line := range strings.Lines(d.Input) {
				line = strings.TrimSpace(line)
				if line == "" || line[0] == '#' {
					continue
				}
				out.WriteString(s.run(line))
			}
			return out.String()
		}
		t.Run(filepath.Base(path), func(t *testing.T) { datadriven.RunTest(t, path, run) })
	}
}

type script struct {
	t       *testing.T
	w       *world
	streams map[string]string // framework by stream
	link    string            // the link that registered last
	// operations that agents were sent, by link.
	operations map[state.Link]*operated
	underWay   []*linkv1.Operation // that agents took in and have not finished
}

func (s *script) master(d *datadriven.TestData) {
	cfg := state.Config{MasterID: "m", Version: "1.2.3", MinRefuse: time.Second, SnapshotAgents: 2}
	for _, a := range d.CmdArgs {
		v := a.Vals[0]
		switch a.Key {
		case "offer_timeout":
			cfg.OfferTimeout = s.duration(v)
		case "ready_timeout":
			cfg.ReadyTimeout = s.duration(v)
		case "max_decisions":
			cfg.MaxDecisionsPerSecond = s.number(v)
		case "max_completed_tasks":
			cfg.MaxCompletedTasks = s.number(v)
		case "max_completed_frameworks":
			cfg.MaxCompletedFrameworks = s.number(v)
		case "unreachable_per_minute":
			cfg.UnreachablePerMinute = s.number(v)
		case "max_unreachable_tasks":
			cfg.MaxUnreachableTasks = s.number(v)
		case "max_away_agents":
			cfg.MaxAwayAgents = s.number(v)
		case "role":
			r := state.Role{Name: v}
			if len(a.Vals) > 1 {
				r.Limit = *quantities(a.Vals[1])
			}
			if len(a.Vals) > 2 {
				r.Guarantee = *quantities(a.Vals[2])
			}
			cfg.Roles = append(cfg.Roles, r)
		case "revocation": // (min_grace,max_per_minute)
			cfg.TellTasks, cfg.Revocation = true, state.Revocation{Enabled: true, MinGrace: s.duration(v), MaxPerMinute: s.number(a.Vals[1])}
		case "tell_tasks":
			cfg.TellTasks = v == "true"
		default:
			s.t.Fatalf("unknown setting %q", a.Key)
		}
	}
	s.w = newWorld(s.t, cfg)
}

func (s *script) duration(v string) time.Duration {
	d, err := time.ParseDuration(v)
	if err != nil {
		s.t.Fatal(err)
	}
	return d
}

func (s *script) number(v string) int {
	n, err := strconv.Atoi(v)
	if err != nil {
		s.t.Fatal(err)
	}
	return n
}

// withoutPulse counts pings and heartbeats instead of showing them.
func withoutPulse(text string) string {
	var b strings.Builder
	pings, beats := 0, 0
	for line := range strings.Lines(text) {
		switch {
		case strings.HasSuffix(line, "<- PING\n"):
			pings++
		case strings.HasSuffix(line, "<- HEARTBEAT\n"):
			beats++
		default:
			b.WriteString(line)
		}
	}
	if pings+beats > 0 {
		fmt.Fprintf(&b, "(%d pings, %d heartbeats)\n", pings, beats)
	}
	return b.String()
}

// args are the words of a line: those without "=" in order, the others by name.
type args struct {
	words []string
	named map[string]string
}

func parse(line string) args {
	a := args{named: map[string]string{}}
	for _, w := range strings.Fields(line) {
		if k, v, ok := strings.Cut(w, "="); ok {
			a.named[k] = v
		} else {
			a.words = append(a.words, w)
		}
	}
	return a
}

func (a args) list(name string) []string {
	if a.named[name] == "" {
		return nil
	}
	return strings.Split(a.named[name], ",")
}

func (a args) get(name, def string) string {
	if v, ok := a.named[name]; ok {
		return v
	}
	return def
}

func (s *script) run(line string) string {
	verb, rest, _ := strings.Cut(line, " ")
	own, _, _ := strings.Cut(rest, ":: ") // the operations have names of their own
	a := parse(own)
	w := s.w
	w.t = s.t
	var outs []state.Output
	head := "> " + line + "\n"
	if verb == "register" || verb == "open" {
		s.link = a.get("link", s.link)
	}
	link := func() state.Link { return state.Link(s.number(a.get("link", s.link))) }
	switch verb {
	case "manual":
		w.manual = true
	case "written":
		if len(w.writes) == 0 {
			s.t.Fatalf("no write is under way")
		}
		in := w.writes[0]
		w.writes = w.writes[1:]
		if a.get("error", "") == "" {
			w.commit(in)
		}
		outs = w.step(state.RegistryWritten{ID: in.ID, Err: a.get("error", "")})
	case "recover":
		w.cfg.MasterID += "'"
		w.start()
	case "advance":
		outs = w.advance(s.duration(a.words[0]))
		s.checkMirror()
		return head + withoutPulse(lines(outs))
	case "pongs": // time passes, and the agent that registered last answers
		for left := s.duration(a.words[0]); left > 0; left -= time.Minute {
			outs = append(outs, w.advance(min(left, time.Minute))...)
			outs = append(outs, w.step(state.LinkMessage{Link: link(), Message: &linkv1.AgentMessage{Message: &linkv1.AgentMessage_Pong{Pong: &linkv1.Pong{}}}})...)
		}
		s.checkMirror()
		return head + withoutPulse(lines(outs))
	case "open":
		outs = w.step(state.LinkOpened{Link: link(), Peer: "peer"})
	case "register":
		w.step(state.LinkOpened{Link: link(), Peer: a.get("peer", "peer")})
		r := s.register(a)
		s.registers(link(), r, a)
		outs = w.step(state.LinkMessage{Link: link(), Message: &linkv1.AgentMessage{
			Message: &linkv1.AgentMessage_Register{Register: r},
		}})
	case "state":
		r := s.register(a)
		outs = w.step(state.LinkMessage{Link: link(), Message: &linkv1.AgentMessage{Message: &linkv1.AgentMessage_State{
			State: &linkv1.AgentState{Agent: r.Agent, Kinds: r.Kinds},
		}}})
	case "take":
		outs = s.take(link(), a)
	case "cut":
		outs = w.step(state.LinkClosed{Link: link(), Reason: "cut"})
	case "pong":
		outs = w.step(state.LinkMessage{Link: link(), Message: &linkv1.AgentMessage{Message: &linkv1.AgentMessage_Pong{Pong: &linkv1.Pong{}}}})
	case "drained":
		outs = w.step(state.LinkMessage{Link: link(), Message: &linkv1.AgentMessage{Message: &linkv1.AgentMessage_DrainDone{DrainDone: &linkv1.DrainDone{}}}})
	case "agents":
		return head + s.listAgents()
	case "unregister":
		outs = w.step(state.LinkMessage{Link: link(), Message: &linkv1.AgentMessage{Message: &linkv1.AgentMessage_Unregister{Unregister: &linkv1.Unregister{}}}})
	case "update":
		outs = w.step(state.LinkMessage{Link: link(), Message: &linkv1.AgentMessage{Message: &linkv1.AgentMessage_Update{Update: s.update(a)}}})
	case "exited":
		outs = w.step(state.LinkMessage{Link: link(), Message: &linkv1.AgentMessage{Message: &linkv1.AgentMessage_ExecutorExited{
			ExecutorExited: &linkv1.ExecutorExited{FrameworkId: a.words[0], ExecutorId: a.words[1], Status: 9},
		}}})
	case "executor_message":
		outs = w.step(state.LinkMessage{Link: link(), Message: &linkv1.AgentMessage{Message: &linkv1.AgentMessage_FrameworkMessage{
			FrameworkMessage: &linkv1.FrameworkMessage{FrameworkId: a.words[0], ExecutorId: a.words[1], Data: []byte(a.words[2])},
		}}})
	case "subscribe":
		outs = w.step(state.Subscribe{Stream: state.Stream(a.words[0]), Principal: a.get("authenticated", ""), Adapter: a.get("adapter", ""), Call: s.subscription(a)})
		for _, o := range outs {
			if e, ok := o.(state.SendScheduler); ok && e.Event.GetSubscribed() != nil {
				s.streams[string(e.Stream)] = e.Event.GetSubscribed().GetFrameworkId().GetValue()
			}
		}
	case "hangup":
		outs = w.step(state.StreamClosed{Stream: state.Stream(a.words[0]), Reason: "hang up"})
	case "lost": // its adapter, and so its stream
		outs = w.step(state.StreamClosed{Stream: state.Stream(a.words[0]), Reason: "its adapter was lost", AdapterLost: true})
	case "adapter":
		if a.words[1] == "up" {
			outs = w.step(state.AdapterUp{Adapter: a.words[0]})
		} else {
			outs = w.step(state.AdapterDown{Adapter: a.words[0]})
		}
	case "allocator":
		outs = s.allocator(a)
	case "offer":
		outs = w.offer(a.words[0], a.get("role", "*"), a.words[1], parseShort(a.words[2]))
	case "operator":
		outs = s.operator(a)
	case "tasks":
		return shortText(head + s.listTasks())
	case "free":
		return shortText(head + s.listFree())
	case "operation_ends":
		for _, what := range slices.Sorted(maps.Keys(s.w.operationEnds)) {
			head += fmt.Sprintln(what, s.w.operationEnds[what])
		}
		return head
	default:
		outs = s.schedulerCall(verb, rest, a)
	}
	s.heard(outs)
	s.checkMirror()
	return shortText(head + lines(outs))
}

// checkMirror compares what an allocator believes with the machine's answer to
// a fresh session.
func (s *script) checkMirror() { s.w.checkMirror(s.t) }

func (s *script) register(a args) *linkv1.Register {
	var tasks []reported
	for _, text := range a.list("tasks") { // framework/task/state/resources[/executor]
		p := strings.Split(text, "/")
		if len(p) < 4 {
			s.t.Fatalf("task %q: want framework/task/state/resources", text)
		}
		r := reported{
			framework: p[0], id: p[1], state: taskState(s.t, p[2]), resources: parseShort(p[3]), role: a.get("role", "*"),
			unacked: strings.HasSuffix(p[2], "!"), uuid: uuid(99),
		}
		if len(p) > 4 {
			r.executor = p[4]
		}
		tasks = append(tasks, r)
	}
	r := register(a.get("id", ""), a.get("host", "h"), parseShort(a.get("total", "cpus:4;mem:4096;disk:1000")), tasks)
	r.Agent.Withheld = a.get("withheld", "")
	r.Agent.Version = a.get("version", "1.0")
	r.Agent.BootId = a.get("boot", "")
	return r
}

func taskState(t reporter, name string) mezzov1.TaskState {
	n, ok := mezzov1.TaskState_value["TASK_"+strings.TrimSuffix(name, "!")]
	if !ok {
		t.Fatalf("unknown task state %q", name)
	}
	return mezzov1.TaskState(n)
}

func (s *script) update(a args) *linkv1.StatusUpdate {
	st := status(a.words[1], a.get("agent", "m-S0"), taskState(s.t, a.words[2]), uuid(s.number(a.get("uuid", "1"))))
	u := &linkv1.StatusUpdate{FrameworkId: a.words[0], Status: st, ExecutorLives: a.get("lives", "") != ""}
	if l := a.get("latest", ""); l != "" {
		u.LatestState = taskState(s.t, l).Enum()
	}
	if r := a.get("reason", ""); r != "" {
		st.Reason = mezzov1.TaskStatus_Reason(mezzov1.TaskStatus_Reason_value["REASON_"+r]).Enum()
	}
	return u
}

func (s *script) subscription(a args) *schedulerv1.Call_Subscribe {
	failover, err := strconv.ParseFloat(a.get("failover", "3600"), 64)
	if err != nil {
		s.t.Fatal(err)
	}
	roles := a.list("roles")
	if roles == nil {
		roles = []string{"*"}
	}
	var caps []mezzov1.FrameworkInfo_Capability_Type
	for _, c := range a.list("caps") {
		caps = append(caps, mezzov1.FrameworkInfo_Capability_Type(mezzov1.FrameworkInfo_Capability_Type_value[c]))
	}
	info := framework(a.get("name", "f"), a.get("id", ""), roles, failover, caps...)
	if p := a.get("principal", ""); p != "" {
		info.Principal = proto.String(p)
	}
	if r := a.get("single_role", ""); r != "" {
		info.Role = proto.String(r)
	}
	return &schedulerv1.Call_Subscribe{FrameworkInfo: info, SuppressedRoles: a.list("suppressed")}
}

func (s *script) allocator(a args) []state.Output {
	w := s.w
	decide := func(d allocator.Decision) []state.Output {
		return w.step(state.AllocatorDecisions{Session: w.session, Decisions: []allocator.Decision{d}})
	}
	switch a.words[0] {
	case "start":
		return w.openAllocator()
	case "open":
		return w.step(w.open())
	case "prepare":
		var cfg *state.Config
		if len(a.words) > 1 {
			cfg = s.changed(a)
		}
		return w.step(w.prepare(cfg))
	case "seen":
		return w.step(state.AllocatorSeen{Session: w.preparing, EventsSeen: uint64(s.number(a.words[1]))})
	case "next-ready":
		return w.step(state.AllocatorReady{Session: w.preparing, EventsSeen: uint64(s.number(a.get("seen", "0")))})
	case "next-crash":
		id := w.preparing
		w.next, w.preparing = nil, 0
		return w.step(state.AllocatorClosed{Session: id, Reason: "crash"})
	case "next-offer":
		return w.step(offerDecision(w.preparing, w.next.begin.FirstDecision, a.words[2], a.words[1], a.get("role", "*"), resource.MustParse(a.words[3])))
	case "late-offer": // of a session that is over
		return w.step(offerDecision(state.Session(s.number(a.words[1])), w.seq+1, a.words[3], a.words[2], a.get("role", "*"), resource.MustParse(a.words[4])))
	case "leap":
		return decide(&allocator.Rescind{Number: w.seq + 1<<33, Offer: 1})
	case "ready":
		return w.step(state.AllocatorReady{Session: w.session})
	case "tick":
		w.now = w.now.Add(1)
		return w.step(state.Tick{})
	case "crash":
		id := w.session
		w.mirror, w.session = nil, 0
		return w.step(state.AllocatorClosed{Session: id, Reason: "crash"})
	case "rescind":
		w.seq++
		return decide(&allocator.Rescind{Number: w.seq, Offer: uint64(s.number(a.words[1]))})
	case "revoke":
		w.seq = max(w.seq+1, w.mirror.begin.FirstDecision)
		return decide(&allocator.Revoke{
			Number: w.seq, Task: uint64(s.number(a.words[1])), Grace: s.duration(a.get("grace", "30s")), Reason: "for a starved role",
			Framework: a.get("for", ""), Role: a.get("role", ""),
		})
	case "ask": // FRAMEWORK AGENT
		w.seq = max(w.seq+1, w.mirror.begin.FirstDecision)
		return decide(&allocator.InverseOffer{Number: w.seq, Framework: a.words[1], Agent: a.words[2]})
	case "malformed":
		w.seq++
		return decide(&state.Malformed{Number: w.seq, Message: "kind 7 is not known"})
	case "repeat":
		return decide(&allocator.Rescind{Number: w.seq, Offer: 1})
	}
	s.t.Fatalf("unknown allocator verb %q", a.words[0])
	return nil
}

// changed is the configuration with other values.
func (s *script) changed(a args) *state.Config {
	cfg := s.w.cfg
	if d := a.get("offer_timeout", ""); d != "" {
		cfg.OfferTimeout = s.duration(d)
	}
	if r := a.get("revocation", ""); r != "" {
		cfg.Revocation.Enabled = r == "true"
		cfg.TellTasks = cfg.Revocation.Enabled
	}
	cfg.Roles = nil
	for _, text := range a.list("roles") { // name/weight/limit
		p := strings.Split(text, "/")
		cfg.Roles = append(cfg.Roles, state.Role{Name: p[0], Weight: uint64(s.number(p[1])), Limit: resource.MustParse(p[2]).Quantities()})
	}
	return &cfg
}

func (s *script) operator(a args) []state.Output {
	switch a.words[0] {
	case "kill":
		return s.w.step(state.KillTask{Request: 7, TaskID: a.words[1], FrameworkID: a.get("framework", "")})
	case "do": // AGENT VERB RESOURCES …
		rest := a
		rest.words = append([]string{"-"}, a.words[3:]...)
		return s.w.step(state.ApplyOperation{Request: 7, AgentID: a.words[1], Operation: resourceOperation(a.words[2], rest), Principal: a.get("principal", "")})
	case "teardown":
		return s.w.step(state.Teardown{Request: 7, FrameworkID: a.words[1]})
	case "quota":
		in := state.SetQuota{Request: 7, Role: a.words[1], Force: a.get("force", "") == "true"}
		if _, set := a.named["limit"]; set {
			in.Limit = quantities(a.named["limit"])
		}
		if _, set := a.named["guarantee"]; set {
			in.Guarantee = quantities(a.named["guarantee"])
		}
		return s.w.step(in)
	case "schedule": // MACHINE,…/START/DURATION …, START from the epoch
		in := state.SetSchedule{Request: 7}
		for _, w := range a.words[1:] {
			p := strings.Split(w, "/")
			in.Windows = append(in.Windows, state.Window{Machines: machines(p[0]), Start: epoch.Add(s.duration(p[1])), Duration: s.duration(p[2])})
		}
		return s.w.step(in)
	case "down", "up":
		return s.w.step(state.SetMaintenance{Request: 7, Machines: machines(strings.Join(a.words[1:], ",")), Down: a.words[0] == "down"})
	case "drain":
		in := state.DrainAgent{Request: 7, AgentID: a.words[1], MarkGone: a.get("gone", "") != ""}
		if g := a.get("grace", ""); g != "" {
			d := s.duration(g)
			in.MaxGrace = &d
		}
		return s.w.step(in)
	case "deactivate":
		return s.w.step(state.DeactivateAgent{Request: 7, AgentID: a.words[1]})
	case "reactivate":
		return s.w.step(state.ReactivateAgent{Request: 7, AgentID: a.words[1]})
	case "gone":
		return s.w.step(state.MarkAgentGone{Request: 7, AgentID: a.words[1]})
	case "reconfigure":
		return s.w.step(state.Reconfigure{Request: 7, Config: *s.changed(a)})
	case "unset":
		return s.w.step(state.RemoveQuota{Request: 7, Role: a.words[1]})
	case "weights":
		in := state.SetWeights{Request: 7}
		for _, w := range a.words[1:] {
			role, weight, _ := strings.Cut(w, ":")
			in.Weights = append(in.Weights, state.RoleWeight{Role: role, Weight: uint64(s.number(weight))})
		}
		return s.w.step(in)
	}
	s.t.Fatalf("unknown order %q", a.words[0])
	return nil
}

// machines reads "host", "@address" and "host@address", with commas between.
func machines(text string) []state.MachineID {
	var out []state.MachineID
	for _, word := range strings.FieldsFunc(text, func(r rune) bool { return r == ',' }) {
		host, ip, _ := strings.Cut(word, "@")
		out = append(out, state.MachineID{Hostname: host, IP: ip})
	}
	return out
}

// quantities reads "cpus:4;gpus:0", zeros included; empty for none.
func quantities(text string) *resource.Quantities {
	list := resource.Quantities{}
	for _, part := range strings.Split(text, ";") {
		if name, _, ok := strings.Cut(part, ":"); ok {
			list = append(list, resource.Quantity{Name: name, Amount: resource.MustParse(part).Get(name)})
		}
	}
	return &list
}

func (s *script) listTasks() string {
	var out []string
	byKey := map[string]*state.TaskView{}
	for k, v := range s.w.tasks {
		byKey[k.FrameworkID+"/"+k.TaskID] = v
	}
	for _, k := range sortedKeys(byKey) {
		v := byKey[k]
		line := fmt.Sprintf("%s %s agent=%s %s", k, strings.TrimPrefix(v.State.String(), "TASK_"), v.AgentID, v.Resources)
		if v.Completed {
			line += " completed"
		}
		out = append(out, line)
	}
	return strings.Join(append(out, ""), "\n")
}

func (s *script) listAgents() string {
	var b strings.Builder
	for _, id := range sortedKeys(s.w.agents) {
		v := s.w.agents[id]
		fmt.Fprintf(&b, "%s %s", id, v.State)
		if v.Deactivated {
			b.WriteString(" deactivated")
		}
		if d := v.Drain; d != nil {
			fmt.Fprintf(&b, " drained=%v mark_gone=%v", d.Drained, d.MarkGone)
			if d.MaxGrace != nil {
				fmt.Fprintf(&b, " max_grace=%s", *d.MaxGrace)
			}
			if !d.Started.IsZero() {
				fmt.Fprintf(&b, " started=%s", d.Started.Sub(epoch))
			}
		}
		if v.Reason != "" {
			b.WriteString(": " + v.Reason)
		}
		b.WriteString("\n")
	}
	return b.String()
}

func (s *script) listFree() string {
	var b strings.Builder
	for _, id := range sortedKeys(s.w.mirror.agents) {
		fmt.Fprintf(&b, "%s %s\n", id, s.w.mirror.free(id))
	}
	return b.String()
}
