package state

import (
	"fmt"

	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
	"github.com/mezzo-os/mezzo/sdk/resource"
)

// Books returns, for tests, the total of each agent in the books, and what is
// held on it by framework and role.
func (m *Machine) Books() (total map[string]resource.Resources, held map[string]map[[2]string]resource.Resources) {
	total, held = map[string]resource.Resources{}, map[string]map[[2]string]resource.Resources{}
	for _, id := range m.books.Agents() {
		v, _ := m.books.Agent(id)
		total[id], held[id] = v.Total, map[[2]string]resource.Resources{}
		for _, h := range m.books.HoldingsOn(id) {
			held[id][[2]string{h.Framework, h.Role}] = h.Offered.Add(h.Used)
		}
	}
	return total, held
}

// Everything returns, for tests, what a watcher that saw every Publish must
// know: views by kind and id.
func (m *Machine) Everything() map[string]any {
	out := map[string]any{}
	for id, a := range m.agents {
		if a.phase != admitting && a.phase != gone {
			out["agent "+id] = m.agentView(a)
		}
		for _, e := range a.executors {
			out[fmt.Sprint("executor ", e.viewKey())] = e.view()
		}
		for uuid, p := range a.operations {
			out["operation "+uuid] = p.view()
		}
	}
	tasks := func(f *framework) {
		for _, t := range f.past { // the newest of one id stays
			out["task "+t.key.FrameworkID+"/"+t.key.TaskID] = t.view()
		}
		for _, t := range f.tasks {
			out["task "+t.key.FrameworkID+"/"+t.key.TaskID] = t.view()
		}
	}
	for id, f := range m.frameworks {
		if f.phase != frameworkAdmitting {
			out["framework "+id] = m.frameworkView(f)
			tasks(f)
		}
	}
	for id, f := range m.finished {
		out["framework "+id] = m.frameworkView(f)
		tasks(f)
	}
	for _, o := range m.offers.all() {
		out["offer "+o.id] = o.view()
	}
	p := Publish{}
	for _, name := range sortedKeys(m.roles) {
		m.publishRole(m.roles[name], &p)
	}
	for _, r := range p.Roles {
		out["role "+r.Name] = r
	}
	return out
}

// CompleteTask is a task as its agent gets it.
func CompleteTask(info *mezzov1.TaskInfo) *mezzov1.TaskInfo { return completeTask(info, nil, "r") }
