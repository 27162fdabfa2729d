package sim

import (
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	agentstate "github.com/mezzo-os/mezzo/core/agent/state"
	isolatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/isolator/v1"
	linkv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/link/v1"
	"github.com/mezzo-os/mezzo/sdk/resource"
)

// host is a computer: a disk, isolators with containers, and an agent's process
// that comes and goes.
type host struct {
	w     *world
	name  string
	total resource.Resources
	// made is what operations have made of total, as far as the disk has it.
	made  resource.Resources
	taken []*taken
	boots int

	disk       map[string]map[string][]byte
	writes     []agentstate.Checkpoint // under way, oldest first
	lastWrite  time.Duration
	slowDisk   bool
	containers map[string]*container
	volumes    map[agentstate.VolumePlace]*volume
	removed    map[string]bool // chores by which a volume was removed
	isolators  []*isolator
	streams    uint64 // of custom executors, so far
	ops        []*op  // that isolators are doing, or that wait for one
	busy       map[string]time.Duration

	life  uint64 // of the agent's process; rises with each
	m     *agentstate.Machine
	tick  time.Duration
	link  *link
	dial  uint64 // the session that is wanted
	epoch uint64 // the highest that this process has heard, or read from its disk

	blockedUp, blockedDown bool

	// skew is that of the agent's process's clock, nextSkew of the machine's.
	skew, nextSkew time.Duration
	slowUntil      time.Duration // its isolators
	full           bool          // its disk
	// fence is the highest epoch that the agent has written, fences are those that
	// it is about to write, by the number of the checkpoint.
	fence  uint64
	fences map[uint64]uint64
}

// now is the time on the clock of the agent's machine.
func (h *host) now() time.Time { return h.w.time().Add(h.skew) }

func (w *world) addHost(i int) {
	h := &host{
		volumes: map[agentstate.VolumePlace]*volume{}, removed: map[string]bool{},
		w: w, name: fmt.Sprintf("host%d", i), disk: map[string]map[string][]byte{}, containers: map[string]*container{}, busy: map[string]time.Duration{}, fences: map[uint64]uint64{},
		total: resource.MustParse(fmt.Sprintf("cpus:%d;mem:%d;disk:10240;ports:[31000-31019]", 2+w.pick(7), 1024*(2+w.pick(7)))),
	}
	h.made = h.given()
	h.isolators = []*isolator{{host: h, name: "cgroups", up: true}}
	if w.chance(0.5) {
		h.isolators = append(h.isolators, &isolator{host: h, name: "network", up: true})
	}
	w.hosts = append(w.hosts, h)
}

// given is what the agent's configuration says that it has.
func (h *host) given() resource.Resources {
	if h.w.cfg.plant == plantGenerousAgent {
		return h.total.Add(h.total.Filter(func(k resource.Kind) bool { return k.Name() == "cpus" }))
	}
	return h.total
}

// itself are the subjects of what happens to the host as a whole, which matters
// to all that runs on it.
func (h *host) itself() []string { return []string{h.name, h.name + " itself"} }

func (h *host) alive() bool { return h.m != nil }

// boot starts the agent's process on what the disk holds.
func (h *host) boot() {
	if h.alive() || h.w.failure != nil {
		return
	}
	w := h.w
	h.life++
	h.skew = h.nextSkew
	clear(h.fences)
	cfg := agentstate.Config{
		Hostname: h.name, Version: "1.0.0", RPCAddress: h.name + ":5063", HTTPAddress: h.name + ":5062", BootID: fmt.Sprintf("%s-boot-%d", h.name, h.boots),
		Resources: h.given().ToProto(), User: "root", Root: true, Backoff: 100 * time.Millisecond, MaxBackoff: w.tempo.agentBackoffMax,
		ConnectTimeout: w.tempo.agentConnectTimeout, PingTimeout: w.tempo.pingInterval * pingTimeouts, Retry: w.tempo.retry, MaxRetry: w.tempo.retryMax,
		ExecutorRegistrationTimeout: 10 * time.Second, ExecutorReregistrationTimeout: 5 * time.Second, RecoveryTimeout: 20 * time.Second,
		ExecutorShutdownGrace: 3 * time.Second, Grace: 2 * time.Second, MaxCompleted: 5, MaxRegister: 500 + w.pick(4000),
	}
	for i := range cfg.Seed {
		cfg.Seed[i] = byte(w.rng.Uint32())
	}
	for _, i := range h.isolators {
		cfg.Isolators = append(cfg.Isolators, i.name)
		i.up, i.ready = false, false
	}
	var records []agentstate.Record
	for _, bucket := range sorted(h.disk) {
		for _, key := range sorted(h.disk[bucket]) {
			records = append(records, w.cfg.plant.reads(agentstate.Record{Bucket: bucket, Key: key, Value: h.disk[bucket][key]}))
		}
	}
	h.m, h.tick, h.link, h.dial = agentstate.New(cfg), 0, nil, 0
	w.note(h.itself(), "%s: agent starts, life %d, %d records", h.name, h.life, len(records))
	h.step(agentstate.Restore{Records: records})
	if h.m == nil {
		return
	}
	h.checkMade("when it starts")
	h.epoch = max(h.m.View().Epoch, h.fence)
	for _, i := range h.isolators {
		i.start(w.between(0, 300*time.Millisecond))
	}
}

// step gives the agent's machine an input and does what it asks for, later.
func (h *host) step(in agentstate.Input) {
	if !h.alive() || h.w.failure != nil {
		return
	}
	for _, out := range h.m.Step(h.now(), in) {
		h.carryOut(out)
		if !h.alive() {
			return
		}
	}
	next := h.m.NextDeadline()
	if next.IsZero() {
		return
	}
	at := max(next.Sub(began)-h.skew, h.w.now)
	if h.tick == 0 || at < h.tick || h.tick < h.w.now {
		h.tick = at
		life := h.life
		h.w.at(at, func() {
			if h.life == life {
				if h.tick == at {
					h.tick = 0
				}
				h.step(agentstate.Tick{})
			}
		})
	}
}

func (h *host) carryOut(output agentstate.Output) {
	w := h.w
	switch out := output.(type) {
	case agentstate.Checkpoint:
		h.checkpoint(out)
	case agentstate.Connect:
		h.connect(out.Session)
	case agentstate.Disconnect:
		w.note([]string{h.name}, "%s: disconnects: %s", h.name, out.Reason)
		h.hangUp()
	case agentstate.SendMaster:
		if l := h.link; l != nil && l.session == out.Session {
			if out.Message.GetPong() == nil {
				w.note(append(l.subjects(), tasksIn(out.Message)...), "%s -> %s: %s", h.name, l.master.name, describeAgent(out.Message))
			}
			l.up.send(w.wire(w.cfg.plant.changes(w, out.Message)))
			if (out.Message.GetUpdate() != nil || out.Message.GetOperation().GetStatus().GetUuid() != nil) && w.weather.twice(w) {
				l.up.send(w.wire(out.Message))
			}
		}
	case agentstate.Exit:
		h.exit(out)
	case agentstate.Log:
		if out.Level == agentstate.Error {
			w.fail([]string{h.name}, "%s: the agent logs an error: %s %v", h.name, out.Message, out.Fields)
		}
		if out.Level > agentstate.Debug {
			w.note(append([]string{h.name}, subjectsOf(out.Fields)...), "%s: %s %v", h.name, out.Message, out.Fields)
		}
	default:
		if !h.carryOutExecutor(output) && !h.carryOutVolume(output) {
			h.carryOutWork(output)
		}
	}
}

// checkpoint writes records, one checkpoint after the other.
func (h *host) checkpoint(c agentstate.Checkpoint) {
	w := h.w
	if h.full {
		// In the midst of carrying out a step, of which the rest is not done.
		h.crash("its disk is full")
		w.after(w.outage(), h.boot)
		return
	}
	h.writes = append(h.writes, c)
	h.fences[c.Sequence] = h.epoch
	h.asked(c.Sequence)
	took := w.weather.work(w)
	if h.slowDisk {
		took += w.between(0, 2*time.Second)
	}
	h.lastWrite = max(h.lastWrite, w.now+took)
	life := h.life
	w.at(h.lastWrite, func() {
		if h.life != life || !h.alive() {
			return // see crash
		}
		h.writes = h.writes[1:]
		if w.cfg.plant != plantLostCheckpoint || !w.chance(0.03) {
			h.write(c)
		}
		h.wrote(c.Sequence)
		h.step(agentstate.Written{Sequence: c.Sequence})
	})
}

func (h *host) write(c agentstate.Checkpoint) {
	w := h.w
	if slices.ContainsFunc(c.Records, isSelf) {
		h.fence = max(h.fence, h.fences[c.Sequence])
	}
	for _, r := range c.Records {
		if w.cfg.plant == plantForgetOperation && r.Bucket == "resources" && w.chance(0.3) {
			continue
		}
		if h.disk[r.Bucket] == nil {
			h.disk[r.Bucket] = map[string][]byte{}
		}
		if r.Value == nil {
			delete(h.disk[r.Bucket], r.Key)
		} else {
			h.disk[r.Bucket][r.Key] = r.Value
		}
	}
}

// isSelf is whether a record is the one that has the agent's epoch in it.
func isSelf(r agentstate.Record) bool { return r.Bucket == "agent" && r.Key == "self" }

// connect opens a stream to whom the agent holds to be the leader.
func (h *host) connect(session uint64) {
	w := h.w
	h.hangUp()
	h.dial = session
	life := h.life
	w.after(w.weather.delay(w), func() {
		if h.life != life || !h.alive() || h.dial != session {
			return
		}
		if h.blockedUp || h.blockedDown {
			return // nobody answers; the agent gives up by itself
		}
		m := w.someMaster()
		if m == nil {
			h.step(agentstate.LinkDown{Session: session, Reason: "connection refused"})
			return
		}
		h.link = w.openLink(h, m, session)
		h.step(agentstate.LinkUp{Session: session, Master: m.name})
	})
}

// someMaster is the master that one finds: the leader, or now and then an older
// one that does not know yet.
func (w *world) someMaster() *master {
	if len(w.masters) == 0 {
		return nil
	}
	if !w.healed && w.chance(0.2) {
		return w.masters[w.pick(len(w.masters))]
	}
	if w.leader == nil || !w.leader.alive {
		return nil
	}
	return w.leader
}

// hangUp closes the stream from the agent's end.
func (h *host) hangUp() {
	h.dial = 0
	if l := h.link; l != nil {
		h.link = nil
		l.down.cut()
		l.up.send(closed{"the agent closed it"})
	}
}

// hear is a message of a master.
func (h *host) hear(l *link, msg *linkv1.MasterMessage) {
	if h.link != l || h.life != l.life || !h.alive() {
		return
	}
	if msg.GetEpoch() < h.epoch {
		h.refuseEpoch(l, msg)
		return
	}
	h.epoch = msg.GetEpoch()
	if msg.GetOperation() != nil {
		h.takeIn(l.session, msg)
		return
	}
	h.step(agentstate.LinkMessage{Session: l.session, Message: msg})
}

// refuseEpoch checks that an agent does nothing that a master of a past epoch
// asks for.
func (h *host) refuseEpoch(l *link, msg *linkv1.MasterMessage) {
	w := h.w
	if w.cfg.plant == plantStaleEpoch {
		msg = proto.Clone(msg).(*linkv1.MasterMessage)
		msg.Epoch = h.epoch
	}
	refused, obeyed := false, false
	for _, out := range h.m.Step(h.now(), agentstate.LinkMessage{Session: l.session, Message: msg}) {
		switch out.(type) {
		case agentstate.Disconnect:
			refused = true
		case agentstate.Log, agentstate.Connect:
		default:
			obeyed = true
		}
		h.carryOut(out)
	}
	if obeyed || !refused {
		w.fail([]string{h.name, l.master.name}, "%s listens to %s of epoch %d after it has heard epoch %d: %s", h.name, l.master.name, l.master.epoch, h.epoch, describeMaster(msg))
	}
	h.step(agentstate.Tick{}) // sets the timer
}

// hung tells the agent that its stream has ended.
func (h *host) hung(l *link, reason string) {
	if h.link == l && h.life == l.life && h.alive() {
		h.link = nil
		l.down.cut()
		h.step(agentstate.LinkDown{Session: l.session, Reason: reason})
	}
}

// crash ends the agent's process: of what was being written some is, of what
// isolators were doing some is done, the answers are lost.
func (h *host) crash(why string) {
	if !h.alive() {
		return
	}
	w := h.w
	w.note(h.itself(), "%s: the agent dies: %s", h.name, why)
	done := w.pick(len(h.writes) + 1)
	for _, c := range h.writes[:done] {
		h.write(c)
		h.wrote(c.Sequence)
	}
	h.writes, h.taken = nil, nil
	h.m = nil
	for _, i := range h.isolators {
		i.up, i.ready = false, false
		i.life++
	}
	h.tearOps(func(*op) bool { return true })
	h.ops = nil
	for _, id := range sorted(h.containers) {
		if p := h.containers[id].program; p != nil {
			p.hangUp()
		}
	}
	if l := h.link; l != nil {
		h.link = nil
		l.breakFor(w, "the agent is gone")
	}
}

// reboot ends everything on the host.
func (h *host) reboot() {
	h.crash("the host reboots")
	h.boots++
	for _, id := range sorted(h.containers) {
		c := h.containers[id]
		h.w.note([]string{h.name, c.task.id}, "%s: container %s of %s is gone with the host", h.name, short(id), c.task.id)
		c.gone = true
		if c.program != nil {
			c.program.exits()
		}
	}
	clear(h.containers)
}

// loseDisk ends the agent and all that it remembers. Its containers run on.
func (h *host) loseDisk() {
	h.crash("its disk is lost")
	for _, c := range h.containers {
		c.orphan = true
	}
	clear(h.disk)
	clear(h.volumes)
	clear(h.removed)
	h.fence, h.made = 0, h.given()
}

// tearOps decides what became of operations that were cut off: each is done
// without anybody hearing of it, or not; what comes after one that was not, for
// the same container, was not either. It returns those that were not.
func (h *host) tearOps(cut func(*op) bool) {
	undone := map[string]bool{}
	for _, o := range slices.Clone(h.ops) {
		if !cut(o) {
			continue
		}
		if undone[o.container] || o.parked || h.w.chance(0.5) {
			undone[o.container] = true
			continue
		}
		o.run()
	}
}

func short(id string) string {
	if len(id) > 8 {
		return id[:8]
	}
	return id
}

// isolator is a plugin of an agent. It is up when its process answers, and
// ready when the agent has recovered what it has.
type isolator struct {
	host *host
	name string
	up   bool
	// ready: Recover was answered.
	ready bool
	life  uint64
}

// start starts the plugin's process after a while.
func (i *isolator) start(wait time.Duration) {
	h := i.host
	i.life++
	life, agent := i.life, h.life
	h.w.after(wait, func() {
		if i.life != life || h.life != agent || !h.alive() {
			return
		}
		i.up = true
		h.w.note(h.itself(), "%s: isolator %s is up", h.name, i.name)
		h.step(agentstate.IsolatorUp{Isolator: i.name, Spec: []byte(i.name)})
		h.step(agentstate.IsolatorHealth{Isolator: i.name, Healthy: true})
	})
}

// recover answers the agent's question what there is.
func (i *isolator) recover(known []*isolatorv1.Known) {
	h := i.host
	w := h.w
	life, agent := i.life, h.life
	w.after(w.weather.work(w), func() {
		if i.life != life || h.life != agent || !h.alive() {
			return
		}
		in := agentstate.IsolatorRecovered{Isolator: i.name}
		asked := map[string]bool{}
		for _, k := range known {
			asked[k.GetContainer()] = true
			r := &isolatorv1.Recovered{Container: k.GetContainer(), State: isolatorv1.Recovered_STATE_LOST}
			if c := h.containers[k.GetContainer()]; c != nil {
				r.State, r.Pid = c.state, c.pid
			}
			in.Containers = append(in.Containers, r)
		}
		for _, id := range sorted(h.containers) {
			if !asked[id] {
				in.Orphans = append(in.Orphans, id)
			}
		}
		i.ready = true
		h.step(in)
		h.unpark()
	})
}

// fail ends the plugin's process; it comes back after a while.
func (i *isolator) fail(wait time.Duration) {
	h := i.host
	if !i.up || !h.alive() {
		return
	}
	i.up, i.ready = false, false
	h.w.note(h.itself(), "%s: isolator %s dies", h.name, i.name)
	uses := func(o *op) bool { return slices.Contains(o.isolators, i.name) }
	h.tearOps(uses)
	broken := slices.DeleteFunc(slices.Clone(h.ops), func(o *op) bool { return !uses(o) })
	for _, o := range broken {
		if o.broken != nil {
			h.drop(o)
			life := h.life
			h.w.after(h.w.weather.delay(h.w), func() {
				if h.life == life {
					h.step(o.broken())
				}
			})
		} else {
			o.parked = true // tried again; twice does no harm
		}
	}
	h.step(agentstate.IsolatorHealth{Isolator: i.name, Reason: "its process has ended"})
	i.start(wait)
}
