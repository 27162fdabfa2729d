package sim

import (
	"slices"
	"strings"
	"time"

	"github.com/mezzo-os/mezzo/core/master/state"
	"github.com/mezzo-os/mezzo/sdk/allocator"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
	"github.com/mezzo-os/mezzo/sdk/resource"
)

// The invariants. After every step: the master's audit, the engine's audit, an
// agent obeys no past epoch, a process is started once, nothing is over-
// committed, updates come once and in order (scheduler.update). Now and then:
// what is shown overlaps nowhere, the engine's mirror is the master's books.
// When all is healed: everybody agrees, and at last nothing is left.

// checkMaster audits a master: after every step while things go wrong, after
// some when little happens any more.
func (w *world) checkMaster(m *master) {
	if m.audits++; w.closing && m.audits%32 != 0 || m.audits%w.cfg.AuditEvery != 0 {
		return
	}
	if err := m.m.Audit(); err != nil {
		w.fail([]string{m.name}, "audit of %s: %v", m.name, err)
	}
}

// taskStarts: a task's process runs at most once, ever.
func (w *world) taskStarts(c *container) {
	l := w.lives[c.task]
	subjects := []string{c.host.name, c.task.id, c.task.framework}
	switch {
	case l == nil:
		w.fail(subjects, "%s starts task %s, which nobody has launched", c.host.name, c.task.id)
	case l.started != "":
		w.fail(subjects, "task %s is started on %s in %s; it was started on %s before", c.task.id, c.host.name, short(c.id), l.started)
	case l.refused:
		w.fail(subjects, "task %s is started on %s, and its scheduler was told that it was refused", c.task.id, c.host.name)
	default:
		l.started = c.host.name
		w.report.Started++
	}
}

// checkCommitment: what runs on a host is not more than the host has.
func (w *world) checkCommitment(h *host, started *container) {
	var use resource.Resources
	roots := map[string]bool{}
	tasks := []string{h.name}
	for _, c := range h.running() {
		if overlap := use.Intersect(c.use).RangesOf("ports"); len(overlap) > 0 {
			w.fail([]string{h.name, c.task.id, started.task.id}, "%s: ports %v are used twice, by %s", h.name, overlap, c.task.id)
		}
		use = use.Add(c.use)
		tasks = append(tasks, c.task.id)
		parent := c.parent
		if c.within != nil {
			parent = c.within.c.id
		}
		if parent != "" && !roots[parent] {
			roots[parent] = true
			use = use.Add(groupExecutor)
		}
	}
	if !h.total.Contains(use) {
		w.fail(tasks, "%s is over-committed: %s run on %s", h.name, use, h.total)
	}
}

// checkViews: what a master shows of an agent is no more than the agent has, and
// offers and tasks do not overlap.
func (w *world) checkViews(m *master) {
	if m.epoch != w.registry.store.epoch {
		// Another has launched tasks since, of which this one may have heard without
		// knowing which of its own are no more.
		return
	}
	w.checkPromises(m)
	sum := map[string]resource.Resources{}
	add := func(agent, what string, res resource.Resources) {
		res = res.Unallocate()
		if overlap := sum[agent].Intersect(res).RangesOf("ports"); len(overlap) > 0 {
			w.fail([]string{m.name, agent}, "%s: ports %v of %s are given away twice, the second time to %s", m.name, overlap, agent, what)
		}
		sum[agent] = sum[agent].Add(res)
	}
	for _, id := range sorted(m.views.offers) {
		o := m.views.offers[id]
		add(o.AgentID, "offer "+id, o.Resources.NonShared())
	}
	for _, key := range m.sortedTasks() {
		t := m.views.tasks[key]
		if a := m.views.agents[t.AgentID]; a == nil || a.State == state.AgentUnreachable || t.Completed || !t.Finished.IsZero() || nowhere(t.State) || t.State == mezzov1.TaskState_TASK_UNREACHABLE {
			continue
		}
		add(t.AgentID, "task "+key.TaskID, t.Resources.NonShared())
	}
	for _, id := range sorted(m.views.agents) {
		a := m.views.agents[id]
		if a.State == state.AgentUnreachable || m.lacks(a) {
			continue
		}
		if !a.Total.Contains(sum[id]) {
			w.fail([]string{m.name, id}, "%s: offers and tasks of agent %s are %s, it has %s", m.name, id, sum[id], a.Total)
		}
	}
}

// lacks is whether an agent does not have what tasks on it are held to use, since
// the operation that was to make it never reached the agent, or was refused. Such
// tasks do not run, which the agent is about to say. No operation changes amounts.
func (m *master) lacks(a *state.AgentView) bool {
	used := a.Used.Unallocate().NonShared()
	return !a.Total.Contains(used) && a.Total.Quantities().Contains(used.Quantities())
}

// patience is how long an agent's resources may be free, while somebody wants
// offers, until that is held to be a mistake: longer than any filter.
const patience = 12 * time.Second

// checkOffered: in a healed cluster what is free is offered, as long as somebody
// wants offers.
func (w *world) checkOffered() {
	m := w.leader
	var wanting []*scheduler
	for _, s := range w.schedulers {
		if s.subscribed && !s.suppressed && s.cur.master == m {
			wanting = append(wanting, s)
		}
	}
	if !w.healed || w.closing || len(wanting) == 0 {
		clear(w.free)
		return
	}
	for _, id := range sorted(m.views.agents) {
		a := m.views.agents[id]
		left := a.Total.Minus(a.Used.Unallocate())
		if a.State != state.AgentActive || !a.Offered.IsEmpty() || !slices.ContainsFunc(wanting, func(s *scheduler) bool { return s.wants(left) }) {
			delete(w.free, id)
			continue
		}
		since, known := w.free[id]
		if !known {
			w.free[id] = w.now
		} else if w.now-since > patience {
			w.fail([]string{m.name, id}, "%s of agent %s are free since %v and not offered, and there are frameworks that want offers", left, id, since)
		}
	}
}

// least is what is worth an offer.
var least = resource.MustParse("cpus:0.1;mem:64").Quantities()

// wants is whether the framework may have enough of what is left of an agent, in
// one of its roles.
func (s *scheduler) wants(left resource.Resources) bool {
	refined := s.can(mezzov1.FrameworkInfo_Capability_RESERVATION_REFINEMENT)
	left = left.Filter(func(k resource.Kind) bool { return !k.Shared() && (refined || !k.IsRefined()) })
	return slices.ContainsFunc(s.info.GetRoles(), func(role string) bool { return left.AllocatableTo(role).Quantities().Contains(least) })
}

func (m *master) sortedTasks() []state.TaskKey {
	keys := make([]state.TaskKey, 0, len(m.views.tasks))
	for k := range m.views.tasks {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b state.TaskKey) int {
		if c := strings.Compare(a.FrameworkID, b.FrameworkID); c != 0 {
			return c
		}
		return strings.Compare(a.TaskID, b.TaskID)
	})
	return keys
}

// checkMirror: when nothing is under way between a master and its allocator,
// the engine believes what the master has in its books.
func (w *world) checkMirror(m *master) {
	s := m.session
	if s == nil || s.rogue || !s.quiet() {
		return
	}
	mirror, err := s.mirror()
	if err != nil {
		w.fail([]string{m.name}, "the mirror of %s: %v", m.name, err)
		return
	}
	for _, id := range sorted(m.views.agents) {
		v, a := m.views.agents[id], mirror[id]
		delete(mirror, id)
		gone := v.State == state.AgentUnreachable || v.State == state.AgentDisconnected && a == nil
		switch {
		case gone && a == nil:
		case gone != (a == nil):
			w.fail([]string{m.name, id}, "%s has agent %s as %s; in the engine's mirror: %v", m.name, id, v.State, a != nil)
		case a.Active != (v.State == state.AgentActive):
			w.fail([]string{m.name, id}, "%s has agent %s as %s, the engine as active: %v", m.name, id, v.State, a.Active)
		default:
			held := heldOn(a)
			if want := v.Used.Add(v.Offered).Unallocate(); !want.Equal(held) || !a.Total.Equal(v.Total) {
				w.fail([]string{m.name, id}, "agent %s: %s has %s of %s held, the engine %s of %s", id, m.name, want, v.Total, held, a.Total)
			}
		}
	}
	for _, id := range sorted(mirror) {
		w.fail([]string{m.name, id}, "the engine has agent %s, which %s does not have", id, m.name)
	}
}

func heldOn(a *allocator.AgentUpdated) resource.Resources {
	var held resource.Resources
	for _, h := range a.Holdings {
		held = held.Add(h.Resources.Unallocate())
	}
	return held
}

// checkFreshSession: an allocator that has followed every event believes the
// same as one that is told all anew.
func (w *world) checkFreshSession() {
	m := w.leader
	if w.failure != nil {
		return
	}
	for n := 0; (m.session == nil || !m.session.quiet()) && w.failure == nil; n++ {
		if n > 1000 {
			w.fail([]string{m.name}, "the allocator of %s never comes to rest", m.name)
		}
		w.until(w.now + 10*time.Millisecond)
	}
	if w.failure != nil {
		return
	}
	old := m.session
	believed, err := old.mirror()
	if err != nil {
		w.fail([]string{m.name}, "the mirror of %s: %v", m.name, err)
		return
	}
	w.checkMirror(m)
	w.note([]string{everybody}, "a fresh session")
	w.endSession(m, "to compare")
	w.until(w.now + time.Second)
	if w.failure == nil && m.session != nil {
		told, err := m.session.mirror()
		switch {
		case err != nil:
			w.fail([]string{m.name}, "the mirror of %s: %v", m.name, err)
		case len(told) != len(believed):
			w.fail([]string{m.name}, "the engine knew %d agents, and a fresh one is told of %d", len(believed), len(told))
		}
		w.checkMirror(m)
	}
}

// checkAgreement: the cluster is healed and at rest. Every launch has ended, or
// runs, and everybody knows which.
func (w *world) checkAgreement() {
	m := w.leader
	for _, h := range w.hosts {
		v := h.m.View()
		if v.State != "registered" || v.Withheld != "" || v.Epoch != m.epoch {
			w.fail([]string{h.name, v.AgentID}, "%s is %s at epoch %d (the leader's is %d), withheld %q, long after everything was healed", h.name, v.State, v.Epoch, m.epoch, v.Withheld)
		}
		if a := m.views.agents[v.AgentID]; a == nil || a.State != state.AgentActive {
			w.fail([]string{h.name, v.AgentID}, "%s is registered as %s, and the master does not show it as active: %+v", h.name, v.AgentID, a)
		}
	}
	for _, s := range w.schedulers {
		if !s.subscribed {
			w.fail([]string{s.name, s.id}, "%s is not subscribed, long after everything was healed", s.name)
		}
	}
	running := map[taskKey][]*container{}
	for _, h := range w.hosts {
		for _, c := range h.running() {
			running[c.task] = append(running[c.task], c)
		}
	}
	remembered := w.remembered()
	w.checkDeeds(remembered)
	for _, key := range w.order {
		w.checkTask(w.lives[key], running[key], remembered)
	}
}

// remembered are the ids that agents know of themselves. One that has lost its
// disk does not, nor one that was cut off before it was told.
func (w *world) remembered() map[string]bool {
	ids := map[string]bool{}
	for _, h := range w.hosts {
		ids[h.m.View().AgentID] = true
	}
	return ids
}

// checkTask is checkAgreement for one task.
func (w *world) checkTask(l *life, running []*container, remembered map[string]bool) {
	subjects := []string{l.key.id, l.key.framework}
	if len(running) > 1 {
		w.fail(subjects, "task %s runs %d times", l.key.id, len(running))
	}
	if l.abandoned {
		if len(running) > 0 {
			w.fail(append(subjects, running[0].host.name), "task %s runs on %s, and its framework was removed", l.key.id, running[0].host.name)
		}
		return
	}
	r := l.sched.tasks[l.key.id]
	if len(running) == 0 {
		switch {
		case r.over():
			w.report.Ended++
		case !remembered[r.agent] && (nowhere(r.believed) || r.believed == mezzov1.TaskState_TASK_UNREACHABLE):
			w.report.Ended++ // its agent has lost all memory of it
		case len(r.updates) > 0:
			w.fail(append(subjects, r.agent), "task %s was %s and runs nowhere; its scheduler was never told of its end", r.id, r.updates[len(r.updates)-1].GetState())
		case l.started != "":
			w.fail(append(subjects, r.agent, l.started), "task %s was started on %s and runs nowhere; its scheduler was told nothing of it", r.id, l.started)
		case !nowhere(r.believed):
			w.fail(append(subjects, r.agent), "task %s was never started, and its scheduler holds it to be %s", r.id, r.believed)
		default:
			w.report.Refused++
		}
		return
	}
	h := running[0].host
	subjects = append(subjects, h.name, r.agent)
	switch {
	case r.over():
		w.fail(subjects, "task %s runs on %s, and its scheduler holds it to have ended", r.id, h.name)
	case r.killed:
		w.fail(subjects, "task %s runs on %s, and its scheduler has asked for its end again and again", r.id, h.name)
	case len(r.updates) == 0:
		w.fail(subjects, "task %s runs on %s, and its scheduler was never told", r.id, h.name)
	}
	if found := h.m.Find(l.key.framework, l.key.id); len(found) != 1 || found[0].Status.GetState() != mezzov1.TaskState_TASK_RUNNING {
		w.fail(subjects, "task %s runs on %s; the agent knows %v", r.id, h.name, found)
	}
	v := w.leader.views.tasks[state.TaskKey{FrameworkID: l.key.framework, TaskID: l.key.id}]
	if v == nil || v.State != mezzov1.TaskState_TASK_RUNNING || v.AgentID != r.agent || v.Completed {
		w.fail(subjects, "task %s runs on %s; the master shows %+v", r.id, h.name, v)
	}
}

// checkNothingLeft: all tasks have ended, and nobody remembers anything but the
// past.
func (w *world) checkNothingLeft() {
	if w.failure != nil {
		return
	}
	remembered := w.remembered()
	for _, key := range w.order {
		l := w.lives[key]
		if r := l.sched.tasks[key.id]; !l.abandoned && remembered[r.agent] && len(r.updates) > 0 && !r.over() {
			w.fail([]string{key.id, r.agent}, "task %s has ended, and its scheduler was not told", key.id)
		}
	}
	for _, h := range w.hosts {
		v := h.m.View()
		for _, c := range v.Containers {
			w.fail([]string{h.name, c.TaskID}, "%s: the agent still has container %s of task %q", h.name, short(c.ID), c.TaskID)
		}
		for _, t := range v.Tasks {
			w.fail([]string{h.name, t.ID}, "%s: the agent still has task %s (%s)", h.name, t.ID, t.Status.GetState())
		}
		for _, id := range sorted(h.containers) {
			w.fail([]string{h.name, h.containers[id].task.id}, "%s: container %s of task %q is left behind", h.name, short(id), h.containers[id].task.id)
		}
		for _, bucket := range []string{"tasks", "taskinfos", "containers", "executors", "frameworks", "operations", "chores"} {
			if left := sorted(h.disk[bucket]); len(left) > 0 {
				w.fail([]string{h.name}, "%s: records are left in %s: %q", h.name, bucket, left)
			}
		}
	}
	m := w.leader
	for _, id := range sorted(m.views.agents) {
		if a := m.views.agents[id]; a.State != state.AgentUnreachable && (!a.Used.IsEmpty() || a.Tasks > 0) {
			var left []string
			for key := range m.views.executors {
				if key.AgentID == id {
					left = append(left, key.ExecutorID)
				}
			}
			slices.Sort(left)
			w.fail(append(left, m.name, id), "%s: %s are used on agent %s, where nothing runs (%d tasks, executors %q)", m.name, a.Used, id, a.Tasks, left)
		}
	}
	for _, key := range m.sortedTasks() {
		if t := m.views.tasks[key]; !t.Completed && remembered[t.AgentID] {
			w.fail([]string{m.name, key.TaskID}, "%s still has task %s as %s", m.name, key.TaskID, t.State)
		}
	}
}

// checkRemoval: a framework is removed because it was torn down, or was away for
// longer than its failover timeout, and for no other reason.
func (s *scheduler) checkRemoval() {
	timeout := time.Duration(s.info.GetFailoverTimeout() * float64(time.Second))
	away := s.w.now - s.led
	if s.id != "" && !s.torn && away+2*time.Second < timeout {
		s.w.fail([]string{s.name, s.id}, "framework %s was removed; nobody tore it down, it was away for %v at most, and its failover timeout is %v", s.id, away, timeout)
	}
}
