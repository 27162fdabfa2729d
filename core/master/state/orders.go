package state

import "fmt"

func (m *Machine) reply(r Request, err *OrderError) { m.emit(Reply{Request: r, Err: err}) }

// orderKill is an operator's wish to end a task.
func (m *Machine) orderKill(in KillTask) {
	var found []*task
	for _, id := range sortedKeys(m.frameworks) {
		if in.FrameworkID != "" && in.FrameworkID != id {
			continue
		}
		if t := m.frameworks[id].tasks[in.TaskID]; t != nil {
			found = append(found, t)
		}
	}
	switch len(found) {
	case 0:
		message := fmt.Sprintf("no task %q is known that has not ended", in.TaskID)
		if in.FrameworkID != "" {
			message = fmt.Sprintf("framework %s has no task %q that has not ended", in.FrameworkID, in.TaskID)
		}
		m.reply(in.Request, &OrderError{OrderNotFound, message})
	case 1:
		m.logf(Info, "operator kills a task", "framework_id", found[0].key.FrameworkID, "task_id", in.TaskID)
		m.killTask(found[0], nil)
		m.reply(in.Request, nil)
	default:
		m.reply(in.Request, &OrderError{OrderAmbiguous, fmt.Sprintf(
			"%d frameworks have a task %q (%s and %s among them): say which framework is meant",
			len(found), in.TaskID, found[0].key.FrameworkID, found[1].key.FrameworkID)})
	}
}

// orderTeardown is an operator's wish to end a framework, which happens, and is
// answered, once it is durable.
func (m *Machine) orderTeardown(in Teardown) {
	f := m.frameworks[in.FrameworkID]
	if f == nil || f.phase != frameworkLive {
		m.reply(in.Request, &OrderError{OrderNotFound, fmt.Sprintf("no framework %q is known that has not ended", in.FrameworkID)})
		return
	}
	m.removeFramework(f, "an operator tore it down", func() {
		if f.connected() {
			m.event(f, errorEvent("Framework was torn down by an operator"))
		}
		m.reply(in.Request, nil)
	})
}
