package state

import (
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/mezzo-os/mezzo/core/ledger"
	"github.com/mezzo-os/mezzo/sdk/resource"

	linkv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/link/v1"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
	schedulerv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1/scheduler"
)

type executorKey struct{ framework, id string }

// executor runs the tasks of a custom executor or of a task group. What it has
// for itself it holds from its first launch until it has exited.
type executor struct {
	key       executorKey
	agent     *agent
	framework *framework
	info      *mezzov1.ExecutorInfo
	role      string
	resources resource.Resources
	live      int // its tasks that have not ended
	// proven: the agent has told of it or of a task of it. One that is not may
	// never have come to be.
	proven bool
	// held: its resources are in the books.
	held  bool
	dirty bool
}

func (e *executor) use() ledger.Key {
	return ledger.Key{Agent: e.agent.id, Framework: e.key.framework, Kind: ledger.Executor, ID: e.key.id}
}

func (m *Machine) addExecutor(a *agent, f *framework, info *mezzov1.ExecutorInfo, role string, res resource.Resources) *executor {
	e := &executor{
		key: executorKey{f.id, info.GetExecutorId().GetValue()}, agent: a, framework: f,
		info: info, role: role, resources: res, held: true,
	}
	a.executors[e.key] = e
	f.executors++
	m.touchExecutor(e)
	return e
}

// forgetExecutor drops an executor; the caller sees to the books.
func (m *Machine) forgetExecutor(e *executor) {
	delete(e.agent.executors, e.key)
	m.recheckDrain(e.agent)
	e.framework.executors--
	e.held = false
	m.dirty.executorsRemoved = append(m.dirty.executorsRemoved, e.viewKey())
}

// forgetExecutors drops all executors of an agent that is not there any more. A
// framework that was removed may have had nothing else.
func (m *Machine) forgetExecutors(a *agent) {
	for _, e := range m.executorsOf(a) {
		m.forgetExecutor(e)
		m.dropIfIdle(e.framework)
	}
}

// removeExecutor frees what an executor holds and drops it.
func (m *Machine) removeExecutor(e *executor) {
	if e.agent.executors[e.key] != e {
		return
	}
	held := e.held
	m.forgetExecutor(e)
	if held {
		m.release(e.use())
	}
	m.touchAgent(e.agent)
	m.touchFramework(e.framework)
	m.dropIfIdle(e.framework)
}

// retireExecutor drops an executor whose last task has ended, if it ends with
// its tasks or may never have begun. A custom one lives on until it exits.
func (m *Machine) retireExecutor(e *executor) {
	if e.live == 0 && (!e.proven || e.info.GetType() == mezzov1.ExecutorInfo_DEFAULT) {
		m.removeExecutor(e)
	}
}

func (m *Machine) executorsOf(a *agent) []*executor {
	out := make([]*executor, 0, len(a.executors))
	for _, e := range a.executors {
		out = append(out, e)
	}
	slices.SortFunc(out, func(x, y *executor) int {
		if c := strings.Compare(x.key.framework, y.key.framework); c != 0 {
			return c
		}
		return strings.Compare(x.key.id, y.key.id)
	})
	return out
}

// executorExited: an executor has ended; the agent tells of its tasks by updates.
// With tasks it is dropped with the last of these: a launch that is on its way may
// have it begin anew.
func (m *Machine) executorExited(a *agent, x *linkv1.ExecutorExited) {
	e := a.executors[executorKey{x.GetFrameworkId(), x.GetExecutorId()}]
	if e == nil {
		return // of a command task, or known to be gone
	}
	f := e.framework
	m.logf(Info, "executor exited", "agent_id", a.id, "framework_id", f.id, "executor_id", e.key.id, "status", int(x.GetStatus()))
	e.proven = false
	m.retireExecutor(e)
	if f.connected() {
		m.event(f, &schedulerv1.Event{Type: schedulerv1.Event_FAILURE.Enum(), Failure: &schedulerv1.Event_Failure{
			AgentId: a.pid, ExecutorId: e.info.GetExecutorId(), Status: proto.Int32(x.GetStatus()),
		}})
	}
}

// executorMessage passes an executor's bytes on, if somebody is there.
func (m *Machine) executorMessage(a *agent, msg *linkv1.FrameworkMessage) {
	f := m.frameworks[msg.GetFrameworkId()]
	if f == nil || !f.connected() {
		return
	}
	m.event(f, &schedulerv1.Event{Type: schedulerv1.Event_MESSAGE.Enum(), Message: &schedulerv1.Event_Message{
		AgentId: a.pid, ExecutorId: &mezzov1.ExecutorID{Value: proto.String(msg.GetExecutorId())}, Data: msg.GetData(),
	}})
}
