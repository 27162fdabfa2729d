package state

import (
	"errors"
	"fmt"

	"github.com/mezzo-os/mezzo/core/ledger"
)

// Audit proves that what the machine knows and what the books say agree, and
// returns all that does not. It looks at everything: for tests and simulators.
func (m *Machine) Audit() error {
	var errs []error
	wrong := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if err := m.books.Audit(); err != nil {
		wrong("ledger: %w", err)
	}
	uses := map[ledger.Key]bool{}
	awaited := 0
	for _, id := range sortedKeys(m.agents) {
		m.auditAgent(m.agents[id], uses, wrong)
		if m.agents[id].phase == recovering {
			awaited++
		}
	}
	if awaited != m.recovering {
		wrong("%d agents are recovering, counted are %d", awaited, m.recovering)
	}
	for _, id := range m.books.Agents() {
		if a := m.agents[id]; a == nil || a.phase != present {
			wrong("agent %s is in the books and not present", id)
		}
		for _, u := range m.books.UsesOn(id) {
			if !uses[u.Key] {
				wrong("the books have %s, which nobody knows", u.Key)
			}
		}
		for _, o := range m.books.OffersOn(id) {
			if m.offer(o.ID) == nil {
				wrong("the books have offer %s, which nobody knows", o.ID)
			}
		}
	}
	m.auditFrameworks(wrong)
	m.auditOffers(wrong)
	m.auditFilters(wrong)
	m.auditMaintenance(wrong)
	for t := range m.revocations.underWay {
		if !t.held || t.revoked == nil {
			wrong("task %s is being revoked and holds nothing", t.use())
		}
	}
	for number, t := range m.revocations.byNumber {
		if !t.held || t.number != number {
			wrong("task %s is known by number %d and holds nothing, or has another", t.use(), number)
		}
	}
	return errors.Join(errs...)
}

func (m *Machine) auditAgent(a *agent, uses map[ledger.Key]bool, wrong func(string, ...any)) {
	live := 0
	executorTasks := map[*executor]int{}
	for key, t := range a.tasks {
		if t.key != key || t.agent != a {
			wrong("agent %s has task %v under another name", a.id, key)
		}
		if m.frameworks[key.FrameworkID] != t.framework {
			wrong("task %v is of a framework that is not known", key)
		}
		if t.completed {
			wrong("task %v is completed and still on agent %s", key, a.id)
		}
		u, held := m.books.UseOf(t.use())
		if held != t.held {
			wrong("task %v: held is %v, in the books %v", key, t.held, held)
		}
		if !t.held {
			if a.phase == present && !t.latest.Terminal() && !t.lost {
				wrong("task %v is %s on agent %s and holds nothing", key, t.latest, a.id)
			}
			continue
		}
		if t.latest.Terminal() {
			wrong("task %v has ended (%s) and holds resources", key, t.latest)
		}
		if u.Role != t.role || !u.Resources.Equal(t.resources) {
			wrong("task %v holds %s in role %s, the books say %s in %s", key, t.resources, t.role, u.Resources, u.Role)
		}
		uses[t.use()] = true
		live++
		if t.executor != nil {
			executorTasks[t.executor]++
		}
	}
	if live != a.live {
		wrong("agent %s has %d live tasks, counted are %d", a.id, live, a.live)
	}
	for key, e := range a.executors {
		u, held := m.books.UseOf(e.use())
		if !held || !e.held || !u.Resources.Equal(e.resources) {
			wrong("executor %v on agent %s and the books differ", key, a.id)
		}
		if e.live != executorTasks[e] {
			wrong("executor %v on agent %s has %d live tasks, counted are %d", key, a.id, executorTasks[e], e.live)
		}
		uses[e.use()] = true
	}
	if v, known := m.books.Agent(a.id); known != (a.phase == present) || known && v.Active != a.active() {
		wrong("agent %s: the books and its phase differ", a.id)
	}
	if v, known := m.books.Agent(a.id); known && !v.Total.Equal(a.total) {
		wrong("agent %s has %s, the books say %s", a.id, a.total, v.Total)
	}
	for uuid, p := range a.operations {
		f := p.framework
		switch {
		case p.agent != a || p.uuid != uuid:
			wrong("agent %s has an operation under another name", a.id)
		case f == nil && a.link == nil:
			wrong("an operator waits for an operation of agent %s, which is away", a.id)
		case f != nil && (m.frameworks[f.id] != f || f.removed()):
			wrong("operation %s on agent %s is of a framework that is gone", p.id, a.id)
		}
	}
	if len(a.flights) > 0 && (a.link == nil || a.flights[len(a.flights)-1].number != a.sent) {
		wrong("agent %s has operations on their way that were not sent by its link", a.id)
	}
	if a.link != nil && (m.links[a.link.id] != a.link || a.link.agent != a) {
		wrong("agent %s has a link that is not its own", a.id)
	}
	if !a.active() && len(a.offers) > 0 {
		wrong("agent %s is not active and has %d offers", a.id, len(a.offers))
	}
	if a.phase == present && !a.marking && !a.leaving && !a.timer.set() {
		wrong("agent %s is present and nobody watches it", a.id)
	}
}

func (m *Machine) auditFrameworks(wrong func(string, ...any)) {
	executors := map[*framework]int{}
	live := map[*framework]int{}
	for _, a := range m.agents {
		for _, e := range a.executors {
			executors[e.framework]++
		}
		for _, t := range a.tasks {
			if t.held {
				live[t.framework]++
			}
		}
	}
	for id, f := range m.frameworks {
		if live[f] != f.live || executors[f] != f.executors {
			wrong("framework %s has %d live tasks and %d executors, counted are %d and %d", id, live[f], executors[f], f.live, f.executors)
		}
		for tid, t := range f.tasks {
			if t.agent.tasks[t.key] != t {
				wrong("task %s of framework %s is not on its agent", tid, id)
			}
		}
		for oid, p := range f.operations {
			if p.framework != f || p.id != oid || p.agent.operations[p.uuid] != p {
				wrong("operation %s of framework %s is not on its agent", oid, id)
			}
		}
		if f.stream != "" && m.streams[f.stream] != f {
			wrong("framework %s has a stream that is not its own", id)
		}
		if f.phase == frameworkLive && f.stream == "" && !f.clock.set() && !f.removing {
			wrong("framework %s is disconnected and no clock runs", id)
		}
		if f.connected() != f.heartbeat.set() {
			wrong("framework %s: connected is %v, its heartbeat is armed %v", id, f.connected(), f.heartbeat.set())
		}
		if (!f.connected() || f.removing) && len(f.offers) > 0 {
			wrong("framework %s is not connected and has %d offers", id, len(f.offers))
		}
		if f.removed() && len(f.tasks)+f.executors == 0 {
			wrong("framework %s is removed, has nothing left and is not completed", id)
		}
	}
	for s, f := range m.streams {
		if f.stream != s {
			wrong("stream %s is not its framework's", s)
		}
	}
}

func (m *Machine) auditOffers(wrong func(string, ...any)) {
	all := m.offers.all()
	for i, o := range all {
		id := o.id
		if i > 0 && (all[i-1].serial >= o.serial || all[i-1].decision >= o.decision) {
			wrong("offer %s is not in order", id)
		}
		b, ok := m.books.OfferOf(id)
		if !ok || b.Agent != o.agent.id || b.Framework != o.framework.id || b.Role != o.role || !b.Resources.Equal(o.resources) {
			wrong("offer %s and the books differ", id)
		}
		if o.framework.offers[o.atFramework] != o || o.agent.offers[o.atAgent] != o || m.offers.byDecision(o.decision) != o || m.offer(id) != o || o.over {
			wrong("offer %s is not where it says", id)
		}
		if o.timer.set() != (m.cfg.OfferTimeout > 0) {
			wrong("offer %s: its timeout is armed %v", id, o.timer.set())
		}
	}
	count := 0
	for _, a := range m.agents {
		count += len(a.offers)
	}
	if count != m.offers.len() {
		wrong("%d offers are known, agents have %d", m.offers.len(), count)
	}
}

func (m *Machine) auditFilters(wrong func(string, ...any)) {
	count := 0
	for _, a := range m.agents {
		for key, head := range a.filters {
			for x := head; x != nil; x = x.next {
				count++
				if x.key != key || x.agent != a || x.place == 0 || m.filters[x.place-1] != x || m.frameworks[key.framework] != x.framework {
					wrong("a filter of %v on agent %s is not where it says", key, a.id)
				}
			}
		}
	}
	if count != len(m.filters) {
		wrong("%d filters are on agents, %d in the heap", count, len(m.filters))
	}
}

func (m *Machine) auditMaintenance(wrong func(string, ...any)) {
	outstanding := 0
	for _, id := range sortedKeys(m.agents) {
		a := m.agents[id]
		if (a.maintenance != nil) != (m.maintained[id] == a) {
			wrong("agent %s has a planned unavailability and is not listed, or the reverse", id)
		}
		if a.maintenance == nil {
			continue
		}
		for fid, x := range a.maintenance.inverse {
			if x.agent != a || x.framework.id != fid || !x.framework.connected() {
				wrong("inverse offer %s of agent %s is to framework %s, which is another or not connected", x.id, id, fid)
			}
			if x.outstanding() {
				outstanding++
			}
			if x.outstanding() != (m.inverse[x.id] == x) {
				wrong("inverse offer %s is outstanding and not listed, or the reverse", x.id)
			}
		}
	}
	if outstanding != len(m.inverse) {
		wrong("%d inverse offers are outstanding, listed are %d", outstanding, len(m.inverse))
	}
}
