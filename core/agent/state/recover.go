package state

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	corelink "github.com/mezzo-os/mezzo/core/link"
	isolatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/isolator/v1"
	linkv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/link/v1"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
)

// restore takes up what an earlier process of this agent has written.
func (m *Machine) restore(in Restore) {
	m.restored, m.began = true, m.now
	if err := m.read(in.Records); err != nil {
		m.over = true
		m.immediate = append(m.immediate, Exit{Reason: "the checkpoint cannot be read", Err: err})
		return
	}
	if len(m.tokenKey) == 0 {
		m.tokenKey = newTokenKey(m.cfg.Seed)
		if m.id != "" { // else it is written with the id
			m.touch(agentEntity{m})
		}
	}
	err := m.reconfigure()
	if err == nil {
		err = m.restoreResources()
	}
	if err != nil {
		m.over, m.dirty = true, nil // nothing has changed
		m.immediate = append(m.immediate, Exit{Reason: "the configuration does not fit the checkpoint", Err: err})
		return
	}
	if m.rebooted {
		m.log(Warn, "the host was rebooted: what ran on it has ended", "tasks", len(m.tasks))
	}
	for _, c := range m.sortedContainers() {
		if c.phase == cleaning {
			m.deferred = append(m.deferred, c)
		}
	}
	// Only what a crash cut off between two checkpoints is left without a container.
	for _, t := range m.sortedTasks() {
		if !t.ended() && m.containers[t.container] == nil {
			m.finishTask(t, m.neverStarted(t))
		}
	}
	if len(m.adapters) > 0 {
		m.adaptersBy = m.now.Add(adapterLimit)
	}
	for _, e := range m.sortedExecutors() {
		if e.program != nil && e.root != nil && e.root.phase != cleaning {
			m.live[executorKey{e.framework.id, e.id}] = e
			m.requeue(e)
		}
		m.retireExecutor(e)
	}
	for _, id := range slices.Sorted(maps.Keys(m.frameworks)) {
		f := m.frameworks[id]
		f.uses++
		m.release(f) // if it was kept only for a launch that was not written yet
	}
	if m.shrunk {
		m.endUnfitting()
	}
	m.retireIsolators()
	m.resumeChores()
	m.allAnswered()
	if len(m.containers)+len(m.tasks) > 0 {
		m.log(Info, "restored from the checkpoint", "tasks", len(m.tasks), "containers", len(m.containers))
	}
	m.connect()
}

// neverStarted is the last status of a task whose launch a restart cut off.
func (m *Machine) neverStarted(t *task) *mezzov1.TaskStatus {
	s := m.newStatus(t, lost(t.framework, mezzov1.TaskState_TASK_DROPPED), fromAgent)
	return because(s, mezzov1.TaskStatus_REASON_AGENT_RESTARTED, "The agent was restarted before the task was started")
}

func (m *Machine) isolatorUp(in IsolatorUp) {
	i := m.isolator(in.Isolator)
	if i == nil {
		m.log(Error, "an isolator came up that the agent does not have", "isolator", in.Isolator)
		return
	}
	before := m.withheld()
	i.up = false
	m.withheldMayChange(before)
	if string(i.spec) != string(in.Spec) || !i.stored.known {
		i.spec = in.Spec
		m.touch(i)
	}
	known := Recover{Isolator: i.name}
	for _, c := range m.sortedContainers() {
		for _, l := range c.chain {
			if l.Isolator == i.name {
				known.Known = append(known.Known, &isolatorv1.Known{
					Container: c.id, Handle: l.Handle, Launcher: l.Launcher, Sandbox: c.sandbox, Task: m.knownTask(c),
				})
			}
		}
	}
	for _, s := range m.sortedStandalone() {
		if k := m.standaloneKnown(s, i.name); k != nil {
			known.Known = append(known.Known, k)
		}
	}
	m.immediate = append(m.immediate, known)
}

// knownTask is isolatorTask for a container whose task may be forgotten.
func (m *Machine) knownTask(c *container) *isolatorv1.Task {
	if c != c.executor.root && c.task == nil || c.task == nil && c.executor.info == nil {
		return &isolatorv1.Task{FrameworkId: c.executor.framework.id, Parent: c.parent()}
	}
	return m.isolatorTask(c)
}

func (m *Machine) isolatorRecovered(in IsolatorRecovered) {
	i := m.isolator(in.Isolator)
	if i == nil {
		return
	}
	before := m.withheld()
	i.up, i.answered = true, true
	i.orphans = append([]string{}, in.Orphans...)
	found := map[string]*isolatorv1.Recovered{}
	for _, r := range in.Containers {
		found[r.GetContainer()] = r
	}
	for _, c := range m.sortedContainers() {
		if m.containers[c.id] == c && Launcher(c.chain) == i.name {
			m.recoverContainer(c, found[c.id])
		}
	}
	for _, s := range m.sortedStandalone() {
		if s.living() && Launcher(s.chain) == i.name {
			m.recoverStandalone(s, found[s.id])
		}
	}
	m.allAnswered()
	m.withheldMayChange(before)
}

// recoverContainer takes a launcher's word on what became of a container. r is
// nil when it knows nothing of it.
func (m *Machine) recoverContainer(c *container, r *isolatorv1.Recovered) {
	alive := r.GetState() == isolatorv1.Recovered_STATE_RUNNING || r.GetState() == isolatorv1.Recovered_STATE_EXITED
	if alive && r.GetPid() != 0 && r.GetPid() != c.pid {
		c.pid = r.GetPid()
		m.touch(c)
	}
	switch c.phase {
	case unknown, running:
		if !alive {
			m.lostContainer(c)
			return
		}
		m.resumed(c)
	case unborn:
		if !alive {
			m.unstarted(c)
			return
		}
		// It was started; that alone had not been written yet.
		if c.task == nil {
			m.resumed(c)
			return
		}
		m.taskRuns(c)
	}
}

// resumed goes on with a container that was started by an earlier process of
// the agent, or of the plugin.
func (m *Machine) resumed(c *container) {
	again := c.phase != running
	if !again {
		return
	}
	if c.task == nil {
		c.executor.stale = true // what it was to be given last may not have been done
		m.rootRuns(c)
		return
	}
	c.phase = running
	m.wait(c)
	if t := c.task; t.kill != nil {
		m.killing(t)
		m.effect(Kill{Container: c.id, Launcher: Launcher(c.chain), Grace: max(0, t.kill.deadline.Sub(m.now))})
	} else if c.limitation != nil {
		m.effect(Kill{Container: c.id, Launcher: Launcher(c.chain), Signal: sigkill})
	} else {
		t.healthy, t.checked = t.status.Healthy, t.status.CheckStatus
		m.startProbes(t)
	}
}

// lostContainer ends what ran in a container that is no more.
func (m *Machine) lostContainer(c *container) {
	if c.executor.program != nil {
		m.programExited(c.executor, &isolatorv1.ExitStatus{})
		return
	}
	if c.task == nil {
		m.log(Warn, "the root container of a task group is lost", "container_id", c.id, "executor_id", c.executor.id)
		m.failLaunches(c, "the executor's root container is lost")
		c.phase, c.lost = running, true // what is nested in it says itself what became of it
		m.retireExecutor(c.executor)
		return
	}
	m.finishTask(c.task, m.outcome(c.task, c, &isolatorv1.ExitStatus{}))
	m.cleanup(c)
}

// unstarted ends the launch of a container that a restart of the agent cut off.
func (m *Machine) unstarted(c *container) {
	if e := c.executor; e.program != nil {
		m.dropLaunches(e)
		for _, t := range slices.Clone(e.tasks) {
			m.finishTask(t, m.neverStarted(t))
		}
		m.unlist(e)
		m.tellExited(e, &isolatorv1.ExitStatus{})
		m.cleanup(c)
		return
	}
	if c.task == nil {
		for _, t := range slices.Clone(c.executor.tasks) {
			if nested := m.containers[t.container]; nested != nil && nested.phase == unborn {
				m.finishTask(t, m.neverStarted(t))
				m.cleanup(nested)
			}
		}
		m.failLaunches(c, "the executor's root container was not started before the agent was restarted")
		m.retireExecutor(c.executor)
		return
	}
	m.finishTask(c.task, m.neverStarted(c.task))
	m.cleanup(c)
}

// allAnswered begins to clean up, once every isolator has said what there is.
func (m *Machine) allAnswered() {
	for _, i := range m.isolators {
		if !i.answered {
			return
		}
	}
	if !m.recovered {
		m.recovered, m.recoveredAt = true, m.now
		for _, c := range m.deferred {
			m.effect(Cleanup{Container: c.id, Chain: slices.Clone(c.chain), Sandbox: c.sandbox})
		}
		m.deferred = nil
		for _, s := range m.sortedStandalone() {
			if s.phase == cleaning && !s.over {
				m.cleanStandalone(s)
			}
		}
	}
	var chain []Link
	orphans := map[string]bool{}
	for _, i := range m.isolators {
		chain = append(chain, Link{Isolator: i.name})
		for _, id := range i.orphans {
			orphans[id] = m.containers[id] == nil && (m.standalone[id] == nil || m.standalone[id].over)
		}
		i.orphans = nil
	}
	for _, id := range slices.Sorted(maps.Keys(orphans)) {
		if orphans[id] {
			m.log(Warn, "cleaning up a container that the agent knows nothing of", "container_id", id)
			m.orphans[id] = true
			m.effect(Cleanup{Container: id, Chain: chain})
		}
	}
}

func (m *Machine) isolatorHealth(in IsolatorHealth) {
	i := m.isolator(in.Isolator)
	if i == nil {
		return
	}
	before := m.withheld()
	i.healthy, i.reason = in.Healthy, in.Reason
	if !in.Healthy && i.reason == "" {
		i.reason = "gives no reason"
	}
	m.withheldMayChange(before)
}

// withheld is why the agent's resources must not be offered; empty: they may.
func (m *Machine) withheld() string {
	for _, i := range m.isolators {
		switch {
		case !i.configured:
		case !i.healthy:
			return fmt.Sprintf("isolator %s: %s", i.name, i.reason)
		case !i.up:
			return fmt.Sprintf("isolator %s: has not recovered yet", i.name)
		}
	}
	if n := len(m.orphans); n > 0 { // they still use what would be offered
		return fmt.Sprintf("containers that the agent knows nothing of are being cleaned up: %d", n)
	}
	return m.missingAdapter()
}

func (m *Machine) withheldMayChange(before string) {
	now := m.withheld()
	if now == before {
		return
	}
	switch {
	case now == "":
		m.log(Info, "all plugins are ready: resources may be offered")
	case before == "":
		m.log(Warn, "resources are withheld", "reason", now)
	default:
		m.log(Debug, "resources are still withheld", "reason", now)
	}
	m.tellState()
}

// tellState tells the master of the agent when it has heard otherwise.
func (m *Machine) tellState() {
	if m.link.state != registered || m.standing() == m.link.told {
		return
	}
	p := corelink.NewPacker()
	a := m.agent(p)
	m.link.told = m.standing()
	m.sendMaster(&linkv1.AgentMessage{Message: &linkv1.AgentMessage_State{State: &linkv1.AgentState{Agent: a, Kinds: p.Kinds(), Operations: m.link.taken}}})
}

// Retired are the isolators that are not in the configuration any more and that
// containers still need, with what was noted to launch them again.
func (m *Machine) Retired() map[string][]byte {
	list := map[string][]byte{}
	for _, i := range m.isolators {
		if !i.configured {
			list[i.name] = i.spec
		}
	}
	return list
}

// setIsolators takes over which isolators the configuration has, and in which
// order.
func (m *Machine) setIsolators(in SetIsolators) {
	before := m.withheld()
	var list []*isolator
	for _, name := range in.Isolators {
		i := m.isolator(name)
		if i == nil {
			i = &isolator{name: name, reason: "has not started yet"}
		}
		i.configured = true
		list = append(list, i)
	}
	var retired []*isolator
	for _, i := range m.isolators {
		if !slices.Contains(list, i) {
			i.configured = false
			retired = append(retired, i)
		}
	}
	slices.SortFunc(retired, func(a, b *isolator) int { return strings.Compare(a.name, b.name) })
	m.isolators = append(list, retired...)
	m.log(Info, "isolators of the configuration", "isolators", strings.Join(in.Isolators, " "))
	m.retireIsolators()
	m.withheldMayChange(before)
}

// retireIsolators forgets isolators that are neither configured nor needed.
func (m *Machine) retireIsolators() {
	gone := func(i *isolator) bool {
		if i.configured {
			return false
		}
		needs := func(l Link) bool { return l.Isolator == i.name }
		for _, c := range m.containers {
			if slices.ContainsFunc(c.chain, needs) {
				return false
			}
		}
		for _, s := range m.standalone {
			if s.living() && slices.ContainsFunc(s.chain, needs) {
				return false
			}
		}
		return true
	}
	if !slices.ContainsFunc(m.isolators, gone) {
		return
	}
	for _, i := range m.isolators {
		if gone(i) {
			m.forget(i)
			m.effect(Retire{Isolator: i.name})
		}
	}
	m.isolators = slices.DeleteFunc(m.isolators, gone)
}
