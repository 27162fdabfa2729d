package sim

import (
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	agentstate "github.com/mezzo-os/mezzo/core/agent/state"
	isolatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/isolator/v1"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
	"github.com/mezzo-os/mezzo/sdk/resource"
)

type taskKey struct{ framework, id string }

// container lives outside the agent: its shim ends it when its time has come,
// whoever is there to see it.
type container struct {
	host     *host
	id       string
	parent   string
	task     taskKey // its id is empty for the root of a group
	volumes  []*volume
	use      resource.Resources
	state    isolatorv1.Recovered_State
	pid      int64
	exit     *isolatorv1.ExitStatus
	deadline time.Duration // 0: none
	waited   uint64        // the agent's life that waits for its end
	gone     bool
	orphan   bool     // no agent remembers it
	program  *program // it is a custom executor's
	within   *program // it is not one: a task within an executor
}

func (c *container) running() bool {
	return !c.gone && c.state == isolatorv1.Recovered_STATE_RUNNING && c.task.id != ""
}

// op is something that an agent has asked its isolators for.
type op struct {
	container string
	isolators []string
	// run does it, and returns the answer; nil: there is none.
	run func() agentstate.Input
	// broken is the answer when an isolator is not there; nil: it waits until it
	// is.
	broken func() agentstate.Input
	parked bool
}

func (h *host) submit(o *op) {
	h.ops = append(h.ops, o)
	h.plan(o)
}

func (h *host) plan(o *op) {
	at := max(h.w.now, h.busy[o.container]) + h.w.weather.work(h.w)
	if h.w.now < h.slowUntil {
		at += h.w.between(0, 4*time.Second)
	}
	if len(o.isolators) == 0 && h.slowDisk { // what is to be done to a volume
		at += h.w.between(0, 3*time.Second)
	}
	h.busy[o.container] = at
	life := h.life
	h.w.at(at, func() {
		if h.life == life && h.alive() && !o.parked && slices.Contains(h.ops, o) {
			h.perform(o)
		}
	})
}

func (h *host) perform(o *op) {
	for _, earlier := range h.ops {
		if earlier == o {
			break
		}
		if earlier.container == o.container && earlier.parked {
			o.parked = true
			return
		}
	}
	if !h.ready(o) {
		if o.broken == nil {
			o.parked = true
			return
		}
		h.drop(o)
		h.step(o.broken())
		return
	}
	h.drop(o)
	if in := o.run(); in != nil {
		h.step(in)
	}
}

func (h *host) ready(o *op) bool {
	for _, i := range h.isolators {
		if !i.ready && slices.Contains(o.isolators, i.name) {
			return false
		}
	}
	return true
}

func (h *host) drop(o *op) { h.ops = slices.DeleteFunc(h.ops, func(x *op) bool { return x == o }) }

// unpark tries again what waited for an isolator.
func (h *host) unpark() {
	for _, o := range slices.Clone(h.ops) {
		if o.parked && h.ready(o) {
			o.parked = false
			h.plan(o)
		}
	}
}

func namesOf(chain []agentstate.Link) []string {
	var out []string
	for _, l := range chain {
		out = append(out, l.Isolator)
	}
	return out
}

// carryOutWork does what concerns isolators and containers.
func (h *host) carryOutWork(output agentstate.Output) {
	switch out := output.(type) {
	case agentstate.Recover:
		for _, i := range h.isolators {
			if i.name == out.Isolator {
				i.recover(out.Known)
			}
		}
	case agentstate.ClaimContainers:
		h.claim(out)
	case agentstate.Launch:
		h.launch(out.Plan)
	case agentstate.Start:
		h.start(out)
	case agentstate.Update:
		o := &op{
			container: out.Plan.Container, isolators: namesOf(out.Plan.Chain),
			broken: func() agentstate.Input {
				return agentstate.Updated{Container: out.Plan.Container, Err: "the isolator is gone"}
			},
		}
		o.run = h.onceVolumes(o, out.Plan.Volumes, func() agentstate.Input { return agentstate.Updated{Container: out.Plan.Container} })
		h.submit(o)
	case agentstate.Wait:
		h.submit(&op{container: out.Container, isolators: []string{out.Launcher}, run: func() agentstate.Input { return h.wait(out.Container) }})
	case agentstate.Kill:
		h.submit(&op{container: out.Container, isolators: []string{out.Launcher}, run: func() agentstate.Input {
			h.kill(out)
			return nil
		}})
	case agentstate.Cleanup:
		h.cleanup(out)
	default:
		h.w.fail([]string{h.name}, "%s: the agent asks for %T, which the simulator does not know", h.name, output)
	}
}

func (h *host) claim(out agentstate.ClaimContainers) {
	in := agentstate.Claimed{Launch: out.Launch}
	var names []string
	for _, i := range h.isolators {
		names = append(names, i.name)
	}
	for range out.Containers {
		var claims []agentstate.Claim
		for i, name := range names {
			c := agentstate.Claim{Isolator: name, Claim: isolatorv1.ClaimResponse_CLAIM_AMEND}
			if i == 0 {
				c.Claim = isolatorv1.ClaimResponse_CLAIM_LAUNCH
			}
			claims = append(claims, c)
		}
		in.Claims = append(in.Claims, claims)
	}
	if !h.w.healed && h.w.chance(0.01) {
		in = agentstate.Claimed{Launch: out.Launch, Err: "no isolator answers"}
	}
	h.submit(&op{
		container: "launch", isolators: names, run: func() agentstate.Input { return in },
		broken: func() agentstate.Input { return agentstate.Claimed{Launch: out.Launch, Err: "an isolator is gone"} },
	})
}

func (h *host) launch(p *agentstate.Plan) {
	w := h.w
	fails := !w.healed && w.chance(0.02)
	o := &op{
		container: p.Container, isolators: namesOf(p.Chain),
		broken: func() agentstate.Input {
			return agentstate.LaunchFailed{Container: p.Container, Message: "the isolator is gone"}
		},
	}
	o.run = h.onceVolumes(o, p.Volumes, func() agentstate.Input {
		if fails {
			return agentstate.LaunchFailed{Container: p.Container, Message: "no room"}
		}
		return h.created(p)
	})
	h.submit(o)
}

func (h *host) created(p *agentstate.Plan) agentstate.Input {
	w := h.w
	c := &container{
		host: h, id: p.Container, parent: p.Parent, task: taskKey{p.Task.GetFrameworkId(), p.Task.GetTaskId()},
		state: isolatorv1.Recovered_STATE_CREATED,
	}
	use, err := resource.FromProto(p.Task.GetResources())
	if err != nil {
		w.fail([]string{h.name, c.task.id}, "%s: container %s has resources that cannot be read: %v", h.name, short(c.id), err)
	}
	c.use = occupies(use)
	h.give(c, p.Volumes)
	if p.Task.GetSandboxOnly() {
		c.task.id = ""
	} else {
		c.pid = int64(100 + w.pick(1<<20))
		if c.task.id == "" {
			c.becomesProgram(p)
		}
	}
	if !p.Deadline.IsZero() {
		c.deadline = p.Deadline.Sub(began) - h.skew
	}
	if h.containers[c.id] != nil {
		w.fail([]string{h.name, c.task.id}, "%s: container %s of task %s is made twice", h.name, short(c.id), c.task.id)
	}
	if c.parent != "" && h.containers[c.parent] == nil {
		w.fail([]string{h.name, c.task.id}, "%s: container %s of task %s is made in %s, which is not there", h.name, short(c.id), c.task.id, short(c.parent))
	}
	h.containers[c.id] = c
	w.note([]string{h.name, c.task.id}, "%s: container %s of %s made", h.name, short(c.id), c.task.id)
	in := agentstate.Created{Container: c.id, PID: c.pid, Handles: map[string][]byte{}}
	for _, l := range p.Chain {
		in.Handles[l.Isolator] = []byte("handle-" + c.id)
	}
	return in
}

func (h *host) start(out agentstate.Start) {
	w := h.w
	fails := !w.healed && w.chance(0.02)
	h.submit(&op{
		container: out.Container, isolators: namesOf(out.Chain),
		run: func() agentstate.Input {
			c := h.containers[out.Container]
			if fails || c == nil {
				return agentstate.LaunchFailed{Container: out.Container, Message: "no such program"}
			}
			c.begin()
			return agentstate.Started{Container: c.id}
		},
		broken: func() agentstate.Input {
			return agentstate.LaunchFailed{Container: out.Container, Message: "the isolator is gone"}
		},
	})
}

// begin lets a container's process go.
func (c *container) begin() {
	h, w := c.host, c.host.w
	if c.state != isolatorv1.Recovered_STATE_CREATED {
		return
	}
	c.state = isolatorv1.Recovered_STATE_RUNNING
	if c.program != nil {
		c.program.connect()
		c.program.leave()
	}
	if c.task.id == "" {
		return // a root has no process
	}
	w.note([]string{h.name, c.task.id, c.task.framework}, "%s: task %s runs in %s", h.name, c.task.id, short(c.id))
	w.taskStarts(c)
	w.checkCommitment(h, c)
	l := w.lives[c.task]
	if l == nil {
		return
	}
	if l.runs > 0 {
		w.after(l.runs, func() {
			switch {
			case !l.oom:
				c.end(&isolatorv1.ExitStatus{Code: l.code, Known: true})
			default:
				c.outOfMemory(l)
			}
		})
	}
	if c.deadline > 0 {
		w.at(c.deadline, func() {
			c.end(&isolatorv1.ExitStatus{Signal: 9, Known: true, DeadlineExceeded: true})
		})
	}
}

// outOfMemory ends a task that wanted too much. Whether the agent hears of it by
// the end, by a limitation that comes before it, or by both, is chance.
func (c *container) outOfMemory(l *life) {
	if !c.running() || c.within != nil {
		c.end(&isolatorv1.ExitStatus{Signal: 9, Known: true}) // its executor sees to it
		return
	}
	h := c.host
	limitation := &isolatorv1.Limitation{
		Container: c.id, Reason: mezzov1.TaskStatus_REASON_CONTAINER_LIMITATION_MEMORY.Enum(), Message: "memory limit exceeded",
	}
	if l.code == 0 { // the isolator has seen it, the kernel kills nobody
		life := h.life
		h.w.after(h.w.weather.delay(h.w), func() {
			if h.life == life && h.alive() {
				h.step(agentstate.Limited{Limitation: limitation})
			}
		})
		// Nobody may be there to hear it: then it is the kernel after all.
		h.w.after(h.w.between(time.Second, 5*time.Second), func() {
			c.end(&isolatorv1.ExitStatus{Signal: 9, Known: true, Limitation: limitation})
		})
		return
	}
	c.end(&isolatorv1.ExitStatus{Signal: 9, Known: true, Limitation: limitation})
}

// end ends a container's process.
func (c *container) end(exit *isolatorv1.ExitStatus) {
	if !c.running() && (c.program == nil || !c.program.alive()) {
		return
	}
	h := c.host
	c.state, c.exit = isolatorv1.Recovered_STATE_EXITED, exit
	h.w.note([]string{h.name, c.task.id}, "%s: task %s ends: code %d, signal %d", h.name, c.task.id, exit.GetCode(), exit.GetSignal())
	if c.within != nil {
		c.within.ended(c, exit)
		return
	}
	if c.program != nil {
		c.program.exits()
	}
	if h.alive() && c.waited == h.life {
		// Whose launcher it is does not matter: the first isolator launches all.
		h.submit(&op{container: c.id, isolators: []string{h.isolators[0].name}, run: func() agentstate.Input { return h.exited(c) }})
	}
}

func (h *host) exited(c *container) agentstate.Input {
	return agentstate.Exited{Container: c.id, Status: proto.Clone(c.exit).(*isolatorv1.ExitStatus)}
}

func (h *host) wait(id string) agentstate.Input {
	c := h.containers[id]
	if c == nil {
		return agentstate.Exited{Container: id, Status: &isolatorv1.ExitStatus{}}
	}
	c.waited = h.life
	if c.exit != nil {
		return h.exited(c)
	}
	return nil
}

// kill has the shim end a container: by SIGTERM, and by SIGKILL when the grace
// has passed.
func (h *host) kill(out agentstate.Kill) {
	c := h.containers[out.Container]
	if c == nil || !c.running() && (c.program == nil || !c.program.alive()) {
		return
	}
	w := h.w
	if out.Signal == 9 || out.Grace <= 0 {
		c.end(&isolatorv1.ExitStatus{Signal: 9, Known: true})
		return
	}
	if l := w.lives[c.task]; l != nil && !l.stubborn {
		w.after(w.between(0, out.Grace), func() { c.end(&isolatorv1.ExitStatus{Signal: 15, Known: true}) })
	}
	w.after(out.Grace, func() { c.end(&isolatorv1.ExitStatus{Signal: 9, Known: true}) })
}

// cleanup gives up whatever else goes on with the container, and removes it.
func (h *host) cleanup(out agentstate.Cleanup) {
	h.tearOps(func(o *op) bool { return o.container == out.Container })
	h.ops = slices.DeleteFunc(h.ops, func(o *op) bool { return o.container == out.Container })
	h.submit(&op{container: out.Container, isolators: namesOf(out.Chain), run: func() agentstate.Input {
		if c := h.containers[out.Container]; c != nil && (h.w.cfg.plant != plantForgottenContainer || !h.w.chance(0.1)) {
			for _, id := range sorted(h.containers) {
				if h.containers[id].parent != c.id || !h.containers[id].running() {
					continue
				}
				if nested := h.containers[id]; nested.orphan {
					nested.end(&isolatorv1.ExitStatus{Signal: 9, Known: true}) // nobody knew that it is nested
				} else {
					h.w.fail([]string{h.name, h.containers[id].task.id}, "%s: root %s is removed while %s runs in it", h.name, short(c.id), h.containers[id].task.id)
				}
			}
			if c.running() {
				h.w.note([]string{h.name, c.task.id}, "%s: task %s is killed by the cleanup", h.name, c.task.id)
			}
			c.gone = true
			if c.program != nil {
				c.program.exits()
			}
			delete(h.containers, c.id)
		}
		delete(h.busy, out.Container)
		return agentstate.CleanedUp{Container: out.Container}
	}})
}
