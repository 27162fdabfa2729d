package state_test

import (
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
	"google.golang.org/protobuf/proto"

	"github.com/mezzo-os/mezzo/core/agent/state"
	isolatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/isolator/v1"
	linkv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/link/v1"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
	"github.com/mezzo-os/mezzo/sdk/resource"
)

// TestTranscripts plays the scenarios in testdata. What a step makes the agent
// do is what stands below its line; -rewrite writes it anew.
//
//	agent [isolators=(a,b)] [adapters=(a,b)] [user=x] [not-root]   a new agent, or the next process of it;
//	      [resources=(cpus:4,mem:64)] [attributes=(rack:r1)] [policy=any] [detected] [boot=b1]
//	up | isolator NAME healthy|unhealthy|up       isolators answer
//	registered id=A1 [epoch=n]                    the master admits it
//	run framework=F tasks=(t1,t2) [executor=e] …  the master launches
//	settle                                        everything asked for is answered
//	step [n]                                      n answers are given (all checkpoints written first)
//	write                                         checkpoints become durable
//	progress [container=c1] message=(some words)   a launch tells how far it is
//	probed [serial=n] [code=n] [err=…] [refused] [void]   a task was looked at
//	exit container=c1 [code=n] [signal=n] …       a process ends
//	isolators names=(a,b) | isolator-up name=b    the configuration has others now; the plugin of one is there
//	adapter-up [name=a] [at=host:port] | adapter-down [name=a] | adapters names=(a,b)
//	ack | ack update=u1 | acks                    the newest, one, all updates are acknowledged
//	operation name=o1 [id=x] do=reserve|unreserve|create|destroy|grow|shrink [volume=data] [disk=n] [by=n] …
//	op-ack name=o1 [status=s1]                    what came of it is acknowledged
//	wait 10s                                      time passes
func TestTranscripts(t *testing.T) {
	paths, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no transcripts: %v", err)
	}
	for _, path := range paths {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txt"), func(t *testing.T) {
			var w *world
			var out strings.Builder
			datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
				out.Reset()
				if d.Cmd == "agent" {
					w = play(t, d, w, &out)
				} else {
					command(t, w, d)
				}
				if out.Len() == 0 {
					return "nothing\n"
				}
				return out.String()
			})
		})
	}
}

func play(t *testing.T, d *datadriven.TestData, old *world, out *strings.Builder) *world {
	w := old
	if w == nil {
		w = newWorld(settings(d, state.Config{
			Hostname: "h1", Isolators: []string{"cgroups"}, User: "root", Root: true, Resources: []*mezzov1.Resource{scalar("cpus", 4)},
		}))
		w.log = func(format string, args ...any) { fmt.Fprintf(out, format+"\n", args...) }
	} else {
		w.cfg = settings(d, w.cfg)
	}
	if d.HasArg("lost") {
		clear(w.containers)
	}
	if back := arg(d, "back", ""); back != "" { // the clock was set back meanwhile
		by, err := time.ParseDuration(back)
		if err != nil {
			t.Fatal(err)
		}
		w.now = w.now.Add(-by)
	}
	w.showResources = w.showResources || d.HasArg("show-resources")
	w.boot()
	return w
}

func arg(d *datadriven.TestData, key, def string) string {
	for _, a := range d.CmdArgs {
		if a.Key == key && len(a.Vals) > 0 {
			return a.Vals[0]
		}
	}
	return def
}

func number(d *datadriven.TestData, key string, def int) int {
	n, err := strconv.Atoi(arg(d, key, strconv.Itoa(def)))
	if err != nil {
		panic(err)
	}
	return n
}

func ref(d *datadriven.TestData) *linkv1.TaskRef {
	return &linkv1.TaskRef{FrameworkId: arg(d, "framework", "F1"), TaskId: arg(d, "task", "t1")}
}

// settings are those of an agent's line, on top of those before.
func settings(d *datadriven.TestData, cfg state.Config) state.Config {
	for _, a := range d.CmdArgs {
		switch a.Key {
		case "isolators":
			cfg.Isolators = a.Vals
		case "adapters":
			cfg.Adapters = a.Vals
		case "user":
			cfg.User = a.Vals[0]
		case "resources":
			cfg.Resources = resource.MustParse(strings.Join(a.Vals, ";")).ToProto()
		case "attributes":
			cfg.Attributes = nil
			for _, v := range a.Vals {
				name, text, _ := strings.Cut(v, ":")
				cfg.Attributes = append(cfg.Attributes, &mezzov1.Attribute{
					Name: proto.String(name), Type: mezzov1.Value_TEXT.Enum(), Text: &mezzov1.Value_Text{Value: proto.String(text)},
				})
			}
		case "policy":
			cfg.Reconfiguration = state.Reconfiguration(a.Vals[0])
		case "detected":
			cfg.Detected = a.Vals == nil
		case "show-resources":
		case "boot":
			cfg.BootID = a.Vals[0]
		case "not-root":
			cfg.Root = false
		case "max-register":
			cfg.MaxRegister, _ = strconv.Atoi(a.Vals[0])
		}
	}
	return cfg
}

func command(t *testing.T, w *world, d *datadriven.TestData) {
	tell := func(m *linkv1.MasterMessage) { w.master(uint64(number(d, "epoch", 1)), m) }
	switch d.Cmd {
	case "up":
		w.isolatorsUp()
		w.settle()
	case "isolators":
		for _, a := range d.CmdArgs {
			w.cfg.Isolators = a.Vals
		}
		w.step(state.SetIsolators{Isolators: w.cfg.Isolators})
		w.settle()
	case "adapters":
		var names []string
		for _, a := range d.CmdArgs {
			names = a.Vals
		}
		w.step(state.SetAdapters{Adapters: names})
	case "adapter-up":
		name := arg(d, "name", "mesos")
		w.step(state.AdapterUp{Adapter: name, Endpoints: []*linkv1.Endpoint{{Name: name, Address: arg(d, "at", "h1:5051")}}})
	case "adapter-down":
		w.step(state.AdapterDown{Adapter: arg(d, "name", "mesos")})
	case "isolator-up":
		name := arg(d, "name", "")
		w.inbox = append(w.inbox, state.IsolatorUp{Isolator: name, Spec: []byte(name)}, state.IsolatorHealth{Isolator: name, Healthy: true})
		w.settle()
	case "settle":
		w.settle()
	case "write":
		w.write(len(w.writes))
		// What isolators answer may come later.
		for i := 0; i < len(w.inbox); {
			if in, ok := w.inbox[i].(state.Written); ok {
				w.inbox = slices.Delete(w.inbox, i, i+1)
				w.step(in)
			} else {
				i++
			}
		}
	case "step":
		for range number(d, "n", 1) {
			w.write(len(w.writes))
			if len(w.inbox) > 0 {
				w.deliver()
			}
		}
	case "isolator":
		in := state.IsolatorHealth{Isolator: arg(d, "name", "cgroups"), Healthy: !d.HasArg("unhealthy"), Reason: arg(d, "unhealthy", "")}
		w.step(in)
		w.settle()
	case "registered":
		tell(registeredAs(arg(d, "id", "A1")))
		if !d.HasArg("hold") {
			w.settle()
		}
	case "refused":
		tell(&linkv1.MasterMessage{Message: &linkv1.MasterMessage_Refused{Refused: &linkv1.Refused{
			Reason: arg(d, "reason", "no"), Gone: d.HasArg("gone"), Shutdown: d.HasArg("shutdown"), RetryMs: int64(number(d, "retry", 0)),
		}}})
		w.settle()
	case "ping":
		tell(&linkv1.MasterMessage{Message: &linkv1.MasterMessage_Ping{Ping: &linkv1.Ping{}}})
	case "run":
		runCommand(w, d, tell)
	case "operation":
		tell(operationCommand(d))
		if !d.HasArg("hold") {
			w.settle()
		}
	case "op-ack":
		tell(&linkv1.MasterMessage{Message: &linkv1.MasterMessage_AcknowledgeOperation{AcknowledgeOperation: &linkv1.AcknowledgeOperation{
			FrameworkId: arg(d, "framework", "F"), OperationUuid: []byte(arg(d, "name", "")), StatusUuid: []byte(w.long(arg(d, "status", "s1"))),
		}}})
		w.settle()
	case "kill":
		k := &linkv1.Kill{Task: ref(d)}
		if g := arg(d, "grace", ""); g != "" {
			grace, err := time.ParseDuration(g)
			if err != nil {
				t.Fatal(err)
			}
			k.KillPolicy = &mezzov1.KillPolicy{GracePeriod: &mezzov1.DurationInfo{Nanoseconds: proto.Int64(int64(grace))}}
		}
		tell(&linkv1.MasterMessage{Message: &linkv1.MasterMessage_Kill{Kill: k}})
		settleUnlessHeld(w, d)
	case "revoke":
		tell(&linkv1.MasterMessage{Message: &linkv1.MasterMessage_Revoke{Revoke: &linkv1.Revoke{Task: ref(d), GraceMs: 10_000, Reason: "for a more important task"}}})
		settleUnlessHeld(w, d)
	case "reconcile":
		tell(&linkv1.MasterMessage{Message: &linkv1.MasterMessage_Reconcile{Reconcile: &linkv1.ReconcileTasks{Tasks: []*linkv1.TaskRef{ref(d)}}}})
		settleUnlessHeld(w, d)
	case "drain":
		tell(&linkv1.MasterMessage{Message: &linkv1.MasterMessage_Drain{Drain: &linkv1.Drain{MarkGone: d.HasArg("gone"), Over: d.HasArg("over")}}})
		settleUnlessHeld(w, d)
	case "shutdown-framework":
		tell(&linkv1.MasterMessage{Message: &linkv1.MasterMessage_ShutdownFramework{ShutdownFramework: &linkv1.ShutdownFramework{FrameworkId: arg(d, "framework", "F1")}}})
		settleUnlessHeld(w, d)
	case "shutdown":
		tell(&linkv1.MasterMessage{Message: &linkv1.MasterMessage_Shutdown{Shutdown: &linkv1.Shutdown{Reason: "the operator asked"}}})
		settleUnlessHeld(w, d)
	case "end":
		w.step(state.End{Reason: "the operator stopped it"})
		settleUnlessHeld(w, d)
	case "stubborn":
		w.stubborn = true
	case "exit":
		e := &isolatorv1.ExitStatus{Known: true, Code: int32(number(d, "code", 0)), Signal: int32(number(d, "signal", 0)), DeadlineExceeded: d.HasArg("deadline")}
		if r := arg(d, "limitation", ""); r != "" {
			e.Limitation = &isolatorv1.Limitation{Reason: mezzov1.TaskStatus_Reason(mezzov1.TaskStatus_Reason_value[r]).Enum(), Message: "Memory limit exceeded"}
		}
		w.ends(w.long(arg(d, "container", "c1")), e)
		settleUnlessHeld(w, d)
	case "progress":
		w.step(state.Progress{Container: w.long(arg(d, "container", "c1")), Message: strings.Join(d.CmdArgs[len(d.CmdArgs)-1].Vals, " ")})
	case "probed":
		w.step(state.Probed{
			Container: w.long(arg(d, "container", "c1")), Serial: uint64(number(d, "serial", int(w.probe))), Code: int32(number(d, "code", 0)),
			Err: strings.ReplaceAll(arg(d, "err", ""), "-", " "), Refused: d.HasArg("refused"), Void: d.HasArg("void"),
		})
		settleUnlessHeld(w, d)
	case "limited":
		w.step(state.Limited{Limitation: &isolatorv1.Limitation{
			Container: w.long(arg(d, "container", "c1")), Reason: mezzov1.TaskStatus_REASON_CONTAINER_LIMITATION_DISK.Enum(), Message: "Disk limit exceeded",
		}})
		settleUnlessHeld(w, d)
	case "fail":
		// The pending answer about the container becomes a failure.
		for i, in := range w.inbox {
			switch in := in.(type) {
			case state.Created, state.Started:
				w.inbox[i] = state.LaunchFailed{Container: w.long(arg(d, "container", "c1")), Message: "no space left on device"}
			case state.Claimed:
				for _, claims := range in.Claims {
					for j := range claims {
						claims[j].Claim, claims[j].Reason = isolatorv1.ClaimResponse_CLAIM_NONE, "has no image support"
					}
				}
			}
		}
		settleUnlessHeld(w, d)
	case "ack":
		name := arg(d, "update", "")
		var last *linkv1.StatusUpdate
		for _, s := range w.sent {
			if u := s.GetUpdate(); u != nil && (name == "" || w.name("u", string(u.GetStatus().GetUuid())) == name) {
				last = u
			}
		}
		if last == nil {
			t.Fatalf("no update %s was sent", name)
		}
		w.master(1, ack(last))
		settleUnlessHeld(w, d)
	case "acks": // of everything, until nothing more comes
		for list := w.updates(); len(list) > 0; list = w.updates() {
			for _, u := range list {
				w.master(uint64(number(d, "epoch", 1)), ack(u))
			}
			w.settle()
		}
	case "offline":
		w.online = false
		if w.session != 0 {
			w.step(state.LinkDown{Session: w.session, Reason: "connection reset"})
		}
	case "online":
		w.online = true
	case "wait":
		dur, err := time.ParseDuration(d.CmdArgs[0].Key)
		if err != nil {
			t.Fatal(err)
		}
		if d.HasArg("alive") { // with a master that pings
			for ; dur > 0; dur -= time.Minute {
				w.pass(min(dur, time.Minute))
				w.quiet(func() { tell(&linkv1.MasterMessage{Message: &linkv1.MasterMessage_Ping{Ping: &linkv1.Ping{}}}) })
			}
			return
		}
		w.pass(dur)
	case "view":
		v := w.m.View()
		w.log("%s tasks=%d completed=%d containers=%d withheld=%q", v.State, len(v.Tasks), len(v.Completed), len(v.Containers), v.Withheld)
	case "shutdown-executor":
		tell(&linkv1.MasterMessage{Message: &linkv1.MasterMessage_ShutdownExecutor{ShutdownExecutor: &linkv1.ShutdownExecutor{FrameworkId: "F1", ExecutorId: arg(d, "executor", "x")}}})
		settleUnlessHeld(w, d)
	case "to-executor":
		tell(&linkv1.MasterMessage{Message: &linkv1.MasterMessage_FrameworkMessage{FrameworkMessage: &linkv1.FrameworkMessage{
			FrameworkId: "F1", ExecutorId: "x", Data: []byte(d.CmdArgs[0].Key),
		}}})
		settleUnlessHeld(w, d)
	default:
		if !executorCommand(w, d) {
			t.Fatalf("%s: unknown command %s", d.Pos, d.Cmd)
		}
	}
}

// pass lets time go by, stopping at every deadline.
func (w *world) pass(d time.Duration) {
	end := w.now.Add(d)
	for {
		next := w.m.NextDeadline()
		if next.IsZero() || next.After(end) {
			w.now = end
			return
		}
		if next.After(w.now) {
			w.now = next
		}
		w.step(state.Tick{})
		w.settle()
	}
}

func settleUnlessHeld(w *world, d *datadriven.TestData) {
	if !d.HasArg("hold") {
		w.settle()
	}
}

func runCommand(w *world, d *datadriven.TestData, tell func(*linkv1.MasterMessage)) {
	f := frameworkInfo(arg(d, "framework", "F1"))
	var e *mezzov1.ExecutorInfo
	var tasks []*mezzov1.TaskInfo
	for _, a := range d.CmdArgs {
		switch a.Key {
		case "tasks":
			for _, id := range a.Vals {
				tasks = append(tasks, taskInfo(id, "sleep 60"))
			}
		case "executor":
			e = defaultExecutor(a.Vals[0])
		case "custom":
			e = customExecutor("x")
			if len(a.Vals) > 0 {
				e = customExecutor(a.Vals[0])
			}
		case "user":
			f.User = proto.String(a.Vals[0])
		case "capability":
			for _, c := range a.Vals {
				f.Capabilities = append(f.Capabilities, &mezzov1.FrameworkInfo_Capability{Type: mezzov1.FrameworkInfo_Capability_Type(mezzov1.FrameworkInfo_Capability_Type_value[c]).Enum()})
			}
		}
	}
	if len(tasks) == 0 {
		tasks = append(tasks, taskInfo("t1", "sleep 60"))
	}
	if most := arg(d, "most", ""); most != "" {
		dur, err := time.ParseDuration(most)
		if err != nil {
			panic(err)
		}
		for _, t := range tasks {
			t.MaxCompletionTime = &mezzov1.DurationInfo{Nanoseconds: proto.Int64(int64(dur))}
		}
	}
	if d.HasArg("volume") {
		for _, t := range tasks {
			t.Resources = append(t.Resources, testVolume(d, float64(number(d, "disk", 100))))
		}
	}
	if kind := arg(d, "health", ""); kind != "" {
		for _, t := range tasks {
			t.HealthCheck = healthCheck(kind)
		}
	}
	if kind := arg(d, "check", ""); kind != "" {
		for _, t := range tasks {
			t.Check = check(kind)
		}
	}
	message := run(f, e, tasks...)
	if d.HasArg("group") {
		message.GetRun().Group = true
	}
	tell(message)
	settleUnlessHeld(w, d)
}
